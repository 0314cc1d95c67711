//! From arguments and the inherited environment to the one command line that becomes Buildbot.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use buildbot_conda_conda::resolve::{Configured, Surroundings, configured};
use buildbot_conda_conda::{CommandLine, Environment, PrefixFacts, activate, exec_chain};
use buildbot_conda_core::dropin::{DropIn, FINGERPRINT_VARIABLE, MISSING_CREDENTIAL};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Hardening, Instance, Word as _};
use buildbot_conda_host::access::{self, Closed};
use buildbot_conda_host::below;
use buildbot_conda_host::systemd::too_old_for_strict;
use rustix::fs::Access;

use crate::arguments::Arguments;
use crate::refusal::Refusal;
use crate::scripts::{self, Scripts};

/// The command to execute, and the messages to print before.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) command_line: CommandLine,
    pub(crate) warnings: Vec<String>,
    /// Where the environment has activation scripts.
    pub(crate) scripts: Option<Scripts>,
}

/// Set by systemd for everything that it starts, systemd.exec(5).
const STARTED_BY_SYSTEMD: &str = "INVOCATION_ID";
/// The account that systemd started it as, systemd.exec(5).
const ACCOUNT: &str = "USER";

/// Where systemd has stored the credentials, systemd.exec(5).
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Decides what an instance's process becomes.
pub(crate) fn decide(arguments: &Arguments, inherited: &Environment) -> Result<Program, Refusal> {
    let settings = buildbot_conda_host::settings(arguments.root.as_deref())?;
    let instance = settings.instance(&arguments.reference)?;
    let mut warnings: Vec<String> = changed_since(instance, inherited)?.into_iter().collect();
    check_credentials(instance, inherited)?;
    check_hardening(instance, arguments.root.as_deref())?;
    check_directory(instance, arguments.root.as_deref())?;
    let prefix = buildbot_conda_host::prefix_to_enter(instance.prefix().as_str());
    let facts = PrefixFacts::read(&prefix)
        .map_err(|source| Refusal::Prefix { source })
        .and_then(|facts| check_buildbot(&prefix, instance).map(|()| facts))
        .map_err(|refusal| match access::closed_environment(&prefix) {
            Some(closed) => closed_to(instance, &prefix, closed),
            None => refusal,
        })?;
    let mut inherited = inherited.clone();
    inherited.remove(OsStr::new(FINGERPRINT_VARIABLE));
    let system = below(arguments.root.as_deref(), "/");
    let Configured { root, options } = configured(
        instance.conda_env.to_string().into(),
        Path::new(instance.conda_root.as_str()),
        &Surroundings::of_process(inherited.clone(), &system),
    )
    .map_err(|source| Refusal::Configured { source })?;
    let activation = activate(&facts, root.as_ref(), &inherited, &options)
        .map_err(|source| Refusal::Activation { source })?;
    warnings.extend(activation.warnings.iter().map(ToString::to_string));
    if inherited.contains_key(OsStr::new(STARTED_BY_SYSTEMD)) {
        warnings.extend(activation.unset.iter().map(|name| left_out(name)));
    }
    let afterwards = instance
        .environment
        .iter()
        .map(|(name, value)| (name.as_str().into(), value.into()))
        .collect();
    let python = prefix.join("bin/python").into_os_string();
    let runner = below(arguments.root.as_deref(), paths::RUNNER).into_os_string();
    let scripts = (!activation.scripts.is_empty())
        .then(|| {
            let run = inherited.get(OsStr::new(scripts::RUN));
            Scripts::new(&activation.scripts, instance, run.map(OsString::as_os_str))
        })
        .transpose()?;
    Ok(Program {
        command_line: exec_chain(
            &activation,
            &afterwards,
            python,
            runner_arguments(runner, instance, arguments.root.as_deref()),
            scripts.as_ref().map(|scripts| &scripts.watch),
        ),
        warnings,
        scripts,
    })
}

/// For a variable that a shell would read before activation, or that belongs to another environment.
fn left_out(name: &OsStr) -> String {
    format!(
        "`{}` of the unit is left out, as the environment is activated without it; `environment` in the configuration sets \
         it afterwards",
        name.display()
    )
}

/// Whether the unit was set up from another configuration. The setup by systemd cannot be changed from here: another
/// account is refused, and other differences are reported.
fn changed_since(instance: &Instance, inherited: &Environment) -> Result<Option<String>, Refusal> {
    if !inherited.contains_key(OsStr::new(STARTED_BY_SYSTEMD)) {
        return Ok(None);
    }
    let unit = instance.reference.unit_name();
    let Some(in_force) = inherited.get(OsStr::new(FINGERPRINT_VARIABLE)) else {
        return Err(Refusal::NoDropIn { unit });
    };
    let account = inherited.get(OsStr::new(ACCOUNT));
    if let Some(account) = account
        && account != instance.user.as_str()
    {
        return Err(Refusal::OtherAccount {
            unit,
            account: account.clone(),
            configured: instance.user.as_str().to_owned(),
        });
    }
    let now = DropIn::of(instance).map(|drop_in| drop_in.fingerprint());
    Ok(now.is_ok_and(|now| *in_force != *now).then(|| {
        "the configuration was changed after systemd read it: timeouts, credentials and \
         sandbox are still the old ones; `systemctl daemon-reload` and a restart apply the new ones"
            .to_owned()
    }))
}

/// systemd gives a credential without a file the drop-in's substitute, which is not for Buildbot.
fn check_credentials(instance: &Instance, inherited: &Environment) -> Result<(), Refusal> {
    let Some(directory) = inherited.get(OsStr::new(CREDENTIALS)) else {
        return Ok(());
    };
    for (name, file) in &instance.credentials {
        let path = Path::new(directory).join(name.as_str());
        // What cannot be read was not loaded, as after an edit without a daemon-reload: that is said.
        if fs::read(path).is_ok_and(|content| content == MISSING_CREDENTIAL.as_bytes()) {
            return Err(Refusal::NoCredential {
                name: name.as_str().to_owned(),
                path: PathBuf::from(file.as_str()),
            });
        }
    }
    Ok(())
}

/// Checked first: an older systemd hides the directory.
fn check_hardening(instance: &Instance, root: Option<&Path>) -> Result<(), Refusal> {
    if instance.hardening != Hardening::Strict {
        return Ok(());
    }
    let instance = instance.reference.to_string();
    too_old_for_strict(root).map_or(Ok(()), |version| Err(Refusal::Strict { version, instance }))
}

/// What its account may not pass is not missing.
fn closed_to(instance: &Instance, path: &Path, closed: Closed) -> Refusal {
    Refusal::Closed {
        user: instance.user.as_str().to_owned(),
        path: path.to_owned(),
        closed,
    }
}

/// Whether it has run before, so that it is not set up once more where its directory is gone.
fn has_served(instance: &Instance, root: Option<&Path>) -> bool {
    below(root, paths::served_mark(&instance.reference)).exists()
}

fn check_directory(instance: &Instance, root: Option<&Path>) -> Result<(), Refusal> {
    let path = PathBuf::from(instance.directory.as_str());
    let refused = |path: PathBuf, source| match access::closed(&path, Access::READ_OK) {
        Some(closed) => closed_to(instance, &path, closed),
        None => Refusal::Unreadable { path, source },
    };
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(Refusal::NoDirectory { path }),
        Err(error) if is_absence(&error) && has_served(instance, root) => {
            return Err(Refusal::gone(path, "does not exist", instance));
        }
        Err(error) if is_absence(&error) => return Err(Refusal::NoDirectory { path }),
        Err(source) => return Err(refused(path, source)),
    }
    let tac = path.join("buildbot.tac");
    match tac.metadata() {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && has_served(instance, root) => {
            Err(Refusal::gone(path, "contains no `buildbot.tac`", instance))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Refusal::NoTac {
            create: create_command(instance),
            path,
        }),
        Err(source) => Err(refused(tac, source)),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn create_command(instance: &Instance) -> String {
    let (prefix, directory) = (instance.prefix(), &instance.directory);
    match instance.reference.role {
        Role::Master => format!("{prefix}/bin/buildbot create-master {directory}"),
        Role::Worker => {
            format!(
                "{prefix}/bin/buildbot-worker create-worker {directory} HOST:PORT NAME PASSWORD"
            )
        }
    }
}

/// Python and Buildbot must be in the environment: what `PATH` would find instead is another one.
fn check_buildbot(prefix: &Path, instance: &Instance) -> Result<(), Refusal> {
    let executable = |path: &Path| {
        path.metadata()
            .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if !executable(&prefix.join("bin/python")) {
        return Err(Refusal::NoPython {
            prefix: prefix.to_owned(),
            how: how_to_install("python", prefix, instance),
        });
    }
    let (package, module) = match instance.reference.role {
        Role::Master => ("buildbot", "buildbot"),
        Role::Worker => ("buildbot-worker", "buildbot_worker"),
    };
    // The script is missing where only the module was installed, the module's directory where it
    // was installed for development: either of them will do.
    if prefix.join("bin").join(package).exists() || has_module(prefix, module) {
        return Ok(());
    }
    Err(Refusal::NoBuildbot {
        prefix: prefix.to_owned(),
        package,
        how: how_to_install(package, prefix, instance),
    })
}

/// The end of a hint: a command of the installed conda, or nothing.
fn how_to_install(package: &str, prefix: &Path, instance: &Instance) -> String {
    let conda = Path::new(instance.conda_root.as_str()).join("bin/conda");
    if conda.exists() {
        let (conda, prefix) = (conda.display(), prefix.display());
        format!(": `{conda} install --prefix {prefix} --channel conda-forge {package}`")
    } else {
        " with the program that created it, such as micromamba or pixi".to_owned()
    }
}

/// Whether `lib/python3.*/site-packages` has the module.
fn has_module(prefix: &Path, module: &str) -> bool {
    let Ok(entries) = fs::read_dir(prefix.join("lib")) else {
        return false;
    };
    entries.flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("python3")
            && entry.path().join("site-packages").join(module).is_dir()
    })
}

fn runner_arguments(runner: OsString, instance: &Instance, root: Option<&Path>) -> Vec<OsString> {
    let InstanceRef { role, .. } = &instance.reference;
    let mut arguments = vec![
        runner,
        role.as_str().into(),
        instance.directory.as_str().into(),
    ];
    let options = [
        ("--reference", instance.reference.to_string()),
        ("--start-timeout", seconds(instance.start_timeout)),
        ("--drain", seconds(instance.drain)),
        ("--log", instance.log.as_str().to_owned()),
        ("--upgrade", instance.upgrade.as_str().to_owned()),
    ];
    for (name, value) in options {
        arguments.extend([name.into(), value.into()]);
    }
    if let Some(name) = &instance.name {
        arguments.extend(["--name".into(), name.as_str().into()]);
    }
    if let Some(root) = root {
        arguments.extend(["--root".into(), root.into()]);
    }
    arguments
}

/// `90`, `1.500`: seconds, with milliseconds where there are any. Without floats, whose formatting
/// alone would be two per cent of this program.
fn seconds(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => duration.as_secs().to_string(),
        milliseconds => format!("{}.{milliseconds:03}", duration.as_secs()),
    }
}
