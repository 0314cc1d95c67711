//! Links unpacked packages into a prefix, with rattler's functions, and writes their records to `conda-meta`. rattler's
//! `Installer` does the same for environments in use: it syncs every record before the next one, which is done once
//! here, and reads all of them again.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, anyhow, ensure};
use rattler::install::{ExternalSymlinkPolicy, InstallOptions, PythonInfo, link_package_sync};
use rattler_conda_types::prefix::Prefix;
use rattler_conda_types::prefix_record::Link;
use rattler_conda_types::{PackageRecord, PrefixRecord};

use crate::contents::Contents;
use crate::place::{Kind, Place};
use crate::{input, parallel};

/// The Python among the packages, if there is one.
pub(crate) fn python_of(packages: &[Contents]) -> anyhow::Result<Option<(&Contents, PythonInfo)>> {
    let is_python =
        |contents: &&Contents| contents.record.package_record.name.as_normalized() == "python";
    let Some(contents) = packages.iter().find(is_python) else {
        return Ok(None);
    };
    let record = &contents.record.package_record;
    let info = PythonInfo::from_python_record(record, input::platform())
        .context("read the version of Python")?;
    Ok(Some((contents, info)))
}

/// Links `packages` into a directory that nothing is in.
///
/// # Errors
///
/// When a package cannot be read or a file not be made; the rest of them may be there already.
pub(crate) fn link(
    packages: &[Contents],
    python: Option<&PythonInfo>,
    place: &Place,
) -> anyhow::Result<()> {
    let building = &place.building;
    let is_open = place.kind == Kind::Open;
    let prefix = Prefix::create(building).context("start a new environment")?;
    // rattler does not name its type; it knows which package wins where two bring the same file.
    let registry = Arc::default();
    let records = parallel::map(packages, |contents| {
        let options = InstallOptions {
            target_prefix: Some(place.used_as.clone()),
            // The owner may write to the files, so they must not be shared.
            allow_hard_links: is_open.then_some(false),
            paths_json: Some(contents.paths.clone()),
            link_json: Some(contents.link.clone()),
            platform: Some(input::platform()),
            python_info: python.cloned(),
            external_symlink_policy: ExternalSymlinkPolicy::Deny,
            ..InstallOptions::default()
        };
        let name = contents.record.identifier.to_string();
        let (paths, kind) =
            link_package_sync(&contents.directory, &prefix, Arc::clone(&registry), options)
                .map_err(|error| anyhow!(error))
                .with_context(|| format!("install `{name}`"))?;
        let record = PrefixRecord {
            extracted_package_dir: Some(contents.directory.clone()),
            link: Some(Link {
                source: contents.directory.clone(),
                link_type: Some(kind),
            }),
            ..PrefixRecord::from_repodata_record(contents.record.clone(), paths)
        };
        write(&record, building)?;
        anyhow::Ok(record)
    })?;
    let mut seen = BTreeSet::new();
    let paths = records.iter().flat_map(|record| &record.paths_data.paths);
    let is_shared = paths
        .map(|entry| entry.original_path.as_ref().unwrap_or(&entry.relative_path))
        .any(|path| !seen.insert(path));
    if is_shared {
        // The same one wins each time, in whatever order they were linked.
        let sorted = PackageRecord::sort_topologically(records.iter().collect());
        registry
            .lock()
            .map_err(|_| anyhow!("a package could not be linked"))?
            .unclobber(&sorted, &prefix)
            .context("install files that are in two packages")?;
    }
    Ok(())
}

fn write(record: &PrefixRecord, building: &Path) -> anyhow::Result<()> {
    let name = record.file_name();
    ensure!(
        !name.contains('/'),
        "`{name}` is not a valid name for a record of a package"
    );
    let path = building.join("conda-meta").join(&name);
    let action = || format!("write `{}`", path.display());
    let mut file = BufWriter::new(File::create_new(&path).with_context(action)?);
    record.write_to(&mut file, true).with_context(action)?;
    file.flush().with_context(action)
}
