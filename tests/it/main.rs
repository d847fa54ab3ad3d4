//! Tests of the built binary and of the source as a whole.
//!
//! `support` starts servers and speaks HTTP to them; every other module states promises.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a test stops at the first surprise, waits by the real clock, and is not on a hot path"
)]

mod admin;
mod compatibility;
mod corpus;
mod crash;
mod house_rules;
mod key_files;
mod key_ring;
mod memory;
mod native;
mod pages;
mod rights;
mod s3;
mod streams;
mod support;
mod test_server;
mod tls;
