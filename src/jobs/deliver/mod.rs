//! The delivery of event notifications: takes events out of the catalog's outbox and carries them
//! to the targets of their rules.
//!
//! An event leaves the outbox only after its target answered 200, so a crash at any moment sends
//! it again, with the same event id. Every rule has a queue and a wait of its own, and queues that
//! have been failing get at most half of the workers, so that a dead target delays nobody else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::Notify;

use crate::auth::signature::event_signature;
use crate::catalog::notifications::{self, Event, Failed, Queue};
use crate::catalog::{Abort, Tx, buckets};
use crate::domain::bucket::Bucket;
use crate::domain::event::{EventRule, PATIENCE_MS, retry_wait_ms};
use crate::domain::ids::{AccountId, BucketId};
use crate::domain::time::Steady;
use crate::domain::webhook::WebhookUrl;
use crate::operations::App;
use crate::operations::error::{Error, Fault};
use crate::operations::notifications::open_target;
use crate::outbound::{HookCall, HookError, HookFault, Webhooks};

/// The worker looks at least this often, in case a wake-up was lost.
const POLL: Duration = Duration::from_millis(500);
/// How often the events of suspended rules are looked through, in milliseconds.
const PRUNE_EVERY_MS: i64 = 60_000;
/// Events removed in one transaction.
const PRUNE_BATCH: i64 = 1000;

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
    /// Attempts under way at a time.
    workers: usize,
    /// Queues being worked on, with whether they have been failing.
    in_flight: Mutex<BTreeMap<i64, bool>>,
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
    sent: Vec<Event>,
}

/// Keeps a queue from being worked on twice; ends with the attempt, also when that panics.
struct Flight {
    delivery: Arc<Delivery>,
    queue: i64,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.delivery.flights().remove(&self.queue);
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
            workers: workers.max(1),
            in_flight: Mutex::default(),
            stuck: Mutex::default(),
            next_prune_ms: AtomicI64::new(0),
            stopping: AtomicBool::new(false),
            changed: Notify::new(),
        })
    }

    fn flights(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, bool>> {
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
                if let Err(error) = flight.delivery.attempt(flight.queue).await {
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
            self.attempt(flight.queue).await?;
        }
        Ok(count)
    }

    /// Takes free workers for queues that are due.
    fn pick(self: &Arc<Self>) -> Result<Vec<Flight>, Error> {
        let busy = self.flights().len();
        if busy >= self.workers {
            return Ok(Vec::new());
        }
        let now = self.app.waits.now();
        // Queues in flight are due too, so they may fill a part of the list.
        let limit = i64::try_from(self.workers + busy).unwrap_or(i64::MAX);
        let due = self.app.catalog.read(|tx| Ok(notifications::list_due(tx, now, limit)?))?;
        let stuck = self.stuck();
        let mut flights = self.flights();
        let mut failing_room = (self.workers / 2).max(1);
        failing_room = failing_room.saturating_sub(flights.values().filter(|is| **is).count());
        let mut picked = Vec::new();
        for one in due {
            if flights.len() >= self.workers {
                break;
            }
            let is_held = stuck.get(&one.queue).is_some_and(|stuck| stuck.until > now);
            if is_held || flights.contains_key(&one.queue) || (one.is_failing && failing_room == 0)
            {
                continue;
            }
            failing_room -= usize::from(one.is_failing);
            flights.insert(one.queue, one.is_failing);
            picked.push(Flight { delivery: Arc::clone(self), queue: one.queue });
        }
        Ok(picked)
    }

    /// Removes a batch of events that nobody will be told of any more: those of rules that are gone
    /// or switched off, and what suspended rules have kept for too long. True when there may be
    /// more.
    async fn prune(&self) -> Result<bool, Error> {
        if self.app.catalog.read(|tx| Ok(notifications::any_retired(tx)?))? {
            self.app
                .catalog
                .write("prune_notifications", |tx| {
                    Ok(notifications::prune_retired(tx, PRUNE_BATCH)?)
                })
                .await?;
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
    async fn attempt(&self, queue: i64) -> Result<(), Error> {
        let ended = self.attempt_once(queue).await;
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
    /// rule's target.
    async fn attempt_once(&self, queue: i64) -> Result<(), Error> {
        let sent = self.stuck().get(&queue).map(|stuck| stuck.sent.clone()).unwrap_or_default();
        if !sent.is_empty() {
            self.settle_delivered(queue, sent).await?;
        }
        let now = self.app.waits.now();
        match self.app.catalog.read(|tx| find_load(tx, queue, now))? {
            Found::Work(load) => {
                let sent = match self.compose(&load) {
                    Ok(call) => self.courier.post(call).await,
                    Err(error) => Err(error),
                };
                match sent {
                    Ok(()) => self.settle_delivered(queue, load.events).await,
                    Err(error) => self.settle_failed(*load, error).await,
                }
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

    /// The request for a delivery.
    fn compose(&self, load: &Load) -> Result<HookCall, HookError> {
        let broken = |detail: String| HookError { fault: HookFault::Target, detail };
        let target =
            open_target(&self.app.sealer, &load.queue).map_err(|error| broken(chain(&error)))?;
        let url = WebhookUrl::parse(&target.url, self.app.policy.webhooks).map_err(|refusal| {
            HookError { fault: HookFault::Forbidden, detail: refusal.message.into_owned() }
        })?;
        let body = serde_json::to_vec(&render(&self.app.instance, load)).map_err(|error| {
            broken(chain(&Fault {
                doing: "write events as JSON",
                may_retry: false,
                source: Box::new(error),
            }))
        })?;
        let mut headers = target.custom_headers.unwrap_or_default();
        if let Some(secret) = &target.signing_secret {
            let signature = event_signature(secret, &body);
            headers.push(("X-Bz-Event-Notification-Signature".to_owned(), signature));
        }
        Ok(HookCall { url, headers, body: Bytes::from(body) })
    }

    async fn settle_delivered(&self, queue: i64, events: Vec<Event>) -> Result<(), Error> {
        let times = (self.app.clock.now(), self.app.waits.now());
        let delivered = events.len() as u64;
        // Until it is noted, and should this attempt end in between.
        self.stuck().entry(queue).or_default().sent.clone_from(&events);
        self.app
            .catalog
            .write("events_delivered", move |tx| {
                Ok(notifications::settle_delivered(tx, queue, &events, times)?)
            })
            .await?;
        self.stuck().entry(queue).or_default().sent.clear();
        self.app.metrics.notification_delivered.add(delivered);
        Ok(())
    }

    /// Decides what a failed attempt means for the events in it and for the rule.
    async fn settle_failed(&self, load: Load, error: HookError) -> Result<(), Error> {
        let now = self.app.waits.now();
        let is_over = |since: Option<Steady>| since.is_some_and(|at| at.plus(PATIENCE_MS) <= now);
        let Load { queue, bucket, rule, events } = load;
        let suspended = is_over(queue.failing_since);
        let failures = queue.failures + 1;
        let suspension_reason = if suspended {
            format!("Deliveries have failed for 24 hours, the last one because {}", error.fault)
        } else {
            String::new()
        };
        let failed = Failed {
            generation: queue.generation,
            error: error.to_string(),
            again_at: now.plus(if suspended { PATIENCE_MS } else { retry_wait_ms(failures) }),
            suspension_reason,
        };
        let number = queue.number;
        // Others were delivered while these could not be: it is the event, not the target.
        let (hopeless, again): (Vec<Event>, Vec<Event>) =
            events.into_iter().partition(|event| !suspended && is_over(event.failing_since));
        let hopeless: Vec<i64> = hopeless.iter().map(|event| event.number).collect();
        let again: Vec<(i64, Steady)> = again
            .iter()
            .map(|event| (event.number, now.plus(retry_wait_ms(event.failures + 1))))
            .collect();
        let dropped = hopeless.len() as u64;
        let settled = self
            .app
            .catalog
            .write("events_failed", move |tx| {
                if !notifications::settle_failed(tx, number, &failed, now)? {
                    return Ok(false);
                }
                for &event in &hopeless {
                    notifications::drop_event(tx, number, event)?;
                }
                for &(event, at) in &again {
                    notifications::postpone_event(tx, number, event, at, now)?;
                }
                notifications::look_again(tx, number, failed.again_at)?;
                Ok(true)
            })
            .await?;
        self.app.metrics.notification_failures.one();
        if !settled {
            return Ok(());
        }
        self.app.metrics.notification_dropped.add(dropped);
        let (bucket, rule) = (bucket.name.as_str(), rule.name);
        if suspended {
            self.app.metrics.notification_suspensions.one();
            tracing::warn!(bucket, rule, %error, "an event notification rule is suspended");
        } else if failures == 1 || failures % 10 == 0 {
            tracing::warn!(bucket, rule, failures, %error, "events cannot be delivered");
        }
        Ok(())
    }
}

fn find_load(tx: &mut dyn Tx, number: i64, now: Steady) -> Result<Found, Abort> {
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
    let mut events = notifications::list_due_events(tx, number, now, rule.batch_max())?;
    // An event that failed before goes alone, so that one a target chokes on holds up no other.
    let together = match events.first() {
        None => return Ok(Found::Nothing),
        Some(first) if first.failures > 0 => 1,
        Some(_) => events.iter().take_while(|event| event.failures == 0).count(),
    };
    events.truncate(together);
    Ok(Found::Work(Box::new(Load { queue, bucket, rule, events })))
}

fn render<'a>(instance: &str, load: &'a Load) -> Body<'a> {
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
    Body { events: load.events.iter().map(event).collect() }
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
