//! The figures of replication streams in the Prometheus text format: InfluxDB's names first, ours
//! beside them (replication.md B9).

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use crate::api::admin::health::seconds;
use crate::metrics::StreamFigures;
use crate::operations::stream_figures::{StreamView, StreamsView};

type Value = fn(&StreamView) -> u64;

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// InfluxDB's series, all with the label `replicationID`.
const INFLUX: [(&str, &str, Value); 7] = [
    ("replications_queue_total_points_queued", "counter", |view| view.figures.files_queued.value()),
    ("replications_queue_total_bytes_queued", "counter", |view| view.figures.bytes_queued.value()),
    ("replications_queue_current_bytes_queued", "gauge", |view| {
        unsigned(view.stream.sums.remaining_bytes)
    }),
    ("replications_queue_remote_write_bytes_sent", "counter", |view| {
        view.figures.bytes_sent.value()
    }),
    ("replications_queue_remote_write_bytes_dropped", "counter", |view| {
        view.figures.bytes_dropped.value()
    }),
    ("replications_queue_points_failed_to_queue", "counter", |view| {
        view.figures.files_failed_to_queue.value()
    }),
    ("replications_queue_bytes_failed_to_queue", "counter", |view| {
        view.figures.bytes_failed_to_queue.value()
    }),
];

/// Ours, all with the label `stream`.
const OURS: [(&str, &str, Value); 12] = [
    ("kiln_replication_stream_files_sent_total", "counter", |view| view.figures.files_sent.value()),
    ("kiln_replication_stream_expired_total", "counter", |view| view.figures.expired.value()),
    ("kiln_replication_stream_adopted_total", "counter", |view| view.figures.adopted.value()),
    ("kiln_replication_stream_resumed_parts_total", "counter", |view| {
        view.figures.resumed_parts.value()
    }),
    ("kiln_replication_stream_restarted_sessions_total", "counter", |view| {
        view.figures.restarted_sessions.value()
    }),
    ("kiln_replication_stream_spilled_total", "counter", |view| view.figures.spilled.value()),
    ("kiln_replication_stream_spill_pending", "gauge", |view| unsigned(view.stream.sums.spilled)),
    ("kiln_replication_stream_queue_files", "gauge", |view| unsigned(view.stream.sums.entries)),
    ("kiln_replication_stream_queue_bytes", "gauge", |view| {
        unsigned(view.stream.sums.current_bytes)
    }),
    ("kiln_replication_stream_queue_limit_bytes", "gauge", |view| {
        unsigned(view.stream.max_queue_bytes)
    }),
    ("kiln_replication_stream_inflight", "gauge", |view| unsigned(view.in_flight)),
    ("kiln_replication_stream_paused", "gauge", |view| u64::from(view.stream.is_paused)),
];

/// Writes the series of all streams.
pub(crate) fn write(text: &mut String, view: &StreamsView) {
    write_all(text, view).unwrap_or_default();
}

fn write_all(text: &mut String, view: &StreamsView) -> std::fmt::Result {
    for (label, series) in [("replicationID", &INFLUX[..]), ("stream", &OURS[..])] {
        for (name, kind, value) in series {
            writeln!(text, "# TYPE {name} {kind}")?;
            for one in &view.streams {
                writeln!(text, "{name}{{{label}=\"{}\"}} {}", one.stream.id, value(one))?;
            }
        }
    }
    let errors = "replications_queue_remote_write_errors";
    writeln!(text, "# TYPE {errors} counter")?;
    for one in &view.streams {
        for (code, count) in one.figures.errors() {
            let id = one.stream.id;
            writeln!(text, "{errors}{{replicationID=\"{id}\",code=\"{code}\"}} {count}")?;
        }
    }
    let oldest = "kiln_replication_stream_oldest_pending_seconds";
    writeln!(text, "# TYPE {oldest} gauge")?;
    for one in &view.streams {
        let waited = seconds(one.oldest_pending_ms);
        writeln!(text, "{oldest}{{stream=\"{}\"}} {waited}", one.stream.id)?;
    }
    let drift = "kiln_replication_accounting_drift_bytes";
    writeln!(text, "# TYPE {drift} gauge")?;
    for one in &view.streams {
        let StreamFigures { drift_bytes, .. } = &*one.figures;
        let bytes = drift_bytes.load(Ordering::Relaxed);
        writeln!(text, "{drift}{{stream=\"{}\"}} {bytes}", one.stream.id)?;
    }
    writeln!(text, "# TYPE kiln_replication_breaker_state gauge")?;
    for one in &view.targets {
        let (target, state) = (&one.target, one.breaker.as_number());
        writeln!(text, "kiln_replication_breaker_state{{target=\"{target}\"}} {state}")?;
    }
    writeln!(
        text,
        "# TYPE kiln_replication_orphan_sessions gauge\n\
         kiln_replication_orphan_sessions {}\n\
         # TYPE influxdb_remotes_total gauge\ninfluxdb_remotes_total {}\n\
         # TYPE influxdb_replications_total gauge\ninfluxdb_replications_total {}",
        view.orphans,
        view.remotes,
        view.streams.len()
    )
}
