//! Attacks on the stub that a program shares its process with on the systrap platform: signal frames of its own making,
//! loaded by the stub's own rt_sigreturn(2). Where there is no stub, the attacker dies of its first look for one.

use crate::sys;

/// Blocks every signal, the one that would fetch it among them, and spins.
pub(crate) fn masked() -> i32 {
    load_frame(spin)
}

/// Blocks every signal and faults: the host ends the process as if it had wanted to, and might leave a core.
pub(crate) fn faulting() -> i32 {
    load_frame(fault)
}

extern "C" fn spin() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

extern "C" fn fault() -> ! {
    loop {
        // SAFETY: faults, which is the point.
        unsafe { std::ptr::without_provenance_mut::<u8>(16).write_volatile(1) };
    }
}

/// Where stubs have their code, and how much of it.
#[cfg(target_arch = "x86_64")]
const STUB: std::ops::Range<usize> = 0x6800_0000..0x6800_0800;

/// Goes on at `ip` with all signals blocked, through a `struct rt_sigframe` (arch/x86/include/asm/sigframe.h).
#[cfg(target_arch = "x86_64")]
fn load_frame(ip: extern "C" fn() -> !) -> i32 {
    const RETURN: [u8; 7] = [0xb8, libc::SYS_rt_sigreturn as u8, 0, 0, 0, 0x0f, 0x05];
    #[repr(align(64))]
    struct Frame([u64; 128]);
    static mut STACK: [u64; 8192] = [0; 8192];
    let byte = |at: usize| {
        // SAFETY: readable where there is a stub, else the end of this process.
        unsafe { std::ptr::with_exposed_provenance::<u8>(at).read_volatile() }
    };
    let returns = |at: &usize| (0..RETURN.len()).all(|i| byte(at + i) == RETURN[i]);
    let Some(site) = STUB.rev().skip(RETURN.len()).find(returns) else { return 3 };
    let mut frame = Frame([0; 128]);
    let stack = (&raw mut STACK).expose_provenance() as u64 + 60_000;
    for (at, value) in
        [(8, 7), (168, stack), (176, ip as usize as u64), (184, 0x202), (192, 0x33 | 0x2b << 48), (304, !0)]
    {
        frame.0[at / 8] = value;
    }
    // SAFETY: leaves for `ip` on a stack of its own and never comes back.
    unsafe {
        std::arch::asm!("mov rsp, {frame}", "jmp {site}", frame = in(reg) frame.0.as_ptr().wrapping_add(1),
            site = in(reg) site, options(noreturn));
    }
}

/// Without a frame, as on the other architecture.
#[cfg(not(target_arch = "x86_64"))]
fn load_frame(ip: extern "C" fn() -> !) -> i32 {
    ip()
}

/// Runs [`faulting`] in a child, and says how that ended.
pub(crate) fn core() -> Result<(), String> {
    let child = sys::fork(faulting)?;
    loop {
        match sys::reap() {
            Some((pid, status)) if pid == child => {
                println!("killed: {}", libc::WIFSIGNALED(status));
                return Ok(());
            }
            _ => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
}
