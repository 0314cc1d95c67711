"""TLS between a worker and its master: the certificates that it sees, and in words why a connection does not come about.

Twisted itself gives the reason to nobody.
"""

import calendar
import sys
import time
import weakref

# Numbers of verify(1ssl): not yet valid, expired, and what is signed by nobody who is trusted.
NOT_YET, EXPIRED, UNTRUSTED = 9, 10, (2, 18, 19, 20, 21, 27)
# What OpenSSL says when the other side does not speak TLS at all.
PLAIN = ("wrong version number", "http request", "unknown protocol", "packet length too long")


# Of each connection the certificates that were checked: [(certificate, number or 0, depth)]; the master's own has depth 0.
seen = weakref.WeakKeyDictionary()


def observe(ssl):
    """Listen to the checks of certificates, whatever they decide; `ssl` is OpenSSL.SSL, before the first is asked for."""
    ssl.Context.set_verify = listening(ssl.Context.set_verify, lambda *found: bool(found[-1]))
    if hasattr(ssl.Connection, "set_verify"):
        ssl.Connection.set_verify = listening(ssl.Connection.set_verify, None)


def listening(set_verify, default):
    """`default` is what decides where no callback is given, as OpenSSL itself would, or None to leave that alone."""

    def changed(self, mode, callback=None):
        callback = callback or default
        if callback is None:
            return set_verify(self, mode)

        def check(connection, certificate, number, depth, is_good):
            decision = callback(connection, certificate, number, depth, is_good)
            seen.setdefault(connection, []).append((certificate, number, depth))
            return decision

        return set_verify(self, mode, check)

    return changed


class Handshake:
    """One attempt of a worker to connect; `connection` is OpenSSL's."""

    def __init__(self, connection):
        self.connection = connection

    @property
    def refused(self):
        return next(((c, number, depth) for c, number, depth in seen.get(self.connection, ()) if number), None)

    @property
    def own(self):
        return next((c for c, _, depth in seen.get(self.connection, ()) if depth == 0), None)

    def certificates(self, target):
        """The master's certificate and its authority's, for `status.json`; none of a master that is not the right one."""
        if self.refused and self.refused[1] != EXPIRED:
            return []
        found = {depth: certificate for certificate, _, depth in seen.get(self.connection, ())}
        ends = {depth: expiry(found[depth]) for depth in sorted({0, max(found, default=0)}) if depth in found}
        return [{"port": target, "expires": end, "authority": depth > 0} for depth, end in ends.items()]

    def reason(self, target, error):
        """Why the connection to `target` ended, or None when TLS is not the reason."""
        distrust = "does not trust %s: %%s" % target
        if self.refused:
            return distrust % self._refusal(*self.refused)
        if "VerificationError" in type(error).__name__:
            return distrust % ("its certificate is for %s, not for the name in `buildbot.tac`" % self._names())
        if type(error).__module__.partition(".")[0] == "OpenSSL":
            text = openssl_text(error)
            return "%s does not speak TLS (%s)" % (target, text) if text in PLAIN else "TLS failed: %s" % text
        return None

    def _refusal(self, certificate, number, depth):
        whose = "its certificate" if depth == 0 else "the certificate of its authority"
        if number == EXPIRED:
            return "%s expired on %s" % (whose, day(certificate.get_notAfter()))
        if number == NOT_YET:
            return "%s is not valid before %s; is the clock right?" % (whose, day(certificate.get_notBefore()))
        if number in UNTRUSTED:
            issuer = (self.own or certificate).get_issuer().CN
            return "its certificate is signed by `%s`, which is not an authority that this worker trusts" % issuer
        return "%s was rejected, error %d of verify(1ssl)" % (whose, number)

    def _names(self):
        from cryptography import x509

        try:
            extensions = self.own.to_cryptography().extensions
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (AttributeError, ValueError, x509.ExtensionNotFound):
            return "no name"
        return ", ".join("`%s`" % name.value for name in names) or "no name"


def look(endpoint, call):
    """Shake hands at an endpoint once more, without a login, and `call` with the Handshake when that is over."""
    from twisted.internet import interfaces, protocol
    from zope.interface import implementer

    @implementer(interfaces.IHandshakeListener)
    class Look(protocol.Protocol):
        def connectionMade(self):
            self.handshake = Handshake(self.transport.getHandle())

        def handshakeCompleted(self):
            self.transport.loseConnection()

        def connectionLost(self, _):
            call(self.handshake)

    # Whether anybody answers there is the business of the connection that lasts.
    endpoint.connect(protocol.Factory.forProtocol(Look)).addErrback(lambda _: None)


def expiry(certificate):
    """When a certificate expires, in seconds since 1970."""
    return calendar.timegm(time.strptime(certificate.get_notAfter().decode(), "%Y%m%d%H%M%SZ"))


def day(stamp):
    """`YYYY-MM-DD` of a time in ASN.1, which is in UTC."""
    text = stamp.decode("ascii", "replace")
    return "%s-%s-%s" % (text[:4], text[4:6], text[6:8])


def openssl_text(error):
    """The last of the reasons in an error of OpenSSL."""
    try:
        return error.args[0][-1][2]
    except (IndexError, KeyError, TypeError):
        return type(error).__name__


def lack(error):
    """(reason, hint) for an error that comes of an environment without OpenSSL, which Twisted does without; or None."""
    is_missing = isinstance(error, (ImportError, NameError)) or "OpenSSL not available" in str(error)
    if not is_missing or "OpenSSL.SSL" in sys.modules or not any(word in str(error) for word in ("SSL", "TLS")):
        return None
    hint = "install `pyopenssl` and `service_identity` into `%s`" % sys.prefix
    return "TLS needs the package `pyopenssl`, which is missing in the environment", hint
