//! A task's stub thread, and the switch into the program and back.

use super::Shares;
use super::layout::{Control, TURN_KERNEL, TURN_STUB};
use super::pace::Pace;
use super::process::{KICK, Process, Thread, slot_address, slot_offset};
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

pub(super) struct StubContext {
    shares: Arc<Shares>,
    /// The thread this task has, and whose it is.
    at: Option<(Arc<Process>, Thread)>,
    /// Where `mm` was last asked to resolve a fault: what it mapped there is wanted at once.
    asked: Option<u64>,
    pace: Pace,
}

impl StubContext {
    pub(super) fn new(shares: Arc<Shares>) -> Self {
        StubContext { shares, at: None, asked: None, pace: Pace::new() }
    }

    /// The thread in `space`'s process, made or moved to if necessary.
    fn thread(&mut self, space: &Space) -> Option<()> {
        let here = self.at.as_ref().is_some_and(|(process, _)| Arc::ptr_eq(process, &space.process));
        if !here {
            self.release();
            let thread = space.thread().ok()?;
            self.at = Some((space.process.clone(), thread));
        }
        Some(())
    }

    fn release(&mut self) {
        if let Some((process, thread)) = self.at.take() {
            process.park(thread);
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
        let Some((_, thread)) = self.at.as_mut() else { return Trap::Dead };
        if fresh {
            // The first things a program touches.
            space.hint(regs.ip());
            space.hint(regs.sp());
        }
        let process = &space.process;
        let nursery = &shares.nursery;
        let Some(frames) = nursery.frames.get() else { return Trap::Dead };
        let other = worker.as_ref().and_then(|worker| worker.other_cpu).filter(|_| self.pace.spread());
        if let Some(cpu) = other.or(worker.as_ref().map(|worker| worker.cpu)).filter(|cpu| *cpu != thread.cpu)
        {
            stub::pin(thread.tid, cpu);
            thread.cpu = cpu;
        }
        let spins = if other.is_some() { self.pace.spins() } else { 0 };
        let (slot, address) = (slot_offset(thread.slot), slot_address(thread.slot));
        let turn = nursery.turn(thread.slot);
        let (tid, index) = (thread.tid, thread.slot);
        let kernel_sleeps = nursery.control(index, offset_of!(Control, kernel_sleeps));
        let stub_sleeps = nursery.control(index, offset_of!(Control, stub_sleeps));
        nursery.control(index, offset_of!(Control, spin)).store(spins, Ordering::Relaxed);
        frames.write(&nursery.slots, slot, address, shares.mask, regs, fp);
        let mut patience = PATIENCE;
        loop {
            if process.is_dead() {
                return Trap::Dead;
            }
            if worker.as_ref().is_some_and(|worker| !worker.enter(process.pid, tid, index)) {
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
            let mut left = spins;
            while left > 0 && turn.load(Ordering::SeqCst) != TURN_KERNEL {
                core::hint::spin_loop();
                left -= 1;
            }
            if turn.load(Ordering::SeqCst) != TURN_KERNEL {
                nursery.await_stop(index, &|| process.is_dead());
                if spins != 0 {
                    self.pace.missed();
                }
            }
            if spins != 0 {
                shares.spread.add();
            }
            self.pace.switched();
            if process.is_dead() {
                worker.as_ref().inspect(|worker| worker.leave(false));
                return Trap::Dead;
            }
            let trap = frames.read(&nursery.slots, slot, KICK, regs, fp);
            worker.as_ref().inspect(|worker| worker.leave(trap == Trap::Kick));
            if let Trap::PageFault { addr, access, .. } = trap {
                shares.faults.add();
                patience -= 1;
                if patience > 0 && space.provide(addr, access) {
                    continue;
                }
                self.asked = Some(addr);
            }
            return trap;
        }
    }
}
