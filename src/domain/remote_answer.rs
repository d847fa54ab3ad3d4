//! What the answers of other stores mean: one class for each, and what follows from it.
//!
//! Source: replication.md B6 and C8.

use crate::domain::refusal::shorten;
use crate::domain::replication::Reason;
use crate::domain::time::Millis;

/// What an answer means for the attempt that got it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerClass {
    /// The authorization has run out: a new one, once, at no cost of an attempt.
    Refresh,
    /// Key or rights are wrong; they may be mended, so nothing is given up.
    Unauthorized,
    /// A cap or a quota is reached.
    CapExceeded,
    /// The bucket is not there; it may be made again.
    BucketMissing,
    /// What was begun there is not known there any more: it is begun anew.
    SessionLost,
    /// The other side computed another checksum.
    ChecksumMismatch,
    /// Parts that were acknowledged are missing: they are listed again.
    MissingParts,
    /// The address for uploads is used up: another one.
    UploadUrlUsedUp,
    /// A loop, or more than the allowed hops: the stream ends here.
    Loop,
    /// It cannot succeed, even with help from outside.
    Rejected,
    /// Somebody else is to be asked: the bucket lives in another region, or the address is not the
    /// store's. Settings may be mended, so nothing is given up.
    Misdirected,
    /// Try again later.
    Busy,
    /// No answer at all: refused, reset, unknown name, TLS, timeout, cut short.
    Unreachable,
    /// Our own content could not be read; whoever reads it knows why.
    SourceUnreadable,
}

impl AnswerClass {
    /// The reason that a job is shown with.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Refresh | Self::Unauthorized | Self::Misdirected => Reason::RemoteUnauthorized,
            Self::CapExceeded => Reason::RemoteCapExceeded,
            Self::BucketMissing => Reason::RemoteBucketMissing,
            Self::SessionLost | Self::MissingParts => Reason::RemoteSessionLost,
            Self::ChecksumMismatch => Reason::ChecksumMismatch,
            Self::Loop => Reason::ReplicationLoop,
            Self::Rejected => Reason::RemoteRejected,
            Self::UploadUrlUsedUp | Self::Busy => Reason::RemoteBusy,
            Self::Unreachable => Reason::RemoteUnreachable,
            Self::SourceUnreadable => Reason::IoError,
        }
    }
}

/// Why a verb at another store did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFault {
    pub(crate) class: AnswerClass,
    /// 0 when no answer came.
    pub(crate) status: u16,
    /// The code in the store's own words, perhaps empty.
    pub(crate) code: String,
    /// For operators: the store's own words, else ours. Holds no secret, no header and no address.
    pub(crate) text: String,
    /// How long the store asks to be left alone, in milliseconds (at most an hour).
    pub(crate) retry_after_ms: Option<i64>,
    /// The store may have done what it was asked, so it is not asked again within the attempt; the next
    /// attempt looks first in any case.
    pub(crate) is_ambiguous: bool,
}

/// Longest wait that a store may ask for (C8).
const RETRY_AFTER_MS_MAX: i64 = 3_600_000;

/// Reads a `Retry-After`: seconds, or a date as HTTP has them. What asks for no wait, or cannot be
/// read, says nothing; what asks for more than an hour asks for an hour.
pub(crate) fn retry_after_ms(header: &str, now: Millis) -> Option<i64> {
    let text = header.trim();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let wait_ms = if is_number {
        // Numbers too long to be read are long waits.
        text.parse::<i64>().unwrap_or(i64::MAX).saturating_mul(1000)
    } else {
        Millis::from_http_date(text)?.0.saturating_sub(now.0)
    };
    (wait_ms > 0).then_some(wait_ms.min(RETRY_AFTER_MS_MAX))
}

/// An answer other than success, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BadAnswer<'a> {
    pub(crate) status: u16,
    /// In the store's own words, perhaps empty.
    pub(crate) code: &'a str,
    pub(crate) message: &'a str,
    pub(crate) retry_after: Option<&'a str>,
    /// By our wall clock.
    pub(crate) now: Millis,
    /// The request was about something begun there before.
    pub(crate) in_session: bool,
}

impl BadAnswer<'_> {
    /// What the answer of a store means that speaks B2's Native API.
    pub(crate) fn native(self) -> RemoteFault {
        self.fault(self.native_class())
    }

    /// What the answer of an S3 store means.
    pub(crate) fn s3(self) -> RemoteFault {
        self.fault(self.s3_class())
    }

    fn fault(self, class: AnswerClass) -> RemoteFault {
        let asks = matches!(self.status, 429 | 503).then_some(self.retry_after).flatten();
        let printable = |text: &str| {
            shorten(text).chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>()
        };
        let mut text = printable(self.message);
        // These repeat a token.
        if text.is_empty() || class == AnswerClass::UploadUrlUsedUp {
            text = format!("the remote answered {}", self.status);
        }
        RemoteFault {
            class,
            status: self.status,
            code: printable(self.code),
            text,
            retry_after_ms: asks.and_then(|header| retry_after_ms(header, self.now)),
            is_ambiguous: false,
        }
    }

    fn says(self, text: &str) -> bool {
        self.message.to_ascii_lowercase().contains(text)
    }

    fn native_class(self) -> AnswerClass {
        use AnswerClass as C;
        match (self.status, self.code) {
            (401, "expired_auth_token" | "bad_auth_token") => C::Refresh,
            (_, "replication_loop") => C::Loop,
            (403, code) if code.ends_with("cap_exceeded") => C::CapExceeded,
            (400, "auth_token_limit") => C::UploadUrlUsedUp,
            (400 | 404, "bad_bucket_id") => C::BucketMissing,
            (400, "missing_part") => C::MissingParts,
            (400, "part_sha1_mismatch") => C::ChecksumMismatch,
            // The services give all of these one code, so their words have to do.
            (400, _) if self.says("sha1 did not match") || self.says("checksum did not match") => {
                C::ChecksumMismatch
            }
            (400, _)
                if self.says("no active upload")
                    || self.says("large file not found")
                    || (self.in_session && self.says("invalid fileid")) =>
            {
                C::SessionLost
            }
            (400, "file_not_present" | "no_such_file") | (404, _) if self.in_session => {
                C::SessionLost
            }
            _ => self.class_of_status(),
        }
    }

    fn s3_class(self) -> AnswerClass {
        use AnswerClass as C;
        match self.code {
            "ExpiredToken" | "RequestTimeTooSkewed" | "RequestExpired" | "TokenRefreshRequired" => {
                C::Refresh
            }
            "AccessDenied" | "QuotaExceeded" | "InvalidRequest"
                if self.says("cap exceeded") || self.says("quota") =>
            {
                C::CapExceeded
            }
            "AccessDenied"
            | "SignatureDoesNotMatch"
            | "InvalidAccessKeyId"
            | "InvalidToken"
            | "InvalidSecurity"
            | "AccountProblem"
            | "AllAccessDisabled"
            | "NotSignedUp" => C::Unauthorized,
            "QuotaExceeded"
            | "StorageQuotaExceeded"
            | "ServiceQuotaExceeded"
            | "XMinioStorageFull"
            | "XMinioAdminBucketQuotaExceeded" => C::CapExceeded,
            "NoSuchBucket" => C::BucketMissing,
            "NoSuchUpload" => C::SessionLost,
            "BadDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
                C::ChecksumMismatch
            }
            "InvalidPart" => C::MissingParts,
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "Redirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => C::Misdirected,
            "SlowDown"
            | "RequestTimeout"
            | "InternalError"
            | "ServiceUnavailable"
            | "OperationAborted"
            | "ConditionalRequestConflict"
            | "IncompleteBody"
            | "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "BandwidthLimitExceeded" => C::Busy,
            _ => self.class_of_status(),
        }
    }

    /// What can be said of an answer whose code says nothing.
    fn class_of_status(self) -> AnswerClass {
        use AnswerClass as C;
        match self.status {
            401 | 403 => C::Unauthorized,
            402 => C::CapExceeded,
            404 => C::BucketMissing,
            300..=399 => C::Misdirected,
            408 | 409 | 412 | 425 | 429 => C::Busy,
            400..=499 => C::Rejected,
            // Everything of the server's own, and what is no answer to anything.
            _ => C::Busy,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 1994-11-06T08:49:37Z
    const NOW: Millis = Millis(784_111_777_000);

    fn answer<'a>(status: u16, code: &'a str, message: &'a str) -> BadAnswer<'a> {
        BadAnswer { status, code, message, retry_after: None, now: NOW, in_session: false }
    }

    #[test]
    fn replication_190_191_stores_say_how_long_they_are_to_be_left_alone() {
        for (header, wait_s) in [
            ("120", Some(120)),
            (" 1 ", Some(1)),
            ("3600", Some(3600)),
            ("86400", Some(3600)),
            ("99999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:51:37 GMT", Some(120)),
            ("Mon, 07 Nov 1994 08:49:37 GMT", Some(3600)),
            ("0", None),
            ("-5", None),
            ("abc", None),
            ("", None),
            ("1.5", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", None),
            ("Sat, 05 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov", None),
        ] {
            assert_eq!(retry_after_ms(header, NOW), wait_s.map(|s| s * 1000), "{header}");
            for (status, heard) in [(503, true), (429, true), (500, false), (400, false)] {
                let bad = BadAnswer { retry_after: Some(header), ..answer(status, "", "") };
                let waits = wait_s.filter(|_| heard).map(|s| s * 1000);
                assert_eq!(bad.native().retry_after_ms, waits, "{status} {header}");
                assert_eq!(bad.s3().retry_after_ms, waits, "{status} {header}");
            }
        }
    }

    #[test]
    fn replication_193_195_answers_of_the_native_api_mean_what_they_mean() {
        use AnswerClass as C;
        for (status, code, message, class) in [
            (401, "expired_auth_token", "", C::Refresh),
            (401, "bad_auth_token", "", C::Refresh),
            (401, "unauthorized", "", C::Unauthorized),
            (401, "access_denied", "Access Denied", C::Unauthorized),
            (403, "access_denied", "Access Denied", C::Unauthorized),
            (403, "storage_cap_exceeded", "", C::CapExceeded),
            (403, "transaction_cap_exceeded", "", C::CapExceeded),
            (403, "cap_exceeded", "", C::CapExceeded),
            (402, "", "", C::CapExceeded),
            (400, "bad_bucket_id", "Bucket f does not exist", C::BucketMissing),
            (404, "not_found", "", C::BucketMissing),
            (
                400,
                "auth_token_limit",
                "more than one upload using auth token s3cret",
                C::UploadUrlUsedUp,
            ),
            (400, "bad_request", "Sha1 did not match data received", C::ChecksumMismatch),
            (400, "bad_request", "Checksum did not match data received", C::ChecksumMismatch),
            (400, "part_sha1_mismatch", "", C::ChecksumMismatch),
            (400, "missing_part", "", C::MissingParts),
            (400, "bad_request", "No active upload for: 4_z", C::SessionLost),
            (400, "bad_request", "large file not found", C::SessionLost),
            (400, "bad_request", "whatever else", C::Rejected),
            (400, "metadata_exceeded", "", C::Rejected),
            (405, "method_not_allowed", "", C::Rejected),
            (411, "", "", C::Rejected),
            (413, "bad_request", "", C::Rejected),
            (414, "", "", C::Rejected),
            (415, "", "", C::Rejected),
            (422, "", "", C::Rejected),
            (408, "request_timeout", "", C::Busy),
            (425, "", "", C::Busy),
            (429, "too_many_requests", "", C::Busy),
            (500, "internal_error", "", C::Busy),
            (502, "", "", C::Busy),
            (503, "service_unavailable", "", C::Busy),
            (504, "", "", C::Busy),
            (507, "", "", C::Busy),
            (509, "", "", C::Busy),
            (520, "", "", C::Busy),
            (524, "", "", C::Busy),
            (409, "replication_loop", "", C::Loop),
            (409, "conflict", "", C::Busy),
            (412, "precondition_failed", "", C::Busy),
            (301, "", "", C::Misdirected),
        ] {
            let fault = answer(status, code, message).native();
            assert_eq!(fault.class, class, "{status} {code} {message}");
            assert_eq!((fault.status, fault.code.as_str()), (status, code));
            assert!(!fault.text.contains("s3cret"), "{}", fault.text);
        }
    }

    #[test]
    fn replication_208_what_is_not_known_there_any_more_is_begun_anew() {
        for (status, code, message) in [
            (404, "not_found", "file_state_none: 4_z"),
            (400, "file_not_present", ""),
            (400, "bad_request", "Invalid fileId: x"),
        ] {
            let bad = answer(status, code, message);
            assert_ne!(bad.native().class, AnswerClass::SessionLost);
            let inside = BadAnswer { in_session: true, ..bad };
            assert_eq!(inside.native().class, AnswerClass::SessionLost, "{status} {code}");
        }
        assert_eq!(answer(404, "NoSuchUpload", "").s3().class, AnswerClass::SessionLost);
    }

    #[test]
    fn answers_of_s3_stores_mean_what_they_mean() {
        use AnswerClass as C;
        for (status, code, message, class) in [
            (400, "ExpiredToken", "", C::Refresh),
            (403, "RequestTimeTooSkewed", "", C::Refresh),
            (403, "AccessDenied", "Access Denied", C::Unauthorized),
            (403, "AccessDenied", "Cannot upload files, storage cap exceeded.", C::CapExceeded),
            (403, "SignatureDoesNotMatch", "", C::Unauthorized),
            (403, "InvalidAccessKeyId", "", C::Unauthorized),
            (403, "", "", C::Unauthorized),
            (403, "QuotaExceeded", "", C::CapExceeded),
            (507, "XMinioStorageFull", "", C::CapExceeded),
            (404, "NoSuchBucket", "", C::BucketMissing),
            (404, "", "", C::BucketMissing),
            (400, "BadDigest", "", C::ChecksumMismatch),
            (400, "XAmzContentSHA256Mismatch", "", C::ChecksumMismatch),
            (400, "InvalidPart", "", C::MissingParts),
            (400, "EntityTooLarge", "", C::Rejected),
            (400, "InvalidArgument", "", C::Rejected),
            (400, "KeyTooLongError", "", C::Rejected),
            (400, "MetadataTooLarge", "", C::Rejected),
            (400, "InvalidRequest", "Bucket is missing Object Lock Configuration", C::Rejected),
            (405, "MethodNotAllowed", "", C::Rejected),
            (411, "MissingContentLength", "", C::Rejected),
            (503, "SlowDown", "", C::Busy),
            (400, "RequestTimeout", "", C::Busy),
            (400, "IncompleteBody", "", C::Busy),
            (500, "InternalError", "", C::Busy),
            (200, "InternalError", "", C::Busy),
            (409, "OperationAborted", "", C::Busy),
            (412, "PreconditionFailed", "", C::Busy),
            (301, "PermanentRedirect", "", C::Misdirected),
            (307, "TemporaryRedirect", "", C::Misdirected),
            (400, "AuthorizationHeaderMalformed", "", C::Misdirected),
        ] {
            let fault = answer(status, code, message).s3();
            assert_eq!(fault.class, class, "{status} {code} {message}");
        }
    }

    proptest! {
        #[test]
        fn replication_166_every_answer_has_a_text_of_one_line(
            status in 100_u16..600, code in "\\PC{0,9}|\r\n", message in any::<String>(),
            in_session in any::<bool>(),
        ) {
            let bad = BadAnswer { in_session, ..answer(status, &code, &message) };
            for fault in [bad.native(), bad.s3()] {
                prop_assert!(!fault.text.is_empty());
                prop_assert!(!fault.text.chars().any(char::is_control));
                prop_assert!(fault.text.len() < 2000 && !fault.is_ambiguous);
            }
        }

        #[test]
        fn waits_are_between_nothing_and_an_hour(header in any::<String>()) {
            if let Some(wait_ms) = retry_after_ms(&header, NOW) {
                prop_assert!((1..=3_600_000).contains(&wait_ms));
            }
        }
    }
}
