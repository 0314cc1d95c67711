"""Values of a serving master for monitoring: its queue, builds and workers, its database, and the delay of its event
loop. They are `load` in `status.json` and updated every half minute.

Everything is counted in memory except for the queue, which is a single query that uses indexes. If the database does
not answer, this is recorded, and nothing waits for it.
"""

import os
import time

from .names import WARNING
from .reasons import error_text

# Seconds between two looks at the clock, and how many of them there are from one note to the next.
BEAT, BEATS = 1, 30
# How many workers are named; a status file has its limits.
MOST = 1000

PENDING = (
    "SELECT count(*), min(submitted_at) FROM buildrequests WHERE complete = 0 AND NOT EXISTS "
    "(SELECT 1 FROM buildrequest_claims WHERE buildrequest_claims.brid = buildrequests.id)"
)
SIZE_OF_POSTGRESQL = "SELECT pg_database_size(current_database())"


class Gauges:
    """The values of one master; `role` is its Master, and `ask` its database's `do`; nothing waits for the answer."""

    def __init__(self, role, ask):
        self.role, self.master, self.ask = role, role.master, ask
        self.lag, self.last_beat, self.left = 0.0, None, 1
        self.builds = {}  # running build -> when it was first seen
        self.is_asking = False
        role.runner.tick("gauges", BEAT, self.beat)

    def beat(self):
        now = time.monotonic()
        if self.last_beat is not None:
            self.lag = max(self.lag, now - self.last_beat - BEAT)
        self.last_beat, self.left = now, self.left - 1
        if self.left > 0:
            return
        self.left = BEATS
        if self.is_asking:  # still
            self.note(None)
            return
        self.is_asking = True
        self.ask(self.query).addCallbacks(self.answered, lambda _: self.answered(None))

    def answered(self, database):
        self.is_asking = False
        if self.role.state in ("running", "draining"):
            self.note(database)

    def note(self, database):
        try:
            self.write(database)
        except Exception as error:  # another Buildbot than we know, of which one line is enough
            self.role.runner.stop_ticking("gauges")
            self.role.journal.write(WARNING, "the load of the master is no longer recorded: %s" % error_text(error))

    def query(self, connection):
        """In a thread: what only the database knows."""
        from sqlalchemy import text

        begun = time.monotonic()
        pending, oldest = connection.execute(text(PENDING)).fetchone()
        seconds = time.monotonic() - begun
        engine = connection.engine
        size = None
        if engine.dialect.name == "sqlite" and engine.url.database:
            try:
                size = os.stat(engine.url.database).st_size
            except OSError:
                pass
        elif engine.dialect.name == "postgresql":
            size = connection.execute(text(SIZE_OF_POSTGRESQL)).scalar()
        return {"requests": int(pending), "oldest_request": oldest, "answered_in": round(seconds, 6), "size": size}

    def write(self, database):
        """All of it; `database` is what `query` gave, or None."""
        now = time.time()
        builders = self.master.botmaster.builders.values()
        running = [build for builder in builders for build in builder.building]
        self.builds = {build: self.builds.get(build, now) for build in running}
        load = {
            "at": now,
            "lag": round(self.lag, 3),
            "builds": len(running),
            "oldest_build": min(self.builds.values(), default=None),
            "workers": self.workers(),
            "backup": newest_backup(self.role.runner.database.directories()),
            "database": database,
        }
        self.lag = 0.0
        self.role.report.change(load=load)

    def workers(self):
        """The state of each worker, except those inside the master."""
        workers = self.master.workers.workers.items()
        shown = sorted((name, worker) for name, worker in workers if not name.startswith("__"))
        return {name: state_of(worker) for name, worker in shown[:MOST]}


def state_of(worker):
    if worker.conn is None:
        # A latent worker: it is started when there is something to build, and is not missing until then.
        return "latent" if hasattr(worker, "build_wait_timeout") else "missing"
    if getattr(worker, "_graceful", False):
        return "draining"
    return "paused" if getattr(worker, "_paused", False) else "connected"


def newest_backup(directories):
    """When the newest backup of the database was written, or None."""
    found = []
    for directory in directories[:1] + [os.path.join(former, "backups") for former in directories[1:]]:
        try:
            found += [(name, os.path.join(directory, name)) for name in os.listdir(directory) if name[:1].isdigit()]
        except OSError:
            pass
    try:
        return os.stat(max(found)[1]).st_mtime
    except (OSError, ValueError):
        return None
