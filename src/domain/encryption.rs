//! Server-side encryption as callers see it.

/// How a version is encrypted at rest.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum Encryption {
    #[default]
    None,
    /// SSE-B2: with keys of the server.
    Managed,
    /// SSE-C: with a key of the customer, which is not kept. `key_check` tells whether a key that
    /// is offered later is the same one.
    Customer { key_check: Vec<u8> },
}

impl Encryption {
    /// The mode in answers; None where nothing is encrypted.
    pub(crate) fn mode(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Managed => Some("SSE-B2"),
            Self::Customer { .. } => Some("SSE-C"),
        }
    }
}
