//! A directory of the host that is written through, and what others do to it meanwhile: no platform needed.

use super::{Node, Trees};
use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::fs::world;
use crate::mm::IoSrc;
use crate::vfs::{
    Caller, Extra, File, FsContext, Kind, Lookup, Mount, MountFlags, Namespace, OpenHow, Path, Resolve,
    SetTime,
};
use linux_raw_sys::general as c;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

struct Bench {
    host: PathBuf,
    fs: Arc<FsContext>,
    cred: Cred,
}

impl Bench {
    fn new(name: &str, written: bool) -> Bench {
        let host = std::env::temp_dir().join(format!("pillbox-through-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&host);
        fs::create_dir_all(host.join("dir/sub")).unwrap();
        fs::write(host.join("dir/file"), b"bytes").unwrap();
        let (trees, _) = Trees::new().unwrap();
        let root = trees.add(world::open_root(&host).unwrap(), (40, written), &Arc::default()).unwrap();
        let ns = Namespace::new(Mount::new(1, root, "none", MountFlags::empty()));
        let fs = FsContext::new(ns);
        fs.set_umask(0);
        // Whoever makes things here owns them, be it root or not.
        let own = crate::hostsys::identity::own().unwrap();
        let mut cred = Cred::root();
        (cred.uid.fs, cred.gid.fs) = (own.uid, own.gid);
        Bench { host, fs, cred }
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred, caller: Caller::default() }
    }

    fn path(&self, name: &str) -> Result<Path> {
        self.lookup().resolve(None, name.as_bytes(), Resolve::empty())
    }

    fn open(&self, name: &str, flags: u32) -> Result<Arc<File>> {
        self.lookup().open(None, name.as_bytes(), &OpenHow { flags, mode: 0o640, ..OpenHow::default() })
    }

    fn read(&self, file: &Arc<File>) -> Vec<u8> {
        let mut bytes = vec![0; 4096];
        let count = file.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(count);
        bytes
    }

    fn rename(&self, old: &str, new: &str, flags: u32) -> Result<()> {
        self.lookup().rename(None, old.as_bytes(), None, new.as_bytes(), flags)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.host);
    }
}

fn node(path: &Path) -> &Node {
    super::place::node_of(&path.dentry).unwrap()
}

#[test]
fn both_sides_see_what_the_other_does() {
    let b = Bench::new("sides", true);
    let file = b.open("/dir/new", c::O_RDWR | c::O_CREAT | c::O_EXCL).unwrap();
    file.write(&mut IoSrc::kernel(b"from inside")).unwrap();
    let host = b.host.join("dir/new");
    assert_eq!(fs::read(&host).unwrap(), b"from inside");
    assert_eq!(fs::metadata(&host).unwrap().permissions().mode() & 0o7777, 0o640);
    fs::write(&host, b"from outside").unwrap();
    assert_eq!(b.read(&file), b"from outside");
    assert_eq!(file.stat().size, 12);
    fs::rename(&host, b.host.join("dir/moved")).unwrap();
    assert_eq!(b.path("/dir/new").err(), Some(Errno::ENOENT));
    let moved = b.path("/dir/moved").unwrap();
    assert!(Arc::ptr_eq(&moved.dentry.inode, &file.path().dentry.inode), "it is the same file");
    b.lookup().link(&moved, None, b"/linked").unwrap();
    assert_eq!(fs::metadata(b.host.join("linked")).unwrap().nlink(), 2);
    b.lookup().remove(None, b"/dir/moved", false).unwrap();
    assert_eq!(fs::metadata(b.host.join("linked")).unwrap().nlink(), 1);
    assert_eq!(b.lookup().remove(None, b"/dir", true).err(), Some(Errno::ENOTEMPTY));
}

#[test]
fn renames_are_the_hosts() {
    let b = Bench::new("renames", true);
    let held = b.path("/dir/sub").unwrap();
    b.rename("/dir", "/other", 0).unwrap();
    assert_eq!(held.display(&b.fs.root()), b"/other/sub");
    assert_eq!(b.rename("/other", "/other/sub/x", 0).err(), Some(Errno::EINVAL));
    fs::create_dir(b.host.join("there")).unwrap();
    assert_eq!(b.rename("/other", "/there", c::RENAME_NOREPLACE).err(), Some(Errno::EEXIST));
    b.rename("/other", "/there", c::RENAME_EXCHANGE).unwrap();
    assert_eq!(held.display(&b.fs.root()), b"/there/sub");
    // By somebody else: what is held is found where it went.
    fs::rename(b.host.join("there"), b.host.join("elsewhere")).unwrap();
    let found = b.path("/elsewhere/sub").unwrap();
    assert!(Arc::ptr_eq(&found.dentry, &held.dentry), "a directory has one dentry");
    assert_eq!(held.display(&b.fs.root()), b"/elsewhere/sub");
}

#[test]
fn places_are_found_again_or_are_stale() {
    let b = Bench::new("places", true);
    let (dir, sub) = (b.path("/dir").unwrap(), b.path("/dir/sub").unwrap());
    let lose = |path: &Path| drop(node(path).place.lock().take());
    lose(&dir);
    lose(&sub);
    assert!(node(&sub).fd().is_ok());
    assert!(node(&dir).place.lock().is_some(), "the way is kept");
    lose(&sub);
    fs::rename(b.host.join("dir/sub"), b.host.join("gone")).unwrap();
    fs::create_dir(b.host.join("dir/sub")).unwrap();
    assert_eq!(node(&sub).fd().err(), Some(Errno::ESTALE), "another one of that name");
    assert!(b.path("/dir/sub").is_ok());
}

#[test]
fn the_tree_forgets_what_nobody_uses_and_nothing_else() {
    const MANY: usize = 5000;
    let b = Bench::new("many", true);
    let held = b.path("/dir/file").unwrap();
    for n in 0..MANY {
        fs::write(b.host.join(format!("dir/{n}")), b"").unwrap();
        b.path(&format!("/dir/{n}")).unwrap();
    }
    let known = node(&held).tree.nodes.lock().all.values().filter(|node| node.strong_count() != 0).count();
    assert!(known < MANY, "{known} of {MANY} are remembered");
    let again = b.path("/dir/file").unwrap();
    assert!(Arc::ptr_eq(&again.dentry, &held.dentry));
}

#[test]
fn a_tree_that_is_only_read_changes_by_nothing() {
    let b = Bench::new("read", false);
    let (by, file) = (b.lookup(), b.path("/dir/file").unwrap());
    let results = [
        b.open("/dir/file", c::O_RDWR).map(drop),
        b.open("/dir/file", c::O_TRUNC).map(drop),
        b.open("/dir/new", c::O_RDWR | c::O_CREAT).map(drop),
        by.create(None, b"/new", Kind::Dir, 0o700, Extra::None).map(drop),
        by.create(None, b"/new", Kind::Symlink, 0, Extra::Target(b"x")).map(drop),
        by.link(&file, None, b"/new"),
        by.remove(None, b"/dir/file", false),
        b.rename("/dir/file", "/new", 0),
        by.set_mode(&file, 0),
        by.set_owner(&file, 1, 1),
        by.set_times(&file, SetTime::Now, SetTime::Now),
        by.truncate(&file, 0),
        file.dentry.inode.set_xattr(b"user.a", Some(b"b"), 0),
    ];
    assert_eq!(results, [Err(Errno::EROFS); 13]);
    assert_eq!(b.read(&b.open("/dir/file", c::O_RDONLY).unwrap()), b"bytes");
}
