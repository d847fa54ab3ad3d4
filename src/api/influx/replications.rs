//! The calls about replication streams.

use serde_json::{Value, json};

use crate::api::influx::wire::{
    Body, list, moment, only_validates, opt_parameter, render_stream, steady,
};
use crate::api::influx::{Answer, Call, Reply};
use crate::domain::capability::Capability;
use crate::domain::refusal::{bad_request, missing_field};
use crate::domain::stream::StreamOptions;
use crate::domain::stream_diff::Finding;
use crate::domain::time::Millis;
use crate::operations::authorize::bucket_of_name;
use crate::operations::error::Error;
use crate::operations::streams::{
    self, DiffItem, FilesQuery, NewStream, Resync, ResyncCounts, RetryWhat, ShownFile,
    StreamChange, StreamFilter, parse_id, parse_remote_id,
};

pub(super) async fn list_all(call: Call) -> Reply {
    let filter = StreamFilter {
        org_id: opt_parameter(&call.query, "orgID")?,
        name: opt_parameter(&call.query, "name")?,
        remote: opt_parameter(&call.query, "remoteID")?,
        local_bucket: opt_parameter(&call.query, "localBucketID")?,
    };
    let listed = streams::list(call.app(), &call.caller, &filter)?;
    Ok(Answer::ok(list("replications", listed.iter().map(render_stream).collect())))
}

/// The id of the bucket that a stream carries from: InfluxDB names it by its id, we also by its name.
fn local_bucket(call: &Call, body: &Body) -> Result<String, Error> {
    if let Some(id) = body.opt_text("localBucketID")? {
        return Ok(id);
    }
    let name = body.opt_text("localBucketName")?.ok_or_else(|| missing_field("localBucketID"))?;
    let bucket = bucket_of_name(call.app(), &call.caller, Capability::ReadFiles, &name)?;
    Ok(bucket.id.to_string())
}

pub(super) async fn create(call: Call) -> Reply {
    let only_validates = only_validates(&call.query)?;
    let body = Body::required(&call.body)?;
    let wanted = NewStream {
        org_id: body.opt_text("orgID")?.unwrap_or_default(),
        name: body.text("name")?,
        description: body.opt_text("description")?,
        remote: parse_remote_id(&body.text("remoteID")?)?,
        local_bucket: local_bucket(&call, &body)?,
        remote_bucket_id: body.opt_text("remoteBucketID")?,
        remote_bucket_name: body.remote_bucket_name()?,
        max_queue_bytes: body.opt_int("maxQueueSizeBytes")?,
        max_age_s: body.opt_int("maxAgeSeconds")?,
        drop_non_retryable: body.opt_flag("dropNonRetryableData")?.unwrap_or_default(),
        options: StreamOptions::default().with(&body.fields_of::<StreamOptions>()?)?,
        is_paused: body.opt_flag("paused")?.unwrap_or_default(),
    };
    if only_validates {
        streams::validate_new(call.app(), call.network()?, &call.caller, wanted).await?;
        return Ok(Answer::nothing());
    }
    let made = streams::create(call.app(), &call.caller, wanted).await?;
    Ok(Answer::created(render_stream(&made)))
}

pub(super) async fn find(call: Call) -> Reply {
    let found = streams::get(call.app(), &call.caller, parse_id(&call.id)?)?;
    Ok(Answer::ok(render_stream(&found)))
}

pub(super) async fn update(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let only_validates = only_validates(&call.query)?;
    let body = Body::required(&call.body)?;
    let change = StreamChange {
        name: body.opt_text("name")?,
        description: body.opt_any_text("description")?,
        remote: body.opt_text("remoteID")?.map(|id| parse_remote_id(&id)).transpose()?,
        remote_bucket_id: body.opt_text("remoteBucketID")?,
        remote_bucket_name: body.remote_bucket_name()?,
        max_queue_bytes: body.opt_int("maxQueueSizeBytes")?,
        max_age_s: body.opt_int("maxAgeSeconds")?,
        drop_non_retryable: body.opt_flag("dropNonRetryableData")?,
        options: body.fields_of::<StreamOptions>()?,
        is_paused: body.opt_flag("paused")?,
    };
    if only_validates {
        streams::validate_change(call.app(), call.network()?, &call.caller, id, change).await?;
        return Ok(Answer::nothing());
    }
    let changed = streams::update(call.app(), &call.caller, id, change).await?;
    Ok(Answer::ok(render_stream(&changed)))
}

pub(super) async fn delete(call: Call) -> Reply {
    streams::delete(call.app(), &call.caller, parse_id(&call.id)?).await?;
    Ok(Answer::nothing())
}

pub(super) async fn validate(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    streams::validate(call.app(), call.network()?, &call.caller, id).await?;
    Ok(Answer::nothing())
}

pub(super) async fn pause(call: Call) -> Reply {
    set_paused(&call, true).await
}

pub(super) async fn resume(call: Call) -> Reply {
    set_paused(&call, false).await
}

async fn set_paused(call: &Call, is_paused: bool) -> Reply {
    let id = parse_id(&call.id)?;
    let set = streams::set_paused(call.app(), &call.caller, id, is_paused).await?;
    Ok(Answer::ok(render_stream(&set)))
}

pub(super) async fn retry(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let body = Body::optional(&call.body)?;
    let what = RetryWhat {
        file_ids: body.opt_texts("fileIds")?.unwrap_or_default(),
        state: body.opt_text("state")?,
    };
    let retried = streams::retry(call.app(), &call.caller, id, what).await?;
    Ok(Answer::ok(json!({"retried": retried})))
}

pub(super) async fn resync(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let body = Body::optional(&call.body)?;
    let older_than = body.opt_text("olderThan")?.map(|text| {
        Millis::from_iso(&text)
            .ok_or_else(|| bad_request("olderThan must be a moment such as 2026-01-31T00:00:00Z"))
    });
    let what = Resync {
        older_than: older_than.transpose()?,
        prefix: body.opt_text("prefix")?.unwrap_or_default(),
        is_dry_run: body.opt_flag("dryRun")?.unwrap_or_default(),
    };
    let counts = streams::resync(call.app(), &call.caller, id, what).await?;
    let ResyncCounts { scan_id, .. } = counts;
    Ok(Answer::ok(match scan_id {
        // What a walk finds is not known before it has gone its way.
        Some(scan_id) => json!({"scanId": scan_id}),
        None => json!({
            "arrivedBytes": counts.arrived_bytes,
            "arrivedFiles": counts.arrived_files,
            "bytes": counts.bytes,
            "files": counts.files,
            "scanId": null,
            "skippedFiles": counts.skipped_files,
            "waitingFiles": counts.waiting_files,
        }),
    }))
}

pub(super) async fn purge(call: Call) -> Reply {
    let purged = streams::purge(call.app(), &call.caller, parse_id(&call.id)?).await?;
    Ok(Answer::ok(json!({"purged": purged})))
}

pub(super) async fn files(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let limit = call.query.opt_int("limit")?;
    let query = FilesQuery {
        state: opt_parameter(&call.query, "state")?,
        after: call.query.opt_int("after")?,
        // What is no size of a page is refused as one that is too large.
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
    };
    let page = streams::files(call.app(), &call.caller, id, &query)?;
    let shown: Vec<Value> = page.files.iter().map(render_file).collect();
    Ok(Answer::ok(json!({"files": shown, "nextAfter": page.next_after})))
}

fn render_file(ShownFile { file, is_blocked }: &ShownFile) -> Value {
    json!({
        "attempts": file.attempts,
        "blocked": is_blocked,
        "bytesConfirmed": file.confirmed,
        "contentLength": file.size,
        "enqueuedAt": steady(Some(file.enqueued_at)),
        "error": file.last_error,
        "fileId": file.file_id,
        "fileName": file.file_name,
        "finishedAt": steady(file.finished_at),
        "jobId": file.job_id,
        "latestResponseCode": file.last_status,
        "nextAttemptAt": steady(Some(file.next_attempt_at).filter(|_| file.finished_at.is_none())),
        "partsDone": file.parts_done,
        "partsTotal": file.parts_total,
        "reason": file.last_reason,
        "remoteFileId": file.remote_file_id,
        "state": file.state.as_str(),
    })
}

pub(super) async fn diff(call: Call) -> Reply {
    let id = parse_id(&call.id)?;
    let from = opt_parameter(&call.query, "from")?;
    let page =
        streams::diff(call.app(), call.network()?, &call.caller, id, from.as_deref()).await?;
    let found: Vec<Value> = page.items.iter().map(render_difference).collect();
    Ok(Answer::ok(json!({
        "compared": page.compared,
        "differences": found,
        "nextFrom": page.next,
    })))
}

fn render_difference(item: &DiffItem) -> Value {
    json!({
        "contentLength": item.size,
        "difference": match item.finding {
            Finding::Same => "same",
            Finding::Missing => "missing",
            Finding::Different => "different",
        },
        "fileId": item.file_id,
        "fileName": item.file_name,
        "remoteFileName": item.remote_name,
        "state": item.state.map(crate::domain::replication::JobState::as_str),
        "uploadedAt": moment(Some(item.upload_at)),
    })
}
