//! What S3 requests are refused with: codes and texts of S3, some of this API alone, some those that
//! the native refusals become.

use std::borrow::Cow;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, RETRY_AFTER};

use crate::api::error::log_fault;
use crate::api::request_id::RequestId;
use crate::api::s3::xml::Writer;
use crate::domain::refusal::{Code, Refusal};
use crate::metrics::Metrics;
use crate::operations::error::Error;

/// Why an S3 request has no other answer.
#[derive(Debug)]
pub(crate) enum S3Error {
    Refused(Box<S3Refusal>),
    Native(Error),
}

/// A no of this API alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S3Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: Cow<'static, str>,
    /// Further elements of the answer.
    pub(crate) more: Vec<(&'static str, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
}

pub(crate) fn s3_refuse(
    status: u16,
    code: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> S3Refusal {
    let message = message.into();
    S3Refusal { status, code, message, more: Vec::new(), headers: Vec::new() }
}

impl S3Refusal {
    /// Adds an element to the answer.
    pub(crate) fn with(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.more.push((name, text.into()));
        self
    }

    /// Adds a header to the answer.
    pub(crate) fn header(mut self, name: &'static str, text: impl Into<String>) -> Self {
        self.headers.push((name, text.into()));
        self
    }
}

impl From<S3Refusal> for S3Error {
    fn from(refusal: S3Refusal) -> Self {
        Self::Refused(Box::new(refusal))
    }
}

impl From<Refusal> for S3Error {
    fn from(refusal: Refusal) -> Self {
        Self::Native(refusal.into())
    }
}

impl From<Error> for S3Error {
    fn from(error: Error) -> Self {
        Self::Native(error)
    }
}

impl S3Error {
    /// Whether an operation refused with this code.
    pub(crate) fn is(&self, code: Code) -> bool {
        matches!(self, Self::Native(Error::Refused(refusal)) if refusal.code == code)
    }

    /// Puts another refusal in the place of one that an operation gave with this code.
    pub(crate) fn instead_of(self, code: Code, refusal: impl FnOnce() -> S3Refusal) -> Self {
        if self.is(code) { refusal().into() } else { self }
    }
}

// The vocabulary, so that one situation has one wording.

pub(crate) fn invalid_argument(message: impl Into<Cow<'static, str>>) -> S3Refusal {
    s3_refuse(400, "InvalidArgument", message)
}

pub(crate) fn invalid_request(message: impl Into<Cow<'static, str>>) -> S3Refusal {
    s3_refuse(400, "InvalidRequest", message)
}

pub(crate) fn malformed_xml() -> S3Refusal {
    s3_refuse(
        400,
        "MalformedXML",
        "The XML you provided was not well-formed or did not validate against our published schema",
    )
}

pub(crate) fn not_implemented() -> S3Refusal {
    s3_refuse(
        501,
        "NotImplemented",
        "A header you provided implies functionality that is not implemented",
    )
}

pub(crate) fn method_not_allowed() -> S3Refusal {
    s3_refuse(405, "MethodNotAllowed", "The specified method is not allowed against this resource.")
}

/// A right is missing, or the key does not reach so far. Backblaze's own two words.
pub(crate) fn not_entitled() -> S3Refusal {
    s3_refuse(403, "AccessDenied", "not entitled")
}

pub(crate) fn no_such_key() -> S3Refusal {
    s3_refuse(404, "NoSuchKey", "The specified key does not exist.")
}

pub(crate) fn no_such_version() -> S3Refusal {
    s3_refuse(404, "NoSuchVersion", "The specified version does not exist.")
}

pub(crate) fn no_such_upload() -> S3Refusal {
    s3_refuse(
        404,
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have \
         been aborted or completed.",
    )
}

/// The header is one that this call does not know (the wording is Backblaze's).
pub(crate) fn unsupported_header(name: &str) -> S3Refusal {
    invalid_argument(format!("Unsupported header '{name}' received for this API call."))
}

/// What a refusal of an operation is in S3.
fn of_native(refusal: &Refusal) -> S3Refusal {
    let text = || refusal.message.clone();
    match refusal.code {
        Code::BadBucketId => s3_refuse(404, "NoSuchBucket", "The specified bucket does not exist"),
        Code::DuplicateBucketName => s3_refuse(
            409,
            "BucketAlreadyExists",
            "The requested bucket name is not available. The bucket namespace is shared by all \
             users of the system. Please select a different name and try again.",
        ),
        Code::TooManyBuckets => s3_refuse(400, "TooManyBuckets", text()),
        Code::CannotDeleteNonEmptyBucket => s3_refuse(
            409,
            "BucketNotEmpty",
            "The bucket you tried to delete is not empty. You must delete all versions in the bucket.",
        ),
        Code::NotFound | Code::NoSuchFile => no_such_key(),
        Code::FileNotPresent => no_such_version(),
        Code::InvalidFileId => invalid_argument("Invalid version id specified"),
        Code::NoActiveUpload => no_such_upload(),
        Code::DigestMismatch => s3_refuse(
            400,
            "BadDigest",
            "The Content-MD5 you specified did not match what we received.",
        ),
        Code::UploadTooLarge => s3_refuse(
            400,
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed object size.",
        ),
        Code::PayloadTooLarge => {
            s3_refuse(400, "MaxMessageLengthExceeded", "Your request was too big.")
        }
        Code::PartTooSmall => s3_refuse(400, "EntityTooSmall", text()),
        Code::InvalidPart => s3_refuse(400, "InvalidPart", text()),
        Code::InvalidPartOrder => s3_refuse(400, "InvalidPartOrder", text()),
        Code::ChecksumMismatch => s3_refuse(400, "BadDigest", text()),
        Code::CustomerKeyNeeded | Code::CustomerKeyUnused | Code::CompletionMismatch => {
            invalid_request(text())
        }
        Code::BucketMissingFileLock => {
            invalid_request("Bucket is missing Object Lock Configuration")
        }
        Code::RetainUntilTimestampMustBeInFuture => {
            invalid_argument("The retain until date must be in the future!")
        }
        Code::FileLockConflict | Code::SourceReplicationConflict => {
            s3_refuse(409, "InvalidBucketState", text())
        }
        Code::MetadataExceeded => s3_refuse(
            400,
            "MetadataTooLarge",
            "Your metadata headers exceed the maximum allowed metadata size.",
        ),
        Code::SourceTooLarge => invalid_request(
            "The specified copy source is larger than the maximum allowable size for a copy source",
        ),
        Code::Unauthorized => not_entitled(),
        Code::BadAuthToken => s3_refuse(403, "InvalidAccessKeyId", "The key is not valid"),
        Code::ExpiredAuthToken
        | Code::AccessDenied
        | Code::AccessForbidden
        | Code::ReplicationRefused
        | Code::WrongCustomerKey => s3_refuse(403, "AccessDenied", "Access Denied"),
        // A request that is tried again would be refused again, so this is no SlowDown.
        Code::CapExceeded
        | Code::StorageCapExceeded
        | Code::TransactionCapExceeded
        | Code::DownloadCapExceeded => s3_refuse(403, "AccessDenied", text()),
        Code::MethodNotAllowed => method_not_allowed(),
        Code::RequestTimeout => s3_refuse(
            400,
            "RequestTimeout",
            "Your socket connection to the server was not read from or written to within the \
             timeout period.",
        ),
        Code::Conflict | Code::ReplicationLoop => s3_refuse(
            409,
            "OperationAborted",
            "A conflicting conditional operation is currently in progress against this resource. \
             Try again.",
        ),
        Code::PreconditionFailed => s3_refuse(412, "PreconditionFailed", text()),
        Code::RangeNotSatisfiable => {
            s3_refuse(416, "InvalidRange", "The requested range is not satisfiable")
        }
        Code::InternalError => s3_refuse(500, "InternalError", text()),
        Code::ServiceUnavailable => {
            let slow = s3_refuse(503, "SlowDown", "Please reduce your request rate.");
            let seconds = refusal.retry_after_s.unwrap_or(1);
            slow.header("Retry-After", seconds.to_string())
        }
        Code::BadRequest
        | Code::BadJson
        | Code::OutOfRange
        | Code::AlreadyHidden
        | Code::AuthTokenLimit
        | Code::CustomTimestampNotAllowed
        | Code::CustomTimestampInvalid
        | Code::MissingPart
        | Code::PartSha1Mismatch
        | Code::UnsupportedVersion
        | Code::EventTypesEmpty
        | Code::EventTypeInvalid
        | Code::EventTypeCategories
        | Code::EventTypeOverlap
        | Code::Clash
        | Code::Unprocessable => invalid_argument(text()),
    }
}

impl S3Error {
    /// What the caller is told; of a fault nothing of its inside.
    pub(crate) fn outward(&self) -> S3Refusal {
        match self {
            Self::Refused(refusal) => (**refusal).clone(),
            Self::Native(Error::Refused(refusal)) => of_native(refusal),
            Self::Native(Error::Fault(fault)) if fault.may_retry => {
                s3_refuse(503, "SlowDown", "Please reduce your request rate.")
                    .header("Retry-After", "5")
            }
            Self::Native(Error::Fault(_)) => s3_refuse(
                500,
                "InternalError",
                "We encountered an internal error. Please try again.",
            ),
        }
    }
}

/// The second id that S3 answers carry; ours says no more than the first.
pub(crate) fn second_id(id: RequestId) -> String {
    format!("a{id}{id}")
}

/// Renders an error as S3 does; `resource` is the path that was asked for.
pub(crate) fn render(
    error: &S3Error,
    id: RequestId,
    resource: &str,
    is_head: bool,
    metrics: &Metrics,
) -> HttpResponse {
    let told = error.outward();
    if let S3Error::Native(Error::Fault(fault)) = error {
        metrics.faults.one();
        log_fault(fault, id);
    } else {
        metrics.refusals.one();
        tracing::debug!(request.id = %id, code = told.code, "refused");
    }
    let status = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = HttpResponse::build(status);
    for (name, value) in &told.headers {
        answer.insert_header((*name, value.as_str()));
    }
    if told.code == "SlowDown" && !told.headers.iter().any(|(name, _)| *name == "Retry-After") {
        answer.insert_header((RETRY_AFTER, "1"));
    }
    // An answer that says "not modified" has no body, and neither has one to HEAD.
    if is_head || told.status == 304 {
        return answer.finish();
    }
    let mut xml = Writer::without_namespace("Error");
    xml.text("Code", told.code);
    xml.text("Message", &told.message);
    for (name, text) in &told.more {
        xml.text(name, text);
    }
    xml.text("Resource", resource);
    xml.text("RequestId", &id.to_string());
    xml.text("HostId", &second_id(id));
    answer.insert_header((CONTENT_TYPE, "application/xml")).body(xml.finish())
}
