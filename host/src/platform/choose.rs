//! Which platform: kvm where it works, else systrap.
//!
//! A /dev/kvm may be missing, closed to this user, or there and unable to run ring-0 code (emulated and broken ones
//! exist, some of which hang). So kvm is *tried*: `pillbox self-test` runs in a child with a deadline, and nobody waits
//! for a child that even SIGKILL does not end. The verdict is kept for the boot in a private directory.

use super::kvm::Kvm;
use super::systrap::Systrap;
use super::{Platform, systrap};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The device that `--platform=auto` and `kvm` use.
pub const DEVICE: &str = "/dev/kvm";

/// How long the self-test may take. `doctor` promises to end within three seconds.
const DEADLINE: Duration = Duration::from_millis(2400);

/// How long it may take when the user insists on kvm: a busy machine must not be taken for a broken one.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a verdict that only the clock gave is believed.
const DOUBT: Duration = Duration::from_secs(60);

/// The detail of a step that the deadline ended.
pub const OUT_OF_TIME: &str = "did not end in time";

/// How the detail of a step begins in which the test itself ended.
pub const DIED: &str = "the test process died";

/// What a reason holds if the device is closed to this user: rights change without the device changing.
pub const NO_PERMISSION: &str = "permission denied";

/// What is known about a KVM device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The self-test passed.
    Usable,
    /// There is no device.
    Absent,
    /// There is one, and why it is not used.
    Rejected(String),
}

/// A line of the self-test.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tried {
    /// The step.
    pub step: String,
    /// Whether it passed.
    pub ok: bool,
    /// Its time, or what went wrong.
    pub detail: String,
}

/// What there is to say of a KVM device that was there and is not used.
pub struct Rejected {
    /// The line.
    pub line: String,
    /// This user has not been told since the machine was started.
    pub new: bool,
}

/// The platform for `--platform=auto`, and what there is to say of a KVM device.
///
/// # Errors
/// One line that says why neither platform works.
pub fn auto(device: &Path, workers: usize) -> Result<(Arc<dyn Platform>, Option<Rejected>), String> {
    let (verdict, cache) = verdict(device);
    let reason = match verdict {
        Verdict::Usable => match Kvm::new(device, workers) {
            Ok(kvm) => return Ok((Arc::new(kvm), None)),
            Err(error) => error.to_string(),
        },
        Verdict::Absent => return Ok((systrap()?, None)),
        Verdict::Rejected(reason) => reason,
    };
    let line = format!("{} is not used ({reason}); running on systrap", device.display());
    let new = cache.is_none_or(|cache| cache.tell(&line));
    Ok((systrap()?, Some(Rejected { line, new })))
}

/// The platform for `--platform=kvm`.
///
/// # Errors
/// One line that says why it does not work.
pub fn kvm(device: &Path, workers: usize) -> Result<Arc<dyn Platform>, String> {
    let (mut verdict, _) = verdict(device);
    if matches!(&verdict, Verdict::Rejected(reason) if is_out_of_time(reason)) {
        verdict = examine_and_remember(device, PATIENCE).0;
    }
    match verdict {
        Verdict::Rejected(reason) => Err(reason),
        // An absent device has its own words there.
        Verdict::Absent | Verdict::Usable => Kvm::new(device, workers)
            .map(|kvm| Arc::new(kvm) as Arc<dyn Platform>)
            .map_err(|error| error.to_string()),
    }
}

/// The platform for `--platform=systrap`.
///
/// # Errors
/// One line that says why it does not work.
pub fn systrap() -> Result<Arc<dyn Platform>, String> {
    if let Some(reason) = systrap::unusable() {
        return Err(reason.to_owned());
    }
    match Systrap::new() {
        Ok(systrap) => Ok(Arc::new(systrap)),
        Err(errno) => Err(format!("cannot start stub processes: {errno}")),
    }
}

/// What is known about the device, from the cache or by trying; and the cache, if there can be one.
fn verdict(device: &Path) -> (Verdict, Option<Cache>) {
    let metadata = match std::fs::metadata(device) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return (Verdict::Absent, None),
        Err(error) => return (Verdict::Rejected(error.to_string()), None),
    };
    let cache = Cache::open(device, &metadata);
    if let Some(known) = cache.as_ref().and_then(Cache::read) {
        return (known, cache);
    }
    let (verdict, _) = examine(device, DEADLINE);
    if let Some(cache) = &cache {
        cache.write(&verdict);
    }
    (verdict, cache)
}

/// Tries the device within the time that `doctor` has, whatever the cache says, and puts the outcome there.
pub fn examine_now(device: &Path) -> (Verdict, Vec<Tried>) {
    examine_and_remember(device, DEADLINE)
}

fn examine_and_remember(device: &Path, deadline: Duration) -> (Verdict, Vec<Tried>) {
    let (verdict, steps) = examine(device, deadline);
    if let Some(cache) = std::fs::metadata(device).ok().and_then(|metadata| Cache::open(device, &metadata)) {
        cache.write(&verdict);
    }
    (verdict, steps)
}

fn examine(device: &Path, deadline: Duration) -> (Verdict, Vec<Tried>) {
    match std::fs::metadata(device) {
        Err(error) if error.kind() == ErrorKind::NotFound => return (Verdict::Absent, Vec::new()),
        _ => (),
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(["self-test", "--kvm-device"]).arg(device);
    let (failure, steps) = try_out(command, deadline);
    (failure.map_or(Verdict::Usable, Verdict::Rejected), steps)
}

/// Runs the self-test of systrap the same way.
pub fn examine_systrap() -> (Option<String>, Vec<Tried>) {
    let mut command = Command::new("/proc/self/exe");
    command.args(["self-test", "--platform", "systrap"]);
    try_out(command, DEADLINE)
}

/// Closes the jail of a sandbox in a child, and says what of it holds on this machine.
pub fn examine_jail() -> Vec<Tried> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["self-test", "--jail"]);
    match try_out(command, DEADLINE) {
        (Some(detail), steps) if steps.is_empty() => {
            vec![Tried { step: "all of it".to_owned(), ok: false, detail }]
        }
        (_, steps) => steps,
    }
}

/// Runs a self-test with a deadline. Says what went wrong, if anything, and what each step said.
fn try_out(mut command: Command, deadline: Duration) -> (Option<String>, Vec<Tried>) {
    let end = Instant::now() + deadline;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return (Some(format!("cannot start the self-test: {error}")), Vec::new()),
    };
    let (receive, errors) = match (listen(child.stdout.take()), listen(child.stderr.take())) {
        (Ok(out), Ok(errors)) => (out, errors),
        (Err(error), _) | (_, Err(error)) => {
            let _gone = child.kill();
            return (Some(format!("cannot start a thread: {error}")), Vec::new());
        }
    };
    let mut text = Vec::new();
    let finished = loop {
        match receive.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(bytes) => text.extend_from_slice(&bytes),
            Err(mpsc::RecvTimeoutError::Disconnected) => break true,
            Err(mpsc::RecvTimeoutError::Timeout) => break false,
        }
    };
    let status = if finished { reap(&mut child, Duration::from_millis(200)) } else { None };
    if status.is_none() {
        let _gone = child.kill();
        // Long enough for a child that can be killed; the others are left to init.
        let _unkillable = reap(&mut child, Duration::from_millis(200));
    }
    let text = String::from_utf8_lossy(&text);
    let said = if finished { last_words(&errors) } else { String::new() };
    let died = match status {
        Some(status) => format!("{DIED} ({status}){said}"),
        None => DIED.to_owned(),
    };
    let steps = parse(&text, if finished { &died } else { OUT_OF_TIME });
    let failure = match (steps.iter().find(|step| !step.ok), status) {
        (Some(step), _) => Some(format!("self-test: {}: {}", step.step, step.detail)),
        (None, Some(status)) if status.success() => None,
        (None, Some(status)) => Some(format!("the self-test ended with {status}{said}")),
        (None, None) => Some(format!("the self-test {OUT_OF_TIME} ({:.1} s)", deadline.as_secs_f32())),
    };
    (failure, steps)
}

/// What a child writes, as it comes. A thread of its own reads it, which may never come back if the child cannot be killed: it
/// ends with the process.
fn listen(from: Option<impl Read + Send + 'static>) -> std::io::Result<mpsc::Receiver<Vec<u8>>> {
    let (send, receive) = mpsc::channel::<Vec<u8>>();
    std::thread::Builder::new().name("self-test".to_owned()).spawn(move || {
        let Some(mut from) = from else { return };
        let mut buffer = [0; 1024];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if send.send(buffer[..len].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(receive)
}

/// What a child that has ended complained of: the first line that says something, which is a panic's message or a reason of
/// ours.
fn last_words(errors: &mpsc::Receiver<Vec<u8>>) -> String {
    const MOST: usize = 4096;
    let mut text = Vec::new();
    while let Ok(bytes) = errors.recv_timeout(Duration::from_millis(200)) {
        text.extend_from_slice(&bytes);
        if text.len() > MOST {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text);
    match text.lines().find(|line| !line.trim().is_empty()) {
        Some(line) => format!(": {}", line.trim().chars().take(300).collect::<String>()),
        None => String::new(),
    }
}

/// Whether a device was rejected for being slow only.
fn is_out_of_time(reason: &str) -> bool {
    reason.contains(OUT_OF_TIME)
}

/// Waits for a child, but not longer than `patience`.
fn reap(child: &mut std::process::Child, patience: Duration) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}

/// The child's lines: step, tab, `ok` or `failed`, tab, detail. The last one may lack its end, for this reason.
fn parse(text: &str, end: &str) -> Vec<Tried> {
    let mut steps = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, '\t');
        let step = fields.next().unwrap_or_default().to_owned();
        let (ok, detail) = match (fields.next(), fields.next()) {
            (Some("ok"), detail) => (true, detail.unwrap_or_default().to_owned()),
            (Some("failed"), detail) => (false, detail.unwrap_or_default().to_owned()),
            _ => (false, end.to_owned()),
        };
        steps.push(Tried { step, ok, detail });
    }
    if steps.is_empty() && end == OUT_OF_TIME {
        steps.push(Tried {
            step: "opening the device".to_owned(),
            ok: false,
            detail: OUT_OF_TIME.to_owned(),
        });
    }
    steps
}

/// One verdict on disk: valid for this boot, this device and this binary.
struct Cache {
    file: PathBuf,
    key: String,
}

impl Cache {
    fn open(device: &Path, metadata: &Metadata) -> Option<Self> {
        let boot = crate::hostsys::told::text("/proc/sys/kernel/random/boot_id")?;
        let binary = std::fs::metadata("/proc/self/exe").ok()?;
        let kind = if metadata.file_type().is_char_device() { "device" } else { "file" };
        let key = format!(
            "{} {} {kind} {:x} {} {} {} {:x} {} {} {}.{}",
            boot.trim(),
            device.display(),
            metadata.rdev(),
            metadata.ino(),
            metadata.ctime(),
            metadata.ctime_nsec(),
            binary.dev(),
            binary.ino(),
            binary.size(),
            binary.mtime(),
            binary.mtime_nsec(),
        );
        // One file per device, so that a test with another does not throw this machine's away.
        let name: String = device
            .to_string_lossy()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
            .collect();
        Some(Cache { file: private_directory()?.join(format!("verdict{name}")), key })
    }

    fn read(&self) -> Option<Verdict> {
        let mut text = String::new();
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&self.file).ok()?;
        let age = file.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        file.take(4096).read_to_string(&mut text).ok()?;
        let (key, verdict) = text.split_once('\n')?;
        match verdict.trim_end().split_once(' ') {
            _ if key != self.key => None,
            None if verdict.trim_end() == "usable" => Some(Verdict::Usable),
            Some(("rejected", reason)) if is_out_of_time(reason) && age.is_none_or(|age| age > DOUBT) => None,
            Some(("rejected", reason)) => Some(Verdict::Rejected(reason.to_owned())),
            _ => None,
        }
    }

    /// Notes that this line is said; whether it was not said before in this boot. One said too often does no harm.
    fn tell(&self, line: &str) -> bool {
        let boot = self.key.split(' ').next().unwrap_or_default();
        let (file, text) = (self.file.with_extension("said"), format!("{boot} {line}\n"));
        let mut known = String::new();
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&file);
        let read = opened.and_then(|file| file.take(4096).read_to_string(&mut known));
        if read.is_ok() && known == text {
            return false;
        }
        self.put(&file, &text);
        true
    }

    /// Best effort: without a cache, start-up is slower.
    fn write(&self, verdict: &Verdict) {
        let text = match verdict {
            Verdict::Usable => "usable".to_owned(),
            Verdict::Rejected(reason) => format!("rejected {}", reason.replace('\n', " ")),
            Verdict::Absent => return,
        };
        if text.contains(NO_PERMISSION) {
            return;
        }
        self.put(&self.file, &format!("{}\n{text}\n", self.key));
    }

    /// Replaces a file of it at once.
    fn put(&self, file: &Path, text: &str) {
        let temporary = self.file.with_extension(std::process::id().to_string());
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&temporary).and_then(|mut new: File| new.write_all(text.as_bytes()));
        if written.and_then(|()| std::fs::rename(&temporary, file)).is_err() {
            let _none = std::fs::remove_file(&temporary);
        }
    }
}

/// A directory that belongs to this user and that nobody else can write.
fn private_directory() -> Option<PathBuf> {
    let user = std::fs::metadata("/proc/self").ok()?.uid();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("pillbox"));
    let system = (user == 0).then(|| PathBuf::from("/run/pillbox"));
    let shared = std::env::temp_dir().join(format!("pillbox-{user}"));
    [runtime, system, Some(shared)].into_iter().flatten().find(|dir| is_private(dir, user))
}

fn is_private(dir: &Path, user: u32) -> bool {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => true,
        Err(error) if error.kind() != ErrorKind::AlreadyExists => false,
        Err(_) => std::fs::symlink_metadata(dir)
            .is_ok_and(|found| found.is_dir() && found.uid() == user && found.mode() & 0o022 == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cache, DOUBT, OUT_OF_TIME, Verdict, is_private, parse, try_out};
    use std::fs::File;

    #[test]
    fn the_last_step_without_an_end_is_the_one_that_hangs() {
        let text = "user code reached\tok\t12 us\npage fault\t";
        let steps = parse(text, OUT_OF_TIME);
        assert_eq!((steps.len(), steps[0].ok, steps[1].ok), (2, true, false));
        assert_eq!(steps[1].detail, "did not end in time");
        assert_eq!(parse(text, "it died")[1].detail, "it died");
        assert!(parse("", "it died").is_empty());
    }

    #[test]
    fn a_self_test_that_dies_says_of_what() {
        let run = |script: &str| {
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", script]);
            try_out(command, std::time::Duration::from_secs(60))
        };
        let (failure, steps) =
            run("printf 'one\\tok\\t1 us\\ntwo\\t'; echo >&2; echo the reason >&2; kill -SEGV $$");
        let failure = failure.unwrap();
        assert!(
            steps[0].ok
                && !steps[1].ok
                && failure.starts_with("self-test: two: the test process died (signal: 11")
        );
        assert!(failure.ends_with(": the reason"), "{failure}");
        let (failure, steps) = run("echo no memory >&2; exit 3");
        assert_eq!(failure.as_deref(), Some("the self-test ended with exit status: 3: no memory"));
        assert!(steps.is_empty());
        assert_eq!(run("printf 'one\\tok\\t1 us\\n'").0, None);
    }

    #[test]
    fn a_verdict_is_kept_for_the_same_key_only() {
        let dir = std::env::temp_dir().join(format!("pillbox-choose-{}", std::process::id()));
        // Of a process that had this id before.
        let _none = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let cache = Cache { file: dir.join("v"), key: "a b c".to_owned() };
        assert_eq!(cache.read(), None);
        // What only the clock said holds for a while.
        let slow = Verdict::Rejected(format!("self-test: a step: {OUT_OF_TIME}"));
        cache.write(&slow);
        assert_eq!(cache.read(), Some(slow));
        let file = File::options().write(true).open(&cache.file).unwrap();
        file.set_modified(std::time::SystemTime::now() - DOUBT * 2).unwrap();
        assert_eq!(cache.read(), None);
        for verdict in [Verdict::Rejected("broken\nthing".to_owned()), Verdict::Usable] {
            cache.write(&verdict);
            let expected = match verdict {
                Verdict::Rejected(_) => Verdict::Rejected("broken thing".to_owned()),
                other => other,
            };
            assert_eq!(cache.read(), Some(expected));
        }
        assert_eq!(Cache { file: dir.join("v"), key: "other".to_owned() }.read(), None);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn directories_of_others_are_not_trusted() {
        let dir = std::env::temp_dir().join(format!("pillbox-private-{}", std::process::id()));
        let _none = std::fs::remove_file(&dir).or_else(|_| std::fs::remove_dir(&dir));
        let user = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
        assert!(is_private(&dir, user) && is_private(&dir, user));
        assert!(!is_private(&dir, user + 1));
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(!is_private(&dir, user));
        std::fs::remove_dir(&dir).unwrap();
        std::os::unix::fs::symlink("/root", &dir).unwrap();
        assert!(!is_private(&dir, user));
        std::fs::remove_file(&dir).unwrap();
    }
}
