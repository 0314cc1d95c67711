"""A database that is temporarily unavailable, in all the ways that PostgreSQL can be."""

import time

import pytest

from instances import wait_until
from postgresql import Server

# Prints continuously until a file exists.
TALK = """touch running
until [ -e go ]; do echo waiting; head -c 30000 /dev/urandom | base64; sleep 0.3; done
echo at the end"""


@pytest.fixture
def server():
    found = Server()
    yield found
    found.remove()


@pytest.fixture
def master(python, make, server):
    """Serves from the database, and is about to build."""
    found = make.master(python, command=TALK, extra="\nc['db'] = {'db_url': %r}\n" % server.url)
    done = found.buildbot("upgrade-master", "-q", str(found.directory))
    assert done.returncode == 0, done
    return found.start().ready()


def disturb(name, server):
    """Put the database out of order; returns how to undo it, and words of the reason."""
    if name == "stopped":
        server.stop()
        return server.start, "(No such file|refused)"
    if name == "read-only":
        server.sql("alter system set default_transaction_read_only = on", "select pg_reload_conf()")
        off = "set default_transaction_read_only = off"
        reset = "alter system reset default_transaction_read_only"
        return lambda: server.sql(off, reset, "select pg_reload_conf()"), "read-only transaction"
    if name == "connections":
        server.sql("alter role bb connection limit 0")
        server.disconnect()
        return lambda: server.sql("alter role bb connection limit -1"), "too many connections"
    filler = server.place / "filler"
    with open(filler, "wb") as file:
        while True:
            try:
                file.write(bytes(1 << 20))
                file.flush()
            except OSError:
                break
    return lambda: (filler.unlink(), server.revive()), "No space left|the database system|refused|No such file"


def test_builds_wait_for_a_database_that_is_away_and_end_well(python, make, master, server):
    worker = make.worker(python, master).start()
    worker.attached()
    time.sleep(1.5)  # until the master has settled
    directory = worker.directory / "b1" / "build"
    for number, name in enumerate(("stopped", "read-only", "connections", "disk"), 1):
        master.force()
        wait_until((directory / "running").exists, master.describe)
        undo, words = disturb(name, server)
        master.wait_status("^the database has been unavailable since [0-9 :-]+, builds are waiting: .*(%s)" % words, patience=30)
        assert master.status_file()["state"] == "running"
        time.sleep(3)
        undo()
        begun = time.monotonic()
        master.wait_status("^running: Buildbot ", patience=60)
        assert time.monotonic() - begun < 60
        (directory / "go").touch()
        assert master.finished(number) == 0, master.describe()
        text = master.stdio(number)
        assert text.count("waiting") > 10 and "at the end" in text
        (directory / "go").unlink()
        (directory / "running").unlink()
    # The heartbeat continues, too.
    last = master.rest("masters")["masters"][0]["last_active"]
    assert time.time() - last < 120
    server.stop()
    master.wait_status("^the database has been unavailable ", patience=70)
    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 20
    # A start does not wait: it is tried again by systemd.
    assert master.start().wait() == 69, master.describe()
    assert worker.stop() == 0
