//! Root executes nothing that the service user can write: every program that is started on a booted machine is seen
//! while the package is upgraded, reconfigured, removed, installed and purged, and its commands are used, on a host
//! where all that the service user owns is a trap. The traps work: they go off when the services start.

use std::collections::BTreeSet;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, PREFIX, Release, WORKER, attack, latest_package, on_each_release,
    set_up,
};
use buildbot_conda_trace::{Event, Exec, Next, Pid, attach};

on_each_release! {
    commands_for_root_run_as_the_service_user,
    root_executes_nothing_that_the_service_user_can_write,
    root_follows_no_link_that_the_service_user_has_made,
}

/// Ends the trace: an argument that nothing else uses.
const END: &str = "end-of-the-trace";

/// Sets the traps. Each writes who has stepped into it, and which it is.
const SET_TRAPS: &str = r#"
cd "$1"
mkdir -m 0777 /traps
: >/traps/log; chmod 0666 /traps/log
shell_trap() { printf 'echo "$(/usr/bin/id -u) %s" >>/traps/log\n' "$1"; }
python_trap() { printf 'import os; open("/traps/log", "a").write("%%d %s\\n" %% os.geteuid())\n' "$1"; }

python=$(readlink -f bin/python)
mv "$python" "$python.real"
{ echo '#!/bin/sh'; shell_trap python; echo "exec '$python.real' \"\$@\""; } >"$python"
mkdir -p etc/conda/activate.d
shell_trap activate.d >etc/conda/activate.d/trap.sh
python_trap sitecustomize >"$(echo lib/python3.*/site-packages)/sitecustomize.py"
# Whoever had the environment's directories on PATH would find these first.
for name in adduser buildbot-conda cat chmod cut dpkg env getent grep ls mkdir mv perl readlink rm sed sh sleep \
    sync systemctl timeout; do
    { echo '#!/bin/sh'; shell_trap "$name"; echo 'PATH=/usr/sbin:/usr/bin:/sbin:/bin'; echo "exec $name \"\$@\""; } \
        >"bin/$name"
done
mkdir -p ../../bin ../../condabin /home/bb/bin
for name in ../../bin/conda ../../condabin/conda ../../bin/python /home/bb/bin/systemctl; do
    { echo '#!/bin/sh'; shell_trap "$name"; } >"$name"
done
chmod 0755 "$python" bin/* ../../bin/* ../../condabin/* /home/bb/bin/*
for name in .profile .bashrc .bash_profile .bash_login; do shell_trap "$name" >"/home/bb/$name"; done
for place in master/buildbot.tac master/master.cfg worker/buildbot.tac; do
    { python_trap "$place"; cat "/home/bb/$place"; } >/traps/new
    cat /traps/new >"/home/bb/$place"
done
# All of it is the service user's, who may change it at any time.
find /home/bb -type d -exec chown bb:bb {} +
chown bb:bb "$python" bin/* etc/conda/activate.d/* lib/python3.*/site-packages/sitecustomize.py
sed -i '/^\[defaults\]/a hardening = "none"' /etc/buildbot-conda/config.toml
systemctl daemon-reload
"#;

/// What has to go off when both services start.
const GOES_OFF: &[&str] = &[
    "activate.d",
    "master/buildbot.tac",
    "master/master.cfg",
    "python",
    "sitecustomize",
    "worker/buildbot.tac",
];

/// Parts of command lines that must occur, so that the trace covers the whole life of a package.
const SEEN: &[&str] = &[
    "buildbot-conda.postinst configure",
    "buildbot-conda.config reconfigure",
    "buildbot-conda.config configure",
    "buildbot-conda.prerm upgrade",
    "buildbot-conda.prerm remove",
    "buildbot-conda.postrm upgrade",
    "buildbot-conda.postrm remove",
    "buildbot-conda.postrm purge",
    "tmp.ci/preinst upgrade",
    "tmp.ci/preinst install",
    "buildbot-conda-generator",
    "buildbot-conda service reload",
    "buildbot-conda service stop",
    "launcher master",
    "launcher worker",
];

/// Every command of an administrator that looks at or handles an instance.
const COMMANDS: &[&str] = &[
    "list",
    "list --json",
    "status master",
    "status worker",
    "check",
    "show master",
    "backup master",
    "upgrade master --dry-run",
    "set master drain 1s",
    "run master -- id -un",
];

/// The endings of their paths start like this.
const INTERPRETERS: &[&str] = &["/bash", "/dash", "/perl", "/python"];

/// A separate process of the machine's systemd, so that the trace sees it, and its complete output.
fn run(machine: &Machine, script: &str) -> Result<String> {
    let output = machine.run_within(
        std::time::Duration::from_mins(5),
        &[
            "systemd-run",
            "--quiet",
            "--wait",
            "--pipe",
            "--collect",
            "--setenv=DEBIAN_FRONTEND=noninteractive",
            "sh",
            "-euc",
            script,
        ],
    )?;
    Ok(output.succeeded()?.stdout)
}

fn trace(machine: &Machine) -> Result<JoinHandle<std::io::Result<Vec<Exec>>>> {
    let first = Pid::from_raw(machine.first_process()?);
    let thread = attach(first, Vec::new(), |execs: &mut Vec<Exec>, event| {
        let Event::Exec(exec) = event else {
            return Next::Continue;
        };
        execs.push(exec.clone());
        if exec.arguments.iter().any(|word| word == END) {
            return Next::Leave;
        }
        Next::Continue
    });
    thread.context("trace a machine")
}

fn root_executes_nothing_that_the_service_user_can_write(release: Release) -> Outcome {
    attack("traps-in-what-the-user-owns", release, || {
        ensure_no_trap_catches_root(release)
    })
}

fn ensure_no_trap_catches_root(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .run(&["sh", "-euc", SET_TRAPS, "sh", PREFIX])?
        .succeeded()?;
    machine.copy_in(&latest_package()?, "/root/package.deb")?;

    let trace = trace(&machine)?;
    run(
        &machine,
        "systemctl enable --now buildbot-master buildbot-worker",
    )?;
    for command in COMMANDS {
        run(&machine, &format!("buildbot-conda {command}"))?;
    }
    run(&machine, "systemctl reload buildbot-master")?;
    run(&machine, "systemctl restart buildbot-worker")?;
    run(&machine, "dpkg --install /root/package.deb")?;
    run(&machine, "dpkg-reconfigure buildbot-conda")?;
    run(&machine, "dpkg --remove buildbot-conda")?;
    run(&machine, "dpkg --install /root/package.deb")?;
    run(&machine, "dpkg --purge buildbot-conda")?;
    run(&machine, "dpkg --install /root/package.deb")?;
    run(
        &machine,
        "dpkg --remove buildbot-conda; dpkg --purge buildbot-conda",
    )?;
    run(&machine, &format!("env {END}=1 sh -c : {END}"))?;
    let execs = trace.join().expect("the tracer does not panic")?;

    let user = machine.run(&["id", "-u", "bb"])?.succeeded()?;
    let log = machine.read_file("/traps/log")?;
    let steps: BTreeSet<(&str, &str)> = log
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    for name in GOES_OFF {
        ensure!(
            steps.contains(&(user.text(), name)),
            "the trap `{name}` does not go off when the services start: {steps:?}"
        );
    }
    let others: Vec<_> = steps
        .iter()
        .filter(|(uid, _)| *uid != user.text())
        .collect();
    ensure!(
        others.is_empty(),
        "traps went off as somebody else: {others:?}"
    );

    let lines: Vec<String> = execs.iter().map(|exec| exec.arguments.join(" ")).collect();
    for piece in SEEN {
        ensure!(
            lines.iter().any(|line| line.contains(piece)),
            "the trace has no `{piece}`: {lines:#?}"
        );
    }
    ensure_only_roots(&machine, &execs)
}

/// Every file that was executed as root, a script's own included, belongs to root with all the directories above it.
fn ensure_only_roots(machine: &Machine, execs: &[Exec]) -> Outcome {
    let mut files = BTreeSet::new();
    for exec in execs.iter().filter(|exec| exec.uid == 0) {
        let program = exec.program.to_string_lossy().into_owned();
        // A script is the first argument of its interpreter that is a path, after one option at most.
        if INTERPRETERS.iter().any(|name| program.contains(name)) {
            let words = exec.arguments.iter().skip(1).take(2);
            files.extend(words.filter(|word| word.starts_with('/')).take(1).cloned());
        }
        files.insert(program);
    }
    ensure!(files.len() > 20, "the trace has hardly anything: {files:?}");
    let script = r#"
for file in "$@"; do
    while :; do
        [ ! -e "$file" ] || stat --dereference --format='%u %A %n' "$file"
        [ "$file" != / ] || break
        file=${file%/*}
        file=${file:-/}
    done
done
"#;
    let mut words = vec!["sh", "-euc", script, "sh"];
    words.extend(files.iter().map(String::as_str));
    let listing = machine.run(&words)?.succeeded()?;
    for line in listing.stdout.lines() {
        let fields: Vec<&str> = line.splitn(3, ' ').collect();
        let [owner, mode, path] = fields[..] else {
            anyhow::bail!("read `{line}`");
        };
        // Others write to the null device and the like, but nobody executes those.
        let mode = mode.as_bytes();
        let is_open = (mode[5] == b'w' || mode[8] == b'w') && mode[9] != b't' && mode[0] != b'c';
        ensure!(
            owner == "0" && !is_open,
            "root has executed `{path}`: {line}"
        );
    }
    Ok(())
}

fn commands_for_root_run_as_the_service_user(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let command =
        "buildbot-conda run master -- sh -c 'id -un; id -Gn; echo $HOME; tty; cat; exit 7'";
    // Without a terminal there is none, not even root's behind the back of the standard streams.
    let piped = machine.shell(&format!("SECRET=x; export SECRET; echo input | {command}"))?;
    ensure!(
        piped.status == 7 && piped.stdout == "bb\nbb\n/home/bb\nnot a tty\ninput\n",
        "{piped}"
    );
    let variables = machine.shell("SECRET=x buildbot-conda run -- env </dev/null")?;
    ensure!(
        variables.status == 0 && !variables.stdout.contains("SECRET"),
        "{variables}"
    );
    // With one, it is another than root's. A pipe that is open on both ends has no end of input, which would be echoed.
    let typed = machine.shell(
        "mkfifo /root/typed; exec 3<>/root/typed
        script -qec 'tty; buildbot-conda run master -- sh -c \"id -un; tty; exit 7\"' /dev/null <&3",
    )?;
    let lines: Vec<&str> = typed.stdout.lines().map(str::trim).collect();
    ensure!(
        typed.status == 7
            && lines.len() == 3
            && lines[1] == "bb"
            && lines[2].starts_with("/dev/pts/")
            && lines[0] != lines[2],
        "{typed}"
    );
    attack("terminal-of-root-under-systemd", release, || {
        ensure_no_terminal_is_reached(&machine)
    })?;
    attack("stopped-command-under-systemd", release, || {
        ensure_a_stopped_command_is_ended(&machine)
    })?;
    let nobody = machine.shell(
        "buildbot-conda set master user nobody-has-this && buildbot-conda run master -- true",
    )?;
    ensure!(
        nobody.status == 1
            && nobody
                .stderr
                .contains("account `nobody-has-this` not found")
            && nobody.stderr.contains("hint: "),
        "{nobody}"
    );
    Ok(())
}

/// Puts a shell script in the place of the environment's Python.
fn set_trick(machine: &Machine, trick: &str) -> Outcome {
    let script =
        "cd \"$1/bin\"; rm -f python; printf '#!/bin/sh\\n%s\\n' \"$2\" >python; chmod 0755 python";
    machine
        .run(&["sh", "-euc", script, "sh", PREFIX, trick])?
        .succeeded()?;
    Ok(())
}

fn ensure_no_terminal_is_reached(machine: &Machine) -> Outcome {
    let log = format!("{MASTER}/log");
    // Reading, writing and typing need it open.
    let trick = format!(
        "exec >>{log} 2>&1; echo begun; ls -l /proc/$$/fd
         for name in /dev/tty /dev/console /dev/pts/[0-9]*; do (: <\"$name\") 2>/dev/null && echo reached $name; done; exit 1"
    );
    set_trick(machine, &trick)?;
    machine.shell(
        "echo secret >/root/secret; exec 7</root/secret
         for words in 'backup master' 'upgrade master' 'doctor'; do
             script -qec \"buildbot-conda $words\" /dev/null </dev/null || :
         done",
    )?;
    let log = machine.read_file(&log)?;
    ensure!(log.matches("begun").count() >= 3, "{log}");
    for taken in ["reached", "/root/secret", "/dev/pts", "/dev/tty"] {
        ensure!(!log.contains(taken), "{taken}: {log}");
    }
    Ok(())
}

fn ensure_a_stopped_command_is_ended(machine: &Machine) -> Outcome {
    let stops = format!("{MASTER}/stops");
    let trick = format!("setsid sleep 1000 & (sleep 1000 &); touch {stops}; kill -STOP $$");
    set_trick(machine, &trick)?;
    for (verb, signal, status) in [("backup master", "INT", 130), ("doctor", "TERM", 143)] {
        let output = machine.shell(&format!(
            "rm -f {stops}
             setsid env --default-signal=INT buildbot-conda {verb} >/dev/null 2>&1 & pid=$!
             for i in $(seq 600); do [ ! -e {stops} ] || break; sleep 0.1; done
             kill -{signal} $pid
             for i in $(seq 300); do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
             kill -KILL $pid 2>/dev/null && echo still there
             wait $pid || echo \"status $?\"
             find /proc -maxdepth 1 -user bb
             systemctl list-units --plain --no-legend 'buildbot-conda-command-*'"
        ))?;
        let said = format!("status {status}\n");
        ensure!(output.stdout == said, "{verb}: {output}");
    }
    Ok(())
}

fn root_follows_no_link_that_the_service_user_has_made(release: Release) -> Outcome {
    attack("links-in-state-and-logs", release, || {
        ensure_no_link_is_followed(release)
    })
}

fn ensure_no_link_is_followed(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    machine.copy_in(&latest_package()?, "/root/package.deb")?;
    let before = fingerprint(&machine)?;
    machine
        .shell("systemctl start buildbot-master buildbot-worker; buildbot-conda backup master")?
        .succeeded()?;
    // As the service user, in all the places that are theirs.
    machine
        .run_as(
            "bb",
            &[
                "sh",
                "-euc",
                &format!(
                    "cd /var/lib/buildbot-conda/instances/master
                     rm -rf ./*
                     ln -s /etc backups; ln -s /root root; ln -s /etc/shadow last-version
                     cd /var/lib/buildbot-conda/backups/master
                     for name in *; do ln -sf /etc/shadow $name; done; ln -s /etc etc
                     cd /run/buildbot-conda/master
                     ln -sf /etc/shadow status.json
                     cd /run/buildbot-conda/worker
                     rm -f status.json; mkfifo status.json
                     ln -sf /etc/shadow {MASTER}/twistd.log
                     ln -sf /etc/shadow {WORKER}/twistd.log"
                ),
            ],
        )?
        .succeeded()?;

    for command in [
        "list",
        "list --json",
        "status master",
        "status worker",
        "show master",
    ] {
        let output = machine.shell(&format!("timeout 20 buildbot-conda {command}"))?;
        ensure!(
            output.status != 124,
            "`{command}` waits for the service user"
        );
        ensure!(
            !output.to_string().contains("root:"),
            "`{command}` shows what only root may read: {output}"
        );
    }
    // It runs as the service user, who may fail, and cannot do more.
    machine
        .shell("timeout 60 buildbot-conda backup master || [ $? -ne 124 ]")?
        .succeeded()?;
    for step in [
        "install /root/package.deb",
        "remove buildbot-conda",
        "purge buildbot-conda",
    ] {
        machine
            .run(&["sh", "-euc", &format!("dpkg --{step}")])?
            .succeeded()?;
    }

    let after = fingerprint(&machine)?;
    ensure!(
        before == after,
        "something else has changed:\n{before}\n{after}"
    );
    Ok(())
}

/// Everything in the directories that the links lead to, but for what the package itself has there.
fn fingerprint(machine: &Machine) -> Result<String> {
    let script = "find /etc /root -path '/etc/*buildbot*' -prune -o -path /etc/needrestart -prune -o \
                  -path '/etc/systemd/system/multi-user.target.wants' -prune -o \
                  -printf '%p %y %m %U:%G %l\\n' -type f -exec sha256sum {} + | sort";
    Ok(machine.shell(script)?.succeeded()?.stdout)
}
