//! Carrying a version to a remote: in one piece or in parts, with what was confirmed before.
//!
//! Before each wait, what is at the remote is known here by a session, or is found there by the
//! marker of the version. So an attempt may end at any moment: the next one goes on, or adopts what
//! the one before it left.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use crate::catalog::blob_refs::StoredBlob;
use crate::catalog::remotes::{self, NewOrphan};
use crate::catalog::replication::{self, Begun, Job, JobOrigin, NameOrder};
use crate::domain::encryption::Encryption;
use crate::domain::range::ByteRange;
use crate::domain::remote::{RemoteBucket, RemoteId};
use crate::domain::remote_answer::{AnswerClass, RemoteFault};
use crate::domain::replication::Reason;
use crate::metrics::StreamFigures;
use crate::operations::App;
use crate::operations::download::{Through, verify_blob};
use crate::operations::error::Error;
use crate::operations::remote_tokens::open_token;
use crate::replication::destination::local::failure;
use crate::replication::destination::store::{
    ConfirmedPart, Content, OutgoingFile, Pace, PartPlan, RemoteStore, RemoteVersion, Remotes,
    Sending,
};
use crate::replication::destination::{Failure, Progress};
use crate::replication::gate::Outward;

/// Parts of one file that are on their way at a time.
const PARTS_AT_A_TIME: usize = 4;
/// So many attempts with a wrong checksum at the other side, and the source is read for damage.
const CHECKSUM_ATTEMPTS: u32 = 3;

/// Why an attempt did not get its version across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missed {
    pub(crate) reason: Reason,
    pub(crate) text: String,
    /// What the remote answered, 0 when it gave no answer; None when it was not asked.
    pub(crate) answered: Option<i64>,
    /// How long the remote asks to be left alone, in milliseconds.
    pub(crate) retry_after_ms: Option<i64>,
    /// Something was confirmed that had not been before.
    pub(crate) progressed: bool,
}

impl From<Failure> for Missed {
    fn from(Failure { reason, text }: Failure) -> Self {
        Self { reason, text, answered: None, retry_after_ms: None, progressed: false }
    }
}

impl From<RemoteFault> for Missed {
    fn from(fault: RemoteFault) -> Self {
        // A peer that refuses a replica says why in our own words.
        let named = fault.text.split([':', ' ']).next().and_then(Reason::parse);
        let reason = named.filter(|_| fault.code == REFUSED).unwrap_or(fault.class.reason());
        let text = match fault.code.as_str() {
            "" => fault.text,
            code => format!("{code}: {}", fault.text),
        };
        Self {
            reason,
            text,
            answered: Some(i64::from(fault.status)),
            retry_after_ms: fault.retry_after_ms,
            progressed: false,
        }
    }
}

/// The code by which a peer refuses the replica of a rule.
const REFUSED: &str = "replication_refused";

/// A version that is at the remote now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) version: RemoteVersion,
    /// An earlier attempt had got it there.
    pub(crate) adopted: bool,
}

/// The content of a blob. What goes wrong in reading it is kept, since whoever reads is told by the
/// network only that the sending broke off.
struct BlobContent {
    app: Arc<App>,
    blob: StoredBlob,
    broken: Arc<Mutex<Option<Failure>>>,
}

impl Content for BlobContent {
    fn open(&self, range: ByteRange) -> BoxStream<'static, Result<Bytes, Error>> {
        enum Reading {
            NotBegun(ByteRange),
            Begun(Through),
        }
        let (app, blob, broken) =
            (Arc::clone(&self.app), self.blob.clone(), Arc::clone(&self.broken));
        let chunks = stream::try_unfold(Reading::NotBegun(range), move |reading| {
            let (app, blob, broken) = (Arc::clone(&app), blob.clone(), Arc::clone(&broken));
            async move {
                let read = async {
                    let mut through = match reading {
                        Reading::NotBegun(range) => {
                            Through::begin(&app, &blob, range, None).await?
                        }
                        Reading::Begun(through) => through,
                    };
                    let chunk = through.next(&app).await?;
                    Ok(chunk.map(|chunk| (chunk, Reading::Begun(through))))
                };
                read.await.inspect_err(|error| {
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure(error));
                })
            }
        });
        chunks.boxed()
    }
}

/// One attempt at getting a version to a remote.
pub(super) struct Carrier<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) remotes: &'a dyn Remotes,
    pub(super) owner: &'a str,
    pub(super) job: &'a Job,
    pub(super) progress: &'a Progress,
}

/// What the steps of an attempt share.
struct Errand {
    remote: RemoteId,
    store: Arc<dyn RemoteStore>,
    file: OutgoingFile,
    content: Arc<dyn Content>,
    pace: Arc<dyn Pace>,
    figures: Option<Arc<StreamFigures>>,
    progressed: AtomicBool,
}

impl Errand {
    fn sending(&self) -> Sending<'_> {
        Sending { file: &self.file, content: &self.content, pace: &self.pace }
    }
}

/// Why a session came to no end.
enum Broken {
    Fault(RemoteFault),
    /// Nothing at the remote is to blame.
    Here(Failure),
}

impl From<RemoteFault> for Broken {
    fn from(fault: RemoteFault) -> Self {
        Self::Fault(fault)
    }
}

impl Carrier<'_> {
    /// Gets the version across, or says why not.
    pub(super) async fn carry(&self, outward: Outward) -> Result<Arrived, Missed> {
        if self.job.last_reason.as_deref() == Some(Reason::ChecksumMismatch.as_str())
            && self.job.attempts >= CHECKSUM_ATTEMPTS
        {
            verify_blob(self.app, &outward.blob, &mut |_| self.progress.note())
                .await
                .map_err(|error| failure(&error))?;
        }
        let token = open_token(self.app, &outward.remote).map_err(|error| failure(&error))?;
        let store = self.remotes.open(&outward.remote.remote, token).await?;
        if !store.keeps_timestamps() {
            self.check_order()?;
        }
        let broken = Arc::new(Mutex::new(None));
        let pace = self.remotes.pace(&outward.remote.remote, self.progress);
        let errand = Errand {
            remote: outward.remote.remote.id,
            store,
            file: self.outgoing(&outward)?,
            content: Arc::new(BlobContent {
                app: Arc::clone(self.app),
                blob: outward.blob,
                broken: Arc::clone(&broken),
            }),
            pace,
            figures: self.job.stream().map(|stream| self.app.metrics.stream(stream)),
            progressed: AtomicBool::new(false),
        };
        let arrived = self.deliver(&errand).await;
        let progressed = errand.progressed.load(Ordering::Relaxed);
        arrived.map_err(|why| {
            let here = broken.lock().unwrap_or_else(PoisonError::into_inner).take();
            let missed = match (here, why) {
                (Some(here), _) | (None, Broken::Here(here)) => Missed::from(here),
                (None, Broken::Fault(fault)) => Missed::from(fault),
            };
            Missed { progressed, ..missed }
        })
    }

    /// Where the times of versions are not kept, they arrive in the order of their age or not at all.
    fn check_order(&self) -> Result<(), Failure> {
        let order = self.app.catalog.read(|tx| Ok(replication::name_order(tx, self.job)?));
        let (reason, text) = match order.map_err(|abort| failure(&Error::from(abort)))? {
            NameOrder::Free => return Ok(()),
            NameOrder::Waits => {
                (Reason::NameAwaited, "another version of the same name is on its way")
            }
            NameOrder::Superseded => {
                (Reason::Superseded, "a newer version of the same name has arrived")
            }
        };
        Err(Failure { reason, text: text.to_owned() })
    }

    fn outgoing(&self, outward: &Outward) -> Result<OutgoingFile, Failure> {
        let source = &outward.source;
        let (bucket, prefix) = match (&outward.stream, self.job.rule()) {
            (Some(stream), _) => {
                (stream.remote_bucket(), stream.options.destination_prefix.as_str())
            }
            (None, Some(rule)) => (RemoteBucket::Id(rule.destination.to_string()), ""),
            (None, None) => {
                let text = "the job leads nowhere".to_owned();
                return Err(Failure { reason: Reason::Purged, text });
            }
        };
        let own = self.app.instance.to_string();
        // What came from elsewhere stays a copy of what it was there.
        let (origin, hops) = match &outward.trail {
            None => (replication::origin_of(&own, &self.job.file_id), vec![own]),
            Some(trail) => {
                let before = trail.hops.split(',').filter(|hop| !hop.is_empty());
                let hops = before.map(str::to_owned).chain([own]).collect();
                (trail.origin.clone(), hops)
            }
        };
        Ok(OutgoingFile {
            bucket,
            name: format!("{prefix}{}", source.name.as_str()),
            size: source.size,
            content_type: source.content_type.clone(),
            info: source.info.clone(),
            sha1: source.sha1,
            md5: source.md5,
            upload_at: source.upload_at,
            origin,
            hops,
            lock: source.lock,
            is_encrypted: source.encryption == Encryption::Managed,
            part_sizes: outward.part_sizes.clone(),
            source_key: self.job.rule().map(|rule| rule.source_key.to_string()),
        })
    }

    async fn deliver(&self, errand: &Errand) -> Result<Arrived, Broken> {
        let (store, file) = (&errand.store, &errand.file);
        // An attempt before this one may have got through without being told so, and what a walk
        // finds may have been carried by a stream that is gone.
        if (self.job.lease_epoch > 1 || self.job.origin == JobOrigin::Scan)
            && let Some(version) = store.find(file).await?
        {
            self.progress.note();
            if let Some(session) = &self.job.session {
                // What is left of it there costs whoever owns the remote.
                self.give_up(errand, session).await?;
            }
            if let Some(figures) = &errand.figures {
                figures.adopted.one();
            }
            return Ok(Arrived { version, adopted: true });
        }
        let rules = store.part_rules();
        let version = if rules.sends_whole(file.size, &file.part_sizes) {
            store.put(errand.sending()).await?
        } else {
            self.in_parts(errand, &rules.cut(file.size, &file.part_sizes)).await?
        };
        Ok(Arrived { version, adopted: false })
    }

    async fn in_parts(&self, errand: &Errand, plan: &[PartPlan]) -> Result<RemoteVersion, Broken> {
        let known = self.job.session.clone();
        let was_known = known.is_some();
        match self.run_session(errand, plan, known).await {
            Err(Broken::Fault(fault)) if was_known && fault.class == AnswerClass::SessionLost => {
                if let Some(figures) = &errand.figures {
                    figures.restarted_sessions.one();
                }
                self.run_session(errand, plan, None).await
            }
            ended => ended,
        }
    }

    /// Sends the parts that a session lacks, and finishes it.
    async fn run_session(
        &self,
        errand: &Errand,
        plan: &[PartPlan],
        known: Option<String>,
    ) -> Result<RemoteVersion, Broken> {
        let (store, file) = (&errand.store, &errand.file);
        let (session, there) = if let Some(session) = known {
            let there = store.list_parts(file, &session).await?;
            (session, there)
        } else {
            let session = store.start(file).await?;
            if let Err(broken) = self.note_session(&session, 0, (0, plan.len())).await {
                // Nobody would ever know of it.
                self.give_up(errand, &session).await?;
                return Err(broken);
            }
            (session, Vec::new())
        };
        self.progress.note();
        let planned = |part: &PartPlan| {
            let same =
                |one: &&ConfirmedPart| one.number == part.number && one.size == part.range.len();
            there.iter().find(same).cloned()
        };
        let mut confirmed: Vec<ConfirmedPart> = plan.iter().filter_map(planned).collect();
        let mut confirmed_bytes: u64 = confirmed.iter().map(|part| part.size).sum();
        if !confirmed.is_empty() {
            if let Some(figures) = &errand.figures {
                figures.resumed_parts.add(confirmed.len() as u64);
            }
            let parts = (confirmed.len(), plan.len());
            self.note_session(&session, confirmed_bytes, parts).await?;
        }
        let missing: Vec<PartPlan> =
            plan.iter().filter(|part| planned(part).is_none()).copied().collect();
        let mut sent = stream::iter(missing)
            .map(|part| store.put_part(errand.sending(), &session, part))
            .buffer_unordered(PARTS_AT_A_TIME);
        while let Some(part) = sent.next().await {
            let part = part?;
            errand.progressed.store(true, Ordering::Relaxed);
            confirmed_bytes += part.size;
            confirmed.push(part);
            self.progress.note();
            let parts = (confirmed.len(), plan.len());
            self.note_session(&session, confirmed_bytes, parts).await?;
        }
        drop(sent);
        confirmed.sort_by_key(|part| part.number);
        Ok(store.finish(file, &session, &confirmed).await?)
    }

    /// Gives up what was begun at the remote, now or, if it takes nothing now, later.
    async fn give_up(&self, errand: &Errand, session: &str) -> Result<(), Broken> {
        let file = &errand.file;
        if errand.store.cancel(&file.bucket, &file.name, session).await.is_ok() {
            return Ok(());
        }
        let (remote, now) = (errand.remote, self.app.waits.now());
        let (bucket, name) = (file.bucket.clone(), file.name.clone());
        let session = session.to_owned();
        let remembered = self.app.catalog.write("orphan_session", move |tx| {
            let orphan = NewOrphan { remote, bucket: &bucket, file_name: &name, session: &session };
            Ok(remotes::insert_orphan(tx, &orphan, now)?)
        });
        remembered.await.map_err(|abort| Broken::Here(failure(&Error::from(abort))))
    }

    /// Stores what is at the remote, before more is done there.
    async fn note_session(
        &self,
        session: &str,
        confirmed: u64,
        (parts_done, parts_total): (usize, usize),
    ) -> Result<(), Broken> {
        let (job, owner, session) = (self.job.clone(), self.owner.to_owned(), session.to_owned());
        let noted = self
            .app
            .catalog
            .write("replication_session", move |tx| {
                let begun = Begun { session: &session, confirmed, parts_done, parts_total };
                Ok(replication::note_session(tx, &job, &owner, &begun)?)
            })
            .await;
        match noted {
            Ok(true) => Ok(()),
            Ok(false) => {
                let text = "the lease of the job was lost".to_owned();
                Err(Broken::Here(Failure { reason: Reason::IoError, text }))
            }
            Err(abort) => Err(Broken::Here(failure(&Error::from(abort)))),
        }
    }
}
