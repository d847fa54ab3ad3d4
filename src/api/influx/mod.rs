//! Remotes and replication streams as InfluxDB has them: one table of operations, one way through
//! it.
//!
//! Kept here: addresses, fields and errors of InfluxDB's `/api/v2/remotes` and
//! `/api/v2/replications`, and what we add to them. Not here: what remotes and streams do. The
//! command line goes the same way without HTTP, so that the two cannot differ. The promise that would
//! break first: clients of InfluxDB find the names, the statuses and the words that they know.

mod error;
pub(crate) mod figures;
mod orgs;
mod remotes;
mod replications;
mod wire;

use std::sync::Arc;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::Value;

use crate::api::Http;
use crate::api::body::{Incoming, read_small};
use crate::api::influx::wire::Body;
use crate::api::native::account::basic_credentials;
use crate::api::native::fields::Fields;
use crate::api::native::{authorization, unwritable};
use crate::api::request_id::RequestId;
use crate::auth::caller::Caller;
use crate::domain::capability::Capability;
use crate::domain::refusal::{Code, Refusal, bad_auth_token, bad_request, refuse, shorten};
use crate::metrics::CallName;
use crate::operations::App;
use crate::operations::accounts::{Operator, first_account, master_of};
use crate::operations::authorize::{authorize_account, caller_with_token};
use crate::operations::controls::StreamNetwork;
use crate::operations::error::Error;
use crate::operations::remotes::parse_org;

const JSON: &str = "application/json; charset=utf-8";
const NOT_KEPT: &str = "max-age=0, no-cache, no-store";
/// What every address of this API begins with.
const ROOT: &str = "/api/v2/";

/// One row of the table.
pub(crate) struct Operation {
    /// InfluxDB's name of the operation, or ours for what it has not.
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    /// `{id}` stands for the id of a remote or a stream.
    pub(crate) address: &'static str,
    /// The right that every caller needs.
    pub(crate) capability: Option<Capability>,
    /// Whether InfluxDB has it too.
    pub(crate) is_influx: bool,
    /// What it is counted as, where InfluxDB counts it.
    figure: Option<CallName>,
    handler: fn(Call) -> LocalBoxFuture<'static, Reply>,
}

impl Operation {
    async fn answer(&self, call: Call) -> Reply {
        if let Some(capability) = self.capability {
            call.caller.require(capability)?;
        }
        (self.handler)(call).await
    }

    /// What a call is counted as: InfluxDB tells tries from what has an effect.
    fn figure_of(&self, query: &Fields) -> Option<CallName> {
        let only_validates = wire::only_validates(query).unwrap_or_default();
        match self.figure? {
            (of, "create_replication") if only_validates => {
                Some((of, "validate_create_replication"))
            }
            (of, "update_replication") if only_validates => {
                Some((of, "validate_update_replication"))
            }
            figure => Some(figure),
        }
    }
}

macro_rules! row {
    ($name:literal, $method:literal, $address:literal, $capability:expr, $is_influx:literal, $figure:expr, $handler:path) => {
        Operation {
            name: $name,
            method: $method,
            address: $address,
            capability: $capability,
            is_influx: $is_influx,
            figure: $figure,
            handler: |call| Box::pin($handler(call)),
        }
    };
}

const READ: Option<Capability> = Some(Capability::ReadBucketReplications);
const WRITE: Option<Capability> = Some(Capability::WriteBucketReplications);

/// Every operation there is. `docs/compatibility.md` has a row for each.
#[rustfmt::skip]
pub(crate) const OPERATIONS: &[Operation] = &[
    row!("GetOrgs", "GET", "/api/v2/orgs", None, true, None, orgs::list_orgs),
    row!("GetRemoteConnections", "GET", "/api/v2/remotes", READ, true, Some(("remote", "find_remotes")), remotes::list_all),
    row!("PostRemoteConnection", "POST", "/api/v2/remotes", WRITE, true, Some(("remote", "create_remote")), remotes::create),
    row!("GetRemoteConnectionByID", "GET", "/api/v2/remotes/{id}", READ, true, Some(("remote", "find_remote_by_id")), remotes::find),
    row!("PatchRemoteConnectionByID", "PATCH", "/api/v2/remotes/{id}", WRITE, true, Some(("remote", "update_remote")), remotes::update),
    row!("DeleteRemoteConnectionByID", "DELETE", "/api/v2/remotes/{id}", WRITE, true, Some(("remote", "delete_remote")), remotes::delete),
    row!("ListRemoteBuckets", "GET", "/api/v2/remotes/{id}/buckets", READ, false, None, remotes::list_buckets),
    row!("AddRemoteBucket", "POST", "/api/v2/remotes/{id}/buckets", WRITE, false, None, remotes::add_bucket),
    row!("RemoveRemoteBucket", "DELETE", "/api/v2/remotes/{id}/buckets", WRITE, false, None, remotes::remove_bucket),
    row!("GetReplications", "GET", "/api/v2/replications", READ, true, Some(("replication", "find_replications")), replications::list_all),
    row!("PostReplication", "POST", "/api/v2/replications", WRITE, true, Some(("replication", "create_replication")), replications::create),
    row!("GetReplicationByID", "GET", "/api/v2/replications/{id}", READ, true, Some(("replication", "find_replication_by_id")), replications::find),
    row!("PatchReplicationByID", "PATCH", "/api/v2/replications/{id}", WRITE, true, Some(("replication", "update_replication")), replications::update),
    row!("DeleteReplicationByID", "DELETE", "/api/v2/replications/{id}", WRITE, true, Some(("replication", "delete_replication")), replications::delete),
    row!("PostValidateReplicationByID", "POST", "/api/v2/replications/{id}/validate", READ, true, Some(("replication", "validate_replication")), replications::validate),
    row!("PauseReplication", "POST", "/api/v2/replications/{id}/pause", WRITE, false, None, replications::pause),
    row!("ResumeReplication", "POST", "/api/v2/replications/{id}/resume", WRITE, false, None, replications::resume),
    row!("RetryReplication", "POST", "/api/v2/replications/{id}/retry", WRITE, false, None, replications::retry),
    row!("ResyncReplication", "POST", "/api/v2/replications/{id}/resync", WRITE, false, None, replications::resync),
    row!("PurgeReplication", "POST", "/api/v2/replications/{id}/purge", WRITE, false, None, replications::purge),
    row!("ListReplicationFiles", "GET", "/api/v2/replications/{id}/files", READ, false, None, replications::files),
    row!("DiffReplication", "GET", "/api/v2/replications/{id}/diff", READ, false, None, replications::diff),
];

/// An answer, or why there is none.
type Reply = Result<Answer, Error>;

/// What came of a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// None for 204.
    pub(crate) body: Option<Value>,
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self { status: 200, body: Some(body) }
    }

    fn created(body: Value) -> Self {
        Self { status: 201, body: Some(body) }
    }

    fn nothing() -> Self {
        Self { status: 204, body: None }
    }
}

/// Who calls.
pub(crate) enum Who {
    Caller(Caller),
    /// Whoever administers the server acts for any account: the one that the call names as its
    /// organization, else the first.
    Operator(Operator),
}

/// What is asked for, free of HTTP.
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) body: &'a [u8],
}

/// What calls are about: the server as it runs, or a data folder without a way to remotes.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) app: Arc<App>,
    pub(crate) network: Option<Arc<dyn StreamNetwork>>,
}

/// One call, its caller known.
struct Call {
    subject: Subject,
    caller: Caller,
    is_operator: bool,
    /// Of the remote or the stream; empty where the address has none.
    id: String,
    query: Fields,
    body: Bytes,
}

impl Call {
    fn app(&self) -> &App {
        &self.subject.app
    }

    /// What speaks to remotes; only a server that runs has it.
    fn network(&self) -> Result<&dyn StreamNetwork, Refusal> {
        self.subject.network.as_deref().ok_or_else(|| {
            bad_request(
                "this speaks to the remote, which only a running server does: start it first",
            )
        })
    }
}

/// Whether an address of the admin listener belongs to this API.
pub(crate) fn takes(path: &str) -> bool {
    path.starts_with(ROOT) || matches!(path, "/health" | "/ping")
}

/// Whether an address of the data listener belongs to this API, where the operator opened it there.
pub(crate) fn takes_data(path: &str) -> bool {
    let Some(rest) = path.strip_prefix(ROOT) else { return false };
    let noun = rest.split('/').next().unwrap_or_default();
    matches!(noun, "remotes" | "replications" | "orgs")
}

/// Answers a request to an address of this API.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    http: web::Data<Http>,
) -> HttpResponse {
    let id = RequestId::next();
    let incoming = Incoming::new(payload);
    let path = request.uri().path().to_owned();
    let answer = match answer(&request, incoming.clone(), &http).await {
        Ok(answer) => rendered(answer),
        Err(error) => Err(error),
    };
    let response = answer
        .unwrap_or_else(|error| error::render(&error, id, &methods_of(&path), &http.app.metrics));
    let response = incoming.hold_until_sent(&request, response);
    tracing::debug!(
        request.id = %id,
        http.method = %request.method(),
        path = shorten(&path),
        status = response.status().as_u16(),
        "request about remotes or streams"
    );
    response
}

async fn answer(request: &HttpRequest, payload: Incoming, http: &web::Data<Http>) -> Reply {
    let (method, path) = (request.method().as_str(), request.uri().path());
    if let Some(answer) = orgs::liveness(request.method(), path) {
        return Ok(answer);
    }
    let _no_reset = match &http.controls {
        Some(controls) => Some(controls.between_calls.read().await),
        None => None,
    };
    // Read even where the answer is no, so that the connection can go on after it.
    let body = match *request.method() {
        Method::GET => Bytes::new(),
        _ => read_small(payload, http).await?,
    };
    // Whoever may not ask is not told which addresses there are.
    let who = who(&http.app, authorization(request)?)?;
    find(method, path)?;
    if request.headers().contains_key(CONTENT_ENCODING) {
        return Err(bad_request("Content-Encoding is not supported for requests").into());
    }
    let subject = Subject { app: Arc::clone(&http.app), network: Some(Arc::clone(&http.network)) };
    let asked = Asked { method, path, query: request.query_string(), body: &body };
    perform(subject, who, asked).await
}

fn rendered(answer: Answer) -> Result<HttpResponse, Error> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = HttpResponse::build(status);
    response.insert_header((CACHE_CONTROL, NOT_KEPT));
    Ok(match answer.body {
        None => response.finish(),
        Some(body) => response
            .insert_header((CONTENT_TYPE, JSON))
            .body(serde_json::to_vec(&body).map_err(unwritable)?),
    })
}

/// Does what is asked for. The command line comes here too.
pub(crate) async fn perform(subject: Subject, who: Who, asked: Asked<'_>) -> Reply {
    let (operation, id) = find(asked.method, asked.path)?;
    let query = Fields::from_query(asked.query)?;
    let is_operator = matches!(who, Who::Operator(_));
    let caller = match who {
        Who::Caller(caller) => caller,
        Who::Operator(operator) => {
            let org = match wire::opt_parameter(&query, "orgID")? {
                None => Body::optional(asked.body)?.opt_text("orgID")?,
                some => some,
            };
            let account = match org {
                None => first_account(&subject.app)?,
                org => parse_org(org.as_deref())?,
            };
            master_of(&subject.app, &operator, account)?
        }
    };
    let figures = operation.figure_of(&query).map(|name| subject.app.metrics.stream_calls.of(name));
    let clock = Arc::clone(&subject.app.clock);
    let started = clock.monotonic();
    let body = Bytes::copy_from_slice(asked.body);
    let call = Call { subject, caller, is_operator, id: id.to_owned(), query, body };
    let reply = operation.answer(call).await;
    if let Some(figures) = figures {
        let took_ms = clock.monotonic().0 - started.0;
        figures.calls.one();
        figures.took.observe(u64::try_from(took_ms).unwrap_or_default());
        if let Err(error) = &reply {
            figures.failed(error::word_of(error));
        }
    }
    reply
}

/// The id in a path that an address of the table fits: empty when it has none, None when it is
/// another path.
fn fit<'p>(address: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, after)) = address.split_once("{id}") else {
        return (address == path).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

/// The operation behind a method and a path, with the id that the path holds.
fn find<'p>(method: &str, path: &'p str) -> Result<(&'static Operation, &'p str), Refusal> {
    let mut is_address = false;
    for operation in OPERATIONS {
        if let Some(id) = fit(operation.address, path) {
            if operation.method == method {
                return Ok((operation, id));
            }
            is_address = true;
        }
    }
    Err(if is_address {
        refuse(Code::MethodNotAllowed, format!("{} is not supported here", shorten(method)))
    } else {
        refuse(Code::NotFound, format!("path not found: {}", shorten(path)))
    })
}

/// The methods that a path answers.
fn methods_of(path: &str) -> Vec<&'static str> {
    let fitting = OPERATIONS.iter().filter(|one| fit(one.address, path).is_some());
    fitting.map(|operation| operation.method).collect()
}

/// Who is behind an `Authorization` header: `Token` or `Bearer` with an account token or with
/// `keyId:applicationKey`, or Basic credentials, which are the operator's when they are the master
/// key of the first account.
fn who(app: &App, header: Option<&str>) -> Result<Who, Error> {
    if let Some((id, secret)) = basic_credentials(header) {
        let operator = Operator::with_key(app, &id, &secret);
        return match operator {
            Ok(operator) => Ok(Who::Operator(operator)),
            Err(_) => with_key(app, &id, &secret),
        };
    }
    let (scheme, token) = header.and_then(|header| header.split_once(' ')).unwrap_or_default();
    if !["token", "bearer"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(bad_auth_token().into());
    }
    // No account token has a colon, and every pair has one.
    match token.trim().split_once(':') {
        Some((id, secret)) => with_key(app, id, secret),
        None => caller_with_token(app, token.trim()).map(Who::Caller),
    }
}

fn with_key(app: &App, id: &str, secret: &str) -> Result<Who, Error> {
    authorize_account(app, id, secret, 4).map(|authorized| Who::Caller(authorized.caller))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_addresses_lead_anywhere() {
        let named = |method, path| find(method, path).map(|(one, id)| (one.name, id)).ok();
        assert_eq!(named("GET", "/api/v2/remotes"), Some(("GetRemoteConnections", "")));
        let validate = Some(("PostValidateReplicationByID", "a1"));
        assert_eq!(named("POST", "/api/v2/replications/a1/validate"), validate);
        for wrong in [
            "/api/v2/remotes/",
            "/api/v2/remotes/a/b",
            "/api/v2/replications//validate",
            "/api/v2/replications/a/b/validate",
            "/api/v2/buckets",
            "/api/v1/remotes",
        ] {
            assert_eq!(find("POST", wrong).map(|_| ()).expect_err(wrong).code, Code::NotFound);
        }
        let wrong = find("PUT", "/api/v2/remotes/a").map(|_| ()).expect_err("no such method");
        assert_eq!(wrong.code, Code::MethodNotAllowed);
        assert_eq!(methods_of("/api/v2/remotes/a"), ["GET", "PATCH", "DELETE"]);
        assert!(takes("/api/v2/buckets") && !takes("/api/v3/x") && !takes("/metrics"));
        assert!(takes_data("/api/v2/remotes/x") && takes_data("/api/v2/orgs"));
        assert!(!takes_data("/api/v2/instance") && !takes_data("/api/v2/remotesx"));
    }

    #[test]
    fn no_two_rows_of_the_table_answer_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for one in OPERATIONS {
            assert!(seen.insert((one.method, one.address)), "{}", one.name);
            assert!(seen.insert((one.name, "")), "{}", one.name);
        }
    }
}
