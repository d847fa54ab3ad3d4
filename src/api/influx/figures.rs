//! The figures of calls about remotes and streams, under the names that InfluxDB gives them.

use crate::metrics::{Calls, Histogram};

/// Milliseconds as seconds, without loss.
fn seconds(span_ms: u64) -> String {
    format!("{}.{:03}", span_ms / 1000, span_ms % 1000)
}

/// Writes the figures in the Prometheus text format: `service_remote_...` and
/// `service_replication_...`, each series by the method of the service.
pub(crate) fn write(text: &mut String, calls: &Calls) {
    let calls = calls.all();
    for service in ["remote", "replication"] {
        let of_service = || calls.iter().filter(|((of, _), _)| *of == service);
        let name = format!("service_{service}");
        let mut line = |line: String| {
            text.push_str(&line);
            text.push('\n');
        };
        line(format!("# TYPE {name}_call_total counter"));
        for ((_, method), figures) in of_service() {
            let total = figures.calls.value();
            line(format!("{name}_call_total{{method=\"{method}\"}} {total}"));
        }
        line(format!("# TYPE {name}_error_total counter"));
        for ((_, method), figures) in of_service() {
            for (code, total) in figures.errors() {
                let labels = format!("method=\"{method}\",code=\"{code}\"");
                line(format!("{name}_error_total{{{labels}}} {total}"));
            }
        }
        line(format!("# TYPE {name}_duration histogram"));
        for ((_, method), figures) in of_service() {
            let up_to = figures.took.up_to();
            for (bound_ms, count) in Histogram::BOUNDS_MS.into_iter().zip(&up_to) {
                let labels = format!("method=\"{method}\",le=\"{}\"", seconds(bound_ms));
                line(format!("{name}_duration_bucket{{{labels}}} {count}"));
            }
            let count = up_to.last().copied().unwrap_or_default();
            let labels = format!("method=\"{method}\"");
            line(format!("{name}_duration_bucket{{{labels},le=\"+Inf\"}} {count}"));
            line(format!("{name}_duration_sum{{{labels}}} {}", seconds(figures.took.sum_ms())));
            line(format!("{name}_duration_count{{{labels}}} {count}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_method_and_errors_by_code() {
        let calls = Calls::default();
        let figures = calls.of(("remote", "find_remotes"));
        for took_ms in [0, 700] {
            figures.calls.one();
            figures.took.observe(took_ms);
        }
        figures.failed("invalid");
        let mut text = String::new();
        write(&mut text, &calls);
        for line in [
            "# TYPE service_remote_call_total counter",
            "service_remote_call_total{method=\"find_remotes\"} 2",
            "service_remote_error_total{method=\"find_remotes\",code=\"invalid\"} 1",
            "service_remote_duration_bucket{method=\"find_remotes\",le=\"0.500\"} 1",
            "service_remote_duration_bucket{method=\"find_remotes\",le=\"+Inf\"} 2",
            "service_remote_duration_sum{method=\"find_remotes\"} 0.700",
            "# TYPE service_replication_call_total counter",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in {text}");
        }
    }
}
