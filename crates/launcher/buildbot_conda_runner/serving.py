"""Who serves from a database of PostgreSQL: locks that its server keeps as long as a connection lives.

Buildbot itself lets two masters of one name serve at once, and a newer one upgrade the schema below one that serves: both
lose builds. Here a master that serves has its name for itself, and shares the schema with the others. It looks after the
connection all the time: one that has lost the lock to another ends before it writes.
"""

import os
import select
import threading
import time
import zlib

from .holders import SCHEMA, SPACE, holders
from .names import AWAY, WARNING
from .reasons import error_text

# Seconds between two looks at the connection, and between two attempts to have another.
LOOK, AGAIN = 5, 1

# Of a host that vanished the server hears nothing: it asks after 5 s, and forgets the connection, with its locks, after 20.
SETTINGS = ("tcp_keepalives_idle = 5", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 3")


def number(name):
    """The second number of the lock of a master's name; never that of the schema."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF or 1


def is_possible(engine):
    return engine.dialect.driver in ("psycopg", "psycopg2")


def others(connection):
    """Who serves from the database of a connection of SQLAlchemy's, in words, or nothing."""
    return holders(connection.connection.cursor(), SCHEMA) if is_possible(connection.engine) else ""


def begin(role):
    """Take the locks for a Master; a Deferred, which fails where another has them."""
    from twisted.internet import defer, threads

    master, engine = role.master, role.master.db.pool.engine
    if not is_possible(engine):
        return defer.succeed(None)
    whose = "%s on %s" % (role.runner.options.reference, os.uname().nodename)
    serving = Serving(role.runner, engine, master.name, whose)

    def taken(reason):
        if reason:
            role.away = reason
            raise RuntimeError(reason)
        if serving.is_possible:
            role.serving = serving
            serving.watch()
        else:
            text = "the database is behind a pooler of connections: nothing keeps a second master from serving from it"
            role.journal.write(WARNING, text)

    return threads.deferToThread(serving.take).addCallback(taken)


class Serving:
    """The locks of one master, named `name` in the database; `whose` is shown to others."""

    def __init__(self, runner, engine, name, whose):
        self.runner, self.engine, self.name, self.whose = runner, engine, name, whose
        self.mutex = threading.RLock()
        self.connection = None
        # Behind a pooler a lock outlives whoever took it.
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
                return connection, cursor
            except Exception:
                if not may_be_old:
                    raise

    def take(self):
        """Why there is no serving, or None; raises what the database does."""
        connection, cursor = self._connect()
        if cursor.fetchone()[0] != connection.info.backend_pid:
            self.is_possible = False
            connection.close()
            return None
        cursor.execute("select set_config('application_name', %s, false)", (self.whose,))
        for setting in SETTINGS:
            cursor.execute("set " + setting)
        for function, lock, text in (
            ("pg_try_advisory_lock_shared", SCHEMA, "the database is being upgraded by %s"),
            ("pg_try_advisory_lock", number(self.name), "the master `%s` is served by %%s" % self.name),
        ):
            cursor.execute("select %s(%%s, %%s)" % function, (SPACE, lock))
            if not cursor.fetchone()[0]:
                reason = text % (holders(cursor, lock) or "somebody")
                connection.close()
                return reason
        self.connection = connection
        return None

    def watch(self):
        threading.Thread(target=self._watch, name="serving", daemon=True).start()

    def _watch(self):
        while True:
            connection = self.connection
            if connection is None:
                time.sleep(AGAIN)
            else:
                try:
                    select.select([connection.fileno()], [], [], LOOK)  # it is readable when it ends, too
                except Exception:  # closed meanwhile
                    time.sleep(AGAIN)
            try:
                self.ensure()
            except Exception:  # the database is away; queries wait for it, and ask here first
                pass

    def ensure(self):
        """Have the locks still, or again; ends the process if another has them. Raises what the database does."""
        with self.mutex:
            if self.connection is not None:
                try:
                    cursor = self.connection.cursor()
                    cursor.execute("select 1")
                    cursor.fetchone()
                    return
                except Exception as error:
                    self.runner.journal.write(WARNING, "lost the lock of the database: %s" % error_text(error))
                    self.connection = None
            reason = self.take()
            if reason:
                self.runner.hard_exit(AWAY, reason)
