"""Responses of a master's REST API, written only by the reactor.

Buildbot 4 encodes them in a thread and writes them from there (buildbot.www.rest, `V2RootResource._write_json_data`),
which transports of Twisted do not support: sometimes the reactor misses the body, and the client waits forever.
"""

import sys

# Bytes that are handed over at once.
PART = 1 << 16


class Answer:
    """A request as a thread sees it: what it writes goes to the reactor, in order."""

    def __init__(self, request):
        self.request = request
        self.parts, self.length = [], 0

    def __getattr__(self, name):
        return getattr(self.request, name)

    def write(self, data):
        self.parts.append(data)
        self.length += len(data)
        if self.length >= PART:
            self.flush()

    def flush(self):
        from twisted.internet import reactor

        data = b"".join(self.parts)
        self.parts, self.length = [], 0
        if data:
            reactor.callFromThread(self._write, data)

    def _write(self, data):
        if not self.request.finished and self.request.channel is not None:  # somebody still listens
            self.request.write(data)


def mend():
    """Once the master's web server has been loaded; again after that, nothing happens."""
    resource = getattr(sys.modules.get("buildbot.www.rest"), "V2RootResource", None)
    write = getattr(resource, "_write_json_data", None)
    if write is None or hasattr(write, "mended"):
        return

    def write_by_reactor(request, encoder, data):
        answer = Answer(request)
        write(answer, encoder, data)
        answer.flush()

    write_by_reactor.mended = True
    resource._write_json_data = staticmethod(write_by_reactor)
