//! Work that is due by itself, other than replication.
//!
//! Kept here: the sweep, when lifecycle rules are looked at, the upkeep of the catalog, and the
//! delivery of event notifications. Deliberately not here: anything a caller waits for. The house
//! starts them. The promise that would break first: no bytes are removed that a version still shows,
//! no version that its lock keeps, and no event is forgotten before its target has it.

pub(crate) mod deliver;
pub(crate) mod lifecycle;
pub(crate) mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod upkeep;
