//! The doors: HTTP in, one operation, HTTP out.
//!
//! Kept here: parsing and rendering, for the Native API and for administration. Deliberately not
//! here: rules, storage; a handler that decides about either is in the wrong room. The promise that
//! would break first: input that is not understood is refused in the caller's protocol.

pub(crate) mod admin;
pub(crate) mod body;
pub(crate) mod error;
pub(crate) mod native;
pub(crate) mod request_id;

use std::sync::Arc;
use std::time::Duration;

use crate::operations::App;
use crate::operations::controls::EngineControls;

/// What every handler can reach.
pub(crate) struct Http {
    pub(crate) app: Arc<App>,
    pub(crate) engine: Arc<dyn EngineControls>,
    pub(crate) settings: HttpSettings,
}

/// What the operator may set about the doors.
#[derive(Clone, Debug)]
pub(crate) struct HttpSettings {
    /// Base of the addresses handed to clients, without a trailing slash; None answers with the
    /// address the request came to.
    pub(crate) public_url: Option<String>,
    /// Address of the data listener, for when neither is known.
    pub(crate) endpoint: String,
    pub(crate) region: String,
    /// A body that brings nothing for this long is given up.
    pub(crate) idle_timeout: Duration,
    pub(crate) json_bytes_max: usize,
    pub(crate) test_controls: bool,
}
