//! The line with which a worker on another host joins a master. It contains the name of the worker, the address of the
//! master, and the authority that identifies it. It is a secret, because it contains the worker's password.
//!
//! `bbworker://NAME:PASSWORD@HOST:PORT/AUTHORITY?slots=N&until=SECONDS`, where AUTHORITY is the hexadecimal SHA-256 of
//! the certificate of the master's authority, and SECONDS is the time since 1970 at which the invitation expires. It
//! has ten digits, so that a truncated line is detected. `slots` may be left out.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::starter::{Address, MOST_SLOTS, WorkerName};

const SCHEME: &str = "bbworker";
/// Digits of seconds since 1970 until the year 2286.
const DIGITS: usize = 10;
/// Longest password, in characters; ours have 32.
const LONGEST_PASSWORD: usize = 128;

/// The SHA-256 of a certificate in DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(String);

/// The content of the line.
#[derive(Clone, PartialEq, Eq)]
pub struct Invitation {
    /// Where the master accepts workers with TLS.
    pub address: Address,
    /// The worker's name at the master.
    pub worker: WorkerName,
    /// The worker's password.
    pub password: String,
    /// As many workers in one process; without it one, for as many builds as there are.
    pub slots: Option<u32>,
    /// The certificate of the authority that the master's own certificate comes from.
    pub authority: Fingerprint,
    /// When it ends, in seconds since 1970.
    pub until: u64,
}

/// A line that is not an invitation; the error does not contain the line, which may include a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InvitationError {
    /// Something else.
    #[error("this is not an invitation: it does not begin with `bbworker://`")]
    Other,
    /// One with something in it that only another version understands.
    #[error(
        "the invitation was created by another version of buildbot-conda\n\
         hint: install the version of the master's host on this host"
    )]
    Version,
    /// One that was cut or changed.
    #[error("the invitation is damaged or incomplete: {0}")]
    Damaged(&'static str),
}

impl Fingerprint {
    /// The fingerprint in hexadecimal.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = InvitationError;

    /// Colons between the bytes, as openssl(1) prints them, are left out.
    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let digits = text.replace(':', "").to_ascii_lowercase();
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(digits))
        } else {
            Err(InvitationError::Damaged("invalid SHA-256 of the authority"))
        }
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Invitation of {} to {}",
            self.worker.as_str(),
            self.address
        )
    }
}

impl Invitation {
    /// The line itself. The type does not implement `Display`, so no message contains the line by mistake.
    pub fn line(&self) -> String {
        let slots = self
            .slots
            .map_or_else(String::new, |slots| format!("slots={slots}&"));
        format!(
            "{SCHEME}://{}:{}@{}/{}?{slots}until={}",
            self.worker.as_str(),
            self.password,
            self.address,
            self.authority.0,
            self.until
        )
    }
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        use InvitationError::{Damaged, Other, Version};
        let (scheme, rest) = text.trim().split_once("://").ok_or(Other)?;
        match scheme.strip_prefix(SCHEME).ok_or(Other)? {
            "" => {}
            _ => return Err(Version),
        }
        let (account, rest) = rest.split_once('@').ok_or(Damaged("missing `@`"))?;
        let (worker, password) = account.split_once(':').ok_or(Damaged("invalid password"))?;
        let (address, rest) = rest.split_once('/').ok_or(Damaged("missing authority"))?;
        let (authority, rest) = rest.split_once('?').ok_or(Damaged("missing end"))?;
        let (slots, rest) = match rest.strip_prefix("slots=") {
            Some(rest) => {
                let (slots, rest) = rest.split_once('&').ok_or(Damaged("missing end"))?;
                let slots = slots.parse().ok();
                let slots = slots.filter(|slots| (1..=MOST_SLOTS).contains(slots));
                (Some(slots.ok_or(Damaged("invalid number of slots"))?), rest)
            }
            None => (None, rest),
        };
        let until = match rest.strip_prefix("until=") {
            Some(until) => until,
            None if rest.contains("&until=") => return Err(Version),
            None => return Err(Damaged("missing end")),
        };
        let (until, more) = until
            .split_at_checked(DIGITS)
            .ok_or(Damaged("missing end"))?;
        if more.starts_with('&') {
            return Err(Version);
        }
        if !more.is_empty() {
            return Err(Damaged("unexpected text after the end"));
        }
        let is_plain = password.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if password.is_empty() || password.len() > LONGEST_PASSWORD || !is_plain {
            return Err(Damaged("invalid password"));
        }
        Ok(Self {
            address: address.parse().map_err(|_| Damaged("invalid address"))?,
            worker: worker.parse().map_err(|_| Damaged("invalid worker name"))?,
            password: password.to_owned(),
            slots,
            authority: authority.parse()?,
            until: until.parse().map_err(|_| Damaged("missing end"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> String {
        let authority = "ab".repeat(32);
        format!("bbworker://gpu:Se0ret@ci.example.org:9989/{authority}?until=1764460800")
    }

    #[test]
    fn a_line_is_read_back_as_it_was_written() {
        for line in [
            line(),
            line().replace("ci.example.org", "[2001:db8::1]"),
            line().replace("gpu", "g_p-u"),
            line().replace("until", "slots=12&until"),
        ] {
            let invitation: Invitation = format!(" {line}\n").parse().unwrap();
            assert_eq!(invitation.line(), line);
        }
    }

    #[test]
    fn what_was_cut_or_changed_is_refused_without_its_password() {
        let whole = line();
        let cut = (0..whole.len()).map(|length| whole[..length].to_owned());
        let changed = [
            whole.replace("Se0ret", ""),
            whole.replace("Se0ret", "a b"),
            whole.replace("gpu", "9"),
            whole.replace(":9989", ":0"),
            whole.replace("ab", "ax"),
            whole.replace("until=", "until=x"),
            whole.replace("until", "slots=0&until"),
            whole.replace("until", "slots=9999&until"),
            format!("{whole} more"),
        ];
        for line in cut.chain(changed) {
            let refused = line.parse::<Invitation>().unwrap_err();
            assert!(!refused.to_string().contains("Se0ret"), "{line}");
        }
        for other in [
            whole.replace("bbworker", "bbworker2"),
            format!("{whole}&more=1"),
            whole.replace("until", "more=1&until"),
        ] {
            let refused = other.parse::<Invitation>().unwrap_err();
            assert_eq!(refused, InvitationError::Version, "{other}");
        }
        let invitation: Invitation = whole.parse().unwrap();
        assert!(!format!("{invitation:?}").contains("Se0ret"));
    }

    #[test]
    fn a_fingerprint_may_have_colons_and_capitals() {
        let text = vec!["AB"; 32].join(":");
        let fingerprint: Fingerprint = text.parse().unwrap();
        assert_eq!(fingerprint.as_str(), "ab".repeat(32));
        assert!("ab".parse::<Fingerprint>().is_err());
    }
}
