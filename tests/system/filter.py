#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters of interfaces: forged frames of a namespace that stands for a machine, updates, virsh's commands, machines.

    filter.py RUCHED RUCHE RUCHE-VMM KERNEL

In namespaces of its own, made as network.py makes them.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree
import xml.sax.saxutils

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import namespaces  # noqa: E402
import network as net  # noqa: E402
import tap  # noqa: E402
from network import HOST, ONE, TWO, refused, rules, run, virsh, wait_for, write  # noqa: E402

MAC, OTHER = "52:54:00:00:00:0a", "52:54:00:00:00:0b"
OWNER = "5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a0f"

# Sends each frame of standard input (hex) and ends.
SEND = """import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(('eth0', 0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))
"""
# Tells the marks of the frames that came before the last one.
HEAR = """import re, socket
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind(('eth0', 3))
s.settimeout(60)
print('ready', flush=True)
seen = []
while 'end' not in seen:
    found = re.search(rb'MARK<([a-z0-9 ]+)>', s.recv(2000))
    if found:
        seen.append(found.group(1).decode())
print(','.join(sorted(set(seen) - {'end'})))
"""


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ip(text):
    return bytes(int(x) for x in text.split("."))


def mark(name):
    return f"MARK<{name}>".encode()


def frame(kind, body, src=MAC, dst=OTHER):
    return mac(dst) + mac(src) + kind.to_bytes(2, "big") + body


def ipv4(name, src="10.77.0.1", ports=(1000, 2000), chaddr=MAC, data=None):
    udp = ports[0].to_bytes(2, "big") + ports[1].to_bytes(2, "big")
    data = data or bytes(28) + mac(chaddr) + mark(name)
    udp += (8 + len(data)).to_bytes(2, "big") + bytes(2) + data
    head = bytes([0x45, 0]) + (20 + len(udp)).to_bytes(2, "big") + bytes([0, 1, 0, 0, 64, 17, 0, 0]) + ip(src) + ip("10.77.0.2")
    total = sum(int.from_bytes(head[i:i + 2], "big") for i in range(0, 20, 2))
    total = (total & 0xffff) + (total >> 16)
    total = ~((total & 0xffff) + (total >> 16)) & 0xffff
    return frame(0x800, head[:10] + total.to_bytes(2, "big") + head[12:] + udp)


def arp(name, sha=MAC, spa="10.77.0.1", tpa="10.77.0.2"):
    return frame(0x806, bytes([0, 1, 8, 0, 6, 4, 0, 1]) + mac(sha) + ip(spa) + bytes(6) + ip(tpa) + mark(name))


def ipv6(name):
    data = mark(name)
    udp = bytes([0, 80, 0, 80]) + (8 + len(data)).to_bytes(2, "big") + bytes([0, 0]) + data
    return frame(0x86dd, bytes([0x60, 0, 0, 0]) + len(udp).to_bytes(2, "big") + bytes([17, 64]) + bytes([0xfe, 0x80] + [0] * 13 + [1])
                 + bytes([0xfe, 0x80] + [0] * 13 + [2]) + udp)


HONEST = {"ip": ipv4("ip"), "arp": arp("arp")}
FORGED = {"ip mac": frame(0x800, ipv4("ip mac")[14:], src="52:54:00:00:00:0c"), "ip address": ipv4("ip address", src="10.77.0.9"),
          "arp mac": arp("arp mac", sha=OTHER), "arp address": arp("arp address", spa="10.77.0.9"),
          "arp frame": frame(0x806, arp("arp frame")[14:], src="52:54:00:00:00:0c"), "ipv6": ipv6("ipv6"), "other": frame(0x88b5, mark("other"))}
EVERYTHING = {**HONEST, **FORGED}


def heard(frames, last=None):
    """What of them the other machine got."""
    with subprocess.Popen(["ip", "netns", "exec", TWO, sys.executable, "-c", HEAR], stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout.readline() == "ready\n"
            lines = "\n".join(f.hex() for f in [*frames.values(), last or ipv4("end")])
            subprocess.run(["ip", "netns", "exec", ONE, sys.executable, "-c", SEND], input=lines, text=True, check=True, timeout=60)
            return set(filter(None, listener.stdout.readline().strip().split(",")))
        finally:
            listener.kill()


def plugged():
    """Two machines on a bridge; what they say by themselves does not matter."""
    run("ip", "link", "add", "br7", "type", "bridge", "mcast_snooping", "0", ns=HOST)
    run("ip", "link", "set", "br7", "up", ns=HOST)
    net.plug(ONE, "br7", MAC)
    net.plug(TWO, "br7", OTHER)

    def forwarding():
        shown = run("ip", "-d", "-o", "link", ns=HOST).stdout
        return len(re.findall(r"master br7 .* bridge_slave state forwarding", shown)) == 2
    wait_for("the bridge's ports", forwarding)


def unplugged():
    net.unplug(ONE, TWO)
    run("ip", "link", "del", "br7", ns=HOST, check=False)


def binding(filter_name, params=(), dev="ta"):
    inside = "".join(f"<parameter name='{n}' value='{v}'/>" for n, v in params)
    return write(f"binding-{filter_name}-{dev}.xml", f"<filterbinding><owner><name>m</name><uuid>{OWNER}</uuid></owner><portdev name='{dev}'/>"
                 f"<mac address='{MAC}'/><filterref filter='{filter_name}'>{inside}</filterref></filterbinding>")


def define(name, inside):
    return write(name + ".xml", f"<filter name='{name}'>{inside}</filter>")


IP = ("IP", "10.77.0.1")


def test_forged():
    """All pass without a filter; with clean-traffic the honest ones alone."""
    before = rules()
    plugged()
    try:
        assert heard(EVERYTHING) == set(EVERYTHING)
        virsh("nwfilter-binding-create", binding("clean-traffic", [IP]))
        assert heard(EVERYTHING) == set(HONEST)
        virsh("nwfilter-binding-delete", "ta")
        assert rules() == before and heard(EVERYTHING) == set(EVERYTHING)
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        unplugged()
    assert rules() == before


def test_update():
    """A filter that is defined anew is in force at once, by includes too; one that cannot be changes nothing."""
    before = rules()
    plugged()
    try:
        virsh("nwfilter-define", define("inner", "<filterref filter='clean-traffic'/>"))
        virsh("nwfilter-define", define("lab", "<filterref filter='inner'/>"))
        virsh("nwfilter-binding-create", binding("lab", [IP]))
        assert heard(EVERYTHING) == set(HONEST)
        refused("is in use by interface 'ta'", "nwfilter-undefine", "inner")
        virsh("nwfilter-define", define("inner", "<rule action='drop' direction='out'><arp/></rule>"))
        assert heard(EVERYTHING) == {n for n in EVERYTHING if not n.startswith("arp")}
        right = rules()
        for inside, why in (("<rule action='drop' direction='out'><tcp ipset='x' ipsetflags='src'/></rule>", "ipset 'x'"),
                            ("<filterref filter='nowhere'/>", "nowhere"), ("<filterref filter='lab'/>", "include itself"),
                            ("<rule action='drop' direction='out'><ip srcipaddr='$NO'/></rule>", "variable 'NO' has no value"),
                            ("<rule action='drop' direction='out'><ip protocol='udp' srcportstart='9' srcportend='8'/></rule>", "nftables")):
            refused(why, "nwfilter-define", define("inner", inside))
            assert rules() == right, why
        done = virsh("nwfilter-define", define("inner", "<rule action='accept' direction='out'><tcp/></rule>"), check=False)
        assert not done.returncode or "CONFIG_NF_CONNTRACK_BRIDGE" in done.stderr and rules() == right, done.stderr
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        for name in ("lab", "inner"):
            virsh("nwfilter-undefine", name, check=False)
        unplugged()
    assert rules() == before


def test_gratuitous():
    """ARP that tells of its own address, whichever that is."""
    before = rules()
    plugged()
    frames = {"asks": arp("asks"), "tells": arp("tells", spa="10.77.0.1", tpa="10.77.0.1"), "zero": arp("zero", spa="0.0.0.0", tpa="0.0.0.0"),
              **{f"byte {n}": arp(f"byte {n}", spa="10.77.0.1", tpa=other) for n, other in enumerate(("11.77.0.1", "10.76.0.1", "10.77.1.1", "10.77.0.0"))}}
    try:
        virsh("nwfilter-define", define("told", "<rule action='drop' direction='out'><arp gratuitous='yes'/></rule>"))
        virsh("nwfilter-binding-create", binding("told"))
        assert heard(frames) == set(frames) - {"tells", "zero"}
        refused("does not go with it", "nwfilter-define", define("told", "<rule action='drop' direction='out'><arp match='no' gratuitous='yes'/></rule>"))
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        virsh("nwfilter-undefine", "told", check=False)
        unplugged()
    assert rules() == before


def ruche(*words, **more):
    return run(net.RUCHE, "--connect", f"{net.RUN}/ruche.sock", "filter", *words, **more).stdout


def test_ruche():
    """`ruche filter`: each verb once."""
    plain = define("plain", "<filterref filter='clean-traffic'/><rule action='drop' direction='in'><tcp dstportstart='22'/></rule>")
    run("ip", "link", "add", "ta", "type", "veth", "peer", "name", "tx", ns=HOST)
    try:
        assert ruche("define", plain) == "" and "plain" in ruche("list", "--names").split()
        virsh("nwfilter-binding-create", binding("plain", [IP]))
        assert re.search(r"plain +root +1 +1 +ta", ruche("list")), ruche("list")
        info = ruche("info", "plain")
        assert "rules        1" in info and "includes     clean-traffic" in info and "interfaces   ta" in info, info
        assert re.search(f"ta +plain +m +{MAC} +-", ruche("bindings")), ruche("bindings")
        ruche("edit", "plain", env={"EDITOR": "sed -i /dstport/s/22/23/"})
        assert "dstportstart='23'" in ruche("xml", "plain") and re.search(r"dport 23\b", rules())
        done = run(net.RUCHE, "--connect", f"{net.RUN}/ruche.sock", "filter", "delete", "plain", check=False)
        assert done.returncode == 1 and "in use by interface 'ta'" in done.stderr, done.stderr
        virsh("nwfilter-binding-delete", "ta")
        ruche("delete", "plain")
        assert "plain" not in ruche("list", "--names").split()
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        run("ip", "link", "del", "ta", ns=HOST, check=False)


def test_address():
    """Without an address only DHCP passes; the one that a network leases is taken."""
    before = rules()
    bridge = net.define("leased", net.network("leased", "none", 141, v6=False))
    with_network = rules()
    try:
        net.plug(ONE, bridge, MAC)
        net.plug(TWO, bridge, OTHER)
        virsh("nwfilter-binding-create", binding("clean-traffic", [("CTRL_IP_LEARNING", "dhcp")]))
        dhcp = ipv4("end", src="0.0.0.0", ports=(68, 67))
        forged = {"arp": arp("arp"), "ip": ipv4("ip"), "dhcp": ipv4("dhcp", src="0.0.0.0", ports=(68, 67), chaddr=OTHER)}
        assert heard(forged, dhcp) == set()
        lease = net.dhcp(ONE)["ip"]
        wait_for("rules for " + lease, lambda: lease in rules(), 60)
        assert heard({"arp": arp("arp", spa=lease), "ip": ipv4("ip", src=lease), **FORGED}, ipv4("end", src=lease)) == {"arp", "ip"}
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        after = rules()
        net.unplug(ONE, TWO)
        net.remove("leased")
    assert after == with_network and rules() == before


def send(frames):
    run(sys.executable, "-c", f"import socket; s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); "
        f"[s.send(bytes.fromhex(f)) for f in {[f.hex() for f in frames]}]", ns=ONE)


def learned():
    return re.search(r"ta +clean-traffic +m +\S+ +(.*)", ruche("bindings")).group(1).strip()


def test_learned():
    """The first address that the machine uses stays its own, over a kill of the manager, too."""
    before = rules()
    plugged()
    try:
        refused("CTRL_IP_LEARNING 'guess' is not any, dhcp or none", "nwfilter-binding-create", binding("clean-traffic", [("CTRL_IP_LEARNING", "guess")]))
        refused("variable 'IP' has no value", "nwfilter-binding-create", binding("clean-traffic", [("CTRL_IP_LEARNING", "none")]))
        virsh("nwfilter-binding-create", binding("clean-traffic"))
        send([FORGED["ip mac"], FORGED["arp mac"], arp("none", spa="0.0.0.0"), ipv4("none", src="255.255.255.255")])
        assert learned() == "waiting"
        send([HONEST["arp"]])  # dropped, and seen
        wait_for("rules for the address", lambda: learned() == "10.77.0.1")
        assert heard(EVERYTHING) == set(HONEST)
        net.MANAGER.end(signal.SIGKILL)
        net.MANAGER.start()
        assert learned() == "10.77.0.1" and heard(EVERYTHING) == set(HONEST)
        virsh("nwfilter-binding-delete", "ta")
        assert not os.listdir(f"{net.RUN}/nwfilters"), os.listdir(f"{net.RUN}/nwfilters")
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        unplugged()
    assert rules() == before


def test_snooped():
    """What another's DHCP server leases, until the machine gives it back; kept over a kill of the manager."""
    before = rules()
    plugged()
    server = None
    try:
        run("ip", "addr", "add", "10.77.0.2/24", "dev", "eth0", ns=TWO)
        server = subprocess.Popen(["ip", "netns", "exec", TWO, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--pid-file=",
                                   "--interface=eth0", "--dhcp-range=10.77.0.50,10.77.0.60,1h", "--leasefile-ro", "--dhcp-authoritative", "--no-ping"],
                                  env=net.ENV, stderr=subprocess.DEVNULL)
        virsh("nwfilter-binding-create", binding("clean-traffic", [("CTRL_IP_LEARNING", "dhcp"), ("DHCPSERVER", "10.77.0.2")]))
        send([HONEST["arp"], HONEST["ip"]])
        assert learned() == "waiting"
        lease = net.dhcp(ONE)["ip"]
        wait_for("rules for " + lease, lambda: learned() == lease and lease in rules())
        honest = {"arp": arp("arp", spa=lease), "ip": ipv4("ip", src=lease)}
        assert heard({**honest, **FORGED}, ipv4("end", src=lease)) == set(honest)
        net.MANAGER.end(signal.SIGKILL)
        net.MANAGER.start()
        assert learned() == lease
        send([ipv4("release", src=lease, ports=(68, 67), data=bytes([1, 1, 6]) + bytes(9) + ip(lease) + bytes(12) + mac(MAC) + bytes(202)
                   + bytes.fromhex("63825363350107ff"))])
        wait_for("its end", lambda: learned() == "waiting" and lease not in rules())
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        if server:
            server.kill()
            server.wait()
        unplugged()
    assert rules() == before


def test_virsh():
    """Each of virsh's commands for filters once."""
    plain = define("plain", "<uuid>0d7f2c04-6f2b-4b3e-9a0c-7c2f5d1e8a11</uuid><rule action='drop' direction='in'><tcp dstportstart='22'/></rule>")
    run("ip", "link", "add", "ta", "type", "veth", "peer", "name", "tx", ns=HOST)
    try:
        rows = (("nwfilter-list", "clean-traffic-gateway"), (f"nwfilter-define {plain}", "Network filter plain defined"), ("nwfilter-list", "plain"),
                ("nwfilter-dumpxml plain", "dstportstart='22'"), ("nwfilter-dumpxml no-ip-spoofing", "chain='ipv4-ip' priority='-710'"),
                (f"nwfilter-define {plain}", "defined"), (f"nwfilter-binding-create {binding('plain')}", "created"),
                (f"nwfilter-binding-create {binding('plain')}", "!has a filter already"), ("nwfilter-binding-list", "ta +plain"),
                ("nwfilter-binding-dumpxml ta", "<portdev name='ta'/>"), ("nwfilter-undefine plain", "!in use"), ("nwfilter-binding-delete ta", "deleted"),
                ("nwfilter-binding-dumpxml ta", "!no filter binding|not found"), ("nwfilter-undefine plain", "undefined"), ("nwfilter-dumpxml plain", "!not found"),
                (f"nwfilter-binding-create {binding('nowhere')}", "!nowhere"), (f"nwfilter-binding-create {binding('plain', dev='no0')}", "!no interface 'no0'"))
        for command, want in rows:
            done = virsh(*command.split(" "), check=False)
            if want.startswith("!"):
                assert done.returncode and re.search(want[1:], done.stderr), f"{command}: {done.stdout}{done.stderr}"
            else:
                assert not done.returncode and re.search(want, done.stdout), f"{command}: {done.stdout}{done.stderr}"
        for name in re.findall(r"[0-9a-f-]{36} +(\S+)", virsh("nwfilter-list").stdout):
            run("virt-xml-validate", write("shown.xml", virsh("nwfilter-dumpxml", name).stdout), "nwfilter")
    finally:
        run("ip", "link", "del", "ta", ns=HOST, check=False)


# ---- row by row of libvirt's schema ----

RNG = "{http://relaxng.org/ns/structure/1.0}"
SCHEMA = "/usr/share/libvirt/schemas/nwfilter.rng"
# By the schema's name of a type: values that it takes and in what form we keep them, and one that nothing takes.
VALUES = {
    "addrMAC": (("0A:b:0c:0d:e:0f", "0a:0b:0c:0d:0e:0f"), ("$MAC", "$MAC"), "1:2:3"), "addrIP": (("10.1.2.3",) * 2, ("$IP", "$IP"), "fd00::1"),
    "addrIPv6": (("FD00:0::1", "fd00::1"), ("$IPV6[0]", "$IPV6[0]"), "10.1.2.3"), "addrMask": (("24", "24"), ("255.255.0.0", "16"), ("255.0.255.0",) * 2, "33"),
    "addrMaskv6": (("64", "64"), ("ffff::", "16"), "129"), "mac-protocolid": (("arp", "arp"), ("0x88b5", "34997"), ("2048", "2048"), "0x1ff"),
    "vlan-vlanid": (("0x10", "16"), ("4095", "4095"), "4096"), "uint8": (("255", "255"), "256"), "uint16range": (("0x1F", "31"), ("65535", "65535"), "65536"),
    "uint32range": (("0xffffffff", "4294967295"), "4294967296"), "boolean": (("yes", "true"), ("0", "false"), "maybe"), "sixbitrange": (("0x3f", "63"), "64"),
    "arpOpcodeType": (("request", "Request"), ("DRARP_Error", "DRARP_Error"), ("ARP_NAK", "ARP_NAK"), ("7", "7"), "Ask"),
    "ipProtocolType": (("udplite", "udplite"), ("0x11", "17"), ("icmpv6", "icmpv6"), "ipx"), "stateflags-type": (("ESTABLISHED,NEW", "NEW,ESTABLISHED"), ("NONE", "NONE"), "OLD"),
    "tcpflags-type": (("SYN,ACK/SYN", "SYN,ACK/SYN"), ("ALL/NONE", "ALL/NONE"), "SYN"), "ipset-name-type": (("some.set", "some.set"), "no;set"),
    "ipset-flags-type": (("src,DST", "src,dst"), "up"), "virYesNo": (("no", "no"), "other"), "comment-type": (("a <b> 'c'", "a <b> 'c'"), "a&#10;b"),
}


def protocols():
    """Each protocol that the schema has, with its attributes and their types."""
    top = xml.etree.ElementTree.parse(SCHEMA).getroot()
    named = {d.get("name"): d for d in top.iter(RNG + "define")}

    def attributes(node):
        for child in node:
            if child.tag == RNG + "attribute":
                yield child.get("name"), child.find(RNG + "ref").get("name")
            else:
                yield from attributes(named.get(child.get("name"), ()) if child.tag == RNG + "ref" else child)
    rule = next(e for e in top.iter(RNG + "element") if e.get("name") == "rule")
    return {e.get("name"): dict(attributes(e)) for e in rule.iter(RNG + "element") if e is not rule}


def half_of(name, names):
    """The attribute without which this one says nothing."""
    for ending, other in (("macmask", "macaddr"), ("-mask", ""), ("-hi", ""), ("ipmask", "ipaddr"), ("ipto", "ipfrom"), ("portend", "portstart"), ("end", ""),
                          ("ipset", "ipsetflags"), ("ipsetflags", "ipset")):
        if name.endswith(ending) and name.removesuffix(ending) + other in names:
            return name.removesuffix(ending) + other
    return None


def rows_of(attributes):
    """For each value of each attribute: what is written, and what is kept."""
    for name, kind in attributes.items():
        first = half_of(name, attributes)
        for value, form in VALUES[kind][:-1]:
            written, kept = {name: value}, {name: form}
            if first:
                begins = ("1", "1") if kind.startswith("uint") else VALUES[attributes[first]][0]
                written[first], kept[first] = begins
            yield written, kept


def as_rule(proto, written):
    words = " ".join(f"{k}={xml.sax.saxutils.quoteattr(v)}" for k, v in written.items())
    return f"<rule action='accept' direction='inout' statematch='false'><{proto} {words}/></rule>"


def wrong_values(proto, attributes):
    """All in one process of virsh, which goes on after an error."""
    files = [define(f"wrong-{name}", f"<rule action='drop' direction='in'><{proto} {name}='{VALUES[kind][-1]}'/></rule>") for name, kind in attributes.items()]
    done = subprocess.run(["virsh", "-q", "-c", f"qemu+unix:///system?socket={net.RUN}/libvirt-sock"], input="".join(f"nwfilter-define {f}\n" for f in files),
                          capture_output=True, text=True, timeout=600, check=False, env=net.ENV)
    for name in attributes:
        assert f"{proto}: {name}: '" in done.stderr, f"{proto} {name}: {done.stderr}"


def tracks():
    """Does this kernel know connections on bridges?"""
    return not run("nft", "add table bridge probe; add chain bridge probe c { type filter hook prerouting priority 0; }; add rule bridge probe c ct state new; "
                   "delete table bridge probe", ns=HOST, check=False).returncode


def test_schema():
    """Each attribute of each protocol of libvirt's schema: kept in its one form, a wrong value refused by its name; all but ipset become rules of the kernel."""
    found, parameters = protocols(), [("IP", "10.77.0.1"), ("IPV6", "fd00::7")]
    assert len(found) == 24 and sum(len(a) for a in found.values()) > 300, found
    assert {kind for a in found.values() for kind in a.values()} == set(VALUES)
    run("ip", "link", "add", "ta", "type", "veth", "peer", "name", "tx", ns=HOST)
    state = tracks()
    try:
        for proto, attributes in found.items():
            wrong_values(proto, attributes)
            written, kept = zip(*rows_of(attributes))
            virsh("nwfilter-define", define("rows", "".join(as_rule(proto, w) for w in written)))
            text = virsh("nwfilter-dumpxml", "rows").stdout
            shown = [dict(e.attrib) for e in xml.etree.ElementTree.fromstring(text).iter(proto)]
            assert shown == list(kept), f"{proto}: {[(s, k) for s, k in zip(shown, kept) if s != k]}"
            run("virt-xml-validate", write("shown.xml", text), "nwfilter")
            if "ipset" in attributes:
                refused("nftables cannot use sets of ipset", "nwfilter-binding-create", binding("rows", parameters))
            rows = [w for w in written if "ipset" not in w and (state or w.get("state", "NONE") == "NONE" and "connlimit-above" not in w)]
            virsh("nwfilter-define", define("rows", "".join(as_rule(proto, w) for w in rows)))
            virsh("nwfilter-binding-create", binding("rows", parameters))
            loaded = re.findall(r"chain (to|from)_(?:ip|l2_root) {\n(.*?)\n\t}", rules(), re.DOTALL)
            assert {way: len(re.findall(r"\baccept\b", text)) for way, text in loaded} == {"from": len(rows), "to": len(rows)}, f"{proto}: {len(rows)} rules in {rules()[:3000]}"
            virsh("nwfilter-binding-delete", "ta")
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        virsh("nwfilter-undefine", "rows", check=False)
        run("ip", "link", "del", "ta", ns=HOST, check=False)


# ---- beside libvirtd ----

SHIPPED = "/usr/share/libvirt/nwfilter"


class Libvirtd:
    """In the same network namespace, with empty folders over its places; the filters that it ships are its own."""

    PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt")

    def __init__(self):
        self.folder = os.path.join(net.WORK, "peer")
        os.makedirs(self.folder + "/run")
        config = write("peer/conf", f'unix_sock_dir = "{self.folder}/run"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\n')
        binds = []
        for place in self.PLACES:
            os.makedirs(self.folder + "/places" + place)
            os.makedirs(place, exist_ok=True)
            if place == "/etc/libvirt" and os.path.isdir(SHIPPED):
                shutil.copytree(SHIPPED, self.folder + "/places/etc/libvirt/nwfilter")
            binds.append(f"mount --bind {self.folder}/places{place} {place}")
        script = " && ".join([*binds, f"exec libvirtd -f {config} -p {self.folder}/pid"])
        self.process = subprocess.Popen(["ip", "netns", "exec", HOST, "unshare", "-m", "sh", "-c", script], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=net.ENV)
        wait_for("libvirtd", lambda: self.process.poll() is not None or not self.virsh("nwfilter-list").returncode)
        if self.process.poll() is not None:
            raise tap.Skip("libvirtd does not run here")

    def virsh(self, *words):
        return run("virsh", "-c", f"nwfilter:///system?socket={self.folder}/run/libvirt-sock", *words, check=False)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


def meaning(text):
    """Elements and what they say, in their order; identities and priorities that nobody gave aside, numbers as such."""
    return [(e.tag, sorted((k, str(int(v, 16)) if v.startswith("0x") else v.lower()) for k, v in e.attrib.items() if k != "priority"), (e.text or "").strip() if e.tag != "uuid" else "")
            for e in xml.etree.ElementTree.fromstring(text).iter()]


def priorities(text):
    """Of a filter's chain, where it is not the root, and of each rule."""
    top = xml.etree.ElementTree.fromstring(text)
    return [top.get("priority") if top.get("chain") != "root" else None, *(e.get("priority", "500") for e in top.iter("rule"))]


BESIDE = {
    "ports": "<rule action='accept' direction='in' priority='100'><tcp srcipaddr='10.1.2.0' srcipmask='24' dstportstart='22' dstportend='25'/></rule>"
             "<rule action='drop' direction='inout' statematch='false'><all/></rule>",
    "layers": "<rule action='return' direction='out' priority='-5'><mac srcmacaddr='$MAC' protocolid='arp'/></rule>"
              "<rule action='drop' direction='out'><arp arpsrcipaddr='$IP' opcode='Request' gratuitous='true'/></rule>"
              "<rule action='drop' direction='in'><ipv6 srcipaddr='2001:db8::1' protocol='icmpv6' type='134'/></rule>",
    "state": "<rule action='accept' direction='in'><tcp state='NEW,ESTABLISHED' flags='SYN/SYN' connlimit-above='2'/></rule>"
             "<rule action='reject' direction='out'><udp match='no' srcipaddr='10.9.9.9'/></rule>",
    "lists": "<filterref filter='ports'><parameter name='IP' value='10.0.0.1'/><parameter name='IP' value='10.0.0.2'/></filterref>"
             "<rule action='accept' direction='out'><ip srcipaddr='$IP[@1]' dstportstart='$PORT[1]' protocol='udp'/></rule>",
}
WRONG = {
    "action": "<rule action='run' direction='in'><tcp/></rule>", "direction": "<rule action='drop' direction='up'><tcp/></rule>",
    "circle": "<filterref filter='circle'/>", "no-name": "<filterref/>",
}


def test_beside():
    """The same commands to libvirtd: the same status, the same meaning of what is stored."""
    if not shutil.which("libvirtd", path=net.ENV["PATH"]):
        raise tap.Skip("libvirtd is not installed")
    peer = Libvirtd()
    try:
        def both(*words, good=True):
            ours, theirs = virsh(*words, check=False), peer.virsh(*words)
            assert (ours.returncode == 0) == good == (theirs.returncode == 0), f"{words}: ours {ours}, theirs {theirs}"
            return ours.stdout, theirs.stdout
        for name, inside in BESIDE.items():
            ours, theirs = both("nwfilter-define", define(name, inside))
            assert ours == theirs
            ours, theirs = (meaning(text) for text in both("nwfilter-dumpxml", name))
            assert ours == theirs, f"{ours}\n{theirs}"
        for name, inside in WRONG.items():
            both("nwfilter-define", define(name, inside), good=False)
        ours, theirs = (set(re.findall(r"[0-9a-f-]{36} +(\S+)", text)) for text in both("nwfilter-list"))
        shipped = {name.removesuffix(".xml") for name in os.listdir(SHIPPED)} if os.path.isdir(SHIPPED) else set()
        assert set(BESIDE) | shipped <= ours & theirs, (ours, theirs)
        for name in sorted(shipped):
            ours, theirs = ((meaning(text), priorities(text)) for text in both("nwfilter-dumpxml", name))
            assert ours == theirs, f"{name}:\n{ours}\n{theirs}"
        for name in reversed(BESIDE):
            ours, theirs = both("nwfilter-undefine", name)
            assert ours == theirs
            both("nwfilter-dumpxml", name, good=False)
        ours, theirs = both("nwfilter-binding-list")
        assert ours == theirs
        for command in ("nwfilter-binding-dumpxml", "nwfilter-binding-delete"):
            both(command, "ta", good=False)
    finally:
        peer.stop()
        for name in reversed(BESIDE):
            virsh("nwfilter-undefine", name, check=False)


def test_killed():
    """Interfaces keep their rules when the manager is killed; the rules of those that are gone go at its start."""
    before = rules()
    plugged()
    try:
        virsh("nwfilter-binding-create", binding("clean-traffic", [IP]))
        right = rules()
        net.MANAGER.end(signal.SIGKILL)
        net.MANAGER.start()
        assert "clean-traffic" in virsh("nwfilter-binding-list").stdout and heard(EVERYTHING) == set(HONEST)
        wait_for("the same rules", lambda: rules() == right)
        net.MANAGER.end(signal.SIGKILL)
        unplugged()
        net.MANAGER.start()
        wait_for("no rules", lambda: rules() == before)
        assert "ta " not in virsh("nwfilter-binding-list").stdout
    finally:
        virsh("nwfilter-binding-delete", "ta", check=False)
        unplugged()


def test_machine():
    """A machine's tap has its filter while it runs, however it ends."""
    run("ip", "link", "add", "br7", "type", "bridge", ns=HOST)
    before = rules()
    ref = "<filterref filter='clean-traffic'><parameter name='IP' value='10.77.0.1'/></filterref>"
    try:
        done = net.machine("m", "bridge", "bridge='br7'", ref.replace("clean-traffic", "nowhere"))
        assert done.returncode and "nowhere" in done.stderr and rules() == before, done.stderr
        for end in ("destroy", "crash", "while the manager is dead"):
            done = net.machine("m", "bridge", "bridge='br7'", ref)
            assert not done.returncode, done.stderr
            dev = re.search(r"<target dev='(vnet\d+)'/>", virsh("dumpxml", "m").stdout).group(1)
            assert f"table bridge ruche_nwf_{dev}" in rules() and dev in virsh("nwfilter-binding-list").stdout
            with open(f"{net.RUN}/machines/{virsh('domuuid', 'm').stdout.strip()}/process", encoding="ascii") as f:
                pid = int(f.read())
            if end == "destroy":
                virsh("destroy", "m")
            elif end == "crash":
                os.kill(pid, signal.SIGKILL)
            else:
                net.MANAGER.end(signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
                net.MANAGER.start()
            wait_for("no rules after " + end, lambda: rules() == before)
            wait_for("its end", lambda: "shut off" in virsh("domstate", "m").stdout)
            assert dev not in virsh("nwfilter-binding-list").stdout
    finally:
        virsh("destroy", "m", check=False)
        virsh("undefine", "m", check=False)
        run("ip", "link", "del", "br7", ns=HOST, check=False)


def main():
    tests = {"forged frames": test_forged, "update": test_update, "gratuitous": test_gratuitous, "ruche": test_ruche, "address by DHCP": test_address, "address by frames": test_learned, "address by another's DHCP": test_snooped, "schema": test_schema, "virsh": test_virsh, "beside libvirtd": test_beside, "killed": test_killed,
             "machine": test_machine}
    namespaces.main(tests, sys.argv[5:], ("ip", "nft", "dnsmasq", "busybox", "virsh", "virt-xml-validate"), net.begin, net.end)


if __name__ == "__main__":
    main()
