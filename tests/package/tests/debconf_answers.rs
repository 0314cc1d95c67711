//! Answers without a dialogue: preseeded ones, whether valid, unusable or hostile, and those of a front end without a
//! person. From a first installation to the purge.

use buildbot_conda_package_tests::{DebianRoot, Package, Release, on_each_release};

const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";
const STARTER: &str = "/usr/share/buildbot-conda/config.toml";
const LINKS: &str = "/etc/systemd/system/multi-user.target.wants";

/// Every question, with its type and what is offered at first.
const QUESTIONS: [(&str, &str, &str); 6] = [
    ("conda-path", "string", "/home/bb/anaconda3"),
    ("conda-env", "string", "buildbot"),
    ("services", "multiselect", "worker, master"),
    ("user", "string", "bb"),
    ("master-directory", "string", "/home/bb/master"),
    ("worker-directory", "string", "/home/bb/worker"),
];

on_each_release! {
    without_a_person_the_defaults_hold_and_the_questions_stay_unseen,
    every_preseeded_answer_is_acted_on,
    preseeded_services_are_those_that_are_enabled,
    unusable_preseeds_leave_the_defaults_with_a_warning,
    the_documented_preseed_is_what_holds_without_it,
    directories_may_be_preseeded_crosswise,
    an_account_is_made_for_the_asking_and_never_later,
    an_upgrade_asks_what_is_new_and_changes_nothing_unasked,
    answers_outlive_a_removal_and_not_a_purge,
    the_database_of_answers_holds_no_secrets,
}

fn preseed(root: &DebianRoot, answers: &[(&str, &str)]) {
    for (question, value) in answers {
        let (_, kind, _) = QUESTIONS
            .into_iter()
            .find(|(name, ..)| name == question)
            .expect("it is a question");
        root.must(&format!(
            "debconf-set-selections <<'END'\nbuildbot-conda buildbot-conda/{question} {kind} {value}\nEND"
        ));
    }
}

fn enabled(root: &DebianRoot) -> Vec<&'static str> {
    ["master", "worker"]
        .into_iter()
        .filter(|role| root.has(&format!("{LINKS}/buildbot-{role}.service")))
        .collect()
}

fn without_a_person_the_defaults_hold_and_the_questions_stay_unseen(release: Release) {
    let root = DebianRoot::new(release);
    root.must("echo 'SET debconf/priority low' | debconf-communicate");
    root.install();
    assert_eq!(root.text(CONFIGURATION), root.text(STARTER));
    assert_eq!(enabled(&root), ["master", "worker"]);
    for (question, _, offered) in QUESTIONS {
        assert_eq!(root.answer(question), offered);
    }
    // `*` would mean that a person has seen it.
    let shown = root.must("debconf-show buildbot-conda");
    assert!(!shown.contains('*'), "{shown}");
    root.must("dpkg-reconfigure buildbot-conda");
    assert_eq!(root.answer("services"), "master, worker");
    assert_eq!(root.text(CONFIGURATION), root.text(STARTER));
}

fn every_preseeded_answer_is_acted_on(release: Release) {
    let root = DebianRoot::new(release);
    preseed(
        &root,
        &[
            ("conda-path", "/opt/mini conda%n\"x\""),
            ("conda-env", "/srv/envs/ci"),
            ("user", "ci"),
            ("master-directory", "/srv/ci/master:1"),
            ("worker-directory", "/srv/ci/worker"),
        ],
    );
    root.install();
    let expected = root
        .text(STARTER)
        .replace(
            "conda-root = \"/home/bb/anaconda3\" ",
            "conda-root = '/opt/mini conda%n\"x\"' ",
        )
        .replace("conda-env = \"buildbot\" ", "conda-env = \"/srv/envs/ci\" ")
        .replace("user = \"bb\" ", "user = \"ci\" ")
        .replace("\"/home/bb/master\"", "\"/srv/ci/master:1\"")
        .replace("\"/home/bb/worker\"", "\"/srv/ci/worker\"");
    assert_eq!(root.text(CONFIGURATION), expected);
    root.must("buildbot-conda check");
    let account = root.must("getent passwd ci");
    assert!(account.ends_with(":/home/ci:/bin/bash\n"), "{account}");
    assert_eq!(root.run("getent passwd bb").stdout, "");
}

fn preseeded_services_are_those_that_are_enabled(release: Release) {
    for (value, expected) in [
        ("master", &["master"][..]),
        ("worker", &["worker"]),
        ("master,worker", &["master", "worker"]),
        ("", &[]),
    ] {
        let root = DebianRoot::new(release);
        preseed(&root, &[("services", value)]);
        root.install();
        assert_eq!(enabled(&root), expected, "{value}");
        // Neither a reinstallation nor a reconfiguration enables what was left out.
        root.install();
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(enabled(&root), expected, "{value}");
        assert_eq!(root.answer("services"), expected.join(", "));
    }
}

fn unusable_preseeds_leave_the_defaults_with_a_warning(release: Release) {
    let long = format!("/{}", "a".repeat(256));
    let longer = "/a".repeat(2500);
    for [path, environment, user, directory] in [
        ["relative/conda", "-x", "0", "relative"],
        ["/opt/a:b", "a/b", "a b", "/"],
        ["/opt/../etc", "..", "-x", "/srv/.."],
        [&long, "a\\b", "x;touch /owned", &longer],
        ["$(touch /owned)", "~bb", "Nobody-Here", "\u{85}"],
    ] {
        let root = DebianRoot::new(release);
        preseed(
            &root,
            &[
                ("conda-path", path),
                ("conda-env", environment),
                ("services", "everything"),
                ("user", user),
                ("master-directory", directory),
                ("worker-directory", directory),
            ],
        );
        let talk = root.install().talk();
        assert_eq!(root.text(CONFIGURATION), root.text(STARTER), "{talk}");
        assert_eq!(enabled(&root), ["master", "worker"]);
        for (key, times) in [
            ("conda-root", 1),
            ("conda-env", 1),
            ("user", 1),
            ("directory", 2),
        ] {
            let warning = format!("warning: `{key}` in {CONFIGURATION} is not changed");
            assert_eq!(talk.matches(&warning).count(), times, "{key}: {talk}");
        }
        assert!(
            talk.contains("warning: the debconf answer about services"),
            "{talk}"
        );
        assert!(!root.has("/owned"));
        root.must("getent passwd bb");
        // The next run has read back what is in force: the bad answers are gone.
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(root.answer("conda-path"), "/home/bb/anaconda3");
        assert_eq!(root.answer("conda-env"), "buildbot");
        assert_eq!(root.answer("user"), "bb");
        assert_eq!(root.answer("services"), "master, worker");
        assert_eq!(root.answer("master-directory"), "/home/bb/master");
    }
}

fn the_documented_preseed_is_what_holds_without_it(release: Release) {
    let document = Package::open().text("/usr/share/doc/buildbot-conda/README.Debian");
    let lines: Vec<&str> = document
        .lines()
        .skip_while(|line| !line.contains("debconf-set-selections"))
        .take_while(|line| !line.is_empty())
        .map(|line| line.strip_prefix("  ").expect("commands are indented"))
        .collect();
    for (question, kind, _) in QUESTIONS {
        let start = format!("buildbot-conda buildbot-conda/{question} {kind} ");
        assert!(lines.iter().any(|line| line.starts_with(&start)), "{start}");
    }
    let root = DebianRoot::new(release);
    root.must(&lines.join("\n"));
    let talk = root.install().talk();
    assert!(!talk.contains("warning"), "{talk}");
    assert_eq!(root.text(CONFIGURATION), root.text(STARTER));
    assert_eq!(enabled(&root), ["master", "worker"]);
}

fn directories_may_be_preseeded_crosswise(release: Release) {
    let root = DebianRoot::new(release);
    preseed(
        &root,
        &[
            ("master-directory", "/home/bb/worker"),
            ("worker-directory", "/srv/worker"),
        ],
    );
    let talk = root.install().talk();
    assert!(!talk.contains("warning"), "{talk}");
    let text = root.text(CONFIGURATION);
    assert!(text.contains("\n[master]\ndirectory = \"/home/bb/worker\"\n"));
    assert!(text.contains("\n[worker]\ndirectory = \"/srv/worker\"\n"));
}

fn an_account_is_made_for_the_asking_and_never_later(release: Release) {
    let root = DebianRoot::new(release);
    // An existing account is used, whatever it is.
    root.must("useradd --create-home --shell /bin/sh Bertha");
    let before = root.must("getent passwd Bertha");
    preseed(&root, &[("user", "Bertha")]);
    root.install();
    assert!(root.text(CONFIGURATION).contains("user = \"Bertha\""));
    assert_eq!(root.must("getent passwd Bertha"), before);
    // One that is written into the file and missing may be so for a reason.
    root.must("sed -i 's/\"Bertha\"/\"away\"/' /etc/buildbot-conda/config.toml");
    root.install();
    root.must("dpkg-reconfigure buildbot-conda");
    assert_eq!(root.run("getent passwd away").stdout, "");
    root.must("dpkg --purge buildbot-conda");
    assert_eq!(root.must("getent passwd Bertha"), before);
}

/// Makes, in the root, a package of an earlier version that asks for path and environment alone.
fn earlier_version(root: &DebianRoot) {
    root.must(
        r#"cd /root
        dpkg-deb --raw-extract /buildbot-conda.deb old
        sed -i 's/^Version: .*/Version: 0.0.1/' old/DEBIAN/control
        sed -i '/services$/,$d' old/DEBIAN/templates
        cat >old/DEBIAN/config <<'END'
#!/bin/sh
set -e
. /usr/share/debconf/confmodule
db_input high buildbot-conda/conda-path || true
db_input medium buildbot-conda/conda-env || true
db_go || true
END
        cat >old/DEBIAN/postinst <<'END'
#!/bin/sh
set -e
. /usr/share/debconf/confmodule
db_get buildbot-conda/conda-path
install -D -m 0644 /usr/share/buildbot-conda/config.toml /etc/buildbot-conda/config.toml
buildbot-conda set conda-root "$RET" >&2
for role in master worker; do
    deb-systemd-helper enable buildbot-$role.service >&2
done
END
        dpkg-deb --root-owner-group -Znone --build old"#,
    );
}

fn an_upgrade_asks_what_is_new_and_changes_nothing_unasked(release: Release) {
    let root = DebianRoot::new(release);
    earlier_version(&root);
    preseed(&root, &[("conda-path", "/opt/conda")]);
    root.must("apt-get install --yes --no-install-recommends /root/old.deb </dev/null");
    root.must("echo '# mine' >>/etc/buildbot-conda/config.toml; systemctl disable buildbot-worker");
    let before = root.text(CONFIGURATION);
    root.install();
    assert_eq!(root.text(CONFIGURATION), before);
    assert_eq!(enabled(&root), ["master"]);
    for (question, value) in [
        ("conda-path", "/opt/conda"),
        ("services", "master"),
        ("user", "bb"),
        ("worker-directory", "/home/bb/worker"),
    ] {
        assert_eq!(root.answer(question), value);
    }
}

fn answers_outlive_a_removal_and_not_a_purge(release: Release) {
    let root = DebianRoot::new(release);
    preseed(
        &root,
        &[("conda-path", "/opt/conda"), ("services", "worker")],
    );
    root.install();
    root.must("dpkg --remove buildbot-conda");
    // In between, the file and systemd's links remain authoritative.
    root.must("sed -i 's/conda\"/other\"/' /etc/buildbot-conda/config.toml");
    let before = root.text(CONFIGURATION);
    root.install();
    assert_eq!(root.text(CONFIGURATION), before);
    assert_eq!(root.answer("conda-path"), "/opt/other");
    assert_eq!(enabled(&root), ["worker"]);

    root.must("dpkg --purge buildbot-conda");
    assert_eq!(root.must("debconf-show buildbot-conda"), "");
    assert!(
        !root
            .must("cat /var/cache/debconf/*.dat")
            .contains("buildbot-conda/")
    );
    root.install();
    assert_eq!(root.text(CONFIGURATION), root.text(STARTER));
    assert_eq!(enabled(&root), ["master", "worker"]);
}

fn the_database_of_answers_holds_no_secrets(release: Release) {
    let root = DebianRoot::installed(release);
    root.must(
        "umask 077; echo top-secret-1 >/etc/buildbot-conda/credentials/worker-password\n\
         printf '[master.environment]\\nTOKEN = \"top-secret-2\"\\n' >>/etc/buildbot-conda/config.toml",
    );
    root.must("dpkg-reconfigure buildbot-conda");
    let found = root.run("grep -rl top-secret /var/cache/debconf /var/lib/dpkg /var/log");
    assert_eq!(found.stdout, "");
    let templates = root.text("/var/lib/dpkg/info/buildbot-conda.templates");
    assert!(!templates.contains("Type: password"));
}
