//! Replicas that peers send: whether they are taken, where they stand among the versions of their
//! name, and that each is stored once.

use crate::auth::caller::{Caller, Grant};
use crate::catalog::replicas::{self, Trail};
use crate::catalog::{Abort, Tx, files, replication};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::{BucketId, ClaimedFileId, FileNumber};
use crate::domain::lock::FileLock;
use crate::domain::refusal::{Code, Refusal, no_such_bucket, refuse};
use crate::domain::replica::{Origin, ReplicaMark};
use crate::domain::replication::ReplicationStatus;
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::authorize::fence;
use crate::operations::destination_gate::{Carried, check_destination};
use crate::operations::effects::Moment;
use crate::operations::error::Error;
use crate::operations::files::find_claimed;

/// What a server tells of itself to whoever asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Introduction<'a> {
    /// No secret: it stands in the ids of events and in the origin of every replica.
    pub(crate) instance: &'a str,
    pub(crate) accepts_peers: bool,
}

pub(crate) fn introduce(app: &App) -> Introduction<'_> {
    Introduction { instance: &app.instance, accepts_peers: app.policy.accept_peers }
}

/// Whether a version is, or is to be, a replica.
pub(crate) fn is_replica(version: &FileVersion) -> bool {
    version.replication == Some(ReplicationStatus::Replica)
}

/// Refuses all replicas where none are taken.
pub(crate) fn check_taken(app: &App) -> Result<(), Refusal> {
    if app.policy.accept_peers {
        return Ok(());
    }
    let text = "this server takes no replicas from others: replication.accept_peers is off";
    Err(refuse(Code::AccessForbidden, text))
}

/// Refuses a replica that this server takes from nobody, or not again.
pub(crate) fn check_mark(app: &App, mark: &ReplicaMark) -> Result<(), Refusal> {
    check_taken(app)?;
    mark.check_loop(&app.instance).inspect_err(|_| app.metrics.replication_loops.one())
}

/// Refuses the lock of a replica that the bucket cannot have, or that the caller may not set.
pub(crate) fn check_lock(caller: &Caller, bucket: &Bucket, lock: FileLock) -> Result<(), Refusal> {
    if lock.retention.is_some() {
        caller.require(Capability::WriteFileRetentions)?;
    }
    if lock.legal_hold.is_some() {
        caller.require(Capability::WriteFileLegalHolds)?;
    }
    bucket.settings.file_lock.check_replica(lock)
}

/// Refuses what a peer's rule sends unless the bucket lets its source key write it. The message is
/// the name of the reason, which the peer's job then ends with.
pub(crate) fn check_rule(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    mark: &ReplicaMark,
    (name, lock): (&str, FileLock),
    now: Millis,
) -> Result<(), Abort> {
    let Some(source_key) = &mark.source_key else { return Ok(()) };
    let checked = check_destination(tx, bucket, source_key, Carried { name, lock, now })?;
    checked.map_err(|reason| refuse(Code::ReplicationRefused, reason.as_str()).into())
}

/// The replica of an origin that a bucket has.
pub(crate) fn find_known(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    origin: &str,
) -> Result<Option<FileVersion>, Abort> {
    let known = replication::find_replica(tx, bucket.id, origin)?;
    let Some(claimed) = known.as_deref().and_then(ClaimedFileId::parse) else { return Ok(None) };
    let found = find_claimed(tx, bucket, &claimed)?;
    Ok(found.filter(|version| version.action == Action::Upload))
}

/// The replica of an origin that a bucket of the caller has, who may write its name.
pub(crate) fn known_to(
    app: &App,
    caller: &Caller,
    bucket: BucketId,
    origin: &Origin,
) -> Result<Option<FileVersion>, Error> {
    caller.require_bucket(Capability::WriteFiles, bucket)?;
    let fence = fence(app, caller, bucket)?.ok_or_else(|| no_such_bucket(&bucket))?;
    let known = app.catalog.read(|tx| find_known(tx, &fence.bucket, origin.as_str()))?;
    if let Some(known) = &known {
        let name = known.name.as_str();
        Grant::for_name(&caller.key, Capability::WriteFiles, fence.bucket, name)?;
    }
    Ok(known)
}

/// How far it is looked for a place beside versions of the same time and number.
const STEPS_ASIDE_MAX: usize = 64;

/// The number by which a replica stands among the versions of its name: that of its origin, so that
/// every server puts versions of the same millisecond in the same order. Where another version has
/// the same number, the ids of the servers they were born at decide. `own` is the number it has here.
pub(crate) fn place_of(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    name: &str,
    (origin, upload_at): (&Origin, Millis),
    (own, instance): (FileNumber, &str),
) -> Result<FileNumber, Abort> {
    let mut number = origin.number();
    let mut step = None;
    for _ in 0..STEPS_ASIDE_MAX {
        let there = files::number_at(tx, bucket.number, name, (upload_at, number))?;
        let Some(there) = there.filter(|there| *there != own) else { return Ok(number) };
        let step = if let Some(step) = step {
            step
        } else {
            let trail = replicas::find_trail(tx, there)?;
            let born = trail.as_ref().and_then(|trail| trail.origin.split_once('.'));
            let born = born.map_or(instance, |(born, _)| born);
            *step.insert(origin.step_aside(born))
        };
        number = FileNumber(number.0 + step);
    }
    Ok(own)
}

/// The version that a replica, or what is to be one, is a copy of; None when no peer sent it.
pub(crate) fn origin_of(tx: &mut dyn Tx, version: &FileVersion) -> Result<Option<Origin>, Abort> {
    if !is_replica(version) {
        return Ok(None);
    }
    let trail = replicas::find_trail(tx, version.number)?;
    Ok(trail.and_then(|trail| Origin::parse(&trail.origin)))
}

/// Remembers where a version comes from, be it finished or not.
pub(crate) fn note_trail(
    tx: &mut dyn Tx,
    version: &FileVersion,
    mark: &ReplicaMark,
) -> Result<(), Abort> {
    let (origin, hops) = (mark.origin.as_str().to_owned(), mark.hops.to_string());
    Ok(replicas::insert_trail(tx, version.number, &Trail { origin, hops })?)
}

/// Remembers that a bucket has the replica of an origin.
pub(crate) fn note_known(
    tx: &mut dyn Tx,
    version: &FileVersion,
    origin: &Origin,
) -> Result<(), Abort> {
    let id = version.id().to_string();
    Ok(replicas::put_origin(tx, version.bucket, origin.as_str(), &id)?)
}

/// What makes a version that is about to be stored a replica.
pub(crate) fn mark_version(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    version: &mut FileVersion,
    mark: &ReplicaMark,
    (instance, moment): (&str, Moment),
) -> Result<(), Abort> {
    let lock = version.lock;
    let name = version.name.as_str().to_owned();
    check_rule(tx, bucket, mark, (&name, lock), moment.now)?;
    version.upload_at = mark.upload_at;
    version.replication = Some(ReplicationStatus::Replica);
    if version.action == Action::Upload {
        let (at, own) = ((&mark.origin, mark.upload_at), (version.number, instance));
        version.origin = place_of(tx, bucket, &name, at, own)?;
    }
    Ok(())
}
