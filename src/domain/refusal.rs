//! What a caller is told when the answer is no: the code table and the sentences.
//!
//! Codes, statuses and known texts are those of the B2 service (spec: b2-native-api.md section 3);
//! the constructors are the vocabulary, so that one situation has one wording.

use std::borrow::Cow;
use std::fmt;

macro_rules! codes {
    ($($variant:ident, $code:literal, $status:literal;)*) => {
        /// A code clients see, with the HTTP status that goes with it. Situations that B2 gives one code
        /// and S3 several are told apart by the variant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $(
            #[doc = concat!("`", $code, "`")]
            $variant,
        )* }

        impl Code {
            pub(crate) fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            pub(crate) fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }
        }
    };
}

codes! {
    BadRequest, "bad_request", 400;
    InvalidFileId, "bad_request", 400;
    NoActiveUpload, "bad_request", 400;
    DigestMismatch, "bad_request", 400;
    UploadTooLarge, "bad_request", 400;
    PartTooSmall, "bad_request", 400;
    InvalidPart, "bad_request", 400;
    InvalidPartOrder, "bad_request", 400;
    ChecksumMismatch, "bad_request", 400;
    CompletionMismatch, "bad_request", 400;
    CustomerKeyNeeded, "bad_request", 400;
    CustomerKeyUnused, "bad_request", 400;
    BadJson, "bad_json", 400;
    BadBucketId, "bad_bucket_id", 400;
    OutOfRange, "out_of_range", 400;
    DuplicateBucketName, "duplicate_bucket_name", 400;
    TooManyBuckets, "too_many_buckets", 400;
    CannotDeleteNonEmptyBucket, "cannot_delete_non_empty_bucket", 400;
    FileNotPresent, "file_not_present", 400;
    NoSuchFile, "no_such_file", 400;
    AlreadyHidden, "already_hidden", 400;
    AuthTokenLimit, "auth_token_limit", 400;
    BucketMissingFileLock, "bucket_missing_file_lock", 400;
    RetainUntilTimestampMustBeInFuture, "retain_until_timestamp_must_be_in_future", 400;
    FileLockConflict, "file_lock_conflict", 400;
    SourceReplicationConflict, "source_replication_conflict", 400;
    MetadataExceeded, "metadata_exceeded", 400;
    EventTypesEmpty, "event_types_empty", 400;
    EventTypeInvalid, "event_type_invalid", 400;
    EventTypeCategories, "event_type_categories", 400;
    EventTypeOverlap, "event_type_overlap", 400;
    CustomTimestampNotAllowed, "custom_timestamp_not_allowed", 400;
    CustomTimestampInvalid, "custom_timestamp_invalid", 400;
    MissingPart, "missing_part", 400;
    PartSha1Mismatch, "part_sha1_mismatch", 400;
    SourceTooLarge, "source_too_large", 400;
    UnsupportedVersion, "unsupported", 400;
    BadAuthToken, "bad_auth_token", 401;
    ExpiredAuthToken, "expired_auth_token", 401;
    Unauthorized, "unauthorized", 401;
    AccessDenied, "access_denied", 401;
    AccessForbidden, "access_denied", 403;
    WrongCustomerKey, "access_denied", 403;
    CapExceeded, "cap_exceeded", 403;
    StorageCapExceeded, "storage_cap_exceeded", 403;
    TransactionCapExceeded, "transaction_cap_exceeded", 403;
    DownloadCapExceeded, "download_cap_exceeded", 403;
    ReplicationRefused, "replication_refused", 403;
    NotFound, "not_found", 404;
    MethodNotAllowed, "method_not_allowed", 405;
    RequestTimeout, "request_timeout", 408;
    Conflict, "conflict", 409;
    ReplicationLoop, "replication_loop", 409;
    PreconditionFailed, "precondition_failed", 412;
    PayloadTooLarge, "bad_request", 413;
    RangeNotSatisfiable, "range_not_satisfiable", 416;
    Clash, "conflict", 422;
    Unprocessable, "unprocessable_entity", 422;
    InternalError, "internal_error", 500;
    ServiceUnavailable, "service_unavailable", 503;
}

/// A no that the caller caused, or can do something about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    /// One sentence for a person; some clients compare it. Never a secret.
    pub(crate) message: Cow<'static, str>,
    /// Seconds after which trying again makes sense.
    pub(crate) retry_after_s: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.message.is_empty() {
            f.write_str(self.code.as_str())
        } else {
            write!(f, "{}: {}", self.code.as_str(), self.message)
        }
    }
}

impl std::error::Error for Refusal {}

/// A refusal with a text of its own. The named constructors below come first.
pub(crate) fn refuse(code: Code, message: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal { code, message: message.into(), retry_after_s: None }
}

pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Refusal {
    refuse(Code::BadRequest, message)
}

/// b2sdk and blazer match this text (`Bucket <id> does not exist`).
pub(crate) fn no_such_bucket(id: &dyn fmt::Display) -> Refusal {
    refuse(Code::BadBucketId, format!("Bucket {id} does not exist"))
}

/// Backblaze leaves the message empty; b2sdk then names the key's restrictions itself.
pub(crate) fn unauthorized() -> Refusal {
    refuse(Code::Unauthorized, "")
}

pub(crate) fn bad_auth_token() -> Refusal {
    refuse(Code::BadAuthToken, "")
}

pub(crate) fn expired_auth_token() -> Refusal {
    refuse(Code::ExpiredAuthToken, "Authorization token has expired")
}

/// A preflight that no CORS rule of the bucket answers.
pub(crate) fn cross_origin_denied() -> Refusal {
    refuse(Code::AccessForbidden, "no CORS rule of the bucket allows this request")
}

pub(crate) fn no_such_file() -> Refusal {
    refuse(Code::NotFound, "File with such name does not exist.")
}

pub(crate) fn no_such_file_id(id: &str) -> Refusal {
    refuse(Code::NotFound, format!("file_state_none: {id}"))
}

pub(crate) fn range_not_satisfiable() -> Refusal {
    refuse(Code::RangeNotSatisfiable, "The Range in the request is outside the size of the file.")
}

/// What is locked, to whoever wants to delete it.
pub(crate) fn access_denied() -> Refusal {
    refuse(Code::AccessDenied, "Access Denied")
}

/// A lock that may not be changed like this, or not by this caller. b2sdk tells the two apart from
/// other refusals by the status alone.
pub(crate) fn access_forbidden() -> Refusal {
    refuse(Code::AccessForbidden, "Access Denied")
}

/// The file is encrypted with a customer's key, and the request has none. Clients compare the text.
pub(crate) fn customer_key_needed() -> Refusal {
    refuse(
        Code::CustomerKeyNeeded,
        "The object was stored using a form of Server Side Encryption. The correct parameters must \
         be provided to retrieve the object.",
    )
}

/// The customer's key in the request is not the one the file is encrypted with.
pub(crate) fn wrong_customer_key() -> Refusal {
    refuse(Code::WrongCustomerKey, "Access Denied")
}

/// A customer's key came with a request about a file that is not encrypted with one.
pub(crate) fn customer_key_unused() -> Refusal {
    refuse(Code::CustomerKeyUnused, "The encryption parameters are not applicable to this object.")
}

pub(crate) fn invalid_file_id(id: &str) -> Refusal {
    refuse(Code::InvalidFileId, format!("Invalid fileId: {}", shorten(id)))
}

/// A write that was to happen only if the name shows something else, or nothing.
pub(crate) fn precondition_failed() -> Refusal {
    refuse(
        Code::PreconditionFailed,
        "At least one of the pre-conditions you specified did not hold",
    )
}

pub(crate) fn file_not_present(name: &str, id: &str) -> Refusal {
    refuse(Code::FileNotPresent, format!("File not present: {name} {id}"))
}

/// b2sdk asserts the shape of this text, blazer its beginning.
pub(crate) fn token_in_use(token: &str) -> Refusal {
    refuse(Code::AuthTokenLimit, format!("more than one upload using auth token {token}"))
}

/// Something that versions of the API before 4 cannot express.
pub(crate) fn unsupported_version(version: u8) -> Refusal {
    refuse(
        Code::UnsupportedVersion,
        format!("This request is not currently supported on API version number {version}"),
    )
}

pub(crate) fn missing_field(field: &str) -> Refusal {
    bad_request(format!("required field {field} is missing"))
}

pub(crate) fn null_field(field: &str) -> Refusal {
    bad_request(format!("required field {field} cannot be null"))
}

pub(crate) fn wrong_type(field: &str, wanted: &str) -> Refusal {
    bad_request(format!("field {field} must be {wanted}"))
}

/// An upload that the test mode lets fail, in the words of a vault without room.
pub(crate) fn upload_failed() -> Refusal {
    Refusal {
        retry_after_s: Some(1),
        ..refuse(Code::ServiceUnavailable, "No uploads available in vault")
    }
}

/// What the test mode says of every cap.
pub(crate) fn cap_exceeded() -> Refusal {
    refuse(
        Code::CapExceeded,
        "Usage cap exceeded. See the Caps & Alerts page to increase your cap.",
    )
}

pub(crate) fn storage_cap_exceeded() -> Refusal {
    refuse(
        Code::StorageCapExceeded,
        "Cannot upload files, storage cap exceeded. See the Caps & Alerts page to increase your \
         cap.",
    )
}

pub(crate) fn transaction_cap_exceeded() -> Refusal {
    refuse(
        Code::TransactionCapExceeded,
        "Transaction cap exceeded. See the Caps & Alerts page to increase your cap.",
    )
}

/// For bytes and for calls alike, as Backblaze words it.
pub(crate) fn download_cap_exceeded() -> Refusal {
    refuse(
        Code::DownloadCapExceeded,
        "Cannot download file, download bandwidth or transaction (Class B) cap exceeded. See the \
         Caps & Alerts page to increase your cap.",
    )
}

/// A stream wants uploads to fail while its queue is full.
pub(crate) fn queue_full() -> Refusal {
    Refusal {
        retry_after_s: Some(5),
        ..refuse(
            Code::ServiceUnavailable,
            "a replication queue of this bucket is full, try again later",
        )
    }
}

/// A reset waits for calls that do not end.
pub(crate) fn calls_in_flight() -> Refusal {
    Refusal {
        retry_after_s: Some(1),
        ..refuse(Code::ServiceUnavailable, "calls are in flight that do not end, try again")
    }
}

/// Cuts what a client sent before it is repeated in a message.
pub(crate) fn shorten(text: &str) -> &str {
    let mut end = text.len().min(200);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
