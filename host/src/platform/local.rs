//! Two words per worker: the kernel's, which names its current worker, and the platform's.
//!
//! They lie in the worker thread's TLS, which is in the arena and thus reachable from ring 0. `thread_local!` would not
//! do: LLVM assumes that a function stays on one thread and keeps the address of a thread-local in a register, but kernel
//! code that parks may continue on another worker. Assembly finds the address anew each time, and in one or three
//! instructions, so that these can be inlined where every system call passes.

use core::arch::{asm, global_asm};

// In a static executable a thread-local is at a constant distance from the thread pointer.
global_asm!(
    ".pushsection .tbss.pillbox_local, \"awT\", %nobits",
    ".balign 16",
    ".globl pillbox_local",
    ".type pillbox_local, %tls_object",
    ".size pillbox_local, 16",
    "pillbox_local:",
    ".zero 16",
    ".popsection",
);

/// Sets the calling worker's word of the kernel.
#[inline]
pub fn set(value: usize) {
    // SAFETY: writes a word of this thread that only this module touches.
    unsafe { store::<0>(value) }
}

/// The calling worker's word of the kernel; 0 outside a worker.
#[inline(always)]
pub fn get() -> usize {
    load::<0>()
}

/// Sets the calling worker's word of the platform.
#[inline]
pub(super) fn set_platform(value: usize) {
    // SAFETY: as above.
    unsafe { store::<8>(value) }
}

/// The calling worker's word of the platform; 0 outside a worker.
#[inline(always)]
pub(super) fn platform() -> usize {
    load::<8>()
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn load<const AT: usize>() -> usize {
    let value: usize;
    // SAFETY: reads a word of this thread. Not `pure`: two reads may give different answers.
    unsafe {
        asm!(
            "mov {value}, fs:[pillbox_local@tpoff + {at}]",
            value = out(reg) value, at = const AT, options(readonly, nostack, preserves_flags)
        );
    }
    value
}

/// # Safety
/// `AT` is the offset of a word.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn store<const AT: usize>(value: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            "mov fs:[pillbox_local@tpoff + {at}], {value}",
            value = in(reg) value, at = const AT, options(nostack, preserves_flags)
        );
    }
}

/// Instructions that find the words' address, in a register of the caller's.
#[cfg(target_arch = "aarch64")]
macro_rules! find_local {
    ($register:literal) => {
        concat!(
            "mrs ",
            $register,
            ", tpidr_el0\n",
            "add ",
            $register,
            ", ",
            $register,
            ", #:tprel_hi12:pillbox_local, lsl #12\n",
            "add ",
            $register,
            ", ",
            $register,
            ", #:tprel_lo12_nc:pillbox_local",
        )
    };
}

#[cfg(target_arch = "aarch64")]
#[inline(always)]
fn load<const AT: usize>() -> usize {
    let value: usize;
    // SAFETY: as on x86_64.
    unsafe {
        asm!(
            find_local!("{value}"),
            "ldr {value}, [{value}, #{at}]",
            value = out(reg) value, at = const AT, options(readonly, nostack, preserves_flags)
        );
    }
    value
}

/// # Safety
/// `AT` is the offset of a word.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
unsafe fn store<const AT: usize>(value: usize) {
    // SAFETY: the caller's.
    unsafe {
        asm!(
            find_local!("{address}"),
            "str {value}, [{address}, #{at}]",
            address = out(reg) _, value = in(reg) value, at = const AT, options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_are_apart_and_each_threads_own() {
        super::set(1);
        super::set_platform(2);
        std::thread::spawn(|| {
            assert_eq!((super::get(), super::platform()), (0, 0));
            super::set(3);
        })
        .join()
        .unwrap();
        assert_eq!((super::get(), super::platform()), (1, 2));
        super::set(0);
        super::set_platform(0);
    }
}
