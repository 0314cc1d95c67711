"""Several masters on one PostgreSQL database."""

import signal
import time

import pytest

from instances import wait_until
from postgresql import Server


@pytest.fixture
def server():
    found = Server()
    yield found
    found.remove()


def master_at(make, python, server, name):
    """A master that is called `farm` in the database."""
    found = make(python, "master", name=name).configure(extra="\nc['db'] = {'db_url': %r}\n" % server.url)
    tac = found.directory / "buildbot.tac"
    tac.write_text(tac.read_text().replace("m.setServiceParent", "m.name = 'farm'\nm.setServiceParent"))
    return found


def test_one_master_of_a_name_serves_and_another_takes_over(python, make, server):
    first, second = (master_at(make, python, server, name) for name in ("master@a", "master@b"))
    done = first.buildbot("upgrade-master", "-q", str(first.directory))
    assert done.returncode == 0, done
    first.start().ready()
    assert second.start().wait() == 69, second.describe()
    assert second.status().startswith("`farm` is used by `master@a on ")
    # It ends, in whatever way.
    first.signal(signal.SIGKILL)
    first.wait()
    second.start().ready()
    # The lock's own connection ends: it is taken again, unless another was faster.
    time.sleep(1.5)
    server.disconnect()
    wait_until(lambda: "lost the lock of the database" in second.log(), second.describe)
    time.sleep(2)
    assert second.process.poll() is None, second.describe()
    assert first.start().wait() == 69, first.describe()
    # While it is frozen, it cannot check its lock; another master has it when it continues.
    second.signal(signal.SIGSTOP)
    server.disconnect()
    first.start().ready()
    second.signal(signal.SIGCONT)
    begun = time.monotonic()
    assert second.wait() == 69, second.describe()
    assert time.monotonic() - begun < 10
    assert second.status().startswith("`farm` is used by `master@a on ")
    assert first.rest("masters")["masters"][0]["active"]
    assert first.stop() == 0


def test_newer_buildbot_does_not_upgrade_below_one_that_serves(both_pythons, make, server):
    older, newer = both_pythons
    sibling = master_at(make, older, server, "master@a")
    tac = sibling.directory / "buildbot.tac"
    tac.write_text(tac.read_text().replace("'farm'", "'another'"))
    done = sibling.buildbot("upgrade-master", "-q", str(sibling.directory))
    assert done.returncode == 0, done
    sibling.start().ready()
    master = master_at(make, newer, server, "master@b")
    assert master.start().wait() == 69, master.describe()
    assert "the database is older than Buildbot" in master.status()
    assert "and `master@a on " in master.status() and "still uses it" in master.status()
    assert sibling.stop() == 0
    assert master.start().wait() == 65, master.describe()
