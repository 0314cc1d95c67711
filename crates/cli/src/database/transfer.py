"""Copy a master's database to another one with Buildbot's own `copy-db`, and compare them.

Run by `python -c` as the service user, in the activated environment: DIRECTORY, and on standard input one JSON object
with the URLs of both, `source` and `destination`. One JSON object goes to stdout, whatever the configuration prints goes
to stderr.
"""

import sys

if sys.path and sys.path[0] == "":
    del sys.path[0]  # the current directory: modules of the master are not ours

import json
import os


def count(url, directory):
    """How many rows each table has."""
    import sqlalchemy
    from buildbot.db import enginestrategy, model

    found = {}
    with enginestrategy.create_engine(url, basedir=directory).connect() as connection:
        quote = connection.dialect.identifier_preparer.quote
        for name in sorted(model.Model.metadata.tables):
            query = sqlalchemy.text("select count(*) from %s" % quote(name))
            found[name] = connection.execute(query).scalar()
    return found


def end_at_the_first_failure(copydb):
    """Buildbot's copy waits for ever when a row cannot be written: for those that are read and not taken any more."""
    import queue
    import threading

    from buildbot.db import pool

    failed = threading.Event()

    class Rows(queue.Queue):
        def put(self, rows):
            while not failed.is_set():
                try:
                    return super().put(rows, timeout=1)
                except queue.Full:
                    pass
            raise RuntimeError("the rows are not wanted any more")

        def join(self):
            """Whoever calls this has waited for both ends."""

    class Module:
        Queue, Empty = Rows, queue.Empty

    do = pool.DBThreadPool.do

    def do_and_note(self, function, *args, **kwargs):
        def noted(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except BaseException:
                failed.set()
                raise

        return do(self, noted, *args, **kwargs)

    copydb.queue, pool.DBThreadPool.do = Module, do_and_note


def copy(directory, destination):
    """The reason why it failed, or None."""
    from buildbot.scripts import copydb
    from twisted.internet import defer, reactor
    from twisted.python.failure import Failure

    # It prints no URL then, which would have the password.
    config = {"basedir": directory, "destination_url": destination, "quiet": True, "ignore-fk-error-rows": False}
    end_at_the_first_failure(copydb)
    found = []

    def run():
        ended = defer.maybeDeferred(copydb.copy_database._orig, config)
        ended.addBoth(found.append)
        ended.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(run)
    reactor.run()
    if isinstance(found[0], Failure):
        error = found[0].value
        # SQLAlchemy's own text has the values of the rows behind it.
        text = str(getattr(error, "orig", None) or error).strip().splitlines()
        return "%s: %s" % (type(error).__name__, text[0] if text else "no reason given")
    return None if found[0] == 0 else "`buildbot copy-db` refuses it"


def transfer(directory, source, destination):
    reason = copy(directory, destination)
    if reason:
        return {"problem": reason}
    here, there = count(source, directory), count(destination, directory)
    for name, rows in here.items():
        if there[name] != rows:
            return {"problem": "table `%s` has %d rows, but its copy has %d" % (name, rows, there[name])}
    return {"tables": len(here), "rows": sum(here.values())}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        answer = transfer(sys.argv[1], request["source"], request["destination"])
    except Exception as error:
        text = str(getattr(error, "orig", None) or error).strip().splitlines()
        answer = {"problem": "%s: %s" % (type(error).__name__, text[0] if text else "no reason given")}
    answers.write(json.dumps(answer))
    answers.flush()
    sys.stderr.flush()
    os._exit(0)  # threads of the configuration would keep the interpreter from ending


main()
