//! Rows of application keys.

use crate::catalog::config_versions;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::capability::{Capabilities, Capability};
use crate::domain::ids::{AccountId, BucketId, KeyId};
use crate::domain::key::Key;
use crate::domain::time::Millis;

/// A key together with its sealed secret.
#[derive(Clone, Debug)]
pub(crate) struct StoredKey {
    pub(crate) key: Key,
    pub(crate) sealed_secret: Vec<u8>,
}

pub(crate) fn insert_key(
    tx: &mut dyn Tx,
    stored: &StoredKey,
    created_at: Millis,
) -> Result<(), Error> {
    let key = &stored.key;
    let capabilities = key.capabilities.names().join(",");
    let buckets = key
        .buckets
        .as_ref()
        .map(|buckets| buckets.iter().map(BucketId::to_string).collect::<Vec<_>>().join(","));
    tx.execute(
        "INSERT INTO keys (key_id, account_id, name, sealed_secret, capabilities, bucket_ids,
                           name_prefix, expires_at_ms, is_master, made_by_version, created_at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        &[
            Value::Text(key.id.as_str()),
            Value::Text(&key.account.to_string()),
            Value::Text(&key.name),
            Value::Bytes(&stored.sealed_secret),
            Value::Text(&capabilities),
            Value::opt_text(buckets.as_deref()),
            Value::opt_text(key.name_prefix.as_deref()),
            Value::opt_int(key.expires_at.map(|end| end.0)),
            Value::Int(i64::from(key.is_master)),
            Value::Int(i64::from(key.made_by_version)),
            Value::Int(created_at.0),
        ],
    )?;
    config_versions::touch(tx)
}

macro_rules! key_columns {
    ($rest:literal) => {
        concat!(
            "SELECT key_id, account_id, name, capabilities, bucket_ids, name_prefix, expires_at_ms, ",
            "is_master, made_by_version, sealed_secret FROM keys ",
            $rest
        )
    };
}

fn stored_key(row: &dyn Row) -> Result<StoredKey, Error> {
    let unreadable = |what| Error::Unreadable { what };
    let capabilities: Option<Capabilities> =
        row.text(3)?.split(',').filter(|name| !name.is_empty()).map(Capability::parse).collect();
    let buckets = match row.opt_text(4)? {
        None => None,
        Some(list) => Some(
            list.split(',')
                .map(BucketId::parse)
                .collect::<Option<Vec<_>>>()
                .ok_or(unreadable("bucket ids of a key"))?,
        ),
    };
    Ok(StoredKey {
        key: Key {
            id: KeyId::named(row.text(0)?),
            account: AccountId::parse(row.text(1)?).ok_or(unreadable("account id"))?,
            name: row.text(2)?.to_owned(),
            capabilities: capabilities.ok_or(unreadable("capabilities"))?,
            buckets,
            name_prefix: row.opt_text(5)?.map(str::to_owned),
            expires_at: row.opt_int(6)?.map(Millis),
            is_master: row.flag(7)?,
            made_by_version: u8::try_from(row.int(8)?).map_err(|_| unreadable("API version"))?,
        },
        sealed_secret: row.bytes(9)?.to_vec(),
    })
}

pub(crate) fn find_key(tx: &mut dyn Tx, id: &KeyId) -> Result<Option<StoredKey>, Error> {
    find(tx, key_columns!("WHERE key_id = ?1"), &[Value::Text(id.as_str())], stored_key)
}

/// Keys of an account from `from` on, in the order of their ids, without its master key and
/// without keys that have expired by `now`.
pub(crate) fn list_keys(
    tx: &mut dyn Tx,
    account: AccountId,
    from: &str,
    now: Millis,
    limit: i64,
) -> Result<Vec<Key>, Error> {
    collect(
        tx,
        key_columns!(
            "WHERE account_id = ?1 AND key_id >= ?2 AND is_master = 0
               AND (expires_at_ms IS NULL OR expires_at_ms > ?3)
             ORDER BY key_id LIMIT ?4"
        ),
        &[
            Value::Text(&account.to_string()),
            Value::Text(from),
            Value::Int(now.0),
            Value::Int(limit),
        ],
        |row| Ok(stored_key(row)?.key),
    )
}

/// Removes a key; false when it is not there.
pub(crate) fn delete_key(tx: &mut dyn Tx, id: &KeyId) -> Result<bool, Error> {
    let removed = tx.execute("DELETE FROM keys WHERE key_id = ?1", &[Value::Text(id.as_str())])?;
    config_versions::touch(tx)?;
    Ok(removed > 0)
}

/// Replaces the secret of a key.
pub(crate) fn set_secret(tx: &mut dyn Tx, id: &KeyId, sealed_secret: &[u8]) -> Result<(), Error> {
    tx.execute(
        "UPDATE keys SET sealed_secret = ?2 WHERE key_id = ?1",
        &[Value::Text(id.as_str()), Value::Bytes(sealed_secret)],
    )?;
    config_versions::touch(tx)
}
