#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces of the host: ruched in a network namespace of its own, another as the world behind its card.

    interface.py RUCHED RUCHE

Nothing of this host's own network is touched. What the kernel lacks (bonds, VLANs) is refused by the module's name; where it has
them, tests/system/inside/interface.py tries them.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tap  # noqa: E402

RUCHED, RUCHE = (os.path.abspath(p) for p in sys.argv[1:3])
WORK = tempfile.mkdtemp(prefix="ruche-interface-")
os.chmod(WORK, 0o755)
RUN, STATE, BIN, TREE = (os.path.join(WORK, x) for x in ("run", "state", "bin", "tree"))
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "NODE_SYSFS": TREE,
       "PATH": BIN + ":" + os.environ["PATH"] + ":/usr/sbin:/sbin"}
HOST, WORLD = f"ri{os.getpid()}h", f"ri{os.getpid()}w"
SCHEMA = "/usr/share/libvirt/schemas/interface.rng"
GATEWAY, GATEWAY6 = "198.51.100.1", "2001:db8:77::1"
MANAGER = None
UDHCPC = """#!/bin/sh
case $1 in
deconfig) ip addr flush dev $interface scope global;;
bound|renew) ip addr add $ip/$mask dev $interface; [ -n "$router" ] && ip route replace default via $router dev $interface;;
esac
"""


# ---- ground ----

def run(*command, ns=None, check=True, timeout=120, stdin=None):
    words = (["ip", "netns", "exec", ns] if ns else []) + list(command)
    more = {"input": stdin} if stdin is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, env=ENV, **more)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-500:]}{done.stderr[-800:]}")
    return done


def ip(*words, ns=HOST):
    return run("ip", *words, ns=ns).stdout


def wait_for(what, fn, seconds=60):
    until = time.monotonic() + seconds
    while not fn():
        assert time.monotonic() < until, f"{what}: waited {seconds} s in vain"
        time.sleep(0.05)


def write(name, text, mode=0o644):
    where = os.path.join(WORK, name)
    os.makedirs(os.path.dirname(where), exist_ok=True)
    with open(where, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(where, mode)
    return where


class Manager:
    def __init__(self):
        self.process = None
        self.config = write("conf", "[libvirt]\nusual_place=false\n")
        self.start()

    def start(self):
        with open(os.path.join(WORK, "log"), "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(["ip", "netns", "exec", HOST, RUCHED, "--system", "--config", self.config, "--runtime-dir", RUN,
                                             "--state-dir", STATE], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=ENV)
        wait_for("ruched", lambda: self.process.poll() is not None or not virsh("uri", check=False).returncode)
        assert self.process.poll() is None, self.log()

    def log(self):
        with open(os.path.join(WORK, "log"), encoding="utf-8") as f:
            return f.read()

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(120)


def virsh(*command, check=True):
    return run("virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "-q", *command, check=check)


def say(*command):
    return virsh(*command).stdout.strip()


def destroy(name):
    """virsh 9.0.0 says that it is done, and ends with 1."""
    done = run("virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "iface-destroy", name, check=False)
    assert f"Interface {name} destroyed" in done.stdout, done.stdout + done.stderr


def refused(part, *command):
    done = virsh(*command, check=False)
    assert done.returncode and re.search(part, done.stderr), f"{command}: not refused with '{part}': {done.stdout}{done.stderr}"


def ruche(*command, check=True):
    return run(RUCHE, "--connect", f"{RUN}/ruche.sock", *command, check=check)


def define(xml):
    return say("iface-define", write("i.xml", xml))


def described(name, *more):
    """What the schema accepts."""
    text = say("iface-dumpxml", name, *more)
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
        f"{r['dst']} {r.get('gateway')} {r['dev']}" for r in routes if r.get("protocol") != "kernel")


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
    write("bin/udhcpc", f"#!/bin/sh\nexec {shutil.which('busybox')} udhcpc -s {WORK}/bin/script \"$@\"\n", 0o755)
    write("bin/script", UDHCPC, 0o755)


def clean():
    for ns in (HOST, WORLD):
        for pid in run("ip", "netns", "pids", ns, check=False).stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", ns, check=False)
    shutil.rmtree(WORK, ignore_errors=True)


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


def test_dhcp():
    before = state()
    run("ip", "addr", "add", "10.6.0.1/24", "dev", "w1", ns=WORLD)
    define("<interface type='ethernet' name='card0'><protocol family='ipv4'><dhcp/></protocol></interface>")
    with open(os.path.join(WORK, "dnsmasq.log"), "w", encoding="utf-8") as log:
        server = subprocess.Popen(["ip", "netns", "exec", WORLD, "dnsmasq", "-k", "-p", "0", "-i", "w1", "-z", "--dhcp-range=10.6.0.50,10.6.0.60",
                                   f"--dhcp-leasefile={WORK}/leases", "--dhcp-authoritative", "--conf-file=/dev/null", "--user=root",
                                   f"--pid-file={WORK}/dnsmasq.pid", "--dhcp-option=3"], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        say("iface-start", "card0")
        assert len(addresses("card0")) == 1 and addresses("card0").pop().startswith("10.6.0.5"), addresses("card0")
        pid = client()
        assert pid
        MANAGER.end()
        assert client() == pid
        MANAGER.start()
        assert client() == pid
        os.kill(pid, signal.SIGKILL)
        wait_for("another client", lambda: client() not in (0, pid))
        wait_for("its address", lambda: any(a.startswith("10.6.0.5") for a in addresses("card0")))
        destroy("card0")
        assert not client() and state() == before, state()
    finally:
        server.kill()
        server.wait()
    say("iface-undefine", "card0")
    run("ip", "addr", "flush", "dev", "w1", ns=WORLD)


def client():
    """The process that asks for card0's address; 0: none."""
    for pid in run("ip", "netns", "pids", HOST).stdout.split():
        try:
            with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as f:
                words = f.read().split("\0")
        except OSError:
            continue
        if "udhcpc" in words and "card0" in words and not tap.has_ended(int(pid)):
            return int(pid)
    return 0


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


def event(kind, act):
    """What virsh is told first, while act() is done again and again."""
    words = ["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "nodedev-event", "--event", kind, "--timeout", "120"]
    with subprocess.Popen(words, env=ENV, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as client_:
        while client_.poll() is None:
            act()
            time.sleep(0.3)
        return client_.stdout.read()


def test_device_events():
    """A card comes, changes and goes: what the kernel tells."""
    def come():
        if "ev0" not in ip("link"):
            ip("link", "add", "ev0", "type", "veth", "peer", "name", "ev1")

    def go():
        come()
        time.sleep(0.3)
        ip("link", "del", "ev0")

    assert re.search(r"event 'lifecycle' for node device net_ev[01]_\S+: (Created|Deleted)", event("lifecycle", go))
    come()
    told = event("update", lambda: run("sh", "-c", "echo change >/sys/class/net/ev0/uevent", ns=HOST))
    assert re.search("event 'update' for node device net_ev0_", told), told
    assert "net_ev0_" in say("nodedev-list")
    go()


def main():
    global MANAGER
    tests = {"look": test_look, "bridge": test_bridge, "moved addresses": test_move, "lost gateway": test_lost_gateway, "ethernet": test_ethernet,
             "errors": test_errors, "missing modules": test_missing_modules, "change": test_change, "change, killed": test_change_killed,
             "killed": test_killed, "dhcp": test_dhcp, "webvirtcloud": test_webvirtcloud,
             "ruche interface": test_command, "device events": test_device_events}
    tests = {n: t for n, t in tests.items() if not sys.argv[3:] or n in sys.argv[3:]}
    missing = [p for p in ("ip", "dnsmasq", "busybox", "virsh", "xmllint") if not shutil.which(p, path=ENV["PATH"])]
    if os.geteuid() or missing:
        why = "needs root" if os.geteuid() else f"{missing[0]} is not installed"

        def skip():
            raise tap.Skip(why)
        tap.run({n: skip for n in tests})
    try:
        build_world()
        MANAGER = Manager()
        tap.run(tests)
    finally:
        if MANAGER and MANAGER.process.poll() is None:
            MANAGER.end()
        if os.environ.get("KEEP_LOG"):
            sys.stderr.write(MANAGER.log())
        clean()


if __name__ == "__main__":
    main()
