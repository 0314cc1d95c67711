//! Whose an instance is, where it is, and who makes the directory: the account itself where it can,
//! root where nobody else can write.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_host::access::closed_environment;

use super::{Common, Draft};
use crate::inside::access::{self, Obstacle};
use crate::system::accounts::find_user;
use crate::system::context::{AS_ROOT, Context, InvalidConfiguration};
use crate::system::{installations, managed};

/// Puts account, environment and directory into the draft, and gives the instance as it will be.
/// `user` is the account unless one is given.
pub(super) fn settle(
    draft: &mut Draft,
    common: &Common,
    user: Option<&str>,
    home: &Path,
    context: &Context,
) -> anyhow::Result<Instance> {
    let configured = draft.settings();
    let configured = configured.instance(&draft.reference).ok();
    let directory = match (&common.directory, configured) {
        (Some(directory), _) => directory.clone(),
        // The one of the configuration is below the home of another account.
        (None, Some(instance)) if user.is_none_or(|user| user == instance.user.as_str()) => {
            instance.directory.to_string()
        }
        (None, _) => {
            let name = match &draft.reference.name {
                None => draft.reference.role.to_string(),
                Some(name) => format!("{}-{name}", draft.reference.role),
            };
            let path = home.join(name);
            path.to_str().context("determine the directory")?.to_owned()
        }
    };
    let is_new = configured.is_none_or(|instance| instance.directory.as_str() != directory);
    if is_new {
        draft.set("directory", &directory)?;
    }
    let given = [
        ("user", user),
        ("conda-root", common.conda_root.as_deref()),
        ("conda-env", common.conda_env.as_deref()),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            draft.set(key, value)?;
        }
    }
    let settled = |draft: &Draft| -> anyhow::Result<Instance> {
        let settings = draft.settings();
        let instance = settings
            .instance(&draft.reference)
            .map_err(InvalidConfiguration::from)?;
        Ok(instance.clone())
    };
    let instance = settled(draft)?;
    if let Some(prefix) = managed::prefix_of(&instance.conda_env, &instance.prefix(), context) {
        draft.set("conda-env", &prefix)?;
        return settled(draft);
    }
    Ok(instance)
}

/// Refuses what would fail later, while nothing is begun.
pub(super) fn refuse(instance: &Instance, context: &Context) -> anyhow::Result<()> {
    let prefix = instance.prefix();
    let user = instance.user.as_str();
    if let Some(obstacle) = access::obstacle(instance, context)? {
        bail!(
            "{}\nhint: {}",
            obstacle.sentence(user),
            ways_out(&obstacle, instance, context)
        );
    }
    // Whoever may not look does not say that nothing is there.
    if !context.is_elsewhere()
        && let Some(closed) = closed_environment(prefix.as_str().as_ref())
    {
        bail!("cannot read `{prefix}`: {closed}\nhint: {AS_ROOT}");
    }
    if !context.path(&format!("{prefix}/conda-meta")).is_dir() {
        bail!(
            "Conda environment `{prefix}` not found\nhint: {}",
            ways_to_one(instance, context)
        );
    }
    if !context.path(&format!("{prefix}/bin/python")).exists() {
        bail!(
            "the environment `{prefix}` contains no Python\nhint: install `buildbot` and `buildbot-worker` into it"
        );
    }
    let directory = context.path(instance.directory.as_str());
    let name = &instance.directory;
    let mut entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("list `{name}`"))?,
    };
    if entries.next().is_none() {
        return Ok(());
    }
    let hint = if directory.join("buildbot.tac").exists() {
        let unit = instance.reference.unit_name();
        format!("`systemctl enable --now {unit}` starts the existing instance")
    } else {
        "choose another one with `--directory`".to_owned()
    };
    bail!("`{name}` is not empty\nhint: {hint}")
}

/// What an environment lacks that Buildbot's packages do not always bring along: the packages, and how they are installed.
pub(super) fn missing(instance: &Instance, context: &Context) -> Option<(String, String)> {
    let prefix = instance.prefix();
    let packages = installations::missing(&context.path(prefix.as_str()), instance.reference.role);
    if packages.is_empty() {
        return None;
    }
    let shown: Vec<String> = packages.iter().map(|name| format!("`{name}`")).collect();
    let how = how_to_install(&packages, instance, context);
    Some((shown.join(" and "), how))
}

/// How packages are installed into the environment of an instance.
pub(super) fn how_to_install(packages: &[&str], instance: &Instance, context: &Context) -> String {
    let prefix = instance.prefix();
    let conda = format!("{}/bin/conda", instance.conda_root.as_str());
    if Path::new(prefix.as_str()).starts_with(paths::ENVIRONMENTS) {
        "add this to its file, then run `buildbot-conda env update`".to_owned()
    } else if context.path(&conda).exists() {
        let packages = packages.join(" ");
        format!("`{conda} install --prefix {prefix} --channel conda-forge {packages}` installs it")
    } else {
        "install this with the program that created the environment".to_owned()
    }
}

/// How somebody gets on whose account may not use what was named.
fn ways_out(obstacle: &Obstacle, instance: &Instance, context: &Context) -> String {
    let user = instance.user.as_str();
    let by_owner = match obstacle.owner_beside(user, context) {
        Some(owner) => format!("`--user {owner}` runs it as its owner; or "),
        None => String::new(),
    };
    if obstacle.path == instance.directory.as_str() {
        return format!("{by_owner}choose another directory with `--directory`");
    }
    format!(
        "{by_owner}use an environment that `{user}` can read: {}",
        ways_to_one(instance, context)
    )
}

/// How somebody without an environment gets one: what is there already, or else what makes one.
fn ways_to_one(instance: &Instance, context: &Context) -> String {
    let name = installations::managed_name(&instance.conda_env);
    let program = match instance.reference.role {
        Role::Master => "buildbot",
        Role::Worker => "buildbot-worker",
    };
    let configured = instance.prefix();
    let found = installations::candidates(&name, &[program], context);
    let found = found.iter().find(|found| found.prefix != configured);
    let there = match found.map(|found| (&found.prefix, &found.only)) {
        None => String::new(),
        Some((prefix, None)) => format!("`--conda-env {prefix}` uses an existing one; or "),
        Some((prefix, Some(owner))) => {
            format!("`--user {owner} --conda-env {prefix}` uses an existing one; or ")
        }
    };
    let package = if installations::has_builder(context) {
        ""
    } else {
        " with the package `buildbot-conda-env`"
    };
    format!(
        "{there}create one{package}: `buildbot-conda env create {name}`; or specify one with `--conda-root` and `--conda-env`"
    )
}

/// The home directory of an account that is there.
pub(super) fn home(user: &str, context: &Context) -> anyhow::Result<std::path::PathBuf> {
    if context.is_elsewhere() {
        return Ok(Path::new("/home").join(user));
    }
    let user = find_user(user).map_err(|error| error.context("select the account"))?;
    Ok(user.home)
}

/// What is going to be made, for people.
pub(super) fn description(reference: &InstanceRef, instance: &Instance) -> String {
    format!(
        "`{reference}` as user `{}`, directory `{}`, environment `{}`",
        instance.user.as_str(),
        instance.directory,
        instance.prefix()
    )
}
