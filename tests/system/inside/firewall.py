#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks beside firewalls of the host: real ones, whose drops are told with what to do, and that helps."""
import os
import re
import signal
import subprocess

import here
from here import main, ruche, run, sh, virsh, wait_for

BRIDGE, OUTSIDE = "virbr7", "10.99.0.2"
XML = f"""<network><name>lab</name><forward mode='nat'/><bridge name='{BRIDGE}'%s/><ip address='10.7.0.1' prefix='24'>
<dhcp><range start='10.7.0.100' end='10.7.0.200'/></dhcp></ip></network>"""
LEASE = """#!/bin/sh
[ "$1" = bound ] && ip addr flush dev m1 && ip addr add $ip/24 dev m1 && ip route replace default via $router
exit 0
"""
# As libvirt's: machines reach each other and the outside; of the host's services only these.
ZONE = """<zone target='ACCEPT'><protocol value='icmp'/><service name='dhcp'/><service name='dns'/>
<rule priority='32767'><reject/></rule></zone>"""


SERVER = "import socket\ns = socket.create_server(('', 4000))\nwhile True:\n    s.accept()[0].send(b'hello')"


def world():
    """A namespace outside, behind a link of this host, with a server: ufw lets pings pass."""
    with open("/root/lease", "w", encoding="ascii") as f:
        f.write(LEASE)
    sh("chmod 755 /root/lease; ip netns add out; ip link add o0 type veth peer name o1 netns out; ip addr add 10.99.0.1/24 dev o0; ip link set o0 up; "
       f"ip -n out addr add {OUTSIDE}/24 dev o1; ip -n out link set o1 up; ip -n out link set lo up")
    subprocess.Popen(["ip", "netns", "exec", "out", "python3", "-c", SERVER])
    wait_for("the server", lambda: run(f"busybox nc -w 2 {OUTSIDE} 4000 </dev/null")[1] == "hello")


def plug():
    """What stands for a machine: a namespace at the network's bridge."""
    sh(f"ip netns add m; ip link add m0 type veth peer name m1 netns m; ip link set m0 master {BRIDGE}; ip link set m0 up; ip -n m link set m1 up")
    wait_for("the bridge", lambda: sh("cat /sys/class/net/m0/brport/state") == "3")


def unplug():
    run("ip link del m0; ip netns del m")


def has_address():
    """dnsmasq looks for three seconds whether another has the address before it offers it."""
    return "obtained" in run("ip netns exec m busybox udhcpc -i m1 -n -q -f -t 6 -T 1 -s /root/lease")[1]


def reaches_outside():
    run("ip -n m addr add 10.7.0.50/24 dev m1; ip -n m route replace default via 10.7.0.1")
    return run(f"timeout 3 ip netns exec m busybox nc -w 2 {OUTSIDE} 4000 </dev/null")[1] == "hello"


def warnings():
    told = re.search(r"^warning +(.*(?:\n {5,}.*)*)", ruche("network info lab"), re.MULTILINE)
    return [line.strip() for line in told.group(1).splitlines()] if told else []


def start(bridge=""):
    with open("/root/lab.xml", "w", encoding="ascii") as f:
        f.write(XML % bridge)
    virsh("net-create /root/lab.xml")
    plug()


def stop():
    unplug()
    run("virsh net-destroy lab")


def rules():
    return sh("nft -s list ruleset")


def check_advice(who, hooks):
    """In the way as it is told, and no longer when the advice was followed."""
    start()
    try:
        told = warnings()
        assert len(told) == len(hooks) and all(any(f"of {who} drops {hook}" in line for line in told) for hook in hooks), told
        assert has_address() == ("packets to the host" not in hooks)
        assert not reaches_outside()
        for line in told:
            sh(line.partition("this network's pass: ")[2])
        here.manager.send_signal(signal.SIGHUP)
        wait_for("the advice is known", lambda: not warnings())
        assert has_address() and reaches_outside()
    finally:
        stop()


def zone():
    return run(f"firewall-cmd --get-zone-of-interface={BRIDGE}")[1]


def firewalld(case):
    """The case beside one that runs; nothing of it is left."""
    before = rules()
    sh("systemctl start firewalld && firewall-cmd --state", 300)
    try:
        case()
    finally:
        stop()
        sh("systemctl stop firewalld; rm -f /etc/firewalld/zones/*")
    assert rules() == before


def test_firewalld():
    firewalld(lambda: check_advice("firewalld", ["forwarded packets", "packets to the host"]))


def in_zone(attribute, name):
    start(attribute)
    assert zone() == name and not warnings(), (zone(), warnings())
    assert has_address() and reaches_outside()


def out_of_zones():
    stop()
    assert zone() == "no zone" and BRIDGE not in rules(), zone()


def test_zones():
    """Of its description; else libvirt's, where there is one: also of a firewalld that has started anew."""
    def case():
        in_zone(" zone='trusted'", "trusted")
        out_of_zones()
        with open("/etc/firewalld/zones/libvirt.xml", "w", encoding="ascii") as f:
            f.write(ZONE)
        sh("firewall-cmd --reload")
        in_zone("", "libvirt")
        sh("systemctl restart firewalld && firewall-cmd --state", 300)
        wait_for("the zone", lambda: zone() == "libvirt")
        assert reaches_outside()
        out_of_zones()
    firewalld(case)


def test_ufw():
    sh("ufw --force enable")
    try:
        check_advice("ufw", ["forwarded packets", "packets to the host"])
    finally:
        sh("ufw --force reset && ufw --force disable; nft flush ruleset")


def test_docker():
    """What Docker's daemon asks of iptables when it starts."""
    sh("iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A DOCKER-USER -j RETURN; iptables -I FORWARD -j DOCKER-USER")
    try:
        check_advice("Docker", ["forwarded packets"])
    finally:
        sh("nft flush ruleset")


def test_legacy():
    sh("modprobe iptable_filter; iptables-legacy -P FORWARD DROP")
    try:
        check_advice("another program", ["forwarded packets"])
    finally:
        sh("iptables-legacy -F; iptables-legacy -P FORWARD ACCEPT")


def test_nft():
    sh("nft 'table inet mine { chain host { type filter hook input priority 5; policy accept; ct state established,related accept; iif lo accept; drop; }; "
       "chain through { type filter hook forward priority 5; policy drop; }; }'")
    try:
        check_advice("another program", ["forwarded packets", "packets to the host"])
    finally:
        sh("nft flush ruleset")


def test_frames():
    """Machines reach the host and the outside, but not one another: that is told as well."""
    sh("nft 'table bridge mine { chain between { type filter hook forward priority 0; policy drop; }; }'")
    start()
    try:
        told = warnings()
        assert len(told) == 1 and "drops frames between machines" in told[0] and reaches_outside(), told
        sh(told[0].partition("this network's pass: ")[2])
        here.manager.send_signal(signal.SIGHUP)
        wait_for("the advice is known", lambda: not warnings())
    finally:
        stop()
        sh("nft flush ruleset")


os.environ["PATH"] += ":/usr/sbin:/sbin"
world()
main({"firewalld": test_firewalld, "zones of firewalld": test_zones, "ufw": test_ufw, "docker": test_docker, "legacy": test_legacy, "nft": test_nft, "frames": test_frames})
