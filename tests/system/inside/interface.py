#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Bonds and VLANs of the host, which need a kernel that has them; a host that is started anew before a commit. ../interface.py
has all other cases."""
import re
import signal
import xml.etree.ElementTree as ET

from here import end, main, refused, run, sh, start, virsh, wait_for

WORLD = "/root/i.xml"
BOND = """<interface type='bond' name='bond0'><mtu size='1400'/><protocol family='ipv4'><ip address='10.5.0.1' prefix='24'/></protocol>
  <bond mode='active-backup'><miimon freq='100' updelay='200' downdelay='300' carrier='netif'/>
  <interface type='ethernet' name='p0'/><interface type='ethernet' name='p1'/></bond></interface>"""


def define(xml):
    with open(WORLD, "w", encoding="utf-8") as f:
        f.write(xml)
    virsh(f"iface-define {WORLD}")


def destroy(name):
    """virsh 9.0.0 says that it is done, and ends with 1."""
    assert "destroyed" in run(f"virsh iface-destroy {name}")[1]


def described(name):
    return ET.fromstring(virsh(f"iface-dumpxml {name}"))


def cards():
    """Two cards with the other ends in a namespace."""
    if run("ip netns list | grep -q world")[0]:
        sh("ip netns add world; ip -n world link add sw type bridge; ip -n world addr add 10.5.0.9/24 dev sw; ip -n world link set sw up")
        for n in range(2):
            sh(f"ip link add p{n} type veth peer name w{n}; ip link set w{n} netns world; ip -n world link set w{n} master sw up")


def links():
    return sorted(re.findall(r"^\d+: ([^:@]+)", sh("ip -o link"), re.MULTILINE)), sh("ip -o addr show dev p0"), sh("ip -o link show dev p1").split("mtu")[0]


def gone(name):
    destroy(name)
    virsh(f"iface-undefine {name}")
    assert run(f"ip link show {name}")[0]


def test_bond():
    cards()
    before = links()
    define(BOND)
    virsh("iface-start bond0")
    i = described("bond0")
    assert i.find("bond").get("mode") == "active-backup" and i.find("mtu").get("size") == "1400"
    mii = i.find("bond/miimon").attrib
    assert mii["freq"] == "100" and mii["updelay"] == "200" and mii["downdelay"] == "300" and mii["carrier"] == "netif", mii
    assert [p.get("name") for p in i.findall("bond/interface")] == ["p0", "p1"]
    assert "p0" in sh("cat /sys/class/net/bond0/bonding/primary")
    sh("ping -c 1 -W 10 10.5.0.9")
    sh("ip link set p0 down")
    wait_for("the other port", lambda: "p1" in sh("cat /sys/class/net/bond0/bonding/active_slave"))
    sh("ping -c 1 -W 10 10.5.0.9")
    sh("ip link set p0 up")
    gone("bond0")
    assert links() == before, f"{before} {links()}"


def test_bond_modes():
    cards()
    for mode in ("802.3ad", "balance-alb"):
        define(BOND.replace("active-backup", mode))
        virsh("iface-start bond0")
        assert described("bond0").find("bond").get("mode") == mode
        gone("bond0")
    define(BOND.replace("<miimon freq='100' updelay='200' downdelay='300' carrier='netif'/>", "<arpmon interval='250' target='10.5.0.9' validate='all'/>"))
    virsh("iface-start bond0")
    assert described("bond0").find("bond/arpmon").attrib == {"interval": "250", "target": "10.5.0.9", "validate": "all"}
    gone("bond0")


def test_vlan():
    cards()
    before = links()
    sh("ip -n world link add link w0 name v42 type vlan id 42; ip -n world addr add 10.42.0.9/24 dev v42; "
       "ip -n world link set w0 nomaster; ip -n world link set v42 up; ip link set p0 up")
    define("<interface type='vlan'><protocol family='ipv4'><ip address='10.42.0.1' prefix='24'/></protocol><vlan tag='42'><interface name='p0'/></vlan></interface>")
    virsh("iface-start p0.42")
    i = described("p0.42")
    assert i.get("type") == "vlan" and i.find("vlan").get("tag") == "42" and i.find("vlan/interface").get("name") == "p0"
    sh("ping -c 1 -W 10 10.42.0.9")
    gone("p0.42")
    sh("ip -n world link del v42; ip -n world link set w0 master sw; ip link set p0 down")
    assert links() == before, f"{before} {links()}"
    define("<interface type='vlan'><vlan tag='9'><interface name='nix'/></vlan></interface>")
    refused("iface-start nix.9", "no interface 'nix', whose VLAN it is")
    virsh("iface-undefine nix.9")


def test_all_at_once():
    """A bridge on a bond and a VLAN; kill -9 in a change brings back what was."""
    cards()
    before = links()
    define("<interface type='bridge' name='br0'><protocol family='ipv4'><ip address='10.5.0.1' prefix='24'/></protocol><bridge stp='off'>"
           "<interface type='bond' name='bond0'><bond mode='balance-rr'><interface type='ethernet' name='p0'/></bond></interface>"
           "<interface type='vlan' name='p1.7'><vlan tag='7'><interface name='p1'/></vlan></interface></bridge></interface>")
    virsh("iface-start br0")
    i = described("br0")
    assert sorted((p.get("type"), p.get("name")) for p in i.findall("bridge/interface")) == [("bond", "bond0"), ("vlan", "p1.7")]
    sh("ping -c 1 -W 10 10.5.0.9")
    running = links()
    virsh("iface-begin")
    destroy("br0")
    virsh("iface-undefine br0")
    end(signal.SIGKILL)
    start()
    wait_for("br0", lambda: re.search("br0 +active", run("virsh -q iface-list")[1]))
    assert links()[0] == running[0], f"{running} {links()}"
    sh("ping -c 1 -W 10 10.5.0.9")
    destroy("br0")
    virsh("iface-undefine br0")
    assert links()[0] == before[0], f"{before} {links()}"


if __name__ == "__main__":
    main({"bond": test_bond, "bond modes": test_bond_modes, "vlan": test_vlan, "all at once": test_all_at_once})
