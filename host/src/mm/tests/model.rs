//! Random operations on several processes that share and copy memory, against an oracle: contents, errors, and that
//! no frame is lost or freed early (the fake platform asserts the latter).

use crate::abi::Errno;
use crate::mm::testing::{FakePlatform, alone};
use crate::mm::usage::{FileUsers, Resident};
use crate::mm::{Advice, MapFlags, MapRequest, Mappable, Mm, SharedMemory, VmFlags, frames};
use crate::platform::{Frame, Prot};
use std::collections::BTreeMap;
use std::sync::Arc;

const BASE: u64 = 0x10_0000;
const PAGES: u64 = 40;
const OBJECT_PAGES: u64 = 24;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// An object that has no page ready: every page is fetched without the lock.
struct Slow(SharedMemory);

impl Mappable for Slow {
    fn page(&self, index: u64, write: bool) -> crate::abi::Result<Frame> {
        self.0.page(index, write)
    }
    fn size(&self) -> u64 {
        self.0.size()
    }
}

/// What a page of the oracle holds.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// A private value.
    Own(u64),
    /// The value of a page of an object, as long as nobody writes privately.
    Of { object: usize, index: u64, shared: bool },
}

#[derive(Clone, Copy, Debug)]
struct Page {
    prot: Prot,
    content: Content,
    /// What a dropped private page reads as again.
    origin: Content,
}

type Process = BTreeMap<u64, Page>;

struct World {
    objects: Vec<Arc<dyn Mappable>>,
    values: Vec<BTreeMap<u64, u64>>,
    processes: Vec<(Arc<Mm>, Process)>,
}

impl World {
    fn value(&self, content: Content) -> Option<u64> {
        match content {
            Content::Own(value) => Some(value),
            Content::Of { object, index, .. } => {
                (index < OBJECT_PAGES).then(|| self.values[object].get(&index).copied().unwrap_or(0))
            }
        }
    }

    fn check(&self, who: usize) {
        let (mm, model) = &self.processes[who];
        for page in 0..PAGES {
            let got = mm.read_val::<u64>(BASE + page * 4096 + 8);
            let expected = model
                .get(&page)
                .filter(|page| !page.prot.is_empty())
                .and_then(|page| self.value(page.content))
                .ok_or(Errno::EFAULT);
            assert_eq!(got, expected, "process {who} page {page} {:?}", model.get(&page));
        }
        // What is kept agrees with what is there.
        let found = mm.resident_by_kind();
        let areas = mm.resident_areas(&FileUsers::default());
        let (mut sum, mut split) = (Resident::default(), 0);
        for (_, area) in areas {
            sum = sum.plus(area);
            split += area.shared_clean + area.shared_dirty + area.private_clean + area.private_dirty;
        }
        assert_eq!([found.anon, found.file, found.shmem], [sum.anon, sum.file, sum.shmem]);
        assert_eq!((mm.resident(), split), (found.total(), found.total()), "process {who}");
        assert!(mm.peak_resident() >= mm.resident() && sum.share() <= sum.total());
    }

    fn step(&mut self, random: &mut Random) {
        let who = random.below(self.processes.len() as u64) as usize;
        let start = random.below(PAGES);
        let len = 1 + random.below((PAGES - start).min(9));
        let prot = Prot::from_bits_truncate([0, 1, 3, 3, 3, 5, 7, 2][random.below(8) as usize]);
        let (addr, bytes) = (BASE + start * 4096, len * 4096);
        let kind = random.below(100);
        let count = self.processes.len();
        let (mm, model) = &mut self.processes[who];
        match kind {
            0..25 => {
                let shared = random.below(2) == 0;
                let object = random.below(self.objects.len() as u64 * 2) as usize;
                let object = (object < self.objects.len()).then_some(object);
                let offset = random.below(OBJECT_PAGES);
                let shared = shared && object.is_some();
                mm.mmap(MapRequest {
                    addr,
                    len: bytes,
                    prot,
                    flags: MapFlags::FIXED,
                    vm: if shared { VmFlags::SHARED } else { VmFlags::empty() },
                    object: object.map(|object| (self.objects[object].clone(), offset * 4096)),
                })
                .unwrap();
                for i in 0..len {
                    let content = object.map_or(Content::Own(0), |object| Content::Of {
                        object,
                        index: offset + i,
                        shared,
                    });
                    model.insert(start + i, Page { prot, content, origin: content });
                }
            }
            25..33 => {
                mm.munmap(addr, bytes).unwrap();
                model.retain(|page, _| !(start..start + len).contains(page));
            }
            33..48 => {
                let mut expected = Ok(());
                for page in start..start + len {
                    match model.get_mut(&page) {
                        Some(page) => page.prot = prot,
                        None => {
                            expected = Err(Errno::ENOMEM);
                            break;
                        }
                    }
                }
                assert_eq!(mm.mprotect(addr, bytes, prot), expected);
            }
            48..75 => {
                let value = random.below(u64::MAX);
                let got = mm.write_val(addr + 8, &value);
                let mut expected = Err(Errno::EFAULT);
                if let Some(page) = model.get_mut(&start)
                    && page.prot.contains(Prot::WRITE)
                {
                    match page.content {
                        Content::Of { index, .. } if index >= OBJECT_PAGES => {}
                        Content::Of { object, index, shared: true } => {
                            self.values[object].insert(index, value);
                            expected = Ok(());
                        }
                        _ => {
                            page.content = Content::Own(value);
                            expected = Ok(());
                        }
                    }
                }
                assert_eq!(got, expected);
            }
            75..80 => {
                let expected = (start..start + len).all(|page| model.contains_key(&page));
                assert_eq!(mm.madvise(addr, bytes, Advice::DontNeed { locked: false }).is_ok(), expected);
                for (_, page) in model.range_mut(start..start + len) {
                    page.content = page.origin;
                }
            }
            80..88 => {
                // Move within the window, where the source is one area.
                let to = random.below(PAGES);
                let (from_end, to_end) = (start + len, to + len);
                let apart = from_end <= to || to_end <= start;
                if to_end > PAGES || !apart {
                    return;
                }
                let got = mm.mremap(addr, bytes, bytes, 3, BASE + to * 4096);
                if got == Ok(BASE + to * 4096) {
                    for i in 0..len {
                        model.remove(&(to + i));
                        if let Some(page) = model.remove(&(start + i)) {
                            model.insert(to + i, page);
                        }
                    }
                } else {
                    // Not one area; the target is untouched.
                    assert_eq!(got, Err(Errno::EFAULT));
                }
            }
            88..94 if count < 5 => {
                let child = (mm.fork().unwrap(), model.clone());
                self.processes.push(child);
            }
            94..97 if count > 1 => {
                self.processes.remove(who);
                return;
            }
            _ => {}
        }
        self.check(who);
        if kind.is_multiple_of(4) {
            (0..self.processes.len()).for_each(|who| self.check(who));
        }
    }
}

fn run(cheap: bool, seeds: u64) {
    let zero = frames::zero().unwrap();
    let before = frames::used_bytes();
    for seed in 1..=seeds {
        let platform = FakePlatform::create(cheap);
        let size = OBJECT_PAGES * 4096;
        let mut world = World {
            objects: vec![
                Arc::new(SharedMemory::new(size, b"a")),
                Arc::new(Slow(SharedMemory::new(size, b"b"))),
            ],
            values: vec![BTreeMap::new(); 2],
            processes: vec![(Mm::new(&platform).unwrap(), Process::new())],
        };
        let mut random = Random(seed * 0x9e37_79b9 + u64::from(cheap));
        for _ in 0..400 {
            world.step(&mut random);
        }
        drop(world);
        assert_eq!(frames::used_bytes(), before, "frames lost with seed {seed}");
    }
    frames::put_ref(zero);
}

#[test]
fn processes_match_an_oracle_where_mapping_is_cheap() {
    if alone("mm::tests::model::processes_match_an_oracle_where_mapping_is_cheap") {
        run(true, 40);
    }
}

#[test]
fn processes_match_an_oracle_where_mapping_is_dear() {
    if alone("mm::tests::model::processes_match_an_oracle_where_mapping_is_dear") {
        run(false, 40);
    }
}
