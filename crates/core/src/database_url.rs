//! The URL of a `PostgreSQL` database, as `SQLAlchemy` reads it: checked, with its driver spelled out, and shown without
//! its password.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Drivers that Buildbot can use, with the name of their package on conda-forge. asyncpg and others wait in a way that
/// Buildbot does not.
const DRIVERS: [&str; 2] = ["psycopg2", "psycopg"];
/// What a URL without a driver means: what it means to `SQLAlchemy` depends on its version.
const USUAL_DRIVER: &str = DRIVERS[0];
/// Bytes of a URL, at most.
const LONGEST: usize = 1000;

/// The URL of a `PostgreSQL` database. Its `Debug` has no password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl {
    driver: &'static str,
    /// From `//` on.
    rest: String,
    /// `postgresql://HOST/DATABASE`.
    place: String,
    has_password: bool,
}

/// A text that is no such URL. The messages do not repeat the text, which may have a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Another kind of database, or none.
    #[error(
        "this is not the URL of a PostgreSQL database; write `postgresql://USER@HOST/DATABASE`"
    )]
    Scheme,
    /// A driver that Buildbot cannot use.
    #[error(
        "Buildbot cannot use this driver; write `postgresql+psycopg2://` or `postgresql+psycopg://`"
    )]
    Driver,
    /// Characters that have to be encoded.
    #[error("the URL contains a space or another character that has to be percent-encoded")]
    Characters,
    /// Longer than any that is meant.
    #[error("the URL is longer than {LONGEST} bytes")]
    Length,
    /// No name of a database.
    #[error("the URL does not name a database; write `postgresql://USER@HOST/DATABASE`")]
    NoDatabase,
}

impl DatabaseUrl {
    /// A database of this host, which its account reaches by its socket and without a password.
    pub fn local(database: &str, port: u16) -> Self {
        let port = if port == 5432 {
            String::new()
        } else {
            format!("&port={port}")
        };
        Self {
            driver: USUAL_DRIVER,
            rest: format!("///{database}?host=/run/postgresql{port}"),
            place: format!("postgresql:///{database}"),
            has_password: false,
        }
    }

    /// The Python module of its driver, which is the name of its package as well.
    pub fn driver(&self) -> &'static str {
        self.driver
    }

    /// The URL with everything, a password included.
    pub fn secret(&self) -> String {
        format!("postgresql+{}:{}", self.driver, self.rest)
    }

    /// The URL, unless it is a secret.
    pub fn public(&self) -> Option<String> {
        (!self.has_password).then(|| self.secret())
    }

    /// Where the database is as our own Python tells it of a configuration: without a port.
    pub fn place_without_port(&self) -> String {
        let (host, database) = self.place["postgresql://".len()..]
            .rsplit_once('/')
            .expect("a place has a slash before the database");
        let host = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        format!("postgresql://{host}/{database}")
    }

    /// Where the database is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }
}

impl FromStr for DatabaseUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once(':').ok_or(UrlError::Scheme)?;
        let (family, driver) = match scheme.split_once('+') {
            None => (scheme, USUAL_DRIVER),
            Some((family, driver)) => (family, driver),
        };
        if !matches!(family, "postgresql" | "postgres") || !rest.starts_with("//") {
            return Err(UrlError::Scheme);
        }
        let mut drivers = DRIVERS.into_iter();
        let driver = drivers
            .find(|known| *known == driver)
            .ok_or(UrlError::Driver)?;
        let is_bad = |byte: u8| !byte.is_ascii_graphic() || b"\"'\\`<>".contains(&byte);
        if text.len() > LONGEST {
            return Err(UrlError::Length);
        }
        if text.bytes().any(is_bad) {
            return Err(UrlError::Characters);
        }
        let (address, query) = match rest[2..].split_once('?') {
            None => (&rest[2..], ""),
            Some((address, query)) => (address, query),
        };
        let (authority, database) = address.split_once('/').unwrap_or((address, ""));
        if database.is_empty() {
            return Err(UrlError::NoDatabase);
        }
        let (account, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        // Those of a password that is not encoded would move where it ends.
        if account.contains('@') || database.contains(['/', '@', ':']) {
            return Err(UrlError::Characters);
        }
        let mut words = query.split('&').filter_map(|word| word.split_once('='));
        // SQLAlchemy decodes keys as well, so one that is encoded may be any.
        let is_secret =
            words.any(|(key, _)| matches!(key, "password" | "sslpassword") || key.contains('%'));
        Ok(Self {
            driver,
            rest: rest.to_owned(),
            place: format!("postgresql://{host}/{database}"),
            has_password: is_secret || account.contains(':'),
        })
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, the URL in full, its place, and whether it has a password.
    type Case<'a> = (&'a str, &'a str, &'a str, bool);

    #[test]
    fn a_driver_is_always_spelled_out_and_a_password_is_noticed() {
        let table: [Case<'_>; 7] = [
            (
                "postgresql://db/b",
                "postgresql+psycopg2://db/b",
                "postgresql://db/b",
                false,
            ),
            (
                "postgres://bb@db:5433/b",
                "postgresql+psycopg2://bb@db:5433/b",
                "postgresql://db:5433/b",
                false,
            ),
            (
                "postgresql+psycopg://bb:x%40@db/b?sslmode=require",
                "postgresql+psycopg://bb:x%40@db/b?sslmode=require",
                "postgresql://db/b",
                true,
            ),
            (
                "postgresql:///b?host=/run/postgresql",
                "postgresql+psycopg2:///b?host=/run/postgresql",
                "postgresql:///b",
                false,
            ),
            (
                "postgresql:///b?user=bb&password=x",
                "postgresql+psycopg2:///b?user=bb&password=x",
                "postgresql:///b",
                true,
            ),
            (
                "postgresql:///b?p%61ssword=x",
                "postgresql+psycopg2:///b?p%61ssword=x",
                "postgresql:///b",
                true,
            ),
            (
                "postgresql://[::1]/b",
                "postgresql+psycopg2://[::1]/b",
                "postgresql://[::1]/b",
                false,
            ),
        ];
        for (text, full, place, is_secret) in table {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url.secret(), full);
            assert_eq!(url.place(), place);
            assert_eq!(url.public().is_none(), is_secret, "{text}");
            let bare = place.replace(":5433", "").replace("[::1]", "::1");
            assert_eq!(url.place_without_port(), bare);
            assert_eq!(format!("{url:?}"), place);
        }
    }

    #[test]
    fn other_databases_and_drivers_are_refused_without_repeating_the_text() {
        let long = format!("postgresql://db/{}", "b".repeat(LONGEST));
        for (text, error) in [
            (long.as_str(), UrlError::Length),
            ("", UrlError::Scheme),
            ("mysql://bb:secret@db/b", UrlError::Scheme),
            ("sqlite:///state.sqlite", UrlError::Scheme),
            ("postgresql:b", UrlError::Scheme),
            ("postgresql+asyncpg://bb:secret@db/b", UrlError::Driver),
            ("postgresql+pg8000://db/b", UrlError::Driver),
            ("postgresql://bb:secret@db", UrlError::NoDatabase),
            ("postgresql://db/", UrlError::NoDatabase),
            ("postgresql://db/b c", UrlError::Characters),
            ("postgresql://db/b\"", UrlError::Characters),
            ("postgresql://bb:secret@x@db/b", UrlError::Characters),
            ("postgresql://bb:secret/x@db/b", UrlError::Characters),
        ] {
            let refused = text.parse::<DatabaseUrl>().unwrap_err();
            assert_eq!(refused, error, "{text}");
            assert!(!refused.to_string().contains("secret"));
        }
    }

    #[test]
    fn a_database_of_this_host_is_reached_by_its_socket() {
        for (port, url) in [
            (
                5432,
                "postgresql+psycopg2:///buildbot_master?host=/run/postgresql",
            ),
            (
                5433,
                "postgresql+psycopg2:///buildbot_master?host=/run/postgresql&port=5433",
            ),
        ] {
            let local = DatabaseUrl::local("buildbot_master", port);
            assert_eq!(local.public().as_deref(), Some(url));
            assert_eq!(url.parse(), Ok(local));
        }
    }
}
