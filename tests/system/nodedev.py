#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's devices by virsh and python3-libvirt: this host's own, and those of a made-up /sys with what this host may lack.

    nodedev.py RUCHED RUCHE-VMM RUCHE-IMG
"""
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402

RUCHED, VMM, IMG = (os.path.abspath(p) for p in sys.argv[1:4])
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-nodedev-")
SCHEMA = "/usr/share/libvirt/schemas/nodedev.rng"
PCI = "sys/devices/pci0000:00"
HBA, DISK = f"{PCI}/0000:00:04.0/host0", f"{PCI}/0000:00:04.0/host0/target0:0:1/0:0:1:2"
USB = f"{PCI}/0000:00:06.0/usb1"
MDEV = "4b20d080-1b54-4048-85b3-a6a62d165c01"
FILES = {
    f"{PCI}/0000:00:04.0": {"vendor": "0x8086", "device": "0x1572", "class": "0x020000", "numa_node": "1", "sriov_totalvfs": "8",
                            "mdev_supported_types/t-1/device_api": "vfio-pci", "mdev_supported_types/t-1/name": "a <small> one",
                            "mdev_supported_types/t-1/available_instances": "3", f"{MDEV}/x": ""},
    f"{PCI}/0000:00:05.0": {"vendor": "0x8086", "device": "0x154c", "class": "0x020000", "numa_node": "-1"},
    f"{PCI}/0000:00:06.0": {"vendor": "0xfffe", "device": "0xffff", "class": "0x060400"},
    f"{HBA}/scsi_host/host0": {"unique_id": "7"},
    f"{HBA}/fc_host/host0": {"node_name": "0x2000000012341234", "port_name": "0x2100000012341234", "fabric_name": "0x2200000012341234"},
    f"{HBA}/target0:0:1": {"uevent": ""},
    DISK: {"type": "0", "model": "Fast\x01Disk & co ", "vendor": "ACME"},
    f"{DISK}/block/sda": {"size": "2048", "removable": "0", "queue/logical_block_size": "4096", "serial": "S 1"},
    f"{DISK}/block/sda/sda1": {"size": "1024", "partition": "1"},
    f"{PCI}/0000:00:05.0/net/eth9": {"address": "52:54:00:0a:0b:0c", "operstate": "up", "speed": "10000"},
    f"{USB}/1-1": {"idVendor": "046d", "idProduct": "c077", "busnum": "1", "devnum": "9", "manufacturer": "Logitech", "product": "Mouse"},
    f"{USB}/1-1/1-1:1.0": {"bInterfaceNumber": "00", "bInterfaceClass": "03", "bInterfaceSubClass": "01", "bInterfaceProtocol": "0a"},
}
LINKS = {
    "sys/bus/pci/devices/": [f"{PCI}/0000:00:04.0", f"{PCI}/0000:00:05.0", f"{PCI}/0000:00:06.0"],
    "sys/bus/usb/devices/": [f"{USB}/1-1", f"{USB}/1-1/1-1:1.0"],
    "sys/bus/scsi/devices/": [HBA, f"{HBA}/target0:0:1", DISK],
    "sys/bus/mdev/devices/": [f"{PCI}/0000:00:04.0/{MDEV}"],
    "sys/class/scsi_host/": [f"{HBA}/scsi_host/host0"],
    "sys/class/fc_host/": [f"{HBA}/fc_host/host0"],
    "sys/class/block/": [f"{DISK}/block/sda", f"{DISK}/block/sda/sda1"],
    "sys/class/net/": [f"{PCI}/0000:00:05.0/net/eth9"],
    f"{DISK}/block/sda/device": DISK,
    f"{DISK}/block/sda/sda1/device": DISK,
    f"{PCI}/0000:00:04.0/virtfn0": f"{PCI}/0000:00:05.0",
    f"{PCI}/0000:00:05.0/physfn": f"{PCI}/0000:00:04.0",
    f"{PCI}/0000:00:05.0/driver": "sys/bus/pci/drivers/iavf",
    f"{PCI}/0000:00:05.0/iommu_group": "sys/kernel/iommu_groups/5",
    "sys/kernel/iommu_groups/5/devices/": [f"{PCI}/0000:00:05.0", f"{PCI}/0000:00:06.0"],
    f"{PCI}/0000:00:04.0/{MDEV}/mdev_type": f"{PCI}/0000:00:04.0/mdev_supported_types/t-1",
    "sys/bus/pci/devices/lost": "sys/nowhere",
}
PARENTS = {
    "computer": None, "pci_0000_00_04_0": "computer", "pci_0000_00_05_0": "computer", "pci_0000_00_06_0": "computer",
    "scsi_host0": "pci_0000_00_04_0", "scsi_target0_0_1": "scsi_host0", "scsi_0_0_1_2": "scsi_target0_0_1",
    "block_sda_S_1": "scsi_0_0_1_2", "net_eth9_52_54_00_0a_0b_0c": "pci_0000_00_05_0", "usb_1_1": "pci_0000_00_06_0",
    "usb_1_1_1_0": "usb_1_1", "mdev_" + MDEV.replace("-", "_"): "pci_0000_00_04_0",
}


def make_tree():
    top = os.path.join(FOLDER.name, "tree")
    for folder, files in FILES.items():
        for name, text in files.items():
            where = os.path.join(top, folder, name)
            os.makedirs(os.path.dirname(where), exist_ok=True)
            with open(where, "w", encoding="utf-8") as f:
                f.write(text + "\n")
    for link, target in LINKS.items():
        for one in target if isinstance(target, list) else [target]:
            where = os.path.join(top, link) + (os.path.basename(one) if link.endswith("/") else "")
            os.makedirs(os.path.dirname(where), exist_ok=True)
            os.symlink(os.path.relpath(os.path.join(top, one), os.path.realpath(os.path.dirname(where))), where)
    return top


class Daemon:
    def __init__(self, name, tree=None):
        self.folder = os.path.join(FOLDER.name, name)
        os.makedirs(self.folder)
        self.socket, log = f"{self.folder}/run/libvirt-sock", os.path.join(self.folder, "log")
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        with open(os.path.join(self.folder, "conf"), "w", encoding="utf-8") as f:
            f.write(f"[machines]\nvmm={VMM}\nimg={IMG}\n[libvirt]\nusual_place=false\n")
        with open(log, "wb") as out:
            self.process = subprocess.Popen([RUCHED, "--system", "--config", f"{self.folder}/conf", "--runtime-dir", f"{self.folder}/run",
                                             "--state-dir", f"{self.folder}/state"], stderr=out, start_new_session=True,
                                            env={**os.environ, **({"NODE_SYSFS": tree} if tree else {})})
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, open(log, encoding="utf-8").read()[-2000:]
            time.sleep(0.01)

    def answers(self):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(self.socket) == 0

    def virsh(self, *args, ok=True):
        r = subprocess.run(["virsh", "-c", self.uri, *args], capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
        assert (r.returncode == 0) == ok, f"virsh {' '.join(args)}: {r.stdout}{r.stderr}"
        return r.stdout if ok else r.stderr

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def valid(text):
    r = subprocess.run(["xmllint", "--noout", "--relaxng", SCHEMA, "-"], input=text, text=True, capture_output=True, timeout=600, check=False)
    assert r.returncode == 0, r.stderr + text
    return ET.fromstring(text)


def with_daemon(fn, *args):
    daemon = Daemon(fn.__name__, *args)
    try:
        fn(daemon)
    finally:
        daemon.end()


def this_host(daemon):
    names = daemon.virsh("nodedev-list").split()
    assert "computer" in names, names
    for name in names:
        device = valid(daemon.virsh("nodedev-dumpxml", name))
        assert device.findtext("name") == name and (device.findtext("parent") in names) == (name != "computer"), name
        assert device.findtext("path") is None or os.path.isdir(device.findtext("path"))
    assert any(n.startswith("net_lo_") for n in daemon.virsh("nodedev-list", "--cap", "net").split())
    assert "Node device not found" in daemon.virsh("nodedev-dumpxml", "nix", ok=False)
    assert daemon.virsh("nodedev-list", "--inactive").split() == []
    info = daemon.virsh("nodedev-info", "computer")
    assert "Active:         yes" in info and "Persistent:     no" in info, info
    for line in (("nodedev-detach", "computer"), ("nodedev-reattach", "computer"), ("nodedev-reset", "computer")):
        assert "support" in daemon.virsh(*line, ok=False), line


def made_up(daemon):
    assert set(daemon.virsh("nodedev-list").split()) == set(PARENTS), daemon.virsh("nodedev-list")
    xml = {name: valid(daemon.virsh("nodedev-dumpxml", name)) for name in PARENTS}
    assert {name: device.findtext("parent") for name, device in xml.items()} == PARENTS
    cap = {name: device.find("capability") for name, device in xml.items()}
    card, function = cap["pci_0000_00_04_0"], cap["pci_0000_00_05_0"]
    assert card.find("vendor").get("id") == "0x8086" and card.findtext("class") == "0x020000" and card.findtext("slot") == "4"
    assert card.find("capability[@type='virt_functions']").get("maxCount") == "8" and card.find("numa").get("node") == "1"
    assert card.find("capability[@type='virt_functions']/address").get("slot") == "0x05"
    assert card.findtext("capability[@type='mdev_types']/type[@id='t-1']/name") == "a <small> one"
    assert function.find("capability[@type='phys_function']/address").get("slot") == "0x04" and function.find("numa") is None
    assert {a.get("slot") for a in function.findall("iommuGroup/address")} == {"0x05", "0x06"} and function.find("iommuGroup").get("number") == "5"
    assert xml["pci_0000_00_05_0"].findtext("driver/name") == "iavf"
    assert cap["pci_0000_00_06_0"].find("capability").get("type") == "pci-bridge"
    disk = cap["block_sda_S_1"]
    assert [disk.findtext(t) for t in ("block", "model", "vendor", "serial", "size", "logical_block_size", "num_blocks")] == [
        "/dev/sda", "Fast Disk & co", "ACME", "S 1", "1048576", "4096", "256"], ET.tostring(disk)
    assert [cap["scsi_0_0_1_2"].findtext(t) for t in ("host", "bus", "target", "lun", "type")] == ["0", "0", "1", "2", "disk"]
    assert cap["scsi_host0"].findtext("unique_id") == "7" and cap["scsi_host0"].findtext("capability/wwpn") == "2100000012341234"
    net = cap["net_eth9_52_54_00_0a_0b_0c"]
    assert net.find("link").attrib == {"speed": "10000", "state": "up"} and net.findtext("address") == "52:54:00:0a:0b:0c"
    assert [cap["usb_1_1"].findtext(t) for t in ("bus", "device", "product", "vendor")] == ["1", "9", "Mouse", "Logitech"]
    assert [cap["usb_1_1_1_0"].findtext(t) for t in ("number", "class", "subclass", "protocol")] == ["0", "3", "1", "10"]
    assert cap["mdev_" + MDEV.replace("-", "_")].findtext("uuid") == MDEV
    for word, names in {"fc_host": {"scsi_host0"}, "mdev_types": {"pci_0000_00_04_0"}, "usb": {"usb_1_1_1_0"}, "storage": {"block_sda_S_1"}}.items():
        assert set(daemon.virsh("nodedev-list", "--cap", word).split()) == names, word
    assert "<name>scsi_host0</name>" in daemon.virsh("nodedev-dumpxml", "2000000012341234,2100000012341234")
    assert "Node device not found" in daemon.virsh("nodedev-dumpxml", "2000000012341234,2100000012341235", ok=False)
    c = libvirt.open(daemon.uri)
    host = c.nodeDeviceLookupByName("scsi_host0")
    assert sorted(host.listCaps()) == ["fc_host", "scsi_host"] and host.numOfCaps() == 2 and host.parent() == "pci_0000_00_04_0"
    assert c.numOfDevices("pci") == 3 and len(c.listDevices("net")) == 1 and c.nodeDeviceLookupByName("computer").parent() is None
    c.close()


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        tap.run({"this host": lambda: with_daemon(this_host), "a made-up host": lambda: with_daemon(made_up, make_tree())})
    finally:
        FOLDER.cleanup()


main()
