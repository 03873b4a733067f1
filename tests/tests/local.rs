//! Steps on this machine end in time, whatever they leave behind.
//!
//! One test, because all that descends from the process that runs steps is killed at the end of each.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use tests::arch::Arch;
use tests::cases::{Place, Verdict};
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

    compared_again();
}

/// A comparison that fails once is made again, and passes if it was Linux that did the one thing and the other.
fn compared_again() {
    let dir = std::env::temp_dir().join(format!("pillbox-again-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory for files");
    let (pillbox, runs) = (dir.join("pillbox"), dir.join("runs"));
    std::fs::write(&pillbox, "#!/bin/sh\n# do --platform NAME -- COMMAND\nshift 4\nexec \"$@\"\n")
        .expect("a file");
    std::fs::set_permissions(&pillbox, PermissionsExt::from_mode(0o755)).expect("its mode");
    let place = Place {
        pillbox: pillbox.display().to_string(),
        platform: String::new(),
        arch: Arch::HOST,
        programs: String::new(),
    };
    // By turns natively and in the sandbox; every case begins anew.
    let script = |late: &str| {
        let runs = runs.display();
        format!("echo >>{runs}; n=$(wc -l <{runs}); case $n in {late}) echo late;; *) echo soon;; esac")
    };
    let verdict = |late: &str| {
        std::fs::write(&runs, "").expect("a file");
        let case = place.same("runs", &["/bin/sh", "-c", &script(late)]);
        let mut told = None;
        let deadline = Instant::now() + Duration::from_secs(100);
        place.run_here(&[case], deadline, |_, verdict| told = Some(verdict));
        told.expect("a verdict")
    };
    assert!(matches!(verdict("none"), Verdict::Holds));
    assert!(
        matches!(verdict("1"), Verdict::Unsteady(why) if why.contains("is \"soon\" instead of \"late\""))
    );
    assert!(matches!(verdict("2"), Verdict::Fails(_)), "it was the sandbox");
    assert!(matches!(verdict("2|4"), Verdict::Fails(_)), "it was the sandbox, twice");
    std::fs::remove_dir_all(&dir).expect("it can go");
}
