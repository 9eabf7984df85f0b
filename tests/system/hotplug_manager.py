#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices of running machines as people change them: virsh and python3-libvirt against ruched, with ruche-vmm and with QEMU. TAP.

    hotplug_manager.py RUCHED PLUG.ELF RUCHE-VMM [TEST...]

The guest (tests/guest/plug.c) answers at once, or says no. All of it in a network namespace of its own.
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

import libvirt  # noqa: E402

import tap  # noqa: E402
from libvirt_rpc import Daemon  # noqa: E402
from testpmd import Switch  # noqa: E402

RUCHED, PAYLOAD, VMM = (os.path.abspath(p) for p in sys.argv[1:4])
QEMU = shutil.which("qemu-system-x86_64")
SECONDS = int(os.environ.get("RUCHE_WAIT_SECONDS", "120"))
MAC = "52:54:00:aa:bb:01"
NATIVE = ("<qemu:commandline><qemu:arg value='-global'/>"
          "<qemu:arg value='ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off'/></qemu:commandline>")
DOMAIN = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{name}</name>
<memory unit='MiB'>64</memory>{memory}<vcpu current='1'>3</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><cmdline>{cmdline}</cmdline></os><features><acpi/><apic/></features>
<devices><emulator>{emulator}</emulator><controller type='virtio-serial' index='0'/>{ports}{devices}
<serial type='pty'/><memballoon model='none'/></devices>{more}</domain>"""
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
CELL = "<cpu><numa><cell id='0' cpus='0-2' memory='64' unit='MiB' memAccess='shared'/></numa></cpu>"
CARD = f"<interface type='user'><mac address='{MAC}'/><model type='virtio'/></interface>"
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
CHANNEL = "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.ruche.hot'/></channel>"


def wait(what, test, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not (value := test()):
        assert time.monotonic() < end, f"{what}: not in {seconds} s"
        time.sleep(0.02)
    return value


class World:
    """The manager, its events, files."""

    def __init__(self):
        self.daemon = Daemon(RUCHED)
        self.folder = self.daemon.folder
        os.chmod(self.folder, 0o755)
        self.kernel = self.guest("plug")
        self.uri = f"qemu+unix:///system?socket={self.daemon.socket}"
        self.events = []
        self.machines = []
        self.connection = None
        self.listen()

    def guest(self, name):
        """A payload beside the one that was given."""
        where = shutil.copy(os.path.join(os.path.dirname(PAYLOAD), name + ".elf"), self.folder)
        os.chmod(where, 0o644)
        return where

    def path(self, name, text=None, size=None):
        where = os.path.join(self.folder, name)
        if text is not None or size is not None:
            with open(where, "w", encoding="ascii") as out:
                out.write(text or "")
                out.truncate(size)
            os.chmod(where, 0o666)
        return where

    def listen(self):
        self.connection = wait("the socket", self.try_open)
        for name in ("DEVICE_ADDED", "DEVICE_REMOVED", "DEVICE_REMOVAL_FAILED"):
            self.connection.domainEventRegisterAny(None, getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{name}"),
                                                   lambda c, d, alias, kind: self.events.append((kind, d.name(), alias)), name)
        self.connection.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_TRAY_CHANGE,
                                               lambda c, d, alias, why, kind: self.events.append((kind, d.name(), alias, why)), "TRAY")

    def try_open(self):
        try:
            return libvirt.open(self.uri)
        except libvirt.libvirtError:
            return None

    def happens(self, *event):
        try:
            wait(f"event {event}", lambda: event in self.events)
        except AssertionError as e:
            raise AssertionError(f"{e}; there were {self.events[-20:]}") from e

    def virsh(self, *words, check=True, error=None):
        done = subprocess.run(["virsh", "-c", self.uri, *words], capture_output=True, text=True, timeout=600, check=False,
                              stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"})
        if error is not None:
            assert done.returncode and error in done.stderr, f"{' '.join(words)}: not '{error}': {done.stdout} {done.stderr}"
        elif check:
            assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
        return done.stdout

    def kill(self):
        self.daemon.process.kill()
        self.daemon.process.wait()

    def again(self):
        with open(self.daemon.log_path, "ab") as log:
            self.daemon.process = subprocess.Popen(self.daemon.process.args, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait("ruched", self.daemon.is_ready)
        self.listen()

    def close(self):
        for m in self.machines:
            self.virsh("destroy", m.name, check=False)
        self.daemon.stop()


class Machine:
    """A domain whose guest is plug.c, or another one that says so when it is ready."""

    def __init__(self, name, emulator, cmdline="", devices="", ports=6, kernel=None, ready=r"\d+ slots, a console\n", memory=SHARED):
        self.name, self.ours, self.mark = name, emulator == VMM, 0
        text = DOMAIN.format(name=name, memory=memory, kernel=kernel or WORLD.kernel, cmdline=cmdline, emulator=emulator, devices=devices,
                             ports="<controller type='pci' model='pcie-root-port'/>" * ports, more="" if self.ours else NATIVE)
        WORLD.machines.append(self)
        self.virsh("define", WORLD.path(name + ".xml", text), named=False)
        self.virsh("start")
        self.says(ready)

    def virsh(self, command, *words, named=True, **how):
        return WORLD.virsh(command, *([self.name] if named else []), *words, **how)

    def says(self, pattern):
        """Waits for the guest to say this after what it said last."""
        def look():
            try:
                with open(f"{WORLD.daemon.state}/log/consoles/{self.name}.log", encoding="utf-8", errors="replace") as f:
                    text = f.read().replace("\r", "")
            except FileNotFoundError:
                return None
            found = re.compile(pattern, re.MULTILINE).search(text, self.mark)
            if found:
                self.mark = found.end()
            return found
        return wait(f"'{pattern}' on the console", look)

    def live(self):
        return self.virsh("dumpxml")

    def stored(self):
        return self.virsh("dumpxml", "--inactive")

    def change(self, verb, text, *words, **how):
        return self.virsh(verb, WORLD.path("device.xml", text), *(words or ["--live"]), **how)

    def qmp(self, command, **arguments):
        answer = json.loads(self.virsh("qemu-monitor-command", json.dumps({"execute": command, "arguments": arguments})))
        assert "return" in answer, f"{command} {arguments}: {answer}"
        return answer["return"]

    def happens(self, kind, *more):
        WORLD.happens(kind, self.name, *more)

    def pid(self):
        with open(f"{WORLD.daemon.run}/domains/{self.name}.xml", encoding="utf-8") as f:
            return int(re.search(r"pid='(\d+)'", f.read()).group(1))


WORLD = None
MACHINES = {}


def machine(emulator):
    """The one that the tests of an emulator share."""
    if emulator not in MACHINES:
        MACHINES[emulator] = Machine("hot-" + ("ruche" if emulator == VMM else "qemu"), emulator)
    return MACHINES[emulator]


# ---- what comes and goes ----

KEY = "open-sesame-4711"


def test_encrypted(emulator):
    """Encrypted disks, raw and qcow2, come, are used and go; their keys go with them: the next has the
    same names. It is a volume of a pool."""
    m, conn, folder = machine(emulator), WORLD.connection, WORLD.path("locked")
    os.makedirs(folder, exist_ok=True)
    if "locked" not in [p.name() for p in conn.listAllStoragePools()]:
        conn.secretDefineXML("<secret><usage type='volume'><volume>of disks</volume></usage></secret>").setValue(KEY.encode())
        for form, options in (("raw", "key-secret=k,iter-time=10"),
                              ("qcow2", "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10")):  # their key costs no time to check
            subprocess.run([os.path.join(os.path.dirname(RUCHED), "ruche-img"), "create", "-q", "-f", "luks" if form == "raw" else form,
                            "--object", f"secret,id=k,data={KEY}", "-o", options, f"{folder}/{form}", "1M"], check=True, timeout=SECONDS)
            os.chmod(f"{folder}/{form}", 0o666)
        conn.storagePoolCreateXML(f"<pool type='dir'><name>locked</name><target><path>{folder}</path></target></pool>")
    luks = "<encryption format='luks'><secret type='passphrase' usage='of disks'/></encryption>"
    disk = "<disk type='{}'><driver name='qemu' type='{}'/><source {}>" + luks + "</source><target dev='vdl' bus='virtio'/></disk>"
    rows = (disk.format("file", "raw", f"file='{folder}/raw'"), disk.format("volume", "qcow2", "pool='locked' volume='qcow2'"))
    for text in rows:
        m.change("attach-device", text)
        m.says(r"slot \d+ on: disk\n")
        assert m.ours or "disk-vdl-key" in [o["name"] for o in m.qmp("qom-list", path="/objects")]
        assert "of disks" in m.live() and KEY not in m.live()
        m.change("detach-device", text)
        m.says(r"slot \d+ off\n")
        wait("the disk is gone", lambda: "vdl" not in m.live())
        wait("its key is gone", lambda: m.ours or not [o for o in m.qmp("qom-list", path="/objects") if "vdl" in o["name"]])
        wait("its images are gone", lambda: not [n for n in m.qmp("query-named-block-nodes") if "vdl" in n["node-name"]])


def test_devices(emulator):
    m = machine(emulator)
    before = m.stored()
    image = WORLD.path(m.name + "-a.img", size=1 << 20)
    for _ in range(2):
        m.virsh("attach-disk", image, "vdb", "--driver", "qemu", "--subdriver", "raw", "--live")
        m.says(r"slot \d+ on: disk\n")
        m.change("attach-device", CARD)
        m.says(r"slot \d+ on: card\n")
        m.change("attach-device", RNG)
        m.says(r"slot \d+ on: rng\n")
        m.change("attach-device", CHANNEL)
        m.says(r"port \d+ on\n")
        live = m.live()
        assert all(part in live for part in ("-a.img", MAC, "<rng", "org.ruche.hot")), live
        assert m.stored() == before
        m.virsh("domif-setlink", MAC, "down")
        m.says(r"slot \d+ link 0\n")
        assert m.virsh("domif-getlink", MAC).split()[-1] == "down"
        m.virsh("domif-setlink", MAC, "up")
        m.says(r"slot \d+ link 1\n")
        m.virsh("detach-disk", "vdb", "--live")
        m.virsh("detach-interface", "user", "--mac", MAC, "--live")
        m.virsh("detach-device-alias", re.search(r"<rng.*?alias name='([^']+)'", live, re.DOTALL).group(1), "--live")
        m.change("detach-device", CHANNEL)
        wait("all are gone", lambda: not any(part in m.live() for part in ("-a.img", MAC, "<rng", "org.ruche.hot")))
    m.happens("DEVICE_ADDED", "virtio-disk1" if "virtio-disk1" in live else "virtio-disk0")
    m.happens("DEVICE_REMOVED", "net0")
    m.happens("DEVICE_REMOVED", "rng0")
    nodes = wait("images are closed", lambda: "-a.img" not in (text := json.dumps(m.qmp("query-named-block-nodes"))) and text)
    assert "disk-vdb" not in nodes, nodes


def test_processors(emulator):
    """In, and out again; not with QEMU 7.2 without KVM: the processor goes, and the next that comes ends it (SIGSEGV)."""
    m = machine(emulator)
    WORLD.events.clear()
    for _ in range(2 if m.ours else 1):
        m.virsh("setvcpus", "3", "--live")
        m.says(r"cpu \d on\n")
        m.says(r"cpu \d on\n")
        assert "current=" not in re.search(r"<vcpu[^>]*>", m.live()).group()
        if not m.ours:
            return
        m.virsh("setvcpus", "1", "--live")
        m.says(r"cpu \d off\n")
        m.says(r"cpu \d off\n")
        wait("the count", lambda: "current='1'" in m.live())
    failed = [e for e in WORLD.events if e[0] == "DEVICE_REMOVAL_FAILED"]
    assert not failed, failed  # that it has begun is no refusal


def test_guest_says_no(emulator):
    """In each way that ACPI has: told at once (virsh would wait 5 s) and by an event, and nothing is taken away."""
    m = Machine("stubborn-" + ("ruche" if emulator == VMM else "qemu"), emulator, "refuse=1")
    try:
        m.virsh("setvcpus", "2", "--live")
        m.says(r"cpu 1 on\n")
        for status in 1, 0x80, 0x81, 0x82, 0x83:  # the guest's, in turn
            WORLD.events.clear()
            m.virsh("setvcpus", "1", "--live", error="rejected by the guest")
            m.says(f"cpu 1 stays: {status}\n")
            m.happens("DEVICE_REMOVAL_FAILED", "vcpu1")
            assert len(WORLD.events) == 1, WORLD.events  # not for 'in progress', which came before
        assert "current='2'" in m.live() and len(m.qmp("query-cpus-fast")) == 2
    finally:
        m.virsh("destroy")


# ---- interfaces ----

BRIDGED = "<interface type='bridge'><mac address='{mac}'/><source bridge='{bridge}'/>{more}<model type='virtio'/></interface>"


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def port(name):
    """What the kernel says of a bridge's port."""
    return json.loads(ip("-details", "-json", "link", "show", name))[0]


def on(bridge, name):
    return port(name).get("master") == bridge


def need_taps():
    try:
        with open("/dev/net/tun", "rb"):
            pass
        ip("link", "add", "hp0", "type", "bridge")
        ip("link", "add", "hp1", "type", "bridge")
    except (OSError, subprocess.CalledProcessError) as e:
        raise tap.Skip(f"no bridges and taps here: {e}") from e


def test_interface(emulator):
    """A bridged one: another bridge, isolation, filter, rates, link; what cannot change is named, and nothing has changed."""
    m = machine(emulator)
    need_taps()

    def xml(more="", bridge="hp0"):
        return BRIDGED.format(mac=MAC, bridge=bridge, more=more)
    try:
        m.change("attach-device", xml("<driver queues='2'/><mtu size='1400'/>"))
        m.says(r"slot \d+ on: card\n")
        kept = "<driver queues='2'/><mtu size='1400'/>"
        name = re.search(r"<interface.*?<target dev='(\w+)'", m.live(), re.DOTALL).group(1)
        assert on("hp0", name) and port(name)["mtu"] == 1400, port(name)
        m.change("update-device", xml(kept, "hp1"))
        assert on("hp1", name) and "bridge='hp1'" in m.live()
        m.change("update-device", xml(kept + "<port isolated='yes'/>", "hp1"))
        assert port(name)["linkinfo"]["info_slave_data"]["isolated"], port(name)
        m.change("update-device", xml(kept, "hp1"))
        assert not port(name)["linkinfo"]["info_slave_data"]["isolated"]
        m.change("update-device", xml(kept + "<link state='down'/>", "hp1"))
        m.says(r"slot \d+ link 0\n")
        m.change("update-device", xml(kept, "hp1"))
        m.says(r"slot \d+ link 1\n")
        m.change("update-device", xml(kept + "<filterref filter='clean-traffic'/>", "hp1"))
        assert "clean-traffic" in m.virsh("nwfilter-binding-list", named=False)
        m.change("update-device", xml(kept, "hp1"))
        wait("no filter", lambda: name not in m.virsh("nwfilter-binding-list", named=False))
        before = m.live()
        for text, part in ((xml(kept, "nothing"), "'nothing'"), (xml(kept + "<boot order='7'/>"), "boot"), (xml("<mtu size='1400'/>"), "driver"),
                           (xml(kept).replace("'virtio'", "'virtio-transitional'"), "model"), (xml(kept.replace("1400", "1300")), "mtu"),
                           (f"<interface type='user'><mac address='{MAC}'/>{kept}</interface>", "type")):
            m.change("update-device", text, error=part)
            assert m.live() == before and on("hp1", name), m.live()
        rates(m, name)
        m.virsh("detach-interface", "bridge", "--mac", MAC, "--live")
        wait("it goes", lambda: MAC not in m.live())
        wait("its tap goes", lambda: name not in ip("link"))
    finally:
        for bridge in ("hp0", "hp1"):
            ip("link", "del", bridge)


def rates(m, name):
    """domiftune, where this kernel can."""
    try:
        m.virsh("domiftune", name, "--inbound", "1000,2000,512", "--live")
    except AssertionError as e:
        assert "this kernel lacks" in str(e), e
        assert "<bandwidth" not in m.live()
        return
    assert "htb" in subprocess.run(["tc", "qdisc", "show", "dev", name], check=True, capture_output=True, text=True).stdout
    assert re.search(r"inbound.peak\s*: 2000", m.virsh("domiftune", name))
    assert "average='1000'" in m.live()
    m.virsh("domiftune", name, "--inbound", "0", "--live")
    assert "<bandwidth" not in m.live()


def test_stored_interface(emulator):
    """What cannot be is refused when it is defined, by name."""
    m = machine(emulator)
    before = m.stored()
    mac = "52:54:00:aa:bb:02"
    user = f"<interface type='user'><mac address='{mac}'/>%s<model type='virtio'/></interface>"
    bridged = BRIDGED.format(mac=mac, bridge="hp0", more="%s")
    wrong = [(user % "<driver queues='2'/>", "queues"), (user % "<port isolated='yes'/>", "isolated"), (bridged % "<driver queues='64'/>", "64"),
             (bridged % "<vlan><tag id='3'/></vlan>", "vlan"), (f"<interface type='internal'><source name='x'/><mac address='{mac}'/></interface>", "internal"),
             (user % "<bandwidth><inbound average='1'/></bandwidth>", "bandwidth")]
    for text, part in wrong:
        m.change("attach-device", text, "--config", error=part)
        assert m.stored() == before
    m.change("attach-device", bridged % "<driver queues='4' rx_queue_size='512'/><port isolated='yes'/><mtu size='9000'/>", "--config")
    m.change("update-device", (bridged % "<link state='down'/>").replace("hp0", "hp1"), "--config")
    assert "bridge='hp1'" in m.stored() and "state='down'" in m.stored()
    m.virsh("domiftune", mac, "--outbound", "100", "--config")
    assert "<outbound average='100'/>" in m.stored()
    m.virsh("detach-interface", "bridge", "--mac", mac, "--config")
    assert m.stored() == before


def test_vhostuser(emulator):
    """A switch that serves cards: one that comes and goes, one that is there from the start."""
    if not shutil.which("dpdk-testpmd"):
        raise tap.Skip("dpdk-testpmd is not installed")
    m = machine(emulator)
    switch = Switch(WORLD.folder, "vu-" + m.name)
    card = (f"<interface type='vhostuser'><mac address='52:54:00:aa:cc:0%d'/><source type='unix' path='%s' mode='client'>"
            "<reconnect enabled='yes' timeout='1'/></source><model type='virtio'/></interface>")
    with switch:
        hot = card % (1, switch.port(0))
        m.change("attach-device", hot)
        m.says(r"slot \d+ on: card\n")
        row = next(line for line in m.virsh("domiflist").splitlines() if "52:54:00:aa:cc:01" in line)
        assert "vhostuser" in row and "virtio" in row, row
        assert f"path='{switch.port(0)}' mode='client'" in m.live()
        m.change("detach-device", hot)
        m.says(r"slot \d+ off\n")
        wait("its socket is closed", lambda: "charnet" not in json.dumps(m.qmp("query-chardev")))
        wrong = hot.replace("model type='virtio'", "model type='e1000'")
        m.change("attach-device", wrong, "--config", error="e1000")
        pair = [pinger(f"{m.name}-vhost-{n}", e, n, card % (n + 1, switch.port(n - 1)), memory=CELL) for n, e in ((1, emulator), (2, VMM))]
        assert "vhostuser" in pair[0].virsh("domiflist")
        ping(pair)
    text = DOMAIN.format(name="private", memory="", kernel=WORLD.kernel, cmdline="", emulator=emulator, ports="", devices="%s", more="")
    if m.ours:  # its memory is always shared
        m.virsh("define", WORLD.path("private.xml", text % hot), named=False)
    else:
        m.virsh("define", WORLD.path("private.xml", text % hot), named=False, error="needs memory that the switch can map: say <memoryBacking>")
        m.virsh("define", WORLD.path("private.xml", text % ""), named=False)
        m.virsh("attach-device", "private", WORLD.path("device.xml", hot), "--config", named=False, error="needs memory that the switch can map")
    m.virsh("undefine", "private", named=False)


def pinger(name, emulator, number, card, **more):
    """A machine whose guest is pings.c."""
    return Machine(name, emulator, f"me={number}", devices=card, ports=0, kernel=WORLD.guest("pings"), ready=r"card, link (up|down)\n", **more)


def ping(pair):
    """Each asks, and the other one answers; then they go."""
    for m in pair:
        stream = WORLD.connection.newStream()
        WORLD.connection.lookupByName(m.name).openConsole(None, stream)
        stream.send(b"p")
        m.says(r"pong 0 \d+\n")
        stream.abort()
    for m in pair:
        m.virsh("destroy")
        m.virsh("undefine")


def test_cables(emulator):
    """Cables between two machines, one of them always ruche-vmm's: frames pass both ways."""
    try:
        ip("link", "set", "lo", "up", "multicast", "on")
        ip("route", "replace", "230.0.0.0/8", "dev", "lo")
    except (OSError, subprocess.CalledProcessError) as e:
        raise tap.Skip(f"no network namespace of its own: {e}") from e
    here = "address='127.0.0.1' port"
    tcp, one, other, group = (tap.free_port() for _ in range(4))
    for ends in ((("server", f"<source {here}='{tcp}'/>"), ("client", f"<source {here}='{tcp}'/>")),
                 (("udp", f"<source {here}='{other}'><local {here}='{one}'/></source>"), ("udp", f"<source {here}='{one}'><local {here}='{other}'/></source>")),
                 (("mcast", f"<source address='230.0.0.1' port='{group}'/>"),) * 2):
        pair = [pinger(f"{kind}-{n}", emulator if n == 1 else VMM, n, f"<interface type='{kind}'><mac address='52:54:00:aa:dd:0{n}'/>{source}<model type='virtio'/></interface>")
                for n, (kind, source) in enumerate(ends, 1)]
        assert ends[0][0] in pair[0].virsh("domiflist")
        ping(pair)


# ---- media ----

CDROM = "<disk type='file' device='cdrom'><driver name='qemu' type='raw'/>%s<target dev='sda' bus='sata'/><readonly/></disk>"


def inserted(m):
    """The file that the drive has, as QEMU sees it."""
    drive = [b for b in m.qmp("query-block") if "sata0-0-0" in b.get("qdev", "")][0]
    return drive.get("inserted", {}).get("node-name"), drive.get("tray_open")


def test_medium(emulator):
    if emulator == VMM:
        machine(emulator).change("attach-device", CDROM % "", "--config", error="cdrom")
        return
    first, second = (WORLD.path(n, size=1 << 20) for n in ("first.iso", "second.iso"))
    m = Machine("media", emulator, devices=CDROM % f"<source file='{first}'/>")
    try:
        WORLD.events.clear()
        m.virsh("change-media", "sda", "--eject", "--live")
        m.happens("TRAY", "sata0-0-0", 0)
        assert inserted(m) == (None, True) and first not in m.live() and first in m.stored()
        wait("the tray's state", lambda: "tray='open'" in m.live())
        wait("the file is closed", lambda: not any("first" in json.dumps(n) or "disk-sda" in n["node-name"] for n in m.qmp("query-named-block-nodes")))
        m.virsh("change-media", "sda", second, "--insert", "--live")
        m.happens("TRAY", "sata0-0-0", 1)
        assert inserted(m)[0] and not inserted(m)[1] and second in m.live()
        wait("the tray's state", lambda: "tray=" not in m.live())
        m.virsh("change-media", "sda", first, "--update", "--live", "--config", "--force")
        assert first in m.live() and second not in m.live() and first in m.stored()
        m.virsh("change-media", "sda", WORLD.path("nothing.iso"), "--update", "--live", error="nothing.iso")
        assert first in m.live() and inserted(m)[0] and not inserted(m)[1]
        assert second in m.virsh("change-media", "sda", second, "--update", "--print-xml")
        m.virsh("change-media", "sda", "--eject", "--config")
        assert first in m.live() and first not in m.stored()
        m.change("update-device", (CDROM % f"<source file='{second}'/>").replace("<readonly/>", "<readonly/><serial>x</serial>"), error="serial")
        m.virsh("destroy")
        m.virsh("start")
        assert inserted(m)[0] is None
    finally:
        m.virsh("destroy", check=False)


FLOPPY = "<disk type='file' device='floppy'>%s<target dev='%s' bus='fdc'/>%s</disk>"
LUN = "<disk type='block' device='lun'%s><driver name='qemu' type='raw'/><source dev='/dev/null'/><target dev='sdl' bus='%s'/></disk>"


def test_drives(emulator):
    """Floppy drives and whole SCSI units: QEMU's; ruche-vmm has none, and says so when they are defined."""
    shared = machine(emulator)
    before = shared.stored()
    first, second = (WORLD.path(n, size=1474560) for n in ("first.fd", "second.fd"))
    holds = f"<driver name='qemu' type='raw'/><source file='{first}'/>"
    if shared.ours:
        wrong = (FLOPPY % (holds, "fda", ""), "device 'floppy' is not there in ruche-vmm"), (LUN % ("", "scsi"), "device 'lun' is not there in ruche-vmm")
    else:
        wrong = ((FLOPPY % (holds, "fda", "<serial>x</serial>"), "serial"), (LUN % ("", "virtio"), "'lun' is not possible on bus 'virtio'"),
                 (LUN % (" rawio='yes'", "scsi"), "rawio"))
    for text, part in wrong:
        shared.change("attach-device", text, "--config", error=part)
        assert shared.stored() == before
    if shared.ours:
        return
    m = Machine("floppies", emulator, devices=FLOPPY % (holds, "fda", "<readonly/>") + FLOPPY % ("", "fdb", ""))
    try:
        def inside():
            return [(b["qdev"], b.get("inserted", {}).get("ro"), b.get("inserted", {}).get("node-name")) for b in m.qmp("query-block") if "fdc" in b.get("qdev", "")]
        assert inside() == [("fdc0-0-0", True, "disk-fda"), ("fdc0-0-1", None, None)], inside()
        m.virsh("change-media", "fdb", second, "--insert", "--live")
        assert inside()[1][1] is False and second in m.live(), inside()
        m.virsh("change-media", "fdb", "--eject", "--live")
        assert inside()[1][2] is None and second not in m.live(), inside()
        m.change("detach-device", FLOPPY % ("", "fdb", ""), error="")
        assert "fdb" in m.live()
    finally:
        m.virsh("destroy", check=False)


# ---- the manager is killed ----

def agree(m):
    """The description has what the machine has."""
    there = {o["name"] for o in m.qmp("qom-list", path="/machine/peripheral") if o["type"].startswith("child<")}
    told = set(re.findall(r"<alias name='((?:virtio-disk|net|rng|virtio-serial)\d+)'/>", m.live()))
    named = {n for n in there if re.fullmatch(r"(virtio-disk|net|rng|virtio-serial)\d+", n)}
    return named == told


def in_background(m, *words):
    return subprocess.Popen(["virsh", "-c", WORLD.uri, words[0], m.name, *words[1:]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            stdin=subprocess.DEVNULL)


def killed_during(m, delay, *words):
    client = in_background(m, *words)
    time.sleep(delay)
    WORLD.kill()
    client.wait(SECONDS)
    WORLD.again()
    wait("the machine is found", lambda: m.name in WORLD.virsh("list", "--name"))
    wait("description and machine agree", lambda: agree(m))


def test_killed(emulator):
    """Anywhere on the way of a device that comes or goes."""
    m = machine(emulator)
    image = WORLD.path("killed.img", size=1 << 20)
    disk = WORLD.path("killed.xml", f"<disk type='file'><driver name='qemu' type='raw'/><source file='{image}'/><target dev='vdk' bus='virtio'/></disk>")
    for round_ in range(8):
        here = "killed.img" in m.live()
        killed_during(m, round_ * 0.012, "detach-disk" if here else "attach-device", *(["vdk"] if here else [disk]), "--live")
    if "killed.img" in m.live():
        wait("it may be taken out", lambda: "killed.img" not in m.live() or m.virsh("detach-disk", "vdk", "--live", check=False) is None)
    wait("it is gone", lambda: "killed.img" not in m.live())
    wait("its images are closed", lambda: "disk-vdk" not in json.dumps(m.qmp("query-named-block-nodes")))
    m.qmp("blockdev-add", **{"driver": "file", "node-name": "disk-vdk-file", "filename": image})  # killed between an image and its file
    WORLD.kill()
    WORLD.again()
    wait("the file is closed", lambda: "disk-vdk" not in json.dumps(m.qmp("query-named-block-nodes")))
    os.kill(m.pid(), signal.SIGSTOP)  # the request is under way, and its answer comes to nobody
    client = in_background(m, "attach-device", WORLD.path("rng.xml", "<controller type='virtio-serial' index='1'/>"), "--live")
    wait("the status file", lambda: "virtio-serial1" in read_status(m))
    WORLD.kill()
    client.wait(SECONDS)
    os.kill(m.pid(), signal.SIGCONT)
    WORLD.again()
    wait("the machine is found", lambda: m.name in WORLD.virsh("list", "--name"))
    wait("description and machine agree", lambda: agree(m))


def read_status(m):
    with open(f"{WORLD.daemon.run}/domains/{m.name}.xml", encoding="utf-8") as f:
        return f.read()


def test_gone_meanwhile(emulator):
    """A guest that lets go while nobody listens; and processors."""
    m = Machine("slow-" + ("ruche" if emulator == VMM else "qemu"), emulator, "slow=700")
    try:
        image = WORLD.path("slow.img", size=1 << 20)
        m.virsh("attach-disk", image, "vdb", "--driver", "qemu", "--subdriver", "raw", "--live")
        m.says(r"slot \d+ on: disk\n")
        m.virsh("setvcpus", "2", "--live")
        m.says(r"cpu 1 on\n")
        m.qmp("device_del", id=re.search(r"alias name='(virtio-disk\d)'", m.live()).group(1))
        if m.ours:
            m.qmp("device_del", id="vcpu1")
        WORLD.kill()
        m.says(r"slot \d+ off\n")
        if m.ours:
            m.says(r"cpu 1 off\n")
        WORLD.again()
        wait("the disk is out", lambda: "slow.img" not in m.live())
        wait("the processor is out", lambda: not m.ours or "current='1'" in m.live())
        wait("its images are closed", lambda: "slow.img" not in json.dumps(m.qmp("query-named-block-nodes")))
    finally:
        m.virsh("destroy")


def main():
    global WORLD
    if os.geteuid() == 0 and not os.environ.get("RUCHE_OWN_NET"):
        os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.argv], {**os.environ, "RUCHE_OWN_NET": "1"})
    libvirt.virEventRegisterDefaultImpl()

    def run():
        while True:
            libvirt.virEventRunDefaultImpl()
    threading.Thread(target=run, daemon=True).start()
    WORLD = World()
    tests, only = {}, sys.argv[4:]
    for label, emulator in (("ruche-vmm", VMM), ("QEMU", QEMU)):
        for name, fn in list(globals().items()):
            if name.startswith("test_") and (not only or name[5:] in only or label in only) and not (label == "QEMU" and not QEMU):
                tests[f"{name[5:]} ({label})"] = (lambda f=fn, e=emulator: f(e))
    try:
        tap.run(tests)
    finally:
        WORLD.close()


if __name__ == "__main__":
    main()
