//! The version of the configuration: buckets, keys and accounts together.
//!
//! Who prepared something from cached facts compares the version inside the transaction; equal
//! versions prove that the facts still hold.

use crate::catalog::tx::{Error, Tx, find};

/// Must be part of every transaction that changes a bucket, a key or an account.
pub(crate) fn touch(tx: &mut dyn Tx) -> Result<(), Error> {
    tx.execute("UPDATE config_versions SET version = version + 1 WHERE scope = 'all'", &[])?;
    tx.note_config_change();
    Ok(())
}

pub(crate) fn current(tx: &mut dyn Tx) -> Result<i64, Error> {
    find(tx, "SELECT version FROM config_versions WHERE scope = 'all'", &[], |row| row.int(0))?
        .ok_or(Error::Unreadable { what: "configuration version" })
}
