//! Uploads: bytes first, then one transaction, then the answer.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};

use crate::auth::caller::Grant;
use crate::catalog::blob_refs::{self, NewBlob};
use crate::catalog::replication::JobOrigin;
use crate::catalog::{Abort, Tx, buckets, config_versions, files, keys};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::digest::{Digests, Sha1Digest};
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion, UPLOAD_BYTES_MAX};
use crate::domain::ids::FileNumber;
use crate::domain::key::Key;
use crate::domain::names::FileName;
use crate::domain::refusal::{
    Code, Refusal, bad_auth_token, bad_request, no_such_bucket, refuse, token_in_use, unauthorized,
};
use crate::domain::replication::{Ineligible, ReplicationStatus};
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::authorize::UploadTicket;
use crate::operations::error::Error;
use crate::operations::replication_rules::{self, Enqueued};

/// What the uploader says about the SHA-1 of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeclaredSha1 {
    Is(Sha1Digest),
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
    /// Length of the body as the client announced it.
    pub(crate) body_bytes: u64,
    pub(crate) sha1: DeclaredSha1,
}

impl NewFile {
    fn content_bytes(&self) -> Result<u64, Refusal> {
        let bytes = match self.sha1 {
            DeclaredSha1::AtEnd => self
                .body_bytes
                .checked_sub(TRAILER_BYTES)
                .ok_or_else(|| bad_request("body is shorter than the SHA-1 at its end"))?,
            DeclaredSha1::Is(_) | DeclaredSha1::Unknown => self.body_bytes,
        };
        if bytes > UPLOAD_BYTES_MAX {
            return Err(bad_request(format!("file size too big: {bytes}")));
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

/// Refuses before the body is read what no body could make right: rights, name, size.
pub(crate) fn check_upload(ticket: &UploadTicket, file: &NewFile) -> Result<Grant, Refusal> {
    let bucket = Arc::clone(&ticket.bucket);
    let key = &ticket.caller.key;
    let grant = Grant::for_name(key, Capability::WriteFiles, bucket, file.name.as_str())?;
    file.content_bytes()?;
    Ok(grant)
}

/// Stores one file version. The token behind `ticket` is in use until this ends.
pub(crate) async fn upload<B>(
    app: &App,
    ticket: &UploadTicket,
    file: NewFile,
    body: B,
) -> Result<FileVersion, Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    let grant = check_upload(ticket, &file)?;
    let Some(_slot) = app.upload_slots.take(&ticket.nonce) else {
        return Err(token_in_use(&ticket.token).into());
    };
    let content_bytes = file.content_bytes()?;
    let blob = app.numbers.blob(app.clock.now());
    let mut writer = app.blobs.begin(blob, content_bytes).await?;
    let mut trailer = Vec::new();
    let mut received = 0_u64;
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(Refusal::from)?;
        let room = content_bytes.saturating_sub(received);
        received = received.saturating_add(chunk.len() as u64);
        if received > file.body_bytes {
            return Err(bad_request("more data than Content-Length announced").into());
        }
        let content = chunk.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len()));
        trailer.extend_from_slice(&chunk);
        if !content.is_empty() {
            writer.write(content).await?;
        }
    }
    if received != file.body_bytes {
        return Err(Refusal::from(BodyFault::Broken).into());
    }
    let digests = writer.digests().await?;
    let sha1 = compare_sha1(file.sha1, &trailer, digests.sha1)?;
    // From here on nobody but the sweep may remove the bytes: the caller may hang up while the
    // commit goes through.
    let placement = writer.finish().await?;
    let commit = Commit {
        bucket: grant.bucket,
        key: Arc::clone(&ticket.caller.key),
        config_version: ticket.config_version,
        number: app.numbers.small_file(app.clock.now()),
        now: app.clock.now(),
        copy_large_metadata: app.policy.copy_large_metadata,
        blob: NewBlob { id: blob, size: digests.size, checks: digests.checks.clone(), placement },
        file,
        digests,
        sha1,
    };
    let (version, enqueued) = app.catalog.write("upload", move |tx| commit.run(tx)).await?;
    count(app, &version, enqueued);
    Ok(version)
}

fn compare_sha1(
    declared: DeclaredSha1,
    trailer: &[u8],
    computed: Sha1Digest,
) -> Result<ContentSha1, Refusal> {
    let wanted = match declared {
        DeclaredSha1::Unknown => return Ok(ContentSha1::Unverified(computed)),
        DeclaredSha1::Is(wanted) => Some(wanted),
        DeclaredSha1::AtEnd => std::str::from_utf8(trailer).ok().and_then(Sha1Digest::parse),
    };
    if wanted == Some(computed) {
        Ok(ContentSha1::Verified(computed))
    } else {
        Err(bad_request("Sha1 did not match data received"))
    }
}

fn count(app: &App, version: &FileVersion, enqueued: Enqueued) {
    app.metrics.uploads.one();
    app.metrics.upload_bytes.add(version.size);
    match enqueued {
        Enqueued::Jobs(made) => {
            app.metrics.replication_jobs.add(made as u64);
            app.wake.replication.notify_one();
        }
        Enqueued::Skipped(Ineligible::LargeMetadata) => {
            app.metrics.replication_skipped_large_metadata.one();
        }
        Enqueued::Nothing | Enqueued::Skipped(_) => {}
    }
}

/// Everything the committing transaction needs, prepared before it begins.
struct Commit {
    bucket: Arc<Bucket>,
    key: Arc<Key>,
    config_version: i64,
    number: FileNumber,
    now: Millis,
    copy_large_metadata: bool,
    blob: NewBlob,
    file: NewFile,
    digests: Digests,
    sha1: ContentSha1,
}

impl Commit {
    fn run(&self, tx: &mut dyn Tx) -> Result<(FileVersion, Enqueued), Abort> {
        let changed = config_versions::current(tx)? != self.config_version;
        let reread = if changed { Some(self.still_allowed(tx)?) } else { None };
        let bucket = reread.as_ref().unwrap_or(&self.bucket);
        let newest = files::newest(tx, bucket.number, self.file.name.as_str())?;
        // Versions of a name must have strictly growing times, whatever the clock does.
        let upload_at = newest.map_or(self.now, |newest| self.now.max(newest.upload_at.plus(1)));
        let mut version = FileVersion {
            bucket: bucket.id,
            number: self.number,
            name: self.file.name.clone(),
            action: Action::Upload,
            upload_at,
            origin: self.number,
            written_at: self.now,
            size: self.digests.size,
            sha1: self.sha1,
            md5: self.digests.md5,
            content_type: self.file.content_type.clone(),
            info: self.file.info.clone(),
            blob: Some(self.blob.id),
            replication: None,
        };
        let enqueued = replication_rules::enqueue(
            tx,
            bucket,
            &version,
            JobOrigin::Upload,
            self.copy_large_metadata,
            self.now,
        )?;
        if matches!(enqueued, Enqueued::Jobs(_)) {
            version.replication = Some(ReplicationStatus::Pending);
        }
        blob_refs::insert_blob(tx, &self.blob)?;
        files::insert_version(tx, bucket.number, &version, newest)?;
        Ok((version, enqueued))
    }

    /// The bucket as it is now; refused when the key or the bucket has gone while bytes flowed.
    fn still_allowed(&self, tx: &mut dyn Tx) -> Result<Bucket, Abort> {
        let stored = keys::find_key(tx, &self.key.id)?.ok_or_else(bad_auth_token)?;
        if stored.key.is_expired(self.now) || stored.key != *self.key {
            return Err(unauthorized().into());
        }
        buckets::find_by_id(tx, self.bucket.id)?
            .ok_or_else(|| no_such_bucket(&self.bucket.id).into())
    }
}
