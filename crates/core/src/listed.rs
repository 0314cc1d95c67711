//! Reads the workers from a `master.cfg`, if it lists them in a simple form, and rewrites the file to read them from
//! [`WORKER_TABLE`].
//!
//! Two forms are understood. The earlier starter configuration has a list of names (`crate::workers`) and one password:
//! `c["workers"] = [worker.Worker(name, secret("worker-password")) for name in WORKERS]`. People write `c["workers"] =
//! [worker.Worker("gpu", "password"), ...]`, with a password as a literal or as `secret(...)`. Anything else, such as
//! further arguments, may have a meaning that the table cannot express.

use std::collections::BTreeSet;
use std::ops::Range;

use thiserror::Error;

use crate::names::InstanceRef;
use crate::starter::{self, PASSWORDS, StartError, WORKER_TABLE, WorkerName};
use crate::workers::{self, VARIABLE};

/// The key of the configuration.
const KEY: &str = "workers";
/// What the new lines define, and the old file must not use otherwise.
const DEFINED: [&str; 4] = ["password", "table", "slots", "tagged"];
/// The definition may already exist, because the lines from `buildbot-conda web lines` contain it.
const HERE: &str = "HERE = os.path.dirname(os.path.abspath(__file__))";
/// Above the list of names in the starter of before.
const OLD_COMMENT: &str = "# The names of the workers. As long as this is a plain list,";

/// Where the password of a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secret<'a> {
    /// In the file itself.
    Text(&'a str),
    /// In a credential of the master, given by its name.
    Credential(&'a str),
}

/// The workers of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed<'a> {
    text: &'a str,
    workers: Vec<(WorkerName, Secret<'a>)>,
    /// The ranges of the list of names and of the key; the new lines replace the latter.
    statements: (Option<Range<usize>>, Range<usize>),
}

/// Why the workers of a file are not understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ListedError {
    /// No statement, or several.
    #[error(
        "it has {0} statements `c[\"{KEY}\"] = [...]`, and has to have one, at the beginning of a line"
    )]
    Statements(usize),
    /// The statement is none of those that are understood.
    #[error(
        "`c[\"{KEY}\"]` is not a plain list of workers, each of which has a name and a password and nothing else, as in \
         `worker.Worker(\"gpu\", \"password\")` or `worker.Worker(\"gpu\", secret(\"name-of-a-credential\"))`"
    )]
    Unknown,
    /// The list is empty.
    #[error("`c[\"{KEY}\"]` is empty")]
    Nobody,
    /// Two have one name.
    #[error("`c[\"{KEY}\"]` has two workers `{0}`")]
    Twice(String),
    /// A name that cannot be the name of a table.
    #[error(transparent)]
    Name(#[from] StartError),
    /// A name that the new lines define.
    #[error(
        "it uses the name `{0}`, which the lines that read `{WORKER_TABLE}` and `{PASSWORDS}` define"
    )]
    Defined(&'static str),
}

/// Reads the workers of a `master.cfg`.
///
/// # Errors
///
/// [`ListedError`] where they are not understood.
pub fn read(text: &str) -> Result<Listed<'_>, ListedError> {
    let mut statements = statements(text);
    let (Some(statement), None) = (statements.next(), statements.next()) else {
        return Err(ListedError::Statements(self::statements(text).count()));
    };
    let at_line_start =
        text[..statement.start].is_empty() || text[..statement.start].ends_with('\n');
    if !at_line_start {
        return Err(ListedError::Statements(0));
    }
    let (names, found, end) = match by_names(text, statement.clone()) {
        Some((names, found, end)) => (Some(names), found, end),
        None => by_calls(text, statement.end)
            .map(|(found, end)| (None, found, end))
            .ok_or(ListedError::Unknown)?,
    };
    let mut known = BTreeSet::new();
    let mut workers = Vec::new();
    for (name, secret) in found {
        if !known.insert(name) {
            return Err(ListedError::Twice(name.to_owned()));
        }
        workers.push((name.parse()?, secret));
    }
    if workers.is_empty() {
        return Err(ListedError::Nobody);
    }
    let listed = Listed {
        text,
        workers,
        statements: (names, statement.start..end),
    };
    let [above, between, below] = listed.rest();
    let has_here = text.lines().any(|line| line == HERE);
    let others = [
        (!has_here).then_some("HERE"),
        listed.statements.0.is_none().then_some(VARIABLE),
    ];
    let mut defined = DEFINED.into_iter().chain(others.into_iter().flatten());
    let is_used = |name: &&str| {
        let parts = [above, between, below].into_iter();
        parts
            .flat_map(|part| workers::mentions(part, name))
            .any(|(before, after)| is_name(before, after))
    };
    match defined.find(is_used) {
        Some(name) => Err(ListedError::Defined(name)),
        None => Ok(listed),
    }
}

impl Listed<'_> {
    /// The workers in their order.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerName, Secret<'_>)> {
        self.workers.iter().map(|(name, secret)| (name, *secret))
    }

    /// The file once the workers are in the table.
    pub fn moved(&self, master: &InstanceRef) -> String {
        let [above, between, below] = self.rest();
        let has = |wanted: &dyn Fn(&str) -> bool| self.text.lines().any(wanted);
        let mut needs = String::new();
        if !has(&|line| line == "import os") {
            needs.push_str("import os\n\n");
        }
        if !has(&|line| line.trim_start() == "import tomllib") {
            needs.push_str(
                "try:\n    import tomllib\nexcept ImportError:  # Python before 3.11\n    \
                 from pip._vendor import tomli as tomllib\n\n",
            );
        }
        let is_plugin = |word: &str| word.trim() == "worker";
        let imports = |line: &str| {
            let names = line.strip_prefix("from buildbot.plugins import ");
            names.is_some_and(|names| names.split(',').any(is_plugin))
        };
        if !has(&imports) {
            needs.push_str("from buildbot.plugins import worker\n\n");
        }
        if !has(&|line| line == HERE) {
            needs.extend([HERE, "\n\n\n"]);
        }
        let lines = starter::workers(master);
        let lines = lines.trim_end();
        format!("{above}{between}{needs}{lines}\n{below}")
    }

    /// The parts above both statements, between them and below them; the comment of the list of names is removed with
    /// it.
    fn rest(&self) -> [&str; 3] {
        let (names, key) = &self.statements;
        let below = &self.text[key.end..];
        match names {
            None => [&self.text[..key.start], "", below],
            Some(names) => [
                without_old_comment(&self.text[..names.start]),
                &self.text[names.end..key.start],
                below,
            ],
        }
    }
}

/// The range of each `c["workers"] =`, up to and including its `=`; comments are skipped.
fn statements(text: &str) -> impl Iterator<Item = Range<usize>> {
    let code = text.split_inclusive('\n').scan(0, |start, line| {
        let this = *start;
        *start += line.len();
        Some((this, line))
    });
    let code = code.filter(|(_, line)| !line.trim_start().starts_with('#'));
    code.filter_map(|(start, line)| {
        let begin = line.len() - line.trim_start_matches([' ', '\t']).len();
        let mut scan = Scan {
            text,
            at: start + begin,
        };
        let first = scan.at;
        scan.take("c")?;
        scan.take("[")?;
        (scan.string()? == KEY).then_some(())?;
        scan.take("]")?;
        scan.take("=")?;
        (!scan.rest().starts_with('=')).then_some(first..scan.at)
    })
}

/// The text above a list of names, without the comment that explains the list.
fn without_old_comment(above: &str) -> &str {
    let mut start = above.len();
    for line in above.split_inclusive('\n').rev() {
        if !line.starts_with('#') {
            break;
        }
        start -= line.len();
        if line.starts_with(OLD_COMMENT) {
            return &above[..start];
        }
    }
    above
}

/// Whether a word is a name of the file's own, and not a part of a text, an attribute or a keyword of a call.
fn is_name(before: &str, after: &str) -> bool {
    let is_text = before.ends_with(['.', '"', '\'', '-']);
    let before = before.trim();
    let after = after.trim_start();
    let is_keyword =
        after.starts_with('=') && !after.starts_with("==") && (before.ends_with(['(', ',']));
    !is_text && !is_keyword
}

type Found<'a> = Vec<(&'a str, Secret<'a>)>;

/// `[worker.Worker(name, secret("...")) for name in WORKERS]`: the statement of the names, the workers, and the end.
fn by_names(text: &str, statement: Range<usize>) -> Option<(Range<usize>, Found<'_>, usize)> {
    let list = workers::find(text)?;
    let names = list.statement();
    let mut scan = Scan {
        text,
        at: statement.end,
    };
    scan.take("[")?;
    scan.class()?;
    let each = scan.word()?;
    scan.take(",")?;
    let secret = scan.secret()?;
    scan.close()?;
    for word in ["for", each, "in", VARIABLE] {
        (scan.word()? == word).then_some(())?;
    }
    scan.take("]")?;
    let end = scan.end_of_line()?;
    let is_between = names.end <= statement.start
        && workers::mentions(&text[names.end..statement.start], VARIABLE).count() == 0;
    is_between.then_some(())?;
    let found = list.names().map(|name| (name, secret)).collect();
    Some((names, found, end))
}

/// `[worker.Worker("...", "..."), ...]` from behind the `=`: the workers, and the end.
fn by_calls(text: &str, at: usize) -> Option<(Found<'_>, usize)> {
    let mut scan = Scan { text, at };
    let mut found = Vec::new();
    scan.take("[")?;
    while scan.take("]").is_none() {
        scan.class()?;
        let name = scan.string()?;
        scan.take(",")?;
        found.push((name, scan.secret()?));
        scan.close()?;
        if scan.take(",").is_none() {
            scan.take("]")?;
            break;
        }
    }
    Some((found, scan.end_of_line()?))
}

/// Reads Python within brackets, as far as needed here.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Passes over blanks, ends of lines and comments.
    fn space(&mut self) {
        loop {
            let rest = self.rest();
            let code = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            self.at = self.text.len() - code.len();
            if !code.starts_with('#') {
                return;
            }
            self.at += code.find('\n').unwrap_or(code.len());
        }
    }

    fn take(&mut self, token: &str) -> Option<()> {
        self.space();
        self.rest().strip_prefix(token)?;
        self.at += token.len();
        Some(())
    }

    /// An identifier, or several joined by dots.
    fn word(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let is_part = |character: char| character.is_alphanumeric() || "_.".contains(character);
        let length = rest.find(|other| !is_part(other)).unwrap_or(rest.len());
        let word = &rest[..length];
        let is_word = !word.is_empty() && !word.starts_with(|first: char| first.is_numeric());
        is_word.then_some(())?;
        self.at += length;
        Some(word)
    }

    /// A string without escapes, prefixes, triple quotes or ends of lines.
    fn string(&mut self) -> Option<&'a str> {
        self.space();
        let rest = self.rest();
        let quote = rest.chars().next().filter(|first| "\"'".contains(*first))?;
        let length = rest[1..].find(quote)?;
        let string = &rest[1..=length];
        let is_plain = !string.is_empty() && !string.contains(['\\', '\n', '\r']);
        is_plain.then_some(())?;
        self.at += length + 2;
        Some(string)
    }

    /// `worker.Worker(`
    fn class(&mut self) -> Option<()> {
        ["worker.Worker", "Worker"]
            .contains(&self.word()?)
            .then_some(())?;
        self.take("(")
    }

    /// `"..."` or `secret("...")`.
    fn secret(&mut self) -> Option<Secret<'a>> {
        if let Some(text) = self.string() {
            return Some(Secret::Text(text));
        }
        (self.word()? == "secret").then_some(())?;
        self.take("(")?;
        let name = self.string()?;
        self.close()?;
        Some(Secret::Credential(name))
    }

    /// `)`, perhaps behind a comma.
    fn close(&mut self) -> Option<()> {
        let _ = self.take(",");
        self.take(")")
    }

    /// The position after the end of the line, of which the rest may only be a comment.
    fn end_of_line(&mut self) -> Option<usize> {
        let rest = self.rest();
        let line = rest.split_inclusive('\n').next().unwrap_or_default();
        let code = line.trim();
        (code.is_empty() || code.starts_with('#')).then(|| self.at + line.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the starter was before `workers.toml`. The runner's tests run both with real Buildbots.
    const OLDER: &str = include_str!("../../launcher/runner_tests/older-master.cfg");
    const CONVERTED: &str = include_str!("../../launcher/runner_tests/converted-master.cfg");

    fn workers(text: &str) -> Result<Vec<String>, String> {
        let listed = read(text).map_err(|error| error.to_string())?;
        let show = |(name, secret): (&WorkerName, Secret<'_>)| match secret {
            Secret::Text(text) => format!("{}: {text}", name.as_str()),
            Secret::Credential(name_of) => format!("{}: by {name_of}", name.as_str()),
        };
        Ok(listed.workers().map(show).collect())
    }

    #[test]
    fn the_starter_of_before_becomes_one_that_reads_the_table() {
        assert_eq!(
            workers(OLDER).unwrap(),
            ["worker: by worker-password", "gpu: by worker-password"]
        );
        let moved = read(OLDER).unwrap().moved(&"master".parse().unwrap());
        assert_eq!(moved, CONVERTED, "it becomes now:\n{moved}");
        assert_eq!(read(&moved), Err(ListedError::Unknown), "once is enough");
    }

    #[test]
    fn names_and_passwords_that_people_write_are_found() {
        for list in [
            "[worker.Worker(\"a\", \"x\"), worker.Worker('b', secret('y'))]",
            "[\n    worker.Worker(\n        \"a\",  # the first\n        \"x\",\n    ),\n    Worker(\"b\", secret(\"y\"),),\n]  # all",
        ] {
            let text = format!("import os\nc = {{}}\nc['workers'] = {list}\nrest()\n");
            assert_eq!(workers(&text).unwrap(), ["a: x", "b: by y"], "{list}");
            let moved = read(&text).unwrap().moved(&"master@x".parse().unwrap());
            let (above, below) = moved.split_once("def password(name):").unwrap();
            assert!(above.starts_with("import os\nc = {}\ntry:\n    import tomllib\n"));
            assert!(above.ends_with("\nfrom buildbot.plugins import worker\n\nHERE = os.path.dirname(os.path.abspath(__file__))\n\n\n"));
            assert!(
                below.ends_with("for slot in slots(name)\n]\nrest()\n"),
                "{below}"
            );
            assert!(
                below.contains("create worker NAME --master master@x` adds"),
                "{below}"
            );
        }
    }

    #[test]
    fn what_has_another_meaning_is_not_understood() {
        for list in [
            "[worker.Worker(\"a\", \"x\", max_builds=2)]",
            "[worker.Worker(\"a\", util.Secret(\"x\"))]",
            "[worker.Worker(\"a\", \"x\" \"y\")]",
            "[worker.Worker(\"a\", b\"x\")]",
            "[worker.Worker(\"a\", \"\")]",
            "[worker.LocalWorker(\"a\")]",
            "[worker.Worker(\"a\", \"x\")] + more",
            "[worker.Worker(name, secret(\"x\")) for name in NAMES]",
            "[worker.Worker(name, secret(\"x\")) for name in WORKERS if name]",
            "workers()",
            "[worker.Worker(\"a\", \"x\")",
        ] {
            let text = format!("WORKERS = list()\nc[\"workers\"] = {list}\n");
            assert_eq!(read(&text), Err(ListedError::Unknown), "{list}");
        }
        let one = "c[\"workers\"] = [worker.Worker(\"a\", \"x\")]\n";
        for (text, error) in [
            (String::new(), ListedError::Statements(0)),
            (format!("# {one}"), ListedError::Statements(0)),
            (format!("if x:\n    {one}"), ListedError::Statements(0)),
            (format!("{one}{one}"), ListedError::Statements(2)),
            (format!("{one}if x:\n  {one}"), ListedError::Statements(2)),
            ("c[\"workers\"] = []\n".to_owned(), ListedError::Nobody),
            (
                one.replace("\"x\")", "\"x\"), Worker(\"a\", \"y\")"),
                ListedError::Twice("a".to_owned()),
            ),
            (
                one.replace("\"a\"", "\"a b\""),
                ListedError::Name(StartError::Worker("a b".to_owned())),
            ),
            (
                format!("table = 1\n{one}print(table)\n"),
                ListedError::Defined("table"),
            ),
            (
                format!("{one}for slots in x: pass\n"),
                ListedError::Defined("slots"),
            ),
            (format!("HERE = 1\n{one}"), ListedError::Defined("HERE")),
            (
                format!("WORKERS = [\"a\"]\n{one}"),
                ListedError::Defined(VARIABLE),
            ),
        ] {
            assert_eq!(read(&text), Err(error), "{text}");
        }
        let names = "WORKERS = [\"a\"]\n";
        let each = "c[\"workers\"] = [Worker(x, secret(\"p\")) for x in WORKERS]\n";
        assert!(read(&format!("{names}{each}use(WORKERS)\n")).is_ok());
        // It would be there only later.
        assert_eq!(
            read(&format!("{names}use(WORKERS)\n{each}")),
            Err(ListedError::Unknown)
        );
    }

    #[test]
    fn words_that_are_no_names_and_further_workers_do_not_matter() {
        let one = "c[\"workers\"] = [worker.Worker(\"a\", \"x\")]\n";
        for more in [
            "f(user=\"a\", password=\"b\")\n",
            "secret(\"web-password\")\n",
            "x.table = y.slots\n",
            "# the table of slots\n",
            "c[\"workers\"].append(far)\n",
            "c[\"workers\"] += [far]\n",
            "HERE = os.path.dirname(os.path.abspath(__file__))\n",
            "assert c[\"workers\"] == x\n",
        ] {
            let text = format!("{one}{more}");
            let moved = read(&text).unwrap().moved(&"master".parse().unwrap());
            assert!(moved.ends_with(more), "{moved}");
            assert_eq!(moved.matches("HERE = ").count(), 1, "{moved}");
        }
    }
}
