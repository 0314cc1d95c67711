//! `show`: what an instance really uses, defaults filled in, with its unit and drop-in.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::{Instance, Word as _};
use buildbot_conda_core::{paths, unit};
use clap::Args;

use crate::output;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instance to show, such as `master` or `worker@gpu`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let mut text = effective(instance);
    let mut file = |path: &str, content: &str| {
        write!(text, "\n# {path}\n{content}").expect("writing to a string succeeds");
    };
    let unit = unit_file(&arguments.reference)?;
    file(&format!("{}/{}", paths::UNITS, unit.name), &unit.text);
    let drop_in = DropIn::of(instance).map_err(|refused| anyhow!("{}", refused[0]))?;
    let name = format!("{}/{}", drop_in.directory_name(), paths::DROP_IN);
    let drop_in = drop_in.text();
    file(&format!("{}/{name}", paths::GENERATED), &drop_in);
    output::print(text)
}

/// The unit that ships for an instance: the plain one, or the template for names.
fn unit_file(reference: &InstanceRef) -> anyhow::Result<unit::UnitFile> {
    let at = if reference.name.is_some() { "@" } else { "" };
    let name = format!("buildbot-{}{at}.service", reference.role);
    unit::files()
        .into_iter()
        .find(|file| file.name == name)
        .with_context(|| format!("no unit `{name}` in this program"))
}

/// The settings as a table of the configuration, every key written out.
fn effective(instance: &Instance) -> String {
    let mut text = format!("[{}]\n", quoted_if_named(&instance.reference));
    let mut line = |key: &str, value: &str| {
        writeln!(text, "{key} = {}", basic_string(value)).expect("writing to a string succeeds");
    };
    line("user", instance.user.as_str());
    if let Some(group) = &instance.group {
        line("group", group.as_str());
    }
    line("conda-root", instance.conda_root.as_str());
    line("conda-env", &instance.conda_env.to_string());
    line("directory", instance.directory.as_str());
    line(
        "drain",
        &humantime::format_duration(instance.drain).to_string(),
    );
    line(
        "start-timeout",
        &humantime::format_duration(instance.start_timeout).to_string(),
    );
    let watchdog = instance.watchdog.map(humantime::format_duration);
    line(
        "watchdog",
        &watchdog.map_or_else(|| "off".to_owned(), |interval| interval.to_string()),
    );
    line("log", instance.log.as_str());
    line("upgrade", instance.upgrade.as_str());
    line("hardening", instance.hardening.as_str());
    if let Some(name) = &instance.name {
        line("name", name.as_str());
    }
    for (limit, value) in instance.limits.iter() {
        line(limit.key, value);
    }
    line("notify", &instance.notify.to_string());
    if instance.reference.role == Role::Master {
        line("backup-every", instance.backup_every.as_str());
        if let Some(directory) = &instance.backup_to {
            line("backup-to", directory.as_str());
        }
    }
    for (name, value) in &instance.environment {
        line(&format!("environment.{}", name.as_str()), value);
    }
    for (name, file) in &instance.credentials {
        line(&format!("credentials.\"{}\"", name.as_str()), file.as_str());
    }
    text
}

fn quoted_if_named(reference: &InstanceRef) -> String {
    match reference.name {
        None => reference.to_string(),
        Some(_) => format!("\"{reference}\""),
    }
}

/// A TOML basic string: quotes, backslashes and control characters are escaped.
fn basic_string(value: &str) -> String {
    let mut text = String::from("\"");
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            control if control.is_control() => {
                write!(text, "\\u{:04X}", u32::from(control))
                    .expect("writing to a string succeeds");
            }
            other => text.push(other),
        }
    }
    text.push('"');
    text
}
