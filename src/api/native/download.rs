//! Downloads by name and by id, and `b2_get_download_authorization`.

use std::sync::Arc;

use actix_web::body::SizedStream;
use actix_web::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    IF_RANGE, ORIGIN, RANGE,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::json;

use crate::api::Http;
use crate::api::body::Incoming;
use crate::api::native::fields::parse_query;
use crate::api::native::locks::{LEGAL_HOLD_HEADER, RETAIN_UNTIL_HEADER, RETENTION_MODE_HEADER};
use crate::api::native::wire::legal_hold;
use crate::api::native::{
    Call, Reply, authorization as token_header, cors, encryption, fields, opt_caller, reply,
};
use crate::api::request_id::RequestId;
use crate::domain::encryption::{ALGORITHM, Encryption};
use crate::domain::file::HEADER_INFOS;
use crate::domain::lock::FileLock;
use crate::domain::names::decode_text;
use crate::domain::percent::encode;
use crate::domain::range::Wanted;
use crate::domain::refusal::{Refusal, no_such_file};
use crate::operations::App;
use crate::operations::authorize::{
    DownloadAuthorization, OVERRIDES, Overrides, download_authorization,
};
use crate::operations::download::{
    Content, Download, DownloadQuery, LockShown, Reader as FileReader, find_by_id, find_by_name,
    single_token,
};
use crate::operations::error::Error;
use crate::operations::usage::Sending;

// Headers of every download.
const FILE_ID: HeaderName = HeaderName::from_static("x-bz-file-id");
const FILE_NAME: HeaderName = HeaderName::from_static("x-bz-file-name");
const CONTENT_SHA1: HeaderName = HeaderName::from_static("x-bz-content-sha1");
const UPLOAD_TIMESTAMP: HeaderName = HeaderName::from_static("x-bz-upload-timestamp");

pub(crate) async fn authorization(call: Call) -> Reply {
    let fields = &call.fields;
    let mut overrides = Overrides::new();
    for (parameter, _) in OVERRIDES {
        if let Some(value) = fields.opt_text(parameter)? {
            overrides.insert(parameter.to_owned(), value.to_owned());
        }
    }
    let wanted = DownloadAuthorization {
        bucket: fields.text("bucketId")?.to_owned(),
        prefix: fields.text("fileNamePrefix")?.to_owned(),
        duration_s: fields.int("validDurationInSeconds")?,
        overrides,
    };
    let prefix = wanted.prefix.clone();
    let (bucket, token) = download_authorization(call.app(), &call.caller, wanted)?;
    reply(&json!({"authorizationToken": token, "bucketId": bucket, "fileNamePrefix": prefix}))
}

/// The query parameters of a download that mean something.
struct Parameters {
    token: Option<String>,
    file_id: Option<String>,
    overrides: Overrides,
}

fn parameters(request: &HttpRequest) -> Result<Parameters, Refusal> {
    let mut known = Parameters { token: None, file_id: None, overrides: Overrides::new() };
    for (name, value) in parse_query(request.query_string())? {
        match name.as_str() {
            "Authorization" => known.token = Some(value),
            "fileId" => known.file_id = Some(value),
            _ if OVERRIDES.iter().any(|(parameter, _)| *parameter == name) => {
                known.overrides.insert(name, value);
            }
            // Everything else is ignored: caches and browsers add parameters of their own.
            _ => {}
        }
    }
    Ok(known)
}

/// What a range depends on; an empty text, which nothing is, when it cannot be read.
pub(crate) fn if_range(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(IF_RANGE);
    let first = values.next()?.to_str().ok().filter(|_| values.next().is_none());
    Some(first.unwrap_or_default().trim().to_owned())
}

fn query(request: &HttpRequest, overrides: Overrides) -> Result<DownloadQuery, Refusal> {
    let headers = request.headers();
    Ok(DownloadQuery {
        range: Wanted::parse(headers.get(RANGE).and_then(|value| value.to_str().ok())),
        if_range: if_range(headers),
        overrides,
        by_a_page: headers.contains_key(ORIGIN),
        key: encryption::customer_key(headers)?,
    })
}

pub(crate) async fn by_name(
    request: &HttpRequest,
    http: &web::Data<Http>,
    bucket: &str,
    name: &str,
    id: RequestId,
) -> Result<HttpResponse, Error> {
    let parameters = parameters(request)?;
    let token = single_token(token_header(request)?, parameters.token.as_deref())?;
    let bucket = decode_text(bucket.as_bytes(), "bucket name")?;
    // Any text can be asked for; what could never be a name is simply not there.
    let name = decode_text(name.as_bytes(), "file name")?;
    if name.is_empty() {
        return Err(no_such_file().into());
    }
    let query = query(request, parameters.overrides)?;
    let download = find_by_name(&http.app, token, &bucket, &name, query)?;
    answer(request, http, download, id).await
}

pub(crate) async fn by_id(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    id: RequestId,
) -> Result<HttpResponse, Error> {
    let parameters = parameters(request)?;
    let caller = opt_caller(request, http)?;
    let file_id = if request.method() == Method::POST {
        fields(request, payload, http).await?.text("fileId")?.to_owned()
    } else {
        parameters.file_id.ok_or_else(|| crate::domain::refusal::missing_field("fileId"))?
    };
    let query = query(request, parameters.overrides)?;
    let download = find_by_id(&http.app, caller.as_ref(), &file_id, query)?;
    answer(request, http, download, id).await
}

async fn answer(
    request: &HttpRequest,
    http: &web::Data<Http>,
    download: Download,
    id: RequestId,
) -> Result<HttpResponse, Error> {
    let is_head = request.method() == Method::HEAD;
    let mut response = with_content(http, &download, is_head, id).await?;
    write_headers(response.headers_mut(), &download);
    Ok(response)
}

/// An answer with the bytes of a download, or with their length only.
pub(crate) async fn with_content(
    http: &web::Data<Http>,
    download: &Download,
    is_head: bool,
    id: RequestId,
) -> Result<HttpResponse, Error> {
    let status = if download.is_partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let mut response = HttpResponse::build(status);
    let length = download.range.len();
    if is_head {
        let nothing = stream::empty::<Result<Bytes, std::io::Error>>();
        return Ok(response.body(SizedStream::new(length, nothing)));
    }
    Ok(match download.open(&http.app).await? {
        (Content::Inline(data), mut sending) => {
            sending.sent(data.len());
            response.body(data)
        }
        (Content::Stored(reader), sending) => {
            let bytes = bytes_of((reader, sending), Arc::clone(&http.app), id);
            response.body(SizedStream::new(length, Box::pin(bytes)))
        }
    })
}

/// The bytes of a reader, counted as they go. A damaged block ends the stream with an error before its last byte, and
/// the connection with it: the client sees a short answer, never a wrong one.
fn bytes_of(
    reading: (FileReader, Sending),
    app: Arc<App>,
    id: RequestId,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
    stream::unfold(Some(reading), move |reading| {
        let app = Arc::clone(&app);
        async move {
            let (mut reader, mut sending) = reading?;
            match reader.next(&app).await? {
                Ok(chunk) => {
                    sending.sent(chunk.len());
                    Some((Ok(chunk), Some((reader, sending))))
                }
                Err(error) => {
                    app.metrics.faults.one();
                    tracing::error!(request.id = %id, %error, "read a blob");
                    Some((Err(std::io::Error::other("the stored bytes cannot be read")), None))
                }
            }
        }
    })
}

fn write_headers(headers: &mut HeaderMap, download: &Download) {
    let version = &download.version;
    // Values were checked when they were stored; one that is no header value is left out.
    let mut put_known = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put_known(ACCEPT_RANGES, "bytes");
    put_known(CONTENT_TYPE, &version.content_type);
    put_known(FILE_ID, &version.id().to_string());
    put_known(FILE_NAME, &encode(version.name.as_str()));
    put_known(CONTENT_SHA1, &version.sha1.to_string());
    put_known(UPLOAD_TIMESTAMP, &version.upload_at.0.to_string());
    if download.is_partial {
        let range = download.range;
        let last = range.end.saturating_sub(1);
        put_known(CONTENT_RANGE, &format!("bytes {}-{last}/{}", range.start, version.size));
    }
    let mut put = |name: &str, value: &str| {
        if let Ok(name) = HeaderName::try_from(name) {
            put_known(name, value);
        }
    };
    match &version.encryption {
        Encryption::None => {}
        Encryption::Managed => put(encryption::MANAGED, ALGORITHM),
        Encryption::Customer { .. } => put(encryption::CUSTOMER_ALGORITHM, ALGORITHM),
    }
    if let Some(key) = &download.key {
        put(encryption::CUSTOMER_KEY_MD5, &key.md5());
    }
    if let Some(status) = version.replication {
        put("X-Bz-Replication-Status", status.as_header());
    }
    if let Some(value) = &download.cache_control {
        put(CACHE_CONTROL.as_str(), value);
    }
    for (name, value) in version.info.entries() {
        match HEADER_INFOS.iter().find(|(info, _)| *info == name) {
            Some((_, header)) => put(header, &value),
            None => put(&format!("X-Bz-Info-{name}"), &encode(&value)),
        }
    }
    if let Some(shown) = download.lock_shown {
        put_lock(&mut put, version.lock, shown);
    }
    for (parameter, header) in OVERRIDES {
        if let Some(value) = download.overrides.get(parameter) {
            put(header, value);
        }
    }
    if download.differs_by_origin {
        cors::vary_by_origin(headers);
    }
}

/// Writes what the reader may see of a lock, and the names of the headers it may not see: without
/// spaces between them, since b2sdk cuts at the commas.
fn put_lock(put: &mut impl FnMut(&str, &str), lock: FileLock, shown: LockShown) {
    let mut hidden = Vec::new();
    if !shown.retention {
        hidden.extend([RETENTION_MODE_HEADER, RETAIN_UNTIL_HEADER]);
    } else if let Some(retention) = lock.retention {
        put(RETENTION_MODE_HEADER, retention.mode.as_str());
        put(RETAIN_UNTIL_HEADER, &retention.until.0.to_string());
    }
    if !shown.legal_hold {
        hidden.push(LEGAL_HOLD_HEADER);
    } else if let Some(hold) = lock.legal_hold {
        put(LEGAL_HOLD_HEADER, legal_hold(hold));
    }
    if !hidden.is_empty() {
        put("X-Bz-Client-Unauthorized-To-Read", &hidden.join(","));
    }
}
