"""Closes connections between masters and workers if the other side has vanished.

Buildbot waits without limit for the answer to its own signs of life (buildbot_worker.pb, `doKeepalive`), and the kernel
waits for two hours if nothing is sent, and for a quarter of an hour otherwise. A build hangs until then.

This module lets the kernel probe a silent peer, and checks that sent data are acknowledged. The kernel's own limit for
this (TCP_USER_TIMEOUT) would also close the connection to a process that is only busy, as soon as the buffers on the
way to it are full.
"""

import socket
import struct

# Seconds: a quiet peer is asked after so many, and again, and so often.
IDLE, INTERVAL, COUNT = 15, 5, 3
# Seconds between two looks at what is not acknowledged, and how many of them in a row are the end.
CHECK_EVERY, CHECKS = 5, 5
# Bytes in `struct tcp_info` of linux/tcp.h: segments not acknowledged, milliseconds since the last acknowledgement.
UNACKNOWLEDGED, LAST_ANSWER, LENGTH = 24, 56, 60


def mend(kind):
    """Watch every connection of a class of protocols."""
    original = kind.connectionMade

    def made(self):
        watch(self.transport)
        return original(self)

    kind.connectionMade = made


def watch(transport):
    """Have a connection by TCP end when its peer has vanished; one of another kind is left alone."""
    connection = socket_of(transport)
    if connection is None:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", IDLE), ("TCP_KEEPINTVL", INTERVAL), ("TCP_KEEPCNT", COUNT)):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    check(transport, connection, 0)


def check(transport, connection, silent):
    """Look at a connection again and again; `silent` times in a row nothing of what was sent was acknowledged."""
    from twisted.internet import reactor

    if connection.fileno() < 0:
        return
    silent = silent + 1 if is_silent(connection) else 0
    if silent >= CHECKS:
        from twisted.python import log

        log.msg("no acknowledgement from the other side for %d s, closing the connection" % (CHECK_EVERY * CHECKS))
        transport.abortConnection()
    else:
        reactor.callLater(CHECK_EVERY, check, transport, connection, silent)


def is_silent(connection):
    """Whether sent data are not acknowledged, and no acknowledgement has arrived since the last check."""
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LENGTH)
    except OSError:  # it has ended
        return False
    waiting, answered = (struct.unpack_from("=I", info, place)[0] for place in (UNACKNOWLEDGED, LAST_ANSWER))
    return waiting > 0 and answered >= CHECK_EVERY * 1000


def socket_of(transport):
    """The TCP socket below a transport, through TLS and tunnels, or None."""
    while transport is not None:
        found = getattr(transport, "socket", None)
        if isinstance(found, socket.socket):
            return found if found.family in (socket.AF_INET, socket.AF_INET6) else None
        transport = getattr(transport, "transport", None)
    return None
