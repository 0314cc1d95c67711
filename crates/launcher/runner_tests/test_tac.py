"""What is read from a worker's tac before it is run, and what follows from it."""

import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from buildbot_conda_runner import tac

STOCK = """
import os
from buildbot_worker.bot import Worker
from twisted.application import service
from twisted.python.logfile import LogFile
from twisted.python.log import ILogObserver, FileLogObserver

basedir = '.'
if basedir == '.':
    import os.path
    basedir = os.path.abspath(os.path.dirname(__file__))
application = service.Application('buildbot-worker')
passwd = open(os.environ['CREDENTIALS_DIRECTORY'] + '/password').read().strip()
connection_string = None
proxy_connection_string = None
use_tls = 0
protocol = 'pb'
s = Worker('localhost', 9989, 'w', passwd, basedir, 60, umask=None, useTls=use_tls, protocol=protocol,
           connection_string=connection_string, proxy_connection_string=proxy_connection_string)
s.setServiceParent(application)
"""

CHANGES = {
    "nothing changed": ("", "", True),
    "another host": ("'localhost'", "'buildmaster.example.org'", True),
    "a TCP endpoint": ("connection_string = None", "connection_string = 'tcp:example.org:9989'", True),
    "more than one worker": ("s.setServiceParent", "Worker('b', 1, 'x', 'y', 'z', 9).setServiceParent", True),
    "a TLS endpoint": ("connection_string = None", "connection_string = 'tls:example.org:9989'", False),
    "an endpoint from a file": ("connection_string = None", "connection_string = open('c').read()", False),
    "an endpoint from the environment": ("connection_string=connection_string", "connection_string=os.environ['C']", False),
    "an endpoint that is assigned twice": ("protocol = 'pb'", "protocol = 'pb'\nconnection_string = 'tls:e:1'", False),
    "an endpoint that is added to": ("protocol = 'pb'", "protocol = 'pb'\nproxy_connection_string += 'tcp:e:1'", False),
    "an endpoint from a loop": ("protocol = 'pb'", "protocol = 'pb'\nfor connection_string in ['tls:e:1']: pass", False),
    "TLS": ("use_tls = 0", "use_tls = 1", False),
    "TLS, perhaps": ("use_tls = 0", "use_tls = os.environ.get('TLS')", False),
    "WebSockets": ("protocol = 'pb'", "protocol = 'msgpack_experimental_v7'", False),
    "arguments by position": ("60, umask=None,", "60, None, None, None, None, None, None, 'pb', 1,", False),
    "arguments from a list": ("60, umask", "*[60], umask", False),
    "arguments from a dict": ("umask=None", "**{'umask': None}", False),
    "a module of its own": ("import os\n", "import os\nimport helpers\n", False),
    "a relative import": ("import os\n", "import os\nfrom . import helpers\n", False),
    "Twisted's own TLS": ("import os\n", "import os\nfrom twisted.internet import ssl\n", False),
    "a renamed import": ("import Worker", "import Worker as W, Worker", False),
    "a class of its own": ("s = Worker(", "class Mine(Worker): pass\ns = Mine(", False),
    "a function of its own": ("s = Worker(", "make = lambda *a, **k: Worker(*a)\ns = make(", False),
    "a worker by another name": ("s = Worker(", "Other = Worker\ns = Other(", False),
    "code as text": ("protocol = 'pb'", "protocol = 'pb'\nexec(open('more').read())", False),
    "an import by name": ("protocol = 'pb'", "protocol = 'pb'\n__import__('ssl')", False),
    "no worker": ("s = Worker(", "s = print(", False),
    "no Python": ("s = Worker(", "s = = Worker(", False),
    "a NUL": ("import os\n", "import os\n\0", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_worker_is_plain_only_beyond_doubt(change, tmp_path):
    old, new, plain = CHANGES[change]
    assert old in STOCK
    path = tmp_path / "buildbot.tac"
    path.write_text(STOCK.replace(old, new, 1))
    assert tac.is_plain(path) is plain


def test_an_unreadable_tac_is_not_plain(tmp_path):
    assert not tac.is_plain(tmp_path / "missing") and not tac.is_plain(tmp_path)
    (tmp_path / "deep").write_text("(" * 5000)
    assert not tac.is_plain(tmp_path / "deep")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert not tac.is_plain(tmp_path / "binary")


def test_only_a_worker_that_may_need_tls_loads_it(python, make):
    master = make.master(python).start().ready()
    worker = make.worker(python, master)
    path = worker.directory / "buildbot.tac"
    stock = path.read_text() + "\nimport sys\nopen('found', 'w').write(str('OpenSSL' in sys.modules))\n"
    has_openssl = subprocess.run([python, "-c", "import OpenSSL"], capture_output=True).returncode == 0
    for text, found in (stock, "False"), ("import json\n" + stock, str(has_openssl)):
        path.write_text(text)
        worker.start().ready()
        worker.attached()
        assert (worker.directory / "found").read_text() == found
        assert worker.stop() == 0
