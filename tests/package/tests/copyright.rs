//! The copyright file compared with the content of the programs: their panic messages name the sources of libraries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use buildbot_conda_package_tests::Package;

const LOCK: &str = include_str!("../../../Cargo.lock");

/// A paragraph: each field with its whole value, lines joined by newlines.
type Paragraph = BTreeMap<String, String>;

/// The paragraphs of a file in the format of deb822(5).
fn paragraphs(text: &str) -> Vec<Paragraph> {
    text.split("\n\n")
        .map(|block| {
            let mut paragraph = Paragraph::new();
            let mut field = String::new();
            for line in block.lines() {
                if line.starts_with(' ') {
                    let value = paragraph.entry(field.clone()).or_default();
                    value.push('\n');
                    value.push_str(line.trim());
                } else {
                    let (name, value) = line.split_once(':').expect("a field has a colon");
                    name.clone_into(&mut field);
                    let before = paragraph.insert(field.clone(), value.trim().to_owned());
                    assert_eq!(before, None, "`{field}` is there twice");
                }
            }
            paragraph
        })
        .collect()
}

/// `NAME-VERSION` of every library that the file has a paragraph for.
fn libraries(paragraphs: &[Paragraph]) -> BTreeSet<String> {
    paragraphs
        .iter()
        .filter_map(|paragraph| paragraph.get("Files"))
        .filter_map(|files| files.strip_prefix("vendor/"))
        .map(|files| files.trim_end_matches("/*").to_owned())
        .collect()
}

/// `NAME-VERSION` of every library whose sources a program names.
fn named_in(program: &[u8]) -> BTreeSet<String> {
    // The directory of the registry's sources has one name below it for the index.
    let text = String::from_utf8_lossy(program);
    text.split("/cargo/registry/src/")
        .skip(1)
        .filter_map(|rest| rest.split('/').nth(1))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_library_in_a_program_has_its_paragraph() {
    let package = Package::open();
    let text = package.text("usr/share/doc/buildbot-conda/copyright");
    let listed = libraries(&paragraphs(text.trim_end()));
    let mut named = BTreeSet::new();
    for program in [
        "usr/bin/buildbot-conda",
        "usr/libexec/buildbot-conda/launcher",
        "usr/lib/systemd/system-generators/buildbot-conda-generator",
    ] {
        let bytes = fs::read(package.tree().join(program)).expect("the program is packed");
        named.extend(named_in(&bytes));
    }
    assert!(named.len() > 5, "{named:?}");
    let missing: Vec<_> = named.difference(&listed).collect();
    assert!(
        missing.is_empty(),
        "{missing:?} are not in the copyright file"
    );
}

#[test]
fn the_file_is_well_formed_and_knows_what_cargo_locks() {
    let package = Package::open();
    let text = package.text("usr/share/doc/buildbot-conda/copyright");
    let paragraphs = paragraphs(text.trim_end());
    assert!(paragraphs[0]["Format"].ends_with("/copyright-format/1.0/"));
    let texts: BTreeSet<&str> = paragraphs
        .iter()
        .filter(|paragraph| !paragraph.contains_key("Files"))
        .filter_map(|paragraph| paragraph.get("License"))
        .filter_map(|licence| licence.split_once('\n'))
        .map(|(name, _)| name)
        .collect();
    for paragraph in paragraphs.iter().filter(|one| one.contains_key("Files")) {
        assert!(!paragraph["Copyright"].is_empty(), "{paragraph:?}");
        for name in paragraph["License"].replace(" and ", " or ").split(" or ") {
            assert!(texts.contains(name), "no text of `{name}`: {paragraph:?}");
        }
    }
    for library in libraries(&paragraphs) {
        let is_locked = library.match_indices('-').any(|(at, _)| {
            let (name, version) = (&library[..at], &library[at + 1..]);
            LOCK.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n"))
        });
        assert!(is_locked, "`{library}` is not in Cargo.lock");
    }
}
