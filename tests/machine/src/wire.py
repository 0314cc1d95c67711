"""An Ethernet between network namespaces, with faults on demand.

One process holds a tap device in each namespace and copies frames between them, so that every frame passes through this
process: a link can be cut without notifying its ends, as when a host vanishes, and can be slow or lossy on kernels
without netem.

Reads commands from standard input and answers each with a line, `ok` or `error: ...`; exits at the end of its input.

connect NAME PID ADDRESS    a device `host0` in the network namespace of PID, with ADDRESS/24 cut NAME OTHER
drop every frame between two hosts; `*` stands for all others restore NAME OTHER          the opposite link NAME
MILLISECONDS PER-CENT   delay and loss of every frame that NAME sends
"""

import ctypes
import fcntl
import heapq
import itertools
import os
import random
import selectors
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
CLONE_NEWNET = 0x40000000
FRAME = 65536

libc = ctypes.CDLL(None, use_errno=True)


def enter(path):
    with open(path) as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"enter {path}")


class Wire:
    def __init__(self):
        # Stays the own namespace while another one is entered.
        self.home = f"/proc/self/fd/{os.open('/proc/self/ns/net', os.O_RDONLY)}"
        self.selector = selectors.DefaultSelector()
        self.taps = {}
        self.links = {}
        self.cuts = set()
        self.waiting = []
        self.number = itertools.count()
        # The same frames are lost in every run that sends the same ones.
        self.chance = random.Random(1)

    def connect(self, name, pid, address):
        enter(f"/proc/{pid}/ns/net")
        try:
            tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", b"host0", IFF_TAP | IFF_NO_PI))
            for words in (["addr", "add", f"{address}/24", "dev", "host0"], ["link", "set", "host0", "up"]):
                subprocess.run(["ip", *words], check=True, capture_output=True)
        finally:
            enter(self.home)
        # A machine that was booted again has another namespace.
        self.disconnect(name)
        self.taps[name] = tap
        self.selector.register(tap, selectors.EVENT_READ, name)

    def disconnect(self, name):
        if (tap := self.taps.pop(name, None)) is not None:
            self.selector.unregister(tap)
            os.close(tap)

    def pairs(self, name, other):
        names = set(self.taps) - {name} if other == "*" else {other}
        return {frozenset((name, one)) for one in names}

    def command(self, words):
        match words:
            case ["connect", name, pid, address]:
                self.connect(name, int(pid), address)
            case ["cut", name, other]:
                self.cuts |= self.pairs(name, other)
            case ["restore", name, other]:
                self.cuts -= self.pairs(name, other)
            case ["link", name, milliseconds, per_cent]:
                self.links[name] = (int(milliseconds) / 1000, float(per_cent) / 100)
            case _:
                raise ValueError(f"unknown command {words}")

    def receive(self, name):
        try:
            frame = os.read(self.taps[name], FRAME)
        except BlockingIOError:
            return
        except OSError:
            # The machine is off, and its devices went with it.
            self.disconnect(name)
            return
        delay, loss = self.links.get(name, (0, 0))
        if self.chance.random() >= loss:
            heapq.heappush(self.waiting, (time.monotonic() + delay, next(self.number), name, frame))

    def deliver(self):
        while self.waiting and self.waiting[0][0] <= time.monotonic():
            _, _, sender, frame = heapq.heappop(self.waiting)
            for name, tap in list(self.taps.items()):
                if name != sender and frozenset((sender, name)) not in self.cuts:
                    try:
                        os.write(tap, frame)
                    except BlockingIOError:
                        pass
                    except OSError:
                        self.disconnect(name)

    def run(self):
        os.set_blocking(0, False)
        self.selector.register(0, selectors.EVENT_READ, None)
        text = b""
        while True:
            pause = max(0, self.waiting[0][0] - time.monotonic()) if self.waiting else None
            for key, _ in self.selector.select(pause):
                if key.data is not None:
                    if key.data in self.taps:
                        self.receive(key.data)
                    continue
                received = os.read(0, FRAME)
                if not received:
                    return
                *lines, text = (text + received).split(b"\n")
                for line in lines:
                    try:
                        self.command(line.decode().split())
                        print("ok", flush=True)
                    except (OSError, ValueError, subprocess.CalledProcessError) as error:
                        print(f"error: {error}", flush=True)
            self.deliver()


Wire().run()
