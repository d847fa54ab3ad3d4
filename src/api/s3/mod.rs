//! The S3-compatible API: one table of operations, one way through it.
//!
//! It stands on the same listener as the Native API and calls the same operations; here are only
//! the forms of S3: addresses, XML, headers, codes. The table drives routing, the headers that are
//! understood, the classes, the compatibility page and the tests.

pub(crate) mod buckets;
pub(crate) mod chunked;
pub(crate) mod copy;
pub(crate) mod error;
pub(crate) mod headers;
pub(crate) mod lifecycle;
pub(crate) mod listing;
pub(crate) mod multipart;
pub(crate) mod objects;
pub(crate) mod place;
pub(crate) mod settings;
pub(crate) mod signed;
pub(crate) mod versions;
pub(crate) mod xml;

use std::sync::Arc;

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, STRICT_TRANSPORT_SECURITY,
};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::LocalBoxFuture;

use crate::api::Http;
use crate::api::body::Incoming;
use crate::api::faults::{self, PlannedAnswer};
use crate::api::native::cors as browsers;
use crate::api::request_id::RequestId;
use crate::api::s3::error::{
    S3Error, S3Refusal, invalid_argument, method_not_allowed, not_entitled, not_implemented,
    render, s3_refuse, second_id,
};
use crate::api::s3::headers::{
    ACL, BYPASS, COPY, CUSTOMER, ENCRYPTION, Headers, LOCK, Names, SOURCE, SOURCE_RANGE,
    STATUS_OF_REPLICA, STORAGE_CLASS,
};
use crate::api::s3::place::{Place, Query};
use crate::api::s3::xml::{Element, Writer};
use crate::auth::caller::Caller;
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::cors::CorsOperation;
use crate::domain::names::FileName;
use crate::domain::usage::Class;
use crate::operations::App;
use crate::operations::authorize::bucket_of_name;
use crate::operations::buckets::owner_of_name;
use crate::operations::cors::{Opening, Place as OfRules, find_opening};
use crate::operations::signatures::Authentic;
use crate::operations::usage::admit_transactions;

/// What an operation is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Service,
    Bucket,
    Object,
}

/// Which of Backblaze's ways is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum Profile {
    /// Refuses what Backblaze refuses.
    #[default]
    Backblaze,
    /// Does what S3 has beyond that, where B2 can, and passes over headers it does not know.
    Extended,
}

/// What the operator may set about this API.
#[derive(Clone, Debug, Default)]
pub(crate) struct S3Settings {
    pub(crate) profile: Profile,
    /// Domains below which buckets have host names, the longest first.
    pub(crate) domains: Vec<String>,
}

type Handler = fn(Call) -> LocalBoxFuture<'static, Reply>;

/// One row of the table.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    pub(crate) method: &'static str,
    pub(crate) level: Level,
    /// The query parameters that tell it from others with its method, as [`sub_of`] names them.
    pub(crate) sub: &'static str,
    /// The right every caller needs; None where it depends.
    pub(crate) capability: Option<Capability>,
    pub(crate) class: Class,
    /// The operation of the Native API that does the same, `-` where there is none.
    pub(crate) native: &'static str,
    /// The `x-amz-` headers that it understands beyond those of every call.
    headers: &'static [Names],
    handler: Handler,
}

impl Operation {
    /// Whether anybody at all may ask for it, in public buckets.
    fn reads_files(&self) -> bool {
        matches!(self.name, "GetObject" | "HeadObject")
    }

    /// Whether its body is the content of a file.
    fn takes_content(&self) -> bool {
        matches!(self.name, "PutObject" | "UploadPart")
    }
}

macro_rules! rows {
    ($($name:literal, $method:literal, $level:ident, $sub:literal, $capability:expr, $class:ident,
       $native:literal, $headers:expr, $handler:path;)*) => {
        &[$(Operation {
            name: $name,
            method: $method,
            level: Level::$level,
            sub: $sub,
            capability: $capability,
            class: Class::$class,
            native: $native,
            headers: $headers,
            handler: |call| Box::pin($handler(call)),
        },)*]
    };
}

use Capability as C;

/// Every operation there is, but for preflights. `docs/compatibility.md` has a row for each.
pub(crate) const OPERATIONS: &[Operation] = rows! {
    "ListBuckets", "GET", Service, "", Some(C::ListBuckets), C, "b2_list_buckets", &[], buckets::list;

    "CreateBucket", "PUT", Bucket, "", Some(C::WriteBuckets), C, "b2_create_bucket",
    &[ACL, &["x-amz-bucket-object-lock-enabled"]], buckets::create;
    "DeleteBucket", "DELETE", Bucket, "", Some(C::DeleteBuckets), A, "b2_delete_bucket", &[], buckets::delete;
    "HeadBucket", "HEAD", Bucket, "", Some(C::ListBuckets), C, "b2_list_buckets", &[], buckets::head;
    "GetBucketLocation", "GET", Bucket, "location", Some(C::ReadBuckets), C, "-", &[], buckets::location;
    "GetBucketVersioning", "GET", Bucket, "versioning", Some(C::ReadBuckets), C, "-", &[], buckets::versioning;
    "PutBucketVersioning", "PUT", Bucket, "versioning", Some(C::WriteBuckets), C, "-", &[], buckets::set_versioning;
    "GetBucketAcl", "GET", Bucket, "acl", Some(C::ReadBuckets), C, "b2_list_buckets", &[], buckets::acl;
    "PutBucketAcl", "PUT", Bucket, "acl", Some(C::WriteBuckets), C, "b2_update_bucket", &[ACL], buckets::set_acl;
    "GetBucketCors", "GET", Bucket, "cors", Some(C::ReadBuckets), C, "b2_list_buckets", &[], settings::cors;
    "PutBucketCors", "PUT", Bucket, "cors", Some(C::WriteBuckets), C, "b2_update_bucket", &[], settings::set_cors;
    "DeleteBucketCors", "DELETE", Bucket, "cors", Some(C::WriteBuckets), C, "b2_update_bucket", &[], settings::delete_cors;
    "GetBucketEncryption", "GET", Bucket, "encryption", Some(C::ReadBucketEncryption), C, "b2_list_buckets", &[], settings::encryption;
    "PutBucketEncryption", "PUT", Bucket, "encryption", Some(C::WriteBucketEncryption), C, "b2_update_bucket", &[], settings::set_encryption;
    "DeleteBucketEncryption", "DELETE", Bucket, "encryption", Some(C::WriteBucketEncryption), C, "b2_update_bucket", &[], settings::delete_encryption;
    "GetObjectLockConfiguration", "GET", Bucket, "object-lock", Some(C::ReadBucketRetentions), C, "b2_list_buckets", &[], settings::object_lock;
    "PutObjectLockConfiguration", "PUT", Bucket, "object-lock", Some(C::WriteBucketRetentions), A, "b2_update_bucket", &[], settings::set_object_lock;
    "GetBucketLifecycleConfiguration", "GET", Bucket, "lifecycle", Some(C::ReadBucketLifecycleRules), C, "b2_list_buckets", &[], settings::lifecycle;
    "PutBucketLifecycleConfiguration", "PUT", Bucket, "lifecycle", Some(C::WriteBucketLifecycleRules), C, "b2_update_bucket",
    &[&["x-amz-transition-default-minimum-object-size"]], settings::set_lifecycle;
    "DeleteBucketLifecycle", "DELETE", Bucket, "lifecycle", Some(C::WriteBucketLifecycleRules), C, "b2_update_bucket", &[], settings::delete_lifecycle;
    "GetBucketReplication", "GET", Bucket, "replication", Some(C::ReadBucketReplications), C, "b2_list_buckets", &[], settings::replication;
    "GetBucketLogging", "GET", Bucket, "logging", Some(C::ReadBucketLogging), C, "-", &[], settings::logging;
    "PutBucketLogging", "PUT", Bucket, "logging", Some(C::WriteBucketLogging), C, "-", &[], settings::set_logging;

    "ListObjects", "GET", Bucket, "", Some(C::ListFiles), C, "b2_list_file_names", &[], listing::objects;
    "ListObjectsV2", "GET", Bucket, "list-type", Some(C::ListFiles), C, "b2_list_file_names", &[], listing::objects_v2;
    "ListObjectVersions", "GET", Bucket, "versions", Some(C::ListFiles), C, "b2_list_file_versions", &[], listing::versions;
    "ListMultipartUploads", "GET", Bucket, "uploads", Some(C::ListFiles), C, "b2_list_unfinished_large_files", &[], listing::uploads;
    "DeleteObjects", "POST", Bucket, "delete", None, A, "b2_delete_file_version", &[BYPASS], objects::delete_many;

    "PutObject", "PUT", Object, "", Some(C::WriteFiles), A, "b2_upload_file", &[ACL, ENCRYPTION, CUSTOMER, LOCK, STORAGE_CLASS, STATUS_OF_REPLICA], objects::put;
    "GetObject", "GET", Object, "", Some(C::ReadFiles), B, "b2_download_file_by_name", &[CUSTOMER], objects::get;
    "HeadObject", "HEAD", Object, "", Some(C::ReadFiles), B, "b2_get_file_info", &[CUSTOMER], objects::get;
    "DeleteObject", "DELETE", Object, "", None, A, "b2_hide_file", &[BYPASS], objects::delete;
    "CopyObject", "PUT", Object, "copy", Some(C::WriteFiles), C, "b2_copy_file",
    &[ACL, ENCRYPTION, CUSTOMER, LOCK, STORAGE_CLASS, SOURCE, COPY], copy::copy_object;
    "GetObjectAcl", "GET", Object, "acl", Some(C::ReadFiles), B, "b2_get_file_info", &[], versions::acl;
    "PutObjectAcl", "PUT", Object, "acl", Some(C::WriteFiles), C, "-", &[ACL], versions::set_acl;
    "GetObjectRetention", "GET", Object, "retention", Some(C::ReadFileRetentions), B, "b2_get_file_info", &[], versions::retention;
    "PutObjectRetention", "PUT", Object, "retention", Some(C::WriteFileRetentions), A, "b2_update_file_retention", &[BYPASS], versions::set_retention;
    "GetObjectLegalHold", "GET", Object, "legal-hold", Some(C::ReadFileLegalHolds), B, "b2_get_file_info", &[], versions::legal_hold;
    "PutObjectLegalHold", "PUT", Object, "legal-hold", Some(C::WriteFileLegalHolds), A, "b2_update_file_legal_hold", &[], versions::set_legal_hold;
    "GetObjectAttributes", "GET", Object, "attributes", Some(C::ReadFiles), B, "b2_get_file_info",
    &[CUSTOMER, &["x-amz-object-attributes", "x-amz-max-parts", "x-amz-part-number-marker"]], versions::attributes;

    "CreateMultipartUpload", "POST", Object, "uploads", Some(C::WriteFiles), A, "b2_start_large_file",
    &[ACL, ENCRYPTION, CUSTOMER, LOCK, STORAGE_CLASS, STATUS_OF_REPLICA, &["x-amz-checksum-algorithm", "x-amz-checksum-type"]], multipart::create;
    "UploadPart", "PUT", Object, "uploadId", Some(C::WriteFiles), A, "b2_upload_part", &[CUSTOMER], multipart::upload_part;
    "UploadPartCopy", "PUT", Object, "uploadId copy", Some(C::WriteFiles), C, "b2_copy_part", &[CUSTOMER, SOURCE, SOURCE_RANGE], copy::copy_part;
    "CompleteMultipartUpload", "POST", Object, "uploadId", Some(C::WriteFiles), A, "b2_finish_large_file",
    &[CUSTOMER, &["x-amz-checksum-type", "x-amz-mp-object-size"]], multipart::complete;
    "AbortMultipartUpload", "DELETE", Object, "uploadId", Some(C::WriteFiles), A, "b2_cancel_large_file", &[], multipart::abort;
    "ListParts", "GET", Object, "uploadId", Some(C::WriteFiles), C, "b2_list_parts", &[CUSTOMER], multipart::list_parts;
};

/// Query parameters that choose among the operations of a method.
const SUBS: [&str; 17] = [
    "acl",
    "attributes",
    "cors",
    "delete",
    "encryption",
    "legal-hold",
    "lifecycle",
    "location",
    "logging",
    "object-lock",
    "replication",
    "retention",
    "uploadId",
    "uploads",
    "versioning",
    "versions",
    "list-type",
];

/// Query parameters that choose operations of S3 which Backblaze does not have. A request with one
/// never reaches another operation.
const REFUSED_SUBS: [&str; 24] = [
    "accelerate",
    "analytics",
    "intelligent-tiering",
    "inventory",
    "metadataConfiguration",
    "metadataInventoryTable",
    "metadataJournalTable",
    "metadataTable",
    "metrics",
    "notification",
    "ownershipControls",
    "policy",
    "policyStatus",
    "publicAccessBlock",
    "renameObject",
    "requestPayment",
    "restore",
    "select",
    "select-type",
    "session",
    "tagging",
    "torrent",
    "website",
    "abac",
];

/// What tells the operation from others with its method; refused when the request names two.
fn sub_of(query: &Query, level: Level, method: &str, copies: bool) -> Result<String, S3Refusal> {
    if query.names().any(|name| REFUSED_SUBS.contains(&name)) {
        return Err(not_implemented());
    }
    // It is set natively, and shown here.
    if query.has("replication") && (level, method) != (Level::Bucket, "GET") {
        return Err(not_implemented());
    }
    let found: Vec<&str> = SUBS.into_iter().filter(|sub| query.has(sub)).collect();
    if found == ["list-type"] && query.get("list-type") != Some("2") {
        return Err(invalid_argument("list-type must be 2"));
    }
    let sub = match found.as_slice() {
        [] => "",
        [one] => one,
        _ => return Err(invalid_argument("the query names more than one subresource")),
    };
    let puts = level == Level::Object && method == "PUT";
    if puts && sub.is_empty() && query.has("partNumber") {
        return Err(invalid_argument("partNumber needs an uploadId"));
    }
    Ok(match (puts && copies, sub) {
        (true, "") => "copy".to_owned(),
        (true, "uploadId") => "uploadId copy".to_owned(),
        (_, sub) => sub.to_owned(),
    })
}

/// The operation that a request asks for.
fn find_operation(
    place: &Place,
    query: &Query,
    method: &Method,
    copies: bool,
    profile: Profile,
) -> Result<&'static Operation, S3Refusal> {
    let level = place.level();
    let sub = sub_of(query, level, method.as_str(), copies)?;
    if sub == "attributes" && profile == Profile::Backblaze {
        return Err(not_implemented());
    }
    if level == Level::Bucket && method == Method::POST && sub.is_empty() {
        // A form that a browser sends.
        return Err(not_implemented());
    }
    let found = OPERATIONS.iter().find(|operation| {
        operation.level == level && operation.method == method.as_str() && operation.sub == sub
    });
    found.ok_or_else(method_not_allowed)
}

/// The answer of an operation, or why there is none.
pub(crate) type Reply = Result<HttpResponse, S3Error>;

/// One call of an operation.
pub(crate) struct Call {
    pub(crate) http: web::Data<Http>,
    pub(crate) request: HttpRequest,
    pub(crate) headers: Headers,
    pub(crate) payload: Incoming,
    pub(crate) signed: Authentic,
    pub(crate) operation: &'static Operation,
    pub(crate) place: Place,
    pub(crate) query: Query,
    pub(crate) id: RequestId,
}

/// Bytes of an XML body at most (ours), of one that names a thousand keys, and of one that names ten
/// thousand parts with their checksums.
const XML_BYTES_MAX: usize = 1024 * 1024;
pub(crate) const KEYS_XML_BYTES_MAX: usize = 2 * 1024 * 1024;
pub(crate) const PARTS_XML_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Call {
    pub(crate) fn app(&self) -> &App {
        &self.http.app
    }

    pub(crate) fn profile(&self) -> Profile {
        self.http.settings.s3.profile
    }

    pub(crate) fn caller(&self) -> Result<&Caller, S3Error> {
        self.signed.caller.as_ref().ok_or_else(|| not_entitled().into())
    }

    pub(crate) fn bucket_name(&self) -> &str {
        self.place.bucket.as_deref().unwrap_or_default()
    }

    pub(crate) fn key(&self) -> &str {
        self.place.key.as_deref().unwrap_or_default()
    }

    /// The bucket, for a caller with the right of the operation in it.
    pub(crate) fn bucket(&self) -> Result<Arc<Bucket>, S3Error> {
        self.bucket_for(self.operation.capability.unwrap_or(Capability::ReadBuckets))
    }

    /// The bucket, for a caller with `capability` in it.
    pub(crate) fn bucket_for(&self, capability: Capability) -> Result<Arc<Bucket>, S3Error> {
        Ok(bucket_of_name(self.app(), self.caller()?, capability, self.bucket_name())?)
    }

    /// The key as a name that a file may have.
    pub(crate) fn name(&self) -> Result<FileName, S3Refusal> {
        name_of_key(self.key())
    }

    pub(crate) fn header(&self, name: &str) -> Result<Option<&str>, S3Refusal> {
        headers::text(&self.headers, name)
    }

    /// The body as an XML document whose root has this name.
    pub(crate) async fn document(&mut self, root: &str) -> Result<Element, S3Error> {
        self.document_of(root, XML_BYTES_MAX).await
    }

    pub(crate) async fn document_of(
        &mut self,
        root: &str,
        bytes_max: usize,
    ) -> Result<Element, S3Error> {
        let body = self.small_body(bytes_max).await?;
        Ok(Element::parse(&body, &[root])?)
    }

    /// The whole body, checked against what was signed and against its digests.
    pub(crate) async fn small_body(&mut self, bytes_max: usize) -> Result<bytes::Bytes, S3Error> {
        let payload = self.payload.clone();
        let headers = &self.headers;
        let whole = chunked::whole(headers, payload, &self.http, &mut self.signed, bytes_max, true);
        whole.await
    }

    /// The whole body of a call that completes an upload, whose checksum headers are about the file.
    pub(crate) async fn unchecked_body(&mut self) -> Result<bytes::Bytes, S3Error> {
        let (payload, max) = (self.payload.clone(), PARTS_XML_BYTES_MAX);
        chunked::whole(&self.headers, payload, &self.http, &mut self.signed, max, false).await
    }
}

/// A key as a name that a file may have.
pub(crate) fn name_of_key(key: &str) -> Result<FileName, S3Refusal> {
    FileName::of_key(key).ok_or_else(|| {
        if key.len() > crate::domain::names::FILE_NAME_BYTES_MAX {
            s3_refuse(400, "KeyTooLongError", "Your key is too long")
        } else {
            invalid_argument("The key must not be empty or hold control characters")
        }
    })
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    if status != StatusCode::NO_CONTENT {
        answer.insert_header((CONTENT_LENGTH, "0"));
    }
    answer.finish()
}

/// An XML answer.
pub(crate) fn xml_answer(xml: Writer) -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/xml")).body(xml.finish())
}

/// Answers a request to the data listener that is about `place`.
pub(crate) async fn serve(
    request: HttpRequest,
    payload: web::Payload,
    http: web::Data<Http>,
    place: Result<Place, S3Refusal>,
) -> HttpResponse {
    let id = RequestId::next();
    let incoming = Incoming::new(payload);
    http.app.metrics.requests.one();
    let started = http.app.clock.monotonic();
    let bucket = place.as_ref().ok().and_then(|place| place.bucket.clone());
    let routed = place.and_then(|place| route(&request, &http, place));
    let operation = routed.as_ref().map_or("-", Routed::name);
    let (opening, outcome) = match opening(&request, &http, bucket.as_deref()) {
        Ok(opening) => match routed {
            Ok(routed) => (opening, perform(&request, incoming.clone(), &http, routed, id).await),
            Err(refusal) => (opening, Err(refusal.into())),
        },
        Err(error) => (None, Err(error)),
    };
    let is_head = request.method() == Method::HEAD;
    let mut response = outcome.unwrap_or_else(|error| {
        render(&error, id, request.uri().path(), is_head, &http.app.metrics)
    });
    let headers = response.headers_mut();
    let mut put = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(actix_web::http::header::HeaderName::from_static(name), value);
        }
    };
    put("x-amz-request-id", &id.to_string());
    put("x-amz-id-2", &second_id(id));
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0, no-cache, no-store"));
    }
    if http.settings.scheme == "https" {
        let year_or_two = HeaderValue::from_static("max-age=63072000");
        headers.insert(STRICT_TRANSPORT_SECURITY, year_or_two);
    }
    if let Some(opening) = &opening {
        browsers::open(headers, opening);
    }
    let response = incoming.hold_until_sent(&request, response);
    let took = http.app.clock.monotonic().0 - started.0;
    tracing::debug!(
        request.id = %id,
        http.method = %request.method(),
        operation,
        status = response.status().as_u16(),
        duration_ms = took,
        "request"
    );
    response
}

/// A request whose operation is known.
enum Routed {
    Preflight(Place),
    Operation(Asked),
}

/// What an operation is asked for.
struct Asked {
    place: Place,
    query: Query,
    headers: Headers,
    operation: &'static Operation,
}

impl Routed {
    fn name(&self) -> &'static str {
        match self {
            Self::Preflight(_) => "OPTIONS",
            Self::Operation(asked) => asked.operation.name,
        }
    }
}

fn route(request: &HttpRequest, http: &Http, place: Place) -> Result<Routed, S3Refusal> {
    if request.method() == Method::OPTIONS {
        return Ok(Routed::Preflight(place));
    }
    let query = Query::parse(request.query_string())?;
    let headers = Headers::of(request, &query)?;
    let copies = headers.contains_key("x-amz-copy-source");
    let profile = http.settings.s3.profile;
    let operation = find_operation(&place, &query, request.method(), copies, profile)?;
    Ok(Routed::Operation(Asked { place, query, headers, operation }))
}

fn cors_operation(method: &str) -> Option<CorsOperation> {
    Some(match method {
        "GET" => CorsOperation::S3Get,
        "HEAD" => CorsOperation::S3Head,
        "PUT" => CorsOperation::S3Put,
        "POST" => CorsOperation::S3Post,
        "DELETE" => CorsOperation::S3Delete,
        _ => return None,
    })
}

/// What the page that sent a request may read of the answer, be that an error.
fn opening(
    request: &HttpRequest,
    http: &Http,
    bucket: Option<&str>,
) -> Result<Option<Opening>, S3Error> {
    let origin = request.headers().get("origin").and_then(|origin| origin.to_str().ok());
    let operation = cors_operation(request.method().as_str());
    let (Some(bucket), Some(origin), Some(operation)) = (bucket, origin, operation) else {
        return Ok(None);
    };
    let place = OfRules::BucketName(bucket.to_owned());
    Ok(find_opening(&http.app, &place, operation, origin, &[])?)
}

/// Answers a preflight. It needs no credentials: it tells what a page may ask, not what is there.
fn preflight(request: &HttpRequest, http: &Http, place: &Place) -> Reply {
    let denied = || {
        s3_refuse(
            403,
            "AccessForbidden",
            "CORSResponse: This CORS request is not allowed. This is usually because the evaluation \
             of Origin, request method / Access-Control-Request-Method or \
             Access-Control-Request-Headers are not whitelisted by the resource's CORS spec.",
        )
    };
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(method)) = (text("origin"), text("access-control-request-method"))
    else {
        return Err(s3_refuse(
            400,
            "BadRequest",
            "Insufficient information. Origin request header needed.",
        )
        .into());
    };
    let headers = browsers::requested_headers(request.headers());
    let (Some(bucket), Some(operation), Some(headers)) =
        (&place.bucket, cors_operation(method), headers)
    else {
        return Err(denied().into());
    };
    let rules_of = OfRules::BucketName(bucket.clone());
    let opening = find_opening(&http.app, &rules_of, operation, origin, &headers)?;
    let opening = opening.ok_or_else(denied)?;
    Ok(browsers::allow(&opening, method, &headers))
}

/// Performs a request, or what a fault rule has planned for it.
async fn perform(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    routed: Routed,
    id: RequestId,
) -> Reply {
    let asked = match routed {
        Routed::Preflight(place) => return preflight(request, http, &place),
        Routed::Operation(asked) => asked,
    };
    let controls = http.controls.as_ref();
    let planned = controls.and_then(|controls| controls.faults.take(asked.operation.name));
    let performed = dispatch(request, payload, http, asked, id);
    faults::perform(planned, performed, |planned| Err(planned_refusal(&planned).into())).await
}

/// Codes of S3 that a fault rule may name.
const PLANNED_CODES: [&str; 9] = [
    "AccessDenied",
    "InternalError",
    "NoSuchKey",
    "OperationAborted",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "TooManyRequests",
];

/// An error that a rule plans; where the rule names none of S3, the usual one of the status.
fn planned_refusal(planned: &PlannedAnswer) -> S3Refusal {
    let PlannedAnswer { status, code, message, retry_after_s } = planned;
    let named = PLANNED_CODES.into_iter().find(|known| known == code);
    let code = named.unwrap_or(match status {
        403 => "AccessDenied",
        404 => "NoSuchKey",
        409 => "OperationAborted",
        429 => "TooManyRequests",
        503 => "SlowDown",
        400..=499 => "InvalidRequest",
        _ => "InternalError",
    });
    let refusal = s3_refuse(*status, code, message.clone());
    match retry_after_s {
        Some(seconds) => refusal.header("Retry-After", seconds.to_string()),
        None => refusal,
    }
}

async fn dispatch(
    request: &HttpRequest,
    payload: Incoming,
    http: &web::Data<Http>,
    Asked { place, query, headers, operation }: Asked,
    id: RequestId,
) -> Reply {
    let signed = signed::authenticate(request, http)?;
    if http.settings.refuse_checksums {
        chunked::refuse_checksums(&headers)?;
    }
    if signed.caller.is_none() && !operation.reads_files() {
        return Err(not_entitled().into());
    }
    headers::check(&headers, operation.headers, http.settings.s3.profile)?;
    check_owner(&headers, http, &signed, place.bucket.as_deref())?;
    if let Some(caller) = &signed.caller
        && !operation.reads_files()
    {
        let admitted = admit_transactions(&http.app, caller.account(), operation.class, 1);
        if admitted.is_err()
            && let Some(capability) = operation.capability
        {
            caller.require(capability)?;
        }
        admitted?;
    }
    let _no_reset = match &http.controls {
        Some(controls) if !operation.takes_content() => Some(controls.between_calls.read().await),
        _ => None,
    };
    let call = Call {
        http: http.clone(),
        request: request.clone(),
        headers,
        payload,
        signed,
        operation,
        place,
        query,
        id,
    };
    (operation.handler)(call).await
}

/// Refuses a request that expects the bucket to belong to somebody else.
fn check_owner(
    headers: &Headers,
    http: &Http,
    signed: &Authentic,
    bucket: Option<&str>,
) -> Result<(), S3Error> {
    let Some(expected) = headers::text(headers, "x-amz-expected-bucket-owner")? else {
        return Ok(());
    };
    let owner = match (bucket, &signed.caller) {
        (Some(bucket), _) => owner_of_name(&http.app, bucket)?,
        (None, caller) => caller.as_ref().map(Caller::account),
    };
    // Of a bucket that is not there, the call itself says so.
    if owner.is_none_or(|owner| owner.to_string() == expected) {
        Ok(())
    } else {
        Err(s3_refuse(403, "AccessDenied", "Access Denied").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str, query: &str, copies: bool) -> Result<&'static str, u16> {
        let place = Place::of_path(path).map_err(|refusal| refusal.status)?;
        let query = Query::parse(query).map_err(|refusal| refusal.status)?;
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        find_operation(&place, &query, &method, copies, Profile::Backblaze)
            .map(|operation| operation.name)
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn every_row_is_reached_by_its_own_method_and_query() {
        for row in OPERATIONS.iter().filter(|row| row.sub != "attributes") {
            let path = match row.level {
                Level::Service => "/",
                Level::Bucket => "/bucket",
                Level::Object => "/bucket/key",
            };
            let copies = row.sub.ends_with("copy");
            let query = match row.sub {
                "list-type" => "list-type=2",
                "uploadId" | "uploadId copy" => "uploadId=x&partNumber=1&x-id=Y",
                "copy" => "",
                other => other,
            };
            assert_eq!(found(row.method, path, query, copies), Ok(row.name));
        }
    }

    #[test]
    fn s3_64_65_subresources_of_others_never_reach_another_operation() {
        for sub in REFUSED_SUBS {
            for path in ["/bucket", "/bucket/key"] {
                for method in ["GET", "PUT", "POST", "DELETE"] {
                    assert_eq!(found(method, path, sub, false), Err(501), "{method} {path}?{sub}");
                    let mixed = format!("{sub}=x&acl");
                    assert_eq!(found(method, path, &mixed, false), Err(501), "{method} {mixed}");
                }
            }
        }
        for (method, path) in [
            ("PUT", "/bucket"),
            ("DELETE", "/bucket"),
            ("POST", "/bucket"),
            ("GET", "/bucket/key"),
            ("PUT", "/bucket/key"),
        ] {
            assert_eq!(found(method, path, "replication", false), Err(501), "{method} {path}");
            assert_eq!(found(method, path, "replication&acl", false), Err(501), "{method} {path}");
        }
        assert_eq!(found("POST", "/bucket", "", false), Err(501));
        assert_eq!(found("GET", "/bucket/key", "attributes", false), Err(501));
        // Known ones where they do not belong are not passed over either.
        for (method, path, query) in [
            ("PUT", "/bucket/key", "cors"),
            ("GET", "/bucket", "retention"),
            ("DELETE", "/bucket/key", "acl"),
            ("POST", "/bucket/key", ""),
            ("PATCH", "/bucket/key", ""),
            ("DELETE", "/bucket", "versioning"),
        ] {
            assert_eq!(found(method, path, query, false), Err(405), "{method} {path}?{query}");
        }
        assert_eq!(found("GET", "/bucket/key", "acl&retention", false), Err(400));
    }
}
