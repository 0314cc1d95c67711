"""A database that is temporarily unavailable: Buildbot's queries wait for it, and the status line shows this.

Buildbot is supposed to retry for a day (buildbot.db.pool, `MAX_OPERATIONALERROR_TIME`), but it opens connections
outside of that loop, and considers only errors of MySQL and a locked SQLite temporary. Up to version 4.3, every other
query fails at once: steps that were writing hang forever, a failed heartbeat is not repeated, and the master appears to
be fine.
"""

import time

from twisted.internet import defer

from .names import ERROR, NOTICE
from .passing import is_outage
from .reasons import error_text

# Seconds between two looks at whether it is back.
CHECK_EVERY = 5
# How many queries may wait. Further ones fail, as they would without this module, and are retried by their callers.
MOST = 1000

# How soon a server that vanished is noticed, for libpq; seconds, but the last in milliseconds.
LIMITS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20000,
}


def limit_connections():
    """Have connections to PostgreSQL end within half a minute when the server has vanished."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    @event.listens_for(Engine, "do_connect")
    def connect(dialect, _record, _words, named):
        if dialect.driver in ("psycopg", "psycopg2"):
            for name, value in LIMITS.items():
                named.setdefault(name, value)


class Outage:
    """The queries of one master; `role` is its Master."""

    def __init__(self, role):
        self.role, self.pool = role, role.master.db.pool
        self.since, self.reason, self.is_checking = None, None, False
        self.waiting = []  # (Deferred, the failure for which it waits)
        self.ask = self.pool.do
        for name in ("do", "do_with_engine"):
            setattr(self.pool, name, self.patient(getattr(self.pool, name)))

    def patient(self, ask):
        def again(*words, **named):
            return ask(*words, **named).addErrback(self.wait, lambda: again(*words, **named))

        return again

    def wait(self, failure, again):
        """The answer of `again` once the database is back, where that is what failed."""
        if self.role.state not in ("running", "draining") or not is_outage(failure.value) or len(self.waiting) >= MOST:
            return failure
        waiting = defer.Deferred()
        self.waiting.append((waiting, failure))
        self.begin(failure.value)
        return waiting.addCallback(lambda _: again())

    def begin(self, error):
        self.reason = error_text(error)
        if self.since is None:
            self.since = time.time()
            self.role.journal.write(ERROR, "the database is unavailable, waiting for it: %s" % self.reason)
            self.role.runner.tick("database", CHECK_EVERY, self.check)
        self.show()

    def show(self):
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        self.role.report.change(message="the database has been unavailable since %s, builds are waiting: %s" % (since, self.reason))

    def check(self):
        def checked(_):
            self.is_checking = False

        if not self.is_checking:
            self.is_checking = True
            asked = self.ask(self.probe).addCallbacks(lambda _: self.end(), lambda failure: self.still(failure.value))
            asked.addBoth(checked)

    def probe(self, connection):
        """What the heartbeat does, too: a standby and a full disk still answer who only reads."""
        if self.role.serving is not None:
            self.role.serving.ensure()
        table = self.role.master.db.model.masters
        with connection.begin():
            beat = table.update().where(table.c.id == self.role.master.masterid)
            connection.execute(beat.values(last_active=int(time.time())))

    def still(self, error):
        if self.since is not None:
            self.reason = error_text(error)
            self.show()

    def end(self):
        if self.since is None:
            return
        seconds, self.since = time.time() - self.since, None
        self.role.runner.stop_ticking("database")
        self.role.journal.write(NOTICE, "the database is available again after %d s" % seconds)
        self.role.show_serving()
        waiting, self.waiting = self.waiting, []
        for deferred, _ in waiting:
            deferred.callback(None)

    def give_up(self):
        """The master stops: nothing waits any more."""
        self.role.runner.stop_ticking("database")
        self.since, waiting, self.waiting = None, self.waiting, []
        for deferred, failure in waiting:
            deferred.errback(failure)
