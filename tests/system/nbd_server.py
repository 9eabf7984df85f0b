#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Our NBD server against other people's clients (nbdinfo, nbdcopy, qemu-img, qemu-io), and against clients by hand that
do wrong. TAP.
"""
import contextlib
import json
import os
import socket
import struct
import time

from nbd_ground import SIZE, copy_both_ways, expect, image, our_server
from peers import MIB, contents, main, need, path, run


def test_info():
    need("nbdinfo")
    with our_server(image(), writable="on", bitmap="b0", depth="on", description="a disk") as (_, uri):
        text = run("nbdinfo", "--list", uri).stdout
        expect(text, "newstyle-fixed without TLS, using structured packets", 'export="x"', "description: a disk",
               f"export-size: {SIZE}", "base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0",
               "can_multi_conn: true", "can_fua: true", "can_fast_zero: true", "is_read_only: false",
               "block_size_minimum: 1", "block_size_maximum: 33554432")
        allocation = json.loads(run("nbdinfo", "--json", "--map", uri).stdout)
        got = [(e["offset"], e["length"], e["type"]) for e in allocation]
        assert got == [(0, 3 * MIB, 3), (3 * MIB, 8 * MIB, 0), (11 * MIB, 21 * MIB, 3)], got
        dirty = json.loads(run("nbdinfo", "--json", "--map=qemu:dirty-bitmap:b0", uri).stdout)
        got = [(e["offset"], e["length"], e["type"]) for e in dirty]
        assert got == [(0, MIB, 0), (MIB, 65536, 1), (MIB + 65536, SIZE - MIB - 131072, 0),
                       (SIZE - 65536, 65536, 1)], got
    with our_server(image()) as (_, uri):
        expect(run("nbdinfo", uri).stdout, "is_read_only: true", "can_trim: false")
        bad = run("nbdinfo", uri.replace("///x", "///y"), check=False)
        assert bad.returncode, "an unknown export was opened"


def test_nbdcopy():
    need("nbdcopy")
    for options in ({}, {"port": "0"}, {"thread": "on"}, {"port": "0", "thread": "on", "max_requests": "2"}):
        file = image()
        with our_server(file, writable="on", **options) as (_, uri):
            copy_both_ways(uri, file)


def test_qemu_io():
    need("qemu-io", "qemu-img")
    file = image()
    with our_server(file, writable="on") as (_, uri):
        run("qemu-io", "-f", "raw", "-c", "write -P 0x5a 1000 70000", "-c", "write -f -P 0x11 20M 3M",
            "-c", "write -z 5M 1M", "-c", "write -z -u 6M 1M", "-c", "discard 7M 1M", "-c", "flush",
            "-c", "read -P 0x5a 1000 70000", "-c", "read -P 0 5M 2M", "-c", "read -P 0x11 20M 3M", uri)
        data = contents(file)
        assert data[1000:71000] == b"\x5a" * 70000 and data[5 * MIB:7 * MIB] == bytes(2 * MIB)
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, path("c.qcow2"))
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", file, path("c.qcow2"))
        shown = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", uri).stdout)
        direct = json.loads(run("qemu-img", "map", "--output=json", "-f", "raw", file).stdout)
        assert [(e["start"], e["length"], e["zero"]) for e in shown] == \
            [(e["start"], e["length"], e["zero"]) for e in direct], "the map differs from the file's"
    with our_server(file) as (_, uri):
        done = run("qemu-io", "-f", "raw", "-c", "write 0 512", uri, check=False)
        assert done.returncode, "a read-only export was written"


def test_qemu_bitmap():
    need("qemu-img")
    with our_server(image(), bitmap="b0", writable="on") as (_, uri):
        options = "driver=nbd,server.type=unix,server.path=" + path("ours.sock") + \
            ",export=x,x-dirty-bitmap=qemu:dirty-bitmap:b0"
        got = json.loads(run("qemu-img", "map", "--output=json", "--image-opts", options).stdout)
        dirty = [(e["start"], e["length"]) for e in got if not e["data"]]
        assert dirty == [(MIB, 65536), (SIZE - 65536, 65536)], got


class Raw:
    """A client by hand, for what good clients never send."""
    def __init__(self, name="ours.sock"):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(120)
        self.s.connect(path(name))

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.s.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def greet(self):
        assert self.read(16) == b"NBDMAGICIHAVEOPT"
        assert struct.unpack(">H", self.read(2))[0] == 3
        self.s.sendall(struct.pack(">I", 3))

    def option(self, number, data=b""):
        """All replies up to the ACK or the error."""
        self.s.sendall(b"IHAVEOPT" + struct.pack(">II", number, len(data)) + data)
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.read(20))
            assert magic == 0x3e889045565a9 and option == number
            replies.append((kind, self.read(length)))
            if kind == 1 or kind & 0x80000000:
                return replies

    def go(self, export=b"x"):
        self.greet()
        replies = self.option(7, struct.pack(">I", len(export)) + export + struct.pack(">H", 0))
        assert replies[-1][0] == 1, replies

    def request(self, command, offset, length, flags=0, cookie=1, data=b""):
        self.s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, cookie, offset, length) + data)

    def simple(self):
        magic, error, cookie = struct.unpack(">IIQ", self.read(16))
        assert magic == 0x67446698
        return error, cookie


UNSUP, POLICY, INVALID, TLS_REQD, UNKNOWN, TOO_BIG = (0x80000000 + n for n in (1, 2, 3, 5, 6, 9))


def test_options_by_hand():
    with our_server(image(), writable="on", bitmap="b0") as _:
        r = Raw()
        r.greet()
        assert r.option(99)[0][0] == UNSUP
        assert r.option(3, b"data")[0][0] == INVALID
        assert r.option(3)[0] == (2, struct.pack(">I", 1) + b"x")
        assert r.option(5)[0][0] == POLICY
        assert r.option(10, struct.pack(">I", 1) + b"x" + bytes(4))[0][0] == INVALID  # no structured replies yet
        assert r.option(8)[0][0] == 1
        assert r.option(6, struct.pack(">I", 9999) + b"x")[0][0] == INVALID
        assert r.option(6, struct.pack(">I", 1) + b"y" + bytes(2))[0][0] == UNKNOWN
        assert r.option(9, struct.pack(">I", 1) + b"x" + bytes(4))[:2] == [
            (4, bytes(4) + b"base:allocation"), (4, bytes(4) + b"qemu:dirty-bitmap:b0")]
        assert r.option(10, struct.pack(">III", 0, 0xffffffff, 1))[0][0] == INVALID
        assert r.option(1000, bytes(MIB))[0][0] == TOO_BIG
        assert r.option(2)[0][0] == 1
        r = Raw()
        r.greet()
        r.s.sendall(b"IHAVEOPT" + struct.pack(">II", 1, 1) + b"x")  # EXPORT_NAME
        size, flags = struct.unpack(">QH", r.read(10))
        assert size == SIZE and flags & 1 and not flags & 2
        r.request(0, 3 * MIB, 4096)
        assert r.simple() == (0, 1)
        assert r.read(4096) == contents(path("disk.raw"))[3 * MIB:3 * MIB + 4096]


def test_requests_by_hand():
    with our_server(image(), writable="on"):
        r = Raw()
        r.go()
        for command, offset, length, flags, error in (
                (0, SIZE, 1, 0, 22), (0, 0xffffffffffffffff, 4096, 0, 22), (0, 0, 0xffffffff, 0, 22), (0, 0, 4096, 4, 22),
                (3, 0, 0, 0, 0), (4, SIZE - 10, 11, 0, 22), (6, SIZE - 10, 11, 0, 28), (7, 0, 4096, 0, 22),
                (77, 0, 0, 0, 22), (3, 0, 0, 0x8000, 22), (6, 0, 0, 0, 0)):
            r.request(command, offset, length, flags, cookie=command)
            assert r.simple() == (error, command), (command, offset, length)
        r.request(1, SIZE - 10, 100, data=bytes(100))
        assert r.simple()[0] == 28
        r.request(1, 0, 100, data=b"\x77" * 100)
        assert r.simple()[0] == 0
        assert contents(path("disk.raw"))[:101] == b"\x77" * 100 + b"\0"
        r.request(1, 0, 0xffffffff)  # more than is ever read: hang up
        try:
            r.read(1)
            raise AssertionError("a write of 4 GiB was not refused")
        except (EOFError, ConnectionResetError):
            pass
        r = Raw()
        r.go()
        r.s.sendall(b"\xff" * 64)
        try:
            r.read(1)
            raise AssertionError("garbage was not refused")
        except (EOFError, ConnectionResetError):
            pass
    with our_server(image()):
        r = Raw()
        r.go()
        r.request(1, 0, 4096, data=bytes(4096))
        assert r.simple()[0] == 1
        r.request(4, 0, 4096)
        assert r.simple()[0] == 1


def resident(p):
    with open(f"/proc/{p.pid}/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def test_greedy_clients():
    """Clients that ask for gigabytes and read nothing; meanwhile another one is served."""
    need("nbdcopy")
    file = image()
    with our_server(file) as (server, uri):
        before = resident(server)
        greedy = [Raw() for _ in range(4)]
        for r in greedy:
            r.go()
            r.s.settimeout(0.2)
            with contextlib.suppress(TimeoutError):
                for n in range(500):
                    r.request(0, 0, 32 * MIB, cookie=n)
        run("nbdcopy", uri, path("out.raw"))
        assert contents(path("out.raw")) == contents(file)
        grown = resident(server) - before
        assert grown < 4 * 40 * MIB + 64 * MIB, f"four clients cost {grown >> 20} MiB"
        # and the server ends although they never read


def test_handshake_limits():
    with our_server(image(), handshake_ms="2000", max_connections="2"):
        silent = Raw()
        silent.read(18)
        try:
            silent.read(1)
            raise AssertionError("a silent client may stay")
        except EOFError:
            pass
        a, b = Raw(), Raw()
        a.go()
        b.go()
        time.sleep(2.5)  # longer than a handshake may take: who has finished it may be idle
        c = Raw()
        c.s.settimeout(0.3)
        try:
            c.read(1)
            raise AssertionError("three clients were let in where two may")
        except TimeoutError:
            pass
        a.s.close()
        c.s.settimeout(120)
        c.go()
        b.request(0, 0, 512)
        assert b.simple()[0] == 0


def test_server_end():
    with our_server(image(), writable="on", thread="on") as (server, _):
        clients = [Raw() for _ in range(8)]
        for r in clients[:6]:
            r.go()
        for r in clients[:3]:
            r.request(0, 0, 32 * MIB)
        server.stdin.close()
        server.wait(timeout=120)
    assert not os.path.exists(path("ours.sock")), "the socket stays behind"


if __name__ == "__main__":
    main({
        "what nbdinfo shows of our server": test_info,
        "nbdcopy to and from our server": test_nbdcopy,
        "qemu-io and qemu-img on our server": test_qemu_io,
        "qemu-img reads our dirty bitmap": test_qemu_bitmap,
        "options that good clients do not send": test_options_by_hand,
        "requests that good clients do not send": test_requests_by_hand,
        "clients that ask and do not read": test_greedy_clients,
        "limits on handshakes and connections": test_handshake_limits,
        "the server ends under load": test_server_end,
    })
