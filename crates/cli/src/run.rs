//! `run [--conda-root ROOT] [--env ENV] [REF] -- CMD...`: replaces this process by a command in the activated
//! environment. The crate `conda` implements activation; this file determines the environment, and executes the
//! command. For root, the service user or the owner of the environment runs it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::anyhow;
use buildbot_conda_conda::resolve::{Configured, Surroundings, configured, resolve};
use buildbot_conda_conda::{Environment, PrefixFacts, activate, exec_chain};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Hardening, Instance};
use buildbot_conda_core::values::CondaEnv;

use crate::system::context::{Context, InvalidConfiguration};
use crate::system::{activation, managed, search_path};

mod service_user;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The Conda installation, instead of the configured one
    #[arg(long, value_name = "ROOT")]
    conda_root: Option<PathBuf>,

    /// The environment: a name, also of one that `env create` made, or a path; an empty string is the base environment
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
    target: Target,
    environment: Environment,
    /// User and group of the configuration, if the environment comes from it.
    account: Option<(String, Option<String>)>,
}

enum Target {
    /// A name for `conda activate`.
    Typed(OsString),
    /// A configured prefix, entered without condarc in the same way as by the service.
    Configured {
        prefix: PathBuf,
        name: OsString,
        /// What the service sees of the homes.
        shown: Option<Vec<PathBuf>>,
    },
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
    let environment: Environment = search_path::callers_environment().collect();
    let mut surroundings = Surroundings::of_process(environment, &context.path("/"));
    let (prefix, entry) = match &place.target {
        Target::Typed(target) => typed(target, &place, &surroundings, context)?,
        Target::Configured {
            prefix,
            name,
            shown,
        } => {
            surroundings.shown.clone_from(shown);
            let entry = configured(name.clone(), &place.conda_root, &surroundings)
                .map_err(|error| with_hint(&error, &error.hint()))?;
            (prefix.clone(), entry)
        }
    };
    activation::ensure_only_roots(&prefix)?;
    let facts = PrefixFacts::read(&prefix).map_err(|error| with_hint(&error, &error.hint()))?;
    let activated = activate(
        &facts,
        entry.root.as_ref(),
        &surroundings.environment,
        &entry.options,
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

/// The environment with the given name, as conda finds it, or else a managed one.
fn typed(
    target: &OsStr,
    place: &Place,
    surroundings: &Surroundings,
    context: &Context,
) -> anyhow::Result<(PathBuf, Configured)> {
    let resolved = resolve(target, &place.conda_root, surroundings)
        .or_else(|error| {
            let prefix = managed_prefix(target, &place.conda_root, context).ok_or(error)?;
            resolve(prefix.as_os_str(), &place.conda_root, surroundings)
        })
        .map_err(|error| with_hint(&error, &error.hint()))?;
    // A given root is used unchanged; a configured one may be missing next to an environment of another tool, and then,
    // as in a service, there is no conda.
    let root = resolved.root;
    let is_there = place.root_is_named || root.installation().join("bin/conda").exists();
    let entry = Configured {
        root: is_there.then_some(root),
        options: resolved.options,
    };
    Ok((resolved.prefix, entry))
}

/// The exit status of shells for a command that cannot be executed.
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
            target: Target::Typed(given.unwrap_or_default()),
            environment: Environment::new(),
            account: None,
        });
    }
    let settings = context.settings()?;
    let (conda_root, conda_env, shown, environment, user, group) =
        if let Some(reference) = &arguments.reference {
            let instance = settings
                .instance(reference)
                .map_err(InvalidConfiguration::from)?;
            (
                &instance.conda_root,
                &instance.conda_env,
                shown_to(instance),
                &instance.environment,
                &instance.user,
                &instance.group,
            )
        } else {
            let defaults = settings.defaults().map_err(InvalidConfiguration::from)?;
            (
                &defaults.conda_root,
                &defaults.conda_env,
                None,
                &defaults.environment,
                &defaults.user,
                &None,
            )
        };
    let configured = PathBuf::from(conda_root.as_str());
    Ok(Place {
        target: match (given, &arguments.conda_root) {
            (Some(target), _) => Target::Typed(target),
            // Another root, and nothing said about the environment: the root's own.
            (None, Some(_)) => Target::Typed(OsString::new()),
            (None, None) => Target::Configured {
                prefix: buildbot_conda_host::prefix_to_enter(conda_env.prefix(conda_root).as_str()),
                name: conda_env.to_string().into(),
                shown,
            },
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

/// What the service of an instance sees of the homes, where its sandbox hides them.
fn shown_to(instance: &Instance) -> Option<Vec<PathBuf>> {
    let prefix = instance.prefix();
    let shown = [
        instance.directory.as_str(),
        instance.conda_root.as_str(),
        prefix.as_str(),
    ];
    (instance.hardening == Hardening::Strict).then(|| shown.map(PathBuf::from).into())
}

/// The managed environment whose name was given, as `create` finds it.
fn managed_prefix(target: &OsStr, conda_root: &Path, context: &Context) -> Option<PathBuf> {
    let environment: CondaEnv = target.to_str()?.parse().ok()?;
    let root = conda_root.to_str()?.parse().ok()?;
    let prefix = managed::prefix_of(&environment, &environment.prefix(&root), context)?;
    Some(buildbot_conda_host::prefix_to_enter(&prefix))
}

fn with_hint(error: &dyn std::error::Error, hint: &str) -> anyhow::Error {
    anyhow!("{error}\nhint: {hint}")
}
