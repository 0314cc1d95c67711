"""What systemd and the command line are told: sd_notify(3) and `status.json`."""

import os
import socket
import threading
import time

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
        self.directory = variables.get("RUNTIME_DIRECTORY", "").split(":")[0]
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
        """A stop was asked for, or the next start begins."""
        if self.directory:
            try:
                os.unlink(os.path.join(self.directory, RELOAD_MARK))
            except OSError:
                pass

    def notify(self, *lines):
        """Send one datagram to systemd; says whether it went out."""
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
            self._save()  # first: whoever waited for the message may read the file
            text = "STATUS=" + self.status["message"]
            if tags or text != self.sent:
                self.sent = text
                self.notify(*(tuple(tags) + (text,)))

    def _save(self):
        if not self.directory or os.getpid() != self.pid:
            return
        import json

        target = os.path.join(self.directory, "status.json")
        new = "%s.%d" % (target, self.pid)
        try:
            replace_file(target, new, json.dumps(self.status) + "\n")
        except (OSError, ValueError):
            pass


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
