//! The database of a master on its way to another one, looked at and copied as the service user, with the unit's sandbox
//! and credentials: this program runs once more for it, as `service transfer`.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::database::Master;
use crate::database::facts::Facts;
use crate::database::transfer::{self, Copied};
use crate::output;
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[arg(value_name = "REF")]
    reference: InstanceRef,
}

/// What is wanted.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Request {
    /// See [`Whereabouts`]; with true, whether it can be copied.
    Look(bool),
    /// To this URL, which is a secret.
    Copy(String),
    /// Nothing is copied any more, and with true, the copy in the directory goes.
    Remove(bool),
}

/// Where a master's builds are, as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Whereabouts {
    pub(crate) kind: ForeignText,
    /// For people, without a password.
    pub(crate) place: ForeignText,
    /// The database that a starter has in the directory, as the configuration would name it.
    pub(crate) file: ForeignText,
    /// Whether that is there.
    pub(crate) has_file: bool,
    /// As [`Facts`] has it.
    pub(crate) progress: Option<u64>,
}

/// Has the service user look at the database; with `to_copy`, a failure says why it cannot be copied.
pub(crate) fn inspect(instance: &Instance, to_copy: bool) -> anyhow::Result<Whereabouts> {
    call(instance, &Request::Look(to_copy))
}

/// Has the service user copy it.
pub(crate) fn copy(instance: &Instance, url: &str) -> anyhow::Result<Copied> {
    call(instance, &Request::Copy(url.to_owned()))
}

/// Has the service user wait for the end of a copy, and remove one in the directory.
pub(crate) fn remove(instance: &Instance, is_file: bool) -> anyhow::Result<()> {
    call::<()>(instance, &Request::Remove(is_file))
}

fn call<T: for<'de> Deserialize<'de>>(instance: &Instance, request: &Request) -> anyhow::Result<T> {
    let reference = instance.reference.to_string();
    let words: [OsString; 3] = ["service".into(), transfer::VERB.into(), reference.into()];
    let input = serde_json::to_string(request).context("write a request")?;
    let limit = match request {
        Request::Copy(_) => as_user::LONG,
        // Root holds the lock of all changes meanwhile.
        Request::Look(_) | Request::Remove(_) => as_user::FILES,
    };
    let answer = as_user::obtain_within(limit, instance, &words, &input)?;
    // It ran code of the service user, and may say anything: only what is understood is used.
    serde_json::from_str(&answer).context("read an answer")
}

/// The part that runs as the service user.
pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let request = serde_json::from_reader(std::io::stdin()).context("read a request")?;
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let master = Master::new(instance, context)?;
    let answer = match request {
        Request::Look(to_copy) => {
            let facts = Facts::ask(&master, None, false)?;
            if to_copy {
                transfer::ensure_possible(&facts)?;
            }
            let directory = master.directory();
            let real = directory
                .canonicalize()
                .with_context(|| format!("read `{}`", directory.display()))?;
            let place = Whereabouts {
                file: ForeignText::of_path(&real.join(transfer::FILE)),
                kind: facts.kind,
                place: facts.place,
                has_file: directory.join(transfer::FILE).exists(),
                progress: facts.progress,
            };
            serde_json::to_string(&place)
        }
        Request::Copy(url) => serde_json::to_string(&transfer::copy(&master, &url)?),
        Request::Remove(is_file) => {
            serde_json::to_string(&transfer::remove_copy(&master, is_file)?)
        }
    };
    output::print(answer.context("write an answer")?)
}
