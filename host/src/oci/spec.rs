//! config.json as a sandbox understands it, and what of it is not done: each thing by name.

use super::Global;
use super::error::{Error, Result};
use super::pod::{self, Role};
use super::seccomp;
use crate::cred::CAP_LAST;
use crate::sandbox::Spec as Sandbox;
use crate::sandbox::container::{Container, Mount, Source, User};
use crate::sandbox::devices::Device;
use crate::vfs::{Kind, MountFlags, makedev};
use crate::warden::rules::Rules;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, LinuxResources, Mount as Asked,
    PosixRlimitType, Process, Spec,
};
use std::path::{Path, PathBuf};

/// A translated specification.
pub(super) struct Plan {
    pub(super) sandbox: Sandbox,
    pub(super) network: Net,
    /// What is not done.
    pub(super) warnings: Vec<String>,
}

/// Where the sandbox's process looks for the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Net {
    /// Where the engine is.
    Same,
    /// In a namespace of its own, which a hook sets up.
    New,
    /// In this one.
    Path(PathBuf),
}

/// Translates the specification of the bundle at `bundle`.
///
/// # Errors
/// What would weaken the sandbox, and what makes no sense.
pub(super) fn translate(global: &Global, spec: &Spec, bundle: &Path) -> Result<Plan> {
    let process = spec.process().as_ref().ok_or_else(|| missing("process"))?;
    let root = spec.root().as_ref().ok_or_else(|| missing("root"))?;
    let mut warnings = Vec::new();
    let (mounts, network) = (mounts(spec, bundle, &mut warnings)?, network(spec)?);
    let role = pod::role(spec)?;
    note_linux(spec, &role, &mut warnings);
    // Where nobody sets a namespace of its own up, there is nothing to be reached in it.
    let none = network == Net::New && !has_hooks(spec);
    let container = Container {
        user: Some(user(process, &mut warnings)),
        hostname: spec.hostname().clone(),
        domainname: spec.domainname().clone(),
        mounts,
        devices: devices(spec)?,
        sysctls: sysctls(spec),
        seccomp: linux(spec)
            .and_then(|linux| linux.seccomp().as_ref())
            .map(seccomp::translate)
            .transpose()?,
        readonly_root: root.readonly().unwrap_or(false),
        // What is not to be changed needs no way to the host. (Mount points that it lacks are made in memory.)
        writes_root: global.overlay == super::args::Overlay::None && !root.readonly().unwrap_or(false),
        kept: Vec::new(),
        control: None,
        shows_root: true,
        pod: None,
    };
    let pids = resources(spec).and_then(|all| all.pids().map(|pids| pids.limit()));
    let sandbox = Sandbox {
        platform: global.platform,
        kvm_device: crate::platform::choose::DEVICE.into(),
        root: bundle.join(root.path()),
        argv: args(process)?,
        env: process.env().iter().flatten().map(|word| word.clone().into_bytes()).collect(),
        cwd: Some(process.cwd().clone()),
        strace: global.strace,
        stats: false,
        debug_log: super::log::debug_log(global),
        cpus: None,
        cpus_from_quota: global.cpu_num_from_quota,
        memory: global.memory,
        network: if none { crate::sandbox::Network::None } else { global.network },
        publish: Vec::new(),
        rules: Rules::default(),
        net_log: None,
        // A pod's are all its containers', which have limits of their own.
        pids: pids
            .filter(|limit| *limit > 0 && role != Role::Sandbox)
            .and_then(|limit| u32::try_from(limit).ok()),
        timeout: None,
        save_diff: None,
        init_is_protected: true,
        jail: !global.no_jail,
        provoke_bugs: false,
        container,
    };
    let network = if none { Net::Same } else { network };
    Ok(Plan { sandbox, network, warnings })
}

/// Limits.
pub(super) fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
}

fn missing(what: &str) -> Error {
    Error::new(format!("config.json: no {what}"))
}

/// The words of the command.
pub(super) fn args(process: &Process) -> Result<Vec<Vec<u8>>> {
    let words: Vec<Vec<u8>> = process.args().iter().flatten().map(|word| word.clone().into_bytes()).collect();
    if words.is_empty() { Err(missing("process.args")) } else { Ok(words) }
}

/// Who a process is.
pub(super) fn user(process: &Process, warnings: &mut Vec<String>) -> User {
    let asked = process.user();
    let set = |set: &Option<Capabilities>| {
        set.iter().flatten().map(|cap| bit(&cap.to_string())).fold(0, |all, bit| all | bit)
    };
    let capabilities = process.capabilities().as_ref().map(|sets| {
        [
            set(sets.bounding()),
            set(sets.effective()),
            set(sets.inheritable()),
            set(sets.permitted()),
            set(sets.ambient()),
        ]
    });
    for (name, there) in [
        ("process.apparmorProfile", process.apparmor_profile().as_ref().is_some_and(|name| !name.is_empty())),
        ("process.selinuxLabel", process.selinux_label().as_ref().is_some_and(|name| !name.is_empty())),
        ("process.scheduler", process.scheduler().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
    ] {
        if there {
            warnings.push(format!("{name}: not supported"));
        }
    }
    let limits = process.rlimits().iter().flatten();
    User {
        uid: asked.uid(),
        gid: asked.gid(),
        groups: asked.additional_gids().clone().unwrap_or_default(),
        capabilities,
        umask: asked.umask(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        limits: limits.map(|limit| (resource(limit.typ()), limit.soft(), limit.hard())).collect(),
    }
}

/// Capabilities, in the order of their numbers.
pub(super) const NAMES: [&str; CAP_LAST as usize + 1] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bit of a capability, by its name with or without `CAP_`; 0 for one that we do not know.
pub(super) fn bit(name: &str) -> u64 {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map_or(0, |at| 1 << at)
}

/// The number of a resource (getrlimit(2)).
fn resource(typ: PosixRlimitType) -> u32 {
    use PosixRlimitType as R;
    match typ {
        R::RlimitCpu => 0,
        R::RlimitFsize => 1,
        R::RlimitData => 2,
        R::RlimitStack => 3,
        R::RlimitCore => 4,
        R::RlimitRss => 5,
        R::RlimitNproc => 6,
        R::RlimitNofile => 7,
        R::RlimitMemlock => 8,
        R::RlimitAs => 9,
        R::RlimitLocks => 10,
        R::RlimitSigpending => 11,
        R::RlimitMsgqueue => 12,
        R::RlimitNice => 13,
        R::RlimitRtprio => 14,
        R::RlimitRttime => 15,
    }
}

/// The network namespace that is asked for; others are the sandbox's own whatever is said.
fn network(spec: &Spec) -> Result<Net> {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().clone()).unwrap_or_default();
    if all.iter().any(|ns| ns.typ() == LinuxNamespaceType::User) {
        return Err(Error::new("linux.namespaces: user: not supported"));
    }
    Ok(match all.iter().find(|ns| ns.typ() == LinuxNamespaceType::Network) {
        None => Net::Same,
        Some(ns) => ns.path().clone().map_or(Net::New, Net::Path),
    })
}

/// Whether a hook could set the network up.
fn has_hooks(spec: &Spec) -> bool {
    let some = |hooks: Option<&Vec<_>>| hooks.is_some_and(|hooks: &Vec<_>| !hooks.is_empty());
    spec.hooks().as_ref().is_some_and(|all| some(prestart(all)) || some(all.create_runtime().as_ref()))
}

/// Hooks of the kind that came before the others, which Docker still has.
pub(super) fn prestart(hooks: &oci_spec::runtime::Hooks) -> Option<&Vec<oci_spec::runtime::Hook>> {
    hooks.prestart().as_ref()
}

fn note_linux(spec: &Spec, role: &Role, warnings: &mut Vec<String>) {
    let hooks = spec.hooks().as_ref();
    let named =
        |hooks: Option<&Vec<_>>| hooks.is_some_and(|hooks: &Vec<oci_spec::runtime::Hook>| !hooks.is_empty());
    if named(hooks.and_then(|hooks| hooks.start_container().as_ref())) {
        warnings.push("hooks.startContainer: not supported".to_owned());
    }
    let Some(linux) = spec.linux() else { return };
    for (name, there) in not_done(linux) {
        if there {
            warnings.push(format!("linux.{name}: not supported"));
        }
    }
    if *role != Role::Alone {
        return;
    }
    let paths = linux.namespaces().iter().flatten();
    for ns in paths.filter(|ns| ns.path().is_some() && ns.typ() != LinuxNamespaceType::Network) {
        warnings.push(format!("linux.namespaces: {}: another's is not joined", ns.typ()));
    }
}

fn linux(spec: &Spec) -> Option<&Linux> {
    spec.linux().as_ref()
}

/// Settings, in an order that does not depend on chance.
fn sysctls(spec: &Spec) -> Vec<(String, String)> {
    let all = linux(spec).and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort();
    all
}

fn devices(spec: &Spec) -> Result<Vec<Device>> {
    linux(spec).and_then(|linux| linux.devices().as_ref()).into_iter().flatten().map(device).collect()
}

fn device(asked: &LinuxDevice) -> Result<Device> {
    let wrong = |what: &str| Error::new(format!("linux.devices: {}: {what}", asked.path().display()));
    let kind = match asked.typ() {
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
        LinuxDeviceType::P => Kind::Fifo,
        LinuxDeviceType::A => return Err(wrong("type a is no type of a node")),
    };
    if !asked.path().is_absolute() {
        return Err(wrong("not an absolute path"));
    }
    let part = |number: i64| u32::try_from(number).map_err(|_| wrong("no such number"));
    let number = if kind == Kind::Fifo { 0 } else { makedev(part(asked.major())?, part(asked.minor())?) };
    // Engines write the type's bits, too.
    let perm = asked.file_mode().unwrap_or(0o666) & 0o7777;
    let owner = (asked.uid().unwrap_or(0), asked.gid().unwrap_or(0));
    Ok(Device { place: asked.path().as_os_str().as_encoded_bytes().to_vec(), kind, number, perm, owner })
}

fn not_done(linux: &Linux) -> [(&'static str, bool); 3] {
    [
        ("intelRdt", linux.intel_rdt().is_some()),
        ("personality", linux.personality().is_some()),
        ("timeOffsets", linux.time_offsets().is_some()),
    ]
}

/// All mounts, in an order in which they hide each other as they should.
fn mounts(spec: &Spec, bundle: &Path, warnings: &mut Vec<String>) -> Result<Vec<Mount>> {
    let mut all = Vec::new();
    for asked in spec.mounts().iter().flatten() {
        all.extend(mount(asked, bundle, warnings)?);
    }
    if let Some(linux) = spec.linux() {
        for path in linux.readonly_paths().iter().flatten() {
            // Ours are as read-only there as they are to be: few files of /proc can be written to, and those are the sandbox's.
            if !path.starts_with("/proc") && !path.starts_with("/sys") {
                let (place, flags) = (path.clone().into_bytes(), MountFlags::RDONLY);
                all.push(Mount { place, source: Source::Again, flags });
            }
        }
        for path in linux.masked_paths().iter().flatten() {
            let (place, flags) = (path.clone().into_bytes(), MountFlags::RDONLY);
            all.push(Mount { place, source: Source::Mask, flags });
        }
    }
    Ok(all)
}

/// Options of a mount that mean something here.
#[derive(Default)]
struct Options {
    flags: MountFlags,
    bind: bool,
    copy_up: bool,
    /// Those of a file system in memory.
    tmpfs: Vec<String>,
}

fn options(asked: &Asked, warnings: &mut Vec<String>) -> Result<Options> {
    let mut all = Options::default();
    for option in asked.options().iter().flatten() {
        match option.as_str() {
            "ro" => all.flags |= MountFlags::RDONLY,
            "rw" => all.flags -= MountFlags::RDONLY,
            "nosuid" => all.flags |= MountFlags::NOSUID,
            "nodev" => all.flags |= MountFlags::NODEV,
            "noexec" => all.flags |= MountFlags::NOEXEC,
            "suid" => all.flags -= MountFlags::NOSUID,
            "dev" => all.flags -= MountFlags::NODEV,
            "exec" => all.flags -= MountFlags::NOEXEC,
            "bind" | "rbind" => all.bind = true,
            "tmpcopyup" => all.copy_up = true,
            "idmap" | "ridmap" => {
                return Err(Error::new(format!(
                    "mount {}: {option}: not supported",
                    asked.destination().display()
                )));
            }
            // Propagation, times, and what is so anyway.
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable"
            | "relatime" | "noatime" | "strictatime" | "nodiratime" | "defaults" | "newinstance" | "sync"
            | "async" | "norelatime" | "nostrictatime" | "atime" | "diratime" | "copyup" | "notmpcopyup" => {}
            other => match other.split_once('=') {
                Some(("size" | "mode" | "uid" | "gid" | "nr_blocks" | "nr_inodes", _)) => {
                    all.tmpfs.push(other.to_owned());
                }
                Some(("ptmxmode", _)) => {}
                _ => warnings
                    .push(format!("mount {}: option {other}: not supported", asked.destination().display())),
            },
        }
    }
    Ok(all)
}

fn mount(asked: &Asked, bundle: &Path, warnings: &mut Vec<String>) -> Result<Option<Mount>> {
    let options = options(asked, warnings)?;
    let place = asked.destination().as_os_str().as_encoded_bytes().to_vec();
    let shown = asked.destination().display();
    if place.first() != Some(&b'/') {
        return Err(Error::new(format!("mount {shown}: not an absolute path")));
    }
    let typ = asked.typ().as_deref().unwrap_or("");
    let with = |source| Ok(Some(Mount { place: place.clone(), source, flags: options.flags }));
    if options.bind || typ == "bind" || typ == "rbind" {
        let source =
            asked.source().as_ref().ok_or_else(|| Error::new(format!("mount {shown}: no source")))?;
        // The sandbox has one of its own, in its memory.
        if place == b"/dev/shm" {
            return Ok(None);
        }
        return with(Source::Host(bundle.join(source)));
    }
    match typ {
        // Every sandbox has these where they are asked for.
        "proc" if place == b"/proc" => Ok(None),
        "sysfs" if place == b"/sys" => Ok(None),
        "devpts" if place == b"/dev/pts" => Ok(None),
        "tmpfs" if place == b"/dev" => Ok(None),
        "tmpfs" if options.copy_up => with(Source::Copy),
        "tmpfs" => with(Source::Tmpfs(options.tmpfs.join(","))),
        "mqueue" => {
            warnings.push(format!("mount {shown}: mqueue: an empty directory"));
            with(Source::Tmpfs("mode=1777".to_owned()))
        }
        // Of whichever version the host's are.
        "cgroup" | "cgroup2" => with(Source::Cgroups),
        other => {
            warnings.push(format!("mount {shown}: type {other}: not supported"));
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{bit, mount};
    use crate::sandbox::container::Source;
    use crate::vfs::MountFlags;
    use std::path::Path;

    #[test]
    fn capabilities_have_linux_numbers() {
        assert_eq!((bit("CAP_CHOWN"), bit("cap_kill"), bit("MKNOD")), (1, 1 << 5, 1 << 27));
        assert_eq!((bit("CAP_CHECKPOINT_RESTORE"), bit("CAP_UNKNOWN")), (1 << 40, 0));
    }

    fn of(json: &str) -> Result<Option<super::Mount>, String> {
        let asked = serde_json::from_str(json).expect("a mount");
        mount(&asked, Path::new("/bundle"), &mut Vec::new()).map_err(|error| error.message)
    }

    #[test]
    fn binds_are_relative_to_the_bundle_and_keep_their_flags() {
        let json = r#"{"destination":"/v","type":"bind","source":"data","options":["rbind","ro","nosuid"]}"#;
        let mount = of(json).unwrap().unwrap();
        assert!(matches!(mount.source, Source::Host(path) if path == Path::new("/bundle/data")));
        assert_eq!(mount.flags, MountFlags::RDONLY | MountFlags::NOSUID);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let json = r#"{"destination":"/v","type":"bind","source":"/d","options":["bind","idmap"]}"#;
        assert!(of(json).unwrap_err().contains("idmap"));
        assert!(of(r#"{"destination":"v","type":"tmpfs"}"#).is_err());
        assert!(of(r#"{"destination":"/proc","type":"proc"}"#).unwrap().is_none());
    }
}
