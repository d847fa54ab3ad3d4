//! Genuine tokens that are refused before their end: upload tokens whose upload failed, account
//! tokens that the test mode expired.
//!
//! Kept in memory only. A restart forgets them, which gives such a token the rest of its day.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::auth::token::Claims;
use crate::domain::time::Millis;

/// Tokens kept at most; beyond that those that end soonest are forgotten.
const TOKENS_MAX: usize = 100_000;

/// The tokens, by their end.
#[derive(Default)]
pub(crate) struct DeadTokens {
    any: AtomicBool,
    tokens: Mutex<BTreeSet<(Millis, String)>>,
}

impl DeadTokens {
    /// From now on the token with these claims is dead.
    pub(crate) fn insert(&self, claims: Claims, now: Millis) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        // What has ended by itself need not be remembered.
        *tokens = tokens.split_off(&(now, String::new()));
        tokens.insert((claims.expires_at, claims.nonce));
        while tokens.len() > TOKENS_MAX {
            tokens.pop_first();
        }
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn has(&self, claims: &Claims) -> bool {
        // Nearly always there is none, and the lock is left alone.
        self.any.load(Ordering::Acquire) && {
            let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.contains(&(claims.expires_at, claims.nonce.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::KeyId;

    fn claims(nonce: &str, end: i64) -> Claims {
        Claims {
            key: KeyId::named("key"),
            expires_at: Millis(end),
            nonce: nonce.to_owned(),
            scope: Vec::new(),
        }
    }

    #[test]
    fn a_token_stays_dead_until_its_end_and_others_live() {
        let dead = DeadTokens::default();
        assert!(!dead.has(&claims("a", 100)));
        dead.insert(claims("a", 100), Millis(1));
        assert!(dead.has(&claims("a", 100)) && !dead.has(&claims("b", 100)));
        dead.insert(claims("b", 300), Millis(200));
        assert!(dead.has(&claims("b", 300)));
        assert_eq!(dead.tokens.lock().unwrap().len(), 1, "ended tokens are forgotten");
    }

    #[test]
    fn memory_is_bounded() {
        let dead = DeadTokens::default();
        for number in 0..=TOKENS_MAX {
            let end = i64::try_from(number).unwrap() + 10;
            dead.tokens.lock().unwrap().insert((Millis(end), "n".to_owned()));
        }
        dead.insert(claims("last", 1_000_000), Millis(1));
        assert_eq!(dead.tokens.lock().unwrap().len(), TOKENS_MAX);
        assert!(dead.has(&claims("last", 1_000_000)));
    }
}
