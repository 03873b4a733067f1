//! Random bytes for programs, without a host call each.
//!
//! ChaCha20 keyed once from the host. After every request the generator's output replaces its key ("fast key
//! erasure"), so that bytes handed out earlier cannot be recomputed from memory that leaks later.

use crate::hostsys::cpu;
use crate::sync::{Lock, Rank};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Bytes produced under the lock at a time.
const CHUNK: usize = 256;

/// The sandbox's random number generator.
pub struct Random(Lock<ChaCha20Rng>);

impl Random {
    /// A generator seeded from the host.
    ///
    /// # Panics
    /// If the host has no getrandom(2): nothing may run with predictable keys.
    pub fn from_host() -> Self {
        let mut seed = [0; 32];
        cpu::random_bytes(&mut seed).expect("getrandom(2), which Linux has since 3.17");
        Random(Lock::new(Rank::Random, ChaCha20Rng::from_seed(seed)))
    }

    /// Fills `buffer`.
    pub fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(CHUNK) {
            let mut generator = self.0.lock();
            generator.fill_bytes(chunk);
            let mut key = [0; 32];
            generator.fill_bytes(&mut key);
            *generator = ChaCha20Rng::from_seed(key);
        }
    }

    /// A random word.
    pub fn word(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_ne_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn output_never_repeats() {
        let random = Random::from_host();
        let (mut one, mut two) = ([0; 1000], [0; 1000]);
        random.fill(&mut one);
        random.fill(&mut two);
        assert_ne!(one, two);
        assert!(one.iter().any(|b| *b != 0));
        assert_ne!(random.word(), random.word());
    }
}
