//! `metrics` below a root directory: what is printed, written and answered. That Prometheus reads it is a test of the
//! package, and the rest of it needs a booted machine.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use expect_test::expect;

use crate::house::{Host, said};

const CONFIGURATION: &str = "\
[master]
directory = \"/srv/m\"
conda-env = \"/opt/env\"
backup-every = \"daily\"
[\"worker@gpu\"]
directory = \"/srv/w\"
conda-env = \"/opt/env\"
";

fn host() -> Host {
    let host = Host::configured(CONFIGURATION);
    host.write(
        "run/buildbot-conda/master/status.json",
        r#"{"version": 1, "state": "running", "pid": 7, "buildbot": "4.3.0",
            "reconfiguration": {"number": 1, "outcome": "partial"},
            "certificates": [{"port": "www", "expires": 1900000000}],
            "door": {"port": 9990, "certificate_until": 1800000000.5},
            "load": {"at": 1790000000.25, "lag": 0.5, "builds": 2, "oldest_build": 1789999999,
                     "workers": {"a\"\\\nb": "missing", "c": "connected", "d": "latent", "e": "paused"},
                     "backup": 1789000000, "database": {"requests": 3, "oldest_request": 1789990000,
                     "answered_in": 0.001, "size": 4096}}}"#,
    );
    host.write(
        "run/buildbot-conda/worker@gpu/status.json",
        r#"{"version": 1, "state": "running", "pid": 8, "worker": {"connection": "refused"},
            "certificates": [{"port": "ci:9989", "expires": 1850000000},
                             {"port": "ci:9989", "expires": 1950000000, "authority": true}]}"#,
    );
    host
}

#[test]
fn every_instance_is_told_in_numbers() {
    let output = host().run(&["metrics"]);
    assert_eq!((output.status, output.stderr.as_str()), (Some(0), ""));
    let samples = output
        .stdout
        .lines()
        .filter(|line| !line.starts_with("# H") && !line.starts_with("# T"));
    let samples: Vec<&str> = samples.filter(|line| !line.contains("_state{")).collect();
    expect![[r#"
        buildbot_conda_info{version="0.1.0"} 1
        buildbot_conda_configuration_good 1
        buildbot_conda_instance_info{name="master",role="master",unit="buildbot-master.service",buildbot="",environment="/opt/env"} 1
        buildbot_conda_instance_info{name="worker@gpu",role="worker",unit="buildbot-worker@gpu.service",buildbot="",environment="/opt/env"} 1
        buildbot_conda_instance_up{name="master"} 0
        buildbot_conda_instance_up{name="worker@gpu"} 0
        buildbot_conda_instance_environment_outdated{name="master"} 0
        buildbot_conda_instance_environment_outdated{name="worker@gpu"} 0
        buildbot_conda_worker_connected{name="worker@gpu"} 0
        buildbot_conda_master_reload_good{name="master"} 0
        buildbot_conda_master_load_timestamp_seconds{name="master"} 1790000000.25
        buildbot_conda_master_event_loop_lag_seconds{name="master"} 0.5
        buildbot_conda_master_builds{name="master"} 2
        buildbot_conda_master_oldest_build_timestamp_seconds{name="master"} 1789999999
        buildbot_conda_master_workers{name="master",state="connected"} 1
        buildbot_conda_master_workers{name="master",state="draining"} 0
        buildbot_conda_master_workers{name="master",state="latent"} 1
        buildbot_conda_master_workers{name="master",state="missing"} 1
        buildbot_conda_master_workers{name="master",state="paused"} 1
        buildbot_conda_master_worker_connected{name="master",worker="a\"\\ b"} 0
        buildbot_conda_master_worker_connected{name="master",worker="c"} 1
        buildbot_conda_master_worker_connected{name="master",worker="e"} 1
        buildbot_conda_master_requests{name="master"} 3
        buildbot_conda_master_oldest_request_timestamp_seconds{name="master"} 1789990000
        buildbot_conda_database_up{name="master"} 1
        buildbot_conda_database_answer_seconds{name="master"} 0.001
        buildbot_conda_database_bytes{name="master"} 4096
        buildbot_conda_backup_timestamp_seconds{name="master"} 1789000000
        buildbot_conda_backup_interval_seconds{name="master"} 86400
        buildbot_conda_certificate_expiry_timestamp_seconds{name="master",port="www"} 1900000000
        buildbot_conda_certificate_expiry_timestamp_seconds{name="master",port="network"} 1800000000.5
        buildbot_conda_certificate_expiry_timestamp_seconds{name="worker@gpu",port="ci:9989"} 1850000000
        buildbot_conda_certificate_expiry_timestamp_seconds{name="worker@gpu",port="the authority of ci:9989"} 1950000000
        # EOF
    "#]].assert_eq(&(samples.join("\n") + "\n"));
}

#[test]
fn a_worker_shows_how_long_the_certificates_of_its_master_are_valid() {
    let host = host();
    let detail = host.run(&["status", "worker@gpu"]).stdout;
    for owner in ["ci:9989", "the authority of ci:9989"] {
        let line = format!("certificate: the certificate of {owner} is valid for ");
        assert!(detail.contains(&line), "{detail}");
    }
    let listed: serde_json::Value =
        serde_json::from_str(&host.run(&["list", "--json"]).stdout).expect("JSON");
    let certificates = &listed[1]["status"]["certificates"];
    assert_eq!(certificates[0]["expires"], 1_850_000_000.0, "{listed}");
    assert_eq!(certificates[1]["authority"], true, "{listed}");
}

#[test]
fn what_a_process_noted_is_gone_with_it_but_its_backup_is_not() {
    let host = Host::configured(CONFIGURATION);
    host.write(
        "run/buildbot-conda/master/status.json",
        r#"{"version": 1, "state": "failed", "pid": 7, "load": {"at": 1, "lag": 0, "builds": 2, "oldest_build": null,
            "workers": {"a": "missing"}, "backup": 1789000000, "database": null}}"#,
    );
    let output = host.run(&["metrics"]).stdout;
    assert!(
        output.contains("\nbuildbot_conda_backup_timestamp_seconds{name=\"master\"} 1789000000\n"),
        "{output}"
    );
    assert!(
        !output.contains("_master_") && !output.contains("database_"),
        "{output}"
    );
}

#[test]
fn a_bad_configuration_is_a_number_too() {
    for text in ["[worker]\ncolour = 1\n", "[worker\n"] {
        let output = Host::configured(text).run(&["metrics"]);
        assert_eq!(output.status, Some(0), "{output}");
        assert!(
            output
                .stdout
                .contains("\nbuildbot_conda_configuration_good 0\n"),
            "{output}"
        );
        assert!(output.stdout.ends_with("\n# EOF\n"), "{output}");
    }
}

#[test]
fn a_file_is_replaced_as_a_whole_and_by_no_link() {
    let host = host();
    host.create_directory("out");
    let file = host.path("out/buildbot.prom");
    let words = ["metrics", "--output", file.to_str().unwrap()];
    for _ in 0..2 {
        assert_eq!(host.run(&words), said(0, "", ""));
        assert_eq!(
            host.read("out/buildbot.prom"),
            host.run(&["metrics"]).stdout
        );
        assert_eq!(host.mode("out/buildbot.prom"), 0o644);
        let names = std::fs::read_dir(host.path("out")).unwrap().count();
        assert_eq!(names, 1);
        // An existing link is not followed.
        std::fs::remove_file(&file).unwrap();
        host.link("out/buildbot.prom", "/etc/hostname");
    }
    host.link("linked", "out");
    let file = host.path("linked/x.prom");
    let refused = host.run(&["metrics", "--output", file.to_str().unwrap()]);
    let expect = said(
        1,
        "",
        "error: write `/linked/x.prom`: a directory in the path is a link\nhint: specify the directory itself\n",
    );
    assert_eq!(refused, expect);
    let missing = host.path("missing/x.prom");
    let refused = host.run(&["metrics", "--output", missing.to_str().unwrap()]);
    assert_eq!(refused.status, Some(1));
    assert!(
        refused
            .stderr
            .contains("write `/missing/x.prom`: No such file"),
        "{refused}"
    );
}

/// What is answered to a request on a connection that stays open.
fn answer(request: &[u8]) -> String {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let host = host();
    let mut child = host
        .command()
        .args(["metrics", "--answer"])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(
            theirs.try_clone().unwrap(),
        )))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()
        .unwrap();
    ours.write_all(request).unwrap();
    assert!(child.wait().unwrap().success());
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_request_is_answered_over_its_connection() {
    let output = host().run(&["metrics"]).stdout;
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        output.len()
    );
    let answered = answer(b"GET /metrics HTTP/1.1\r\nHost: localhost:9988\r\n\r\n");
    assert_eq!(answered, format!("{head}{output}"));
    assert_eq!(answer(b"HEAD /metrics HTTP/1.1\r\n\r\n"), head);
    for (request, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404 Not Found"),
        (b"GET /metrics/../x HTTP/1.1\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"\xff\xfe\r\n\r\n", "400 Bad Request"),
        (&[b'x'; 8192], "400 Bad Request"),
    ] {
        let answered = answer(request);
        assert!(
            answered.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{answered}"
        );
    }
}

#[test]
fn the_manual_page_rules_and_dashboard_know_the_same_metrics() {
    let names = |text: &str| -> BTreeSet<String> {
        let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let words = text.split(|character| !is_part(character));
        let names = words.filter(|word| word.starts_with("buildbot_conda_"));
        names.map(str::to_owned).collect()
    };
    let manual = include_str!("../../../../docs/man/sections/buildbot-conda-metrics.1");
    let known = names(manual);
    let printed = names(&host().run(&["metrics"]).stdout);
    assert!(
        printed.len() > 20 && printed.is_subset(&known),
        "{printed:?}"
    );
    let rules = names(include_str!("../../../../debian/prometheus/rules.yml"));
    assert!(rules.len() > 15 && rules.is_subset(&known), "{rules:?}");
    let dashboard = include_str!("../../../../debian/grafana/dashboard.json");
    let shown = names(dashboard);
    assert!(shown.len() > 10 && shown.is_subset(&known), "{shown:?}");
    let dashboard: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
}
