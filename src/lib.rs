//! kiln: Backblaze B2 at home.
//!
//! Rooms in reading order: `domain` the rules, pure · `auth` proofs and grants · `catalog`
//! facts in SQL · `blobs` bytes · `operations` acts of callers · `replication` and `jobs`
//! the workers · `api` the doors · `house` where everything meets. `ARCHITECTURE.md` has the
//! map and the walks through it.
//!
//! Programs that want a server of their own in their tests find it in [`testing`].

mod api;
mod auth;
mod blobs;
mod catalog;
pub mod cli;
mod clock;
mod config;
mod domain;
mod entropy;
pub mod fuzzing;
mod house;
mod jobs;
pub mod manifest;
mod metrics;
mod operations;
mod outbound;
mod replication;
pub mod testing;
mod tls;
