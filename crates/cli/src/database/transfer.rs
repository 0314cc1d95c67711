//! The database of a stopped master, copied to another kind of database by Buildbot itself. The configuration is not
//! changed here: until it is, the database that was copied is the master's.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::facts::{Facts, Relation};
use super::lock::{self, Lock};
use super::{Failure, Master, SCHEMA, dump};
use crate::system::children::{self, Bounds, Input};
use buildbot_conda_core::foreign_text::ForeignText;

const PROGRAM: &str = include_str!("transfer.py");
/// Bytes of what the configuration prints.
const MOST_PRINTED: usize = 8 << 20;
/// The word of the command line by which a process is known that copies.
pub(crate) const VERB: &str = "transfer";
/// How long a copy that nobody wants any more is waited for, and the time between two looks.
const PATIENCE: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_millis(200);
/// Since when Buildbot copies everything: rebuilt builds and foreign keys.
const SINCE: (u32, u32) = (4, 2);
/// The `SQLite` database of a starter, in the master's directory, and what belongs to it.
pub(crate) const FILE: &str = "state.sqlite";
const FILES: [&str; 3] = [FILE, "state.sqlite-wal", "state.sqlite-shm"];

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
pub(crate) struct Copied {
    pub(crate) tables: u64,
    pub(crate) rows: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Problem { problem: ForeignText },
    Copied(Copied),
}

/// Refuses a database that cannot be copied, or not without a loss.
///
/// # Errors
///
/// The reason.
pub(crate) fn ensure_possible(facts: &Facts) -> Result<(), Failure> {
    let refuse = |reason: String, hint: &str| Err(Failure::new(SCHEMA, reason).hint(hint));
    let place = &facts.place;
    match facts.relation {
        Relation::Current => {}
        Relation::Empty => {
            return refuse(
                format!("the database `{place}` is empty"),
                "start the master first",
            );
        }
        _ => {
            return refuse(
                format!(
                    "the database `{place}` is at schema {}, but Buildbot {} works with {}",
                    facts.revision_text(),
                    facts.buildbot,
                    facts.head_text()
                ),
                "start the master first, which upgrades it",
            );
        }
    }
    if facts.kind == "memory" {
        return refuse(
            format!("the database `{place}` is in memory"),
            "there is nothing to migrate",
        );
    }
    if facts.elsewhere.is_some() {
        return refuse(
            "`buildbot.tac` sets another base directory".to_owned(),
            "set `directory` in the configuration to that directory",
        );
    }
    let mut numbers = facts.buildbot.split('.').map(|part| part.parse().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    if version.is_some_and(|version| version < SINCE) {
        return refuse(
            format!(
                "Buildbot {} does not copy everything in a database, which it does since 4.2",
                facts.buildbot
            ),
            "update the environment first",
        );
    }
    Ok(())
}

/// Copies the database to an empty one, and compares both.
///
/// # Errors
///
/// When the master runs, its database is used by others, or the copy is not complete.
pub(crate) fn copy(master: &Master<'_>, destination: &str) -> Result<Copied, Failure> {
    let lock = Lock::take(master.directory())?;
    let facts = Facts::ask(master, Some(&lock), false)?;
    ensure_possible(&facts)?;
    if let Some(others) = &facts.others {
        let text = format!("the database `{}` is in use by {others}", facts.place);
        return Err(Failure::new(super::AWAY, text).hint("stop the master that uses it first"));
    }
    let source = match (&facts.path, &facts.server) {
        (Some(path), _) => format!("sqlite:///{}", path.display()),
        (None, Some(server)) => dump::url(server),
        (None, None) => return Err(Failure::new(1, "the database is unknown")),
    };
    let command = master.python(PROGRAM, &[master.directory().into()])?;
    let request = serde_json::json!({"source": source, "destination": destination});
    let bounds = Bounds {
        time: None,
        printed: MOST_PRINTED,
        interruptible: true,
    };
    let input = Input::Text(request.to_string().into_bytes());
    let failed = |reason: &str| Failure::new(1, format!("copy the database: {reason}"));
    let ended = children::collect(command, input, &bounds, |_| false)
        .map_err(|error| failed(&error.to_string()))?;
    match serde_json::from_slice(&ended.stdout) {
        Ok(Answer::Copied(copied)) => Ok(copied),
        Ok(Answer::Problem { problem }) => Err(failed(&problem)),
        Err(_) => {
            let said = String::from_utf8_lossy(&ended.stderr);
            let last = ForeignText::new(said.trim().lines().next_back().unwrap_or("no answer"));
            Err(failed(&last))
        }
    }
}

/// Waits until nothing is copied any more, and with `is_file` removes a copy in the master's directory, unless the
/// configuration names it.
///
/// # Errors
///
/// When it does, or the file cannot be removed.
pub(crate) fn remove_copy(master: &Master<'_>, is_file: bool) -> Result<(), Failure> {
    let began = Instant::now();
    while is_copying(master.directory()) {
        if began.elapsed() > PATIENCE {
            return Err(Failure::new(
                super::AWAY,
                "the database is still being copied",
            ));
        }
        thread::sleep(LOOK);
    }
    if !is_file {
        return Ok(());
    }
    let facts = Facts::ask(master, None, false)?;
    let path = master.directory().join(FILE);
    if facts.file().is_some_and(|file| file.ends_with(FILE)) {
        let text = format!("`{}` is the database of the master", path.display());
        return Err(Failure::new(1, text));
    }
    for name in FILES {
        let path = master.directory().join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Failure::io("remove", &path, &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the lock is a copy's, or that of what it has left behind. A master has it only when there is none.
fn is_copying(directory: &Path) -> bool {
    let Some(holder) = lock::holder_of(directory) else {
        return false;
    };
    let pid = holder.strip_prefix("PID ").unwrap_or_default();
    let words = fs::read_to_string(format!("/proc/{pid}/cmdline"));
    words.map_or(true, |words| words.split('\0').any(|word| word == VERB))
}
