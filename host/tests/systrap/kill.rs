//! Ends of processes: nobody waits for a dead stub, nobody is left behind, and nobody wakes up for nothing.

use crate::programs;
use crate::world::{Program, as_worker, platform};
use host::platform::{Platform, Trap};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Set in the environment of the process that [`sandbox`] starts.
const ROLE: &str = "PILLBOX_TEST_ROLE";
/// What takes longer never ends.
const PATIENCE: Duration = Duration::from_secs(100);

/// This test binary again, as a "sandbox" with three programs, one of them running.
fn sandbox() -> std::process::Child {
    let exe = std::env::current_exe().expect("this program");
    Command::new(exe)
        .args(["--exact", "kill::the_sandbox_of_the_other_tests", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

#[test]
fn the_sandbox_of_the_other_tests() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    as_worker(|_| {
        let mut parked: Vec<Program> = (0..3).map(|_| Program::new(programs::null_calls())).collect();
        parked.iter_mut().for_each(|program| assert_eq!(program.run_on(), Trap::Syscall));
        // Blocked in the kernel, as a `sleep` is; one program runs.
        let mut spinning = Program::new(programs::spin());
        match std::env::var(ROLE).as_deref() {
            Ok("idle") => std::thread::sleep(Duration::from_secs(600)),
            _ => assert_eq!(spinning.run_on(), Trap::Dead),
        }
    });
    std::process::exit(3);
}

/// All descendants of a process, from /proc.
fn descendants(pid: u32) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let (state, parent) = (fields.next(), fields.next().and_then(|f| f.parse::<u32>().ok()));
        if parent == Some(pid) && state != Some("Z") {
            found.extend(entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
        }
    }
    found
}

fn kill(pid: i32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill");
    assert!(status.success());
}

fn alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
}

/// Waits until `holds`; fails where a machine cannot be as busy as that.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits for the sandbox to have its zygote, its four stubs and the spare, and all of them at rest but one that runs.
fn family(child: &std::process::Child, running: usize) -> Vec<i32> {
    let mut family = Vec::new();
    until("six processes", || {
        family = descendants(child.id());
        let rest = family.len() == 6 && family.iter().filter(|pid| asleep(**pid)).count() == 6 - running;
        std::thread::sleep(Duration::from_millis(300));
        rest && descendants(child.id()) == family
    });
    family
}

/// Whether no thread of a process runs or could.
fn asleep(pid: i32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .map(|task| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default())
        .all(|stat| stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('S'))
}

/// Clock ticks that a process has run.
fn user_time(pid: i32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.nth(11).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// (How soon is what `probe kill` looks at.)
fn gone(pids: &[i32]) {
    until("left behind", || !pids.iter().any(|pid| alive(*pid)));
}

#[test]
fn killing_the_sandbox_leaves_no_stub() {
    let mut child = sandbox();
    let family = family(&child, 1);
    child.kill().expect("kill");
    child.wait().expect("wait");
    gone(&family);
}

#[test]
fn killing_the_zygote_ends_the_sandbox() {
    let mut child = sandbox();
    let family = family(&child, 1);
    let zygote = *family.iter().min().expect("the zygote");
    kill(zygote);
    let mut status = None;
    until("the sandbox goes on", || {
        status = child.try_wait().expect("wait");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(125));
    gone(&family);
}

#[test]
fn killing_the_running_stub_is_its_programs_death() {
    let mut child = sandbox();
    let family = family(&child, 1);
    // Starting takes no such time.
    let mut running = 0;
    until("a stub that runs", || {
        running = *family.iter().max_by_key(|pid| user_time(**pid)).expect("a stub");
        user_time(running) >= 50
    });
    kill(running);
    let status = child.wait().expect("wait");
    assert_eq!(status.code(), Some(3));
    gone(&family);
}

#[test]
fn spaces_and_threads_can_be_made_and_dropped_many_times() {
    for _ in 0..200 {
        let mut program = Program::new(programs::null_calls());
        assert_eq!(program.run_on(), Trap::Syscall);
        let mut thread = program.thread(program.regs.rip, program.regs.rsp - 4096);
        assert_eq!(thread.run_on(), Trap::Syscall);
    }
    assert_eq!(platform().name(), "systrap");
}

/// Context switches of all threads of a process, voluntary and not.
fn switches(pid: i32) -> u64 {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let mut sum = 0;
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        sum += status
            .lines()
            .filter(|line| line.contains("ctxt_switches"))
            .filter_map(|line| line.split_whitespace().last()?.parse::<u64>().ok())
            .sum::<u64>();
    }
    sum
}

#[test]
fn an_idle_sandbox_does_not_switch() {
    let exe = std::env::current_exe().expect("this program");
    let mut child = Command::new(exe)
        .args(["--exact", "kill::the_sandbox_of_the_other_tests"])
        .env(ROLE, "idle")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a child");
    let mut all = family(&child, 0);
    all.push(child.id() as i32);
    until("the sandbox at rest", || {
        let before: u64 = all.iter().map(|pid| switches(*pid)).sum();
        let asleep = all.iter().all(|pid| asleep(*pid));
        std::thread::sleep(Duration::from_millis(700));
        asleep && all.iter().map(|pid| switches(*pid)).sum::<u64>() == before
    });
    let before: u64 = all.iter().map(|pid| switches(*pid)).sum();
    std::thread::sleep(Duration::from_secs(10));
    let after: u64 = all.iter().map(|pid| switches(*pid)).sum();
    child.kill().expect("kill");
    child.wait().expect("wait");
    assert_eq!(after, before);
    gone(&all[..all.len() - 1]);
}
