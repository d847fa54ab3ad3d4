//! A whole server for the tests of other programs.
//!
//! Kept here: starting a real server, doors and workers and all, inside of a test, and reaching its
//! test controls. Deliberately not here: a client; the program under test is one. The promise that
//! would break first: when a [`TestServer`] is dropped, nothing of it is left, on the disk or in the
//! process.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::{Clock, ManualClock};
use crate::config::Config;
use crate::domain::time::Millis;
use crate::entropy::{self, Entropy, OsEntropy, SeededEntropy};
use crate::house::{Inside, Parts};

#[cfg(test)]
mod house;
#[cfg(test)]
pub(crate) use house::*;

/// A running kiln of one test: on free ports of the loopback interface, in a temporary folder, with
/// a known master application key and test controls. Dropped, it stops and removes its folder.
///
/// ```toml
/// [dev-dependencies]
/// kiln = { path = "../kiln" }
/// reqwest = "0.13"
/// tokio = { version = "1", features = ["macros", "rt"] }
/// ```
///
/// ```
/// use std::time::Duration;
///
/// use kiln::testing::TestServer;
///
/// #[tokio::test]
/// async fn a_client_tries_again() -> Result<(), Box<dyn std::error::Error>> {
///     let server = TestServer::start()?;
///     server.plan_fault(r#"{"operation": "b2_authorize_account", "status": 503, "times": 1}"#)?;
///
///     // Stands for the client under test: it needs the endpoint, the key id and the key.
///     let client = reqwest::Client::builder().no_proxy().build()?;
///     let url = format!("{}/b2api/v4/b2_authorize_account", server.endpoint());
///     let authorize =
///         || client.get(&url).basic_auth(TestServer::KEY_ID, Some(TestServer::KEY)).send();
///     assert_eq!(authorize().await?.status(), 503);
///     assert_eq!(authorize().await?.status(), 200);
///
///     server.advance_clock(Duration::from_hours(25))?; // Every token has expired.
///     server.reset()?; // Nothing is stored, and the key is the same.
///     assert_eq!(authorize().await?.status(), 200);
///     Ok(())
/// }
/// ```
///
/// It starts within milliseconds (see `docs/testing.md`), so each test can have its own. Where the
/// system has a folder in memory the data is kept there, because nothing has to survive.
pub struct TestServer {
    inside: Inside,
    data_dir: PathBuf,
    clock: Option<Arc<ManualClock>>,
    /// Removed last, when nobody uses it any more.
    _folder: Folder,
}

/// Why a [`TestServer`] did not start, or a control failed; it prints as one line.
#[derive(Debug)]
pub struct TestServerError(String);

impl fmt::Display for TestServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TestServerError {}

/// What a [`TestServer`] is started with.
#[derive(Clone, Debug)]
pub struct TestOptions {
    settings: Vec<(String, String)>,
    parent: Option<PathBuf>,
    clock_at: Option<SystemTime>,
    seed: Option<u64>,
}

impl TestOptions {
    /// Gives a setting by its name in a configuration file, such as `limits.part_size_min`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Makes the temporary folder inside of this one.
    #[must_use]
    pub fn inside(mut self, folder: impl Into<PathBuf>) -> Self {
        self.parent = Some(folder.into());
        self
    }

    /// Lets the clock stand at this moment until [`TestServer::advance_clock`] moves it.
    #[must_use]
    pub fn clock_at(mut self, moment: SystemTime) -> Self {
        self.clock_at = Some(moment);
        self
    }

    /// Draws everything random from this seed: the same calls meet the same failures of the test
    /// mode on every run. Secrets are then no secrets.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the server and waits until it answers.
    pub fn start(self) -> Result<TestServer, TestServerError> {
        let folder = Folder::new(self.parent.as_deref())?;
        let data_dir = folder.0.join("data");
        let config = Config::on_free_ports(&data_dir, &self.settings).map_err(in_words)?;
        let clock = self.clock_at.map(|moment| {
            let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            Arc::new(ManualClock::at(Millis(i64::try_from(since).unwrap_or(i64::MAX))))
        });
        let mut parts = Parts::real();
        if let Some(clock) = &clock {
            let clock: Arc<dyn Clock> = Arc::<ManualClock>::clone(clock);
            parts.clock = clock;
        }
        if let Some(seed) = self.seed {
            let seeded: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(seed));
            parts.entropy = seeded;
        }
        let inside = Inside::start(config, parts).map_err(in_words)?;
        Ok(TestServer { inside, data_dir, clock, _folder: folder })
    }
}

fn in_words(error: impl fmt::Display) -> TestServerError {
    TestServerError(error.to_string())
}

impl TestServer {
    /// Account id, and id of the master application key, unless a setting says otherwise.
    pub const KEY_ID: &str = "0123456789ab";
    /// The master application key, unless a setting says otherwise.
    pub const KEY: &str = "K000OfTheTestServerOfKiln0123456";

    /// Starts a server with test controls and otherwise default settings.
    pub fn start() -> Result<Self, TestServerError> {
        Self::options().start()
    }

    /// Settings, clock and folder of a server to be started.
    pub fn options() -> TestOptions {
        let settings =
            TestOptions { settings: Vec::new(), parent: None, clock_at: None, seed: None };
        settings
            .setting("master_key_id", Self::KEY_ID)
            .setting("master_key", Self::KEY)
            .setting("test_controls", true)
            .setting("http.workers", 2)
    }

    /// Where clients connect: `http://127.0.0.1:<port>`, what b2sdk calls the realm.
    pub fn endpoint(&self) -> &str {
        &self.inside.addresses.endpoint
    }

    /// Where operators and test controls connect: `http://127.0.0.1:<port>`.
    pub fn admin_endpoint(&self) -> &str {
        &self.inside.addresses.admin_endpoint
    }

    /// The folder of everything the server keeps.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Sends a request to the admin listener, for test controls above all, and answers the body of
    /// its answer; an answer other than 200 is an error.
    pub fn control(
        &self,
        method: &str,
        target: &str,
        body: &str,
    ) -> Result<String, TestServerError> {
        let address = self.admin_endpoint().trim_start_matches("http://");
        let answer = ask(address, method, target, body).map_err(in_words)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        match head.split(' ').nth(1) {
            Some("200") => Ok(body.to_owned()),
            status => {
                let status = status.unwrap_or("nothing");
                Err(TestServerError(format!("{method} {target} answered {status}: {body}")))
            }
        }
    }

    /// Plans faults of the data listener: a rule as `POST /admin/faults` takes it.
    pub fn plan_fault(&self, rule: &str) -> Result<(), TestServerError> {
        self.control("POST", "/admin/faults", rule).map(drop)
    }

    /// Puts the server back to how it started: no buckets, no files, no other keys, no valid tokens.
    pub fn reset(&self) -> Result<(), TestServerError> {
        self.control("POST", "/admin/reset", "").map(drop)
    }

    /// Moves the server's clock forward.
    pub fn advance_clock(&self, by: Duration) -> Result<(), TestServerError> {
        self.control("POST", &format!("/admin/clock/advance?ms={}", by.as_millis()), "").map(drop)
    }

    /// What time it is for the server, when its clock was told to stand.
    pub fn clock(&self) -> Option<SystemTime> {
        let now = self.clock.as_ref()?.now().0;
        Some(UNIX_EPOCH + Duration::from_millis(u64::try_from(now).unwrap_or_default()))
    }

    /// Stops the server and says whether it ended well. Dropping it does the same in silence.
    pub fn stop(mut self) -> Result<(), TestServerError> {
        self.inside.stop().map_err(in_words)
    }
}

/// One request on a connection of its own; the answer as text.
fn ask(address: &str, method: &str, target: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let length = body.len();
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A temporary folder that only its owner may enter.
struct Folder(PathBuf);

/// A folder in memory, where writing durably costs nothing.
const IN_MEMORY: &str = "/dev/shm";

impl Folder {
    fn new(parent: Option<&Path>) -> Result<Self, TestServerError> {
        let memory = Path::new(IN_MEMORY);
        let parent = match parent {
            Some(parent) => parent.to_owned(),
            None if memory.is_dir() => memory.to_owned(),
            None => std::env::temp_dir(),
        };
        let unique = hex::encode(entropy::bytes::<8>(&OsEntropy));
        let path = parent.join(format!("kiln-test-{unique}"));
        crate::house::make_private_folder(&path).map_err(in_words)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        crate::house::remove_folder(&self.0);
    }
}
