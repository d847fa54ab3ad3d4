//! Server-side copies: of a file to a new version, of a file into a part of a large file. No byte
//! is written again where a reference does; where source and copy are not encrypted alike, the
//! bytes go through in one stream.

use std::sync::Arc;

use crate::auth::caller::{Caller, Grant};
use crate::blobs;
use crate::catalog::blob_refs::{self, NewBlob, Place, StoredBlob};
use crate::catalog::{Abort, Error as CatalogError, Tx, files};
use crate::domain::blob::Piece;
use crate::domain::bucket::BucketType;
use crate::domain::capability::Capability;
use crate::domain::digest::{Corrupt, Hasher, Md5Digest};
use crate::domain::encryption::{AskedEncryption, CustomerKey, Sealing};
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion, UPLOAD_BYTES_MAX};
use crate::domain::ids::{BlobId, BucketId, ClaimedFileId};
use crate::domain::large_file::{Part, PartNumber};
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::range::{ByteRange, Unsatisfiable, Wanted};
use crate::domain::refusal::{
    Code, Refusal, bad_request, invalid_file_id, no_such_bucket, no_such_file_id,
    range_not_satisfiable, refuse, shorten, unauthorized,
};
use crate::operations::App;
use crate::operations::authorize::{fence, parse_bucket_id};
use crate::operations::download::read_through;
use crate::operations::effects::{self, Cause, Moment};
use crate::operations::encryption::{
    check_key, encryption_of, is_sealed_alike, reseal, sealing_of_part,
};
use crate::operations::error::Error;
use crate::operations::files::find_claimed;
use crate::operations::large_files::unfinished;
use crate::operations::locks;
use crate::operations::upload::{check_metadata, show_new};

/// What is to be copied.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) file_id: String,
    /// `bytes=first-last`; None copies everything.
    pub(crate) range: Option<String>,
    /// The customer's key that the source is encrypted with.
    pub(crate) key: Option<CustomerKey>,
}

/// Where the metadata of a copy comes from.
#[derive(Clone, Debug)]
pub(crate) enum Metadata {
    /// From the source.
    Copy,
    Replace {
        content_type: String,
        info: FileInfo,
    },
}

/// A copy about to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewCopy {
    pub(crate) source: Source,
    pub(crate) name: FileName,
    /// None copies within the bucket of the source.
    pub(crate) bucket: Option<String>,
    pub(crate) metadata: Metadata,
    /// Never that of the source.
    pub(crate) lock: FileLock,
    pub(crate) encryption: AskedEncryption,
}

/// A source that the caller may read.
struct Readable {
    version: FileVersion,
    blob: StoredBlob,
    range: ByteRange,
    key: Option<CustomerKey>,
}

impl Readable {
    fn is_whole(&self) -> bool {
        self.range == ByteRange::whole(self.version.size)
    }
}

fn parse_range(text: &str) -> Result<Wanted, Refusal> {
    match Wanted::parse(Some(text)) {
        wanted @ Wanted::From { last: Some(_), .. } => Ok(wanted),
        _ => Err(bad_request(format!("Bad range: {}", shorten(text)))),
    }
}

/// Finds the source of a copy: an upload in a public bucket, or one that the key may read.
fn readable(app: &App, caller: &Caller, source: &Source) -> Result<Readable, Error> {
    let id = source.file_id.as_str();
    let claimed = ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id))?;
    let wanted = source.range.as_deref().map(parse_range).transpose()?;
    let known = app.facts.bucket(&app.catalog, claimed.bucket)?;
    let known = known.filter(|known| known.value.account == caller.account());
    let public = known.as_ref().is_some_and(|known| known.value.kind == BucketType::AllPublic);
    if !public {
        caller.require_bucket(Capability::ReadFiles, claimed.bucket)?;
    }
    let absent = || no_such_file_id(id);
    let bucket = known.ok_or_else(absent)?.value;
    let found = app.catalog.read(|tx| {
        let Some(version) = find_claimed(tx, &bucket, &claimed)? else { return Ok(None) };
        let blob = version.blob.map(|id| blob_refs::find_blob(tx, id)).transpose()?.flatten();
        Ok(Some((version, blob)))
    })?;
    let (version, blob) = found.ok_or_else(absent)?;
    if !public || caller.key.name_prefix.is_some() {
        // A key that is bound to names copies none from outside, not even what all may read.
        let name = version.name.as_str();
        if !caller.key.reaches_name(name) {
            return Err(unauthorized().into());
        }
    }
    if version.action != Action::Upload {
        return Err(bad_request(format!("not a file that can be copied: {}", shorten(id))).into());
    }
    check_key(&version.encryption, source.key.as_ref())?;
    let blob = blob.filter(|blob| blob.size == version.size);
    let blob = blob.ok_or(CatalogError::Unreadable { what: "blob of a file version" })?;
    let range = wanted
        .unwrap_or(Wanted::Whole)
        .clamp(version.size)
        .map_err(|Unsatisfiable| range_not_satisfiable())?;
    if range.len() > UPLOAD_BYTES_MAX {
        let text = format!("Copy source too big: {}", range.len());
        return Err(refuse(Code::SourceTooLarge, text).into());
    }
    Ok(Readable { version, blob, range, key: source.key.clone() })
}

/// How a copy gets its bytes.
#[derive(Clone, Debug)]
enum Bytes {
    /// The blob of the source is shown once more.
    Shared(BlobId),
    /// A stretch of the blobs of the source, or bytes few enough to be kept in the catalog.
    Stretch {
        id: BlobId,
        pieces: Vec<Piece>,
    },
    Fresh(NewBlob),
}

impl Bytes {
    /// The blob in the store that nothing shows yet.
    fn new_in_store(&self) -> Option<BlobId> {
        match self {
            Self::Shared(_) | Self::Stretch { .. } => None,
            Self::Fresh(blob) => blob.stored_id(),
        }
    }

    /// Takes the counts that the copy needs; refused when the source has gone meanwhile.
    fn hold(&self, tx: &mut dyn Tx, source: &str) -> Result<BlobId, Abort> {
        match self {
            Self::Shared(id) => {
                if !blob_refs::hold(tx, *id)? {
                    return Err(no_such_file_id(source).into());
                }
                Ok(*id)
            }
            Self::Stretch { id, pieces } => {
                for piece in pieces {
                    if !blob_refs::hold(tx, piece.blob)? {
                        return Err(no_such_file_id(source).into());
                    }
                }
                blob_refs::insert_pieces(tx, *id, &mut pieces.iter().copied())?;
                Ok(*id)
            }
            Self::Fresh(blob) => {
                blob_refs::insert_blob(tx, blob)?;
                Ok(blob.id)
            }
        }
    }
}

/// Pieces that a copied stretch, or a part that is a copy, shares with its source at most; what
/// would be made of more is written anew and is one piece. So a file has at most as many for each
/// of its parts, however often it was copied, and never more than one transaction can write.
pub(crate) const PIECES_SHARED_MAX: usize = 64;

/// What a copy becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    File,
    /// Its pieces become pieces of the file it is a part of.
    Part,
}

/// The content of a copy, ready to be committed.
#[derive(Clone, Debug)]
struct Copied {
    bytes: Bytes,
    size: u64,
    sha1: ContentSha1,
    md5: Md5Digest,
}

/// The bytes of a copy and their digests. Nothing is read where the source tells the digests
/// already, and nothing is written where the blobs of the source can be shared.
async fn copied(
    app: &App,
    source: &Readable,
    sealing: &Sealing,
    becomes: Becomes,
) -> Result<Copied, Error> {
    let (size, whole) = (source.range.len(), source.is_whole());
    let alike = is_sealed_alike(&source.version.encryption, sealing);
    if !alike || (!whole && size <= app.policy.inline_max) {
        return written(app, source, sealing).await;
    }
    let pieces = stretch(app, source)?;
    if pieces.len() > PIECES_SHARED_MAX && (!whole || becomes == Becomes::Part) {
        return written(app, source, sealing).await;
    }
    if whole && let (Some(_), Some(md5)) = (source.version.sha1.digest(), source.version.md5) {
        let (bytes, sha1) = (Bytes::Shared(source.blob.id), source.version.sha1);
        return Ok(Copied { bytes, size, sha1, md5 });
    }
    let mut hasher = Hasher::new();
    let key = source.key.as_ref();
    read_through(app, &source.blob, source.range, key, &mut |chunk| hasher.content(chunk)).await?;
    let digests = hasher.finish();
    let bytes = if whole {
        Bytes::Shared(source.blob.id)
    } else {
        let id = app.numbers.blob(app.clock.now());
        Bytes::Stretch { id, pieces }
    };
    Ok(Copied { bytes, size, sha1: ContentSha1::Verified(digests.sha1), md5: digests.md5 })
}

/// Reads what is copied and writes it anew, sealed as the copy is to be.
async fn written(app: &App, source: &Readable, sealing: &Sealing) -> Result<Copied, Error> {
    let (size, key) = (source.range.len(), source.key.as_ref());
    let (digests, intake) =
        reseal(app, &source.blob, source.range, key, sealing, &mut |_| ()).await?;
    let known = source.version.sha1.digest().filter(|_| source.is_whole());
    if known.is_some_and(|known| known != digests.sha1) {
        let corrupt = Corrupt { block: 0 };
        return Err(blobs::Error::Damaged { id: source.blob.id, corrupt }.into());
    }
    let sha1 = match known {
        Some(_) => source.version.sha1,
        None => ContentSha1::Verified(digests.sha1),
    };
    let blob = intake.finish(app, &digests).await?;
    Ok(Copied { bytes: Bytes::Fresh(blob), size, sha1, md5: digests.md5 })
}

/// The pieces that hold the range of the source; of those that are too many to be shared no more
/// than are needed to see it.
fn stretch(app: &App, source: &Readable) -> Result<Vec<Piece>, Error> {
    let range = source.range;
    if source.blob.place != Place::Pieces {
        return Ok(vec![Piece { blob: source.blob.id, start: range.start, size: range.len() }]);
    }
    let limit = i64::try_from(PIECES_SHARED_MAX + 1).unwrap_or(i64::MAX);
    let placed = app.catalog.read(|tx| Ok(blob_refs::pieces(tx, source.blob.id, range, limit)?))?;
    let cut = placed.into_iter().map(|placed| {
        let start = placed.start_at.max(range.start);
        let end = (placed.start_at + placed.piece.size).min(range.end);
        Piece {
            blob: placed.piece.blob,
            start: placed.piece.start + (start - placed.start_at),
            size: end.saturating_sub(start),
        }
    });
    Ok(cut.filter(|piece| piece.size > 0).collect())
}

/// Makes a new version out of an existing one.
pub(crate) async fn copy_file(
    app: &App,
    caller: &Caller,
    wanted: NewCopy,
) -> Result<FileVersion, Error> {
    caller.require(Capability::WriteFiles)?;
    let claimed = ClaimedFileId::parse(&wanted.source.file_id)
        .ok_or_else(|| invalid_file_id(&wanted.source.file_id))?;
    let id: BucketId = match &wanted.bucket {
        Some(id) => parse_bucket_id(id)?,
        None => claimed.bucket,
    };
    caller.require_bucket(Capability::WriteFiles, id)?;
    if !caller.key.reaches_name(wanted.name.as_str()) {
        return Err(unauthorized().into());
    }
    let readable = readable(app, caller, &wanted.source)?;
    let fence = fence(app, caller, id)?.ok_or_else(|| no_such_bucket(&id))?;
    let (bucket, name) = (Arc::clone(&fence.bucket), wanted.name.as_str());
    let grant = Grant::for_name(&caller.key, Capability::WriteFiles, bucket, name)?;
    locks::check_new(app, caller, &grant.bucket, wanted.lock)?;
    let (content_type, info) = match wanted.metadata {
        Metadata::Copy => (readable.version.content_type.clone(), readable.version.info.clone()),
        Metadata::Replace { content_type, info } => (content_type, info),
    };
    check_metadata(&grant.bucket, &wanted.encryption, &wanted.name, &info)?;
    let sealing = wanted.encryption.in_bucket(fence.bucket.settings.encryption);
    let encryption = encryption_of(app, &sealing)?;
    let copied = copied(app, &readable, &sealing, Becomes::File).await?;
    // What a whole copy of a large file shows to S3 is what its source shows; its digests here are those
    // of the content.
    let whole_of = readable.is_whole().then_some(readable.version.number);
    let parts = readable.version.parts.filter(|_| whole_of.is_some());
    let moment = Moment::of(app);
    let number = app.numbers.small_file(moment.now);
    let (source_id, name, lock) = (wanted.source.file_id, wanted.name, wanted.lock);
    let in_store = copied.bytes.new_in_store();
    let (version, aftermath) = show_new(app, "copy_file", in_store, move |tx| {
        let reread = fence.reread(tx, moment.now)?;
        let bucket = reread.as_ref().unwrap_or(&fence.bucket);
        let blob = copied.bytes.hold(tx, &source_id)?;
        let newest = files::newest(tx, bucket.number, name.as_str())?;
        let mut version = FileVersion {
            bucket: bucket.id,
            number,
            name: name.clone(),
            action: Action::Upload,
            upload_at: newest.next_upload_at(moment.now),
            origin: number,
            written_at: moment.now,
            size: copied.size,
            sha1: copied.sha1,
            md5: Some(copied.md5),
            parts,
            content_type: content_type.clone(),
            info: info.clone(),
            blob: Some(blob),
            replication: None,
            lock,
            encryption: encryption.clone(),
        };
        let aftermath = effects::add(tx, bucket, &mut version, newest, Cause::Copy, moment)?;
        if let Some(source) = whole_of {
            files::take_facts(tx, source, version.number)?;
        }
        Ok((version, aftermath))
    })
    .await?;
    effects::announce_upload(app, &version, aftermath);
    Ok(version)
}

/// Makes a part of an unfinished large file out of an existing file.
pub(crate) async fn copy_part(
    app: &App,
    caller: &Caller,
    source: Source,
    large_file_id: &str,
    number: PartNumber,
    asked: AskedEncryption,
) -> Result<(FileVersion, Part), Error> {
    caller.require(Capability::WriteFiles)?;
    let readable = readable(app, caller, &source)?;
    let unfinished = unfinished(app, caller, large_file_id, Capability::WriteFiles)?;
    if readable.range.len() == 0 {
        return Err(bad_request("a part must have at least one byte").into());
    }
    let sealing = sealing_of_part(&unfinished.version.encryption, asked)?;
    let copied = copied(app, &readable, &sealing, Becomes::Part).await?;
    let moment = Moment::of(app);
    let in_store = copied.bytes.new_in_store();
    let stored = show_new(app, "copy_part", in_store, move |tx| {
        let (reread, version) = unfinished.reread(tx, moment)?;
        let bucket = reread.as_ref().unwrap_or(&unfinished.fence.bucket);
        let part = Part {
            number,
            blob: copied.bytes.hold(tx, &source.file_id)?,
            size: copied.size,
            sha1: copied.sha1,
            md5: copied.md5,
            checksum: None,
            uploaded_at: moment.now,
        };
        effects::add_part(tx, bucket, &version, &part, moment)?;
        Ok((version, part))
    })
    .await?;
    app.wake.sweep.notify_one();
    Ok(stored)
}
