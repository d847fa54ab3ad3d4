//! What acts on streams learn of remotes: whether a bucket is there, and what is in it.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::domain::remote::{Checked, ListedPage};
use crate::domain::remote_answer::RemoteFault;
use crate::operations::controls::{RemotePlace, StreamNetwork};
use crate::replication::destination::store::Remotes;

/// Asks remotes through the clients that also carry versions there.
pub(crate) struct Inquiry(pub(crate) Arc<dyn Remotes>);

impl StreamNetwork for Inquiry {
    fn check<'a>(&'a self, place: &'a RemotePlace) -> BoxFuture<'a, Result<Checked, RemoteFault>> {
        async move {
            let store = self.0.open(&place.remote, place.token.clone()).await?;
            store.check(&place.bucket).await
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        place: &'a RemotePlace,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ListedPage, RemoteFault>> {
        async move {
            let store = self.0.open(&place.remote, place.token.clone()).await?;
            store.list(&place.bucket, prefix, from).await
        }
        .boxed()
    }
}
