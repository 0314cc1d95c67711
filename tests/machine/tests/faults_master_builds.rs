//! No build is lost, whatever ends the master or the machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use buildbot_conda_machine::{
    HeldBuilds, MASTER, Machine, Outcome, Release, Rest, Unit, attached, fault, held_configuration,
    lever_configuration, master_configuration, on_each_release, pull_lever, set_up,
};

on_each_release! {
    stops_of_a_master_lose_no_build,
    the_end_of_a_machine_loses_no_build,
    a_master_that_crashes_is_back_and_retries_its_builds,
    a_master_that_hangs_is_replaced,
    a_long_configuration_is_left_to_finish,
}

/// From the master's start to the reconnection of the worker, on a busy machine.
const ATTACHED: Duration = Duration::from_mins(1);

/// A machine whose master and worker run, with `count` held builders and a lever.
fn running(release: Release, count: usize, settings: &str) -> anyhow::Result<Machine> {
    let machine = Machine::boot(attached(release)?)?;
    let held = held_configuration(count);
    let lever = lever_configuration();
    let lever = lever
        .strip_prefix(&master_configuration())
        .context("both configurations begin alike")?;
    let path = format!("{MASTER}/master.cfg");
    machine.write_file(&path, &format!("{held}{lever}"), "0600", "bb")?;
    machine
        .shell(&format!(
            "{settings}
             systemctl daemon-reload
             systemctl enable --now buildbot-master buildbot-worker"
        ))?
        .succeeded()?;
    Rest::new(&machine).wait_for_worker("example", ATTACHED)?;
    Ok(machine)
}

fn stops_of_a_master_lose_no_build(release: Release) -> Outcome {
    let machine = running(release, 10, "true")?;
    let master = Unit::master(&machine);

    fault("restart-builds", release, || {
        for _ in 0..2 {
            let builds = HeldBuilds::start(&machine, 10)?;
            master.succeed("restart")?;
            builds.ensure_retried()?;
        }
        Ok(())
    })?;
    fault("stop-builds", release, || {
        let builds = HeldBuilds::start(&machine, 5)?;
        master.succeed("stop")?;
        ensure!(master.property("Result")? == "success");
        master.succeed("start")?;
        builds.ensure_retried()
    })?;
    fault("drain-builds", release, || {
        machine
            .shell("buildbot-conda set master drain 15s; systemctl daemon-reload")?
            .succeeded()?;
        let builds = HeldBuilds::start(&machine, 3)?;
        let begun = Instant::now();
        machine
            .shell("systemctl restart --no-block buildbot-master")?
            .succeeded()?;
        let old = master.main_pid()?;
        master.wait_for_status_text("finishing 3 running builds")?;
        builds.release(0)?;
        master.wait_for_successor(old)?;
        ensure!(
            begun.elapsed() > Duration::from_secs(15),
            "{:?}",
            begun.elapsed()
        );
        let finished = builds.wait_for(0)?;
        ensure!(
            finished.len() == 1 && finished[0].results == 0,
            "{finished:?}"
        );
        builds.release(1)?;
        builds.release(2)?;
        for number in [1, 2] {
            let results: Vec<_> = builds
                .wait_for(number)?
                .iter()
                .map(|build| build.results)
                .collect();
            ensure!(results == [5, 0], "{results:?}");
        }

        // With enough time, nothing is retried, and nothing waits longer than the builds do.
        machine
            .shell("buildbot-conda set master drain 10min; systemctl daemon-reload")?
            .succeeded()?;
        let builds = HeldBuilds::start(&machine, 3)?;
        machine
            .shell("systemctl restart --no-block buildbot-master")?
            .succeeded()?;
        let old = master.main_pid()?;
        master.wait_for_status_text("finishing 3 running builds")?;
        for number in 0..3 {
            builds.release(number)?;
        }
        master.wait_for_successor(old)?;
        builds.ensure_results(&[0])
    })
}

fn the_end_of_a_machine_loses_no_build(release: Release) -> Outcome {
    let mut machine = running(release, 6, "true")?;

    fault("reboot", release, || {
        let builds = HeldBuilds::start(&machine, 5)?.requests();
        machine.reboot()?;
        HeldBuilds::after_reboot(&machine, builds).ensure_retried()?;
        let failed = machine.run(&["systemctl", "--failed", "--no-legend"])?;
        ensure!(failed.text().is_empty(), "{failed}");
        Ok(())
    })?;
    fault("power-cut", release, || {
        let builds = HeldBuilds::start(&machine, 5)?.requests();
        machine.power_cut()?;
        HeldBuilds::after_reboot(&machine, builds).ensure_retried()?;
        let failed = machine.run(&["systemctl", "--failed", "--no-legend"])?;
        ensure!(failed.text().is_empty(), "{failed}");
        Ok(())
    })
}

/// Ends the master by `end` while builds run, and sees it come back and the builds retried.
fn ensure_back(machine: &Machine, end: impl FnOnce() -> Outcome) -> Outcome {
    let master = Unit::master(machine);
    let builds = HeldBuilds::start(machine, 3)?;
    let old = master.main_pid()?;
    end()?;
    master.wait_for_successor(old)?;
    builds.ensure_retried()
}

fn a_master_that_crashes_is_back_and_retries_its_builds(release: Release) -> Outcome {
    let machine = running(release, 3, "true")?;
    let master = Unit::master(&machine);

    fault("master-killed", release, || {
        ensure_back(&machine, || master.kill("KILL"))
    })?;
    fault("master-segfault", release, || {
        let crash = "import ctypes\nctypes.string_at(0)\n";
        ensure_back(&machine, || pull_lever(&machine, crash))?;
        let journal = master.journal()?;
        ensure!(journal.contains("Segmentation fault"), "{journal}");
        Ok(())
    })?;
    fault("master-out-of-memory", release, || {
        ensure_back(&machine, || {
            limit_memory(&machine)?;
            pull_lever(&machine, "eater = bytearray(b'1') * (2 << 30)\n")
        })?;
        let kernel = master.journal()?;
        ensure!(
            kernel.contains("killed") || kernel.contains("KILL"),
            "{kernel}"
        );
        Ok(())
    })?;
    fault("reactor-stopped", release, || {
        let stop = "from twisted.internet import reactor\nreactor.stop()\n";
        ensure_back(&machine, || pull_lever(&machine, stop))
    })
}

/// Leaves the master 300 MiB: by its control group where the machine has a controller for memory, else by one of the
/// older hierarchy.
fn limit_memory(machine: &Machine) -> Outcome {
    machine
        .shell(
            "if grep -q memory /sys/fs/cgroup/cgroup.controllers; then
                 systemctl set-property --runtime buildbot-master MemoryMax=300M MemorySwapMax=0
             else
                 mkdir -p /root/memory
                 mount -t cgroup -o memory none /root/memory
                 mkdir -p /root/memory/small
                 echo 300M >/root/memory/small/memory.limit_in_bytes
                 systemctl show --value --property MainPID buildbot-master >/root/memory/small/cgroup.procs
             fi",
        )?
        .succeeded()?;
    Ok(())
}

fn a_master_that_hangs_is_replaced(release: Release) -> Outcome {
    let machine = running(release, 3, "buildbot-conda set master watchdog 5s")?;
    let master = Unit::master(&machine);

    fault("hang-reactor", release, || {
        let hang = "import time\ntime.sleep(3600)\n";
        ensure_back(&machine, || pull_lever(&machine, hang))?;
        // Where it hung is in the journal.
        let journal = master.journal()?;
        ensure!(journal.contains("in pull"), "{journal}");
        Ok(())
    })?;
    fault("hang-stopped", release, || {
        ensure_back(&machine, || master.kill("STOP"))
    })
}

/// Takes 8 seconds in each phase of a configuration: while it is read, computing in Python and waiting, and while it is
/// applied, in the reactor.
const SLOW: &str = r#"
import time
from buildbot.util.service import BuildbotService

end = time.monotonic() + 4
while time.monotonic() < end:
    pass
time.sleep(4)

class Slow(BuildbotService):
    name = "slow"

    def reconfigService(self, **kwargs):
        time.sleep(8)

if __import__("sys").argv[0] == "twistd":
    c["services"] = [Slow(moment=time.time())]
"#;

fn a_long_configuration_is_left_to_finish(release: Release) -> Outcome {
    let machine = Machine::boot(set_up(release)?)?;
    let master = Unit::master(&machine);
    let slow = format!("{}{SLOW}", master_configuration());
    machine.write_file(&format!("{MASTER}/master.cfg"), &slow, "0600", "bb")?;
    machine
        .shell("buildbot-conda set master watchdog 4s; systemctl daemon-reload")?
        .succeeded()?;

    fault("slow-start", release, || {
        master.succeed("start")?;
        ensure!(Rest::new(&machine).answers());
        ensure!(master.property("NRestarts")? == "0");
        Ok(())
    })?;
    fault("slow-reload", release, || {
        let pid = master.main_pid()?;
        master.succeed("reload")?;
        ensure!(Rest::new(&machine).answers());
        ensure!(master.main_pid()? == pid);
        Ok(())
    })
}
