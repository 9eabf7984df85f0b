#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines on Open vSwitch with the kernel's datapath: VLANs by frames between machines and namespaces, limits as the kernel has
them. ../openvswitch.py has all other cases, with the datapath in user space.

The machines stand before their first instruction: the test has a queue of their taps, and speaks and hears as they would.
"""
import fcntl
import json
import os
import signal
import socket
import struct
import time

import here
from here import main, run, sh, start, virsh, wait_for

MACHINES = {"a": "<vlan><tag id='7'/></vlan>", "b": "<vlan><tag id='8'/></vlan>",
            "t": "<vlan trunk='yes'><tag id='7' nativeMode='untagged'/><tag id='8'/></vlan>"}
LIMITS = "<bandwidth><inbound average='1000' peak='2000'/><outbound average='128' burst='64'/></bandwidth>"
TYPE, TUNSETIFF, TUNGETVNETHDRSZ = b"\x88\xb5", 0x400454ca, 0x800454d7
TAP_FLAGS = 0x2 | 0x1000 | 0x4000 | 0x100  # TAP, NO_PI, VNET_HDR, MULTI_QUEUE
ports = {}


class Port:
    """What comes out of the switch to an interface, and what goes in by it."""

    def __init__(self, name, machine):
        self.got, self.tap, self.header = [], None, 4
        self.ear = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.ear.bind((name, 0))
        self.ear.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: tags that were taken off
        self.comes = socket.PACKET_OUTGOING if machine else socket.PACKET_BROADCAST
        if machine:
            self.tap = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(self.tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_FLAGS))
            size = bytearray(4)
            fcntl.ioctl(self.tap, TUNGETVNETHDRSZ, size)
            self.header = int.from_bytes(size, "little")

    def say(self, text, vlan=0):
        tag = b"\x81\x00" + struct.pack(">H", vlan) if vlan else b""
        frame = (b"\xff" * 6 + b"\x52\x54\x00\x00\x00" + text[-1:].encode() + tag + TYPE + text.encode()).ljust(64, b"\0")
        if self.tap is None:
            self.ear.send(frame)
        else:
            os.write(self.tap, bytes(self.header) + frame)

    def listen(self):
        """What has come: [VLAN, text]."""
        self.ear.setblocking(False)
        while True:
            try:
                data, more, _, (_, _, kind, *_) = self.ear.recvmsg(2000, 200)
            except BlockingIOError:
                return self.got
            vlan = next((struct.unpack("HH", aux[16:20])[0] & 0xfff for _, what, aux in more if what == 8 and struct.unpack("I", aux[:4])[0] & 0x10), 0)
            at = 12
            if data[12:14] == b"\x81\x00":
                vlan, at = struct.unpack(">H", data[14:16])[0] & 0xfff, 16
            if kind == self.comes and data[at:at + 2] == TYPE:
                self.got.append((vlan, data[at + 2:].rstrip(b"\0").decode()))


def interface(name, vlan, more=""):
    return f"""<interface type='bridge'><mac address='52:54:00:07:00:{ord(name):02x}'/><source bridge='obr0'/>{vlan}<virtualport type='openvswitch'/>{more}
<target dev='tap{name}'/><model type='virtio'/><driver queues='2'/></interface>"""


def describe(name, more=""):
    return f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>/ruche/kernel</kernel></os><devices><emulator>/ruche/ruche-vmm</emulator>
{interface(name, MACHINES[name], more)}<memballoon model='none'/></devices></domain>"""


def switch():
    """The programs of Open vSwitch, a bridge of the kernel's datapath, a veth each in VLAN 7 and 8."""
    sh("mkdir -p /run/openvswitch /etc/openvswitch && rm -f /etc/openvswitch/conf.db && modprobe openvswitch")
    sh("ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema")
    sh("ovsdb-server /etc/openvswitch/conf.db --remote=punix:/run/openvswitch/db.sock --detach --pidfile --log-file=/root/ovsdb.log 2>&1")
    sh("ovs-vsctl --no-wait init && ovs-vswitchd --detach --pidfile --log-file=/root/vswitchd.log 2>&1")
    sh("ovs-vsctl --timeout=60 add-br obr0 -- set bridge obr0 datapath_type=system")
    for vlan in (7, 8):
        sh(f"ip link add v{vlan} type veth peer name e{vlan}; ip link set v{vlan} up; ip link set e{vlan} up; "
           f"ovs-vsctl --timeout=60 add-port obr0 v{vlan} tag={vlan}")
        ports[f"e{vlan}"] = Port(f"e{vlan}", False)


def reach(sender, text, vlan=0):
    """Who gets what is said: {port: VLAN}; it is said again until all that are to have it have."""
    def heard():
        return {name: v for name, p in ports.items() for v, t in p.listen() if t == text}
    wanted = EXPECTED[sender, vlan]
    until = time.monotonic() + 60
    while heard() != wanted and time.monotonic() < until:
        ports[sender].say(text, vlan)
        time.sleep(0.05)
    return heard()


# Who gets what comes in at a port with a tag: the access ports without one, the trunk VLAN 8 with it.
EXPECTED = {("e7", 0): {"a": 0, "t": 0}, ("e8", 0): {"b": 0, "t": 8}, ("a", 0): {"e7": 0, "t": 0}, ("b", 0): {"e8": 0, "t": 8},
            ("t", 0): {"a": 0, "e7": 0}, ("t", 8): {"b": 0, "e8": 0}}


def test_frames():
    switch()
    assert "system@ovs-system" in sh("ovs-dpctl show"), sh("ovs-dpctl show")
    for name in MACHINES:
        with open(f"/root/{name}.xml", "w", encoding="ascii") as f:
            f.write(describe(name, LIMITS if name == "a" else ""))
        virsh(f"create --paused /root/{name}.xml")
        ports[name] = Port(f"tap{name}", True)
    assert "tapa" in sh("ovs-dpctl show"), sh("ovs-dpctl show")
    found = {(sender, vlan): reach(sender, f"{vlan} from {sender}", vlan) for sender, vlan in EXPECTED}
    assert found == EXPECTED, found


def test_limits():
    """A class and a policer of the kernel's, by which the datapath that knows no limits has them."""
    shown = wait_for("htb", lambda: "htb" in run("tc class show dev tapa")[1] and sh("tc class show dev tapa"))
    assert "rate 8Mbit ceil 16Mbit" in shown, shown
    shown = wait_for("a policer", lambda: "police" in run("tc filter show dev tapa ingress")[1] and sh("tc filter show dev tapa ingress"))
    assert "rate 1024Kbit" in shown, shown


def test_change():
    """Another VLAN while it runs; a manager that is killed, and machines that end, leave no port."""
    with open("/root/i.xml", "w", encoding="ascii") as f:
        f.write(interface("b", "<vlan><tag id='7'/></vlan>"))
    virsh("update-device b /root/i.xml --live")
    EXPECTED["b", 0] = {"a": 0, "e7": 0, "t": 0}
    assert reach("b", "another one of b") == EXPECTED["b", 0]
    virsh("destroy t")
    here.end(signal.SIGKILL)
    start()
    wait_for("ruched", lambda: not run("virsh uri")[0])
    for name in "ab":
        virsh(f"destroy {name}")
    wait_for("no port", lambda: sorted(sh("ovs-vsctl list-ports obr0").split()) == ["v7", "v8"])
    assert json.loads(sh("ovs-vsctl --format=json list QoS"))["data"] == []
    sh("ovs-vsctl --timeout=60 del-br obr0; ip link del v7; ip link del v8")


if __name__ == "__main__":
    main({"frames": test_frames, "limits": test_limits, "change": test_change})
