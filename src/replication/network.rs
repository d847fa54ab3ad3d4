//! Remotes over the network: their clients are kept while their settings stay as they are, so that
//! connections and authorizations are used again; and their limits of speed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::domain::remote::{Remote, RemoteId, RemoteToken};
use crate::domain::remote_answer::RemoteFault;
use crate::replication::destination::Progress;
use crate::replication::destination::remote::{RemoteLines, connect};
use crate::replication::destination::store::{Pace, RemoteStore, Remotes};
use crate::replication::pace::{Limit, LimitedPace, Rates};

/// A client, and the settings that it was made by.
struct Kept {
    remote: Remote,
    token: RemoteToken,
    store: Arc<dyn RemoteStore>,
}

impl Kept {
    fn fits(&self, remote: &Remote, token: &RemoteToken) -> bool {
        self.remote == *remote && self.token == *token
    }
}

/// Opens remotes over the network.
pub(crate) struct Network {
    lines: RemoteLines,
    clock: Arc<dyn Clock>,
    kept: Mutex<BTreeMap<RemoteId, Kept>>,
    limits: Mutex<BTreeMap<RemoteId, Arc<Limit>>>,
    /// Of all remotes together.
    all: Arc<Limit>,
}

impl Network {
    /// `bytes_per_second` is what all remotes together may be sent; None without a limit.
    pub(crate) fn new(
        lines: RemoteLines,
        clock: Arc<dyn Clock>,
        bytes_per_second: Option<u64>,
    ) -> Self {
        let all = Arc::new(Limit::new(Arc::clone(&clock), Rates::always(bytes_per_second)));
        Self { lines, clock, kept: Mutex::default(), limits: Mutex::default(), all }
    }

    fn kept(&self, remote: &Remote, token: &RemoteToken) -> Option<Arc<dyn RemoteStore>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = kept.get(&remote.id).filter(|kept| kept.fits(remote, token))?;
        Some(Arc::clone(&kept.store))
    }
}

impl Remotes for Network {
    fn open<'a>(
        &'a self,
        remote: &'a Remote,
        token: RemoteToken,
    ) -> BoxFuture<'a, Result<Arc<dyn RemoteStore>, RemoteFault>> {
        async move {
            if let Some(store) = self.kept(remote, &token) {
                return Ok(store);
            }
            let store = connect(remote, &token, &self.lines).await?;
            let kept = Kept { remote: remote.clone(), token, store: Arc::clone(&store) };
            self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(remote.id, kept);
            Ok(store)
        }
        .boxed()
    }

    fn pace(&self, remote: &Remote, progress: &Progress) -> Arc<dyn Pace> {
        let rates = Rates::of(&remote.options);
        let limit = {
            let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = || Arc::new(Limit::new(Arc::clone(&self.clock), Rates::default()));
            Arc::clone(limits.entry(remote.id).or_insert_with(fresh))
        };
        limit.set_rates(rates);
        Arc::new(LimitedPace::new(vec![limit, Arc::clone(&self.all)], progress.clone()))
    }
}
