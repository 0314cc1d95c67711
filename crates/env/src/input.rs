//! The file that lists the packages of an environment, in each of its formats: from text to archives, or to
//! specifications that have to be solved first.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use buildbot_conda_core::foreign_text::{ForeignText, is_plain};
use buildbot_conda_environments::PLATFORM;
use buildbot_conda_host::trusted::read_given;
use rattler_conda_types::package::CondaArchiveIdentifier;
use rattler_conda_types::{
    EnvironmentYaml, ExplicitEnvironmentSpec, MatchSpec, PackageArchiveHash, RepoDataRecord, Subdir,
};
use rattler_digest::{Md5Hash, Sha256Hash};
use rattler_lock::LockFile;
use url::Url;

/// Bytes; more than the lock of any environment has.
const LARGEST: u64 = 64 << 20;

/// One archive, and how to know that it is the right one.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Without a fragment.
    pub(crate) url: Url,
    pub(crate) sha256: Option<Sha256Hash>,
    pub(crate) md5: Option<Md5Hash>,
}

impl Wanted {
    /// Name, version and build, which the name of every archive has.
    pub(crate) fn identifier(&self) -> anyhow::Result<CondaArchiveIdentifier> {
        CondaArchiveIdentifier::try_from_url(&self.url)
            .with_context(|| format!("`{}` is not a Conda package", self.shown()))
    }

    /// Where it comes from, without what may be secret in an address.
    pub(crate) fn public(&self) -> Url {
        public(&self.url)
    }

    /// The same for messages.
    pub(crate) fn shown(&self) -> String {
        self.public().to_string()
    }
}

/// Maximum length of an address in bytes: more than servers accept, and less than libraries support.
const LONGEST_ADDRESS: usize = 8192;

/// Refuses what no channel and no package has as its address.
pub(crate) fn check_address(text: &str) -> anyhow::Result<()> {
    ensure!(
        text.len() <= LONGEST_ADDRESS,
        "`{}...` is too long for an address: it has {} bytes, {LONGEST_ADDRESS} are allowed",
        ForeignText::new(&text[..text.floor_char_boundary(60)]),
        text.len()
    );
    ensure!(
        is_plain(text),
        "`{}` is not an address: it contains invisible characters",
        ForeignText::new(text)
    );
    Ok(())
}

/// An address without what may be secret in it.
fn public(url: &Url) -> Url {
    let mut url = url.clone();
    // Addresses that cannot have them are left as they are.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    // https://HOST/t/TOKEN/..., as anaconda.org and its like have it.
    let rest = url.path().strip_prefix("/t/");
    if let Some((_, rest)) = rest.and_then(|rest| rest.split_once('/')) {
        let path = format!("/{rest}");
        url.set_path(&path);
    }
    url
}

/// What a file asks for.
#[derive(Debug)]
pub(crate) enum Input {
    /// Every package is named.
    Locked(Vec<Wanted>),
    /// Packages are to be chosen.
    Open {
        specs: Vec<MatchSpec>,
        /// As written, in the order of their priority.
        channels: Vec<String>,
        variables: BTreeMap<String, String>,
    },
}

/// The platform that this program is for.
pub(crate) fn platform() -> Subdir {
    PLATFORM.parse().expect("Conda has this platform")
}

/// Reads a file in the format that it is in. `environment` is for formats that have several.
pub(crate) fn read(path: &Path, environment: &str) -> anyhow::Result<Input> {
    let shown_path = path.display();
    let text = read_given(path, LARGEST).with_context(|| format!("read `{shown_path}`"))?;
    let has = |start: &str| text.lines().any(|line| line.trim_end().starts_with(start));
    let input = if has("@EXPLICIT") {
        explicit(&text)
    } else if has("metadata:") && has("package:") {
        conda_lock(&text)
    } else if has("environments:") && has("packages:") {
        pixi_lock(&text, path, environment)
    } else if has("dependencies:") {
        environment_yml(&text)
    } else {
        Err(anyhow!(
            "it is not an `@EXPLICIT` list, `environment.yml`, `pixi.lock` or `conda-lock.yml`"
        ))
    };
    input.with_context(|| format!("read `{shown_path}`"))
}

fn explicit(text: &str) -> anyhow::Result<Input> {
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        let is_comment = line.trim_start().starts_with('#');
        if line.is_empty() || is_comment || line == "@EXPLICIT" {
            continue;
        }
        check_address(line).with_context(|| format!("line {number}"))?;
        ensure!(
            !line.contains(char::is_whitespace) && line.contains("://"),
            "line {number}: `{line}` is not the address of a package"
        );
    }
    let list: ExplicitEnvironmentSpec = text.parse()?;
    if let Some(other) = list.platform.filter(|other| *other != platform()) {
        bail!("it is for `{other}`, but this machine is `{}`", platform());
    }
    let wanted = list.packages.iter().map(|entry| {
        let (mut url, mut sha256, mut md5) = (entry.url.clone(), None, None);
        url.set_fragment(None);
        match entry
            .package_archive_hash()
            .with_context(|| format!("read the checksum of `{}`", public(&url)))?
        {
            Some(PackageArchiveHash::Sha256(sum)) => sha256 = Some(sum),
            Some(PackageArchiveHash::Md5(sum)) => md5 = Some(sum),
            None => bail!(
                "`{}` has no checksum\n\
                 hint: `conda list --explicit --md5` and `buildbot-conda env lock` write them",
                public(&url)
            ),
        }
        Ok(Wanted { url, sha256, md5 })
    });
    Ok(Input::Locked(wanted.collect::<anyhow::Result<_>>()?))
}

fn conda_lock(text: &str) -> anyhow::Result<Input> {
    let document = rattler_conda_lock::Document::parse(text).map_err(|error| anyhow!("{error}"))?;
    let lock = LockFile::from_conda_lock_document(
        &document,
        &rattler_lock::conda_lock::ImportOptions::default(),
    )
    .map_err(|error| anyhow!("{error}"))?;
    locked(&lock, "default")
}

fn pixi_lock(text: &str, path: &Path, environment: &str) -> anyhow::Result<Input> {
    let directory = path.canonicalize().context("find its directory")?;
    let lock = LockFile::from_str_with_base_directory(text, directory.parent())?;
    locked(&lock, environment)
}

fn locked(lock: &LockFile, environment: &str) -> anyhow::Result<Input> {
    let found = lock.environment(environment).with_context(|| {
        let names: Vec<&str> = lock.environments().map(|(name, _)| name).collect();
        format!(
            "it contains no environment `{environment}`, but `{}`",
            names.join("`, `")
        )
    })?;
    let here = found
        .platforms()
        .find(|other| other.subdir() == platform())
        .with_context(|| format!("it contains nothing for `{}`", platform()))?;
    if let Some(mut others) = found.pypi_packages(here)
        && let Some(package) = others.next()
    {
        bail!(
            "it contains packages from PyPI, such as `{}`, which are not supported\n\
             hint: use Conda packages instead",
            package.name()
        );
    }
    if found
        .conda_packages(here)
        .is_some_and(|mut packages| packages.any(|package| package.as_binary().is_none()))
    {
        bail!("it contains source packages, which are not supported");
    }
    let records = found
        .conda_repodata_records(here)?
        .with_context(|| format!("it contains nothing for `{}`", platform()))?;
    let wanted = records.iter().map(wanted);
    Ok(Input::Locked(wanted.collect::<anyhow::Result<_>>()?))
}

/// The archive of a record, which must have a checksum.
pub(crate) fn wanted(record: &RepoDataRecord) -> anyhow::Result<Wanted> {
    check_address(record.url.as_str())?;
    let (sha256, md5) = (record.package_record.sha256, record.package_record.md5);
    ensure!(
        sha256.is_some() || md5.is_some(),
        "`{}` has no checksum",
        public(&record.url)
    );
    Ok(Wanted {
        url: record.url.clone(),
        sha256,
        md5,
    })
}

fn environment_yml(text: &str) -> anyhow::Result<Input> {
    let yaml = EnvironmentYaml::from_yaml_str(text)?;
    if yaml.pip_specs().is_some() {
        bail!(
            "it contains a list for pip, which is not supported\n\
             hint: use Conda packages instead, or create the environment with conda"
        );
    }
    let channels = yaml.channels.iter().map(ToString::to_string);
    Ok(Input::Open {
        specs: yaml.match_specs().cloned().collect(),
        // Conda's word for "only these".
        channels: channels.filter(|channel| channel != "nodefaults").collect(),
        variables: yaml.variables.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let error = read(file.path(), "default").unwrap_err();
        format!("{error:#}").replace(&file.path().display().to_string(), "FILE")
    }

    #[test]
    fn a_list_without_checksums_is_refused() {
        assert_eq!(
            said("@EXPLICIT\nhttps://example.org/noarch/a-1-0.conda\n"),
            "read `FILE`: `https://example.org/noarch/a-1-0.conda` has no checksum\n\
             hint: `conda list --explicit --md5` and `buildbot-conda env lock` write them"
        );
    }

    #[test]
    fn a_list_has_addresses_of_packages_and_nothing_else() {
        let sum = "0".repeat(32);
        for (line, expect) in [
            (
                format!("https://x/noarch/a-1-0.conda #{sum}"),
                "line 2: `https://x/noarch/a-1-0.conda #",
            ),
            (
                format!("https://x/noarch/\ta-1-0.conda#{sum}"),
                "line 2: `https://x/noarch/ a-1-0.conda#",
            ),
            (
                format!("https://x/\u{1b}[2J/noarch/a-1-0.conda#{sum}"),
                "line 2: `https://x/\\u{1b}[2J/",
            ),
            (
                format!("https://x/\u{202e}/noarch/a-1-0.conda#{sum}"),
                "line 2: `https://x/\\u{202e}/",
            ),
            (
                "a-1-0.conda".to_owned(),
                "line 2: `a-1-0.conda` is not the address of a package",
            ),
            (
                format!("https://x/{}/noarch/a-1-0.conda", "x".repeat(70_000)),
                "is too long for an address",
            ),
        ] {
            let said = said(&format!("@EXPLICIT\n{line}\n"));
            assert!(said.contains(expect), "{said}");
        }
    }

    #[test]
    fn what_is_for_another_machine_or_another_installer_is_refused() {
        assert!(said("# platform: win-64\n@EXPLICIT\n").contains("it is for `win-64`"));
        assert!(said("dependencies:\n- pip:\n  - a\n").contains("a list for pip"));
        assert!(said("hello\n").contains("it is not an `@EXPLICIT` list"));
    }

    #[test]
    fn a_message_has_nothing_secret_of_an_address() {
        let said =
            said("@EXPLICIT\nhttps://me:word@example.org/t/to-ken/channel/noarch/a-1-0.conda\n");
        assert!(
            said.contains("`https://example.org/channel/noarch/a-1-0.conda` has no checksum"),
            "{said}"
        );
    }

    #[test]
    fn checksums_are_md5_or_sha256() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (md5, sha256) = ("0".repeat(32), "1".repeat(64));
        let text = format!(
            "@EXPLICIT\nfile:///c/noarch/a-1-0.conda#{md5}\nfile:///c/noarch/b-1-0.conda#sha256:{sha256}\n\
             file:///c/noarch/c-1-0.conda#{sha256}\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let Input::Locked(wanted) = read(file.path(), "default").unwrap() else {
            panic!("it is a list")
        };
        let sums: Vec<_> = wanted
            .iter()
            .map(|wanted| (wanted.md5.is_some(), wanted.sha256.is_some()))
            .collect();
        assert_eq!(sums, [(true, false), (false, true), (false, true)]);
        assert!(wanted.iter().all(|wanted| wanted.url.fragment().is_none()));
    }
}
