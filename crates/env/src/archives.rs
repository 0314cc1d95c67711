//! Archives of packages: those of local channels are used in place, others are downloaded into the cache, and
//! interrupted downloads are resumed. No archive is used before its checksum has been verified.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use rattler_conda_types::package::CondaArchiveIdentifier;
use rattler_digest::{Md5, Sha256, Sha256Hash, compute_file_digest};
use rattler_networking::LazyClient;
use reqwest::StatusCode;
use reqwest::header::RANGE;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Network;
use crate::input::Wanted;
use crate::output::say;
use crate::progress::Progress;

/// Downloads at a time.
const AT_ONCE: usize = 6;
/// How often a download is taken up again.
const ATTEMPTS: u32 = 4;

/// An archive whose checksum is right.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    pub(crate) wanted: Wanted,
    pub(crate) identifier: CondaArchiveIdentifier,
    pub(crate) path: PathBuf,
    pub(crate) sha256: Sha256Hash,
    pub(crate) size: u64,
}

/// Gets every archive, in the order in which they are wanted; downloads are kept in `directory`.
pub(crate) async fn get(
    wanted: Vec<Wanted>,
    directory: &Path,
    network: &Network,
    progress: &Arc<Progress>,
) -> anyhow::Result<Vec<Archive>> {
    fs::create_dir_all(directory).with_context(|| format!("create `{}`", directory.display()))?;
    progress.begin("downloading packages", wanted.len());
    if wanted.iter().any(|wanted| wanted.url.scheme() != "file") {
        network.client()?;
    }
    let client = network.lazy();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (index, wanted) in wanted.into_iter().enumerate() {
        let (client, directory) = (client.clone(), directory.to_owned());
        let (permits, progress) = (Arc::clone(&permits), Arc::clone(progress));
        tasks.spawn(async move {
            let _permit = permits
                .acquire_owned()
                .await
                .context("wait for a free slot")?;
            let archive = one(wanted, &directory, &client).await?;
            progress.step(&archive.identifier.to_file_name());
            anyhow::Ok((index, archive))
        });
    }
    let mut archives = Vec::new();
    while let Some(finished) = tasks.join_next().await {
        archives.push(finished.context("download a package")??);
    }
    archives.sort_by_key(|(index, _)| *index);
    Ok(archives.into_iter().map(|(_, archive)| archive).collect())
}

async fn one(wanted: Wanted, directory: &Path, client: &LazyClient) -> anyhow::Result<Archive> {
    let shown = wanted.shown();
    let identifier = wanted.identifier()?;
    if wanted.url.scheme() == "file" {
        let path = wanted
            .url
            .to_file_path()
            .map_err(|()| anyhow!("`{shown}` is not a path"))?;
        return verified(wanted, identifier, path).await;
    }
    ensure!(
        matches!(wanted.url.scheme(), "http" | "https"),
        "`{shown}` cannot be downloaded: its address is neither a file nor a web address"
    );
    let name = format!(
        "{}-{}",
        digits_of(wanted.url.as_str()),
        identifier.to_file_name()
    );
    let path = directory.join(&name);
    if path.exists() {
        match verified(wanted.clone(), identifier.clone(), path.clone()).await {
            Ok(archive) => return Ok(archive),
            // It was right when it was kept: the disk, or the channel, has another one now.
            Err(_) => fs::remove_file(&path).with_context(|| format!("remove `{name}`"))?,
        }
    }
    let part = directory.join(format!("{name}.part"));
    download(&wanted, &part, client).await?;
    let checked = verified(wanted, identifier, part.clone()).await;
    if checked.is_err() {
        // Whatever the file is, nothing must be appended to it.
        let _ = fs::remove_file(&part);
    }
    let archive = checked?;
    fs::rename(&part, &path).with_context(|| format!("write `{}`", path.display()))?;
    Ok(Archive { path, ..archive })
}

fn digits_of(text: &str) -> String {
    let sum = rattler_digest::compute_bytes_digest::<Sha256>(text);
    hex(&sum)[..16].to_owned()
}

/// A checksum in small hexadecimal digits.
pub(crate) fn hex(sum: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * sum.len());
    for byte in sum {
        write!(digits, "{byte:02x}").expect("a string takes everything");
    }
    digits
}

/// Downloads to `part`, continuing an existing file.
async fn download(wanted: &Wanted, part: &Path, client: &LazyClient) -> anyhow::Result<()> {
    let shown = wanted.shown();
    let mut attempt = 1;
    loop {
        match rest(wanted, part, client).await {
            Ok(()) => return Ok(()),
            Err(Stopped::ForGood(error)) => {
                return Err(error.context(format!("download `{shown}`")));
            }
            Err(Stopped::Broken(error)) if attempt == ATTEMPTS => {
                return Err(error.context(format!("download `{shown}`, {ATTEMPTS} times")));
            }
            Err(Stopped::Broken(error)) => {
                say(&format!("warning: download `{shown}`: {error:#}; retrying"));
                tokio::time::sleep(std::time::Duration::from_secs(1 << attempt)).await;
                attempt += 1;
            }
        }
    }
}

/// Why a download has failed.
enum Stopped {
    /// It can continue at the current position.
    Broken(anyhow::Error),
    ForGood(anyhow::Error),
}

async fn rest(wanted: &Wanted, part: &Path, client: &LazyClient) -> Result<(), Stopped> {
    let for_good = |error: std::io::Error| {
        let path = part.display();
        Stopped::ForGood(anyhow!(error).context(format!("write `{path}`")))
    };
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(part)
        .map_err(for_good)?;
    let have = file.metadata().map_err(for_good)?.len();
    let mut request = client.client().get(wanted.url.clone());
    if have > 0 {
        request = request.header(RANGE, format!("bytes={have}-"));
    }
    let mut response = request.send().await.map_err(|error| match error {
        reqwest_middleware::Error::Reqwest(error) => Stopped::Broken(error.without_url().into()),
        reqwest_middleware::Error::Middleware(error) => Stopped::ForGood(anyhow!("{error}")),
    })?;
    match response.status() {
        StatusCode::PARTIAL_CONTENT => {}
        // Either everything is there already, or something else is: the checksum decides.
        StatusCode::RANGE_NOT_SATISFIABLE => return Ok(()),
        status if status.is_success() => file.set_len(0).map_err(for_good)?,
        status if status.is_server_error() => {
            return Err(Stopped::Broken(anyhow!("the server returned {status}")));
        }
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            return Err(Stopped::ForGood(anyhow!(
                "the server returned {status}\nhint: name and password are read from `~/.netrc` and from \
                 the file in `RATTLER_AUTH_FILE`"
            )));
        }
        status => return Err(Stopped::ForGood(anyhow!("the server returned {status}"))),
    }
    while let Some(piece) = response
        .chunk()
        .await
        .map_err(|error| Stopped::Broken(error.without_url().into()))?
    {
        file.write_all(&piece).map_err(for_good)?;
    }
    Ok(())
}

/// The archive at `path`, if it is the one that is wanted.
async fn verified(
    wanted: Wanted,
    identifier: CondaArchiveIdentifier,
    path: PathBuf,
) -> anyhow::Result<Archive> {
    tokio::task::spawn_blocking(move || {
        let shown = path.display().to_string();
        let size = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            Ok(_) => bail!("`{shown}` is not a file"),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("package `{shown}` not found")
            }
            Err(error) => return Err(error).with_context(|| format!("read `{shown}`")),
        };
        let read = || format!("read `{shown}`");
        let sha256 = compute_file_digest::<Sha256>(&path).with_context(read)?;
        let (mut expected, mut found) = (String::new(), String::new());
        if let Some(sum) = wanted.sha256 {
            (expected, found) = (hex(&sum), hex(&sha256));
        } else if let Some(sum) = wanted.md5 {
            let md5 = compute_file_digest::<Md5>(&path).with_context(read)?;
            (expected, found) = (hex(&sum), hex(&md5));
        }
        ensure!(
            expected == found && !expected.is_empty(),
            "`{}` is not the expected package: its checksum is {found}, not {expected}",
            wanted.shown()
        );
        Ok(Archive {
            wanted,
            identifier,
            path,
            sha256,
            size,
        })
    })
    .await
    .context("read a package")?
}
