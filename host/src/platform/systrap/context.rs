//! A task's stub thread, and the switch into the program and back.

use super::Shares;
use super::arch::Frames;
use super::layout::{Control, KIND_CALL, TURN_KERNEL, TURN_STUB, slot_offset};
use super::patches::{CallCode, HOT, Stop, call_code};
use super::process::{KICK, Process, Thread};
use super::space::Space;
use super::worker;
use crate::arch::{FpState, Registers, UserRegs};
use crate::hostsys::stub;
use crate::platform::{AddressSpace, Context, Trap};
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// Faults in a row at one address that are answered here before `mm` is asked regardless.
const PATIENCE: u32 = 16;
/// Switches before a task counts as one that traps often.
const SETTLED: u32 = 64;
/// System call instructions whose traps are counted at a time.
const SITES: usize = 16;

pub(super) struct StubContext {
    shares: Arc<Shares>,
    /// The thread this task has, and whose it is.
    at: Option<(Arc<Process>, Thread)>,
    /// Where `mm` was last asked to resolve a fault: what it mapped there is wanted at once.
    asked: Option<u64>,
    /// Switches so far, up to [`SETTLED`].
    switches: u32,
    code: Option<CallCode>,
    /// While the thread is at a rewritten call: the registers it came with.
    stopped: UserRegs,
    /// While it is: what the CPU has in its FP registers does not count.
    fp_void: bool,
    /// Where system calls trapped: the addresses behind, and how often.
    sites: [(u64, u32); SITES],
}

impl StubContext {
    pub(super) fn new(shares: Arc<Shares>) -> Self {
        StubContext {
            shares,
            at: None,
            asked: None,
            switches: 0,
            code: call_code(),
            stopped: UserRegs::default(),
            fp_void: false,
            sites: [(0, 0); SITES],
        }
    }

    /// The thread in `space`'s process, made or moved to if necessary.
    fn thread(&mut self, space: &Space) -> Option<()> {
        let here = self.at.as_ref().is_some_and(|(process, _)| Arc::ptr_eq(process, &space.process));
        if !here {
            self.release();
            let thread = space.thread().ok()?;
            self.at = Some((space.process.clone(), thread));
            // Where it stopped for another task means nothing.
            self.make_frame(None);
            self.fp_void = false;
        }
        Some(())
    }

    fn release(&mut self) {
        if let Some((process, thread)) = self.at.take() {
            process.park(thread);
        }
    }

    /// Has the thread make a frame if it is at a rewritten call, and copies the FP state out of that. Whatever goes
    /// wrong ends the process.
    fn make_frame(&mut self, fp: Option<&mut FpState>) {
        let Some((process, thread)) = self.at.as_mut().filter(|(_, thread)| thread.at_call) else { return };
        thread.at_call = false;
        let nursery = &self.shares.nursery;
        let index = thread.slot;
        nursery.control(index, offset_of!(Control, reply)).store(1, Ordering::Relaxed);
        nursery.control(index, offset_of!(Control, spin)).store(0, Ordering::Relaxed);
        let turn = nursery.turn(index);
        turn.store(TURN_STUB, Ordering::SeqCst);
        if nursery.control(index, offset_of!(Control, stub_sleeps)).load(Ordering::SeqCst) != 0 {
            stub::wake_shared(turn);
        }
        self.shares.frames_made.add();
        // Only a program that has broken its slot does anything else than what is asked for; it may be running.
        process.await_stop(index, Some(thread.tid), &|| true);
        if let (Some(fp), Some(frames), false) = (fp, nursery.frames.get(), process.is_dead()) {
            frames.read_fp(&nursery.slots, slot_offset(index), fp);
        }
    }

    /// Counts the trap of a system call; one that traps often is rewritten.
    fn count(&mut self, space: &Space, regs: &UserRegs) {
        let ret = regs.ip();
        let site = &mut self.sites[(ret >> 1) as usize % SITES];
        if site.0 != ret {
            *site = (ret, 0);
        }
        site.1 = site.1.saturating_add(1);
        // If it cannot be rewritten, that is asked less and less often.
        if site.1 >= HOT
            && site.1.is_power_of_two()
            && regs.second_tls() == 0
            && space.rewrite(ret, regs.syscall_number())
        {
            site.1 = 0;
            self.shares.rewritten.add();
        }
    }
}

impl Drop for StubContext {
    fn drop(&mut self) {
        self.release();
    }
}

impl Context for StubContext {
    fn switch(&mut self, space: &Arc<dyn AddressSpace>, regs: &mut UserRegs, fp: &mut FpState) -> Trap {
        let Some(space) = space.as_any().downcast_ref::<Space>() else { return Trap::Dead };
        let shares = self.shares.clone();
        let worker = worker::current();
        let fresh = self.at.is_none();
        if let Some(addr) = self.asked.take() {
            space.hint(addr);
        }
        if self.thread(space).is_none() {
            return Trap::Dead;
        }
        if fresh {
            // The first things a program touches.
            space.hint(regs.ip());
            space.hint(regs.sp());
        }
        let nursery = &shares.nursery;
        let Some(frames) = nursery.frames.get() else { return Trap::Dead };
        let Some((_, thread)) = self.at.as_mut() else { return Trap::Dead };
        let slot = slot_offset(thread.slot);
        if thread.at_call && (self.fp_void || !Frames::answer_call(&nursery.slots, slot, &self.stopped, regs))
        {
            self.make_frame(if self.fp_void { None } else { Some(&mut *fp) });
        }
        let Some((process, thread)) = self.at.as_mut() else { return Trap::Dead };
        self.fp_void = false;
        // Both sides on CPUs of their own, looking for their turns; else both on one, sleeping.
        let settled = worker.as_ref().filter(|_| self.switches >= SETTLED);
        let other = settled.and_then(|worker| worker.other_cpu.filter(|_| worker.pace.lock().spread()));
        self.switches += u32::from(self.switches < SETTLED);
        if let Some(cpu) = other.or(worker.as_ref().map(|worker| worker.cpu)).filter(|cpu| *cpu != thread.cpu)
        {
            stub::pin(thread.tid, cpu);
            thread.cpu = cpu;
        }
        let spins = settled.filter(|_| other.is_some()).map_or(0, |worker| worker.pace.lock().spins());
        let turn = nursery.turn(thread.slot);
        let (tid, index) = (thread.tid, thread.slot);
        let kernel_sleeps = nursery.control(index, offset_of!(Control, kernel_sleeps));
        let stub_sleeps = nursery.control(index, offset_of!(Control, stub_sleeps));
        let kind = nursery.control(index, offset_of!(Control, kind));
        let reply = nursery.control(index, offset_of!(Control, reply));
        nursery.control(index, offset_of!(Control, spin)).store(spins, Ordering::Relaxed);
        let mut from_call = thread.at_call;
        if !from_call {
            let lend = space.rewritten.load(Ordering::Relaxed);
            frames.write(&nursery.slots, slot, shares.mask, lend, regs, fp);
        }
        let mut patience = PATIENCE;
        loop {
            if process.is_dead() {
                return Trap::Dead;
            }
            // A kick that comes after the worker is entered sets it again.
            reply.store(0, Ordering::SeqCst);
            if worker.as_ref().is_some_and(|worker| !worker.kicks.enter(process.pid, tid, index)) {
                return Trap::Kick;
            }
            shares.switches.add();
            kernel_sleeps.store(u32::from(spins == 0), Ordering::Relaxed);
            if !space.flush_and_hand_over(index) {
                turn.store(TURN_STUB, Ordering::SeqCst);
                if stub_sleeps.load(Ordering::SeqCst) != 0 {
                    stub::wake_shared(turn);
                }
            }
            worker.as_ref().inspect(|worker| worker.handed_over(nursery, index, spins != 0));
            let mut left = spins;
            while left > 0 && turn.load(Ordering::SeqCst) != TURN_KERNEL {
                core::hint::spin_loop();
                left -= 1;
            }
            if turn.load(Ordering::SeqCst) != TURN_KERNEL {
                let kicked = || worker.as_ref().is_some_and(|worker| worker.kicks.is_kicked());
                process.await_stop(index, Some(tid), &kicked);
                if let Some(worker) = settled.filter(|_| spins != 0) {
                    worker.pace.lock().missed();
                }
            }
            if spins != 0 {
                shares.spread.add();
            }
            settled.inspect(|worker| worker.pace.lock().switched());
            if process.is_dead() {
                worker.as_ref().inspect(|worker| worker.kicks.leave(false));
                return Trap::Dead;
            }
            thread.at_call = self.code.is_some() && kind.load(Ordering::SeqCst) == KIND_CALL;
            if thread.at_call {
                Frames::read_call(&nursery.slots, slot, regs);
                self.stopped = *regs;
                worker.as_ref().inspect(|worker| worker.kicks.leave(false));
                shares.direct.add();
                return Trap::Syscall;
            }
            let given = *regs;
            let mut trap = frames.read(&nursery.slots, slot, KICK, regs, fp);
            let trapped = regs.ip();
            if let Some(code) = self.code.as_ref().filter(|_| space.rewritten.load(Ordering::Relaxed)) {
                trap = space.after(trap, regs, &Stop { code, from_call, given: &given });
            }
            from_call = false;
            worker.as_ref().inspect(|worker| worker.kicks.leave(trap == Trap::Kick));
            if let Trap::PageFault { addr, access, .. } = trap {
                shares.faults.add();
                patience -= 1;
                if patience > 0 && space.provide(addr, access) {
                    continue;
                }
                self.asked = Some(addr);
            } else if trap == Trap::Syscall && trapped == regs.ip() && self.code.is_some() {
                self.count(space, regs);
            }
            return trap;
        }
    }

    fn save_fp(&mut self, fp: &mut FpState) {
        self.make_frame(if self.fp_void { None } else { Some(fp) });
        self.fp_void = false;
    }

    fn drop_fp(&mut self) {
        self.fp_void = self.at.as_ref().is_some_and(|(_, thread)| thread.at_call);
    }
}
