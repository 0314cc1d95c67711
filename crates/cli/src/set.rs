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
use serde_json::Value;
use toml_edit::{DocumentMut, Item};

use crate::output::{self, Manner, Outcome, harmless};
use crate::system::configuration::{self, ensure_no_worse, refused};
use crate::system::context::Context;
use crate::system::{managed, systemd};

#[derive(Debug, Args)]
#[command(override_usage = "buildbot-conda set [--dry-run] [--json] [REF] KEY VALUE")]
pub(crate) struct Arguments {
    #[command(flatten)]
    manner: Manner,
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
#[command(override_usage = "buildbot-conda unset [--dry-run] [--json] [REF] KEY")]
pub(crate) struct UnsetArguments {
    #[command(flatten)]
    manner: Manner,
    /// Optional instance, then the key; without an instance, `[defaults]` is changed
    #[arg(num_args = 1..=2, required = true, value_name = "[REF] KEY")]
    words: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    // A value may start with a hyphen, so clap does not interpret anything after the first word.
    let mut manner = arguments.manner;
    let mut words: Vec<&String> = Vec::new();
    for word in &arguments.words {
        match word.as_str() {
            "--dry-run" => manner.dry_run = true,
            "--json" => manner.json = true,
            _ => words.push(word),
        }
    }
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
    edit.run(manner, context)
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
    edit.run(arguments.manner, context)
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
    fn run(&self, manner: Manner, context: &Context) -> anyhow::Result<ExitCode> {
        let Manner { dry_run, json } = manner;
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
        let is_change = change.after != change.before;
        let mut next = Vec::new();
        if is_change && !dry_run {
            configuration::replace(&change.after, context)?;
            next = next_steps(self.key, &settings, &changed, context);
        }
        let outcome = Outcome {
            changed: is_change,
            dry_run,
            before: self.value_in(&change.before),
            after: Some(self.value_in(&change.after)),
            ..Outcome::default()
        };
        if !json {
            output::print(change)?;
        }
        for step in &next {
            eprintln!("{step}");
        }
        if json {
            return outcome.print();
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What a text of the configuration has for the key; null where its default applies.
    fn value_in(&self, text: &str) -> Value {
        let table = self.reference.as_ref().map(ToString::to_string);
        let table = table.unwrap_or_else(|| "defaults".to_owned());
        let Ok(document) = text.parse::<DocumentMut>() else {
            return Value::Null;
        };
        let mut names = std::iter::once(table.as_str()).chain(self.key.splitn(2, '.'));
        let item = names.try_fold(document.as_item(), |item, name| item.get(name));
        match item.and_then(Item::as_value) {
            Some(toml_edit::Value::String(text)) => text.value().as_str().into(),
            Some(toml_edit::Value::Integer(number)) => (*number.value()).into(),
            Some(toml_edit::Value::Boolean(truth)) => (*truth.value()).into(),
            Some(other) => other.to_string().trim().into(),
            None => Value::Null,
        }
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
