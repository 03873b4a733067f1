//! Values as strace prints them.

use crate::syscalls::flags::{FUTEX_OPS, SIGNALS};
use crate::syscalls::format::Name;

/// The first bytes of a slice that is known to be long enough.
pub(super) fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[..N]);
    out
}

pub(super) fn pointer(value: u64) -> String {
    if value == 0 { "NULL".to_owned() } else { format!("{value:#x}") }
}

pub(super) fn quoted(bytes: &[u8], cut: bool) -> String {
    format!("\"{}\"{}", bytes.escape_ascii(), if cut { "..." } else { "" })
}

pub(super) fn one_of(value: u64, names: &[Name]) -> String {
    // `int` arguments: the upper half is not the callee's business.
    let found = names.iter().find(|(v, _)| *v == value || *v as u32 == value as u32);
    found.map_or_else(|| format!("{value:#x}"), |(_, name)| (*name).to_owned())
}

pub(super) fn flags(value: u64, names: &[Name]) -> String {
    let mut rest = value & 0xffff_ffff;
    let mut words = Vec::new();
    for (bits, name) in names {
        if rest & bits == *bits {
            words.push((*name).to_owned());
            rest &= !bits;
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(if rest == 0 { "0".to_owned() } else { format!("{rest:#x}") });
    }
    words.join("|")
}

/// A value in the low bits, then flags.
pub(super) fn mode_and_flags(value: u64, mask: u64, modes: &[Name], names: &[Name]) -> String {
    let mode = one_of(value & mask, modes);
    if value as u32 as u64 & !mask == 0 { mode } else { format!("{mode}|{}", flags(value & !mask, names)) }
}

pub(super) fn signal(number: i32) -> String {
    match usize::try_from(number - 1).ok().and_then(|n| SIGNALS.get(n)) {
        Some(name) => (*name).to_owned(),
        None if (32..=64).contains(&number) => format!("SIGRT_{}", number - 32),
        None => number.to_string(),
    }
}

pub(super) fn signals(set: u64) -> String {
    let all = |set: u64| -> String {
        let names: Vec<String> = (1..=64)
            .filter(|n| set >> (n - 1) & 1 == 1)
            .map(|n| signal(n).trim_start_matches("SIG").to_owned())
            .collect();
        format!("[{}]", names.join(" "))
    };
    // A nearly full set is easier read as what it lacks.
    if set.count_ones() > 40 { format!("~{}", all(!set)) } else { all(set) }
}

pub(super) fn futex(value: u64) -> String {
    let operation = (value & 0x7f) as usize;
    let mut text = FUTEX_OPS.get(operation).map_or_else(|| operation.to_string(), |n| (*n).to_owned());
    if value & 128 != 0 {
        text.push_str("|FUTEX_PRIVATE_FLAG");
    }
    if value & 256 != 0 {
        text.push_str("|FUTEX_CLOCK_REALTIME");
    }
    text
}

pub(super) fn file_mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o140_000 => "S_IFSOCK",
        0o120_000 => "S_IFLNK",
        0o100_000 => "S_IFREG",
        0o060_000 => "S_IFBLK",
        0o040_000 => "S_IFDIR",
        0o020_000 => "S_IFCHR",
        0o010_000 => "S_IFIFO",
        _ => return format!("0{mode:o}"),
    };
    format!("{kind}|0{:03o}", mode & 0o7777)
}
