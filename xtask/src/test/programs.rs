//! The test programs of the workspace, compiled together, and their tests, one by one: each runs as a separate process,
//! so that its output and duration are known, and long ones can start first.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::pool::Finished;
use crate::deb;

/// Compiles every test but those of the crate of environments.
const COMPILE: [&str; 7] = [
    "test",
    "--no-run",
    "--workspace",
    "--exclude",
    "buildbot-conda-env",
    "--all-targets",
    "--message-format=json",
];

/// One of the programs that tests call.
const LAUNCHER: &str = "buildbot-conda-launcher";

/// One compiled test program.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) package: String,
    pub(crate) name: String,
    executable: PathBuf,
    /// Directory of the package, in which `cargo test` starts it.
    directory: PathBuf,
}

/// One test.
#[derive(Clone)]
pub(crate) struct Test {
    pub(crate) program: Arc<Program>,
    /// Its name in the program, such as `bookworm::a_machine_boots`.
    pub(crate) name: String,
}

/// What compiling the tests makes.
pub(crate) struct Compiled {
    pub(crate) tests: Vec<Test>,
    /// The messages of the lints for our own code; empty if there are none.
    pub(crate) lints: String,
    /// The directory of our own programs, which black boxes and the tests of the runner call.
    pub(crate) programs: PathBuf,
}

/// Compiles and lists them. clippy replaces the compiler for our own crates, so that lints need no second one; its
/// findings do not prevent tests from running.
///
/// # Errors
///
/// If they cannot be compiled or do not list their tests.
pub(crate) fn compile(workspace: &Path) -> Result<Compiled> {
    let output = super::cargo(workspace, &COMPILE)
        .env("RUSTC_WORKSPACE_WRAPPER", deb::clippy(workspace)?)
        // What is denied is shown as well, and nothing is left uncompiled for it.
        .env(
            "CLIPPY_ARGS",
            "--cap-lints__CLIPPY_HACKERY__warn__CLIPPY_HACKERY__",
        )
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    let lints = remarks(&messages)?;
    ensure!(output.status.success(), "compile the tests\n{lints}");
    let programs = directory_of(LAUNCHER, &messages)?;
    Ok(Compiled {
        tests: listed(&messages)?,
        lints,
        programs,
    })
}

/// Compiles one test program, and gives the tests in it.
///
/// # Errors
///
/// As [`compile`].
pub(crate) fn compile_one(workspace: &Path, package: &str, name: &str) -> Result<Vec<Test>> {
    let output = super::cargo(workspace, &["test", "--no-run", "--message-format=json"])
        .args(["--package", package, "--test", name])
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(output.status.success(), "compile `{name}`");
    listed(&String::from_utf8_lossy(&output.stdout))
}

/// The tests in the programs that cargo's messages name.
fn listed(messages: &str) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for program in programs(messages)? {
        let program = Arc::new(program);
        let list = Command::new(&program.executable)
            .current_dir(&program.directory)
            .args(["--list", "--format=terse"])
            .output()
            .with_context(|| format!("list the tests of `{}`", program.name))?;
        ensure!(
            list.status.success(),
            "list the tests of `{}`",
            program.name
        );
        for name in names(&String::from_utf8_lossy(&list.stdout)) {
            let program = Arc::clone(&program);
            tests.push(Test { program, name });
        }
    }
    Ok(tests)
}

impl Test {
    /// The package and program that it is in, and its name.
    pub(crate) fn title(&self) -> String {
        format!("{} {}", self.program.name, self.name)
    }

    /// The command that runs only this test; `wrap` may run it as another account.
    pub(crate) fn run(&self, wrap: impl FnOnce(&Path) -> Command) -> Finished {
        let mut command = wrap(&self.program.executable);
        command
            .args(["--exact", "--nocapture", &self.name])
            .current_dir(&self.program.directory);
        run(command)
    }
}

/// Runs a command to its end, its two outputs into one.
pub(crate) fn run(mut command: Command) -> Finished {
    let attempt = || -> std::io::Result<Finished> {
        let (mut reader, writer) = std::io::pipe()?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        // The command keeps the writing ends, and without it the pipe would never end.
        drop(command);
        let mut output = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut output)?;
        let passed = child.wait()?.success();
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Finished { passed, output })
    };
    attempt().unwrap_or_else(|error| Finished {
        passed: false,
        output: format!("error: run a test: {error}"),
    })
}

/// The names in what a test program lists.
fn names(list: &str) -> impl Iterator<Item = String> {
    list.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
}

/// cargo's messages (The Cargo Book, "External tools") for which a reason is given.
fn messages_of(reason: &str, messages: &str) -> Result<Vec<Value>> {
    let lines = messages.lines().filter(|line| line.starts_with('{'));
    let parsed = lines.map(|line| serde_json::from_str(line).context("read a message of cargo"));
    let mut parsed: Vec<Value> = parsed.collect::<Result<_>>()?;
    parsed.retain(|message| message["reason"] == reason);
    Ok(parsed)
}

/// What was made, as tests or as all else.
fn artifacts(messages: &str, of_tests: bool) -> Result<Vec<Value>> {
    let mut artifacts = messages_of("compiler-artifact", messages)?;
    artifacts.retain(|message| message["profile"]["test"] == Value::Bool(of_tests));
    Ok(artifacts)
}

/// Warnings and errors as the compiler shows them, each once: a file may be in several programs. cargo has none of
/// dependencies, and repeats ours when nothing is compiled.
fn remarks(messages: &str) -> Result<String> {
    let remarks: BTreeSet<String> = messages_of("compiler-message", messages)?
        .iter()
        .map(|message| &message["message"])
        .filter(|message| {
            ["warning", "error"]
                .iter()
                .any(|level| message["level"] == *level)
        })
        // The last one only counts the others, and has no place.
        .filter(|message| {
            message["spans"]
                .as_array()
                .is_some_and(|spans| !spans.is_empty())
        })
        .filter_map(|message| message["rendered"].as_str().map(str::to_owned))
        .collect();
    Ok(remarks.into_iter().collect())
}

/// The location of the program `name`, which is not a test.
fn directory_of(name: &str, messages: &str) -> Result<PathBuf> {
    let artifacts = artifacts(messages, false)?;
    let mut of_name = artifacts
        .iter()
        .filter(|message| message["target"]["name"] == name);
    of_name
        .find_map(|message| Path::new(message["executable"].as_str()?).parent())
        .map(Path::to_owned)
        .with_context(|| format!("find the compiled `{name}`"))
}

/// The test programs that cargo's messages name.
fn programs(messages: &str) -> Result<Vec<Program>> {
    let mut found = Vec::new();
    for message in artifacts(messages, true)? {
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let manifest = PathBuf::from(of(&message["manifest_path"]));
        let directory = manifest.parent().unwrap_or(&manifest).to_owned();
        let last = directory.file_name().unwrap_or_default();
        found.push(Program {
            package: last.to_string_lossy().into_owned(),
            name: of(&message["target"]["name"]),
            executable: executable.into(),
            directory,
        });
    }
    ensure!(!found.is_empty(), "find the compiled tests");
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_told_from_everything_else_that_cargo_makes() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/tests/machine/Cargo.toml","target":{"name":"create"},"profile":{"test":true},"executable":"/w/target/debug/deps/create-1"}
{"reason":"compiler-artifact","manifest_path":"/w/xtask/Cargo.toml","target":{"name":"xtask"},"profile":{"test":false},"executable":"/w/target/debug/xtask"}
{"reason":"compiler-artifact","manifest_path":"/w/crates/core/Cargo.toml","target":{"name":"core"},"profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}
"#;
        let program = Program {
            package: "machine".into(),
            name: "create".into(),
            executable: "/w/target/debug/deps/create-1".into(),
            directory: "/w/tests/machine".into(),
        };
        assert_eq!(programs(messages).expect("they can be read"), [program]);
        assert!(programs("").is_err());
        let directory = directory_of("xtask", messages).expect("it is there");
        assert_eq!(directory, Path::new("/w/target/debug"));
        assert!(directory_of("create", messages).is_err());
    }

    #[test]
    fn remarks_are_shown_once_and_their_number_is_none() {
        let remark = r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"warning: unused","spans":[{"line_start":1}]}}"#;
        let number = r#"{"reason":"compiler-message","message":{"level":"warning","rendered":"warning: 1 warning emitted","spans":[]}}"#;
        let note = r#"{"reason":"compiler-message","message":{"level":"note","rendered":"note: x","spans":[{"line_start":1}]}}"#;
        let messages = [remark, number, note, remark].join("\n");
        assert_eq!(
            remarks(&messages).expect("they can be read"),
            "warning: unused"
        );
        assert_eq!(remarks(number).expect("they can be read"), "");
    }

    #[test]
    fn tests_are_listed_and_benchmarks_are_not() {
        let listed: Vec<String> = names("a::b: test\nc: benchmark\n\nd: test\n").collect();
        assert_eq!(listed, ["a::b", "d"]);
    }

    #[test]
    fn what_a_command_says_is_kept_in_its_order_whatever_its_end() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let finished = run(command);
        assert_eq!(
            (finished.passed, finished.output.as_str()),
            (false, "one\ntwo\nthree\n")
        );
        assert!(!run(Command::new("/nowhere/at/all")).passed);
    }
}
