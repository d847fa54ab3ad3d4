//! Starts the built binary and speaks the Native API to it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tempfile::TempDir;

use crate::support::http::{Answer, call};
use crate::support::wait_for;

pub(crate) const MASTER_ID: &str = "0123456789ab";
pub(crate) const MASTER_KEY: &str = "K000MasterOfTheTestHouse0123456";

/// A running server with its data folder; both end when it is dropped.
pub(crate) struct Server {
    /// `host:port` of the data listener.
    pub(crate) address: String,
    /// `host:port` of the admin listener.
    pub(crate) admin: String,
    child: Child,
    folder: Option<TempDir>,
    data_dir: PathBuf,
    arguments: Vec<String>,
    master_key: String,
}

impl Server {
    /// Starts a server with test controls in a new folder.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--test-controls"])
    }

    /// Starts a server in a new folder with more arguments for `kiln serve`.
    pub(crate) fn start_with(arguments: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let data_dir = folder.path().join("data");
        let mut server = Self::start_in(&data_dir, arguments);
        server.folder = Some(folder);
        server
    }

    /// Starts a server on a given data folder.
    pub(crate) fn start_in(data_dir: &Path, arguments: &[&str]) -> Self {
        let arguments: Vec<String> = arguments.iter().map(|&one| one.to_owned()).collect();
        let (child, address, admin) = launch(data_dir, &arguments, MASTER_KEY);
        let (data_dir, master_key) = (data_dir.to_owned(), MASTER_KEY.to_owned());
        Self { address, admin, child, folder: None, data_dir, arguments, master_key }
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process without warning, as a power switch would end it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to end and answers its exit code.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        self.ask_to_end();
        self.wait_for_end()
    }

    /// Asks the process to end and does not wait.
    pub(crate) fn ask_to_end(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the process to end and answers its exit code.
    pub(crate) fn wait_for_end(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// Everything that the server has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap()
    }

    /// Starts the server again on the same folder, after [`Server::kill`] or [`Server::terminate`].
    pub(crate) fn restart(&mut self) {
        let (child, address, admin) = launch(&self.data_dir, &self.arguments, &self.master_key);
        self.child = child;
        self.address = address;
        self.admin = admin;
    }

    /// As [`Server::restart`], with another master application key from then on.
    pub(crate) fn restart_with_master_key(&mut self, key: &str) {
        key.clone_into(&mut self.master_key);
        self.restart();
    }

    /// A test control or other admin request without credentials.
    pub(crate) fn control(&self, method: &str, target: &str) -> Answer {
        call(&self.admin, method, target, &[], b"")
    }

    /// The master application key, authorized.
    pub(crate) fn master(&self) -> Session {
        Session::authorize(&self.address, MASTER_ID, &self.master_key).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The program without settings from the environment of whoever runs the tests.
pub(crate) fn kiln() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KILN_") {
            command.env_remove(name);
        }
    }
    command
}

fn launch(data_dir: &Path, arguments: &[String], key: &str) -> (Child, String, String) {
    let ready_file = data_dir.with_extension("ready");
    drop(std::fs::remove_file(&ready_file));
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(data_dir.with_extension("log"))
        .unwrap();
    let mut child = kiln()
        .arg("serve")
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--ready-file"])
        .arg(&ready_file)
        .args(arguments)
        .env("KILN_MASTER_KEY_ID", MASTER_ID)
        .env("KILN_MASTER_KEY", key)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let (address, admin) = wait_for("a server gets ready", || {
        if let Ok(text) = std::fs::read(&ready_file) {
            let ready: Value = serde_json::from_slice(&text).unwrap();
            let address = |name: &str| {
                let (_scheme, address) = ready[name].as_str().unwrap().split_once("://").unwrap();
                address.to_owned()
            };
            return Some((address("endpoint"), address("adminEndpoint")));
        }
        if let Some(status) = child.try_wait().unwrap() {
            let log = std::fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default();
            panic!("the server ended with {status} instead of starting:\n{log}");
        }
        None
    });
    (child, address, admin)
}

pub(crate) fn sha1_hex(bytes: &[u8]) -> String {
    hex::encode(Sha1::digest(bytes))
}

pub(crate) fn basic(key_id: &str, key: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{key_id}:{key}")))
}

/// An authorized key.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) address: String,
    pub(crate) token: String,
    pub(crate) account: String,
}

impl Session {
    pub(crate) fn authorize(address: &str, key_id: &str, key: &str) -> Result<Self, Answer> {
        let header = basic(key_id, key);
        let target = "/b2api/v4/b2_authorize_account";
        let answer = call(address, "POST", target, &[("Authorization", &header)], b"{}");
        if answer.status != 200 {
            return Err(answer);
        }
        let body = answer.json();
        Ok(Self {
            address: address.to_owned(),
            token: body["authorizationToken"].as_str().unwrap().to_owned(),
            account: body["accountId"].as_str().unwrap().to_owned(),
        })
    }

    /// Calls a JSON operation of version 4.
    pub(crate) fn call(&self, operation: &str, body: &Value) -> Answer {
        self.call_version(4, operation, body)
    }

    pub(crate) fn call_version(&self, version: u8, operation: &str, body: &Value) -> Answer {
        let target = format!("/b2api/v{version}/{operation}");
        let headers = [("Authorization", self.token.as_str())];
        call(&self.address, "POST", &target, &headers, body.to_string().as_bytes())
    }

    /// Calls a JSON operation that must succeed.
    pub(crate) fn ok(&self, operation: &str, body: &Value) -> Value {
        let answer = self.call(operation, body);
        assert_eq!(answer.status, 200, "{operation}: {}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    pub(crate) fn create_bucket(&self, name: &str) -> String {
        let body =
            json!({"accountId": self.account, "bucketName": name, "bucketType": "allPrivate"});
        self.ok("b2_create_bucket", &body)["bucketId"].as_str().unwrap().to_owned()
    }

    /// Makes a key; `buckets` None reaches all. Answers its id and secret.
    pub(crate) fn create_key(
        &self,
        capabilities: &[&str],
        buckets: Option<&[&str]>,
        prefix: Option<&str>,
    ) -> (String, String) {
        let body = json!({
            "accountId": self.account, "keyName": "test-key", "capabilities": capabilities,
            "bucketIds": buckets, "namePrefix": prefix,
        });
        let key = self.ok("b2_create_key", &body);
        let text = |name: &str| key[name].as_str().unwrap().to_owned();
        (text("applicationKeyId"), text("applicationKey"))
    }

    /// Makes a key and authorizes it.
    pub(crate) fn with_key(
        &self,
        capabilities: &[&str],
        buckets: Option<&[&str]>,
        prefix: Option<&str>,
    ) -> Self {
        let (id, key) = self.create_key(capabilities, buckets, prefix);
        Self::authorize(&self.address, &id, &key).unwrap()
    }

    /// An upload URL's target (path) and its token.
    pub(crate) fn upload_url(&self, bucket_id: &str) -> (String, String) {
        let pair = self.ok("b2_get_upload_url", &json!({"bucketId": bucket_id}));
        let url = pair["uploadUrl"].as_str().unwrap();
        let target = url.splitn(4, '/').nth(3).unwrap();
        (format!("/{target}"), pair["authorizationToken"].as_str().unwrap().to_owned())
    }

    /// Uploads with an upload URL of its own; more headers override the usual ones.
    pub(crate) fn try_upload(
        &self,
        bucket_id: &str,
        encoded_name: &str,
        body: &[u8],
        more: &[(&str, &str)],
    ) -> Answer {
        let (target, token) = self.upload_url(bucket_id);
        let sha1 = sha1_hex(body);
        let usual = [
            ("Authorization", token.as_str()),
            ("X-Bz-File-Name", encoded_name),
            ("Content-Type", "b2/x-auto"),
            ("X-Bz-Content-Sha1", sha1.as_str()),
        ];
        let mut headers: Vec<(&str, &str)> = more.to_vec();
        for (name, value) in usual {
            if !more.iter().any(|(given, _)| given.eq_ignore_ascii_case(name)) {
                headers.push((name, value));
            }
        }
        // An empty value stands for a header that is left out.
        headers.retain(|(_, value)| !value.is_empty());
        call(&self.address, "POST", &target, &headers, body)
    }

    /// Uploads and answers the file version.
    pub(crate) fn upload(&self, bucket_id: &str, encoded_name: &str, body: &[u8]) -> Value {
        let answer = self.try_upload(bucket_id, encoded_name, body, &[]);
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// Downloads by an encoded path below `/file/`.
    pub(crate) fn download(&self, path: &str, more: &[(&str, &str)]) -> Answer {
        let mut headers = vec![("Authorization", self.token.as_str())];
        headers.extend_from_slice(more);
        call(&self.address, "GET", &format!("/file/{path}"), &headers, b"")
    }
}

/// Two buckets with a replication rule between them.
pub(crate) fn replicated_buckets(master: &Session) -> (String, String) {
    let (source, destination) =
        (master.create_bucket("replicated-source"), master.create_bucket("replicated-copy"));
    let read = ["readFiles", "readFileLegalHolds", "readFileRetentions"];
    let write = ["writeFiles", "writeFileLegalHolds", "writeFileRetentions"];
    let (reader, _) = master.create_key(&read, None, None);
    let (writer, _) = master.create_key(&write, None, None);
    master.ok(
        "b2_update_bucket",
        &json!({
        "accountId": master.account, "bucketId": destination,
        "replicationConfiguration": {"asReplicationDestination": {
            "sourceToDestinationKeyMapping": {reader.clone(): writer}}}}),
    );
    master.ok("b2_update_bucket", &json!({
        "accountId": master.account, "bucketId": source,
        "replicationConfiguration": {"asReplicationSource": {
            "sourceApplicationKeyId": reader,
            "replicationRules": [{
                "destinationBucketId": destination, "fileNamePrefix": "", "isEnabled": true,
                "includeExistingFiles": false, "priority": 1, "replicationRuleName": "rule-one"}]}}}));
    (source, destination)
}
