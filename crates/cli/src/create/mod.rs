//! `create master` and `create worker`: a working instance in one command, or nothing at all.
//!
//! Of a worker `facts` are what there is, and `decision` is what follows from it. `place` settles account and directory
//! in the configuration, `password` has the passwords that somebody gives or chance makes, and the steps are
//! `crate::plan`'s.

mod decision;
mod facts;
mod master;
mod password;
mod place;
mod worker;

pub(crate) use master::database::{Database, Wanted, can_ask};
pub(crate) use worker::{Joining, join};

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use buildbot_conda_core::edit::{self, EditError};
use buildbot_conda_core::names::{InstanceName, InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Settings;
use clap::{Args, Subcommand};

use crate::output::Manner;
use crate::plan::{self, FileStep, Plan, Step, UnitStep};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::instance_state;
use crate::system::systemd;
use crate::system::unit_files;
use crate::system::values::Mode;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a master with a starter configuration
    Master(master::Arguments),
    /// Create a worker for a master on this host or on another one
    Worker(worker::Arguments),
}

/// What both take.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Name of an additional instance, the part after `@`; by default none
    pub(crate) name: Option<InstanceName>,
    /// Directory of the instance; it must be empty or not exist yet
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<String>,
    /// The account that runs the instance; it must exist
    #[arg(long, value_name = "USER")]
    pub(crate) user: Option<String>,
    /// The Conda installation, instead of the configured one
    #[arg(long, value_name = "ROOT")]
    pub(crate) conda_root: Option<String>,
    /// The environment, instead of the configured one: a name or an absolute path
    #[arg(long, value_name = "ENV")]
    pub(crate) conda_env: Option<String>,
    /// Read the password of the worker, or of the master's first worker, from the first line of a file
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub(crate) password_file: Option<std::path::PathBuf>,
    /// Read the same password from the first line of standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) manner: Manner,
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    let (common, role) = match verb {
        Verb::Master(arguments) => (&arguments.common, Role::Master),
        Verb::Worker(arguments) => (&arguments.common, Role::Worker),
    };
    let name = common.name.clone();
    let reference = InstanceRef { role, name };
    let (name, manner) = ("create", common.manner);
    let this = plan::Verb {
        name,
        manner,
        ..plan::Verb::default()
    };
    let state = |_: &_| instance_state::of(&reference, context);
    let closing = |closing: Closing| closing().into();
    this.run(context, || plan(verb, context), state, closing)
}

/// What to say when a plan is carried out; found out then.
type Closing = Box<dyn Fn() -> String>;

/// The plan, and what to say when it is carried out.
fn plan(verb: &Verb, context: &Context) -> anyhow::Result<(Plan, Closing)> {
    match verb {
        Verb::Master(arguments) => master::plan(arguments, context),
        Verb::Worker(arguments) => worker::plan(arguments, context),
    }
}

/// An instance on its way into the configuration.
struct Draft {
    reference: InstanceRef,
    file: String,
    before: String,
    after: String,
    lines: Vec<String>,
}

impl Draft {
    /// Whether the instance was set up before.
    fn is_there(&self, context: &Context) -> bool {
        let before = Settings::parse(&self.file, self.before.as_bytes());
        before.instance(&self.reference).is_ok_and(|instance| {
            let tac = format!("{}/buildbot.tac", instance.directory);
            context.path(&tac).symlink_metadata().is_ok()
        })
    }

    /// Whether nothing of its configuration would change.
    fn is_same(&self) -> bool {
        self.after == self.before
    }

    fn of_worker(wish: &decision::Wish, context: &Context) -> anyhow::Result<Self> {
        let reference = InstanceRef {
            role: Role::Worker,
            name: wish.name.clone(),
        };
        Self::new(reference, context)
    }

    fn new(reference: InstanceRef, context: &Context) -> anyhow::Result<Self> {
        // By the rules for a configuration: what they refuse is not to be rewritten.
        let settings = context.settings()?;
        settings.check().map_err(InvalidConfiguration::from)?;
        let file = settings.file().to_owned();
        let before = std::fs::read_to_string(&file).with_context(|| format!("read `{file}`"))?;
        unit_files::ensure_ours(&reference, context)?;
        Ok(Self {
            reference,
            after: before.clone(),
            before,
            file,
            lines: Vec::new(),
        })
    }

    /// Sets a key, unless it has that value in the instance's own table.
    fn set(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        let after = edit::set(&self.file, &self.after, Some(&self.reference), key, value).map_err(
            |error| match error {
                EditError::Refused(refusal) => InvalidConfiguration::Refused(refusal).into(),
                other @ EditError::NoTable { .. } => anyhow::Error::from(other),
            },
        )?;
        if after != self.after {
            self.after = after;
            self.lines
                .push(format!("{}.{key} = {value:?}", self.reference));
        }
        Ok(())
    }

    fn settings(&self) -> Settings {
        Settings::parse(&self.file, self.after.as_bytes())
    }

    /// The account of the instance's table, or the defaults'.
    fn configured_user(&self) -> anyhow::Result<String> {
        let settings = self.settings();
        if let Ok(instance) = settings.instance(&self.reference) {
            return Ok(instance.user.as_str().to_owned());
        }
        let defaults = settings.defaults().map_err(InvalidConfiguration::from)?;
        Ok(defaults.user.as_str().to_owned())
    }

    fn step(self, context: &Context) -> Option<Step> {
        (self.after != self.before).then(|| {
            FileStep::Configure {
                path: context.configuration(),
                before: self.before,
                after: self.after,
                references: vec![self.reference],
                lines: self.lines,
            }
            .into()
        })
    }
}

/// What there is to do for an instance that `create` has made already: nothing, if it is as it was asked for.
fn already(
    reference: &InstanceRef,
    is_as_asked: bool,
    context: &Context,
) -> anyhow::Result<(Plan, Closing)> {
    ensure!(
        is_as_asked,
        "`{reference}` already exists, and was created with other options\n\
         hint: `buildbot-conda set` changes its settings, and `buildbot-conda remove {reference}` removes it"
    );
    let unit = reference.unit_name();
    let note = if systemd::runs(context) && !systemd::is_running(&unit)? {
        format!(
            "`{reference}` exists, but is not running: `systemctl enable --now {unit}` starts it"
        )
    } else {
        format!("`{reference}` already exists")
    };
    let plan = Plan {
        title: format!("create {reference}"),
        notes: vec![note],
        steps: Vec::new(),
    };
    Ok((plan, Box::new(String::new)))
}

/// Whether an instance is there with the password that was given, if one was; `file` has the one that it was made with.
fn has_password(given: Option<&String>, file: Option<&Path>) -> bool {
    given.is_none_or(|given| {
        let text = file.and_then(|file| std::fs::read_to_string(file).ok());
        text.is_some_and(|text| text.lines().next() == Some(given))
    })
}

/// From the configuration to a unit that serves: the end of every plan.
fn enable_and_start(reference: &InstanceRef, context: &Context, steps: &mut Vec<Step>) {
    if !unit_files::links(&reference.unit_name(), context).is_ok_and(|links| !links.is_empty()) {
        plan::enable(reference, &context.path(unit_files::UNITS), steps);
    }
    // Without systemd, as in an image that is being built, the next boot starts it.
    if systemd::runs(context) {
        steps.push(UnitStep::ReloadSystemd.into());
        steps.push(
            UnitStep::Start {
                unit: reference.unit(),
            }
            .into(),
        );
    }
}

/// The credentials directory, as the package makes it, and a secret in it.
pub(crate) fn credential(file: &str, password: &str, context: &Context, steps: &mut Vec<Step>) {
    let directory = context.path(paths::CREDENTIALS);
    plan::directory(&directory, 0o700, steps);
    steps.push(
        FileStep::Write {
            path: directory.join(file),
            text: format!("{password}\n"),
            mode: Mode::new(0o600),
            secret: true,
        }
        .into(),
    );
}
