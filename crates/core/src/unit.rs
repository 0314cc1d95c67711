//! The four unit files of the package, one template for each role.
//!
//! They are static: settings of the configuration are in the drop-in, see [`crate::dropin`]. Without a drop-in, a unit
//! still starts the launcher, which then reports what is missing.

use std::time::Duration;

use tera::{Context, Tera};

use crate::dropin::{timeout_start, timeout_stop};
use crate::escape::time_span;
use crate::names::Role;
use crate::paths;

/// Template of the master's units.
const MASTER: &str = include_str!("../templates/buildbot-master.service.tera");
/// Template of the worker's units.
const WORKER: &str = include_str!("../templates/buildbot-worker.service.tera");

/// A unit file as it ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitFile {
    /// File name in [`paths::UNITS`], such as `buildbot-worker@.service`.
    pub name: String,
    /// Its content.
    pub text: String,
}

/// Every unit file of the package: for each role the plain one and the template for names.
pub fn files() -> Vec<UnitFile> {
    let mut tera = Tera::new();
    tera.add_raw_templates([("master", MASTER), ("worker", WORKER)])
        .expect("the unit templates are well-formed");
    let mut files = Vec::new();
    for role in Role::ALL {
        for named in [false, true] {
            let at = if named { "@" } else { "" };
            let text = tera
                .render(role.as_str(), &context(role, named))
                .expect("the unit templates use only what the context has");
            files.push(UnitFile {
                name: format!("buildbot-{role}{at}.service"),
                text,
            });
        }
    }
    files
}

fn context(role: Role, named: bool) -> Context {
    let reference = if named {
        format!("{role}@%i")
    } else {
        role.to_string()
    };
    let mut context = Context::new();
    context.insert("role", role.as_str());
    context.insert("named", &named);
    context.insert("reference", &reference);
    context.insert("configuration", paths::CONFIGURATION);
    context.insert("launcher", paths::LAUNCHER);
    context.insert("cli", paths::CLI);
    context.insert(
        "timeout_start",
        &time_span(timeout_start(Duration::from_secs(90))),
    );
    context.insert("timeout_stop", &time_span(timeout_stop(Duration::ZERO)));
    context
}
