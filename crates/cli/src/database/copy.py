"""Copy a SQLite database to a file of its own, whole even while it is being written to.

Run by `python -c` as the service user: SOURCE TARGET. `DONE TOTAL` lines (pages) on stdout tell how
far it is. Exit status 3: SOURCE is damaged, with what SQLite says on stderr; 1: something else.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]

import os
import sqlite3
import urllib.parse

source, target = sys.argv[1:3]
os.umask(0o077)


def damaged(reason):
    sys.stderr.write("%s\n" % reason)
    sys.exit(3)


def progress(_status, remaining, total):
    print(total - remaining, total, flush=True)


try:
    uri = "file:%s?mode=rw" % urllib.parse.quote(source)
    connection = sqlite3.connect(uri, uri=True, timeout=60, isolation_level=None)
    # With a snapshot of its own, the copy need not begin anew whenever a master writes.
    connection.execute("begin")
    connection.execute("select count(*) from sqlite_master").fetchone()
    copy = sqlite3.connect(target, isolation_level=None)
    connection.backup(copy, pages=2048, progress=progress)
    # One file, without the log beside it that the master's own journal mode would bring along.
    copy.execute("pragma journal_mode = delete").fetchone()
    # No master runs from a copy. Restored where the host has another name, Buildbot would take the one that was
    # running for alive, and leave it its schedulers for ten minutes (`expireMasters` in buildbot/data/masters.py).
    if copy.execute("select 1 from sqlite_master where type = 'table' and name = 'masters'").fetchone():
        copy.execute("update masters set last_active = 0")
    found = copy.execute("pragma integrity_check(3)").fetchall()
    copy.close()
    if found != [("ok",)]:
        damaged("; ".join(str(row[0]) for row in found))
except sqlite3.OperationalError as error:
    sys.stderr.write("%s\n" % error)
    sys.exit(1)
except sqlite3.DatabaseError as error:
    damaged(error)
