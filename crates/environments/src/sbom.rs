//! Software bills of materials in CycloneDX 1.6 (ECMA-424), as JSON: of an environment, and of whatever else the caller
//! lists.
//!
//! A document has no time and no serial number, so the same contents give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use buildbot_conda_core::foreign_text::ForeignText;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::package::{Package, record};
use crate::{Error, PLATFORM};

/// What a package URL has as it is; the rest is percent-encoded.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'.')
    .remove(b'-')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// The licence of a component.
#[derive(Debug, Clone)]
pub enum Licence {
    /// An SPDX expression.
    Expression(String),
    /// The words of its author, which may be an SPDX expression or not.
    Name(String),
}

/// One component, or the subject of a document.
#[derive(Debug, Clone)]
pub struct Component {
    /// A type of CycloneDX's: `application`, `library`, `platform`.
    pub kind: &'static str,
    /// Such as `buildbot`.
    pub name: String,
    /// Such as `4.3.0`.
    pub version: Option<String>,
    /// Its package URL, by which other components refer to it. See [`purl`].
    pub purl: Option<String>,
    /// None where it is unknown.
    pub licence: Option<Licence>,
    /// Of its archive: CycloneDX's name of the algorithm, and the digits.
    pub hash: Option<(&'static str, String)>,
    /// The package URLs of the components that it needs.
    pub needs: BTreeSet<String>,
}

impl Component {
    fn reference(&self) -> &str {
        self.purl.as_deref().unwrap_or(&self.name)
    }

    fn to_json(&self) -> Value {
        let mut value = json!({
            "type": self.kind,
            "bom-ref": self.reference(),
            "name": self.name,
        });
        if let Some(version) = &self.version {
            value["version"] = json!(version);
        }
        if let Some((algorithm, digits)) = &self.hash {
            value["hashes"] = json!([{ "alg": algorithm, "content": digits }]);
        }
        match &self.licence {
            None => {}
            Some(Licence::Expression(text)) => value["licenses"] = json!([{ "expression": text }]),
            Some(Licence::Name(text)) => {
                value["licenses"] = json!([{ "license": { "name": text } }]);
            }
        }
        if let Some(purl) = &self.purl {
            value["purl"] = json!(purl);
        }
        value
    }
}

/// The document about `subject`, with a line break at its end.
pub fn document(subject: &Component, components: &[Component]) -> String {
    let dependencies: Vec<Value> = std::iter::once(subject)
        .chain(components)
        .map(|component| json!({ "ref": component.reference(), "dependsOn": component.needs }))
        .collect();
    let components: Vec<Value> = components.iter().map(Component::to_json).collect();
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": { "component": subject.to_json() },
        "components": components,
        "dependencies": dependencies,
    });
    format!("{document:#}\n")
}

/// A package URL: `pkg:KIND/NAME@VERSION?KEY=VALUE&...`. Qualifiers are given in the order of their keys; those without
/// a value are left out.
pub fn purl(kind: &str, name: &str, version: &str, qualifiers: &[(&str, &str)]) -> String {
    let encoded = |text| utf8_percent_encode(text, PLAIN);
    let mut text = format!("pkg:{kind}/{}@{}", encoded(name), encoded(version));
    let given = qualifiers.iter().filter(|(_, value)| !value.is_empty());
    for (number, (key, value)) in given.enumerate() {
        let separator = if number == 0 { '?' } else { '&' };
        write!(text, "{separator}{key}={}", encoded(value)).expect("a string takes everything");
    }
    text
}

/// The part of a record that a bill of materials shows.
#[derive(Deserialize)]
struct Record {
    #[serde(flatten)]
    package: Package,
    license: Option<ForeignText>,
    /// Such as `python >=3.9,<4`.
    #[serde(default)]
    depends: Vec<ForeignText>,
    /// Relative to the prefix.
    #[serde(default)]
    files: Vec<String>,
}

/// What is installed in the environment at `prefix`: packages from the records in `conda-meta`, and Python packages that
/// pip has added to them.
///
/// # Errors
///
/// When a record or a directory cannot be read.
pub fn components_of(prefix: &Path) -> Result<Vec<Component>, Error> {
    let directory = prefix.join("conda-meta");
    let mut records = Vec::new();
    for entry in fs::read_dir(&directory).map_err(Error::io("read", &directory))? {
        let path = entry.map_err(Error::io("read", &directory))?.path();
        if path.extension().is_some_and(|end| end == "json") {
            records.push(record::<Record>(&path)?);
        }
    }
    records.sort_by(|one, other| one.package.name.cmp(&other.package.name));
    let by_name: BTreeMap<&str, String> = records
        .iter()
        .map(|record| (record.package.name.as_str(), purl_of(&record.package)))
        .collect();
    let mut components: Vec<Component> = records
        .iter()
        .map(|record| component(record, &by_name))
        .collect();
    let known: BTreeSet<&str> = records
        .iter()
        .flat_map(|record| &record.files)
        .filter_map(|file| distribution_directory(file))
        .collect();
    components.extend(added_by_pip(prefix, &known)?);
    Ok(components)
}

fn component(record: &Record, by_name: &BTreeMap<&str, String>) -> Component {
    let package = &record.package;
    let hash = match (&package.sha256, &package.md5) {
        (Some(sum), _) => Some(("SHA-256", sum.to_string())),
        (None, Some(sum)) => Some(("MD5", sum.to_string())),
        (None, None) => None,
    };
    let needed = record.depends.iter().filter_map(|text| {
        let name = text.split_whitespace().next()?;
        by_name.get(name).cloned()
    });
    let licence = record.license.as_ref().filter(|text| !text.is_empty());
    Component {
        kind: "library",
        name: package.name.to_string(),
        version: Some(package.version.to_string()),
        purl: by_name.get(package.name.as_str()).cloned(),
        licence: licence.map(|text| Licence::Name(text.to_string())),
        hash: hash.filter(|(_, digits)| digits.bytes().all(|byte| byte.is_ascii_hexdigit())),
        needs: needed.collect(),
    }
}

/// In the terms of the type `conda`. The channel is its name alone: an address may contain a token.
fn purl_of(package: &Package) -> String {
    let url = package.url.split('#').next().unwrap_or_default();
    let mut parts = url.rsplit('/');
    let (file, subdir) = (parts.next().unwrap_or_default(), parts.next());
    let channel = parts.next().filter(|_| subdir.is_some());
    let kind = [".conda", ".tar.bz2"]
        .into_iter()
        .find(|kind| file.ends_with(kind));
    let subdir = if package.subdir.is_empty() {
        PLATFORM
    } else {
        &package.subdir
    };
    let qualifiers = [
        ("build", package.build.as_str()),
        ("channel", channel.unwrap_or_default()),
        ("subdir", subdir),
        ("type", kind.unwrap_or_default().trim_start_matches('.')),
    ];
    purl("conda", &package.name, &package.version, &qualifiers)
}

/// Of a file of a package, the directory that describes a Python package, relative to the prefix.
fn distribution_directory(file: &str) -> Option<&str> {
    let (directory, _) = file.rsplit_once('/')?;
    directory.ends_with(".dist-info").then_some(directory)
}

/// The Python packages in `prefix` that are not in `known`.
fn added_by_pip(prefix: &Path, known: &BTreeSet<&str>) -> Result<Vec<Component>, Error> {
    let mut found: BTreeMap<String, Component> = BTreeMap::new();
    for python in names_in(&prefix.join("lib"))? {
        if !python.starts_with("python3.") {
            continue;
        }
        let place = format!("lib/{python}/site-packages");
        for name in names_in(&prefix.join(&place))? {
            // `NAME-VERSION.dist-info`, in which neither has a hyphen of its own.
            let words = name.strip_suffix(".dist-info");
            let Some((package, version)) = words.and_then(|words| words.split_once('-')) else {
                continue;
            };
            if known.contains(format!("{place}/{name}").as_str()) {
                continue;
            }
            let package = ForeignText::new(package).to_lowercase().replace('_', "-");
            let version = ForeignText::new(version).to_string();
            let purl = purl("pypi", &package, &version, &[]);
            let component = Component {
                kind: "library",
                name: package,
                version: Some(version),
                purl: Some(purl.clone()),
                licence: None,
                hash: None,
                needs: BTreeSet::new(),
            };
            found.insert(purl, component);
        }
    }
    Ok(found.into_values().collect())
}

/// The names in a directory; none where there is no directory.
fn names_in(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io("read", directory))?,
    };
    let names = entries.map(|entry| {
        let entry = entry.map_err(Error::io("read", directory))?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> tempfile::TempDir {
        let prefix = tempfile::tempdir().unwrap();
        fs::create_dir(prefix.path().join("conda-meta")).unwrap();
        prefix
    }

    fn write_record(prefix: &Path, name: &str, more: &str) {
        let text = format!(
            r#"{{"name":"{name}","version":"1!2.0","build":"py_0","subdir":"noarch","url":"https://me:word@example.org/t/to-ken/forge/noarch/{name}-2.0-py_0.conda"{more}}}"#
        );
        fs::write(prefix.join(format!("conda-meta/{name}.json")), text).unwrap();
    }

    #[test]
    fn a_record_is_a_component_with_what_it_needs_and_without_secrets_of_its_address() {
        let prefix = prefix();
        let sum = "0".repeat(64);
        write_record(
            prefix.path(),
            "one",
            &format!(
                r#","sha256":"{sum}","license":"MIT","depends":["two >=1","python_abi 3.11.*"]"#
            ),
        );
        write_record(prefix.path(), "two", r#","md5":"not digits""#);
        let components = components_of(prefix.path()).unwrap();
        let two = "pkg:conda/two@1%212.0?build=py_0&channel=forge&subdir=noarch&type=conda";
        let subject = Component {
            kind: "platform",
            name: "farm".to_owned(),
            version: None,
            purl: None,
            licence: None,
            hash: None,
            needs: BTreeSet::from([two.to_owned()]),
        };
        let text = document(&subject, &components);
        let value: Value = serde_json::from_str(&text).unwrap();
        let one = two.replace("two", "one");
        assert_eq!(
            value["components"][0],
            json!({
                "type": "library", "bom-ref": one, "name": "one", "version": "1!2.0",
                "hashes": [{"alg": "SHA-256", "content": sum}],
                "licenses": [{"license": {"name": "MIT"}}], "purl": one,
            })
        );
        assert_eq!(
            value["dependencies"],
            json!([
                {"ref": "farm", "dependsOn": [two]},
                {"ref": one, "dependsOn": [two]},
                {"ref": two, "dependsOn": []},
            ])
        );
        assert_eq!(value["components"][1].get("hashes"), None);
        assert!(!text.contains("word") && !text.contains("to-ken"), "{text}");
    }

    #[test]
    fn what_pip_has_added_is_listed_and_what_a_package_brought_is_not_listed_twice() {
        let prefix = prefix();
        let site = prefix.path().join("lib/python3.11/site-packages");
        for name in ["one-2.0", "Added_Later-3.1"] {
            fs::create_dir_all(site.join(format!("{name}.dist-info"))).unwrap();
        }
        write_record(
            prefix.path(),
            "one",
            r#","files":["lib/python3.11/site-packages/one-2.0.dist-info/METADATA"]"#,
        );
        let components = components_of(prefix.path()).unwrap();
        let purls: Vec<_> = components
            .iter()
            .filter_map(|component| component.purl.as_deref())
            .collect();
        assert_eq!(
            purls,
            [
                "pkg:conda/one@1%212.0?build=py_0&channel=forge&subdir=noarch&type=conda",
                "pkg:pypi/added-later@3.1"
            ]
        );
    }
}
