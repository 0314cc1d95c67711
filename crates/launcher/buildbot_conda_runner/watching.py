"""Deadlines, and the stacks of what hangs when one has passed. Everything works even if other code never returns."""

import os
import sys
import threading
import time

from .names import AWAY, CONFIGURATION, TAC


class Minder(threading.Thread):
    """A thread that watches one deadline, and feeds the watchdog during a reconfiguration.

    It only needs the interpreter to switch threads, so it works during an endless loop in a configuration, and while a
    long reconfiguration blocks the reactor.
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
    """Whether code belongs to the user: the tac, master.cfg, or a module next to them."""
    if file == TAC:
        return True
    try:
        directory = os.getcwd() + os.sep
    except OSError:  # it has been removed
        return False
    return file.startswith(directory) and not file.startswith(sys.prefix + os.sep)


# Where code waits for another host: the standard library, and what is called by those that do not use it.
NETWORK_FILES = ("socket.py", "ssl.py")
NETWORK_PACKAGES = ("urllib3", "httpcore", "psycopg", "psycopg2", "MySQLdb", "pymysql", "ldap", "ldap3")


def is_network(file):
    directory, name = os.path.split(file)
    return name in NETWORK_FILES or not set(NETWORK_PACKAGES).isdisjoint(directory.split(os.sep))


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
            if is_network(stack[-1][0]):
                code, why = AWAY, why + ", waiting for the network"
            break
    else:
        # Between its attempts Buildbot waits itself.
        names = ("sqlalchemy", os.path.join("buildbot", "db", ""))
        stack = next((s for s in found if any(n in e[0] for e in s for n in names)), None)
        if stack is not None:
            code, why = AWAY, "still waiting for the database"
        else:
            stack = found[0] if found else []
            code, why = AWAY, "still waiting, but the configuration is not running"
    text = "\n".join('  File "%s", line %d, in %s' % entry for entry in stack[-12:])
    return code, why, text
