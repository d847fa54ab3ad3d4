//! Rows of remotes, of the buckets that are reached through them, and of what was begun there and is to
//! be cancelled.

use crate::catalog::replication::Breaker;
use crate::catalog::server_facts::take_number;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::remote::{Remote, RemoteBucket, RemoteId};
use crate::domain::time::{Millis, Steady};

/// A remote with its token, as it is sealed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredRemote {
    pub(crate) remote: Remote,
    pub(crate) sealed_token: Vec<u8>,
}

/// The token is not shown, sealed or not.
impl std::fmt::Debug for StoredRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.remote.fmt(f)
    }
}

fn options_text(remote: &Remote) -> Result<String, Error> {
    serde_json::to_string(&remote.options)
        .map_err(|_| Error::Unreadable { what: "options of a remote" })
}

/// Takes the number of a new remote.
pub(crate) fn take_id(tx: &mut dyn Tx) -> Result<RemoteId, Error> {
    take_number(tx, "remote").map(RemoteId)
}

/// Stores a new remote; [`Error::Conflict`] when its name is taken in the account.
pub(crate) fn insert_remote(tx: &mut dyn Tx, stored: &StoredRemote) -> Result<(), Error> {
    let remote = &stored.remote;
    tx.execute(
        "INSERT INTO remotes (remote_no, account_id, org_id, name, description, url, sealed_token,
                              remote_org_id, allow_insecure_tls, options, created_at_ms,
                              updated_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        &[
            Value::Int(remote.id.0),
            Value::Text(&remote.account.to_string()),
            Value::Text(&remote.org_id),
            Value::Text(&remote.name),
            Value::opt_text(remote.description.as_deref()),
            Value::Text(&remote.url),
            Value::Bytes(&stored.sealed_token),
            Value::opt_text(remote.remote_org_id.as_deref()),
            Value::Int(i64::from(remote.allow_insecure_tls)),
            Value::Text(&options_text(remote)?),
            Value::Int(remote.created_at.0),
            Value::Int(remote.updated_at.0),
        ],
    )?;
    Ok(())
}

/// Stores the settings of a remote that is there, with its token; [`Error::Conflict`] when its new
/// name is taken.
pub(crate) fn update_remote(tx: &mut dyn Tx, stored: &StoredRemote) -> Result<(), Error> {
    let remote = &stored.remote;
    tx.execute(
        "UPDATE remotes
            SET name = ?2, description = ?3, url = ?4, sealed_token = ?5, remote_org_id = ?6,
                allow_insecure_tls = ?7, options = ?8, updated_at_ms = ?9
          WHERE remote_no = ?1",
        &[
            Value::Int(remote.id.0),
            Value::Text(&remote.name),
            Value::opt_text(remote.description.as_deref()),
            Value::Text(&remote.url),
            Value::Bytes(&stored.sealed_token),
            Value::opt_text(remote.remote_org_id.as_deref()),
            Value::Int(i64::from(remote.allow_insecure_tls)),
            Value::Text(&options_text(remote)?),
            Value::Int(remote.updated_at.0),
        ],
    )?;
    Ok(())
}

macro_rules! remote_columns {
    ($rest:literal) => {
        concat!(
            "SELECT remote_no, account_id, org_id, name, description, url, sealed_token, ",
            "remote_org_id, allow_insecure_tls, options, created_at_ms, updated_at_ms ",
            "FROM remotes ",
            $rest
        )
    };
}

fn remote(row: &dyn Row) -> Result<StoredRemote, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let remote = Remote {
        id: RemoteId(row.int(0)?),
        account: AccountId::parse(row.text(1)?).ok_or(unreadable("account of a remote"))?,
        org_id: row.text(2)?.to_owned(),
        name: row.text(3)?.to_owned(),
        description: row.opt_text(4)?.map(str::to_owned),
        url: row.text(5)?.to_owned(),
        remote_org_id: row.opt_text(7)?.map(str::to_owned),
        allow_insecure_tls: row.flag(8)?,
        options: serde_json::from_str(row.text(9)?)
            .map_err(|_| unreadable("options of a remote"))?,
        created_at: Millis(row.int(10)?),
        updated_at: Millis(row.int(11)?),
    };
    Ok(StoredRemote { remote, sealed_token: row.bytes(6)?.to_vec() })
}

pub(crate) fn find_remote(tx: &mut dyn Tx, id: RemoteId) -> Result<Option<StoredRemote>, Error> {
    find(tx, remote_columns!("WHERE remote_no = ?1"), &[Value::Int(id.0)], remote)
}

/// Which remotes a listing shows; None does not restrict it.
#[derive(Clone, Debug, Default)]
pub(crate) struct RemoteRows {
    pub(crate) account: Option<AccountId>,
    pub(crate) name: Option<String>,
    pub(crate) url: Option<String>,
}

/// Remotes, oldest first. There are few: an account may have a limited number.
pub(crate) fn list_remotes(tx: &mut dyn Tx, rows: &RemoteRows) -> Result<Vec<Remote>, Error> {
    let account = rows.account.map(|id| id.to_string());
    collect(
        tx,
        remote_columns!(
            "WHERE (CAST(?1 AS TEXT) IS NULL OR account_id = ?1)
               AND (CAST(?2 AS TEXT) IS NULL OR name = ?2)
               AND (CAST(?3 AS TEXT) IS NULL OR url = ?3)
             ORDER BY remote_no"
        ),
        &[
            Value::opt_text(account.as_deref()),
            Value::opt_text(rows.name.as_deref()),
            Value::opt_text(rows.url.as_deref()),
        ],
        |row| Ok(remote(row)?.remote),
    )
}

/// How many remotes there are, of one account or of all.
pub(crate) fn count_remotes(tx: &mut dyn Tx, account: Option<AccountId>) -> Result<i64, Error> {
    let account = account.map(|id| id.to_string());
    let count = find(
        tx,
        "SELECT CAST(COUNT(*) AS BIGINT) FROM remotes
          WHERE (CAST(?1 AS TEXT) IS NULL OR account_id = ?1)",
        &[Value::opt_text(account.as_deref())],
        |row| row.int(0),
    )?;
    Ok(count.unwrap_or_default())
}

/// Removes a remote with all that is only about it: what was begun there cannot be cancelled without
/// it. False when it is not there.
pub(crate) fn delete_remote(tx: &mut dyn Tx, id: RemoteId) -> Result<bool, Error> {
    for statement in [
        "DELETE FROM remote_orphans WHERE remote_no = ?1",
        "DELETE FROM remote_buckets WHERE remote_no = ?1",
    ] {
        tx.execute(statement, &[Value::Int(id.0)])?;
    }
    forget_failures(tx, id)?;
    let removed = tx.execute("DELETE FROM remotes WHERE remote_no = ?1", &[Value::Int(id.0)])?;
    Ok(removed > 0)
}

/// The name of a remote among targets.
pub(crate) fn target_of_remote(id: RemoteId) -> String {
    format!("remote:{id}")
}

/// The remote that [`target_of_remote`] names.
pub(crate) fn remote_of_target(target: &str) -> Option<RemoteId> {
    target.strip_prefix("remote:").and_then(RemoteId::parse)
}

/// The remote of an account through which a bucket that is not here is reached. What another account
/// says of the same bucket leads nobody else's files anywhere.
pub(crate) fn find_remote_to(
    tx: &mut dyn Tx,
    bucket: BucketId,
    account: AccountId,
) -> Result<Option<StoredRemote>, Error> {
    let Some(remote) = find_remote_bucket(tx, bucket)? else { return Ok(None) };
    Ok(find_remote(tx, remote)?.filter(|stored| stored.remote.account == account))
}

/// Whether anything goes through a remote: a stream, or the rules that lead to a bucket of it.
pub(crate) fn is_used(tx: &mut dyn Tx, id: RemoteId) -> Result<bool, Error> {
    let found = find(
        tx,
        "SELECT remote_no FROM streams WHERE remote_no = ?1
         UNION ALL SELECT remote_no FROM remote_buckets WHERE remote_no = ?1 LIMIT 1",
        &[Value::Int(id.0)],
        |row| row.int(0),
    )?;
    Ok(found.is_some())
}

/// Whether a remote answers, as far as was noted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Presence {
    pub(crate) last_online_at: Option<Millis>,
    /// None while it answers.
    pub(crate) offline_since: Option<Millis>,
    /// None while there are no failures.
    pub(crate) breaker: Option<Breaker>,
}

pub(crate) fn presence(tx: &mut dyn Tx, id: RemoteId) -> Result<Presence, Error> {
    let target = target_of_remote(id);
    let breaker = find(
        tx,
        "SELECT failures, open_until_ms FROM replication_targets WHERE target = ?1",
        &[Value::Text(&target)],
        |row| {
            let failures = u32::try_from(row.int(0)?).unwrap_or(u32::MAX);
            Ok(Breaker { target: target.clone(), failures, open_until: Steady(row.int(1)?) })
        },
    )?;
    let times = find(
        tx,
        "SELECT last_online_at_ms, offline_since_ms FROM remotes WHERE remote_no = ?1",
        &[Value::Int(id.0)],
        |row| Ok((row.opt_int(0)?.map(Millis), row.opt_int(1)?.map(Millis))),
    )?;
    let (last_online_at, offline_since) = times.unwrap_or_default();
    Ok(Presence { last_online_at, offline_since, breaker })
}

/// How exactly it is known when a remote answered last.
const ONLINE_MS: i64 = 1000;

/// Takes a remote for well, so that it is tried at once.
pub(crate) fn forget_failures(tx: &mut dyn Tx, id: RemoteId) -> Result<(), Error> {
    let target = target_of_remote(id);
    tx.execute("DELETE FROM replication_targets WHERE target = ?1", &[Value::Text(&target)])?;
    Ok(())
}

/// Notes that a remote answered, whatever it said; writes at most once a second.
pub(crate) fn note_online(tx: &mut dyn Tx, id: RemoteId, at: Millis) -> Result<(), Error> {
    tx.execute(
        "UPDATE remotes SET last_online_at_ms = ?2, offline_since_ms = NULL
          WHERE remote_no = ?1
            AND (offline_since_ms IS NOT NULL OR last_online_at_ms IS NULL
                 OR last_online_at_ms <= ?3)",
        &[Value::Int(id.0), Value::Int(at.0), Value::Int(at.plus(-ONLINE_MS).0)],
    )?;
    Ok(())
}

/// Notes that a remote gave no answer; the first of several such times stays.
pub(crate) fn note_offline(tx: &mut dyn Tx, id: RemoteId, at: Millis) -> Result<(), Error> {
    tx.execute(
        "UPDATE remotes SET offline_since_ms = ?2
          WHERE remote_no = ?1 AND offline_since_ms IS NULL",
        &[Value::Int(id.0), Value::Int(at.0)],
    )?;
    Ok(())
}

/// Names the remote through which a bucket of another server is reached.
pub(crate) fn put_remote_bucket(
    tx: &mut dyn Tx,
    bucket: BucketId,
    remote: RemoteId,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO remote_buckets (bucket_id, remote_no) VALUES (?1, ?2)
         ON CONFLICT (bucket_id) DO UPDATE SET remote_no = excluded.remote_no",
        &[Value::Text(&bucket.to_string()), Value::Int(remote.0)],
    )?;
    Ok(())
}

/// The remote through which a bucket of another server is reached.
pub(crate) fn find_remote_bucket(
    tx: &mut dyn Tx,
    bucket: BucketId,
) -> Result<Option<RemoteId>, Error> {
    find(
        tx,
        "SELECT remote_no FROM remote_buckets WHERE bucket_id = ?1",
        &[Value::Text(&bucket.to_string())],
        |row| Ok(RemoteId(row.int(0)?)),
    )
}

/// The buckets that are reached through a remote, in the order of their ids.
pub(crate) fn list_remote_buckets(
    tx: &mut dyn Tx,
    remote: RemoteId,
) -> Result<Vec<BucketId>, Error> {
    collect(
        tx,
        "SELECT bucket_id FROM remote_buckets WHERE remote_no = ?1 ORDER BY bucket_id",
        &[Value::Int(remote.0)],
        |row| BucketId::parse(row.text(0)?).ok_or(Error::Unreadable { what: "bucket of a remote" }),
    )
}

/// Forgets through which remote a bucket is reached; false when none was named.
pub(crate) fn delete_remote_bucket(tx: &mut dyn Tx, bucket: BucketId) -> Result<bool, Error> {
    let removed = tx.execute(
        "DELETE FROM remote_buckets WHERE bucket_id = ?1",
        &[Value::Text(&bucket.to_string())],
    )?;
    Ok(removed > 0)
}

/// Something that was begun at a remote and is to be cancelled there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewOrphan<'a> {
    pub(crate) remote: RemoteId,
    pub(crate) bucket: &'a RemoteBucket,
    /// As it is named at the remote.
    pub(crate) file_name: &'a str,
    pub(crate) session: &'a str,
}

/// An orphan as it is stored. Its times are on the time line of waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orphan {
    pub(crate) number: i64,
    pub(crate) remote: RemoteId,
    pub(crate) bucket: RemoteBucket,
    pub(crate) file_name: String,
    pub(crate) session: String,
    /// Attempts to cancel it that failed.
    pub(crate) attempts: u32,
    pub(crate) give_up_at: Steady,
}

/// For how long it is tried to cancel what was begun at a remote.
const ORPHAN_MS: i64 = 24 * 60 * 60 * 1000;

/// Remembers something to be cancelled from now on.
pub(crate) fn insert_orphan(
    tx: &mut dyn Tx,
    orphan: &NewOrphan<'_>,
    now: Steady,
) -> Result<(), Error> {
    let number = take_number(tx, "remote_orphan")?;
    tx.execute(
        "INSERT INTO remote_orphans (orphan_no, remote_no, bucket, file_name, session, attempts,
                                     next_attempt_at_ms, give_up_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, 0, ?6, ?7)",
        &[
            Value::Int(number),
            Value::Int(orphan.remote.0),
            Value::Text(&orphan.bucket.stored()),
            Value::Text(orphan.file_name),
            Value::Text(orphan.session),
            Value::Int(now.0),
            Value::Int(now.plus(ORPHAN_MS).0),
        ],
    )?;
    Ok(())
}

/// Orphans that are to be cancelled by `now`, those waiting longest first.
pub(crate) fn list_due_orphans(
    tx: &mut dyn Tx,
    now: Steady,
    limit: i64,
) -> Result<Vec<Orphan>, Error> {
    collect(
        tx,
        "SELECT orphan_no, remote_no, bucket, file_name, session, attempts, give_up_at_ms
           FROM remote_orphans WHERE next_attempt_at_ms <= ?1
          ORDER BY next_attempt_at_ms, orphan_no LIMIT ?2",
        &[Value::Int(now.0), Value::Int(limit)],
        |row| {
            Ok(Orphan {
                number: row.int(0)?,
                remote: RemoteId(row.int(1)?),
                bucket: RemoteBucket::from_stored(row.text(2)?)
                    .ok_or(Error::Unreadable { what: "bucket of an orphan" })?,
                file_name: row.text(3)?.to_owned(),
                session: row.text(4)?.to_owned(),
                attempts: u32::try_from(row.int(5)?).unwrap_or(u32::MAX),
                give_up_at: Steady(row.int(6)?),
            })
        },
    )
}

/// Notes that an orphan could not be cancelled, and when to try again.
pub(crate) fn note_orphan_failure(
    tx: &mut dyn Tx,
    number: i64,
    again_at: Steady,
) -> Result<(), Error> {
    tx.execute(
        "UPDATE remote_orphans SET attempts = attempts + 1, next_attempt_at_ms = ?2
          WHERE orphan_no = ?1",
        &[Value::Int(number), Value::Int(again_at.0)],
    )?;
    Ok(())
}

/// Forgets an orphan that is cancelled, or given up; false when it was gone already.
pub(crate) fn delete_orphan(tx: &mut dyn Tx, number: i64) -> Result<bool, Error> {
    let removed =
        tx.execute("DELETE FROM remote_orphans WHERE orphan_no = ?1", &[Value::Int(number)])?;
    Ok(removed > 0)
}

/// How many orphans there are.
pub(crate) fn count_orphans(tx: &mut dyn Tx) -> Result<i64, Error> {
    let count =
        find(tx, "SELECT CAST(COUNT(*) AS BIGINT) FROM remote_orphans", &[], |row| row.int(0))?;
    Ok(count.unwrap_or_default())
}

/// How many jobs each remote takes at a time; none while it is paused.
pub(crate) fn list_limits(tx: &mut dyn Tx) -> Result<Vec<(RemoteId, usize)>, Error> {
    let listed = list_remotes(tx, &RemoteRows::default())?;
    let limit = |Remote { options, .. }: &Remote| {
        if options.paused { 0 } else { options.max_concurrency as usize }
    };
    Ok(listed.iter().map(|remote| (remote.id, limit(remote))).collect())
}
