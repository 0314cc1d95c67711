"""A master whose name another serves by: it waits, and serves when that one does not any more."""

from twisted.internet import defer, threads
from twisted.internet.task import deferLater

from .reasons import error_text

# Seconds between two attempts.
AGAIN = 1


@defer.inlineCallbacks
def wait(role, serving, reason):
    """Until `serving` has the locks of a Master; `reason` is why it does not have them yet."""
    from twisted.internet import reactor

    said = None
    while reason:
        if reason != said:
            role.stand_by("standby: " + reason)
            said = reason
        yield deferLater(reactor, AGAIN, lambda: None)
        try:
            reason = yield threads.deferToThread(serving.take)
        except Exception as error:
            reason = "the database is unavailable: %s" % error_text(error)
    role.take_over("starting: `%s` is no longer in use" % serving.name)
    yield threads.deferToThread(serving.engine.dispose)  # its connections are as old as the wait was long
    # Whoever served meanwhile may have had a newer Buildbot.
    if not (yield role.master.db.model.is_current()):
        from buildbot.db.exceptions import DatabaseNotReadyError

        raise DatabaseNotReadyError
