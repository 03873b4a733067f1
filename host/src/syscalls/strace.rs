//! Decoded calls, one line each, in the order of their completion.
//!
//! [`before`] reads what the program passes, [`after`] what it gets back: a call may overwrite its own arguments
//! (`execve` does so with the whole address space). Everything here is lenient: what cannot be read is printed as
//! an address, because tracing must not change what the program sees.

use super::flags::{CLONE, OPEN, OPEN_MODES, POLL, SA, SOCK, SOCKET_TYPES};
use super::format::ArgFormat;
use super::{Args, Row};
use crate::abi::{Errno, Result};
use core::fmt::Write;
use core::mem::offset_of;
use linux_raw_sys::general::{clone_args, stat};
use text::{file_mode, first, flags, futex, mode_and_flags, one_of, pointer, quoted, signal, signals};

mod text;

/// Reads user memory; fails where it is not mapped.
pub(super) type Reader<'a> = &'a dyn Fn(u64, &mut [u8]) -> Result<()>;

/// Flags that make `open` use its mode: O_CREAT, and O_TMPFILE's own bit.
const CREATES: u64 = 0x40_0040;
/// Bytes of a buffer that are printed.
const SHOWN_BYTES: usize = 32;
/// Bytes of a path that are printed.
const SHOWN_PATH: usize = 256;
/// Elements of an array that are printed.
const SHOWN_ITEMS: usize = 8;

/// The arguments as they are when the call is made; `None` for those that only mean something afterwards.
pub(super) fn before(row: &Row, args: &Args, memory: Reader<'_>) -> Vec<Option<String>> {
    let printer = Printer { args, memory };
    row.format.iter().enumerate().map(|(index, format)| printer.input(*format, index)).collect()
}

/// The whole line of a finished call.
pub(super) fn after(
    tid: i32,
    row: &Row,
    args: &Args,
    given: Vec<Option<String>>,
    result: Result<u64>,
    memory: Reader<'_>,
) -> String {
    let printer = Printer { args, memory };
    let words: Vec<String> = given
        .into_iter()
        .zip(row.format)
        .enumerate()
        .map(|(index, (word, format))| word.unwrap_or_else(|| printer.output(*format, index, result)))
        .collect();
    let mut line = call(tid, row.name, &words);
    match result {
        Ok(value) if returns_address(row.name) || value > i64::MAX as u64 => {
            let _ = write!(line, " = {value:#x}");
        }
        Ok(value) => {
            let _ = write!(line, " = {value}");
        }
        Err(errno) => {
            let _ = write!(line, " = {}", failure(errno));
        }
    }
    line
}

/// The line of a call that does not return.
pub(super) fn without_return(tid: i32, row: &Row, given: Vec<Option<String>>) -> String {
    let words: Vec<String> = given.into_iter().map(Option::unwrap_or_default).collect();
    format!("{} = ?", call(tid, row.name, &words))
}

/// The line of a call that the table does not know.
pub(super) fn unknown(tid: i32, number: u64, args: &Args) -> String {
    let words: Vec<String> = args.0.iter().map(|value| format!("{value:#x}")).collect();
    format!("{} = -1 ENOSYS", call(tid, &format!("syscall_{number}"), &words))
}

fn call(tid: i32, name: &str, words: &[String]) -> String {
    // A word left out is empty.
    let shown: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    format!("[{tid:5}] {name}({})", shown.join(", "))
}

fn failure(errno: Errno) -> String {
    match errno {
        Errno::ERESTARTSYS | Errno::ERESTARTNOINTR | Errno::ERESTARTNOHAND | Errno::ERESTART_RESTARTBLOCK => {
            format!("? {errno} (interrupted)")
        }
        _ => format!("-1 {errno}"),
    }
}

fn returns_address(name: &str) -> bool {
    matches!(name, "mmap" | "mremap" | "brk" | "shmat")
}

struct Printer<'a> {
    args: &'a Args,
    memory: Reader<'a>,
}

impl Printer<'_> {
    fn input(&self, format: ArgFormat, index: usize) -> Option<String> {
        let value = self.args.0[index];
        Some(match format {
            ArgFormat::Int => (value as i32).to_string(),
            ArgFormat::Fd => (value as i32).to_string(),
            ArgFormat::Uint => (value as u32).to_string(),
            ArgFormat::Size => value.to_string(),
            ArgFormat::Hex => format!("{value:#x}"),
            ArgFormat::Mode => format!("0{:03o}", value as u32),
            ArgFormat::Ptr => pointer(value),
            ArgFormat::DirFd if value as i32 == -100 => "AT_FDCWD".to_owned(),
            ArgFormat::DirFd => (value as i32).to_string(),
            ArgFormat::Path | ArgFormat::Str => self.string(value, SHOWN_PATH),
            ArgFormat::InBuf(length) => self.bytes(value, self.args.size(length)),
            ArgFormat::InIov(count) => self.vectors(value, self.args.size(count), usize::MAX),
            ArgFormat::Flags(names) => flags(value, names),
            ArgFormat::OpenFlags => mode_and_flags(value, 3, OPEN_MODES, OPEN),
            ArgFormat::OpenMode if self.args.0[index - 1] & CREATES == 0 => String::new(),
            ArgFormat::OpenMode => format!("0{:03o}", value as u32),
            ArgFormat::SocketType => mode_and_flags(value, 0xf, SOCKET_TYPES, SOCK),
            ArgFormat::Enum(names) => one_of(value, names),
            ArgFormat::Signal => signal(value as i32),
            ArgFormat::SigSet => self.signal_set(value),
            ArgFormat::SigAction => self.signal_action(value),
            ArgFormat::Argv => self.strings(value),
            ArgFormat::EnvCount => self.count_strings(value),
            ArgFormat::TimeSpec | ArgFormat::TimeVal => self.time(value, format),
            ArgFormat::PollFds(count) => self.poll_fds(value, self.args.size(count)),
            ArgFormat::Epoll => self.epoll_events(value, 1),
            ArgFormat::SockAddr(length) => self.socket_address(value, self.args.size(length)),
            ArgFormat::Rlimit => self.limits(value),
            ArgFormat::CloneArgs(size) => self.clone_args(value, self.args.size(size)),
            ArgFormat::Futex => futex(value),
            _ => return None,
        })
    }

    fn output(&self, format: ArgFormat, index: usize, result: Result<u64>) -> String {
        let value = self.args.0[index];
        let Ok(returned) = result else { return pointer(value) };
        let returned = returned as usize;
        match format {
            ArgFormat::OutBuf(limit) => self.bytes(value, returned.min(self.args.size(limit))),
            ArgFormat::OutIov(count) => self.vectors(value, self.args.size(count), returned),
            ArgFormat::OutSigSet => self.signal_set(value),
            ArgFormat::OutSigAction => self.signal_action(value),
            ArgFormat::OutTimeSpec | ArgFormat::OutTimeVal => self.time(value, format),
            ArgFormat::Stat => self.stat(value),
            ArgFormat::OutStatus if returned == 0 => pointer(value),
            ArgFormat::OutStatus => self.wait_status(value),
            ArgFormat::OutFdPair => self.array::<8>(value).map_or(pointer(value), |b| {
                format!("[{}, {}]", i32::from_ne_bytes(first(&b)), i32::from_ne_bytes(first(&b[4..])))
            }),
            ArgFormat::OutInt => {
                self.array::<4>(value).map_or(pointer(value), |b| format!("[{}]", i32::from_ne_bytes(b)))
            }
            ArgFormat::OutEpoll => self.epoll_events(value, returned),
            ArgFormat::OutRlimit => self.limits(value),
            _ => pointer(value),
        }
    }

    fn array<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        (address != 0 && (self.memory)(address, &mut bytes).is_ok()).then_some(bytes)
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.array(address).map(u64::from_ne_bytes)
    }

    fn half(&self, address: u64) -> Option<u32> {
        self.array(address).map(u32::from_ne_bytes)
    }

    fn bytes(&self, address: u64, length: usize) -> String {
        let mut bytes = vec![0; length.min(SHOWN_BYTES)];
        if address == 0 || (self.memory)(address, &mut bytes).is_err() {
            return pointer(address);
        }
        quoted(&bytes, length > SHOWN_BYTES)
    }

    /// A NUL-terminated string, read piecewise so that one ending before an unmapped page is read whole.
    fn string(&self, address: u64, limit: usize) -> String {
        let mut text = Vec::new();
        while text.len() < limit {
            let Some([byte]) = self.array::<1>(address.wrapping_add(text.len() as u64)) else {
                return pointer(address);
            };
            if byte == 0 {
                return quoted(&text, false);
            }
            text.push(byte);
        }
        quoted(&text, true)
    }

    fn strings(&self, address: u64) -> String {
        let mut words = Vec::new();
        for index in 0.. {
            match self.word(address.wrapping_add(8 * index)) {
                None => return pointer(address),
                Some(0) => break,
                Some(_) if words.len() == SHOWN_ITEMS => {
                    words.push("...".to_owned());
                    break;
                }
                Some(string) => words.push(self.string(string, SHOWN_PATH)),
            }
        }
        format!("[{}]", words.join(", "))
    }

    fn count_strings(&self, address: u64) -> String {
        let count =
            (0..).take_while(|i| self.word(address.wrapping_add(8 * i)).is_some_and(|p| p != 0)).count();
        format!("{} /* {count} vars */", pointer(address))
    }

    fn vectors(&self, address: u64, count: usize, mut available: usize) -> String {
        let mut words = Vec::new();
        for index in 0..count.min(SHOWN_ITEMS) as u64 {
            let at = address.wrapping_add(16 * index);
            let (Some(base), Some(length)) = (self.word(at), self.word(at.wrapping_add(8))) else {
                return pointer(address);
            };
            let length = length as usize;
            words.push(format!("{{iov_base={}, iov_len={length}}}", self.bytes(base, length.min(available))));
            available = available.saturating_sub(length);
        }
        format!("[{}]", words.join(", "))
    }

    fn signal_set(&self, address: u64) -> String {
        match self.word(address) {
            None => pointer(address),
            Some(set) => signals(set),
        }
    }

    /// The kernel's layout: handler, flags, then (x86_64) the restorer, then the mask.
    fn signal_action(&self, address: u64) -> String {
        let (Some(handler), Some(flag_bits)) = (self.word(address), self.word(address.wrapping_add(8)))
        else {
            return pointer(address);
        };
        let mask_at = if crate::arch::SYSCALL_COLUMN == 0 { 24 } else { 16 };
        let mask = self.word(address.wrapping_add(mask_at)).unwrap_or(0);
        let handler = match handler {
            0 => "SIG_DFL".to_owned(),
            1 => "SIG_IGN".to_owned(),
            _ => pointer(handler),
        };
        format!("{{sa_handler={handler}, sa_mask={}, sa_flags={}}}", signals(mask), flags(flag_bits, SA))
    }

    fn time(&self, address: u64, format: ArgFormat) -> String {
        let (Some(seconds), Some(fraction)) = (self.word(address), self.word(address.wrapping_add(8))) else {
            return pointer(address);
        };
        let field =
            if matches!(format, ArgFormat::TimeVal | ArgFormat::OutTimeVal) { "usec" } else { "nsec" };
        format!("{{tv_sec={}, tv_{field}={}}}", seconds as i64, fraction as i64)
    }

    fn limits(&self, address: u64) -> String {
        let (Some(soft), Some(hard)) = (self.word(address), self.word(address.wrapping_add(8))) else {
            return pointer(address);
        };
        let show = |v: u64| if v == u64::MAX { "RLIM64_INFINITY".to_owned() } else { v.to_string() };
        format!("{{rlim_cur={}, rlim_max={}}}", show(soft), show(hard))
    }

    fn stat(&self, address: u64) -> String {
        let mode = self.half(address.wrapping_add(offset_of!(stat, st_mode) as u64));
        let size = self.word(address.wrapping_add(offset_of!(stat, st_size) as u64));
        match (mode, size) {
            (Some(mode), Some(size)) => format!("{{st_mode={}, st_size={size}, ...}}", file_mode(mode)),
            _ => pointer(address),
        }
    }

    fn wait_status(&self, address: u64) -> String {
        let Some(status) = self.half(address) else { return pointer(address) };
        let high = status >> 8 & 0xff;
        match status & 0x7f {
            0 => format!("[{{WIFEXITED(s) && WEXITSTATUS(s) == {high}}}]"),
            0x7f if status == 0xffff => "[{WIFCONTINUED(s)}]".to_owned(),
            0x7f => format!("[{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}]", signal(high as i32)),
            number => format!("[{{WIFSIGNALED(s) && WTERMSIG(s) == {}}}]", signal(number as i32)),
        }
    }

    fn poll_fds(&self, address: u64, count: usize) -> String {
        let mut words = Vec::new();
        for index in 0..count.min(SHOWN_ITEMS) as u64 {
            let Some(bytes) = self.array::<8>(address.wrapping_add(8 * index)) else {
                return pointer(address);
            };
            let events = u64::from(u16::from_ne_bytes(first(&bytes[4..])));
            words.push(format!(
                "{{fd={}, events={}}}",
                i32::from_ne_bytes(first(&bytes)),
                flags(events, POLL)
            ));
        }
        format!("[{}]", words.join(", "))
    }

    /// `struct epoll_event` is packed on x86_64 and not elsewhere.
    fn epoll_events(&self, address: u64, count: usize) -> String {
        let (size, data_at) = if crate::arch::SYSCALL_COLUMN == 0 { (12, 4) } else { (16, 8) };
        let mut words = Vec::new();
        for index in 0..count.min(SHOWN_ITEMS) as u64 {
            let at = address.wrapping_add(size * index);
            let (Some(events), Some(data)) = (self.half(at), self.word(at.wrapping_add(data_at))) else {
                return pointer(address);
            };
            words.push(format!("{{events={}, data={data:#x}}}", flags(u64::from(events), POLL)));
        }
        format!("[{}]", words.join(", "))
    }

    fn socket_address(&self, address: u64, length: usize) -> String {
        let mut bytes = vec![0; length.min(128)];
        if address == 0 || bytes.len() < 2 || (self.memory)(address, &mut bytes).is_err() {
            return pointer(address);
        }
        let port = |b: &[u8]| u16::from_be_bytes(first(&b[2..]));
        match u16::from_ne_bytes(first(&bytes)) {
            1 => {
                let path = &bytes[2..];
                let end = path.iter().skip(1).position(|b| *b == 0).map_or(path.len(), |p| p + 1);
                format!("{{AF_UNIX, {}}}", quoted(&path[..end], false))
            }
            2 if bytes.len() >= 8 => {
                format!("{{AF_INET, {}.{}.{}.{}:{}}}", bytes[4], bytes[5], bytes[6], bytes[7], port(&bytes))
            }
            10 if bytes.len() >= 24 => {
                let ip = std::net::Ipv6Addr::from(first::<16>(&bytes[8..]));
                format!("{{AF_INET6, [{ip}]:{}}}", port(&bytes))
            }
            family => format!("{{sa_family={family}, ...}}"),
        }
    }

    fn clone_args(&self, address: u64, size: usize) -> String {
        let word = |at: usize| (at + 8 <= size).then(|| self.word(address.wrapping_add(at as u64))).flatten();
        let Some(flag_bits) = word(offset_of!(clone_args, flags)) else { return pointer(address) };
        let exit = word(offset_of!(clone_args, exit_signal)).unwrap_or(0);
        let stack = word(offset_of!(clone_args, stack)).unwrap_or(0);
        let names = flags(flag_bits, CLONE);
        format!("{{flags={names}, exit_signal={}, stack={}}}", signal(exit as i32), pointer(stack))
    }
}

#[cfg(test)]
mod tests {
    use super::{after, before};
    use crate::abi::Errno;
    use crate::syscalls::{Args, ROWS, Row};

    /// Memory at address 0x1000.
    fn reader(bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> crate::abi::Result<()> + '_ {
        move |address, out| {
            let start = address.checked_sub(0x1000).ok_or(Errno::EFAULT)? as usize;
            let part = bytes.get(start..start + out.len()).ok_or(Errno::EFAULT)?;
            out.copy_from_slice(part);
            Ok(())
        }
    }

    fn named(name: &str) -> &'static Row {
        ROWS.iter().find(|r| r.name == name).expect("a row of that name")
    }

    fn line(name: &str, args: [u64; 6], result: crate::abi::Result<u64>, memory: &[u8]) -> String {
        let row = named(name);
        let read = reader(memory);
        let given = before(row, &Args(args), &read);
        after(7, row, &Args(args), given, result, &read)
    }

    #[test]
    fn paths_flags_and_errors() {
        let text = line(
            "openat",
            [-100_i64 as u64, 0x1000, 0o2_000_101, 0o644, 0, 0],
            Err(Errno::ENOENT),
            b"/a\n\0",
        );
        assert_eq!(text, r#"[    7] openat(AT_FDCWD, "/a\n", O_WRONLY|O_CREAT|O_CLOEXEC, 0644) = -1 ENOENT"#);
    }

    #[test]
    fn buffers_before_and_after() {
        assert_eq!(
            line("write", [1, 0x1000, 3, 0, 0, 0], Ok(3), b"abc"),
            r#"[    7] write(1, "abc", 3) = 3"#
        );
        assert_eq!(
            line("read", [0, 0x1000, 100, 0, 0, 0], Ok(2), b"hi"),
            r#"[    7] read(0, "hi", 100) = 2"#
        );
        let failed = line("read", [0, 0x1000, 100, 0, 0, 0], Err(Errno::EAGAIN), b"hi");
        assert_eq!(failed, "[    7] read(0, 0x1000, 100) = -1 EAGAIN");
    }

    #[test]
    fn unreadable_memory_is_an_address() {
        assert_eq!(
            line("chdir", [0x10, 0, 0, 0, 0, 0], Err(Errno::EFAULT), b""),
            "[    7] chdir(0x10) = -1 EFAULT"
        );
    }

    #[test]
    fn wait_status_is_decoded() {
        let text = line("wait4", [u64::MAX, 0x1000, 0, 0, 0, 0], Ok(9), &(7_i32 << 8).to_ne_bytes());
        assert_eq!(text, "[    7] wait4(-1, [{WIFEXITED(s) && WEXITSTATUS(s) == 7}], 0, NULL) = 9");
    }
}
