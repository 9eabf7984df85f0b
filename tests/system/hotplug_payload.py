#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices that come and go, with a guest that answers at once (tests/guest/plug.c): nothing is left behind, what cannot be
changes nothing, saved machines, guests that mean harm. TAP.

    hotplug_payload.py EMULATOR PLUG.ELF [ROUNDS [TESTS]]     ruche-vmm, or a qemu-system-x86_64
"""
import collections
import os
import random
import socket
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import GuestError, Vmm  # noqa: E402

VMM, PAYLOAD = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 100
OURS = "ruche" in os.path.basename(VMM)
SECONDS = int(os.environ.get("RUCHE_WAIT_SECONDS", "120"))
BEGUN = 0x84  # ACPI 6.4, 6.3.5: the ejection is in progress
GROWTH_KIB = 4096  # of memory that is not the guest's, over all rounds after the first few
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-plug-")


def path(name):
    return os.path.join(FOLDER.name, name)


class Machine(Vmm):
    def __init__(self, *arguments, append="", incoming=False, board="q35"):
        super().__init__(VMM, ["-machine", board, "-accel", "soft" if OURS else "tcg", "-m", "64M", "-kernel", PAYLOAD,
                               "-append", append, *(self.ports() if board == "q35" else []), *arguments])
        if not incoming:
            self.console.expect(r"\d slots(, a console)?\n", SECONDS)

    @staticmethod
    def ports():
        native = [] if OURS else ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"]
        return [*native, "-device", "pcie-root-port,id=rp1,chassis=1,slot=1", "-device", "pcie-root-port,id=rp2,chassis=2,slot=2",
                "-device", "virtio-serial-pci,id=vs0"]

    def ask(self, command, **arguments):
        return self.qmp.execute(command, **arguments)

    def says(self, pattern):
        return self.console.expect(pattern, SECONDS)

    def refused(self, part, command, **arguments):
        reply = self.qmp.call(command, **arguments)
        assert "error" in reply, f"{command} was not refused"
        assert not OURS or part in reply["error"]["desc"], reply
        return reply["error"]["class"]

    def gone(self, device):
        end = time.monotonic() + SECONDS
        while self.qmp.wait_event("DEVICE_DELETED", max(1, end - time.monotonic()))["data"].get("device") != device:
            pass

    def state(self):
        """What must be as before: descriptors, threads, nodes of images, backends, devices."""
        pid = self.process.pid
        files = [os.readlink(f"/proc/{pid}/fd/{fd}").split(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")]
        return {"files": sorted(collections.Counter(files).items()) if OURS else 0,
                "threads": tap.lasting_threads(pid) if OURS else 0,
                "nodes": len(self.ask("query-named-block-nodes")), "chardevs": len(self.ask("query-chardev")),
                "peripherals": len(self.ask("x-ruche-query-counters")) if OURS else 0}

    def stays(self, before):
        """Threads that end, and files of theirs, are waited for."""
        end = time.monotonic() + SECONDS
        while (now := self.state()) != before:
            assert time.monotonic() < end, [(k, before[k], now[k]) for k in now if now[k] != before[k]]
            time.sleep(0.05)

    def plug_disk(self):
        self.ask("blockdev-add", **{"driver": "raw", "node_name": "hot0",
                                    "file": {"driver": "file", "filename": path("disk.img")}})
        self.ask("device_add", driver="virtio-blk-pci", id="hotdisk", bus="rp1", drive="hot0")
        self.says(r"slot 0 on: disk\n")

    def plug_card(self):
        self.ask("netdev_add", type="user", id="hotnet")
        self.ask("device_add", driver="virtio-net-pci", id="hotcard", bus="rp2", netdev="hotnet")
        self.says(r"slot 1 on: card\n")

    def unplug(self, device, slot):
        self.ask("device_del", id=device)
        self.gone(device)
        self.says(rf"slot {slot} off\n")

    def unplug_disk(self):
        self.unplug("hotdisk", 0)
        self.ask("blockdev-del", node_name="hot0")

    def unplug_card(self):
        self.unplug("hotcard", 1)
        self.ask("netdev_del", id="hotnet")

    def unplug_cpu(self, n):
        self.ask("device_del", id="hotcpu")
        self.gone("hotcpu")
        self.says(rf"cpu {n} off\n")

    def plug_port(self):
        self.ask("chardev-add", id="hotchar", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path("port")}}, "server": True, "wait": False}})
        self.ask("device_add", driver="virtserialport", id="hotport", bus="vs0.0", nr=3, chardev="hotchar", name="org.ruche.t")
        self.says(r"port 3 on\n")

    def unplug_port(self):
        self.ask("device_del", id="hotport")
        self.gone("hotport")
        self.says(r"port 3 off\n")
        self.ask("chardev-remove", id="hotchar")

    def all_in(self):
        self.plug_disk()
        self.plug_card()
        self.plug_port()

    def all_out(self):
        self.unplug_disk()
        self.unplug_card()
        self.unplug_port()


def test_nothing_is_left():
    with Machine() as m:
        m.all_in()
        m.all_out()
        before = m.state()
        warm = min(20, ROUNDS // 2)
        for n in range(ROUNDS):
            if n == warm:
                memory = m.memory_kib()[2]
            m.all_in()
            m.all_out()
        m.stays(before)
        grown = m.memory_kib()[2] - memory
        with open(f"/proc/{m.process.pid}/maps", encoding="utf-8") as maps:
            keeps = "libasan" in maps.read()  # it holds back what was freed
        assert keeps or grown < GROWTH_KIB, f"{ROUNDS - warm} rounds took {grown} KiB"
        m.qmp.execute("quit")
        assert m.wait(SECONDS) == 0, m.errors()


def test_what_cannot_be():
    with Machine() as m:
        m.plug_disk()
        m.unplug_disk()
        before = m.state()
        m.ask("blockdev-add", driver="file", node_name="hot0", filename=path("disk.img"))
        for _ in range(20):
            m.refused("power", "device_add", driver="virtio-blk-pci", id="x", bus="rp1", drive="hot0", queue_size=5)
            m.refused("there is no", "device_add", driver="virtio-blk-pci", id="x", bus="rp1", drive="nothing")
            m.refused("there is no", "device_add", driver="virtio-net-pci", id="x", bus="rp1", netdev="nothing")
            m.refused("", "device_add", driver="virtserialport", id="x", bus="vs0.0", nr=9999)
        m.ask("device_add", driver="virtio-blk-pci", id="hotdisk", bus="rp1", drive="hot0")
        m.says(r"slot 0 on: disk\n")
        m.refused("", "device_add", driver="virtio-rng-pci", id="hotdisk", bus="rp2")
        m.refused("", "device_add", driver="virtio-blk-pci", id="other", bus="rp2", drive="hot0")
        if OURS:
            m.refused("no free slot", "device_add", driver="virtio-rng-pci", id="other", bus="rp1")
        m.refused("in use", "blockdev-del", node_name="hot0")
        assert m.refused("not found", "device_del", id="other") == "DeviceNotFound"
        m.unplug("hotdisk", 0)
        assert m.refused("not found", "device_del", id="hotdisk") == "DeviceNotFound"
        m.ask("blockdev-del", node_name="hot0")
        m.stays(before)


def test_slow_guest():
    """One that takes its time is not asked twice."""
    with Machine(append="slow=1000") as m:
        m.plug_disk()
        m.ask("device_del", id="hotdisk")
        m.refused("already in the process of unplug", "device_del", id="hotdisk")
        m.gone("hotdisk")
        m.ask("blockdev-del", node_name="hot0")


def test_quit_with_all_in():
    with Machine() as m:
        m.all_in()
        m.qmp.execute("quit")
        assert m.wait(SECONDS) == 0, m.errors()


def test_stopped():
    """The guest of a stopped machine sees it when it goes on."""
    with Machine() as m:
        m.ask("stop")
        m.ask("device_add", driver="virtio-rng-pci", id="hotrng", bus="rp1")
        m.ask("cont")
        m.says(r"slot 0 on: rng\n")
        m.ask("stop")
        m.ask("device_del", id="hotrng")
        m.ask("cont")
        m.gone("hotrng")


def test_network_in_use():
    """A card outlives its network, and shows no link."""
    with Machine() as m:
        for _ in range(3):
            m.plug_card()
            m.ask("netdev_del", id="hotnet")
            m.says(r"slot 1 link 0\n")
            if OURS:
                assert not m.ask("x-ruche-query-netdevs")
                m.refused("there is no network", "set_link", name="hotcard", up=True)
            m.ask("netdev_add", type="user", id="hotnet")  # the name is free, and the card does not come back to it
            m.unplug("hotcard", 1)
            m.ask("netdev_del", id="hotnet")


def plug_cpu(m):
    """The last free place; its index."""
    place = [c for c in m.ask("query-hotpluggable-cpus") if "qom-path" not in c][-1]
    m.ask("device_add", driver=place["type"], id="hotcpu", **place["props"])
    return m.says(r"cpu (\d+) on\n").group(1)


def test_cpus():
    """Both boards; the guest of microvm has no bus to look at."""
    for board in ("q35", "microvm"):
        with Machine("-smp", "1,maxcpus=3", board=board) as m:
            m.unplug_cpu(plug_cpu(m))
            reports = [e["data"]["info"] for e in m.qmp.events if e["event"] == "ACPI_DEVICE_OST"]  # before it was gone
            assert [(r["device"], r["source"], r["status"]) for r in reports] == [("hotcpu", 1, 0), ("hotcpu", 3, BEGUN)], reports
            before = m.state()
            for _ in range(ROUNDS):
                m.unplug_cpu(plug_cpu(m))
            assert len(m.ask("query-cpus-fast")) == 1
            m.stays(before)


def test_cpu_stays():
    """The guest begins, and then says that it does not give it."""
    with Machine("-smp", "1,maxcpus=2", append="refuse=1") as m:
        n = plug_cpu(m)
        assert m.qmp.wait_event("ACPI_DEVICE_OST", SECONDS)["data"]["info"]["status"] == 0
        for refusal in 1, 0x80:
            m.ask("device_del", id="hotcpu")
            m.says(rf"cpu {n} stays: {refusal}\n")
            for status in BEGUN, refusal:
                info = m.qmp.wait_event("ACPI_DEVICE_OST", SECONDS)["data"]["info"]
                assert (info["device"], info["slot-type"], info["source"], info["status"]) == ("hotcpu", "CPU", 3, status), info
        assert len(m.ask("query-cpus-fast")) == 2


def migration_becomes(m, *states):
    end = time.monotonic() + SECONDS
    while (now := m.ask("query-migrate").get("status")) not in states:
        assert time.monotonic() < end, now
        time.sleep(0.02)
    return now


def test_migration():
    """Nothing comes or goes while one runs."""
    with Machine() as m:
        m.plug_disk()
        m.ask("migrate-set-parameters", max_bandwidth=4096)
        m.ask("migrate", uri="exec:cat >/dev/null")
        m.refused("not allowed while migrating", "device_add", driver="virtio-rng-pci", id="x", bus="rp2")
        m.refused("not allowed while migrating", "device_del", id="hotdisk")
        m.ask("migrate_cancel")
        migration_becomes(m, "cancelled")
        m.ask("device_add", driver="virtio-rng-pci", id="x", bus="rp2")
        m.says(r"slot 1 on: rng\n")
        m.unplug_disk()


def test_saved():
    """A machine with what was plugged in, into one whose command line names it in another order."""
    with Machine() as m:
        m.plug_card()
        m.plug_disk()
        m.unplug_card()
        m.plug_card()
        m.ask("stop")
        m.ask("migrate", uri=f"file:{path('saved')}")
        assert migration_becomes(m, "completed", "failed") == "completed", m.ask("query-migrate")
    with Machine("-netdev", "user,id=hotnet", "-device", "virtio-net-pci,id=hotcard,bus=rp2,netdev=hotnet",
                 "-blockdev", f"driver=file,node-name=hot,filename={path('disk.img')}",
                 "-blockdev", "driver=raw,node-name=hot0,file=hot", "-device", "virtio-blk-pci,id=hotdisk,bus=rp1,drive=hot0",
                 "-incoming", f"file:{path('saved')}", incoming=True) as m:
        migration_becomes(m, "completed")
        m.ask("cont")
        m.unplug_disk()
        m.unplug("hotcard", 1)
        m.ask("device_add", driver="virtio-rng-pci", id="hotrng", bus="rp1")
        m.says(r"slot 0 on: rng\n")


def harm(m, dice):
    """One command, whatever comes of it."""
    bus = dice.choice(("rp1", "rp2"))
    return dice.choice((
        lambda: m.qmp.call("device_add", driver="virtio-blk-pci", id="d" + bus, bus=bus, drive="n" + bus),
        lambda: m.qmp.call("device_add", driver="virtio-net-pci", id="d" + bus, bus=bus, netdev="b" + bus),
        lambda: m.qmp.call("device_add", driver="virtio-rng-pci", id="d" + bus, bus=bus),
        lambda: m.qmp.call("device_del", id="d" + bus),
        lambda: m.qmp.call("device_del", id="d" + bus),
        lambda: m.qmp.call("query-pci"),
        lambda: m.qmp.call("query-block")))()


def test_harm():
    """Slots and what is in them written at random while devices come and go."""
    seed = int(os.environ.get("SEED", "1"))
    dice = random.Random(seed)
    with Machine(append=f"wild={seed}") as m:
        for bus in ("rp1", "rp2"):
            with open(path(bus), "wb") as f:
                f.truncate(1 << 20)
            m.ask("blockdev-add", driver="file", node_name="n" + bus, filename=path(bus))
            m.ask("netdev_add", type="user", id="b" + bus)
        before = m.state()
        for n in range(30 * ROUNDS):
            harm(m, dice)
            if n % 100 == 99:
                m.ask("system_reset")
                m.says(r"harm 0\n")
        end = time.monotonic() + SECONDS
        while True:  # a reset takes out what was asked for
            left = [m.qmp.call("device_del", id="d" + bus) for bus in ("rp1", "rp2")]
            if all("error" in r and r["error"]["class"] == "DeviceNotFound" for r in left):
                break
            assert time.monotonic() < end, left
            m.ask("system_reset")
        m.stays(before)
        assert m.ask("query-status")["status"] in ("running", "prelaunch", "paused"), m.ask("query-status")
        m.qmp.execute("quit")
        assert m.wait(SECONDS) == 0, m.errors()


def main():
    tests = {n[5:]: f for n, f in globals().items() if n.startswith("test_")}
    ours = ("harm", "saved", "migration", "cpus", "cpu_stays")
    only = sys.argv[4:]
    for name in ("disk.img",):
        with open(path(name), "wb") as f:
            f.truncate(1 << 20)
    try:
        tap.run({n: f for n, f in tests.items() if (n in only if only else OURS or n not in ours)})
    finally:
        FOLDER.cleanup()


if __name__ == "__main__":
    main()
