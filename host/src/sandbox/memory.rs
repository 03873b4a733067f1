//! How much memory a sandbox may have.

use super::cgroup::Groups;
use crate::hostsys::process::memory_bytes;

/// Least: less runs no program.
pub(super) const LEAST: u64 = 16 << 20;
/// What nobody counts and the caller's groups are charged for, too: the image, threads, descriptors, and page tables outside,
/// which are a part of what they map.
const OURS: u64 = 16 << 20;
const OURS_PART: u64 = 32;

/// What programs may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// Bytes.
    pub(super) bytes: u64,
    /// That is less than what was asked for.
    pub(super) cut: bool,
    /// The limit of the caller's group that it comes from, where it does: all of the sandbox counts there.
    pub(super) group: Option<u64>,
}

/// Where nothing is asked for: what the caller's groups leave but for a reserve, and at most three quarters of the machine's memory.
pub(super) fn granted(asked: Option<u64>, groups: &Groups) -> Granted {
    let machine = memory_bytes();
    let tightest = groups.memory().into_iter().min_by_key(|share| share.left());
    let left = tightest.map_or(u64::MAX, |share| less_ours(share.left()));
    let (bytes, cut) = match asked {
        Some(asked) => {
            let most = left.min(machine);
            (asked.min(most).max(LEAST), most < asked)
        }
        None => (left.min(machine / 4 * 3).max(LEAST), false),
    };
    Granted { bytes, cut, group: tightest.filter(|_| bytes == left).map(|share| share.limit) }
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
        let least = granted(Some(LEAST), &groups);
        assert_eq!((least.bytes, least.cut), (LEAST, false));
        let most = granted(Some(u64::MAX), &groups);
        assert!(most.cut && granted(None, &groups).bytes <= most.bytes, "{most:?}");
        assert_eq!((less_ours(0), less_ours(1 << 20)), (0, 0));
        assert!(less_ours(1 << 30) < (1 << 30) - (32 << 20));
    }
}
