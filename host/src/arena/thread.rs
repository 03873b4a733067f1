//! Host threads whose stack, and with it their thread-local storage, lies in the arena.
//!
//! Workers run kernel code inside the guest, where only image and arena are mapped: a thread made by
//! `std::thread::spawn` would fall out at its first access to TLS.

use super::stack::KernelStack;
use crate::abi::{Errno, Result};
use core::ffi::c_void;
use std::ffi::CString;

/// A running thread; [`join`](JoinHandle::join) it to free its stack.
pub struct JoinHandle {
    thread: libc::pthread_t,
    /// Freed after the join: the thread's TLS lies at its top.
    stack: Option<KernelStack>,
}

impl JoinHandle {
    /// Waits for the thread to end.
    pub fn join(mut self) {
        // SAFETY: the handle is unique and joined once.
        unsafe { libc::pthread_join(self.thread, core::ptr::null_mut()) };
        drop(self.stack.take());
    }
}

impl Drop for JoinHandle {
    fn drop(&mut self) {
        // Not joined: the thread may still run on its stack, which is therefore never reused.
        core::mem::forget(self.stack.take());
    }
}

struct Start {
    name: CString,
    body: Box<dyn FnOnce() + Send>,
}

extern "C" fn start(arg: *mut c_void) -> *mut c_void {
    // SAFETY: `spawn` made it with `Box::into_raw` for this thread alone.
    let start = unsafe { Box::from_raw(arg.cast::<Start>()) };
    // SAFETY: a valid C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, start.name.as_ptr()) };
    // Signal handlers run on a stack of their own: the one in use may be what overflowed.
    let alternate = KernelStack::new();
    if let Ok(stack) = &alternate {
        // SAFETY: the stack is this thread's until the end of this function, behind which nothing runs on it.
        unsafe { crate::hostsys::fault::use_alternate_stack(stack.bottom(), stack.top()) };
    }
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(start.body)).is_err() {
        crate::hostsys::process::die(&["pillbox: a worker thread panicked; this is a bug in pillbox\n"]);
    }
    crate::hostsys::fault::drop_alternate_stack();
    drop(alternate);
    core::ptr::null_mut()
}

/// Starts a thread on an arena stack. All asynchronous signals are blocked in it from its first instruction on.
///
/// # Errors
/// ENOMEM without a stack; what pthread_create(3) returns.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle> {
    let stack = KernelStack::new()?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let arg = Box::into_raw(Box::new(Start { name, body: Box::new(body) }));
    // SAFETY: attr is initialised before use and destroyed after; the stack range is ours until the join; the signal
    // mask is restored; `start` takes ownership of `arg` if and only if the thread was made.
    unsafe {
        let mut attr = core::mem::zeroed::<libc::pthread_attr_t>();
        libc::pthread_attr_init(&mut attr);
        let size = (stack.top() - stack.bottom()) as usize;
        libc::pthread_attr_setstack(&mut attr, stack.bottom() as *mut c_void, size);
        let mut blocked = core::mem::zeroed::<libc::sigset_t>();
        let mut old = core::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut blocked);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGSYS] {
            libc::sigdelset(&mut blocked, signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &blocked, &mut old);
        let mut thread = core::mem::zeroed::<libc::pthread_t>();
        let error = libc::pthread_create(&mut thread, &attr, start, arg.cast());
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, core::ptr::null_mut());
        libc::pthread_attr_destroy(&mut attr);
        if error != 0 {
            drop(Box::from_raw(arg));
            return Err(Errno(error));
        }
        Ok(JoinHandle { thread, stack: Some(stack) })
    }
}

/// Runs `body` on such a thread and waits for it.
///
/// # Errors
/// As [`spawn`].
pub fn scoped(name: &str, body: impl FnOnce() + Send) -> Result<()> {
    let body: Box<dyn FnOnce() + Send + '_> = Box::new(body);
    // SAFETY: only the lifetime is erased: the thread has ended, and with it `body`, when `join` returns.
    let body =
        unsafe { core::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Box<dyn FnOnce() + Send>>(body) };
    spawn(name, body)?.join();
    Ok(())
}

#[cfg(test)]
mod tests {
    use ring0::layout::{STACKS_BASE, STACKS_END};
    use std::sync::mpsc;

    #[test]
    fn stack_and_tls_lie_in_the_arena() {
        thread_local!(static HERE: u8 = const { 1 });
        let (send, receive) = mpsc::channel();
        let thread = super::spawn("test", move || {
            let local = 0u8;
            let tls = HERE.with(|h| core::ptr::from_ref(h) as u64);
            send.send([core::ptr::from_ref(&local) as u64, tls]).unwrap();
        });
        for address in receive.recv().unwrap() {
            assert!((STACKS_BASE..STACKS_END).contains(&address), "{address:#x}");
        }
        thread.unwrap().join();
    }
}
