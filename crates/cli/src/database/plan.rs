//! What is going to be done to a database, step by step, decided from what was found before anything
//! is touched. `--dry-run` prints the same plan that is otherwise carried out.

use std::fmt;
use std::path::PathBuf;

use super::backups::{self, BackupName, FileKind};
use super::facts::{Facts, Relation};
use super::mark::{Mark, Purpose};
use super::{AWAY, Failure, Master, SCHEMA, dump};
use buildbot_conda_core::foreign_text::ForeignText;

/// How often an upgrade that never comes to an end is begun.
const MOST_ATTEMPTS: u32 = 5;

/// Who decides about an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// `upgrade = "auto"`.
    Auto,
    /// `upgrade = "manual"`.
    Manual,
    /// Somebody asks for it by name.
    Asked,
}

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// A copy of the database, complete before anything else happens.
    BackUp(BackupName),
    /// A file that is no database is kept under another name.
    SetAside(PathBuf),
    /// From here on, an interruption is healed by the next start.
    Mark(Mark),
    /// `buildbot upgrade-master`, and the question whether it did what it says.
    Upgrade { from: String, to: String },
    /// A backup takes the database's place.
    Restore(BackupName),
    /// The database is whole.
    Unmark,
}

/// Steps in their order; none when there is nothing to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    place: ForeignText,
}

impl Plan {
    /// # Errors
    ///
    /// 69 where the steps change a database from which other masters serve.
    fn new(facts: &Facts, steps: Vec<Step>) -> Result<Self, Failure> {
        let changes = steps.iter().any(|step| {
            matches!(
                step,
                Step::SetAside(_) | Step::Upgrade { .. } | Step::Restore(_)
            )
        });
        if let (true, Some(others)) = (changes, &facts.others) {
            let text = format!("the database `{}` is in use by {others}", facts.place);
            return Err(Failure::new(AWAY, text).hint("stop the master that uses it first"));
        }
        Ok(Self {
            steps,
            place: facts.place.clone(),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        for step in &self.steps {
            match step {
                Step::BackUp(name) => writeln!(formatter, "back up `{place}` as `{name}`")?,
                Step::SetAside(file) => {
                    writeln!(formatter, "keep `{}` under another name", file.display())?;
                }
                Step::Mark(_) => writeln!(formatter, "record the beginning of the operation")?,
                Step::Upgrade { from, to } => {
                    writeln!(formatter, "upgrade `{place}` from schema {from} to {to}")?;
                }
                Step::Restore(name) => writeln!(formatter, "restore `{place}` from `{name}`")?,
                Step::Unmark => writeln!(formatter, "record the end of the operation")?,
            }
        }
        if self.steps.is_empty() {
            writeln!(formatter, "nothing to do for `{place}`")?;
        }
        Ok(())
    }
}

/// A backup alone.
pub(crate) fn back_up(master: &Master<'_>, facts: &Facts) -> Result<Plan, Failure> {
    if Mark::read(&master.backups)?.is_some() {
        let reference = master.reference();
        let text = "an upgrade of the database is running or was interrupted";
        return Err(Failure::new(SCHEMA, text).hint(format!(
            "start `{}`, or run `buildbot-conda upgrade {reference}`, to complete it",
            reference.unit_name()
        )));
    }
    match facts.relation {
        Relation::Empty => Err(Failure::new(
            SCHEMA,
            format!("the database `{}` is empty", facts.place),
        )),
        _ if facts.kind == "memory" => Err(Failure::new(
            1,
            "the database is in memory and cannot be backed up",
        )),
        _ => {
            let name = backup_of(master, facts)?.ok_or_else(|| no_tool(facts))?;
            Plan::new(facts, vec![Step::BackUp(name)])
        }
    }
}

/// The first part after an interruption: the database is made whole again.
pub(crate) fn recovery(facts: &Facts, mark: &Mark) -> Result<Plan, Failure> {
    if (&mark.kind, &mark.place) != (&facts.kind, &facts.place) {
        let text = format!(
            "the upgrade of the database `{}` was interrupted, but the configuration now names `{}`",
            mark.place, facts.place
        );
        let hint = "configure the first one again until its upgrade is complete";
        return Err(Failure::new(SCHEMA, text).hint(hint));
    }
    let is_done = facts.relation == Relation::Current && facts.intact;
    // PostgreSQL takes back an interrupted upgrade by itself: all of it is one transaction.
    let is_untouched = facts.kind == "postgresql" && facts.revision == mark.revision;
    let steps = match (&mark.backup, mark.purpose) {
        (_, Purpose::Upgrade) if is_done => vec![Step::Unmark],
        (_, Purpose::Upgrade) if is_untouched => Vec::new(),
        (Some(name), Purpose::Upgrade) => vec![Step::Restore(name.parse()?)],
        (Some(name), Purpose::Restore) => vec![Step::Restore(name.parse()?), Step::Unmark],
        // A new database, or a server without its tool; Buildbot's words say whether it can go on.
        (None, _) => Vec::new(),
    };
    Plan::new(facts, steps)
}

/// How the facts will be once a recovery is done.
pub(crate) fn recovered(facts: &Facts, mark: &Mark, plan: &Plan) -> Facts {
    if !plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Restore(_)))
    {
        return facts.clone();
    }
    let relation = if mark.revision == facts.head {
        Relation::Current
    } else {
        Relation::Older
    };
    Facts {
        revision: mark.revision.clone(),
        relation,
        intact: true,
        ..facts.clone()
    }
}

/// From whole to current. `mark` is what an interrupted upgrade has left: its backup serves again.
///
/// # Errors
///
/// 65 where somebody has to decide; the database is whole then, and without a mark if there was one
/// it should lose it.
pub(crate) fn upgrade(
    master: &Master<'_>,
    facts: &Facts,
    mark: Option<&Mark>,
    policy: Policy,
) -> Result<Plan, Failure> {
    let reference = master.reference();
    let revisions = format!(
        "it is at schema {}, Buildbot {} at {}",
        facts.revision_text(),
        facts.buildbot,
        facts.head_text()
    );
    match facts.relation {
        Relation::Current => return Plan::new(facts, Vec::new()),
        Relation::Newer => return Err(newer(master, facts, &revisions)),
        Relation::Damaged => {
            let text = format!("the database `{}` is damaged", facts.place);
            return Err(Failure::new(SCHEMA, text).hint(format!(
                "`buildbot-conda restore {reference}` restores the last backup"
            )));
        }
        Relation::Empty if mark.is_none() && policy != Policy::Asked => {
            refuse_lost_database(master, facts)?;
        }
        Relation::Empty | Relation::Older => {}
    }
    if policy == Policy::Manual {
        let text = format!("the database is older than Buildbot: {revisions}");
        return Err(Failure::new(SCHEMA, text).hint(format!(
            "`buildbot-conda upgrade {reference}` backs it up and upgrades it"
        )));
    }
    let attempts = mark.map_or(0, |mark| mark.attempts);
    if attempts >= MOST_ATTEMPTS && policy != Policy::Asked {
        let text = format!(
            "the upgrade of the database was interrupted {attempts} times, it was restored: {revisions}"
        );
        return Err(Failure::new(SCHEMA, text).hint(format!(
            "look for the cause in `journalctl -u {}`, then `buildbot-conda upgrade {reference}`",
            reference.unit_name()
        )));
    }
    let mut steps = Vec::new();
    let backup = match mark {
        Some(mark) => mark.backup.clone(),
        None => backup_of(master, facts)?.map(|name| {
            let text = name.to_string();
            steps.push(Step::BackUp(name));
            text
        }),
    };
    let mut mark = Mark::new(Purpose::Upgrade, backup, facts);
    mark.attempts = attempts + 1;
    steps.extend([
        Step::Mark(mark),
        Step::Upgrade {
            from: facts.revision_text().to_owned(),
            to: facts.head_text().to_owned(),
        },
        Step::Unmark,
    ]);
    Plan::new(facts, steps)
}

/// The backup that an upgrade begins with; none for a new database, nor where there is no tool.
fn backup_of(master: &Master<'_>, facts: &Facts) -> Result<Option<BackupName>, Failure> {
    if facts.relation == Relation::Empty {
        return Ok(None);
    }
    let kind = FileKind::of(facts);
    match kind {
        Some(FileKind::Sqlite) => {}
        Some(kind) if dump::is_possible(kind) => {}
        _ => {
            eprintln!("warning: {}", no_tool(facts));
            return Ok(None);
        }
    }
    // The directory's own trouble is told before the work, not after it.
    backups::names(&master.backups)?;
    Ok(kind.map(|kind| BackupName::now(master, facts, kind)))
}

fn no_tool(facts: &Facts) -> Failure {
    let text = format!("`{}` cannot be backed up", facts.place);
    Failure::new(1, text).hint(dump::advice(FileKind::of(facts)))
}

fn newer(master: &Master<'_>, facts: &Facts, revisions: &str) -> Failure {
    let writer = match master.last_version() {
        Some(version) if facts.buildbot != version.as_str() => format!("Buildbot {version}"),
        _ => "a newer Buildbot".to_owned(),
    };
    let text = format!("the database is newer than Buildbot, {writer} wrote it: {revisions}");
    let suits = |name: &BackupName| Some(name.revision()) == facts.head.as_deref();
    let backup = backups::names(&master.backups).ok();
    let backup = backup.and_then(|names| names.into_iter().find(suits));
    let other = backup.map_or_else(String::new, |name| {
        let reference = master.reference();
        format!(
            ", or restore the state before the upgrade with `buildbot-conda restore {reference} {name}`"
        )
    });
    Failure::new(SCHEMA, text).hint(format!("install {writer} again{other}"))
}

/// An empty database where there was a full one is no new master but a loss.
fn refuse_lost_database(master: &Master<'_>, facts: &Facts) -> Result<(), Failure> {
    let backups = backups::names(&master.backups)?;
    let version = master.last_version();
    if backups.is_empty() && version.is_none() {
        return Ok(());
    }
    let reference = master.reference();
    let text = format!(
        "the database `{}` is empty, though this master has served before",
        facts.place
    );
    let restore = match backups.first() {
        Some(_) => format!("`buildbot-conda restore {reference}` restores the last backup; "),
        None => String::new(),
    };
    Err(Failure::new(SCHEMA, text).hint(format!(
        "{restore}`buildbot-conda upgrade {reference}` creates a new database"
    )))
}

/// A backup in the place of the database, which is itself kept.
pub(crate) fn restore(
    master: &Master<'_>,
    facts: &Facts,
    chosen: &BackupName,
) -> Result<Plan, Failure> {
    if FileKind::of(facts) != Some(chosen.kind()) {
        let text = format!(
            "`{chosen}` is not a backup for a database like `{}`",
            facts.place
        );
        return Err(Failure::new(1, text));
    }
    let mut steps = Vec::new();
    match (facts.relation, facts.file()) {
        (Relation::Empty, _) => {}
        (_, Some(file)) if facts.relation == Relation::Damaged || !facts.intact => {
            steps.push(Step::SetAside(file.to_owned()));
        }
        _ => {
            let name = backup_of(master, facts)?.ok_or_else(|| no_tool(facts))?;
            steps.push(Step::BackUp(name));
        }
    }
    let mut mark = Mark::new(Purpose::Restore, Some(chosen.to_string()), facts);
    mark.revision = Some(chosen.revision().into());
    steps.extend([
        Step::Mark(mark),
        Step::Restore(chosen.clone()),
        Step::Unmark,
    ]);
    Plan::new(facts, steps)
}
