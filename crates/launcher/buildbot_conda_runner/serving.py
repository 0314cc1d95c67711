"""Decides which master serves from a PostgreSQL database, with locks that the server keeps as long as a connection
exists.

Buildbot itself allows two masters with the same name to serve at the same time, and a newer one to upgrade the schema
while another one serves: both lose builds. With this module, a serving master holds an exclusive lock on its name, and
a shared one on the schema. It checks the connection continuously and before each query: a master that has lost its lock
to another one exits before it writes.
"""

import os
import select
import threading
import time
import zlib

from .holders import SCHEMA, SPACE, holders
from .names import AWAY, WARNING
from .reasons import error_text

# Seconds between two checks of the connection, between two attempts to open another one, and for which a check is valid
# for queries.
CHECK_EVERY, AGAIN, FRESH = 5, 1, 1

# If a host vanishes, the server is not informed: it sends a probe after 5 s, and drops the connection with its locks
# after 20. The last option, which PostgreSQL has from version 12 on, covers an answer that was being sent: nothing else
# is probed meanwhile.
SETTINGS = ("tcp_keepalives_idle = 5", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3", "tcp_user_timeout = 20000")
TIMEOUT_SINCE = 120000


def number(name):
    """The second number of the lock of a master's name; never that of the schema."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF or 1


def is_possible(engine):
    return engine.dialect.driver in ("psycopg", "psycopg2")


def others(connection):
    """Who serves from the database of a connection of SQLAlchemy's, in words, or nothing."""
    return holders(connection.connection.cursor(), SCHEMA) if is_possible(connection.engine) else ""


def begin(role):
    """Take the locks for a Master; a Deferred. If another master has them, it fails, or waits with the key `name`."""
    from twisted.internet import defer, threads

    master, engine = role.master, role.master.db.pool.engine
    if not is_possible(engine):
        return defer.succeed(None)
    whose = "%s on %s" % (role.runner.options.reference, os.uname().nodename)
    serving = Serving(role.runner, engine, master.name, whose)

    def tried(reason):
        if not reason:
            return None
        if role.runner.options.name:
            from . import standby

            return standby.wait(role, serving, reason)
        role.away = reason
        raise RuntimeError(reason)

    def taken(_):
        if serving.is_possible:
            role.serving = serving
            serving.watch()
        else:
            text = "the database is behind a connection pooler: a second master that uses it cannot be detected"
            role.journal.write(WARNING, text)

    return threads.deferToThread(serving.take).addCallback(tried).addCallback(taken)


def is_served(connection, name):
    """Whether a master serves under a name; if not, none starts to before the end of the transaction."""
    if not is_possible(connection.engine):
        return False
    cursor = connection.connection.cursor()
    cursor.execute("select pg_try_advisory_xact_lock(%s, %s)", (SPACE, number(name)))
    return not cursor.fetchone()[0]


class Serving:
    """The locks of one master, named `name` in the database; `whose` is shown to others."""

    def __init__(self, runner, engine, name, whose):
        self.runner, self.engine, self.name, self.whose = runner, engine, name, whose
        self.mutex = threading.RLock()
        self.connection = None
        self.waiting = None  # a connection that has no locks yet
        self.checked = -FRESH  # when the locks were last seen to be there
        # Behind a connection pooler, a lock outlives the process that took it.
        self.is_possible = True

    def _connect(self):
        """A connection that queries do not share; those that wait in the pool may be as dead as the last one."""
        while True:
            may_be_old = getattr(self.engine.pool, "checkedin", int)() > 0
            pooled = self.engine.raw_connection()
            pooled.detach()
            connection = getattr(pooled, "dbapi_connection", None) or pooled.connection
            connection.autocommit = True
            cursor = connection.cursor()
            try:
                cursor.execute("select pg_backend_pid()")
                break
            except Exception:
                if not may_be_old:
                    raise
        if cursor.fetchone()[0] != connection.info.backend_pid:
            self.is_possible = False
        cursor.execute("select set_config('application_name', %s, false)", (self.whose,))
        for setting in SETTINGS if connection.info.server_version >= TIMEOUT_SINCE else SETTINGS[:-1]:
            cursor.execute("set " + setting)
        return connection

    def take(self):
        """Why serving is not possible, or None; raises errors of the database."""
        connection, self.waiting = self.waiting or self._connect(), None
        if not self.is_possible:
            connection.close()
            return None
        cursor = connection.cursor()
        mine = number(self.name)
        # The schema comes last: a master that waits for a name must not block an upgrade.
        for function, lock, text in (
            ("pg_try_advisory_lock", mine, "`%s` is used by %%s" % self.name),
            ("pg_try_advisory_lock_shared", SCHEMA, "the database is being upgraded by %s"),
        ):
            cursor.execute("select %s(%%s, %%s)" % function, (SPACE, lock))
            if not cursor.fetchone()[0]:
                reason = text % (holders(cursor, lock) or "somebody")
                cursor.execute("select pg_advisory_unlock_all()")
                self.waiting = connection
                return reason
        self.connection, self.checked = connection, now()
        return None

    def watch(self):
        from sqlalchemy import event

        event.listen(self.engine, "connect", self._connected)
        event.listen(self.engine, "engine_connect", self._asked)
        threading.Thread(target=self._watch, name="serving", daemon=True).start()

    def _watch(self):
        while True:
            connection = self.connection
            if connection is None:
                time.sleep(AGAIN)
            else:
                try:
                    select.select([connection.fileno()], [], [], CHECK_EVERY)  # it is readable when it ends, too
                except Exception:  # closed meanwhile
                    time.sleep(AGAIN)
            try:
                self.ensure()
            except Exception:  # the database is unavailable; queries wait for it, and ask here first
                pass

    def _connected(self, *_):
        """A new connection may follow an outage of the database."""
        self.checked = -FRESH

    def _asked(self, _connection, *_):
        """Ahead of a query."""
        if now() - self.checked < FRESH:
            return
        try:
            self.ensure()
        except Exception as error:
            from sqlalchemy.exc import DBAPIError, OperationalError

            if isinstance(error, DBAPIError):
                raise
            raise OperationalError("select 1", None, error) from error

    def ensure(self):
        """Make sure that the locks are held, or take them again; exits if another master has them. Raises errors of the
        database."""
        with self.mutex:
            if self.connection is not None:
                begun = now()
                try:
                    cursor = self.connection.cursor()
                    cursor.execute("select 1")
                    cursor.fetchone()
                    self.checked = begun
                    return
                except Exception as error:
                    self.runner.journal.write(WARNING, "lost the lock of the database: %s" % error_text(error))
                    self.connection = None
            reason = self.take()
            if reason:
                self.runner.hard_exit(AWAY, reason)


def now():
    """Seconds, also those for which the host was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
