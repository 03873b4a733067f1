//! Shells, pipes, statuses, and the checks that the micro-benchmarks make of their own results.

use super::{Case, Place, TIMEOUT, case, ends_well, gives, succeeds};
use crate::guest::Step;

const PIPELINE: &str = "for i in 1 2 3; do echo $i; done | sort -r | head -1; exit 7";

/// Patterns of core files, which are this sandbox's own: settings of the machine are nobody's to test with.
const CORES: &str = "s=/proc/sys/kernel; ulimit -c unlimited; mkdir /tmp/cores && cd /tmp/cores || exit 1
    cat $s/core_pattern $s/core_uses_pid
    (echo '|/bin/cat' > $s/core_pattern) 2>/dev/null; echo refused $?
    dies() { /bin/busybox sh -c 'echo $$ > pid; kill -SEGV $$' 2>/dev/null; echo $?; mv core.$(cat pid) core.PID 2>/dev/null; ls; rm -f *; }
    dies; echo 1 > $s/core_uses_pid; dies; echo /tmp/cores/%e.%s.%u%% > $s/core_pattern; echo 0 > $s/core_uses_pid; dies
    echo none/core > $s/core_pattern; dies; echo core.%p > $s/core_pattern; dies; cat $s/core_pattern";
const CORES_SAID: &str = "core\n0\nrefused 1\n139\ncore\npid\n139\ncore.PID\npid\n139\nbusybox.11.0%\npid\n\
    139\npid\n139\ncore.PID\npid\ncore.%p\n";

/// Cases that need nothing but busybox and our own programs.
pub fn small(place: &Place) -> Vec<Case> {
    let sh = |script| ["/bin/busybox", "sh", "-c", script];
    let mut cases = vec![
        place.gives("a pipeline of a shell", &sh(PIPELINE), "3\n", 7),
        place.gives("the status of a signal", &sh("kill -TERM $$"), "", 143),
        place.gives("core dumps are called as root says", &sh(CORES), CORES_SAID, 0),
        place.gives("the status of a program", &["/bin/busybox", "false"], "", 1),
        place.same("subshells and redirections", &sh(REDIRECTIONS)),
        place
            .same("background jobs", &sh("for i in 3 1 2; do (echo $i >/tmp/j$i) & done; wait; cat /tmp/j*")),
        place.same("a here-document", &sh("cat <<X | tr a-z A-Z\nhello\nX\n")),
        place.same("a trap", &sh("trap 'echo caught' USR1; kill -USR1 $$; echo after")),
        place.same("a checksum", &sh("dd if=/dev/zero bs=64k count=64 2>/dev/null | sha256sum")),
        place.same("find", &sh("find /etc /bin | sort")),
        place.same("stat", &sh("stat -c '%n %F %a %u %g' / /bin/busybox /etc/passwd /dev/null")),
        gives("a command that is not there", place.sandboxed(&["/bin/no-such-command"]), "", 127),
        gives("a file that is no program", place.sandboxed(&["/etc/passwd"]), "", 126),
        gives("a flag that is none", place.pillbox::<&str>(&["do", "--bogus"], &[]), "", 125),
    ];
    for operation in [
        "null", "read", "pipe", "futex", "mmap", "fault", "down", "cow", "fork", "exec", "thread", "signal",
        "clock", "tcp", "tcp16k", "stream", "connect", "udp",
    ] {
        let mb = place.program("mb");
        let step = place.sandboxed(&[mb.as_str(), "--n", "50", operation]);
        cases.push(case(&format!("mb {operation} gets right results"), step, |got| {
            succeeds(got)?;
            if got.stdout.is_empty() { Err("it says nothing".to_owned()) } else { Ok(()) }
        }));
    }
    cases.extend(super::abi(place));
    cases.extend(super::abi::on_a_volume(place));
    cases
}

/// What `do --hide` hides is hidden from root inside, too.
fn hidden(place: &Place) -> Case {
    const SCRIPT: &str = "umount /etc/apt; mkdir /tmp/q; mount --bind /etc /tmp/q; mount --rbind /etc /tmp/q
        mount --make-runbindable /etc; umount /tmp/q/apt; mount --move /etc/apt /tmp/q
        test -e /tmp/q/passwd && cat /etc/apt/* /tmp/q/apt/* | wc -c";
    let options = ["do", "--platform", &place.platform, "--hide", "/etc/apt", "--"];
    gives("what is hidden is hidden from root", place.pillbox(&options, &["/bin/sh", "-c", SCRIPT]), "0\n", 0)
}

/// The sandbox on its caller's terminal: a shell in it, and it as a job of a shell.
fn on_a_terminal(place: &Place) -> Vec<Case> {
    const BASH: [&str; 4] = ["/bin/bash", "--norc", "--noprofile", "-i"];
    let program = place.program("abi");
    let ours = [place.pillbox.as_str(), "do", "--platform", &place.platform, "--"];
    let step = |how: &str, command: &[&str], job: &str| {
        let words = [program.as_str(), "--child", how].into_iter().chain(command.iter().copied());
        let env = vec![("JOB".to_owned(), job.to_owned())];
        Step { env, ..Step::new(words).timeout(TIMEOUT) }
    };
    let copy = [program.as_str(), "--child", "copy"];
    let compared = |name: &str, ours: Step| {
        super::compared(name, step("drive", &BASH, &copy.join(" ")), ours, ends_well)
    };
    let changing = [&ours[..], &["/bin/sh", "-c", "stty raw -echo -isig rows 9; echo set; read x"]].concat();
    vec![
        compared(
            "an interactive bash on a terminal",
            step("drive", &[&ours[..], &BASH].concat(), &copy.join(" ")),
        ),
        compared(
            "a job of a bash on a terminal",
            step("drive", &BASH, &[&ours[..], &copy].concat().join(" ")),
        ),
        gives(
            "the terminal's settings come back",
            step("put-back", &changing, ""),
            "\"\": [\"set\"]\nchanged: true\n\"\\n\": []\nexited 0\nas before: true\n",
            0,
        ),
    ]
}

const REDIRECTIONS: &str = "cd /tmp && (echo one; echo two >&2) 2>err >out; cat out err; \
    { echo three; cat <out; } >>err; wc -l <err; echo x | (read a; echo got $a); rm out err; ls";

/// The least that must work on a board: a shell, its pipes, its children.
pub fn smoke(place: &Place) -> Vec<Case> {
    let sh = ["/bin/busybox", "sh", "-c", "uname -m; echo a | tr a b; (exit 3); echo $?"];
    vec![
        place.same("a shell", &sh),
        place.gives("a pipeline", &["/bin/busybox", "sh", "-c", PIPELINE], "3\n", 7),
    ]
}

/// What depends on how application code is run: for a second platform where all the rest is checked on another. (An
/// emulator takes milliseconds for what two processes that take turns do, so not what takes many turns.)
pub fn anywhere(place: &Place) -> Vec<Case> {
    let abi = place.program("abi");
    let mut cases = smoke(place);
    cases.extend(super::abi::families(place, &["process", "exceptions", "memory"]));
    cases.push(
        place.same("threads", &[&abi, "thread_locals", "thread_parallel_faults", "thread_fork_in_thread"]),
    );
    cases.extend(super::idle(place).into_iter().take(1));
    cases.extend(super::killed(place));
    cases
}

/// Cases for the machine at hand, whatever is installed on it.
pub fn here(place: &Place) -> Vec<Case> {
    let sh = |script| ["/bin/sh", "-c", script];
    let mut cases = vec![
        place.gives("a pipeline of a shell", &sh(PIPELINE), "3\n", 7),
        place.same("subshells and redirections", &sh(REDIRECTIONS_HERE)),
        place.gives("the status of a signal", &sh("kill -TERM $$"), "", 143),
        gives("a command that is not there", place.sandboxed(&["/bin/no-such-command"]), "", 127),
        gives("a flag that is none", place.pillbox::<&str>(&["do", "--bogus"], &[]), "", 125),
        hidden(place),
        secrets(place),
        examples(place),
        timeout(place),
        ignored(place),
    ];
    cases.extend(on_a_terminal(place));
    cases.extend(super::abi(place));
    cases.extend(super::abi::on_a_volume(place));
    cases
}

/// The caller's keys are hidden, unless they are asked for.
fn secrets(place: &Place) -> Case {
    const SCRIPT: &str = "export HOME=$(mktemp -d); mkdir -p $HOME/.ssh $HOME/.docker; echo key > $HOME/.ssh/id; \
        echo history > $HOME/.bash_history; echo login > $HOME/.docker/config.json; echo mine > $HOME/.profile; \
        show='cd; cat .profile .ssh/id .bash_history .docker/config.json 2>/dev/null; umount .ssh 2>/dev/null; ls .ssh'; \
        $0 do --platform $1 -- sh -c \"$show\"; echo --; $0 do --platform $1 --no-hide -- sh -c \"$show\"; rm -r $HOME";
    let step = Step::new(["/bin/sh", "-c", SCRIPT, &place.pillbox, &place.platform]).timeout(TIMEOUT);
    gives("the caller's keys are hidden", step, "mine\n--\nmine\nkey\nhistory\nlogin\nid\n", 0)
}

/// What `do --help` shows works as printed.
fn examples(place: &Place) -> Case {
    const SCRIPT: &str = "mkdir -p $1 && ln -sf $0 $1/pillbox && PATH=$1:$PATH && pillbox do --help | grep '^  pillbox do ' | \
        { n=0; while read -r line; do n=$((n+1)); sh -c \"$line\" </dev/null >/dev/null || exit 1; done; rm -r $1; echo $n; }";
    let dir = std::env::temp_dir().join(format!("pillbox-examples-{}", std::process::id()));
    let step =
        Step::new(["/bin/sh", "-c", SCRIPT, &place.pillbox, &dir.to_string_lossy()]).timeout(TIMEOUT * 2);
    gives("the examples of do's help work", step, "13\n", 0)
}

/// A command that does not end is ended, with all that it has started.
fn timeout(place: &Place) -> Case {
    let options = ["do", "--platform", &place.platform, "--timeout", "300ms", "--"];
    let command = ["/bin/sh", "-c", "trap '' TERM; echo up; sleep 600 & sleep 600"];
    case("a command that does not end in time", place.pillbox(&options, &command), |got| {
        let said = String::from_utf8_lossy(&got.stderr);
        let right = got.status == 137 && got.stdout == b"up\n" && said.contains("had not ended after 300ms");
        if right { Ok(()) } else { Err(format!("{got:?}")) }
    })
}

/// A caller's ignored signals are its program's, too (nohup(1)).
fn ignored(place: &Place) -> Case {
    const SCRIPT: &str = "trap '' HUP INT QUIT USR1; exec $0 do --platform $1 -- sh -c 'kill -USR1 $$; kill -HUP $$; \
        grep SigIgn /proc/self/status; trap - USR1; echo up'";
    let step = Step::new(["/bin/sh", "-c", SCRIPT, &place.pillbox, &place.platform]).timeout(TIMEOUT);
    gives("what the caller ignores is ignored", step, "SigIgn:\t0000000000000207\nup\n", 0)
}

const REDIRECTIONS_HERE: &str = "d=$(mktemp -d) && cd $d && (echo one; echo two >&2) 2>err >out; cat out err; \
    { echo three; cat <out; } >>err; wc -l <err; echo x | (read a; echo got $a); rm out err; ls; rmdir $d";

/// The script that [`debian`] runs, and where it must lie.
pub const SCRIPT_TEXT: &str = include_str!("script.sh");
/// See [`SCRIPT_TEXT`].
pub const SCRIPT: &str = "/root/script.sh";

/// Cases for a Debian user land.
pub fn debian(place: &Place) -> Vec<Case> {
    let mut cases = vec![
        place.same("bash, coreutils and python: one script", &["/bin/bash", SCRIPT]),
        place.same("dash", &["/bin/dash", "-c", "set -- a b c; for x; do printf '%s,' \"$x\"; done"]),
        place.same(
            "python with json",
            &["/usr/bin/python3", "-c", "import json; print(json.dumps({'a': [1, 2.5, None]}))"],
        ),
    ];
    cases.extend(on_a_terminal(place));
    cases
}
