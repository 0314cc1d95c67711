"""The audit trail: who has forced, stopped, rebuilt, cancelled or paused something through the pages or the API of a master.

Buildbot keeps the owner of a forced build alone. Each such request is a line of the journal that begins with `audit:`.
"""

from .names import NOTICE
from .text import one_line

# What a request is about, beside its path.
DETAILS = ("reason", "branch", "revision")


def attach(data, journal, builders):
    """Write down what is asked of `data`, the data API of a master; `builders` gives names by numbers."""
    endpoint_of = data.getEndpoint

    def found(path):
        endpoint, names = endpoint_of(path)
        return Audited(endpoint, path, journal, builders), names

    data.getEndpoint = found


class Audited:
    """An endpoint of the data API whose requests to change something are written down, with what came of them."""

    def __init__(self, endpoint, path, journal, builders):
        self.endpoint, self.path, self.journal, self.builders = endpoint, path, journal, builders

    def __getattr__(self, name):
        return getattr(self.endpoint, name)

    def control(self, action, args, kwargs):
        from twisted.internet import defer

        what = self._describe(action, args)
        done = defer.maybeDeferred(self.endpoint.control, action, args, kwargs)
        done.addCallbacks(self._accepted, self._refused, callbackArgs=(what,), errbackArgs=(what,))
        return done

    def _describe(self, action, args):
        text = "audit: `%s` on `%s`" % (action, "/".join(map(str, self.path)))
        number = str(args.get("builderid") or "")
        if number:
            text += " for the builder `%s`" % self.builders().get(number, number)
        text += " by `%s`" % (args.get("owner") or "unknown")
        details = ["%s `%s`" % (name, args[name]) for name in DETAILS if args.get(name)]
        return one_line(", ".join([text, *details]))

    def _accepted(self, result, what):
        self.journal.write(NOTICE, what)
        return result

    def _refused(self, failure, what):
        self.journal.write(NOTICE, one_line("%s: failed: %s" % (what, failure.getErrorMessage())))
        return failure


def builders_of(master):
    """Number -> name of the builders of a master."""
    builders = master.botmaster.builders.values()
    return {str(builder._builderid): builder.name for builder in builders if getattr(builder, "_builderid", None)}
