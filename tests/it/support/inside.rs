//! A server inside of the test itself: as real as the built binary, and ready sooner. Tests of what
//! only a process has (signals, kills, restarts, its log) start the binary instead.

use kiln::testing::TestServer;

use crate::support::http::{Answer, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Session};

/// A running server; it ends and its folder goes when it is dropped.
pub(crate) struct Server {
    /// `host:port` of the data listener.
    pub(crate) address: String,
    /// `host:port` of the admin listener.
    pub(crate) admin: String,
    _inside: TestServer,
}

impl Server {
    /// Starts a server with test controls.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server with more settings, by their names in a configuration file.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let options = TestServer::options()
            .setting("master_key_id", MASTER_ID)
            .setting("master_key", MASTER_KEY);
        let options =
            settings.iter().fold(options, |options, (name, value)| options.setting(name, value));
        let inside = options.start().unwrap();
        let address = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
        Self {
            address: address(inside.endpoint()),
            admin: address(inside.admin_endpoint()),
            _inside: inside,
        }
    }

    /// A test control or other admin request without credentials.
    pub(crate) fn control(&self, method: &str, target: &str) -> Answer {
        call(&self.admin, method, target, &[], b"")
    }

    /// The master application key, authorized.
    pub(crate) fn master(&self) -> Session {
        Session::authorize(&self.address, MASTER_ID, MASTER_KEY).unwrap()
    }
}
