//! Debuggers inside: strace and gdb, where this machine has them, over a small program with its symbols.

use super::{Case, Place, case};
use std::path::Path;
use std::process::{Command, Stdio};

/// What is compiled.
const PROGRAM: &str = include_str!("debuggee.c");

/// Addresses, process numbers and the threads' handles differ from run to run.
const STEADY: &str = r"sed -E 's/0x[0-9a-f]+/ADDRESS/g; s/\(LWP [0-9]+\)/(LWP)/g; s/process [0-9]+/process/g; s/tid [0-9]+/tid/g; s/expected=[0-9]+/expected/; s/ +/ /g'";

/// Which calls are made, how programs end, and how many there are. What one thread reads while another writes is not told.
const STRACE: &str = r#"strace -f -o "$1/strace.$$" sh -c '/bin/true; ls / | cat >/dev/null; kill -USR1 $$' ;
    echo "ends with $?"
    sed -E 's/^[0-9]+ +//' "$1/strace.$$" | grep -oE '^[a-z0-9_]+\(' | sort -u
    grep -cE ' execve\(' "$1/strace.$$"
    grep -oE '\+\+\+ .*' "$1/strace.$$" | sort
    rm "$1/strace.$$""#;

/// Breakpoints, steps, frames, variables that are changed, threads.
const GDB: &str = "-ex 'break main' -ex run -ex bt -ex next -ex next -ex 'break add if b == 2' -ex c -ex bt \
    -ex 'print a' -ex finish -ex 'set var total = 40' -ex 'break thread' -ex c -ex 'info threads' -ex 'bt 1' -ex stepi \
    -ex 'print $_siginfo.si_signo' -ex 'info program' -ex 'delete' -ex 'catch syscall write' -ex c -ex c -ex c";

const WATCH: &str =
    "-ex 'set can-use-hw-watchpoints 0' -ex 'break main' -ex run -ex 'watch total' -ex c -ex c -ex kill";

const ATTACH: &str = "-ex 'bt -3' -ex 'print total' -ex 'set var total = 77' -ex detach";

/// A program is killed where it waits, and looked at afterwards.
const DUMPED: &str = r#"d=$(mktemp -d) && cd "$d" && mkfifo pipe && ulimit -c unlimited || exit 1
    $PROGRAM wait < pipe & pid=$!; exec 3> pipe
    until grep -q '^State:.S' /proc/$pid/status; do :; done
    kill -SEGV $pid; wait $pid; echo ended $?
    gdb -q -nx -batch -ex 'set debuginfod enabled off' -ex bt -ex 'print total' -ex 'info proc' $PROGRAM core 2>&1
    cd /; rm -r "$d""#;

/// What is said of it.
const EXPECTED: [&str; 6] = [
    "ended 139",
    "terminated with signal SIGSEGV",
    "wait_for_input ()",
    "main (argc=2",
    "$1 = 8",
    "debuggee",
];

fn there(program: &str) -> Result<(), String> {
    let found = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    found.map(drop).map_err(|_| format!("there is no {program}"))
}

/// Compiles what the debuggers look at, into `directory`.
fn compile(directory: &Path) -> Result<String, String> {
    let (source, program) = (directory.join("debuggee.c"), directory.join("debuggee"));
    std::fs::write(&source, PROGRAM).map_err(|error| error.to_string())?;
    let output =
        Command::new("gcc").args(["-g", "-O0", "-pthread"]).arg(&source).arg("-o").arg(&program).output();
    match output {
        Ok(output) if output.status.success() => Ok(program.to_string_lossy().into_owned()),
        Ok(output) => Err(format!("gcc cannot: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("gcc: {error}")),
    }
}

/// The cases, and why there are no others.
pub fn debuggers(place: &Place, directory: &Path) -> (Vec<Case>, Vec<String>) {
    let (mut cases, mut missing) = (Vec::new(), Vec::new());
    let shell = |script: String| ["/bin/sh".to_owned(), "-c".to_owned(), script];
    match there("strace") {
        Ok(()) => {
            let script = STRACE.replace("$1", "/tmp");
            cases.push(place.same("strace follows a shell and its children", &shell(script)));
        }
        Err(why) => missing.push(why),
    }
    match there("gdb").and_then(|()| compile(directory)) {
        Ok(program) => {
            let gdb = |commands: &str, rest: &str| {
                format!(
                    "gdb -q -nx -batch -ex 'set debuginfod enabled off' {commands} {rest} 2>&1 </dev/null | {STEADY}"
                )
            };
            cases.push(place.same("gdb: breakpoints, steps, threads", &shell(gdb(GDB, &program))));
            cases.push(place.same("gdb: a watchpoint by single steps", &shell(gdb(WATCH, &program))));
            let attach = gdb(&format!("-p $pid {ATTACH}"), "").replace("2>&1", "2>/dev/null");
            let script = format!(
                "mkfifo /tmp/debuggee.$$ && {{ {program} wait < /tmp/debuggee.$$ & pid=$!; exec 3> /tmp/debuggee.$$; \
                 until grep -q '^State:.S' /proc/$pid/status; do :; done; {attach} | grep -E 'main|total|= '; \
                 exec 3>&-; wait $pid; echo ended $?; rm /tmp/debuggee.$$; }}"
            );
            cases.push(place.same("gdb attaches, looks, changes and leaves", &shell(script)));
            // Natively core files may be called otherwise, or nobody's.
            let dumped = place.sandboxed(&shell(DUMPED.replace("$PROGRAM", &program)));
            cases.push(case("gdb reads a core dump", dumped, |got| {
                let said = String::from_utf8_lossy(&got.stdout);
                let missing = EXPECTED.iter().find(|line| !said.contains(*line));
                missing.map_or(Ok(()), |line| Err(format!("no {line:?} in {said:?}")))
            }));
        }
        Err(why) => missing.push(why),
    }
    (cases, missing)
}
