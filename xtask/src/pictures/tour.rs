//! The commands on the machine, in the order of the README, and those that become pictures.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{Layers, Machine, Rest};

use super::drawing::Drawing;
use super::terminal::{DIRECTORY, Shown, Terminal};
use super::{Pictures, browser};

/// The environment, where many have Conda.
pub(super) const PREFIX: &str = "/opt/conda/envs/buildbot";

const COLUMNS: NonZero<u16> = NonZero::new(100).unwrap();
/// Where lines are longer that nothing breaks between its words.
const WIDE: NonZero<u16> = NonZero::new(136).unwrap();
const WIDEST: NonZero<u16> = NonZero::new(176).unwrap();
/// From a build request to the end of the build, on a machine that has other load.
const BUILT: Duration = Duration::from_mins(2);

/// As in the README.
const FORCE: &str = "curl --user admin --cookie '' http://localhost:8010/auth/login --next --cookie '' \\\n    \
    http://localhost:8010/api/v2/forceschedulers/force --json \\\n    \
    '{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"force\", \"params\": {}}'";
const CONFIGURATION: &str = "/home/bb/master/master.cfg";

/// Follows the README, and draws the results.
///
/// # Errors
///
/// The first deviation from the README.
pub(super) fn walk(machine: &Machine, package: &Path, pictures: &Pictures) -> Result<()> {
    let name = package
        .file_name()
        .and_then(|name| name.to_str())
        .context("name a package")?;
    // A front end of debconf's that asks line by line.
    machine
        .shell(
            "hostname ci; echo ci >/etc/hostname; echo '127.0.0.1 localhost ci' >/etc/hosts\n\
             echo 'debconf debconf/frontend select Teletype' | debconf-set-selections",
        )?
        .succeeded()?;
    machine.copy_in(package, &format!("{DIRECTORY}/{name}"))?;
    let terminal = |columns| Terminal {
        machine,
        python: format!("{PREFIX}/bin/python"),
        columns,
    };
    first_build(&terminal(WIDEST), name)?
        .moving()
        .write(pictures, "first-build")?;
    photograph(machine, &pictures.browser, &pictures.directory)?;
    status(&terminal(WIDE))?.write(pictures, "status")?;
    doctor(&terminal(COLUMNS))?.write(pictures, "doctor")
}

impl Drawing {
    fn write(&self, pictures: &Pictures, name: &str) -> Result<()> {
        let path = pictures.directory.join(format!("{name}.svg"));
        fs::write(&path, self.svg()).with_context(|| format!("write `{}`", path.display()))
    }
}

fn every_line(_: &str) -> bool {
    true
}

fn first_build(terminal: &Terminal<'_>, package: &str) -> Result<Drawing> {
    let mut drawing = Drawing::new(
        "A terminal: apt asks where Conda is, two commands make master and worker, and the first build is green",
        terminal.columns,
    );
    let install = format!("apt install ./{package}");
    let answers = [("Directory of the Conda installation:", "/opt/conda")];
    let installed = terminal.must(&install, &answers)?;
    drawing.command(&install);
    drawing.shown(&installed, worth_seeing());

    for command in [
        "buildbot-conda create master",
        "buildbot-conda create worker",
    ] {
        drawing.command(command);
        drawing.shown(&terminal.must(command, &[])?, every_line);
    }

    let password = "/etc/buildbot-conda/credentials/web-password";
    let password = terminal.machine.read_file(password)?;
    let asked = [("Enter host password for user 'admin'", password.trim())];
    let forced = terminal.must(FORCE, &asked)?;
    ensure!(forced.text().contains("\"result\""), "{}", forced.text());
    let rest = Rest::new(terminal.machine);
    let build = rest.wait_for_build(1, BUILT)?;
    ensure!(build.results == 0, "{build:?}");
    let finished = "journalctl --unit buildbot-master --grep 'build finished' --output cat";
    let shown = terminal
        .machine
        .wait_until("the journal has the build", BUILT, || {
            let shown = terminal.enter(finished, &[])?;
            Ok(shown.text().contains("results:success").then_some(shown))
        })?;
    drawing.command(FORCE);
    drawing.shown(&forced, every_line);
    drawing.command(finished);
    drawing.shown(&shown, every_line);
    Ok(drawing)
}

/// Parts of apt's output: what it installs, the question, and the messages of the package.
fn worth_seeing() -> impl FnMut(&str) -> bool {
    let mut shows = false;
    move |line| {
        if line.starts_with("Installing:") || line.starts_with("Configuring ") {
            shows = true;
        } else if line.starts_with("Suggested ") || line.starts_with("Selecting ") {
            shows = false;
        }
        shows || line.starts_with("Setting up ")
    }
}

fn photograph(machine: &Machine, browser: &Layers, directory: &Path) -> Result<()> {
    let found = Rest::new(machine).get("builders/hello")?;
    let builder = &found["builders"][0]["builderid"];
    browser::photograph(
        machine,
        browser,
        &format!("http://localhost:8010/#/builders/{builder}/builds/1"),
        &["worker_preparation", "build successful", "SUCCESS"],
        &directory.join("web.png"),
    )
}

fn status(terminal: &Terminal<'_>) -> Result<Drawing> {
    let mut drawing = Drawing::new(
        "A terminal: `buildbot-conda list` shows master and worker, `buildbot-conda status worker` one in detail",
        terminal.columns,
    );
    // The log of a start; that of a build has longer lines.
    terminal.must("systemctl restart buildbot-worker", &[])?;
    Rest::new(terminal.machine).wait_for_worker("worker", BUILT)?;
    for command in ["buildbot-conda list", "buildbot-conda status worker"] {
        drawing.command(command);
        drawing.shown(&terminal.must(command, &[])?, every_line);
    }
    Ok(drawing)
}

/// Two things are broken; doctor fixes one itself, and an editor the other.
fn doctor(terminal: &Terminal<'_>) -> Result<Drawing> {
    let mut drawing = Drawing::new(
        "A terminal: `buildbot-conda doctor` shows two problems and how to fix them, and then no problem",
        terminal.columns,
    );
    let password = "/etc/buildbot-conda/credentials/password-of-worker";
    terminal
        .machine
        .shell(&format!(
            "chmod 644 {password}; sed -i s/workernames=WORKERS/workernames=WORKER/ {CONFIGURATION}; \
             ! grep -q workernames=WORKERS {CONFIGURATION}"
        ))?
        .succeeded()?;
    let failing = |command: &str, wanted: &str| -> Result<Shown> {
        let shown = terminal.enter(command, &[])?;
        let text = shown.text();
        ensure!(shown.status == 1 && text.contains(wanted), "{text}");
        Ok(shown)
    };
    for (command, wanted) in [
        ("buildbot-conda doctor", "chmod 0600 /etc"),
        ("buildbot-conda doctor --fix", "1 problem,"),
    ] {
        drawing.command(command);
        drawing.shown(&failing(command, wanted)?, every_line);
    }
    let correct = format!("sed -i s/workernames=WORKER,/workernames=WORKERS,/ {CONFIGURATION}");
    for command in [correct.as_str(), "buildbot-conda doctor"] {
        drawing.command(command);
        drawing.shown(&terminal.must(command, &[])?, every_line);
    }
    Ok(drawing)
}
