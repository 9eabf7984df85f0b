# SPDX-License-Identifier: GPL-2.0-or-later
"""DPDK's testpmd as a switch that serves cards over vhost-user; it needs no huge pages here."""
import contextlib
import os
import subprocess
import time

SECONDS = int(os.environ.get("RUCHE_WAIT_SECONDS", "120"))


def wait_for(what, test):
    end = time.monotonic() + SECONDS
    while not test():
        assert time.monotonic() < end, f"waited {SECONDS} s for {what}"
        time.sleep(0.02)


class Switch:
    """testpmd: four ports with two pairs of queues each. client: it connects, and comes again."""

    def __init__(self, folder, name, client=False):
        self.folder, self.name, self.client = folder, name, client
        self.start()

    def path(self, name):
        return os.path.join(self.folder, name)

    def port(self, n):
        return self.path(f"{self.name}{n}")

    def start(self):
        cpus = ",".join(str(n) for n in os.sched_getaffinity(0))
        vdevs = [f"--vdev=net_vhost{n},iface={self.port(n)},queues=2,client={int(self.client)}" for n in range(4)]
        if not self.client:
            for n in range(4):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.port(n))
        with open(self.path(self.name + ".log"), "ab") as log:
            self.process = subprocess.Popen(
                ["dpdk-testpmd", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry", f"--lcores=0@({cpus}),1@({cpus})",
                 f"--file-prefix={self.name}{os.getpid()}", *vdevs, "--", "--forward-mode=io", "--total-num-mbufs=4096", "--rxq=2", "--txq=2",
                 "--auto-start", "--disable-link-check"], stdin=subprocess.PIPE, stdout=log, stderr=log)
        if not self.client:
            wait_for("testpmd's sockets", lambda: self.process.poll() is not None or os.path.exists(self.port(3)))
        if self.process.poll() is not None:
            with open(self.path(self.name + ".log"), encoding="utf-8", errors="replace") as log:
                raise AssertionError("testpmd ended: " + log.read()[-1500:])

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
