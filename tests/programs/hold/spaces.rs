//! Spaces in which there is much: each call on one of them has as many pages or areas to do.

use crate::storm::round;
use crate::{memory, sys};

/// Pages in one space that are all there.
const DENSE: u64 = 16 << 10;
/// Pages that lie far apart, and how far.
const SPARSE: u64 = 4 << 10;
const APART: u64 = 1 << 20;
const PAGE: u64 = 4096;

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Address space with so many pages in memory, one every `apart` bytes.
fn filled(pages: u64, apart: u64) -> Option<i64> {
    let at = sys::map(pages * apart, RW, 0);
    if at < 0 {
        return None;
    }
    for page in 0..pages {
        memory::touch(at as u64 + page * apart);
    }
    Some(at)
}

/// Fills and unmaps, in turn what is dense and what is not.
pub(crate) fn unmap() -> i32 {
    loop {
        for (pages, apart) in [(DENSE, PAGE), (SPARSE, APART)] {
            let Some(at) = filled(pages, apart) else { return 1 };
            if sys!(libc::SYS_munmap, at, pages * apart) != 0 {
                return 2;
            }
        }
        round();
    }
}

/// Takes all rights away and gives them back.
pub(crate) fn hide() -> i32 {
    protect(libc::PROT_NONE)
}

/// The same of the right to write.
pub(crate) fn lower() -> i32 {
    protect(libc::PROT_READ)
}

fn protect(prot: i32) -> i32 {
    let (Some(dense), Some(sparse)) = (filled(DENSE, PAGE), filled(SPARSE, APART)) else { return 1 };
    loop {
        for (at, len) in [(dense, DENSE * PAGE), (sparse, SPARSE * APART)] {
            for prot in [prot, RW] {
                if sys!(libc::SYS_mprotect, at, len, prot) != 0 {
                    return 2;
                }
            }
            // They come back to the tables when they are touched.
            for page in (0..len).step_by(1 << 20) {
                memory::touch(at as u64 + page);
            }
        }
        round();
    }
}

/// Moves everything somewhere else.
pub(crate) fn relocate() -> i32 {
    const MOVE: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let spaces = [(DENSE, PAGE), (SPARSE, APART)];
    let mut there = Vec::new();
    for (pages, apart) in spaces {
        let (Some(at), room) = (filled(pages, apart), sys::map(pages * apart, libc::PROT_NONE, 0)) else {
            return 1;
        };
        there.push((at, room, pages * apart));
    }
    loop {
        for (at, room, len) in &mut there {
            if sys!(libc::SYS_mremap, *at, *len, *len, MOVE, *room) != *room {
                return 2;
            }
            core::mem::swap(at, room);
        }
        round();
    }
}

/// Throws contents away.
pub(crate) fn discard() -> i32 {
    loop {
        for (pages, apart) in [(DENSE, PAGE), (SPARSE, APART)] {
            let Some(at) = filled(pages, apart) else { return 1 };
            if sys!(libc::SYS_madvise, at, pages * apart, libc::MADV_DONTNEED) != 0 {
                return 2;
            }
            sys!(libc::SYS_munmap, at, pages * apart);
        }
        round();
    }
}

/// Children that have much, and end.
pub(crate) fn end() -> i32 {
    loop {
        let child = sys::fork(|| {
            let all = filled(DENSE, PAGE).is_some() && filled(SPARSE, APART).is_some();
            i32::from(!all)
        });
        if child.is_err() {
            return 1;
        }
        while sys::reap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        round();
    }
}

/// Forks with much in memory: the child has all of it.
pub(crate) fn inherit() -> i32 {
    if filled(DENSE, PAGE).is_none() || filled(SPARSE, APART).is_none() {
        return 1;
    }
    loop {
        if sys::fork(|| 0).is_err() {
            return 2;
        }
        while sys::reap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        round();
    }
}
