# SPDX-License-Identifier: GPL-2.0-or-later
"""A daemon for a test, and libvirt's protocol by hand: messages as bytes, for what no well-behaved client sends."""
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

REMOTE, QEMU, KEEPALIVE = 0x20008086, 0x20008087, 0x6b656570
CALL, REPLY, MESSAGE, STREAM, CALL_FDS, REPLY_FDS, HOLE = range(7)
OK, ERROR, CONTINUE = range(3)


class Daemon:
    """ruched with folders and settings of its own."""

    def __init__(self, program, settings="", mode="--system", env=None, inside=()):
        self.folder = tempfile.mkdtemp(prefix="ruched-")
        os.chmod(self.folder, 0o755)
        self.run = os.path.join(self.folder, "run")
        self.state = os.path.join(self.folder, "state")
        config = os.path.join(self.folder, "ruched.conf")
        with open(config, "w", encoding="ascii") as out:
            out.write("[libvirt]\nusual_place=false\n" + settings)
        self.log_path = os.path.join(self.folder, "log")
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([*inside, program, mode, "--config", config, "--runtime-dir", self.run, "--state-dir", self.state],
                                            stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})
        self.socket = os.path.join(self.run, "libvirt-sock")
        self.socket_ro = os.path.join(self.run, "libvirt-sock-ro")
        wait_for("ruched", self.is_ready)

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError("ruched ended: " + self.log())
        return listens(self.socket) and listens(self.socket_ro)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def rss_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) // 1024

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(120)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if os.environ.get("KEEP_LOG"):
            sys.stderr.write(self.log())
        shutil.rmtree(self.folder, ignore_errors=True)


def listens(path):
    """A socket's name is there before its server listens."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path) == 0


def wait_for(what, test, seconds=120):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def message(number, body=b"", serial=1, program=REMOTE, version=1, kind=CALL, status=OK):
    return struct.pack(">IIIIiIi", 28 + len(body), program, version, number, kind, serial, status) + body


class Reply:
    def __init__(self, data):
        _, self.program, _, self.number, self.kind, self.serial, self.status = struct.unpack(">IIIIiIi", data[:28])
        self.body = data[28:]

    def error(self):
        """(code, domain, message, str1, str2, int1, int2)"""
        code, domain = struct.unpack(">ii", self.body[:8])
        at = 8
        texts = []

        def text():
            nonlocal at
            there, = struct.unpack_from(">I", self.body, at)
            at += 4
            if not there:
                return None
            length, = struct.unpack_from(">I", self.body, at)
            value = self.body[at + 4:at + 4 + length].decode()
            at += 4 + length + (-length % 4)
            return value

        texts.append(text())
        _, dom = struct.unpack_from(">iI", self.body, at)
        assert not dom
        at += 8
        texts += [text(), text(), text()]
        int1, int2, net = struct.unpack_from(">iiI", self.body, at)
        assert not net and at + 12 == len(self.body), "the error object has another length"
        return code, domain, texts[0], texts[1], texts[2], int1, int2


class Wire:
    """One connection."""

    def __init__(self, path, open_it=True, flags=0, timeout=120):
        self.sock = socket.socket(socket.AF_UNIX) if isinstance(path, str) else socket.create_connection(path)
        if isinstance(path, str):
            self.sock.connect(path)  # blocks while the daemon is behind
        self.sock.settimeout(timeout)
        self.serial = 1
        if open_it:
            assert self.call(66, serial=0).status == OK
            assert self.call(1, struct.pack(">I", 1) + string("qemu:///system") + struct.pack(">I", flags)).status == OK

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def exactly(self, count):
        parts = []
        while count:
            part = self.sock.recv(min(count, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def read(self):
        head = self.exactly(4)
        return Reply(head + self.exactly(struct.unpack(">I", head)[0] - 4))

    def send(self, *args, **more):
        self.sock.sendall(message(*args, **more))

    def call(self, number, body=b"", serial=None, **more):
        if serial is None:
            self.serial += 1
            serial = self.serial
        self.send(number, body, serial, **more)
        while True:
            reply = self.read()
            if reply.kind == REPLY and reply.serial == serial:
                return reply

    def is_closed(self, seconds=120):
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                pass
            return True
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def lives(self):
        reply = self.call(157)
        return reply.status == OK and reply.body == struct.pack(">Q", 9000000)


def domain_ref(reply_body):
    """The domain that a reply begins with, as an argument."""
    length, = struct.unpack(">I", reply_body[:4])
    return reply_body[:4 + length + (-length % 4) + 20]


DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64'>hvm</type></os><devices><memballoon model='none'/></devices></domain>"""


@contextlib.contextmanager
def defined(wire, name):
    """A domain while the block lasts; gives its reference."""
    reply = wire.call(11, string(DOMAIN.format(name=name)))
    assert reply.status == OK, reply.error()
    ref = domain_ref(reply.body)
    try:
        yield ref
    finally:
        wire.call(35, ref)
