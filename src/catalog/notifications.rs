//! Rows of event notifications: one queue for each rule, and the events that wait in it.

use crate::catalog::server_facts::take_number;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::event::EventType;
use crate::domain::ids::{AccountId, BucketId, FileNumber};
use crate::domain::time::{Millis, Steady};

/// The queue of one rule: where its events go and how that goes.
#[derive(Clone)]
pub(crate) struct Queue {
    pub(crate) number: i64,
    pub(crate) bucket: BucketId,
    pub(crate) rule_name: String,
    pub(crate) sealed_target: Vec<u8>,
    pub(crate) generation: i64,
    /// Empty while the rule is not suspended.
    pub(crate) suspension_reason: String,
    pub(crate) waiting: i64,
    pub(crate) delivered: i64,
    pub(crate) dropped: i64,
    /// Attempts in a row that failed.
    pub(crate) failures: i64,
    pub(crate) failing_since: Option<Steady>,
    /// While suspended: when what waits is given up.
    pub(crate) next_attempt_at: Steady,
    pub(crate) delivered_at: Option<Millis>,
    /// Why the last failed attempt failed; stays until a delivery succeeds.
    pub(crate) last_error: Option<String>,
}

macro_rules! queue_columns {
    ($rest:literal) => {
        concat!(
            "SELECT q.queue_no, q.bucket_id, q.rule_name, q.sealed_target, q.generation, ",
            "q.suspension_reason, q.waiting, q.delivered, q.dropped, q.failures, ",
            "q.failing_since_ms, q.next_attempt_at_ms, q.delivered_at_ms, q.last_error, ",
            "b.account_id FROM notification_queues q ",
            "LEFT JOIN buckets b ON b.bucket_id = q.bucket_id WHERE q.is_retired = 0 ",
            $rest
        )
    };
}

fn queue(row: &dyn Row) -> Result<Queue, Error> {
    Ok(Queue {
        number: row.int(0)?,
        bucket: BucketId::parse(row.text(1)?)
            .ok_or(Error::Unreadable { what: "bucket of a notification rule" })?,
        rule_name: row.text(2)?.to_owned(),
        sealed_target: row.bytes(3)?.to_vec(),
        generation: row.int(4)?,
        suspension_reason: row.text(5)?.to_owned(),
        waiting: row.int(6)?,
        delivered: row.int(7)?,
        dropped: row.int(8)?,
        failures: row.int(9)?,
        failing_since: row.opt_int(10)?.map(Steady),
        next_attempt_at: Steady(row.int(11)?),
        delivered_at: row.opt_int(12)?.map(Millis),
        last_error: row.opt_text(13)?.map(str::to_owned),
    })
}

/// A queue with work, and whose it is; no account when the bucket is gone.
#[derive(Clone)]
pub(crate) struct Due {
    pub(crate) queue: Queue,
    pub(crate) account: Option<AccountId>,
}

fn due(row: &dyn Row) -> Result<Due, Error> {
    let account = row.opt_text(14)?.map(|id| {
        AccountId::parse(id).ok_or(Error::Unreadable { what: "account of a notification rule" })
    });
    Ok(Due { queue: queue(row)?, account: account.transpose()? })
}

/// Makes an empty queue and answers its number.
pub(crate) fn insert_queue(
    tx: &mut dyn Tx,
    bucket: BucketId,
    rule_name: &str,
    sealed_target: &[u8],
    now: Steady,
) -> Result<i64, Error> {
    let number = take_number(tx, "notification_queue")?;
    tx.execute(
        "INSERT INTO notification_queues (queue_no, bucket_id, rule_name, sealed_target, generation,
                                          is_retired, suspension_reason, waiting, delivered,
                                          dropped, failures, next_attempt_at_ms, noted_at_ms)
         VALUES (?1, ?2, ?3, ?4, 1, 0, '', 0, 0, 0, 0, ?5, ?5)",
        &[
            Value::Int(number),
            Value::Text(&bucket.to_string()),
            Value::Text(rule_name),
            Value::Bytes(sealed_target),
            Value::Int(now.0),
        ],
    )?;
    Ok(number)
}

/// Gives a queue the target of its changed rule and a new start: not suspended, due now. What
/// waits in it stays. A new generation begins unless the target is still that of `same_since`.
pub(crate) fn renew_queue(
    tx: &mut dyn Tx,
    number: i64,
    sealed_target: &[u8],
    same_since: Option<i64>,
    now: Steady,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE notification_queues
            SET sealed_target = ?2, suspension_reason = '', failures = 0, failing_since_ms = NULL,
                generation = CASE WHEN generation = CAST(?4 AS BIGINT) THEN generation
                                  ELSE generation + 1 END,
                next_attempt_at_ms = ?3, noted_at_ms = ?3
          WHERE queue_no = ?1",
        &[
            Value::Int(number),
            Value::Bytes(sealed_target),
            Value::Int(now.0),
            Value::opt_int(same_since),
        ],
    )?;
    tx.execute(
        "UPDATE notification_events SET failures = 0, next_attempt_at_ms = ?2
          WHERE queue_no = ?1 AND failures > 0",
        &[Value::Int(number), Value::Int(now.0)],
    )?;
    Ok(())
}

/// Ends a queue whose rule is gone or switched off: nothing of it is delivered any more.
pub(crate) fn retire_queue(tx: &mut dyn Tx, number: i64) -> Result<(), Error> {
    tx.execute(
        "UPDATE notification_queues SET is_retired = 1 WHERE queue_no = ?1",
        &[Value::Int(number)],
    )?;
    Ok(())
}

/// A queue that is not retired.
pub(crate) fn find_queue(tx: &mut dyn Tx, number: i64) -> Result<Option<Queue>, Error> {
    find(tx, queue_columns!("AND q.queue_no = ?1"), &[Value::Int(number)], queue)
}

/// Queues that are not retired, by their numbers, of one bucket or of all.
pub(crate) fn list_queues(
    tx: &mut dyn Tx,
    bucket: Option<BucketId>,
    after: i64,
    limit: i64,
) -> Result<Vec<Queue>, Error> {
    let bucket = bucket.map(|id| id.to_string());
    collect(
        tx,
        queue_columns!(
            "AND q.queue_no > ?1 AND (CAST(?2 AS TEXT) IS NULL OR q.bucket_id = ?2)
             ORDER BY q.queue_no LIMIT ?3"
        ),
        &[Value::Int(after), Value::opt_text(bucket.as_deref()), Value::Int(limit)],
        queue,
    )
}

/// Where a page of [`list_due`] ends: whether the queue has been failing, when it was due, its
/// number.
pub(crate) type DueMark = (i64, i64, i64);

/// Queues with an event that is due, those that have been failing after all others; one page, from
/// after `mark` on.
pub(crate) fn list_due(
    tx: &mut dyn Tx,
    now: Steady,
    mark: Option<DueMark>,
    limit: i64,
) -> Result<Vec<Due>, Error> {
    let (is_failing, due_at, number) = mark.unwrap_or((-1, 0, 0));
    collect(
        tx,
        queue_columns!(
            "AND q.waiting > 0 AND q.suspension_reason = '' AND q.next_attempt_at_ms <= ?1
             AND (CASE WHEN q.failures > 0 THEN 1 ELSE 0 END, q.next_attempt_at_ms, q.queue_no)
                 > (CAST(?2 AS BIGINT), CAST(?3 AS BIGINT), CAST(?4 AS BIGINT))
             ORDER BY CASE WHEN q.failures > 0 THEN 1 ELSE 0 END, q.next_attempt_at_ms, q.queue_no
             LIMIT ?5"
        ),
        &[
            Value::Int(now.0),
            Value::Int(is_failing),
            Value::Int(due_at),
            Value::Int(number),
            Value::Int(limit),
        ],
        due,
    )
}

impl Due {
    /// The mark that the next page begins after.
    pub(crate) fn mark(&self) -> DueMark {
        (i64::from(self.queue.failures > 0), self.queue.next_attempt_at.0, self.queue.number)
    }
}

/// The file version that an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventFile {
    pub(crate) number: FileNumber,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) size: i64,
}

/// An event that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) number: i64,
    pub(crate) kind: EventType,
    pub(crate) occurred_at: Millis,
    /// None for a test event.
    pub(crate) file: Option<EventFile>,
    /// Attempts that failed.
    pub(crate) failures: i64,
}

/// What became of an event that a rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    Waits,
    /// The queue is full or suspended; the event is counted there and lost.
    Dropped,
}

/// Puts an event at the end of a queue that holds at most `queue_max`.
pub(crate) fn enqueue(
    tx: &mut dyn Tx,
    queue: i64,
    kind: EventType,
    file: Option<&EventFile>,
    queue_max: i64,
    (occurred_at, now): (Millis, Steady),
) -> Result<Enqueued, Error> {
    let room = tx.execute(
        "UPDATE notification_queues
            SET waiting = waiting + 1, noted_at_ms = ?3,
                next_attempt_at_ms = CASE WHEN failures = 0 AND next_attempt_at_ms > ?3
                                          THEN ?3 ELSE next_attempt_at_ms END
          WHERE queue_no = ?1 AND waiting < ?2 AND suspension_reason = ''",
        &[Value::Int(queue), Value::Int(queue_max), Value::Int(now.0)],
    )?;
    if room == 0 {
        tx.execute(
            "UPDATE notification_queues SET dropped = dropped + 1 WHERE queue_no = ?1",
            &[Value::Int(queue)],
        )?;
        return Ok(Enqueued::Dropped);
    }
    let number = take_number(tx, "notification_event")?;
    tx.execute(
        "INSERT INTO notification_events (queue_no, event_no, event_type, occurred_at_ms, file_no,
                                          file_id, object_name, size, failures, next_attempt_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)",
        &[
            Value::Int(queue),
            Value::Int(number),
            Value::Text(kind.as_str()),
            Value::Int(occurred_at.0),
            Value::opt_int(file.map(|file| file.number.0)),
            Value::opt_text(file.map(|file| file.id.as_str())),
            Value::opt_text(file.map(|file| file.name.as_str())),
            Value::opt_int(file.map(|file| file.size)),
            Value::Int(now.0),
        ],
    )?;
    Ok(Enqueued::Waits)
}

/// Events of a queue that are due, those waiting longest first.
pub(crate) fn list_due_events(
    tx: &mut dyn Tx,
    queue: i64,
    now: Steady,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    collect(
        tx,
        "SELECT event_no, event_type, occurred_at_ms, file_no, file_id, object_name, size, failures
           FROM notification_events
          WHERE queue_no = ?1 AND next_attempt_at_ms <= ?2
          ORDER BY next_attempt_at_ms, event_no LIMIT ?3",
        &[Value::Int(queue), Value::Int(now.0), Value::Int(limit)],
        |row| {
            let file = match row.opt_int(3)? {
                None => None,
                Some(number) => Some(EventFile {
                    number: FileNumber(number),
                    id: row.text(4)?.to_owned(),
                    name: row.text(5)?.to_owned(),
                    size: row.int(6)?,
                }),
            };
            Ok(Event {
                number: row.int(0)?,
                kind: EventType::parse(row.text(1)?)
                    .ok_or(Error::Unreadable { what: "type of an event" })?,
                occurred_at: Millis(row.int(2)?),
                file,
                failures: row.int(7)?,
            })
        },
    )
}

/// Removes an event; false when it was no longer there.
fn remove_event(tx: &mut dyn Tx, queue: i64, event: i64) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM notification_events WHERE queue_no = ?1 AND event_no = ?2",
        &[Value::Int(queue), Value::Int(event)],
    )?;
    Ok(removed > 0)
}

fn count_removed(tx: &mut dyn Tx, queue: i64, removed: i64) -> Result<(), Error> {
    tx.execute(
        "UPDATE notification_queues SET waiting = waiting - ?2 WHERE queue_no = ?1",
        &[Value::Int(queue), Value::Int(removed)],
    )?;
    Ok(())
}

/// Notes that the target took these events; false when the rule has another target by now, which
/// has yet to be told.
pub(crate) fn settle_delivered(
    tx: &mut dyn Tx,
    (queue, generation): (i64, i64),
    events: &[Event],
    (delivered_at, now): (Millis, Steady),
) -> Result<bool, Error> {
    let settled = tx.execute(
        "UPDATE notification_queues
            SET delivered_at_ms = ?3, failures = 0, failing_since_ms = NULL, last_error = NULL,
                noted_at_ms = ?4
          WHERE queue_no = ?1 AND generation = ?2",
        &[Value::Int(queue), Value::Int(generation), Value::Int(delivered_at.0), Value::Int(now.0)],
    )?;
    if settled == 0 {
        return Ok(false);
    }
    let mut removed = 0;
    for event in events {
        removed += i64::from(remove_event(tx, queue, event.number)?);
    }
    count_removed(tx, queue, removed)?;
    tx.execute(
        "UPDATE notification_queues SET delivered = delivered + ?2 WHERE queue_no = ?1",
        &[Value::Int(queue), Value::Int(removed)],
    )?;
    Ok(true)
}

/// Notes why a delivery failed while others of the same rule did not.
pub(crate) fn note_error(tx: &mut dyn Tx, queue: i64, error: &str) -> Result<(), Error> {
    tx.execute(
        "UPDATE notification_queues SET last_error = ?2 WHERE queue_no = ?1",
        &[Value::Int(queue), Value::Text(error)],
    )?;
    Ok(())
}

/// What follows from a failed attempt.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) error: String,
    /// When the queue is looked at again; when it is suspended, when what waits is given up.
    pub(crate) again_at: Steady,
    /// Empty unless the rule is suspended now.
    pub(crate) suspension_reason: String,
}

/// Notes that an attempt failed, which began when the queue was as in `tried`; false when the rule
/// was set anew meanwhile, and the attempt says nothing about it.
pub(crate) fn settle_failed(
    tx: &mut dyn Tx,
    tried: &Queue,
    failed: &Failed,
    now: Steady,
) -> Result<bool, Error> {
    let settled = tx.execute(
        "UPDATE notification_queues
            SET failures = failures + 1, failing_since_ms = COALESCE(failing_since_ms, ?4),
                last_error = ?5, next_attempt_at_ms = ?6, suspension_reason = ?7,
                noted_at_ms = ?4
          WHERE queue_no = ?1 AND generation = ?2 AND failures = ?3 AND is_retired = 0",
        &[
            Value::Int(tried.number),
            Value::Int(tried.generation),
            Value::Int(tried.failures),
            Value::Int(now.0),
            Value::Text(&failed.error),
            Value::Int(failed.again_at.0),
            Value::Text(&failed.suspension_reason),
        ],
    )?;
    Ok(settled > 0)
}

/// Sets when an event that failed is tried again.
pub(crate) fn postpone_event(
    tx: &mut dyn Tx,
    queue: i64,
    event: i64,
    again_at: Steady,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE notification_events SET failures = failures + 1, next_attempt_at_ms = ?3
          WHERE queue_no = ?1 AND event_no = ?2",
        &[Value::Int(queue), Value::Int(event), Value::Int(again_at.0)],
    )?;
    Ok(())
}

/// Gives an event up for good.
pub(crate) fn drop_event(tx: &mut dyn Tx, queue: i64, event: i64) -> Result<(), Error> {
    let removed = i64::from(remove_event(tx, queue, event)?);
    count_removed(tx, queue, removed)?;
    tx.execute(
        "UPDATE notification_queues SET dropped = dropped + ?2 WHERE queue_no = ?1",
        &[Value::Int(queue), Value::Int(removed)],
    )?;
    Ok(())
}

/// Makes a queue due when the first of its events is, but not before `earliest`; one that is
/// suspended stays as it is.
pub(crate) fn look_again(tx: &mut dyn Tx, queue: i64, earliest: Steady) -> Result<(), Error> {
    let first = find(
        tx,
        "SELECT MIN(next_attempt_at_ms) FROM notification_events WHERE queue_no = ?1",
        &[Value::Int(queue)],
        |row| row.opt_int(0),
    )?;
    let at = first.flatten().map_or(earliest, |first| earliest.max(Steady(first)));
    tx.execute(
        "UPDATE notification_queues SET next_attempt_at_ms = ?2
          WHERE queue_no = ?1 AND suspension_reason = ''",
        &[Value::Int(queue), Value::Int(at.0)],
    )?;
    Ok(())
}

/// Removes up to `limit` events of a retired queue, or the queue when it has none left; answers how
/// many events.
pub(crate) fn prune_retired(tx: &mut dyn Tx, limit: i64) -> Result<usize, Error> {
    let retired = find(
        tx,
        "SELECT queue_no FROM notification_queues WHERE is_retired = 1 ORDER BY queue_no LIMIT 1",
        &[],
        |row| row.int(0),
    )?;
    let Some(queue) = retired else { return Ok(0) };
    let removed = tx.execute(
        "DELETE FROM notification_events
          WHERE queue_no = ?1
            AND event_no IN (SELECT event_no FROM notification_events
                              WHERE queue_no = ?1 ORDER BY event_no LIMIT ?2)",
        &[Value::Int(queue), Value::Int(limit)],
    )?;
    if removed == 0 {
        tx.execute("DELETE FROM notification_queues WHERE queue_no = ?1", &[Value::Int(queue)])?;
    }
    Ok(removed)
}

/// Whether a queue is retired and waits for [`prune_retired`].
pub(crate) fn any_retired(tx: &mut dyn Tx) -> Result<bool, Error> {
    let found = find(
        tx,
        "SELECT queue_no FROM notification_queues WHERE is_retired = 1 LIMIT 1",
        &[],
        |row| row.int(0),
    )?;
    Ok(found.is_some())
}

/// Up to `limit` events, with their queues, that suspended rules have kept for long enough.
pub(crate) fn list_stale(
    tx: &mut dyn Tx,
    now: Steady,
    limit: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    collect(
        tx,
        "SELECT e.queue_no, e.event_no
           FROM notification_queues q JOIN notification_events e ON e.queue_no = q.queue_no
          WHERE q.suspension_reason <> '' AND q.next_attempt_at_ms <= ?1
          ORDER BY e.queue_no, e.event_no LIMIT ?2",
        &[Value::Int(now.0), Value::Int(limit)],
        |row| Ok((row.int(0)?, row.int(1)?)),
    )
}

/// The latest moment on the time line of waits that a queue knows of.
pub(crate) fn noted_at(tx: &mut dyn Tx) -> Result<Option<Steady>, Error> {
    let latest =
        find(tx, "SELECT MAX(noted_at_ms) FROM notification_queues", &[], |row| row.opt_int(0))?;
    Ok(latest.flatten().map(Steady))
}

/// How many events wait, and how many rules are suspended.
pub(crate) fn count(tx: &mut dyn Tx) -> Result<(i64, i64), Error> {
    let counted = find(
        tx,
        "SELECT CAST(COALESCE(SUM(waiting), 0) AS BIGINT),
                CAST(COALESCE(SUM(CASE WHEN suspension_reason <> '' THEN 1 ELSE 0 END), 0) AS BIGINT)
           FROM notification_queues WHERE is_retired = 0",
        &[],
        |row| Ok((row.int(0)?, row.int(1)?)),
    )?;
    Ok(counted.unwrap_or_default())
}
