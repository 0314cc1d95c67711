//! What a new master is, as a function of what was asked for and what is there: nothing is looked at or done here.

use std::collections::BTreeSet;

use anyhow::bail;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::starter::{LOGIN_CREDENTIAL, MasterDatabase, MasterStart};

use crate::create::decision::Secret;

/// Upstream's own port of the web pages.
const WEB_PORT: u16 = 8010;
/// How many ports from that one on are tried.
const PORTS: u16 = 100;

/// What was asked for.
#[derive(Debug)]
pub(in crate::create) struct Wish {
    pub(in crate::create) reference: InstanceRef,
    pub(in crate::create) web_port: Option<u16>,
    pub(in crate::create) worker_port: Option<u16>,
    pub(in crate::create) has_password: bool,
}

impl Wish {
    /// Ports that the decision may ask about.
    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        let given = self.web_port.into_iter().chain(self.worker_port);
        given.chain(WEB_PORT..WEB_PORT + PORTS)
    }
}

/// What is there.
#[derive(Debug, Default)]
pub(in crate::create) struct Facts {
    /// Ports that nobody can listen on any more, and those of masters that are stopped at the moment.
    pub(in crate::create) taken_ports: BTreeSet<u16>,
    /// Files in the credentials directory.
    pub(in crate::create) credentials: BTreeSet<String>,
}

/// What is going to be made.
#[derive(Debug)]
pub(in crate::create) struct Decision {
    pub(in crate::create) start: MasterStart,
    /// The password of the web pages.
    pub(in crate::create) login: Secret,
    /// The password of the first worker.
    pub(in crate::create) worker: Secret,
}

/// Decides all of it.
///
/// # Errors
///
/// What cannot be.
pub(in crate::create) fn decide(wish: &Wish, facts: &Facts) -> anyhow::Result<Decision> {
    let is_free = |port: u16| !facts.taken_ports.contains(&port);
    for port in wish.web_port.into_iter().chain(wish.worker_port) {
        if !is_free(port) {
            bail!(
                "the port {port} is in use\nhint: choose another one, or omit it to use a free port"
            );
        }
    }
    if let (Some(web), Some(worker)) = (wish.web_port, wish.worker_port)
        && web == worker
    {
        bail!(
            "the port {web} cannot be used for both web pages and workers\nhint: omit `--worker-port` to use a socket"
        );
    }
    let is_for_web = |port: &u16| is_free(*port) && wish.worker_port != Some(*port);
    let ports = || WEB_PORT..WEB_PORT + PORTS;
    let Some(web_port) = wish.web_port.or_else(|| ports().find(is_for_web)) else {
        bail!(
            "no port from {WEB_PORT} to {} is free",
            WEB_PORT + PORTS - 1
        );
    };
    let [login, worker] = match &wish.reference.name {
        None => [LOGIN_CREDENTIAL.to_owned(), "password-of-worker".to_owned()],
        Some(name) => [
            format!("{LOGIN_CREDENTIAL}-{name}"),
            format!("password-of-first-worker-{name}"),
        ],
    };
    let is_there = |file: &String| facts.credentials.contains(file);
    let worker = match (wish.has_password, is_there(&worker)) {
        (true, true) => {
            bail!("the credential `{worker}` already exists\nhint: omit the password to use it")
        }
        (true, false) => Secret::Given(worker),
        (false, true) => Secret::Present(worker),
        (false, false) => Secret::Generated(worker),
    };
    Ok(Decision {
        start: MasterStart {
            reference: wish.reference.clone(),
            web_port,
            worker_port: wish.worker_port,
            database: MasterDatabase::default(),
        },
        login: if is_there(&login) {
            Secret::Present(login)
        } else {
            Secret::Generated(login)
        },
        worker,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(reference: &str) -> Wish {
        Wish {
            reference: reference.parse().unwrap(),
            web_port: None,
            worker_port: None,
            has_password: false,
        }
    }

    fn facts(taken_ports: &[u16], credentials: &[&str]) -> Facts {
        Facts {
            taken_ports: taken_ports.iter().copied().collect(),
            credentials: credentials.iter().map(|file| (*file).to_owned()).collect(),
        }
    }

    /// `web port, worker port`, or the first line of the refusal.
    fn ports(web: Option<u16>, worker: Option<u16>, taken: &[u16]) -> String {
        let wish = Wish {
            web_port: web,
            worker_port: worker,
            ..wish("master")
        };
        match decide(&wish, &facts(taken, &[])) {
            Ok(Decision { start, .. }) => format!("{}, {:?}", start.web_port, start.worker_port),
            Err(error) => error.to_string().lines().next().unwrap().to_owned(),
        }
    }

    /// Port for the pages, port for workers, taken ports, and what is decided.
    type Case<'a> = (Option<u16>, Option<u16>, &'a [u16], &'a str);

    #[test]
    fn a_port_is_one_that_nobody_has() {
        let all: Vec<u16> = (WEB_PORT..WEB_PORT + PORTS).collect();
        let table: [Case<'_>; 9] = [
            (None, None, &[], "8010, None"),
            (None, None, &[8010, 8012], "8011, None"),
            (None, None, &all, "no port from 8010 to 8109 is free"),
            (Some(80), None, &all, "80, None"),
            (Some(8010), None, &[8010], "the port 8010 is in use"),
            (None, Some(9989), &[8010], "8011, Some(9989)"),
            (None, Some(9989), &[9989], "the port 9989 is in use"),
            (None, Some(8010), &[], "8011, Some(8010)"),
            (
                Some(9000),
                Some(9000),
                &[],
                "the port 9000 cannot be used for both web pages and workers",
            ),
        ];
        for (web, worker, taken, expected) in table {
            assert_eq!(ports(web, worker, taken), expected, "{web:?} {worker:?}");
        }
    }

    #[test]
    fn a_password_is_the_one_that_is_there_or_given_or_else_a_new_one() {
        let secrets = |reference: &str, has_password, credentials: &[&str]| {
            let wish = Wish {
                has_password,
                ..wish(reference)
            };
            match decide(&wish, &facts(&[], credentials)) {
                Ok(Decision { login, worker, .. }) => format!("{login:?}, {worker:?}"),
                Err(error) => error.to_string().lines().next().unwrap().to_owned(),
            }
        };
        let named = "password-of-first-worker-night";
        let table: [(&str, bool, &[&str], &str); 6] = [
            (
                "master",
                false,
                &[],
                r#"Generated("web-password"), Generated("password-of-worker")"#,
            ),
            (
                "master",
                true,
                &["web-password"],
                r#"Present("web-password"), Given("password-of-worker")"#,
            ),
            (
                "master",
                false,
                &["password-of-worker"],
                r#"Generated("web-password"), Present("password-of-worker")"#,
            ),
            (
                "master",
                true,
                &["password-of-worker"],
                "the credential `password-of-worker` already exists",
            ),
            (
                "master@night",
                false,
                &["web-password", "password-of-worker"],
                r#"Generated("web-password-night"), Generated("password-of-first-worker-night")"#,
            ),
            (
                "master@night",
                true,
                &[named],
                "the credential `password-of-first-worker-night` already exists",
            ),
        ];
        for (reference, has_password, credentials, expected) in table {
            assert_eq!(
                secrets(reference, has_password, credentials),
                expected,
                "{reference} {credentials:?}"
            );
        }
    }
}
