//! The timer of a master whose configuration enables backups: a template in the package, and the part for one master.

use crate::names::Role;
use crate::settings::{BackupEvery, Instance, Word as _};

/// The template that ships; its service runs `buildbot-conda backup`.
pub const TEMPLATE: &str = "buildbot-backup@.timer";

/// The timer of one master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupTimer {
    /// `buildbot-backup@master.timer`.
    pub unit: String,
    /// The text of its drop-in.
    pub text: String,
}

impl BackupTimer {
    /// None for an instance without automatic backups.
    pub fn of(instance: &Instance) -> Option<Self> {
        let is_wanted =
            instance.reference.role == Role::Master && instance.backup_every != BackupEvery::Off;
        is_wanted.then(|| Self {
            unit: format!("buildbot-backup@{}.timer", instance.reference),
            text: format!(
                "# Written by buildbot-conda-generator: `backup-every` of `{}`.\n\n[Timer]\nOnCalendar=\nOnCalendar={}\n",
                instance.reference,
                instance.backup_every.as_str()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn masters_that_ask_for_it_have_a_timer() {
        let text = b"[defaults]\nbackup-every = \"weekly\"\n[master]\n[\"master@x\"]\ndirectory = \"/x\"\n\
                     backup-every = \"off\"\n[worker]\n";
        let settings = Settings::parse("f", text);
        assert_eq!(settings.check(), Ok(()));
        let timers: Vec<BackupTimer> = settings.instances().filter_map(BackupTimer::of).collect();
        let [timer] = &timers[..] else {
            panic!("{timers:?}");
        };
        assert_eq!(timer.unit, "buildbot-backup@master.timer");
        assert!(
            timer
                .text
                .ends_with("\n[Timer]\nOnCalendar=\nOnCalendar=weekly\n")
        );
    }
}
