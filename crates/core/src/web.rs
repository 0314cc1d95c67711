//! Publishing the pages of a master through a web server (the *front*): the site files, and the settings that the
//! master reads.

use tera::Context;
use thiserror::Error;

use crate::names::InstanceRef;
use crate::template::render;

const EXPOSURE: &str = include_str!("../templates/web.cfg.tera");
const CADDY: &str = include_str!("../templates/caddy.site.tera");
const NGINX: &str = include_str!("../templates/nginx.site.tera");

/// What the master reads of it, in its directory.
pub const WEB: &str = "web.toml";
/// Beside it: what the front and the master alone know, or what the master and the login's provider alone know.
pub const WEB_SECRET: &str = "web.secret";
/// The header with the user name from the front.
pub(crate) const USER_HEADER: &str = "X-Buildbot-User";
/// The header that proves that a request comes from the front.
pub(crate) const KEY_HEADER: &str = "X-Buildbot-Key";

/// User agents of what follows every link. Buildbot's own name ends like theirs.
const CRAWLERS: &str = "(crawl|spider|slurp|scrapy|(^|[^d])bot([^a-z]|$))";
/// Collections of the REST interface that grow with every build.
const LISTS: &str = "builds|buildrequests|buildsets|changes|sourcestamps|steps|logs";
/// Shown while the master does not answer.
const RESTARTING: &str = "<!doctype html><meta charset=utf-8><meta http-equiv=refresh content=3><title>Buildbot</title>\
    <p>Buildbot is restarting. This page tries again every three seconds.</p>";
/// Shown to whom pages are closed.
const STRANGER: &str = "<!doctype html><meta charset=utf-8><title>Buildbot</title>\
    <p>These pages require a login. <a href=/auth/login>Log in</a></p>";

/// A name that is not one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// No name of a host.
    #[error("`{}` is not the name of a host, such as `ci.example.org`", .0.escape_debug())]
    Host(String),
    /// No name of a person.
    #[error("`{}` is not a name; use up to 64 letters, digits and `.`, `_`, `-`, `@`", .0.escape_debug())]
    Person(String),
    /// No id that a provider of logins gives.
    #[error("`{}` is not a client ID of a login provider", .0.escape_debug())]
    Client(String),
    /// No name of a header.
    #[error("`{}` is not the name of a header, such as `X-Forwarded-User`", .0.escape_debug())]
    Header(String),
    /// No address of a server.
    #[error("`{}` is not an address, such as `https://gitlab.example.org`", .0.escape_debug())]
    Server(String),
    /// The path cannot be written to a site file unchanged.
    #[error(
        "`{}` is not a valid path for a site file; use an absolute path of letters, digits and `/`, `.`, `_`, `-`",
        .0.escape_debug()
    )]
    File(String),
    /// The value cannot be written to a site file unchanged. It is a secret, so it is not repeated.
    #[error("the key of the web server is not made of letters and digits")]
    Key,
}

/// The name of a host, in small letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName(String);

/// The name of a user who logs in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Person(String);

/// The id of the master at a login provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientId(String);

/// The name of a header of HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderName(String);

/// The address of a provider of logins, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server(String);

/// The key that proves to a master that a request comes from the front. The master's account can write the file that
/// contains it, and the front's site file gets a copy, so it consists of letters and digits only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontKey(String);

/// The absolute path of a certificate or key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFile(String);

macro_rules! words {
    ($($kind:ident),*) => {$(
        impl $kind {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

words!(
    HostName, Person, TlsFile, ClientId, HeaderName, Server, FrontKey
);

impl std::str::FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if text.len() <= 253 && text.split('.').all(good) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        Err(NameError::Host(text.to_owned()))
    }
}

impl std::str::FromStr for Person {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
        if (1..=64).contains(&text.len()) && !text.starts_with('-') && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::Person(text.to_owned()))
    }
}

impl std::str::FromStr for ClientId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=256).contains(&text.len()) && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::Client(text.to_owned()))
    }
}

impl std::str::FromStr for HeaderName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if (1..=64).contains(&text.len()) && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::Header(text.to_owned()))
    }
}

impl std::str::FromStr for Server {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"/.:_-".contains(&byte);
        let rest = text.strip_prefix("https://");
        if rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(good)) {
            return Ok(Self(text.trim_end_matches('/').to_owned()));
        }
        Err(NameError::Server(text.to_owned()))
    }
}

impl std::str::FromStr for FrontKey {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric();
        if (1..=128).contains(&text.len()) && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::Key)
    }
}

impl std::str::FromStr for TlsFile {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
        if text.starts_with('/') && text.bytes().all(good) {
            return Ok(Self(text.to_owned()));
        }
        Err(NameError::File(text.to_owned()))
    }
}

/// Where the front has its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The certificate, with those between it and the authority.
    pub certificate: TlsFile,
    /// Its key.
    pub key: TlsFile,
}

/// A master that is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Which.
    pub reference: InstanceRef,
    /// As what others reach it.
    pub host: HostName,
    /// The master's own port, on the loopback interface.
    pub port: u16,
    /// Reading requires a login.
    pub private: bool,
    /// Where the front authenticates users.
    pub key: Option<FrontKey>,
}

/// How users are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// The front, which has asked for a password.
    Front,
    /// GitHub, as an application of that id.
    GitHub(ClientId),
    /// Google, as an application of that id.
    Google(ClientId),
    /// The GitLab at that address, as an application of that id.
    GitLab(Server, ClientId),
}

/// What the master reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposure {
    /// As what others reach it.
    pub host: HostName,
    /// How people log in.
    pub login: Login,
    /// Reading requires a login.
    pub private: bool,
    /// Who may force and stop builds.
    pub admins: Vec<Person>,
    /// Who else may read.
    pub readers: Vec<Person>,
}

/// `web.toml` of a master.
pub fn web_toml(exposure: &Exposure) -> String {
    let list = |names: &mut dyn Iterator<Item = &Person>| {
        let quoted: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
        quoted.join(", ")
    };
    let Exposure {
        host,
        login,
        private,
        admins,
        readers,
    } = exposure;
    let mut lines = String::new();
    let name = match login {
        Login::Front => "front",
        Login::GitHub(_) => "github",
        Login::Google(_) => "google",
        Login::GitLab(server, _) => {
            lines = format!("server = \"{server}\"\n");
            "gitlab"
        }
    };
    if let Login::GitHub(id) | Login::Google(id) | Login::GitLab(_, id) = login {
        lines = format!("{lines}client-id = \"{id}\"\n");
    }
    format!(
        "# The address of the web pages of this master, and the permissions. Read at every start and reload.\n\
         # Written by `buildbot-conda web expose`, removed by `buildbot-conda web hide`.\n\
         url = \"https://{host}/\"\nlogin = \"{name}\"\n{lines}private = {private}\n\
         # Who may force and stop builds.\nadmins = [{}]\n\
         # Who may read private pages.\nreaders = [{}]\n",
        list(&mut admins.iter()),
        list(&mut admins.iter().chain(readers)),
    )
}

/// The lines with which the starter's `master.cfg` reads this.
pub(crate) fn exposure() -> String {
    let mut context = Context::new();
    context.insert("file", WEB);
    context.insert("secret_file", WEB_SECRET);
    context.insert("user_header", USER_HEADER);
    context.insert("key_header", KEY_HEADER);
    render(EXPOSURE, &context)
}

/// The same for a `master.cfg` without such lines, with instructions where to insert them.
pub fn lines() -> String {
    format!(
        "# Before `c = BuildmasterConfig = {{}}`:\nimport os\nimport secrets\n\ntry:\n    import tomllib\n\
         except ImportError:  # Python before 3.11\n    from pip._vendor import tomli as tomllib\n\n\
         from buildbot.plugins import util\n\nHERE = os.path.dirname(os.path.abspath(__file__))\n\n\n{}\n\
         # At the end, after `buildbotURL` and `www` are set:\nif web:\n    c[\"buildbotURL\"] = web[\"url\"]\n    \
         c[\"www\"].update(exposed(web))\n",
        exposure()
    )
}

/// The site file for Caddy, which obtains a certificate itself if none is given.
pub fn caddy_site(site: &Site, tls: Option<&Tls>, people: &People<'_>) -> String {
    let mut context = common(site);
    context.insert("master", &format!("127.0.0.1:{}", site.port));
    context.insert("certificate", &tls.map(|tls| tls.certificate.as_str()));
    context.insert("key", &tls.map(|tls| tls.key.as_str()));
    let lines = match people {
        People::File { text, .. } => text
            .lines()
            .map(|line| line.replacen(':', " ", 1))
            .collect(),
        People::Header(..) | People::Unknown => Vec::new(),
    };
    context.insert("people", &lines);
    if let People::Header(header, proxy) = people {
        context.insert("header", header.as_str());
        context.insert("proxy", &proxy.to_string());
    } else {
        context.insert("header", &None::<&str>);
    }
    context.insert("user_header", USER_HEADER);
    context.insert("key_header", KEY_HEADER);
    context.insert("secret", &site.key.as_ref().map(FrontKey::as_str));
    render(CADDY, &context)
}

/// What the site files of both have.
fn common(site: &Site) -> Context {
    let mut context = Context::new();
    context.insert("reference", &site.reference.to_string());
    context.insert("host", site.host.as_str());
    context.insert("private", &site.private);
    context.insert("crawlers", CRAWLERS);
    context.insert("lists", LISTS);
    context.insert("restarting", RESTARTING);
    context.insert("stranger", STRANGER);
    context
}

/// How a front authenticates users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum People<'a> {
    /// It does not: the master asks others.
    Unknown,
    /// With passwords, from a file with these lines at this absolute path.
    File {
        /// The path.
        path: &'a str,
        /// The lines.
        text: &'a str,
    },
    /// With a header from another proxy at this address.
    Header(&'a HeaderName, std::net::IpAddr),
}

/// Headers with their values.
type Headers<'a> = &'a [(&'a str, &'a str)];

/// The site file for nginx.
pub fn nginx_site(site: &Site, tls: &Tls, people: &People<'_>) -> String {
    let plain = [
        ("Host", "$host"),
        ("X-Forwarded-For", "$remote_addr"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "$host"),
    ];
    let nobody = [(USER_HEADER, "\"\""), (KEY_HEADER, "\"\"")];
    let zone = format!("buildbot_{}", site.port);
    let person = match people {
        People::Header(..) => format!("${zone}_person"),
        People::File { .. } | People::Unknown => "$remote_user".to_owned(),
    };
    let somebody = [
        (USER_HEADER, person.as_str()),
        (
            KEY_HEADER,
            site.key.as_ref().map_or("\"\"", FrontKey::as_str),
        ),
    ];
    let no_password = [("Authorization", "\"\"")];
    let upgrade = [("Upgrade", "$http_upgrade"), ("Connection", "upgrade")];
    let empty = [("Content-Length", "\"\"")];
    let set = |parts: &[Headers<'_>], indent: &str| {
        let lines = parts.iter().flat_map(|part| part.iter());
        let lines = lines.map(|(name, value)| format!("proxy_set_header {name} {value};"));
        lines.collect::<Vec<_>>().join(&format!("\n{indent}"))
    };
    let (outer, inner) = ("    ", "        ");
    let mut context = common(site);
    context.insert("master", &format!("http://127.0.0.1:{}", site.port));
    context.insert("zone", &zone);
    context.insert("certificate", tls.certificate.as_str());
    context.insert("key", tls.key.as_str());
    let file = match people {
        People::File { path, .. } => Some(*path),
        People::Header(..) | People::Unknown => None,
    };
    context.insert("people", &file);
    if let People::Header(header, proxy) = people {
        let variable = header.as_str().to_ascii_lowercase().replace('-', "_");
        context.insert("header", &format!("$http_{variable}"));
        context.insert("proxy", &proxy.to_string());
    } else {
        context.insert("header", &None::<&str>);
    }
    context.insert("headers", &set(&[&plain, &nobody, &no_password], outer));
    let sets: [(&str, &[Headers<'_>]); 4] = [
        ("websockets", &[&plain, &nobody, &no_password, &upgrade]),
        ("hooks", &[&plain, &nobody]),
        ("logins", &[&plain, &somebody, &no_password]),
        ("questions", &[&plain, &nobody, &no_password, &empty]),
    ];
    for (name, parts) in sets {
        context.insert(format!("headers_of_{name}"), &set(parts, inner));
    }
    let gate = if site.private {
        format!("auth_request /buildbot-conda/may-read;\n{inner}")
    } else {
        String::new()
    };
    context.insert("gate", &gate);
    render(NGINX, &context)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(private: bool) -> Site {
        Site {
            reference: "master@nightly".parse().unwrap(),
            host: "CI.example.org".parse().unwrap(),
            port: 8011,
            private,
            key: Some("SeCrEt".parse().unwrap()),
        }
    }

    fn tls() -> Tls {
        Tls {
            certificate: "/etc/ssl/ci.pem".parse().unwrap(),
            key: "/etc/ssl/private/ci.key".parse().unwrap(),
        }
    }

    #[test]
    fn hosts_people_and_files_are_words_that_a_site_file_has_as_they_are() {
        for good in ["ci", "ci.example.org", "192.0.2.1", "a-b.c"] {
            assert!(good.parse::<HostName>().is_ok(), "{good}");
        }
        for bad in [
            "", ".", "ci.", "-x", "a b", "a;b", "a_b", "a/b", "a:1", "*.x", "é",
        ] {
            assert!(bad.parse::<HostName>().is_err(), "{bad}");
        }
        for good in ["alice", "a.b@example.org", "9_-"] {
            assert!(good.parse::<Person>().is_ok(), "{good}");
        }
        for bad in ["", "a:b", "-a", "a b", "a\"", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<Person>().is_err(), "{bad}");
        }
        for bad in ["", "http://x", "https://", "https://a b", "https://a\""] {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
        assert!("a\"b".parse::<ClientId>().is_err());
        for bad in ["", "a_b", "a b", "$x"] {
            assert!(bad.parse::<HeaderName>().is_err(), "{bad}");
        }
        for bad in ["", "x.pem", "/a b", "/a;", "/a\"", "/$x"] {
            assert!(bad.parse::<TlsFile>().is_err(), "{bad}");
        }
        for bad in ["", "a;", "a\n}", "$a", "a b", "é", &"x".repeat(129)] {
            assert!(bad.parse::<FrontKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_master_reads_names_admins_among_those_who_read() {
        let text = web_toml(&Exposure {
            host: "ci.example.org".parse().unwrap(),
            login: Login::Front,
            private: true,
            admins: vec!["alice".parse().unwrap()],
            readers: vec!["bob".parse().unwrap()],
        });
        assert!(
            text.contains(
                "\nurl = \"https://ci.example.org/\"\nlogin = \"front\"\nprivate = true\n"
            )
        );
        assert!(text.contains("\nadmins = [\"alice\"]\n"), "{text}");
        assert!(
            text.contains("\nreaders = [\"alice\", \"bob\"]\n"),
            "{text}"
        );
        let gitlab = Login::GitLab(
            "https://gitlab.example.org/".parse().unwrap(),
            "id".parse().unwrap(),
        );
        let text = web_toml(&Exposure {
            host: "ci".parse().unwrap(),
            login: gitlab,
            private: false,
            admins: Vec::new(),
            readers: Vec::new(),
        });
        let login =
            "login = \"gitlab\"\nserver = \"https://gitlab.example.org\"\nclient-id = \"id\"\n";
        assert!(text.contains(login), "{text}");
    }

    #[test]
    fn sites_are_the_golden_ones() {
        let file = People::File {
            path: "/etc/buildbot-conda/web/master@nightly.htpasswd",
            text: "alice:$2y$10$hash\n",
        };
        let header: HeaderName = "X-Forwarded-User".parse().unwrap();
        let header = People::Header(&header, "192.0.2.7".parse().unwrap());
        let unknown = People::Unknown;
        let tls = tls();
        for (name, private, people) in [
            ("public", false, &file),
            ("private", true, &file),
            ("provider", true, &unknown),
            ("header", false, &header),
        ] {
            golden(
                &format!("nginx-{name}"),
                &nginx_site(&site(private), &tls, people),
            );
            let tls = Some(&tls).filter(|_| name == "private");
            golden(
                &format!("caddy-{name}"),
                &caddy_site(&site(private), tls, people),
            );
        }
    }

    fn golden(name: &str, text: &str) {
        let expected = match name {
            "nginx-public" => include_str!("../tests/sites/nginx-public"),
            "nginx-private" => include_str!("../tests/sites/nginx-private"),
            "nginx-provider" => include_str!("../tests/sites/nginx-provider"),
            "caddy-public" => include_str!("../tests/sites/caddy-public"),
            "nginx-header" => include_str!("../tests/sites/nginx-header"),
            "caddy-header" => include_str!("../tests/sites/caddy-header"),
            "caddy-private" => include_str!("../tests/sites/caddy-private"),
            _ => include_str!("../tests/sites/caddy-provider"),
        };
        assert_eq!(text, expected, "{name} is now:\n{text}");
    }
}
