//! Child processes of the package build: printed, checked, and without output on our stdout.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Echo `command`, run it with its stdout joined to our stderr, and fail unless it succeeds.
pub(crate) fn run_on_stderr(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("start `{}`", program(command)))?;
    ensure!(status.success(), "`{}` failed: {status}", shown(command));
    Ok(())
}

/// Run `command` quietly and return its stdout without the final newline; its stderr is ours.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("start `{}`", program(command)))?;
    ensure!(
        output.status.success(),
        "`{}` failed: {}",
        shown(command),
        output.status
    );
    let text = String::from_utf8(output.stdout)
        .with_context(|| format!("read the output of `{}`", shown(command)))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

fn program(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command for human eyes; not quoted for a shell.
fn shown(command: &Command) -> String {
    let mut line = program(command);
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
