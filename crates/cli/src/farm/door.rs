//! A master that workers of other hosts reach: the port, and the certificate for it, as the runner reads them from the
//! master's directory (`network.toml`). The authority is this host's, and its key is root's alone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use buildbot_conda_core::invitation::Fingerprint;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::starter::{self, Address, NETWORK, TLS};
use serde::{Deserialize, Serialize};

use super::invitations::now;
use super::openssl::{self, CERTIFICATE_DAYS, Pair};
use crate::inside::put::{Put, Text};
use crate::plan::{self, FileStep, Step, UserStep};
use crate::system::context::Context;
use crate::system::record::{RECORDS, network_file};
use crate::system::values::{Identity, Mode};

/// Buildbot's own port for workers.
pub(super) const PORT: u16 = 9989;
/// The authority of this host: mode 0700, root.
const AUTHORITY: &str = "/etc/buildbot-conda/authority";
/// A certificate is renewed when it is good for less than this, in seconds.
const RENEWAL: u64 = 30 * DAY;
const DAY: u64 = 24 * 60 * 60;

/// What root knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Door {
    pub(super) port: u16,
    /// Host names and addresses that the certificate is for; the first is in invitations.
    pub(super) names: Vec<String>,
    /// When the certificate ends, in seconds since 1970. The files of certificate and key are named by it.
    pub(super) until: u64,
    /// The authority that it comes from; a record of before does not say.
    #[serde(default)]
    pub(super) authority: Option<String>,
}

impl Door {
    pub(super) fn read(reference: &InstanceRef, context: &Context) -> Option<Self> {
        let text = fs::read_to_string(network_file(reference, context)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Whether its certificate is to be renewed: it ends soon, or comes from another authority than this one.
    pub(super) fn is_due(&self, authority: &Authority) -> bool {
        now() + RENEWAL > self.until
            || self.authority.as_deref() != Some(authority.fingerprint.as_str())
    }

    /// A further certificate for the same names and port. The name of its files is a new one.
    pub(super) fn renewed(&self) -> Self {
        Self {
            until: (now() + u64::from(CERTIFICATE_DAYS) * DAY).max(self.until + 1),
            ..self.clone()
        }
    }

    /// Where workers find it, by `host` or its first name.
    pub(super) fn address(&self, host: Option<&str>) -> anyhow::Result<Address> {
        let host = host.unwrap_or(&self.names[0]);
        let text = if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        };
        Ok(text.parse()?)
    }

    fn text(&self) -> String {
        starter::network(self.port, self.until)
    }

    fn files(&self) -> [PathBuf; 2] {
        ["key", "pem"].map(|kind| Path::new(TLS).join(format!("{}.{kind}", self.until)))
    }
}

/// A door of a new master, for workers that reach it as `name`, or as this host is called.
pub(super) fn new(name: Option<&str>, port: u16, context: &Context) -> Door {
    let mut names: Vec<String> = name.map(str::to_owned).into_iter().collect();
    let mut known: BTreeSet<String> = names.iter().cloned().collect();
    for name in own_names(context) {
        if known.insert(name.clone()) {
            names.push(name);
        }
    }
    let until = now() + u64::from(CERTIFICATE_DAYS) * DAY;
    Door {
        port,
        names,
        until,
        authority: None,
    }
}

/// What this host is called, the full name first, and its addresses; nothing that means another host on that.
fn own_names(context: &Context) -> Vec<String> {
    let mut names = Vec::new();
    if !context.is_elsewhere() {
        for option in ["--fqdn", "--short", "--all-ip-addresses"] {
            let output = Command::new("hostname").arg(option).output();
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let text = text.unwrap_or_default();
            names.extend(text.split_whitespace().map(str::to_owned));
        }
    }
    let plain = |name: &String| {
        !name.is_empty()
            && !name.starts_with("fe80:")
            && !name.starts_with("127.")
            && !name.starts_with("localhost")
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte))
    };
    names.retain(plain);
    if names.is_empty() {
        names.push("localhost".to_owned());
    }
    names
}

/// What signs the certificates of this host's masters.
pub(super) struct Authority {
    pair: Pair,
    pub(super) fingerprint: Fingerprint,
}

impl Authority {
    /// The one of this host, if it has one.
    pub(super) fn read(context: &Context) -> anyhow::Result<Option<Self>> {
        let [key, certificate] = authority_files(context);
        if !key.exists() {
            return Ok(None);
        }
        let read = |path: &Path| {
            fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
        };
        Self::of(Pair {
            key: read(&key)?,
            certificate: read(&certificate)?,
        })
        .map(Some)
    }

    fn of(pair: Pair) -> anyhow::Result<Self> {
        let fingerprint = openssl::fingerprint(&pair.certificate)?;
        Ok(Self { pair, fingerprint })
    }

    /// The same, and the steps that make it where there is none.
    pub(super) fn read_or_make(context: &Context) -> anyhow::Result<(Self, Vec<Step>)> {
        if let Some(found) = Self::read(context)? {
            return Ok((found, Vec::new()));
        }
        let names = own_names(context);
        let new = Self::of(openssl::make_authority(&names[0])?)?;
        let mut steps = Vec::new();
        plan::directory(&context.path(AUTHORITY), 0o700, &mut steps);
        let [key, certificate] = authority_files(context);
        for (path, text, secret) in [
            (certificate, &new.pair.certificate, false),
            (key, &new.pair.key, true),
        ] {
            let write = FileStep::Write {
                path,
                text: text.clone(),
                mode: Mode::new(if secret { 0o600 } else { 0o644 }),
                secret,
            };
            steps.push(write.into());
        }
        Ok((new, steps))
    }
}

/// Its key and its certificate.
fn authority_files(context: &Context) -> [PathBuf; 2] {
    let directory = context.path(AUTHORITY);
    ["key.pem", "certificate.pem"].map(|name| directory.join(name))
}

/// The steps from one door of `master` to another, the reload left out. Certificate and key are there under new names
/// before `network.toml` names them, so that a rollback finds the old ones. The old ones go in the second list.
pub(super) fn change(
    master: &Instance,
    before: Option<&Door>,
    after: &Door,
    authority: &Authority,
    context: &Context,
) -> anyhow::Result<(Vec<Step>, Vec<Step>)> {
    let after = &Door {
        authority: Some(authority.fingerprint.as_str().to_owned()),
        ..after.clone()
    };
    let pair = openssl::make_certificate(&after.names, after.until, &authority.pair)?;
    let put = |path: PathBuf, before: Option<String>, after: Option<String>| -> Step {
        let text = |text: String| Text {
            text,
            mode: Mode::new(0o600),
        };
        let put = Put {
            identity: Identity::of(master),
            directory: context.path(master.directory.as_str()),
            path,
            before: before.map(text),
            after: after.map(text),
            keep: false,
        };
        UserStep::Put(put).into()
    };
    let [key, certificate] = after.files();
    let network = before.map(Door::text);
    let mut steps = vec![
        put(key, None, Some(pair.key)),
        put(certificate, None, Some(pair.certificate)),
        put(NETWORK.into(), network, Some(after.text())),
    ];
    plan::directory(&context.path(RECORDS), 0o755, &mut steps);
    let note = FileStep::Write {
        path: network_file(&master.reference, context),
        text: serde_json::to_string(after).context("write a record")? + "\n",
        mode: Mode::new(0o644),
        secret: false,
    };
    steps.push(note.into());
    let old = before.map(Door::files).into_iter().flatten();
    Ok((steps, old.map(|path| put(path, None, None)).collect()))
}
