//! The command line as data, and what bash makes of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStringExt;
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
                __bbc_activate() {\n\
                . \"${__bbc_words[0]}\"\n\
                . \"${__bbc_words[1]}\"\n\
                }\n\
                __bbc_activate \"${__bbc_words[@]:2:2}\"\n\
                export -- \"${__bbc_words[@]:4:1}\"\n\
                exec -- \"${__bbc_words[@]:5}\"\n";
    let mut expected = words(&["--norc", "--noprofile", "-c", text, "bash"]);
    expected.extend([script("$c.sh"), script("a'b.sh")]);
    expected.extend(words(&["activate", "e", "A=1 2", "program", "argument"]));
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
    );
    assert_eq!(
        String::from_utf8_lossy(&run(&command_line).stdout),
        "it's $HOME\n|script|"
    );
}

#[test]
fn a_script_that_exits_ends_everything_with_its_status() {
    let directory = prefix(&[("a.sh", "exit 3\n"), ("b.sh", "echo not reached\n")]);
    let command_line = exec_chain(
        &activation(directory.path(), None),
        &Environment::new(),
        "echo".into(),
        words(&["not", "reached"]),
    );
    let output = run(&command_line);
    assert_eq!((output.status.code(), output.stdout), (Some(3), Vec::new()));
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
