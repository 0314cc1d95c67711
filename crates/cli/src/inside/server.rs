//! The `PostgreSQL` server of this host, asked and changed as its own account, which it lets in by its socket and without a
//! password.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::foreign_text::ForeignText;
use serde::{Deserialize, Serialize};

use crate::output;
use crate::system::as_user;
use crate::system::children::{self, Bounds, Input};

/// The account of Debian's package, and the database that every server has.
pub(crate) const ACCOUNT: &str = "postgres";
/// What any of it may take.
const LIMIT: Duration = Duration::from_mins(1);
/// Bytes of an answer.
const MOST_PRINTED: usize = 1 << 20;
/// By which a role is known to be ours to drop.
const MARK: &str = "created by buildbot-conda";

const LOOK: &str = "\
select json_build_object(
    'port', current_setting('port')::int,
    'has_role', exists(select from pg_roles where rolname = :'role'),
    'owner', (select pg_get_userbyid(datdba) from pg_database where datname = :'database'));
";
const TABLES: &str = "\
select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_';
";
const CREATE_ROLE: &str = "\
begin;
create role :\"role\" login;
comment on role :\"role\" is :'mark';
commit;
";
// The order of the C locale stays the same when the C library changes; indexes rely on it.
const CREATE_DATABASE: &str = "\
create database :\"database\" owner :\"role\" template template0 encoding 'UTF8' lc_collate 'C' lc_ctype 'C.UTF-8';
";
const DROP_DATABASE: &str = "\
select exists(select from pg_database where datname = :'database' and pg_get_userbyid(datdba) = :'role') as mine \\gset
\\if :mine
drop database :\"database\" with (force);
\\endif
";
const DROP_ROLE: &str = "\
select exists(select from pg_roles r where rolname = :'role' and shobj_description(r.oid, 'pg_authid') = :'mark'
    and not exists(select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = r.oid)) as idle \\gset
\\if :idle
drop role :\"role\";
\\endif
";

/// What is wanted of the server.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    deed: Deed,
    role: String,
    database: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// See [`Found`].
    Look,
    CreateRole,
    CreateDatabase,
    /// Drops the database if it belongs to the role.
    DropDatabase,
    /// Drops the role if it was created here, and nothing belongs to it any more.
    DropRole,
}

/// What a server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) port: u16,
    pub(crate) has_role: bool,
    /// The role that owns the database, if that is there.
    pub(crate) owner: Option<ForeignText>,
    /// Tables and views in the database.
    #[serde(default)]
    pub(crate) tables: u64,
}

/// Has the server's account look for a role and a database.
///
/// # Errors
///
/// When the server does not answer.
pub(crate) fn inspect(role: &str, database: &str) -> anyhow::Result<Found> {
    let answer = call(Deed::Look, role, database)?;
    serde_json::from_str(&answer).context("read an answer of PostgreSQL")
}

/// Has the server's account change something. Dropping what is not there is success.
pub(crate) fn change(deed: Deed, role: &str, database: &str) -> anyhow::Result<()> {
    call(deed, role, database).map(drop)
}

fn call(deed: Deed, role: &str, database: &str) -> anyhow::Result<String> {
    let request = Request {
        deed,
        role: role.to_owned(),
        database: database.to_owned(),
    };
    let input = serde_json::to_string(&request).context("write a request")?;
    as_user::call(ACCOUNT, None, &["server"], Path::new("/"), &input)
}

/// As the server's account: does what stands on standard input.
pub(crate) fn answer() -> anyhow::Result<()> {
    let request: Request = serde_json::from_reader(std::io::stdin()).context("read a request")?;
    let script = match request.deed {
        Deed::Look => {
            let found = look_as_account(&request)?;
            let text = serde_json::to_string(&found).context("write an answer")?;
            return output::print(text).map(drop);
        }
        Deed::CreateRole => CREATE_ROLE,
        Deed::CreateDatabase => CREATE_DATABASE,
        Deed::DropDatabase => DROP_DATABASE,
        Deed::DropRole => DROP_ROLE,
    };
    psql(ACCOUNT, script, &request).map(drop)
}

fn look_as_account(request: &Request) -> anyhow::Result<Found> {
    let answer = psql(ACCOUNT, LOOK, request)?;
    let mut found: Found = serde_json::from_str(&answer).context("read an answer of PostgreSQL")?;
    if found.owner.is_some() {
        let tables = psql(&request.database, TABLES, request)?;
        found.tables = tables
            .trim()
            .parse()
            .context("read an answer of PostgreSQL")?;
    }
    Ok(found)
}

/// Runs a script in a database, with the names of the request as its variables, and gives what it prints.
fn psql(database: &str, script: &str, request: &Request) -> anyhow::Result<String> {
    ensure!(
        !database.contains(['=', ':']),
        "`{database}` is not the name of a database"
    );
    let mut command = Command::new("psql");
    command.args([
        "--no-psqlrc",
        "--no-password",
        "--quiet",
        "--no-align",
        "--tuples-only",
    ]);
    for (name, value) in [
        ("ON_ERROR_STOP", "1"),
        ("role", &request.role),
        ("database", &request.database),
        ("mark", MARK),
    ] {
        command.args(["--set", &format!("{name}={value}")]);
    }
    command.args(["--dbname", database]);
    let bounds = Bounds {
        time: Some(LIMIT),
        printed: MOST_PRINTED,
        interruptible: false,
    };
    let input = Input::Text(script.as_bytes().to_owned());
    let ended = children::collect(command, input, &bounds, |_| false).context("run `psql`")?;
    if ended.is_success {
        return String::from_utf8(ended.stdout)
            .context("read an answer of PostgreSQL, which is not UTF-8");
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).collect();
    let said = lines.join(" ");
    let reason = said.strip_prefix("psql: error: ").unwrap_or(&said);
    bail!("PostgreSQL: {}", ForeignText::new(reason))
}
