//! The requirements of the package, compared with `docs/compatibility.md` and the oldest systems in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use buildbot_conda_package_tests::{Package, Suite};

const PAGE: &str = include_str!("../../../docs/compatibility.md");
/// The oldest systemd that is tested; Ubuntu 22.04 has 249.
const SYSTEMD: u32 = 247;
/// The oldest glibc, as major and minor number.
const GLIBC: (u32, u32) = (2, 34);

/// With every key and profile that changes a drop-in.
const CONFIGURATION: &str = r#"
[master]
group = "bb"
notify = "mail:root"
credentials = { password = "password" }
["master@strict"]
directory = "/home/bb/strict"
hardening = "strict"
["master@none"]
directory = "/srv/none"
hardening = "none"
[worker]
cpu-weight = 100
io-weight = 100
memory-high = "1G"
memory-max = "50%"
nice = 5
tasks-max = "10%"
["worker@strict"]
directory = "/home/bb/worker-strict"
hardening = "strict"
"#;

/// Version and remark of each directive in the page's table.
fn table() -> BTreeMap<String, (u32, String)> {
    let rows = PAGE.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, directive, version, remark, _] = cells[..] else {
            return None;
        };
        let name = directive.strip_prefix('`')?.strip_suffix("=`")?;
        let version = version.parse().expect("the second column is a number");
        Some((name.to_owned(), (version, remark.to_owned())))
    });
    rows.collect()
}

/// Adds the directives of a unit or drop-in.
fn collect(text: &str, directives: &mut BTreeSet<String>) {
    for line in text.lines() {
        if let Some((name, _)) = line.split_once('=')
            && !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
        {
            directives.insert(name.to_owned());
        }
    }
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("the directory is there") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn every_directive_of_units_and_drop_ins_is_old_enough() {
    let package = Package::open();
    let mut used = BTreeSet::new();
    for unit in files(&package.tree().join("usr/lib/systemd/system")) {
        collect(
            &fs::read_to_string(unit).expect("units are text"),
            &mut used,
        );
    }

    let root = tempfile::tempdir().expect("a scratch directory can be made");
    let at = |path: &str| root.path().join(path);
    for directory in ["etc/buildbot-conda", "normal", "early", "late"] {
        fs::create_dir_all(at(directory)).expect("the scratch directory is ours");
    }
    fs::write(at("etc/buildbot-conda/config.toml"), CONFIGURATION).expect("it is ours");
    let generator = package
        .tree()
        .join("usr/lib/systemd/system-generators/buildbot-conda-generator");
    let output = Command::new(generator)
        .arg("--root")
        .arg(root.path())
        .args([at("normal"), at("early"), at("late")])
        .output()
        .expect("the packed generator runs on its build machine");
    assert!(output.status.success(), "{output:?}");
    let drop_ins = files(&at("normal"));
    assert_eq!(drop_ins.len(), 5, "{drop_ins:?}, {output:?}");
    for drop_in in drop_ins {
        collect(&fs::read_to_string(drop_in).expect("it is text"), &mut used);
    }

    let table = table();
    let listed: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(listed, used, "docs/compatibility.md lists what is used");
    for (directive, (version, remark)) in &table {
        assert!(
            *version <= SYSTEMD || remark.contains("without it"),
            "`{directive}=` is of systemd {version}: say what happens without it"
        );
    }
}

#[test]
fn glibc_need_not_be_younger_than_ubuntus() {
    let package = Package::open();
    let depends = package.field("Depends");
    let version = depends
        .split("libc6 (>= ")
        .nth(1)
        .and_then(|rest| rest.split(')').next())
        .expect("it is linked with glibc");
    assert!(numbers(version) <= GLIBC, "{depends}");

    let mut symbols = 0;
    for program in [
        "usr/bin/buildbot-conda",
        "usr/libexec/buildbot-conda/launcher",
        "usr/lib/systemd/system-generators/buildbot-conda-generator",
    ] {
        let output = Command::new("objdump")
            .arg("--dynamic-syms")
            .arg(package.tree().join(program))
            .output()
            .expect("objdump runs; binutils has it");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for version in text.split("GLIBC_").skip(1) {
            let version = version.split([')', ' ']).next().unwrap_or_default();
            assert!(numbers(version) <= GLIBC, "{program} needs glibc {version}");
            symbols += 1;
        }
    }
    assert!(symbols > 100, "{symbols}");
}

#[test]
fn apt_refuses_the_package_where_glibc_is_too_old() {
    let package = Package::path();
    let (is_taken, said) = Suite::fetch("bullseye").takes(&package);
    assert!(!is_taken, "{said}");
    let reason = "buildbot-conda : Depends: libc6 (>= 2.34) but 2.31-";
    assert!(said.contains(reason), "{said}");
    // And nothing else is what keeps it out.
    let (is_taken, said) = Suite::fetch("bookworm").takes(&package);
    assert!(is_taken, "{said}");
}

/// `2.34` as two numbers; `2.2.5` as its first two.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version
        .split('.')
        .map(|part| part.parse().expect("versions of glibc are numbers"));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[test]
fn every_dpkg_can_unpack_it() {
    let output = Command::new("ar")
        .arg("t")
        .arg(Package::path())
        .output()
        .expect("ar runs; binutils has it");
    let members = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(members, "debian-binary\ncontrol.tar.xz\ndata.tar.xz\n");
}
