//! The text that is scraped: `OpenMetrics` 1.0 that is valid in the older format of Prometheus as well, which is why there
//! are only gauges. <https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md>

use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// Every family with its meaning, in the order in which they are printed.
pub(super) const FAMILIES: [(&str, &str); 28] = [
    ("info", "The version of the package."),
    (
        "configuration_good",
        "Whether the configuration is free of problems.",
    ),
    (
        "instance_info",
        "Role, unit, version of Buildbot and environment of an instance.",
    ),
    (
        "instance_enabled",
        "Whether an instance is started at boot.",
    ),
    ("instance_up", "Whether an instance is active."),
    (
        "instance_state",
        "1 for the current state of an instance, 0 for all others.",
    ),
    (
        "instance_state_seconds",
        "How long an instance has been in its current state.",
    ),
    (
        "instance_restarts",
        "How often systemd has restarted an instance since it was started manually.",
    ),
    (
        "instance_memory_bytes",
        "The memory of an instance and its child processes.",
    ),
    ("instance_memory_max_bytes", "The limit of that memory."),
    (
        "instance_environment_outdated",
        "Whether the next start uses another environment than the running one.",
    ),
    (
        "worker_connected",
        "Whether a worker of this host is connected to its master.",
    ),
    (
        "master_reload_good",
        "Whether the last reload of a master was applied completely.",
    ),
    (
        "master_load_timestamp_seconds",
        "When a master recorded the following values, every 30 seconds.",
    ),
    (
        "master_event_loop_lag_seconds",
        "The longest time for which a master could not react since the previous record.",
    ),
    ("master_builds", "Running builds."),
    (
        "master_oldest_build_timestamp_seconds",
        "When the oldest of them was first seen.",
    ),
    ("master_workers", "Workers of a master in each state."),
    (
        "master_worker_connected",
        "Whether a worker is connected, by name, without workers that are started on demand.",
    ),
    (
        "master_requests",
        "Build requests that no master has started.",
    ),
    (
        "master_oldest_request_timestamp_seconds",
        "When the oldest of them was submitted.",
    ),
    (
        "database_up",
        "Whether the database of a master has answered.",
    ),
    ("database_answer_seconds", "How long the answer took."),
    ("database_bytes", "The size of the database."),
    (
        "backup_timestamp_seconds",
        "When the newest backup of the database was written.",
    ),
    (
        "backup_interval_seconds",
        "The interval of backups that `backup-every` sets.",
    ),
    (
        "backup_failed",
        "Whether the last backup of the timer has failed.",
    ),
    (
        "certificate_expiry_timestamp_seconds",
        "When the certificate of a port, or of the master of a worker, expires.",
    ),
];

/// The prefix of all names.
const PREFIX: &str = "buildbot_conda";

/// Samples by family.
#[derive(Debug, Default)]
pub(super) struct Metrics(BTreeMap<&'static str, Vec<String>>);

impl Metrics {
    /// Adds one sample of one of the [`FAMILIES`].
    pub(super) fn add(
        &mut self,
        family: &'static str,
        labels: &[(&str, &str)],
        value: impl Display,
    ) {
        assert!(
            FAMILIES.iter().any(|(name, _)| *name == family),
            "`{family}` is a family"
        );
        let labels: Vec<String> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let samples = self.0.entry(family).or_default();
        samples.push(format!("{PREFIX}_{family}{labels} {value}"));
    }
}

impl Display for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (family, meaning) in FAMILIES {
            let Some(samples) = self.0.get(family) else {
                continue;
            };
            writeln!(formatter, "# HELP {PREFIX}_{family} {meaning}")?;
            writeln!(formatter, "# TYPE {PREFIX}_{family} gauge")?;
            for sample in samples {
                writeln!(formatter, "{sample}")?;
            }
        }
        writeln!(formatter, "# EOF")
    }
}

/// A value of a label between its quotes.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_together_in_their_order_and_labels_are_escaped() {
        let mut metrics = Metrics::default();
        metrics.add("instance_up", &[("name", "worker@a")], 1);
        metrics.add("info", &[], 1.5);
        metrics.add("instance_up", &[("name", "a\\b\"c\nd"), ("x", "")], 0);
        assert_eq!(
            metrics.to_string(),
            "# HELP buildbot_conda_info The version of the package.\n\
             # TYPE buildbot_conda_info gauge\n\
             buildbot_conda_info 1.5\n\
             # HELP buildbot_conda_instance_up Whether an instance is active.\n\
             # TYPE buildbot_conda_instance_up gauge\n\
             buildbot_conda_instance_up{name=\"worker@a\"} 1\n\
             buildbot_conda_instance_up{name=\"a\\\\b\\\"c\\nd\",x=\"\"} 0\n\
             # EOF\n"
        );
    }
}
