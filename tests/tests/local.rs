//! Steps on this machine end in time, whatever they leave behind.
//!
//! One test, because all that descends from the process that runs steps is killed at the end of each.

use std::time::{Duration, Instant};

use tests::guest::{Step, job::TIMED_OUT};
use tests::local;

fn shell(script: &str) -> Step {
    Step::new(["/bin/sh", "-c", script])
}

#[test]
fn steps_end_in_time() {
    let within = |script: &str, limit| local::run(&shell(script), limit).expect("the shell starts");
    let (short, long) = (Duration::from_millis(500), Duration::from_secs(100));

    let usual = within("echo out; echo err >&2; exit 3", long);
    assert_eq!((usual.status, &*usual.stdout, &*usual.stderr), (3, &b"out\n"[..], &b"err\n"[..]));
    assert_eq!(within("kill -KILL $$", long).status, 137);

    // All of the group is stopped, as timeout(1) would be.
    let start = Instant::now();
    let stopped = within("echo out; kill -STOP 0", short);
    assert_eq!((stopped.status, &*stopped.stdout), (TIMED_OUT, &b"out\n"[..]));
    let said = String::from_utf8_lossy(&stopped.stderr);
    assert!(said.contains("sh T in "), "{said}");

    // Somebody whom nobody waits for holds the output.
    let orphan = within("setsid sleep 1000 & echo out; exit 0", short);
    assert_eq!((orphan.status, &*orphan.stdout), (TIMED_OUT, &b"out\n"[..]));
    let said = String::from_utf8_lossy(&orphan.stderr);
    assert!(said.contains(" sleep S in "), "{said}");
    assert!(start.elapsed() < long / 2);

    // Who holds nothing delays nobody, and is gone afterwards all the same.
    let quiet = within("setsid sleep 1000 >/dev/null 2>&1 & echo $!", long);
    assert_eq!(quiet.status, 0);
    let pid = String::from_utf8_lossy(&quiet.stdout).trim().parse().expect("a number");
    assert!(!tests::procs::alive(pid));
}
