"""Reports the state to systemd and the command line: sd_notify(3) and `status.json`."""

import os
import socket
import threading
import time

from .arguments import own_directory
from .names import DROP_IN, RELOAD_MARK
from .text import one_line, to_bytes


class Report:
    """The state of this service, as sd_notify(3) messages and as `status.json` (version 1).

    No failure in here may end a healthy Buildbot: a full disk or a vanished socket is ignored.
    """

    def __init__(self, options, variables, inherited):
        self.pid = os.getpid()
        self.address = variables.get("NOTIFY_SOCKET", "")
        if self.address.startswith("@"):
            self.address = "\0" + self.address[1:]
        name = "buildbot-conda/" + options.reference
        self.directory = own_directory(variables.get("RUNTIME_DIRECTORY", ""), name)
        state = own_directory(variables.get("STATE_DIRECTORY", ""), "buildbot-conda/instances/" + options.reference)
        # Where the status is written as well if it cannot be written to /run, because that is full or has another path.
        self.spare = os.path.join(state, "status.json") if state else None
        self.is_own = self.directory.endswith("/" + name)
        self.later = None  # called with a name, seconds, and what to do then
        self.socket = None
        self.lock = threading.RLock()
        self.status = {
            "version": 1,
            "reference": options.reference,
            "role": options.role,
            "state": "starting",
            "since": time.time(),
            "begun": time.time(),  # the process may start again under the same number
            "drop_in": inherited.get(DROP_IN.encode(), b"").decode("ascii", "replace") or None,
            "pid": self.pid,
            "serial": 0,  # the greater, the later
            "buildbot": None,
            "message": "starting",
            "reconfiguration": None,
            "worker": None,
        }
        self.sent = None

    def is_reload_awaited(self):
        """Whether `service reload` waits for the end of this start and for the next one in the same process."""
        try:
            with open(os.path.join(self.directory, RELOAD_MARK), "rb") as file:
                return bool(self.directory) and int(file.read(32)) == self.pid
        except (OSError, ValueError):
            return False

    def withdraw_reload(self):
        """A stop was requested, or the next start begins."""
        if self.directory:
            try:
                os.unlink(os.path.join(self.directory, RELOAD_MARK))
            except OSError:
                pass

    def notify(self, *lines):
        """Send one datagram to systemd; returns whether it was sent."""
        if not self.address or os.getpid() != self.pid:
            return False
        try:
            if self.socket is None:
                self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self.socket.settimeout(5)
            self.socket.sendto(to_bytes("\n".join(lines)), self.address)
            return True
        except (OSError, ValueError):
            return False

    def change(self, state=None, message=None, tags=(), **fields):
        """Tell systemd (with `tags` such as `READY=1`) and the status file what changed."""
        with self.lock:
            if state is not None and state != self.status["state"]:
                self.status.update(state=state, since=time.time())
            if message is not None:
                self.status["message"] = one_line(message)
            self.status.update(fields)
            self.status["serial"] += 1
            self.save()  # first: whoever waited for the message may read the file
            text = "STATUS=" + self.status["message"]
            if tags or text != self.sent:
                self.sent = text
                self.notify(*(tuple(tags) + (text,)))

    def save(self):
        with self.lock:
            if not self.directory or os.getpid() != self.pid:
                return
            is_saved = self._write(os.path.join(self.directory, "status.json"))
            if not is_saved and self.later is not None:
                self.later("save", 2, self.save)
            if self.spare is None:
                return
            if not is_saved or (not self.is_own and "/buildbot-conda/" in self.spare):
                self._write(self.spare)
            elif os.path.lexists(self.spare):
                os.unlink(self.spare)

    def _write(self, target):
        import json

        try:
            replace_file(target, "%s.%d" % (target, self.pid), json.dumps(self.status) + "\n")
            return True
        except (OSError, ValueError):
            return False


def replace_file(target, new, text, mode=0o644):
    """Write `text` to `new` with `mode`, whatever the umask, and rename it to `target`."""
    try:
        os.unlink(new)
    except FileNotFoundError:
        pass
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(to_bytes(text))
            os.fchmod(fd, mode)
        os.rename(new, target)
    except BaseException:
        os.unlink(new)
        raise
