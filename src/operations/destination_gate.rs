//! The checks of the keys that a rule of Cloud Replication goes by (replication.md A5): for the
//! engine, which has both sides before it, and for a peer's rule, of which this server is the
//! destination.

use crate::catalog::{Abort, Tx, keys};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::key::Key;
use crate::domain::lock::FileLock;
use crate::domain::replication::{Reason, mapped_key};
use crate::domain::time::Millis;

const SOURCE_RIGHTS: [Capability; 3] =
    [Capability::ReadFiles, Capability::ReadFileLegalHolds, Capability::ReadFileRetentions];
const DESTINATION_RIGHTS: [Capability; 3] =
    [Capability::WriteFiles, Capability::WriteFileLegalHolds, Capability::WriteFileRetentions];

/// What a key of one side must hold, and the reasons it can stop a job for.
struct Side {
    rights: &'static [Capability],
    deleted: Reason,
    expired: Reason,
    no_right: Reason,
    scope: Reason,
    account: Reason,
}

const SOURCE: Side = Side {
    rights: &SOURCE_RIGHTS,
    deleted: Reason::SourceKeyDeleted,
    expired: Reason::SourceKeyExpired,
    no_right: Reason::SourceKeyNoRight,
    scope: Reason::SourceKeyScope,
    // A source key of another account cannot be configured; if it is there, it is not the key.
    account: Reason::SourceKeyDeleted,
};

const DESTINATION: Side = Side {
    rights: &DESTINATION_RIGHTS,
    deleted: Reason::DestKeyDeleted,
    expired: Reason::DestKeyExpired,
    no_right: Reason::DestKeyNoRight,
    scope: Reason::DestKeyScope,
    account: Reason::DestKeyAccount,
};

/// The version that a rule carries, as far as keys and locks matter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried<'v> {
    pub(crate) name: &'v str,
    pub(crate) lock: FileLock,
    /// Wall time, which is what the ends of keys are in.
    pub(crate) now: Millis,
}

fn check_key(
    key: Option<Key>,
    (account, bucket): (AccountId, BucketId),
    carried: Carried<'_>,
    side: &Side,
) -> Result<(), Reason> {
    let key = key.ok_or(side.deleted)?;
    if key.is_expired(carried.now) {
        return Err(side.expired);
    }
    if key.account != account {
        return Err(side.account);
    }
    if !key.capabilities.has_all(side.rights) {
        return Err(side.no_right);
    }
    if !key.reaches_bucket(bucket) || !key.reaches_name(carried.name) {
        return Err(side.scope);
    }
    Ok(())
}

fn find(tx: &mut dyn Tx, id: &KeyId) -> Result<Option<Key>, Abort> {
    Ok(keys::find_key(tx, id)?.map(|stored| stored.key))
}

/// Whether the source key may read the version (G2 to G4); the inner error is why not.
pub(crate) fn check_source(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    source_key: &KeyId,
    carried: Carried<'_>,
) -> Result<Result<(), Reason>, Abort> {
    Ok(check_key(find(tx, source_key)?, (bucket.account, bucket.id), carried, &SOURCE))
}

/// Whether the destination lets the source key write the version (G6 to G10): it maps it to a key
/// that may. The inner error is why not.
pub(crate) fn check_destination(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    source_key: &KeyId,
    carried: Carried<'_>,
) -> Result<Result<(), Reason>, Abort> {
    let Some(mapped) = mapped_key(&bucket.settings.replication, source_key) else {
        return Ok(Err(Reason::MappingMissing));
    };
    let key = find(tx, &mapped)?;
    if let Err(reason) = check_key(key, (bucket.account, bucket.id), carried, &DESTINATION) {
        return Ok(Err(reason));
    }
    if !carried.lock.is_empty() && !bucket.settings.file_lock.is_file_lock_enabled {
        return Ok(Err(Reason::DestLockDisabled));
    }
    Ok(Ok(()))
}
