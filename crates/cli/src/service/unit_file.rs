//! `service unit-file [UNIT ...]`: which unit file runs and whether it is ours, a line for each unit, for the maintainer
//! scripts.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use buildbot_conda_core::names::Role;

use crate::output;
use crate::system::context::Context;
use crate::system::unit_files::is_ours;

/// `UNIT WORD`, and after `copy`, `hand-made`, `replaced` and `masked` the path of the file that is in effect. Without
/// names, for the two plain units, and for every file that an administrator has for a unit of ours.
pub(super) fn run(names: &[String], context: &Context) -> anyhow::Result<ExitCode> {
    let unit_files = context.unit_files();
    let plain = Role::ALL.map(|role| format!("buildbot-{role}.service"));
    let own = unit_files.files();
    let all: BTreeSet<&str> = if names.is_empty() {
        let own = own.into_keys().filter(|name| is_ours(name));
        plain.iter().map(String::as_str).chain(own).collect()
    } else {
        names.iter().map(String::as_str).collect()
    };
    let mut text = String::new();
    for name in all {
        let runs = unit_files.of_unit(name).runs;
        writeln!(text, "{name} {runs}").expect("writing to a string succeeds");
    }
    output::print(text)
}
