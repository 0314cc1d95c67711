//! The copyright file of the package: the text of `debian/copyright` for our own code, and a paragraph for each library
//! that is linked into a program of the package, with the notices that its licence requires.
//!
//! Every build creates it from the versions in Cargo.lock, so it cannot be outdated.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::libraries::Library;

/// Licences of which a notice may be taken over, by their SPDX names and by those of Debian's format. Of alternatives
/// only these are listed; `deny.toml` allows no others.
const LICENCES: [(&str, &str); 7] = [
    ("Apache-2.0", "Apache-2.0"),
    ("BSD-2-Clause", "BSD-2-clause"),
    ("BSD-3-Clause", "BSD-3-clause"),
    ("ISC", "ISC"),
    ("MIT", "Expat"),
    ("Unicode-3.0", "Unicode-3.0"),
    ("Zlib", "Zlib"),
];

/// Further ones that only buildbot-conda-env links, used if there is no other choice.
const LICENCES_OF_ENVIRONMENTS: [(&str, &str); 3] = [
    ("BSL-1.0", "BSL-1.0"),
    ("MPL-2.0", "MPL-2.0"),
    ("bzip2-1.0.6", "bzip2-1.0.6"),
];

/// Writes the file for programs that link `libraries` to `path`. `heads` are files in `debian/` that come first: what they
/// say of our own code, and the licences.
pub(super) fn write(
    workspace: &Path,
    libraries: &[Library],
    heads: &[&str],
    path: &Path,
) -> Result<()> {
    let mut texts = Vec::new();
    for head in heads {
        let own = workspace.join("debian").join(head);
        let text = fs::read_to_string(&own).with_context(|| format!("read `{}`", own.display()))?;
        texts.push(text.trim_end().to_owned());
    }
    let text = complete(&texts.join("\n\n"), libraries)?;
    fs::write(path, text).with_context(|| format!("write `{}`", path.display()))
}

/// The whole file: `head`, and below it the libraries. The text of every licence that they name is in `head`.
fn complete(head: &str, libraries: &[Library]) -> Result<String> {
    let mut text = head.trim_end().to_owned() + "\n";
    for library in libraries {
        let expression = library
            .license
            .as_deref()
            .with_context(|| format!("find a licence in the manifest of `{}`", library.name))?;
        let licence = debian_name(expression)
            .with_context(|| format!("read the licence of `{}`", library.name))?;
        for name in licence.split(" or ").flat_map(|part| part.split(" and ")) {
            ensure!(
                head.lines().any(|line| line == format!("License: {name}")),
                "debian/copyright lacks the text of `{name}`, the licence of `{}`\nhint: add a paragraph `License: {name}` with it",
                library.name
            );
        }
        let holders = holders(library)?.join("\n           ");
        write!(
            text,
            "\nFiles: vendor/{}-{}/*\nCopyright: {holders}\nLicense: {licence}\n",
            library.name, library.version
        )
        .expect("writing to a string succeeds");
    }
    Ok(text)
}

/// An SPDX expression in Debian's words: `MIT OR Apache-2.0` is `Expat or Apache-2.0`.
fn debian_name(expression: &str) -> Result<String> {
    let names: BTreeMap<_, _> = LICENCES.into();
    // Older manifests separate alternatives by a slash.
    let expression = expression.replace('/', " OR ");
    let mut required = Vec::new();
    for part in expression.split(" AND ") {
        let words = || {
            part.split(" OR ")
                .map(|word| word.trim_matches(|character| " ()".contains(character)))
        };
        let mut alternatives: Vec<&str> = words()
            .filter_map(|word| names.get(word).copied())
            .collect();
        if alternatives.is_empty() {
            let more: BTreeMap<_, _> = LICENCES_OF_ENVIRONMENTS.into();
            alternatives = words().filter_map(|word| more.get(word).copied()).collect();
        }
        alternatives.dedup();
        ensure!(
            !alternatives.is_empty(),
            "`{expression}` contains no licence that `deny.toml` allows"
        );
        required.push(alternatives);
    }
    // Both `A or B` and `A and B` can be said; of a mixture, the first alternative is taken.
    if let [alternatives] = required.as_slice() {
        return Ok(alternatives.join(" or "));
    }
    let first: Vec<&str> = required
        .iter()
        .map(|alternatives| alternatives[0])
        .collect();
    Ok(first.join(" and "))
}

/// Who holds the copyright: the notices in the library's licence files, else its authors.
fn holders(library: &Library) -> Result<Vec<String>> {
    let directory = library.manifest_path.parent().with_context(|| {
        format!(
            "find the directory of `{}`",
            library.manifest_path.display()
        )
    })?;
    let entries = fs::read_dir(directory)
        .with_context(|| format!("read the directory `{}`", directory.display()))?;
    let mut found = BTreeSet::new();
    for entry in entries {
        let path = entry.context("list a directory")?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .to_uppercase();
        let is_notice = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE"]
            .iter()
            .any(|start| name.starts_with(start));
        if is_notice && path.is_file() {
            let text =
                fs::read_to_string(&path).with_context(|| format!("read `{}`", path.display()))?;
            for notice in text.lines().filter_map(holder) {
                // Some have years and no name.
                let is_whole = notice.contains(char::is_alphabetic);
                found.insert(if is_whole {
                    notice
                } else {
                    format!("{notice} the authors of {}", library.name)
                });
            }
        }
    }
    if !found.is_empty() {
        return Ok(found.into_iter().collect());
    }
    if !library.authors.is_empty() {
        return Ok(library.authors.clone());
    }
    Ok(vec![format!("The authors of {}", library.name)])
}

/// The holder, with the years, in a line such as `Copyright (c) 2014 Somebody`. None for other lines of a licence, and
/// for the placeholders in the appendix of the Apache licence.
fn holder(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("Copyright ")?;
    let rest = rest
        .trim_start_matches("(c)")
        .trim_start_matches("(C)")
        .trim_start_matches('©')
        .trim();
    let is_notice = rest.starts_with(|first: char| first.is_ascii_digit() || first.is_uppercase())
        && !rest.contains("{yyyy}")
        && !rest.contains("[yyyy]");
    is_notice.then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_debians_words() {
        for (expression, expected) in [
            ("MIT", "Expat"),
            ("MIT OR Apache-2.0", "Expat or Apache-2.0"),
            ("MIT/Apache-2.0", "Expat or Apache-2.0"),
            ("Unlicense OR MIT", "Expat"),
            (
                "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
                "Apache-2.0 or Expat",
            ),
            (
                "(MIT OR Apache-2.0) AND Unicode-3.0",
                "Expat and Unicode-3.0",
            ),
        ] {
            assert_eq!(debian_name(expression).expect("known"), expected);
        }
        let error = debian_name("GPL-3.0-only").expect_err("it is not allowed");
        assert!(error.to_string().contains("GPL-3.0-only"), "{error}");
    }

    #[test]
    fn notices_are_told_from_the_words_of_licences() {
        for (line, expected) in [
            (
                "Copyright (c) 2014 The Rust Project Developers",
                Some("2014 The Rust Project Developers"),
            ),
            (
                "   Copyright © 1991-2023 Unicode, Inc.",
                Some("1991-2023 Unicode, Inc."),
            ),
            (
                "Copyright (c) Individual contributors",
                Some("Individual contributors"),
            ),
            ("   Copyright [yyyy] [name of copyright owner]", None),
            ("   Copyright {yyyy} {name of copyright owner}", None),
            (
                "   copyright license to reproduce, prepare Derivative Works of,",
                None,
            ),
            ("COPYRIGHT AND PERMISSION NOTICE", None),
        ] {
            assert_eq!(holder(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn a_licence_without_its_text_is_refused() {
        let library: Library = serde_json::from_value(serde_json::json!({
            "id": "example",
            "name": "example",
            "version": "1.0.0",
            "license": "Zlib",
            "authors": ["Somebody"],
            "manifest_path": concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        }))
        .expect("it is one");
        let error = complete("License: Expat\n text\n", std::slice::from_ref(&library))
            .expect_err("the text is missing");
        assert!(error.to_string().contains("`Zlib`"), "{error}");
        let whole = complete("License: Zlib\n text\n", &[library]).expect("it is there");
        assert!(
            whole
                .ends_with("\nFiles: vendor/example-1.0.0/*\nCopyright: Somebody\nLicense: Zlib\n"),
            "{whole}"
        );
    }
}
