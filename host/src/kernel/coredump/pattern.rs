//! What a core file is called (core(5), "Naming of core dump files").

use super::super::Current;
use super::super::limits;
use crate::abi::{Errno, Result};
use crate::sync::{Lock, Rank};
use core::sync::atomic::{AtomicBool, Ordering};

/// Longest pattern, and longest that a name becomes by it, with its end (`CORENAME_MAX_SIZE`).
const PATTERN_MAX: usize = 128;

/// Settings of the whole system.
pub struct Settings {
    /// `/proc/sys/kernel/core_pattern`.
    pattern: Lock<Vec<u8>>,
    /// `/proc/sys/kernel/core_uses_pid`.
    pub uses_pid: AtomicBool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { pattern: Lock::new(Rank::CorePattern, b"core".to_vec()), uses_pid: AtomicBool::new(false) }
    }
}

impl Settings {
    /// What names are made by.
    pub fn pattern(&self) -> Vec<u8> {
        self.pattern.lock().clone()
    }

    /// Replaces it: by the first line of `text`, as far as there is room.
    ///
    /// # Errors
    /// EINVAL for a program that is to be given the dump.
    pub fn set_pattern(&self, text: &[u8]) -> Result<()> {
        let end = text.iter().position(|byte| matches!(byte, b'\n' | 0)).unwrap_or(text.len());
        let pattern = &text[..end.min(PATTERN_MAX - 1)];
        if pattern.first() == Some(&b'|') {
            return Err(Errno::EINVAL);
        }
        *self.pattern.lock() = pattern.to_vec();
        Ok(())
    }
}

/// What the letters of a pattern stand for.
struct Words {
    /// %p, %i: in the process's own pid namespace.
    numbers: (i32, i32),
    /// %P, %I: in the first one.
    ids: (i32, i32),
    /// %u, %g.
    owner: (u32, u32),
    signo: i32,
    /// Seconds since the epoch.
    time: u64,
    host: Vec<u8>,
    comm: Vec<u8>,
    /// %E, and the last part of it %f.
    exe: Vec<u8>,
    limit: u64,
    cpu: usize,
}

impl Words {
    fn of(&self, letter: u8) -> Vec<u8> {
        let number = |number: i64| number.to_string().into_bytes();
        match letter {
            b'%' => b"%".to_vec(),
            b'p' => number(self.numbers.0.into()),
            b'i' => number(self.numbers.1.into()),
            b'P' => number(self.ids.0.into()),
            b'I' => number(self.ids.1.into()),
            b'u' => number(self.owner.0.into()),
            b'g' => number(self.owner.1.into()),
            // Who is not dumped by his own user is not dumped at all.
            b'd' => b"1".to_vec(),
            b's' => number(self.signo.into()),
            b't' => self.time.to_string().into_bytes(),
            b'c' => self.limit.to_string().into_bytes(),
            b'C' => self.cpu.to_string().into_bytes(),
            b'h' => component(&self.host),
            b'e' => component(&self.comm),
            b'f' => component(self.exe.rsplit(|byte| *byte == b'/').next().unwrap_or_default()),
            b'E' => component(&self.exe),
            _ => Vec::new(),
        }
    }

    fn name(&self, pattern: &[u8], uses_pid: bool) -> Vec<u8> {
        let (mut name, mut says_pid) = (Vec::new(), false);
        let mut rest = pattern.iter();
        while let Some(&byte) = rest.next() {
            match byte {
                b'%' => {
                    let Some(letter) = rest.next() else { break };
                    says_pid |= *letter == b'p';
                    name.extend(self.of(*letter));
                }
                _ => name.push(byte),
            }
        }
        if uses_pid && !says_pid {
            name.extend(format!(".{}", self.numbers.0).into_bytes());
        }
        name
    }
}

/// What others choose names no other directory, and is not empty (cn_esc_printf).
fn component(text: &[u8]) -> Vec<u8> {
    match text {
        b"" | b"." => b"!".to_vec(),
        b".." => b"!.".to_vec(),
        _ => text.iter().map(|byte| if *byte == b'/' { b'!' } else { *byte }).collect(),
    }
}

impl Current {
    /// What the file is to be called when signal `signo` ends the process.
    pub(super) fn core_name(&self, signo: i32) -> Vec<u8> {
        let (task, cred) = (&self.task, self.cred());
        let exe = task.resources.lock().exe.clone();
        let host = task.uts().lock().hostname.clone();
        let exe = exe.map(|exe| exe.display(&self.fs().root()));
        let words = Words {
            numbers: (task.group.number, task.number()),
            ids: (task.tgid(), task.tid()),
            owner: (cred.uid.real, cred.gid.real),
            signo,
            time: crate::time::realtime_ns() / crate::time::NSEC_PER_SEC,
            host,
            comm: task.comm(),
            exe: exe.unwrap_or_default(),
            limit: self.limit(limits::CORE),
            cpu: task.last_cpu(),
        };
        let settings = &self.kernel.core;
        words.name(&settings.pattern(), settings.uses_pid.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, Settings, Words};

    fn words() -> Words {
        Words {
            numbers: (7, 8),
            ids: (70, 80),
            owner: (1000, 100),
            signo: 11,
            time: 1_700_000_000,
            host: b"box".to_vec(),
            comm: b"a/b".to_vec(),
            exe: b"/usr/bin/a b".to_vec(),
            limit: 4096,
            cpu: 1,
        }
    }

    #[test]
    fn letters() {
        let words = words();
        let name = |pattern: &str, pid| String::from_utf8(words.name(pattern.as_bytes(), pid)).unwrap();
        assert_eq!(name("core", false), "core");
        assert_eq!(name("core", true), "core.7");
        assert_eq!(name("core.%p", true), "core.7");
        assert_eq!(name("/tmp/%p-%i-%P-%I-%u-%g-%d-%s-%t", false), "/tmp/7-8-70-80-1000-100-1-11-1700000000");
        assert_eq!(name("%h %e %f %E %c %C", false), "box a!b a b !usr!bin!a b 4096 1");
        assert_eq!(name("%%x%Q%", false), "%x");
        assert_eq!(name("", true), ".7");
        // A percent sign and a letter.
        assert_eq!(name("%%p", true), "%p.7");
    }

    #[test]
    fn names_of_programs_lead_nowhere_else() {
        for (comm, shown) in [(".", "!"), ("..", "!."), ("", "!"), ("../x", "..!x")] {
            let words = Words { comm: comm.into(), ..words() };
            assert_eq!(words.name(b"%e", false), shown.as_bytes(), "{comm}");
        }
    }

    #[test]
    fn patterns() {
        let settings = Settings::default();
        assert_eq!(settings.pattern(), b"core");
        settings.set_pattern(b"/tmp/%e\nmore").unwrap();
        assert_eq!(settings.set_pattern(b"|/bin/x\n"), Err(Errno::EINVAL));
        assert_eq!(settings.pattern(), b"/tmp/%e");
        settings.set_pattern(&[b'x'; 500]).unwrap();
        assert_eq!(settings.pattern().len(), 127);
    }
}
