//! Remotes and replication streams over the wire of the built binary.

mod calls;
mod commands;
mod peer;
mod remotes;
mod replications;
mod rights;

use serde_json::{Value, json};

use crate::support::http::{Answer, call};
use crate::support::server::{MASTER_ID, MASTER_KEY, Server, Session};

/// The first account as InfluxDB writes organizations.
const ORG: &str = "00000123456789ab";
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";
/// Part of the token of each remote that is made here; nothing may show it.
const SECRET: &str = "K000NobodyMayEverSeeThisSecret";

/// Somebody who calls the API of remotes and streams.
struct Client {
    address: String,
    authorization: String,
}

impl Client {
    /// At the admin listener, with the master key of the first account.
    fn of(server: &Server) -> Self {
        Self::with(server, &format!("Token {MASTER_ID}:{MASTER_KEY}"))
    }

    fn with(server: &Server, authorization: &str) -> Self {
        Self { address: server.admin.clone(), authorization: authorization.to_owned() }
    }

    fn send(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        let headers = [("Authorization", self.authorization.as_str())];
        call(&self.address, method, target, &headers, body)
    }

    fn call(&self, method: &str, target: &str, body: &Value) -> Answer {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.send(method, target, &bytes)
    }

    /// A call that must answer with `status`, and its body; null when it has none.
    fn expect(&self, status: u16, method: &str, target: &str, body: &Value) -> Value {
        let answer = self.call(method, target, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert_eq!(answer.status, status, "{method} {target}: {text}");
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    fn get(&self, target: &str) -> Value {
        self.expect(200, "GET", target, &Value::Null)
    }

    /// The status, code and message of a call that must be refused in the shape of InfluxDB.
    fn refused(&self, method: &str, target: &str, body: &Value) -> (u16, String, String) {
        let answer = self.call(method, target, body);
        check_refusal(&answer);
        (answer.status, answer.code(), answer.message())
    }

    fn remote(&self, name: &str) -> String {
        let made = self.expect(201, "POST", "/api/v2/remotes", &new_remote(name));
        made["id"].as_str().unwrap().to_owned()
    }

    fn stream(&self, body: &Value) -> Value {
        self.expect(201, "POST", "/api/v2/replications", body)
    }
}

/// Every refusal has the same shape, and its word a second time.
fn check_refusal(answer: &Answer) {
    let body = answer.json();
    let members: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(members, ["code", "message"], "{body}");
    assert!(!answer.message().is_empty());
    assert_eq!(answer.header("x-platform-error-code"), Some(answer.code().as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
}

fn new_remote(name: &str) -> Value {
    json!({"name": name, "orgID": ORG, "remoteURL": NOWHERE, "allowInsecureTLS": false,
        "remoteAPIToken": format!("0123456789ab:{SECRET}")})
}

fn new_stream(name: &str, remote: &str, bucket: &str) -> Value {
    json!({"name": name, "orgID": ORG, "remoteID": remote, "localBucketID": bucket,
        "remoteBucketName": "far-bucket"})
}

/// `value` with some members replaced.
fn with(value: &Value, members: &Value) -> Value {
    let mut value = value.clone();
    for (name, member) in members.as_object().unwrap() {
        value[name] = member.clone();
    }
    value
}

/// `value` without a member.
fn without(value: &Value, member: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(member);
    value
}

/// A server whose engine starts nothing, a client, the id of a remote and that of a bucket.
fn prepared() -> (Server, Client, Session, String, String) {
    prepared_with(&[])
}

/// As [`prepared`], with more arguments for the server.
fn prepared_with(arguments: &[&str]) -> (Server, Client, Session, String, String) {
    let server = Server::start_with(&[&["--test-controls"], arguments].concat());
    server.control("POST", "/admin/replication/hold");
    let client = Client::of(&server);
    let remote = client.remote("offsite");
    let master = server.master();
    let bucket = master.create_bucket("streamed-bucket");
    (server, client, master, remote, bucket)
}
