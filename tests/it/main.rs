//! Tests of the built binary and of the source as a whole.
//!
//! `support` starts servers and speaks HTTP to them; every other module states promises.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod admin;
mod compatibility;
mod crash;
mod house_rules;
mod native;
mod support;
