//! A blob store that fails where a test tells it to.
//!
//! Shape: a decorator with a plan. The plan says which call of which verb goes wrong, and how; all
//! other calls pass through. A failed call does not reach the store behind it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::blobs::sealed::Sealer;
use crate::blobs::{BlobReader, BlobStore, BlobWriter, Error};
use crate::domain::blob::Placement;
use crate::domain::digest::{BlockChecks, Digests};
use crate::domain::ids::BlobId;
use crate::domain::range::ByteRange;

/// A call that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Begin,
    Write,
    Digests,
    Finish,
    Open,
    Next,
    Remove,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers [`Error::Full`].
    Full,
    /// Answers [`Error::Io`].
    Io,
    /// Answers [`Error::Suspect`].
    Suspect,
    /// Waits for [`Faults::release`] and then goes on as if nothing had been.
    Hang,
    /// For [`Verb::Finish`]: as [`Fault::Hang`], once the bytes are durable.
    HangAfter,
    /// For [`Verb::Next`]: one bit of the chunk is wrong, as if the checks had missed it.
    FlippedBit,
    /// For [`Verb::Next`]: half of the chunk comes, then a clean end.
    Short,
}

/// The plan of failures, shared by a test and the store it disturbs.
pub(crate) struct Faults {
    state: Mutex<State>,
    /// Calls that hang now, and how often they were all released.
    hanging: watch::Sender<(u64, u64)>,
}

#[derive(Default)]
struct State {
    calls: BTreeMap<Verb, u64>,
    planned: BTreeMap<(Verb, u64), Fault>,
}

impl Faults {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), hanging: watch::Sender::new((0, 0)) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the `nth` call of `verb` from now on go wrong; 1 is the next one.
    pub(crate) fn plan(&self, verb: Verb, nth: u64, fault: Fault) {
        let mut state = self.state();
        let call = state.calls.get(&verb).copied().unwrap_or(0) + nth;
        state.planned.insert((verb, call), fault);
    }

    /// How often `verb` was called.
    pub(crate) fn calls(&self, verb: Verb) -> u64 {
        self.state().calls.get(&verb).copied().unwrap_or(0)
    }

    /// Waits until `count` calls hang.
    pub(crate) async fn until_hanging(&self, count: u64) {
        let mut hanging = self.hanging.subscribe();
        hanging.wait_for(|(now, _)| *now >= count).await.expect("the sender is in self");
    }

    /// Lets all calls that hang now go on.
    pub(crate) fn release(&self) {
        self.hanging.send_modify(|(hanging, released)| {
            *hanging = 0;
            *released += 1;
        });
    }

    fn next_fault(&self, verb: Verb) -> Option<Fault> {
        let mut state = self.state();
        let calls = state.calls.entry(verb).or_default();
        *calls += 1;
        let call = *calls;
        state.planned.remove(&(verb, call))
    }

    /// Counts a call and does to it what is planned; hands on the faults that spoil answers.
    async fn strike(&self, verb: Verb) -> Result<Option<Fault>, Error> {
        const DOING: &str = "failing as planned";
        match self.next_fault(verb) {
            Some(Fault::Full) => Err(Error::Full { doing: DOING }),
            Some(Fault::Io) => {
                Err(Error::Io { doing: DOING, source: std::io::Error::other("planned") })
            }
            Some(Fault::Suspect) => Err(Error::Suspect(DOING.to_owned())),
            Some(Fault::Hang) => {
                self.hang().await;
                Ok(None)
            }
            spoiling => Ok(spoiling),
        }
    }

    async fn hang(&self) {
        let mut hanging = self.hanging.subscribe();
        let before = hanging.borrow_and_update().1;
        self.hanging.send_modify(|(now, _)| *now += 1);
        let released = hanging.wait_for(|(_, released)| *released > before).await;
        released.expect("the sender is in self");
    }
}

/// Disturbs the calls to another store.
pub(crate) struct FaultyStore {
    inner: Arc<dyn BlobStore>,
    faults: Arc<Faults>,
}

impl FaultyStore {
    pub(crate) fn new(inner: Arc<dyn BlobStore>, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl BlobStore for FaultyStore {
    fn begin(
        &self,
        id: BlobId,
        size: u64,
        sealer: Option<Sealer>,
    ) -> BoxFuture<'_, Result<Box<dyn BlobWriter>, Error>> {
        Box::pin(async move {
            self.faults.strike(Verb::Begin).await?;
            let inner = self.inner.begin(id, size, sealer).await?;
            let faults = Arc::clone(&self.faults);
            let writer: Box<dyn BlobWriter> = Box::new(FaultyWriter { inner, faults });
            Ok(writer)
        })
    }

    fn open(
        &self,
        id: BlobId,
        size: u64,
        range: ByteRange,
        checks: BlockChecks,
    ) -> BoxFuture<'_, Result<Box<dyn BlobReader>, Error>> {
        Box::pin(async move {
            self.faults.strike(Verb::Open).await?;
            let inner = self.inner.open(id, size, range, checks).await?;
            let faults = Arc::clone(&self.faults);
            let reader: Box<dyn BlobReader> =
                Box::new(FaultyReader { inner, faults, ended: false });
            Ok(reader)
        })
    }

    fn remove(&self, id: BlobId) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.faults.strike(Verb::Remove).await?;
            self.inner.remove(id).await
        })
    }

    fn list(
        &self,
        after: Option<BlobId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<BlobId>, Error>> {
        self.inner.list(after, limit)
    }

    fn suspect(&self) -> Option<String> {
        self.inner.suspect()
    }
}

struct FaultyWriter {
    inner: Box<dyn BlobWriter>,
    faults: Arc<Faults>,
}

impl BlobWriter for FaultyWriter {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            self.faults.strike(Verb::Write).await?;
            self.inner.write(chunk).await
        })
    }

    fn digests(&mut self) -> BoxFuture<'_, Result<Digests, Error>> {
        Box::pin(async move {
            self.faults.strike(Verb::Digests).await?;
            self.inner.digests().await
        })
    }

    fn finish(self: Box<Self>) -> BoxFuture<'static, Result<Placement, Error>> {
        Box::pin(async move {
            let fault = self.faults.strike(Verb::Finish).await?;
            let placement = self.inner.finish().await?;
            if fault == Some(Fault::HangAfter) {
                self.faults.hang().await;
            }
            Ok(placement)
        })
    }
}

struct FaultyReader {
    inner: Box<dyn BlobReader>,
    faults: Arc<Faults>,
    ended: bool,
}

impl FaultyReader {
    async fn chunk(&mut self) -> Option<Result<Bytes, Error>> {
        let fault = match self.faults.strike(Verb::Next).await {
            Ok(fault) => fault,
            Err(error) => return Some(Err(error)),
        };
        let chunk = match self.inner.next().await? {
            Ok(chunk) => chunk,
            Err(error) => return Some(Err(error)),
        };
        match fault {
            Some(Fault::FlippedBit) => {
                let mut wrong = chunk.to_vec();
                if let Some(first) = wrong.first_mut() {
                    *first ^= 1;
                }
                Some(Ok(Bytes::from(wrong)))
            }
            Some(Fault::Short) => {
                self.ended = true;
                Some(Ok(chunk.slice(..chunk.len() / 2)))
            }
            _ => Some(Ok(chunk)),
        }
    }
}

impl BlobReader for FaultyReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, Error>>> {
        Box::pin(async move {
            if self.ended {
                return None;
            }
            let chunk = self.chunk().await;
            self.ended |= !matches!(chunk, Some(Ok(_)));
            chunk
        })
    }
}
