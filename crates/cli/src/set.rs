//! `set`: one key of the configuration, written atomically.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::edit::{self, EditError};
use buildbot_conda_core::names::InstanceRef;
use clap::Args;
use tempfile::NamedTempFile;

use crate::context::{Context, InvalidConfiguration};

#[derive(Debug, Args)]
#[command(override_usage = "buildbot-conda set [REF] KEY VALUE")]
pub(crate) struct Arguments {
    /// Optional instance, then key and value; without an instance `[defaults]` is changed
    #[arg(
        num_args = 2..=3,
        required = true,
        allow_hyphen_values = true,
        value_names = ["[REF] KEY", "VALUE"]
    )]
    words: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let (reference, key, value) = match arguments.words.as_slice() {
        [key, value] => (None, key, value),
        [reference, key, value] => (Some(reference.parse::<InstanceRef>()?), key, value),
        other => return Err(anyhow!("expected 2 or 3 words, found {}", other.len())),
    };
    let path = context.configuration();
    // Read by the rules for a configuration first: what they refuse is not to be rewritten.
    context.settings()?;
    let file = path.to_string_lossy();
    let text = fs::read_to_string(&path).with_context(|| format!("read `{file}`"))?;
    let changed =
        edit::set(&file, &text, reference.as_ref(), key, value).map_err(|error| match error {
            EditError::Refused(refusal) => InvalidConfiguration::Refused(refusal).into(),
            other @ EditError::NoTable { .. } => anyhow!(other),
        })?;
    if changed != text {
        // A link is the administrator's arrangement; what it leads to is what changes.
        let path = path
            .canonicalize()
            .with_context(|| format!("follow `{file}`"))?;
        replace(&path, &changed).with_context(|| format!("write `{file}`"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces a file by one of the same owner and mode, or leaves it as it is.
fn replace(path: &Path, content: &str) -> anyhow::Result<()> {
    let directory = path.parent().context("find its directory")?;
    let old = path.metadata()?;
    let mut file = NamedTempFile::with_prefix_in(".config.toml.", directory)?;
    file.write_all(content.as_bytes())?;
    let mode = Permissions::from_mode(old.permissions().mode() & 0o7777);
    file.as_file().set_permissions(mode)?;
    std::os::unix::fs::fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}
