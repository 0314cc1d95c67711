//! A new user with a machine and the README: its commands, exactly as written and in order, lead from a package to the
//! first green build, in each of its three ways. They need apt, a booted systemd, real environments and real builds.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    Channel, Environment, MASTER_UNIT, Machine, Outcome, PREFIX, Release, Rest, Version,
    WORKER_UNIT, create_instances, environments_package, latest_package, on_each_release,
};

on_each_release! {
    units_written_by_hand_are_taken_over_by_the_commands_of_the_readme,
    the_commands_of_the_readme_lead_to_a_green_build_with_conda_and_without,
}

const README: &str = include_str!("../../../README.md");
/// Where the README has Conda, readable for all and writable for none but root.
const CONDA: &str = "/opt/conda";
/// Where its commands are typed.
const HERE: &str = "/srv/here";
/// Replaces conda-forge on a machine without a network: the channel of these tests, and one with the packages that it
/// lacks.
const CHANNELS: [&str; 2] = ["/srv/channel", "/srv/beside"];
/// Makes the second one, of packages that have nothing in them.
const MAKER: &str = include_str!("../../../crates/env/tests/channel/maker.py");
/// apt, a first start and a first build, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_mins(5);

/// The commands in a section of any level; a line that ends with `\` continues on the next one.
fn commands(heading: &str) -> anyhow::Result<Vec<String>> {
    let section = README.split(&format!("# {heading}\n")).nth(1);
    let section = section.with_context(|| format!("find the section `{heading}`"))?;
    let section = section.split("\n#").next().unwrap_or_default();
    let blocks = section.split("```shell\n").skip(1);
    let texts = blocks.map(|block| block.split("\n```").next().unwrap_or_default());
    let lines = texts.flat_map(|text| {
        let text = text.replace("\\\n", "");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    Ok(lines.collect())
}

/// Runs the commands of a section as root, without sudo, and returns their number and their output. There is no
/// terminal, so apt asks nothing; the packages are built already.
fn follow(machine: &Machine, heading: &str) -> anyhow::Result<(usize, String)> {
    let (mut count, mut talk) = (0, String::new());
    for command in commands(heading)? {
        let Some(command) = command.strip_prefix("sudo ") else {
            ensure!(command.starts_with("cargo xtask deb"), "{command}");
            continue;
        };
        let mut command = command.to_owned();
        if command.starts_with("env create") || command.contains(" env create ") {
            for channel in CHANNELS {
                command = format!("{command} --channel {channel}");
            }
        }
        let script = format!("cd {HERE}; export DEBIAN_FRONTEND=noninteractive; {command}");
        let output = machine
            .run_within(LIMIT, &["sh", "-euc", &script])?
            .succeeded()?;
        ensure!(!output.stderr.contains("error: "), "{output}");
        talk += &output.stderr;
        count += 1;
    }
    Ok((count, talk))
}

/// The packages at the paths of the README, and its command that installs them.
fn install(machine: &Machine) -> Outcome {
    let named = commands("Getting started")?.join(" ");
    let paths: Vec<&str> = named
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("./"))
        .collect();
    ensure!(paths.len() == 2, "{named}");
    for path in paths {
        let package = if path.contains("-env_") {
            environments_package()?
        } else {
            latest_package()?
        };
        machine.copy_in(&package, &format!("{HERE}/{path}"))?;
    }
    let (count, _) = follow(machine, "Getting started")?;
    ensure!(count == 1);
    Ok(())
}

/// A build of `hello` by the curl of the README, with the password that was shown.
fn build(machine: &Machine, talk: &str) -> Outcome {
    let password = talk.split("with the password `").nth(1);
    let password = password.and_then(|text| text.split('`').next());
    let password = password.context("be shown a password")?;
    let curl = commands("The first build")?.join("\n");
    // curl asks for the password that was shown, and there is no terminal. A proxy of the host is not reachable from
    // the machine's network.
    let curl = curl.replace("--user admin ", &format!("--user admin:{password} "));
    ensure!(curl.contains(password), "{curl}");
    machine
        .run_on_network(
            &["sh", "-euc", &format!("export no_proxy='*'; {curl}")],
            LIMIT,
        )?
        .succeeded()?;
    // The first request of a new master.
    let build = Rest::new(machine).wait_for_build(1, LIMIT)?;
    ensure!(build.results == 0, "{build:?}");
    let doctor = machine.run(&["buildbot-conda", "doctor"])?.succeeded()?;
    ensure!(doctor.stdout.starts_with("no problems, "), "{doctor}");
    Ok(())
}

fn remove(machine: &Machine) -> Outcome {
    for reference in ["worker", "master"] {
        let words = ["buildbot-conda", "remove", reference, "--yes", "--data"];
        machine.run_within(LIMIT, &words)?.succeeded()?;
    }
    Ok(())
}

fn units_written_by_hand_are_taken_over_by_the_commands_of_the_readme(release: Release) -> Outcome {
    let environment = Environment::install(Version::V4_3_0, PREFIX)?;
    let machine = Machine::builder(release)?
        .with_environment(&environment)
        .boot()?;
    machine
        .shell("useradd --system --user-group --home-dir /home/bb --shell /bin/bash bb; chown bb: /home/bb")?
        .succeeded()?;
    create_instances(&machine, "bb")?;
    for (role, program) in [("master", "buildbot"), ("worker", "buildbot-worker")] {
        let unit = format!(
            "[Unit]\nDescription=Buildbot {role} by hand\n[Service]\nUser=bb\nWorkingDirectory=/home/bb\n\
             ExecStart={PREFIX}/bin/{program} start --nodaemon /home/bb/{role}\n\
             [Install]\nWantedBy=multi-user.target\n"
        );
        let path = format!("/etc/systemd/system/buildbot-{role}.service");
        machine.write_file(&path, &unit, "0644", "root")?;
    }
    machine
        .shell(&format!(
            "systemctl daemon-reload; systemctl enable --now {MASTER_UNIT} {WORKER_UNIT}"
        ))?
        .succeeded()?;
    let rest = Rest::new(&machine);
    rest.wait_for_worker("example", LIMIT)?;
    install(&machine)?;

    let (count, _) = follow(&machine, "You already run Buildbot with your own units")?;
    ensure!(count == 2);
    for unit in [MASTER_UNIT, WORKER_UNIT] {
        let path = machine.unit_property(unit, "FragmentPath")?;
        ensure!(!path.starts_with("/etc"), "{path}");
    }
    rest.wait_for_worker("example", LIMIT)?;
    let build = rest.wait_for_build(rest.force("example", &[])?, LIMIT)?;
    ensure!(build.results == 0, "{build:?}");
    Ok(())
}

fn the_commands_of_the_readme_lead_to_a_green_build_with_conda_and_without(
    release: Release,
) -> Outcome {
    let environment = Environment::install(Version::V4_3_0, &format!("{CONDA}/envs/buildbot"))?;
    let machine = Machine::builder(release)?
        .with_environment(&environment)
        .boot()?;
    install(&machine)?;
    let fresh = machine
        .run(&["buildbot-conda", "list", "--fail-if-down"])?
        .succeeded()?;
    for line in [
        "master    not set up",
        "create it with `buildbot-conda create master`",
    ] {
        ensure!(fresh.stdout.contains(line), "{fresh}");
    }
    a_closed_home_is_named_with_the_ways_out(&machine)?;

    // What apt asks.
    let answer = "buildbot-conda set conda-root /opt/conda";
    ensure!(README.contains(&format!("`{answer}`")));
    machine.shell(answer)?.succeeded()?;
    let (count, talk) = follow(&machine, "You have Conda")?;
    ensure!(count == 2);
    build(&machine, &talk)?;
    remove(&machine)?;

    machine.shell("mv /opt/conda /root/conda")?.succeeded()?;
    let refused = machine.run(&["buildbot-conda", "create", "master"])?;
    let hint = "hint: create one: `buildbot-conda env create buildbot`; or specify one";
    ensure!(
        refused.status == 1 && refused.stderr.contains(hint),
        "{refused}"
    );
    let channel = Channel::made()?;
    machine.copy_in(channel.directory(), CHANNELS[0])?;
    machine.copy_in(
        &packages_beside(&channel)?.path().join("channel"),
        CHANNELS[1],
    )?;
    let (count, talk) = follow(&machine, "You have nothing yet")?;
    ensure!(count == 3);
    build(&machine, &talk)
}

/// A channel with what the package's `environment.yml` names and the channel of these tests has under no such name.
fn packages_beside(channel: &Channel) -> anyhow::Result<tempfile::TempDir> {
    let shipped = include_str!("../../../debian/environment.yml");
    let names = shipped.lines().filter_map(|line| line.strip_prefix("  - "));
    let mut index = String::new();
    for subdir in ["linux-64", "noarch"] {
        index += &std::fs::read_to_string(channel.directory().join(subdir).join("repodata.json"))?;
    }
    let missing =
        names.filter(|name| *name != "conda-forge" && !index.contains(&format!("\"{name}\"")));
    let packages: Vec<_> = missing
        .map(|name| serde_json::json!({ "name": name, "version": "1", "members": [] }))
        .collect();
    let directory = tempfile::tempdir()?;
    let output = std::process::Command::new("python3")
        .args(["-c", MAKER])
        .arg(directory.path().join("channel"))
        .arg(serde_json::json!(packages).to_string())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(directory)
}

/// The commonest set-up of a person who is new to this: Conda in the home directory, which Debian closes.
fn a_closed_home_is_named_with_the_ways_out(machine: &Machine) -> Outcome {
    machine
        .shell(
            "useradd --create-home alice; chmod 0700 /home/alice
             install -d -o alice -g alice /home/alice/mc3; mount --bind /opt/conda /home/alice/mc3",
        )?
        .succeeded()?;
    let settings =
        "cd /etc; sha256sum buildbot-conda/config.toml; find buildbot-conda systemd/system";
    let before = machine.shell(settings)?.succeeded()?.stdout;
    let words = [
        "buildbot-conda",
        "create",
        "master",
        "--conda-root=/home/alice/mc3",
    ];
    let closed =
        "`bb` cannot read `/home/alice/mc3/envs/buildbot`: `/home/alice` is closed (mode 0700)";
    for more in [&[][..], &["--dry-run"]] {
        let refused = machine.run(&[&words[..], more].concat())?;
        let expected = format!(
            "error: {closed}\nhint: `--user alice` runs it as its owner; or use an environment that `bb` can read: \
             `--conda-env /opt/conda/envs/buildbot` uses an existing one; or create one: `buildbot-conda env create buildbot`; \
             or specify one with `--conda-root` and `--conda-env`\n"
        );
        ensure!(
            refused.status == 1 && refused.stderr == expected,
            "{refused}"
        );
    }
    ensure!(machine.shell(settings)?.succeeded()?.stdout == before);

    // Doctor and a start report the same about a service that is already set up.
    machine
        .shell(
            "buildbot-conda set conda-root /home/alice/mc3
             install -d -o bb -g bb /home/bb/worker; install -o bb -g bb /dev/null /home/bb/worker/buildbot.tac
             systemctl daemon-reload",
        )?
        .succeeded()?;
    let doctor = machine.run(&["buildbot-conda", "doctor"])?;
    let expected = format!(
        "problem: master, worker: environment: {closed}\n    buildbot-conda set master conda-env \
         /opt/conda/envs/buildbot\n    buildbot-conda set worker conda-env /opt/conda/envs/buildbot\n    systemctl \
         daemon-reload\n"
    );
    ensure!(
        doctor.status == 1 && doctor.stdout.contains(&expected),
        "{doctor}"
    );
    let start = machine.run(&["systemctl", "start", WORKER_UNIT])?;
    let status = machine.unit_property(WORKER_UNIT, "StatusText")?;
    ensure!(start.status != 0 && status.contains(closed), "{status}");
    machine
        .shell(
            "systemctl reset-failed; rm -r /home/bb/worker
             buildbot-conda set conda-root /home/bb/anaconda3; systemctl daemon-reload",
        )?
        .succeeded()?;

    // The first of the ways out.
    let words = [&words[..], &["--user", "alice"]].concat();
    machine.run_within(LIMIT, &words)?.succeeded()?;
    let words = ["buildbot-conda", "remove", "master", "--yes", "--data"];
    machine.run_within(LIMIT, &words)?.succeeded()?;
    machine.shell("umount /home/alice/mc3")?.succeeded()?;
    Ok(())
}
