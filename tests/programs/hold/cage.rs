//! Limits around a command: memory and tasks by a cgroup of its own where the machine has them, time by a deadline.
//!
//! What is in the group after the command has ended has outlived it, and is an error. What the command took at most is
//! told on standard error, for whoever judges it.

use crate::sys;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Statuses of ours, beside those of the command: as timeout(1) has them, and one for what is left behind.
const TIMED_OUT: u8 = 124;
const FAILED: u8 = 125;
const OUTLIVED: u8 = 123;
/// How long processes of a command that has ended may take to go.
const LINGER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Runs a command within `limits`: seconds, MiB, tasks.
pub(crate) fn run(limits: [&str; 3], command: &[&str]) -> ExitCode {
    let run = || {
        let [seconds, mib, tasks] = limits.map(|number| number.parse::<u64>().map_err(|e| e.to_string()));
        let groups = Groups::enter(mib?, tasks?)?;
        let outcome = within(Duration::from_secs(seconds?), &groups, command);
        groups.tell();
        outcome
    };
    match run() {
        Ok(status) => ExitCode::from(status),
        Err(why) => {
            eprintln!("cage: {why}");
            ExitCode::from(FAILED)
        }
    }
}

fn within(time: Duration, groups: &Groups, command: &[&str]) -> Result<u8, String> {
    let mut child =
        Command::new(command[0]).args(&command[1..]).spawn().map_err(|e| format!("{}: {e}", command[0]))?;
    let end = Instant::now() + time;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|e| e.to_string())? {
            break status;
        }
        if Instant::now() > end {
            eprintln!("cage: it did not end within {time:?}");
            let _ended = child.kill();
            groups.kill();
            let _status = child.wait();
            return Ok(TIMED_OUT);
        }
        std::thread::sleep(LOOK);
    };
    let end = Instant::now() + LINGER;
    while !groups.left().is_empty() {
        if Instant::now() > end {
            eprintln!("cage: left behind: {:?}", groups.left());
            groups.kill();
            return Ok(OUTLIVED);
        }
        std::thread::sleep(LOOK);
    }
    let status = status.code().unwrap_or(128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(status).unwrap_or(FAILED))
}

/// The control groups that this process is in, with what it starts; left and removed at the end.
struct Groups(Vec<PathBuf>);

impl Groups {
    /// Version 2's one hierarchy, or version 1's of memory and tasks; none at all where this process may not make any.
    fn enter(mib: u64, tasks: u64) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("pillbox-hold-{}", std::process::id());
        let (memory, pids) = (root.join("memory"), root.join("pids"));
        let mut groups = Groups(Vec::new());
        if root.join("cgroup.controllers").exists() {
            let _given_already = fs::write(root.join("cgroup.subtree_control"), "+memory +pids");
            groups.add(root.join(name), &[("memory.max", mib << 20), ("pids.max", tasks)])?;
        } else if memory.exists() && pids.exists() {
            groups.add(memory.join(&name), &[("memory.limit_in_bytes", mib << 20)])?;
            groups.add(pids.join(&name), &[("pids.max", tasks)])?;
        }
        if groups.0.is_empty() {
            eprintln!("cage: no control groups, only the time is limited");
        }
        Ok(groups)
    }

    fn add(&mut self, group: PathBuf, limits: &[(&str, u64)]) -> Result<(), String> {
        if fs::create_dir(&group).is_err() {
            return Ok(());
        }
        self.0.push(group.clone());
        for (file, limit) in limits {
            let file = group.join(file);
            fs::write(&file, limit.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        }
        // A kernel that accounts for swap would push what is too much there.
        let _none = fs::write(group.join("memory.swap.max"), "0");
        fs::write(group.join("cgroup.procs"), "0").map_err(|e| format!("{}: {e}", group.display()))
    }

    /// Who is in the groups beside this process.
    fn left(&self) -> Vec<i32> {
        let text = self.0.first().and_then(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
        let own = std::process::id().cast_signed();
        let pids = text.iter().flat_map(|text| text.split_whitespace()).filter_map(|pid| pid.parse().ok());
        pids.filter(|pid| *pid != own).collect()
    }

    /// Ends them all, however many they make meanwhile.
    fn kill(&self) {
        let end = Instant::now() + LINGER;
        while !self.left().is_empty() && Instant::now() < end {
            self.left().into_iter().for_each(sys::kill);
            std::thread::sleep(LOOK);
        }
    }

    /// Says how much memory was used at most.
    fn tell(&self) {
        let files = ["memory.peak", "memory.max_usage_in_bytes"];
        let most = self.0.iter().find_map(|group| {
            files
                .iter()
                .find_map(|file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok())
        });
        if let Some(most) = most {
            eprintln!("cage: {} MiB at most", most >> 20);
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            let _left = group.parent().map(|parent| fs::write(parent.join("cgroup.procs"), "0"));
            let _gone = fs::remove_dir(group);
        }
    }
}
