//! The part of the B2 native API that the workloads speak.

use std::net::SocketAddr;
use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Fallible;
use crate::bodies::{Bodies, Counter, Names};
use crate::http::Connection;
use crate::load::Worker;

/// An authorized account at a server.
pub(crate) struct Account {
    address: SocketAddr,
    id: String,
    token: String,
}

impl Account {
    pub(crate) async fn authorize(address: SocketAddr, key_id: &str, key: &str) -> Fallible<Self> {
        let mut connection = Connection::open(address).await?;
        let body = connection.fetch(&[authorize_request(address, key_id, key).as_bytes()]).await?;
        let answer: Value = serde_json::from_slice(&body)?;
        let id = text(&answer, "accountId")?;
        let token = text(&answer, "authorizationToken")?;
        Ok(Self { address, id, token })
    }

    /// A request for an operation, whole and ready to be sent as often as wanted.
    pub(crate) fn request(&self, operation: &str, body: &Value) -> Vec<u8> {
        let body = body.to_string();
        format!(
            "POST /b2api/v4/{operation} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            self.token,
            body.len()
        )
        .into_bytes()
    }

    /// A request for the content of a file.
    pub(crate) fn download_request(&self, bucket: &str, name: &str) -> Vec<u8> {
        format!(
            "GET /file/{bucket}/{name} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\r\n",
            self.address, self.token
        )
        .into_bytes()
    }

    /// Calls an operation on a connection of its own: calls are few and far apart, and a server may
    /// close what is idle in between.
    pub(crate) async fn call(&self, operation: &str, body: &Value) -> Fallible<Value> {
        let request = self.request(operation, body);
        let answer = Connection::open(self.address)
            .await?
            .fetch(&[&request])
            .await
            .map_err(|failure| format!("{operation}: {failure}"))?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Creates a private bucket and returns its id.
    pub(crate) async fn create_bucket(&self, name: &str) -> Fallible<String> {
        let wanted = json!({
            "accountId": self.id,
            "bucketName": name,
            "bucketType": "allPrivate",
        });
        text(&self.call("b2_create_bucket", &wanted).await?, "bucketId")
    }

    /// Has a bucket encrypt new files with SSE-B2.
    pub(crate) async fn encrypt(&self, bucket_id: &str) -> Fallible<()> {
        let wanted = json!({
            "accountId": self.id,
            "bucketId": bucket_id,
            "defaultServerSideEncryption": { "mode": "SSE-B2", "algorithm": "AES256" },
        });
        self.call("b2_update_bucket", &wanted).await?;
        Ok(())
    }

    /// Creates an application key for the whole account and returns its id.
    pub(crate) async fn create_key(&self, name: &str, capabilities: &[&str]) -> Fallible<String> {
        let wanted = json!({
            "accountId": self.id,
            "keyName": name,
            "capabilities": capabilities,
        });
        text(&self.call("b2_create_key", &wanted).await?, "applicationKeyId")
    }

    pub(crate) async fn update_replication(
        &self,
        bucket_id: &str,
        configuration: Value,
    ) -> Fallible<()> {
        let wanted = json!({
            "accountId": self.id,
            "bucketId": bucket_id,
            "replicationConfiguration": configuration,
        });
        self.call("b2_update_bucket", &wanted).await?;
        Ok(())
    }

    /// Opens a connection and asks over it for an upload URL of its own, as the protocol demands of
    /// clients that upload side by side. Over another connection it must not be: servers hand new
    /// connections to their threads in turn, and every second one would be gone at once.
    pub(crate) async fn connect_to_upload(
        &self,
        operation: &str,
        body: &Value,
    ) -> Fallible<(Connection, UploadUrl)> {
        let mut connection = Connection::open(self.address).await?;
        let answer = connection.fetch(&[&self.request(operation, body)]).await?;
        let answer: Value = serde_json::from_slice(&answer)?;
        let path = path_of(&text(&answer, "uploadUrl")?)?.to_owned();
        let token = text(&answer, "authorizationToken")?;
        Ok((connection, UploadUrl { address: self.address, path, token }))
    }

    pub(crate) async fn uploaders(
        &self,
        connections: usize,
        bucket_id: &str,
        names: Names,
        bodies: &Rc<Bodies>,
    ) -> Fallible<Vec<Upload>> {
        let counter = Rc::new(Counter::default());
        let mut uploaders = Vec::with_capacity(connections);
        for _ in 0..connections {
            let wanted = json!({ "bucketId": bucket_id });
            let (connection, url) = self.connect_to_upload("b2_get_upload_url", &wanted).await?;
            uploaders.push(Upload::new(connection, &url, names, &counter, bodies));
        }
        Ok(uploaders)
    }
}

/// The request that opens an account.
pub(crate) fn authorize_request(address: SocketAddr, key_id: &str, key: &str) -> String {
    let basic = STANDARD.encode(format!("{key_id}:{key}"));
    format!(
        "POST /b2api/v4/b2_authorize_account HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Basic {basic}\r\nContent-Type: application/json\r\n\
         Content-Length: 2\r\n\r\n{{}}"
    )
}

/// Where to send the bytes of files or parts, and with which token.
pub(crate) struct UploadUrl {
    pub address: SocketAddr,
    /// Without its first slash.
    pub path: String,
    pub token: String,
}

/// The path of a URL, without its first slash.
fn path_of(url: &str) -> Fallible<&str> {
    let rest = url.split_once("://").and_then(|(_, rest)| rest.split_once('/'));
    Ok(rest.map(|(_, path)| path).ok_or("a URL without a path")?)
}

/// A text field of an answer.
pub(crate) fn text(answer: &Value, field: &str) -> Fallible<String> {
    answer[field]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("an answer without {field}: {answer}").into())
}

/// The head of an upload, in which only the name and the digest change from one to the next.
struct UploadHead {
    bytes: Vec<u8>,
    name_at: usize,
    sha1_at: usize,
}

impl UploadHead {
    fn new(url: &UploadUrl, names: Names, body_length: usize) -> Self {
        let UploadUrl { address, path, token } = url;
        let mut head = format!(
            "POST /{path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {token}\r\n\
             Content-Type: application/octet-stream\r\nContent-Length: {body_length}\r\n\
             X-Bz-File-Name: "
        );
        let name_at = head.len();
        head.push_str(&names.get(0));
        head.push_str("\r\nX-Bz-Content-Sha1: ");
        let sha1_at = head.len();
        head.push_str(&"0".repeat(40));
        head.push_str("\r\n\r\n");
        Self { bytes: head.into_bytes(), name_at, sha1_at }
    }

    fn fill(&mut self, name: &str, sha1: &[u8]) -> &[u8] {
        self.bytes[self.name_at..][..name.len()].copy_from_slice(name.as_bytes());
        self.bytes[self.sha1_at..][..sha1.len()].copy_from_slice(sha1);
        &self.bytes
    }
}

/// Uploads one body after the other.
pub(crate) struct Upload {
    connection: Connection,
    head: UploadHead,
    names: Names,
    counter: Rc<Counter>,
    bodies: Rc<Bodies>,
}

impl Upload {
    pub(crate) fn new(
        connection: Connection,
        url: &UploadUrl,
        names: Names,
        counter: &Rc<Counter>,
        bodies: &Rc<Bodies>,
    ) -> Self {
        Self {
            connection,
            head: UploadHead::new(url, names, bodies.size()),
            names,
            counter: Rc::clone(counter),
            bodies: Rc::clone(bodies),
        }
    }

    /// Uploads the next body and answers what the server says of it.
    pub(crate) async fn store(&mut self) -> Fallible<Vec<u8>> {
        let number = self.counter.next();
        let (variant, shared) = self.bodies.get(number);
        let head = self.head.fill(&self.names.get(number), variant.sha1());
        self.connection.fetch(&[head, variant.start(), shared]).await
    }
}

impl Worker for Upload {
    async fn turn(&mut self) -> Fallible<u64> {
        let number = self.counter.next();
        let (variant, shared) = self.bodies.get(number);
        let head = self.head.fill(&self.names.get(number), variant.sha1());
        self.connection.exchange(&[head, variant.start(), shared]).await?;
        Ok(self.bodies.size() as u64)
    }
}
