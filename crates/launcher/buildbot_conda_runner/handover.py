"""Becoming another program of the package in this process: systemd's main process stays the same, and so do its
lock and its place under systemd."""

import os
import signal
import sys

from .lock import remove_pid_file
from .names import HANDED_LOCK


def below(options, path):
    """The beginning of a command line: one of the package's programs, and the root directory in tests."""
    if options.root:
        return [os.path.join(options.root, path[1:]), "--root", options.root]
    return [path]


def become(runner, command, **variables):
    """Exec `command` with the environment that the launcher was given. Returns only why that failed."""
    environment = dict(runner.inherited)
    lock = runner.lock
    if lock is not None:
        variables[HANDED_LOCK] = str(lock)
    environment.update((name.encode(), value.encode()) for name, value in variables.items())
    signal.setitimer(signal.ITIMER_REAL, 0)  # it would outlive the exec
    remove_pid_file()  # upstream's own tools would take us for a running Buildbot
    # They stay pending until the runner that follows has handlers for them.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGHUP, signal.SIGUSR1))
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass
    os.umask(runner.umask)  # a tac may have chosen another one
    try:
        if lock is not None:
            os.set_inheritable(lock, True)
        os.execve(command[0], command, environment)
    except OSError as error:
        if lock is not None:
            os.set_inheritable(lock, False)
        return "cannot run `%s`: %s" % (command[0], error.strerror)
