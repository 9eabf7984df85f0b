#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each of virsh's commands for networks and filters once against ruched, beside Debian's libvirtd, each in a network namespace
of its own; limits of ports, rates that are promised, pools of PCI functions. TAP.

    virsh_network.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL
"""
import os
import re
import shutil
import subprocess
import sys

if os.geteuid() == 0 and not os.environ.get("IN_NAMESPACE") and shutil.which("unshare"):
    os.environ["IN_NAMESPACE"] = "yes"
    os.execvp("unshare", ["unshare", "-n", "--", sys.executable, *sys.argv])

import libvirt  # noqa: E402
import network_rows  # noqa: E402
import tap  # noqa: E402
import virsh_commands as base  # noqa: E402
from libvirt_rpc import Daemon  # noqa: E402
from virsh_commands import ALONE, FORM, STATUS, UUID, WORK  # noqa: E402

MAC, PORT = "52:54:00:11:22:33", "5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a02"
LAB = f"""<network><name>lab</name><uuid>{UUID}</uuid><forward mode='open'/><bridge name='lab0' stp='on' delay='0'/><mac address='52:54:00:aa:00:01'/>
<ip address='192.168.140.1' netmask='255.255.255.0'><dhcp><range start='192.168.140.100' end='192.168.140.150'/></dhcp></ip></network>"""
base.FILES = {
    "lab.xml": LAB,
    "lent.xml": "<network><name>lent</name><forward mode='bridge'/><bridge name='nobr'/></network>",
    "bad.xml": "<network><name>bad</name><forward mode='nat'/><ip address='192.168.151.1' prefix='24'><dhcp><range start='10.0.0.1' end='10.0.0.9'/></dhcp></ip></network>",
    "port.xml": f"<networkport><uuid>{PORT}</uuid><owner><name>m</name><uuid>{UUID}</uuid></owner><mac address='{MAC}'/></networkport>",
    "filter.xml": f"<filter name='mine' chain='root'><uuid>{UUID}</uuid><rule action='drop' direction='out' priority='500'><mac srcmacaddr='{MAC}'/></rule></filter>",
    "binding.xml": f"<filterbinding><owner><name>m</name><uuid>{UUID}</uuid></owner><portdev name='nix0'/><mac address='{MAC}'/><filterref filter='nix'/></filterbinding>",
}
ADD, LIVE = "net-update lab add", "--live --config"
NETWORKS = (
    ("net-define @lab.xml --validate", r"^Network lab defined from", FORM), ("net-define @bad.xml", "!bad|10.0.0.1|range", STATUS),
    ("net-list --all", r"^ lab +inactive +no +yes$", ALONE),  # ours has 'default' from its first start
    ("net-list --inactive --name", "^lab$", ALONE), ("net-info lab", r"^Name: +lab\nUUID: +8f0f8a9e.*\nActive: +no\nPersistent: +yes\nAutostart: +no\nBridge: +lab0$", FORM),
    ("net-uuid lab", UUID, FORM), (f"net-name {UUID}", "^lab$", FORM), ("net-dumpxml lab", "<forward mode='open'/>", FORM),
    ("net-dumpxml lab --inactive", "<bridge name='lab0' stp='on' delay='0'/>", FORM), ("net-edit lab", "not changed", FORM),
    ("net-autostart lab", "marked as autostarted", FORM), ("net-autostart lab --disable", "unmarked as autostarted", FORM), ("net-start lab", "^Network lab started$", FORM),
    ("net-start lab", "!already active", STATUS), ("net-list", r"^ lab +active +no +yes$", FORM), ("net-info lab", r"^Active: +yes$", FORM),
    ("net-dumpxml lab", "<range start='192.168.140.100' end='192.168.140.150'/>", FORM), ("net-dhcp-leases lab", r"^ Expiry Time +MAC address +Protocol", FORM),
    (f"{ADD} ip-dhcp-host <host/mac='{MAC}'/ip='192.168.140.20'/name='m'/> {LIVE}", "^Updated network lab", FORM),
    (f"{ADD} ip-dhcp-host <host/mac='{MAC}'/ip='192.168.140.21'/> --live", "!already|existing", STATUS),
    (f"net-update lab modify ip-dhcp-host <host/mac='{MAC}'/ip='192.168.140.22'/> {LIVE}", "^Updated", FORM), (f"net-update lab delete ip-dhcp-host <host/mac='{MAC}'/> {LIVE}", "^Updated", FORM),
    (f"net-update lab add-first ip-dhcp-range <range/start='192.168.140.50'/end='192.168.140.60'/> {LIVE}", "^Updated", FORM),
    (f"{ADD} dns-host <host/ip='192.168.140.9'><hostname>nine</hostname></host> {LIVE}", "^Updated", FORM),
    (f"{ADD} dns-txt <txt/name='x'/value='y'/> {LIVE}", "^Updated", FORM), (f"{ADD} dns-srv <srv/service='ldap'/protocol='tcp'/> {LIVE}", "^Updated", FORM),
    (f"{ADD} portgroup <portgroup/name='eng'/default='yes'><bandwidth><inbound/average='10'/></bandwidth></portgroup> {LIVE}", "^Updated", FORM), (f"{ADD} bridge <bridge/name='x'/> --live", "!", STATUS),
    ("net-dumpxml lab", "<hostname>nine</hostname>", FORM), ("net-dumpxml lab --inactive", "<hostname>nine</hostname>", FORM), ("net-port-list lab", r"^ UUID$", FORM),
    ("net-port-create lab @port.xml", f"^Network port {PORT} created from", FORM), ("net-port-list lab", f"^ {PORT}$", FORM),
    (f"net-port-dumpxml lab {PORT}", f"<mac address='{MAC}'/>", FORM), (f"net-port-delete lab {PORT}", f"^Network port {PORT} deleted", FORM),
    (f"net-port-dumpxml lab {PORT}", "failed to get network port", STATUS), ("net-event --list", "^lifecycle$", FORM), ("net-event lab --event lifecycle --timeout 1", "!timed out", FORM),
    ("net-destroy lab", "^Network lab destroyed$", FORM), ("net-destroy lab", "!not active", STATUS), ("net-undefine lab", "^Network lab has been undefined$", FORM),
    ("net-info lab", "!network 'lab'", STATUS), ("net-create @lab.xml --validate", "^Network lab created from", FORM), ("net-info lab", r"^Persistent: +no$", FORM),
    ("net-autostart lab", "!transient", STATUS), ("net-destroy lab", "destroyed", FORM), ("net-create @lent.xml", "created", FORM), ("net-dumpxml lent", "<bridge name='nobr'/>", FORM),
    ("net-destroy lent", "destroyed", FORM),
)
FILTERS = (
    ("nwfilter-define @filter.xml --validate", "^Network filter mine defined from", FORM), ("nwfilter-list", rf"^ {UUID}   mine$", ALONE),  # both have filters of their own
    ("nwfilter-dumpxml mine", f"<mac srcmacaddr='{MAC}'/>", FORM), ("nwfilter-dumpxml nix", "!nix", STATUS), ("nwfilter-edit mine", "not changed", FORM),
    ("nwfilter-binding-list", r"^ Port Dev   Filter$", FORM), ("nwfilter-binding-create @binding.xml", "!nix", ALONE),  # the peer takes a filter that is not there
    ("nwfilter-binding-dumpxml nix0", "!nix0", ALONE), ("nwfilter-binding-delete nix0", "!nix0", ALONE), ("nwfilter-undefine mine", "^Network filter mine undefined$", FORM), ("nwfilter-undefine mine", "!mine", STATUS),
)


class Words:
    """'/' in an element of a row is a blank, so that rows are split at theirs alone."""

    def virsh(self, line):
        words = [w.replace("/", " ").replace(" >", "/>").replace("< ", "</") if w.startswith("<") else w for w in self.fill(line).split()]
        done = subprocess.run(["virsh", "-c", self.uri, *words], capture_output=True, text=True, timeout=600, check=False, env=base.ENV, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr


class Ours(Words, base.Ours):
    pass


class Libvirtd(Words, base.Libvirtd):
    UNSHARE = ("unshare", "-m", "-n")


# ---- ports ----

def tc(*words):
    return subprocess.run(["tc", *words], capture_output=True, text=True, check=True).stdout


def fails(part, fn, *args):
    try:
        fn(*args)
    except libvirt.libvirtError as e:
        assert part in str(e), f"'{part}' is not in: {e}"
        return
    raise AssertionError(f"not refused with '{part}'")


NO_LIMITS = {f"{way}.{what}": 0 for way in ("inbound", "outbound") for what in ("average", "peak", "floor", "burst") if way == "inbound" or what != "floor"}


def port_xml(number, more=""):
    return (f"<networkport><owner><name>m{number}</name><uuid>{UUID[:-1]}{number}</uuid></owner><mac address='52:54:00:11:22:{number:02x}'/>"
            f"{more}</networkport>")


def promise(kib):
    return f"<bandwidth><inbound average='{kib}' floor='{kib}'/></bandwidth>"


def limits_of_ports(ours):
    """Parameters read and set; what is promised is a class of the bridge, and no more than there is."""
    c = libvirt.open(ours.uri)
    net = c.networkCreateXML("<network><name>lim</name><bridge name='lim0' stp='off'/><bandwidth><inbound average='1000' peak='2000' burst='256'/></bandwidth></network>")
    try:
        plain = tc("class", "show", "dev", "lim0")
        assert plain.count("class htb") == 1, plain
        one = net.portCreateXML(port_xml(1, promise(600)))
        two = net.portCreateXML(port_xml(2, promise(400)))
        shown = tc("class", "show", "dev", "lim0")
        assert shown.count("class htb") == 4 and "class htb 1:2 parent 1:1" in shown, shown
        assert re.search(r"htb 1:[34] parent 1:1 .*rate 4915Kbit ceil 16384Kbit", shown), shown
        found = tc("filter", "show", "dev", "lim0")
        assert "00005254/0000ffff at -16" in found and "00112201/ffffffff at -12" in found, found
        fails("more than its inbound 2000", net.portCreateXML, port_xml(3, promise(1001)))
        assert one.parameters() == {**NO_LIMITS, "inbound.average": 600, "inbound.floor": 600}, one.parameters()
        fails("more than its inbound 2000", one.setParameters, {"inbound.floor": 1700})
        one.setParameters({"inbound.floor": 800, "outbound.average": 50})
        assert one.parameters()["inbound.floor"] == 800 and one.parameters()["outbound.average"] == 50
        assert "<outbound average='50'/>" in one.XMLDesc() and "floor='800'" in one.XMLDesc(), one.XMLDesc()
        assert "rate 6553" in tc("class", "show", "dev", "lim0")
        fails("chosen by the network", net.portCreateXML, port_xml(3, "<plug type='network' bridge='lim0'/>"))
        one.setParameters({"inbound.floor": 0, "inbound.average": 0, "outbound.average": 0})
        assert one.parameters() == NO_LIMITS and "bandwidth" not in one.XMLDesc(), one.XMLDesc()
        one.delete()
        two.delete()
        assert tc("class", "show", "dev", "lim0") == plain
        fails("a floor is for", c.networkDefineXML, "<network><name>f</name><bandwidth><inbound average='10' floor='5'/></bandwidth></network>")
    finally:
        net.destroy()
    open_net = c.networkCreateXML("<network><name>none</name><bridge name='none0'/></network>")
    fails("has no <bandwidth>", open_net.portCreateXML, port_xml(1, promise(5)))
    open_net.destroy()
    c.close()


# ---- pools of PCI functions ----

FUNCTION = "<address type='pci' domain='0x0000' bus='0x05' slot='0x10' function='0x{:x}'/>"


def pci_pools():
    """Functions named by their addresses, or by the interface of the physical one, on a /sys of the test's own."""
    device = os.path.join(WORK, "sysfs/sys/class/net/pf0/device")
    os.makedirs(device)
    for number in range(3):
        os.symlink(f"../0000:05:11.{number}", f"{device}/virtfn{number}")
        os.makedirs(f"{os.path.dirname(device)}/0000:05:11.{number}/net/vf{number}")
    daemon = Daemon(base.RUCHED, f"[machines]\nvmm={base.VMM}\n", env={"NODE_SYSFS": os.path.join(WORK, "sysfs")})
    c = libvirt.open(f"qemu+unix:///system?socket={daemon.socket}")
    try:
        text = f"<network><name>pool</name><forward mode='hostdev' managed='yes'><driver name='vfio'/>{FUNCTION.format(1)}{FUNCTION.format(3)}</forward></network>"
        fails("ridge", c.networkDefineXML, text.replace("</forward>", "</forward><bridge name='x'/>"))
        pool = c.networkCreateXML(text)
        one, two = (pool.portCreateXML(port_xml(n)) for n in (1, 2))
        assert "<plug type='hostdev-pci' managed='yes'>" in one.XMLDesc() and "<driver name='vfio'/>" in one.XMLDesc(), one.XMLDesc()
        assert [re.search("function='(0x.)'", p.XMLDesc()).group(1) for p in (one, two)] == ["0x1", "0x3"]
        fails("all its 2 PCI functions are taken", pool.portCreateXML, port_xml(3))
        assert pool.XMLDesc().count("connections='1'") == 2 and "connections='2'" in pool.XMLDesc(), pool.XMLDesc()
        with open(os.path.join(WORK, "port.xml"), "w", encoding="ascii") as f:
            f.write(one.XMLDesc())
        done = subprocess.run(["virt-xml-validate", f.name, "networkport"], text=True, check=False, capture_output=True)
        assert not done.returncode, one.XMLDesc() + done.stderr
        one.delete()
        assert "function='0x1'" in pool.portCreateXML(port_xml(3)).XMLDesc()
        physical = c.networkCreateXML("<network><name>physical</name><forward mode='hostdev'><pf dev='pf0'/></forward></network>")
        taken = [re.search("slot='(.*?)' function='(.*?)'", physical.portCreateXML(port_xml(n)).XMLDesc()).groups() for n in (4, 5, 6)]
        assert taken == [("0x11", f"0x{n}") for n in range(3)], taken
        fails("all its 3", physical.portCreateXML, port_xml(7))
        lent = c.networkCreateXML("<network><name>lent</name><forward mode='passthrough'><pf dev='pf0'/></forward></network>")
        taken = [re.search("<plug type='direct' dev='(.*?)' mode='passthrough'/>", lent.portCreateXML(port_xml(n)).XMLDesc()).group(1) for n in (4, 5, 6)]
        assert taken == ["vf0", "vf1", "vf2"] and "<pf dev='pf0' connections='3'/>" in lent.XMLDesc(), taken
        fails("all its 3 interfaces are taken", lent.portCreateXML, port_xml(7))
        nothing = c.networkCreateXML("<network><name>nothing</name><forward mode='hostdev'><pf dev='nix'/></forward></network>")
        fails("has no virtual functions", nothing.portCreateXML, port_xml(7))
    finally:
        c.close()
        daemon.stop()


def make_tests(ours, beside):
    return {"networks": lambda: base.try_rows(NETWORKS, ours, beside), "filters": lambda: base.try_rows(FILTERS, ours, beside),
            "no command is forgotten": lambda: base.all_have_rows(("network", "filter"), NETWORKS + FILTERS),
            "descriptions, row by row": lambda: network_rows.try_all(ours.uri, beside and beside.uri, WORK), "limits of ports": lambda: limits_of_ports(ours), "pools of PCI functions": pci_pools}


def skip():
    raise tap.Skip("needs root")


if os.geteuid():
    tap.run({name: skip for name in make_tests(None, None)})
base.run_beside(make_tests, Ours, Libvirtd)
