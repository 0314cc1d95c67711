//! Archives unpacked once for all environments, and what their own descriptions say is in them.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow, ensure};
use rattler_cache::package_cache::PackageCache;
use rattler_conda_types::package::{IndexJson, LinkJson, PackageFile as _, PathsJson};
use rattler_conda_types::{PackageRecord, RepoDataRecord};

use crate::archives::Archive;

/// An unpacked package.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) record: RepoDataRecord,
    pub(crate) paths: PathsJson,
    /// Only packages that are independent of the platform have one.
    pub(crate) link: Option<LinkJson>,
    /// Where it is unpacked.
    pub(crate) directory: PathBuf,
}

/// Unpacks an archive, unless it is unpacked already. The record is made of what is in the archive, never of what a
/// channel says of it, so that the same archives always make the same environment.
pub(crate) async fn unpack(archive: &Archive, cache: &PackageCache) -> anyhow::Result<Contents> {
    let name = archive.identifier.to_file_name();
    let told = || format!("unpack `{name}`");
    let index: IndexJson = rattler_index(archive).await.with_context(told)?;
    let record = PackageRecord::from_index_json(
        index,
        Some(archive.size),
        Some(archive.sha256),
        // Whoever asked for it by md5 gets the same record as those who did not.
        None,
    )
    .with_context(told)?;
    let named = format!(
        "{}-{}-{}",
        record.name.as_normalized(),
        record.version,
        record.build
    );
    ensure!(
        named == archive.identifier.identifier.to_string(),
        "`{name}` says that it is `{named}`"
    );
    let unpacked = cache
        .get_or_fetch_from_path(&archive.path, Some(&record), None)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(told)?;
    let directory = unpacked.path().to_owned();
    let paths = match unpacked.paths_json() {
        Some(paths) => paths.clone(),
        None => PathsJson::from_package_directory_with_deprecated_fallback(&directory)
            .with_context(told)?,
    };
    let link = LinkJson::from_package_directory(&directory).ok();
    // Everyone may read the record.
    let url = archive.wanted.public();
    // .../CHANNEL/SUBDIR/FILE
    let channel = url.join("..").ok().map(|url| url.to_string());
    Ok(Contents {
        record: RepoDataRecord {
            package_record: record,
            identifier: archive.identifier.clone().into(),
            url,
            channel,
        },
        paths,
        link,
        directory,
    })
}

async fn rattler_index(archive: &Archive) -> anyhow::Result<IndexJson> {
    let path = archive.path.clone();
    let read = move || rattler_package_streaming::seek::read_package_file(path);
    Ok(tokio::task::spawn_blocking(read).await??)
}
