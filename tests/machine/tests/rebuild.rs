//! A host rebuilt from files: a host that was set up by commands and by hand is exported, and a fresh machine with
//! another name becomes the same one with a signed repository, a preseed and the profile, as described in the README.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    CHANNEL, Channel, Environment, Machine, Outcome, Output, Release, Rest, Unit, Version,
    environments_package, latest_package, machines_directory, on_each_release, with_packages,
};

on_each_release! { a_fresh_host_becomes_the_one_that_was_exported }

/// From a request to its completion on a busy machine.
const LIMIT: Duration = Duration::from_mins(4);
/// The environment of a worker that Conda has made.
const BY_CONDA: &str = "/opt/conda/envs/tools";
/// Where the README has the profile of the host that is rebuilt.
const PROFILE: &str = "/srv/hosts/ci";
/// Everything that belongs to the exported instances and is not in a package.
const SECRETS: &str = "/root/secrets";

/// The one that the README has in its data for cloud-init.
const PASSWORD: &str = "correct horse battery staple";

const README: &str = include_str!("../../../README.md");

fn a_fresh_host_becomes_the_one_that_was_exported(release: Release) -> Outcome {
    let first = first_host(release)?;
    let history = Rest::new(&first).builds()?;
    let backup = first
        .run(&["buildbot-conda", "backup", "master"])?
        .succeeded()?;
    let backup = backup.text().to_owned();
    export(&first)?;
    let expected = manifest(&first)?;

    // What is carried over: the repository, the profile, the secrets, a backup. The first host is gone.
    let things = tempfile::tempdir_in(machines_directory())?;
    let disk = things.path().join("disk");
    first.freeze(&disk)?;

    let second = fresh_host(release)?;
    for path in ["/srv/hosts", SECRETS, CHANNEL, "/srv/traps"] {
        let source = disk.join(path.trim_start_matches('/'));
        if source.exists() {
            second.copy_in(&source, path)?;
        }
    }
    let _repository = Published::start(&second, &disk.join("srv/apt"))?;
    rebuild(&second)?;

    let verify = call(&second, &["host", "verify", PROFILE])?;
    ensure!(verify.status == 0, "{verify}");
    let again = ["host", "apply", PROFILE, "--secrets", SECRETS, "--json"];
    let again = call(&second, &again)?.succeeded()?;
    ensure!(
        again.stderr.contains("nothing to do")
            && again.stdout.contains("\"changed\": false")
            && again.stdout.contains("\"before\": []"),
        "{again}"
    );
    ensure_same(&expected, &manifest(&second)?)?;

    // Its history comes by backup and restore, under a host name that Buildbot has not seen.
    Unit::master(&second).succeed("stop")?;
    let name = Path::new(&backup).file_name().context("name a backup")?;
    let carried = format!("/root/{}", name.to_string_lossy());
    second.copy_in(&disk.join(backup.trim_start_matches('/')), &carried)?;
    second.run(&["chmod", "600", &carried])?.succeeded()?;
    let strange = "/root/20261122T120000Z-buildbot-4.3.0-schema-067.sqlite";
    second.write_file(strange, "not a database", "0600", "root")?;
    let refused = call(&second, &["restore", "master", strange])?;
    ensure!(
        refused.status == 1 && refused.stderr.contains("is not a `SQLite` database"),
        "{refused}"
    );
    call(&second, &["restore", "master", &carried])?.succeeded()?;
    Unit::master(&second).succeed("start")?;
    let rest = Rest::new(&second);
    rest.wait_for_worker("worker", LIMIT)?;
    ensure!(rest.builds()? == history, "{:?}", rest.builds()?);
    let build = rest.wait_for_build(rest.force("hello", &[])?, LIMIT)?;
    ensure!(
        build.results == 0 && history.iter().all(|before| before.id < build.id),
        "{build:?} after {history:?}"
    );
    let doctor = call(&second, &["doctor"])?;
    ensure!(doctor.status == 0, "{doctor}");
    Ok(())
}

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LIMIT, &[&["buildbot-conda"], words].concat())
}

/// A host with a history: a managed environment that was updated, an environment of Conda, instances created by
/// commands, settings and a drop-in written by hand, a build, and a repository that it publishes.
fn first_host(release: Release) -> anyhow::Result<Machine> {
    let by_conda = Environment::install(Version::V3_11_9, BY_CONDA)?;
    let machine = Machine::boot(
        with_packages(release, "publishing", "gpg gpg-agent ca-certificates")?
            .with(by_conda.tree().to_owned()),
    )?;
    bring_channel(&machine)?;
    let packages = [latest_package()?, environments_package()?];
    for package in &packages {
        machine.install_package(package)?.succeeded()?;
    }
    machine.shell(PUBLISH)?.succeeded()?;

    let lock = Channel::made()?.lock(Version::V4_3_0, CHANNEL)?;
    // With the same Buildbot, but another setuptools.
    let other = Channel::made()?.lock(Version::V3_11_9, CHANNEL)?;
    let line = |lock: &str| {
        let found = lock.lines().find(|line| line.contains("/setuptools-"));
        found.context("find setuptools").map(str::to_owned)
    };
    let older = lock.replace(&line(&lock)?, &line(&other)?);
    machine.write_file("/root/old.txt", &older, "0644", "root")?;
    machine.write_file("/root/new.txt", &lock, "0644", "root")?;
    machine.write_file("/root/password", PASSWORD, "0600", "root")?;
    for words in [
        &["env", "create", "buildbot", "--file", "/root/old.txt"][..],
        &["create", "master", "--password-file", "/root/password"],
        &["create", "worker"],
        &["create", "worker", "tools", "--conda-env", BY_CONDA],
        &["env", "update", "buildbot", "--file", "/root/new.txt"],
        &["set", "master", "drain", "30s"],
    ] {
        call(&machine, words)?.succeeded()?;
    }
    machine.shell(BY_HAND)?.succeeded()?;
    let rest = Rest::new(&machine);
    for worker in ["worker", "tools"] {
        rest.wait_for_worker(worker, LIMIT)?;
    }
    let build = rest.wait_for_build(rest.force("hello", &[])?, LIMIT)?;
    ensure!(build.results == 0, "{build:?}");
    Ok(machine)
}

/// The channel is where locks have it: those of managed environments at a place of the machine's, those of Conda's
/// where it was installed from.
fn bring_channel(machine: &Machine) -> Outcome {
    let channel = Channel::made()?;
    let original = channel.directory().display().to_string();
    machine.copy_in(channel.directory(), CHANNEL)?;
    machine
        .shell(&format!(
            "mkdir -p \"$(dirname '{original}')\"; ln -s {CHANNEL} '{original}'"
        ))?
        .succeeded()?;
    Ok(())
}

/// A key and a repository with both packages, as in the README.
const PUBLISH: &str = "
export GNUPGHOME=/root/.gnupg
mkdir -m 700 $GNUPGHOME
gpg --batch --quiet --passphrase '' --quick-generate-key 'Example packages' ed25519 sign 5y
key=$(gpg --list-secret-keys --with-colons 'Example packages' | awk -F: '/^fpr/ { print $10; exit }')
buildbot-conda repo create /srv/apt --key $key --url http://apt.example --name example
buildbot-conda repo add /srv/apt /root/buildbot-conda_*.deb /root/buildbot-conda-env_*.deb
mkdir -p /srv/hosts
cp /srv/apt/example.sources /srv/hosts/
";

/// What administrators do.
const BY_HAND: &str = "
mkdir /etc/systemd/system/buildbot-master.service.d
printf '[Service]\\nMemoryHigh=2G\\n' >/etc/systemd/system/buildbot-master.service.d/memory.conf
sed -i '1i # The machine in the corner.' /etc/buildbot-conda/config.toml
systemctl daemon-reload
systemctl restart buildbot-master
# Some installers let a group write their scripts. That is not carried over.
chmod -R g-w /opt/conda
";

/// The profile in version control, and what never is: the secrets.
fn export(machine: &Machine) -> Outcome {
    call(machine, &["host", "export", PROFILE, "--with-files"])?.succeeded()?;
    machine
        .shell(&format!(
            "cp -a /etc/buildbot-conda/credentials {SECRETS}
             grep -F '{PASSWORD}' {SECRETS}/password-of-worker
             ! grep -rF '{PASSWORD}' {PROFILE}"
        ))?
        .succeeded()?;
    let script = block("sh")?;
    machine.write_file("/srv/hosts/rebuild.sh", &script, "0755", "root")
}

/// The code in the section `Hosts rebuilt from files` that is in this language.
fn block(language: &str) -> anyhow::Result<String> {
    let section = README.split("\n## Hosts rebuilt from files\n").nth(1);
    let section = section.context("find the section `Hosts rebuilt from files`")?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let text = section.split(&format!("```{language}\n")).nth(1);
    let text = text.with_context(|| format!("find code in `{language}`"))?;
    Ok(text.split("```").next().unwrap_or_default().to_owned())
}

/// A machine without our files; on one release with the usual content of cloud images.
fn fresh_host(release: Release) -> anyhow::Result<Machine> {
    let machine = match release {
        Release::Bookworm => Machine::builder(release)?.boot()?,
        Release::Trixie => Machine::boot(with_packages(release, "cloud", "cloud-init git")?)?,
    };
    machine
        .shell(
            "hostname second; echo second >/etc/hostname
             echo '127.0.0.1 second apt.example' >>/etc/hosts
             rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*",
        )?
        .succeeded()?;
    bring_channel(&machine)?;
    Ok(machine)
}

/// The README's instructions for a fresh host: by hand, or with cloud-init.
fn rebuild(machine: &Machine) -> Outcome {
    let has_cloud = machine.run(&["test", "-x", "/usr/bin/cloud-init"])?.status == 0;
    if !has_cloud {
        machine
            .run_within(LIMIT, &["sh", "/srv/hosts/rebuild.sh"])?
            .succeeded()?;
        return Ok(());
    }
    // The web server for git is a directory here, and Debian's archive cannot be reached: git is installed already.
    machine
        .shell(
            "cd /srv; mv hosts work; cd work; git init --quiet; git add --all
             git -c user.name=x -c user.email=x@example.org commit --quiet --message 'Add ci'
             cd ..; git clone --quiet --bare work git/hosts.git; rm -r work
             git config --system url.file:///srv/git/.insteadOf https://git.example/
             git config --system --add safe.directory '*'",
        )?
        .succeeded()?;
    let seed = "/var/lib/cloud/seed/nocloud";
    let data: Vec<String> = block("yaml")?
        .lines()
        .filter(|line| !line.starts_with("packages:"))
        .map(str::to_owned)
        .collect();
    machine.write_file(
        &format!("{seed}/user-data"),
        &data.join("\n"),
        "0600",
        "root",
    )?;
    machine.write_file(
        &format!("{seed}/meta-data"),
        "instance-id: second\nlocal-hostname: second\n",
        "0600",
        "root",
    )?;
    let stages = "cloud-init schema --config-file /var/lib/cloud/seed/nocloud/user-data
        cloud-init init --local; cloud-init init; cloud-init modules --mode=config
        cloud-init modules --mode=final";
    machine
        .run_within(LIMIT, &["sh", "-euc", stages])?
        .succeeded()?;
    Ok(())
}

/// A web server on the machine's own loopback that ends with it.
struct Published(Child);

impl Published {
    fn start(machine: &Machine, directory: &Path) -> anyhow::Result<Self> {
        let init = machine.first_process()?.to_string();
        let server = Command::new("nsenter")
            .args(["--target", &init, "--net", "--pid"])
            .args(["python3", "-m", "http.server", "--bind", "127.0.0.1"])
            .arg("--directory")
            .arg(directory)
            .arg("80")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start a web server")?;
        let server = Self(server);
        machine.wait_until("the repository is published", LIMIT, || {
            let connected = machine.run_on_network(
                &[
                    "python3",
                    "-c",
                    "import socket; socket.create_connection(('127.0.0.1', 80))",
                ],
                LIMIT,
            )?;
            Ok((connected.status == 0).then_some(()))
        })?;
        Ok(server)
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // It is gone already where its machine is.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Paths of what packages and profile govern, each with kind, mode, owner, target of links and checksum; and units and
/// accounts.
const MANIFEST: &str = r#"
cd /
system=$(dpkg-query --listfiles buildbot-conda buildbot-conda-env | sort --unique)
current=var/lib/buildbot-conda/envs/buildbot/$(readlink var/lib/buildbot-conda/envs/buildbot/current)
{
    for path in $system; do test -d "$path" || echo "${path#/}"; done
    find etc/buildbot-conda etc/systemd/system/*buildbot* etc/systemd/system/multi-user.target.wants/buildbot* \
        run/systemd/generator* var/lib/buildbot-conda/envs/buildbot/current "$current"
    find opt/conda/envs/tools \( -name conda-meta -o -name __pycache__ \) -prune -o -print
    for directory in home/bb/master home/bb-worker*/worker*; do
        echo $directory; for file in buildbot.tac master.cfg workers.toml; do test ! -e $directory/$file || echo $directory/$file; done
    done
} | sort --unique >/tmp/paths
tr '\n' '\0' </tmp/paths | xargs -0 stat --format='%N %F %a %U:%G'
tr '\n' '\0' </tmp/paths | xargs -0 sh -c 'for path; do test ! -f "$path" || printf "%s\0" "$path"; done' sh | xargs -0 sha256sum
systemctl list-unit-files 'buildbot*' --no-legend | sort
getent passwd bb bb-worker bb-worker-tools | cut -d: -f1,6,7
id --name --groups bb; id --name --groups bb-worker; id --name --groups bb-worker-tools
"#;

fn manifest(machine: &Machine) -> anyhow::Result<String> {
    let output = machine
        .run_within(LIMIT, &["sh", "-euc", MANIFEST])?
        .succeeded()?;
    ensure!(output.stdout.lines().count() > 5000, "{output}");
    Ok(output.stdout)
}

fn ensure_same(expected: &str, found: &str) -> Outcome {
    let only = |one: &str, other: &str| -> Vec<String> {
        let known: std::collections::BTreeSet<&str> = other.lines().collect();
        one.lines()
            .filter(|line| !known.contains(line))
            .map(str::to_owned)
            .collect()
    };
    let (gone, new) = (only(expected, found), only(found, expected));
    ensure!(
        gone.is_empty() && new.is_empty(),
        "only on the first: {gone:#?}\nonly on the second: {new:#?}"
    );
    Ok(())
}
