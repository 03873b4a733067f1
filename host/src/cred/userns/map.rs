//! Maps of ids (user_namespaces(7), "User and group ID mappings: uid_map and gid_map").

use crate::abi::{Errno, Result};

/// The most lines of a map.
const MAX_EXTENTS: usize = 340;
/// What is written has to be shorter.
const MAX_TEXT: usize = 4096;

/// A run of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// What the first is called inside.
    pub(super) inside: u32,
    /// The first: as the namespace above calls it while it is being written, and by the kernel's own number from then on.
    pub(super) outside: u32,
    /// How many they are.
    pub(super) count: u32,
}

/// What all ids of a kind are called.
#[derive(Debug)]
pub struct IdMap {
    /// By what they are called inside.
    by_inside: Box<[Extent]>,
    by_outside: Box<[Extent]>,
    /// As they were written.
    written: Box<[Extent]>,
}

impl IdMap {
    pub(super) fn new(written: Vec<Extent>) -> IdMap {
        let sorted = |key: fn(&Extent) -> u32| {
            let mut all = written.clone();
            all.sort_by_key(key);
            all.into_boxed_slice()
        };
        let (by_inside, by_outside) = (sorted(|extent| extent.inside), sorted(|extent| extent.outside));
        IdMap { by_inside, by_outside, written: written.into_boxed_slice() }
    }

    /// The kernel's number of what is called `name`.
    pub(super) fn inward(&self, name: u32) -> Option<u32> {
        self.all_inward(name, 1)
    }

    /// The kernel's numbers of `count` ids from `name` on: those of one run.
    pub(super) fn all_inward(&self, name: u32, count: u32) -> Option<u32> {
        let at = self.by_inside.partition_point(|extent| extent.inside <= name).checked_sub(1)?;
        let extent = self.by_inside.get(at)?;
        let skipped = name - extent.inside;
        let fits = skipped < extent.count && count <= extent.count - skipped;
        fits.then(|| extent.outside + skipped)
    }

    /// What the kernel's `id` is called.
    pub(super) fn outward(&self, id: u32) -> Option<u32> {
        let at = self.by_outside.partition_point(|extent| extent.outside <= id).checked_sub(1)?;
        let extent = self.by_outside.get(at)?;
        let skipped = id - extent.outside;
        (skipped < extent.count).then(|| extent.inside + skipped)
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.written.iter()
    }
}

/// A line of a map.
pub(super) fn line(inside: u32, outside: u32, count: u32) -> String {
    format!("{inside:10} {outside:10} {count:10}\n")
}

/// Reads what is written to a map's file.
///
/// # Errors
/// EINVAL for what is no map.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Extent>> {
    if text.len() >= MAX_TEXT {
        return Err(Errno::EINVAL);
    }
    // A string: what is behind its end is nothing.
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let mut all: Vec<Extent> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        let new = extent(line)?;
        let meets = |a: u32, b: u32, old: &Extent| {
            let (a_end, b_end) = (a + (new.count - 1), b + (old.count - 1));
            a <= b_end && b <= a_end
        };
        let overlaps =
            |old: &Extent| meets(new.inside, old.inside, old) || meets(new.outside, old.outside, old);
        if all.len() == MAX_EXTENTS || all.iter().any(overlaps) {
            return Err(Errno::EINVAL);
        }
        all.push(new);
    }
    Ok(all)
}

fn extent(line: &[u8]) -> Result<Extent> {
    let line = core::str::from_utf8(line).map_err(|_| Errno::EINVAL)?;
    let mut words = line.split_ascii_whitespace();
    let mut number = || -> Result<u32> {
        let word = words.next().ok_or(Errno::EINVAL)?;
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        if digits { word.parse().map_err(|_| Errno::EINVAL) } else { Err(Errno::EINVAL) }
    };
    let extent = Extent { inside: number()?, outside: number()?, count: number()? };
    let ends = |first: u32| first != u32::MAX && first.checked_add(extent.count).is_some();
    if words.next().is_some() || extent.count == 0 || !ends(extent.inside) || !ends(extent.outside) {
        return Err(Errno::EINVAL);
    }
    Ok(extent)
}

#[cfg(test)]
mod tests {
    use super::{Errno, Extent, IdMap, MAX_EXTENTS, parse};

    #[test]
    fn what_is_no_map_is_refused() {
        for bad in [
            "",
            "\n",
            "0",
            "0 0",
            "0 0 0",
            "0 0 1 1",
            "a 0 1",
            "0 -1 1",
            "4294967295 0 1",
            "0 4294967295 1",
            "1 0 4294967295",
            "0 0 2\n1 5 1",
            "0 0 2\n5 1 1",
            "0 0 1\n\n1 1 1",
            "0 0 1\n1 1 1\n\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(Errno::EINVAL), "{bad:?}");
        }
        let lines = |count| (0..count).map(|at| format!("{at} {at} 1\n")).collect::<String>();
        assert_eq!(parse(lines(MAX_EXTENTS).as_bytes()).unwrap().len(), MAX_EXTENTS);
        assert_eq!(parse(lines(MAX_EXTENTS + 1).as_bytes()), Err(Errno::EINVAL));
        let long = [b"0 0 1".as_slice(), &[b' '; 4091]].concat();
        assert_eq!(parse(&long), Err(Errno::EINVAL));
    }

    #[test]
    fn what_is_one_is_read() {
        assert_eq!(parse(b"0 1000 1").unwrap(), [Extent { inside: 0, outside: 1000, count: 1 }]);
        assert_eq!(parse(b"  0\t 1000  1  \n").unwrap().len(), 1);
        assert_eq!(parse(b"0 0 4294967295\n").unwrap()[0].count, u32::MAX);
    }

    #[test]
    fn ids_are_found_both_ways() {
        let map = IdMap::new(parse(b"0 1000 1\n1 100000 10\n100 7 3").unwrap());
        assert_eq!(
            [0, 1, 10, 11, 100, 102, 103].map(|name| map.inward(name)),
            [Some(1000), Some(100_000), Some(100_009), None, Some(7), Some(9), None]
        );
        assert_eq!(
            [1000, 1001, 100_009, 100_010, 7, 0].map(|id| map.outward(id)),
            [Some(0), None, Some(10), None, Some(100), None]
        );
        assert_eq!(
            (map.all_inward(1, 10), map.all_inward(1, 11), map.all_inward(0, 2)),
            (Some(100_000), None, None)
        );
    }

    proptest::proptest! {
        #[test]
        fn text_of_any_kind_is_read_or_refused(text: Vec<u8>) {
            let _ = parse(&text);
        }

        #[test]
        fn a_map_is_the_same_in_both_directions(runs in proptest::collection::vec((0..60_u32, 0..60_u32, 1..9_u32), 1..6), id in 0..80_u32) {
            let text: String = runs.iter().map(|(a, b, n)| format!("{a} {b} {n}\n")).collect();
            if let Ok(extents) = parse(text.as_bytes()) {
                let map = IdMap::new(extents);
                if let Some(name) = map.outward(id) {
                    proptest::prop_assert_eq!(map.inward(name), Some(id));
                }
                if let Some(own) = map.inward(id) {
                    proptest::prop_assert_eq!(map.outward(own), Some(id));
                }
            }
        }
    }
}
