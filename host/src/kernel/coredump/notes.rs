//! The notes of a core dump: `struct elf_prstatus`, `struct elf_prpsinfo` (linux/elfcore.h) and what else Linux says.
//!
//! In Linux's order: of each thread what it does and its registers, the thread first that took the signal; behind the first
//! one's status what there is to say of the process.

use super::super::group::Usage;
use super::super::signal::SigInfo;
use super::super::{Current, Task};
use super::areas::Area;
use super::gather::Held;
use crate::arch::regset::{self, RegisterSet};
use crate::mm::PAGE_SIZE;
use core::sync::atomic::Ordering;
use linux_raw_sys::elf_uapi::{NT_AUXV, NT_FILE, NT_PRFPREG, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO};
use std::sync::Arc;

/// More files than that are not listed (`core_file_note_size_limit`).
const FILE_NOTE_MAX: usize = 4 << 20;
/// Bytes of the arguments that are shown (`ELF_PRARGSZ`).
const ARGUMENTS: usize = 80;
/// What is said of a mapped file, but for its name: from where to where, and where in it that begins.
const PLACE: usize = 24;
const AT_NULL: u64 = 0;

/// Bytes that are put one behind the other, each value at a multiple of its size.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn aligned(&mut self, size: usize) -> &mut Self {
        self.0.resize(self.0.len().next_multiple_of(size), 0);
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn i16(&mut self, value: i16) -> &mut Self {
        self.aligned(2).bytes(&value.to_ne_bytes())
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.aligned(4).bytes(&value.to_ne_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.i32(value as i32)
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.aligned(8).bytes(&value.to_ne_bytes())
    }

    /// `struct timeval` of a time that is all the program's, and of none in the kernel.
    fn time(&mut self, ns: u64) -> &mut Self {
        self.u64(ns / 1_000_000_000).u64(ns % 1_000_000_000 / 1000).u64(0).u64(0)
    }
}

/// Adds one note.
fn note(out: &mut Writer, kind: u32, description: &[u8]) {
    let core = [NT_PRSTATUS, NT_PRFPREG, NT_PRPSINFO, NT_SIGINFO, NT_AUXV, NT_FILE];
    let name: &[u8] = if core.contains(&kind) { b"CORE\0" } else { b"LINUX\0" };
    out.u32(name.len() as u32).u32(description.len() as u32).u32(kind);
    out.bytes(name).aligned(4).bytes(description).aligned(4);
}

/// Who a process is to others, as they are called in its own pid namespace.
pub(super) struct Relations {
    parent: i32,
    pgid: i32,
    sid: i32,
    usage: Usage,
    children: Usage,
    signo: i32,
}

impl Current {
    pub(super) fn relations(&self, signo: i32) -> Relations {
        let (group, tree) = (&self.task.group, self.kernel.tree.lock());
        let node = tree.node(group.tgid);
        let (pgid, sid) = node.map_or((0, 0), |node| (node.pgid, node.sid));
        let children = node.map_or_else(Usage::default, |node| node.children_usage);
        drop(tree);
        Relations {
            parent: group.parent.load(Ordering::Relaxed),
            pgid: group.pids.number_of(pgid),
            sid: group.pids.number_of(sid),
            usage: group.usage(),
            children,
            signo,
        }
    }

    /// What is said of the process.
    pub(super) fn process_notes(&self, info: &SigInfo, relations: &Relations, areas: &[Area]) -> Vec<u8> {
        let mut out = Writer::default();
        note(&mut out, NT_PRPSINFO, &self.who(relations));
        note(&mut out, NT_SIGINFO, &info.to_bytes());
        note(&mut out, NT_AUXV, &vector(&self.mm().layout().auxv));
        if let Some(files) = files(areas) {
            note(&mut out, NT_FILE, &files);
        }
        out.0
    }

    /// `struct elf_prpsinfo`.
    fn who(&self, relations: &Relations) -> Vec<u8> {
        let (task, cred) = (&self.task, self.cred());
        let nice = task.policy.lock().nice;
        let (uid, gid) = (cred.user_ns.show_uid(cred.uid.real), cred.user_ns.show_gid(cred.gid.real));
        let mut out = Writer::default();
        // It runs.
        out.bytes(&[0, b'R', 0, nice as u8]).u64(0).u32(uid).u32(gid);
        out.i32(task.group.number).i32(relations.parent).i32(relations.pgid).i32(relations.sid);
        let mut comm = task.comm();
        comm.resize(super::super::task::COMM_LEN, 0);
        out.bytes(&comm).bytes(&self.arguments());
        out.0
    }

    /// The beginning of the command line, with blanks in between.
    fn arguments(&self) -> [u8; ARGUMENTS] {
        let (start, end) = self.mm().layout().args;
        let len = end.saturating_sub(start).min(ARGUMENTS as u64 - 1) as usize;
        let mut all = [0; ARGUMENTS];
        let got = self.mm().peek(start, &mut all[..len]).unwrap_or(0);
        all[got..].fill(0);
        all[..got].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
        all
    }
}

/// The auxiliary vector up to its end.
fn vector(all: &[u8]) -> Vec<u8> {
    let (pairs, _) = all.as_chunks::<16>();
    let is_end = |pair: &[u8; 16]| pair[..8] == AT_NULL.to_ne_bytes();
    let count = pairs.iter().position(is_end).map_or(pairs.len(), |end| end + 1);
    pairs[..count].as_flattened().to_vec()
}

/// Which files are mapped where. None if that is too much.
fn files(areas: &[Area]) -> Option<Vec<u8>> {
    let (mut places, mut names) = (Writer::default(), Vec::new());
    for area in areas {
        let Some(path) = area.file() else { continue };
        places.u64(area.start).u64(area.start + area.len).u64(area.offset() / PAGE_SIZE);
        names.extend_from_slice(&path);
        names.push(0);
        if places.0.len() + names.len() > FILE_NOTE_MAX {
            return None;
        }
    }
    let mut out = Writer::default();
    out.u64((places.0.len() / PLACE) as u64).u64(PAGE_SIZE).bytes(&places.0).bytes(&names);
    Some(out.0)
}

impl Held {
    /// What it does: `struct elf_prstatus`.
    pub(super) fn status(&mut self, of: &Relations) -> Vec<u8> {
        let task: &Arc<Task> = &self.task;
        let number = task.number();
        let usage = if task.tid() == task.tgid() { of.usage } else { task.usage() };
        let mut status = Writer::default();
        status.i32(of.signo).i32(0).i32(0).i16(of.signo as i16);
        status.u64(self.pending.0).u64(task.blocked().0);
        status.i32(number).i32(of.parent).i32(of.pgid).i32(of.sid);
        status.time(usage.cpu_ns).time(of.children.cpu_ns);
        let general = regset::read(RegisterSet::General, &self.regs, &mut self.fp);
        // There are floating-point registers, too.
        status.bytes(&general.unwrap_or_default()).i32(1).aligned(8);
        let mut out = Writer::default();
        note(&mut out, NT_PRSTATUS, &status.0);
        out.0
    }

    /// Its other registers.
    pub(super) fn registers(&mut self) -> Vec<u8> {
        let mut out = Writer::default();
        for (kind, set) in regset::CORE_NOTES {
            if let Some(bytes) = regset::read(*set, &self.regs, &mut self.fp) {
                note(&mut out, *kind, &bytes);
            }
        }
        out.0
    }
}

/// What this machine says of its registers' layout.
pub(super) fn layout() -> Vec<u8> {
    let mut out = Writer::default();
    if let Some((kind, bytes)) = regset::core_layout() {
        note(&mut out, kind, &bytes);
    }
    out.0
}

#[cfg(test)]
mod tests {
    use super::{NT_PRSTATUS, Writer, note, vector};

    #[test]
    fn notes_are_padded() {
        let mut out = Writer::default();
        note(&mut out, NT_PRSTATUS, b"12345");
        note(&mut out, 0x202, b"1");
        let words: Vec<u32> =
            out.0.as_chunks::<4>().0.iter().map(|bytes| u32::from_ne_bytes(*bytes)).collect();
        assert_eq!(
            (words.len(), words[..3].to_vec(), words[7..10].to_vec()),
            (13, vec![5, 5, 1], vec![6, 1, 0x202])
        );
        assert_eq!((&out.0[12..17], &out.0[20..26]), (&b"CORE\0"[..], &b"12345\0"[..]));
    }

    #[test]
    fn vectors_end() {
        let words = |all: &[u64]| all.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(vector(&words(&[6, 4096, 0, 0, 9, 9])), words(&[6, 4096, 0, 0]));
        assert_eq!(vector(&words(&[6, 4096])), words(&[6, 4096]));
    }
}
