//! The replication engine: carries what rules ask for, one job at a time, exactly once.
//!
//! Kept here: which job goes next, the checks before it, its outcome, scans of existing files.
//! Deliberately not here: the making of jobs (that is part of the act that commits a version) and
//! what the status of a file is (a rule in `domain`). The house starts it; the admin door steps and
//! holds it in tests. The promise that would break first: each eligible version has exactly one
//! replica in each destination, whenever the process dies.
//!
//! Nothing about replication lives only in memory. A job row is the queue; a claim is a lease with
//! an epoch; for a destination in this server the replica, its origin and the outcome of the job
//! are one transaction.

pub(crate) mod carry;
pub(crate) mod destination;
pub(crate) mod gate;
pub(crate) mod inquiry;
pub(crate) mod network;
pub(crate) mod pace;
pub(crate) mod scan;
pub(crate) mod schedule;
pub(crate) mod stream_scan;
pub(crate) mod tend;
#[cfg(test)]
mod tests;
pub(crate) mod worker;

pub(crate) use worker::{Engine, EngineOptions};
