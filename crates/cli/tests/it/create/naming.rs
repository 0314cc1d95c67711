//! How a worker's name gets into the list of its master's starter configuration, and out of it.

use std::os::unix::fs::chown;

use expect_test::expect;

use super::{check, host_with_master};
use crate::house::{CONFIGURATION, Host, said};

const CREATE: [&str; 4] = ["create", "worker", "gpu", "--dry-run"];

/// A master with its `master.cfg`, in which the list of workers is `list`.
fn host_with_workers(list: &str) -> Host {
    let host = host_with_master();
    write_workers(&host, list);
    host
}

/// Makes `list` the workers of the master.
fn write_workers(host: &Host, list: &str) {
    let text = format!("c = {{}}\nWORKERS = {list}\nc[\"workers\"] = list(WORKERS)\n");
    host.write("home/bb/master/master.cfg", &text);
}

#[test]
fn a_worker_that_its_master_does_not_know_is_added_to_its_list() {
    let host = host_with_workers("[\"worker\"]");
    check(
        &host,
        &CREATE,
        &expect![[r#"
            status 0
            stdout:
            # `worker@gpu` as user `bb-worker-gpu`, directory `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, worker `gpu` of the master at localhost:9990
            # the workers of `master` are in its `master.cfg`, which a later version of buildbot-conda does not change any more; `buildbot-conda convert master` moves them to `workers.toml`
            create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
                worker@gpu.user = "bb-worker-gpu"
                worker@gpu.credentials.password = "worker-password"
            as `bb-worker-gpu`, set up a worker in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
            as `bb`, add "gpu" to `WORKERS` in `/home/bb/master/master.cfg`
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            stderr:
        "#]],
    );
    // A worker with an existing name does not have to be added.
    let words = [&CREATE[..], &["--worker-name=worker"]].concat();
    check(
        &host,
        &words,
        &expect![[r#"
            status 0
            stdout:
            # `worker@gpu` as user `bb-worker-gpu`, directory `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, worker `worker` of the master at localhost:9990
            create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
                worker@gpu.user = "bb-worker-gpu"
                worker@gpu.credentials.password = "worker-password"
            as `bb-worker-gpu`, set up a worker in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_list_that_is_none_any_more_is_left_to_its_owner() {
    let host = host_with_workers("sorted(open(\"/etc/workers\"))");
    let plan = host.run(&CREATE).stdout;
    let note = "\n# `/home/bb/master/master.cfg`: it contains no plain list `WORKERS`; add the worker to it, for example with \
                `worker.Worker(\"gpu\", secret(\"worker-password\"))`\n";
    assert!(plan.contains(note), "{plan}");
    assert!(!plan.contains("add \"gpu\" to `WORKERS`"), "{plan}");
}

#[test]
fn a_list_that_the_masters_account_may_not_change_is_refused_before_anything_is_done() {
    let host = host_with_workers("[\"worker\"]");
    let file = host.path("home/bb/master/master.cfg");
    // Root may change any directory; one that belongs to another account is still not its own.
    if chown(file, Some(65534), None).is_err() {
        host.set_mode("home/bb/master", 0o500);
    }
    check(
        &host,
        &CREATE,
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `/home/bb/master/master.cfg` does not contain the worker `gpu`, and `bb` cannot change it
            hint: add "gpu" to it, then run `systemctl reload buildbot-master.service`
        "#]],
    );
    host.set_mode("home/bb/master", 0o700);
}

#[test]
fn two_workers_of_one_name_are_refused() {
    let host = host_with_workers("[\"worker\", \"gpu\"]");
    host.write(
        CONFIGURATION,
        "[master]\ndirectory = \"/home/bb/master\"\ncredentials = { worker-password = \"worker-password\" }\n\
         [\"worker@old\"]\ndirectory = \"/srv/old\"\n",
    );
    host.write(
        "var/lib/buildbot-conda/created/worker@old.json",
        "{\"master\":\"localhost:9990\",\"worker\":\"gpu\",\"instance\":\"master\"}\n",
    );
    let given = [
        "create",
        "worker",
        "--worker-name=gpu",
        "--master=localhost:9990",
        "--dry-run",
    ];
    for words in [&CREATE[..], &given] {
        check(
            &host,
            words,
            &expect![[r#"
                status 1
                stdout:
                stderr:
                error: `worker@old` already is the worker `gpu` of the master at localhost:9990
                hint: choose another name with `--worker-name`
            "#]],
        );
    }
}

#[test]
fn removing_a_worker_takes_its_name_out_unless_it_is_the_last() {
    let host = host_with_workers("[\"worker\", \"gpu\"]");
    host.write(
        CONFIGURATION,
        "[master]\ndirectory = \"/home/bb/master\"\ncredentials = { worker-password = \"worker-password\" }\n\
         [\"worker@gpu\"]\ndirectory = \"/srv/gpu\"\n",
    );
    host.write(
        "var/lib/buildbot-conda/created/worker@gpu.json",
        "{\"master\":\"localhost:9990\",\"worker\":\"gpu\",\"instance\":\"master\"}\n",
    );
    let kept = "# `/home/bb/master/master.cfg` still contains the worker `gpu`";
    let removed = "in `/etc/buildbot-conda/config.toml`:\n    without [\"worker@gpu\"]\n\
                   remove `/var/lib/buildbot-conda/created/worker@gpu.json`\n";
    for (workers, note, step) in [
        (
            "[\"worker\", \"gpu\"]",
            String::new(),
            "as `bb`, remove \"gpu\" from `WORKERS` in `/home/bb/master/master.cfg`\n",
        ),
        // A builder without workers is not valid.
        (
            "[\"gpu\"]",
            format!("{kept}, because its builder needs a worker\n"),
            "",
        ),
        // Its owner has moved it.
        ("list({\"gpu\": 2})", format!("{kept}\n"), ""),
        // Nothing to do with it any more.
        ("[\"worker\"]", String::new(), ""),
    ] {
        write_workers(&host, workers);
        let plan = host.run(&["remove", "worker@gpu", "--dry-run"]);
        assert_eq!(plan, said(0, &format!("{note}{removed}{step}"), ""));
    }
}

/// The workers of a master as the starter had them before, and two of them on this host.
fn host_with_older_master() -> Host {
    let host = host_with_master();
    host.write(
        "home/bb/master/master.cfg",
        "import os\nc = {}\nWORKERS = [\"worker\", \"gpu\", \"far\"]\n\
         c[\"workers\"] = [worker.Worker(name, secret(\"worker-password\")) for name in WORKERS]\n",
    );
    host.write(
        CONFIGURATION,
        "[master]\ndirectory = \"/home/bb/master\"\ncredentials = { worker-password = \"worker-password\" }\n\
         [worker]\ndirectory = \"/srv/worker\"\ncredentials = { password = \"worker-password\" }\n\
         [\"worker@gpu\"]\ndirectory = \"/srv/gpu\"\ncredentials = { password = \"own\" }\n",
    );
    host.write("etc/buildbot-conda/credentials/own", "x\n");
    for (reference, name) in [("worker", "worker"), ("worker@gpu", "gpu")] {
        host.write(
            &format!("var/lib/buildbot-conda/created/{reference}.json"),
            &format!(
                "{{\"master\":\"localhost:9990\",\"worker\":\"{name}\",\"instance\":\"master\"}}\n"
            ),
        );
    }
    host
}

#[test]
fn an_older_master_is_converted_with_a_credential_for_each_worker_that_shares_one() {
    let host = host_with_older_master();
    check(
        &host,
        &["convert", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `/home/bb/master/master.cfg` names the workers worker, gpu, far; it will read them from `workers.toml` and `passwords`, and they stay connected
            write `/etc/buildbot-conda/credentials/password-of-worker`, mode 0600
            in `/etc/buildbot-conda/config.toml`:
                worker.credentials.password = "password-of-worker"
            as `bb`, create `/home/bb/master/passwords`, mode 0700
            as `bb`, write `/home/bb/master/passwords/worker`, mode 0600
            as `bb`, write `/home/bb/master/passwords/gpu`, mode 0600
            as `bb`, write `/home/bb/master/passwords/far`, mode 0600
            as `bb`, write `/home/bb/master/workers.toml`, mode 0600
            as `bb`, write `/home/bb/master/master.cfg.replaced`, mode 0600
            as `bb`, write `/home/bb/master/master.cfg`, mode 0644
            write `/var/lib/buildbot-conda/created/master.json`, mode 0644
            stderr:
        "#]],
    );
    // An existing file with the same password is used; one with another password is kept.
    let file = "etc/buildbot-conda/credentials/password-of-worker";
    host.write(file, "x\n");
    let plan = host.run(&["convert", "--dry-run"]).stdout;
    assert!(!plan.contains("write `/etc"), "{plan}");
    host.write(file, "other\n");
    let plan = host.run(&["convert", "--dry-run"]).stdout;
    assert!(
        plan.contains("write `/etc/buildbot-conda/credentials/password-of-worker.worker`"),
        "{plan}"
    );
    // The password is nowhere in it.
    assert!(!plan.contains("\"x\""), "{plan}");
}

#[test]
fn a_master_that_cannot_be_converted_is_left_alone() {
    let host = host_with_older_master();
    check(
        &host,
        &["convert"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `convert` changes a running system and cannot be used with `--root`
            hint: `--dry-run` shows the steps
        "#]],
    );
    host.write(
        "home/bb/master/master.cfg",
        "c[\"workers\"] = [worker.Worker(\"a\", \"x\", max_builds=2)]\n",
    );
    check(
        &host,
        &["convert", "master", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `/home/bb/master/master.cfg` is not understood: `c["workers"]` is not a plain list of workers, each of which has a name and a password and nothing else, as in `worker.Worker("gpu", "password")` or `worker.Worker("gpu", secret("name-of-a-credential"))`
            hint: bring it into that form, or put the workers into `workers.toml` by hand, as in a new master's
        "#]],
    );
    host.write(
        "home/bb/master/master.cfg",
        "c[\"workers\"] = [worker.Worker(\"a\", secret(\"none\"))]\n",
    );
    check(
        &host,
        &["convert", "master", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: `master` has no credential `none`, which its `master.cfg` uses
        "#]],
    );
    check(
        &host,
        &["convert", "master@x", "--dry-run"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: master `master@x` is not configured
        "#]],
    );
    host.write(
        "var/lib/buildbot-conda/created/master.json",
        "{\"web_port\":8011,\"worker\":\"worker\",\"worker_credential\":\"x\"}\n",
    );
    check(
        &host,
        &["convert", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` has its workers in `workers.toml` already
            stderr:
            nothing to do
        "#]],
    );
}
