//! The initial content of new instances: the worker's tac and info files, and the master's configuration. The master's
//! tac and database are created by its own Buildbot.

use std::fmt::Write as _;

use tera::Context;
use thiserror::Error;

use crate::names::{InstanceName, InstanceRef};
use crate::paths;
use crate::template::render;

const WORKER: &str = include_str!("../templates/worker.tac.tera");
const MASTER: &str = include_str!("../templates/master.cfg.tera");
const WORKERS: &str = include_str!("../templates/workers.cfg.tera");

/// Name of the credential with a worker's password.
pub const WORKER_CREDENTIAL: &str = "password";
/// Name of the credential with the single password of all workers, for a master with an older starter configuration.
pub const MASTER_CREDENTIAL: &str = "worker-password";
/// Name of the credential with the password of [`LOGIN`], for a master.
pub const LOGIN_CREDENTIAL: &str = "web-password";
/// Name of the credential with the URL of a master's database, where that URL has a password.
pub const DATABASE_CREDENTIAL: &str = "database-url";
/// Who may force and stop builds on a master's web pages.
pub const LOGIN: &str = "admin";
/// The table of workers in a master's directory, see [`crate::workers`].
pub const WORKER_TABLE: &str = "workers.toml";
/// The directory next to the table that contains the password of each worker, in a file with its name.
pub const PASSWORDS: &str = "passwords";

/// The directory next to a worker's tac that contains the certificate of its master's authority.
pub const TRUST: &str = "trust";
/// The port for workers of other hosts, and its certificate, in a master's directory; the runner reads it.
pub const NETWORK: &str = "network.toml";
/// The directory next to it that contains certificate and key.
pub const TLS: &str = "tls";

/// Where a worker finds its master, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStart {
    /// Which instance.
    pub reference: InstanceRef,
    /// The worker's name at the master.
    pub name: WorkerName,
    /// How it gets there.
    pub way: Way,
    /// As many workers in one process, each for one build at a time; without it one, for as many as there are.
    pub slots: Option<u32>,
}

/// What a master knows about a worker in addition to its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Details {
    /// As in [`WorkerStart`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub slots: Option<u32>,
    /// Tags by which builders choose the worker.
    #[cfg_attr(feature = "serde", serde(default))]
    pub tags: Vec<Tag>,
}

/// A tag of workers: letters, digits, `.`, `_` and `-`, at most 50 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "String", into = "String")
)]
pub struct Tag(String);

/// The way to a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// A socket on this host, by its absolute path.
    Socket(String),
    /// TCP.
    Tcp(Address),
    /// TLS, with a certificate that the worker's environment trusts.
    Tls(Address),
    /// TLS, with a certificate of the authority in [`TRUST`] alone.
    Pinned(Address),
}

/// A new master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterStart {
    /// Which instance.
    pub reference: InstanceRef,
    /// TCP port of the web pages, on the loopback interface.
    pub web_port: u16,
    /// TCP port of the workers, on the loopback interface, instead of the socket.
    pub worker_port: Option<u16>,
    /// Where its builds are stored.
    pub database: MasterDatabase,
}

/// The database of a master.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MasterDatabase {
    /// A file in its directory.
    #[default]
    Sqlite,
    /// A server.
    Server {
        /// The URL; without it, the credential [`DATABASE_CREDENTIAL`] has it.
        url: Option<String>,
        /// Whether Buildbot can check a connection before it uses it, which it can since 4.3.
        pings: bool,
    },
}

/// A worker's name: letters, digits, `_` and `-`, no digit first, at most 50 characters: what of
/// Buildbot's identifiers (`buildbot/util/identifiers.py`) is ASCII, and no option of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerName(String);

/// `HOST:PORT`, an IPv6 address in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Characters of a worker's name, at most.
const LONGEST: usize = 50;
/// Slots of a worker, at most. A process with fifty has some 40 MB.
pub const MOST_SLOTS: u32 = 200;

/// Where masters expect workers by convention.
pub const WORKER_PORT: u16 = 9989;

/// A value of a new instance that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StartError {
    /// No name of a worker.
    #[error(
        "`{}` is not a worker name; use up to 50 letters, digits, `_` and `-`, starting with a letter or `_`",
        .0.escape_debug()
    )]
    Worker(String),
    /// No tag.
    #[error("`{}` is not a tag; use up to 50 letters, digits, `.`, `_` and `-`", .0.escape_debug())]
    Tag(String),
    /// As many workers have no names.
    #[error("`{0}` is too long for {1} slots; with `-{1}` it must not exceed 50 characters")]
    Slots(String, u32),
    /// No `HOST:PORT`.
    #[error("`{}` is not an address; write `HOST` or `HOST:PORT`, such as `ci.example.org:9989`", .0.escape_debug())]
    Address(String),
}

impl WorkerName {
    /// The name of the worker of an instance: the name of the instance, with a prefix if that starts with a digit,
    /// which Buildbot does not allow.
    pub fn of(instance: &InstanceName) -> Self {
        let name = instance.as_str();
        name.parse()
            .unwrap_or_else(|_| Self(format!("worker-{name}")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names of its workers in Buildbot: its own, and for each further slot that with a number, as in `gpu-2`.
    pub fn slots(&self, slots: Option<u32>) -> impl Iterator<Item = String> {
        let further = (2..=slots.unwrap_or(1)).map(move |slot| format!("{}-{slot}", self.0));
        std::iter::once(self.0.clone()).chain(further)
    }

    /// Checks that Buildbot accepts all of these names.
    ///
    /// # Errors
    ///
    /// [`StartError::Slots`] if the last one is too long.
    pub fn check_slots(&self, slots: Option<u32>) -> Result<(), StartError> {
        match self.slots(slots).last() {
            Some(last) if last.len() > LONGEST => {
                Err(StartError::Slots(self.0.clone(), slots.unwrap_or(1)))
            }
            _ => Ok(()),
        }
    }
}

impl Tag {
    /// The tag as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Tag {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !text.is_empty() && text.len() <= LONGEST && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(StartError::Tag(text.to_owned()))
    }
}

impl TryFrom<String> for Tag {
    type Error = StartError;

    fn try_from(text: String) -> Result<Self, StartError> {
        text.parse()
    }
}

impl From<Tag> for String {
    fn from(tag: Tag) -> Self {
        tag.0
    }
}

impl std::str::FromStr for WorkerName {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        let first = text.bytes().next();
        let all = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        let begins = first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if all && begins && text.len() <= LONGEST {
            return Ok(Self(text.to_owned()));
        }
        Err(StartError::Worker(text.to_owned()))
    }
}

impl Address {
    /// An address whose port may be left out: then it is the one on which masters expect workers.
    ///
    /// # Errors
    ///
    /// [`StartError::Address`] when it is none.
    pub fn with_any_port(text: &str) -> Result<Self, StartError> {
        let is_bare_v6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        if is_bare_v6 {
            format!("[{text}]:{WORKER_PORT}").parse()
        } else if text.ends_with(']') || !text.contains(':') {
            format!("{text}:{WORKER_PORT}").parse()
        } else {
            text.parse()
        }
        .map_err(|_| StartError::Address(text.to_owned()))
    }
}

impl std::str::FromStr for Address {
    type Err = StartError;

    fn from_str(text: &str) -> Result<Self, StartError> {
        let refused = || StartError::Address(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let allowed = if bare.is_some() { ".-:" } else { ".-" };
        let host = bare.unwrap_or(host);
        let good = |byte: char| byte.is_ascii_alphanumeric() || allowed.contains(byte);
        let port = port.parse().map_err(|_| refused())?;
        if host.is_empty() || port == 0 || host.starts_with('-') || !host.chars().all(good) {
            return Err(refused());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => formatter.write_str(path),
            Self::Tcp(address) | Self::Tls(address) | Self::Pinned(address) => {
                address.fmt(formatter)
            }
        }
    }
}

/// `buildbot.tac` of a worker.
pub fn worker_tac(start: &WorkerStart) -> String {
    let mut context = context(&start.reference);
    context.insert("name", &python(start.name.as_str()));
    // Endpoints are split at colons, endpoints in Twisted's manual.
    let escaped = |text: &str| text.replace(':', "\\:");
    let connection = match &start.way {
        Way::Socket(path) => Some(python(&format!("unix:path={}", escaped(path)))),
        Way::Tls(Address { host, port }) | Way::Pinned(Address { host, port }) => {
            Some(python(&format!("tls:{}:{port}", escaped(host))))
        }
        Way::Tcp(Address { host, port }) => {
            context.insert("host", &python(host));
            context.insert("port", port);
            None
        }
    };
    context.insert("connection", &connection);
    context.insert("tls", &matches!(start.way, Way::Tls(_)));
    let trust = matches!(start.way, Way::Pinned(_)).then_some(TRUST);
    context.insert("trust", &trust);
    context.insert("slots", &start.slots);
    context.insert("indent", if start.slots.is_some() { "    " } else { "" });
    render(WORKER, &context)
}

/// The table of workers of a master that knows these.
pub fn worker_table<'a>(workers: impl IntoIterator<Item = &'a WorkerName>) -> String {
    let tables = workers
        .into_iter()
        .map(|worker| worker_lines(worker, &Details::default()));
    let tables: String = tables.collect();
    format!("# The workers of this master; the format is described in `master.cfg`.\n\n{tables}")
}

/// The lines of one in it.
pub fn worker_lines(worker: &WorkerName, details: &Details) -> String {
    let slots = details.slots.map(|slots| format!("slots = {slots}\n"));
    let tags = details
        .tags
        .iter()
        .map(|tag| format!("\"{}\"", tag.as_str()));
    let tags = tags.collect::<Vec<_>>().join(", ");
    let tags = (!tags.is_empty()).then(|| format!("tags = [{tags}]\n"));
    let name = format!("[{}]\n", worker.as_str());
    [Some(name), slots, tags].into_iter().flatten().collect()
}

/// `network.toml` of a master that accepts workers from other hosts. `until` is part of the names of the certificate
/// and key files: when the certificate expires, in seconds since 1970.
pub fn network(port: u16, until: u64) -> String {
    format!(
        "# The port for workers on other hosts, with TLS. Read at every start and reload.\n\
         # Written by `buildbot-conda invite`, which also renews the certificate.\n\
         port = {port}\ncertificate = \"{TLS}/{until}.pem\"\nkey = \"{TLS}/{until}.key\"\n"
    )
}

/// `master.cfg` of a master.
pub fn master_cfg(start: &MasterStart) -> String {
    let mut context = context(&start.reference);
    context.insert("unit", &start.reference.unit_name());
    context.insert("title", &python(&start.reference.to_string()));
    context.insert("web_port", &start.web_port);
    context.insert("worker_port", &start.worker_port);
    let socket = format!("unix:{}:mode=666", paths::worker_socket(&start.reference));
    let socket = start.worker_port.is_none().then(|| python(&socket));
    context.insert("socket", &socket);
    context.insert("database", &database(&start.database));
    context.insert("user", &python(LOGIN));
    context.insert("credential", LOGIN_CREDENTIAL);
    context.insert("workers", workers(&start.reference).trim_end());
    context.insert("exposure", crate::web::exposure().trim_end());
    render(MASTER, &context)
}

/// `c["db"]` of a master, as Python has it.
pub fn database(database: &MasterDatabase) -> String {
    match database {
        MasterDatabase::Sqlite => r#"{"db_url": "sqlite:///state.sqlite"}"#.to_owned(),
        MasterDatabase::Server { url, pings } => {
            let url = url.as_deref().map_or_else(
                || format!("secret({})", python(DATABASE_CREDENTIAL)),
                python,
            );
            // A connection that the server has closed meanwhile is replaced.
            let pings = if *pings {
                r#", "engine_kwargs": {"pool_pre_ping": True}"#
            } else {
                ""
            };
            format!("{{\"db_url\": {url}{pings}}}")
        }
    }
}

/// The lines of a `master.cfg` that read [`WORKER_TABLE`] and [`PASSWORDS`]. They use the modules `os` and `tomllib`,
/// `worker` of `buildbot.plugins`, and the master's directory as `HERE`.
pub fn workers(reference: &InstanceRef) -> String {
    let mut context = Context::new();
    // What has to be said so that it is this master.
    let master = match reference.name {
        None => String::new(),
        Some(_) => format!(" --master {reference}"),
    };
    context.insert("master", &master);
    render(WORKERS, &context)
}

fn context(reference: &InstanceRef) -> Context {
    let mut context = Context::new();
    let table = match reference.name {
        None => reference.to_string(),
        Some(_) => format!("\"{reference}\""),
    };
    context.insert("table", &table);
    context.insert("configuration", paths::CONFIGURATION);
    context
}

/// A Python string literal.
fn python(text: &str) -> String {
    let mut literal = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => literal.extend(['\\', character]),
            plain if plain.is_ascii_graphic() || plain == ' ' => literal.push(plain),
            other => write!(literal, "\\U{:08x}", u32::from(other))
                .expect("writing to a string succeeds"),
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_and_ports() {
        for text in ["localhost:9989", "[::1]:1", "ci.example.org:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in [
            "", "x", "x:", ":1", "x:0", "x:65536", "a b:1", "::1:1", "x'y:1", "-x:1", "x\\:1:1",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_without_a_port_has_the_usual_one() {
        for (text, address) in [
            ("ci.example.org", "ci.example.org:9989"),
            ("ci:1", "ci:1"),
            ("::1", "[::1]:9989"),
            ("[2001:db8::1]", "[2001:db8::1]:9989"),
            ("[::1]:7", "[::1]:7"),
        ] {
            let found = Address::with_any_port(text).unwrap();
            assert_eq!(found.to_string(), address);
        }
        for text in ["", "ci:", "ci:x", "a b", "-x", "ci/x"] {
            assert!(Address::with_any_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_workers_are_words() {
        for text in ["gpu-1_x", "_x", "A-", &"a".repeat(50)] {
            assert!(text.parse::<WorkerName>().is_ok(), "{text}");
        }
        for text in ["", "-x", "1", "a b", "a.b", "a'b", "é", &"a".repeat(51)] {
            assert!(text.parse::<WorkerName>().is_err(), "{text}");
        }
    }

    #[test]
    fn slots_have_names_that_buildbot_takes() {
        let name: WorkerName = "a".repeat(48).parse().unwrap();
        assert_eq!(
            name.slots(Some(2)).last().unwrap(),
            format!("{}-2", name.as_str())
        );
        assert_eq!(name.slots(None).count(), 1);
        assert!(name.check_slots(Some(9)).is_ok());
        assert!(name.check_slots(Some(10)).is_err());
    }

    #[test]
    fn tags_are_words() {
        for text in ["cuda", "12.4", "a_b-c"] {
            assert_eq!(text.parse::<Tag>().unwrap().as_str(), text);
        }
        for text in ["", "a b", "a\"b", "é", &"a".repeat(51)] {
            assert!(text.parse::<Tag>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_instance_has_a_name_that_is_one_of_a_worker() {
        for (instance, worker) in [("gpu", "gpu"), ("x_-", "x_-"), ("9-9", "worker-9-9")] {
            assert_eq!(WorkerName::of(&instance.parse().unwrap()).as_str(), worker);
        }
    }

    #[test]
    fn a_tac_connects_as_it_is_told() {
        let mut start = WorkerStart {
            reference: "worker@gpu".parse().unwrap(),
            name: "gpu".parse().unwrap(),
            way: Way::Tcp("[2001:db8::1]:9989".parse().unwrap()),
            slots: None,
        };
        let plain = worker_tac(&start);
        assert!(
            plain.contains("\n    \"2001:db8::1\",\n    9989,\n    \"gpu\",\n"),
            "{plain}"
        );
        assert!(!plain.contains("connection_string"), "{plain}");
        start.way = Way::Tls("[2001:db8::1]:9989".parse().unwrap());
        let tls = worker_tac(&start);
        let expect = r#"connection_string="tls:2001\\:db8\\:\\:1:9989","#;
        assert!(tls.contains(expect), "{tls}");
        assert!(
            tls.contains("    None,\n    None,\n    \"gpu\",\n"),
            "{tls}"
        );
        assert!(tls.contains("[\"worker@gpu\".credentials]"), "{tls}");
        start.way = Way::Pinned("ci.example.org:9989".parse().unwrap());
        let pinned = worker_tac(&start);
        let expect = r#"connection_string="tls:ci.example.org:9989" + ":trustRoots=" + trust,"#;
        assert!(pinned.contains(expect), "{pinned}");
        assert!(
            pinned.contains("\ntrust = os.path.join(basedir, \"trust\")"),
            "{pinned}"
        );
        start.way = Way::Socket(paths::worker_socket(&"master".parse().unwrap()));
        let socket = worker_tac(&start);
        let expect = "connection_string=\"unix:path=/run/buildbot-conda/master/workers\",";
        assert!(
            socket.contains(expect) && !socket.contains("certificate"),
            "{socket}"
        );
        assert!(socket.contains("\nworker = Worker(\n"), "{socket}");
        start.slots = Some(4);
        let slots = worker_tac(&start);
        for line in [
            "for slot in range(1, 4 + 1):\n",
            "    worker = Worker(\n",
            "        name if slot == 1 else \"%s-%d\" % (name, slot),\n",
            "        directory,\n",
            "    worker.setServiceParent(application)\n",
        ] {
            assert!(slots.contains(line), "{slots}");
        }
    }

    #[test]
    fn a_master_listens_where_nobody_else_can_and_lets_nobody_control_it_unknown() {
        for (reference, worker_port) in [("master", None), ("master@nightly", Some(9990))] {
            let text = master_cfg(&MasterStart {
                reference: reference.parse().unwrap(),
                web_port: 8010,
                worker_port,
                database: MasterDatabase::Sqlite,
            });
            let port = match worker_port {
                None => "{\"port\": \"unix:/run/buildbot-conda/master/workers:mode=666\"}",
                Some(_) => "{\"port\": \"tcp:9990:interface=127.0.0.1\"}",
            };
            let user = "util.UserPasswordAuth({\"admin\": secret(\"web-password\")})";
            assert!(text.contains(port) && text.contains(user), "{text}");
            assert!(text.contains("util.AnyControlEndpointMatcher(role=\"admins\")"));
            // The names are data.
            assert_eq!(crate::workers::find(&text), None);
            let is_named = text.contains(" --master master@nightly");
            assert_eq!(is_named, reference != "master");
        }
    }

    #[test]
    fn a_database_is_a_file_or_a_server_and_a_password_is_not_in_the_configuration() {
        let text = |database| {
            let text = master_cfg(&MasterStart {
                reference: "master".parse().unwrap(),
                web_port: 8010,
                worker_port: None,
                database,
            });
            let mut lines = text.lines().filter(|line| line.starts_with("c[\"db\"]"));
            lines.next().unwrap().to_owned()
        };
        let server = |url: Option<&str>, pings| MasterDatabase::Server {
            url: url.map(str::to_owned),
            pings,
        };
        for (database, expected) in [
            (
                MasterDatabase::Sqlite,
                r#"c["db"] = {"db_url": "sqlite:///state.sqlite"}"#,
            ),
            (
                server(Some("postgresql+psycopg2://db/b"), false),
                r#"c["db"] = {"db_url": "postgresql+psycopg2://db/b"}"#,
            ),
            (
                server(None, true),
                r#"c["db"] = {"db_url": secret("database-url"), "engine_kwargs": {"pool_pre_ping": True}}"#,
            ),
        ] {
            assert_eq!(text(database), expected);
        }
    }

    /// The runner's tests run it with real Buildbots.
    #[test]
    fn the_starter_is_the_one_that_is_tried_with_real_buildbots() {
        let text = master_cfg(&MasterStart {
            reference: "master".parse().unwrap(),
            web_port: 8010,
            worker_port: None,
            database: MasterDatabase::Sqlite,
        });
        assert_eq!(
            text,
            include_str!("../../launcher/runner_tests/starter-master.cfg"),
            "the starter has changed; this is it now:\n{text}"
        );
    }

    /// As above.
    #[test]
    fn a_worker_with_slots_is_the_one_that_is_tried_with_real_buildbots() {
        let text = worker_tac(&WorkerStart {
            reference: "worker".parse().unwrap(),
            name: "gpu".parse().unwrap(),
            way: Way::Socket(paths::worker_socket(&"master".parse().unwrap())),
            slots: Some(200),
        });
        assert_eq!(
            text,
            include_str!("../../launcher/runner_tests/starter-slots.tac"),
            "it has changed; this is it now:\n{text}"
        );
    }

    #[test]
    fn text_becomes_a_python_literal() {
        assert_eq!(python("a\"\\\né"), r#""a\"\\\U0000000a\U000000e9""#);
    }
}
