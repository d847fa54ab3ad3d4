//! Rows of replicas that peers send: where each comes from and what it has been through, and those
//! that come bit by bit.

use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::{BucketId, FileNumber};
use crate::domain::time::Steady;

/// Where a replica comes from. Whoever passes it on says the same origin, and adds itself to the hops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    /// The version it is a copy of: `<instance>.<file id>`.
    pub(crate) origin: String,
    /// Servers it has been through, with commas between them.
    pub(crate) hops: String,
}

/// Remembers where a version comes from.
pub(crate) fn insert_trail(tx: &mut dyn Tx, file: FileNumber, trail: &Trail) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO replica_hops (file_no, origin, hops) VALUES (?1, ?2, ?3)",
        &[Value::Int(file.0), Value::Text(&trail.origin), Value::Text(&trail.hops)],
    )?;
    Ok(())
}

/// Where a version comes from; None when no peer sent it.
pub(crate) fn find_trail(tx: &mut dyn Tx, file: FileNumber) -> Result<Option<Trail>, Error> {
    find(
        tx,
        "SELECT origin, hops FROM replica_hops WHERE file_no = ?1",
        &[Value::Int(file.0)],
        |row| Ok(Trail { origin: row.text(0)?.to_owned(), hops: row.text(1)?.to_owned() }),
    )
}

/// Forgets where a version comes from that is going, and that its bucket has its origin: sent again,
/// it would be stored again.
pub(crate) fn forget_trail(
    tx: &mut dyn Tx,
    file: FileNumber,
    bucket: BucketId,
    file_id: &str,
) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM replication_origins
          WHERE dest_bucket_id = ?1 AND dest_file_id = ?3
            AND origin = (SELECT origin FROM replica_hops WHERE file_no = ?2)",
        &[Value::Text(&bucket.to_string()), Value::Int(file.0), Value::Text(file_id)],
    )?;
    tx.execute("DELETE FROM replica_hops WHERE file_no = ?1", &[Value::Int(file.0)])?;
    tx.execute("DELETE FROM replica_sessions WHERE file_no = ?1", &[Value::Int(file.0)])?;
    Ok(())
}

/// Remembers that a bucket has the copy of an origin. An earlier copy is forgotten.
pub(crate) fn put_origin(
    tx: &mut dyn Tx,
    bucket: BucketId,
    origin: &str,
    file_id: &str,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO replication_origins (dest_bucket_id, origin, dest_file_id)
         VALUES (?1, ?2, ?3)
         ON CONFLICT (dest_bucket_id, origin) DO UPDATE SET dest_file_id = excluded.dest_file_id",
        &[Value::Text(&bucket.to_string()), Value::Text(origin), Value::Text(file_id)],
    )?;
    Ok(())
}

/// A file of one piece that comes bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) file: FileNumber,
    pub(crate) bucket: BucketId,
    /// Of the whole file.
    pub(crate) size: u64,
    /// Of each part but the last.
    pub(crate) part_bytes: u64,
}

fn session(row: &dyn Row) -> Result<Session, Error> {
    let unreadable = Error::Unreadable { what: "session of a replica" };
    let bytes = |column| -> Result<u64, Error> {
        u64::try_from(row.int(column)?).map_err(|_| unreadable.clone())
    };
    Ok(Session {
        file: FileNumber(row.int(0)?),
        bucket: BucketId::parse(row.text(1)?).ok_or(unreadable.clone())?,
        size: bytes(2)?,
        part_bytes: bytes(3)?,
    })
}

pub(crate) fn insert_session(tx: &mut dyn Tx, session: &Session, now: Steady) -> Result<(), Error> {
    let signed = |bytes: u64| Value::Int(i64::try_from(bytes).unwrap_or(i64::MAX));
    tx.execute(
        "INSERT INTO replica_sessions (file_no, bucket_id, size, part_bytes, used_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5)",
        &[
            Value::Int(session.file.0),
            Value::Text(&session.bucket.to_string()),
            signed(session.size),
            signed(session.part_bytes),
            Value::Int(now.0),
        ],
    )?;
    Ok(())
}

pub(crate) fn find_session(tx: &mut dyn Tx, file: FileNumber) -> Result<Option<Session>, Error> {
    find(
        tx,
        "SELECT file_no, bucket_id, size, part_bytes FROM replica_sessions WHERE file_no = ?1",
        &[Value::Int(file.0)],
        session,
    )
}

/// Notes that a session got on.
pub(crate) fn touch_session(tx: &mut dyn Tx, file: FileNumber, now: Steady) -> Result<(), Error> {
    tx.execute(
        "UPDATE replica_sessions SET used_at_ms = ?2 WHERE file_no = ?1",
        &[Value::Int(file.0), Value::Int(now.0)],
    )?;
    Ok(())
}

/// Forgets a session whose file is complete.
pub(crate) fn end_session(tx: &mut dyn Tx, file: FileNumber) -> Result<(), Error> {
    tx.execute("DELETE FROM replica_sessions WHERE file_no = ?1", &[Value::Int(file.0)])?;
    Ok(())
}

/// Sessions that got on last at or before `until`, the longest idle first.
pub(crate) fn idle_sessions(
    tx: &mut dyn Tx,
    until: Steady,
    limit: i64,
) -> Result<Vec<Session>, Error> {
    collect(
        tx,
        "SELECT file_no, bucket_id, size, part_bytes FROM replica_sessions
          WHERE used_at_ms <= ?1 ORDER BY used_at_ms LIMIT ?2",
        &[Value::Int(until.0), Value::Int(limit)],
        session,
    )
}
