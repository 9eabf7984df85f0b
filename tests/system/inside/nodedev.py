#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""True devices: each against libvirt's schema; a PCI card taken from its driver and given back, where the kernel has VFIO; a SCSI
host of the kernel's own; udev's events. ../nodedev.py has all other cases."""
import os
import subprocess
import xml.etree.ElementTree as ET

from here import main, refused, run, sh, tap, virsh, wait_for


def card(disk):
    """The name of a disk's PCI device."""
    path = os.path.realpath(f"/sys/class/block/{disk}")
    return "pci_" + next(p for p in reversed(path.split("/")) if p.count(":") == 2).translate(str.maketrans(":.", "__"))


def test_detach():
    name = card("vdd")
    sysfs = "/sys/bus/pci/devices/" + name[4:].replace("_", ":", 2).replace("_", ".")
    assert os.readlink(sysfs + "/driver").endswith("virtio-pci")
    if not os.path.exists(sysfs + "/iommu_group"):
        refused(f"nodedev-detach {name}", "switch the IOMMU on")
        if run("modprobe vfio enable_unsafe_noiommu_mode=1 && echo 1 >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode")[0]:
            raise tap.Skip("this kernel has no IOMMU and no VFIO without one")
    virsh(f"nodedev-detach {name}")
    assert os.readlink(sysfs + "/driver").endswith("vfio-pci") and not os.path.exists("/dev/vdd")
    assert "<name>vfio-pci</name>" in virsh(f"nodedev-dumpxml {name}")
    assert "block_vdd" not in virsh("nodedev-list --cap storage")
    group = os.path.basename(os.readlink(sysfs + "/iommu_group"))
    device = next(f"/dev/vfio/{f}" for f in (group, f"noiommu-{group}") if os.path.exists(f"/dev/vfio/{f}"))
    with open(device, "rb+", buffering=0):
        refused(f"nodedev-reattach {name}", "a machine has it")
    virsh(f"nodedev-reattach {name}")
    assert os.readlink(sysfs + "/driver").endswith("virtio-pci")
    wait_for("/dev/vdd", lambda: os.path.exists("/dev/vdd"))


def described(*names):
    """Each as the schema has it."""
    with open("/root/all", "w", encoding="utf-8") as f:
        f.write(virsh("'" + "; echo @@; ".join(f"nodedev-dumpxml {name}" for name in names) + "'"))
    with open("/root/all", encoding="utf-8") as f:
        texts = f.read().split("@@")
    for n, text in enumerate(texts):
        with open(f"/root/device{n}.xml", "w", encoding="utf-8") as f:
            f.write(text.strip())
    assert len(texts) == len(names), texts
    sh(f"xmllint --noout --relaxng /usr/share/libvirt/schemas/nodedev.rng $(seq -f /root/device%g.xml 0 {len(texts) - 1})")
    return [ET.fromstring(text) for text in texts]


def test_schema():
    names = virsh("nodedev-list").split()
    kinds = {name: device.find("capability").get("type") for name, device in zip(names, described(*names))}
    assert set(kinds.values()) >= {"system", "pci", "net", "storage"}, kinds


def test_scsi():
    """A host, its target, unit, generic device and disk."""
    sh("modprobe sg && modprobe scsi_debug dev_size_mb=48")
    wait_for("its disk", lambda: os.path.exists("/sys/class/scsi_generic/sg0") and any(d.startswith("sd") for d in os.listdir("/sys/class/block")))
    words = ("scsi_host", "scsi_target", "scsi", "scsi_generic", "storage")
    found = virsh("'" + "; echo @@; ".join(f"nodedev-list --cap {word}" for word in words) + "'").split("@@")
    number = sh("grep -l scsi_debug /sys/class/scsi_host/host*/proc_name").split("/")[4].removeprefix("host")
    (name,), (below,), (unit,), (sg,) = (text.split() for text in found[:4])
    assert name == f"scsi_host{number}" and unit == f"scsi_{number}_0_0_0" and below == f"scsi_target{number}_0_0", found
    disk = next(n for n in found[4].split() if n.startswith("block_sd"))
    host, target, device, generic, block = described(name, below, unit, sg, disk)
    assert host.findtext("capability/host") == number and target.findtext("parent") == name and device.findtext("parent") == below
    assert device.findtext("capability/type") == "disk" and device.findtext("driver/name") == "sd"
    assert generic.findtext("parent") == unit and generic.findtext("capability/char") == "/dev/sg0" and block.findtext("parent") == unit
    assert block.findtext("capability/model") == "scsi_debug" and block.findtext("capability/size") == str(48 << 20)
    wait_for("nobody to look into the disk", lambda: not run("udevadm settle; modprobe -r scsi_debug")[0])  # udev does, when it comes
    assert name not in virsh("nodedev-list").split()


def test_in_use():
    refused(f"nodedev-detach {card('vda')}", "which is mounted on '/'")
    sh("mke2fs -q -t ext4 /dev/vdc && mkdir -p /mnt/c && mount /dev/vdc /mnt/c")
    refused(f"nodedev-detach {card('vdc')}", "its disk 'vdc', which is mounted on '/mnt/c'")
    sh("umount /mnt/c && wipefs -qa /dev/vdc")


def test_events():
    """udev's, where it runs, are told when the device is there."""
    address = card("vdd")[4:].replace("_", ":", 2).replace("_", ".")

    def told():
        for verb, word in (("unbind", "Deleted"), ("bind", "Created")):
            sh(f"echo {address} >/sys/bus/pci/drivers/virtio-pci/{verb}; "
               f"for i in $(seq 20); do grep -q \"event 'lifecycle' for node device block_vdd: {word}\" /root/events && break; sleep 0.1; done")
        return all(f"block_vdd: {word}" in sh("cat /root/events") for word in ("Deleted", "Created"))
    with open("/root/events", "w", encoding="utf-8") as out, \
            subprocess.Popen(["virsh", "nodedev-event", "--event", "lifecycle", "--loop", "--timeout", "600"], stdin=subprocess.DEVNULL, stdout=out) as listener:
        try:
            wait_for("the disk's events", told)
        finally:
            listener.kill()


if __name__ == "__main__":
    main({"schema": test_schema, "scsi": test_scsi, "detach": test_detach, "in use": test_in_use, "events": test_events})
