"""What a master notes of its load for monitoring."""

import os
import sqlite3
import time

from instances import wait_until

BUILD = "touch running; until [ -e go ]; do sleep 0.1; done"
# Busy for four seconds once there is a file.
HANG = """
import os, time
from twisted.internet import reactor
def check():
    if os.path.exists('hang'):
        os.unlink('hang')
        time.sleep(4)
    reactor.callLater(0.1, check)
reactor.callFromThread(check)
"""


def test_the_load_of_a_master_is_in_its_status_file(python, make):
    master = make.master(python, command=BUILD, extra=HANG).start(BEATS=1).ready()

    def load(is_wanted=lambda load: True):
        def found():
            load = master.status_file().get("load")
            return load if load and is_wanted(load) else None

        return wait_until(found, lambda: "%s in %s" % (master.status_file(), master.describe()))

    found = load(lambda load: load["database"])
    assert time.time() - found["at"] < 30
    assert found["workers"] == {"w1": "missing"}
    assert (found["builds"], found["oldest_build"], found["backup"]) == (0, None, None)
    assert (found["database"]["requests"], found["database"]["oldest_request"]) == (0, None)
    assert found["database"]["size"] > 10000
    assert 0 <= found["database"]["answered_in"] < 10

    begun = int(time.time())
    master.force()
    found = load(lambda load: load["database"] and load["database"]["requests"])
    assert found["database"]["requests"] == 1
    assert begun <= found["database"]["oldest_request"] <= time.time()

    worker = make.worker(python, master).start()
    worker.attached()
    found = load(lambda load: load["builds"])
    assert found["builds"] == 1 and found["workers"] == {"w1": "connected"}
    first_seen = found["oldest_build"]
    directory = worker.directory / "b1" / "build"
    wait_until((directory / "running").exists, master.describe)
    assert begun <= first_seen <= time.time()
    found = load(lambda load: load["database"] and not load["database"]["requests"] and load["at"] > found["at"])
    assert found["oldest_build"] == first_seen

    (master.directory / "hang").touch()
    assert 2.5 < load(lambda load: load["lag"] > 2.5)["lag"] < 60
    assert load(lambda load: load["lag"] < 2.5)

    master.rest("workers/1", method="pause", reason="test")
    load(lambda load: load["workers"] == {"w1": "paused"})

    backups = master.state / "backups"
    backups.mkdir(exist_ok=True)
    for name, modified in (("20261122T120000Z-b.sqlite", 2e9), ("20261121T120000Z-a.sqlite", 2.1e9), ("z", 2.2e9)):
        (backups / name).touch()
        os.utime(backups / name, (modified, modified))
    load(lambda load: load["backup"] == 2e9)
    newer = master.run / "backups/master/20261123T120000Z-c.sqlite"
    newer.parent.mkdir(parents=True)
    newer.touch()
    os.utime(newer, (1.9e9, 1.9e9))
    load(lambda load: load["backup"] == 1.9e9)

    database = sqlite3.connect(str(master.directory / "state.sqlite"), timeout=60)
    database.execute("alter table buildrequests rename to elsewhere")
    load(lambda load: load["database"] is None)
    assert master.status().startswith("running: ")
    database.execute("alter table elsewhere rename to buildrequests")
    database.close()
    load(lambda load: load["database"])

    (directory / "go").touch()
    assert master.finished(1) == 0
    load(lambda load: load["builds"] == 0 and load["oldest_build"] is None)
    assert master.stop() == 0 and worker.stop() == 0


def test_what_cannot_be_counted_is_given_up_with_one_line(python, make):
    # As another Buildbot might do it: an exception at every note.
    master = make.master(python).start(BEATS=1, MOST="many").ready()
    master.wait_log("the load of the master is no longer recorded: ")
    time.sleep(2.5)
    assert master.log().count("the load of the master") == 1
    assert "load" not in master.status_file()
    assert master.stop() == 0
