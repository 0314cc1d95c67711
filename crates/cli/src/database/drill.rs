//! `restore --try`: a backup is restored into a scratch place and read to its end, which shows while the
//! master still runs whether the backup is usable.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use buildbot_conda_core::foreign_text::ForeignText;
use serde::Serialize;

use super::backups::FileKind;
use super::facts::{Facts, Relation};
use super::{Failure, Master, SCHEMA, dump};
use crate::system::children::{self, Stream};

const COUNT: &str = include_str!("count.py");

/// What a backup contains.
#[derive(Debug, Serialize)]
pub(crate) struct Contents {
    /// Revision of the schema.
    schema: ForeignText,
    /// The revision that the installed Buildbot works with, where a start would upgrade to it.
    upgraded_to: Option<ForeignText>,
    /// Rows of each table. Unknown for a dump by `mysqldump`, which only a server could count.
    tables: BTreeMap<ForeignText, Option<u64>>,
}

impl Contents {
    /// Reads all of `copy`, which is a file of its own.
    ///
    /// # Errors
    ///
    /// When it is damaged, not complete, without tables of Buildbot's, or of a newer Buildbot.
    pub(crate) fn of(master: &Master<'_>, copy: &Path, kind: FileKind) -> Result<Self, Failure> {
        let contents = match kind {
            FileKind::Sqlite => Self::of_sqlite(master, copy)?,
            FileKind::PgDump => Self::of_pg_dump(copy)?,
            FileKind::Sql => Self::of_sql(copy)?,
        };
        let has = |name: &str| contents.tables.keys().any(|table| table.as_str() == name);
        if has("builds") && has("buildrequests") {
            return Ok(contents);
        }
        Err(unusable("contains no tables of Buildbot"))
    }

    fn of_sqlite(master: &Master<'_>, copy: &Path) -> Result<Self, Failure> {
        let facts = Facts::of_copy(master, copy)?;
        if facts.relation == Relation::Newer {
            let text = format!(
                "the backup contains schema {}, which is newer than schema {} of the installed Buildbot {}",
                facts.revision_text(),
                facts.head_text(),
                facts.buildbot
            );
            return Err(Failure::new(SCHEMA, text)
                .hint("install the Buildbot that wrote it, or a later one, to use it"));
        }
        let mut answer = String::new();
        let command = master.python(COUNT, &[copy.into()])?;
        let outcome = children::run(command, None, |stream, line| match stream {
            Stream::Stdout => answer.push_str(line),
            Stream::Stderr => eprintln!("{line}"),
        });
        let tables = match (outcome, serde_json::from_str(&answer)) {
            (Ok(status), Ok(tables)) if status.success() => tables,
            (Err(error), _) => return Err(unusable(&format!("cannot be read: {error}"))),
            _ => return Err(unusable("cannot be read")),
        };
        let upgraded_to = (facts.relation == Relation::Older)
            .then(|| facts.head.clone())
            .flatten();
        Ok(Self {
            schema: ForeignText::new(facts.revision_text()),
            upgraded_to,
            tables,
        })
    }

    /// From what a restore would send to the server.
    fn of_pg_dump(copy: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| pg_restore_failed(&error);
        let mut child = Command::new("pg_restore")
            .args(["--data-only", "--file=-", "--"])
            .arg(copy)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let stdout = child.stdout.take().expect("it is a pipe");
        let stderr = child.stderr.take().expect("it is a pipe");
        let last_message = thread::spawn(move || last_message(stderr));
        let (mut tables, mut schema) = (BTreeMap::new(), None);
        let mut table: Option<(String, u64)> = None;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.map_err(failed)?;
            table = match table {
                Some((name, rows)) if line == b"\\." => {
                    tables.insert(ForeignText::new(&name), Some(rows));
                    None
                }
                Some((name, rows)) => {
                    if name == "alembic_version" || name == "migrate_version" {
                        schema = line
                            .rsplit(|byte| *byte == b'\t')
                            .next()
                            .map(ForeignText::of_bytes);
                    }
                    Some((name, rows + 1))
                }
                None => copied_table(&line).map(|name| (name, 0)),
            };
        }
        let status = child.wait().map_err(failed)?;
        if !status.success() || table.is_some() {
            let reason = last_message.join().unwrap_or_default();
            return Err(unusable(&format!("is damaged: pg_restore: {reason}")));
        }
        Ok(Self {
            schema: schema.unwrap_or_else(|| "none".into()),
            upgraded_to: None,
            tables,
        })
    }

    /// Such a dump is text that ends with a remark of its tool.
    fn of_sql(copy: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| unusable(&format!("cannot be read: {error}"));
        let file = std::fs::File::open(copy).map_err(failed)?;
        let (mut tables, mut is_complete) = (BTreeMap::new(), false);
        for line in BufReader::new(file).split(b'\n') {
            let line = line.map_err(failed)?;
            if let Some(rest) = line.strip_prefix(b"CREATE TABLE `") {
                let name = rest.split(|byte| *byte == b'`').next().unwrap_or_default();
                tables.insert(ForeignText::of_bytes(name), None);
            }
            if !line.is_empty() {
                is_complete = line.starts_with(b"-- Dump completed");
            }
        }
        if !is_complete {
            return Err(unusable("is not complete"));
        }
        Ok(Self {
            schema: "unknown".into(),
            upgraded_to: None,
            tables,
        })
    }
}

/// The last line that a program prints; all of it is read, so that the program never waits.
fn last_message(output: impl Read) -> ForeignText {
    let lines = BufReader::new(output).split(b'\n');
    let lines = lines.map_while(Result::ok).filter(|line| !line.is_empty());
    ForeignText::of_bytes(&lines.last().unwrap_or_default())
}

/// Why `pg_restore` could not be used.
fn pg_restore_failed(error: &std::io::Error) -> Failure {
    if error.kind() == std::io::ErrorKind::NotFound {
        return Failure::new(1, "`pg_restore`, which reads this backup, is not installed")
            .hint(dump::advice(Some(FileKind::PgDump)));
    }
    unusable(&format!("cannot be read: pg_restore: {error}"))
}

/// Of a line `COPY public.builds (id, ...) FROM stdin;`, the table.
fn copied_table(line: &[u8]) -> Option<String> {
    let line = str::from_utf8(line).ok()?;
    let name = line.strip_prefix("COPY ")?.split(" (").next()?;
    line.ends_with(" FROM stdin;").then(|| {
        name.rsplit('.')
            .next()
            .unwrap_or(name)
            .trim_matches('"')
            .to_owned()
    })
}

fn unusable(what: &str) -> Failure {
    Failure::new(1, format!("the backup {what}"))
}

impl fmt::Display for Contents {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "schema {}", self.schema)?;
        if let Some(head) = &self.upgraded_to {
            write!(formatter, ", which the next start upgrades to {head}")?;
        }
        writeln!(formatter, "; {} tables", self.tables.len())?;
        for (name, rows) in &self.tables {
            match rows {
                Some(0) | None => {}
                Some(rows) => writeln!(formatter, "{rows:>12} {name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_table_of_a_copy_is_known_whatever_its_schema() {
        for (line, expect) in [
            (
                "COPY public.builds (id, number) FROM stdin;",
                Some("builds"),
            ),
            ("COPY ci.\"builds\" (id) FROM stdin;", Some("builds")),
            ("COPY public.builds (id) TO stdout;", None),
            ("SET statement_timeout = 0;", None),
        ] {
            assert_eq!(copied_table(line.as_bytes()).as_deref(), expect, "{line}");
        }
    }

    #[test]
    fn the_last_message_of_a_program_cannot_control_a_terminal() {
        let message = last_message(&b"first\n\x1b[2Jlast\n\n"[..]);
        assert_eq!(message.as_str(), "\\u{1b}[2Jlast");
        assert_eq!(last_message(&b""[..]).as_str(), "");
    }

    #[test]
    fn a_missing_pg_restore_is_named_with_its_package() {
        let refused = pg_restore_failed(&std::io::ErrorKind::NotFound.into());
        assert!(refused.reason.contains("`pg_restore`"), "{refused}");
        let hint = refused.hint.unwrap_or_default();
        assert!(hint.contains("apt install postgresql-client"), "{hint}");
    }

    #[test]
    fn a_dump_by_mysqldump_is_complete_when_it_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dump");
        let text = "-- MariaDB dump\nCREATE TABLE `builds` (\n  `id` int\n);\nCREATE TABLE `buildrequests` (\n);\n";
        fs::write(&path, text).unwrap();
        let refused = Contents::of_sql(&path).unwrap_err();
        assert_eq!(refused.reason, "the backup is not complete");
        fs::write(&path, format!("{text}-- Dump completed on 2026-11-30\n")).unwrap();
        let contents = Contents::of_sql(&path).unwrap();
        assert_eq!(contents.to_string(), "schema unknown; 2 tables\n");
    }
}
