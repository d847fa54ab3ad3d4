//! Which upload tokens are in use: each serves one upload at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The tokens in use.
#[derive(Clone, Default)]
pub(crate) struct UploadSlots(Arc<Mutex<HashSet<String>>>);

/// One token in use; dropping it frees the token.
pub(crate) struct Slot {
    slots: UploadSlots,
    nonce: String,
}

impl UploadSlots {
    /// Takes the token with this nonce, None when it is in use.
    pub(crate) fn take(&self, nonce: &str) -> Option<Slot> {
        let mut in_use = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let nonce = nonce.to_owned();
        in_use.insert(nonce.clone()).then(|| Slot { slots: self.clone(), nonce })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_175_176_a_token_serves_one_upload_at_a_time_and_many_in_a_row() {
        let slots = UploadSlots::default();
        for _ in 0..100 {
            let slot = slots.take("one").expect("free again");
            assert!(slots.take("one").is_none());
            assert!(slots.take("two").is_some());
            drop(slot);
        }
    }
}
