//! Work that is due by itself, other than replication.
//!
//! Kept here: the sweep, when lifecycle rules are looked at, and the upkeep of the catalog.
//! Deliberately not here: anything a caller waits for. The house starts them. The promise that would
//! break first: no bytes are removed that a version still shows, and no version that its lock keeps.

pub(crate) mod lifecycle;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod upkeep;
