//! What operators see of replication, and what they can do about failures.

use std::collections::BTreeMap;

use crate::catalog::replication::{self, Job, JobFilter, Pending};
use crate::catalog::{Abort, Tx, buckets};
use crate::domain::ids::BucketId;
use crate::domain::refusal::{Refusal, bad_request, shorten};
use crate::domain::replication::{JobState, rule_of_retry};
use crate::domain::time::{Millis, Steady};
use crate::operations::App;
use crate::operations::accounts::Operator;
use crate::operations::buckets::bucket_named;
use crate::operations::error::Error;

/// Which jobs a listing shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobQuery {
    pub(crate) state: Option<String>,
    pub(crate) bucket_name: Option<String>,
    pub(crate) after: Option<i64>,
    pub(crate) limit: Option<usize>,
}

/// One page of jobs with the names of the buckets in them.
#[derive(Clone, Debug)]
pub(crate) struct JobPage {
    pub(crate) jobs: Vec<Job>,
    pub(crate) bucket_names: BTreeMap<BucketId, String>,
    pub(crate) next_after: Option<i64>,
}

/// Jobs of a page at most.
const PAGE_MAX: usize = 1000;

/// Reads the state of a job that a caller names.
pub(crate) fn parse_state(text: &str) -> Result<JobState, Refusal> {
    let known = JobState::ALL.map(JobState::as_str).join(", ");
    JobState::parse(text)
        .ok_or_else(|| bad_request(format!("unknown state {}: use one of {known}", shorten(text))))
}

/// Lists jobs, oldest first.
pub(crate) fn list_jobs(
    app: &App,
    _operator: &Operator,
    query: &JobQuery,
) -> Result<JobPage, Error> {
    let state = query.state.as_deref().map(parse_state).transpose()?;
    let source_bucket =
        query.bucket_name.as_deref().map(|name| bucket_named(app, name)).transpose()?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(bad_request(format!("limit must be between 1 and {PAGE_MAX}")).into());
    }
    let filter = JobFilter {
        state,
        source_bucket: source_bucket.map(|bucket| bucket.id),
        reason: None,
        stream: None,
        after: query.after.unwrap_or(0),
    };
    let (mut jobs, bucket_names) = app.catalog.read(|tx| {
        let wanted = i64::try_from(limit).unwrap_or(100) + 1;
        let jobs = replication::list_jobs(tx, &filter, wanted)?;
        let mut names = BTreeMap::new();
        let destination = |job: &Job| job.rule().map(|rule| rule.destination);
        for id in jobs.iter().flat_map(|job| [Some(job.source_bucket), destination(job)]).flatten()
        {
            if let std::collections::btree_map::Entry::Vacant(place) = names.entry(id)
                && let Some(bucket) = buckets::find_by_id(tx, id)?
            {
                place.insert(bucket.name.as_str().to_owned());
            }
        }
        Ok((jobs, names))
    })?;
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next_after = if more { jobs.last().map(|job| job.id) } else { None };
    Ok(JobPage { jobs, bucket_names, next_after })
}

/// Counting jobs takes at most one part in so many of the time, however many there are.
const COUNTING_SHARE: i64 = 100;

/// How many jobs are in each state, as they were counted last.
#[derive(Default)]
pub(crate) struct JobCounts(tokio::sync::Mutex<Counted>);

#[derive(Default)]
struct Counted {
    jobs: Vec<(JobState, i64)>,
    /// Monotonic time from which they are counted anew; None before they were counted at all.
    good_until: Option<Millis>,
}

/// How many jobs are in each state. Counting looks at every job there is, so counts are good for a
/// hundred times as long as counting took.
pub(crate) async fn count_jobs(app: &App) -> Result<Vec<(JobState, i64)>, Error> {
    // One counts, and whoever asks meanwhile waits for it.
    let mut counted = app.job_counts.0.lock().await;
    let begun = app.clock.monotonic();
    if counted.good_until.is_none_or(|until| begun >= until) {
        counted.jobs = app.catalog.scan(|tx| Ok(replication::count_by_state(tx)?)).await?;
        let ended = app.clock.monotonic();
        counted.good_until = Some(ended.plus((ended.0 - begun.0) * COUNTING_SHARE));
    }
    Ok(counted.jobs.clone())
}

/// How long the oldest unfinished job has waited, in milliseconds; 0 when none waits.
pub(crate) fn oldest_pending_ms(app: &App) -> Result<u64, Error> {
    let oldest = app.catalog.read(|tx| Ok(replication::list_pending(tx, 0, 1)?))?;
    let waited = |job: &Pending| app.waits.now().0 - job.enqueued_at.0;
    Ok(u64::try_from(oldest.first().map_or(0, waited)).unwrap_or_default())
}

/// Which failed jobs shall be tried again.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetryQuery {
    pub(crate) job_id: Option<i64>,
    pub(crate) bucket_name: Option<String>,
    pub(crate) reason: Option<String>,
}

/// Makes a failed job ready again. It goes by the bucket's rule and source key of today when there is
/// still a rule that leads to its destination: the key it began with cannot be mended, only replaced.
fn reopen(tx: &mut dyn Tx, job: &Job, now: Steady) -> Result<bool, Abort> {
    let Some(route) = job.rule() else { return Ok(replication::retry_stream_job(tx, job, now)?) };
    let bucket = buckets::find_by_id(tx, job.source_bucket)?;
    let source = bucket.and_then(|bucket| bucket.settings.replication.as_replication_source);
    let anew = source.as_ref().and_then(|source| {
        let rules = &source.replication_rules;
        let rule = rule_of_retry(rules, &route.rule_name, route.destination, &job.file_name)?;
        Some((source.source_application_key_id.as_str(), rule.name.as_str()))
    });
    Ok(replication::retry(tx, job, anew, now)?)
}

/// Makes failed jobs ready again and answers how many; their files are pending from then on.
pub(crate) async fn retry_jobs(
    app: &App,
    _operator: &Operator,
    query: RetryQuery,
) -> Result<u64, Error> {
    let source_bucket =
        query.bucket_name.as_deref().map(|name| bucket_named(app, name)).transpose()?;
    let now = app.waits.now();
    if let Some(id) = query.job_id {
        app.catalog
            .write("retry_replication_job", move |tx| {
                let job = replication::find_job(tx, id)?
                    .ok_or_else(|| Abort::Refused(bad_request(format!("no such job: {id}"))))?;
                if !reopen(tx, &job, now)? {
                    return Err(bad_request(format!(
                        "job {id} is {}, only failed jobs can be retried",
                        job.state.as_str()
                    ))
                    .into());
                }
                Ok(())
            })
            .await?;
        app.wake.replication.notify_one();
        return Ok(1);
    }
    let mut filter = JobFilter {
        state: Some(JobState::Failed),
        source_bucket: source_bucket.map(|bucket| bucket.id),
        reason: query.reason,
        stream: None,
        after: 0,
    };
    let mut retried = 0;
    loop {
        let batch_filter = filter.clone();
        // In batches, so that a long list does not hold up the writers of the whole server.
        let (last, reopened) = app
            .catalog
            .write("retry_replication_jobs", move |tx| {
                let batch = replication::list_jobs(tx, &batch_filter, 500)?;
                let mut reopened = 0;
                for job in &batch {
                    reopened += u64::from(reopen(tx, job, now)?);
                }
                Ok((batch.last().map(|job| job.id), reopened))
            })
            .await?;
        retried += reopened;
        match last {
            Some(id) => filter.after = id,
            None => break,
        }
    }
    app.wake.replication.notify_one();
    Ok(retried)
}
