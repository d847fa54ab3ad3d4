//! Every outgoing HTTP request of the program: those of administration commands to the server that
//! runs on the same data folder, and those to webhooks, whose addresses strangers choose.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde_json::{Map, Value};

use crate::domain::key::Secret;
use crate::domain::webhook::{TargetPolicy, WebhookUrl};

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a request did not bring an answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the server at {endpoint} does not answer: {source}")]
    Unreachable {
        endpoint: String,
        #[source]
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("the server at {endpoint} gave an answer that cannot be read")]
    Unreadable { endpoint: String },
}

/// A request to the admin listener.
pub(crate) struct AdminRequest {
    pub(crate) endpoint: String,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) fields: Map<String, Value>,
    pub(crate) key_id: String,
    pub(crate) secret: Secret,
}

/// Sends a request to the admin listener of a running server and reads its JSON answer; null when
/// there is nothing in it.
pub(crate) async fn ask_admin(request: AdminRequest) -> Result<Value, Error> {
    let AdminRequest { endpoint, method, path, fields, key_id, secret } = request;
    let unreachable = |source| Error::Unreachable { endpoint: endpoint.clone(), source };
    let client = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(5))
        .redirect(reqwest::redirect::Policy::none())
        // The address is the server's own word; a proxy between the two would see the secret.
        .no_proxy()
        .build()
        .map_err(unreachable)?;
    let mut url = format!("{endpoint}{path}");
    if method == "GET" && !fields.is_empty() {
        url = format!("{url}?{}", query(&fields));
    }
    let verb = reqwest::Method::from_bytes(method.as_bytes()).unwrap_or(reqwest::Method::POST);
    let mut call = client.request(verb, url).basic_auth(key_id, Some(secret.expose()));
    if method != "GET" {
        call = call.json(&fields);
    }
    let answer = call.send().await.map_err(unreachable)?;
    let status = answer.status().as_u16();
    let body = answer.bytes().await.map_err(unreachable)?;
    let unreadable = || Error::Unreadable { endpoint: endpoint.clone() };
    if body.len() > ANSWER_BYTES_MAX {
        return Err(unreadable());
    }
    if status == 204 {
        return Ok(Value::Null);
    }
    let value: Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    if matches!(status, 200 | 201) {
        return Ok(value);
    }
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let message = match (text("code"), text("message")) {
        ("", "") => format!("the server answered with status {status}"),
        (code, "") => code.to_owned(),
        (_, message) => message.to_owned(),
    };
    Err(Error::Refused { status, message })
}

/// Fields as a query.
pub(crate) fn query(fields: &Map<String, Value>) -> String {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| query_pair(name, value)).collect();
    pairs.join("&")
}

fn query_pair(name: &str, value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // `encode` leaves a few letters alone that mean something in a query.
    let encoded = crate::domain::percent::encode(&text).replace('=', "%3D").replace(';', "%3B");
    format!("{name}={encoded}")
}

/// How long a webhook may take from the look-up of its name to its status (documented: 3 s).
pub(crate) const HOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of an answer that are read so that its connection can be used again; more than these
/// cost the webhook its connection, not us our memory.
const HOOK_ANSWER_BYTES_MAX: usize = 16 * 1024;
const HOOK_USER_AGENT: &str = concat!("kiln/", env!("CARGO_PKG_VERSION"), " (event notifications)");

/// One request to a webhook. Address and headers may hold secrets, so it cannot be printed.
pub(crate) struct HookCall {
    pub(crate) url: WebhookUrl,
    pub(crate) headers: Vec<(String, String)>,
    /// JSON.
    pub(crate) body: Bytes,
}

/// What kind of failure it was: all that the owner of a rule is told, so that a rule is no way to
/// look around in the network of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookFault {
    Status(u16),
    Timeout,
    Forbidden,
    Unreachable,
    /// The stored target cannot be read.
    Target,
}

impl fmt::Display for HookFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "the endpoint answered with status {status}"),
            Self::Timeout => f.write_str("the endpoint did not answer in time"),
            Self::Forbidden => f.write_str("the endpoint is at an address that is not allowed"),
            Self::Unreachable => f.write_str("the endpoint could not be reached"),
            Self::Target => f.write_str("the target could not be read"),
        }
    }
}

/// Why a webhook did not take a call. Holds nothing of its address but what was looked up.
#[derive(Debug)]
pub(crate) struct HookError {
    pub(crate) fault: HookFault,
    /// For operators; may be empty.
    pub(crate) detail: String,
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            self.fault.fmt(f)
        } else {
            write!(f, "{}: {}", self.fault, self.detail)
        }
    }
}

/// A name leads to no address that may be reached.
#[derive(Debug, thiserror::Error)]
#[error("the name leads only to private or reserved addresses")]
struct NoAllowedAddress;

/// Looks names up and lets through only addresses that may be reached. The client connects to
/// exactly these, so a name cannot lead elsewhere between the check and the connection.
#[derive(Clone, Copy)]
struct CheckedResolver(Reachable);

/// Where requests to one port may go.
#[derive(Clone, Copy)]
struct Reachable {
    policy: TargetPolicy,
    /// Addresses of this machine are left out, public ones too: the port is one of ours.
    not_here: bool,
}

impl Reachable {
    fn allows(self, address: IpAddr) -> bool {
        self.policy.allows(address) && !(self.not_here && is_of_this_machine(address))
    }
}

/// Whether an address is one of this machine: what would be sent there comes from there. Nothing is
/// sent to find out.
fn is_of_this_machine(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(reachable) = *self;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| reachable.allows(address.ip())).collect();
            if allowed.is_empty() {
                return Err(NoAllowedAddress.into());
            }
            let allowed: Addrs = Box::new(allowed.into_iter());
            Ok(allowed)
        })
    }
}

/// Trusted certificates that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("holds no certificates in PEM form")]
pub(crate) struct NoCertificates;

/// The sender of webhooks.
pub(crate) struct Webhooks {
    policy: TargetPolicy,
    /// Certificates trusted besides those of the system.
    trusted: Vec<reqwest::Certificate>,
    /// Ports of our own listeners: at private addresses and those of this machine they are never a
    /// webhook.
    own_ports: Vec<u16>,
    timeout: Duration,
    /// Made when first needed, since reading the system's certificates takes a while.
    client: OnceLock<Result<reqwest::Client, String>>,
    elsewhere_client: OnceLock<Result<reqwest::Client, String>>,
}

impl Webhooks {
    /// `trusted_pem` holds certificates to trust besides the system's; None adds none.
    pub(crate) fn new(
        policy: TargetPolicy,
        trusted_pem: Option<&[u8]>,
        own_ports: Vec<u16>,
    ) -> Result<Self, NoCertificates> {
        let trusted = match trusted_pem {
            None => Vec::new(),
            Some(pem) => {
                let read = reqwest::Certificate::from_pem_bundle(pem);
                read.ok().filter(|read| !read.is_empty()).ok_or(NoCertificates)?
            }
        };
        Ok(Self {
            policy,
            trusted,
            own_ports,
            timeout: HOOK_TIMEOUT,
            client: OnceLock::new(),
            elsewhere_client: OnceLock::new(),
        })
    }

    fn build(&self, reachable: Reachable) -> Result<reqwest::Client, String> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(HOOK_USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                // A proxy would connect to addresses that were not checked.
                .no_proxy()
                .https_only(!reachable.policy.allow_http)
                .tls_version_min(reqwest::tls::Version::TLS_1_2)
                .pool_idle_timeout(Duration::from_secs(20))
                .pool_max_idle_per_host(4)
                .dns_resolver(CheckedResolver(reachable))
        };
        builder()
            .tls_certs_merge(self.trusted.clone())
            .build()
            // A system without certificates still trusts those it was given.
            .or_else(|_| builder().tls_certs_only(self.trusted.clone()).build())
            .map_err(|error| innermost(&error))
    }

    /// Sends a call; Ok means that the webhook answered 200. Redirects are answers like others.
    pub(crate) async fn send(&self, call: HookCall) -> Result<(), HookError> {
        let is_own_port = self.own_ports.contains(&call.url.port());
        let policy = TargetPolicy {
            allow_private: self.policy.allow_private && !is_own_port,
            ..self.policy
        };
        let reachable = Reachable { policy, not_here: is_own_port };
        // Nobody looks up a host that is written as an address.
        if call.url.address().is_some_and(|address| !reachable.allows(address)) {
            return Err(HookError { fault: HookFault::Forbidden, detail: String::new() });
        }
        let kept = if is_own_port { &self.elsewhere_client } else { &self.client };
        let client = kept
            .get_or_init(|| self.build(reachable))
            .as_ref()
            .map_err(|why| HookError { fault: HookFault::Unreachable, detail: why.clone() })?;
        let answer = match tokio::time::timeout(self.timeout, post(client, call)).await {
            Ok(answered) => answered?,
            Err(_) => {
                return Err(HookError { fault: HookFault::Timeout, detail: String::new() });
            }
        };
        // What comes after the status decides nothing.
        drop(tokio::time::timeout(self.timeout, drain(answer)).await);
        Ok(())
    }
}

/// Sends a call and waits for the head of an answer of status 200.
async fn post(client: &reqwest::Client, call: HookCall) -> Result<reqwest::Response, HookError> {
    let mut request = client
        .post(call.url.as_str())
        .header(reqwest::header::CONTENT_TYPE, "application/json")
        .body(call.body);
    for (name, value) in call.headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.map_err(|error| {
        // The address may hold a secret.
        let error = error.without_url();
        let forbidden = causes(&error).any(<Cause>::is::<NoAllowedAddress>);
        let fault = if forbidden { HookFault::Forbidden } else { HookFault::Unreachable };
        HookError { fault, detail: innermost(&error) }
    })?;
    match answer.status().as_u16() {
        200 => Ok(answer),
        status => Err(HookError { fault: HookFault::Status(status), detail: String::new() }),
    }
}

/// Reads a short body to its end, so that the connection can be used again.
async fn drain(mut answer: reqwest::Response) {
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > HOOK_ANSWER_BYTES_MAX {
            break;
        }
    }
}

type Cause = dyn StdError + 'static;

fn causes(error: &Cause) -> impl Iterator<Item = &Cause> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// The cause of all causes; the outer ones only say that a request failed.
fn innermost(error: &Cause) -> String {
    causes(error).last().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const OPEN: TargetPolicy = TargetPolicy { allow_private: true, allow_http: true };

    fn webhooks(policy: TargetPolicy, own_ports: Vec<u16>) -> Webhooks {
        let made = Webhooks::new(policy, None, own_ports).unwrap();
        Webhooks { timeout: Duration::from_millis(200), ..made }
    }

    fn call(url: &str) -> HookCall {
        let url = WebhookUrl::parse(url, OPEN).unwrap();
        HookCall { url, headers: Vec::new(), body: Bytes::from_static(b"{}") }
    }

    /// A server that answers each connection with these bytes and then keeps it open; its address.
    async fn answering(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 4096];
                let read = stream.read(&mut head).await.unwrap_or(0);
                if read > 0 {
                    drop(stream.write_all(&answer).await);
                }
                open.push(stream);
            }
        });
        address
    }

    async fn fault_of(answer: &[u8]) -> Option<HookFault> {
        let address = answering(answer.to_vec()).await;
        let sent = webhooks(OPEN, Vec::new()).send(call(&format!("http://{address}/"))).await;
        sent.err().map(|error| error.fault)
    }

    #[tokio::test]
    async fn reliability_i4_i7_only_200_is_success_whatever_comes_after_it() {
        assert_eq!(fault_of(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await, None);
        let never_ends = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nfirst";
        assert_eq!(fault_of(never_ends).await, None);
        let long = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; 100_000]].concat();
        assert_eq!(fault_of(&long).await, None);
        for status in [201_u16, 204, 301, 302, 307, 308, 400, 404, 500, 503] {
            let answer = format!(
                "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
            );
            assert_eq!(fault_of(answer.as_bytes()).await, Some(HookFault::Status(status)));
        }
    }

    #[tokio::test]
    async fn reliability_i7_silence_nonsense_and_endless_heads_are_failures() {
        assert_eq!(HOOK_TIMEOUT, Duration::from_secs(3));
        assert_eq!(fault_of(b"").await, Some(HookFault::Timeout));
        assert_eq!(fault_of(b"HTTP/1.1 200 OK\r\nX-Slow: ").await, Some(HookFault::Timeout));
        assert_eq!(fault_of(b"not HTTP at all\r\n\r\n").await, Some(HookFault::Unreachable));
        let headers = (0..10_000).map(|at| format!("X-{at}: y\r\n")).collect::<Vec<_>>().concat();
        let endless = format!("HTTP/1.1 200 OK\r\n{headers}");
        assert_eq!(fault_of(endless.as_bytes()).await, Some(HookFault::Unreachable));
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let sent = webhooks(OPEN, Vec::new()).send(call(&format!("http://{nobody}/s3cret"))).await;
        let error = sent.unwrap_err();
        assert_eq!(error.fault, HookFault::Unreachable);
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }

    #[tokio::test]
    async fn reliability_i1_i3_i9_names_and_addresses_that_are_not_allowed_get_no_connection() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec();
        let address = answering(ok).await;
        let port: u16 = address.rsplit_once(':').unwrap().1.parse().unwrap();
        let only_http = TargetPolicy { allow_private: false, allow_http: true };
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let url = format!("http://{host}:{port}/");
            let sent = webhooks(OPEN, Vec::new()).send(call(&url)).await;
            assert!(sent.is_ok(), "{url}: {sent:?}");
            for refusing in [webhooks(only_http, Vec::new()), webhooks(OPEN, vec![port])] {
                let error = refusing.send(call(&url)).await.unwrap_err();
                assert_eq!(error.fault, HookFault::Forbidden, "{url}: {error}");
            }
        }
        let error = webhooks(OPEN, vec![1]).send(call("https://host.invalid/")).await.unwrap_err();
        assert_ne!(error.fault, HookFault::Forbidden, "nothing is known about it: {error}");
    }

    #[test]
    fn reliability_i9_addresses_of_this_machine_are_known_as_such() {
        for ours in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert!(is_of_this_machine(ours.parse().unwrap()), "{ours}");
        }
        for other in ["1.1.1.1", "10.255.255.254", "2606:4700::1111"] {
            assert!(!is_of_this_machine(other.parse().unwrap()), "{other}");
        }
        let open = Reachable { policy: OPEN, not_here: false };
        assert!(open.allows("127.0.0.1".parse().unwrap()));
        assert!(!Reachable { not_here: true, ..open }.allows("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn only_certificates_are_taken_for_certificates() {
        assert!(Webhooks::new(OPEN, Some(b"nonsense"), Vec::new()).is_err());
        assert!(Webhooks::new(OPEN, Some(b""), Vec::new()).is_err());
    }
}
