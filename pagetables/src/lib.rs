//! pagetables.
#![no_std]
