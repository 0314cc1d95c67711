"""Starts that fail: each with an honest exit status, and the reason on the status line."""

import os
import pwd
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from instances import RUNNER, Instance, free_port, wait_until


def fails(instance, status, *reasons):
    """The exit status, and the reason on the status line, in status.json and in the log."""
    assert instance.wait() == status, instance.describe()
    for reason in reasons:
        assert reason in instance.status(), instance.describe()
    assert not any("READY=1" in lines for lines in instance.messages())
    found = instance.status_file()
    assert (found["state"], found["exit_status"]) == ("failed", status)
    assert found["message"] == instance.status() and "\n" not in found["message"]
    assert not (instance.directory / "twistd.pid").exists()


BROKEN = {
    "unknown key": ("c['colour'] = 1", "Unknown BuildmasterConfig key", "colour"),
    "two errors": ("c['colour'] = 1; c['builders'] = 3", "colour", "builders"),
    "config error": ("from buildbot import config; config.error('no good')", "no good"),
    "syntax error": ("c = (", "SyntaxError", "master.cfg"),
    "import error": ("import absent_module", "No module named 'absent_module'", "master.cfg, line"),
    "name error": ("nonsense", "name 'nonsense' is not defined", "master.cfg, line"),
    "web plugin": ("c['www']['plugins'] = {'absent': {}}", "could not find plugin absent"),
    "plugin": ("from buildbot.plugins import steps; steps.Absent", "Absent"),
    "no config": ("del BuildmasterConfig", "does not define 'BuildmasterConfig'"),
    "system exit": ("raise SystemExit('enough')", "SystemExit: enough", "master.cfg, line"),
    "clean exit": ("import sys; sys.exit(0)", "SystemExit: 0", "master.cfg, line"),
    "keyboard interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "hard exit": ("import os; os._exit(0)", "os._exit(0) was called", "master.cfg, line"),
    "database driver": ("c['db'] = {'db_url': 'absent://x'}", "absent"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_configuration_exits_78_with_the_reason(python, make, kind):
    line, *reasons = BROKEN[kind]
    fails(make.master(python, extra="\n" + line + "\n").start(), 78, *reasons)


def test_absent_configuration_exits_78(python, make):
    fails(make(python, "master").start(), 78, "master.cfg' does not exist")


UNAVAILABLE = {
    "refused": "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}/')",
    "refused, caught":
    """
try:
    import socket; socket.create_connection(('127.0.0.1', {port}))
except OSError as error:
    raise ValueError('cannot fetch') from None""",
    "refused, reported":
    """
import urllib.request
from buildbot import config
try:
    urllib.request.urlopen('http://127.0.0.1:{port}/')
except Exception as error:
    config.error('cannot fetch: %s' % error)""",
    "refused, exit":
    """
import sys, urllib.request
try:
    urllib.request.urlopen('http://127.0.0.1:{port}/')
except Exception as error:
    sys.exit('cannot fetch: %s' % error)""",
    "name": "import socket; socket.getaddrinfo('nowhere.invalid', 443)",
    "timed out": "raise TimeoutError('timed out')",
    "unreachable": "import errno, os; raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))",
    "busy": "import urllib.error; raise urllib.error.HTTPError('http://x', 503, 'busy', {{}}, None)",
    "twisted":
    """
from twisted.internet import error
from twisted.python.failure import Failure
from twisted.web._newclient import ResponseNeverReceived
raise ResponseNeverReceived([Failure(error.ConnectionRefusedError('no'))])""",
    "full": "import errno; raise OSError(errno.ENOSPC, 'No space left on device')",
    "a program": "import subprocess; raise subprocess.CalledProcessError(7, ['/usr/bin/curl', '-f', 'http://x'])",
    "a program that says so":
    """
import subprocess
shown = 'echo "fatal: unable to access: Could not resolve host: git.example" >&2; exit 128'
subprocess.run(['sh', '-c', shown], check=True, stderr=subprocess.PIPE)""",
    "a program that takes too long": "import subprocess; subprocess.run(['sleep', '9'], timeout=0.1)",
}


@pytest.mark.parametrize("place", ["master.cfg", "buildbot.tac"])
@pytest.mark.parametrize("kind", UNAVAILABLE)
def test_what_may_heal_exits_69_wherever_it_arises(python, make, kind, place):
    master = make.master(python)
    path = master.directory / place
    path.write_text(path.read_text() + "\n" + UNAVAILABLE[kind].format(port=free_port()) + "\n")
    # An error that a configuration reports itself has no place.
    fails(master.start(), 69, *([] if kind == "refused, reported" else [place]))


LASTING = {
    "not found": "import urllib.error; raise urllib.error.HTTPError('http://x', 404, 'Not Found', {}, None)",
    "certificate": "import ssl; raise ssl.SSLCertVerificationError(1, 'certificate verify failed')",
    "file": "open('/nowhere')",
    "denied": "raise PermissionError(13, 'Permission denied')",
    "a program": "import subprocess; raise subprocess.CalledProcessError(22, ['curl', '-f', 'http://x'])",
    "a program that has no repository":
    """
import subprocess
subprocess.run(['sh', '-c', 'echo "fatal: not a git repository"; exit 128'], check=True, stdout=subprocess.PIPE)""",
    "statement": "import sqlite3; sqlite3.connect(':memory:').execute('select * from absent')",
    "after one that was handled":
    """
try:
    import socket; socket.getaddrinfo('nowhere.invalid', 443)
except OSError:
    pass
int('x')""",
}


@pytest.mark.parametrize("kind", LASTING)
def test_what_does_not_heal_exits_78(python, make, kind):
    fails(make.master(python, extra="\n" + LASTING[kind] + "\n").start(), 78, "master.cfg")


def test_waiting_for_the_network_within_the_configuration_exits_69(python, make):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = "http://127.0.0.1:%d/" % silent.getsockname()[1]
        master = make.master(python, extra="\nimport urllib.request; urllib.request.urlopen('%s')\n" % url)
        master.start("--start-timeout", "20")
        fails(master, 69, "within 20 s", "master.cfg", "waiting for the network")


def test_configuration_behind_a_link_that_is_not_seen_is_named(python, make, tmp_path):
    master = make.master(python)
    (master.directory / "master.cfg").unlink()
    (master.directory / "master.cfg").symlink_to(tmp_path / "settings" / "main.cfg")
    fails(master.start(), 78, "does not exist")
    assert "`BindReadOnlyPaths=%s`" % (tmp_path / "settings") in master.log().split("hint: ")[-1]


BROKEN_TACS = {
    "absent": (None, "buildbot.tac` is missing"),
    "empty": ("", "does not define `application`"),
    "syntax error": ("def (", "SyntaxError", "buildbot.tac, line 1"),
    "import error": ("import absent_module", "No module named 'absent_module'", "buildbot.tac, line 1"),
    "exception": ("\n\nint('x')", "ValueError: invalid literal", "buildbot.tac, line 3"),
    "system exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "hard exit": ("import os; os._exit(0)", "os._exit(0) was called"),
    "nothing in it": (
        "from twisted.application import service; application = service.Application('x')",
        "defines no Buildbot",
    ),
}


@pytest.mark.parametrize("role", ["master", "worker"])
@pytest.mark.parametrize("kind", BROKEN_TACS)
def test_broken_tac_exits_78_with_the_reason(python, make, tmp_path, role, kind):
    text, *reasons = BROKEN_TACS[kind]
    directory = tmp_path / role
    directory.mkdir()
    if text is not None:
        (directory / "buildbot.tac").write_text(text)
    instance = Instance(make, python, role, directory, role)
    make.made.append(instance)
    fails(instance.start(), 78, *reasons)


def test_tac_of_the_other_role_exits_78(python, make):
    worker = make(python, "worker")
    worker.role = "master"
    fails(worker.start(), 78, "defines no Buildbot master")


def test_environment_without_buildbot_exits_78_with_a_hint(python, make, tmp_path):
    for role, package, name in [
        ("master", "buildbot", "buildbot"),
        ("worker", "buildbot_worker", "buildbot-worker"),
    ]:
        hiding = tmp_path / ("without-" + role)
        hiding.mkdir()
        (hiding / (package + ".py")).write_text(
            "raise ModuleNotFoundError(\"No module named '%s'\", name='%s')" % (package, package)
        )
        instance = make(python, role).start(env={"PYTHONPATH": str(hiding)})
        fails(instance, 78, "No module named '%s'" % package)
        assert "hint: install `%s` into" % name in instance.log()


@pytest.mark.parametrize("place", ["master.cfg", "buildbot.tac"])
def test_endless_loop_exits_78_and_names_its_line(python, make, place):
    master = make.master(python)
    path = master.directory / place
    path.write_text(path.read_text() + "\ndef spin():\n    while True: pass\nspin()\n")
    begun = time.monotonic()
    master.start("--start-timeout", "8")
    fails(master, 78, "within 8 s", place, "in spin")
    assert 8 <= time.monotonic() - begun < 14
    assert "in spin" in master.log()


def test_term_ends_an_endless_loop(python, make):
    master = make.master(python, extra="\nopen('begun', 'w').close()\nwhile True: pass\n").start()
    wait_until((master.directory / "begun").exists, master.describe)
    assert master.stop() == 0


@pytest.mark.parametrize("which", ["pb", "www"])
def test_port_in_use_exits_69(python, make, which):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        master = make.master(python, **{which: port}).start()
        fails(master, 69, "Couldn't listen on 127.0.0.1:%d" % port)


def test_port_of_another_account_is_named_with_the_account(monkeypatch):
    sys.path.insert(0, str(RUNNER.parent))
    from buildbot_conda_runner import reasons

    class CannotListenError(Exception):
        port = 0

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error = CannotListenError("Couldn't listen")
        error.port = taken.getsockname()[1]
        assert reasons.port_holders(error.port) == {os.geteuid()}
        # Its own may be a master that is just ending.
        assert reasons.error_text(error) == "Couldn't listen"
        own = os.geteuid()
        monkeypatch.setattr(reasons.os, "geteuid", lambda: own + 1)
        text = "Couldn't listen; the port is used by the account `%s`" % pwd.getpwuid(own).pw_name
        assert reasons.error_text(error) == text
    error.port = "/run/workers"
    assert reasons.error_text(error) == "Couldn't listen"


def test_unreachable_database_exits_69(python, make):
    extra = "\nc['db'] = {'db_url': 'sqlite:////nowhere/at/all/state.sqlite'}\n"
    fails(make.master(python, extra=extra).start(), 69, "unable to open database file")


def test_older_schema_exits_65_and_names_the_command(both_pythons, make):
    older, newer = both_pythons
    master = make.master(older)
    master.python = newer
    master.start()
    fails(master, 65, "the database is older than Buildbot", "revision")
    assert "upgrade-master %s" % master.directory in master.log()
    done = master.buildbot("upgrade-master", "-q", str(master.directory))
    assert done.returncode == 0, done
    master.start().ready()
    assert master.stop() == 0


def test_newer_schema_exits_65_and_names_who_wrote_it(both_pythons, make):
    older, newer = both_pythons
    master = make.master(newer)
    assert master.start().ready().stop() == 0
    version = (master.state / "last-version").read_text().strip()
    master.python = older
    fails(master.start(), 65, "the database is newer than Buildbot")
    assert "Buildbot %s" % version in master.log().split("hint: ")[-1]


def test_database_without_revision_is_older(python, make):
    master = make.master(python)
    database = master.directory / "state.sqlite"
    database.unlink()
    sqlite3.connect(database).close()
    fails(master.start(), 65, "older", "schema revision is unknown")


@pytest.mark.parametrize("damage", ["no database", "malformed"])
def test_damaged_database_exits_65_and_names_the_way_back(python, make, damage):
    master = make.master(python)
    assert master.start().ready().stop() == 0
    for name in ("state.sqlite-wal", "state.sqlite-shm"):
        if (master.directory / name).exists():
            (master.directory / name).unlink()
    with open(master.directory / "state.sqlite", "r+b") as database:
        # The header says that it is a database; the schema is in the first page after it.
        database.seek(0 if damage == "no database" else 100)
        database.write(b"\xa5" * 4096)
    fails(master.start(), 65, "the database is damaged: ")
    assert "buildbot-conda restore master" in master.log()


def test_second_start_exits_69_and_names_the_holder(python, make):
    master = make.master(python).start().ready()
    second = Instance(make, python, "master", master.directory, "master")
    make.made.append(second)
    assert second.start().wait() == 69
    assert "already in use by PID %d" % master.process.pid in second.status()
    assert (master.directory / "twistd.pid").read_text() == str(master.process.pid)
    assert master.stop() == 0


def test_lock_ends_with_its_process_even_if_a_child_lives_on(python, make):
    extra = """
import os, time
if os.fork() == 0:
    time.sleep(30)
    os._exit(0)
"""
    master = make.master(python, extra=extra).start().ready()
    master.process.kill()
    master.wait()
    master.configure().start().ready()
    assert master.stop() == 0


@pytest.mark.parametrize("kind", ["link", "directory", "fifo"])
def test_lock_that_is_no_file_exits_78(python, make, tmp_path, kind):
    master = make.master(python)
    lock = master.directory / ".buildbot-conda.lock"
    make_it = {
        "link": lambda: lock.symlink_to(tmp_path / "elsewhere"),
        "directory": lock.mkdir,
        "fifo": lambda: os.mkfifo(lock),
    }
    make_it[kind]()
    fails(master.start(), 78, "not a regular file")
    assert not (tmp_path / "elsewhere").exists()


def test_lock_that_another_account_can_hold_has_no_effect(python, make):
    import fcntl

    master = make.master(python)
    lock = master.directory / ".buildbot-conda.lock"
    lock.touch()
    for mode in (0o644, 0o606):
        lock.chmod(mode)
        with open(lock) as foreign:
            fcntl.flock(foreign, fcntl.LOCK_EX)
            master.start().ready()
            assert lock.stat().st_mode & 0o7777 == 0o600
            assert lock.read_text() == "%d\n" % master.process.pid
            assert master.stop() == 0


def test_upstream_commands_see_the_running_master(python, make):
    master = make.master(python).start().ready()
    done = master.buildbot("upgrade-master", str(master.directory))
    assert done.returncode != 0 and "is this master still running" in done.stdout
    # Somebody has to collect the ended process, as systemd does: `stop` waits for its id to go.
    collector = threading.Thread(target=master.wait)
    collector.start()
    done = master.buildbot("stop", str(master.directory))
    assert done.returncode == 0 and "is dead" in done.stdout
    collector.join()
    assert master.process.returncode == 0


def test_stale_pid_file_is_replaced(python, make):
    ended = subprocess.Popen(["true"])
    ended.wait()
    for content in (str(ended.pid), "1", "nonsense", ""):
        master = make.master(python) if content == str(ended.pid) else master
        (master.directory / "twistd.pid").write_text(content)
        master.start().ready()
        assert (master.directory / "twistd.pid").read_text() == str(master.process.pid)
        assert master.stop() == 0


def test_buildbot_started_by_somebody_else_is_respected(python, make):
    master = make.master(python)
    assert master.buildbot("start", "--start_timeout=120", str(master.directory)).returncode == 0
    pid = int((master.directory / "twistd.pid").read_text())
    try:
        assert master.start().wait() == 69
        assert "PID %d" % pid in master.status()
        assert int((master.directory / "twistd.pid").read_text()) == pid
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not (master.directory / "twistd.pid").exists(), "end of the other master")
    assert master.start().ready().stop() == 0
