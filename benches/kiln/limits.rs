//! What SQLite does with the same rows when no server stands before it.
//!
//! The tables have the shape of the server's own; the file is on the same file system as the data
//! of the server under test and is written with the same durability.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use crate::Fallible;
use crate::bodies::{Names, Random};
use crate::load::{Round, micros};
use crate::process::Watch;

const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA cache_size = -65536;";
const SCHEMA: &str = "
    CREATE TABLE files (
        bucket INTEGER NOT NULL,
        name TEXT NOT NULL,
        sort_upload INTEGER NOT NULL,
        number INTEGER NOT NULL,
        action INTEGER NOT NULL,
        is_newest INTEGER NOT NULL,
        size INTEGER NOT NULL,
        sha1 BLOB NOT NULL,
        md5 BLOB NOT NULL,
        content_type TEXT NOT NULL,
        info TEXT NOT NULL,
        blob INTEGER NOT NULL,
        replication INTEGER NOT NULL,
        PRIMARY KEY (bucket, name, sort_upload)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX files_by_number ON files (number);
    CREATE TABLE blobs (
        blob INTEGER PRIMARY KEY,
        uses INTEGER NOT NULL,
        size INTEGER NOT NULL,
        data BLOB NOT NULL
    );";

const INSERT_FILE: &str = "INSERT INTO files VALUES (1, ?1, ?2, ?3, 0, 1, ?4, ?5, ?6, \
    'application/octet-stream', '{}', ?3, 0)";
const INSERT_BLOB: &str = "INSERT INTO blobs VALUES (?1, 1, ?2, ?3)";
const PAGE: &str = "SELECT name, sort_upload, number, action, size, sha1, md5, content_type, info, \
    replication FROM files WHERE bucket = 1 AND name >= ?1 AND is_newest = 1 \
    ORDER BY name, sort_upload LIMIT ?2";

/// How many names a page of a listing has.
pub(crate) const PAGE_NAMES: u32 = 1000;

/// What is committed for one upload.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    /// The row of the file alone.
    File,
    /// And a row with its content.
    FileAndBody(&'a [u8]),
}

/// Puts the rows of one upload into a transaction.
fn insert(transaction: &Transaction<'_>, number: u64, name: &str, rows: Rows<'_>) -> Fallible<()> {
    let number = number.cast_signed();
    let size = match rows {
        Rows::File => 4096,
        Rows::FileAndBody(body) => i64::try_from(body.len())?,
    };
    let mut random = Random::new(number.cast_unsigned());
    let digest: Vec<u8> = (0..5).flat_map(|_| random.next().to_le_bytes()).collect();
    // As the server does it: newest first, so sort values fall.
    let sort_upload = -1_700_000_000_000 - number;
    transaction.prepare_cached(INSERT_FILE)?.execute(params![
        name,
        sort_upload,
        number,
        size,
        &digest[..20],
        &digest[20..36]
    ])?;
    if let Rows::FileAndBody(body) = rows {
        transaction.prepare_cached(INSERT_BLOB)?.execute(params![number, size, body])?;
    }
    Ok(())
}

fn open(folder: &Path) -> Fallible<Connection> {
    let mut connection = Connection::open(folder.join("limit.db"))?;
    connection.execute_batch(SETTINGS)?;
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    Ok(connection)
}

fn create(folder: &Path) -> Fallible<Connection> {
    let connection = open(folder)?;
    connection.execute_batch(SCHEMA)?;
    Ok(connection)
}

/// Copies the write-ahead log back beside the commits, as a server would: a writer that does it
/// itself stands still for long.
struct Checkpoints {
    nudge: SyncSender<()>,
    done: Receiver<()>,
    thread: JoinHandle<Result<(), rusqlite::Error>>,
}

impl Checkpoints {
    fn start(folder: &Path) -> Fallible<Self> {
        let connection = open(folder)?;
        let (nudge, nudged) = sync_channel(1);
        let (tell, done) = sync_channel(1);
        let thread = thread::spawn(move || {
            while nudged.recv().is_ok() {
                // As often as the server does it, and for the same reason.
                for _ in 0..5 {
                    checkpoint(&connection, "PASSIVE")?;
                }
                // A word that is still waiting serves as well.
                tell.try_send(()).ok();
            }
            Ok(())
        });
        Ok(Self { nudge, done, thread })
    }

    /// To be called by the writer after each commit.
    fn after_commit(&self, writer: &Connection) -> Fallible<()> {
        const PAGES: i64 = 4000;
        if self.done.try_recv().is_ok() {
            // The few pages that came in meanwhile, so that the log begins anew.
            checkpoint(writer, "PASSIVE")?;
        } else if checkpoint(writer, "NOOP")? > PAGES {
            self.nudge.try_send(()).ok();
        }
        Ok(())
    }

    fn end(self) -> Fallible<()> {
        drop(self.nudge);
        Ok(self.thread.join().map_err(|_| "the checkpointing thread panicked")??)
    }
}

/// Returns how many pages are in the log and not yet in the database.
fn checkpoint(connection: &Connection, mode: &str) -> Result<i64, rusqlite::Error> {
    connection
        .prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?
        .query_row([], |row| Ok(row.get::<_, i64>(1)? - row.get::<_, i64>(2)?))
}

/// Commits of one upload's rows each, one after the other.
pub(crate) fn lone_commits(folder: &Path, time: Duration, rows: Rows<'_>) -> Fallible<Round> {
    let mut connection = create(folder)?;
    let checkpoints = Checkpoints::start(folder)?;
    let watch = Watch::new(&[]);
    let before = watch.sample()?;
    let start = Instant::now();
    let mut latencies = Vec::new();
    let mut mark = start;
    while mark - start < time {
        let number = latencies.len() as u64;
        let transaction = connection.transaction()?;
        insert(&transaction, number, &Names::Flat.get(number), rows)?;
        transaction.commit()?;
        checkpoints.after_commit(&connection)?;
        let now = Instant::now();
        latencies.push(micros(now - mark));
        mark = now;
    }
    let seconds = start.elapsed().as_secs_f64();
    let usage = before.until(&watch.sample()?);
    checkpoints.end()?;
    Ok(Round::new(latencies, 0, seconds, usage))
}

/// One upload that waits to be committed.
struct Waiting {
    number: u64,
    done: SyncSender<()>,
}

/// Commits of whatever is waiting, by one writer, with this many threads waiting for theirs.
pub(crate) fn group_commits(
    folder: &Path,
    threads: u64,
    time: Duration,
    rows: Rows<'_>,
) -> Fallible<Round> {
    let connection = create(folder)?;
    let checkpoints = Checkpoints::start(folder)?;
    let watch = Watch::new(&[]);
    let stop = AtomicBool::new(false);
    let before = watch.sample()?;
    let start = Instant::now();
    let latencies = thread::scope(|scope| -> Fallible<Vec<u32>> {
        let (queue, waiting) = sync_channel(usize::try_from(threads)?);
        let writer = scope.spawn(move || {
            commit_groups(connection, &checkpoints, &waiting, rows)
                .and_then(|()| checkpoints.end())
                .map_err(|failure| failure.to_string())
        });
        let waiters: Vec<_> = (0..threads)
            .map(|thread| {
                let queue = queue.clone();
                let stop = &stop;
                scope.spawn(move || wait_for_commits(&queue, thread, threads, stop))
            })
            .collect();
        drop(queue);
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        let mut latencies = Vec::new();
        for waiter in waiters {
            latencies.append(&mut waiter.join().map_err(|_| "a waiting thread panicked")?);
        }
        writer.join().map_err(|_| "the writing thread panicked")??;
        Ok(latencies)
    })?;
    Ok(Round::new(latencies, 0, start.elapsed().as_secs_f64(), before.until(&watch.sample()?)))
}

/// Returns when all who could wait have gone.
fn commit_groups(
    mut connection: Connection,
    checkpoints: &Checkpoints,
    waiting: &Receiver<Waiting>,
    rows: Rows<'_>,
) -> Fallible<()> {
    let mut group = Vec::new();
    while let Ok(first) = waiting.recv() {
        group.push(first);
        group.extend(waiting.try_iter());
        let transaction = connection.transaction()?;
        for upload in &group {
            insert(&transaction, upload.number, &Names::Flat.get(upload.number), rows)?;
        }
        transaction.commit()?;
        for upload in group.drain(..) {
            // Who has stopped waiting does not want to know.
            upload.done.send(()).ok();
        }
        checkpoints.after_commit(&connection)?;
    }
    Ok(())
}

/// Takes the numbers that leave the remainder `first` when divided by `stride`.
fn wait_for_commits(
    queue: &SyncSender<Waiting>,
    first: u64,
    stride: u64,
    stop: &AtomicBool,
) -> Vec<u32> {
    let (done, committed) = sync_channel(1);
    let mut latencies = Vec::new();
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        let mark = Instant::now();
        // Both fail only when the writer has failed, and it tells why itself.
        if queue.send(Waiting { number, done: done.clone() }).is_err() || committed.recv().is_err()
        {
            break;
        }
        latencies.push(micros(mark.elapsed()));
        number += stride;
    }
    latencies
}

/// A table of files to page through.
pub(crate) struct Cursor {
    connection: Connection,
    files: u64,
    random: Random,
}

impl Cursor {
    /// Fills a table with the names of the tree, in the order in which they would be uploaded.
    pub(crate) fn prepare(folder: &Path, files: u64) -> Fallible<Self> {
        let mut writing = create(folder)?;
        for start in (0..files).step_by(1000) {
            let transaction = writing.transaction()?;
            for number in start..files.min(start + 1000) {
                insert(&transaction, number, &Names::Tree.get(number), Rows::File)?;
            }
            transaction.commit()?;
        }
        writing.close().map_err(|(_, failure)| failure)?;
        let path = folder.join("limit.db");
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Ok(Self { connection, files, random: Random::new(1) })
    }

    /// Reads pages from random places, every column that a listing shows.
    pub(crate) fn pages(&mut self, time: Duration) -> Fallible<Round> {
        let watch = Watch::new(&[]);
        let before = watch.sample()?;
        let start = Instant::now();
        let mut latencies = Vec::new();
        let mut bytes = 0;
        let mut mark = start;
        while mark - start < time {
            let name = page_start(&mut self.random, self.files);
            bytes += self.page(&name)?;
            let now = Instant::now();
            latencies.push(micros(now - mark));
            mark = now;
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok(Round::new(latencies, bytes, seconds, before.until(&watch.sample()?)))
    }

    fn page(&self, start: &str) -> Fallible<u64> {
        let mut statement = self.connection.prepare_cached(PAGE)?;
        let mut rows = statement.query(params![start, PAGE_NAMES])?;
        let mut names = 0;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            names += 1;
            for column in [0, 7, 8] {
                read += row.get_ref(column)?.as_str()?.len();
            }
            for column in [5, 6] {
                read += row.get_ref(column)?.as_blob()?.len();
            }
            for column in [1, 2, 3, 4, 9] {
                std::hint::black_box(row.get_ref(column)?.as_i64()?);
                read += 8;
            }
        }
        if names != PAGE_NAMES {
            return Err(format!("a page of {names} names").into());
        }
        Ok(read as u64)
    }
}

/// A name from which a whole page can still be listed.
pub(crate) fn page_start(random: &mut Random, files: u64) -> String {
    let places = usize::try_from(files - u64::from(PAGE_NAMES) + 1)
        .expect("the number of files fits a machine word");
    Names::sorted(files, random.below(places) as u64)
}
