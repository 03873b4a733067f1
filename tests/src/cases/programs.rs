//! Real programs: servers and their clients, compilers, languages, terminals within terminals. `programs.py` says what each does;
//! it runs natively and in a sandbox, script and all, on a machine that has the programs (`cargo setup` installs Debian's).

use super::{Case, Missing, Place, gives};
use crate::arch::Arch;
use crate::packages::{in_path, workspace_root};

/// What is run: the name in `programs.py`, what holds, and which programs it takes.
const CASES: &[(&str, &str, &[&str])] = &[
    ("postgres", "postgres: a cluster, pgbench over both kinds of sockets", &["setpriv", "psql", "pgbench"]),
    ("nginx", "nginx: files, a proxy, new workers; curl", &["nginx", "curl"]),
    ("redis", "redis: its benchmark, subscribers, a snapshot", &["redis-cli", "redis-benchmark"]),
    ("memcached", "memcached: twenty clients", &["memcached"]),
    ("mariadb", "mariadb: four clients", &["mariadbd", "mariadb", "mariadb-install-db"]),
    ("sqlite", "sqlite: four writers", &["sqlite3"]),
    ("git", "git: branches, merges, packs; clones over http, pushes to a daemon", &["git"]),
    ("make", "gcc, by make -j4", &["gcc", "make"]),
    ("node", "node: servers, clients, workers, children", &["node"]),
    ("go", "go: a compiler, a server and its clients", &["go"]),
    ("java", "java: a server and its clients, a child, its limits", &["javac", "java"]),
    ("python", "python: asyncio, three kinds of processes, a server", &[]),
    ("tmux", "tmux: panes, jobs", &["tmux"]),
    ("screen", "screen: a window, jobs", &["screen", "pgrep"]),
    ("tools", "socat, nc and ss", &["socat", "nc", "ss", "rev"]),
    ("iperf", "iperf3: both directions, four streams, datagrams", &["iperf3"]),
    (
        "ssh",
        "ssh: commands, terminals, scp, tunnels; rsync over it",
        &["sshd", "ssh", "scp", "rsync", "curl"],
    ),
    ("bubblewrap", "bubblewrap: mounts, names, processes and a network of its own", &["bwrap"]),
    ("xvfb", "Xvfb: windows of three clients", &["Xvfb", "xdpyinfo", "xev", "xkill", "xwininfo"]),
];

/// Those that the Debian guests run, too: what has small packages, and is done in seconds on an emulated machine.
const IN_GUESTS: &[&str] = &["nginx", "redis", "memcached", "sqlite", "git", "python", "tools"];

/// Where the emulated machine takes ten minutes for all of them: what differs between architectures is seen by fewer.
const IN_SLOW_GUESTS: &[&str] = &["nginx", "memcached", "sqlite"];

/// The text of `programs.py`, and where it lies in a guest.
pub const PROGRAMS_TEXT: &str = include_str!("programs.py");
/// See [`PROGRAMS_TEXT`].
pub const PROGRAMS: &str = "/root/programs.py";

/// What apt does to a system, which a sandbox may and this machine had better not.
const DEB: &str =
    "['Setting up ours (1) ...']\ninstalled\nconfigured for configure\nours\t1 ours-user\nFalse True\n";

/// The cases, and what is missing for others.
pub fn programs(place: &Place) -> (Vec<Case>, Missing) {
    let script = workspace_root().join("tests/src/cases/programs.py");
    let script = script.to_string_lossy();
    let command = |name| ["python3", &*script, name].map(str::to_owned);
    let (mut cases, mut missing) = (Vec::new(), Vec::new());
    for (name, what, needs) in CASES {
        match needs.iter().find(|program| !in_path(program)) {
            Some(program) => missing.push((*name, format!("there is no {program}"))),
            None => cases.push(place.same(&format!("programs: {what}"), &command(name))),
        }
    }
    let root = rustix::process::geteuid().is_root();
    if root && ["apt-get", "dpkg-deb", "adduser"].iter().all(|program| in_path(program)) {
        let step = place.sandboxed(&command("deb"));
        cases.push(gives("programs: apt installs a package and removes it", step, DEB, 0));
    } else {
        missing.push(("deb", "it takes root, apt and adduser".to_owned()));
    }
    (cases, missing)
}

/// The cases of a Debian guest.
pub fn programs_in_guest(place: &Place) -> Vec<Case> {
    let names = match place.arch {
        Arch::X86_64 => IN_GUESTS,
        Arch::Aarch64 => IN_SLOW_GUESTS,
    };
    let chosen = CASES.iter().filter(|(name, ..)| names.contains(name));
    let case = |(name, what, _): &(&str, &str, &[&str])| {
        place.same(&format!("programs: {what}"), &["python3", PROGRAMS, name])
    };
    chosen.map(case).collect()
}
