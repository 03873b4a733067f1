//! Where things lie in a stub process, and the shared structures, as the assembly and the kernel both see them.
//!
//! Everything is inside the stub's window, which no program can map: the only one that this platform needs, since the
//! kernel lies in a process of its own. Low, so that the calls of programs that lie low can jump there.

use ring0::layout::fixed;

/// The window.
pub(super) const STUB_BASE: u64 = 0x6800_0000;
/// Its end.
pub(super) const STUB_END: u64 = 0x7800_0000;
const _: () = assert!(fixed::leaves_free(STUB_BASE, STUB_END));

/// The stub's code, then its system call filter: one read-only, executable page.
pub(super) const TEXT: u64 = STUB_BASE;
/// Bytes of [`TEXT`].
pub(super) const TEXT_LEN: u64 = 4096;
/// `struct sock_fprog` and the filter it points to, inside the text page.
pub(super) const FILTER: u64 = TEXT + 2048;
/// The same of the mappers' filter.
pub(super) const MAPPER_FILTER: u64 = TEXT + 3072;
/// The process's order page: mapped read-only, written by the kernel.
pub(super) const ORDERS: u64 = STUB_BASE + 0x1_0000;
/// Bytes of an order page.
pub(super) const ORDERS_LEN: u64 = 4096;
/// Slots: one per stub thread, each at the same index in the slot file and in the stub. Mapped one by one.
pub(super) const SLOTS: u64 = STUB_BASE + 0x100_0000;
/// Bytes of a slot: alternate stack below, control words in the last [`CONTROL_LEN`] bytes. A power of two: the stub
/// finds its slot by masking the stack pointer.
pub(super) const SLOT_LEN: u64 = 16 << 10;
/// Address of slot `slot` in a stub.
pub(super) fn slot_address(slot: u32) -> u64 {
    SLOTS + u64::from(slot) * SLOT_LEN
}

/// Offset of slot `slot` in the slot file.
pub(super) fn slot_offset(slot: u32) -> u64 {
    u64::from(slot) * SLOT_LEN
}

/// Slots there are.
pub(super) const SLOT_COUNT: u32 = ((STUB_END - SLOTS) / SLOT_LEN) as u32;
/// Processes there can be at a time.
pub(super) const PROCESS_COUNT: u32 = 16 << 10;
/// Bytes of control words in a slot. They lie above the alternate stack, so that a thread whose stack pointer is among
/// them gets its signal frames where they always are.
pub(super) const CONTROL_LEN: u64 = 256;
/// Offset of the control words in a slot.
pub(super) const CONTROL: u64 = SLOT_LEN - CONTROL_LEN;

/// Where rewritten system call instructions lead (see `patches`): pages of cells, read-only, mapped when needed.
pub(super) const CELLS: u64 = STUB_BASE + 0x2_0000;
/// Pages of cells that a process can have.
pub(super) const CELL_PAGES: u64 = 16;
/// Bytes of a cell.
pub(super) const CELL_LEN: u64 = 64;
/// The same pages again, among the program's own addresses while it has nothing there. The upper half of these
/// addresses, as stored in memory, is `0f 05`.
pub(super) const ALIAS: u64 = 0x050f_0000;
/// Bytes from [`ALIAS`] on.
pub(super) const ALIAS_LEN: u64 = CELL_PAGES * 4096;
const _: () = assert!(CELLS + ALIAS_LEN <= SLOTS && ALIAS + ALIAS_LEN <= TEXT && ALIAS & 0xffff == 0);
/// Offset of the code pages in the slot file: cells and rewritten copies of programs' pages.
pub(super) const CODE_OFFSET: u64 = SLOT_COUNT as u64 * SLOT_LEN;
/// Code pages there are.
pub(super) const CODE_PAGES: u32 = 1 << 16;

/// Descriptors in a stub: the application memory file, the slot file, the order file.
pub(super) const FD_FRAMES: u64 = 0;
pub(super) const FD_SLOTS: u64 = 1;
pub(super) const FD_ORDERS: u64 = 2;

/// Control words of a slot. Written by the program too, if it cares to: hostile.
#[repr(C)]
pub(super) struct Control {
    /// Whose turn it is: [`TURN_STUB`], [`TURN_KERNEL`] or [`TURN_ORDERS`]. The stub thread's futex.
    pub(super) turn: u32,
    /// The worker sleeps (or is about to): who gives it the turn has to clear this and wake it. The worker's futex,
    /// so that what wakes one side does not disturb the other.
    pub(super) kernel_sleeps: u32,
    /// The same of the stub thread.
    pub(super) stub_sleeps: u32,
    /// How often the stub thread looks for its turn before it sleeps.
    pub(super) spin: u32,
    /// How the stub thread has stopped: [`KIND_FRAME`] or [`KIND_CALL`].
    pub(super) kind: u32,
    /// At a rewritten call: 0 if the thread goes on behind it, else it makes a frame first. Set by its handler, too.
    pub(super) reply: u32,
    /// At a rewritten call: its number, then its result.
    pub(super) value: u64,
    /// Stack pointer in the handler. Read only before any program has run.
    pub(super) frame_sp: u64,
    /// FS base (x86), TPIDR_EL0 (arm64).
    pub(super) tls: u64,
    /// GS base (x86).
    pub(super) gs_base: u64,
    /// What the mapper's last order returned (first slot of a process). Trusted only in the zygote.
    pub(super) result: u64,
    /// At a rewritten call: the other registers. The processor's own business.
    pub(super) regs: [u64; 16],
}
const _: () = assert!(size_of::<Control>() as u64 <= CONTROL_LEN);

/// Stopped by a signal: everything is in its frame.
pub(super) const KIND_FRAME: u32 = 0;
/// Stopped by a rewritten call: `value` and `regs` hold the registers, the CPU the floating-point ones.
pub(super) const KIND_CALL: u32 = 1;

/// The program runs.
pub(super) const TURN_STUB: u32 = 0;
/// The stub thread waits in its handler.
pub(super) const TURN_KERNEL: u32 = 1;
/// It waits for the mapper, which makes it [`TURN_STUB`]: nothing runs before all orders are carried out.
pub(super) const TURN_ORDERS: u32 = 2;

/// The order page.
#[repr(C)]
pub(super) struct Orders {
    /// Number of the current batch, raised by the kernel. A futex.
    pub(super) seq: u32,
    /// Orders in it.
    pub(super) count: u32,
    /// `ok` or `failed` of the last batch done; written by the mapper with pwrite(2). A futex.
    pub(super) done: u32,
    /// What the mapper writes to `done` after success: the batch's number.
    pub(super) ok: u32,
    /// What it writes when an order failed: the number with the top bit set.
    pub(super) failed: u32,
    /// What a new thread writes to `ack`.
    pub(super) ack_value: u32,
    /// Written by a new thread once it needs the orders no more. A futex.
    pub(super) ack: u32,
    /// Somebody sleeps on `done` (or is about to).
    pub(super) waiting: u32,
    /// Offsets of `done` and `ack` in the order file.
    pub(super) done_offset: u64,
    pub(super) ack_offset: u64,
    /// Address of the control words that get `result`; 0 until mapped.
    pub(super) control: u64,
    /// `stack_t` for the next thread.
    pub(super) stack_sp: u64,
    pub(super) stack_flags: u64,
    pub(super) stack_size: u64,
    /// Address of the control words of a program thread that has the turn after the batch, so that it needs no
    /// hand-over to the kernel in between; or 0.
    pub(super) wake: u64,
    /// The signal mask with which program threads begin; mappers have everything blocked.
    pub(super) thread_mask: u64,
    pub(super) pad2: [u64; 2],
    /// The orders.
    pub(super) list: [Order; ORDER_COUNT],
}
const _: () = assert!(size_of::<Orders>() as u64 <= ORDERS_LEN);

/// Orders per batch.
pub(super) const ORDER_COUNT: usize = 60;

/// One system call for the mapper to make.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) number: u64,
    pub(super) args: [u64; 6],
    /// [`PLAIN`], [`FORK`], [`THREAD`] or [`EXPECT`].
    pub(super) kind: u32,
    /// What an [`EXPECT`] order has to return.
    pub(super) expected: u32,
}

/// Nothing special.
pub(super) const PLAIN: u32 = 0;
/// clone(2) of a process: the child makes the next order (mapping its own order page) and then obeys that page.
pub(super) const FORK: u32 = 1;
/// clone(2) of a thread: the child makes the next order (its alternate stack), acknowledges, and becomes a thread
/// for programs.
pub(super) const THREAD: u32 = 2;
/// The result must be `expected`, else the process ends.
pub(super) const EXPECT: u32 = 3;

impl Order {
    pub(super) fn new(number: i64, args: [u64; 6]) -> Self {
        Order { number: number as u64, args, kind: PLAIN, expected: 0 }
    }

    pub(super) fn kind(self, kind: u32) -> Self {
        Order { kind, ..self }
    }
}
