#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces of the host: ruched in a network namespace of its own, another as the world behind its card.

    interface.py RUCHED RUCHE

Nothing of this host's own network is touched. What the kernel lacks (bonds, VLANs) is refused by the module's name; where it has
them, tests/system/inside/interface.py tries them.
"""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import namespaces  # noqa: E402
import tap  # noqa: E402
from namespaces import ENV, HOST, RUN, TAG, WORK, refused, run, wait_for, write  # noqa: E402

RUCHE = os.path.abspath(sys.argv[2])
TREE = os.path.join(WORK, "tree")
ENV["NODE_SYSFS"] = TREE
WORLD = TAG + "w"
SCHEMA = "/usr/share/libvirt/schemas/interface.rng"
GATEWAY, GATEWAY6 = "198.51.100.1", "2001:db8:77::1"
MANAGER = None
CLIENTS = ("udhcpc", "dhclient", "dhcpcd")
PLACES = ("run/dhcpcd", "var/lib/dhcp", "var/lib/dhcpcd")  # of theirs
RESOLV = "nameserver 192.0.2.53\n"
# The manager's /etc and its clients' folders are the test's own; its host's name, too. $0: where it looks for programs.
OWN_PLACES = f"""mount --bind {WORK}/etc /etc
for d in {' '.join(PLACES)}; do mount --bind {WORK}/places/$d /$d || exit 1; done
PATH=$0 exec "$@"
"""
UDHCPC = """#!/bin/sh
case $1 in
deconfig) ip addr flush dev $interface scope global;;
bound|renew) ip addr add $ip/$mask dev $interface; [ -n "$router" ] && ip route replace default via $router dev $interface;;
esac
"""


# ---- ground ----

def ip(*words, ns=HOST):
    return run("ip", *words, ns=ns).stdout


class Manager(namespaces.Manager):
    def start(self, client="udhcpc"):  # pylint: disable=arguments-differ
        """`client`: the one of DHCP that this host is to have."""
        super().start("unshare", "-u", "sh", "-c", OWN_PLACES, f"{WORK}/bin-{client}")


def virsh(*command, check=True):
    return namespaces.virsh("-q", *command, check=check)


def say(*command):
    return virsh(*command).stdout.strip()


def destroy(name):
    """virsh 9.0.0 says that it is done, and ends with 1."""
    done = namespaces.virsh("iface-destroy", name, check=False)
    assert f"Interface {name} destroyed" in done.stdout, done.stdout + done.stderr


def ruche(*command, check=True):
    return run(RUCHE, "--connect", f"{RUN}/ruche.sock", *command, check=check)


def define(xml):
    return say("iface-define", write("i.xml", xml))


def described(name, *more):
    return valid(say("iface-dumpxml", name, *more))


def valid(text):
    """What the schema accepts."""
    r = subprocess.run(["xmllint", "--noout", "--relaxng", SCHEMA, "-"], input=text, text=True, capture_output=True, timeout=120, check=False)
    assert r.returncode == 0, r.stderr + text
    return ET.fromstring(text)


def state():
    """All that the kernel has of the namespace, without counters and lifetimes."""
    links = json.loads(ip("-d", "-j", "addr"))
    routes = json.loads(ip("-j", "-4", "route")) + json.loads(ip("-j", "-6", "route"))
    kept = [{k: l.get(k) for k in ("ifname", "ifindex", "mtu", "address", "master")} | {
        "up": "UP" in l["flags"], "kind": l.get("linkinfo", {}).get("info_kind"),
        "addresses": sorted(f"{a['local']}/{a['prefixlen']}" for a in l["addr_info"] if a["scope"] != "link")} for l in links]
    return sorted(kept, key=lambda l: l["ifindex"]), sorted(
        f"{r['dst']} {r.get('gateway')} {r.get('dev')} {hops(r)}" for r in routes if r.get("protocol") != "kernel")


def hops(route):
    """Of a route with several: by which gateway, interface and weight."""
    return sorted((h["gateway"], h["dev"], h["weight"]) for h in route.get("nexthops", ()))


def addresses(name):
    found = json.loads(ip("-j", "addr", "show", "dev", name))[0]
    return {f"{a['local']}/{a['prefixlen']}" for a in found["addr_info"] if a["scope"] != "link"}


def rows(*words):
    return {line.split()[0]: line.split()[1] for line in say("iface-list", *words).splitlines()}


def build_world():
    for ns in (HOST, WORLD):
        run("ip", "netns", "add", ns)
        run("ip", "link", "set", "lo", "up", ns=ns)
    run("ip", "link", "add", "eth9", "netns", HOST, "type", "veth", "peer", "name", "w0", "netns", WORLD)
    run("ip", "link", "add", "card0", "netns", HOST, "type", "veth", "peer", "name", "w1", "netns", WORLD)
    run("ip", "link", "set", "w1", "up", ns=WORLD)
    run("ip", "link", "set", "eth9", "address", "52:54:00:99:00:01", ns=HOST)
    for ns, dev, n in ((HOST, "eth9", 2), (WORLD, "w0", 1)):
        run("ip", "addr", "add", f"198.51.100.{n}/24", "dev", dev, ns=ns)
        run("ip", "addr", "add", f"2001:db8:77::{n}/64", "dev", dev, "nodad", ns=ns)
        run("ip", "link", "set", dev, "up", ns=ns)
    ip("route", "add", "default", "via", GATEWAY)
    ip("route", "add", "10.9.0.0/16", "via", "198.51.100.9", "metric", "7")
    ip("-6", "route", "add", "default", "via", GATEWAY6)
    os.makedirs(TREE)
    os.symlink("/sys", os.path.join(TREE, "sys"))
    build_places()


def build_places():
    """For each client a folder with all programs but the other clients."""
    run("cp", "-a", "/etc", WORK)
    os.unlink(f"{WORK}/etc/resolv.conf")
    write("etc/resolv.conf", RESOLV)
    for place in PLACES:
        os.makedirs(f"{WORK}/places/{place}")
        os.makedirs("/" + place, exist_ok=True)
    # The runner may put folders of libraries into the path, where a client has a folder of its name.
    programs = {entry.name: entry.path for folder in reversed(ENV["PATH"].split(":")) if os.path.isdir(folder)
                for entry in os.scandir(folder) if entry.is_file() and os.access(entry.path, os.X_OK)}
    write("udhcpc.script", UDHCPC, 0o755)
    programs["udhcpc"] = write("udhcpc", f"#!/bin/sh\n[ ! -e {WORK}/slow ] || sleep 1\nexec {shutil.which('busybox')} udhcpc -s {WORK}/udhcpc.script \"$@\"\n", 0o755)
    for client_ in CLIENTS:
        os.makedirs(f"{WORK}/bin-{client_}")
        for name, path in programs.items():
            if name == client_ or name not in CLIENTS:
                os.symlink(path, f"{WORK}/bin-{client_}/{name}")


def begin():
    global MANAGER
    build_world()
    MANAGER = Manager()


def end():
    namespaces.give_up(MANAGER, HOST, WORLD)


BRIDGE = """<interface type='bridge' name='br7'><start mode='onboot'/><mtu size='1400'/>
  <protocol family='ipv4'><ip address='10.7.0.1' prefix='24'/></protocol>
  <protocol family='ipv6'><ip address='fd00:7::1' prefix='64'/></protocol>
  <bridge stp='off' delay='0'><interface type='ethernet' name='card0'/></bridge></interface>"""


# ---- tests ----

def test_look():
    assert rows() == {"eth9": "active", "lo": "active"}, rows()
    assert rows("--inactive") == {"card0": "inactive"} and set(rows("--all")) == {"eth9", "lo", "card0"}
    i = described("eth9")
    assert i.get("type") == "ethernet" and i.find("mac").get("address") == "52:54:00:99:00:01" and i.find("link").get("state") == "up"
    v4, v6 = i.find("protocol[@family='ipv4']"), i.find("protocol[@family='ipv6']")
    assert v4.find("ip").attrib == {"address": "198.51.100.2", "prefix": "24"} and v4.find("route").get("gateway") == GATEWAY
    assert "2001:db8:77::2" in [a.get("address") for a in v6.findall("ip")] and v6.find("route").get("gateway") == GATEWAY6
    described("lo")
    assert say("iface-mac", "eth9") == "52:54:00:99:00:01" and say("iface-name", "52:54:00:99:00:01") == "eth9"
    refused("no interface with matching name 'nix'", "iface-dumpxml", "nix")
    refused("no interface with matching MAC", "iface-name", "52:54:00:00:00:77")
    for verb in ("iface-start", "iface-destroy", "iface-undefine"):
        refused("has no definition here", verb, "eth9")


def test_bridge():
    before = state()
    say("iface-define", write("i.xml", BRIDGE), "--validate")
    assert rows("--inactive")["br7"] == "inactive" and state() == before
    assert described("br7").find("start").get("mode") == "onboot"
    say("iface-start", "br7")
    i = described("br7")
    assert i.find("bridge/interface").get("name") == "card0" and i.find("mtu").get("size") == "1400", ET.tostring(i)
    assert i.find("bridge").attrib == {"stp": "off", "delay": "0.00"} and i.find("start").get("mode") == "onboot"
    assert addresses("br7") == {"10.7.0.1/24", "fd00:7::1/64"} and "master br7" in ip("link", "show", "card0")
    assert described("br7", "--inactive").find("link") is None
    refused("already active", "iface-start", "br7")
    destroy("br7")
    assert state() == before
    refused("not active", "iface-destroy", "br7")
    assert "br7" in rows("--inactive")
    MANAGER.end()
    MANAGER.start()  # start mode onboot
    wait_for("br7", lambda: "br7" in rows())
    MANAGER.end(signal.SIGKILL)
    MANAGER.start()
    assert addresses("br7") == {"10.7.0.1/24", "fd00:7::1/64"}
    destroy("br7")
    assert state() == before
    say("iface-undefine", "br7")
    assert "br7" not in rows("--all")


def test_move():
    """virsh's own way to a bridge over the card that the host lives by."""
    before = state()
    say("iface-bridge", "eth9", "br0", "--no-stp")
    assert addresses("br0") == {"198.51.100.2/24", "2001:db8:77::2/64"} and addresses("eth9") == set(), ip("addr")
    assert f"default via {GATEWAY} dev br0" in ip("route")
    assert f"default via {GATEWAY6} dev br0" in ip("-6", "route")
    run("busybox", "ping", "-c", "1", "-W", "5", GATEWAY, ns=HOST)
    destroy("br0")
    assert state() == before, f"{before}\n{state()}"
    say("iface-undefine", "br0")
    bare = "<interface type='bridge' name='br0'><bridge><interface type='ethernet' name='eth9'/></bridge></interface>"
    define(bare)
    say("iface-start", "br0")
    assert addresses("br0") == {"198.51.100.2/24", "2001:db8:77::2/64"} and addresses("eth9") == set()
    assert "10.9.0.0/16 via 198.51.100.9 dev br0" in ip("route") and f"default via {GATEWAY} dev br0" in ip("route")
    destroy("br0")
    assert state() == before, f"{before}\n{state()}"
    say("iface-undefine", "br0")


def test_virsh():
    """Each of virsh's iface-* commands once, with what it says."""
    before, bridge = state(), write("b.xml", BRIDGE)
    uri = f"qemu+unix:///system?socket={RUN}/libvirt-sock"
    rows_ = (
        ("iface-list --all", r"^ Name +State +MAC Address\n-+\n card0 +inactive +\S+\n eth9 +active +52:54:00:99:00:01\n lo +active +00:00:00:00:00:00$"),
        (f"iface-define {bridge} --validate", rf"^Interface br7 defined from {bridge}$"), ("iface-list --inactive", r"^ br7 +inactive"), ("iface-mac br7", "^$"),
        ("iface-dumpxml br7", "<start mode='onboot'/>"), ("iface-dumpxml br7 --inactive", "<interface type='ethernet' name='card0'/>"),
        ("iface-edit br7", r"^Interface br7 XML configuration edited\.$"), ("iface-dumpxml br7 --inactive", "<mtu size='1401'/>"),
        ("iface-start br7", "^Interface br7 started$"), ("iface-start br7", "!already active"), ("iface-mac br7", "^([0-9a-f]{2}:){5}[0-9a-f]{2}$"),
        ("iface-dumpxml br7", r"<bridge stp='off' delay='0\.00'>\n +<interface type='ethernet' name='card0'>"), ("iface-list", r"^ br7 +active"),
        ("iface-edit br7", r"^Interface br7 XML configuration edited"), ("iface-dumpxml br7", "<mtu size='1401'/>"), ("iface-dumpxml br7 --inactive", "<mtu size='1402'/>"),
        ("iface-destroy br7", "+^Interface br7 destroyed$"), ("iface-destroy br7", "!not active"), ("iface-undefine br7", "^Interface br7 undefined$"), ("iface-dumpxml br7", "!br7"),
        ("iface-begin", "^Network config change transaction started"), ("iface-begin", "!under way"), (f"iface-define {bridge}", "defined"), ("iface-rollback", "rolled back"),
        ("iface-dumpxml br7", "!br7"), ("iface-rollback", "!no change"), ("iface-begin", "started"), ("iface-commit", "^Network config change transaction committed"), ("iface-commit", "!no change"),
        ("iface-bridge eth9 br0 --no-stp --no-start", r"^Created bridge br0 with attached device eth9$"), ("iface-dumpxml br0 --inactive", r"<bridge stp='off'>"), ("iface-undefine br0", "undefined"),
        ("iface-bridge eth9 br0 --no-stp", r"^Created bridge br0 with attached device eth9\nBridge interface br0 started$"), ("iface-bridge eth9 br0", "!already"),
        ("iface-name 52:54:00:99:00:01", "!both have MAC address"), ("iface-unbridge br0 --no-start", r"^Device eth9 un-attached from bridge br0$"),
        ("iface-dumpxml eth9 --inactive", r"<ip address='198.51.100.2' prefix='24'/>"), ("iface-undefine eth9", "undefined"), ("iface-unbridge nix", "!nix"))
    edits = iter(("sed -i s/1400/1401/", "sed -i s/1401/1402/"))
    for command, want in rows_:
        env = {**ENV, "EDITOR": next(edits)} if command.startswith("iface-edit") else ENV
        done = subprocess.run(["virsh", "-c", uri, *command.split()], capture_output=True, text=True, timeout=120, check=False, env=env, stdin=subprocess.DEVNULL)
        said = done.stderr if want.startswith("!") else done.stdout.rstrip()
        assert re.search(want.lstrip("!+"), said, re.MULTILINE) and (want[0] == "+" or (done.returncode != 0) == (want[0] == "!")), f"{command}: {done}"
    assert state() == before, f"{before}\n{state()}"


def test_lost_gateway():
    """With the wrong address the gateway answers no longer: all is as it was."""
    before = state()
    define("<interface type='bridge' name='br0'><protocol family='ipv4'><ip address='203.0.113.2' prefix='24'/>"
           "<route gateway='203.0.113.1'/></protocol><bridge><interface type='ethernet' name='eth9'/></bridge></interface>")
    refused("lost its gateway 198.51.100.1", "iface-start", "br0")
    assert state() == before, f"{before}\n{state()}"
    say("iface-undefine", "br0")


def test_ethernet():
    before = state()
    define("<interface type='ethernet' name='card0'><mac address='52:54:00:99:00:02'/><mtu size='1300'/>"
           "<protocol family='ipv4'><ip address='10.8.0.1' prefix='24'/></protocol></interface>")
    say("iface-start", "card0")
    i = described("card0")
    assert i.find("mac").get("address") == "52:54:00:99:00:02" and i.find("mtu").get("size") == "1300" and "card0" in rows()
    assert addresses("card0") == {"10.8.0.1/24"}
    say("iface-undefine", "card0")  # it goes on
    assert "card0" in rows()
    destroy("card0")
    assert state() == before
    refused("no interface 'nix0'", "iface-start", define_name("<interface type='ethernet' name='nix0'/>"))
    say("iface-undefine", "nix0")


def define_name(xml):
    define(xml)
    return re.search("name='([^']+)'", xml).group(1)


def test_errors():
    for part, xml in (
            ("has 16 bytes", "<interface type='bridge' name='a234567890123456'><bridge/></interface>"),
            ("is missing", "<interface type='bridge' name='b'/>"), ("is missing", "<interface type='vlan' name='b'/>"),
            ("there twice", BRIDGE.replace("</bridge>", "<interface type='ethernet' name='card0'/></bridge>")),
            ("no IPv4 address", BRIDGE.replace("10.7.0.1", "fd00::1")), ("larger than 32", BRIDGE.replace("prefix='24'", "prefix='33'")),
            ("kernel's own", "<interface type='ethernet' name='lo'/>"), ("takes no such name", "<interface type='ethernet' name='a/b'/>"),
            ("not both", "<interface type='bond' name='b'><bond><miimon freq='1'/><arpmon interval='1' target='1.2.3.4'/>"
                         "<interface type='ethernet' name='card0'/></bond></interface>"),
            ("root element", "<network/>"), ("seconds", BRIDGE.replace("delay='0'", "delay='1.2.3'"))):
        refused(part, "iface-define", write("i.xml", xml))
    write("tree/etc/network/interfaces", "auto card0\n iface card0 inet dhcp\n")
    refused("configured by ifupdown, and is not taken over", "iface-define", write("i.xml", "<interface type='ethernet' name='card0'/>"))
    refused("configured by ifupdown", "iface-destroy", "card0")
    os.unlink(os.path.join(TREE, "etc/network/interfaces"))
    index = json.loads(ip("-j", "link", "show", "card0"))[0]["ifindex"]
    write(f"tree/run/systemd/netif/links/{index}", "ADMIN_STATE=configured\nOPER_STATE=routable\n")
    refused("configured by systemd-networkd", "iface-define", write("i.xml", "<interface type='ethernet' name='card0'/>"))
    os.unlink(os.path.join(TREE, f"run/systemd/netif/links/{index}"))
    write(f"tree/run/NetworkManager/devices/{index}", "[device]\nmanaged=true\nmanaged-type=full\nconnection-uuid=1\n")
    refused("configured by NetworkManager", "iface-define", write("i.xml", "<interface type='ethernet' name='card0'/>"))
    os.unlink(os.path.join(TREE, f"run/NetworkManager/devices/{index}"))


PORT = "<interface type='ethernet' name='card0'/>"
SCHEMA_TAKES = {  # inside of <interface>, and what is kept of it
    "start modes": [("bridge", f"<start mode='{m}'/><bridge/>", f"<start mode='{m}'/>") for m in ("onboot", "none", "hotplug")],
    "bond modes": [("bond", f"<bond mode='{m}'>{PORT}</bond>", f"mode='{m}'") for m in ("balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb")],
    "link monitors": [("bond", f"<bond><miimon freq='100' {more}/>{PORT}</bond>", more) for more in ("downdelay='200'", "updelay='300'", "carrier='ioctl'", "carrier='netif'")],
    "ARP monitors": [("bond", f"<bond><arpmon interval='100' target='10.5.0.9' validate='{v}'/>{PORT}</bond>", f"validate='{v}'") for v in ("none", "active", "backup", "all")],
    "VLANs": [("vlan", f"<vlan tag='{n}'><interface name='card0'/></vlan>", f"tag='{n}'") for n in (0, 4094)],
    "ports": [("bridge", f"<bridge>{p}</bridge>", kept) for p, kept in (
        (PORT, "name='card0'"), (f"<interface type='bond' name='b1'><bond>{PORT}</bond></interface>", "type='bond'"),
        ("<interface type='vlan'><vlan tag='7'><interface name='card0'/></vlan></interface>", "name='card0.7'"))],
    "protocols": [("ethernet", f"<protocol family='{f}'>{inside}</protocol>", kept) for f, inside, kept in (
        ("ipv4", "<dhcp peerdns='no'/>", "<dhcp peerdns='no'/>"), ("ipv4", "<dhcp/>", "<dhcp/>"), ("ipv6", "<dhcp peerdns='yes'/>", "peerdns='yes'"), ("ipv6", "<autoconf/>", "<autoconf/>"),
        ("ipv4", "<ip address='10.8.0.1'/>", "prefix='32'"), ("ipv6", "<ip address='fd00::8' prefix='0'/>", "prefix='0'"), ("ipv4", "<route gateway='10.8.0.9'/>", "10.8.0.9"),
        ("ipv6", "<ip address='fd00::8' prefix='64'/><ip address='fd00::9' prefix='64'/><route gateway='fd00::1'/>", "<ip address='fd00::9'"))],
    "frames": [("ethernet", "<mac address='52:54:00:99:00:03'/><mtu size='68'/>", "<mtu size='68'/>"), ("bridge", "<bridge stp='on' delay='2.5'/>", "delay='2.5'")],
}
SCHEMA_REFUSES = (
    ("ethernet", "<start mode='manual'/>", "manual"), ("ethernet", "<mtu size='67'/>", "67"), ("ethernet", "<mtu/>", "size"), ("ethernet", "<mac address='1:2:3'/>", "1:2:3"),
    ("ethernet", "<protocol family='ipx'/>", "ipx"), ("ethernet", "<protocol family='ipv4'/><protocol family='ipv4'/>", "there twice"),
    ("ethernet", "<protocol family='ipv4'><dhcp peerdns='maybe'/></protocol>", "maybe"), ("ethernet", "<protocol family='ipv4'><autoconf/></protocol>", "autoconf"),
    ("ethernet", "<protocol family='ipv6'><ip address='10.0.0.1'/></protocol>", "no IPv6 address"), ("ethernet", "<protocol family='ipv6'><ip address='fd00::1' prefix='129'/></protocol>", "129"),
    ("ethernet", "<protocol family='ipv6'><route gateway='10.0.0.1'/></protocol>", "no IPv6 address"), ("bridge", "<bridge stp='maybe'/>", "maybe"), ("bridge", "<bridge delay='-1'/>", "delay"),
    ("bond", f"<bond mode='fast'>{PORT}</bond>", "fast"), ("bond", "<bond/>", "interface"), ("bond", f"<bond><miimon/>{PORT}</bond>", "freq"), ("bond", f"<bond><miimon freq='1' carrier='x'/>{PORT}</bond>", "carrier"),
    ("bond", f"<bond><arpmon interval='1'/>{PORT}</bond>", "target"), ("bond", f"<bond><arpmon interval='1' target='1.2.3.4' validate='x'/>{PORT}</bond>", "validate"),
    ("bond", "<bond><interface type='vlan' name='v'/></bond>", "vlan"), ("bond", f"<bond mode='802.3ad'><arpmon interval='1' target='1.2.3.4'/>{PORT}</bond>", "takes no arpmon"),
    ("vlan", "<vlan><interface name='card0'/></vlan>", "tag"), ("vlan", "<vlan tag='4095'><interface name='card0'/></vlan>", "4095"), ("vlan", "<vlan tag='1'/>", "interface"),
)


def test_schema():
    """Row by row of libvirt's interface.rng: kept, or refused by its name; what of it the kernel can do is done."""
    before = state()

    def written(kind, inside, file="i.xml"):
        return write(file, f"<interface type='{kind}' name='{'card0' if kind == 'ethernet' else 'n0'}'>{inside}</interface>")
    taken = [row for rows_ in SCHEMA_TAKES.values() for row in rows_]
    commands = []
    for n, (kind, inside, kept) in enumerate(taken):
        name = "card0" if kind == "ethernet" else "n0"
        commands += [f"iface-define {written(kind, inside, f'{n}.xml')} --validate", "echo @@", f"iface-dumpxml {name} --inactive", "echo @@", f"iface-undefine {name}"]
    shown = say("; ".join(commands)).split("@@")[1::2]
    assert len(shown) == len(taken), shown
    for (_, inside, kept), text in zip(taken, shown):
        valid(text)
        assert kept in text, f"{inside}: {text}"
    files = [written(kind, inside, f"wrong{n}.xml") for n, (kind, inside, _) in enumerate(SCHEMA_REFUSES)]
    done = run("virsh", "-q", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", stdin="".join(f"iface-define {f}\n" for f in files), check=False)  # it goes on after an error
    errors = [line for line in done.stderr.splitlines() if line and "Failed to define" not in line]
    assert len(errors) == len(files), done.stderr
    for (_, inside, part), error in zip(SCHEMA_REFUSES, errors):
        assert part in error, f"{inside}: {error}"
    say("iface-define", written("bridge", "<protocol family='ipv4'><ip address='10.8.0.1' prefix='24'/><route gateway='10.8.0.9'/></protocol>"
                                          "<protocol family='ipv6'><ip address='fd00:8::1' prefix='64'/></protocol><mtu size='1300'/><bridge stp='on' delay='2.5'/>"))
    say("iface-start", "n0")
    shown = json.loads(ip("-d", "-j", "link", "show", "n0"))[0]
    assert shown["mtu"] == 1300 and shown["linkinfo"]["info_data"]["stp_state"] == 1 and shown["linkinfo"]["info_data"]["forward_delay"] == 250, shown
    assert described("n0").find("bridge").attrib == {"stp": "on", "delay": "2.50"}
    assert addresses("n0") == {"10.8.0.1/24", "fd00:8::1/64"}
    destroy("n0")
    say("iface-undefine", "n0")
    assert state() == before, f"{before}\n{state()}"


def test_missing_modules():
    before = state()
    for module, xml in (("8021q", "<interface type='vlan'><vlan tag='42'><interface name='card0'/></vlan></interface>"),
                        ("bonding", "<interface type='bond' name='bond0'><bond mode='active-backup'><interface type='ethernet' name='card0'/>"
                                    "</bond></interface>")):
        name = "card0.42" if module == "8021q" else "bond0"
        define(xml)
        described(name)
        done = virsh("iface-start", name, check=False)
        if done.returncode:
            assert f"module '{module}'" in done.stderr, done.stderr
        else:
            destroy(name)
        say("iface-undefine", name)
    assert state() == before


def test_change():
    before = state()
    refused("no change", "iface-commit")
    refused("no change", "iface-rollback")
    define(BRIDGE)
    say("iface-start", "br7")
    started = state()
    say("iface-begin")
    refused("under way", "iface-begin")
    destroy("br7")
    say("iface-undefine", "br7")
    define("<interface type='bridge' name='br8'><bridge><interface type='ethernet' name='card0'/></bridge></interface>")
    say("iface-start", "br8")
    say("iface-rollback")
    assert state() == started, f"{started}\n{state()}"
    assert "br8" not in rows("--all") and described("br7", "--inactive").find("start").get("mode") == "onboot"
    destroy("br7")
    assert state() == before, f"{before}\n{state()}"
    say("iface-begin")
    say("iface-undefine", "br7")
    say("iface-commit")
    refused("no change", "iface-rollback")
    assert "br7" not in rows("--all")


def test_change_too_long():
    """A state that could not be gone back to is no beginning of a change."""
    route = "route {} 10.{}.{}.{}/32 dev card0 metric 7\n"
    def routes(verb):
        run("ip", "-batch", write("routes", "".join(route.format(verb, 100 + i // 65536, i // 256 % 256, i % 256) for i in range(50000))), ns=HOST)
    run("ip", "link", "set", "card0", "up", ns=HOST)
    routes("add")
    try:
        refused("the state of this host's interfaces cannot be noted, to be gone back to: XML of .* bytes is too long; at most 4194304", "iface-begin")
        refused("no change", "iface-rollback")
    finally:
        routes("del")
        run("ip", "link", "set", "card0", "down", ns=HOST)
    say("iface-begin")
    say("iface-rollback")


def test_change_killed():
    """Not committed: the next start of the manager goes back."""
    before = state()
    say("iface-begin")
    define(BRIDGE)
    say("iface-start", "br7")
    MANAGER.end(signal.SIGKILL)
    MANAGER.start()
    wait_for("the old state", lambda: "br7" not in rows("--all"))
    assert state() == before, f"{before}\n{state()}"
    # A host that was started anew: only definitions are to be put back.
    say("iface-begin")
    define(BRIDGE.replace("onboot", "none"))
    MANAGER.end(signal.SIGKILL)
    path = next(os.path.join(d, "interfaces.change") for d, _, files in os.walk(WORK) if "interfaces.change" in files)
    with open(path, encoding="utf-8") as f:
        text = f.read()
    with open(path, "w", encoding="utf-8") as f:
        f.write(re.sub(r"boot='[^']*'", "boot='another'", text))
    MANAGER.start()
    wait_for("the old definitions", lambda: "br7" not in rows("--all"))
    refused("no change", "iface-rollback")


def test_killed():
    """SIGKILL while a bridge is made over the card: the card has its addresses again, or the bridge has them."""
    before = state()
    define("<interface type='bridge' name='br0'><bridge><interface type='ethernet' name='eth9'/></bridge></interface>")
    for delay in (0, 0.01, 0.03, 0.1, 0.3):
        words = ["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "-q", "iface-start", "br0"]
        client = subprocess.Popen(words, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        MANAGER.end(signal.SIGKILL)
        client.wait(120)
        MANAGER.start()
        wait_for("all or nothing", lambda: "br0" in rows() or state() == before)
        if "br0" in rows():
            assert "198.51.100.2/24" in addresses("br0") and addresses("eth9") == set()
            destroy("br0")
        assert state() == before, f"{delay}: {before}\n{state()}"
    say("iface-undefine", "br0")


class Server:
    """dnsmasq behind card0."""

    def __init__(self, *words):
        self.words = ["dnsmasq", "-k", "-i", "w1", "-z", "--conf-file=/dev/null", "--user=root", f"--pid-file={WORK}/dnsmasq.pid",
                      f"--dhcp-leasefile={WORK}/leases", "--dhcp-authoritative", "--no-ping", "-p", "0", *words]

    def __enter__(self):
        run("ip", "addr", "add", "10.6.0.1/24", "dev", "w1", ns=WORLD)
        run("ip", "addr", "add", "fd00:6::1/64", "dev", "w1", "nodad", ns=WORLD)
        with open(os.path.join(WORK, "dnsmasq.log"), "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", WORLD, *self.words], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        run("ip", "addr", "flush", "dev", "w1", "scope", "global", ns=WORLD)
        if os.path.exists(f"{WORK}/leases"):
            os.unlink(f"{WORK}/leases")


def resolv():
    with open(f"{WORK}/etc/resolv.conf", encoding="utf-8") as f:
        return f.read()


def has_lease(six=False):
    return any(a.startswith("fd00:6::5" if six else "10.6.0.5") for a in addresses("card0"))


def is_gone(name, before):
    """dhcpcd's helpers end after it."""
    assert state() == before, f"{before}\n{state()}"
    wait_for(f"the end of {name}", lambda: not clients(name))


def dhcp_by(name):
    """One client: a lease, over a restart of the manager, and gone with the interface; name servers taken, or not with peerdns='no', IPv6 beside IPv4."""
    if not os.path.exists(f"{WORK}/bin-{name}/{name}"):
        raise tap.Skip(f"{name} is not installed")
    MANAGER.end()
    MANAGER.start(name)
    before = state()
    with Server("--dhcp-range=10.6.0.50,10.6.0.59", "--dhcp-range=fd00:6::50,fd00:6::5f,64,1h", "--dhcp-option=3", "--dhcp-option=6,10.6.0.1",
                "--dhcp-option=option6:dns-server,[fd00:6::1]"):
        define("<interface type='ethernet' name='card0'><protocol family='ipv4'><dhcp/></protocol></interface>")
        say("iface-start", "card0")
        assert has_lease(), addresses("card0")
        assert name == "udhcpc" or "10.6.0.1" in resolv(), resolv()
        pids = clients(name)
        assert pids
        MANAGER.end()
        assert set(clients(name)) & set(pids)
        MANAGER.start(name)
        assert set(clients(name)) & set(pids)
        if name == "udhcpc":
            os.kill(pids[0], signal.SIGKILL)
            wait_for("another client", lambda: clients(name) not in ([], pids))
            wait_for("its address", has_lease)
            pids = clients(name)
            write("slow", "")
            with contextlib.suppress(ProcessLookupError):  # it may just be leaving for the background
                os.kill(pids[0], signal.SIGKILL)
            wait_for("one that has not told its number yet", lambda: clients(name) not in ([], pids))
        destroy("card0")
        is_gone(name, before)
        write("etc/resolv.conf", RESOLV)
        protocols = "".join(f"<protocol family='{f}'><dhcp peerdns='no'/></protocol>" for f in ("ipv4", "ipv6"))
        define(f"<interface type='ethernet' name='card0'>{protocols}</interface>")
        if name == "udhcpc":
            refused("no DHCP client for IPv6", "iface-start", "card0")
        else:
            say("iface-start", "card0")
            assert has_lease() and has_lease(six=True), addresses("card0")
            destroy("card0")
        is_gone(name, before)
        assert resolv() == RESOLV, resolv()
    say("iface-undefine", "card0")


def test_number_again():
    """The number of a client that has ended is another process's by now, which has to do with the interface as well: it is left alone."""
    MANAGER.end()
    MANAGER.start()
    with Server("--dhcp-range=10.6.0.50,10.6.0.59"):
        define("<interface type='ethernet' name='card0'><protocol family='ipv4'><dhcp/></protocol></interface>")
        say("iface-start", "card0")
        MANAGER.end()
        for pid in clients("udhcpc"):
            os.kill(pid, signal.SIGKILL)
        with subprocess.Popen(["sh", "-c", "read line", "card0"], stdin=subprocess.PIPE) as other:
            with open(f"{RUN}/interfaces/card0.dhcp4", "w", encoding="ascii") as f:
                f.write(f"{other.pid}\n")
            MANAGER.start()
            wait_for("another client", lambda: clients("udhcpc"))
            destroy("card0")
            assert other.poll() is None, "it was ended"
    say("iface-undefine", "card0")


def clients(name):
    """The processes that ask for card0's addresses."""
    found = []
    for pid in run("ip", "netns", "pids", HOST).stdout.split():
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
                words = f.read().replace("\0", " ").split()
        except OSError:
            continue
        if any(w.rstrip(":").endswith(name) for w in words) and "card0" in words and not tap.has_ended(int(pid)):
            found.append(int(pid))
    return found


def test_autoconf():
    """A router's announcements: heard by who is to, also where the host forwards, and by nobody else."""
    MANAGER.end()
    MANAGER.start()
    before = state()
    heard = "<interface type='ethernet' name='card0'><protocol family='ipv6'>%s</protocol></interface>"

    def setting(name, value=None):
        return run("sysctl", "-n" if value is None else "-q", f"net.ipv6.conf.{name}" + (f"={value}" if value is not None else ""), ns=HOST).stdout.strip()
    with Server("--enable-ra", "--dhcp-range=fd00:6::,ra-only,64"):
        for forwards in ("0", "1"):
            setting("all.forwarding", forwards)
            define(heard % "<autoconf/>")
            say("iface-start", "card0")
            wait_for("an address and a router", lambda: any(a.startswith("fd00:6::") for a in addresses("card0")) and "proto ra" in ip("-6", "route", "show", "default", "dev", "card0"))
            assert setting("card0.accept_ra") == ("2" if forwards == "1" else "1")
            i = described("card0").find("protocol[@family='ipv6']")
            assert i.find("autoconf") is not None and i.find("route").get("gateway").startswith("fe80:"), ET.tostring(i)
            destroy("card0")
            assert state() == before, f"{before}\n{state()}"
        define(heard % "<ip address='fd00:8::1' prefix='64'/>")
        say("iface-start", "card0")
        assert setting("card0.accept_ra") == "0" and setting("card0.autoconf") == "0" and addresses("card0") == {"fd00:8::1/64"}
        destroy("card0")
        setting("all.forwarding", "0")
    say("iface-undefine", "card0")
    assert state() == before, f"{before}\n{state()}"


def test_shared_routes():
    """Routes with several next hops go over to the bridge with the card, whole or the card's part, and come back."""
    ip("link", "set", "card0", "up")
    ip("addr", "add", "10.8.0.1/24", "dev", "card0")
    ip("addr", "add", "fd00:8::1/64", "dev", "card0", "nodad")
    run("ip", "addr", "add", "198.51.100.3/24", "dev", "w0", ns=WORLD)
    try:
        ip("route", "replace", "default", "nexthop", "via", GATEWAY, "dev", "eth9", "weight", "1", "nexthop", "via", "198.51.100.3", "dev", "eth9", "weight", "5")
        ip("route", "add", "10.20.0.0/16", "nexthop", "via", "198.51.100.9", "dev", "eth9", "nexthop", "via", "10.8.0.9", "dev", "card0")
        ip("-6", "route", "add", "fd00:20::/32", "nexthop", "via", "2001:db8:77::9", "dev", "eth9", "nexthop", "via", "fd00:8::9", "dev", "card0")
        before = state()

        def moved(words):
            found = {r["dst"]: hops(r) for r in json.loads(ip("-j", *words, "route"))}
            return {dst: h for dst, h in found.items() if h}
        four, six = moved(["-4"]), moved(["-6"])
        assert len(four) == 2 and len(six) == 1
        wanted = [{dst: sorted((gateway, "br0" if dev == "eth9" else dev, weight) for gateway, dev, weight in h) for dst, h in found.items()} for found in (four, six)]
        define("<interface type='bridge' name='br0'><bridge><interface type='ethernet' name='eth9'/></bridge></interface>")
        say("iface-start", "br0")
        assert [moved(["-4"]), moved(["-6"])] == wanted, f"{wanted}\n{moved(['-4'])} {moved(['-6'])}"
        run("busybox", "ping", "-c", "1", "-W", "5", GATEWAY, ns=HOST)
        destroy("br0")
        assert state() == before, f"{before}\n{state()}"
        say("iface-begin")
        define("<interface type='bridge' name='br0'><bridge><interface type='ethernet' name='eth9'/><interface type='ethernet' name='card0'/></bridge></interface>")
        say("iface-start", "br0")
        assert {dev for h in (*moved(["-4"]).values(), *moved(["-6"]).values()) for _, dev, _ in h} == {"br0"}
        say("iface-rollback")
        assert state() == before, f"{before}\n{state()}"
        say("iface-undefine", "br0")
    finally:
        ip("route", "replace", "default", "via", GATEWAY)
        for words in (("route", "del", "10.20.0.0/16"), ("-6", "route", "del", "fd00:20::/32")):
            run("ip", *words, ns=HOST, check=False)
        ip("addr", "flush", "dev", "card0", "scope", "global")
        ip("link", "set", "card0", "down")
        run("ip", "addr", "del", "198.51.100.3/24", "dev", "w0", ns=WORLD)


def test_webvirtcloud():
    """Its calls: a bridge made, shown and taken away."""
    import libvirt  # pylint: disable=import-outside-toplevel
    libvirt.registerErrorHandler(lambda *_: None, None)
    c = libvirt.open(f"qemu+unix:///system?socket={RUN}/libvirt-sock")
    assert c.numOfInterfaces() == 2 and sorted(c.listInterfaces()) == ["eth9", "lo"] and c.listDefinedInterfaces() == ["card0"]
    assert c.numOfDefinedInterfaces() == 1 and len(c.listAllInterfaces()) == 3
    i = c.interfaceDefineXML(BRIDGE, 0)
    i.create()
    found = c.interfaceLookupByName("br7")
    assert found.isActive() == 1 and ET.fromstring(found.XMLDesc(0)).get("type") == "bridge" and re.fullmatch("(..:){5}..", found.MACString())
    assert ET.fromstring(found.XMLDesc(1)).find("start").get("mode") == "onboot"
    found.destroy()
    found.undefine()
    try:
        c.interfaceLookupByName("br7")
        raise AssertionError("br7 is still there")
    except libvirt.libvirtError as e:
        assert e.get_error_code() == libvirt.VIR_ERR_NO_INTERFACE, e
    c.close()


def test_command():
    """ruche interface, and a change that nobody confirms."""
    before = state()
    assert json.loads(ruche("interface", "list", "--json").stdout)["interfaces"][1]["name"] == "eth9"
    where = write("i.xml", BRIDGE)
    ruche("interface", "begin", "--timeout", "3600")
    assert re.search("rolled back in 3[56]", ruche("interface", "change").stdout)
    ruche("interface", "define", where, "--start")
    assert re.search(r"^br7 +active +bridge .* here +yes", ruche("interface", "list").stdout, re.MULTILINE)
    assert re.search(r"^mtu +1400", ruche("interface", "info", "br7").stdout, re.MULTILINE)
    assert "<interface type='bridge' name='br7'>" in ruche("interface", "xml", "br7").stdout
    ruche("interface", "stop", "br7")
    ruche("interface", "start", "br7")
    ruche("interface", "rollback")
    assert state() == before and "no change" in ruche("interface", "change").stdout
    ruche("interface", "define", where)
    ruche("interface", "begin")
    ruche("interface", "delete", "br7")
    ruche("interface", "commit")
    done = ruche("interface", "info", "br7", check=False)
    assert done.returncode == 1 and "no interface with matching name 'br7'" in done.stderr, done.stderr
    ruche("interface", "begin", "--timeout", "1")
    ruche("interface", "define", where, "--start")
    wait_for("the rollback", lambda: "no change" in ruche("interface", "change").stdout)
    assert state() == before and "br7" not in rows("--all")


def event(kind, act, told):
    """Until virsh tells it, act() is done again and again. Devices of others come and go, too: the kernel tells everybody of most."""
    words = ["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "nodedev-event", "--event", kind, "--loop", "--timeout", "600"]
    path = write("events", "")
    with open(path, "w", encoding="utf-8") as out, subprocess.Popen(words, env=ENV, stdin=subprocess.DEVNULL, stdout=out) as client_:
        def is_told():
            act()
            time.sleep(0.3)
            with open(path, encoding="utf-8") as f:
                return re.search(told, f.read())
        try:
            wait_for(f"the event '{told}'", is_told, 120)
        finally:
            client_.kill()


def test_device_events():
    """A card comes, changes and goes: what the kernel tells."""
    def come():
        if "ev0" not in ip("link"):
            ip("link", "add", "ev0", "type", "veth", "peer", "name", "ev1")

    def go():
        come()
        time.sleep(0.3)
        ip("link", "del", "ev0")

    event("lifecycle", go, r"event 'lifecycle' for node device net_ev0_\S+: Created")
    event("lifecycle", go, r"event 'lifecycle' for node device net_ev0_\S+: Deleted")
    come()
    event("update", lambda: run("sh", "-c", "echo change >/sys/class/net/ev0/uevent", ns=HOST), "event 'update' for node device net_ev0_")
    assert "net_ev0_" in say("nodedev-list")
    go()


def main():
    tests = {"look": test_look, "bridge": test_bridge, "moved addresses": test_move, "virsh": test_virsh, "schema": test_schema, "lost gateway": test_lost_gateway, "ethernet": test_ethernet,
             "errors": test_errors, "missing modules": test_missing_modules, "change": test_change, "change too long": test_change_too_long, "change, killed": test_change_killed,
             "killed": test_killed, **{f"dhcp by {c}": lambda c=c: dhcp_by(c) for c in CLIENTS}, "number used again": test_number_again, "autoconf": test_autoconf, "shared routes": test_shared_routes, "webvirtcloud": test_webvirtcloud,
             "ruche interface": test_command, "device events": test_device_events}
    namespaces.main(tests, sys.argv[3:], ("ip", "dnsmasq", "busybox", "virsh", "xmllint"), begin, end)


if __name__ == "__main__":
    main()
