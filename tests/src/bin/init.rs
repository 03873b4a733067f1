//! Process 1 of a test guest: mounts what there is, loads KVM, runs the steps it is ordered to run, and
//! sends their output and status through a serial port of its own.
//!
//! It never polls: under instruction counting every instruction of its own would be counted as the
//! measured program's.

use std::error::Error;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::CWD;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{Pid, Signal, chdir, chroot, kill_process_group};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tests::guest::frames::{self, Frame};
use tests::guest::job::{JOB_PATH, Job, PAYLOAD, Step, TIMED_OUT};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Port = Arc<Mutex<File>>;

/// How long output may come after its step has ended, from processes it left behind.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How long what was written may take through the port, with all writers killed (but for those that made themselves a
/// session of their own).
const ON_ITS_WAY: Duration = Duration::from_secs(20);

fn main() {
    let outcome = mount_early().and_then(|()| {
        let job = read_job()?;
        let port = open_port(&job.channel)?;
        let done = carry_out(&job, &port);
        let last = match &done {
            Ok(()) => Frame::End,
            Err(error) => Frame::Failed(error.to_string()),
        };
        send(&port, &last);
        done
    });
    if let Err(error) = outcome {
        eprintln!("init: {error}");
    }
    // The harness ends the machine when it has read the last frame; this is for those who boot by hand.
    let _ = reboot(RebootCommand::PowerOff);
    loop {
        thread::park();
    }
}

fn mount_early() -> Result<()> {
    mount_at("devtmpfs", "/dev")
}

fn mount_at(kind: &str, target: &str) -> Result<()> {
    fs::create_dir_all(target)?;
    mount(kind, target, kind, MountFlags::empty(), None)
        .map_err(|e| format!("mounting {kind} on {target}: {e}").into())
}

fn read_job() -> Result<Job> {
    let text = fs::read(JOB_PATH).map_err(|e| format!("{JOB_PATH}: {e}"))?;
    Ok(serde_json::from_slice(&text)?)
}

fn open_port(path: &str) -> Result<Port> {
    let mut port =
        OpenOptions::new().read(true).write(true).open(path).map_err(|e| format!("{path}: {e}"))?;
    let mut termios = tcgetattr(&port)?;
    termios.make_raw();
    // Where the line's speed is not just a number.
    termios.set_speed(115_200)?;
    tcsetattr(&port, OptionalActions::Now, &termios)?;
    frames::start(&mut port)?;
    Ok(Arc::new(Mutex::new(port)))
}

fn send(port: &Port, frame: &Frame) {
    let mut port = port.lock().unwrap_or_else(PoisonError::into_inner);
    // There is nobody left to tell if this fails.
    let _ = frames::send(&mut *port, frame);
    let _ = port.flush();
}

fn carry_out(job: &Job, port: &Port) -> Result<()> {
    for module in &job.modules {
        let (path, parameters) = (&module.path, CString::new(module.parameters.as_str())?);
        let file = File::open(path).map_err(|e| format!("{path}: {e}"))?;
        finit_module(&file, &parameters, 0)
            .map_err(|e| format!("loading {path} with {:?}: {e}", module.parameters))?;
    }
    enter_root(job.disk.as_deref())?;
    if job.disk.is_none() {
        let install = ["--install", "-s", "/bin"];
        Command::new("/bin/busybox").args(install).status()?;
    }
    for step in &job.steps {
        let status = run(step, port)?;
        send(port, &Frame::Done(status));
    }
    Ok(())
}

/// Makes the payload, or the disk with the payload copied onto it, the root directory. The initramfs
/// itself would not do: nothing can pivot away from it.
fn enter_root(disk: Option<&str>) -> Result<()> {
    let root = match disk {
        None => {
            mount_bind(PAYLOAD, PAYLOAD)?;
            PAYLOAD
        }
        Some(disk) => {
            fs::create_dir_all("/disk")?;
            mount(disk, "/disk", "ext4", MountFlags::empty(), None)
                .map_err(|e| format!("mounting {disk}: {e}"))?;
            copy_tree(Path::new(PAYLOAD), Path::new("/disk"))?;
            "/disk"
        }
    };
    for (kind, at) in [
        ("devtmpfs", "dev"),
        ("devpts", "dev/pts"),
        ("tmpfs", "dev/shm"),
        ("proc", "proc"),
        ("sysfs", "sys"),
        ("debugfs", "sys/kernel/debug"),
        ("cgroup2", "sys/fs/cgroup"),
        ("tmpfs", "tmp"),
        ("tmpfs", "run"),
    ] {
        mount_at(kind, &format!("{root}/{at}"))?;
    }
    chdir(root)?;
    mount_move(".", "/")?;
    chroot(".")?;
    chdir("/")?;
    rustix::fs::chmodat(CWD, "/tmp", rustix::fs::Mode::from_raw_mode(0o1777), rustix::fs::AtFlags::empty())?;
    for (name, number) in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")] {
        std::os::unix::fs::symlink(format!("/proc/self/fd{number}"), format!("/dev/{name}"))?;
    }
    rustix::system::sethostname(b"guest")?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            copy_tree(&source, &target)?;
        } else if target.symlink_metadata().is_ok() && source.starts_with(format!("{PAYLOAD}/etc")) {
            // The disk's own configuration is the fuller one.
        } else if kind.is_symlink() {
            let _ = fs::remove_file(&target);
            std::os::unix::fs::symlink(fs::read_link(&source)?, &target)?;
        } else {
            let _ = fs::remove_file(&target);
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

fn run(step: &Step, port: &Port) -> Result<i32> {
    let Some((program, arguments)) = step.argv.split_first() else {
        return Ok(0);
    };
    let stdin = match &step.stdin {
        Some(path) => Stdio::from(File::open(path).map_err(|e| format!("{path}: {e}"))?),
        None => Stdio::null(),
    };
    let spawned = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs([("PATH", "/usr/bin:/bin:/usr/sbin:/sbin"), ("HOME", "/root"), ("LANG", "C.UTF-8")])
        .envs(step.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            send(port, &Frame::Stderr(format!("{program}: {error}\n").into()));
            return Ok(127);
        }
    };
    let group = Pid::from_child(&child);

    let (closed, streams) = mpsc::channel::<()>();
    if let Some(stdout) = child.stdout.take() {
        relay(stdout, Frame::Stdout, port, &closed);
    }
    if let Some(stderr) = child.stderr.take() {
        relay(stderr, Frame::Stderr, port, &closed);
    }
    drop(closed);
    let (over, watch) = mpsc::channel::<()>();
    let watchdog = step.timeout.map(|seconds| {
        thread::spawn(move || {
            let late =
                watch.recv_timeout(Duration::from_secs(seconds)) == Err(mpsc::RecvTimeoutError::Timeout);
            if late {
                let _ = kill_process_group(group, Signal::KILL);
            }
            late
        })
    });
    let status = child.wait()?;
    drop(over);
    let late = watchdog.is_some_and(|watchdog| watchdog.join().unwrap_or(false));
    // Both streams close with the step, unless it left processes behind.
    let closed = streams.recv_timeout(STRAGGLERS) == Err(mpsc::RecvTimeoutError::Disconnected);
    let _ = kill_process_group(group, Signal::KILL);
    if !closed {
        let _ = streams.recv_timeout(ON_ITS_WAY);
    }
    Ok(match (late, status.code(), status.signal()) {
        (true, ..) => TIMED_OUT,
        (_, Some(code), _) => code,
        (_, _, signal) => 128 + signal.unwrap_or(0),
    })
}

/// Sends what comes out of `stream` until it closes. `closed` is dropped then.
fn relay(
    mut stream: impl Read + Send + 'static,
    frame: fn(Vec<u8>) -> Frame,
    port: &Port,
    closed: &mpsc::Sender<()>,
) {
    let (port, closed) = (Arc::clone(port), closed.clone());
    thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            send(&port, &frame(buffer[..length].to_vec()));
        }
        drop(closed);
    });
}
