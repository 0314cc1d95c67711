//! A host in a directory as files: what is exported, what is refused, how differences are told, and what would be done
//! about them. That it is done is for the booted machines.

#![expect(
    clippy::unwrap_used,
    reason = "a test whose host cannot be set up has failed"
)]
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes its texts so"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use expect_test::{Expect, expect};
use tempfile::TempDir;

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

/// A root directory with a host in it, and beside it a place for profiles.
struct Host(TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        host.write("etc/buildbot-conda/config.toml", CONFIGURATION);
        host.write("etc/buildbot-conda/credentials/worker-password", "hidden\n");
        host.write("etc/buildbot-conda/credentials/other", "hidden\n");
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
        let wants = host.path(&format!("{units}/multi-user.target.wants"));
        let of_ours = "/usr/lib/systemd/system/buildbot-master.service";
        symlink(of_ours, wants.join("buildbot-master.service")).unwrap();
        host.environment(
            "home/bb/anaconda3/envs/ci",
            "https://me:pw@example.org/t/abc/noarch",
        );
        host.environment(
            "var/lib/buildbot-conda/envs/web/111111111111",
            "https://example.org/noarch",
        );
        host.write(
            "var/lib/buildbot-conda/envs/web/111111111111/conda-meta/buildbot-conda.lock",
            "",
        );
        let current = host.path("var/lib/buildbot-conda/envs/web/current");
        symlink("111111111111", current).unwrap();
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

    /// Whatever the umask is, modes are those of a host.
    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        let mut missing: Vec<_> = path.ancestors().skip(1).collect();
        missing.reverse();
        for directory in missing {
            if !directory.exists() {
                fs::create_dir(directory).unwrap();
                let mode = if directory.ends_with("credentials") {
                    0o700
                } else {
                    0o755
                };
                fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
        fs::write(&path, text).unwrap();
        let is_secret = path.to_str().unwrap().contains("/credentials/");
        let mode = if is_secret { 0o600 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn environment(&self, prefix: &str, channel: &str) {
        let record = format!(
            r#"{{"name":"one","version":"1","build":"0","subdir":"noarch","url":"{channel}/one-1-0.conda","sha256":"{SUM}",
                "paths_data":{{"paths":[{{"_path":"file","path_type":"hardlink","sha256":"{SUM}","size_in_bytes":3}}]}}}}"#
        );
        self.write(&format!("{prefix}/conda-meta/one-1-0.json"), &record);
        self.write(&format!("{prefix}/file"), "abc");
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join("root").join(path)
    }

    fn profile(&self) -> PathBuf {
        self.0.path().join("profile")
    }

    fn run(&self, line: &str) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_buildbot-conda"))
            .arg("--root")
            .arg(self.0.path().join("root"))
            .arg("host")
            .args(line.split(' '))
            .current_dir(self.0.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(self.path("").to_str().unwrap(), "/")
        };
        format!(
            "status {}\nstdout:\n{}stderr:\n{}",
            output.status.code().unwrap(),
            text(&output.stdout),
            text(&output.stderr)
        )
    }

    #[track_caller]
    fn check(&self, line: &str, expect: &Expect) {
        expect.assert_eq(&self.run(line));
    }

    fn exported() -> Self {
        let host = Self::new();
        assert!(
            host.run("export profile --with-files")
                .starts_with("status 0")
        );
        host
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.profile().join(path)).unwrap()
    }
}

#[test]
fn what_a_host_is_becomes_one_file() {
    let host = Host::new();
    host.check(
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
            warning: `environments/ci.txt`: credentials in addresses of channels are left out
        "#]],
    );
    expect![[r##"
        # Made by `buildbot-conda host export`; buildbot-conda-host(1) says what it means. Secrets are not in here: credentials
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
    "##]].assert_eq(&host.text("host.toml"));
}

#[test]
fn beside_it_are_answers_locks_and_texts_without_secrets() {
    let host = Host::exported();
    expect![[r#"
        buildbot-conda buildbot-conda/conda-path string /home/bb/anaconda3
        buildbot-conda buildbot-conda/conda-env string ci
        buildbot-conda buildbot-conda/user string bb
        buildbot-conda buildbot-conda/services multiselect master
        buildbot-conda buildbot-conda/master-directory string /home/bb/master
    "#]]
    .assert_eq(&host.text("preseed.cfg"));
    expect![[r#"
        # platform: linux-64
        @EXPLICIT
        https://example.org/noarch/one-1-0.conda#sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
    "#]].assert_eq(&host.text("environments/ci.txt"));
    assert_eq!(host.text("config.toml"), CONFIGURATION);
    assert_eq!(host.text("instances/master/master.cfg"), "import parts\n");
    let grep = Command::new("grep")
        .args(["-r", "hidden"])
        .arg(host.profile())
        .status();
    assert_eq!(grep.unwrap().code(), Some(1), "a secret is in the profile");
}

#[test]
fn a_second_export_keeps_to_what_the_first_one_chose_and_removes_what_is_gone() {
    let host = Host::exported();
    host.check(
        "export profile --dry-run",
        &expect![[r#"
        status 0
        stdout:
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are left out
        `profile` says that already
    "#]],
    );
    fs::remove_dir_all(host.path("etc/systemd/system/buildbot-master.service.d")).unwrap();
    fs::write(host.profile().join("README"), "Mine.\n").unwrap();
    host.check(
        "export profile",
        &expect![[r#"
        status 0
        stdout:
        host.toml
        systemd/buildbot-master.service.d/nice.conf
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are left out
    "#]],
    );
    assert!(!host.profile().join("systemd").exists());
    assert_eq!(host.text("README"), "Mine.\n");
    host.check(
        "export profile --without-files",
        &expect![[r#"
        status 0
        stdout:
        host.toml
        instances/master/buildbot.tac
        instances/master/master.cfg
        stderr:
        warning: `environments/ci.txt`: credentials in addresses of channels are left out
    "#]],
    );
    assert!(!host.profile().join("instances").exists());
}

#[test]
fn a_directory_with_other_things_is_left_alone() {
    let host = Host::new();
    fs::create_dir(host.profile()).unwrap();
    fs::write(host.profile().join("thesis"), "").unwrap();
    host.check(
        "export profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `profile` is not empty, and no profile
        hint: name a directory of its own
    "#]],
    );
    host.check(
        "verify profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `profile` is no profile: it has no `host.toml`
        hint: `buildbot-conda host export profile` makes one
    "#]],
    );
}

#[test]
fn what_looks_like_a_secret_is_refused_with_its_place_and_the_ways_out() {
    let host = Host::new();
    let text = CONFIGURATION.replace("LANG = \"C\"", "DEPLOY_TOKEN = \"abc\"");
    host.write("etc/buildbot-conda/config.toml", &text);
    let text = "c = {}\nc[\"workers\"] = [\n  worker.Worker(\"a\", \"b\"),\n]\nknown = {\"a\": \"s3same\"}\n";
    host.write("etc/buildbot-conda/credentials/worker-password", "s3same\n");
    host.write("home/bb/master/master.cfg", text);
    let drop_in = "etc/systemd/system/buildbot-master.service.d/nice.conf";
    host.write(drop_in, "[Service]\nEnvironment=API_SECRET=x\n");
    host.check("export profile --with-files", &expect![[r#"
        status 1
        stdout:
        stderr:
        error: export this host: a profile has no secrets, nothing was written
        config.toml:13: `DEPLOY_TOKEN` is given literally
        instances/master/master.cfg:3: `Worker` is given literally
        instances/master/master.cfg:5: `worker-password` is given literally
        systemd/buildbot-master.service.d/nice.conf:2: `API_SECRET` is given literally
        hint: keep it in a file of `credentials`, buildbot-conda.toml(5); what is none: `--not-secret config.toml:DEPLOY_TOKEN`
    "#]]);
    assert!(!host.profile().exists());
    let accepted = "--not-secret config.toml:DEPLOY_TOKEN --not-secret instances/master/master.cfg:Worker \
                    --not-secret instances/master/master.cfg:worker-password \
                    --not-secret systemd/buildbot-master.service.d/nice.conf:API_SECRET";
    let said = host.run(&format!("export profile --with-files {accepted}"));
    assert!(said.starts_with("status 0"), "{said}");
    // Once said, it holds.
    let said = host.run("export profile");
    assert!(said.starts_with("status 0"), "{said}");
}

#[test]
fn an_exported_host_is_what_its_profile_says() {
    let host = Host::exported();
    host.check(
        "verify profile",
        &expect![[r#"
        status 0
        stdout:
        stderr:
        this host is what `profile` says
    "#]],
    );
    host.check(
        "verify profile --json",
        &expect![[r#"
        status 0
        stdout:
        []
        stderr:
    "#]],
    );
    host.check(
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
    let host = Host::exported();
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
    let directory = host.path("etc/buildbot-conda/credentials");
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    host.check(
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
    host.check("apply profile --dry-run", &expect![[r#"
        status 0
        stdout:
        change the account `bb`: groups `video`, shell `/bin/bash`
        make generation 111111111111 of the environment `web` again
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
        give `/etc/buildbot-conda/credentials` to `root`, group `root`, mode 0700
        link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
        stderr:
        the credential `worker-password` is needed
        left to you: package `buildbot-conda`: 0.2.0, not 0.1.0
        hint: apt-get install buildbot-conda=0.1.0
        left to you: environment `/home/bb/anaconda3/envs/ci`: changed file
        hint: it is Conda's: `conda install --prefix /home/bb/anaconda3/envs/ci --file environments/ci.txt`
    "#]]);
}

#[test]
fn on_an_empty_host_everything_is_made_and_what_is_needed_is_said() {
    let host = Host::exported();
    fs::remove_dir_all(host.path("")).unwrap();
    host.write("etc/passwd", "");
    host.check(
        "apply profile --dry-run",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        the credential `/etc/ssl/key` is needed
        the credential `other` is needed
        the credential `worker-password` is needed
        error: `/usr/libexec/buildbot-conda/env` is not installed, which makes environments
        hint: apt install buildbot-conda-env
    "#]],
    );
    host.write("usr/libexec/buildbot-conda/env", "");
    host.write("etc/ssl/other", "");
    host.check("apply profile --dry-run", &expect![[r#"
        status 0
        stdout:
        create the group `video`
        create the account `bb`, home `/home/bb`
        change the account `bb`: groups `video`, shell `/bin/bash`
        as `root`, make the environment `/home/bb/anaconda3/envs/ci`
        make the environment `web`
        create `/etc/buildbot-conda`
        write `/etc/buildbot-conda/config.toml`, mode 0644
        create `/etc/systemd/system/buildbot-master.service.d`
        write `/etc/systemd/system/buildbot-master.service.d/nice.conf`, mode 0644
        write `/etc/ssl/key`, mode 0600
        create `/etc/buildbot-conda/credentials`
        write `/etc/buildbot-conda/credentials/other`, mode 0600
        write `/etc/buildbot-conda/credentials/worker-password`, mode 0600
        as `bb`, set a master up in `/home/bb/master`: `buildbot.tac`, `master.cfg`
        create `/var/lib/buildbot-conda/created`
        write `/var/lib/buildbot-conda/created/master.json`, mode 0644
        create `/etc/systemd/system/multi-user.target.wants`
        link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
        stderr:
        the credential `/etc/ssl/key` is needed
        the credential `other` is needed
        the credential `worker-password` is needed
        left to you: package `buildbot-conda`: missing
        hint: apt-get install buildbot-conda=0.1.0
    "#]]);
    host.check(
        "apply profile",
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: `host apply` acts on a running system, which `--root` leaves alone
        hint: `--dry-run` shows what it would do
    "#]],
    );
}

#[test]
fn a_profile_that_leads_elsewhere_or_is_of_another_format_is_refused() {
    let host = Host::exported();
    let good = host.text("host.toml");
    for (from, to) in [
        ("format = 1", "format = 2"),
        ("environments/ci.txt", "../../etc/passwd"),
        ("\"master.cfg\" =", "\"../master.cfg\" ="),
        ("[packages]", "[parcels]"),
        ("\"worker-password\"", "\"../worker-password\""),
    ] {
        fs::write(host.profile().join("host.toml"), good.replace(from, to)).unwrap();
        let said = host.run("verify profile");
        assert!(
            said.starts_with("status 1\nstdout:\nstderr:\nerror: "),
            "{to}: {said}"
        );
    }
    fs::write(host.profile().join("host.toml"), &good).unwrap();
    let refused = |verb: &str, reason: &str| {
        let said = host.run(&format!("{verb} profile"));
        assert!(
            said.starts_with("status 1") && said.contains(reason),
            "{said}"
        );
    };
    // An editor's copy would be found there and not on the host, again and again.
    let stray = host
        .profile()
        .join("systemd/buildbot-master.service.d/nice.conf~");
    fs::create_dir_all(stray.parent().unwrap()).unwrap();
    fs::write(&stray, "").unwrap();
    refused(
        "verify",
        "nice.conf~` is no unit of ours, nor a drop-in of one",
    );
    fs::remove_file(stray).unwrap();
    // What root can read is not for everyone who can write a profile.
    let file = host.profile().join("instances/master/master.cfg");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    symlink("/etc/shadow", &file).unwrap();
    refused("verify", "master.cfg` is a link, and a profile has none");
    fs::remove_file(&file).unwrap();
    fs::write(&file, text).unwrap();
    let moved = good.replace(
        "directory = \"/home/bb/master\"",
        "directory = \"/srv/master\"",
    );
    assert_ne!(moved, good);
    fs::write(host.profile().join("host.toml"), moved).unwrap();
    refused("apply --dry-run", "hint: change both");
    fs::write(host.profile().join("host.toml"), good).unwrap();
    fs::write(host.profile().join("config.toml"), "[master]\nx = 1\n").unwrap();
    host.check(
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
    let host = Host::new();
    let question = |host: &Host| {
        let said = host.run("export profile");
        assert!(said.starts_with("status 0"), "{said}");
        let text = host.text("preseed.cfg");
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
        # buildbot-conda/user has no answer: the package would make `bb` a system account with home `/home/bb`.
        # Without an answer it does so as well: make the account before it is installed.
    "#]]
    .assert_eq(&question(&host));
    let text = CONFIGURATION.replace(
        "user = \"bb\"",
        "user = \"ann\"\nconda-root = \"/home/bb/anaconda3\"",
    );
    host.write("etc/buildbot-conda/config.toml", &text);
    host.write("etc/passwd", "ann:x:1000:101::/home/ann:/bin/bash\n");
    expect![[r#"
        # buildbot-conda/user has no answer: the package would make `ann` a system account with home `/home/ann`.
        # `buildbot-conda host apply` makes the account as it was.
    "#]]
    .assert_eq(&question(&host));
}

#[test]
fn variables_of_a_managed_environment_are_refused() {
    let host = Host::new();
    let state = r#"{"version": 1, "env_vars": {"ONE": "1", "TWO": "2"}}"#;
    // Conda's own environments are left to conda.
    host.write("home/bb/anaconda3/envs/ci/conda-meta/state", state);
    let path = "var/lib/buildbot-conda/envs/web/111111111111/conda-meta/state";
    host.write(path, r#"{"version": 1, "env_vars": {}}"#);
    let said = host.run("export profile --dry-run");
    assert!(said.starts_with("status 0"), "{said}");
    host.write(path, state);
    host.check("export profile", &expect![[r#"
        status 1
        stdout:
        stderr:
        error: export this host: no lock brings variables of a managed environment back, nothing was written
        `/var/lib/buildbot-conda/envs/web/current`: `ONE`, `TWO`
        hint: set them under `environment` in `config.toml`, and make the environment from a lock
    "#]]);
    assert!(!host.profile().exists());
}
