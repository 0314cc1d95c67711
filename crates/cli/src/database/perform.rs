//! Doing what a plan says, and the way of an upgrade from whatever was found to a database that the
//! installed Buildbot serves from.

use std::ffi::OsString;

use super::backups::{self, BackupName, FileKind};
use super::facts::{Facts, Relation};
use super::lock::Lock;
use super::mark::Mark;
use super::plan::{self, Plan, Policy, Step};
use super::progress::Progress;
use super::{Failure, Master, SCHEMA, copy, dump, upgraded};
use crate::system::children;

const UPGRADE: &str = concat!(
    include_str!("../system/master_of.py"),
    include_str!("upgrade.py")
);

/// Brings the database to where the installed Buildbot can serve from it, whatever an interruption
/// has left, and tells how it was found to be in the end.
///
/// # Errors
///
/// 65 where somebody has to decide, or the upgrade failed; the database is then as it was before.
pub(crate) fn bring_up_to_date(
    master: &Master<'_>,
    lock: &Lock,
    progress: &Progress,
    policy: Policy,
) -> Result<Facts, Failure> {
    let mark = Mark::read(&master.backups)?;
    let mut facts = Facts::ask(master, Some(lock), mark.is_some())?;
    progress.buildbot(&facts.buildbot);
    let mut kept = None;
    if let Some(mark) = mark {
        progress.doing("an upgrade of the database was interrupted, recovering");
        let recovery = plan::recovery(&facts, &mark)?;
        perform(&recovery, master, &facts, lock, progress)?;
        if recovery
            .steps
            .iter()
            .any(|step| matches!(step, Step::Restore(_)))
        {
            facts = Facts::ask(master, Some(lock), false)?;
        }
        kept = (!recovery.steps.contains(&Step::Unmark)).then_some(mark);
    }
    if let Some((backup, tried)) = upgraded::to_be_taken_back(master, &facts) {
        progress.doing(&format!(
            "the start from `{}` upgraded the database and then failed, restoring the previous database; the current one, with the builds since then, is kept as a backup",
            tried.display()
        ));
        let plan = plan::restore(master, &facts, &backup)?;
        perform(&plan, master, &facts, lock, progress)?;
        backups::prune(&master.backups, &[&backup])?;
        facts = Facts::ask(master, Some(lock), false)?;
    }
    let plan = match plan::upgrade(master, &facts, kept.as_ref(), policy) {
        Ok(plan) => plan,
        Err(failure) => {
            // The database is whole, so nothing is in progress any more.
            if kept.is_some() {
                Mark::remove(&master.backups)?;
            }
            return Err(failure);
        }
    };
    if plan.steps.is_empty() && kept.is_some() {
        Mark::remove(&master.backups)?;
    }
    perform(&plan, master, &facts, lock, progress)?;
    if !plan.steps.is_empty() {
        backups::prune(&master.backups, &[])?;
    }
    Ok(facts)
}

/// Does the steps of a plan that was made from `facts`.
pub(crate) fn perform(
    plan: &Plan,
    master: &Master<'_>,
    facts: &Facts,
    lock: &Lock,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut mark: Option<&Mark> = None;
    for step in &plan.steps {
        match step {
            Step::BackUp(name) => back_up(master, facts, name, progress)?,
            Step::SetAside(file) => {
                let aside = copy::set_aside(file)?;
                progress.doing(&format!("kept the damaged file as `{}`", aside.display()));
            }
            Step::Mark(begun) => {
                begun.write(&master.backups)?;
                mark = Some(begun);
            }
            Step::Upgrade { from, to } => {
                progress.doing(&format!(
                    "upgrading the database from schema {from} to {to}"
                ));
                if let Err(failure) = upgrade(master, lock, facts) {
                    return Err(take_back(master, facts, mark, &failure, progress));
                }
                if let Some(backup) = mark.and_then(|mark| mark.backup.as_deref()) {
                    upgraded::note(master, backup)?;
                }
                progress.doing(&format!("the database is at schema {to}"));
            }
            Step::Restore(name) => {
                progress.doing(&format!("restoring the database from `{name}`"));
                put_back(master, facts, name)?;
            }
            Step::Unmark => Mark::remove(&master.backups)?,
        }
    }
    Ok(())
}

/// One backup, complete when this returns.
pub(crate) fn back_up(
    master: &Master<'_>,
    facts: &Facts,
    name: &BackupName,
    progress: &Progress,
) -> Result<(), Failure> {
    let path = master.backups.path(name);
    progress.doing(&format!("backing up the database to `{}`", path.display()));
    match (name.kind(), facts.file(), &facts.server) {
        (FileKind::Sqlite, Some(file), _) => {
            copy::back_up(master, file, facts.size, name, progress)
        }
        (_, _, Some(server)) => dump::back_up(master, server, name),
        _ => Err(unfit(name)),
    }
}

fn put_back(master: &Master<'_>, facts: &Facts, name: &BackupName) -> Result<(), Failure> {
    match (name.kind(), facts.file(), &facts.server) {
        (FileKind::Sqlite, Some(file), _) => copy::put_back(&master.backups.path(name), file),
        (_, _, Some(server)) => dump::put_back(master, server, name),
        _ => Err(unfit(name)),
    }
}

fn unfit(name: &BackupName) -> Failure {
    let text = format!("`{name}` is not for the type of database that is configured");
    Failure::new(SCHEMA, text)
}

/// Runs `buildbot upgrade-master` and then asks for the schema: its exit status is 0 for some
/// failures as well.
fn upgrade(master: &Master<'_>, lock: &Lock, before: &Facts) -> Result<(), Failure> {
    let arguments = [
        OsString::from(lock.number().to_string()),
        master.directory().into(),
    ];
    let command = master.python(UPGRADE, &arguments)?;
    let mut said = Vec::new();
    let status = children::run(command, None, |_, line| {
        eprintln!("{line}");
        if !line.trim().is_empty() {
            said.push(line.to_owned());
        }
    });
    let status = match status {
        Ok(status) => status,
        Err(error) => return Err(Failure::new(SCHEMA, error.to_string())),
    };
    let after = Facts::ask(master, Some(lock), true)?;
    if status.success() && after.relation == Relation::Current && after.intact {
        return Ok(());
    }
    let reason = reason(&said).unwrap_or_else(|| status.to_string());
    let more = if after.revision == before.revision || !status.success() {
        ""
    } else {
        " (it reported success)"
    };
    Err(Failure::new(SCHEMA, format!("{reason}{more}")))
}

/// What Buildbot says of a failure: the exception at the end of its traceback, or its last words.
fn reason(said: &[String]) -> Option<String> {
    let is_exception = |line: &&String| {
        let name = line.split(':').next().unwrap_or_default();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._".contains(&byte);
        name.bytes().all(is_name)
            && (name.ends_with("Error") || name.ends_with("Exception") || name.contains('.'))
    };
    let line = said.iter().rev().find(is_exception).or(said.last())?;
    Some(line.trim().to_owned())
}

/// After a failed upgrade: the database as it was before, or a mark for the next start.
fn take_back(
    master: &Master<'_>,
    facts: &Facts,
    mark: Option<&Mark>,
    failure: &Failure,
    progress: &Progress,
) -> Failure {
    let reference = master.reference();
    let reason = &failure.reason;
    let Some(name) = mark.and_then(|mark| mark.backup.as_deref()) else {
        let text = format!("`buildbot upgrade-master` failed: {reason}");
        // Without a backup there is nothing that a mark could lead back to.
        return match Mark::remove(&master.backups) {
            Ok(()) => Failure::new(SCHEMA, text),
            Err(other) => Failure::new(SCHEMA, format!("{text}; {other}")),
        };
    };
    progress.doing(&format!(
        "the upgrade failed, restoring the database from `{name}`"
    ));
    let restored = name
        .parse()
        .and_then(|name| put_back(master, facts, &name))
        .and_then(|()| Mark::remove(&master.backups));
    match restored {
        Ok(()) => Failure::new(
            SCHEMA,
            format!(
                "`buildbot upgrade-master` failed, the database was restored (schema {}): {reason}",
                facts.revision_text()
            ),
        )
        .hint(format!(
            "fix the cause, then start `{}` again; the backup `{name}` is kept",
            reference.unit_name()
        )),
        Err(other) => Failure::new(
            SCHEMA,
            format!(
                "`buildbot upgrade-master` failed: {reason}; and {}",
                other.reason
            ),
        )
        .hint(format!(
            "the backup `{name}` is intact; fix the cause, and the next start restores it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_the_exception_and_not_what_follows_it() {
        let said = [
            "problem while upgrading!:",
            "Traceback (most recent call last):",
            "  File \"x.py\", line 1, in f",
            "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) no such table: x",
            "[SQL: drop table x]",
            "(Background on this error at: https://example.org)",
        ];
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        assert_eq!(
            reason(&said).as_deref(),
            Some("sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) no such table: x")
        );
    }

    #[test]
    fn without_an_exception_the_last_words_are_the_reason() {
        let said = [
            "error reading 'buildbot.tac'".to_owned(),
            "invalid".to_owned(),
        ];
        assert_eq!(reason(&said).as_deref(), Some("invalid"));
        assert_eq!(reason(&[]), None);
    }
}
