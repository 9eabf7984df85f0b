#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a script of tests/system/inside/ in a Debian guest that has what this host's kernel may lack; its TAP is this one's.

    inside_guest.py RUCHE-VMM RUCHE-IMG RUCHED RUCHE KERNEL SCRIPT [CASES]      KERNEL: a payload for machines in the guest
    inside_guest.py RUCHE-VMM RUCHE-IMG                                         only boots the guest and keeps it

The guest (`tools/guest-image full`) boots once per ruche-vmm: what it had become at its prompt is saved to ~/.cache/ruche (or
$RUCHE_CACHE), and each run goes on from there, in a machine and with disks of its own. A state that cannot be loaded is
made again by a boot.
"""
import fcntl
import glob
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tools"))

from guest import GuestError, Vmm, debian_arguments  # noqa: E402

VMM, IMG = (os.path.abspath(p) for p in sys.argv[1:3])
CACHE = os.environ.get("RUCHE_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ruche")
BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "400"))
SILENCE_SECONDS = 400  # nothing printed for so long: a case hangs
MIB = 1 << 20
PROGRAMS_MIB, DISK_MIB = 256, 400
STATES_KEPT = 8  # of programs that were built meanwhile

# What all scripts use is in the guest's memory before it is saved.
WARM = """ip link set lo up; modprobe -a nf_tables veth bridge dummy tun nf_conntrack loop
nft list ruleset; virsh --version; python3 -c 'import json, re, socket, subprocess, tempfile, threading, traceback, termios, libvirt'"""


def libraries(*programs):
    """What the programs are linked with, but for the C library, which every Debian 12 has."""
    found = set()
    for program in programs:
        for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
            path = re.search(r"=> (/\S+)", line)
            if path and not re.search(r"/(libc|libm|libdl|libpthread|ld-linux\S*)\.so", path.group(1)):
                found.add(path.group(1))
    return sorted(found)


def programs(folder, ruched, ruche, kernel):
    """A disk with our programs, their modules and libraries, stripped, and the tests."""
    tree, image = os.path.join(folder, "tree"), os.path.join(folder, "programs.img")
    os.makedirs(f"{tree}/lib")
    modules = [m for name in ("image-iscsi", "ruche-web") for m in glob.glob(os.path.join(os.path.dirname(IMG), name + ".so"))]
    for path in (ruched, ruche, VMM, IMG, *modules):
        subprocess.run(["strip", "-o", os.path.join(tree, os.path.basename(path)), path], check=True)
    for path in libraries(ruched, ruche, VMM, IMG, *modules):
        subprocess.run(["cp", "-L", path, f"{tree}/lib/"], check=True)
    shutil.copy(kernel, f"{tree}/kernel")
    shutil.copytree(os.path.join(ROOT, "tests", "system"), f"{tree}/tests", ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    blank(image, PROGRAMS_MIB)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image], check=True)
    shutil.rmtree(tree)
    return image


def blank(path, mib):
    with open(path, "wb") as f:
        f.truncate(mib * MIB)


class Guest(Vmm):
    """The machine, with a root disk that knows only what differs from the image; booted, or as it was saved."""

    def __init__(self, image, folder, state=None):
        root = os.path.join(folder, "root.qcow2")
        disks = [os.path.join(folder, f"{name}.img") for name in ("programs", "c", "d")]
        for path, mib in zip(disks, (PROGRAMS_MIB, DISK_MIB, DISK_MIB)):
            if not os.path.exists(path):
                blank(path, mib)
        if state:
            shutil.copy(os.path.join(state, "root.qcow2"), root)
        else:
            subprocess.run([IMG, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.join(image, "disk.img"), root], check=True)
        arguments = debian_arguments(image, root, "1G", "systemd.mask=systemd-networkd-wait-online.service mitigations=off nvme_core.multipath=N")
        arguments[arguments.index(f"file={root},if=virtio,format=raw")] = f"file={root},if=virtio,format=qcow2"
        arguments += ["-accel", "kvm:soft", "-smp", "2"]
        for path in disks:
            arguments += ["-drive", f"file={path},if=virtio,format=raw"]
        if state:
            arguments += ["-incoming", "file:" + os.path.join(state, "machine")]
        super().__init__(VMM, arguments)

    def must(self, command, seconds=120):
        status, output = self.console.run(command, seconds)
        if status:
            raise GuestError(f"'{command}' ended with {status}: {output}")
        return output

    def wait_migrated(self, seconds=120):
        end = time.monotonic() + seconds
        while True:
            info = self.qmp.execute("query-migrate")
            if info.get("status") == "completed":
                return
            if info.get("status") in ("failed", "cancelled") or time.monotonic() > end:
                raise GuestError(f"the machine's state: {info}")
            time.sleep(0.01)

    def save(self, path):
        self.must("sync")
        self.qmp.execute("stop")
        self.qmp.execute("migrate-set-parameters", max_bandwidth=0)
        self.qmp.execute("migrate", uri=f"file:{path}")
        self.wait_migrated()
        self.qmp.execute("quit")
        self.wait(60)

    def loaded(self):
        self.wait_migrated()
        self.qmp.execute("cont")
        self.console.send("\n")
        self.console.expect(r"@@ready@@ ", 60)


def digest(*paths):
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as f:
            total.update(f.read())
    return total.hexdigest()[:12]


def boot(image, folder):
    guest = Guest(image, folder)
    try:
        guest.console.login(BOOT_SECONDS)
        guest.console.run(WARM)
    except BaseException:
        guest.close()
        raise
    return guest


def saved(image, again=False):
    """The folder of the booted guest's state. One run makes it, others wait."""
    state = os.path.join(CACHE, f"state-{os.path.basename(image)}-{digest(VMM, os.path.abspath(__file__))}")
    with open(os.path.join(CACHE, "state.lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if again:
            shutil.rmtree(state, ignore_errors=True)
        if not os.path.exists(state):
            start = time.monotonic()
            for old in sorted(glob.glob(os.path.join(CACHE, "state-*")), key=os.path.getmtime)[:-STATES_KEPT]:
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="state-making.", dir=CACHE) as work:
                guest = boot(image, work)
                try:
                    guest.save(os.path.join(work, "machine"))
                finally:
                    guest.close()
                new = os.path.join(work, "new")
                os.mkdir(new)
                for name in ("machine", "root.qcow2"):
                    os.rename(os.path.join(work, name), os.path.join(new, name))
                os.rename(new, state)
            print(f"# booted and saved in {time.monotonic() - start:.1f} s", flush=True)
    return state


def restored(image, folder):
    """A guest at its prompt: from the state, else from a state made anew, else from a boot."""
    for again in (False, True):
        guest = None
        start = time.monotonic()
        try:
            guest = Guest(image, folder, saved(image, again))
            guest.loaded()
            print(f"# restored in {time.monotonic() - start:.1f} s", flush=True)
            return guest
        except GuestError as error:
            print(f"# the saved guest is of no use: {error}".replace("\n", "\n# "), flush=True)
            if guest:
                guest.close()
    return boot(image, folder)


def run_script(guest, script, cases):
    """Passes on what the script prints, line by line; its exit status."""
    guest.must(f"date -s @{int(time.time())} && blockdev --flushbufs /dev/vdb && mkdir -p /ruche && mount -o ro /dev/vdb /ruche")
    guest.must("printf '[libvirt]\\nusual_place=false\\n' >/etc/ruched.conf; export LD_LIBRARY_PATH=/ruche/lib PYTHONDONTWRITEBYTECODE=1")
    words = " ".join(f"'{case}'" for case in cases)
    guest.console.send(f"python3 /ruche/tests/inside/{script}.py {words} 2>&1; echo \"@@status=$?@@\"\n")
    while True:
        line = guest.console.expect(r"(.*)\n", SILENCE_SECONDS).group(1)
        status = re.search(r"@@status=(\d+)@@", line)
        if status:
            return int(status.group(1))
        print(line, flush=True)


def main():
    image = subprocess.run([os.path.join(ROOT, "tools", "guest-image"), "full"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if len(sys.argv) == 3:
        saved(image)
        return 0
    with tempfile.TemporaryDirectory(prefix="ruche-inside-") as folder:
        programs(folder, *sys.argv[3:6])
        guest = restored(image, folder)
        try:
            return run_script(guest, sys.argv[6], sys.argv[7:])
        finally:
            guest.close()


if __name__ == "__main__":
    sys.exit(main())
