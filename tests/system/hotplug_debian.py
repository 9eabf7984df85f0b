#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot plug in a stock Debian 12 on ruche-vmm: disks, network cards, ports and vCPUs come, are used, and go.

    hotplug_debian.py RUCHE-VMM [ROUNDS]
"""
import functools
import http.server
import json
import os
import socket
import sys
import tempfile
import threading
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import subprocess  # noqa: E402

import tap  # noqa: E402
from guest import Vmm, copy_disk, debian_arguments  # noqa: E402

BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "1200"))
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 3
UNPLUG_SECONDS = 120
CPUS = 4


class Guest:
    def __init__(self, binary):
        self.folder = tempfile.TemporaryDirectory(prefix="ruche-hotplug-")
        image = subprocess.run([os.path.join(ROOT, "tools", "guest-image")], check=True, stdout=subprocess.PIPE,
                               text=True).stdout.strip()
        self.disk = os.path.join(self.folder.name, "disk.img")
        self.data = os.path.join(self.folder.name, "data.img")
        copy_disk(os.path.join(image, "disk.img"), self.disk)
        with open(self.data, "wb") as data:
            data.truncate(64 << 20)
        self.vmm = Vmm(binary, debian_arguments(image, self.disk) + [
            "-accel", "soft", "-smp", f"cpus=1,maxcpus={CPUS}",
            "-device", "pcie-root-port,id=rp1,chassis=1,slot=1", "-device", "pcie-root-port,id=rp2,chassis=2,slot=2",
            "-device", "pcie-root-port,id=rp3,chassis=3,slot=3,hotplug=off", "-device", "virtio-serial-pci,id=vs0"])

    def close(self):
        self.vmm.close()
        self.folder.cleanup()

    def sh(self, command, seconds=120):
        status, output = self.vmm.console.run(command, seconds)
        assert status == 0, f"'{command}' ended with {status}: {output}"
        return output

    def wait(self, command, seconds=120):
        """Until the guest says so."""
        self.sh(f"no=1; for i in $(seq {seconds * 5}); do if {command}; then no=0; break; fi; sleep 0.2; done; test $no = 0",
                seconds + 60)

    def resources(self):
        """(descriptors, threads) of the process."""
        pid = self.vmm.process.pid
        return len(os.listdir(f"/proc/{pid}/fd")), tap.lasting_threads(pid)

    def ask(self, command, **arguments):
        return self.vmm.qmp.execute(command, **arguments)

    def gone(self, device):
        end = time.monotonic() + UNPLUG_SECONDS
        while True:
            event = self.vmm.qmp.wait_event("DEVICE_DELETED", max(1, end - time.monotonic()))
            if event["data"].get("device") == device:
                return event

    def refused(self, part, command, **arguments):
        reply = self.vmm.qmp.call(command, **arguments)
        assert "error" in reply, f"{command} was not refused"
        assert part in reply["error"]["desc"], reply
        return reply["error"]["class"]


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"hot")

    def log_message(self, *_):
        pass


def plug_disk(guest):
    guest.ask("blockdev-add", **{"driver": "raw", "node_name": "hot0",
                                 "file": {"driver": "file", "filename": guest.data}})
    guest.ask("device_add", driver="virtio-blk-pci", id="hotdisk", bus="rp1", drive="hot0", serial="hot")


def unplug(guest, device):
    guest.ask("device_del", id=device)
    guest.gone(device)


def test_login(guest):
    guest.vmm.console.login(BOOT_SECONDS)
    guest.sh("systemctl is-system-running --wait || true", 240)
    assert guest.sh("nproc") == "1"


def test_refused(guest):
    guest.ask("blockdev-add", driver="file", node_name="nul", filename=guest.data)
    guest.refused("Bus 'pcie.0' does not support hotplugging", "device_add", driver="virtio-rng-pci", id="x")
    guest.refused("Bus 'rp3' does not support hotplugging", "device_add", driver="virtio-rng-pci", id="x", bus="rp3")
    guest.refused("Bus 'nobus' not found", "device_add", driver="virtio-rng-pci", id="x", bus="nobus")
    guest.refused("is not a valid device model name", "device_add", driver="virtio-rgn-pci", id="x", bus="rp1")
    guest.refused("no property", "device_add", driver="virtio-rng-pci", id="x", bus="rp1", nothing=1)
    guest.refused("does not support hotplugging", "device_add", driver="isa-serial", id="x")
    assert guest.refused("not found", "device_del", id="x") == "DeviceNotFound"
    before = guest.resources()
    for _ in range(10):  # what cannot be made leaves nothing
        guest.refused("power", "device_add", driver="virtio-blk-pci", id="x", bus="rp1", drive="nul", queue_size=5)
        guest.refused("there is no", "device_add", driver="virtio-net-pci", id="x", bus="rp1", netdev="none")
    assert guest.resources() == before, f"{before} became {guest.resources()}"
    guest.ask("blockdev-del", node_name="nul")


def test_disk(guest):
    plug_disk(guest)
    guest.refused("no free slot", "device_add", driver="virtio-rng-pci", id="y", bus="rp1")
    guest.wait("test -b /dev/vdb")
    guest.sh("mkfs.ext4 -q /dev/vdb && mkdir -p /data && mount /dev/vdb /data && cp /bin/bash /data && sync "
             "&& cmp /bin/bash /data/bash && umount /data", 240)
    assert guest.sh("cat /sys/block/vdb/serial") == "hot"
    guest.ask("device_del", id="hotdisk")
    guest.refused("already in the process of unplug", "device_del", id="hotdisk")
    guest.gone("hotdisk")
    guest.wait("test ! -e /dev/vdb")
    guest.ask("blockdev-del", node_name="hot0")


def test_card(guest):
    guest.ask("netdev_add", type="user", id="hotnet")
    guest.ask("device_add", driver="virtio-net-pci", id="hotcard", bus="rp2", netdev="hotnet",
              mac="52:54:00:aa:bb:cc")
    guest.wait("cat /sys/class/net/*/address 2>/dev/null | grep -q 52:54:00:aa:bb:cc")
    name = guest.sh("udevadm settle; basename $(dirname $(grep -ls 52:54:00:aa:bb:cc /sys/class/net/*/address))")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        guest.sh(f"ip link set {name} up && ip addr add 10.0.2.77/24 dev {name}")
        assert guest.sh(f"curl -sS --retry 9 --retry-all-errors --retry-delay 1 --interface {name} "
                        f"http://10.0.2.2:{server.server_port}/", 240) == "hot"
    finally:
        server.shutdown()
    guest.ask("netdev_del", id="hotnet")
    guest.wait(f"test $(cat /sys/class/net/{name}/carrier) = 0")
    unplug(guest, "hotcard")
    guest.wait(f"test ! -e /sys/class/net/{name}")


def test_port(guest):
    """A port of the console that is there."""
    path = os.path.join(guest.folder.name, "port")
    for _ in range(3):
        guest.ask("chardev-add", id="hotchar", backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path}}, "server": True}})
        guest.ask("device_add", driver="virtserialport", id="hotport", bus="vs0.0", chardev="hotchar", name="org.ruche.t")
        guest.wait("test -c /dev/virtio-ports/org.ruche.t")
        guest.refused("busy", "chardev-remove", id="hotchar")
        guest.ask("device_del", id="hotport")
        guest.gone("hotport")
        guest.wait("test ! -e /dev/virtio-ports/org.ruche.t")
        guest.ask("chardev-remove", id="hotchar")
        assert not os.path.exists(path)


def test_descriptors(guest):
    """A disk that somebody else opened, by a descriptor sent along."""
    qmp = guest.vmm.qmp
    fd = os.open(guest.data, os.O_RDWR)
    socket.send_fds(qmp.socket, [json.dumps({"execute": "add-fd", "arguments": {"fdset-id": 77}}).encode()], [fd])
    os.close(fd)
    answer = qmp.read(20)
    assert answer["return"]["fdset-id"] == 77, answer
    guest.ask("blockdev-add", driver="file", node_name="passed", filename="/dev/fdset/77")
    guest.ask("device_add", driver="virtio-blk-pci", id="hotdisk", bus="rp1", drive="passed")
    guest.wait("test -b /dev/vdb")
    unplug(guest, "hotdisk")
    guest.ask("blockdev-del", node_name="passed")
    guest.ask("remove-fd", fdset_id=77)
    assert not guest.ask("query-fdsets")
    guest.refused("SCM_RIGHTS", "getfd", fdname="x")


def test_rounds(guest):
    """Disk and card together, again and again, the disk under load when it is asked back."""
    before = None
    for n in range(ROUNDS):
        guest.ask("netdev_add", type="user", id="hotnet")
        plug_disk(guest)
        guest.ask("device_add", driver="virtio-net-pci", id="hotcard", bus="rp2", netdev="hotnet")
        guest.wait("test -b /dev/vdb && test $(ls /sys/class/net | wc -l) -ge 3")
        guest.sh("dd if=/dev/zero of=/dev/vdb bs=64k count=400 oflag=direct >/dev/null 2>&1 &")
        guest.ask("device_del", id="hotcard")
        guest.ask("device_del", id="hotdisk")
        guest.gone("hotdisk")
        if not [e for e in guest.vmm.qmp.events if e["event"] == "DEVICE_DELETED"]:
            guest.wait("test $(ls /sys/class/net | wc -l) -lt 3")
        guest.wait("test ! -e /dev/vdb && test $(ls /sys/class/net | wc -l) -lt 3")
        guest.vmm.qmp.events.clear()
        guest.ask("blockdev-del", node_name="hot0")
        guest.ask("netdev_del", id="hotnet")
        now = guest.resources()
        before = before or now
        assert now == before, f"round {n}: {before} descriptors and threads became {now}"


def plug_cpu(guest, n):
    place = [c for c in guest.ask("query-hotpluggable-cpus") if "qom-path" not in c][-1]
    guest.ask("device_add", driver=place["type"], id=f"cpu{n}", **place["props"])
    guest.wait(f"test -d /sys/devices/system/cpu/cpu{n}")
    guest.sh(f"grep -qx 1 /sys/devices/system/cpu/cpu{n}/online || echo 1 > /sys/devices/system/cpu/cpu{n}/online")


def test_cpus(guest):
    """1 -> 4 -> 2 -> 4 -> 1 under load."""
    guest.refused("Invalid CPU type", "device_add", driver="qemu64-x86_64-cpu", id="c", **{
        "socket-id": 0, "core-id": 1, "thread-id": 0})
    guest.refused("is not set", "device_add", driver="max-x86_64-cpu", id="c", core_id=1)
    guest.refused("exists", "device_add", driver="max-x86_64-cpu", id="c", socket_id=0, core_id=0, thread_id=0)
    guest.refused("unpluggable", "device_del", id="/machine/unattached/cpu[0]")
    threads = guest.resources()[1]
    guest.sh("(while test ! -e /tmp/stop; do cat /bin/* >/dev/null; echo 3 >/proc/sys/vm/drop_caches; done) >/dev/null 2>&1 &")
    for n in (1, 2, 3):
        plug_cpu(guest, n)
    assert guest.sh("nproc") == "4"
    assert [c["cpu-index"] for c in guest.ask("query-cpus-fast")] == [0, 1, 2, 3]
    assert len(set(c["thread-id"] for c in guest.ask("query-cpus-fast"))) == 4
    assert guest.ask("query-cpus-fast")[3]["qom-path"] == "/machine/peripheral/cpu3"
    assert guest.sh("taskset -c 3 sha256sum /bin/bash") == guest.sh("taskset -c 0 sha256sum /bin/bash")
    for n in (3, 2):
        unplug(guest, f"cpu{n}")
    guest.wait("test $(nproc) = 2")
    assert [c["cpu-index"] for c in guest.ask("query-cpus-fast")] == [0, 1]
    ost = [e for e in guest.vmm.qmp.events if e["event"] == "ACPI_DEVICE_OST"]
    assert ost and ost[0]["data"]["info"]["slot-type"] == "CPU", guest.vmm.qmp.events
    for n in (2, 3):
        plug_cpu(guest, n)
    assert guest.sh("nproc") == "4"
    for n in (3, 1, 2):
        unplug(guest, f"cpu{n}")
    guest.wait("test $(nproc) = 1")
    guest.sh("touch /tmp/stop")
    assert guest.resources()[1] == threads


def test_kernel_log(guest):
    bad = guest.sh("dmesg | grep -iE 'BUG:|soft lockup|rcu.*stall|Call Trace' || true")
    assert not bad, bad


def test_reset(guest):
    """A device that the guest was asked for goes with a reset, and a plugged one stays."""
    plug_disk(guest)
    guest.wait("test -b /dev/vdb")
    guest.ask("device_add", driver="virtio-rng-pci", id="hotrng", bus="rp2")
    guest.ask("device_del", id="hotdisk")
    guest.vmm.qmp.execute("system_reset")
    guest.gone("hotdisk")
    guest.vmm.console.login(BOOT_SECONDS)
    guest.sh("test ! -e /dev/vdb")
    guest.sh("lspci -n | grep -c 1af4:1044 | grep -qx 2 || test $(grep -l 0x1044 /sys/bus/pci/devices/*/device | wc -l) = 2")
    guest.ask("blockdev-del", node_name="hot0")
    unplug(guest, "hotrng")


TESTS = ("login", "refused", "disk", "card", "port", "descriptors", "cpus", "rounds", "kernel_log", "reset")


def main():
    guest = Guest(os.path.abspath(sys.argv[1]))
    only = os.environ.get("ONLY", "")
    try:
        names = [n for n in TESTS if not only or n in only.split(",")]
        tap.run({n: functools.partial(globals()["test_" + n], guest) for n in names})
    finally:
        guest.close()


if __name__ == "__main__":
    main()
