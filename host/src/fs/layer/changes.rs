//! What programs have changed, against the host's directory below.
//!
//! The tree of dentries has all of it: every change enters what it touches there. What was only looked at is there, too, and is
//! told apart by the time of its last change, which no program can set: what is still as it was found has not been changed.
//! What was changed and then changed back counts as changed, as it does for an overlayfs.
//!
//! A name that is known to be missing was removed if the host's directory has it; else it was only looked for. A directory that
//! was moved, or made in the place of another, has nothing of what the host has under that name: it is opaque. Of one that was
//! moved all is told that is below, also what nobody has looked at.
//!
//! Programs drive this: how deep directories are nested, how many names they have. Nothing recurses here, and what is kept is a
//! few words for each sibling of the directories on the way down.

use super::lower::LowerDir;
use super::{Body, Node, Target};
use crate::abi::Errno;
use crate::vfs::{Dentry, Inode, Kind, Timestamp};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Of what is not the host's: no time is so early.
pub(super) const NOT_FOUND: i64 = i64::MIN;
/// The longest name from the root that is told: others cannot be named by a program outside either (PATH_MAX).
const LONGEST: usize = 4095;

/// A time in one word.
pub(super) fn stamp(time: Timestamp) -> i64 {
    time.sec.wrapping_mul(1_000_000_000).wrapping_add(time.nsec.into())
}

/// What has become of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// There was nothing.
    Added,
    /// It was there, or something else was.
    Changed,
    /// Nothing of it was changed, but something below was.
    Passed,
}

/// What has a name now.
pub struct Changed<'a> {
    /// The name from the root, without a slash in front; empty for the root itself.
    pub path: &'a [u8],
    /// What became of it.
    pub change: Change,
    /// What has it.
    pub dentry: &'a Arc<Dentry>,
    /// The same.
    pub node: &'a Node,
    /// The host has a directory of this name, of which this one shows nothing.
    pub opaque: bool,
}

/// Who is told of changes: of a directory before what is in it, of what it has lost before what it has.
pub trait Record {
    /// Something is there.
    ///
    /// # Errors
    /// An end to it all.
    fn changed(&mut self, changed: &Changed<'_>) -> io::Result<()>;

    /// Something is there no more.
    ///
    /// # Errors
    /// An end to it all.
    fn removed(&mut self, path: &[u8]) -> io::Result<()>;

    /// Something cannot be told.
    fn unknown(&mut self, path: &[u8], why: Errno);
}

/// Changes to a layer from a moment on.
pub struct Changes {
    root: Arc<Dentry>,
    /// What had been changed before, by the address of its node, which the tree keeps, and when.
    before: BTreeMap<usize, i64>,
    /// What lay below a mount at first: what hides something moves with it, and nobody is to see it here either.
    covered: Vec<Arc<Dentry>>,
}

impl Changes {
    /// From now on, to the layer that `root` is the root of, less what `covered` has of it. None: it is none.
    pub fn begin(root: Arc<Dentry>, covered: Vec<Arc<Dentry>>) -> Option<Changes> {
        root.inode.as_any().downcast_ref::<Node>()?;
        let mut so_far = Before(BTreeMap::new());
        let all = Changes { root, before: BTreeMap::new(), covered };
        all.tell(&mut so_far).ok()?;
        Some(Changes { before: so_far.0, ..all })
    }

    /// Tells of all of them.
    ///
    /// # Errors
    /// The recorder's.
    pub fn tell(&self, to: &mut dyn Record) -> io::Result<()> {
        let mut walk = Walk {
            before: &self.before,
            covered: &self.covered,
            to,
            path: Vec::new(),
            passed: Vec::new(),
            left: Vec::new(),
        };
        walk.root(&self.root)?;
        while let Some(step) = walk.left.pop() {
            walk.step(step)?;
        }
        Ok(())
    }
}

/// Notes what has been changed by when.
struct Before(BTreeMap<usize, i64>);

impl Record for Before {
    fn changed(&mut self, changed: &Changed<'_>) -> io::Result<()> {
        self.0.insert(address(changed.node), changed.node.last_change());
        Ok(())
    }

    fn removed(&mut self, _path: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn unknown(&mut self, _path: &[u8], _why: Errno) {}
}

/// A directory on the way down.
#[derive(Clone)]
struct Dir {
    dentry: Arc<Dentry>,
    /// It is where the host has it, and so are all above it.
    in_place: bool,
    /// Bytes of its path.
    len: usize,
}

/// What is left to be done.
enum Step {
    /// Something that a directory has.
    Known(Dir, Arc<[u8]>, Arc<Dentry>),
    /// Something that is below in a directory that was moved, and may not be in the tree.
    Below(Dir, Box<[u8]>),
    /// The directory whose path has this length is done.
    Leave(usize),
}

struct Walk<'a> {
    before: &'a BTreeMap<usize, i64>,
    covered: &'a [Arc<Dentry>],
    to: &'a mut dyn Record,
    path: Vec<u8>,
    /// Directories on the way that were not told of, and are as soon as something below is.
    passed: Vec<(usize, Arc<Dentry>)>,
    left: Vec<Step>,
}

impl Walk<'_> {
    fn root(&mut self, dentry: &Arc<Dentry>) -> io::Result<()> {
        let Some(node) = node_of(dentry) else { return Ok(()) };
        if node.differs_from_host() {
            self.to.changed(&Changed { path: b"", change: Change::Changed, dentry, node, opaque: false })?;
        }
        self.enter(Dir { dentry: dentry.clone(), in_place: true, len: 0 })
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Leave(len) => {
                while self.passed.last().is_some_and(|(of, _)| *of >= len) {
                    self.passed.pop();
                }
                Ok(())
            }
            Step::Known(dir, name, dentry) => self.visit(&dir, &name, &dentry),
            Step::Below(dir, name) => match dir.dentry.inode.lookup(&name) {
                // Not entered into the tree, which a whole disk may not fit into.
                Ok(Some(inode)) => self.visit(&dir, &name, &Dentry::below(&dir.dentry, &name, inode)),
                Ok(None) => Ok(()),
                Err(why) => {
                    self.go(&dir, &name);
                    self.to.unknown(&self.path, why);
                    Ok(())
                }
            },
        }
    }

    /// The path is that of `name` in `dir` now.
    fn go(&mut self, dir: &Dir, name: &[u8]) {
        self.path.truncate(dir.len);
        if dir.len > 0 {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    fn visit(&mut self, dir: &Dir, name: &[u8], dentry: &Arc<Dentry>) -> io::Result<()> {
        let Some(node) = node_of(dentry) else { return Ok(()) };
        if self.covered.iter().any(|covered| Arc::ptr_eq(covered, dentry)) {
            return Ok(());
        }
        self.go(dir, name);
        if self.path.len() > LONGEST {
            self.to.unknown(&self.path, Errno::ENAMETOOLONG);
            return Ok(());
        }
        let is_dir = node.meta.kind == Kind::Dir;
        let lower = dir.lower();
        let mut in_place = lower.is_some_and(|lower| node.is_at(lower, name));
        let same = in_place && !node.is_changed();
        if !same && self.before.get(&address(node)) != Some(&node.last_change()) {
            let below = match lower.map_or(Ok(None), |lower| lower.stat(name)) {
                Ok(below) => below,
                Err(why) => {
                    self.to.unknown(&self.path, why);
                    None
                }
            };
            // It has lost what it was found by (a link has been read, another name of a file was first).
            in_place |= below.is_some_and(|stat| !is_dir && node.is_of_host() && node.meta.ino == stat.ino);
            if !in_place || node.is_changed() {
                let under = below.map(|stat| Kind::from_mode(stat.raw.stx_mode.into()));
                let opaque = is_dir && !in_place && under == Some(Some(Kind::Dir));
                let change = if under.is_some() { Change::Changed } else { Change::Added };
                self.tell_passed()?;
                self.to.changed(&Changed { path: &self.path, change, dentry, node, opaque })?;
                return if is_dir { self.enter(self.dir(dentry, in_place)) } else { Ok(()) };
            }
        }
        if is_dir {
            self.passed.push((self.path.len(), dentry.clone()));
            return self.enter(self.dir(dentry, in_place));
        }
        Ok(())
    }

    fn dir(&self, dentry: &Arc<Dentry>, in_place: bool) -> Dir {
        Dir { dentry: dentry.clone(), in_place, len: self.path.len() }
    }

    /// Tells of the directories above, that were only passed.
    fn tell_passed(&mut self) -> io::Result<()> {
        for (len, dentry) in std::mem::take(&mut self.passed) {
            let Some(node) = node_of(&dentry) else { continue };
            let (path, dentry) = (&self.path[..len], &dentry);
            self.to.changed(&Changed { path, change: Change::Passed, dentry, node, opaque: false })?;
        }
        Ok(())
    }

    /// Tells what a directory has lost, and notes what it has.
    fn enter(&mut self, dir: Dir) -> io::Result<()> {
        self.left.push(Step::Leave(dir.len));
        let known = dir.dentry.known();
        if !dir.in_place && dir.dentry.inode.has_lower() {
            match dir.dentry.inode.list() {
                Ok(all) => {
                    let unknown = all.iter().filter(|entry| {
                        known.binary_search_by(|(name, _)| (**name).cmp(&*entry.name)).is_err()
                    });
                    let steps = unknown.map(|entry| Step::Below(dir.clone(), entry.name.clone()));
                    self.left.extend(steps);
                }
                Err(why) => self.to.unknown(&self.path, why),
            }
        }
        for (name, child) in &known {
            if child.is_none() {
                self.lost(&dir, name)?;
            }
        }
        let there = known.into_iter().rev().filter_map(|(name, child)| Some((name, child?)));
        self.left.extend(there.map(|(name, child)| Step::Known(dir.clone(), name, child)));
        Ok(())
    }

    fn lost(&mut self, dir: &Dir, name: &[u8]) -> io::Result<()> {
        let Some(lower) = dir.lower() else { return Ok(()) };
        let there = lower.stat(name);
        self.go(dir, name);
        match there {
            Ok(Some(_)) if self.path.len() <= LONGEST => {
                self.tell_passed()?;
                self.to.removed(&self.path)
            }
            Ok(_) => Ok(()),
            Err(why) => {
                self.to.unknown(&self.path, why);
                Ok(())
            }
        }
    }
}

impl Dir {
    /// What the host has there, where it is where the host has it.
    fn lower(&self) -> Option<&LowerDir> {
        node_of(&self.dentry).filter(|_| self.in_place)?.lower_dir()
    }
}

/// What has a name of the layer.
fn node_of(dentry: &Dentry) -> Option<&Node> {
    dentry.inode.as_any().downcast_ref()
}

fn address(node: &Node) -> usize {
    std::ptr::from_ref(node) as usize
}

impl Node {
    fn lower_dir(&self) -> Option<&LowerDir> {
        match &self.body {
            Body::Dir { lower, .. } => lower.as_deref(),
            _ => None,
        }
    }

    fn last_change(&self) -> i64 {
        stamp(self.meta.times.lock().change)
    }

    fn is_of_host(&self) -> bool {
        self.found != NOT_FOUND
    }

    fn is_changed(&self) -> bool {
        self.last_change() != self.found
    }

    /// Whether it is what `dir` has as `name`, as far as it knows what it was found as.
    fn is_at(&self, dir: &LowerDir, name: &[u8]) -> bool {
        match &self.body {
            Body::Dir { lower, .. } => lower.as_ref().is_some_and(|own| own.is_below(dir, name)),
            Body::File(content) => content.lower_file().is_some_and(|own| dir.has(name, own)),
            Body::Symlink(target) => match &*target.lock() {
                Target::Lower(own, known, _) => std::ptr::eq(&**own, dir) && **known == *name,
                Target::Text(_) => false,
            },
            Body::Special => false,
        }
    }

    /// Of the root: whether it has another owner or other permissions than the host's. Its names do not count.
    fn differs_from_host(&self) -> bool {
        let Some(Ok(Some(stat))) = self.lower_dir().map(|dir| dir.stat(b".")) else { return false };
        let own = self.stat();
        (own.mode, own.uid, own.gid) != (stat.raw.stx_mode.into(), stat.raw.stx_uid, stat.raw.stx_gid)
    }

    /// All extended attributes that programs have given it.
    pub fn attributes(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.xattrs.lock();
        all.iter().flat_map(|all| all.iter()).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
