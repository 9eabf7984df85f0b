#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A stock Debian 12 on ruche-vmm: login, network, disk, reboot, power-off; a compiler and test suites inside.

    debian.py RUCHE-VMM SCENARIO     one of SCENARIOS
"""
import difflib
import functools
import hashlib
import http.server
import os
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import Vmm, copy_disk, debian_arguments  # noqa: E402

DOWNLOAD_BYTES = 10 * 1000 * 1000
BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "1200"))

PART_SECONDS = 1800  # of one part of inside/run.sh

SCENARIOS = {
    "soft-1": {"arguments": ["-accel", "soft", "-smp", "1"], "cpus": 1},
    "soft-2": {"arguments": ["-accel", "soft", "-smp", "2"], "cpus": 2},
    "interpreted": {"arguments": ["-accel", "soft,translate=off", "-smp", "1"], "cpus": 1},
    "base": {"arguments": ["-accel", "soft", "-smp", "1", "-cpu", "base"], "cpus": 1},
    "microvm": {"arguments": ["-accel", "soft", "-smp", "1", "-machine", "microvm"], "cpus": 1},
    "tools": {"arguments": ["-accel", "soft", "-smp", "2"], "cpus": 2, "tools": True},
    "lockstep": {"arguments": ["-accel", "soft,translate=lockstep", "-smp", "1"], "cpus": 1, "slower": 3},
}
TESTS = {
    "tools": ("login", "compile", "bzip2", "python", "openssl", "halt"),
    "lockstep": ("login", "halt"),
    "interpreted": ("login", "kernel log", "download", "disk", "power-off"),  # a second boot would say no more
}
DEFAULT_TESTS = ("login", "kernel log", "download", "disk", "reboot", "power-off")


class Guest:
    """One boot, shared by the tests of a scenario in their order."""

    def __init__(self, binary, scenario):
        self.cpus = scenario["cpus"]
        self.boot_seconds = BOOT_SECONDS * scenario.get("slower", 1)
        self.folder = tempfile.TemporaryDirectory(prefix="ruche-debian-")
        image = subprocess.run([os.path.join(ROOT, "tools", "guest-image")], check=True, stdout=subprocess.PIPE,
                               text=True).stdout.strip()
        self.disk = os.path.join(self.folder.name, "disk.img")
        self.data = os.path.join(self.folder.name, "data.img")
        copy_disk(os.path.join(image, "disk.img"), self.disk)
        with open(self.data, "wb") as data:
            data.truncate(256 << 20)
        arguments = debian_arguments(image, self.disk, "1G" if "tools" in scenario else "512M")
        arguments += scenario["arguments"]
        if "tools" in scenario:
            self.tools = subprocess.run([os.path.join(ROOT, "tools", "test-image")], check=True, stdout=subprocess.PIPE,
                                        text=True).stdout.strip()
            arguments += ["-drive", f"file={self.tools}/tools.img,if=virtio,format=raw,readonly=on"]
        else:
            arguments += ["-drive", f"file={self.data},if=virtio,format=raw"]
        self.vmm = Vmm(binary, arguments)
        self.content = hashlib.sha256(b"ruche").digest()

    def close(self):
        self.vmm.close()
        self.folder.cleanup()

    def sh(self, command, seconds=600):
        """A command that must succeed; its output."""
        status, output = self.vmm.console.run(command, seconds)
        assert status == 0, f"'{command}' ended with {status}: {output}"
        return output


def test_login(guest):
    guest.vmm.console.login(guest.boot_seconds)
    assert "bookworm" in guest.sh("cat /etc/os-release")
    assert guest.sh("nproc") == str(guest.cpus)
    state = guest.sh("systemctl is-system-running --wait || true", 900)
    assert state == "running", f"systemd says '{state}': " + guest.sh("systemctl --failed --no-legend")


def test_kernel_log(guest):
    """The kernel has no complaint about the machine it found."""
    bad = guest.sh("dmesg --level=emerg,alert,crit,err || true")
    assert not bad, bad
    bad = guest.sh("dmesg | grep -iE 'BUG:|soft lockup|rcu.*stall|Call Trace|unstable|firmware bug' || true")
    assert not bad, bad


def test_download(guest):
    """10 MB over `user` networking, with the right hash."""
    blob = hashlib.shake_256(b"download").digest(DOWNLOAD_BYTES)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(blob)))
            self.end_headers()
            self.wfile.write(blob)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        output = guest.sh(f"curl -sS http://10.0.2.2:{server.server_port}/ | sha256sum", 900)
    finally:
        server.shutdown()
    assert output.split()[0] == hashlib.sha256(blob).hexdigest(), output


def test_disk(guest):
    """A file system made, filled and synced; the host looks at it after power-off."""
    guest.sh("mkfs.ext4 -q /dev/vdb && mkdir -p /data && mount /dev/vdb /data")
    guest.sh("head -c 48000000 /dev/urandom >/data/blob && cp /bin/bash /data/ && sync", 900)
    guest.blob_hash = guest.sh("sha256sum /data/blob", 900).split()[0]
    guest.sh("umount /data && echo 3 >/proc/sys/vm/drop_caches && mount /dev/vdb /data")
    assert guest.sh("sha256sum /data/blob", 900).split()[0] == guest.blob_hash
    guest.sh("umount /data && sync")


def test_reboot(guest):
    guest.vmm.console.send("reboot\n")
    guest.vmm.console.expect(r"Linux version", BOOT_SECONDS)
    guest.vmm.console.login(BOOT_SECONDS)
    guest.vmm.qmp.wait_event("RESET")


def test_power_off(guest):
    guest.vmm.qmp.execute("system_powerdown")
    status = guest.vmm.wait(600)
    assert status == 0, f"exit status {status}: {guest.vmm.errors()}"
    check = subprocess.run(["e2fsck", "-fn", guest.data], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           check=False)
    assert check.returncode == 0, check.stdout
    blob = subprocess.run(["debugfs", "-R", "cat /blob", guest.data], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout
    assert hashlib.sha256(blob).hexdigest() == guest.blob_hash


def test_halt(guest):
    guest.vmm.qmp.execute("system_powerdown")
    status = guest.vmm.wait(600)
    assert status == 0, f"exit status {status}: {guest.vmm.errors()}"


def run_inside(part):
    """A part of inside/run.sh prints in the guest what the same files printed natively."""
    def test(guest):
        if not hasattr(guest, "root"):
            guest.root = "/mnt"
            guest.sh("mount -o ro /dev/vdb /mnt && mount -t tmpfs tmpfs /mnt/tmp && mount --bind /dev /mnt/dev && "
                     "mount -t proc proc /mnt/proc && dmesg -n 1")
        got = guest.sh(f"chroot {guest.root} sh /inside/run.sh {part} 2>/dev/null", PART_SECONDS)
        with open(os.path.join(guest.tools, f"expected.{part}"), encoding="utf-8") as f:
            wanted = f.read()
        changes = difflib.unified_diff(wanted.strip().splitlines(), got.strip().splitlines(), "natively", "in the guest",
                                       lineterm="")
        assert got.strip() == wanted.strip(), "\n".join(changes)
    return test


def main():
    binary, name = sys.argv[1], sys.argv[2]
    tests = {"login": test_login, "kernel log": test_kernel_log, "download": test_download, "disk": test_disk,
             "reboot": test_reboot, "power-off": test_power_off, "halt": test_halt}
    tests |= {part: run_inside(part) for part in ("compile", "bzip2", "python", "openssl")}
    guest = Guest(binary, SCENARIOS[name])
    try:
        tap.run({f"{name}: {title}": functools.partial(tests[title], guest) for title in TESTS.get(name, DEFAULT_TESTS)})
    finally:
        guest.close()


if __name__ == "__main__":
    main()
