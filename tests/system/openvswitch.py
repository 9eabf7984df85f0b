#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines on bridges of a real Open vSwitch (its datapath in user space), in a network namespace of its own. TAP.

    openvswitch.py RUCHED RUCHE RUCHE-VMM KERNEL

Taps of machines have two queues here: the test opens one itself, and so sends frames as the machine.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import network as ground  # noqa: E402
import libvirt  # noqa: E402
import tap  # noqa: E402
from network import HOST, RUN, WORK, refused, run, virsh, wait_for, write  # noqa: E402

PLACE = os.path.join(WORK, "ovs")
DB = f"unix:{PLACE}/db.sock"
OVS_ENV = {"OVS_RUNDIR": PLACE, "OVS_LOGDIR": PLACE, "OVS_DBDIR": PLACE}
PORTID = "0a1b2c3d-0000-4000-8000-{:012x}"
OVS = "<virtualport type='openvswitch'/>"

# In the switch's namespace: each machine sends its frames, then all send marks; who got which frame is printed when all marks are
# there that are to come. A row of the input: tap, [[VLAN or 0, text], ...]; marks: how many come to each tap.
PROBE = """
import fcntl, json, os, select, socket, struct, sys, time
TYPE = 0x88b5
rows, marks = json.load(sys.stdin)
ears, mouths = {}, {}
for name in rows:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((name, 0))
    s.setsockopt(263, 8, 1)
    ears[s] = name
    fd = os.open('/dev/net/tun', os.O_RDWR)
    fcntl.ioctl(fd, 0x400454ca, struct.pack('16sH22x', name.encode(), 0x2 | 0x1000 | 0x4000 | 0x100))
    size = bytearray(4)
    fcntl.ioctl(fd, 0x800454d7, size)
    mouths[name] = fd, int.from_bytes(size, 'little')
def say(name, vlan, text):
    fd, header = mouths[name]
    tag = struct.pack('>HH', 0x8100, vlan) if vlan else b''
    frame = b'\\xff' * 6 + b'\\x52\\x54\\x00' + name.encode()[-3:] + tag + struct.pack('>H', TYPE) + text.encode()
    os.write(fd, bytes(header) + frame.ljust(64, b'\\0'))
got = {name: [] for name in rows}
def listen(s):
    data, more, _, (_, _, kind, *_) = s.recvmsg(2000, 200)
    if kind != 4:
        return
    vlan = 0
    for _, what, aux in more:
        if what == 8 and struct.unpack('I', aux[:4])[0] & 0x10:
            vlan = struct.unpack('HH', aux[16:20])[0] & 0xfff
    at = 12
    if data[at:at + 2] == b'\\x81\\x00':
        vlan, at = struct.unpack('>H', data[14:16])[0] & 0xfff, 16
    if data[at:at + 2] == struct.pack('>H', TYPE):
        got[ears[s]].append([vlan, data[at + 2:].rstrip(b'\\0').decode()])
for name, frames in rows.items():
    for vlan, text in frames:
        say(name, vlan, text)
end = time.monotonic() + 60
def count(name):
    return sum(text.startswith('mark') for _, text in got[name])
for name in rows:
    for vlan in (0, 7, 8):
        say(name, vlan, f'mark{name}{vlan}')
while any(count(n) < marks[n] for n in rows) and time.monotonic() < end:
    for s in select.select(list(ears), [], [], 1)[0]:
        listen(s)
print(json.dumps({n: sorted(x for x in f if not x[1].startswith('mark')) for n, f in got.items()}))
"""


def certificates():
    """Two CAs; the first has signed the server's and the manager's, the second another one for the manager."""
    for name, signer in (("ca", None), ("server", "ca"), ("manager", "ca"), ("other-ca", None), ("stranger", "other-ca")):
        at = f"{PLACE}/{name}"
        run("certtool", "--generate-privkey", "--key-type=ecdsa", f"--outfile={at}.key", "--no-text")
        write("template", f"cn={name}\nexpiration_days=3\n" + ("tls_www_server\ntls_www_client\nsigning_key\n" if signer else "ca\ncert_signing_key\n"))
        more = [f"--load-ca-certificate={PLACE}/{signer}.pem", f"--load-ca-privkey={PLACE}/{signer}.key"] if signer else []
        run("certtool", "--generate-certificate" if signer else "--generate-self-signed", f"--load-privkey={at}.key", f"--template={WORK}/template",
            f"--outfile={at}.pem", *more)


class Switch:
    """ovsdb-server and ovs-vswitchd, with all that they write in a folder of the run's own."""

    def __init__(self):
        os.makedirs(PLACE, exist_ok=True)
        self.processes = {}
        certificates()
        run("ovsdb-tool", "create", f"{PLACE}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema", env=OVS_ENV)
        self.start_database()
        vsctl("--no-wait", "init")
        self.start("ovs-vswitchd", DB, "--disable-system")
        vsctl("--timeout=60", "add-br", "obr0", "--", "set", "bridge", "obr0", "datapath_type=netdev")

    def start(self, program, *options):
        with open(f"{PLACE}/{program}.out", "a", encoding="utf-8") as log:
            self.processes[program] = subprocess.Popen(
                ["ip", "netns", "exec", HOST, program, *options, "--unixctl", f"{PLACE}/{program}.ctl", "-vsyslog:off", "-vfile:off"],
                env={**ground.ENV, **OVS_ENV}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=PLACE)

    def start_database(self):
        self.start("ovsdb-server", f"{PLACE}/conf.db", f"--remote=p{DB}", "--remote=pssl:6640:127.0.0.1", f"--private-key={PLACE}/server.key",
                   f"--certificate={PLACE}/server.pem", f"--ca-cert={PLACE}/ca.pem")
        wait_for("the database", lambda: not run("ovsdb-client", "list-dbs", DB, check=False).returncode)

    def end(self, program):
        process = self.processes.pop(program)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def vsctl(*words, check=True):
    return run("ovs-vsctl", f"--db={DB}", *words, ns=HOST, env=OVS_ENV, check=check).stdout.strip()


def ports():
    return sorted(vsctl("list-ports", "obr0").split())


def row(table, name, *columns):
    done = json.loads(vsctl("--format=json", "--columns=" + ",".join(columns), "find", table, f"name={name}"))
    return dict(zip(done["headings"], done["data"][0]))


def rows_of_limits():
    return vsctl("--columns=_uuid", "find", "QoS") + vsctl("--columns=_uuid", "find", "Queue")


def describe(name, number, interface):
    return f"""<domain type='qemu'><name>{name}</name><uuid>{PORTID.format(number + 256)}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>{ground.KERNEL}</kernel></os><devices><emulator>{ground.VMM}</emulator>{interface}
<memballoon model='none'/></devices></domain>"""


def interface(number, source="<source bridge='obr0'/>", more=OVS, kind="bridge"):
    return f"""<interface type='{kind}'><mac address='52:54:00:00:07:{number:02x}'/>{source}{more}<target dev='tap00{number}'/><model type='virtio'/>
<driver queues='2'/></interface>"""


def start(name, number, *words, check=True, **more):
    return virsh("create", write(name + ".xml", describe(name, number, interface(number, *words, **more))), check=check)


def stop(*names):
    for name in names:
        virsh("destroy", name, check=False)
    wait_for("ports that are gone", lambda: not ports())


# ---- tests ----

def test_nobody():
    """No database; a database without the bridge; one that does not answer in time. The daemon goes on."""
    done = start("m", 1, check=False)
    assert done.returncode and f"Open vSwitch's database does not answer at {DB}" in done.stderr and "is it started" in done.stderr, done.stderr
    ground.SWITCH = Switch()
    done = start("m", 1, "<source bridge='nix'/>", check=False)
    assert done.returncode and "there is no bridge 'nix' in Open vSwitch" in done.stderr and "ovs-vsctl add-br nix" in done.stderr, done.stderr
    done = start("m", 1, "<source bridge='obr0'/>", OVS + "<filterref filter='clean-traffic'/>", check=False)
    assert done.returncode and "filters do not see the frames of Open vSwitch" in done.stderr, done.stderr
    run("ip", "link", "add", "lbr0", "type", "bridge", ns=HOST)
    done = start("m", 1, "<source bridge='lbr0'/>", "<vlan><tag id='7'/></vlan>", check=False)
    assert done.returncode and "bridge 'lbr0' knows no <vlan>" in done.stderr, done.stderr
    run("ip", "link", "del", "lbr0", ns=HOST)
    switch = ground.SWITCH.processes["ovs-vswitchd"]
    switch.send_signal(signal.SIGSTOP)
    slow = subprocess.Popen(["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "create", f"{WORK}/late.xml"], stderr=subprocess.PIPE,
                            text=True, env=ground.ENV) if write("late.xml", describe("late", 2, interface(2))) else None
    virsh("uri")
    said = slow.communicate(timeout=120)[1]
    switch.send_signal(signal.SIGCONT)
    assert slow.returncode and "is ovs-vswitchd running?" in said, said
    wait_for("no port", lambda: not ports())
    assert not os.listdir(f"{RUN}/openvswitch")


def test_port():
    """What libvirt writes into the database, and nothing of it stays, however a machine ends."""
    shaped = ("<bandwidth><inbound average='1000' peak='5000' burst='1024'/><outbound average='128' burst='256'/></bandwidth>"
              f"<virtualport type='openvswitch'><parameters interfaceid='{PORTID.format(9)}' profileid='menial'/></virtualport>"
              "<vlan><tag id='42'/></vlan><port isolated='yes'/>")
    for end in ("destroy", "crash", "while the manager is dead"):
        start("m", 1, "<source bridge='obr0'/>", shaped)
        assert ports() == ["tap001"]
        port = row("Port", "tap001", "tag", "trunks", "vlan_mode", "protected", "qos")
        assert port["tag"] == 42 and port["trunks"] == port["vlan_mode"] == ["set", []] and port["protected"] is True, port
        side = row("Interface", "tap001", "external_ids", "ingress_policing_rate", "ingress_policing_burst", "error")
        assert dict(side["external_ids"][1]) == {"attached-mac": "52:54:00:00:07:01", "iface-id": PORTID.format(9), "iface-status": "active",
                                                 "port-profile": "menial", "vm-id": PORTID.format(257)}, side
        assert side["ingress_policing_rate"] == 1024 and side["ingress_policing_burst"] == 2048, side
        limits = json.loads(vsctl("--format=json", "--columns=other_config,external_ids,type", "list", "QoS"))["data"][0]
        assert dict(limits[0][1]) == {"min-rate": "8000000", "max-rate": "40000000", "burst": "8388608"} and limits[2] == "linux-htb", limits
        assert dict(limits[1][1]) == {"vm-id": PORTID.format(257), "ifname": "tap001"}, limits
        live = virsh("dumpxml", "m").stdout
        assert f"interfaceid='{PORTID.format(9)}' profileid='menial'" in live and "<tag id='42'/>" in live, live
        with open(f"{RUN}/machines/{PORTID.format(257)}/process", encoding="ascii") as f:
            pid = int(f.read())
        if end == "destroy":
            virsh("destroy", "m")
        elif end == "crash":
            os.kill(pid, signal.SIGKILL)
        else:
            ground.MANAGER.end(signal.SIGKILL)
            ground.MANAGER.start()
            assert ports() == ["tap001"], "it runs on"
            ground.MANAGER.end(signal.SIGKILL)
            os.kill(pid, signal.SIGKILL)
            ground.MANAGER.start()
        wait_for("the end of the port after " + end, lambda: not ports() and not rows_of_limits() and not os.listdir(f"{RUN}/openvswitch"))


def test_database_ends():
    """A database that is started anew is found again; a port that could not be taken away goes at the next refresh."""
    start("m", 1)
    ground.SWITCH.end("ovsdb-server")
    virsh("destroy", "m")
    wait_for("a line of the log", lambda: "stays until it can be taken away" in ground.MANAGER.log())
    ground.SWITCH.start_database()
    assert ports() == ["tap001"]
    ground.MANAGER.process.send_signal(signal.SIGHUP)
    wait_for("the end of the port", lambda: not ports())
    start("m", 1)
    stop("m")


def test_name_again():
    """A tap's name that another machine has before its old port could be taken away: no limits of the old one stay."""
    limits = "<bandwidth><inbound average='1000'/></bandwidth>"
    start("m", 1, "<source bridge='obr0'/>", limits + OVS)
    ground.SWITCH.end("ovsdb-server")
    left = ground.MANAGER.log().count("stays until it can be taken away")
    virsh("destroy", "m")
    wait_for("a line of the log", lambda: ground.MANAGER.log().count("stays until it can be taken away") > left)
    ground.SWITCH.start_database()
    assert ports() == ["tap001"]
    virsh("create", write("other.xml", describe("other", 2, interface(1, "<source bridge='obr0'/>", limits + OVS))))
    found = [dict(r[0][1]) for r in json.loads(vsctl("--format=json", "--columns=external_ids", "list", "QoS"))["data"]]
    assert found == [{"vm-id": PORTID.format(258), "ifname": "tap001"}], found
    stop("other")
    wait_for("no limits", lambda: not rows_of_limits())


def restart(address, own="manager", ca="ca"):
    """The manager, with another place of the database."""
    ground.MANAGER.end()
    write("conf", f"[libvirt]\nusual_place=false\n[network]\novsdb={address}\novsdb_key={PLACE}/{own}.key\novsdb_certificate={PLACE}/{own}.pem\n"
          f"ovsdb_ca={PLACE}/{ca}.pem\n")
    ground.MANAGER.start()


def test_tls():
    """By TLS the same; with certificates that either end does not believe, nothing."""
    address = "ssl:127.0.0.1:6640"
    rows = (("manager", "other-ca", "the server's certificate is not believed"), ("stranger", "ca", "refused TLS|does it know the CA of our certificate"),
            ("manager", "nothing", "the CA's certificate .*nothing.pem"))
    try:
        for own, ca, why in rows:
            restart(address, own, ca)
            done = start("m", 1, check=False)
            assert done.returncode and re.search(f"{address}: .*({why})", done.stderr), done.stderr
        restart(address)
        start("m", 1)
        assert ports() == ["tap001"]
        stop("m")
    finally:
        restart(DB)


def vlans(name):
    port = row("Port", name, "tag", "trunks", "vlan_mode")
    return tuple(None if v == ["set", []] else v[1] if isinstance(v, list) else v for v in (port["tag"], port["trunks"], port["vlan_mode"]))


NETWORK = f"""<network><name>lan</name><forward mode='bridge'/><bridge name='obr0'/>{OVS}<vlan><tag id='7'/></vlan>
<portgroup name='eight'><vlan><tag id='8'/></vlan></portgroup>
<portgroup name='both'><vlan trunk='yes'><tag id='7'/><tag id='8'/></vlan></portgroup>
<portgroup name='untagged'><vlan trunk='yes'><tag id='7' nativeMode='untagged'/><tag id='8'/></vlan></portgroup>
<portgroup name='tagged'><vlan trunk='yes'><tag id='7' nativeMode='tagged'/><tag id='8'/></vlan></portgroup></network>"""


def test_vlans():
    """VLANs of the network, of a portgroup and of an interface; which frames reach whom; changed while it runs."""
    virsh("net-create", write("lan.xml", NETWORK), "--validate")
    members = {"seven": "", "eight": " portgroup='eight'", "both": " portgroup='both'", "untagged": " portgroup='untagged'", "tagged": " portgroup='tagged'"}
    taps = {}
    try:
        for number, (name, group) in enumerate(members.items(), 1):
            start(name, number, f"<source network='lan'{group}/>", "", kind="network")
            taps[f"tap00{number}"] = name
        own = start("own", 6, "<source network='lan' portgroup='eight'/>", "<vlan><tag id='7'/></vlan>", kind="network")
        taps["tap006"] = "own"
        assert [vlans(t) for t in sorted(taps)] == [
            (7, None, None), (8, None, None), (None, [7, 8], None), (7, [7, 8], "native-untagged"), (7, [7, 8], "native-tagged"), (7, None, None)], own
        live = virsh("dumpxml", "both").stdout
        assert re.search(r"<interface type='bridge'>.*<source network='lan' portgroup='both' portid='.*' bridge='obr0'/>.*<vlan trunk='yes'>.*<virtualport type='openvswitch'>",
                         live, re.DOTALL), live
        assert "connections='6'" in virsh("net-dumpxml", "lan").stdout
        reach = frames(taps)
        seven, eight = {"seven", "own"}, {"eight"}
        wanted = {  # who gets what each sends: untagged, with VLAN 7, with VLAN 8; and how it looks there
            name: arrivals(name, seven, eight) for name in taps.values()}
        assert reach == wanted, "\n".join(f"{n}: {reach[n]} not {wanted[n]}" for n in wanted if reach[n] != wanted[n])
        changed = re.sub(r"<vlan>.*</vlan>", "<vlan><tag id='8'/></vlan>", re.search(r"<interface.*</interface>", virsh("dumpxml", "seven").stdout, re.DOTALL).group(0),
                         flags=re.DOTALL)
        virsh("update-device", "seven", write("seven.xml", changed), "--live")
        assert vlans("tap001") == (8, None, None)
        assert "<tag id='8'/>" in virsh("dumpxml", "seven").stdout
        assert frames(taps)["eight"] == arrivals("eight", {"own"}, {"eight", "seven"})
        switch = ground.SWITCH.processes["ovs-vswitchd"]
        switch.send_signal(signal.SIGSTOP)
        virsh("update-device", "seven", write("seven.xml", changed.replace("<tag id='8'/>", "<tag id='7'/>")), "--live")
        switch.send_signal(signal.SIGCONT)
        assert vlans("tap001") == (7, None, None)
        assert "port 'tap001' is changed in the database, not yet in the switch: Open vSwitch did not take port" in ground.MANAGER.log()
    finally:
        stop(*taps.values())
        virsh("net-destroy", "lan")


def test_long_port():
    """A trunk of 4000 VLANs: its port is there when another manager starts."""
    tags = "".join(f"<tag id='{i}'/>" for i in range(1, 4001))
    virsh("net-create", write("lan.xml", NETWORK))
    try:
        start("m", 1, "<source network='lan'/>", f"<vlan trunk='yes'>{tags}</vlan>", kind="network")
        port = re.findall("[0-9a-f]{8}-[0-9a-f-]{27}", virsh("net-port-list", "lan").stdout)
        ground.MANAGER.end(signal.SIGKILL)
        ground.MANAGER.start()
        assert len(port) == 1 and port[0] in virsh("net-port-list", "lan").stdout
        assert virsh("net-port-dumpxml", "lan", port[0]).stdout.count("<tag ") == 4000
        stop("m")
        assert not re.findall("[0-9a-f]{8}-[0-9a-f-]{27}", virsh("net-port-list", "lan").stdout)
    finally:
        stop("m")
        virsh("net-destroy", "lan")


def test_gone_meanwhile():
    """A port that is deleted while the switch is awaited: by a change of its limits, and by its machine's start."""
    virsh("net-create", write("lan.xml", NETWORK), "--validate")
    switch = ground.SWITCH.processes["ovs-vswitchd"]
    folder, said = f"{RUN}/networks/lan.ports", []

    def change(port):
        network = libvirt.open(f"qemu+unix:///system?socket={RUN}/libvirt-sock").networkLookupByName("lan")
        try:
            network.portLookupByUUIDString(port).setParameters({"outbound.average": 128}, 0)
        except libvirt.libvirtError as e:
            said.append(str(e))

    def delete_port():
        port = wait_for("the port", lambda: os.path.isdir(folder) and os.listdir(folder))[0].removesuffix(".xml")
        virsh("net-port-delete", "lan", port)

    try:
        start("m", 1, "<source network='lan'/>", "", kind="network")
        port = os.listdir(folder)[0].removesuffix(".xml")
        switch.send_signal(signal.SIGSTOP)
        changing = threading.Thread(target=change, args=(port,))
        changing.start()
        wait_for("the database's change", lambda: row("Interface", "tap001", "ingress_policing_rate")["ingress_policing_rate"] == 1024)
        delete_port()
        changing.join()
        assert len(said) == 1 and f"network 'lan' has no port '{port}'" in said[0], said
        assert not os.path.exists(folder), "it has come again"
        switch.send_signal(signal.SIGCONT)
        stop("m")
        switch.send_signal(signal.SIGSTOP)
        starting = threading.Thread(target=start, args=("m", 1, "<source network='lan'/>", ""), kwargs={"kind": "network"})
        starting.start()
        delete_port()
        switch.send_signal(signal.SIGCONT)
        starting.join()
        live = virsh("dumpxml", "m").stdout
        assert "bridge='obr0'/>" in live and "<tag id='7'/>" in live and "interfaceid=" in live, live
    finally:
        switch.send_signal(signal.SIGCONT)
        stop("m")
        virsh("net-destroy", "lan")


# What each kind of port takes in (VLAN on the wire to VLAN in the switch) and gives out.
INTO = {"7": {0: 7}, "8": {0: 8}, "both": {7: 7, 8: 8}, "untagged": {0: 7, 7: 7, 8: 8}, "tagged": {0: 7, 7: 7, 8: 8}}
OUT = {"7": {7: 0}, "8": {8: 0}, "both": {7: 7, 8: 8}, "untagged": {7: 0, 8: 8}, "tagged": {7: 7, 8: 8}}


def arrivals(name, seven, eight):
    """What comes to `name`: (VLAN, sender, VLAN that it was sent with)."""
    def kind(n):
        return "7" if n in seven else "8" if n in eight else n
    everybody = seven | eight | {"both", "untagged", "tagged"}
    return sorted([OUT[kind(name)][inside], f"{sender} {sent}"] for sender in everybody - {name} for sent, inside in INTO[kind(sender)].items()
                  if inside in OUT[kind(name)])


def frames(taps):
    seven = {n for t, n in taps.items() if vlans(t) == (7, None, None)}
    eight = {n for t, n in taps.items() if vlans(t) == (8, None, None)}
    rows = {t: [[vlan, f"{n} {vlan}"] for vlan in (0, 7, 8)] for t, n in taps.items()}
    marks = {t: len(arrivals(n, seven, eight)) for t, n in taps.items()}
    done = subprocess.run(["ip", "netns", "exec", HOST, sys.executable, "-c", PROBE], input=json.dumps([rows, marks]), capture_output=True, text=True,
                          timeout=120, check=False)
    assert not done.returncode, done.stderr
    return {taps[t]: [[vlan, text] for vlan, text in found] for t, found in json.loads(done.stdout).items()}


def main():
    tests = {"no database, no bridge, no switch": test_nobody, "port": test_port, "database ends": test_database_ends, "name used again": test_name_again, "TLS": test_tls, "VLANs": test_vlans,
             "long port": test_long_port, "port deleted meanwhile": test_gone_meanwhile}
    missing = [p for p in ("ip", "virsh", "ovsdb-server", "ovs-vswitchd", "certtool") if not shutil.which(p, path=ground.ENV["PATH"])]
    if os.geteuid() or missing:
        why = "needs root" if os.geteuid() else f"{missing[0]} is not installed"

        def skip():
            raise tap.Skip(why)
        tap.run({n: skip for n in tests})
    ground.SWITCH = None
    try:
        ground.build_world()
        ground.MANAGER = ground.Manager(f"[network]\novsdb={DB}\n")
        tap.run(tests)
    finally:
        if ground.MANAGER and ground.MANAGER.process.poll() is None:
            ground.MANAGER.end()
        for program in list(ground.SWITCH.processes) if ground.SWITCH else ():
            ground.SWITCH.end(program)
        ground.end()


if __name__ == "__main__":
    main()
