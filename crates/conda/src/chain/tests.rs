//! The command line as data, and what bash makes of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};

use super::*;
use crate::{Options, PrefixFacts, activate};

/// A prefix with these scripts.
fn prefix(scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let scripts_directory = directory.path().join("etc/conda/activate.d");
    std::fs::create_dir_all(&scripts_directory).expect("a directory");
    std::fs::create_dir_all(directory.path().join("conda-meta")).expect("a directory");
    for (name, text) in scripts {
        std::fs::write(scripts_directory.join(name), text).expect("a file");
    }
    directory
}

fn activation(prefix: &Path, target: Option<&str>) -> Activation {
    let facts = PrefixFacts::read(prefix).expect("a prefix");
    let options = Options {
        target: target.map(OsString::from),
        ..Options::default()
    };
    let inherited = Environment::from([("PATH".into(), "/usr/bin:/bin".into())]);
    activate(&facts, None, &inherited, &options).expect("nothing is wrong")
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn run(command_line: &CommandLine) -> Output {
    Command::new(&command_line.program)
        .args(&command_line.arguments)
        .env_clear()
        .envs(&command_line.environment)
        .output()
        .expect("bash is essential")
}

#[test]
fn without_scripts_the_command_is_executed_itself() {
    let directory = prefix(&[]);
    let activation = activation(directory.path(), None);
    let afterwards = Environment::from([("A".into(), "1".into())]);
    let command_line = exec_chain(
        &activation,
        &afterwards,
        "program".into(),
        words(&["-x", ""]),
        None,
    );
    assert_eq!(command_line.program, "program");
    assert_eq!(command_line.arguments, words(&["-x", ""]));
    assert_eq!(
        command_line.environment.len(),
        activation.environment.len() + 1
    );
}

#[test]
fn with_scripts_the_command_line_is_one_bash_and_its_text_holds_no_names() {
    let directory = prefix(&[("a'b.sh", ""), ("$c.sh", "")]);
    let activation = activation(directory.path(), Some("e"));
    let afterwards = Environment::from([("A".into(), "1 2".into())]);
    let command_line = exec_chain(
        &activation,
        &afterwards,
        "program".into(),
        words(&["argument"]),
        Some(&Watch {
            command: words(&["report", "it's"]),
            notes: None,
        }),
    );
    assert_eq!(command_line.program, "/bin/bash");
    let script = |name| {
        directory
            .path()
            .join("etc/conda/activate.d")
            .join(name)
            .into_os_string()
    };
    let text = "__bbc_words=(\"$@\"); set --\n\
                __bbc_ended() {\n\
                exec -- \"${__bbc_words[@]:5:2}\" \"${__bbc_at[0]}\" \"$@\"\n\
                }\n\
                builtin trap '__bbc_ended \"$?\" \"$BASH_COMMAND\"' EXIT\n\
                [[ -o posix ]] || exit() {\n\
                (builtin exit \"$@\") && builtin set -- 0 || builtin set -- \"$?\"\n\
                [[ ${BASHPID-} == \"$$\" ]] || builtin exit \"$1\"\n\
                builtin set -- \"$1\" \"$(builtin trap -p EXIT)\"\n\
                builtin trap - EXIT\n\
                [[ $2 == *__bbc_ended* ]] || (builtin eval \"$2\"; builtin exit \"$1\") || :\n\
                __bbc_ended \"$1\" '. \"${__bbc_words['\n\
                }\n\
                __bbc_activate() {\n\
                __bbc_at=(\"${__bbc_words[0]}\"); . \"${__bbc_words[0]}\"\n\
                __bbc_at=(\"${__bbc_words[1]}\"); . \"${__bbc_words[1]}\"\n\
                }\n\
                __bbc_activate \"${__bbc_words[@]:2:2}\"\n\
                builtin trap - EXIT\n\
                export -- \"${__bbc_words[@]:4:1}\"\n\
                exec -- \"${__bbc_words[@]:7}\"\n";
    let mut expected = words(&["--norc", "--noprofile", "-c", text, "bash"]);
    expected.extend([script("$c.sh"), script("a'b.sh")]);
    expected.extend(words(&[
        "activate", "e", "A=1 2", "report", "it's", "program", "argument",
    ]));
    assert_eq!(command_line.arguments, expected);
    assert_eq!(command_line.environment, activation.environment);
}

#[test]
fn arguments_reach_the_command_byte_for_byte() {
    let directory = prefix(&[("a b'$x`.sh", "set -- lost\nIFS=x\n")]);
    let odd: Vec<OsString> = [
        &b""[..],
        b"a b",
        b"it's",
        b"$HOME",
        b"`id`",
        b"\\",
        b"new\nline",
        b"\xff",
        b"-n",
        b"*",
        b"axb",
    ]
    .map(|bytes| OsString::from_vec(bytes.to_vec()))
    .into();
    let mut arguments = words(&["%s\\0"]);
    arguments.extend(odd.clone());
    let command_line = exec_chain(
        &activation(directory.path(), None),
        &Environment::new(),
        "printf".into(),
        arguments,
        None,
    );
    let output = run(&command_line);
    let mut expected = Vec::new();
    for argument in &odd {
        expected.extend(argument.as_bytes());
        expected.push(0);
    }
    assert_eq!(
        output.stdout,
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.stderr.is_empty());
}

#[test]
fn variables_set_afterwards_win_over_scripts() {
    let directory = prefix(&[("a.sh", "export A=script B=script\n")]);
    let afterwards = Environment::from([
        ("A".into(), "it's $HOME\n".into()),
        ("C".into(), OsString::new()),
    ]);
    let print = words(&["-c", "printf '%s|%s|%s' \"$A\" \"$B\" \"${C-unset}\""]);
    let command_line = exec_chain(
        &activation(directory.path(), None),
        &afterwards,
        "sh".into(),
        print,
        None,
    );
    assert_eq!(
        String::from_utf8_lossy(&run(&command_line).stdout),
        "it's $HOME\n|script|"
    );
}

/// Scripts that do not come back to their shell, the status of that, and how each is reported.
const LOST: [(&str, i32, &str); 18] = [
    ("exit 3", 3, "ended its shell with status 3"),
    // Success would be a lie: the command was never run.
    (
        "[ -n \"$FOO\" ] || exit 0",
        78,
        "ended its shell with status 0",
    ),
    ("set -u\n: $FOO", 127, "ended its shell with status 127"),
    ("set -e\nfalse", 1, "ended its shell with status 1"),
    ("set -e", 1, "ended its shell with status 1"),
    ("f() { exit 4; }; f", 4, "ended its shell with status 4"),
    ("set -a; exit 5", 5, "ended its shell with status 5"),
    (": ${FOO:?no FOO}", 127, "ended its shell with status 127"),
    ("kill $$; sleep 1", -15, "was stopped in `kill $$`"),
    // Without the trap of ours.
    ("trap - EXIT; exit 0", 78, "ended its shell with status 0"),
    ("trap - 0\nfalse\nexit", 1, "ended its shell with status 1"),
    (
        "trap 'exit 0' EXIT; exit",
        78,
        "ended its shell with status 0",
    ),
    (
        "trap 'exit 3' EXIT; set -eu; f() { exit 6; }; f",
        6,
        "ended its shell with status 6",
    ),
    (
        "trap - EXIT; unset BASH_COMMAND; exit 7",
        7,
        "ended its shell with status 7",
    ),
    (
        "trap - EXIT; eval 'exit 0'",
        78,
        "ended its shell with status 0",
    ),
    (
        "trap - EXIT; IFS=0; exit 10",
        10,
        "ended its shell with status 10",
    ),
    ("trap - EXIT; exit x", 2, "ended its shell with status 2"),
    ("set -o posix; exit 8", 8, "ended its shell with status 8"),
];

/// Subshells that end, as scripts have them, and what the script does at its own end.
#[test]
fn the_end_of_a_subshell_is_not_that_of_the_scripts() {
    let script = "(exit 3); A=$?; B=$(echo b; exit 4)$?; echo c | { read -r C; exit 5; }; \n\
                  exit 6 & wait $!; D=$?; E=$(trap 'echo e' EXIT; exit 0); export A B C D E\n";
    for posix in [false, true] {
        let directory = prefix(&[("a.sh", script)]);
        let mut activation = activation(directory.path(), None);
        if posix {
            let variable = ("POSIXLY_CORRECT".into(), "1".into());
            activation.environment.extend([variable]);
        }
        let print = words(&["-c", "printf '%s|%s|%s|%s' \"$A\" \"$B\" \"$D\" \"$E\""]);
        let command_line = exec_chain(&activation, &Environment::new(), "sh".into(), print, None);
        let output = run(&command_line);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "3|b4|6|e",
            "{output:?}"
        );
    }
}

#[test]
fn a_script_that_ends_its_shell_cleans_up_with_its_own_trap() {
    let directory = prefix(&[("a.sh", "trap 'echo \"cleaned $?\"; exit 0' EXIT; exit 9\n")]);
    let command_line = exec_chain(
        &activation(directory.path(), None),
        &Environment::new(),
        "echo".into(),
        words(&["not reached"]),
        None,
    );
    let output = run(&command_line);
    assert_eq!(output.status.code(), Some(9), "{output:?}");
    assert_eq!(output.stdout, b"cleaned 9\n");
}

#[test]
fn a_script_that_does_not_come_back_is_named_and_nothing_else_is_run() {
    for (script, status, reason) in LOST {
        let directory = prefix(&[("a.sh", script), ("b.sh", "false\n")]);
        let command_line = exec_chain(
            &activation(directory.path(), None),
            &Environment::new(),
            "echo".into(),
            words(&["not", "reached"]),
            None,
        );
        let output = run(&command_line);
        let found = output
            .status
            .code()
            .or_else(|| output.status.signal().map(|signal| -signal));
        assert_eq!(
            (found, output.stdout),
            (Some(status), Vec::new()),
            "{script}"
        );
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let name = if script == "set -e" { "b.sh" } else { "a.sh" };
        let path = directory.path().join("etc/conda/activate.d").join(name);
        let expected = format!(
            "error: the activation script `{}` {reason}\n",
            path.display()
        );
        assert!(said.contains(&expected), "{script}: {said}");
        assert_eq!(said.contains(HINT), status > 0, "{script}: {said}");
    }
}

#[test]
fn who_watches_gets_the_script_its_status_and_whether_a_signal_ended_it() {
    let directory = prefix(&[("a.sh", "kill $$\n")]);
    let watched = |script: &str| {
        let path = directory.path().join("etc/conda/activate.d/a.sh");
        std::fs::write(path, script).expect("a file");
        let watch = Watch {
            command: words(&["printf", "%s\n", "it's $HOME"]),
            notes: None,
        };
        let command_line = exec_chain(
            &activation(directory.path(), None),
            &Environment::new(),
            "echo".into(),
            words(&["reached"]),
            Some(&watch),
        );
        let output = run(&command_line);
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (script, status, left) in [
        ("exit 3", "3", true),
        ("trap - EXIT; exit 0", "0", true),
        ("kill $$; sleep 1", "0", false),
    ] {
        let said = watched(script);
        assert_eq!(said[0], "it's $HOME", "{said:?}");
        assert!(said[1].ends_with("/a.sh"), "{said:?}");
        assert_eq!(
            (said[2].as_str(), is_left(&said[3])),
            (status, left),
            "{said:?}"
        );
    }
    assert_eq!(watched("trap : EXIT"), ["reached"]);
}

#[test]
fn notes_say_which_script_runs_and_what_all_of_them_have_printed() {
    let directory = prefix(&[
        ("a.sh", "cat \"$MARK\"; echo; echo out\n"),
        ("b.sh", "set -Ceu; echo err >&2\n"),
    ]);
    let place = tempfile::tempdir().expect("a temporary directory");
    let notes = Notes {
        mark: place.path().join("mark"),
        number: 2,
        output: place.path().join("output"),
        descriptors: [8, 9],
    };
    let mut activation = activation(directory.path(), None);
    activation
        .environment
        .insert("MARK".into(), notes.mark.clone().into());
    std::fs::write(&notes.output, "printed before\n").expect("a file");
    let separated = |count| "printed before\n\u{1e}".to_owned() + &"\u{1e}".repeat(count);
    let watch = Watch {
        command: words(&["false"]),
        notes: Some(notes.clone()),
    };
    let command_line = exec_chain(
        &activation,
        &Environment::new(),
        "true".into(),
        words(&[]),
        Some(&watch),
    );
    // As if the caller had duplicated its own standard output and standard error.
    let mut copying = words(&["-c", "exec 8>&1 9>&2; exec \"$@\"", "bash", BASH]);
    copying.extend(command_line.arguments);
    let output = run(&CommandLine {
        arguments: copying,
        ..command_line
    });
    let script = directory.path().join("etc/conda/activate.d/a.sh");
    // All of it went to this test, none to the file.
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("2 {}\nout\n", script.display())
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let kept = std::fs::read_to_string(&notes.output).expect("it is there");
    assert_eq!(kept, separated(1));
    assert_eq!(output.stderr, b"err\nprinted before\n\n");
    assert_eq!(std::fs::read(&notes.mark).expect("it was written"), b"");
}

#[test]
fn what_bash_reads_at_its_start_is_exported_inside() {
    let directory = prefix(&[("a.sh", "SEEN=\"$BASH_ENV|$PS1\"; export SEEN\n")]);
    let state = r#"{"env_vars": {"BASH_ENV": "/dev/stderr-of-nobody", "PS1": "p "}}"#;
    std::fs::write(directory.path().join("conda-meta/state"), state).expect("a file");
    let command_line = exec_chain(
        &activation(directory.path(), None),
        &Environment::new(),
        "env".into(),
        words(&[]),
        None,
    );
    assert!(
        !command_line
            .environment
            .contains_key(OsStr::new("BASH_ENV"))
    );
    let output = run(&command_line);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        printed
            .lines()
            .any(|line| line == "SEEN=/dev/stderr-of-nobody|p "),
        "{printed}"
    );
    assert!(printed.lines().any(|line| line == "PS1=p "), "{printed}");
    assert!(output.stderr.is_empty(), "bash read nothing at its start");
}
