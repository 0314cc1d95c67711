"""The router of several masters (`c['mq']` of type `wamp`), without which a master silently does nothing.

Up to Buildbot 4.3, a start succeeds although the router does not answer, and every message waits forever. If the router
disconnects, the master stops its services, but the process keeps running (buildbot.wamp.connector, `onLeave`). With
this module, a start waits for the router, and if the router is unavailable, the process exits and systemd restarts it.
"""

import re

from autobahn.twisted.wamp import Service


class Router:
    """What is known of it; `role` is the Master whose start or end depends on it."""

    def __init__(self, role):
        self.role, self.wamp = role, role.master.wamp
        url = str(role.master.config.mq.get("router_url"))
        self.name = "the router at %s" % re.sub(r"//[^/@]*@", "//", url)
        class Factory(Service.factory):
            def clientConnectionFailed(factory, connector, reason):
                self.lost("does not answer: %s" % reason.getErrorMessage())

            def clientConnectionLost(factory, connector, reason):
                self.lost("closed the connection")

        class Watched(Service):
            factory = Factory

        self.wamp.serviceClass = Watched

    def is_there(self):
        return self.wamp.service is not None

    def when_there(self, call):
        self.role.awaited = self.name
        self.role.report.change(message="starting: waiting for %s" % self.name)
        self.wamp.getService().addCallback(lambda _: call())

    def lost(self, how):
        if self.role.asked:
            return
        self.role.away = self.role.away or "%s %s" % (self.name, how)
        self.role.lost_router()

    def watch(self, text):
        """Buildbot's message why the router has closed a session, which it may do without closing a connection."""
        found = re.search(r"CloseDetails\(reason=<?([^>,)]*)>?(?:, message=['\"]([^'\"]*))?", text)
        if found and found.group(1) == "wamp.close.transport_lost":
            self.lost("closed the connection")
        elif found:
            realm = self.role.master.config.mq.get("realm")
            self.lost("closed the session in the realm `%s`: %s" % (realm, found.group(2) or found.group(1)))
