//! A master whose workers are data: how a worker with its own password is added to its table, and removed.

use std::fmt::Write as _;
use std::process::Command;

use expect_test::expect;

use super::{STARTER, check, host};
use crate::house::{CONFIGURATION, Host};

const CREATE: [&str; 4] = ["create", "worker", "gpu", "--dry-run"];

/// A host after `create master`, with this table of workers.
pub(crate) fn host_with_table(table: &str) -> Host {
    let host = host();
    let text = STARTER.replace(
        "\"/home/bb/master\"\n",
        "\"/home/bb/master\"\ncredentials = { web-password = \"web-password\" }\n",
    );
    host.write(CONFIGURATION, &text);
    for name in ["web-password", "password-of-worker"] {
        host.write(&format!("etc/buildbot-conda/credentials/{name}"), "x\n");
    }
    host.write("home/bb/master/buildbot.tac", "");
    host.write("home/bb/master/master.cfg", "");
    host.write("home/bb/master/workers.toml", table);
    host.write(
        "var/lib/buildbot-conda/created/master.json",
        "{\"web_port\":8010,\"worker\":\"worker\",\"worker_credential\":\"password-of-worker\"}\n",
    );
    host
}

#[test]
fn the_first_worker_has_the_password_that_its_master_was_made_with() {
    check(
        &host_with_table("[worker]\n"),
        &["create", "worker", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `worker` as user `bb-worker`, directory `/home/bb-worker/worker`, environment `/home/bb/anaconda3/envs/buildbot`, worker `worker` of the master at /run/buildbot-conda/master/workers
            create the account `bb-worker`, home `/home/bb-worker`
            in `/etc/buildbot-conda/config.toml`:
                worker.directory = "/home/bb-worker/worker"
                worker.user = "bb-worker"
                worker.credentials.password = "password-of-worker"
            as `bb-worker`, set up a worker in `/home/bb-worker/worker`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker.service` to `/usr/lib/systemd/system/buildbot-worker.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_further_worker_gets_an_account_a_password_and_a_table() {
    check(
        &host_with_table("[worker]\n"),
        &CREATE,
        &expect![[r#"
        status 0
        stdout:
        # `worker@gpu` as user `bb-worker-gpu`, directory `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, worker `gpu` of the master at /run/buildbot-conda/master/workers
        create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
        write `/etc/buildbot-conda/credentials/password-of-worker-gpu`, mode 0600
        in `/etc/buildbot-conda/config.toml`:
            worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
            worker@gpu.user = "bb-worker-gpu"
            worker@gpu.credentials.password = "password-of-worker-gpu"
        as `bb-worker-gpu`, set up a worker in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
        write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
        as `bb`, write `/home/bb/master/passwords/gpu`, mode 0600
        as `bb`, add "gpu" to `/home/bb/master/workers.toml`
        create `/etc/systemd/system/multi-user.target.wants`
        link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
        stderr:
    "#]],
    );
}

#[test]
fn a_table_that_is_not_understood_is_left_to_its_owner() {
    check(
        &host_with_table("workers = [\"worker\"]\n"),
        &CREATE,
        &expect![[r#"
            status 0
            stdout:
            # `worker@gpu` as user `bb-worker-gpu`, directory `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, worker `gpu` of the master at /run/buildbot-conda/master/workers
            # `/home/bb/master/workers.toml`: it cannot be read; add the worker `gpu` to the master, with the password in its credential
            create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
            write `/etc/buildbot-conda/credentials/password-of-worker-gpu`, mode 0600
            in `/etc/buildbot-conda/config.toml`:
                worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
                worker@gpu.user = "bb-worker-gpu"
                worker@gpu.credentials.password = "password-of-worker-gpu"
            as `bb-worker-gpu`, set up a worker in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            stderr:
        "#]],
    );
}

#[test]
fn removing_a_worker_takes_its_table_and_password_out_unless_it_is_the_last() {
    let host = host_with_table("[worker]\n[gpu]\n");
    let text = "[master]\ndirectory = \"/home/bb/master\"\ncredentials = { web-password = \"web-password\" }\n\
                [\"worker@gpu\"]\ndirectory = \"/srv/gpu\"\n\
                credentials = { password = \"password-of-worker-gpu\" }\n";
    host.write(CONFIGURATION, text);
    host.write(
        "etc/buildbot-conda/credentials/password-of-worker-gpu",
        "y\n",
    );
    host.write(
        "var/lib/buildbot-conda/created/worker@gpu.json",
        "{\"master\":\"/run/buildbot-conda/master/workers\",\"worker\":\"gpu\",\"instance\":\"master\"}\n",
    );
    let words = ["remove", "worker@gpu", "--dry-run"];
    check(
        &host,
        &words,
        &expect![[r#"
            status 0
            stdout:
            # kept `/etc/buildbot-conda/credentials/password-of-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                without ["worker@gpu"]
            remove `/var/lib/buildbot-conda/created/worker@gpu.json`
            as `bb`, remove "gpu" from `/home/bb/master/workers.toml`
            as `bb`, remove `/home/bb/master/passwords/gpu`
            stderr:
        "#]],
    );
    host.write("home/bb/master/workers.toml", "[gpu]\n");
    check(
        &host,
        &words,
        &expect![[r#"
            status 0
            stdout:
            # `/home/bb/master/workers.toml` still contains the worker `gpu`, because its builder needs a worker
            # kept `/etc/buildbot-conda/credentials/password-of-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                without ["worker@gpu"]
            remove `/var/lib/buildbot-conda/created/worker@gpu.json`
            stderr:
        "#]],
    );
    // An unused password is removed with its master.
    let words = ["remove", "master", "--data", "--dry-run"];
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        # `worker@gpu` is a worker of this master and keeps trying to connect; `buildbot-conda remove worker@gpu` removes it
        in `/etc/buildbot-conda/config.toml`:
            without [master]
        remove `/var/lib/buildbot-conda/created/master.json`
        remove `/etc/buildbot-conda/credentials/password-of-worker`
        remove `/etc/buildbot-conda/credentials/web-password`
        as `bb`, remove `/home/bb/master`
        stderr:
    "#]],
    );
}

/// Processor time in seconds for three plans of a further worker, with this many existing ones.
fn seconds_beside(workers: usize) -> f64 {
    let mut table = String::from("[worker]\n");
    for number in 0..workers {
        writeln!(table, "[w{number}]").unwrap();
    }
    let host = host_with_table(&table);
    let mut text = host.read(CONFIGURATION);
    for number in 0..workers {
        write!(
            text,
            "[\"worker@w{number}\"]\ndirectory = \"/home/w{number}/worker\"\nuser = \"w{number}\"\n\
             credentials = {{ password = \"password-of-worker-w{number}\" }}\n"
        )
        .unwrap();
        let record = format!(
            "{{\"master\":\"/run/buildbot-conda/master/workers\",\"worker\":\"w{number}\",\"instance\":\"master\"}}\n"
        );
        host.write(
            &format!("var/lib/buildbot-conda/created/worker@w{number}.json"),
            &record,
        );
    }
    host.write(CONFIGURATION, &text);
    let script = "for turn in 1 2 3; do \"$@\" >/dev/null || exit; done; times";
    let output = Command::new("bash")
        .args(["-c", script, "-", env!("CARGO_BIN_EXE_buildbot-conda")])
        .args(["--root", &host.root()])
        .args(CREATE)
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    // User and system time of the children, such as `0m0.012s 0m0.003s`.
    let times = String::from_utf8(output.stdout).unwrap();
    let words = times.lines().last().unwrap().split_whitespace();
    let seconds = words.map(|word| {
        let (minutes, seconds) = word.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    });
    seconds.sum()
}

#[test]
fn a_further_worker_costs_no_more_than_in_proportion_to_those_that_are_there() {
    let (few, many) = (seconds_beside(100), seconds_beside(400));
    // Four times as much, and where each looks at each other, sixteen times.
    assert!(many < 8.0 * few, "{few} s beside 100, {many} s beside 400");
}
