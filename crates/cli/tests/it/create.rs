//! `create` and `remove` as far as they can be seen without a booted machine: plans, refusals, and that neither changes
//! anything. What they do is for the booted machines.

pub(crate) mod data;
mod database;
mod naming;

use expect_test::{Expect, expect};

use crate::house::{CONFIGURATION, Host};

const STARTER: &str = "\
[defaults]
user = \"bb\"

[master]
directory = \"/home/bb/master\"

[worker]
directory = \"/home/bb/worker\"
";

/// As the package leaves it, with an environment.
fn host() -> Host {
    let host = Host::configured(STARTER);
    host.write("etc/hostname", "example\n");
    host.write("home/bb/anaconda3/envs/buildbot/conda-meta/history", "");
    host.write("home/bb/anaconda3/envs/buildbot/bin/python", "");
    host
}

/// The same after `create master`.
fn host_with_master() -> Host {
    let host = host();
    let text = STARTER.replace(
        "\"/home/bb/master\"\n",
        "\"/home/bb/master\"\ncredentials = { worker-password = \"worker-password\" }\n",
    );
    host.write(CONFIGURATION, &text);
    host.write("etc/buildbot-conda/credentials/worker-password", "x\n");
    host.write("home/bb/master/buildbot.tac", "");
    host.write(
        "var/lib/buildbot-conda/created/master.json",
        "{\"web_port\":8011,\"worker_port\":9990,\"worker\":\"worker\"}\n",
    );
    host
}

/// Runs, compares, and checks that nothing has changed.
#[track_caller]
fn check(host: &Host, words: &[&str], expect: &Expect) {
    let before = host.snapshot();
    expect.assert_eq(&host.run(words).to_string());
    assert_eq!(host.snapshot(), before);
}

#[test]
fn the_plan_of_a_master_names_everything_that_is_made() {
    check(
        &host(),
        &["create", "master", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` as user `bb`, directory `/home/bb/master`, environment `/home/bb/anaconda3/envs/buildbot`
            # web pages at http://localhost:8010/, workers at `/run/buildbot-conda/master/workers`
            create `/etc/buildbot-conda/credentials`
            write `/etc/buildbot-conda/credentials/web-password`, mode 0600
            write `/etc/buildbot-conda/credentials/password-of-worker`, mode 0600
            in `/etc/buildbot-conda/config.toml`:
                master.credentials.web-password = "web-password"
            as `bb`, set up a master in `/home/bb/master`: `buildbot.tac`, database, `master.cfg`, `workers.toml`, `passwords/worker`
            create `/var/lib/buildbot-conda/created`
            write `/var/lib/buildbot-conda/created/master.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_further_master_has_names_and_a_place_of_its_own() {
    let host = host_with_master();
    let words = [
        "create",
        "master",
        "nightly",
        "--dry-run",
        "--user=ci",
        "--conda-env=/home/bb/anaconda3/envs/buildbot",
    ];
    check(
        &host,
        &words,
        &expect![[r#"
            status 0
            stdout:
            # `master@nightly` as user `ci`, directory `/home/ci/master-nightly`, environment `/home/bb/anaconda3/envs/buildbot`
            # web pages at http://localhost:8010/, workers at `/run/buildbot-conda/master@nightly/workers`
            write `/etc/buildbot-conda/credentials/web-password-nightly`, mode 0600
            write `/etc/buildbot-conda/credentials/password-of-first-worker-nightly`, mode 0600
            in `/etc/buildbot-conda/config.toml`:
                master@nightly.directory = "/home/ci/master-nightly"
                master@nightly.user = "ci"
                master@nightly.conda-env = "/home/bb/anaconda3/envs/buildbot"
                master@nightly.credentials.web-password = "web-password-nightly"
            as `ci`, set up a master in `/home/ci/master-nightly`: `buildbot.tac`, database, `master.cfg`, `workers.toml`, `passwords/worker`
            write `/var/lib/buildbot-conda/created/master@nightly.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-master@nightly.service` to `/usr/lib/systemd/system/buildbot-master@.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_worker_beside_a_master_shares_its_password_and_not_its_account() {
    check(
        &host_with_master(),
        &["create", "worker", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `worker` as user `bb-worker`, directory `/home/bb-worker/worker`, environment `/home/bb/anaconda3/envs/buildbot`, worker `worker` of the master at localhost:9990
            # `/home/bb/master/master.cfg`: it contains no plain list `WORKERS`; add the worker to it, for example with `worker.Worker("worker", secret("worker-password"))`
            create the account `bb-worker`, home `/home/bb-worker`
            in `/etc/buildbot-conda/config.toml`:
                worker.directory = "/home/bb-worker/worker"
                worker.user = "bb-worker"
                worker.credentials.password = "worker-password"
            as `bb-worker`, set up a worker in `/home/bb-worker/worker`: `info/admin`, `info/host`, `buildbot.tac`
            write `/var/lib/buildbot-conda/created/worker.json`, mode 0644
            create `/etc/systemd/system/multi-user.target.wants`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker.service` to `/usr/lib/systemd/system/buildbot-worker.service`
            stderr:
        "#]],
    );
}

#[test]
fn a_worker_for_a_master_elsewhere_needs_a_password() {
    let host = host();
    host.write("secret", "from a file\n");
    let secret = host.path("secret");
    let secret = secret.to_str().unwrap();
    let words = [
        "create",
        "worker",
        "gpu",
        "--master=ci.example.org:9989",
        "--tls",
        "--worker-name=gpu-1",
        "--dry-run",
        "--password-file",
        secret,
    ];
    check(
        &host,
        &words,
        &expect![[r#"
        status 0
        stdout:
        # `worker@gpu` as user `bb`, directory `/home/bb/worker-gpu`, environment `/home/bb/anaconda3/envs/buildbot`, worker `gpu-1` of the master at ci.example.org:9989
        create `/etc/buildbot-conda/credentials`
        write `/etc/buildbot-conda/credentials/password-of-worker-gpu`, mode 0600
        in `/etc/buildbot-conda/config.toml`:
            worker@gpu.directory = "/home/bb/worker-gpu"
            worker@gpu.credentials.password = "password-of-worker-gpu"
        as `bb`, set up a worker in `/home/bb/worker-gpu`: `info/admin`, `info/host`, `buildbot.tac`
        create `/var/lib/buildbot-conda/created`
        write `/var/lib/buildbot-conda/created/worker@gpu.json`, mode 0644
        create `/etc/systemd/system/multi-user.target.wants`
        link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@gpu.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
        stderr:
    "#]],
    );
    check(
        &host,
        &["create", "worker", "--dry-run"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: no master on this host was created with `buildbot-conda create master`
        hint: specify the master with `--master HOST` or `--master master@NAME`
    "#]],
    );
}

#[test]
fn what_is_there_already_is_not_touched() {
    let host = host_with_master();
    check(
        &host,
        &["create", "master", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` already exists
            stderr:
            nothing to do
        "#]],
    );
    host.write("home/bb/worker/notes", "");
    check(
        &host,
        &["create", "worker", "--user=bb", "--dry-run"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `/home/bb/worker` is not empty
        hint: choose another one with `--directory`
    "#]],
    );
}

/// Python packages of the environment, by their directories.
fn add_modules(host: &Host, modules: &[&str]) {
    for module in modules {
        let packages = "home/bb/anaconda3/envs/buildbot/lib/python3.11/site-packages";
        host.write(&format!("{packages}/{module}"), "");
    }
}

#[test]
fn no_web_pages_are_announced_where_nothing_listens() {
    let host = host();
    add_modules(&host, &["buildbot/__init__.py"]);
    let plan = host.run(&["create", "master", "--dry-run"]).stdout;
    let expected = "# no web pages, because the environment lacks `buildbot-www`, workers at";
    assert!(
        plan.contains(expected) && !plan.contains("http://"),
        "{plan}"
    );
    add_modules(&host, &["buildbot_www/__init__.py"]);
    let plan = host.run(&["create", "master", "--dry-run"]).stdout;
    assert!(
        plan.contains("# web pages at http://localhost:8010/, workers at"),
        "{plan}"
    );
}

#[test]
fn what_conda_forges_worker_does_not_bring_along_is_named_before_the_first_step() {
    let host = host_with_master();
    host.write("home/bb/anaconda3/bin/conda", "");
    add_modules(
        &host,
        &["buildbot_worker/msgpack.py", "autobahn/__init__.py"],
    );
    let plan = |host: &Host| host.run(&["create", "worker", "--dry-run"]).stdout;
    let expected = "# the environment lacks `msgpack-python`, which a worker imports and conda-forge's \
                    `buildbot-worker` does not include; `/home/bb/anaconda3/bin/conda install --prefix \
                    /home/bb/anaconda3/envs/buildbot --channel conda-forge msgpack-python` installs it\n";
    let plan_text = plan(&host);
    assert!(plan_text.contains(expected), "{plan_text}");
    add_modules(&host, &["msgpack/__init__.py"]);
    assert!(!plan(&host).contains("msgpack"), "{}", plan(&host));
}

#[test]
fn somebody_without_an_environment_is_led_to_those_that_are_there() {
    let host = host();
    std::fs::remove_dir_all(host.path("home/bb/anaconda3")).unwrap();
    let hint = |host: &Host| {
        let said = host.run(&["create", "master", "--dry-run"]);
        assert_eq!(said.status, Some(1), "{said}");
        let hint = said.stderr.split("hint: ").nth(1).unwrap_or_default();
        hint.to_owned()
    };
    let make = "create one with the package `buildbot-conda-env`: `buildbot-conda env create buildbot`; or \
                specify one with `--conda-root` and `--conda-env`\n";
    assert_eq!(hint(&host), make);
    host.write("usr/libexec/buildbot-conda/env", "");
    let make = make.replace(" with the package `buildbot-conda-env`", "");
    assert_eq!(hint(&host), make);
    for prefix in ["opt/miniforge3/envs/buildbot", "opt/conda/envs/other"] {
        for file in ["conda-meta/history", "bin/python", "bin/buildbot"] {
            host.write(&format!("{prefix}/{file}"), "");
            host.set_mode(&format!("{prefix}/{file}"), 0o755);
        }
    }
    let there = "`--conda-env /opt/miniforge3/envs/buildbot` uses an existing one; or ";
    assert_eq!(hint(&host), format!("{there}{make}"));
}

#[test]
fn an_installation_ends_with_the_step_that_comes_next() {
    let host = host();
    let next = |host: &Host| {
        let said = host.run(&["service", "next-step"]);
        assert_eq!((said.status, said.stdout.as_str()), (Some(0), ""), "{said}");
        said.stderr
    };
    assert_eq!(next(&host), "");
    let wants = "etc/systemd/system/multi-user.target.wants";
    for role in ["master", "worker"] {
        let unit = format!("buildbot-{role}.service");
        host.link(
            &format!("{wants}/{unit}"),
            &format!("/usr/lib/systemd/system/{unit}"),
        );
    }
    let create = "`sudo buildbot-conda create master` and `sudo buildbot-conda create worker`\n";
    assert_eq!(next(&host), format!("buildbot-conda: next: {create}"));
    std::fs::remove_dir_all(host.path("home/bb/anaconda3")).unwrap();
    let begin = "buildbot-conda: next: `sudo buildbot-conda env create buildbot` (from the package `buildbot-conda-env`), or \
                 `sudo buildbot-conda set conda-root DIR` for an existing Conda, then ";
    assert_eq!(next(&host), format!("{begin}{create}"));
    for file in ["conda-meta/history", "bin/python"] {
        host.write(&format!("opt/conda/envs/buildbot/{file}"), "");
        host.set_mode(&format!("opt/conda/envs/buildbot/{file}"), 0o755);
    }
    let set = "`sudo buildbot-conda set conda-env /opt/conda/envs/buildbot`";
    assert_eq!(
        next(&host),
        format!("buildbot-conda: next: {set}, then {create}")
    );
    host.write("home/bb/master/buildbot.tac", "");
    let create = "`sudo buildbot-conda create worker`\n";
    assert_eq!(
        next(&host),
        format!("buildbot-conda: next: {set}, then {create}")
    );
    host.write(
        "etc/systemd/system/buildbot-worker.service",
        "[Service]\nExecStart=/bin/x\n",
    );
    assert!(next(&host).contains("next: `sudo buildbot-conda adopt --dry-run` shows"));
}

/// What an account may not pass is found by a process of that account, whatever keeps it out, behind links too.
#[test]
fn the_part_of_a_path_that_keeps_an_account_out_is_named() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let host = Host::empty();
    let binary = host.add_binary();
    for file in [
        "home/alice/mc3/conda-meta/history",
        "home/alice/mc3/bin/python3",
        "srv/worker/x",
    ] {
        host.write(file, "");
    }
    host.set_mode("home/alice/mc3/bin/python3", 0o755);
    host.link("home/alice/mc3/bin/python", "python3");
    host.link("srv/env/bin/python", "../../../home/alice/mc3/bin/python");
    host.write("srv/env/conda-meta/history", "");
    let root = host.root();
    let find = |prefix: &str, directory: &str| {
        let question =
            format!("{{\"prefix\":\"{root}{prefix}\",\"directory\":\"{root}{directory}\"}}");
        let script = "printf %s \"$1\" | setpriv --reuid=65534 --regid=65534 --clear-groups -- \"$0\" service make access -- /";
        let mut command = std::process::Command::new("sh");
        let command = command.args(["-euc", script]).arg(&binary).arg(question);
        let said = host.said(host.prepared(command));
        assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""), "{said}");
        let found: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        (
            text("path"),
            text("at"),
            found["mode"].as_u64().unwrap_or_default(),
        )
    };
    let nothing = (String::new(), String::new(), 0);
    let closed = |path: &str, at: &str, mode| (path.to_owned(), at.to_owned(), mode);
    let [conda, env, worker] = ["/home/alice/mc3", "/srv/env", "/srv/worker"];
    assert_eq!(find(conda, worker), nothing);
    assert_eq!(find(env, worker), nothing);
    assert_eq!(find("/not/there", "/not/there/either"), nothing);
    for (part, mode, prefix, directory, path) in [
        ("home/alice", 0o700, conda, worker, conda),
        ("home/alice", 0o700, env, worker, env),
        ("home/alice/mc3", 0o750, conda, worker, conda),
        ("home/alice/mc3/conda-meta", 0o711, conda, worker, conda),
        ("home/alice/mc3/bin/python3", 0o744, conda, worker, conda),
        ("srv", 0o700, conda, worker, worker),
        ("srv/worker", 0o700, env, worker, worker),
        ("srv/worker", 0o711, env, "/srv/worker/nothing", ""),
    ] {
        let before = host.mode(part);
        host.set_mode(part, mode);
        let found = find(prefix, directory);
        host.set_mode(part, before);
        let expected = if path.is_empty() {
            nothing.clone()
        } else {
            closed(path, &format!("/{part}"), u64::from(mode))
        };
        assert_eq!(found, expected, "{part}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_anything_is_done() {
    let host = host_with_master();
    for (words, expect) in [
        (
            &["create", "worker", "--conda-env=none", "--dry-run"][..],
            expect![[r#"
                status 1
                stdout:
                stderr:
                error: Conda environment `/home/bb/anaconda3/envs/none` not found
                hint: create one with the package `buildbot-conda-env`: `buildbot-conda env create none`; or specify one with `--conda-root` and `--conda-env`
            "#]],
        ),
        (
            &["create", "worker", "--conda-env=../x", "--dry-run"],
            expect![[r#"
            status 78
            stdout:
            stderr:
            error: /etc/buildbot-conda/config.toml:11:13: worker.conda-env: the environment is neither a name nor an absolute prefix
            hint: use a name below `conda-root/envs`, `base`, or an absolute prefix
        "#]],
        ),
        (
            &["create", "worker", "--master=mastr", "--dry-run"],
            expect![[r#"
            status 1
            stdout:
            stderr:
            error: `mastr` is not an instance; did you mean `master`?
        "#]],
        ),
        (
            &["create", "worker", "--master=host:x", "--dry-run"],
            expect![[r#"
            status 1
            stdout:
            stderr:
            error: `host:x` is not an address; write `HOST` or `HOST:PORT`, such as `ci.example.org:9989`
        "#]],
        ),
        (
            &["create", "worker", "--master=master@x", "--dry-run"],
            expect![[r#"
                status 1
                stdout:
                stderr:
                error: `master@x` was not created with `buildbot-conda create master`
                hint: specify the master with `--master HOST` or `--master master@NAME`
            "#]],
        ),
        (
            &[
                "create",
                "worker",
                "--directory=/home/bb/master",
                "--dry-run",
            ],
            expect![[r#"
            status 78
            stdout:
            stderr:
            error: /etc/buildbot-conda/config.toml:9:13: worker.directory: `/home/bb/master` already is the directory of `master`
            hint: use a separate directory for each instance
        "#]],
        ),
        (
            &["create", "worker", "--password-file=/nowhere", "--dry-run"],
            expect![[r#"
            status 1
            stdout:
            stderr:
            error: open `/nowhere`: No such file or directory (os error 2)
        "#]],
        ),
    ] {
        check(&host, words, &expect);
    }
}

#[test]
fn another_root_is_refused_and_an_unknown_instance_needs_no_removal() {
    let host = host_with_master();
    for (words, expect) in [
        (
            &["create", "master"][..],
            expect![[r#"
            status 1
            stdout:
            stderr:
            error: `create` changes a running system and cannot be used with `--root`
            hint: `--dry-run` shows the steps
        "#]],
        ),
        (
            &["remove", "master"],
            expect![[r#"
            status 1
            stdout:
            stderr:
            error: `remove` changes a running system and cannot be used with `--root`
            hint: `--dry-run` shows the steps
        "#]],
        ),
        (
            &["remove", "worker@none", "--dry-run"],
            expect![[r#"
                status 0
                stdout:
                # instance `worker@none` not found in `/etc/buildbot-conda/config.toml`; `buildbot-conda list` shows all instances
                stderr:
                nothing to do
            "#]],
        ),
    ] {
        check(&host, words, &expect);
    }
}

#[test]
fn names_that_are_none_are_usage_errors() {
    let host = host();
    for words in [
        &["create"][..],
        &["create", "builder"],
        &["create", "worker", "GPU"],
        &["create", "worker", "a/b"],
        &["create", "worker", "--worker-name=a b"],
        &["create", "worker", "--password=x"],
        &["create", "worker", "--password-stdin", "--password-file=x"],
        &["create", "master", "--web-port=99999"],
        &["remove"],
        &["remove", "x"],
    ] {
        assert_eq!(host.run(words).status, Some(2), "{words:?}");
    }
}

#[test]
fn a_hand_made_unit_is_for_adopt() {
    let host = host();
    host.write(
        "etc/systemd/system/buildbot-worker@.service",
        "[Service]\nExecStart=/bin/x\n",
    );
    let expect = expect![[r#"
        status 1
        stdout:
        stderr:
        error: `/etc/systemd/system/buildbot-worker@.service` overrides the package's unit
        hint: `buildbot-conda adopt` adopts it
    "#]];
    check(
        &host,
        &["create", "worker", "gpu", "--master=h:1", "--dry-run"],
        &expect,
    );
}

/// Another instance's table may have the credentials that would go along, or the list of workers.
#[test]
fn nothing_is_removed_by_a_configuration_that_cannot_be_read_whole() {
    let host = host_with_master();
    let text = host.read(CONFIGURATION) + "[\"worker@gpu\"]\ndirektory = \"x\"\n";
    host.write(CONFIGURATION, &text);
    for words in [
        &["remove", "master", "--dry-run"][..],
        &["remove", "master", "--data", "--dry-run"],
    ] {
        let said = host.run(words);
        assert_eq!(said.status, Some(78), "{said}");
        assert!(
            said.stderr.contains("worker@gpu.direktory: unknown key"),
            "{said}"
        );
    }
}

#[test]
fn removing_keeps_data_unless_told_otherwise() {
    let host = host_with_master();
    host.link(
        "etc/systemd/system/multi-user.target.wants/buildbot-master.service",
        "/usr/lib/systemd/system/buildbot-master.service",
    );
    host.write(
        "var/lib/buildbot-conda/instances/master/last-version",
        "4.3.0",
    );
    check(
        &host,
        &["remove", "master", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # kept `/home/bb/master`
            # kept `/var/lib/buildbot-conda/instances/master`
            # kept `/etc/buildbot-conda/credentials/worker-password`
            remove `/etc/systemd/system/multi-user.target.wants/buildbot-master.service`
            in `/etc/buildbot-conda/config.toml`:
                without [master]
            remove `/var/lib/buildbot-conda/created/master.json`
            stderr:
        "#]],
    );
    check(
        &host,
        &["remove", "master", "--data", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            remove `/etc/systemd/system/multi-user.target.wants/buildbot-master.service`
            in `/etc/buildbot-conda/config.toml`:
                without [master]
            remove `/var/lib/buildbot-conda/created/master.json`
            remove `/etc/buildbot-conda/credentials/worker-password`
            as `bb`, remove `/home/bb/master`
            remove `/var/lib/buildbot-conda/instances/master` and its contents
            stderr:
        "#]],
    );
}
