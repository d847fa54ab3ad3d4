//! Rows of blobs: how many versions show each, where its bytes are, and small bodies themselves.

use bytes::Bytes;

use crate::catalog::tx::{Error, Tx, Value, collect, find};
use crate::domain::blob::Placement;
use crate::domain::digest::BlockChecks;
use crate::domain::ids::BlobId;
use crate::domain::time::Millis;

/// A blob that a version is about to show.
#[derive(Clone, Debug)]
pub(crate) struct NewBlob {
    pub(crate) id: BlobId,
    pub(crate) size: u64,
    pub(crate) checks: BlockChecks,
    pub(crate) placement: Placement,
}

/// What is needed to read a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBlob {
    pub(crate) id: BlobId,
    pub(crate) size: u64,
    pub(crate) checks: BlockChecks,
    /// The bytes themselves when they are kept in the catalog.
    pub(crate) inline: Option<Bytes>,
}

fn signed(size: u64) -> Result<i64, Error> {
    i64::try_from(size).map_err(|_| Error::Unreadable { what: "size" })
}

/// Stores a blob that one version shows.
pub(crate) fn insert_blob(tx: &mut dyn Tx, blob: &NewBlob) -> Result<(), Error> {
    let place = match &blob.placement {
        Placement::Inline(_) => 0,
        Placement::Stored => 1,
    };
    tx.execute(
        "INSERT INTO blobs (blob_id, refs, size, place, checks) VALUES (?1, 1, ?2, ?3, ?4)",
        &[
            Value::Int(blob.id.0),
            Value::Int(signed(blob.size)?),
            Value::Int(place),
            Value::Bytes(&blob.checks.0),
        ],
    )?;
    if let Placement::Inline(data) = &blob.placement {
        tx.execute(
            "INSERT INTO blob_data (blob_id, data) VALUES (?1, ?2)",
            &[Value::Int(blob.id.0), Value::Bytes(data)],
        )?;
    }
    Ok(())
}

/// Counts one more version that shows the blob; false when the blob is gone or going.
pub(crate) fn hold(tx: &mut dyn Tx, id: BlobId) -> Result<bool, Error> {
    let held = tx.execute(
        "UPDATE blobs SET refs = refs + 1 WHERE blob_id = ?1 AND refs > 0",
        &[Value::Int(id.0)],
    )?;
    Ok(held > 0)
}

/// Counts one version less. The last one leaves the bytes to the sweep.
pub(crate) fn release(tx: &mut dyn Tx, id: BlobId, now: Millis) -> Result<(), Error> {
    tx.execute(
        "UPDATE blobs SET refs = refs - 1,
                          freed_at_ms = CASE WHEN refs = 1 THEN CAST(?2 AS BIGINT) ELSE NULL END
          WHERE blob_id = ?1",
        &[Value::Int(id.0), Value::Int(now.0)],
    )?;
    Ok(())
}

pub(crate) fn find_blob(tx: &mut dyn Tx, id: BlobId) -> Result<Option<StoredBlob>, Error> {
    find(
        tx,
        "SELECT b.size, b.checks, b.place, d.data
           FROM blobs b LEFT JOIN blob_data d ON d.blob_id = b.blob_id
          WHERE b.blob_id = ?1",
        &[Value::Int(id.0)],
        |row| {
            let inline =
                if row.int(2)? == 0 { Some(Bytes::copy_from_slice(row.bytes(3)?)) } else { None };
            Ok(StoredBlob {
                id,
                size: u64::try_from(row.int(0)?)
                    .map_err(|_| Error::Unreadable { what: "blob size" })?,
                checks: BlockChecks(row.bytes(1)?.to_vec()),
                inline,
            })
        },
    )
}

/// A blob that nothing shows any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FreedBlob {
    pub(crate) id: BlobId,
    /// Whether its bytes are in the blob store rather than in the catalog.
    pub(crate) in_store: bool,
}

/// Blobs freed at or before `until`, oldest first.
pub(crate) fn list_freed(
    tx: &mut dyn Tx,
    until: Millis,
    limit: i64,
) -> Result<Vec<FreedBlob>, Error> {
    collect(
        tx,
        "SELECT blob_id, place FROM blobs
          WHERE freed_at_ms IS NOT NULL AND freed_at_ms <= ?1
          ORDER BY freed_at_ms LIMIT ?2",
        &[Value::Int(until.0), Value::Int(limit)],
        |row| Ok(FreedBlob { id: BlobId(row.int(0)?), in_store: row.flag(1)? }),
    )
}

/// Forgets a blob whose bytes in the store, if any, are removed.
pub(crate) fn forget(tx: &mut dyn Tx, id: BlobId) -> Result<(), Error> {
    tx.execute("DELETE FROM blob_data WHERE blob_id = ?1", &[Value::Int(id.0)])?;
    tx.execute("DELETE FROM blobs WHERE blob_id = ?1 AND refs = 0", &[Value::Int(id.0)])?;
    Ok(())
}

/// Whether the catalog knows the blob at all.
pub(crate) fn is_known(tx: &mut dyn Tx, id: BlobId) -> Result<bool, Error> {
    let found =
        find(tx, "SELECT refs FROM blobs WHERE blob_id = ?1", &[Value::Int(id.0)], |row| {
            row.int(0)
        })?;
    Ok(found.is_some())
}

/// The largest blob id in use.
pub(crate) fn largest_id(tx: &mut dyn Tx) -> Result<i64, Error> {
    let largest = find(tx, "SELECT COALESCE(MAX(blob_id), 0) FROM blobs", &[], |row| row.int(0))?;
    Ok(largest.unwrap_or_default())
}
