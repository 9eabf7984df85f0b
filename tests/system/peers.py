# SPDX-License-Identifier: GPL-2.0-or-later
"""Ground for tests of images beside other people's programs: a folder of the run's own, programs, waiting, and the run.

The first argument of the test is the program under test (TOOL); further ones are words: only tests whose names contain
one of them run.
"""
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import tap

MIB = 1 << 20
TOOL = os.path.abspath(sys.argv[1])
WORK = tempfile.mkdtemp(prefix=f"ruche-{os.path.basename(sys.argv[0]).removesuffix('.py')}-")
ENV = {**os.environ, "LC_ALL": "C"}


def path(name):
    return os.path.join(WORK, name)


def contents(name):
    with open(path(name), "rb") as f:
        return f.read()


def run(*command, code=0, check=True, timeout=600, **more):
    """In the run's folder; code: how it has to end, unless check is off."""
    more.setdefault("cwd", WORK)
    if "input" not in more:
        more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=ENV, check=False, **more)
    if check and done.returncode != code:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}, not {code}: "
                             f"{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


def img(*words, **more):
    return run(TOOL, *words, **more)


def refused(part, *words, **more):
    """ruche-img says so, and why."""
    done = img(*words, check=False, **more)
    assert done.returncode, f"{words} was not refused"
    assert part in done.stderr, f"'{part}' is not in: {done.stderr}"


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise tap.Skip(f"{program} is not installed")


def wait_for(what, test, seconds=120):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def process(*command, **more):
    more.setdefault("cwd", WORK)
    p = subprocess.Popen(command, text=True, env=ENV, **more)
    try:
        yield p
    finally:
        if p.poll() is None:
            p.kill()
        p.wait()


free_port = tap.free_port


def can_connect(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def listens(file):
    """A socket of that name is there before its server listens."""
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(path(file)) == 0


def in_own_network():
    """The test once more, with --inside, in a network namespace of its own; its output is ours."""
    need("unshare", "ip")
    own = ["unshare", "-n", "-m", "sh", "-c", 'ip link set lo up && mount -t tmpfs none /run && exec "$@"', "sh"]
    if run(*own, "true", check=False).returncode:
        raise tap.Skip("no network namespaces here")
    return [*own, sys.executable, os.path.abspath(sys.argv[0]), TOOL, "--inside"]


def main(tests):
    words = [word for word in sys.argv[2:] if not word.startswith("--")]
    try:
        tap.run({name: test for name, test in tests.items() if not words or any(word in name for word in words)})
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
