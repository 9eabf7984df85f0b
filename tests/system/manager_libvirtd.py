#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that go from ruched to a libvirtd and back, all of them QEMU's.

    manager_libvirtd.py RUCHED RUCHE-IMG TICKER

Both on this host, with a host UUID each, libvirtd in a mount namespace of its own. Driven by the client, and peer to peer from
either side. Without root, libvirtd or QEMU there is nothing to test.
"""
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
from heard import ADDED, COMES, GOES_ON, GONE, REMOVED, STANDS, Heard  # noqa: E402

RUCHED, IMG, TICKER = (os.path.abspath(p) for p in sys.argv[1:4])
QEMU = "/usr/bin/qemu-system-x86_64"
SECONDS = 120
RUNNING, SHUTOFF = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_SHUTOFF
LIVE, P2P, UNSAFE = libvirt.VIR_MIGRATE_LIVE, libvirt.VIR_MIGRATE_PEER2PEER, libvirt.VIR_MIGRATE_UNSAFE
PERSIST, UNDEFINE, OFFLINE = libvirt.VIR_MIGRATE_PERSIST_DEST, libvirt.VIR_MIGRATE_UNDEFINE_SOURCE, libvirt.VIR_MIGRATE_OFFLINE
libvirt.registerErrorHandler(lambda _, error: None, None)
WORK = tempfile.TemporaryDirectory(prefix="ruche-libvirtd-", ignore_cleanup_errors=True)
os.chmod(WORK.name, 0o755)


def path(name):
    return os.path.join(WORK.name, name)


def wait(what, fn, seconds=SECONDS):
    end = time.monotonic() + seconds
    while True:
        value = fn()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not in {seconds} s"
        time.sleep(0.02)


def opened(uri, process):
    def attempt():
        assert process.poll() is None, f"the daemon of {uri} ended"
        try:
            return libvirt.open(uri)
        except libvirt.libvirtError:
            return None
    return wait(uri, attempt)


class Ours:
    def __init__(self):
        self.m = manager.Manager(RUCHED, f"[host]\nuuid={uuid.uuid4()}\n[migration]\nhost=127.0.0.1\naddress=127.0.0.1\n")
        self.uri = f"qemu+unix:///session?socket={self.m.run}/libvirt-sock"
        self.c = opened(self.uri, self.m.process)

    def said(self):
        return self.m.said()

    def close(self):
        self.c.close()
        self.m.close()


class Theirs:
    """With empty folders over libvirtd's places."""

    PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt")

    def __init__(self):
        folder = path("peer")
        os.makedirs(folder + "/run")
        binds = []
        for place in self.PLACES:
            os.makedirs(folder + "/places" + place)
            os.makedirs(place, exist_ok=True)
            binds.append(f"mount --bind {folder}/places{place} {place}")
        with open(folder + "/libvirtd.conf", "w", encoding="ascii") as conf:
            conf.write(f'unix_sock_dir = "{folder}/run"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nhost_uuid = "{uuid.uuid4()}"\n')
        with open(folder + "/places/etc/libvirt/qemu.conf", "w", encoding="ascii") as conf:
            conf.write('user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = "file"\n'
                       'migration_host = "127.0.0.2"\nmigration_address = "127.0.0.2"\n')
        script = " && ".join([*binds, f"exec libvirtd -f {folder}/libvirtd.conf -p {folder}/pid"])
        self.log = folder + "/log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.uri = f"qemu+unix:///system?socket={folder}/run/libvirt-sock"
        try:
            self.c = opened(self.uri, self.process)
        except AssertionError as error:
            raise tap.Skip(f"libvirtd does not run here: {self.said()[-200:]}") from error

    def said(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            text = f.read()[-3000:]
        name = path("peer/places/var/log/libvirt/qemu/m.log")
        if os.path.exists(name):
            with open(name, encoding="utf-8", errors="replace") as f:
                text += f.read()[-5000:]
        return text

    def close(self):
        for d in self.c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE):
            d.destroy()
        self.c.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(SECONDS)


class World:
    """Both, and a machine 'm' whose console is a file that both write on."""

    def __init__(self):
        if os.geteuid() or not shutil.which("libvirtd") or not os.path.exists(QEMU):
            raise tap.Skip("libvirtd with QEMU, as root")
        self.theirs = Theirs()
        self.ours = Ours()
        self.kernel = shutil.copy(TICKER, path("ticker.elf"))
        subprocess.run([IMG, "create", "-f", "qcow2", path("disk.qcow2"), "16M"], check=True, capture_output=True, timeout=SECONDS)
        with open(path("console"), "w", encoding="ascii"):
            pass
        self.xml = f"""<domain type='qemu'><name>m</name><uuid>{uuid.uuid4()}</uuid><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{self.kernel}</kernel><cmdline>fill=24</cmdline></os><features><acpi/></features>
<devices><emulator>{QEMU}</emulator><serial type='file'><source path='{path("console")}' append='on'/></serial><memballoon model='virtio'/>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng><interface type='user'><mac address='52:54:00:12:34:56'/><model type='virtio'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel><input type='tablet' bus='virtio'/><watchdog model='i6300esb' action='reset'/>
<disk type='file'><driver name='qemu' type='qcow2'/><source file='{path("disk.qcow2")}'/><target dev='vda' bus='virtio'/></disk></devices></domain>"""

    def say(self):
        for host in (self.ours, self.theirs):
            print("# " + type(host).__name__ + ": " + host.said().replace("\n", "\n#   "))

    def close(self):
        self.ours.close()
        self.theirs.close()

    def ticks(self):
        with open(path("console"), encoding="utf-8", errors="replace") as f:
            text = f.read()
        assert "broken" not in text, text[-200:]
        return [int(n) for n in re.findall(r"tick (\d+)\r?\n", text)]

    def goes_on(self):
        before = self.ticks()
        wait("the guest's count", lambda: len(self.ticks()) > len(before) + 2)
        now = self.ticks()
        assert all(b - a == 1 for a, b in zip(now, now[1:])), now

    def at(self, here, there, persistent=True):
        def state(host):
            found = [d for d in host.c.listAllDomains() if d.name() == "m"]
            return found[0].state()[0] if found else None
        wait("the end of it", lambda: state(here) == RUNNING and state(there) == (SHUTOFF if persistent else None))


def test_both_ways(w):
    """Each hears the same as source and as destination as the other, but for 'undefined', which libvirtd leaves out."""
    def went(source, destination, *events, gone=GONE):
        assert source.wants(STANDS, *gone)[0] == (1, 0)
        destination.wants(COMES, *events, GOES_ON)
    d = w.ours.c.defineXML(w.xml)
    d.create()
    w.goes_on()
    ours, theirs = Heard(w.ours.c), Heard(w.theirs.c)
    d = d.migrate3(w.theirs.c, {}, LIVE | UNSAFE)
    w.goes_on()
    w.at(w.theirs, w.ours)
    went(ours, theirs)
    d = d.migrate3(w.ours.c, {}, LIVE | UNSAFE)
    w.goes_on()
    w.at(w.ours, w.theirs, persistent=False)
    went(theirs, ours)
    d.migrateToURI3(w.theirs.uri, {}, LIVE | P2P | UNSAFE | PERSIST | UNDEFINE)
    w.goes_on()
    w.at(w.theirs, w.ours, persistent=False)
    went(ours, theirs, ADDED, gone=(*GONE, REMOVED))
    d = w.theirs.c.lookupByName("m")
    assert d.isPersistent()
    d.migrateToURI3(w.ours.uri, {}, LIVE | P2P | UNSAFE | PERSIST | UNDEFINE)
    w.goes_on()
    w.at(w.ours, w.theirs, persistent=False)
    went(theirs, ours, ADDED)
    for side in (ours, theirs):
        side.stop()


def test_called_off(w):
    """From either side, either way: the guest stays where it was, and the other side has nothing left."""
    for here, there in ((w.ours, w.theirs), (w.theirs, w.ours)):
        if here is w.theirs:
            w.ours.c.lookupByName("m").migrate3(w.theirs.c, {}, LIVE | UNSAFE)
            w.at(w.theirs, w.ours)
            w.ours.c.lookupByName("m").undefine()
        for flags in (0, P2P):
            raised = []

            def move(how=flags, source=here, target=there):
                c, other = libvirt.open(source.uri), libvirt.open(target.uri)
                d = c.lookupByName("m")
                d.migrateSetMaxSpeed(1)
                try:
                    if how:
                        d.migrateToURI3(target.uri, {}, LIVE | UNSAFE | how)
                    else:
                        d.migrate3(other, {}, LIVE | UNSAFE)
                except libvirt.libvirtError as error:
                    raised.append(str(error))
                d.migrateSetMaxSpeed(1000)
            thread = threading.Thread(target=move, daemon=True)
            thread.start()
            d = here.c.lookupByName("m")
            wait("figures of the migration", lambda: d.jobStats().get("memory_processed"))
            d.abortJob()
            thread.join()
            assert raised
            w.at(here, there, persistent=False)
            w.goes_on()


def test_offline(w):
    """Descriptions only, there and back, by another name."""
    w.theirs.c.lookupByName("m").destroy()
    d = w.ours.c.defineXML(w.xml)
    flags = OFFLINE | PERSIST | UNDEFINE
    d.migrateToURI3(w.theirs.uri, {"destination_name": "n"}, flags | P2P)
    d = w.theirs.c.lookupByName("n")
    assert not w.ours.c.listAllDomains() and not d.isActive()
    d.migrate3(w.ours.c, {}, flags)
    assert w.ours.c.lookupByName("n").UUIDString() in w.xml and not w.theirs.c.listAllDomains()


TESTS = {"there and back": test_both_ways, "called off": test_called_off, "offline": test_offline}
world = None


def in_world(test):
    def run():
        global world
        if world is None:
            world = World()
        try:
            test(world)
        except BaseException:
            world.say()
            raise
    return run


try:
    tap.run({name: in_world(test) for name, test in TESTS.items()})
finally:
    if world:
        world.close()
