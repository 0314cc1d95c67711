//! `host.toml`: the content of a profile apart from its other files. serde describes the format once; this module
//! writes it as TOML in a stable order, with one line for each thing that can change, and reads it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::{InstanceRef, Unit};
use buildbot_conda_core::values::AccountName;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table};

use crate::system::values::{Mode, Ownership};

/// The format that is written, and the only one that is read.
const FORMAT: u32 = 1;
const HEADER: &str = "\
# Written by `buildbot-conda host export`; the format is described in buildbot-conda-host(1). It contains no secrets: credentials
# are names of files in /etc/buildbot-conda/credentials.
";

/// All of `host.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Manifest {
    format: u32,
    /// Files of credentials: names in the credentials directory, or absolute paths; sorted.
    #[serde(default)]
    pub(super) credentials: Vec<String>,
    /// What looked like a secret and is none, `FILE:NAME` each; sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) not_secret: Vec<String>,
    /// Versions of our packages that are installed.
    #[serde(default)]
    pub(super) packages: BTreeMap<String, String>,
    /// `enabled`, `disabled` or `masked`, by unit.
    #[serde(default)]
    pub(super) units: BTreeMap<Unit, String>,
    /// By absolute path.
    #[serde(default)]
    pub(super) modes: BTreeMap<String, Ownership>,
    /// By name.
    #[serde(default, rename = "account")]
    pub(super) accounts: Vec<Account>,
    /// By prefix.
    #[serde(default, rename = "environment")]
    pub(super) environments: Vec<EnvironmentEntry>,
    /// By reference.
    #[serde(default, rename = "instance")]
    pub(super) instances: Vec<InstanceEntry>,
}

/// An account that runs an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Account {
    pub(super) name: AccountName,
    /// The primary one.
    pub(super) group: String,
    /// The others, sorted.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    pub(super) home: String,
    pub(super) shell: String,
    /// Whether it is a service's and no person's.
    pub(super) system: bool,
}

/// Who makes an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    /// We: a generation that is immutable.
    Managed,
    /// conda, mamba or pixi, and their callers.
    Conda,
}

/// One environment, with its lock in a separate file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct EnvironmentEntry {
    /// Absolute; of a managed one that which instances are configured with.
    pub(super) prefix: String,
    pub(super) kind: Kind,
    /// For a managed environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) generation: Option<String>,
    /// The account that owns one of Conda's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) owner: Option<String>,
    /// Below the profile's directory.
    pub(super) lock: String,
}

/// One instance of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct InstanceEntry {
    pub(super) reference: InstanceRef,
    pub(super) directory: String,
    pub(super) user: AccountName,
    /// Modes by paths in its directory, of the files that the profile has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) files: BTreeMap<String, Mode>,
    /// What `create` has noted of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<Value>,
}

impl Manifest {
    /// An empty manifest.
    pub(super) fn new() -> Self {
        Self {
            format: FORMAT,
            credentials: Vec::new(),
            not_secret: Vec::new(),
            packages: BTreeMap::new(),
            units: BTreeMap::new(),
            modes: BTreeMap::new(),
            accounts: Vec::new(),
            environments: Vec::new(),
            instances: Vec::new(),
        }
    }

    /// The text of the file.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let value = serde_json::to_value(self).context("write a profile")?;
        let Value::Object(map) = value else {
            bail!("a profile is a table");
        };
        let mut document = DocumentMut::new();
        fill(document.as_table_mut(), map)?;
        Ok(format!("{HEADER}\n{document}"))
    }

    /// Reads the text of the file; `name` is its name in messages.
    ///
    /// # Errors
    ///
    /// If it is not TOML, has another format, or contains unknown keys.
    pub(super) fn parse(name: &str, text: &str) -> anyhow::Result<Self> {
        let document: DocumentMut = text
            .parse()
            .map_err(|error| anyhow::anyhow!("read `{name}`: {error}"))?;
        let format = document.get("format").and_then(Item::as_integer);
        if format != Some(i64::from(FORMAT)) {
            let found = format.map_or_else(|| "none".to_owned(), |format| format.to_string());
            bail!(
                "`{name}` is of format {found}, this program supports {FORMAT}\n\
                 hint: use the version of `buildbot-conda` that wrote it, or a newer one"
            );
        }
        serde_json::from_value(value_of(document.as_item())?)
            .with_context(|| format!("read `{name}`"))
    }
}

/// Puts plain values before tables, as TOML wants them.
fn fill(table: &mut Table, map: Map<String, Value>) -> anyhow::Result<()> {
    for (key, value) in map {
        let item = match value {
            Value::Object(inner) => {
                let mut table = Table::new();
                fill(&mut table, inner)?;
                Item::Table(table)
            }
            Value::Array(values) if values.iter().any(Value::is_object) => {
                let mut tables = ArrayOfTables::new();
                for value in values {
                    let Value::Object(inner) = value else {
                        bail!("`{key}` contains tables and other values");
                    };
                    let mut table = Table::new();
                    fill(&mut table, inner)?;
                    tables.push(table);
                }
                Item::ArrayOfTables(tables)
            }
            Value::Array(values) => {
                let mut array = Array::new();
                for value in values {
                    let mut value = plain(&value)?;
                    // One line each: that is what version control shows.
                    value.decor_mut().set_prefix("\n    ");
                    array.push_formatted(value);
                }
                if !array.is_empty() {
                    array.set_trailing("\n");
                    array.set_trailing_comma(true);
                }
                Item::Value(array.into())
            }
            Value::Null => continue,
            other => Item::Value(plain(&other)?),
        };
        table.insert(&key, item);
    }
    Ok(())
}

fn plain(value: &Value) -> anyhow::Result<toml_edit::Value> {
    Ok(match value {
        Value::String(text) => text.as_str().into(),
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => number.as_i64().context("write a number")?.into(),
        other => bail!("`{other}` is not supported in a profile"),
    })
}

fn value_of(item: &Item) -> anyhow::Result<Value> {
    Ok(match item {
        Item::None => Value::Null,
        Item::Table(table) => object(table.iter())?,
        Item::ArrayOfTables(tables) => {
            let tables = tables.iter().map(|table| object(table.iter()));
            Value::Array(tables.collect::<anyhow::Result<_>>()?)
        }
        Item::Value(value) => match value {
            toml_edit::Value::String(text) => text.value().as_str().into(),
            toml_edit::Value::Integer(number) => (*number.value()).into(),
            toml_edit::Value::Boolean(truth) => (*truth.value()).into(),
            toml_edit::Value::Array(values) => {
                let values = values.iter().map(|value| value_of(&value.clone().into()));
                Value::Array(values.collect::<anyhow::Result<_>>()?)
            }
            toml_edit::Value::InlineTable(table) => object(table.clone().into_table().iter())?,
            other => bail!(
                "`{}` is not supported in a profile",
                other.to_string().trim()
            ),
        },
    })
}

fn object<'i>(items: impl Iterator<Item = (&'i str, &'i Item)>) -> anyhow::Result<Value> {
    let mut map = Map::new();
    for (key, item) in items {
        map.insert(key.to_owned(), value_of(item)?);
    }
    Ok(Value::Object(map))
}
