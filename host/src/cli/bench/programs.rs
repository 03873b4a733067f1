//! `pillbox bench programs`: whole programs, natively and in a sandbox, from execve to their end.
//!
//! Each is a shell command in a directory of files made for it; what this machine has no program for is left out. A
//! command runs natively first, then in a new sandbox. The best of some runs counts: the first one warms caches up. Under
//! instruction counting the times are instructions, idle ones included.

use super::{Bench, json, say};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs of each, on either side.
const RUNS: usize = 3;
/// Directories of small files, and files in each.
const DIRS: usize = 15;
const FILES: usize = 20;

/// A command and what it needs to be there.
struct Program {
    name: &'static str,
    needs: &'static [&'static str],
    command: &'static str,
}

/// A program's row, in nanoseconds.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    native: u64,
    ours: u64,
    ratio: f64,
    /// The ratio without what an empty sandbox takes.
    beyond_start: f64,
}

const PROGRAMS: &[Program] = &[
    Program { name: "start", needs: &["true"], command: "true" },
    Program { name: "python", needs: &["python3"], command: "python3 -c 'import json, asyncio, decimal'" },
    Program { name: "find", needs: &["find"], command: "find /usr /lib /etc" },
    Program { name: "grep", needs: &["grep"], command: "grep -r 'file 1' ." },
    Program { name: "cat", needs: &["cat"], command: "cat */f*" },
    Program { name: "commands", needs: &["cp"], command: SHELL },
    Program { name: "sort", needs: &["sort"], command: "sort numbers" },
    Program { name: "sqlite", needs: &["python3"], command: SQLITE },
    Program { name: "tar", needs: &["tar", "gzip"], command: "tar cf - . | gzip -1" },
    Program { name: "git", needs: &["git"], command: GIT },
    Program { name: "make", needs: &["make", "sed"], command: "cp -r make $OWN/m && make -s -C $OWN/m" },
    Program { name: "shm", needs: &["rm"], command: SHM },
];

const SHELL: &str = "i=0; while [ $i -lt 25 ]; do /bin/true; /bin/echo $i; i=$((i+1)); done";
const SQLITE: &str = "python3 -c 'import os, sqlite3
db = sqlite3.connect(os.environ[\"OWN\"] + \"/db\")
db.execute(\"create table t(a, b)\")
for i in range(20000): db.execute(\"insert into t values(?, ?)\", (i, str(i)))
db.commit()'";
const GIT: &str = "cp -r . $OWN/g && cd $OWN/g && git init -q . && git add d1* && \
    git -c user.name=a -c user.email=b commit -q -m c && git status";
const SHM: &str = "d=/dev/shm/pillbox-$$; mkdir $d; for i in 0 1 2 3 4 5 6 7 8; do for j in a b c d e; do \
    echo $i >$d/$i$j; read x <$d/$i$j; done; done; rm -r $d";

impl Bench {
    /// Measures the programs that this machine has and prints a row for each.
    pub(super) fn programs(&self, as_json: bool) -> Result<(), String> {
        let files = Files::make()?;
        if !as_json {
            say(&format!(
                "{:<8} {:>14} {:>14} {:>7} {:>13}\n",
                "", "native", "ours", "ratio", "beyond start"
            ));
        }
        let mut start = 0;
        for program in PROGRAMS.iter().filter(|program| program.needs.iter().all(|name| is_here(name))) {
            let (mut native, mut ours) = (u64::MAX, u64::MAX);
            for _ in 0..RUNS {
                native = native.min(files.time(shell(), program.command)?);
                ours = ours.min(files.time(self.sandbox(), program.command)?);
            }
            start = if start == 0 { ours } else { start };
            let row = Row {
                name: program.name,
                native,
                ours,
                ratio: ours as f64 / native as f64,
                beyond_start: ours.saturating_sub(start) as f64 / native as f64,
            };
            say(&if as_json { json(&row) } else { table(&row) });
        }
        Ok(())
    }

    /// A shell in a sandbox.
    fn sandbox(&self) -> Command {
        let mut command = Command::new(&self.pillbox);
        command.args(["do", "--cpus", "1", "--platform", &self.platform, "--", "sh"]);
        command
    }
}

fn shell() -> Command {
    Command::new("sh")
}

fn table(row: &Row) -> String {
    let Row { name, native, ours, ratio, beyond_start } = row;
    format!("{name:<8} {native:>14} {ours:>14} {ratio:>7.2} {beyond_start:>13.2}\n")
}

fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// A directory of files to work on; removed in the end.
struct Files(PathBuf);

impl Files {
    fn make() -> Result<Self, String> {
        let files = Files(std::env::temp_dir().join(format!("pillbox-bench-{}", std::process::id())));
        files.fill().map_err(|error| format!("{}: {error}", files.0.display()))?;
        Ok(files)
    }

    fn fill(&self) -> std::io::Result<()> {
        let write = |path: &Path, text: &str| std::fs::write(path, text);
        for dir in 0..DIRS {
            let dir = self.0.join(format!("d{dir}"));
            std::fs::create_dir_all(&dir)?;
            for file in 0..FILES {
                write(&dir.join(format!("f{file}")), &format!("a line of file {file}\n").repeat(1 + file))?;
            }
        }
        let numbers: Vec<String> = (0..20_000u64).map(|n| (n * 7919 % 20_011).to_string()).collect();
        write(&self.0.join("numbers"), &numbers.join("\n"))?;
        let make = self.0.join("make");
        std::fs::create_dir_all(&make)?;
        let targets: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
        for target in &targets {
            write(&make.join(format!("{target}.in")), "a template: @name@\n")?;
        }
        let rules = "\nt%: t%.in\n\tsed s/@name@/$@/ $< >$@\n";
        write(&make.join("Makefile"), &format!("all: {}\n{rules}", targets.join(" ")))
    }

    /// Runs a command to its end and returns how long it took.
    fn time(&self, mut shell: Command, command: &str) -> Result<u64, String> {
        let own = self.0.with_extension("own");
        std::fs::create_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
        // The shell changes the directory: std would fork for that, and the arena is not there in forked children.
        shell.arg("-c").arg(format!("cd $FILES && {command}"));
        shell.env("FILES", &self.0).env("OWN", &own).env("HOME", &own);
        let start = Instant::now();
        let ran = shell.stdin(Stdio::null()).stdout(Stdio::null()).status();
        let taken = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        std::fs::remove_dir_all(&own).map_err(|error| format!("{}: {error}", own.display()))?;
        match ran {
            Ok(status) if status.success() => Ok(taken),
            Ok(status) => Err(format!("{command}: {status}")),
            Err(error) => Err(format!("{command}: {error}")),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // What cannot be removed stays.
        let _left = std::fs::remove_dir_all(&self.0);
    }
}
