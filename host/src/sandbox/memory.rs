//! How much memory a sandbox may have.

use super::cgroup::{Groups, Share};
use crate::hostsys::process::memory_bytes;

/// Least: less runs no program.
pub(super) const LEAST: u64 = 16 << 20;
/// What nobody counts and the caller's groups are charged for, too: the image, threads, descriptors, and page tables outside,
/// which are a part of what they map.
const OURS: u64 = 16 << 20;
const OURS_PART: u64 = 32;

/// Bytes; and whether that is less than what was asked for. Where nothing is asked for: what the caller's groups leave but for
/// a reserve, and at most three quarters of the machine's memory.
pub(super) fn granted(asked: Option<u64>, groups: &Groups) -> (u64, bool) {
    let machine = memory_bytes();
    let left = groups.memory().into_iter().map(Share::left).map(less_ours).min().unwrap_or(u64::MAX);
    match asked {
        Some(asked) => {
            let most = left.min(machine);
            (asked.min(most).max(LEAST), most < asked)
        }
        None => (left.min(machine / 4 * 3).max(LEAST), false),
    }
}

fn less_ours(left: u64) -> u64 {
    left.saturating_sub(OURS + left / OURS_PART)
}

/// The memory of a sandbox, as [`bytes`] reads it.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let bytes = bytes(text)?;
    if bytes < LEAST { Err(format!("no program runs in less than {}M", LEAST >> 20)) } else { Ok(bytes) }
}

/// A number of bytes, or of KiB, MiB, GiB or TiB by the letter behind it.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" | "kb" => 10,
        "m" | "mib" | "mb" => 20,
        "g" | "gib" | "gb" => 30,
        "t" | "tib" | "tb" => 40,
        other => return Err(format!("{other} is no unit of memory; K, M, G and T are")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a number like 512M or 2G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "there is no such memory".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Groups, LEAST, granted, less_ours, size};

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("16777216"), Ok(16 << 20));
        assert_eq!((size("512M"), size("512MiB"), size("2g")), (Ok(512 << 20), Ok(512 << 20), Ok(2 << 30)));
        for wrong in ["", "M", "1X", "-1M", "12K", "99999999999G", "1.5G"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_gets_more_than_there_is() {
        let groups = Groups::own();
        assert_eq!(granted(Some(LEAST), &groups), (LEAST, false));
        let (most, cut) = granted(Some(u64::MAX), &groups);
        assert!(cut && granted(None, &groups).0 <= most, "{most}");
        assert_eq!((less_ours(0), less_ours(1 << 20)), (0, 0));
        assert!(less_ours(1 << 30) < (1 << 30) - (32 << 20));
    }
}
