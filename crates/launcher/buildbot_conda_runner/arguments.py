"""The inputs of a start: its command line and systemd's variables; the start is refused if they are not valid."""

import os

from .names import HANDED_ENVIRONMENT, HANDED_LOCK, PREPARED, SYSTEMD_VARIABLES, USAGE


class Refusal(Exception):
    """The end of this start: an exit status, the reason, and perhaps what to do about it."""

    def __init__(self, code, reason, hint=None):
        super().__init__(reason)
        self.code, self.reason, self.hint = code, reason, hint


class Options:
    """The command line: role, directory, reference, start_timeout and drain (seconds), log, upgrade, name."""

    CHOICES = {"log": ("journal", "both"), "upgrade": ("auto", "manual")}

    def __init__(self, arguments):
        self.log, self.upgrade = "journal", "auto"
        self.start_timeout, self.drain = 90.0, 0.0
        self.root = self.name = None
        words = []
        rest = list(arguments)
        while rest:
            word = rest.pop(0)
            if not word.startswith("--"):
                words.append(word)
                continue
            name, equals, value = word[2:].partition("=")
            if not equals:
                if not rest:
                    raise Refusal(USAGE, "`%s` needs a value" % word)
                value = rest.pop(0)
            self._set(name, value)
        if len(words) != 2 or words[0] not in ("master", "worker"):
            raise Refusal(USAGE, "expected `master` or `worker`, then a directory")
        self.role, self.directory = words
        self.reference = getattr(self, "reference", self.role)

    def _set(self, name, value):
        if name in ("start-timeout", "drain"):
            try:
                value = float(value)
            except ValueError:
                raise Refusal(USAGE, "`--%s` needs seconds, not `%s`" % (name, value))
        elif name in self.CHOICES:
            if value not in self.CHOICES[name]:
                raise Refusal(USAGE, "`--%s` must be %s" % (name, " or ".join(self.CHOICES[name])))
        elif name not in ("name", "reference", "root"):
            raise Refusal(USAGE, "unknown option `--%s`" % name)
        setattr(self, name.replace("-", "_"), value)


def own_directory(value, name):
    """Returns the directory whose path ends with this name, from a variable of systemd such as RUNTIME_DIRECTORY.

    A drop-in may add directories to those of the unit. If none has this name, the first one is used, which is not the
    one that the command line reads.
    """
    directories = value.split(":")
    return next((path for path in directories if path.endswith("/" + name)), directories[0])


def take_environment():
    """Remove systemd's variables and ours from the environment and return them as a dict.

    Twisted reads the sockets of a socket-activated service when `endpoints` is imported, so that
    import comes first where there are any.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        import twisted.internet.endpoints  # noqa: F401
    names = SYSTEMD_VARIABLES + [HANDED_LOCK, PREPARED]
    return {name: os.environ.pop(name) for name in names if name in os.environ}


def inherited_environment():
    """Returns the environment that systemd passed to the launcher, as a dict of bytes; call this before
    `take_environment`.

    A later start in this process begins with it, without the changes of activation and configuration. Without a
    launcher, it is the environment of this process.
    """
    found = dict(os.environb)
    descriptor = os.environ.pop(HANDED_ENVIRONMENT, "")
    mark = HANDED_ENVIRONMENT.encode() + b"\0"
    try:
        with open(int(descriptor), "rb", buffering=0) as file:
            data = os.pread(file.fileno(), 1 << 24, 0)
        if data.startswith(mark):  # an activation script may have closed it and opened something else
            found = dict(entry.split(b"=", 1) for entry in data[len(mark) :].split(b"\0") if b"=" in entry)
    except (OSError, OverflowError, ValueError):
        pass
    for name in (HANDED_ENVIRONMENT, HANDED_LOCK, PREPARED):
        found.pop(name.encode(), None)
    return found
