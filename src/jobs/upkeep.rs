//! Upkeep: small steps that keep the catalog ahead of what the server draws from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::catalog::server_facts;
use crate::operations::App;
use crate::operations::error::Error;

/// How often there is a look; a mark of numbers lasts for half a minute.
const POLL: Duration = Duration::from_secs(1);

/// The upkeep of one server.
pub(crate) struct Upkeep {
    app: Arc<App>,
    stopping: AtomicBool,
    stopped: Notify,
}

impl Upkeep {
    pub(crate) fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self { app, stopping: AtomicBool::new(false), stopped: Notify::new() })
    }

    /// Runs until [`Upkeep::stop`].
    pub(crate) async fn run(self: Arc<Self>) {
        let mut failures = 0_u32;
        while !self.stopping.load(Ordering::SeqCst) {
            match self.look().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if failures == 1 || failures.is_multiple_of(60) {
                        tracing::warn!(%error, failures, "keep the catalog up");
                    }
                }
            }
            drop(tokio::time::timeout(POLL, self.stopped.notified()).await);
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.stopped.notify_one();
    }

    /// One look at everything that may be due.
    pub(crate) async fn look(&self) -> Result<(), Error> {
        self.store_mark().await
    }

    /// Stores the next mark of numbers when one is due, and then lets it be used.
    async fn store_mark(&self) -> Result<(), Error> {
        let Some(mark) = self.app.numbers.due_mark(self.app.clock.now()) else { return Ok(()) };
        self.app
            .catalog
            .write("raise_number_mark", move |tx| Ok(server_facts::raise_number_mark(tx, mark)?))
            .await?;
        self.app.numbers.raise_mark(mark);
        Ok(())
    }
}
