//! The S3-compatible API.

pub(crate) mod chunked;
pub(crate) mod error;
pub(crate) mod signed;
