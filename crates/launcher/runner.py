"""Run one Buildbot instance in the foreground and tell systemd the truth about it.

Usage: runner.py ROLE DIRECTORY [--reference REF] [--start-timeout SECONDS] [--log journal|both]
                 [--upgrade auto|manual] [--drain SECONDS] [--root DIR]

Owned here: running an unmodified `buildbot.tac` in this process, the lock and `twistd.pid` of
its directory, sd_notify(3), the journal, `status.json`, honest exit status (sysexits.h values 65,
69 and 78), and the few signal rules without which builds get lost. Left to others: the activated
environment (launcher), waiting for drains and reloads (CLI), restarts and time-outs (systemd).

Works with CPython 3.8 and later and Buildbot 2.10 to 4.x, from the standard library and Twisted.
Start-up time is mostly imports, so nothing is imported before it is needed.
"""

import errno
import os
import signal
import socket
import stat
import sys
import threading
import time

# --- Names -------------------------------------------------------------------------------------

JOURNAL_SOCKET = "/run/systemd/journal/socket"
LOCK = ".buildbot-conda.lock"
CLI = "/usr/bin/buildbot-conda"
UPGRADE_MARK = "upgrade-in-progress"
PID_FILE = "twistd.pid"
TAC = "buildbot.tac"

UNEXPECTED, USAGE, SCHEMA, AWAY, CONFIGURATION = 1, 2, 65, 69, 78

# What systemd tells a service about itself (systemd.exec(5), "Environment variables set or
# propagated"). A build that inherited these could pose as the service or confuse its own tools.
SYSTEMD_VARIABLES = (
    "NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID "
    "RUNTIME_DIRECTORY STATE_DIRECTORY CACHE_DIRECTORY LOGS_DIRECTORY CONFIGURATION_DIRECTORY "
    "LISTEN_PID LISTEN_PIDFDID LISTEN_FDS LISTEN_FDNAMES MEMORY_PRESSURE_WATCH "
    "MEMORY_PRESSURE_WRITE FDSTORE MANAGERPID MANAGERPIDFDID MAINPID MAINPIDFDID TRIGGER_UNIT "
    "TRIGGER_PATH TRIGGER_TIMER_REALTIME_USEC TRIGGER_TIMER_MONOTONIC_USEC MONITOR_SERVICE_RESULT "
    "MONITOR_EXIT_CODE MONITOR_EXIT_STATUS MONITOR_INVOCATION_ID MONITOR_UNIT"
).split()

# What `service prepare` hands on when it has brought the database up to date and starts anew: the
# number of the lock's descriptor, and that there is no use in preparing again.
HANDED_LOCK, PREPARED = "BUILDBOT_CONDA_LOCK", "BUILDBOT_CONDA_PREPARED"

# syslog(3) priorities.
CRITICAL, ERROR, WARNING, NOTICE, INFO, DEBUG = 2, 3, 4, 5, 6, 7
PRIORITIES = {"critical": CRITICAL, "error": ERROR, "warn": WARNING, "info": INFO, "debug": DEBUG}

# Longest pause between two attempts of a worker to connect, in seconds. Twisted's own goes up
# to 60, which leaves workers idle for a minute after their master came back.
LONGEST_RETRY = 10.0

# How long Buildbot may take to stop once its builds are finished or given up, in seconds; well
# below TimeoutStopSec= of the units, which would make a failure of it.
STOP_PATIENCE = 30


class Refusal(Exception):
    """The end of this start: an exit status, the reason, and perhaps what to do about it."""

    def __init__(self, code, reason, hint=None):
        super().__init__(reason)
        self.code, self.reason, self.hint = code, reason, hint


class Options:
    """The command line: role, directory, reference, start_timeout and drain (seconds), log, upgrade."""

    CHOICES = {"log": ("journal", "both"), "upgrade": ("auto", "manual")}

    def __init__(self, arguments):
        self.log, self.upgrade = "journal", "auto"
        self.start_timeout, self.drain = 90.0, 0.0
        self.root = None
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
        elif name not in ("reference", "root"):
            raise Refusal(USAGE, "unknown option `--%s`" % name)
        setattr(self, name.replace("-", "_"), value)


def take_environment():
    """Remove systemd's variables and ours from the environment and return them as a dict.

    Twisted reads the sockets of a socket-activated service when `endpoints` is imported, so that
    import comes first where there are any.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        import twisted.internet.endpoints  # noqa: F401
    names = SYSTEMD_VARIABLES + [HANDED_LOCK, PREPARED]
    return {name: os.environ.pop(name) for name in names if name in os.environ}


def to_bytes(text):
    """UTF-8 of any str, also of one that holds undecodable bytes of a path."""
    return text.encode("utf-8", "backslashreplace")


def mentions(path, word):
    """Whether a file holds some bytes; no when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return word in file.read()
    except OSError:
        return False


def one_line(text, limit=300):
    """`text` for a status line: a traceback shrinks to its last place and last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("Traceback (")), None)
    if start is not None:
        places = [line for line in lines[start:] if line.startswith('File "')]
        lines = lines[:start] + places[-1:] + lines[-1:]
    joined = " ".join(" ".join(lines).split())
    return joined if len(joined) <= limit else joined[: limit - 3].rstrip() + "..."


# --- What systemd and the CLI are told ------------------------------------------------------------


class Report:
    """The state of this service, as sd_notify(3) messages and as `status.json` (version 1).

    No failure in here may end a healthy Buildbot: a full disk or a vanished socket is ignored.
    """

    def __init__(self, options, variables):
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
            "pid": self.pid,
            "buildbot": None,
            "message": "starting",
            "reconfiguration": None,
            "worker": None,
        }
        self.sent = None

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


# --- The journal --------------------------------------------------------------------------------


class Journal:
    """Writes log entries by the journal's native protocol, or as plain lines to stdout.

    Never raises and never logs through Twisted: either would feed its own failures back to itself.
    Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
    """

    def __init__(self, options, stream):
        """`stream`: the value of JOURNAL_STREAM, `device:inode` of what systemd connected."""
        self.fields = [
            ("SYSLOG_IDENTIFIER", "buildbot-" + options.role),
            ("BUILDBOT_INSTANCE", options.reference),
        ]
        self.fd = 1
        self.under_journal = any(self._is_stream(fd, stream) for fd in (1, 2))
        if self.under_journal and not self._is_stream(1, stream):
            self.fd = 2
        self.socket = None
        if self.under_journal:
            try:
                if stat.S_ISSOCK(os.stat(JOURNAL_SOCKET).st_mode):
                    self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    # A journal that does not answer must not block the reactor for long.
                    self.socket.settimeout(1)
            except OSError:
                self.socket = None

    @staticmethod
    def _is_stream(fd, stream):
        try:
            found = os.fstat(fd)
        except OSError:
            return False
        return stream == "%d:%d" % (found.st_dev, found.st_ino)

    def write(self, priority, text, fields=()):
        text = text.rstrip("\n")
        if not text.strip():
            return
        if self.socket is not None and self._send(priority, text, fields):
            return
        self._print(priority, text)

    def _send(self, priority, text, fields):
        entry = bytearray()
        for name, value in [("MESSAGE", text), ("PRIORITY", priority), *self.fields, *fields]:
            value = to_bytes(str(value))
            if b"\n" in value:
                entry += name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
            else:
                entry += name.encode() + b"=" + value + b"\n"
        try:
            self.socket.sendto(entry, JOURNAL_SOCKET)
            return True
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                return False
        except ValueError:
            return False
        try:
            return self._send_file(entry)
        except (OSError, ValueError):
            return False

    def _send_file(self, entry):
        """An entry larger than a datagram travels as a file descriptor.

        Sealed memory where Python was built with it (a Conda Python for an old C library is not),
        else a nameless file in /dev/shm, which the journal takes as well.
        """
        import fcntl
        import tempfile

        sealing = hasattr(os, "memfd_create")
        if sealing:
            fd = os.memfd_create("buildbot-log", 0x1 | 0x2)  # MFD_CLOEXEC | MFD_ALLOW_SEALING
        else:
            fd, name = tempfile.mkstemp(dir="/dev/shm")
            os.unlink(name)
        try:
            written = 0
            while written < len(entry):
                written += os.write(fd, entry[written:])
            if sealing:
                fcntl.fcntl(fd, 1033, 0xF)  # F_ADD_SEALS: seal, shrink, grow, write
            rights = fd.to_bytes(4, sys.byteorder)
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            self.socket.sendmsg([], control, 0, JOURNAL_SOCKET)
            return True
        finally:
            os.close(fd)

    def _print(self, priority, text):
        if self.under_journal:  # sd-daemon(3): `<N>` at the start of a line is its priority
            text = "\n".join("<%d>%s" % (priority, line) for line in text.split("\n"))
        data = to_bytes(text + "\n")
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            pass


def event_text(event):
    """The text of a Twisted log event, traceback included."""
    text = event.get("log_text")
    if text is not None:
        return text
    from twisted.logger import formatEvent

    text = formatEvent(event)
    failure = event.get("log_failure")
    if failure is not None:
        text += "\n" + failure.getTraceback()
    return text


def event_failure(event):
    return event.get("log_failure") or event.get("failure")


def event_fields(event):
    """Journal fields of a Twisted log event, as (name, value) pairs."""
    fields = []
    namespace = event.get("log_namespace")
    if namespace and namespace != "log_legacy":
        fields.append(("BUILDBOT_NAMESPACE", namespace))
    system = event.get("log_system")
    if system and system != "-":
        fields.append(("BUILDBOT_SYSTEM", system))
    frames = getattr(event_failure(event), "frames", None)
    if frames:
        function, file, line = frames[-1][:3]
        fields += [("CODE_FILE", file), ("CODE_LINE", line), ("CODE_FUNC", function)]
    return fields


# Lines which Buildbot logs like any other, though an administrator looks for them.
IMPORTANT = (
    ("Configuration Errors:", ERROR),
    ("BuildMaster startup failed", ERROR),
    ("configuration update aborted", ERROR),
    ("reconfig aborted", ERROR),
    ("WARNING: ", WARNING),
    ("unauthorized login", WARNING),
)


def event_priority(event, text):
    if event.get("isError"):
        return ERROR
    if event.get("log_namespace") == "stderr":  # what libraries print there is seldom an error
        return WARNING
    level = getattr(event.get("log_level"), "name", "info")
    if level == "info":
        for start, priority in IMPORTANT:
            if text.startswith(start):
                return priority
    return PRIORITIES.get(level, INFO)


class Observer:
    """The Twisted log observer: every event goes to the journal, then to `watch(event, text)`."""

    def __init__(self, journal, watch):
        self.journal, self.watch = journal, watch

    def __call__(self, event):
        try:
            text = event_text(event)
            self.journal.write(event_priority(event, text), text, event_fields(event))
            if event.get("log_namespace") not in ("stdout", "stderr"):
                self.watch(event, text)
        except Exception as error:
            self.journal.write(ERROR, "cannot handle a log event: %r" % error)


class Calm:
    """Keeps an observer of the tac from flooding the journal when it fails, as on a full disk."""

    PAUSE = 3600  # seconds between two complaints

    def __init__(self, observer, journal):
        self.observer, self.journal, self.complained = observer, journal, None

    def __call__(self, event):
        try:
            self.observer(event)
        except Exception as error:
            now = time.monotonic()
            if self.complained is None or now > self.complained + self.PAUSE:
                self.complained = now
                self.journal.write(ERROR, "cannot write the log of buildbot.tac: %s" % error)


def observers_of(application, journal):
    """What `--log both` adds: the log observer that the tac chose, or twistd's own.

    One that writes to stdout is left out, as everything would then be in the journal twice.
    """
    from twisted import logger
    from twisted.python import log, logfile

    standard = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    observer = application.getComponent(logger.ILogObserver, None)
    if observer is not None:
        return [] if getattr(observer, "_outFile", None) in standard else [Calm(observer, journal)]
    observer = application.getComponent(log.ILogObserver, None)
    if observer is not None:
        write = getattr(getattr(observer, "__self__", None), "write", None)
        if getattr(write, "__self__", None) in standard:
            return []
        return [Calm(logger.LegacyLogObserverWrapper(observer), journal)]
    file = logfile.LogFile.fromFullPath("twistd.log")
    return [Calm(logger.textFileLogObserver(file), journal)]


# --- Lock and pid file ----------------------------------------------------------------------------


def handed_lock(text):
    """The descriptor of a lock that this process took before an exec, or None: `text` is believed
    only if it names the lock of the current directory."""
    import fcntl

    try:
        fd = int(text)
        found = os.fstat(fd)
        if not any(os.path.samestat(found, os.lstat(path)) for path in (LOCK, ".") if os.path.lexists(path)):
            return None
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.set_inheritable(fd, False)
    except (OSError, OverflowError, TypeError, ValueError):
        return None
    return fd


def take_lock(journal, handed=None):
    """Lock the current directory for the life of this process; returns the descriptor, or None.

    The lock is flock(2) on `.buildbot-conda.lock`, which holds the PID for whoever is refused.
    Where no file can be made the directory itself is locked; where the filesystem has no locks
    (some NFS) the start goes on without. Children made by a bare fork do not keep it.
    """
    import fcntl

    fd = handed_lock(handed)
    for flags in (os.O_RDWR | os.O_CREAT, os.O_RDONLY, None):
        if fd is not None:
            break
        try:
            if flags is None:
                fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
            else:
                # O_NONBLOCK: a FIFO of that name must not hold up the start.
                fd = os.open(LOCK, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            break
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise Refusal(CONFIGURATION, "`%s` is not a regular file" % os.path.abspath(LOCK))
    if fd is None:
        journal.write(WARNING, "cannot open `%s`: starting without a lock" % os.path.abspath(LOCK))
        return None
    if not (stat.S_ISREG(os.fstat(fd).st_mode) or stat.S_ISDIR(os.fstat(fd).st_mode)):
        os.close(fd)
        raise Refusal(CONFIGURATION, "`%s` is not a regular file" % os.path.abspath(LOCK))
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            journal.write(WARNING, "cannot lock `%s`: %s" % (os.getcwd(), error.strerror))
            return fd
        try:
            holder = "PID %d" % int(os.pread(fd, 32, 0))
        except (OSError, ValueError):
            holder = "an unknown PID"
        os.close(fd)
        raise Refusal(AWAY, "`%s` is already in use by %s" % (os.getcwd(), holder))
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    except OSError:
        pass  # a full disk, or the directory itself: the lock holds all the same
    os.register_at_fork(after_in_child=lambda: close_quietly(fd))
    return fd


def close_quietly(fd):
    try:
        os.close(fd)
    except OSError:
        pass


def foreign_buildbot():
    """PID of a Buildbot that somebody else started in the current directory, or None.

    Believes `twistd.pid` only when that process is older than the file, is a Buildbot and, as far
    as that can be seen, runs in this directory: process ids are used again.
    """
    try:
        with open(PID_FILE, "rb") as file:
            pid = int(file.read(32))
            written = os.fstat(file.fileno()).st_mtime
        with open("/proc/%d/cmdline" % pid, "rb") as file:
            command = file.read(65536)
        with open("/proc/%d/stat" % pid, "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
    if pid == os.getpid() or b"buildbot" not in command or started > written + 2:
        return None
    try:
        if not os.path.samefile("/proc/%d/cwd" % pid, "."):
            return None
    except OSError:
        pass  # another user's process: the command line has to do
    return pid


def write_pid_file(journal):
    pid = foreign_buildbot()
    if pid is not None:
        raise Refusal(
            AWAY,
            "`%s` is already in use by PID %d, which `%s` names" % (os.getcwd(), pid, PID_FILE),
            "stop it with `buildbot stop` or `buildbot-worker stop`",
        )
    try:
        replace_file(PID_FILE, "%s.%d" % (PID_FILE, os.getpid()), "%d" % os.getpid())
    except OSError as error:
        journal.write(WARNING, "cannot write `%s`: %s" % (os.path.abspath(PID_FILE), error.strerror))


def remove_pid_file():
    try:
        with open(PID_FILE, "rb") as file:
            if int(file.read(32)) != os.getpid():
                return
        os.unlink(PID_FILE)
    except (OSError, ValueError):
        pass


# --- Importing ------------------------------------------------------------------------------------


class Shortcuts:
    """An import hook that leaves out, until the instance serves, what a start does not need.

    Importing is five sixths of a start. Some of it can wait without anybody noticing: mako's
    colouring of error pages with Pygments, which mako itself holds to be optional; support for
    databases that are not in use, which is loaded on first use or by `complete()`; and what is
    merely mentioned where it is imported, which is loaded once the instance serves.
    """

    SKIPPED = {"mako.ext.pygmentplugin"}
    DATABASES = {"alembic.ddl." + name for name in "mssql mysql oracle postgresql".split()} | {
        "sqlalchemy.dialects.mysql." + name
        for name in "aiomysql asyncmy cymysql mariadbconnector mysqlconnector pyodbc".split()
    } | {"sqlalchemy.dialects.sqlite.aiosqlite", "sqlalchemy.dialects.sqlite.pysqlcipher"}
    MENTIONED = {"alembic.command", "http.cookiejar", "jinja2", "unittest"}
    LATER = DATABASES | MENTIONED

    def __init__(self, role):
        # Autobahn compiles a checker of UTF-8 for WebSockets when it is imported, and has a slower
        # one that needs no compiler. One protocol of workers sends enough to tell the difference.
        name = "AUTOBAHN_USE_NVX"
        files = {"master": (TAC, "master.cfg"), "worker": (TAC,)}[role]
        self.variable = None
        if name not in os.environ and not any(mentions(file, b"msgpack") for file in files):
            self.variable = name
            os.environ[name] = "0"
        sys.meta_path.insert(0, self)

    def find_spec(self, name, path=None, target=None):
        if name in self.SKIPPED:
            raise ModuleNotFoundError("`%s` is not needed" % name, name=name)
        if name in self.LATER:
            from importlib import machinery, util

            spec = machinery.PathFinder.find_spec(name, path)
            if spec is not None and spec.loader is not None:
                spec.loader = util.LazyLoader(spec.loader)
            return spec
        return None

    def tac_is_read(self):
        """What runs from here on may hand its environment on to builds."""
        if self.variable is not None:
            os.environ.pop(self.variable, None)

    def remove(self):
        sys.meta_path.remove(self)

    def complete(self, names=LATER):
        """Load what was put off; not for threads, which a lazy module does not stand before 3.12."""
        for name in names & set(sys.modules):
            getattr(sys.modules[name], "__all__", None)


# --- Watching over time ---------------------------------------------------------------------------


class Minder(threading.Thread):
    """A thread that keeps one deadline, and vouches for the reactor during a reconfiguration.

    It needs only the interpreter to switch threads, so it works beside an endless loop in a
    configuration and beside a reactor that a long reconfiguration blocks.
    """

    def __init__(self):
        super().__init__(name="minder", daemon=True)
        self.condition = threading.Condition()
        self.jobs = {}  # name -> (time.monotonic() when due, seconds to the next or None, call)

    def run(self):
        while True:
            with self.condition:
                due = min((job[0] for job in self.jobs.values()), default=None)
                if due is None or due > time.monotonic():
                    self.condition.wait(None if due is None else due - time.monotonic())
                    continue
                name = next(name for name, job in self.jobs.items() if job[0] == due)
                _, every, call = self.jobs.pop(name)
                if every is not None:
                    self.jobs[name] = (time.monotonic() + every, every, call)
            call()

    def after(self, name, seconds, call, every=None):
        with self.condition:
            self.jobs[name] = (time.monotonic() + seconds, every, call)
            self.condition.notify()

    def forget(self, *names):
        with self.condition:
            for name in names:
                self.jobs.pop(name, None)


def stacks():
    """The stacks of all threads but this one, main thread first: lists of (file, line, function),
    innermost last. Walks frames by hand, as an import here could wait for the thread that hangs."""
    frames = sys._current_frames()
    frames.pop(threading.get_ident(), None)
    main = threading.main_thread().ident
    found = []
    for ident in sorted(frames, key=lambda ident: ident != main):
        frame, stack = frames[ident], []
        while frame is not None:
            code = frame.f_code
            stack.append((code.co_filename, frame.f_lineno, code.co_name))
            frame = frame.f_back
        found.append(stack[::-1])
    return found


def is_ours(file):
    """Whether code is the user's own: the tac, master.cfg, or a module beside them."""
    if file == TAC:
        return True
    try:
        directory = os.getcwd() + os.sep
    except OSError:  # it has been removed
        return False
    return file.startswith(directory) and not file.startswith(sys.prefix + os.sep)


def place(entry):
    return "%s, line %d, in %s" % (os.path.basename(entry[0]), entry[1], entry[2])


def diagnose_hang():
    """Why a start does not come to an end: (exit status, one line, stack as text).

    Code of the configuration on a stack is a configuration that hangs. Anything else (a database,
    a service somewhere) may answer the next time.
    """
    found = stacks()
    for stack in found:
        own = [entry for entry in stack if is_ours(entry[0])]
        if own:
            code, why = CONFIGURATION, "still in %s" % place(own[-1])
            break
    else:
        # Between its attempts Buildbot waits itself.
        names = ("sqlalchemy", os.path.join("buildbot", "db", ""))
        stack = next((s for s in found if any(n in e[0] for e in s for n in names)), None)
        if stack is not None:
            code, why = AWAY, "still waiting for the database"
        else:
            stack = found[0] if found else []
            code, why = AWAY, "still waiting, with nothing of the configuration running"
    text = "\n".join('  File "%s", line %d, in %s' % entry for entry in stack[-12:])
    return code, why, text


# --- Why a start failed ---------------------------------------------------------------------------


def exit_status(error):
    """The exit status for an exception that ended a start."""
    kinds = type(error).__mro__
    names = {kind.__name__ for kind in kinds}
    if "DatabaseNotReadyError" in names:
        return SCHEMA
    if any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in kinds):
        if names & {"ArgumentError", "NoSuchModuleError"}:
            return CONFIGURATION
        return AWAY if names & {"OperationalError", "InterfaceError", "TimeoutError"} else UNEXPECTED
    if names & {"ConfigErrors", "SystemExit", "ImportError", "SyntaxError"}:
        return CONFIGURATION
    if "CannotListenError" in names:
        denied = getattr(getattr(error, "socketError", None), "errno", None) == errno.EACCES
        return CONFIGURATION if denied else AWAY
    if "is it installed?" in str(error):  # how Buildbot reports a missing web plugin
        return CONFIGURATION
    if names & {"OSError", "ConnectError", "ConnectionClosed", "DNSLookupError"}:
        return AWAY
    return UNEXPECTED


def is_damage(error):
    """Whether SQLite says that a file is no database, or no sound one: nothing that heals."""
    kinds = type(error).__mro__
    if not any(kind.__module__.partition(".")[0] in ("sqlalchemy", "sqlite3") for kind in kinds):
        return False
    return type(error).__name__ == "DatabaseError"


def error_text(error):
    """An exception in Buildbot's own words; several lines where it has several."""
    errors = getattr(error, "errors", None)
    if type(error).__name__ == "ConfigErrors" and errors:
        return "\n".join(errors)
    text = str(error).strip()
    if any(kind.__module__.partition(".")[0] == "sqlalchemy" for kind in type(error).__mro__):
        # The rest is the statement and a link to the manual.
        return "database: " + (text.splitlines() or [type(error).__name__])[0]
    if type(error).__name__ == "CannotListenError":
        return text
    return "%s: %s" % (type(error).__name__, text) if text else type(error).__name__


def error_place(error):
    """` (FILE, line N, in FUNCTION)` of the last line of the user's own code, or nothing."""
    trace, last = error.__traceback__, None
    while trace is not None:
        code = trace.tb_frame.f_code
        if is_ours(code.co_filename):
            last = (code.co_filename, trace.tb_lineno, code.co_name)
        trace = trace.tb_next
    return " (%s)" % place(last) if last else ""


def compare_schema(connection, model):
    """How the schema of the database relates to this Buildbot: ("older"|"newer", text).

    Upstream prints the same advice, to upgrade, for both.
    """
    import sqlalchemy

    tables = sqlalchemy.inspect(connection).get_table_names()
    rows = []
    if "alembic_version" in tables:
        rows = connection.execute(sqlalchemy.text("select version_num from alembic_version")).fetchall()
    if not rows:
        return "older", "it has no schema revision that this Buildbot knows"
    revision = rows[0][0]
    if not hasattr(model, "alembic_get_scripts"):  # Buildbot before 3.0
        return "newer", "it is at revision %s of Buildbot 3 or later" % revision
    scripts = model.alembic_get_scripts()
    head = scripts.get_current_head()
    known = {script.revision for script in scripts.walk_revisions()}
    text = "it is at revision %s, this Buildbot is at %s" % (revision, head)
    return ("older" if revision in known else "newer"), text


# --- Master and worker ----------------------------------------------------------------------------


def wrap(owner, name, before=None, failed=None):
    """Call `before()` ahead of a method of an object, and `failed(error)` when it fails.

    `failed` may return a Deferred, which is waited for. Absent methods are left alone: an older or
    newer Buildbot then merely gives less precise reasons.
    """
    original = getattr(owner, name, None)
    if original is None:
        return

    def on_failure(failure):
        from twisted.internet import defer

        waiting = failed(failure.value)
        if isinstance(waiting, defer.Deferred):
            return waiting.addBoth(lambda _: failure)
        return failure

    def wrapped(*args, **kwargs):
        if before is not None:
            before()
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            if failed is not None:
                failed(error)
            raise
        if failed is not None and hasattr(result, "addErrback"):
            result.addErrback(on_failure)
        return result

    setattr(owner, name, wrapped)


def stop_reactor():
    """Stop the reactor unless it is stopping already."""
    from twisted.internet import error, reactor

    try:
        reactor.stop()
    except error.ReactorNotRunning:
        pass


class Role:
    """What master and worker share; `service` is the Runner that owns this."""

    def __init__(self, runner):
        self.runner, self.report, self.journal = runner, runner.report, runner.journal
        self.asked = False  # somebody wanted this process to stop

    def extend(self):
        """Ask systemd, while builds finish, not to lose patience; True as long as that goes on."""
        self.report.notify("EXTEND_TIMEOUT_USEC=30000000")


class Master(Role):
    """Follows a BuildMaster: its lines on which upstream's own tools rely (logwatcher.py), and the
    exceptions behind them."""

    package, distribution = "buildbot", "buildbot"

    def __init__(self, runner):
        super().__init__(runner)
        self.state = "starting"  # starting, running, draining, stopping, failed
        self.errors = []  # exceptions since the start or reconfiguration began, in order
        self.load_failed = False  # whether the first of them came from reading master.cfg
        self.place = ""
        self.schema = None  # (older or newer, text) once compared
        self.reloads = 0
        self.master = None
        self.read = None  # what `sources` gave when the configuration was last read
        self.announcement = None  # the message of a start that is put off

    def find(self, services):
        for service in services:
            if any(kind.__name__ == "BuildMaster" for kind in type(service).__mro__):
                self.master = service
        return self.master is not None

    def attach(self):
        master = self.master
        wrap(master, "startService", failed=self._start_ended)
        wrap(master, "stopService", before=self._stopping)
        wrap(master, "reconfigServiceWithBuildbotConfig", failed=self.errors.append)
        if not hasattr(master, "config_loader"):
            self.runner.shortcuts.complete()
            return
        wrap(master.config_loader, "loadConfig", self._loading, self._load_failed)

    def reactor_started(self):
        self.runner.stop_at_once_on_signals()  # the reactor has put its own handlers in place

    # Starting

    # Names of files in the master's directory that a configuration is made of.
    SOURCES = (".cfg", ".py", ".toml", ".yaml", ".yml")

    def sources(self):
        """What changes with the files of the configuration: name -> inode, bytes and time."""
        found = {}
        try:
            with os.scandir(".") as entries:
                for entry in entries:
                    if entry.name.endswith(self.SOURCES):
                        info = entry.stat()
                        found[entry.name] = (info.st_ino, info.st_size, info.st_mtime_ns)
        except OSError:
            pass  # what cannot be seen has not changed
        return found

    def _loading(self):
        self.read = self.sources()
        if self.state == "starting":
            self.report.change(message="starting: reading %s" % self.master.configFileName)
            wrap(self.master.db, "setup", self._database, self._database_failed)

    def _load_failed(self, error):
        self.load_failed = True
        self.errors.append(error)
        self.place = self.place or error_place(error)  # now: Twisted may clear the traceback later
        if self.state != "starting" and not isinstance(error, Exception):
            # SystemExit, of which a reconfiguration of Buildbot neither ends nor says so.
            raise RuntimeError("the configuration was left by %s" % error_text(error)) from error

    def _database(self):
        database = self.master.config.db
        url = database.get("db_url") if isinstance(database, dict) else getattr(database, "db_url", None)
        if not str(url).startswith("sqlite"):
            self.runner.shortcuts.complete()
        self.report.change(message="starting: opening the database")

    def _database_failed(self, error):
        self.errors.append(error)
        if exit_status(error) != SCHEMA:
            return None
        model, pool = self.master.db.model, self.master.db.pool
        return pool.do(lambda connection: compare_schema(connection, model)).addCallbacks(
            lambda found: setattr(self, "schema", found), self._not_compared
        )

    def _not_compared(self, failure):
        # Versions before 4 take a file that is no database for an old one.
        if is_damage(failure.value):
            self.errors.insert(0, failure.value)

    def _start_ended(self, error):
        """An exception that Buildbot does not catch, SystemExit above all, ends nothing upstream."""
        if error not in self.errors:
            self.errors.append(error)
        self._start_failed()

    def _start_failed(self):
        if self.state != "starting":
            return
        self.state = "failed"
        self.runner.end_soon(15)

    def watch(self, event, text):
        """Follow one log event."""
        failure = event_failure(event)
        if failure is not None and isinstance(failure.value, BaseException):
            if event.get("why") == "error while parsing config file:":
                self.place = error_place(failure.value)
            elif event.get("why") in ("while starting BuildMaster", "during reconfig:"):
                if failure.value not in self.errors:
                    self.errors.append(failure.value)
        elif text == "BuildMaster is running":
            self._running()
        elif text == "BuildMaster startup failed":
            self._start_failed()
        elif text == "beginning configuration update":
            self._reload_begun()
        elif text.startswith("configuration update complete"):
            self._reload_ended("complete")
        elif text.startswith(("configuration update aborted", "reconfig aborted")):
            self._reload_ended("aborted")
        elif text.startswith(("WARNING: configuration update partially", "WARNING: reconfig partially")):
            self._reload_ended("partial")
        elif text == "Initiating clean shutdown" and self.state == "starting":
            self.asked = True  # USR1 between Buildbot's own handler and the end of the start
        elif text == "Initiating clean shutdown" and self.state == "running":
            self._drain("finishing running builds, then stopping")
        elif text.startswith("Waiting for ") and self.state == "draining":
            count = text.split()[2]
            self._drain("finishing %s running build%s, then stopping" % (count, "s"[count == "1" :]))
        elif text == "Cancelling clean shutdown" and self.state == "draining":
            self.state, self.asked = "running", False
            self.runner.stop_ticking("drain")
            self.report.change("running", "running")

    def _running(self):
        if self.state != "starting":
            return
        self.state = "running"
        self.errors.clear()
        url = getattr(self.master.config, "buildbotURL", None)
        message = "running: Buildbot %s%s" % (self.report.status["buildbot"], ", %s" % url if url else "")
        self.announcement = message
        self._announce()

    def _announce(self):
        """Say that the start has succeeded, once the configuration on disk has been read.

        systemd takes a reload that is asked for meanwhile to be a part of the start.
        """
        from twisted.internet import reactor

        if self.read is not None and self.sources() != self.read:
            self.journal.write(NOTICE, "the configuration was changed during the start: reading it again")
            reactor.callLater(0, self.on_signal, signal.SIGHUP)
            return
        message, self.announcement = self.announcement, None
        self.runner.started(message)
        self.runner.remember_version()

    # Reconfiguring

    def _reload_begun(self):
        self.reloads += 1
        self.errors.clear()
        self.place = ""
        if self.state == "running":
            self._reload("running", "reading the configuration again", "reloading")
            # Reading it happens in a thread, putting it into effect in the reactor, which may be
            # busy for longer than the watchdog's patience. Vouch for it, but not for ever.
            self.runner.vouch(self._reload_hangs)

    def _reload_hangs(self):
        _, why, text = diagnose_hang()
        self.journal.write(ERROR, "the reconfiguration does not come to an end: %s\n%s" % (why, text))
        self._reload("running", "the reconfiguration does not come to an end: %s" % why, "reloading")

    def _reload_ended(self, outcome):
        self.runner.stop_vouching()
        reason = one_line("; ".join(error_text(error) for error in self.errors) + self.place)
        message = {
            "complete": "running: configuration update complete",
            "aborted": "running on the previous configuration, the new one was refused: " + reason,
            "partial": "running, but the new configuration is only partly in effect: " + reason,
        }[outcome]
        if self.announcement is not None:
            self._announce()
        if self.announcement is None:
            self._reload(outcome, message, "running")

    def _reload(self, outcome, message, state):
        reconfiguration = {
            "number": self.reloads,
            "outcome": outcome,
            "message": one_line(message),
            "at": time.time(),
        }
        if self.state != "running":  # it began before a stop
            self.report.change(reconfiguration=reconfiguration)
            return
        if state == "running":
            tags = ["READY=1"]
        else:
            tags = ["RELOADING=1", "MONOTONIC_USEC=%d" % (time.monotonic() * 1e6)]
        self.report.change(state, message, tags, reconfiguration=reconfiguration)

    # Stopping

    def _drain(self, message):
        self.state, self.asked = "draining", True
        # No STOPPING=1 yet: systemd would begin to count its stop time-out.
        self.report.change("stopping", message)
        self.runner.tick("drain", 10, self.extend)

    def _stopping(self):
        """Before the master stops, on whatever way: make it retry its builds.

        Its own quick shutdown, which TERM leads to, cancels them. The clean shutdown of USR1 sets
        the flag that keeps the quick one from acting; the builds then end as RETRY.
        """
        self.runner.stop_ticking("drain")
        if self.state == "failed":
            return
        # A handler that came later than ours has told the master alone.
        self.asked = self.asked or getattr(self.master, "_got_sigterm", False)
        self.state = "stopping"
        self.runner.stopping()
        if getattr(self.master, "running", False):
            shutdown = self.master.botmaster.cleanShutdown(stopReactor=False)
            if hasattr(shutdown, "addErrback"):
                shutdown.addErrback(lambda failure: None)

    def outcome(self):
        """(exit status, reason, hint) after the reactor has ended."""
        if self.state != "failed":
            if not self.asked:
                return UNEXPECTED, "Buildbot was ended from inside, nobody had asked for it", None
            return 0, "stopped", None
        if self.schema is not None:
            return self._schema_outcome()
        if not self.errors:
            return UNEXPECTED, "BuildMaster startup failed", None
        error = self.errors[0]
        if is_damage(error):
            hint = "go back to a backup with `buildbot-conda restore %s`; `--list` shows them"
            return SCHEMA, "the database is damaged: " + error_text(error), hint % self.runner.options.reference
        if exit_status(error) == SCHEMA:  # and it could not be compared
            self.schema = ("older", "it needs to be upgraded before this version can run")
            return self._schema_outcome()
        code = CONFIGURATION if self.load_failed else exit_status(error)
        hint = None
        if isinstance(error, ImportError):
            hint = "install it into `%s`" % sys.prefix
        return code, error_text(error) + self.place, hint

    def _schema_outcome(self):
        version = self.report.status["buildbot"]
        if self.schema[0] == "newer":
            last = self.runner.last_version()
            writer = "Buildbot %s" % last if last and last != version else "a newer Buildbot"
            return (
                SCHEMA,
                "the database is newer than Buildbot %s: %s" % (version, self.schema[1]),
                "install the version that wrote it (%s), or go back to a backup of an older schema with "
                "`buildbot-conda restore %s`; `--list` shows them" % (writer, self.runner.options.reference),
            )
        return self.runner.older_schema(
            SCHEMA,
            "the database is older than Buildbot %s: %s" % (version, self.schema[1]),
            "back it up and upgrade it with `buildbot-conda upgrade %s`" % self.runner.options.reference,
        )

    def on_signal(self, number):
        """HUP or USR1 that came before Buildbot could take it: hand it on now."""
        if signal.getsignal(number) != self.runner.keep_signal:
            os.kill(os.getpid(), number)


class Connection:
    """How one Worker stands to its master."""

    def __init__(self, role, worker):
        self.role, self.worker = role, worker
        self.state, self.message, self.since = "connecting", "connecting", time.time()
        self.target, self.wait = "its master", None

    def change(self, state, message):
        if state != self.state:
            self.since = time.time()
        self.state, self.message = state, message
        self.role.show()

    def attempt(self, target):
        self.target = target
        if self.state == "connected":
            self.change("lost", "lost the connection to %s, trying again" % target)
        elif self.message == "connecting":
            self.change("connecting", "connecting to %s" % target)
        self._wait_for("no answer from %s for %%d s" % target)

    def reached(self):
        if self.state != "refused":
            self.change(self.state, "logging in to %s" % self.target)
            self._wait_for("%s does not answer the login for %%d s: is it a worker port?" % self.target)

    def failed(self, error):
        self._wait_for(None)
        text = str(error).strip().rstrip(".") or type(error).__name__
        if type(error).__name__ in ("TimeoutError", "TCPTimedOutError"):
            text = "no answer"
        state = "lost" if self.state in ("connected", "lost") else "connecting"
        self.change(state, "cannot reach %s, trying again: %s" % (self.target, text))

    def logged_in(self, perspective):
        self._wait_for(None)
        name = self.worker.name
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        self.change("connected", "connected to %s as %s" % (self.target, name))
        if hasattr(perspective, "notifyOnDisconnect"):
            perspective.notifyOnDisconnect(lambda _: self.lost())

    def lost(self):
        if self.state == "connected":
            self.change("lost", "lost the connection to %s, trying again" % self.target)

    def refused(self, failure):
        self._wait_for(None)
        kind = type(failure.value).__name__
        # Errors from the other side arrive under their full name.
        if "UnauthorizedLogin" in kind or "UnauthorizedLogin" in str(failure.type):
            self.change(
                "refused",
                "refused by %s: unauthorized login; check worker name and password" % self.target,
            )
        elif "ConnectionLost" in kind or "ConnectionLost" in str(failure.type):
            self.change("lost", "%s closed the connection during the login" % self.target)
        else:
            self.change("refused", "refused by %s: %s" % (self.target, failure.getErrorMessage()))

    def _wait_for(self, text):
        """Say after some seconds that no answer came."""
        from twisted.internet import reactor

        if self.wait is not None and self.wait.active():
            self.wait.cancel()
        if text is None:
            self.wait = None
            return
        begun = time.monotonic()

        def late():
            state = "lost" if self.state == "connected" else self.state
            self.change(state, text % (time.monotonic() - begun))
            self.wait = reactor.callLater(10, late)

        self.wait = reactor.callLater(5, late)


def endpoint_name(endpoint):
    """`HOST:PORT` of a client endpoint as far as it can be told."""
    endpoint = getattr(endpoint, "_wrappedEndpoint", endpoint)
    host = getattr(endpoint, "_hostText", None) or getattr(endpoint, "_host", None)
    port = getattr(endpoint, "_port", None)
    if host is None or port is None:
        return "its master"
    host = host.decode("utf-8", "replace") if isinstance(host, bytes) else host
    return ("[%s]:%s" if ":" in host else "%s:%s") % (host, port)


class Worker(Role):
    """Follows the Workers of a tac (usually one) and their way to the master."""

    package, distribution = "buildbot_worker", "buildbot-worker"

    def __init__(self, runner):
        super().__init__(runner)
        self.connections = []
        self.ready = self.draining = False
        self._watch_endpoints()

    def _watch_endpoints(self):
        """Hear of every attempt to connect: ClientService itself tells no reasons."""
        from twisted.application import internet
        from twisted.internet.interfaces import IStreamClientEndpoint
        from zope.interface import implementer

        role = self

        @implementer(IStreamClientEndpoint)
        class Watched:
            def __init__(self, endpoint, factory):
                self.endpoint, self.factory = endpoint, factory

            def __repr__(self):
                return repr(self.endpoint)

            def connect(self, proxy):
                connection = role.connection_of(self.factory)
                if connection is None:
                    return self.endpoint.connect(proxy)
                connection.attempt(endpoint_name(self.endpoint))
                result = self.endpoint.connect(proxy)

                def reached(protocol):
                    connection.reached()
                    return protocol

                def failed(failure):
                    connection.failed(failure.value)
                    return failure

                return result.addCallbacks(reached, failed)

        original = internet.ClientService.__init__

        def start(self, endpoint, factory, retryPolicy=None, *args, **kwargs):
            policy = retryPolicy or internet.backoffPolicy()
            original(
                self,
                Watched(endpoint, factory),
                factory,
                lambda attempt: min(policy(attempt), LONGEST_RETRY),
                *args,
                **kwargs
            )

        internet.ClientService.__init__ = start

    def connection_of(self, factory):
        for connection in self.connections:
            if getattr(connection.worker, "bf", None) is factory:
                return connection
        return None

    def find(self, services):
        for service in services:
            kinds = type(service).__mro__
            if any(k.__module__.startswith("buildbot_worker") and k.__name__ == "Worker" for k in kinds):
                self.connections.append(Connection(self, service))
        return bool(self.connections)

    def attach(self):
        for connection in self.connections:
            factory = getattr(connection.worker, "bf", None)
            self._hear(factory, "gotPerspective", connection.logged_in)
            self._hear(factory, "failedToGetPerspective", connection.refused)

    @staticmethod
    def _hear(owner, name, call):
        original = getattr(owner, name, None)
        if original is None:
            return

        def heard(first, *rest):
            call(first)
            return original(first, *rest)

        setattr(owner, name, heard)

    def reactor_started(self):
        from twisted.internet import reactor

        def stop(*_):
            self.asked = True
            reactor.callFromThread(self._stop)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        self.ready = True
        self.show(start=True)

    def _stop(self):
        self.runner.stopping()
        stop_reactor()

    def allow_shutdown(self):
        return getattr(self.connections[0].worker, "allow_shutdown", None) or None

    def show(self, start=False):
        """Put the state of the connections on the status line."""
        if not self.ready:
            return
        order = ("refused", "lost", "connecting", "connected")
        worst = min(self.connections, key=lambda connection: order.index(connection.state))
        message = worst.message
        if len(self.connections) > 1:
            up = sum(connection.state == "connected" for connection in self.connections)
            message = "%d of %d workers connected; %s" % (up, len(self.connections), message)
        worker = {
            "connection": worst.state,
            "message": one_line(message),
            "since": worst.since,
            "allow_shutdown": self.allow_shutdown(),
        }
        if start:
            self.report.change(worker=worker)
            self.runner.started(message)
        elif self.draining or self.asked:
            self.report.change(worker=worker)
            self._end_drain_alone()
        else:
            self.report.change(message=message, worker=worker)

    def watch(self, event, text):
        if text.startswith("Initiating shutdown because "):
            self._drain()
        elif text.startswith(("No active connection, shutting down", "worker shutting down on command")):
            self.asked = True
            self.runner.stop_ticking("drain")
            self.runner.stopping()
        elif text.startswith('callRemote("shutdown") failed') and self.draining:
            from twisted.internet import reactor

            # It fails with the connection, too; then there is nobody left to wait for.
            reactor.callLater(1, self._drain_failed)
        elif "message from master: attached" in text and len(self.connections) == 1:
            if self.connections[0].state != "connected":  # protocols without a perspective
                self.connections[0].logged_in(None)

    def busy(self):
        """How many commands of builds run at this moment."""
        count = 0
        for connection in self.connections:
            bot = getattr(connection.worker, "bot", None)
            count += len(getattr(bot, "protocol_commands", ()))
            for builder in getattr(bot, "builders", {}).values():
                count += bool(getattr(builder, "protocol_command", None) or getattr(builder, "command", None))
        return count

    def _drain(self):
        if not self.draining:
            from twisted.internet import reactor

            self.draining = True
            self.runner.tick("drain", 5, self._show_drain)
            # Called from within a signal handler of Buildbot's, which is not done yet.
            reactor.callLater(0, self._end_drain_alone)

    def _drain_failed(self):
        self._end_drain_alone()
        if self.draining and not self.asked:
            self.draining = False
            self.runner.stop_ticking("drain")
            self.report.change("running", "cannot drain: the master did not answer")

    def _end_drain_alone(self):
        """Without its master a worker has no build left to finish, and nobody who would say so.

        Upstream's own check for that fails on a connection that was there once (DeadReferenceError).
        """
        alone = all(connection.state != "connected" for connection in self.connections)
        if self.draining and not self.asked and alone:
            self.asked = True
            self.runner.stop_ticking("drain")
            self._stop()

    def _show_drain(self):
        self.extend()
        count = self.busy()
        builds = "1 build is" if count == 1 else "%d builds are" % count
        # Between two steps of a build nothing runs here, though the build goes on.
        text = "%s running a step" % builds if count else "waiting for the master"
        self.report.change("stopping", "draining: " + text)

    def outcome(self):
        if self.asked or self.draining:
            return 0, "stopped", None
        lost = [connection for connection in self.connections if connection.state != "connected"]
        if lost:
            return AWAY, "gave up: " + lost[0].message, None
        return 0, "stopped from inside", None

    def on_signal(self, number):
        """HUP or USR1, which upstream's worker dies of with all its builds unless the tac says so."""
        name = signal.Signals(number).name
        if number == signal.SIGHUP and signal.getsignal(number) != self.runner.keep_signal:
            os.kill(os.getpid(), number)
            return
        self.journal.write(
            WARNING,
            "ignored %s: it would have ended this worker and its running builds\n"
            "hint: set allow_shutdown = 'signal' in %s to let SIGHUP drain it" % (name, os.path.abspath(TAC)),
        )


# --- The runner -----------------------------------------------------------------------------------


class Runner:
    """One start of one instance, from the command line to the exit status."""

    def __init__(self, options):
        self.options = options
        self.variables = take_environment()
        self.report = Report(options, self.variables)
        self.journal = Journal(options, self.variables.get("JOURNAL_STREAM"))
        self.minder = Minder()
        self.pending = set()  # HUP and USR1 that came too early
        self.ticks = {}  # name -> delayed call
        self.is_started = False
        self.role = None

    # Signals

    def keep_signal(self, number, _frame):
        """HUP and USR1 until Buildbot has its own handlers (a worker may never have)."""
        if self.is_started:
            self.role.on_signal(number)
        else:
            self.pending.add(number)

    def stop_at_once(self, _number, _frame):
        """TERM and INT during a start: no build runs yet, and a configuration may never return."""
        self.hard_exit(0, "stopped during the start")

    def stop_at_once_on_signals(self):
        signal.signal(signal.SIGTERM, self.stop_at_once)
        signal.signal(signal.SIGINT, self.stop_at_once)

    def take_signals(self):
        self.stop_at_once_on_signals()
        kept = (signal.SIGHUP, signal.SIGUSR1)
        for number in kept:
            signal.signal(number, self.keep_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, kept)  # a launcher may have held them back

    # The end

    def finish(self, code, reason, hint=None):
        """Tell everybody how this ended; returns the exit status."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if code:
            text = reason if hint is None else "%s\nhint: %s" % (reason, hint)
            self.journal.write(ERROR, text)
        self.report.change("failed" if code else "stopped", reason, exit_status=code)
        remove_pid_file()
        return code

    def hard_exit(self, code, reason, hint=None):
        """End this process now, from any thread."""
        self.finish(code, reason, hint)
        for stream in (sys.__stdout__, sys.__stderr__):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        self.real_exit(code)

    def guard_exit(self):
        """A configuration that calls os._exit() would end as if all were well."""
        self.real_exit = os._exit
        pid = os.getpid()

        def guarded(status):
            if os.getpid() == pid:
                frame = sys._getframe(1)
                entry = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
                if self.is_started and threading.current_thread() is not threading.main_thread():
                    raise SystemExit("os._exit(%s) was called" % status)  # where a master.cfg is read
                code = (status or UNEXPECTED) if self.is_started else CONFIGURATION
                self.hard_exit(code, "os._exit(%s) was called: %s" % (status, place(entry)))
            self.real_exit(status)

        os._exit = guarded

    def stopping(self):
        """Say so, and see to it that the stop comes to an end: some versions of Buildbot wait for
        ever for a worker that left at the wrong moment. Builds are not lost by an end like that."""
        self.start_is_over()
        self.report.change("stopping", "stopping", ["STOPPING=1"])
        self.minder.after("deadline", STOP_PATIENCE, self._stop_too_late)

    def _stop_too_late(self):
        _, _, text = diagnose_hang()
        self.journal.write(WARNING, "the stop took more than %d s, ending it at\n%s" % (STOP_PATIENCE, text))
        self.hard_exit(0, "stopped, though Buildbot did not come to its own end")

    def end_soon(self, seconds):
        """The start has failed: stop the reactor, and in `seconds` the process if that hangs."""
        from twisted.internet import reactor

        reactor.callFromThread(stop_reactor)
        self.minder.after("deadline", seconds, lambda: self.hard_exit(*self.role.outcome()))

    def too_late(self):
        code, why, text = diagnose_hang()
        reason = "the start did not come to an end within %g s: %s" % (self.options.start_timeout, why)
        self.journal.write(ERROR, "stack at that moment:\n" + text)
        self.hard_exit(code, reason)

    # Time

    def start_is_over(self):
        """No time limit for it any more."""
        self.minder.forget("deadline")
        signal.setitimer(signal.ITIMER_REAL, 0)

    def watch_start(self):
        seconds = self.options.start_timeout
        self.minder.start()
        if not 0 < seconds < 1e8:
            return
        # Time spent before this process, in activation scripts, is not the configuration's fault.
        self.report.notify("EXTEND_TIMEOUT_USEC=%d" % ((seconds + 10) * 1e6))
        self.minder.after("deadline", seconds, self.too_late)

    def tick(self, name, seconds, call):
        """Call now and every so many seconds, from the reactor, until `stop_ticking(name)`."""
        from twisted.internet import reactor

        self.stop_ticking(name)

        def again():
            self.ticks[name] = reactor.callLater(seconds, again)
            call()

        again()

    def stop_ticking(self, name):
        call = self.ticks.pop(name, None)
        if call is not None and call.active():
            call.cancel()

    def watchdog_seconds(self):
        """Half of what systemd allows, or None."""
        try:
            if int(self.variables.get("WATCHDOG_PID", self.report.pid)) != self.report.pid:
                return None
            return int(self.variables["WATCHDOG_USEC"]) / 2e6 or None
        except (KeyError, ValueError):
            return None

    def vouch(self, hangs):
        """During a reconfiguration, from the minder, for as long as a start may take."""
        seconds = min(self.watchdog_seconds() or 10, 10)

        def ping():
            self.report.notify("WATCHDOG=1", "EXTEND_TIMEOUT_USEC=%d" % (seconds * 3e6))

        def enough():
            self.stop_vouching()
            hangs()

        self.minder.after("vouch", 0, ping, every=seconds)
        self.minder.after("enough", self.options.start_timeout or 90, enough)

    def stop_vouching(self):
        self.minder.forget("vouch", "enough")

    def started(self, message):
        """The instance serves: tell systemd, then catch up on what waited."""
        from twisted.internet import reactor

        self.start_is_over()
        # Before READY: whoever waits for it may send TERM at once. An end that nobody asked for is
        # a failure, and this is how it is told from a stop.
        if signal.getsignal(signal.SIGTERM) == self.stop_at_once:  # Buildbot before 3.0 has no own
            signal.signal(signal.SIGTERM, lambda *_: reactor.callFromThread(stop_reactor))
        stop = signal.getsignal(signal.SIGTERM)

        def asked(*arguments):
            self.role.asked = True
            return stop(*arguments)

        signal.signal(signal.SIGTERM, asked)
        signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        self.is_started = True
        self.report.change("running", message, ["READY=1"])
        reactor.callLater(1, self.settle)
        seconds = self.watchdog_seconds()
        if seconds:
            self.tick("watchdog", seconds, lambda: self.report.notify("WATCHDOG=1"))
        for number in sorted(self.pending):
            reactor.callLater(0, self.role.on_signal, number)
        self.pending.clear()

    def settle(self):
        """Do what a start has put off, now that nobody waits for it: some 0.1 s."""
        import gc

        self.shortcuts.remove()
        self.shortcuts.complete(Shortcuts.MENTIONED)
        # What has survived until here stays, and need not be looked through again and again.
        gc.collect()
        gc.freeze()
        gc.enable()

    # The version that wrote the database

    def _version_file(self):
        directory = self.variables.get("STATE_DIRECTORY", "").split(":")[0]
        return os.path.join(directory, "last-version") if directory else None

    def remember_version(self):
        path, version = self._version_file(), self.report.status["buildbot"]
        if path and version and self.last_version() != version:
            try:
                replace_file(path, "%s.%d" % (path, self.report.pid), version + "\n")
            except OSError as error:
                self.journal.write(WARNING, "cannot write `%s`: %s" % (path, error.strerror))

    def last_version(self):
        try:
            with open(self._version_file() or os.devnull, encoding="ascii") as file:
                return file.read(64).strip() or None
        except (OSError, ValueError):
            return None

    # An older database

    def upgrade_is_unfinished(self):
        """Whether the database may be in pieces: nothing may touch it before it is whole again."""
        directory = self.variables.get("STATE_DIRECTORY", "").split(":")[0]
        if self.options.role != "master" or not directory:
            return False
        return os.path.lexists(os.path.join(directory, UPGRADE_MARK))

    def older_schema(self, code, reason, hint):
        """With `--upgrade auto`, do not end but become the command that upgrades the database."""
        if self.variables.get(PREPARED):
            return code, "%s, even after an upgrade" % reason, hint
        if self.options.upgrade == "auto" and "STATE_DIRECTORY" in self.variables and self.lock is not None:
            self.journal.write(NOTICE, reason)
            why = self.prepare()
            return code, "%s; %s" % (reason, why), hint
        return code, reason, hint

    def become_whole(self):
        """Become the command that brings an interrupted upgrade to its end, or refuse to start."""
        path = os.path.join(self.variables["STATE_DIRECTORY"].split(":")[0], UPGRADE_MARK)
        reason = "`%s`: an upgrade of the database was interrupted" % path
        if self.lock is None:
            why = "there is no lock"
        elif self.variables.get(PREPARED):
            why = "and could not be brought to its end"
        else:
            self.journal.write(NOTICE, reason)
            why = self.prepare()
        raise Refusal(SCHEMA, "%s; %s" % (reason, why))

    def prepare(self):
        """Become `buildbot-conda service prepare`, which upgrades the database and then starts this
        instance anew: the same process and lock all along. Returns only why that failed."""
        command = [CLI]
        if self.options.root:
            command = [os.path.join(self.options.root, CLI[1:]), "--root", self.options.root]
        command += ["service", "prepare", self.options.reference]
        environment = dict(os.environ)
        environment.update(self.variables)
        environment.pop(PREPARED, None)
        environment[HANDED_LOCK] = str(self.lock)
        signal.setitimer(signal.ITIMER_REAL, 0)  # it would outlive the exec
        remove_pid_file()  # upstream's own upgrade would take us for a running master
        # They stay pending until the runner that follows has handlers for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1))
        try:
            os.set_inheritable(self.lock, True)
            os.execve(command[0], command, environment)
        except OSError as error:
            os.set_inheritable(self.lock, False)
            return "cannot run `%s`: %s" % (command[0], error.strerror)

    # Running

    def run(self):
        import faulthandler
        import gc

        self.guard_exit()
        self.take_signals()
        self.report.change()
        self.watch_start()
        # Collecting garbage while everything is being imported finds nothing and takes its time.
        gc.disable()
        try:
            faulthandler.enable()  # a crash, or the watchdog's SIGABRT, then says where
            if 0 < self.options.start_timeout < 1e8:
                # Code that never lets another thread run escapes the minder, not this: the kernel
                # ends the process, after the stacks were printed, and the units do not restart it.
                signal.setitimer(signal.ITIMER_REAL, self.options.start_timeout + 5)
                faulthandler.register(signal.SIGALRM, chain=True)
        except (AttributeError, OSError, ValueError, RuntimeError):
            pass  # no usable stderr
        try:
            os.chdir(self.options.directory)
        except OSError as error:
            raise Refusal(CONFIGURATION, "`%s`: %s" % (self.options.directory, error.strerror))
        self.lock = take_lock(self.journal, self.variables.get(HANDED_LOCK))
        if self.upgrade_is_unfinished():
            self.become_whole()
        write_pid_file(self.journal)
        sys.path.insert(0, os.getcwd())
        # Some tac files and plugins look at how twistd was called.
        sys.argv = ["twistd", "--no_save", "--nodaemon", "--logfile=twistd.log", "--python=" + TAC, "--pidfile="]
        self.report.change(message="starting: reading " + TAC)
        application = self.load()
        return self.serve(application)

    def load(self):
        """Run the tac; returns its application."""
        kind = Master if self.options.role == "master" else Worker
        self.shortcuts = Shortcuts(self.options.role)
        try:
            from twisted.application import service

            self.role = kind(self)
            application = service.loadApplication(TAC, "python")
        except BaseException as error:
            raise self.tac_refusal(error)
        finally:
            self.shortcuts.tac_is_read()
            if sys.stdout is not None:
                try:
                    sys.stdout.flush()
                except (OSError, ValueError):
                    pass
        services = [service.IService(application)]
        for parent in services:
            services.extend(getattr(parent, "services", ()))
        if not self.role.find(services):
            raise Refusal(
                CONFIGURATION,
                "`%s` makes no Buildbot %s" % (os.path.abspath(TAC), self.options.role),
            )
        if self.options.role == "worker":  # the tac has read its password; builds need not know where
            os.environ.pop("CREDENTIALS_DIRECTORY", None)
        self.report.status["buildbot"] = getattr(sys.modules.get(self.role.package), "version", None)
        self.role.attach()
        return application

    def tac_refusal(self, error):
        """What an exception from reading the tac means."""
        path = os.path.abspath(TAC)
        if isinstance(error, FileNotFoundError) and error.filename == TAC:
            return Refusal(CONFIGURATION, "`%s` is missing" % path)
        if isinstance(error, ImportError) and error.name and error.name.partition(".")[0] in (
            "twisted",
            "zope",
            "buildbot",
            "buildbot_worker",
        ):
            name = getattr(self.role, "distribution", "buildbot")
            if error.name.partition(".")[0] == "buildbot":
                name = "buildbot"
            hint = "install `%s` into `%s`, or choose another environment" % (name, sys.prefix)
            return Refusal(CONFIGURATION, "`%s`: %s%s" % (path, error, error_place(error)), hint)
        if isinstance(error, KeyError) and error.args == ("application",):
            return Refusal(CONFIGURATION, "`%s` does not define `application`" % path)
        import traceback

        self.journal.write(ERROR, "".join(traceback.format_exception(type(error), error, error.__traceback__)))
        away = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)
        code = AWAY if isinstance(error, OSError) and error.errno in away else CONFIGURATION
        return Refusal(code, "`%s`: %s%s" % (path, error_text(error), error_place(error)))

    def serve(self, application):
        """Start the application's services and run the reactor to its end."""
        from twisted import logger
        from twisted.application import service
        from twisted.internet import reactor

        observers = [Observer(self.journal, self.role.watch)]
        if self.options.log == "both":
            try:
                observers += observers_of(application, self.journal)
            except OSError as error:
                self.journal.write(WARNING, "cannot write `twistd.log`: %s" % error.strerror)
        logger.globalLogBeginner.beginLoggingTo(observers)
        # First in the queue: the reactor's own handlers are in place, Buildbot's are not.
        reactor.callWhenRunning(self.role.reactor_started)
        root = service.IService(application)
        try:
            root.privilegedStartService()
            root.startService()
        except Exception as error:
            import traceback

            self.journal.write(ERROR, traceback.format_exc())
            raise Refusal(exit_status(error), error_text(error) + error_place(error))
        reactor.addSystemEventTrigger("before", "shutdown", root.stopService)
        reactor.run()
        self.stop_vouching()
        # Threads of the configuration may keep the interpreter from ending.
        code, reason, hint = self.role.outcome()
        self.finish(code, reason, hint)
        self.minder.after("deadline", 10, lambda: self.real_exit(code))
        return code


def main(arguments):
    """Run an instance; returns the exit status."""
    try:
        runner = Runner(Options(arguments))
    except Refusal as refusal:
        sys.stderr.write("error: %s\n" % refusal.reason)
        return refusal.code
    try:
        return runner.run()
    except Refusal as refusal:
        runner.hard_exit(refusal.code, refusal.reason, refusal.hint)
    except BaseException as error:
        import traceback

        runner.journal.write(CRITICAL, "the runner failed\n" + traceback.format_exc())
        runner.hard_exit(UNEXPECTED, "the runner failed: %s" % error_text(error))


if __name__ == "__main__":
    # Beside this file are other programs of ours, nothing to import from.
    if sys.path and os.path.realpath(sys.path[0] or ".") == os.path.dirname(os.path.realpath(__file__)):
        del sys.path[0]
    sys.exit(main(sys.argv[1:]))
