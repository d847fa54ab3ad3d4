//! Facts about this server: its instance id and the sealed keys its tokens are signed with.

use crate::catalog::tx::{Error, Tx, Value, find};

/// Names this data folder among others; part of the origin of replicas.
pub(crate) const INSTANCE_ID: &str = "instance_id";

pub(crate) fn find_fact(tx: &mut dyn Tx, name: &str) -> Result<Option<Vec<u8>>, Error> {
    find(tx, "SELECT value FROM server_facts WHERE name = ?1", &[Value::Text(name)], |row| {
        Ok(row.bytes(0)?.to_vec())
    })
}

pub(crate) fn insert_fact(tx: &mut dyn Tx, name: &str, value: &[u8]) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO server_facts (name, value) VALUES (?1, ?2)",
        &[Value::Text(name), Value::Bytes(value)],
    )?;
    Ok(())
}

/// The value of a fact; `fresh` becomes it when there is none yet.
pub(crate) fn keep_fact(tx: &mut dyn Tx, name: &str, fresh: &[u8]) -> Result<Vec<u8>, Error> {
    if let Some(known) = find_fact(tx, name)? {
        return Ok(known);
    }
    insert_fact(tx, name, fresh)?;
    Ok(fresh.to_vec())
}

/// Stores a fact, whether it was there before or not.
pub(crate) fn put_fact(tx: &mut dyn Tx, name: &str, value: &[u8]) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO server_facts (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        &[Value::Text(name), Value::Bytes(value)],
    )?;
    Ok(())
}

/// Forgets a fact; it need not be there.
pub(crate) fn remove_fact(tx: &mut dyn Tx, name: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM server_facts WHERE name = ?1", &[Value::Text(name)])?;
    Ok(())
}

/// Takes the next number of a counter.
pub(crate) fn take_number(tx: &mut dyn Tx, counter: &str) -> Result<i64, Error> {
    find(
        tx,
        "UPDATE counters SET next = next + 1 WHERE name = ?1 RETURNING next - 1",
        &[Value::Text(counter)],
        |row| row.int(0),
    )?
    .ok_or(Error::Unreadable { what: "counter" })
}

/// The mark of numbers of versions and blobs: every one that was ever drawn is below it.
const NUMBERS: &str = "version_or_blob";

/// How far numbers of versions and blobs may have been drawn.
pub(crate) fn number_mark(tx: &mut dyn Tx) -> Result<i64, Error> {
    find(tx, "SELECT next FROM counters WHERE name = ?1", &[Value::Text(NUMBERS)], |row| {
        row.int(0)
    })?
    .ok_or(Error::Unreadable { what: "counter" })
}

/// Moves the mark of numbers forward; it never goes back.
pub(crate) fn raise_number_mark(tx: &mut dyn Tx, mark: i64) -> Result<(), Error> {
    tx.execute(
        "UPDATE counters SET next = ?2 WHERE name = ?1 AND next < ?2",
        &[Value::Text(NUMBERS), Value::Int(mark)],
    )?;
    Ok(())
}
