"""A master that starts, serves, is reloaded, watched and stopped."""

import json
import os
import signal
import socket
import stat
import time

from instances import wait_until


def test_master_reports_from_its_start_to_its_stop(python, make):
    master = make.master(python).start().ready()
    assert master.rest("masters")["masters"][0]["active"]
    status = master.status_file()
    assert (status["version"], status["role"], status["state"]) == (1, "master", "running")
    assert status["pid"] == master.process.pid and status["reconfiguration"] is None
    assert status["worker"] is None and "exit_status" not in status
    assert status["message"] == master.status()
    assert status["message"].startswith("running: Buildbot %s" % status["buildbot"])
    assert stat.S_IMODE(os.stat(master.run / "status.json").st_mode) == 0o644
    assert (master.directory / "twistd.pid").read_text() == str(master.process.pid)
    assert (master.state / "last-version").read_text().strip() == status["buildbot"]
    # Like a stop by systemd: a clean shutdown, and TERM while it is in progress.
    worker = make.worker(python, master).start()
    worker.attached()
    master.signal(signal.SIGUSR1)
    assert master.stop() == 0
    assert "Traceback" not in master.log(), master.log()
    assert worker.stop() == 0
    assert any("STOPPING=1" in lines for lines in master.messages())
    assert not (master.directory / "twistd.pid").exists()
    status = master.status_file()
    assert (status["state"], status["exit_status"]) == ("stopped", 0)


def test_directory_with_spaces_and_letters_beyond_ascii_is_served(python, make, tmp_path):
    master = make(python, "master", directory=tmp_path / "mästér of %n $x").configure().start().ready()
    assert master.stop() == 0


def test_failing_notifications_and_files_do_not_disturb_a_healthy_master(python, make):
    master = make.master(python)
    (master.directory / "twistd.pid").mkdir()
    master.start(env={"NOTIFY_SOCKET": "/nowhere/" + "x" * 200, "RUNTIME_DIRECTORY": "/nowhere"})
    master.wait_log("BuildMaster is running")
    assert "cannot write" in master.log()
    assert master.stop() == 0


def test_own_directories_are_found_among_others(python, make, tmp_path):
    master = make.master(python)
    own = {"RUNTIME_DIRECTORY": "buildbot-conda/master", "STATE_DIRECTORY": "buildbot-conda/instances/master"}
    variables = {}
    for name, path in own.items():
        for kind in ("another", "own"):
            (tmp_path / name / kind / path).mkdir(parents=True)
        variables[name] = "%s:%s" % (tmp_path / name / "another", tmp_path / name / "own" / path)
    assert master.start(env=variables).ready().stop() == 0
    assert (tmp_path / "RUNTIME_DIRECTORY/own/buildbot-conda/master/status.json").exists()
    state = tmp_path / "STATE_DIRECTORY/own/buildbot-conda/instances/master"
    assert (state / "last-version").exists() and not (state / "status.json").exists()
    assert (state / "bytecode").exists()
    for name in own:
        assert [path.name for path in (tmp_path / name / "another").iterdir()] == ["buildbot-conda"]


def test_status_that_could_not_be_written_is_elsewhere_until_it_can(python, make, tmp_path):
    run = tmp_path / "run/buildbot-conda/master"
    master = make.master(python).start(env={"RUNTIME_DIRECTORY": str(run)}).ready()
    spare = master.state / "status.json"
    found = json.loads(spare.read_text())
    assert (found["state"], found["pid"]) == ("running", master.process.pid)
    master.signal(signal.SIGHUP)
    master.wait_status("configuration update complete")
    assert json.loads(spare.read_text())["reconfiguration"]["outcome"] == "complete"
    run.mkdir(parents=True)
    # Nothing changes meanwhile: it is retried anyway.
    wait_until(lambda: (run / "status.json").exists() and not spare.exists(), master.describe)
    found = json.loads((run / "status.json").read_text())
    assert found["reconfiguration"]["outcome"] == "complete"
    assert master.stop() == 0


def test_what_has_run_is_noted_and_what_has_failed_is_not(python, make):
    master = make.master(python, extra="\nraise ValueError\n")
    assert master.start().wait() == 78
    assert not (master.state / "served").exists()
    master.configure().start().ready()
    wait_until((master.state / "served").exists, master.describe)
    assert master.stop() == 0


def test_abstract_notify_socket_is_served(python, make):
    master = make.master(python)
    name = "runner-test-%d" % os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        listener.settimeout(60)
        master.start(env={"NOTIFY_SOCKET": "@" + name})
        while b"READY=1" not in listener.recv(65536).split(b"\n"):
            pass
    assert master.stop() == 0


def test_reload_says_what_came_of_it(python, make):
    master = make.master(python).start().ready()
    cfg = master.directory / "master.cfg"
    good = cfg.read_text()

    def reload(count):
        master.signal(signal.SIGHUP)
        master.wait_for("READY=1", count)
        return master.status_file()

    status = reload(2)
    reloading = next(lines for lines in master.messages() if "RELOADING=1" in lines)
    assert any(line.startswith("MONOTONIC_USEC=") for line in reloading)
    assert status["state"] == "running"
    assert status["reconfiguration"]["number"] == 1
    assert status["reconfiguration"]["outcome"] == "complete"

    cfg.write_text(good + "\nc['colour'] = 'red'\nc['shape'] = 'round'\n")
    status = reload(3)
    assert status["reconfiguration"]["outcome"] == "aborted"
    assert "Unknown BuildmasterConfig key" in status["message"] and "colour" in status["message"]
    assert status["message"] == master.status()

    cfg.write_text(good + "\nnonsense\n")
    status = reload(4)
    assert status["reconfiguration"]["outcome"] == "aborted"
    line = good.count("\n") + 2
    assert "name 'nonsense' is not defined" in status["message"]
    assert "(master.cfg, line %d, in <module>)" % line in status["message"]

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        master.configure(www=port)
        status = reload(5)
    assert status["reconfiguration"]["number"] == 4
    assert status["reconfiguration"]["outcome"] == "partial"
    assert "Couldn't listen on 127.0.0.1:%d" % port in status["message"]

    cfg.write_text(good)
    status = reload(6)
    assert status["reconfiguration"]["outcome"] == "complete"
    assert master.rest("masters")["masters"][0]["active"]
    assert master.stop() == 0


def test_reload_that_blocks_the_reactor_keeps_the_watchdog_content(python, make):
    master = make.master(python)
    slow = """
import os, time
from buildbot.util.service import BuildbotService
class Slow(BuildbotService):
    name = 'slow'
    def reconfigService(self):
        if os.path.exists('slow'):
            time.sleep(12)
c['services'] = [Slow()]
"""
    master.configure(extra=slow).start(env={"WATCHDOG_USEC": "4000000"}).ready()
    (master.directory / "slow").touch()
    begun = time.monotonic()
    master.signal(signal.SIGHUP)
    master.wait_for("READY=1", 2)
    assert time.monotonic() - begun > 11.5
    times = [when for when, data in master.notify.messages if b"WATCHDOG=1" in data and when > begun]
    assert max(after - before for before, after in zip(times, times[1:])) < 4


def test_watchdog_is_fed_while_the_reactor_turns_and_only_then(python, make):
    hang = """
import os, time
from twisted.internet import reactor
def check():
    if os.path.exists('hang'):
        time.sleep(30)
    reactor.callLater(0.1, check)
reactor.callFromThread(check)
"""
    master = make.master(python, extra=hang).start(env={"WATCHDOG_USEC": "2000000"}).ready()

    def pings(begun):
        return [when for when, data in master.notify.messages if data == b"WATCHDOG=1" and when > begun]

    begun = time.monotonic()
    wait_until(lambda: len(pings(begun)) > 3, "pings")
    times = pings(begun)
    assert max(after - before for before, after in zip(times, times[1:])) < 2
    (master.directory / "hang").touch()
    time.sleep(1)
    begun = time.monotonic()
    time.sleep(2)
    assert not pings(begun)


def test_no_watchdog_without_systemd_asking_for_it(python, make):
    master = make.master(python).start(env={"WATCHDOG_USEC": "400000", "WATCHDOG_PID": "1"}).ready()
    time.sleep(1)
    assert not any("WATCHDOG=1" in lines for lines in master.messages())


WAIT = """
import os, time
open('begun', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.05)
"""


def wait_for_file(master, name):
    wait_until((master.directory / name).exists, master.describe)


def test_hup_during_the_start_is_kept_until_the_master_runs(python, make):
    master = make.master(python, extra=WAIT).start()
    wait_for_file(master, "begun")
    master.signal(signal.SIGHUP)
    time.sleep(0.3)
    (master.directory / "go").touch()
    master.ready().wait_for("READY=1", 2)
    assert master.status_file()["reconfiguration"]["outcome"] == "complete"
    assert master.stop() == 0


def test_usr1_during_the_start_stops_the_master_once_it_runs(python, make):
    master = make.master(python, extra=WAIT).start()
    wait_for_file(master, "begun")
    master.signal(signal.SIGUSR1)
    time.sleep(0.3)
    (master.directory / "go").touch()
    assert master.wait() == 0
    assert any("READY=1" in lines for lines in master.messages())


def test_term_and_int_during_the_start_end_it_quickly(python, make):
    master = make.master(python, extra=WAIT)
    for number in (signal.SIGTERM, signal.SIGINT):
        master.start()
        wait_for_file(master, "begun")
        begun = time.monotonic()
        master.signal(number)
        assert master.wait() == 0
        assert time.monotonic() - begun < 2
        assert not (master.directory / "twistd.pid").exists()
        (master.directory / "begun").unlink()


def test_int_stops_a_running_master_cleanly(python, make):
    master = make.master(python).start().ready()
    master.signal(signal.SIGINT)
    assert master.wait() == 0


def test_secrets_of_the_master_are_found_through_its_credentials(python, make, tmp_path):
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "w1").write_text("secret")
    (credentials / "w1").chmod(0o440)
    extra = """
import os
from buildbot.plugins import secrets
c['secretsProviders'] = [secrets.SecretInAFile(os.environ['CREDENTIALS_DIRECTORY'])]
c['workers'] = [worker.Worker('w1', util.Secret('w1'))]
assert not {'NOTIFY_SOCKET', 'STATE_DIRECTORY', 'RUNTIME_DIRECTORY'} & set(os.environ)
"""
    master = make.master(python, extra=extra)
    master.start(env={"CREDENTIALS_DIRECTORY": str(credentials)}).ready()
    worker = make.worker(python, master).start()
    worker.attached()
    assert master.stop() == 0


def test_plugin_that_stops_the_reactor_is_a_failure_that_says_so(python, make):
    extra = """
import os
from twisted.internet import reactor
def check():
    if os.path.exists('end'):
        reactor.stop()
    reactor.callLater(0.1, check)
reactor.callFromThread(check)
"""
    master = make.master(python, extra=extra).start().ready()
    (master.directory / "end").touch()
    assert master.wait() == 1
    assert master.status_file()["state"] == "failed"
    assert "stopped unexpectedly" in master.status()


def test_usr1_just_before_the_end_of_the_start_is_a_clean_stop(python, make):
    extra = """
import os, signal
from buildbot.util.service import BuildbotService
class Stop(BuildbotService):
    name = 'stop'
    def reconfigService(self):
        os.kill(os.getpid(), signal.SIGUSR1)
c['services'] = [Stop()]
"""
    master = make.master(python, extra=extra).start()
    assert master.wait() == 0
    assert master.status_file()["state"] == "stopped"


def test_stop_that_never_ends_is_ended(python, make):
    extra = """
from twisted.internet import defer
from buildbot.util.service import BuildbotService
class Stuck(BuildbotService):
    name = 'stuck'
    def stopService(self):
        return defer.Deferred()
c['services'] = [Stuck()]
"""
    master = make.master(python, extra=extra).start(STOP_PATIENCE=2).ready()
    begun = time.monotonic()
    assert master.stop() == 0
    assert 2 <= time.monotonic() - begun < 8
    assert "the stop took more than 2 s" in master.log()
    assert master.status_file()["state"] == "stopped"


def test_reload_that_never_ends_is_reported_while_the_master_serves(python, make):
    extra = "\nimport os, time\nwhile os.path.exists('spin'): time.sleep(0.01)\n"
    master = make.master(python, extra=extra).start("--start-timeout", "20").ready()
    (master.directory / "spin").touch()
    master.signal(signal.SIGHUP)
    master.wait_for("RELOADING=1")
    master.wait_status(r"^the reconfiguration does not finish: still in master\.cfg, line \d+", 40)
    assert master.status_file()["reconfiguration"]["outcome"] == "running"
    assert master.rest("masters")["masters"][0]["active"]
    (master.directory / "spin").unlink()
    master.wait_for("READY=1", 2)
    assert master.status_file()["reconfiguration"]["outcome"] == "complete"
