//! The Native API on the wire: the numbered statements of its specification, against the built
//! binary.

mod account;
mod bad_input;
mod buckets;
mod caps;
mod copy;
mod cors;
mod download;
mod encryption;
mod faults;
mod files;
mod keys;
mod large_files;
mod lifecycle;
mod listing;
mod locks;
mod model;
mod notifications;
mod replication;
mod test_mode;
mod transport;
pub(crate) mod upload;
