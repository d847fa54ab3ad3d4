//! Files of one piece that a peer sends bit by bit, so that a connection that breaks costs the part
//! it broke in and not gigabytes.
//!
//! A session is an unfinished file whose parts are all of one size and are kept as those of a large
//! file are; when the last one is there they become one content, without a byte being written again.
//! What the parts come to is compared with the digests that the session was begun with before anybody
//! sees the file. To the Native API a session is an unfinished file that can be listed and cancelled.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;

use crate::auth::caller::{Caller, Grant};
use crate::catalog::replicas::{self as rows, Session};
use crate::catalog::{Abort, Error as CatalogError, Tx, blob_refs, buckets, files, parts};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::digest::{Hasher, Md5Digest, Sha1Digest};
use crate::domain::encryption::AskedEncryption;
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion, UPLOAD_BYTES_MAX};
use crate::domain::ids::{BlobId, ClaimedFileId};
use crate::domain::large_file::{PART_NUMBER_MAX, Part, PartNumber};
use crate::domain::lock::FileLock;
use crate::domain::names::FileName;
use crate::domain::range::ByteRange;
use crate::domain::refusal::{
    Code, Refusal, bad_request, invalid_file_id, no_such_bucket, refuse, unauthorized,
};
use crate::domain::replica::ReplicaMark;
use crate::domain::time::DAY_MS;
use crate::operations::App;
use crate::operations::authorize::{Fence, fence, parse_bucket_id};
use crate::operations::download::verify_blob;
use crate::operations::effects::{self, Aftermath, Cause, Moment};
use crate::operations::encryption::encryption_of;
use crate::operations::error::Error;
use crate::operations::files::find_claimed;
use crate::operations::large_files::{
    PartTicket, Unfinished, cancel, not_unfinished, take_over, unfinished_session, upload_part,
};
use crate::operations::replicas;
use crate::operations::upload::{Announced, BodyFault};
use crate::operations::usage::check_room;

/// How long the parts of a session are when nobody says.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// A session that nothing happens with for this long is given up.
const IDLE_MS: i64 = 6 * DAY_MS;
/// Sessions given up in one look.
const IDLE_BATCH: i64 = 100;

/// A session about to be begun.
#[derive(Clone, Debug)]
pub(crate) struct NewSession {
    pub(crate) bucket: String,
    pub(crate) name: FileName,
    pub(crate) size: u64,
    pub(crate) content_type: String,
    pub(crate) info: FileInfo,
    pub(crate) sha1: ContentSha1,
    pub(crate) md5: Md5Digest,
    pub(crate) lock: FileLock,
    pub(crate) encryption: AskedEncryption,
    /// Of all parts but the last; None leaves it to us.
    pub(crate) part_bytes: Option<u64>,
    pub(crate) mark: ReplicaMark,
}

/// How far a session is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    Open {
        /// Its id is that of the file it becomes.
        file: FileVersion,
        session: Session,
        /// In the order of their numbers.
        parts: Vec<Part>,
    },
    /// The file is here, be it by this session or by another.
    Stored(FileVersion),
}

/// Bytes that are durable here and may be told as such: those from the beginning up to the first gap.
pub(crate) fn confirmed_bytes(parts: &[Part]) -> u64 {
    let in_a_row = parts.iter().zip(1..).take_while(|(part, number)| part.number.get() == *number);
    in_a_row.map(|(part, _)| part.size).sum()
}

/// How a session of `size` bytes is cut.
fn part_bytes(size: u64, wanted: Option<u64>) -> Result<u64, Refusal> {
    let parts_max = PART_NUMBER_MAX.unsigned_abs();
    let least = size.div_ceil(parts_max);
    match wanted {
        None => Ok(PART_BYTES.max(least)),
        Some(bytes) if bytes >= least && bytes > 0 => Ok(bytes),
        Some(bytes) => Err(bad_request(format!(
            "partSizeBytes must be at least {least}, so that there are no more than {parts_max} \
             parts: {bytes}"
        ))),
    }
}

/// Begins a session. For a replica that is here already that is the answer, and nothing is begun.
pub(crate) async fn begin(app: &App, caller: &Caller, wanted: NewSession) -> Result<State, Error> {
    caller.require(Capability::WriteFiles)?;
    let id = parse_bucket_id(&wanted.bucket)?;
    caller.require_bucket(Capability::WriteFiles, id)?;
    if !caller.key.reaches_name(wanted.name.as_str()) {
        return Err(unauthorized().into());
    }
    let fence = fence(app, caller, id)?.ok_or_else(|| no_such_bucket(&id))?;
    let (bucket, name) = (Arc::clone(&fence.bucket), wanted.name.as_str());
    let grant = Grant::for_name(&caller.key, Capability::WriteFiles, bucket, name)?;
    replicas::check_mark(app, &wanted.mark)?;
    replicas::check_lock(caller, &grant.bucket, wanted.lock)?;
    if !(1..=UPLOAD_BYTES_MAX).contains(&wanted.size) {
        let text =
            format!("contentLength must be between 1 and {UPLOAD_BYTES_MAX}: {}", wanted.size);
        return Err(bad_request(text).into());
    }
    let part_bytes = part_bytes(wanted.size, wanted.part_bytes)?;
    check_room(app, caller.account(), wanted.size)?;
    let sealing = wanted.encryption.clone().in_bucket(fence.bucket.settings.encryption);
    let encryption = encryption_of(app, &sealing)?;
    let moment = Moment::of(app);
    let number = app.numbers.small_file(moment.now);
    let instance = Arc::clone(&app.instance);
    let (state, aftermath) = app
        .catalog
        .write("begin_replica_session", move |tx| {
            let reread = fence.reread(tx, moment.now)?;
            let bucket = reread.as_ref().unwrap_or(&fence.bucket);
            if let Some(known) = replicas::find_known(tx, bucket, wanted.mark.origin.as_str())? {
                return Ok((State::Stored(known), None));
            }
            let newest = files::newest(tx, bucket.number, wanted.name.as_str())?;
            let mut file = FileVersion {
                bucket: bucket.id,
                number,
                name: wanted.name.clone(),
                action: Action::Start,
                upload_at: wanted.mark.upload_at,
                origin: number,
                written_at: moment.now,
                size: 0,
                // What the content is to be; it is compared before the file shows.
                sha1: wanted.sha1,
                md5: Some(wanted.md5),
                parts: None,
                content_type: wanted.content_type.clone(),
                info: wanted.info.clone(),
                blob: None,
                replication: None,
                lock: wanted.lock,
                encryption: encryption.clone(),
            };
            replicas::mark_version(tx, bucket, &mut file, &wanted.mark, (&instance, moment))?;
            replicas::note_trail(tx, &file, &wanted.mark)?;
            let aftermath = effects::add(tx, bucket, &mut file, newest, Cause::Start, moment)?;
            let session =
                Session { file: number, bucket: bucket.id, size: wanted.size, part_bytes };
            rows::insert_session(tx, &session, moment.steady)?;
            Ok((State::Open { file, session, parts: Vec::new() }, Some(aftermath)))
        })
        .await?;
    if let Some(aftermath) = aftermath {
        effects::announce(app, aftermath);
    }
    Ok(state)
}

/// A session that a caller may go on with, as it was found.
enum Found {
    Open(Box<Unfinished>, Session, Vec<Part>),
    Stored(FileVersion),
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<Found, Error> {
    let found = unfinished_session(app, caller, id);
    let unfinished = match found {
        Ok(unfinished) => unfinished,
        Err(Error::Refused(refusal)) if refusal.code == Code::NoActiveUpload => {
            let stored = stored(app, caller, id)?;
            return stored.map(Found::Stored).ok_or_else(|| refusal.into());
        }
        Err(error) => return Err(error),
    };
    let number = unfinished.version.number;
    let known = app.catalog.read(|tx| {
        let session = rows::find_session(tx, number)?;
        Ok((session, parts::list_parts(tx, number, 1, i64::MAX)?))
    })?;
    let (Some(session), parts) = known else { return Err(not_unfinished(id).into()) };
    Ok(Found::Open(Box::new(unfinished), session, parts))
}

/// The replica that a session has become.
fn stored(app: &App, caller: &Caller, id: &str) -> Result<Option<FileVersion>, Error> {
    let claimed = ClaimedFileId::parse(id).ok_or_else(|| invalid_file_id(id))?;
    let fence = fence(app, caller, claimed.bucket)?;
    let Some(Fence { bucket, .. }) = fence else { return Ok(None) };
    let found = app.catalog.read(|tx| find_claimed(tx, &bucket, &claimed))?;
    let found =
        found.filter(|version| version.action == Action::Upload && replicas::is_replica(version));
    if let Some(found) = &found {
        Grant::for_name(&caller.key, Capability::WriteFiles, bucket, found.name.as_str())?;
    }
    Ok(found)
}

/// How far a session is.
pub(crate) fn look(app: &App, caller: &Caller, id: &str) -> Result<State, Error> {
    Ok(match find(app, caller, id)? {
        Found::Open(unfinished, session, parts) => {
            State::Open { file: unfinished.version, session, parts }
        }
        Found::Stored(file) => State::Stored(file),
    })
}

/// The part that a range of a session is.
fn part_of(session: &Session, range: ByteRange, total: u64) -> Result<PartNumber, Refusal> {
    let Session { size, part_bytes, .. } = *session;
    let end = range.start.saturating_add(part_bytes).min(size);
    let number = i64::try_from(range.start / part_bytes + 1).ok().and_then(PartNumber::new);
    match number {
        Some(number)
            if total == size
                && range.start.is_multiple_of(part_bytes)
                && range.start < size
                && range.end == end =>
        {
            Ok(number)
        }
        _ => Err(bad_request(format!(
            "a range must be one part: {part_bytes} bytes from a multiple of that on, or what is \
             left of {size}"
        ))),
    }
}

/// What comes with a call that goes on with a session.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    /// The bytes that come, and how many the file has; None brings none and asks whether all is
    /// there.
    pub(crate) range: Option<ByteRange>,
    pub(crate) total: u64,
    pub(crate) announced: Announced,
    /// What the peer says of the replica; it need not say it again.
    pub(crate) mark: Option<ReplicaMark>,
}

/// Takes one part of a session, and makes the file of them when that was the last one. A part that is
/// there already is replaced.
pub(crate) async fn put<B>(
    app: &App,
    caller: &Caller,
    id: &str,
    sent: Sent,
    body: B,
) -> Result<State, Error>
where
    B: Stream<Item = Result<Bytes, BodyFault>>,
{
    replicas::check_taken(app)?;
    let (unfinished, session) = match find(app, caller, id)? {
        Found::Stored(file) => return Ok(State::Stored(file)),
        Found::Open(unfinished, session, _) => (*unfinished, session),
    };
    if let Some(mark) = &sent.mark {
        check_said(app, &unfinished, mark)?;
    }
    match sent.range {
        Some(range) => {
            let number = part_of(&session, range, sent.total)?;
            if sent.announced.content_bytes()? != range.len() {
                return Err(bad_request("Content-Length does not match Content-Range").into());
            }
            let ticket = PartTicket::of_caller(unfinished);
            let asked = AskedEncryption::Default;
            upload_part(app, ticket, number, sent.announced, asked, body).await?;
            let now = app.waits.now();
            let touched = app.catalog.write("touch_replica_session", move |tx| {
                Ok(rows::touch_session(tx, session.file, now)?)
            });
            touched.await?;
        }
        None if sent.total != session.size => {
            let text = format!("the session is one of {} bytes", session.size);
            return Err(bad_request(text).into());
        }
        None => {}
    }
    match find(app, caller, id)? {
        Found::Open(unfinished, session, parts) if confirmed_bytes(&parts) == session.size => {
            finish(app, *unfinished, parts).await.map(State::Stored)
        }
        Found::Open(unfinished, session, parts) => {
            Ok(State::Open { file: unfinished.version, session, parts })
        }
        Found::Stored(file) => Ok(State::Stored(file)),
    }
}

/// Compares what a peer says again with what the session was begun with.
fn check_said(app: &App, unfinished: &Unfinished, mark: &ReplicaMark) -> Result<(), Error> {
    replicas::check_mark(app, mark)?;
    let (file, bucket) = (&unfinished.version, &unfinished.fence.bucket);
    let now = app.clock.now();
    Ok(app.catalog.read(|tx| {
        if replicas::origin_of(tx, file)?.as_ref() != Some(&mark.origin) {
            return Err(bad_request("the session was not begun for this origin").into());
        }
        replicas::check_rule(tx, bucket, mark, (file.name.as_str(), file.lock), now)
    })?)
}

/// What the parts come to. Each is compared with its checks on the way.
async fn digests(app: &App, parts: &[Part]) -> Result<(Option<Sha1Digest>, Md5Digest), Error> {
    if let [single] = parts {
        return Ok((single.sha1.digest(), single.md5));
    }
    let mut hasher = Hasher::new();
    for part in parts {
        let blob = app.catalog.read(|tx| Ok(blob_refs::find_blob(tx, part.blob)?))?;
        let blob = blob.ok_or(CatalogError::Unreadable { what: "blob of a part" })?;
        verify_blob(app, &blob, &mut |chunk| hasher.content(chunk)).await?;
    }
    let digests = hasher.finish();
    Ok((Some(digests.sha1), digests.md5))
}

/// Makes the file of all its parts.
async fn finish(app: &App, unfinished: Unfinished, parts: Vec<Part>) -> Result<FileVersion, Error> {
    let (sha1, md5) = digests(app, &parts).await?;
    let wanted = &unfinished.version;
    let moment = Moment::of(app);
    if sha1 != wanted.sha1.digest() || Some(md5) != wanted.md5 {
        let dropped = app.catalog.write("drop_replica_parts", move |tx| {
            let (reread, version) = unfinished.reread(tx, moment)?;
            let bucket = reread.as_ref().unwrap_or(&unfinished.fence.bucket);
            let all = parts::list_parts(tx, version.number, 1, i64::MAX)?;
            effects::drop_parts(tx, bucket, &version, (&all, &[]), moment)
        });
        dropped.await?;
        app.wake.sweep.notify_one();
        // The words are those of an upload, the parts must be sent again.
        return Err(bad_request("Sha1 did not match data received").into());
    }
    let completion = Completion {
        blob: app.numbers.blob(moment.now),
        instance: Arc::clone(&app.instance),
        moment,
    };
    let (file, aftermath, is_new) = app
        .catalog
        .write("finish_replica_session", move |tx| completion.run(tx, &unfinished, &parts))
        .await?;
    if is_new {
        effects::announce_upload(app, &file, aftermath);
        app.metrics.replication_received.one();
    } else {
        effects::announce(app, aftermath);
        app.wake.sweep.notify_one();
    }
    Ok(file)
}

struct Completion {
    blob: BlobId,
    /// This server's id.
    instance: Arc<str>,
    moment: Moment,
}

impl Completion {
    /// The file, and whether it is new: one that came another way meanwhile is answered, and the
    /// session given up.
    fn run(
        &self,
        tx: &mut dyn Tx,
        unfinished: &Unfinished,
        verified: &[Part],
    ) -> Result<(FileVersion, Aftermath, bool), Abort> {
        let moment = self.moment;
        let (reread, mut file) = unfinished.reread(tx, moment)?;
        let bucket = reread.as_ref().unwrap_or(&unfinished.fence.bucket);
        let origin = replicas::origin_of(tx, &file)?;
        let origin = origin.ok_or(CatalogError::Unreadable { what: "origin of a replica" })?;
        if let Some(known) = replicas::find_known(tx, bucket, origin.as_str())? {
            let given_up = effects::remove(tx, bucket, &file, Cause::Cancel, moment, false)?;
            return Ok((known, given_up, false));
        }
        let blobs = |parts: &[Part]| parts.iter().map(|part| part.blob).collect::<Vec<_>>();
        if blobs(&parts::list_parts(tx, file.number, 1, i64::MAX)?) != blobs(verified) {
            return Err(refuse(Code::Conflict, "a part was sent again meanwhile").into());
        }
        let pieces = take_over(tx, verified, moment.now)?;
        parts::forget_parts(tx, file.number)?;
        file.size = verified.iter().map(|part| part.size).sum();
        file.blob = Some(match (pieces.as_slice(), verified) {
            ([whole], [part]) if whole.blob == part.blob => part.blob,
            _ => {
                blob_refs::insert_pieces(tx, self.blob, &mut pieces.into_iter())?;
                self.blob
            }
        });
        file.action = Action::Upload;
        let (at, own) = ((&origin, file.upload_at), (file.number, &*self.instance));
        file.origin = replicas::place_of(tx, bucket, file.name.as_str(), at, own)?;
        replicas::note_known(tx, &file, &origin)?;
        rows::end_session(tx, file.number)?;
        let newest = files::newest(tx, bucket.number, file.name.as_str())?;
        let aftermath = effects::add(tx, bucket, &mut file, newest, Cause::Finish, moment)?;
        Ok((file, aftermath, true))
    }
}

/// Gives a session up and forgets its parts.
pub(crate) async fn give_up(app: &App, caller: &Caller, id: &str) -> Result<(), Error> {
    unfinished_session(app, caller, id)?;
    cancel(app, caller, id).await.map(drop)
}

/// Gives up sessions that nothing has happened with for days; answers how many.
pub(crate) async fn give_up_idle(app: &App) -> Result<usize, Error> {
    let moment = Moment::of(app);
    let until = moment.steady.plus(-IDLE_MS);
    let idle = app.catalog.read(|tx| Ok(rows::idle_sessions(tx, until, IDLE_BATCH)?))?;
    if idle.is_empty() {
        return Ok(0);
    }
    let aftermaths = app
        .catalog
        .write("cancel_idle_replica_sessions", move |tx| {
            let idle = rows::idle_sessions(tx, until, IDLE_BATCH)?;
            let mut aftermaths = Vec::with_capacity(idle.len());
            for session in idle {
                let bucket = buckets::find_by_id(tx, session.bucket)?;
                match find_idle(tx, bucket.as_ref(), session)? {
                    Some((bucket, file)) => aftermaths.push(effects::remove(
                        tx,
                        bucket,
                        &file,
                        Cause::Cancel,
                        moment,
                        false,
                    )?),
                    None => rows::end_session(tx, session.file)?,
                }
            }
            Ok(aftermaths)
        })
        .await?;
    let given_up = aftermaths.len();
    for aftermath in aftermaths {
        effects::announce(app, aftermath);
    }
    app.wake.sweep.notify_one();
    Ok(given_up)
}

fn find_idle<'b>(
    tx: &mut dyn Tx,
    bucket: Option<&'b Bucket>,
    session: Session,
) -> Result<Option<(&'b Bucket, FileVersion)>, Abort> {
    let Some(bucket) = bucket else { return Ok(None) };
    let file = files::find_by_number(tx, (bucket.number, bucket.id), session.file)?;
    Ok(file.filter(|file| file.action == Action::Start).map(|file| (bucket, file)))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;
    use crate::clock::Clock as _;
    use crate::domain::ids::BucketId;
    use crate::domain::lifecycle::LifecycleRule;
    use crate::operations::buckets::{BucketChange, update_bucket};
    use crate::operations::lifecycle::walk_due;
    use crate::operations::upload::DeclaredSha1;
    use crate::testing::TestHouse;

    const TIME: &str = "1641308478000";

    async fn house() -> TestHouse {
        TestHouse::open_configured(|config| config.replication.accept_peers = true).await
    }

    fn mark(number: u64) -> ReplicaMark {
        let origin = format!(
            "feed.4_z8d625eb63be2775577c70e1a_f1{number:015x}_d20220104_m150118_c000_v0000000_t0000_u0{TIME}"
        );
        ReplicaMark::parse((&origin, TIME, "feed"), None, ["origin", "time", "hops"]).unwrap()
    }

    fn wanted(bucket: BucketId, number: u64, body: &[u8], part_bytes: u64) -> NewSession {
        let mut hasher = Hasher::new();
        hasher.update(body);
        let digests = hasher.finish();
        NewSession {
            bucket: bucket.to_string(),
            name: FileName::parse("f").unwrap(),
            size: body.len() as u64,
            content_type: "text/plain".to_owned(),
            info: FileInfo::default(),
            sha1: ContentSha1::Verified(digests.sha1),
            md5: digests.md5,
            lock: FileLock::default(),
            encryption: AskedEncryption::Default,
            part_bytes: Some(part_bytes),
            mark: mark(number),
        }
    }

    async fn begun(house: &TestHouse, wanted: NewSession) -> String {
        let state = begin(&house.app, &house.caller, wanted).await.unwrap();
        let State::Open { file, .. } = state else { panic!("it is not here yet") };
        file.id().to_string()
    }

    async fn send(house: &TestHouse, id: &str, whole: &[u8], start: usize, end: usize) -> State {
        let body = Bytes::copy_from_slice(&whole[start..end]);
        let (start, end) = (start as u64, end as u64);
        let sent = Sent {
            range: Some(ByteRange { start, end }),
            total: whole.len() as u64,
            announced: Announced {
                body_bytes: end - start,
                sha1: DeclaredSha1::Unknown,
                md5: None,
            },
            mark: None,
        };
        put(&house.app, &house.caller, id, sent, stream::iter([Ok(body)])).await.unwrap()
    }

    #[test]
    fn only_what_has_no_gap_before_it_is_confirmed() {
        let part = |number, size| Part {
            number: PartNumber::new(number).unwrap(),
            blob: BlobId(number),
            size,
            sha1: ContentSha1::None,
            md5: Md5Digest::OF_NOTHING,
            checksum: None,
            uploaded_at: crate::domain::time::Millis(0),
        };
        assert_eq!(confirmed_bytes(&[]), 0);
        assert_eq!(confirmed_bytes(&[part(1, 5), part(2, 5), part(4, 5)]), 10);
        assert_eq!(confirmed_bytes(&[part(2, 5)]), 0);
    }

    #[test]
    fn a_session_has_no_more_parts_than_numbers() {
        assert_eq!(part_bytes(1, None), Ok(PART_BYTES));
        assert_eq!(part_bytes(UPLOAD_BYTES_MAX, None), Ok(PART_BYTES));
        assert_eq!(part_bytes(20_001, Some(3)), Ok(3));
        assert!(part_bytes(20_001, Some(2)).is_err() && part_bytes(1, Some(0)).is_err());
    }

    #[tokio::test]
    async fn a_session_that_stands_still_for_six_days_is_given_up() {
        let house = house().await;
        let bucket = house.bucket("from-peers").await;
        let whole = vec![1_u8; 60_000];
        let id = begun(&house, wanted(bucket, 1, &whole, 20_000)).await;
        house.clock.advance(3 * DAY_MS);
        send(&house, &id, &whole, 0, 20_000).await;
        house.clock.advance(6 * DAY_MS - 1);
        house.upkeep().await;
        assert_eq!(house.versions(bucket).len(), 1, "it got on six days ago");
        house.clock.advance(60 * 60 * 1000);
        house.upkeep().await;
        assert!(house.versions(bucket).is_empty());
        house.assert_booked_right("after a session was given up");
        house.sweep_freed().await;
        let lost = look(&house.app, &house.caller, &id).unwrap_err();
        assert!(lost.to_string().contains("No active upload"), "{lost}");
        let again = begun(&house, wanted(bucket, 1, &whole, 20_000)).await;
        assert_ne!(again, id);
    }

    #[tokio::test]
    async fn replication_203_a_crash_between_the_parts_loses_none_and_stores_once() {
        let mut house = house().await;
        let bucket = house.bucket("from-peers").await;
        let whole: Vec<u8> = (0..90_000_u32).map(|n| (n % 253) as u8).collect();
        let id = begun(&house, wanted(bucket, 1, &whole, 30_000)).await;
        // A worker of before is at the same file, in another session.
        let other = begun(&house, wanted(bucket, 1, &whole, 45_000)).await;
        send(&house, &other, &whole, 0, 45_000).await;
        for start in [0, 30_000] {
            send(&house, &id, &whole, start, start + 30_000).await;
            house.crash_and_reopen().await;
        }
        let State::Stored(file) = send(&house, &id, &whole, 60_000, 90_000).await else {
            panic!("all of it is there")
        };
        assert_eq!(house.content(&file).await, whole);
        let State::Stored(same) = send(&house, &other, &whole, 45_000, 90_000).await else {
            panic!("all of it is there")
        };
        assert_eq!(same, file, "the slower one finds it");
        assert_eq!(house.versions(bucket), std::slice::from_ref(&file));
        house.assert_booked_right("after two sessions");
        house.sweep_freed().await;
        house.crash_and_reopen().await;
        assert_eq!(house.sweep_orphans().await, 0);
        assert_eq!(house.content(&file).await, whole, "its pieces stay");
    }

    #[tokio::test]
    async fn replication_111_rules_count_what_is_begun_from_its_beginning_and_what_is_there_from_its_time()
     {
        let house = house().await;
        let bucket = house.bucket("from-peers").await;
        let rules = vec![LifecycleRule {
            delete_after_days: None,
            cancel_after_days: Some(2),
            hide_after_days: Some(2),
            file_name_prefix: String::new(),
        }];
        let change = BucketChange { lifecycle_rules: Some(rules), ..BucketChange::default() };
        update_bucket(&house.app, &house.caller, &bucket.to_string(), change).await.unwrap();
        house.clock.advance(DAY_MS + 1000);
        let whole = vec![1_u8; 60_000];
        let id = begun(&house, wanted(bucket, 1, &whole, 30_000)).await;
        send(&house, &id, &whole, 0, 30_000).await;
        walk_due(&house.app, &|| true).await.unwrap();
        assert_eq!(house.versions(bucket).len(), 1, "begun today, however old its source is");
        send(&house, &id, &whole, 30_000, 60_000).await;
        house.clock.advance(DAY_MS + 1000);
        walk_due(&house.app, &|| true).await.unwrap();
        let actions: Vec<Action> = house.versions(bucket).iter().map(|v| v.action).collect();
        assert_eq!(actions, [Action::Hide, Action::Upload], "it is as old as its source");
    }
}
