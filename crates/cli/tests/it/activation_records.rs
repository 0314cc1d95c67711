//! Reads the records of `tests/activations/`; their form is explained in `recorded.txt`. Running them is the test's.

/// One recorded activation. Bytes where the record may not be text; paths and values hold placeholders.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Unique.
    pub(crate) name: String,
    /// The argument of `conda activate`; empty for none.
    pub(crate) target: String,
    /// The inherited variables besides HOME and PATH.
    pub(crate) environment: Vec<(String, Vec<u8>)>,
    /// Of HOME and PATH, those that are not set.
    pub(crate) without: Vec<String>,
    /// The content of the personal condarc.
    pub(crate) condarc: Option<String>,
    /// Path and content.
    pub(crate) files: Vec<(String, String)>,
    /// Path and target.
    pub(crate) links: Vec<(String, String)>,
    /// What the scripts print.
    pub(crate) stdout: String,
    /// Whether the variables that name the root are as always.
    pub(crate) has_root_exports: bool,
    /// What came of it.
    pub(crate) outcome: Outcome,
}

/// What came of an activation.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// These variables changed; `None` is gone.
    Changes(Vec<(String, Option<Vec<u8>>)>),
    /// conda refused.
    Fails,
    /// A script exited the shell.
    Exits(i32),
}

impl Default for Outcome {
    fn default() -> Self {
        Self::Changes(Vec::new())
    }
}

/// All records of a file, in its order.
pub(crate) fn parse(text: &str) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            assert!(
                records.iter().all(|record| record.name != name),
                "`{name}` is there twice"
            );
            records.push(Record {
                name: name.to_owned(),
                has_root_exports: true,
                ..Record::default()
            });
            continue;
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        add(
            records.last_mut().expect("a record begins with its name"),
            verb,
            rest.trim_start(),
        );
    }
    records
}

fn add(record: &mut Record, verb: &str, rest: &str) {
    let variable = || {
        rest.split_once('=')
            .unwrap_or_else(|| panic!("`{rest}` is not `NAME=VALUE`"))
    };
    match verb {
        "note" => {}
        "run" => rest.clone_into(&mut record.target),
        "env" => record
            .environment
            .push((variable().0.to_owned(), unquoted(variable().1).into_bytes())),
        "env-bytes" => record
            .environment
            .push((variable().0.to_owned(), bytes(variable().1))),
        "without" => record.without.push(rest.to_owned()),
        "without-root-exports" => record.has_root_exports = false,
        "condarc" => record.condarc = Some(unquoted(rest)),
        "file" => {
            let (path, content) = rest.split_once(" = ").unwrap_or((rest, ""));
            record.files.push((path.to_owned(), unquoted(content)));
        }
        "link" => {
            let (link, target) = rest.split_once(" -> ").expect("`PATH -> TARGET`");
            record.links.push((link.to_owned(), target.to_owned()));
        }
        "stdout" => record.stdout = unquoted(rest),
        "fails" => record.outcome = Outcome::Fails,
        "exits" => record.outcome = Outcome::Exits(rest.parse().expect("a status")),
        "set" | "set-bytes" | "unset" => {
            let Outcome::Changes(changes) = &mut record.outcome else {
                panic!("`{}` has two outcomes", record.name)
            };
            changes.push(match verb {
                "set" => (
                    variable().0.to_owned(),
                    Some(unquoted(variable().1).into_bytes()),
                ),
                "set-bytes" => (variable().0.to_owned(), Some(bytes(variable().1))),
                _ => (rest.to_owned(), None),
            });
        }
        _ => panic!("`{verb}` in `{}` is unknown", record.name),
    }
}

fn unquoted(text: &str) -> String {
    if text.starts_with('"') {
        serde_json::from_str(text).expect("a JSON string")
    } else {
        text.to_owned()
    }
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits
        .map(|pair| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16)
                .expect("hexadecimal digits")
        })
        .collect()
}
