# SPDX-License-Identifier: GPL-2.0-or-later
"""Ground for tests of NBD: our server and our client (nbd_peer), and other people's."""
import contextlib
import hashlib
import os
import subprocess

from peers import ENV, MIB, TOOL, contents, listens, need, path, process, run, wait_for

SIZE = 32 * MIB


def image(name="disk.raw"):
    """Data in [3 MiB, 11 MiB), zeroes elsewhere."""
    data = hashlib.shake_128(name.encode()).digest(8 * MIB)
    with open(path(name), "wb") as f:
        f.truncate(SIZE)
        f.seek(3 * MIB)
        f.write(data)
    return path(name)


@contextlib.contextmanager
def our_server(file, *creds, **options):
    """Yields (process, URI of the export); ends the server and expects that it ended well."""
    options = {"export": "x", **options}
    if "port" not in options:
        options.setdefault("unix", path("ours.sock"))
    command = [TOOL, "serve", f"driver=raw,file.driver=file,file.filename={file}",
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
        if p.wait(timeout=120):
            raise AssertionError(f"the server ended with {p.returncode}")
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()


class Client:
    """Our client at work on an image."""
    def __init__(self, options, *creds):
        self.p = subprocess.Popen([TOOL, "client", options, *creds], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True, env=ENV)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.p.stdin.close()
        try:
            self.p.wait(timeout=120)
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


def refusal(options, *creds, seconds=300):
    """What our client says when it cannot open."""
    done = run(TOOL, "client", options, *creds, check=False, input="", timeout=seconds)
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


@contextlib.contextmanager
def their_server(*command, sock="theirs.sock", ready=None):
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path(sock))
    with process(*command, stderr=subprocess.DEVNULL) as p:
        wait_for("the server's socket", ready or (lambda: listens(sock)))
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


def copy_both_ways(uri, file):
    run("nbdcopy", uri, path("out.raw"))
    assert contents(path("out.raw")) == contents(file), "nbdcopy read something else"
    other = image("other.raw")
    run("nbdcopy", other, uri)
    assert contents(file) == contents(other), "nbdcopy's writes did not arrive"
    run("nbdcopy", "--synchronous", uri, path("out.raw"))
    assert contents(path("out.raw")) == contents(other)
