"""The way into the journal: its native protocol, or standard output where there is none."""

import errno
import os
import socket
import stat
import sys

from .names import JOURNAL_SOCKET
from .text import to_bytes


class Journal:
    """Writes log entries by the journal's native protocol, or as plain lines to stdout.

    Never raises and never logs through Twisted: either would feed its own failures back to itself.
    Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
    """

    def __init__(self, options, stream):
        """`stream`: the value of JOURNAL_STREAM, `device:inode` of what systemd connected."""
        self.fields = [
            ("SYSLOG_IDENTIFIER", "buildbot-" + options.role),
            ("BUILDBOT_INSTANCE", options.reference),
        ]
        self.fd = 1
        self.under_journal = any(self._is_stream(fd, stream) for fd in (1, 2))
        if self.under_journal and not self._is_stream(1, stream):
            self.fd = 2
        self.socket = None
        if self.under_journal:
            try:
                if stat.S_ISSOCK(os.stat(JOURNAL_SOCKET).st_mode):
                    self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    # A journal that does not answer must not block the reactor for long.
                    self.socket.settimeout(1)
            except OSError:
                self.socket = None

    @staticmethod
    def _is_stream(fd, stream):
        try:
            found = os.fstat(fd)
        except OSError:
            return False
        return stream == "%d:%d" % (found.st_dev, found.st_ino)

    def write(self, priority, text, fields=()):
        text = text.rstrip("\n")
        if not text.strip():
            return
        if self.socket is not None and self._send(priority, text, fields):
            return
        self._print(priority, text)

    def _send(self, priority, text, fields):
        entry = bytearray()
        for name, value in [("MESSAGE", text), ("PRIORITY", priority), *self.fields, *fields]:
            value = to_bytes(str(value))
            if b"\n" in value:
                entry += name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
            else:
                entry += name.encode() + b"=" + value + b"\n"
        try:
            self.socket.sendto(entry, JOURNAL_SOCKET)
            return True
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                return False
        except ValueError:
            return False
        try:
            return self._send_file(entry)
        except (OSError, ValueError):
            return False

    def _send_file(self, entry):
        """Sends an entry that is larger than a datagram as a file descriptor.

        It is sealed memory if Python was built with support for it (a Conda Python for an old C library is not), and
        otherwise a nameless file in /dev/shm, which the journal accepts as well.
        """
        import fcntl
        import tempfile

        sealing = hasattr(os, "memfd_create")
        if sealing:
            fd = os.memfd_create("buildbot-log", 0x1 | 0x2)  # MFD_CLOEXEC | MFD_ALLOW_SEALING
        else:
            fd, name = tempfile.mkstemp(dir="/dev/shm")
            os.unlink(name)
        try:
            written = 0
            while written < len(entry):
                written += os.write(fd, entry[written:])
            if sealing:
                fcntl.fcntl(fd, 1033, 0xF)  # F_ADD_SEALS: seal, shrink, grow, write
            rights = fd.to_bytes(4, sys.byteorder)
            control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
            self.socket.sendmsg([], control, 0, JOURNAL_SOCKET)
            return True
        finally:
            os.close(fd)

    def _print(self, priority, text):
        if self.under_journal:  # sd-daemon(3): `<N>` at the start of a line is its priority
            text = "\n".join("<%d>%s" % (priority, line) for line in text.split("\n"))
        data = to_bytes(text + "\n")
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            pass
