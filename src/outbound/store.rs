//! Requests to the stores that replicas are carried to: bodies that flow, patience that is measured
//! by progress and not by the clock on the wall, errors that hold nothing secret.
//!
//! An attempt has no time limit of its own, since a link may be as slow as it likes. What ends it is
//! silence: of the network while bytes are on their way, of the store once it has them all. Time in
//! which our own side has nothing to send is nobody's silence.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};

use crate::domain::webhook::TargetPolicy;
use crate::outbound::{CheckedResolver, NoCertificates, Reachable, innermost, read_certificates};

const USER_AGENT: &str = concat!("kiln/", env!("CARGO_PKG_VERSION"), " (replication)");
/// Most bytes that are handed to a connection at once.
const PIECE_BYTES: usize = 128 * 1024;
/// How long a store may take to answer once it has the last byte.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_mins(5);
/// The same where it has a large file to put together.
pub(crate) const FINISH_TIMEOUT: Duration = Duration::from_mins(15);

/// How long what may take. Only tests have other values than the default.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// From the look-up of the name to the end of the TLS handshake.
    connect: Duration,
    /// Without any progress of bytes that are on their way, in either direction.
    stall: Duration,
    /// How often a call is looked at.
    look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_mins(1),
            look: Duration::from_secs(1),
        }
    }
}

/// While we send, the system itself notices a stall: nothing acknowledged, or no room at the other
/// side, for as long. What we see of it is coarser, because what was sent may wait in the buffers of
/// the system (some MiB) for as long as a slow link takes; so we look only for much longer silence.
const STALLS_WHILE_SENDING: u32 = 10;
/// What may still be in those buffers when the last byte has left us, at the most.
const BUFFERED_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A link that is slower than this, in bytes per second, costs the store some of its time to answer.
const SLOW_LINK: u64 = 16 * 1024;

/// The content could not be read on our own side; whoever reads it knows why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the content could not be read")]
pub(crate) struct SourceFailed;

/// Bytes on their way out.
pub(crate) type Outgoing = BoxStream<'static, Result<Bytes, SourceFailed>>;

/// What a call sends.
pub(crate) enum OutgoingBody {
    None,
    Bytes(Bytes),
    /// Exactly `len` bytes.
    Stream {
        len: u64,
        bytes: Outgoing,
    },
}

/// One request to a store. Address and headers may hold secrets, so it cannot be printed.
pub(crate) struct OutgoingCall {
    pub(crate) method: &'static str,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: OutgoingBody,
    /// A longer answer is none.
    pub(crate) answer_bytes_max: usize,
    /// From the last byte of the request to the head of the answer.
    pub(crate) answer_timeout: Duration,
}

/// What a store answered, whatever its status. May hold secrets, so it cannot be printed.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer {
    /// For operators; holds no address and no header.
    pub(crate) text: String,
    /// The store may have had the whole request, and may have done what it says.
    pub(crate) is_ambiguous: bool,
    /// It was our own side that could not go on.
    pub(crate) is_ours: bool,
}

/// The way to stores, with one choice of whom to trust. Connections are kept and used again.
pub(crate) struct RemoteHttp {
    allow_insecure_tls: bool,
    trusted: Vec<reqwest::Certificate>,
    patience: Patience,
    /// Made when first needed, since reading the system's certificates takes a while.
    client: OnceLock<Result<reqwest::Client, String>>,
}

/// Remotes may be in private networks. What hands out a machine's credentials is never one.
const POLICY: TargetPolicy = TargetPolicy { allow_private: true, allow_http: true };

impl RemoteHttp {
    /// `trusted_pem` holds certificates to trust besides the system's. With `allow_insecure_tls` any
    /// certificate will do.
    pub(crate) fn new(
        allow_insecure_tls: bool,
        trusted_pem: Option<&[u8]>,
    ) -> Result<Self, NoCertificates> {
        Ok(Self {
            allow_insecure_tls,
            trusted: read_certificates(trusted_pem)?,
            patience: Patience::default(),
            client: OnceLock::new(),
        })
    }

    /// With patience for tests: a stall is noticed after `stall`.
    #[cfg(test)]
    pub(crate) fn impatient(stall: Duration) -> Self {
        let patience = Patience { connect: stall, stall, look: stall / 4 };
        Self { allow_insecure_tls: false, trusted: Vec::new(), patience, client: OnceLock::new() }
    }

    fn build(&self) -> Result<reqwest::Client, String> {
        let builder = || {
            let builder = reqwest::Client::builder()
                .user_agent(USER_AGENT)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                // A proxy would see names and, without TLS, content.
                .no_proxy()
                .tls_version_min(reqwest::tls::Version::TLS_1_2)
                .tls_danger_accept_invalid_certs(self.allow_insecure_tls)
                .connect_timeout(self.patience.connect)
                .pool_idle_timeout(Duration::from_secs(20))
                .pool_max_idle_per_host(16)
                .tcp_nodelay(true)
                .dns_resolver(CheckedResolver(Reachable { policy: POLICY, not_here: false }));
            #[cfg(target_os = "linux")]
            let builder = builder.tcp_user_timeout(self.patience.stall);
            builder
        };
        builder()
            .tls_certs_merge(self.trusted.clone())
            .build()
            // A system without certificates still trusts those it was given.
            .or_else(|_| builder().tls_certs_only(self.trusted.clone()).build())
            .map_err(|error| innermost(&error))
    }

    /// Makes a call; Ok is any answer that came whole. Redirects are answers like others.
    pub(crate) async fn call(&self, call: OutgoingCall) -> Result<Answer, NoAnswer> {
        let unsent = |text: String| Err(NoAnswer { text, is_ambiguous: false, is_ours: false });
        let client = match self.client.get_or_init(|| self.build()) {
            Ok(client) => client,
            Err(why) => return unsent(why.clone()),
        };
        let Ok(url) = reqwest::Url::parse(&call.url) else {
            return unsent("the address cannot be read".to_owned());
        };
        // Nobody looks up a host that is written as an address.
        let host = url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        if address.is_ok_and(|address| !POLICY.allows(address)) {
            return unsent("the address is one that is never called".to_owned());
        }
        let method = reqwest::Method::from_bytes(call.method.as_bytes());
        let mut request = client.request(method.unwrap_or(reqwest::Method::POST), url);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let (len, bytes) = match call.body {
            OutgoingBody::None => (0, None),
            OutgoingBody::Bytes(bytes) => {
                let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                (len, Some(futures_util::stream::iter([Ok(bytes)]).boxed()))
            }
            OutgoingBody::Stream { len, bytes } => (len, Some(bytes)),
        };
        let flow = Arc::new(Flow::default());
        match bytes {
            None => flow.is_sent.store(true, Ordering::Relaxed),
            // Stores want to be told of an empty body, which the client says nothing of.
            Some(_) if len == 0 => {
                flow.is_sent.store(true, Ordering::Relaxed);
                request = request.header(reqwest::header::CONTENT_LENGTH, 0_u64);
            }
            Some(bytes) => {
                let bytes = Mutex::new(bytes);
                let flow = Arc::clone(&flow);
                let body = Measured { bytes, piece: Bytes::new(), left: len, flow };
                request = request
                    .header(reqwest::header::CONTENT_LENGTH, len)
                    .body(reqwest::Body::wrap(body));
            }
        }
        let exchange = exchange(request, &flow, call.answer_bytes_max);
        let ended = tokio::select! {
            ended = exchange => ended,
            text = self.silence(&flow, len, call.answer_timeout) => {
                Err((text.to_owned(), true))
            }
        };
        ended.map_err(|(text, was_connected)| {
            let is_ours = flow.source_failed.load(Ordering::Relaxed);
            let is_ambiguous = was_connected && !is_ours && flow.is_sent.load(Ordering::Relaxed);
            let text = if is_ours { SourceFailed.to_string() } else { text };
            NoAnswer { text, is_ambiguous, is_ours }
        })
    }

    /// Ends when a call has been silent for too long.
    async fn silence(&self, flow: &Flow, len: u64, answer_timeout: Duration) -> &'static str {
        let Patience { stall, look, .. } = self.patience;
        let slow = Duration::from_secs(len.min(BUFFERED_BYTES_MAX) / SLOW_LINK);
        let (mut seen, mut silent) = (flow.steps.load(Ordering::Relaxed), Duration::ZERO);
        loop {
            tokio::time::sleep(look).await;
            let steps = flow.steps.load(Ordering::Relaxed);
            if steps != seen || flow.waits_for_us.load(Ordering::Relaxed) {
                (seen, silent) = (steps, Duration::ZERO);
                continue;
            }
            silent += look;
            let is_sent = flow.is_sent.load(Ordering::Relaxed);
            let (limit, text) = if flow.is_answered.load(Ordering::Relaxed) {
                (stall, "the answer stopped half way")
            } else if is_sent {
                (answer_timeout + slow, "no answer came in time")
            } else {
                (stall * STALLS_WHILE_SENDING, "the store stopped taking bytes")
            };
            if silent >= limit {
                return text;
            }
        }
    }
}

/// Sends a request and reads its answer to the end. An error says whether there was a connection.
async fn exchange(
    request: reqwest::RequestBuilder,
    flow: &Flow,
    answer_bytes_max: usize,
) -> Result<Answer, (String, bool)> {
    // The address may hold a secret, so only the innermost cause is told, which names none.
    let broken = |error: reqwest::Error| {
        if error.is_timeout() && error.is_connect() {
            "no connection came about in time".to_owned()
        } else {
            innermost(&error.without_url())
        }
    };
    let mut answer = request.send().await.map_err(|error| {
        let was_connected = !error.is_connect() && !error.is_builder();
        (broken(error), was_connected)
    })?;
    flow.is_answered.store(true, Ordering::Relaxed);
    flow.step();
    let headers = answer.headers().iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let (status, headers) = (answer.status().as_u16(), headers.collect());
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| (broken(error), true))? {
        flow.step();
        if chunk.len() > answer_bytes_max.saturating_sub(body.len()) {
            return Err(("the answer is too long".to_owned(), true));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, headers, body: body.into() })
}

/// What is known of a call under way.
#[derive(Default)]
struct Flow {
    /// Grows with all that happens.
    steps: AtomicU64,
    /// The connection could take more, we have nothing for it.
    waits_for_us: AtomicBool,
    source_failed: AtomicBool,
    /// The last byte has left us.
    is_sent: AtomicBool,
    /// The head of the answer is here.
    is_answered: AtomicBool,
}

impl Flow {
    fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }
}

/// A body of known length that tells how it gets on.
struct Measured {
    /// Behind a lock only because bodies must be usable by reference from several threads.
    bytes: Mutex<Outgoing>,
    piece: Bytes,
    left: u64,
    flow: Arc<Flow>,
}

impl Body for Measured {
    type Data = Bytes;
    type Error = SourceFailed;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, SourceFailed>>> {
        let this = self.get_mut();
        this.flow.step();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        while this.piece.is_empty() {
            let bytes = this.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
            this.flow.waits_for_us.store(true, Ordering::Relaxed);
            let next = ready!(bytes.as_mut().poll_next(context));
            this.flow.waits_for_us.store(false, Ordering::Relaxed);
            if let Some(Ok(piece)) = next {
                this.piece = piece;
            } else {
                this.flow.source_failed.store(true, Ordering::Relaxed);
                return Poll::Ready(Some(Err(SourceFailed)));
            }
        }
        let taken = this.piece.split_to(this.piece.len().min(PIECE_BYTES));
        let len = u64::try_from(taken.len()).unwrap_or(u64::MAX);
        // More than was announced is as wrong as less.
        let Some(left) = this.left.checked_sub(len) else {
            this.flow.source_failed.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(SourceFailed)));
        };
        this.left = left;
        if left == 0 {
            this.flow.is_sent.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(taken))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const STALL: Duration = Duration::from_millis(200);

    fn call(url: String, body: OutgoingBody) -> OutgoingCall {
        OutgoingCall {
            method: "POST",
            url,
            headers: vec![("Authorization".to_owned(), "s3cret".to_owned())],
            body,
            answer_bytes_max: 1000,
            answer_timeout: STALL * 2,
        }
    }

    /// What the server of a test does with one connection.
    type Deed = fn(TcpStream) -> futures_util::future::BoxFuture<'static, ()>;

    /// A server that does the same with each connection; its address.
    async fn serving(deed: Deed) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(deed(stream));
            }
        });
        format!("http://{address}/s3cret")
    }

    /// Reads a request to the end of its body, whose length it says.
    async fn take(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        loop {
            let mut buffer = vec![0; 64 * 1024];
            let count = stream.read(&mut buffer).await.unwrap_or(0);
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                assert!(count > 0, "{text}");
                continue;
            };
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |digits| digits.parse().unwrap());
            if count == 0 || body.len() >= length {
                return text;
            }
        }
    }

    fn pieces(count: u64, piece: Bytes) -> OutgoingBody {
        let len = count * u64::try_from(piece.len()).unwrap();
        let bytes = stream::iter((0..count).map(move |_| Ok(piece.clone()))).boxed();
        OutgoingBody::Stream { len, bytes }
    }

    async fn no_answer(deed: Deed, body: OutgoingBody) -> NoAnswer {
        let url = serving(deed).await;
        let ended = RemoteHttp::impatient(STALL).call(call(url, body)).await;
        let none = ended.map(|answer| answer.status).unwrap_err();
        assert!(!format!("{none:?}").contains("s3cret"), "{none:?}");
        none
    }

    #[tokio::test]
    async fn any_whole_answer_is_one_whatever_its_status() {
        let url = serving(|mut stream| {
            Box::pin(async move {
                let asked = take(&mut stream).await;
                let length = asked.len();
                let head = "HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:1/\r\nX-Two: 2";
                let answer = format!("{head}\r\nContent-Length: 8\r\n\r\n{length:08}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            })
        })
        .await;
        let http = RemoteHttp::impatient(STALL);
        let body = pieces(3, Bytes::from(vec![b'x'; 300_000]));
        let answer = http.call(call(url.clone(), body)).await.unwrap();
        assert_eq!((answer.status, answer.header("x-two")), (307, Some("2")));
        assert!(!answer.is_success());
        let read: usize = std::str::from_utf8(&answer.body).unwrap().parse().unwrap();
        assert!((900_100..901_000).contains(&read), "{read}");
        for body in [OutgoingBody::None, OutgoingBody::Bytes(Bytes::from_static(b"{}"))] {
            assert_eq!(http.call(call(url.clone(), body)).await.unwrap().status, 307);
        }
        let empty = OutgoingBody::Stream { len: 0, bytes: stream::empty().boxed() };
        assert_eq!(http.call(call(url, empty)).await.unwrap().status, 307);
    }

    #[tokio::test]
    async fn replication_166_205_what_may_have_been_done_is_told_from_what_was_not() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let http = RemoteHttp::impatient(STALL);
        let url = format!("http://{nobody}/s3cret");
        let refused = http.call(call(url, pieces(1, Bytes::from_static(b"x")))).await;
        let refused = refused.map(|answer| answer.status).unwrap_err();
        assert!(!refused.is_ambiguous && refused.text.contains("refused"), "{refused:?}");

        let reset: Deed = |mut stream| {
            Box::pin(async move {
                drop(stream.read(&mut [0; 1000]).await);
                stream.set_zero_linger().unwrap();
            })
        };
        let half = no_answer(reset, pieces(1000, Bytes::from(vec![b'x'; 100_000]))).await;
        assert!(!half.is_ambiguous && !half.text.is_empty(), "{half:?}");

        let lost: Deed = |mut stream| Box::pin(async move { drop(take(&mut stream).await) });
        let whole = no_answer(lost, pieces(1, Bytes::from(vec![b'x'; 100]))).await;
        assert!(whole.is_ambiguous, "{whole:?}");

        let cut: Deed = |mut stream| {
            Box::pin(async move {
                take(&mut stream).await;
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
                stream.write_all(head).await.unwrap();
            })
        };
        assert!(no_answer(cut, OutgoingBody::Bytes(Bytes::from_static(b"{}"))).await.is_ambiguous);

        let nonsense: Deed = |mut stream| {
            Box::pin(async move {
                take(&mut stream).await;
                stream.write_all(b"not HTTP at all\r\n\r\n").await.unwrap();
            })
        };
        assert!(no_answer(nonsense, OutgoingBody::None).await.is_ambiguous);

        let long: Deed = |mut stream| {
            Box::pin(async move {
                take(&mut stream).await;
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n";
                stream.write_all(&[&head[..], &[b'x'; 1001]].concat()).await.unwrap();
            })
        };
        assert_eq!(no_answer(long, OutgoingBody::None).await.text, "the answer is too long");
    }

    #[tokio::test]
    async fn silence_ends_a_call_and_slowness_of_ours_does_not() {
        let takes_nothing: Deed = |stream| {
            Box::pin(async move {
                std::future::pending::<()>().await;
                drop(stream);
            })
        };
        let none = no_answer(takes_nothing, pieces(1000, Bytes::from(vec![b'x'; 100_000]))).await;
        assert!(!none.is_ambiguous, "{none:?}");
        let never_answers: Deed = |mut stream| {
            Box::pin(async move {
                take(&mut stream).await;
                std::future::pending::<()>().await;
            })
        };
        let none = no_answer(never_answers, pieces(1, Bytes::from(vec![b'x'; 10]))).await;
        assert_eq!(none.text, "no answer came in time");
        assert!(none.is_ambiguous);
        let stops: Deed = |mut stream| {
            Box::pin(async move {
                take(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
                std::future::pending::<()>().await;
            })
        };
        let none = no_answer(stops, OutgoingBody::None).await;
        assert_eq!(none.text, "the answer stopped half way");

        // The content takes longer than any stall to come; nobody is to blame for that.
        let url = serving(|mut stream| {
            Box::pin(async move {
                take(&mut stream).await;
                stream.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
            })
        })
        .await;
        let slow = stream::iter(0..3).then(|_| async {
            tokio::time::sleep(STALL * 4).await;
            Ok(Bytes::from_static(b"12345"))
        });
        let body = OutgoingBody::Stream { len: 15, bytes: slow.boxed() };
        let answer = RemoteHttp::impatient(STALL).call(call(url, body)).await;
        assert_eq!(answer.unwrap().status, 204);
    }

    #[tokio::test]
    async fn content_that_ends_early_or_late_is_our_fault_and_never_a_whole_request() {
        let deed: Deed = |mut stream| {
            Box::pin(async move {
                let asked = take(&mut stream).await;
                let (_, body) = asked.split_once("\r\n\r\n").unwrap();
                assert!(body.len() < 10, "{asked}");
            })
        };
        let broken = [
            vec![Ok(Bytes::from_static(b"12345")), Err(SourceFailed)],
            vec![Ok(Bytes::from_static(b"12345"))],
            vec![Ok(Bytes::from_static(b"12345678901"))],
        ];
        for pieces in broken {
            let body = OutgoingBody::Stream { len: 10, bytes: stream::iter(pieces).boxed() };
            let none = no_answer(deed, body).await;
            assert!(none.is_ours && !none.is_ambiguous, "{none:?}");
        }
    }

    #[tokio::test]
    async fn addresses_that_hand_out_credentials_are_never_called() {
        let http = RemoteHttp::impatient(STALL);
        for host in ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0"] {
            let ended = http.call(call(format!("http://{host}/"), OutgoingBody::None)).await;
            let none = ended.map(|answer| answer.status).unwrap_err();
            assert_eq!(none.text, "the address is one that is never called", "{host}");
        }
    }
}
