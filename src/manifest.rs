//! The table of operations for readers outside of the crate: tests and tools.

use crate::api::native::{OPERATIONS, Scope};
use crate::domain::capability::Capability;

/// One operation of the Native API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationRow {
    /// `b2_...`
    pub name: &'static str,
    /// HTTP methods it answers.
    pub methods: &'static [&'static str],
    /// The capability every caller needs, if there is one.
    pub capability: Option<&'static str>,
    /// Transaction class: `A`, `B` or `C`.
    pub class: &'static str,
    /// What restrictions of a key matter: `nothing`, `account`, `bucket`, `prefix` or `name`.
    pub scope: &'static str,
}

/// Every operation there is, in the order of their names.
pub fn operations() -> Vec<OperationRow> {
    OPERATIONS
        .iter()
        .map(|operation| OperationRow {
            name: operation.name,
            methods: operation.methods(),
            capability: operation.capability.map(Capability::as_str),
            class: operation.class.as_str(),
            scope: match operation.scope {
                Scope::Nothing => "nothing",
                Scope::Account => "account",
                Scope::Bucket => "bucket",
                Scope::Prefix => "prefix",
                Scope::Name => "name",
            },
        })
        .collect()
}

/// Every capability there is, in the order of their names.
pub fn capabilities() -> Vec<&'static str> {
    Capability::ALL.iter().map(|one| one.as_str()).collect()
}
