//! Manual pages and completions compared with the packed command: its help is read verb by verb, and they must contain
//! exactly what it offers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use buildbot_conda_package_tests::Package;

/// A command of the tree: the words that lead to it, and what its help lists.
#[derive(Debug)]
struct Node {
    words: Vec<String>,
    verbs: BTreeSet<String>,
    /// Long options, with their dashes.
    options: BTreeSet<String>,
}

impl Node {
    /// `buildbot-conda`, or `buildbot-conda-service-stop`.
    fn page(&self) -> String {
        [&["buildbot-conda".to_owned()], self.words.as_slice()]
            .concat()
            .join("-")
    }
}

/// Every command that the packed program lists, starting with itself.
fn tree(package: &Package) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut waiting = vec![Vec::new()];
    while let Some(words) = waiting.pop() {
        let output = Command::new(package.tree().join("usr/bin/buildbot-conda"))
            .args(&words)
            .arg("--help")
            .output()
            .expect("the packed program runs on its build machine");
        assert!(output.status.success(), "{words:?} --help: {output:?}");
        let help = String::from_utf8(output.stdout).expect("help is UTF-8");
        // Below `Commands:`, or below the headings of the groups.
        let commands = help.split("\nOptions:\n").next().unwrap_or_default();
        let verbs: BTreeSet<String> = commands
            .lines()
            .filter_map(|line| line.strip_prefix("  "))
            .filter(|entry| entry.starts_with(|first: char| first.is_ascii_lowercase()))
            .map(|entry| {
                let verb = entry.split_whitespace().next().unwrap_or_default();
                verb.to_owned()
            })
            .filter(|verb| verb != "help")
            .collect();
        waiting.extend(
            verbs
                .iter()
                .map(|verb| [words.as_slice(), std::slice::from_ref(verb)].concat()),
        );
        let options = entries(&help, "Options:")
            .chain(entries(&help, "Global options:"))
            .filter_map(|entry| {
                let mut parts = entry.split_whitespace().map(|word| word.trim_matches(','));
                parts.find(|word| word.starts_with("--"))
            })
            .map(|option| option.split(['=', '[']).next().unwrap_or(option).to_owned())
            .collect();
        nodes.push(Node {
            words,
            verbs,
            options,
        });
    }
    assert!(nodes.len() > 10, "{nodes:?}");
    nodes
}

/// The first line of each entry below a heading of a help text.
fn entries<'h>(help: &'h str, heading: &'h str) -> impl Iterator<Item = &'h str> {
    help.lines()
        .skip_while(move |line| *line != heading)
        .skip(1)
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        // Indented lines continue a description.
        .filter(|line| line.len() - line.trim_start().len() <= 6)
        .filter(|line| !line.trim().is_empty())
}

/// The text of a manual page without the escapes of hyphens.
#[track_caller]
fn page(package: &Package, section: u8, name: &str) -> String {
    let path = package
        .tree()
        .join(format!("usr/share/man/man{section}/{name}.{section}.gz"));
    let output = Command::new("gzip")
        .args(["--decompress", "--stdout"])
        .arg(&path)
        .output()
        .expect("gzip runs");
    assert!(output.status.success(), "unpack `{}`", path.display());
    String::from_utf8(output.stdout)
        .expect("pages are UTF-8")
        .replace("\\-", "-")
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).expect("the package has the directory");
    entries
        .map(|entry| {
            let name = entry.expect("it can be listed").file_name();
            name.into_string().expect("names are ASCII")
        })
        .collect()
}

#[test]
fn every_verb_has_a_page_with_every_option_and_there_are_no_others() {
    let package = Package::open();
    let nodes = tree(&package);
    let expected: BTreeSet<String> = nodes
        .iter()
        .map(|node| format!("{}.1.gz", node.page()))
        .collect();
    assert_eq!(
        names_in(&package.tree().join("usr/share/man/man1")),
        expected
    );
    for node in &nodes {
        let text = page(&package, 1, &node.page());
        for option in &node.options {
            assert!(
                text.contains(&format!("\\fB{option}\\fR")),
                "`{option}` is not in the page of {:?}:\n{text}",
                node.words
            );
        }
        for verb in &node.verbs {
            assert!(
                text.contains(&format!("{}-{verb}(1)", node.page())),
                "`{verb}` is not in the page of {:?}:\n{text}",
                node.words
            );
        }
        assert!(text.contains("\n.SH SEE ALSO\n"), "{:?}", node.words);
    }
}

#[test]
fn every_unit_program_and_file_format_has_a_page() {
    let package = Package::open();
    let units = names_in(&package.tree().join("usr/lib/systemd/system"));
    let (instances, others): (Vec<_>, Vec<_>) = units.iter().partition(|unit| {
        unit.starts_with("buildbot-master") || unit.starts_with("buildbot-worker")
    });
    assert_eq!(instances.len(), 4);
    for unit in instances {
        page(&package, 8, unit);
    }
    // What a verb has systemd do is on the page of the verb.
    for unit in others {
        let text = package.text(&format!("usr/lib/systemd/system/{unit}"));
        let named = text.lines().find_map(|line| {
            let (name, section) = line.strip_prefix("Documentation=man:")?.split_once('(')?;
            Some((name.to_owned(), section.trim_end_matches(')').parse().ok()?))
        });
        let (name, section) = named.unwrap_or_else(|| panic!("`{unit}` names no page"));
        page(&package, section, &name);
    }
    for program in ["launcher", "runner", "generator"] {
        page(&package, 8, &format!("buildbot-conda-{program}"));
    }
    let configuration = page(&package, 5, "buildbot-conda.toml");
    page(&package, 5, "buildbot-conda-status.json");
    page(&package, 5, "buildbot-conda-network.toml");
    // The starter names every key, most of them in comments.
    let starter = package.text("usr/share/buildbot-conda/config.toml");
    for line in starter.lines() {
        if let Some((key, _)) = line.trim_start_matches('#').split_once(" = ")
            && key
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
            && !starter.contains(&format!("credentials]\n#{key} "))
        {
            assert!(
                configuration.contains(&format!(".B {key}\n")),
                "`{key}` is not in buildbot-conda.toml(5)"
            );
        }
    }
}

#[test]
fn pages_are_set_without_a_warning() {
    let package = Package::open();
    for section in [1, 5, 8] {
        let directory = package.tree().join(format!("usr/share/man/man{section}"));
        for name in names_in(&directory) {
            let name = name.trim_end_matches(&format!(".{section}.gz")).to_owned();
            let text = page(&package, section, &name);
            if let Some(target) = text.strip_prefix(".so ") {
                let target = package
                    .tree()
                    .join("usr/share/man")
                    .join(format!("{}.gz", target.trim_end()));
                assert!(target.is_file(), "{name}: {text}");
                continue;
            }
            assert!(!text.contains("@VERSION@"), "{name}");
            assert!(text.contains(env!("CARGO_PKG_VERSION")), "{name}");
            let set = Command::new("sh")
                .arg("-euc")
                .arg("gzip -dc \"$0\" | groff -mandoc -Tutf8 -ww -z 2>&1")
                .arg(directory.join(format!("{name}.{section}.gz")))
                .output()
                .expect("sh runs");
            let talk = String::from_utf8_lossy(&set.stdout);
            assert!(set.status.success() && talk.is_empty(), "{name}: {talk}");
        }
    }
}

/// Completes `line` as bash does, and prints one candidate on a line.
const COMPLETE_IN_BASH: &str = r#"
source "$0"
function=$(complete -p buildbot-conda | sed 's/.*-F \([^ ]*\).*/\1/')
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"
"$function" buildbot-conda "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

#[test]
fn bash_completes_every_verb_and_option_and_no_others() {
    let package = Package::open();
    let script = package
        .tree()
        .join("usr/share/bash-completion/completions/buildbot-conda");
    for node in tree(&package) {
        for start in ["", "--"] {
            let output = Command::new("bash")
                .args(["-c", COMPLETE_IN_BASH])
                .arg(&script)
                .arg("buildbot-conda")
                .args(&node.words)
                .arg(start)
                .output()
                .expect("bash runs");
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).expect("candidates are ASCII");
            let candidates: BTreeSet<String> = text
                .lines()
                .filter(|line| !line.is_empty() && *line != "help")
                .map(str::to_owned)
                .collect();
            if start == "--" {
                assert_eq!(candidates, node.options, "{:?}", node.words);
            } else {
                // Short options and names of positional arguments are offered, too.
                let verbs: BTreeSet<String> = candidates
                    .into_iter()
                    .filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase()))
                    .collect();
                assert!(
                    verbs.is_superset(&node.verbs),
                    "{:?}: {verbs:?}",
                    node.words
                );
                assert!(!verbs.contains("manual"), "a hidden verb is offered");
            }
        }
    }
}

#[test]
fn zsh_and_fish_know_every_verb_and_option() {
    let package = Package::open();
    let zsh = package.text("usr/share/zsh/vendor-completions/_buildbot-conda");
    assert!(zsh.starts_with("#compdef buildbot-conda\n"));
    let fish = package.text("usr/share/fish/vendor_completions.d/buildbot-conda.fish");
    for node in tree(&package) {
        for verb in &node.verbs {
            assert!(zsh.contains(&format!("\n'{verb}:")), "zsh: `{verb}`");
            assert!(fish.contains(&format!("-a \"{verb}\"")), "fish: `{verb}`");
        }
        for option in &node.options {
            let is_there = zsh.lines().any(|line| {
                let Some(word) = line.strip_prefix('\'') else {
                    return false;
                };
                // Options that exclude it are listed before it, with a star if it can be repeated.
                let word = match word.split_once(')') {
                    Some((others, word)) if others.starts_with('(') => word,
                    _ => word,
                };
                word.trim_start_matches('*').starts_with(option.as_str())
            });
            assert!(is_there, "zsh: `{option}`");
            let word = option.trim_start_matches('-');
            assert!(fish.contains(&format!(" -l {word}")), "fish: `{option}`");
        }
    }
}
