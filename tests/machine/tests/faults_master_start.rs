//! Starts of the master that cannot succeed: a permanent error makes it `failed` at once, with the reason in Buildbot's
//! words; a temporary one is retried, with the reason each time, until it succeeds.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use buildbot_conda_machine::{
    MASTER, Machine, Outcome, PREFIX, Release, Rest, Scenarios, Unit, fault, master_configuration,
    on_each_release, set_up,
};

on_each_release! {
    a_configuration_that_cannot_work_fails_once_in_buildbots_words,
    files_that_are_odd_or_not_there_fail_once,
    a_configuration_that_does_not_end_fails_once,
    what_is_away_is_tried_again_until_it_is_there,
    a_full_or_read_only_disk_is_named_and_got_over,
}

const TAC: &str = "/home/bb/master/buildbot.tac";
const CONFIGURATION: &str = "/home/bb/master/master.cfg";

/// A start that fails, from its job to systemd's answer, on a busy machine: far below the time-out of 90 seconds.
const BOUND: Duration = Duration::from_mins(1);

/// Starts the master, which must fail permanently with status 78 and show each of `words` in the journal, and the first
/// of them on the status line as well; then resets it.
fn ensure_fails_once(machine: &Machine, words: &[&str]) -> Outcome {
    let shown = words.first().copied().unwrap_or_default();
    ensure_fails_with(machine, 78, shown, words)
}

/// The same with another `exit` status, and with `shown` on the status line.
fn ensure_fails_with(machine: &Machine, exit: u8, shown: &str, words: &[&str]) -> Outcome {
    let master = Unit::master(machine);
    let before = machine.journal_cursor()?;
    let begun = Instant::now();
    let page = master.fail("start")?;
    ensure!(begun.elapsed() < BOUND, "it took {:?}", begun.elapsed());
    master.ensure_failed_once(exit)?;
    let status = master.status_text()?;
    let journal = machine.journal_after("buildbot-master.service", &before)?;
    // A path, what a program has said last, and a hint.
    ensure!(
        status.contains(shown) && status.chars().count() <= 420,
        "the status line is not short, or does not contain `{shown}`: `{status}`\n{page}\n{journal}"
    );
    for word in words {
        ensure!(journal.contains(word), "no `{word}` in\n{journal}");
    }
    master.succeed("reset-failed")
}

/// The same with a `master.cfg` of `text`.
fn ensure_refuses(machine: &Machine, text: &str, words: &[&str]) -> Outcome {
    machine.write_file(CONFIGURATION, text, "0600", "bb")?;
    ensure_fails_once(machine, words)
}

fn a_configuration_that_cannot_work_fails_once_in_buildbots_words(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let good = master_configuration();
    let mut scenarios = Scenarios::new(|| {
        machine.write_file(CONFIGURATION, &good, "0600", "bb")?;
        machine.run(&["systemctl", "reset-failed"])?.succeeded()?;
        Ok(())
    });
    let mut show = |row: &str, show: &dyn Fn() -> Outcome| {
        scenarios.run(row, || fault(row, release, show));
    };

    show("broken-master-cfg", &|| {
        let unknown_key = format!("{good}c['mistake'] = True\n");
        let words = ["Unknown BuildmasterConfig key mistake", "master.cfg"];
        ensure_refuses(&machine, &unknown_key, &words)?;
        let no_module = format!("{good}import no_such_module\n");
        let words = ["No module named 'no_such_module'", "master.cfg"];
        ensure_refuses(&machine, &no_module, &words)?;
        ensure_refuses(
            &machine,
            &format!("{good}c = [\n"),
            &["was never closed", "master.cfg"],
        )
    });
    show("missing-plugin", &|| {
        let view = good.replace(r#""plugins": {}"#, r#""plugins": {"no_such_view": {}}"#);
        ensure_refuses(&machine, &view, &["no_such_view", "is it installed?"])
    });
    show("system-exit", &|| {
        ensure_refuses(
            &machine,
            &format!("{good}raise SystemExit\n"),
            &["SystemExit"],
        )?;
        ensure_refuses(
            &machine,
            &format!("{good}raise SystemExit(0)\n"),
            &["SystemExit"],
        )
    });
    show("exit-in-configuration", &|| {
        let exit = "import os\nos._exit(0)\n";
        ensure_refuses(
            &machine,
            &format!("{good}{exit}"),
            &["os._exit(0)", "master.cfg"],
        )?;
        let daemon = "import os\nif os.fork():\n    os._exit(0)\nos.setsid()\n";
        ensure_refuses(
            &machine,
            &format!("{good}{daemon}"),
            &["os._exit(0)", "master.cfg"],
        )?;
        let left = machine.shell("for p in /proc/[0-9]*; do readlink $p/exe || true; done")?;
        ensure!(!left.stdout.contains("python"), "something is left: {left}");
        Ok(())
    });
    show("long-error", &|| {
        let keys = "for number in range(500):\n    c['wrong%d' % number] = 1\n";
        ensure_refuses(&machine, &format!("{good}{keys}"), &["wrong0", "wrong499"])
    });
    show("privileged-port", &|| {
        let port = good.replace("tcp:8010:", "tcp:80:");
        ensure_refuses(&machine, &port, &["80", "Permission denied"])
    });
    scenarios.finish()
}

fn files_that_are_odd_or_not_there_fail_once(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let good = master_configuration();
    let tac = machine.read_file(TAC)?;

    fault("odd-configuration", release, || {
        let shell = |script: &str| {
            machine
                .shell(&format!("cd {MASTER}; {script}"))?
                .succeeded()
        };
        shell("rm master.cfg; mkdir master.cfg")?;
        ensure_fails_once(&machine, &["master.cfg"])?;
        shell("rmdir master.cfg")?;
        ensure_fails_once(&machine, &["master.cfg"])?;
        machine.write_file(CONFIGURATION, &good, "0000", "bb")?;
        ensure_fails_once(&machine, &["Permission denied", "master.cfg"])?;
        shell(
            r#"printf 'c = BuildmasterConfig = {}\nx = "\351"\n' >master.cfg; chmod 600 master.cfg"#,
        )?;
        ensure_fails_once(&machine, &["utf-8", "master.cfg"])?;
        ensure_refuses(&machine, "", &["BuildmasterConfig"])?;
        machine.write_file(CONFIGURATION, &good, "0600", "bb")?;
        shell("ln -sf /nowhere/buildbot.tac buildbot.tac")?;
        ensure_fails_once(&machine, &["buildbot.tac"])?;
        shell("rm buildbot.tac")?;
        Ok(())
    })?;
    fault("missing-tac", release, || {
        ensure_fails_once(&machine, &["buildbot.tac", MASTER])
    })?;
    fault("broken-tac", release, || {
        machine.write_file(TAC, &format!("{tac}\n)\n"), "0600", "bb")?;
        ensure_fails_once(&machine, &["unmatched ')'", "buildbot.tac"])?;
        machine.write_file(TAC, &format!("{tac}\nno_such_name\n"), "0600", "bb")?;
        ensure_fails_once(&machine, &["no_such_name", "buildbot.tac"])?;
        machine.write_file(TAC, &format!("{tac}\nraise SystemExit\n"), "0600", "bb")?;
        ensure_fails_once(&machine, &["SystemExit", "buildbot.tac"])
    })?;
    fault("environment-removed", release, || {
        let master = Unit::master(&machine);
        machine.write_file(TAC, &tac, "0600", "bb")?;
        master.succeed("start")?;
        machine
            .run(&["mv", PREFIX, "/root/moved-away"])?
            .succeeded()?;
        master.fail("restart")?;
        master.ensure_failed_once(78)?;
        let journal = master.journal()?;
        ensure!(journal.contains(PREFIX), "the prefix is not in\n{journal}");
        machine
            .run(&["mv", "/root/moved-away", PREFIX])?
            .succeeded()?;
        // Nothing of all this has done lasting harm.
        master.succeed("start")?;
        ensure!(Rest::new(&machine).answers());
        Ok(())
    })
}

fn a_configuration_that_does_not_end_fails_once(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    machine
        .shell("buildbot-conda set master start-timeout 20s; systemctl daemon-reload")?
        .succeeded()?;
    let good = master_configuration();

    fault("endless-loop", release, || {
        let words = ["did not finish within 20 s", "master.cfg"];
        ensure_refuses(&machine, &format!("{good}while True:\n    pass\n"), &words)?;
        let forever = format!("{good}import threading\nthreading.Event().wait()\n");
        ensure_refuses(&machine, &forever, &words)?;
        // Never lets another thread of the interpreter run: SIGALRM terminates it, and the stacks show where.
        let alone = format!("{good}import itertools\nsum(itertools.repeat(0))\n");
        machine.write_file(CONFIGURATION, &alone, "0600", "bb")?;
        ensure_fails_with(&machine, 14, "reading master.cfg", &["master.cfg\", line"])
    })?;
    fault("activation-script", release, || {
        machine.write_file(CONFIGURATION, &good, "0600", "bb")?;
        let script = format!("{PREFIX}/etc/conda/activate.d/foo.sh");
        let put = |text: &str| machine.write_file(&script, text, "0644", "root");
        for (text, words) in [
            (
                "[ -n \"$FOO\" ] || exit 0\n",
                ["foo.sh` ended its shell with status 0", "hint: "],
            ),
            (
                "echo no licence\nexit 1\n",
                ["with status 1: no licence", "\nno licence"],
            ),
            (
                "set -u\n: $FOO\n",
                ["FOO: unbound variable", "foo.sh` ended its shell"],
            ),
            (
                "echo waiting\nsleep 1h\n",
                ["foo.sh` did not finish within 20 s", "`sleep 1h`"],
            ),
        ] {
            put(text)?;
            ensure_fails_once(&machine, &words).with_context(|| text.to_owned())?;
        }
        let doctor = machine.run(&["buildbot-conda", "doctor", "--only", "environment,python"])?;
        ensure!(
            doctor.stdout.contains("foo.sh` was stopped in `sleep 1h`"),
            "{doctor}"
        );
        // No shell is left that could report this.
        put("exec true\n")?;
        let master = Unit::master(&machine);
        master.fail("start")?;
        master.wait_for_status_text("in 3 starts")?;
        master.wait_for_state("failed")?;
        put("export FOO=1\n")?;
        master.succeed("start")
    })
}

/// The number of the attempt that has just failed with 69 and the reason on the status line, if it is at least `least`.
fn failed_attempt(machine: &Machine, words: &[&str], least: u32) -> Result<Option<u32>> {
    // In one call: a further attempt may start at any moment.
    let shown = machine.run(&[
        "systemctl",
        "show",
        "--property=StatusText,ExecMainStatus,NRestarts",
        "buildbot-master",
    ])?;
    let value = |name: &str| {
        let mut lines = shown.stdout.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    };
    let restarts: u32 = value("NRestarts").context("find NRestarts")?.parse()?;
    let text = value("StatusText").unwrap_or_default();
    let is_shown = words.iter().all(|word| text.contains(word));
    Ok(
        (is_shown && value("ExecMainStatus") == Some("69") && restarts >= least)
            .then_some(restarts),
    )
}

/// Breaks something, checks that the start fails with 69 and `words`, and again automatically; fixes it, and waits
/// until the master serves without any help.
fn ensure_gets_over(machine: &Machine, breaks: &str, mends: &str, words: &[&str]) -> Outcome {
    let master = Unit::master(machine);
    machine.shell(breaks)?.succeeded()?;
    master.fail("start")?;
    let mut restarts = 0;
    for _ in 0..2 {
        let what = format!("attempt {restarts} or a later one has said {words:?}");
        let failed = machine.wait_until(&what, Duration::from_mins(2), || {
            failed_attempt(machine, words, restarts)
        })?;
        restarts = failed + 1;
    }
    machine.shell(mends)?.succeeded()?;
    master.wait_for_state("active")?;
    ensure!(Rest::new(machine).answers());
    master.succeed("stop")
}

/// A transient service that holds a port.
fn listener(port: u16) -> (String, String) {
    let breaks = format!(
        "systemd-run --quiet --collect --unit=listener {PREFIX}/bin/python -m http.server --bind 127.0.0.1 {port}
         until {PREFIX}/bin/python -c 'import socket; socket.create_connection((\"127.0.0.1\", {port}))' 2>/dev/null
         do sleep 0.2; done"
    );
    (breaks, "systemctl stop listener".to_owned())
}

fn what_is_away_is_tried_again_until_it_is_there(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;

    fault("port-in-use", release, || {
        for port in [8010, 9989] {
            let (breaks, mends) = listener(port);
            let words = [&port.to_string(), "Address already in use"];
            ensure_gets_over(&machine, &breaks, &mends, &words)?;
        }
        Ok(())
    })?;
    fault("network-in-configuration", release, || {
        let good = master_configuration();
        let fetch = "import socket\nsocket.getaddrinfo('data.example.invalid', 443)\n";
        machine.write_file(CONFIGURATION, &format!("{good}{fetch}"), "0600", "bb")?;
        ensure_gets_over(
            &machine,
            "cp /etc/hosts /root/hosts",
            "echo 127.0.0.1 data.example.invalid >>/etc/hosts",
            &["error while parsing config file", "master.cfg, line"],
        )
    })?;
    fault("database-unreachable", release, || {
        let text = master_configuration().replace("sqlite:///state", "sqlite:///data/state");
        machine.write_file(CONFIGURATION, &text, "0600", "bb")?;
        let away = "unable to open database file";
        ensure_gets_over(
            &machine,
            &format!("cd {MASTER}; mkdir away; mv state.sqlite* away; chown -R bb: away"),
            &format!("cd {MASTER}; mv away data"),
            &[away],
        )?;
        ensure_gets_over(
            &machine,
            &format!("chmod 0 {MASTER}/data"),
            &format!("chmod 700 {MASTER}/data"),
            &[away],
        )?;
        // A transaction of another process, for which Buildbot itself waits as long as it may.
        machine
            .shell("buildbot-conda set master start-timeout 20s; systemctl daemon-reload")?
            .succeeded()?;
        let lock = format!(
            "import sqlite3, time; c = sqlite3.connect('{MASTER}/data/state.sqlite'); \
             c.execute('begin exclusive'); open('/var/tmp/locked', 'w'); time.sleep(1000)"
        );
        ensure_gets_over(
            &machine,
            &format!(
                "systemd-run --quiet --collect --unit=holder {PREFIX}/bin/python -c \"{lock}\"; \
                 until test -e /var/tmp/locked; do sleep 0.1; done"
            ),
            "systemctl stop holder",
            &["still waiting for the database"],
        )
    })
}

fn a_full_or_read_only_disk_is_named_and_got_over(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let mount = format!(
        "cp -a {MASTER} /root/copy
         mount -t tmpfs -o size=4M,mode=0700,uid=bb,gid=bb tmpfs {MASTER}
         cp -a /root/copy/. {MASTER}"
    );
    machine.shell(&mount)?.succeeded()?;

    fault("disk-full", release, || {
        ensure_gets_over(
            &machine,
            &format!("cat /dev/zero >{MASTER}/filler 2>/dev/null || true"),
            &format!("rm {MASTER}/filler"),
            &["disk"],
        )?;
        // A master that runs already survives it.
        let master = Unit::master(&machine);
        master.succeed("start")?;
        machine
            .shell(&format!(
                "cat /dev/zero >{MASTER}/filler 2>/dev/null || true"
            ))?
            .succeeded()?;
        let rest = Rest::new(&machine);
        // Buildbot decides what happens to a request then; the master continues.
        let _ = rest.force("example", &[]);
        machine
            .run(&["rm", &format!("{MASTER}/filler")])?
            .succeeded()?;
        machine.wait_until("a build is accepted again", BOUND, || {
            Ok(rest.force("example", &[]).ok())
        })?;
        ensure!(master.property("NRestarts")? == "0");
        master.succeed("stop")
    })?;
    fault("read-only-directory", release, || {
        let remount = |how: &str| {
            machine
                .run(&["mount", "-o", &format!("remount,{how}"), MASTER])?
                .succeeded()
        };
        remount("ro")?;
        ensure_fails_once(&machine, &["Read-only file system", MASTER])?;
        remount("rw")?;
        Unit::master(&machine).succeed("start")
    })
}
