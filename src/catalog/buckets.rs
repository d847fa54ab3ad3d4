//! Rows of buckets.

use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::catalog::{config_versions, server_facts, usage};
use crate::domain::bucket::{Bucket, BucketNumber, BucketSettings, BucketType};
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::names::BucketName;
use crate::domain::time::Millis;

/// Takes a number for a new bucket.
pub(crate) fn take_number(tx: &mut dyn Tx) -> Result<BucketNumber, Error> {
    server_facts::take_number(tx, "bucket").map(BucketNumber)
}

fn settings_text(settings: &BucketSettings) -> Result<String, Error> {
    serde_json::to_string(settings).map_err(|_| Error::Unreadable { what: "bucket settings" })
}

/// Stores a new bucket; [`Error::Conflict`] when the name is taken.
pub(crate) fn insert_bucket(tx: &mut dyn Tx, bucket: &Bucket) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO buckets (bucket_no, bucket_id, account_id, name, folded_name, kind, revision,
                              settings, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        &[
            Value::Int(bucket.number.0),
            Value::Text(&bucket.id.to_string()),
            Value::Text(&bucket.account.to_string()),
            Value::Text(bucket.name.as_str()),
            Value::Text(&bucket.name.folded()),
            Value::Text(bucket.kind.as_str()),
            Value::Int(bucket.revision),
            Value::Text(&settings_text(&bucket.settings)?),
            Value::Int(bucket.created_at.0),
        ],
    )?;
    usage::insert_bucket(tx, bucket.number, bucket.account)?;
    config_versions::touch(tx)
}

/// Stores type, revision and settings of a bucket that is there.
pub(crate) fn update_bucket(tx: &mut dyn Tx, bucket: &Bucket) -> Result<(), Error> {
    tx.execute(
        "UPDATE buckets SET kind = ?2, revision = ?3, settings = ?4 WHERE bucket_no = ?1",
        &[
            Value::Int(bucket.number.0),
            Value::Text(bucket.kind.as_str()),
            Value::Int(bucket.revision),
            Value::Text(&settings_text(&bucket.settings)?),
        ],
    )?;
    config_versions::touch(tx)
}

pub(crate) fn delete_bucket(tx: &mut dyn Tx, number: BucketNumber) -> Result<(), Error> {
    tx.execute("DELETE FROM buckets WHERE bucket_no = ?1", &[Value::Int(number.0)])?;
    usage::delete_bucket(tx, number)?;
    config_versions::touch(tx)
}

macro_rules! bucket_columns {
    ($rest:literal) => {
        concat!(
            "SELECT bucket_no, bucket_id, account_id, name, kind, revision, settings, ",
            "created_at_ms FROM buckets ",
            $rest
        )
    };
}

fn bucket(row: &dyn Row) -> Result<Bucket, Error> {
    let unreadable = |what| Error::Unreadable { what };
    Ok(Bucket {
        number: BucketNumber(row.int(0)?),
        id: BucketId::parse(row.text(1)?).ok_or(unreadable("bucket id"))?,
        account: AccountId::parse(row.text(2)?).ok_or(unreadable("account id"))?,
        name: BucketName::stored(row.text(3)?.to_owned()),
        kind: BucketType::parse(row.text(4)?).map_err(|_| unreadable("bucket type"))?,
        revision: row.int(5)?,
        created_at: Millis(row.int(7)?),
        settings: serde_json::from_str(row.text(6)?).map_err(|_| unreadable("bucket settings"))?,
    })
}

pub(crate) fn find_by_id(tx: &mut dyn Tx, id: BucketId) -> Result<Option<Bucket>, Error> {
    find(tx, bucket_columns!("WHERE bucket_id = ?1"), &[Value::Text(&id.to_string())], bucket)
}

/// Looks a bucket up by the folded form of its name.
pub(crate) fn find_by_name(tx: &mut dyn Tx, folded: &str) -> Result<Option<Bucket>, Error> {
    find(tx, bucket_columns!("WHERE folded_name = ?1"), &[Value::Text(folded)], bucket)
}

/// The buckets of an account in the order of their names. An account has few (there is a limit).
pub(crate) fn list_buckets(tx: &mut dyn Tx, account: AccountId) -> Result<Vec<Bucket>, Error> {
    collect(
        tx,
        bucket_columns!("WHERE account_id = ?1 ORDER BY folded_name"),
        &[Value::Text(&account.to_string())],
        bucket,
    )
}

/// All buckets of the server, for work that is due in each of them.
pub(crate) fn list_all(tx: &mut dyn Tx) -> Result<Vec<Bucket>, Error> {
    collect(tx, bucket_columns!("ORDER BY bucket_no"), &[], bucket)
}

/// Whether any bucket of the server has Object Lock. One whose settings cannot be read is a fault.
pub(crate) fn any_with_lock(tx: &mut dyn Tx) -> Result<bool, Error> {
    Ok(list_all(tx)?.iter().any(|bucket| bucket.settings.file_lock.is_file_lock_enabled))
}

pub(crate) fn count_buckets(tx: &mut dyn Tx, account: AccountId) -> Result<i64, Error> {
    let count = find(
        tx,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM buckets WHERE account_id = ?1",
        &[Value::Text(&account.to_string())],
        |row| row.int(0),
    )?;
    Ok(count.unwrap_or_default())
}
