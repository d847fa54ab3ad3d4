//! Randomness, handed in: nothing else in the crate draws random bytes.

use rustix::io::retry_on_intr;
use rustix::rand::{GetRandomFlags, getrandom};

/// Where the crate draws random bytes from.
pub(crate) trait Entropy: Send + Sync {
    /// Fills `into` with bytes nobody can predict.
    fn fill(&self, into: &mut [u8]);
}

/// Draws `N` bytes.
pub(crate) fn bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut drawn = [0_u8; N];
    entropy.fill(&mut drawn);
    drawn
}

/// The operating system's generator, asked each time: bytes are drawn for keys and tokens only, and
/// a generator in the process would take tens of milliseconds to be seeded at each start.
pub(crate) struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, into: &mut [u8]) {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let drawn = retry_on_intr(|| getrandom(&mut *rest, GetRandomFlags::empty()));
            // Going on without randomness would hand out guessable secrets, so there is no other
            // way.
            filled += drawn.expect("the operating system gives random bytes");
        }
    }
}

/// A reproducible generator (splitmix64) for tests; never for secrets.
pub(crate) struct SeededEntropy(std::sync::Mutex<u64>);

impl SeededEntropy {
    pub(crate) fn new(seed: u64) -> Self {
        Self(std::sync::Mutex::new(seed))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        let mut state = self.0.lock().expect("no test panics while drawing");
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, into: &mut [u8]) {
        for chunk in into.chunks_mut(8) {
            let drawn = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(drawn.get(..chunk.len()).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_fills_everything_and_never_alike() {
        let (one, other) = (bytes::<600>(&OsEntropy), bytes::<600>(&OsEntropy));
        assert_ne!(one, other);
        // A stretch that was left out would be zeros.
        assert!(one.chunks(32).all(|chunk| chunk.iter().any(|&byte| byte != 0)));
    }
}
