"""Decides whether the cause of an exception is temporary, so that it leads to the same exit status wherever it occurs.

`buildbot-conda` prepends this file to its own programs for the environment's Python, so it imports no module of ours.
"""

# What libraries call it when another host does not answer, at whatever base class: Twisted, asyncio, urllib3, requests,
# httpx, aiohttp, paramiko, dnspython, hvac, ldap3, redis and the drivers of databases.
UNAVAILABLE = {
    "AutoReconnect",
    "CONNECT_ERROR",
    "ClientConnectionError",
    "ConnectError",
    "ConnectTimeoutError",
    "ConnectionClosed",
    "ConnectionError",
    "ConnectionLost",
    "DNSLookupError",
    "IncompleteRead",
    "InterfaceError",
    "LDAPSocketOpenError",
    "NetworkError",
    "NewConnectionError",
    "NoNameservers",
    "NoValidConnectionsError",
    "OperationalError",
    "ReadTimeoutError",
    "ResponseNeverReceived",
    "SERVER_DOWN",
    "SSLEOFError",
    "TIMEOUT",
    "Timeout",
    "TimeoutError",
    "TimeoutException",
    "TimeoutExpired",
    "VaultDown",
    "gaierror",
    "herror",
}
# Exit statuses of programs that have not reached another host, from their manual pages; for git, only its output shows
# it.
PROGRAMS = {"curl": {5, 6, 7, 28, 52, 55, 56}, "rsync": {10, 12, 30, 35}, "scp": {255}, "ssh": {255}, "wget": {4}}
WORDS = (
    "connection refused",
    "connection reset",
    "connection timed out",
    "could not resolve host",
    "failed to connect",
    "name resolution",
    "network is unreachable",
    "no route to host",
)
# A wrong certificate comes as a lost connection in some of them.
LASTING = {"CertificateError", "SSLCertVerificationError"}
# Answers of a web server that is busy, restarting, or behind a proxy that cannot reach it.
BUSY = {408, 425, 429, 500, 502, 503, 504}
# Attributes in which exceptions refer to their causes.
HOLDERS = (
    "__cause__",
    "__context__",
    "exceptions",
    "handled",
    "orig",
    "original",
    "os_error",
    "reason",
    "reasons",
    "subFailure",
    "value",
)


def note_handled(config_errors):
    """Have Buildbot's `ConfigErrors` keep what was being handled when a configuration reported an error."""
    import sys

    original = config_errors.addError

    def add_error(self, *words):
        error = sys.exc_info()[1]
        if error is not None:
            self.handled = getattr(self, "handled", []) + [error]
        return original(self, *words)

    config_errors.addError = add_error


def may_heal(error):
    """Whether an exception, or one of its causes, means that something did not answer, or that no space is left."""
    found, left = [], [error]
    while left and len(found) < 100:
        one = left.pop()
        if isinstance(one, (list, tuple)):
            left.extend(one)
        elif isinstance(one, BaseException) or type(one).__name__ == "Failure":
            if not any(one is other for other in found):
                found.append(one)
                left.extend(getattr(one, name, None) for name in HOLDERS)
                left.extend(getattr(one, "args", ()))
    if any(LASTING & names_of(one) for one in found):
        return False
    return any(map(is_unavailable, found))


def allowed_by(error):
    """The setting that allows a service to write to a file system that is read-only for it, if an exception is about
    this; or None."""
    import errno
    import os

    path = getattr(error, "filename", None)
    if getattr(error, "errno", None) != errno.EROFS or not isinstance(path, str):
        return None
    directory = os.path.dirname(os.path.abspath(path))
    return "`%s` is read-only for the service: if this is due to its sandbox, `ReadWritePaths=%s` in the section " % (
        directory,
        directory,
    ) + "[Service] of a drop-in (`systemctl edit`) allows it"


def names_of(error):
    return {kind.__name__ for kind in type(error).__mro__}


def has_reached_nobody(error):
    """Whether a `subprocess.CalledProcessError` is of a program that has not reached another host."""
    import os

    words = error.cmd.split() if isinstance(error.cmd, str) else [os.fsdecode(word) for word in error.cmd]
    program = os.path.basename(words[0]) if words else ""
    if error.returncode in PROGRAMS.get(program, ()):
        return True
    printed = [text for text in (error.stdout, error.stderr) if text]
    printed = [text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text) for text in printed]
    return any(words in text.lower() for text in printed for words in WORDS)


def is_unavailable(error):
    import errno

    if "CalledProcessError" in names_of(error) and hasattr(error, "cmd"):
        return has_reached_nobody(error)
    code = getattr(error, "code", None)
    if code is None:
        response = getattr(error, "response", None)
        code = getattr(response, "status_code", getattr(error, "status", None))
    if isinstance(code, int) and "HTTP" in type(error).__name__ or isinstance(code, int) and code in BUSY:
        return code in BUSY
    if isinstance(error, OSError) and error.errno in (
        errno.EADDRNOTAVAIL,
        errno.EDQUOT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENOSPC,
        errno.ESTALE,
        errno.ETIMEDOUT,
    ):
        return True
    # SQLite calls a wrong statement so.
    is_local = type(error).__module__.partition(".")[0] == "sqlite3"
    return not is_local and bool(UNAVAILABLE & names_of(error))
