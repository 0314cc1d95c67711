//! The real command below a root directory: exact output and exit status of every verb except `run`, which has its own
//! tests, and `service`, whose effects need a booted machine.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use crate::house::{CONFIGURATION, Host, said};

const GOOD: &str = "\
# the group's build host
[defaults]
conda-root = \"/opt/conda\" # not ours to move

[master]
directory = \"/srv/m\"

[\"worker@gpu\"]
directory = \"/srv/a b%n\"
conda-env = \"/opt/envs/cuda\"
drain = \"90min\"
environment = { TZ = \"UTC\", QUOTES = 'say \"x\"' }
credentials = { password = \"gpu\" }
";

#[test]
fn check_counts_what_is_good() {
    let expect = said(
        0,
        "/etc/buildbot-conda/config.toml: valid, 2 instances\n",
        "",
    );
    assert_eq!(Host::configured(GOOD).run(&["check"]), expect);
}

#[test]
fn check_names_every_problem_with_its_place() {
    let host = Host::configured(
        "[defaults]\nconda_root = \"/x\"\n[mastr]\n[\"worker@A\"]\n[worker]\nwatchdog = true\n",
    );
    let expect = said(
        78,
        "",
        "error: /etc/buildbot-conda/config.toml:2:1: defaults.conda_root: unknown key\n\
         hint: did you mean `conda-root`?\n\
         /etc/buildbot-conda/config.toml:3:2: mastr: unknown table\n\
         hint: did you mean `[master]`?\n\
         /etc/buildbot-conda/config.toml:4:2: worker@A: `A` is not an instance name; use 1 to 31 of `a-z`, `0-9`, `_` and `-`, starting with a letter or digit\n\
         /etc/buildbot-conda/config.toml:6:12: worker.watchdog: expected text in quotes, found a boolean\n\
         hint: write a duration such as `2min`, or `off`\n",
    );
    assert_eq!(host.run(&["check"]), expect);
}

#[test]
fn check_takes_another_file() {
    let host = Host::configured("");
    let other = host.path("new.toml");
    fs::write(&other, "[worker@gpu]\n").unwrap();
    let outcome = host.run(&["check", other.to_str().unwrap()]);
    assert_eq!(outcome.status, Some(78));
    assert!(
        outcome.stderr.starts_with("error: /new.toml:1:"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome
            .stderr
            .ends_with("hint: quote a name with `@`: `[\"worker@gpu\"]`\n"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn a_missing_configuration_is_named() {
    let host = Host::configured("");
    fs::remove_file(host.path(CONFIGURATION)).unwrap();
    let expect = said(
        78,
        "",
        "error: configuration `/etc/buildbot-conda/config.toml` not found\n\
         hint: `dpkg-reconfigure buildbot-conda` writes a new one\n",
    );
    for verb in [
        &["check"][..],
        &["list"],
        &["status"],
        &["show", "master"],
        &["set", "user", "x"],
    ] {
        assert_eq!(host.run(verb), expect, "{verb:?}");
    }
}

#[test]
fn a_pipe_in_place_of_the_configuration_does_not_hang() {
    let host = Host::configured("");
    fs::remove_file(host.path(CONFIGURATION)).unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        host.path(CONFIGURATION),
        rustix::fs::Mode::RUSR,
    )
    .unwrap();
    let outcome = host.run(&["check"]);
    assert_eq!(outcome.status, Some(78));
    assert!(
        outcome.stderr.contains("it is not a regular file"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn list_and_status_leave_the_running_system_alone() {
    let host = Host::configured(GOOD);
    let table = "\
INSTANCE    STATE    FOR  PID  MEMORY  BUILDBOT  ENVIRONMENT               DOING
master      unknown    -    -       -  -         /opt/conda/envs/buildbot  -
worker@gpu  unknown    -    -       -  -         /opt/envs/cuda            -
";
    assert_eq!(host.run(&["list"]), said(0, table, ""));
    assert_eq!(host.run(&["status"]), said(0, table, ""));
    assert_eq!(host.run(&["status", "--fail-if-down"]), said(1, table, ""));
    assert_eq!(host.run(&["list", "--fail-if-down"]), said(1, table, ""));
    let json = host.run(&["list", "--json", "--fail-if-down"]);
    assert_eq!((json.status, json.stderr.as_str()), (Some(1), ""));
    assert_eq!(
        Host::configured("").run(&["list", "--fail-if-down"]).status,
        Some(0)
    );
}

#[test]
fn json_has_the_keys_that_the_manual_names() {
    let json = Host::configured(GOOD).run(&["list", "--json"]).stdout;
    let rows: Vec<serde_json::Map<String, serde_json::Value>> =
        serde_json::from_str(&json).unwrap();
    assert_eq!(rows.len(), 2);
    let keys: Vec<&str> = rows[0].keys().map(String::as_str).collect();
    let expect = [
        "instance",
        "unit",
        "state",
        "enabled",
        "seconds",
        "pid",
        "memory",
        "memory_max",
        "restarts",
        "buildbot",
        "environment",
        "next_environment",
        "directory",
        "message",
        "status",
    ];
    assert_eq!(keys, expect);
    let manual = include_str!("../../../../docs/man/sections/buildbot-conda-list.1");
    let manual = manual.split(".SH SEE ALSO").next().unwrap();
    for key in expect {
        let is_named = manual.lines().any(|line| {
            line.starts_with(".B") && line.split([' ', '"', ',']).any(|word| word == key)
        });
        assert!(is_named, "`{key}` is not in the manual page");
    }
}

#[test]
fn watching_is_for_terminals_alone() {
    let host = Host::configured(GOOD);
    let expect = said(
        1,
        "",
        "error: `--watch` needs a terminal\nhint: programs use `--json`\n",
    );
    for words in [&["list", "--watch"][..], &["status", "master", "--watch"]] {
        assert_eq!(host.run(words), expect, "{words:?}");
    }
    for words in [
        &["list", "--watch", "--json"][..],
        &["status", "--watch", "--fail-if-down"],
    ] {
        assert_eq!(host.run(words).status, Some(2), "{words:?}");
    }
}

#[test]
fn watching_shows_the_table_anew() {
    let host = Host::configured(GOOD);
    let new = host.path("new.toml");
    fs::write(&new, GOOD.replace("[master]", "[\"master@new\"]")).unwrap();
    let mut script = host
        .on_a_terminal("\"$BINARY\" --root \"$ROOT\" list --watch")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = script.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = stdout.read(&mut part).unwrap();
        seen.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&seen);
        if text.contains("master@new") {
            break;
        }
        assert!(length > 0, "it ended: {text}");
        // A later screen shows the state at that time.
        if text.contains("worker@gpu") && new.exists() {
            fs::rename(&new, host.path(CONFIGURATION)).unwrap();
        }
    }
    script.kill().unwrap();
    script.wait().unwrap();
    let text = String::from_utf8_lossy(&seen);
    assert!(text.contains("\x1b[H\x1b[J"), "{text:?}");
}

#[test]
fn a_bad_instance_is_listed_with_its_reason() {
    let host = Host::configured("[master]\nnope = 1\n[worker]\n");
    let outcome = host.run(&["list"]);
    assert_eq!(outcome.status, Some(0));
    assert!(
        outcome
            .stdout
            .contains("config.toml:2:1: master.nope: unknown key"),
        "{}",
        outcome.stdout
    );
    assert!(outcome.stdout.contains("\nworker "), "{}", outcome.stdout);
}

#[test]
fn status_shows_what_the_runner_wrote_as_foreign_text() {
    let host = Host::configured(GOOD);
    let directory = host.path("run/buildbot-conda/master");
    fs::create_dir_all(&directory).unwrap();
    fs::write(
        directory.join("status.json"),
        r#"{"version":1,"state":"running","pid":1,"buildbot":"4.3.0\u202e","message":"a\u001b[31mb\nc",
            "reconfiguration":{"number":2,"outcome":"aborted","message":"bad\tconfig"},
            "database":{"name":"farm\u001b","place":"`buildbot` (postgresql) on db:5432"}}"#,
    )
    .unwrap();
    let expect = "       instance: master
           unit: buildbot-master.service
          state: unknown
          doing: a\\u{1b}[31mb c
      directory: /srv/m
    environment: /opt/conda/envs/buildbot
    last reload: aborted bad config
       database: `buildbot` (postgresql) on db:5432, as `farm\\u{1b}`
";
    assert_eq!(host.run(&["status", "master"]), said(0, expect, ""));
    let json = host.run(&["status", "master", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["status"]["reconfiguration"]["outcome"], "aborted");
    assert_eq!(json[0]["status"]["buildbot"], "4.3.0\\u{202e}");
}

#[test]
fn an_instance_that_is_not_there_is_refused() {
    let host = Host::configured(GOOD);
    let expect = said(
        1,
        "",
        "error: instance `worker` not found in `/etc/buildbot-conda/config.toml`\n\
         hint: `buildbot-conda list` shows all instances\n",
    );
    assert_eq!(host.run(&["status", "worker"]), expect);
    assert_eq!(host.run(&["show", "worker"]).status, Some(78));
    assert_eq!(host.run(&["status", "worker@-x"]).status, Some(2));
}

#[test]
fn show_writes_settings_out_as_they_would_be_written() {
    let host = Host::configured(GOOD);
    let outcome = host.run(&["show", "worker@gpu"]);
    let expect = r#"["worker@gpu"]
user = "bb"
conda-root = "/opt/conda"
conda-env = "/opt/envs/cuda"
directory = "/srv/a b%n"
drain = "1h 30m"
start-timeout = "1m 30s"
watchdog = "2m"
log = "journal"
upgrade = "auto"
hardening = "standard"
notify = "off"
environment.QUOTES = "say \"x\""
environment.TZ = "UTC"
credentials."password" = "/etc/buildbot-conda/credentials/gpu"

# /usr/lib/systemd/system/buildbot-worker@.service
"#;
    assert!(outcome.stdout.starts_with(expect), "{}", outcome.stdout);
    let drop_in =
        "\n# /run/systemd/generator/buildbot-worker@gpu.service.d/10-buildbot-conda.conf\n";
    assert!(outcome.stdout.contains(drop_in), "{}", outcome.stdout);
    // Its output can be written to a file again.
    let settings = outcome.stdout.split("\n\n").next().unwrap();
    assert_eq!(Host::configured(settings).run(&["check"]).status, Some(0));
}

#[test]
fn limits_are_set_as_systemd_takes_them_and_are_in_the_drop_in() {
    let host = Host::configured(GOOD);
    for (key, value, line) in [
        ("memory-max", "50%", "MemoryMax=50%"),
        ("nice", "-5", "Nice=-5"),
        ("tasks-max", "infinity", "TasksMax=infinity"),
    ] {
        let outcome = host.run(&["set", "worker@gpu", key, value]);
        assert_eq!(outcome.status, Some(0), "{outcome}");
        let shown = host.run(&["show", "worker@gpu"]).stdout;
        assert!(
            shown.contains(&format!("\n{key} = \"{value}\"\n")),
            "{shown}"
        );
        assert!(shown.contains(&format!("\n{line}\n")), "{shown}");
    }
    let before = host.read(CONFIGURATION);
    let refused = host.run(&["set", "worker@gpu", "cpu-weight", "0"]);
    assert_eq!(refused.status, Some(78), "{refused}");
    assert!(
        refused
            .stderr
            .ends_with("hint: write a number from 1 to 10000; the default is 100\n"),
        "{refused}"
    );
    assert_eq!(host.read(CONFIGURATION), before);
}

#[test]
fn set_changes_one_key_and_keeps_owner_mode_and_comments() {
    let host = Host::configured(GOOD);
    fs::set_permissions(host.path(CONFIGURATION), fs::Permissions::from_mode(0o640)).unwrap();
    let next = "in effect at the next start\n";
    let lines = "in `/etc/buildbot-conda/config.toml`:\n    \
                 - conda-root = \"/opt/conda\" # not ours to move\n    \
                 + conda-root = \"/srv/conda\" # not ours to move\n";
    assert_eq!(
        host.run(&["set", "conda-root", "/srv/conda"]),
        said(0, lines, next)
    );
    let lines = "in `/etc/buildbot-conda/config.toml`:\n    \
                 - environment = { TZ = \"UTC\", QUOTES = 'say \"x\"' }\n    \
                 + environment = { TZ = \"CET\", QUOTES = 'say \"x\"' }\n";
    assert_eq!(
        host.run(&["set", "buildbot-worker@gpu", "environment.TZ", "CET"]),
        said(0, lines, next)
    );
    let expect = GOOD
        .replace("\"/opt/conda\"", "\"/srv/conda\"")
        .replace("\"UTC\"", "\"CET\"");
    assert_eq!(
        fs::read_to_string(host.path(CONFIGURATION)).unwrap(),
        expect
    );
    let mode = fs::metadata(host.path(CONFIGURATION))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
    let left = fs::read_dir(host.path(CONFIGURATION).parent().unwrap())
        .unwrap()
        .count();
    assert_eq!(left, 1, "a temporary file was left");
}

#[test]
fn a_dry_run_of_set_shows_the_lines_and_changes_none() {
    let host = Host::configured(GOOD);
    for (words, lines) in [
        (
            &["conda-root", "/srv/conda"][..],
            "    - conda-root = \"/opt/conda\" # not ours to move\n\
             \x20   + conda-root = \"/srv/conda\" # not ours to move\n",
        ),
        (&["worker@gpu", "user", "ci"], "    + user = \"ci\"\n"),
        (
            &["worker@new", "directory", "/srv/new"],
            "    +\n    + [\"worker@new\"]\n    + directory = \"/srv/new\"\n",
        ),
    ] {
        let words = [&["set", "--dry-run"], words].concat();
        let expect = format!("in `/etc/buildbot-conda/config.toml`:\n{lines}");
        assert_eq!(host.run(&words), said(0, &expect, ""));
    }
    assert_eq!(
        host.run(&["set", "--dry-run", "conda-root", "/opt/conda"]),
        said(0, "# no change in `/etc/buildbot-conda/config.toml`\n", "")
    );
    let refused = host.run(&["set", "--dry-run", "colour", "red"]);
    assert_eq!((refused.status, refused.stdout.as_str()), (Some(78), ""));
    let last = host.run(&["set", "master", "user", "ci", "--dry-run"]);
    assert_eq!(
        last,
        host.run(&["set", "--dry-run", "master", "user", "ci"])
    );
    assert_eq!(last.status, Some(0));
    assert_eq!(fs::read_to_string(host.path(CONFIGURATION)).unwrap(), GOOD);
}

#[test]
fn set_follows_a_link_and_leaves_it_a_link() {
    let host = Host::configured(GOOD);
    let target = host.path("etc/buildbot-conda/of-this-host.toml");
    fs::rename(host.path(CONFIGURATION), &target).unwrap();
    std::os::unix::fs::symlink("of-this-host.toml", host.path(CONFIGURATION)).unwrap();
    assert_eq!(host.run(&["set", "user", "builder"]).status, Some(0));
    assert!(
        host.path(CONFIGURATION)
            .symlink_metadata()
            .unwrap()
            .is_symlink()
    );
    assert!(
        fs::read_to_string(target)
            .unwrap()
            .contains("user = \"builder\"")
    );
}

#[test]
fn set_refuses_what_would_not_validate_and_writes_nothing() {
    let host = Host::configured(GOOD);
    for (words, reason) in [
        (
            &["set", "conda-root", "a:b"][..],
            "defaults.conda-root: the path is not absolute",
        ),
        (
            &["set", "conda-root", "/a\nb"],
            "defaults.conda-root: the value contains a control character",
        ),
        (
            &["set", "conda-env", "../x"],
            "defaults.conda-env: the environment is neither a name nor an absolute prefix",
        ),
        (
            &["set", "worker@gpu", "user", "-x"],
            "worker@gpu.user: `-x` is not an account name",
        ),
        (&["set", "colour", "red"], "defaults.colour: unknown key"),
        (
            &["set", "directory", "/srv/x"],
            "defaults.directory: the directory can be set for a single instance only",
        ),
        (
            &["set", "worker@new", "user", "x"],
            "worker@new: missing key `directory`",
        ),
        (
            &["set", "master", "directory", "/srv/a b%n"],
            "`/srv/a b%n` already is the directory of",
        ),
    ] {
        let outcome = host.run(words);
        assert_eq!(outcome.status, Some(78), "{words:?}");
        assert!(
            outcome.stderr.contains(reason),
            "{words:?}: {}",
            outcome.stderr
        );
    }
    assert_eq!(fs::read_to_string(host.path(CONFIGURATION)).unwrap(), GOOD);
}

#[test]
fn set_without_its_words_is_a_usage_error() {
    let host = Host::configured(GOOD);
    for words in [
        &["set"][..],
        &["set", "user"],
        &["set", "a", "b", "c", "d"],
        &["set", "wroker", "user", "x"],
        &["unset"],
        &["unset", "a", "b", "c"],
        &["unset", "wroker", "user"],
        &["nope"],
        &[],
    ] {
        assert_eq!(host.run(words).status, Some(2), "{words:?}");
    }
}

#[test]
fn unset_brings_the_default_back() {
    let host = Host::configured(GOOD);
    let gone = "in `/etc/buildbot-conda/config.toml`:\n    - drain = \"90min\"\n";
    let words = ["unset", "worker@gpu", "drain"];
    let shown = host.run(&[&words[..], &["--dry-run"]].concat());
    assert_eq!(shown, said(0, gone, ""));
    assert_eq!(host.read(CONFIGURATION), GOOD);
    assert_eq!(
        host.run(&words),
        said(0, gone, "in effect at the next stop\n")
    );
    assert_eq!(
        host.read(CONFIGURATION),
        GOOD.replace("drain = \"90min\"\n", "")
    );
    let nothing = "# no change in `/etc/buildbot-conda/config.toml`\n";
    assert_eq!(host.run(&words), said(0, nothing, ""));
    let entry = host.run(&["unset", "worker@gpu", "environment.TZ"]);
    assert_eq!(entry.status, Some(0));
    let text = host.read(CONFIGURATION);
    assert!(
        text.contains("environment = { QUOTES = 'say \"x\"' }\n"),
        "{text}"
    );
    for (words, reason) in [
        (
            &["unset", "worker@gpu", "directory"][..],
            "missing key `directory`",
        ),
        (&["unset", "darin"], "unknown key"),
    ] {
        let refused = host.run(words);
        assert_eq!(refused.status, Some(78), "{words:?}");
        assert!(refused.stderr.contains(reason), "{}", refused.stderr);
    }
}

#[test]
fn a_change_that_concerns_nobody_is_called_that() {
    let host = Host::configured("[defaults]\nuser = \"x\"\n\n[master]\nuser = \"m\"\n");
    let outcome = host.run(&["set", "user", "y"]);
    assert_eq!(outcome.status, Some(0));
    assert_eq!(outcome.stderr, "no instance is affected\n");
}

#[test]
fn the_name_of_a_managed_environment_is_set_as_its_prefix() {
    let host = Host::configured(GOOD);
    host.create_directory("var/lib/buildbot-conda/envs/build/generation/conda-meta");
    host.link("var/lib/buildbot-conda/envs/build/current", "generation");
    for (words, expect) in [
        (
            &["set", "conda-env", "build"][..],
            "conda-env = \"/var/lib/buildbot-conda/envs/build/current\"",
        ),
        (
            &["set", "worker@gpu", "conda-env", "build"],
            "conda-env = \"/var/lib/buildbot-conda/envs/build/current\"",
        ),
        (&["set", "conda-env", "other"], "conda-env = \"other\""),
    ] {
        let outcome = host.run(words);
        assert_eq!(outcome.status, Some(0), "{}", outcome.stderr);
        assert!(
            outcome.stdout.contains(&format!("    + {expect}\n")),
            "{}",
            outcome.stdout
        );
    }
    // The environment of the installation with that name is meant, if there is one.
    host.create_directory("opt/conda/envs/build/conda-meta");
    let outcome = host.run(&["set", "conda-env", "build"]);
    assert!(
        outcome.stdout.contains("+ conda-env = \"build\"\n"),
        "{}",
        outcome.stdout
    );
}

#[test]
fn help_of_set_has_every_key_and_help_has_headings_and_examples() {
    let host = Host::configured("");
    for verb in ["set", "unset"] {
        let help = host.run(&[verb, "--help"]).stdout;
        for key in [
            "conda-env ",
            "credentials.NAME ",
            "environment.NAME ",
            "watchdog ",
        ] {
            assert!(help.contains(&format!("\n  {key}")), "{help}");
        }
    }
    let help = host.run(&["--help"]).stdout;
    assert!(help.contains("\nSet up:\n  create "), "{help}");
    assert!(help.contains("\nExamples:\n"), "{help}");
    assert!(!help.contains("\n  service"), "{help}");
    assert!(
        help.lines().all(|line| line.chars().count() <= 80),
        "{help}"
    );
}

#[test]
fn a_mistyped_instance_gets_the_near_one() {
    let host = Host::configured(GOOD);
    for (words, expect) in [
        (&["show", "wroker@gpu"][..], "did you mean `worker@gpu`?"),
        (&["show", "worker@gup"], "did you mean `worker@gpu`?"),
        (&["status", "worker@gup"], "did you mean `worker@gpu`?"),
        (&["logs", "worker@gup"], "did you mean `worker@gpu`?"),
        (&["drain", "mastr"], "did you mean `master`?"),
    ] {
        let outcome = host.run(words);
        assert_ne!(outcome.status, Some(0), "{words:?}");
        assert!(
            outcome.stderr.contains(expect),
            "{words:?}: {}",
            outcome.stderr
        );
    }
    let by_unit = host.run(&["show", "buildbot-worker@gpu.service"]);
    assert_eq!(by_unit, host.run(&["show", "worker@gpu"]));
}

#[test]
fn doctor_sees_a_credential_that_a_process_has_otherwise() {
    let host = Host::configured("[master]\ncredentials = { a = \"a\", b = \"b\", c = \"c\" }\n");
    for (name, text) in [("a", "same"), ("b", "new"), ("c", "new")] {
        let path = format!("etc/buildbot-conda/credentials/{name}");
        host.write(&path, text);
        host.set_mode(&path, 0o600);
    }
    host.set_mode("etc/buildbot-conda/credentials", 0o700);
    let words = ["doctor", "master", "--only", "credentials"];
    assert!(!host.run(&words).stdout.contains("has changed"));
    host.write("run/credentials/buildbot-master.service/a", "same");
    host.write("run/credentials/buildbot-master.service/b", "old");
    let outcome = host.run(&words);
    for (name, expect) in [("a", false), ("b", true), ("c", true)] {
        let seen = format!("the credential `{name}` has changed since the start");
        assert_eq!(outcome.stdout.contains(&seen), expect, "{outcome}");
    }
    assert!(
        outcome
            .stdout
            .contains("systemctl restart buildbot-master.service"),
        "{outcome}"
    );
    assert_eq!(outcome.status, Some(0), "a warning: {outcome}");
}

#[test]
fn a_master_that_goes_names_the_workers_that_stay() {
    let host = Host::configured(
        "[\"master@x\"]\ndirectory = \"/srv/m\"\n[worker]\n[\"worker@y\"]\ndirectory = \"/srv/y\"\n",
    );
    let record = r#"{"master": "localhost:9989", "worker": "y", "instance": "master@x"}"#;
    host.write("var/lib/buildbot-conda/created/worker@y.json", record);
    let outcome = host.run(&["remove", "master@x", "--dry-run"]);
    assert_eq!(outcome.status, Some(0), "{outcome}");
    assert!(
        outcome
            .stdout
            .contains("`worker@y` is a worker of this master"),
        "{outcome}"
    );
    assert!(!outcome.stdout.contains("`worker` is"), "{outcome}");
}

#[test]
fn service_verbs_need_a_running_system() {
    let host = Host::configured(GOOD);
    let expect = said(
        1,
        "",
        "error: `service reload` changes a running system and cannot be used with `--root`\n",
    );
    assert_eq!(host.run(&["service", "reload", "master"]), expect);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let host = Host::configured(GOOD);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = host.command().arg("list").stdout(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn every_verb_is_in_the_readme() {
    let readme = include_str!("../../../../README.md");
    let help = Host::configured("").run(&["--help"]).stdout;
    let commands = help.split("Options:\n").next().unwrap();
    let verbs = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let mut count = 0;
    for line in verbs {
        let verb = line.split_whitespace().next().unwrap();
        let is_named = readme.contains(&format!("`buildbot-conda {verb}"))
            || readme.contains(&format!("`{verb} "));
        assert!(is_named, "`{verb}` is not in the README");
        count += 1;
    }
    assert!(count > 20, "{count}");
}
