//! Request bodies: bounded, and given up when nothing or next to nothing comes any more.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::error::PayloadError;
use actix_web::http::header::TRANSFER_ENCODING;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use crate::api::Http;
use crate::domain::refusal::{Code, Refusal, refuse};
use crate::operations::upload::BodyFault;

/// The body of a request on its way in. Clones are one and the same body.
#[derive(Clone)]
pub(crate) struct Incoming(Rc<RefCell<Payload>>);

impl Incoming {
    pub(crate) fn new(payload: Payload) -> Self {
        Self(Rc::new(RefCell::new(payload)))
    }

    /// Lets the connection end after an answer to a request that announced no length.
    ///
    /// Once nobody holds such a body, the web server reads on to its end and sets no limit to that,
    /// so that anybody could keep connections for ever. Held until the answer is sent, it is unread,
    /// and the connection of an unread body is closed after a moment.
    pub(crate) fn hold_until_sent(
        self,
        request: &HttpRequest,
        answer: HttpResponse,
    ) -> HttpResponse {
        if !request.headers().contains_key(TRANSFER_ENCODING) {
            return answer;
        }
        answer.map_body(|_, body| BoxBody::new(Holding { body, _incoming: self }))
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// The body of an answer that keeps the body of its request from being dropped.
struct Holding {
    body: BoxBody,
    _incoming: Incoming,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

/// Bytes a second that a body must bring on average once it has been waited for longer than the
/// idle limit (ours: the slowest modem is faster). Without it one byte for each idle limit would
/// hold a connection, an upload token and a buffer for ever.
const BYTES_PER_S_MIN: i64 = 1024;

/// The body as a stream that ends with a fault when no bytes come for the idle limit, or too few
/// for long. Only waiting for the client counts: a slow disk is not the client's fault.
pub(crate) fn with_idle_limit(
    payload: Incoming,
    http: &Http,
) -> impl Stream<Item = Result<Bytes, BodyFault>> + use<> {
    let idle = http.settings.idle_timeout;
    let app = Arc::clone(&http.app);
    let idle_ms = i64::try_from(idle.as_millis()).unwrap_or(i64::MAX);
    stream::unfold(Some((payload, 0_i64, 0_i64)), move |state| {
        let app = Arc::clone(&app);
        async move {
            let (mut payload, mut waited_ms, mut received) = state?;
            let asked = app.clock.monotonic();
            match tokio::time::timeout(idle, payload.next()).await {
                Err(_) => Some((Err(BodyFault::Stalled), None)),
                Ok(None) => None,
                Ok(Some(Err(_))) => Some((Err(BodyFault::Broken), None)),
                Ok(Some(Ok(chunk))) => {
                    waited_ms += app.clock.monotonic().0 - asked.0;
                    received += i64::try_from(chunk.len()).unwrap_or(i64::MAX);
                    let due = waited_ms / 1000 * BYTES_PER_S_MIN;
                    if waited_ms > idle_ms && received < due {
                        return Some((Err(BodyFault::Stalled), None));
                    }
                    Some((Ok(chunk), Some((payload, waited_ms, received))))
                }
            }
        }
    })
}

/// Reads a whole small body, for JSON.
pub(crate) async fn read_small(payload: Incoming, http: &Http) -> Result<Bytes, Refusal> {
    let bytes_max = http.settings.json_bytes_max;
    let mut chunks = std::pin::pin!(with_idle_limit(payload, http));
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
