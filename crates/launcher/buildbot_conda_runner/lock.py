"""One process for one directory: our lock, and `twistd.pid` for upstream's own tools."""

import errno
import os
import stat
import time

from .arguments import Refusal
from .names import AWAY, CONFIGURATION, LOCK, PID_FILE, WARNING
from .report import replace_file


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

    The lock is flock(2) on `.buildbot-conda.lock`, which contains the PID for the error message of other processes. If
    the file cannot be created, the directory itself is locked; if the file system does not support locks (some NFS),
    the start continues without one. Children created by a plain fork do not keep it.
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
    if is_for_others(os.fstat(fd)):
        fd = replace_lock(fd)
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


def is_for_others(status):
    """Whether another account can open a lock file; whoever can open it can hold its lock."""
    return stat.S_ISREG(status.st_mode) and (status.st_mode & 0o077 or status.st_uid != os.geteuid())


def replace_lock(fd):
    """Replace a lock file that others can open by a new one, so that their locks have no effect. The new file is locked
    before it gets its name, so only one of several processes that do this is the first."""
    import fcntl

    new = LOCK + ".new"
    try:
        other = os.open(new, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError:
        return fd  # no file can be made here: the one that there is has to do
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_for_others(os.fstat(other)) and is_for_others(os.lstat(LOCK)):
            os.rename(new, LOCK)
            os.close(fd)
            return other
        os.unlink(new)
    except OSError:
        pass  # another process is at it, and has the lock
    os.close(other)
    try:
        other = os.open(LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return fd
    os.close(fd)
    return other


def close_quietly(fd):
    try:
        os.close(fd)
    except OSError:
        pass


def foreign_buildbot():
    """PID of a Buildbot that was started in the current directory in another way, or None.

    `twistd.pid` is only trusted if that process is older than the file, is a Buildbot and, as far as this is visible,
    runs in this directory, because process ids are reused.
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
            "`%s` is already in use by PID %d (from `%s`)" % (os.getcwd(), pid, PID_FILE),
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
