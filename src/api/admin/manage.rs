//! Performs administration commands, for the admin listener and for the command line alike.

use serde_json::{Value, json};

use crate::api::admin::command::AdminCommand;
use crate::api::native::unwritable;
use crate::api::native::wire::ApiVersion;
use crate::domain::ids::AccountId;
use crate::domain::lock::{Belief, LockTimes};
use crate::domain::refusal::{Refusal, bad_request, shorten};
use crate::domain::usage::{Caps, CapsChange};
use crate::operations::App;
use crate::operations::accounts::{self, Operator};
use crate::operations::buckets::bucket_named;
use crate::operations::error::Error;
use crate::operations::key_ring;
use crate::operations::keys::{self, NewKey};
use crate::operations::lifecycle::{self, Counts, Preview};
use crate::operations::lock_clock;
use crate::operations::notifications::{self, QueuePage, QueueQuery};
use crate::operations::replication_jobs::{self, JobPage, JobQuery, RetryQuery};
use crate::operations::usage::{self, AccountUsage, BucketUsage};

/// Days of usage that are shown when nobody says how many.
const USAGE_DAYS: i64 = 30;

/// Commands speak the newest version.
const VERSION: ApiVersion = ApiVersion(4);

/// Performs one command and answers with the field names of B2.
pub(crate) async fn perform(
    app: &App,
    operator: &Operator,
    command: AdminCommand,
) -> Result<Value, Error> {
    match command {
        AdminCommand::CreateAccount { name } => {
            let made = accounts::create_account(app, &name, None).await?;
            Ok(json!({
                "accountId": made.id,
                "applicationKey": made.secret.expose(),
                "applicationKeyId": made.id,
                "name": made.name,
            }))
        }
        AdminCommand::ListAccounts => {
            let listed = accounts::list_accounts(app)?;
            let shown: Vec<Value> = listed
                .iter()
                .map(|account| {
                    json!({
                        "accountId": account.id,
                        "buckets": account.buckets,
                        "createdTimestamp": account.created_at.0,
                        "name": account.name,
                    })
                })
                .collect();
            Ok(json!({"accounts": shown}))
        }
        AdminCommand::ShowCaps { account_id } => {
            change_caps(app, operator, account_id.as_deref(), CapsChange::default()).await
        }
        AdminCommand::ChangeCaps {
            account_id,
            storage_bytes,
            download_bytes_per_day,
            class_a_per_day,
            class_b_per_day,
            class_c_per_day,
        } => {
            let change = CapsChange {
                storage_bytes,
                download_bytes_per_day,
                class_a_per_day,
                class_b_per_day,
                class_c_per_day,
            };
            change_caps(app, operator, account_id.as_deref(), change).await
        }
        AdminCommand::ShowUsage { account_id, days } => {
            let wanted = account_id.as_deref().map(|id| account(app, Some(id))).transpose()?;
            let listed =
                usage::list_usage(app, operator, wanted, days.unwrap_or(USAGE_DAYS)).await?;
            let shown: Vec<Value> = listed.iter().map(render_usage).collect();
            Ok(json!({"accounts": shown}))
        }
        AdminCommand::RecountUsage => {
            let recount = usage::recount(app, operator).await?;
            let differences: Vec<Value> = recount
                .differences
                .iter()
                .map(|(counted, recounted)| {
                    json!({"counted": stored(counted), "recounted": stored(recounted)})
                })
                .collect();
            Ok(json!({"buckets": recount.buckets, "differences": differences}))
        }
        AdminCommand::CreateKey {
            account_id,
            key_name,
            capabilities,
            bucket_names,
            name_prefix,
            valid_duration_in_seconds,
        } => {
            let account = account(app, account_id.as_deref())?;
            let mut buckets = Vec::with_capacity(bucket_names.len());
            for name in &bucket_names {
                buckets.push(bucket_named(app, name)?.id.to_string());
            }
            let wanted = NewKey {
                name: key_name,
                capabilities,
                buckets: (!buckets.is_empty()).then_some(buckets),
                name_prefix,
                duration_s: valid_duration_in_seconds,
                version: VERSION.0,
            };
            let (key, secret) =
                keys::create_key_as_operator(app, operator, account, wanted).await?;
            Ok(serde_json::to_value(VERSION.key(&key, Some(&secret))).map_err(unwritable)?)
        }
        AdminCommand::ListKeys { account_id } => {
            let account = account(app, account_id.as_deref())?;
            let listed = keys::list_keys_as_operator(app, operator, account)?;
            let shown: Vec<_> = listed.iter().map(|key| VERSION.key(key, None)).collect();
            Ok(json!({"keys": shown}))
        }
        AdminCommand::DeleteKey { application_key_id } => {
            let key = keys::delete_key_as_operator(app, operator, &application_key_id).await?;
            Ok(serde_json::to_value(VERSION.key(&key, None)).map_err(unwritable)?)
        }
        AdminCommand::ListRingKeys => {
            let listed = key_ring::list_ring(app, operator)?;
            let shown: Vec<Value> = listed
                .iter()
                .map(|key| {
                    json!({
                        "blobs": key.blobs,
                        "createdTimestamp": key.facts.made_at.0,
                        "isCurrent": key.facts.is_current,
                        "ringKey": key.facts.number,
                    })
                })
                .collect();
            Ok(json!({"ringKeys": shown}))
        }
        AdminCommand::AddRingKey => {
            Ok(json!({"ringKey": key_ring::add_ring_key(app, operator).await?}))
        }
        AdminCommand::Rewrap { after } => {
            let step = key_ring::rewrap(app, operator, after.as_deref()).await?;
            Ok(json!({
                "failed": step.failed, "nextAfter": step.next, "rewrapped": step.done,
            }))
        }
        AdminCommand::RetireRingKeys => {
            Ok(json!({"retired": key_ring::retire_ring_keys(app, operator).await?}))
        }
        AdminCommand::ListReplicationJobs { state, bucket_name, after, limit } => {
            let query = JobQuery { state, bucket_name, after, limit };
            Ok(render_jobs(&replication_jobs::list_jobs(app, operator, &query)?))
        }
        AdminCommand::ListNotifications { bucket_name, after, limit } => {
            let query = QueueQuery { bucket_name, after, limit };
            Ok(render_queues(&notifications::list_queues(app, operator, &query)?))
        }
        AdminCommand::RetryReplicationJobs { job_id, bucket_name, reason } => {
            let query = RetryQuery { job_id, bucket_name, reason };
            let retried = replication_jobs::retry_jobs(app, operator, query).await?;
            Ok(json!({"retried": retried}))
        }
        AdminCommand::PreviewLifecycle { bucket_name, limit } => {
            let preview = lifecycle::preview(app, operator, &bucket_name, limit).await?;
            Ok(render_preview(&preview, &bucket_name))
        }
        AdminCommand::RunLifecycle { bucket_name } => {
            let done = lifecycle::run(app, operator, &bucket_name).await?;
            Ok(json!({
                "bucketName": bucket_name,
                "counts": render_counts(done.unwrap_or_default()),
                "hasLifecycleRules": done.is_some(),
            }))
        }
        AdminCommand::ShowClock => Ok(render_clock(lock_clock::show(app, operator))),
        AdminCommand::ConfirmClock => Ok(render_clock(lock_clock::confirm(app, operator).await?)),
    }
}

fn render_clock(times: LockTimes) -> Value {
    json!({
        "aheadMillis": times.ahead_ms(),
        "behindMillis": times.behind_ms(),
        "isBelieved": times.belief() == Belief::Believed,
        "locksRunTo": times.locks_run_to.0,
        "now": times.now.0,
    })
}

fn account(app: &App, given: Option<&str>) -> Result<AccountId, Error> {
    let Some(given) = given else { return accounts::first_account(app) };
    let parsed = AccountId::parse(given);
    parsed.ok_or_else(|| Refusal::into(bad_request(format!("no such account: {}", shorten(given)))))
}

fn render_counts(counts: Counts) -> Value {
    json!({"canceled": counts.canceled, "deleted": counts.deleted, "hidden": counts.hidden})
}

fn render_preview(preview: &Preview, bucket_name: &str) -> Value {
    let acts: Vec<Value> = preview
        .acts
        .iter()
        .map(|due| {
            json!({
                "action": due.act.as_str(),
                "contentLength": due.size,
                "fileId": due.id,
                "fileName": due.name,
                "uploadTimestamp": due.id.upload_at.0,
            })
        })
        .collect();
    json!({
        "acts": acts,
        "bucketName": bucket_name,
        "counts": render_counts(preview.counts),
        "deletedContentLength": preview.bytes,
        "hasLifecycleRules": preview.has_rules,
    })
}

async fn change_caps(
    app: &App,
    operator: &Operator,
    given: Option<&str>,
    change: CapsChange,
) -> Result<Value, Error> {
    let account = account(app, given)?;
    let caps = usage::change_caps(app, operator, account, change).await?;
    Ok(json!({"accountId": account, "caps": render_caps(&caps)}))
}

fn render_caps(caps: &Caps) -> Value {
    json!({
        "classAPerDay": caps.class_a_per_day,
        "classBPerDay": caps.class_b_per_day,
        "classCPerDay": caps.class_c_per_day,
        "downloadBytesPerDay": caps.download_bytes_per_day,
        "storageBytes": caps.storage_bytes,
    })
}

fn stored(bucket: &BucketUsage) -> Value {
    json!({
        "bucketId": bucket.bucket,
        "bucketName": bucket.name,
        "fileVersions": bucket.stored.versions,
        "storedBytes": bucket.stored.bytes,
    })
}

fn render_usage(usage: &AccountUsage) -> Value {
    let days: Vec<Value> = usage
        .days
        .iter()
        .map(|(day, counts)| {
            json!({
                "classA": counts.class_a,
                "classB": counts.class_b,
                "classC": counts.class_c,
                "day": day.to_string(),
                "downloadedBytes": counts.downloaded_bytes,
                "uploadedBytes": counts.uploaded_bytes,
            })
        })
        .collect();
    let total = |of: fn(&BucketUsage) -> i64| usage.buckets.iter().map(of).sum::<i64>();
    json!({
        "accountId": usage.account,
        "buckets": usage.buckets.iter().map(stored).collect::<Vec<_>>(),
        "caps": render_caps(&usage.caps),
        "days": days,
        "fileVersions": total(|bucket| bucket.stored.versions),
        "name": usage.name,
        "storedBytes": total(|bucket| bucket.stored.bytes),
    })
}

fn render_jobs(page: &JobPage) -> Value {
    let jobs: Vec<Value> = page
        .jobs
        .iter()
        .map(|job| {
            json!({
                "attempts": job.attempts,
                "destinationBucketId": job.rule().map(|rule| rule.destination),
                "destinationBucketName":
                    job.rule().and_then(|rule| page.bucket_names.get(&rule.destination)),
                "destinationFileId": job.dest_file_id,
                "enqueuedTimestamp": job.enqueued_at.0,
                "error": job.last_error,
                "fileId": job.file_id,
                "fileName": job.file_name,
                "finishedTimestamp": job.finished_at.map(|at| at.0),
                "jobId": job.id,
                "origin": job.origin.as_str(),
                "reason": job.last_reason,
                "replicationRuleName": job.rule().map(|rule| &rule.rule_name),
                "sourceBucketName": page.bucket_names.get(&job.source_bucket),
                "state": job.state.as_str(),
            })
        })
        .collect();
    json!({"jobs": jobs, "nextAfter": page.next_after})
}

fn render_queues(page: &QueuePage) -> Value {
    let rules: Vec<Value> = page
        .queues
        .iter()
        .map(|shown| {
            let queue = &shown.queue;
            let is_due = queue.waiting > 0 && queue.suspension_reason.is_empty();
            json!({
                "bucketId": queue.bucket,
                "bucketName": shown.bucket_name,
                "delivered": queue.delivered,
                "dropped": queue.dropped,
                "error": queue.last_error,
                "failedAttempts": queue.failures,
                "failingSinceTimestamp": queue.failing_since.map(|at| at.0),
                "isEnabled": shown.is_enabled,
                "isSuspended": !queue.suspension_reason.is_empty(),
                "lastDeliveredTimestamp": queue.delivered_at.map(|at| at.0),
                "nextAttemptTimestamp": is_due.then_some(queue.next_attempt_at.0),
                "queueId": queue.number,
                "ruleName": queue.rule_name,
                "suspensionReason": queue.suspension_reason,
                "target": shown.host,
                "waiting": queue.waiting,
            })
        })
        .collect();
    json!({"nextAfter": page.next_after, "rules": rules})
}
