//! Plans whose steps fail, are interrupted or killed: what is left of them, on a real file system.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::super::recovery;
use super::super::step::UserStep;
use super::*;
use crate::system::context::Context;
use crate::system::values::Identity;

/// As `journal` has it.
const LOCK: &str = "var/lib/buildbot-conda/lock";

struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The lock of a journal that was dropped is held a little longer by a child that another test is just forking.
    fn context(&self) -> Context {
        let lock = File::options().write(true).open(self.path(LOCK));
        let wait = |lock| rustix::fs::flock(lock, rustix::fs::FlockOperation::LockExclusive);
        lock.as_ref().map(wait).ok();
        Context::new(Some(self.0.path().to_owned()))
    }

    fn journal(&self) -> Journal {
        recovery::begin(&self.context()).unwrap()
    }

    fn unfinished(&self) -> bool {
        self.path("var/lib/buildbot-conda/unfinished.json").exists()
    }

    fn write(&self, name: &str, text: &str) -> Step {
        let step = FileStep::Write {
            path: self.path(name),
            text: text.to_owned(),
            mode: Mode::new(0o644),
            secret: false,
        };
        step.into()
    }

    /// A directory with data in it, and the step that removes it.
    fn data(&self, name: &str) -> Step {
        fs::create_dir_all(self.path(name)).unwrap();
        fs::write(self.path(name).join("state.sqlite"), "").unwrap();
        let path = self.path(name);
        FileStep::RemoveTree { path }.into()
    }
}

/// Fails always: nothing has such an account.
fn impossible(directory: &Path) -> Step {
    let identity = Identity {
        user: "no-such-account".parse().unwrap(),
        group: None,
    };
    let step = UserStep::Clear {
        identity,
        directory: directory.to_owned(),
        keep: false,
    };
    step.into()
}

fn plan(steps: Vec<Step>) -> Plan {
    Plan {
        title: "test".to_owned(),
        notes: Vec::new(),
        steps,
    }
}

fn carried_out(steps: Vec<Step>, host: &Host, interrupted: bool) -> anyhow::Result<()> {
    carry_out_until(&plan(steps), &host.journal(), None, || interrupted)
}

#[test]
fn an_interrupted_plan_is_rolled_back_and_a_completed_one_is_not() {
    let host = Host::new();
    let steps = vec![host.write("a", "new")];
    let error = carried_out(steps.clone(), &host, true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "interrupted; all changes were rolled back"
    );
    assert!(!host.path("a").exists() && !host.unfinished());
    carried_out(steps, &host, false).unwrap();
    assert!(host.path("a").exists() && !host.unfinished());
}

#[test]
fn after_the_first_removal_of_data_everything_else_is_done_whatever_fails() {
    let host = Host::new();
    let steps = vec![
        host.write("configuration", "without it"),
        host.data("master"),
        impossible(host.0.path()),
        host.data("state"),
    ];
    let error = carried_out(steps, &host, false).unwrap_err().to_string();
    assert!(
        error.starts_with("not everything could be removed: ")
            && error.contains("account `no-such-account` not found"),
        "{error}"
    );
    assert!(!host.path("master").exists() && !host.path("state").exists());
    assert_eq!(
        fs::read_to_string(host.path("configuration")).unwrap(),
        "without it"
    );
    // And nobody is kept from anything.
    assert!(!host.unfinished());
    carried_out(vec![host.write("later", "")], &host, false).unwrap();
}

#[test]
fn what_is_killed_while_data_goes_is_completed_by_the_next_command() {
    let host = Host::new();
    let mut begun = Begun::new("remove master");
    begun.remaining = vec![host.data("master"), host.data("state")];
    host.journal().write(&begun).unwrap();
    fs::remove_dir_all(host.path("master")).unwrap();

    drop(host.journal());
    assert!(!host.path("state").exists() && !host.unfinished());
}

#[test]
fn what_others_keep_from_being_rolled_back_is_reported_and_blocks_nobody() {
    let host = Host::new();
    fs::write(host.path("a"), "old").unwrap();
    let mut begun = Begun::new("create worker");
    begun.undo = vec![impossible(host.0.path()), host.write("a", "old")];
    let error = after_failure(&anyhow!("no room\nhint: make some"), begun, &host.journal());
    assert!(!host.unfinished());
    let text = format!("{error:#}");
    assert!(
        text.starts_with("no room; all changes were rolled back, except: clear `")
            && text.ends_with("account `no-such-account` not found\nhint: make some"),
        "{text}"
    );
}

#[test]
fn what_root_cannot_roll_back_is_kept_until_somebody_gives_it_up() {
    let host = Host::new();
    // A directory is where the file shall be again.
    fs::create_dir_all(host.path("a/b")).unwrap();
    let mut begun = Begun::new("create worker");
    begun.undo = vec![host.write("a", "old"), host.write("c", "old")];
    host.journal().write(&begun).unwrap();

    let error = recovery::begin(&host.context()).unwrap_err().to_string();
    assert!(
        error.starts_with("not everything could be rolled back: write `")
            && error.contains("`buildbot-conda recover --give-up`"),
        "{error}"
    );
    // What could be done has been, and is not done again.
    assert_eq!(fs::read_to_string(host.path("c")).unwrap(), "old");
    let (begun, journal) = recovery::take_up(&host.context()).unwrap().unwrap();
    assert_eq!(begun.undo.len(), 1);
    drop(journal);

    let aside = recovery::give_up(&host.context()).unwrap().unwrap();
    assert!(aside.is_file() && !host.unfinished());
    assert_eq!(recovery::give_up(&host.context()).unwrap(), None);
    drop(host.journal());
}

#[test]
fn what_another_version_has_left_is_refused_and_can_be_given_up() {
    let host = Host::new();
    drop(host.journal());
    let path = host.path("var/lib/buildbot-conda/unfinished.json");
    fs::write(&path, "{\"version\":9}").unwrap();
    let error = format!("{:#}", recovery::begin(&host.context()).unwrap_err());
    assert!(
        error.contains("cannot be read by this version of `buildbot-conda`: its format is 9")
            && error.contains("`buildbot-conda recover --give-up`"),
        "{error}"
    );
    let aside = recovery::give_up(&host.context()).unwrap().unwrap();
    assert_eq!(fs::read_to_string(aside).unwrap(), "{\"version\":9}");
    drop(host.journal());
}

#[test]
fn the_last_thing_of_a_rollback_is_that_systemd_reads_its_units() {
    let reload = || Step::from(UnitStep::ReloadSystemd);
    let unit = "buildbot-master.service".parse().unwrap();
    let start = Step::from(UnitStep::Start { unit });
    let remove = |path: &str| Step::from(FileStep::Remove { path: path.into() });
    let link = remove("/etc/systemd/system/multi-user.target.wants/buildbot-master.service");
    let configure = Step::from(FileStep::Configure {
        path: "/etc/buildbot-conda/config.toml".into(),
        before: String::new(),
        after: String::new(),
        references: Vec::new(),
        lines: Vec::new(),
    });
    let check = |undo: Vec<Step>, is_added: bool| {
        let steps = with_final_reload(undo.clone());
        let added = is_added.then(reload);
        assert_eq!(steps, undo.into_iter().chain(added).collect::<Vec<_>>());
    };
    check(vec![reload(), link.clone(), configure.clone()], true);
    check(vec![configure], true);
    // It has read them before the start.
    check(vec![link, reload(), start, remove("/var/backups/x")], false);
    check(vec![remove("/etc/buildbot-conda/credentials/x")], false);
}
