//! aarch64: not there yet; refused by name.

use super::layout::Order;
use super::shared::Shared;
use crate::arch::{FpState, UserRegs};
use crate::platform::Trap;

pub(super) const ELF_MACHINE: u16 = 183;
/// AUDIT_ARCH_AARCH64.
pub(super) const AUDIT_ARCH: u32 = 0xc000_00b7;
pub(super) const TASK_SIZE: u64 = 1 << 48;

/// The stub's code and offsets into it.
pub(super) struct Code {
    pub(super) bytes: &'static [u8],
    pub(super) handler: u64,
    pub(super) after_wake: u64,
    pub(super) after_wait: u64,
    pub(super) after_return: u64,
}

pub(super) fn code() -> Code {
    Code { bytes: &[], handler: 0, after_wake: 0, after_wait: 0, after_return: 0 }
}

pub(super) fn unusable() -> Option<&'static str> {
    Some("systrap is not built for aarch64 yet")
}

pub(super) fn clone_thread() -> Order {
    Order::new(libc::SYS_clone, [0; 6])
}

pub(super) fn sigaction(handler: u64) -> [u64; 4] {
    [handler, 0, 0, !0]
}

/// Where things are in a slot.
#[derive(Clone)]
pub(super) struct Frames;

impl Frames {
    pub(super) fn learn(_: &Shared, _: u64, _: u64) -> Option<Self> {
        None
    }

    pub(super) fn write(&self, _: &Shared, _: u64, _: u64, _: u64, _: &UserRegs, _: &FpState) {}

    pub(super) fn read(&self, _: &Shared, _: u64, _: i32, _: &mut UserRegs, _: &mut FpState) -> Trap {
        Trap::Dead
    }
}
