//! What systemd does not say is an error, whoever asks: nobody takes silence for a unit that runs, or for one that does
//! not.

use std::process::Command;

use crate::house::{Host, Said, said};

/// A running system in namespaces of its own: systemd is there, and the configuration is this host's.
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

fn live(host: &Host, line: &str) -> Said {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", LIVE, "sh"]);
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
fn a_systemctl_that_says_nothing_is_an_error_too() {
    for script in [
        "#!/bin/sh\n",
        "#!/bin/sh\necho Id=buildbot-worker.service\n",
    ] {
        let host = host_with_systemctl(script);
        for line in ["drain worker --dry-run", "remove worker --dry-run"] {
            let said = live(&host, line);
            assert_eq!((said.status, said.stdout.as_str()), (Some(1), ""), "{line}");
            assert!(said.stderr.starts_with("error: systemd "), "{said:?}");
        }
    }
}
