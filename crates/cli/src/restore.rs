//! `restore REF [BACKUP]`: a backup takes the place of a stopped master's database, which is itself
//! kept as a backup; `--list` shows which there are.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, ensure};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;
use buildbot_conda_host::trusted::Trust;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::database::backups::{self, Backup, BackupName, LONGEST_START};
use crate::database::facts::Facts;
use crate::database::lock::{self, Lock};
use crate::database::mark::Mark;
use crate::database::progress::Progress;
use crate::database::{Failure, Master, perform, plan};
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::{inside, output, table};

/// What says that a backup is on standard input.
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
    /// Name of a backup as `--list` shows it, or the path of one from elsewhere, such as another host; the youngest when
    /// none is given
    #[arg(value_name = "BACKUP", conflicts_with = "list")]
    backup: Option<String>,
    /// The backup from elsewhere is on standard input: its file may be root's
    #[arg(long, hide = true, requires = "backup")]
    from_stdin: bool,
    /// List the backups, youngest first
    #[arg(long)]
    list: bool,
    /// Print the list as JSON
    #[arg(long, requires = "list")]
    json: bool,
    /// Print what would be done, and do nothing
    #[arg(long, conflicts_with = "list")]
    dry_run: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let settings = context.settings()?;
    let instance = settings
        .instance(&arguments.reference)
        .map_err(InvalidConfiguration::from)?;
    let master = Master::new(instance, context)?;
    let elsewhere = Elsewhere::of(arguments, &master)?;
    if as_user::is_for_another(instance, context)? {
        let file = elsewhere.as_ref().map(|found| found.open_for(instance));
        let file = file.transpose()?;
        let input = file.as_ref().map(|file| (STDIN, file));
        let status = as_user::hand_over_with(instance, context, input)?;
        return status.context("find an account to restore as");
    }
    let foreign = elsewhere.map(|found| Foreign::open(found, arguments));
    let foreign = foreign.transpose()?;
    if arguments.list {
        return list(&backups::list(&master.state)?, arguments.json);
    }
    let chosen = match &foreign {
        None => choose(wanted_name(arguments), &master)?,
        Some(foreign) => foreign.name.clone(),
    };
    if arguments.dry_run {
        if let Some(holder) = lock::holder_of(master.directory()) {
            eprintln!("warning: the master runs as {holder}, it has to be stopped first");
        }
        let facts = Facts::ask(&master, None, true)?;
        return output::print(plan::restore(&master, &facts, &chosen)?);
    }
    let lock = Lock::take(master.directory())?;
    if let Some(foreign) = foreign {
        backups::take_in(foreign.file, foreign.size, &foreign.name, &master.state)?;
    }
    let facts = Facts::ask(&master, Some(&lock), true)?;
    let mut plan = plan::restore(&master, &facts, &chosen)?;
    if Mark::read(&master.state)?.is_some() {
        // What an interrupted upgrade has left is worth nothing beside its own backup.
        plan.steps
            .retain(|step| !matches!(step, plan::Step::BackUp(_)));
    }
    let progress = Progress::by_hand(&arguments.reference);
    perform::perform(&plan, &master, &facts, &lock, &progress)?;
    backups::prune(&master.state, &[&chosen])?;
    eprintln!("restored `{}` from `{chosen}`", facts.place);
    Ok(ExitCode::SUCCESS)
}

/// The path of a backup that is not among the master's own.
struct Elsewhere<'a> {
    path: &'a Path,
    name: BackupName,
}

impl<'a> Elsewhere<'a> {
    /// The path that was given, if there was one. One of the master's own backups, as `backup` prints it, is as good as
    /// its name.
    fn of(arguments: &'a Arguments, master: &Master<'_>) -> anyhow::Result<Option<Self>> {
        let Some(path) = arguments
            .backup
            .as_deref()
            .filter(|path| path.contains('/'))
        else {
            return Ok(None);
        };
        let path = Path::new(path);
        let name: BackupName = file_name(path).parse()?;
        let is_own = name.path(&master.state) == path;
        Ok((!is_own).then_some(Self { path, name }))
    }

    /// Opens it for the service user, whose process reads it: as he can, or else by root where nobody but root can have
    /// chosen what is there, and where it begins as a backup does.
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
                "{refusal:#}; and not for root to hand over: {untrusted}\n\
                 hint: let `{user}` read it, or copy it to where root alone can write, such as `/root`"
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
        let mut start = [0; LONGEST_START];
        let length = file.read_at(&mut start, 0).with_context(shown_path)?;
        ensure!(
            self.name.kind().begins_with(&start[..length]),
            "{}",
            backups::no_backup(&self.name)
        );
        Ok(file)
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
    name: BackupName,
    file: File,
    /// Bytes.
    size: u64,
}

impl Foreign {
    /// Opened by this process, or by whoever has called it.
    fn open(found: Elsewhere<'_>, arguments: &Arguments) -> anyhow::Result<Self> {
        let Elsewhere { path, name } = found;
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
            // Without waiting for somebody at the other end of a pipe.
            let found = buildbot_conda_host::open(path).with_context(shown_path)?;
            found
                .with_context(|| format!("file `{}` not found", path.display()))?
                .0
        };
        let metadata = file.metadata().with_context(shown_path)?;
        ensure!(
            metadata.is_file(),
            "`{}` is not a regular file",
            path.display()
        );
        let size = metadata.len();
        Ok(Self { name, file, size })
    }
}

fn choose(wanted: Option<&str>, master: &Master<'_>) -> Result<BackupName, Failure> {
    let names = backups::names(&master.state)?;
    let reference = master.reference();
    let Some(wanted) = wanted else {
        let text = format!("no backup of `{reference}`");
        return names
            .into_iter()
            .next()
            .ok_or_else(|| Failure::new(1, text));
    };
    let found = names.into_iter().find(|name| name.to_string() == wanted);
    found.ok_or_else(|| {
        let directory = backups::directory(&master.state);
        let text = format!("no backup `{wanted}` in `{}`", directory.display());
        Failure::new(1, text).hint(format!(
            "`buildbot-conda restore {reference} --list` names those there are"
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
