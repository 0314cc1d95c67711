//! What an interrupted command has left, as far as it can be seen without a running system: `recover --dry-run`, and
//! `doctor`, which names the command.

use expect_test::{Expect, expect};

use crate::house::Host;

/// A host whose journal is `text`.
fn host(text: Option<&str>) -> Host {
    let host = Host::configured("");
    host.create_directory("var/lib/buildbot-conda");
    if let Some(text) = text {
        host.write("var/lib/buildbot-conda/unfinished.json", text);
    }
    host
}

#[track_caller]
fn check(host: &Host, words: &[&str], expect: &Expect) {
    expect.assert_eq(&host.run(words).to_string());
}

const CREATED: &str = r#"{"version": 1, "title": "create worker gpu", "undo": [
    {"configure": {"path": "/etc/buildbot-conda/config.toml", "before": "b", "after": "a",
     "references": ["worker@gpu"], "lines": ["restore the previous content"]}},
    {"remove-account": {"name": "bb-worker", "home": "/home/bb-worker"}}]}"#;

const REMOVED: &str = r#"{"version": 2, "title": "remove master", "undo": [], "remaining": [
    {"clear": {"user": "bb", "group": null, "directory": "/home/bb/master", "keep": false}},
    {"remove-tree": {"path": "/var/lib/buildbot-conda/instances/master"}}]}"#;

#[test]
fn what_is_unfinished_is_shown_before_it_is_rolled_back() {
    let host = host(Some(CREATED));
    check(
        &host,
        &["recover", "--dry-run"],
        &expect![[r#"
        status 0
        stdout:
        in `/etc/buildbot-conda/config.toml`:
            restore the previous content
        remove the account `bb-worker`
        reload systemd units
        stderr:
        `buildbot-conda create worker gpu` was interrupted, rolling it back:
    "#]],
    );
    check(
        &host,
        &["recover", "--give-up", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            in `/etc/buildbot-conda/config.toml`:
                restore the previous content
            remove the account `bb-worker`
            reload systemd units
            stderr:
            `buildbot-conda create worker gpu` was interrupted, these steps would be discarded:
        "#]],
    );
    check(
        &host,
        &["recover"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `recover` changes a running system and cannot be used with `--root`
        hint: `--dry-run` shows the steps
    "#]],
    );
    check(
        &host,
        &["doctor", "--only", "unfinished"],
        &expect![[r#"
        status 1
        stdout:
        problem: unfinished: `buildbot-conda create worker gpu` was interrupted
            buildbot-conda recover
            hint: `buildbot-conda recover --dry-run` shows the steps
        1 problem, no warnings, 0 in order
        stderr:
    "#]],
    );
}

#[test]
fn what_has_lost_its_data_is_completed() {
    let host = host(Some(REMOVED));
    check(
        &host,
        &["recover", "--dry-run"],
        &expect![[r#"
        status 0
        stdout:
        as `bb`, remove `/home/bb/master`
        remove `/var/lib/buildbot-conda/instances/master` and its contents
        stderr:
        `buildbot-conda remove master` was interrupted, completing it:
    "#]],
    );
}

#[test]
fn nothing_is_unfinished_on_a_host_in_order() {
    let host = host(None);
    check(
        &host,
        &["recover", "--dry-run"],
        &expect![[r#"
        status 0
        stdout:
        stderr:
        no command was interrupted
    "#]],
    );
    check(
        &host,
        &["doctor", "--only", "unfinished", "--all"],
        &expect![[r#"
            status 0
            stdout:
            ok: unfinished: no command was interrupted
            no problems, no warnings, 1 in order
            stderr:
        "#]],
    );
}

#[test]
fn the_journal_of_another_version_is_named_with_the_way_out() {
    let host = host(Some("{\"version\": 7}"));
    check(
        &host,
        &["recover", "--dry-run"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `/var/lib/buildbot-conda/unfinished.json` cannot be read by this version of `buildbot-conda`: its format is 7 instead of 2
        hint: use the version that wrote it to complete or roll back the command, or discard it with `buildbot-conda recover --give-up`
    "#]],
    );
    check(
        &host,
        &["doctor", "--only", "unfinished"],
        &expect![[r#"
        status 1
        stdout:
        problem: unfinished: `/var/lib/buildbot-conda/unfinished.json` cannot be read by this version of `buildbot-conda`: its format is 7 instead of 2
            buildbot-conda recover --give-up
        1 problem, no warnings, 0 in order
        stderr:
    "#]],
    );
}
