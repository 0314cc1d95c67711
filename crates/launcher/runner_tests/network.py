"""A link that can be cut without either side seeing it go: a network namespace behind a bridge. Only root can make it."""

import contextlib
import os
import subprocess


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Link:
    """A namespace with one address, and this side of it with another; nothing else is reachable from there."""

    def __init__(self):
        number = os.getpid() % 16000
        self.namespace = "runner-test-%d" % number
        # Of 198.18.0.0/15, which RFC 2544 sets apart for tests of networks.
        net = "198.18.%d.%%d" % (number % 250) if number % 2 else "198.19.%d.%%d" % (number % 250)
        self.here, self.there = net % 1, net % 2
        self.bridge, self.port, self.end = "rtb%d" % number, "rtp%d" % number, "rte%d" % number
        self.other = "rto%d" % number
        ip("netns", "add", self.namespace)
        try:
            ip("link", "add", self.bridge, "type", "bridge")
            # The second one exists so that the bridge has a carrier while the link is cut.
            for port, end in ((self.port, self.end), (self.other, "idle")):
                ip("link", "add", port, "type", "veth", "peer", "name", end, "netns", self.namespace)
                ip("link", "set", port, "master", self.bridge, "up")
                ip("-n", self.namespace, "link", "set", end, "up")
            # While it is cut, neither side may find the other through the second one.
            ip("link", "set", self.port, "arp", "off")
            ip("-n", self.namespace, "link", "set", "idle", "arp", "off")
            ip("address", "add", self.here + "/30", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")
            ip("-n", self.namespace, "address", "add", self.there + "/30", "dev", self.end)
            ip("-n", self.namespace, "link", "set", "lo", "up")
        except BaseException:
            self.remove()
            raise

    def cut(self):
        """From here on every packet is lost, in both directions."""
        ip("link", "set", self.port, "nomaster")

    def restore(self):
        ip("link", "set", self.port, "master", self.bridge)

    def remove(self):
        for words in (("netns", "del", self.namespace), ("link", "del", self.bridge)):
            with contextlib.suppress(subprocess.CalledProcessError):
                ip(*words)
