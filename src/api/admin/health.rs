//! Whether the server lives, whether it should get work, and its figures.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;

use crate::api::admin::stream_metrics;
use crate::api::{Http, influx};
use crate::metrics::Histogram;
use crate::operations::accounts::first_account;
use crate::operations::notifications::count_queues;
use crate::operations::replication_jobs::{count_jobs, oldest_pending_ms};
use crate::operations::stream_figures::view_streams;

/// The process answers.
pub(crate) fn healthz() -> HttpResponse {
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "application/json")).body("{\"status\":\"ok\"}")
}

/// The server can keep what it is given: neither store is suspect and the catalog can be read.
pub(crate) fn readyz(http: &Http) -> HttpResponse {
    let app = &http.app;
    let trouble = app
        .catalog
        .suspect()
        .or_else(|| app.blobs.suspect())
        .or_else(|| first_account(app).err().map(|error| error.to_string()));
    match trouble {
        None => HttpResponse::Ok()
            .insert_header((CONTENT_TYPE, "application/json"))
            .body("{\"status\":\"ready\"}"),
        // The cause stands in the log; here it would be readable by anybody.
        Some(_) => HttpResponse::ServiceUnavailable()
            .insert_header((CONTENT_TYPE, "application/json"))
            .body("{\"status\":\"storage failure, see the log\"}"),
    }
}

/// All counters in the Prometheus text format.
pub(crate) async fn metrics(http: &Http) -> HttpResponse {
    let app = &http.app;
    let (metrics, figures, blobs) = (&app.metrics, app.catalog.figures(), &app.blob_metrics);
    let counters = [
        ("kiln_api_requests_total", metrics.requests.value()),
        ("kiln_api_refusals_total", metrics.refusals.value()),
        ("kiln_api_faults_total", metrics.faults.value()),
        ("kiln_uploads_total", metrics.uploads.value()),
        ("kiln_uploads_bytes_total", metrics.upload_bytes.value()),
        ("kiln_downloads_total", metrics.downloads.value()),
        ("kiln_catalog_commits_total", figures.commits.load(Ordering::Relaxed)),
        ("kiln_catalog_bodies_total", figures.bodies.load(Ordering::Relaxed)),
        ("kiln_replication_jobs_total", metrics.replication_jobs.value()),
        ("kiln_replication_done_total", metrics.replication_done.value()),
        ("kiln_replication_failed_total", metrics.replication_failed.value()),
        ("kiln_replication_retries_total", metrics.replication_retries.value()),
        ("kiln_replication_fenced_total", metrics.replication_fenced.value()),
        ("kiln_replication_received_total", metrics.replication_received.value()),
        ("kiln_replication_loops_refused_total", metrics.replication_loops.value()),
        ("kiln_replication_missed_threshold_total", metrics.replication_missed_threshold.value()),
        ("kiln_replication_late_total", metrics.replication_late.value()),
        ("kiln_replication_orphans_left_total", metrics.orphan_sessions.value()),
        ("kiln_sweep_blobs_total", metrics.swept_blobs.value()),
        ("kiln_lifecycle_walks_total", metrics.lifecycle_walks.value()),
        ("kiln_lifecycle_hidden_total", metrics.lifecycle_hidden.value()),
        ("kiln_lifecycle_deleted_total", metrics.lifecycle_deleted.value()),
        ("kiln_lifecycle_canceled_total", metrics.lifecycle_canceled.value()),
        ("kiln_notifications_events_total", metrics.notification_events.value()),
        ("kiln_notifications_delivered_total", metrics.notification_delivered.value()),
        ("kiln_notifications_failures_total", metrics.notification_failures.value()),
        ("kiln_notifications_dropped_total", metrics.notification_dropped.value()),
        ("kiln_notifications_suspensions_total", metrics.notification_suspensions.value()),
        ("kiln_blobs_written_total", blobs.written_blobs.load(Ordering::Relaxed)),
        ("kiln_blobs_written_bytes_total", blobs.written_bytes.load(Ordering::Relaxed)),
        ("kiln_blobs_opened_total", blobs.opened_blobs.load(Ordering::Relaxed)),
        ("kiln_blobs_removed_total", blobs.removed_blobs.load(Ordering::Relaxed)),
        ("kiln_blobs_read_bytes_total", blobs.read_bytes.load(Ordering::Relaxed)),
        ("kiln_blobs_failures_total", blobs.failures.load(Ordering::Relaxed)),
    ];
    let mut text = format!(
        "# TYPE kiln_info gauge\nkiln_info{{version=\"{}\",region=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION"),
        http.settings.region
    );
    for (name, value) in counters {
        // Writing to a String cannot fail.
        writeln!(text, "# TYPE {name} counter\n{name} {value}").unwrap_or_default();
    }
    writeln!(
        text,
        "# TYPE kiln_replication_skipped_total counter\n\
         kiln_replication_skipped_total{{reason=\"large_metadata\"}} {}\n\
         kiln_replication_skipped_total{{reason=\"sse_c\"}} {}",
        metrics.replication_skipped_large_metadata.value(),
        metrics.replication_skipped_customer_key.value()
    )
    .unwrap_or_default();
    let times = app.lock_clock.times(&*app.clock);
    for (name, value) in
        [("kiln_clock_ahead_ms", times.ahead_ms()), ("kiln_clock_behind_ms", times.behind_ms())]
    {
        writeln!(text, "# TYPE {name} gauge\n{name} {value}").unwrap_or_default();
    }
    writeln!(text, "# TYPE kiln_replication_jobs gauge").unwrap_or_default();
    for (state, count) in count_jobs(app).await.unwrap_or_default() {
        writeln!(text, "kiln_replication_jobs{{state=\"{}\"}} {count}", state.as_str())
            .unwrap_or_default();
    }
    let oldest_ms = oldest_pending_ms(app).unwrap_or_default();
    writeln!(
        text,
        "# TYPE kiln_replication_oldest_pending_seconds gauge\n\
         kiln_replication_oldest_pending_seconds {}",
        seconds(oldest_ms)
    )
    .unwrap_or_default();
    write_lag(&mut text, &metrics.replication_lag);
    stream_metrics::write(&mut text, &view_streams(app).unwrap_or_default());
    influx::figures::write(&mut text, &metrics.stream_calls);
    let (waiting, suspended) = count_queues(app).unwrap_or_default();
    writeln!(
        text,
        "# TYPE kiln_notifications_waiting_events gauge\n\
         kiln_notifications_waiting_events {waiting}\n\
         # TYPE kiln_notifications_suspended_rules gauge\n\
         kiln_notifications_suspended_rules {suspended}"
    )
    .unwrap_or_default();
    HttpResponse::Ok().insert_header((CONTENT_TYPE, "text/plain; version=0.0.4")).body(text)
}

/// Milliseconds as seconds, without loss.
pub(crate) fn seconds(span_ms: u64) -> String {
    format!("{}.{:03}", span_ms / 1000, span_ms % 1000)
}

fn write_lag(text: &mut String, lag: &Histogram) {
    const NAME: &str = "kiln_replication_lag_seconds";
    let up_to = lag.up_to();
    writeln!(text, "# TYPE {NAME} histogram").unwrap_or_default();
    for (bound_ms, count) in Histogram::BOUNDS_MS.into_iter().zip(&up_to) {
        let bound = seconds(bound_ms);
        writeln!(text, "{NAME}_bucket{{le=\"{bound}\"}} {count}").unwrap_or_default();
    }
    let count = up_to.last().copied().unwrap_or_default();
    writeln!(text, "{NAME}_bucket{{le=\"+Inf\"}} {count}").unwrap_or_default();
    writeln!(text, "{NAME}_sum {}", seconds(lag.sum_ms())).unwrap_or_default();
    writeln!(text, "{NAME}_count {count}").unwrap_or_default();
}
