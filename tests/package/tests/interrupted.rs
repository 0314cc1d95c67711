//! Kills dpkg and everything that it has started with SIGKILL at many moments of an installation, an upgrade, a removal
//! and a purge. The result of `dpkg --configure -a`, or of the same apt command again, must be identical to that of an
//! undisturbed run.
//!
//! The moments are those before each step of every maintainer script, once where nothing changes in between, and some
//! of dpkg's own; the one after a script's last step is before dpkg's next. The releases take turns, so that each
//! moment is seen on one of them: with `BUILDBOT_CONDA_EVERY_MOMENT` set, each is seen on both.

use std::fs;
use std::path::Path;

use buildbot_conda_package_tests::{
    DebianRoot, Moment, Release, at_each, differences, kill_at, moments, old_version,
    on_each_release,
};

on_each_release! {
    an_interrupted_installation_is_completed,
    an_interrupted_upgrade_is_completed,
    an_interrupted_removal_is_completed,
    an_interrupted_purge_is_completed,
}

/// The scripts see a running systemd that does not answer, so they take all their steps.
const SYSTEMD_IS_THERE: &str = "mkdir -p /run/systemd/system";

/// What is done, and what an administrator does when it was interrupted.
struct Operation {
    name: &'static str,
    command: &'static str,
    /// When `dpkg --configure -a` is not enough, one after the other.
    again: [&'static str; 2],
    /// How dpkg reports that it is done.
    done: &'static str,
}

const INSTALL: &str = "dpkg --install /buildbot-conda.deb";
/// In one state of dpkg, unpacked and marked for reinstallation, apt needs an explicit option.
const INSTALL_AGAIN: [&str; 2] = [
    "apt-get install --yes /buildbot-conda.deb",
    "apt-get install --yes --reinstall /buildbot-conda.deb",
];

fn an_interrupted_installation_is_completed(release: Release) {
    let before = DebianRoot::new(release);
    before.must(SYSTEMD_IS_THERE);
    before.preseed("conda-path", "/opt/conda");
    let operation = Operation {
        name: "installation",
        command: INSTALL,
        again: INSTALL_AGAIN,
        done: "install ok installed new",
    };
    interrupt(release, &before, &operation);
}

fn an_interrupted_upgrade_is_completed(release: Release) {
    let before = DebianRoot::new(release);
    before.must(SYSTEMD_IS_THERE);
    let old = old_version(&before);
    before.must(&format!("dpkg --install {old} </dev/null; rm {old}"));
    before.must(
        "sed -i 's|^conda-root.*|conda-root = \"/opt/mine\" # mine|' /etc/buildbot-conda/config.toml",
    );
    before.must("systemctl --root=/ disable buildbot-worker.service");
    let operation = Operation {
        name: "upgrade",
        command: INSTALL,
        again: INSTALL_AGAIN,
        done: "install ok installed new",
    };
    interrupt(release, &before, &operation);
}

fn an_interrupted_removal_is_completed(release: Release) {
    let before = DebianRoot::new(release);
    before.must(SYSTEMD_IS_THERE);
    before.install();
    let operation = Operation {
        name: "removal",
        command: "dpkg --remove buildbot-conda",
        again: ["apt-get remove --yes buildbot-conda"; 2],
        done: "deinstall ok config-files new",
    };
    interrupt(release, &before, &operation);
}

fn an_interrupted_purge_is_completed(release: Release) {
    let before = DebianRoot::new(release);
    before.must(SYSTEMD_IS_THERE);
    before.install();
    before.must("install -D /dev/null /var/lib/buildbot-conda/instances/master/state.sqlite");
    before.must("echo secret >/etc/buildbot-conda/credentials/password");
    before.must("systemctl --root=/ enable buildbot-worker@gpu.service");
    let operation = Operation {
        name: "purge",
        command: "dpkg --purge buildbot-conda",
        // What was interrupted in its removal is removed by the first, and purged by the second.
        again: ["apt-get purge --yes buildbot-conda"; 2],
        done: "not known",
    };
    interrupt(release, &before, &operation);
}

/// Prints the package's status, repairs, and prints at which attempt. Variables: what to do `again` and `at_last`, and
/// the status when all is `done`.
const REPAIR: &str = r#"
# Numbers of the killed processes must not be given again at once: their locks name them.
echo 20000 >/proc/sys/kernel/ns_last_pid
new=$(dpkg-deb --field /buildbot-conda.deb Version)
status() {
    dpkg-query --show --showformat='${db:Status-Want} ${db:Status-Eflag} ${db:Status-Status} ${Version}\n' \
        buildbot-conda 2>/dev/null | sed "s/ $new\$/ new/; s/ 0\.0\.1\$/ old/; /not-installed/d" | grep . || echo 'not known'
}
attempts=0
try() {
    attempts=$((attempts + 1))
    "$@" >&2 </dev/null || true
    [ "$(status)" = "$done" ]
}
status
# shellcheck disable=SC2086
try dpkg --configure -a || try $again || try $at_last
echo "$attempts"
dpkg --audit
"#;

/// Interrupts the operation at each of its moments, repairs what is left, and compares. One of them is really killed as
/// well, and has to come to the same.
fn interrupt(release: Release, before: &DebianRoot, operation: &Operation) {
    let undisturbed = before.fork();
    let moments = moments(&undisturbed, operation.command);
    let moments = moments_of(release, &moments);
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    at_each(
        &before.fork(),
        operation.command,
        &moments,
        |moment, root| {
            let (row, failure) = repair(operation, moment, &root, &undisturbed);
            rows.push(row);
            failures.extend(failure);
        },
    );
    let middle = moments.len() / 2;
    let killed = before.fork();
    kill_at(&killed, operation.command, moments[middle]);
    let (row, failure) = repair(operation, moments[middle], &killed, &undisturbed);
    failures.extend(failure);
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert_eq!(row, rows[middle], "killed, and copied at the same moment");
    keep(release, operation.name, &(rows.join("\n") + "\n"));
}

/// Repairs what an interruption has left in `root`. Gives the row of the table, and what is wrong with it.
fn repair(
    operation: &Operation,
    moment: &Moment,
    root: &DebianRoot,
    undisturbed: &DebianRoot,
) -> (String, Option<String>) {
    let outcome = root.run(&format!(
        "again='{}' at_last='{}' done='{}'{REPAIR}",
        operation.again[0], operation.again[1], operation.done
    ));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let differences = differences(undisturbed, root);
    let status = lines.first().copied().unwrap_or_default();
    let how = match lines.get(1).copied() {
        Some("1") => "dpkg --configure -a",
        Some("2") => operation.again[0],
        Some("3") => operation.again[1],
        _ => "nothing",
    };
    let twice = if lines.get(1) == Some(&"3") && operation.again[0] == operation.again[1] {
        ", twice"
    } else {
        ""
    };
    let row = format!(
        "| {} | {} | {status} | `{how}`{twice} |",
        moment.script, moment.text
    );
    let is_good = outcome.status == 0 && lines.len() == 2 && differences.is_empty();
    let failure = (!is_good).then(|| {
        let differences = differences.join("\n");
        format!("{row}\n{differences}\n{}", outcome.talk())
    });
    (row, failure)
}

/// Every second moment, those of the two releases being different ones.
fn moments_of(release: Release, all: &[Moment]) -> Vec<&Moment> {
    if std::env::var_os("BUILDBOT_CONDA_EVERY_MOMENT").is_some() {
        return all.iter().collect();
    }
    let skip = usize::from(release == Release::Trixie);
    all.iter().skip(skip).step_by(2).collect()
}

/// Shows the table, and keeps it for `cargo xtask faults --record`.
fn keep(release: Release, operation: &str, rows: &str) {
    eprintln!("{} interrupted, {operation}\n{rows}", release.code_name());
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/interrupted");
    fs::create_dir_all(&directory).expect("the target directory is ours");
    let file = directory.join(format!("{operation}-{}.md", release.code_name()));
    fs::write(&file, rows).expect("the target directory is ours");
}
