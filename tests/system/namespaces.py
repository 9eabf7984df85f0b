# SPDX-License-Identifier: GPL-2.0-or-later
"""Ground for tests of ruched in a network namespace of its own: a folder, programs, waiting, the manager, and the run.

The first argument of the test is RUCHED. Nothing of this host's own network is touched.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import tap

RUCHED = os.path.abspath(sys.argv[1])
WORK = tap.folder(f"ruche-{os.path.basename(sys.argv[0]).removesuffix('.py')}-")
os.chmod(WORK, 0o755)
RUN, STATE = os.path.join(WORK, "run"), os.path.join(WORK, "state")
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
TAG = f"rn{os.getpid()}"
HOST = TAG + "h"  # the manager's namespace


def run(*command, ns=None, check=True, timeout=120, env=None, stdin=None):
    """`stdin`: the text that it reads."""
    words = (["ip", "netns", "exec", ns] if ns else []) + list(command)
    source = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, env={**ENV, **(env or {})}, **source)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-800:]}")
    return done


def wait_for(what, fn, seconds=60):
    """Until fn() finds something, which is the answer."""
    until = time.monotonic() + seconds
    while True:
        found = fn()
        if found:
            return found
        assert time.monotonic() < until, f"{what}: waited {seconds} s in vain"
        time.sleep(0.05)


def write(name, text, mode=0o644):
    where = os.path.join(WORK, name)
    os.makedirs(os.path.dirname(where), exist_ok=True)
    with open(where, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(where, mode)
    return where


def virsh(*command, check=True, timeout=120):
    return run("virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", *command, check=check, timeout=timeout)


def refused(part, *command):
    done = virsh(*command, check=False)
    assert done.returncode and re.search(part, done.stderr), f"{command}: not refused with '{part}': {done.stdout}{done.stderr}"


class Manager:
    def __init__(self, settings=""):
        self.process = None
        self.config = write("conf", "[libvirt]\nusual_place=false\n" + settings)
        self.start()

    def start(self, *before):
        """`before`: the words of a program that starts it."""
        with open(os.path.join(WORK, "log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", HOST, *before, RUCHED, "--system", "--config", self.config, "--runtime-dir", RUN,
                                             "--state-dir", STATE], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=ENV)
        wait_for("ruched", lambda: self.process.poll() is not None or not virsh("uri", check=False).returncode)
        assert self.process.poll() is None, self.log()

    def log(self):
        with open(os.path.join(WORK, "log"), encoding="utf-8") as f:
            return f.read()

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(120)


def give_up(manager, *namespaces):
    """The end of all: the manager (None: it never was), what runs in the namespaces, and they."""
    if manager and manager.process.poll() is None:
        manager.end()
    if manager and os.environ.get("KEEP_LOG"):
        sys.stderr.write(manager.log())
    for ns in namespaces:
        for pid in run("ip", "netns", "pids", ns, check=False).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", ns, check=False)


def main(tests, wanted, programs, begin, end):
    """The tests `wanted` (none named: all) between begin() and end(); all are skipped where a program is not installed."""
    tests = {n: t for n, t in tests.items() if not wanted or n in wanted}
    missing = [p for p in programs if not shutil.which(p, path=ENV["PATH"])]
    if os.geteuid() or missing:
        why = "needs root" if os.geteuid() else f"{missing[0]} is not installed"

        def skip():
            raise tap.Skip(why)
        tap.run({n: skip for n in tests})
    try:
        begin()
        tap.run(tests)
    finally:
        end()
