//! Addresses and ranges. An address that came from a program becomes a [`UserRange`] or nothing.

use crate::Format;

/// Bytes of the smallest page.
pub const PAGE_SIZE: u64 = 4096;

/// The sizes that a leaf can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB.
    Size1G,
}

impl PageSize {
    /// Bytes of a page of this size.
    pub const fn bytes(self) -> u64 {
        1 << (12 + 9 * self.level())
    }

    pub(crate) const fn level(self) -> u32 {
        self as u32
    }

    pub(crate) fn of_level(level: u32) -> PageSize {
        match level {
            0 => PageSize::Size4K,
            1 => PageSize::Size2M,
            _ => PageSize::Size1G,
        }
    }
}

/// A virtual address that the format can translate: not in the canonical hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtAddr(u64);

impl VirtAddr {
    /// `None` if `addr` is in the hole between the halves.
    pub fn new<F: Format>(addr: u64) -> Option<VirtAddr> {
        (addr < F::LOWER_END || addr >= F::UPPER_START).then_some(VirtAddr(addr))
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Moves up within the same half; `None` when that would enter the hole or wrap around.
    pub fn checked_add<F: Format>(self, bytes: u64) -> Option<VirtAddr> {
        let sum = self.0.checked_add(bytes)?;
        let same_half = (sum < F::LOWER_END) == (self.0 < F::LOWER_END);
        VirtAddr::new::<F>(sum).filter(|_| same_half)
    }
}

/// A page-aligned, non-empty range of addresses within one half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtRange {
    start: u64,
    /// The last byte, because one past it does not exist for the upper half.
    last: u64,
}

impl VirtRange {
    /// The `len` bytes from `start` on.
    ///
    /// # Errors
    /// A range that is empty or unaligned, or that touches the hole.
    pub fn new<F: Format>(start: u64, len: u64) -> Result<VirtRange, RangeError> {
        if len == 0 || !(start | len).is_multiple_of(PAGE_SIZE) {
            return Err(RangeError::Unaligned);
        }
        VirtAddr::new::<F>(start)
            .and_then(|first| first.checked_add::<F>(len - 1))
            .map(|last| VirtRange { start, last: last.raw() })
            .ok_or(RangeError::OutOfBounds)
    }

    /// First address.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Address of the last byte.
    pub const fn last(self) -> u64 {
        self.last
    }
}

/// Why a range was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeError {
    /// Start or length is not a multiple of the page size, or the length is 0.
    Unaligned,
    /// It wraps around, or ends above what user code can have.
    OutOfBounds,
    /// It touches a window that belongs to the kernel.
    Window,
}

/// What a user address space leaves out: the windows of image and arena, and everything from `end` on.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    closed: [(u64, u64); 2],
    end: u64,
}

impl Windows {
    /// `closed` lists [start, end) pairs in ascending order.
    ///
    /// # Panics
    /// If a bound is unaligned or out of order (at compile time, when used in a constant).
    pub const fn new(closed: [(u64, u64); 2], end: u64) -> Windows {
        let [a, b] = closed;
        assert!((a.0 | a.1 | b.0 | b.1 | end).is_multiple_of(PAGE_SIZE));
        assert!(a.0 <= a.1 && a.1 <= b.0 && b.0 <= b.1 && b.1 <= end);
        Windows { closed, end }
    }

    /// First address that user code can never have.
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Whether [start, end) touches a window.
    #[inline]
    pub const fn overlap(&self, start: u64, end: u64) -> bool {
        let [a, b] = self.closed;
        (start < a.1 && a.0 < end) || (start < b.1 && b.0 < end)
    }

    /// The parts of [start, start + len) that user code can have, ascending. Bounds are rounded outwards to pages.
    pub fn pieces(&self, start: u64, len: u64) -> impl Iterator<Item = UserRange> + use<> {
        let [a, b] = self.closed;
        let first = start & !(PAGE_SIZE - 1);
        let last = start.saturating_add(len).saturating_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        [(0, a.0), (a.1, b.0), (b.1, self.end)].into_iter().filter_map(move |(low, high)| {
            let (start, end) = (first.max(low), last.min(high));
            (len > 0 && start < end).then_some(UserRange { start, end })
        })
    }
}

/// Page-aligned, non-empty user addresses that do not touch the windows it was made with.
///
/// The only way to name addresses to [`PageTables`](crate::PageTables): an operation over a range that a program
/// chose cannot reach image, arena or the upper half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRange {
    start: u64,
    end: u64,
}

impl UserRange {
    /// The `len` bytes from `start` on.
    ///
    /// # Errors
    /// See [`RangeError`].
    #[inline]
    pub const fn new(windows: &Windows, start: u64, len: u64) -> Result<UserRange, RangeError> {
        if len == 0 || (start | len) & (PAGE_SIZE - 1) != 0 {
            return Err(RangeError::Unaligned);
        }
        if start >= windows.end || len > windows.end - start {
            return Err(RangeError::OutOfBounds);
        }
        let end = start + len;
        if windows.overlap(start, end) {
            return Err(RangeError::Window);
        }
        Ok(UserRange { start, end })
    }

    /// First address.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// One past the last address.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// How many 4 KiB pages it has.
    pub const fn pages(self) -> u64 {
        (self.end - self.start) / PAGE_SIZE
    }

    pub(crate) const fn last(self) -> u64 {
        self.end - 1
    }
}
