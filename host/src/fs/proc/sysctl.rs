//! /proc/sys: what holds in this kernel. Little can be tuned: the names, and those of core dumps, can be written; settings of
//! parts that there are none of (disks, swap) are missing.

use super::ipc_limits;
use super::opener::Opener;
use crate::abi::{Errno, Result};
use crate::cred::userns::{self, OVERFLOW_ID, share};
use crate::cred::{CAP_LAST, Caps};
use crate::fs::numbers::integer;
use crate::fs::pipe::MAX_CAPACITY;
use crate::fs::pseudo::{Dir, Opened, Text, next_ino};
use crate::hostsys::file::random;
use crate::kernel::limits::NR_OPEN;
use crate::kernel::tree::PID_MAX;
use crate::kernel::{Kernel, RELEASE, Uts, VERSION, coredump, namespaces, pids};
use crate::mm::{MAX_AREAS, MIN_ADDRESS};
use crate::vfs::Inode;
use crate::vfs::notify::{MAX_QUEUED_EVENTS, MAX_USER_INSTANCES, MAX_USER_WATCHES};
use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

/// Longest host or domain name.
const NAME_MAX: usize = 64;
/// Bits that the random number generator has, once and for all (Linux's since 5.18).
const POOL_BITS: u32 = 256;

fn fixed(value: impl Display) -> Arc<dyn Inode> {
    Text::fixed(format!("{value}\n"))
}

/// A random UUID (version 4).
fn uuid() -> String {
    let mut bytes = [0u8; 16];
    random(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    });
    format!("{}-{}-{}-{}-{}\n", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// One of the names of uname(2).
fn name(kernel: &Arc<Kernel>, of: fn(&mut Uts) -> &mut Vec<u8>) -> Arc<dyn Inode> {
    let kernel: Weak<Kernel> = Arc::downgrade(kernel);
    Text::writable(next_ino(), move |caller| {
        let opener = Opener::find(&kernel, caller)?;
        let privileged = opener.has(Caps::SYS_ADMIN);
        let reader = opener.namespaces.uts.of.clone();
        let writer = reader.clone();
        let read = move || {
            let mut name = of(&mut reader.lock()).clone();
            name.push(b'\n');
            Ok(name)
        };
        Ok(Opened::new(read).writable(move |text| {
            if privileged { set_name(&mut writer.lock(), of, text) } else { Err(Errno::EPERM) }
        }))
    })
}

fn set_name(uts: &mut Uts, of: fn(&mut Uts) -> &mut Vec<u8>, text: &[u8]) -> Result<()> {
    // Up to the first end of a line or string, and as much as fits.
    let end = text.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(text.len());
    *of(uts) = text[..end.min(NAME_MAX)].to_vec();
    Ok(())
}

/// A setting of core dumps, which root of the first user namespace may change.
fn core_setting(
    kernel: &Arc<Kernel>,
    show: fn(&coredump::Settings) -> Vec<u8>,
    set: fn(&coredump::Settings, &[u8]) -> Result<()>,
) -> Arc<dyn Inode> {
    let kernel: Weak<Kernel> = Arc::downgrade(kernel);
    Text::writable(next_ino(), move |caller| {
        let privileged = Opener::find(&kernel, caller)?.has(Caps::SYS_ADMIN);
        let (reader, writer) = (kernel.clone(), kernel.clone());
        let read = move || {
            let kernel = reader.upgrade().ok_or(Errno::EIO)?;
            Ok([&show(&kernel.core)[..], b"\n"].concat())
        };
        Ok(Opened::new(read).writable(move |text| {
            let kernel = writer.upgrade().ok_or(Errno::EIO)?;
            if privileged { set(&kernel.core, text) } else { Err(Errno::EPERM) }
        }))
    })
}

fn core_pattern(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    core_setting(kernel, coredump::Settings::pattern, coredump::Settings::set_pattern)
}

fn core_uses_pid(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let show = |core: &coredump::Settings| u8::from(core.uses_pid.load(Relaxed)).to_string().into_bytes();
    core_setting(kernel, show, |core, text| {
        core.uses_pid.store(integer(text)? != 0, Relaxed);
        Ok(())
    })
}

/// How many namespaces a user may have who is not root; of mounts there may be so many altogether.
fn user() -> Arc<dyn Inode> {
    Dir::new(vec![
        ("max_cgroup_namespaces", fixed(share(namespaces::MOST))),
        ("max_ipc_namespaces", fixed(share(namespaces::MOST))),
        ("max_net_namespaces", fixed(share(namespaces::MOST))),
        ("max_pid_namespaces", fixed(share(pids::MOST))),
        ("max_time_namespaces", fixed(share(namespaces::MOST))),
        ("max_user_namespaces", fixed(share(userns::MOST))),
        ("max_uts_namespaces", fixed(share(namespaces::MOST))),
    ])
}

/// Settings of files.
fn fs(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let inotify = Dir::new(vec![
        ("max_queued_events", fixed(MAX_QUEUED_EVENTS)),
        ("max_user_instances", fixed(MAX_USER_INSTANCES)),
        ("max_user_watches", fixed(MAX_USER_WATCHES)),
    ]);
    Dir::new(vec![
        ("inotify", inotify),
        ("mqueue", ipc_limits::mqueue(kernel)),
        // No limit but each process's own.
        ("file-max", fixed(i64::MAX)),
        ("nr_open", fixed(NR_OPEN)),
        ("pipe-max-size", fixed(MAX_CAPACITY)),
        ("overflowuid", fixed(OVERFLOW_ID)),
        ("overflowgid", fixed(OVERFLOW_ID)),
        // Links in directories that everybody may write to are followed and made as anywhere else.
        ("protected_symlinks", fixed(0)),
        ("protected_hardlinks", fixed(0)),
        // Who has changed who he is leaves no core dump.
        ("suid_dumpable", fixed(0)),
    ])
}

/// The directory.
pub(super) fn directory(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let random = Dir::new(vec![
        ("boot_id", Text::fixed(uuid())),
        ("uuid", Text::new(next_ino(), || Ok(uuid().into_bytes()))),
        ("entropy_avail", fixed(POOL_BITS)),
        ("poolsize", fixed(POOL_BITS)),
    ]);
    let mut entries: Vec<(&str, Arc<dyn Inode>)> = vec![
        ("ostype", fixed("Linux")),
        ("osrelease", fixed(RELEASE)),
        ("version", fixed(VERSION)),
        ("hostname", name(kernel, |uts| &mut uts.hostname)),
        ("domainname", name(kernel, |uts| &mut uts.domainname)),
        ("core_pattern", core_pattern(kernel)),
        ("core_uses_pid", core_uses_pid(kernel)),
        // There is no pattern that needs it.
        ("core_pipe_limit", fixed(0)),
        ("pid_max", fixed(PID_MAX)),
        // Every thread has an id.
        ("threads-max", fixed(PID_MAX)),
        ("ngroups_max", fixed(crate::cred::NGROUPS_MAX)),
        ("cap_last_cap", fixed(CAP_LAST)),
        ("overflowuid", fixed(OVERFLOW_ID)),
        ("overflowgid", fixed(OVERFLOW_ID)),
        // Stack, mappings and heap; programs that do not want that have personality(2).
        ("randomize_va_space", fixed(2)),
        ("random", random),
    ];
    entries.extend(ipc_limits::entries(kernel));
    let kernel_dir = Dir::new(entries);
    let vm = Dir::new(vec![
        // Nothing is refused that could ever be had.
        ("overcommit_memory", fixed(0)),
        ("max_map_count", fixed(MAX_AREAS)),
        ("mmap_min_addr", fixed(MIN_ADDRESS)),
    ]);
    Dir::new(vec![
        ("kernel", kernel_dir),
        ("vm", vm),
        ("fs", fs(kernel)),
        ("user", user()),
        ("net", super::sysctl_net::directory(kernel)),
    ])
}
