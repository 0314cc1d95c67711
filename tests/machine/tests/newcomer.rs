//! Somebody who has Conda, a machine and the README: its commands, as they are written there and in their order, lead
//! from a package to the first green build.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    Environment, Machine, Outcome, Release, Rest, Version, latest_package, on_each_release,
};

on_each_release! { three_commands_of_the_readme_lead_to_a_green_build }

/// Where the README has Conda, readable for all and writable for none but root.
const PREFIX: &str = "/opt/conda/envs/buildbot";
/// Where its commands are typed.
const HERE: &str = "/srv/here";
/// apt, a first start and a first build, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_mins(5);

/// What is typed in the section `Install`: after `#` by root, after `$` by anybody, a line that ends with `\` going on in
/// the next.
fn typed() -> anyhow::Result<Vec<(char, String)>> {
    let readme = include_str!("../../../README.md");
    let section = readme.split("\n## Install\n").nth(1);
    let section = section.context("find the section `Install`")?;
    let section = section
        .split("\nAs many as you like:")
        .next()
        .unwrap_or_default();
    let blocks = section.split("```console\n").skip(1);
    let mut commands = Vec::new();
    for block in blocks {
        let text = block.split("\n```").next().unwrap_or_default();
        for line in text.replace("\\\n", "").lines() {
            for prompt in ['#', '$'] {
                if let Some(command) = line.strip_prefix(prompt) {
                    commands.push((prompt, command.trim().to_owned()));
                }
            }
        }
    }
    Ok(commands)
}

fn three_commands_of_the_readme_lead_to_a_green_build(release: Release) -> Outcome {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let machine = Machine::builder(release)?
        .with_environment(&environment)
        .boot()?;
    let mut by_root = Vec::new();
    let mut password = None;
    for (prompt, command) in typed()? {
        // The environment is there, and the package is built.
        if command.starts_with("conda create ") || command == "cargo xtask deb" {
            continue;
        }
        if prompt == '$' {
            // A proxy of the host's is not reachable from the machine's network.
            // curl asks for the password that was shown, and nobody is at a terminal.
            let password: &str = password.as_deref().context("be shown a password")?;
            let command = command.replace("--user admin ", &format!("--user admin:{password} "));
            let script = format!("export no_proxy='*'; {command}");
            machine
                .run_on_network(&["sh", "-euc", &script], LIMIT)?
                .succeeded()?;
            continue;
        }
        if let Some(package) = command.strip_prefix("apt install ./") {
            machine.copy_in(&latest_package()?, &format!("{HERE}/{package}"))?;
        }
        // Nobody is at a terminal, as the README has it for that case.
        let script = format!("cd {HERE}; export DEBIAN_FRONTEND=noninteractive; {command}");
        let output = machine
            .run_within(LIMIT, &["sh", "-euc", &script])?
            .succeeded()?;
        if command.starts_with("apt install ") {
            let told = "buildbot-conda set conda-root /opt/conda";
            ensure!(include_str!("../../../README.md").contains(&format!("`{told}`")));
            machine.shell(told)?.succeeded()?;
        }
        ensure!(!output.stderr.contains("error: "), "{output}");
        let shown = output.stderr.split("with the password `").nth(1);
        let shown = shown.and_then(|text| text.split('`').next());
        password = shown.map(str::to_owned).or(password);
        by_root.push(command);
    }
    ensure!(by_root.len() == 3, "{by_root:#?}");

    // The first request of the first master.
    let build = Rest::new(&machine).wait_for_build(1, LIMIT)?;
    ensure!(build.results == 0, "{build:?}");
    let doctor = machine.run(&["buildbot-conda", "doctor"])?.succeeded()?;
    ensure!(doctor.stdout.starts_with("no problems, "), "{doctor}");
    Ok(())
}
