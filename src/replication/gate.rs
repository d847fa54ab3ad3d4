//! The checks before a job may do anything: who may read, who may write, and whether both still
//! are there (replication.md A5, G1 to G10).
//!
//! Run twice: before any byte is touched, and again inside the transaction that writes the
//! replica, so that a key deleted in between still stops it.

use crate::catalog::blob_refs::{self, StoredBlob};
use crate::catalog::remotes::StoredRemote;
use crate::catalog::replicas::Trail;
use crate::catalog::replication::{Job, Route};
use crate::catalog::{Abort, Tx, buckets, files, remotes, replicas, streams};
use crate::domain::bucket::Bucket;
use crate::domain::encryption::Encryption;
use crate::domain::file::FileVersion;
use crate::domain::lock::Retention;
use crate::domain::replication::{Reason, ReplicationStatus};
use crate::domain::stream::Stream;
use crate::domain::time::{Millis, Steady};
use crate::operations::destination_gate::{Carried, check_destination, check_source};
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

/// What a job works with that goes to a remote.
#[derive(Clone, Debug)]
pub(crate) struct Outward {
    /// None for the job of a rule whose destination is at a peer.
    pub(crate) stream: Option<Stream>,
    pub(crate) remote: StoredRemote,
    pub(crate) source: FileVersion,
    pub(crate) blob: StoredBlob,
    /// Empty for a file of one piece.
    pub(crate) part_sizes: Vec<u64>,
    /// Of a version that came from another server: where it has been.
    pub(crate) trail: Option<Trail>,
}

/// When a job is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checked {
    /// Wall time, which is what the ends of keys are in.
    pub(crate) now: Millis,
    /// A job made after this moment still waits for a mapping that is missing.
    pub(crate) mapping_awaited_since: Steady,
}

/// The version that a job is about, with its blob.
fn source_of(
    tx: &mut dyn Tx,
    job: &Job,
) -> Result<Result<(Bucket, FileVersion, StoredBlob), Reason>, Abort> {
    let Some(bucket) = buckets::find_by_id(tx, job.source_bucket)? else {
        return Ok(Err(Reason::SourceDeleted));
    };
    let source = files::find_by_number(tx, (bucket.number, bucket.id), job.file_number)?;
    let Some(source) = source else { return Ok(Err(Reason::SourceDeleted)) };
    let blob = source.blob.map(|id| blob_refs::find_blob(tx, id)).transpose()?.flatten();
    // A lock that cannot be read is kept here, but must not be made to last for ever elsewhere.
    let blob = blob.filter(|_| source.lock.retention != Some(Retention::UNREADABLE));
    let Some(blob) = blob else { return Ok(Err(Reason::SourceCorrupt)) };
    Ok(Ok((bucket, source, blob)))
}

/// Checks a job that goes to a remote; the inner error is why it must not go on. None when it stays
/// in this server.
pub(crate) fn check_outward(
    tx: &mut dyn Tx,
    job: &Job,
    at: Checked,
    now: Steady,
) -> Result<Option<Result<Outward, Reason>>, Abort> {
    let stream = match &job.route {
        Route::Stream(id) => {
            let Some(stream) = streams::find_stream(tx, *id)? else {
                return Ok(Some(Err(Reason::Purged)));
            };
            let age_ms = stream.max_age_s.saturating_mul(1000);
            if age_ms > 0 && job.enqueued_at.plus(age_ms) < now {
                return Ok(Some(Err(Reason::Expired)));
            }
            Some(stream)
        }
        Route::Rule(rule) => {
            if buckets::find_by_id(tx, rule.destination)?.is_some() {
                return Ok(None);
            }
            None
        }
    };
    let (bucket, source, blob) = match source_of(tx, job)? {
        Ok(found) => found,
        Err(reason) => return Ok(Some(Err(reason))),
    };
    let peer = match job.rule() {
        None => None,
        Some(rule) => match remotes::find_remote_to(tx, rule.destination, bucket.account)? {
            None => return Ok(None),
            peer => peer,
        },
    };
    if let Route::Rule(rule) = &job.route {
        let carried = Carried { name: source.name.as_str(), lock: source.lock, now: at.now };
        if let Err(reason) = check_source(tx, &bucket, &rule.source_key, carried)? {
            return Ok(Some(Err(reason)));
        }
    }
    let remote = match &stream {
        Some(stream) => remotes::find_remote(tx, stream.remote)?,
        None => None,
    };
    let Some(remote) = remote.or(peer) else { return Ok(Some(Err(Reason::Purged))) };
    let part_sizes = match source.parts {
        Some(_) => files::find_part_sizes(tx, source.number)?,
        None => None,
    };
    let part_sizes = part_sizes.map(|sizes| sizes.sizes()).unwrap_or_default();
    let trail = match source.replication {
        Some(ReplicationStatus::Replica) => replicas::find_trail(tx, source.number)?,
        _ => None,
    };
    Ok(Some(Ok(Outward { stream, remote, source, blob, part_sizes, trail })))
}

/// Checks a job whose destination is in this server; the inner error is why it must not go on. The
/// order is that of the gate numbers.
pub(crate) fn check(
    tx: &mut dyn Tx,
    job: &Job,
    at: Checked,
) -> Result<Result<Passed, Reason>, Abort> {
    let Some(rule) = job.rule() else { return Ok(Err(Reason::Purged)) };
    let (bucket, source, blob) = match source_of(tx, job)? {
        Ok(found) => found,
        Err(reason) => return Ok(Err(reason)),
    };
    let carried = Carried { name: source.name.as_str(), lock: source.lock, now: at.now };
    if let Err(reason) = check_source(tx, &bucket, &rule.source_key, carried)? {
        return Ok(Err(reason));
    }
    let Some(destination) = buckets::find_by_id(tx, rule.destination)? else {
        return Ok(Err(Reason::DestBucketMissing));
    };
    match check_destination(tx, &destination, &rule.source_key, carried)? {
        Err(Reason::MappingMissing) if job.enqueued_at > at.mapping_awaited_since => {
            return Ok(Err(Reason::MappingAwaited));
        }
        Err(reason) => return Ok(Err(reason)),
        Ok(()) => {}
    }
    match require_room(tx, destination.account, signed(source.size)) {
        Ok(()) => Ok(Ok(Passed { source, blob, destination })),
        Err(Abort::Refused(_)) => Ok(Err(Reason::DestCapExceeded)),
        Err(abort) => Err(abort),
    }
}
