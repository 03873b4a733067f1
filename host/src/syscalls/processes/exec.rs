//! execve, execveat.

use crate::abi::{Errno, Result};
use crate::cred::{Cred, Withheld};
use crate::kernel::personality::ADDR_NO_RANDOMIZE;
use crate::kernel::{Current, Program};
use crate::loader::args::read_vector;
use crate::loader::{ExecRequest, Ids, load};
use crate::mm::Mappable;
use crate::syscalls::Args;
use crate::vfs::{Caller, Executing, File, Lookup, MountFlags, PATH_MAX, Path, Resolve, Want, may};
use core::sync::atomic::Ordering;
use std::sync::Arc;

const AT_FDCWD: i32 = -100;
const AT_SYMLINK_NOFOLLOW: i32 = 0x100;
const AT_EMPTY_PATH: i32 = 0x1000;
const IN_ACCESS: u32 = 1;
const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o010;

pub(crate) fn execve(cur: &mut Current, args: &Args) -> Result<u64> {
    exec(cur, AT_FDCWD, args.addr(0), [args.addr(1), args.addr(2)], 0)
}

pub(crate) fn execveat(cur: &mut Current, args: &Args) -> Result<u64> {
    exec(cur, args.fd(0), args.addr(1), [args.addr(2), args.addr(3)], args.int(4))
}

fn exec(cur: &mut Current, dirfd: i32, path: u64, vectors: [u64; 2], flags: i32) -> Result<u64> {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mm = cur.mm().clone();
    let name = mm.read_cstr(path, PATH_MAX)?;
    let [argv, envp] = vectors;
    let argv = read_vector(&mm, argv, mm.limits())?;
    let envp = read_vector(&mm, envp, mm.limits())?;

    let (fs, cred) = (cur.fs(), cur.cred());
    let caller = Caller { pid: cur.task.tgid(), tid: cur.task.tid() };
    let lookup = Lookup { fs: &fs, cred: &cred, caller };
    let base = match dirfd {
        AT_FDCWD => None,
        _ if name.first() == Some(&b'/') => None,
        fd => Some(cur.fds().get_path(fd)?.path()),
    };
    let mut resolve = Resolve::FOLLOW;
    if flags & AT_SYMLINK_NOFOLLOW != 0 {
        resolve -= Resolve::FOLLOW;
    }
    if flags & AT_EMPTY_PATH != 0 {
        resolve |= Resolve::EMPTY;
    }
    let file = lookup.open_program(base.as_ref(), &name, resolve)?;
    let mut opened = vec![claim(&file)?];
    let mut readable = may_read(&cred, &file);
    announce(&file);
    let program = mappable(&file)?;
    interpreter_finds(cur, dirfd, &name, &program)?;
    let new_cred = cred_after(cur, &cred, &file, &program)?;
    let shown = shown(dirfd, name);
    let kernel = cur.kernel.clone();
    let request = ExecRequest {
        platform: &kernel.platform,
        vdso: &kernel.vdso,
        shifted: cur.task.namespaces().shifts_children(),
        file: program,
        path: shown,
        argv,
        envp,
        ids: Ids {
            uid: new_cred.user_ns.show_uid(new_cred.uid.real),
            euid: new_cred.user_ns.show_uid(new_cred.uid.effective),
            gid: new_cred.user_ns.show_gid(new_cred.gid.real),
            egid: new_cred.user_ns.show_gid(new_cred.gid.effective),
        },
        secure: new_cred.is_raised(),
        limits: mm.limits(),
        randomize: new_cred.is_raised()
            || cur.task.group.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE == 0,
        random: &mut |bytes| kernel.random(bytes),
        open: &mut |name| {
            let file = lookup.open_program(None, name, Resolve::FOLLOW)?;
            opened.push(claim(&file)?);
            readable &= may_read(&cred, &file);
            announce(&file);
            mappable(&file)
        },
    };
    let loaded = load(request).map_err(crate::loader::ExecError::errno)?;
    // Withheld over the point of no return, the old memory would outlive the program.
    drop(mm);
    // The program itself stays claimed: the last of a chain of scripts and their interpreters. What was opened behind
    // it is the dynamic linker.
    let (exe, claim) = opened.swap_remove(loaded.depth);
    loaded.mm.keep(Arc::new(claim));
    drop(opened);
    cur.exec(Program {
        mm: loaded.mm,
        ip: loaded.ip,
        sp: loaded.sp,
        comm: loaded.comm,
        cred: new_cred,
        exe: Some(exe),
        readable,
    })?;
    Ok(0)
}

/// Tells watchers what Linux tells them: it is opened and its first bytes are read, before anything else is.
fn announce(file: &File) {
    file.announce();
    if file.stat().size > 0 {
        file.tell(IN_ACCESS);
    }
}

/// Whether the caller could have read the program's file.
fn may_read(cred: &Cred, file: &File) -> bool {
    file.inode().is_some_and(|inode| may(cred, inode.meta(), Want::READ).is_ok())
}

/// A program's name, and the claim that nobody writes it.
fn claim(file: &Arc<File>) -> Result<(Path, Executing)> {
    let path = file.path();
    let executing = Executing::claim(&path.dentry.inode)?;
    Ok((path, executing))
}

fn mappable(file: &Arc<File>) -> Result<Arc<dyn Mappable>> {
    file.mappable().ok_or(Errno::EACCES)
}

/// As Linux names what it runs from a descriptor: scripts are found again by it.
fn shown(dirfd: i32, name: Vec<u8>) -> Vec<u8> {
    match dirfd {
        AT_FDCWD => name,
        _ if name.first() == Some(&b'/') => name,
        fd if name.is_empty() => format!("/dev/fd/{fd}").into_bytes(),
        fd => [format!("/dev/fd/{fd}/").as_bytes(), &name].concat(),
    }
}

/// Fails for a script that is named by a descriptor which will be closed: its interpreter would not find it any more.
fn interpreter_finds(cur: &Current, dirfd: i32, name: &[u8], program: &Arc<dyn Mappable>) -> Result<()> {
    let by_descriptor = dirfd != AT_FDCWD && name.first() != Some(&b'/');
    if by_descriptor && cur.fds().cloexec(dirfd)? && is_script(program)? {
        return Err(Errno::ENOENT);
    }
    Ok(())
}

fn is_script(program: &Arc<dyn Mappable>) -> Result<bool> {
    let mut head = [0; 2];
    program.read_at(0, &mut head)?;
    Ok(head == *b"#!")
}

/// Whether set-id bits of a file count for the caller (mnt_may_suid): on one of its own mounts, of a file system that was
/// mounted in its user namespace or above, and for owners who have names where it is.
fn may_raise(cur: &Current, cred: &Cred, path: &Path) -> bool {
    let meta = path.dentry.inode.meta();
    !path.mount.flags().contains(MountFlags::NOSUID)
        && cur.fs().namespace().has(&path.mount)
        && cred.user_ns.is_in(path.dentry.sb.owner())
        && cred.user_ns.knows(meta.uid.load(Ordering::Relaxed), meta.gid.load(Ordering::Relaxed))
}

/// Set-id bits count for programs, not for scripts.
fn cred_after(cur: &Current, cred: &Cred, file: &Arc<File>, program: &Arc<dyn Mappable>) -> Result<Cred> {
    let path = file.path();
    let meta = path.dentry.inode.meta();
    let perm = meta.perm.load(Ordering::Relaxed);
    let mut setuid = (perm & S_ISUID != 0).then(|| meta.uid.load(Ordering::Relaxed));
    let mut setgid =
        (perm & (S_ISGID | S_IXGRP) == S_ISGID | S_IXGRP).then(|| meta.gid.load(Ordering::Relaxed));
    if setuid.is_some() || setgid.is_some() {
        let ignored = !may_raise(cur, cred, &path) || cur.task.confinement().no_new_privs;
        if ignored || is_script(program)? {
            (setuid, setgid) = (None, None);
        }
    }
    let held = || {
        if cur.task.confinement().no_new_privs {
            return Some(Withheld::NoNewPrivileges);
        }
        (cur.is_fs_shared() || cur.task.is_traced_by_the_weak()).then_some(Withheld::Steered)
    };
    Ok(cred.after_exec(setuid, setgid, held))
}
