//! Properties that hold for every control file, index and `Release`, tested with random texts. `cargo xtask fuzz` tests
//! many more.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::control::Paragraph;
use crate::digest::Digest;
use crate::package::Package;
use crate::release::{Packages, Release, architectures, indexes, read_index};

/// Lines as control files have them, good ones and others.
fn control() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => "[A-Z][a-z]{0,3}: ?[ -~]{0,8}",
        2 => "[ \t]{1,2}[ -~]{0,8}",
        1 => "[A-Za-z-]{0,3}:\\PC{0,4}",
        1 => "[ \t\r:#a\u{a0}\u{85}\u{2028}]{0,4}",
        1 => "(?i:Filename|Size|Package|SHA256): [a-z0-9/.]{1,4}",
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.join("\n"))
}

/// A control file that has what it needs, and whatever else.
fn good_control() -> impl Strategy<Value = String> {
    let fields = "Package: (lib)?[a-z]{2}\nVersion: ([0-2]:)?[0-9][0-9.~+a-c-]{0,4}[0-9]\nArchitecture: (all|amd64|arm64)";
    (fields, control()).prop_map(|(fields, more)| format!("{fields}\n{more}"))
}

/// Those of these controls that are good, and one more.
fn packages(controls: &[String]) -> Packages {
    let good = "Package: xy\nVersion: 1\nArchitecture: amd64\n";
    let controls = controls.iter().map(String::as_str).chain([good]);
    controls
        .filter_map(package)
        .map(|package| (package.identity.clone(), package))
        .collect()
}

fn package(control: &str) -> Option<Package> {
    Package::from_control(control.as_bytes(), 3, Digest::of(control.as_bytes())).ok()
}

proptest! {
    #[test]
    fn a_paragraph_is_one_paragraph_and_is_read_as_it_is_written(text in prop_oneof![control(), any::<String>()]) {
        let Ok(paragraph) = Paragraph::parse(text.as_bytes()) else { return Ok(()) };
        let written = paragraph.to_string();
        prop_assert!(written.ends_with('\n') && !written.contains("\n\n"), "{:?}", written);
        prop_assert!(!written.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{:?}", written);
        let fields = |text: &str| text.lines().filter(|line| !line.starts_with([' ', '\t'])).count();
        prop_assert_eq!(fields(&written), fields(text.trim_ascii_end()));
        prop_assert_eq!(Paragraph::parse(written.as_bytes()), Ok(paragraph));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_paragraph(bytes in any::<Vec<u8>>()) {
        let is_text = str::from_utf8(bytes.trim_ascii_end()).is_ok();
        prop_assert!(is_text || Paragraph::parse(&bytes).is_err());
        let _ = Release::parse(&bytes);
        let _ = read_index(&bytes, &mut Packages::new());
    }

    #[test]
    fn packages_come_back_from_their_indexes(controls in prop::collection::vec(good_control(), 0..5)) {
        let packages = packages(&controls);
        let mut read = Packages::new();
        for (path, bytes) in indexes(&packages) {
            if path.ends_with("Packages") {
                prop_assert!(read_index(&bytes, &mut read).is_ok(), "{:?}", String::from_utf8_lossy(&bytes));
            }
        }
        prop_assert_eq!(&read, &packages);
        for package in packages.values() {
            let place = package.identity.file_name();
            prop_assert!(place.starts_with("pool/main/") && place.split('/').count() == 5, "{}", place);
            prop_assert!(!place.split('/').any(|part| part.is_empty() || part.starts_with('.')), "{}", place);
            let paragraph = package.paragraph();
            let names = paragraph.lines().filter(|line| line.to_ascii_lowercase().starts_with("filename:"));
            prop_assert_eq!(names.count(), 1, "{}", paragraph);
        }
    }

    #[test]
    fn a_release_is_read_as_it_is_written_and_not_otherwise(
        controls in prop::collection::vec(good_control(), 0..4),
        (name, suite) in ("[a-z]{1,5}", "[a-z]{1,5}"),
        date in 0_u64..4_000_000_000,
        at in any::<prop::sample::Index>(),
        other in any::<u8>(),
    ) {
        let packages = packages(&controls);
        let files: BTreeMap<String, (Digest, u64)> = indexes(&packages)
            .into_iter()
            .map(|(path, bytes)| (path, (Digest::of(&bytes), bytes.len() as u64)))
            .collect();
        let architectures = architectures(&packages);
        let release = Release { name, suite, date, valid_until: date + 90, architectures, files };
        let text = release.text();
        prop_assert_eq!(Release::parse(text.as_bytes()), Ok(release));
        // A changed one is read as exactly what it contains: there is no second way to write the same.
        let mut changed = text.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = other;
        if let Ok(read) = Release::parse(&changed) {
            prop_assert_eq!(read.text().into_bytes(), changed);
        }
    }
}
