//! Large files: begin, send parts, finish or give up. Finishing copies no bytes: the file becomes
//! a blob made of the blobs of its parts.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use crate::auth::caller::{Caller, Grant};
use crate::auth::token::{Claims, TOKEN_LIFE_MS, TokenKind};
use crate::catalog::blob_refs;
use crate::catalog::{Abort, Error as CatalogError, Tx, files, parts};
use crate::domain::blob::Piece;
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::checksum::{Checksum, KeptChecksum};
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion};
use crate::domain::ids::{AccountId, BlobId, ClaimedFileId, FileId};
use crate::domain::large_file::{
    ClaimedWhole, NamedPart, Part, PartNumber, PartSizes, SizesOfParts, check_parts,
    checksum_of_whole, chosen_parts, parts_digest,
};
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::range::ByteRange;
use crate::domain::refusal::{
    Code, Refusal, bad_auth_token, bad_request, invalid_file_id, no_such_bucket, refuse, shorten,
    unauthorized,
};
use crate::domain::replica::{Origin, ReplicaMark};
use crate::domain::time::Millis;
use crate::operations::App;
use crate::operations::authorize::{
    Fence, Turn, bucket_of_caller, caller_with_key, fence, fits_url, living, mark_of,
    parse_bucket_id,
};
use crate::operations::effects::{self, Aftermath, Cause, Moment};
use crate::operations::encryption::{encryption_of, sealing_of_part};
use crate::operations::error::Error;
use crate::operations::files::find_claimed;
use crate::operations::list::{Entry, Page};
use crate::operations::locks;
use crate::operations::replicas;
use crate::operations::upload::{
    Announced, BodyFault, OnlyIf, check_metadata, custom_time, receive, show_new,
};
use crate::operations::usage::{check_room, count_uploaded};

/// Said of every id that is not that of an unfinished large file: canceled, finished, never heard
/// of. Nobody is told which.
pub(crate) fn not_unfinished(id: &str) -> Refusal {
    refuse(Code::NoActiveUpload, format!("No active upload for: {}", shorten(id)))
}

/// A large file about to be begun.
#[derive(Clone, Debug)]
pub(crate) struct NewLargeFile {
    pub(crate) bucket: String,
    pub(crate) name: FileName,
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
    pub(crate) encryption: AskedEncryption,
    /// The upload time that the caller wants, as it was written.
    pub(crate) custom_time: Option<String>,
    /// Holds from the moment the file is finished.
    pub(crate) lock: FileLock,
    /// The one that the parts are to make.
    pub(crate) checksum: Option<KeptChecksum>,
    /// Of a replica that a peer sends: where it comes from, and its upload time.
    pub(crate) replica: Option<ReplicaMark>,
}

impl NewLargeFile {
    /// Refuses what the bucket does not take. The smaller limit on metadata was the source's to keep.
    fn check(&self, app: &App, caller: &Caller, bucket: &Bucket) -> Result<(), Refusal> {
        let Some(mark) = &self.replica else {
            locks::check_new(app, caller, bucket, self.lock)?;
            return check_metadata(bucket, &self.encryption, &self.name, &self.info);
        };
        replicas::check_mark(app, mark)?;
        replicas::check_lock(caller, bucket, self.lock)?;
        if self.custom_time.is_some() {
            return Err(bad_request("a replica has the upload time of its source and no other"));
        }
        match &self.encryption {
            AskedEncryption::Customer(_) => {
                Err(bad_request("a replica cannot be encrypted with a customer's key"))
            }
            AskedEncryption::Default | AskedEncryption::Managed => Ok(()),
        }
    }
}

/// Begins a large file: a version that no name shows until it is finished. For a replica that is here
/// already that is the answer, and nothing is begun.
pub(crate) async fn start(
    app: &App,
    caller: &Caller,
    wanted: NewLargeFile,
) -> Result<FileVersion, Error> {
    caller.require(Capability::WriteFiles)?;
    let id = parse_bucket_id(&wanted.bucket)?;
    caller.require_bucket(Capability::WriteFiles, id)?;
    if !caller.key.reaches_name(wanted.name.as_str()) {
        return Err(unauthorized().into());
    }
    let fence = fence(app, caller, id)?.ok_or_else(|| no_such_bucket(&id))?;
    let (bucket, name) = (Arc::clone(&fence.bucket), wanted.name.as_str());
    let grant = Grant::for_name(&caller.key, Capability::WriteFiles, bucket, name)?;
    wanted.check(app, caller, &grant.bucket)?;
    check_room(app, caller.account(), 1)?;
    let custom_time = custom_time(app, wanted.custom_time.as_deref())?;
    let sealing = wanted.encryption.clone().in_bucket(fence.bucket.settings.encryption);
    let encryption = encryption_of(app, &sealing)?;
    let moment = Moment::of(app);
    let number = app.numbers.large_file(moment.now);
    let instance = Arc::clone(&app.instance);
    let (started, aftermath) = app
        .catalog
        .write("start_large_file", move |tx| {
            let reread = fence.reread(tx, moment.now)?;
            let bucket = reread.as_ref().unwrap_or(&fence.bucket);
            if let Some(mark) = &wanted.replica
                && let Some(known) = replicas::find_known(tx, bucket, mark.origin.as_str())?
            {
                return Ok((known, None));
            }
            let newest = files::newest(tx, bucket.number, wanted.name.as_str())?;
            let mut version = FileVersion {
                bucket: bucket.id,
                number,
                name: wanted.name.clone(),
                action: Action::Start,
                upload_at: newest.upload_at(custom_time, moment.now),
                origin: number,
                written_at: moment.now,
                size: 0,
                sha1: ContentSha1::None,
                md5: None,
                parts: None,
                content_type: wanted.content_type.clone(),
                info: wanted.info.clone(),
                blob: None,
                replication: None,
                lock: wanted.lock,
                encryption: encryption.clone(),
            };
            if let Some(mark) = &wanted.replica {
                replicas::mark_version(tx, bucket, &mut version, mark, (&instance, moment))?;
                replicas::note_trail(tx, &version, mark)?;
            }
            let aftermath = effects::add(tx, bucket, &mut version, newest, Cause::Start, moment)?;
            if wanted.checksum.is_some() {
                files::set_checksum(tx, version.number, wanted.checksum.as_ref())?;
            }
            Ok((version, Some(aftermath)))
        })
        .await?;
    if let Some(aftermath) = aftermath {
        effects::announce(app, aftermath);
    }
    Ok(started)
}

/// An unfinished large file that a caller may go on with.
#[derive(Clone, Debug)]
pub(crate) struct Unfinished {
    pub(crate) fence: Fence,
    claimed: ClaimedFileId,
    pub(crate) version: FileVersion,
}

impl Unfinished {
    /// The file as it is in this transaction; refused when it is no longer unfinished.
    pub(crate) fn reread(
        &self,
        tx: &mut dyn Tx,
        moment: Moment,
    ) -> Result<(Option<Bucket>, FileVersion), Abort> {
        let reread = self.fence.reread(tx, moment.now)?;
        let bucket = reread.as_ref().unwrap_or(&self.fence.bucket);
        let version = find_unfinished(tx, bucket, &self.claimed)?
            .ok_or_else(|| not_unfinished(&self.claimed.text))?;
        Ok((reread, version))
    }
}

fn find_unfinished(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    claimed: &ClaimedFileId,
) -> Result<Option<FileVersion>, Abort> {
    let found = find_claimed(tx, bucket, claimed)?;
    Ok(found.filter(|version| version.action == Action::Start))
}

/// Finds the unfinished large file that `file_id` names, for a caller with `capability`. What comes
/// bit by bit to be a file of one piece is none.
pub(crate) fn unfinished(
    app: &App,
    caller: &Caller,
    file_id: &str,
    capability: Capability,
) -> Result<Unfinished, Error> {
    let found = begun(app, caller, file_id, capability)?;
    if found.version.number.is_large() { Ok(found) } else { Err(not_unfinished(file_id).into()) }
}

/// Finds the unfinished file of one piece that `file_id` names, for a caller who may write it.
pub(crate) fn unfinished_session(
    app: &App,
    caller: &Caller,
    file_id: &str,
) -> Result<Unfinished, Error> {
    let found = begun(app, caller, file_id, Capability::WriteFiles)?;
    if found.version.number.is_large() { Err(not_unfinished(file_id).into()) } else { Ok(found) }
}

/// Finds the unfinished file that `file_id` names, of whichever kind.
fn begun(
    app: &App,
    caller: &Caller,
    file_id: &str,
    capability: Capability,
) -> Result<Unfinished, Error> {
    caller.require(capability)?;
    let claimed = ClaimedFileId::parse(file_id).ok_or_else(|| invalid_file_id(file_id))?;
    let absent = || not_unfinished(file_id);
    caller.require_bucket(capability, claimed.bucket)?;
    let fence = fence(app, caller, claimed.bucket)?.ok_or_else(absent)?;
    let found = app.catalog.read(|tx| find_unfinished(tx, &fence.bucket, &claimed))?;
    let version = found.ok_or_else(absent)?;
    let bucket = Arc::clone(&fence.bucket);
    Grant::for_name(&caller.key, capability, bucket, version.name.as_str())?;
    Ok(Unfinished { fence, claimed, version })
}

/// An address for the parts of one large file, and its token.
#[derive(Clone, Debug)]
pub(crate) struct PartPair {
    pub(crate) file: FileId,
    pub(crate) token: String,
    /// Last part of the address; the token fits this one only.
    pub(crate) mark: String,
}

/// Makes an address for the parts of a large file.
pub(crate) fn part_pair(app: &App, caller: &Caller, file_id: &str) -> Result<PartPair, Error> {
    let unfinished = unfinished(app, caller, file_id, Capability::WriteFiles)?;
    let file = unfinished.version.id();
    let end = app.clock.now().plus(TOKEN_LIFE_MS);
    let end = caller.key.expires_at.map_or(end, |key_end| key_end.min(end));
    let scope = file.to_string();
    let tokens = &app.tokens;
    let token =
        tokens.issue(TokenKind::UploadPart, &caller.key.id, end, scope.as_bytes(), &*app.entropy);
    let claims = tokens.check(TokenKind::UploadPart, &token, app.clock.now())?;
    Ok(PartPair { file, token, mark: mark_of(&claims.nonce) })
}

/// What lets a caller send a part: a part token, or a request that is signed itself.
#[derive(Clone, Debug)]
pub(crate) struct PartTicket {
    pub(crate) unfinished: Unfinished,
    /// The part token, which serves one part at a time.
    turn: Option<Turn>,
}

impl PartTicket {
    /// The ticket of a caller who signs each request.
    pub(crate) fn of_caller(unfinished: Unfinished) -> Self {
        Self { unfinished, turn: None }
    }

    /// The account whose file it is.
    pub(crate) fn account(&self) -> AccountId {
        self.unfinished.fence.bucket.account
    }
}

/// Checks a part token against the address it was sent to.
pub(crate) fn part_ticket(
    app: &App,
    token: &str,
    url_file: &str,
    url_mark: &str,
) -> Result<PartTicket, Error> {
    let claims = living(app, TokenKind::UploadPart, token)?;
    if !fits_url(&claims, url_file, url_mark) {
        return Err(bad_auth_token().into());
    }
    let Claims { key, nonce, .. } = claims;
    let caller = caller_with_key(app, &key)?;
    let unfinished = unfinished(app, &caller, url_file, Capability::WriteFiles)?;
    Ok(PartTicket { unfinished, turn: Some(Turn { nonce, token: token.to_owned() }) })
}

/// Stores one part. An earlier one of the same number is replaced.
pub(crate) async fn upload_part<B>(
    app: &App,
    ticket: PartTicket,
    number: PartNumber,
    announced: Announced,
    asked: AskedEncryption,
    body: B,
) -> Result<(FileVersion, Part), Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    upload_checked_part(app, ticket, number, announced, asked, (body, || None)).await
}

/// As [`upload_part`], of content whose checksum is known once the body has ended.
pub(crate) async fn upload_checked_part<B>(
    app: &App,
    ticket: PartTicket,
    number: PartNumber,
    announced: Announced,
    asked: AskedEncryption,
    (body, checksum): (B, impl FnOnce() -> Option<Checksum>),
) -> Result<(FileVersion, Part), Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    if announced.content_bytes()? == 0 {
        return Err(bad_request("a part must have at least one byte").into());
    }
    let sealing = sealing_of_part(&ticket.unfinished.version.encryption, asked)?;
    let _turn = ticket.turn.as_ref().map(|turn| turn.take(app)).transpose()?;
    let account = ticket.account();
    let unfinished = ticket.unfinished;
    check_room(app, account, announced.content_bytes()?)?;
    let received = receive(app, announced, &sealing, body).await?;
    let checksum = checksum();
    let moment = Moment::of(app);
    let in_store = received.blob.stored_id();
    let stored = show_new(app, "upload_part", in_store, move |tx| {
        let (reread, version) = unfinished.reread(tx, moment)?;
        let bucket = reread.as_ref().unwrap_or(&unfinished.fence.bucket);
        blob_refs::insert_blob(tx, &received.blob)?;
        let part = Part {
            number,
            blob: received.blob.id,
            size: received.blob.size,
            sha1: received.sha1,
            md5: received.md5,
            checksum: checksum.clone(),
            uploaded_at: moment.now,
        };
        effects::add_part(tx, bucket, &version, &part, moment)?;
        Ok((version, part))
    })
    .await?;
    app.metrics.upload_bytes.add(stored.1.size);
    count_uploaded(app, account, stored.1.size);
    app.wake.sweep.notify_one();
    Ok(stored)
}

/// Parts in one answer when the caller names no number, and at most (documented).
const PARTS_PAGE: i64 = 100;
const PARTS_PAGE_MAX: i64 = 1000;
/// More than this is refused rather than cut.
const PARTS_ASKED_MAX: i64 = 10_000;

/// One page of the parts of an unfinished large file.
#[derive(Clone, Debug)]
pub(crate) struct PartsPage {
    pub(crate) file: FileVersion,
    pub(crate) parts: Vec<Part>,
    pub(crate) next: Option<i64>,
}

/// Lists the parts that were uploaded so far. Either right suffices: uploaders resume with it,
/// and whoever may list a bucket may see what is in it.
pub(crate) fn list_parts(
    app: &App,
    caller: &Caller,
    file_id: &str,
    start: Option<i64>,
    max_count: Option<i64>,
) -> Result<PartsPage, Error> {
    let capability = if caller.may(Capability::WriteFiles) {
        Capability::WriteFiles
    } else {
        Capability::ListFiles
    };
    let asked = match max_count {
        None | Some(0) => PARTS_PAGE,
        Some(count @ 1..=PARTS_ASKED_MAX) => count.min(PARTS_PAGE_MAX),
        Some(count) => {
            let text = format!("maxPartCount out of range: {count}");
            return Err(refuse(Code::OutOfRange, text).into());
        }
    };
    // The npm package backblaze-b2 sends 0 for "from the beginning".
    let start = start.filter(|start| *start != 0);
    let start = start.map(PartNumber::of_caller).transpose()?.map_or(1, PartNumber::get);
    let file = unfinished(app, caller, file_id, capability)?.version;
    let number = file.number;
    let mut found = app.catalog.read(|tx| Ok(parts::list_parts(tx, number, start, asked + 1)?))?;
    let page = usize::try_from(asked).unwrap_or(usize::MAX);
    let next = found.get(page).map(|part| part.number.get());
    found.truncate(page);
    Ok(PartsPage { file, parts: found, next })
}

/// What a listing of unfinished large files is asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnfinishedQuery {
    pub(crate) bucket: String,
    pub(crate) prefix: String,
    pub(crate) start_id: Option<String>,
    pub(crate) max_count: Option<i64>,
}

/// Unfinished large files in one answer, when nothing is said and at most (documented).
const UNFINISHED_PAGE: i64 = 100;

/// Lists unfinished large files by name, the oldest first within a name.
pub(crate) async fn list_unfinished(
    app: &App,
    caller: &Caller,
    query: UnfinishedQuery,
) -> Result<Page, Error> {
    caller.require(Capability::ListFiles)?;
    let id = parse_bucket_id(&query.bucket)?;
    caller.require_bucket(Capability::ListFiles, id)?;
    if !caller.key.reaches_name(&query.prefix) {
        return Err(unauthorized().into());
    }
    let size = match query.max_count {
        None | Some(0) => UNFINISHED_PAGE,
        Some(count @ 1..=UNFINISHED_PAGE) => count,
        Some(count) => {
            let text = format!("maxFileCount out of range: {count}");
            return Err(refuse(Code::OutOfRange, text).into());
        }
    };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let claimed = query
        .start_id
        .as_deref()
        .filter(|id| !id.is_empty())
        .map(|id| ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id)))
        .transpose()?;
    let bucket = bucket_of_caller(app, caller, id)?;
    let grant = Grant::for_prefix(&caller.key, Capability::ListFiles, bucket, &query.prefix)?;
    let page = app
        .catalog
        .scan(move |tx| {
            let bucket = &grant.bucket;
            let (mut from, mut start) = (query.prefix.clone(), None);
            if let Some(claimed) = &claimed {
                // An id that is no longer there names no place: its name is not in it.
                let found = find_claimed(tx, bucket, claimed)?;
                let version = found.ok_or_else(|| not_unfinished(&claimed.text))?;
                if version.name.as_str() >= query.prefix.as_str() {
                    start = Some((version.upload_at, version.origin));
                    version.name.as_str().clone_into(&mut from);
                }
            }
            let mut page = Page::default();
            let place = (bucket.number, bucket.id);
            files::walk_unfinished(tx, place, &from, start, &mut |version| {
                if !version.name.as_str().starts_with(&query.prefix) {
                    return false;
                }
                if page.entries.len() == size {
                    page.next_id = Some(version.id());
                    return false;
                }
                page.entries.push(Entry::File(version));
                true
            })?;
            Ok(page)
        })
        .await?;
    Ok(page)
}

/// What the uploader says the parts of a large file are.
#[derive(Clone, Debug)]
pub(crate) enum NamedParts {
    /// The SHA-1s of all of them, in order.
    Sha1s(Vec<String>),
    /// Those that are to be in it, in order.
    Chosen { parts: Vec<NamedPart>, whole: ClaimedWhole, only_if: OnlyIf },
}

/// Makes an upload of an unfinished large file. Exactly one of several callers succeeds.
pub(crate) async fn finish(
    app: &App,
    caller: &Caller,
    file_id: &str,
    named: NamedParts,
) -> Result<FileVersion, Error> {
    finish_as(app, caller, file_id, named, None).await
}

/// As [`finish`], of the replica that `mark` is about. One that is here already, by this call or by
/// another, is answered.
pub(crate) async fn finish_replica(
    app: &App,
    caller: &Caller,
    file_id: &str,
    named: NamedParts,
    mark: ReplicaMark,
) -> Result<FileVersion, Error> {
    replicas::check_mark(app, &mark)?;
    let origin = mark.origin.clone();
    match finish_as(app, caller, file_id, named, Some(mark)).await {
        Err(Error::Refused(refusal)) if refusal.code == Code::NoActiveUpload => {
            let claimed = ClaimedFileId::parse(file_id).ok_or_else(|| invalid_file_id(file_id))?;
            let known = replicas::known_to(app, caller, claimed.bucket, &origin)?;
            known.ok_or_else(|| refusal.into())
        }
        outcome => outcome,
    }
}

async fn finish_as(
    app: &App,
    caller: &Caller,
    file_id: &str,
    named: NamedParts,
    mark: Option<ReplicaMark>,
) -> Result<FileVersion, Error> {
    let unfinished = unfinished(app, caller, file_id, Capability::WriteFiles)?;
    let completion = Completion {
        blob: app.numbers.blob(app.clock.now()),
        sizes: app.policy.part_sizes,
        instance: Arc::clone(&app.instance),
        named,
        mark,
    };
    let moment = Moment::of(app);
    let (version, aftermath) = app
        .catalog
        .write("finish_large_file", move |tx| completion.run(tx, &unfinished, moment))
        .await?;
    match aftermath {
        Outcome::Finished(aftermath) => {
            effects::announce_upload(app, &version, aftermath);
            if replicas::is_replica(&version) {
                app.metrics.replication_received.one();
            }
        }
        Outcome::Known(aftermath) => {
            effects::announce(app, aftermath);
            app.wake.sweep.notify_one();
        }
    }
    Ok(version)
}

/// What became of an unfinished large file.
enum Outcome {
    Finished(Aftermath),
    /// It is a replica that is here already, so it was given up.
    Known(Aftermath),
}

/// Everything the finishing transaction needs, prepared before it begins.
struct Completion {
    blob: BlobId,
    sizes: PartSizes,
    /// This server's id.
    instance: Arc<str>,
    named: NamedParts,
    mark: Option<ReplicaMark>,
}

impl Completion {
    fn run(
        &self,
        tx: &mut dyn Tx,
        unfinished: &Unfinished,
        moment: Moment,
    ) -> Result<(FileVersion, Outcome), Abort> {
        let (reread, mut version) = unfinished.reread(tx, moment)?;
        let bucket = reread.as_ref().unwrap_or(&unfinished.fence.bucket);
        let origin = self.origin_of(tx, bucket, &version, moment)?;
        if let Some(origin) = &origin
            && let Some(known) = replicas::find_known(tx, bucket, origin.as_str())?
        {
            let given_up = effects::remove(tx, bucket, &version, Cause::Cancel, moment, false)?;
            return Ok((known, Outcome::Known(given_up)));
        }
        let mut all = parts::list_parts(tx, version.number, 1, i64::MAX)?;
        let sizes = origin.is_none().then_some(self.sizes);
        let wanted = files::find_checksum(tx, version.number)?;
        let checksum = match &self.named {
            NamedParts::Sha1s(sha1s) => {
                check_parts(&all, sha1s, sizes)?;
                checksum_of_whole(&all, wanted.as_ref(), &ClaimedWhole::default())?
            }
            NamedParts::Chosen { parts, whole, only_if } => {
                only_if.check(tx, bucket, version.name.as_str())?;
                let chosen = chosen_parts(&all, parts, self.sizes)?;
                let checksum = checksum_of_whole(&chosen, wanted.as_ref(), whole)?;
                effects::drop_parts(tx, bucket, &version, (&all, &chosen), moment)?;
                all = chosen;
                checksum
            }
        };
        let pieces = take_over(tx, &all, moment.now)?;
        parts::forget_parts(tx, version.number)?;
        version.size = blob_refs::insert_pieces(tx, self.blob, &mut pieces.into_iter())?;
        version.blob = Some(self.blob);
        version.parts = Some(parts_digest(&all));
        version.action = Action::Upload;
        if let Some(origin) = &origin {
            let own = (version.number, &*self.instance);
            let at = (origin, version.upload_at);
            version.origin = replicas::place_of(tx, bucket, version.name.as_str(), at, own)?;
            replicas::note_known(tx, &version, origin)?;
        }
        let newest = files::newest(tx, bucket.number, version.name.as_str())?;
        let aftermath = effects::add(tx, bucket, &mut version, newest, Cause::Finish, moment)?;
        files::set_part_sizes(tx, version.number, &SizesOfParts::of(&all))?;
        if wanted != checksum {
            files::set_checksum(tx, version.number, checksum.as_ref())?;
        }
        Ok((version, Outcome::Finished(aftermath)))
    }

    /// The version elsewhere that this is a replica of; None for what is none. Refused when it was
    /// not begun as the replica that it is to be finished as, or the bucket takes it no longer.
    fn origin_of(
        &self,
        tx: &mut dyn Tx,
        bucket: &Bucket,
        version: &FileVersion,
        moment: Moment,
    ) -> Result<Option<Origin>, Abort> {
        let begun_as = replicas::origin_of(tx, version)?;
        if let Some(mark) = &self.mark {
            if begun_as.as_ref() != Some(&mark.origin) {
                return Err(
                    bad_request("the file was not begun as a replica of this origin").into()
                );
            }
            let about = (version.name.as_str(), version.lock);
            replicas::check_rule(tx, bucket, mark, about, moment.now)?;
        }
        Ok(begun_as)
    }
}

/// The pieces that the parts are, each counted once for the file they become.
pub(crate) fn take_over(tx: &mut dyn Tx, all: &[Part], now: Millis) -> Result<Vec<Piece>, Abort> {
    let mut pieces = Vec::with_capacity(all.len());
    for part in all {
        let owners = blob_refs::find_owners(tx, part.blob)?;
        let owners = owners.ok_or(CatalogError::Unreadable { what: "blob of a part" })?;
        if !owners.in_pieces {
            // What the part counted, the file counts from now on.
            pieces.push(Piece { blob: part.blob, start: 0, size: part.size });
            continue;
        }
        let inside = blob_refs::pieces(tx, part.blob, ByteRange::whole(part.size), i64::MAX)?;
        pieces.extend(inside.iter().map(|placed| placed.piece));
        if owners.refs == 1 {
            blob_refs::dissolve(tx, part.blob)?;
            continue;
        }
        for placed in &inside {
            blob_refs::hold(tx, placed.piece.blob)?;
        }
        blob_refs::release(tx, part.blob, now)?;
    }
    Ok(pieces)
}

/// Gives up an unfinished file and forgets its parts.
pub(crate) async fn cancel(
    app: &App,
    caller: &Caller,
    file_id: &str,
) -> Result<FileVersion, Error> {
    let unfinished = begun(app, caller, file_id, Capability::WriteFiles)?;
    let moment = Moment::of(app);
    let (canceled, aftermath) = app
        .catalog
        .write("cancel_large_file", move |tx| {
            let (reread, version) = unfinished.reread(tx, moment)?;
            let bucket = reread.as_ref().unwrap_or(&unfinished.fence.bucket);
            let aftermath = effects::remove(tx, bucket, &version, Cause::Cancel, moment, false)?;
            Ok((version, aftermath))
        })
        .await?;
    effects::announce(app, aftermath);
    app.wake.sweep.notify_one();
    Ok(canceled)
}
