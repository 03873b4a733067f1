//! ARM's serial port (PrimeCell UART PL011, DDI 0183G, chapter 3).

use super::super::uart::Uart;
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::registers::{ReadOnly, WriteOnly};
use tock_registers::{register_bitfields, register_structs};

register_structs! {
    /// Its registers (table 3-1).
    Registers {
        (0x00 => data: WriteOnly<u32>),
        (0x04 => _before_flags),
        (0x18 => flags: ReadOnly<u32, Flags::Register>),
        (0x1c => _before_divisor),
        (0x24 => integer_baud: WriteOnly<u32>),
        (0x28 => fractional_baud: WriteOnly<u32>),
        (0x2c => line_control: WriteOnly<u32, LineControl::Register>),
        (0x30 => control: WriteOnly<u32, Control::Register>),
        (0x34 => _before_masks),
        (0x38 => interrupt_mask: WriteOnly<u32>),
        (0x3c => @END),
    }
}

register_bitfields! {u32,
    Flags [
        /// The transmit FIFO is full.
        TXFF OFFSET(5) NUMBITS(1) [],
        /// Still sending.
        BUSY OFFSET(3) NUMBITS(1) []
    ],
    LineControl [
        WLEN OFFSET(5) NUMBITS(2) [EightBits = 3],
        /// FIFOs on.
        FEN OFFSET(4) NUMBITS(1) []
    ],
    Control [
        RXE OFFSET(9) NUMBITS(1) [],
        TXE OFFSET(8) NUMBITS(1) [],
        UARTEN OFFSET(0) NUMBITS(1) []
    ]
}

/// A PL011.
pub(crate) struct Pl011 {
    /// Where its registers are.
    pub(super) base: u64,
    /// Frequency of its reference clock in Hz.
    pub(super) clock: u32,
}

const BAUD: u32 = 115_200;

impl Uart for Pl011 {
    fn init(&self) {
        let registers = self.registers();
        // The firmware's last words first; then off, since the divisors may only change then.
        while registers.flags.is_set(Flags::BUSY) {}
        registers.control.set(0);
        registers.interrupt_mask.set(0);
        // clock / (16 * baud) in 64ths, rounded.
        let divisor = (self.clock * 4 + BAUD / 2) / BAUD;
        registers.integer_baud.set(divisor >> 6);
        registers.fractional_baud.set(divisor & 0x3f);
        registers.line_control.write(LineControl::FEN::SET + LineControl::WLEN::EightBits);
        registers.control.write(Control::UARTEN::SET + Control::TXE::SET + Control::RXE::SET);
    }

    fn put(&self, byte: u8) {
        let registers = self.registers();
        while registers.flags.is_set(Flags::TXFF) {}
        registers.data.set(byte.into());
    }
}

impl Pl011 {
    fn registers(&self) -> &Registers {
        // SAFETY: the board's table says that a PL011 is there; it is mapped, or the MMU is off. The registers are cells.
        unsafe { &*(self.base as *const Registers) }
    }
}
