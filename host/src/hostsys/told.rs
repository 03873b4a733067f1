//! What the host says of itself in /proc and /sys. It is read here and nowhere else, once, at start: the jail has neither.

use std::os::unix::fs::MetadataExt;

/// The text of a file; none where there is no such file, or it is not for us.
pub fn text(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Writes a setting; whether the host has taken it.
pub fn set(path: &str, value: &str) -> bool {
    std::fs::write(path, value).is_ok()
}

/// The tasks of a user, as far as they can be seen; none where /proc cannot.
pub fn tasks_of(uid: u32) -> Option<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        // One link for each thread, beside the directory's own two.
        let tasks = std::fs::metadata(entry.path().join("task"));
        count += tasks.ok().filter(|tasks| tasks.uid() == uid).map_or(0, |tasks| tasks.nlink() - 2);
    }
    Some(count)
}
