//! rseq(2): sequences of instructions that are begun anew when the kernel came between.
//!
//! A thread names a place of its memory. There the kernel keeps the CPU that the thread runs on, and there the thread
//! says which sequence it is in. Before a thread goes on in user code after it was preempted, moved to another CPU, or
//! was sent to a handler, it is sent to the sequence's abort address if it was inside.
//!
//! What happened is noted as a bit of the task's work word ([`work::RSEQ`]), so that nobody pays who has registered
//! nothing, and nothing is looked at on the way out of a system call: a sequence makes none.

use super::Current;
use super::signal::{SIGSEGV, SigInfo};
use super::task::work;
use crate::abi::{Errno, Result};
use crate::arch::Registers;
use crate::loader::RSEQ_ALIGN;
use core::sync::atomic::Ordering;

/// The size of the first `struct rseq`: what there is behind `mm_cid` is padding up to it.
const SIZE: u32 = 32;
/// Where `rseq_cs` is in it.
const CS: u64 = 8;
/// Where `flags` is.
const FLAGS: u64 = 16;
/// Where `node_id` is, with `mm_cid` behind it.
const NODE: u64 = 20;
/// RSEQ_CPU_ID_UNINITIALIZED.
const UNINITIALIZED: u32 = u32::MAX;

/// A thread's registration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rseq {
    addr: u64,
    len: u32,
    signature: u32,
}

impl Current {
    /// Registers the area of `len` bytes at `addr`, whose abort addresses have `signature` in front of them.
    ///
    /// # Errors
    /// EBUSY if it is registered already; EINVAL for another area, a wrong size or a wrong alignment; EPERM for another
    /// signature; EFAULT.
    pub fn register_rseq(&mut self, addr: u64, len: u32, signature: u32) -> Result<()> {
        if let Some(known) = self.rseq {
            return Err(if known.addr != addr || known.len != len {
                Errno::EINVAL
            } else if known.signature != signature {
                Errno::EPERM
            } else {
                Errno::EBUSY
            });
        }
        if len < SIZE || !addr.is_multiple_of(RSEQ_ALIGN) {
            return Err(Errno::EINVAL);
        }
        if addr.checked_add(len.into()).is_none_or(|end| end > self.mm().task_size()) {
            return Err(Errno::EFAULT);
        }
        self.rseq = Some(Rseq { addr, len, signature });
        self.note_rseq();
        Ok(())
    }

    /// Takes the registration back.
    ///
    /// # Errors
    /// EINVAL if it is none; EPERM for another signature; EFAULT.
    pub fn unregister_rseq(&mut self, addr: u64, len: u32, signature: u32) -> Result<()> {
        let known = self.rseq.filter(|known| known.addr == addr && known.len == len).ok_or(Errno::EINVAL)?;
        if known.signature != signature {
            return Err(Errno::EPERM);
        }
        self.mm().write_val(addr, &[0, UNINITIALIZED])?;
        self.mm().write_val(addr + NODE, &[0_u32; 2])?;
        self.forget_rseq();
        Ok(())
    }

    pub(super) fn forget_rseq(&mut self) {
        self.rseq = None;
        self.task.work.fetch_and(!work::RSEQ, Ordering::SeqCst);
    }

    /// Notes that the thread may have been somewhere else, or others where it was.
    #[inline]
    pub(super) fn note_rseq(&self) {
        if self.rseq.is_some() {
            self.task.work.fetch_or(work::RSEQ, Ordering::SeqCst);
        }
    }

    /// Before user code: leaves the sequence that was disturbed, and says which CPU this is.
    #[cold]
    pub(super) fn refresh_rseq(&mut self) {
        self.task.work.fetch_and(!work::RSEQ, Ordering::SeqCst);
        let Some(Rseq { addr, .. }) = self.rseq else { return };
        let cpu = self.kernel.sched.current_cpu() as u32;
        if self.update_rseq(addr, cpu).is_err() {
            self.force_signal(SigInfo::kernel(SIGSEGV));
        }
    }

    fn update_rseq(&mut self, addr: u64, cpu: u32) -> Result<()> {
        let mm = self.mm().clone();
        let [cpus, descriptor] = mm.read_val::<[u64; 2]>(addr)?;
        if descriptor != 0 {
            self.abort_sequence()?;
        }
        // Usually it says so already; and a write would copy a page that fork has shared.
        if cpus != u64::from(cpu) << 32 | u64::from(cpu) {
            // There is one node; and no two threads of one memory run on one CPU at a time, so that its number will do for
            // both.
            mm.write_val(addr, &[cpu, cpu])?;
            mm.write_val(addr + NODE, &[0, cpu])?;
        }
        Ok(())
    }

    /// If the thread is in a sequence it goes on at that one's abort address; else the sequence is forgotten.
    ///
    /// # Errors
    /// The thread has named a bad one: it is to get SIGSEGV.
    pub(super) fn abort_sequence(&mut self) -> Result<()> {
        let Some(rseq) = self.rseq else { return Ok(()) };
        let mm = self.mm().clone();
        let descriptor: u64 = mm.read_val(rseq.addr + CS)?;
        if descriptor == 0 {
            return Ok(());
        }
        let [version_and_flags, start, length, abort] = mm.read_val::<[u64; 4]>(descriptor)?;
        let bound = mm.task_size();
        let end = start.checked_add(length).ok_or(Errno::EINVAL)?;
        let inside = |ip: u64| ip.wrapping_sub(start) < length;
        // Version 0, and flags that are no more (Linux 6.1).
        if start >= bound || end >= bound || abort >= bound || version_and_flags != 0 || inside(abort) {
            return Err(Errno::EINVAL);
        }
        if mm.read_val::<u32>(abort.wrapping_sub(4))? != rseq.signature {
            return Err(Errno::EINVAL);
        }
        if inside(self.regs.ip()) {
            if mm.read_val::<u32>(rseq.addr + FLAGS)? != 0 {
                return Err(Errno::EINVAL);
            }
            mm.write_val(rseq.addr + CS, &0_u64)?;
            self.regs.set_ip(abort);
            return Ok(());
        }
        mm.write_val(rseq.addr + CS, &0_u64)
    }
}
