//! The questions, driven through the real debconf: preseed, read-back, reconfiguration, bad answers, front ends.

use buildbot_conda_package_tests::{DebianRoot, Release};

const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";

/// One test for each release.
macro_rules! on_both_releases {
    ($($name:ident)*) => {
        mod bookworm { $(#[test] fn $name() { super::$name(super::Release::Bookworm); })* }
        mod trixie { $(#[test] fn $name() { super::$name(super::Release::Trixie); })* }
    };
}

on_both_releases! {
    preseeded_answers_are_written_and_comments_kept
    unusable_preseeds_leave_the_defaults_with_a_warning
    what_an_administrator_wrote_wins_over_debconf
    texts_beyond_the_reader_are_left_alone
    a_broken_configuration_does_not_break_an_upgrade
    nothing_in_the_file_is_executed
    a_terminal_front_end_asks_again_after_a_bad_answer
    a_front_end_without_input_ends
}

fn preseeded_answers_are_written_and_comments_kept(release: Release) {
    let root = DebianRoot::new(release);
    root.preseed("conda-path", "/opt/mini conda%n\"x\"");
    root.preseed("conda-env", "/srv/envs/ci");
    root.install();
    let starter = root.text("/usr/share/buildbot-conda/config.toml");
    let expected = starter
        .replace(
            "conda-root = \"/home/bb/anaconda3\" ",
            "conda-root = '/opt/mini conda%n\"x\"' ",
        )
        .replace("conda-env = \"buildbot\" ", "conda-env = \"/srv/envs/ci\" ");
    assert_eq!(root.text(CONFIGURATION), expected);
}

fn unusable_preseeds_leave_the_defaults_with_a_warning(release: Release) {
    for (path, environment) in [
        ("relative/conda", "-x"),
        ("/opt/a:b", "a/b"),
        ("/opt/../etc", ".."),
    ] {
        let root = DebianRoot::new(release);
        root.preseed("conda-path", path);
        root.preseed("conda-env", environment);
        let talk = root.install().talk();
        assert_eq!(
            root.text(CONFIGURATION),
            root.text("/usr/share/buildbot-conda/config.toml")
        );
        for key in ["conda-root", "conda-env"] {
            let warning = format!("warning: {CONFIGURATION} keeps its `{key}`");
            assert_eq!(talk.matches(&warning).count(), 1, "{talk}");
        }
        // The next run has read the file back: the bad answer is gone.
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(root.answer("conda-path"), "/home/bb/anaconda3");
        assert_eq!(root.answer("conda-env"), "buildbot");
    }
}

fn what_an_administrator_wrote_wins_over_debconf(release: Release) {
    for (line, root_value) in [
        (
            "conda-root = \"/opt/a \\\"b\\\" \\\\c\"   # why",
            "/opt/a \"b\" \\c",
        ),
        ("'conda-root'='/opt/#literal'", "/opt/#literal"),
        ("# no conda-root", "/home/bb/anaconda3"),
    ] {
        let root = DebianRoot::new(release);
        root.install();
        let text = format!(
            "[worker]\nconda-root = \"/worker\"\n[ defaults ] # first\n{line}\n\tconda-env\t=\t\"tabs\"\n[master]\nconda-env = \"/m\"\n"
        );
        root.write(CONFIGURATION, &text);
        root.preseed("conda-path", "/too/late");
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(root.answer("conda-path"), root_value);
        assert_eq!(root.answer("conda-env"), "tabs");
        // A key that was left out is now said, with the value that held.
        if !line.starts_with('#') {
            assert_eq!(root.text(CONFIGURATION), text);
        }
    }
}

fn texts_beyond_the_reader_are_left_alone(release: Release) {
    for text in [
        "[defaults]\nconda-root = \"/opt/\\u00e9\"\nconda-env = \"\"\"x\"\"\"\n",
        "defaults.conda-root = \"/dotted\"\ndefaults.conda-env = \"dotted\"\n",
        "defaults = { conda-root = \"/inline\", conda-env = \"inline\" }\n",
    ] {
        let root = DebianRoot::new(release);
        root.install();
        root.write(CONFIGURATION, text);
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(root.answer("conda-path"), "");
        assert_eq!(root.text(CONFIGURATION), text);
    }
}

fn a_broken_configuration_does_not_break_an_upgrade(release: Release) {
    let root = DebianRoot::new(release);
    root.install();
    let text = "[defaults]\nconda-root = \"/opt/conda\"\n[worker@gpu]\n= what\n";
    root.write(CONFIGURATION, text);
    let talk = root.install().talk();
    assert!(talk.contains("config.toml:3"), "{talk}");
    assert_eq!(root.text(CONFIGURATION), text);
}

fn nothing_in_the_file_is_executed(release: Release) {
    let root = DebianRoot::new(release);
    root.install();
    root.write(
        CONFIGURATION,
        "[defaults]\nconda-root = \"/$(touch /owned)`touch /owned`\"\nconda-env = '$(touch /owned);touch /owned'\n",
    );
    root.must("dpkg-reconfigure buildbot-conda");
    assert_eq!(root.answer("conda-path"), "/$(touch /owned)`touch /owned`");
    assert!(!root.has("/owned"));
}

fn a_terminal_front_end_asks_again_after_a_bad_answer(release: Release) {
    let root = DebianRoot::new(release);
    root.install();
    let talk = root.must(
        "(sleep 2; printf 'relative\\n'; sleep 1; printf '/opt/conda\\n'; sleep 1; printf 'ci\\n'; sleep 1) | \
         DEBIAN_FRONTEND=teletype timeout 30 script -qec 'dpkg-reconfigure buildbot-conda' /dev/null",
    );
    assert!(talk.contains("Not a usable path"), "{talk}");
    let text = root.text(CONFIGURATION);
    assert!(
        text.contains("\nconda-root = \"/opt/conda\" "),
        "{talk}\n{text}"
    );
    assert!(text.contains("\nconda-env = \"ci\" "), "{talk}\n{text}");
}

fn a_front_end_without_input_ends(release: Release) {
    let root = DebianRoot::new(release);
    root.install();
    root.must("DEBIAN_FRONTEND=teletype timeout 20 script -qec 'dpkg-reconfigure buildbot-conda' /dev/null </dev/null || [ $? -ne 124 ]");
    assert_eq!(
        root.text(CONFIGURATION),
        root.text("/usr/share/buildbot-conda/config.toml")
    );
}
