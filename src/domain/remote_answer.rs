//! What the answers of other stores mean: one class for each, and what follows from it.
//!
//! Source: replication.md B6.

use crate::domain::replication::Reason;

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
    /// The bucket lives in another region, which the text names.
    WrongRegion,
    /// Try again later.
    Busy,
    /// No answer at all: refused, reset, unknown name, TLS, timeout, cut short.
    Unreachable,
}

impl AnswerClass {
    /// The reason that a job is shown with.
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Refresh | Self::Unauthorized => Reason::RemoteUnauthorized,
            Self::CapExceeded => Reason::RemoteCapExceeded,
            Self::BucketMissing => Reason::RemoteBucketMissing,
            Self::SessionLost | Self::MissingParts => Reason::RemoteSessionLost,
            Self::ChecksumMismatch => Reason::ChecksumMismatch,
            Self::Loop => Reason::ReplicationLoop,
            Self::Rejected | Self::WrongRegion => Reason::RemoteRejected,
            Self::UploadUrlUsedUp | Self::Busy => Reason::RemoteBusy,
            Self::Unreachable => Reason::RemoteUnreachable,
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
    /// For operators. Holds no secret, no header and no address.
    pub(crate) text: String,
    /// How long the store asks to be left alone, in milliseconds (at most an hour).
    pub(crate) retry_after_ms: Option<i64>,
    /// The store may have done what it was asked: look before asking again.
    pub(crate) is_ambiguous: bool,
}
