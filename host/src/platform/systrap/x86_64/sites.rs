//! System call instructions that can be rewritten, and how.
//!
//! Only bytes in front of the `syscall` change, so that a jump to it, or a thread that has stopped before it, still makes
//! the call as ever:
//!
//! | code | becomes |
//! |---|---|
//! | `mov eax, imm32; syscall` | `jmp rel32` to a cell within 2 GiB, or `jmp [abs32]`, whose last two bytes *are* `0f 05` |
//! | `xor eax, eax; syscall; cmp rax, -4096; ja; ret; nop`, as libc reads | `jmp` to the `nop`, which becomes a `jmp` like above |
//! | `mov r9, [rsp + 8]; syscall` in libc's syscall(3) | as the first |
//!
//! A cell does what the instruction did, and then `mov ecx, DATA; jmp ENTRY`; its data are where the call returns to,
//! where the `syscall` is, and for `jmp [abs32]` the address of the cell.

use super::super::layout::{ALIAS, CELL_LEN};
use super::super::patches::{Before, Cell, Patches, Stop};
use crate::arch::UserRegs;
use crate::platform::Trap;

/// CF, AF, SF and OF; PF and ZF.
const XOR_CLEARS: u64 = 0x891;
const XOR_SETS: u64 = 0x44;
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Offset of a cell's data in it, then offsets in the data: where the call returns to, where the `syscall` is, and the
/// address of the cell.
const DATA: u64 = 32;
pub(super) const RET_AT: u64 = 0;
pub(super) const CALL_AT: u64 = 8;
const SELF_AT: u64 = 16;
/// `mov r9, [rsp + 8]`.
const LOAD: [u8; 5] = [0x4c, 0x8b, 0x4c, 0x24, 0x08];
/// What is before it in syscall(3): all other arguments move one register down.
const MOVES: [u8; 18] = [
    0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, 0x48, 0x89, 0xca, 0x4d, 0x89, 0xc2, 0x4d, 0x89,
    0xc8,
];
/// What follows libc's `xor eax, eax`: `syscall; cmp rax, -4096; ja`, then the distance, then a `ret`.
const READ: [u8; 9] = [0x0f, 0x05, 0x48, 0x3d, 0x00, 0xf0, 0xff, 0xff, 0x77];
const RET: u8 = 0xc3;
/// What pads code behind a `ret`, long enough for a jump.
const NOPS: [&[u8]; 4] = [
    &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
    &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
];

/// A call that can be rewritten, by offsets in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Site {
    /// The instruction that sets the number.
    start: usize,
    /// The long jump, if it does not fit there.
    jump: usize,
    before: Before,
}

impl Site {
    /// What its cell has to do.
    pub(in super::super) fn before(&self) -> Before {
        self.before
    }

    /// Where the jump lies if not at the site, and the site.
    pub(in super::super) fn pad(&self) -> Option<(usize, usize)> {
        (self.jump != self.start).then_some((self.jump, self.start))
    }
}

/// Recognises the call that returns to offset `end` in its page and had `number`.
pub(in super::super) fn find(page: &[u8], end: usize, number: u32) -> Option<Site> {
    let before = page.get(..end)?.strip_suffix(&SYSCALL)?;
    if number == 0 && before.ends_with(&[0x31, 0xc0]) {
        let start = before.len() - 2;
        let next = page.get(start + 2..)?;
        let pad = next.get(READ.len() + 2..)?;
        let padded = next[READ.len() + 1] == RET && NOPS.iter().any(|nop| pad.starts_with(nop));
        return (next.starts_with(&READ) && padded).then_some(Site {
            start,
            jump: start + 2 + READ.len() + 2,
            before: Before::Number(0),
        });
    }
    let start = before.len().checked_sub(5)?;
    if before[start..] == LOAD && before[..start].ends_with(&MOVES) {
        return Some(Site { start, jump: start, before: Before::Argument });
    }
    // With a REX prefix it may be another register that is set.
    let set = before[start] == 0xb8 && before[start + 1..] == number.to_le_bytes();
    let prefixed = *before[..start].last()? & 0xf1 == 0x41;
    (set && !prefixed).then_some(Site { start, jump: start, before: Before::Number(number) })
}

/// The bytes of the cell at `at`.
pub(in super::super) fn cell(at: u64, entry: u64, cell: Cell) -> [u8; CELL_LEN as usize] {
    let mut code = match cell.before {
        Before::Number(number) => {
            let mut code = vec![0xb8];
            code.extend(number.to_le_bytes());
            code
        }
        Before::Argument => LOAD.to_vec(),
    };
    code.push(0xb9);
    code.extend(((at + DATA) as u32).to_le_bytes());
    code.push(0xe9);
    code.extend((entry.wrapping_sub(at + code.len() as u64 + 4) as u32).to_le_bytes());
    code.resize(DATA as usize, 0xcc);
    for word in [cell.ret, cell.ret - 2, at, 0] {
        code.extend(word.to_le_bytes());
    }
    let mut bytes = [0; CELL_LEN as usize];
    bytes.copy_from_slice(&code);
    bytes
}

/// Rewrites a site in a copy of the page at `va` to go to the cell at `cell`, which is at `alias` too unless that cannot
/// be had. Some(true): it goes through the alias.
pub(in super::super) fn divert(
    page: &mut [u8],
    site: &Site,
    va: u64,
    cell: u64,
    alias: Option<u64>,
) -> Option<bool> {
    let distance = cell.wrapping_sub(va + site.jump as u64 + 5) as i64;
    let through = match (i32::try_from(distance), alias) {
        (Ok(distance), _) => {
            page[site.jump] = 0xe9;
            page[site.jump + 1..][..4].copy_from_slice(&distance.to_le_bytes());
            false
        }
        (Err(_), Some(alias)) => {
            debug_assert!(alias & !0xffff == ALIAS);
            page[site.jump..][..3].copy_from_slice(&[0xff, 0x24, 0x25]);
            page[site.jump + 3..][..4].copy_from_slice(&((alias + DATA + SELF_AT) as u32).to_le_bytes());
            true
        }
        (Err(_), None) => return None,
    };
    if site.jump != site.start {
        page[site.start] = 0xeb;
        page[site.start + 1] = (site.jump - site.start - 2) as u8;
    }
    Some(through)
}

/// What a stop that made a frame means where rewritten calls are involved: the program must see none of them.
pub(in super::super) fn after(trap: Trap, regs: &mut UserRegs, stop: &Stop<'_>, patches: &Patches) -> Trap {
    let code = stop.code;
    match trap {
        Trap::Syscall if regs.rip == code.after_frame && stop.from_call => {
            *regs = *stop.given;
            Trap::Kick
        }
        Trap::Kick if stop.from_call && (code.given..code.end()).contains(&regs.rip) => {
            *regs = *stop.given;
            trap
        }
        Trap::Kick | Trap::Signal(_) => {
            if let Some((cell, offset)) = patches.cell_at(regs.rip) {
                match cell.before {
                    // As if the number were set, and the call next.
                    Before::Number(number) => (regs.rax, regs.rip) = (number.into(), cell.ret - 2),
                    Before::Argument if offset != 0 => regs.rip = cell.ret - 2,
                    // Nothing has been done yet. A single step has not come to its end then.
                    Before::Argument if trap == Trap::Kick => regs.rip = cell.ret - 2 - LOAD.len() as u64,
                    Before::Argument => return Trap::Kick,
                }
            } else if let Some(site) = patches.site_of_pad(regs.rip) {
                // As if `xor eax, eax` had been executed there.
                (regs.rax, regs.rip) = (0, site + 2);
                regs.eflags = regs.eflags & !XOR_CLEARS | XOR_SETS;
            }
            trap
        }
        _ => trap,
    }
}

#[cfg(test)]
mod tests {
    use super::{Before, Cell, LOAD, MOVES, NOPS, READ, RET, SYSCALL, Site, cell, divert, find};

    /// Bytes of a jump of the longer kind.
    const JUMP: usize = 7;

    const SITE: Site = Site { start: 16, jump: 16, before: Before::Number(39) };

    fn page(code: &[&[u8]]) -> Vec<u8> {
        let mut page = vec![0x90; 16];
        code.iter().for_each(|piece| page.extend_from_slice(piece));
        page.resize(4096, 0xcc);
        page
    }

    #[test]
    fn a_move_before_the_call_is_recognised() {
        let code = page(&[&[0xb8, 39, 0, 0, 0], &SYSCALL]);
        assert_eq!(find(&code, 23, 39), Some(SITE));
        assert_eq!(find(&code, 23, 40), None);
        assert_eq!(find(&code, 22, 39), None);
        // mov r8d, 39.
        let code = page(&[&[0x41, 0xb8, 39, 0, 0, 0], &SYSCALL]);
        assert_eq!(find(&code, 24, 39), None);
        // Not all of it is in this page, or it is not known what is before it.
        for start in 0..7 {
            assert_eq!(find(&page(&[])[..4096], start, 39), None);
        }
        let mut code = vec![0xb8, 39, 0, 0, 0, 0x0f, 0x05];
        code.resize(4096, 0);
        assert_eq!(find(&code, 7, 39), None);
    }

    #[test]
    fn libcs_read_is_recognised() {
        for nop in NOPS {
            assert!(nop.len() >= JUMP);
            let code = page(&[&[0x31, 0xc0], &READ, &[0x5b, RET], nop]);
            assert_eq!(
                find(&code, 20, 0),
                Some(Site { start: 16, jump: 29, before: Before::Number(0) }),
                "{nop:x?}"
            );
            assert_eq!(find(&code, 20, 1), None);
            for at in 18..29 + nop.len() {
                let mut other = code.clone();
                other[at] ^= 0x10;
                assert_eq!(find(&other, 20, 0).is_some(), at == 27, "{at}");
            }
        }
    }

    #[test]
    fn jumps_lead_to_the_cell_and_leave_the_call() {
        let mut near = page(&[&[0xb8, 39, 0, 0, 0], &SYSCALL]);
        assert_eq!(divert(&mut near, &SITE, 0x40_0000, 0x7002_0040, Some(0x050f_0040)), Some(false));
        let distance = i32::from_le_bytes(near[17..21].try_into().unwrap());
        assert_eq!((near[16], 0x40_0000 + 21 + i64::from(distance)), (0xe9, 0x7002_0040));
        assert_eq!(near[21..23], SYSCALL);
        let mut far = page(&[&[0xb8, 39, 0, 0, 0], &SYSCALL]);
        assert_eq!(divert(&mut far, &SITE, 0x7fff_0000_0000, 0x7002_0040, None), None);
        assert_eq!(divert(&mut far, &SITE, 0x7fff_0000_0000, 0x7002_0040, Some(0x050f_0040)), Some(true));
        assert_eq!(far[16..23], [0xff, 0x24, 0x25, 0x70, 0, 0x0f, 0x05]);
    }

    #[test]
    fn a_cell_names_itself_and_its_data() {
        let ret = 0x1234_5678_9abcu64;
        for (before, code) in
            [(Before::Number(39), [0xb8, 39, 0, 0, 0]), (Before::Argument, [0x4c, 0x8b, 0x4c, 0x24, 8])]
        {
            let bytes = cell(0x7002_0040, 0x7000_0500, Cell { before, ret });
            assert_eq!(bytes[..10], [&code[..], &[0xb9, 0x60, 0x00, 0x02, 0x70]].concat());
            let distance = i32::from_le_bytes(bytes[11..15].try_into().unwrap());
            assert_eq!((bytes[10], 0x7002_004f + i64::from(distance)), (0xe9, 0x7000_0500));
            assert_eq!(bytes[32..40], ret.to_le_bytes());
            assert_eq!(bytes[40..48], (ret - 2).to_le_bytes());
            assert_eq!(bytes[48..56], 0x7002_0040u64.to_le_bytes());
        }
    }

    #[test]
    fn libcs_syscall_is_recognised() {
        let code = page(&[&MOVES, &LOAD, &SYSCALL]);
        let site = Site { start: 34, jump: 34, before: Before::Argument };
        assert_eq!((find(&code, 41, 39), find(&code, 41, 202)), (Some(site), Some(site)));
        for at in 16..39 {
            let mut other = code.clone();
            other[at] ^= 0x10;
            assert_eq!(find(&other, 41, 39), None);
        }
    }
}
