//! The state of a root as two of them are compared: every file that one of them has changed, with owner, mode and
//! content, and the names in every directory that one of them has touched.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::DebianRoot;

/// What is not compared, and why: paths and everything below them. A final `*` stands for the rest of a name.
const LEFT_OUT: &[(&str, &str)] = &[
    ("/buildbot-conda.deb", "the test's own"),
    ("/paths", "the test's own"),
    ("/tmp", "gone with a reboot"),
    ("/var/log", "tells what happened, and more happened"),
    ("/var/cache/apt", "apt's own, made anew when missing"),
    ("/var/lib/apt", "apt's own notes; dpkg makes none"),
    (
        "/var/cache/ldconfig",
        "a cache that dpkg's triggers make anew",
    ),
    (
        "/var/cache/debconf/tmp.ci",
        "the scratch directory of a debconf that apt has called",
    ),
    ("/var/cache/debconf/config.dat-old", "the generation before"),
    (
        "/var/cache/debconf/templates.dat-old",
        "the generation before",
    ),
    (
        "/var/cache/debconf/passwords.dat-old",
        "the generation before",
    ),
    (
        "/var/cache/debconf/config.dat-new",
        "what a killed debconf leaves, and begins anew",
    ),
    (
        "/var/cache/debconf/templates.dat-new",
        "what a killed debconf leaves, and begins anew",
    ),
    ("/var/lib/dpkg/status-old", "the generation before"),
    (
        "/var/lib/dpkg/lock*",
        "an empty file to lock, left wherever dpkg ran",
    ),
    (
        "/var/lib/dpkg/triggers/Lock",
        "an empty file to lock, left wherever dpkg ran",
    ),
    (
        "/var/lib/dpkg/tmp.ci",
        "dpkg's scratch directory, emptied at its next unpacking",
    ),
    (
        "/var/lib/systemd/deb-systemd-helper-enabled/.state*",
        "what a killed deb-systemd-helper leaves; nothing reads it",
    ),
    ("/etc/passwd-", "the generation before"),
    ("/etc/shadow-", "the generation before"),
    ("/etc/group-", "the generation before"),
    ("/etc/gshadow-", "the generation before"),
    ("/etc/subuid-", "the generation before"),
    ("/etc/subgid-", "the generation before"),
    (
        "/etc/.pwd.lock",
        "an empty file to lock, left wherever an account was made",
    ),
    (
        "/run/adduser",
        "an empty file to lock, left wherever an account was made",
    ),
];

/// Prints the state of every path in `/paths`: a line for the path itself, one for its content, one for each name in a
/// directory. `/etc/shadow` contains the day of the last change in its third field; debconf's databases are shared by
/// all packages.
const TELL: &str = r#"
# A path that is not there is no error.
find_there() {
    find -files0-from /paths "$@" 2>/dev/null || true
}
find_there -maxdepth 0 -type d -printf '%p directory %m %U:%G\n' -o -maxdepth 0 -printf '%p %y %m %U:%G %l\n'
find_there -mindepth 1 -maxdepth 1 -printf '%p is there\n'
find_there -maxdepth 0 -type f ! -path /etc/shadow ! -path '/var/cache/debconf/*.dat' ! -path /var/lib/dpkg/status -print0 |
    xargs -0 --no-run-if-empty sha256sum | sed 's|^\([^ ]*\)  \(.*\)|\2 holds \1|'
cut -d: -f1,2,4- /etc/shadow | sed 's|^|/etc/shadow has |'
# Killed after it has put a conffile in its place and before it has recorded its checksum, dpkg does so at the next
# unpacking only, and keeps a placeholder until then.
sed '\|^ /etc/needrestart/conf.d/buildbot-conda.conf |d; s|^|/var/lib/dpkg/status has |' /var/lib/dpkg/status
databases=/var/cache/debconf/config.dat
# Templates are saved after the questions. Those whose questions are gone mean nothing to debconf, and stay.
if grep -q '^Name: buildbot-conda/' /var/cache/debconf/config.dat; then
    databases="$databases /var/cache/debconf/templates.dat"
fi
for database in $databases; do
    # Killed between two renames of its own, debconf loses everybody's answers. Ours are read back from the
    # configuration, but that some were given before the question came up, their flag, is gone.
    perl -00 -ne 'print if /buildbot-conda/' "$database" | sed "/^Flags:/d; s|^|$database has |"
done
"#;

/// Everything that one of two roots, made from the same trees, has and the other has not, a line for each.
#[track_caller]
pub fn differences(one: &DebianRoot, other: &DebianRoot) -> Vec<String> {
    let mut paths = touched(one);
    paths.extend(touched(other));
    let [one, other] = [one, other].map(|root| state(root, &paths));
    let only = |sign: char, these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these
            .difference(those)
            .map(|line| format!("{sign} {line}"))
            .collect()
    };
    let mut lines = only('-', &one, &other);
    lines.extend(only('+', &other, &one));
    lines
}

fn is_left_out(path: &str) -> bool {
    LEFT_OUT
        .iter()
        .any(|(left_out, _)| match left_out.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => Path::new(path).starts_with(left_out),
        })
}

/// Every path that was written to or removed since the root was made.
#[track_caller]
fn touched(root: &DebianRoot) -> BTreeSet<String> {
    let mut paths = BTreeSet::from(["/".to_owned()]);
    collect(root, Path::new("/"), &mut paths);
    paths
}

#[track_caller]
fn collect(root: &DebianRoot, directory: &Path, paths: &mut BTreeSet<String>) {
    for path in children(&root.upper(), directory) {
        let text = path
            .to_str()
            .expect("paths of the package are ASCII")
            .to_owned();
        if is_left_out(&text) {
            continue;
        }
        paths.insert(text);
        let kind = fs::symlink_metadata(below(&root.upper(), &path)).expect("it was just listed");
        if kind.is_dir() {
            collect(root, &path, paths);
        }
        // A character device represents a removed file, and a directory may replace a removed one.
        if kind.is_dir() || kind.file_type().is_char_device() {
            for lower in root.lower() {
                collect_lower(&lower, &path, paths);
            }
        }
    }
}

/// Names below a removed directory may exist again, or not; only whole trees of ours do.
#[track_caller]
fn collect_lower(lower: &Path, directory: &Path, paths: &mut BTreeSet<String>) {
    let is_ours = directory.to_string_lossy().contains("buildbot-conda");
    if is_ours && below(lower, directory).is_dir() {
        for path in children(lower, directory) {
            paths.insert(path.to_string_lossy().into_owned());
            collect_lower(lower, &path, paths);
        }
    }
}

#[track_caller]
fn children(tree: &Path, directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(below(tree, directory)).expect("the tree can be listed");
    entries
        .map(|entry| directory.join(entry.expect("the tree can be listed").file_name()))
        .collect()
}

fn below(tree: &Path, path: &Path) -> PathBuf {
    tree.join(path.strip_prefix("/").unwrap_or(path))
}

#[track_caller]
fn state(root: &DebianRoot, paths: &BTreeSet<String>) -> BTreeSet<String> {
    let list: Vec<&str> = paths.iter().map(String::as_str).collect();
    fs::write(root.upper().join("paths"), list.join("\0")).expect("the root is ours");
    let text = root.must(TELL);
    let lines = text.lines().filter(|line| {
        let path = line.split(' ').next().unwrap_or_default();
        !is_left_out(path)
    });
    lines.map(str::to_owned).collect()
}
