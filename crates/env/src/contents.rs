//! Archives, unpacked once for all environments, and their own descriptions of their content.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, ensure};
use rattler_cache::package_cache::PackageCache;
use rattler_conda_types::package::{LinkJson, PackageFile as _, PathsJson};
use rattler_conda_types::{PackageRecord, RepoDataRecord};
use rattler_digest::Sha256Hash;

use crate::archives::Archive;
use crate::limits::{self, Budget};

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

/// Unpacks an archive, unless it is unpacked already. The record is created from the content of the archive, never from
/// the data of a channel, so that the same archives always result in the same environment.
pub(crate) async fn unpack(
    archive: &Archive,
    cache: &PackageCache,
    budget: &Arc<Budget>,
) -> anyhow::Result<Contents> {
    let name = archive.identifier.to_file_name();
    let action = || format!("unpack `{name}`");
    let path = archive.path.clone();
    let read = tokio::task::spawn_blocking(move || limits::index(&path));
    let index = read.await.context("read a package")?.with_context(action)?;
    let record = PackageRecord::from_index_json(
        index,
        Some(archive.size),
        Some(archive.sha256),
        // Callers that know only the md5 get the same record as all others.
        None,
    )
    .with_context(action)?;
    let named = format!(
        "{}-{}-{}",
        record.name.as_normalized(),
        record.version,
        record.build
    );
    ensure!(
        named == archive.identifier.identifier.to_string(),
        "`{name}` identifies itself as `{named}`"
    );
    let (path, budget, sha256) = (archive.path.clone(), Arc::clone(budget), archive.sha256);
    let fetch = move |destination: PathBuf| {
        let (path, budget) = (path.clone(), Arc::clone(&budget));
        async move {
            let extract = move || extract(&path, &destination, &budget, sha256);
            let done = tokio::task::spawn_blocking(extract).await;
            done.map_err(io::Error::other)?
                .map_err(|error| io::Error::other(format!("{error:#}")))
        }
    };
    let unpacked = cache
        .get_or_fetch(&record, fetch, None)
        .await
        .map_err(|error| anyhow!(error))
        .with_context(action)?;
    let directory = unpacked.path().to_owned();
    let paths = match unpacked.paths_json() {
        Some(paths) => paths.clone(),
        None => PathsJson::from_package_directory_with_deprecated_fallback(&directory)
            .with_context(action)?,
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

/// Its checksum is seen once more: an archive of a local channel may be another one by now.
fn extract(
    archive: &Path,
    destination: &Path,
    budget: &Budget,
    sha256: Sha256Hash,
) -> anyhow::Result<Option<Sha256Hash>> {
    budget.check(archive)?;
    let found = rattler_package_streaming::fs::extract(archive, destination)?.sha256;
    ensure!(
        found == sha256,
        "it was changed after its checksum was verified"
    );
    Ok(Some(found))
}
