//! `join`: this host's end of an invitation. The worker is made, and is at its master when this returns; or nothing is
//! left, and the reason is shown.

use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::invitation::Invitation;
use buildbot_conda_core::names::{InstanceName, InstanceRef};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::{TRUST, WORKER_CREDENTIAL, WorkerName};
use buildbot_conda_host::trusted::open_given;
use clap::Args;

use super::{invitations, openssl};
use crate::create::{self, Common, Joining};
use crate::inside::put::{Put, Text};
use crate::output::Manner;
use crate::plan::{FileStep, Plan, UnitStep, UserStep, Verb, naming};
use crate::system::children::{self, Bounds, Input};
use crate::system::context::Context;
use crate::system::instance_state;
use crate::system::prompt;
use crate::system::record::{Noted as _, WorkerRecord};
use crate::system::status_file;
use crate::system::values::{Identity, Mode};

/// Bytes of a line, at most.
const LONGEST: u64 = 4096;
/// Bytes of what another host prints around it.
const MOST_PRINTED: usize = 1 << 20;

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
    /// The account that runs the instance; it must exist
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
    #[command(flatten)]
    manner: Manner,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    // Before anybody is asked for a secret.
    if !arguments.manner.dry_run {
        context.ensure_here_unless_shown("join")?;
        context.ensure_root()?;
    }
    let invitation = invitation(arguments)?;
    let name = invitation.worker.as_str();
    let settings = context.settings()?;
    let has_joined = joined_before(&invitation, &settings, context)
        .is_some_and(|before| before.has(&invitation));
    let ended = invitations::now().checked_sub(invitation.until);
    // One that was used here is as good as ever.
    if let (Some(seconds), false) = (ended, has_joined) {
        let ago = std::time::Duration::from_secs(seconds);
        bail!(
            "the invitation of `{name}` expired {} ago\n\
             hint: on the master's host, `buildbot-conda invite {name}` creates a new one",
            humantime::format_duration(ago)
        );
    }
    let authority = openssl::authority_of(&invitation.address, &invitation.authority)?;
    let this = Verb {
        name: "join",
        manner: arguments.manner,
        ..Verb::default()
    };
    let plan = || plan(arguments, &invitation, authority, context);
    let state = |reference: &InstanceRef| instance_state::of(reference, context);
    let closing = |reference: InstanceRef| {
        let address = &invitation.address;
        format!("`{reference}` is connected to the master at {address} as `{name}`").into()
    };
    this.run(context, plan, state, closing)
}

fn invitation(arguments: &Arguments) -> anyhow::Result<Invitation> {
    let text = match (&arguments.via, &arguments.file) {
        (Some(place), _) => {
            let worker = arguments.worker_name.as_ref();
            by_ssh(
                place,
                worker.context("specify the worker with `--worker-name`")?,
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
        .find(|line| line.trim().starts_with("bbworker"));
    Ok(line.unwrap_or(&text).parse()?)
}

/// Refuses a line that is among the words of a command line: before anything prints one of them.
pub(crate) fn refuse_line(mut words: impl Iterator<Item = OsString>) -> anyhow::Result<()> {
    // Behind the program's name and `--root DIR`.
    if words.by_ref().take(4).any(|word| word == "join")
        && words.any(|word| word.as_encoded_bytes().starts_with(b"bbworker"))
    {
        bail!(
            "the line of an invitation is a secret, but everybody on this host can see the arguments of a command\n\
             hint: `buildbot-conda join` prompts for it, and `--file` reads it; on the master's host, `buildbot-conda \
             rotate` creates another one"
        );
    }
    Ok(())
}

fn read(source: impl io::Read) -> anyhow::Result<String> {
    let mut text = String::new();
    source.take(LONGEST + 1).read_to_string(&mut text)?;
    ensure!(
        text.len() as u64 <= LONGEST,
        "it is longer than {LONGEST} bytes, so it is not an invitation"
    );
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
    let mut command = Command::new("ssh");
    command.args(["-T", "--", host, &script]);
    let bounds = Bounds {
        // A person may have to be asked.
        time: None,
        printed: MOST_PRINTED,
        interruptible: false,
    };
    let input = Input::Handed(Stdio::inherit());
    let ended = children::collect(command, input, &bounds, |_| false).context("run ssh")?;
    // The worker may have joined already.
    ensure!(
        ended.is_success && !ended.stdout.is_empty(),
        "`{host}` created no invitation: {}",
        ForeignText::of_bytes(&ended.stderr)
    );
    Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
}

fn plan(
    arguments: &Arguments,
    invitation: &Invitation,
    authority: String,
    context: &Context,
) -> anyhow::Result<(Plan, InstanceRef)> {
    let settings = context.settings()?;
    if let Some(before) = joined_before(invitation, &settings, context) {
        let reference = before.instance.reference.clone();
        return Ok((again(&before, invitation, authority, context)?, reference));
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
        manner: arguments.manner,
    };
    let joining = Joining {
        address: invitation.address.clone(),
        worker: invitation.worker.clone(),
        password: invitation.password.clone(),
        slots: invitation.slots,
        authority,
        admin: arguments.admin.clone(),
    };
    create::join(&common, joining, context)
}

/// A worker of this host that the invitation is for: it gets a new password.
struct Before<'a> {
    instance: &'a Instance,
    /// The file with its password.
    credential: PathBuf,
}

impl Before<'_> {
    /// Whether it has the password of the invitation already.
    fn has(&self, invitation: &Invitation) -> bool {
        let text = fs::read_to_string(&self.credential);
        text.is_ok_and(|text| text.lines().next() == Some(invitation.password.as_str()))
    }
}

fn joined_before<'a>(
    invitation: &Invitation,
    settings: &'a Settings,
    context: &Context,
) -> Option<Before<'a>> {
    let address = invitation.address.to_string();
    let instance = settings.instances().find(|instance| {
        WorkerRecord::read(&instance.reference, context).is_some_and(|record| {
            record.worker == invitation.worker.as_str() && record.master == address
        })
    })?;
    let mut credentials = instance.credentials.iter();
    let credential = credentials.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
    Some(Before {
        instance,
        credential: context.path(credential?.1.as_str()),
    })
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
    before: &Before<'_>,
    invitation: &Invitation,
    authority: String,
    context: &Context,
) -> anyhow::Result<Plan> {
    let Before {
        instance,
        credential,
    } = before;
    let reference = &instance.reference;
    let path = Path::new(TRUST).join("authority.pem");
    let trusted = naming::text(instance, &path.to_string_lossy(), context);
    let is_trusted = trusted.as_ref() == Some(&authority);
    let trust = Put {
        identity: Identity::of(instance),
        directory: context.path(instance.directory.as_str()),
        path,
        before: None,
        after: Some(Text {
            text: authority,
            mode: Mode::new(0o644),
        }),
        keep: false,
    };
    let unit = reference.unit();
    let required = true;
    let mut steps = Vec::new();
    if !is_trusted {
        steps.push(UserStep::Put(trust).into());
    }
    let mut notes = Vec::new();
    // The same line once more disturbs nobody.
    if before.has(invitation) {
        let status = status_file::read(&context.path(&paths::status_file(reference)));
        let worker = status.and_then(|status| status.worker);
        let is_connected = worker.is_some_and(|worker| worker.connection == "connected");
        if is_trusted && is_connected && naming::is_running(instance, context)? {
            notes.push(format!(
                "`{reference}` has joined with this line and is connected"
            ));
            return Ok(Plan {
                title: format!("join {}", invitation.worker.as_str()),
                notes,
                steps,
            });
        }
    } else {
        let write = FileStep::Write {
            path: credential.clone(),
            text: format!("{}\n", invitation.password),
            mode: Mode::new(0o600),
            secret: true,
        };
        steps.insert(0, write.into());
        steps.push(UnitStep::StopAfterBuilds { unit: unit.clone() }.into());
        notes.push(format!("`{reference}` gets the new password"));
    }
    steps.push(UnitStep::Start { unit: unit.clone() }.into());
    steps.push(UnitStep::AwaitConnection { unit, required }.into());
    Ok(Plan {
        title: format!("join {}", invitation.worker.as_str()),
        notes,
        steps,
    })
}
