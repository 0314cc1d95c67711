//! What each verb refuses, with the exact message and exit status: invalid configurations, missing instances, invalid
//! arguments, and callers who are not root. Refusals of a single verb are in the tests of that verb.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::house::{CONFIGURATION, Host, Said, said, unread};

fn refusal(status: i32, message: &str) -> Said {
    said(status, "", message)
}

/// Every verb that needs the configuration; `doctor` examines it instead.
const READERS: [&[&str]; 19] = [
    &["check"],
    &["list"],
    &["list", "--json"],
    &["status"],
    &["status", "master", "--fail-if-down"],
    &["logs"],
    &["logs", "master"],
    &["show", "master"],
    &["run", "--", "true"],
    &["run", "master", "--", "true"],
    &["set", "user", "ci"],
    &["set", "--dry-run", "user", "ci"],
    &["backup", "master"],
    &["restore", "master", "--list"],
    &["upgrade", "master"],
    &["create", "master", "--dry-run"],
    &["remove", "master", "--dry-run"],
    &["adopt", "--dry-run"],
    &["service", "prepare", "master"],
];

/// systemd would read it as root, and a user could have placed a link to any file there.
#[test]
fn a_credential_in_a_place_of_others_is_named_by_check_and_doctor() {
    let text = "[master]\ncredentials = { key = \"key\" }\n";
    let host = Host::configured(text);
    host.write("home/bb/key", "");
    host.link("etc/buildbot-conda/credentials/key", "/home/bb/key");
    assert_eq!(host.run(&["check"]).status, Some(0));
    host.set_mode("home/bb", 0o777);
    let reason = "/etc/buildbot-conda/config.toml:2:23: master.credentials.key: `/etc/buildbot-conda/credentials/key` \
                  goes through `/home/bb`, which is writable by accounts other than root (mode 0777)";
    let hint =
        "store it in `/etc/buildbot-conda/credentials`, owned by root and writable only by root";
    let expect = refusal(78, &format!("error: {reason}\nhint: {hint}\n"));
    assert_eq!(host.run(&["check"]), expect);
    // Also in a file that is to become the configuration.
    host.write("candidate.toml", text);
    let candidate = host.path("candidate.toml");
    let checked = host.run(&["check", candidate.to_str().unwrap()]);
    assert_eq!(checked.status, Some(78));
    assert!(checked.stderr.contains("goes through `/home/bb`"));
    // Nor does `set` write one down.
    host.write("etc/buildbot-conda/config.toml", "[master]\n");
    let expected = refusal(
        78,
        "error: /etc/buildbot-conda/config.toml:2:23: master.credentials.key: `/home/bb/key` goes through `/home/bb`, \
         which is writable by accounts other than root (mode 0777)\n\
         hint: store it in `/etc/buildbot-conda/credentials`, owned by root and writable only by root\n",
    );
    let set = ["set", "master", "credentials.key", "/home/bb/key"];
    assert_eq!(host.run(&set), expected);
    assert_eq!(host.read(CONFIGURATION), "[master]\n");
    host.write("etc/buildbot-conda/config.toml", text);
    let examined = host.run(&["doctor"]).stdout;
    let finding = format!("problem: master: configuration: {reason}\n");
    assert!(examined.contains(&finding), "{examined}");
    assert!(!examined.contains("only root can read them"), "{examined}");
}

#[test]
fn a_configuration_that_cannot_be_read_stops_every_verb_with_its_place() {
    let host = Host::configured("[master\n");
    let expect = refusal(
        78,
        "error: /etc/buildbot-conda/config.toml:1:8: syntax error: unclosed table, expected `]`\n",
    );
    for words in READERS {
        assert_eq!(host.run(words), expect, "{words:?}");
    }
    assert_eq!(host.read(CONFIGURATION), "[master\n");
}

#[test]
fn a_reader_that_went_away_changes_no_exit_status() {
    let host = Host::configured("[master\n");
    for words in READERS {
        let mut command = host.command();
        command.args(words).stdout(unread()).stderr(unread());
        assert_eq!(command.status().unwrap().code(), Some(78), "{words:?}");
    }
}

#[test]
fn a_configuration_that_is_not_there_stops_every_verb() {
    let host = Host::empty();
    let expect = refusal(
        78,
        "error: configuration `/etc/buildbot-conda/config.toml` not found\n\
         hint: `dpkg-reconfigure buildbot-conda` writes a new one\n",
    );
    for words in READERS {
        assert_eq!(host.run(words), expect, "{words:?}");
    }
}

#[test]
fn a_host_whose_only_table_is_mistyped_is_not_taken_for_an_empty_one() {
    let host = Host::configured("[mastr]\n");
    let expect = refusal(
        78,
        "error: /etc/buildbot-conda/config.toml:1:2: mastr: unknown table\nhint: did you mean `[master]`?\n",
    );
    for words in [
        &["check"][..],
        &["list"],
        &["list", "--fail-if-down"],
        &["status"],
        &["logs"],
    ] {
        assert_eq!(host.run(words), expect, "{words:?}");
    }
}

#[test]
fn an_instance_that_is_not_there_is_named_by_every_verb() {
    let host = Host::configured("[master]\n");
    let unknown = refusal(
        1,
        "error: instance `master@x` not found in `/etc/buildbot-conda/config.toml`\n\
         hint: `buildbot-conda list` shows all instances\n",
    );
    for words in [
        &["status", "master@x"][..],
        &["status", "master@x", "--json"],
        &["logs", "master@x"],
        &["doctor", "master@x"],
        &["doctor", "master@x", "--fix"],
    ] {
        assert_eq!(host.run(words), unknown, "{words:?}");
    }
    let no_table = refusal(
        78,
        "error: /etc/buildbot-conda/config.toml: no table `[\"master@x\"]`\n\
         hint: add [\"master@x\"] with `directory = \"...\"` to the file, or `systemctl disable \
         buildbot-master@x.service`\n",
    );
    for words in [
        &["show", "master@x"][..],
        &["run", "master@x", "--", "true"],
        &["backup", "master@x"],
        &["backup", "master@x", "--dry-run"],
        &["restore", "master@x"],
        &["restore", "master@x", "--list"],
        &["upgrade", "master@x"],
        &["service", "prepare", "master@x"],
    ] {
        assert_eq!(host.run(words), no_table, "{words:?}");
    }
}

#[test]
fn an_environment_that_is_not_there_is_named_with_the_way_to_it() {
    let host = Host::configured("[defaults]\nconda-root = \"/opt/conda\"\n[master]\n");
    let typed = host.run(&["run", "--env", "/opt/x", "--", "true"]);
    let no_directory = "error: environment `/opt/x` not found: it contains no directory `conda-meta`\n\
                        hint: create it with `conda create -p /opt/x`\n";
    assert_eq!(typed, refusal(1, no_directory));
    let missing = |prefix: &str| {
        format!(
            "error: environment `{prefix}` not found\nhint: create it with `conda create -p {prefix}`, or correct the path\n"
        )
    };
    let base = host.run(&["run", "--env", "base", "--", "true"]);
    assert_eq!(base, refusal(1, &missing("/opt/conda")));
    for words in [
        &["backup", "master"][..],
        &["backup", "master", "--dry-run"],
        &["upgrade", "master", "--dry-run"],
    ] {
        let expect = refusal(78, &missing("/opt/conda/envs/buildbot"));
        assert_eq!(host.run(words), expect, "{words:?}");
    }
    for words in [&["run", "master", "--", "true"][..], &["run", "--", "true"]] {
        let expect = refusal(1, &missing("/opt/conda/envs/buildbot"));
        assert_eq!(host.run(words), expect, "{words:?}");
    }
}

#[test]
fn what_acts_on_the_running_system_refuses_another_root() {
    let host = Host::configured("[master]\n[worker]\n");
    for (words, message) in [
        (&["drain", "worker"][..], "`drain`"),
        (&["drain", "worker", "--dry-run"], "`drain`"),
        (&["service", "reload", "master"], "`service reload`"),
        (&["service", "stop", "master"], "`service stop`"),
    ] {
        let text =
            format!("error: {message} changes a running system and cannot be used with `--root`\n");
        assert_eq!(host.run(words), refusal(1, &text), "{words:?}");
    }
}

#[test]
fn an_instance_that_is_down_fails_where_that_was_asked_for() {
    let host = Host::configured("[master]\n");
    for words in [
        &["list"][..],
        &["status"],
        &["status", "master"],
        &["list", "--json"],
    ] {
        let asked = [words, &["--fail-if-down"]].concat();
        let down = host.run(words);
        assert_eq!(down, said(0, &down.stdout, ""), "{words:?}");
        assert_eq!(host.run(&asked), said(1, &down.stdout, ""), "{words:?}");
    }
}

#[test]
fn words_that_mean_nothing_are_usage_errors() {
    let host = Host::configured("[master]\n");
    for words in [
        &[][..],
        &["nonsense"],
        &["list", "master"],
        &["list", "--nonsense"],
        &["status", "Master"],
        &["status", "master", "worker"],
        &["logs", "x"],
        &["logs", "--level", "loud"],
        &["logs", "-n", "many"],
        &["doctor", "--only", "weather"],
        &["doctor", "--dry-run"],
        &["doctor", "--json", "--fix"],
        &["check", "a", "b"],
        &["show"],
        &["show", "x"],
        &["run"],
        &["run", "master"],
        &["run", "--"],
        &["drain"],
        &["drain", "x"],
        &["backup"],
        &["backup", "x"],
        &["restore"],
        &["restore", "master", "--json"],
        &["restore", "master", "x", "--list"],
        &["restore", "master", "--list", "--dry-run"],
        &["upgrade"],
        &["completions"],
        &["completions", "tcsh"],
        &["manual"],
        &["service"],
        &["service", "start", "master"],
        &["service", "reload"],
        &["adopt", "x"],
    ] {
        let Said {
            status,
            stdout,
            stderr,
        } = host.run(words);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{words:?}");
        let is_help = stderr.contains("Usage: buildbot-conda") || stderr.contains("try '--help'");
        assert!(is_help, "{words:?} {stderr}");
    }
}

#[test]
fn each_shell_gets_completions_of_every_verb() {
    let host = Host::configured("");
    for shell in ["bash", "fish", "zsh"] {
        let Said {
            status,
            stdout,
            stderr,
        } = host.run(&["completions", shell]);
        assert_eq!((status, stderr.as_str()), (Some(0), ""), "{shell}");
        for verb in ["list", "doctor", "create", "headless", "completions"] {
            assert!(stdout.contains(verb), "{shell}: {verb}");
        }
        assert!(!stdout.contains("manual"), "{shell}");
    }
}

/// As an account other than root, without the groups of the caller if the caller is root.
fn as_nobody(host: &Host, words: &[&str]) -> Said {
    let mut command = Command::new(host.add_binary());
    command.args(words);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    host.said(&mut command)
}

/// The real system is asked, by an account that may not change it.
#[test]
fn only_root_changes_the_running_system() {
    let host = Host::empty();
    for words in [
        &["headless", "on"][..],
        &["headless", "off"],
        &["drain", "worker"],
        &["env", "gc"],
    ] {
        let message = "error: only root can do this\nhint: try again with `sudo`\n";
        let expect = refusal(1, message);
        assert_eq!(as_nobody(&host, words), expect, "{words:?}");
    }
}

#[test]
fn a_configuration_of_somebody_else_is_read_and_not_changed() {
    let host = Host::configured("[master]\n");
    // Closed to all other accounts, also if a developer runs this.
    host.set_mode("etc/buildbot-conda", 0o555);

    let root = host.root();
    let good = said(
        0,
        "/etc/buildbot-conda/config.toml: valid, 1 instance\n",
        "",
    );
    assert_eq!(as_nobody(&host, &["--root", &root, "check"]), good);
    let expect = refusal(
        1,
        "error: write `/etc/buildbot-conda/config.toml`: permission denied\nhint: try again with `sudo`\n",
    );
    let words = ["--root", &root, "set", "user", "ci"];
    assert_eq!(as_nobody(&host, &words), expect);
    assert_eq!(host.read(CONFIGURATION), "[master]\n");
    host.set_mode("etc/buildbot-conda", 0o755);
}
