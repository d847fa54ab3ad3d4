//! What the tests of the binary share.

use std::time::{Duration, Instant};

pub(crate) mod http;
pub(crate) mod inside;
pub(crate) mod receiver;
pub(crate) mod s3;
pub(crate) mod server;
pub(crate) mod tls;

/// How long anything may take that a test waits for.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// Asks again until there is an answer; a test that waits for too long fails with `what`.
#[expect(clippy::disallowed_methods, reason = "another process is waited for in real time")]
pub(crate) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < WAIT_LIMIT, "too long: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
