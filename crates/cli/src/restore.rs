//! `restore REF [BACKUP]`: a backup takes the place of a stopped master's database, which is itself
//! kept as a backup; `--list` shows which there are.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use buildbot_conda_core::names::InstanceRef;
use clap::Args;
use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::database::backups::{self, Backup, BackupName};
use crate::database::facts::Facts;
use crate::database::lock::{self, Lock};
use crate::database::mark::Mark;
use crate::database::progress::Progress;
use crate::database::{Failure, Master, perform, plan};
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::{output, table};

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
    // Read by whoever calls this, and written by the service user.
    let foreign = match arguments.backup.as_deref() {
        Some(path) if path.contains('/') => Some(Foreign::at(Path::new(path), arguments)?),
        _ => None,
    };
    let input = foreign.as_ref().map(|foreign| (STDIN, &foreign.file));
    if let Some(status) = as_user::hand_over_with(instance, context, input)? {
        return Ok(status);
    }
    if arguments.list {
        return list(&backups::list(&master.state)?, arguments.json);
    }
    let chosen = match &foreign {
        None => choose(arguments.backup.as_deref(), &master)?,
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

/// A backup that is not among the master's own.
struct Foreign {
    name: BackupName,
    file: File,
    /// Bytes.
    size: u64,
}

impl Foreign {
    fn at(path: &Path, arguments: &Arguments) -> anyhow::Result<Self> {
        let told = || format!("read `{}`", path.display());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name: BackupName = name.parse()?;
        let file = if arguments.from_stdin {
            File::from(
                std::io::stdin()
                    .as_fd()
                    .try_clone_to_owned()
                    .with_context(told)?,
            )
        } else {
            // Without waiting for somebody at the other end of a pipe.
            let found = buildbot_conda_host::open(path).with_context(told)?;
            found
                .with_context(|| format!("no file `{}`", path.display()))?
                .0
        };
        let metadata = file.metadata().with_context(told)?;
        ensure!(metadata.is_file(), "`{}` is no file", path.display());
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
