"""Fixes cases in which a master does not know that a worker is connected.

A worker that leaves while it is being attached, as in a quick restart, leaves its master in the belief that it is
connected, because Twisted reports the end of a connection to nobody if it happens during the login (twisted.spread.pb,
`_cbLogin`). Buildbot then refuses the next connection, but reports this only in its log (buildbot.worker.base,
`Worker.attached`), like any other failed attachment. The worker believes that it is connected, and gets no builds until
one of the two is restarted.
"""


def mend(note):
    """Let a login end with its connection, and a connection with its attachment; `note(name)` is called for each worker
    that is attached."""
    from buildbot.worker import base
    from twisted.spread import pb

    replace(base, "AbstractWorker", "attached", lambda attached: attach(base.Worker, attached, note))
    replace(pb, "_JellyableAvatarMixin", "_cbLogin", lambda log_in: log_in_if_connected(pb.Error, log_in))


def replace(module, name, method, change):
    """Change a method of a class; another version may have neither."""
    kind = getattr(module, name, None)
    original = getattr(kind, method, None)
    if original is not None:
        setattr(kind, method, change(original))


def attach(kind, attached, note):
    """`AbstractWorker.attached`, which cleans up after a failure.

    Latent workers, which are not of that `kind`, clean up themselves.
    """

    def changed(self, connection):
        result = attached(self, connection)
        if hasattr(result, "addCallback"):
            result.addCallback(lambda value: note(self.workername) or value)
            if isinstance(self, kind):
                result.addErrback(close, connection)
        return result

    return changed


def log_in_if_connected(error, log_in):
    """`_cbLogin` for a connection that may already have ended when it forgets its callbacks."""

    def changed(self, result):
        if getattr(self.broker, "disconnects", ()) is None:
            _, _, log_out = result
            log_out()
            raise error("the connection was lost during the login")
        return log_in(self, result)

    return changed


def close(failure, connection):
    """End a connection of no use: its worker comes again."""
    try:
        connection.loseConnection()
    except AttributeError:
        pass  # it has ended
    return failure
