//! The boards that the image knows: where RAM begins and where the serial port is.
//!
//! The device tree would tell, and reading it would take more code than the rest of the boot. So a board is recognised by
//! its memory: the image runs where it was loaded. A new board is a new row.

use super::pl011::Pl011;
use crate::kernel::memory;

/// A board.
pub(super) struct Board {
    /// Start of the memory that images are loaded into.
    ram: u64,
    /// Physical address of its PL011.
    pub(super) uart: u64,
    /// The PL011's clock in Hz.
    clock: u32,
}

const BOARDS: [Board; 2] = [
    // Raspberry Pi 4 (BCM2711 ARM Peripherals, 1.2 and 11.5: UART0), with the clock that its firmware sets.
    Board { ram: 0, uart: 0xfe20_1000, clock: 48_000_000 },
    // QEMU's virt (hw/arm/virt.c).
    Board { ram: 0x4000_0000, uart: 0x0900_0000, clock: 24_000_000 },
];

/// The board that this is: the last whose memory begins below the image.
pub(super) fn this() -> &'static Board {
    let (image, _) = memory::bounds();
    let [first, rest @ ..] = &BOARDS;
    rest.iter().rev().find(|board| board.ram <= image).unwrap_or(first)
}

/// Its serial port.
pub(super) fn uart() -> Pl011 {
    let board = this();
    Pl011 { base: board.uart, clock: board.clock }
}
