//! `adopt`: takes over a host that was set up by hand. Units of our names in `/etc/systemd/system`
//! go aside, what they and their wrapper scripts say becomes our configuration, and what ran runs
//! on under our units. `--undo` is the way back.
//!
//! `find` gathers, `unit_text`, `shell` and `reading` understand, `observed` has what runs say whether that is so, `derive`
//! decides with `variables` and `directives`, and `steps` makes the plan, which `crate::plan` carries out. Every word has
//! its `verdict`.

#[cfg(test)]
mod corpus;
mod derive;
mod derived;
mod directives;
mod find;
mod observed;
#[cfg(test)]
mod properties;
mod reading;
mod shell;
mod steps;
mod undo;
mod variables;
mod verdict;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::unit_text::{Place, Setting};
use buildbot_conda_host::trusted::Trust;
use clap::Args;
use serde_json::Value;

use crate::inside::inspection::{self, Question};
use crate::output::{self, Manner};
use crate::plan::{Plan, Verb};
use crate::system::accounts;
use crate::system::buildbots::{self, Buildbot};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::instance_state;
use crate::system::unit_files::{self, UNITS};

use derived::{Derived, Given, Host, Script, Source};
use find::HandMade;
use verdict::shown_place;

const SECOND_HINT: &str =
    "if this unit starts it, specify its directory with `--directory`; if not, stop it first";
const LOST_HINT: &str = "let its builds finish and stop it as its account, with `buildbot stop --clean` or \
     `buildbot-worker stop`, and remove what else starts it; then adopt again";

/// Bytes; more than any file of variables has.
const LARGEST: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Instances to adopt, such as `master` or `worker@gpu`; by default all
    #[arg(value_name = "REF")]
    references: Vec<InstanceRef>,
    /// The Conda installation, if the units and scripts do not name it
    #[arg(long, value_name = "ROOT")]
    conda_root: Option<String>,
    /// The environment, if they do not name it: a name or an absolute path
    #[arg(long, value_name = "ENV")]
    conda_env: Option<String>,
    /// The directory of `buildbot.tac`, if they do not name it; for a single instance
    #[arg(long, value_name = "DIR")]
    directory: Option<String>,
    /// The account that runs the instance, if they do not name it
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Restore the units that the last `adopt` replaced
    #[arg(
        long,
        conflicts_with_all = ["references", "conda_root", "conda_env", "directory", "user"]
    )]
    undo: bool,
    #[command(flatten)]
    manner: Manner,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let this = Verb {
        name: "adopt",
        manner: arguments.manner,
        works_elsewhere: true,
        record: (!arguments.undo).then_some(steps::record),
    };
    let state = |(): &()| configured(context);
    if arguments.undo {
        let closing = |()| "the state before `adopt` is restored".to_owned().into();
        return this.run(context, || Ok((undo::plan(context)?, ())), state, closing);
    }
    let closing = |()| {
        "adopted; `buildbot-conda adopt --undo` reverts this"
            .to_owned()
            .into()
    };
    this.run(
        context,
        || Ok((plan(arguments, context)?, ())),
        state,
        closing,
    )
}

/// The instances of this host.
fn configured(context: &Context) -> anyhow::Result<Value> {
    let settings = context.settings()?;
    let states = settings.references();
    states
        .map(|reference| instance_state::of(reference, context))
        .collect()
}

/// What is found becomes a plan, or the reasons why it cannot.
fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<Plan> {
    let settings = context.settings()?;
    settings.check().map_err(InvalidConfiguration::from)?;
    let found = find::find(context)?;
    let mut outside = outside(&found, context);
    let found = chosen(found, &arguments.references)?;
    if found.iter().all(|unit| unit.instances.is_empty()) {
        let nothing = format!("nothing to adopt in `{UNITS}`");
        let unused = found.iter().flat_map(unused);
        let notes = std::iter::once(nothing).chain(unused);
        let notes = notes.chain(outside.iter().map(not_adopted));
        return Ok(Plan {
            title: "adopt".to_owned(),
            notes: notes.chain(elsewhere(context)).collect(),
            steps: Vec::new(),
        });
    }
    let count: usize = found.iter().map(|unit| unit.instances.len()).sum();
    if arguments.directory.is_some() && count > 1 {
        bail!(
            "`--directory` requires a single instance\nhint: specify it, as in `buildbot-conda adopt master`"
        );
    }
    let given = Given {
        conda_root: arguments.conda_root.clone(),
        conda_env: arguments.conda_env.clone(),
        directory: arguments.directory.clone(),
        user: arguments.user.clone(),
    };
    let conda_root = settings.defaults().map_err(InvalidConfiguration::from)?;
    let scripts = Scripts::new(context);
    let host = Host {
        read: &|user, path| scripts.read(user, path),
        read_as_root: &|path| read_as_root(path, context),
        resolved: &|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
        uid: &|user| Some(accounts::find(user, context).ok()??.uid),
        activation: &|user, prefix| scripts.activation(user, prefix),
        is_private: &|path| is_private(&context.path(path)),
        exists: &|path| context.path(path).exists(),
        home: &|user| home(user, context),
        conda_root: conda_root.conda_root.as_str().to_owned(),
    };
    let mut derived: Vec<(&HandMade, &find::Instance, Derived)> = Vec::new();
    for unit in &found {
        for instance in &unit.instances {
            let all = all_settings(unit, instance);
            let file = format!("{}/{}", UNITS, unit.file_name);
            let observed = observed_of(instance)?;
            let begun = match observed {
                None if instance.is_running => {
                    begun_by(&all, instance.reference.role, &given, &mut outside)
                }
                _ => None,
            };
            let is_outside = begun.is_some();
            let observed = observed.or(begun);
            let source = Source {
                unit: &instance.unit,
                file: &file,
                settings: &all,
                observed: observed.as_ref(),
            };
            let mut one = derive::derive(&instance.reference, &source, &given, &host);
            one.outside = observed
                .filter(|_| is_outside)
                .map(|process| process.directory);
            derived.push((unit, instance, one));
        }
    }
    for (unit, instance, derived) in &mut derived {
        refuse_second(unit, instance, &outside, derived);
    }
    refuse_problems(&derived)?;
    let mut plan = steps::plan(&found, &derived, context)?;
    plan.notes.extend(found.iter().flat_map(unused));
    plan.notes.extend(elsewhere(context));
    plan.notes.extend(outside.iter().map(not_adopted));
    Ok(plan)
}

/// The Buildbots that run neither by a unit that was found nor by one of ours.
fn outside(found: &[HandMade], context: &Context) -> Vec<(Buildbot, buildbots::Facts)> {
    if context.is_elsewhere() {
        return Vec::new();
    }
    let instances = found.iter().flat_map(|unit| &unit.instances);
    let units: Vec<String> = instances.map(|instance| instance.unit.clone()).collect();
    let all = buildbots::outside(&units).into_iter();
    all.filter_map(|found| found.facts().map(|facts| (found, facts)))
        .collect()
}

/// Takes out the one process that a unit has started and that is not in its control group any more. That it is the one,
/// the administrator says by `--directory`, or the unit's words, which have its directory and its account.
fn begun_by(
    settings: &[Setting],
    role: Role,
    given: &Given,
    outside: &mut Vec<(Buildbot, buildbots::Facts)>,
) -> Option<buildbots::Facts> {
    let is_it = |(found, facts): &(Buildbot, buildbots::Facts)| {
        let is_meant = match &given.directory {
            Some(directory) => {
                fs::canonicalize(directory).is_ok_and(|path| path == facts.directory)
            }
            None => observed::is_named(settings, facts),
        };
        is_meant && found.role() == role
    };
    let mut all = (0..outside.len()).filter(|index| is_it(&outside[*index]));
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    Some(outside.remove(only).1)
}

/// Nothing is started where a Buildbot runs that the unit is not known to have started.
fn refuse_second(
    unit: &HandMade,
    instance: &find::Instance,
    outside: &[(Buildbot, buildbots::Facts)],
    derived: &mut Derived,
) {
    let mut values = derived.values.iter();
    let directory = values.find(|(key, _, _)| key == "directory");
    let directory = directory.and_then(|(_, directory, _)| fs::canonicalize(directory).ok());
    for (found, facts) in outside {
        let is_there = directory.as_ref() == Some(&facts.directory);
        let is_named =
            directory.is_none() && observed::is_named(&all_settings(unit, instance), facts);
        if found.role() != instance.reference.role || !(is_there || is_named) {
            continue;
        }
        let place = Place {
            file: format!("{UNITS}/{}", unit.file_name),
            line: 0,
        };
        let shown = shown_process(found, facts);
        if instance.is_running {
            let text = format!("{shown} may have been started by another unit");
            derived.refuse(&place, text, SECOND_HINT);
        } else {
            let text = format!("{shown} is running, but `{}` is not", instance.unit);
            derived.refuse(&place, text, LOST_HINT);
        }
    }
}

/// Those of the unit, then of its drop-ins.
fn all_settings(unit: &HandMade, instance: &find::Instance) -> Vec<Setting> {
    let all = unit.settings.iter().chain(&instance.settings);
    all.cloned().collect()
}

fn not_adopted((found, facts): &(Buildbot, buildbots::Facts)) -> String {
    format!(
        "{} is not adopted: none of these units starts it",
        shown_process(found, facts)
    )
}

fn shown_process(found: &Buildbot, facts: &buildbots::Facts) -> String {
    format!(
        "the {} in `{}` (process {} of `{}` in `{}`)",
        found.role(),
        facts.directory.display(),
        facts.pid,
        facts.user,
        found.scope()
    )
}

/// What the one Buildbot says that runs by a unit.
fn observed_of(instance: &find::Instance) -> anyhow::Result<Option<buildbots::Facts>> {
    if !instance.is_running {
        return Ok(None);
    }
    let found = buildbots::of_unit(&instance.unit)?;
    Ok(match &found[..] {
        [only] => only.facts(),
        _ => None,
    })
}

/// A file that root alone could have put there, as systemd reads it.
fn read_as_root(path: &str, context: &Context) -> Result<Script, String> {
    let root = context.is_elsewhere().then(|| context.path("/"));
    let found = Trust::of_root(root.as_deref()).find(Path::new(path));
    let found = found.map_err(|untrusted| untrusted.explanation())?;
    let bytes = found.read(LARGEST).map_err(|error| error.to_string())?;
    let bytes = bytes.ok_or_else(|| "it is too large".to_owned())?;
    let text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    let is_private = found.metadata().mode() & 0o004 == 0;
    Ok(Script { text, is_private })
}

/// Units of which at least one instance was named; a template goes as a whole.
fn chosen(found: Vec<HandMade>, references: &[InstanceRef]) -> anyhow::Result<Vec<HandMade>> {
    if references.is_empty() {
        return Ok(found);
    }
    for reference in references {
        let of_it = |unit: &HandMade| {
            let mut own = unit.instances.iter().map(|instance| &instance.reference);
            own.any(|own| own == reference)
        };
        if !found.iter().any(of_it) {
            bail!("no hand-written `{}` in `{}`", reference.unit_name(), UNITS);
        }
    }
    let is_chosen = |unit: &HandMade| {
        let mut own = unit.instances.iter().map(|instance| &instance.reference);
        own.any(|own| references.contains(own))
    };
    Ok(found.into_iter().filter(is_chosen).collect())
}

/// Hand-made units in directories that are not the administrator's.
fn elsewhere(context: &Context) -> impl Iterator<Item = String> {
    let found = unit_files::hand_made_elsewhere(context).into_iter();
    found.map(|path| {
        let path = path.display();
        format!("`{path}` is not in `{UNITS}`: `mv --no-clobber {path} {UNITS}/` makes it available to `adopt`")
    })
}

/// What is left as it is, and why.
fn unused(unit: &HandMade) -> Vec<String> {
    let path = format!("{}/{}", UNITS, unit.file_name);
    let mut notes = Vec::new();
    for name in &unit.unusable {
        notes.push(format!("`{name}` in `{path}` is not a valid instance name"));
    }
    if unit.instances.is_empty() {
        notes.push(format!(
            "`{path}` is not changed: nothing that it starts is enabled"
        ));
    }
    notes
}

/// Everything that is not understood, at once.
fn refuse_problems(derived: &[(&HandMade, &find::Instance, Derived)]) -> anyhow::Result<()> {
    let mut text = String::new();
    for (unit, instance, derived) in derived {
        for (remark, hint) in &derived.problems {
            let _ = write!(
                text,
                "\n{}",
                output::harmless(&format!("{}: {}", shown_place(&remark.place), remark.text))
            );
            if let Some(hint) = hint {
                let _ = write!(text, "\nhint: {hint}");
            }
        }
        if derived.problems.iter().any(|(_, hint)| hint.is_none()) {
            let _ = write!(
                text,
                "\nhint: `buildbot-conda adopt {} --conda-root ROOT --conda-env ENV --directory DIR` specifies the missing values",
                instance.reference
            );
        }
        for name in &unit.unusable {
            let _ = write!(
                text,
                "\n{}/{}: `{name}` is not a valid instance name\nhint: stop and disable it first",
                UNITS, unit.file_name
            );
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    bail!("some settings are not supported, nothing was changed{text}")
}

/// Scripts as the account of a unit reads them: where its own line leads decides what they are, so root follows none of
/// it.
struct Scripts<'a> {
    context: &'a Context,
    /// By account and path.
    known: RefCell<BTreeMap<(String, String), Result<Script, String>>>,
}

impl<'a> Scripts<'a> {
    fn new(context: &'a Context) -> Self {
        let known = RefCell::default();
        Self { context, known }
    }

    fn read(&self, user: &str, path: &str) -> Result<Script, String> {
        let key = (user.to_owned(), path.to_owned());
        let mut known = self.known.borrow_mut();
        let answer = known.entry(key).or_insert_with(|| self.ask(user, path));
        answer.clone()
    }

    /// What an environment's activation runs and reads, in one text.
    fn activation(&self, user: &str, prefix: &str) -> String {
        let directory = format!("{prefix}/etc/conda/activate.d");
        let names = unit_files::entries(&self.context.path(&directory)).unwrap_or_default();
        let scripts = names.iter().map(|name| format!("{directory}/{name}"));
        let all = scripts.chain([format!("{prefix}/conda-meta/state")]);
        let texts = all.filter_map(|path| self.read(user, &path).ok());
        texts.map(|script| script.text).collect()
    }

    fn ask(&self, user: &str, path: &str) -> Result<Script, String> {
        if self.context.is_elsewhere() {
            let path = self.context.path(path);
            let text = unit_files::read(&path)?;
            let is_private = is_private(&path);
            return Ok(Script { text, is_private });
        }
        let name = path.trim_start_matches('/').to_owned();
        let answer = inspection::ask(
            user,
            "/",
            &Question::Files(vec![name.clone()]),
            self.context,
        );
        let mut answer = answer.map_err(|error| format!("{error:#}"))?;
        let (text, mode) = answer
            .files
            .remove(&name)
            .ok_or_else(|| format!("`{user}` cannot read a text file there"))?;
        let is_private = mode.bits() & 0o004 == 0;
        Ok(Script { text, is_private })
    }
}

/// Whether a file is not for everybody to read.
fn is_private(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.mode() & 0o004 == 0)
}

/// The home directory of an account of the host that is looked at.
fn home(user: &str, context: &Context) -> Option<String> {
    let user = accounts::find(user, context).ok()??;
    user.home.to_str().map(str::to_owned)
}
