//! What is left of file systems in memory whose last mount has gone.
//!
//! A directory and what is in it hold each other, so that none of them would ever go: somebody takes them apart. With a million
//! names that is long work, and the last mount may go anywhere, with locks held that others want (an unmount goes through a list
//! of mounts; a descriptor is closed). So the one whose call it was is asked to do it before its program goes on, in pieces
//! between which others have their turn.

use super::{Dentry, Kind};
use crate::sync::{Lock, Pause, Rank};
use std::sync::Arc;

/// Names taken apart between two pauses.
const PIECE: usize = 256;

/// Asks the task that runs on this worker to [`clear`](Ruins::clear) before its program goes on; false if none runs here.
type Ask = Box<dyn Fn() -> bool + Send + Sync>;

/// Those that nobody has taken apart yet.
pub struct Ruins {
    left: Lock<Vec<Arc<Dentry>>>,
    ask: Ask,
}

impl Ruins {
    /// None yet.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Arc<Ruins> {
        Arc::new(Ruins { left: Lock::new(Rank::Ruins, Vec::new()), ask: Box::new(ask) })
    }

    /// Nobody can reach the file system of `root` any more.
    pub(super) fn leave(&self, root: Arc<Dentry>) {
        if (self.ask)() {
            self.left.lock().push(root);
        } else {
            // Of the kernel's own threads none makes a program wait.
            take_apart(root, &mut || {});
        }
    }

    /// Takes apart what there is. Called without a lock held, by who was asked, or is to end.
    pub fn clear(&self, pause: &dyn Pause) {
        loop {
            let next = self.left.lock().pop();
            let Some(root) = next else { return };
            take_apart(root, &mut || pause.give_way());
        }
    }
}

/// Undoes the whole tree that `within` is in, one name after another, as trees may be deep.
fn take_apart(within: Arc<Dentry>, pause: &mut dyn FnMut()) {
    let mut top = within;
    while let Some(parent) = top.parent() {
        top = parent;
    }
    let mut left = vec![top];
    let mut done = 0;
    while let Some(dir) = left.pop() {
        let children = std::mem::take(&mut *dir.children.lock());
        for child in children.into_values().flatten() {
            child.orphan();
            if child.kind() == Kind::Dir {
                left.push(child);
            }
            done += 1;
            if done % PIECE == 0 {
                pause();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PIECE, Ruins};
    use crate::cred::Cred;
    use crate::fs::layer::Layer;
    use crate::sync::Pause;
    use crate::vfs::{Caller, Extra, FsContext, Kind, Lookup, Mount, MountFlags, Namespace};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Pauses(AtomicUsize);

    impl Pause for Pauses {
        fn pause(&self) -> crate::abi::Result<()> {
            Ok(())
        }
        fn give_way(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        fn step_aside(&self) {}
    }

    #[test]
    fn what_a_mount_leaves_is_taken_apart_later_and_in_pieces() {
        for asked in [true, false] {
            let ruins = Ruins::new(move || asked);
            let root = Layer::tmpfs(1, "tmpfs", 0o755, &Arc::default());
            root.sb.end_with_mounts(&ruins);
            let mount = Mount::new(1, root.clone(), "none", MountFlags::empty());
            let fs = FsContext::new(Namespace::new(mount));
            let lookup = Lookup { fs: &fs, cred: &Cred::root(), caller: Caller::default() };
            let make = |name: &str| {
                lookup.create(None, name.as_bytes(), Kind::Dir, 0o755, Extra::None).unwrap();
            };
            make("d");
            (0..3 * PIECE).for_each(|number| make(&format!("d/{number}")));
            let below = {
                let dir = root.child(b"d").unwrap().unwrap();
                Arc::downgrade(&dir.child(b"5").unwrap().unwrap())
            };
            drop(fs);
            assert_eq!(below.upgrade().is_some(), asked, "at once only where nobody can be asked");
            let pauses = Pauses::default();
            ruins.clear(&pauses);
            assert!(below.upgrade().is_none());
            assert_eq!(pauses.0.load(Ordering::Relaxed), if asked { 3 } else { 0 });
        }
    }
}
