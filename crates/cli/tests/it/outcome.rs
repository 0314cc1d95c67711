//! What all verbs have in common that change something: `--json` is one document, with or without `--dry-run`, and whoever
//! repeats one changes nothing.

use serde_json::{Value, json};

use crate::create::data::host_with_table;
use crate::house::{CONFIGURATION, Host};

/// A host with a created master and worker, an environment, and nginx.
fn host() -> Host {
    let host = host_with_table("[worker]\n[gpu]\nslots = 2\n");
    host.write(
        "var/lib/buildbot-conda/created/worker@gpu.json",
        r#"{"master": "ci.example.org:9989", "worker": "gpu", "asked": {"tls": true, "slots": 2}}"#,
    );
    let text = std::fs::read_to_string(host.path(CONFIGURATION)).unwrap();
    let table = "[\"worker@gpu\"]\ndirectory = \"/home/bb/gpu\"\nuser = \"bb\"\n\
                 credentials = { password = \"password-of-gpu\" }\n";
    host.write(CONFIGURATION, &format!("{text}\n{table}"));
    host.write("etc/buildbot-conda/credentials/password-of-gpu", "secret\n");
    host.write("home/bb/gpu/buildbot.tac", "");
    host.write("home/bb/master/buildbot.tac", "");
    host.write("beside/right", "secret\n");
    host.write("beside/wrong", "other\n");
    host
}

/// Runs with `--json`; what is printed, as JSON.
#[track_caller]
fn printed(host: &Host, words: &[&str]) -> Value {
    let said = host.run(&[words, &["--json"]].concat());
    assert_eq!(said.status, Some(0), "{words:?}: {said}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
}

#[test]
fn a_dry_run_prints_one_document_with_the_steps_of_its_text() {
    for (words, changed) in [
        (&["create", "master"][..], false),
        (&["create", "master", "nightly"], true),
        (&["create", "worker", "gpu"], false),
        (&["create", "worker", "more", "--user=bb"], true),
        (&["remove", "worker@gpu"], true),
        (&["remove", "worker@gpu", "--data"], true),
        (&["remove", "worker@none"], false),
        (&["adopt"], false),
        (&["convert"], false),
        (&["invite", "new"], true),
        (&["revoke", "gpu"], true),
        (&["revoke", "new"], false),
        (&["web", "hide", "master"], false),
        (&["headless", "on"], true),
        (&["headless", "off"], false),
    ] {
        let host = host();
        let before = host.snapshot();
        let dry = [words, &["--dry-run"]].concat();
        let found = printed(&host, &dry);
        assert_eq!(host.snapshot(), before, "{words:?}");
        let kind = (&found["changed"], &found["dry_run"]);
        assert_eq!(kind, (&json!(changed), &json!(true)), "{words:?}: {found}");
        let keys = found.as_object().unwrap();
        assert!(
            keys.contains_key("before") && !keys.contains_key("after"),
            "{found}"
        );
        let steps: Vec<&str> = found["steps"]
            .as_array()
            .map(|steps| steps.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        assert_eq!(steps.is_empty(), !changed, "{words:?}: {found}");
        let text = host.run(&dry).stdout;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        // Names and keys of an invitation are made anew each time.
        if words[0] != "invite" {
            assert_eq!(
                lines.collect::<Vec<_>>(),
                steps.join("\n").lines().collect::<Vec<_>>(),
                "{words:?}"
            );
        }
        assert!(!found.to_string().contains("secret"), "{found}");
    }
}

#[test]
fn a_repetition_changes_nothing_and_says_so() {
    let host = host();
    host.link(
        "etc/systemd/system/default.target",
        "/lib/systemd/system/graphical.target",
    );
    for (words, before, after) in [
        (
            &["headless", "on"][..],
            json!({"headless": false, "target": "graphical.target", "before": null}),
            json!({"headless": true, "target": "multi-user.target", "before": "graphical.target"}),
        ),
        (&["set", "worker", "nice", "5"], Value::Null, json!("5")),
        (&["set", "drain", "1min"], Value::Null, json!("1min")),
        (&["unset", "drain"], json!("1min"), Value::Null),
        (
            &["set", "worker", "environment.LANG", "C"],
            Value::Null,
            json!("C"),
        ),
    ] {
        let dry = printed(&host, &[words, &["--dry-run"]].concat());
        assert_eq!((&dry["changed"], &dry["before"]), (&json!(true), &before));
        let first = printed(&host, words);
        let found = (&first["changed"], &first["before"], &first["after"]);
        assert_eq!(found, (&json!(true), &before, &after), "{words:?}");
        let snapshot = host.snapshot();
        let second = printed(&host, words);
        let found = (&second["changed"], &second["before"], &second["after"]);
        assert_eq!(found, (&json!(false), &after, &after), "{words:?}");
        assert_eq!(host.snapshot(), snapshot, "{words:?}");
    }
}

#[test]
fn an_instance_that_exists_is_created_again_by_the_same_words_alone() {
    let host = host();
    let right = host.path("beside/right").display().to_string();
    let wrong = host.path("beside/wrong").display().to_string();
    let (right, wrong) = (
        format!("--password-file={right}"),
        format!("--password-file={wrong}"),
    );
    let gpu = ["create", "worker", "gpu"];
    for (words, status) in [
        (&[][..], 0),
        (&["--user=bb", "--directory=/home/bb/gpu"], 0),
        (&["--master=ci.example.org", "--tls", "--slots=2"], 0),
        (&["--worker-name=gpu"], 0),
        (&[&right], 0),
        (&["--user=other"], 1),
        (&["--directory=/home/bb/other"], 1),
        (&["--conda-env=other"], 1),
        (&["--master=other.example.org"], 1),
        (&["--worker-name=other"], 1),
        (&["--master=ci.example.org", "--tls", "--slots=3"], 1),
        (&[&wrong], 1),
    ] {
        let words: Vec<&str> = words.to_vec();
        let said = host.run(&[&gpu[..], &words, &["--dry-run"]].concat());
        assert_eq!(said.status, Some(status), "{words:?}: {said}");
        let is_told = said.stderr.contains("nothing to do");
        assert_eq!(is_told, status == 0, "{words:?}: {said}");
    }
}

#[test]
fn what_fails_prints_nothing_on_standard_output() {
    let host = host();
    for (words, status) in [
        (
            &["create", "worker", "gpu", "--slots=3", "--dry-run"][..],
            1,
        ),
        (&["rotate", "new", "--dry-run"], 1),
        (&["set", "colour", "red"], 78),
        (&["remove", "worker@gpu"], 1),
    ] {
        let said = host.run(&[words, &["--json"]].concat());
        assert_eq!(
            (said.status, said.stdout.as_str()),
            (Some(status), ""),
            "{said}"
        );
        assert!(said.stderr.contains("error: "), "{said}");
    }
}
