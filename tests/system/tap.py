# SPDX-License-Identifier: GPL-2.0-or-later
"""TAP for system tests: each test is a function; a failure shows its reason and the next one runs."""
import sys
import termios
import time
import traceback


class Skip(Exception):
    """Raised by a test that cannot run here; the message says why."""


def wait_raw(fd, seconds=20):
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
