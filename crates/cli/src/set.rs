//! `set` and `unset`: one key of the configuration, written atomically; then what has changed, and what brings it into
//! effect.

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::edit;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::{BackupEvery, Effect, Instance, Key, Settings};
use buildbot_conda_core::values::CondaEnv;
use clap::Args;
use clap::error::ErrorKind as Usage;

use crate::output::{self, harmless};
use crate::system::configuration::{self, ensure_no_worse, refused};
use crate::system::context::Context;
use crate::system::{managed, systemd};

#[derive(Debug, Args)]
#[command(override_usage = "buildbot-conda set [--dry-run] [REF] KEY VALUE")]
pub(crate) struct Arguments {
    /// Show the lines that would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Optional instance, then key and value; without an instance, `[defaults]` is changed
    #[arg(
        num_args = 1..,
        required = true,
        allow_hyphen_values = true,
        value_names = ["[REF] KEY", "VALUE"]
    )]
    words: Vec<String>,
}

#[derive(Debug, Args)]
#[command(override_usage = "buildbot-conda unset [--dry-run] [REF] KEY")]
pub(crate) struct UnsetArguments {
    /// Show the lines that would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Optional instance, then the key; without an instance, `[defaults]` is changed
    #[arg(num_args = 1..=2, required = true, value_name = "[REF] KEY")]
    words: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    // A value may start with a hyphen, so clap does not interpret anything after the first word.
    let is_option = |word: &&String| word.as_str() == "--dry-run";
    let dry_run = arguments.dry_run || arguments.words.iter().any(|word| is_option(&word));
    let words: Vec<&String> = arguments
        .words
        .iter()
        .filter(|word| !is_option(word))
        .collect();
    let (reference, key, value) = match words[..] {
        [key, value] => (None, key, value),
        [reference, key, value] => (Some(typed(reference)), key, value),
        _ => refuse_usage("expected `KEY VALUE` or `REF KEY VALUE`"),
    };
    let edit = Edit {
        reference,
        key,
        value: Some(value),
    };
    edit.run(dry_run, context)
}

pub(crate) fn run_unset(arguments: &UnsetArguments, context: &Context) -> anyhow::Result<ExitCode> {
    let (reference, key) = match &arguments.words[..] {
        [key] => (None, key),
        [reference, key] => (Some(typed(reference)), key),
        _ => refuse_usage("expected `KEY` or `REF KEY`"),
    };
    let edit = Edit {
        reference,
        key,
        value: None,
    };
    edit.run(arguments.dry_run, context)
}

fn typed(text: &str) -> InstanceRef {
    InstanceRef::typed(text).unwrap_or_else(|error| refuse_usage(&error.to_string()))
}

/// Ends this process as clap does.
fn refuse_usage(message: &str) -> ! {
    let message = format!(
        "{}\n\nFor more information, try '--help'.\n",
        harmless(message)
    );
    clap::Error::raw(Usage::ValueValidation, message).exit()
}

/// One key, and what becomes of it.
struct Edit<'a> {
    reference: Option<InstanceRef>,
    key: &'a str,
    /// None where the key is removed.
    value: Option<&'a str>,
}

impl Edit<'_> {
    fn run(&self, dry_run: bool, context: &Context) -> anyhow::Result<ExitCode> {
        let path = context.configuration();
        // Read by the rules for a configuration first: what they refuse is not to be rewritten.
        let settings = context.settings()?;
        let file = path.to_string_lossy().into_owned();
        let before = context.text()?;
        let after = self.text(&file, &before, context)?;
        // Checks that only the host can do, such as the location of a credential.
        let changed = context.settings_from(&after);
        ensure_no_worse(&settings, &changed)?;
        let change = Change {
            path,
            before,
            after,
        };
        if dry_run {
            return output::print(change);
        }
        let is_change = change.after != change.before;
        if is_change {
            configuration::replace(&change.after, context)?;
        }
        output::print(change)?;
        if is_change {
            for step in next_steps(self.key, &settings, &changed, context) {
                eprintln!("{step}");
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The text of the configuration with the change.
    fn text(&self, file: &str, before: &str, context: &Context) -> anyhow::Result<String> {
        let reference = self.reference.as_ref();
        let Some(value) = self.value else {
            if Key::find(self.key).is_none() {
                // As for a key that is not one and has a value.
                edit::set(file, before, reference, self.key, "").map_err(refused)?;
            }
            return edit::unset(file, before, reference, self.key).map_err(refused);
        };
        let after = edit::set(file, before, reference, self.key, value).map_err(refused)?;
        match self.managed_prefix(&context.settings_from(&after), context) {
            Some(prefix) => edit::set(file, before, reference, self.key, &prefix).map_err(refused),
            None => Ok(after),
        }
    }

    /// The prefix of a managed environment whose name is the value of `conda-env`, as `create` understands it.
    fn managed_prefix(&self, after: &Settings, context: &Context) -> Option<String> {
        let environment: CondaEnv = self
            .value
            .filter(|_| self.key == "conda-env")?
            .parse()
            .ok()?;
        let root = match &self.reference {
            Some(reference) => &after.instance(reference).ok()?.conda_root,
            None => &after.defaults().ok()?.conda_root,
        };
        managed::prefix_of(&environment, &environment.prefix(root), context)
    }
}

/// What brings a change of `key` into effect, for people.
fn next_steps(key: &str, before: &Settings, after: &Settings, context: &Context) -> Vec<String> {
    let effect = Key::find(key).map_or(Effect::Restart, |key| key.effect);
    let changed: Vec<&Instance> = after
        .instances()
        .filter(|new| before.instance(&new.reference).ok() != Some(*new))
        .collect();
    if changed.is_empty() {
        return vec!["no instance is affected".to_owned()];
    }
    let drop_in = |instance| {
        DropIn::of(instance)
            .ok()
            .map(|drop_in| drop_in.fingerprint())
    };
    let needs_reload = changed
        .iter()
        .any(|new| before.instance(&new.reference).ok().and_then(drop_in) != drop_in(*new));
    let is_running = |instance: &&&Instance| {
        systemd::is_running(&instance.reference.unit_name()).unwrap_or(false)
    };
    let running: Vec<String> = changed
        .iter()
        .filter(|_| systemd::runs(context))
        .filter(is_running)
        .map(|instance| instance.reference.unit_name())
        .collect();
    let mut steps = Vec::new();
    if (needs_reload || effect == Effect::Backup) && systemd::runs(context) {
        steps.push("next: sudo systemctl daemon-reload".to_owned());
    }
    match effect {
        Effect::Backup => steps.extend(changed.iter().filter_map(|instance| {
            let timer = format!("buildbot-backup@{}.timer", instance.reference);
            (instance.reference.role == Role::Master).then(|| {
                let verb = match instance.backup_every {
                    BackupEvery::Off => "stop",
                    _ => "restart",
                };
                format!("next: sudo systemctl {verb} {timer}")
            })
        })),
        Effect::Failure if needs_reload => {}
        Effect::Failure => steps.push("in effect at the next failure".to_owned()),
        Effect::Stop => steps.push("in effect at the next stop".to_owned()),
        Effect::Restart if !running.is_empty() => {
            steps.push(format!(
                "next: sudo systemctl restart {}",
                running.join(" ")
            ));
        }
        Effect::Start | Effect::Restart => steps.push("in effect at the next start".to_owned()),
    }
    steps
}

/// What becomes of the configuration.
struct Change {
    path: PathBuf,
    before: String,
    after: String,
}

/// The removed and added lines. One key is one place: all lines before and after it are unchanged.
impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.path.display();
        if self.after == self.before {
            return writeln!(formatter, "# no change in `{file}`");
        }
        writeln!(formatter, "in `{file}`:")?;
        let mut old: Vec<&str> = self.before.lines().collect();
        let mut new: Vec<&str> = self.after.lines().collect();
        while !old.is_empty() && old.last() == new.last() {
            old.pop();
            new.pop();
        }
        let same = old.iter().zip(&new).take_while(|(old, new)| old == new);
        let same = same.count();
        for (sign, lines) in [('-', &old[same..]), ('+', &new[same..])] {
            for line in lines {
                let line = format!("    {sign} {}", harmless(line));
                writeln!(formatter, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
}
