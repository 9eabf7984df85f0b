#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's virt-install, virt-xml, virt-clone, python3-libvirt and libvirt-dbus against ruched, as people use them. TAP.

    libvirt_clients.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL
"""
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import libvirt  # noqa: E402
import tap  # noqa: E402
from guest import copy_disk  # noqa: E402
from libvirt_rpc import Daemon, listens, wait_for  # noqa: E402

RUCHED, VMM, IMG, KERNEL = (os.path.abspath(p) for p in sys.argv[1:5])
WORK = tempfile.mkdtemp(prefix="clients-")
os.chmod(WORK, 0o755)
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "XDG_CONFIG_HOME": WORK}
HOST, OUTSIDE = (f"rc{os.getpid()}{x}" for x in "ho")  # network namespaces: ruched's, and the world's
# There, with a /sys of that namespace; `ip netns exec` would lose the control groups below it.
IN_HOST = ("nsenter", f"--net=/run/netns/{HOST}", "unshare", "--mount", "sh", "-ec",
           'kept=$(mktemp -d); mount --rbind /sys/fs/cgroup "$kept"; mount -t sysfs sysfs /sys; mount --move "$kept" /sys/fs/cgroup; '
           'rmdir "$kept"; exec "$@"', "sh")
UPLINK, WORLD = "198.51.100.2", "198.51.100.1"
SERVER = f"""import socketserver
class Answer(socketserver.StreamRequestHandler):
    def handle(self):
        self.rfile.readline()
        self.wfile.write(f'HTTP/1.0 200 OK\\r\\n\\r\\nfrom {{self.client_address[0]}}\\n'.encode())
server = socketserver.TCPServer(('{WORLD}', 8000), Answer)
print('ready', flush=True)
server.serve_forever()
"""
# In the guest: its address and DNS server are the lease's.
ASK = ("until grep -qs ^DNS= /run/systemd/netif/leases/*; do sleep 1; done; sed -n 's/^DNS=/nameserver /p' /run/systemd/netif/leases/* >/etc/resolv.conf; "
       "curl -s http://outside.test:8000/\n")
BOOT_SECONDS = 600
DAEMON = None
NO_SUPPORT, CONFIG, NO_SNAPSHOT, NO_METADATA, INVALID, AGENT = 3, 67, 72, 80, 55, 86


def path(name):
    return os.path.join(WORK, name)


def uri():
    return f"qemu+unix:///system?socket={DAEMON.socket}"


def run(*command, seconds=600):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False, env=ENV, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def domain_xml(name, disks=""):
    return f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{KERNEL}</kernel></os><devices><emulator>{VMM}</emulator>{disks}
<interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface><serial type='pty'/><console type='pty'/></devices></domain>"""


def disk_xml(name, target, kind="raw"):
    return (f"<disk type='file' device='disk'><driver name='qemu' type='{kind}'/><source file='{path(name)}'/>"
            f"<target dev='{target}' bus='virtio'/></disk>")


def make_disk(name, size):
    with open(path(name), "wb") as out:
        out.truncate(size)
    os.chmod(path(name), 0o666)


@contextlib.contextmanager
def connection():
    c = libvirt.open(uri())
    try:
        yield c
    finally:
        c.close()


@contextlib.contextmanager
def defined(c, name, disks="", start=False):
    d = c.defineXML(domain_xml(name, disks))
    try:
        if start:
            d.create()
        yield d
    finally:
        if d.isActive():
            d.destroy()
        d.undefine()


# ---- virt-install ----

class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command):
        self.fd, slave = os.openpty()
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=ENV, start_new_session=True)
        os.close(slave)
        os.set_blocking(self.fd, False)
        self.text = ""

    def expect(self, word, seconds):
        def is_there():
            try:
                self.text += os.read(self.fd, 65536).decode("utf-8", "replace")
            except BlockingIOError:
                pass
            except OSError:
                assert word in self.text, f"it ended without '{word}': {self.text[-1500:]}"
            return word in self.text
        try:
            wait_for(f"'{word}'", is_there, seconds)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.text[-1500:]}") from None
        self.text = self.text.split(word, 1)[1]

    def send(self, text):
        os.write(self.fd, text.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.fd)


def build_world():
    for ns in (HOST, OUTSIDE):
        run("ip", "netns", "add", ns)
        run("ip", "-n", ns, "link", "set", "lo", "up")
    run("ip", "link", "add", "up0", "netns", HOST, "type", "veth", "peer", "name", "w0", "netns", OUTSIDE)
    for ns, dev, address in ((HOST, "up0", UPLINK), (OUTSIDE, "w0", WORLD)):
        run("ip", "-n", ns, "addr", "add", address + "/24", "dev", dev)
        run("ip", "-n", ns, "link", "set", dev, "up")
    run("ip", "-n", HOST, "route", "add", "default", "via", WORLD)


@contextlib.contextmanager
def server_outside():
    with subprocess.Popen(["ip", "netns", "exec", OUTSIDE, sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout.readline() == "ready\n"
            yield
        finally:
            server.kill()


def virt_install_boots_debian():
    """A volume of a pool and the network 'default': a lease, names by its DNS, the world by masquerade."""
    image = subprocess.run([os.path.join(ROOT, "tools", "guest-image")], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    os.makedirs(path("disks"))
    copy_disk(os.path.join(image, "disk.img"), path("disks/debian.img"))
    for words in (("pool-create-as", "disks", "dir", "--target", path("disks")), ("net-start", "default"),
                  ("net-update", "default", "add", "dns-host", f"<host ip='{WORLD}'><hostname>outside.test</hostname></host>", "--live")):
        run("virsh", "-c", uri(), *words)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(os.path.join(image, name), path(name))
    t = Terminal("virt-install", "--connect", uri(), "--virt-type", "qemu", "--name", "debian", "--memory", "512", "--vcpus", "1", "--import",
                 "--disk", "vol=disks/debian.img,bus=virtio", "--graphics", "none", "--network", "network=default,model=virtio",
                 "--boot", f"kernel={path('vmlinuz')},initrd={path('initrd.img')},kernel_args=root=/dev/vda rw console=ttyS0",
                 "--osinfo", "detect=off,require=off")
    try:
        t.expect("login:", BOOT_SECONDS)
        t.send("\x1d")
        assert t.process.wait(120) == 0
    finally:
        t.close()
    again = Terminal("virsh", "-c", uri(), "console", "debian")
    try:
        again.expect("Escape character", 120)
        tap.wait_raw(again.fd)
        again.send("root\n")
        again.expect("guest:~#", 300)
        again.send("echo $((6*7))-there\n")
        again.expect("42-there", 120)
        with server_outside():
            again.send(ASK)
            again.expect(f"from {UPLINK}", 300)
        again.send("\x1d")
        assert again.process.wait(120) == 0
    finally:
        again.close()
    with connection() as c:
        d = c.lookupByName("debian")
        assert d.isActive() and d.isPersistent() and d.blockStats("vda")[1] > 1 << 20
        net = c.networkLookupByName("default")
        lease = net.DHCPLeases()[0]
        assert lease["hostname"] == "guest" and lease["mac"] in d.XMLDesc(), lease
        told = d.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
        assert lease["ipaddr"] in str(told), (lease, told)
        d.shutdown()
        wait_for("the guest's end", lambda: not d.isActive(), BOOT_SECONDS)
        assert d.state()[0] == libvirt.VIR_DOMAIN_SHUTOFF
        d.undefine()
        c.storagePoolLookupByName("disks").destroy()
        net.destroy()


def virt_xml_changes():
    with connection() as c, defined(c, "changed", disk_xml("one.img", "vda")) as d:
        def edit(*words):
            run("virt-xml", "--connect", uri(), "changed", *words)

        edit("--edit", "--memory", "48,maxmemory=96")
        edit("--edit", "--vcpus", "3")
        edit("--edit", "target=vda", "--disk", "cache=none")
        edit("--add-device", "--disk", f"path={path('added.qcow2')},size=0.01,bus=virtio,format=qcow2")
        edit("--edit", "--metadata", "title=a title")
        text = d.XMLDesc(0)
        assert d.maxMemory() == 96 << 10 and d.vcpusFlags(libvirt.VIR_DOMAIN_VCPU_MAXIMUM | 2) == 3, text
        assert "cache='none'" in text and path("added.qcow2") in text and "<title>a title</title>" in text, text
        edit("--remove-device", "--disk", path("added.qcow2"))
        assert path("added.qcow2") not in d.XMLDesc(0)


def virt_clone_copies():
    data = os.urandom(3000000)
    with open(path("first.raw"), "wb") as out:
        out.write(data)
    run(IMG, "create", "-f", "qcow2", path("second.qcow2"), "4M")
    with connection() as c, defined(c, "first", disk_xml("first.raw", "vda") + disk_xml("second.qcow2", "vdb", "qcow2")) as d:
        run("virt-clone", "--connect", uri(), "--original", "first", "--name", "twin", "--auto-clone")
        twin = c.lookupByName("twin")
        with open(path("first-clone.raw") if os.path.exists(path("first-clone.raw")) else path("twin.raw"), "rb") as back:
            assert back.read() == data
        assert twin.UUIDString() != d.UUIDString() and "52:54:00:00:00:01" not in twin.XMLDesc(0)
        twin.create()
        twin.destroy()
        twin.undefine()


# ---- python3-libvirt ----

def events_and_keepalive():
    seen = []
    with connection() as c:
        c.setKeepAlive(1, 5)
        ids = [c.domainEventRegisterAny(None, n, lambda c, d, *a, n=n: seen.append((n, d.name(), a[:-1])), None) for n in range(24)]
        pool = c.storagePoolEventRegisterAny(None, 0, lambda c, p, event, *_: seen.append(("pool", p.name(), event)), None)
        for register in (c.networkEventRegisterAny, c.nodeDeviceEventRegisterAny, c.secretEventRegisterAny):
            register(None, 0, lambda *_: None, None)
        with defined(c, "events", start=True) as d:
            d.suspend()
            d.resume()
            d.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, "<a/>", "k", "urn:k", 2)
            d.reset()
            wait_for("the reset's event", lambda: any(n == 1 for n, *_ in seen))  # which the machine tells by itself
        os.makedirs(path("short"))
        p = c.storagePoolCreateXML(f"<pool type='dir'><name>short</name><target><path>{path('short')}</path></target></pool>")
        p.destroy()
        wait_for("the life cycle's events", lambda: [a[0] for n, _, a in seen if n == 0] == [0, 2, 3, 4, 5, 1])
        assert (23, "events", (2, "urn:k")) in seen, seen
        wait_for("the pool's", lambda: [e for n, _, e in seen if n == "pool"] == [2, 3])
        time.sleep(7)  # longer than the keepalive's patience
        assert c.isAlive() and c.isSecure()
        for i in ids:
            c.domainEventDeregisterAny(i)
        c.storagePoolEventDeregisterAny(pool)


def threads_on_one_connection():
    wrong = []

    def work(d):
        try:
            for _ in range(100):
                assert d.info()[3] == 2 and d.name() in d.XMLDesc(0) and d.connect().listAllDomains()
        except Exception as e:  # a thread's failure is told by the test
            wrong.append(e)

    with connection() as c, defined(c, "busy", start=True) as d:
        threads = [threading.Thread(target=work, args=(d,)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(300)
        assert not wrong and not any(t.is_alive() for t in threads), wrong


def console_stream():
    with connection() as c, defined(c, "stream", start=True) as d:
        first, second = c.newStream(libvirt.VIR_STREAM_NONBLOCK), c.newStream()
        d.openConsole(None, first, 0)
        assert first.send(b"hello") == 5
        code_of(lambda: d.openConsole(None, second, libvirt.VIR_DOMAIN_CONSOLE_SAFE), 84, 55)
        first.abort()
        third = c.newStream()
        d.openConsole(None, third, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
        third.finish()


def volumes_up_and_down():
    data = os.urandom(200000) + bytes(300000) + os.urandom(12345)
    os.makedirs(path("pool"))
    with connection() as c:
        p = c.storagePoolDefineXML(f"<pool type='dir'><name>pool</name><target><path>{path('pool')}</path></target></pool>")
        p.create()
        v = p.createXML(f"<volume><name>v</name><capacity>{len(data)}</capacity><target><format type='raw'/></target></volume>")
        s, at = c.newStream(), [0]

        def give(_, count, __):
            at[0] += count
            return data[at[0] - count:at[0]]

        v.upload(s, 0, len(data))
        s.sendAll(give, None)
        s.finish()
        for flags in (0, libvirt.VIR_STORAGE_VOL_DOWNLOAD_SPARSE_STREAM):
            s, parts = c.newStream(), []

            def take(_, part, __, parts=parts):
                parts.append(part)
                return len(part)

            v.download(s, 0, len(data), flags)
            if flags:
                s.sparseRecvAll(take, lambda _, count, __, parts=parts: parts.append(bytes(count)), None)
            else:
                s.recvAll(take, None)
            s.finish()
            assert b"".join(parts) == data, flags
        assert c.storageVolLookupByPath(v.path()).info()[1] == len(data)
        twin = p.createXMLFrom("<volume><name>w</name><capacity>0</capacity><target><format type='qcow2'/></target></volume>", v)
        assert {x.name() for x in p.listAllVolumes()} == {"v", "w"}
        twin.delete()
        v.delete()
        p.destroy()
        p.undefine()


# ---- the procedures that clients call ----

def code_of(call, *codes):
    try:
        call()
    except libvirt.libvirtError as e:
        assert e.get_error_code() in codes, f"{e.get_error_code()}: {e}"
    else:
        raise AssertionError(f"no error, not {codes}")


MAC = "52:54:00:00:00:01"
ANSWERS = (  # of a running domain with one disk: a call, and what its answer must be
    ("type", lambda c, d: c.getType() == "QEMU"), ("version", lambda c, d: c.getVersion() == 9000000),
    ("lib version", lambda c, d: c.getLibVersion() == 9000000), ("max vcpus", lambda c, d: c.getMaxVcpus("qemu") >= 2),
    ("node info", lambda c, d: c.getInfo()[2] == os.cpu_count()), ("hostname", lambda c, d: c.getHostname() == os.uname().nodename),
    ("URI", lambda c, d: "qemu" in c.getURI()), ("capabilities", lambda c, d: "<capabilities>" in c.getCapabilities()),
    ("domain capabilities", lambda c, d: "<domainCapabilities>" in c.getDomainCapabilities()), ("CPU map", lambda c, d: c.getCPUMap()[0] == os.cpu_count()),
    ("CPU models", lambda c, d: "qemu64" in c.getCPUModelNames("x86_64")), ("CPU stats", lambda c, d: c.getCPUStats(-1)["idle"] > 0),
    ("memory stats", lambda c, d: c.getMemoryStats(-1)["total"] > 0), ("cells", lambda c, d: c.getCellsFreeMemory(0, 1)[0] > 0),
    ("security model", lambda c, d: isinstance(c.getSecurityModel(), list)), ("list", lambda c, d: "table" in [x.name() for x in c.listAllDomains()]),
    ("ids", lambda c, d: d.ID() in c.listDomainsID()), ("defined", lambda c, d: "table" not in c.listDefinedDomains()),
    ("counts", lambda c, d: c.numOfDomains() >= 1 and c.numOfDefinedDomains() >= 0), ("by id", lambda c, d: c.lookupByID(d.ID()).name() == "table"),
    ("by uuid", lambda c, d: c.lookupByUUIDString(d.UUIDString()).name() == "table"), ("bulk stats", lambda c, d: c.getAllDomainStats()[0][1]["state.state"] == 1),
    ("networks", lambda c, d: [n.name() for n in c.listAllNetworks()] == ["default"] and c.listNetworks() == [] and c.numOfNetworks() == 0),
    ("interfaces", lambda c, d: "lo" in [i.name() for i in c.listAllInterfaces()] and "lo" in c.listInterfaces() + c.listDefinedInterfaces()),
    ("filters", lambda c, d: "clean-traffic" in [f.name() for f in c.listAllNWFilters()] and "clean-traffic" in c.listNWFilters()), ("secrets", lambda c, d: c.listAllSecrets() == [] and c.listSecrets() == []),
    ("devices", lambda c, d: "computer" in [x.name() for x in c.listAllDevices()]), ("autostart", lambda c, d: (d.setAutostart(1), d.autostart(), d.setAutostart(0))[1] == 1),
    ("info", lambda c, d: d.info()[:4] == [1, 65536, 65536, 2]), ("state", lambda c, d: d.state() == [1, 1]), ("max memory", lambda c, d: d.maxMemory() == 65536),
    ("vcpus", lambda c, d: len(d.vcpus()[0]) == 2 and d.maxVcpus() == 2), ("OS type", lambda c, d: d.OSType() == "hvm"),
    ("pins", lambda c, d: len(d.vcpuPinInfo()) == 2 and d.emulatorPinInfo()[0]), ("scheduler", lambda c, d: d.schedulerType()[0] == "posix" and d.schedulerParameters()["cpu_shares"] > 0),
    ("CPU time", lambda c, d: d.getCPUStats(True)[0]["cpu_time"] > 0 and len(d.getCPUStats(False)) >= 1), ("numa", lambda c, d: "numa_mode" in d.numaParameters()),
    ("memory limits", lambda c, d: d.memoryParameters()["hard_limit"] > 0), ("blkio", lambda c, d: "weight" in d.blkioParameters()),
    ("disk limits", lambda c, d: d.blockIoTune("vda")["total_bytes_sec"] == 0), ("link limits", lambda c, d: d.interfaceParameters(MAC)["inbound.average"] == 0),
    ("block stats", lambda c, d: len(d.blockStats("vda")) == 5 and "rd_bytes" in d.blockStatsFlags("vda")), ("block info", lambda c, d: d.blockInfo("vda")[0] == 1 << 20),
    ("interface stats", lambda c, d: len(d.interfaceStats(MAC)) == 8), ("memory stats of it", lambda c, d: d.memoryStats()["actual"] == 65536),
    ("job", lambda c, d: d.jobInfo()[0] == 0 and d.jobStats()["type"] == 0), ("control", lambda c, d: d.controlInfo()[0] == 0),
    ("no snapshots", lambda c, d: not d.hasCurrentSnapshot() and d.listAllSnapshots() == [] and d.snapshotNum() == 0 and d.snapshotListNames() == []),
    ("no saved", lambda c, d: not d.hasManagedSaveImage()), ("messages", lambda c, d: d.messages() == []), ("label", lambda c, d: d.securityLabel() is not None),
    ("disk errors", lambda c, d: d.diskErrors() == {}), ("addresses", lambda c, d: d.interfaceAddresses(libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE) == {}),
    ("block job", lambda c, d: d.blockJobInfo("vda") == {}), ("is updated", lambda c, d: d.isUpdated() in (0, 1)), ("persistent", lambda c, d: d.isPersistent() == 1),
    ("words", lambda c, d: (d.setMetadata(0, "words", None, None, 3), d.metadata(0, None))[1] == "words"), ("memory", lambda c, d: d.setMemory(65536) == 0),
    ("pin", lambda c, d: d.pinVcpu(0, (True,) + (False,) * (os.cpu_count() - 1)) == 0), ("IO threads", lambda c, d: d.ioThreadInfo() in ([], None)),
    ("pause", lambda c, d: d.suspend() == 0 and d.state()[0] == 3 and d.resume() == 0), ("reset", lambda c, d: d.reset() == 0),
    ("stats' period", lambda c, d: d.setMemoryStatsPeriod(2, 3) == 0 and "<stats period='2'/>" in d.XMLDesc(0) and "<stats period='2'/>" in d.XMLDesc(2)),
    ("no period", lambda c, d: d.setMemoryStatsPeriod(0, 3) == 0 and "<stats" not in d.XMLDesc(2)),
    ("resize", lambda c, d: d.blockResize("vda", 2 << 20, 1) == 0 and d.blockInfo("vda")[0] == 2 << 20),
)
REFUSALS = (  # a call, and the codes that say why it cannot be
    ("title", lambda c, d: d.metadata(1, None), NO_METADATA), ("current snapshot", lambda c, d: d.snapshotCurrent(), NO_SNAPSHOT),
    ("snapshot by name", lambda c, d: d.snapshotLookupByName("x"), NO_SNAPSHOT), ("agent's time", lambda c, d: d.getTime(), CONFIG, AGENT),
    ("set time", lambda c, d: d.setTime({"seconds": 5, "nseconds": 0}), CONFIG, AGENT), ("guest info", lambda c, d: d.guestInfo(), CONFIG, AGENT),
    ("vCPUs live", lambda c, d: d.setVcpus(1), CONFIG), ("most memory live", lambda c, d: d.setMaxMemory(32768), INVALID), ("rename live", lambda c, d: d.rename("x"), INVALID),
    ("start again", lambda c, d: d.create(), INVALID), ("no domain", lambda c, d: c.lookupByName("none"), 42), ("no network", lambda c, d: c.networkLookupByName("x"), 43),
    ("no pool", lambda c, d: c.storagePoolLookupByName("x"), 49), ("no volume", lambda c, d: c.storageVolLookupByPath("/x"), 50), ("no device", lambda c, d: c.nodeDeviceLookupByName("x"), 53),
    ("no interface", lambda c, d: c.interfaceLookupByName("x"), 57), ("no filter", lambda c, d: c.nwfilterLookupByName("x"), 62),
    ("no secret", lambda c, d: c.secretLookupByUUIDString(d.UUIDString()), 66), ("period", lambda c, d: d.setMemoryStatsPeriod(-1), INVALID, 8, 38),
    ("snapshot", lambda c, d: d.snapshotCreateXML("<domainsnapshot/>"), NO_SUPPORT),
    ("screenshot", lambda c, d: d.screenshot(c.newStream(), 0), 84), ("keys", lambda c, d: d.sendKey(0, 1, [1], 1), CONFIG),
    ("graphics", lambda c, d: d.openGraphicsFD(0), 8), ("define network", lambda c, d: c.networkDefineXML("<network/>"), 27), ("define secret", lambda c, d: c.secretDefineXML("<secret><usage/></secret>"), 27),
)


def procedures():
    wrong = []
    with connection() as c, defined(c, "table", disk_xml("one.img", "vda"), start=True) as d:
        for name, call in ANSWERS:
            try:
                if not call(c, d):
                    wrong.append(f"{name}: another answer")
            except Exception as e:  # all rows are tried
                wrong.append(f"{name}: {e}")
        for name, call, *codes in REFUSALS:
            try:
                code_of(lambda call=call: call(c, d), *codes)
            except AssertionError as e:
                wrong.append(f"{name}: {e}")
        assert c.isAlive()
    assert not wrong, "\n".join(wrong)


# ---- libvirt-dbus ----

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path=@/bus</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>"""
# libvirt-dbus knows one place of the socket only: it gets a /run/libvirt of its own.
DBUS = """mkdir -p /run/libvirt && mount -t tmpfs none /run/libvirt && ln -s "$1" /run/libvirt/libvirt-sock && exec /usr/sbin/libvirt-dbus --session"""


def dbus():
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        raise tap.Skip("no mount namespaces here")
    with open(path("bus.conf"), "w", encoding="ascii") as out:
        out.write(BUS.replace("@", WORK))
    env = {**ENV, "DBUS_SESSION_BUS_ADDRESS": f"unix:path={path('bus')}"}

    def call(method, *args, at=""):
        done = subprocess.run(["gdbus", "call", "--session", "--timeout", "120", "-d", "org.libvirt", "-o", "/org/libvirt/QEMU" + at, "-m", method, *args],
                              capture_output=True, text=True, env=env, timeout=150, check=False)
        assert done.returncode == 0, f"{method}: {done.stderr}"
        return done.stdout

    programs = [subprocess.Popen(["dbus-daemon", f"--config-file={path('bus.conf')}", "--nofork", "--nopidfile"], stderr=subprocess.DEVNULL)]
    try:
        wait_for("the bus", lambda: listens(path("bus")))
        programs.append(subprocess.Popen(["unshare", "-m", "sh", "-c", DBUS, "sh", DAEMON.socket], env=env))
        run("gdbus", "wait", "--address", env["DBUS_SESSION_BUS_ADDRESS"], "--timeout", "120", "org.libvirt")
        with connection() as c, defined(c, "bus", start=True) as d:
            at = "/domain/_" + d.UUIDString().replace("-", "_")
            assert at in call("org.libvirt.Connect.ListDomains", "0")
            assert "<capabilities>" in call("org.libvirt.Connect.GetCapabilities") and "state.state" in call("org.libvirt.Connect.GetAllDomainStats", "0", "0")
            text = call("org.freedesktop.DBus.Properties.GetAll", "org.libvirt.Domain", at=at)
            assert "'Name': <<'bus'>>" in text, text
            assert "<name>bus</name>" in call("org.libvirt.Domain.GetXMLDesc", "0", at=at)
            call("org.libvirt.Domain.Suspend", at=at)
            assert d.state()[0] == libvirt.VIR_DOMAIN_PAUSED
            call("org.libvirt.Domain.Destroy", "0", at=at)
            assert not d.isActive()
            call("org.libvirt.Connect.ListStoragePools", "0")
    finally:
        for p in reversed(programs):
            p.send_signal(signal.SIGTERM)
            p.wait(120)


def main():
    global DAEMON
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    make_disk("one.img", 1 << 20)
    build_world()
    DAEMON = Daemon(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\n", inside=IN_HOST)

    def turn():
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=turn, daemon=True).start()
    tests = (virt_install_boots_debian, virt_xml_changes, virt_clone_copies, events_and_keepalive, threads_on_one_connection, console_stream,
             volumes_up_and_down, procedures, dbus)
    only = sys.argv[5:]
    try:
        tap.run({t.__name__.replace("_", " "): t for t in tests if not only or t.__name__ in only})
    finally:
        subprocess.run(["virsh", "-c", uri(), "net-destroy", "default"], check=False, capture_output=True)
        DAEMON.stop()
        for ns in (HOST, OUTSIDE):
            subprocess.run(["ip", "netns", "del", ns], check=False)
        shutil.rmtree(WORK, ignore_errors=True)


main()
