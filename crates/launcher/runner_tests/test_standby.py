"""Masters with a configured name in the database: with a history, and with a standby that waits to take over."""

import hashlib
import os
import signal
import sqlite3
import time

import pytest

from instances import wait_until
from network import Link
from postgresql import Server

NAMED = ("--name", "farm")
# What a master writes while it builds.
WRITTEN = "select count(*), max(last_line), (select max(complete_at) from builds) from logchunks"
# Prints continuously until a file exists.
TALK = """touch running
until [ -e go ]; do echo waiting; head -c 3000 /dev/urandom | base64; sleep 0.1; done"""


@pytest.fixture
def server():
    found = Server()
    yield found
    found.remove()


def master_at(make, python, server, name, like=None):
    """A master with the server's database and the configuration TALK, on the ports of `like`, if given."""
    found = make(python, "master", name=name)
    if like is not None:
        found.pb, found.www = like.pb, like.www
    return found.configure(command=TALK, extra="\nc['db'] = {'db_url': %r}\n" % server.url)


def upgraded(master):
    done = master.buildbot("upgrade-master", "-q", str(master.directory))
    assert done.returncode == 0, done
    return master


def stands_by(master, other):
    """Start one that has to wait."""
    master.start(*NAMED).ready()
    host = os.uname().nodename
    assert master.status() == "standby: `farm` is used by `%s on %s` (this host)" % (other.name, host)
    found = master.status_file()
    assert found["state"] == "standby"
    assert found["database"] == {"name": "farm", "place": "`buildbot` (postgresql) on this host"}
    return master


def serves(master):
    """Wait until it serves; returns how long that took."""
    begun = time.monotonic()
    wait_until(lambda: master.status_file()["state"] == "running", master.describe)
    return time.monotonic() - begun


def begun_build(master, worker):
    """Start a build, and return its directory."""
    directory = worker.directory / "b1" / "build"
    for name in ("running", "go"):
        (directory / name).unlink(missing_ok=True)
    master.force()
    wait_until((directory / "running").exists, master.describe)
    return directory


def retried(master, number, directory):
    """Wait for the end of a build that another master had started, and of the one that replaces it."""
    (directory / "running").unlink()
    assert master.finished(number) == 5, master.describe()
    wait_until((directory / "running").exists, master.describe)
    (directory / "go").touch()
    assert master.finished(number + 1) == 0, master.describe()


def test_standby_takes_over_and_retries_what_was_being_built(python, make, server):
    first = upgraded(master_at(make, python, server, "master@a")).start(*NAMED).ready()
    second = stands_by(master_at(make, python, server, "master@b", first), first)
    worker = make.worker(python, first).start()
    worker.attached()
    took = {}
    # It is stopped.
    directory = begun_build(first, worker)
    first.signal(signal.SIGTERM)
    took["stop"] = serves(second)
    assert first.wait() == 0
    retried(second, 1, directory)
    # It is killed.
    stands_by(first, second)
    directory = begun_build(second, worker)
    second.signal(signal.SIGKILL)
    took["kill"] = serves(first)
    second.wait()
    retried(first, 3, directory)
    # It was waiting while its configuration changed: that is in effect when it serves.
    stands_by(second, first)
    configuration = second.directory / "master.cfg"
    configuration.write_text(configuration.read_text().replace("'title': 'test'", "'title': 'new'"))
    second.signal(signal.SIGHUP)
    assert first.stop() == 0
    serves(second)
    wait_until(lambda: (second.status_file()["reconfiguration"] or {}).get("outcome") == "complete", second.describe)
    # One that waits ends at once.
    stands_by(first, second)
    assert first.stop() == 0
    assert first.status() == "stopped"
    assert server.ask("select name, active from masters") == "farm|1"
    print("took over in", {name: "%.1f s" % seconds for name, seconds in took.items()})
    assert max(took.values()) < 120
    assert second.stop() == 0 and worker.stop() == 0


def settled(server):
    """What is written in the database once the build that is retried writes nothing more."""
    before = None
    while (found := server.ask(WRITTEN)) != before:
        before = found
        time.sleep(2)
    return found


def test_loser_of_a_lock_ends_before_it_writes(python, make, server):
    first = upgraded(master_at(make, python, server, "master@a")).start(*NAMED).ready()
    second = stands_by(master_at(make, python, server, "master@b"), first)
    worker = make.worker(python, first).start()
    worker.attached()
    begun_build(first, worker)
    time.sleep(1.5)
    # As if cut off: the server forgets its lock, and its other connections are as good as before.
    first.signal(signal.SIGSTOP)
    server.ask("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
    serves(second)
    assert second.finished(1) == 5
    before = settled(server)
    first.signal(signal.SIGCONT)
    assert first.wait(60) == 69, first.describe()
    assert first.status().startswith("`farm` is used by `master@b on ")
    assert server.ask(WRITTEN) == before
    assert server.ask("select name, active from masters") == "farm|1"
    assert second.stop() == 0


def test_standby_takes_over_from_a_host_that_was_cut_off(both_pythons, make):
    _, python = both_pythons
    link = Link()
    server = None
    try:
        server = Server(link.here)
        first = upgraded(master_at(make, python, server, "master@a"))
        configuration = first.directory / "master.cfg"
        port = "tcp:%d:interface=127.0.0.1" % first.www
        configuration.write_text(configuration.read_text().replace(port, "tcp:%d" % first.www))
        first.host = link.there
        first.inside = ["ip", "netns", "exec", link.namespace]
        first.start(*NAMED).ready()
        second = master_at(make, python, server, "master@b").start(*NAMED).ready()
        assert second.status().endswith("(%s)" % link.there)
        worker = make.worker(python, first)
        worker.inside = first.inside
        worker.start().attached()
        begun_build(first, worker)
        time.sleep(1.5)
        link.cut()
        took = serves(second)
        print("took over in %.1f s" % took)
        assert took < 45
        assert second.finished(1) == 5
        before = settled(server)
        link.restore()
        assert first.wait(60) == 69, first.describe()
        assert first.status().startswith("`farm` is used by `master@b on ")
        assert server.ask(WRITTEN) == before
        assert second.stop() == 0 and worker.stop() == 0
    finally:
        if server is not None:
            server.remove()
        link.remove()


def test_standby_waits_for_a_database_and_serves_from_none_that_is_newer(python, make, server):
    first = upgraded(master_at(make, python, server, "master@a")).start(*NAMED).ready()
    second = stands_by(master_at(make, python, server, "master@b"), first)
    server.stop()
    second.wait_status("^standby: the database is unavailable: ")
    server.start()
    # The faster one serves from then on.
    still = "standby: `farm` is used by `master@a on "
    wait_until(lambda: second.status().startswith(("running: ", still)), second.describe)
    if second.status().startswith("running: "):
        assert first.wait() == 69, first.describe()
        first, second = second, stands_by(first, second)
    # The serving one had a newer Buildbot.
    server.ask("update alembic_version set version_num = 'unknown'")
    assert first.stop() == 0
    assert second.wait() == 65, second.describe()
    assert second.status().startswith("the database is newer than Buildbot ")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_history_goes_along_with_a_name(python, make, kind, request):
    if kind == "sqlite":
        master = make.master(python, command=TALK)
    else:
        master = upgraded(master_at(make, python, request.getfixturevalue("server"), "master"))
    master.start().ready()
    worker = make.worker(python, master).start()
    worker.attached()
    directory = begun_build(master, worker)
    if kind == "sqlite":
        # Its host has had another name, and another master has looked after it meanwhile.
        master.signal(signal.SIGKILL)
        master.wait()
        old = "elsewhere:/srv/master"
        with sqlite3.connect(master.directory / "state.sqlite") as database:
            hashed = hashlib.sha1(old.encode()).hexdigest()
            database.execute("update masters set name = ?, name_hash = ?, active = 0", (old, hashed))
        database.close()
    else:
        old = "%s:%s" % (os.uname().nodename, master.directory)
        master.signal(signal.SIGKILL)
        master.wait()
    master.start(*NAMED).ready()
    assert "the master `%s` is now called `farm` in its database" % old in master.log()
    assert [found["name"] for found in master.rest("masters")["masters"]] == ["farm"]
    retried(master, 1, directory)
    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 10  # its parent knows it by its name
    master.start(*NAMED).ready()
    assert master.log().count("is now called `farm` in its database") == 1
    assert master.stop() == 0 and worker.stop() == 0
