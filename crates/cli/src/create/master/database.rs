//! The database of a new master: what was asked for, what has to be there before the first step, and the steps.

use std::fs;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use buildbot_conda_core::database_url::DatabaseUrl;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{DATABASE_CREDENTIAL, MasterDatabase};
use buildbot_conda_host::trusted::open_given;
use clap::Args;

use crate::create::place;
use crate::inside::reach::{self, Reach};
use crate::inside::server;
use crate::plan::{DatabaseStep, Step};
use crate::system::context::Context;
use crate::system::prompt;
use crate::system::record::Server;
use crate::system::values::Identity;
use crate::system::{accounts, installations};

/// Bytes of a file with a URL, at most.
const LONGEST: u64 = 4096;
/// Since when Buildbot passes arguments on to the engine of its database.
const PINGS_SINCE: (u32, u32) = (4, 3);

#[derive(Debug, Args)]
pub(super) struct Choice {
    /// `sqlite`, the default; `postgresql`, created on this host; or the URL of an empty database, as in
    /// `postgresql://USER@HOST/DATABASE`, without a password
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// Read the URL of the database, which may have a password, from a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    database_file: Option<PathBuf>,
}

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Wanted {
    Sqlite,
    /// On this host's own server.
    Local,
    Url(DatabaseUrl),
}

/// What is going to be used.
#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) start: MasterDatabase,
    /// Where it is, unless in the directory.
    pub(crate) place: Option<DatabaseUrl>,
    /// The same as text, a secret.
    pub(crate) url: Option<String>,
    /// Name of a file for the URL in the credentials directory, where it is a secret.
    pub(crate) credential: Option<String>,
    /// What comes before the tables.
    pub(crate) steps: Vec<Step>,
    pub(crate) record: Option<Server>,
}

impl Choice {
    /// Whether standard input has the URL.
    pub(super) fn is_on_stdin(&self) -> bool {
        self.database_file.as_deref() == Some(Path::new("-"))
    }

    pub(super) fn wanted(&self) -> anyhow::Result<Wanted> {
        let options = ["--database", "--database-file"];
        Wanted::read(
            self.database.as_deref(),
            self.database_file.as_deref(),
            options,
        )
    }
}

impl Choice {
    /// Whether a master that exists has the database that was asked for, if one was.
    pub(super) fn is_as(&self, wanted: &Wanted, server: Option<&Server>) -> bool {
        (self.database.is_none() && self.database_file.is_none()) || wanted.is(server)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") && io::stdin().is_terminal() {
        return prompt::ask_unseen("URL of the database");
    }
    let mut text = String::new();
    let name = path.display();
    if path == Path::new("-") {
        io::stdin().take(LONGEST).read_to_string(&mut text)
    } else {
        let file = open_given(path).with_context(|| format!("open `{name}`"))?;
        file.take(LONGEST).read_to_string(&mut text)
    }
    .with_context(|| format!("read a URL from `{name}`"))?;
    Ok(text)
}

impl Wanted {
    /// What a text says, or else a file with the URL; `SQLite` without both. `options` are what they came by.
    pub(crate) fn read(
        text: Option<&str>,
        file: Option<&Path>,
        options: [&str; 2],
    ) -> anyhow::Result<Self> {
        if let Some(path) = file {
            return Ok(Self::Url(read(path)?.trim().parse()?));
        }
        let Some(text) = text else {
            return Ok(Self::Sqlite);
        };
        match text {
            "sqlite" => return Ok(Self::Sqlite),
            "postgresql" => return Ok(Self::Local),
            _ => {}
        }
        let [option, file] = options;
        let url = text
            .strip_prefix("postgresql:")
            .filter(|rest| rest.contains("://"));
        let url: DatabaseUrl = url.unwrap_or(text).parse().map_err(|error| {
            anyhow::anyhow!(
                "read `{option}`: {error}\nhint: or use `postgresql` for a new database on this host, or `sqlite`"
            )
        })?;
        if url.public().is_none() {
            bail!(
                "the URL has a password, but everybody on this host can see the arguments of a command\n\
                 hint: write the URL to a file that only root can read, and use `{file} FILE`; with `{file} -`, it is \
                 prompted for"
            );
        }
        Ok(Self::Url(url))
    }

    /// Whether it is what the record of a master names.
    pub(crate) fn is(&self, server: Option<&Server>) -> bool {
        match (self, server) {
            (Self::Sqlite, None) | (Self::Local, Some(Server::Made { .. })) => true,
            (Self::Url(url), Some(Server::Given(place))) => url.place() == place,
            _ => false,
        }
    }

    /// Whether it is the server's database at `place`, as our own Python tells it of a configuration.
    pub(crate) fn is_at(&self, reference: &InstanceRef, place: &str) -> bool {
        match self {
            Self::Sqlite => false,
            Self::Local => DatabaseUrl::local(&name_of(reference), 5432).place() == place,
            Self::Url(url) => url.place_without_port() == place,
        }
    }

    /// Refuses what would fail later, and gives the rest.
    pub(crate) fn settle(
        &self,
        instance: &Instance,
        context: &Context,
    ) -> anyhow::Result<Database> {
        let (url, found) = match self {
            Self::Sqlite => return Ok(Database::default()),
            Self::Local => {
                ensure_installed(context)?;
                ensure_driver(&DatabaseUrl::local("", 0), instance, context)?;
                let found = server_state(instance, context)?;
                let name = name_of(&instance.reference);
                (DatabaseUrl::local(&name, found.port), Some((name, found)))
            }
            Self::Url(url) => {
                ensure_driver(url, instance, context)?;
                (url.clone(), None)
            }
        };
        let identity = Identity::of(instance);
        let reach = Reach {
            prefix: instance.prefix().as_str().into(),
            url: url.secret(),
            place: url.place().to_owned(),
        };
        let role = &instance.user;
        let mut steps: Vec<Step> = Vec::new();
        let mut is_new = false;
        let record = if let Some((database, found)) = found {
            if !found.has_role {
                steps.push(DatabaseStep::CreateRole { role: role.clone() }.into());
            }
            is_new = found.owner.is_none();
            let made = Server::Made {
                database: database.clone(),
                role: role.clone(),
            };
            if is_new {
                let role = role.clone();
                steps.push(DatabaseStep::CreateDatabase { database, role }.into());
            }
            made
        } else {
            if can_ask(context) {
                reach::ensure_usable(&identity, &reach)?;
            }
            Server::Given(url.place().to_owned())
        };
        let step = DatabaseStep::UseDatabase {
            identity,
            reach,
            is_new,
        };
        steps.push(step.into());
        let public = url.public();
        let credential = match &instance.reference.name {
            None => DATABASE_CREDENTIAL.to_owned(),
            Some(name) => format!("{DATABASE_CREDENTIAL}-{name}"),
        };
        let credential = public.is_none().then_some(credential);
        if let Some(file) = &credential {
            ensure_unused(file, &url, context)?;
        }
        let prefix = context.path(instance.prefix().as_str());
        Ok(Database {
            start: MasterDatabase::Server {
                url: public,
                pings: installations::version(&prefix, "buildbot")
                    .is_some_and(|version| version >= PINGS_SINCE),
            },
            url: Some(url.secret()),
            place: Some(url),
            credential,
            steps,
            record: Some(record),
        })
    }
}

/// The name of a master's database on this host.
fn name_of(reference: &InstanceRef) -> String {
    match &reference.name {
        None => "buildbot_master".to_owned(),
        Some(name) => format!("buildbot_master_{name}"),
    }
}

/// Whether this process may ask as another account.
pub(crate) fn can_ask(context: &Context) -> bool {
    !context.is_elsewhere() && rustix::process::geteuid().is_root()
}

fn ensure_installed(context: &Context) -> anyhow::Result<()> {
    let servers = fs::read_dir(context.path("/usr/lib/postgresql"));
    let mut servers = servers.into_iter().flatten().flatten();
    let has_server = servers.any(|server| server.path().join("bin/postgres").exists());
    let has_client = context.path("/usr/bin/psql").exists();
    let what = match (has_server, has_client) {
        (true, true) => return Ok(()),
        (true, false) => "the client of PostgreSQL",
        (false, _) => "the server of PostgreSQL",
    };
    bail!(
        "{what} is not installed on this host\n\
         hint: `apt install postgresql` installs it; or use the server of another host, with the URL of an empty database"
    )
}

fn ensure_driver(url: &DatabaseUrl, instance: &Instance, context: &Context) -> anyhow::Result<()> {
    let driver = url.driver();
    let prefix = instance.prefix();
    if installations::has_module(&context.path(prefix.as_str()), driver) {
        return Ok(());
    }
    bail!(
        "the environment `{prefix}` lacks `{driver}`, the driver for PostgreSQL\nhint: {}",
        place::how_to_install(&[driver], instance, context)
    )
}

/// What the server of this host has. Who may not ask is shown the whole plan.
fn server_state(instance: &Instance, context: &Context) -> anyhow::Result<server::Found> {
    let database = name_of(&instance.reference);
    let role = instance.user.as_str();
    if !can_ask(context) {
        return Ok(server::Found {
            port: 5432,
            has_role: false,
            owner: None,
            tables: 0,
        });
    }
    // A server that was installed by hand may have another account.
    accounts::find_user(server::ACCOUNT)?;
    let found = server::inspect(role, &database).map_err(|error| {
        anyhow::anyhow!(
            "{error:#}\nhint: `systemctl start postgresql` starts the server, `pg_lsclusters` shows its state"
        )
    })?;
    let Some(owner) = &found.owner else {
        return Ok(found);
    };
    if found.tables > 0 {
        bail!(
            "the database `{database}` already exists and contains {} tables\n\
             hint: if they are not needed, remove it with `sudo -u postgres dropdb {database}`",
            found.tables
        );
    }
    if owner.as_str() != role {
        bail!(
            "the database `{database}` already exists and belongs to `{owner}`\n\
             hint: remove it with `sudo -u postgres dropdb {database}`"
        );
    }
    Ok(found)
}

/// A credential that is there may be somebody else's.
fn ensure_unused(file: &str, url: &DatabaseUrl, context: &Context) -> anyhow::Result<()> {
    let path = context.path(paths::CREDENTIALS).join(file);
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Somebody only asks for the plan.
        Err(error)
            if error.kind() == io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() =>
        {
            Ok(())
        }
        Ok(text) if text.trim_end() == url.secret() => Ok(()),
        Ok(_) => {
            bail!("the credential `{file}` already exists\nhint: remove it if nothing uses it")
        }
        Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_credential_is_not_replaced_by_another_url_and_a_plan_needs_no_rights() {
        let root = tempfile::tempdir().unwrap();
        let context = Context::new(Some(root.path().to_owned()));
        let url: DatabaseUrl = "postgresql://bb:x@db/b".parse().unwrap();
        let directory = context.path(paths::CREDENTIALS);
        fs::create_dir_all(&directory).unwrap();
        for (text, is_unused) in [
            (None, true),
            (Some(url.secret()), true),
            (Some("x".to_owned()), false),
        ] {
            if let Some(text) = text {
                fs::write(directory.join("url"), text + "\n").unwrap();
            }
            assert_eq!(ensure_unused("url", &url, &context).is_ok(), is_unused);
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o0)).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(ensure_unused("url", &url, &context).is_ok(), !is_root);
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn what_is_asked_for_is_known_by_the_place_in_the_configuration() {
        let options = ["--to", "--to-file"];
        let plain: InstanceRef = "master".parse().unwrap();
        let named: InstanceRef = "master@ci".parse().unwrap();
        for (text, reference, place, is_at) in [
            ("postgresql", &plain, "postgresql:///buildbot_master", true),
            ("postgresql", &named, "postgresql:///buildbot_master", false),
            (
                "postgresql",
                &named,
                "postgresql:///buildbot_master_ci",
                true,
            ),
            (
                "postgresql://bb@db:5433/b",
                &plain,
                "postgresql://db/b",
                true,
            ),
            ("postgresql://db/c", &plain, "postgresql://db/b", false),
            ("sqlite", &plain, "/home/bb/master/state.sqlite", false),
        ] {
            let wanted = Wanted::read(Some(text), None, options).unwrap();
            assert_eq!(wanted.is_at(reference, place), is_at, "{text} {place}");
        }
    }
}
