//! Prometheus' text exposition, version 0.0.4 (surface §F.5 for the original's names).

use std::fmt::Write;

use identity::Health;

use crate::health::{ATTEMPTS, Histogram, SECONDS, Service, Services};

pub(crate) fn exposition(all: &Services) -> String {
    let mut out = String::new();
    let now = all.clock.now();
    let watched = all.watch();
    let services = watched.borrow();
    let mut family = |name: &str, kind: &str, help: &str, one: &dyn Fn(&str, &Service) -> String| {
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (service, known) in services.iter() {
            out += &one(&format!("service=\"{}\"", escaped(service)), known);
        }
    };
    family("tbot_task_iterations_total", "counter", "Tries to renew.", &|label, service| {
        format!("tbot_task_iterations_total{{{label}}} {}\n", service.duration.count)
    });
    family("tbot_task_iterations_failed", "counter", "Tries to renew that failed.", &|label, service| {
        format!("tbot_task_iterations_failed{{{label}}} {}\n", service.failed)
    });
    family("tbot_task_iterations_successful", "histogram", "Failures before each success.", &|label, service| {
        histogram("tbot_task_iterations_successful", label, &service.attempts, &ATTEMPTS)
    });
    family("tbot_task_iteration_duration_seconds", "histogram", "Time that a try takes.", &|label, service| {
        histogram("tbot_task_iteration_duration_seconds", label, &service.duration, &SECONDS)
    });
    family(
        "tbot_service_expiry_timestamp_seconds",
        "gauge",
        "When what was last written expires.",
        &|label, service| match service.expires {
            Some(expires) => format!("tbot_service_expiry_timestamp_seconds{{{label}}} {}\n", expires.0),
            None => String::new(),
        },
    );
    family("tbot_service_healthy", "gauge", "1 where the service is healthy.", &|label, service| {
        let healthy = service.health(now) == Health::Healthy;
        format!("tbot_service_healthy{{{label}}} {}\n", u8::from(healthy))
    });
    let _ = write!(
        out,
        "# HELP process_start_time_seconds When the agent started.\n# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {}\n",
        all.started.0
    );
    if let Some(bytes) = resident() {
        let _ = write!(
            out,
            "# HELP process_resident_memory_bytes Resident memory.\n# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes {bytes}\n"
        );
    }
    out
}

fn histogram<const N: usize>(name: &str, label: &str, histogram: &Histogram<N>, bounds: &[f64; N]) -> String {
    let mut out = String::new();
    for (bucket, bound) in histogram.buckets.iter().zip(bounds) {
        let _ = writeln!(out, "{name}_bucket{{{label},le=\"{bound}\"}} {bucket}");
    }
    let Histogram { sum, count, .. } = histogram;
    let _ = write!(
        out,
        "{name}_bucket{{{label},le=\"+Inf\"}} {count}\n{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {count}\n"
    );
    out
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Resident memory of this process, bytes; Linux alone tells it here.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}
