//! `adopt` below a root directory: what it understands of hosts that were set up by hand, what it reports about the
//! rest, and that everything can be undone. Running units are tested on booted machines.

use std::collections::BTreeMap;
use std::fs;

use expect_test::{Expect, expect};

use crate::house::{CONFIGURATION, Host};

const UNITS: &str = "etc/systemd/system";

/// What the package writes, shortened.
const STARTER: &str = "\
# top
[defaults]
user = \"bb\"                       # account
conda-root = \"/home/bb/anaconda3\" # Conda
conda-env = \"buildbot\"

[master] # m
directory = \"/home/bb/master\"

# w
[worker]
directory = \"/home/bb/worker\"
";

const MASTER_UNIT: &str = "\
[Unit]
Description=Buildbot master
After=network.target postgresql.service

[Service]
User=builder
WorkingDirectory=/home/builder
Environment=TZ=UTC \"GREETING=good day\" PATH=/usr/bin
ExecStart=/home/builder/start-master.sh
ExecStartPre=/bin/rm -f master/twistd.pid
Restart=always
MemoryMax=2G

[Install]
WantedBy=multi-user.target
";

const MASTER_SCRIPT: &str = "\
#!/bin/bash
export PATH=/opt/conda/bin:$PATH
ulimit -n 4096
source activate ci
buildbot start --nodaemon master
";

/// The package's configuration, the account `builder`, and an environment.
fn host() -> Host {
    let host = Host::configured(STARTER);
    host.write(
        "etc/passwd",
        "root:x:0:0::/root:/bin/bash\nbuilder:x:1000:1000::/home/builder:/bin/bash\n",
    );
    host.create_directory("opt/conda/conda-meta");
    host.create_directory("opt/conda/envs/ci/conda-meta");
    host.create_directory(UNITS);
    host.write("home/builder/master/buildbot.tac", "");
    host.write("home/builder/worker/buildbot.tac", "");
    host
}

/// The same with a master by a wrapper script, enabled, with a drop-in.
fn host_with_master() -> Host {
    let host = host();
    write_unit(&host, "buildbot-master.service", MASTER_UNIT);
    enable(&host, "buildbot-master.service", "buildbot-master.service");
    write_unit(
        &host,
        "buildbot-master.service.d/override.conf",
        "[Service]\nEnvironment=TZ=CET\nRestartSec=3\n",
    );
    host.write("home/builder/start-master.sh", MASTER_SCRIPT);
    host
}

fn write_unit(host: &Host, name: &str, text: &str) {
    host.write(&format!("{UNITS}/{name}"), text);
}

fn enable(host: &Host, name: &str, file: &str) {
    let link = format!("{UNITS}/multi-user.target.wants/{name}");
    host.link(&link, &format!("/{UNITS}/{file}"));
}

/// Every file and link with its mode and text; directories may stay.
fn files(host: &Host) -> BTreeMap<String, String> {
    let mut snapshot = host.snapshot();
    snapshot.retain(|name, _| !name.ends_with('/'));
    snapshot
}

#[track_caller]
fn check(host: &Host, words: &[&str], expect: &Expect) {
    expect.assert_eq(&host.run(words).to_string());
}

#[test]
fn a_dry_run_shows_findings_and_steps_and_changes_nothing() {
    let host = host_with_master();
    let before = files(&host);
    check(
        &host,
        &["adopt", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # `master` is /etc/systemd/system/buildbot-master.service: enabled, not running
            #   directory = "/home/builder/master" (/home/builder/start-master.sh:5)
            #   user = "builder" (/etc/systemd/system/buildbot-master.service:6)
            #   conda-root = "/opt/conda" (/home/builder/start-master.sh:4)
            #   conda-env = "ci" (/home/builder/start-master.sh:4)
            #   hardening = "none" (as before)
            #   environment.GREETING = "good day" (/etc/systemd/system/buildbot-master.service:8)
            #   environment.TZ = "CET" (/etc/systemd/system/buildbot-master.service.d/override.conf:2)
            #   kept: `Restart=always` (/etc/systemd/system/buildbot-master.service:11)
            #   kept: `MemoryMax=2G` (/etc/systemd/system/buildbot-master.service:12)
            #   kept: `RestartSec=3` (/etc/systemd/system/buildbot-master.service.d/override.conf:3)
            #   kept: `Environment=PATH=/opt/conda/bin:/usr/bin` (/home/builder/start-master.sh:2)
            #   kept: `UMask=0022` (/etc/systemd/system/buildbot-master.service:1)
            #   kept: `After=postgresql.service` (/etc/systemd/system/buildbot-master.service:3)
            #   not kept: `ExecStartPre=/bin/rm -f master/twistd.pid` (/etc/systemd/system/buildbot-master.service:10)
            #   no sandbox is added; `buildbot-conda set master hardening standard` adds one
            #   set by the package's unit: Description, WantedBy, LimitNOFILE
            create `/var/backups/buildbot-conda/1`
            move `/etc/systemd/system/buildbot-master.service` to `/var/backups/buildbot-conda/1/buildbot-master.service`
            create `/var/backups/buildbot-conda/1/buildbot-master.service.d`
            move `/etc/systemd/system/buildbot-master.service.d/override.conf` to `/var/backups/buildbot-conda/1/buildbot-master.service.d/override.conf`
            create `/var/backups/buildbot-conda/1/multi-user.target.wants`
            move `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/var/backups/buildbot-conda/1/multi-user.target.wants/buildbot-master.service`
            write `/etc/systemd/system/buildbot-master.service.d/50-adopted.conf`, mode 0644
            in `/etc/buildbot-conda/config.toml`:
                master.directory = "/home/builder/master"
                master.user = "builder"
                master.conda-root = "/opt/conda"
                master.conda-env = "ci"
                master.hardening = "none"
                master.environment.GREETING = "good day"
                master.environment.TZ = "CET"
            link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
            stderr:
        "#]],
    );
    assert_eq!(files(&host), before);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one adoption from its plan to its end"
)]
fn adopting_and_going_back_leave_every_byte_as_it_was() {
    let host = host_with_master();
    let before = files(&host);
    check(
        &host,
        &["adopt"],
        &expect![[r#"
            status 0
            stdout:
            stderr:
            `master` is /etc/systemd/system/buildbot-master.service: enabled, not running
              directory = "/home/builder/master" (/home/builder/start-master.sh:5)
              user = "builder" (/etc/systemd/system/buildbot-master.service:6)
              conda-root = "/opt/conda" (/home/builder/start-master.sh:4)
              conda-env = "ci" (/home/builder/start-master.sh:4)
              hardening = "none" (as before)
              environment.GREETING = "good day" (/etc/systemd/system/buildbot-master.service:8)
              environment.TZ = "CET" (/etc/systemd/system/buildbot-master.service.d/override.conf:2)
              kept: `Restart=always` (/etc/systemd/system/buildbot-master.service:11)
              kept: `MemoryMax=2G` (/etc/systemd/system/buildbot-master.service:12)
              kept: `RestartSec=3` (/etc/systemd/system/buildbot-master.service.d/override.conf:3)
              kept: `Environment=PATH=/opt/conda/bin:/usr/bin` (/home/builder/start-master.sh:2)
              kept: `UMask=0022` (/etc/systemd/system/buildbot-master.service:1)
              kept: `After=postgresql.service` (/etc/systemd/system/buildbot-master.service:3)
              not kept: `ExecStartPre=/bin/rm -f master/twistd.pid` (/etc/systemd/system/buildbot-master.service:10)
              no sandbox is added; `buildbot-conda set master hardening standard` adds one
              set by the package's unit: Description, WantedBy, LimitNOFILE
            create `/var/backups/buildbot-conda/1`
            move `/etc/systemd/system/buildbot-master.service` to `/var/backups/buildbot-conda/1/buildbot-master.service`
            create `/var/backups/buildbot-conda/1/buildbot-master.service.d`
            move `/etc/systemd/system/buildbot-master.service.d/override.conf` to `/var/backups/buildbot-conda/1/buildbot-master.service.d/override.conf`
            create `/var/backups/buildbot-conda/1/multi-user.target.wants`
            move `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/var/backups/buildbot-conda/1/multi-user.target.wants/buildbot-master.service`
            write `/etc/systemd/system/buildbot-master.service.d/50-adopted.conf`, mode 0644
            in `/etc/buildbot-conda/config.toml`:
                master.directory = "/home/builder/master"
                master.user = "builder"
                master.conda-root = "/opt/conda"
                master.conda-env = "ci"
                master.hardening = "none"
                master.environment.GREETING = "good day"
                master.environment.TZ = "CET"
            link `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to `/usr/lib/systemd/system/buildbot-master.service`
            adopted; `buildbot-conda adopt --undo` reverts this
        "#]],
    );
    let now = files(&host);
    assert_eq!(
        now[CONFIGURATION],
        format!("0644 {STARTER}").replace(
            "directory = \"/home/bb/master\"\n",
            "directory = \"/home/builder/master\"\nuser = \"builder\"\nconda-root = \"/opt/conda\"\nconda-env = \"ci\"\nhardening = \"none\"\n\
             environment = { GREETING = \"good day\", TZ = \"CET\" }\n"
        )
    );
    assert_eq!(
        now["etc/systemd/system/multi-user.target.wants/buildbot-master.service"],
        "-> /usr/lib/systemd/system/buildbot-master.service"
    );
    assert_eq!(
        now["etc/systemd/system/buildbot-master.service.d/50-adopted.conf"],
        "0644 # Settings that `buildbot-conda adopt` kept from the previous unit.\n\n\
         [Unit]\nAfter=postgresql.service\n\n[Service]\nRestart=always\nMemoryMax=2G\nRestartSec=3\n\
         Environment=PATH=/opt/conda/bin:/usr/bin\nUMask=0022\n"
    );
    assert_eq!(
        now["var/backups/buildbot-conda/1/buildbot-master.service"],
        format!("0644 {MASTER_UNIT}")
    );
    assert!(!now.contains_key("etc/systemd/system/buildbot-master.service"));
    assert_eq!(
        host.run(&["adopt"]).to_string(),
        "status 0\nstdout:\nstderr:\nnothing to adopt in `/etc/systemd/system`\nnothing to do\n"
    );
    check(
        &host,
        &["adopt", "--undo"],
        &expect![[r#"
            status 0
            stdout:
            stderr:
            remove `/etc/systemd/system/multi-user.target.wants/buildbot-master.service`
            in `/etc/buildbot-conda/config.toml`:
                restore the previous content
            remove `/etc/systemd/system/buildbot-master.service.d/50-adopted.conf`
            move `/var/backups/buildbot-conda/1/multi-user.target.wants/buildbot-master.service` to `/etc/systemd/system/multi-user.target.wants/buildbot-master.service`
            move `/var/backups/buildbot-conda/1/buildbot-master.service.d/override.conf` to `/etc/systemd/system/buildbot-master.service.d/override.conf`
            move `/var/backups/buildbot-conda/1/buildbot-master.service` to `/etc/systemd/system/buildbot-master.service`
            remove `/var/backups/buildbot-conda/1` and its contents
            remove `/var/backups/buildbot-conda` if it is empty
            remove `/var/backups` if it is empty
            the state before `adopt` is restored
        "#]],
    );
    assert_eq!(files(&host), before);
    check(
        &host,
        &["adopt", "--undo"],
        &expect![[r#"
            status 0
            stdout:
            stderr:
            nothing was adopted on this host: `/var/backups/buildbot-conda` contains no record of it
            nothing to do
        "#]],
    );
}

#[test]
fn what_was_changed_since_survives_going_back() {
    let host = host_with_master();
    host.run(&["adopt"]);
    host.run(&["set", "worker", "log", "both"]);
    host.run(&["adopt", "--undo"]);
    let text = fs::read_to_string(host.path(CONFIGURATION)).unwrap();
    assert_eq!(text, format!("{STARTER}log = \"both\"\n"));
}

#[test]
fn a_template_is_adopted_with_its_instances() {
    let host = host();
    write_unit(
        &host,
        "buildbot-worker@.service",
        "[Service]\nUser=builder\nExecStart=/opt/conda/envs/ci/bin/buildbot-worker start --nodaemon /srv/%i\n",
    );
    for name in ["a", "b"] {
        host.write(&format!("srv/{name}/buildbot.tac"), "");
        enable(
            &host,
            &format!("buildbot-worker@{name}.service"),
            "buildbot-worker@.service",
        );
    }
    check(
        &host,
        &["adopt", "--dry-run", "worker@b"],
        &expect![[r#"
            status 0
            stdout:
            # `worker@a` is /etc/systemd/system/buildbot-worker@.service: enabled, not running
            #   directory = "/srv/a" (/etc/systemd/system/buildbot-worker@.service:3)
            #   user = "builder" (/etc/systemd/system/buildbot-worker@.service:2)
            #   conda-root = "/opt/conda" (/etc/systemd/system/buildbot-worker@.service:3)
            #   conda-env = "ci" (/etc/systemd/system/buildbot-worker@.service:3)
            #   hardening = "none" (as before)
            #   no sandbox is added; `buildbot-conda set worker@a hardening standard` adds one
            # `worker@b` is /etc/systemd/system/buildbot-worker@.service: enabled, not running
            #   directory = "/srv/b" (/etc/systemd/system/buildbot-worker@.service:3)
            #   user = "builder" (/etc/systemd/system/buildbot-worker@.service:2)
            #   conda-root = "/opt/conda" (/etc/systemd/system/buildbot-worker@.service:3)
            #   conda-env = "ci" (/etc/systemd/system/buildbot-worker@.service:3)
            #   hardening = "none" (as before)
            #   no sandbox is added; `buildbot-conda set worker@b hardening standard` adds one
            create `/var/backups/buildbot-conda/1`
            move `/etc/systemd/system/buildbot-worker@.service` to `/var/backups/buildbot-conda/1/buildbot-worker@.service`
            create `/var/backups/buildbot-conda/1/multi-user.target.wants`
            move `/etc/systemd/system/multi-user.target.wants/buildbot-worker@a.service` to `/var/backups/buildbot-conda/1/multi-user.target.wants/buildbot-worker@a.service`
            move `/etc/systemd/system/multi-user.target.wants/buildbot-worker@b.service` to `/var/backups/buildbot-conda/1/multi-user.target.wants/buildbot-worker@b.service`
            in `/etc/buildbot-conda/config.toml`:
                worker@a.directory = "/srv/a"
                worker@a.user = "builder"
                worker@a.conda-root = "/opt/conda"
                worker@a.conda-env = "ci"
                worker@a.hardening = "none"
                worker@b.directory = "/srv/b"
                worker@b.user = "builder"
                worker@b.conda-root = "/opt/conda"
                worker@b.conda-env = "ci"
                worker@b.hardening = "none"
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@a.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            link `/etc/systemd/system/multi-user.target.wants/buildbot-worker@b.service` to `/usr/lib/systemd/system/buildbot-worker@.service`
            stderr:
        "#]],
    );
}

#[test]
fn an_instance_in_the_directory_of_one_that_nobody_has_set_up_takes_its_place() {
    let host = host();
    let unit = "[Service]\nUser=builder\nExecStart=/opt/conda/envs/ci/bin/buildbot-worker start --nodaemon /home/bb/worker\n";
    write_unit(&host, "buildbot-worker@.service", unit);
    host.write("home/bb/worker/buildbot.tac", "");
    enable(
        &host,
        "buildbot-worker@main.service",
        "buildbot-worker@.service",
    );
    // As the package enables its own.
    let own = format!("{UNITS}/multi-user.target.wants/buildbot-worker.service");
    host.link(&own, "/usr/lib/systemd/system/buildbot-worker.service");
    let before = files(&host);
    // One that has run keeps its directory.
    let served = "var/lib/buildbot-conda/instances/worker/served";
    host.write(served, "");
    let refused = host.run(&["adopt"]);
    assert!(
        refused
            .stderr
            .contains("`/home/bb/worker` already is the directory of `worker`"),
        "{refused}"
    );
    fs::remove_dir_all(host.path("var/lib")).unwrap();

    let adopted = host.run(&["adopt"]);
    assert_eq!(adopted.status, Some(0), "{adopted}");
    let note = "`worker`, which has never run, gives up its table";
    assert!(adopted.stderr.contains(note), "{adopted}");
    let text = fs::read_to_string(host.path(CONFIGURATION)).unwrap();
    assert!(
        !text.contains("[worker]") && text.contains("[\"worker@main\"]"),
        "{text}"
    );
    assert!(host.path(&own).symlink_metadata().is_err());
    let main = format!("{UNITS}/multi-user.target.wants/buildbot-worker@main.service");
    assert!(host.path(&main).symlink_metadata().is_ok());

    let undone = host.run(&["adopt", "--undo"]);
    assert_eq!(undone.status, Some(0), "{undone}");
    assert_eq!(files(&host), before);
}

#[test]
fn what_is_not_understood_is_named_with_its_place_and_changes_nothing() {
    let host = host_with_master();
    host.write(
        "home/builder/start-master.sh",
        "#!/bin/bash\nsource activate \"$(cat /etc/env-name)\"\nbuildbot start --nodaemon master\n",
    );
    write_unit(
        &host,
        "buildbot-worker.service",
        "[Service]\nExecStart=/home/builder/start-worker.sh\n",
    );
    let before = files(&host);
    check(
        &host,
        &["adopt"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: some settings are not supported, nothing was changed
            /home/builder/start-master.sh:2: the value of `"$(cat /etc/env-name)"` is known only at run time
            hint: `buildbot-conda adopt master --conda-root ROOT --conda-env ENV --directory DIR` specifies the missing values
            /etc/systemd/system/buildbot-worker.service:1: without `User=` it runs as root
            hint: specify the account that runs it with `--user USER`, and make that account the owner of the directory and its contents
            /etc/systemd/system/buildbot-worker.service:2: read `/home/builder/start-worker.sh`: no such file
            hint: `buildbot-conda adopt worker --conda-root ROOT --conda-env ENV --directory DIR` specifies the missing values
        "#]],
    );
    assert_eq!(files(&host), before);
}

#[test]
fn options_fill_in_what_is_not_told() {
    let host = host();
    write_unit(
        &host,
        "buildbot-worker.service",
        "[Service]\nExecStart=/usr/local/bin/run-worker\n",
    );
    let words = [
        "adopt",
        "--dry-run",
        "--user=builder",
        "--conda-root=/opt/conda",
        "--conda-env=ci",
        "--directory=/home/builder/worker",
    ];
    check(
        &host,
        &words,
        &expect![[r#"
            status 0
            stdout:
            # `worker` is /etc/systemd/system/buildbot-worker.service: not enabled, not running
            #   directory = "/home/builder/worker" (--directory)
            #   user = "builder" (--user)
            #   conda-root = "/opt/conda" (--conda-root)
            #   conda-env = "ci" (--conda-env)
            #   hardening = "none" (as before)
            #   not kept: `/usr/local/bin/run-worker` (/etc/systemd/system/buildbot-worker.service:2)
            #   no sandbox is added; `buildbot-conda set worker hardening standard` adds one
            create `/var/backups/buildbot-conda/1`
            move `/etc/systemd/system/buildbot-worker.service` to `/var/backups/buildbot-conda/1/buildbot-worker.service`
            in `/etc/buildbot-conda/config.toml`:
                worker.directory = "/home/builder/worker"
                worker.user = "builder"
                worker.conda-root = "/opt/conda"
                worker.conda-env = "ci"
                worker.hardening = "none"
            stderr:
        "#]],
    );
}

#[test]
fn paths_that_are_not_there_are_named() {
    let host = host_with_master();
    fs::remove_file(host.path("home/builder/master/buildbot.tac")).unwrap();
    fs::remove_dir(host.path("opt/conda/envs/ci/conda-meta")).unwrap();
    check(
        &host,
        &["adopt", "--dry-run"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: some settings are not supported, nothing was changed
        /home/builder/start-master.sh:5: there is no `/home/builder/master/buildbot.tac`
        hint: specify it with `--directory DIR`
        /home/builder/start-master.sh:4: `/opt/conda/envs/ci` is not a Conda environment
        hint: specify it with `--conda-env ENV`
    "#]],
    );
}

#[test]
fn values_that_the_configuration_cannot_take_are_refused() {
    let host = host_with_master();
    host.write("home/builder/worker/buildbot.tac", "");
    write_unit(
        &host,
        "buildbot-master.service",
        &MASTER_UNIT.replace("User=builder", "User=1000"),
    );
    let before = files(&host);
    check(
        &host,
        &["adopt"],
        &expect![[r#"
            status 1
            stdout:
            stderr:
            error: some settings are not supported, nothing was changed
            /etc/systemd/system/buildbot-master.service:6: `User=1000` is not the name of an account
            hint: specify the account that runs it with `--user USER`, and make that account the owner of the directory and its contents
        "#]],
    );
    assert_eq!(files(&host), before);
}

#[test]
fn units_that_are_not_hand_made_are_left_alone() {
    let host = host();
    write_unit(
        &host,
        "buildbot-master.service",
        "[Service]\nExecStart=/usr/libexec/buildbot-conda/launcher master\n",
    );
    host.link(&format!("{UNITS}/buildbot-worker.service"), "/dev/null");
    write_unit(
        &host,
        "buildbot-helper.service",
        "[Service]\nExecStart=/bin/x\n",
    );
    write_unit(
        &host,
        "buildbot-worker@.service",
        "[Service]\nExecStart=/bin/y\n",
    );
    check(
        &host,
        &["adopt"],
        &expect![[r#"
            status 0
            stdout:
            stderr:
            nothing to adopt in `/etc/systemd/system`
            `/etc/systemd/system/buildbot-worker@.service` is not changed: nothing that it starts is enabled
            nothing to do
        "#]],
    );
    check(
        &host,
        &["adopt", "worker"],
        &expect![[r#"
        status 1
        stdout:
        stderr:
        error: no hand-written `buildbot-worker.service` in `/etc/systemd/system`
    "#]],
    );
}

#[test]
fn an_interrupted_adoption_is_taken_back_by_the_next_call() {
    let host = host_with_master();
    let before = files(&host);
    host.run(&["adopt"]);
    // As if the power had failed after the last step: the journal exists, the record does not.
    let record = host.path("var/backups/buildbot-conda/1/undo.json");
    let undo = fs::read_to_string(&record).unwrap();
    fs::remove_file(record).unwrap();
    host.write(
        "var/lib/buildbot-conda/unfinished.json",
        &format!(r#"{{"version":1,"title":"adopt","undo":{undo}}}"#),
    );
    check(
        &host,
        &["adopt", "--undo", "--dry-run"],
        &expect![[r#"
            status 0
            stdout:
            # nothing was adopted on this host: `/var/backups/buildbot-conda` contains no record of it
            stderr:
            `buildbot-conda adopt` was interrupted, rolling it back first
            nothing to do
        "#]],
    );
    check(
        &host,
        &["adopt", "--undo"],
        &expect![[r#"
            status 0
            stdout:
            stderr:
            `buildbot-conda adopt` was interrupted, rolling it back first
            nothing was adopted on this host: `/var/backups/buildbot-conda` contains no record of it
            nothing to do
        "#]],
    );
    assert_eq!(files(&host), before);
}

#[test]
fn a_step_that_fails_takes_everything_back() {
    let host = host_with_master();
    // A directory in the place of the link that would enable our unit.
    let wants = host.path(UNITS).join("multi-user.target.wants");
    fs::remove_file(wants.join("buildbot-master.service")).unwrap();
    fs::create_dir_all(wants.join("buildbot-master.service/x")).unwrap();
    host.write(
        &format!("{UNITS}/multi-user.target.wants/buildbot-master.service/x/y"),
        "",
    );
    let before = files(&host);
    let plan = host.run(&["adopt", "--dry-run"]).stdout;
    let failed = host.run(&["adopt"]);
    let step = "move `/etc/systemd/system/multi-user.target.wants/buildbot-master.service` to \
                `/var/backups/buildbot-conda/1/multi-user.target.wants/buildbot-master.service`";
    let end = format!(
        "{step}\nthis step failed, rolling back\nerror: {step}: Is a directory (os error 21); all changes were rolled back\n"
    );
    let done = failed.stderr.strip_suffix(&end).expect(&failed.stderr);
    let steps: String = plan
        .split_inclusive('\n')
        .map(|line| line.trim_start_matches("# "))
        .collect();
    assert!(
        steps.starts_with(done) && failed.status == Some(1),
        "{failed}"
    );
    assert_eq!(files(&host), before);
}

#[test]
fn what_may_be_secret_does_not_become_readable() {
    let host = host_with_master();
    let text = MASTER_UNIT.replace("TZ=UTC", "TZ=UTC API_KEY=unit-word");
    write_unit(&host, "buildbot-master.service", &text);
    host.write("home/builder/variables.sh", "NOT_EXPORTED=1\n");
    let script = "#!/bin/bash\n. ./variables.sh\nexport DB_PASS='a \"b\\$' LEVEL=3\n";
    host.write(
        "home/builder/start-master.sh",
        &MASTER_SCRIPT.replace("#!/bin/bash\n", script),
    );
    let before = files(&host);
    let said = host.run(&["adopt", "--dry-run"]).to_string();
    assert!(
        !said.contains("unit-word") && !said.contains("a \"b"),
        "{said}"
    );
    assert_eq!(host.run(&["adopt"]).status, Some(0));
    let path = "etc/buildbot-conda/credentials/master.adopted.env";
    let secrets = fs::read_to_string(host.path(path)).unwrap();
    assert!(secrets.contains("API_KEY=\"unit-word\"\n"), "{secrets}");
    assert!(
        secrets.contains("DB_PASS=\"a \\\"b\\\\\\$\"\n"),
        "{secrets}"
    );
    assert_eq!(host.mode(path), 0o600);
    let line = format!("EnvironmentFile=/{path}\n");
    for (name, text) in files(&host) {
        // Files that were moved away are readable by root only.
        if name != path && !name.starts_with("var/backups") && !name.starts_with("home/") {
            assert!(
                !text.contains("unit-word") && !text.contains("a \"b"),
                "{name}"
            );
        }
        assert_eq!(
            text.contains(&line),
            name.ends_with("50-adopted.conf"),
            "{name}"
        );
    }
    let configuration = fs::read_to_string(host.path(CONFIGURATION)).unwrap();
    assert!(configuration.contains("LEVEL") && !configuration.contains("DB_PASS"));

    assert_eq!(host.run(&["adopt", "--undo"]).status, Some(0));
    assert_eq!(files(&host), before);

    // Every exported value of a script that not everyone may read.
    host.set_mode("home/builder/start-master.sh", 0o700);
    assert_eq!(host.run(&["adopt"]).status, Some(0));
    let secrets = fs::read_to_string(host.path(path)).unwrap();
    assert!(secrets.contains("LEVEL=\"3\"\n"), "{secrets}");
}

#[test]
fn a_secret_that_no_file_of_variables_can_have_is_refused_with_its_place() {
    let host = host_with_master();
    let script = MASTER_SCRIPT.replace("ulimit -n 4096", "export TOKEN='a\nb'");
    host.write("home/builder/start-master.sh", &script);
    let said = host.run(&["adopt", "--dry-run"]);
    assert_eq!(said.status, Some(1));
    let place = "/home/builder/start-master.sh:3: `TOKEN` may be secret and contains characters";
    assert!(said.stderr.contains(place), "{said}");
}

#[test]
fn units_of_other_names_that_are_enabled_are_adopted_and_given_back() {
    let host = host();
    let unit = "[Service]\nType=forking\nUser=builder\nExecStart=/opt/conda/envs/ci/bin/buildbot start /home/builder/master\n";
    write_unit(&host, "buildmaster.service", unit);
    enable(&host, "buildmaster.service", "buildmaster.service");
    // One that nothing starts, and one that only waits for it.
    write_unit(&host, "buildbot.service", unit);
    write_unit(
        &host,
        "web.service",
        "[Unit]\nAfter=buildmaster.service\n[Service]\nExecStart=/bin/web\n",
    );
    write_unit(
        &host,
        "buildslave@.service",
        "[Service]\nUser=builder\nExecStart=/opt/conda/envs/ci/bin/buildbot-worker start --nodaemon /srv/%i\n",
    );
    host.write("srv/gpu/buildbot.tac", "");
    let link = format!("{UNITS}/ci.target.requires/buildslave@gpu.service");
    host.link(&link, &format!("/{UNITS}/buildslave@.service"));
    let before = files(&host);
    let said = host.run(&["adopt"]);
    assert_eq!(said.status, Some(0), "{said}");
    let now = files(&host);
    assert_eq!(
        now["etc/systemd/system/multi-user.target.wants/buildbot-master.service"],
        "-> /usr/lib/systemd/system/buildbot-master.service"
    );
    assert_eq!(
        now["etc/systemd/system/ci.target.requires/buildbot-worker@gpu.service"],
        "-> /usr/lib/systemd/system/buildbot-worker@.service"
    );
    for gone in [
        "buildmaster.service",
        "buildslave@.service",
        "ci.target.requires/buildslave@gpu.service",
    ] {
        assert!(!now.contains_key(&format!("{UNITS}/{gone}")), "{gone}");
    }
    assert!(now.contains_key("etc/systemd/system/buildbot.service"));
    let configuration = fs::read_to_string(host.path(CONFIGURATION)).unwrap();
    assert!(
        configuration.contains("directory = \"/srv/gpu\""),
        "{configuration}"
    );
    assert_eq!(host.run(&["adopt", "--undo"]).status, Some(0));
    assert_eq!(files(&host), before);
}

#[test]
fn a_unit_of_another_name_in_another_directory_is_named() {
    let host = host();
    let unit = "[Service]\nUser=builder\nExecStart=/opt/conda/envs/ci/bin/buildbot start /home/builder/master\n";
    host.write("usr/lib/systemd/system/buildmaster.service", unit);
    let said = host.run(&["adopt", "--dry-run"]).to_string();
    assert!(
        said.contains("usr/lib/systemd/system/buildmaster.service"),
        "{said}"
    );
    assert!(said.contains("mv --no-clobber"), "{said}");
}

#[test]
fn lines_of_a_unit_that_not_everybody_may_read_stay_so() {
    let host = host_with_master();
    let text = MASTER_UNIT.replace("MemoryMax=2G", "SetCredential=pw:unit-word");
    write_unit(&host, "buildbot-master.service", &text);
    host.set_mode(&format!("{UNITS}/buildbot-master.service"), 0o600);
    let said = host.run(&["adopt"]);
    assert_eq!(said.status, Some(0), "{said}");
    assert!(!said.to_string().contains("unit-word"), "{said}");
    assert_eq!(
        host.mode("etc/systemd/system/buildbot-master.service.d/50-adopted.conf"),
        0o600
    );
}
