//! Credentials that a host lacks: from a directory, or from a person at a terminal, never shown.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use buildbot_conda_host::trusted::read_given;

use super::differences::{Difference, Subject};
use crate::system::prompt;

/// Bytes; more than any secret that systemd passes on, systemd.exec(5).
const LARGEST: u64 = 1 << 20;

/// The contents of missing credentials, by name. A `dry_run` neither asks nor reads anything.
///
/// # Errors
///
/// All credentials that cannot be obtained, together.
pub(super) fn gather(
    differences: &[Difference],
    directory: Option<&Path>,
    dry_run: bool,
) -> anyhow::Result<BTreeMap<String, String>> {
    let missing = differences
        .iter()
        .filter_map(|difference| match &difference.subject {
            Subject::Credential(name) => Some(name),
            _ => None,
        });
    let mut texts = BTreeMap::new();
    let mut unknown = Vec::new();
    for name in missing {
        let file = directory.map(|directory| directory.join(name.trim_start_matches('/')));
        match file.filter(|file| file.exists()) {
            Some(_) if dry_run => {
                texts.insert(name.clone(), String::new());
            }
            Some(file) => {
                texts.insert(name.clone(), read(&file)?);
            }
            None => unknown.push(name.clone()),
        }
    }
    if dry_run {
        for name in &unknown {
            eprintln!("the credential `{name}` is needed");
            texts.insert(name.clone(), String::new());
        }
        return Ok(texts);
    }
    if !unknown.is_empty() && !io::stdin().is_terminal() {
        bail!(
            "credentials are needed, but there is no terminal to ask for them: {}\n\
             hint: use `--secrets DIR` with a file for each name",
            unknown.join(", ")
        );
    }
    for name in unknown {
        let text = prompt::ask_unseen(&format!("credential `{name}`"))?;
        texts.insert(name, text + "\n");
    }
    Ok(texts)
}

fn read(path: &Path) -> anyhow::Result<String> {
    read_given(path, LARGEST).with_context(|| format!("read `{}`", path.display()))
}
