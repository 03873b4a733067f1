//! What the host says of itself: /proc, /sys and the auxiliary vector.

use super::Item;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// CPU features that matter here, as /proc/cpuinfo calls them.
const FEATURES: &[&str] = &[
    "vmx",
    "svm",
    "hypervisor",
    "smap",
    "smep",
    "umip",
    "pcid",
    "invpcid",
    "fsgsbase",
    "rdtscp",
    "xsave",
    "avx",
    "avx2",
    "avx512f",
    "constant_tsc",
    "nonstop_tsc",
    "la57",
    "pku",
    "atomics",
    "pan",
    "sve",
    "paca",
    "bti",
    "mte",
];

/// Everything about the host, in the order of the table.
pub(super) fn items(device: &Path) -> Vec<Item> {
    let mut items = Vec::new();
    let mut add = |name: &'static str, value: String| items.push(Item { name, value });
    add("host kernel", line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown));
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    add("CPU", cpu_model(&cpuinfo));
    add("CPU features", features(&cpuinfo));
    add("CPU weaknesses", weaknesses());
    add("CPUs", std::thread::available_parallelism().map_or_else(|_| unknown(), |n| n.to_string()));
    add("page size", format!("{} bytes", auxiliary("AT_PAGESZ")));
    add("address bits", address_bits());
    add(device_name(device), device_state(device));
    add("KVM modules", modules());
    add("user namespaces", user_namespaces());
    add("seccomp", seccomp());
    add("memory files", memory_files());
    add("cgroups", cgroups());
    items
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn line(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn cpuinfo_field<'a>(cpuinfo: &'a str, name: &str) -> Option<&'a str> {
    let field = |line: &'a str| {
        line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
    };
    cpuinfo.lines().find_map(field)
}

fn cpu_model(cpuinfo: &str) -> String {
    let implementer = || {
        let part = cpuinfo_field(cpuinfo, "CPU part")?;
        Some(format!("implementer {}, part {part}", cpuinfo_field(cpuinfo, "CPU implementer")?))
    };
    let model =
        cpuinfo_field(cpuinfo, "model name").map(str::to_owned).or_else(implementer).unwrap_or_else(unknown);
    format!("{model} ({})", crate::arch::MACHINE)
}

fn features(cpuinfo: &str) -> String {
    let all =
        cpuinfo_field(cpuinfo, "flags").or_else(|| cpuinfo_field(cpuinfo, "Features")).unwrap_or_default();
    let known: Vec<&str> = all.split_whitespace().filter(|flag| FEATURES.contains(flag)).collect();
    known.join(" ")
}

/// What decides whether programs may share page tables with the kernel.
fn weaknesses() -> String {
    let named = ["meltdown", "l1tf", "mds", "spectre_v2"];
    let state = |name: &&str| {
        let state = line(&format!("/sys/devices/system/cpu/vulnerabilities/{name}"))?;
        // The first clause says enough.
        Some(format!("{name}: {}", state.split([';', ',']).next().unwrap_or_default()))
    };
    named.iter().filter_map(state).collect::<Vec<_>>().join("; ")
}

fn auxiliary(name: &str) -> u64 {
    crate::hostsys::process::auxiliary(if name == "AT_PAGESZ" { libc::AT_PAGESZ } else { libc::AT_RANDOM })
}

/// The initial stack lies right below the end of user space.
fn address_bits() -> String {
    let stack = auxiliary("AT_RANDOM");
    format!("{} bits for programs", u64::BITS - stack.leading_zeros())
}

fn device_name(device: &Path) -> &'static str {
    if device == Path::new(crate::platform::choose::DEVICE) { "/dev/kvm" } else { "KVM device" }
}

fn device_state(device: &Path) -> String {
    let metadata = match std::fs::metadata(device) {
        Ok(metadata) => metadata,
        Err(error) => return format!("absent ({error})"),
    };
    let (mode, uid, gid) = (metadata.permissions().mode() & 0o777, metadata.uid(), metadata.gid());
    let (major, minor) = (metadata.rdev() >> 8 & 0xfff, metadata.rdev() & 0xff);
    format!("present, {major}:{minor}, mode {mode:o}, owner {uid}:{gid}, {}", implementation())
}

/// Which code answers at /dev/kvm.
fn implementation() -> String {
    if crate::arch::MACHINE == "aarch64" {
        return "built into the host kernel".to_owned();
    }
    let module =
        ["kvm_intel", "kvm_amd"].into_iter().find(|name| Path::new("/sys/module").join(name).exists());
    match module {
        Some(module) => format!("{module} ({})", parameters(module)),
        None => "neither kvm_intel nor kvm_amd is loaded: not the kernel's own KVM".to_owned(),
    }
}

/// What of the CPU a vendor's module uses: it takes a parameter back if the CPU lacks what it asks for.
fn parameters(module: &str) -> String {
    let named: &[&str] = match module {
        "kvm_intel" => &["ept", "eptad", "vpid", "unrestricted_guest", "enable_apicv", "nested"],
        _ => &["npt", "avic", "vgif", "nested"],
    };
    let shown = |name: &&str| {
        let value = line(&format!("/sys/module/{module}/parameters/{name}"))?;
        Some(format!("{name}={value}"))
    };
    named.iter().filter_map(shown).collect::<Vec<_>>().join(" ")
}

fn modules() -> String {
    let loaded = ["kvm", "kvm_intel", "kvm_amd", "irqbypass"];
    let loaded: Vec<&str> =
        loaded.into_iter().filter(|name| Path::new("/sys/module").join(name).exists()).collect();
    if loaded.is_empty() { "none".to_owned() } else { loaded.join(" ") }
}

fn user_namespaces() -> String {
    let limit = line("/proc/sys/user/max_user_namespaces");
    let unprivileged = line("/proc/sys/kernel/unprivileged_userns_clone");
    let apparmor = line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns");
    match (limit.as_deref(), unprivileged.as_deref(), apparmor.as_deref()) {
        (None, _, _) => "not built into the host kernel".to_owned(),
        (Some("0"), _, _) => "forbidden (user.max_user_namespaces=0)".to_owned(),
        (_, Some("0"), _) => "only for root (kernel.unprivileged_userns_clone=0)".to_owned(),
        (_, _, Some("1")) => "restricted by AppArmor".to_owned(),
        (Some(limit), ..) => format!("allowed (at most {limit})"),
    }
}

fn seccomp() -> String {
    match line("/proc/sys/kernel/seccomp/actions_avail") {
        None => "not available".to_owned(),
        Some(actions) => {
            let own = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
            let filtered =
                own.lines().any(|line| line.starts_with("Seccomp:") && line.trim_end().ends_with('2'));
            format!("{actions}{}", if filtered { " (this process is under a filter already)" } else { "" })
        }
    }
}

fn memory_files() -> String {
    match line("/proc/sys/vm/memfd_noexec").as_deref() {
        Some("2") => "not executable (vm.memfd_noexec=2)".to_owned(),
        Some(value) => format!("executable (vm.memfd_noexec={value})"),
        None => "executable".to_owned(),
    }
}

fn cgroups() -> String {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = own.lines().find_map(|line| line.strip_prefix("0::"));
    let legacy = own.lines().any(|line| !line.starts_with("0::"));
    let version = match (unified, legacy) {
        (Some(_), true) => "v1 and v2",
        (Some(_), false) => "v2",
        (None, true) => "v1",
        (None, false) => return "none".to_owned(),
    };
    let mut limits = Vec::new();
    let mut limit = |name: &str, v2: &str, v1: &str, none: &str| {
        let path = own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (controllers, path) = (fields.nth(1)?, fields.next()?);
            let (directory, _) = v1.split_once('/')?;
            controllers
                .split(',')
                .any(|c| c == directory)
                .then(|| format!("/sys/fs/cgroup/{directory}{path}"))
        });
        let file = v1.split_once('/').map_or(v1, |(_, file)| file);
        let value = unified
            .and_then(|path| line(&format!("/sys/fs/cgroup{path}/{v2}")))
            .or_else(|| path.and_then(|path| line(&format!("{path}/{file}"))));
        if let Some(value) = value.filter(|value| value != none && !value.starts_with("max") && value != "-1")
        {
            limits.push(format!("{name} {value}"));
        }
    };
    limit("cpu", "cpu.max", "cpu/cpu.cfs_quota_us", "max");
    limit("memory", "memory.max", "memory/memory.limit_in_bytes", "9223372036854771712");
    limit("pids", "pids.max", "pids/pids.max", "max");
    let limits = if limits.is_empty() { "no limits".to_owned() } else { limits.join(", ") };
    format!("{version}, {limits}")
}
