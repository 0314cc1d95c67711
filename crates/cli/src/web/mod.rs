//! Publishes the pages of a master through a web server in front of it, which authenticates users, rejects crawlers and
//! provides TLS: `expose` and `hide`.
//!
//! `buildbot_conda_core::web` creates the text of the site file and of the master's `web.toml`; `people` are users with
//! a password.

mod expose;
mod hide;
mod people;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use buildbot_conda_core::names::{InstanceRef, Role};
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::web;
use clap::Subcommand;
use serde_json::Value;

use crate::inside::put::{Put, Text};
use crate::output;
use crate::plan::{Step, UserStep, naming};
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::exposed::Exposed;
use crate::system::values::{Identity, Mode};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Publish the pages of a master through nginx or Caddy
    Expose(Box<expose::Arguments>),
    /// Make the pages available only on this machine again
    Hide(hide::Arguments),
    /// Print the lines that an older `master.cfg` needs
    Lines,
}

pub(crate) fn run(verb: &Verb, context: &Context) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Expose(arguments) => expose::run(arguments, context),
        Verb::Hide(arguments) => hide::run(arguments, context),
        Verb::Lines => output::print(web::lines()),
    }
}

/// How a master is shown to others, for reports; null where it is not.
fn state(reference: &InstanceRef, context: &Context) -> anyhow::Result<Value> {
    serde_json::to_value(Exposed::read(reference, context)).context("describe a site")
}

fn master<'a>(reference: &InstanceRef, settings: &'a Settings) -> anyhow::Result<&'a Instance> {
    ensure!(
        reference.role == Role::Master,
        "`{reference}` is a worker and has no web pages"
    );
    Ok(settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?)
}

/// The step with which the master's account writes or removes `web.toml` and the secret; none if nothing changes.
fn put_files(master: &Instance, after: Option<[String; 2]>, context: &Context) -> Option<Step> {
    let [table, secret] = after.map_or([None, None], |texts| texts.map(Some));
    let text = |text: String| Text {
        text,
        mode: Mode::new(0o600),
    };
    let put = |name: &str, after: Option<String>| {
        let before = naming::text(master, name, context);
        (before != after).then(|| Put {
            identity: Identity::of(master),
            directory: context.path(master.directory.as_str()),
            path: name.into(),
            before: before.map(text),
            after: after.map(text),
            keep: false,
        })
    };
    // The table is decisive: what it needs exists before it, and is removed after it.
    let mut files: Vec<Put> = [put(web::WEB_SECRET, secret), put(web::WEB, table)]
        .into_iter()
        .flatten()
        .collect();
    if files.iter().all(|put| put.after.is_none()) {
        files.reverse();
    }
    let unit = master.reference.unit();
    (!files.is_empty()).then(|| UserStep::Tell { unit, files }.into())
}
