//! The caller of an operation and the grant it holds on a bucket.

use std::sync::Arc;

use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::key::Key;
use crate::domain::refusal::{Refusal, no_such_bucket, unauthorized};

/// Somebody who proved to hold an application key.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) key: Arc<Key>,
    /// The version of the configuration that the key was read from.
    pub(crate) config_version: i64,
}

impl Caller {
    pub(crate) fn account(&self) -> AccountId {
        self.key.account
    }

    pub(crate) fn may(&self, capability: Capability) -> bool {
        self.key.capabilities.has(capability)
    }

    /// Refuses a caller whose key lacks the capability.
    pub(crate) fn require(&self, capability: Capability) -> Result<(), Refusal> {
        if self.may(capability) { Ok(()) } else { Err(unauthorized()) }
    }

    /// Refuses a caller whose key is restricted to buckets: for acts on the whole account.
    pub(crate) fn require_unrestricted(&self) -> Result<(), Refusal> {
        if self.key.buckets.is_none() { Ok(()) } else { Err(unauthorized()) }
    }

    /// Refuses a caller whose key does not reach the bucket id. Comes before the question whether
    /// such a bucket exists, so that a restricted key learns nothing about others.
    pub(crate) fn require_bucket(
        &self,
        capability: Capability,
        bucket: BucketId,
    ) -> Result<(), Refusal> {
        self.require(capability)?;
        if self.key.reaches_bucket(bucket) { Ok(()) } else { Err(unauthorized()) }
    }
}

/// Proof that a key holds a capability in a bucket for a name or a prefix of names. Functions that
/// touch the data of a bucket ask for one.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) bucket: Arc<Bucket>,
}

impl Grant {
    /// A grant for one file name.
    pub(crate) fn for_name(
        key: &Key,
        capability: Capability,
        bucket: Arc<Bucket>,
        name: &str,
    ) -> Result<Self, Refusal> {
        Self::for_names(key, capability, bucket, Some(name))
    }

    /// A grant for all names that begin with `prefix`.
    pub(crate) fn for_prefix(
        key: &Key,
        capability: Capability,
        bucket: Arc<Bucket>,
        prefix: &str,
    ) -> Result<Self, Refusal> {
        Self::for_names(key, capability, bucket, Some(prefix))
    }

    /// A grant for the bucket itself, whatever names the key is restricted to.
    pub(crate) fn for_bucket(
        key: &Key,
        capability: Capability,
        bucket: Arc<Bucket>,
    ) -> Result<Self, Refusal> {
        Self::for_names(key, capability, bucket, None)
    }

    /// What everybody has on a public bucket: reading, and nothing else.
    pub(crate) fn public_read(bucket: Arc<Bucket>) -> Self {
        Self { bucket }
    }

    fn for_names(
        key: &Key,
        capability: Capability,
        bucket: Arc<Bucket>,
        names: Option<&str>,
    ) -> Result<Self, Refusal> {
        let reaches = key.capabilities.has(capability)
            && key.reaches_bucket(bucket.id)
            && names.is_none_or(|names| key.reaches_name(names));
        if !reaches {
            return Err(unauthorized());
        }
        // Buckets of other accounts do not exist for the caller.
        if bucket.account != key.account {
            return Err(no_such_bucket(&bucket.id));
        }
        Ok(Self { bucket })
    }
}
