//! The systrap platform by itself: programs of a few instructions, run without a kernel behind them.
//!
//! A process of its own, because the platform replaces the memory behind the arena's page frames.

#![cfg(target_arch = "x86_64")]

#[expect(unsafe_code, reason = "assembled programs")]
mod programs;
#[expect(unsafe_code, reason = "page frames by address")]
mod world;

mod calls;
mod hostile;
mod kill;
mod switch;
