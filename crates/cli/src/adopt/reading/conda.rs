//! What scripts say of Conda: activations, `conda run`, and paths that lead into an environment.

use super::{Found, Reader, Target, shown, told};
use crate::adopt::shell::{Command, Word};
use buildbot_conda_core::unit_text::Place;

impl Reader<'_> {
    /// The directory above a `bin`: an environment when it lies below `envs`, else an installation.
    pub(super) fn prefix_or_root(&mut self, directory: &str, place: &Place) {
        let parent = directory.rsplit_once('/').map_or("", |(parent, _)| parent);
        if parent.ends_with("/envs") {
            self.target(Target::Prefix(directory.to_owned()), place);
        } else {
            self.root(directory, place);
        }
    }

    pub(super) fn root(&mut self, directory: &str, place: &Place) {
        let directory = directory.trim_end_matches('/');
        if directory.starts_with('/') {
            self.reading.root = Some(Found {
                value: directory.to_owned(),
                place: place.clone(),
            });
        }
    }

    pub(super) fn target(&mut self, target: Target, place: &Place) {
        self.reading.target = Some(Found {
            value: target,
            place: place.clone(),
        });
    }

    /// An environment as `conda activate` takes it.
    pub(super) fn activate(&mut self, command: &Command, word: Option<&Word>, place: &Place) {
        if command.conditional {
            self.problem(
                place.clone(),
                &format!("`{}` depends on a condition", told(&command.words)),
            );
            return;
        }
        let Some(word) = word else {
            self.target(Target::Named("base".to_owned()), place);
            return;
        };
        match &word.value {
            Some(name) if name.contains('/') => match self.absolute(name) {
                Some(path) => self.target(Target::Prefix(path), place),
                None => self.unknown(word, place),
            },
            Some(name) => self.target(Target::Named(name.clone()), place),
            None => self.unknown(word, place),
        }
    }

    pub(super) fn unknown(&mut self, word: &Word, place: &Place) {
        let text = format!("`{}` cannot be told without running it", shown(&word.raw));
        self.problem(place.clone(), &text);
    }

    pub(super) fn conda(&mut self, command: &Command, first: &Word, rest: &[Word], place: &Place) {
        if let Some(root) = first
            .known()
            .strip_suffix("/bin/conda")
            .or(first.known().strip_suffix("/condabin/conda"))
        {
            self.root(root, place);
        }
        let Some((verb, rest)) = rest.split_first() else {
            return;
        };
        match verb.known() {
            "activate" => {
                let name = rest.iter().find(|word| !word.raw.starts_with('-'));
                self.activate(command, name, place);
            }
            "deactivate" => self.reading.target = None,
            "run" => self.conda_run(command, rest, place),
            _ => self.leave(place.clone(), &told(&command.words)),
        }
    }

    pub(super) fn conda_run(&mut self, command: &Command, rest: &[Word], place: &Place) {
        let mut words = rest.iter();
        let mut taken = 0;
        while let Some(word) = words.next() {
            let (option, value) = match word.raw.split_once('=') {
                Some((option, _)) if option.starts_with("--") => {
                    let value = word
                        .known()
                        .split_once('=')
                        .map(|(_, value)| Word::plain(value));
                    (option, value)
                }
                _ => (word.raw.as_str(), None),
            };
            if !option.starts_with('-') {
                break;
            }
            taken += 1;
            if !["-n", "--name", "-p", "--prefix", "--cwd"].contains(&option) {
                continue;
            }
            let value = value.or_else(|| {
                taken += 1;
                words.next().cloned()
            });
            if option == "--cwd" {
                let path = value.and_then(|word| word.value);
                self.directory = path.and_then(|path| self.absolute(&path));
            } else {
                self.activate(command, value.as_ref(), place);
            }
        }
        let inner = Command {
            words: rest[taken.min(rest.len())..].to_vec(),
            ..command.clone()
        };
        self.command(&inner, &place.file);
    }
}
