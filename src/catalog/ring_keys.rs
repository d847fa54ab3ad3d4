//! Rows of the keys of the key ring, and which blobs are wrapped with each.

use crate::catalog::tx::{Error, Tx, Value, collect, find};
use crate::domain::ids::BlobId;
use crate::domain::time::Millis;

/// A key of the ring as the catalog knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RingKeyRow {
    pub(crate) number: i64,
    pub(crate) made_at: Millis,
    pub(crate) fingerprint: Vec<u8>,
}

/// The keys that blobs may be wrapped with, oldest first.
pub(crate) fn list_ring_keys(tx: &mut dyn Tx) -> Result<Vec<RingKeyRow>, Error> {
    collect(
        tx,
        "SELECT key_no, made_at_ms, fingerprint FROM ring_keys ORDER BY key_no",
        &[],
        |row| {
            Ok(RingKeyRow {
                number: row.int(0)?,
                made_at: Millis(row.int(1)?),
                fingerprint: row.bytes(2)?.to_vec(),
            })
        },
    )
}

/// The largest number that a key was ever noted with; 0 before the first.
pub(crate) fn newest_ring_key(tx: &mut dyn Tx) -> Result<i64, Error> {
    let sql = "SELECT key_no FROM ring_keys ORDER BY key_no DESC LIMIT 1";
    Ok(find(tx, sql, &[], |row| row.int(0))?.unwrap_or_default())
}

/// Lets blobs be wrapped with a key that is in the file of the ring. [`Error::Conflict`] when its
/// number is that of another key.
pub(crate) fn insert_ring_key(tx: &mut dyn Tx, key: &RingKeyRow) -> Result<(), Error> {
    let sql = "SELECT fingerprint FROM ring_keys WHERE key_no = ?1";
    let noted = find(tx, sql, &[Value::Int(key.number)], |row| Ok(row.bytes(0)?.to_vec()))?;
    if noted.as_ref() == Some(&key.fingerprint) {
        return Ok(());
    }
    tx.execute(
        "INSERT INTO ring_keys (key_no, made_at_ms, fingerprint) VALUES (?1, ?2, ?3)",
        &[Value::Int(key.number), Value::Int(key.made_at.0), Value::Bytes(&key.fingerprint)],
    )?;
    Ok(())
}

/// From now on no blob can be wrapped with that key.
pub(crate) fn delete_ring_key(tx: &mut dyn Tx, number: i64) -> Result<(), Error> {
    tx.execute("DELETE FROM ring_keys WHERE key_no = ?1", &[Value::Int(number)])?;
    Ok(())
}

/// Whether blobs may be wrapped with that key.
pub(crate) fn is_ring_key(tx: &mut dyn Tx, number: i64) -> Result<bool, Error> {
    let sql = "SELECT key_no FROM ring_keys WHERE key_no = ?1";
    Ok(find(tx, sql, &[Value::Int(number)], |row| row.int(0))?.is_some())
}

/// Whether any blob is wrapped with that key.
pub(crate) fn is_in_use(tx: &mut dyn Tx, number: i64) -> Result<bool, Error> {
    let sql = "SELECT blob_id FROM blobs WHERE ring_key = ?1 LIMIT 1";
    Ok(find(tx, sql, &[Value::Int(number)], |row| row.int(0))?.is_some())
}

/// The first key that blobs are wrapped with and that no row tells of; None as long as the catalog
/// is whole.
pub(crate) fn find_unlisted(tx: &mut dyn Tx) -> Result<Option<i64>, Error> {
    let sql = "SELECT ring_key FROM blobs WHERE ring_key > ?1 ORDER BY ring_key LIMIT 1";
    let mut after = 0;
    while let Some(number) = find(tx, sql, &[Value::Int(after)], |row| row.int(0))? {
        if !is_ring_key(tx, number)? {
            return Ok(Some(number));
        }
        after = number;
    }
    Ok(None)
}

/// How many blobs are wrapped with each key that wraps any.
pub(crate) fn count_blobs(tx: &mut dyn Tx) -> Result<Vec<(i64, i64)>, Error> {
    collect(
        tx,
        "SELECT ring_key, CAST(COUNT(*) AS BIGINT) FROM blobs
          WHERE ring_key IS NOT NULL GROUP BY ring_key ORDER BY ring_key",
        &[],
        |row| Ok((row.int(0)?, row.int(1)?)),
    )
}

/// The wrapped key of a blob. Ordered by the key it is wrapped with, then by blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrappedKey {
    pub(crate) ring_key: i64,
    pub(crate) blob: BlobId,
    pub(crate) wrapped: Vec<u8>,
}

/// At most `limit` wrapped keys after a place in their order whose ring key is older than `current`.
pub(crate) fn list_outdated(
    tx: &mut dyn Tx,
    current: i64,
    (ring_key, blob): (i64, BlobId),
    limit: i64,
) -> Result<Vec<WrappedKey>, Error> {
    collect(
        tx,
        "SELECT ring_key, blob_id, sealed_key FROM blobs
          WHERE ring_key >= ?2 AND ring_key < ?1 AND (ring_key > ?2 OR blob_id > ?3)
          ORDER BY ring_key, blob_id LIMIT ?4",
        &[Value::Int(current), Value::Int(ring_key), Value::Int(blob.0), Value::Int(limit)],
        |row| {
            Ok(WrappedKey {
                ring_key: row.int(0)?,
                blob: BlobId(row.int(1)?),
                wrapped: row.bytes(2)?.to_vec(),
            })
        },
    )
}

/// Puts the key of a blob, wrapped anew, in the place of `old`; false when that is not there any
/// more, or when nothing may be wrapped with the new key any more.
pub(crate) fn replace_wrapped(
    tx: &mut dyn Tx,
    old: &WrappedKey,
    new: &WrappedKey,
) -> Result<bool, Error> {
    let replaced = tx.execute(
        "UPDATE blobs SET sealed_key = ?3, ring_key = ?4
          WHERE blob_id = ?1 AND ring_key = ?2 AND sealed_key = ?5
            AND EXISTS (SELECT 1 FROM ring_keys WHERE key_no = ?4)",
        &[
            Value::Int(old.blob.0),
            Value::Int(old.ring_key),
            Value::Bytes(&new.wrapped),
            Value::Int(new.ring_key),
            Value::Bytes(&old.wrapped),
        ],
    )?;
    Ok(replaced > 0)
}
