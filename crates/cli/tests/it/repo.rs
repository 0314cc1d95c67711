//! `repo` without a key: its grammar, and what it refuses before it asks gpg. The tests of the package publish
//! repositories in complete Debian systems.

use std::fs;

use crate::house::{Host, Said, said};

const KEY: &str = "4C9EC1C0A136183CF945DFE2ABC9C38EF6B9DA80";

/// `repo` with `DIR` for the root directory of `host`, both in its arguments and in its output.
fn run(host: &Host, words: &[&str]) -> Said {
    let words = words.iter().map(|word| word.replace("DIR", &host.root()));
    let mut command = host.command_without_root();
    host.said_with(command.arg("repo").args(words), "DIR")
}

fn refused(message: &str) -> Said {
    said(1, "", message)
}

#[test]
fn a_directory_without_a_repository_is_refused() {
    let host = Host::empty();
    for words in [
        &["add", "DIR", "x.deb"][..],
        &["add", "DIR", "x.deb", "--dry-run"],
        &["refresh", "DIR"],
        &["refresh", "DIR", "--dry-run"],
        &["verify", "DIR"],
        &["verify", "DIR", "--json"],
    ] {
        assert_eq!(
            run(&host, words),
            refused("error: repository `DIR` not found\nhint: create one with `repo create`\n"),
            "{words:?}"
        );
    }
    assert!(fs::read_dir(host.path("")).unwrap().next().is_none());
}

#[test]
fn a_repository_is_not_made_twice() {
    let host = Host::empty();
    host.write("repository.toml", "mine\n");
    let expect = refused(
        "error: `DIR/repository.toml` already exists\n\
         hint: extend the repository with `repo add`, or edit its settings\n",
    );
    let words = ["create", "DIR", "--key", KEY, "--url", "http://apt.example"];
    assert_eq!(run(&host, &words), expect);
    let dry = [&words[..], &["--dry-run"]].concat();
    assert_eq!(run(&host, &dry), expect);
}

#[test]
fn settings_that_are_no_good_are_named_with_their_place() {
    let host = Host::empty();
    host.write("repository.toml", "nme = \"x\"\n");
    let Said {
        status,
        stdout,
        stderr,
    } = run(&host, &["verify", "DIR"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.starts_with("error: DIR/repository.toml:1: nme: unknown key"),
        "{stderr}"
    );
}

#[test]
fn a_repository_without_packages_is_verified_and_lists_none() {
    let host = Host::empty();
    let settings = format!(
        "name = \"example\"\nurl = \"http://apt.example\"\nsuite = \"stable\"\nkeys = [\"{KEY}\"]\nvalid-for = \"90days\"\n"
    );
    host.write("repository.toml", &settings);
    assert_eq!(run(&host, &["verify", "DIR"]), said(0, "", ""));
    let json = "{\n  \"suite\": \"stable\",\n  \"date\": null,\n  \"valid_until\": null,\n  \"signed_by\": [],\n  \
                \"packages\": []\n}\n";
    assert_eq!(run(&host, &["verify", "DIR", "--json"]), said(0, json, ""));
}

#[test]
fn what_is_no_key_url_or_word_is_a_usage_error() {
    let host = Host::empty();
    let url = "http://apt.example";
    for words in [
        &["create", "DIR", "--url", url][..],
        &["create", "DIR", "--key", KEY],
        &["create", "DIR", "--key", "0x1234", "--url", url],
        &["create", "DIR", "--key", KEY, "--url", "apt.example"],
        &["create", "DIR", "--key", KEY, "--url", url, "--name", "a b"],
        &["create", "DIR", "--key", KEY, "--url", url, "--suite", ".."],
        &[
            "create",
            "DIR",
            "--key",
            KEY,
            "--url",
            url,
            "--valid-for",
            "ever",
        ],
        &["create", "DIR", "--key", KEY, "--url", url, "--keep", "0"],
        &["add", "DIR"],
        &["verify", "DIR", "--dry-run"],
        &[],
    ] {
        let Said {
            status,
            stdout,
            stderr,
        } = run(&host, words);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(!stderr.is_empty(), "{words:?}");
    }
    assert!(fs::read_dir(host.path("")).unwrap().next().is_none());
}
