"""A real WAMP router, crossbar from PyPI, in a separate environment that is created once."""

import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
VENV = HERE.parents[2] / "target" / "runner-venvs" / "crossbar"

ANYTHING = {"call": True, "register": True, "publish": True, "subscribe": True}
ANYBODY = {"name": "anonymous", "permissions": [{"uri": "", "match": "prefix", "allow": ANYTHING}]}


def program():
    """The path of crossbar: in the environment RUNNER_TEST_ROUTER, else in one that is made if need be."""
    if named := os.environ.get("RUNNER_TEST_ROUTER"):
        return pathlib.Path(named) / "bin" / "crossbar"
    requirements = HERE / "requirements-crossbar.txt"
    installed = VENV / "installed.txt"
    VENV.parent.mkdir(parents=True, exist_ok=True)
    with open(str(VENV) + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not installed.exists() or installed.read_text() != requirements.read_text():
            subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
            pip = [VENV / "bin" / "python", "-m", "pip", "install", "--quiet", "--requirement", requirements]
            subprocess.run(pip, check=True)
            installed.write_text(requirements.read_text())
    return VENV / "bin" / "crossbar"


class Router:
    """One realm, `buildbot`, at a port of this host, for anybody."""

    def __init__(self, directory, port):
        self.directory, self.url = pathlib.Path(directory), "ws://127.0.0.1:%d/ws" % port
        endpoint = {"type": "tcp", "port": port, "interface": "127.0.0.1"}
        transport = {"type": "websocket", "endpoint": endpoint}
        router = {"type": "router", "realms": [{"name": "buildbot", "roles": [ANYBODY]}], "transports": [transport]}
        self.directory.mkdir()
        (self.directory / "config.json").write_text(json.dumps({"version": 2, "workers": [router]}))
        self.process = None

    def start(self):
        command = [program(), "start", "--cbdir", self.directory, "--color", "false"]
        with open(self.directory / "output", "ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True
            )

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
