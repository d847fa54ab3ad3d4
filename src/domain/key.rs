//! Application keys and what they reach.

use std::fmt;

use zeroize::Zeroizing;

use crate::domain::capability::{Capabilities, Capability};
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::refusal::{Refusal, bad_request};
use crate::domain::time::Millis;

/// Something that must never be printed; its memory is wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself. Each call is a place where it could leak.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An application key as the catalog keeps it, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: KeyId,
    pub(crate) account: AccountId,
    pub(crate) name: String,
    pub(crate) capabilities: Capabilities,
    /// None reaches every bucket of the account.
    pub(crate) buckets: Option<Vec<BucketId>>,
    pub(crate) name_prefix: Option<String>,
    pub(crate) expires_at: Option<Millis>,
    /// The account's first key: holds everything, is not listed, cannot be deleted.
    pub(crate) is_master: bool,
    /// The API version that made it; matters for single-bucket keys in strict mode.
    pub(crate) made_by_version: u8,
}

impl Key {
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }

    pub(crate) fn reaches_bucket(&self, bucket: BucketId) -> bool {
        self.buckets.as_ref().is_none_or(|buckets| buckets.contains(&bucket))
    }

    /// Whether answers of a version of the API can show this key: before version 4 keys were for one
    /// bucket or for all.
    pub(crate) fn is_known_to(&self, version: u8) -> bool {
        version >= 4 || self.buckets.as_ref().is_none_or(|buckets| buckets.len() <= 1)
    }

    /// Names are compared byte by byte: prefix `a` covers `ab`.
    pub(crate) fn reaches_name(&self, name: &str) -> bool {
        self.name_prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix.as_str()))
    }
}

/// The longest life of a key, in seconds, is one less than this: 1000 days (documented).
pub(crate) const KEY_DURATION_S_END: i64 = 86_400_000;

/// Checks that `capabilities` may go together with a restriction to buckets.
pub(crate) fn check_bucket_key(capabilities: Capabilities) -> Result<(), Refusal> {
    let misfits: Vec<&str> =
        capabilities.iter().filter(|one| !one.fits_bucket_key()).map(Capability::as_str).collect();
    if misfits.is_empty() {
        return Ok(());
    }
    Err(bad_request(format!(
        "capabilities not allowed on a key restricted to buckets: {}",
        misfits.join(", ")
    )))
}
