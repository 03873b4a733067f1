//! A space, a context and page frames for a test.

use host::arch::{FpState, Registers, UserRegs};
use host::platform::systrap::Systrap;
use host::platform::{AddressSpace, Context, Frame, Platform, Prot, Trap};
use ring0::layout::{FRAMES_BASE, FRAMES_END};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const CODE: u64 = 0x40_0000;
pub(crate) const STACK: u64 = 0x7fff_0000_0000;
pub(crate) const DATA: u64 = 0x10_0000_0000;

/// The one platform of this process.
pub(crate) fn platform() -> &'static Systrap {
    static PLATFORM: OnceLock<Systrap> = OnceLock::new();
    PLATFORM.get_or_init(|| Systrap::new().expect("systrap starts"))
}

/// Frames, consecutive, zeroed, never reused.
pub(crate) fn frames(count: u64) -> Vec<Frame> {
    static NEXT: AtomicU64 = AtomicU64::new(FRAMES_BASE);
    let first = NEXT.fetch_add(count * PAGE, Ordering::Relaxed);
    assert!(first + count * PAGE < FRAMES_END);
    (0..count).map(|i| Frame(first + i * PAGE)).collect()
}

/// Writes to a frame.
pub(crate) fn fill(frame: Frame, offset: u64, bytes: &[u8]) {
    assert!(offset + bytes.len() as u64 <= PAGE);
    // SAFETY: inside a frame that only the test's program uses.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), (frame.0 + offset) as *mut u8, bytes.len()) };
}

/// Reads a word of a frame.
pub(crate) fn word(frame: Frame, offset: u64) -> u64 {
    // SAFETY: inside a frame; the program writes it with plain stores.
    unsafe { ((frame.0 + offset) as *const u64).read_volatile() }
}

/// One program.
pub(crate) struct Program {
    pub(crate) space: Arc<dyn AddressSpace>,
    pub(crate) context: Box<dyn Context>,
    pub(crate) regs: UserRegs,
    pub(crate) fp: Box<FpState>,
}

impl Program {
    /// `code` at [`CODE`] and 16 pages of stack below [`STACK`].
    pub(crate) fn new(code: &[u8]) -> Self {
        let space = platform().new_space().expect("a space");
        map_code(&space, code);
        space.map(STACK - 16 * PAGE, &frames(16), Prot::READ | Prot::WRITE).expect("a stack");
        Program {
            space,
            context: platform().new_context().expect("a context"),
            regs: UserRegs::start(CODE, STACK - 64),
            fp: Box::new(FpState::initial()),
        }
    }

    /// A second thread of the same program.
    pub(crate) fn thread(&self, ip: u64, sp: u64) -> Self {
        Program {
            space: self.space.clone(),
            context: platform().new_context().expect("a context"),
            regs: UserRegs::start(ip, sp),
            fp: Box::new(FpState::initial()),
        }
    }

    pub(crate) fn run(&mut self) -> Trap {
        self.context.switch(&self.space, &mut self.regs, &mut self.fp)
    }

    /// Runs until a trap that is not a kick.
    pub(crate) fn run_on(&mut self) -> Trap {
        loop {
            match self.run() {
                Trap::Kick => (),
                trap => return trap,
            }
        }
    }
}

pub(crate) fn map_code(space: &Arc<dyn AddressSpace>, code: &[u8]) {
    for (i, chunk) in code.chunks(PAGE as usize).enumerate() {
        let frame = frames(1);
        fill(frame[0], 0, chunk);
        space.map(CODE + i as u64 * PAGE, &frame, Prot::READ | Prot::EXEC).expect("code");
    }
}

/// Runs `body` as a worker with an id of its own.
pub(crate) fn as_worker(body: impl FnOnce(usize)) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut body = Some(body);
    platform().run_worker(id, &mut || body.take().expect("called once")(id)).expect("a worker");
}
