//! Complete configurations and the resulting units and drop-ins, and invalid configurations and their exact messages.
//!
//! Each directory `golden/NN-behaviour/` contains `config.toml` and the expected result:
//! `UNIT.service.d/10-buildbot-conda.conf` for every valid instance, and `problems` for the messages, if any.
//! `golden/00-units/` contains the unit files of the package. With `UPDATE=1` in the environment the expectations are
//! rewritten.

#![expect(
    clippy::disallowed_methods,
    reason = "the test reads and writes the trees that the pure crate decides about"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use buildbot_conda_core::dropin::DropIn;
use buildbot_conda_core::settings::Settings;
use buildbot_conda_core::{paths, unit};

/// Content by path relative to the case's directory.
type Tree = BTreeMap<String, String>;

#[test]
fn configurations_become_exactly_these_drop_ins_and_problems() {
    let mut cases = 0;
    for case in cases_in(&golden()) {
        let Ok(config) = fs::read(case.join("config.toml")) else {
            continue;
        };
        cases += 1;
        compare(&case, &outcome(&config));
    }
    assert!(cases >= 20, "only {cases} cases were found");
}

#[test]
fn the_unit_files_that_ship_are_exactly_these() {
    let tree = unit::files()
        .into_iter()
        .map(|file| (file.name, file.text))
        .collect();
    compare(&golden().join("00-units"), &tree);
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases_in(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the golden directory is there");
    let mut cases: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the golden directory is readable").path())
        .collect();
    cases.sort();
    cases
}

fn outcome(config: &[u8]) -> Tree {
    let settings = Settings::parse("config.toml", config);
    let mut problems: Vec<String> = settings
        .problems()
        .iter()
        .map(|problem| problem.display(settings.file()).to_string())
        .collect();
    let mut tree = Tree::new();
    for instance in settings.instances() {
        match DropIn::of(instance) {
            Ok(drop_in) => {
                let text = drop_in.text();
                let path = format!("{}/{}", drop_in.directory_name(), paths::DROP_IN);
                tree.insert(path, text);
            }
            Err(refused) => problems.extend(
                refused
                    .iter()
                    .map(|refused| format!("{}: {refused}", settings.file())),
            ),
        }
    }
    if !problems.is_empty() {
        tree.insert("problems".to_owned(), problems.join("\n") + "\n");
    }
    tree
}

#[track_caller]
fn compare(case: &Path, tree: &Tree) {
    let expected = expected(case);
    if &expected == tree {
        return;
    }
    if std::env::var_os("UPDATE").is_some() {
        rewrite(case, &expected, tree);
        return;
    }
    for path in expected.keys().chain(tree.keys()) {
        assert_eq!(
            tree.get(path).map(String::as_str),
            expected.get(path).map(String::as_str),
            "{path} of {} (left: now, right: expected; UPDATE=1 rewrites)",
            case.display(),
        );
    }
}

/// What lies in the case's directory now, but for the input.
fn expected(case: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut directories = vec![case.to_owned()];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("the case is readable").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let name = path.strip_prefix(case).expect("it was found there");
            if name != Path::new("config.toml") {
                let text = fs::read_to_string(&path).expect("expectations are UTF-8");
                tree.insert(name.display().to_string(), text);
            }
        }
    }
    tree
}

fn rewrite(case: &Path, expected: &Tree, tree: &Tree) {
    for path in expected.keys().filter(|path| !tree.contains_key(*path)) {
        let path = case.join(path);
        fs::remove_file(&path).expect("the old expectation goes");
        // The directory goes with its last file; one that still holds others stays.
        let _ = fs::remove_dir(path.parent().expect("a file is in a directory"));
    }
    for (path, text) in tree {
        let path = case.join(path);
        let parent = path.parent().expect("a file is in a directory");
        fs::create_dir_all(parent).expect("the case is writable");
        fs::write(&path, text).expect("the case is writable");
    }
}
