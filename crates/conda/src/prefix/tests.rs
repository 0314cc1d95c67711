//! Prefixes on disk, good and bad.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;

use super::*;

/// A prefix with these files; empty content for a name that ends in `/` makes a directory.
fn prefix(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, content) in files {
        let path = directory.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).expect("a directory");
        } else {
            fs::create_dir_all(path.parent().expect("below the prefix")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
    }
    directory
}

#[track_caller]
fn refused(files: &[(&str, &[u8])]) -> ReadError {
    let directory = prefix(files);
    let error = PrefixFacts::read(directory.path()).expect_err("the prefix is bad");
    assert!(
        !error.to_string().contains('\n') && !error.hint().is_empty(),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&*directory.path().to_string_lossy()),
        "{error} names the file"
    );
    error
}

#[test]
fn a_prefix_with_nothing_in_it_is_read_as_that() {
    let directory = prefix(&[]);
    let facts = PrefixFacts::read(directory.path()).expect("a directory");
    assert!(
        !facts.has_conda_meta() && facts.scripts().is_empty() && facts.state_variables.is_empty()
    );
    let directory = prefix(&[("conda-meta/", b"")]);
    assert!(
        PrefixFacts::read(directory.path())
            .expect("a prefix")
            .has_conda_meta()
    );
    // A plain file of the name does not make an environment.
    let directory = prefix(&[("conda-meta", b"")]);
    assert!(
        !PrefixFacts::read(directory.path())
            .expect("a directory")
            .has_conda_meta()
    );
}

#[test]
fn paths_that_cannot_be_in_path_are_refused() {
    for (path, reason) in [
        ("relative", "must be absolute"),
        ("", "must be absolute"),
        ("/a:b", "must not contain `:`"),
        ("/a\nb", "must not contain a newline"),
        ("/a\0b", "must not contain a NUL"),
    ] {
        let error = PrefixFacts::read(Path::new(path)).expect_err(path);
        assert!(
            matches!(error, ReadError::Unusable { .. }) && error.to_string().contains(reason),
            "{error}"
        );
        assert!(!error.to_string().contains(['\n', '\0']), "{error}");
        assert!(Root::new(path).is_err(), "{path}");
        assert!(
            Root::new("/r").expect("usable").with_base(path).is_err(),
            "{path}"
        );
    }
}

#[test]
fn a_prefix_that_is_missing_or_a_file_is_refused() {
    let directory = prefix(&[("file", b"")]);
    for name in ["missing", "file"] {
        let error = PrefixFacts::read(&directory.path().join(name)).expect_err(name);
        assert!(matches!(error, ReadError::Missing { .. }), "{error}");
    }
    let long = format!("/{}", "x/".repeat(2048));
    assert!(matches!(
        PrefixFacts::read(Path::new(&long)),
        Err(ReadError::Missing { .. })
    ));
}

#[test]
fn the_prefix_is_normalised_but_links_stay() {
    let directory = prefix(&[("real/conda-meta/", b"")]);
    let link = directory.path().join("link");
    symlink(directory.path().join("real"), &link).expect("a link");
    let facts = PrefixFacts::read(&directory.path().join("x/..//link/./")).expect("a prefix");
    assert_eq!(facts.prefix(), link);
    assert!(facts.has_conda_meta());
}

#[test]
fn scripts_come_in_the_order_of_code_points() {
    let names = [
        "b.sh", ".h.sh", "é.sh", "B.sh", ".sh", "~.sh", "1.sh", "x.SH", "y.sh~", "z.fish", "d.sh/",
    ];
    let directory = prefix(&[]);
    for name in names {
        let path = directory.path().join("etc/conda/activate.d").join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        if name.ends_with('/') {
            fs::create_dir(path).expect("a directory");
        } else {
            fs::write(path, "").expect("a file");
        }
    }
    let stray = OsString::from_vec(b"\xff.sh".to_vec());
    fs::write(
        directory.path().join("etc/conda/activate.d").join(&stray),
        "",
    )
    .expect("a file");
    let facts = PrefixFacts::read(directory.path()).expect("a prefix");
    let found: Vec<_> = facts
        .scripts()
        .iter()
        .map(|path| path.file_name().expect("a name"))
        .collect();
    // The directory is one of them: bash prints its error, as it does for conda.
    assert_eq!(
        found[..8],
        [
            ".h.sh", ".sh", "1.sh", "B.sh", "b.sh", "d.sh", "~.sh", "é.sh"
        ]
    );
    assert_eq!(found[8..], [&*stray]);
}

#[test]
fn files_of_packages_are_merged_by_their_order() {
    let directory = prefix(&[
        ("etc/conda/env_vars.d/b", br#"{"A": "b", "B": "b"}"#),
        ("etc/conda/env_vars.d/a.json", br#"{"A": "a", "C": "a"}"#),
    ]);
    let facts = PrefixFacts::read(directory.path()).expect("a prefix");
    let expected = [("A", "b"), ("C", "a"), ("B", "b")];
    let expected: Variables = expected
        .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
        .into();
    assert_eq!(facts.package_variables, expected);
}

#[test]
fn a_state_that_cannot_be_read_as_one_is_refused() {
    let state = |content: &'static [u8]| refused(&[("conda-meta/state", content)]);
    assert!(matches!(
        state(b"{nope"),
        ReadError::Json {
            byte_order_mark: false,
            ..
        }
    ));
    let marked = state(b"\xef\xbb\xbf{}");
    assert!(
        marked.to_string().ends_with("after a byte order mark"),
        "{marked}"
    );
    assert!(matches!(state(b""), ReadError::Json { .. }));
    assert!(matches!(
        state(b"{\"env_vars\": {\"A\": \"\xff\"}}"),
        ReadError::NotUtf8 { .. }
    ));
    assert!(matches!(
        state(b"[]"),
        ReadError::NotAnObject {
            what: "its JSON",
            ..
        }
    ));
    assert!(matches!(
        state(br#"{"env_vars": []}"#),
        ReadError::NotAnObject {
            what: "`env_vars`",
            ..
        }
    ));
    assert!(matches!(
        refused(&[("conda-meta/state/", b"")]),
        ReadError::Unreadable { .. }
    ));
}

#[test]
fn names_and_values_that_no_environment_holds_are_refused() {
    for text in [r#"{"": "x"}"#, r#"{"A=B": "x"}"#, r#"{"A\u0000": "x"}"#] {
        let state = format!("{{\"env_vars\": {text}}}");
        assert!(
            matches!(
                refused(&[("conda-meta/state", state.as_bytes())]),
                ReadError::Name { .. }
            ),
            "{text}"
        );
        let package = ("etc/conda/env_vars.d/a", text.as_bytes());
        assert!(
            matches!(refused(&[package]), ReadError::Name { .. }),
            "{text}"
        );
    }
    let error = refused(&[("conda-meta/state", br#"{"env_vars": {"A": "x\u0000y"}}"#)]);
    assert!(matches!(error, ReadError::Value { .. }), "{error}");
}

#[test]
fn packages_that_cannot_be_read_are_refused() {
    assert!(matches!(
        refused(&[("etc/conda/env_vars.d/a", b"{")]),
        ReadError::Json { .. }
    ));
    assert!(matches!(
        refused(&[("etc/conda/env_vars.d/a", b"[]")]),
        ReadError::NotAnObject { .. }
    ));
    assert!(matches!(
        refused(&[("etc/conda/env_vars.d/a/", b"")]),
        ReadError::Unreadable { .. }
    ));
    assert!(matches!(
        refused(&[("etc/conda/env_vars.d", b"")]),
        ReadError::Unreadable { .. }
    ));
}

#[test]
fn what_stands_in_the_place_of_a_directory_of_scripts_is_nothing() {
    for name in ["etc", "etc/conda", "etc/conda/activate.d"] {
        let directory = prefix(&[(name, b"")]);
        let facts = PrefixFacts::read(directory.path()).expect("as conda has it");
        assert!(facts.scripts().is_empty(), "{name}");
    }
}
