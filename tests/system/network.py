#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The network matrix: ruched in a network namespace of its own, others as machines and as the world outside.

    network.py RUCHED RUCHE RUCHE-VMM KERNEL

Nothing of this host's own network is touched: all is made in namespaces, and taken away with them.
"""
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import namespaces  # noqa: E402
from namespaces import ENV, HOST, RUN, TAG, WORK, Manager, refused, run, virsh, wait_for, write  # noqa: E402

RUCHE, VMM, KERNEL = (os.path.abspath(p) for p in sys.argv[2:5])
ENV["DBUS_SYSTEM_BUS_ADDRESS"] = f"unix:path={WORK}/no-bus"
OUTSIDE, ONE, TWO = (f"{TAG}{x}" for x in "oab")
NAMESPACES = (HOST, OUTSIDE, ONE, TWO)
UPLINK, WORLD = "198.51.100.2", "198.51.100.1"
UPLINK6, WORLD6 = "2001:db8:77::2", "2001:db8:77::1"
PORT = 5353

# Answers each packet with the address that it came from.
ECHO = f"""import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(('::', {PORT}))
print('ready', flush=True)
while True:
    data, peer = s.recvfrom(100)
    s.sendto(peer[0].replace('::ffff:', '').encode(), peer)
"""
ASK = f"""import socket, sys
f = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
for i in range(int(sys.argv[2])):
    s = socket.socket(f, socket.SOCK_DGRAM)
    s.settimeout(1)
    try:
        s.connect((sys.argv[1], {PORT}))
        s.send(b'who')
        print(s.recv(100).decode())
        break
    except OSError:
        pass
"""
UDHCPC = """#!/bin/sh
case $1 in
bound|renew) ip addr flush dev $interface scope global; ip addr add $ip/$mask dev $interface
    [ -n "$router" ] && ip route replace default via $router
    echo "ip=$ip router=$router dns=$dns domain=$domain hostname=$hostname boot=$boot_file" >$OUT;;
esac
"""


# ---- ground ----

def rules():
    return run("nft", "list", "ruleset", ns=HOST).stdout


def links(ns=HOST):
    return re.findall(r"^\d+: ([^:@]+)", run("ip", "-o", "link", ns=ns).stdout, re.MULTILINE)


def daemons():
    """Processes of dnsmasq that are ours."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        for word in words:
            if word.startswith(f"--conf-file={RUN}/"):
                found[os.path.basename(word).removesuffix(".conf")] = int(pid)
    return found


def daemon(name):
    """The process of a network's dnsmasq that has done its start; 0: there is none."""
    try:
        with open(f"{RUN}/networks/{name}.pid", encoding="ascii") as f:
            pid = int(f.read() or 0)
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return pid if f"{RUN}/networks/{name}.conf".encode() in f.read() else 0
    except (OSError, ValueError):
        return 0


def build_world():
    for ns in NAMESPACES:
        run("ip", "netns", "add", ns)
        run("ip", "link", "set", "lo", "up", ns=ns)
    run("ip", "link", "add", "up0", "netns", HOST, "type", "veth", "peer", "name", "w0", "netns", OUTSIDE)
    for ns, dev, v4, v6 in ((HOST, "up0", UPLINK, UPLINK6), (OUTSIDE, "w0", WORLD, WORLD6)):
        run("ip", "addr", "add", f"{v4}/24", "dev", dev, ns=ns)
        run("ip", "addr", "add", f"{v6}/64", "dev", dev, "nodad", ns=ns)
        run("ip", "link", "set", dev, "up", ns=ns)
    for net, via in (("192.168.0.0/16", UPLINK), ("fd00:7a::/32", UPLINK6)):
        run("ip", "route", "add", net, "via", via, ns=OUTSIDE)
    run("ip", "route", "add", "default", "via", WORLD, ns=HOST)
    run("ip", "-6", "route", "add", "default", "via", WORLD6, ns=HOST)


def begin():
    global MANAGER
    write("udhcpc", UDHCPC, 0o755)
    build_world()
    MANAGER = Manager()


def end():
    namespaces.give_up(MANAGER, *NAMESPACES)


def plug(ns, bridge, mac):
    """A namespace as a machine: one end of a veth on the bridge."""
    end = "t" + ns[-1]
    run("ip", "link", "add", end, "netns", HOST, "type", "veth", "peer", "name", "eth0", "netns", ns)
    run("ip", "link", "set", "eth0", "address", mac, ns=ns)
    run("ip", "link", "set", end, "master", bridge, "up", ns=HOST)
    run("ip", "link", "set", "eth0", "up", ns=ns)


def unplug(*namespaces):
    for ns in namespaces:
        run("ip", "link", "del", "eth0", ns=ns, check=False)


def dhcp(ns):
    """What udhcpc was told."""
    out = os.path.join(WORK, "lease-" + ns)
    run("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "20", "-T", "1", "-F", "guest" + ns[-1], "-s", os.path.join(WORK, "udhcpc"), ns=ns,
        env={"OUT": out}, timeout=120)
    with open(out, encoding="utf-8") as f:
        return dict(w.split("=", 1) for w in f.read().split() if "=" in w)


class Echo:
    def __init__(self, ns):
        self.process = subprocess.Popen(["ip", "netns", "exec", ns, sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def ask(ns, address, tries=10):
    """Who asks, as the other end sees it; '' when nobody answers."""
    return run(sys.executable, "-c", ASK, address, str(tries), ns=ns, timeout=120).stdout.strip()


def resolve(ns, server, name, kind="a"):
    done = run("busybox", "nslookup", "-type=" + kind, name, server, ns=ns, check=False)
    return done.stdout + done.stderr


def network(name, mode, third, extra="", ip_extra="", v6=True, forward=""):
    head = f"<forward mode='{mode}'>{forward}</forward>" if mode != "none" else ""
    six = f"<ip family='ipv6' address='fd00:7a:{third}::1' prefix='64'/>" if v6 else ""
    return f"""<network><name>{name}</name>{head}<bridge stp='off' delay='0'/>{extra}<domain name='{name}.test'/>
<dns><host ip='192.168.{third}.1'><hostname>gate</hostname></host><txt name='note' value='some words'/></dns>
<ip address='192.168.{third}.1' netmask='255.255.255.0'><dhcp><range start='192.168.{third}.100' end='192.168.{third}.150'/>
<host mac='52:54:00:00:00:0a' name='one' ip='192.168.{third}.10'/></dhcp>{ip_extra}</ip>{six}</network>"""


def define(name, xml, start=True):
    virsh("net-define", write(name + ".xml", xml), "--validate")
    if start:
        virsh("net-start", name)
    return re.search(r"Bridge: +(\S+)", virsh("net-info", name).stdout).group(1)


def remove(*names):
    for name in names:
        virsh("net-destroy", name, check=False)
        virsh("net-undefine", name, check=False)


# ---- the matrix ----

# How the world sees a machine: by its own address, by the host's, or not at all; and whether the world reaches it.
MODES = {"nat": ("host", False), "route": ("own", True), "open": ("own", True), "none": ("", False)}


def global6(ns, prefix):
    found = re.search(rf"inet6 ({prefix}[0-9a-f:]+)/\d+ scope global (?!.*tentative)", run("ip", "-o", "-6", "addr", "show", "dev", "eth0", ns=ns).stdout)
    return found and found.group(1)


def one_mode(mode):
    seen, reached = MODES[mode]
    third = 130 + list(MODES).index(mode)
    before = rules()
    bridge = define(mode, network(mode, mode, third, forward="<nat ipv6='yes'/>" if mode == "nat" else ""))
    try:
        assert (rules() == before) == (mode == "open"), "rules of mode " + mode
        plug(ONE, bridge, "52:54:00:00:00:0a")
        plug(TWO, bridge, "52:54:00:00:00:0b")
        one, two = dhcp(ONE), dhcp(TWO)
        assert one["ip"] == f"192.168.{third}.10", one
        assert 100 <= int(two["ip"].split(".")[3]) <= 150, two
        assert one.get("domain") == f"{mode}.test" and one["dns"] == f"192.168.{third}.1", one
        assert one.get("router", "") == ("" if mode == "none" else f"192.168.{third}.1"), one
        if mode == "none":  # a machine that makes itself a way out all the same
            run("ip", "route", "add", "default", "via", f"192.168.{third}.1", ns=ONE)
        assert "192.168." in resolve(ONE, one["dns"], f"one.{mode}.test") and f"192.168.{third}.1" in resolve(ONE, one["dns"], "gate")
        own6 = wait_for("an IPv6 address", lambda: global6(ONE, f"fd00:7a:{third}:"))
        if mode == "none":
            run("ip", "-6", "route", "add", "default", "via", f"fd00:7a:{third}::1", ns=ONE)
        with Echo(OUTSIDE), Echo(ONE), Echo(HOST):
            wanted = {"own": one["ip"], "host": UPLINK, "": ""}[seen]
            wanted6 = {"own": own6, "host": UPLINK6, "": ""}[seen]
            got = {"machine to world": (ask(ONE, WORLD, 10 if seen else 2), wanted), "machine to world, IPv6": (ask(ONE, WORLD6, 10 if seen else 2), wanted6),
                   "world to machine": (ask(OUTSIDE, one["ip"], 10 if reached else 2), WORLD if reached else ""),
                   "world to machine, IPv6": (ask(OUTSIDE, own6, 10 if reached else 2), WORLD6 if reached else ""),
                   "machine to machine": (ask(TWO, one["ip"]), two["ip"]), "host to machine": (ask(HOST, one["ip"]), f"192.168.{third}.1"),
                   "machine to host": (ask(ONE, f"192.168.{third}.1"), one["ip"])}
        wrong = [f"{what}: '{a}', not '{b}'" for what, (a, b) in got.items() if a != b]
        assert not wrong, "; ".join(wrong)
        leases = virsh("net-dhcp-leases", mode).stdout
        assert "52:54:00:00:00:0a" in leases and f"192.168.{third}.10/24" in leases and "guest" in leases or "one" in leases, leases
    finally:
        unplug(ONE, TWO)
        remove(mode)
    assert rules() == before and bridge not in links() and mode not in daemons()


def test_nat():
    one_mode("nat")


def test_route():
    one_mode("route")


def test_open():
    one_mode("open")


def test_isolated():
    one_mode("none")


# ---- virsh ----

def test_virsh():
    """Each of virsh's commands for networks once."""
    plain = write("lab.xml", network("lab", "nat", 140))
    rows = (
        ("net-list --all", r"default +inactive +no +yes"), (f"net-define {plain} --validate", "Network lab defined"), ("net-list", r"^\s*$|Name"),
        ("net-info lab", r"Active: +no"), ("net-uuid lab", r"^[0-9a-f-]{36}"), ("net-start lab", "started"), ("net-start lab", "!already active"),
        ("net-list", r"lab +active +no +yes"), ("net-info lab", r"Bridge: +virbr"), ("net-autostart lab", "marked as autostarted"),
        ("net-list --autostart", "lab"), ("net-autostart lab --disable", "unmarked"), ("net-dumpxml lab", "<forward mode='nat'>"),
        ("net-dumpxml lab --inactive", "<bridge name='virbr"), ("net-dhcp-leases lab", "Expiry Time"), ("net-port-list lab", "UUID"),
        ("net-update lab add ip-dhcp-host <host_mac='52:54:00:00:01:01'_ip='192.168.140.20'/> --live --config", "Updated"),
        ("net-update lab add ip-dhcp-host <host_mac='52:54:00:00:01:01'_ip='192.168.140.21'/> --live", "!already an entry"),
        ("net-update lab modify ip-dhcp-host <host_mac='52:54:00:00:01:01'_ip='192.168.140.21'/> --live --config", "Updated"),
        ("net-update lab delete ip-dhcp-host <host_mac='52:54:00:00:01:01'/> --live --config", "Updated"),
        ("net-update lab add-first ip-dhcp-range <range_start='192.168.140.50'_end='192.168.140.60'/> --live --config", "Updated"),
        ("net-update lab add ip-dhcp-range <range_start='192.168.140.55'_end='192.168.140.65'/> --live", "!overlaps"),
        ("net-update lab delete ip-dhcp-range <range_start='192.168.140.50'_end='192.168.140.60'/> --live --config", "Updated"),
        ("net-update lab add dns-host <host_ip='192.168.140.9'><hostname>nine</hostname></host> --live --config", "Updated"),
        ("net-update lab add dns-txt <txt_name='x'_value='y'/> --config", "Updated"),
        ("net-update lab add dns-srv <srv_service='ldap'_protocol='tcp'/> --live", "Updated"),
        ("net-update lab add portgroup <portgroup_name='eng'_default='yes'/> --live --config", "Updated"),
        ("net-update lab add bridge <bridge_name='x'/> --live", "!cannot be updated"), ("net-dumpxml lab", "<hostname>nine</hostname>"),
        ("net-destroy lab", "destroyed"), ("net-destroy lab", "!not active"), ("net-dhcp-leases lab", "!not active"),
        ("net-undefine lab", "undefined"), ("net-info lab", "!not found"), (f"net-create {plain}", "created from"), ("net-info lab", r"Persistent: +no"),
        ("net-autostart lab", "!transient"), ("net-destroy lab", "destroyed"), ("net-info lab", "!not found"),
    )
    wrong = []
    for line, pattern in rows:
        done = virsh(*(w.replace("_", " ") if w.startswith("<") else w for w in line.split()), check=False)
        text, fails = done.stdout + done.stderr, pattern.startswith("!")
        if bool(done.returncode) != fails or not re.search(pattern.lstrip("!"), text, re.MULTILINE):
            wrong.append(f"virsh {line}: ended with {done.returncode}, not /{pattern}/: {text.strip()[:300]}")
    assert not wrong, "\n".join(wrong)


def test_round():
    """What dumpxml prints is valid, and defines to the same again."""
    everything = """<network ipv6='yes' trustGuestRxFilters='no' xmlns:dnsmasq='http://libvirt.org/schemas/network/dnsmasq/1.0'>
<name>all</name><metadata><a:b xmlns:a='urn:a'>x</a:b></metadata><forward dev='up0' mode='nat'><nat ipv6='yes'><address start='198.51.100.2' end='198.51.100.4'/>
<port start='2000' end='3000'/></nat></forward><bridge name='all0' stp='off' delay='2'/><mtu size='1400'/><mac address='52:54:00:AA:00:01'/>
<domain name='all.test' localOnly='yes'/><dns forwardPlainNames='no'><forwarder addr='198.51.100.1'/><forwarder domain='x.test' addr='198.51.100.9'/>
<txt name='t' value='v w'/><srv service='s' protocol='tcp' domain='d' target='t' port='1' priority='2' weight='3'/><host ip='192.168.150.9'><hostname>nine</hostname>
</host></dns><bandwidth><inbound average='1000' peak='5000' burst='1024'/></bandwidth><port isolated='yes'/>
<ip address='192.168.150.1' netmask='255.255.255.0' localPtr='yes'><tftp root='/srv'/><dhcp><range start='192.168.150.100' end='192.168.150.120'><lease expiry='1'
unit='hours'/></range><host mac='52:54:00:00:02:01' name='h' ip='192.168.150.7'/><bootp file='pxe.0' server='192.168.150.3'/></dhcp></ip>
<ip family='ipv6' address='fd00:7a:150::1' prefix='64'><dhcp><range start='fd00:7a:150::100' end='fd00:7a:150::1ff'/>
<host id='0:3:0:1:0:16:3e:11:22:33' name='six' ip='fd00:7a:150::7'/></dhcp></ip>
<route address='192.168.160.0' prefix='24' gateway='192.168.150.2' metric='5'/><portgroup name='a' default='yes'><bandwidth><outbound average='100'/></bandwidth></portgroup>
<dnsmasq:options><dnsmasq:option value='cname=c.test,nine'/></dnsmasq:options></network>"""
    before = rules()
    virsh("net-define", write("all.xml", everything), "--validate")
    first = virsh("net-dumpxml", "all").stdout
    run("virt-xml-validate", write("first.xml", first), "network")
    virsh("net-define", write("first.xml", first), "--validate")
    assert virsh("net-dumpxml", "all").stdout == first
    virsh("net-start", "all")
    run("virt-xml-validate", write("live.xml", virsh("net-dumpxml", "all").stdout), "network")
    assert "snat ip to 198.51.100.2-198.51.100.4:2000-3000" in rules(), rules()
    assert re.search("htb.*root", run("tc", "qdisc", "show", "dev", "all0", ns=HOST).stdout)
    assert "192.168.160.0/24 via 192.168.150.2" in run("ip", "route", ns=HOST).stdout and "mtu 1400" in run("ip", "link", "show", "all0", ns=HOST).stdout
    remove("all")
    assert rules() == before and "all0" not in links()


def test_errors():
    """What cannot be is refused with a sentence that says why."""
    base = "<network><name>bad</name>{}<ip address='192.168.151.1' prefix='24'>{}</ip></network>"
    nat = "<forward mode='nat'/>"
    dhcp_rows = (
        ("<range start='10.0.0.1' end='10.0.0.9'/>", r"10\.0\.0\.1' is not in 192\.168\.151\.0/24"), ("<range start='192.168.151.9' end='192.168.151.2'/>", "ends .* before it starts"),
        ("<range start='192.168.151.1' end='192.168.151.255'/>", "broadcast"), ("<host mac='52:54:00:00:00:01' ip='192.168.151.5'/>" * 2, "two DHCP hosts"),
        ("<range start='192.168.151.2' end='192.168.151.9'/><range start='192.168.151.9' end='192.168.151.19'/>", "overlaps"),
        ("<host id='00:01' ip='192.168.151.5'/>", "DHCPv6"), ("<range start='192.168.151.2' end='192.168.151.9'><lease expiry='1' unit='seconds'/></range>", "2 minutes"),
        ("<range start='192.168.151.2' end='192.168.151.9'><lease expiry='4294967295' unit='hours'/></range>", "2 minutes"),
        ("<range start='192.168.151.2' end='192.168.151.9'><lease expiry='5124095576030432' unit='hours'/></range>", "4294967295"),
    )
    rows = [(base.format(nat, f"<dhcp>{d}</dhcp>"), why) for d, why in dhcp_rows] + [
        (base.format("<bridge name='a-name-that-is-far-too-long'/>", ""), "names of interfaces have 1 to 15"), ("<network/>", "name"), ("<network><name>a/b</name></network>", "'/'"),
        ("<network><name>bad</name><forward mode='nat'/></network>", "needs an <ip>"), ("<network><name>bad</name><forward mode='sideways'/></network>", "sideways"),
        (base.format("<forward mode='bridge'/><bridge name='br0'/>", ""), "not for forward mode 'bridge'"), (base.format("<portgroup name='p'/>" * 2, ""), "twice"),
        (base.format("", "") .replace("</network>", "<ip address='192.168.151.129' prefix='25'/></network>"), "overlap"), ("<network><name>bad", "XML|rror"),
        (base.format("<dns><txt name='a' value='x&#10;addn-hosts=/etc/shadow'/></dns>", ""), "control character"), (base.format("<vlan><tag id='7'/></vlan>", ""), "vlan"),
    ]
    for xml, why in rows:
        refused(why, "net-define", write("bad.xml", xml))
    grown = "<metadata><a:b xmlns:a='urn:a'>" + "<c>" * 50 + "<d/>" * 40000 + "</c>" * 50 + "</a:b></metadata>"
    for how in ("net-define", "net-create"):  # short, but not as it is stored
        refused("network 'grown'.*at most 4194304|XML of .* bytes is too long; at most 4194304", how, write("grown.xml", f"<network><name>grown</name>{grown}</network>"))
    assert "grown" not in virsh("net-list", "--all").stdout
    define("lab", network("lab", "nat", 151, v6=False))
    try:
        virsh("net-define", write("bad.xml", base.format(nat, "")))
        refused("overlaps 192.168.151.0/24, which is network 'lab'", "net-start", "bad")
        virsh("net-define", write("own.xml", "<network><name>own</name><bridge name='own0'/></network>"))
        refused("overlaps", "net-create", write("other.xml", "<network><name>own</name><bridge name='other0'/><ip address='192.168.151.9' prefix='24'/></network>"))
        assert "own0" in virsh("net-info", "own").stdout
        virsh("net-start", "own")  # by its own description
        assert "own0" in links() and "other0" not in links()
        refused("already that of network|already", "net-define", write("b2.xml", "<network><name>two</name><bridge name='virbr1'/></network>".replace(
            "virbr1", re.search(r"Bridge: +(\S+)", virsh("net-info", "lab").stdout).group(1))))
        virsh("net-define", write("up.xml", "<network><name>up</name><bridge name='up0'/></network>"))
        refused("'up0' exists", "net-start", "up")
        virsh("net-define", write("route.xml", "<network><name>wan</name><ip address='198.51.100.77' prefix='24'/></network>"))
        refused("overlaps 198.51.100.0/24, which is reached by this host's interface 'up0'", "net-start", "wan")
        virsh("net-define", write("z.xml", "<network><name>zoned</name><bridge name='zone0' zone='home'/></network>"))
        refused("zone 'home' is one of firewalld, which does not run", "net-start", "zoned")
        assert "zone0" not in links()
        virsh("net-define", write("q.xml", "<network><name>slow</name><bandwidth><outbound average='100'/></bandwidth><ip address='192.168.152.1'/></network>"))
        done = virsh("net-start", "slow", check=False)
        assert not done.returncode or "CONFIG_NET_ACT_POLICE" in done.stderr, done.stderr
    finally:
        remove("lab", "bad", "own", "up", "wan", "slow", "zoned")


# ---- what goes wrong ----

def test_repair():
    """Rules that somebody deleted or left, a dnsmasq that died, a manager that was killed."""
    before = rules()
    bridge = define("lab", network("lab", "nat", 153))
    try:
        right, pid = rules(), daemon("lab")
        run("nft", "delete", "table", "inet", f"ruche_net_{bridge}", ns=HOST)
        MANAGER.process.send_signal(signal.SIGHUP)
        wait_for("the rules", lambda: rules() == right)
        assert daemon("lab") == pid
        os.kill(pid, signal.SIGKILL)
        pid = wait_for("another dnsmasq", lambda: daemon("lab") != pid and daemon("lab"))
        assert "dnsmasq" in MANAGER.log() and "started again" in MANAGER.log()
        MANAGER.end(signal.SIGKILL)
        run("nft", "delete", "table", "inet", f"ruche_net_{bridge}", ns=HOST)
        MANAGER.start()
        assert re.search(r"lab +active", virsh("net-list").stdout)
        wait_for("the rules", lambda: rules() == right)
        assert daemon("lab") == pid, "dnsmasq lives on"
        run("ip", "link", "del", bridge, ns=HOST)
        MANAGER.process.send_signal(signal.SIGHUP)
        wait_for("the bridge", lambda: bridge in links())
        virsh("net-destroy", "lab")
        run("nft", f"add table inet ruche_net_{bridge}; add chain inet ruche_net_{bridge} left", ns=HOST)
        virsh("net-start", "lab")
        assert rules() == right, "a table that was left over is replaced"
    finally:
        remove("lab")
    assert rules() == before


def test_obstacles():
    """Whose rules are in the way is said, and nothing of them is touched."""
    run("nft", "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }; add chain ip filter DOCKER-USER", ns=HOST)
    try:
        before = rules()
        define("lab", network("lab", "nat", 154))
        told = run(RUCHE, "--connect", f"{RUN}/ruche.sock", "network", "info", "lab").stdout
        assert "Docker drops forwarded packets" in told and "iptables -I DOCKER-USER" in told, told
        remove("lab")
        assert rules() == before
    finally:
        run("nft", "delete table ip filter", ns=HOST)


def test_events():
    listener = subprocess.Popen(["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "net-event", "--event", "lifecycle", "--loop", "--timeout", "120"],
                                stdout=subprocess.PIPE, text=True, env=ENV)
    seen = []
    threading.Thread(target=lambda: seen.extend(listener.stdout), daemon=True).start()
    try:
        def told():
            virsh("net-define", write("ev.xml", "<network><name>ev</name></network>"))
            return any("Defined" in line for line in seen)
        wait_for("the listener", told)
        virsh("net-start", "ev")
        remove("ev")
        wait_for("all events", lambda: all(any(w in line for line in seen) for w in ("Started", "Stopped", "Undefined")))
    finally:
        listener.kill()
        listener.wait()


def test_routes():
    """A network's route comes and goes with it, through a repair and another manager; the host's own to the same place stays."""
    def routes(*family):
        return [r.strip() for r in run("ip", *family, "route", ns=HOST).stdout.splitlines()]
    lab = ("<network><name>lab</name><bridge name='lab0'/><ip address='192.168.151.1' prefix='24'/>"
           "<ip family='ipv6' address='fd00:7a:151::1' prefix='64'/><route address='10.55.0.0' prefix='16' gateway='192.168.151.2'/>"
           "<route family='ipv6' address='fd00:55::' prefix='32' gateway='fd00:7a:151::2' metric='7'/></network>")
    rows = (("10.55.0.0/16 via 198.51.100.9 dev up0 metric 1", ()), ("fd00:55::/32 via 2001:db8:77::9 dev up0 metric 7", ("-6",)),
            ("10.55.0.0/16 metric 1 nexthop via 198.51.100.9 dev up0 weight 1 nexthop via 198.51.100.8 dev up0 weight 1", ()))
    own = "10.55.0.0/16 via 192.168.151.2 dev lab0 proto static metric 1 linkdown", "fd00:55::/32 via fd00:7a:151::2 dev lab0 proto static metric 7 linkdown pref medium"
    def there():
        return own[0] in routes() and own[1] in routes("-6")
    virsh("net-define", write("lab.xml", lab))
    before = routes(), routes("-6")
    try:
        for route, family in rows:
            words = [*family, "route", "add", *route.split()]
            run("ip", *words, ns=HOST)
            has = routes(), routes("-6")
            refused(f"network 'lab': this host has a route to {route.split()[0]} with metric [17] already, by (interface up0|several next hops)", "net-start", "lab")
            assert (routes(), routes("-6")) == has and "lab0" not in links()
            words[len(family) + 1] = "del"
            run("ip", *words, ns=HOST)
        run("ip", "route", "add", "10.55.0.0/16", "via", "198.51.100.9", "metric", "2", ns=HOST)  # beside it
        virsh("net-start", "lab")
        assert there() and any("metric 2" in r for r in routes()), routes()
        run("ip", "route", "change", "10.55.0.0/16", "via", "192.168.151.3", "dev", "lab0", "metric", "1", ns=HOST)
        run("ip", "-6", "route", "del", "fd00:55::/32", "dev", "lab0", "metric", "7", ns=HOST)
        MANAGER.process.send_signal(signal.SIGHUP)
        wait_for("the routes", there)
        MANAGER.end(signal.SIGKILL)
        MANAGER.start()
        wait_for("its end", lambda: re.search("lab +active", virsh("net-list").stdout))
        assert there(), (routes(), routes("-6"))
        remove("lab")
        run("ip", "route", "del", "10.55.0.0/16", "metric", "2", ns=HOST)
        assert (routes(), routes("-6")) == before
    finally:
        remove("lab")


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        user, system = f.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_many_leases():
    """All leases of a /16: read whole, told in time that grows with their number, kept while they cannot be read."""
    count, path = 65000, f"{RUN}/networks/big.leases"
    def put(first, padding=""):
        """In place, as dnsmasq does."""
        with open(path, "r+" if os.path.exists(path) else "w", encoding="ascii") as f:
            f.truncate(f.write("".join(f"4000000000 52:54:01:00:{i >> 8:02x}:{i & 255:02x} 10.66.{i >> 8}.{i & 255} guest-{i} 01:52:54:01:00:{i >> 8:02x}:{i & 255:02x}\n"
                                       for i in range(first, first + count)) + padding))
    def listed():
        return len(json.loads(run(RUCHE, "--connect", f"{RUN}/ruche.sock", "network", "leases", "big", "--json").stdout)["leases"])
    virsh("net-create", write("big.xml", "<network><name>big</name><bridge name='big0'/><ip address='10.66.255.254' prefix='16'><dhcp>"
                              "<range start='10.66.0.1' end='10.66.255.253'/></dhcp></ip></network>"))
    try:
        put(1)
        assert os.path.getsize(path) > 4 << 20 and listed() == count
        wait_for("all to be told", lambda: "65000" in virsh("net-dhcp-leases", "big", "52:54:01:00:fd:e8").stdout)
        before = cpu_seconds(MANAGER.process.pid)
        put(2)
        wait_for("the last", lambda: "10.66.253.233/16" in virsh("net-dhcp-leases", "big", "52:54:01:00:fd:e9").stdout)
        assert "10.66.0.1/" not in virsh("net-dhcp-leases", "big", "52:54:01:00:00:01").stdout
        assert listed() == count
        os.truncate(path, 100 << 20)
        refused("network 'big': .*big.leases has 104857600 bytes; 83886080 are the most", "net-dhcp-leases", "big")
        put(1)
        assert listed() == count and MANAGER.log().count("its leases stay as they were") == 1
        used = cpu_seconds(MANAGER.process.pid) - before
        assert used < 15, "each lease compared with each: a minute and more"
    finally:
        remove("big")


def test_create_at_once():
    """Two net-create of one name that wait for each other: who is told that it runs has it run by its own description."""
    define("lab", network("lab", "nat", 151, v6=False))
    pid = daemon("lab")
    def begin_virsh(*words):
        return subprocess.Popen(["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                env=ENV)
    def is_told_to_end():
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            return int(re.search(r"^ShdPnd:\s+(\S+)", f.read(), re.MULTILINE).group(1), 16) & 1 << signal.SIGTERM - 1
    try:
        os.kill(pid, signal.SIGSTOP)  # the stop waits 3 s for it
        ending = begin_virsh("net-destroy", "lab")
        wait_for("a stop under way", is_told_to_end)
        clients = {b: begin_virsh("net-create", write(b + ".xml", f"<network><name>lab</name><bridge name='{b}'/></network>")) for b in ("la0", "lb0")}
        said = {b: c.communicate(timeout=120)[1] for b, c in clients.items()}
        assert not ending.wait(120)
        done = [b for b, c in clients.items() if not c.returncode]
        assert len(done) == 1 and "already active" in "".join(said.values()), said
        assert f"<bridge name='{done[0]}'" in virsh("net-dumpxml", "lab").stdout and done[0] in links()
    finally:
        remove("lab")


# ---- machines ----

DOMAIN = """<domain type='qemu'><name>{name}</name><uuid>5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a01</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel></os><devices><emulator>{vmm}</emulator>
<interface type='{kind}'><mac address='{mac}'/><source {source}/>{more}<model type='virtio'/></interface><memballoon model='none'/></devices></domain>"""


def machine(name, kind, source, more="", mac="52:54:00:00:03:01"):
    virsh("define", write("dom.xml", DOMAIN.format(name=name, kernel=KERNEL, vmm=VMM, kind=kind, source=source, more=more, mac=mac)))
    return virsh("start", name, check=False)


def test_machine():
    """A machine's tap joins the bridge, and nothing of it stays, however it ends."""
    bridge = define("lab", network("lab", "nat", 155, extra="<mtu size='1400'/>"))
    before = links()
    try:
        refused("not active|no network", "net-port-list", "nothing")
        for end in ("destroy", "crash", "while the manager is dead"):
            done = machine("m", "network", "network='lab'", "<port isolated='yes'/>")
            assert not done.returncode, done.stderr
            live = virsh("dumpxml", "m").stdout
            assert re.search(rf"<source network='lab' portid='[0-9a-f-]+' bridge='{bridge}'/>", live), live
            dev = re.search(r"<target dev='(vnet\d+)'/>", live).group(1)
            shown = run("ip", "-d", "link", "show", dev, ns=HOST).stdout
            assert f"master {bridge}" in shown and "mtu 1400" in shown and "isolated on" in shown, shown
            assert "connections='1'" in virsh("net-dumpxml", "lab").stdout
            port = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", virsh("net-port-list", "lab").stdout).group(0)
            described = virsh("net-port-dumpxml", "lab", port).stdout

            assert "<name>m</name>" in described, described
            run("virt-xml-validate", write("port.xml", described), "networkport")
            assert "52:54:00:00:03:01" not in virsh("domifaddr", "m", "--source", "lease").stdout
            pid = int(open(f"{RUN}/machines/{virsh('domuuid', 'm').stdout.strip()}/process", encoding="ascii").read())
            if end == "destroy":
                virsh("destroy", "m")
            elif end == "crash":
                os.kill(pid, signal.SIGKILL)
            else:
                MANAGER.end(signal.SIGKILL)
                MANAGER.start()
                assert "connections='1'" in virsh("net-dumpxml", "lab").stdout
                MANAGER.end(signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
                MANAGER.start()
            wait_for("its end after " + end, lambda: "shut off" in virsh("domstate", "m").stdout)
            wait_for("the network's let go after " + end, lambda: "connections" not in virsh("net-dumpxml", "lab").stdout)
            assert links() == before
        virsh("net-destroy", "lab")
        done = machine("m", "network", "network='lab'")
        assert done.returncode and "network 'lab' is not active" in done.stderr, done.stderr
    finally:
        virsh("destroy", "m", check=False)
        virsh("undefine", "m", check=False)
        remove("lab")


def test_lent():
    """Modes that lend what the host has: a bridge, and macvtap in its modes."""
    run("ip", "link", "add", "br9", "type", "bridge", ns=HOST)
    for dev in ("p0", "p1"):
        run("ip", "link", "add", dev, "type", "veth", "peer", "name", dev + "x", ns=HOST)
        run("ip", "link", "set", dev, "up", ns=HOST)
    before = links()
    rows = [("bridge", "<forward mode='bridge'/><bridge name='br9'/>", "bridge", "br9")]
    rows += [(m, f"<forward mode='{m}'><interface dev='p0'/><interface dev='p1'/></forward>", "direct", "p0")
             for m in ("bridge", "private", "vepa", "passthrough")]
    try:
        for mode, forward, kind, below in rows:
            define("lent", f"<network><name>lent</name>{forward}</network>") if "br9" in forward else virsh(
                "net-create", write("lent.xml", f"<network><name>lent</name>{forward}</network>"))
            done = machine("m", "network", "network='lent'")
            if done.returncode and "/dev/tap" in done.stderr or "cannot be opened" in done.stderr:
                assert not [x for x in links() if x not in before], links()
                print(f"# {mode} {below}: not looked at: {done.stderr.strip().splitlines()[-1]}", flush=True)
                remove("lent")
                continue  # no udev makes device nodes here
            assert not done.returncode, done.stderr
            live = virsh("dumpxml", "m").stdout
            assert f"<interface type='{kind}'>" in live and f"='{below}'" in live, live
            if kind == "direct":
                assert re.search(rf"@{below}.*macvtap +mode {mode if mode != 'passthrough' else 'passthru'}", run("ip", "-d", "-o", "link", ns=HOST).stdout)
            virsh("destroy", "m")
            assert links() == before
            remove("lent")
    finally:
        virsh("destroy", "m", check=False)
        virsh("undefine", "m", check=False)
        remove("lent")
        for dev in ("br9", "p0", "p1"):
            run("ip", "link", "del", dev, ns=HOST)


def qdiscs(dev):
    return re.findall(r"^qdisc (\S+) ([1-9a-f]\S*):", run("tc", "qdisc", "show", "dev", dev, ns=HOST).stdout, re.MULTILINE)


def test_lent_limits():
    """The host's own limits on a bridge that it lends stay; those of the network come and go with it."""
    group = "<portgroup name='p'><bandwidth><inbound average='1000'/></bandwidth></portgroup>"
    slow = write("slow.xml", "<network><name>slow</name><forward mode='bridge'/><bridge name='br8'/><bandwidth><inbound average='100'/></bandwidth></network>")
    run("ip", "link", "add", "br8", "type", "bridge", ns=HOST)
    try:
        run("tc", "qdisc", "add", "dev", "br8", "root", "handle", "1:", "htb", "default", "7", ns=HOST)
        define("lent", f"<network><name>lent</name><forward mode='bridge'/><bridge name='br8'/>{group}</network>")
        remove("lent")
        assert qdiscs("br8") == [("htb", "1")]
        refused("would replace the limits that bridge 'br8' has already .a qdisc 'htb'", "net-create", slow)
        assert qdiscs("br8") == [("htb", "1")] and "default 0x7" in run("tc", "qdisc", "show", "dev", "br8", ns=HOST).stdout
        run("tc", "qdisc", "del", "dev", "br8", "root", ns=HOST)
        virsh("net-create", slow)
        assert qdiscs("br8") == [("htb", "1")]
        MANAGER.end(signal.SIGKILL)
        MANAGER.start()
        assert "active" in virsh("net-list").stdout and qdiscs("br8") == [("htb", "1")]
        virsh("net-destroy", "slow")
        assert not qdiscs("br8")
    finally:
        remove("lent", "slow")
        run("ip", "link", "del", "br8", ns=HOST)


# ---- ruche ----

def ruche(*words, check=True):
    return run(RUCHE, "--connect", f"{RUN}/ruche.sock", *words, check=check)


def test_command():
    """`ruche network`: each verb once."""
    before = rules()
    ruche("network", "create", "desk", "--subnet", "192.168.156.1/24", "--autostart", "yes")
    assert re.search(r"desk +inactive +nat +virbr\d+ +0 +yes", ruche("network", "list").stdout)
    ruche("network", "start", "desk")
    assert "active       yes" in ruche("network", "info", "desk").stdout and '"mode"' in ruche("network", "info", "desk", "--json").stdout
    assert "ADDRESS" in ruche("network", "leases", "desk").stdout and "<name>desk</name>" in ruche("network", "xml", "desk").stdout
    ruche("network", "set", "desk", "--autostart", "no")
    done = run(RUCHE, "--connect", f"{RUN}/ruche.sock", "network", "edit", "desk", env={"EDITOR": "sed -i s/[.]254/.200/"})
    assert "192.168.156.200" in virsh("net-dumpxml", "desk", "--inactive").stdout, done
    ruche("network", "stop", "desk")
    ruche("network", "delete", "desk")
    for subnet, says in (("192.168.156.0/24", "192.168.156.1/24, DHCP 192.168.156.128 to 192.168.156.254"),
                         ("10.156.0.200/25", "10.156.0.200/25, DHCP 10.156.0.129 to 10.156.0.191"),
                         ("10.156.0.1/16", "10.156.0.1/16, DHCP 10.156.128.0 to 10.156.143.255"), ("fd00:156::/64", "fd00:156::1/64")):
        ruche("network", "create", "desk", "--subnet", subnet, "--start")
        info = ruche("network", "info", "desk").stdout
        assert f"subnet       {says}\n" in info and "active       yes" in info, info
        ruche("network", "delete", "desk")
    wrong = ruche("network", "create", "desk", "--subnet", "10.1.0.1/33", check=False)
    assert wrong.returncode == 1 and "'10.1.0.1/33' is not an address and a prefix" in wrong.stderr, wrong
    wrong = ruche("network", "create", "desk", "--mode", "nta", check=False)
    assert wrong.returncode == 2 and "--mode takes nat|route|open|none, not 'nta'" in wrong.stderr, wrong
    assert "desk" not in ruche("network", "list", "--names").stdout.split() and rules() == before
    done = ruche("network", "strat", "x", check=False)
    assert done.returncode == 2 and "start" in done.stderr, done.stderr


# ---- kill -9 ----

def test_kill():
    """SIGKILL of the manager at random moments while networks come and go: all there, or nothing."""
    seed = int(os.environ.get("SEED", time.time()))
    chance = random.Random(seed)
    before = rules()
    for i in range(2):
        define(f"k{i}", network(f"k{i}", "nat", 157 + i), start=False)
    bridges = {f"k{i}": re.search(r"Bridge: +(\S+)", virsh("net-info", f"k{i}").stdout).group(1) for i in range(2)}
    for _ in range(15):
        stop = threading.Event()

        def work(name):
            while not stop.is_set():
                virsh("net-start", name, check=False)
                virsh("net-destroy", name, check=False)
        threads = [threading.Thread(target=work, args=(n,)) for n in bridges]
        for t in threads:
            t.start()
        time.sleep(chance.uniform(0, 0.5))
        stop.set()
        MANAGER.end(signal.SIGKILL)
        for t in threads:
            t.join()
        MANAGER.start()
        active = re.findall(r"^ (k\d) +active", virsh("net-list").stdout, re.MULTILINE)
        table, there, running = rules(), links(), daemons()
        for name, bridge in bridges.items():
            facts = (name in active, f"ruche_net_{bridge} " in table, bridge in there, name in running, os.path.exists(f"{RUN}/networks/{name}.xml"))
            assert len(set(facts)) == 1, f"seed {seed}: {name}: {facts}: {MANAGER.log()[-1500:]}"
    remove(*bridges)
    assert rules() == before and not daemons(), (rules(), before, daemons())
    left = [f for f in os.listdir(f"{RUN}/networks") if f.startswith("k")]
    assert not left, left


MANAGER = None


def main():
    tests = {"nat": test_nat, "route": test_route, "open": test_open, "isolated": test_isolated, "virsh": test_virsh, "description, there and back": test_round,
             "errors": test_errors, "repair": test_repair, "others' rules": test_obstacles, "events": test_events, "routes": test_routes, "created at once": test_create_at_once, "many leases": test_many_leases, "machine": test_machine,
             "lent": test_lent, "lent limits": test_lent_limits, "ruche network": test_command, "killed": test_kill}
    namespaces.main(tests, sys.argv[5:], ("ip", "nft", "dnsmasq", "busybox", "virsh", "tc"), begin, end)


if __name__ == "__main__":
    main()
