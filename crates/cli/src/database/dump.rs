//! Database servers: backed up and put back by their own tools, which are part of their Debian
//! packages and may be missing. Passwords go neither into arguments nor into messages.

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::backups::{self, BackupName, FileKind};
use super::facts::{Facts, Server};
use super::{Failure, Master, SCHEMA};
use crate::system::children::{self, Stream};

/// What a program that only tells its version may take.
const MOMENT: Duration = Duration::from_secs(10);
const CLEAR: &str = concat!(include_str!("tables.py"), include_str!("clear.py"));

/// What dumps and what puts back, with the Debian package that has them.
struct Tools {
    dump: &'static str,
    restore: &'static str,
    package: &'static str,
}

fn tools(kind: FileKind) -> Option<Tools> {
    match kind {
        FileKind::Sqlite => None,
        FileKind::PgDump => Some(Tools {
            dump: "pg_dump",
            restore: "pg_restore",
            package: "postgresql-client",
        }),
        FileKind::Sql => Some(Tools {
            dump: "mysqldump",
            restore: "mysql",
            package: "default-mysql-client",
        }),
    }
}

/// Whether both tools are on this host.
pub(super) fn is_possible(kind: FileKind) -> bool {
    tools(kind).is_some_and(|tools| is_there(tools.dump) && is_there(tools.restore))
}

/// What to do where they are not.
pub(super) fn advice(kind: Option<FileKind>) -> String {
    match kind.and_then(tools) {
        Some(tools) => format!(
            "`apt install {}` installs the tools for backups",
            tools.package
        ),
        None => "back it up with the tools of the database".to_owned(),
    }
}

/// Why a server's database cannot be backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Trouble {
    /// One of the tools, or both: `pg_dump` and `pg_restore`.
    PostgresqlMissing,
    /// `mysqldump` and `mysql`.
    MysqlMissing,
    /// `pg_dump` refuses a server that is newer than itself; the first numbers of their versions.
    Older { tool: u32, server: u32 },
}

/// What keeps this host from backing up a database; nothing for one that is a file.
pub(crate) fn trouble(facts: &Facts) -> Option<Trouble> {
    let server = facts.server.as_ref()?;
    match FileKind::of(facts)? {
        FileKind::Sqlite => None,
        kind @ FileKind::Sql => (!is_possible(kind)).then_some(Trouble::MysqlMissing),
        kind @ FileKind::PgDump if !is_possible(kind) => Some(Trouble::PostgresqlMissing),
        FileKind::PgDump => {
            let (tool, server) = (version_of_pg_dump()?, server.version?);
            (tool < server).then_some(Trouble::Older { tool, server })
        }
    }
}

fn version_of_pg_dump() -> Option<u32> {
    let mut command = Command::new("pg_dump");
    command.arg("--version");
    let mut version = None;
    let heard = |_, line: &str| version = version.or_else(|| first_number(line));
    children::run(command, Some(MOMENT), heard).ok()?;
    version
}

/// Of `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn first_number(line: &str) -> Option<u32> {
    let version = line.strip_prefix("pg_dump (PostgreSQL) ")?;
    version
        .split(|part: char| !part.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Makes the backup `name`, on disk when this returns.
pub(super) fn back_up(
    master: &Master<'_>,
    server: &Server,
    name: &BackupName,
) -> Result<(), Failure> {
    // How large a dump will be nobody can tell; the tool says when there is no room.
    let partial = backups::begin(&master.backups, 0)?;
    let database = server.database.clone().unwrap_or_default();
    if name.kind() == FileKind::PgDump {
        let mut command = postgresql("pg_dump", server);
        command
            .args(["--format=custom", "--no-password", "--file"])
            .arg(&*partial)
            .arg("--dbname")
            .arg(database);
        // Quotes keep a name from being a pattern.
        let tables = server.tables.iter();
        command.args(tables.map(|table| format!("--table=\"{table}\"")));
        run("pg_dump", command)?;
    } else {
        let (mut command, _secret) = mysql("mysqldump", server, &master.state)?;
        // Buildbot's tables may be MyISAM, whose state only a lock holds still.
        command
            .args(["--lock-tables", "--result-file"])
            .arg(&*partial)
            .args(["--", &database])
            .args(&server.tables);
        run("mysqldump", command)?;
    }
    backups::complete(partial, name)
}

/// Puts a dump back. Only for when a mark says what is going on.
pub(super) fn put_back(
    master: &Master<'_>,
    server: &Server,
    name: &BackupName,
) -> Result<(), Failure> {
    clear(master, server)?;
    let path = master.backups.path(name);
    let database = server.database.clone().unwrap_or_default();
    if name.kind() == FileKind::PgDump {
        let mut command = postgresql("pg_restore", server);
        command
            .args([
                "--clean",
                "--if-exists",
                "--no-owner",
                "--single-transaction",
            ])
            .args(["--no-password", "--dbname", &database, "--"])
            .arg(&path);
        run("pg_restore", command)
    } else {
        let (mut command, _secret) = mysql("mysql", server, &master.state)?;
        // `source` takes the rest of its line as the name.
        let source = format!("source {}", path.display());
        command.args(["--execute", &source, "--", &database]);
        run("mysql", command)
    }
}

fn clear(master: &Master<'_>, server: &Server) -> Result<(), Failure> {
    let mut command = master.python(CLEAR, &[])?;
    command.env("BUILDBOT_CONDA_DATABASE", url(server));
    run("drop Buildbot's tables", command)
}

/// As `SQLAlchemy` takes it.
pub(super) fn url(server: &Server) -> String {
    let encoded = |text: &Option<String>| text.as_deref().map(percent_encoded);
    let account = encoded(&server.user).map_or_else(String::new, |user| {
        let password = server.password.as_ref();
        let password = password.map(|secret| format!(":{}", percent_encoded(&secret.0)));
        format!("{user}{}@", password.unwrap_or_default())
    });
    let host = server.host.as_deref().unwrap_or_default();
    let (host, query) = if host.starts_with('/') {
        (String::new(), format!("?host={}", percent_encoded(host)))
    } else {
        let port = server.port.map(|port| format!(":{port}"));
        (format!("{host}{}", port.unwrap_or_default()), String::new())
    };
    let (driver, database) = (&server.driver, server.database.as_deref());
    let database = database.unwrap_or_default();
    format!("{driver}://{account}{host}/{database}{query}")
}

fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn postgresql(program: &str, server: &Server) -> Command {
    let mut command = Command::new(program);
    let port = server.port.map(|port| port.to_string());
    for (option, value) in [
        ("--host", server.host.as_ref()),
        ("--port", port.as_ref()),
        ("--username", server.user.as_ref()),
    ] {
        if let Some(value) = value {
            command.args([option, value]);
        }
    }
    if let Some(password) = &server.password {
        command.env("PGPASSWORD", &password.0);
    }
    command
}

/// The command, and the file with its password, which must outlive it.
fn mysql(
    program: &str,
    server: &Server,
    state: &Path,
) -> Result<(Command, NamedTempFile), Failure> {
    let mut text = String::from("[client]\n");
    let port = server.port.map(|port| port.to_string());
    for (option, value) in [
        ("host", server.host.as_deref()),
        ("port", port.as_deref()),
        ("user", server.user.as_deref()),
        (
            "password",
            server.password.as_ref().map(|secret| secret.0.as_str()),
        ),
    ] {
        if let Some(value) = value {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            for part in [option, "=\"", &value, "\"\n"] {
                text.push_str(part);
            }
        }
    }
    let write = || {
        // Mode 0600 is what the library makes.
        let mut file = NamedTempFile::with_prefix_in(".client-", state)?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    };
    let file = write().map_err(|error: std::io::Error| Failure::io("write in", state, &error))?;
    let mut option = OsString::from("--defaults-extra-file=");
    option.push(file.path());
    let mut command = Command::new(program);
    command.arg(option);
    Ok((command, file))
}

fn run(name: &str, command: Command) -> Result<(), Failure> {
    let mut said: Vec<String> = Vec::new();
    let status = children::run(command, None, |stream, line| {
        eprintln!("{line}");
        if stream == Stream::Stderr && !line.is_empty() {
            said.push(line.to_owned());
        }
    });
    let reason = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => said.pop().unwrap_or_else(|| status.to_string()),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(SCHEMA, format!("{name}: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::super::facts::Secret;
    use super::*;

    fn server(host: &str) -> Server {
        Server {
            driver: "postgresql+psycopg2".to_owned(),
            host: Some(host.to_owned()),
            port: Some(5432),
            user: Some("bb".to_owned()),
            password: Some(Secret("p@ss/w:rd".to_owned())),
            database: Some("builds".to_owned()),
            version: Some(17),
            tables: vec!["builds".to_owned()],
        }
    }

    #[test]
    fn a_server_is_reached_by_its_address_or_its_socket() {
        assert_eq!(
            url(&server("db.example.org")),
            "postgresql+psycopg2://bb:p%40ss%2Fw%3Ard@db.example.org:5432/builds"
        );
        assert_eq!(
            url(&server("/run/postgresql")),
            "postgresql+psycopg2://bb:p%40ss%2Fw%3Ard@/builds?host=%2Frun%2Fpostgresql"
        );
    }

    #[test]
    fn the_version_of_pg_dump_is_the_first_number_that_it_tells() {
        for (line, version) in [
            (
                "pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)",
                Some(15),
            ),
            ("pg_dump (PostgreSQL) 18beta1", Some(18)),
            ("pg_dump: command not found", None),
            ("", None),
        ] {
            assert_eq!(first_number(line), version, "{line}");
        }
    }

    #[test]
    fn passwords_are_neither_arguments_nor_shown() {
        let server = server("db.example.org");
        let words = |command: &Command| format!("{:?}", command.get_args().collect::<Vec<_>>());
        assert!(!words(&postgresql("pg_dump", &server)).contains("p@ss"));
        let state = tempfile::tempdir().expect("a directory can be made");
        let (command, file) = mysql("mysqldump", &server, state.path()).expect("written");
        assert!(!words(&command).contains("p@ss"));
        let text = std::fs::read_to_string(file.path()).expect("read");
        assert!(text.contains("password=\"p@ss/w:rd\""), "{text}");
        assert!(!format!("{server:?}").contains("p@ss"));
    }
}
