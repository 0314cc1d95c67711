//! From the configuration to the drop-ins on disk: read, decide, write, and report problems.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use buildbot_conda_core::backup_timer::{self, BackupTimer};
use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::paths;
use buildbot_conda_core::settings::{Hardening, Settings};
use buildbot_conda_host::Unusable;
use buildbot_conda_host::systemd::{STRICT_SYSTEMD, too_old_for_strict};
use buildbot_conda_host::unit_files::{Runs, UnitFiles};

use crate::arguments::Arguments;
use crate::report::{self, Report};

/// Writes a drop-in for every valid instance. Every problem is reported to `report`; none is returned, because the
/// caller could not act on it.
pub(crate) fn generate(arguments: &Arguments, report: &Report) {
    let settings = match buildbot_conda_host::settings(arguments.root()) {
        Ok(settings) => settings,
        // Installed, not configured.
        Err(Unusable::Missing(_)) => return,
        Err(unusable) => return report.problem(&unusable.to_string()),
    };
    for problem in settings.problems() {
        report.problem(&problem.display(settings.file()).to_string());
    }
    let drop_ins = decide(&settings, arguments, report);
    if drop_ins.is_empty() {
        return;
    }
    if !arguments.normal.is_dir() {
        let normal = arguments.normal.display();
        return report.problem(&format!("{normal}: not a directory"));
    }
    for drop_in in drop_ins {
        write_or_report(&drop_in, &arguments.normal, report);
        let instance = settings.instance(drop_in.reference()).ok();
        if let Some(timer) = instance.and_then(BackupTimer::of) {
            let outcome = write_timer(&timer, &arguments.normal);
            if let Err(error) = outcome {
                report.problem(&format!("{}: write: {error}", timer.unit));
            }
        }
    }
}

fn decide(settings: &Settings, arguments: &Arguments, report: &Report) -> Vec<DropIn> {
    let unit_files = UnitFiles::list(arguments.root(), Some(&arguments.early));
    let too_old_for_strict = too_old_for_strict(arguments.root());
    let mut drop_ins = Vec::new();
    for instance in settings.instances() {
        match unit_files.of(&instance.reference).runs {
            Runs::Ours | Runs::Copy(_) | Runs::Missing => {}
            Runs::Masked(_) => continue,
            Runs::HandMade(path) | Runs::Replaced(path) => {
                report::talk(&format!(
                    "{}: not changed, because it does not start the launcher",
                    path.display()
                ));
                continue;
            }
        }
        if let Some(version) =
            too_old_for_strict.filter(|_| instance.hardening == Hardening::Strict)
        {
            report.problem(&format!(
                "{}: {}: `hardening = \"strict\"` needs systemd {STRICT_SYSTEMD}, and this host has {version}",
                settings.file(),
                instance.reference
            ));
        }
        match DropIn::of(instance) {
            Ok(drop_in) => drop_ins.push(drop_in),
            Err(refused) => {
                for refused in refused {
                    report.problem(&format!("{}: {refused}", settings.file()));
                }
            }
        }
    }
    drop_ins
}

fn write_or_report(drop_in: &DropIn, normal: &Path, report: &Report) {
    let directory = normal.join(drop_in.directory_name());
    let file = directory.join(paths::DROP_IN);
    if let Err(error) = write(&directory, &file, &drop_in.text()) {
        // Half a drop-in could lack the sandbox, or the account.
        let _ = fs::remove_file(&file);
        report.problem(&format!("{}: write: {error}", file.display()));
    }
}

/// Its drop-in, and the link that starts it at boot.
fn write_timer(timer: &BackupTimer, normal: &Path) -> io::Result<()> {
    let directory = normal.join(format!("{}.d", timer.unit));
    write(&directory, &directory.join(paths::DROP_IN), &timer.text)?;
    let wants = normal.join("timers.target.wants");
    match fs::create_dir(&wants) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let template = Path::new(paths::UNITS).join(backup_timer::TEMPLATE);
    symlink(template, wants.join(&timer.unit))
}

fn write(directory: &Path, path: &Path, text: &str) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(Permissions::from_mode(0o644))
}
