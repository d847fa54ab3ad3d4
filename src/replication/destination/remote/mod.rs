//! Stores that are not ours: peers, Backblaze B2, S3.
//!
//! Kept here: how each of them is spoken to, and what of a version becomes metadata there.
//! Deliberately not here: which job goes when, and what follows from a fault. The promise that would
//! break first: what a verb answers has happened, and what may have happened is said to be ambiguous.

mod b2;
mod peer;
mod s3;
#[cfg(test)]
mod tests;
mod xml;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::clock::Clock;
use crate::domain::digest::{Sha1Digest, Sha1Hasher};
use crate::domain::file::FileInfo;
use crate::domain::lock::{FileLock, Retention};
use crate::domain::percent;
use crate::domain::range::ByteRange;
use crate::domain::remote::{Remote, RemoteAddress, RemoteKind, RemoteToken};
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::domain::time::Millis;
use crate::outbound::{
    ANSWER_TIMEOUT, Answer, NoAnswer, NoCertificates, Outgoing, OutgoingBody, OutgoingCall,
    RemoteHttp, SourceFailed,
};
use crate::replication::destination::store::{OutgoingFile, RemoteStore, Sending};

/// Most bytes of an answer that are read where no listing is expected.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Content goes out, and is counted by whoever paces it, in pieces of at most so many bytes: so small
/// that connections which share little bandwidth all show signs of life.
const PIECE_BYTES: usize = 32 * 1024;
/// File infos of one version at B2 (documented); other stores read our replicas through it.
const INFOS_MAX: usize = 10;
/// Metadata up to which marks of ours are added: what every store takes, B2's buckets with locks
/// and S3's objects among them (documented).
const MARKED_BYTES_MAX: usize = 2048;

/// The ways out to remotes, shared by all of them.
pub(crate) struct RemoteLines {
    clock: Arc<dyn Clock>,
    verified: Arc<RemoteHttp>,
    /// For remotes whose certificate is not to be checked.
    unverified: Arc<RemoteHttp>,
}

impl RemoteLines {
    /// `trusted_pem` holds certificates to trust besides the system's.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        trusted_pem: Option<&[u8]>,
    ) -> Result<Self, NoCertificates> {
        Ok(Self {
            clock,
            verified: Arc::new(RemoteHttp::new(false, trusted_pem)?),
            unverified: Arc::new(RemoteHttp::new(true, trusted_pem)?),
        })
    }
}

/// Opens a remote. Where neither its options nor its address say what speaks there, it is asked;
/// otherwise nothing is sent yet.
pub(crate) async fn connect(
    remote: &Remote,
    token: &RemoteToken,
    lines: &RemoteLines,
) -> Result<Arc<dyn RemoteStore>, RemoteFault> {
    let address = RemoteAddress::parse(&remote.url)
        .map_err(|refusal| misdirected(refusal.message.into_owned()))?;
    let http = if remote.allow_insecure_tls { &lines.unverified } else { &lines.verified };
    let line = Line {
        http: Arc::clone(http),
        clock: Arc::clone(&lines.clock),
        base: address.base.clone(),
        token: token.clone(),
    };
    let kind = match address.kind_with(&remote.options) {
        Some(kind) => kind,
        None => detect(&line).await?,
    };
    Ok(match kind {
        RemoteKind::Peer => Arc::new(peer::Peer::new(line, &remote.options)),
        RemoteKind::B2 => Arc::new(b2::Native::new(line, &remote.options, b2::Flavor::B2)),
        RemoteKind::S3 => Arc::new(s3::S3::new(line, &remote.options, &address)?),
    })
}

/// Finds out what speaks at an address.
async fn detect(line: &Line) -> Result<RemoteKind, RemoteFault> {
    if peer::instance(line).await?.is_some() {
        return Ok(RemoteKind::Peer);
    }
    let answer = line.get("/b2api/v4/b2_authorize_account").await?;
    let is_b2 = answer.status == 401
        && serde_json::from_slice::<serde_json::Value>(&answer.body)
            .is_ok_and(|told| told.get("code").is_some_and(serde_json::Value::is_string));
    if is_b2 {
        return Ok(RemoteKind::B2);
    }
    Err(RemoteFault {
        status: answer.status,
        ..misdirected(
            "neither a kiln nor B2 answers there; begin remoteURL with peer+, b2+ or s3+"
                .to_owned(),
        )
    })
}

/// What a remote is reached by.
struct Line {
    http: Arc<RemoteHttp>,
    clock: Arc<dyn Clock>,
    /// Without a slash at its end.
    base: String,
    token: RemoteToken,
}

impl Line {
    /// Asks for something that needs no authorization.
    async fn get(&self, path: &str) -> Result<Answer, RemoteFault> {
        let call = OutgoingCall {
            method: "GET",
            url: format!("{}{path}", self.base),
            headers: Vec::new(),
            body: OutgoingBody::None,
            answer_bytes_max: ANSWER_BYTES_MAX,
            answer_timeout: ANSWER_TIMEOUT,
        };
        self.http.call(call).await.map_err(unanswered)
    }

    fn is_https(&self) -> bool {
        self.base.starts_with("https://")
    }
}

fn unanswered(none: NoAnswer) -> RemoteFault {
    let NoAnswer { text, is_ambiguous, is_ours } = none;
    let class = if is_ours { AnswerClass::SourceUnreadable } else { AnswerClass::Unreachable };
    RemoteFault { class, status: 0, code: String::new(), text, retry_after_ms: None, is_ambiguous }
}

/// A fault that no answer told of.
fn fault(class: AnswerClass, text: String) -> RemoteFault {
    let code = String::new();
    RemoteFault { class, status: 0, code, text, retry_after_ms: None, is_ambiguous: false }
}

/// The settings of the remote do not lead to a store.
fn misdirected(text: String) -> RemoteFault {
    fault(AnswerClass::Misdirected, text)
}

/// A success that does not say what it should: it may be one, or somebody else's.
fn unreadable(status: u16) -> RemoteFault {
    let text = format!("the remote answered {status} with something that cannot be read");
    RemoteFault { is_ambiguous: true, ..fault(AnswerClass::Unreachable, text) }
}

/// The store has other bytes than were sent.
fn mismatch(status: u16, what: &str) -> RemoteFault {
    let text = format!("the {what} that the remote answered is not that of the content");
    RemoteFault { status, ..fault(AnswerClass::ChecksumMismatch, text) }
}

/// The fault of a call that commits something: a server that broke may have done so before.
fn committing(fault: RemoteFault) -> RemoteFault {
    // A store that has other bytes than were sent has certainly stored them.
    let broke = fault.class != AnswerClass::ChecksumMismatch
        && matches!(fault.status, 200..=299 | 408 | 500..=502 | 504..);
    RemoteFault { is_ambiguous: fault.is_ambiguous || broke, ..fault }
}

/// Takes secrets out of what a store says.
fn scrubbed(text: &str, secrets: &[&str]) -> String {
    let secrets = secrets.iter().filter(|secret| !secret.is_empty());
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "(secret)"))
}

/// The content of a range as it may go out.
fn paced(sending: Sending<'_>, range: ByteRange) -> Outgoing {
    let pace = Arc::clone(sending.pace);
    sending
        .content
        .open(range)
        .flat_map(|chunk| {
            let (mut rest, failed) = match chunk {
                Ok(chunk) => (chunk, None),
                // Whoever reads the content keeps the error.
                Err(_) => (Bytes::new(), Some(Err(SourceFailed))),
            };
            let pieces = std::iter::from_fn(move || {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                (!piece.is_empty()).then_some(Ok(piece))
            });
            stream::iter(pieces.chain(failed))
        })
        .then(move |piece: Result<Bytes, SourceFailed>| {
            let pace = Arc::clone(&pace);
            async move {
                let piece = piece?;
                pace.admit(u64::try_from(piece.len()).unwrap_or(u64::MAX)).await;
                Ok(piece)
            }
        })
        .boxed()
}

/// SHA-1 of what goes out, known when the last of it has.
#[derive(Clone, Default)]
struct OutgoingSha1(Arc<Mutex<Sha1Hasher>>);

impl OutgoingSha1 {
    fn update(&self, piece: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).update(piece);
    }

    fn so_far(&self) -> Sha1Digest {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone().finish()
    }

    /// Begins anew, with these bytes.
    fn watch(&self, bytes: Outgoing) -> Outgoing {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Sha1Hasher::default();
        let hasher = self.clone();
        let hashed = bytes.map(move |piece| {
            if let Ok(piece) = &piece {
                hasher.update(piece);
            }
            piece
        });
        hashed.boxed()
    }

    /// The bytes, and after them their SHA-1 in hex digits.
    fn append_to(&self, bytes: Outgoing) -> Outgoing {
        let at_end = self.clone();
        let digits = stream::once(async move { Ok(Bytes::from(at_end.so_far().to_string())) });
        self.watch(bytes).chain(digits).boxed()
    }
}

/// Adds marks of ours to the infos of a file, the most important one first, as long as there is room
/// for them. An info of the same name gives way.
fn with_marks(file: &OutgoingFile, marks: Vec<(&str, String)>) -> BTreeMap<String, String> {
    let mut infos = FileInfo::entries(&file.info);
    let bytes = |infos: &BTreeMap<String, String>| {
        let of_one = |(name, value): (&String, &String)| name.len() + percent::encode(value).len();
        percent::encode(&file.name).len() + infos.iter().map(of_one).sum::<usize>()
    };
    for (name, value) in marks {
        let mut marked = infos.clone();
        marked.insert(name.to_owned(), value);
        if marked.len() <= INFOS_MAX && bytes(&marked) <= MARKED_BYTES_MAX {
            infos = marked;
        }
    }
    infos
}

/// When the source was uploaded, for stores that give versions times of their own.
const UPLOADED: &str = "src_upload_millis";

/// The lock as a store takes it: one that is over already would be refused.
fn lock_to_send(lock: FileLock, now: Millis) -> FileLock {
    let retention: Option<Retention> = lock.retention.filter(|it| it.is_active(now));
    FileLock { retention, ..lock }
}
