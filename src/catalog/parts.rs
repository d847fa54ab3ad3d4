//! Rows of the parts of unfinished large files.

use crate::catalog::blob_refs;
use crate::catalog::tx::{Error, Row, Tx, Value, collect};
use crate::domain::checksum::{Checksum, ChecksumAlgorithm};
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::file::ContentSha1;
use crate::domain::ids::{BlobId, FileNumber};
use crate::domain::large_file::{Part, PartNumber};
use crate::domain::time::Millis;

fn part(row: &dyn Row) -> Result<Part, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let sha1 = Sha1Digest::from_slice(row.bytes(4)?).ok_or(unreadable("SHA-1 of a part"))?;
    Ok(Part {
        number: PartNumber::new(row.int(0)?).ok_or(unreadable("number of a part"))?,
        blob: BlobId(row.int(1)?),
        size: u64::try_from(row.int(2)?).map_err(|_| unreadable("size of a part"))?,
        sha1: match row.int(3)? {
            1 => ContentSha1::Verified(sha1),
            2 => ContentSha1::Unverified(sha1),
            _ => return Err(unreadable("SHA-1 state of a part")),
        },
        md5: Md5Digest::from_slice(row.bytes(5)?).ok_or(unreadable("MD5 of a part"))?,
        uploaded_at: Millis(row.int(6)?),
        checksum: row.opt_text(7)?.and_then(read_checksum),
    })
}

/// `ALGORITHM value`
fn read_checksum(text: &str) -> Option<Checksum> {
    let (algorithm, value) = text.split_once(' ')?;
    Checksum::parse(ChecksumAlgorithm::parse(algorithm)?, value.as_bytes())
}

/// Stores a part. One of the same number is replaced, and its blob counts one less. Answers by how
/// many bytes the parts of the file have grown, or shrunk.
pub(crate) fn put_part(tx: &mut dyn Tx, file: FileNumber, part: &Part) -> Result<i64, Error> {
    let number = part.number.get();
    let replaced = remove_where(tx, file, number, number, part.uploaded_at)?;
    let (state, sha1) = match part.sha1 {
        ContentSha1::Verified(sha1) => (1, sha1),
        ContentSha1::Unverified(sha1) => (2, sha1),
        ContentSha1::None => return Err(Error::Unreadable { what: "SHA-1 of a part" }),
    };
    let size = i64::try_from(part.size).map_err(|_| Error::Unreadable { what: "size" })?;
    let checksum = part.checksum.as_ref();
    let checksum = checksum.map(|known| format!("{} {}", known.algorithm.as_str(), known.base64()));
    tx.execute(
        "INSERT INTO parts (file_no, part_number, blob_id, size, sha1_state, sha1, md5,
                            uploaded_at_ms, checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        &[
            Value::Int(file.0),
            Value::Int(part.number.get()),
            Value::Int(part.blob.0),
            Value::Int(size),
            Value::Int(state),
            Value::Bytes(&sha1.0),
            Value::Bytes(&part.md5.0),
            Value::Int(part.uploaded_at.0),
            Value::opt_text(checksum.as_deref()),
        ],
    )?;
    Ok(size - replaced)
}

/// At most `limit` parts in the order of their numbers, from number `from` on.
pub(crate) fn list_parts(
    tx: &mut dyn Tx,
    file: FileNumber,
    from: i64,
    limit: i64,
) -> Result<Vec<Part>, Error> {
    collect(
        tx,
        "SELECT part_number, blob_id, size, sha1_state, sha1, md5, uploaded_at_ms, checksum
           FROM parts
          WHERE file_no = ?1 AND part_number >= ?2 ORDER BY part_number LIMIT ?3",
        &[Value::Int(file.0), Value::Int(from), Value::Int(limit)],
        part,
    )
}

/// Forgets one part of a file; its blob counts one less. Answers how many bytes it had.
pub(crate) fn remove_part(
    tx: &mut dyn Tx,
    file: FileNumber,
    number: PartNumber,
    now: Millis,
) -> Result<i64, Error> {
    remove_where(tx, file, number.get(), number.get(), now)
}

/// Forgets all parts of a file; their blobs count one less each. Answers how many bytes they had.
pub(crate) fn remove_parts(tx: &mut dyn Tx, file: FileNumber, now: Millis) -> Result<i64, Error> {
    remove_where(tx, file, 0, i64::MAX, now)
}

/// Forgets all parts of a file whose blobs somebody else has taken over.
pub(crate) fn forget_parts(tx: &mut dyn Tx, file: FileNumber) -> Result<(), Error> {
    tx.execute("DELETE FROM parts WHERE file_no = ?1", &[Value::Int(file.0)])?;
    Ok(())
}

fn remove_where(
    tx: &mut dyn Tx,
    file: FileNumber,
    first: i64,
    last: i64,
    now: Millis,
) -> Result<i64, Error> {
    let range = [Value::Int(file.0), Value::Int(first), Value::Int(last)];
    let removed = collect(
        tx,
        "SELECT blob_id, size FROM parts WHERE file_no = ?1 AND part_number BETWEEN ?2 AND ?3",
        &range,
        |row| Ok((BlobId(row.int(0)?), row.int(1)?)),
    )?;
    let mut bytes = 0;
    for (blob, size) in removed {
        blob_refs::release(tx, blob, now)?;
        bytes += size;
    }
    tx.execute("DELETE FROM parts WHERE file_no = ?1 AND part_number BETWEEN ?2 AND ?3", &range)?;
    Ok(bytes)
}
