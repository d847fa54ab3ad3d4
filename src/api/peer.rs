//! What other servers ask: who this is, that it takes replicas, and that it takes them bit by bit.
//! Source: replication.md B3, "Peer protocol"; `docs/peers.md` has the wire.

use actix_web::http::Method;
use actix_web::http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, TRANSFER_ENCODING};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::api::Http;
use crate::api::body::{Incoming, read_small, with_idle_limit};
use crate::api::error::{Asked, render};
use crate::api::native::fields::Fields;
use crate::api::native::upload::{announced_piece, missing_header};
use crate::api::native::wire::{ApiVersion, Reader};
use crate::api::native::{caller, encryption, json_answer, locks, reply, unwritable};
use crate::api::request_id::RequestId;
use crate::auth::caller::Caller;
use crate::domain::content_type;
use crate::domain::digest::{Md5Digest, Sha1Digest};
use crate::domain::file::{ContentSha1, FileInfo};
use crate::domain::names::FileName;
use crate::domain::range::ByteRange;
use crate::domain::refusal::{Code, Refusal, bad_request, refuse, shorten};
use crate::domain::replica::ReplicaMark;
use crate::domain::usage::Class;
use crate::operations::error::Error;
use crate::operations::replica_sessions::{
    NewSession, Sent, State, begin, confirmed_bytes, give_up, look, put,
};
use crate::operations::replicas::introduce;
use crate::operations::upload::{Announced, DeclaredSha1};
use crate::operations::usage::admit_transactions;

const ORIGIN: &str = "X-Replica-Origin";
const TIMESTAMP: &str = "X-Replica-Timestamp";
const HOPS: &str = "X-Replica-Hops";
const SOURCE_KEY: &str = "X-Replica-Source-Key";

/// What the headers of a request say of a replica; None when they say nothing. Whoever says one
/// thing says them all.
pub(crate) fn replica_mark(headers: &HeaderMap) -> Result<Option<ReplicaMark>, Refusal> {
    if [ORIGIN, TIMESTAMP, HOPS, SOURCE_KEY].iter().all(|name| !headers.contains_key(*name)) {
        return Ok(None);
    }
    let text = |name: &str| {
        let mut values = headers.get_all(name);
        let value = values.next();
        match (value.map(|value| value.to_str()), values.next()) {
            (None, _) => Ok(None),
            (Some(Ok(text)), None) => Ok(Some(text)),
            (Some(_), _) => Err(bad_request(format!("Bad {name}"))),
        }
    };
    let required = |name: &str| text(name)?.ok_or_else(|| missing_header(name));
    let said = (required(ORIGIN)?, required(TIMESTAMP)?, required(HOPS)?);
    ReplicaMark::parse(said, text(SOURCE_KEY)?, [ORIGIN, TIMESTAMP, HOPS]).map(Some)
}

/// Where a path of peers leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'p> {
    Instance,
    Sessions,
    Session(&'p str),
}

fn route(path: &str) -> Option<Route<'_>> {
    match path.strip_prefix("/api/v2/")? {
        "instance" => Some(Route::Instance),
        "replica_sessions" => Some(Route::Sessions),
        other => {
            let id = other.strip_prefix("replica_sessions/")?;
            (!id.is_empty() && !id.contains('/')).then_some(Route::Session(id))
        }
    }
}

impl Route<'_> {
    fn methods(self) -> &'static [&'static str] {
        match self {
            Self::Instance => &["GET"],
            Self::Sessions => &["POST"],
            Self::Session(_) => &["DELETE", "GET", "PUT"],
        }
    }
}

/// Whether a path is one of those that peers call.
pub(crate) fn is_called(path: &str) -> bool {
    route(path).is_some()
}

/// Answers the calls of peers.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    http: web::Data<Http>,
) -> HttpResponse {
    let id = RequestId::next();
    let incoming = Incoming::new(payload);
    http.app.metrics.requests.one();
    let path = request.uri().path();
    let routed = route(path);
    let allowed = routed.map_or(&[][..], Route::methods);
    let is_head = request.method() == Method::HEAD;
    let asked = Asked { id, is_head, is_authorize: false, allowed };
    let outcome = if let Some(route) = routed {
        answer(&request, incoming.clone(), &http, route).await
    } else {
        let text = format!("no such address: {}", shorten(path));
        Err(refuse(Code::NotFound, text).into())
    };
    let response = outcome.unwrap_or_else(|error| render(&error, asked, &http.app.metrics));
    incoming.hold_until_sent(&request, response)
}

async fn answer(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    route: Route<'_>,
) -> Result<HttpResponse, Error> {
    let methods = route.methods();
    let method = request.method().as_str();
    if !methods.contains(&method) {
        let text = format!("Only {} is supported", methods.join(", "));
        return Err(refuse(Code::MethodNotAllowed, text).into());
    }
    if route == Route::Instance {
        return instance(http);
    }
    let _no_reset = match &http.controls {
        Some(controls) => Some(controls.between_calls.read().await),
        None => None,
    };
    let caller = caller(request, http)?;
    let class = if method == "GET" { Class::C } else { Class::A };
    admit_transactions(&http.app, caller.account(), class, 1)?;
    let state = match (route, method) {
        (Route::Session(id), "GET") => look(&http.app, &caller, id)?,
        (Route::Session(id), "PUT") => {
            let sent = sent(request.headers())?;
            put(&http.app, &caller, id, sent, with_idle_limit(payload, http)).await?
        }
        (Route::Session(id), _) => {
            give_up(&http.app, &caller, id).await?;
            return Ok(HttpResponse::NoContent().finish());
        }
        (Route::Sessions | Route::Instance, _) => {
            let mark = replica_mark(request.headers())?.ok_or_else(|| missing_header(ORIGIN))?;
            let fields = Fields::from_body(&read_small(payload, http).await?)?;
            begin(&http.app, &caller, new_session(&fields, mark)?).await?
        }
    };
    reply(&shown(&caller, &state)?).map(json_answer)
}

/// Who this is. Says nothing secret, so it asks nobody who is asking.
fn instance(http: &Http) -> Result<HttpResponse, Error> {
    let known = introduce(&http.app);
    reply(&json!({
        "acceptsPeers": known.accepts_peers,
        "instanceId": known.instance,
        "product": "kiln",
        "version": env!("CARGO_PKG_VERSION"),
    }))
    .map(json_answer)
}

/// Reads what begins a session: the fields are those of other calls that begin a file.
fn new_session(fields: &Fields, mark: ReplicaMark) -> Result<NewSession, Refusal> {
    let bytes = |name: &str, value: i64| {
        u64::try_from(value).map_err(|_| bad_request(format!("{name} must not be negative")))
    };
    let name = FileName::parse(fields.text("fileName")?)?;
    let info = fields.opt_text_map("fileInfo")?.unwrap_or_default();
    let (sha1, md5) = (fields.text("contentSha1")?, fields.text("contentMd5")?);
    let bad = |name: &str, given: &str| bad_request(format!("Bad {name}: {}", shorten(given)));
    let known = match sha1.strip_prefix("unverified:") {
        Some(digits) => Sha1Digest::parse(digits).map(ContentSha1::Unverified),
        None => Sha1Digest::parse(sha1).map(ContentSha1::Verified),
    };
    Ok(NewSession {
        bucket: fields.text("bucketId")?.to_owned(),
        size: bytes("contentLength", fields.int("contentLength")?)?,
        content_type: content_type::resolve(
            "contentType",
            fields.text("contentType")?,
            name.as_str(),
        )?,
        info: FileInfo::from_entries(info, &name)?,
        sha1: known.ok_or_else(|| bad("contentSha1", sha1))?,
        md5: Md5Digest::parse(md5).ok_or_else(|| bad("contentMd5", md5))?,
        lock: locks::of_fields(fields)?,
        encryption: encryption::asked_in(fields, "serverSideEncryption")?,
        part_bytes: fields
            .opt_int("partSizeBytes")?
            .map(|value| bytes("partSizeBytes", value))
            .transpose()?,
        mark,
        name,
    })
}

/// Reads what a call that goes on with a session brings: `Content-Range: bytes first-last/total`, or
/// `bytes */total` with nothing.
fn sent(headers: &HeaderMap) -> Result<Sent, Refusal> {
    let given = headers.get(CONTENT_RANGE).ok_or_else(|| missing_header("Content-Range"))?;
    let given = given.to_str().unwrap_or_default();
    let (range, total) = content_range(given)
        .ok_or_else(|| bad_request(format!("Bad Content-Range: {}", shorten(given))))?;
    let announced = if range.is_some() {
        announced_piece(headers)?
    } else {
        let length = headers.get(CONTENT_LENGTH).map_or(&b"0"[..], |length| length.as_bytes());
        if length != b"0" || headers.contains_key(TRANSFER_ENCODING) {
            return Err(bad_request("a Content-Range without bytes comes without bytes"));
        }
        Announced { body_bytes: 0, sha1: DeclaredSha1::Unknown, md5: None }
    };
    Ok(Sent { range, total, announced, mark: replica_mark(headers)? })
}

fn content_range(text: &str) -> Option<(Option<ByteRange>, u64)> {
    let digits = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u64>().ok()).flatten()
    };
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let total = digits(total)?;
    if range == "*" {
        return Some((None, total));
    }
    let (first, last) = range.split_once('-')?;
    let range = ByteRange { start: digits(first)?, end: digits(last)?.checked_add(1)? };
    (range.start < range.end && range.end <= total).then_some((Some(range), total))
}

fn shown(caller: &Caller, state: &State) -> Result<Value, Error> {
    Ok(match state {
        State::Open { file, session, parts } => {
            let shown_parts: Vec<Value> = parts
                .iter()
                .map(|part| {
                    json!({
                        "contentLength": part.size,
                        "contentSha1": part.sha1,
                        "partNumber": part.number.get(),
                    })
                })
                .collect();
            json!({
                "confirmed": confirmed_bytes(parts),
                "contentLength": session.size,
                "file": null,
                "partSizeBytes": session.part_bytes,
                "parts": shown_parts,
                "sessionId": file.id(),
            })
        }
        State::Stored(file) => {
            let version = ApiVersion(4);
            let json = Reader { caller, version }.file(file, false).json();
            let shown: Value = serde_json::from_slice(&json).map_err(unwritable)?;
            json!({
                "confirmed": file.size,
                "contentLength": file.size,
                "file": shown,
                "partSizeBytes": null,
                "parts": [],
                "sessionId": file.id(),
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_sessions_are_read_strictly() {
        let range = |start, end| Some(ByteRange { start, end });
        assert_eq!(content_range("bytes 0-0/1"), Some((range(0, 1), 1)));
        assert_eq!(content_range("bytes 5-9/10"), Some((range(5, 10), 10)));
        assert_eq!(content_range("bytes */10"), Some((None, 10)));
        for wrong in [
            "",
            "bytes",
            "bytes 0-9",
            "bytes 0-9/*",
            "bytes 0-9/9",
            "bytes 2-1/9",
            "bytes +1-2/9",
            "bytes -2/9",
            "bytes 1-/9",
            "bytes 0-18446744073709551615/18446744073709551615",
            "octets 0-0/1",
        ] {
            assert_eq!(content_range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn only_known_paths_are_those_of_peers() {
        assert_eq!(route("/api/v2/instance"), Some(Route::Instance));
        assert_eq!(route("/api/v2/replica_sessions"), Some(Route::Sessions));
        assert_eq!(route("/api/v2/replica_sessions/a"), Some(Route::Session("a")));
        for wrong in [
            "/api/v2/",
            "/api/v2/remotes",
            "/api/v2/instance/",
            "/api/v2/replica_sessions/",
            "/api/v2/replica_sessions/a/b",
            "/b2api/v2/instance",
            "/api/v1/instance",
        ] {
            assert_eq!(route(wrong), None, "{wrong}");
        }
    }
}
