"""Masters that are stopped or changed in unexpected ways."""

import signal
import time

from instances import wait_until

STOP = """
import os
from twisted.internet import reactor

def stop():
    if os.path.exists('stop'):
        reactor.stop()
    else:
        reactor.callLater(0.1, stop)

reactor.callFromThread(stop)
"""


def test_end_from_inside_is_a_failure(python, make):
    master = make.master(python, extra=STOP).start().ready()
    (master.directory / "stop").touch()
    assert master.wait() == 1, master.describe()
    assert "stopped unexpectedly" in master.status()


def test_start_that_lets_no_thread_run_is_ended_by_alarm(python, make):
    master = make.master(python, extra="import itertools\nsum(itertools.repeat(0))\n")
    master.start("--start-timeout", "8")
    assert master.wait() == -signal.SIGALRM, master.describe()
    assert "master.cfg" in master.log()  # in the stacks


def test_time_limit_of_the_start_ends_with_it(python, make):
    begun = time.monotonic()
    master = make.master(python).start("--start-timeout", "20").ready()
    time.sleep(max(0, begun + 27 - time.monotonic()))
    assert master.stop() == 0, master.describe()


def test_reconfiguration_that_leaves_the_process_is_refused(python, make):
    master = make.master(python).start().ready()
    configuration = master.directory / "master.cfg"
    good = configuration.read_text()
    for count, line in enumerate(("raise SystemExit", "import os; os._exit(0)"), 2):
        configuration.write_text(good + "\n" + line + "\n")
        master.signal(signal.SIGHUP)
        master.wait_for("READY=1", count)
        assert master.status_file()["reconfiguration"]["outcome"] == "aborted", master.describe()
    assert master.stop() == 0


def test_configuration_changed_during_the_start_is_read_before_ready(python, make):
    gate = "import os, time\nwhile not os.path.exists('gate'): time.sleep(0.1)\n"
    master = make.master(python, extra=gate)
    configuration = master.directory / "master.cfg"
    old = configuration.read_text()
    master.start()
    wait_until(lambda: "reading master.cfg" in master.status(), master.describe)
    wait_until(lambda: "Loading configuration" in master.log(), master.describe)
    configuration.write_text(old.replace("'title': 'test'", "'title': 'new'"))
    (master.directory / "gate").touch()
    master.ready()
    reconfiguration = master.status_file()["reconfiguration"]
    assert (reconfiguration["number"], reconfiguration["outcome"]) in ((1, "running"), (1, "complete"))
    assert master.stop() == 0
