//! I/O ports: the serial port, the interrupt controllers, and the way out.

use super::super::uart::Uart;
use x86_64::instructions::hlt;
use x86_64::instructions::port::Port;

/// The first serial port of a PC: a 16550 (National Semiconductor PC16550D, section 8).
pub(crate) struct Com1;

/// Receive and transmit; with DLAB set, the divisor.
const DATA: u16 = 0x3f8;
/// Interrupt enable; with DLAB set, the divisor's high byte.
const INTERRUPTS: u16 = DATA + 1;
const FIFO: u16 = DATA + 2;
const LINE_CONTROL: u16 = DATA + 3;
const MODEM_CONTROL: u16 = DATA + 4;
const LINE_STATUS: u16 = DATA + 5;
/// Room for another byte.
const TRANSMIT_EMPTY: u8 = 1 << 5;

impl Uart for Com1 {
    fn init(&self) {
        // Interrupts off; 115,200 baud (divisor 1), 8 data bits, no parity, one stop bit; FIFO on; DTR and RTS.
        let script = [(INTERRUPTS, 0), (LINE_CONTROL, 0x80), (DATA, 1), (INTERRUPTS, 0)];
        let script = script.into_iter().chain([(LINE_CONTROL, 3), (FIFO, 1), (MODEM_CONTROL, 3)]);
        script.for_each(|(port, value)| out(port, value));
    }

    fn put(&self, byte: u8) {
        while input(LINE_STATUS) & TRANSMIT_EMPTY == 0 {}
        out(DATA, byte);
    }
}

/// Masks both interrupt controllers (8259A): user code runs with interrupts open, and the firmware's timer would arrive at
/// the vector of a double fault.
pub(super) fn mask_interrupts() {
    out(0x21, 0xff);
    out(0xa1, 0xff);
}

/// QEMU's isa-debug-exit.
const DEBUG_EXIT: u16 = 0xf4;
/// Marks a status as one of ours: QEMU ends with 2 * value + 1, and with 1 when it fails itself.
const OURS: u8 = 0x40;

/// Ends the emulator with a status below 64. On a machine without the device, stops.
pub(super) fn power_off(status: u8) -> ! {
    out(DEBUG_EXIT, OURS | status);
    loop {
        // Interrupts are off.
        hlt();
    }
}

fn out(port: u16, value: u8) {
    // SAFETY: the ports used here belong to devices that do not touch memory.
    unsafe { Port::new(port).write(value) };
}

fn input(port: u16) -> u8 {
    // SAFETY: as for `out`.
    unsafe { Port::new(port).read() }
}
