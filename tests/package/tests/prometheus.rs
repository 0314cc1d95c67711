//! The metrics, the alerts and the dashboard, checked with Debian's own promtool of both releases.

use buildbot_conda_package_tests::{CHECKERS, DebianRoot, Package, Release, on_each_release};

const TEST_OF_RULES: &str = include_str!("../../fixtures/rules.test.yml");

const CONFIGURATION: &str = "\
[defaults]
conda-env = \"/opt/env\"
[master]
directory = \"/srv/m\"
backup-every = \"daily\"
[worker]
directory = \"/srv/w\"
";

const STATUS: &str = r#"{"version": 1, "state": "running", "pid": 7, "buildbot": "4.3.0",
"reconfiguration": {"number": 1, "outcome": "partial"}, "certificates": [{"port": "www", "expires": 1900000000}],
"load": {"at": 1790000000.25, "lag": 0.5, "builds": 2, "oldest_build": 1789999999,
"workers": {"a\"\\\nb": "missing", "c": "connected"}, "backup": 1789000000,
"database": {"requests": 3, "oldest_request": 1789990000, "answered_in": 0.000001, "size": 4096}}}
"#;

on_each_release! {
    prometheus_reads_what_is_scraped,
    every_alert_fires_and_clears,
    the_dashboard_asks_in_promql,
}

fn prometheus_reads_what_is_scraped(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &CHECKERS);
    root.write("/etc/buildbot-conda/config.toml", CONFIGURATION);
    root.write("/run/buildbot-conda/master/status.json", STATUS);
    let metrics = root.must("buildbot-conda --root / metrics");
    assert!(
        metrics.contains("_database_bytes{name=\"master\"} 4096\n"),
        "{metrics}"
    );
    let outcome = root.run("buildbot-conda --root / metrics | promtool check metrics");
    assert_eq!((outcome.status, outcome.talk().trim()), (0, ""));
}

fn every_alert_fires_and_clears(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &CHECKERS);
    let rules = "/usr/share/buildbot-conda/prometheus/rules.yml";
    let checked = root.must(&format!("promtool check rules {rules}"));
    let alerts = Package::open().text(rules).matches("- alert: ").count();
    assert!(
        checked.contains(&format!("{alerts} rules found")),
        "{checked}"
    );
    root.write("/root/rules.test.yml", TEST_OF_RULES);
    let tested = root.must("promtool test rules /root/rules.test.yml");
    assert!(tested.contains("SUCCESS"), "{tested}");
    assert_eq!(TEST_OF_RULES.matches("- name: ").count(), alerts);
}

/// As rules, which promtool parses.
fn the_dashboard_asks_in_promql(release: Release) {
    let root = DebianRoot::installed_with_programs(release, &CHECKERS);
    let dashboard = Package::open().text("/usr/share/buildbot-conda/grafana/dashboard.json");
    let lines = dashboard.lines().map(str::trim);
    let expressions: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("\"expr\": "))
        .map(|text| text.trim_end_matches(','))
        .collect();
    assert!(expressions.len() > 10, "{expressions:?}");
    let numbered = expressions.iter().enumerate();
    let rules: Vec<String> = numbered
        .map(|(number, text)| format!("  - {{record: \"a:{number}\", expr: {text}}}\n"))
        .collect();
    root.write(
        "/root/rules.yml",
        &format!("groups:\n- name: dashboard\n  rules:\n{}", rules.concat()),
    );
    let checked = root.must("promtool check rules /root/rules.yml");
    let expect = format!("{} rules found", expressions.len());
    assert!(checked.contains(&expect), "{checked}");
}
