//! The worker that walks buckets with lifecycle rules once a day.
//!
//! What is due and how it is done is in `operations::lifecycle`; here is only when to look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::operations::App;
use crate::operations::lifecycle::walk_due;

/// How often the worker looks whether a walk is due when nobody wakes it.
const POLL: Duration = Duration::from_mins(1);

/// The lifecycle worker of one server.
pub(crate) struct Lifecycle {
    app: Arc<App>,
    stopping: AtomicBool,
}

impl Lifecycle {
    pub(crate) fn new(app: Arc<App>) -> Arc<Self> {
        Arc::new(Self { app, stopping: AtomicBool::new(false) })
    }

    /// Runs until [`Lifecycle::stop`]. What a fault interrupts goes on at the next look.
    pub(crate) async fn run(self: Arc<Self>) {
        let goes_on = || !self.stopping.load(Ordering::SeqCst);
        while goes_on() {
            if let Err(error) = walk_due(&self.app, &goes_on).await {
                tracing::warn!(%error, "walk buckets with lifecycle rules");
            }
            if goes_on() {
                // A wake-up that was lost costs one poll interval, nothing else.
                drop(tokio::time::timeout(POLL, self.app.wake.lifecycle.notified()).await);
            }
        }
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.app.wake.lifecycle.notify_one();
    }
}
