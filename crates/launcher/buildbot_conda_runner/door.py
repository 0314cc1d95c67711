"""The second port of a master (its *door*): accepts workers of other hosts over TLS.

Buildbot listens on one port of this kind (`c["protocols"]["pb"]`), which is a socket of its own host where
`buildbot-conda create master` has made the configuration. `network.toml` in the master's directory describes the second
port; it is read at every start and every reload. Workers that connect to it log in with the same names and passwords as
those on the first port.
"""

import os
import re
import sys

from .arguments import Refusal
from .names import CONFIGURATION, LOGIN_PATIENCE, WARNING
from .reasons import error_text, exit_status
from .tls import expiry

FILE = "network.toml"
KEYS = {"port": int, "certificate": str, "key": str, "interface": str}
OPTIONAL = {"interface"}
TYPES = {int: "a number", str: "a string"}
CERTIFICATE = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Door:
    """The door of one master, open or not; it is Twisted's context factory, too."""

    def __init__(self, runner):
        self.report, self.journal = runner.report, runner.journal
        self.master = self.factory = None
        self.address = self.listener = self.port = None  # (interface, port), socket, Twisted's port
        self.leaf = self.context = None  # the first certificate, as bytes, and what serves it

    def renew(self, master):
        """Apply the file. A Refusal states why that is not possible, and nothing is changed."""
        self.master = master
        path = os.path.join(master.basedir, FILE)
        settings = read(path)
        if settings is None:
            self.close()
            return
        if self.workers_port() is None:
            reason = "`%s`: no port for workers to open to the network: c['protocols'] contains no 'pb'"
            raise Refusal(CONFIGURATION, reason % path)
        leaf, context, until = self.load(path, settings)
        address = settings.get("interface", ""), settings["port"]
        if address != self.address:
            self.listen(path, address, context)
        self.leaf, self.context = leaf, context
        self.report.change(door={"port": address[1], "certificate_until": until})

    def load(self, path, settings):
        """The first certificate, the context that serves it, and its end in seconds since 1970."""
        try:
            from OpenSSL import SSL, crypto
            from twisted.internet import ssl
        except ImportError as error:
            reason = "`%s`: TLS needs the package `pyopenssl`: %s" % (path, error)
            raise Refusal(CONFIGURATION, reason, "install it into `%s`" % sys.prefix)
        certificate, key = (os.path.join(self.master.basedir, settings[name]) for name in ("certificate", "key"))
        chain = CERTIFICATE.findall(content(certificate))
        if not chain:
            raise Refusal(CONFIGURATION, "`%s` contains no certificate in PEM format" % certificate)
        doing = "`%s` contains no readable certificate" % certificate
        try:
            certificates = [crypto.load_certificate(crypto.FILETYPE_PEM, part) for part in chain]
            doing = "`%s` contains no private key in PEM format without a passphrase" % key
            private = crypto.load_privatekey(crypto.FILETYPE_PEM, content(key), lambda *_: b"")
            doing = "the certificate `%s` does not match the key `%s`" % (certificate, key)
            options = ssl.CertificateOptions(
                private, certificates[0], extraCertChain=certificates[1:], raiseMinimumTo=ssl.TLSVersion.TLSv1_2
            )
            context = options.getContext()
        except (crypto.Error, SSL.Error, ValueError, TypeError) as error:
            raise Refusal(CONFIGURATION, "%s: %s" % (doing, openssl_text(error)))
        if certificates[0].has_expired():
            reason = "`%s` has expired, workers reject it" % certificate
            # Workers on this host are served anyway, and a clock may be wrong; a certificate that is still valid is
            # kept.
            if self.leaf not in (None, chain[0]):
                raise Refusal(CONFIGURATION, reason)
            self.journal.write(WARNING, reason)
        return chain[0], context, expiry(certificates[0])

    def getContext(self):
        """For a new connection: a renewed certificate does not affect existing connections."""
        return self.context

    def listen(self, path, address, context):
        import socket

        from twisted.internet import error, reactor

        interface, number = address
        dual = not interface and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual or ":" in interface else socket.AF_INET
        # Another interface of the same port is opened while the one before is, by this account alone.
        again = self.address is not None and self.address[1] == number
        if again:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener = socket.create_server(address, family=family, dualstack_ipv6=dual, reuse_port=again)
        except OSError as failed:
            cause = OSError(failed.errno, os.strerror(failed.errno))
            failed = error.CannotListenError(interface or "any", number, cause)
            raise Refusal(exit_status(failed), "`%s`: %s" % (path, error_text(failed)))
        listener.setblocking(False)
        self.context = context  # now: the factory asks for it
        self.factory = self.factory or make_factory(self)
        port = reactor.adoptStreamPort(listener.fileno(), family, self.factory)
        self.stop_listening()
        self.address, self.listener, self.port = address, listener, port

    def stop_listening(self):
        if self.port is not None:
            self.port.stopListening()
            self.listener.close()
        self.address = self.listener = self.port = None

    def close(self):
        """Close the port and all of its connections."""
        if self.port is None:
            return
        self.stop_listening()
        self.leaf = self.context = None
        for connection in list(self.factory.protocols):
            connection.abortConnection()
        self.report.change(door=None)

    def workers_port(self):
        return (self.master.config.protocols.get("pb") or {}).get("port")

    def dispatcher(self):
        """What looks after the port of workers at this moment (buildbot.worker.protocols.manager), or None."""
        port = self.workers_port()
        if isinstance(port, int) or ":" not in (port or ":"):
            port = "tcp:%s" % port
        found = self.master.pbmanager.dispatchers.get(port)
        return found if found is not None and found.running else None


def make_factory(door):
    """Twisted's factory of connections through a door."""
    from twisted.internet import interfaces, protocol, reactor
    from twisted.protocols.tls import TLSMemoryBIOFactory
    from zope.interface import directlyProvides

    class Closed(protocol.Protocol):
        def connectionMade(self):
            self.transport.abortConnection()

    class Logins(protocol.Factory):
        noisy = False

        def buildProtocol(self, address):
            dispatcher = door.dispatcher()
            if dispatcher is None:
                return Closed()
            broker = dispatcher.serverFactory.buildProtocol(address)
            reactor.callLater(LOGIN_PATIENCE, close_unless_logged_in, broker)
            return broker

    directlyProvides(door, interfaces.IOpenSSLContextFactory)
    return TLSMemoryBIOFactory(door, False, Logins())


def close_unless_logged_in(broker):
    # Twisted asks to hear of the end of a login (twisted.spread.pb, `_cbLogin`); after that end this is None.
    if broker.disconnects == []:
        broker.transport.abortConnection()


def read(path):
    """The content of `network.toml` as a dict, or None without such a file."""
    try:
        text = content(path)
    except Refusal:
        if not os.path.lexists(path):
            return None
        raise
    try:
        import tomllib
    except ImportError:  # Python before 3.11
        from pip._vendor import tomli as tomllib
    try:
        settings = tomllib.loads(text.decode())
    except ValueError as error:
        raise Refusal(CONFIGURATION, "`%s`: %s" % (path, error))
    problems = list(problems_of(settings))
    if problems:
        raise Refusal(CONFIGURATION, "`%s`: %s" % (path, "; ".join(problems)))
    return settings


def problems_of(settings):
    from twisted.internet import abstract

    for name in settings:
        if name not in KEYS:
            yield "unknown key `%s`" % name
    for name, kind in KEYS.items():
        value = settings.get(name)
        if name not in settings:
            if name not in OPTIONAL:
                yield "`%s` is missing" % name
        elif type(value) is not kind:
            yield "`%s` must be %s" % (name, TYPES[kind])
        elif name == "port" and not 0 < value < 1 << 16:
            yield "`port` must be from 1 to 65535"
        elif name == "interface" and not (abstract.isIPAddress(value) or abstract.isIPv6Address(value)):
            yield "`interface` must be an address of this host"


def content(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise Refusal(CONFIGURATION, "`%s`: %s" % (path, getattr(error, "strerror", None) or error))


def openssl_text(error):
    """The reason that OpenSSL gives last, without the names of its functions."""
    try:
        return error.args[0][-1][-1] or "unknown reason"
    except (IndexError, TypeError):
        return error_text(error)
