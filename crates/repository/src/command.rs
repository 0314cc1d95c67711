//! The command line, the same for `buildbot-conda repo` and `cargo xtask repo`: grammar, and what is printed where.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::creation::Creation;
use crate::error::Error;
use crate::release::date_text;
use crate::repository::{Contents, Repository, Wish};
use crate::settings::{Fingerprint, Settings, Url, Word, valid_for};

/// What to do with a repository.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a new repository without packages
    Create(Create),
    /// Add packages and publish them
    Add(Add),
    /// Sign the current packages again: regularly, and after changed settings
    Refresh(Refresh),
    /// Verify signatures, indexes and packages, and list the packages
    Verify(Verify),
}

/// The settings of a new repository.
#[derive(Debug, Args)]
pub struct Create {
    /// The directory, which a web server can publish unchanged
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Fingerprint of an Ed25519 key of your gpg; can be repeated to sign with all of them
    #[arg(long = "key", value_name = "FINGERPRINT", required = true)]
    keys: Vec<Fingerprint>,
    /// Address of the directory for clients, such as `https://apt.example/debian`
    #[arg(long)]
    url: Url,
    /// Name of the repository: its origin for clients, and the names of its files
    #[arg(long, default_value = "internal")]
    name: Word,
    /// The suite in the clients' sources
    #[arg(long, default_value = "stable")]
    suite: Word,
    /// How long a signature is valid
    #[arg(long, value_name = "DURATION", default_value = "90days", value_parser = valid_for)]
    valid_for: Duration,
    /// Number of versions of each package to keep; by default all
    #[arg(long, value_name = "NUMBER")]
    keep: Option<NonZeroUsize>,
    /// Show what would be created, and create nothing
    #[arg(long)]
    dry_run: bool,
}

/// What both ways to publish have.
#[derive(Debug, Args)]
struct Publish {
    /// The repository's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Number of versions of each package to keep, instead of the configured one
    #[arg(long, value_name = "NUMBER")]
    keep: Option<NonZeroUsize>,
    /// Read the passphrase of the key from FILE; otherwise gpg-agent asks for it
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Show what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Packages to add.
#[derive(Debug, Args)]
pub struct Add {
    #[command(flatten)]
    publish: Publish,
    /// Packages to add
    #[arg(value_name = "DEB", required = true)]
    debs: Vec<PathBuf>,
}

/// A repository to sign again.
#[derive(Debug, Args)]
pub struct Refresh {
    #[command(flatten)]
    publish: Publish,
}

/// A repository to verify.
#[derive(Debug, Args)]
pub struct Verify {
    /// The repository's directory
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What there is to print.
#[derive(Debug, Default)]
pub struct Outcome {
    /// For stdout, including the final line break.
    pub data: String,
    /// For stderr, line by line.
    pub talk: Vec<String>,
}

/// Does it.
///
/// # Errors
///
/// As the operations of [`Repository`].
pub fn run(verb: &Verb) -> Result<Outcome, Error> {
    match verb {
        Verb::Create(arguments) => create(arguments),
        Verb::Add(arguments) => publish(&arguments.publish, &arguments.debs),
        Verb::Refresh(arguments) => publish(&arguments.publish, &[]),
        Verb::Verify(arguments) => verify(arguments),
    }
}

fn create(arguments: &Create) -> Result<Outcome, Error> {
    let settings = Settings {
        name: arguments.name.clone(),
        url: arguments.url.clone(),
        suite: arguments.suite.clone(),
        keys: arguments.keys.clone(),
        valid_for: arguments.valid_for,
        keep: arguments.keep,
    };
    let creation = Creation::new(&arguments.directory, settings)?;
    if arguments.dry_run {
        return Ok(Outcome {
            data: creation.to_string(),
            ..Outcome::default()
        });
    }
    creation.carry_out()?;
    let directory = arguments.directory.display();
    Ok(Outcome {
        talk: vec![format!(
            "created a repository; its settings are in `{directory}/repository.toml`"
        )],
        ..Outcome::default()
    })
}

fn publish(arguments: &Publish, debs: &[PathBuf]) -> Result<Outcome, Error> {
    let passphrase_file = arguments.passphrase_file.as_deref();
    let repository = Repository::open(&arguments.directory, passphrase_file)?;
    let said = repository.change(&Wish {
        debs,
        keep: arguments.keep,
        date: date()?,
        dry_run: arguments.dry_run,
    })?;
    if arguments.dry_run {
        return Ok(Outcome {
            data: said,
            ..Outcome::default()
        });
    }
    let sources = format!("for clients: `{}`", repository.sources().display());
    Ok(Outcome {
        talk: said.lines().map(str::to_owned).chain([sources]).collect(),
        ..Outcome::default()
    })
}

#[derive(Serialize)]
struct Row<'r> {
    package: &'r str,
    version: String,
    architecture: &'r str,
    size: u64,
    sha256: &'r str,
    file: String,
}

#[derive(Serialize)]
struct Report<'r> {
    suite: &'r str,
    date: Option<u64>,
    valid_until: Option<u64>,
    signed_by: Vec<&'r str>,
    packages: Vec<Row<'r>>,
}

fn verify(arguments: &Verify) -> Result<Outcome, Error> {
    let repository = Repository::open(&arguments.directory, None)?;
    let contents = repository.contents()?;
    let now = now();
    let mut talk = Vec::new();
    if let Some(release) = &contents.release {
        let until = date_text(release.valid_until);
        if release.valid_until <= now {
            return Err(Error::Expired(until));
        }
        let left = release.valid_until - now;
        if left < (release.valid_until - release.date) / 4 {
            talk.push(format!(
                "warning: clients will reject it from {until}\nhint: renew it with `repo refresh`"
            ));
        }
    }
    let rows: Vec<Row<'_>> = rows(&contents);
    let data = if arguments.json {
        let report = Report {
            suite: repository.settings().suite.as_str(),
            date: contents.release.as_ref().map(|release| release.date),
            valid_until: contents.release.as_ref().map(|release| release.valid_until),
            signed_by: contents.signers.iter().map(Fingerprint::as_str).collect(),
            packages: rows,
        };
        serde_json::to_string_pretty(&report).expect("it has text keys alone") + "\n"
    } else {
        let line =
            |row: &Row<'_>| format!("{} {} {}\n", row.package, row.version, row.architecture);
        rows.iter().map(line).collect()
    };
    Ok(Outcome { data, talk })
}

fn rows(contents: &Contents) -> Vec<Row<'_>> {
    let packages = contents.packages.values();
    packages
        .map(|package| Row {
            package: package.identity.name.as_str(),
            version: package.identity.version.to_string(),
            architecture: package.identity.architecture.as_str(),
            size: package.size,
            sha256: package.sha256.as_str(),
            file: package.identity.file_name(),
        })
        .collect()
}

/// The date of a new state: `SOURCE_DATE_EPOCH`, else now.
fn date() -> Result<u64, Error> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(now()),
        // The latest date that HTTP's format can express is in the year 9999.
        Ok(text) => match text.parse() {
            Ok(date) if date < 200_000_000_000 => Ok(date),
            _ => Err(Error::NoDate(text)),
        },
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
