//! `backup REF`: copies a master's database, also while the master runs. With `--to`, the backup is also copied to a
//! directory of root, or to standard output. The service user makes the backup, and root copies the file that this user
//! has opened.

use std::fs::{self, DirBuilder, File};
use std::io::{self, IsTerminal as _, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use buildbot_conda_host::trusted::Trust;
use clap::Args;
use tempfile::NamedTempFile;

use crate::database::backups::{self, BackupName};
use crate::database::facts::Facts;
use crate::database::plan::{self, Step};
use crate::database::progress::Progress;
use crate::database::{Master, perform};
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::{inside, output};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Also copy the backup to this directory, which only root can write; `-` is standard output
    #[arg(long, value_name = "DIR", allow_hyphen_values = true)]
    to: Option<PathBuf>,
    /// Copy it to the directory that `backup-to` sets; for the timer
    #[arg(long, hide = true, conflicts_with = "to")]
    scheduled: bool,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let master = Master::new(instance, context)?;
    let is_for_another = as_user::is_for_another(instance, context)?;
    let target = Target::of(arguments, instance, is_for_another)?;
    if target.is_none() || arguments.dry_run {
        return match as_user::hand_over(instance, context)? {
            Some(status) => Ok(status),
            None => back_up(&master, arguments.dry_run).map(|_| ExitCode::SUCCESS),
        };
    }
    let name = if is_for_another {
        let words = ["backup", "--", &arguments.reference.to_string()].map(Into::into);
        let printed = as_user::obtain(instance, &words)?;
        let name = printed
            .lines()
            .last()
            .and_then(|line| line.rsplit_once('/'));
        name.context("parse the name of the backup")?.1.parse()?
    } else {
        back_up(&master, false)?.context("determine the name of the backup")?
    };
    let path = master.backups.path(&name);
    let file = if is_for_another {
        let group = instance.group.as_ref().map(AccountName::as_str);
        inside::open::as_account(instance.user.as_str(), group, &path)?
    } else {
        File::open(&path).with_context(|| format!("read `{}`", path.display()))?
    };
    if let Some(target) = target {
        target.copy(&file, &name)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs as the owner of the database: prints what is done, or would be done, and returns the name of the backup.
fn back_up(master: &Master<'_>, dry_run: bool) -> anyhow::Result<Option<BackupName>> {
    let facts = Facts::ask(master, None, false)?;
    let plan = plan::back_up(master, &facts)?;
    if dry_run {
        output::print(plan)?;
        return Ok(None);
    }
    let progress = Progress::by_hand(master.reference());
    let mut made = None;
    for step in plan.steps {
        if let Step::BackUp(name) = step {
            perform::back_up(master, &facts, &name, &progress)?;
            backups::prune(&master.backups, &[&name])?;
            output::print(format_args!("{}\n", master.backups.path(&name).display()))?;
            made = Some(name);
        }
    }
    Ok(made)
}

/// Where a copy goes.
enum Target {
    Stdout,
    Directory {
        path: PathBuf,
        /// The oldest ones in it are removed.
        is_pruned: bool,
    },
}

impl Target {
    fn of(
        arguments: &Arguments,
        instance: &Instance,
        as_root: bool,
    ) -> anyhow::Result<Option<Self>> {
        let path = match (&arguments.to, &instance.backup_to) {
            (Some(path), _) if path.as_os_str() == "-" => {
                if io::stdout().is_terminal() {
                    bail!(
                        "backups are not written to a terminal\nhint: redirect it to a file: `... --to - > FILE`"
                    );
                }
                return Ok(Some(Self::Stdout));
            }
            (Some(path), _) => path.clone(),
            (None, Some(path)) if arguments.scheduled => {
                let path = only_roots(Path::new(path.as_str()), as_root)?;
                let path = path.join(instance.reference.to_string());
                match DirBuilder::new().mode(0o700).create(&path) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(anyhow!(error).context(format!("create `{}`", path.display())));
                    }
                    _ => {}
                }
                path
            }
            (None, _) => return Ok(None),
        };
        Ok(Some(Self::Directory {
            path: only_roots(&path, as_root)?,
            is_pruned: arguments.scheduled,
        }))
    }

    fn copy(&self, file: &File, name: &BackupName) -> anyhow::Result<()> {
        let size = file.metadata().context("examine the backup")?.len();
        // Its owner can have it grow meanwhile, or never end.
        let copy_to = |target: &mut dyn io::Write| match io::copy(&mut file.take(size), target)? {
            copied if copied == size => Ok(()),
            _ => Err(io::Error::other("the backup has become shorter meanwhile")),
        };
        let (path, is_pruned) = match self {
            Self::Stdout => return copy_to(&mut io::stdout().lock()).context("write the backup"),
            Self::Directory { path, is_pruned } => (path, is_pruned),
        };
        backups::ensure_space(path, size)?;
        let target = path.join(name.to_string());
        let write = || -> io::Result<()> {
            let mut copy = NamedTempFile::with_prefix_in(".backup-", path)?;
            copy_to(&mut copy)?;
            copy.as_file().sync_all()?;
            copy.persist(&target).map_err(|error| error.error)?;
            File::open(path)?.sync_all()
        };
        write().with_context(|| format!("write `{}`", target.display()))?;
        if *is_pruned {
            for old in backups::superfluous(path)? {
                let old = path.join(old.to_string());
                fs::remove_file(&old).with_context(|| format!("remove `{}`", old.display()))?;
            }
        }
        output::print(format_args!("{}\n", target.display()))?;
        Ok(())
    }
}

/// A directory without links in its path. Root only writes where no other account could have placed anything.
fn only_roots(path: &Path, as_root: bool) -> anyhow::Result<PathBuf> {
    let path = std::path::absolute(path).context("find the current directory")?;
    let shown = path.display();
    let found = if as_root {
        let found = Trust::of_root(None).find(&path).map_err(|error| {
            if error.is_missing() {
                anyhow!("`{shown}` not found\nhint: `sudo install -d -m 0700 {shown}` creates it")
            } else {
                anyhow!(
                    "{error}\nhint: specify a directory that only root can write, or write the file yourself with `--to -`"
                )
            }
        })?;
        found.path().to_owned()
    } else {
        path.clone()
    };
    if !found.is_dir() {
        bail!("`{shown}` is not a directory");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_as_long_as_the_file_said_that_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let target = Target::Directory {
            path,
            is_pruned: false,
        };
        let name = "20261122T123456Z-buildbot-3.11.9-schema-064.sqlite"
            .parse()
            .unwrap();
        let copy = |path: &str| target.copy(&File::open(path).unwrap(), &name);
        let copied = || fs::read(directory.path().join(name.to_string())).unwrap();
        let own = directory.path().join("own");
        fs::write(&own, "1234").unwrap();
        copy(own.to_str().unwrap()).unwrap();
        assert_eq!(copied(), b"1234");
        // The file reports a size of 0 bytes, and never ends.
        copy("/proc/self/status").unwrap();
        assert_eq!(copied(), b"");
    }
}
