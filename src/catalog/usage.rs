//! Rows of usage: what buckets store, what accounts did day by day, what they may.
//!
//! What a bucket stores is changed by [`add_stored`] in the very transaction that adds or removes
//! a version or a part, so that it equals a recount at every moment; the counts of days come in batches.

use crate::catalog::config_versions;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::bucket::BucketNumber;
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::usage::{Caps, Counts, Day};

/// Versions and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Hide markers and unfinished large files counted.
    pub(crate) versions: i64,
    /// Of versions, and of the parts of unfinished large files.
    pub(crate) bytes: i64,
}

/// What one bucket stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BucketUsage {
    pub(crate) account: AccountId,
    pub(crate) bucket: BucketId,
    pub(crate) name: String,
    pub(crate) stored: Stored,
}

/// Begins the account of a new bucket.
pub(crate) fn insert_bucket(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    account: AccountId,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO bucket_usage (bucket_no, account_id, versions, bytes) VALUES (?1, ?2, 0, 0)",
        &[Value::Int(bucket.0), Value::Text(&account.to_string())],
    )?;
    Ok(())
}

pub(crate) fn delete_bucket(tx: &mut dyn Tx, bucket: BucketNumber) -> Result<(), Error> {
    tx.execute("DELETE FROM bucket_usage WHERE bucket_no = ?1", &[Value::Int(bucket.0)])?;
    Ok(())
}

/// Counts what comes to a bucket, or goes from it with negative numbers.
pub(crate) fn add_stored(
    tx: &mut dyn Tx,
    bucket: BucketNumber,
    versions: i64,
    bytes: i64,
) -> Result<(), Error> {
    let counted = tx.execute(
        "UPDATE bucket_usage SET versions = versions + ?2, bytes = bytes + ?3 WHERE bucket_no = ?1",
        &[Value::Int(bucket.0), Value::Int(versions), Value::Int(bytes)],
    )?;
    if counted == 1 { Ok(()) } else { Err(Error::Unreadable { what: "usage of a bucket" }) }
}

/// Bytes of all versions and parts in all buckets of an account.
pub(crate) fn stored_bytes(tx: &mut dyn Tx, account: AccountId) -> Result<i64, Error> {
    let bytes = find(
        tx,
        "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM bucket_usage WHERE account_id = ?1",
        &[Value::Text(&account.to_string())],
        |row| row.int(0),
    )?;
    Ok(bytes.unwrap_or_default())
}

fn bucket_usage(row: &dyn Row) -> Result<BucketUsage, Error> {
    let unreadable = |what| Error::Unreadable { what };
    Ok(BucketUsage {
        account: AccountId::parse(row.text(0)?).ok_or(unreadable("account id"))?,
        bucket: BucketId::parse(row.text(1)?).ok_or(unreadable("bucket id"))?,
        name: row.text(2)?.to_owned(),
        stored: Stored { versions: row.int(3)?, bytes: row.int(4)? },
    })
}

/// What every bucket stores, as it was counted along the way; in the order of their numbers.
pub(crate) fn list_stored(tx: &mut dyn Tx) -> Result<Vec<BucketUsage>, Error> {
    collect(
        tx,
        "SELECT b.account_id, b.bucket_id, b.name, COALESCE(u.versions, -1), COALESCE(u.bytes, -1)
           FROM buckets b LEFT JOIN bucket_usage u ON u.bucket_no = b.bucket_no
          ORDER BY b.bucket_no",
        &[],
        bucket_usage,
    )
}

/// What every bucket stores, counted anew from its versions and parts; in the order of their
/// numbers.
fn recount_stored(tx: &mut dyn Tx) -> Result<Vec<BucketUsage>, Error> {
    collect(
        tx,
        "SELECT b.account_id, b.bucket_id, b.name,
                (SELECT CAST(COUNT(*) AS BIGINT) FROM files f WHERE f.bucket_no = b.bucket_no),
                (SELECT CAST(COALESCE(SUM(f.size), 0) AS BIGINT) FROM files f
                  WHERE f.bucket_no = b.bucket_no)
                + (SELECT CAST(COALESCE(SUM(p.size), 0) AS BIGINT)
                     FROM files f JOIN parts p ON p.file_no = f.file_no
                    WHERE f.bucket_no = b.bucket_no AND f.action = 2)
           FROM buckets b ORDER BY b.bucket_no",
        &[],
        bucket_usage,
    )
}

/// Compares what was counted along the way with a recount: how many buckets there are, and those in
/// which the two differ, as counted and as recounted. Reads every version there is.
pub(crate) fn differences(
    tx: &mut dyn Tx,
) -> Result<(usize, Vec<(BucketUsage, BucketUsage)>), Error> {
    let (counted, recounted) = (list_stored(tx)?, recount_stored(tx)?);
    let buckets = recounted.len();
    let pairs = counted.into_iter().zip(recounted);
    Ok((buckets, pairs.filter(|(counted, recounted)| counted != recounted).collect()))
}

/// The caps of an account.
pub(crate) fn find_caps(tx: &mut dyn Tx, account: AccountId) -> Result<Caps, Error> {
    let caps = find(
        tx,
        "SELECT storage_bytes, download_bytes_per_day, class_a_per_day, class_b_per_day,
                class_c_per_day
           FROM account_caps WHERE account_id = ?1",
        &[Value::Text(&account.to_string())],
        |row| {
            Ok(Caps {
                storage_bytes: row.opt_int(0)?,
                download_bytes_per_day: row.opt_int(1)?,
                class_a_per_day: row.opt_int(2)?,
                class_b_per_day: row.opt_int(3)?,
                class_c_per_day: row.opt_int(4)?,
            })
        },
    )?;
    Ok(caps.unwrap_or_default())
}

/// Whether any account has a storage cap.
pub(crate) fn has_storage_caps(tx: &mut dyn Tx) -> Result<bool, Error> {
    let capped = find(
        tx,
        "SELECT account_id FROM account_caps WHERE storage_bytes IS NOT NULL LIMIT 1",
        &[],
        |_| Ok(()),
    )?;
    Ok(capped.is_some())
}

pub(crate) fn put_caps(tx: &mut dyn Tx, account: AccountId, caps: &Caps) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO account_caps (account_id, storage_bytes, download_bytes_per_day,
                                   class_a_per_day, class_b_per_day, class_c_per_day)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (account_id) DO UPDATE SET
           storage_bytes = excluded.storage_bytes,
           download_bytes_per_day = excluded.download_bytes_per_day,
           class_a_per_day = excluded.class_a_per_day,
           class_b_per_day = excluded.class_b_per_day,
           class_c_per_day = excluded.class_c_per_day",
        &[
            Value::Text(&account.to_string()),
            Value::opt_int(caps.storage_bytes),
            Value::opt_int(caps.download_bytes_per_day),
            Value::opt_int(caps.class_a_per_day),
            Value::opt_int(caps.class_b_per_day),
            Value::opt_int(caps.class_c_per_day),
        ],
    )?;
    config_versions::touch(tx)
}

/// Adds to what an account did on a day.
pub(crate) fn add_counts(
    tx: &mut dyn Tx,
    account: AccountId,
    day: Day,
    counts: &Counts,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO daily_usage (account_id, day, class_a, class_b, class_c, downloaded_bytes,
                                  uploaded_bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (account_id, day) DO UPDATE SET
           class_a = daily_usage.class_a + excluded.class_a,
           class_b = daily_usage.class_b + excluded.class_b,
           class_c = daily_usage.class_c + excluded.class_c,
           downloaded_bytes = daily_usage.downloaded_bytes + excluded.downloaded_bytes,
           uploaded_bytes = daily_usage.uploaded_bytes + excluded.uploaded_bytes",
        &[
            Value::Text(&account.to_string()),
            Value::Int(day.0),
            Value::Int(counts.class_a),
            Value::Int(counts.class_b),
            Value::Int(counts.class_c),
            Value::Int(counts.downloaded_bytes),
            Value::Int(counts.uploaded_bytes),
        ],
    )?;
    Ok(())
}

/// What an account did from a day on, newest day first; days without a row had nothing.
pub(crate) fn list_counts(
    tx: &mut dyn Tx,
    account: AccountId,
    from: Day,
) -> Result<Vec<(Day, Counts)>, Error> {
    collect(
        tx,
        "SELECT day, class_a, class_b, class_c, downloaded_bytes, uploaded_bytes FROM daily_usage
          WHERE account_id = ?1 AND day >= ?2 ORDER BY day DESC",
        &[Value::Text(&account.to_string()), Value::Int(from.0)],
        |row| {
            let counts = Counts {
                class_a: row.int(1)?,
                class_b: row.int(2)?,
                class_c: row.int(3)?,
                downloaded_bytes: row.int(4)?,
                uploaded_bytes: row.int(5)?,
            };
            Ok((Day(row.int(0)?), counts))
        },
    )
}

/// Forgets the days before `day`.
pub(crate) fn forget_counts(tx: &mut dyn Tx, day: Day) -> Result<(), Error> {
    tx.execute("DELETE FROM daily_usage WHERE day < ?1", &[Value::Int(day.0)])?;
    Ok(())
}
