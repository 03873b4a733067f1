//! File systems made and mounted in steps: fsopen, fspick, fsconfig, fsmount.

use super::mounts::may_mount;
use super::names::{Names, only, resolve_at};
use super::trees::attributes;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::fs::fscontext::{Context, ContextFile, Phase};
use crate::kernel::Current;
use crate::mm::PAGE_SIZE;
use crate::syscalls::Args;
use crate::syscalls::descriptors::fd::install;
use crate::vfs::open_detached;
use linux_raw_sys::general as c;

/// linux/mount.h: CLOEXEC of both, and fspick's.
const CLOEXEC: u32 = 1;
const SYMLINK_NOFOLLOW: u32 = 2;
const NO_AUTOMOUNT: u32 = 4;
const EMPTY_PATH: u32 = 8;
/// `FSCONFIG_*` (linux/mount.h).
const SET_FLAG: u32 = 0;
const SET_STRING: u32 = 1;
const SET_BINARY: u32 = 2;
const SET_PATH: u32 = 3;
const SET_PATH_EMPTY: u32 = 4;
const SET_FD: u32 = 5;
const CMD_CREATE: u32 = 6;
const CMD_RECONFIGURE: u32 = 7;
const CMD_CREATE_EXCL: u32 = 8;
/// Longest key and value.
const WORD: usize = 256;
/// Longest binary value.
const BINARY: i32 = 1 << 20;
/// Words that every file system takes (common_set_sb_flag, common_clear_sb_flag): what they ask for but `ro` and `rw` there is
/// none of.
const COMMON: [&str; 7] = ["dirsync", "lazytime", "mand", "sync", "async", "nolazytime", "nomand"];

/// One word of at most `most` bytes, its end included (strndup_user).
fn word(cur: &Current, addr: u64, most: usize) -> Result<String> {
    let bytes = cur.mm().read_cstr(addr, most).map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    String::from_utf8(bytes).map_err(|_| Errno::EINVAL)
}

/// As open(2) says it.
fn close_on_exec(flags: u32) -> u32 {
    if flags & CLOEXEC != 0 { c::O_CLOEXEC } else { 0 }
}

/// fsopen(2)
pub(crate) fn fsopen(cur: &mut Current, args: &Args) -> Result<u64> {
    may_mount(cur)?;
    let flags = args.uint(1);
    only(flags, CLOEXEC)?;
    let name = word(cur, args.addr(0), PAGE_SIZE as usize)?;
    let (fstype, _) = cur.kernel.filesystems()?.find(name.as_bytes()).ok_or(Errno::ENODEV)?;
    install(cur, Context::create(fstype), close_on_exec(flags))
}

/// fspick(2)
pub(crate) fn fspick(cur: &mut Current, args: &Args) -> Result<u64> {
    may_mount(cur)?;
    let flags = args.uint(2);
    only(flags, CLOEXEC | SYMLINK_NOFOLLOW | NO_AUTOMOUNT | EMPTY_PATH)?;
    let empty = if flags & EMPTY_PATH != 0 { c::AT_EMPTY_PATH } else { 0 };
    let path = resolve_at(cur, args.fd(0), args.addr(1), empty, flags & SYMLINK_NOFOLLOW == 0)?;
    if !path.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    install(cur, Context::pick(path.mount.root.clone()), close_on_exec(flags))
}

/// Which arguments a command has.
fn check(command: u32, key: u64, value: u64, aux: i32) -> Result<()> {
    let well = match command {
        SET_FLAG => key != 0 && value == 0 && aux == 0,
        SET_STRING => key != 0 && value != 0 && aux == 0,
        SET_BINARY => key != 0 && value != 0 && (1..=BINARY).contains(&aux),
        SET_PATH | SET_PATH_EMPTY => key != 0 && value != 0 && (aux == c::AT_FDCWD || aux >= 0),
        SET_FD => key != 0 && value == 0 && aux >= 0,
        CMD_CREATE | CMD_CREATE_EXCL | CMD_RECONFIGURE => key == 0 && value == 0 && aux == 0,
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if well { Ok(()) } else { Err(Errno::EINVAL) }
}

/// fsconfig(2)
pub(crate) fn fsconfig(cur: &mut Current, args: &Args) -> Result<u64> {
    let (fd, command, aux) = (args.fd(0), args.uint(1), args.fd(4));
    if fd < 0 {
        return Err(Errno::EINVAL);
    }
    check(command, args.addr(2), args.addr(3), aux)?;
    let file = cur.file(fd)?;
    let context = file.downcast::<ContextFile>().ok_or(Errno::EINVAL)?;
    match command {
        CMD_CREATE => create(cur, context, false)?,
        CMD_CREATE_EXCL => create(cur, context, true)?,
        CMD_RECONFIGURE => reconfigure(cur, context)?,
        _ => {
            let key = word(cur, args.addr(2), WORD)?;
            let string = command == SET_STRING;
            let value = if string { Some(word(cur, args.addr(3), WORD)?) } else { None };
            let flag = command == SET_FLAG;
            let systems = cur.kernel.filesystems()?;
            let check = |fstype: &str, value: Option<&str>| systems.check(fstype, &key, value);
            context.with(|context| set(context, &key, value.as_deref(), string || flag, check))?;
        }
    }
    Ok(0)
}

/// Notes a parameter.
fn set(
    context: &mut Context,
    key: &str,
    value: Option<&str>,
    plain: bool,
    check: impl Fn(&str, Option<&str>) -> Result<()>,
) -> Result<()> {
    if !matches!(context.phase, Phase::Parameters | Phase::Changes) {
        return Err(Errno::EBUSY);
    }
    if key == "ro" || key == "rw" {
        context.read_only = Some(key == "ro");
        return Ok(());
    }
    if COMMON.contains(&key) {
        return Ok(());
    }
    let known = if plain { check(context.fstype, value) } else { Err(Errno::ENOENT) };
    match known {
        Ok(()) => context.add(key, value),
        Err(Errno::ENOENT) if key == "source" => match value {
            None => Err(context.wrong("Non-string source")),
            Some(_) if context.source.is_some() => Err(context.wrong("Multiple sources")),
            Some(source) => {
                context.source = Some(source.to_owned());
                Ok(())
            }
        },
        Err(Errno::ENOENT) => Err(context.refused(&format!("Unknown parameter '{key}'"))),
        Err(_) => Err(context.refused(&format!("Bad value for '{key}'"))),
    }
}

/// FSCONFIG_CMD_CREATE. Of what there is one of, nobody can have another.
fn create(cur: &Current, file: &ContextFile, exclusive: bool) -> Result<()> {
    let (fstype, options) = file.with(|context| match context.phase {
        Phase::Parameters => {
            // Nobody else makes it meanwhile; it stays so where that does not go well.
            context.phase = Phase::Failed;
            Ok((context.fstype, context.options.clone()))
        }
        _ => Err(Errno::EBUSY),
    })?;
    let systems = cur.kernel.filesystems()?;
    let fresh = systems.find(fstype.as_bytes()).is_some_and(|(_, fresh)| fresh);
    if exclusive && !fresh {
        return Err(Errno::EBUSY);
    }
    let root = systems.make(fstype.as_bytes(), options.as_bytes(), Names::of(cur).caller)?;
    file.with(|context| {
        if fresh && let Some(read_only) = context.read_only {
            root.sb.set_read_only(read_only);
        }
        (context.root, context.phase) = (Some(root), Phase::Made);
    });
    Ok(())
}

/// FSCONFIG_CMD_RECONFIGURE.
fn reconfigure(cur: &Current, file: &ContextFile) -> Result<()> {
    let (root, options, read_only) = file.with(|context| match (context.phase, &context.root) {
        (Phase::Changes, Some(root)) => {
            let root = root.clone();
            context.phase = Phase::Failed;
            Ok((root, std::mem::take(&mut context.options), context.read_only.take()))
        }
        _ => Err(Errno::EBUSY),
    })?;
    // The file system itself is its owner's to change.
    if !cur.cred().has_in(root.sb.owner(), Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    cur.kernel.filesystems()?.reconfigure(&root, options.as_bytes())?;
    if let Some(read_only) = read_only {
        root.sb.set_read_only(read_only);
    }
    file.with(|context| context.phase = Phase::Changes);
    cur.fs().namespace().changed();
    Ok(())
}

/// fsmount(2)
pub(crate) fn fsmount(cur: &mut Current, args: &Args) -> Result<u64> {
    may_mount(cur)?;
    let flags = args.uint(1);
    only(flags, CLOEXEC)?;
    let wanted = attributes(u64::from(args.uint(2)))?;
    let file = cur.file(args.fd(0))?;
    let context = file.downcast::<ContextFile>().ok_or(Errno::EINVAL)?;
    let ns = cur.fs().namespace().clone();
    let (root, source) = context.with(|context| {
        let root = context.root.clone().ok_or(Errno::EINVAL)?;
        if context.phase != Phase::Made {
            return Err(Errno::EBUSY);
        }
        context.phase = Phase::Changes;
        context.options.clear();
        context.read_only = None;
        Ok((root, context.source.take()))
    })?;
    let tree = ns.mount_detached(root, source.as_deref().unwrap_or("none"), wanted)?;
    install(cur, open_detached(tree), close_on_exec(flags))
}
