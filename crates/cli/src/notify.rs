//! `service notify`, which systemd starts when an instance has failed for good: one mail or one call of a web hook, with the
//! reason and the last lines of the log.

use std::fmt::Write as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use buildbot_conda_core::foreign_text::{ForeignText, harmless_lines};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::notify::{Hook, Notify};
use buildbot_conda_core::values::AbsolutePath;
use buildbot_conda_host::trusted::Trust;
use serde::Serialize;

use crate::survey;
use crate::system::children::{self, Bounds, Input};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::journal;
use crate::system::requests::{self, Much, Way};

/// Lines of the journal that are sent.
const LOG_LINES: usize = 30;
/// Lines of one entry behind its first.
const FURTHER_LINES: usize = 20;
/// For each program; none of them takes a second except over a slow network.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer or of a log, and of a file with an address.
const LARGEST: usize = 1 << 20;
const LARGEST_ADDRESS: u64 = 4096;

/// What is sent.
#[derive(Debug, Serialize)]
struct Report {
    /// All of it, for people; the key that chats show.
    text: String,
    /// On one line.
    #[serde(skip)]
    subject: String,
    instance: String,
    unit: String,
    host: String,
    state: String,
    reason: String,
}

pub(crate) fn run(reference: &InstanceRef, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here("service notify")?;
    let settings = context.settings()?;
    let instance = settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    let report = Report::of(reference, context)?;
    match &instance.notify {
        Notify::Off => return Ok(ExitCode::SUCCESS),
        Notify::Mail(address) => mail(address, &report)?,
        Notify::Hook(hook) => call(hook, &report)?,
        Notify::HookFile(file) => call(&address_in(file)?, &report)?,
    }
    eprintln!("reported: {}", report.subject);
    Ok(ExitCode::SUCCESS)
}

impl Report {
    fn of(reference: &InstanceRef, context: &Context) -> anyhow::Result<Self> {
        let name = reference.to_string();
        let rows = survey::survey(&context.settings()?, context)?;
        let row = rows.into_iter().find(|row| row.instance == name);
        let row = row.context("find the instance on this host")?;
        let host =
            std::fs::read_to_string("/proc/sys/kernel/hostname").context("read the host name")?;
        let host = String::from(ForeignText::new(host.trim()));
        let reason = row.message.map_or_else(
            || "the reason is unknown".to_owned(),
            |message| message.to_string(),
        );
        let subject = format!("{name} on {host} has failed");
        let mut text = format!("{subject}: {reason}\n");
        let log = last_lines(&row.unit);
        if !log.is_empty() {
            write!(text, "\nLast lines of its log:\n\n{}\n", log.join("\n"))?;
        }
        write!(
            text,
            "\nIt is not restarted automatically. On {host}, `sudo buildbot-conda doctor {name}` shows what is wrong,\n\
             and `sudo systemctl start {}` starts it.\n",
            row.unit
        )?;
        Ok(Self {
            text,
            subject,
            instance: name,
            unit: row.unit,
            host,
            state: row.state,
            reason,
        })
    }
}

/// Nothing where they cannot be had: the reason is worth a report without them.
fn last_lines(unit: &str) -> Vec<String> {
    let mut command = Command::new("journalctl");
    command
        .args(["--quiet", "--no-pager", "--no-hostname"])
        .args(["--output", journal::FORM, "--lines"])
        .arg(LOG_LINES.to_string())
        .args(["--unit", unit]);
    match output(command, Vec::new()) {
        Ok(text) => journal::last_lines(&text, LOG_LINES, FURTHER_LINES),
        Err(error) => {
            eprintln!("warning: the log is omitted: {error:#}");
            Vec::new()
        }
    }
}

fn mail(address: &str, report: &Report) -> anyhow::Result<()> {
    // Headers of mail are ASCII.
    let subject = report
        .subject
        .replace(|character: char| !character.is_ascii(), "?");
    let message = format!(
        "To: {address}\nSubject: {subject}\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\
         Content-Transfer-Encoding: 8bit\nAuto-Submitted: auto-generated\n\n{}",
        report.text
    );
    let mut command = Command::new("sendmail");
    command.args(["-i", "--", address]);
    output(command, message.into_bytes())
        .map(drop)
        .with_context(|| format!("send mail to `{address}`"))
}

fn call(hook: &Hook, report: &Report) -> anyhow::Result<()> {
    let Hook { host, port, target } = hook;
    let call = || {
        let body = serde_json::to_string(report).context("write JSON")?;
        let headers = "User-Agent: buildbot-conda\r\nContent-Type: application/json\r\n";
        let way = Way::Elsewhere(host, *port);
        let answer = requests::ask(way, "POST", target, headers, &body, Much::Head)?;
        let is_good = (200..300).contains(&answer.status);
        ensure!(is_good, "the answer is `{}`", answer.line);
        Ok(())
    };
    call().with_context(|| format!("call the web hook at `{host}`"))
}

/// Root's own file, as its content decides whom root connects to.
fn address_in(file: &AbsolutePath) -> anyhow::Result<Hook> {
    let found = Trust::of_root(None).find(file.as_str().as_ref());
    let text = found
        .map_err(|untrusted| anyhow!("{untrusted}"))?
        .read(LARGEST_ADDRESS)
        .with_context(|| format!("read `{file}`"))?
        .with_context(|| format!("`{file}` is too long for an address"))?;
    let text = String::from_utf8_lossy(&text);
    // Without the address, which is the secret.
    text.trim()
        .parse()
        .map_err(|error| anyhow!("`{file}`: {error}"))
}

/// Runs a program to its successful end, and gives what it prints.
fn output(command: Command, input: Vec<u8>) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let bounds = Bounds {
        time: Some(PATIENCE),
        printed: LARGEST,
        interruptible: false,
    };
    let ended = children::collect(command, Input::Text(input), &bounds, |_| false)
        .with_context(|| format!("run `{name}`"))?;
    let complaint = ForeignText::of_bytes(&ended.stderr);
    ensure!(ended.is_success, "`{name}` failed: {complaint}");
    Ok(harmless_lines(&String::from_utf8_lossy(&ended.stdout)).into_owned())
}
