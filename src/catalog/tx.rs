//! The waist between the catalog's statements and the SQL engines: a transaction, its values, its
//! rows, and what can go wrong.
//!
//! Statements are written once for SQLite and PostgreSQL. Rules of the dialect: parameters are
//! `?1 ?2 …`; numbers are BIGINT, booleans are 0 or 1, times are milliseconds; parameters whose
//! type no column shows are cast; prefix searches are half-open ranges; no `SELECT *`; the tokens
//! are those of [`crate::catalog::dialect`].

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn opt_int(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Int)
    }

    pub(crate) fn opt_text(value: Option<&'a str>) -> Self {
        value.map_or(Self::Null, Value::Text)
    }
}

/// One row of an answer. A column that holds another type is an [`Error::Shape`].
pub(crate) trait Row {
    fn opt_int(&self, column: usize) -> Result<Option<i64>, Error>;
    fn opt_text(&self, column: usize) -> Result<Option<&str>, Error>;
    fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, Error>;

    fn int(&self, column: usize) -> Result<i64, Error> {
        self.opt_int(column)?.ok_or(Error::Shape { column })
    }

    fn text(&self, column: usize) -> Result<&str, Error> {
        self.opt_text(column)?.ok_or(Error::Shape { column })
    }

    fn bytes(&self, column: usize) -> Result<&[u8], Error> {
        self.opt_bytes(column)?.ok_or(Error::Shape { column })
    }

    fn flag(&self, column: usize) -> Result<bool, Error> {
        Ok(self.int(column)? != 0)
    }
}

/// An open transaction. Bodies get it by reference and cannot keep it.
pub(crate) trait Tx {
    /// Runs a statement and answers how many rows it changed.
    fn execute(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<usize, Error>;

    /// Runs a query and hands each row to `each` until that answers false.
    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<bool, Error>,
    ) -> Result<(), Error>;

    /// Notes that cached buckets and keys are stale once this transaction commits.
    fn note_config_change(&mut self);
}

/// The first row of a query, mapped; None when there is no row.
pub(crate) fn find<T>(
    tx: &mut dyn Tx,
    sql: &'static str,
    params: &[Value<'_>],
    map: impl Fn(&dyn Row) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    let mut found = None;
    tx.query(sql, params, &mut |row| {
        found = Some(map(row)?);
        Ok(false)
    })?;
    Ok(found)
}

/// All rows of a query, mapped. The statement itself limits how many there can be.
pub(crate) fn collect<T>(
    tx: &mut dyn Tx,
    sql: &'static str,
    params: &[Value<'_>],
    map: impl Fn(&dyn Row) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut rows = Vec::new();
    tx.query(sql, params, &mut |row| {
        rows.push(map(row)?);
        Ok(true)
    })?;
    Ok(rows)
}

/// What went wrong below the catalog. Callers branch on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A row with this key is there already.
    #[error("a row with this key exists")]
    Conflict,
    /// The key that a new blob was wrapped with may no longer be used; trying again helps.
    #[error("key {0} of the key ring was retired meanwhile")]
    RingKeyRetired(i64),
    /// The disk is full; nothing of the transaction was kept.
    #[error("no space left for the catalog")]
    Full,
    /// Another program holds the database; trying again may help.
    #[error("the catalog is busy")]
    Busy,
    /// A commit could not be made durable; nothing is written any more until a restart.
    #[error("the catalog is suspect and takes no writes: {0}")]
    Suspect(String),
    /// The server is stopping.
    #[error("the catalog is closed")]
    Closed,
    /// A column does not hold what the code expects: a bug or a damaged database.
    #[error("column {column} has an unexpected type")]
    Shape { column: usize },
    /// A stored value cannot be read back: a bug or a damaged database.
    #[error("stored {what} is unreadable")]
    Unreadable { what: &'static str },
    /// Anything else the engine said.
    #[error("{0}")]
    Engine(String),
}
