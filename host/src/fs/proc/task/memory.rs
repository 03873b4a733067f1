//! maps, smaps, statm: what an address space holds.

use super::Subject;
use crate::abi::Result;
use crate::mm::{Backing, Mm, VmFlags, Vma};
use crate::platform::Prot;
use std::fmt::Write;

fn describe(vma: &Vma, mm: &Mm, brk: u64) -> (u64, u64, Vec<u8>) {
    match &vma.backing {
        Backing::Object { object, .. } => {
            let info = object.describe();
            (info.dev, info.ino, info.path)
        }
        _ => {
            let layout = mm.layout();
            let name: &[u8] = if vma.start <= layout.stack_start && layout.stack_start <= vma.end {
                b"[stack]"
            } else if vma.start < brk && vma.end > layout.brk_start {
                b"[heap]"
            } else {
                b""
            };
            (0, 0, name.to_vec())
        }
    }
}

pub(super) fn maps(subject: &Subject, details: bool) -> Result<String> {
    let Some(mm) = subject.mm() else { return Ok(String::new()) };
    let brk = mm.program_break();
    let mut out = String::new();
    for vma in mm.maps() {
        let flag = |prot, letter| if vma.prot.contains(prot) { letter } else { '-' };
        let (dev, ino, path) = describe(&vma, &mm, brk);
        let offset = if ino != 0 { vma.object_offset(vma.start) } else { 0 };
        let line = format!(
            "{:08x}-{:08x} {}{}{}{} {offset:08x} {:02x}:{:02x} {ino} ",
            vma.start,
            vma.end,
            flag(Prot::READ, 'r'),
            flag(Prot::WRITE, 'w'),
            flag(Prot::EXEC, 'x'),
            if vma.is_private() { 'p' } else { 's' },
            crate::vfs::major(dev),
            crate::vfs::minor(dev),
        );
        if path.is_empty() {
            let _ = writeln!(out, "{line}");
        } else {
            let _ = writeln!(out, "{line:<73}{}", String::from_utf8_lossy(&path));
        }
        if details {
            let kib = vma.len() / 1024;
            let _ = writeln!(
                out,
                "Size:           {kib:>8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\nRss:                   0 kB\nPss:                   0 kB\nShared_Clean:          0 kB\nShared_Dirty:          0 kB\nPrivate_Clean:         0 kB\nPrivate_Dirty:         0 kB\nReferenced:            0 kB\nAnonymous:             0 kB\nSwap:                  0 kB\nLocked:                0 kB\nVmFlags:{}",
                if vma.flags.contains(VmFlags::GROWS_DOWN) { " gd" } else { "" }
            );
        }
    }
    out.push_str(if details { "" } else { crate::arch::OLD_CALLS });
    Ok(out)
}

pub(super) fn smaps_rollup(subject: &Subject) -> Result<String> {
    let resident = subject.mm().map_or(0, |mm| mm.resident()) / 1024;
    Ok(format!(
        "00000000-7fffffffffff ---p 00000000 00:00 0                              [rollup]\nRss:            {resident:>8} kB\nPss:            {resident:>8} kB\n"
    ))
}

pub(super) fn statm(subject: &Subject) -> Result<String> {
    let Some(mm) = subject.mm() else { return Ok("0 0 0 0 0 0 0\n".to_owned()) };
    let (total, resident) = (mm.total() / 4096, mm.resident() / 4096);
    let (text, data, _) = sizes(&mm);
    Ok(format!("{total} {resident} 0 {} 0 {} 0\n", text / 4096, data / 4096))
}

/// Bytes of executable, of private writable, and of stack areas.
pub(super) fn sizes(mm: &Mm) -> (u64, u64, u64) {
    let maps = mm.maps();
    let sum = |want: fn(&Vma) -> bool| maps.iter().filter(|vma| want(vma)).map(Vma::len).sum();
    (
        sum(|vma| vma.prot.contains(Prot::EXEC)),
        sum(|vma| vma.prot.contains(Prot::WRITE) && vma.is_private()),
        sum(|vma| vma.flags.contains(VmFlags::GROWS_DOWN)),
    )
}
