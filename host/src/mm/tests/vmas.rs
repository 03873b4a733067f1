//! The interval map against an oracle with one entry per page.

use crate::mm::vma::{Backing, VmFlags, Vma, VmaMap};
use crate::mm::{Mappable, SharedMemory};
use crate::platform::Prot;
use proptest::prelude::{Strategy, any, prop, proptest};
use std::collections::BTreeMap;
use std::sync::Arc;

const PAGES: u64 = 24;

#[derive(Clone, Debug)]
enum Op {
    Insert { start: u64, len: u64, prot: u8, object: Option<u64> },
    Remove { start: u64, len: u64 },
    Protect { start: u64, len: u64, prot: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let range = (0..PAGES, 1..8u64);
    (range, 0..8u8, prop::option::of(0..PAGES), any::<u8>()).prop_map(|((start, len), prot, object, kind)| {
        match kind % 3 {
            0 => Op::Insert { start, len, prot, object },
            1 => Op::Remove { start, len },
            _ => Op::Protect { start, len, prot },
        }
    })
}

/// Protection and offset in the object, per page.
type Oracle = BTreeMap<u64, (u8, Option<u64>)>;

fn check(map: &VmaMap, oracle: &Oracle) {
    let mut seen = Oracle::new();
    let mut previous: Option<&Vma> = None;
    for vma in map.iter() {
        assert!(vma.start < vma.end);
        if let Some(previous) = previous {
            assert!(previous.end <= vma.start);
            let same = previous.prot == vma.prot
                && match (&previous.backing, &vma.backing) {
                    (Backing::Anon, Backing::Anon) => true,
                    (Backing::Object { offset: a, .. }, Backing::Object { offset: b, .. }) => {
                        a + previous.len() == *b
                    }
                    _ => false,
                };
            assert!(previous.end != vma.start || !same, "unmerged neighbours");
        }
        for page in vma.start / 4096..vma.end / 4096 {
            let offset = match vma.backing {
                Backing::Anon => None,
                Backing::Object { .. } => Some(vma.object_offset(page * 4096) / 4096),
            };
            seen.insert(page, (vma.prot.bits(), offset));
            assert_eq!(map.find(page * 4096 + 7).unwrap().start, vma.start);
        }
        previous = Some(vma);
    }
    assert_eq!(&seen, oracle);
    for page in 0..PAGES + 8 {
        let expected = oracle.range(page..).next().map(|(&page, _)| page);
        let found = map.find_from(page * 4096).map(|vma| vma.start.max(page * 4096) / 4096);
        assert_eq!(found, expected);
    }
}

proptest! {
    #[test]
    fn areas_match_an_oracle(ops in prop::collection::vec(op(), 1..60)) {
        let object: Arc<dyn Mappable> = Arc::new(SharedMemory::new(1 << 20, b""));
        let (mut map, mut oracle) = (VmaMap::default(), Oracle::new());
        let mut removed = Vec::new();
        for op in ops {
            match op {
                Op::Insert { start, len, prot, object: offset } => {
                    map.remove(start * 4096, (start + len) * 4096, &mut removed);
                    let backing = offset.map_or(Backing::Anon, |offset| Backing::Object {
                        object: object.clone(),
                        offset: offset * 4096,
                    });
                    map.insert(Vma {
                        start: start * 4096,
                        end: (start + len) * 4096,
                        prot: Prot::from_bits_truncate(prot),
                        flags: VmFlags::empty(),
                        backing,
                    });
                    for i in 0..len {
                        oracle.insert(start + i, (prot, offset.map(|offset| offset + i)));
                    }
                }
                Op::Remove { start, len } => {
                    removed.clear();
                    map.remove(start * 4096, (start + len) * 4096, &mut removed);
                    let pages: u64 = removed.iter().map(|vma| vma.len() / 4096).sum();
                    let before = oracle.len();
                    oracle.retain(|page, _| !(start..start + len).contains(page));
                    assert_eq!(pages as usize, before - oracle.len());
                }
                Op::Protect { start, len, prot } => {
                    map.update(start * 4096, (start + len) * 4096, |vma| vma.prot = Prot::from_bits_truncate(prot));
                    for (_, page) in oracle.range_mut(start..start + len) {
                        page.0 = prot;
                    }
                }
            }
            check(&map, &oracle);
        }
    }
}
