//! Limits for the unpacked content of an archive: its members are counted before any of them is written to disk. A
//! small archive can expand until the disk is full, and a checksum only proves that it is the requested one.
//!
//! The whole archive is read in the way in which rattler unpacks it: every `*.tar.zst` in a `.conda`, in the order of
//! the stream.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use rattler_conda_types::package::{CondaArchiveType, IndexJson, PackageFile as _};
use rattler_package_streaming::read::stream_tar_bz2;
use tar::{Archive, Entry, EntryType};

/// Maximum length of a path, and of each part of one, in bytes: the limits of Linux, with room for the prefix.
const LONGEST: (usize, usize) = (3072, 255);
/// Bytes of a package's description of itself.
const LARGEST_INDEX: u64 = 16 << 20;
/// Bytes that are not suspicious, however small the archive is, and as many files.
const UNSUSPICIOUS: (u64, u64) = (64 << 20, 10_000);
/// How many times the size of its archive a package has at most: text that is mostly the same becomes a hundred times
/// smaller.
const USUAL_RATIO: u64 = 250;
/// Minimum size of an archive for each file in it, in bytes: the checksum and the name of a file alone need more.
const LEAST_FOR_A_FILE: u64 = 16;

/// How much the packages of an environment may bring.
#[derive(Debug, Clone, Args)]
pub(crate) struct Limits {
    /// MiB that packages may have when they are unpacked, all together
    #[arg(long = "max-size", value_name = "MIB", default_value_t = 65536)]
    size: u64,
    /// Files that packages may have, all together
    #[arg(long = "max-files", value_name = "COUNT", default_value_t = 2_000_000)]
    files: u64,
    /// How many times the size of its archive a package may have
    #[arg(
        long = "max-ratio",
        value_name = "FACTOR",
        default_value_t = USUAL_RATIO,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    ratio: u64,
}

/// What the packages of one environment have brought so far.
#[derive(Debug)]
pub(crate) struct Budget {
    limits: Limits,
    bytes: AtomicU64,
    files: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: limits.clone(),
            bytes: AtomicU64::new(0),
            files: AtomicU64::new(0),
        }
    }

    /// Counts the content of the archive at `path`.
    ///
    /// # Errors
    ///
    /// If a limit is exceeded, with the limit, and if it is not an archive.
    pub(crate) fn check(&self, path: &Path) -> anyhow::Result<()> {
        let file = File::open(path).context("open the archive")?;
        let size = file.metadata().context("open the archive")?.len();
        let mut count = Count {
            budget: self,
            archive: size,
            bytes: 0,
            files: 0,
        };
        let mut reader = BufReader::with_capacity(1 << 16, file);
        match CondaArchiveType::try_from(path) {
            Some(CondaArchiveType::TarBz2) => count.archive(&mut stream_tar_bz2(reader)),
            Some(CondaArchiveType::Conda) => {
                while let Some(member) =
                    zip::read::read_zipfile_from_stream(&mut reader).context("read the archive")?
                {
                    if member
                        .name()
                        .context("read the archive")?
                        .ends_with(".tar.zst")
                    {
                        let decoder =
                            zstd::stream::read::Decoder::new(member).context("read the archive")?;
                        count.archive(&mut Archive::new(decoder))?;
                    }
                }
                Ok(())
            }
            None => bail!("it is not a `.conda` or `.tar.bz2` file"),
        }
    }
}

/// One package, as far as it has been read.
struct Count<'b> {
    budget: &'b Budget,
    /// Bytes of the archive.
    archive: u64,
    bytes: u64,
    files: u64,
}

impl Count<'_> {
    fn archive(&mut self, archive: &mut Archive<impl Read>) -> anyhow::Result<()> {
        let entries = archive.entries().context("read the archive")?;
        // As they are: records for long paths would be read into memory otherwise.
        for entry in entries.raw(true) {
            self.member(&entry.context("read the archive")?)?;
        }
        Ok(())
    }

    fn member(&mut self, entry: &Entry<'_, impl Read>) -> anyhow::Result<()> {
        let size = entry.header().entry_size().context("read the archive")?;
        let kind = entry.header().entry_type();
        let is_record = kind.is_pax_local_extensions()
            || matches!(kind, EntryType::GNULongName | EntryType::GNULongLink);
        if is_record {
            ensure!(
                size <= LONGEST.0 as u64,
                "rejected: a path in it has {size} bytes, {} are allowed",
                LONGEST.0
            );
        } else {
            let path = entry.path_bytes();
            let longest = path.split(|byte| *byte == b'/').map(<[u8]>::len).max();
            ensure!(
                path.len() <= LONGEST.0 && longest.unwrap_or_default() <= LONGEST.1,
                "rejected: a path in it has {} bytes, one part of it {}; {} and {} are allowed",
                path.len(),
                longest.unwrap_or_default(),
                LONGEST.0,
                LONGEST.1
            );
        }
        self.add(size)
    }

    fn add(&mut self, size: u64) -> anyhow::Result<()> {
        self.bytes = self.bytes.saturating_add(size);
        self.files += 1;
        let Limits {
            size: max_size,
            files: max_files,
            ratio: max_ratio,
        } = &self.budget.limits;
        let is_small = self.bytes <= UNSUSPICIOUS.0;
        ensure!(
            is_small || self.bytes / max_ratio <= self.archive,
            "rejected: its {} bytes would unpack to more than {max_ratio} times as many\n\
             hint: if the package is trusted, increase `--max-ratio`",
            self.archive
        );
        let is_few = self.files <= UNSUSPICIOUS.1;
        ensure!(
            is_few || self.files * LEAST_FOR_A_FILE * USUAL_RATIO / max_ratio <= self.archive,
            "rejected: its {} bytes contain more than {} files\n\
             hint: if the package is trusted, increase `--max-ratio`",
            self.archive,
            self.files
        );
        let add = |total: &AtomicU64, more: u64| {
            // Larger numbers than any real size are too large as well.
            let before = total
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
                    Some(before.saturating_add(more))
                })
                .unwrap_or(u64::MAX);
            before.saturating_add(more)
        };
        ensure!(
            add(&self.budget.bytes, size) <= max_size.saturating_mul(1 << 20),
            "with this package, the unpacked size exceeds {max_size} MiB\n\
             hint: increase `--max-size`"
        );
        ensure!(
            add(&self.budget.files, 1) <= *max_files,
            "with this package, the number of files exceeds {max_files}\nhint: increase `--max-files`"
        );
        Ok(())
    }
}

/// The description inside an archive; the members before it are subject to the same limits.
///
/// # Errors
///
/// If there is none, or it is too large.
pub(crate) fn index(path: &Path) -> anyhow::Result<IndexJson> {
    let file = File::open(path).context("open the archive")?;
    let size = file.metadata().context("open the archive")?.len();
    let most = UNSUSPICIOUS
        .0
        .saturating_add(USUAL_RATIO.saturating_mul(size));
    match CondaArchiveType::try_from(path) {
        Some(CondaArchiveType::TarBz2) => index_in(stream_tar_bz2(BufReader::new(file)), most),
        Some(CondaArchiveType::Conda) => {
            let info = rattler_package_streaming::seek::stream_conda_info(file)?;
            index_in(info, most)
        }
        None => bail!("it is not a `.conda` or `.tar.bz2` file"),
    }
}

fn index_in(mut archive: Archive<impl Read>, most: u64) -> anyhow::Result<IndexJson> {
    let mut passed = 0_u64;
    for entry in archive.entries().context("read the archive")?.raw(true) {
        let entry = entry.context("read the archive")?;
        if entry.path_bytes().as_ref() != b"info/index.json" {
            passed = passed.saturating_add(entry.size());
            ensure!(
                passed <= most,
                "rejected: too much data before `info/index.json`"
            );
            continue;
        }
        let mut text = Vec::new();
        let length = entry.take(LARGEST_INDEX + 1).read_to_end(&mut text);
        let length = length.context("read `info/index.json`")? as u64;
        ensure!(length <= LARGEST_INDEX, "`info/index.json` is too large");
        return IndexJson::from_slice(&text).context("read `info/index.json`");
    }
    Err(io::Error::from(io::ErrorKind::NotFound)).context("read `info/index.json`")
}
