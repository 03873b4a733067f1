//! What a sandbox's processes could do to their host, as /proc says it: by the host's root, for root and for nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::permission::{Directory, USER};
use crate::{at_rest, end};

/// In the caller's environment, and nowhere else then.
const SECRET: &str = "a word of the caller's";
/// CAP_DAC_READ_SEARCH, which a root caller's sandbox keeps.
const READ_SEARCH: u64 = 1 << 2;
/// CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER and CAP_FSETID, which it keeps besides where programs write to a volume.
const WRITE: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4;
/// Access mode of a descriptor, and the flag of one that is only a place.
const ACCESS_MODE: u32 = 3;
const O_PATH: u32 = 0o10_000_000;

/// What has been found.
#[derive(Default)]
struct Findings {
    checked: usize,
    wrong: Vec<String>,
}

impl Findings {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.wrong.push(what());
        }
    }
}

/// Starts a sandbox as each of them and looks.
pub(crate) fn check(pillbox: &str, platform: &str) -> Result<(), String> {
    let directory = Directory(std::env::temp_dir().join(format!("pillbox-posture-{}", std::process::id())));
    let programs = prepare(&directory, pillbox).map_err(|e| format!("{}: {e}", directory.0.display()))?;
    let volume = directory.0.join("volume");
    let made = fs::create_dir(&volume)
        .and_then(|()| fs::set_permissions(&volume, fs::Permissions::from_mode(0o777)));
    made.map_err(|e| e.to_string())?;
    for (user, volume) in [(0, None), (USER, None), (0, Some(&*volume)), (USER, Some(&*volume))] {
        let findings = look(&programs, &directory.0, platform, user, volume)?;
        let with = if volume.is_some() { ", with a volume" } else { "" };
        println!("{platform}, user {user}{with}: {} checked", findings.checked);
        if !findings.wrong.is_empty() {
            return Err(format!("user {user}{with}:\n  {}", findings.wrong.join("\n  ")));
        }
    }
    Ok(())
}

/// `pillbox`, this program, and a file, for everybody.
fn prepare(directory: &Directory, pillbox: &str) -> std::io::Result<[PathBuf; 3]> {
    let all = fs::Permissions::from_mode(0o755);
    fs::create_dir(&directory.0)?;
    fs::set_permissions(&directory.0, all.clone())?;
    let files = ["pillbox", "probe", "inherited"].map(|name| directory.0.join(name));
    for (from, to) in [(Path::new(pillbox), &files[0]), (&std::env::current_exe()?, &files[1])] {
        fs::copy(from, to)?;
        fs::set_permissions(to, all.clone())?;
    }
    fs::write(&files[2], "")?;
    let device = Path::new("/dev/kvm");
    if device.exists() {
        // Nobody may use it, too: this is a machine for tests.
        fs::set_permissions(device, fs::Permissions::from_mode(0o666))?;
    }
    Ok(files)
}

fn look(
    programs: &[PathBuf; 3],
    directory: &Path,
    platform: &str,
    user: u32,
    volume: Option<&Path>,
) -> Result<Findings, String> {
    let [pillbox, probe, inherited] = programs;
    let error = |e: std::io::Error| e.to_string();
    let file = fs::OpenOptions::new().append(true).open(inherited).map_err(error)?;
    rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).map_err(|e| e.to_string())?;
    let mut child = Command::new(pillbox)
        .args(["do", "--platform", platform])
        .args(volume.iter().map(|path| format!("--volume={}:/volume", path.display())))
        .arg("--")
        .args([probe.as_os_str(), "events".as_ref()])
        .env("SECRET", SECRET)
        .env("XDG_RUNTIME_DIR", directory)
        .current_dir("/")
        .uid(user)
        .gid(user)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(error)?;
    drop(file);
    let family = at_rest(&mut child)?;
    let mut findings = Findings::default();
    let kernel = child.id();
    for pid in &family {
        let kept = match (*pid == kernel && user == 0, volume) {
            (false, _) => 0,
            (true, None) => READ_SEARCH,
            (true, Some(_)) => READ_SEARCH | WRITE,
        };
        process(&mut findings, *pid, *pid == kernel, user, kept);
    }
    descriptors(&mut findings, kernel, inherited);
    if user == 0 {
        places(&mut findings, &family, kernel);
    }
    let environment = fs::read(format!("/proc/{kernel}/environ")).unwrap_or_default();
    let secret = environment.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    findings.check(!secret, || "the environment is still there".to_owned());
    let stubs = family.len() - 1;
    findings.check((stubs > 0) == (platform == "systrap"), || format!("{stubs} stubs"));
    end(&mut child, &family);
    Ok(findings)
}

/// All threads of a process, and what they share.
fn process(findings: &mut Findings, pid: u32, is_kernel: bool, user: u32, kept: u64) {
    let mut union = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let fields: BTreeMap<&str, &str> =
            status.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
        let who = format!("{} {:?}", task.path().display(), fields.get("Name"));
        let capabilities = |name: &str| {
            fields.get(name).and_then(|text| u64::from_str_radix(text, 16).ok()).unwrap_or(u64::MAX)
        };
        for name in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            let left = capabilities(name);
            findings.check(left & !kept == 0, || format!("{who}: {name} {left:x}"));
        }
        union |= capabilities("CapEff");
        if is_kernel && user == 0 {
            let bound = capabilities("CapBnd");
            findings.check(bound & !kept == 0, || format!("{who}: CapBnd {bound:x}"));
        }
        for (name, value) in [("NoNewPrivs", "1"), ("Seccomp", "2")] {
            findings
                .check(fields.get(name) == Some(&value), || format!("{who}: {name} {:?}", fields.get(name)));
        }
    }
    findings.check(union == kept, || format!("{pid}: capabilities {union:x}"));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
    let numbers: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
    findings.check(numbers == ["0", "0"], || format!("{pid}: {core}"));
    // What is not dumpable belongs to root.
    let owner = fs::metadata(format!("/proc/{pid}/mem")).map_or(u32::MAX, |file| file.uid());
    findings.check(owner == 0, || format!("{pid}: user {owner} may look into it"));
    let here = fs::read_dir(format!("/proc/{pid}/cwd")).map_or(usize::MAX, Iterator::count);
    findings.check(here == 0, || format!("{pid}: its directory has {here} entries"));
    if !is_kernel {
        let open: BTreeSet<String> = open(pid).into_iter().map(|(_, name, _)| name).collect();
        let files = open.iter().all(|name| name.starts_with("/memfd:pillbox-"));
        findings.check(files && open.len() == 3, || format!("{pid}: {open:?}"));
    }
}

/// What root's sandboxes have of their own: namespaces, and a root directory with nothing in it.
fn places(findings: &mut Findings, family: &BTreeSet<u32>, kernel: u32) {
    for kind in ["mnt", "ipc", "uts"] {
        let [own, theirs] = ["self".to_owned(), kernel.to_string()]
            .map(|pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default());
        findings.check(own != theirs && theirs != Path::new(""), || format!("its {kind} namespace is ours"));
    }
    for pid in family {
        let entries = fs::read_dir(format!("/proc/{pid}/root/")).map_or(usize::MAX, Iterator::count);
        findings.check(entries == 0, || format!("{pid}: its root directory has {entries} entries"));
    }
}

/// Descriptors of a process: number, name, flags.
fn open(pid: u32) -> Vec<(u32, String, u32)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
    entries
        .filter_map(number)
        .map(|fd| {
            let name = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
            let flags = flags.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(u32::MAX);
            (fd, name.to_string_lossy().into_owned(), flags)
        })
        .collect()
}

/// Whether a descriptor of that name is a socket of rtnetlink(7), by which a process without capabilities can only ask.
fn asks_about_the_network(pid: u32, name: &str) -> bool {
    let inode = name.strip_prefix("socket:[").and_then(|name| name.strip_suffix(']'));
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/netlink")).unwrap_or_default();
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode, where Eth is the protocol.
    sockets.lines().skip(1).any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        inode.is_some() && words.get(1) == Some(&"0") && words.last().copied() == inode
    })
}

/// The kernel's process has its own things open, and the host's files for reading only.
fn descriptors(findings: &mut Findings, pid: u32, inherited: &Path) {
    let own = ["anon_inode:", "/memfd:pillbox-", "/dev/kvm"];
    let (standard, others): (Vec<_>, Vec<_>) = open(pid).into_iter().partition(|(fd, ..)| *fd <= 2);
    for (fd, name, flags) in others {
        findings.check(name != inherited.to_string_lossy(), || format!("{fd}: {name} was inherited"));
        let reads = flags & ACCESS_MODE == 0 || flags & O_PATH != 0;
        // Pipes among the standard streams are there once more, for us not to block on.
        let ours = own.iter().any(|start| name.starts_with(start))
            || standard.iter().any(|(_, stream, _)| *stream == name)
            || asks_about_the_network(pid, &name);
        findings.check(reads || ours, || format!("{fd}: {name} is open for writing"));
    }
}
