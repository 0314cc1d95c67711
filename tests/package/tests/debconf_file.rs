//! The configuration file is the truth: what debconf reads back of it, and that nothing else of it changes.

use buildbot_conda_package_tests::{DebianRoot, Release, on_each_release};

const CONFIGURATION: &str = "/etc/buildbot-conda/config.toml";

on_each_release! {
    every_way_to_write_a_text_is_read_back_and_left_alone,
    what_is_left_out_has_the_default_and_stays_left_out,
    every_table_is_read_and_left_alone,
    a_preseed_after_the_first_installation_changes_nothing,
    a_broken_configuration_does_not_break_an_upgrade,
    nothing_in_the_file_is_executed,
    a_file_that_was_there_before_is_used_as_it_is,
}

fn every_way_to_write_a_text_is_read_back_and_left_alone(release: Release) {
    let installed = DebianRoot::installed(release);
    for (line, value) in [
        (
            "conda-root = \"/opt/a \\\"b\\\" \\\\c\"   # why",
            "/opt/a \"b\" \\c",
        ),
        ("'conda-root'='/opt/#literal'", "/opt/#literal"),
        (
            "conda-root = '/opt/two  blanks\\and $HOME'",
            "/opt/two  blanks\\and $HOME",
        ),
        ("conda-root = '/opt/100%n'\r", "/opt/100%n"),
        ("conda-root = '/opt/Grüße'", "/opt/Grüße"),
    ] {
        let root = installed.fork();
        let text = format!(
            "[worker]\nconda-root = \"/worker\"\ndirectory = '/srv/w'\n[ defaults ] # first\n{line}\n\tconda-env\t=\t\"tabs\"\n\
             [ \"master\" ]\nconda-env = \"/m\"\ndirectory = \"/srv/m\" # there\n[\"worker@gpu\"]\ndirectory = '/srv/g'\n"
        );
        root.write(CONFIGURATION, &text);
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(root.answer("conda-path"), value);
        assert_eq!(root.answer("conda-env"), "tabs");
        assert_eq!(root.answer("user"), "bb");
        assert_eq!(root.answer("master-directory"), "/srv/m");
        assert_eq!(root.answer("worker-directory"), "/srv/w");
        assert_eq!(root.text(CONFIGURATION), text);
    }
}

fn what_is_left_out_has_the_default_and_stays_left_out(release: Release) {
    let root = DebianRoot::installed(release);
    // There is no worker, so its directory is unused.
    let text = "# mine\n[master]\nlog = \"both\"\n";
    root.write(CONFIGURATION, text);
    root.install();
    root.must("dpkg-reconfigure buildbot-conda");
    assert_eq!(root.text(CONFIGURATION), text);
    for (question, value) in [
        ("conda-path", "/home/bb/anaconda3"),
        ("conda-env", "buildbot"),
        ("user", "bb"),
        ("master-directory", "/home/bb/master"),
        ("worker-directory", ""),
    ] {
        assert_eq!(root.answer(question), value, "{question}");
    }
}

fn every_table_is_read_and_left_alone(release: Release) {
    let installed = DebianRoot::installed(release);
    for (text, value) in [
        (
            "[defaults]\nconda-root = \"/opt/\\u00e9\"\nconda-env = \"\"\"x\"\"\"\n",
            "/opt/é",
        ),
        ("defaults.conda-root = \"/dotted\"\n", "/dotted"),
        ("defaults = { conda-root = \"/inline\" }\n", "/inline"),
        // What no answer can be.
        ("[defaults]\nconda-root = \"/opt/a\\nb\"\n", ""),
        ("[defaults]\nconda-root = \"/opt\"\n= what\n", ""),
    ] {
        let root = installed.fork();
        root.write(CONFIGURATION, text);
        root.must("dpkg-reconfigure buildbot-conda");
        assert_eq!(root.answer("conda-path"), value);
        assert_eq!(root.text(CONFIGURATION), text);
    }
}

fn a_preseed_after_the_first_installation_changes_nothing(release: Release) {
    let root = DebianRoot::installed(release);
    let before = root.text(CONFIGURATION);
    root.preseed("conda-path", "/too/late");
    root.preseed("user", "too-late");
    root.must("dpkg-reconfigure buildbot-conda");
    assert_eq!(root.answer("conda-path"), "/home/bb/anaconda3");
    root.preseed("conda-path", "/too/late");
    root.install();
    assert_eq!(root.text(CONFIGURATION), before);
    assert_eq!(root.run("getent passwd too-late").stdout, "");
}

fn a_broken_configuration_does_not_break_an_upgrade(release: Release) {
    let root = DebianRoot::installed(release);
    let text = "[defaults]\nconda-root = \"/opt/conda\"\n[worker@gpu]\n= what\n";
    root.write(CONFIGURATION, text);
    let talk = root.install().talk();
    assert!(talk.contains("config.toml:3"), "{talk}");
    assert_eq!(root.text(CONFIGURATION), text);
    root.must(
        "printf '[defaults]\\nconda-root = \"/opt/\\377\"\\n' >/etc/buildbot-conda/config.toml",
    );
    root.install();
    root.must("rm /etc/buildbot-conda/config.toml; mkdir /etc/buildbot-conda/config.toml");
    root.install();
    assert_eq!(root.must("dpkg --audit"), "");
}

fn nothing_in_the_file_is_executed(release: Release) {
    let root = DebianRoot::installed(release);
    root.write(
        CONFIGURATION,
        "[defaults]\nconda-root = \"/$(touch /owned)`touch /owned`\"\nconda-env = '$(touch /owned);touch /owned'\n\
         user = \"x;touch /owned\"\n[master]\ndirectory = \"/a' -o \\\"; touch /owned\"\n",
    );
    root.must("dpkg-reconfigure buildbot-conda");
    assert_eq!(root.answer("conda-path"), "/$(touch /owned)`touch /owned`");
    assert!(!root.has("/owned"));
}

fn a_file_that_was_there_before_is_used_as_it_is(release: Release) {
    let root = DebianRoot::new(release);
    let text = "# from elsewhere\n[defaults]\nconda-root = \"/opt/conda\"\n[worker]\n";
    root.write(CONFIGURATION, text);
    root.preseed("conda-path", "/other");
    root.install();
    assert_eq!(root.text(CONFIGURATION), text);
    assert_eq!(root.answer("conda-path"), "/opt/conda");
}
