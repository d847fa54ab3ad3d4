//! Uploads: bytes first, then one transaction, then the answer.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::auth::caller::Grant;
use crate::catalog::blob_refs::{self, NewBlob};
use crate::catalog::{Abort, Tx, files};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::checksum::{Checksum, KeptChecksum};
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::encryption::{AskedEncryption, Encryption, Sealing};
use crate::domain::file::{
    Action, ContentSha1, FileInfo, FileVersion, UPLOAD_BYTES_MAX, check_short_metadata,
};
use crate::domain::ids::{BlobId, FileNumber};
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::refusal::{Code, Refusal, bad_request, precondition_failed, refuse, shorten};
use crate::domain::replica::ReplicaMark;
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::authorize::{Fence, UploadTicket};
use crate::operations::effects::{self, Aftermath, Cause, Moment};
use crate::operations::encryption::{Intake, encryption_of};
use crate::operations::error::Error;
use crate::operations::locks;
use crate::operations::replicas;
use crate::operations::usage::{check_room, count_uploaded};

/// What the uploader says about the SHA-1 of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeclaredSha1 {
    Is(Sha1Digest),
    /// As above, but whoever uploaded the source of a replica had not said so.
    IsUnverified(Sha1Digest),
    /// The last 40 bytes of the body are the hex digits.
    AtEnd,
    Unknown,
}

/// Length of the digits that follow the content with [`DeclaredSha1::AtEnd`].
const TRAILER_BYTES: u64 = 40;

/// A file about to be stored.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub(crate) name: FileName,
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
    pub(crate) lock: FileLock,
    pub(crate) encryption: AskedEncryption,
    pub(crate) body: Announced,
    /// The upload time that the caller wants, as it was written.
    pub(crate) custom_time: Option<String>,
    pub(crate) only_if: OnlyIf,
    /// Of a replica that a peer sends: where it comes from, and its upload time.
    pub(crate) replica: Option<ReplicaMark>,
}

/// What a name must show for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum OnlyIf {
    #[default]
    Anyway,
    /// Nothing.
    Absent,
    /// A file with one of these tags; None stands for any.
    Tagged(Option<Vec<String>>),
}

impl OnlyIf {
    /// Looks inside of the transaction that writes.
    pub(crate) fn check(&self, tx: &mut dyn Tx, bucket: &Bucket, name: &str) -> Result<(), Abort> {
        if *self == Self::Anyway {
            return Ok(());
        }
        let shown = files::find_head(tx, (bucket.number, bucket.id), name)?;
        match (self, shown) {
            (Self::Anyway, _) | (Self::Absent, None) | (Self::Tagged(None), Some(_)) => Ok(()),
            (Self::Tagged(_), None) => {
                let text = "The specified key does not exist.";
                Err(refuse(Code::NoSuchFile, text).into())
            }
            (Self::Tagged(Some(tags)), Some(shown))
                if shown.etag().is_some_and(|tag| tags.contains(&tag)) =>
            {
                Ok(())
            }
            (Self::Absent | Self::Tagged(_), Some(_)) => Err(precondition_failed().into()),
        }
    }
}

/// A body about to be received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    /// Length of the body as the client announced it.
    pub(crate) body_bytes: u64,
    pub(crate) sha1: DeclaredSha1,
    /// What the uploader says about the MD5, if anything.
    pub(crate) md5: Option<Md5Digest>,
}

impl Announced {
    /// Length of the content, without what follows it.
    pub(crate) fn content_bytes(self) -> Result<u64, Refusal> {
        let bytes = match self.sha1 {
            DeclaredSha1::AtEnd => self
                .body_bytes
                .checked_sub(TRAILER_BYTES)
                .ok_or_else(|| bad_request("body is shorter than the SHA-1 at its end"))?,
            DeclaredSha1::Is(_) | DeclaredSha1::IsUnverified(_) | DeclaredSha1::Unknown => {
                self.body_bytes
            }
        };
        if bytes > UPLOAD_BYTES_MAX {
            return Err(refuse(Code::UploadTooLarge, format!("file size too big: {bytes}")));
        }
        Ok(bytes)
    }
}

/// How a body can end before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    /// Nothing came for too long.
    Stalled,
    /// The connection broke or the framing was wrong.
    Broken,
}

impl From<BodyFault> for Refusal {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Stalled => {
                refuse(Code::RequestTimeout, "timeout while reading uploaded data")
            }
            BodyFault::Broken => bad_request("error reading uploaded data"),
        }
    }
}

/// Reads the upload time that a caller brings along; None where none is brought.
pub(crate) fn custom_time(app: &App, given: Option<&str>) -> Result<Option<Millis>, Refusal> {
    let Some(given) = given else { return Ok(None) };
    if !app.policy.custom_timestamps {
        return Err(refuse(
            Code::CustomTimestampNotAllowed,
            "Custom upload timestamps are not enabled for this account",
        ));
    }
    let time = given.parse().ok().map(Millis);
    match time.filter(|time| (Millis(0)..=app.clock.now()).contains(time)) {
        Some(time) => Ok(Some(time)),
        None => Err(refuse(
            Code::CustomTimestampInvalid,
            format!(
                "custom upload timestamp must be milliseconds since 1970 and not in the future: {}",
                shorten(given)
            ),
        )),
    }
}

/// Refuses metadata above the smaller limit, which holds in buckets with Object Lock and for files
/// whose uploader asks for encryption.
pub(crate) fn check_metadata(
    bucket: &Bucket,
    asked: &AskedEncryption,
    name: &FileName,
    info: &FileInfo,
) -> Result<(), Refusal> {
    if bucket.settings.file_lock.is_file_lock_enabled || *asked != AskedEncryption::Default {
        check_short_metadata(name, info)?;
    }
    Ok(())
}

/// Refuses before the body is read what no body could make right: rights, name, size, time, lock.
pub(crate) fn check_upload(
    app: &App,
    ticket: &UploadTicket,
    file: &NewFile,
) -> Result<Grant, Refusal> {
    let bucket = Arc::clone(&ticket.fence.bucket);
    let key = &ticket.caller.key;
    let grant = Grant::for_name(key, Capability::WriteFiles, bucket, file.name.as_str())?;
    file.body.content_bytes()?;
    if let Some(mark) = &file.replica {
        check_replica(app, ticket, file, mark)?;
    } else {
        custom_time(app, file.custom_time.as_deref())?;
        locks::check_new(app, &ticket.caller, &grant.bucket, file.lock)?;
        check_metadata(&grant.bucket, &file.encryption, &file.name, &file.info)?;
    }
    Ok(grant)
}

/// As [`check_upload`] of a replica. The smaller limit on metadata was its source's to keep.
fn check_replica(
    app: &App,
    ticket: &UploadTicket,
    file: &NewFile,
    mark: &ReplicaMark,
) -> Result<(), Refusal> {
    replicas::check_mark(app, mark)?;
    replicas::check_lock(&ticket.caller, &ticket.fence.bucket, file.lock)?;
    if file.custom_time.is_some() {
        return Err(bad_request("a replica has the upload time of its source and no other"));
    }
    match &file.encryption {
        AskedEncryption::Customer(_) => {
            Err(bad_request("a replica cannot be encrypted with a customer's key"))
        }
        AskedEncryption::Default | AskedEncryption::Managed => Ok(()),
    }
}

/// What of a replica can be told before its bytes come: that it is here already, or may not come.
fn known_replica(
    app: &App,
    ticket: &UploadTicket,
    file: &NewFile,
) -> Result<Option<FileVersion>, Error> {
    let Some(mark) = &file.replica else { return Ok(None) };
    let bucket = &ticket.fence.bucket;
    let now = app.clock.now();
    Ok(app.catalog.read(|tx| {
        let known = replicas::find_known(tx, bucket, mark.origin.as_str())?;
        if known.is_none() {
            replicas::check_rule(tx, bucket, mark, (file.name.as_str(), file.lock), now)?;
        }
        Ok(known)
    })?)
}

/// Stores one file version. A replica that is here already is answered and not stored again. The token behind `ticket` is in use until this ends.
pub(crate) async fn upload<B>(
    app: &App,
    ticket: &UploadTicket,
    file: NewFile,
    body: B,
) -> Result<FileVersion, Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    upload_checked(app, ticket, file, body, || None).await
}

/// As [`upload`], of content whose checksum is known once the body has ended.
pub(crate) async fn upload_checked<B>(
    app: &App,
    ticket: &UploadTicket,
    file: NewFile,
    body: B,
    checksum: impl FnOnce() -> Option<Checksum>,
) -> Result<FileVersion, Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    check_upload(app, ticket, &file)?;
    if let Some(known) = known_replica(app, ticket, &file)? {
        return Ok(known);
    }
    let _turn = ticket.turn.as_ref().map(|turn| turn.take(app)).transpose()?;
    let account = ticket.fence.bucket.account;
    check_room(app, account, file.body.content_bytes()?)?;
    let default = ticket.fence.bucket.settings.encryption;
    let sealing = file.encryption.clone().in_bucket(default);
    let custom_time = custom_time(app, file.custom_time.as_deref())?;
    let encryption = encryption_of(app, &sealing)?;
    let received = receive(app, file.body, &sealing, body).await?;
    let stored = received.blob.stored_id();
    let commit = Commit {
        fence: ticket.fence.clone(),
        number: app.numbers.small_file(app.clock.now()),
        moment: Moment::of(app),
        custom_time,
        instance: Arc::clone(&app.instance),
        encryption,
        received,
        checksum: checksum().map(|checksum| KeptChecksum::of_whole(&checksum)),
        file,
    };
    let (version, aftermath) = show_new(app, "upload", stored, move |tx| commit.run(tx)).await?;
    let Some(aftermath) = aftermath else {
        // The same replica came twice at the same time, and the other one was faster.
        remove_unshown(app, stored).await;
        return Ok(version);
    };
    effects::announce_upload(app, &version, aftermath);
    count_uploaded(app, account, version.size);
    if replicas::is_replica(&version) {
        app.metrics.replication_received.one();
    }
    Ok(version)
}

/// Content that is durable, but that nothing shows yet.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) blob: NewBlob,
    pub(crate) sha1: ContentSha1,
    pub(crate) md5: Md5Digest,
}

/// Takes a body in, compares it with what was announced and makes it durable.
pub(crate) async fn receive<B>(
    app: &App,
    announced: Announced,
    sealing: &Sealing,
    body: B,
) -> Result<Received, Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    let content_bytes = announced.content_bytes()?;
    let mut intake = Intake::begin(app, content_bytes, sealing).await?;
    let mut trailer = Vec::new();
    let mut received = 0_u64;
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(Refusal::from)?;
        let room = content_bytes.saturating_sub(received);
        received = received.saturating_add(chunk.len() as u64);
        if received > announced.body_bytes {
            return Err(bad_request("more data than Content-Length announced").into());
        }
        let content = chunk.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len()));
        trailer.extend_from_slice(&chunk);
        if !content.is_empty() {
            intake.write(content).await?;
        }
    }
    if received != announced.body_bytes {
        return Err(Refusal::from(BodyFault::Broken).into());
    }
    let digests = intake.digests().await?;
    let sha1 = compare_sha1(announced.sha1, &trailer, digests.sha1)?;
    if announced.md5.is_some_and(|wanted| wanted != digests.md5) {
        return Err(refuse(Code::DigestMismatch, "MD5 did not match data received").into());
    }
    // From here on the bytes go only when it is certain that no commit shows them: the caller may
    // hang up while it goes through.
    let blob = intake.finish(app, &digests).await?;
    Ok(Received { blob, sha1, md5: digests.md5 })
}

/// Runs the transaction that shows a new blob for the first time. When it is certain that it kept
/// nothing, the bytes in the store, if any, go at once. Bytes that a crash or a caller who hung up
/// leaves behind are removed by the next start.
pub(crate) async fn show_new<T, B>(
    app: &App,
    name: &'static str,
    stored: Option<BlobId>,
    body: B,
) -> Result<T, Abort>
where
    T: Send + 'static,
    B: Fn(&mut dyn Tx) -> Result<T, Abort> + Send + 'static,
{
    let outcome = app.catalog.write(name, body).await;
    if outcome.as_ref().is_err_and(Abort::kept_nothing) {
        remove_unshown(app, stored).await;
    }
    outcome
}

/// Removes the bytes of blobs that nothing shows and nothing ever will.
pub(crate) async fn remove_unshown(app: &App, blobs: impl IntoIterator<Item = BlobId>) {
    for id in blobs {
        if let Err(error) = app.blobs.remove(id).await {
            tracing::warn!(%error, "remove a blob that nothing shows; the next start tries again");
        }
    }
}

fn compare_sha1(
    declared: DeclaredSha1,
    trailer: &[u8],
    computed: Sha1Digest,
) -> Result<ContentSha1, Refusal> {
    let wanted = match declared {
        DeclaredSha1::Unknown => return Ok(ContentSha1::Unverified(computed)),
        DeclaredSha1::Is(wanted) | DeclaredSha1::IsUnverified(wanted) => Some(wanted),
        DeclaredSha1::AtEnd => std::str::from_utf8(trailer).ok().and_then(Sha1Digest::parse),
    };
    match declared {
        _ if wanted != Some(computed) => Err(bad_request("Sha1 did not match data received")),
        DeclaredSha1::IsUnverified(_) => Ok(ContentSha1::Unverified(computed)),
        _ => Ok(ContentSha1::Verified(computed)),
    }
}

/// Everything the committing transaction needs, prepared before it begins.
struct Commit {
    fence: Fence,
    number: FileNumber,
    moment: Moment,
    custom_time: Option<Millis>,
    /// This server's id.
    instance: Arc<str>,
    encryption: Encryption,
    received: Received,
    checksum: Option<KeptChecksum>,
    file: NewFile,
}

impl Commit {
    /// The version, and what follows from it; None for what follows when it was there already.
    fn run(&self, tx: &mut dyn Tx) -> Result<(FileVersion, Option<Aftermath>), Abort> {
        let reread = self.fence.reread(tx, self.moment.now)?;
        let bucket = reread.as_ref().unwrap_or(&self.fence.bucket);
        let mark = self.file.replica.as_ref();
        if let Some(mark) = mark
            && let Some(known) = replicas::find_known(tx, bucket, mark.origin.as_str())?
        {
            return Ok((known, None));
        }
        self.file.only_if.check(tx, bucket, self.file.name.as_str())?;
        let newest = files::newest(tx, bucket.number, self.file.name.as_str())?;
        let mut version = FileVersion {
            bucket: bucket.id,
            number: self.number,
            name: self.file.name.clone(),
            action: Action::Upload,
            upload_at: newest.upload_at(self.custom_time, self.moment.now),
            origin: self.number,
            written_at: self.moment.now,
            size: self.received.blob.size,
            sha1: self.received.sha1,
            md5: Some(self.received.md5),
            parts: None,
            content_type: self.file.content_type.clone(),
            info: self.file.info.clone(),
            blob: Some(self.received.blob.id),
            replication: None,
            lock: self.file.lock,
            encryption: self.encryption.clone(),
        };
        blob_refs::insert_blob(tx, &self.received.blob)?;
        let mut cause = Cause::Upload;
        if let Some(mark) = mark {
            cause = Cause::Replica;
            let here = (&*self.instance, self.moment);
            replicas::mark_version(tx, bucket, &mut version, mark, here)?;
            replicas::note_trail(tx, &version, mark)?;
            replicas::note_known(tx, &version, &mark.origin)?;
        }
        let aftermath = effects::add(tx, bucket, &mut version, newest, cause, self.moment)?;
        if self.checksum.is_some() {
            files::set_checksum(tx, version.number, self.checksum.as_ref())?;
        }
        Ok((version, Some(aftermath)))
    }
}
