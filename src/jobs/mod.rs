//! Work that is due by itself, other than replication.
//!
//! Kept here: the sweep and the upkeep of the catalog. Deliberately not here: anything a caller
//! waits for. The house starts both. The promise that would break first: no bytes are removed that
//! a version still shows.

pub(crate) mod sweep;
pub(crate) mod upkeep;
