//! What /proc says of processes and their descendants.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A process and everything below it, zombies left out.
pub fn family(of: u32) -> BTreeSet<u32> {
    let mut parents = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if let Some((state, parent)) = state_and_parent(pid)
            && state != 'Z'
        {
            parents.insert(pid, parent);
        }
    }
    let mut found = BTreeSet::from([of]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The state letter and the parent of a process that exists.
pub fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let mut fields = stat.rsplit(')').next()?.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process runs or could: neither gone nor a zombie.
pub fn alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Whether no thread of these processes runs or could.
pub fn asleep<'a>(pids: impl IntoIterator<Item = &'a u32>) -> bool {
    let mut tasks =
        pids.into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
    tasks.all(|task| {
        let stat = task.and_then(|task| fs::read_to_string(task.path().join("stat"))).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
    })
}

/// Context switches of all threads of these processes, voluntary and not, by thread.
pub fn switches<'a>(pids: impl IntoIterator<Item = &'a u32>) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for pid in pids {
        for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let numbers = status.lines().filter(|line| line.contains("ctxt_switches"));
            let count = numbers.filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok()).sum();
            all.insert(label(&task.path(), &status), count);
        }
    }
    all
}

fn label(task: &Path, status: &str) -> String {
    let name = status.lines().find_map(|line| line.strip_prefix("Name:")).unwrap_or("").trim();
    format!("{name} ({})", task.file_name().unwrap_or_default().to_string_lossy())
}
