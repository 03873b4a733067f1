//! Numbers and sets as files of /proc and /sys spell them.

use crate::abi::{Errno, Result};

/// An integer as the kernel reads one that a program writes: blanks around it, a sign, `0x` and `0` for other bases.
///
/// # Errors
/// EINVAL for what is none; ERANGE for one that does not fit.
pub(super) fn integer(text: &[u8]) -> Result<i32> {
    i32::try_from(wide(text)?).map_err(|_| Errno::ERANGE)
}

/// One that is not negative, as strict readers take it (`kstrtouint`): no minus sign, and nothing around it but the end of a
/// line behind it.
///
/// # Errors
/// As [`integer`].
pub(super) fn unsigned(text: &[u8]) -> Result<u32> {
    u32::try_from(wide(bare(text)?)?).map_err(|_| Errno::ERANGE)
}

/// The same of 64 bits that are decimal always (`kstrtoull`).
///
/// # Errors
/// As [`integer`].
pub(super) fn decimal(text: &[u8]) -> Result<u64> {
    let text = bare(text)?;
    let digits = text.strip_prefix(b"+").unwrap_or(text);
    let value =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let value = value.filter(|digits| !digits.is_empty()).ok_or(Errno::EINVAL)?;
    value.parse().map_err(|_| Errno::ERANGE)
}

/// A number without anything around it, and without a minus sign.
fn bare(text: &[u8]) -> Result<&[u8]> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    if text.first() == Some(&b'-') || text.trim_ascii() != text { Err(Errno::EINVAL) } else { Ok(text) }
}

fn wide(text: &[u8]) -> Result<i128> {
    let text = text.trim_ascii();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (16, rest),
        [b'0', rest @ ..] if !rest.is_empty() => (8, rest),
        _ => (10, digits),
    };
    if digits.is_empty() {
        return Err(Errno::EINVAL);
    }
    let mut value = 0_i128;
    for digit in digits {
        let digit = char::from(*digit).to_digit(base).ok_or(Errno::EINVAL)?;
        value = value * i128::from(base) + i128::from(digit);
        // Further up it makes no difference.
        value = value.min(1 << 70);
    }
    Ok(if negative { -value } else { value })
}

/// A set of up to 64 bits in hexadecimal, as wide as `count` of them: words of 32, the highest first.
pub(super) fn mask(bits: u64, count: usize) -> String {
    let width = |bits: usize| bits.div_ceil(4).max(1);
    if count > 32 {
        format!("{:0w$x},{:08x}", bits >> 32, bits & 0xffff_ffff, w = width(count - 32))
    } else {
        format!("{bits:0w$x}", w = width(count))
    }
}

/// The same as a list of ranges.
pub(super) fn ranges(bits: u64) -> String {
    let mut all = Vec::new();
    let mut at = 0;
    while at < 64 {
        let run = (bits >> at).trailing_ones();
        match run {
            0 => at += 1,
            1 => all.push(at.to_string()),
            _ => all.push(format!("{at}-{}", at + run - 1)),
        }
        at += run;
    }
    all.join(",")
}

#[cfg(test)]
mod tests {
    use super::{Errno, decimal, integer, mask, ranges, unsigned};

    #[test]
    fn integers() {
        for (text, value) in
            [("5\n", 5), (" -17 ", -17), ("+3", 3), ("0x10", 16), ("010", 8), ("0", 0), ("-0", 0)]
        {
            assert_eq!(integer(text.as_bytes()), Ok(value), "{text:?}");
        }
        assert_eq!((integer(b"2147483647"), integer(b"-2147483648")), (Ok(i32::MAX), Ok(i32::MIN)));
        for text in ["", "-", "x", "5x", "5 5", "0x", "08", "--1"] {
            assert_eq!(integer(text.as_bytes()), Err(Errno::EINVAL), "{text:?}");
        }
        for text in ["2147483648", "-2147483649", "99999999999999999999999999999999"] {
            assert_eq!(integer(text.as_bytes()), Err(Errno::ERANGE), "{text:?}");
        }
    }

    #[test]
    fn numbers_without_a_sign() {
        assert_eq!(
            (unsigned(b"0x33\n"), unsigned(b"4294967295"), unsigned(b"+7")),
            (Ok(0x33), Ok(u32::MAX), Ok(7))
        );
        assert_eq!(
            (unsigned(b"-1"), unsigned(b" 3"), unsigned(b"3 \n")),
            (Err(Errno::EINVAL), Err(Errno::EINVAL), Err(Errno::EINVAL))
        );
        assert_eq!(unsigned(b"4294967296"), Err(Errno::ERANGE));
        assert_eq!(
            (decimal(b"18446744073709551615"), decimal(b"18446744073709551616")),
            (Ok(u64::MAX), Err(Errno::ERANGE))
        );
    }

    #[test]
    fn decimals() {
        assert_eq!((decimal(b"010\n"), decimal(b"+7"), decimal(b"0")), (Ok(10), Ok(7), Ok(0)));
        for text in ["", "0x10", "-1", " 5", "5 ", "+", "x"] {
            assert_eq!(decimal(text.as_bytes()), Err(Errno::EINVAL), "{text:?}");
        }
    }

    #[test]
    fn sets() {
        assert_eq!((mask(3, 2), ranges(3)), ("3".into(), "0-1".into()));
        assert_eq!((mask(1, 8), ranges(0b1011_0001)), ("01".into(), "0,4-5,7".into()));
        assert_eq!((mask(u64::MAX, 64), ranges(u64::MAX)), ("ffffffff,ffffffff".into(), "0-63".into()));
        assert_eq!((mask(1 << 32, 33), ranges(1 << 63)), ("1,00000000".into(), "63".into()));
        assert_eq!(ranges(0), "");
    }
}
