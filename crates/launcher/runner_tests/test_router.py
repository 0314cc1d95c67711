"""A master whose router is unavailable, disconnects, and returns."""

import socket
import time

import pytest

from routers import Router
from instances import free_port, wait_until


@pytest.fixture
def router(tmp_path):
    found = Router(tmp_path / "router", free_port())
    yield found
    found.kill()


def answers(router):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", int(router.url.split(":")[2].partition("/")[0]))) == 0


def test_master_without_its_router_ends_with_69_and_serves_when_it_is_there(python, make, router):
    queue = "\nc['mq'] = {'type': 'wamp', 'router_url': %r, 'realm': 'buildbot', 'wamp_debug_level': 'error'}\n"
    master = make.master(python, extra=queue % router.url)
    assert master.start().wait() == 69, master.describe()
    assert master.status().startswith("the router at %s does not answer: " % router.url)
    assert not any("READY=1" in lines for lines in master.messages())

    router.start()
    wait_until(lambda: answers(router), "the router")
    # It may listen before it has its realm, and systemd tries again.
    for _ in range(5):
        master.start()
        wait_until(lambda: master.process.poll() is not None or ["READY=1"] in [m[:1] for m in master.messages()], master.describe)
        if master.process.poll() is None:
            break
        assert master.process.returncode == 69, master.describe()
    master.ready()
    worker = make.worker(python, master).start()
    worker.attached()
    master.force()
    assert master.finished(1) == 0

    router.kill()
    begun = time.monotonic()
    assert master.wait() == 69, master.describe()
    assert time.monotonic() - begun < 10
    assert master.status().startswith("the router at %s closed the connection" % router.url)
    assert master.status_file()["state"] == "failed"
    assert worker.stop() == 0


def test_realm_that_the_router_does_not_have_is_named(python, make, router):
    router.start()
    wait_until(lambda: answers(router), "the router")
    queue = "\nc['mq'] = {'type': 'wamp', 'router_url': %r, 'realm': 'another'}\n" % router.url
    master = make.master(python, extra=queue).start()
    assert master.wait() == 69, master.describe()
    assert "closed the session in the realm `another`: " in master.status()
