//! Carrying a plan out, step by step, and taking back what was done when a step fails or somebody
//! interrupts.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown, lchown,
};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::edit;
use rustix::fs::{Mode, OFlags};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::journal::{Begun, Journal};
use super::{Plan, Step, making, missing_directories, systemd};
use crate::inside::{fill, put, worker_list};
use crate::system::accounts;
use crate::system::files::{self, Found};

/// Does every step. When one fails, what was done before is taken back.
///
/// The steps that take the whole back are written to `record`.
///
/// # Errors
///
/// The failure of a step, and whether everything is as it was before.
pub(crate) fn carry_out(
    plan: &Plan,
    journal: &Journal,
    record: Option<&Path>,
) -> anyhow::Result<()> {
    let interrupted = watch_signals()?;
    let mut begun = Begun::new(&plan.title);
    let mut outcome = Ok(());
    for step in &plan.steps {
        eprintln!("{step}");
        outcome = prepare(step, &mut begun, journal)
            .and_then(|()| perform(step))
            .and_then(|()| {
                if interrupted.load(Ordering::Relaxed) {
                    bail!("interrupted");
                }
                Ok(())
            });
        if outcome.is_err() {
            break;
        }
    }
    if let (Ok(()), Some(path)) = (&outcome, record) {
        outcome = write_record(path, &mut begun, journal);
    }
    match outcome {
        Ok(()) => journal.close(),
        Err(error) => Err(after_failure(&error, begun, journal)),
    }
}

/// The record counts once the journal is closed; until then it is one more thing to take back.
fn write_record(path: &Path, begun: &mut Begun, journal: &Journal) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&begun.undo).context("write a record")?;
    let step = Step::Write {
        path: path.to_owned(),
        text,
        mode: 0o600,
        secret: true,
    };
    prepare(&step, begun, journal)?;
    perform(&step)
}

/// A signal does not end this process in the middle of a step; it is looked for between them.
fn watch_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&interrupted))
            .context("watch for signals")?;
    }
    Ok(interrupted)
}

/// Notes how `step` is taken back before it begins.
fn prepare(step: &Step, begun: &mut Begun, journal: &Journal) -> anyhow::Result<()> {
    let mut undo = inverse(step)?;
    undo.append(&mut begun.undo);
    begun.undo = undo;
    journal.write(begun)
}

fn after_failure(error: &anyhow::Error, begun: Begun, journal: &Journal) -> anyhow::Error {
    eprintln!("that failed, taking back what was done");
    // The reason first, any hint of it last.
    let text = format!("{error:#}");
    let (reason, hint) = match text.split_once("\nhint: ") {
        Some((reason, hint)) => (reason, format!("\nhint: {hint}")),
        None => (text.as_str(), String::new()),
    };
    match take_back(begun, journal) {
        Ok(()) => anyhow!("{reason}; everything is as it was before{hint}"),
        Err(other) => anyhow!("{reason}; and {other:#}{hint}"),
    }
}

/// Does the steps that take something back, all of them, whichever fail; those stay in the journal.
pub(super) fn take_back(mut begun: Begun, journal: &Journal) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    let mut reasons = Vec::new();
    journal.write(&begun)?;
    for step in std::mem::take(&mut begun.undo) {
        if let Err(error) = perform(&step) {
            reasons.push(format!("{error:#}"));
            failed.push(step);
        }
    }
    if failed.is_empty() {
        return journal.close();
    }
    begun.undo = failed;
    journal.write(&begun)?;
    bail!(
        "not everything could be taken back: {}; the next verb that changes this host tries again",
        reasons.join("; ")
    )
}

/// The steps that take `step` back, seen from before it. Each tolerates that the step was never
/// done, or half.
fn inverse(step: &Step) -> anyhow::Result<Vec<Step>> {
    Ok(match step {
        Step::Stop { unit, .. } | Step::StopAfterBuilds { unit } if systemd::is_running(unit)? => {
            vec![Step::ReloadSystemd, Step::Start { unit: unit.clone() }]
        }
        Step::Start { unit } if !systemd::is_running(unit)? => {
            let mut undo = vec![Step::Stop {
                unit: unit.clone(),
                keep_builds: false,
            }];
            let new = systemd::directories(unit);
            let new = new.into_iter().filter(|path| !path.exists());
            undo.extend(new.map(|path| Step::RemoveTree { path }));
            undo
        }
        Step::ReloadSystemd => vec![Step::ReloadSystemd],
        Step::CreateAccount { name, home } => vec![Step::RemoveAccount {
            name: name.clone(),
            home: home.clone(),
        }],
        Step::CreateDirectory { path, .. } | Step::GiveDirectory { path, .. } => {
            let mut missing = missing_directories(path);
            missing.reverse();
            let remove = |path| Step::RemoveDirectory { path };
            missing.into_iter().map(remove).collect()
        }
        Step::Write { path, .. } | Step::Remove { path } | Step::Link { path, .. } => {
            match files::look(path)? {
                Found::Nothing => vec![Step::Remove { path: path.clone() }],
                Found::File { text, mode } => vec![Step::Write {
                    path: path.clone(),
                    text,
                    mode,
                    secret: true,
                }],
                Found::Link(target) => vec![Step::Link {
                    path: path.clone(),
                    target,
                }],
                Found::Directory => bail!("`{}` is a directory", path.display()),
            }
        }
        Step::Run { back, .. } => back.clone(),
        Step::SetMode { path, .. } => mode_now(path)?.into_iter().collect(),
        Step::Put(put) => vec![Step::Put(put.inverse())],
        Step::Move { from, to } => vec![Step::Move {
            from: to.clone(),
            to: from.clone(),
        }],
        Step::Configure {
            path,
            before,
            after,
            references,
            ..
        } => vec![Step::Configure {
            path: path.clone(),
            before: after.clone(),
            after: before.clone(),
            references: references.clone(),
            lines: vec!["what was there before".to_owned()],
        }],
        Step::Fill {
            user,
            group,
            directory,
            contents: _,
        } => vec![Step::Clear {
            user: user.clone(),
            group: group.clone(),
            directory: directory.clone(),
            keep: directory.is_dir(),
        }],
        // The running master knows the one list or the other, whether it was reloaded yet or not.
        Step::NameWorker {
            user,
            group,
            unit,
            edit,
        } => vec![
            Step::NameWorker {
                user: user.clone(),
                group: group.clone(),
                unit: unit.clone(),
                edit: edit.inverse(),
            },
            Step::Reload {
                unit: unit.clone(),
                required: false,
            },
        ],
        // Nothing changes, or nothing brings it back: those come last in their plans.
        Step::Stop { .. }
        | Step::Start { .. }
        | Step::Reload { .. }
        | Step::AwaitConnection { .. }
        | Step::Make(_)
        | Step::StopAfterBuilds { .. }
        | Step::RemoveAccount { .. }
        | Step::RemoveDirectory { .. }
        | Step::Clear { .. }
        | Step::RemoveTree { .. } => Vec::new(),
    })
}

fn perform(step: &Step) -> anyhow::Result<()> {
    match step {
        Step::Stop { unit, keep_builds } => systemd::stop(unit, *keep_builds),
        Step::Start { unit } => systemd::start(unit),
        Step::ReloadSystemd => systemd::reload(),
        Step::Reload { unit, required } => systemd::reload_unit(unit, *required),
        Step::AwaitConnection { unit, required } => systemd::await_connection(unit, *required),
        Step::CreateAccount { name, home } => create_account(name, home),
        Step::RemoveAccount { name, home } => remove_account(name, home),
        Step::CreateDirectory { path, mode } => create_directory(path, *mode),
        Step::GiveDirectory { path, user } => {
            let user = accounts::find_user(user)?;
            create_directory(path, 0o755)?;
            lchown(path, Some(user.uid), Some(user.gid))
                .with_context(|| format!("give `{}` to `{}`", path.display(), user.name))
        }
        Step::RemoveDirectory { path } => remove_directory(path),
        Step::Write {
            path, text, mode, ..
        } => files::write(path, text, *mode),
        Step::Remove { path } => files::remove(path),
        Step::Link { path, target } => files::link(path, target),
        Step::Move { from, to } => move_if_there(from, to),
        Step::Configure {
            path,
            before,
            after,
            references,
            ..
        } => configure(path, before, after, references),
        Step::Fill {
            user,
            group,
            directory,
            contents,
        } => fill::fill(user, group.as_deref(), directory, contents),
        Step::Clear {
            user,
            group,
            directory,
            keep,
        } => fill::clear(user, group.as_deref(), directory, *keep),
        Step::NameWorker {
            user, group, edit, ..
        } => worker_list::change(user, group.as_deref(), edit),
        Step::Run { words, .. } => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            systemd::run(command)
        }
        Step::SetMode {
            path,
            mode,
            user,
            group,
        } => set_mode(path, *mode, user, group),
        Step::Put(put) => put::put(put),
        Step::StopAfterBuilds { unit } => systemd::stop_after_builds(unit),
        Step::Make(making) => making::make(making),
        Step::RemoveTree { path } => match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            outcome => outcome.with_context(|| format!("remove `{}`", path.display())),
        },
    }
}

/// A move that is taken back may never have been made.
fn move_if_there(from: &Path, to: &Path) -> anyhow::Result<()> {
    let is_there = |path: &Path| path.symlink_metadata().is_ok();
    if !is_there(from) && is_there(to) {
        return Ok(());
    }
    files::move_to(from, to)
}

fn create_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    for directory in missing_directories(path) {
        let mode = if directory == path { mode } else { 0o755 };
        fs::DirBuilder::new()
            .mode(mode)
            .create(&directory)
            .with_context(|| format!("create `{}`", directory.display()))?;
    }
    Ok(())
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir(path) {
        Ok(()) => Ok(()),
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("remove `{}`", path.display())),
    }
}

fn configure(path: &Path, before: &str, after: &str, references: &[String]) -> anyhow::Result<()> {
    let name = path.display().to_string();
    // A link is the administrator's arrangement; what it leads to is what changes.
    let path = path
        .canonicalize()
        .with_context(|| format!("follow `{name}`"))?;
    let Found::File { text, mode } = files::look(&path)? else {
        bail!("`{name}` is no file");
    };
    if text == after {
        return Ok(());
    }
    if text == before {
        return files::write(&path, after, mode);
    }
    let mut changed = text;
    for reference in references {
        changed = edit::take_table(&name, &changed, after, &reference.parse()?)?;
    }
    files::write(&path, &changed, mode)
}

/// How mode and owner of what is there are set to what they are.
fn mode_now(path: &Path) -> anyhow::Result<Option<Step>> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at `{}`", path.display())),
        Ok(found) => Ok(Some(Step::SetMode {
            path: path.to_owned(),
            mode: found.mode() & 0o7777,
            user: found.uid().to_string(),
            group: found.gid().to_string(),
        })),
    }
}

/// By a descriptor, so that it is one file for both and no link is followed.
fn set_mode(path: &Path, mode: u32, user: &str, group: &str) -> anyhow::Result<()> {
    let uid = accounts::number_of("passwd", user)?;
    let gid = accounts::number_of("group", group)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let set = || -> std::io::Result<()> {
        let file = fs::File::from(rustix::fs::open(path, flags, Mode::empty())?);
        fchown(&file, Some(uid), Some(gid))?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    };
    set().with_context(|| format!("set mode and owner of `{}`", path.display()))
}

fn create_account(name: &str, home: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("adduser");
    command
        .args(["--quiet", "--system", "--group", "--shell", "/bin/bash"])
        .args(["--gecos", "Buildbot worker", "--home"])
        .arg(home)
        .arg(name);
    systemd::run(command)
}

fn remove_account(name: &str, home: &Path) -> anyhow::Result<()> {
    if accounts::find_user(name).is_ok() {
        // Without `--system`, which refuses people's accounts: some that a profile has are such.
        let mut command = Command::new("deluser");
        command.args(["--quiet", name]);
        systemd::run(command)?;
    }
    remove_directory(home)
}
