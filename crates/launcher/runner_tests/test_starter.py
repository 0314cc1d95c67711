"""The configuration of a new master, as the command line writes it: who may control it, and which workers it accepts.
The tests of the command line make sure that it writes this file."""

import http.cookiejar
import json
import os
import signal
import time
import urllib.request

from instances import HERE, free_port, wait_until

# Buildbot's own worker, inside of the master.
JANITOR = "__Janitor"

WORKER_TAC = """
import os
from buildbot_worker.bot import Worker
from twisted.application import service
application = service.Application('buildbot-worker')
basedir = os.path.abspath(os.path.dirname(__file__))
worker = Worker(None, None, %r, %r, basedir, 60, connection_string='unix:path=%s')
worker.setServiceParent(application)
"""


def starter(python, make, tmp_path, web=None):
    """A master with the worker `worker` in its table, and where its socket is. `web` is the text of its `web.toml`."""
    master = make.master(python)
    if web:
        (master.directory / "web.toml").write_text(web)
        (master.directory / "web.secret").write_text("the key\n")
    master.www, socket = free_port(), tmp_path / "workers"
    text = (HERE / "starter-master.cfg").read_text()
    text = text.replace("/run/buildbot-conda/master/workers", str(socket)).replace("8010", str(master.www))
    (master.directory / "master.cfg").write_text(text)
    (master.directory / "workers.toml").write_text("[worker]\n")
    (master.directory / "passwords").mkdir(mode=0o700)
    (master.directory / "passwords" / "worker").write_text("first\n")
    (tmp_path / "web-password").write_text("shown once\n")
    master.start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).ready()
    return master, socket


def control(opener, port, path, method):
    """What a master answers to a control method: its error's words, or none."""
    body = json.dumps({"id": 1, "jsonrpc": "2.0", "method": method, "params": {}}).encode()
    url = "http://127.0.0.1:%d/api/v2/%s" % (port, path)
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        answer = json.load(opener.open(request, timeout=30))
    except urllib.error.HTTPError as error:
        answer = json.load(error)
    return answer.get("error", {}).get("message")


def test_everybody_reads_and_nobody_controls_without_the_password(python, make, tmp_path):
    master, _ = starter(python, make, tmp_path)
    nobody = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    assert master.rest("builders/hello")["builders"]
    paths = {"forceschedulers/force": "force", "workers/1": "stop", "builders/1": "nothing"}
    for path, method in paths.items():
        assert "need to have role" in control(nobody, master.www, path, method), path

    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, "http://127.0.0.1:%d/" % master.www, "admin", "shown once")
    jar = http.cookiejar.CookieJar()
    admin = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPCookieProcessor(jar),
    )
    # It redirects to a page that this name of the machine need not have.
    admin.open("http://127.0.0.1:%d/auth/login" % master.www, timeout=30)
    assert control(admin, master.www, "forceschedulers/force", "force") is None
    assert master.stop() == 0


WEB = """
url = "https://ci.example.org/"
login = "front"
private = %s
admins = ["alice"]
readers = ["alice", "bob"]
"""


class Stay(urllib.request.HTTPRedirectHandler):
    """A login leads to the address of the pages, which is another machine's here."""

    def redirect_request(self, *_):
        return None


def test_the_front_says_who_somebody_is_and_nobody_else_can(python, make, tmp_path):
    master, _ = starter(python, make, tmp_path, WEB % "true")

    def person(headers):
        """A user who has logged in with these headers, and keeps the session."""
        plain, jar = urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        opener = urllib.request.build_opener(plain, jar, Stay())
        request = urllib.request.Request("http://127.0.0.1:%d/auth/login" % master.www, headers=headers)
        try:
            opener.open(request, timeout=30)
        except urllib.error.HTTPError as error:
            assert (error.code, error.headers["Location"]) == (302, "https://ci.example.org/#/")
        return opener

    def reads(opener):
        try:
            return opener.open("http://127.0.0.1:%d/api/v2/masters" % master.www, timeout=30).status == 200
        except urllib.error.HTTPError as error:
            assert error.code == 403
            return False

    def controls(opener):
        return control(opener, master.www, "forceschedulers/force", "force") is None

    known = {"X-Buildbot-Key": "the key"}
    alice = person({"X-Buildbot-User": "alice", **known})
    bob = person({"X-Buildbot-User": "bob", **known})
    carol = person({"X-Buildbot-User": "carol", **known})
    forged = person({"X-Buildbot-User": "alice", "X-Buildbot-Key": "a key"})
    nobody = person(known)
    assert [reads(one) for one in (alice, bob, carol, forged, nobody)] == [True, True, False, False, False]
    assert [controls(one) for one in (alice, bob, carol, forged, nobody)] == [True, False, False, False, False]
    page = nobody.open("http://127.0.0.1:%d/" % master.www, timeout=30).read().decode()
    assert '"buildbotURL": "https://ci.example.org/"' in page and "the key" not in page

    # Open to read, and by no web server at all, from the next reload on.
    (master.directory / "web.toml").write_text(WEB % "false")
    master.signal(signal.SIGHUP)
    master.wait_log("configuration update complete")
    assert [reads(one) for one in (carol, forged)] == [True, True]
    assert [controls(one) for one in (alice, bob, forged)] == [True, False, False]
    (master.directory / "web.toml").unlink()
    master.signal(signal.SIGHUP)
    patience = time.monotonic() + 30
    while controls(alice):
        assert time.monotonic() < patience
        time.sleep(0.2)
    assert reads(nobody) and master.stop() == 0


def test_workers_are_read_at_every_reload_with_a_password_each(python, make, tmp_path):
    master, socket = starter(python, make, tmp_path)

    def worker(name, password):
        made = make(python, "worker", name="worker-" + name)
        (made.directory / "buildbot.tac").write_text(WORKER_TAC % (name, password, socket))
        return made.start().ready()

    first = worker("worker", "first")
    first.wait_status("^connected to .* as worker$", patience=30)
    # It does not know that of another one, which is known without a password at first.
    (master.directory / "workers.toml").write_text("[worker]\n[gpu]\nslots = 2\n[gpu.properties]\nfast = true\n")
    master.signal(signal.SIGHUP)
    master.wait_log("configuration update complete")
    further = worker("gpu", "first")
    further.wait_status("^rejected by .*unauthorized login", patience=30)
    (master.directory / "passwords" / "gpu").write_text("second\n")
    master.signal(signal.SIGHUP)
    assert further.stop() == 0
    (further.directory / "buildbot.tac").write_text(WORKER_TAC % ("gpu", "second", socket))
    further.start().ready()
    further.wait_status("^connected to .* as gpu$", patience=60)
    assert further.stop() == 0
    # As many workers as slots by one password, and a builder that chooses by a tag.
    configuration = master.directory / "master.cfg"
    text = configuration.read_text()
    configuration.write_text(text.replace("workernames=WORKERS", "workernames=tagged('fast')"))
    (master.directory / "workers.toml").write_text("[worker]\n[gpu]\nslots = 3\ntags = ['fast', 'big']\n")
    master.signal(signal.SIGHUP)
    builder = master.rest("builders/hello")["builders"][0]["builderid"]

    def names():
        workers = master.rest("builders/%d/workers" % builder)["workers"]
        return sorted(found["name"] for found in workers if found["configured_on"])

    wait_until(lambda: names() == ["gpu", "gpu-2", "gpu-3"], master.describe)
    last = worker("gpu-3", "second")
    last.wait_status("^connected to .* as gpu-3$", patience=60)
    assert last.stop() == 0 and first.stop() == 0 and master.stop() == 0


def test_workers_of_an_older_starter_move_to_the_table_by_a_reload_and_stay_connected(python, make, tmp_path):
    master = make.master(python)
    (tmp_path / "worker-password").write_text("shared\n")
    master.pb, master.www = free_port(), free_port()

    def configure(name):
        text = (HERE / name).read_text()
        text = text.replace("9990", str(master.pb)).replace("8010", str(master.www))
        (master.directory / "master.cfg").write_text(text)

    configure("older-master.cfg")
    master.start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).ready()

    def worker(name, password):
        made = make.worker(python, master, password=password)
        tac = made.directory / "buildbot.tac"
        tac.write_text(tac.read_text().replace("'w1'", repr(name)))
        return made.start()

    before = worker("worker", "shared")
    before.attached()
    (master.directory / "passwords").mkdir()
    for name in ("worker", "gpu"):
        (master.directory / "passwords" / name).write_text("shared\n")
    (master.directory / "workers.toml").write_text("[worker]\n[gpu]\n")
    configure("converted-master.cfg")
    master.signal(signal.SIGHUP)
    master.wait_log("configuration update complete")
    # Each can have its own password from now on, and further ones are added without a restart.
    (master.directory / "passwords" / "gpu").write_text("own\n")
    master.signal(signal.SIGHUP)
    wait_until(lambda: master.log().count("configuration update complete") == 2, master.describe)
    make.directory = tmp_path / "further"
    further = worker("gpu", "own")
    further.attached()
    assert before.log().count("worker is ready") == 1, before.log()
    names = {found["name"] for found in master.rest("workers")["workers"] if found["configured_on"]}
    assert names - {JANITOR} == {"gpu", "worker"}
    for one in (further, before, master):
        assert one.stop() == 0


SLOTS = 200


def seconds_of_processor(*instances):
    """What the processes have used so far, of user and system time."""
    used = 0
    for instance in instances:
        with open("/proc/%d/stat" % instance.process.pid) as file:
            used += sum(map(int, file.read().rpartition(")")[2].split()[11:13]))
    return used / os.sysconf("SC_CLK_TCK")


def test_two_hundred_workers_of_a_process_are_back_soon_after_a_restart_of_their_master(both_pythons, make, tmp_path):
    _, python = both_pythons
    master, socket = starter(python, make, tmp_path)
    (master.directory / "workers.toml").write_text("[worker]\n[gpu]\nslots = %d\n" % SLOTS)
    (master.directory / "passwords" / "gpu").write_text("second\n")
    master.signal(signal.SIGHUP)
    master.wait_log("configuration update complete")
    (tmp_path / "password").write_text("second\n")
    worker = make(python, "worker")
    tac = (HERE / "starter-slots.tac").read_text().replace("/run/buildbot-conda/master/workers", str(socket))
    (worker.directory / "buildbot.tac").write_text(tac)
    worker.start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).ready()

    def all_connected():
        status = worker.status_file()["worker"]
        return status["connection"] == "connected" and "%d of %d workers" % (SLOTS, SLOTS) in status["message"]

    wait_until(all_connected, worker.describe, patience=600)
    assert master.stop() == 0
    wait_until(lambda: not all_connected(), worker.describe)
    used, begun = seconds_of_processor(worker), time.monotonic()
    master.start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).ready()
    wait_until(all_connected, worker.describe, patience=600)
    took = time.monotonic() - begun
    used = seconds_of_processor(worker, master) - used
    print("all attached after %.1f s, %.1f s of processor" % (took, used))
    # The time depends on the load of the machine, and `cargo xtask bench farm` measures it.
    assert used < 30, used
    known = master.rest("workers?limit=1000")["workers"]
    assert sum(bool(found["connected_to"]) for found in known if found["name"] != JANITOR) == SLOTS
    assert worker.stop() == 0 and master.stop() == 0
