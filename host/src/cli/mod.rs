//! The command line: one file per verb.
//!
//! Every failure is one line on stderr, `pillbox: what: on what: what to do`, and an exit status that cannot be
//! mistaken for the program's: 125 ours, 126 not executable, 127 not found.

use crate::oci;
use crate::sandbox::tell;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

mod bench;
mod box_options;
mod diff;
mod doctor;
mod image;
mod net_options;
mod pages;
mod run;
mod secrets;
mod selftest;
mod syscalls;

/// Exit status of our own failures.
pub(crate) const EXIT_OURS: u8 = 125;

const EXAMPLES: &str = "\
Examples:
  pillbox do -- ls -l /                    run a command over the host's files, changing none
  pillbox do --root ./rootfs -- /bin/sh    run in another root directory
  pillbox do --strace -- cat /etc/hostname print every system call, decoded
  pillbox do --stats -- make -j2           count VM exits, calls, faults and task switches
  pillbox syscalls                         which system calls work, and how well";

/// Runs unmodified Linux programs in a sandbox with a kernel of its own.
#[derive(Parser)]
#[command(name = "pillbox", version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    containers: oci::Global,
    #[command(subcommand)]
    verb: Verb,
}

// The arguments of one verb are made, not of all: that is most of what parsing costs. What a verb says of itself stands here:
// the doc comment of its arguments would take its place, so they have none.
#[derive(Subcommand)]
#[command(defer = true)]
enum Verb {
    /// Run a command in a new sandbox
    Do(Box<run::Args>),
    /// Run a command in a container with a name
    #[command(hide = true)]
    RunNamed(Box<run::Named>),
    /// List what a command has changed, as an archive of `do --save-diff` has it
    Diff(diff::Args),
    /// Measure small operations natively and in the sandbox
    Bench(bench::Args),
    /// Say what this machine offers, which platforms work, and what to do about the rest
    Doctor(doctor::Args),
    /// List the system calls and how well each is supported
    Syscalls(syscalls::Args),
    /// Print what a shell completes command lines by
    Completions(pages::Completions),
    /// Print a manual page
    Man(pages::Manual),
    /// Try a platform on this machine, step by step
    #[command(hide = true)]
    SelfTest(selftest::Args),
    /// Hold the rules about a sandbox's network: started by its sandbox only
    #[command(hide = true)]
    Warden,
    #[command(flatten)]
    Containers(oci::Verb),
}

/// Parses the command line, does what it says, and returns the process's exit status.
pub fn main() -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let run = run_verb(&words).filter(|at| oci::named::is_ours(&words[at + 1..]));
    if let Some(at) = run {
        words[at] = NAMED.into();
    }
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.verb {
        Verb::Do(args) => run::main(*args),
        Verb::RunNamed(args) => {
            run::named(&cli.containers, *args, words.split_off(run.map_or(words.len(), |at| at + 1)))
        }
        Verb::Diff(args) => diff::main(&args),
        Verb::Bench(args) => bench::main(&args),
        Verb::Doctor(args) => doctor::main(&args),
        Verb::Syscalls(args) => syscalls::main(&args),
        Verb::Completions(args) => pages::completions(&args),
        Verb::Man(args) => pages::manual(&args),
        Verb::SelfTest(args) => selftest::main(&args),
        Verb::Warden => {
            crate::sandbox::be_warden();
            ExitCode::SUCCESS
        }
        Verb::Containers(verb) => oci::main(&cli.containers, verb, run::plan),
    }
}

/// What `run` is called where it is not the one of engines.
const NAMED: &str = "run-named";

/// Where the verb stands, if that is `run`: behind options, some of which have values.
fn run_verb(words: &[OsString]) -> Option<usize> {
    words.iter().skip(1).find(|word| *word == "run")?;
    let all = Cli::command();
    let takes = |word: &str| {
        let option = all.get_opts().find(|option| option.get_long() == word.strip_prefix("--"));
        option.is_some_and(|option| option.get_action().takes_values())
    };
    let mut at = 1;
    loop {
        match words.get(at)?.to_str()? {
            "run" => return Some(at),
            word if !word.starts_with('-') => return None,
            word => at += if takes(word) { 2 } else { 1 },
        }
    }
}

/// Help and version go to stdout; a mistake is one line.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody is left to tell when stdout is gone.
            let _closed = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            fail("no command given; see 'pillbox --help'", EXIT_OURS)
        }
        _ => fail(&mistake(error), EXIT_OURS),
    }
}

/// A mistake on one line.
fn mistake(error: &clap::Error) -> String {
    let text = error.render().to_string();
    // clap explains over several paragraphs; the first one names the mistake, on one line or as a list.
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.trim_start_matches("error: ").to_owned();
    format!("{line}; see 'pillbox --help'")
}

/// Prints the one line that explains a failure and passes the status on.
pub(crate) fn fail(line: &str, status: u8) -> ExitCode {
    tell(line);
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::{Cli, Verb};
    use clap::{CommandFactory, Parser};

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from([&["pillbox"], words].concat())
    }

    fn command(words: &[&str]) -> Vec<String> {
        match parse(words).map(|c| c.verb) {
            Ok(Verb::Do(args)) => args.command.iter().map(|w| w.to_string_lossy().into_owned()).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_commands_own_flags_are_not_ours() {
        assert_eq!(command(&["do", "ls", "-l", "--stats"]), ["ls", "-l", "--stats"]);
        assert_eq!(command(&["do", "--stats", "--", "ls", "--", "-x"]), ["ls", "--", "-x"]);
        assert_eq!(command(&["do", "--", "-odd"]), ["-odd"]);
    }

    #[test]
    fn each_verb_says_what_it_does() {
        let mut all = Cli::command();
        let before: Vec<_> = all
            .get_subcommands()
            .map(|verb| (verb.get_name().to_owned(), verb.get_about().cloned()))
            .collect();
        // Makes the arguments of all.
        all.build();
        for (name, about) in before {
            let after = all.find_subcommand(&name).and_then(|verb| verb.get_about().cloned());
            assert_eq!(about.map(|text| text.to_string()), after.map(|text| text.to_string()), "{name}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        assert!(parse(&["do", "--bogus", "ls"]).is_err());
        assert!(parse(&["do", "--platform", "magic", "ls"]).is_err());
        assert!(parse(&["do", "--env", "=VALUE", "ls"]).is_err());
        assert!(parse(&["do", "--timeout", "soon", "ls"]).is_err());
        assert!(parse(&["do", "--cpus", "0", "ls"]).is_err());
        assert!(parse(&["do"]).is_err());
    }
}
