#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What programs on top of libvirt ask of ruched: Cockpit's machines page by way of libvirt-dbus, WebVirtCloud and WebVirtMgr by
python3-libvirt, Ansible's modules in a playbook. TAP.

    libvirt_managers.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL [TESTS]

WebVirtCloud, WebVirtMgr and Cockpit are not packages here: their calls are made in their place, with the arguments that they give.
"""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile

import libvirt
import tap
from libvirt_rpc import Daemon, listens, wait_for

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RUCHED, VMM, IMG, KERNEL = (os.path.abspath(p) for p in sys.argv[1:5])
WORK = tempfile.mkdtemp(prefix="managers-")
os.chmod(WORK, 0o755)
ENV = {**os.environ, "LC_ALL": "C.UTF-8", "HOME": WORK, "XDG_CACHE_HOME": WORK, "XDG_CONFIG_HOME": WORK}
MAC = "52:54:00:00:00:01"
DAEMON = None


def path(name, text=None):
    where = os.path.join(WORK, name)
    if text is not None:
        with open(where, "w", encoding="utf-8") as out:
            out.write(text)
    return where


def uri():
    return f"qemu+unix:///system?socket={DAEMON.socket}"


def make_disk(name, size=1 << 20):
    with open(path(name), "wb") as out:
        out.truncate(size)
    os.chmod(path(name), 0o666)


def disk_xml(name, target):
    make_disk(name)
    return (f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{path(name)}'/>"
            f"<target dev='{target}' bus='virtio'/></disk>")


def domain_xml(name, ports=4):
    return f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{KERNEL}</kernel></os><features><acpi/></features><devices><emulator>{VMM}</emulator>
<controller type='pci' model='pcie-root'/>{"<controller type='pci' model='pcie-root-port'/>" * (ports + 6)}{disk_xml(name + '.img', 'vda')}
<interface type='user'><mac address='{MAC}'/><model type='virtio'/></interface><serial type='pty'/><console type='pty'/>
</devices></domain>"""


def pool_xml(name):
    return f"<pool type='dir'><name>{name}</name><target><path>{path(name)}</path></target></pool>"


def volume_xml(name, size=1 << 20, form="qcow2"):
    return f"<volume><name>{name}</name><capacity>{size}</capacity><allocation>0</allocation><target><format type='{form}'/></target></volume>"


@contextlib.contextmanager
def connection():
    c = libvirt.open(uri())
    try:
        yield c
    finally:
        c.close()


# ---- Cockpit ----

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=@/bus</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"""
# libvirt-dbus knows one place of the socket only: it gets a /run/libvirt of its own.
LIBVIRT_DBUS = """mkdir -p /run/libvirt && mount -t tmpfs none /run/libvirt && ln -s "$1" /run/libvirt/libvirt-sock && exec /usr/sbin/libvirt-dbus --session"""
TOP = "/org/libvirt/QEMU"


class Bus:
    """A bus of our own with libvirt-dbus on it, and all signals that it sends."""

    def __init__(self):
        if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
            raise tap.Skip("no mount namespaces here")
        if not os.path.exists("/usr/sbin/libvirt-dbus") or not shutil.which("gdbus"):
            raise tap.Skip("libvirt-dbus is not installed")
        self.programs, address = [], f"unix:path={path('bus')}"
        self.env = {**ENV, "DBUS_SESSION_BUS_ADDRESS": address}
        self.start("dbus-daemon", "--config-file=" + path("bus.conf", BUS.replace("@", WORK)), "--nofork", "--nopidfile")
        wait_for("the bus", lambda: listens(path("bus")))
        self.signals = open(path("signals"), "w+", encoding="utf-8")
        self.start("gdbus", "monitor", "--session", "--dest", "org.libvirt", stdout=self.signals)
        self.start("unshare", "-m", "sh", "-c", LIBVIRT_DBUS, "sh", DAEMON.socket)
        subprocess.run(["gdbus", "wait", "--session", "--timeout", "120", "org.libvirt"], check=True, env=self.env)
        wait_for("who hears signals", lambda: "is owned by" in self.heard())

    def start(self, *command, **more):
        more.setdefault("stdout", subprocess.DEVNULL)
        self.programs.append(subprocess.Popen(command, stderr=subprocess.DEVNULL, env=self.env, **more))

    def heard(self):
        with open(path("signals"), encoding="utf-8") as f:
            return f.read()

    def call(self, at, method, *args):
        name = method if method.startswith("org.") else "org.libvirt." + method
        done = subprocess.run(["gdbus", "call", "--session", "--timeout", "120", "-d", "org.libvirt", "-o", at, "-m", name, "--", *map(str, args)],
                              capture_output=True, text=True, env=self.env, timeout=300, check=False)
        assert done.returncode == 0, f"{method}: {done.stderr}"
        return done.stdout

    def object(self, at, method, *args):
        """The path in an answer."""
        return re.search(r"'(/org/libvirt/[^']+)'", self.call(at, method, *args)).group(1)

    def properties(self, at, interface):
        return self.call(at, "org.freedesktop.DBus.Properties.GetAll", "org.libvirt." + interface).replace("<<", "<").replace(">>", ">")

    def close(self):
        for p in reversed(self.programs):
            p.send_signal(signal.SIGTERM)
            p.wait(120)
        self.signals.close()


def cockpit():
    b = Bus()
    try:
        cockpit_host(b)
        cockpit_machine(b)
        cockpit_pool(b)
        cockpit_network(b)
    finally:
        b.close()
        clear()


def clear():
    """What a test that failed left would make the next one fail."""
    with connection() as c:
        for d in c.listAllDomains():
            persistent = d.isPersistent()
            if d.isActive():
                d.destroy()
            if persistent:
                d.undefine()


def cockpit_host(b):
    assert "<uint64 9000000>" in b.properties(TOP, "Connect")
    assert "<capabilities>" in b.call(TOP, "Connect.GetCapabilities") and "total" in b.call(TOP, "Connect.NodeGetMemoryStats", -1, 0)
    assert "<domainCapabilities>" in b.call(TOP, "Connect.GetDomainCapabilities", "", "x86_64", "q35", "qemu", 0)
    for kind in ("Domains", "Networks", "StoragePools", "NodeDevices", "Interfaces"):
        assert b.call(TOP, f"Connect.List{kind}", 0).startswith("("), kind


def cockpit_machine(b):
    d = b.object(TOP, "Connect.DomainDefineXML", domain_xml("page"))
    assert d in b.call(TOP, "Connect.ListDomains", 0) and d in b.call(TOP, "Connect.DomainLookupByName", "page")
    wait_for("the signal of a definition", lambda: f"DomainEvent (objectpath '{d}', 0, 0)" in b.heard())
    about = b.properties(d, "Domain")
    assert "'Name': <'page'>" in about and "'Active': <false>" in about and "'Persistent': <true>" in about, about
    b.call(d, "Domain.Create", 0)
    wait_for("the signal of a start", lambda: f"DomainEvent (objectpath '{d}', 2, 0)" in b.heard())
    assert b.call(d, "Domain.GetState", 0) == "((1, 1),)\n", b.call(d, "Domain.GetState", 0)
    for flags in (0, 2):  # as it runs, and as it is stored
        assert "<name>page</name>" in b.call(d, "Domain.GetXMLDesc", flags)
    stats = b.call(d, "Domain.GetStats", 2 | 4 | 8 | 32, 0)
    for word in ("cpu.time", "balloon.current", "vcpu.maximum", "block.0.capacity"):
        assert word in stats, stats
    assert "page" in b.call(TOP, "Connect.GetAllDomainStats", 0, 0)
    b.call(d, "Domain.AttachDevice", disk_xml("more.img", "vdb"), 2)
    assert "more.img" in b.call(d, "Domain.GetXMLDesc", 2)
    b.call(d, "Domain.DetachDevice", disk_xml("more.img", "vdb"), 2)
    assert "more.img" not in b.call(d, "Domain.GetXMLDesc", 2)
    down = f"<interface type='user'><mac address='{MAC}'/><model type='virtio'/><link state='down'/></interface>"
    b.call(d, "Domain.UpdateDevice", down, 2)
    assert "<link state" in b.call(d, "Domain.GetXMLDesc", 2)
    b.call(d, "Domain.InterfaceAddresses", 0, 0)
    b.call(d, "org.freedesktop.DBus.Properties.Set", "org.libvirt.Domain", "Autostart", "<true>")
    assert "'Autostart': <true>" in b.properties(d, "Domain")
    b.call(d, "Domain.SetMemory", 32768, 2)
    for method, event in (("Suspend", "3, 0"), ("Resume", "4, 0")):
        b.call(d, "Domain." + method)
        wait_for(f"the signal of {method}", lambda event=event: f"DomainEvent (objectpath '{d}', {event})" in b.heard())
    b.call(d, "Domain.Reset", 0)
    b.call(d, "Domain.Destroy", 0)
    wait_for("the signal of the end", lambda: f"DomainEvent (objectpath '{d}', 5, 1)" in b.heard())
    b.call(d, "Domain.Rename", "other", 0)
    assert "other" in b.properties(d, "Domain")
    b.call(d, "Domain.Undefine", 0)
    wait_for("the signal of its going", lambda: re.search(rf"DomainEvent \(objectpath '{d}', 1, 0\)", b.heard()))


def cockpit_pool(b):
    os.makedirs(path("shelf"))
    p = b.object(TOP, "Connect.StoragePoolDefineXML", pool_xml("shelf"), 0)
    b.call(p, "StoragePool.Create", 0)
    wait_for("the signal of the pool", lambda: f"StoragePoolEvent (objectpath '{p}', 2, 0)" in b.heard())
    b.call(p, "org.freedesktop.DBus.Properties.Set", "org.libvirt.StoragePool", "Autostart", "<true>")
    about = b.properties(p, "StoragePool")
    assert "'Autostart': <true>" in about and "'Active': <true>" in about and "'Persistent': <true>" in about, about
    v = b.object(p, "StoragePool.StorageVolCreateXML", volume_xml("v"), 0)
    b.call(p, "StoragePool.Refresh", 0)
    assert v in b.call(p, "StoragePool.ListStorageVolumes", 0) and "<name>shelf</name>" in b.call(p, "StoragePool.GetXMLDesc", 0)
    assert v in b.call(p, "StoragePool.StorageVolLookupByName", "v") and v in b.call(TOP, "Connect.StorageVolLookupByPath", path("shelf/v"))
    assert "<capacity unit='bytes'>1048576</capacity>" in b.call(v, "StorageVol.GetXMLDesc", 0).replace('\\"', "'").replace('"', "'").replace("\\'", "'")
    b.call(v, "StorageVol.Delete", 0)
    for method in ("Destroy", "Undefine"):
        b.call(p, "StoragePool." + method)


def cockpit_network(b):
    """Only what the page shows: networks have tests of their own."""
    for n in re.findall(r"'(/org/libvirt/[^']+)'", b.call(TOP, "Connect.ListNetworks", 0)):
        assert "<network" in b.call(n, "Network.GetXMLDesc", 0) and "'Active': <" in b.properties(n, "Network")


# ---- WebVirtCloud and WebVirtMgr ----

def pages():
    """Call by call as their pages do; the name of a row is the procedure's."""
    os.makedirs(path("images"))
    with connection() as c:
        d = c.defineXML(domain_xml("web"))
        p = c.storagePoolDefineXML(pool_xml("images"), 0)
        rows = (web_host(c), web_pool(c, p), web_machine(c, d), web_end(d, p))
        wrong, seen = [], 0
        for part in rows:
            for name, call, good in part:
                seen += 1
                try:
                    answer = call()
                    if not (good(answer) if callable(good) else answer == good):
                        wrong.append(f"{name}: {answer!r}")
                except libvirt.libvirtError as e:
                    wrong.append(f"{name}: {e}")
        clear()
        assert not wrong, "\n".join(wrong)
        assert seen > 60, seen


def anything(_):
    return True


def web_host(c):
    yield "CONNECT_GET_TYPE", c.getType, "QEMU"
    yield "CONNECT_GET_URI", c.getURI, lambda a: "qemu" in a
    yield "CONNECT_GET_HOSTNAME", c.getHostname, os.uname().nodename
    yield "CONNECT_GET_LIB_VERSION", c.getLibVersion, 9000000
    yield "CONNECT_GET_MAX_VCPUS", lambda: c.getMaxVcpus("kvm"), lambda a: a >= 2
    yield "NODE_GET_INFO", c.getInfo, lambda a: a[0] == "x86_64" and a[2] == os.cpu_count()
    yield "NODE_GET_MEMORY_STATS", lambda: c.getMemoryStats(libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS, 0), lambda a: {"total", "free", "buffers", "cached"} <= set(a)
    yield "NODE_GET_CPU_STATS", lambda: c.getCPUStats(-1, 0), lambda a: {"kernel", "user", "idle", "iowait"} <= set(a)
    yield "CONNECT_GET_CAPABILITIES", c.getCapabilities, lambda a: "<guest>" in a
    yield "CONNECT_GET_DOMAIN_CAPABILITIES", lambda: c.getDomainCapabilities(None, "x86_64", "q35", "qemu", 0), lambda a: "<domainCapabilities>" in a
    if os.path.exists("/sys/class/dmi/id/sys_vendor"):
        yield "CONNECT_GET_SYSINFO", lambda: c.getSysinfo(0), lambda a: "<sysinfo" in a
    yield "CONNECT_LIST_ALL_DOMAINS", lambda: [x.name() for x in c.listAllDomains(0)], ["web"]
    yield "CONNECT_LIST_DEFINED_DOMAINS", c.listDefinedDomains, ["web"]
    yield "CONNECT_LIST_DOMAINS", c.listDomainsID, []
    for kind in ("Networks", "DefinedNetworks", "Interfaces", "DefinedInterfaces", "Secrets", "NWFilters", "StoragePools", "DefinedStoragePools"):
        yield "CONNECT_LIST_" + kind, getattr(c, "list" + kind), lambda a: isinstance(a, list)
    yield "CONNECT_LIST_ALL_NODE_DEVICES", lambda: c.listAllDevices(0), lambda a: isinstance(a, list)
    for n in c.listAllNetworks():
        yield "NETWORK_LOOKUP_BY_NAME", lambda n=n: c.networkLookupByName(n.name()).name(), n.name()
        yield "NETWORK_GET_XML_DESC", lambda n=n: n.XMLDesc(0), lambda a: "<network" in a
        yield "NETWORK_GET_AUTOSTART", n.autostart, lambda a: a in (0, 1)
        yield "NETWORK_IS_ACTIVE", n.isActive, lambda a: a in (0, 1)


def web_pool(c, p):
    yield "STORAGE_POOL_BUILD", lambda: p.build(0), 0
    yield "STORAGE_POOL_CREATE", lambda: p.create(0), 0
    yield "STORAGE_POOL_SET_AUTOSTART", lambda: p.setAutostart(1), 0
    yield "STORAGE_POOL_GET_AUTOSTART", p.autostart, 1
    yield "STORAGE_POOL_IS_ACTIVE", p.isActive, 1
    yield "CONNECT_LIST_STORAGE_POOLS", c.listStoragePools, lambda a: "images" in a
    yield "STORAGE_POOL_LOOKUP_BY_NAME", lambda: c.storagePoolLookupByName("images").name(), "images"
    yield "STORAGE_POOL_GET_INFO", p.info, lambda a: a[0] == libvirt.VIR_STORAGE_POOL_RUNNING and a[1] >= a[2]
    yield "STORAGE_POOL_GET_XML_DESC", lambda: p.XMLDesc(0), lambda a: path("images") in a
    yield "STORAGE_VOL_CREATE_XML", lambda: p.createXML(volume_xml("one.qcow2"), 0).name(), "one.qcow2"
    yield "STORAGE_VOL_CREATE_XML preallocated", lambda: p.createXML(volume_xml("two.qcow2"), libvirt.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA).name(), "two.qcow2"
    yield "STORAGE_POOL_REFRESH", lambda: p.refresh(0), 0
    yield "STORAGE_POOL_LIST_VOLUMES", lambda: sorted(p.listVolumes()), ["one.qcow2", "two.qcow2"]
    v = p.storageVolLookupByName("one.qcow2")
    yield "STORAGE_VOL_LOOKUP_BY_PATH", lambda: c.storageVolLookupByPath(v.path()).name(), "one.qcow2"
    yield "STORAGE_POOL_LOOKUP_BY_VOLUME", lambda: v.storagePoolLookupByVolume().name(), "images"
    yield "STORAGE_VOL_GET_INFO", v.info, lambda a: a[1] == 1 << 20
    yield "STORAGE_VOL_GET_XML_DESC", lambda: v.XMLDesc(0), lambda a: "<format type='qcow2'/>" in a
    yield "STORAGE_VOL_RESIZE", lambda: v.resize(2 << 20), 0
    yield "STORAGE_VOL_CREATE_XML_FROM", lambda: p.createXMLFrom(volume_xml("copy.qcow2"), v, 0).name(), "copy.qcow2"
    for name in ("one.qcow2", "two.qcow2", "copy.qcow2"):
        yield "STORAGE_VOL_DELETE", lambda name=name: p.storageVolLookupByName(name).delete(0), 0


def web_machine(c, d):
    yield "DOMAIN_SET_AUTOSTART", lambda: d.setAutostart(1), 0
    yield "DOMAIN_GET_AUTOSTART", d.autostart, 1
    yield "DOMAIN_SET_MEMORY_FLAGS", lambda: d.setMemoryFlags(65536, libvirt.VIR_DOMAIN_AFFECT_CONFIG), 0
    yield "DOMAIN_DEFINE_XML", lambda: c.defineXML(d.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE)).name(), "web"
    yield "DOMAIN_ATTACH_DEVICE off", lambda: d.attachDeviceFlags(disk_xml("extra.img", "vdc"), libvirt.VIR_DOMAIN_AFFECT_CONFIG), 0
    yield "DOMAIN_DETACH_DEVICE_FLAGS", lambda: d.detachDeviceFlags(disk_xml("extra.img", "vdc"), libvirt.VIR_DOMAIN_AFFECT_CONFIG), 0
    yield "DOMAIN_CREATE_WITH_FLAGS", lambda: d.createWithFlags(0), 0
    yield "DOMAIN_LOOKUP_BY_ID", lambda: c.lookupByID(d.ID()).name(), "web"
    yield "DOMAIN_LOOKUP_BY_NAME", lambda: c.lookupByName("web").UUIDString(), d.UUIDString()
    yield "DOMAIN_GET_INFO", d.info, lambda a: a[0] == 1 and a[1] == 65536 and a[3] == 2
    yield "DOMAIN_GET_XML_DESC", lambda: d.XMLDesc(libvirt.VIR_DOMAIN_XML_SECURE), lambda a: "<name>web</name>" in a
    yield "DOMAIN_BLOCK_STATS", lambda: d.blockStats("vda"), lambda a: len(a) == 5
    yield "DOMAIN_INTERFACE_STATS", lambda: d.interfaceStats(re.search(r"<target dev='([^']+)'/>\s*<model", d.XMLDesc(0)).group(1) if "<target dev='vnet" in d.XMLDesc(0)
                                                              else MAC), lambda a: len(a) == 8
    yield "DOMAIN_MEMORY_STATS", d.memoryStats, lambda a: a["actual"] == 65536 and a["rss"] > 0
    yield "DOMAIN_GET_CPU_STATS", lambda: d.getCPUStats(True, 0), lambda a: a[0]["cpu_time"] > 0
    yield "DOMAIN_INTERFACE_ADDRESSES", lambda: d.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE, 0), lambda a: isinstance(a, dict)
    yield "DOMAIN_GET_BLOCK_JOB_INFO", lambda: d.blockJobInfo("vda", 0), {}
    yield "DOMAIN_SUSPEND", d.suspend, 0
    yield "DOMAIN_RESUME", d.resume, 0
    up = f"<interface type='user'><mac address='{MAC}'/><model type='virtio'/><link state='down'/></interface>"
    yield "DOMAIN_UPDATE_DEVICE_FLAGS", lambda: d.updateDeviceFlags(up, libvirt.VIR_DOMAIN_AFFECT_LIVE), 0
    yield "DOMAIN_HAS_MANAGED_SAVE_IMAGE", lambda: d.hasManagedSaveImage(0), 0
    yield "DOMAIN_SNAPSHOT_NUM", lambda: d.snapshotNum(0), 0
    yield "DOMAIN_SNAPSHOT_LIST_NAMES", lambda: d.snapshotListNames(0), []
    yield "DOMAIN_SHUTDOWN", d.shutdown, 0
    yield "DOMAIN_DESTROY", d.destroy, 0
    yield "DOMAIN_CREATE", d.create, 0
    yield "DOMAIN_ATTACH_DEVICE", lambda: d.attachDevice(disk_xml("late.img", "vdd")), 0
    yield "what was attached", lambda: "late.img" in d.XMLDesc(0) and "late.img" not in d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), True
    yield "DOMAIN_DESTROY again", d.destroy, 0


def web_end(d, p):
    yield "DOMAIN_UNDEFINE_FLAGS", lambda: d.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE), 0
    yield "STORAGE_POOL_DESTROY", p.destroy, 0
    yield "STORAGE_POOL_UNDEFINE", p.undefine, 0


# ---- Ansible ----

PLAYBOOK = """- hosts: localhost
  connection: local
  gather_facts: false
  vars: {{ansible_python_interpreter: /usr/bin/python3}}
  tasks:
    - community.libvirt.virt: {{uri: "{uri}", command: define, xml: "{{{{ lookup('file', '{work}/play.xml') }}}}"}}
      register: defined
    - assert: {{that: [defined is changed]}}
    - community.libvirt.virt: {{uri: "{uri}", command: list_vms}}
      register: all
    - assert: {{that: ["all.list_vms == ['play']"]}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, state: running}}
      register: first
    - community.libvirt.virt: {{uri: "{uri}", name: play, state: running}}
      register: second
    - assert: {{that: [first is changed, second is not changed]}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, command: status}}
      register: status
    - community.libvirt.virt: {{uri: "{uri}", command: info}}
      register: info
    - assert: {{that: ["status.status == 'running'", "info.play.nrVirtCpu == 2", "info.play.state == 'running'"]}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, command: pause}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, command: unpause}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, autostart: true}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, state: destroyed}}
    - community.libvirt.virt: {{uri: "{uri}", name: play, command: undefine}}
    - community.libvirt.virt: {{uri: "{uri}", command: define, xml: "{{{{ lookup('file', '{work}/play2.xml') }}}}"}}
    - community.libvirt.virt: {{uri: "{uri}", name: play2, command: create}}
    - community.libvirt.virt: {{uri: "{uri}", name: play2, command: destroy}}
    - community.libvirt.virt: {{uri: "{uri}", name: play2, command: undefine}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, command: define, xml: "{{{{ lookup('file', '{work}/heap.xml') }}}}"}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, command: build}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, state: active}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, autostart: true}}
    - community.libvirt.virt_pool: {{uri: "{uri}", command: info}}
      register: pools
    - community.libvirt.virt_pool: {{uri: "{uri}", command: list_pools}}
      register: names
    - assert: {{that: ["pools.pools.heap.state == 'active'", "'heap' in names.list_pools"]}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, command: refresh}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, state: inactive}}
    - community.libvirt.virt_pool: {{uri: "{uri}", name: heap, state: undefined}}
    - community.libvirt.virt_net: {{uri: "{uri}", command: list_nets}}
"""


def ansible():
    if not shutil.which("ansible-playbook"):
        raise tap.Skip("ansible-core is not installed")
    collections = subprocess.run([os.path.join(ROOT, "tools", "test-collection")], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    path("play.xml", domain_xml("play"))
    path("play2.xml", domain_xml("play2"))
    path("heap.xml", pool_xml("heap"))
    path("play.yml", PLAYBOOK.format(uri=uri(), work=WORK))
    done = subprocess.run(["ansible-playbook", "-i", "localhost,", path("play.yml")], capture_output=True, text=True, timeout=900, check=False,
                          env={**ENV, "ANSIBLE_COLLECTIONS_PATH": collections, "ANSIBLE_LOCAL_TEMP": path("ansible"), "ANSIBLE_NOCOLOR": "1",
                               "ANSIBLE_PIPELINING": "1"})
    assert done.returncode == 0 and "failed=0" in done.stdout, done.stdout[-4000:] + done.stderr[-2000:]


def main():
    global DAEMON
    libvirt.registerErrorHandler(lambda *_: None, None)
    DAEMON = Daemon(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\n")
    tests = (cockpit, pages, ansible)
    try:
        tap.run({t.__name__: t for t in tests if not sys.argv[5:] or t.__name__ in sys.argv[5:]})
    finally:
        with contextlib.suppress(libvirt.libvirtError):
            clear()
        DAEMON.stop()
        shutil.rmtree(WORK, ignore_errors=True)


main()
