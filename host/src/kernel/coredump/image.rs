//! The file: ELF header, program headers, notes, memory (elf(5)).

use super::super::Current;
use super::super::signal::SigInfo;
use super::areas::Area;
use super::gather::Held;
use super::notes;
use super::sink::Sink;
use crate::abi::Result;
use crate::arch::AUDIT_ARCH;
use crate::mm::PAGE_SIZE;
use linux_raw_sys::elf_uapi::{
    EI_NIDENT, ELFCLASS64, ELFDATA2LSB, ELFMAG, ET_CORE, EV_CURRENT, PN_XNUM, PT_LOAD, PT_NOTE,
};
use zerocopy::{Immutable, IntoBytes};

/// `Elf64_Ehdr`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    ident: [u8; EI_NIDENT as usize],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
    shentsize: u16,
    shnum: u16,
    shstrndx: u16,
}

/// `Elf64_Phdr`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
    align: u64,
}

const HEADER: u64 = size_of::<Header>() as u64;
const SEGMENT: u64 = size_of::<Segment>() as u64;
/// There are never so many areas that their number would not fit.
const _: () = assert!(crate::mm::MAX_AREAS + 2 < PN_XNUM as usize);

fn header(segments: u16) -> Header {
    let mut ident = [0; EI_NIDENT as usize];
    ident[..4].copy_from_slice(&ELFMAG[..4]);
    ident[4..7].copy_from_slice(&[ELFCLASS64 as u8, ELFDATA2LSB as u8, EV_CURRENT as u8]);
    Header {
        ident,
        kind: ET_CORE as u16,
        // Its lower half is the machine (linux/audit.h).
        machine: AUDIT_ARCH as u16,
        version: EV_CURRENT,
        entry: 0,
        phoff: HEADER,
        shoff: 0,
        flags: 0,
        ehsize: HEADER as u16,
        phentsize: SEGMENT as u16,
        phnum: segments,
        shentsize: 0,
        shnum: 0,
        shstrndx: 0,
    }
}

/// What is said of threads and process, and how long it is.
struct Notes {
    threads: Vec<Held>,
    relations: notes::Relations,
    process: Vec<u8>,
    layout: Vec<u8>,
    len: u64,
}

impl Notes {
    /// Hands the notes out, one thread's at a time.
    fn each(&mut self, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        for (index, thread) in self.threads.iter_mut().enumerate() {
            put(&thread.status(&self.relations))?;
            if index == 0 {
                put(&self.process)?;
            }
            put(&thread.registers())?;
        }
        put(&self.layout)
    }
}

impl Current {
    /// Writes all of it.
    ///
    /// # Errors
    /// As [`Sink::put`].
    pub(super) fn write_image(&mut self, info: &SigInfo, sink: &mut Sink<'_>) -> Result<()> {
        let areas = self.core_areas()?;
        let mut notes = self.core_notes(info, &areas);
        sink.put(header(areas.len() as u16 + 1).as_bytes())?;
        let notes_at = HEADER + SEGMENT * (areas.len() as u64 + 1);
        let memory_at = (notes_at + notes.len).next_multiple_of(PAGE_SIZE);
        let of_notes = Segment {
            kind: PT_NOTE,
            flags: 0,
            offset: notes_at,
            vaddr: 0,
            paddr: 0,
            filesz: notes.len,
            memsz: 0,
            align: 4,
        };
        sink.put(of_notes.as_bytes())?;
        let mut offset = memory_at;
        for area in &areas {
            sink.put(segment(area, offset).as_bytes())?;
            offset += area.taken;
        }
        notes.each(&mut |bytes| {
            sink.put(bytes)?;
            self.pause()
        })?;
        drop(notes);
        sink.skip_to(memory_at);
        let mut offset = memory_at;
        for area in &areas {
            if let Some(vma) = &area.vma {
                self.mm().dump_pages(vma, area.taken, &mut |va, bytes| {
                    sink.skip_to(offset + (va - area.start));
                    sink.put(bytes)
                })?;
            }
            offset += area.taken;
            sink.skip_to(offset);
        }
        Ok(())
    }

    fn core_notes(&mut self, info: &SigInfo, areas: &[Area]) -> Notes {
        let relations = self.relations(info.signo);
        let mut own = self.held();
        // Every thread has the same registers.
        let one = own.status(&relations).len() + own.registers().len();
        let mut threads = vec![own];
        threads.append(&mut self.others());
        let process = self.process_notes(info, &relations, areas);
        let layout = notes::layout();
        let len = (one * threads.len() + process.len() + layout.len()) as u64;
        Notes { threads, relations, process, layout, len }
    }
}

fn segment(area: &Area, offset: u64) -> Segment {
    Segment {
        kind: PT_LOAD,
        flags: area.flags,
        offset,
        vaddr: area.start,
        paddr: 0,
        filesz: area.taken,
        memsz: area.len,
        align: PAGE_SIZE,
    }
}
