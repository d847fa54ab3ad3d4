//! The checks before a job may do anything: who may read, who may write, and whether both still
//! are there (replication.md A5, G1 to G10).
//!
//! Run twice: before any byte is touched, and again inside the transaction that writes the
//! replica, so that a key deleted in between still stops it.

use crate::catalog::blob_refs::{self, StoredBlob};
use crate::catalog::replication::Job;
use crate::catalog::{Abort, Tx, buckets, files, keys};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::encryption::Encryption;
use crate::domain::file::FileVersion;
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::key::Key;
use crate::domain::lock::Retention;
use crate::domain::replication::{Reason, mapped_key};
use crate::domain::time::{Millis, Steady};
use crate::operations::usage::{require_room, signed};

/// What a job that passed works with.
#[derive(Clone, Debug)]
pub(crate) struct Passed {
    pub(crate) source: FileVersion,
    pub(crate) blob: StoredBlob,
    pub(crate) destination: Bucket,
}

impl Passed {
    /// Whether the replica is to be encrypted although its source is not: what is not encrypted
    /// becomes what the destination bucket makes of new files (statement 108).
    pub(crate) fn seals_anew(&self) -> bool {
        let default = self.destination.settings.encryption;
        self.source.encryption == Encryption::None && !default.is_none()
    }
}

/// When a job is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// Wall time, which is what the ends of keys are in.
    pub(crate) now: Millis,
    /// A job made after this moment still waits for a mapping that is missing.
    pub(crate) mapping_awaited_since: Steady,
}

const SOURCE_RIGHTS: [Capability; 3] =
    [Capability::ReadFiles, Capability::ReadFileLegalHolds, Capability::ReadFileRetentions];
const DESTINATION_RIGHTS: [Capability; 3] =
    [Capability::WriteFiles, Capability::WriteFileLegalHolds, Capability::WriteFileRetentions];

/// The reasons a key can stop a job for, by the side it stands on.
struct KeyReasons {
    deleted: Reason,
    expired: Reason,
    no_right: Reason,
    scope: Reason,
    account: Reason,
}

const SOURCE_KEY: KeyReasons = KeyReasons {
    deleted: Reason::SourceKeyDeleted,
    expired: Reason::SourceKeyExpired,
    no_right: Reason::SourceKeyNoRight,
    scope: Reason::SourceKeyScope,
    // A source key of another account cannot be configured; if it is there, it is not the key.
    account: Reason::SourceKeyDeleted,
};

const DESTINATION_KEY: KeyReasons = KeyReasons {
    deleted: Reason::DestKeyDeleted,
    expired: Reason::DestKeyExpired,
    no_right: Reason::DestKeyNoRight,
    scope: Reason::DestKeyScope,
    account: Reason::DestKeyAccount,
};

struct Needed<'n> {
    account: AccountId,
    bucket: BucketId,
    name: &'n str,
    rights: &'n [Capability],
    now: Millis,
}

fn check_key(key: Option<Key>, needed: &Needed<'_>, reasons: &KeyReasons) -> Result<(), Reason> {
    let key = key.ok_or(reasons.deleted)?;
    if key.is_expired(needed.now) {
        return Err(reasons.expired);
    }
    if key.account != needed.account {
        return Err(reasons.account);
    }
    if !key.capabilities.has_all(needed.rights) {
        return Err(reasons.no_right);
    }
    if !key.reaches_bucket(needed.bucket) || !key.reaches_name(needed.name) {
        return Err(reasons.scope);
    }
    Ok(())
}

fn key(tx: &mut dyn Tx, id: &KeyId) -> Result<Option<Key>, Abort> {
    Ok(keys::find_key(tx, id)?.map(|stored| stored.key))
}

/// Checks a job; the inner error is why it must not go on. The order is that of the gate numbers.
pub(crate) fn check(
    tx: &mut dyn Tx,
    job: &Job,
    at: Checked,
) -> Result<Result<Passed, Reason>, Abort> {
    let Some(bucket) = buckets::find_by_id(tx, job.source_bucket)? else {
        return Ok(Err(Reason::SourceDeleted));
    };
    let source = files::find_by_number(tx, (bucket.number, bucket.id), job.file_number)?;
    let Some(source) = source else { return Ok(Err(Reason::SourceDeleted)) };
    let blob = source.blob.map(|id| blob_refs::find_blob(tx, id)).transpose()?.flatten();
    // A lock that cannot be read is kept here, but must not be made to last for ever elsewhere.
    let blob = blob.filter(|_| source.lock.retention != Some(Retention::UNREADABLE));
    let Some(blob) = blob else { return Ok(Err(Reason::SourceCorrupt)) };
    let name = source.name.as_str().to_owned();
    let mut needed = Needed {
        account: bucket.account,
        bucket: bucket.id,
        name: &name,
        rights: &SOURCE_RIGHTS,
        now: at.now,
    };
    if let Err(reason) = check_key(key(tx, &job.source_key)?, &needed, &SOURCE_KEY) {
        return Ok(Err(reason));
    }
    let Some(destination) = buckets::find_by_id(tx, job.destination)? else {
        return Ok(Err(Reason::DestBucketMissing));
    };
    let Some(mapped) = mapped_key(&destination.settings.replication, &job.source_key) else {
        let young = job.enqueued_at > at.mapping_awaited_since;
        return Ok(Err(if young { Reason::MappingAwaited } else { Reason::MappingMissing }));
    };
    needed.account = destination.account;
    needed.bucket = destination.id;
    needed.rights = &DESTINATION_RIGHTS;
    if let Err(reason) = check_key(key(tx, &mapped)?, &needed, &DESTINATION_KEY) {
        return Ok(Err(reason));
    }
    if !source.lock.is_empty() && !destination.settings.file_lock.is_file_lock_enabled {
        return Ok(Err(Reason::DestLockDisabled));
    }
    match require_room(tx, destination.account, signed(source.size)) {
        Ok(()) => Ok(Ok(Passed { source, blob, destination })),
        Err(Abort::Refused(_)) => Ok(Err(Reason::DestCapExceeded)),
        Err(abort) => Err(abort),
    }
}
