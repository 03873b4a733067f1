//! Programs that try to freeze, crash or exhaust a sandbox, and the cage in which they do it.
//!
//! | command | what |
//! |---|---|
//! | `hold cage SECONDS MIB TASKS CMD...` | outside: runs CMD with limits and a deadline, and sees that nothing is left of it |
//! | `hold storm NAME COUNT SLOWER` | inside: COUNT processes attack; another one's heartbeat goes on, and SIGKILL ends them; on a machine SLOWER times slower than a usual one |
//! | `hold core` | inside: a process that ends in a way that a host might leave a core file of |
//! | `hold forks [N]` | inside: forks until there are no more tasks to be had; not fewer than N |
//! | `hold memory` | inside: a child takes memory until it is killed |
//! | `hold fill WHAT` | inside: makes files, names, links or attributes until there is no place |
//! | `hold hoard WHAT` | inside: a child fills pipes, streams, datagrams or messages until it is killed |
//! | `hold churn WHAT` | inside: makes mounts, alarms or senders and lets go of them, and nothing stays |
//! | `hold shares` | inside, as root: a user takes all that he gets of what there are only so many of, and root finds some |
//! | `hold soak SECONDS [ATTACK]...` | inside, as the first process: everything at once, or these attacks, and nothing is lost |
//! | `hold soaked CMD...` | outside: CMD soaks; what it has of the host is counted at both ends |
//! | `hold misses` | inside: looks for names that are not there |
//! | `hold decoy MIB CMD...` | outside: holds memory while CMD runs beside it |
//! | `hold stubborn CMD...` | outside: CMD's standard input keeps whoever writes to it, most of the time |
//! | `hold silent CMD...` | outside: CMD sees a file that nobody can read, for its host does not answer |
//! | `hold log` | inside: tries to undo what is in the file that standard output appends to |
//! | `hold storms` | the attacks there are |
//!
//! An attack is a function in a table: a new one is a line in [`storm::ATTACKS`] and one in the cases.

#[macro_use]
#[expect(unsafe_code, reason = "system calls are the subject of this program")]
mod sys;

mod bounds;
mod cage;
mod churn;
#[expect(unsafe_code, reason = "a frame is loaded and code jumped to that are nobody's")]
mod forge;
mod fuse;
mod host;
mod length;
#[expect(unsafe_code, reason = "memory by its address")]
mod memory;
mod nested;
mod shares;
mod silence;
mod soak;
mod spaces;
mod storm;
mod times;

use std::process::ExitCode;

const USAGE: &str = "usage: hold cage SECONDS MIB TASKS CMD... | decoy MIB CMD... | stubborn CMD... | silent CMD... | storm NAME COUNT SLOWER | core \
    | forks [N] | memory | fill WHAT | hoard WHAT | churn WHAT | shares | soak SECONDS [ATTACK]... | soaked CMD... | misses | log | storms";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["cage", seconds, mib, tasks, command @ ..] if !command.is_empty() => {
            return cage::run([seconds, mib, tasks], command);
        }
        ["storm", name, count, slower] => storm::run(name, count, slower),
        ["core"] => forge::core(),
        ["memory"] => bounds::memory(),
        ["fill", what] => bounds::fill(what),
        ["misses"] => bounds::misses(),
        ["decoy", mib, command @ ..] if !command.is_empty() => bounds::decoy(mib, command),
        ["stubborn", command @ ..] if !command.is_empty() => host::stubborn(command),
        ["hoard", what] => bounds::hoard(what),
        ["churn", what] => churn::churn(what),
        ["shares"] => shares::shares(),
        ["soak", seconds, attacks @ ..] => soak::soak(seconds, attacks),
        ["soaked", command @ ..] if !command.is_empty() => soak::watch(command),
        ["silent", command @ ..] if !command.is_empty() => host::silent(command),
        ["forks"] => bounds::forks(None),
        ["forks", least] => bounds::forks(Some(least)),
        ["log"] => log(),
        ["storms"] => {
            storm::ATTACKS.iter().for_each(|attack| println!("{}", attack.name));
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("hold: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what came of cutting the log off in every way, and then something behind what it held.
fn log() -> Result<(), String> {
    let open =
        |flags| sys!(libc::SYS_openat, libc::AT_FDCWD, c"/proc/self/fd/1".as_ptr(), libc::O_WRONLY | flags);
    let tries = [sys!(libc::SYS_ftruncate, 1, 0), open(0), open(libc::O_TRUNC | libc::O_APPEND)];
    let named = tries.map(|result| if result == -i64::from(libc::EPERM) { "EPERM" } else { "done" });
    println!("{}", named.join(" "));
    let (at, text) = (0, b"after\n");
    match sys!(libc::SYS_pwrite64, 1, text.as_ptr(), text.len(), at) {
        6 => Ok(()),
        other => Err(format!("pwrite: {other}")),
    }
}
