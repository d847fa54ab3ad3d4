//! Single versions: look at, hide, delete.

use std::sync::Arc;

use crate::auth::caller::{Caller, Grant};
use crate::catalog::{Abort, Tx, buckets, files};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::encryption::Encryption;
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion, HIDE_CONTENT_TYPE};
use crate::domain::ids::{BucketId, ClaimedFileId, FileNumber};
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::refusal::{
    Code, file_not_present, invalid_file_id, no_such_bucket, no_such_file, no_such_file_id, refuse,
    unauthorized,
};
use crate::operations::App;
use crate::operations::authorize::{bucket_of_caller, fence, parse_bucket_id};
use crate::operations::effects::{self, Aftermath, Cause, Moment};
use crate::operations::error::Error;

/// The stored version that a claimed id names; None unless the whole id is right.
pub(crate) fn find_claimed(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    claimed: &ClaimedFileId,
) -> Result<Option<FileVersion>, Abort> {
    let found = files::find_by_number(tx, (bucket.number, bucket.id), claimed.number)?;
    Ok(found.filter(|version| version.id().to_string() == claimed.text))
}

/// The bucket inside a file id, when the caller's key reaches it. None when it does not exist.
fn bucket_of_id(
    app: &App,
    caller: &Caller,
    capability: Capability,
    claimed: &ClaimedFileId,
) -> Result<Option<Arc<Bucket>>, Error> {
    caller.require_bucket(capability, claimed.bucket)?;
    let known = app.facts.bucket(&app.catalog, claimed.bucket)?;
    Ok(known.map(|known| known.value).filter(|bucket| bucket.account == caller.account()))
}

/// One version, by its id.
pub(crate) fn file_info(app: &App, caller: &Caller, file_id: &str) -> Result<FileVersion, Error> {
    caller.require(Capability::ReadFiles)?;
    let claimed = ClaimedFileId::parse(file_id).ok_or_else(|| invalid_file_id(file_id))?;
    let absent = || no_such_file_id(file_id);
    let bucket = bucket_of_id(app, caller, Capability::ReadFiles, &claimed)?.ok_or_else(absent)?;
    let version = app.catalog.read(|tx| find_claimed(tx, &bucket, &claimed))?;
    // An unfinished large file has no information to give (spec: b2-native-api.md section 6.1).
    let version = version.filter(|found| found.action != Action::Start).ok_or_else(absent)?;
    Grant::for_name(&caller.key, Capability::ReadFiles, bucket, version.name.as_str())?;
    Ok(version)
}

/// Hides a name: a marker becomes its newest version.
pub(crate) async fn hide_file(
    app: &App,
    caller: &Caller,
    bucket_id: &str,
    file_name: &str,
) -> Result<FileVersion, Error> {
    caller.require(Capability::WriteFiles)?;
    let id = parse_bucket_id(bucket_id)?;
    caller.require_bucket(Capability::WriteFiles, id)?;
    if !caller.key.reaches_name(file_name) {
        return Err(unauthorized().into());
    }
    let name = FileName::parse(file_name)?;
    put_marker(app, caller, id, name, Over::File).await
}

/// What a hide marker may be put over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// A file that shows.
    File,
    /// Anything, be it hidden already or nothing at all.
    Anything,
}

/// Puts a hide marker in front of a name.
pub(crate) async fn put_marker(
    app: &App,
    caller: &Caller,
    id: BucketId,
    name: FileName,
    over: Over,
) -> Result<FileVersion, Error> {
    caller.require_bucket(Capability::WriteFiles, id)?;
    let bucket = bucket_of_caller(app, caller, id)?;
    let grant = Grant::for_name(&caller.key, Capability::WriteFiles, bucket, name.as_str())?;
    let moment = Moment::of(app);
    let number = app.numbers.small_file(moment.now);
    let (hidden, aftermath) = app
        .catalog
        .write("hide_file", move |tx| {
            let bucket = buckets::find_by_id(tx, grant.bucket.id)?
                .ok_or_else(|| no_such_bucket(&grant.bucket.id))?;
            hide(tx, &bucket, &name, number, (Cause::Hide, over), moment)
        })
        .await?;
    effects::announce(app, aftermath);
    Ok(hidden)
}

/// Puts a hide marker with this number in front of a name, for a caller or for a rule.
pub(crate) fn hide(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    name: &FileName,
    number: FileNumber,
    (cause, over): (Cause, Over),
    moment: Moment,
) -> Result<(FileVersion, Aftermath), Abort> {
    let newest = files::newest(tx, bucket.number, name.as_str())?;
    match newest.finished {
        _ if over == Over::Anything => {}
        None => {
            let text = format!("File not present: {}", name.as_str());
            return Err(refuse(Code::NoSuchFile, text).into());
        }
        Some(place) if place.action == Action::Hide => {
            let text = format!("File already hidden: {}", name.as_str());
            return Err(refuse(Code::AlreadyHidden, text).into());
        }
        Some(_) => {}
    }
    let mut marker = FileVersion {
        bucket: bucket.id,
        number,
        name: name.clone(),
        action: Action::Hide,
        upload_at: newest.next_upload_at(moment.now),
        origin: number,
        written_at: moment.now,
        size: 0,
        sha1: ContentSha1::Verified(Sha1Digest::OF_NOTHING),
        md5: Some(Md5Digest::OF_NOTHING),
        parts: None,
        content_type: HIDE_CONTENT_TYPE.to_owned(),
        info: FileInfo::default(),
        blob: None,
        replication: None,
        lock: FileLock::default(),
        encryption: Encryption::None,
    };
    let aftermath = effects::add(tx, bucket, &mut marker, newest, cause, moment)?;
    Ok((marker, aftermath))
}

/// Deletes one version and answers what it was. Its bytes go when nothing shows them any more.
pub(crate) async fn delete_version(
    app: &App,
    caller: &Caller,
    file_name: &str,
    file_id: &str,
    bypass_governance: bool,
) -> Result<Action, Error> {
    delete(app, caller, (file_name, file_id), bypass_governance, |_| true).await
}

/// As [`delete_version`]; an unfinished large file counts as none.
pub(crate) async fn delete_finished_version(
    app: &App,
    caller: &Caller,
    file_name: &str,
    file_id: &str,
    bypass_governance: bool,
) -> Result<Action, Error> {
    let is_finished = |action| action != Action::Start;
    delete(app, caller, (file_name, file_id), bypass_governance, is_finished).await
}

async fn delete(
    app: &App,
    caller: &Caller,
    (file_name, file_id): (&str, &str),
    bypass_governance: bool,
    counts: fn(Action) -> bool,
) -> Result<Action, Error> {
    caller.require(Capability::DeleteFiles)?;
    if bypass_governance {
        caller.require(Capability::BypassGovernance)?;
    }
    let claimed = ClaimedFileId::parse(file_id).ok_or_else(|| invalid_file_id(file_id))?;
    let absent = file_not_present(
        crate::domain::refusal::shorten(file_name),
        crate::domain::refusal::shorten(file_id),
    );
    let bucket = bucket_of_id(app, caller, Capability::DeleteFiles, &claimed)?;
    if !caller.key.reaches_name(file_name) {
        return Err(unauthorized().into());
    }
    let Some(bucket) = bucket else { return Err(absent.into()) };
    let grant = Grant::for_name(&caller.key, Capability::DeleteFiles, bucket, file_name)?;
    let fence = fence(app, caller, grant.bucket.id)?.ok_or_else(|| absent.clone())?;
    let moment = Moment::of(app);
    let file_name = file_name.to_owned();
    let (action, aftermath) = app
        .catalog
        .write("delete_file_version", move |tx| {
            let reread = fence.reread(tx, moment.now)?;
            let bucket = reread.as_ref().unwrap_or(&fence.bucket);
            let version = find_claimed(tx, bucket, &claimed)?
                .filter(|version| version.name.as_str() == file_name && counts(version.action))
                .ok_or_else(|| absent.clone())?;
            let cause = match version.action {
                Action::Start => Cause::Cancel,
                Action::Upload | Action::Hide => Cause::Delete,
            };
            let aftermath =
                effects::remove(tx, bucket, &version, cause, moment, bypass_governance)?;
            Ok((version.action, aftermath))
        })
        .await?;
    effects::announce(app, aftermath);
    app.wake.sweep.notify_one();
    Ok(action)
}

/// The version that a name shows, or the one of it that `version_id` names, for a caller with
/// `capability`.
pub(crate) fn find_named(
    app: &App,
    caller: &Caller,
    capability: Capability,
    bucket: &Arc<Bucket>,
    name: &str,
    version_id: Option<&str>,
) -> Result<FileVersion, Error> {
    let grant = Grant::for_name(&caller.key, capability, Arc::clone(bucket), name)?;
    let claimed = version_id
        .map(|id| ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id)))
        .transpose()?;
    let bucket = &grant.bucket;
    let found = app.catalog.read(|tx| match &claimed {
        Some(claimed) => find_claimed(tx, bucket, claimed),
        None => Ok(files::find_head(tx, (bucket.number, bucket.id), name)?),
    })?;
    let found = found.filter(|found| found.name.as_str() == name && found.action != Action::Start);
    Ok(found.ok_or_else(no_such_file)?)
}
