//! Which database a master uses and how its schema stands to the Buildbot installed. Only Buildbot
//! itself knows, so its own Python is asked, with the program `inspect.py`.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::lock::Lock;
use super::{AWAY, CONFIGURATION, Failure, Master};
use crate::system::children::{self, Stopped, Stream};
use buildbot_conda_core::foreign_text::ForeignText;

const PROGRAM: &str = concat!(
    include_str!("tables.py"),
    include_str!("../../../launcher/buildbot_conda_runner/holders.py"),
    include_str!("../system/master_of.py"),
    include_str!("../../../launcher/buildbot_conda_runner/causes.py"),
    include_str!("inspect.py")
);

/// How the reason begins where the Python module that connects to a server is missing; its name comes next.
pub(crate) const MISSING_DRIVER: &str = "the environment lacks the driver `";

/// How a schema stands to the one that the Buildbot installed works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Relation {
    /// No table of Buildbot's.
    Empty,
    Older,
    Current,
    Newer,
    /// Not readable as a database.
    Damaged,
}

/// What `inspect.py` tells of a database.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Facts {
    /// `sqlite`, `memory`, `postgresql`, `mysql` or another dialect.
    pub(crate) kind: ForeignText,
    /// For people, without a password.
    pub(crate) place: ForeignText,
    /// A `SQLite` file, absolute, links followed.
    #[serde(default)]
    pub(crate) path: Option<PathBuf>,
    #[serde(default)]
    pub(crate) server: Option<Server>,
    /// Masters that serve from a server's database at this moment, by the locks of their runners.
    #[serde(default)]
    pub(crate) others: Option<ForeignText>,
    /// Bytes of a `SQLite` file with its log.
    #[serde(default)]
    pub(crate) size: u64,
    /// Grows with everything that a master takes up; see `inspect.py`. None where it cannot be read.
    #[serde(default)]
    pub(crate) progress: Option<u64>,
    /// Of the schema; none when there is no database yet.
    pub(crate) revision: Option<ForeignText>,
    /// The revision that the Buildbot installed works with.
    pub(crate) head: Option<ForeignText>,
    pub(crate) relation: Relation,
    /// What a check found, or true where none was asked for.
    pub(crate) intact: bool,
    /// Version of the Buildbot installed.
    pub(crate) buildbot: ForeignText,
    /// Base directory and configuration of the master, where its tac has it elsewhere than in its own directory.
    #[serde(default)]
    pub(crate) elsewhere: Option<ForeignText>,
    /// What the configuration listens on.
    #[serde(default)]
    pub(crate) ports: Vec<Port>,
    /// What builds do inside the master's own service.
    #[serde(default)]
    pub(crate) own_work: Vec<ForeignText>,
    /// Where its web pages are, as the configuration describes it for Twisted.
    #[serde(default)]
    pub(crate) www: Vec<String>,
}

/// A TCP port of a master.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Port {
    /// `www`, or the protocol of workers that it is for, such as `pb`.
    pub(crate) purpose: ForeignText,
    pub(crate) port: u16,
}

/// How to reach a database server.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Server {
    /// As `SQLAlchemy` has it: `postgresql+psycopg2`.
    pub(crate) driver: String,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: Option<String>,
    /// The first number of its version, where that is `PostgreSQL`'s.
    #[serde(default)]
    pub(crate) version: Option<u32>,
    /// Those that are Buildbot's.
    pub(crate) tables: Vec<String>,
}

/// Never shown.
#[derive(Clone, Deserialize)]
pub(crate) struct Secret(pub(super) String);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Problem { problem: String, text: ForeignText },
    Facts(Box<Facts>),
}

impl Facts {
    /// Asks; `check` also reads the whole of a `SQLite` file. What the configuration prints meanwhile
    /// goes to stderr.
    ///
    /// # Errors
    ///
    /// 78 with Buildbot's words when the configuration is at fault, 69 when the database, or what the configuration
    /// itself needs, does not answer.
    pub(crate) fn ask(
        master: &Master<'_>,
        lock: Option<&Lock>,
        check: bool,
    ) -> Result<Self, Failure> {
        let lock = lock.map_or_else(|| "-".to_owned(), |lock| lock.number().to_string());
        let mut arguments = vec![master.directory().into(), lock.into()];
        if check {
            arguments.push("check".into());
        }
        // A check reads every page; the configuration alone is bounded as at a start.
        let limit = (!check).then_some(master.instance.start_timeout);
        Self::answer(master, &arguments, limit)
    }

    /// Asks about a copy of a `SQLite` database, all of which is read.
    ///
    /// # Errors
    ///
    /// When it is not a database of Buildbot's, or damaged.
    pub(crate) fn of_copy(master: &Master<'_>, path: &Path) -> Result<Self, Failure> {
        let arguments = [
            master.directory().into(),
            "-".into(),
            "file".into(),
            path.into(),
        ];
        let facts = Self::answer(master, &arguments, None)?;
        let reason = match facts.relation {
            Relation::Empty => "contains no tables of Buildbot",
            Relation::Damaged => "is damaged",
            _ if !facts.intact => "is damaged",
            _ => return Ok(facts),
        };
        Err(Failure::new(1, format!("the database {reason}")))
    }

    fn answer(
        master: &Master<'_>,
        arguments: &[OsString],
        limit: Option<Duration>,
    ) -> Result<Self, Failure> {
        let command = master.python(PROGRAM, arguments)?;
        let mut answer = String::new();
        let outcome = children::run(command, limit, |stream, line| match stream {
            Stream::Stdout => answer.push_str(line),
            Stream::Stderr => eprintln!("{line}"),
        });
        let directory = master.directory().display();
        let failed = |reason: &str| {
            let text = format!("determine the database of `{directory}`: {reason}");
            Failure::new(CONFIGURATION, text)
        };
        match outcome {
            Err(Stopped::Late(_)) => {
                return Err(failed("reading the configuration did not finish in time"));
            }
            Err(error) => return Err(failed(&error.to_string())),
            Ok(_) => {}
        }
        match serde_json::from_str(&answer) {
            Ok(Answer::Facts(facts)) => Ok(*facts),
            Ok(Answer::Problem { problem, text }) => {
                let status = match problem.as_str() {
                    "away" => AWAY,
                    "configuration" => CONFIGURATION,
                    _ => 1,
                };
                Err(Failure::new(status, text))
            }
            Err(_) => Err(failed(
                "the configuration terminated its Python interpreter",
            )),
        }
    }

    /// Whether the database is a file of its own.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// `064`, or what there is instead.
    pub(crate) fn revision_text(&self) -> &str {
        self.revision.as_deref().unwrap_or("none")
    }

    pub(crate) fn head_text(&self) -> &str {
        self.head.as_deref().unwrap_or("none")
    }
}
