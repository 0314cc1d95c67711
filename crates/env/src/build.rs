//! From a file to a generation: solve, download, unpack, verify, link, compile, and rename it when everything is on
//! disk. A failure leaves nothing that could be mistaken for a generation.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, ensure};
use buildbot_conda_environments::{
    BUILDING, GenerationId, LOCK_FILE, Package, generation_id, lock_text,
};
use rattler_cache::package_cache::PackageCache;
use rattler_cache::validation::ValidationMode;
use rattler_digest::Sha256Hash;
use rustix::fs::{fstat, syncfs};
use serde::Serialize;

use crate::arguments::Arguments;
use crate::bytecode::{self, Fresh};
use crate::client::Network;
use crate::contents::Contents;
use crate::input::{Input, Wanted};
use crate::limits::Budget;
use crate::place::{Kind, Place};
use crate::progress::Progress;
use crate::{archives, contents, input, link, safety, solve};

/// Changes when generations of the same packages have other files than before.
const RECIPE: &str = "2";

/// What was done, for the command line.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    /// The name of the generation.
    generation: String,
    /// Whether it was created now; an existing one with the same packages is used unchanged.
    made: bool,
    packages: Vec<Package>,
    /// What was not done although users may expect it.
    warnings: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let progress = Arc::new(Progress::new());
    DirBuilder::new()
        .recursive(true)
        // Packages may contain files that everyone can write, so nobody may enter the directory.
        .mode(0o700)
        .create(&arguments.cache)
        .with_context(|| format!("create `{}`", arguments.cache.display()))?;
    let network = Network {
        mirrors: arguments.mirrors.clone(),
        offline: arguments.offline,
    };
    let (wanted, variables) = resolve(arguments, &network).await?;
    ensure!(
        !wanted.is_empty(),
        "`{}` contains no packages",
        arguments.file.display()
    );

    if let Some(answer) = known(arguments, &wanted, &variables)? {
        return Ok(answer);
    }
    let downloads = arguments.cache.join("archives");
    let archives = archives::get(wanted, &downloads, &network, &progress).await?;
    let packages: Vec<Package> = archives
        .iter()
        .map(|archive| package(&archive.wanted, archive.sha256))
        .collect::<anyhow::Result<_>>()?;
    let generation = generation_id(&packages, &variables, RECIPE);
    let mut answer = Answer {
        generation: generation.to_string(),
        made: false,
        packages,
        warnings: Vec::new(),
    };
    let target = target(arguments, &generation);
    if arguments.dry_run || target.is_dir() {
        progress.end();
        return Ok(answer);
    }

    let mut unpacked = unpack(&archives, arguments, ValidationMode::Fast, &progress).await?;
    if !unpacked.iter().all(safety::is_whole) {
        // Every file is compared, and files that have changed are unpacked again.
        unpacked = unpack(&archives, arguments, ValidationMode::Full, &progress).await?;
    }
    answer.warnings = safety::check(&unpacked)?;

    let building = arguments.directory.join(BUILDING);
    let place = Place {
        used_as: match &arguments.used_as {
            Some(directory) => directory.join(generation.as_str()),
            None => target.clone(),
        },
        building: building.clone(),
        bytecode: arguments.cache.join("bytecode"),
        kind: match &arguments.at {
            Some(_) => Kind::Open,
            None => Kind::Generation,
        },
    };
    let made = make(&place, &unpacked, &variables, &answer.packages, &progress);
    progress.end();
    let finished = made.and_then(|mut fresh| {
        answer.warnings.extend(fresh.warning.take());
        finish(&place, &target, fresh)
    });
    finished?;
    answer.made = true;
    Ok(answer)
}

/// Unpacks what is not unpacked yet; `validation` is how that is known.
async fn unpack(
    archives: &[archives::Archive],
    arguments: &Arguments,
    validation: ValidationMode,
    progress: &Arc<Progress>,
) -> anyhow::Result<Vec<Contents>> {
    let budget = Arc::new(Budget::new(&arguments.limits));
    let cache = PackageCache::new_layered([arguments.cache.join("pkgs")], false, validation);
    progress.begin("unpacking", archives.len());
    let mut unpacked = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for archive in archives.iter().cloned() {
        let (cache, progress, budget) = (cache.clone(), Arc::clone(progress), Arc::clone(&budget));
        tasks.spawn(async move {
            let contents = contents::unpack(&archive, &cache, &budget).await;
            progress.step(&archive.identifier.to_file_name());
            contents
        });
    }
    while let Some(finished) = tasks.join_next().await {
        unpacked.push(finished.context("unpack a package")??);
    }
    Ok(unpacked)
}

/// Removes what a failure has left of a generation; what cannot be removed, the caller removes.
pub(crate) fn discard(arguments: &Arguments) {
    if !arguments.dry_run {
        let _ = fs::remove_dir_all(arguments.directory.join(BUILDING));
    }
}

/// Where it is in the end.
fn target(arguments: &Arguments, generation: &GenerationId) -> PathBuf {
    match &arguments.at {
        Some(prefix) => prefix.clone(),
        None => arguments.directory.join(generation.as_str()),
    }
}

async fn resolve(
    arguments: &Arguments,
    network: &Network,
) -> anyhow::Result<(Vec<Wanted>, BTreeMap<String, String>)> {
    match input::read(&arguments.file, &arguments.environment)? {
        Input::Locked(wanted) => Ok((wanted, BTreeMap::new())),
        Input::Open {
            specs,
            channels,
            variables,
        } => {
            let file = arguments.file.canonicalize().context("find the file")?;
            let here = std::env::current_dir().context("find the current directory")?;
            // Those of the file are relative to it, those of the command line to where that is.
            let (channels, beside) = if arguments.channels.is_empty() {
                (&channels, file.parent().unwrap_or(&here))
            } else {
                (&arguments.channels, here.as_path())
            };
            let cache = arguments.cache.join("repodata");
            let wanted = solve::solve(specs, channels, beside, network, &cache).await?;
            Ok((wanted, variables))
        }
    }
}

/// The answer if nothing has to be read for it: every checksum is known, and the generation exists, or is only asked
/// about.
fn known(
    arguments: &Arguments,
    wanted: &[Wanted],
    variables: &BTreeMap<String, String>,
) -> anyhow::Result<Option<Answer>> {
    let mut packages = Vec::new();
    for one in wanted {
        match one.sha256 {
            Some(sha256) => packages.push(package(one, sha256)?),
            None => return Ok(None),
        }
    }
    let generation = generation_id(&packages, variables, RECIPE);
    let is_there = target(arguments, &generation).is_dir();
    Ok((arguments.dry_run || is_there).then(|| Answer {
        generation: generation.to_string(),
        made: false,
        packages,
        warnings: Vec::new(),
    }))
}

fn package(wanted: &Wanted, sha256: Sha256Hash) -> anyhow::Result<Package> {
    let identifier = wanted.identifier()?.identifier;
    let mut segments = wanted.url.path_segments().context("read an address")?;
    segments.next_back();
    let subdir = segments.next_back().unwrap_or_default().to_owned();
    Ok(Package {
        name: identifier.name.into(),
        version: identifier.version.into(),
        build: identifier.build_string.into(),
        subdir: subdir.into(),
        url: wanted.shown().into(),
        sha256: Some(archives::hex(&sha256).into()),
        md5: wanted.md5.map(|sum| archives::hex(&sum).into()),
    })
}

fn make(
    place: &Place,
    unpacked: &[Contents],
    variables: &BTreeMap<String, String>,
    packages: &[Package],
    progress: &Progress,
) -> anyhow::Result<Fresh> {
    let building = &place.building;
    DirBuilder::new()
        // Until everything is in place.
        .mode(0o700)
        .create(building)
        .with_context(|| format!("create `{}`", building.display()))?;
    progress.begin("installing", unpacked.len());
    let python = link::python_of(unpacked)?;
    let info = python.as_ref().map(|(_, info)| info);
    link::link(unpacked, info, place)?;
    if !variables.is_empty() {
        let state = serde_json::json!({ "env_vars": variables });
        write(&building.join("conda-meta/state"), &state.to_string())?;
    }
    let lock = lock_text(packages)?;
    write(&building.join(LOCK_FILE), &lock)?;
    for_everybody(building)?;
    // From here on it is in its final state, and its Python may be run by an account without privileges.
    fs::set_permissions(building, Permissions::from_mode(0o755))
        .with_context(|| format!("set the mode of `{}`", building.display()))?;
    let Some((python, info)) = &python else {
        return Ok(Fresh::default());
    };
    progress.begin("compiling modules", 1);
    let opened = File::open(building).context("open the new generation")?;
    thread::scope(|scope| {
        // Existing files are written to disk while the processors are busy. An error is reported at the end.
        scope.spawn(|| syncfs(&opened));
        bytecode::provide(unpacked, (python, info), place)
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("write `{}`", path.display()))
}

/// The modes that everything has: to be read by all, written by root. Packages bring others.
fn for_everybody(directory: &Path) -> anyhow::Result<()> {
    let action = || format!("set the modes in `{}`", directory.display());
    for entry in fs::read_dir(directory).with_context(action)? {
        let entry = entry.with_context(action)?;
        let metadata = entry.metadata().with_context(action)?;
        let path = entry.path();
        if metadata.is_symlink() {
            continue;
        }
        ensure!(
            metadata.is_dir() || metadata.is_file(),
            "`{}` is not a file",
            path.display()
        );
        let is_program = metadata.is_dir() || metadata.permissions().mode() & 0o111 != 0;
        let mode = if is_program { 0o755 } else { 0o644 };
        if metadata.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(&path, Permissions::from_mode(mode)).with_context(action)?;
        }
        if metadata.is_dir() {
            for_everybody(&path)?;
        }
    }
    Ok(())
}

/// On disk first, and then by name.
fn finish(place: &Place, target: &Path, fresh: Fresh) -> anyhow::Result<()> {
    let action = || format!("write `{}`", place.building.display());
    let building = File::open(&place.building).with_context(action)?;
    syncfs(&building).with_context(action)?;
    if let Some(cache) = fresh.directory() {
        let device = |file: &File| fstat(file).map(|stat| stat.st_dev);
        if device(cache).with_context(action)? != device(&building).with_context(action)? {
            syncfs(cache).with_context(action)?;
        }
    }
    fs::rename(&place.building, target).with_context(action)?;
    File::open(target.parent().unwrap_or(Path::new("/")))
        .and_then(|directory| directory.sync_all())
        .with_context(action)?;
    fresh.keep();
    Ok(())
}
