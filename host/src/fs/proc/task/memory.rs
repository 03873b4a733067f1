//! maps, smaps, statm: what an address space holds. And mem: its bytes.
//!
//! smaps says what `mm::usage` finds. Lines for which there is nothing to find out are left out: nobody counts references
//! (`Referenced`). Swap and huge pages there are none of, which is what those lines say.

use super::Subject;
use super::access::View;
use crate::abi::{Errno, Result};
use crate::mm::usage::{FileUsers, Resident};
use crate::mm::{Backing, IoDst, IoSrc, Layout, Mm, VmFlags, Vma};
use crate::platform::Prot;
use crate::vfs::{FileOps, Inode, Kind, Meta, OpenHow, Path, Whence};
use std::any::Any;
use std::fmt::Write;
use std::sync::Arc;

/// Bytes of a program's memory copied at a time.
const CHUNK: usize = 4096;

fn name(vma: &Vma, layout: &Layout, brk: u64) -> (u64, u64, Vec<u8>) {
    match &vma.backing {
        Backing::Object { object, .. } => {
            let info = object.describe();
            (info.dev, info.ino, info.path)
        }
        Backing::Anon => {
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

/// The line of an area in maps, which is its first in smaps.
fn line(vma: &Vma, layout: &Layout, brk: u64) -> String {
    let flag = |prot, letter| if vma.prot.contains(prot) { letter } else { '-' };
    let (dev, ino, path) = name(vma, layout, brk);
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
    if path.is_empty() { line + "\n" } else { format!("{line:<73}{}\n", String::from_utf8_lossy(&path)) }
}

/// What a program's memory holds in a range, as far as it can be read; at most 2 MiB.
fn bytes(mm: &Mm, (start, end): (u64, u64)) -> Result<Vec<u8>> {
    let mut bytes = vec![0; end.saturating_sub(start).min(1 << 21) as usize];
    let count = if bytes.is_empty() { 0 } else { mm.read_some(start, &mut bytes)? };
    bytes.truncate(count);
    Ok(bytes)
}

/// environ.
pub(super) fn environment(mm: Option<Arc<Mm>>) -> Result<Vec<u8>> {
    mm.map_or(Ok(Vec::new()), |mm| bytes(&mm, mm.layout().env))
}

/// cmdline: the arguments, or what the program has written over them. That it has is seen by their last byte: where it is no
/// NUL any more, the line is one string, which ends within a page or with the environment if that follows (as
/// setproctitle(3) and perl's `$0` have it).
pub(super) fn command_line(mm: Option<Arc<Mm>>) -> Result<Vec<u8>> {
    let Some(mm) = mm else { return Ok(Vec::new()) };
    let Layout { args: (start, end), env, .. } = mm.layout();
    let mut last = [0];
    let known = start < end && mm.read_some(end - 1, &mut last) == Ok(1);
    if !known || last == [0] {
        return bytes(&mm, (start, end));
    }
    let room = if env.0 == end && env.1 >= end { env.1 } else { end };
    let mut title = bytes(&mm, (start, room.min(start.saturating_add(crate::mm::PAGE_SIZE))))?;
    let len = title.iter().position(|&byte| byte == 0).map_or(title.len(), |nul| nul + 1);
    title.truncate(len);
    Ok(title)
}

pub(super) fn maps(view: &View) -> String {
    let Some(mm) = view.space() else { return String::new() };
    let (layout, brk) = (mm.layout(), mm.program_break());
    let mut out: String = mm.maps().iter().map(|vma| line(vma, &layout, brk)).collect();
    out.push_str(crate::arch::OLD_CALLS);
    out
}

/// Who maps the pages of the host's page cache, over all processes.
fn file_users(subject: &Subject) -> FileUsers {
    let spaces: Vec<Arc<Mm>> = subject.kernel.tree.lock().tasks().filter_map(|task| task.mm()).collect();
    FileUsers::of(spaces)
}

pub(super) fn smaps(view: &View) -> String {
    let Some(mm) = view.space() else { return String::new() };
    let (layout, brk) = (mm.layout(), mm.program_break());
    let mut out = String::new();
    for (vma, resident) in mm.resident_areas(&file_users(&view.subject)) {
        out.push_str(&line(&vma, &layout, brk));
        row(&mut out, "Size", vma.len());
        row(&mut out, "KernelPageSize", crate::mm::PAGE_SIZE);
        row(&mut out, "MMUPageSize", crate::mm::PAGE_SIZE);
        let locked = if vma.flags.contains(VmFlags::LOCKED) { resident.share() } else { 0 };
        details(&mut out, &resident, locked, false);
        let _ = writeln!(out, "THPeligible:           0\nVmFlags:{}", flags(&vma));
    }
    out
}

pub(super) fn smaps_rollup(view: &View) -> Result<String> {
    let mm = view.space().ok_or(Errno::ESRCH)?;
    let areas = mm.resident_areas(&file_users(&view.subject));
    let (start, end) = match (areas.first(), areas.last()) {
        (Some((first, _)), Some((last, _))) => (first.start, last.end),
        _ => (0, 0),
    };
    let head = format!("{start:08x}-{end:08x} ---p 00000000 00:00 0 ");
    let mut out = format!("{head:<73}[rollup]\n");
    let (mut sum, mut locked) = (Resident::default(), 0);
    for (vma, resident) in areas {
        sum = sum.plus(resident);
        locked += if vma.flags.contains(VmFlags::LOCKED) { resident.share() } else { 0 };
    }
    details(&mut out, &sum, locked, true);
    Ok(out)
}

fn row(out: &mut String, name: &str, bytes: u64) {
    let _ = writeln!(out, "{:<16}{:>8} kB", format!("{name}:"), bytes / 1024);
}

/// The lines that smaps and its sum have in common.
fn details(out: &mut String, of: &Resident, locked: u64, rollup: bool) {
    row(out, "Rss", of.total());
    row(out, "Pss", of.share());
    row(out, "Pss_Dirty", of.dirty_share());
    if rollup {
        for (name, share) in ["Pss_Anon", "Pss_File", "Pss_Shmem"].into_iter().zip(of.shares_by_kind()) {
            row(out, name, share);
        }
    }
    for (name, bytes) in [
        ("Shared_Clean", of.shared_clean),
        ("Shared_Dirty", of.shared_dirty),
        ("Private_Clean", of.private_clean),
        ("Private_Dirty", of.private_dirty),
        ("Anonymous", of.anon),
        ("AnonHugePages", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", locked),
    ] {
        row(out, name, bytes);
    }
}

/// The letters of proc(5), in the kernel's order.
fn flags(vma: &Vma) -> String {
    let shared = !vma.is_private();
    let never_write = vma.flags.contains(VmFlags::NEVER_WRITE);
    [
        ("rd", vma.prot.contains(Prot::READ)),
        ("wr", vma.prot.contains(Prot::WRITE)),
        ("ex", vma.prot.contains(Prot::EXEC)),
        ("sh", shared && !never_write),
        ("mr", true),
        ("mw", !never_write),
        ("me", true),
        ("ms", shared),
        ("gd", vma.flags.contains(VmFlags::GROWS_DOWN)),
        ("lo", vma.flags.contains(VmFlags::LOCKED)),
        ("dc", vma.flags.contains(VmFlags::DONT_FORK)),
        ("nr", vma.flags.contains(VmFlags::NO_RESERVE)),
        ("wf", vma.flags.contains(VmFlags::WIPE_ON_FORK)),
        ("dd", vma.flags.contains(VmFlags::DONT_DUMP)),
    ]
    .iter()
    .filter(|(_, set)| *set)
    .fold(String::new(), |all, (name, _)| all + " " + name)
}

pub(super) fn statm(subject: &Subject) -> Result<String> {
    let Some(mm) = subject.mm() else { return Ok("0 0 0 0 0 0 0\n".to_owned()) };
    let (sizes, resident) = (Sizes::of(&mm), mm.resident_by_kind());
    let pages = [
        mm.total(),
        resident.total(),
        resident.file + resident.shmem,
        sizes.text,
        0,
        sizes.data + sizes.stack,
        0,
    ];
    let words: Vec<String> = pages.iter().map(|bytes| (bytes / crate::mm::PAGE_SIZE).to_string()).collect();
    Ok(words.join(" ") + "\n")
}

/// How many bytes an address space has of what, mapped if not in memory.
pub(super) struct Sizes {
    /// The program's own code.
    pub(super) text: u64,
    /// All other code.
    pub(super) libraries: u64,
    /// Private and writable.
    pub(super) data: u64,
    /// What grows down.
    pub(super) stack: u64,
}

impl Sizes {
    pub(super) fn of(mm: &Mm) -> Sizes {
        let maps = mm.maps();
        let sum = |want: fn(&Vma) -> bool| maps.iter().filter(|vma| want(vma)).map(Vma::len).sum::<u64>();
        let grows = |vma: &Vma| vma.flags.contains(VmFlags::GROWS_DOWN);
        let code = sum(|vma| vma.prot.contains(Prot::EXEC) && !vma.prot.contains(Prot::WRITE));
        let own = mm.layout().code;
        let text = own.1.next_multiple_of(4096).saturating_sub(own.0 / 4096 * 4096).min(code);
        let private = |vma: &&Vma| vma.prot.contains(Prot::WRITE) && vma.is_private() && !grows(vma);
        Sizes {
            text,
            libraries: code - text,
            data: maps.iter().filter(private).map(Vma::len).sum(),
            stack: sum(|vma| vma.flags.contains(VmFlags::GROWS_DOWN)),
        }
    }
}

/// /proc/PID/mem: the file's offsets are the process's addresses. What the process itself may not read or write may be
/// read and written all the same (`FOLL_FORCE`).
pub(super) fn mem(ino: u64, subject: Subject, uid: u32, gid: u32) -> Arc<dyn Inode> {
    Arc::new(MemInode { meta: Meta::new(Kind::File, ino, 0o600).owned(uid, gid), subject })
}

struct MemInode {
    meta: Meta,
    subject: Subject,
}

impl Inode for MemInode {
    fn meta(&self) -> &Meta {
        &self.meta
    }
    fn open(self: Arc<Self>, _path: &Path, how: &OpenHow) -> Result<Arc<dyn FileOps>> {
        Ok(Arc::new(MemFile { view: self.subject.memory_view(how.caller)? }))
    }
    fn truncate(&self, _len: u64) -> Result<()> {
        Ok(())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Memory of the program that ran when it was opened; nothing once that is gone.
struct MemFile {
    view: View,
}

impl FileOps for MemFile {
    fn positioned(&self) -> bool {
        true
    }
    fn read(&self, dst: &mut IoDst<'_>, offset: Option<u64>) -> Result<usize> {
        let Some(mm) = self.view.space() else { return Ok(0) };
        let (mut at, mut done) = (offset.unwrap_or(0), 0);
        let mut buffer = [0; CHUNK];
        while dst.remaining() > 0 {
            let want = dst.remaining().min(CHUNK);
            let got = mm.peek(at, &mut buffer[..want]).unwrap_or(0);
            if got == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
            }
            let moved = dst.write_bytes(&buffer[..got])?;
            (at, done) = (at + moved as u64, done + moved);
            if moved < got {
                break;
            }
        }
        Ok(done)
    }
    fn write(&self, src: &mut IoSrc<'_>, offset: Option<u64>) -> Result<usize> {
        let Some(mm) = self.view.space() else { return Ok(0) };
        let (mut at, mut done) = (offset.unwrap_or(0), 0);
        let mut buffer = [0; CHUNK];
        while src.remaining() > 0 {
            let want = src.remaining().min(CHUNK);
            let got = src.read_bytes(&mut buffer[..want])?;
            let moved = mm.poke(at, &buffer[..got]).unwrap_or(0);
            (at, done) = (at + moved as u64, done + moved);
            if moved < got || got == 0 {
                return if done > 0 { Ok(done) } else { Err(Errno::EIO) };
            }
        }
        Ok(done)
    }
    fn seek(&self, pos: u64, offset: i64, whence: Whence) -> Result<u64> {
        // Addresses are unsigned: any will do.
        match whence {
            Whence::Set => Ok(offset as u64),
            Whence::Current => Ok(pos.wrapping_add_signed(offset)),
            Whence::End | Whence::Data | Whence::Hole => Err(Errno::EINVAL),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
