//! What only the owner of a directory examines: files of instances, and environments that conda created. Root does not
//! open anything that another account can replace by a link or a pipe; this program runs again as the owner to do so.
//! Its answer is data, with a size limit.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_environments::{Package, packages_of, verify};
use serde::{Deserialize, Serialize};

use crate::system::as_user;
use crate::system::context::Context;
use crate::system::values::Mode;

/// Bytes; more than any tac or configuration has.
const LARGEST: u64 = 1 << 20;

/// What is asked about a directory.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Which of these files an instance has.
    Files(Vec<String>),
    /// The packages of an environment and, if requested, the files that have changed since their installation.
    Environment { damage: bool },
}

/// What there is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// The directory exists and is not empty.
    pub(crate) is_filled: bool,
    /// Text and mode by name; those that are there, regular and text.
    pub(crate) files: BTreeMap<String, (String, Mode)>,
    pub(crate) packages: Vec<Package>,
    /// Distributions that pip has installed, which no lock contains; sorted.
    pub(crate) strangers: Vec<ForeignText>,
    /// `WHAT PATH`, in the order of the paths.
    pub(crate) damage: Vec<ForeignText>,
}

/// Asks about `directory` as the account `owner`, or in this process where that is root.
pub(crate) fn ask(
    owner: &str,
    directory: &str,
    question: &Question,
    context: &Context,
) -> anyhow::Result<Answer> {
    let path = context.path(directory);
    if context.is_elsewhere() || owner == "root" {
        return inspect(&path, question);
    }
    let input = serde_json::to_string(question).context("write a request")?;
    let said = as_user::call_within(as_user::FILES, owner, None, &["inspect"], &path, &input)
        .with_context(|| format!("examine `{directory}` as `{owner}`"))?;
    serde_json::from_str(&said)
        .with_context(|| format!("examine `{directory}` as `{owner}`: no answer"))
}

/// As the owner: answers the question on standard input.
pub(crate) fn answer(directory: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read a request")?;
    let answer = inspect(
        directory,
        &serde_json::from_str(&text).context("read a request")?,
    )?;
    let text = serde_json::to_string(&answer).context("write an answer")?;
    crate::output::print(text).map(drop)
}

fn inspect(directory: &Path, question: &Question) -> anyhow::Result<Answer> {
    let mut answer = Answer {
        is_filled: fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some()),
        ..Answer::default()
    };
    match question {
        Question::Files(names) => {
            for name in names {
                if let Some(found) = file(&directory.join(name)) {
                    answer.files.insert(name.clone(), found);
                }
            }
        }
        Question::Environment { damage } if directory.join("conda-meta").is_dir() => {
            answer.packages = packages_of(directory)?;
            answer.strangers = strangers(directory);
            if *damage {
                let findings = verify(directory)?;
                // Files of Conda itself, and those that pip has installed, are not damage.
                let known = findings.iter().filter(|finding| finding.package.is_some());
                answer.damage = known
                    .map(|finding| format!("{} {}", finding.what, finding.path).into())
                    .collect();
            }
        }
        Question::Environment { .. } => {}
    }
    Ok(answer)
}

fn file(path: &Path) -> Option<(String, Mode)> {
    let (file, metadata) = buildbot_conda_host::open(path).ok()??;
    if !metadata.is_file() {
        return None;
    }
    let bytes = buildbot_conda_host::read_at_most(&file, LARGEST).ok()??;
    let mode = Mode::new(metadata.mode());
    Some((String::from_utf8(bytes).ok()?, mode))
}

/// Distributions whose recorded installer is pip.
fn strangers(prefix: &Path) -> Vec<ForeignText> {
    let directories = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mut found = Vec::new();
    for python in directories(&prefix.join("lib")) {
        for path in directories(&python.join("site-packages")) {
            let installer = fs::read_to_string(path.join("INSTALLER")).unwrap_or_default();
            let is_pips = matches!(installer.trim(), "pip" | "uv");
            let name = path.file_stem().and_then(|name| name.to_str());
            found.extend(name.filter(|_| is_pips).map(ForeignText::new));
        }
    }
    found.sort();
    found
}
