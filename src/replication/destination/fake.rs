//! A remote in memory that does as it is told, and fails as a test planned.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};

use crate::domain::range::ByteRange;
use crate::domain::remote::{Remote, RemoteBucket, RemoteToken};
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::domain::time::Millis;
use crate::replication::destination::Progress;
use crate::replication::destination::store::{
    Checked, ConfirmedPart, ListedPage, ListedVersion, OutgoingFile, Pace, PartPlan, PartRules,
    RemoteStore, RemoteVersion, Remotes, Sending,
};

/// What a remote is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Open,
    Check,
    Find,
    Put,
    Start,
    PutPart,
    ListParts,
    Finish,
    Cancel,
    List,
}

/// What shall go wrong with a call.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) fault: RemoteFault,
    /// It is done all the same, only the answer is lost.
    pub(crate) after_the_act: bool,
}

/// A fault of a class, with the status that usually goes with it.
pub(crate) fn fault(class: AnswerClass) -> RemoteFault {
    let status = match class {
        AnswerClass::Refresh | AnswerClass::Unauthorized => 401,
        AnswerClass::CapExceeded => 403,
        AnswerClass::BucketMissing | AnswerClass::SessionLost => 404,
        AnswerClass::Loop => 409,
        AnswerClass::Busy => 503,
        AnswerClass::Unreachable => 0,
        _ => 400,
    };
    RemoteFault {
        class,
        status,
        code: String::new(),
        text: format!("{class:?}"),
        retry_after_ms: None,
        is_ambiguous: class == AnswerClass::Unreachable,
    }
}

/// A version that the remote holds.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) id: String,
    pub(crate) file: OutgoingFile,
    pub(crate) bytes: Vec<u8>,
    pub(crate) part_sizes: Vec<u64>,
}

#[derive(Debug, Default)]
struct Session {
    name: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
struct State {
    held: Vec<Held>,
    sessions: BTreeMap<String, Session>,
    plans: Vec<(Verb, usize, Planned)>,
    calls: Vec<(Verb, String)>,
    sent_bytes: u64,
    drawn: u32,
    keeps_timestamps: bool,
    tokens: Vec<String>,
    checked: Checked,
    /// Versions of a page of listings; all where it is not said.
    page: Option<usize>,
    /// One version of each name is kept.
    is_unversioned: bool,
}

/// The remote; all remotes of a test are this one.
#[derive(Clone, Default)]
pub(crate) struct FakeRemote(Arc<Mutex<State>>);

/// Small, so that tests need few bytes to send a file in parts.
pub(crate) const RULES: PartRules = PartRules {
    threshold: 20_000,
    smallest: 5_000,
    usual: 5_000,
    parts_max: 10_000,
    keeps_parts: false,
};

impl FakeRemote {
    pub(crate) fn new() -> Self {
        let remote = Self::default();
        remote.state().keeps_timestamps = true;
        remote
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next `times` calls of a verb go wrong.
    pub(crate) fn plan(&self, verb: Verb, times: usize, fault: RemoteFault) {
        self.state().plans.push((verb, times, Planned { fault, after_the_act: false }));
    }

    /// The next call of a verb is done, but nobody is told.
    pub(crate) fn lose_answer(&self, verb: Verb) {
        let fault = fault(AnswerClass::Unreachable);
        self.state().plans.push((verb, 1, Planned { fault, after_the_act: true }));
    }

    /// Lets go of what was planned.
    pub(crate) fn mend(&self) {
        self.state().plans.clear();
    }

    pub(crate) fn forget_timestamps(&self) {
        self.state().keeps_timestamps = false;
    }

    /// What checks find from now on.
    pub(crate) fn answer_checks(&self, checked: Checked) {
        self.state().checked = checked;
    }

    /// Lists so many versions at a time.
    pub(crate) fn list_by(&self, versions: usize) {
        self.state().page = Some(versions);
    }

    /// Keeps one version of each name from now on, and gives it no id in listings.
    pub(crate) fn forget_versions(&self) {
        self.state().is_unversioned = true;
    }

    pub(crate) fn forget_sessions(&self) {
        self.state().sessions.clear();
    }

    pub(crate) fn held(&self) -> Vec<Held> {
        self.state().held.clone()
    }

    pub(crate) fn remove(&self, name: &str) {
        self.state().held.retain(|held| held.file.name != name);
    }

    /// Sessions that were begun and neither finished nor given up.
    pub(crate) fn open_sessions(&self) -> usize {
        self.state().sessions.len()
    }

    pub(crate) fn calls(&self, verb: Verb) -> usize {
        self.state().calls.iter().filter(|(called, _)| *called == verb).count()
    }

    /// The names of the files that were asked about, in order.
    pub(crate) fn called(&self, verb: Verb) -> Vec<String> {
        let state = self.state();
        let of_verb = state.calls.iter().filter(|(called, _)| *called == verb);
        of_verb.map(|(_, name)| name.clone()).collect()
    }

    /// Bytes of content that were taken, whatever became of them.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.state().sent_bytes
    }

    /// The secrets that it was opened with, one after the other.
    pub(crate) fn tokens(&self) -> Vec<String> {
        self.state().tokens.clone()
    }

    /// Answers how a call goes wrong, if it does.
    fn called_with(&self, verb: Verb, name: &str) -> Option<Planned> {
        let mut state = self.state();
        state.calls.push((verb, name.to_owned()));
        let plan = state.plans.iter_mut().find(|(of, times, _)| *of == verb && *times > 0)?;
        plan.1 -= 1;
        Some(plan.2.clone())
    }

    /// Does an act as planned: before the fault, after it, or without one.
    fn act<T>(
        &self,
        verb: Verb,
        name: &str,
        act: impl FnOnce(&mut State) -> Result<T, RemoteFault>,
    ) -> Result<T, RemoteFault> {
        match self.called_with(verb, name) {
            Some(Planned { fault, after_the_act: false }) => Err(fault),
            Some(Planned { fault, after_the_act: true }) => {
                act(&mut self.state())?;
                Err(fault)
            }
            None => act(&mut self.state()),
        }
    }
}

impl State {
    fn draw(&mut self, kind: &str) -> String {
        self.drawn += 1;
        format!("{kind}{:04}", self.drawn)
    }

    /// As a peer does: what comes from the same version again is the same version.
    fn hold(&mut self, file: &OutgoingFile, bytes: Vec<u8>, part_sizes: Vec<u64>) -> RemoteVersion {
        let id = self.draw("version");
        if self.is_unversioned {
            self.held.retain(|held| held.file.name != file.name);
        }
        self.held.push(Held { id: id.clone(), file: file.clone(), bytes, part_sizes });
        RemoteVersion { id, status: 200 }
    }
}

/// Reads what is sent, as the network would.
async fn receive(sending: Sending<'_>, range: ByteRange) -> Result<Vec<u8>, RemoteFault> {
    let mut bytes = Vec::new();
    let mut chunks = sending.content.open(range);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| fault(AnswerClass::Unreachable))?;
        sending.pace.admit(chunk.len() as u64).await;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn not_known() -> RemoteFault {
    fault(AnswerClass::SessionLost)
}

impl RemoteStore for FakeRemote {
    fn part_rules(&self) -> PartRules {
        RULES
    }

    fn keeps_timestamps(&self) -> bool {
        self.state().keeps_timestamps
    }

    fn check<'a>(
        &'a self,
        bucket: &'a RemoteBucket,
    ) -> BoxFuture<'a, Result<Checked, RemoteFault>> {
        let checked =
            self.act(Verb::Check, &format!("{bucket:?}"), |state| Ok(state.checked.clone()));
        async { checked }.boxed()
    }

    fn find<'a>(
        &'a self,
        file: &'a OutgoingFile,
    ) -> BoxFuture<'a, Result<Option<RemoteVersion>, RemoteFault>> {
        let found = self.act(Verb::Find, &file.name, |state| {
            let same = |held: &&Held| held.file.origin == file.origin;
            let found = state.held.iter().find(same);
            Ok(found.map(|held| RemoteVersion { id: held.id.clone(), status: 200 }))
        });
        async { found }.boxed()
    }

    fn put<'a>(
        &'a self,
        sending: Sending<'a>,
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>> {
        async move {
            let bytes = receive(sending, ByteRange::whole(sending.file.size)).await?;
            self.act(Verb::Put, &sending.file.name, |state| {
                state.sent_bytes += bytes.len() as u64;
                Ok(state.hold(sending.file, bytes, Vec::new()))
            })
        }
        .boxed()
    }

    fn start<'a>(&'a self, file: &'a OutgoingFile) -> BoxFuture<'a, Result<String, RemoteFault>> {
        let started = self.act(Verb::Start, &file.name, |state| {
            let id = state.draw("session");
            let session = Session { name: file.name.clone(), parts: BTreeMap::new() };
            state.sessions.insert(id.clone(), session);
            Ok(id)
        });
        async { started }.boxed()
    }

    fn put_part<'a>(
        &'a self,
        sending: Sending<'a>,
        session: &'a str,
        part: PartPlan,
    ) -> BoxFuture<'a, Result<ConfirmedPart, RemoteFault>> {
        async move {
            let bytes = receive(sending, part.range).await?;
            self.act(Verb::PutPart, &sending.file.name, |state| {
                state.sent_bytes += bytes.len() as u64;
                let known = state.sessions.get_mut(session).ok_or_else(not_known)?;
                let size = bytes.len() as u64;
                known.parts.insert(part.number, bytes);
                Ok(ConfirmedPart { number: part.number, size, tag: part.number.to_string() })
            })
        }
        .boxed()
    }

    fn list_parts<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ConfirmedPart>, RemoteFault>> {
        let listed = self.act(Verb::ListParts, &file.name, |state| {
            let known = state.sessions.get(session).ok_or_else(not_known)?;
            let part = |(number, bytes): (&u32, &Vec<u8>)| ConfirmedPart {
                number: *number,
                size: bytes.len() as u64,
                tag: number.to_string(),
            };
            Ok(known.parts.iter().map(part).collect())
        });
        async { listed }.boxed()
    }

    fn finish<'a>(
        &'a self,
        file: &'a OutgoingFile,
        session: &'a str,
        parts: &'a [ConfirmedPart],
    ) -> BoxFuture<'a, Result<RemoteVersion, RemoteFault>> {
        let finished = self.act(Verb::Finish, &file.name, |state| {
            let known = state.sessions.remove(session).ok_or_else(not_known)?;
            let (mut bytes, mut sizes) = (Vec::new(), Vec::new());
            for part in parts {
                let sent = known.parts.get(&part.number).ok_or_else(not_known)?;
                sizes.push(sent.len() as u64);
                bytes.extend_from_slice(sent);
            }
            Ok(state.hold(file, bytes, sizes))
        });
        async { finished }.boxed()
    }

    fn cancel<'a>(
        &'a self,
        _bucket: &'a RemoteBucket,
        name: &'a str,
        session: &'a str,
    ) -> BoxFuture<'a, Result<(), RemoteFault>> {
        let cancelled = self.act(Verb::Cancel, name, |state| {
            if let Some(known) = state.sessions.remove(session) {
                assert_eq!(known.name, name, "a session is given up under its own name");
            }
            Ok(())
        });
        async { cancelled }.boxed()
    }

    fn list<'a>(
        &'a self,
        _bucket: &'a RemoteBucket,
        prefix: &'a str,
        from: Option<&'a str>,
    ) -> BoxFuture<'a, Result<ListedPage, RemoteFault>> {
        let listed = self.act(Verb::List, prefix, |state| {
            let unversioned = state.is_unversioned;
            let mut versions: Vec<ListedVersion> = state
                .held
                .iter()
                .filter(|held| held.file.name.starts_with(prefix))
                .map(|held| ListedVersion {
                    name: held.file.name.clone(),
                    id: if unversioned { "null".to_owned() } else { held.id.clone() },
                    size: held.bytes.len() as u64,
                    sha1: held.file.sha1.digest().map(|sha1| sha1.to_string()),
                    etag: None,
                    origin: Some(held.file.origin.clone()),
                    upload_at: Some(Millis(held.file.upload_at.0)),
                })
                .collect();
            versions.sort_by(|one, other| one.name.cmp(&other.name));
            let begun: usize = from.map_or(0, |from| from.parse().unwrap());
            let end = state.page.map_or(versions.len(), |page| begun + page).min(versions.len());
            let next = (end < versions.len()).then(|| end.to_string());
            Ok(ListedPage { versions: versions[begun..end].to_vec(), next })
        });
        async { listed }.boxed()
    }
}

/// Bytes go as fast as they come.
struct NoPace(Progress);

impl Pace for NoPace {
    fn admit(&self, _bytes: u64) -> BoxFuture<'static, ()> {
        self.0.note();
        async {}.boxed()
    }
}

impl Remotes for FakeRemote {
    fn open<'a>(
        &'a self,
        _remote: &'a Remote,
        token: RemoteToken,
    ) -> BoxFuture<'a, Result<Arc<dyn RemoteStore>, RemoteFault>> {
        let opened = self.act(Verb::Open, "", |state| {
            state.tokens.push(token.secret.expose().to_owned());
            Ok(())
        });
        let store: Arc<dyn RemoteStore> = Arc::new(self.clone());
        async move { opened.map(|()| store) }.boxed()
    }

    fn pace(&self, _remote: &Remote, progress: &Progress) -> Arc<dyn Pace> {
        Arc::new(NoPace(progress.clone()))
    }
}
