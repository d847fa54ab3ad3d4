//! Rows of accounts.

use crate::catalog::config_versions;
use crate::catalog::tx::{Error, Row, Tx, Value, collect, find};
use crate::domain::ids::{AccountId, KeyId};
use crate::domain::time::Millis;

/// An account, with the number of its buckets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) id: AccountId,
    pub(crate) name: String,
    pub(crate) created_at: Millis,
    pub(crate) buckets: i64,
}

pub(crate) fn insert_account(
    tx: &mut dyn Tx,
    id: AccountId,
    name: &str,
    now: Millis,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO accounts (account_id, name, next_key_number, created_at_ms)
         VALUES (?1, ?2, 1, ?3)",
        &[Value::Text(&id.to_string()), Value::Text(name), Value::Int(now.0)],
    )?;
    config_versions::touch(tx)
}

fn account(row: &dyn Row) -> Result<Account, Error> {
    let id = AccountId::parse(row.text(0)?).ok_or(Error::Unreadable { what: "account id" })?;
    Ok(Account {
        id,
        name: row.text(1)?.to_owned(),
        created_at: Millis(row.int(2)?),
        buckets: row.int(3)?,
    })
}

/// All accounts, oldest first.
pub(crate) fn list_accounts(tx: &mut dyn Tx) -> Result<Vec<Account>, Error> {
    collect(
        tx,
        "SELECT a.account_id, a.name, a.created_at_ms,
                (SELECT CAST(COUNT(*) AS BIGINT) FROM buckets b WHERE b.account_id = a.account_id)
           FROM accounts a ORDER BY a.created_at_ms, a.account_id",
        &[],
        account,
    )
}

/// The account made first: its master key administers the server.
pub(crate) fn find_first_account(tx: &mut dyn Tx) -> Result<Option<AccountId>, Error> {
    let first = find(
        tx,
        "SELECT account_id FROM accounts ORDER BY created_at_ms, account_id LIMIT 1",
        &[],
        |row| Ok(row.text(0)?.to_owned()),
    )?;
    match first {
        Some(text) => {
            AccountId::parse(&text).map(Some).ok_or(Error::Unreadable { what: "account id" })
        }
        None => Ok(None),
    }
}

/// Takes the next key id of an account, None when there is no such account.
pub(crate) fn take_key_id(tx: &mut dyn Tx, account: AccountId) -> Result<Option<KeyId>, Error> {
    let number = find(
        tx,
        "UPDATE accounts SET next_key_number = next_key_number + 1
          WHERE account_id = ?1 RETURNING next_key_number - 1",
        &[Value::Text(&account.to_string())],
        |row| row.int(0),
    )?;
    Ok(number.map(|number| KeyId::numbered(account, number)))
}
