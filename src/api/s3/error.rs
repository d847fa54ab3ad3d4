//! What S3 requests are refused with.

use std::borrow::Cow;

use crate::domain::refusal::Refusal;
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
