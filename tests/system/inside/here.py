# SPDX-License-Identifier: GPL-2.0-or-later
"""Ground for the scripts beside it, which tests/system/inside_guest.py runs in a Debian guest, as root: ruched, virsh, a shell.

A script gives its cases to main(): {name: function}. Everything in the guest is its own, and gone afterwards: the two
empty disks /dev/vdc and /dev/vdd, the network, /root. Our programs are in /ruche.
"""
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, "/ruche/tests")

import tap  # noqa: E402

PROGRAMS = "/ruche"
LOG = "/root/ruched.log"
RUCHED = [f"{PROGRAMS}/ruched", "--system", "--config", "/etc/ruched.conf"]
SOCKET = "/run/ruche/libvirt-sock"
os.environ["LIBVIRT_DEFAULT_URI"] = f"qemu+unix:///system?socket={SOCKET}"
manager = None


def run(command, seconds=120):
    """A shell's command: its status and all it printed."""
    done = subprocess.run(["sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace", timeout=seconds, check=False)
    return done.returncode, done.stdout.strip()


def sh(command, seconds=120):
    """A command that must succeed; its output."""
    status, output = run(command, seconds)
    assert status == 0, f"'{command}' ended with {status}: {output}"
    return output


def wait_for(what, fn, seconds=120):
    """What fn() returns once that is something."""
    until = time.monotonic() + seconds
    while True:
        found = fn()
        if found:
            return found
        assert time.monotonic() < until, f"{what}: waited {seconds} s in vain"
        time.sleep(0.05)


def virsh(words, seconds=120):
    return sh(f"virsh -q {words}", seconds)


def virsh_all(*lines):
    """Several of them, in one process."""
    output = sh("virsh -q '" + "; ".join(lines) + "'")
    assert "error:" not in output, f"{lines}: {output}"
    return output


def refused(words, says):
    status, output = run(f"virsh -q {words}")
    assert status != 0 and says in output, f"virsh {words}: '{says}' is not in: {output}"


def ruche(words):
    return sh(f"{PROGRAMS}/ruche {words}")


def start():
    """The manager, until it answers."""
    global manager
    with open(LOG, "ab") as log:
        manager = subprocess.Popen(RUCHED, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    wait_for("ruched", lambda: manager.poll() is not None or os.path.exists(SOCKET))
    assert manager.poll() is None, log_text()


def end(how=signal.SIGTERM):
    manager.send_signal(how)
    return manager.wait(120)


def log_text():
    with open(LOG, encoding="utf-8", errors="replace") as log:
        return log.read()


def main(tests):
    """Runs those named on the command line, or all; the last one is the manager's own end."""
    def goes():
        assert manager.poll() is None, f"ruched ended with {manager.poll()}:\n{log_text()[-3000:]}"
        status = end()
        assert status == 0, f"ruched ended with {status}:\n{log_text()[-3000:]}"

    start()
    tap.run({**{n: tests[n] for n in sys.argv[1:] or tests}, "the manager ends": goes})
