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

/// Runs a sandbox, and returns its one line and how long it took.
fn auto(pillbox: &str, device: &str, runtime: &Path) -> Result<(String, Duration), String> {
    let start = Instant::now();
    let output = Command::new(pillbox)
        .args(["do", "--kvm-device", device, "--", "/bin/true"])
        .env("XDG_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{pillbox}: {e}"))?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    let lines = said.lines().count();
    if !output.status.success()
        || lines != 1
        || !said.contains("running on systrap")
        || !said.contains(device)
    {
        return Err(format!("{}, {lines} lines: {said}", output.status));
    }
    Ok((said, took))
}

/// Checks that a verdict is kept, and that only our own is believed.
pub(crate) fn check(pillbox: &str) -> Result<(), String> {
    let runtime = Runtime(std::env::temp_dir().join(format!("pillbox-verdict-{}", std::process::id())));
    fs::create_dir_all(&runtime.0).map_err(|e| e.to_string())?;
    {
        let device = Hanging::new()?;
        let (first, slow) = auto(pillbox, &device.path(), &runtime.0)?;
        let (second, fast) = auto(pillbox, &device.path(), &runtime.0)?;
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
    auto(pillbox, device, &runtime.0)?;
    let directory = runtime.0.join("pillbox");
    let metadata = fs::metadata(&directory).map_err(|e| e.to_string())?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(format!("others may look into it: {:o}", metadata.permissions().mode()));
    }
    let file = fs::read_dir(&directory)
        .map_err(|e| e.to_string())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("null"))
        .ok_or("nothing was kept")?;
    // A verdict of somebody's choice: believed if it is our own, otherwise not.
    let marked = "rejected by a mark";
    let key = fs::read_to_string(&file).map_err(|e| e.to_string())?;
    let key = key.lines().next().unwrap_or_default();
    fs::write(&file, format!("{key}\n{marked}\n")).map_err(|e| e.to_string())?;
    let (own, _) = auto(pillbox, device, &runtime.0)?;
    std::os::unix::fs::chown(&directory, Some(STRANGER), Some(STRANGER)).map_err(|e| e.to_string())?;
    let (strangers, _) = auto(pillbox, device, &runtime.0)?;
    std::os::unix::fs::chown(&directory, Some(metadata.uid()), None).map_err(|e| e.to_string())?;
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).map_err(|e| e.to_string())?;
    let (open, _) = auto(pillbox, device, &runtime.0)?;
    println!("ours: {own}\na stranger's: {strangers}\nopen to all: {open}");
    let believed = |line: &str| line.contains("by a mark");
    match (believed(&own), believed(&strangers), believed(&open)) {
        (true, false, false) => Ok(()),
        other => Err(format!("believed (ours, a stranger's, anybody's): {other:?}")),
    }
}
