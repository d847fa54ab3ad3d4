//! Rows of file versions.
//!
//! The key of the table keeps the versions of a name together, newest first. `is_head` marks the
//! newest version of a name when it is an upload; the verbs here keep it so, and listings of names
//! read nothing else. Unfinished large files stand among the versions but no name shows them.

use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::bucket::BucketNumber;
use crate::domain::checksum::KeptChecksum;
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::encryption::Encryption;
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion, PartsDigest};
use crate::domain::ids::{BlobId, BucketId, FileNumber};
use crate::domain::large_file::SizesOfParts;
use crate::domain::lock::{FileLock, Retention, RetentionMode};
use crate::domain::names::FileName;
use crate::domain::replication::ReplicationStatus;
use crate::domain::time::Millis;

/// Where a version stands among the versions of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) upload_at: Millis,
    pub(crate) origin: FileNumber,
    pub(crate) action: Action,
}

impl Place {
    fn is_newer_than(self, other: Self) -> bool {
        (self.upload_at, self.origin) > (other.upload_at, other.origin)
    }

    fn of(version: &FileVersion) -> Self {
        Self { upload_at: version.upload_at, origin: version.origin, action: version.action }
    }
}

/// What stands at the front of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Newest {
    /// The newest version of whatever kind.
    pub(crate) of_all: Option<Place>,
    /// The newest one that is not an unfinished large file: what decides what the name shows.
    pub(crate) finished: Option<Place>,
}

impl Newest {
    /// When the next version of the name may be: times of a name grow strictly, whatever the clock
    /// does.
    pub(crate) fn next_upload_at(self, now: Millis) -> Millis {
        self.of_all.map_or(now, |newest| now.max(newest.upload_at.plus(1)))
    }

    /// The time of a version that may bring its own, which puts it among the older ones.
    pub(crate) fn upload_at(self, custom: Option<Millis>, now: Millis) -> Millis {
        custom.unwrap_or_else(|| self.next_upload_at(now))
    }
}

fn action_code(action: Action) -> i64 {
    match action {
        Action::Upload => 0,
        Action::Hide => 1,
        Action::Start => 2,
    }
}

fn action(code: i64) -> Result<Action, Error> {
    match code {
        0 => Ok(Action::Upload),
        1 => Ok(Action::Hide),
        2 => Ok(Action::Start),
        _ => Err(Error::Unreadable { what: "action" }),
    }
}

fn status_code(status: Option<ReplicationStatus>) -> i64 {
    match status {
        None => 0,
        Some(ReplicationStatus::Pending) => 1,
        Some(ReplicationStatus::Completed) => 2,
        Some(ReplicationStatus::Failed) => 3,
        Some(ReplicationStatus::Replica) => 4,
    }
}

fn status(code: i64) -> Result<Option<ReplicationStatus>, Error> {
    Ok(match code {
        0 => None,
        1 => Some(ReplicationStatus::Pending),
        2 => Some(ReplicationStatus::Completed),
        3 => Some(ReplicationStatus::Failed),
        4 => Some(ReplicationStatus::Replica),
        _ => return Err(Error::Unreadable { what: "replication status" }),
    })
}

fn place(row: &dyn Row) -> Result<Place, Error> {
    Ok(Place {
        upload_at: Millis(-row.int(0)?),
        origin: FileNumber(-row.int(1)?),
        action: action(row.int(2)?)?,
    })
}

/// The newest versions of a name.
pub(crate) fn newest(tx: &mut dyn Tx, bucket: BucketNumber, name: &str) -> Result<Newest, Error> {
    let of_all = find(
        tx,
        "SELECT sort_upload, sort_origin, action FROM files
          WHERE bucket_no = ?1 AND name = ?2 ORDER BY sort_upload, sort_origin LIMIT 1",
        &[Value::Int(bucket.0), Value::Text(name)],
        place,
    )?;
    let finished = match of_all {
        Some(Place { action: Action::Start, .. }) => newest_finished(tx, bucket, name)?,
        finished => finished,
    };
    Ok(Newest { of_all, finished })
}

fn newest_finished(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    name: &str,
) -> Result<Option<Place>, Error> {
    find(
        tx,
        "SELECT sort_upload, sort_origin, action FROM files
          WHERE bucket_no = ?1 AND name = ?2 AND action <> 2
          ORDER BY sort_upload, sort_origin LIMIT 1",
        &[Value::Int(bucket.0), Value::Text(name)],
        place,
    )
}

/// The number of the version that stands at one place among the versions of a name.
pub(crate) fn number_at(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    name: &str,
    (upload_at, origin): (Millis, FileNumber),
) -> Result<Option<FileNumber>, Error> {
    find(
        tx,
        "SELECT file_no FROM files
          WHERE bucket_no = ?1 AND name = ?2 AND sort_upload = ?3 AND sort_origin = ?4",
        &[Value::Int(bucket.0), Value::Text(name), Value::Int(-upload_at.0), Value::Int(-origin.0)],
        |row| Ok(FileNumber(row.int(0)?)),
    )
}

fn set_head(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    name: &str,
    place: Place,
    is_head: bool,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE files SET is_head = ?5
          WHERE bucket_no = ?1 AND name = ?2 AND sort_upload = ?3 AND sort_origin = ?4",
        &[
            Value::Int(bucket.0),
            Value::Text(name),
            Value::Int(-place.upload_at.0),
            Value::Int(-place.origin.0),
            Value::Int(i64::from(is_head)),
        ],
    )?;
    Ok(())
}

/// Lets `place` show under its name when it is the newest finished version and an upload, and
/// whatever showed before no longer. Answers whether it does.
fn take_head(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    name: &str,
    place: Place,
    newest: Newest,
) -> Result<bool, Error> {
    if place.action == Action::Start {
        return Ok(false);
    }
    let becomes_newest = newest.finished.is_none_or(|finished| place.is_newer_than(finished));
    if let Some(shown) = newest.finished
        && becomes_newest
        && shown.action == Action::Upload
    {
        set_head(tx, bucket, name, shown, false)?;
    }
    Ok(becomes_newest && place.action == Action::Upload)
}

fn signed(size: u64) -> Result<i64, Error> {
    i64::try_from(size).map_err(|_| Error::Unreadable { what: "size" })
}

fn sha1_code(sha1: ContentSha1) -> i64 {
    match sha1 {
        ContentSha1::None => 0,
        ContentSha1::Verified(_) => 1,
        ContentSha1::Unverified(_) => 2,
    }
}

fn bytes_or_null(bytes: Option<&[u8]>) -> Value<'_> {
    bytes.map_or(Value::Null, Value::Bytes)
}

/// Codes of the columns `retention_mode`, `retain_until_ms` and `legal_hold`.
fn lock_codes(lock: FileLock) -> (i64, Option<i64>, i64) {
    let mode = match lock.retention.map(|retention| retention.mode) {
        None => 0,
        Some(RetentionMode::Governance) => 1,
        Some(RetentionMode::Compliance) => 2,
    };
    let hold = match lock.legal_hold {
        None => 0,
        Some(false) => 1,
        Some(true) => 2,
    };
    (mode, lock.retention.map(|retention| retention.until.0), hold)
}

/// The lock in columns `mode` (with its end in the next one) and `hold`. What is unreadable counts as
/// locked: it must neither be deleted nor keep the rest of a listing from being read.
fn lock(row: &dyn Row, mode: usize, hold: usize) -> FileLock {
    let of = |mode, until| Some(Retention { mode, until: Millis(until) });
    let retention = match (row.opt_int(mode), row.opt_int(mode + 1)) {
        (Ok(Some(0)), Ok(None)) => None,
        (Ok(Some(1)), Ok(Some(until))) => of(RetentionMode::Governance, until),
        (Ok(Some(2)), Ok(Some(until))) => of(RetentionMode::Compliance, until),
        _ => Some(Retention::UNREADABLE),
    };
    let legal_hold = match row.opt_int(hold) {
        Ok(Some(0)) => None,
        Ok(Some(1)) => Some(false),
        _ => Some(true),
    };
    FileLock { retention, legal_hold }
}

/// Codes of the columns `sse` and `sse_key_check`.
fn encryption_codes(encryption: &Encryption) -> (i64, Option<&[u8]>) {
    match encryption {
        Encryption::None => (0, None),
        Encryption::Managed => (1, None),
        Encryption::Customer { key_check } => (2, Some(key_check)),
    }
}

fn encryption(code: i64, key_check: Option<&[u8]>) -> Result<Encryption, Error> {
    match (code, key_check) {
        (0, None) => Ok(Encryption::None),
        (1, None) => Ok(Encryption::Managed),
        (2, Some(check)) => Ok(Encryption::Customer { key_check: check.to_vec() }),
        _ => Err(Error::Unreadable { what: "encryption of a file version" }),
    }
}

/// Stores a version. `newest` is what [`newest`] answered in the same transaction.
pub(crate) fn insert_version(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    version: &FileVersion,
    newest: Newest,
) -> Result<(), Error> {
    let is_head = take_head(tx, bucket, version.name.as_str(), Place::of(version), newest)?;
    let sha1 = version.sha1.digest();
    let (retention_mode, retain_until, legal_hold) = lock_codes(version.lock);
    let (sse, sse_key_check) = encryption_codes(&version.encryption);
    tx.execute(
        "INSERT INTO files (bucket_no, name, sort_upload, sort_origin, file_no, action, is_head,
                            written_at_ms, size, sha1_state, sha1, md5, content_type, info,
                            blob_id, replication, parts_md5, part_count, retention_mode,
                            retain_until_ms, legal_hold, sse, sse_key_check)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18,
                 ?19, ?20, ?21, ?22, ?23)",
        &[
            Value::Int(bucket.0),
            Value::Text(version.name.as_str()),
            Value::Int(-version.upload_at.0),
            Value::Int(-version.origin.0),
            Value::Int(version.number.0),
            Value::Int(action_code(version.action)),
            Value::Int(i64::from(is_head)),
            Value::Int(version.written_at.0),
            Value::Int(signed(version.size)?),
            Value::Int(sha1_code(version.sha1)),
            bytes_or_null(sha1.as_ref().map(|digest| &digest.0[..])),
            bytes_or_null(version.md5.as_ref().map(|digest| &digest.0[..])),
            Value::Text(&version.content_type),
            Value::Text(version.info.as_json()),
            Value::opt_int(version.blob.map(|blob| blob.0)),
            Value::Int(status_code(version.replication)),
            bytes_or_null(version.parts.as_ref().map(|parts| &parts.md5.0[..])),
            Value::opt_int(version.parts.map(|parts| i64::from(parts.count))),
            Value::Int(retention_mode),
            Value::opt_int(retain_until),
            Value::Int(legal_hold),
            Value::Int(sse),
            bytes_or_null(sse_key_check),
        ],
    )?;
    Ok(())
}

/// Turns an unfinished large file into the upload that `version` says it is now, at the place that its
/// origin has. `newest` is what [`newest`] answered in the same transaction.
pub(crate) fn finish_version(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    version: &FileVersion,
    newest: Newest,
) -> Result<(), Error> {
    let is_head = take_head(tx, bucket, version.name.as_str(), Place::of(version), newest)?;
    tx.execute(
        "UPDATE files SET action = ?2, is_head = ?3, size = ?4, blob_id = ?5, replication = ?6,
                          parts_md5 = ?7, part_count = ?8, sort_origin = ?9
          WHERE file_no = ?1 AND action = 2",
        &[
            Value::Int(version.number.0),
            Value::Int(action_code(version.action)),
            Value::Int(i64::from(is_head)),
            Value::Int(signed(version.size)?),
            Value::opt_int(version.blob.map(|blob| blob.0)),
            Value::Int(status_code(version.replication)),
            bytes_or_null(version.parts.as_ref().map(|parts| &parts.md5.0[..])),
            Value::opt_int(version.parts.map(|parts| i64::from(parts.count))),
            Value::Int(-version.origin.0),
        ],
    )?;
    Ok(())
}

/// Removes a version and lets the next older one show, when that is an upload.
pub(crate) fn delete_version(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    version: &FileVersion,
) -> Result<(), Error> {
    let name = version.name.as_str();
    tx.execute("DELETE FROM files WHERE file_no = ?1", &[Value::Int(version.number.0)])?;
    if let Some(finished) = newest_finished(tx, bucket, name)?
        && finished.action == Action::Upload
    {
        set_head(tx, bucket, name, finished, true)?;
    }
    Ok(())
}

macro_rules! version_columns {
    ($rest:literal) => {
        concat!(
            "SELECT name, sort_upload, sort_origin, file_no, action, written_at_ms, size, ",
            "sha1_state, sha1, md5, content_type, info, blob_id, replication, parts_md5, ",
            "part_count, retention_mode, retain_until_ms, legal_hold, sse, sse_key_check ",
            "FROM files ",
            $rest
        )
    };
}

fn md5(bytes: Option<&[u8]>) -> Result<Option<Md5Digest>, Error> {
    bytes
        .map(|bytes| Md5Digest::from_slice(bytes).ok_or(Error::Unreadable { what: "MD5" }))
        .transpose()
}

fn version(row: &dyn Row, bucket: BucketId) -> Result<FileVersion, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let sha1 = || Sha1Digest::from_slice(row.bytes(8)?).ok_or(unreadable("SHA-1"));
    let parts = match (md5(row.opt_bytes(14)?)?, row.opt_int(15)?) {
        (Some(md5), Some(count)) => {
            let count = u32::try_from(count).map_err(|_| unreadable("number of parts"))?;
            Some(PartsDigest { md5, count })
        }
        _ => None,
    };
    Ok(FileVersion {
        bucket,
        name: FileName::stored(row.text(0)?.to_owned()),
        upload_at: Millis(-row.int(1)?),
        origin: FileNumber(-row.int(2)?),
        number: FileNumber(row.int(3)?),
        action: action(row.int(4)?)?,
        written_at: Millis(row.int(5)?),
        size: u64::try_from(row.int(6)?).map_err(|_| unreadable("size"))?,
        sha1: match row.int(7)? {
            0 => ContentSha1::None,
            1 => ContentSha1::Verified(sha1()?),
            2 => ContentSha1::Unverified(sha1()?),
            _ => return Err(unreadable("SHA-1 state")),
        },
        md5: md5(row.opt_bytes(9)?)?,
        parts,
        content_type: row.text(10)?.to_owned(),
        info: FileInfo::stored(row.text(11)?.to_owned()),
        blob: row.opt_int(12)?.map(BlobId),
        replication: status(row.int(13)?)?,
        lock: lock(row, 16, 18),
        encryption: encryption(row.int(19)?, row.opt_bytes(20)?)?,
    })
}

/// The version with this number, when it is in this bucket.
pub(crate) fn find_by_number(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    number: FileNumber,
) -> Result<Option<FileVersion>, Error> {
    find(
        tx,
        version_columns!("WHERE file_no = ?1 AND bucket_no = ?2"),
        &[Value::Int(number.0), Value::Int(bucket.0.0)],
        |row| version(row, bucket.1),
    )
}

/// The version that a name shows: its newest finished one, when that is an upload.
pub(crate) fn find_head(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    name: &str,
) -> Result<Option<FileVersion>, Error> {
    let newest = find_newest(tx, bucket, name)?;
    Ok(newest.filter(|version| version.action == Action::Upload))
}

/// The newest finished version of a name, a hide marker perhaps.
pub(crate) fn find_newest(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    name: &str,
) -> Result<Option<FileVersion>, Error> {
    find(
        tx,
        version_columns!(
            "WHERE bucket_no = ?1 AND name = ?2 AND action <> 2
             ORDER BY sort_upload, sort_origin LIMIT 1"
        ),
        &[Value::Int(bucket.0.0), Value::Text(name)],
        |row| version(row, bucket.1),
    )
}

/// Notes how long the parts were that a large file was made of.
pub(crate) fn set_part_sizes(
    tx: &mut dyn Tx,
    number: FileNumber,
    sizes: &SizesOfParts,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE files SET part_sizes = ?2 WHERE file_no = ?1",
        &[Value::Int(number.0), Value::Text(&sizes.to_string())],
    )?;
    Ok(())
}

/// Notes the checksum of a file, or forgets it.
pub(crate) fn set_checksum(
    tx: &mut dyn Tx,
    number: FileNumber,
    checksum: Option<&KeptChecksum>,
) -> Result<(), Error> {
    let text = checksum.map(ToString::to_string);
    tx.execute(
        "UPDATE files SET checksum = ?2 WHERE file_no = ?1",
        &[Value::Int(number.0), Value::opt_text(text.as_deref())],
    )?;
    Ok(())
}

/// The checksum that was noted of a file.
pub(crate) fn find_checksum(
    tx: &mut dyn Tx,
    number: FileNumber,
) -> Result<Option<KeptChecksum>, Error> {
    let found = find(
        tx,
        "SELECT checksum FROM files WHERE file_no = ?1",
        &[Value::Int(number.0)],
        |row| match row.opt_text(0)? {
            None => Ok(None),
            Some(text) => {
                let unreadable = Error::Unreadable { what: "checksum of a file" };
                KeptChecksum::parse(text).map(Some).ok_or(unreadable)
            }
        },
    )?;
    Ok(found.flatten())
}

/// Notes of a whole copy what was noted of its source: the checksum, and how long the parts were.
pub(crate) fn take_facts(
    tx: &mut dyn Tx,
    source: FileNumber,
    copy: FileNumber,
) -> Result<(), Error> {
    if let Some(sizes) = find_part_sizes(tx, source)? {
        set_part_sizes(tx, copy, &sizes)?;
    }
    if let Some(checksum) = find_checksum(tx, source)? {
        set_checksum(tx, copy, Some(&checksum))?;
    }
    Ok(())
}

/// How long the parts were that a large file was made of; None where that was not noted.
pub(crate) fn find_part_sizes(
    tx: &mut dyn Tx,
    number: FileNumber,
) -> Result<Option<SizesOfParts>, Error> {
    let found = find(
        tx,
        "SELECT part_sizes FROM files WHERE file_no = ?1",
        &[Value::Int(number.0)],
        |row| match row.opt_text(0)? {
            None => Ok(None),
            Some(text) => SizesOfParts::parse(text)
                .map(Some)
                .ok_or(Error::Unreadable { what: "sizes of the parts of a file" }),
        },
    )?;
    Ok(found.flatten())
}

/// Walks the shown versions of names from `from` on, in byte order, until `each` answers false.
pub(crate) fn walk_heads(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    from: &str,
    each: &mut dyn FnMut(FileVersion) -> bool,
) -> Result<(), Error> {
    tx.query(
        version_columns!("WHERE bucket_no = ?1 AND name >= ?2 AND is_head = 1 ORDER BY name"),
        &[Value::Int(bucket.0.0), Value::Text(from)],
        &mut |row| Ok(each(version(row, bucket.1)?)),
    )
}

/// Where a walk over all versions begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the newest version of the first name that is `name` or greater.
    Name(String),
    /// At the version with this place, or where it would stand.
    Version { name: String, upload_at: Millis, origin: FileNumber },
}

/// Walks all versions from `start` on: names in byte order, newest version first, until `each`
/// answers false.
pub(crate) fn walk_versions(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    start: &Start,
    each: &mut dyn FnMut(FileVersion) -> bool,
) -> Result<(), Error> {
    match start {
        Start::Name(name) => tx.query(
            version_columns!(
                "WHERE bucket_no = ?1 AND name >= ?2 ORDER BY name, sort_upload, sort_origin"
            ),
            &[Value::Int(bucket.0.0), Value::Text(name)],
            &mut |row| Ok(each(version(row, bucket.1)?)),
        ),
        Start::Version { name, upload_at, origin } => tx.query(
            version_columns!(
                "WHERE bucket_no = ?1 AND (name, sort_upload, sort_origin) >= (?2, ?3, ?4)
                 ORDER BY name, sort_upload, sort_origin"
            ),
            &[
                Value::Int(bucket.0.0),
                Value::Text(name),
                Value::Int(-upload_at.0),
                Value::Int(-origin.0),
            ],
            &mut |row| Ok(each(version(row, bucket.1)?)),
        ),
    }
}

/// Where a walk over existing files has got to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScanCursor {
    pub(crate) name: String,
    pub(crate) upload_at: Millis,
    pub(crate) origin: FileNumber,
}

/// Versions after `cursor`: names in byte order, within a name the oldest first.
pub(crate) fn list_for_scan(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    cursor: Option<&ScanCursor>,
    limit: usize,
) -> Result<Vec<FileVersion>, Error> {
    let mut versions = Vec::new();
    let mut last_name = String::new();
    if let Some(cursor) = cursor {
        last_name.clone_from(&cursor.name);
        let after = (cursor.upload_at, cursor.origin);
        append_oldest_first(tx, bucket, &last_name, after, limit, &mut versions)?;
    }
    while versions.len() < limit {
        let next = find(
            tx,
            "SELECT name FROM files WHERE bucket_no = ?1 AND name > ?2 ORDER BY name LIMIT 1",
            &[Value::Int(bucket.0.0), Value::Text(&last_name)],
            |row| Ok(row.text(0)?.to_owned()),
        )?;
        let Some(name) = next else { break };
        let before_all = (Millis(i64::MIN + 1), FileNumber(0));
        append_oldest_first(tx, bucket, &name, before_all, limit, &mut versions)?;
        last_name = name;
    }
    Ok(versions)
}

fn append_oldest_first(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    name: &str,
    after: (Millis, FileNumber),
    limit: usize,
    versions: &mut Vec<FileVersion>,
) -> Result<(), Error> {
    let room = i64::try_from(limit.saturating_sub(versions.len())).unwrap_or(i64::MAX);
    versions.extend(collect(
        tx,
        version_columns!(
            "WHERE bucket_no = ?1 AND name = ?2 AND (sort_upload, sort_origin) < (?3, ?4)
             ORDER BY sort_upload DESC, sort_origin DESC LIMIT ?5"
        ),
        &[
            Value::Int(bucket.0.0),
            Value::Text(name),
            Value::Int(-after.0.0),
            Value::Int(-after.1.0),
            Value::Int(room),
        ],
        |row| version(row, bucket.1),
    )?);
    Ok(())
}

/// Whether a bucket holds any version at all.
pub(crate) fn has_versions(tx: &mut dyn Tx, bucket: BucketNumber) -> Result<bool, Error> {
    let found = find(
        tx,
        "SELECT file_no FROM files WHERE bucket_no = ?1 LIMIT 1",
        &[Value::Int(bucket.0)],
        |row| row.int(0),
    )?;
    Ok(found.is_some())
}

pub(crate) fn set_replication_status(
    tx: &mut dyn Tx,
    number: FileNumber,
    status: Option<ReplicationStatus>,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE files SET replication = ?2 WHERE file_no = ?1 AND replication <> 4",
        &[Value::Int(number.0), Value::Int(status_code(status))],
    )?;
    Ok(())
}

/// Changes the retention of a version and nothing else of it.
pub(crate) fn set_retention(
    tx: &mut dyn Tx,
    number: FileNumber,
    retention: Option<Retention>,
) -> Result<(), Error> {
    let (mode, until, _) = lock_codes(FileLock { retention, legal_hold: None });
    tx.execute(
        "UPDATE files SET retention_mode = ?2, retain_until_ms = ?3 WHERE file_no = ?1",
        &[Value::Int(number.0), Value::Int(mode), Value::opt_int(until)],
    )?;
    Ok(())
}

/// Changes the legal hold of a version and nothing else of it.
pub(crate) fn set_legal_hold(tx: &mut dyn Tx, number: FileNumber, hold: bool) -> Result<(), Error> {
    let (_, _, hold) = lock_codes(FileLock { retention: None, legal_hold: Some(hold) });
    tx.execute(
        "UPDATE files SET legal_hold = ?2 WHERE file_no = ?1",
        &[Value::Int(number.0), Value::Int(hold)],
    )?;
    Ok(())
}

/// Walks unfinished large files: names in byte order from `from` on, the oldest first within a
/// name, beginning with the one at `start` when given, until `each` answers false.
pub(crate) fn walk_unfinished(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    from: &str,
    start: Option<(Millis, FileNumber)>,
    each: &mut dyn FnMut(FileVersion) -> bool,
) -> Result<(), Error> {
    let mut goes_on = true;
    let (upload_at, origin) = start.unwrap_or((Millis(i64::MIN + 1), FileNumber(i64::MIN + 1)));
    tx.query(
        version_columns!(
            "WHERE bucket_no = ?1 AND action = 2 AND name = ?2
               AND (sort_upload, sort_origin) <= (?3, ?4)
             ORDER BY sort_upload DESC, sort_origin DESC"
        ),
        &[
            Value::Int(bucket.0.0),
            Value::Text(from),
            Value::Int(-upload_at.0),
            Value::Int(-origin.0),
        ],
        &mut |row| {
            goes_on = each(version(row, bucket.1)?);
            Ok(goes_on)
        },
    )?;
    if !goes_on {
        return Ok(());
    }
    tx.query(
        version_columns!(
            "WHERE bucket_no = ?1 AND action = 2 AND name > ?2
             ORDER BY name, sort_upload DESC, sort_origin DESC"
        ),
        &[Value::Int(bucket.0.0), Value::Text(from)],
        &mut |row| Ok(each(version(row, bucket.1)?)),
    )
}

/// A version as far as lifecycle rules look at it, and names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) upload_at: Millis,
    pub(crate) origin: FileNumber,
    pub(crate) number: FileNumber,
    pub(crate) action: Action,
    pub(crate) written_at: Millis,
    pub(crate) size: u64,
    /// What cannot be read counts as locked.
    pub(crate) lock: FileLock,
}

/// Walks the versions behind the given place: names in byte order, newest version first, until
/// `each` answers false. Reads little of each, and goes on where a lock is unreadable.
pub(crate) fn walk_seen(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    behind: (&str, Millis, FileNumber),
    each: &mut dyn FnMut(Seen) -> bool,
) -> Result<(), Error> {
    let (name, upload_at, origin) = behind;
    tx.query(
        "SELECT name, sort_upload, sort_origin, file_no, action, written_at_ms, size,
                retention_mode, retain_until_ms, legal_hold
           FROM files
          WHERE bucket_no = ?1 AND (name, sort_upload, sort_origin) > (?2, ?3, ?4)
          ORDER BY name, sort_upload, sort_origin",
        &[Value::Int(bucket.0), Value::Text(name), Value::Int(-upload_at.0), Value::Int(-origin.0)],
        &mut |row| {
            Ok(each(Seen {
                name: row.text(0)?.to_owned(),
                upload_at: Millis(-row.int(1)?),
                origin: FileNumber(-row.int(2)?),
                number: FileNumber(row.int(3)?),
                action: action(row.int(4)?)?,
                written_at: Millis(row.int(5)?),
                size: u64::try_from(row.int(6)?).map_err(|_| Error::Unreadable { what: "size" })?,
                lock: lock(row, 7, 9),
            }))
        },
    )
}

/// When the next newer finished version of the same name was made; None for the newest.
pub(crate) fn hidden_since(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    version: &FileVersion,
) -> Result<Option<Millis>, Error> {
    find(
        tx,
        "SELECT sort_upload FROM files
          WHERE bucket_no = ?1 AND name = ?2 AND (sort_upload, sort_origin) < (?3, ?4)
            AND action <> 2
          ORDER BY sort_upload DESC, sort_origin DESC LIMIT 1",
        &[
            Value::Int(bucket.0),
            Value::Text(version.name.as_str()),
            Value::Int(-version.upload_at.0),
            Value::Int(-version.origin.0),
        ],
        |row| Ok(Millis(-row.int(0)?)),
    )
}

/// Whether a version is the only one of its name, unfinished large files counted.
pub(crate) fn is_alone(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    version: &FileVersion,
) -> Result<bool, Error> {
    let other = find(
        tx,
        "SELECT file_no FROM files WHERE bucket_no = ?1 AND name = ?2 AND file_no <> ?3 LIMIT 1",
        &[Value::Int(bucket.0), Value::Text(version.name.as_str()), Value::Int(version.number.0)],
        |row| row.int(0),
    )?;
    Ok(other.is_none())
}

/// Writes what can be read as no lock into the row of a version, as damage would.
#[cfg(test)]
pub(crate) fn spoil_lock(tx: &mut dyn Tx, number: FileNumber) -> Result<(), Error> {
    tx.execute(
        "UPDATE files SET retention_mode = 1, retain_until_ms = 'soon' WHERE file_no = ?1",
        &[Value::Int(number.0)],
    )?;
    Ok(())
}
