//! What `list`, `status` and `doctor` look like: on terminals of 80 columns, where no word is broken, and everywhere
//! else, where bytes depend on nothing but the host that is looked at.

use crate::house::Host;

const CONFIGURATION: &str = "\
[master]
directory = \"/srv/buildbot/the-master-of-the-group\"
conda-root = \"/srv/software/conda/miniforge3\"

[\"worker@with-a-long-name\"]
directory = \"/srv/workers/with-a-long-name\"
conda-env = \"/srv/software/environments/cuda-12-for-the-new-machines\"
";
const STATUS: &str = r#"{"version": 1, "state": "running", "since": 1700000000, "pid": 1, "buildbot": "4.3.0",
    "message": "the last reload failed, the configuration of before goes on: name 'WORKER' is not defined in line 12"}"#;

fn host() -> Host {
    let host = Host::configured(CONFIGURATION);
    host.write("run/buildbot-conda/master/status.json", STATUS);
    host
}

/// What a terminal of 80 columns gets from standard output, the line breaks those of a text; and the exit status.
fn on_a_terminal(host: &Host, words: &str) -> (Option<i32>, String) {
    let script = format!(
        "stty columns 80; NO_COLOR=1 exec \"$BINARY\" --root \"$ROOT\" {words} 2>/dev/null"
    );
    // The end of input is as if nobody typed anything. The root directory is kept in the text, because its length
    // matters.
    let output = host.on_a_terminal(&script).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text.replace("\r\n", "\n"))
}

fn in_a_pipe(host: &Host, words: &[&str], variables: &[(&str, &str)]) -> Vec<u8> {
    let mut command = host.command();
    let output = command.args(words).envs(variables.iter().copied()).output();
    let output = output.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    output.stdout
}

#[test]
fn a_table_has_all_its_words_in_80_columns() {
    let host = host();
    let expect = "\
INSTANCE                 STATE    FOR  PID  MEMORY  BUILDBOT
master                   unknown    -    -       -  -
    environment: /srv/software/conda/miniforge3/envs/buildbot
    doing: the last reload failed, the configuration of before goes on: name
      'WORKER' is not defined in line 12
worker@with-a-long-name  unknown    -    -       -  -
    environment: /srv/software/environments/cuda-12-for-the-new-machines
";
    for verb in ["list", "status"] {
        assert_eq!(on_a_terminal(&host, verb), (Some(0), expect.to_owned()));
    }
}

#[test]
fn one_instance_has_all_its_words_in_80_columns() {
    let expect = "
       instance: master
           unit: buildbot-master.service
          state: unknown
          doing: the last reload failed, the configuration of before goes on:
                 name 'WORKER' is not defined in line 12
      directory: /srv/buildbot/the-master-of-the-group
    environment: /srv/software/conda/miniforge3/envs/buildbot
";
    let seen = on_a_terminal(&host(), "status master");
    assert_eq!(seen, (Some(0), expect.trim_start_matches('\n').to_owned()));
}

#[test]
fn doctor_breaks_no_word_and_no_command() {
    let host = host();
    // There is no desktop and no unit.
    let (status, text) = on_a_terminal(&host, "doctor --all");
    assert_eq!(status, Some(1), "{text}");
    let piped = in_a_pipe(&host, &["doctor", "--all"], &[]);
    let piped = String::from_utf8(piped).unwrap();
    assert!(
        piped.lines().any(|line| line.chars().count() > 80),
        "{piped}"
    );
    let words =
        |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(words(&text), words(&piped));
    for line in text.lines() {
        let is_whole = line.chars().count() <= 80
            || piped.lines().any(|whole| whole == line)
            || !line.trim_start().contains(' ');
        assert!(is_whole, "{line}");
    }
}

#[test]
fn what_is_no_terminal_gets_the_same_bytes_whatever_the_environment() {
    let host = host();
    for words in [
        &["list"][..],
        &["status"],
        &["status", "master"],
        &["doctor", "--all"],
        &["list", "--json"],
        &["doctor", "--json"],
    ] {
        let plain = in_a_pipe(&host, words, &[]);
        assert!(plain.is_ascii() && !plain.contains(&0x1b), "{words:?}");
        for variables in [
            &[("NO_COLOR", "1")][..],
            &[("TERM", "dumb")],
            &[("TERM", "xterm-256color"), ("CLICOLOR_FORCE", "1")],
            &[("LC_ALL", "C")],
            &[("LC_ALL", "C.UTF-8"), ("LANG", "de_DE.UTF-8")],
            &[("COLUMNS", "40")],
        ] {
            assert_eq!(
                in_a_pipe(&host, words, variables),
                plain,
                "{words:?} {variables:?}"
            );
        }
    }
}

#[test]
fn each_instance_is_one_line_in_a_pipe() {
    let expect = "\
INSTANCE                 STATE    FOR  PID  MEMORY  BUILDBOT  ENVIRONMENT                                              DOING
master                   unknown    -    -       -  -         /srv/software/conda/miniforge3/envs/buildbot             the last reload failed, the configuration of before goes on: name 'WORKER' is not defined in line 12
worker@with-a-long-name  unknown    -    -       -  -         /srv/software/environments/cuda-12-for-the-new-machines  -
";
    let seen = in_a_pipe(&host(), &["list"], &[]);
    assert_eq!(String::from_utf8(seen).unwrap(), expect);
}

/// All that a terminal gets from a command with these variables.
fn with_colours(host: &Host, words: &str, variables: &str) -> String {
    // What reads `TERM` takes a terminal of a CI service for one with colours.
    let script =
        format!("unset CI; TERM=xterm {variables} exec \"$BINARY\" --root \"$ROOT\" {words}");
    let output = host.on_a_terminal(&script).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .replace("\r\n", "\n")
}

#[test]
fn labels_have_colours_on_a_terminal_that_shows_them() {
    let host = host();
    for (words, label) in [
        ("status worker@gone", "\x1b[1m\x1b[31merror:\x1b[0m "),
        ("doctor 2>/dev/null", "\x1b[1m\x1b[31mproblem:\x1b[0m "),
    ] {
        let text = with_colours(&host, words, "");
        assert!(text.contains(label), "{text:?}");
        for variables in ["NO_COLOR=1", "TERM=dumb", "CLICOLOR=0"] {
            let text = with_colours(&host, words, variables);
            assert!(!text.contains("\x1b["), "{variables}: {text:?}");
        }
    }
    // The error is of this program, its text may be of others.
    host.write(
        "etc/buildbot-conda/config.toml",
        "[master]\n\"\\u001b[2J\" = 1\n",
    );
    let text = with_colours(&host, "check", "");
    assert!(
        !text.contains("\x1b[2J") && text.contains("\x1b[0m"),
        "{text:?}"
    );
}

#[test]
fn help_and_refusals_are_in_ascii_and_without_colour_where_nobody_looks() {
    let host = host();
    for words in [
        &["--help"][..],
        &["doctor", "--help"],
        &["nonsense"],
        &["status", "worker@gone"],
    ] {
        let output = host.command().args(words).env("LC_ALL", "C").output();
        let output = output.unwrap();
        for bytes in [&output.stdout, &output.stderr] {
            assert!(bytes.is_ascii() && !bytes.contains(&0x1b), "{words:?}");
        }
    }
}
