//! Rows of the daily walks over buckets with lifecycle rules: when each begins, and how far it got.

use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::BucketId;
use crate::domain::time::Millis;

/// What a walk did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) hidden: u64,
    pub(crate) deleted: u64,
    pub(crate) canceled: u64,
}

impl Counts {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            hidden: self.hidden.saturating_add(other.hidden),
            deleted: self.deleted.saturating_add(other.deleted),
            canceled: self.canceled.saturating_add(other.canceled),
        }
    }
}

/// A walk that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Underway {
    pub(crate) bucket: BucketId,
    /// Names the walk among those of its bucket.
    pub(crate) started_at: Millis,
    /// The last name that the walk is done with; empty at its beginning.
    pub(crate) after_name: String,
    pub(crate) counts: Counts,
}

/// Plans the first walk of a bucket that has rules from now on.
pub(crate) fn plan_walks(tx: &mut dyn Tx, bucket: BucketId, first: Millis) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO lifecycle_walks (bucket_id, next_at_ms, after_name, hidden, deleted, canceled)
         VALUES (?1, ?2, '', 0, 0, 0)",
        &[Value::Text(&bucket.to_string()), Value::Int(first.0)],
    )?;
    Ok(())
}

/// Forgets the walks of a bucket that has no rules any more, or is gone.
pub(crate) fn forget_walks(tx: &mut dyn Tx, bucket: BucketId) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM lifecycle_walks WHERE bucket_id = ?1",
        &[Value::Text(&bucket.to_string())],
    )?;
    Ok(())
}

/// Begins a walk from the first name on; one that was under way is given up. `next` is when the one
/// after it shall begin. False when the bucket has no walks.
pub(crate) fn begin_walk(
    tx: &mut dyn Tx,
    bucket: BucketId,
    now: Millis,
    next: Millis,
) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE lifecycle_walks
            SET next_at_ms = ?3, started_at_ms = ?2, after_name = '', hidden = 0, deleted = 0,
                canceled = 0
          WHERE bucket_id = ?1",
        &[Value::Text(&bucket.to_string()), Value::Int(now.0), Value::Int(next.0)],
    )?;
    Ok(changed == 1)
}

/// Notes how far a walk has got; `ended` when it is over. False when it was given up meanwhile.
pub(crate) fn note_progress(tx: &mut dyn Tx, walk: &Underway, ended: bool) -> Result<bool, Error> {
    let signed = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let changed = tx.execute(
        "UPDATE lifecycle_walks
            SET started_at_ms = ?3, after_name = ?4, hidden = ?5, deleted = ?6, canceled = ?7
          WHERE bucket_id = ?1 AND started_at_ms = ?2",
        &[
            Value::Text(&walk.bucket.to_string()),
            Value::Int(walk.started_at.0),
            Value::opt_int((!ended).then_some(walk.started_at.0)),
            Value::Text(&walk.after_name),
            Value::Int(signed(walk.counts.hidden)),
            Value::Int(signed(walk.counts.deleted)),
            Value::Int(signed(walk.counts.canceled)),
        ],
    )?;
    Ok(changed == 1)
}

fn bucket_id(row: &dyn Row, column: usize) -> Result<BucketId, Error> {
    BucketId::parse(row.text(column)?).ok_or(Error::Unreadable { what: "bucket id" })
}

/// The walk of a bucket that is under way.
pub(crate) fn find_underway(tx: &mut dyn Tx, bucket: BucketId) -> Result<Option<Underway>, Error> {
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    find(
        tx,
        "SELECT bucket_id, started_at_ms, after_name, hidden, deleted, canceled
           FROM lifecycle_walks WHERE bucket_id = ?1 AND started_at_ms IS NOT NULL",
        &[Value::Text(&bucket.to_string())],
        |row| {
            Ok(Underway {
                bucket: bucket_id(row, 0)?,
                started_at: Millis(row.int(1)?),
                after_name: row.text(2)?.to_owned(),
                counts: Counts {
                    hidden: count(row.int(3)?),
                    deleted: count(row.int(4)?),
                    canceled: count(row.int(5)?),
                },
            })
        },
    )
}

/// Buckets whose walk is under way or should begin by `now`.
pub(crate) fn list_due(tx: &mut dyn Tx, now: Millis) -> Result<Vec<BucketId>, Error> {
    collect(
        tx,
        "SELECT bucket_id FROM lifecycle_walks
          WHERE started_at_ms IS NOT NULL OR next_at_ms <= ?1 ORDER BY next_at_ms, bucket_id",
        &[Value::Int(now.0)],
        |row| bucket_id(row, 0),
    )
}
