"""The door of a master: workers on other hosts use TLS, those on its own host a socket."""

import contextlib
import json
import signal
import shutil
import socket
import ssl
import subprocess
import time

import pytest

from instances import free_port, wait_until

WORKERS = ("near", "far")
# The port for workers as in a new master, and workers from a file, each with its own password.
CONFIGURATION = """
c['protocols'] = {'pb': {'port': 'unix:%s:mode=666'}}
with open('workers.toml') as file:
    names = file.read().split()
c['workers'] = [worker.Worker(name, 'password of ' + name) for name in names]
c['builders'][0].workernames = names
"""
WORKER_TAC = """
import os
from buildbot_worker.bot import Worker
from twisted.application import service
application = service.Application('buildbot-worker')
basedir = os.path.abspath(os.path.dirname(__file__))
Worker(None, None, %r, %r, basedir, 60, connection_string=%r).setServiceParent(application)
"""
NAMES = "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
AUTHORITY = "basicConstraints=critical,CA:TRUE\n"


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def sign(directory, name, extensions, days=5, by=None):
    """`NAME.pem` and `NAME.key` in a directory, signed by another of these, or by itself."""
    key, request, target = (directory / (name + ending) for ending in (".key", ".request", ".pem"))
    (directory / "extensions").write_text(extensions)
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    openssl("req", "-new", *new_key, "-out", request, "-subj", "/CN=" + name)
    signer = ["-signkey", key]
    if by:
        signer = ["-CA", directory / (by + ".pem"), "-CAkey", directory / (by + ".key"), "-CAcreateserial"]
    signing = ["-days", days, "-extfile", directory / "extensions", *signer]
    openssl("x509", "-req", "-in", request, "-out", target, *signing)
    return target, key


class Network:
    """A master with a door, and what its workers need."""

    def __init__(self, python, make, directory):
        self.python, self.make, self.directory = python, make, directory
        self.made = directory / "made"
        self.trusted = directory / "trusted"
        for path in (self.made, self.trusted):
            path.mkdir()
        self.port = free_port()
        self.go = directory / "go"
        command = "until test -e %s; do sleep 0.1; done; echo built" % self.go
        self.master = make.master(python, command=command)
        self.socket = self.master.run / "workers"
        configuration = self.master.directory / "master.cfg"
        configuration.write_text(configuration.read_text() + CONFIGURATION % self.socket)
        (self.master.directory / "workers.toml").write_text("\n".join(WORKERS))
        (self.master.directory / "tls").mkdir()
        # As many make it: the authority that is trusted has signed another one, which comes along.
        sign(self.made, "root", AUTHORITY)
        sign(self.made, "between", AUTHORITY, by="root")
        shutil.copy(self.made / "root.pem", self.trusted)
        self.renew()
        self.write()

    def renew(self, days=5):
        """A new certificate and its key."""
        certificate, key = sign(self.made, "leaf", NAMES, days, by="between")
        target = self.master.directory / "tls"
        (target / "certificate.pem").write_text(certificate.read_text() + (self.made / "between.pem").read_text())
        (target / "key.pem").write_text(key.read_text())

    def write(self, **changes):
        """`network.toml`, with other values or, as None, without some."""
        values = {"port": self.port, "certificate": "tls/certificate.pem", "key": "tls/key.pem", **changes}
        lines = ["%s = %s\n" % (key, json.dumps(value)) for key, value in values.items() if value is not None]
        self.file.write_text("".join(lines))

    @property
    def file(self):
        return self.master.directory / "network.toml"

    def reload(self):
        """What came of it, and the message."""
        count = sum("READY=1" in lines for lines in self.master.messages())
        self.master.signal(signal.SIGHUP)
        self.master.wait_for("READY=1", count + 1)
        status = self.master.status_file()
        return status["reconfiguration"]["outcome"], status["message"]

    def worker(self, name, password=None, directory=None, port=None):
        """A worker, not yet attached; `near` comes by the socket."""
        made = self.make(self.python, "worker", name=directory or "worker-" + name)
        place = "tls:127.0.0.1:%d:trustRoots=%s" % (port or self.port, self.trusted)
        place = "unix:path=%s" % self.socket if name == "near" else place
        text = WORKER_TAC % (name, password or "password of " + name, place)
        (made.directory / "buildbot.tac").write_text(text)
        return made.start()

    def served(self, host="127.0.0.1", port=None):
        """The certificate that the door presents, or None if nothing listens."""
        try:
            return ssl.get_server_certificate((host, port or self.port), timeout=30)
        except ConnectionRefusedError:
            return None

    def wait_attached(self, *names):
        """Until these and no other workers are known to have been attached."""

        def known():
            try:
                return set(json.loads((self.master.state / "attached.json").read_text())["workers"])
            except FileNotFoundError:
                return set()

        wait_until(lambda: known() == set(names), lambda: "%s, but %s" % (names, known()))


@pytest.fixture
def network(python, make, tmp_path):
    return Network(python, make, tmp_path)


def test_workers_of_this_host_and_of_others_build_and_each_has_its_own_password(network):
    network.go.touch()
    begun = int(time.time())
    master = network.master.start().ready()
    door = master.status_file()["door"]
    assert door["port"] == network.port and abs(door["certificate_until"] - (begun + 5 * 86400)) < 60
    far = network.worker("far")
    far.attached()
    network.wait_attached("far")
    master.force()
    assert master.finished(1) == 0 and "built" in master.stdio(1)

    near = network.worker("near")
    near.attached()
    network.wait_attached(*WORKERS)
    other = network.worker("far", "password of near", "worker-other")
    other.wait_status("^rejected by .*unauthorized login", patience=30)
    # The same name and password from elsewhere: the connected worker stays.
    other.stop()
    twin = network.worker("far", None, "worker-twin")
    # Buildbot's worker gives up at this refusal, so it may have exited before it is asked to.
    twin.wait_status("^(gave up: )?rejected by ", patience=30)
    twin.stop()
    assert far.status().startswith("connected to ") and near.status().startswith("connected to ")
    assert far.stop() == 0
    master.force()
    assert master.finished(2) == 0
    assert near.stop() == 0 and master.stop() == 0


def test_worker_that_is_no_longer_configured_loses_its_connection_and_its_name_is_forgotten(network):
    master = network.master.start().ready()
    near, far = (network.worker(name) for name in WORKERS)
    near.attached()
    far.attached()
    (master.directory / "workers.toml").write_text("near")
    assert network.reload()[0] == "complete"
    far.wait_status("^rejected by .*unauthorized login", patience=30)
    assert near.status().startswith("connected to ")
    network.wait_attached("near")
    # The port behind the door is removed with the last one.
    assert near.stop() == 0 and far.stop() == 0 and master.stop() == 0


def test_renewed_certificate_is_taken_at_a_reload_and_a_build_goes_on(network):
    master = network.master.start().ready()
    far = network.worker("far")
    far.attached()
    master.force()
    wait_until(lambda: master.build(1), master.describe)
    before, until = network.served(), master.status_file()["door"]["certificate_until"]
    network.renew(days=50)
    assert network.served() == before
    assert network.reload()[0] == "complete"
    assert network.served() not in (None, before)
    assert master.status_file()["door"]["certificate_until"] > until + 40 * 86400
    assert not master.build(1)["complete"]
    network.go.touch()
    assert master.finished(1) == 0
    assert not any("lost" in status for status in far.statuses()), far.describe()
    # And a worker accepts it.
    assert far.stop() == 0
    far.start().attached()
    assert far.stop() == 0 and master.stop() == 0


LOAD = """
c['collapseRequests'] = False
work = util.BuildFactory([steps.MakeDirectory(dir='build/a')])
names = ['load%%d' %% number for number in range(%d)]
c['builders'] += [util.BuilderConfig(name, workernames=['far'], factory=work) for name in names]
c['schedulers'].append(schedulers.ForceScheduler('load', builderNames=names))
c['workers'] = [worker.Worker(name, 'password of ' + name, max_builds=4) for name in ('near', 'far')]
"""
# Each builder looks at all of its requests whenever a build ends; a request is for all builders.
BUILDERS, REQUESTS = 5, 20
BUILDS = BUILDERS * REQUESTS


def test_certificate_that_is_renewed_under_load_disturbs_no_build_and_no_connection(network):
    configuration = network.master.directory / "master.cfg"
    configuration.write_text(configuration.read_text() + LOAD % BUILDERS)
    master = network.master.start().ready()
    far = network.worker("far")
    far.attached()
    for _ in range(REQUESTS):
        # A busy machine takes its time for the answer; what was asked for comes all the same.
        with contextlib.suppress(TimeoutError):
            master.rest("forceschedulers/load", method="force", username="Me <me@example.org>", reason="test")

    def builds():
        time.sleep(0.5)  # the master has better things to do than to answer
        try:
            return master.rest("builds?limit=1000&field=complete&field=results")["builds"]
        except TimeoutError:
            return []

    def finished():
        return sum(build["complete"] for build in builds())

    shown = set()
    for done in (BUILDS // 5, BUILDS // 2, BUILDS * 4 // 5):
        wait_until(lambda: finished() >= done, lambda: "%s, %s" % (builds(), master.describe()), patience=600)
        network.renew()
        assert network.reload()[0] == "complete"
        assert finished() < BUILDS
        shown.add(network.served())
    assert len(shown) == 3
    wait_until(lambda: finished() == BUILDS, lambda: "%s, %s" % (builds(), master.describe()), patience=600)
    assert [build["results"] for build in wait_until(builds, master.describe)] == [0] * BUILDS
    assert far.log().count("worker is ready") == 1, far.log()
    assert far.stop() == 0 and master.stop() == 0


def test_port_and_interface_are_changed_and_the_door_is_closed_by_a_reload(network):
    network.write(interface="127.0.0.1")
    master = network.master.start().ready()
    far = network.worker("far")
    far.attached()

    before, after = network.port, free_port()
    network.write(port=after, interface="127.0.0.1")
    assert network.reload()[0] == "complete"
    assert master.status_file()["door"]["port"] == after
    wait_until(lambda: network.served(port=before) is None, "the end of the port before")
    network.write(port=after)
    assert network.reload()[0] == "complete"
    for host in ("127.0.0.1", "127.0.0.2", "::1"):
        assert network.served(host, after), host
    network.write(port=after, interface="127.0.0.2")
    assert network.reload()[0] == "complete"
    wait_until(lambda: network.served(port=after) is None, "the end of the interface before")
    assert network.served("127.0.0.2", after)
    assert far.status().startswith("connected to ") and far.log().count("Lost connection") == 0

    network.file.unlink()
    assert network.reload()[0] == "complete"
    far.wait_status("^(lost|cannot|connecting)", patience=30)
    assert network.served("127.0.0.2", after) is None
    assert master.status_file()["door"] is None
    assert far.stop() == 0 and master.stop() == 0


def take_port(network):
    listener = socket.create_server(("127.0.0.1", 0))
    network.write(port=listener.getsockname()[1], interface="127.0.0.1")
    return listener


def encrypt(network):
    key = network.master.directory / "tls" / "key.pem"
    openssl("ec", "-in", key, "-aes256", "-passout", "pass:secret", "-out", str(key) + ".new")
    (key.parent / "key.pem.new").rename(key)


def tls_file(name, text):
    return lambda network: (network.master.directory / "tls" / name).write_text(text)


NO_CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
# What is done, the exit status of a start, and the reason.
FAILURES = {
    "no key": (lambda network: network.write(key="tls/none.pem"), 78, "tls/none.pem`: No such file or directory"),
    "a directory": (lambda network: network.write(certificate="tls"), 78, "tls`: Is a directory"),
    "another key": (
        lambda network: network.write(key=str(network.made / "root.key")),
        78,
        "tls/certificate.pem` does not match the key `",
    ),
    "an encrypted key": (encrypt, 78, "tls/key.pem` contains no private key in PEM format without a passphrase"),
    "no certificate": (tls_file("certificate.pem", "none\n"), 78, "tls/certificate.pem` contains no certificate in PEM format"),
    "a broken certificate": (tls_file("certificate.pem", NO_CERTIFICATE), 78, "contains no readable certificate"),
    "no TOML": (lambda network: network.file.write_text("port = \n"), 78, "network.toml`: Invalid value (at line 1"),
    "no text": (lambda network: network.file.write_bytes(b"\xff"), 78, "network.toml`: ", "can't decode"),
    "several errors": (
        lambda network: network.write(port="9989", key=None, colour="red", interface="eth0"),
        78,
        "network.toml`: unknown key `colour`; ",
        "`port` must be a number",
        "`key` is missing",
        "`interface` must be an address",
    ),
    "a port out of range": (lambda network: network.write(port=65536), 78, "`port` must be from 1 to 65535"),
    "a port that is taken": (take_port, 69, "network.toml`: Couldn't listen on 127.0.0.1:", "Address already in use"),
    "an address of another host": (
        lambda network: network.write(interface="192.0.2.1"),
        69,
        "network.toml`: Couldn't listen on 192.0.2.1:",
    ),
}


# The others end a start in the same way; those below try them all.
@pytest.mark.parametrize("kind", ["no key", "several errors", "a port that is taken"])
def test_start_fails_with_the_reason_why_the_door_cannot_be_opened(network, kind):
    change, status, *reasons = FAILURES[kind]
    kept = change(network)
    master = network.master.start()
    assert master.wait() == status, master.describe()
    assert all(reason in master.status() for reason in reasons), master.describe()
    assert not any("READY=1" in lines for lines in master.messages())
    assert master.status_file()["exit_status"] == status
    del kept


def test_reload_names_the_reason_why_the_door_cannot_be_changed_and_leaves_it_open(network):
    master = network.master.start().ready()
    far = network.worker("far")
    far.attached()
    before, door = network.served(), master.status_file()["door"]
    good = network.directory / "good"
    shutil.copytree(master.directory / "tls", good)
    for kind, (change, _, *reasons) in FAILURES.items():
        kept = change(network)
        outcome, message = network.reload()
        assert outcome == "partial" and all(reason in message for reason in reasons), (kind, message)
        assert network.served() == before and master.status_file()["door"] == door, kind
        del kept
        network.write()
        shutil.copytree(good, master.directory / "tls", dirs_exist_ok=True)
    # One that has expired is of use to nobody; that before it may be.
    network.renew(days=-1)
    outcome, message = network.reload()
    assert outcome == "partial" and "tls/certificate.pem` has expired" in message, message
    assert network.served() == before
    shutil.copytree(good, master.directory / "tls", dirs_exist_ok=True)
    assert network.reload()[0] == "complete"
    assert far.status().startswith("connected to "), far.describe()
    assert far.stop() == 0 and master.stop() == 0


def test_environment_without_pyopenssl_is_named(network):
    (network.directory / "OpenSSL.py").write_text("raise ImportError('No module named OpenSSL')\n")
    master = network.master.start(env={"PYTHONPATH": str(network.directory)})
    assert master.wait() == 78, master.describe()
    assert "network.toml`: TLS needs the package `pyopenssl`" in master.status(), master.describe()
    assert "hint: install it into `" in master.log()


def test_certificate_that_has_expired_keeps_no_master_from_serving_its_own_host(network):
    network.renew(days=-1)
    master = network.master.start().ready()
    assert "tls/certificate.pem` has expired" in master.log()
    assert master.status_file()["door"]["certificate_until"] < time.time()
    near = network.worker("near")
    near.attached()
    assert network.reload()[0] == "complete"
    network.renew()
    assert network.reload()[0] == "complete"
    far = network.worker("far")
    far.attached()
    assert far.stop() == 0 and near.stop() == 0 and master.stop() == 0


def is_closed(connection):
    """Whether the other side ends a connection, in the end."""
    connection.settimeout(30)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_whoever_does_not_log_in_is_sent_away_and_whoever_does_stays(network):
    master = network.master.start(LOGIN_PATIENCE=10).ready()
    context = ssl.create_default_context(cafile=str(network.made / "root.pem"))
    with socket.create_connection(("127.0.0.1", network.port)) as silent:
        with socket.create_connection(("127.0.0.1", network.port)) as plain:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as idle:
                far = network.worker("far")
                far.attached()
                begun = time.monotonic()
                assert is_closed(silent) and is_closed(idle)
    time.sleep(max(0, begun + 11 - time.monotonic()))
    assert far.status().startswith("connected to "), far.describe()
    assert far.stop() == 0 and master.stop() == 0


def test_door_that_leads_nowhere_is_closed_to_all(network):
    configuration = network.master.directory / "master.cfg"
    nobody = "\nc['multiMaster'] = True\nc['workers'] = c['builders'] = c['schedulers'] = []\n"
    configuration.write_text(configuration.read_text() + nobody)
    master = network.master.start().ready()
    with socket.create_connection(("127.0.0.1", network.port)) as connection:
        assert is_closed(connection)
    configuration.write_text(configuration.read_text() + "c['protocols'] = {}\n")
    outcome, message = network.reload()
    assert outcome == "partial" and "network.toml`: no port for workers" in message
    assert master.stop() == 0
