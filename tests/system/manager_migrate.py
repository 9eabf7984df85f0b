#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that go from one manager to another, and what becomes of them when something fails on the way.

    manager_migrate.py RUCHED RUCHE-IMG TICKER RUCHE-VMM [TEST...]

Two managers on this host share a folder of disks, each with a host UUID of its own. The guest (tests/guest/ticker.c)
counts on its console and looks at its memory all the time. With ruche-vmm and with QEMU.
"""
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import manager  # noqa: E402
import tap  # noqa: E402

RUCHED, IMG, TICKER, VMM = (os.path.abspath(p) for p in sys.argv[1:5])
EMULATORS = {"ruche-vmm": VMM, "QEMU": shutil.which("qemu-system-x86_64")}
SECONDS = 120
RUNNING, PAUSED, SHUTOFF = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_SHUTOFF
LIVE, P2P, UNSAFE = libvirt.VIR_MIGRATE_LIVE, libvirt.VIR_MIGRATE_PEER2PEER, libvirt.VIR_MIGRATE_UNSAFE
PERSIST, UNDEFINE, OFFLINE = (libvirt.VIR_MIGRATE_PERSIST_DEST, libvirt.VIR_MIGRATE_UNDEFINE_SOURCE,
                              libvirt.VIR_MIGRATE_OFFLINE)
libvirt.registerErrorHandler(lambda _, error: None, None)


def wait(what, fn, seconds=SECONDS):
    end = time.monotonic() + seconds
    while True:
        value = fn()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not in {seconds} s"
        time.sleep(0.02)


class Host:
    """A manager with a connection."""

    def __init__(self):
        self.uuid = str(uuid.uuid4())
        self.seen = 0  # bytes of the console's log
        self.m = manager.Manager(RUCHED, f"[host]\nuuid={self.uuid}\n[migration]\nhost=127.0.0.1\naddress=127.0.0.1\n")
        os.chmod(self.m.folder.name, 0o711)
        self.connect()

    def open(self):
        return libvirt.open(self.uri)

    def connect(self):
        self.uri = f"qemu+unix:///session?socket={self.m.run}/libvirt-sock"

        def attempt():
            try:
                return self.open()
            except libvirt.libvirtError:
                return None
        self.c = wait("libvirt's socket", attempt)

    def again(self):
        """The manager is killed, and comes back."""
        self.m.kill()
        self.m.start()
        self.connect()

    def state(self, name="m"):
        """None: there is no such domain."""
        found = [d for d in self.c.listAllDomains() if d.name() == name]
        return found[0].state()[0] if found else None

    def settled(self, name="m"):
        """The state, when nobody works at the domain any more."""
        def free():
            try:
                found = [d for d in self.c.listAllDomains() if d.name() == name]
                return not found or found[0].jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE
            except libvirt.libvirtError:
                return False
        wait("the end of the migration", free)
        return self.state(name)

    def ticks(self):
        path = f"{self.m.state}/log/consoles/m.log"
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read()[self.seen:]
        assert "broken" not in text, text[-200:]
        return [int(n) for n in re.findall(r"tick (\d+)\r?\n", text)]

    def forget(self):
        """What was counted so far."""
        path = f"{self.m.state}/log/consoles/m.log"
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                self.seen = len(f.read())

    def machines(self):
        """Processes of machines of this manager."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as f:
                    text = f.read()
            except OSError:
                continue
            if self.m.run.encode() in text and b"ruched\0" not in text[:200]:
                found.append(int(path.split("/")[2]))
        return found

    def is_clean(self):
        """Nothing of a machine is left."""
        folders = os.path.join(self.m.run, "machines")
        files = os.path.join(self.m.run, "domains")
        return (not self.machines() and not (os.path.isdir(folders) and os.listdir(folders))
                and not [n for n in os.listdir(files) if n.endswith(".xml")])


class Pair:
    """Two hosts, and a machine 'm' at the first."""

    emulator = None

    def __init__(self, disk=True, fill=24):
        if not self.emulator:
            raise tap.Skip("qemu-system-x86_64 is not installed")
        self.shared = tempfile.TemporaryDirectory(prefix="ruche-shared-")
        self.a, self.b = Host(), Host()
        self.kernel = shutil.copy(TICKER, os.path.join(self.shared.name, "ticker.elf"))
        self.image = os.path.join(self.shared.name, "disk.qcow2")
        subprocess.run([IMG, "create", "-f", "qcow2", self.image, "16M"], check=True, capture_output=True, timeout=SECONDS)
        drive = f"""<disk type='file'><driver name='qemu' type='qcow2'/><source file='{self.image}'/><target dev='vda'/></disk>"""
        self.xml = f"""<domain type='qemu'><name>m</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{self.kernel}</kernel><cmdline>fill={fill}</cmdline></os>
<devices><emulator>{self.emulator}</emulator><serial type='pty'/><memballoon model='none'/>{drive if disk else ""}</devices></domain>"""
        self.d = self.a.c.defineXML(self.xml)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print("# source: " + self.a.m.said().replace("\n", "\n#   "), "# destination: " + self.b.m.said().replace("\n", "\n#   "), sep="\n")
            for host in (self.a, self.b):
                for path in glob.glob(host.m.state + "/log/machines/*.log"):
                    with open(path, encoding="utf-8", errors="replace") as f:
                        print("# machine: " + f.read()[-1500:].replace("\n", "\n#   "))
        self.a.m.close()
        self.b.m.close()
        self.shared.cleanup()

    def runs(self):
        self.d.create()
        wait("the guest's count", lambda: len(self.a.ticks()) > 1)

    def goes_on(self, there, before):
        """The guest counts at `there`, from where it was."""
        wait("the guest's count", lambda: len(there.ticks()) > 2)
        assert there.ticks()[-1] > before and there.ticks()[0] >= before - 1, (there.ticks()[:3], before)

    def count(self, here, there):
        """Where it is now; what is counted at `there` from now on is new."""
        there.forget()
        return here.ticks()[-1]

    def at(self, here, there, persistent=True):
        """It runs at one host, and the other has nothing left."""
        assert here.settled() == RUNNING, (here.state(), here.m.said())
        assert there.settled() == (SHUTOFF if persistent else None), (there.state(), there.m.said())
        wait("the other side's end", there.is_clean)


def refused(part, fn, *words):
    try:
        fn(*words)
    except libvirt.libvirtError as e:
        assert part in str(e), e
        return e
    raise AssertionError(f"not refused: {part}")


def test_direct():
    """The client drives: there and back, live and not."""
    with Pair() as p:
        p.runs()
        refused("shared storage", p.d.migrate3, p.b.c, {}, LIVE)
        before = p.count(p.a, p.b)
        moved = p.d.migrate3(p.b.c, {}, LIVE | UNSAFE)
        assert moved.name() == "m" and moved.state() == [RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED]
        assert p.d.state() == [SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]
        assert p.d.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)["success"] is True
        p.goes_on(p.b, before)
        p.at(p.b, p.a)
        assert not moved.isPersistent()
        refused("same host", p.b.c.lookupByName("m").migrate3, p.b.c, {}, LIVE | UNSAFE)
        before = p.count(p.b, p.a)
        moved.migrate3(p.a.c, {}, UNSAFE)
        p.goes_on(p.a, before)
        p.at(p.a, p.b, persistent=False)


TESTS = {"driven by the client": test_direct}


if sys.argv[5:]:
    TESTS = {name: TESTS[name] for name in sys.argv[5:]}


def with_emulator(path, test):
    def run():
        Pair.emulator = path
        test()
    return run


tap.run({f"{name}, {emulator}": with_emulator(path, test) for emulator, path in EMULATORS.items() for name, test in TESTS.items()})
