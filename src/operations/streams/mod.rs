//! Replication streams: what is written to a bucket is carried on to a bucket of a remote.
//!
//! Kept here: what a stream is. What waits in its queue is in [`queue`], what arrived at the other side
//! in [`mod@diff`]. The jobs of a stream are made by the acts that write versions, through `effects`.

mod diff;
mod queue;

use std::sync::Arc;

use serde_json::{Map, Value};

pub(crate) use diff::{DiffItem, diff};
pub(crate) use queue::{
    FilesQuery, Resync, ResyncCounts, RetryWhat, ShownFile, before_names, cursor_at, files, purge,
    resync, retry, walked_prefix,
};

use crate::auth::caller::{Caller, Grant};
use crate::catalog::remotes::{self, StoredRemote};
use crate::catalog::streams::{self, StreamRows};
use crate::catalog::{Abort, Error as CatalogError, Tx, buckets, replication};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::ids::BucketId;
use crate::domain::names::fold_bucket_name;
use crate::domain::refusal::{Code, Refusal, bad_request, no_such_bucket, refuse, shorten};
use crate::domain::remote::{Checked, RemoteBucket, RemoteId, StreamId};
use crate::domain::remote_answer::RemoteFault;
use crate::domain::replication::JobState;
use crate::domain::stream::{
    MAX_AGE_S_DEFAULT, OnQueueFull, QUEUE_BYTES_DEFAULT, QueueSums, Stream, StreamOptions,
    named_bucket,
};
use crate::domain::time::{Millis, Steady};
use crate::operations::App;
use crate::operations::controls::{RemotePlace, StreamNetwork};
use crate::operations::error::Error;
use crate::operations::remote_tokens::open_token;
use crate::operations::remotes::{own_org, parse_org};

/// Streams of an account at most (ours).
const STREAMS_MAX: i64 = 10_000;
/// Streams of a bucket at most (ours): each is looked at by every upload.
const STREAMS_OF_BUCKET_MAX: usize = 100;
/// Jobs that are changed in one transaction.
const BATCH: i64 = 500;

/// The id of a stream in an address.
pub(crate) fn parse_id(text: &str) -> Result<StreamId, Refusal> {
    StreamId::parse(text).ok_or_else(|| bad_request("replication ID is invalid"))
}

/// The id of a remote in a stream.
pub(crate) fn parse_remote_id(text: &str) -> Result<RemoteId, Refusal> {
    RemoteId::parse(text).ok_or_else(|| bad_request("invalid remote ID"))
}

fn not_found() -> Refusal {
    refuse(Code::NotFound, "replication not found")
}

fn no_local_bucket(id: &str) -> Refusal {
    bad_request(format!("local bucket \"{}\" not found", shorten(id)))
}

fn name_taken(error: CatalogError, name: &str) -> Abort {
    match error {
        CatalogError::Conflict => {
            let text = format!("replication with name {} already exists", shorten(name));
            Abort::Refused(refuse(Code::Clash, text))
        }
        other => Abort::Catalog(other),
    }
}

/// What a new stream shall be.
#[derive(Clone, Debug)]
pub(crate) struct NewStream {
    pub(crate) org_id: String,
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) remote: RemoteId,
    /// Its id.
    pub(crate) local_bucket: String,
    pub(crate) remote_bucket_id: Option<String>,
    pub(crate) remote_bucket_name: Option<String>,
    pub(crate) max_queue_bytes: Option<i64>,
    pub(crate) max_age_s: Option<i64>,
    pub(crate) drop_non_retryable: bool,
    pub(crate) options: StreamOptions,
    pub(crate) is_paused: bool,
}

/// What of a stream shall change; None leaves a field as it is, and so does an option not named. The
/// local bucket and the organization stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamChange {
    pub(crate) name: Option<String>,
    pub(crate) description: Option<String>,
    pub(crate) remote: Option<RemoteId>,
    pub(crate) remote_bucket_id: Option<String>,
    pub(crate) remote_bucket_name: Option<String>,
    pub(crate) max_queue_bytes: Option<i64>,
    pub(crate) max_age_s: Option<i64>,
    pub(crate) drop_non_retryable: Option<bool>,
    /// By the names of [`StreamOptions`]; null sets one back.
    pub(crate) options: Map<String, Value>,
    pub(crate) is_paused: Option<bool>,
}

/// A stream with the job that has waited longest outside of its queue, if that is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownStream {
    pub(crate) stream: Stream,
    pub(crate) spill_from: Option<i64>,
}

fn with_spill(tx: &mut dyn Tx, stream: Stream) -> Result<ShownStream, CatalogError> {
    let spills = stream.sums.spilled > 0;
    let spill_from = if spills { streams::first_spilled(tx, stream.id)? } else { None };
    Ok(ShownStream { stream, spill_from })
}

/// A stream that is about to be made, and the bucket it is of.
struct Prepared {
    stream: Stream,
    bucket: Arc<Bucket>,
}

/// Checks what can be checked of a new stream without a transaction.
fn prepare(app: &App, caller: &Caller, wanted: NewStream) -> Result<Prepared, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    let account = own_org(caller, &wanted.org_id)?;
    let bucket_id = BucketId::parse(&wanted.local_bucket)
        .ok_or_else(|| no_local_bucket(&wanted.local_bucket))?;
    caller.require_bucket(Capability::WriteBucketReplications, bucket_id)?;
    let bucket = app.facts.bucket(&app.catalog, bucket_id)?.map(|known| known.value);
    let bucket = bucket
        .filter(|bucket| bucket.account == account)
        .ok_or_else(|| no_local_bucket(&wanted.local_bucket))?;
    // What a stream carries leaves the server, so whoever makes one must be able to read it.
    let prefix = &wanted.options.file_name_prefix;
    Grant::for_prefix(&caller.key, Capability::ReadFiles, Arc::clone(&bucket), prefix)?;
    let (id, name) = (wanted.remote_bucket_id.as_deref(), wanted.remote_bucket_name.as_deref());
    let remote_bucket = named_bucket(id, name)?.ok_or_else(|| {
        let text = "one of remote_bucket_id, remote_bucket_name should be provided";
        refuse(Code::Unprocessable, text)
    })?;
    let now = app.clock.now();
    let mut stream = Stream {
        id: StreamId(0),
        account,
        org_id: wanted.org_id,
        name: wanted.name,
        description: wanted.description,
        remote: wanted.remote,
        local_bucket: bucket_id,
        remote_bucket_id: None,
        remote_bucket_name: String::new(),
        max_queue_bytes: wanted.max_queue_bytes.unwrap_or(QUEUE_BYTES_DEFAULT),
        max_age_s: wanted.max_age_s.unwrap_or(MAX_AGE_S_DEFAULT),
        drop_non_retryable: wanted.drop_non_retryable,
        is_paused: wanted.is_paused,
        options: wanted.options,
        sums: QueueSums::default(),
        latest: None,
        created_at: now,
        updated_at: now,
    };
    stream.set_remote_bucket(remote_bucket);
    stream.check()?;
    Ok(Prepared { stream, bucket })
}

/// The remote of a stream, which must be one of its account.
fn remote_of(tx: &mut dyn Tx, stream: &Stream) -> Result<StoredRemote, Abort> {
    let stored = remotes::find_remote(tx, stream.remote)?;
    let stored = stored.filter(|stored| stored.remote.account == stream.account);
    let missing = || bad_request(format!("remote \"{}\" not found", stream.remote));
    stored.ok_or_else(|| missing().into())
}

/// Makes a stream; nothing is asked of the remote. Whatever is written to the bucket after this is
/// carried on, and what was there before if it is asked for.
pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    wanted: NewStream,
) -> Result<ShownStream, Error> {
    let prepared = prepare(app, caller, wanted)?.stream;
    let made = app
        .catalog
        .write("create_stream", move |tx| {
            let mut stream = prepared.clone();
            if buckets::find_by_id(tx, stream.local_bucket)?.is_none() {
                return Err(no_local_bucket(&stream.local_bucket.to_string()).into());
            }
            remote_of(tx, &stream)?;
            if streams::count_streams(tx, Some(stream.account))? >= STREAMS_MAX {
                let text = format!("an account may have at most {STREAMS_MAX} streams");
                return Err(bad_request(text).into());
            }
            if streams::list_of_bucket(tx, stream.local_bucket)?.len() >= STREAMS_OF_BUCKET_MAX {
                let text = format!("a bucket may have at most {STREAMS_OF_BUCKET_MAX} streams");
                return Err(bad_request(text).into());
            }
            stream.id = streams::take_id(tx)?;
            streams::insert_stream(tx, &stream).map_err(|error| name_taken(error, &stream.name))?;
            if stream.options.include_existing_files {
                streams::start_scan(tx, stream.id, "", None, false, stream.created_at)?;
            }
            Ok(stream)
        })
        .await?;
    app.wake.replication.notify_one();
    Ok(ShownStream { stream: made, spill_from: None })
}

/// Which streams a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamFilter {
    pub(crate) org_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) remote: Option<String>,
    pub(crate) local_bucket: Option<String>,
}

/// The streams of the buckets that the caller reaches, oldest first. Of other organizations there are
/// none to be seen.
pub(crate) fn list(
    app: &App,
    caller: &Caller,
    filter: &StreamFilter,
) -> Result<Vec<ShownStream>, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    let account = parse_org(filter.org_id.as_deref())?;
    let remote = filter.remote.as_deref().map(parse_remote_id).transpose()?;
    let parse_bucket =
        |id: &str| BucketId::parse(id).ok_or_else(|| bad_request("invalid local bucket ID"));
    let local_bucket = filter.local_bucket.as_deref().map(parse_bucket).transpose()?;
    if account != caller.account() {
        return Ok(Vec::new());
    }
    let rows =
        StreamRows { account: Some(account), name: filter.name.clone(), remote, local_bucket };
    Ok(app.catalog.read(|tx| {
        let mut listed = streams::list_streams(tx, &rows)?;
        listed.retain(|stream| caller.key.reaches_bucket(stream.local_bucket));
        let listed = listed.into_iter().map(|stream| with_spill(tx, stream));
        Ok(listed.collect::<Result<Vec<_>, _>>()?)
    })?)
}

/// A stream that the caller reaches, as a transaction sees it. One of other accounts and buckets is
/// not there for him.
fn existing(tx: &mut dyn Tx, caller: &Caller, id: StreamId) -> Result<Stream, Abort> {
    let found = streams::find_stream(tx, id)?.filter(|stream| {
        stream.account == caller.account() && caller.key.reaches_bucket(stream.local_bucket)
    });
    found.ok_or_else(|| not_found().into())
}

/// As [`existing`], for acts that tell of the names of files, or change what becomes of them: these
/// must all be within what the key reaches.
fn existing_with_names(
    tx: &mut dyn Tx,
    caller: &Caller,
    id: StreamId,
    capability: Capability,
) -> Result<(Stream, Bucket), Abort> {
    let stream = existing(tx, caller, id)?;
    let bucket = bucket_of(tx, &stream)?;
    let prefix = &stream.options.file_name_prefix;
    Grant::for_prefix(&caller.key, capability, Arc::new(bucket.clone()), prefix)?;
    Ok((stream, bucket))
}

fn bucket_of(tx: &mut dyn Tx, stream: &Stream) -> Result<Bucket, Abort> {
    let id = stream.local_bucket;
    buckets::find_by_id(tx, id)?.ok_or_else(|| no_such_bucket(&id).into())
}

/// One stream.
pub(crate) fn get(app: &App, caller: &Caller, id: StreamId) -> Result<ShownStream, Error> {
    caller.require(Capability::ReadBucketReplications)?;
    Ok(app.catalog.read(|tx| {
        let stream = existing(tx, caller, id)?;
        Ok(with_spill(tx, stream)?)
    })?)
}

/// A stream as a change would make it.
fn changed(before: &Stream, change: &StreamChange, now: Millis) -> Result<Stream, Refusal> {
    let mut stream = before.clone();
    if let Some(name) = &change.name {
        stream.name.clone_from(name);
    }
    if let Some(description) = &change.description {
        stream.description = Some(description.clone());
    }
    stream.remote = change.remote.unwrap_or(stream.remote);
    let (id, name) = (change.remote_bucket_id.as_deref(), change.remote_bucket_name.as_deref());
    if let Some(bucket) = named_bucket(id, name)? {
        stream.set_remote_bucket(bucket);
    }
    stream.max_queue_bytes = change.max_queue_bytes.unwrap_or(stream.max_queue_bytes);
    stream.max_age_s = change.max_age_s.unwrap_or(stream.max_age_s);
    stream.drop_non_retryable = change.drop_non_retryable.unwrap_or(stream.drop_non_retryable);
    stream.options = stream.options.with(&change.options)?;
    stream.is_paused = change.is_paused.unwrap_or(stream.is_paused);
    stream.updated_at = now.max(stream.updated_at.plus(1));
    stream.check()?;
    Ok(stream)
}

/// Reads a stream and makes of it what a change asks for, if the caller may.
fn prepare_change(
    tx: &mut dyn Tx,
    caller: &Caller,
    id: StreamId,
    change: &StreamChange,
    now: Millis,
) -> Result<(Stream, Stream, Bucket), Abort> {
    let before = existing(tx, caller, id)?;
    let after = changed(&before, change, now)?;
    let bucket = bucket_of(tx, &before)?;
    let selects = |options: &StreamOptions| StreamOptions {
        destination_prefix: String::new(),
        on_queue_full: OnQueueFull::default(),
        ..options.clone()
    };
    // Whoever lets other files go, or lets them go elsewhere, must be able to read them.
    if after.leads_elsewhere(&before) || selects(&after.options) != selects(&before.options) {
        let prefix = &after.options.file_name_prefix;
        let bucket = Arc::new(bucket.clone());
        Grant::for_prefix(&caller.key, Capability::ReadFiles, bucket, prefix)?;
    }
    Ok((before, after, bucket))
}

/// Changes a stream: all of it or nothing. What waits in its queue goes by it from the next attempt on,
/// which comes at once. A queue that is too large for a new limit is kept, nothing enters it until it
/// has shrunk.
pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    id: StreamId,
    change: StreamChange,
) -> Result<ShownStream, Error> {
    caller.require(Capability::WriteBucketReplications)?;
    let (now, steady) = (app.clock.now(), app.waits.now());
    let caller = caller.clone();
    let (shown, moved) = app
        .catalog
        .write("update_stream", move |tx| {
            let (before, after, _) = prepare_change(tx, &caller, id, &change, now)?;
            remote_of(tx, &after)?;
            streams::update_stream(tx, &after).map_err(|error| name_taken(error, &after.name))?;
            if after.leads_elsewhere(&before) {
                streams::orphan_sessions(tx, &before, steady)?;
                streams::revoke_leases(tx, id, steady)?;
            }
            let (was, is) = (&before.options, &after.options);
            if is.include_existing_files
                && (!was.include_existing_files || was.file_name_prefix != is.file_name_prefix)
            {
                streams::start_scan(tx, id, "", None, false, now)?;
            }
            replication::promote_spilled(tx, id, steady)?;
            let stored =
                streams::find_stream(tx, id)?.ok_or(CatalogError::Unreadable { what: "stream" })?;
            Ok((with_spill(tx, stored)?, after.remote != before.remote))
        })
        .await?;
    if moved {
        relabel(app, &shown.stream).await?;
    }
    let stream = shown.stream.clone();
    app.catalog
        .write("stream_make_due", move |tx| Ok(streams::make_due(tx, &stream, steady)?))
        .await?;
    app.wake.replication.notify_one();
    Ok(shown)
}

/// Puts the unfinished jobs of a stream into the lane of its new remote, bit by bit. They go to the new
/// one already; the lane is whose turn it is, and whose failures count.
async fn relabel(app: &App, stream: &Stream) -> Result<(), Error> {
    for state in [JobState::Ready, JobState::Parked, JobState::Spilled, JobState::Failed] {
        let mut after = 0;
        loop {
            let stream = stream.clone();
            let last = app
                .catalog
                .write("relabel_stream_jobs", move |tx| {
                    Ok(streams::relabel_jobs(tx, &stream, state, after, BATCH)?)
                })
                .await?;
            match last {
                Some(last) => after = last,
                None => break,
            }
        }
    }
    Ok(())
}

/// Lets a stream rest, or go on. While it rests its queue grows.
pub(crate) async fn set_paused(
    app: &App,
    caller: &Caller,
    id: StreamId,
    is_paused: bool,
) -> Result<ShownStream, Error> {
    let change = StreamChange { is_paused: Some(is_paused), ..StreamChange::default() };
    update(app, caller, id, change).await
}

/// Deletes a stream with its queue. What it has begun at the remote is cancelled there later.
pub(crate) async fn delete(app: &App, caller: &Caller, id: StreamId) -> Result<(), Error> {
    caller.require(Capability::WriteBucketReplications)?;
    let (steady, asking) = (app.waits.now(), caller.clone());
    app.catalog
        .write("delete_stream", move |tx| {
            let stream = existing(tx, &asking, id)?;
            Ok(remove(tx, &stream, steady)?)
        })
        .await?;
    clear(app, id).await
}

/// Removes a stream; its jobs follow in [`clear`], or with the upkeep, and none of them does anything
/// meanwhile.
fn remove(tx: &mut dyn Tx, stream: &Stream, now: Steady) -> Result<(), CatalogError> {
    streams::orphan_sessions(tx, stream, now)?;
    // An attempt under way notes nothing from now on, and gives up what it has begun.
    streams::revoke_leases(tx, stream.id, now)?;
    streams::delete_stream(tx, stream.id)?;
    Ok(())
}

/// Removes the jobs that are left of a stream that is gone, bit by bit: there may be many.
pub(crate) async fn clear(app: &App, id: StreamId) -> Result<(), Error> {
    loop {
        let removed = app
            .catalog
            .write("forget_stream_jobs", move |tx| {
                Ok(replication::forget_stream_jobs(tx, id, BATCH)?)
            })
            .await?;
        if removed == 0 {
            break;
        }
    }
    app.metrics.forget_stream(id);
    app.wake.replication.notify_one();
    Ok(())
}

/// Removes the streams of a bucket that is being deleted; answers which, for [`clear`].
pub(crate) fn forget_bucket(
    tx: &mut dyn Tx,
    bucket: BucketId,
    now: Steady,
) -> Result<Vec<StreamId>, CatalogError> {
    let all = streams::list_of_bucket(tx, bucket)?;
    all.iter().try_for_each(|stream| remove(tx, stream, now))?;
    Ok(all.into_iter().map(|stream| stream.id).collect())
}

/// Checks a new stream as [`create`] would, and with its remote; makes nothing.
pub(crate) async fn validate_new(
    app: &App,
    network: &dyn StreamNetwork,
    caller: &Caller,
    wanted: NewStream,
) -> Result<(), Error> {
    let Prepared { stream, bucket } = prepare(app, caller, wanted)?;
    let stored = app.catalog.read(|tx| remote_of(tx, &stream))?;
    let place = place_of(app, &stream, &stored)?;
    let works = ask(app, network, &bucket, &place).await;
    works.map_err(|why| failed("replication parameters fail validation", &why))
}

/// Checks what a change would make of a stream, with the remote; changes nothing.
pub(crate) async fn validate_change(
    app: &App,
    network: &dyn StreamNetwork,
    caller: &Caller,
    id: StreamId,
    change: StreamChange,
) -> Result<(), Error> {
    caller.require(Capability::WriteBucketReplications)?;
    let now = app.clock.now();
    let (stream, bucket, stored) = app.catalog.read(|tx| {
        let (_, after, bucket) = prepare_change(tx, caller, id, &change, now)?;
        let stored = remote_of(tx, &after)?;
        Ok((after, bucket, stored))
    })?;
    let place = place_of(app, &stream, &stored)?;
    let works = ask(app, network, &bucket, &place).await;
    works.map_err(|why| failed("validation fails after applying update", &why))
}

/// Checks a stream with its remote.
pub(crate) async fn validate(
    app: &App,
    network: &dyn StreamNetwork,
    caller: &Caller,
    id: StreamId,
) -> Result<(), Error> {
    caller.require(Capability::ReadBucketReplications)?;
    let (stream, bucket, stored) = app.catalog.read(|tx| {
        let stream = existing(tx, caller, id)?;
        let (bucket, stored) = (bucket_of(tx, &stream)?, remote_of(tx, &stream)?);
        Ok((stream, bucket, stored))
    })?;
    let place = place_of(app, &stream, &stored)?;
    let works = ask(app, network, &bucket, &place).await;
    works.map_err(|why| failed("replication failed validation", &why))
}

fn failed(what: &str, why: &str) -> Error {
    bad_request(format!("{what}: {why}")).into()
}

/// Where a stream leads, with what opens it.
fn place_of(app: &App, stream: &Stream, stored: &StoredRemote) -> Result<RemotePlace, Error> {
    let token = open_token(app, stored)?;
    Ok(RemotePlace { remote: stored.remote.clone(), token, bucket: stream.remote_bucket() })
}

/// Whether versions of `bucket` can be carried to a place; the error is why not.
async fn ask(
    app: &App,
    network: &dyn StreamNetwork,
    bucket: &Bucket,
    place: &RemotePlace,
) -> Result<(), String> {
    let checked = network.check(place).await.map_err(|fault| said(&fault))?;
    // Addresses prove nothing, there may be a balancer in front of either side.
    if checked.instance.as_deref() == Some(&*app.instance) && is_same(bucket, place, &checked) {
        return Err("the remote bucket is the local bucket".to_owned());
    }
    if bucket.settings.file_lock.is_file_lock_enabled && checked.has_file_lock == Some(false) {
        return Err("the local bucket has file lock, the remote bucket does not".to_owned());
    }
    Ok(())
}

fn is_same(bucket: &Bucket, place: &RemotePlace, checked: &Checked) -> bool {
    let id = bucket.id.to_string();
    match (&checked.bucket_id, &place.bucket) {
        (Some(theirs), _) | (None, RemoteBucket::Id(theirs)) => theirs.eq_ignore_ascii_case(&id),
        (None, RemoteBucket::Name(name)) => fold_bucket_name(name) == bucket.name.folded(),
    }
}

/// What a remote said, for the caller.
fn said(fault: &RemoteFault) -> String {
    let text = match (fault.code.as_str(), fault.text.as_str()) {
        ("", text) => text.to_owned(),
        (code, "") => code.to_owned(),
        (code, text) => format!("{code}: {text}"),
    };
    match fault.status {
        0 => format!("no answer from the remote: {text}"),
        status => format!("the remote answered {status}: {text}"),
    }
}
