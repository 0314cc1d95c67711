"""A worker, its connections to masters, and how it leaves without losing a build."""

import os
import signal
import sys
import time

from . import liveness
from .names import AWAY, LONGEST_RETRY, TAC, WARNING
from .role import Role, stop_reactor
from .text import one_line

# Seconds until a worker looks at its master's certificate again, at most, and where that has expired.
LOOK, EXPIRED_LOOK = 24 * 60 * 60, 60 * 60


class Connection:
    """The state of the connection of one Worker to its master."""

    def __init__(self, role, worker):
        self.role, self.worker = role, worker
        self.state, self.message, self.since = "connecting", "connecting", time.time()
        self.target, self.wait = "its master", None
        # Whether anything has answered at the master's address, be it what it may.
        self.was_reached = False
        self.refusal = None  # "login" or "tls", while the state is "refused"
        self.handshake = None  # of TLS, from the begin of an attempt
        self.endpoint = self.look = None  # where it connects, and what looks there for another certificate
        self.certificates = []  # for `status.json`
        self.is_logging_in = False
        # Whether an attempt is under way of which nothing is known yet.
        self.pending = True
        self.is_leaving = False  # one of several, in a drain

    def change(self, state, message, pending=False, refusal=None):
        if state != self.state:
            self.since = time.time()
        self.state, self.message, self.pending, self.refusal = state, message, pending, refusal
        self.role.show()

    def attempt(self, endpoint):
        self.endpoint, self.target = endpoint, endpoint_name(endpoint)
        target = self.target
        if self.state == "connected":
            self.change("lost", "lost the connection to %s, retrying" % target)
        elif self.message == "connecting":
            self.change("connecting", "connecting to %s" % target, pending=True)
        self._wait_for("no answer from %s for %%d s" % target)

    def reached(self, protocol):
        self.was_reached = self.is_logging_in = True
        self.handshake = None
        handle = protocol.transport.getHandle() if hasattr(protocol.transport, "getHandle") else None
        if type(handle).__module__.startswith("OpenSSL."):
            from .tls import Handshake

            self.handshake = Handshake(handle)
        lost = protocol.connectionLost

        def closed(reason):
            lost(reason)
            self.closed(reason.value, getattr(protocol, "wasNotCleanReason", None))

        protocol.connectionLost = closed
        if self.state != "refused":
            self.change(self.state, "logging in to %s" % self.target, pending=True)
            how = "without" if self.handshake is None else "with"
            text = "no answer to the login from %s for %%d s: is it a port for workers, %s TLS?"
            self._wait_for(text % (self.target, how))

    def closed(self, error, upgrade):
        """A connection has ended; `upgrade` is autobahn's reason why it did not become a websocket."""
        if not self.is_logging_in:
            return
        self._wait_for(None)
        reason = self.handshake and self.handshake.reason(self.target, error)
        if reason:
            if reason != self.message:
                self.role.journal.write(WARNING, reason)
            self._note_certificates(self.handshake)
            self.change("refused", reason, refusal="tls")
        elif "401" in str(upgrade):
            self._unauthorized()
        elif self.state != "refused":
            self.change("lost", "%s closed the connection during the login" % self.target)

    def failed(self, error):
        self._wait_for(None)
        text = str(error).strip().rstrip(".") or type(error).__name__
        if type(error).__name__ in ("TimeoutError", "TCPTimedOutError"):
            text = "no answer"
        state = "lost" if self.state in ("connected", "lost") else "connecting"
        self.change(state, "cannot reach %s, retrying: %s" % (self.target, text))

    def logged_in(self, perspective):
        self._wait_for(None)
        name = self.worker.name
        name = name.decode("utf-8", "replace") if isinstance(name, bytes) else name
        self._note_certificates(self.handshake)
        self.change("connected", "connected to %s as %s" % (self.target, name))
        if hasattr(perspective, "notifyOnDisconnect"):
            perspective.notifyOnDisconnect(lambda _: self.lost())

    def _note_certificates(self, handshake):
        """Remember when the certificates expire, and look again long before: they are renewed while connections last."""
        self.certificates = (handshake and handshake.certificates(self.target)) or self.certificates
        if not self.certificates:
            return
        from twisted.internet import reactor

        if self.look is not None and self.look.active():
            self.look.cancel()
        left = min(one["expires"] for one in self.certificates) - time.time()
        self.look = reactor.callLater(min(LOOK, left / 2 if left > 5 else EXPIRED_LOOK), self._look_again)

    def _look_again(self):
        from .tls import look

        def seen(handshake):
            self._note_certificates(handshake)
            self.role.show()

        self._note_certificates(None)  # in case that nobody answers
        if self.state == "connected":
            look(self.endpoint, seen)

    def lost(self):
        if self.state == "connected":
            self.change("lost", "lost the connection to %s, retrying" % self.target)

    def refused(self, failure):
        self._wait_for(None)
        kind = type(failure.value).__name__
        # Errors from the other side arrive under their full name.
        if "UnauthorizedLogin" in kind or "UnauthorizedLogin" in str(failure.type):
            self._unauthorized()
        elif "ConnectionLost" in kind or "ConnectionLost" in str(failure.type):
            self.change("lost", "%s closed the connection during the login" % self.target)
        else:
            self.change("refused", "rejected by %s: %s" % (self.target, failure.getErrorMessage()), refusal="login")

    def _unauthorized(self):
        text = "rejected by %s: unauthorized login; check worker name and password" % self.target
        self.change("refused", text, refusal="login")

    def _wait_for(self, text):
        """Report after some seconds that no answer came; None: the answer has arrived."""
        from twisted.internet import reactor

        if self.wait is not None and self.wait.active():
            self.wait.cancel()
        if text is None:
            self.wait, self.is_logging_in = None, False
            return
        begun = time.monotonic()

        def late():
            state = "lost" if self.state == "connected" else self.state
            self.change(state, text % (time.monotonic() - begun), refusal=self.refusal)
            self.wait = reactor.callLater(10, late)

        self.wait = reactor.callLater(5, late)


def endpoint_name(endpoint):
    """`HOST:PORT` of a client endpoint, or the path of its socket, as far as it can be known."""
    endpoint = getattr(endpoint, "_wrappedEndpoint", endpoint)
    path = getattr(endpoint, "_path", None)
    if path is not None:
        return os.fsdecode(path)
    host = getattr(endpoint, "_hostText", None) or getattr(endpoint, "_host", None)
    port = getattr(endpoint, "_port", None)
    if host is None or port is None:
        return "its master"
    host = host.decode("utf-8", "replace") if isinstance(host, bytes) else host
    return ("[%s]:%s" if ":" in host else "%s:%s") % (host, port)


class Worker(Role):
    """Follows the Workers of a tac (usually one) and their way to the master."""

    package, distribution = "buildbot_worker", "buildbot-worker"

    def __init__(self, runner):
        super().__init__(runner)
        self.connections = []
        self.ready = self.draining = False
        self._watch_endpoints()
        try:
            from OpenSSL import SSL
        except ImportError:  # also where the tac asks for no TLS
            return
        from .tls import observe

        observe(SSL)

    def _watch_endpoints(self):
        """Observe every attempt to connect: ClientService itself reports no reasons."""
        from twisted.application import internet
        from twisted.internet.interfaces import IStreamClientEndpoint
        from zope.interface import implementer

        role = self

        @implementer(IStreamClientEndpoint)
        class Watched:
            def __init__(self, endpoint, factory):
                self.endpoint, self.factory = endpoint, factory

            def __repr__(self):
                return repr(self.endpoint)

            def connect(self, proxy):
                connection = role.connection_of(self.factory)
                if connection is None:
                    return self.endpoint.connect(proxy)
                connection.attempt(self.endpoint)
                result = self.endpoint.connect(proxy)

                def reached(protocol):
                    connection.reached(protocol)
                    return protocol

                def failed(failure):
                    connection.failed(failure.value)
                    return failure

                return result.addCallbacks(reached, failed)

        original = internet.ClientService.__init__

        def start(self, endpoint, factory, retryPolicy=None, *args, **kwargs):
            policy = retryPolicy or internet.backoffPolicy()
            original(
                self,
                Watched(endpoint, factory),
                factory,
                lambda attempt: min(policy(attempt), LONGEST_RETRY),
                *args,
                **kwargs
            )

        internet.ClientService.__init__ = start

    def connection_of(self, factory):
        for connection in self.connections:
            if getattr(connection.worker, "bf", None) is factory:
                return connection
        return None

    def find(self, services):
        for service in services:
            kinds = type(service).__mro__
            if any(k.__module__.startswith("buildbot_worker") and k.__name__ == "Worker" for k in kinds):
                self.connections.append(Connection(self, service))
        return bool(self.connections)

    def attach(self):
        liveness.mend(sys.modules["twisted.spread.pb"].Broker)
        by_websocket = sys.modules.get("buildbot_worker.msgpack")
        if by_websocket is not None:
            liveness.mend(by_websocket.BuildbotWebSocketClientProtocol)
        for connection in self.connections:
            factory = getattr(connection.worker, "bf", None)
            self._hear(factory, "gotPerspective", connection.logged_in)
            self._hear(factory, "failedToGetPerspective", connection.refused)
            self._ask_again(connection.worker, factory)
            if len(self.connections) > 1:
                self._leave_alone(connection)

    def _leave_alone(self, connection):
        """Let one of several workers disconnect when its own builds are finished.

        Upstream's drain asks for only one of them, and ends the process as soon as that one may disconnect.
        """
        from twisted.internet import reactor

        worker, bot = connection.worker, getattr(connection.worker, "bot", None)
        graceful = getattr(worker, "gracefulShutdown", None)
        if graceful is None or not hasattr(bot, "remote_shutdown"):
            return

        def ask():
            connection.is_leaving = True
            if connection.state == "connected":
                return graceful()
            return worker.disownServiceParent()

        def may_go():
            connection.is_leaving = True
            self._drain()
            # The master hears that this was heard.
            reactor.callLater(0.2, worker.disownServiceParent)

        worker.gracefulShutdown, bot.remote_shutdown = ask, may_go

    @staticmethod
    def _ask_again(worker, factory):
        """Repeat a drain request that was made between two connections over the next one.

        Upstream sends the request over the previous, dead connection until the login over the next one is done
        (`gracefulShutdown` in buildbot_worker/pb.py): that raises, and the request would not be repeated.
        """
        graceful, login = getattr(worker, "gracefulShutdown", None), getattr(factory, "gotPerspective", None)
        if graceful is None or login is None:
            return
        from twisted.spread.pb import DeadReferenceError

        owed = []

        def ask(*_):
            del owed[:]
            try:
                return graceful()
            except DeadReferenceError:
                owed.append(True)

        def logged_in(perspective, *rest):
            result = login(perspective, *rest)
            if owed:
                ask()
            return result

        worker.gracefulShutdown = ask
        factory.gotPerspective = logged_in

    @staticmethod
    def _hear(owner, name, call):
        original = getattr(owner, name, None)
        if original is None:
            return

        def heard(first, *rest):
            call(first)
            return original(first, *rest)

        setattr(owner, name, heard)

    def reactor_started(self):
        from twisted.internet import reactor

        def stop(*_):
            self.asked = True
            self.report.withdraw_reload()
            reactor.callFromThread(self._stop)

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        self.ready = True
        self.show(start=True)

    def _stop(self):
        self.runner.stopping()
        stop_reactor()

    def allow_shutdown(self):
        return getattr(self.connections[0].worker, "allow_shutdown", None) or None

    def show(self, start=False):
        """Put the state of the connections on the status line."""
        if not self.ready:
            return
        order = ("refused", "lost", "connecting", "connected")
        worst = min(self.connections, key=lambda connection: order.index(connection.state))
        message = worst.message
        if len(self.connections) > 1:
            up = sum(connection.state == "connected" for connection in self.connections)
            message = "%d of %d workers connected; %s" % (up, len(self.connections), message)
        worker = {
            "connection": worst.state,
            "message": one_line(message),
            "since": worst.since,
            "pending": worst.pending,
            "reached": worst.was_reached,
            "refusal": worst.refusal,
            "allow_shutdown": self.allow_shutdown(),
        }
        certificates = []
        for connection in self.connections:
            certificates += [one for one in connection.certificates if one not in certificates]
        fields = {"worker": worker, "certificates": certificates}
        if start:
            self.report.change(**fields)
            self.runner.started(message)
        elif self.draining or self.asked:
            self.report.change(**fields)
            self._end_drain_alone()
        else:
            self.report.change(message=message, **fields)

    def watch(self, event, text):
        if text.startswith("Initiating shutdown because "):
            self._drain()
        elif text.startswith(("No active connection, shutting down", "worker shutting down on command")):
            self.asked = True
            self.runner.stop_ticking("drain")
            self.runner.stopping()
        elif text.startswith('callRemote("shutdown") failed') and self.draining:
            from twisted.internet import reactor

            # It also fails if the connection ends; then there is no master left to wait for.
            reactor.callLater(1, self._drain_failed)
        elif "message from master: attached" in text and len(self.connections) == 1:
            if self.connections[0].state != "connected":  # protocols without a perspective
                self.connections[0].logged_in(None)

    def busy(self):
        """How many commands of builds run at this moment."""
        count = 0
        for connection in self.connections:
            bot = getattr(connection.worker, "bot", None)
            count += len(getattr(bot, "protocol_commands", ()))
            for builder in getattr(bot, "builders", {}).values():
                count += bool(getattr(builder, "protocol_command", None) or getattr(builder, "command", None))
        return count

    def _drain(self):
        if not self.draining:
            from twisted.internet import reactor

            self.draining = True
            self.runner.tick("drain", 5, self._show_drain)
            # Called from within a signal handler of Buildbot's, which is not done yet.
            reactor.callLater(0, self._drain_all)

    def _drain_all(self):
        for connection in self.connections:
            if len(self.connections) > 1 and not connection.is_leaving:
                connection.worker.gracefulShutdown()
        self._end_drain_alone()

    def _drain_failed(self):
        self._end_drain_alone()
        if self.draining and not self.asked:
            self.draining = False
            self.runner.stop_ticking("drain")
            self.report.change("running", "cannot drain: the master did not answer")

    def _end_drain_alone(self):
        """Without its master, a worker has no builds to finish, and no master that would confirm this.

        Upstream's own check for this fails for a connection that has ended (DeadReferenceError).
        """
        alone = all(connection.state != "connected" for connection in self.connections)
        if self.draining and not self.asked and alone:
            self.asked = True
            self.runner.stop_ticking("drain")
            self._stop()

    def _show_drain(self):
        self.extend()
        count = self.busy()
        builds = "1 build is" if count == 1 else "%d builds are" % count
        # Between two steps of a build, nothing runs here, although the build continues.
        text = "%s running a step" % builds if count else "waiting for the master"
        self.report.change("stopping", "draining: " + text)

    def outcome(self):
        if self.asked or self.draining:
            return 0, "stopped", None
        lost = [connection for connection in self.connections if connection.state != "connected"]
        if lost:
            return AWAY, "gave up: " + lost[0].message, None
        return 0, "stopped by Buildbot itself", None

    def on_signal(self, number):
        """HUP or USR1, which terminate upstream's worker with all its builds unless the tac handles them."""
        name = signal.Signals(number).name
        if number == signal.SIGHUP and signal.getsignal(number) != self.runner.keep_signal:
            os.kill(os.getpid(), number)
            return
        self.journal.write(
            WARNING,
            "ignored %s: it would have stopped this worker and its running builds\n"
            "hint: set allow_shutdown = 'signal' in %s so that SIGHUP drains it" % (name, os.path.abspath(TAC)),
        )
