//! The doors: HTTP in, one operation, HTTP out.
//!
//! Kept here: parsing and rendering, for the Native API, for the S3-compatible
//! one, for that of InfluxDB's remotes and streams, and for administration. Deliberately not
//! here: rules, storage; a handler that decides about either is in the wrong room. The promise that
//! would break first: input that is not understood is refused in the caller's protocol.

pub(crate) mod admin;
pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod faults;
pub(crate) mod influx;
pub(crate) mod native;
pub(crate) mod peer;
pub(crate) mod request_id;
pub(crate) mod s3;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HOST;
use actix_web::http::uri::Authority;
use actix_web::{HttpRequest, HttpResponse, web};
use tokio::sync::RwLock;

use crate::api::faults::FaultRules;
use crate::api::s3::S3Settings;
use crate::api::s3::place::Place;
use crate::operations::App;
use crate::operations::controls::{EngineControls, StreamNetwork};

/// What every handler can reach.
pub(crate) struct Http {
    pub(crate) app: Arc<App>,
    pub(crate) engine: Arc<dyn EngineControls>,
    /// Speaks to remotes.
    pub(crate) network: Arc<dyn StreamNetwork>,
    pub(crate) settings: HttpSettings,
    /// There on a server that was started with test controls only.
    pub(crate) controls: Option<TestControls>,
}

/// What tests have planned for the doors.
#[derive(Default)]
pub(crate) struct TestControls {
    pub(crate) faults: FaultRules,
    /// Held for reading by each JSON call, for writing by a reset: a call that began before a
    /// reset leaves nothing behind after it.
    pub(crate) between_calls: RwLock<()>,
}

/// What the operator may set about the doors.
#[derive(Clone, Debug)]
pub(crate) struct HttpSettings {
    /// Base of the addresses handed to clients, without a trailing slash; None answers with the
    /// address the request came to.
    pub(crate) public_url: Option<String>,
    /// Address of the data listener, for when neither is known.
    pub(crate) endpoint: String,
    /// How clients reach the data listener where neither says otherwise: `http` or `https`.
    pub(crate) scheme: &'static str,
    pub(crate) region: String,
    /// A body that brings nothing for this long is given up.
    pub(crate) idle_timeout: Duration,
    pub(crate) json_bytes_max: usize,
    /// Proxies that are believed when they say which host a client asked for.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    /// Refuse the checksum headers of S3, as Backblaze did before it knew of them.
    pub(crate) refuse_checksums: bool,
    /// Answer the calls about remotes and streams on the data listener too.
    pub(crate) streams_on_data: bool,
    /// Whether the `X-Bz-Test-Mode` header means anything.
    pub(crate) test_mode: bool,
    pub(crate) s3: S3Settings,
}

/// Answers every request to the data listener, in the protocol that its address belongs to.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    http: web::Data<Http>,
) -> HttpResponse {
    match Place::of_request(&request, &http) {
        None if http.settings.streams_on_data && influx::takes_data(request.uri().path()) => {
            influx::serve(request, payload, http).await
        }
        Some(place) => s3::serve(request, payload, http, place).await,
        None if peer::is_called(request.uri().path()) => peer::serve(request, payload, http).await,
        None => native::serve(request, payload, http).await,
    }
}

/// The host that a client asked for. The bucket is read off it and the signature is checked with it,
/// so that one cannot name another than the other.
pub(crate) fn asked_host<'r>(request: &'r HttpRequest, http: &Http) -> Option<&'r str> {
    let received = || request.headers().get(HOST).and_then(|host| host.to_str().ok());
    // HTTP/2 names the host in the address.
    let addressed = || request.uri().authority().map(Authority::as_str);
    forwarded(request, http, "x-forwarded-host").or_else(received).or_else(addressed)
}

/// What a trusted proxy says in this header; None when there is no such proxy in between, or it says
/// more than one thing.
pub(crate) fn forwarded<'r>(request: &'r HttpRequest, http: &Http, name: &str) -> Option<&'r str> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let is_trusted = http.settings.trusted_proxies.iter().any(|one| one.to_canonical() == peer);
    let mut values = request.headers().get_all(name).filter(|_| is_trusted);
    let said = values.next()?.to_str().ok()?.trim();
    let is_one = values.next().is_none() && !said.is_empty() && !said.contains(',');
    is_one.then_some(said)
}
