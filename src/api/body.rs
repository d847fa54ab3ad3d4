//! Request bodies: bounded, and given up when nothing comes any more.

use std::time::Duration;

use actix_web::web::Payload;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use crate::domain::refusal::{Code, Refusal, refuse};
use crate::operations::upload::BodyFault;

/// The body as a stream that ends with a fault when no bytes come for `idle`.
pub(crate) fn with_idle_limit(
    payload: Payload,
    idle: Duration,
) -> impl Stream<Item = Result<Bytes, BodyFault>> {
    stream::unfold(Some(payload), move |payload| async move {
        let mut payload = payload?;
        match tokio::time::timeout(idle, payload.next()).await {
            Err(_) => Some((Err(BodyFault::Stalled), None)),
            Ok(None) => None,
            Ok(Some(Err(_))) => Some((Err(BodyFault::Broken), None)),
            Ok(Some(Ok(chunk))) => Some((Ok(chunk), Some(payload))),
        }
    })
}

/// Reads a whole small body, for JSON.
pub(crate) async fn read_small(
    payload: Payload,
    idle: Duration,
    bytes_max: usize,
) -> Result<Bytes, Refusal> {
    let mut chunks = std::pin::pin!(with_idle_limit(payload, idle));
    let mut body = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if body.len() + chunk.len() > bytes_max {
            return Err(refuse(
                Code::PayloadTooLarge,
                format!("request body is larger than {bytes_max} bytes"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
