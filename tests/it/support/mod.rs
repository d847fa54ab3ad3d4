//! What the tests of the binary share.

pub(crate) mod http;
pub(crate) mod server;
