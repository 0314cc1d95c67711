"""Real masters and workers for the tests: made by Buildbot's own commands, started by the runner,
watched through a notify socket and a fake journal. What is expected of them is the tests' part."""

import array
import contextlib
import fcntl
import functools
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
RUNNER = HERE.parent / "runner.py"
# Seconds that anything may take on a busy machine; operations that must be fast have their own limits.
PATIENCE = 180

MASTER_CFG = """
from buildbot.plugins import schedulers, steps, util, worker
c = BuildmasterConfig = {{
    'buildbotNetUsageData': None,
    'title': 'test', 'titleURL': 'http://localhost/', 'buildbotURL': 'http://localhost:{www}/',
    'db': {{'db_url': 'sqlite:///state.sqlite'}},
    'protocols': {{'pb': {{'port': 'tcp:{pb}:interface=127.0.0.1'}}}},
    'www': {{'port': 'tcp:{www}:interface=127.0.0.1', 'plugins': {{}}}},
    'workers': [worker.Worker('w1', 'secret')],
    'builders': [util.BuilderConfig('b1', workernames=['w1'], factory=util.BuildFactory([
        steps.ShellCommand(name='sh', command=['sh', '-c', {command!r}])]))],
    'schedulers': [schedulers.ForceScheduler('force', builderNames=['b1'])],
}}
"""


@functools.lru_cache(maxsize=None)
def buildbot_version(python):
    """Version of an interpreter's Buildbot, as a tuple of ints."""
    code = "from importlib.metadata import version; print(version('buildbot'))"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return tuple(int(part) for part in output.strip().split("."))


# Below the ports that the kernel assigns, and different for each process of the tests, so nobody can take one between
# its choice and its use.
PORTS = itertools.cycle(range(10000 + os.getpid() % 100 * 200, 10200 + os.getpid() % 100 * 200))


def umask():
    """The variables of this process, which its children have as well."""
    found = os.umask(0o022)
    os.umask(found)
    return found


def free_port():
    while True:
        port = next(PORTS)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def wait_until(condition, what, patience=PATIENCE):
    """Poll until condition() is true, and return its value; fail with `what`, called if callable."""
    end = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError("never seen: %s" % (what() if callable(what) else what))
        time.sleep(0.02)


class Listener:
    """A datagram socket whose messages are kept, each as (time.monotonic(), bytes)."""

    def __init__(self, path):
        self.path = str(path)
        self.messages = []
        self.from_files = 0
        self.caught_up = threading.Event()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(self.path)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while True:
            try:
                data, control, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(64))
            except OSError:
                return
            if data == b"caught up":
                self.caught_up.set()
                continue
            for _, _, rights in control:
                for fd in array.array("i", rights[: len(rights) // 4 * 4]):
                    os.lseek(fd, 0, os.SEEK_SET)
                    with os.fdopen(fd, "rb") as file:
                        data = file.read()
                    self.from_files += 1
            self.messages.append((time.monotonic(), data))

    def catch_up(self):
        """Wait until everything that was sent so far is in `messages`."""
        if os.path.exists(self.path):
            self.caught_up.clear()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"caught up", self.path)
            assert self.caught_up.wait(PATIENCE)

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def journal_fields(entry):
    """One entry of the journal's native protocol as a dict."""
    fields = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + size], rest[9 + size :]
        fields[name.decode()] = value.decode()
        entry = rest
    return fields


class Instance:
    """One directory, and the process that runs it."""

    def __init__(self, maker, python, role, directory, name):
        self.python, self.role, self.directory = python, role, pathlib.Path(directory)
        # Socket paths are short by nature, test directories are not.
        self.run = pathlib.Path(tempfile.mkdtemp(prefix="runner-"))
        self.state = self.run / "instances/master"
        self.state.mkdir(parents=True)
        self.notify = Listener(self.run / "notify")
        self.journal = None
        self.process = None
        self.output = self.run / "output"
        self.name = name
        self.greetings = 0
        self.inside = []  # a command in front of the runner's

    # Starting and ending

    def start(self, *options, journal=False, env=None, **constants):
        """Start the runner; `journal` gives it a journal, else its log is the file `output`.
        `constants` replace constants of the runner."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "NOTIFY_SOCKET": self.notify.path,
            "RUNTIME_DIRECTORY": str(self.run),
            "STATE_DIRECTORY": str(self.state),
        }
        command = [self.python, str(RUNNER)]
        output = open(self.output, "ab")
        if journal:
            if self.journal is None:
                self.journal = Listener(self.run / "journal")
            found = os.fstat(output.fileno())
            environment["JOURNAL_STREAM"] = "%d:%d" % (found.st_dev, found.st_ino)
            constants["JOURNAL_SOCKET"] = self.journal.path
        if constants:
            command = [self.python, str(HERE / "changed.py"), json.dumps(constants)]
        environment.update(env or {})
        self.started_at = len(self.notify.messages)
        command[:0] = self.inside
        command += [self.role, str(self.directory), "--reference", self.name, *options]
        with output:
            self.process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        return self

    def launcher(self):
        """Constants with a launcher that starts the runner again, and shows what it was given."""
        launcher = self.run / "launcher"
        launcher.write_text(
            '#!/bin/sh\necho "launched with $*, FRESH=$FRESH, umask $(umask)"\n'
            "exec '%s' '%s' %s '%s' --reference %s\n"
            % (self.python, RUNNER, self.role, self.directory, self.name)
        )
        launcher.chmod(0o755)
        return {"LAUNCHER": str(launcher)}

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, patience=PATIENCE):
        """Exit status."""
        try:
            status = self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise AssertionError("still running: %s" % self.describe())
        for listener in (self.notify, self.journal):
            if listener is not None:
                listener.catch_up()
        return status

    def stop(self):
        self.signal(signal.SIGTERM)
        return self.wait()

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.notify.close()
        if self.journal is not None:
            self.journal.close()
        if os.environ.get("RUNNER_TEST_KEEP"):
            return
        shutil.rmtree(self.run, ignore_errors=True)

    # Output

    def messages(self):
        """Notifications since the last start, as lists of lines."""
        return [data.decode().split("\n") for _, data in self.notify.messages[self.started_at :]]

    def statuses(self):
        return [line[7:] for lines in self.messages() for line in lines if line.startswith("STATUS=")]

    def status(self):
        return (self.statuses() or [""])[-1]

    def describe(self):
        """Everything it said, for a failed assertion."""
        return "%s\n%s" % (self.messages(), self.log()[-4000:])

    def log(self):
        return self.output.read_text(errors="replace")

    def entries(self):
        return [journal_fields(data) for _, data in self.journal.messages]

    def wait_for(self, tag, count=1, patience=PATIENCE):
        """Wait for `count` notifications with the line `tag`."""

        def seen():
            if sum(tag in lines for lines in self.messages()) >= count:
                return True
            ended = self.process.poll()
            assert ended is None, "ended with %s before %s: %s" % (ended, tag, self.describe())
            return False

        wait_until(seen, lambda: "%s in %s" % (tag, self.describe()), patience)

    def ready(self):
        self.wait_for("READY=1")
        return self

    def wait_status(self, pattern, patience=PATIENCE):
        """Wait until the current STATUS= matches a regular expression."""
        wait_until(
            lambda: re.search(pattern, self.status()), lambda: "%s in %s" % (pattern, self.describe()), patience
        )

    def attached(self, patience=PATIENCE):
        """Wait until this worker is connected and its master has finished greeting it."""
        self.wait_status("^connected to ", patience)
        greeting = "message from master: attached"
        wait_until(lambda: self.log().count(greeting) > self.greetings, self.describe, patience)
        self.greetings = self.log().count(greeting)

    def wait_log(self, text, patience=PATIENCE):
        wait_until(lambda: text in self.log(), lambda: "%s in %s" % (text, self.describe()), patience)

    def status_file(self):
        return json.loads((self.run / "status.json").read_text())

    def buildbot(self, *words):
        """Run upstream's own command for this role."""
        program = "buildbot" if self.role == "master" else "buildbot-worker"
        command = [os.path.join(os.path.dirname(self.python), program), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)


class Master(Instance):
    """A master with one worker `w1`, one builder `b1` and one force scheduler."""

    host = "127.0.0.1"  # where its web pages are

    def configure(self, command="true", extra="", pb=None, www=None):
        """Write master.cfg: what b1 runs, lines to append, and ports (free ones by default)."""
        if not hasattr(self, "pb"):
            self.pb, self.www = free_port(), free_port()
        text = MASTER_CFG.format(pb=pb or self.pb, www=www or self.www, command=command)
        (self.directory / "master.cfg").write_text(text + extra)
        return self

    def rest(self, path, **parameters):
        """GET below /api/v2, or POST of a JSON-RPC call when `method` is given."""
        url = "http://%s:%d/api/v2/%s" % (self.host, self.www, path)
        data = None
        if "method" in parameters:
            method = parameters.pop("method")
            data = json.dumps({"id": 1, "jsonrpc": "2.0", "method": method, "params": parameters}).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def force(self):
        builder = self.rest("builders/b1")["builders"][0]["builderid"]
        self.rest(
            "forceschedulers/force",
            method="force",
            builderid=str(builder),
            username="Me <me@example.org>",
            reason="test",
        )

    def build(self, number):
        """A build of b1 as the REST API gives it, or None."""
        try:
            return self.rest("builders/b1/builds/%d" % number)["builds"][0]
        except OSError:
            return None

    def finished(self, number):
        """Wait for a build to end; returns its result (0 is SUCCESS, 5 is RETRY)."""

        def ended():
            build = self.build(number)
            return build if build and build["complete"] else None

        return wait_until(ended, lambda: "end of build %d: %s" % (number, self.describe()))["results"]

    def stdio(self, number):
        """The whole log of the step `sh` of a build."""
        path = "builders/b1/builds/%d/steps/sh/logs/stdio" % number
        log = self.rest(path)["logs"][0]["logid"]
        url = "http://%s:%d/api/v2/logs/%d/raw_inline" % (self.host, self.www, log)
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()


class Maker:
    """Makes instances below a test's own directory from templates shared by all tests."""

    def __init__(self, directory, shared):
        self.directory, self.shared, self.made = directory, shared, []

    def __call__(self, python, role, name=None, directory=None):
        name = name or role
        directory = pathlib.Path(directory or self.directory / name.replace("@", "-"))
        shutil.copytree(self._template(python, role), directory)
        kind = Master if role == "master" else Instance
        instance = kind(self, python, role, directory, name)
        with contextlib.suppress(FileNotFoundError):
            shutil.copytree(self._bytecode(python), instance.state / "bytecode")
        self.made.append(instance)
        return instance

    def master(self, python, **configuration):
        return self(python, "master").configure(**configuration)

    def worker(self, python, master, allow_shutdown=None, password="secret", host="127.0.0.1", **changes):
        """A worker w1 for a master, or for a port; `changes` are assignments in the tac."""
        worker = self(python, "worker")
        port = master if isinstance(master, int) else master.pb
        changes.update(
            buildmaster_host=host, port=port, workername="w1", passwd=password, allow_shutdown=allow_shutdown
        )
        tac = worker.directory / "buildbot.tac"
        text = tac.read_text()
        for key, value in changes.items():
            text, count = re.subn(r"(?m)^%s = .*$" % key, "%s = %r" % (key, value), text)
            assert count == 1, key
        tac.write_text(text)
        return worker

    def _template(self, python, role):
        """A directory as `create-master` or `create-worker` makes it, made once."""
        template = self.shared / ("%s-%s" % (role, ".".join(map(str, buildbot_version(python)))))
        with open(str(template) + ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not template.exists():
                making = str(template) + ".new"
                commands = {
                    "master": ["buildbot", "create-master", "-q", "--relocatable", making],
                    "worker": ["buildbot-worker", "create-worker", "-q", "--relocatable", making]
                    + ["localhost:9989", "w1", "secret"],
                }
                command = commands[role]
                command[0] = os.path.join(os.path.dirname(python), command[0])
                subprocess.run(command, check=True, capture_output=True)
                os.rename(making, template)
        return template

    def _bytecode(self, python):
        """Keep the runner's bytecode of the first instance for all others: compiling it for each start would be a tenth
        of
        the computing time of the tests."""
        return self.shared / ("bytecode-" + ".".join(map(str, buildbot_version(python))))

    def _keep_bytecode(self, instance):
        kept, made = self._bytecode(instance.python), instance.state / "bytecode"
        if not kept.exists() and made.exists():
            with tempfile.TemporaryDirectory(dir=self.shared) as scratch, contextlib.suppress(OSError):
                # What a start remembers of imports is its own, and would make a failed one start twice.
                new = shutil.copytree(made, scratch + "/new", ignore=shutil.ignore_patterns("imports*"))
                os.rename(new, kept)

    def end(self):
        for instance in self.made:
            if instance.process is not None and instance.process.poll() == 0:
                self._keep_bytecode(instance)
            instance.end()
