//! `repo` where no key is needed: its grammar, and what it refuses before it asks gpg. What it publishes is tried in
//! whole Debians, by the tests of the package.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

const KEY: &str = "4C9EC1C0A136183CF945DFE2ABC9C38EF6B9DA80";

/// Exit status, standard output and standard error, `directory` called `DIR`.
fn run(directory: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let name = directory.to_str().unwrap();
    let words = words.iter().map(|word| word.replace("DIR", name));
    let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
        .arg("repo")
        .args(words)
        .env_remove("SOURCE_DATE_EPOCH")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(name, "DIR");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn refused(message: &str) -> (Option<i32>, String, String) {
    (Some(1), String::new(), message.to_owned())
}

#[test]
fn a_directory_without_a_repository_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for words in [
        &["add", "DIR", "x.deb"][..],
        &["add", "DIR", "x.deb", "--dry-run"],
        &["refresh", "DIR"],
        &["refresh", "DIR", "--dry-run"],
        &["verify", "DIR"],
        &["verify", "DIR", "--json"],
    ] {
        assert_eq!(
            run(directory.path(), words),
            refused("error: no repository in `DIR`\nhint: `repo create` makes one\n"),
            "{words:?}"
        );
    }
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}

#[test]
fn a_repository_is_not_made_twice() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("repository.toml"), "mine\n").unwrap();
    let expect = refused(
        "error: `DIR/repository.toml` is there already\n\
         hint: `repo add` extends the repository; its settings can be edited\n",
    );
    let words = ["create", "DIR", "--key", KEY, "--url", "http://apt.example"];
    assert_eq!(run(directory.path(), &words), expect);
    let dry = [&words[..], &["--dry-run"]].concat();
    assert_eq!(run(directory.path(), &dry), expect);
}

#[test]
fn settings_that_are_no_good_are_named_with_their_place() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("repository.toml"), "nme = \"x\"\n").unwrap();
    let (status, stdout, stderr) = run(directory.path(), &["verify", "DIR"]);
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.starts_with("error: DIR/repository.toml:1: nme: unknown key"),
        "{stderr}"
    );
}

#[test]
fn a_repository_without_packages_is_verified_and_lists_none() {
    let directory = tempfile::tempdir().unwrap();
    let settings = format!(
        "name = \"example\"\nurl = \"http://apt.example\"\nsuite = \"stable\"\nkeys = [\"{KEY}\"]\nvalid-for = \"90days\"\n"
    );
    fs::write(directory.path().join("repository.toml"), settings).unwrap();
    assert_eq!(
        run(directory.path(), &["verify", "DIR"]),
        (Some(0), String::new(), String::new())
    );
    let json = "{\n  \"suite\": \"stable\",\n  \"date\": null,\n  \"valid_until\": null,\n  \"signed_by\": [],\n  \
                \"packages\": []\n}\n";
    assert_eq!(
        run(directory.path(), &["verify", "DIR", "--json"]),
        (Some(0), json.to_owned(), String::new())
    );
}

#[test]
fn what_is_no_key_url_or_word_is_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
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
        let (status, stdout, stderr) = run(directory.path(), words);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(!stderr.is_empty(), "{words:?}");
    }
    assert!(fs::read_dir(directory.path()).unwrap().next().is_none());
}
