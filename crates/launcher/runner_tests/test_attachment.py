"""Workers that connect and disconnect at a bad moment, and still get builds."""

import json
import os
import pathlib
import subprocess
import sys
import time
import types

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from buildbot_conda_runner.attached import Attached

# A worker that leaves as soon as its master has asked for what it asks first; argv is the port.
FLEETING = """
import sys
from twisted.cred import credentials
from twisted.internet import reactor
from twisted.spread import pb

class Bot(pb.Referenceable):
    def remote_print(self, message):
        pass

    def remote_getWorkerInfo(self):
        reactor.callLater(0, factory.disconnect)
        return {"version": "4.3.0", "worker_commands": {}, "environ": {}, "system": "posix", "basedir": "/"}

factory = pb.PBClientFactory()
factory.clientConnectionLost = lambda *arguments, **named: reactor.stop()
reactor.connectTCP("127.0.0.1", int(sys.argv[1]), factory)
factory.login(credentials.UsernamePassword(b"w1", b"secret"), Bot()).addErrback(lambda _: None)
reactor.run()
"""

# The first attachment fails, with its connection alive.
UNLUCKY = """
from buildbot.worker.base import AbstractWorker
send = AbstractWorker.sendBuilderList

def fail_once(self):
    AbstractWorker.sendBuilderList = send
    raise RuntimeError("not this time")

AbstractWorker.sendBuilderList = fail_once
"""


def test_worker_that_leaves_while_it_is_attached_can_come_again(python, make):
    master = make.master(python, command="echo done").start().ready()
    for _ in range(3):
        subprocess.run([python, "-c", FLEETING, str(master.pb)], check=True, timeout=60)
    worker = make.worker(python, master).start()
    worker.attached()
    master.force()
    assert master.finished(1) == 0
    assert "already connected" not in master.log()
    assert worker.stop() == 0 and master.stop() == 0


def test_worker_whose_attachment_fails_comes_again(python, make):
    master = make.master(python, command="echo done")
    configuration = master.directory / "master.cfg"
    configuration.write_text(configuration.read_text() + UNLUCKY)
    master.start().ready()
    worker = make.worker(python, master).start()
    master.wait_log("not this time")
    worker.attached()
    master.force()
    assert master.finished(1) == 0
    assert worker.stop() == 0 and master.stop() == 0


def test_a_list_of_workers_that_is_not_whole_says_so_by_its_begin(tmp_path):
    path, words = tmp_path / "attached.json", []
    journal = types.SimpleNamespace(write=lambda _, text: words.append(text))

    def content():
        return json.loads(path.read_text())

    before = int(time.time())
    first = Attached(str(tmp_path), journal)
    first.note("w1")
    assert content()["since"] >= before and set(content()["workers"]) == {"w1"}
    # One that can be read goes on.
    path.write_text('{"since": 5, "workers": {"w1": 7}}')
    Attached(str(tmp_path), journal).note("w2")
    assert content()["since"] == 5 and content()["workers"]["w1"] == 7 and "w2" in content()["workers"]
    for text in ("", "{}", '{"workers": {"w1": 7}}', '{"since": 5, "workers": [1]}', "\0"):
        path.write_text(text)
        begun = Attached(str(tmp_path), journal)
        assert content() == {"since": begun.since, "workers": {}} and begun.since >= before, text
    assert words == []
    # One that cannot be written is not left there, and written as soon as it can be.
    begun.note("w1")
    path.with_name("attached.json.%d" % os.getpid()).mkdir()
    begun.note("w2")
    assert not path.exists() and "cannot write `%s`" % path in words[0]
    path.with_name("attached.json.%d" % os.getpid()).rmdir()
    begun.note("w2")
    assert set(content()["workers"]) == {"w1", "w2"}
