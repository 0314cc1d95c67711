//! `--dry-run` of the verbs that change an apt repository: what is printed is what is then done, and nothing is, before.

use buildbot_conda_package_tests::{Release, RepositoryHost, deb};

/// Every file with its contents, and every link.
const STATE: &str = "cd /srv/apt; find . -type f -exec sha256sum {} + -o -printf '%p %l\\n' | sort";

#[test]
fn what_is_planned_is_what_is_done() {
    let host = RepositoryHost::new(Release::Trixie);
    let create = format!(
        "buildbot-conda repo create /srv/apt --name example --key {} --url http://apt.example",
        host.key()
    );
    let planned = host.must(&format!("{create} --dry-run"));
    assert!(!host.root().has("/srv/apt"));
    host.must(&create);
    let settings = host.root().text("/srv/apt/repository.toml");
    let settings = settings.trim_end().replace('\n', "\n    ");
    assert_eq!(
        planned,
        format!("create `/srv/apt`\nwrite `/srv/apt/repository.toml`:\n    {settings}\n")
    );

    host.must("for version in 1 2 3; do hello $version; done");
    let [one, two, three] = ["1", "2", "3"].map(deb);
    let until = "valid until Sat, 20 Feb 2027";
    for (second, words, plan) in [
        (
            0,
            format!("add /srv/apt {one} {two}"),
            format!("add: hello 1 all\nadd: hello 2 all\nsign: 2 packages, {until} 12:00:00 UTC\n"),
        ),
        (
            1,
            format!("add /srv/apt {two} {three} --keep 1"),
            format!(
                "add: hello 3 all\nalready contains: hello 2 all\ndrop: hello 1 all\ndrop: hello 2 all\n\
                 sign: 1 package, {until} 12:00:01 UTC\n"
            ),
        ),
        (
            2,
            "refresh /srv/apt".to_owned(),
            format!("sign: 1 package, {until} 12:00:02 UTC\n"),
        ),
    ] {
        // Noon of 22 November 2026, and seconds later.
        let call = format!(
            "SOURCE_DATE_EPOCH={} buildbot-conda repo {words}",
            1_795_348_800 + second
        );
        let before = host.must(STATE);
        let planned = host.run(&format!("{call} --dry-run"));
        assert_eq!(
            (
                planned.status,
                planned.stdout.as_str(),
                planned.stderr.as_str()
            ),
            (0, plan.as_str(), "")
        );
        assert_eq!(host.must(STATE), before);
        let done = host.run(&call);
        let expected = format!("{plan}for clients: `/srv/apt/example.sources`\n");
        assert_eq!(
            (done.status, done.stdout.as_str(), done.stderr.as_str()),
            (0, "", expected.as_str())
        );
        assert_ne!(host.must(STATE), before);
    }
}

#[test]
fn what_is_refused_is_refused_beforehand() {
    let host = RepositoryHost::new(Release::Bookworm);
    let key = host.key();
    host.must("mkdir /srv/empty");
    for (words, message) in [
        (
            "refresh /srv/empty --dry-run".to_owned(),
            "error: repository `/srv/empty` not found\nhint: create one with `repo create`\n",
        ),
        (
            format!(
                "create /srv/apt --key {} --url http://apt.example --dry-run",
                "0".repeat(40)
            ),
            "error: the key 0000000000000000000000000000000000000000 is not among the secret keys of this gpg\n",
        ),
    ] {
        let refused = host.run(&format!("buildbot-conda repo {words}"));
        assert_eq!(
            (refused.status, refused.stdout.as_str()),
            (1, ""),
            "{words}"
        );
        assert!(refused.stderr.starts_with(message), "{}", refused.stderr);
    }
    assert_eq!(
        host.must("find /srv/empty /srv/apt 2>/dev/null || true"),
        "/srv/empty\n"
    );

    host.must(&format!(
        "buildbot-conda repo create /srv/apt --key {key} --url http://apt.example; echo no >/srv/debs/no.deb"
    ));
    let before = host.must(STATE);
    for (words, message) in [
        (
            "refresh /srv/apt",
            "error: `/srv/apt` contains no packages yet\nhint: add one with `repo add`\n",
        ),
        (
            "add /srv/apt /srv/debs/no.deb",
            "error: reject `/srv/debs/no.deb`: ",
        ),
        (
            "add /srv/apt /srv/debs/none.deb",
            "error: read `/srv/debs/none.deb`: ",
        ),
    ] {
        let refused = host.run(&format!("buildbot-conda repo {words} --dry-run"));
        assert_eq!(
            (refused.status, refused.stdout.as_str()),
            (1, ""),
            "{words}"
        );
        assert!(refused.stderr.starts_with(message), "{}", refused.stderr);
        assert_eq!(host.must(STATE), before);
    }
}
