//! `web` as far as it can be seen without a web server: plans, and refusals that change nothing.

use expect_test::{Expect, expect};

use crate::house::Host;

const CONFIGURATION: &str = "\
[defaults]
user = \"bb\"

[master]
directory = \"/home/bb/master\"

[worker]
directory = \"/home/bb/worker\"
";

/// A master as `create master` makes it, and nginx.
fn host() -> Host {
    let host = Host::configured(CONFIGURATION);
    host.write("usr/sbin/nginx", "");
    host.write("etc/nginx/nginx.conf", "");
    host.write("home/bb/master/master.cfg", "open('web.toml')\n");
    host.write(
        "var/lib/buildbot-conda/created/master.json",
        "{\"web_port\":8011,\"worker\":\"worker\",\"worker_credential\":\"x\"}\n",
    );
    host
}

const EXPOSE: [&str; 9] = [
    "web",
    "expose",
    "buildbot-master",
    "--host=CI.example.org",
    "--certificate=/etc/ssl/ci.pem",
    "--key=/etc/ssl/ci.key",
    "--private",
    "--reader=bob",
    "--dry-run",
];

/// Runs, compares, and checks that nothing has changed.
#[track_caller]
fn check(host: &Host, words: &[&str], expect: &Expect) {
    let before = host.snapshot();
    expect.assert_eq(&host.run(words).to_string());
    assert_eq!(host.snapshot(), before);
}

#[test]
fn the_plan_names_everything_that_front_and_master_get() {
    check(&host(), &EXPOSE, &expect![[]]);
}

#[test]
fn what_is_missing_is_said_before_anything_is_done() {
    let without = |path: &str| {
        let host = host();
        std::fs::remove_file(host.path(path)).unwrap();
        host.run(&EXPOSE).to_string()
    };
    let all = [
        without("usr/sbin/nginx"),
        without("var/lib/buildbot-conda/created/master.json"),
        without("home/bb/master/master.cfg"),
        host()
            .run(&["web", "expose", "master", "--host=ci", "--dry-run"])
            .to_string(),
        host()
            .run(&["web", "expose", "worker", "--host=ci", "--dry-run"])
            .to_string(),
        host()
            .run(&["web", "expose", "master", "--host=a b"])
            .to_string(),
        host()
            .run(&["web", "expose", "master", "--host=ci", "--reader=x"])
            .to_string(),
    ];
    expect![[]].assert_eq(&all.join("\n"));
}

#[test]
fn a_master_that_is_shown_is_hidden_by_the_reverse() {
    let host = host();
    check(&host, &["web", "hide", "master", "--dry-run"], &expect![[]]);
    host.write(
        "var/lib/buildbot-conda/created/master.web",
        "{\"front\":\"nginx\",\"host\":\"ci\",\"web_port\":8011,\"private\":true}\n",
    );
    host.write("etc/nginx/sites-available/buildbot-conda-master", "old\n");
    host.write("home/bb/master/web.toml", "");
    host.write("home/bb/master/web.secret", "x\n");
    host.write("etc/buildbot-conda/web/master.htpasswd", "admin:x\n");
    check(&host, &["web", "hide", "master", "--dry-run"], &expect![[]]);
}

#[test]
fn the_lines_for_a_configuration_of_ones_own_are_those_of_the_starter() {
    let host = host();
    let output = host.run(&["web", "lines"]).to_string();
    let starter = include_str!("../../../launcher/runner_tests/starter-master.cfg");
    let (_, after) = output.split_once("def exposed(web):").unwrap();
    let (function, _) = after.split_once("\n\n\n").unwrap();
    assert!(starter.contains(function), "{output}");
    assert!(
        output.contains("c[\"www\"].update(exposed(web))"),
        "{output}"
    );
}
