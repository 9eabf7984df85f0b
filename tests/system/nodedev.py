#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The host's devices by virsh and python3-libvirt: this host's own, and those of a made-up /sys with what this host may lack.

    nodedev.py RUCHED RUCHE-VMM RUCHE-IMG RUCHE
"""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402

RUCHED, VMM, IMG, RUCHE = (os.path.abspath(p) for p in sys.argv[1:5])
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-nodedev-")
SCHEMA = "/usr/share/libvirt/schemas/nodedev.rng"
PCI = "sys/devices/pci0000:00"
HBA, DISK = f"{PCI}/0000:00:04.0/host0", f"{PCI}/0000:00:04.0/host0/target0:0:1/0:0:1:2"
USB = f"{PCI}/0000:00:06.0/usb1"
MDEV = "4b20d080-1b54-4048-85b3-a6a62d165c01"
FILES = {
    f"{PCI}/0000:00:04.0": {"vendor": "0x8086", "device": "0x1572", "class": "0x020000", "numa_node": "1", "sriov_totalvfs": "8",
                            "max_link_speed": "8.0 GT/s PCIe", "max_link_width": "16", "current_link_speed": "2.5 GT/s PCIe", "current_link_width": "4",
                            "mdev_supported_types/t-1/device_api": "vfio-pci", "mdev_supported_types/t-1/name": "a <small> one",
                            "mdev_supported_types/t-1/available_instances": "3", "mdev_supported_types/t-1/create": "", f"{MDEV}/x": ""},
    f"{PCI}/0000:00:05.0": {"vendor": "0x8086", "device": "0x154c", "class": "0x020000", "numa_node": "-1", "driver_override": "", "reset": ""},
    "sys/bus/pci": {"drivers_probe": "", "drivers/iavf/unbind": "", "drivers/vfio-pci/unbind": ""},
    f"{PCI}/0000:00:06.0": {"vendor": "0xfffe", "device": "0xffff", "class": "0x060400"},
    f"{HBA}/scsi_host/host0": {"unique_id": "7"},
    f"{HBA}/fc_host/host0": {"node_name": "0x2000000012341234", "port_name": "0x2100000012341234", "fabric_name": "0x2200000012341234"},
    f"{HBA}/target0:0:1": {"uevent": ""},
    f"{DISK}/scsi_generic/sg0": {"dev": "21:0"},
    f"{PCI}/0000:00:06.0/drm/card0": {"dev": "226:0"},
    f"{PCI}/0000:00:06.0/drm/card0/card0-VGA-1": {"status": "connected"},
    f"{PCI}/0000:00:06.0/drm/renderD128": {"dev": "226:128"},
    DISK: {"type": "0", "model": "Fast\x01Disk & co ", "vendor": "ACME"},
    f"{DISK}/block/sda": {"size": "2048", "removable": "0", "queue/logical_block_size": "4096", "serial": "S 1"},
    f"{DISK}/block/sda/sda1": {"size": "1024", "partition": "1", "dev": "8:1"},
    "proc": {"self/mountinfo": "22 1 8:1 / /data rw,relatime - ext4 /dev/sda1 rw", "swaps": "Filename Type Size Used Priority",
             "net/route": "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth9\t00000000\t010200C0\t3\t0\t0\t0\t00000000"},
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
    "sys/class/scsi_generic/": [f"{DISK}/scsi_generic/sg0"],
    "sys/class/drm/": [f"{PCI}/0000:00:06.0/drm/{n}" for n in ("card0", "card0/card0-VGA-1", "renderD128")],
    "sys/class/fc_host/": [f"{HBA}/fc_host/host0"],
    "sys/class/block/": [f"{DISK}/block/sda", f"{DISK}/block/sda/sda1"],
    "sys/class/net/": [f"{PCI}/0000:00:05.0/net/eth9"],
    f"{DISK}/block/sda/device": DISK,
    f"{DISK}/block/sda/sda1/device": DISK,
    f"{PCI}/0000:00:04.0/virtfn0": f"{PCI}/0000:00:05.0",
    f"{PCI}/0000:00:05.0/physfn": f"{PCI}/0000:00:04.0",
    f"{PCI}/0000:00:05.0/driver": "sys/bus/pci/drivers/iavf",
    f"{PCI}/0000:00:04.0/iommu_group": "sys/kernel/iommu_groups/4",
    "sys/kernel/iommu_groups/4/devices/": [f"{PCI}/0000:00:04.0"],
    f"{PCI}/0000:00:05.0/iommu_group": "sys/kernel/iommu_groups/5",
    "sys/kernel/iommu_groups/5/devices/": [f"{PCI}/0000:00:05.0", f"{PCI}/0000:00:06.0"],
    f"{PCI}/0000:00:04.0/{MDEV}/mdev_type": f"{PCI}/0000:00:04.0/mdev_supported_types/t-1",
    "sys/bus/pci/devices/lost": "sys/nowhere",
}
PARENTS = {
    "computer": None, "pci_0000_00_04_0": "computer", "pci_0000_00_05_0": "computer", "pci_0000_00_06_0": "computer",
    "scsi_host0": "pci_0000_00_04_0", "scsi_target0_0_1": "scsi_host0", "scsi_0_0_1_2": "scsi_target0_0_1",
    "block_sda_S_1": "scsi_0_0_1_2", "net_eth9_52_54_00_0a_0b_0c": "pci_0000_00_05_0", "usb_1_1": "pci_0000_00_06_0",
    "usb_1_1_1_0": "usb_1_1", "scsi_generic_sg0": "scsi_0_0_1_2", "drm_card0": "pci_0000_00_06_0", "drm_renderD128": "pci_0000_00_06_0", "mdev_" + MDEV.replace("-", "_"): "pci_0000_00_04_0",
}


def make_tree(name):
    top = os.path.join(FOLDER.name, "tree-" + name)
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
        self.folder, self.tree = os.path.join(FOLDER.name, name), tree
        os.makedirs(self.folder)
        self.start()

    def start(self):
        self.socket, log = f"{self.folder}/run/libvirt-sock", os.path.join(self.folder, "log")
        self.uri = f"qemu+unix:///system?socket={self.socket}"
        with open(os.path.join(self.folder, "conf"), "w", encoding="utf-8") as f:
            f.write(f"[machines]\nvmm={VMM}\nimg={IMG}\n[libvirt]\nusual_place=false\n")
        with open(log, "wb") as out:
            self.process = subprocess.Popen([RUCHED, "--system", "--config", f"{self.folder}/conf", "--runtime-dir", f"{self.folder}/run",
                                             "--state-dir", f"{self.folder}/state"], stderr=out, start_new_session=True,
                                            env={**os.environ, **({"NODE_SYSFS": self.tree} if self.tree else {})})
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

    def ruche(self, *args, ok=True):
        r = subprocess.run([RUCHE, "--connect", f"{self.folder}/run/ruche.sock", "device", *args], capture_output=True, text=True, timeout=600, check=False,
                           stdin=subprocess.DEVNULL)
        assert (r.returncode == 0) == ok, f"ruche device {' '.join(args)}: {r.stdout}{r.stderr}"
        return r.stdout if ok else r.stderr

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def valid(text):
    r = subprocess.run(["xmllint", "--noout", "--relaxng", SCHEMA, "-"], input=text, text=True, capture_output=True, timeout=600, check=False)
    assert r.returncode == 0, r.stderr + text
    return ET.fromstring(text)


class Kernel(threading.Thread):
    """Does what is written into the made-up tree, as the kernel would."""

    def __init__(self, top):
        super().__init__(daemon=True)
        self.top, self.ended, self.log = top, threading.Event(), []
        self.start()

    def run(self):
        while not self.ended.wait(0.002):
            self.unbind()
            self.probe()
            self.mediate()

    def at(self, *names):
        return os.path.join(self.top, *names)

    def take(self, *names):
        """What was written into a file; it is empty again."""
        path = self.at(*names)
        with open(path, encoding="utf-8") as f:
            text = f.read().strip()
        if text:
            os.truncate(path, 0)
            self.log.append((os.path.basename(path), text))
        return text

    def unbind(self):
        for driver in ("iavf", "vfio-pci"):
            address = self.take("sys/bus/pci/drivers", driver, "unbind")
            if address:
                assert os.path.basename(os.readlink(self.at(PCI, address, "driver"))) == driver
                os.unlink(self.at(PCI, address, "driver"))

    def probe(self):
        address = self.take("sys/bus/pci/drivers_probe")
        if address:
            with open(self.at(PCI, address, "driver_override"), encoding="utf-8") as f:
                driver = f.read().strip() or "iavf"
            os.symlink(self.at("sys/bus/pci/drivers", driver), self.at(PCI, address, "driver"))

    def mediate(self):
        parent = f"{PCI}/0000:00:04.0"
        uuid = self.take(parent, "mdev_supported_types/t-1/create")
        if uuid:
            os.makedirs(self.at(parent, uuid))
            for name in ("remove", "colour"):
                with open(self.at(parent, uuid, name), "w", encoding="utf-8"):
                    pass
            os.symlink(self.at(parent, "mdev_supported_types/t-1"), self.at(parent, uuid, "mdev_type"))
            os.symlink(self.at(parent, uuid), self.at("sys/bus/mdev/devices", uuid))
        for uuid in os.listdir(self.at("sys/bus/mdev/devices")):
            path = self.at(parent, uuid, "remove")
            if os.path.exists(path) and self.take(path):
                os.unlink(self.at("sys/bus/mdev/devices", uuid))
                shutil.rmtree(self.at(parent, uuid))

    def driver(self, address):
        try:
            return os.path.basename(os.readlink(self.at(PCI, address, "driver")))
        except FileNotFoundError:
            return None

    def end(self):
        self.ended.set()
        self.join()


def with_daemon(fn, *args):
    daemon = Daemon(fn.__name__, *args)
    try:
        fn(daemon)
    finally:
        daemon.end()


def true_device(daemon, name, names):
    device = valid(daemon.virsh("nodedev-dumpxml", name))
    assert device.findtext("name") == name and (device.findtext("parent") in names) == (name != "computer"), name
    assert device.findtext("path") is None or os.path.isdir(device.findtext("path"))


def this_host(daemon):
    names = daemon.virsh("nodedev-list").split()
    assert "computer" in names, names
    for name in names:
        try:
            true_device(daemon, name, names)
        except AssertionError:  # other tests' cards and disks come and go
            if name in daemon.virsh("nodedev-list").split():
                raise
    assert any(n.startswith("net_lo_") for n in daemon.virsh("nodedev-list", "--cap", "net").split())
    assert "Node device not found" in daemon.virsh("nodedev-dumpxml", "nix", ok=False)
    assert daemon.virsh("nodedev-list", "--inactive").split() == []
    info = daemon.virsh("nodedev-info", "computer")
    assert "Active:         yes" in info and "Persistent:     no" in info, info
    for verb in ("nodedev-detach", "nodedev-reattach", "nodedev-reset"):
        assert "is no PCI device" in daemon.virsh(verb, "computer", ok=False), verb


def made_up(daemon):
    assert set(daemon.virsh("nodedev-list").split()) == set(PARENTS), daemon.virsh("nodedev-list")
    xml = {name: valid(daemon.virsh("nodedev-dumpxml", name)) for name in PARENTS}
    assert {name: device.findtext("parent") for name, device in xml.items()} == PARENTS
    cap = {name: device.find("capability") for name, device in xml.items()}
    card, function = cap["pci_0000_00_04_0"], cap["pci_0000_00_05_0"]
    assert card.find("vendor").get("id") == "0x8086" and card.findtext("class") == "0x020000" and card.findtext("slot") == "4"
    assert card.find("capability[@type='virt_functions']").get("maxCount") == "8" and card.find("numa").get("node") == "1"
    assert card.find("capability[@type='virt_functions']/address").get("slot") == "0x05"
    assert [link.attrib for link in card.findall("pci-express/link")] == [
        {"validity": "cap", "speed": "8", "width": "16"}, {"validity": "sta", "speed": "2.5", "width": "4"}] and function.find("pci-express") is None
    assert cap["scsi_generic_sg0"].findtext("char") == "/dev/sg0" and xml["scsi_generic_sg0"].findtext("devnode") == "/dev/sg0"
    assert {n: (cap[n].findtext("type"), xml[n].findtext("devnode")) for n in ("drm_card0", "drm_renderD128")} == {
        "drm_card0": ("primary", "/dev/dri/card0"), "drm_renderD128": ("render", "/dev/dri/renderD128")}
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
    caps = {"system": {"computer"}, "pci": {n for n in PARENTS if n.startswith("pci_")}, "usb_device": {"usb_1_1"}, "usb": {"usb_1_1_1_0"}, "net": {"net_eth9_52_54_00_0a_0b_0c"},
            "scsi_host": {"scsi_host0"}, "scsi_target": {"scsi_target0_0_1"}, "scsi": {"scsi_0_0_1_2"}, "storage": {"block_sda_S_1"}, "fc_host": {"scsi_host0"}, "vports": set(),
            "scsi_generic": {"scsi_generic_sg0"}, "drm": {"drm_card0", "drm_renderD128"}, "mdev_types": {"pci_0000_00_04_0"}, "mdev": {"mdev_" + MDEV.replace("-", "_")},
            "ccw": set(), "css": set(), "vdpa": set(), "ap_card": set(), "ap_queue": set(), "ap_matrix": set(), "vpd": set()}
    for word, names in caps.items():
        assert set(daemon.virsh("nodedev-list", "--cap", word).split()) == names, word
    tree = daemon.virsh("nodedev-list", "--tree")
    assert tree.startswith("computer\n") and re.search(r"^[ |]*\+- block_sda_S_1$", tree, re.MULTILINE), tree
    assert "<name>scsi_host0</name>" in daemon.virsh("nodedev-dumpxml", "2000000012341234,2100000012341234")
    assert "Node device not found" in daemon.virsh("nodedev-dumpxml", "2000000012341234,2100000012341235", ok=False)
    c = libvirt.open(daemon.uri)
    host = c.nodeDeviceLookupByName("scsi_host0")
    assert sorted(host.listCaps()) == ["fc_host", "scsi_host"] and host.numOfCaps() == 2 and host.parent() == "pci_0000_00_04_0"
    assert c.numOfDevices("pci") == 3 and len(c.listDevices("net")) == 1 and c.nodeDeviceLookupByName("computer").parent() is None
    c.close()


NIC, CARD, BRIDGE = "pci_0000_00_05_0", "pci_0000_00_04_0", "pci_0000_00_06_0"


def detaching(daemon):
    kernel = Kernel(daemon.tree)
    said = daemon.virsh("nodedev-detach", NIC, ok=False)
    assert "reaches its gateway by interface 'eth9'" in said, said
    said = daemon.virsh("nodedev-detach", CARD, ok=False)
    assert "its disk 'sda1', which is mounted on '/data'" in said, said
    assert "is a bridge of the host" in daemon.virsh("nodedev-detach", BRIDGE, ok=False)
    assert "driver 'xen' is not supported" in daemon.virsh("nodedev-detach", NIC, "--driver", "xen", ok=False)
    assert "reaches its gateway" in daemon.virsh("nodedev-reset", NIC, ok=False)
    assert "has no reset of its own" in daemon.virsh("nodedev-reset", CARD, ok=False)
    assert kernel.driver("0000:00:05.0") == "iavf" and not kernel.log
    os.unlink(os.path.join(daemon.tree, "proc/net/route"))
    assert "detached" in daemon.virsh("nodedev-detach", NIC, "--driver", "vfio")
    assert kernel.driver("0000:00:05.0") == "vfio-pci"
    assert "<name>vfio-pci</name>" in daemon.virsh("nodedev-dumpxml", NIC)
    assert "detached" in daemon.virsh("nodedev-detach", NIC)  # it is
    assert "reset" in daemon.virsh("nodedev-reset", NIC)
    with open(os.path.join(daemon.tree, PCI, "0000:00:05.0/reset"), encoding="utf-8") as f:
        assert f.read() == "1"
    assert "re-attached" in daemon.virsh("nodedev-reattach", NIC)
    deadline = time.monotonic() + 120
    while kernel.driver("0000:00:05.0") != "iavf":  # a true kernel is as far when the write returns
        assert time.monotonic() < deadline, kernel.log
        time.sleep(0.01)
    os.unlink(os.path.join(daemon.tree, PCI, "0000:00:05.0/iommu_group"))
    assert "switch the IOMMU on" in daemon.virsh("nodedev-detach", NIC, ok=False)
    kernel.end()


def mediated(daemon):
    kernel = Kernel(daemon.tree)
    uuid = "11111111-2222-3333-4444-555555555555"
    name = "mdev_" + uuid.replace("-", "_")
    xml = (f"<device><parent>{CARD}</parent><capability type='mdev'><type id='t-1'/><uuid>{uuid}</uuid>"
           "<attr name='colour' value='red'/></capability></device>")
    path = os.path.join(daemon.folder, "m.xml")

    def write(text):
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path
    for part, text in (("no type 't-2'", xml.replace("t-1", "t-2")), ("makes no mediated", xml.replace(CARD, NIC)), ("is not a UUID", xml.replace(uuid, "x")),
                       ("no node device", xml.replace(CARD, "pci_9")), ("cannot be a file's name", xml.replace("t-1", "../t-1")),
                       ("cannot be a file's name", xml.replace("'colour'", "'../colour'")), ("capability 'mdev'", "<device><parent>x</parent></device>")):
        said = daemon.virsh("nodedev-create", write(text), ok=False)
        assert part in said, f"{part}: {said}"
    assert f"Node device {name} created" in daemon.virsh("nodedev-create", write(xml))
    with open(os.path.join(daemon.tree, "sys/bus/mdev/devices", uuid, "colour"), encoding="utf-8") as f:
        assert f.read() == "red"
    assert "already active" in daemon.virsh("nodedev-create", path, ok=False)
    assert "is not defined" in daemon.virsh("nodedev-autostart", name, ok=False)
    assert f"Destroyed node device '{name}'" in daemon.virsh("nodedev-destroy", name)
    assert name not in daemon.virsh("nodedev-list", "--all")
    assert "no mediated device" in daemon.virsh("nodedev-destroy", CARD, ok=False)
    assert f"'{name}' defined" in daemon.virsh("nodedev-define", path)
    assert name in daemon.virsh("nodedev-list", "--inactive") and name not in daemon.virsh("nodedev-list")
    assert valid(daemon.virsh("nodedev-dumpxml", name)).find("capability/attr").get("value") == "red"
    assert "not active" in daemon.virsh("nodedev-destroy", name, ok=False)
    daemon.virsh("nodedev-autostart", name)
    info = daemon.virsh("nodedev-info", name)
    for line in (r"Active: +no", r"Persistent: +yes", r"Autostart: +yes"):
        assert re.search(line, info), info
    daemon.end()
    daemon.start()
    deadline = time.monotonic() + 120
    while name not in daemon.virsh("nodedev-list"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    daemon.virsh("nodedev-autostart", name, "--disable")
    daemon.virsh("nodedev-destroy", name)
    assert "started" in daemon.virsh("nodedev-start", name)
    assert "Undefined" in daemon.virsh("nodedev-undefine", name)
    assert "no" in daemon.virsh("nodedev-info", name).split("Persistent:")[1].split()[0]
    daemon.virsh("nodedev-destroy", name)
    assert name not in daemon.virsh("nodedev-list", "--all")
    kernel.end()


def command(daemon):
    """Each verb of `ruche device`."""
    kernel = Kernel(daemon.tree)
    os.unlink(os.path.join(daemon.tree, "proc/net/route"))
    listed = daemon.ruche("list")
    assert re.search(r"^NAME +STATE +CAPABILITIES +DRIVER +PARENT$", listed, re.MULTILINE) and re.search(rf"^{NIC} +active +pci +iavf +computer$", listed, re.MULTILINE), listed
    assert daemon.ruche("list", "--names", "--capability", "drm").split() == ["drm_card0", "drm_renderD128"]
    assert "'nix' is not a capability" in daemon.ruche("list", "--capability", "nix", ok=False)
    info = daemon.ruche("info", NIC)
    assert re.search(r"^driver +iavf$", info, re.MULTILINE) and re.search(r"^parent +computer$", info, re.MULTILINE), info
    assert valid(daemon.ruche("xml", NIC)).findtext("name") == NIC
    assert "pci_9" in daemon.ruche("info", "pci_9", ok=False)
    daemon.ruche("detach", NIC)
    assert kernel.driver("0000:00:05.0") == "vfio-pci" and re.search(r"^driver +vfio-pci$", daemon.ruche("info", NIC), re.MULTILINE)
    daemon.ruche("reset", NIC)
    daemon.ruche("reattach", NIC)
    assert "is a bridge of the host" in daemon.ruche("detach", BRIDGE, ok=False)
    name, path = "mdev_88888888_2222_3333_4444_555555555555", os.path.join(daemon.folder, "m.xml")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"<device><parent>{CARD}</parent><capability type='mdev'><type id='t-1'/><uuid>88888888-2222-3333-4444-555555555555</uuid></capability></device>")
    daemon.ruche("define", path)
    assert re.search(rf"^{name} +inactive +mdev", daemon.ruche("list"), re.MULTILINE), daemon.ruche("list")
    daemon.ruche("set", name, "--autostart", "yes")
    daemon.ruche("start", name)
    info = daemon.ruche("info", name)
    assert all(re.search(rf"^{flag} +yes$", info, re.MULTILINE) for flag in ("active", "defined", "autostart")), info
    daemon.ruche("stop", name)
    daemon.ruche("delete", name)
    assert name in daemon.ruche("info", name, ok=False)
    daemon.ruche("define", path, "--transient")
    assert re.search(rf"^{name} +active", daemon.ruche("list"), re.MULTILINE)
    daemon.ruche("stop", name)
    assert name not in daemon.ruche("list", "--names")
    kernel.end()


def device_events(daemon):
    """As python3-libvirt gets them: defined, created, deleted, undefined."""
    kernel = Kernel(daemon.tree)
    uuid = "99999999-2222-3333-4444-555555555555"
    xml = f"<device><parent>{CARD}</parent><capability type='mdev'><type id='t-1'/><uuid>{uuid}</uuid></capability></device>"
    libvirt.virEventRegisterDefaultImpl()
    libvirt.virEventAddTimeout(50, lambda *_: None, None)
    c, told = libvirt.open(daemon.uri), []
    c.nodeDeviceEventRegisterAny(None, libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE,
                                 lambda conn, dev, event, detail, opaque: told.append((dev.name(), event)), None)
    device = c.nodeDeviceDefineXML(xml, 0)
    device.create(0)
    device.destroy()
    device.undefine(0)
    deadline = time.monotonic() + 120
    while len(told) < 4:
        assert time.monotonic() < deadline, told
        libvirt.virEventRunDefaultImpl()
    assert {n for n, _ in told} == {device.name()} and [e for _, e in told] == [2, 0, 1, 3], told
    c.close()
    kernel.end()


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        tap.run({"this host": lambda: with_daemon(this_host), **{
            name: lambda fn=fn: with_daemon(fn, make_tree(fn.__name__))
            for name, fn in {"a made-up host": made_up, "detach": detaching, "mediated": mediated, "ruche device": command, "events": device_events}.items()}})
    finally:
        FOLDER.cleanup()


main()
