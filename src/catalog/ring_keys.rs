//! Rows of the keys of the key ring, and which blobs are wrapped with each.

use crate::catalog::tx::{Error, Tx, Value, collect, find};
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

/// Lets blobs be wrapped with a key that is in the file of the ring.
pub(crate) fn insert_ring_key(tx: &mut dyn Tx, key: &RingKeyRow) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO ring_keys (key_no, made_at_ms, fingerprint) VALUES (?1, ?2, ?3)
         ON CONFLICT (key_no) DO NOTHING",
        &[Value::Int(key.number), Value::Int(key.made_at.0), Value::Bytes(&key.fingerprint)],
    )?;
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
