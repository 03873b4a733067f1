//! Random bytes from the host, fetched ahead: asking it each time would leave the guest each time.

use super::Kernel;

/// Bytes per request: few at first, because starting up must be quick.
const FIRST: usize = 256;
const LATER: usize = 16 << 10;

/// Bytes nobody has been given yet.
#[derive(Default)]
pub(super) struct Pool {
    bytes: Vec<u8>,
    used_before: bool,
}

impl Kernel {
    /// Fills `out`. Each byte is given out once and forgotten.
    pub fn random(&self, out: &mut [u8]) {
        let mut pool = self.random.lock();
        for byte in out {
            if pool.bytes.is_empty() {
                let size = if pool.used_before { LATER } else { FIRST };
                pool.used_before = true;
                pool.bytes.resize(size, 0);
                crate::hostsys::file::random(&mut pool.bytes);
            }
            let last = pool.bytes.len() - 1;
            *byte = core::mem::take(&mut pool.bytes[last]);
            pool.bytes.truncate(last);
        }
    }
}
