//! What one layer has made: that stays when it says that nothing from below does.

use std::collections::{HashMap, HashSet};

/// What a layer has made, and which directories it has cleared of what is below it.
pub(super) struct Made {
    /// The names in each directory, and where theirs are. The root is the first. Flat, as a name may have thousands of parts.
    names: Vec<HashMap<Box<[u8]>, usize>>,
    /// By device and inode: links give a directory as many names as they like.
    pub(super) cleared: HashSet<(u64, u64)>,
}

impl Default for Made {
    fn default() -> Made {
        Made { names: vec![HashMap::new()], cleared: HashSet::new() }
    }
}

impl Made {
    /// Takes note of a name, and says how many directories above it were not known before.
    pub(super) fn add(&mut self, parts: &[&[u8]]) -> u64 {
        let (mut at, before) = (0, self.names.len());
        for part in parts {
            at = match self.names[at].get(*part) {
                Some(known) => *known,
                None => {
                    let new = self.names.len();
                    self.names[at].insert((*part).into(), new);
                    self.names.push(HashMap::new());
                    new
                }
            };
        }
        (self.names.len() - before).saturating_sub(1) as u64
    }

    /// The names that it has made in a directory.
    pub(super) fn below(&self, parts: &[&[u8]]) -> Option<&HashMap<Box<[u8]>, usize>> {
        let at = parts.iter().try_fold(0, |at, part| self.names[at].get(*part).copied());
        at.map(|at| &self.names[at])
    }
}

#[cfg(test)]
mod tests {
    use super::Made;

    #[test]
    fn each_directory_is_kept_once() {
        let mut made = Made::default();
        let name = |last| [vec![&b"a"[..]; 1000], vec![last]].concat();
        assert_eq!((made.add(&name(b"x")), made.add(&name(b"y")), made.add(&name(b"x"))), (1000, 0, 0));
        assert_eq!((made.add(&[b"b"]), made.add(&[b"c", b"d"]), made.names.len()), (0, 1, 1 + 1002 + 3));
        assert_eq!(made.below(&name(b"x")[..1000]).map(|own| own.len()), Some(2));
        assert!(made.below(&[b"c"]).unwrap().contains_key(&b"d"[..]) && made.below(&[b"d"]).is_none());
    }
}
