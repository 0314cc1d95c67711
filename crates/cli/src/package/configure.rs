//! The part of postinst before the units: directories, account and configuration. Nothing here depends on Conda or
//! Buildbot being installed; the units report that. Each step may have been interrupted and is then repeated.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;

use super::{Answers, account, say, units};
use crate::system::context::Context;
use crate::system::{accounts, configuration, files};

/// The package's directories, with their modes.
const DIRECTORIES: [(&str, u32); 5] = [
    ("/etc/buildbot-conda", 0o755),
    (paths::CREDENTIALS, 0o700),
    ("/var/lib/buildbot-conda", 0o755),
    (paths::STATE, 0o755),
    (paths::BACKUPS, 0o755),
];
/// The name of the first configuration until it is complete; a purge removes files with this prefix.
const UNFINISHED: &str = "/etc/buildbot-conda/.config.toml.new";

pub(super) fn run(answers: &Answers, context: &Context) -> anyhow::Result<()> {
    create_directories(context)?;
    account::remove_half_made(context)?;
    account::provide(answers, context)?;
    write_configuration(answers, context)?;
    // Errors only prevent the affected instances from starting, and are not a reason to fail.
    let settings = context.settings().map_err(anyhow::Error::from);
    if let Err(error) = settings.and_then(|found| configuration::ensure_good(&found, context)) {
        let file = paths::CONFIGURATION;
        eprintln!("error: {error:#}");
        say(&format!(
            "notice: instances with problems in {file} do not start until the problems are fixed"
        ));
    }
    units::report_hand_made(context);
    units::settle(answers, context)
}

/// A directory that exists keeps the mode that its administrator gave it. A new one has its mode from its beginning: what
/// is interrupted between making it and changing its mode would pass for an administrator's.
fn create_directories(context: &Context) -> anyhow::Result<()> {
    for (path, mode) in DIRECTORIES {
        let path = context.path(path);
        match DirBuilder::new().mode(mode).create(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other.with_context(|| format!("create `{}`", path.display()))?,
        }
    }
    Ok(())
}

/// The first configuration is created atomically: from an incomplete one, debconf would read the starter's values
/// instead of the answers. In an existing configuration, only answered values are changed.
fn write_configuration(answers: &Answers, context: &Context) -> anyhow::Result<()> {
    let unfinished = context.path(UNFINISHED);
    files::remove(&unfinished)?;
    let path = context.configuration();
    if path.symlink_metadata().is_ok() {
        let wanted = wanted(answers, false);
        if wanted.is_empty() {
            return Ok(());
        }
        return match context.text() {
            Ok(before) => {
                let after = with_answers(&before, wanted, context);
                if after == before {
                    return Ok(());
                }
                configuration::replace(&after, context)
            }
            Err(error) => {
                say(&format!("warning: nothing was changed: {error:#}"));
                Ok(())
            }
        };
    }
    let starter = context.path(paths::STARTER);
    let text =
        fs::read_to_string(&starter).with_context(|| format!("read `{}`", starter.display()))?;
    let text = with_answers(&text, wanted(answers, true), context);
    let written = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&unfinished)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        File::open(context.path(DIRECTORIES[0].0))?.sync_all()
    };
    written().with_context(|| format!("write `{}`", path.display()))
}

/// An answer that the configuration is to have: the table, the key and the value.
type Wanted<'a> = (Option<InstanceRef>, &'static str, &'a str);

/// An empty answer does not change the file.
fn wanted(answers: &Answers, is_first: bool) -> Vec<Wanted<'_>> {
    let questions = answers.list.iter().map(|(question, _)| *question);
    questions
        .filter_map(|question| {
            let (reference, key) = question.place()?;
            let answer = answers.to_act_on(question, is_first)?;
            (!answer.is_empty()).then_some((reference, key, answer))
        })
        .collect()
}

/// The text with all answers that are accepted; others, for example from a preseed, are reported. A directory is
/// refused while the other instance uses it, whose own answer may come later: therefore, refused answers are tried
/// again as long as that helps.
fn with_answers(text: &str, mut wanted: Vec<Wanted<'_>>, context: &Context) -> String {
    let mut text = text.to_owned();
    loop {
        let before = wanted.len();
        let mut refusals = Vec::new();
        wanted.retain(|one| match with_answer(&text, one, context) {
            Ok(changed) => {
                text = changed;
                false
            }
            Err(error) => {
                refusals.push(error);
                true
            }
        });
        if wanted.len() == before || wanted.is_empty() {
            for ((_, key, _), error) in wanted.iter().zip(&refusals) {
                let file = paths::CONFIGURATION;
                say(&format!(
                    "warning: `{key}` in {file} is not changed: the debconf answer is not valid: {error:#}"
                ));
            }
            return text;
        }
    }
}

fn with_answer(
    text: &str,
    (reference, key, answer): &Wanted<'_>,
    context: &Context,
) -> anyhow::Result<String> {
    let after = configuration::with_key(text, reference.as_ref(), key, answer, context)?;
    if *key == "user" && !context.is_elsewhere() && accounts::find(answer, context)?.is_none() {
        bail!("account `{answer}` not found, and the package cannot create it");
    }
    Ok(after)
}
