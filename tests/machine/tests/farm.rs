//! Workers of other hosts: invited by one line, joined by one command, closed again. Only machines with a network between
//! them can show that.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    LATER, MASTER_UNIT, Machine, Network, Outcome, Output, Release, Rest, SOON, WORKER_UNIT, fault,
    installed_with, on_each_release,
};
use buildbot_conda_trace::{Event, Next, Pid, attach};

on_each_release! { workers_of_other_hosts_join_by_one_line_and_are_revoked }

/// The line of the worker that is looked at.
const LINE: &str = "/root/line";

fn call(machine: &Machine, words: &[&str]) -> anyhow::Result<Output> {
    machine.run_within(LATER, &[&["buildbot-conda"], words].concat())
}

/// The line of an invitation.
fn invite(machine: &Machine, words: &[&str]) -> anyhow::Result<String> {
    let output = call(machine, &[&["invite"], words].concat())?.succeeded()?;
    let line = output.text().to_owned();
    ensure!(
        line.starts_with("bbworker://") && line.lines().count() == 1,
        "{output}"
    );
    Ok(line)
}

fn join(machine: &Machine, line: &str) -> anyhow::Result<Output> {
    machine.write_file(LINE, line, "0600", "root")?;
    call(machine, &["join", "--file", LINE])
}

/// Joins by a line that the host of the master is asked for. In the place of ssh is what hears the question: between
/// machines of a test there is no ssh.
fn join_by_ssh(machine: &Machine, line: &str) -> Outcome {
    machine.write_file(LINE, line, "0600", "root")?;
    let ssh = format!(
        "#!/bin/sh\n[ \"$1 $2 $3\" = '-T -- a' ] || exit 2\n\
         case \"$4\" in *'exec sudo buildbot-conda invite cpu;'*) cat {LINE};; *) exit 3;; esac\n"
    );
    machine.write_file("/usr/bin/ssh", &ssh, "0755", "root")?;
    let words = ["join", "--via", "ssh://a", "--worker-name", "cpu"];
    call(machine, &words)?.succeeded()?;
    Ok(())
}

/// How long builds go over a slow link.
const SLOW: Duration = Duration::from_secs(40);

/// Ends a trace: an argument that nothing else uses.
const END: &str = "end-of-the-trace";

/// Joins, and gives the arguments of every program that is started meanwhile.
fn join_and_see_arguments(machine: &Machine, line: &str) -> anyhow::Result<Vec<String>> {
    machine.write_file(LINE, line, "0600", "root")?;
    let first = Pid::from_raw(machine.first_process()?);
    let seen = |arguments: &mut Vec<String>, event: &Event| {
        let Event::Exec(exec) = event else {
            return Next::Continue;
        };
        arguments.push(exec.arguments.join(" "));
        if exec.arguments.iter().any(|word| word == END) {
            Next::Leave
        } else {
            Next::Continue
        }
    };
    let trace = attach(first, Vec::new(), seen).context("trace a machine")?;
    // A process of the machine's own systemd, which the trace sees.
    let script = format!(
        "buildbot-conda join --file {LINE} && status=0 || status=$?; env {END}=1 sh -c : {END}; exit $status"
    );
    let words = [
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "sh",
        "-uc",
        &script,
    ];
    let joined = machine.run_within(LATER, &words)?;
    let arguments = trace.join().expect("the tracer does not panic")?;
    joined.succeeded()?;
    Ok(arguments)
}

/// Lets a host pose as the master for another one, with its own certificate for the master's name. What it receives is
/// in a file.
fn pose_as_master(machine: &Machine) -> Outcome {
    let script = "cd /root; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=a \
                  -addext subjectAltName=DNS:a,DNS:a.example -days 9 -keyout key -out pem 2>/dev/null; \
                  sleep 900 | openssl s_server -quiet -accept 9989 -key key -cert pem >heard 2>&1";
    let words = ["systemd-run", "--unit=stranger", "sh", "-euc", script];
    machine.run(&words)?.succeeded()?;
    machine.wait_until("the stranger listens", SOON, || {
        let script =
            "timeout 5 openssl s_client -connect 127.0.0.1:9989 </dev/null >/dev/null 2>&1";
        Ok((machine.shell(script)?.status == 0).then_some(()))
    })
}

/// Makes a host use another address for the master.
fn lead_astray(machine: &Machine, from: &str, to: &str) -> Outcome {
    let script =
        format!("sed 's/^{from} a /{to} a /' /etc/hosts >/root/hosts; cat /root/hosts >/etc/hosts");
    machine.shell(&script)?.succeeded()?;
    Ok(())
}

/// Builds `hello` with the one worker that is attached.
fn build(rest: Rest<'_>) -> Outcome {
    let built = rest.wait_for_build(rest.force("hello", &[])?, LATER)?;
    ensure!(built.results == 0, "{built:?}");
    Ok(())
}

/// Joins a host that is led astray, which gets no worker.
fn join_in_vain(b: &Machine, line: &str) -> Outcome {
    let fooled = join(b, line)?;
    ensure!(
        fooled.status != 0 && fooled.stderr.contains("another authority"),
        "{fooled}"
    );
    let left = b.run(&["test", "-e", "/home/bb/worker"])?;
    ensure!(left.status != 0, "nothing is left of it");
    Ok(())
}

/// What a stranger has of a line that was used, of another authority's, of an expired one and of one that is revoked.
fn refuse_strangers(a: &Machine, c: &Machine, line: &str) -> Outcome {
    let again = join(c, line)?;
    ensure!(again.status != 0, "the line was used: {again}");
    let left = c.run(&["test", "-e", "/home/bb/worker"])?;
    ensure!(left.status != 0, "a refused worker leaves nothing");
    let other = line.replace(&line[line.len() - 60..line.len() - 50], "0123456789");
    let other = join(c, &other)?;
    ensure!(
        other.status != 0 && other.stderr.contains("another authority"),
        "{other}"
    );
    let expired = line.split("until=").next().unwrap_or_default().to_owned() + "until=1000000000";
    let expired = join(c, &expired)?;
    ensure!(
        expired.status != 0 && expired.stderr.contains(" expired "),
        "{expired}"
    );
    // Without a line, the authorities of the host count, to which that of the master does not belong.
    c.write_file(LINE, "any-password\n", "0600", "root")?;
    let words = ["create", "worker", "--master", "a:9989", "--tls"];
    let untrusted = call(c, &[&words[..], &["--password-file", LINE]].concat())?;
    ensure!(
        untrusted.status != 0
            && untrusted
                .stderr
                .contains("authority that this worker trusts"),
        "{untrusted}"
    );
    let left = c.run(&["test", "-e", "/home/bb-worker/worker"])?;
    ensure!(left.status != 0, "an untrusted master leaves nothing");
    let short = invite(a, &["late", "--ttl", "1s"])?;
    std::thread::sleep(Duration::from_secs(2));
    let late = join(c, &short)?;
    ensure!(
        late.status != 0 && late.stderr.contains(" expired "),
        "{late}"
    );
    call(a, &["service", "upkeep"])?.succeeded()?;
    let known = a.shell("cat /home/bb/master/workers.toml; ls /home/bb/master/passwords")?;
    ensure!(!known.stdout.contains("late"), "it is revoked: {known}");
    // Its clock is wrong, and it tries anyway.
    let forged = short.split("until=").next().unwrap_or_default().to_owned() + "until=9999999999";
    let forged = join(c, &forged)?;
    ensure!(
        forged.status != 0,
        "the master does not know it any more: {forged}"
    );
    Ok(())
}

/// Neither password nor line is anywhere but where it belongs.
fn search(a: &Machine, b: &Machine, secret: &str) -> Outcome {
    for (machine, places) in [
        (a, "/var/log /run /tmp"),
        (b, "/var/log /run /tmp /home/bb/worker"),
    ] {
        let script = format!(
            "grep -rlF {secret} {places} /etc/buildbot-conda/config.toml /proc/[0-9]*/environ 2>/dev/null || true; \
             journalctl --quiet --grep {secret} || true; find / -xdev -perm -004 -type f -newer /etc/hostname \
             -exec grep -lF {secret} {{}} + 2>/dev/null || true"
        );
        let found = machine.run_within(LATER, &["sh", "-c", &script])?;
        let places = found
            .stdout
            .lines()
            .filter(|line| !line.starts_with("/run/credentials/"));
        ensure!(places.count() == 0, "{found}");
    }
    Ok(())
}

/// Builds for a while over a slow link that loses frames: each succeeds at once, and the worker stays connected.
fn build_over_a_slow_link(b: &Machine, network: &mut Network, rest: Rest<'_>) -> Outcome {
    let cursor = b.journal_cursor()?;
    for name in ["a", "b"] {
        network.slow(name, 150, 5)?;
    }
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < SLOW || count < 3 {
        let request = rest.force("hello", &[])?;
        let built = rest.wait_for_build(request, LATER)?;
        ensure!(
            built.results == 0 && rest.builds_of(request)?.len() == 1,
            "{built:?}"
        );
        count += 1;
    }
    for name in ["a", "b"] {
        network.slow(name, 0, 0)?;
    }
    let said = b.journal_after(WORKER_UNIT, &cursor)?;
    ensure!(!said.contains("ost the connection"), "{said}");
    Ok(())
}

/// The authority is lost. Nothing is disturbed at first; then one worker after the other joins again.
fn replace_the_authority(a: &Machine, b: &Machine, c: &Machine, rest: Rest<'_>) -> Outcome {
    a.run(&["rm", "-r", "/etc/buildbot-conda/authority"])?
        .succeeded()?;
    let upkeep = call(a, &["service", "upkeep"])?;
    ensure!(
        upkeep.status == 1
            && upkeep
                .stderr
                .contains("this host has no authority any more"),
        "{upkeep}"
    );
    let rotated = call(a, &["rotate", "gpu"])?.succeeded()?;
    ensure!(rest.worker_connected("cpu")?, "it goes on as it was");
    join(b, rotated.text())?.succeeded()?;
    rest.wait_for_worker("gpu", SOON)?;
    c.run(&["systemctl", "restart", WORKER_UNIT])?.succeeded()?;
    c.wait_until("the worker distrusts the new authority", SOON, || {
        let status = call(c, &["status", "worker"])?;
        let is_told = status
            .stdout
            .contains("not an authority that this worker trusts");
        Ok(is_told.then_some(()))
    })?;
    let rotated = call(a, &["rotate", "cpu"])?.succeeded()?;
    join(c, rotated.text())?.succeeded()?;
    rest.wait_for_worker("cpu", SOON)?;
    // From now on, it is the one of this host.
    let upkeep = call(a, &["service", "upkeep"])?;
    ensure!(
        !upkeep.stderr.contains("authority") && !upkeep.stderr.contains("certificate"),
        "{upkeep}"
    );
    Ok(())
}

/// Renews the certificate of the master, whose workers stay connected.
fn renew(a: &Machine, b: &Machine, rest: Rest<'_>) -> Outcome {
    let until =
        |machine: &Machine| machine.read_file("/var/lib/buildbot-conda/created/master.network");
    let before = until(a)?;
    a.shell(
        "sed -i 's/\"until\":[0-9]*/\"until\":1/' /var/lib/buildbot-conda/created/master.network",
    )?
    .succeeded()?;
    let renewed = call(a, &["service", "upkeep"])?;
    ensure!(
        renewed.status == 0 && renewed.stderr.contains("has a new certificate"),
        "{renewed} before {before}"
    );
    ensure!(rest.worker_connected("gpu")? && rest.worker_connected("cpu")?);
    b.run(&["systemctl", "restart", WORKER_UNIT])?.succeeded()?;
    rest.wait_for_worker("gpu", SOON)?;
    // Both hosts know how long it is good for, and the worker's how long its authority is.
    for (machine, reference, seen) in [
        (
            a,
            "master",
            "the certificate of network.toml is valid for 89 days",
        ),
        (b, "worker", ":9989 is valid for 89 days"),
        (b, "worker", "the certificate of the authority of a"),
    ] {
        let words = ["doctor", "--only", "certificates", "--all", "--json"];
        let doctor = call(machine, &words)?.succeeded()?;
        let status = call(machine, &["status", reference])?.succeeded()?;
        ensure!(
            doctor.stdout.contains(seen) && status.stdout.contains(seen),
            "{doctor}{status}"
        );
    }
    Ok(())
}

/// Nobody is revoked if the master does not know whether they have joined.
fn forget_who_was_attached(a: &Machine, rest: Rest<'_>) -> Outcome {
    a.shell(
        "cd /var/lib/buildbot-conda; : >instances/master/attached.json; \
         echo '[{\"master\": \"master\", \"worker\": \"cpu\", \"since\": 1, \"until\": 2}]' >created/invitations",
    )?
    .succeeded()?;
    let unknown = call(a, &["service", "upkeep"])?;
    ensure!(
        unknown.status == 1
            && unknown
                .stderr
                .contains("cannot determine whether it was used"),
        "{unknown}"
    );
    ensure!(rest.worker_connected("cpu")?, "it is not revoked");
    Ok(())
}

/// The same words once more change nothing, and disturb nobody.
fn repeat(a: &Machine, b: &Machine, secret: &str) -> Outcome {
    let worker = b.unit_property(WORKER_UNIT, "MainPID")?;
    let again = call(b, &["join", "--file", LINE, "--json"])?.succeeded()?;
    ensure!(
        again.stdout.contains("\"changed\": false")
            && again.stdout.contains("\"state\": \"active\""),
        "{again}"
    );
    ensure!(b.unit_property(WORKER_UNIT, "MainPID")? == worker);
    let again = ["invite", "gpu", "--slots", "2", "--tag", "cuda", "--json"];
    let again = call(a, &again)?.succeeded()?;
    ensure!(
        again.stdout.contains("\"changed\": false") && !again.stdout.contains(secret),
        "{again}"
    );
    Ok(())
}

fn workers_of_other_hosts_join_by_one_line_and_are_revoked(release: Release) -> Outcome {
    let below = installed_with(release, "openssl", "openssl")?;
    let boot = |name| Machine::boot_named(below.clone(), name);
    let (a, b, c) = (boot("a")?, boot("b")?, boot("c")?);
    let mut network = Network::new(&["a", "b", "c"])?;
    for (name, machine) in [("a", &a), ("b", &b), ("c", &c)] {
        network.connect(name, machine)?;
    }
    call(&a, &["create", "master"])?.succeeded()?;
    let rest = Rest::new(&a);
    let process = a.unit_property(MASTER_UNIT, "MainPID")?;

    // One command on each side.
    let line = invite(&a, &["gpu", "--slots", "2", "--tag", "cuda"])?;
    let secret = line.split(['@', ':']).nth(2).context("find the password")?;
    // If the line is lost, the same command prints it again until it is used.
    ensure!(invite(&a, &["gpu", "--slots", "2", "--tag", "cuda"])? == line);
    // An attacker between the two learns nothing, and gets no worker.
    let (master, stranger) = (network.address("a"), network.address("c"));
    pose_as_master(&c)?;
    lead_astray(&b, &master, &stranger)?;
    join_in_vain(&b, &line)?;
    lead_astray(&b, &stranger, &master)?;
    let arguments = join_and_see_arguments(&b, &line)?;
    ensure!(
        arguments
            .iter()
            .any(|words| words.contains("launcher worker"))
            && !arguments.iter().any(|words| words.contains(secret)),
        "{arguments:?}"
    );
    ensure!(
        rest.worker_connected("gpu")? && rest.worker_connected("gpu-2")?,
        "it says so when it is"
    );
    let status = call(&b, &["status", "worker"])?;
    ensure!(
        status.stdout.contains("2 of 2 workers connected"),
        "{status}"
    );
    build(rest)?;
    fault("slow-link", release, || {
        build_over_a_slow_link(&b, &mut network, rest)
    })?;
    let table = a.shell("grep -A2 '^.gpu.' /home/bb/master/workers.toml")?;
    ensure!(
        table.stdout.contains("slots = 2\ntags = [\"cuda\"]\n"),
        "{table}"
    );
    let listed = call(&a, &["invite", "--list"])?.succeeded()?;
    ensure!(
        listed.stdout.contains("joined") && listed.stdout.contains("cuda"),
        "{listed}"
    );
    repeat(&a, &b, secret)?;
    lead_astray(&b, &master, &stranger)?;
    b.run(&["systemctl", "restart", WORKER_UNIT])?.succeeded()?;
    b.wait_until("the worker distrusts the stranger", SOON, || {
        let status = call(&b, &["status", "worker"])?;
        Ok(status.stdout.contains("trust").then_some(()))
    })?;
    lead_astray(&b, &stranger, &master)?;
    b.run(&["systemctl", "restart", WORKER_UNIT])?.succeeded()?;
    rest.wait_for_worker("gpu", SOON)?;
    let heard =
        c.shell("systemctl stop stranger; cat /root/heard; rm /root/heard /root/key /root/pem")?;
    ensure!(
        !heard.stdout.contains(secret) && !heard.stdout.contains("gpu"),
        "{heard}"
    );

    refuse_strangers(&a, &c, &line)?;

    // A second host; neither password nor line is anywhere but where it belongs.
    join_by_ssh(&c, &invite(&a, &["cpu"])?)?;
    ensure!(rest.worker_connected("cpu")?, "the second is there too");
    search(&a, &b, secret)?;

    // A certificate is renewed while a build's connection is open.
    renew(&a, &b, rest)?;

    // Whether an invitation was used is unknown: that is reported, and its worker stays.
    forget_who_was_attached(&a, rest)?;

    // Another password, by a new line.
    let rotated = call(&a, &["rotate", "gpu"])?.succeeded()?;
    join(&b, rotated.text())?.succeeded()?;
    rest.wait_for_worker("gpu", SOON)?;
    let old = join(&c, &line)?;
    ensure!(old.status != 0, "the old password is no good: {old}");

    fault("authority-replaced", release, || {
        replace_the_authority(&a, &b, &c, rest)
    })?;

    // And out. The connection is closed, and it does not come back.
    call(&a, &["revoke", "gpu"])?.succeeded()?;
    b.wait_until("the worker is refused", SOON, || {
        let status = call(&b, &["status", "worker"])?;
        Ok(status.stdout.contains("reject").then_some(()))
    })?;
    ensure!(!rest.worker_connected("gpu").unwrap_or_default());
    ensure!(rest.worker_connected("cpu")?, "the other one stays");
    build(rest)?;
    ensure!(
        a.unit_property(MASTER_UNIT, "MainPID")? == process,
        "nothing of all that was a restart"
    );
    Ok(())
}
