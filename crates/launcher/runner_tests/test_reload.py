"""Reloads: what has changed is in effect when they have succeeded, or they name what is not."""

import re
import socket
import ssl
import time
import urllib.error
import urllib.request

import pytest

from certificates import Authority, trust
from instances import PATIENCE, free_port


class Configuration:
    """The master.cfg of a master, and its reloads."""

    def __init__(self, master):
        self.master, self.file, self.count = master, master.directory / "master.cfg", 1
        self.text = self.file.read_text()

    def reload(self, *changes, extra=""):
        """Reload with regular expressions of the first text replaced; returns what came of it."""
        text = self.text
        for old, new in changes:
            text, found = re.subn(old, lambda _: new, text)
            assert found, old
        self.file.write_text(text + extra)
        self.count += 1
        self.master.signal(1)
        self.master.wait_for("READY=1", self.count)
        return self.master.status_file()["reconfiguration"]

    def complete(self, *changes, **extra):
        found = self.reload(*changes, **extra)
        assert found["outcome"] == "complete", self.master.describe()


def test_ports_protocols_and_passwords_are_in_effect_after_a_reload(python, make, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.mkdir(0o700)
    (secrets / "w2").write_text("one")
    (secrets / "w2").chmod(0o600)
    extra = """
from buildbot.plugins import secrets
c['secretsProviders'] = [secrets.SecretInAFile(%r)]
c['workers'].append(worker.Worker('w2', util.Secret('w2')))
""" % str(secrets)
    master = make.master(python, extra=extra).start().ready()
    configuration = Configuration(master)
    first = make.worker(python, master).start()
    first.attached()

    # The same port with another description, which the workers that have not changed listen to.
    configuration.complete(("tcp:%d:interface=127.0.0.1" % master.pb, "tcp:%d" % master.pb))
    assert first.status().startswith("connected to "), first.describe()
    # Another port, which is the only one from then on.
    moved = free_port()
    port = ("tcp:%d:interface=127.0.0.1" % master.pb, "tcp:%d:interface=127.0.0.1" % moved)
    configuration.complete(port)
    assert first.stop() == 0
    first.start().wait_status("^cannot reach ", 15)
    assert first.stop() == 0
    tac = first.directory / "buildbot.tac"
    tac.write_text(tac.read_text().replace("port = %d" % master.pb, "port = %d" % moved))
    first.start().attached()
    assert first.stop() == 0

    # A password there and back: Buildbot compares with the first one.
    configuration.complete(port, ("'w1', 'secret'", "'w1', 'other'"))
    first.start().wait_status("unauthorized login", 15)
    configuration.complete(port)
    first.attached(patience=30)
    assert first.stop() == 0

    # A secret in a file, under the same name.
    (secrets / "w2").write_text("two")
    configuration.complete(port)
    tac.write_text(tac.read_text().replace("'w1'", "'w2'").replace("'secret'", "'two'"))
    first.start().attached()
    assert first.stop() == 0

    # Another protocol instead, and back.
    other = "'protocols': {'msgpack_experimental_v7': {'port': %d}}," % free_port()
    configuration.complete((r"'protocols': \{.*\}\},", other))
    first.start().wait_status("^cannot reach ", 15)
    configuration.complete(port)
    first.attached(patience=30)
    # A second one beside the first, which is not disturbed, and without it again.
    beside = free_port()
    configuration.complete(port, extra="\nc['protocols']['msgpack_experimental_v7'] = {'port': %d}\n" % beside)
    socket.create_connection(("127.0.0.1", beside), 5).close()
    assert first.status().startswith("connected to "), first.describe()
    configuration.complete(port)
    refuses(beside)
    # None at all, and back.
    configuration.complete(port, extra="\nc.update(multiMaster=True, protocols={}, workers=[], builders=[], schedulers=[])\n")
    refuses(moved)
    configuration.complete(port)
    first.attached(patience=30)
    assert first.stop() == 0 and master.stop() == 0


def refuses(port):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_web_port_site_and_manhole_are_in_effect_after_a_reload(python, make):
    master = make.master(python).start().ready()
    configuration = Configuration(master)
    web = "tcp:%d:interface=127.0.0.1" % master.www
    hook = "http://127.0.0.1:%d/change_hook/base"

    def status(port):
        try:
            with urllib.request.urlopen(hook % port, b"", timeout=PATIENCE) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    dialects = "\nc['www']['change_hook_dialects'] = {'base': True}\n"
    configuration.complete(extra=dialects)
    assert status(master.www) not in (401, 404)
    closed = """
from twisted.cred import strcred
c['www']['change_hook_auth'] = [strcred.makeChecker('memory:me:secret')]
"""
    configuration.complete(extra=dialects + closed)
    assert status(master.www) == 401
    configuration.complete(extra=dialects)
    assert status(master.www) != 401
    moved, old = free_port(), master.www
    configuration.complete((web, "tcp:%d:interface=127.0.0.1" % moved), extra=dialects)
    assert status(moved) not in (401, 404)
    with pytest.raises(urllib.error.URLError, match="refused"):
        status(old)
    configuration.complete((r"'port': '%s'" % web, "'port': None"))
    with pytest.raises(urllib.error.URLError, match="refused"):
        status(moved)

    manhole = free_port()
    extra = "\nfrom buildbot import manhole\nc['manhole'] = manhole.TelnetManhole('tcp:%d:interface=127.0.0.1', 'a', 'b')\n"
    configuration.complete(extra=extra % manhole)
    socket.create_connection(("127.0.0.1", manhole), 5).close()
    another = free_port()
    configuration.complete(extra=extra % another)
    socket.create_connection(("127.0.0.1", another), 5).close()
    refuses(manhole)
    configuration.complete()
    refuses(another)
    assert status(master.www) != 401
    # The making of a site alone looks at it, and Buildbot refuses to have it taken away.
    cookie = "\nimport datetime; c['www']['cookie_expiration_time'] = datetime.timedelta(days=1)\n"
    configuration.complete(extra=cookie)
    found = configuration.reload()
    assert found["outcome"] == "aborted" and "c['www']['cookie_expiration_time'] has" in found["message"], found
    assert master.stop() == 0


# What a reload cannot put into effect -> words of its refusal.
REFUSED = {
    "c['db'] = {'db_url': 'sqlite:///other.sqlite'}": "c['db'] has changed, which needs a restart of the master",
    "c['db']['db_url'] = 'postgresql+psycopg2://db.example.org/buildbot'": "c['db'] has changed",
    "c['mq'] = {'type': 'wamp', 'router_url': 'ws://127.0.0.1:1/ws', 'realm': 'x'}": "c['mq'] has changed",
    "c['protocols'] = {'pb': {'port': 'ssl:1:privateKey=/no/key'}}": "c['protocols']['pb']['port']: the port `ssl:1:",
    "c['www']['port'] = 'ssl:1:privateKey=/no/key'": "c['www']['port']: the port `ssl:1:privateKey=/no/key` cannot",
    "import os; open(os.environ['CREDENTIALS_DIRECTORY'] + '/new')": "the credential `new` needs a restart: ",
}


def test_reload_that_needs_a_restart_is_refused_by_name_and_touches_nothing(python, make, tmp_path):
    master = make.master(python).start(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).ready()
    worker = make.worker(python, master).start()
    worker.attached()
    configuration = Configuration(master)
    for line, words in REFUSED.items():
        found = configuration.reload(("'title': 'test'", "'title': 'new'"), extra="\n%s\n" % line)
        assert found["outcome"] == "aborted", (line, master.describe())
        assert words in found["message"], found
    master.force()
    assert master.finished(1) == 0
    configuration.complete()
    assert worker.status().startswith("connected")
    assert worker.stop() == 0 and master.stop() == 0


def test_renewed_certificates_are_shown_to_whoever_comes_and_nobody_has_to_leave(python, make, tmp_path):
    authority, port, web = Authority(tmp_path / "own"), free_port(), free_port()
    description = authority.port(port)
    extra = "\nc['protocols'] = {'pb': {'port': %r}}\n" % description
    ports = {port: "c['protocols']['pb']['port']"}
    # Twisted 23.10 changes a context in use for HTTP, which pyOpenSSL does not take any more: no HTTPS with it.
    if "3.11.9" not in str(python):
        extra += "c['www']['port'] = %r\n" % description.replace(str(port), str(web), 1)
        ports[web] = "c['www']['port']"
    master = make.master(python, extra=extra)
    master.start().ready()
    configuration = Configuration(master)
    worker = trust(make.worker(python, master), authority.roots, port).start()
    worker.attached()
    found = master.status_file()["certificates"]
    assert [one["port"] for one in found] == list(ports.values())
    assert all(8.9 < (one["expires"] - time.time()) / 86400 < 9 for one in found)
    before = [ssl.get_server_certificate(("127.0.0.1", number)) for number in ports]
    configuration.complete()
    assert [ssl.get_server_certificate(("127.0.0.1", number)) for number in ports] == before
    authority.certificate(days=30)
    configuration.complete()
    assert all(29 < (one["expires"] - time.time()) / 86400 for one in master.status_file()["certificates"])
    after = [ssl.get_server_certificate(("127.0.0.1", number)) for number in ports]
    assert not set(before) & set(after)
    time.sleep(1)
    assert "lost" not in " ".join(worker.statuses()), worker.describe()
    assert worker.stop() == 0
    worker.start().attached()
    # One that is no good is refused, and the one before goes on.
    key = (tmp_path / "own" / "master.key").read_text()
    (tmp_path / "own" / "master.key").write_text("")
    assert configuration.reload()["outcome"] == "aborted"
    assert ssl.get_server_certificate(("127.0.0.1", port)) == after[0]
    # A port that is no more has none that could expire.
    (tmp_path / "own" / "master.key").write_text(key)
    plain = "\nc['protocols'] = {'pb': {'port': 'tcp:%d:interface=127.0.0.1'}}" % port
    configuration.complete(extra=plain + "\nc['www']['port'] = None\n")
    assert master.status_file()["certificates"] == []
    assert worker.stop() == 0 and master.stop() == 0
