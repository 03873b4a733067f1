//! The vDSO: clocks that programs read without a system call (vdso(7)).
//!
//! Two areas lie side by side in every program, as on Linux: `[vvar]`, a page of numbers that [`crate::time`] keeps up to
//! date, and `[vdso]`, an ELF image whose functions make clock readings of them and of the CPU's counter. Where only
//! the kernel can tell the time (another clock, a counter that the host does not trust) they make the system call.
//! On aarch64 it is also where signal handlers return to.
//!
//! The image is written in assembly, ELF headers included: it is the same in every sandbox, and nothing has to be built,
//! linked or parsed before a program can start.

#[expect(unsafe_code, reason = "the image is assembly, found by its labels")]
mod image;

use crate::abi::{Errno, Result};
use crate::mm::frames::Page;
use crate::mm::{MapFlags, MapInfo, MapRequest, Mappable, Mm, PAGE_SIZE, VmFlags};
use crate::platform::{Frame, Prot};
use crate::sync::{Lock, Rank};
use crate::time::published;
use std::sync::Arc;

/// What programs get mapped of it: made once per sandbox, each page when a program first touches it.
pub struct Vdso {
    data: Arc<Special>,
    /// Numbers that say nothing: the kernel is asked, which knows by how much clocks are put forward.
    silent: Arc<Special>,
    image: Arc<Special>,
}

impl Vdso {
    /// One of which no program has read yet.
    pub fn new() -> Vdso {
        let data = Special::new("[vvar]", publish);
        let silent = Special::new("[vvar]", |_| {});
        Vdso { data, silent, image: Special::new("[vdso]", copy_image) }
    }

    /// Maps both areas and returns where the image starts (AT_SYSINFO_EHDR); `shifted`: for one whose clocks are put forward.
    ///
    /// # Errors
    /// ENOMEM if there is no room.
    pub(super) fn map(&self, mm: &Mm, shifted: bool) -> Result<u64> {
        let both = mm.free_range(2 * PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        mm.mmap(area(self.numbers(shifted), both, Prot::READ, VmFlags::NEVER_WRITE))?;
        mm.mmap(area(&self.image, both + PAGE_SIZE, Prot::READ | Prot::EXEC, VmFlags::empty()))
    }

    fn numbers(&self, shifted: bool) -> &Arc<Special> {
        if shifted { &self.silent } else { &self.data }
    }

    /// Has a program that is somewhere else in time read its clocks there from now on, if it has the numbers where it got them.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn choose(&self, mm: &Mm, shifted: bool) -> Result<()> {
        let Some(addr) = mm.vdso().checked_sub(PAGE_SIZE) else { return Ok(()) };
        let (from, to) = (self.numbers(!shifted), self.numbers(shifted));
        if !mm.maps_object_at(addr, Arc::as_ptr(from).cast()) {
            return Ok(());
        }
        mm.mmap(area(to, addr, Prot::READ, VmFlags::NEVER_WRITE)).map(drop)
    }
}

fn area(special: &Arc<Special>, addr: u64, prot: Prot, vm: VmFlags) -> MapRequest {
    MapRequest { addr, len: PAGE_SIZE, prot, flags: MapFlags::FIXED, vm, object: Some((special.clone(), 0)) }
}

impl Default for Vdso {
    fn default() -> Self {
        Vdso::new()
    }
}

/// Where signal handlers return to that bring no restorer of their own, for an image at `base`; none where programs must
/// bring one.
pub fn restorer(base: u64) -> Option<u64> {
    image::rt_sigreturn().map(|offset| base + offset)
}

/// A page that is nobody's file.
struct Special {
    name: &'static str,
    fill: fn(&Page),
    page: Lock<Option<Page>>,
}

impl Special {
    fn new(name: &'static str, fill: fn(&Page)) -> Arc<Special> {
        Arc::new(Special { name, fill, page: Lock::new(Rank::VdsoPage, None) })
    }
}

fn publish(page: &Page) {
    // It is written as long as this process lives, whatever becomes of the sandbox: nobody else may ever get it.
    let _forever = page.share();
    published::to(page.words());
}

fn copy_image(page: &Page) {
    page.write(0, image::bytes());
}

impl Mappable for Special {
    fn page(&self, index: u64, _write: bool) -> Result<Frame> {
        if index != 0 {
            return Err(Errno::EFAULT);
        }
        let mut page = self.page.lock();
        if let Some(page) = &*page {
            return Ok(page.share());
        }
        let made = Page::new()?;
        (self.fill)(&made);
        Ok(page.insert(made).share())
    }

    fn size(&self) -> u64 {
        PAGE_SIZE
    }

    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        if first == 0
            && let Some(to) = to.first_mut()
        {
            *to = self.page.lock().as_ref().map(Page::share);
        }
    }

    fn is_memory(&self) -> bool {
        true
    }

    fn describe(&self) -> MapInfo {
        MapInfo { path: self.name.into(), ..MapInfo::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::{PAGE_SIZE, image};
    use object::read::elf::ElfFile64;
    use object::{LittleEndian, Object, ObjectSection, ObjectSymbol};

    /// Another reader of ELF files finds everything where dynamic linkers and debuggers look for it.
    #[test]
    fn the_image_is_a_shared_library() {
        let bytes = image::bytes();
        assert!(bytes.len() <= PAGE_SIZE as usize, "{}", bytes.len());
        let file = ElfFile64::<LittleEndian>::parse(bytes).unwrap();
        let text = file.section_by_name(".text").unwrap();
        let text = text.address()..text.address() + text.size();
        for symbol in file.dynamic_symbols() {
            let end = symbol.address() + symbol.size();
            assert!(text.contains(&symbol.address()) && text.contains(&(end - 1)), "{:?}", symbol.name());
        }
        let names: Vec<&str> = file.dynamic_symbols().filter_map(|symbol| symbol.name().ok()).collect();
        #[cfg(target_arch = "x86_64")]
        assert_eq!(names[..3], ["__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time"]);
        #[cfg(target_arch = "aarch64")]
        assert_eq!(names, ["__kernel_clock_gettime", "__kernel_gettimeofday", "__kernel_rt_sigreturn"]);
    }
}
