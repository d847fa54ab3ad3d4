//! The delivery of event notifications: takes events out of the catalog's outbox and carries them
//! to the targets of their rules.
//!
//! An event leaves the outbox only after its target answered 200, so a crash at any moment sends
//! it again, with the same event id. Every rule has a queue and a wait of its own. `share.rs` divides
//! the workers, so that a dead or slow target delays nobody else. A queue gets one worker for each
//! request under way; what they carried at the same time is noted together.

mod share;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde::Serialize;
use tokio::sync::Notify;

use crate::auth::signature::event_signature;
use crate::catalog::notifications::{self, Due, Event, Failed, Queue};
use crate::catalog::{Abort, Error as CatalogError, Tx, buckets};
use crate::domain::bucket::Bucket;
use crate::domain::event::{ATTEMPTS_MAX, EventRule, PATIENCE_MS, Target, retry_wait_ms};
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::time::{Millis, Steady};
use crate::domain::webhook::WebhookUrl;
use crate::jobs::deliver::share::{Claim, Flights};
use crate::operations::App;
use crate::operations::error::{Error, Fault};
use crate::operations::notifications::{allowed_url, open_target, stored_url};
use crate::outbound::{HookCall, HookError, HookFault, Webhooks};

/// The worker looks at least this often, in case a wake-up was lost.
const POLL: Duration = Duration::from_millis(500);
/// How often the events of suspended rules are looked through, in milliseconds.
const PRUNE_EVERY_MS: i64 = 60_000;
/// Events removed in one transaction.
const PRUNE_BATCH: i64 = 1000;
/// Queues that are read together while workers are free.
const DUE_PAGE: usize = 100;

/// Carries one delivery to its target; Ok means that the target answered 200.
pub(crate) trait Courier: Send + Sync {
    fn post(&self, call: HookCall) -> BoxFuture<'_, Result<(), HookError>>;
}

impl Courier for Webhooks {
    fn post(&self, call: HookCall) -> BoxFuture<'_, Result<(), HookError>> {
        self.send(call).boxed()
    }
}

/// The body of a delivery.
#[derive(Serialize)]
struct Body<'a> {
    events: Vec<EventJson<'a>>,
}

/// One event, its members in alphabetical order. A test event has no object.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventJson<'a> {
    account_id: AccountId,
    bucket_id: BucketId,
    bucket_name: &'a str,
    event_id: String,
    event_timestamp: i64,
    event_type: &'static str,
    event_version: u8,
    matched_rule_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_size: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_version_id: Option<&'a str>,
}

/// The same for every attempt, and for an event that a restored backup brings back: made of
/// this instance, what the event is about, when it was, and its type.
fn event_id(instance: &str, event: &Event) -> String {
    let subject = event.file.as_ref().map_or(event.number, |file| file.number.0);
    format!("{instance}{subject:016x}{:012x}{:02x}", event.occurred_at.0, event.kind.code())
}

/// What one attempt works with.
struct Load {
    queue: Queue,
    bucket: Bucket,
    rule: EventRule,
    /// What goes into one request each, at least one; none of them is empty.
    batches: Vec<Vec<Event>>,
}

/// Where the requests of an attempt go.
struct Hook {
    url: WebhookUrl,
    target: Target,
}

/// Events that a target has while the catalog may not know it.
#[derive(Debug, Default, Clone)]
struct Sent {
    /// The generation of the queue whose target it is.
    generation: i64,
    events: Vec<Event>,
}

/// What a look into a queue found.
enum Found {
    Work(Box<Load>),
    /// Nothing is due.
    Nothing,
    /// No enabled rule uses the queue.
    Unused,
}

/// The delivery of one server.
pub(crate) struct Delivery {
    app: Arc<App>,
    courier: Arc<dyn Courier>,
    /// Queues being worked on.
    in_flight: Mutex<Flights>,
    /// Queues whose last attempt came to no end that the catalog knows of.
    stuck: Mutex<BTreeMap<i64, Stuck>>,
    next_prune_ms: AtomicI64,
    stopping: AtomicBool,
    /// An attempt ended, or the worker was told to stop.
    changed: Notify,
}

/// What keeps a queue back whose attempt could not be noted: the catalog took no write, or a row
/// could not be read. Without it the same events would be sent as fast as the target takes them.
#[derive(Debug, Default)]
struct Stuck {
    /// Attempts in a row that ended so.
    failures: i64,
    /// No attempt before.
    until: Steady,
    /// The target has these; only the note of that is missing.
    sent: Sent,
}

/// Keeps a queue from being worked on twice; ends with the attempt, also when that panics.
struct Flight {
    delivery: Arc<Delivery>,
    queue: i64,
    /// Requests it may have under way at a time.
    workers: usize,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.delivery.flights().end(self.queue);
        // Both the look for work and whoever stops the worker may be waiting, or about to.
        self.delivery.changed.notify_waiters();
        self.delivery.changed.notify_one();
    }
}

impl Delivery {
    pub(crate) fn new(app: Arc<App>, courier: Arc<dyn Courier>, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            app,
            courier,
            in_flight: Mutex::new(Flights::of(workers)),
            stuck: Mutex::default(),
            next_prune_ms: AtomicI64::new(0),
            stopping: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, Flights> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stuck(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Stuck>> {
        self.stuck.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until [`Delivery::stop`].
    pub(crate) async fn run(self: Arc<Self>) {
        while !self.stopping.load(Ordering::SeqCst) {
            match self.round().await {
                Ok(true) => {}
                Ok(false) => self.wait().await,
                Err(error) => {
                    tracing::warn!(%error, "look for events to deliver");
                    self.wait().await;
                }
            }
        }
    }

    async fn wait(&self) {
        let woken = async {
            tokio::select! {
                () = self.changed.notified() => {}
                () = self.app.wake.events.notified() => {}
            }
        };
        // A wake-up that was lost costs one poll interval, nothing else.
        drop(tokio::time::timeout(POLL, woken).await);
    }

    /// Starts no further attempt and waits for those under way; what takes longer is sent again
    /// after the next start.
    pub(crate) async fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed.notify_one();
        let ended = async {
            while !self.flights().is_empty() {
                self.changed.notified().await;
            }
        };
        drop(tokio::time::timeout(patience, ended).await);
    }

    /// One look: prune, then start what is due. True when there may be more to do at once.
    async fn round(self: &Arc<Self>) -> Result<bool, Error> {
        let pruned = self.prune().await?;
        let picked = self.pick()?;
        let started = !picked.is_empty();
        for flight in picked {
            tokio::spawn(async move {
                if let Err(error) = flight.delivery.attempt(flight.queue, flight.workers).await {
                    // The events are still there; a later look finds them.
                    tracing::warn!(queue = flight.queue, error = chain(&error), "deliver events");
                }
            });
        }
        Ok(pruned || started)
    }

    /// Prunes, then makes one attempt for each queue that is due, one after the other; answers how
    /// many. For tests.
    #[cfg(test)]
    pub(crate) async fn step(self: &Arc<Self>) -> Result<usize, Error> {
        while self.prune().await? {}
        let picked = self.pick()?;
        let count = picked.len();
        for flight in picked {
            self.attempt(flight.queue, flight.workers).await?;
        }
        Ok(count)
    }

    /// Takes free workers for queues that are due.
    fn pick(self: &Arc<Self>) -> Result<Vec<Flight>, Error> {
        let now = self.app.waits.now();
        let mut picked = Vec::new();
        let mut mark = None;
        // Queues that may have no further worker stay due and stand first, so one page may hold
        // nothing else. Nobody but this function adds flights.
        while self.flights().any_free() {
            let limit = i64::try_from(DUE_PAGE).unwrap_or(i64::MAX);
            let page =
                self.app.catalog.read(|tx| Ok(notifications::list_due(tx, now, mark, limit)?))?;
            let stuck = self.stuck();
            let mut flights = self.flights();
            for Due { queue, account } in &page {
                if stuck.get(&queue.number).is_some_and(|stuck| stuck.until > now) {
                    continue;
                }
                let url = stored_url(&self.app.sealer, queue);
                let claim = Claim {
                    account: *account,
                    host: url.map(|url| url.host().to_owned()).unwrap_or_default(),
                    is_failing: queue.failures > 0,
                    waiting: usize::try_from(queue.waiting).unwrap_or(usize::MAX),
                };
                if flights.begin(queue.number, claim) {
                    picked.push(queue.number);
                }
            }
            mark = page.last().map(Due::mark);
            if page.len() < DUE_PAGE {
                break;
            }
        }
        let mut flights = self.flights();
        flights.widen(&picked);
        let flight = |queue| Flight {
            delivery: Arc::clone(self),
            queue,
            workers: flights.workers_of(queue),
        };
        Ok(picked.into_iter().map(flight).collect())
    }

    /// Removes a batch of events that nobody will be told of any more: those of rules that are gone
    /// or switched off, and what suspended rules have kept for too long. True when there may be
    /// more.
    async fn prune(&self) -> Result<bool, Error> {
        if self.app.catalog.read(|tx| Ok(notifications::any_retired(tx)?))? {
            let dropped = self
                .app
                .catalog
                .write("prune_notifications", |tx| {
                    Ok(notifications::prune_retired(tx, PRUNE_BATCH)?)
                })
                .await?;
            self.app.metrics.notification_dropped.add(dropped as u64);
            return Ok(true);
        }
        let now = self.app.waits.now();
        if now.0 < self.next_prune_ms.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let stale =
            self.app.catalog.read(|tx| Ok(notifications::list_stale(tx, now, PRUNE_BATCH)?))?;
        if stale.is_empty() {
            self.next_prune_ms.store(now.plus(PRUNE_EVERY_MS).0, Ordering::Relaxed);
            return Ok(false);
        }
        let dropped = stale.len() as u64;
        self.app
            .catalog
            .write("prune_notifications", move |tx| {
                for (queue, event) in &stale {
                    notifications::drop_event(tx, *queue, *event)?;
                }
                Ok(())
            })
            .await?;
        self.app.metrics.notification_dropped.add(dropped);
        Ok(true)
    }

    /// One attempt for a queue; one that cannot be noted holds the queue back.
    async fn attempt(&self, queue: i64, workers: usize) -> Result<(), Error> {
        let ended = self.attempt_once(queue, workers).await;
        let now = self.app.waits.now();
        let mut stuck = self.stuck();
        if ended.is_ok() {
            stuck.remove(&queue);
        } else {
            let stuck = stuck.entry(queue).or_default();
            stuck.failures += 1;
            stuck.until = now.plus(retry_wait_ms(stuck.failures));
        }
        ended
    }

    /// Notes what was sent before and not noted, then sends the oldest due events of a queue to the
    /// rule's target, in up to `workers` requests at the same time.
    async fn attempt_once(&self, queue: i64, workers: usize) -> Result<(), Error> {
        let sent = self.stuck().get(&queue).map(|stuck| stuck.sent.clone()).unwrap_or_default();
        if !sent.events.is_empty() {
            // Whatever it answers, there is nothing left to note.
            self.settle(queue, sent, None).await?;
        }
        let now = self.app.waits.now();
        match self.app.catalog.read(|tx| find_load(tx, queue, now, workers))? {
            Found::Work(load) => {
                let outcomes = match self.open_hook(&load.queue) {
                    Ok(hook) => {
                        let posts = load.batches.iter().map(|events| async {
                            self.courier.post(self.compose(&hook, &load, events)?).await
                        });
                        join_all(posts).await
                    }
                    Err(error) => vec![Err(error)],
                };
                self.settle_attempt(*load, outcomes).await
            }
            Found::Nothing => {
                let body = move |tx: &mut dyn Tx| Ok(notifications::look_again(tx, queue, now)?);
                Ok(self.app.catalog.write("look_again_at_events", body).await?)
            }
            Found::Unused => {
                let body = move |tx: &mut dyn Tx| Ok(notifications::retire_queue(tx, queue)?);
                Ok(self.app.catalog.write("retire_notifications", body).await?)
            }
        }
    }

    fn open_hook(&self, queue: &Queue) -> Result<Hook, HookError> {
        let target = open_target(&self.app.sealer, queue)
            .map_err(|error| HookError { fault: HookFault::Target, detail: chain(&error) })?;
        let url = allowed_url(&self.app, &target.url).map_err(|refusal| HookError {
            fault: HookFault::Forbidden,
            detail: refusal.message.into_owned(),
        })?;
        Ok(Hook { url, target })
    }

    /// The request for a delivery.
    fn compose(&self, hook: &Hook, load: &Load, events: &[Event]) -> Result<HookCall, HookError> {
        let body = serde_json::to_vec(&render(&self.app.instance, load, events));
        let body = body.map_err(|error| {
            let doing = "write events as JSON";
            let fault = Fault { doing, may_retry: false, source: Box::new(error) };
            HookError { fault: HookFault::Target, detail: chain(&fault) }
        })?;
        let mut headers = hook.target.custom_headers.clone().unwrap_or_default();
        if let Some(secret) = &hook.target.signing_secret {
            let signature = event_signature(secret, &body);
            headers.push(("X-Bz-Event-Notification-Signature".to_owned(), signature));
        }
        Ok(HookCall { url: hook.url.clone(), headers, body: Bytes::from(body) })
    }

    /// Decides what an attempt means for its events and for the rule. Only an attempt in which
    /// nothing got through says something about the target.
    async fn settle_attempt(
        &self,
        load: Load,
        outcomes: Vec<Result<(), HookError>>,
    ) -> Result<(), Error> {
        let now = self.app.waits.now();
        let Load { queue, bucket, rule, batches } = load;
        let mut delivered = Vec::new();
        let mut refused = Vec::new();
        let mut error = None;
        let mut requests_failed = 0;
        for (events, outcome) in batches.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => delivered.extend(events),
                Err(why) => {
                    requests_failed += 1;
                    refused.extend(events);
                    error = Some(why);
                }
            }
        }
        let (number, generation) = (queue.number, queue.generation);
        let sent = Sent { generation, events: delivered };
        let Some(error) = error else {
            self.settle(number, sent, None).await?;
            return Ok(());
        };
        let all_failed = sent.events.is_empty();
        let failures = queue.failures + 1;
        let suspended = all_failed && failures >= ATTEMPTS_MAX;
        let suspension_reason = if suspended {
            format!("Deliveries have failed for 24 hours, the last one because {}", error.fault)
        } else {
            String::new()
        };
        let failed = Failed {
            error: error.to_string(),
            again_at: now.plus(if suspended { PATIENCE_MS } else { retry_wait_ms(failures) }),
            suspension_reason,
        };
        // Others were delivered while these could not be: it is the event, not the target.
        let (hopeless, again): (Vec<Event>, Vec<Event>) =
            refused.into_iter().partition(|event| !suspended && event.failures + 1 >= ATTEMPTS_MAX);
        let setback = Setback {
            tried: all_failed.then_some(queue),
            failed,
            hopeless: hopeless.iter().map(|event| event.number).collect(),
            again: again
                .iter()
                .map(|event| (event.number, now.plus(retry_wait_ms(event.failures + 1))))
                .collect(),
        };
        self.app.metrics.notification_failures.add(requests_failed);
        if !self.settle(number, sent, Some(setback)).await? {
            return Ok(());
        }
        self.app.metrics.notification_dropped.add(hopeless.len() as u64);
        let (bucket, rule) = (bucket.name.as_str(), rule.name);
        if suspended {
            self.app.metrics.notification_suspensions.one();
            tracing::warn!(bucket, rule, %error, "an event notification rule is suspended");
        } else if failures == 1 || failures % 10 == 0 {
            tracing::warn!(bucket, rule, failures, %error, "events cannot be delivered");
        }
        Ok(())
    }

    /// Notes in one step what became of an attempt; false when the rule was set anew meanwhile, and
    /// what was tried says nothing about it.
    async fn settle(
        &self,
        queue: i64,
        sent: Sent,
        setback: Option<Setback>,
    ) -> Result<bool, Error> {
        let times = (self.app.clock.now(), self.app.waits.now());
        let delivered = sent.events.len() as u64;
        // Until it is noted, and should this attempt end in between.
        self.stuck().entry(queue).or_default().sent.clone_from(&sent);
        let body = move |tx: &mut dyn Tx| Ok(settle(tx, queue, &sent, setback.as_ref(), times)?);
        let settled = self.app.catalog.write("settle_events", body).await?;
        self.stuck().entry(queue).or_default().sent = Sent::default();
        if settled {
            self.app.metrics.notification_delivered.add(delivered);
        }
        Ok(settled)
    }
}

/// What follows from the requests of an attempt that failed.
struct Setback {
    /// The queue as it was when nothing got through; None when something did.
    tried: Option<Queue>,
    failed: Failed,
    /// Events to give up.
    hopeless: Vec<i64>,
    /// Events with when they are tried again.
    again: Vec<(i64, Steady)>,
}

fn settle(
    tx: &mut dyn Tx,
    queue: i64,
    sent: &Sent,
    setback: Option<&Setback>,
    times: (Millis, Steady),
) -> Result<bool, CatalogError> {
    let now = times.1;
    let mut earliest = now;
    if !sent.events.is_empty() {
        let seen = (queue, sent.generation);
        if !notifications::settle_delivered(tx, seen, &sent.events, times)? {
            return Ok(false);
        }
    }
    if let Some(Setback { tried, failed, hopeless, again }) = setback {
        if let Some(tried) = tried {
            if !notifications::settle_failed(tx, tried, failed, now)? {
                return Ok(false);
            }
            earliest = failed.again_at;
        } else {
            notifications::note_error(tx, queue, &failed.error)?;
        }
        for &event in hopeless {
            notifications::drop_event(tx, queue, event)?;
        }
        for &(event, at) in again {
            notifications::postpone_event(tx, queue, event, at)?;
        }
    }
    notifications::look_again(tx, queue, earliest)?;
    Ok(true)
}

fn find_load(tx: &mut dyn Tx, number: i64, now: Steady, workers: usize) -> Result<Found, Abort> {
    let Some(queue) = notifications::find_queue(tx, number)? else { return Ok(Found::Nothing) };
    if !queue.suspension_reason.is_empty() {
        return Ok(Found::Nothing);
    }
    let bucket = buckets::find_by_id(tx, queue.bucket)?;
    let Some(bucket) = bucket else { return Ok(Found::Unused) };
    let known = bucket.settings.notifications.iter().find(|known| known.queue == number);
    let Some(rule) = known.map(|known| known.rule.clone()).filter(|rule| rule.is_enabled) else {
        return Ok(Found::Unused);
    };
    // One request finds out whether a target is back.
    let requests_max = if queue.failures > 0 { 1 } else { workers.max(1) };
    let limit = rule.batch_max() * i64::try_from(requests_max).unwrap_or(i64::MAX);
    let events = notifications::list_due_events(tx, number, now, limit)?;
    let batches = batches(events, rule.batch_max(), requests_max);
    if batches.is_empty() {
        return Ok(Found::Nothing);
    }
    Ok(Found::Work(Box::new(Load { queue, bucket, rule, batches })))
}

/// Puts events into requests, in order. An event that failed before goes alone, so that one a target
/// chokes on holds up no other.
fn batches(events: Vec<Event>, batch_max: i64, requests_max: usize) -> Vec<Vec<Event>> {
    let batch_max = usize::try_from(batch_max).unwrap_or(1);
    let mut batches: Vec<Vec<Event>> = Vec::new();
    let mut takes_more = false;
    for event in events {
        let failed_before = event.failures > 0;
        let made = batches.len();
        match batches.last_mut() {
            Some(last) if takes_more && !failed_before && last.len() < batch_max => {
                last.push(event);
            }
            _ if made == requests_max => break,
            _ => {
                takes_more = !failed_before;
                batches.push(vec![event]);
            }
        }
    }
    batches
}

fn render<'a>(instance: &str, load: &'a Load, events: &'a [Event]) -> Body<'a> {
    let event = |event: &'a Event| {
        let file = event.file.as_ref();
        EventJson {
            account_id: load.bucket.account,
            bucket_id: load.bucket.id,
            bucket_name: load.bucket.name.as_str(),
            event_id: event_id(instance, event),
            event_timestamp: event.occurred_at.0,
            event_type: event.kind.as_str(),
            event_version: 1,
            matched_rule_name: &load.rule.name,
            object_name: file.map(|file| file.name.as_str()),
            object_size: file.map(|file| file.size),
            object_version_id: file.map(|file| file.id.as_str()),
        }
    };
    Body { events: events.iter().map(event).collect() }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
