//! The Native API: one table of operations, one way through it.
//!
//! The table drives routing, methods, the early capability check, metrics, the compatibility page
//! and the tests; an operation that is not in it does not exist. Requests are routed on the raw
//! path, and each part of it is decoded once, strictly.

pub(crate) mod account;
pub(crate) mod buckets;
pub(crate) mod copy;
pub(crate) mod cors;
pub(crate) mod download;
pub(crate) mod encryption;
pub(crate) mod fields;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod large_files;
pub(crate) mod lifecycle;
pub(crate) mod locks;
pub(crate) mod notifications;
pub(crate) mod object_text;
pub(crate) mod replication;
pub(crate) mod upload;
pub(crate) mod wire;

use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::LocalBoxFuture;
use serde::Serialize;

use crate::api::Http;
use crate::api::body::{Incoming, read_small};
use crate::api::error::{Asked, render, render_planned};
use crate::api::faults;
use crate::api::native::fields::Fields;
use crate::api::native::wire::{ApiVersion, Reader};
use crate::api::peer;
use crate::api::request_id::RequestId;
use crate::auth::caller::Caller;
use crate::domain::capability::Capability;
use crate::domain::refusal::{
    Code, Refusal, bad_auth_token, bad_request, cap_exceeded, refuse, shorten,
};
use crate::domain::replica::ReplicaMark;
use crate::domain::test_mode::TestModes;
use crate::domain::usage::Class;
use crate::operations::authorize::caller_with_token;
use crate::operations::error::{Error, Fault};
use crate::operations::usage::{admit_transactions, count_transactions};
use crate::operations::{App, test_mode};

/// What of the account an operation is about; says which restrictions of a key matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Neither buckets nor names.
    Nothing,
    /// The whole account: keys restricted to buckets are refused.
    Account,
    /// One bucket.
    Bucket,
    /// One bucket, and a prefix of names inside it.
    Prefix,
    /// One file name in one bucket.
    Name,
}

/// How an operation is reached.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// Basic credentials in, a token out.
    Authorize,
    /// JSON in by POST, JSON out. Those that only look take the same fields as a query by GET.
    Json(fn(Call) -> LocalBoxFuture<'static, Reply>),
    /// Bytes in, at an upload URL.
    Upload,
    /// Bytes in, at the address for the parts of one large file.
    UploadPart,
    /// Bytes out.
    DownloadById,
    DownloadByName,
}

/// One row of the table.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) door: Door,
    /// The right every caller needs; None where there is none, or where it depends.
    pub(crate) capability: Option<Capability>,
    pub(crate) class: Class,
    pub(crate) scope: Scope,
}

impl Operation {
    /// HTTP methods this operation answers.
    ///
    /// Operations that change something answer POST only: caches, prefetchers and proxies repeat a
    /// GET as they like, and what a query holds ends up in their logs.
    pub(crate) fn methods(&self) -> &'static [&'static str] {
        let only_looks = self.name.starts_with("b2_get_") || self.name.starts_with("b2_list_");
        match self.door {
            Door::Authorize => &["GET", "POST"],
            Door::Json(_) if only_looks => &["GET", "POST"],
            Door::Upload | Door::UploadPart | Door::Json(_) => &["POST"],
            Door::DownloadById => &["GET", "HEAD", "POST"],
            Door::DownloadByName => &["GET", "HEAD"],
        }
    }

    /// Whether it takes the bytes of files, at addresses of its own.
    fn takes_content(&self) -> bool {
        matches!(self.door, Door::Upload | Door::UploadPart)
    }

    /// Whether some cap can stop this operation, for the test mode that stops all of those. Without
    /// an authorization a client would not come as far as to what it wants to try.
    fn is_capped(&self) -> bool {
        let makes_room = matches!(self.name, "b2_get_upload_url" | "b2_start_large_file");
        makes_room
            || self.takes_content()
            || (self.class != Class::A && !matches!(self.door, Door::Authorize))
    }
}

macro_rules! json {
    ($handler:path) => {
        Door::Json(|call| Box::pin($handler(call)))
    };
}

/// Every operation there is. `docs/compatibility.md` has a row for each.
pub(crate) const OPERATIONS: &[Operation] = &[
    row("b2_authorize_account", Door::Authorize, None, Class::C, Scope::Nothing),
    row(
        "b2_cancel_large_file",
        json!(large_files::cancel),
        Some(Capability::WriteFiles),
        Class::A,
        Scope::Name,
    ),
    row(
        "b2_copy_file",
        json!(copy::copy_file),
        Some(Capability::WriteFiles),
        Class::C,
        Scope::Name,
    ),
    row(
        "b2_copy_part",
        json!(copy::copy_part),
        Some(Capability::WriteFiles),
        Class::C,
        Scope::Name,
    ),
    row(
        "b2_create_bucket",
        json!(buckets::create),
        Some(Capability::WriteBuckets),
        Class::C,
        Scope::Account,
    ),
    row(
        "b2_create_key",
        json!(keys::create),
        Some(Capability::WriteKeys),
        Class::C,
        Scope::Account,
    ),
    row(
        "b2_delete_bucket",
        json!(buckets::delete),
        Some(Capability::DeleteBuckets),
        Class::A,
        Scope::Account,
    ),
    row(
        "b2_delete_file_version",
        json!(files::delete_version),
        Some(Capability::DeleteFiles),
        Class::A,
        Scope::Name,
    ),
    row(
        "b2_delete_key",
        json!(keys::delete),
        Some(Capability::DeleteKeys),
        Class::A,
        Scope::Account,
    ),
    row(
        "b2_download_file_by_id",
        Door::DownloadById,
        Some(Capability::ReadFiles),
        Class::B,
        Scope::Name,
    ),
    row(
        "b2_download_file_by_name",
        Door::DownloadByName,
        Some(Capability::ReadFiles),
        Class::B,
        Scope::Name,
    ),
    row(
        "b2_finish_large_file",
        json!(large_files::finish),
        Some(Capability::WriteFiles),
        Class::A,
        Scope::Name,
    ),
    row(
        "b2_get_bucket_notification_rules",
        json!(notifications::rules),
        Some(Capability::ReadBucketNotifications),
        Class::C,
        Scope::Bucket,
    ),
    row(
        "b2_get_download_authorization",
        json!(download::authorization),
        Some(Capability::ShareFiles),
        Class::C,
        Scope::Prefix,
    ),
    row("b2_get_file_info", json!(files::info), Some(Capability::ReadFiles), Class::B, Scope::Name),
    row(
        "b2_get_upload_part_url",
        json!(large_files::upload_url),
        Some(Capability::WriteFiles),
        Class::A,
        Scope::Name,
    ),
    row(
        "b2_get_upload_url",
        json!(upload::upload_url),
        Some(Capability::WriteFiles),
        Class::A,
        Scope::Bucket,
    ),
    row("b2_hide_file", json!(files::hide), Some(Capability::WriteFiles), Class::A, Scope::Name),
    row(
        "b2_list_buckets",
        json!(buckets::list),
        Some(Capability::ListBuckets),
        Class::C,
        Scope::Bucket,
    ),
    row(
        "b2_list_file_names",
        json!(files::list_names),
        Some(Capability::ListFiles),
        Class::C,
        Scope::Prefix,
    ),
    row(
        "b2_list_file_versions",
        json!(files::list_versions),
        Some(Capability::ListFiles),
        Class::C,
        Scope::Prefix,
    ),
    row("b2_list_keys", json!(keys::list), Some(Capability::ListKeys), Class::C, Scope::Nothing),
    row("b2_list_parts", json!(large_files::list_parts), None, Class::C, Scope::Name),
    row(
        "b2_list_unfinished_large_files",
        json!(large_files::list_unfinished),
        Some(Capability::ListFiles),
        Class::C,
        Scope::Prefix,
    ),
    row(
        "b2_set_bucket_notification_rules",
        json!(notifications::set_rules),
        Some(Capability::WriteBucketNotifications),
        Class::C,
        Scope::Bucket,
    ),
    row(
        "b2_start_large_file",
        json!(large_files::start),
        Some(Capability::WriteFiles),
        Class::A,
        Scope::Name,
    ),
    row(
        "b2_update_bucket",
        json!(buckets::update),
        Some(Capability::WriteBuckets),
        Class::C,
        Scope::Bucket,
    ),
    row(
        "b2_update_file_legal_hold",
        json!(locks::update_legal_hold),
        Some(Capability::WriteFileLegalHolds),
        Class::A,
        Scope::Name,
    ),
    row(
        "b2_update_file_retention",
        json!(locks::update_retention),
        Some(Capability::WriteFileRetentions),
        Class::A,
        Scope::Name,
    ),
    row("b2_upload_file", Door::Upload, Some(Capability::WriteFiles), Class::A, Scope::Name),
    row("b2_upload_part", Door::UploadPart, Some(Capability::WriteFiles), Class::A, Scope::Name),
];

const fn row(
    name: &'static str,
    door: Door,
    capability: Option<Capability>,
    class: Class,
    scope: Scope,
) -> Operation {
    Operation { name, door, capability, class, scope }
}

/// Asks for failures, for clients that try how they deal with them.
const TEST_MODE: HeaderName = HeaderName::from_static("x-bz-test-mode");

/// Entries of a listing that count as one transaction (documented).
const ENTRIES_OF_A_TRANSACTION: usize = 1000;

/// The versions of the API.
const VERSIONS: std::ops::RangeInclusive<u8> = 1..=4;

/// JSON bytes, or why there are none.
pub(crate) type Reply = Result<Vec<u8>, Error>;

/// One call of a JSON operation, its caller known.
pub(crate) struct Call {
    pub(crate) http: web::Data<Http>,
    pub(crate) caller: Caller,
    pub(crate) version: ApiVersion,
    pub(crate) fields: Fields,
    /// Base of the addresses in the answer.
    pub(crate) base_url: String,
    /// What a peer says of the replica that it begins or finishes; None for all other calls.
    pub(crate) replica: Option<ReplicaMark>,
}

impl Call {
    pub(crate) fn app(&self) -> &App {
        &self.http.app
    }

    /// Counts a listing once more for each further thousand entries of its answer, as if they had
    /// been asked for one thousand after the other. An answer that is there is given, so a listing
    /// may end above a cap; the next one is refused.
    pub(crate) fn count_entries(&self, class: Class, entries: usize) {
        let further = entries.saturating_sub(1) / ENTRIES_OF_A_TRANSACTION;
        count_transactions(self.app(), self.caller.account(), class, further);
    }

    pub(crate) fn reader(&self) -> Reader<'_> {
        Reader { caller: &self.caller, version: self.version }
    }

    /// Checks the field that names the caller's own account.
    pub(crate) fn check_account(&self) -> Result<(), Refusal> {
        if self.fields.text("accountId")? == self.caller.account().to_string() {
            Ok(())
        } else {
            Err(bad_request("accountId invalid"))
        }
    }
}

/// Writes an answer.
pub(crate) fn reply(answer: &impl Serialize) -> Reply {
    serde_json::to_vec(answer).map_err(|error| unwritable(error).into())
}

/// An answer that cannot be written as JSON: a bug.
pub(crate) fn unwritable(error: serde_json::Error) -> Fault {
    Fault { doing: "write an answer as JSON", may_retry: false, source: Box::new(error) }
}

/// Where a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// `/b2api/v<N>/<operation>`, and what follows it.
    Operation { version: u8, name: &'p str, rest: &'p str },
    /// `/file/<bucket>/<name>`, both still encoded.
    File { bucket: &'p str, name: &'p str },
}

fn route(path: &str) -> Option<Route<'_>> {
    // Some clients join addresses with a slash too many.
    let path = path.strip_prefix("//").or_else(|| path.strip_prefix('/'))?;
    if let Some(file) = path.strip_prefix("file/") {
        let (bucket, name) = file.split_once('/')?;
        return Some(Route::File { bucket, name });
    }
    let (version, call) = path.strip_prefix("b2api/v")?.split_once('/')?;
    let digit = version.len() == 1 && version.bytes().all(|b| b.is_ascii_digit());
    let version = version.parse().ok().filter(|version| digit && VERSIONS.contains(version))?;
    let (name, rest) = call.split_once('/').unwrap_or((call, ""));
    Some(Route::Operation { version, name, rest })
}

/// Answers every request to the data listener.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    http: web::Data<Http>,
) -> HttpResponse {
    let id = RequestId::next();
    let incoming = Incoming::new(payload);
    http.app.metrics.requests.one();
    let started = http.app.clock.monotonic();
    let method = request.method().clone();
    let uri = request.uri().clone();
    let path = uri.path();
    let routed = route(path);
    let found = routed.and_then(operation_of);
    let operation = found.map_or("-", |operation| operation.name);
    let is_authorize = operation == "b2_authorize_account";
    let allowed = found.map_or(&[][..], Operation::methods);
    let asked = Asked { id, is_head: method == Method::HEAD, is_authorize, allowed };
    // A browser's preflight is not the request that a fault is meant for.
    let planned = http.controls.as_ref().filter(|_| found.is_some() && method != Method::OPTIONS);
    let planned = planned.and_then(|controls| controls.faults.take(operation));
    let (opening, outcome) = match cors::opening(&request, &http, routed) {
        Ok(opening) => {
            let performed = dispatch(&request, incoming.clone(), &http, routed, id);
            let answer = |planned| Ok(render_planned(&planned, asked));
            (opening, faults::perform(planned, performed, answer).await)
        }
        Err(error) => (None, Err(error)),
    };
    let mut response = outcome.unwrap_or_else(|error| render(&error, asked, &http.app.metrics));
    if let Some(opening) = &opening {
        cors::open(response.headers_mut(), opening);
    }
    if let (Some(operation), Some(Route::Operation { rest, .. })) = (found, routed)
        && operation.takes_content()
        && ends_upload_url(response.status())
    {
        upload::retire_url(&request, &http, rest);
    }
    let response = incoming.hold_until_sent(&request, response);
    let took = http.app.clock.monotonic().0 - started.0;
    // One line for each request would cost more than most requests do, so it is asked for.
    tracing::debug!(
        request.id = %id,
        http.method = %method,
        operation,
        status = response.status().as_u16(),
        duration_ms = took,
        "request"
    );
    response
}

/// Whether an upload URL is good for nothing more after such an answer. What was wrong with the
/// request itself (400) leaves it usable.
fn ends_upload_url(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::REQUEST_TIMEOUT)
}

/// The operation of this name.
pub(crate) fn find(name: &str) -> Option<&'static Operation> {
    OPERATIONS.iter().find(|operation| operation.name == name)
}

/// The operation behind a route.
pub(crate) fn operation_of(route: Route<'_>) -> Option<&'static Operation> {
    find(match route {
        Route::Operation { name, .. } => name,
        Route::File { .. } => "b2_download_file_by_name",
    })
}

async fn dispatch(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    routed: Option<Route<'_>>,
    id: RequestId,
) -> Result<HttpResponse, Error> {
    let absent =
        || refuse(Code::NotFound, format!("no such address: {}", shorten(request.uri().path())));
    let route = routed.ok_or_else(absent)?;
    let operation = operation_of(route).ok_or_else(absent)?;
    let by_name = matches!(operation.door, Door::DownloadByName);
    if by_name && matches!(route, Route::Operation { .. }) {
        // Downloads by name have an address of their own.
        return Err(absent().into());
    }
    if cors::is_preflight(request) {
        return cors::preflight(request, http, route, operation);
    }
    check_method(request, operation)?;
    obey_test_mode(request, http, operation)?;
    let (version, rest) = match route {
        Route::File { bucket, name } => {
            return download::by_name(request, http, bucket, name, id).await;
        }
        Route::Operation { version, rest, .. } => (ApiVersion(version), rest),
    };
    if matches!(operation.door, Door::Upload) {
        return upload::upload_file(request, payload, http, version, rest).await;
    }
    if matches!(operation.door, Door::UploadPart) {
        return large_files::upload_part(request, payload, http, rest).await;
    }
    if !rest.is_empty() {
        return Err(absent().into());
    }
    if request.headers().contains_key(CONTENT_ENCODING) {
        return Err(bad_request("Content-Encoding is not supported for requests").into());
    }
    match operation.door {
        Door::Authorize => account::authorize(request, http, version),
        Door::DownloadById => download::by_id(request, payload, http, id).await,
        Door::Json(handler) => {
            let _no_reset = match &http.controls {
                Some(controls) => Some(controls.between_calls.read().await),
                None => None,
            };
            let caller = caller(request, http)?;
            let replica = match operation.name {
                "b2_start_large_file" | "b2_finish_large_file" => {
                    peer::replica_mark(request.headers())?
                }
                _ => None,
            };
            let fields = fields(request, payload, http).await?;
            count_call(http, operation, &caller)?;
            let call = Call {
                http: http.clone(),
                caller,
                version,
                fields,
                base_url: base_url(request, http),
                replica,
            };
            handler(call).await.map(json_answer)
        }
        Door::Upload | Door::UploadPart | Door::DownloadByName => Err(absent().into()),
    }
}

/// Counts a call among the transactions of its account, and refuses it when there have been too
/// many. A caller without the right is told of that first.
fn count_call(http: &Http, operation: &Operation, caller: &Caller) -> Result<(), Error> {
    let admitted = admit_transactions(&http.app, caller.account(), operation.class, 1);
    if admitted.is_err()
        && let Some(capability) = operation.capability
    {
        caller.require(capability)?;
    }
    admitted
}

/// Refuses methods the operation does not answer.
fn check_method(request: &HttpRequest, operation: &Operation) -> Result<(), Refusal> {
    let methods = operation.methods();
    if methods.contains(&request.method().as_str()) {
        return Ok(());
    }
    let text = if methods == ["POST"] || methods.contains(&"POST") && methods.len() == 2 {
        "Only POST is supported".to_owned()
    } else {
        format!("Only {} is supported", methods.join(", "))
    };
    Err(refuse(Code::MethodNotAllowed, text))
}

/// Does what the test mode of a request asks for, before anything else is looked at.
fn obey_test_mode(
    request: &HttpRequest,
    http: &Http,
    operation: &Operation,
) -> Result<(), Refusal> {
    if !http.settings.test_mode || !request.headers().contains_key(TEST_MODE) {
        return Ok(());
    }
    let values = request.headers().get_all(TEST_MODE);
    let modes = TestModes::parse(values.filter_map(|value| value.to_str().ok()));
    if modes.force_cap_exceeded && operation.is_capped() {
        return Err(cap_exceeded());
    }
    if operation.takes_content() {
        return test_mode::before_upload(&http.app, modes);
    }
    if let Some(token) = authorization(request)? {
        test_mode::before_token_check(&http.app, modes, token);
    }
    Ok(())
}

/// The one `Authorization` header of a request.
pub(crate) fn authorization(request: &HttpRequest) -> Result<Option<&str>, Refusal> {
    let mut values = request.headers().get_all(AUTHORIZATION);
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad_request("more than one Authorization header"));
    }
    first.to_str().map(Some).map_err(|_| bad_auth_token())
}

/// Who holds the account token of a request.
pub(crate) fn caller(request: &HttpRequest, http: &Http) -> Result<Caller, Error> {
    let token = authorization(request)?.ok_or_else(bad_auth_token)?;
    caller_with_token(&http.app, token)
}

/// The caller of a download by id; nobody when there is no token.
pub(crate) fn opt_caller(request: &HttpRequest, http: &Http) -> Result<Option<Caller>, Error> {
    match authorization(request)? {
        Some(token) => caller_with_token(&http.app, token).map(Some),
        None => Ok(None),
    }
}

pub(crate) async fn fields(
    request: &HttpRequest,
    payload: Incoming,
    http: &Http,
) -> Result<Fields, Refusal> {
    if request.method() == Method::GET || request.method() == Method::HEAD {
        return Fields::from_query(request.query_string());
    }
    let body = read_small(payload, http).await?;
    Fields::from_body(&body)
}

/// A JSON answer with the headers that all of them have.
pub(crate) fn json_answer(json: Vec<u8>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/json;charset=UTF-8"))
        .insert_header((CACHE_CONTROL, "max-age=0, no-cache, no-store"))
        .body(json)
}

/// The base of addresses in answers: what the operator configured, else where the request came to.
pub(crate) fn base_url(request: &HttpRequest, http: &Http) -> String {
    if let Some(url) = &http.settings.public_url {
        return url.clone();
    }
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    match host.filter(|host| is_plain_host(host)) {
        Some(host) => format!("{}://{host}", http.settings.scheme),
        None => http.settings.endpoint.clone(),
    }
}

fn is_plain_host(host: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    !host.is_empty() && host.len() <= 255 && host.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn native_8_9_only_known_addresses_lead_anywhere() {
        let operation = |version| Some(Route::Operation { version, name: "b2_x", rest: "" });
        assert_eq!(route("/b2api/v1/b2_x"), operation(1));
        assert_eq!(route("//b2api/v4/b2_x"), operation(4));
        assert_eq!(route("/b2api/v4/b2_x/"), operation(4));
        for wrong in [
            "/b2api/v5/b2_x",
            "/b2api/v0/b2_x",
            "/b2api/v01/b2_x",
            "/b2api/v+1/b2_x",
            "/b2api/v1",
            "/",
            "",
            "/file/bucket",
            "///b2api/v1/b2_x",
            "/b2api/v1.0/b2_x",
        ] {
            assert_eq!(route(wrong), None, "{wrong}");
        }
        assert_eq!(route("/file/b/a%2Fb//c"), Some(Route::File { bucket: "b", name: "a%2Fb//c" }));
    }

    #[test]
    fn the_table_is_sorted_and_names_are_unique() {
        assert!(OPERATIONS.is_sorted_by(|a, b| a.name < b.name));
    }

    proptest! {
        #[test]
        fn routing_never_panics(path in "\\PC{0,60}") {
            prop_assert!(route(&path).is_none_or(|_| path.starts_with('/')));
        }
    }
}
