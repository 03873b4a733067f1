//! Pages of host files, mapped and copied.

use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::mm::filecache::FileCache;
use crate::mm::frames::Page;
use crate::mm::testing::FakePlatform;
use crate::mm::usage::FileUsers;
use crate::mm::{FaultSignal, Layout, MapRequest, Mappable, Mm, VmFlags, frames};
use crate::platform::{Access, Frame, Prot};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

/// A file's pages as either platform has them: mapped, or read into frames.
struct HostFile {
    file: HostFd,
    size: u64,
    mapped: FileCache,
    read: Option<Vec<Page>>,
}

impl Mappable for HostFile {
    fn page(&self, index: u64, write: bool) -> Result<Frame> {
        assert!(!write, "the host's file is never written");
        match &self.read {
            None => self.mapped.page(&self.file, self.size, index),
            Some(pages) => pages.get(index as usize).map(Page::share).ok_or(Errno::EFAULT),
        }
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn ready(&self, first: u64, to: &mut [Option<Frame>]) {
        match &self.read {
            None => self.mapped.ready(self.size, first, to),
            Some(pages) => {
                for (to, page) in to.iter_mut().zip(pages.iter().skip(first as usize)) {
                    *to = Some(page.share());
                }
            }
        }
    }
}

/// A file of `pages` pages and 100 bytes, each page filled with its number.
fn host_file(cheap: bool, pages: u64) -> (Arc<HostFile>, Arc<Mm>) {
    let path = std::env::temp_dir().join(format!("pillbox-mm-{}-{cheap}-{pages}", std::process::id()));
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut bytes: Vec<u8> = (0..pages).flat_map(|page| [(page as u8).wrapping_add(1); 4096]).collect();
    bytes.extend([0xaa; 100]);
    file.write_all(&bytes).unwrap();
    let file = HostFd::given(file.into(), "a test").unwrap();
    let platform = FakePlatform::create(cheap);
    let read = (!cheap).then(|| {
        bytes.chunks(4096).map(|bytes| Page::new().inspect(|page| page.write(0, bytes)).unwrap()).collect()
    });
    let mm = Mm::new(&platform).unwrap();
    mm.set_layout(Layout { mmap_base: 0x7f00_0000_0000, ..Layout::default() });
    (Arc::new(HostFile { file, size: pages * 4096 + 100, mapped: FileCache::default(), read }), mm)
}

fn request(file: &Arc<HostFile>, len: u64, prot: Prot) -> MapRequest {
    MapRequest { object: Some((file.clone(), 0)), ..MapRequest::anonymous(len, prot) }
}

#[test]
fn files_are_read_copied_on_write_and_end() {
    for cheap in [true, false] {
        let (file, mm) = host_file(cheap, 40);
        let rw = Prot::READ | Prot::WRITE;
        let at = mm.mmap(request(&file, 50 * 4096, rw)).unwrap();
        assert_eq!(mm.read_val(at + 5 * 4096), Ok(6u8));
        let window = (at + 5 * 4096) & !0xffff;
        let around = (0..16).filter(|page| mm.space().lookup(window + page * 4096).is_some());
        assert!(around.count() > 1, "neighbours come along");
        let host = mm.space().lookup(at + 5 * 4096).unwrap().0;
        assert_eq!(frames::is_host_file(host), cheap);
        let child = mm.fork().unwrap();
        mm.write_val(at + 5 * 4096, &99u8).unwrap();
        mm.write_val(at + 30 * 4096, &98u8).unwrap();
        assert_eq!((mm.read_val(at + 5 * 4096), child.read_val(at + 5 * 4096)), (Ok(99u8), Ok(6u8)));
        assert_eq!((mm.read_val(at + 30 * 4096 + 1), child.read_val(at + 30 * 4096)), (Ok(31u8), Ok(31u8)));
        assert_eq!(mm.read_val(at + 40 * 4096 + 99), Ok(0xaau8));
        assert_eq!(mm.read_val(at + 40 * 4096 + 100), Ok(0u8), "the tail of the last page");
        assert_eq!(mm.handle_fault(at + 41 * 4096, Access::Read), Err(FaultSignal::BEYOND_END));
        assert_eq!(mm.read_val::<u8>(at + 41 * 4096), Err(Errno::EFAULT));
        assert_eq!(mm.mincore(at, 8 * 4096), Ok(vec![1; 8]));
        // Not writable through a shared mapping, which is then the file's own business: read-only here.
        let shared =
            MapRequest { vm: VmFlags::SHARED | VmFlags::NEVER_WRITE, ..request(&file, 4096, Prot::READ) };
        let shared = mm.mmap(shared).unwrap();
        assert_eq!(mm.read_val(shared), Ok(1u8));
        assert_eq!(mm.mprotect(shared, 4096, rw), Err(Errno::EACCES));
    }
}

#[test]
fn many_parts_are_many_mappings() {
    let (file, mm) = host_file(true, 2100);
    let at = mm.mmap(request(&file, 2100 * 4096, Prot::READ)).unwrap();
    for page in [0, 2047, 2048, 2099] {
        assert_eq!(mm.read_val(at + page * 4096), Ok((page as u8).wrapping_add(1)));
    }
    let mut bytes = [0; 10];
    assert_eq!(file.read_at(2048 * 4096 - 5, &mut bytes), Ok(10));
    assert_eq!(bytes, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]);
    assert_eq!(file.read_at(2100 * 4096 + 95, &mut bytes), Ok(5));
}

#[test]
fn a_truncated_file_is_an_error_for_the_copy() {
    crate::hostsys::fault::install(crate::mm::fixup);
    let (file, mm) = host_file(true, 8);
    let at = mm.mmap(request(&file, 8 * 4096, Prot::READ | Prot::WRITE)).unwrap();
    assert_eq!(mm.read_val(at + 7 * 4096), Ok(8u8));
    crate::hostsys::file::ftruncate(file.file.raw(), 3 * 4096).unwrap();
    assert_eq!(mm.read_val::<u64>(at + 7 * 4096), Err(Errno::EFAULT));
    assert_eq!(mm.load_u32(at + 7 * 4096), Err(Errno::EFAULT));
    let mut buffer = vec![0; 5 * 4096];
    assert_eq!(mm.read_some(at, &mut buffer), Ok(3 * 4096));
    assert_eq!(
        mm.handle_fault(at + 7 * 4096, Access::Write),
        Err(FaultSignal::BEYOND_END),
        "no copy to be had"
    );
    assert_eq!(mm.read_val(at + 2 * 4096), Ok(3u8));
}

#[test]
fn pages_of_a_file_are_the_files_until_they_are_written() {
    for cheap in [true, false] {
        let (file, mm) = host_file(cheap, 16);
        let rw = Prot::READ | Prot::WRITE;
        let at = mm.mmap(request(&file, 16 * 4096, rw)).unwrap();
        assert_eq!(mm.read_val(at), Ok(1u8));
        let usage = |mm: &Arc<Mm>, all: &[&Arc<Mm>]| {
            let users = FileUsers::of(all.iter().map(|mm| Arc::clone(mm)));
            mm.resident_areas(&users)[0].1
        };
        let now = usage(&mm, &[&mm]);
        assert_eq!(
            (now.file, now.anon, now.private_clean),
            (16 * 4096, 0, 16 * 4096),
            "mapped around the fault"
        );
        mm.write_val(at + 4096, &9u8).unwrap();
        let now = usage(&mm, &[&mm]);
        assert_eq!((now.file, now.anon, now.private_dirty), (15 * 4096, 4096, 4096));
        assert_eq!(mm.resident(), 16 * 4096);
        let child = mm.fork().unwrap();
        assert_eq!(child.read_val(at), Ok(1u8));
        // Named twice, counted once.
        let now = usage(&child, &[&mm, &child, &mm]);
        assert_eq!((now.shared_clean, now.private_clean), (15 * 4096, 0));
        assert_eq!((now.share(), now.shared_dirty), (8 * 4096, 4096));
        assert_eq!(child.resident(), child.resident_by_kind().total());
    }
}
