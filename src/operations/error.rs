//! How an act fails: refused, or broken.

use std::error::Error as StdError;

use crate::auth::data_keys::DataKeyError;
use crate::auth::sealing::Unsealable;
use crate::domain::refusal::Refusal;
use crate::{blobs, catalog};

/// We or the world broke. The caller gets a fixed sentence; the log gets this.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub(crate) struct Fault {
    /// What was being done, in the present tense.
    pub(crate) doing: &'static str,
    /// Whether the caller may hope that trying again helps.
    pub(crate) may_retry: bool,
    #[source]
    pub(crate) source: Box<dyn StdError + Send + Sync>,
}

/// Why an act did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<catalog::Abort> for Error {
    fn from(abort: catalog::Abort) -> Self {
        match abort {
            catalog::Abort::Refused(refusal) => Self::Refused(refusal),
            catalog::Abort::Catalog(error) => error.into(),
        }
    }
}

impl From<catalog::Error> for Error {
    fn from(error: catalog::Error) -> Self {
        use catalog::Error as E;
        let may_retry =
            matches!(error, E::Full | E::Busy | E::Suspect(_) | E::Closed | E::RingKeyRetired(_));
        Self::Fault(Fault { doing: "use the catalog", may_retry, source: Box::new(error) })
    }
}

impl From<blobs::Error> for Error {
    fn from(error: blobs::Error) -> Self {
        let may_retry = matches!(error, blobs::Error::Full { .. } | blobs::Error::Suspect(_));
        Self::Fault(Fault { doing: "use the blob store", may_retry, source: Box::new(error) })
    }
}

impl From<DataKeyError> for Error {
    fn from(error: DataKeyError) -> Self {
        Self::Fault(Fault {
            doing: "use the key of a blob",
            may_retry: false,
            source: Box::new(error),
        })
    }
}

impl From<Unsealable> for Error {
    fn from(error: Unsealable) -> Self {
        Self::Fault(Fault {
            doing: "open a sealed secret",
            may_retry: false,
            source: Box::new(error),
        })
    }
}
