//! An S3 client: signs with the `aws-sigv4` crate, and sends exactly what it is told.

use std::io::{self, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SessionTokenMode, SignableBody, SignableRequest,
    SignatureLocation, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use sha2::{Digest as _, Sha256};

use crate::support::http::{Answer, Connection};
use crate::support::server::{Server, Session};

pub(crate) const REGION: &str = "us-west-000";
pub(crate) const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// Every capability that S3 calls need.
pub(crate) const ALL: [&str; 19] = [
    "bypassGovernance",
    "deleteBuckets",
    "deleteFiles",
    "listAllBucketNames",
    "listBuckets",
    "listFiles",
    "readBucketEncryption",
    "readBucketRetentions",
    "readBuckets",
    "readFileLegalHolds",
    "readFileRetentions",
    "readFiles",
    "shareFiles",
    "writeBucketEncryption",
    "writeBucketRetentions",
    "writeBuckets",
    "writeFileLegalHolds",
    "writeFileRetentions",
    "writeFiles",
];

/// Who signs, and for where.
#[derive(Clone, Debug)]
pub(crate) struct Signer {
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) region: String,
    /// What the `Host` header says.
    pub(crate) host: String,
    /// How far its clock is from ours.
    pub(crate) ahead_s: i64,
}

/// A request about to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Encoded.
    pub(crate) path: String,
    /// Encoded, without the question mark.
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// `target` is a path and, after a question mark, a query.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (method, path, query) = (method.to_owned(), path.to_owned(), query.to_owned());
        Self { method, path, query, headers: Vec::new(), body: Vec::new() }
    }

    /// Puts a header in the place of one of the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn target(&self) -> String {
        let question = if self.query.is_empty() { "" } else { "?" };
        format!("{}{question}{}", self.path, self.query)
    }

    pub(crate) fn send_over<S: Read + Write>(
        &self,
        connection: &mut Connection<S>,
    ) -> io::Result<Answer> {
        let headers: Vec<(&str, &str)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        connection.call(&self.method, &self.target(), &headers, &self.body)
    }

    /// Sends it over a connection of its own.
    pub(crate) fn send(&self, address: &str) -> Answer {
        self.send_over(&mut Connection::open(address).unwrap()).unwrap()
    }
}

pub(crate) fn sha256_hex(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

impl Signer {
    /// A key of `master`'s account with every capability.
    pub(crate) fn of(server: &Server, master: &Session) -> Self {
        let (key, secret) = master.create_key(&ALL, None, None);
        Self::with_key(server, key, secret)
    }

    pub(crate) fn with_key(server: &Server, key: String, secret: String) -> Self {
        let (_, port) = server.address.rsplit_once(':').unwrap();
        let host = format!("localhost:{port}");
        Self { key, secret, region: REGION.to_owned(), host, ahead_s: 0 }
    }

    /// The moment of a signature, and how it is written.
    pub(crate) fn moment(&self) -> (SystemTime, String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let seconds = since.checked_add_signed(self.ahead_s).unwrap();
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        // Days to a date, by the calendar that has February last.
        let shifted = days + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let text = format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z");
        (UNIX_EPOCH + Duration::from_secs(seconds), text)
    }

    pub(crate) fn scope(&self) -> String {
        let (_, moment) = self.moment();
        let (day, _) = moment.split_once('T').unwrap();
        format!("{day}/{}/s3/aws4_request", self.region)
    }

    /// Signs all headers; adds those that a signature needs where they are not given.
    pub(crate) fn sign(&self, request: Request) -> Request {
        self.sign_but(request, &[])
    }

    /// Signs all headers but some.
    pub(crate) fn sign_but(&self, mut request: Request, unsigned: &[&str]) -> Request {
        if request.value("host").is_none() {
            request = request.header("host", &self.host);
        }
        let (at, text) = self.moment();
        if request.value("x-amz-date").is_none() && request.value("date").is_none() {
            request = request.header("x-amz-date", &text);
        }
        let payload = match request.value("x-amz-content-sha256") {
            Some(given) => given.to_owned(),
            None => sha256_hex(&request.body),
        };
        request = request.header("x-amz-content-sha256", &payload);
        let mut names: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.retain(|name| !unsigned.contains(name));
        names.sort_unstable();
        names.dedup();
        let signature = self.signature(&request, &names, &payload, at);
        let header = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={}, Signature={signature}",
            self.key,
            self.scope(),
            names.join(";")
        );
        request.header("authorization", &header)
    }

    /// Signs the address for `expires` seconds; headers that are there are signed, too.
    pub(crate) fn presign(&self, mut request: Request, expires: &str) -> Request {
        if request.value("host").is_none() {
            request = request.header("host", &self.host);
        }
        let (at, text) = self.moment();
        let names: Vec<String> = {
            let mut names: Vec<String> =
                request.headers.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            names
        };
        let separator = if request.query.is_empty() { "" } else { "&" };
        request.query += &format!(
            "{separator}X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}%2F{}&X-Amz-Date={text}\
             &X-Amz-Expires={expires}&X-Amz-SignedHeaders={}",
            self.key,
            self.scope().replace('/', "%2F"),
            names.join("%3B")
        );
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let signature = self.signature(&request, &names, UNSIGNED, at);
        request.query += &format!("&X-Amz-Signature={signature}");
        request
    }

    fn signature(
        &self,
        request: &Request,
        names: &[&str],
        payload: &str,
        at: SystemTime,
    ) -> String {
        let identity = Credentials::new(&self.key, &self.secret, None, None, "tests").into();
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::NoHeader;
        settings.signature_location = SignatureLocation::Headers;
        settings.session_token_mode = SessionTokenMode::Exclude;
        let dated = names.contains(&"x-amz-date");
        settings.excluded_headers = Some(if dated { vec![] } else { vec!["x-amz-date".into()] });
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(at)
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let address = format!("http://host{}", request.target());
        let headers = request.headers.iter().filter(|(name, _)| names.contains(&name.as_str()));
        let headers: Vec<(&str, &str)> =
            headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let body = SignableBody::Precomputed(payload.to_owned());
        let signable =
            SignableRequest::new(&request.method, address, headers.into_iter(), body).unwrap();
        sign(signable, &params).unwrap().signature().to_owned()
    }

    /// A body in signed chunks that go on from the signature of `request`, which was signed for
    /// such a body. `trailer` lines follow the last chunk; their signature comes after them.
    pub(crate) fn chunks(
        &self,
        request: &Request,
        contents: &[&[u8]],
        trailer: &[(&str, &str)],
    ) -> Vec<u8> {
        let header = request.value("authorization").unwrap();
        let (_, seed) = header.split_once("Signature=").unwrap();
        let identity = Credentials::new(&self.key, &self.secret, None, None, "tests").into();
        // To the second the moment of the request, whose text it has.
        let date = request.value("x-amz-date").unwrap();
        let at = (-5..=5)
            .map(|by| Self { ahead_s: self.ahead_s + by, ..self.clone() }.moment())
            .find(|(_, text)| text == date);
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("s3")
            .time(at.unwrap().0)
            .settings(())
            .build()
            .unwrap();
        let mut previous = seed.to_owned();
        let mut body = Vec::new();
        for content in contents.iter().chain([&&b""[..]]) {
            let chunk = bytes::Bytes::copy_from_slice(content);
            let signed = v4::sign_chunk(&chunk, &previous, &params).unwrap();
            signed.signature().clone_into(&mut previous);
            let line = format!("{:x};chunk-signature={previous}\r\n", content.len());
            body.extend_from_slice(line.as_bytes());
            if !content.is_empty() {
                body.extend_from_slice(content);
                body.extend_from_slice(b"\r\n");
            }
        }
        if !trailer.is_empty() {
            let mut headers = aws_smithy_runtime_api::http::Headers::new();
            for (name, value) in trailer {
                headers.insert((*name).to_owned(), (*value).to_owned());
                body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
            }
            let signed = v4::sign_trailer(&headers, &previous, &params).unwrap();
            let line = format!("x-amz-trailer-signature:{}\r\n", signed.signature());
            body.extend_from_slice(line.as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        body
    }
}

/// A body in unsigned chunks.
pub(crate) fn plain_chunks(contents: &[&[u8]], trailer: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for content in contents {
        body.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"0\r\n");
    for (name, value) in trailer {
        body.extend_from_slice(format!("{name}:{value}\r\n").as_bytes());
    }
    body.extend_from_slice(b"\r\n");
    body
}

/// A body in the chunks of HTTP itself, as clients send what has no length beforehand.
pub(crate) fn http_chunks(body: &[u8], size: usize) -> Vec<u8> {
    plain_chunks(&body.chunks(size).collect::<Vec<_>>(), &[])
}

/// The text of an element of an XML answer, empty when there is none.
pub(crate) fn element(answer: &Answer, name: &str) -> String {
    let text = String::from_utf8_lossy(&answer.body);
    let found = text.split_once(&format!("<{name}>"));
    let found = found.and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    found.map_or_else(String::new, |(text, _)| text.to_owned())
}

/// Status and code of an answer.
pub(crate) fn refused(answer: &Answer) -> (u16, String) {
    (answer.status, element(answer, "Code"))
}
