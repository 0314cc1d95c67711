//! From TOML tables to typed layers. A layer contains only the content of one table. An invalid value is a problem, and
//! its key is left unset.

use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problem::{Affects, Position, Problem};
use super::{BackupEvery, Hardening, Log, Upgrade, Word, keys};
use crate::limits::{Limit, Limits};
use crate::names::{InstanceRef, Role};
use crate::notify::Notify;
use crate::paths;
use crate::values::{
    self, AbsolutePath, AccountName, CondaEnv, CondaRoot, CredentialName, MasterName, ValueError,
    VariableName, Watchdog,
};

type Key<'i> = Spanned<DeString<'i>>;
type Value<'i> = Spanned<DeValue<'i>>;

/// The content of one table.
#[derive(Debug, Default)]
pub(super) struct Layer {
    pub(super) user: Option<AccountName>,
    pub(super) group: Option<AccountName>,
    pub(super) conda_root: Option<CondaRoot>,
    pub(super) conda_env: Option<CondaEnv>,
    pub(super) directory: Option<AbsolutePath>,
    pub(super) directory_at: Option<Range<usize>>,
    pub(super) name: Option<MasterName>,
    pub(super) name_at: Option<Range<usize>>,
    pub(super) environment: BTreeMap<VariableName, String>,
    pub(super) credentials: BTreeMap<CredentialName, Credential>,
    pub(super) drain: Option<Duration>,
    pub(super) start_timeout: Option<Duration>,
    pub(super) log: Option<Log>,
    pub(super) upgrade: Option<Upgrade>,
    pub(super) watchdog: Option<Watchdog>,
    pub(super) hardening: Option<Hardening>,
    pub(super) backup_every: Option<BackupEvery>,
    pub(super) backup_to: Option<AbsolutePath>,
    pub(super) limits: Limits,
    pub(super) notify: Option<Notify>,
}

/// The file of a credential, and its position in the text.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) file: AbsolutePath,
    pub(super) at: Range<usize>,
}

/// The table of one instance: the position of its header, and its content.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) reference: InstanceRef,
    pub(super) header_at: Range<usize>,
    pub(super) layer: Layer,
}

/// The content of a file, with its problems in no particular order.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) defaults: Layer,
    pub(super) sections: Vec<Section>,
    pub(super) problems: Vec<Problem>,
}

/// Reads a whole file. After a syntax error nothing else is reported, because the rest of the file cannot be trusted.
pub(super) fn document(text: &str) -> Document {
    match DeTable::parse(text) {
        Err(error) => Document {
            problems: vec![syntax_problem(text, &error)],
            ..Document::default()
        },
        Ok(root) => {
            let mut reader = Reader {
                text,
                document: Document::default(),
            };
            for (key, value) in root.get_ref() {
                reader.top_level(key, value);
            }
            reader.document
        }
    }
}

fn syntax_problem(text: &str, error: &toml::de::Error) -> Problem {
    let position = Position::of(text, error.span().map_or(0, |span| span.start));
    let line = text.lines().nth(position.line - 1).unwrap_or_default();
    Problem {
        position,
        key: String::new(),
        reason: format!("syntax error: {}", one_line(error.message())),
        hint: syntax_hint(line.trim()),
        affects: Affects::Everything,
    }
}

fn one_line(message: &str) -> String {
    message.lines().collect::<Vec<_>>().join(", ")
}

/// What the line was probably meant to be.
fn syntax_hint(line: &str) -> Option<String> {
    if let Some(header) = line
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        && header.contains('@')
        && !header.contains('"')
    {
        let header = header.trim_matches(['[', '\'', ' ']);
        return Some(format!("quote a name with `@`: `[\"{header}\"]`"));
    }
    if let Some((key, value)) = line.split_once('=') {
        let (key, value) = (key.trim(), value.trim());
        if key.contains('@') && !key.starts_with(['"', '\'']) {
            return Some(format!("quote a name with `@`: `\"{key}\"`"));
        }
        if value.starts_with('"') && value.contains('\\') {
            return Some(
                "a backslash in double quotes starts an escape; use single quotes".to_owned(),
            );
        }
        if value.starts_with(|first: char| first.is_alphanumeric() || "/~.-".contains(first)) {
            return Some(format!(
                "quote text: `{key} = \"{}\"`",
                value.replace('"', "")
            ));
        }
    } else if let Some((key, value)) = line.split_once(':')
        && keys::names().contains(&key.trim())
    {
        let value = value.trim().trim_matches(['"', '\'']);
        return Some(format!("write `{} = \"{value}\"`", key.trim()));
    }
    None
}

struct Reader<'t> {
    text: &'t str,
    document: Document,
}

impl Reader<'_> {
    fn top_level(&mut self, key: &Key<'_>, value: &Value<'_>) {
        let name: &str = key.get_ref();
        if name == "defaults" {
            if let Some(table) = self.table(name, value, Affects::Everything) {
                let layer = self.layer(name, table, &Affects::Everything);
                for (at, key) in [(&layer.directory_at, "directory"), (&layer.name_at, "name")] {
                    let Some(at) = at else { continue };
                    let error = ValueError {
                        reason: format!("the {key} can be set for a single instance only"),
                        hint: Some(
                            "move it to the table of the instance, such as `[master]`".to_owned(),
                        ),
                    };
                    let path = format!("defaults.{key}");
                    self.problem(at.clone(), &path, Affects::Everything, error);
                }
                self.document.defaults = layer;
            }
            return;
        }
        match name.parse::<InstanceRef>() {
            Ok(reference) => {
                let affects = Affects::Instance(reference.clone());
                let layer = self
                    .table(name, value, affects.clone())
                    .map(|table| self.layer(name, table, &affects))
                    .unwrap_or_default();
                self.document.sections.push(Section {
                    reference,
                    header_at: key.span(),
                    layer,
                });
            }
            Err(error) if name.starts_with("master@") || name.starts_with("worker@") => {
                let error = ValueError {
                    reason: error.to_string(),
                    hint: None,
                };
                self.problem(key.span(), name, Affects::NoInstance, error);
            }
            Err(_) => self.unknown_at_top(key, value),
        }
    }

    fn unknown_at_top(&mut self, key: &Key<'_>, value: &Value<'_>) {
        let name: &str = key.get_ref();
        let error = if matches!(value.get_ref(), DeValue::Table(_)) {
            let hint = closest(name, &["defaults", "master", "worker"]).map_or_else(
                || "use `[defaults]`, `[master]`, `[worker]`, `[\"master@NAME\"]` or `[\"worker@NAME\"]`".to_owned(),
                |close| format!("did you mean `[{close}]`?"),
            );
            ValueError {
                reason: "unknown table".to_owned(),
                hint: Some(hint),
            }
        } else {
            let hint = keys::names().contains(&name).then(|| {
                format!("put `{name}` into `[defaults]` or into the table of an instance")
            });
            ValueError {
                reason: "unknown key outside of any table".to_owned(),
                hint,
            }
        };
        self.problem(key.span(), name, Affects::Everything, error);
    }

    fn layer(&mut self, table_name: &str, table: &DeTable<'_>, affects: &Affects) -> Layer {
        let mut layer = Layer::default();
        for (key, value) in table {
            let at = value.span();
            let name: &str = key.get_ref();
            let path = format!("{table_name}.{name}");
            match name {
                "user" => layer.user = self.parsed(&path, value, affects),
                "group" => layer.group = self.parsed(&path, value, affects),
                "conda-root" => layer.conda_root = self.parsed(&path, value, affects),
                "conda-env" => layer.conda_env = self.parsed(&path, value, affects),
                "directory" => {
                    layer.directory = self.parsed(&path, value, affects);
                    layer.directory_at = Some(at);
                }
                "environment" => {
                    layer.environment = self.entries(&path, value, affects, |_, text| {
                        values::variable_value(text)
                    });
                }
                "credentials" => {
                    layer.credentials = self.entries(&path, value, affects, |at, text| {
                        let file = values::credential_file(paths::CREDENTIALS, text)?;
                        Ok(Credential { file, at })
                    });
                }
                "drain" => layer.drain = self.checked(&path, value, affects, values::duration),
                "start-timeout" => {
                    layer.start_timeout =
                        self.checked(&path, value, affects, values::duration_of_a_second_or_more);
                }
                "watchdog" => {
                    layer.watchdog = self.checked(&path, value, affects, values::watchdog);
                }
                "log" => layer.log = self.word(&path, value, affects),
                "upgrade" => layer.upgrade = self.word(&path, value, affects),
                "backup-every" | "backup-to" | "name" if is_of_worker(affects) => {
                    let error = ValueError {
                        reason: "a worker has no database".to_owned(),
                        hint: Some(
                            "remove it here, or move it to the table of a master".to_owned(),
                        ),
                    };
                    self.problem(key.span(), &path, affects.clone(), error);
                }
                "backup-every" => layer.backup_every = self.word(&path, value, affects),
                "backup-to" => layer.backup_to = self.parsed(&path, value, affects),
                "name" => {
                    layer.name = self.parsed(&path, value, affects);
                    layer.name_at = Some(at);
                }
                "hardening" => layer.hardening = self.word(&path, value, affects),
                "notify" => layer.notify = self.parsed(&path, value, affects),
                _ => {
                    if let Some((limit, place)) = layer.limits.find(name) {
                        *place = self.limit(&path, value, affects, limit);
                        continue;
                    }
                    let hint = closest(name, &keys::names())
                        .map(|close| format!("did you mean `{close}`?"));
                    let error = ValueError {
                        reason: "unknown key".to_owned(),
                        hint,
                    };
                    self.problem(key.span(), &path, affects.clone(), error);
                }
            }
        }
        layer
    }

    /// A table of names and texts.
    fn entries<K: FromStr<Err = ValueError> + Ord, V>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        affects: &Affects,
        parse: impl Fn(Range<usize>, &str) -> Result<V, ValueError>,
    ) -> BTreeMap<K, V> {
        let mut entries = BTreeMap::new();
        let Some(table) = self.table(path, value, affects.clone()) else {
            return entries;
        };
        for (key, value) in table {
            let name: &str = key.get_ref();
            let path = format!("{path}.{name}");
            match name.parse::<K>() {
                Err(error) => self.problem(key.span(), &path, affects.clone(), error),
                Ok(name) => {
                    let at = value.span();
                    let parsed =
                        self.checked(&path, value, affects, |text| parse(at.clone(), text));
                    entries.extend(parsed.map(|parsed| (name, parsed)));
                }
            }
        }
        entries
    }

    fn table<'v, 'i>(
        &mut self,
        path: &str,
        value: &'v Value<'i>,
        affects: Affects,
    ) -> Option<&'v DeTable<'i>> {
        if let DeValue::Table(table) = value.get_ref() {
            return Some(table);
        }
        let hint = matches!(value.get_ref(), DeValue::Array(_)).then(|| {
            "use single brackets for a table; tables of further instances are `[\"master@NAME\"]` and `[\"worker@NAME\"]`".to_owned()
        });
        let reason = format!("expected a table, found {}", kind(value.get_ref()));
        self.problem(value.span(), path, affects, ValueError { reason, hint });
        None
    }

    fn parsed<T: FromStr<Err = ValueError>>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        affects: &Affects,
    ) -> Option<T> {
        self.checked(path, value, affects, str::parse)
    }

    fn word<T: Word>(&mut self, path: &str, value: &Value<'_>, affects: &Affects) -> Option<T> {
        self.checked(path, value, affects, |text| {
            let found = T::WORDS.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let words: Vec<String> = T::WORDS
                    .iter()
                    .map(|(word, _)| format!("`\"{word}\"`"))
                    .collect();
                ValueError {
                    reason: format!("unknown value `{}`", text.escape_debug()),
                    hint: Some(format!("use one of {}", words.join(", "))),
                }
            })
        })
    }

    /// Limits are numbers as often as texts, and both are fine.
    fn limit(
        &mut self,
        path: &str,
        value: &Value<'_>,
        affects: &Affects,
        limit: &Limit,
    ) -> Option<String> {
        if !matches!(value.get_ref(), DeValue::Integer(_)) {
            return self.checked(path, value, affects, |text| limit.value(text));
        }
        match limit.value(self.text[value.span()].trim()) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(value.span(), path, affects.clone(), error);
                None
            }
        }
    }

    fn checked<T>(
        &mut self,
        path: &str,
        value: &Value<'_>,
        affects: &Affects,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        let outcome = match value.get_ref() {
            DeValue::String(text) => parse(text),
            other => Err(ValueError {
                reason: format!("expected text in quotes, found {}", kind(other)),
                hint: match parse(self.text[value.span()].trim()) {
                    Ok(_) => Some(format!("write `\"{}\"`", self.text[value.span()].trim())),
                    Err(error) => error.hint,
                },
            }),
        };
        match outcome {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problem(value.span(), path, affects.clone(), error);
                None
            }
        }
    }

    fn problem(&mut self, at: Range<usize>, key: &str, affects: Affects, error: ValueError) {
        self.document.problems.push(Problem {
            position: Position::of(self.text, at.start),
            key: key.escape_debug().to_string(),
            reason: error.reason,
            hint: error.hint,
            affects,
        });
    }
}

fn is_of_worker(affects: &Affects) -> bool {
    matches!(affects, Affects::Instance(reference) if reference.role == Role::Worker)
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The one of `words` that a slip of the fingers turns into `name`.
pub(super) fn closest<'w>(name: &str, words: &[&'w str]) -> Option<&'w str> {
    words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(name, word), *word))
        .filter(|(distance, word)| *distance <= word.len() / 3)
        .min()
        .map(|(_, word)| word)
}
