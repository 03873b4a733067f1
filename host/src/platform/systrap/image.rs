//! The stub as an executable file: one text page with the code and the filters.

use super::arch::{self, ELF_MACHINE};
use super::filter::{self, Sites};
use super::layout::{FILTER, MAPPER_FILTER, TEXT, TEXT_LEN};
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::stub;
use std::io::Write;

/// Offset of the text page in the file.
const TEXT_OFFSET: u64 = 4096;
const EHDR_LEN: usize = 64;
const PHDR_LEN: usize = 56;
const PT_LOAD: u32 = 1;
const PT_GNU_STACK: u32 = 0x6474_e551;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;

/// Address of the signal handler in a stub.
pub(super) fn handler() -> u64 {
    TEXT + arch::code().handler
}

/// The bytes of the text page.
fn text() -> Result<Vec<u8>> {
    let code = arch::code();
    let site = |offset: u64| (TEXT + offset) as u32;
    let sites = Sites {
        arch: crate::arch::AUDIT_ARCH,
        after_wake: site(code.after_wake),
        after_wait: site(code.after_wait),
        after_mask: site(code.after_mask),
        after_return: site(code.after_return),
        thread_flags: arch::clone_thread().args[0] as u32,
    };
    let mut text = code.bytes.to_vec();
    let parts = [
        (FILTER, filter::of_programs(&sites)),
        (MAPPER_FILTER, filter::of_mappers(&sites)),
        (TEXT + TEXT_LEN, Vec::new()),
    ];
    for (at, filter) in parts {
        let here = (at - TEXT) as usize;
        if text.len() > here {
            return Err(Errno::E2BIG);
        }
        text.resize(here, 0);
        if filter.is_empty() {
            break;
        }
        // struct sock_fprog: count, padding, pointer.
        text.extend_from_slice(&((filter.len() / 8) as u64).to_ne_bytes());
        text.extend_from_slice(&(at + 16).to_ne_bytes());
        text.extend_from_slice(&filter);
    }
    Ok(text)
}

/// The executable, in a memory file. Its entry point is the start of the text.
pub(super) fn build() -> Result<HostFd> {
    let mut elf = Vec::with_capacity((TEXT_OFFSET + TEXT_LEN) as usize);
    elf.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend_from_slice(&2u16.to_ne_bytes());
    elf.extend_from_slice(&ELF_MACHINE.to_ne_bytes());
    elf.extend_from_slice(&1u32.to_ne_bytes());
    for word in [TEXT, EHDR_LEN as u64, 0] {
        elf.extend_from_slice(&word.to_ne_bytes());
    }
    elf.extend_from_slice(&0u32.to_ne_bytes());
    for half in [EHDR_LEN as u16, PHDR_LEN as u16, 2, 0, 0, 0] {
        elf.extend_from_slice(&half.to_ne_bytes());
    }
    let mut header = |kind: u32, flags: u32, words: [u64; 6]| {
        elf.extend_from_slice(&kind.to_ne_bytes());
        elf.extend_from_slice(&flags.to_ne_bytes());
        words.iter().for_each(|word| elf.extend_from_slice(&word.to_ne_bytes()));
    };
    header(PT_LOAD, PF_R | PF_X, [TEXT_OFFSET, TEXT, TEXT, TEXT_LEN, TEXT_LEN, 4096]);
    header(PT_GNU_STACK, PF_R | PF_W, [0, 0, 0, 0, 0, 16]);
    elf.resize(TEXT_OFFSET as usize, 0);
    elf.extend_from_slice(&text()?);
    let mut file = stub::memory_file(c"pillbox-stub", 0, true)?;
    file.write_all(&elf)?;
    Ok(file)
}
