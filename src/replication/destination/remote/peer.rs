//! Other kilns: B2's Native API, and headers that say what a replica is a copy of.
//!
//! A peer keeps the time of the source, leaves the metadata alone, and answers a second upload of
//! the same origin with the version it has. What has parts here has the same parts there; what is
//! of one piece here stays so, and goes bit by bit where it is large (`docs/peers.md`).

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::remote::RemoteOptions;
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::outbound::FINISH_TIMEOUT;
use crate::replication::destination::remote::b2::{
    About, Asking, FileAnswer, Flavor, Native, PARTS_MAX, PartAnswer, Payload,
};
use crate::replication::destination::remote::{
    Line, OutgoingSha1, committing, fault, misdirected, mismatch,
};
use crate::replication::destination::store::{
    Checked, ConfirmedPart, ListedPage, OutgoingFile, PartPlan, PartRules, RemoteBucket,
    RemoteStore, RemoteVersion, Sending,
};

/// Files of one piece above this size go bit by bit, in bits of this many bytes (ours).
const THRESHOLD: u64 = 64 * 1024 * 1024;
const BIT_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Instance {
    instance_id: String,
    accepts_peers: Option<bool>,
}

/// The kiln that answers there; None when something else does.
async fn introduction(line: &Line) -> Result<Option<Instance>, RemoteFault> {
    let answer = line.get("/api/v2/instance").await?;
    let told = serde_json::from_slice(&answer.body).ok();
    Ok(told.filter(|_| answer.status == 200))
}

/// The id of the kiln that answers there; None when something else does.
pub(super) async fn instance(line: &Line) -> Result<Option<String>, RemoteFault> {
    Ok(introduction(line).await?.map(|told| told.instance_id))
}

/// What an upload, a start and a finish tell a peer of the source.
pub(super) fn headers(file: &OutgoingFile) -> Vec<(String, String)> {
    let mut headers = vec![
        ("X-Replica-Origin".to_owned(), file.origin.clone()),
        ("X-Replica-Timestamp".to_owned(), file.upload_at.0.to_string()),
        ("X-Replica-Hops".to_owned(), file.hops.join(",")),
    ];
    if let Some(key) = &file.source_key {
        headers.push(("X-Replica-Source-Key".to_owned(), key.clone()));
    }
    headers
}

/// Another kiln.
pub(super) struct Peer {
    native: Native,
    options: RemoteOptions,
}

/// What was begun at a peer; the text form is what the engine keeps.
#[derive(Clone, Copy)]
enum Session<'s> {
    /// A large file, in the parts of its source.
    Large(&'s str),
    /// A file of one piece, bit by bit.
    Whole(&'s str),
    /// Nothing is left to be sent: the version is there.
    There(&'s str),
}

const WHOLE: &str = "whole:";
const THERE: &str = "there:";

impl<'s> Session<'s> {
    fn parse(text: &'s str) -> Self {
        match (text.strip_prefix(WHOLE), text.strip_prefix(THERE)) {
            (Some(id), _) => Self::Whole(id),
            (_, Some(id)) => Self::There(id),
            _ => Self::Large(text),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SessionAnswer {
    session_id: String,
    part_size_bytes: Option<u64>,
    #[serde(default)]
    parts: Vec<PartAnswer>,
    file: Option<FileAnswer>,
}

impl Peer {
    pub(super) fn new(line: Line, options: &RemoteOptions) -> Self {
        Self { native: Native::new(line, options, Flavor::Peer), options: options.clone() }
    }

    /// The bits of a file of one piece.
    fn bits(&self, file: &OutgoingFile) -> Vec<PartPlan> {
        self.part_rules().cut(file.size, &[])
    }

    fn bit_bytes(&self, file: &OutgoingFile) -> u64 {
        self.bits(file).first().map_or(0, |bit| bit.range.len())
    }

    /// Calls a session that was begun.
    async fn call(
        &self,
        method: &'static str,
        id: &str,
        headers: Vec<(String, String)>,
        payload: Payload<'_>,
    ) -> Result<SessionAnswer, RemoteFault> {
        let path = format!("/api/v2/replica_sessions/{id}");
        self.native
            .ask(Asking {
                headers,
                about: About::Session,
                // Whoever brings the last bit waits until the whole is read through.
                answer_timeout: FINISH_TIMEOUT,
                ..Asking::at(method, path, payload)
            })
            .await
    }

    /// Begins a file of one piece that is to come bit by bit.
    async fn begin_whole(&self, file: &OutgoingFile) -> Result<String, RemoteFault> {
        let place = self.native.place(&file.bucket).await?;
        let mut fields = self.native.begin_fields(file, &place.id);
        let mut put = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        put("contentLength", file.size.into());
        put("contentSha1", json!(file.sha1));
        put("contentMd5", json!(file.md5));
        put("partSizeBytes", self.bit_bytes(file).into());
        let path = "/api/v2/replica_sessions".to_owned();
        let asking = Asking {
            headers: headers(file),
            ..Asking::at("POST", path, Payload::Fields(Value::Object(fields)))
        };
        let begun: Result<SessionAnswer, _> = self.native.ask(asking).await;
        let begun = begun.map_err(|fault| self.native.noticing(&file.bucket, committing(fault)))?;
        Ok(match begun.file {
            Some(there) => format!("{THERE}{}", there.file_id),
            None => format!("{WHOLE}{}", begun.session_id),
        })
    }

    async fn put_bit(
        &self,
        sending: Sending<'_>,
        id: &str,
        part: PartPlan,
    ) -> Result<ConfirmedPart, RemoteFault> {
        let (range, total) = (part.range, sending.file.size);
        let placed = format!("bytes {}-{}/{total}", range.start, range.end.saturating_sub(1));
        let mut headers = headers(sending.file);
        headers.push(("Content-Range".to_owned(), placed));
        headers.push(("X-Bz-Content-Sha1".to_owned(), "do_not_verify".to_owned()));
        let sha1 = OutgoingSha1::default();
        let payload = Payload::Piece { sending, range, sha1: sha1.clone() };
        let told = self.call("PUT", id, headers, payload).await?;
        let tag = sha1.so_far().to_string();
        // Once the whole is stored, it was compared as a whole.
        let mut parts = told.parts.into_iter().map(PartAnswer::confirmed);
        let is_other = |known: &ConfirmedPart| known.number == part.number && known.tag != tag;
        if told.file.is_none() && parts.any(|known| is_other(&known)) {
            return Err(mismatch(200, "SHA-1"));
        }
        Ok(ConfirmedPart { number: part.number, size: range.len(), tag })
    }

    async fn list_bits(
        &self,
        file: &OutgoingFile,
        id: &str,
    ) -> Result<Vec<ConfirmedPart>, RemoteFault> {
        let told = self.call("GET", id, Vec::new(), Payload::None).await?;
        if told.file.is_some() {
            return Ok(all_confirmed(&self.bits(file)));
        }
        if told.part_size_bytes != Some(self.bit_bytes(file)) {
            let text = "it was begun in bits of another size".to_owned();
            return Err(fault(AnswerClass::SessionLost, text));
        }
        Ok(told.parts.into_iter().map(PartAnswer::confirmed).collect())
    }

    async fn finish_whole(
        &self,
        file: &OutgoingFile,
        id: &str,
    ) -> Result<RemoteVersion, RemoteFault> {
        let mut headers = headers(file);
        headers.push(("Content-Range".to_owned(), format!("bytes */{}", file.size)));
        let told = self.call("PUT", id, headers, Payload::None).await.map_err(committing)?;
        let stored = told.file.ok_or_else(|| {
            fault(AnswerClass::MissingParts, "not all of the file is there".to_owned())
        })?;
        Ok(RemoteVersion { id: stored.file_id, status: 200 })
    }
}

fn all_confirmed(plan: &[PartPlan]) -> Vec<ConfirmedPart> {
    plan.iter().copied().map(confirmed).collect()
}

fn confirmed(part: PartPlan) -> ConfirmedPart {
    ConfirmedPart { number: part.number, size: part.range.len(), tag: String::new() }
}

impl RemoteStore for Peer {
    fn part_rules(&self) -> PartRules {
        PartRules {
            threshold: self.options.multipart_threshold_bytes.unwrap_or(THRESHOLD),
            smallest: 1,
            usual: self.options.part_size_bytes.unwrap_or(BIT_BYTES),
            parts_max: PARTS_MAX,
            keeps_parts: true,
        }
    }

    fn keeps_timestamps(&self) -> bool {
        true
    }

    fn check<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
    ) -> BoxFuture<'a, Result<Checked, RemoteFault>> {
        async move {
            let told = introduction(self.native.line()).await?;
            let told = told.ok_or_else(|| misdirected("no kiln answers there".to_owned()))?;
            if told.accepts_peers == Some(false) {
                let text = "it takes no replicas: replication.accept_peers is off there";
                return Err(fault(AnswerClass::Unauthorized, text.to_owned()));
            }
            let checked = self.native.check(bucket).await?;
            Ok(Checked { instance: Some(told.instance_id), ..checked })
        }
        .boxed()
    }

    fn find<'a>(
        &'a self,
        file: &'a OutgoingFile,
    ) -> BoxFuture<'a, Result<Option<RemoteVersion>, RemoteFault>> {
        async move {
            match self.native.find(file).await {
                // A peer knows its origins itself, whether we may list there or not.
                Err(fault) if fault.class == AnswerClass::Unauthorized => Ok(None),
                found => found,
            }
        }
        .boxed()
    }

    fn put<'a>(
        &'a self,
        sending: Sending<'a>,
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>> {
        self.native.put(sending)
    }

    fn start<'a>(&'a self, file: &'a OutgoingFile) -> BoxFuture<'a, Result<String, RemoteFault>> {
        async move {
            if file.part_sizes.is_empty() {
                return self.begin_whole(file).await;
            }
            let started = self.native.start_large(file).await?;
            let is_there = started.action.as_deref() == Some("upload");
            Ok(if is_there { format!("{THERE}{}", started.file_id) } else { started.file_id })
        }
        .boxed()
    }

    fn put_part<'a>(
        &'a self,
        sending: Sending<'a>,
        session: &'a str,
        part: PartPlan,
    ) -> BoxFuture<'a, Result<ConfirmedPart, RemoteFault>> {
        match Session::parse(session) {
            Session::Large(id) => self.native.put_part(sending, id, part),
            Session::Whole(id) => self.put_bit(sending, id, part).boxed(),
            Session::There(_) => async move { Ok(confirmed(part)) }.boxed(),
        }
    }

    fn list_parts<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConfirmedPart>, RemoteFault>> {
        match Session::parse(session) {
            Session::Large(id) => self.native.list_parts(file, id),
            Session::Whole(id) => self.list_bits(file, id).boxed(),
            Session::There(_) => {
                async { Ok(all_confirmed(&self.part_rules().cut(file.size, &file.part_sizes))) }
                    .boxed()
            }
        }
    }

    fn finish<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
        parts: &'a [ConfirmedPart],
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>> {
        match Session::parse(session) {
            Session::Large(id) => self.native.finish(file, id, parts),
            Session::Whole(id) => self.finish_whole(file, id).boxed(),
            Session::There(id) => {
                async { Ok(RemoteVersion { id: id.to_owned(), status: 200 }) }.boxed()
            }
        }
    }

    fn cancel<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
        name: &'a str,
        session: &'a str,
    ) -> BoxFuture<'a, Result<(), RemoteFault>> {
        match Session::parse(session) {
            Session::Large(id) => self.native.cancel(bucket, name, id),
            Session::There(_) => async { Ok(()) }.boxed(),
            Session::Whole(id) => async move {
                let path = format!("/api/v2/replica_sessions/{id}");
                let asking =
                    Asking { about: About::Session, ..Asking::at("DELETE", path, Payload::None) };
                match self.native.ask::<Value>(asking).await {
                    Err(fault) if fault.class != AnswerClass::SessionLost => Err(fault),
                    _ => Ok(()),
                }
            }
            .boxed(),
        }
    }

    fn list<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ListedPage, RemoteFault>> {
        self.native.list(bucket, prefix, from)
    }
}
