//! The Native API as a client sees it. The numbers in the names of the tests are those of the
//! conformance list of the API.

mod account;
mod bad_input;
mod buckets;
mod download;
mod download_authorization;
mod files;
mod keys;
mod listing;
mod transport;
mod upload;

use serde_json::{Value, json};

use crate::support::http::Answer;
use crate::support::server::{Server, Session};

/// A server with one bucket, and its master application key.
struct Stage {
    server: Server,
    master: Session,
    /// Id of the bucket `first-bucket`.
    bucket: String,
}

/// Name of the bucket that every stage has.
const BUCKET: &str = "first-bucket";

impl Stage {
    fn new() -> Self {
        Self::with(&["--test-controls"])
    }

    fn with(arguments: &[&str]) -> Self {
        let server = Server::start_with(arguments);
        let master = server.master();
        let bucket = master.create_bucket(BUCKET);
        Self { server, master, bucket }
    }

    /// Moves the server's clock forward.
    fn advance(&self, by_ms: i64) {
        let target = format!("/admin/clock/advance?ms={by_ms}");
        assert_eq!(self.server.control("POST", &target).status, 200);
    }

    /// Everything the first account can list: buckets, keys and file versions.
    fn snapshot(&self) -> Value {
        let account = json!({"accountId": self.master.account});
        let buckets = self.master.ok("b2_list_buckets", &account);
        let mut files = Vec::new();
        for bucket in buckets["buckets"].as_array().unwrap() {
            files.extend(versions(&self.master, bucket["bucketId"].as_str().unwrap()));
        }
        let keys = self.master.ok("b2_list_keys", &account);
        json!({"buckets": buckets, "files": files, "keys": keys})
    }

    /// Makes the bucket readable by anybody.
    fn publish(&self) {
        let body = json!({
            "accountId": self.master.account, "bucketId": self.bucket, "bucketType": "allPublic",
        });
        self.master.ok("b2_update_bucket", &body);
    }
}

/// Checks status, code and shape of a refusal and answers its message.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) -> String {
    let shown = format!("{answer:?}: {}", String::from_utf8_lossy(&answer.body));
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{shown}");
    let body = answer.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "message", "status"], "{shown}");
    assert_eq!(body["status"], status, "{shown}");
    assert!(answer.header("content-type").unwrap().starts_with("application/json"), "{shown}");
    answer.message()
}

/// All file versions of a bucket in the order of their listing.
fn versions(session: &Session, bucket: &str) -> Vec<Value> {
    let body = json!({"bucketId": bucket, "maxFileCount": 10_000});
    session.ok("b2_list_file_versions", &body)["files"].as_array().unwrap().clone()
}

/// The file names that a listing shows.
fn names(listed: &Value) -> Vec<&str> {
    let files = listed["files"].as_array().unwrap();
    files.iter().map(|file| file["fileName"].as_str().unwrap()).collect()
}

/// The text of a member.
fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_else(|| panic!("no text {member} in {value}"))
}

/// The names of an object's members, in order.
fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// The time of this machine in milliseconds.
#[expect(clippy::disallowed_methods, reason = "the server's time is compared with the machine's")]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}
