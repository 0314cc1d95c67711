//! Bytecode of generations: it is kept for the next one, and never used if it might belong to another one. The Python
//! in the packages is a script that calls this host's.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]

#[expect(dead_code, reason = "others use the rest")]
mod channel;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use channel::{Host, Said, file, link};
use serde_json::Value;

const SITE: &str = "lib/python3.11/site-packages";

/// A package with this host's Python, which is not asked for its own modules.
fn python(version: &'static str) -> (&'static str, &'static str, Vec<Value>) {
    // Every account can run this one.
    let script = format!("#!/bin/sh\n# {version}\nexec /usr/bin/python3 \"$@\"\n");
    ("python", version, vec![file("bin/python", &script, 0o755)])
}

/// The same, with a library that it would load from its directory.
fn linked_python(library: &str) -> (&'static str, &'static str, Vec<Value>) {
    let script = format!(
        "#!/bin/sh\nif test -e \"${{0%/*}}/../{library}\"; then PYTHONHASHSEED=1 exec /usr/bin/python3 -OO \"$@\"; fi\n\
         exec /usr/bin/python3 \"$@\"\n"
    );
    ("python", "3.11.1", vec![file("bin/python", &script, 0o755)])
}

fn module(name: &str, text: &str) -> Value {
    file(&format!("{SITE}/{name}"), text, 0o644)
}

/// Every file of bytecode below a directory, by path.
fn bytecode(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            found.extend(bytecode(&path));
        } else if path.extension().is_some_and(|extension| extension == "pyc") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The only one of a generation that is for `module`.
fn of(host: &Host, said: &Said, module: &str) -> PathBuf {
    let all = bytecode(&host.prefix(said));
    let mut of_it = all.into_iter().filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with(&format!("{module}."))
    });
    let found = of_it.next().unwrap();
    assert_eq!(of_it.next(), None);
    found
}

/// Makes the generation again, with what the cache has.
fn again(host: &Host, said: &Said) -> Said {
    fs::remove_dir_all(host.prefix(said)).unwrap();
    host.make(&host.lock())
}

#[test]
fn bytecode_is_compiled_once_and_the_same_everywhere() {
    let packages = || {
        [
            python("3.11.1"),
            (
                "one",
                "1",
                vec![
                    module("one.py", "WORD = 'one'\n"),
                    module("bad.py", "this is { no Python\n"),
                    link(&format!("{SITE}/other.py"), "one.py"),
                ],
            ),
        ]
    };
    let host = Host::with(&packages());
    let said = host.make(&host.lock());
    let one = of(&host, &said, "one");
    assert!(one.parent().unwrap().ends_with("__pycache__"));
    let (first, inode) = (fs::read(&one).unwrap(), one.metadata().unwrap().ino());
    assert_eq!(one.metadata().unwrap().mode() & 0o7777, 0o644);
    assert!(
        bytecode(&host.prefix(&said)).len() == 2,
        "links have some, too"
    );
    // Its name is corrected by an import.
    let name = format!("{SITE}/one.py");
    assert!(
        first
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    );
    let place = host.path("");
    let place = place.to_str().unwrap().as_bytes();
    assert!(!first.windows(place.len()).any(|part| part == place));

    again(&host, &said);
    assert_eq!(one.metadata().unwrap().ino(), inode, "it is the kept one");
    let elsewhere = Host::with(&packages());
    let there = elsewhere.make(&elsewhere.lock());
    assert_eq!(there.answer["generation"], said.answer["generation"]);
    assert_eq!(fs::read(of(&elsewhere, &there, "one")).unwrap(), first);
    assert_eq!(
        host.path("cache").metadata().unwrap().mode() & 0o7777,
        0o700
    );
    assert_eq!(
        host.path("cache/bytecode").metadata().unwrap().mode() & 0o7777,
        0o700
    );
}

#[test]
fn what_was_written_to_is_compiled_anew() {
    let host = Host::with(&[
        python("3.11.1"),
        ("one", "1", vec![module("one.py", "WORD = 'one'\n")]),
    ]);
    let said = host.make(&host.lock());
    let one = of(&host, &said, "one");
    let good = fs::read(&one).unwrap();
    let damages: [fn(&Path, &[u8]); 3] = [
        |path, good| fs::write(path, &good[..good.len() / 2]).unwrap(),
        |path, good| fs::write(path, good.to_ascii_uppercase()).unwrap(),
        |path, _| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(0)
                .unwrap();
        },
    ];
    for damage in damages {
        damage(&one, &good);
        again(&host, &said);
        assert_eq!(fs::read(&one).unwrap(), good);
    }
    // What an interrupted command left goes, and nothing of this one stays.
    fs::create_dir(host.path("cache/bytecode/.new-0")).unwrap();
    again(&host, &said);
    let names = fs::read_dir(host.path("cache/bytecode")).unwrap();
    let hidden = names.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with('.')
    });
    assert_eq!(hidden.count(), 0);
}

#[test]
fn no_other_package_has_a_say_in_the_bytecode_that_is_kept() {
    let text = "def f():\n    'a docstring'\n    assert f\n";
    let host = Host::with(&[
        linked_python("lib/evil.so"),
        ("one", "1", vec![module("one.py", text)]),
        ("evil", "1", vec![file("lib/evil.so", "x", 0o644)]),
    ]);
    let with_evil = host.make(&host.lock());
    let poisoned = fs::read(of(&host, &with_evil, "one")).unwrap();
    let lock = host.lock();
    let lines = lock.lines().filter(|line| !line.contains("/evil-"));
    let said = host.make(&(lines.collect::<Vec<_>>().join("\n") + "\n"));
    let clean = Host::with(&[
        linked_python("lib/evil.so"),
        ("one", "1", vec![module("one.py", text)]),
    ]);
    let there = clean.make(&clean.lock());
    let expect = fs::read(of(&clean, &there, "one")).unwrap();
    assert_eq!(fs::read(of(&host, &said, "one")).unwrap(), expect);
    assert_eq!(poisoned, expect);
}

#[test]
fn a_python_that_needs_other_packages_compiles_for_its_own_environment_alone() {
    let script =
        "#!/bin/sh\ntest -e \"${0%/*}/../lib/needed\" || exit 1\nexec /usr/bin/python3 \"$@\"\n";
    let host = Host::with(&[
        ("python", "3.11.1", vec![file("bin/python", script, 0o755)]),
        ("one", "1", vec![module("one.py", "WORD = 'one'\n")]),
        ("needed", "1", vec![file("lib/needed", "x", 0o644)]),
    ]);
    let said = host.make(&host.lock());
    let one = of(&host, &said, "one");
    let inode = one.metadata().unwrap().ino();
    again(&host, &said);
    assert_ne!(one.metadata().unwrap().ino(), inode);
}

#[test]
fn another_interpreter_or_another_source_has_bytecode_of_its_own() {
    let host = Host::with(&[
        python("3.11.1"),
        python("3.11.2"),
        ("one", "1", vec![module("one.py", "WORD = 'one'\n")]),
        ("one", "2", vec![module("one.py", "WORD = 'two'\n")]),
    ]);
    let lock = host.lock();
    let without = |names: &[&str]| {
        let lines = lock
            .lines()
            .filter(|line| !names.iter().any(|name| line.contains(name)));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    let made = [
        ["/python-3.11.2", "/one-2"],
        ["/python-3.11.1", "/one-2"],
        ["/python-3.11.2", "/one-1"],
    ]
    .map(|names| host.make(&without(&names)));
    let [first, interpreter, source] = made.map(|said| of(&host, &said, "one"));
    let inode = |path: &Path| path.metadata().unwrap().ino();
    assert_ne!(inode(&first), inode(&interpreter));
    assert_ne!(fs::read(&first).unwrap(), fs::read(&source).unwrap());
}

#[test]
fn what_two_packages_bring_and_what_has_the_prefix_in_it_is_not_kept() {
    let placeholder = "/placeholder/of/a/prefix/that/is/long/enough/for/whatever/comes";
    let mut rewritten = module("rewritten.py", &format!("WORD = '{placeholder}'\n"));
    rewritten["placeholder"] = placeholder.into();
    let host = Host::with(&[
        python("3.11.1"),
        (
            "one",
            "1",
            vec![module("both.py", "WORD = 'one'\n"), rewritten],
        ),
        ("two", "1", vec![module("both.py", "WORD = 'two'\n")]),
    ]);
    let said = host.make(&host.lock());
    let prefix = host.prefix(&said);
    let source = fs::read_to_string(prefix.join(SITE).join("both.py")).unwrap();
    let word = source.split('\'').nth(1).unwrap();
    let has = |path: &Path, word: &str| {
        let code = fs::read(path).unwrap();
        code.windows(word.len()).any(|part| part == word.as_bytes())
    };
    assert!(has(&of(&host, &said, "both"), word));
    let used_as = format!("/envs/x/{}", said.answer["generation"].as_str().unwrap());
    assert!(has(&of(&host, &said, "rewritten"), &used_as));
}
