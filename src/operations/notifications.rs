//! Event notifications: the rules of a bucket, the events that file changes leave behind for them,
//! and what operators see of both.
//!
//! An event is written by the transaction that changes the file, so that it is there exactly when
//! the change is; the worker in `jobs` carries it to the rule's target later.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::auth::caller::{Caller, Grant};
use crate::auth::sealing::Sealer;
use crate::catalog::notifications::{self, Enqueued, EventFile, Queue};
use crate::catalog::{Error as CatalogError, Tx, buckets};
use crate::domain::bucket::Bucket;
use crate::domain::capability::Capability;
use crate::domain::event::{EventRule, EventType, QueuedRule, Target, WantedRule, check_rules};
use crate::domain::file::FileVersion;
use crate::domain::ids::BucketId;
use crate::domain::key::Secret;
use crate::domain::refusal::{Refusal, bad_request, no_such_bucket};
use crate::domain::webhook::{TargetPolicy, WebhookUrl};
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::authorize::{bucket_of_caller, parse_bucket_id};
use crate::operations::buckets::bucket_named;
use crate::operations::effects::Moment;
use crate::operations::error::{Error, Fault};

/// A rule with everything that answers show.
#[derive(Clone, Debug)]
pub(crate) struct ShownRule {
    pub(crate) rule: EventRule,
    pub(crate) target: Target,
    /// Empty while the rule is not suspended.
    pub(crate) suspension_reason: String,
}

/// What is sealed of a target.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SealedForm {
    url: String,
    custom_headers: Option<Vec<(String, String)>>,
    signing_secret: Option<String>,
}

/// Binds a sealed target to its rule.
fn owner(bucket: BucketId, rule_name: &str) -> String {
    format!("notification_target.{bucket}.{rule_name}")
}

fn unusable(error: serde_json::Error) -> Fault {
    Fault { doing: "read a notification target", may_retry: false, source: Box::new(error) }
}

fn seal_target(
    app: &App,
    bucket: BucketId,
    rule_name: &str,
    target: &Target,
) -> Result<Vec<u8>, Error> {
    let form = SealedForm {
        url: target.url.clone(),
        custom_headers: target.custom_headers.clone(),
        signing_secret: target.signing_secret.as_ref().map(|secret| secret.expose().to_owned()),
    };
    let text = serde_json::to_vec(&form).map_err(unusable)?;
    Ok(app.sealer.seal(&owner(bucket, rule_name), &text, &*app.entropy)?)
}

/// Opens the target of a queue.
pub(crate) fn open_target(sealer: &Sealer, queue: &Queue) -> Result<Target, Error> {
    let text = sealer.open(&owner(queue.bucket, &queue.rule_name), &queue.sealed_target)?;
    let form: SealedForm = serde_json::from_slice(&text).map_err(unusable)?;
    Ok(Target {
        url: form.url,
        custom_headers: form.custom_headers,
        signing_secret: form.signing_secret.map(Secret::new),
    })
}

/// Reads the address of a target as far as the operator lets rules reach.
pub(crate) fn allowed_url(app: &App, text: &str) -> Result<WebhookUrl, Refusal> {
    let url = WebhookUrl::parse(text, app.policy.webhooks)?;
    if app.policy.public_url.as_deref().is_some_and(|own| url.leads_to(own)) {
        return Err(bad_request("url must not name this server"));
    }
    Ok(url)
}

/// Where a queue's events go, allowed or not; None when its target cannot be read.
pub(crate) fn stored_url(sealer: &Sealer, queue: &Queue) -> Option<WebhookUrl> {
    let open = TargetPolicy { allow_private: true, allow_http: true };
    open_target(sealer, queue).ok().and_then(|target| WebhookUrl::parse(&target.url, open).ok())
}

/// A rule as it is shown, with the generation of its queue.
struct StoredRule {
    shown: ShownRule,
    generation: i64,
}

/// The rules of a bucket as they are now, with their targets.
fn read_rules(app: &App, bucket: BucketId) -> Result<Vec<StoredRule>, Error> {
    let found = app.catalog.read(|tx| {
        let bucket = buckets::find_by_id(tx, bucket)?.ok_or_else(|| no_such_bucket(&bucket))?;
        let mut rules = Vec::with_capacity(bucket.settings.notifications.len());
        for QueuedRule { queue, rule } in bucket.settings.notifications {
            let queue = notifications::find_queue(tx, queue)?
                .ok_or(CatalogError::Unreadable { what: "queue of a notification rule" })?;
            rules.push((rule, queue));
        }
        Ok(rules)
    })?;
    found
        .into_iter()
        .map(|(rule, queue)| {
            let target = open_target(&app.sealer, &queue)?;
            let suspension_reason = queue.suspension_reason;
            let shown = ShownRule { rule, target, suspension_reason };
            Ok(StoredRule { shown, generation: queue.generation })
        })
        .collect()
}

/// The event notification rules of a bucket, in the order of their names.
pub(crate) fn bucket_rules(
    app: &App,
    caller: &Caller,
    bucket_id: &str,
) -> Result<(BucketId, Vec<ShownRule>), Error> {
    let capability = Capability::ReadBucketNotifications;
    let grant = grant(app, caller, capability, bucket_id)?;
    let rules = read_rules(app, grant.bucket.id)?;
    Ok((grant.bucket.id, rules.into_iter().map(|stored| stored.shown).collect()))
}

fn grant(
    app: &App,
    caller: &Caller,
    capability: Capability,
    bucket_id: &str,
) -> Result<Grant, Error> {
    caller.require(capability)?;
    let id = parse_bucket_id(bucket_id)?;
    caller.require_bucket(capability, id)?;
    Ok(Grant::for_bucket(&caller.key, capability, bucket_of_caller(app, caller, id)?)?)
}

/// A rule on its way into the catalog.
struct PreparedRule {
    rule: EventRule,
    sealed_target: Vec<u8>,
    /// The generation of the queue that has the same target already.
    same_since: Option<i64>,
    /// New, changed, or suspended until now: its target gets a test event.
    is_news: bool,
}

/// Replaces the event notification rules of a bucket. Each enabled rule starts afresh: it is no
/// longer suspended, and a new or changed one sends a test event. What waits for a rule stays as
/// long as a rule of that name is enabled.
pub(crate) async fn set_bucket_rules(
    app: &App,
    caller: &Caller,
    bucket_id: &str,
    wanted: Vec<WantedRule>,
) -> Result<(BucketId, Vec<ShownRule>), Error> {
    let grant = grant(app, caller, Capability::WriteBucketNotifications, bucket_id)?;
    let rules = check_rules(wanted, app.policy.webhooks)?;
    let id = grant.bucket.id;
    let before: BTreeMap<String, StoredRule> =
        read_rules(app, id)?.into_iter().map(|old| (old.shown.rule.name.clone(), old)).collect();
    let mut prepared = Vec::with_capacity(rules.len());
    for (rule, target) in &rules {
        allowed_url(app, &target.url)?;
        let same = before.get(&rule.name).filter(|old| old.shown.target == *target);
        let is_known = same
            .is_some_and(|old| old.shown.rule == *rule && old.shown.suspension_reason.is_empty());
        prepared.push(PreparedRule {
            rule: rule.clone(),
            sealed_target: seal_target(app, id, &rule.name, target)?,
            same_since: same.map(|old| old.generation),
            is_news: !is_known,
        });
    }
    let moment = Moment::of(app);
    let tests = app
        .catalog
        .write("set_bucket_notification_rules", move |tx| {
            let mut bucket = buckets::find_by_id(tx, id)?.ok_or_else(|| no_such_bucket(&id))?;
            let tests = replace_rules(tx, &mut bucket, &prepared, moment)?;
            buckets::update_bucket(tx, &bucket)?;
            Ok(tests)
        })
        .await?;
    app.metrics.notification_events.add(tests);
    app.wake.events.notify_one();
    let shown = |(rule, target)| ShownRule { rule, target, suspension_reason: String::new() };
    Ok((id, rules.into_iter().map(shown).collect()))
}

/// Gives each rule its queue and ends the queues that no rule uses any more; answers how many test
/// events wait now.
fn replace_rules(
    tx: &mut dyn Tx,
    bucket: &mut Bucket,
    prepared: &[PreparedRule],
    moment: Moment,
) -> Result<u64, CatalogError> {
    let mut old = std::mem::take(&mut bucket.settings.notifications);
    let mut tests = 0;
    for PreparedRule { rule, sealed_target, same_since, is_news } in prepared {
        // A rule that is or was switched off has nothing to keep.
        let kept = old.iter().position(|known| {
            known.rule.name == rule.name && known.rule.is_enabled && rule.is_enabled
        });
        let queue = if let Some(at) = kept {
            let queue = old.swap_remove(at).queue;
            notifications::renew_queue(tx, queue, sealed_target, *same_since, moment.steady)?;
            queue
        } else {
            let (id, name, at) = (bucket.id, &rule.name, moment.steady);
            notifications::insert_queue(tx, id, name, sealed_target, at)?
        };
        if rule.is_enabled && *is_news {
            let enqueued = enqueue(tx, queue, EventType::Test, None, moment)?;
            tests += u64::from(enqueued == Enqueued::Waits);
        }
        bucket.settings.notifications.push(QueuedRule { queue, rule: rule.clone() });
    }
    for gone in old {
        notifications::retire_queue(tx, gone.queue)?;
    }
    Ok(tests)
}

/// Ends the queues of a bucket that is being deleted.
pub(crate) fn forget_bucket(tx: &mut dyn Tx, bucket: &Bucket) -> Result<(), CatalogError> {
    for known in &bucket.settings.notifications {
        notifications::retire_queue(tx, known.queue)?;
    }
    Ok(())
}

/// What became of the event of a file change; None when no rule asks for it.
pub(crate) type Noted = Option<Enqueued>;

/// Leaves an event behind for the rule that asks for it, if there is one: part of the transaction
/// that changes the file. `bucket` is as that transaction sees it. No two rules can ask for the
/// same event.
pub(crate) fn note(
    tx: &mut dyn Tx,
    bucket: &Bucket,
    kind: EventType,
    version: &FileVersion,
    moment: Moment,
) -> Result<Noted, CatalogError> {
    let rules = &bucket.settings.notifications;
    let asking = rules.iter().find(|known| known.rule.matches(kind, version.name.as_str()));
    let Some(QueuedRule { queue, .. }) = asking else { return Ok(None) };
    let file = EventFile {
        number: version.number,
        id: version.id().to_string(),
        name: version.name.as_str().to_owned(),
        size: i64::try_from(version.size).map_err(|_| CatalogError::Unreadable { what: "size" })?,
    };
    enqueue(tx, *queue, kind, Some(&file), moment).map(Some)
}

fn enqueue(
    tx: &mut dyn Tx,
    queue: i64,
    kind: EventType,
    file: Option<&EventFile>,
    moment: Moment,
) -> Result<Enqueued, CatalogError> {
    let (queue_max, times) = (moment.event_queue_max, (moment.now, moment.steady));
    notifications::enqueue(tx, queue, kind, file, queue_max, times)
}

/// Counts what [`note`] did and wakes the worker, after the commit.
pub(crate) fn follow_up(app: &App, noted: Noted) {
    match noted {
        Some(Enqueued::Waits) => {
            app.metrics.notification_events.one();
            app.wake.events.notify_one();
        }
        Some(Enqueued::Dropped) => app.metrics.notification_dropped.one(),
        None => {}
    }
}

/// Which queues a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueQuery {
    pub(crate) bucket_name: Option<String>,
    pub(crate) after: Option<i64>,
    pub(crate) limit: Option<usize>,
}

/// A queue as operators see it.
#[derive(Clone)]
pub(crate) struct ShownQueue {
    pub(crate) queue: Queue,
    pub(crate) bucket_name: Option<String>,
    pub(crate) is_enabled: bool,
    /// Host and port; the rest of an address may be a secret.
    pub(crate) host: Option<String>,
}

/// One page of queues.
#[derive(Clone)]
pub(crate) struct QueuePage {
    pub(crate) queues: Vec<ShownQueue>,
    pub(crate) next_after: Option<i64>,
}

/// Queues of a page at most.
const PAGE_MAX: usize = 1000;

/// Lists the rules with what waits for them, oldest first.
pub(crate) fn list_queues(
    app: &App,
    _operator: &Operator,
    query: &QueueQuery,
) -> Result<QueuePage, Error> {
    let bucket = query.bucket_name.as_deref().map(|name| bucket_named(app, name)).transpose()?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(bad_request(format!("limit must be between 1 and {PAGE_MAX}")).into());
    }
    let after = query.after.unwrap_or(0);
    let wanted = i64::try_from(limit).unwrap_or(100) + 1;
    let mut found = app.catalog.read(|tx| {
        let queues =
            notifications::list_queues(tx, bucket.as_ref().map(|known| known.id), after, wanted)?;
        let mut found = Vec::with_capacity(queues.len());
        for queue in queues {
            let bucket = buckets::find_by_id(tx, queue.bucket)?;
            found.push((queue, bucket));
        }
        Ok(found)
    })?;
    let more = found.len() > limit;
    found.truncate(limit);
    let queues: Vec<ShownQueue> = found
        .into_iter()
        .map(|(queue, bucket)| {
            let rules = bucket.iter().flat_map(|bucket| &bucket.settings.notifications);
            let mut own = rules.filter(|known| known.queue == queue.number);
            let url = stored_url(&app.sealer, &queue);
            ShownQueue {
                is_enabled: own.next().is_some_and(|known| known.rule.is_enabled),
                bucket_name: bucket.as_ref().map(|bucket| bucket.name.as_str().to_owned()),
                host: url.map(|url| url.host_and_port()),
                queue,
            }
        })
        .collect();
    let next_after = if more { queues.last().map(|last| last.queue.number) } else { None };
    Ok(QueuePage { queues, next_after })
}

/// How many events wait, and how many rules are suspended.
pub(crate) fn count_queues(app: &App) -> Result<(i64, i64), Error> {
    Ok(app.catalog.read(|tx| Ok(notifications::count(tx)?))?)
}
