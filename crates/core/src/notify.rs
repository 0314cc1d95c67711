//! Where a failure of an instance is reported to: `mail:ADDRESS`, an address of a web hook, or a file with one.

use std::fmt;
use std::str::FromStr;

use crate::paths;
use crate::values::{self, AbsolutePath, ValueError};

/// The destination of reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notify {
    /// No reports.
    Off,
    /// A mail address, without anything that a mail program could interpret as an option.
    Mail(String),
    /// A web hook whose address is not secret.
    Hook(Hook),
    /// The file with the address of a web hook; the address is secret if everyone who knows it can post.
    HookFile(AbsolutePath),
}

/// The address of a web hook, `https://HOST[:PORT]/...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// The name of the host.
    pub host: String,
    /// 443 unless the address names another.
    pub port: u16,
    /// Path and query, as in a request.
    pub target: String,
}

const HINT: &str = "write `mail:ops@example.org`, `https://HOST/PATH`, `hook:FILE` with a file below \
                    /etc/buildbot-conda/credentials that contains such an address, or `off`";

fn refused(reason: &str) -> ValueError {
    ValueError {
        reason: reason.to_owned(),
        hint: Some(HINT.to_owned()),
    }
}

impl FromStr for Notify {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(address) = text.strip_prefix("mail:") {
            return mail(address);
        }
        if let Some(file) = text.strip_prefix("hook:") {
            return values::credential_file(paths::CREDENTIALS, file).map(Self::HookFile);
        }
        if text.starts_with("https://") {
            return text.parse().map(Self::Hook);
        }
        Err(refused(if text.starts_with("http://") {
            "reports are sent with TLS only"
        } else {
            "unknown destination"
        }))
    }
}

fn mail(address: &str) -> Result<Notify, ValueError> {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "._%+-".contains(character);
    let mut parts = address.split('@');
    let good =
        parts.all(|part| !part.is_empty() && !part.starts_with('-') && part.chars().all(is_plain));
    if good && address.matches('@').count() <= 1 && address.len() <= 254 {
        return Ok(Notify::Mail(address.to_owned()));
    }
    Err(refused("the mail address is not of the form `NAME@HOST`"))
}

impl FromStr for Hook {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let rest = text
            .strip_prefix("https://")
            .ok_or_else(|| refused("the address of a web hook must begin with `https://`"))?;
        let (authority, target) = match rest.find(['/', '?']) {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
        let is_part =
            |character: char| character.is_ascii_alphanumeric() || "-.".contains(character);
        if host.is_empty() || host.starts_with('-') || !host.chars().all(is_part) {
            return Err(refused("the web hook has no valid host name"));
        }
        let port = port.parse().ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| refused("the web hook has no valid port"))?;
        let is_visible = |character: char| character.is_ascii_graphic() && character != '#';
        if !target.chars().all(is_visible) || target.len() > 2000 {
            return Err(refused(
                "the path of the web hook contains invalid characters",
            ));
        }
        let slash = if target.starts_with('?') { "/" } else { "" };
        Ok(Self {
            host: host.to_owned(),
            port,
            target: format!("{slash}{target}"),
        })
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => formatter.write_str("off"),
            Self::Mail(address) => write!(formatter, "mail:{address}"),
            Self::Hook(Hook { host, port, target }) => match port {
                443 => write!(formatter, "https://{host}{target}"),
                port => write!(formatter, "https://{host}:{port}{target}"),
            },
            Self::HookFile(file) => write!(formatter, "hook:{file}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_written_as_they_are_read() {
        for (text, shown) in [
            ("off", "off"),
            ("mail:ops@example.org", "mail:ops@example.org"),
            ("mail:root", "mail:root"),
            (
                "https://hooks.example.org/a/b?c=d",
                "https://hooks.example.org/a/b?c=d",
            ),
            (
                "https://hooks.example.org:8443",
                "https://hooks.example.org:8443/",
            ),
            ("https://h?x", "https://h/?x"),
            ("hook:chat", "hook:/etc/buildbot-conda/credentials/chat"),
            ("hook:/srv/hook", "hook:/srv/hook"),
        ] {
            let notify: Notify = text.parse().unwrap();
            assert_eq!(notify.to_string(), shown);
            assert_eq!(shown.parse::<Notify>().as_ref(), Ok(&notify));
        }
    }

    #[test]
    fn what_a_program_could_take_for_something_else_is_refused() {
        for text in [
            "",
            "ops@example.org",
            "mail:",
            "mail:-f@x",
            "mail:a@-x",
            "mail:a@b@c",
            "mail:a b@c",
            "mail:a@b\n",
            "mail:a@b,c@d",
            "mail:ä@b",
            "http://h/",
            "https://",
            "https:///x",
            "https://-h/",
            "https://u:p@h/",
            "https://h:0/",
            "https://h:x/",
            "https://h:70000/",
            "https://h/a b",
            "https://h/a\r\nX: y",
            "https://h/é",
            "https://h/#a",
            "https://[::1]/",
            "ftp://h/",
            "hook:",
            "hook:../x",
        ] {
            assert!(text.parse::<Notify>().is_err(), "{text:?} was taken");
        }
    }
}
