//! What root has done by a service user stays that user's, where systemd does not run: no terminal, descriptor or file of
//! root's, no verb that waits for ever, nothing left behind. With systemd it is tested on booted machines.

use buildbot_conda_package_tests::{DebianRoot, Outcome, Release, on_each_release};

on_each_release! {
    commands_have_no_terminal_and_no_descriptor_of_roots,
    a_stopped_command_is_ended_by_a_signal_with_all_that_it_has_started,
    a_command_that_prints_without_end_is_ended,
    what_root_runs_on_a_terminal_has_another_one,
    roots_run_enters_no_environment_of_others,
    restore_opens_nothing_that_the_service_user_has_chosen,
    a_profile_is_applied_only_where_root_or_one_person_can_write_it,
}

/// A backup's name.
const BACKUP: &str = "20261122T123456Z-buildbot-4.3.0-schema-067.sqlite";

/// Installs the package, and a Python that is a shell script of the service user's.
const SET_UP: &str = r"
cd /home/bb
mkdir -p anaconda3/conda-meta anaconda3/envs/buildbot/bin anaconda3/envs/buildbot/conda-meta master worker
printf '#!/bin/sh\nexec sh /home/bb/trick\n' >anaconda3/envs/buildbot/bin/python
chmod 755 anaconda3/envs/buildbot/bin/python
touch anaconda3/conda-meta/history anaconda3/envs/buildbot/conda-meta/history
chown -R bb:bb /home/bb
";

/// A host whose environment has this Python.
#[track_caller]
fn host(release: Release, trick: &str) -> DebianRoot {
    let root = DebianRoot::new(release);
    root.install();
    root.must(SET_UP);
    root.write("/home/bb/trick", &format!("{trick}\n"));
    root
}

/// A shell script with a terminal as its input, output and controlling terminal.
#[track_caller]
fn on_a_terminal(root: &DebianRoot, script: &str) -> Outcome {
    root.write("/root/script", &format!("{script}\n"));
    root.run("script --quiet --return --flush --command 'sh /root/script' /dev/null </dev/null")
}

fn commands_have_no_terminal_and_no_descriptor_of_roots(release: Release) {
    let trick = "{ echo begun; (: </dev/tty) 2>/dev/null && echo terminal; ls -l /proc/$$/fd; } >>/home/bb/log 2>&1; exit 1";
    let root = host(release, trick);
    root.must("echo secret >/root/secret");
    let script = format!(
        "exec 7</root/secret; for words in 'backup master' 'upgrade master' 'doctor'; do buildbot-conda $words; done; \
         printf 'SQLite format 3\\0' >/root/{BACKUP}; buildbot-conda restore master /root/{BACKUP}"
    );
    on_a_terminal(&root, &script);
    let log = root.text("/home/bb/log");
    assert!(log.matches("begun").count() >= 4, "{log}");
    for taken in ["terminal", "/root/secret", "/dev/pts"] {
        assert!(!log.contains(taken), "{log}");
    }
}

fn a_stopped_command_is_ended_by_a_signal_with_all_that_it_has_started(release: Release) {
    let trick = "setsid sleep 1000 & (sleep 1000 &) ; touch /home/bb/stops; kill -STOP $$";
    let root = host(release, trick);
    for (verb, signal, status) in [
        ("backup master", "TERM", 143),
        ("upgrade master", "HUP", 129),
        ("doctor", "INT", 130),
    ] {
        let outcome = root.run(&format!(
            "rm -f /home/bb/stops
             setsid env --default-signal=INT,HUP buildbot-conda {verb} & pid=$!
             for i in $(seq 600); do [ ! -e /home/bb/stops ] || break; sleep 0.1; done
             kill -{signal} $pid
             for i in $(seq 200); do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
             kill -KILL $pid 2>/dev/null || :
             wait $pid || echo \"status $?\"
             find /proc -maxdepth 1 -user bb"
        ));
        let said = outcome.stdout.lines().collect::<Vec<_>>();
        assert_eq!(said, [format!("status {status}")], "{verb}: {outcome:?}");
    }
}

fn a_command_that_prints_without_end_is_ended(release: Release) {
    let root = host(release, "exec yes");
    for (trick, message) in [
        ("exec yes >&2", "printed more than"),
        ("exec tr '\\0' x </dev/zero >&2", "printed more than"),
    ] {
        root.write("/home/bb/trick", &format!("{trick}\n"));
        // In the memory that a hundred megabytes of text would not fit into.
        let outcome = root.run("ulimit -v 400000; timeout 300 buildbot-conda backup master");
        assert!(
            outcome.status != 0 && outcome.status != 124 && outcome.stderr.contains(message),
            "{trick}: {}",
            outcome.status
        );
    }
}

fn what_root_runs_on_a_terminal_has_another_one(release: Release) {
    let root = host(release, "");
    root.must("echo secret >/root/secret");
    let shown = "tty; for n in 0 1 2; do readlink /proc/$$/fd/$n; done; ls -l /proc/$$/fd; exit 7";
    let script = format!(
        "exec 7</root/secret
         echo own $(tty)
         buildbot-conda run master -- sh -c '{shown}' </dev/null; echo status $?
         buildbot-conda run master -- sh -c '{shown}' >/root/out; echo status $?"
    );
    let outcome = on_a_terminal(&root, &script);
    let text = outcome.stdout.replace('\r', "");
    let lines: Vec<&str> = text.lines().collect();
    let own = lines[0].trim_start_matches("own ");
    assert_eq!(lines[1..3], ["not a tty", "/dev/null"], "{text}");
    for line in &lines[3..5] {
        assert!(line.starts_with("/dev/pts/") && *line != own, "{text}");
    }
    assert_eq!(text.matches("status 7").count(), 2, "{text}");
    assert!(!text.contains("/root/secret"), "{text}");
    // A file stays one, with the bytes that the command has written.
    let out = root.text("/root/out");
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("/dev/pts/") && lines[0] != own,
        "{out}"
    );
    assert!(
        lines[2].ends_with("/root/out") && !out.contains('\r'),
        "{out}"
    );
}

fn roots_run_enters_no_environment_of_others(release: Release) {
    let root = host(release, "");
    root.must(
        "mkdir -p /home/bb/anaconda3/etc/conda/activate.d
         echo 'id -u >/home/bb/entered' >/home/bb/anaconda3/etc/conda/activate.d/trap.sh
         cp -a /home/bb/anaconda3 /opt/conda
         chown -R root:root /opt/conda; chown -R bb /opt/conda/etc/conda/activate.d",
    );
    let user = root.must("id -u bb");
    let outcome = root.run("buildbot-conda run --conda-root /home/bb/anaconda3 -- id -u");
    assert_eq!((outcome.status, outcome.stdout), (0, user.clone()));
    assert_eq!(root.text("/home/bb/entered"), user);
    let outcome = root.run("buildbot-conda run --conda-root /opt/conda -- id -u");
    assert_eq!(outcome.status, 1, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("root would run what others have put there"),
        "{outcome:?}"
    );
    assert_eq!(root.text("/home/bb/entered"), user);
    root.must("chown -R root:root /opt/conda");
    let outcome = root.run("buildbot-conda run --conda-root /opt/conda -- id -u");
    assert_eq!((outcome.status, outcome.stdout.as_str()), (0, "0\n"));
}

fn restore_opens_nothing_that_the_service_user_has_chosen(release: Release) {
    let root = host(release, "exit 1");
    let state = "/var/lib/buildbot-conda/instances/master";
    let backups = "/var/lib/buildbot-conda/backups/master";
    root.must(&format!(
        "mkdir -p {state} {backups}; chown bb:bb {state} {backups}; chmod 700 {state} {backups}
         printf 'SQLite format 3\\0rest' >/root/{BACKUP}; chmod 600 /root/{BACKUP}
         mkdir /root/kept; mv /root/{BACKUP} /root/kept; cp /etc/shadow /root/{BACKUP}
         cd /home/bb; ln -s /etc/shadow {BACKUP}; ln -s /root/kept kept; mkdir pipe; mkfifo pipe/{BACKUP}"
    ));
    for (path, reason) in [
        (format!("/home/bb/{BACKUP}"), "which is owned by user"),
        (format!("/home/bb/kept/{BACKUP}"), "which is owned by user"),
        (format!("/home/bb/pipe/{BACKUP}"), "is not a regular file"),
        (format!("/root/{BACKUP}"), "is not a `SQLite` database"),
    ] {
        let outcome = root.run(&format!("timeout 60 buildbot-conda restore master {path}"));
        assert_eq!(outcome.status, 1, "{path}: {outcome:?}");
        assert!(outcome.stderr.contains(reason), "{path}: {outcome:?}");
        assert_eq!(root.must(&format!("ls {backups}")), "", "{path}");
    }
    // The path that `backup` prints is the user's to replace: root does not open it.
    root.must(&format!("ln -s /etc/shadow {backups}/{BACKUP}"));
    let outcome = root.run(&format!("buildbot-conda restore master {backups}/{BACKUP}"));
    assert!(!outcome.talk().contains("root:"), "{outcome:?}");
    root.must(&format!("rm {backups}/{BACKUP}"));
    // A file that only root can have put there is passed on, and a file that the user can read is the user's to read.
    for place in ["/root/kept", "/srv"] {
        root.must(&format!(
            "cp -n /root/kept/{BACKUP} /srv; chmod 644 /srv/{BACKUP}"
        ));
        root.run(&format!("buildbot-conda restore master {place}/{BACKUP}"));
        let taken = root.must(&format!("cat {backups}/{BACKUP}; rm {backups}/{BACKUP}"));
        assert!(taken.ends_with("rest"), "{place}: {taken}");
    }
}

fn a_profile_is_applied_only_where_root_or_one_person_can_write_it(release: Release) {
    let root = DebianRoot::installed(release);
    root.must("useradd --create-home ada; buildbot-conda host export /srv/profile");
    let apply = "buildbot-conda host apply --dry-run /srv/profile";
    for (change, reason) in [
        ("true", None),
        ("chown -R ada:ada /srv/profile", None),
        ("chmod -R g+w /srv/profile", None),
        (
            "chgrp -R bb /srv/profile",
            Some("is writable by accounts other than root"),
        ),
        (
            "chown -R root:root /srv/profile; chmod -R go-w /srv/profile; chown ada /srv/profile/config.toml",
            Some("is owned by user"),
        ),
        (
            "chown -R bb:bb /srv/profile",
            Some("`/srv/profile` belongs to `bb`, who runs `master`"),
        ),
    ] {
        root.must(change);
        let outcome = root.run(apply);
        match reason {
            None => assert_eq!(outcome.status, 0, "{change}: {outcome:?}"),
            Some(reason) => assert!(
                outcome.status == 1 && outcome.stderr.contains(reason),
                "{change}: {outcome:?}"
            ),
        }
    }
}
