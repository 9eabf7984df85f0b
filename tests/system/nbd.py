#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Our NBD server and client against other people's: nbdinfo, nbdcopy, nbdkit, qemu-nbd, qemu-img, qemu-io. TAP."""
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

import tap

MIB = 1 << 20
SIZE = 32 * MIB
PEER = sys.argv[1]
WORK = tempfile.mkdtemp(prefix="nbd-")
ENV = {**os.environ, "LC_ALL": "C"}


def path(name):
    return os.path.join(WORK, name)


def run(*command, check=True, timeout=60, **more):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENV, check=False, **more)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise tap.Skip(f"{program} is not installed")


def wait_for(what, test, seconds=10):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def process(*command, **more):
    p = subprocess.Popen(command, text=True, env=ENV, **more)
    try:
        yield p
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()


def image(name="disk.raw"):
    """Data in [3 MiB, 11 MiB), zeroes elsewhere."""
    data = hashlib.shake_128(name.encode()).digest(8 * MIB)
    with open(path(name), "wb") as f:
        f.truncate(SIZE)
        f.seek(3 * MIB)
        f.write(data)
    return path(name)


def contents(name):
    with open(name, "rb") as f:
        return f.read()


@contextlib.contextmanager
def our_server(file, *creds, **options):
    """Yields (process, URI of the export); ends the server and expects that it ended well."""
    options = {"export": "x", **options}
    if "port" not in options:
        options.setdefault("unix", path("ours.sock"))
    command = [PEER, "serve", f"driver=raw,file.driver=file,file.filename={file}",
               ",".join(f"{k.replace('_', '-')}={v}" for k, v in options.items()), *creds]
    p = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENV)
    try:
        first = p.stdout.readline().split()
        if not first or first[0] != "ready":
            raise AssertionError(f"{' '.join(command)} did not start")
        scheme = "nbds" if creds else "nbd"
        if "unix" in options:
            uri = f"{scheme}+unix:///{options['export']}?socket={options['unix']}"
        else:
            uri = f"{first[1]}/{options['export']}"
        yield p, uri
        p.stdin.close()
        if p.wait(timeout=10):
            raise AssertionError(f"the server ended with {p.returncode}")
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()


class Client:
    """Our client at work on an image."""
    def __init__(self, options, *creds):
        self.p = subprocess.Popen([PEER, "client", options, *creds], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=ENV)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.p.stdin.close()
        try:
            self.p.wait(timeout=10)
        finally:
            self.p.kill()
        self.errors = self.p.stderr.read()

    def do(self, command):
        """The lines of output; the last one is "ok" or an error."""
        self.p.stdin.write(command + "\n")
        self.p.stdin.flush()
        lines = []
        while True:
            line = self.p.stdout.readline()
            if not line:
                raise AssertionError(f"'{command}': the client ended: {lines} {self.p.stderr.read()}")
            lines.append(line.strip())
            if lines[-1] == "ok" or (lines[-1][:1].isupper() and len(lines[-1]) < 64 and " data" not in lines[-1]):
                return lines
            if lines[-1].startswith("refused"):
                return lines

    def good(self, command):
        lines = self.do(command)
        if lines[-1] != "ok":
            raise AssertionError(f"'{command}': {lines}")
        return lines[:-1]


def refusal(options, *creds, seconds=20):
    """What our client says when it cannot open."""
    done = run(PEER, "client", options, *creds, check=False, input="", timeout=seconds)
    if not done.stdout.startswith("refused: "):
        raise AssertionError(f"{options} was not refused: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def expect(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError(f"'{part}' is not in: {text}")


def digest(data):
    return hashlib.sha256(data).hexdigest()


def unix(file, **more):
    return ",".join([f"driver=nbd,server.type=unix,server.path={file}", *(f"{k.replace('_', '-')}={v}" for k, v in more.items())])


# --- our server ---

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


def copy_both_ways(uri, file):
    run("nbdcopy", uri, path("out.raw"))
    assert contents(path("out.raw")) == contents(file), "nbdcopy read something else"
    other = image("other.raw")
    run("nbdcopy", other, uri)
    assert contents(file) == contents(other), "nbdcopy's writes did not arrive"
    run("nbdcopy", "--synchronous", uri, path("out.raw"))
    assert contents(path("out.raw")) == contents(other)


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
        self.s.settimeout(15)
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
    with our_server(image(), handshake_ms="300", max_connections="2"):
        silent = Raw()
        silent.read(18)
        start = time.monotonic()
        try:
            silent.read(1)
            raise AssertionError("a silent client may stay")
        except EOFError:
            assert time.monotonic() - start < 5
        a, b = Raw(), Raw()
        a.go()
        b.go()
        time.sleep(0.5)  # longer than a handshake may take: who has finished it may be idle
        c = Raw()
        c.s.settimeout(0.3)
        try:
            c.read(1)
            raise AssertionError("three clients were let in where two may")
        except TimeoutError:
            pass
        a.s.close()
        c.s.settimeout(10)
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
        start = time.monotonic()
        server.stdin.close()
        server.wait(timeout=10)
        assert time.monotonic() - start < 5
    assert not os.path.exists(path("ours.sock")), "the socket stays behind"


# --- TLS ---

def make_psk(folder, user, key):
    os.makedirs(path(folder), exist_ok=True)
    with open(path(folder + "/keys.psk"), "w", encoding="ascii") as f:
        f.write(f"{user}:{key}\n")
    return path(folder)


def make_certificates():
    """A CA, a server certificate for localhost and 127.0.0.1, a client's; and another CA's client."""
    need("certtool")
    if os.path.exists(path("pki/ca-cert.pem")):
        return
    for ca, folder in (("ca", "pki"), ("ca2", "pki2")):
        os.makedirs(path(folder))
        roles = {"ca": "cn = Test\nca\ncert_signing_key\n",
                 "server": "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n",
                 "client": "cn = client\norganization = Bees\ncountry = FR\ntls_www_client\nencryption_key\nsigning_key\n"}
        for role, template in roles.items():
            key, cert = path(f"{folder}/{role}-key.pem"), path(f"{folder}/{role}-cert.pem")
            with open(path("template"), "w", encoding="ascii") as f:
                f.write(template + "expiration_days = 30\n")
            run("certtool", "--generate-privkey", "--ecc", "--outfile", key)
            if role == "ca":
                run("certtool", "--generate-self-signed", "--load-privkey", key, "--template", path("template"), "--outfile", cert)
            else:
                run("certtool", "--generate-certificate", "--load-privkey", key, "--load-ca-certificate",
                    path(folder + "/ca-cert.pem"), "--load-ca-privkey", path(folder + "/ca-key.pem"), "--template",
                    path("template"), "--outfile", cert)


def test_tls_psk_server():
    need("nbdcopy", "qemu-io")
    good, bad = make_psk("psk", "qemu", "0123456789abcdef" * 4), make_psk("badpsk", "qemu", "f" * 64)
    file = image()
    creds = f"id=t,kind=tls-creds-psk,endpoint=server,dir={good}"
    with our_server(file, creds, writable="on", tls="t") as (_, uri):
        copy_both_ways(f"{uri}&tls-psk-file={good}/keys.psk".replace("nbds+unix://", "nbds+unix://qemu@"), file)
        plain = run("nbdinfo", uri.replace("nbds", "nbd"), check=False)
        assert plain.returncode, "a client without TLS was let in"
        opts = "driver=nbd,tls-creds=c,export=x,server.type=unix,server.path=" + path("ours.sock")
        run("qemu-io", "--object", f"tls-creds-psk,id=c,endpoint=client,dir={good}", "--image-opts",
            "-c", "write -P 7 0 3M", "-c", "read -P 7 0 3M", opts)
        wrong = run("qemu-io", "--object", f"tls-creds-psk,id=c,endpoint=client,dir={bad}", "--image-opts", "-c", "read 0 1", opts,
                    check=False)
        assert wrong.returncode, "a wrong key was accepted"
        with Client(unix(path("ours.sock"), export="x", tls_creds="c"),
                    f"id=c,kind=tls-creds-psk,endpoint=client,dir={good}") as c:
            assert c.good("read 0 3145728") == [digest(b"\7" * (3 * MIB))]
            c.good("storm 2000 16 4096")
        expect(refusal(unix(path("ours.sock"), export="x", tls_creds="c"),
                       f"id=c,kind=tls-creds-psk,endpoint=client,dir={bad}"), "tls-creds-psk 'c'")
        expect(refusal(unix(path("ours.sock"), export="x")), "requires TLS")


def test_tls_x509_server():
    make_certificates()
    need("qemu-io")
    file = image()
    creds = f"id=t,kind=tls-creds-x509,endpoint=server,dir={path('pki')}"
    with our_server(file, creds, writable="on", tls="t", port="0") as (_, uri):
        port = uri.rsplit(":", 1)[1].split("/")[0]
        opts = f"driver=nbd,tls-creds=c,export=x,server.type=inet,server.host=localhost,server.port={port}"
        run("qemu-io", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={path('pki')}", "--image-opts",
            "-c", "write -P 9 1M 2M", "-c", "read -P 9 1M 2M", opts)
        ours = f"id=c,kind=tls-creds-x509,endpoint=client,dir={path('pki')}"
        with Client(opts, ours) as c:
            assert c.good(f"read {MIB} {2 * MIB}") == [digest(b"\x09" * (2 * MIB))]
        with Client(opts.replace("localhost", "127.0.0.1"), ours) as c:
            c.good("read 0 4096")
        expect(refusal(opts + ",tls-hostname=elsewhere", ours), "'elsewhere' is refused")
        expect(refusal(opts, ours.replace("pki", "pki2")), "is refused")
        anonymous = path("pki-anonymous")
        os.makedirs(anonymous, exist_ok=True)
        shutil.copy(path("pki/ca-cert.pem"), anonymous)
        refused = run("qemu-io", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={anonymous}", "--image-opts", "-c", "read 0 1",
                      opts, check=False)
        assert refused.returncode, "a client without certificate was let in"
    with our_server(file, creds + ",verify-peer=off", tls="t", port="0") as (_, uri):
        port = uri.rsplit(":", 1)[1].split("/")[0]
        opts = f"driver=nbd,tls-creds=c,export=x,server.type=inet,server.host=localhost,server.port={port}"
        run("qemu-io", "-r", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={path('pki-anonymous')}", "--image-opts",
            "-c", "read 0 1", opts)


def test_tls_authz():
    """Who is let in, by the name in a client's certificate: what our server takes for it, qemu-nbd does, too."""
    make_certificates()
    need("qemu-io")
    file = image()
    creds = f"id=t,kind=tls-creds-x509,endpoint=server,dir={path('pki')}"

    def try_it(sock):
        opts = f"driver=nbd,tls-creds=c,tls-hostname=localhost,export=x,server.type=unix,server.path={path(sock)}"
        return run("qemu-io", "-r", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={path('pki')}", "--image-opts",
                   "-c", "read 0 512", opts, check=False).returncode == 0

    name = "C=FR,O=Bees,CN=client".replace(",", ",,")
    for identity, allowed in ((name, True), (name.replace("client", "clien"), False)):
        with our_server(file, creds, f"id=a,kind=authz-simple,identity={identity}", tls="t", tls_authz="a"):
            assert try_it("ours.sock") == allowed, identity
        with qemu_nbd(file, "--object", f"tls-creds-x509,id=s,endpoint=server,verify-peer=on,dir={path('pki')}", "--tls-creds", "s",
                      "--object", f"authz-simple,id=a,identity={identity}", "--tls-authz", "a"):
            assert try_it("theirs.sock") == allowed, identity
    rules = "id=a,kind=authz-list,policy=deny,rules.0.match=C=FR*,rules.0.format=glob,rules.0.policy="
    for policy in ("allow", "deny"):
        with our_server(file, creds, rules + policy, tls="t", tls_authz="a"):
            assert try_it("ours.sock") == (policy == "allow"), policy
    with our_server(file, creds, tls="t", tls_authz="missing"):
        assert not try_it("ours.sock")


def test_tls_anonymous():
    file = image()
    with our_server(file, "id=t,kind=tls-creds-anon,endpoint=server", tls="t"):
        with Client(unix(path("ours.sock"), export="x", tls_creds="c", read_only="on"), "id=c,kind=tls-creds-anon,endpoint=client") as c:
            assert c.good(f"read 0 {SIZE}") == [digest(contents(file))]


# --- our client ---

@contextlib.contextmanager
def their_server(*command, sock="theirs.sock", ready=None):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path(sock))
    with process(*command, stderr=subprocess.DEVNULL) as p:
        wait_for("the server's socket", ready or (lambda: os.path.exists(path(sock))))
        yield p


def qemu_nbd(file, *more, form="raw"):
    need("qemu-nbd")
    return their_server("qemu-nbd", "-t", "-k", path("theirs.sock"), "-f", form, "-x", "x", "--discard=unmap", *more, file)


def nbdkit(*words, sock="theirs.sock"):
    need("nbdkit")
    return their_server("nbdkit", "-f", "--exit-with-parent", "-U", path(sock), *words, sock=sock)


def exercise(options, file, *creds, writes=True):
    with Client(options, *creds) as c:
        assert c.good("size")[0].split()[0] == str(SIZE)
        assert c.good(f"read 0 {SIZE}") == [digest(contents(file))]
        assert c.good("read 3145727 70001") == [digest(contents(file)[3145727:3145727 + 70001])]
        c.good("storm 3000 32 4096")
        if not writes:
            return
        c.good(f"write {20 * MIB - 5} 100010 99 1")
        c.good(f"write 0 {3 * MIB} 65")
        c.good(f"zero {4 * MIB} {MIB} 2")
        c.good(f"zero {5 * MIB} {MIB}")
        c.good(f"discard {6 * MIB} {MIB}")
        c.good("flush")
        assert c.good(f"read {20 * MIB - 5} 100010") == [digest(b"c" * 100010)]
    data = contents(file)
    assert data[20 * MIB - 5:20 * MIB + 100005] == b"c" * 100010 and data[:3 * MIB] == b"A" * (3 * MIB)
    assert data[4 * MIB:6 * MIB] == bytes(2 * MIB), "zeroes did not arrive"


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


def test_client_tls():
    make_certificates()
    file = image()
    psk = make_psk("psk", "qemu", "0123456789abcdef" * 4)
    with nbdkit("--tls=require", f"--tls-psk={psk}/keys.psk", "file", file):
        exercise(unix(path("theirs.sock"), tls_creds="c"), file, f"id=c,kind=tls-creds-psk,endpoint=client,dir={psk}")
        expect(refusal(unix(path("theirs.sock"))), "requires TLS")
    with nbdkit("--tls=require", f"--tls-certificates={path('pki')}", "--tls-verify-peer", "file", file):
        opts = unix(path("theirs.sock"), tls_creds="c", tls_hostname="localhost")
        creds = f"id=c,kind=tls-creds-x509,endpoint=client,dir={path('pki')}"
        exercise(opts, file, creds)
        expect(refusal(opts.replace("localhost", "elsewhere"), creds), "'elsewhere' is refused")
        expect(refusal(opts, creds.replace("pki", "pki2")), "is refused")
    with qemu_nbd(file, "--object", f"tls-creds-psk,id=s,endpoint=server,dir={psk}", "--tls-creds", "s"):
        exercise(unix(path("theirs.sock"), export="x", tls_creds="c"), file, f"id=c,kind=tls-creds-psk,endpoint=client,dir={psk}")
    with nbdkit("--tls=off", "file", file):
        expect(refusal(unix(path("theirs.sock"), tls_creds="c"), f"id=c,kind=tls-creds-psk,endpoint=client,dir={psk}"), "NBD_OPT_STARTTLS")


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


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def can_connect(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def test_client_reconnect():
    file = image()
    opts = unix(path("theirs.sock"), reconnect_delay=20)
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
        time.sleep(1.1)
        client.good("read 0 4096")


def test_client_open_timeout():
    need("nbdkit")
    file = image()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path("theirs.sock"))
    with Client(unix(path("theirs.sock"), open_timeout=20)) as c:
        time.sleep(0.7)
        with nbdkit("file", file):
            assert c.good("read 0 4096") == [digest(bytes(4096))]


class Hostile:
    """A server that negotiates well, with structured replies, and answers the first request with `answer`."""
    def __init__(self, answer, greeting=None):
        self.answer, self.greeting = answer, greeting

    def serve(self, listener):
        s, _ = listener.accept()
        s.settimeout(5)
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


TESTS = {
    "what nbdinfo shows of our server": test_info,
    "nbdcopy to and from our server": test_nbdcopy,
    "qemu-io and qemu-img on our server": test_qemu_io,
    "qemu-img reads our dirty bitmap": test_qemu_bitmap,
    "options that good clients do not send": test_options_by_hand,
    "requests that good clients do not send": test_requests_by_hand,
    "clients that ask and do not read": test_greedy_clients,
    "limits on handshakes and connections": test_handshake_limits,
    "the server ends under load": test_server_end,
    "our server with TLS, pre-shared keys": test_tls_psk_server,
    "our server with TLS, certificates": test_tls_x509_server,
    "authorization of TLS clients": test_tls_authz,
    "TLS, anonymous": test_tls_anonymous,
    "our client at qemu-nbd": test_client_qemu_nbd,
    "our client shows a bitmap of qemu-nbd": test_client_bitmap,
    "our client at nbdkit's kinds of servers": test_client_nbdkit,
    "our client hears of errors": test_client_errors,
    "our client with TLS": test_client_tls,
    "our client's names": test_client_names,
    "our client reconnects": test_client_reconnect,
    "our client waits for a server": test_client_open_timeout,
    "our client at hostile servers": test_client_hostile,
}

if __name__ == "__main__":
    try:
        chosen = {k: v for k, v in TESTS.items() if len(sys.argv) < 3 or sys.argv[2] in k}
        tap.run(chosen)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
