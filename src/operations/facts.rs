//! Keys and buckets in memory, so that requests need not ask the catalog each time.
//!
//! Every entry belongs to an epoch of the configuration; the first look-up after a change drops
//! them all. A change is answered only after its epoch has begun, so a caller always sees its own.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::catalog::{Abort, Catalog, Tx, buckets, config_versions, keys, usage};
use crate::domain::bucket::Bucket;
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::key::Key;
use crate::domain::names::fold_bucket_name;
use crate::domain::usage::Caps;

/// Entries kept of each kind; beyond that all are dropped and read again.
const ENTRIES_MAX: usize = 10_000;

/// A fact with the version of the configuration it was read from.
#[derive(Debug)]
pub(crate) struct Known<T> {
    pub(crate) value: Arc<T>,
    pub(crate) config_version: i64,
}

impl<T> Clone for Known<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), config_version: self.config_version }
    }
}

/// A key that signs requests.
pub(crate) struct SigningKey {
    pub(crate) key: Arc<Key>,
    pub(crate) sealed_secret: Vec<u8>,
}

#[derive(Default)]
struct Entries {
    epoch: u64,
    keys: HashMap<KeyId, Known<Key>>,
    /// Keys that sign requests, with their secrets as they are sealed.
    signing_keys: HashMap<KeyId, Known<SigningKey>>,
    buckets: HashMap<BucketId, Known<Bucket>>,
    bucket_names: HashMap<String, Known<Bucket>>,
    caps: HashMap<AccountId, Known<Caps>>,
}

impl Entries {
    fn len(&self) -> usize {
        let keys = self.keys.len() + self.signing_keys.len();
        keys + self.buckets.len() + self.bucket_names.len() + self.caps.len()
    }
}

/// The cache.
#[derive(Default)]
pub(crate) struct Facts(RwLock<Entries>);

impl Facts {
    pub(crate) fn key(&self, catalog: &Catalog, id: &KeyId) -> Result<Option<Known<Key>>, Abort> {
        self.look_up(
            catalog,
            |entries| entries.keys.get(id).cloned(),
            |tx| Ok(keys::find_key(tx, id)?.map(|stored| stored.key)),
            |entries, known| {
                entries.keys.insert(id.clone(), known);
            },
        )
    }

    /// A key with its sealed secret, for whoever has to know the secret for each request.
    pub(crate) fn signing_key(
        &self,
        catalog: &Catalog,
        id: &KeyId,
    ) -> Result<Option<Known<SigningKey>>, Abort> {
        self.look_up(
            catalog,
            |entries| entries.signing_keys.get(id).cloned(),
            |tx| {
                let stored = keys::find_key(tx, id)?;
                Ok(stored.map(|stored| SigningKey {
                    key: Arc::new(stored.key),
                    sealed_secret: stored.sealed_secret,
                }))
            },
            |entries, known| {
                entries.signing_keys.insert(id.clone(), known);
            },
        )
    }

    pub(crate) fn bucket(
        &self,
        catalog: &Catalog,
        id: BucketId,
    ) -> Result<Option<Known<Bucket>>, Abort> {
        self.look_up(
            catalog,
            |entries| entries.buckets.get(&id).cloned(),
            |tx| Ok(buckets::find_by_id(tx, id)?),
            |entries, known| {
                entries.buckets.insert(id, known);
            },
        )
    }

    /// Looks a bucket up by its name, without regard to case.
    pub(crate) fn bucket_named(
        &self,
        catalog: &Catalog,
        name: &str,
    ) -> Result<Option<Known<Bucket>>, Abort> {
        let folded = fold_bucket_name(name);
        self.look_up(
            catalog,
            |entries| entries.bucket_names.get(&folded).cloned(),
            |tx| Ok(buckets::find_by_name(tx, &folded)?),
            |entries, known| {
                entries.bucket_names.insert(folded.clone(), known);
            },
        )
    }

    /// The caps of an account; one that is not there has none.
    pub(crate) fn caps(&self, catalog: &Catalog, account: AccountId) -> Result<Caps, Abort> {
        let known = self.look_up(
            catalog,
            |entries| entries.caps.get(&account).cloned(),
            |tx| Ok(Some(usage::find_caps(tx, account)?)),
            |entries, known| {
                entries.caps.insert(account, known);
            },
        )?;
        Ok(known.map(|known| *known.value).unwrap_or_default())
    }

    fn look_up<T>(
        &self,
        catalog: &Catalog,
        cached: impl Fn(&Entries) -> Option<Known<T>>,
        stored: impl Fn(&mut dyn Tx) -> Result<Option<T>, Abort>,
        keep: impl FnOnce(&mut Entries, Known<T>),
    ) -> Result<Option<Known<T>>, Abort> {
        let epoch = catalog.config_epoch();
        {
            let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if entries.epoch == epoch
                && let Some(known) = cached(&entries)
            {
                return Ok(Some(known));
            }
        }
        let found = catalog.read(|tx| {
            let config_version = config_versions::current(tx)?;
            Ok(stored(tx)?.map(|value| Known { value: Arc::new(value), config_version }))
        })?;
        if let Some(known) = &found {
            let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
            let full = entries.len() >= ENTRIES_MAX;
            if entries.epoch < epoch || full {
                *entries = Entries { epoch, ..Entries::default() };
            }
            // What was read under an older epoch than the one others have reached is not kept.
            if entries.epoch == epoch {
                keep(&mut entries, known.clone());
            }
        }
        Ok(found)
    }
}
