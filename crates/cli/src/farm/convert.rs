//! `convert`: a master that names its workers in its `master.cfg`, as the starter did before, reads them from
//! `workers.toml` and `passwords` from then on. They keep their names, passwords and connections; the reload of the master
//! is the proof, and takes all of it back where it fails.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::edit;
use buildbot_conda_core::listed::{self, Listed, Secret};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::starter::{
    MASTER_CREDENTIAL, PASSWORDS, WORKER_CREDENTIAL, WORKER_TABLE, WorkerName, worker_table,
};
use clap::Args;
use serde_json::json;

use crate::inside::put::{Put, Text};
use crate::inside::worker_list::Seen;
use crate::output::{Manner, harmless};
use crate::plan::{self, FileStep, Plan, Step, UnitStep, UserStep, Verb, naming};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::record::{Noted as _, Record, WorkerRecord};
use crate::system::systemd;
use crate::system::values::{Identity, Mode};

/// The file that has them now.
const CONFIGURATION: &str = "master.cfg";
/// The same as it was.
const REPLACED: &str = "master.cfg.replaced";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, if this host has several
    #[arg(value_name = "REF")]
    reference: Option<InstanceRef>,
    #[command(flatten)]
    manner: Manner,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let (master, record) = super::choose(arguments.reference.as_ref(), &settings, context)?;
    let name = &master.reference;
    let this = Verb {
        name: "convert",
        manner: arguments.manner,
        ..Verb::default()
    };
    let plan = || plan(master, &record, &settings, context);
    let state = |_: &_| {
        let record = Record::read(name, context);
        let is_converted = record.is_some_and(|record| record.worker_credential.is_some());
        Ok(json!({ "master": name.to_string(), "converted": is_converted }))
    };
    let closing = |next: Vec<String>| {
        let done =
            format!("`{name}` reads its workers from `{WORKER_TABLE}`; they keep their passwords");
        [vec![done], next].concat().join("\n").into()
    };
    this.run(context, plan, state, closing)
}

/// The plan, and what the administrator may do after it.
fn plan(
    master: &Instance,
    record: &Record,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<(Plan, Vec<String>)> {
    if record.worker_credential.is_some() {
        let plan = Plan {
            title: format!("convert {}", master.reference),
            notes: vec![format!(
                "`{}` has its workers in `{WORKER_TABLE}` already",
                master.reference
            )],
            steps: Vec::new(),
        };
        return Ok((plan, Vec::new()));
    }
    settings.check().map_err(InvalidConfiguration::from)?;
    let unit = master.reference.unit();
    ensure!(
        context.is_elsewhere() || naming::is_running(master, context)?,
        "`{}` is not running, and its reload is to show that all is well\nhint: `systemctl start {unit}`",
        master.reference
    );
    let (path, seen) = configuration(master, context)?;
    let listed = listed::read(&seen.text).map_err(|reason| {
        anyhow::anyhow!(
            "`{path}` is not understood: {reason}\n\
             hint: bring it into that form, or put the workers into `{WORKER_TABLE}` by hand, as in a new master's"
        )
    })?;
    let workers = passwords(&listed, master, context)?;
    let first = first(record, &workers);
    let mut credentials = Credentials::new(settings, context)?;
    for (worker, name) in local(master, settings, context) {
        if let Some(one) = workers.iter().find(|one| one.name.as_str() == name) {
            credentials.give(worker, one)?;
        }
    }
    let worker_credential = credentials.of_first(first, master, settings, context)?;
    let mut steps = credentials.steps(context);
    steps.push(tell(master, &listed, &seen, &workers, context));
    let required = true;
    if !context.is_elsewhere() {
        steps.push(UnitStep::Reload { unit, required }.into());
    }
    let record = Record {
        worker: first.name.as_str().to_owned(),
        worker_credential: Some(worker_credential),
        ..record.clone()
    };
    steps.extend(plan::note(&record, &master.reference, context)?);
    let names: Vec<&str> = workers.iter().map(|one| one.name.as_str()).collect();
    let plan = Plan {
        title: format!("convert {}", master.reference),
        notes: vec![format!(
            "`{path}` names the workers {}; it will read them from `{WORKER_TABLE}` and `{PASSWORDS}`, and they stay connected",
            names.join(", ")
        )],
        steps,
    };
    Ok((plan, next(master, &listed, &workers)))
}

/// The configuration of the master, which its account can replace, and its path for people.
fn configuration(master: &Instance, context: &Context) -> anyhow::Result<(String, Seen)> {
    let path = format!("{}/{CONFIGURATION}", master.directory);
    let seen = naming::seen(master, CONFIGURATION, context).with_context(|| {
        format!(
            "`{path}` is not a text file that `{}` can read",
            master.user.as_str()
        )
    })?;
    ensure!(
        seen.is_own,
        "`{path}` is not a file that `{}` may change\nhint: `chown {0} {path}`",
        master.user.as_str()
    );
    Ok((path, seen))
}

/// A worker on its way to the table.
struct Worker {
    name: WorkerName,
    password: String,
}

/// What each logs in with.
fn passwords(
    listed: &Listed<'_>,
    master: &Instance,
    context: &Context,
) -> anyhow::Result<Vec<Worker>> {
    let read = |(name, secret): (&WorkerName, Secret<'_>)| {
        let password = match secret {
            Secret::Text(text) => text.to_owned(),
            Secret::Credential(wanted) => credential(wanted, master, context)?,
        };
        let is_line = !password.is_empty() && !password.chars().any(char::is_control);
        ensure!(
            is_line && password.trim() == password,
            "the password of the worker `{}` cannot be a line of a file",
            name.as_str()
        );
        Ok(Worker {
            name: name.clone(),
            password,
        })
    };
    listed.workers().map(read).collect()
}

/// The text of a credential, as the starter's `secret()` gives it.
fn credential(wanted: &str, master: &Instance, context: &Context) -> anyhow::Result<String> {
    let mut credentials = master.credentials.iter();
    let Some((_, file)) = credentials.find(|(name, _)| name.as_str() == wanted) else {
        bail!(
            "`{}` has no credential `{}`, which its `{CONFIGURATION}` uses",
            master.reference,
            harmless(wanted)
        );
    };
    let text = fs::read_to_string(context.path(file.as_str()));
    let text = text.with_context(|| format!("read `{file}`"))?;
    Ok(text.trim().to_owned())
}

/// The worker of the master's first minute, or the first one that it has now.
fn first<'a>(record: &Record, workers: &'a [Worker]) -> &'a Worker {
    let mut all = workers.iter();
    let found = all.find(|one| one.name.as_str() == record.worker);
    found.unwrap_or(&workers[0])
}

/// The workers of the master that are instances of this host, with their names at the master.
fn local<'a>(
    master: &Instance,
    settings: &'a Settings,
    context: &Context,
) -> Vec<(&'a Instance, String)> {
    let reference = master.reference.to_string();
    let noted = settings.instances().filter_map(|instance| {
        let record = WorkerRecord::read(&instance.reference, context)?;
        (record.instance.as_ref() == Some(&reference)).then_some((instance, record.worker))
    });
    noted.collect()
}

/// Credentials on their way: a worker that shares its file with others gets one of its own, with the same password, so
/// that `rotate` changes that of one worker. Nothing has to be restarted for it.
struct Credentials<'a> {
    context: &'a Context,
    file: String,
    before: String,
    after: String,
    references: Vec<InstanceRef>,
    lines: Vec<String>,
    /// Files that several instances have.
    shared: BTreeSet<String>,
    /// New files below the credentials directory, and their passwords.
    new: Vec<(String, String)>,
    /// The files of workers, by their names at the master.
    given: Vec<(WorkerName, String)>,
}

impl<'a> Credentials<'a> {
    fn new(settings: &Settings, context: &'a Context) -> anyhow::Result<Self> {
        let file = settings.file().to_owned();
        let before = fs::read_to_string(&file).with_context(|| format!("read `{file}`"))?;
        let (mut seen, mut shared) = (BTreeSet::new(), BTreeSet::new());
        for instance in settings.instances() {
            for path in instance.credentials.values().map(ToString::to_string) {
                if !seen.insert(path.clone()) {
                    shared.insert(path);
                }
            }
        }
        Ok(Self {
            context,
            file,
            after: before.clone(),
            before,
            references: Vec::new(),
            lines: Vec::new(),
            shared,
            new: Vec::new(),
            given: Vec::new(),
        })
    }

    /// A worker of this host.
    fn give(&mut self, instance: &Instance, worker: &Worker) -> anyhow::Result<()> {
        let mut own = instance.credentials.iter();
        let path = own.find(|(name, _)| name.as_str() == WORKER_CREDENTIAL);
        let path = path.map(|(_, file)| file.to_string());
        let reference = &instance.reference;
        if let Some(path) = path.filter(|path| !self.shared.contains(path)) {
            let name = path.strip_prefix(&format!("{}/", paths::CREDENTIALS));
            self.given
                .push((worker.name.clone(), name.unwrap_or(&path).to_owned()));
            return Ok(());
        }
        let wanted = match &reference.name {
            None => "password-of-worker".to_owned(),
            Some(name) => format!("password-of-worker-{name}"),
        };
        let name = self.free(wanted, worker)?;
        let key = format!("credentials.{WORKER_CREDENTIAL}");
        self.after = edit::set(&self.file, &self.after, Some(reference), &key, &name)?;
        self.references.push(reference.clone());
        self.lines.push(format!("{reference}.{key} = {name:?}"));
        self.given.push((worker.name.clone(), name));
        Ok(())
    }

    /// The file by which `create worker` finds the password of the master's first worker.
    fn of_first(
        &mut self,
        first: &Worker,
        master: &Instance,
        settings: &Settings,
        context: &Context,
    ) -> anyhow::Result<String> {
        let mut given = self.given.iter();
        if let Some((_, name)) = given.find(|(name, _)| *name == first.name) {
            return Ok(name.clone());
        }
        let taken = settings
            .references()
            .filter_map(|reference| Record::read(reference, context)?.worker_credential);
        let taken: BTreeSet<String> = taken.collect();
        let wanted = match &master.reference.name {
            None => "password-of-worker".to_owned(),
            Some(name) => format!("password-of-first-worker-{name}"),
        };
        ensure!(
            !taken.contains(&wanted),
            "the credential `{wanted}` is that of another master's worker"
        );
        self.free(wanted, first)
    }

    /// The name of a file that has the password of a worker, or will have.
    fn free(&mut self, wanted: String, worker: &Worker) -> anyhow::Result<String> {
        let further = format!("{wanted}.{}", worker.name.as_str());
        for name in [wanted, further] {
            if self.new.iter().any(|(other, _)| *other == name) {
                continue;
            }
            let path = self.path(&name);
            match fs::read_to_string(&path) {
                Ok(text) if text.trim() == worker.password => return Ok(name),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    self.new.push((name.clone(), worker.password.clone()));
                    return Ok(name);
                }
                _ => {}
            }
        }
        bail!(
            "`{}` has other files in the place of those for the password of the worker `{}`",
            paths::CREDENTIALS,
            worker.name.as_str()
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.context.path(paths::CREDENTIALS).join(name)
    }

    fn steps(self, context: &Context) -> Vec<Step> {
        let mut steps = Vec::new();
        plan::directory(&context.path(paths::CREDENTIALS), 0o700, &mut steps);
        for (name, password) in &self.new {
            let write = FileStep::Write {
                path: self.path(name),
                text: format!("{password}\n"),
                mode: Mode::new(0o600),
                secret: true,
            };
            steps.push(write.into());
        }
        if self.after != self.before {
            let configure = FileStep::Configure {
                path: context.configuration(),
                before: self.before,
                after: self.after,
                references: self.references,
                lines: self.lines,
            };
            steps.push(configure.into());
            if systemd::runs(context) {
                steps.push(UnitStep::ReloadSystemd.into());
            }
        }
        steps
    }
}

/// The files that the master reads. The configuration of before is kept beside them, and where this is taken back, the
/// master reads it again.
fn tell(
    master: &Instance,
    listed: &Listed<'_>,
    seen: &Seen,
    workers: &[Worker],
    context: &Context,
) -> Step {
    let put = |directory: &Path, path: PathBuf, before: Option<Text>, text: String, mode| Put {
        identity: Identity::of(master),
        directory: directory.to_owned(),
        path,
        keep: false,
        before,
        after: Some(Text { text, mode }),
    };
    let directory = context.path(master.directory.as_str());
    let secret = Mode::new(0o600);
    let (place, closed) = (directory.join(PASSWORDS), Mode::new(0o700));
    let mut files = vec![put(&place, PathBuf::new(), None, String::new(), closed)];
    files.extend(workers.iter().map(|one| {
        naming::password_file(
            master,
            one.name.as_str(),
            None,
            Some(&one.password),
            context,
        )
    }));
    let table = worker_table(workers.iter().map(|one| &one.name));
    files.push(put(&directory, WORKER_TABLE.into(), None, table, secret));
    let real = seen.file.parent().unwrap_or(&directory);
    let name = seen.file.file_name().unwrap_or(CONFIGURATION.as_ref());
    let before = Text {
        text: seen.text.clone(),
        mode: seen.mode,
    };
    let text = seen.text.clone();
    files.push(put(&directory, REPLACED.into(), None, text, secret));
    let after = listed.moved(&master.reference);
    files.push(put(real, name.into(), Some(before), after, seen.mode));
    UserStep::Tell {
        unit: master.reference.unit(),
        files,
    }
    .into()
}

/// What is left to the administrator.
fn next(master: &Instance, listed: &Listed<'_>, workers: &[Worker]) -> Vec<String> {
    let mut lines = vec![format!(
        "`{}/{REPLACED}` is the file of before",
        master.directory
    )];
    let distinct: BTreeSet<&str> = workers.iter().map(|one| one.password.as_str()).collect();
    if distinct.len() < workers.len() {
        lines.push(
            "workers that share a password get their own by `buildbot-conda rotate NAME`"
                .to_owned(),
        );
    }
    let has = master
        .credentials
        .keys()
        .any(|name| name.as_str() == MASTER_CREDENTIAL);
    if has && !listed.moved(&master.reference).contains(MASTER_CREDENTIAL) {
        lines.push(format!(
            "nothing uses the credential `{MASTER_CREDENTIAL}` any more; `buildbot-conda unset {} \
             credentials.{MASTER_CREDENTIAL}` removes it from the configuration",
            master.reference
        ));
    }
    lines
}
