# SPDX-License-Identifier: GPL-2.0-or-later
"""TAP for system tests: each test is a function; a failure shows its reason and the next one runs."""
import atexit
import os
import shutil
import signal
import socket
import sys
import tempfile
import termios
import time
import traceback


class Skip(Exception):
    """Raised by a test that cannot run here; the message says why."""


RESERVED = []
MAIN = os.getpid()


def at_time_limit(number, _):
    """As any other end of a test: what it started and made goes with it. A forked child made nothing."""
    if os.getpid() != MAIN:
        os._exit(128 + number)
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, at_time_limit)


def folder(prefix):
    """A folder of the test's own, which goes when the test ends, also by a time limit."""
    made = tempfile.mkdtemp(prefix=prefix)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def free_port():
    """A port of 127.0.0.1 that stays free until a program of this test listens there: it is bound here, and servers share such ports."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", 0))
    RESERVED.append(s)
    return s.getsockname()[1]


def has_ended(pid):
    """A process that is nobody's child may stay as a zombie for ever; while other threads of it live, it still has its files and their locks."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            return f.read().rpartition(")")[2].split()[0] in "ZX" and len(os.listdir(f"/proc/{pid}/task")) == 1
    except OSError:
        return True


def lasting_threads(pid):
    """How many threads have a name of their own: vCPUs, loops. Workers of images and of io_uring come and go as they like."""
    names = []
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8") as f:
                names.append(f.read())
        except FileNotFoundError:
            pass  # it has ended
    with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
        main = f.read()
    return sum(name != main and not name.startswith("iou-") for name in names)


def wait_raw(fd, seconds=120):
    """Until the program on this terminal reads single keys: it drops what is typed before."""
    end = time.monotonic() + seconds
    while termios.tcgetattr(fd)[3] & termios.ICANON:
        assert time.monotonic() < end, "the terminal did not become raw"
        time.sleep(0.01)


def run(tests):
    """Runs {name: function}; exits with 1 when one failed."""
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for number, (name, test) in enumerate(tests.items(), 1):
        start = time.monotonic()
        try:
            test()
        except Skip as reason:
            print(f"ok {number} - {name} # SKIP {reason}", flush=True)
        except Exception:  # every failure is a failed test, not a failed run
            failed += 1
            print(f"not ok {number} - {name}", flush=True)
            for line in traceback.format_exc().splitlines():
                print("# " + line)
        else:
            print(f"ok {number} - {name} ({time.monotonic() - start:.1f} s)", flush=True)
    sys.exit(1 if failed else 0)
