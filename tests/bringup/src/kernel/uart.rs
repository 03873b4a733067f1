//! The serial port: the only device that a bring-up needs.

use super::Hardware;
use super::arch::Arch;
use core::fmt;

/// A serial port that can send. Bringing up another board is, for a start, one implementation of this.
pub(crate) trait Uart {
    /// Makes it ready, whatever the firmware left behind.
    fn init(&self);

    /// Waits until there is room and sends one byte.
    fn put(&self, byte: u8);
}

/// Text on a serial port, with the line ends that terminals want.
struct Console<U>(U);

impl<U: Uart> fmt::Write for Console<U> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.0.put(b'\r');
            }
            self.0.put(byte);
        }
        Ok(())
    }
}

/// Prints a line on the board's console.
macro_rules! line {
    ($($what:tt)*) => { $crate::kernel::uart::print_line(format_args!($($what)*)) };
}
pub(crate) use line;

/// What [`line!`] expands to.
pub(crate) fn print_line(text: fmt::Arguments<'_>) {
    // There is nobody to tell should that fail.
    let _ = fmt::Write::write_fmt(&mut Console(Hardware::uart()), format_args!("{text}\n"));
}
