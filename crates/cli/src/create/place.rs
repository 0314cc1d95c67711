//! Whose an instance is, where it is, and who makes the directory: the account itself where it can,
//! root where nobody else can write.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::{AbsolutePath, CondaEnv};

use super::{Common, Draft};
use crate::system::accounts::find_user;
use crate::system::context::{Context, InvalidConfiguration};

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
            path.to_str().context("name a directory")?.to_owned()
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
    if let Some(prefix) = managed(&instance.conda_env, &instance.prefix(), context) {
        draft.set("conda-env", &prefix)?;
        return settled(draft);
    }
    Ok(instance)
}

/// The prefix of a managed environment, where the installation has none of that name: a host needs no conda.
pub(super) fn managed(
    environment: &CondaEnv,
    prefix: &AbsolutePath,
    context: &Context,
) -> Option<String> {
    let is_there = |prefix: &str| context.path(&format!("{prefix}/conda-meta")).is_dir();
    let name = environment.to_string();
    if name.contains('/') || is_there(prefix.as_str()) {
        return None;
    }
    let prefix = paths::managed_prefix(&name);
    is_there(&prefix).then_some(prefix)
}

/// Refuses what would fail later, while nothing is begun.
pub(super) fn refuse(instance: &Instance, context: &Context) -> anyhow::Result<()> {
    let prefix = instance.prefix();
    if !context.path(&format!("{prefix}/conda-meta")).is_dir() {
        bail!(
            "no Conda environment `{prefix}`\n\
             hint: make it, for instance with `buildbot-conda env create`, or say where it is with `--conda-root` and \
             `--conda-env`"
        );
    }
    if !context.path(&format!("{prefix}/bin/python")).exists() {
        bail!(
            "the environment `{prefix}` has no Python\nhint: install `buildbot` and `buildbot-worker` in it"
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
        format!("`systemctl enable --now {unit}` starts what is there")
    } else {
        "name another one with `--directory`".to_owned()
    };
    bail!("`{name}` is not empty\nhint: {hint}")
}

/// Whether an account that owns none of it can use an environment: everybody may look into each of
/// its directories, and read the interpreter.
pub(super) fn is_for_everybody(prefix: &str) -> bool {
    let python = Path::new(prefix).join("bin/python");
    let Ok(real) = python.canonicalize() else {
        return false;
    };
    let passable = |path: &Path| {
        path.ancestors().skip(1).all(|ancestor| {
            ancestor
                .metadata()
                .is_ok_and(|found| found.mode() & 0o001 != 0)
        })
    };
    let readable = real
        .metadata()
        .is_ok_and(|found| found.mode() & 0o005 == 0o005);
    passable(&python) && passable(&real) && readable
}

/// The home directory of an account that is there.
pub(super) fn home(user: &str, context: &Context) -> anyhow::Result<std::path::PathBuf> {
    if context.is_elsewhere() {
        return Ok(Path::new("/home").join(user));
    }
    let user = find_user(user).map_err(|error| error.context("name who shall run it"))?;
    Ok(user.home)
}

/// What is going to be made, for people.
pub(super) fn told(reference: &InstanceRef, instance: &Instance) -> String {
    format!(
        "`{reference}` by `{}` in `{}`, environment `{}`",
        instance.user.as_str(),
        instance.directory,
        instance.prefix()
    )
}
