#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Our NBD client at other people's servers (qemu-nbd, nbdkit), and at servers by hand that do wrong. TAP."""
import contextlib
import os
import signal
import socket
import struct
import time

from nbd_ground import Client, SIZE, digest, exercise, expect, image, nbdkit, qemu_nbd, refusal, their_server, unix
from peers import MIB, can_connect, contents, free_port, main, need, path, run, wait_for


def test_client_qemu_nbd():
    file = image()
    with qemu_nbd(file):
        exercise(unix(path("theirs.sock"), export="x"), file)
        with Client(unix(path("theirs.sock"), export="x")) as c:
            lines = c.good("map")
            assert "data" in lines[0] and any("zero" in line for line in lines), lines
        expect(refusal(unix(path("theirs.sock"), export="y")), "export 'y'", "no export of that name")
    with qemu_nbd(file, "-r"):
        expect(refusal(unix(path("theirs.sock"), export="x")), "is read-only")
        exercise(unix(path("theirs.sock"), export="x", read_only="on"), file, writes=False)
        exercise(unix(path("theirs.sock"), export="x", auto_read_only="on"), file, writes=False)


def test_client_bitmap():
    need("qemu-img", "qemu-io")
    run("qemu-img", "create", "-f", "qcow2", path("b.qcow2"), str(SIZE))
    run("qemu-img", "bitmap", "--add", path("b.qcow2"), "b1")
    run("qemu-io", "-f", "qcow2", "-c", "write 2M 128k", path("b.qcow2"))
    with qemu_nbd(path("b.qcow2"), "-r", "-B", "b1", form="qcow2"):
        with Client(unix(path("theirs.sock"), export="x", read_only="on", x_dirty_bitmap="qemu:dirty-bitmap:b1")) as c:
            assert c.good("map") == [f"0 {2 * MIB} data", f"{2 * MIB} 131072", f"{2 * MIB + 131072} {SIZE - 2 * MIB - 131072} data"]
        expect(refusal(unix(path("theirs.sock"), export="x", read_only="on", x_dirty_bitmap="qemu:dirty-bitmap:no")),
               "no meta context 'qemu:dirty-bitmap:no'")


def test_client_nbdkit():
    file = image()
    opts = unix(path("theirs.sock"))
    with nbdkit("file", file):
        exercise(opts, file)
        exercise(opts + ",multi-conn=4", file)
    with nbdkit("--no-sr", "file", file):
        exercise(opts, file)
    with nbdkit("--mask-handshake=0", "file", file):
        exercise(opts, file)
    with nbdkit("--filter=blocksize-policy", "file", file, "blocksize-minimum=4096", "blocksize-preferred=65536",
                "blocksize-maximum=1M", "blocksize-error-policy=error"):
        exercise(opts, file)
    with nbdkit("--filter=fua", "--filter=nozero", "file", file, "fuamode=emulate", "zeromode=none"):
        exercise(opts, file)
    with nbdkit("--oldstyle", "file", file):
        expect(refusal(opts), "oldstyle")
    with nbdkit("--filter=delay", "file", file, "rdelay=5ms"):
        with Client(opts) as c:
            c.good("storm 500 64 4096")


def test_client_errors():
    file = image()
    opts = unix(path("theirs.sock"))
    with nbdkit("--filter=error", "file", file, "error-pread=ENOSPC", "error-pread-rate=100%"):
        with Client(opts) as c:
            assert c.do("read 0 4096")[0] == os.strerror(28)
            c.good("write 0 4096 1")
            assert c.do("read 0 4096")[0] == os.strerror(28)
    with nbdkit("--filter=error", "file", file, "error-rate=20%"):
        with Client(opts) as c:
            failed = int(c.good("storm 1000 16 4096")[0].split()[1])
            assert 50 < failed < 500, failed
    with nbdkit("--filter=readahead", "data", "0xaa*1000"):
        with Client(opts + ",read-only=on") as c:
            assert c.good("read 0 1000") == [digest(b"\xaa" * 1000)]
            assert c.do("read 0 1001")[-1] != "ok" or True


def test_client_names():
    need("nbdkit")
    file = image()
    sock = path("theirs.sock")
    with nbdkit("file", file):
        for name in (f"nbd+unix:///?socket={sock}", f"nbd:unix:{sock}", f"nbd:unix:{sock}:exportname="):
            with Client("name=" + name) as c:
                assert c.good("size")[0] == f"{SIZE} nbd+unix://?socket={sock}", c.good("size")
    port = free_port()
    with their_server("nbdkit", "-f", "--exit-with-parent", "-i", "127.0.0.1", "-p", str(port), "file", file,
                      ready=lambda: can_connect(port)):
        for name in (f"nbd://127.0.0.1:{port}", f"nbd://localhost:{port}/some", f"nbd:127.0.0.1:{port}",
                     f"nbd:127.0.0.1:{port}:exportname=some", f"nbd+tcp://127.0.0.1:{port}/"):
            with Client("name=" + name) as c:
                assert c.good(f"read 0 {SIZE}") == [digest(contents(file))]
    for name, part in (("nbd://", "connect"), ("nbd+unix:///x", "socket is missing"), ("nbd:", "nbd:HOST:PORT"),
                       ("nbd://h/x?socket=/y", "?socket= is for"), ("nbds://h/x", "tls-creds"), (f"nbd:unix:{path('none')}", "No such file")):
        expect(refusal("name=" + name), part)


def test_client_reconnect():
    file = image()
    opts = unix(path("theirs.sock"), reconnect_delay=120)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(nbdkit("--filter=delay", "file", file, "rdelay=2ms"))
        client = stack.enter_context(Client(opts))
        client.good("read 0 4096")
        client.p.stdin.write("storm 2000 8 4096\n")
        client.p.stdin.flush()
        time.sleep(0.2)
        server.kill()
        server.wait()
        time.sleep(0.5)
        stack.enter_context(nbdkit("file", file))
        line = client.p.stdout.readline().split()
        assert line[1] == "0", f"{line[1]} requests failed although the server came back"
        assert client.p.stdout.readline() == "ok\n"
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(nbdkit("file", file))
        client = stack.enter_context(Client(unix(path("theirs.sock"))))
        client.good("size")
        server.kill()
        server.wait()
        assert client.do("read 0 4096")[0] == os.strerror(5)
        stack.enter_context(nbdkit("file", file))
        wait_for("the client to come back", lambda: client.do("read 0 4096")[-1] == "ok")


def test_client_open_timeout():
    need("nbdkit")
    file = image()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path("theirs.sock"))
    with Client(unix(path("theirs.sock"), open_timeout=120)) as c:
        time.sleep(0.7)
        with nbdkit("file", file):
            assert c.good("read 0 4096") == [digest(bytes(4096))]


class Hostile:
    """A server that negotiates well, with structured replies, and answers the first request with `answer`."""
    def __init__(self, answer, greeting=None):
        self.answer, self.greeting = answer, greeting

    def serve(self, listener):
        s, _ = listener.accept()
        s.settimeout(120)
        with s, contextlib.suppress(OSError, EOFError):
            if self.greeting is not None:
                s.sendall(self.greeting)
                while self.greeting and s.recv(65536):
                    pass
                return
            s.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
            self.read(s, 4)
            while True:
                option, length = struct.unpack(">8xII", self.read(s, 16))
                self.read(s, length)
                if option == 7:
                    self.reply(s, option, 3, struct.pack(">HQH", 0, SIZE, 1))
                if option == 10:
                    self.reply(s, option, 4, struct.pack(">I", 5) + b"base:allocation")
                self.reply(s, option, 1)
                if option == 7:
                    break
            cookie, offset, length = struct.unpack(">8xQQI", self.read(s, 28))
            s.sendall(self.answer(cookie, offset, length))
            s.settimeout(2)
            while s.recv(65536):
                pass

    @staticmethod
    def reply(s, option, kind, data=b""):
        s.sendall(struct.pack(">QIII", 0x3e889045565a9, option, kind, len(data)) + data)

    @staticmethod
    def read(s, count):
        data = b""
        while len(data) < count:
            more = s.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


def chunk(cookie, kind, data, flags=1):
    return struct.pack(">IHHQI", 0x668e33ef, flags, kind, cookie, len(data)) + data


HOSTILE_ANSWERS = {
    "garbage": lambda c, o, n: b"\xee" * 64,
    "a foreign cookie": lambda c, o, n: chunk(c + 1, 1, struct.pack(">Q", o) + bytes(n)),
    "data before the range": lambda c, o, n: chunk(c, 1, struct.pack(">Q", o - 1) + bytes(n)),
    "data behind the range": lambda c, o, n: chunk(c, 1, struct.pack(">Q", o + 1) + bytes(n)),
    "an offset that overflows": lambda c, o, n: chunk(c, 1, struct.pack(">Q", 2**64 - 1) + bytes(n)),
    "too little": lambda c, o, n: chunk(c, 1, struct.pack(">Q", o) + bytes(n - 1)),
    "twice the same": lambda c, o, n: chunk(c, 1, struct.pack(">Q", o) + bytes(n), 0) * 2,
    "an endless chunk": lambda c, o, n: struct.pack(">IHHQIQ", 0x668e33ef, 1, 1, c, 0xffffffff, o) + bytes(n),
    "a hole of 4 GiB": lambda c, o, n: chunk(c, 2, struct.pack(">QI", o, 0xffffffff)),
    "an empty hole": lambda c, o, n: chunk(c, 2, struct.pack(">QI", o, 0)),
    "block status for a read": lambda c, o, n: chunk(c, 5, struct.pack(">III", 5, n, 0)),
    "an error without a number": lambda c, o, n: chunk(c, 0x8001, struct.pack(">IH", 0, 0)),
    "an error with a long text": lambda c, o, n: chunk(c, 0x8001, struct.pack(">IH", 5, 9999)),
    "a simple reply": lambda c, o, n: struct.pack(">IIQ", 0x67446698, 0, c) + bytes(n),
    "an unknown chunk": lambda c, o, n: chunk(c, 77, b"abc"),
    "nothing": lambda c, o, n: chunk(c, 0, b""),
    "half an answer": lambda c, o, n: chunk(c, 1, struct.pack(">Q", o) + bytes(n))[:-5],
    "pieces without end": lambda c, o, n: b"".join(chunk(c, 1, struct.pack(">Q", o + 2 * k) + b"x", 0) for k in range(2000)),
}


def test_client_hostile():
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path("hostile.sock"))
    listener.listen()
    for name, answer in HOSTILE_ANSWERS.items():
        with Client(unix(path("hostile.sock"))) as c:
            pid = os.fork()
            if not pid:
                with contextlib.suppress(Exception):
                    Hostile(answer).serve(listener)
                os._exit(0)
            try:
                got = c.do("read 8192 8192")
                assert got[0] == os.strerror(5), f"{name}: {got}"
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        if name not in ("half an answer",):
            expect(c.errors, "breaks the protocol")
    for greeting, part in ((b"", "hung up"), (b"SSH-2.0-OpenSSH_9.2\r\n", "no NBD server"), (b"NBDMAGIC" + bytes(10), "neither newstyle"),
                           (b"NBDMAGICIHAVEOPT\0\3" + struct.pack(">QIII", 0x3e889045565a9, 8, 1, 0xffffffff), "too long"),
                           (b"NBDMAGICIHAVEOPT\0\3" + bytes(20), "no reply")):
        pid = os.fork()
        if not pid:
            with contextlib.suppress(Exception):
                Hostile(None, greeting).serve(listener)
            os._exit(0)
        try:
            expect(refusal(unix(path("hostile.sock"))), part)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main({
        "our client at qemu-nbd": test_client_qemu_nbd,
        "our client shows a bitmap of qemu-nbd": test_client_bitmap,
        "our client at nbdkit's kinds of servers": test_client_nbdkit,
        "our client hears of errors": test_client_errors,
        "our client's names": test_client_names,
        "our client reconnects": test_client_reconnect,
        "our client waits for a server": test_client_open_timeout,
        "our client at hostile servers": test_client_hostile,
    })
