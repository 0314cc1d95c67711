//! Units and scripts as people write them, of our own writing, each with what becomes of every word: `corpus.txt`. What is
//! marked `exact` is taken over as it is, with everything else named; what is marked `refused` is refused by name. `UPDATE=1`
//! writes the verdicts anew, and a person reads the difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::unit_text;

use super::derive;
use super::derived::{Given, Host, Observed, Script, Source};
use super::verdict::shown_place;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/adopt/corpus.txt");

/// What is there beside the files of a case.
const THERE: [&str; 4] = [
    "/opt/conda/conda-meta",
    "/opt/conda/bin/conda",
    "/opt/conda/bin/activate",
    "/opt/conda/bin/mamba",
];
const ENVIRONMENTS: [&str; 3] = [
    "/opt/conda/envs/ci",
    "/opt/conda/envs/cuda",
    "/srv/mm/envs/ci",
];
const PROGRAMS: [&str; 5] = [
    "conda-meta",
    "bin/buildbot",
    "bin/buildbot-worker",
    "bin/twistd",
    "bin/python",
];
const DIRECTORIES: [&str; 5] = [
    "/home/bb/master",
    "/home/bb/worker",
    "/srv/m",
    "/srv/ci",
    "/home/bb/cuda",
];

/// One case: its name, whether it is exact, its parts by their headings.
struct Case<'t> {
    name: &'t str,
    is_exact: bool,
    parts: Vec<(&'t str, String)>,
}

fn cases(text: &str) -> Vec<Case<'_>> {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("=== ") {
            let (kind, name) = title.split_once(": ").unwrap();
            assert!(["exact", "refused"].contains(&kind), "{title}");
            let is_exact = kind == "exact";
            let parts = Vec::new();
            cases.push(Case {
                name,
                is_exact,
                parts,
            });
        } else if let Some(heading) = line.strip_prefix("--- ") {
            cases
                .last_mut()
                .unwrap()
                .parts
                .push((heading, String::new()));
        } else if let Some(case) = cases.last_mut() {
            let (_, part) = case.parts.last_mut().unwrap();
            part.push_str(line);
            part.push('\n');
        }
    }
    cases
}

/// What becomes of a case, a line for each word, and whether it is refused.
#[expect(
    clippy::too_many_lines,
    reason = "one host, described from top to bottom"
)]
fn judged(case: &Case<'_>) -> (String, bool) {
    let part = |heading: &str| {
        case.parts
            .iter()
            .find(|(found, _)| *found == heading)
            .map(|(_, text)| text.as_str())
    };
    let unit = case
        .parts
        .iter()
        .find(|(heading, _)| heading.ends_with(".service"));
    let (name, unit) = match (unit, part("command"), part("worker")) {
        (Some((name, text)), _, _) => (*name, text.clone()),
        (None, Some(command), _) => ("buildbot-master.service", service(command)),
        (None, None, Some(_)) => ("buildbot-worker.service", service("/home/bb/start.sh\n")),
        (None, None, None) => ("buildbot-master.service", service("/home/bb/start.sh\n")),
    };
    let mut files: BTreeMap<&str, &str> = case
        .parts
        .iter()
        .filter(|(heading, _)| heading.starts_with('/'))
        .map(|(path, text)| (*path, text.as_str()))
        .collect();
    for script in ["script", "worker"] {
        files.extend(part(script).map(|text| ("/home/bb/start.sh", text)));
    }
    let exists = |path: &str| {
        let mut environments = ENVIRONMENTS
            .iter()
            .flat_map(|root| PROGRAMS.iter().map(move |name| format!("{root}/{name}")));
        let mut tacs = DIRECTORIES
            .iter()
            .map(|directory| format!("{directory}/buildbot.tac"));
        THERE.contains(&path)
            || files.contains_key(path)
            || environments.any(|known| known == path)
            || tacs.any(|known| known == path)
    };
    let read = |_: &str, path: &str| {
        let text = files.get(path).map(|text| (*text).to_owned());
        text.map(|text| Script {
            text,
            is_private: false,
        })
        .ok_or_else(|| "no such file".to_owned())
    };
    let host = Host {
        read: &read,
        read_as_root: &|path| read("root", path),
        is_private: &|_| false,
        exists: &exists,
        resolved: &|path: &Path| path.to_owned(),
        uid: &|_| Some(1000),
        activation: &|_, _| "export GDAL_DATA=\"$CONDA_PREFIX/share/gdal\"".to_owned(),
        home: &|user| Some(format!("/home/{user}")),
        conda_root: "/home/bb/anaconda3".to_owned(),
    };
    let reference: InstanceRef = name
        .strip_prefix("buildbot-")
        .and_then(|rest| rest.strip_suffix(".service"))
        .unwrap()
        .parse()
        .unwrap();
    let settings = unit_text::parse("unit", &unit);
    let observed = part("process").map(process);
    let source = Source {
        unit: name,
        file: "unit",
        settings: &settings,
        observed: observed.as_ref(),
    };
    let derived = derive::derive(&reference, &source, &Given::default(), &host);
    let mut text = String::new();
    for (key, value, from) in &derived.values {
        // The same in all of them.
        if (key != "user" || value != "bb") && key != "hardening" {
            writeln!(text, "taken over: {key} = {value:?} ({from})").unwrap();
        }
    }
    for (name, _, from) in &derived.secrets {
        writeln!(text, "taken over: secret {name} ({from})").unwrap();
    }
    for (section, lines) in &derived.carried {
        for (line, place) in lines {
            if line != "UMask=0022" {
                writeln!(
                    text,
                    "taken over: [{section}] {line} ({})",
                    shown_place(place)
                )
                .unwrap();
            }
        }
    }
    if !derived.answered.is_empty() {
        writeln!(text, "answered: {}", derived.answered.join(", ")).unwrap();
    }
    for remark in &derived.left {
        writeln!(
            text,
            "left behind: {} ({})",
            remark.text,
            shown_place(&remark.place)
        )
        .unwrap();
    }
    for (remark, _) in &derived.problems {
        writeln!(
            text,
            "refused: {} ({})",
            remark.text,
            shown_place(&remark.place)
        )
        .unwrap();
    }
    (text, !derived.problems.is_empty())
}

fn service(command: &str) -> String {
    format!(
        "[Service]\nUser=bb\nWorkingDirectory=/home/bb\nExecStart={}\n",
        command.trim_end()
    )
}

/// A process as its account, in its directory, by its program, with its variables.
fn process(text: &str) -> Observed {
    let mut observed = Observed {
        pid: 4242,
        directory: PathBuf::from("/home/bb/master"),
        program: PathBuf::from("/opt/conda/envs/ci/bin/python3.11"),
        umask: 0o022,
        uid: 1000,
        user: "bb".to_owned(),
        ..Observed::default()
    };
    for line in text.lines() {
        let (name, value) = line.split_once('=').unwrap();
        match name {
            "@directory" => observed.directory = value.into(),
            "@program" => observed.program = value.into(),
            "@umask" => observed.umask = u32::from_str_radix(value, 8).unwrap(),
            "@user" => observed.user = value.to_owned(),
            "@uid" => observed.uid = value.parse().unwrap(),
            "@nice" => observed.nice = value.parse().unwrap(),
            name => drop(
                observed
                    .environment
                    .insert(name.to_owned(), value.to_owned()),
            ),
        }
    }
    observed
}

#[test]
fn every_word_of_the_corpus_is_taken_over_left_behind_by_name_or_refused_by_name() {
    let before = std::fs::read_to_string(FILE).unwrap();
    let begin = before.find("=== ").unwrap();
    let mut after = before[..begin].to_owned();
    let all = cases(&before);
    assert!(all.len() >= 80, "{}", all.len());
    let mut wrong = Vec::new();
    for case in &all {
        let (text, is_refused) = judged(case);
        if is_refused == case.is_exact {
            wrong.push(format!("{}\n{text}", case.name));
        }
        let kind = if case.is_exact { "exact" } else { "refused" };
        writeln!(after, "=== {kind}: {}", case.name).unwrap();
        for (heading, part) in case
            .parts
            .iter()
            .filter(|(heading, _)| *heading != "verdicts")
        {
            write!(after, "--- {heading}\n{part}").unwrap();
        }
        write!(after, "--- verdicts\n{text}").unwrap();
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &after).unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure_same(&before, &after);
}

/// The first line that differs says more than both texts.
fn ensure_same(before: &str, after: &str) {
    let mut lines = before.lines().zip(after.lines());
    if before != after && std::env::var_os("UPDATE").is_none() {
        let first = lines.find(|(old, new)| old != new);
        panic!("`{FILE}` has other verdicts: {first:?}; `UPDATE=1` writes them");
    }
}
