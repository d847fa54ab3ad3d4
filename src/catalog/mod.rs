//! Facts: everything the server has promised to remember, in one SQL database.
//!
//! Kept here: accounts, keys, buckets, file versions, small bodies, replication jobs, walks. Deliberately
//! not here: rules (they are in `domain` and in the bodies of `operations`), larger bytes, HTTP.
//! Operations and the workers call. The promise that would break first: a write that answered Ok
//! survives the loss of power at that instant.
//!
//! A *body* is a plain function over a [`Tx`]. It may run more than once, so it has no effects
//! outside the transaction: no await, no file, no clock, no network.

pub(crate) mod accounts;
pub(crate) mod blob_refs;
pub(crate) mod buckets;
pub(crate) mod config_versions;
pub(crate) mod dialect;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod lifecycle;
pub(crate) mod notifications;
pub(crate) mod parts;
pub(crate) mod remotes;
pub(crate) mod replicas;
pub(crate) mod replication;
pub(crate) mod reset;
pub(crate) mod ring_keys;
pub(crate) mod schema;
pub(crate) mod server_facts;
pub(crate) mod sqlite;
pub(crate) mod streams;
pub(crate) mod tx;
pub(crate) mod usage;

#[cfg(test)]
mod contract;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, oneshot};

use crate::domain::refusal::Refusal;
pub(crate) use tx::{Error, Tx};

/// Why a body ended without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Abort {
    Refused(Refusal),
    Catalog(Error),
}

impl Abort {
    /// Whether it is certain that nothing of the body was kept: it said no itself, it never ran, or
    /// it was rolled back. Of a commit that failed otherwise nobody knows what reached the disk.
    pub(crate) fn kept_nothing(&self) -> bool {
        !matches!(self, Self::Catalog(Error::Engine(_) | Error::Closed))
    }
}

impl From<Refusal> for Abort {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Error> for Abort {
    fn from(error: Error) -> Self {
        Self::Catalog(error)
    }
}

/// A write on its way to the engine: run inside a transaction, then told how the commit went.
pub(crate) trait Write: Send {
    /// For metrics and logs.
    fn name(&self) -> &'static str;
    /// Runs the body; true keeps its effects, false rolls them back.
    fn run(&mut self, tx: &mut dyn Tx) -> bool;
    /// Called once, after the commit or its failure.
    fn settle(self: Box<Self>, committed: Result<(), Error>);
}

/// A body that only reads, as an engine takes it.
pub(crate) type ReadBody<'a> = &'a mut dyn FnMut(&mut dyn Tx) -> Result<(), Abort>;

/// An SQL engine.
pub(crate) trait Driver: Send + Sync {
    /// Hands a write over. The engine settles it in any case, also when it is closed.
    fn submit(&self, write: Box<dyn Write>);
    /// Runs a reading body on this thread, against one snapshot.
    fn read(&self, body: ReadBody<'_>) -> Result<(), Abort>;
    /// Grows with each commit that changed buckets, keys or accounts.
    fn config_epoch(&self) -> u64;
    /// Commits what was submitted, brings the database into its resting form and closes it.
    fn close(&self);
    /// Why nothing is written any more, after a failure to make a commit durable.
    fn suspect(&self) -> Option<String>;
    /// Figures for the metrics.
    fn figures(&self) -> &Figures;
}

/// What the engine did so far.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) commits: AtomicU64,
    pub(crate) bodies: AtomicU64,
}

impl Figures {
    pub(crate) fn count_commit(&self, bodies: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.bodies.fetch_add(bodies, Ordering::Relaxed);
    }
}

/// Longer reading bodies at a time. Each holds a connection with its cache, and a page in memory;
/// more of them would not be faster, and a caller could ask for memory without end.
const SCANS_MAX: usize = 16;

/// The door to the facts.
#[derive(Clone)]
pub(crate) struct Catalog {
    driver: Arc<dyn Driver>,
    scans: Arc<Semaphore>,
}

struct Pending<T, B> {
    name: &'static str,
    body: B,
    outcome: Option<Result<T, Abort>>,
    answer: oneshot::Sender<Result<T, Abort>>,
}

impl<T, B> Write for Pending<T, B>
where
    T: Send,
    B: Fn(&mut dyn Tx) -> Result<T, Abort> + Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn run(&mut self, tx: &mut dyn Tx) -> bool {
        let outcome = (self.body)(tx);
        let keep = outcome.is_ok();
        self.outcome = Some(outcome);
        keep
    }

    fn settle(self: Box<Self>, committed: Result<(), Error>) {
        let answer = match (committed, self.outcome) {
            (_, Some(Err(abort))) => Err(abort),
            (Err(error), _) => Err(Abort::Catalog(error)),
            (Ok(()), Some(done)) => done,
            (Ok(()), None) => Err(Abort::Catalog(Error::Engine(format!(
                "{} ended without an outcome",
                self.name
            )))),
        };
        // Nobody listening means that the caller went away; the commit stands all the same.
        drop(self.answer.send(answer));
    }
}

impl Catalog {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, scans: Arc::new(Semaphore::new(SCANS_MAX)) }
    }

    /// Runs `body` in a transaction and answers after its commit is durable.
    pub(crate) async fn write<T, B>(&self, name: &'static str, body: B) -> Result<T, Abort>
    where
        T: Send + 'static,
        B: Fn(&mut dyn Tx) -> Result<T, Abort> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.driver.submit(Box::new(Pending { name, body, outcome: None, answer }));
        answered.await.unwrap_or(Err(Abort::Catalog(Error::Closed)))
    }

    /// Runs a short reading body on this thread: a look-up by key, a handful of rows.
    pub(crate) fn read<T>(
        &self,
        mut body: impl FnMut(&mut dyn Tx) -> Result<T, Abort>,
    ) -> Result<T, Abort> {
        let mut outcome = None;
        self.driver.read(&mut |tx| {
            outcome = Some(body(tx)?);
            Ok(())
        })?;
        outcome.ok_or(Abort::Catalog(Error::Closed))
    }

    /// Runs a longer reading body, a page of a listing, away from the threads that serve requests.
    pub(crate) async fn scan<T, B>(&self, body: B) -> Result<T, Abort>
    where
        T: Send + 'static,
        B: FnMut(&mut dyn Tx) -> Result<T, Abort> + Send + 'static,
    {
        let turn = Arc::clone(&self.scans).acquire_owned().await;
        let turn = turn.map_err(|_| Abort::Catalog(Error::Closed))?;
        let catalog = self.clone();
        // The turn ends with the work: a caller who goes away does not end what runs.
        let work = move || {
            let outcome = catalog.read(body);
            drop(turn);
            outcome
        };
        let joined = tokio::task::spawn_blocking(work).await;
        joined.unwrap_or_else(|panic| Err(Abort::Catalog(Error::Engine(panic.to_string()))))
    }

    pub(crate) fn config_epoch(&self) -> u64 {
        self.driver.config_epoch()
    }

    pub(crate) fn suspect(&self) -> Option<String> {
        self.driver.suspect()
    }

    pub(crate) fn figures(&self) -> &Figures {
        self.driver.figures()
    }

    pub(crate) fn close(&self) {
        self.driver.close();
    }
}
