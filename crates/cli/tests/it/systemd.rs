//! A missing answer of systemd is an error for every command: it never means that a unit runs, or that it does not.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::house::{Host, Said, said, write_program};

/// A running system in separate namespaces: systemd is present, and the configuration is this host's.
const LIVE: &str = "set -e
mount -t overlay -o \"lowerdir=${PATH%%:*}:/usr/bin\" overlay /usr/bin
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir /mnt/etc
cp /etc/passwd /etc/group /etc/nsswitch.conf /mnt/etc
cp -r \"$ROOT/etc/.\" /mnt/etc
mount --bind /mnt/etc /etc
exec \"$BINARY\" \"$@\"";

pub(crate) fn live(host: &Host, line: &str) -> Said {
    live_after(host, "true", line)
}

/// After another command of the shell, which may change the host.
fn live_after(host: &Host, change: &str, line: &str) -> Said {
    let mut command = Command::new("unshare");
    let script = LIVE.replace("exec ", &format!("{change}\nexec "));
    command.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    command.args(line.split(' '));
    host.said(host.prepared(&mut command))
}

fn host_with_systemctl(script: &str) -> Host {
    let host = Host::configured(
        "[defaults]\nuser = \"root\"\nconda-env = \"/opt/env\"\n\n[worker]\ndirectory = \"/srv/worker\"\n",
    );
    host.write(
        "etc/systemd/system/buildbot-master@hand.service",
        "[Service]\nExecStart=/bin/false\n",
    );
    host.add_program("systemctl", script);
    host
}

#[test]
fn a_systemctl_that_fails_is_an_error_for_every_verb() {
    let host = host_with_systemctl(
        "#!/bin/sh\nprintf 'Failed to connect to bus:\\033[31m Host is down\\n' >&2\nexit 1\n",
    );
    let reason = "failed: Failed to connect to bus:\\u{1b}[31m Host is down\n";
    for (line, asked) in [
        ("list", "show buildbot-worker.service"),
        ("status worker", "show buildbot-worker.service"),
        ("drain worker", "show buildbot-worker.service"),
        ("drain worker --dry-run", "show buildbot-worker.service"),
        ("remove worker --dry-run", "show buildbot-worker.service"),
        ("adopt --dry-run", "list-units buildbot-master@hand.service"),
    ] {
        let expect = said(1, "", &format!("error: `systemctl {asked}` {reason}"));
        assert_eq!(live(&host, line), expect, "{line}");
    }
    let hint = "hint: `buildbot-conda status worker` shows why\n";
    let expect = format!("error: `systemctl reload buildbot-worker.service` {reason}{hint}");
    assert_eq!(live(&host, "service reload worker"), said(1, "", &expect));
}

#[test]
fn a_standby_is_shown_as_such_and_is_not_down() {
    let host = Host::configured("[master]\nuser = \"root\"\nconda-env = \"/opt/env\"\n");
    let message = "standby: `farm` is used by `master on hosta` (10.0.0.7)";
    host.add_program(
        "systemctl",
        &format!(
            "#!/bin/sh\nprintf '%s\\n' Id=buildbot-master.service LoadState=loaded ActiveState=active MainPID=1 \
             UnitFileState=enabled 'StatusText={message}'\n"
        ),
    );
    let change = r#"mkdir -p /run/buildbot-conda/master
        echo '{"version":1,"state":"standby","pid":1}' > /run/buildbot-conda/master/status.json"#;
    let listed = live_after(&host, change, "list --fail-if-down");
    assert_eq!(listed.status, Some(0), "{listed:?}");
    let line = listed.stdout.lines().nth(1).unwrap_or_default();
    assert!(line.starts_with("master    standby"), "{listed:?}");
    assert!(listed.stdout.contains("is used by"), "{listed:?}");
    let json = live_after(&host, change, "status master --fail-if-down --json");
    assert_eq!(json.status, Some(0), "{json:?}");
    assert!(json.stdout.contains("\"state\": \"standby\""), "{json:?}");
    // It has no builds to wait for.
    let drained = live_after(&host, change, "drain master --dry-run");
    let expect = said(0, "systemctl stop buildbot-master.service\n", "");
    assert_eq!(drained, expect);
    // Output from before the exit does not concern the process that runs now.
    let other = live_after(&host, &change.replace(":1}", ":2}"), "list");
    assert!(!other.stdout.contains("master    standby"), "{other:?}");
}

#[test]
fn a_standby_is_reloaded_after_a_check_and_stopped_without_a_word() {
    let host = Host::empty();
    let root = host.root();
    host.write(
        "etc/buildbot-conda/config.toml",
        &format!(
            "[master]\nuser = \"root\"\nconda-env = \"{root}/env\"\ndirectory = \"{root}/master\"\n"
        ),
    );
    host.write("env/conda-meta/history", "");
    host.create_directory("env/bin");
    host.create_directory("master");
    let python = host.path("env/bin/python");
    // It records every signal; the directory of the host is visible from here.
    let change = r#"(trap 'echo HUP >> "$ROOT/got"' HUP; trap 'echo USR1 >> "$ROOT/got"' USR1
          for i in $(seq 100); do sleep 0.1; done) >/dev/null 2>&1 &
        export MAINPID=$!
        mkdir -p /run/buildbot-conda/master
        echo "{\"version\":1,\"state\":\"standby\",\"pid\":$MAINPID}" > /run/buildbot-conda/master/status.json"#;
    let got = || fs::read_to_string(host.path("got")).unwrap_or_default();

    let stopped = live_after(&host, change, "service stop master --credentials /none");
    assert_eq!(stopped, said(0, "", ""));
    write_program(&python, "#!/bin/sh\necho 'no such option'\nexit 1\n");
    let reload = "service reload master --credentials /none";
    let refused = live_after(&host, change, reload);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no such option"), "{refused:?}");
    assert_eq!(got(), "");
    write_program(&python, "#!/bin/sh\nprintf '\\nchecked to the end\\n'\n");
    assert_eq!(live_after(&host, change, reload), said(0, "", ""));
    let deadline = Instant::now() + Duration::from_secs(20);
    while got().is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(got(), "HUP\n");
}

#[test]
fn a_systemctl_that_says_nothing_is_an_error_too() {
    for (script, reason) in [
        ("#!/bin/sh\n", "error: systemd returned no state of `"),
        (
            "#!/bin/sh\necho Id=buildbot-worker.service\n",
            "error: unknown state of `",
        ),
    ] {
        let host = host_with_systemctl(script);
        for line in ["drain worker --dry-run", "remove worker --dry-run"] {
            let said = live(&host, line);
            assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""), "{line}");
            assert!(said.stderr.starts_with(reason), "{said:?}");
        }
    }
}

#[test]
fn a_system_without_systemctl_is_one_without_systemd() {
    let host = host_with_systemctl("");
    let expect = said(
        1,
        "",
        "error: run `systemctl`: not installed, it is needed to manage services\n\
         hint: install the package `systemd`, or run this command on the host of the services\n",
    );
    for line in [
        "list",
        "status worker",
        "drain worker",
        "drain worker --dry-run",
        "remove worker --dry-run",
    ] {
        // `/bin` is the same directory.
        let said = live_after(&host, "mount -t tmpfs tmpfs /usr/bin", line);
        assert_eq!(said, expect, "{line}");
    }
}

const STRICT: &str = "[defaults]\nuser = \"root\"\nconda-env = \"/opt/env\"\n\n[worker]\ndirectory = \"/srv/worker\"\n\
                      hardening = \"strict\"\n\n[\"worker@gpu\"]\ndirectory = \"/srv/gpu\"\n";

#[test]
fn check_refuses_the_strict_sandbox_below_systemd_250() {
    for (version, is_refused) in [
        ("247", true),
        ("249.11-0ubuntu3", true),
        ("250", false),
        ("257", false),
    ] {
        let host = Host::configured(STRICT);
        host.write(
            &format!("usr/lib/systemd/libsystemd-shared-{version}.so"),
            "",
        );
        let number = &version[..3];
        let expect = if is_refused {
            let refusal = format!(
                "error: `hardening = \"strict\"` of `worker` needs systemd 250, and this host has {number}\n\
                 hint: choose `hardening = \"standard\"`\n"
            );
            said(1, "", &refusal)
        } else {
            said(
                0,
                "/etc/buildbot-conda/config.toml: valid, 2 instances\n",
                "",
            )
        };
        assert_eq!(host.run(&["check"]), expect, "{version}");
    }
}

#[test]
fn the_doctor_names_the_strict_sandbox_below_systemd_250() {
    for (version, is_named) in [(249, true), (250, false)] {
        let host = Host::configured(STRICT);
        host.add_program(
            "systemctl",
            &format!("#!/bin/sh\necho 'systemd {version} ({version}.1)'\n"),
        );
        let stdout = live(&host, "doctor --only system").stdout;
        let problem = "problem: worker: system: `hardening = \"strict\"` needs systemd 250, and this host has 249\n\
                       \x20   buildbot-conda set worker hardening standard\n";
        assert_eq!(stdout.contains(problem), is_named, "{stdout}");
        assert!(!stdout.contains("worker@gpu: system"), "{stdout}");
    }
}
