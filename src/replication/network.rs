//! Remotes over the network.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::domain::remote::{Remote, RemoteToken};
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::replication::destination::store::{Pace, RemoteStore, Remotes};

/// Opens remotes over the network.
pub(crate) struct Network;

struct NoPace;

impl Pace for NoPace {
    fn admit(&self, _bytes: u64) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

impl Remotes for Network {
    fn open<'a>(
        &'a self,
        _remote: &'a Remote,
        _token: RemoteToken,
    ) -> BoxFuture<'a, Result<Arc<dyn RemoteStore>, RemoteFault>> {
        async {
            Err(RemoteFault {
                class: AnswerClass::Unreachable,
                status: 0,
                code: String::new(),
                text: "no client yet".to_owned(),
                retry_after_ms: None,
                is_ambiguous: false,
            })
        }
        .boxed()
    }

    fn pace(&self, _remote: &Remote) -> Arc<dyn Pace> {
        Arc::new(NoPace)
    }
}
