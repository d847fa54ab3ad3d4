//! A destination that fails as a test planned.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

use crate::domain::ids::BucketId;
use crate::domain::replication::Reason;
use crate::operations::App;
use crate::replication::destination::{Carried, Destination, Failure, Progress};
use crate::replication::gate::Passed;

/// What shall go wrong with a call.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Fail(Reason),
    Panic,
    /// Waits until the plan is told to let go.
    Hang,
}

/// Calls that shall go wrong, by destination.
#[derive(Default)]
pub(crate) struct FaultPlan {
    faults: Mutex<Vec<(BucketId, usize, Fault)>>,
    pub(crate) let_go: Notify,
    calls: Mutex<Vec<BucketId>>,
}

impl FaultPlan {
    /// The next `times` calls for `destination` go wrong.
    pub(crate) fn plan(&self, destination: BucketId, times: usize, fault: Fault) {
        self.faults.lock().expect("no panic while planning").push((destination, times, fault));
    }

    /// How many calls there were for `destination`.
    pub(crate) fn calls_for(&self, destination: BucketId) -> usize {
        let calls = self.calls.lock().expect("no panic while counting");
        calls.iter().filter(|called| **called == destination).count()
    }

    fn next(&self, destination: BucketId) -> Option<Fault> {
        self.calls.lock().expect("no panic while counting").push(destination);
        let mut faults = self.faults.lock().expect("no panic while planning");
        let at = faults.iter().position(|(of, times, _)| *of == destination && *times > 0)?;
        let (_, times, fault) = &mut faults[at];
        *times -= 1;
        Some(fault.clone())
    }
}

/// Wraps a destination.
pub(crate) struct Faulty {
    pub(crate) inner: Arc<dyn Destination>,
    pub(crate) plan: Arc<FaultPlan>,
}

impl Destination for Faulty {
    fn carry<'a>(
        &'a self,
        app: &'a App,
        passed: &'a Passed,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Carried, Failure>> {
        async move {
            match self.plan.next(passed.destination.id) {
                None => self.inner.carry(app, passed, progress).await,
                Some(Fault::Fail(reason)) => {
                    Err(Failure { reason, text: "planned by a test".to_owned() })
                }
                Some(Fault::Panic) => panic!("planned by a test"),
                Some(Fault::Hang) => {
                    self.plan.let_go.notified().await;
                    self.inner.carry(app, passed, progress).await
                }
            }
        }
        .boxed()
    }
}
