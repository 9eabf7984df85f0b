# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames to and from machines whose guest is tests/guest/frames.c: it does what they tell it to, and prints it."""
import ctypes
import socket
import time

TYPE, ALL = b"\x88\xb5", b"\xff" * 6
LIBC = ctypes.CDLL(None, use_errno=True)


def raw(address):
    return bytes.fromhex(address.replace(":", ""))


class Ear:
    """A socket for frames on an interface, in a network namespace by its name."""

    def __init__(self, namespace, dev):
        with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
            assert not LIBC.setns(there.fileno(), 0)
            try:
                self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
                self.socket.bind((dev, 0))
                self.mac = self.socket.getsockname()[4]
            finally:
                assert not LIBC.setns(home.fileno(), 0)
        self.got = []

    def say(self, to, text):
        self.socket.send((to + self.mac + TYPE + b"H" + text.encode()).ljust(60, b"\0"))

    def bid(self, machine, to, text):
        """The machine is to say it to `to`."""
        self.socket.send((machine + self.mac + TYPE + b"S" + to + text.encode()).ljust(60, b"\0"))

    def find(self, text):
        return next((f for f in self.got if f[14:15] == b"H" and f[15:].rstrip(b"\0") == text.encode()), None)

    def hears(self, text, seconds=0.0):
        """Whether the frame is there; with `seconds`, as soon as it comes. What goes out by the interface is not heard."""
        until = time.monotonic() + seconds
        while not self.find(text):
            self.socket.settimeout(max(0.001, until - time.monotonic()))
            try:
                data, (_, _, kind, *_) = self.socket.recvfrom(2000)
            except (TimeoutError, BlockingIOError):
                return False
            if kind != socket.PACKET_OUTGOING and data[12:14] == TYPE:
                self.got.append(data)
        return True

    def reflect(self, text):
        """As a switch that sends a frame back where it came from."""
        self.socket.send(self.find(text))


def said(path):
    """What a machine has printed into the file."""
    try:
        with open(path, encoding="ascii", errors="replace") as f:
            return f.read()
    except OSError:
        return ""
