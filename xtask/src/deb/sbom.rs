//! The software bill of materials of a package: its programs, and the libraries that are linked into them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use buildbot_conda_environments::sbom::{Component, Licence, document, purl};

use super::libraries::Linked;

/// Write the document about the Debian package `name` to `path`.
pub(super) fn write(name: &str, linked: &Linked, path: &Path) -> Result<()> {
    let purls = |keys: &BTreeSet<(String, String)>| {
        let keys = keys.iter();
        keys.map(|(name, version)| purl("cargo", name, version, &[]))
            .collect()
    };
    let components: Vec<Component> = linked
        .libraries
        .iter()
        .map(|library| Component {
            kind: "library",
            name: library.name.clone(),
            version: Some(library.version.clone()),
            purl: Some(purl("cargo", &library.name, &library.version, &[])),
            // Older manifests separate alternatives by a slash.
            licence: library
                .license
                .as_ref()
                .map(|text| Licence::Expression(text.replace('/', " OR "))),
            hash: None,
            needs: purls(&library.needs),
        })
        .collect();
    let subject = Component {
        kind: "application",
        name: name.to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        purl: None,
        licence: Some(Licence::Expression("MIT OR Apache-2.0".to_owned())),
        hash: None,
        needs: purls(&linked.direct),
    };
    fs::write(path, document(&subject, &components))
        .with_context(|| format!("write `{}`", path.display()))
}
