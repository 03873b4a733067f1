//! A device that is there and closed to whoever runs `pillbox`, and then is not.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Nobody.
pub(crate) const USER: u32 = 65534;
/// The device's group, which is nobody's.
const GROUP: u32 = 4242;

/// A directory for one check; gone when dropped.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Checks what a user is told who may not open the device, and that the group's members are not told so.
pub(crate) fn check(pillbox: &str) -> Result<(), String> {
    let directory = Directory(std::env::temp_dir().join(format!("pillbox-closed-{}", std::process::id())));
    let (program, device) = (directory.0.join("pillbox"), directory.0.join("kvm"));
    prepare(&directory, pillbox).map_err(|e| format!("{}: {e}", directory.0.display()))?;
    let run = |group: u32, arguments: &[&str]| {
        Command::new(&program)
            .args(arguments)
            .arg("--kvm-device")
            .arg(&device)
            .args(if arguments[0] == "do" { &["--", "/bin/true"][..] } else { &[] })
            // A directory of its own for verdicts, whoever was here before.
            .env("XDG_RUNTIME_DIR", directory.0.join("runtime"))
            .current_dir("/")
            .uid(USER)
            .gid(group)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())
    };
    let denied = format!("permission denied: {}", device.display());

    let doctor = run(USER, &["doctor"])?;
    let table = String::from_utf8_lossy(&doctor.stdout);
    for part in
        ["kvm: not usable", &denied, "what to do: add yourself to the device's group", "usermod -aG kvm"]
    {
        if !table.contains(part) {
            return Err(format!("doctor does not say {part:?}: {table}"));
        }
    }
    if !doctor.status.success() || !table.contains("--platform=auto runs programs on systrap") {
        return Err(format!("doctor: {}: {table}", doctor.status));
    }
    expect("kvm", &run(USER, &["do", "--platform", "kvm"])?, 125, &[&denied, "join its group"], &[])?;
    let auto = ["do", "--platform", "auto"];
    expect("auto", &run(USER, &auto)?, 0, &[&denied, "running on systrap"], &[])?;
    let again = run(USER, &auto)?;
    if !again.status.success() || !again.stderr.is_empty() {
        return Err(format!("told twice: {}", String::from_utf8_lossy(&again.stderr)));
    }
    // Nothing has changed but who asks. (It is no KVM all the same.)
    expect("auto in the group", &run(GROUP, &auto)?, 0, &["running on systrap"], &["permission"])
}

/// A program that anybody may run and a device that only its group may open.
fn prepare(directory: &Directory, pillbox: &str) -> std::io::Result<()> {
    let mode = |path: &PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    fs::create_dir(&directory.0)?;
    mode(&directory.0, 0o755)?;
    fs::copy(pillbox, directory.0.join("pillbox"))?;
    mode(&directory.0.join("pillbox"), 0o755)?;
    fs::create_dir(directory.0.join("runtime"))?;
    chown(directory.0.join("runtime"), Some(USER), Some(USER))?;
    fs::write(directory.0.join("kvm"), "")?;
    mode(&directory.0.join("kvm"), 0o660)?;
    chown(directory.0.join("kvm"), Some(0), Some(GROUP))
}

/// The status, and one line on standard error with these parts and without those.
fn expect(what: &str, got: &Output, status: i32, parts: &[&str], without: &[&str]) -> Result<(), String> {
    let said = String::from_utf8_lossy(&got.stderr);
    let holds = got.status.code() == Some(status)
        && said.lines().count() == 1
        && parts.iter().all(|part| said.contains(part))
        && !without.iter().any(|part| said.contains(part));
    println!("{what}: {}", said.trim_end());
    if holds { Ok(()) } else { Err(format!("{what}: {}, {said}", got.status)) }
}
