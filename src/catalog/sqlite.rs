//! The SQLite driver: one writer thread that commits in groups, a few read-only connections.
//!
//! The writer takes whatever bodies are waiting, runs them, commits once and only then answers all
//! of them; so one flush of the disk serves many callers. When one of them fails they all run again,
//! each inside a savepoint, and it rolls back alone. A commit whose durability is in doubt makes the
//! catalog suspect: nothing is written any more until a restart has read back what is really there.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, bounded};
use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, ToSql};

use crate::catalog::dialect::SQLITE;
use crate::catalog::tx::{Error, Row, Tx, Value};
use crate::catalog::{Abort, Driver, Figures, ReadBody, Write, schema};

/// Bodies in one commit at most (measured: more brings nothing).
const GROUP_MAX: usize = 256;
/// Writes that may wait before callers are held back.
const QUEUE_MAX: usize = 4096;
/// Bodies after whose commit the length of the log is looked at: looking costs as much as a look-up.
const LOG_LOOK_AFTER: usize = 32;
/// How often the helper copies before it says so. Each pass copies what was committed during the one
/// before it, so the last ones are short; and a pass into which no commit falls syncs the database.
/// Left to the writer, the sync of all that was copied would keep every caller waiting.
const CHECKPOINT_PASSES: usize = 5;
/// Statements kept prepared on each connection.
const STATEMENTS_KEPT: usize = 128;
/// The first SQLite without the WAL-reset fault, which a second checkpointing connection needs.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How the database is run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Pages in the write-ahead log from which the helper thread copies them back.
    pub(crate) wal_pages_soft: u64,
    /// Pages in the write-ahead log from which the writer itself does, before it takes more.
    pub(crate) wal_pages_hard: u64,
    /// Idle read connections that are kept open.
    pub(crate) read_connections: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { wal_pages_soft: 4_000, wal_pages_hard: 64_000, read_connections: 8 }
    }
}

struct Shared {
    path: PathBuf,
    options: Options,
    idle_readers: Mutex<Vec<Connection>>,
    config_epoch: AtomicU64,
    figures: Figures,
    suspect: Mutex<Option<String>>,
    closing: AtomicBool,
}

impl Shared {
    fn suspect(&self) -> Option<String> {
        self.suspect.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn become_suspect(&self, why: &str) {
        tracing::error!(why, "the catalog cannot make commits durable and takes no more writes");
        let mut suspect = self.suspect.lock().unwrap_or_else(PoisonError::into_inner);
        suspect.get_or_insert_with(|| why.to_owned());
    }
}

/// A running SQLite catalog.
pub(crate) struct Sqlite {
    shared: Arc<Shared>,
    queue: Mutex<Option<Sender<Box<dyn Write>>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Sqlite {
    /// Opens or makes the database at `path` and migrates it.
    pub(crate) fn open(path: &Path, options: Options) -> Result<Arc<Self>, Error> {
        let version = rusqlite::version_number();
        if version < SQLITE_VERSION_MIN {
            return Err(Error::Engine(format!(
                "SQLite {version} is too old, {SQLITE_VERSION_MIN} is needed"
            )));
        }
        let mut writer = open_writer(path)?;
        migrate(&mut writer)?;
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            options,
            idle_readers: Mutex::new(Vec::new()),
            config_epoch: AtomicU64::new(1),
            figures: Figures::default(),
            suspect: Mutex::new(None),
            closing: AtomicBool::new(false),
        });
        let (queue, waiting) = bounded(QUEUE_MAX);
        let (nudge, nudged) = bounded(1);
        let (tell, told) = bounded(1);
        let helper = Helper { nudge, done: told };
        let checkpointer = open_writer(path)?;
        let threads = vec![
            spawn("kiln-catalog", {
                let shared = Arc::clone(&shared);
                move || write_loop(writer, &shared, &waiting, &helper)
            })?,
            spawn("kiln-checkpoint", {
                let shared = Arc::clone(&shared);
                move || checkpoint_loop(&checkpointer, &shared, &nudged, &tell)
            })?,
        ];
        Ok(Arc::new(Self { shared, queue: Mutex::new(Some(queue)), threads: Mutex::new(threads) }))
    }

    fn reader(&self) -> Result<Connection, Error> {
        let idle = self.shared.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(connection) => Ok(connection),
            None => open_reader(&self.shared.path),
        }
    }

    fn put_back(&self, connection: Connection) {
        let mut idle = self.shared.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = !self.shared.closing.load(Ordering::Acquire);
        if wanted && idle.len() < self.shared.options.read_connections {
            idle.push(connection);
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|error| Error::Engine(format!("start thread {name}: {error}")))
}

impl Driver for Sqlite {
    fn submit(&self, write: Box<dyn Write>) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(why) = self.shared.suspect() {
            write.settle(Err(Error::Suspect(why)));
            return;
        }
        let Some(queue) = queue else {
            write.settle(Err(Error::Closed));
            return;
        };
        if let Err(refused) = queue.send(write) {
            refused.into_inner().settle(Err(Error::Closed));
        }
    }

    fn read(&self, body: ReadBody<'_>) -> Result<(), Abort> {
        let connection = self.reader()?;
        run_cached(&connection, "BEGIN DEFERRED", &[])?;
        let outcome = body(&mut SqliteTx::new(&connection));
        let ended = run_cached(&connection, "COMMIT", &[]);
        // A connection that could not end its transaction is dropped, which ends it.
        if ended.is_ok() {
            self.put_back(connection);
        }
        outcome?;
        ended?;
        Ok(())
    }

    fn config_epoch(&self) -> u64 {
        self.shared.config_epoch.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.shared.closing.store(true, Ordering::Release);
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a catalog thread panicked");
            }
        }
    }

    fn suspect(&self) -> Option<String> {
        self.shared.suspect()
    }

    fn figures(&self) -> &Figures {
        &self.shared.figures
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

fn open_writer(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open(path).map_err(|error| engine(&error))?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(|error| engine(&error))?;
    connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(|error| engine(&error))?;
    connection.pragma_update(None, "cache_size", -65_536).map_err(|error| engine(&error))?;
    // What is replaced or removed, wrapped keys above all, does not stay readable in free pages.
    connection.pragma_update(None, "secure_delete", "ON").map_err(|error| engine(&error))?;
    prepare_connection(&connection)?;
    Ok(connection)
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| engine(&error))?;
    connection.pragma_update(None, "cache_size", -8_192).map_err(|error| engine(&error))?;
    prepare_connection(&connection)?;
    Ok(connection)
}

/// Sets what every connection needs and reads it back: SQLite may ignore a pragma silently, and
/// durability hangs on two of them.
fn prepare_connection(connection: &Connection) -> Result<(), Error> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // Without it, a statement that a partial index might serve is planned anew at each binding.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(|error| engine(&error))?;
    connection.busy_timeout(std::time::Duration::from_secs(10)).map_err(|error| engine(&error))?;
    connection.pragma_update(None, "synchronous", "FULL").map_err(|error| engine(&error))?;
    connection.pragma_update(None, "foreign_keys", "ON").map_err(|error| engine(&error))?;
    let read_back = |name: &str| -> Result<String, Error> {
        connection
            .pragma_query_value(None, name, |row| {
                Ok(match row.get_ref(0)? {
                    ValueRef::Integer(number) => number.to_string(),
                    ValueRef::Text(text) => String::from_utf8_lossy(text).to_lowercase(),
                    _ => String::new(),
                })
            })
            .map_err(|error| engine(&error))
    };
    for (name, wanted) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")] {
        let found = read_back(name)?;
        if found != wanted {
            return Err(Error::Engine(format!(
                "SQLite keeps {name} at {found} where {wanted} is needed"
            )));
        }
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), Error> {
    run_cached(connection, "BEGIN IMMEDIATE", &[])?;
    let outcome = schema::migrate(&mut SqliteTx::new(connection));
    match outcome {
        Ok(_) => run_cached(connection, "COMMIT", &[]),
        Err(error) => {
            run_cached(connection, "ROLLBACK", &[])?;
            Err(error)
        }
    }
}

fn write_loop(
    connection: Connection,
    shared: &Shared,
    waiting: &Receiver<Box<dyn Write>>,
    helper: &Helper,
) {
    let mut unseen = 0;
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        group.extend(waiting.try_iter().take(GROUP_MAX - 1));
        unseen += group.len();
        commit_group(&connection, shared, group);
        if unseen >= LOG_LOOK_AFTER || !helper.done.is_empty() {
            keep_log_short(&connection, shared, helper);
            unseen = 0;
        }
    }
    checkpoint(&connection, "TRUNCATE");
    if let Err((_, error)) = connection.close() {
        tracing::warn!(%error, "close the catalog");
    }
}

/// A body that was run inside a savepoint and waits for the commit.
struct Ran {
    write: Box<dyn Write>,
    kept: Result<(), Error>,
    /// What went wrong in the statement that took the whole transaction with it.
    lost: Option<Error>,
}

fn commit_group(connection: &Connection, shared: &Shared, mut group: Vec<Box<dyn Write>>) {
    if let Some(why) = shared.suspect() {
        settle_all(group, &Error::Suspect(why));
        return;
    }
    if commit_together(connection, shared, &mut group) {
        return;
    }
    let mut group = group.into_iter();
    while group.len() > 0 {
        commit_some(connection, shared, &mut group);
    }
}

/// Runs and commits a group without savepoints. False when not every body wants to be kept, which
/// is rare enough: then nothing has happened, and all of them have to run again, apart.
fn commit_together(
    connection: &Connection,
    shared: &Shared,
    group: &mut Vec<Box<dyn Write>>,
) -> bool {
    if let Err(error) = run_cached(connection, "BEGIN IMMEDIATE", &[]) {
        settle_all(std::mem::take(group), &error);
        return true;
    }
    let mut tx = SqliteTx::new(connection);
    // A body that panics will do so again when it runs apart, and be told there.
    let kept = std::panic::catch_unwind(AssertUnwindSafe(|| {
        group.iter_mut().all(|write| write.run(&mut tx))
    }));
    if !matches!(kept, Ok(true)) || tx.lost.is_some() || connection.is_autocommit() {
        roll_back(connection, shared);
        return false;
    }
    let changed = tx.config_changed;
    let all = group.drain(..).map(|write| (write, Ok(()))).collect();
    conclude(connection, shared, all, changed);
    true
}

/// Runs and commits what is left of a group, or as much of it as SQLite keeps in one transaction.
fn commit_some(
    connection: &Connection,
    shared: &Shared,
    group: &mut std::vec::IntoIter<Box<dyn Write>>,
) {
    if let Err(error) = run_cached(connection, "BEGIN IMMEDIATE", &[]) {
        settle_all(group.collect(), &error);
        return;
    }
    let mut config_changed = false;
    let mut ran = Vec::with_capacity(group.len());
    for write in group {
        ran.push(run_one(connection, write, &mut config_changed));
        // Without space SQLite may give up the whole transaction, not the statement alone. What
        // ran before is undone; what comes after must not run outside of a transaction.
        if connection.is_autocommit() {
            let lost = ran.iter().find_map(|ran| ran.lost.clone());
            let lost = lost.unwrap_or_else(|| Error::Engine("a transaction ended".to_owned()));
            settle_all(ran.into_iter().map(|ran| ran.write).collect(), &lost);
            return;
        }
    }
    let ran = ran.into_iter().map(|Ran { write, kept, .. }| (write, kept)).collect();
    conclude(connection, shared, ran, config_changed);
}

/// Commits what was run and tells everybody.
fn conclude(
    connection: &Connection,
    shared: &Shared,
    ran: Vec<(Box<dyn Write>, Result<(), Error>)>,
    config_changed: bool,
) {
    let committed = run_cached(connection, "COMMIT", &[]);
    if let Err(error) = &committed {
        give_up_commit(connection, shared, error);
    }
    shared.figures.count_commit(u64::try_from(ran.len()).unwrap_or_default());
    if config_changed && committed.is_ok() {
        shared.config_epoch.fetch_add(1, Ordering::AcqRel);
    }
    for (write, kept) in ran {
        write.settle(kept.and(committed.clone()));
    }
}

fn settle_all(group: Vec<Box<dyn Write>>, error: &Error) {
    for write in group {
        write.settle(Err(error.clone()));
    }
}

/// After a failed COMMIT nothing of the group counts. Lack of space is harmless; anything else
/// leaves open what reached the disk, so nothing more is written.
fn give_up_commit(connection: &Connection, shared: &Shared, error: &Error) {
    roll_back(connection, shared);
    if !matches!(error, Error::Full | Error::Busy) {
        shared.become_suspect(&format!("commit: {error}"));
    }
}

fn roll_back(connection: &Connection, shared: &Shared) {
    if !connection.is_autocommit()
        && let Err(error) = run_cached(connection, "ROLLBACK", &[])
    {
        shared.become_suspect(&format!("roll back: {error}"));
    }
}

fn run_one(connection: &Connection, mut write: Box<dyn Write>, config_changed: &mut bool) -> Ran {
    if let Err(error) = run_cached(connection, "SAVEPOINT body", &[]) {
        return Ran { write, kept: Err(error), lost: None };
    }
    let mut tx = SqliteTx::new(connection);
    // A panic in one body must not take the other callers' commits with it.
    let keep = std::panic::catch_unwind(AssertUnwindSafe(|| write.run(&mut tx)));
    let (changed, lost) = (tx.config_changed, tx.lost.take());
    let (ending, kept) = match keep {
        Ok(true) => (None, Ok(())),
        Ok(false) => (Some("ROLLBACK TO body"), Ok(())),
        Err(_) => {
            tracing::error!(body = write.name(), "a transaction body panicked");
            (Some("ROLLBACK TO body"), Err(Error::Engine("a transaction body panicked".to_owned())))
        }
    };
    let undone = ending.map_or(Ok(()), |sql| run_cached(connection, sql, &[]));
    let ended = undone.and_then(|()| run_cached(connection, "RELEASE body", &[]));
    if ending.is_none() && ended.is_ok() {
        *config_changed |= changed;
    }
    Ran { write, kept: kept.and(ended), lost }
}

/// The thread that copies pages from the write-ahead log into the database while commits go on.
struct Helper {
    nudge: Sender<()>,
    /// Gets a word each time the helper has copied.
    done: Receiver<()>,
}

/// Lets the helper copy a long log back and, once it has, copies the few pages that came in
/// meanwhile. Only a log copied as a whole begins anew with the next commit, and writing over what
/// a file has is cheaper than growing it.
fn keep_log_short(connection: &Connection, shared: &Shared, helper: &Helper) {
    if helper.done.try_recv().is_ok() {
        checkpoint(connection, "PASSIVE");
        return;
    }
    let log = log_state(connection);
    let is_too_long = log.pages > shared.options.wal_pages_hard;
    if is_too_long || log.pages.saturating_sub(log.copied) > shared.options.wal_pages_soft {
        // A nudge that is still waiting serves as well.
        helper.nudge.try_send(()).unwrap_or_default();
    }
    if is_too_long && helper.done.recv().is_ok() {
        checkpoint(connection, "PASSIVE");
    }
}

fn checkpoint_loop(
    connection: &Connection,
    shared: &Shared,
    nudged: &Receiver<()>,
    tell: &Sender<()>,
) {
    while nudged.recv().is_ok() {
        if shared.closing.load(Ordering::Acquire) {
            break;
        }
        for _ in 0..CHECKPOINT_PASSES {
            checkpoint(connection, "PASSIVE");
        }
        // A word that is still waiting serves as well.
        tell.try_send(()).unwrap_or_default();
    }
}

/// Pages in the write-ahead log, and how many of them the database has too.
#[derive(Clone, Copy, Default)]
struct LogState {
    pages: u64,
    copied: u64,
}

fn log_state(connection: &Connection) -> LogState {
    ask_checkpoint(connection, "NOOP")
}

fn checkpoint(connection: &Connection, mode: &str) {
    ask_checkpoint(connection, mode);
}

fn ask_checkpoint(connection: &Connection, mode: &str) -> LogState {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let asked = connection.prepare_cached(&sql).and_then(|mut statement| {
        statement.query_row([], |row| {
            let count = |number: i64| u64::try_from(number).unwrap_or_default();
            Ok(LogState { pages: count(row.get(1)?), copied: count(row.get(2)?) })
        })
    });
    asked.unwrap_or_else(|error| {
        tracing::warn!(%error, mode, "checkpoint the catalog");
        LogState::default()
    })
}

struct SqliteTx<'c> {
    connection: &'c Connection,
    config_changed: bool,
    /// The error of a statement with which SQLite gave up the whole transaction.
    lost: Option<Error>,
}

impl<'c> SqliteTx<'c> {
    fn new(connection: &'c Connection) -> Self {
        Self { connection, config_changed: false, lost: None }
    }

    /// Prepares and binds a statement; nothing more runs once the transaction is lost.
    fn prepare(
        &self,
        sql: &'static str,
        params: &[Value<'_>],
    ) -> Result<rusqlite::CachedStatement<'c>, Error> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let rendered = SQLITE.render(sql);
        let mut statement =
            self.connection.prepare_cached(&rendered).map_err(|error| engine(&error))?;
        bind(&mut statement, params)?;
        Ok(statement)
    }

    /// Remembers the error when it ended the transaction as a whole.
    fn note_loss(&mut self, error: &rusqlite::Error) -> Error {
        let error = engine(error);
        if self.connection.is_autocommit() {
            self.lost.get_or_insert_with(|| error.clone());
        }
        error
    }
}

impl Tx for SqliteTx<'_> {
    fn execute(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<usize, Error> {
        let mut statement = self.prepare(sql, params)?;
        statement.raw_execute().map_err(|error| self.note_loss(&error))
    }

    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let mut statement = self.prepare(sql, params)?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| self.note_loss(&error))? {
            if !each(&SqliteRow(row))? {
                break;
            }
        }
        Ok(())
    }

    fn note_config_change(&mut self) {
        self.config_changed = true;
    }
}

fn run_cached(
    connection: &Connection,
    sql: &'static str,
    params: &[Value<'_>],
) -> Result<(), Error> {
    SqliteTx::new(connection).execute(sql, params).map(|_| ())
}

fn bind(statement: &mut rusqlite::Statement<'_>, params: &[Value<'_>]) -> Result<(), Error> {
    for (at, value) in params.iter().enumerate() {
        statement.raw_bind_parameter(at + 1, Bound(*value)).map_err(|error| engine(&error))?;
    }
    Ok(())
}

struct Bound<'a>(Value<'a>);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(number) => ValueRef::Integer(number),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

struct SqliteRow<'r, 's>(&'r rusqlite::Row<'s>);

impl SqliteRow<'_, '_> {
    fn value(&self, column: usize) -> Result<ValueRef<'_>, Error> {
        self.0.get_ref(column).map_err(|_| Error::Shape { column })
    }
}

impl Row for SqliteRow<'_, '_> {
    fn opt_int(&self, column: usize) -> Result<Option<i64>, Error> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(number) => Ok(Some(number)),
            _ => Err(Error::Shape { column }),
        }
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>, Error> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => {
                std::str::from_utf8(bytes).map(Some).map_err(|_| Error::Shape { column })
            }
            _ => Err(Error::Shape { column }),
        }
    }

    fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, Error> {
        match self.value(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(bytes) => Ok(Some(bytes)),
            _ => Err(Error::Shape { column }),
        }
    }
}

fn engine(error: &rusqlite::Error) -> Error {
    let Some(code) = error.sqlite_error() else { return Error::Engine(error.to_string()) };
    match code.code {
        ErrorCode::ConstraintViolation
            if matches!(
                code.extended_code,
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                    | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY
            ) =>
        {
            Error::Conflict
        }
        ErrorCode::DiskFull => Error::Full,
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Error::Busy,
        _ => Error::Engine(error.to_string()),
    }
}

/// Holds the lock of writers on a database from outside, until the connection is dropped.
#[cfg(test)]
pub(crate) fn lock_database(path: &Path) -> impl Drop + use<> {
    struct Held(Connection);
    impl Drop for Held {
        fn drop(&mut self) {
            self.0.execute_batch("ROLLBACK").expect("a transaction was begun");
        }
    }
    let connection = Connection::open(path).expect("the database is there");
    connection.execute_batch("BEGIN IMMEDIATE").expect("nobody else writes");
    Held(connection)
}
