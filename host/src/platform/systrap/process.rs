//! Stub processes: made, given orders, reaped.
//!
//! The **zygote** is executed once per platform, has nothing mapped but the stub, and makes every other stub process
//! by cloning itself: a few microseconds of copying where a fork of the kernel's own process would copy page tables.
//! Stubs are its siblings (CLONE_PARENT), children of the **keeper** thread, which does nothing but wait for their
//! end: it wakes whoever waits for a stub that died, and since PDEATHSIG follows the thread, its end (the sandbox's)
//! is theirs.
//!
//! Orders: see `layout::Orders` and the mapper in the assembly. The order page is read-only in the stub and its `done`
//! word can only be written by a call that program threads cannot make, so a program can neither issue nor alter nor
//! confirm an order. What `Control::result` says is the program's word only, and used as such.
//!
//! Locks, outermost first: a process's `channel`, the zygote's `channel`, `registry`, `pools`.

use super::arch::{self, Frames};
use super::holdings::{Holdings, Pools};
use super::image;
use super::layout::{
    CODE_OFFSET, CODE_PAGES, CONTROL, Control, EXPECT, FD_ORDERS, FD_SLOTS, FORK, ORDER_COUNT, ORDERS,
    ORDERS_LEN, Order, Orders, PROCESS_COUNT, SLOT_LEN, THREAD, TURN_KERNEL, TURN_ORDERS, TURN_STUB,
    slot_address, slot_offset,
};
use super::patience::Patience;
use super::shared::Shared;
use super::worker;
use crate::abi::{Errno, Result};
use crate::hostfd::HostFd;
use crate::hostsys::stub;
use crate::sync::{Lock, Rank};
use core::ffi::CStr;
use core::mem::offset_of;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

const READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE) as u64;
const SHARED_FIXED: u64 = (libc::MAP_SHARED | libc::MAP_FIXED) as u64;
/// Top bit of a batch number: it failed. Numbers stay below.
const FAILED: u32 = 1 << 31;
/// Written to the futex words of a dead process.
const DEAD: u32 = u32::MAX;
/// How long a thread has to answer a kick.
const ANSWER: Duration = Duration::from_secs(1);
/// Signals that a program's own instructions make.
pub(super) const SYNCHRONOUS: [i32; 6] =
    [libc::SIGSYS, libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];
/// The signal that brings a stub thread back. Any that programs' own faults do not use.
pub(super) const KICK: i32 = libc::SIGURG;

/// What stub processes have in common.
pub(super) struct Nursery {
    pub(super) slots: Shared,
    pub(super) orders: Shared,
    /// How frames lie in slots, learned from the first thread.
    pub(super) frames: OnceLock<Frames>,
    pools: Arc<Lock<Pools>>,
    registry: Lock<Registry>,
    pub(super) zygote: Lock<Channel>,
    zygote_pid: AtomicI32,
    /// Begun but not asked for yet: the next process.
    spare: Lock<Option<Begun>>,
    /// The zygote is gone: no more processes.
    pub(super) closed: AtomicBool,
    /// Ended on purpose.
    ending: AtomicBool,
    /// Called when a process has died whose space is still in use.
    pub(super) lost: OnceLock<Box<dyn Fn() + Send + Sync>>,
    pub(super) own_pid: i32,
}

#[derive(Default)]
struct Registry {
    processes: BTreeMap<i32, Entry>,
    /// Reaped before they were entered.
    early: Vec<i32>,
}

/// A process whose clone has been ordered.
struct Begun {
    holdings: Arc<Holdings>,
    slot: u32,
    channel: Channel,
}

/// A process that has not been reaped.
struct Entry {
    process: Weak<Process>,
    holdings: Arc<Holdings>,
}

/// The kernel's end of an order page.
pub(super) struct Channel {
    pub(super) page: u32,
    seq: u32,
    /// The last batch has been waited for.
    settled: bool,
    /// An order failed and nobody has been told.
    failed: bool,
}

/// A stub process.
pub(super) struct Process {
    pub(super) nursery: Arc<Nursery>,
    pub(super) pid: i32,
    dead: AtomicBool,
    /// The CPU that the mapper was bound to last.
    cpu: AtomicUsize,
    channel: Lock<Channel>,
    pub(super) holdings: Arc<Holdings>,
    /// The slot where the mapper's results are.
    first_slot: u32,
    /// Parked threads without a task: slot and thread id.
    idle: Lock<Vec<Thread>>,
}

/// A stub thread, parked in its handler whenever the kernel holds this value.
pub(super) struct Thread {
    pub(super) slot: u32,
    pub(super) tid: i32,
    /// The CPU it was bound to last.
    pub(super) cpu: usize,
    /// It stopped at a rewritten call, not in its handler.
    pub(super) at_call: bool,
}

impl Nursery {
    /// Starts the zygote, with `frames_file` as the stubs' application memory.
    pub(super) fn start(frames_file: HostFd) -> Result<Arc<Self>> {
        let slots = Shared::new(c"pillbox-slots", CODE_OFFSET + u64::from(CODE_PAGES) * 4096)?;
        let orders = Shared::new(c"pillbox-orders", u64::from(PROCESS_COUNT) * ORDERS_LEN)?;
        let nursery = Arc::new(Nursery {
            slots,
            orders,
            frames: OnceLock::new(),
            pools: Pools::new(),
            registry: Lock::new(Rank::StubRegistry, Registry::default()),
            zygote: Lock::new(Rank::Zygote, Channel::new(0)),
            zygote_pid: AtomicI32::new(0),
            spare: Lock::new(Rank::StubSpare, None),
            closed: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            lost: OnceLock::new(),
            own_pid: stub::own_pid(),
        });
        nursery.init_page(0, 0);
        let image = image::build()?;
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let keeper = nursery.clone();
        // Not joined: it ends when the zygote and the last stub have.
        let _keeper = crate::arena::thread::spawn("stub-keeper", move || {
            let path = format!("/proc/self/fd/{}\0", image.raw());
            let pid = CStr::from_bytes_with_nul(path.as_bytes())
                .map_err(|_| Errno::EINVAL)
                .and_then(|path| stub::spawn(path, [&frames_file, keeper.slots.fd(), keeper.orders.fd()]));
            drop((image, frames_file));
            // Stubs are of the same user: nothing that it does for them takes a privilege.
            let pid = pid.and_then(|pid| crate::hostsys::confine::drop_capabilities(0).map(|()| pid));
            if let Ok(pid) = pid {
                keeper.zygote_pid.store(pid, Ordering::SeqCst);
            }
            if send.send(pid.map(drop)).is_ok() && pid.is_ok() {
                keeper.keep();
            }
        })?;
        receive.recv().map_err(|_| Errno::EIO)??;
        if let Err(errno) = nursery.set_up_zygote() {
            nursery.end();
            return Err(errno);
        }
        Ok(nursery)
    }

    /// Ends the zygote and with it the keeper; stubs are ended by their owners, or by the keeper's end.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
        self.closed.store(true, Ordering::SeqCst);
        let pid = self.zygote_pid.load(Ordering::SeqCst);
        if pid > 0 {
            stub::kill(pid);
        }
    }

    /// Stops the zygote and all stubs, or lets them go on: they are a process group of their own.
    pub(super) fn pause(&self, on: bool) {
        let pid = self.zygote_pid.load(Ordering::SeqCst);
        if pid > 0 {
            stub::pause_group(pid, on);
        }
    }

    /// The keeper thread: waits for the end of stubs, and of the zygote.
    fn keep(&self) {
        let mut zygote_reaped = false;
        while let Ok((pid, killed)) = stub::reap_any() {
            let ending = self.ending.load(Ordering::SeqCst);
            if pid == self.zygote_pid.load(Ordering::SeqCst) {
                zygote_reaped = true;
                self.closed.store(true, Ordering::SeqCst);
                self.release_waiters(0);
                if !ending {
                    crate::hostsys::process::die(&[
                        "pillbox: the sandbox's stub zygote was killed; the sandbox is over\n",
                    ]);
                }
            } else {
                // Unlocked before the burial, which may drop the last reference to the process.
                let entry = {
                    let mut registry = self.registry.lock();
                    let entry = registry.processes.remove(&pid);
                    if entry.is_none() {
                        if killed && !ending {
                            // The spare: no program's death, and programs would be told of a lack that there is not.
                            crate::hostsys::process::die(&[
                                "pillbox: a stub process was killed; the sandbox is over\n",
                            ]);
                        }
                        registry.early.push(pid);
                    }
                    entry
                };
                if let Some(entry) = entry {
                    self.bury(&entry);
                }
            }
            if zygote_reaped && self.registry.lock().processes.is_empty() {
                return;
            }
        }
    }

    /// Tells everybody who waits for a process that it is gone.
    fn bury(&self, entry: &Entry) {
        let Some(process) = entry.process.upgrade() else { return };
        process.dead.store(true, Ordering::SeqCst);
        self.release_waiters(entry.holdings.page);
        let slots = entry.holdings.slots.lock().clone();
        for slot in slots {
            self.turn(slot).store(TURN_KERNEL, Ordering::SeqCst);
            self.wake_worker(slot);
        }
        if let Some(tell) = self.lost.get() {
            tell();
        }
    }

    fn release_waiters(&self, page: u32) {
        for word in [offset_of!(Orders, done), offset_of!(Orders, ack)] {
            let word = self.orders.word(u64::from(page) * ORDERS_LEN + word as u64);
            word.store(DEAD, Ordering::SeqCst);
            stub::wake_shared(word);
        }
    }

    /// A 32-bit control word of a slot.
    pub(super) fn control(&self, slot: u32, field: usize) -> &AtomicU32 {
        self.slots.word(slot_offset(slot) + CONTROL + field as u64)
    }

    /// Sets a slot's control words up for a new thread, whose first stop somebody waits for.
    fn init_slot(&self, slot: u32) {
        for field in (0..size_of::<Control>()).step_by(4) {
            self.control(slot, field).store(0, Ordering::Relaxed);
        }
        self.control(slot, offset_of!(Control, kernel_sleeps)).store(1, Ordering::Relaxed);
        self.turn(slot).store(TURN_STUB, Ordering::SeqCst);
    }

    /// The word that says whose turn a slot's thread is.
    pub(super) fn turn(&self, slot: u32) -> &AtomicU32 {
        self.control(slot, offset_of!(Control, turn))
    }

    /// Makes a worker that sleeps in [`Process::await_stop`] look again.
    pub(super) fn wake_worker(&self, slot: u32) {
        let sleeps = self.control(slot, offset_of!(Control, kernel_sleeps));
        sleeps.store(0, Ordering::SeqCst);
        stub::wake_shared(sleeps);
    }

    /// Whether a process's mapper has orders that it has not carried out.
    fn is_mapping(&self, page: u32) -> bool {
        let word = |field: usize| {
            self.orders.word(u64::from(page) * ORDERS_LEN + field as u64).load(Ordering::SeqCst)
        };
        let done = word(offset_of!(Orders, done));
        done & !FAILED != word(offset_of!(Orders, ok)) && done != DEAD
    }

    fn result(&self, slot: u32) -> u64 {
        self.slots.read(slot_offset(slot) + CONTROL + offset_of!(Control, result) as u64)
    }

    /// Prepares an order page for a process whose first slot is `slot`.
    fn init_page(&self, page: u32, slot: u32) {
        let at = u64::from(page) * ORDERS_LEN;
        for offset in (0..offset_of!(Orders, list) as u64).step_by(8) {
            self.orders.write(at + offset, 0);
        }
        let put = |field: usize, value: u64| self.orders.write(at + field as u64, value);
        put(offset_of!(Orders, done_offset), at + offset_of!(Orders, done) as u64);
        put(offset_of!(Orders, ack_offset), at + offset_of!(Orders, ack) as u64);
        put(
            offset_of!(Orders, thread_mask),
            SYNCHRONOUS.iter().fold(!0, |mask, signal| mask & !(1 << (signal - 1))),
        );
        if page != 0 {
            put(offset_of!(Orders, control), slot_address(slot) + CONTROL);
        }
    }

    /// A process with one parked thread. The next one is begun at once, to be ready when it is asked for: the zygote is
    /// bound to no CPU and clones it meanwhile.
    pub(super) fn spawn(self: &Arc<Self>) -> Result<(Arc<Process>, Thread)> {
        let mut spare = self.spare.lock();
        let begun = match spare.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        let done = self.finish(begun);
        // Without a next one, the next call begins it, and says what went wrong.
        *spare = self.begin().ok();
        done
    }

    /// Orders a process, without waiting for it. One at a time: the child learns from the zygote's order page where its
    /// own is, so that nothing else may be ordered until it has read that.
    fn begin(&self) -> Result<Begun> {
        let (holdings, slot) = Holdings::take(&self.pools)?;
        let page = holdings.page;
        self.init_page(page, slot);
        self.init_slot(slot);
        let mut channel = Channel::new(page);
        let first = [
            map_slot(slot),
            Order::new(libc::SYS_munmap, [slot_address(0), SLOT_LEN, 0, 0, 0, 0]),
            Order::new(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG as u64, libc::SIGKILL as u64, 0, 0, 0, 0]),
            Order { expected: self.own_pid as u32, ..Order::new(libc::SYS_getppid, [0; 6]).kind(EXPECT) },
            arch::clone_thread().kind(THREAD),
        ];
        self.set_stack(page, slot, 1);
        channel.issue(self, &first, &[sigaltstack()], 0);
        let fork = Order::new(libc::SYS_clone, [(libc::CLONE_PARENT | libc::SIGCHLD) as u64, 0, 0, 0, 0, 0]);
        let map = Order::new(
            libc::SYS_mmap,
            [
                ORDERS,
                ORDERS_LEN,
                libc::PROT_READ as u64,
                SHARED_FIXED,
                FD_ORDERS,
                u64::from(page) * ORDERS_LEN,
            ],
        );
        let mut zygote = self.zygote.lock();
        zygote.issue(self, &[fork.kind(FORK)], &[map], 0);
        zygote.ring(self);
        Ok(Begun { holdings, slot, channel })
    }

    /// Waits for a process that was ordered.
    fn finish(self: &Arc<Self>, begun: Begun) -> Result<(Arc<Process>, Thread)> {
        let Begun { holdings, slot, channel } = begun;
        let forked = self.zygote.lock().settle(self, &|| self.closed.load(Ordering::SeqCst));
        if let Err(errno) = forked {
            return Err(if errno == Errno::EIO { self.zygote_errno() } else { errno });
        }
        let pid = self.result(0) as i32;
        let process = Arc::new(Process {
            nursery: self.clone(),
            pid,
            dead: AtomicBool::new(false),
            cpu: AtomicUsize::new(usize::MAX),
            channel: Lock::new(Rank::StubChannel, channel),
            holdings: holdings.clone(),
            first_slot: slot,
            idle: Lock::new(Rank::StubThreads, Vec::new()),
        });
        {
            let mut registry = self.registry.lock();
            if let Some(at) = registry.early.iter().position(|early| *early == pid) {
                registry.early.swap_remove(at);
                drop(registry);
                return Err(Errno::EAGAIN);
            }
            registry.processes.insert(pid, Entry { process: Arc::downgrade(&process), holdings });
        }
        process.channel.lock().settle(self, &|| process.is_dead())?;
        let tid = self.result(slot) as i32;
        let thread = process.started(slot, tid, 1)?;
        Ok((process, thread))
    }

    fn zygote_errno(&self) -> Errno {
        let result = self.result(0) as i64;
        if (-4095..0).contains(&result) { Errno(-result as i32) } else { Errno::EAGAIN }
    }

    /// Says where the next thread's alternate stack is and how it acknowledges.
    fn set_stack(&self, page: u32, slot: u32, ack: u32) {
        let at = u64::from(page) * ORDERS_LEN;
        self.orders.write(at + offset_of!(Orders, stack_sp) as u64, slot_address(slot));
        self.orders.write(at + offset_of!(Orders, stack_flags) as u64, 0);
        self.orders.write(at + offset_of!(Orders, stack_size) as u64, CONTROL);
        self.orders.word(at + offset_of!(Orders, ack_value) as u64).store(ack, Ordering::SeqCst);
    }
}

/// Binds a thread that is about to take turns with the caller to the caller's CPU (see `worker`).
fn bind_here(tid: i32, bound: &AtomicUsize) {
    if let Some(cpu) = worker::current_cpu().filter(|cpu| bound.load(Ordering::Relaxed) != *cpu) {
        stub::pin(tid, cpu);
        bound.store(cpu, Ordering::Relaxed);
    }
}

pub(super) fn map_slot(slot: u32) -> Order {
    let args = [slot_address(slot), SLOT_LEN, READ_WRITE, SHARED_FIXED, FD_SLOTS, slot_offset(slot)];
    Order::new(libc::SYS_mmap, args)
}

fn sigaltstack() -> Order {
    Order::new(libc::SYS_sigaltstack, [ORDERS + offset_of!(Orders, stack_sp) as u64, 0, 0, 0, 0, 0])
}

impl Channel {
    fn new(page: u32) -> Self {
        Channel { page, seq: 0, settled: true, failed: false }
    }

    /// Writes a batch of orders; `after` are for children of a clone at its end, `wake` is the thread the mapper wakes then, if any.
    /// The batch before must be settled.
    fn issue(&mut self, nursery: &Nursery, orders: &[Order], after: &[Order], wake: u64) {
        assert!(orders.len() + after.len() < ORDER_COUNT && self.settled);
        let at = u64::from(self.page) * ORDERS_LEN;
        self.seq = if self.seq + 1 >= FAILED - 1 { 1 } else { self.seq + 1 };
        self.settled = false;
        for (i, order) in orders.iter().chain(after).enumerate() {
            let at = at + offset_of!(Orders, list) as u64 + (i * size_of::<Order>()) as u64;
            nursery.orders.write(at, order.number);
            for (j, arg) in order.args.iter().enumerate() {
                nursery.orders.write(at + 8 + 8 * j as u64, *arg);
            }
            let tail = u64::from(order.kind) | u64::from(order.expected) << 32;
            nursery.orders.write(at + offset_of!(Order, kind) as u64, tail);
        }
        nursery.orders.write(at + offset_of!(Orders, wake) as u64, wake);
        // Without anybody else to wake, somebody will wait for this batch.
        nursery
            .orders
            .word(at + offset_of!(Orders, waiting) as u64)
            .store(u32::from(wake == 0), Ordering::Relaxed);
        let word = |field: usize| nursery.orders.word(at + field as u64);
        word(offset_of!(Orders, count)).store(orders.len() as u32, Ordering::Relaxed);
        word(offset_of!(Orders, ok)).store(self.seq, Ordering::Relaxed);
        word(offset_of!(Orders, failed)).store(self.seq | FAILED, Ordering::Relaxed);
        word(offset_of!(Orders, seq)).store(self.seq, Ordering::SeqCst);
    }

    /// Wakes the mapper.
    fn ring(&self, nursery: &Nursery) {
        stub::wake_shared(
            nursery.orders.word(u64::from(self.page) * ORDERS_LEN + offset_of!(Orders, seq) as u64),
        );
    }

    /// Waits until the last batch is done. A failure is told once.
    fn settle(&mut self, nursery: &Nursery, dead: &dyn Fn() -> bool) -> Result<()> {
        if self.settled {
            return if core::mem::take(&mut self.failed) { Err(Errno::EIO) } else { Ok(()) };
        }
        let at = u64::from(self.page) * ORDERS_LEN;
        let done = nursery.orders.word(at + offset_of!(Orders, done) as u64);
        let waiting = nursery.orders.word(at + offset_of!(Orders, waiting) as u64);
        loop {
            let value = done.load(Ordering::SeqCst);
            self.settled = true;
            if value == self.seq {
                return Ok(());
            }
            if value == self.seq | FAILED {
                return Err(Errno::EIO);
            }
            if value == DEAD || dead() {
                return Err(Errno::ESRCH);
            }
            self.settled = false;
            // Set before looking again (which the host does): the mapper writes `done`, then looks at `waiting`.
            waiting.store(1, Ordering::SeqCst);
            stub::wait_shared(done, value);
        }
    }

    pub(super) fn run(
        &mut self,
        nursery: &Nursery,
        orders: &[Order],
        after: &[Order],
        dead: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.issue(nursery, orders, after, 0);
        self.ring(nursery);
        self.settle(nursery, dead)
    }
}

impl Process {
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Makes the process's mapper execute orders.
    ///
    /// # Errors
    /// EIO when one failed, now or in an earlier batch that nobody waited for (orders after a failed one are not made);
    /// ESRCH when the process is dead.
    pub(super) fn order(&self, orders: &[Order]) -> Result<()> {
        let mut channel = self.channel.lock();
        channel.settle(&self.nursery, &|| self.is_dead())?;
        bind_here(self.pid, &self.cpu);
        for batch in orders.chunks(ORDER_COUNT - 2) {
            channel.run(&self.nursery, batch, &[], &|| self.is_dead())?;
        }
        Ok(())
    }

    /// As [`order`](Self::order), but the mapper gives the thread in `slot` the turn when it is done, whether or not it
    /// failed, and nobody waits. False: the orders were too many for that and are done, the thread has not the turn.
    pub(super) fn order_and_hand_over(&self, orders: &[Order], slot: u32) -> Result<bool> {
        if orders.len() > ORDER_COUNT - 2 {
            return self.order(orders).map(|()| false);
        }
        let mut channel = self.channel.lock();
        channel.settle(&self.nursery, &|| self.is_dead())?;
        bind_here(self.pid, &self.cpu);
        self.nursery.turn(slot).store(TURN_ORDERS, Ordering::SeqCst);
        channel.issue(&self.nursery, orders, &[], slot_address(slot) + CONTROL);
        channel.ring(&self.nursery);
        Ok(true)
    }

    /// Waits for orders that nobody waited for.
    pub(super) fn settle(&self) -> Result<()> {
        self.channel.lock().settle(&self.nursery, &|| self.is_dead())
    }

    /// A parked thread: one without a task, or a new one.
    pub(super) fn thread(&self) -> Result<Thread> {
        if let Some(thread) = self.idle.lock().pop() {
            return Ok(thread);
        }
        let nursery = &self.nursery;
        let slot = self.holdings.add_slot()?;
        nursery.init_slot(slot);
        let mut channel = self.channel.lock();
        // A failure in that batch is found out by the next fault.
        let unsettled = channel.settle(nursery, &|| self.is_dead());
        channel.failed |= unsettled.is_err();
        bind_here(self.pid, &self.cpu);
        let ack = channel.seq + 1;
        nursery.set_stack(channel.page, slot, ack);
        channel.run(
            nursery,
            &[map_slot(slot), arch::clone_thread().kind(THREAD)],
            &[sigaltstack()],
            &|| self.is_dead(),
        )?;
        let tid = nursery.result(self.first_slot) as i32;
        self.started(slot, tid, ack)
    }

    /// Waits until a new thread needs its orders no more and is parked.
    fn started(&self, slot: u32, tid: i32, ack: u32) -> Result<Thread> {
        let nursery = &self.nursery;
        let word =
            nursery.orders.word(u64::from(self.holdings.page) * ORDERS_LEN + offset_of!(Orders, ack) as u64);
        loop {
            let value = word.load(Ordering::SeqCst);
            if value == ack {
                break;
            }
            if value == DEAD || self.is_dead() {
                return Err(Errno::ESRCH);
            }
            stub::wait_shared(word, value);
        }
        self.await_stop(slot, None, &|| true);
        if self.is_dead() {
            return Err(Errno::ESRCH);
        }
        // The id is the process's word. Only a thread of this process will do.
        stub::signal_thread(self.pid, tid, 0)?;
        if nursery.frames.get().is_none() {
            let frames =
                Frames::learn(&nursery.slots, slot_offset(slot), slot_address(slot)).ok_or(Errno::ENOSYS)?;
            let _known = nursery.frames.set(frames);
        }
        // Threads start where the thread that cloned them is bound.
        Ok(Thread { slot, tid, cpu: self.cpu.load(Ordering::Relaxed), at_call: false })
    }

    /// Sleeps until a slot's thread has stopped, or is dead. A program that prevents that ends: its process is killed once
    /// the thread `tid` has been `kicked` for [`ANSWER`] and has not answered.
    pub(super) fn await_stop(&self, slot: u32, tid: Option<i32>, kicked: &dyn Fn() -> bool) {
        let nursery = &self.nursery;
        let sleeps = nursery.control(slot, offset_of!(Control, kernel_sleeps));
        let mut patience = Patience::of(ANSWER);
        loop {
            // Set before looking: the stub gives the turn, then looks here.
            sleeps.store(1, Ordering::SeqCst);
            if nursery.turn(slot).load(Ordering::SeqCst) == TURN_KERNEL || self.is_dead() {
                return;
            }
            if patience.is_over() || !kicked() {
                stub::wait_shared(sleeps, 1);
                continue;
            }
            // The mapper is in no program's hands: what it has to do may take a while, with kicks blocked.
            if nursery.is_mapping(self.holdings.page) {
                Patience::doze(sleeps, 1);
                continue;
            }
            patience.sleep(sleeps, 1);
            if nursery.turn(slot).load(Ordering::SeqCst) == TURN_KERNEL {
                return;
            }
            // It may have gone on without a turn, or answered somebody else.
            let _gone = tid.map(|tid| stub::signal_thread(self.pid, tid, KICK));
            if patience.is_over() {
                // From here on there is an end to wait for.
                self.kill();
            }
        }
    }

    /// Ends the process, if it has not ended.
    pub(super) fn kill(&self) {
        let registry = self.nursery.registry.lock();
        if registry.processes.contains_key(&self.pid) {
            // Not reaped: the pid is still its own.
            stub::kill(self.pid);
        }
    }

    /// Takes a parked thread back.
    pub(super) fn park(&self, thread: Thread) {
        self.idle.lock().push(thread);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
