//! What `--platform=auto` remembers of a device: for how long, and whom it believes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fuse::Hanging;

/// Nobody.
const STRANGER: u32 = 65534;

/// A directory for one check; gone when dropped.
struct Runtime(PathBuf);

impl Drop for Runtime {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Runs a sandbox, and returns what its log says of the device and how long it took. The user is told the same line on
/// standard error, or, if he was `told` before, nothing; none: who knows.
fn auto(
    pillbox: &str,
    device: &str,
    runtime: &Path,
    told: Option<bool>,
) -> Result<(String, Duration), String> {
    let log = runtime.join("log");
    let _old = fs::remove_file(&log);
    let start = Instant::now();
    let output = Command::new(pillbox)
        .args(["do", "--kvm-device", device, "--debug-log"])
        .arg(&log)
        .args(["--", "/bin/true"])
        .env("XDG_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{pillbox}: {e}"))?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let text = fs::read_to_string(&log).map_err(|e| format!("{}: {e}", log.display()))?;
    let line = text.lines().find(|line| line.contains(device) && line.contains("running on systrap"));
    let line = line.ok_or_else(|| format!("{}: not logged: {text}", output.status))?.trim_start();
    let heard: Vec<&str> = said.lines().map(|line| line.trim_start_matches("pillbox: ")).collect();
    let right = told.is_none_or(|told| heard.len() == usize::from(!told));
    if !output.status.success() || !right || !heard.iter().all(|said| line.ends_with(said)) {
        return Err(format!("{}: the log has {line:?}, the user got {said:?}", output.status));
    }
    Ok((line.to_owned(), took))
}

/// Checks that a verdict is kept, and that only our own is believed.
pub(crate) fn check(pillbox: &str) -> Result<(), String> {
    let runtime = Runtime(std::env::temp_dir().join(format!("pillbox-verdict-{}", std::process::id())));
    fs::create_dir_all(&runtime.0).map_err(|e| e.to_string())?;
    {
        let device = Hanging::new()?;
        let (first, slow) = auto(pillbox, &device.path(), &runtime.0, Some(false))?;
        let (second, fast) = auto(pillbox, &device.path(), &runtime.0, Some(true))?;
        println!("a device that hangs: {} ms, then {} ms: {second}", slow.as_millis(), fast.as_millis());
        if first != second {
            return Err(format!("the reason changes: {first}"));
        }
        // Requests are served one after the other: this one after all that were made before.
        let _absent = fs::metadata(format!("{}-absent", device.path()));
        if device.opened() != 1 {
            return Err(format!("it was tried {} times", device.opened()));
        }
    }
    let device = "/dev/null";
    auto(pillbox, device, &runtime.0, Some(false))?;
    let directory = runtime.0.join("pillbox");
    let metadata = fs::metadata(&directory).map_err(|e| e.to_string())?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!("others may look into it: {:o}", metadata.permissions().mode()));
    }
    let file = fs::read_dir(&directory)
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("verdict_dev_null"))
        .ok_or("nothing was kept")?;
    // A verdict of somebody's choice: believed if it is our own, otherwise not.
    let marked = "rejected by a mark";
    let key = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let key = key.lines().next().unwrap_or_default();
    fs::write(&file, format!("{key}\n{marked}\n")).map_err(|e| e.to_string())?;
    let (own, _) = auto(pillbox, device, &runtime.0, Some(false))?;
    std::os::unix::fs::chown(&directory, Some(STRANGER), Some(STRANGER)).map_err(|e| e.to_string())?;
    let (strangers, _) = auto(pillbox, device, &runtime.0, None)?;
    std::os::unix::fs::chown(&directory, Some(metadata.uid()), None).map_err(|e| e.to_string())?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
    let (open, _) = auto(pillbox, device, &runtime.0, None)?;
    println!("ours: {own}\na stranger's: {strangers}\nopen to all: {open}");
    let believed = |line: &str| line.contains("by a mark");
    match (believed(&own), believed(&strangers), believed(&open)) {
        (true, false, false) => Ok(()),
        other => Err(format!("believed (ours, a stranger's, anybody's): {other:?}")),
    }
}
