//! Programs that start another one as another account or in a terminal that nobody sees. What they make of it, the process
//! that came of it answers; what is inside of them is read all the same, as it may contain what no process shows.

use std::collections::BTreeMap;

use super::super::verdict::Verdict;
use super::{Argument, Done, Reader, as_written, shown};

/// How a program that is not understood is refused.
pub(super) const HIDES: &str = "changes the account or hides the command that is started";

/// The options of such a program that change nothing but account, terminal, directory, umask and niceness.
struct Wrapper {
    flags: &'static [&'static str],
    /// With a value, attached or not.
    valued: &'static [&'static str],
    /// The value is a command line, or the program itself.
    commands: &'static [&'static str],
    /// Words without a hyphen before the program.
    operands: usize,
}

fn wrapper(name: &str) -> Option<Wrapper> {
    let (flags, valued, commands, operands): (&[_], &[_], &[_], _) = match name {
        "su" => (
            &["-", "-l", "--login", "-p", "-m"],
            &["-s", "--shell", "-g", "--group"],
            &["-c", "--command"],
            usize::MAX,
        ),
        "sudo" => (
            &["-H", "-E", "-n", "-i", "-b", "--login", "--set-home"],
            &["-u", "--user", "-g", "--group"],
            &[],
            0,
        ),
        "runuser" => (
            &["-", "-l", "--login", "-p", "-m"],
            &["-u", "--user", "-g", "--group", "-s", "--shell"],
            &["-c", "--command"],
            0,
        ),
        "start-stop-daemon" => (
            &[
                "-S",
                "--start",
                "-b",
                "--background",
                "-m",
                "--make-pidfile",
                "-q",
                "--quiet",
                "-v",
                "--verbose",
                "-o",
                "--oknodo",
            ],
            &[
                "-c",
                "--chuid",
                "-u",
                "--user",
                "-g",
                "--group",
                "-d",
                "--chdir",
                "-p",
                "--pidfile",
                "-n",
                "--name",
                "-N",
                "--nicelevel",
                "-k",
                "--umask",
            ],
            &["-x", "--exec", "-a", "--startas"],
            0,
        ),
        "screen" => (&["-d", "-m", "-dm", "-D"], &["-S", "-dmS", "-c"], &[], 0),
        "tmux" => (&["-d"], &["-s", "-n", "-c", "-L"], &[], 1),
        "systemd-run" => (
            &["--scope", "--quiet", "-q", "--collect", "-G"],
            &["--uid", "--gid", "--unit"],
            &[],
            0,
        ),
        _ => return None,
    };
    Some(Wrapper {
        flags,
        valued,
        commands,
        operands,
    })
}

impl Reader<'_> {
    /// A start inside of such a program; nothing when it is none.
    pub(super) fn wrapper(&mut self, name: &str, words: &[Argument]) -> Option<Done> {
        let wrapper = wrapper(name)?;
        let text = as_written(words);
        let Some((inner, is_login)) = inner(name, &wrapper, &words[1..]) else {
            return Some(self.refuse(&format!("`{}` {HIDES}", shown(&text))));
        };
        let begin = self.verdicts.0.len();
        let outer = self.start.take();
        let place = self.place.clone();
        self.apart(|reader| {
            let home = reader.state.scope.variables.get("HOME");
            if let Some(home) = home.filter(|_| is_login) {
                reader.state.scope.directory = home.value.clone();
            }
            reader.state.scope.functions.clear();
            reader.command(&inner, &BTreeMap::new()).went()
        });
        self.place = place;
        let found = std::mem::replace(&mut self.start, outer);
        let judged = self.verdicts.0.split_off(begin);
        // Of another such program inside of this one.
        let is_hidden = judged.iter().any(|judged| match &judged.verdict {
            Verdict::Refused {
                reason,
                is_settled_by_process: true,
            } => reason.ends_with(HIDES),
            _ => false,
        });
        // A process shows these, and nothing else of what a shell can set for it.
        let is_shown = found.map_or(is_hidden, |found| {
            let mut keys = found.process.keys();
            keys.all(|key| ["Nice", "UMask"].contains(key))
        });
        let refused = judged.iter().find_map(|judged| match &judged.verdict {
            Verdict::Refused {
                reason,
                is_settled_by_process: false,
            } => Some(reason.clone()),
            _ => None,
        });
        let left = judged.into_iter();
        self.verdicts
            .0
            .extend(left.filter(|judged| judged.verdict == Verdict::Left));
        Some(match refused {
            Some(reason) => self.refuse(&format!("within `{}`: {reason}", shown(&text))),
            None if is_shown => {
                let reason = format!("`{}` {HIDES}", shown(&text));
                self.verdicts.not_known(&self.place, &reason)
            }
            None => self.refuse(&format!("`{}` {HIDES}", shown(&text))),
        })
    }
}

/// The command that is started, and whether that is in the home directory. Nothing when an option is not known.
fn inner(name: &str, wrapper: &Wrapper, words: &[Argument]) -> Option<(Vec<Argument>, bool)> {
    let mut rest = words;
    let mut command = None;
    let mut is_login = false;
    let mut operands = wrapper.operands;
    let has = |wanted: &str| words.iter().any(|word| word.raw == wanted);
    if name == "runuser" && !has("-u") && !has("--user") {
        // Then it is `su`.
        operands = usize::MAX;
    }
    while let Some((word, behind)) = rest.split_first() {
        let raw = word.raw.as_str();
        let (option, attached) = match raw.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (raw, None),
        };
        if raw == "--" {
            rest = behind;
            break;
        }
        if wrapper.flags.contains(&raw) {
            is_login |= ["-", "-l", "-i", "--login"].contains(&raw);
            rest = behind;
        } else if wrapper.valued.contains(&option) || wrapper.commands.contains(&option) {
            let value = if let Some(value) = attached {
                rest = behind;
                Argument::plain(value)
            } else {
                rest = behind.get(1..)?;
                behind[0].clone()
            };
            if wrapper.commands.contains(&option) {
                command = Some(value);
            }
        } else if raw.starts_with('-') {
            return None;
        } else if name == "sudo" && raw.contains('=') {
            rest = behind;
        } else if operands > 0 && (name != "tmux" || ["new-session", "new"].contains(&raw)) {
            operands -= 1;
            rest = behind;
        } else {
            break;
        }
    }
    let shell = |text: Argument| vec![Argument::plain("sh"), Argument::plain("-c"), text];
    let inner = match command {
        Some(program) if name == "start-stop-daemon" => std::iter::once(program)
            .chain(rest.iter().cloned())
            .collect(),
        Some(text) if rest.is_empty() => shell(text),
        None if name == "tmux" && rest.len() == 1 => shell(rest[0].clone()),
        None if name != "su" && name != "start-stop-daemon" && !rest.is_empty() => rest.to_vec(),
        _ => return None,
    };
    Some((inner, is_login))
}
