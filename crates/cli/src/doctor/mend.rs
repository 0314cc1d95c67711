//! `--fix`: runs the safe commands of the findings, exactly as it shows them.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::finding::{CommandLine, Finding};
use crate::output;
use crate::system::context::Context;

/// Where the programs of the commands are; root's own `PATH` may lead anywhere.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// What [`run`] would do, a line for each command.
pub(super) fn plan(findings: &[Finding]) -> String {
    let mut text = String::new();
    for command in safe_commands(findings) {
        writeln!(text, "{command}").expect("writing to a string succeeds");
    }
    text
}

/// Shows and runs them, each command once; whether there were any.
///
/// # Errors
///
/// Not root, or the first command that fails.
pub(super) fn run(findings: &[Finding], context: &Context) -> anyhow::Result<bool> {
    let commands = safe_commands(findings);
    if commands.is_empty() {
        eprintln!("no problem can be fixed automatically");
        return Ok(false);
    }
    context.ensure_root()?;
    for command in &commands {
        eprintln!("{command}");
    }
    for command in &commands {
        carry_out(command)?;
    }
    Ok(true)
}

fn safe_commands(findings: &[Finding]) -> Vec<CommandLine> {
    let mut seen = HashSet::new();
    findings
        .iter()
        .filter_map(|finding| finding.mending.as_ref())
        .filter(|mending| mending.safe)
        .flat_map(|mending| &mending.commands)
        .filter(|command| seen.insert(command.to_string()))
        .cloned()
        .collect()
}

fn carry_out(line: &CommandLine) -> anyhow::Result<()> {
    let (program, arguments) = line.0.split_first().context("run an empty command")?;
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run `{program}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{line}` failed: {}", output::harmless(said.trim()));
    }
    Ok(())
}
