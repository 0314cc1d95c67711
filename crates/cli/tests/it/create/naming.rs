//! How a worker's name gets into the list of its master's starter configuration, and out of it.

use std::os::unix::fs::chown;

use expect_test::expect;

use super::{check, host_with_master};
use crate::house::{CONFIGURATION, Host};

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
            # `worker@gpu` by `bb-worker-gpu` in `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, as `gpu` of the master at localhost:9990
            create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
                worker@gpu.user = "bb-worker-gpu"
                worker@gpu.credentials.password = "worker-password"
            as `bb-worker-gpu`, set a worker up in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
            as `bb`, add "gpu" to `WORKERS` in `/home/bb/master/master.cfg`
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            stderr:
        "#]],
    );
    // Under a name that is there nothing needs to be added.
    let words = [&CREATE[..], &["--worker-name=worker"]].concat();
    check(
        &host,
        &words,
        &expect![[r#"
            status 0
            stdout:
            # `worker@gpu` by `bb-worker-gpu` in `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, as `worker` of the master at localhost:9990
            create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
                worker@gpu.user = "bb-worker-gpu"
                worker@gpu.credentials.password = "worker-password"
            as `bb-worker-gpu`, set a worker up in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
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
    check(
        &host,
        &CREATE,
        &expect![[r#"
            status 0
            stdout:
            # `worker@gpu` by `bb-worker-gpu` in `/home/bb-worker-gpu/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, as `gpu` of the master at localhost:9990
            # `/home/bb/master/master.cfg`: no plain list `WORKERS` is seen in it; it has to name the worker, as by `worker.Worker("gpu", secret("worker-password"))`
            create the account `bb-worker-gpu`, home `/home/bb-worker-gpu`
            in `/etc/buildbot-conda/config.toml`:
                worker@gpu.directory = "/home/bb-worker-gpu/worker-gpu"
                worker@gpu.user = "bb-worker-gpu"
                worker@gpu.credentials.password = "worker-password"
            as `bb-worker-gpu`, set a worker up in `/home/bb-worker-gpu/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_list_that_the_masters_account_may_not_change_is_refused_before_anything_is_done() {
    let host = host_with_workers("[\"worker\"]");
    let file = host.path("home/bb/master/master.cfg");
    // Root may change any directory; what is not its own is another account's all the same.
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
            error: `/home/bb/master/master.cfg` does not name the worker `gpu`, and `bb` may not change it
            hint: add "gpu" to it, then `systemctl reload buildbot-master.service`
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
    check(
        &host,
        &CREATE,
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `worker@old` is the worker `gpu` of the master at localhost:9990 already
        hint: name another one with `--worker-name`
    "#]],
    );
    let words = [
        "create",
        "worker",
        "--worker-name=gpu",
        "--master=localhost:9990",
        "--dry-run",
    ];
    check(
        &host,
        &words,
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `worker@old` is the worker `gpu` of the master at localhost:9990 already
        hint: name another one with `--worker-name`
    "#]],
    );
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
    let words = ["remove", "worker@gpu", "--dry-run"];
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        in `/etc/buildbot-conda/config.toml`:
            without ["worker@gpu"]
        remove `/var/lib/buildbot-conda/created/worker@gpu.json`
        as `bb`, take "gpu" out of `WORKERS` in `/home/bb/master/master.cfg`
        stderr:
    "#]],
    );
    // A builder without a worker is no configuration.
    write_workers(&host, "[\"gpu\"]");
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        # `/home/bb/master/master.cfg` still names the worker `gpu`: its builder needs one
        in `/etc/buildbot-conda/config.toml`:
            without ["worker@gpu"]
        remove `/var/lib/buildbot-conda/created/worker@gpu.json`
        stderr:
    "#]],
    );
    // Its owner has put it elsewhere.
    write_workers(&host, "list({\"gpu\": 2})");
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        # `/home/bb/master/master.cfg` still names the worker `gpu`
        in `/etc/buildbot-conda/config.toml`:
            without ["worker@gpu"]
        remove `/var/lib/buildbot-conda/created/worker@gpu.json`
        stderr:
    "#]],
    );
    // Nothing to do with it any more.
    write_workers(&host, "[\"worker\"]");
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        in `/etc/buildbot-conda/config.toml`:
            without ["worker@gpu"]
        remove `/var/lib/buildbot-conda/created/worker@gpu.json`
        stderr:
    "#]],
    );
}
