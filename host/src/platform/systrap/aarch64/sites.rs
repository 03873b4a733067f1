//! Rewriting of system call instructions, which is not done on this processor: the number is in a register that is often
//! set far from the `svc`, and there is no register that a call loses.

use super::super::layout::CELL_LEN;
use super::super::patches::{Before, Cell, Patches, Stop};
use crate::arch::UserRegs;
use crate::platform::Trap;

/// A call that can be rewritten: there is none.
#[derive(Clone, Copy)]
pub(in super::super) enum Site {}

impl Site {
    pub(in super::super) fn before(&self) -> Before {
        match *self {}
    }

    pub(in super::super) fn pad(&self) -> Option<(usize, usize)> {
        match *self {}
    }
}

pub(in super::super) fn find(_page: &[u8], _end: usize, _number: u32) -> Option<Site> {
    None
}

pub(in super::super) fn cell(_at: u64, _entry: u64, _cell: Cell) -> [u8; CELL_LEN as usize] {
    [0; CELL_LEN as usize]
}

pub(in super::super) fn divert(
    _page: &mut [u8],
    site: &Site,
    _va: u64,
    _cell: u64,
    _alias: Option<u64>,
) -> Option<bool> {
    match *site {}
}

pub(in super::super) fn after(
    trap: Trap,
    _regs: &mut UserRegs,
    _stop: &Stop<'_>,
    _patches: &Patches,
) -> Trap {
    trap
}
