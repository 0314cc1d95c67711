"""What master and worker share, and how their methods are listened to."""


def wrap(owner, name, before=None, failed=None):
    """Call `before()` ahead of a method of an object, and `failed(error)` when it fails.

    `failed` may return a Deferred, which is waited for. Absent methods are left alone: an older or
    newer Buildbot then merely gives less precise reasons.
    """
    original = getattr(owner, name, None)
    if original is None:
        return

    def on_failure(failure):
        from twisted.internet import defer

        waiting = failed(failure.value)
        if isinstance(waiting, defer.Deferred):
            return waiting.addBoth(lambda _: failure)
        return failure

    def wrapped(*args, **kwargs):
        if before is not None:
            before()
        try:
            result = original(*args, **kwargs)
        except BaseException as error:
            if failed is not None:
                failed(error)
            raise
        if failed is not None and hasattr(result, "addErrback"):
            result.addErrback(on_failure)
        return result

    setattr(owner, name, wrapped)


def stop_reactor():
    """Stop the reactor unless it is stopping already."""
    from twisted.internet import error, reactor

    try:
        reactor.stop()
    except error.ReactorNotRunning:
        pass


def tolerate_second_stop():
    """Allow stopping a reactor that is already stopping.

    The clean shutdown of a master and its handler of TERM both stop the reactor; the second stop would fail with a
    traceback in the log.
    """
    from twisted.internet import error, reactor

    original = reactor.stop

    def stop():
        try:
            return original()
        except error.ReactorNotRunning:
            return None

    reactor.stop = stop


class Role:
    """What master and worker share; `service` is the Runner that owns this."""

    def __init__(self, runner):
        self.runner, self.report, self.journal = runner, runner.report, runner.journal
        self.asked = False  # somebody wanted this process to stop
        self.awaited = None  # what a start waits for that is not here

    def settled(self):
        """A second after the start, when nothing waits for it."""

    def extend(self):
        """Extend systemd's stop time-out while builds finish; True as long as this continues."""
        self.report.notify("EXTEND_TIMEOUT_USEC=30000000")
