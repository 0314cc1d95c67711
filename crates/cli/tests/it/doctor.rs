//! `doctor` below a root directory, where it examines only files: exact output and exit status, refusals, and suggested
//! commands. Everything that needs a running system is tested on booted machines.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use expect_test::{Expect, expect};

use crate::house::{Host, Said};

const CONFIGURATION: &str = "\
[defaults]
conda-root = \"/opt/conda\"

[master]
directory = \"/srv/master\"
credentials = { door = \"door\" }

[\"worker@gpu\"]
directory = \"/srv/worker\"
user = \"builder\"
";

/// A host as the package and an administrator leave it, whose root is the account that runs the test.
fn host() -> Host {
    let host = Host::configured(CONFIGURATION);
    let uid = rustix::process::geteuid().as_raw();
    write(
        &host,
        "etc/buildbot-conda/credentials/door",
        "secret",
        0o600,
    );
    host.set_mode("etc/buildbot-conda/credentials", 0o700);
    let accounts = format!("bb:x:{uid}:1::/srv:/bin/sh\nbuilder:x:{uid}:1::/srv:/bin/sh\n");
    host.write("etc/passwd", &accounts);
    for name in ["master", "master@", "worker", "worker@"] {
        let unit = format!("usr/lib/systemd/system/buildbot-{name}.service");
        host.write(
            &unit,
            "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher\n",
        );
    }
    for program in [
        "usr/bin/buildbot-conda",
        "usr/libexec/buildbot-conda/launcher",
        "usr/lib/systemd/system-generators/buildbot-conda-generator",
        "opt/conda/bin/conda",
    ] {
        write(&host, program, "", 0o755);
    }
    host.write("usr/libexec/buildbot-conda/runner.py", "");
    write(&host, "srv/master/buildbot.tac", "", 0o600);
    write(&host, "srv/worker/buildbot.tac", "", 0o600);
    for program in ["python", "buildbot", "buildbot-worker"] {
        let program = format!("opt/conda/envs/buildbot/bin/{program}");
        write(&host, &program, "", 0o755);
    }
    let record = r#"{"name":"x","version":"1","files":["bin/python"]}"#;
    host.write("opt/conda/envs/buildbot/conda-meta/x-1.json", record);
    host
}

fn write(host: &Host, path: &str, text: &str, mode: u32) {
    host.write(path, text);
    host.set_mode(path, mode);
}

/// Runs `doctor`, and has `ROOT` for the root directory, so that commands can be carried out as they are printed.
fn run(host: &Host, words: &[&str]) -> Said {
    host.said_with(host.command().arg("doctor").args(words), "ROOT")
}

/// Every finding but the room on the file system, which is that of the test's own machine.
fn examine(host: &Host, words: &[&str]) -> String {
    let said = run(host, words);
    assert_eq!(said.stderr, "");
    let text: Vec<&str> = said
        .stdout
        .lines()
        .filter(|line| !line.contains(": space: "))
        .collect();
    format!("{}\n{}\n", said.status.unwrap(), text.join("\n"))
}

/// Runs the commands of a report as they are printed.
fn carry_out(host: &Host, words: &[&str]) {
    let said = run(host, words);
    let commands = said
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("    "));
    for command in commands.filter(|line| !line.starts_with("hint: ")) {
        let command = command.replace("ROOT", &host.root());
        let mut shell = Command::new("sh");
        let status = host
            .prepared(shell.args(["-euc", &command]))
            .status()
            .unwrap();
        assert!(status.success(), "{command}");
    }
}

fn check(report: &str, expect: &Expect) {
    expect.assert_eq(report);
}

#[test]
fn a_good_host_is_said_to_be_good_and_what_was_not_looked_at_is_told() {
    check(
        &examine(&host(), &["--all"]),
        &expect![[r#"
            0
            unseen: clock: not checked for another machine
            unseen: system: not checked for another machine
            unseen: master: ownership: only root and `bb` can check this
            unseen: master: python: Python in the environment was not run
            unseen: master: bytecode: Python in the environment was not run
            unseen: master: checkconfig: Buildbot was not run
            unseen: master: sandbox: Buildbot was not run
            unseen: master: database: Buildbot was not run
            unseen: master: ports: Buildbot was not run
            unseen: worker@gpu: ownership: only root and `builder` can check this
            unseen: worker@gpu: python: Python in the environment was not run
            unseen: worker@gpu: bytecode: Python in the environment was not run
            unseen: worker@gpu: tac: `buildbot.tac` was not run
            unseen: worker@gpu: allow-shutdown: `buildbot.tac` was not run
            unseen: worker@gpu: connection: the address of its master could not be determined
            unseen: master: unit-enabled: systemd is not running
            unseen: master: unit-state: systemd is not running
            unseen: worker@gpu: unit-enabled: systemd is not running
            unseen: worker@gpu: unit-state: systemd is not running
            ok: configuration: `ROOT/etc/buildbot-conda/config.toml` is valid
            ok: master: account: `bb` exists
            ok: worker@gpu: account: `builder` exists
            ok: worker@gpu: shared-account: no other instance runs as `builder`
            ok: package: all files exist
            ok: needrestart: needrestart is not installed
            ok: boot-target: `graphical.target` without a desktop
            ok: unfinished: no command was interrupted
            ok: unit-configured: every unit that is enabled has a table in the configuration
            ok: master: credentials: 1 configured, only root can read them
            ok: master: unit-file: `buildbot-master.service` is the unit of the package
            ok: master: unit-masked: `buildbot-master.service` is not masked
            ok: master: unit-drop-ins: only the generated one
            ok: master: directory: `ROOT/srv/master` is set up
            ok: master: secrets: no file with secrets is world-readable
            ok: master: pid-file: no PID file
            ok: master: environment: `/opt/conda/envs/buildbot` contains Python and Buildbot
            ok: master: packages: all 1 are unchanged
            ok: worker@gpu: credentials: none configured
            ok: worker@gpu: unit-file: `buildbot-worker@gpu.service` is the unit of the package
            ok: worker@gpu: unit-masked: `buildbot-worker@gpu.service` is not masked
            ok: worker@gpu: unit-drop-ins: only the generated one
            ok: worker@gpu: directory: `ROOT/srv/worker` is set up
            ok: worker@gpu: secrets: no file with secrets is world-readable
            ok: worker@gpu: pid-file: no PID file
            ok: worker@gpu: environment: `/opt/conda/envs/buildbot` contains Python and Buildbot
            ok: worker@gpu: packages: all 1 are unchanged
            no problems, no warnings, 28 in order, 19 not checked
        "#]],
    );
}

#[test]
fn each_fault_has_its_command_and_the_command_mends_it() {
    let host = host();
    host.set_mode("etc/buildbot-conda/credentials", 0o755);
    host.set_mode("etc/buildbot-conda/credentials/door", 0o640);
    host.set_mode("usr/libexec/buildbot-conda/launcher", 0o644);
    host.set_mode("srv/worker/buildbot.tac", 0o644);
    write(&host, "srv/master/twistd.pid", "4194000\n", 0o644);
    fs::create_dir_all(host.path("etc/systemd/system")).unwrap();
    symlink(
        "/dev/null",
        host.path("etc/systemd/system/buildbot-master.service"),
    )
    .unwrap();
    let drop_in = "etc/systemd/system/buildbot-worker@.service.d/a b.conf";
    write(&host, drop_in, "[Service]\nType=simple\nUser=x\n", 0o644);
    let words = [
        "--only",
        "credentials",
        "--only",
        "package",
        "--only",
        "secrets",
        "--only",
        "pid-file",
    ];
    let words = [
        &words[..],
        &["--only", "unit-masked", "--only", "unit-drop-ins"],
    ]
    .concat();
    check(
        &examine(&host, &words),
        &expect![[r#"
        1
        problem: package: `ROOT/usr/libexec/buildbot-conda/launcher` has mode 0644, not 0755
            chmod 0755 ROOT/usr/libexec/buildbot-conda/launcher
        problem: credentials: `ROOT/etc/buildbot-conda/credentials` is accessible to accounts other than root (mode 0755)
            chmod 0700 ROOT/etc/buildbot-conda/credentials
        problem: master: credentials: `ROOT/etc/buildbot-conda/credentials/door` is accessible to accounts other than root (mode 0640)
            chmod 0600 ROOT/etc/buildbot-conda/credentials/door
        problem: master: unit-masked: `buildbot-master.service` is masked and cannot be started
            rm ROOT/etc/systemd/system/buildbot-master.service
        problem: worker@gpu: unit-drop-ins: `ROOT/etc/systemd/system/buildbot-worker@.service.d/a b.conf` changes `Type`, `User`, which the service needs
            mv --no-clobber 'ROOT/etc/systemd/system/buildbot-worker@.service.d/a b.conf' 'ROOT/etc/systemd/system/buildbot-worker@.service.d/a b.conf.off'
        problem: worker@gpu: secrets: everybody on this host can read `ROOT/srv/worker/buildbot.tac`
            chmod o= ROOT/srv/worker/buildbot.tac
        warning: master: pid-file: `ROOT/srv/master/twistd.pid` names process 4194000, which does not exist: Buildbot's own commands consider it a running Buildbot
            rm ROOT/srv/master/twistd.pid
        6 problems, 1 warning, 4 in order
    "#]],
    );
    carry_out(&host, &words);
    check(
        &examine(&host, &words),
        &expect![[r#"
        0
        no problems, no warnings, 11 in order
    "#]],
    );
    assert!(host.path(&format!("{drop_in}.off")).exists());
}

#[test]
fn what_no_command_mends_is_said_in_words() {
    let host = host();
    fs::remove_file(host.path("etc/buildbot-conda/credentials/door")).unwrap();
    fs::remove_file(host.path("srv/worker/buildbot.tac")).unwrap();
    write(&host, "srv/worker/something", "", 0o644);
    write(
        &host,
        "etc/buildbot-conda/config.toml",
        &format!("{CONFIGURATION}[worker]\nhaste = true\n"),
        0o644,
    );
    let words = [
        "--only",
        "credentials",
        "--only",
        "directory",
        "--only",
        "configuration",
    ];
    check(
        &examine(&host, &words),
        &expect![[r#"
        1
        problem: worker: configuration: ROOT/etc/buildbot-conda/config.toml:12:1: worker.haste: unknown key
            hint: correct the configuration; then `systemctl daemon-reload`
        problem: master: credentials: file `ROOT/etc/buildbot-conda/credentials/door` of the credential `door` not found
            hint: create it as root: `install -m 0600 /dev/stdin ROOT/etc/buildbot-conda/credentials/door`, or remove `door` from `credentials`
        problem: worker@gpu: directory: `ROOT/srv/worker` has no `buildbot.tac`, so a start is refused (status 78)
            hint: `runuser -u builder -- /opt/conda/envs/buildbot/bin/buildbot-worker create-worker --allow-shutdown=signal --keepalive=60 ROOT/srv/worker HOST:PORT NAME PASSWORD` creates one
        3 problems, no warnings, 2 in order
    "#]],
    );
}

#[test]
fn an_environment_is_examined_as_files() {
    let host = host();
    let only = ["master", "--only", "environment", "--only", "packages"];
    let prefix = host.path("opt/conda/envs/buildbot");
    fs::remove_file(prefix.join("bin/buildbot")).unwrap();
    check(
        &examine(&host, &only),
        &expect![[r#"
            1
            problem: master: environment: `/opt/conda/envs/buildbot` contains no `buildbot`
                chroot ROOT/ /opt/conda/bin/conda install --yes --prefix /opt/conda/envs/buildbot --channel conda-forge buildbot buildbot-www buildbot-worker msgpack-python autobahn
            1 problem, no warnings, 0 in order
        "#]],
    );
    fs::remove_file(prefix.join("bin/python")).unwrap();
    check(
        &examine(&host, &only),
        &expect![[r#"
            1
            problem: master: environment: `/opt/conda/envs/buildbot` contains no Python
                chroot ROOT/ /opt/conda/bin/conda install --yes --prefix /opt/conda/envs/buildbot --channel conda-forge python buildbot buildbot-www buildbot-worker msgpack-python autobahn
            1 problem, no warnings, 0 in order
        "#]],
    );
    write(
        &host,
        "opt/conda/envs/buildbot/conda-meta/state",
        "{",
        0o644,
    );
    check(
        &examine(&host, &only),
        &expect![[r#"
        1
        problem: master: environment: `/opt/conda/envs/buildbot` cannot be activated: read `ROOT/opt/conda/envs/buildbot/conda-meta/state`: EOF while parsing an object at line 1 column 1
            hint: conda itself cannot activate this environment; correct the file, or remove it and set the variables again with `conda env config vars set`
        1 problem, no warnings, 0 in order
    "#]],
    );
    fs::remove_dir_all(prefix.join("conda-meta")).unwrap();
    check(
        &examine(&host, &only),
        &expect![[r#"
            1
            problem: master: environment: `/opt/conda/envs/buildbot` contains no `conda-meta`, so it is not an environment
                hint: set `conda-root` and `conda-env` to the environment, or move the existing files away
            1 problem, no warnings, 0 in order
        "#]],
    );
    fs::remove_dir_all(&prefix).unwrap();
    fs::remove_file(host.path("opt/conda/bin/conda")).unwrap();
    check(
        &examine(&host, &only),
        &expect![[r#"
            1
            problem: master: environment: environment `/opt/conda/envs/buildbot` not found
                chroot ROOT/ apt-get install buildbot-conda-env
                buildbot-conda --root ROOT/ env create buildbot
                buildbot-conda --root ROOT/ set master conda-env /var/lib/buildbot-conda/envs/buildbot/current
                buildbot-conda --root ROOT/ set worker@gpu conda-env /var/lib/buildbot-conda/envs/buildbot/current
                hint: or set `conda-root` and `conda-env` to an existing one
            1 problem, no warnings, 0 in order
        "#]],
    );
    write(&host, "opt/conda/bin/conda", "", 0o755);
    check(
        &examine(&host, &only),
        &expect![[r#"
            1
            problem: master: environment: environment `/opt/conda/envs/buildbot` not found
                chroot ROOT/ /opt/conda/bin/conda create --yes --prefix /opt/conda/envs/buildbot --channel conda-forge python buildbot buildbot-www buildbot-worker msgpack-python autobahn
                hint: or set `conda-root` and `conda-env` to its location
            1 problem, no warnings, 0 in order
        "#]],
    );
}

/// Without any conda: every command that is printed, one after the other, leads to a host without problems.
#[test]
fn all_commands_for_a_host_without_an_environment_lead_to_one() {
    const BUILDER: &str = "#!/bin/sh -eu\n\
        while test $# -gt 0; do case $1 in --directory) at=$2/111111111111 ;; esac; shift; done\n\
        mkdir -p $at/conda-meta $at/bin; echo @EXPLICIT >$at/conda-meta/buildbot-conda.lock\n\
        for name in python buildbot buildbot-worker; do install -m 0755 /dev/null $at/bin/$name; done\n\
        echo '{\"generation\":\"111111111111\",\"made\":true,\"packages\":[],\"warnings\":[]}'\n";
    let host = host();
    fs::remove_dir_all(host.path("opt/conda")).unwrap();
    host.add_binary();
    let only = ["--only", "environment"];
    let set = "buildbot-conda --root ROOT/ set";
    let managed = "/var/lib/buildbot-conda/envs/buildbot/current";
    let problem = "1\nproblem: master, worker@gpu: environment: environment `/opt/conda/envs/buildbot` not found\n";
    let hint = "    hint: or set `conda-root` and `conda-env` to an existing one\n1 problem, no warnings, 0 in order\n";
    let report = examine(&host, &only);
    let make = format!(
        "    chroot ROOT/ apt-get install buildbot-conda-env\n    buildbot-conda --root ROOT/ env create buildbot\n    \
         {set} master conda-env {managed}\n    {set} worker@gpu conda-env {managed}\n"
    );
    assert_eq!(report, format!("{problem}{make}{hint}"));
    host.create_directory("usr/libexec/buildbot-conda");
    crate::house::write_program(&host.path("usr/libexec/buildbot-conda/env"), BUILDER);
    carry_out(&host, &only);
    assert_eq!(
        examine(&host, &only),
        "0\nno problems, no warnings, 2 in order\n"
    );

    // An existing one that everyone can read is better than a new one.
    host.write("etc/buildbot-conda/config.toml", CONFIGURATION);
    fs::remove_dir_all(host.path("var/lib/buildbot-conda/envs")).unwrap();
    for file in [
        "conda-meta/history",
        "bin/python",
        "bin/buildbot",
        "bin/buildbot-worker",
    ] {
        write(&host, &format!("opt/miniforge3/{file}"), "", 0o755);
    }
    let report = examine(&host, &only);
    let there = format!(
        "    {set} master conda-env /opt/miniforge3\n    {set} worker@gpu conda-env /opt/miniforge3\n"
    );
    assert_eq!(report, format!("{problem}{there}{hint}"));
    carry_out(&host, &only);
    assert_eq!(
        examine(&host, &only),
        "0\nno problems, no warnings, 2 in order\n"
    );
}

#[test]
fn nothing_follows_from_a_configuration_that_cannot_be_read() {
    let host = host();
    for name in ["master", "worker@gpu"] {
        let link = format!("etc/systemd/system/multi-user.target.wants/buildbot-{name}.service");
        write(&host, &link, "", 0o644);
    }
    for text in [
        CONFIGURATION.replace("[master]", "[master"),
        CONFIGURATION.replace("[master]", "[mastr]"),
        CONFIGURATION.replace("conda-root", "conda_root"),
    ] {
        write(&host, "etc/buildbot-conda/config.toml", &text, 0o644);
        for reference in [&[][..], &["master"]] {
            let words = [
                reference,
                &["--only", "configuration,unit-configured", "--all"],
            ]
            .concat();
            let said = run(&host, &words);
            assert_eq!((said.status, said.stderr.as_str()), (Some(1), ""), "{said}");
            assert!(!said.stdout.contains("systemctl disable"), "{said}");
            let unseen =
                "unseen: unit-configured: the instances cannot be read from the configuration\n";
            // The table of `worker@gpu` is seen where others are not.
            assert!(
                said.stdout.contains(unseen) || text.contains("conda_root"),
                "{said}"
            );
        }
    }
}

#[test]
fn units_are_examined_as_files() {
    let host = host();
    write(
        &host,
        "etc/systemd/system/buildbot-master.service",
        "[Service]\nExecStart=/bin/x\n",
        0o644,
    );
    let copy = "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher worker %i\n";
    write(
        &host,
        "etc/systemd/system/buildbot-worker@.service",
        copy,
        0o644,
    );
    write(
        &host,
        "etc/systemd/system/multi-user.target.wants/buildbot-worker@ghost.service",
        "",
        0o644,
    );
    write(
        &host,
        "etc/systemd/system/display-manager.service",
        "",
        0o644,
    );
    write(&host, "usr/sbin/needrestart", "", 0o755);
    fs::create_dir_all(host.path("etc/needrestart/conf.d")).unwrap();
    let only = [
        "--only",
        "unit-file",
        "--only",
        "unit-configured",
        "--only",
        "boot-target",
        "--only",
        "needrestart",
    ];
    check(
        &examine(&host, &only),
        &expect![[r#"
            1
            problem: unit-configured: `buildbot-worker@ghost.service` starts at boot, but the configuration has no table `worker@ghost`: it fails with status 78
                chroot ROOT/ systemctl disable buildbot-worker@ghost.service
            problem: master: unit-file: `ROOT/etc/systemd/system/buildbot-master.service` overrides the package's unit, so the configuration has no effect
                chroot ROOT/ buildbot-conda adopt master
            warning: needrestart: needrestart is installed and `ROOT/etc/needrestart/conf.d/buildbot-conda.conf` does not exclude workers: an upgrade of a library restarts them and interrupts their builds
                sh -c 'printf '\''%s\n'\'' "$@" >"$0"' ROOT/etc/needrestart/conf.d/buildbot-conda.conf '$nrconf{override_rc}{qr(^buildbot-worker[.\@])} = 0;'
            warning: boot-target: the machine boots to a desktop, which uses memory and may suspend an idle machine
                chroot ROOT/ buildbot-conda headless on
            warning: worker@gpu: unit-file: `ROOT/etc/systemd/system/buildbot-worker@.service` replaces the package's unit, so changes of that unit in upgrades have no effect
                mv --no-clobber ROOT/etc/systemd/system/buildbot-worker@.service ROOT/etc/systemd/system/buildbot-worker@.service.off
                hint: make changes in a drop-in instead: `systemctl edit buildbot-worker@gpu.service`
            2 problems, 3 warnings, 0 in order
        "#]],
    );
    let mend = ["--only", "needrestart"];
    carry_out(&host, &mend);
    check(
        &examine(&host, &mend),
        &expect![[r#"
        0
        no problems, no warnings, 1 in order
    "#]],
    );
}

#[test]
fn one_account_for_master_and_worker_is_a_warning_with_the_way_out() {
    let host = host();
    let shared = CONFIGURATION.replace("user = \"builder\"\n", "");
    write(&host, "etc/buildbot-conda/config.toml", &shared, 0o644);
    check(
        &examine(&host, &["--only", "shared-account"]),
        &expect![[r#"
            0
            warning: worker@gpu: shared-account: it runs as `bb`, and so does `master`: every build can read and change that master's configuration, secrets and database
                chroot ROOT/ adduser --quiet --system --group --home /home/bb-worker-gpu --shell /bin/bash --gecos Buildbot bb-worker-gpu
                chroot ROOT/ chown --recursive --no-dereference bb-worker-gpu: /srv/worker
                chroot ROOT/ buildbot-conda set worker@gpu user bb-worker-gpu
            no problems, 1 warning, 0 in order
        "#]],
    );
}

#[test]
fn safe_commands_are_shown_and_done() {
    let host = host();
    host.set_mode("etc/buildbot-conda/credentials/door", 0o644);
    write(&host, "srv/master/twistd.pid", "4194000\n", 0o644);
    let only = ["--only", "credentials", "--only", "pid-file", "--fix"];
    let shown = run(&host, &[&only[..], &["--dry-run"]].concat());
    assert_eq!(shown.status, Some(1));
    let report = format!("{}{}", shown.stdout, shown.stderr);
    check(
        &report,
        &expect![[r#"
            chmod 0600 ROOT/etc/buildbot-conda/credentials/door
        "#]],
    );
    assert_eq!(host.mode("etc/buildbot-conda/credentials/door"), 0o644);
    let done = run(&host, &only);
    assert_eq!(done.status, Some(0));
    check(
        &format!("{}{}", done.stderr, done.stdout),
        &expect![[r#"
        chmod 0600 ROOT/etc/buildbot-conda/credentials/door
        warning: master: pid-file: `ROOT/srv/master/twistd.pid` names process 4194000, which does not exist: Buildbot's own commands consider it a running Buildbot
            rm ROOT/srv/master/twistd.pid
        no problems, 1 warning, 3 in order
    "#]],
    );
    assert_eq!(host.mode("etc/buildbot-conda/credentials/door"), 0o600);
    let nothing = run(&host, &only);
    check(
        &format!("{}{}", nothing.stderr, nothing.stdout),
        &expect![[r#"
            no problem can be fixed automatically
            warning: master: pid-file: `ROOT/srv/master/twistd.pid` names process 4194000, which does not exist: Buildbot's own commands consider it a running Buildbot
                rm ROOT/srv/master/twistd.pid
            no problems, 1 warning, 3 in order
        "#]],
    );
}

#[test]
fn json_has_every_finding_with_its_commands() {
    let host = host();
    host.set_mode("etc/buildbot-conda/credentials/door", 0o644);
    let said = run(
        &host,
        &[
            "master",
            "--json",
            "--only",
            "credentials",
            "--only",
            "account",
        ],
    );
    assert_eq!(said.status, Some(1));
    check(
        &said.stdout,
        &expect![[r#"
            {
              "version": 1,
              "problems": 1,
              "warnings": 0,
              "findings": [
                {
                  "check": "credentials",
                  "instance": "master",
                  "instances": [
                    "master"
                  ],
                  "severity": "problem",
                  "seen": "`ROOT/etc/buildbot-conda/credentials/door` is accessible to accounts other than root (mode 0644)",
                  "mending": {
                    "commands": [
                      "chmod 0600 ROOT/etc/buildbot-conda/credentials/door"
                    ],
                    "words": null,
                    "safe": true
                  }
                },
                {
                  "check": "account",
                  "instance": "master",
                  "instances": [
                    "master"
                  ],
                  "severity": "ok",
                  "seen": "`bb` exists",
                  "mending": null
                }
              ]
            }
        "#]],
    );
}

#[test]
fn refusals_say_what_to_do() {
    let host = host();
    let unknown = run(&host, &["worker"]);
    assert_eq!(unknown.status, Some(1));
    check(
        &unknown.stderr,
        &expect![[r#"
        error: instance `worker` not found in `ROOT/etc/buildbot-conda/config.toml`
        hint: `buildbot-conda list` shows all instances
    "#]],
    );
    for words in [
        &["builder"][..],
        &["--only", "everything"],
        &["--dry-run"],
        &["--fix", "--json"],
        &["--inside"],
    ] {
        assert_eq!(run(&host, words).status, Some(2), "{words:?}");
    }
    fs::remove_file(host.path("etc/buildbot-conda/config.toml")).unwrap();
    let missing = run(&host, &["--only", "configuration"]);
    assert_eq!((missing.status, missing.stderr.as_str()), (Some(1), ""));
    check(
        &missing.stdout,
        &expect![[r#"
        problem: configuration: configuration `ROOT/etc/buildbot-conda/config.toml` not found
            install -m 0644 ROOT/usr/share/buildbot-conda/config.toml ROOT/etc/buildbot-conda/config.toml
            hint: or `dpkg-reconfigure buildbot-conda`, which asks again
        1 problem, no warnings, 0 in order
    "#]],
    );
}

/// Below no root directory, with a `systemctl` of the test's own.
#[test]
fn an_old_systemd_and_a_desktop_are_named() {
    let host = Host::empty();
    let systemctl = "#!/bin/sh\ncase $1 in\n--version) echo 'systemd 240 (240)' ;;\n\
                     get-default) echo graphical.target ;;\n\
                     show) printf 'Id=display-manager.service\\nLoadState=loaded\\n' ;;\nesac\n";
    host.add_program("systemctl", systemctl);
    let words = ["doctor", "--only", "system", "--only", "boot-target"];
    let Said { status, stdout, .. } = host.said(host.command_without_root().args(words));
    assert_eq!(status, Some(1));
    for line in [
        "problem: system: systemd 240 is too old, the units need 247\n",
        "    hint: upgrade to Debian 12 or later\n",
        "warning: boot-target: the machine boots to a desktop, which uses memory and may \
         suspend an idle machine\n    buildbot-conda headless on\n",
    ] {
        assert!(stdout.contains(line), "{stdout}");
    }
}

/// An environment of 6,000 files takes some time to examine; 200 times that would be minutes.
#[test]
fn what_two_hundred_run_from_is_looked_at_once_and_told_of_each() {
    let host = host();
    let table =
        |number| format!("[\"worker@{number}\"]\ndirectory = \"/srv/{number}\"\nuser = \"bb\"\n");
    let tables: Vec<String> = (0..200).map(table).collect();
    let text = CONFIGURATION.to_owned() + &tables.concat();
    for number in 0..200 {
        write(&host, &format!("srv/{number}/buildbot.tac"), "", 0o600);
    }
    host.write("etc/buildbot-conda/config.toml", &text);
    let environment = "opt/conda/envs/buildbot";
    for package in 0..60 {
        let files: Vec<String> = (0..100)
            .map(|file| format!("\"lib/{package}/{file}\""))
            .collect();
        let name = format!("{environment}/conda-meta/p{package}-1.json");
        let files = files.join(",");
        let record = format!(r#"{{"name":"p{package}","version":"1","files":[{files}]}}"#);
        host.write(&name, &record);
        for file in 0..100 {
            host.write(&format!("{environment}/lib/{package}/{file}"), "");
        }
    }
    fs::remove_file(host.path(&format!("{environment}/lib/7/7"))).unwrap();
    // Seconds of a processor; looked at by each, it is twice as many.
    let script = r#"ulimit -t 3; exec "$BINARY" --root "$ROOT" doctor --only packages --only directory --json"#;
    let mut shell = Command::new("sh");
    let said = host.said_with(host.prepared(shell.args(["-euc", script])), "ROOT");
    assert_eq!(said.status, Some(1), "{said}");
    for name in ["master", "worker@gpu", "worker@0", "worker@199"] {
        assert!(
            said.stdout.contains(&format!("\"{name}\"")),
            "{name}: {said}"
        );
    }
    assert_eq!(
        said.stdout.matches("p7 1 (1 files missing").count(),
        1,
        "{said}"
    );
}
