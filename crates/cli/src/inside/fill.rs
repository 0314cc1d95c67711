//! Work below a service user's directories, done by this program as that user: root itself neither writes there nor
//! follows the user's links.

use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use buildbot_conda_core::names::{InstanceRef, Role};
use serde::{Deserialize, Serialize};

use crate::output::harmless;
use crate::system::activation;
use crate::system::as_user;
use crate::system::context::{Context, InvalidConfiguration};
use crate::system::values::{Identity, Mode};

/// Everything is created in here first, and then moved to its place, `buildbot.tac` last: a directory without one is
/// not set up.
const STAGE: &str = ".being-made";
const TAC: &str = "buildbot.tac";
/// Upstream's own command, whatever shebang its script has.
/// The URL of a database comes by standard input, and does not get into the sample. Its exit status is 0 for some failures
/// too, but what it returns then is not.
const CREATE_MASTER: &str = "\
import sys
from buildbot.scripts import create_master, runner
url = sys.stdin.read()
make_sample = create_master.makeSampleConfig
create_master.makeSampleConfig = lambda config: make_sample(dict(config, db=None))
database = ['--db', url] if url else []
sys.argv = ['buildbot', 'create-master', '--quiet', '--relocatable', *database, sys.argv[1]]
try:
    runner.run()
except SystemExit as end:
    sys.exit(end.code if end.code is not None else 1)
";

/// The initial content of an instance's directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    /// The master whose environment makes the database and the tac; none for a worker.
    pub(crate) database: Option<InstanceRef>,
    /// Where that database is, which is a secret; in the directory where this is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Files by their paths in the directory.
    pub(crate) files: Vec<Made>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) mode: Mode,
}

impl Contents {
    /// Whose it is: a master's by its database, or by a configuration that brings none.
    pub(crate) fn role(&self) -> Role {
        let has_configuration = |file: &Made| file.path == Path::new("master.cfg");
        if self.database.is_some() || self.files.iter().any(has_configuration) {
            Role::Master
        } else {
            Role::Worker
        }
    }

    /// What it consists of, for people.
    pub(crate) fn summary(&self) -> String {
        let made = self.database.as_ref().map(|_| match self.url {
            None => "`buildbot.tac`, database".to_owned(),
            Some(_) => "`buildbot.tac`, tables of the database".to_owned(),
        });
        let files = self
            .files
            .iter()
            .map(|file| format!("`{}`", file.path.display()));
        made.into_iter().chain(files).collect::<Vec<_>>().join(", ")
    }
}

/// Lets the user fill `directory`.
pub(crate) fn fill(
    identity: &Identity,
    directory: &Path,
    contents: &Contents,
) -> anyhow::Result<()> {
    let input = serde_json::to_string(contents).context("write the contents of a directory")?;
    let user = &identity.user;
    as_user::call_within(
        as_user::FILES,
        user.as_str(),
        identity.group(),
        &["fill"],
        directory,
        &input,
    )
    .map(drop)
    .with_context(|| format!("set up `{}` as `{user}`", directory.display()))
}

/// Lets the user remove the content of `directory`, and the directory unless `keep` is set.
pub(crate) fn clear(identity: &Identity, directory: &Path, keep: bool) -> anyhow::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    let words: &[&str] = if keep {
        &["clear", "--keep"]
    } else {
        &["clear"]
    };
    let user = &identity.user;
    let (name, group) = (user.as_str(), identity.group());
    as_user::call_within(as_user::FILES, name, group, words, directory, "")
        .map(drop)
        .with_context(|| format!("clear `{}` as `{user}`", directory.display()))
}

/// As the service user: creates what standard input describes in `directory`, which is empty or does not exist yet.
pub(crate) fn fill_directory(directory: &Path, context: &Context) -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("read the contents of the directory")?;
    let contents: Contents =
        serde_json::from_str(&text).context("read the contents of the directory")?;
    let name = directory.display();
    fs::create_dir_all(directory).with_context(|| format!("create `{name}`"))?;
    let mut entries = fs::read_dir(directory).with_context(|| format!("list `{name}`"))?;
    if entries.next().is_some() {
        bail!("`{name}` is not empty");
    }
    let stage = directory.join(STAGE);
    DirBuilder::new()
        .mode(0o700)
        .create(&stage)
        .with_context(|| format!("create `{}`", stage.display()))?;
    if let Some(reference) = &contents.database {
        // As in the unit: database and secrets must not be readable by others.
        rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        let url = contents.url.as_deref().unwrap_or_default();
        create_master(reference, url, &stage, context)?;
    }
    for file in &contents.files {
        write(&stage.join(&file.path), file)?;
    }
    take_places(&stage, directory)
}

fn write(path: &Path, file: &Made) -> anyhow::Result<()> {
    let parent = path.parent().context("find the directory of a file")?;
    let written = || -> std::io::Result<()> {
        fs::create_dir_all(parent)?;
        let mut options = File::options();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(file.mode.bits())
            .open(path)?;
        opened.write_all(file.text.as_bytes())
    };
    written().with_context(|| format!("write `{}`", path.display()))
}

fn create_master(
    reference: &InstanceRef,
    url: &str,
    stage: &Path,
    context: &Context,
) -> anyhow::Result<()> {
    let settings = context.settings()?;
    let instance = settings
        .instance(reference)
        .map_err(InvalidConfiguration::from)?;
    let python = format!("{}/bin/python", instance.prefix());
    let words = ["-c".into(), CREATE_MASTER.into(), stage.into()];
    let chain = activation::of_instance(
        instance,
        python.into(),
        words.to_vec(),
        std::collections::BTreeMap::new(),
    )?;
    // As above: it ends with this process.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig=KILL", "--"])
        .arg(&chain.program)
        .args(&chain.arguments)
        .env_clear()
        .envs(&chain.environment)
        .current_dir(stage);
    let mut ended = || -> std::io::Result<_> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // A program that ends without reading says why.
        let _ = child
            .stdin
            .take()
            .map(|mut pipe| pipe.write_all(url.as_bytes()));
        child.wait_with_output()
    };
    let output = ended().context("run `setpriv`")?;
    if output.status.success() && stage.join(TAC).is_file() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    bail!(
        "`buildbot create-master` failed: {}",
        harmless(last.unwrap_or("no reason given"))
    )
}

fn take_places(stage: &Path, directory: &Path) -> anyhow::Result<()> {
    let moved = || -> std::io::Result<()> {
        for entry in fs::read_dir(stage)? {
            let name = entry?.file_name();
            if name != TAC {
                fs::rename(stage.join(&name), directory.join(&name))?;
            }
        }
        // Last of all. Files of a profile may be without it.
        if stage.join(TAC).exists() {
            fs::rename(stage.join(TAC), directory.join(TAC))?;
        }
        fs::remove_dir(stage)
    };
    moved().with_context(|| format!("fill `{}`", directory.display()))
}

/// As the service user: removes what is in `directory`, links as links, and unless `keep` the
/// directory itself.
pub(crate) fn clear_directory(directory: &Path, keep: bool) -> anyhow::Result<()> {
    let cleared = || -> std::io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        if keep {
            Ok(())
        } else {
            fs::remove_dir(directory)
        }
    };
    match cleared() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // What root has made is root's to remove.
        Err(error) if error.kind() == ErrorKind::PermissionDenied && is_empty(directory) => Ok(()),
        outcome => outcome.with_context(|| format!("clear `{}`", directory.display())),
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}
