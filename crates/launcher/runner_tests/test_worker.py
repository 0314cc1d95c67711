"""A worker, its way to the master, and its builds."""

import os
import signal
import socket
import time

from instances import free_port, umask, wait_until

LEAKS = (
    "NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID "
    "RUNTIME_DIRECTORY STATE_DIRECTORY CREDENTIALS_DIRECTORY MEMORY_PRESSURE_WATCH LISTEN_FDS"
).split()


def test_build_inherits_nothing_of_systemd_and_no_credentials(python, make, tmp_path):
    (tmp_path / "password").write_text("secret\n")
    master = make.master(python, command="env; ls -l /proc/self/fd; echo all done").start().ready()
    worker = make.worker(python, master)
    tac = worker.directory / "buildbot.tac"
    reading = "open(os.environ['CREDENTIALS_DIRECTORY'] + '/password').read().strip()"
    tac.write_text(tac.read_text().replace("passwd = 'secret'", "passwd = " + reading))
    variables = {name: "leaked-" + name for name in LEAKS if name not in ("NOTIFY_SOCKET", "RUNTIME_DIRECTORY")}
    variables.update(CREDENTIALS_DIRECTORY=str(tmp_path), WATCHDOG_USEC="9000000", OWN="kept")
    worker.start(journal=True, env=variables).ready()
    worker.wait_status(r"^connected to 127\.0\.0\.1:%d as w1$" % master.pb)
    status = worker.status_file()
    assert status["worker"]["connection"] == "connected" and status["worker"]["allow_shutdown"] is None
    assert status["worker"]["message"] == worker.status()
    master.force()
    assert master.finished(1) == 0
    text = master.stdio(1)
    assert "all done" in text and "OWN=kept" in text
    for name in LEAKS:
        assert name not in text, name
    assert "leaked" not in text and str(tmp_path / "password") not in text
    assert ".buildbot-conda.lock" not in text and worker.run.name not in text
    assert worker.stop() == 0
    assert master.stop() == 0


def test_term_on_a_master_retries_its_builds_after_the_start(python, make):
    command = "test -e go && exit 0; touch running; sleep 60"
    master = make.master(python, command=command).start().ready()
    worker = make.worker(python, master).start()
    worker.attached()
    master.force()
    build = worker.directory / "b1" / "build"
    wait_until((build / "running").exists, master.describe)
    begun = time.monotonic()
    assert master.stop() == 0
    assert time.monotonic() - begun < 15
    worker.wait_status("^(lost the connection to|cannot reach) ", patience=5)
    assert worker.status_file()["worker"]["connection"] == "lost"
    (build / "go").touch()
    master.start().ready()
    assert master.finished(1) == 5
    worker.attached(patience=20)
    assert master.finished(2) == 0
    assert worker.stop() == 0


def test_usr1_lets_a_master_finish_its_builds(python, make):
    master = make.master(python, command="touch running; while ! test -e go; do sleep 0.1; done").start().ready()
    worker = make.worker(python, master).start()
    worker.attached()
    master.force()
    build = worker.directory / "b1" / "build"
    wait_until((build / "running").exists, master.describe)
    master.signal(signal.SIGUSR1)
    master.wait_status("^finishing 1 running build, then stopping")
    assert master.status_file()["state"] == "stopping"
    assert not any("STOPPING=1" in lines for lines in master.messages())
    assert any("EXTEND_TIMEOUT_USEC=30000000" in lines for lines in master.messages())
    (build / "go").touch()
    assert master.wait() == 0
    assert any("STOPPING=1" in lines for lines in master.messages())


def test_hup_drains_a_worker_that_allows_it(python, make):
    master = make.master(python, command="touch running; while ! test -e go; do sleep 0.1; done").start().ready()
    worker = make.worker(python, master, allow_shutdown="signal").start()
    worker.attached()
    assert worker.status_file()["worker"]["allow_shutdown"] == "signal"
    master.force()
    build = worker.directory / "b1" / "build"
    wait_until((build / "running").exists, master.describe)
    worker.signal(signal.SIGHUP)
    worker.wait_status("^draining: 1 build is running a step$")
    assert worker.status_file()["state"] == "stopping"
    assert any("EXTEND_TIMEOUT_USEC=30000000" in lines for lines in worker.messages())
    (build / "go").touch()
    assert worker.wait() == 0
    assert master.finished(1) == 0
    assert worker.status_file()["exit_status"] == 0


SLOTS = """
c['workers'] = [worker.Worker(name, 'secret', max_builds=1) for name in ('w1', 'w1-2', 'w1-3')]
c['builders'][0].workernames = ['w1', 'w1-2', 'w1-3']
"""

MORE_SLOTS = """
for slot in (2, 3):
    directory = os.path.join(basedir, 'slots', str(slot))
    os.makedirs(directory, exist_ok=True)
    s = Worker(buildmaster_host, port, 'w1-%d' % slot, passwd, directory, 60, allow_shutdown='signal')
    s.setServiceParent(application)
"""


def slots(python, make, command):
    """A master with three workers in one process."""
    master = make.master(python, command=command, extra=SLOTS).start().ready()
    worker = make.worker(python, master, allow_shutdown="signal")
    tac = worker.directory / "buildbot.tac"
    tac.write_text(tac.read_text() + MORE_SLOTS)
    worker.start(**worker.launcher()).ready()
    worker.wait_status("^3 of 3 workers connected; connected to ")
    return master, worker


def test_workers_of_one_process_leave_together_when_the_last_build_is_done(python, make):
    master, worker = slots(python, make, "touch running; while ! test -e go; do sleep 0.1; done")

    def running():
        return [path.parent for path in worker.directory.glob("**/b1/build/running")]

    # One after the other: Buildbot makes one request of two that wait.
    for count in (1, 2):
        master.force()
        wait_until(lambda: len(running()) == count, master.describe)
    worker.signal(signal.SIGHUP)
    worker.wait_status("^draining: 2 builds are running a step$")
    first, last = running()
    (first / "go").touch()
    worker.wait_status("^draining: 1 build is running a step$")
    (last / "go").touch()
    assert worker.wait() == 0
    assert master.finished(1) == 0 and master.finished(2) == 0
    assert master.stop() == 0


def test_workers_of_one_process_are_counted_and_reload_together(python, make):
    master, worker = slots(python, make, "true")
    master.configure(command="true", extra=SLOTS.replace("'w1-3'", "'other'"))
    master.signal(signal.SIGHUP)
    worker.wait_status("^2 of 3 workers connected; ", patience=60)
    assert worker.status_file()["worker"]["connection"] != "connected"
    master.configure(command="true", extra=SLOTS)
    master.signal(signal.SIGHUP)
    worker.wait_status("^3 of 3 workers connected; ", patience=60)
    before = worker.status_file()
    (worker.run / "reload").write_text("%d" % worker.process.pid)
    worker.signal(signal.SIGHUP)
    wait_until(lambda: worker.status_file()["begun"] != before["begun"], worker.describe)
    worker.wait_status("^3 of 3 workers connected; ")
    assert worker.status_file()["pid"] == before["pid"]
    assert worker.stop() == 0 and master.stop() == 0


def test_hup_and_usr1_do_not_kill_a_worker_that_cannot_drain(python, make):
    worker = make.worker(python, free_port()).start().ready()
    worker.signal(signal.SIGHUP)
    worker.wait_log("ignored SIGHUP")
    assert "hint: set allow_shutdown = 'signal' in %s" % (worker.directory / "buildbot.tac") in worker.log()
    worker.signal(signal.SIGUSR1)
    worker.wait_log("ignored SIGUSR1")
    assert worker.stop() == 0


def test_hup_during_the_start_drains_a_worker_that_allows_it(python, make):
    worker = make.worker(python, free_port(), allow_shutdown="signal")
    tac = worker.directory / "buildbot.tac"
    tac.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGHUP)\n" + tac.read_text())
    assert worker.start().wait() == 0
    assert any("READY=1" in lines for lines in worker.messages())


def test_reload_lets_the_build_finish_and_starts_again_in_the_same_process(python, make):
    master = make.master(python, command="touch running; sleep 3").start().ready()
    worker = make.worker(python, master, allow_shutdown="signal")
    tac = worker.directory / "buildbot.tac"
    tac.write_text("import os\nos.environ['FRESH'] = 'no'\nos.umask(0o077)\n" + tac.read_text())
    worker.start(env={"FRESH": "yes"}, **worker.launcher()).attached()
    before = worker.status_file()
    for number in (1, 2):
        master.force()
        wait_until((worker.directory / "b1" / "build" / "running").exists, master.describe)
        (worker.run / "reload").write_text("%d" % worker.process.pid)
        worker.signal(signal.SIGHUP)
        assert master.finished(number) == 0
        wait_until(lambda: worker.status_file()["begun"] != before["begun"], worker.describe)
        worker.attached()
        after = worker.status_file()
        assert (after["pid"], after["state"]) == (before["pid"], "running")
        assert not (worker.run / "reload").exists()
        (worker.directory / "b1" / "build" / "running").unlink()
        # The next one is a stop, because nothing waits for more.
        if number == 1:
            before = after
            worker.signal(signal.SIGHUP)
            assert worker.wait() == 0
            worker.start(env={"FRESH": "yes"}, **worker.launcher()).attached()
            before = worker.status_file()
    assert worker.log().count("launched with worker, FRESH=yes, umask %04o" % umask()) == 2
    # systemd would stop the unit after the reload.
    assert not any("STOPPING=1" in lines for lines in worker.messages())
    assert worker.stop() == 0


def test_stop_during_a_reload_is_a_stop(python, make):
    master = make.master(python, command="touch running; sleep 60").start().ready()
    worker = make.worker(python, master, allow_shutdown="signal")
    worker.start(**worker.launcher()).attached()
    master.force()
    wait_until((worker.directory / "b1" / "build" / "running").exists, master.describe)
    (worker.run / "reload").write_text("%d" % worker.process.pid)
    worker.signal(signal.SIGHUP)
    worker.wait_status("^draining: ")
    assert worker.stop() == 0
    assert "launched with" not in worker.log() and not (worker.run / "reload").exists()


def test_reload_without_a_launcher_is_a_failure(python, make):
    worker = make.worker(python, free_port(), allow_shutdown="signal").start(LAUNCHER="/nonexistent").ready()
    (worker.run / "reload").write_text("%d" % worker.process.pid)
    worker.signal(signal.SIGHUP)
    assert worker.wait() == 1
    assert worker.status() == "cannot run `/nonexistent`: No such file or directory"


def test_refused_worker_says_so_and_recovers(python, make):
    master = make.master(python).start().ready()
    worker = make.worker(python, master, password="wrong").start().ready()
    worker.wait_status("^rejected by .*unauthorized login; check worker name and password$", patience=15)
    refused = worker.status_file()["worker"]
    assert (refused["connection"], refused["pending"]) == ("refused", False)
    text = (master.directory / "master.cfg").read_text()
    (master.directory / "master.cfg").write_text(text.replace("'secret'", "'wrong'"))
    master.signal(signal.SIGHUP)
    worker.attached(patience=30)
    assert "wrong" not in (worker.run / "status.json").read_text()


def test_worker_without_master_is_ready_and_says_why_it_waits(python, make):
    port = free_port()
    worker = make.worker(python, port).start().ready()
    worker.wait_status(r"^cannot reach 127\.0\.0\.1:%d, retrying: .*[Cc]onnection.*refused" % port, 15)
    status = worker.status_file()
    assert (status["state"], status["worker"]["connection"]) == ("running", "connecting")
    assert (status["worker"]["pending"], status["worker"]["reached"]) == (False, False)
    assert worker.stop() == 0


def test_attempt_is_pending_until_it_fails_or_is_long_without_an_answer(python, make):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        worker = make.worker(python, silent.getsockname()[1]).start().ready()
        worker.wait_status("^logging in to ", 15)
        assert worker.status_file()["worker"]["pending"] is True
        worker.wait_status("no answer to the login from [^ ]+ for [0-9]+ s", 15)
        waiting = worker.status_file()["worker"]
        assert (waiting["pending"], waiting["reached"]) == (False, True)
        assert worker.stop() == 0


def test_unknown_host_is_named(python, make):
    worker = make.worker(python, 9989, host="absent.invalid").start().ready()
    worker.wait_status(r"^cannot reach absent\.invalid:9989, retrying: .*absent\.invalid", 15)


def test_port_that_is_no_worker_port_is_noticed(python, make):
    master = make.master(python).start().ready()
    worker = make.worker(python, master.www).start().ready()
    worker.wait_status("(no answer to the login|closed the connection during the login|lost the connection)", 15)


TAC_BY_SOCKET = """
import os
from buildbot_worker.bot import Worker
from twisted.application import service
application = service.Application('buildbot-worker')
basedir = os.path.abspath(os.path.dirname(__file__))
worker = Worker(None, None, 'w1', 'secret', basedir, 60, connection_string='unix:path=%s')
worker.setServiceParent(application)
"""


def test_worker_comes_by_a_socket_and_again_after_the_master_was_killed(python, make, tmp_path):
    path = tmp_path / "workers"
    master = make.master(python, extra="\nc['protocols'] = {'pb': {'port': 'unix:%s:mode=666'}}\n" % path)
    worker = make.worker(python, master)
    (worker.directory / "buildbot.tac").write_text(TAC_BY_SOCKET % path)
    worker.start().ready()
    worker.wait_status("^cannot reach %s, retrying: " % path, patience=15)
    master.start().ready()
    worker.wait_status("^connected to %s as w1$" % path, patience=30)
    # Killed, it leaves its socket behind.
    master.signal(signal.SIGKILL)
    master.wait()
    assert path.is_socket()
    worker.wait_status("^cannot reach ", patience=15)
    master.start().ready()
    worker.wait_status("^connected to %s as w1$" % path, patience=30)
    assert master.stop() == 0 and worker.stop() == 0


def test_exhausted_retries_exit_69(python, make):
    worker = make.worker(python, free_port(), maxretries=2).start().ready()
    assert worker.wait() == 69
    assert worker.status().startswith("gave up: cannot reach ")
    assert worker.status_file()["state"] == "failed"


def test_term_ends_a_worker_quickly_with_0(python, make):
    worker = make.worker(python, free_port()).start().ready()
    begun = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - begun < 2
    assert any("STOPPING=1" in lines for lines in worker.messages())
    assert not (worker.directory / "twistd.pid").exists()


def test_worker_has_the_lock_and_pid_file(python, make):
    worker = make.worker(python, free_port()).start().ready()
    assert (worker.directory / "twistd.pid").read_text() == str(worker.process.pid)
    second = make.made[0].__class__(make, python, "worker", worker.directory, "worker")
    make.made.append(second)
    assert second.start().wait() == 69
    assert "PID %d" % worker.process.pid in second.status()
    assert os.path.exists(worker.directory / ".buildbot-conda.lock")


def test_drain_of_a_worker_that_lost_its_master_ends_at_once(python, make):
    master = make.master(python).start().ready()
    worker = make.worker(python, master, allow_shutdown="signal").start()
    worker.attached()
    assert master.stop() == 0
    worker.wait_status("^(lost the connection to|cannot reach) ")
    worker.signal(signal.SIGHUP)
    assert worker.wait(patience=20) == 0
    assert worker.status_file()["state"] == "stopped"


def test_drain_that_begins_between_two_connections_is_asked_for_over_the_next(python, make):
    master = make.master(python).start().ready()
    worker = make.worker(python, master, allow_shutdown="signal")
    # Just before the second login is done, where upstream still has the connection before.
    with open(worker.directory / "buildbot.tac", "a") as tac:
        tac.write(
            "import os, signal\nlogins, login = [], s.bf.gotPerspective\n"
            "def again(perspective):\n    logins.append(1)\n"
            "    if len(logins) == 2:\n        os.kill(os.getpid(), signal.SIGHUP)\n"
            "    return login(perspective)\n"
            "s.bf.gotPerspective = again\n"
        )
    worker.start().attached()
    assert master.stop() == 0
    worker.wait_status("^(lost the connection to|cannot reach) ")
    master.start().ready()
    assert worker.wait(patience=30) == 0
    assert worker.status_file()["state"] == "stopped"
    assert "worker shutting down on command" in worker.log()


def test_drain_ends_when_the_master_goes_away_meanwhile(python, make):
    master = make.master(python, command="touch running; sleep 60").start().ready()
    worker = make.worker(python, master, allow_shutdown="signal").start()
    worker.attached()
    master.force()
    wait_until((worker.directory / "b1" / "build" / "running").exists, master.describe)
    worker.signal(signal.SIGHUP)
    worker.wait_status("^draining: ")
    master.signal(signal.SIGKILL)
    assert worker.wait(patience=30) == 0
