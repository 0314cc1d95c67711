"""What each pair of Python and Buildbot must do: start twice, build, reload, drain, stop, and fail for the right
reason.

pytest does not collect this file automatically. `README.md` next to it describes how to run it with other interpreters.
With `RUNNER_TEST_ROWS=DIRECTORY`, each pair writes its row of `docs/matrix.md` there.
"""

import os
import pathlib
import signal
import subprocess

from instances import buildbot_version, wait_until

SECRET = """
from buildbot.plugins import secrets
import os
c['secretsProviders'] = [secrets.SecretInAFile(dirname=os.environ['CREDENTIALS_DIRECTORY'])]
c['builders'][0].factory = util.BuildFactory([
    steps.ShellCommand(name='sh', command=['sh', '-c', 'echo done'], env={'TOKEN': util.Secret('token')})])
"""


def test_pair(python, make, tmp_path):
    # As systemd hands credentials over: with a mask of an access control list where other files have a group's mode.
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "token").write_text("secret token")
    (credentials / "token").chmod(0o440)
    master = make.master(python, extra=SECRET)
    worker = make.worker(python, master, allow_shutdown="signal")
    for number in (1, 2):
        master.start(env={"CREDENTIALS_DIRECTORY": str(credentials)}, **master.launcher()).ready()
        worker.start(**worker.launcher()).attached()
        master.force()
        assert master.finished(number) == 0, master.describe()
        master.signal(signal.SIGHUP)
        wait_until(lambda: (master.status_file()["reconfiguration"] or {}).get("outcome") == "complete", master.describe)
        begun = worker.status_file()["begun"]
        (worker.run / "reload").write_text("%d" % worker.process.pid)
        worker.signal(signal.SIGHUP)
        wait_until(lambda: worker.status_file()["begun"] != begun, worker.describe)
        worker.attached()
        for instance in (master, worker):
            file = instance.state / "bytecode" / "imports"
            wait_until(file.exists, "`%s`" % file)
        worker.signal(signal.SIGHUP)
        assert worker.wait() == 0, worker.describe()
        master.signal(signal.SIGUSR1)
        assert master.stop() == 0, master.describe()
        # Nothing went wrong with what is remembered, nor with anything else.
        assert "retrying without the import cache" not in master.log() + worker.log()
        assert "ReactorNotRunning" not in master.log(), master.describe()

    text = (master.directory / "master.cfg").read_text()
    (master.directory / "master.cfg").write_text(text + "raise RuntimeError('no good')\n")
    assert master.start(**master.launcher()).wait() == 78
    away = text.replace("sqlite:///state.sqlite", "sqlite:////nonexistent/state.sqlite")
    (master.directory / "master.cfg").write_text(away.replace(SECRET, ""))
    assert master.start(**master.launcher()).wait() == 69, master.describe()
    assert os.path.exists(master.directory / "state.sqlite")
    record(python)


def record(python):
    directory = os.environ.get("RUNNER_TEST_ROWS")
    if directory:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        interpreter = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        buildbot = ".".join(map(str, buildbot_version(python)))
        row = pathlib.Path(directory) / ("pair-%s-%s" % (interpreter, buildbot))
        row.write_text("| %s | %s | passed |\n" % (interpreter, buildbot))
