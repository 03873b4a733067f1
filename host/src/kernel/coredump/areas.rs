//! Which memory a core dump takes (core(5), "Controlling which mappings are written to the core dump").

use super::super::Current;
use crate::abi::Result;
use crate::arch::OLD_CALLS;
use crate::mm::{Backing, DumpArea, PAGE_SIZE, VmFlags, Vma};
use crate::platform::Prot;
use linux_raw_sys::elf_uapi::{ELFMAG, PF_R, PF_W, PF_X};

/// Bits of `/proc/PID/coredump_filter` that mean something (`MMF_DUMP_FILTER_MASK`).
pub const FILTERS: u32 = 0x1ff;
/// Private memory that is no file's, and private copies of files' pages.
const ANON_PRIVATE: u32 = 1;
/// Shared memory that has no name.
const ANON_SHARED: u32 = 1 << 1;
/// Files, mapped privately.
const MAPPED_PRIVATE: u32 = 1 << 2;
/// Files, shared.
const MAPPED_SHARED: u32 = 1 << 3;
/// The first page of programs and libraries.
const ELF_HEADERS: u32 = 1 << 4;

/// Where the page of [`OLD_CALLS`] is.
const OLD_CALLS_AT: u64 = 0xffff_ffff_ff60_0000;

/// A segment of the dump.
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) len: u64,
    /// How much of it is taken.
    pub(super) taken: u64,
    /// `PF_*`.
    pub(super) flags: u32,
    /// None for what is no memory of the program's.
    pub(super) vma: Option<Vma>,
}

impl Area {
    /// The file that is mapped there.
    pub(super) fn file(&self) -> Option<Vec<u8>> {
        let Backing::Object { object, .. } = &self.vma.as_ref()?.backing else { return None };
        Some(object.describe().path).filter(|path| path.first() == Some(&b'/'))
    }

    /// Where in its file it begins.
    pub(super) fn offset(&self) -> u64 {
        self.vma.as_ref().map_or(0, |vma| vma.object_offset(vma.start))
    }
}

impl Current {
    /// What there is, by address.
    ///
    /// # Errors
    /// EINTR when the program is killed.
    pub(super) fn core_areas(&self) -> Result<Vec<Area>> {
        let filter = self.mm().dump_filter();
        let mut areas: Vec<Area> = Vec::new();
        for area in self.mm().dump_areas() {
            let taken = self.taken(&area, filter);
            let flags = [(Prot::READ, PF_R), (Prot::WRITE, PF_W), (Prot::EXEC, PF_X)]
                .into_iter()
                .filter(|(prot, _)| area.vma.prot.contains(*prot))
                .fold(0, |flags, (_, flag)| flags | flag);
            let (start, len) = (area.vma.start, area.vma.len());
            areas.push(Area { start, len, taken, flags, vma: Some(area.vma) });
            self.pause()?;
        }
        if !OLD_CALLS.is_empty() {
            let (start, len) = (OLD_CALLS_AT, PAGE_SIZE);
            areas.push(Area { start, len, taken: len, flags: PF_X, vma: None });
        }
        Ok(areas)
    }

    /// How much of an area is taken (vma_dump_size).
    fn taken(&self, area: &DumpArea, filter: u32) -> u64 {
        let (vma, whole) = (&area.vma, area.vma.len());
        let takes = |kind: u32| filter & kind != 0;
        let object = match &vma.backing {
            Backing::Object { object, .. } => Some(object.describe()),
            Backing::Anon => None,
        };
        // The vDSO and its data.
        if object.as_ref().is_some_and(|object| object.path.first() == Some(&b'[')) {
            return whole;
        }
        if vma.flags.contains(VmFlags::DONT_DUMP) {
            return 0;
        }
        if !vma.is_private() {
            let unnamed = object.as_ref().is_none_or(|object| object.path.ends_with(b" (deleted)"));
            return if takes(if unnamed { ANON_SHARED } else { MAPPED_SHARED }) { whole } else { 0 };
        }
        if area.written && takes(ANON_PRIVATE) {
            return whole;
        }
        let Some(object) = object else { return 0 };
        if takes(MAPPED_PRIVATE) {
            return whole;
        }
        let first = vma.object_offset(vma.start) == 0 && vma.prot.contains(Prot::READ);
        let mut magic = [0; 4];
        // What may be executed, or looks as if it might.
        let mut is_program = || {
            object.mode & 0o111 != 0
                || self.mm().peek(vma.start, &mut magic).is_ok_and(|got| got == magic.len())
                    && ELFMAG.starts_with(&magic)
        };
        if first && takes(ELF_HEADERS) && is_program() { PAGE_SIZE } else { 0 }
    }
}
