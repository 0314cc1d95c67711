//! A host in a directory as files: what is exported, what is refused, how differences are shown, and how they would be
//! removed. Booted machines test that this is done.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use expect_test::{Expect, expect};

use crate::house::Host;

const SUM: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const CONFIGURATION: &str = r#"# By hand.
[defaults]
user = "bb"
conda-env = "ci"

[master]
directory = "/home/bb/master"
conda-env = "/var/lib/buildbot-conda/envs/web/current"
credentials = { worker-password = "worker-password", key = "/etc/ssl/key" }

["worker@gpu"]
directory = "/srv/gpu"
environment = { LANG = "C" }
"#;

/// A host with everything that a profile can contain, and next to it a place for profiles.
fn host() -> Host {
    let host = Host::configured(CONFIGURATION);
    write_secret(
        &host,
        "etc/buildbot-conda/credentials/worker-password",
        "hidden\n",
    );
    write_secret(&host, "etc/buildbot-conda/credentials/other", "hidden\n");
    host.write("etc/ssl/key", "hidden\n");
    host.write("etc/passwd", "bb:x:100:101:Buildbot:/home/bb:/bin/bash\n");
    host.write("etc/group", "bb:x:101:\nvideo:x:44:bb\n");
    host.write(
        "var/lib/dpkg/status",
        "Package: buildbot-conda\nStatus: install ok installed\nVersion: 0.1.0\n\n\
         Package: buildbot-conda-env\nStatus: deinstall ok config-files\nVersion: 0.1.0\n",
    );
    let units = "etc/systemd/system";
    host.write(
        &format!("{units}/buildbot-master.service.d/nice.conf"),
        "[Service]\nNice=5\n",
    );
    host.write(&format!("{units}/ssh.service.d/x.conf"), "[Service]\n");
    host.write(&format!("{units}/multi-user.target.wants/x"), "");
    let of_ours = "/usr/lib/systemd/system/buildbot-master.service";
    let link = format!("{units}/multi-user.target.wants/buildbot-master.service");
    host.link(&link, of_ours);
    write_environment(
        &host,
        "home/bb/anaconda3/envs/ci",
        "https://me:pw@example.org/t/abc/noarch",
    );
    write_environment(
        &host,
        "var/lib/buildbot-conda/envs/web/111111111111",
        "https://example.org/noarch",
    );
    host.write(
        "var/lib/buildbot-conda/envs/web/111111111111/conda-meta/buildbot-conda.lock",
        "",
    );
    host.link("var/lib/buildbot-conda/envs/web/current", "111111111111");
    host.write("home/bb/master/buildbot.tac", "# tac\n");
    host.write("home/bb/master/master.cfg", "import parts\n");
    host.write("home/bb/master/parts.py", "x = 1\n");
    host.write(
        "var/lib/buildbot-conda/created/master.json",
        "{\"web_port\":8010,\"worker_port\":9989,\"worker\":\"worker\"}\n",
    );
    host.write("usr/libexec/buildbot-conda/env", "");
    host
}

/// Writes a file that root alone can read, in a directory that root alone can enter.
fn write_secret(host: &Host, path: &str, text: &str) {
    host.write(path, text);
    host.set_mode(path, 0o600);
    let (directory, _) = path.rsplit_once('/').unwrap();
    host.set_mode(directory, 0o700);
}

fn write_environment(host: &Host, prefix: &str, channel: &str) {
    let record = format!(
        r#"{{"name":"one","version":"1","build":"0","subdir":"noarch","url":"{channel}/one-1-0.conda","sha256":"{SUM}",
            "paths_data":{{"paths":[{{"_path":"file","path_type":"hardlink","sha256":"{SUM}","size_in_bytes":3}}]}}}}"#
    );
    host.write(&format!("{prefix}/conda-meta/one-1-0.json"), &record);
    host.write(&format!("{prefix}/file"), "abc");
}

fn profile(host: &Host) -> PathBuf {
    host.beside("profile")
}

/// `host` with the words of `line`; relative paths start next to the root directory.
fn run(host: &Host, line: &str) -> String {
    host.run_line(&format!("host {line}")).to_string()
}

#[track_caller]
fn check(host: &Host, line: &str, expect: &Expect) {
    expect.assert_eq(&run(host, line));
}

fn exported() -> Host {
    let host = host();
    assert!(run(&host, "export profile --with-files").starts_with("status 0"));
    host
}

fn text(host: &Host, path: &str) -> String {
    fs::read_to_string(profile(host).join(path)).unwrap()
}

#[test]
fn what_a_host_is_becomes_one_file() {
    let host = host();
    check(
        &host,
        "export profile --with-files --with-file parts.py",
        &expect![[r#"
            status 0
            stdout:
            config.toml
            environments/ci.txt
            environments/web.txt
            host.toml
            instances/master/buildbot.tac
            instances/master/master.cfg
            instances/master/parts.py
            preseed.cfg
            systemd/buildbot-master.service.d/nice.conf
            stderr:
            warning: `environments/ci.txt`: credentials in addresses of channels are omitted
        "#]],
    );
    expect![[r##"
        # Written by `buildbot-conda host export`; the format is described in buildbot-conda-host(1). It contains no secrets: credentials
        # are names of files in /etc/buildbot-conda/credentials.

        format = 1
        credentials = [
            "/etc/ssl/key",
            "other",
            "worker-password",
        ]

        [packages]
        buildbot-conda = "0.1.0"

        [units]
        "buildbot-master.service" = "enabled"
        "buildbot-worker.service" = "disabled"
        "buildbot-worker@gpu.service" = "disabled"

        [modes]
        "/etc/buildbot-conda" = "0755 root root"
        "/etc/buildbot-conda/config.toml" = "0644 root root"
        "/etc/buildbot-conda/credentials" = "0700 root root"
        "/etc/buildbot-conda/credentials/other" = "0600 root root"
        "/etc/buildbot-conda/credentials/worker-password" = "0600 root root"
        "/etc/ssl/key" = "0644 root root"
        "/etc/systemd/system/buildbot-master.service.d" = "0755 root root"
        "/etc/systemd/system/buildbot-master.service.d/nice.conf" = "0644 root root"
        "/home/bb/master" = "0755 root root"
        "/var/lib/buildbot-conda" = "0755 root root"
        "/var/lib/buildbot-conda/envs" = "0755 root root"

        [[account]]
        name = "bb"
        group = "bb"
        groups = [
            "video",
        ]
        home = "/home/bb"
        shell = "/bin/bash"
        system = true

        [[environment]]
        prefix = "/home/bb/anaconda3/envs/ci"
        kind = "conda"
        owner = "root"
        lock = "environments/ci.txt"

        [[environment]]
        prefix = "/var/lib/buildbot-conda/envs/web/current"
        kind = "managed"
        generation = "111111111111"
        lock = "environments/web.txt"

        [[instance]]
        reference = "master"
        directory = "/home/bb/master"
        user = "bb"

        [instance.files]
        "buildbot.tac" = "0644"
        "master.cfg" = "0644"
        "parts.py" = "0644"

        [instance.created]
        web_port = 8010
        worker_port = 9989
        worker = "worker"

        [[instance]]
        reference = "worker@gpu"
        directory = "/srv/gpu"
        user = "bb"
    "##]].assert_eq(&text(&host, "host.toml"));
}

#[test]
fn beside_it_are_answers_locks_and_texts_without_secrets() {
    let host = exported();
    expect![[r#"
        buildbot-conda buildbot-conda/conda-path string /home/bb/anaconda3
        buildbot-conda buildbot-conda/conda-env string ci
        buildbot-conda buildbot-conda/user string bb
        buildbot-conda buildbot-conda/services multiselect master
        buildbot-conda buildbot-conda/master-directory string /home/bb/master
    "#]]
    .assert_eq(&text(&host, "preseed.cfg"));
    expect![[r#"
        # platform: linux-64
        @EXPLICIT
        https://example.org/noarch/one-1-0.conda#sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
    "#]].assert_eq(&text(&host, "environments/ci.txt"));
    assert_eq!(text(&host, "config.toml"), CONFIGURATION);
    assert_eq!(text(&host, "instances/master/master.cfg"), "import parts\n");
    let grep = Command::new("grep")
        .args(["-r", "hidden"])
        .arg(profile(&host))
        .status();
    assert_eq!(grep.unwrap().code(), Some(1), "a secret is in the profile");
}

#[test]
fn a_second_export_keeps_to_what_the_first_one_chose_and_removes_what_is_gone() {
    let host = exported();
    check(
        &host,
        "export profile --dry-run",
        &expect![[r#"
        status 0
        stdout:
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are omitted
        `profile` is up to date
    "#]],
    );
    fs::remove_dir_all(host.path("etc/systemd/system/buildbot-master.service.d")).unwrap();
    fs::write(profile(&host).join("README"), "Mine.\n").unwrap();
    check(
        &host,
        "export profile",
        &expect![[r#"
        status 0
        stdout:
        host.toml
        systemd/buildbot-master.service.d/nice.conf
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are omitted
    "#]],
    );
    assert!(!profile(&host).join("systemd").exists());
    assert_eq!(text(&host, "README"), "Mine.\n");
    check(
        &host,
        "export profile --without-files",
        &expect![[r#"
        status 0
        stdout:
        host.toml
        instances/master/buildbot.tac
        instances/master/master.cfg
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are omitted
    "#]],
    );
    assert!(!profile(&host).join("instances").exists());
}

#[test]
fn what_other_verbs_have_set_up_is_named_where_a_profile_does_not_have_it() {
    let host = exported();
    host.write(
        "var/lib/buildbot-conda/created/master.web",
        "{\"front\":\"nginx\",\"host\":\"ci\",\"web_port\":8011,\"private\":true}\n",
    );
    host.write("var/lib/buildbot-conda/created/master.network", "{}\n");
    host.link(
        "etc/systemd/system/sockets.target.wants/buildbot-conda-metrics.socket",
        "/usr/lib/systemd/system/buildbot-conda-metrics.socket",
    );
    check(
        &host,
        "export profile",
        &expect![[r#"
        status 0
        stdout:
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are omitted
        warning: the profile does not contain that nginx serves `master` at https://ci/; `buildbot-conda web expose master --host ci` with the options of before sets it up
        warning: the profile does not contain that workers on other hosts connect to `master`; `buildbot-conda invite --master master` sets it up, and each of them has to join again
        warning: the profile does not contain that `buildbot-conda-metrics.socket` is enabled; `systemctl enable --now buildbot-conda-metrics.socket` enables it
        `profile` is up to date
    "#]],
    );
}

#[test]
fn no_file_of_a_profile_is_read_through_a_link() {
    let host = exported();
    let manifest = profile(&host).join("host.toml");
    fs::rename(&manifest, host.path("elsewhere")).unwrap();
    symlink(host.path("elsewhere"), &manifest).unwrap();
    for line in ["export profile", "verify profile"] {
        let said = run(&host, line);
        assert!(
            said.contains("`profile/host.toml` is a link or behind one"),
            "{said}"
        );
    }
}

#[test]
fn a_directory_with_other_things_is_left_alone() {
    let host = host();
    fs::create_dir(profile(&host)).unwrap();
    fs::write(profile(&host).join("thesis"), "").unwrap();
    check(
        &host,
        "export profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `profile` is not empty and not a profile
        hint: specify a separate directory
    "#]],
    );
    check(
        &host,
        "verify profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `profile` is not a profile: it contains no `host.toml`
        hint: create one with `buildbot-conda host export profile`
    "#]],
    );
}

#[test]
fn what_looks_like_a_secret_is_refused_with_its_place_and_the_ways_out() {
    let host = host();
    let text = CONFIGURATION.replace("LANG = \"C\"", "DEPLOY_TOKEN = \"abc\"");
    host.write("etc/buildbot-conda/config.toml", &text);
    let text = "c = {}\nc[\"workers\"] = [\n  worker.Worker(\"a\", \"b\"),\n]\nknown = {\"a\": \"s3same\"}\n";
    host.write("etc/buildbot-conda/credentials/worker-password", "s3same\n");
    host.write("home/bb/master/master.cfg", text);
    let drop_in = "etc/systemd/system/buildbot-master.service.d/nice.conf";
    host.write(drop_in, "[Service]\nEnvironment=API_SECRET=x\n");
    check(
        &host,
        "export profile --with-files",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: export this host: a profile must not contain secrets, nothing was written
        config.toml:13: `DEPLOY_TOKEN` is in plain text
        instances/master/master.cfg:3: `Worker` is in plain text
        instances/master/master.cfg:5: `worker-password` is in plain text
        systemd/buildbot-master.service.d/nice.conf:2: `API_SECRET` is in plain text
        hint: store it in a file of `credentials`, see buildbot-conda.toml(5); if it is not a secret, use `--not-secret config.toml:DEPLOY_TOKEN`
    "#]],
    );
    assert!(!profile(&host).exists());
    let accepted = "--not-secret config.toml:DEPLOY_TOKEN --not-secret instances/master/master.cfg:Worker \
                    --not-secret instances/master/master.cfg:worker-password \
                    --not-secret systemd/buildbot-master.service.d/nice.conf:API_SECRET";
    let said = run(&host, &format!("export profile --with-files {accepted}"));
    assert!(said.starts_with("status 0"), "{said}");
    // Once said, it holds.
    let said = run(&host, "export profile");
    assert!(said.starts_with("status 0"), "{said}");
}

#[test]
fn an_exported_host_is_what_its_profile_says() {
    let host = exported();
    check(
        &host,
        "verify profile",
        &expect![[r#"
        status 0
        stdout:
        stderr:
        this host matches `profile`
    "#]],
    );
    check(
        &host,
        "verify profile --json",
        &expect![[r#"
        status 0
        stdout:
        []
        stderr:
    "#]],
    );
    check(
        &host,
        "apply profile --dry-run",
        &expect![[r#"
        status 0
        stdout:
        stderr:
        nothing to do
    "#]],
    );
}

#[test]
fn every_difference_is_named_and_would_be_removed() {
    let host = exported();
    let text = CONFIGURATION.replace("By hand", "By foot");
    host.write("etc/buildbot-conda/config.toml", &text);
    host.write("etc/systemd/system/buildbot-.service.d/all.conf", "");
    host.write("home/bb/master/master.cfg", "import more\n");
    host.write("home/bb/anaconda3/envs/ci/file", "abd");
    host.write("var/lib/buildbot-conda/envs/web/111111111111/file", "abd");
    host.write("etc/group", "bb:x:101:\nvideo:x:44:\n");
    let status = "Package: buildbot-conda\nStatus: install ok installed\nVersion: 0.2.0\n";
    host.write("var/lib/dpkg/status", status);
    for path in [
        "etc/buildbot-conda/credentials/worker-password",
        "etc/systemd/system/buildbot-master.service.d/nice.conf",
        "etc/systemd/system/multi-user.target.wants/buildbot-master.service",
        "home/bb/master/buildbot.tac",
        "var/lib/buildbot-conda/created/master.json",
    ] {
        fs::remove_file(host.path(path)).unwrap();
    }
    host.set_mode("etc/buildbot-conda/credentials", 0o755);
    check(
        &host,
        "verify profile",
        &expect![[r#"
        status 1
        stdout:
        package `buildbot-conda`: 0.2.0, not 0.1.0
        account `bb`: system bb /home/bb /bin/bash, not system bb,video /home/bb /bin/bash
        environment `/home/bb/anaconda3/envs/ci`: changed file
        environment `/var/lib/buildbot-conda/envs/web/current`: changed file
        configuration `/etc/buildbot-conda/config.toml`: different
        unit file `/etc/systemd/system/buildbot-.service.d/all.conf`: additional
        unit file `/etc/systemd/system/buildbot-master.service.d/nice.conf`: missing
        credential `worker-password`: missing
        file `master:buildbot.tac`: missing
        file `master:master.cfg`: different
        record `master`: missing
        unit `buildbot-master.service`: disabled, not enabled
        mode of `/etc/buildbot-conda/credentials`: 0755 root root, not 0700 root root
        stderr:
    "#]],
    );
    check(
        &host,
        "apply profile --dry-run",
        &expect![[r#"
        status 0
        stdout:
        change the account `bb`: groups `video`, shell `/bin/bash`
        create generation 111111111111 of the environment `web` again
        create `/var/lib/buildbot-conda/replaced/etc/buildbot-conda`
        write `/var/lib/buildbot-conda/replaced/etc/buildbot-conda/config.toml.replaced`, mode 0600
        write `/etc/buildbot-conda/config.toml`, mode 0644
        create `/var/lib/buildbot-conda/replaced/etc/systemd/system/buildbot-.service.d`
        write `/var/lib/buildbot-conda/replaced/etc/systemd/system/buildbot-.service.d/all.conf.replaced`, mode 0644
        remove `/etc/systemd/system/buildbot-.service.d/all.conf`
        remove `/etc/systemd/system/buildbot-.service.d` if it is empty
        write `/etc/systemd/system/buildbot-master.service.d/nice.conf`, mode 0644
        write `/etc/buildbot-conda/credentials/worker-password`, mode 0600
        as `bb`, write `/home/bb/master/buildbot.tac`, mode 0644
        as `bb`, write `/home/bb/master/master.cfg`, mode 0644
        write `/var/lib/buildbot-conda/created/master.json`, mode 0644
        set owner `root`, group `root` and mode 0700 of `/etc/buildbot-conda/credentials`
        link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
        stderr:
        the credential `worker-password` is needed
        manual change needed: package `buildbot-conda`: 0.2.0, not 0.1.0
        hint: apt-get install buildbot-conda=0.1.0
        manual change needed: environment `/home/bb/anaconda3/envs/ci`: changed file
        hint: it is managed by Conda: `conda install --prefix /home/bb/anaconda3/envs/ci --file environments/ci.txt`
    "#]],
    );
}

#[test]
fn on_an_empty_host_everything_is_made_and_what_is_needed_is_said() {
    let host = exported();
    fs::remove_dir_all(host.path("")).unwrap();
    host.write("etc/passwd", "");
    check(
        &host,
        "apply profile --dry-run",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        the credential `/etc/ssl/key` is needed
        the credential `other` is needed
        the credential `worker-password` is needed
        error: `/usr/libexec/buildbot-conda/env` is not installed, it is needed to create environments
        hint: apt install buildbot-conda-env
    "#]],
    );
    host.write("usr/libexec/buildbot-conda/env", "");
    host.write("etc/ssl/other", "");
    check(
        &host,
        "apply profile --dry-run",
        &expect![[r#"
        status 0
        stdout:
        create the group `video`
        create the account `bb`, home `/home/bb`
        change the account `bb`: groups `video`, shell `/bin/bash`
        as `root`, create the environment `/home/bb/anaconda3/envs/ci`
        create the environment `web`
        create `/etc/buildbot-conda`
        write `/etc/buildbot-conda/config.toml`, mode 0644
        create `/etc/systemd/system/buildbot-master.service.d`
        write `/etc/systemd/system/buildbot-master.service.d/nice.conf`, mode 0644
        write `/etc/ssl/key`, mode 0600
        create `/etc/buildbot-conda/credentials`
        write `/etc/buildbot-conda/credentials/other`, mode 0600
        write `/etc/buildbot-conda/credentials/worker-password`, mode 0600
        as `bb`, set up a master in `/home/bb/master`: `buildbot.tac`, `master.cfg`
        create `/var/lib/buildbot-conda/created`
        write `/var/lib/buildbot-conda/created/master.json`, mode 0644
        create `/etc/systemd/system/multi-user.target.wants`
        link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
        stderr:
        the credential `/etc/ssl/key` is needed
        the credential `other` is needed
        the credential `worker-password` is needed
        manual change needed: package `buildbot-conda`: missing
        hint: apt-get install buildbot-conda=0.1.0
    "#]],
    );
    check(
        &host,
        "apply profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `host apply` changes a running system and cannot be used with `--root`
        hint: `--dry-run` shows the steps
    "#]],
    );
}

#[test]
fn a_profile_that_leads_elsewhere_or_is_of_another_format_is_refused() {
    let host = exported();
    let good = text(&host, "host.toml");
    for (from, to) in [
        ("format = 1", "format = 2"),
        ("environments/ci.txt", "../../etc/passwd"),
        ("\"master.cfg\" =", "\"../master.cfg\" ="),
        ("[packages]", "[parcels]"),
        ("\"worker-password\"", "\"../worker-password\""),
    ] {
        fs::write(profile(&host).join("host.toml"), good.replace(from, to)).unwrap();
        let said = run(&host, "verify profile");
        assert!(
            said.starts_with("status 1\nstdout:\nstderr:\nerror: "),
            "{to}: {said}"
        );
    }
    fs::write(profile(&host).join("host.toml"), &good).unwrap();
    let refused = |verb: &str, reason: &str| {
        let said = run(&host, &format!("{verb} profile"));
        assert!(
            said.starts_with("status 1") && said.contains(reason),
            "{said}"
        );
    };
    // An editor's copy would be found there and not on the host, again and again.
    let stray = profile(&host).join("systemd/buildbot-master.service.d/nice.conf~");
    fs::create_dir_all(stray.parent().unwrap()).unwrap();
    fs::write(&stray, "").unwrap();
    refused(
        "verify",
        "nice.conf~` is not a unit of buildbot-conda or a drop-in of one",
    );
    fs::remove_file(stray).unwrap();
    // What root can read is not for everyone who can write a profile.
    let file = profile(&host).join("instances/master/master.cfg");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    symlink("/etc/shadow", &file).unwrap();
    refused(
        "verify",
        "master.cfg` is a link or behind one, which a profile must not contain",
    );
    fs::remove_file(&file).unwrap();
    fs::write(&file, text).unwrap();
    let moved = good.replace(
        "directory = \"/home/bb/master\"",
        "directory = \"/srv/master\"",
    );
    assert_ne!(moved, good);
    fs::write(profile(&host).join("host.toml"), moved).unwrap();
    refused("apply --dry-run", "hint: change both");
    fs::write(profile(&host).join("host.toml"), good).unwrap();
    fs::write(profile(&host).join("config.toml"), "[master]\nx = 1\n").unwrap();
    check(
        &host,
        "apply profile --dry-run",
        &expect![[r#"
        status 78
        stdout:
        stderr:
        error: profile/config.toml:2:1: master.x: unknown key
    "#]],
    );
}

#[test]
fn an_account_that_the_package_would_make_otherwise_is_no_answer() {
    let host = host();
    let question = |host: &Host| {
        let said = run(host, "export profile");
        assert!(said.starts_with("status 0"), "{said}");
        let text = text(host, "preseed.cfg");
        let lines = text
            .lines()
            .filter(|line| line.starts_with('#') || line.contains("/user "));
        lines.collect::<Vec<_>>().join("\n") + "\n"
    };
    for (line, is_answered) in [
        ("bb:x:100:101::/home/bb:/bin/bash\n", true),
        ("bb:x:1000:101::/home/bb:/bin/bash\n", false),
        ("bb:x:100:44::/home/bb:/bin/bash\n", false),
        ("bb:x:100:101::/srv/bb:/bin/bash\n", false),
        ("bb:x:100:101::/home/bb:/bin/sh\n", false),
        ("", false),
    ] {
        host.write("etc/passwd", line);
        let text = question(&host);
        assert_eq!(text.contains("user string bb"), is_answered, "{line}{text}");
    }
    expect![[r#"
        # buildbot-conda/user has no answer: the package would create `bb` as a system account with home `/home/bb`.
        # This also happens without an answer: create the account before the installation.
    "#]]
    .assert_eq(&question(&host));
    let text = CONFIGURATION.replace(
        "user = \"bb\"",
        "user = \"ann\"\nconda-root = \"/home/bb/anaconda3\"",
    );
    host.write("etc/buildbot-conda/config.toml", &text);
    host.write("etc/passwd", "ann:x:1000:101::/home/ann:/bin/bash\n");
    expect![[r#"
        # buildbot-conda/user has no answer: the package would create `ann` as a system account with home `/home/ann`.
        # `buildbot-conda host apply` creates the account as it was.
    "#]]
    .assert_eq(&question(&host));
}

#[test]
fn variables_of_a_managed_environment_are_refused() {
    let host = host();
    let state = r#"{"version": 1, "env_vars": {"ONE": "1", "TWO": "2"}}"#;
    // Conda's own environments are left to conda.
    host.write("home/bb/anaconda3/envs/ci/conda-meta/state", state);
    let path = "var/lib/buildbot-conda/envs/web/111111111111/conda-meta/state";
    host.write(path, r#"{"version": 1, "env_vars": {}}"#);
    let said = run(&host, "export profile --dry-run");
    assert!(said.starts_with("status 0"), "{said}");
    host.write(path, state);
    check(
        &host,
        "export profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: export this host: a lock does not contain variables of a managed environment, nothing was written
        `/var/lib/buildbot-conda/envs/web/current`: `ONE`, `TWO`
        hint: set them under `environment` in `config.toml`, and create the environment from a lock
    "#]],
    );
    assert!(!profile(&host).exists());
}
