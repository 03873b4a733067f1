//! ARM's serial port (PrimeCell UART PL011, DDI 0183G, chapter 3).

use super::super::uart::Uart;

/// A PL011.
pub(crate) struct Pl011 {
    /// Where its registers are.
    pub(super) base: u64,
    /// Frequency of its reference clock in Hz.
    pub(super) clock: u32,
}

const DATA: u64 = 0x00;
const FLAG: u64 = 0x18;
const INTEGER_BAUD: u64 = 0x24;
const FRACTIONAL_BAUD: u64 = 0x28;
const LINE_CONTROL: u64 = 0x2c;
const CONTROL: u64 = 0x30;
const INTERRUPT_MASK: u64 = 0x38;

/// FLAG: still sending; the transmit FIFO is full.
const BUSY: u32 = 1 << 3;
const TRANSMIT_FULL: u32 = 1 << 5;
/// LINE_CONTROL: FIFOs on, eight data bits.
const FIFO: u32 = 1 << 4;
const EIGHT_BITS: u32 = 3 << 5;
/// CONTROL: enabled, transmit, receive.
const ENABLE: u32 = 1 | 1 << 8 | 1 << 9;

const BAUD: u32 = 115_200;

impl Uart for Pl011 {
    fn init(&self) {
        // The firmware's last words first; then off, since the divisors may only change then.
        while self.read(FLAG) & BUSY != 0 {}
        self.write(CONTROL, 0);
        self.write(INTERRUPT_MASK, 0);
        // clock / (16 * baud) in 64ths, rounded.
        let divisor = (self.clock * 4 + BAUD / 2) / BAUD;
        self.write(INTEGER_BAUD, divisor >> 6);
        self.write(FRACTIONAL_BAUD, divisor & 0x3f);
        self.write(LINE_CONTROL, FIFO | EIGHT_BITS);
        self.write(CONTROL, ENABLE);
    }

    fn put(&self, byte: u8) {
        while self.read(FLAG) & TRANSMIT_FULL != 0 {}
        self.write(DATA, byte.into());
    }
}

impl Pl011 {
    fn read(&self, register: u64) -> u32 {
        // SAFETY: the board's table says that a PL011 is there; it is mapped, or the MMU is off.
        unsafe { ((self.base + register) as *const u32).read_volatile() }
    }

    fn write(&self, register: u64, value: u32) {
        // SAFETY: as for `read`.
        unsafe { ((self.base + register) as *mut u32).write_volatile(value) };
    }
}
