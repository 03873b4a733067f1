//! The layer above a host directory, and path resolution on it: no platform needed.

use crate::abi::{Errno, Result};
use crate::cred::Cred;
use crate::fs::layer::lower::LowerDir;
use crate::fs::world;
use crate::mm::{IoDst, IoSrc};
use crate::platform::Capabilities;
use crate::vfs::{
    Caller, Extra, File, FsContext, Kind, Lookup, MountFlags, OpenHow, Path, Resolve, Want, Whence,
};
use linux_raw_sys::general as c;
use std::sync::Arc;

/// A host directory that is removed at the end, and the sandbox's view of it.
struct Bench {
    host: std::path::PathBuf,
    world: world::World,
    fs: Arc<FsContext>,
    cred: Cred,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let host = std::env::temp_dir().join(format!("pillbox-layer-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&host);
        std::fs::create_dir_all(host.join("dir/sub")).unwrap();
        std::fs::write(host.join("dir/file"), b"lower bytes").unwrap();
        std::fs::write(host.join("big"), vec![b'x'; 200_000]).unwrap();
        std::os::unix::fs::symlink("dir/file", host.join("link")).unwrap();
        std::os::unix::fs::symlink("/dir", host.join("abs")).unwrap();
        std::os::unix::fs::symlink("../../../..", host.join("dir/up")).unwrap();
        std::os::unix::fs::symlink("loop", host.join("loop")).unwrap();
        std::fs::hard_link(host.join("dir/file"), host.join("dir/other")).unwrap();
        let caps = Capabilities {
            page_size: 4096,
            task_size: 1 << 47,
            reserved: [(0, 0); 2],
            maps_host_files: false,
            cheap_map: false,
        };
        let world = world::build(world::open_root(&host).unwrap(), &caps, false).unwrap();
        let fs = FsContext::new(world.ns.clone());
        fs.set_umask(0);
        Bench { host, world, fs, cred: Cred::root() }
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup { fs: &self.fs, cred: &self.cred, caller: Caller::default() }
    }

    fn path(&self, name: &str) -> Result<Path> {
        self.lookup().resolve(None, name.as_bytes(), Resolve::empty())
    }

    fn open(&self, name: &str, flags: u32) -> Result<Arc<File>> {
        self.lookup().open(None, name.as_bytes(), &OpenHow { flags, mode: 0o644, ..OpenHow::default() })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.open(name, c::O_RDONLY)?;
        let mut bytes = vec![0; 1 << 20];
        let count = file.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    fn write(&self, name: &str, flags: u32, bytes: &[u8]) -> Result<usize> {
        self.open(name, c::O_WRONLY | flags)?.write(&mut IoSrc::kernel(bytes))
    }

    fn names(&self, name: &str) -> Vec<String> {
        let dir = self.open(name, c::O_RDONLY | c::O_DIRECTORY).unwrap();
        let mut names = Vec::new();
        dir.readdir(&mut |entry| {
            names.push(String::from_utf8(entry.name.to_vec()).unwrap());
            true
        })
        .unwrap();
        names.retain(|name| name != "." && name != "..");
        names.sort();
        names
    }

    fn mkdir(&self, name: &str) -> Result<Path> {
        self.lookup().create(None, name.as_bytes(), Kind::Dir, 0o755, Extra::None)
    }

    fn remove(&self, name: &str, dir: bool) -> Result<()> {
        self.lookup().remove(None, name.as_bytes(), dir)
    }

    fn rename(&self, old: &str, new: &str) -> Result<()> {
        self.lookup().rename(None, old.as_bytes(), None, new.as_bytes(), 0)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.host);
    }
}

#[test]
fn the_host_shows_through_and_is_never_written() {
    let b = Bench::new("through");
    assert_eq!(b.read("/dir/file").unwrap(), b"lower bytes");
    assert_eq!(b.write("/dir/file", 0, b"UPPER").unwrap(), 5);
    assert_eq!(b.read("/dir/file").unwrap(), b"UPPER bytes");
    assert_eq!(b.read("/dir/other").unwrap(), b"UPPER bytes", "hard links are one file");
    assert_eq!(b.write("/dir/file", c::O_APPEND, b"!").unwrap(), 1);
    assert_eq!(b.read("/link").unwrap(), b"UPPER bytes!");
    assert_eq!(b.write("/dir/file", c::O_TRUNC, b"new").unwrap(), 3);
    assert_eq!(b.read("/dir/file").unwrap(), b"new");
    assert_eq!(std::fs::read(b.host.join("dir/file")).unwrap(), b"lower bytes");
}

#[test]
fn large_files_mix_pages_of_both() {
    let b = Bench::new("large");
    let file = b.open("/big", c::O_RDWR).unwrap();
    file.pwrite(&mut IoSrc::kernel(b"ABC"), 100_000).unwrap();
    let bytes = b.read("/big").unwrap();
    assert_eq!((bytes.len(), &bytes[99_999..100_004]), (200_000, &b"xABCx"[..]));
    file.ops().truncate(150_000).unwrap();
    file.ops().truncate(160_000).unwrap();
    let bytes = b.read("/big").unwrap();
    assert_eq!((bytes[149_999], bytes[150_000], bytes.len()), (b'x', 0, 160_000));
    let mut small = [0; 10];
    assert_eq!(file.pread(&mut IoDst::kernel(&mut small), 149_995), Ok(10));
    assert_eq!(&small, b"xxxxx\0\0\0\0\0");
    assert_eq!(file.seek(-1, Whence::End), Ok(159_999));
}

#[test]
fn removed_names_stay_hidden() {
    let b = Bench::new("whiteout");
    b.remove("/dir/other", false).unwrap();
    assert_eq!(b.path("/dir/other").err(), Some(Errno::ENOENT));
    assert_eq!(b.names("/dir"), ["file", "sub", "up"]);
    assert_eq!(b.remove("/dir", true), Err(Errno::ENOTEMPTY));
    for name in ["/dir/file", "/dir/up"] {
        b.remove(name, false).unwrap();
    }
    b.remove("/dir/sub", true).unwrap();
    b.remove("/dir", true).unwrap();
    assert_eq!(b.read("/link"), Err(Errno::ENOENT));
    b.mkdir("/dir").unwrap();
    assert!(b.names("/dir").is_empty(), "a new directory is opaque");
    assert!(b.host.join("dir/other").exists());
}

#[test]
fn directories_move_with_what_lies_below() {
    let b = Bench::new("rename");
    b.rename("/dir", "/moved").unwrap();
    assert_eq!(b.path("/dir").err(), Some(Errno::ENOENT));
    assert_eq!(b.names("/moved"), ["file", "other", "sub", "up"]);
    assert_eq!(b.read("/moved/file").unwrap(), b"lower bytes");
    assert_eq!(b.rename("/moved", "/moved/sub/x"), Err(Errno::EINVAL));
    b.write("/new", c::O_CREAT, b"1").unwrap();
    b.rename("/new", "/moved/file").unwrap();
    assert_eq!(b.read("/moved/file").unwrap(), b"1");
    assert_eq!(b.read("/moved/other").unwrap(), b"lower bytes");
    assert_eq!(b.rename("/moved/file", "/moved/sub"), Err(Errno::EISDIR));
    b.mkdir("/empty").unwrap();
    assert_eq!(b.rename("/empty", "/moved"), Err(Errno::ENOTEMPTY));
    b.rename("/moved", "/empty").unwrap();
    assert_eq!(b.names("/empty"), ["file", "other", "sub", "up"]);
}

#[test]
fn open_flags() {
    let b = Bench::new("flags");
    assert_eq!(b.open("/dir/file", c::O_CREAT | c::O_EXCL).err(), Some(Errno::EEXIST));
    assert_eq!(b.open("/link", c::O_NOFOLLOW).err(), Some(Errno::ELOOP));
    assert_eq!(b.open("/link", c::O_CREAT | c::O_EXCL).err(), Some(Errno::EEXIST));
    assert_eq!(b.open("/dir", c::O_WRONLY).err(), Some(Errno::EISDIR));
    assert_eq!(b.open("/dir/file", c::O_DIRECTORY).err(), Some(Errno::ENOTDIR));
    assert_eq!(b.open("/dir/file/", c::O_RDONLY).err(), Some(Errno::ENOTDIR));
    assert_eq!(b.open("/nothing/", c::O_CREAT).err(), Some(Errno::EISDIR));
    assert_eq!(b.open("", c::O_RDONLY).err(), Some(Errno::ENOENT));
    let handle = b.open("/link", c::O_PATH | c::O_NOFOLLOW).unwrap();
    assert_eq!(handle.path().dentry.kind(), Kind::Symlink);
    let nameless = b.open("/dir", c::O_TMPFILE | c::O_RDWR).unwrap();
    assert_eq!(nameless.stat().nlink, 0);
}

#[test]
fn path_resolution() {
    let b = Bench::new("paths");
    let ino = |name: &str| b.lookup().resolve(None, name.as_bytes(), Resolve::FOLLOW).map(|p| p.stat().ino);
    assert_eq!(ino("/abs/sub/../file"), ino("/dir/file"));
    assert_eq!(ino("/dir/up"), ino("/"), "links do not lead above the root");
    assert_eq!(ino("/../../dir"), ino("/dir"));
    assert_eq!(ino("//dir///sub//."), ino("/dir/sub"));
    assert_eq!(ino("/loop"), Err(Errno::ELOOP));
    assert_eq!(ino("/dir/file/.."), Err(Errno::ENOTDIR));
    assert_eq!(ino("/link/"), Err(Errno::ENOTDIR));
    assert_eq!(ino(&format!("/{}", "n".repeat(256))), Err(Errno::ENAMETOOLONG));
    assert_eq!(ino(&"/".repeat(4096)), Err(Errno::ENAMETOOLONG));
    let dir = b.path("/dir").unwrap();
    let under = |name: &str, how| {
        b.lookup().resolve(Some(&dir), name.as_bytes(), how | Resolve::FOLLOW).map(|p| p.stat().ino)
    };
    assert_eq!(under("sub/../file", Resolve::BENEATH), ino("/dir/file"));
    assert_eq!(under("../big", Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(under("up", Resolve::BENEATH), Err(Errno::EXDEV));
    assert_eq!(under("up", Resolve::IN_ROOT), ino("/dir"));
    assert_eq!(under("/file", Resolve::IN_ROOT), ino("/dir/file"));
    assert_eq!(under("up", Resolve::NO_SYMLINKS), Err(Errno::ELOOP));
    assert_eq!(under("", Resolve::EMPTY), ino("/dir"));
    let root = b.path("/").unwrap();
    let from_root = |name: &str, how| b.lookup().resolve(Some(&root), name.as_bytes(), how).map(|_| ());
    assert_eq!(from_root("dev/null", Resolve::NO_XDEV), Err(Errno::EXDEV));
    assert_eq!(from_root("dev/null", Resolve::empty()), Ok(()));
}

#[test]
fn permissions_count_for_users() {
    let mut b = Bench::new("perms");
    b.write("/secret", c::O_CREAT, b"s").unwrap();
    let secret = b.path("/secret").unwrap();
    b.lookup().set_mode(&secret, 0o600).unwrap();
    b.mkdir("/shared").unwrap();
    b.lookup().set_mode(&b.path("/shared").unwrap(), 0o1777).unwrap();
    b.write("/shared/roots", c::O_CREAT, b"r").unwrap();
    b.cred = Cred::user(1000, 1000, &[]);
    assert_eq!(b.read("/secret"), Err(Errno::EACCES));
    assert_eq!(b.write("/elsewhere", c::O_CREAT, b"x"), Err(Errno::EACCES));
    assert_eq!(b.remove("/shared/roots", false), Err(Errno::EPERM));
    assert_eq!(b.lookup().set_mode(&secret, 0o666), Err(Errno::EPERM));
    assert_eq!(b.lookup().access(&secret, Want::READ, false), Err(Errno::EACCES));
    b.write("/shared/mine", c::O_CREAT, b"m").unwrap();
    assert_eq!(b.path("/shared/mine").unwrap().stat().uid, 1000);
    b.remove("/shared/mine", false).unwrap();
}

#[test]
fn mounts_hide_and_bound() {
    let b = Bench::new("mounts");
    assert_eq!(b.names("/dev/shm"), Vec::<String>::new());
    assert_ne!(b.path("/dev/shm").unwrap().stat().dev, b.path("/").unwrap().stat().dev);
    assert_eq!(b.remove("/dev", true), Err(Errno::EBUSY));
    b.write("/dev/shm/x", c::O_CREAT, b"x").unwrap();
    assert_eq!(b.rename("/dev/shm/x", "/x"), Err(Errno::EXDEV));
    assert_eq!(b.path("/dev/shm/..").unwrap().stat().ino, b.path("/dev").unwrap().stat().ino);
    let tmp = super::Layer::tmpfs(99, "tmpfs", 0o755, &b.world.devices);
    b.world.mount(b"/made/up", tmp, "tmpfs", MountFlags::RDONLY).unwrap();
    assert_eq!(b.write("/made/up/x", c::O_CREAT, b"x"), Err(Errno::EROFS));
    let text = String::from_utf8(b.world.ns.show(&b.path("/").unwrap(), false, b"/")).unwrap();
    assert!(text.contains("tmpfs /made/up tmpfs ro,relatime 0 0\n"), "{text}");
}

#[test]
fn link_counts_follow() {
    let b = Bench::new("nlink");
    let nlink = |name: &str| b.path(name).unwrap().stat().nlink;
    assert_eq!(nlink("/dir/file"), 2);
    b.remove("/dir/other", false).unwrap();
    assert_eq!(nlink("/dir/file"), 1);
    let before = nlink("/");
    b.mkdir("/a").unwrap();
    assert_eq!((nlink("/"), nlink("/a")), (before + 1, 2));
    b.rename("/a", "/dir/a").unwrap();
    assert_eq!(nlink("/"), before);
    let old = b.path("/dir/file").unwrap();
    b.lookup().link(&old, None, b"/third").unwrap();
    assert_eq!(nlink("/third"), 2);
    assert_eq!(b.path("/third").unwrap().stat().ino, old.stat().ino);
}

/// The root is open for passing through only, directories below it for reading.
#[test]
fn host_directories_can_be_listed_again() {
    let b = Bench::new("list");
    let (root, _) =
        LowerDir::root(world::open_root(&b.host).unwrap(), std::sync::Arc::default(), 100).unwrap();
    let dir = root.dir(b"dir", &root.stat(b"dir").unwrap().unwrap());
    let names = |dir: &LowerDir| {
        let mut names: Vec<_> = dir.list().unwrap().into_iter().map(|entry| entry.name.to_vec()).collect();
        names.sort();
        names
    };
    for _ in 0..2 {
        assert_eq!(names(&root), [&b"abs"[..], b"big", b"dir", b"link", b"loop"]);
        assert_eq!(names(&dir), [&b"file"[..], b"other", b"sub", b"up"]);
    }
}
