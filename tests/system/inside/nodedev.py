#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""True PCI devices: /dev/vdd's is taken from its driver and given back, where the kernel has VFIO; udev's events. ../nodedev.py
has all other cases."""
import os

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


def test_in_use():
    refused(f"nodedev-detach {card('vda')}", "which is mounted on '/'")
    sh("mke2fs -q -t ext4 /dev/vdc && mkdir -p /mnt/c && mount /dev/vdc /mnt/c")
    refused(f"nodedev-detach {card('vdc')}", "its disk 'vdc', which is mounted on '/mnt/c'")
    sh("umount /mnt/c && wipefs -qa /dev/vdc")


def test_events():
    """udev's, where it runs, are told when the device is there."""
    address = card("vdd")[4:].replace("_", ":", 2).replace("_", ".")
    sh("(virsh nodedev-event --event lifecycle --timeout 100 >/root/event 2>&1 &)")
    for _ in range(100):
        for verb in ("unbind", "bind"):
            sh(f"echo {address} >/sys/bus/pci/drivers/virtio-pci/{verb}; sleep 0.5")
        if "events received: 1" in run("cat /root/event")[1]:
            break
    assert "event 'lifecycle' for node device block_vdd" in sh("cat /root/event"), sh("cat /root/event")


if __name__ == "__main__":
    main({"detach": test_detach, "in use": test_in_use, "events": test_events})
