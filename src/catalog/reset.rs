//! Removing everything that was stored, for tests that want an empty server without a new start.

use crate::catalog::tx::{Error, Tx, Value};
use crate::catalog::{accounts, config_versions, server_facts};
use crate::domain::ids::KeyId;
use crate::domain::time::Millis;

/// Empties the tables that are emptied as a whole, those that refer to others first.
const EMPTIED: [&str; 22] = [
    "DELETE FROM replication_jobs",
    "DELETE FROM replication_origins",
    "DELETE FROM replication_targets",
    "DELETE FROM replication_scans",
    "DELETE FROM stream_scans",
    "DELETE FROM streams",
    "DELETE FROM remote_buckets",
    "DELETE FROM remote_orphans",
    "DELETE FROM remotes",
    "DELETE FROM replica_hops",
    "DELETE FROM replica_sessions",
    "DELETE FROM lifecycle_walks",
    "DELETE FROM notification_queues",
    "DELETE FROM notification_events",
    "DELETE FROM files",
    "DELETE FROM parts",
    "DELETE FROM blob_data",
    "DELETE FROM blob_pieces",
    "DELETE FROM buckets",
    "DELETE FROM bucket_usage",
    "DELETE FROM daily_usage",
    "DELETE FROM account_caps",
];

/// Leaves the first account with its master application key and nothing else; `facts` are stored
/// in the place of those of the same names.
///
/// Blobs in the blob store are freed, their bytes are the sweep's. Counters stay, so that no number
/// comes again. Answers false when there is no account yet.
pub(crate) fn remove_everything(
    tx: &mut dyn Tx,
    facts: &[(String, Vec<u8>)],
    now: Millis,
) -> Result<bool, Error> {
    let Some(first) = accounts::find_first_account(tx)? else { return Ok(false) };
    for statement in EMPTIED {
        tx.execute(statement, &[])?;
    }
    // Only what is a file in the blob store has something left to be removed.
    tx.execute("DELETE FROM blobs WHERE place <> 1", &[])?;
    tx.execute("UPDATE blobs SET refs = 0, freed_at_ms = ?1 WHERE refs > 0", &[Value::Int(now.0)])?;
    let master = KeyId::master(first);
    tx.execute("DELETE FROM keys WHERE key_id <> ?1", &[Value::Text(master.as_str())])?;
    tx.execute("DELETE FROM accounts WHERE account_id <> ?1", &[Value::Text(&first.to_string())])?;
    for (name, value) in facts {
        server_facts::put_fact(tx, name, value)?;
    }
    config_versions::touch(tx)?;
    Ok(true)
}
