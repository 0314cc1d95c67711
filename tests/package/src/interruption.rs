//! Observes dpkg step by step, and interrupts it before one of them with everything that it has started.
//!
//! A step is a system call that changes a file or starts a program. The programs are those of the package and of
//! Debian, unchanged. The tests examine the result of an interruption.
//!
//! SIGKILL allows no process to do anything, so it leaves exactly the content of the file system at that moment. One
//! run that is stopped at each moment, and whose root is copied then, gives the same results as a separate killed run
//! for each moment, at a third of the cost. Everything is stopped meanwhile: other processes that want to change a file
//! have to wait for the tracer. [`kill_at`] really kills, for comparison.

use std::collections::HashMap;

use buildbot_conda_trace::{Ended, Event, Exec, Next, Pid, Step, run};

use crate::DebianRoot;

/// Of dpkg's own steps, only one in so many is tested.
const ONE_OF: usize = 14;

/// Longest description of a step, in characters.
const WIDTH: usize = 100;

/// The time before a step of an undisturbed run.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The step's place among all, counted from 1.
    number: usize,
    /// The maintainer script to which it belongs, directly or through its children; otherwise `dpkg`.
    pub script: String,
    /// What is about to be done.
    pub text: String,
}

/// Who a process works for.
#[derive(Clone, Debug, Default)]
struct Origin {
    script: Option<String>,
    /// Does it belong to a tool of Debian's, whose inner steps are its own business?
    is_tool: bool,
}

/// A step with all that is known about it.
#[derive(Debug)]
struct Made {
    moment: Moment,
    step: Step,
    origin: Origin,
}

/// Follows dpkg from its start, and counts.
#[derive(Debug, Default)]
struct Count {
    steps: usize,
    has_begun: bool,
    origins: HashMap<Pid, Origin>,
}

impl Count {
    /// Counts an event; returns the number of a step.
    fn note(&mut self, event: &Event) -> Option<usize> {
        match event {
            Event::Exec(exec) => {
                self.has_begun |= exec.program.ends_with("usr/bin/dpkg");
                let origin = self.origins.entry(exec.pid).or_default();
                let script = script_of(exec);
                // adduser and deb-systemd-helper, with all that they call; and debconf around the scripts.
                origin.is_tool =
                    script.is_none() && (origin.is_tool || exec.program.ends_with("usr/bin/perl"));
                origin.script = script.or(origin.script.take());
                None
            }
            Event::Child { pid, parent } => {
                let origin = self.origins.get(parent).cloned().unwrap_or_default();
                self.origins.insert(*pid, origin);
                None
            }
            Event::Step(_) if self.has_begun => {
                self.steps += 1;
                Some(self.steps)
            }
            Event::Step(_) | Event::Made(..) => None,
        }
    }
}

/// `postinst`, for one of dpkg's copies of it that is run by the shell or by debconf.
fn script_of(exec: &Exec) -> Option<String> {
    let mut names = exec.arguments.iter().take(4).filter_map(|word| {
        word.strip_prefix("/var/lib/dpkg/info/buildbot-conda.")
            .or_else(|| word.strip_prefix("/var/lib/dpkg/tmp.ci/"))
    });
    names.next().map(str::to_owned)
}

/// Lets `command`, a call of dpkg, run undisturbed in `root`, and returns the moments at which killing it is of
/// interest.
#[track_caller]
pub fn moments(root: &DebianRoot, command: &str) -> Vec<Moment> {
    let mut count = Count::default();
    // The last step of each process, until it is known what has come of it.
    let mut begun: HashMap<Pid, Made> = HashMap::new();
    let mut made = Vec::new();
    let ended = run(&root.command(&format!("exec {command}")), |event| {
        let number = count.note(event);
        match event {
            Event::Step(step) => {
                if let Some(number) = number {
                    let origin = count.origins.get(&step.pid).cloned().unwrap_or_default();
                    begun.insert(step.pid, describe(root, number, step, origin));
                }
            }
            Event::Exec(exec) => {
                if let Some(last) = begun.get_mut(&exec.pid) {
                    last.moment.text = cut(&format!("run `{}`", exec.arguments.join(" ")));
                    last.moment.script = script_of(exec).unwrap_or(last.moment.script.clone());
                }
            }
            Event::Made(pid, succeeded) => made.extend(begun.remove(pid).filter(|_| *succeeded)),
            Event::Child { .. } => {}
        }
        Next::Continue
    });
    assert_eq!(
        ended.expect("dpkg can be traced"),
        Ended::Exited(0),
        "{command}"
    );
    choose(made)
}

/// The moments that matter: no two of them with nothing changed in between. Inside of Debian's tools those are the times
/// before something appears in its place. What is written piece by piece into one file counts once.
fn choose(made: Vec<Made>) -> Vec<Moment> {
    let mut of_dpkg = 0;
    let mut has_changed = true;
    let mut last = None;
    let mut chosen = Vec::new();
    for Made {
        moment,
        step,
        origin,
    } in made
    {
        let path = step.paths.last().cloned();
        let is_more = step.call == "write" && path == last;
        last.clone_from(&path);
        let changes = step.call != "execve" && !path.as_deref().is_some_and(keeps_nothing);
        // Backups and new versions of the account files; the tools' own names for them.
        let is_passing = path.is_some_and(|path| path.ends_with(['-', '+']));
        let matters = if origin.script.is_none() && moment.script == "dpkg" {
            of_dpkg += 1;
            of_dpkg % ONE_OF == 0
        } else if origin.is_tool {
            matches!(step.call, "rename" | "mkdir" | "chown" | "symlink")
        } else {
            true
        };
        if matters && has_changed && !is_more && !is_passing {
            chosen.push(moment);
            has_changed = false;
        }
        has_changed |= changes;
    }
    chosen
}

/// Is nothing of the system's state in the file?
fn keeps_nothing(path: &str) -> bool {
    path.ends_with("/dev/null") || path.contains("/var/log/")
}

/// Lets `command` run in `root` and stops it at each of `moments`, which are in the order of their steps; the callback
/// gets a system like the one that SIGKILL leaves at that moment.
#[track_caller]
pub fn at_each(
    root: &DebianRoot,
    command: &str,
    moments: &[&Moment],
    mut inspect: impl FnMut(&Moment, DebianRoot) + Send,
) {
    let mut count = Count::default();
    let mut next = 0;
    let ended = run(&root.command(&format!("exec {command}")), |event| {
        let number = count.note(event);
        if let Some(moment) = moments.get(next)
            && number == Some(moment.number)
        {
            inspect(moment, root.snapshot());
            next += 1;
        }
        Next::Continue
    });
    assert_eq!(
        ended.expect("dpkg can be traced"),
        Ended::Exited(0),
        "{command}"
    );
    let missed = moments.get(next);
    assert!(missed.is_none(), "`{command}` has not come to {missed:?}");
}

/// Kills `command` in `root` at `moment`.
#[track_caller]
pub fn kill_at(root: &DebianRoot, command: &str, moment: &Moment) {
    let mut count = Count::default();
    let ended = run(&root.command(&format!("exec {command}")), |event| {
        if count.note(event) == Some(moment.number) {
            Next::Kill
        } else {
            Next::Continue
        }
    });
    assert_eq!(
        ended.expect("dpkg can be traced"),
        Ended::Killed,
        "`{command}` has not come to {moment:?}"
    );
}

fn describe(root: &DebianRoot, number: usize, step: &Step, origin: Origin) -> Made {
    let mount_point = root.mount_point();
    let path = step.paths.last().map(String::as_str).unwrap_or_default();
    let path = path
        .strip_prefix(mount_point.to_str().unwrap_or_default())
        .unwrap_or(path);
    // The name of a temporary file has a random ending.
    let path = match path.rsplit_once('.') {
        Some((start, end)) if start.contains("/.") && end.len() == 6 => format!("{start}.*"),
        _ => path.to_owned(),
    };
    let script = origin.script.clone();
    Made {
        moment: Moment {
            number,
            script: script.unwrap_or_else(|| "dpkg".to_owned()),
            text: cut(&format!("{} `{path}`", step.call)),
        },
        step: step.clone(),
        origin,
    }
}

/// On one line, in a form that is valid in a table.
fn cut(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ").replace('|', "\\|");
    if text.chars().count() <= WIDTH {
        return text;
    }
    let start: String = text.chars().take(WIDTH - 4).collect();
    format!("{} ...`", start.trim_end_matches('\\'))
}
