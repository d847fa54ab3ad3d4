//! Rows of blobs: how many versions and parts show each, where its bytes are, and small bodies
//! themselves. A blob may be made of pieces of others; those count it as one that shows them.

use bytes::Bytes;

use crate::catalog::ring_keys;
use crate::catalog::tx::{Error, Tx, Value, collect, find};
use crate::domain::blob::{Piece, Placement, Seal};
use crate::domain::digest::BlockChecks;
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;
use crate::domain::time::Millis;

/// A blob that a version or a part is about to show.
#[derive(Clone, Debug)]
pub(crate) struct NewBlob {
    pub(crate) id: BlobId,
    pub(crate) size: u64,
    pub(crate) checks: BlockChecks,
    pub(crate) placement: Placement,
    pub(crate) seal: Seal,
}

impl NewBlob {
    /// The id, when its bytes are in the blob store.
    pub(crate) fn stored_id(&self) -> Option<BlobId> {
        (self.placement == Placement::Stored).then_some(self.id)
    }
}

/// What is needed to read a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoredBlob {
    pub(crate) id: BlobId,
    pub(crate) size: u64,
    pub(crate) checks: BlockChecks,
    pub(crate) place: Place,
    pub(crate) seal: Seal,
}

/// Where the bytes of a blob are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the catalog: here they are.
    Inline(Bytes),
    Store,
    /// In other blobs; [`pieces`] tells which.
    Pieces,
}

/// A piece with its place in the blob that it is a piece of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedPiece {
    pub(crate) start_at: u64,
    pub(crate) piece: Piece,
}

fn signed(size: u64) -> Result<i64, Error> {
    i64::try_from(size).map_err(|_| Error::Unreadable { what: "size" })
}

fn unsigned(size: i64) -> Result<u64, Error> {
    u64::try_from(size).map_err(|_| Error::Unreadable { what: "size" })
}

/// Codes of the columns `seal`, `sealed_key` and `ring_key`.
fn seal_columns(seal: &Seal) -> (i64, Value<'_>, Value<'_>) {
    match seal {
        Seal::Plain => (0, Value::Null, Value::Null),
        Seal::Managed { ring_key, wrapped } => (1, Value::Bytes(wrapped), Value::Int(*ring_key)),
        Seal::Customer(wrapped) => (2, Value::Bytes(wrapped), Value::Null),
    }
}

fn seal(code: i64, key: Option<&[u8]>, ring_key: Option<i64>) -> Result<Seal, Error> {
    match (code, key, ring_key) {
        (0, None, None) => Ok(Seal::Plain),
        (1, Some(key), Some(ring_key)) => Ok(Seal::Managed { ring_key, wrapped: key.to_vec() }),
        (2, Some(key), None) => Ok(Seal::Customer(key.to_vec())),
        _ => Err(Error::Unreadable { what: "seal of a blob" }),
    }
}

/// Stores a blob that one version or part shows. [`Error::RingKeyRetired`] when its data key is
/// wrapped with a key that was retired since.
pub(crate) fn insert_blob(tx: &mut dyn Tx, blob: &NewBlob) -> Result<(), Error> {
    if let Seal::Managed { ring_key, .. } = &blob.seal
        && !ring_keys::is_ring_key(tx, *ring_key)?
    {
        return Err(Error::RingKeyRetired(*ring_key));
    }
    let place = match &blob.placement {
        Placement::Inline(_) => 0,
        Placement::Stored => 1,
    };
    let (seal, sealed_key, ring_key) = seal_columns(&blob.seal);
    tx.execute(
        "INSERT INTO blobs (blob_id, refs, size, place, checks, seal, sealed_key, ring_key)
         VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7)",
        &[
            Value::Int(blob.id.0),
            Value::Int(signed(blob.size)?),
            Value::Int(place),
            Value::Bytes(&blob.checks.0),
            Value::Int(seal),
            sealed_key,
            ring_key,
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

/// Stores a blob made of pieces that one version or part shows. Each piece must have been counted
/// once for it, by [`hold`] or by taking over a count that somebody else gives up.
pub(crate) fn insert_pieces(
    tx: &mut dyn Tx,
    id: BlobId,
    pieces: &mut dyn Iterator<Item = Piece>,
) -> Result<u64, Error> {
    let mut size = 0_u64;
    for piece in pieces {
        tx.execute(
            "INSERT INTO blob_pieces (blob_id, start_at, size, piece_id, piece_start)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            &[
                Value::Int(id.0),
                Value::Int(signed(size)?),
                Value::Int(signed(piece.size)?),
                Value::Int(piece.blob.0),
                Value::Int(signed(piece.start)?),
            ],
        )?;
        size = size.saturating_add(piece.size);
    }
    tx.execute(
        "INSERT INTO blobs (blob_id, refs, size, place, checks, seal)
         VALUES (?1, 1, ?2, 2, ?3, 0)",
        &[Value::Int(id.0), Value::Int(signed(size)?), Value::Bytes(&[])],
    )?;
    Ok(size)
}

/// At most `limit` pieces of a blob that hold bytes of `range`, in order.
pub(crate) fn pieces(
    tx: &mut dyn Tx,
    id: BlobId,
    range: ByteRange,
    limit: i64,
) -> Result<Vec<PlacedPiece>, Error> {
    collect(
        tx,
        "SELECT start_at, size, piece_id, piece_start FROM blob_pieces
          WHERE blob_id = ?1 AND start_at < ?3
            AND start_at >= (SELECT COALESCE(MAX(start_at), 0) FROM blob_pieces
                              WHERE blob_id = ?1 AND start_at <= ?2)
          ORDER BY start_at LIMIT ?4",
        &[
            Value::Int(id.0),
            Value::Int(signed(range.start)?),
            Value::Int(signed(range.end)?),
            Value::Int(limit),
        ],
        |row| {
            Ok(PlacedPiece {
                start_at: unsigned(row.int(0)?)?,
                piece: Piece {
                    size: unsigned(row.int(1)?)?,
                    blob: BlobId(row.int(2)?),
                    start: unsigned(row.int(3)?)?,
                },
            })
        },
    )
}

/// Forgets what a blob was made of without counting its pieces down: their counts have been taken
/// over.
pub(crate) fn dissolve(tx: &mut dyn Tx, id: BlobId) -> Result<(), Error> {
    tx.execute("DELETE FROM blob_pieces WHERE blob_id = ?1", &[Value::Int(id.0)])?;
    tx.execute("DELETE FROM blobs WHERE blob_id = ?1", &[Value::Int(id.0)])?;
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
        "SELECT b.size, b.checks, b.place, d.data, b.seal, b.sealed_key, b.ring_key
           FROM blobs b LEFT JOIN blob_data d ON d.blob_id = b.blob_id
          WHERE b.blob_id = ?1",
        &[Value::Int(id.0)],
        |row| {
            Ok(StoredBlob {
                id,
                size: unsigned(row.int(0)?)?,
                checks: BlockChecks(row.bytes(1)?.to_vec()),
                place: match row.int(2)? {
                    0 => Place::Inline(Bytes::copy_from_slice(row.bytes(3)?)),
                    1 => Place::Store,
                    2 => Place::Pieces,
                    _ => return Err(Error::Unreadable { what: "place of a blob" }),
                },
                seal: seal(row.int(4)?, row.opt_bytes(5)?, row.opt_int(6)?)?,
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
        |row| Ok(FreedBlob { id: BlobId(row.int(0)?), in_store: row.int(1)? == 1 }),
    )
}

/// Forgets a blob whose bytes in the store, if any, are removed. The pieces of a blob made of
/// pieces count one less each.
pub(crate) fn forget(tx: &mut dyn Tx, id: BlobId, now: Millis) -> Result<(), Error> {
    let everything = ByteRange { start: 0, end: i64::MAX.unsigned_abs() };
    for placed in pieces(tx, id, everything, i64::MAX)? {
        release(tx, placed.piece.blob, now)?;
    }
    tx.execute("DELETE FROM blob_pieces WHERE blob_id = ?1", &[Value::Int(id.0)])?;
    tx.execute("DELETE FROM blob_data WHERE blob_id = ?1", &[Value::Int(id.0)])?;
    tx.execute("DELETE FROM blobs WHERE blob_id = ?1 AND refs = 0", &[Value::Int(id.0)])?;
    Ok(())
}

/// Who counts on a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owners {
    /// Versions, parts and pieces that show it.
    pub(crate) refs: i64,
    pub(crate) in_pieces: bool,
}

pub(crate) fn find_owners(tx: &mut dyn Tx, id: BlobId) -> Result<Option<Owners>, Error> {
    find(tx, "SELECT refs, place FROM blobs WHERE blob_id = ?1", &[Value::Int(id.0)], |row| {
        Ok(Owners { refs: row.int(0)?, in_pieces: row.int(1)? == 2 })
    })
}

/// Whether the catalog knows the blob at all.
pub(crate) fn is_known(tx: &mut dyn Tx, id: BlobId) -> Result<bool, Error> {
    let found =
        find(tx, "SELECT refs FROM blobs WHERE blob_id = ?1", &[Value::Int(id.0)], |row| {
            row.int(0)
        })?;
    Ok(found.is_some())
}
