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
    check(
        &host(),
        &EXPOSE,
        &expect![[r#"
        status 0
        stdout:
        # nginx serves https://ci.example.org/ from port 8011 of this host
        create `/etc/buildbot-conda/web`
        write `/etc/buildbot-conda/web/master.htpasswd`, mode 0640
        set owner `root`, group `www-data` and mode 0640 of `/etc/buildbot-conda/web/master.htpasswd`
        as `bb`, write `/home/bb/master/web.secret`, mode 0600
        as `bb`, write `/home/bb/master/web.toml`, mode 0600
        check the configuration of `buildbot-master.service`, and reload it
        see that the master at port 8011 knows that it is https://ci.example.org/
        write `/etc/nginx/sites-available/buildbot-conda-master`, check it and reload `nginx`
        write `/var/lib/buildbot-conda/created/master.web`, mode 0644
        check pages, websocket, events and hooks of https://ci.example.org/, with a login required
        stderr:
    "#]],
    );
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
    expect![[r#"
        status 1
        stdout:
        stderr:
        error: no web server is installed
        hint: `apt-get install nginx`

        status 1
        stdout:
        stderr:
        error: the port of the web pages of `master` is unknown
        hint: specify it with `--web-port PORT`

        status 1
        stdout:
        stderr:
        error: nginx needs a certificate
        hint: use `--certificate FILE --key FILE`, for example with the files of certbot

        status 1
        stdout:
        stderr:
        error: `worker` is a worker and has no web pages

        status 2
        stdout:
        stderr:
        error: invalid value 'a b' for '--host <NAME>': `a b` is not the name of a host, such as `ci.example.org`

        For more information, try '--help'.

        status 2
        stdout:
        stderr:
        error: the following required arguments were not provided:
          --private

        Usage: buildbot-conda web expose --host <NAME> --private --reader <NAME> <REF>

        For more information, try '--help'.
    "#]].assert_eq(&all.join("\n"));
}

#[test]
fn a_key_that_the_masters_account_has_written_is_in_no_site_file_unless_it_is_a_plain_one() {
    let host = host();
    let table = "url = \"https://ci.example.org/\"\nlogin = \"front\"\n";
    host.write("home/bb/master/web.toml", table);
    let replaces = |key: &str| {
        host.write("home/bb/master/web.secret", key);
        let plan = host.run(&EXPOSE).to_string();
        plan.contains("write `/home/bb/master/web.secret`")
    };
    assert!(!replaces("0aZ\n"));
    for key in [
        "x; access_log /etc/cron.d/x\n",
        "x\n}\n",
        "$http_x\n",
        "x y\n",
        "\n",
    ] {
        assert!(replaces(key), "{key:?}");
    }
}

#[test]
fn a_master_that_is_shown_is_hidden_by_the_reverse() {
    let host = host();
    check(
        &host,
        &["web", "hide", "master", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` is not exposed
            stderr:
            nothing to do
        "#]],
    );
    host.write(
        "var/lib/buildbot-conda/created/master.web",
        "{\"front\":\"nginx\",\"host\":\"ci\",\"web_port\":8011,\"private\":true}\n",
    );
    host.write("etc/nginx/sites-available/buildbot-conda-master", "old\n");
    host.write("home/bb/master/web.toml", "");
    host.write("home/bb/master/web.secret", "x\n");
    host.write("etc/buildbot-conda/web/master.htpasswd", "admin:x\n");
    check(
        &host,
        &["web", "hide", "master", "--dry-run"],
        &expect![[r#"
        status 0
        stdout:
        remove `/etc/nginx/sites-available/buildbot-conda-master`, and reload `nginx`
        as `bb`, remove `/home/bb/master/web.toml`
        as `bb`, remove `/home/bb/master/web.secret`
        check the configuration of `buildbot-master.service`, and reload it
        remove `/etc/buildbot-conda/web/master.htpasswd`
        remove `/var/lib/buildbot-conda/created/master.web`
        stderr:
    "#]],
    );
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
