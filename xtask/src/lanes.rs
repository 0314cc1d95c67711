//! The test programs of a package, several at once: `cargo test` runs one after the other, and on a machine that mostly
//! waits for Buildbot the slowest test of each would be waited for alone.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// One compiled test program.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    name: String,
    executable: PathBuf,
    /// Directory of the package, in which `cargo test` starts it.
    directory: PathBuf,
}

/// Compiles the tests with `cargo` (`cargo test --no-run ...`, without a message format) and runs the programs, at
/// most `lanes` at once; `prepare` makes the command of a program and is told which, by its executable. What a program
/// says is printed when it has ended.
///
/// # Errors
///
/// When they cannot be compiled, or with the names of those that fail.
pub(crate) fn run(
    cargo: &mut Command,
    lanes: usize,
    is_wanted: impl Fn(&str) -> bool,
    prepare: impl Fn(&PathBuf) -> Command + Sync,
) -> Result<()> {
    let output = cargo
        .arg("--message-format=json-render-diagnostics")
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    ensure!(output.status.success(), "compile the tests");
    let mut programs = programs(&String::from_utf8_lossy(&output.stdout))?;
    programs.retain(|program| is_wanted(&program.name));
    // Those with most tests first, so that none of them is left for the end.
    programs.sort_by_cached_key(|program| std::cmp::Reverse(count(&prepare(&program.executable))));

    let queue = Mutex::new(VecDeque::from(programs));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("no lane panics").pop_front();
                    let Some(program) = next else { return };
                    if !passes(&program, prepare(&program.executable)) {
                        failed.lock().expect("no lane panics").push(program.name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no lane panics");
    if !failed.is_empty() {
        bail!("tests fail in `{}`", failed.join("`, `"));
    }
    Ok(())
}

/// The programs that cargo's messages name (The Cargo Book, "External tools", artifact messages).
fn programs(messages: &str) -> Result<Vec<Program>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("read a message of cargo")?;
        if message["profile"]["test"] != Value::Bool(true) {
            continue;
        }
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let manifest = PathBuf::from(of(&message["manifest_path"]));
        found.push(Program {
            name: of(&message["target"]["name"]),
            executable: executable.into(),
            directory: manifest.parent().unwrap_or(&manifest).to_owned(),
        });
    }
    ensure!(!found.is_empty(), "find the compiled tests");
    Ok(found)
}

/// How many tests a program would run.
fn count(command: &Command) -> usize {
    let mut list = Command::new(command.get_program());
    let output = list.args(command.get_args()).arg("--list").output();
    output.map_or(0, |output| {
        String::from_utf8_lossy(&output.stdout).lines().count()
    })
}

fn passes(program: &Program, mut command: Command) -> bool {
    let started = Instant::now();
    let output = command
        .current_dir(&program.directory)
        .stdin(Stdio::null())
        .output();
    let took = started.elapsed().as_secs();
    let Program { name, .. } = program;
    match output {
        Err(error) => {
            eprintln!("error: run `{name}`: {error}");
            false
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let talk = String::from_utf8_lossy(&output.stderr);
            eprintln!("----- {name}, {took} s\n{}\n{}", said.trim(), talk.trim());
            output.status.success()
        }
    }
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
            name: "create".into(),
            executable: "/w/target/debug/deps/create-1".into(),
            directory: "/w/tests/machine".into(),
        };
        assert_eq!(programs(messages).unwrap(), [program]);
        assert!(programs("").is_err());
    }
}
