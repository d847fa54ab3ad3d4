//! Downloads, by name and by id.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::caller::{Caller, Grant};
use crate::blobs::sealed::{self, Cipher, SealedBlob, stored_bytes};
use crate::blobs::{self, BlobReader};
use crate::catalog::blob_refs::{self, Place, PlacedPiece, StoredBlob};
use crate::catalog::{Error as CatalogError, files};
use crate::domain::bucket::{Bucket, BucketType};
use crate::domain::capability::Capability;
use crate::domain::checksum::KeptChecksum;
use crate::domain::conditions::is_still;
use crate::domain::digest::Verifier;
use crate::domain::encryption::CustomerKey;
use crate::domain::file::{Action, FileVersion};
use crate::domain::ids::{AccountId, BlobId, ClaimedFileId};
use crate::domain::range::{ByteRange, Unsatisfiable, Wanted};
use crate::domain::refusal::{
    Refusal, bad_request, invalid_file_id, no_such_file, no_such_file_id, range_not_satisfiable,
    unauthorized,
};
use crate::operations::App;
use crate::operations::authorize::{
    DownloadProof, Overrides, bucket_of_name, check_overrides, download_proof,
};
use crate::operations::encryption::{check_key, data_key};
use crate::operations::error::Error;
use crate::operations::files::find_claimed;
use crate::operations::usage::{Sending, admit_bytes, admit_download};

/// A file on its way out.
pub(crate) struct Download {
    pub(crate) version: FileVersion,
    pub(crate) range: ByteRange,
    /// False when the whole file is sent although nobody asked for a range.
    pub(crate) is_partial: bool,
    /// What the bucket says for files that say nothing themselves.
    pub(crate) cache_control: Option<String>,
    /// The bucket has CORS rules, so that pages of some origins are told more than others.
    pub(crate) differs_by_origin: bool,
    /// None where the bucket has no Object Lock.
    pub(crate) lock_shown: Option<LockShown>,
    blob: StoredBlob,
    pub(crate) overrides: Overrides,
    /// Whose bytes these are, and who answers for their being sent.
    account: AccountId,
    /// The customer's, where the file is encrypted with one; it is the right one.
    pub(crate) key: Option<CustomerKey>,
}

/// Which parts of a lock the reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct LockShown {
    pub(crate) retention: bool,
    pub(crate) legal_hold: bool,
}

impl LockShown {
    /// What a caller may see of a file in a bucket, be the bucket public or not.
    fn to(caller: Option<&Caller>, bucket: &Arc<Bucket>, name: &str) -> Self {
        let may = |capability| {
            caller.is_some_and(|caller| {
                Grant::for_name(&caller.key, capability, Arc::clone(bucket), name).is_ok()
            })
        };
        Self {
            retention: may(Capability::ReadFileRetentions),
            legal_hold: may(Capability::ReadFileLegalHolds),
        }
    }
}

/// The bytes of a download.
pub(crate) enum Content {
    Inline(Bytes),
    Stored(Reader),
}

/// Bytes that are read piece by piece.
pub(crate) enum Reader {
    Blob(Box<dyn BlobReader>),
    Pieces(Box<PiecesReader>),
}

impl Reader {
    /// The next bytes, None at the end. After an error there is nothing more.
    pub(crate) async fn next(&mut self, app: &App) -> Option<Result<Bytes, Error>> {
        match self {
            Self::Blob(reader) => Some(reader.next().await?.map_err(Error::from)),
            Self::Pieces(pieces) => pieces.next(app).await.transpose(),
        }
    }
}

/// Pieces that are looked up at a time: a file may have ten thousand.
const PIECES_AHEAD: i64 = 64;

/// Reads a blob that is made of pieces, one piece after the other.
pub(crate) struct PiecesReader {
    id: BlobId,
    key: Option<CustomerKey>,
    /// What is still to be read.
    rest: ByteRange,
    ahead: VecDeque<PlacedPiece>,
    current: Option<Box<dyn BlobReader>>,
}

impl PiecesReader {
    fn new(id: BlobId, range: ByteRange, key: Option<CustomerKey>) -> Self {
        Self { id, key, rest: range, ahead: VecDeque::new(), current: None }
    }

    async fn next(&mut self, app: &App) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(reader) = &mut self.current {
                match reader.next().await {
                    Some(chunk) => {
                        let chunk = chunk?;
                        self.rest.start += chunk.len() as u64;
                        return Ok(Some(chunk));
                    }
                    None => self.current = None,
                }
            }
            if self.rest.len() == 0 {
                return Ok(None);
            }
            match self.open_next(app).await? {
                Content::Inline(data) => {
                    self.rest.start += data.len() as u64;
                    return Ok(Some(data));
                }
                Content::Stored(Reader::Blob(reader)) => self.current = Some(reader),
                Content::Stored(Reader::Pieces(_)) => {
                    return Err(CatalogError::Unreadable { what: "piece of a blob" }.into());
                }
            }
        }
    }

    /// Opens the piece in which the rest begins.
    async fn open_next(&mut self, app: &App) -> Result<Content, Error> {
        let missing = || Error::from(blobs::Error::Missing(self.id));
        if self.ahead.is_empty() {
            let (id, rest) = (self.id, self.rest);
            self.ahead =
                app.catalog.read(|tx| Ok(blob_refs::pieces(tx, id, rest, PIECES_AHEAD)?))?.into();
        }
        let PlacedPiece { start_at, piece } = self.ahead.pop_front().ok_or_else(missing)?;
        let skipped = self.rest.start.checked_sub(start_at).ok_or_else(missing)?;
        let end = (start_at + piece.size).min(self.rest.end);
        if end <= self.rest.start {
            return Err(missing());
        }
        let range = ByteRange { start: piece.start + skipped, end: piece.start + (end - start_at) };
        let blob = app.catalog.read(|tx| Ok(blob_refs::find_blob(tx, piece.blob)?))?;
        let blob = blob.filter(|blob| range.end <= blob.size).ok_or_else(missing)?;
        open_leaf(app, &blob, range, self.key.as_ref()).await
    }
}

/// Which bytes of a file are wanted, and with which header overrides.
#[derive(Clone, Debug)]
pub(crate) struct DownloadQuery {
    pub(crate) range: Wanted,
    /// The tag or the date of the content of which a part is wanted; of other content all is sent.
    pub(crate) if_range: Option<String>,
    pub(crate) overrides: Overrides,
    /// A page of some origin asks, not a program.
    pub(crate) by_a_page: bool,
    /// The customer's key that came with the request.
    pub(crate) key: Option<CustomerKey>,
}

/// Finds the file that a name shows.
pub(crate) fn find_by_name(
    app: &App,
    token: Option<&str>,
    bucket_name: &str,
    file_name: &str,
    query: DownloadQuery,
) -> Result<Download, Error> {
    let proof = token.map(|token| download_proof(app, token)).transpose()?;
    let Some(bucket) = app.facts.bucket_named(&app.catalog, bucket_name)? else {
        return Err(no_such_file().into());
    };
    let bucket = bucket.value;
    if let Some(DownloadProof::Account(_)) = &proof {
        check_account_token(app, &query)?;
    }
    admit_overrides(&query.overrides, proof.is_some())?;
    let reader = match &proof {
        Some(DownloadProof::Account(caller)) => Some(caller.clone()),
        Some(DownloadProof::Shared { .. }) | None => None,
    };
    let grant = match proof {
        _ if bucket.kind == BucketType::AllPublic => Grant::public_read(bucket),
        None => return Err(unauthorized().into()),
        // As to somebody without a token: the id in another refusal would tell of the bucket.
        Some(DownloadProof::Account(caller)) if caller.account() != bucket.account => {
            return Err(unauthorized().into());
        }
        Some(DownloadProof::Account(caller)) => {
            Grant::for_name(&caller.key, Capability::ReadFiles, bucket, file_name)?
        }
        Some(DownloadProof::Shared { prefix, bucket: shared, overrides }) => {
            let covered = shared == bucket.id && file_name.starts_with(&prefix);
            let same =
                overrides.iter().all(|(name, bound)| query.overrides.get(name) == Some(bound));
            if !covered || !same {
                return Err(unauthorized().into());
            }
            Grant::public_read(bucket)
        }
    };
    let bucket = &grant.bucket;
    let found = app.catalog.read(|tx| {
        let Some(version) = files::find_head(tx, (bucket.number, bucket.id), file_name)? else {
            return Ok(None);
        };
        let blob = version.blob.map(|id| blob_refs::find_blob(tx, id)).transpose()?.flatten();
        Ok(Some((version, blob)))
    })?;
    let Some((version, blob)) = found else { return Err(no_such_file().into()) };
    prepare(app, &grant, reader.as_ref(), (version, blob), query)
}

/// What there is at a name.
pub(crate) enum Found {
    File(Box<FoundFile>),
    /// The name is hidden by this marker, or the marker was asked for.
    Marker(Box<FileVersion>),
}

/// A file that may be read, none of whose bytes has been asked for.
pub(crate) struct FoundFile {
    grant: Grant,
    reader: Option<Caller>,
    pub(crate) version: FileVersion,
    blob: Option<StoredBlob>,
}

impl FoundFile {
    /// Goes on to the download.
    pub(crate) fn download(self, app: &App, query: DownloadQuery) -> Result<Download, Error> {
        let found = (self.version, self.blob);
        prepare(app, &self.grant, self.reader.as_ref(), found, query)
    }

    /// Checks the key that the content is encrypted with.
    pub(crate) fn check_key(&self, key: Option<&CustomerKey>) -> Result<(), Error> {
        Ok(check_key(&self.version.encryption, key)?)
    }

    /// The headers that tell caches how long they may keep what they have, by name.
    pub(crate) fn caching(&self, overrides: &Overrides) -> Vec<(&'static str, String)> {
        let settings = &self.grant.bucket.settings;
        let entries = self.version.info.entries();
        let told = |parameter: &str, info: &str| {
            overrides.get(parameter).or_else(|| entries.get(info)).cloned()
        };
        let of_bucket = || settings.cache_control().map(str::to_owned);
        let vary = (!settings.cors_rules.is_empty()).then(|| "Origin".to_owned());
        let named = [
            ("Cache-Control", told("b2CacheControl", "b2-cache-control").or_else(of_bucket)),
            ("Expires", told("b2Expires", "b2-expires")),
            ("Vary", vary),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// The checksum that came with the content.
    pub(crate) fn checksum(&self, app: &App) -> Result<Option<KeptChecksum>, Error> {
        checksum_of(app, &self.version)
    }

    /// The bytes of one of the parts that the file was uploaded in, counted from 1. A file that was
    /// not has one part. None when there is no such part.
    pub(crate) fn part(&self, app: &App, number: u32) -> Result<Option<ByteRange>, Error> {
        let size = self.version.size;
        if self.version.parts.is_none() {
            return Ok((number == 1).then(|| ByteRange::whole(size)));
        }
        let file = self.version.number;
        let sizes = app.catalog.read(|tx| Ok(files::find_part_sizes(tx, file)?))?;
        Ok(sizes.and_then(|sizes| sizes.range_of(number)).filter(|range| range.end <= size))
    }
}

/// The checksum that came with the content of a version.
pub(crate) fn checksum_of(app: &App, version: &FileVersion) -> Result<Option<KeptChecksum>, Error> {
    Ok(app.catalog.read(|tx| Ok(files::find_checksum(tx, version.number)?))?)
}

/// Finds the file that a name shows, or the version of it that `version_id` names. Who may read is
/// settled before anything is looked for.
pub(crate) fn find_file(
    app: &App,
    caller: Option<&Caller>,
    bucket_name: &str,
    name: &str,
    version_id: Option<&str>,
) -> Result<Found, Error> {
    let known = app.facts.bucket_named(&app.catalog, bucket_name)?.map(|known| known.value);
    let public = known.filter(|bucket| bucket.kind == BucketType::AllPublic);
    let grant = match (public, caller) {
        (Some(bucket), _) => Grant::public_read(bucket),
        (None, None) => return Err(unauthorized().into()),
        (None, Some(caller)) => {
            let bucket = bucket_of_name(app, caller, Capability::ReadFiles, bucket_name)?;
            Grant::for_name(&caller.key, Capability::ReadFiles, bucket, name)?
        }
    };
    let claimed = version_id
        .map(|id| ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id)))
        .transpose()?;
    let bucket = &grant.bucket;
    let found = app.catalog.read(|tx| {
        let place = (bucket.number, bucket.id);
        let version = match &claimed {
            Some(claimed) => find_claimed(tx, bucket, claimed)?,
            None => files::find_newest(tx, place, name)?,
        };
        let Some(version) = version else { return Ok(None) };
        let blob = version.blob.map(|id| blob_refs::find_blob(tx, id)).transpose()?.flatten();
        Ok(Some((version, blob)))
    })?;
    let found = found.filter(|(version, _)| version.name.as_str() == name);
    let (version, blob) = found.ok_or_else(no_such_file)?;
    match version.action {
        Action::Upload => {
            let reader = caller.cloned();
            Ok(Found::File(Box::new(FoundFile { grant, reader, version, blob })))
        }
        Action::Hide => Ok(Found::Marker(Box::new(version))),
        Action::Start => Err(no_such_file().into()),
    }
}

/// Finds a version by its id.
pub(crate) fn find_by_id(
    app: &App,
    caller: Option<&Caller>,
    file_id: &str,
    query: DownloadQuery,
) -> Result<Download, Error> {
    let claimed = ClaimedFileId::parse(file_id).ok_or_else(|| invalid_file_id(file_id))?;
    if caller.is_some() {
        check_account_token(app, &query)?;
    }
    admit_overrides(&query.overrides, caller.is_some())?;
    let known = app.facts.bucket(&app.catalog, claimed.bucket)?;
    let public = known.as_ref().is_some_and(|known| known.value.kind == BucketType::AllPublic);
    if !public {
        let caller = caller.ok_or_else(unauthorized)?;
        caller.require_bucket(Capability::ReadFiles, claimed.bucket)?;
    }
    let absent = || no_such_file_id(file_id);
    let bucket = known.ok_or_else(absent)?.value;
    let found = app.catalog.read(|tx| {
        let Some(version) = find_claimed(tx, &bucket, &claimed)? else { return Ok(None) };
        let blob = version.blob.map(|id| blob_refs::find_blob(tx, id)).transpose()?.flatten();
        Ok(Some((version, blob)))
    })?;
    let foreign = caller.is_some_and(|caller| caller.account() != bucket.account);
    let Some((version, blob)) = found.filter(|_| public || !foreign) else {
        return Err(absent().into());
    };
    let grant = match caller {
        Some(caller) if !public => {
            Grant::for_name(&caller.key, Capability::ReadFiles, bucket, version.name.as_str())?
        }
        _ => Grant::public_read(bucket),
    };
    if version.action != Action::Upload {
        return Err(absent().into());
    }
    prepare(app, &grant, caller, (version, blob), query)
}

/// In strict mode pages of other origins need tokens that open less than the account.
fn check_account_token(app: &App, query: &DownloadQuery) -> Result<(), Refusal> {
    if query.by_a_page && app.policy.strict_cors_tokens { Err(unauthorized()) } else { Ok(()) }
}

fn admit_overrides(overrides: &Overrides, has_token: bool) -> Result<(), Refusal> {
    if !overrides.is_empty() && !has_token {
        return Err(unauthorized());
    }
    check_overrides(overrides)
}

fn prepare(
    app: &App,
    grant: &Grant,
    reader: Option<&Caller>,
    (version, blob): (FileVersion, Option<StoredBlob>),
    query: DownloadQuery,
) -> Result<Download, Error> {
    let settings = &grant.bucket.settings;
    let Some(blob) = blob.filter(|blob| blob.size == version.size) else {
        return Err(CatalogError::Unreadable { what: "blob of a file version" }.into());
    };
    check_key(&version.encryption, query.key.as_ref())?;
    let modified = version.upload_at;
    let wanted = match &query.if_range {
        Some(validator) if !is_still(validator, version.etag().as_deref(), modified) => {
            Wanted::Whole
        }
        Some(_) | None => query.range,
    };
    let range = wanted.clamp(version.size).map_err(|Unsatisfiable| range_not_satisfiable())?;
    admit_download(app, grant.bucket.account)?;
    app.metrics.downloads.one();
    Ok(Download {
        range,
        is_partial: wanted != Wanted::Whole,
        differs_by_origin: !settings.cors_rules.is_empty(),
        cache_control: settings.cache_control().map(str::to_owned),
        lock_shown: settings
            .file_lock
            .is_file_lock_enabled
            .then(|| LockShown::to(reader, &grant.bucket, version.name.as_str())),
        blob,
        overrides: query.overrides,
        key: query.key,
        account: grant.bucket.account,
        version,
    })
}

impl Download {
    /// Opens the bytes and counts them as sent; who sends them says how many really were. Small
    /// content is compared with its checks here, larger content while it is read.
    pub(crate) async fn open(&self, app: &App) -> Result<(Content, Sending), Error> {
        let sending = admit_bytes(app, self.account, self.range.len())?;
        Ok((open_blob(app, &self.blob, self.range, self.key.as_ref()).await?, sending))
    }
}

fn slice_inline(
    blob: &StoredBlob,
    data: &Bytes,
    range: ByteRange,
    cipher: Option<&Cipher>,
) -> Result<Bytes, blobs::Error> {
    let id = blob.id;
    let missing = || blobs::Error::Missing(id);
    let stored = if cipher.is_some() { stored_bytes(blob.size) } else { blob.size };
    if data.len() as u64 != stored {
        return Err(missing());
    }
    Verifier::starting_with(0, blob.checks.clone())
        .update(data)
        .map_err(|corrupt| blobs::Error::Damaged { id, corrupt })?;
    if let Some(cipher) = cipher {
        return cipher.open_whole(data, range);
    }
    let start = usize::try_from(range.start).map_err(|_| missing())?;
    let end = usize::try_from(range.end).map_err(|_| missing())?;
    if start > end || end > data.len() {
        return Err(missing());
    }
    Ok(data.slice(start..end))
}

/// Opens a blob that is not made of pieces.
async fn open_leaf(
    app: &App,
    blob: &StoredBlob,
    range: ByteRange,
    key: Option<&CustomerKey>,
) -> Result<Content, Error> {
    let data_key = data_key(app, blob, key)?;
    let cipher = data_key.map(|key| Cipher::new(&key, blob.id, blob.size)).transpose()?;
    match &blob.place {
        Place::Inline(data) => {
            Ok(Content::Inline(slice_inline(blob, data, range, cipher.as_ref())?))
        }
        Place::Store => {
            let checks = blob.checks.clone();
            let reader = match cipher {
                None => app.blobs.open(blob.id, blob.size, range, checks).await?,
                Some(cipher) => {
                    sealed::open(&app.blobs, SealedBlob { cipher, checks }, range).await?
                }
            };
            Ok(Content::Stored(Reader::Blob(reader)))
        }
        Place::Pieces => Err(CatalogError::Unreadable { what: "piece of a blob" }.into()),
    }
}

/// Opens `range` of a blob. `key` is the customer's, where its bytes are sealed with one.
pub(crate) async fn open_blob(
    app: &App,
    blob: &StoredBlob,
    range: ByteRange,
    key: Option<&CustomerKey>,
) -> Result<Content, Error> {
    if blob.place == Place::Pieces {
        let reader = PiecesReader::new(blob.id, range, key.cloned());
        return Ok(Content::Stored(Reader::Pieces(Box::new(reader))));
    }
    open_leaf(app, blob, range, key).await
}

/// A range of a blob that is read through to its end.
pub(crate) struct Through {
    blob: BlobId,
    content: Option<Content>,
    /// Bytes still to come.
    rest: u64,
}

impl Through {
    /// As [`open_blob`].
    pub(crate) async fn begin(
        app: &App,
        blob: &StoredBlob,
        range: ByteRange,
        key: Option<&CustomerKey>,
    ) -> Result<Self, Error> {
        let content = Some(open_blob(app, blob, range, key).await?);
        Ok(Self { blob: blob.id, content, rest: range.len() })
    }

    /// The next bytes; None once all of the range has come, and an error when less did.
    pub(crate) async fn next(&mut self, app: &App) -> Result<Option<Bytes>, Error> {
        let chunk = match self.content.take() {
            None => None,
            Some(Content::Inline(data)) => Some(data).filter(|data| !data.is_empty()),
            Some(Content::Stored(mut reader)) => {
                let chunk = reader.next(app).await.transpose()?;
                self.content = Some(Content::Stored(reader)).filter(|_| chunk.is_some());
                chunk
            }
        };
        let missing = blobs::Error::Missing(self.blob);
        match &chunk {
            Some(chunk) => {
                self.rest = self.rest.checked_sub(chunk.len() as u64).ok_or(missing)?;
            }
            None if self.rest > 0 => return Err(missing.into()),
            None => {}
        }
        Ok(chunk)
    }
}

/// Reads `range` of a blob through to its end, and hands each chunk to `each`.
pub(crate) async fn read_through(
    app: &App,
    blob: &StoredBlob,
    range: ByteRange,
    key: Option<&CustomerKey>,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), Error> {
    let mut through = Through::begin(app, blob, range, key).await?;
    while let Some(chunk) = through.next(app).await? {
        each(&chunk);
    }
    Ok(())
}

/// Reads a blob through to its end and compares it with its checks: what a copy that shares the
/// blob must know before it calls the copy good. Each chunk that was right is handed to `each`.
pub(crate) async fn verify_blob(
    app: &App,
    blob: &StoredBlob,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), Error> {
    read_through(app, blob, ByteRange::whole(blob.size), None, each).await
}

/// Refuses two different tokens in one request: one of them would be ignored.
pub(crate) fn single_token<'t>(
    header: Option<&'t str>,
    query: Option<&'t str>,
) -> Result<Option<&'t str>, Refusal> {
    match (header, query) {
        (Some(one), Some(other)) if one != other => {
            Err(bad_request("the Authorization header and query parameter differ"))
        }
        (Some(token), _) | (None, Some(token)) => Ok(Some(token)),
        (None, None) => Ok(None),
    }
}
