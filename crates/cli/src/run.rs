//! `run [--conda-root ROOT] [--env ENV] [REF] -- CMD...`: a command in the activated environment, in
//! place of this process. What activation means is the `conda` crate's; this file finds out which
//! environment is meant, and becomes the command. As root, it is run by the service user, or by whoever owns the
//! environment.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, anyhow};
use buildbot_conda_conda::resolve::{Surroundings, resolve};
use buildbot_conda_conda::{Environment, PrefixFacts, activate, exec_chain};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::values::CondaEnv;

use crate::system::context::{Context, InvalidConfiguration};
use crate::system::{activation, managed, search_path};

mod service_user;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The Conda installation, instead of the configured one
    #[arg(long, value_name = "ROOT")]
    conda_root: Option<PathBuf>,

    /// The environment: a name (also of a managed one), a path, or an empty text for base
    #[arg(long, value_name = "ENV")]
    env: Option<OsString>,

    /// The instance whose settings apply, such as `master` or `worker@gpu`; by default `[defaults]`
    #[arg(value_name = "REF")]
    reference: Option<InstanceRef>,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Which environment is meant, and what is set in it afterwards.
struct Place {
    conda_root: PathBuf,
    /// It was given on the command line.
    root_is_named: bool,
    /// As `conda activate` takes it.
    target: OsString,
    environment: Environment,
    /// User and group of the configuration that it comes from, if it does.
    account: Option<(String, Option<String>)>,
}

/// Returns only when the command was not started.
pub(crate) fn run(arguments: Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let place = place(&arguments, context)?;
    let account = match &place.account {
        Some(account) => Some(account.clone()),
        None => service_user::owner_of(&place.conda_root, context)?.map(|owner| (owner, None)),
    };
    if let Some((user, group)) = &account
        && let Some(status) = service_user::become_user(user, group.as_deref(), context)?
    {
        return Ok(status);
    }
    let surroundings = surroundings(context)?;
    let resolved = resolve(&place.target, &place.conda_root, &surroundings)
        .or_else(|error| {
            let prefix = managed_prefix(&place, context).ok_or(error)?;
            resolve(prefix.as_os_str(), &place.conda_root, &surroundings)
        })
        .map_err(|error| with_hint(&error, &error.hint()))?;
    activation::ensure_only_roots(Path::new(&resolved.prefix))?;
    let facts =
        PrefixFacts::read(&resolved.prefix).map_err(|error| with_hint(&error, &error.hint()))?;
    // A root that somebody named counts as it is; a configured one may be missing beside an
    // environment that another tool made, and then, as in a service, there is no conda.
    let root = &resolved.root;
    let is_there = place.root_is_named || root.installation().join("bin/conda").exists();
    let activated = activate(
        &facts,
        is_there.then_some(root),
        &surroundings.environment,
        &resolved.options,
    )
    .map_err(|error| with_hint(&error, &error.hint()))?;
    for warning in &activated.warnings {
        eprintln!("warning: {warning}");
    }
    let mut words = arguments.command.into_iter();
    let program = words
        .next()
        .expect("the command line requires at least one");
    let command_line = exec_chain(&activated, &place.environment, program, words, None);
    let failure = Command::new(&command_line.program)
        .args(&command_line.arguments)
        .env_clear()
        .envs(&command_line.environment)
        .exec();
    let program = command_line.program.to_string_lossy();
    eprintln!("error: execute `{program}`: {failure}");
    Ok(ExitCode::from(status_of(&failure)))
}

/// What the shells say when a command cannot be executed.
fn status_of(failure: &io::Error) -> u8 {
    if failure.kind() == io::ErrorKind::NotFound {
        127
    } else {
        126
    }
}

/// Options win over the instance's settings, or the defaults; with a root given and no instance
/// named, the configuration is not read at all.
fn place(arguments: &Arguments, context: &Context) -> anyhow::Result<Place> {
    let given = arguments.env.clone();
    if let (Some(conda_root), None) = (&arguments.conda_root, &arguments.reference) {
        return Ok(Place {
            conda_root: conda_root.clone(),
            root_is_named: true,
            target: given.unwrap_or_default(),
            environment: Environment::new(),
            account: None,
        });
    }
    let settings = context.settings()?;
    let (conda_root, prefix, environment, user, group) =
        if let Some(reference) = &arguments.reference {
            let instance = settings
                .instance(reference)
                .map_err(InvalidConfiguration::from)?;
            let prefix = instance.prefix();
            (
                &instance.conda_root,
                prefix,
                &instance.environment,
                &instance.user,
                &instance.group,
            )
        } else {
            let defaults = settings.defaults().map_err(InvalidConfiguration::from)?;
            let prefix = defaults.conda_env.prefix(&defaults.conda_root);
            (
                &defaults.conda_root,
                prefix,
                &defaults.environment,
                &defaults.user,
                &None,
            )
        };
    let configured = PathBuf::from(conda_root.as_str());
    Ok(Place {
        target: match (given, &arguments.conda_root) {
            (Some(target), _) => target,
            // Another root, and nothing said about the environment: the root's own.
            (None, Some(_)) => OsString::new(),
            // The configuration addresses environments without condarc, so the name is settled here.
            (None, None) => buildbot_conda_host::prefix_to_enter(prefix.as_str()).into(),
        },
        root_is_named: arguments.conda_root.is_some(),
        conda_root: arguments.conda_root.clone().unwrap_or(configured),
        environment: environment
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.into()))
            .collect(),
        account: Some((
            user.as_str().to_owned(),
            group.as_ref().map(|group| group.as_str().to_owned()),
        )),
    })
}

/// The managed environment whose name was given, as `create` finds it.
fn managed_prefix(place: &Place, context: &Context) -> Option<PathBuf> {
    let environment: CondaEnv = place.target.to_str()?.parse().ok()?;
    let root = place.conda_root.to_str()?.parse().ok()?;
    let prefix = managed::prefix_of(&environment, &environment.prefix(&root), context)?;
    Some(buildbot_conda_host::prefix_to_enter(&prefix))
}

fn surroundings(context: &Context) -> anyhow::Result<Surroundings> {
    Ok(Surroundings {
        environment: search_path::callers_environment().collect(),
        directory: env::current_dir().context("find the current directory")?,
        home: env::home_dir().map(PathBuf::into_os_string),
        // Only for `~NAME`; without the file there are no such names.
        passwd: fs::read("/etc/passwd").unwrap_or_default(),
        system: context.path("/"),
    })
}

fn with_hint(error: &dyn std::error::Error, hint: &str) -> anyhow::Error {
    anyhow!("{error}\nhint: {hint}")
}
