//! `set`: one key of the configuration, written atomically.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use buildbot_conda_core::edit::{self, EditError};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Refusal;
use clap::Args;
use tempfile::NamedTempFile;

use crate::output::{self, harmless};
use crate::system::context::{AS_ROOT, Context, InvalidConfiguration};

#[derive(Debug, Args)]
#[command(override_usage = "buildbot-conda set [--dry-run] [REF] KEY VALUE")]
pub(crate) struct Arguments {
    /// Say what would be changed, and change nothing; stands before the words
    #[arg(long)]
    dry_run: bool,
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
    let settings = context.settings()?;
    let file = path.to_string_lossy().into_owned();
    let text = fs::read_to_string(&path).with_context(|| format!("read `{file}`"))?;
    let after =
        edit::set(&file, &text, reference.as_ref(), key, value).map_err(|error| match error {
            EditError::Refused(refusal) => InvalidConfiguration::Refused(refusal).into(),
            other @ EditError::NoTable { .. } => anyhow!(other),
        })?;
    // What only the host can say of it, such as where a credential is.
    let mut problems = context.settings_from(&after).problems().to_vec();
    problems.retain(|new| {
        settings
            .problems()
            .iter()
            .all(|old| old.reason != new.reason)
    });
    if !problems.is_empty() {
        return Err(InvalidConfiguration::Refused(Refusal::Problems { file, problems }).into());
    }
    let change = Change {
        before: text,
        after,
        path,
    };
    if arguments.dry_run {
        return output::print(change);
    }
    change.carry_out()?;
    Ok(ExitCode::SUCCESS)
}

/// What becomes of the configuration.
struct Change {
    path: PathBuf,
    before: String,
    after: String,
}

impl Change {
    fn carry_out(&self) -> anyhow::Result<()> {
        if self.after == self.before {
            return Ok(());
        }
        let file = self.path.display();
        // A link is the administrator's arrangement; what it leads to is what changes.
        let path = self
            .path
            .canonicalize()
            .with_context(|| format!("follow `{file}`"))?;
        replace(&path, &self.after).map_err(|error| {
            let cause = error.downcast_ref::<io::Error>();
            if cause.is_some_and(|cause| cause.kind() == ErrorKind::PermissionDenied) {
                // Without the name of the temporary file, which says nothing to anybody.
                anyhow!("write `{file}`: permission denied\nhint: {AS_ROOT}")
            } else {
                error.context(format!("write `{file}`"))
            }
        })
    }
}

/// The lines that go and those that come. One key is one place: all lines before and after it stay.
impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.path.display();
        if self.after == self.before {
            return writeln!(formatter, "# nothing changes in `{file}`");
        }
        writeln!(formatter, "in `{file}`:")?;
        let mut old: Vec<&str> = self.before.lines().collect();
        let mut new: Vec<&str> = self.after.lines().collect();
        while !old.is_empty() && old.last() == new.last() {
            old.pop();
            new.pop();
        }
        let same = old.iter().zip(&new).take_while(|(old, new)| old == new);
        let same = same.count();
        for (sign, lines) in [('-', &old[same..]), ('+', &new[same..])] {
            for line in lines {
                let line = format!("    {sign} {}", harmless(line));
                writeln!(formatter, "{}", line.trim_end())?;
            }
        }
        Ok(())
    }
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
