"""A host that vanishes without a word, during a build."""

import time

from instances import wait_until
from network import Link

# Prints something now and then, and then nothing. Its retry succeeds.
BUILD = "test -e again && exit 0; touch running; for i in 1 2 3 4 5 6; do echo still here; sleep 10; done; sleep 300"
# The status line of a worker that has noticed that it has no master.
ALONE = ("lost the connection", "cannot reach", "no answer")


def building(python, make, link):
    """A master, and a worker behind the link with a running build."""
    master = make.master(python, command=BUILD)
    configuration = master.directory / "master.cfg"
    port = "tcp:%d:interface=127.0.0.1" % master.pb
    configuration.write_text(configuration.read_text().replace(port, "tcp:%d" % master.pb))
    master.start().ready()
    worker = make.worker(python, master, host=link.here)
    worker.inside = ["ip", "netns", "exec", link.namespace]
    worker.start().attached()
    master.force()
    build = worker.directory / "b1" / "build"
    wait_until((build / "running").exists, master.describe)
    (build / "again").touch()
    return master, worker


def test_both_sides_notice_within_45_seconds_that_the_other_has_vanished(both_pythons, make):
    _, python = both_pythons
    link = Link()
    try:
        master, worker = building(python, make, link)
        link.cut()
        begun = time.monotonic()
        noticed = {}

        def check():
            build = master.build(1)
            if build["complete"]:
                assert build["results"] == 5, build  # it is retried
                noticed.setdefault("master", time.monotonic() - begun)
            if worker.status().startswith(ALONE):
                noticed.setdefault("worker", time.monotonic() - begun)
            return len(noticed) == 2

        wait_until(check, lambda: "%s, %s %s" % (noticed, master.describe(), worker.describe()), patience=60)
        print("noticed after", noticed)
        assert max(noticed.values()) < 45, noticed
        # Short interruptions recover, and the worker reconnects by itself.
        link.restore()
        worker.wait_status("^connected to ", patience=40)
        assert master.finished(2) == 0
        assert worker.stop() == 0 and master.stop() == 0
    finally:
        link.remove()


def test_master_whose_host_was_away_gets_its_worker_back_and_the_build_is_retried(both_pythons, make):
    _, python = both_pythons
    link = Link()
    try:
        master, worker = building(python, make, link)
        # Nothing of its end gets to the other side.
        link.cut()
        begun = time.monotonic()
        master.process.kill()
        master.wait()
        wait_until(lambda: worker.status().startswith(ALONE), worker.describe, patience=45)
        print("noticed after", time.monotonic() - begun)
        master.start().ready()
        link.restore()
        worker.wait_status("^connected to ", patience=40)
        assert master.finished(1) == 5 and master.finished(2) == 0
        assert worker.stop() == 0 and master.stop() == 0
    finally:
        link.remove()
