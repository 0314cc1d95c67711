//! What builds see of their own instance, and of the others.

use anyhow::ensure;
use buildbot_conda_machine::{Machine, Outcome, Rest};

use crate::groups::Group;
use crate::{SOON, call};

/// A build prints this about itself, and about everything that it can read. The command, which the log shows, contains
/// no name.
const TELL: &str = r#"
id -un; python -c 'import sys; print(sys.prefix)'; env
for file in /run/credentials/*/* /home/*/*/buildbot.tac /home/*/*/*.cfg /home/*/*/state.sqlite /srv/*/*/buildbot.tac \
    /srv/*/*/*.cfg /srv/*/*/state.sqlite /etc/buildbot-conda/credentials/*; do
    if test -r "$file"; then echo "can read $file"; fi
done
for process in /proc/[0-9]*; do tr '\0' '\n' <$process/environ | sed -n 's/^MARK_/process has MARK_/p'; done 2>/dev/null
true
"#;

pub(crate) fn builds_see_nothing_of_others(machine: &Machine, groups: &[Group]) -> Outcome {
    for (number, group) in groups.iter().enumerate() {
        let (master, chosen) = (group.master(), group.chosen());
        for (reference, value) in [
            (master.clone(), "master"),
            (format!("worker@{chosen}"), "worker"),
        ] {
            let key = format!("environment.MARK_{number}_{value}");
            call(machine, &["set", &reference, &key, "x"])?.succeeded()?;
        }
        let builder = format!(
            "# A builder of the worker's own.\n\
             tell = steps.ShellCommand(name=\"tell\", command=[\"sh\", \"-c\", {TELL:?}])\n\
             c[\"builders\"].append(util.BuilderConfig(name=\"tell\", workernames=[\"{chosen}\"], \
             factory=util.BuildFactory([tell])))\n\
             c[\"schedulers\"].append(schedulers.ForceScheduler(name=\"tell\", builderNames=[\"tell\"]))\n"
        );
        let file = format!("{}/master.cfg", group.master_directory());
        let script = "printf %s \"$0\" >>\"$1\"; systemctl daemon-reload; systemctl restart \"$2\"";
        let unit = format!("buildbot-worker@{chosen}.service");
        let master_unit = format!("buildbot-{master}.service");
        machine
            .run(&["sh", "-euc", script, &builder, &file, &unit])?
            .succeeded()?;
        machine
            .run(&["systemctl", "restart", &master_unit])?
            .succeeded()?;
    }
    for (number, group) in groups.iter().enumerate() {
        let rest = Rest::at(machine, group.web_port);
        rest.wait_for_worker(group.chosen(), SOON)?;
        let build = rest.wait_for_build(rest.force_by("tell", "tell", &[])?, SOON)?;
        ensure!(build.results == 0, "{build:?}");
        let log = rest.log(&build, "tell")?;
        let account = group.accounts[1];
        for line in [
            account,
            group.environment,
            &format!("MARK_{number}_worker=x"),
        ] {
            ensure!(log.lines().any(|found| found == line), "{line}: {log}");
        }
        let marks = log
            .lines()
            .filter(|line| line.contains("MARK_") && !line.contains("sed"));
        let own = format!("MARK_{number}_worker");
        for line in marks {
            ensure!(line.contains(&own), "{line}: {log}");
        }
        let unit = format!(
            "/run/credentials/buildbot-worker@{}.service/",
            group.chosen()
        );
        let readable: Vec<&str> = log
            .lines()
            .filter_map(|line| line.strip_prefix("can read "))
            .collect();
        let is_below = |path: &str, place: &str| path.starts_with(place);
        // It sees what there is to be seen: its own, and what else its account has.
        ensure!(readable.iter().any(|path| is_below(path, &unit)), "{log}");
        ensure!(log.contains(&format!("process has {own}=x")), "{log}");
        let places = [
            unit,
            format!("/home/{account}/"),
            group.worker_directory(""),
        ];
        for path in readable {
            let is_own = places.iter().any(|place| is_below(path, place));
            let is_masters = is_below(path, &format!("{}/", group.master_directory()));
            ensure!(is_own && !is_masters, "{account} can read {path}: {log}");
        }
    }
    Ok(())
}
