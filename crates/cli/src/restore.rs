//! `restore REF [BACKUP]`: replaces a stopped master's database by a backup; the replaced database is kept as a backup.
//! `--list` lists the backups.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, bail, ensure};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use buildbot_conda_host::trusted::Trust;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::database::backups::{self, Backup, BackupName, FileKind, LONGEST_START};
use crate::database::drill::Contents;
use crate::database::facts::Facts;
use crate::database::lock::{self, Lock};
use crate::database::mark::Mark;
use crate::database::progress::Progress;
use crate::database::{Failure, Master, perform, plan, upgraded};
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::{inside, output, table};

/// The word that means that a backup is on standard input.
const STDIN: &str = "--from-stdin";

#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of the command line"
)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// Name of a backup as shown by `--list`, or the path of a backup from elsewhere or of a copy of a `state.sqlite`;
    /// by default the newest backup
    #[arg(value_name = "BACKUP", conflicts_with = "list")]
    backup: Option<String>,
    /// Read the backup from standard input, as its file may be owned by root
    #[arg(long, hide = true, requires = "backup")]
    from_stdin: bool,
    /// Print the name of the backup from before the upgrade with this prefix, if that was the last upgrade
    #[arg(long, hide = true, value_name = "PREFIX", conflicts_with_all = ["backup", "list"])]
    of_upgrade: Option<PathBuf>,
    /// List the backups, newest first
    #[arg(long, group = "shown")]
    list: bool,
    /// Restore the backup into a scratch place, read all of it, and show what it contains; the master may run
    #[arg(long = "try", group = "shown")]
    drill: bool,
    /// Print JSON, with `--list` or `--try`
    #[arg(long, requires = "shown")]
    json: bool,
    /// Show what would be done, and change nothing
    #[arg(long, conflicts_with = "shown")]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let master = Master::new(instance, context)?;
    let elsewhere = Elsewhere::of(arguments, &master);
    if as_user::is_for_another(instance, context)? {
        let file = elsewhere.as_ref().map(|found| found.open_for(instance));
        let file = file.transpose()?;
        let input = file.as_ref().map(|file| (STDIN, file));
        let status = as_user::hand_over_with(instance, context, input)?;
        return status.context("look up the account");
    }
    let foreign = elsewhere.map(|found| Foreign::open(found, arguments));
    let foreign = foreign.transpose()?;
    if let Some(prefix) = &arguments.of_upgrade {
        let name = upgraded::backup_of(&master.state, prefix);
        return output::print(name.map_or_else(String::new, |name| format!("{name}\n")));
    }
    if arguments.list {
        return list(&backups::list(&master.backups)?, arguments.json);
    }
    if arguments.drill {
        return try_out(&master, foreign, arguments);
    }
    if let Some(Foreign {
        name: None,
        file,
        size,
    }) = &foreign
    {
        let lock = (!arguments.dry_run)
            .then(|| Lock::take(master.directory()))
            .transpose()?;
        let copy = backups::copy_plain(file, *size, &master.backups)?;
        let found = Facts::of_copy(&master, &copy)?;
        let name = BackupName::now(&master, &found, FileKind::Sqlite);
        let Some(lock) = lock else {
            let facts = Facts::ask(&master, None, true)?;
            return output::print(plan::restore(&master, &facts, &name)?);
        };
        backups::complete(copy, &name)?;
        return restore(&master, &name, &lock);
    }
    let chosen = match foreign.as_ref().and_then(|foreign| foreign.name.clone()) {
        None => choose(wanted_name(arguments), &master)?,
        Some(name) => name,
    };
    if arguments.dry_run {
        if let Some(holder) = lock::holder_of(master.directory()) {
            eprintln!("warning: the master is running ({holder}), stop it first");
        }
        let facts = Facts::ask(&master, None, true)?;
        return output::print(plan::restore(&master, &facts, &chosen)?);
    }
    let lock = Lock::take(master.directory())?;
    if let Some(foreign) = foreign {
        backups::take_in(foreign.file, foreign.size, &chosen, &master.backups)?;
    }
    restore(&master, &chosen, &lock)
}

/// A backup of the same master replaces its database.
fn restore(master: &Master<'_>, chosen: &BackupName, lock: &Lock) -> anyhow::Result<ExitCode> {
    let facts = Facts::ask(master, Some(lock), true)?;
    let mut plan = plan::restore(master, &facts, chosen)?;
    if Mark::read(&master.backups)?.is_some() {
        // The remains of an interrupted upgrade are worthless next to its own backup.
        plan.steps
            .retain(|step| !matches!(step, plan::Step::BackUp(_)));
    }
    let progress = Progress::by_hand(master.reference());
    perform::perform(&plan, master, &facts, lock, &progress)?;
    backups::prune(&master.backups, &[chosen])?;
    eprintln!("restored `{}` from `{chosen}`", facts.place);
    Ok(ExitCode::SUCCESS)
}

/// `--try`: a copy is read, so that nothing is changed beside a backup.
fn try_out(
    master: &Master<'_>,
    foreign: Option<Foreign>,
    arguments: &Arguments,
) -> anyhow::Result<ExitCode> {
    let (name, file, size) = if let Some(Foreign { name, file, size }) = foreign {
        (name, file, size)
    } else {
        let name = choose(wanted_name(arguments), master)?;
        let path = master.backups.path(&name);
        let read = || format!("read `{}`", path.display());
        let file = File::open(&path).with_context(read)?;
        let size = file.metadata().with_context(read)?.len();
        (Some(name), file, size)
    };
    let kind = name.as_ref().map_or(FileKind::Sqlite, BackupName::kind);
    let copy = backups::copy_plain(&file, size, &master.backups)?;
    let contents = Contents::of(master, &copy, kind)?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&contents).context("write JSON")?;
        return output::print(text + "\n");
    }
    let shown = name.map_or_else(
        || "the copy".to_owned(),
        |name| format!("the backup `{name}`"),
    );
    output::print(format_args!("{shown} can be restored: {contents}"))
}

/// The path of a backup that is not among the master's own.
struct Elsewhere<'a> {
    path: &'a Path,
    /// None for a plain copy of a database.
    name: Option<BackupName>,
}

impl<'a> Elsewhere<'a> {
    /// The path that was given, if there was one. One of the master's own backups, as `backup` prints it, is as good as
    /// its name.
    fn of(arguments: &'a Arguments, master: &Master<'_>) -> Option<Self> {
        let path = arguments
            .backup
            .as_deref()
            .filter(|path| path.contains('/'))?;
        let path = Path::new(path);
        let name: Option<BackupName> = file_name(path).parse().ok();
        let is_own = name
            .as_ref()
            .is_some_and(|name| master.backups.path(name) == path);
        (!is_own).then_some(Self { path, name })
    }

    /// Opens it for the service user, whose process reads it: with the user's rights, or as root if only root could
    /// have chosen the file and it starts like a backup.
    fn open_for(&self, instance: &Instance) -> anyhow::Result<File> {
        let user = instance.user.as_str();
        let group = instance.group.as_ref().map(AccountName::as_str);
        let path = std::path::absolute(self.path).context("find the current directory")?;
        let refusal = match inside::open::as_account(user, group, &path) {
            Ok(file) => return Ok(file),
            Err(refusal) => refusal,
        };
        let untrusted = |untrusted| {
            anyhow!(
                "{refusal:#}; root does not open it: {untrusted}\n\
                 hint: allow `{user}` to read it, or copy it to a directory that only root can write, such as `/root`"
            )
        };
        let found = Trust::of_root(None).find(&path).map_err(|error| {
            if error.is_missing() {
                anyhow!("file `{}` not found", path.display())
            } else {
                untrusted(error)
            }
        })?;
        let shown_path = || format!("read `{}`", path.display());
        ensure!(
            found.metadata().is_file(),
            "`{}` is not a regular file",
            path.display()
        );
        let file = found.open().with_context(shown_path)?;
        self.ensure_begins(&file)?;
        Ok(file)
    }

    /// Refuses a file that does not start as its name requires, or as a database does.
    fn ensure_begins(&self, file: &File) -> anyhow::Result<()> {
        let mut start = [0; LONGEST_START];
        let length = file
            .read_at(&mut start, 0)
            .with_context(|| format!("read `{}`", self.path.display()))?;
        match &self.name {
            Some(name) if name.kind().begins_with(&start[..length]) => Ok(()),
            Some(name) => bail!("{}", backups::no_backup(name)),
            None if FileKind::Sqlite.begins_with(&start[..length]) => Ok(()),
            None => bail!(
                "`{}` is neither a backup nor a `SQLite` database\n\
                 hint: specify a backup of `backup`, or a copy of a `state.sqlite`",
                self.path.display()
            ),
        }
    }
}

fn file_name(path: &Path) -> Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The backup that was asked for, by its name.
fn wanted_name(arguments: &Arguments) -> Option<&str> {
    let wanted = arguments.backup.as_deref()?;
    Some(wanted.rsplit_once('/').map_or(wanted, |(_, name)| name))
}

/// A backup from elsewhere, open.
struct Foreign {
    /// None for a plain copy of a database.
    name: Option<BackupName>,
    file: File,
    /// Bytes.
    size: u64,
}

impl Foreign {
    /// Opened by this process, or by its caller.
    fn open(found: Elsewhere<'_>, arguments: &Arguments) -> anyhow::Result<Self> {
        let path = found.path;
        let shown_path = || format!("read `{}`", path.display());
        let file = if arguments.from_stdin {
            let stdin = std::io::stdin();
            File::from(
                stdin
                    .as_fd()
                    .try_clone_to_owned()
                    .with_context(shown_path)?,
            )
        } else {
            // Without waiting for a writer of a pipe.
            let opened = buildbot_conda_host::open(path).with_context(shown_path)?;
            opened
                .with_context(|| format!("file `{}` not found", path.display()))?
                .0
        };
        let metadata = file.metadata().with_context(shown_path)?;
        ensure!(
            metadata.is_file(),
            "`{}` is not a regular file",
            path.display()
        );
        if found.name.is_none() {
            found.ensure_begins(&file)?;
        }
        let size = metadata.len();
        Ok(Self {
            name: found.name,
            file,
            size,
        })
    }
}

fn choose(wanted: Option<&str>, master: &Master<'_>) -> Result<BackupName, Failure> {
    let names = backups::names(&master.backups)?;
    let reference = master.reference();
    let Some(wanted) = wanted else {
        let text = format!("`{reference}` has no backup");
        return names
            .into_iter()
            .next()
            .ok_or_else(|| Failure::new(1, text));
    };
    let found = names.into_iter().find(|name| name.to_string() == wanted);
    found.ok_or_else(|| {
        let directory = master.backups.directory();
        let text = format!("backup `{wanted}` not found in `{}`", directory.display());
        Failure::new(1, text).hint(format!(
            "`buildbot-conda restore {reference} --list` shows all"
        ))
    })
}

fn list(backups: &[Backup], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let text = serde_json::to_string_pretty(backups).context("write JSON")?;
        return output::print(format_args!("{text}\n"));
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["NAME", "BUILDBOT", "SCHEMA", "SIZE"]);
    for backup in backups {
        table.add_row([
            Cell::new(&backup.name),
            Cell::new(&backup.buildbot),
            Cell::new(&backup.schema),
            Cell::new(format!("{} KiB", backup.size.div_ceil(1024)))
                .set_alignment(CellAlignment::Right),
        ]);
    }
    output::print(table::flush(&table).join("\n") + "\n")
}
