//! Rows of file versions.
//!
//! The key of the table keeps the versions of a name together, newest first. `is_head` marks the
//! newest version of a name when it is an upload; the verbs here keep it so, and listings of names
//! read nothing else.

use crate::catalog::server_facts;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::bucket::BucketNumber;
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::file::{Action, ContentSha1, FileInfo, FileVersion};
use crate::domain::ids::{BlobId, BucketId, FileNumber};
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
}

fn action_code(action: Action) -> i64 {
    match action {
        Action::Upload => 0,
        Action::Hide => 1,
    }
}

fn action(code: i64) -> Result<Action, Error> {
    match code {
        0 => Ok(Action::Upload),
        1 => Ok(Action::Hide),
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

/// The newest version of a name, of whatever kind.
pub(crate) fn newest(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    name: &str,
) -> Result<Option<Place>, Error> {
    find(
        tx,
        "SELECT sort_upload, sort_origin, action FROM files
          WHERE bucket_no = ?1 AND name = ?2 ORDER BY sort_upload, sort_origin LIMIT 1",
        &[Value::Int(bucket.0), Value::Text(name)],
        |row| {
            Ok(Place {
                upload_at: Millis(-row.int(0)?),
                origin: FileNumber(-row.int(1)?),
                action: action(row.int(2)?)?,
            })
        },
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

/// Stores a version. `newest` is what [`newest`] answered in the same transaction.
pub(crate) fn insert_version(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    version: &FileVersion,
    newest: Option<Place>,
) -> Result<(), Error> {
    let place =
        Place { upload_at: version.upload_at, origin: version.origin, action: version.action };
    let becomes_newest = newest.is_none_or(|newest| place.is_newer_than(newest));
    if let Some(newest) = newest
        && becomes_newest
        && newest.action == Action::Upload
    {
        set_head(tx, bucket, version.name.as_str(), newest, false)?;
    }
    let is_head = becomes_newest && version.action == Action::Upload;
    let sha1_state = match version.sha1 {
        ContentSha1::Verified(_) => 1,
        ContentSha1::Unverified(_) => 2,
    };
    tx.execute(
        "INSERT INTO files (bucket_no, name, sort_upload, sort_origin, file_no, action, is_head,
                            written_at_ms, size, sha1_state, sha1, md5, content_type, info,
                            blob_id, replication)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        &[
            Value::Int(bucket.0),
            Value::Text(version.name.as_str()),
            Value::Int(-version.upload_at.0),
            Value::Int(-version.origin.0),
            Value::Int(version.number.0),
            Value::Int(action_code(version.action)),
            Value::Int(i64::from(is_head)),
            Value::Int(version.written_at.0),
            Value::Int(
                i64::try_from(version.size).map_err(|_| Error::Unreadable { what: "size" })?,
            ),
            Value::Int(sha1_state),
            Value::Bytes(&version.sha1.digest().0),
            Value::Bytes(&version.md5.0),
            Value::Text(&version.content_type),
            Value::Text(version.info.as_json()),
            Value::opt_int(version.blob.map(|blob| blob.0)),
            Value::Int(status_code(version.replication)),
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
    if version.number.0 >= largest_number(tx)? {
        // The row that kept its number from coming again is about to go.
        server_facts::put_fact(tx, LARGEST_DELETED, version.number.0.to_string().as_bytes())?;
    }
    tx.execute("DELETE FROM files WHERE file_no = ?1", &[Value::Int(version.number.0)])?;
    if let Some(newest) = newest(tx, bucket, name)?
        && newest.action == Action::Upload
    {
        set_head(tx, bucket, name, newest, true)?;
    }
    Ok(())
}

macro_rules! version_columns {
    ($rest:literal) => {
        concat!(
            "SELECT name, sort_upload, sort_origin, file_no, action, written_at_ms, size, ",
            "sha1_state, sha1, md5, content_type, info, blob_id, replication FROM files ",
            $rest
        )
    };
}

fn version(row: &dyn Row, bucket: BucketId) -> Result<FileVersion, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let sha1 = Sha1Digest::from_slice(row.bytes(8)?).ok_or(unreadable("SHA-1"))?;
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
            1 => ContentSha1::Verified(sha1),
            2 => ContentSha1::Unverified(sha1),
            _ => return Err(unreadable("SHA-1 state")),
        },
        md5: Md5Digest::from_slice(row.bytes(9)?).ok_or(unreadable("MD5"))?,
        content_type: row.text(10)?.to_owned(),
        info: FileInfo::stored(row.text(11)?.to_owned()),
        blob: row.opt_int(12)?.map(BlobId),
        replication: status(row.int(13)?)?,
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

/// The version that a name shows: its newest, when that is an upload.
pub(crate) fn find_head(
    tx: &mut dyn Tx,
    bucket: (BucketNumber, BucketId),
    name: &str,
) -> Result<Option<FileVersion>, Error> {
    let newest = find(
        tx,
        version_columns!(
            "WHERE bucket_no = ?1 AND name = ?2 ORDER BY sort_upload, sort_origin LIMIT 1"
        ),
        &[Value::Int(bucket.0.0), Value::Text(name)],
        |row| version(row, bucket.1),
    )?;
    Ok(newest.filter(|version| version.action == Action::Upload))
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

/// The fact that keeps the largest number of a version that was the newest when it was deleted.
const LARGEST_DELETED: &str = "largest_deleted_file_number";

/// The largest file number that was ever committed.
pub(crate) fn largest_number(tx: &mut dyn Tx) -> Result<i64, Error> {
    let largest = find(tx, "SELECT COALESCE(MAX(file_no), 0) FROM files", &[], |row| row.int(0))?;
    let deleted = server_facts::find_fact(tx, LARGEST_DELETED)?;
    let deleted = deleted.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
    Ok(largest.unwrap_or_default().max(deleted.unwrap_or_default()))
}
