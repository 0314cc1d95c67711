//! Every program that the product calls or advises, with every option, against the table of `docs/compatibility.md`.
//!
//! The sources are read as text: an option belongs to a program of the table that the same file names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/compatibility.md");

/// Options between our own programs, which are always of one version.
const OURS: &[&str] = &[
    "--at",
    "--cache",
    "--channel",
    "--conda-env",
    "--conda-root",
    "--cwd",
    "--database",
    "--database-file",
    "--directory",
    "--drain",
    "--dry-run",
    "--json",
    "--environment",
    "--file",
    "--from-stdin",
    "--give-up",
    "--inside",
    "--keep",
    "--log",
    "--max-files",
    "--max-ratio",
    "--max-size",
    "--mirror",
    "--name",
    "--no-restart",
    "--of-upgrade",
    "--offline",
    "--only",
    "--reference",
    "--root",
    "--script-ended",
    "--start-timeout",
    "--to",
    "--to-file",
    "--upgrade",
    "--used-as",
    "--user",
];

/// What `adopt` reads in the scripts and units of others is not called.
const READ: &[&str] = &[
    "crates/cli/src/adopt/reading",
    "crates/cli/src/adopt/derive",
];

/// Modules that are compiled for tests alone.
const TESTS: &[&str] = &["/tests.rs", "/properties.rs"];

/// The cells of each row of the table whose header starts with `first`.
fn rows(first: &str) -> Vec<Vec<String>> {
    let header = format!("| {first} |");
    let from = PAGE.find(&header).expect("the page has the table");
    let lines = PAGE[from..].lines().skip(2);
    lines
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().to_owned()).collect()
        })
        .collect()
}

/// `2.36.1` as its first two numbers.
fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map_while(|part| part.parse().ok());
    let first = parts.next();
    let first = first.unwrap_or_else(|| panic!("`{text}` is not a version"));
    (first, parts.next().unwrap_or(0))
}

/// Every option of the table: program, package and option, with its version.
fn table() -> BTreeMap<(String, String, String), (u32, u32)> {
    let mut found = BTreeMap::new();
    for row in rows("program") {
        let [program, package, options] = &row[..] else {
            panic!("three cells: {row:?}");
        };
        for option in options.split(',').map(str::trim) {
            let (name, since) = option.split_once(' ').unwrap_or((option, "0"));
            let (program, name) = (program.trim_matches('`'), name.trim_matches('`'));
            let key = (program.to_owned(), package.clone(), name.to_owned());
            assert_eq!(
                found.insert(key, version(since)),
                None,
                "{row:?} is there twice"
            );
        }
    }
    found
}

/// The workspace's directory.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Adds the programs' sources below a directory.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("it can be listed").path();
        let name = path.to_string_lossy();
        if path.is_dir() {
            sources(&path, found);
        } else if name.contains("/src/") && name.ends_with(".rs") {
            let is_test = TESTS.iter().any(|test| name.ends_with(test));
            if !is_test {
                found.push(path);
            }
        }
    }
}

/// A file's code without comments and tests.
fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = product.lines();
    let lines = lines.filter(|line| !line.trim_start().starts_with(['#', '/']));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The texts between quotes.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut inside) = (Vec::new(), None::<String>);
    let mut characters = code.chars();
    while let Some(character) = characters.next() {
        match (&mut inside, character) {
            (Some(text), '\\') => text.extend(characters.next()),
            (Some(_), '"') => found.extend(inside.take()),
            (Some(text), other) => text.push(other),
            (None, '"') => inside = Some(String::new()),
            (None, _) => {}
        }
    }
    found
}

/// `--name` of `--name=VALUE`, `-n` of one letter; other words are not options.
fn option(word: &str) -> Option<&str> {
    let name = word.split('=').next().unwrap_or_default();
    let (dashes, rest) = match name.strip_prefix("--") {
        Some(rest) => (2, rest),
        None => (1, name.strip_prefix('-')?),
    };
    let is_name = rest
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let is_letter = rest.len() == 1 && rest.as_bytes()[0].is_ascii_alphabetic();
    let is_option = if dashes == 2 {
        rest.len() > 1 && is_name
    } else {
        is_letter
    };
    is_option.then_some(name)
}

/// Every file that calls programs: its path in the workspace, its code, and the options in it.
fn files() -> Vec<(String, String, BTreeSet<String>)> {
    let mut paths = Vec::new();
    sources(&workspace().join("crates"), &mut paths);
    let scripts = ["config", "postinst", "postrm", "preinst", "prerm"];
    paths.extend(scripts.map(|name| workspace().join("debian").join(name)));
    let mut found = Vec::new();
    for path in paths {
        let name = path.strip_prefix(workspace()).expect("it is below it");
        let name = name.to_string_lossy().into_owned();
        if READ.iter().any(|read| name.starts_with(read)) {
            continue;
        }
        let code = code(&fs::read_to_string(&path).expect("it is text"));
        let words: Vec<String> = if name.starts_with("debian") {
            // Single letters can also be arguments of `[`.
            let words = code
                .split_whitespace()
                .filter(|word| word.starts_with("--"));
            words.map(str::to_owned).collect()
        } else {
            literals(&code)
        };
        let options = words.iter().filter_map(|word| option(word));
        let options = options.map(str::to_owned).collect();
        found.push((name, code, options));
    }
    found
}

/// Whether code has a program's name as a word; `python_of` is about `python`.
fn names(code: &str, program: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    code.match_indices(program).any(|(at, _)| {
        let before = code[..at].bytes().next_back();
        let after = code[at + program.len()..].bytes().next();
        !before.into_iter().chain(after).any(is_part)
    })
}

#[test]
fn every_option_of_a_called_program_is_listed_and_every_listed_one_is_used() {
    let table = table();
    let programs: BTreeSet<&str> = table.keys().map(|key| key.0.as_str()).collect();
    let mut unused: BTreeSet<(&str, &str)> = table
        .keys()
        .filter(|key| key.2.starts_with('-'))
        .map(|(program, _, option)| (program.as_str(), option.as_str()))
        .collect();
    let mut unlisted = Vec::new();
    let files = files();
    for (file, code, options) in &files {
        for option in options {
            let mut known = OURS.contains(&option.as_str());
            for program in &programs {
                let is_listed = table
                    .keys()
                    .any(|key| key.0 == *program && key.2 == *option);
                if is_listed && names(code, program) {
                    known = true;
                    unused.remove(&(*program, option.as_str()));
                }
            }
            if !known {
                unlisted.push(format!("{file}: {option}"));
            }
        }
        for call in code.split("Command::new(\"").skip(1) {
            let program = call.split('"').next().unwrap_or_default();
            let program = program.rsplit('/').next().unwrap_or_default();
            if !programs.contains(program) {
                unlisted.push(format!("{file}: {program}"));
            }
        }
    }
    assert!(
        unlisted.is_empty(),
        "not in docs/compatibility.md: {unlisted:#?}"
    );
    assert!(unused.is_empty(), "not used any more: {unused:#?}");
}

#[test]
fn no_listed_option_is_younger_than_the_oldest_supported_system() {
    let matrix = rows("system");
    let header = PAGE.lines().find(|line| line.starts_with("| system |"));
    let header: Vec<&str> = header
        .expect("it is there")
        .split('|')
        .map(str::trim)
        .collect();
    let oldest = |package: &str| {
        let column = header.iter().position(|cell| *cell == package)? - 1;
        matrix.iter().map(|row| version(&row[column])).min()
    };
    for ((program, package, option), since) in &table() {
        match oldest(package) {
            Some(oldest) => assert!(
                *since <= oldest,
                "`{program} {option}` needs {package} {since:?}"
            ),
            // No version of it matters.
            None => assert_eq!(
                *since,
                (0, 0),
                "say which `{package}` the supported systems have"
            ),
        }
    }
    assert_eq!(oldest("systemd"), Some((247, 0)));
}
