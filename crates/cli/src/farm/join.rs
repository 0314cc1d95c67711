//! `join`: this host's end of an invitation. The worker is made, and is at its master when this returns; or nothing is
//! left, and the reason is shown.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::invitation::Invitation;
use buildbot_conda_core::names::{InstanceName, InstanceRef};
use buildbot_conda_core::settings::Settings;
use buildbot_conda_core::starter::{TRUST, WORKER_CREDENTIAL, WorkerName};
use buildbot_conda_host::trusted::open_given;
use clap::Args;

use super::{invitations, openssl};
use crate::create::{self, Common, Joining};
use crate::inside::put::{Put, Text};
use crate::output;
use crate::plan::{self, FileStep, Plan, UnitStep, UserStep};
use crate::system::context::Context;
use crate::system::prompt;
use crate::system::record::{Noted as _, WorkerRecord};
use crate::system::values::{Identity, Mode};

/// Bytes of a line, at most.
const LONGEST: u64 = 4096;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Name of the instance, the part after `@`; by default none, or the worker's name if that instance exists
    name: Option<InstanceName>,
    /// Read the invitation from a file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Create the invitation on the master's host with ssh, and with sudo if needed
    #[arg(
        long,
        value_name = "ssh://HOST",
        conflicts_with = "file",
        requires = "worker_name"
    )]
    via: Option<String>,
    /// Name of the worker, for `--via`
    #[arg(long, value_name = "NAME", requires = "via")]
    worker_name: Option<WorkerName>,
    /// Directory of the instance; it must be empty or not exist yet
    #[arg(long, value_name = "DIR")]
    directory: Option<String>,
    /// The account that runs the instance
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// The Conda installation, instead of the configured one
    #[arg(long, value_name = "ROOT")]
    conda_root: Option<String>,
    /// The environment, instead of the configured one: a name or an absolute path
    #[arg(long, value_name = "ENV")]
    conda_env: Option<String>,
    /// Contact for the worker, shown on the master's web pages
    #[arg(long, value_name = "TEXT")]
    admin: Option<String>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    context.ensure_here_unless_shown("join")?;
    if !arguments.dry_run {
        context.ensure_root()?;
    }
    let invitation = invitation(arguments)?;
    let name = invitation.worker.as_str();
    let now = invitations::now();
    if let Some(seconds) = now.checked_sub(invitation.until) {
        let ago = std::time::Duration::from_secs(seconds);
        bail!(
            "the invitation of `{name}` ended {} ago\n\
             hint: on the master's host, `buildbot-conda invite {name}` makes a new one",
            humantime::format_duration(ago)
        );
    }
    let authority = openssl::authority_of(&invitation.address, &invitation.authority)?;
    if arguments.dry_run {
        plan::announce_unfinished(context);
        return output::print(plan(arguments, &invitation, authority, context)?.0);
    }
    let journal = plan::begin(context)?;
    let (plan, reference) = plan(arguments, &invitation, authority, context)?;
    for note in &plan.notes {
        eprintln!("{note}");
    }
    plan::carry_out(&plan, &journal, None)?;
    eprintln!(
        "`{reference}` is connected to the master at {} as `{name}`",
        invitation.address
    );
    Ok(ExitCode::SUCCESS)
}

fn invitation(arguments: &Arguments) -> anyhow::Result<Invitation> {
    let text = match (&arguments.via, &arguments.file) {
        (Some(place), _) => {
            let worker = arguments.worker_name.as_ref();
            by_ssh(
                place,
                worker.context("name the worker with `--worker-name`")?,
            )?
        }
        (None, Some(path)) if path != Path::new("-") => {
            let name = path.display();
            let file = open_given(path).with_context(|| format!("open `{name}`"))?;
            read(file).with_context(|| format!("read `{name}`"))?
        }
        (None, None) if io::stdin().is_terminal() => prompt::ask_unseen("invitation")?,
        (None, _) => read(io::stdin()).context("read an invitation from standard input")?,
    };
    // Others may have written something above it.
    let line = text
        .lines()
        .find(|line| line.trim().starts_with("bbworker:"));
    Ok(line.unwrap_or(&text).parse()?)
}

fn read(source: impl io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// The line that the master's host prints. A password that ssh or sudo wants is asked for on the terminal.
fn by_ssh(place: &str, worker: &WorkerName) -> anyhow::Result<String> {
    let host = place.strip_prefix("ssh://").unwrap_or(place);
    ensure!(
        !host.is_empty() && !host.starts_with('-'),
        "`{}` is not a host\nhint: `--via ssh://HOST`",
        host.escape_debug()
    );
    let script = format!(
        "if [ \"$(id -u)\" = 0 ]; then exec buildbot-conda invite {0}; else exec sudo buildbot-conda invite {0}; fi",
        worker.as_str()
    );
    let output = Command::new("ssh")
        .args(["-T", "--", host, &script])
        .stdin(Stdio::inherit())
        .stderr(Stdio::piped())
        .output()
        .context("run ssh")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{host}` makes no invitation: {}",
            ForeignText::new(said.trim())
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn plan(
    arguments: &Arguments,
    invitation: &Invitation,
    authority: String,
    context: &Context,
) -> anyhow::Result<(Plan, InstanceRef)> {
    let settings = context.settings()?;
    if let Some(reference) = joined_before(invitation, &settings, context) {
        let plan = again(&reference, invitation, authority, &settings, context)?;
        return Ok((plan, reference));
    }
    let common = Common {
        name: arguments
            .name
            .clone()
            .or_else(|| free_name(invitation, &settings, context)),
        directory: arguments.directory.clone(),
        user: arguments.user.clone(),
        conda_root: arguments.conda_root.clone(),
        conda_env: arguments.conda_env.clone(),
        password_file: None,
        password_stdin: false,
        dry_run: arguments.dry_run,
    };
    let joining = Joining {
        address: invitation.address.clone(),
        worker: invitation.worker.clone(),
        password: invitation.password.clone(),
        authority,
        admin: arguments.admin.clone(),
    };
    create::join(&common, joining, context)
}

/// A worker of this host that the invitation is for: it gets a new password.
fn joined_before(
    invitation: &Invitation,
    settings: &Settings,
    context: &Context,
) -> Option<InstanceRef> {
    let address = invitation.address.to_string();
    let mut references = settings.references();
    let found = references.find(|reference| {
        WorkerRecord::read(reference, context).is_some_and(|record| {
            record.worker == invitation.worker.as_str() && record.master == address
        })
    });
    found.cloned()
}

/// The plain worker is used as long as nobody has made it.
fn free_name(
    invitation: &Invitation,
    settings: &Settings,
    context: &Context,
) -> Option<InstanceName> {
    let plain = settings.instances().find(|instance| {
        instance.reference.name.is_none() && instance.reference.to_string() == "worker"
    })?;
    let directory = context.path(plain.directory.as_str());
    let mut entries = fs::read_dir(directory).into_iter().flatten();
    entries.next()?.ok()?;
    invitation.worker.as_str().parse().ok()
}

fn again(
    reference: &InstanceRef,
    invitation: &Invitation,
    authority: String,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<Plan> {
    let worker = settings
        .instance(reference)
        .map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let mut credentials = worker.credentials.iter();
    let file = credentials.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
    let (_, file) =
        file.with_context(|| format!("`{reference}` has no credential `{WORKER_CREDENTIAL}`"))?;
    let write = FileStep::Write {
        path: context.path(file.as_str()),
        text: format!("{}\n", invitation.password),
        mode: Mode::new(0o600),
        secret: true,
    };
    let trust = Put {
        identity: Identity::of(worker),
        directory: context.path(worker.directory.as_str()),
        path: Path::new(TRUST).join("authority.pem"),
        before: None,
        after: Some(Text {
            text: authority,
            mode: Mode::new(0o644),
        }),
        keep: false,
    };
    let unit = reference.unit();
    let required = true;
    let steps = vec![
        write.into(),
        UserStep::Put(trust).into(),
        UnitStep::StopAfterBuilds { unit: unit.clone() }.into(),
        UnitStep::Start { unit: unit.clone() }.into(),
        UnitStep::AwaitConnection { unit, required }.into(),
    ];
    Ok(Plan {
        title: format!("join {}", invitation.worker.as_str()),
        notes: vec![format!("`{reference}` gets the new password")],
        steps,
    })
}
