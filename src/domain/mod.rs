//! The rules of B2 as pure code: same input, same answer.
//!
//! Kept here: names, ids, limits, capabilities, error codes, the rules of buckets. Deliberately not
//! here: input or output of any kind, clocks, randomness, storage, HTTP. Everybody may call it;
//! it calls nobody. The promise that would break first: a value that exists is valid.

pub(crate) mod blob;
pub(crate) mod bucket;
pub(crate) mod capability;
pub(crate) mod checksum;
pub(crate) mod conditions;
pub(crate) mod content_type;
pub(crate) mod cors;
pub(crate) mod digest;
pub(crate) mod digits;
pub(crate) mod encryption;
pub(crate) mod event;
pub(crate) mod file;
pub(crate) mod ids;
pub(crate) mod key;
pub(crate) mod large_file;
pub(crate) mod lifecycle;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod percent;
pub(crate) mod range;
pub(crate) mod refusal;
pub(crate) mod remote;
pub(crate) mod remote_answer;
pub(crate) mod replica;
pub(crate) mod replication;
pub(crate) mod stream;
pub(crate) mod stream_diff;
pub(crate) mod test_mode;
pub(crate) mod time;
pub(crate) mod usage;
pub(crate) mod webhook;
