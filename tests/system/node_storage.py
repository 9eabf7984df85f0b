#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The host, storage pools and volumes through ruched, with virsh, virt-install and libvirt's schemas as judges.

    node_storage.py RUCHED RUCHE-VMM RUCHE-IMG
"""
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402

RUCHED, VMM, IMG = (os.path.abspath(p) for p in sys.argv[1:4])
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-node-")
RUN, STATE = os.path.join(FOLDER.name, "run"), os.path.join(FOLDER.name, "state")
POOL = os.path.join(FOLDER.name, "pool")
URI = f"qemu+unix:///system?socket={RUN}/libvirt-sock"
RO_URI = f"qemu+unix:///system?socket={RUN}/libvirt-sock-ro&mode=auto"
SCHEMAS = "/usr/share/libvirt/schemas"


class Daemon:
    """ruched, ended and begun again."""

    def __init__(self):
        self.process = None
        self.log = open(os.path.join(FOLDER.name, "log"), "w+", encoding="utf-8")
        with open(os.path.join(FOLDER.name, "conf"), "w", encoding="utf-8") as f:
            f.write(f"[machines]\nvmm={VMM}\nimg={IMG}\n[libvirt]\nusual_place=false\n")
        self.begin()

    def begin(self):
        self.process = subprocess.Popen([RUCHED, "--system", "--config", os.path.join(FOLDER.name, "conf"),
                                         "--runtime-dir", RUN, "--state-dir", STATE],
                                        stderr=self.log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.01)

    @staticmethod
    def answers():
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(f"{RUN}/libvirt-sock") == 0

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(120)

    def said(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8") as f:
            return f.read()[-2000:]


def virsh(*args, ok=True, uri=URI):
    r = subprocess.run(["virsh", "-c", uri, *args], capture_output=True, text=True, timeout=600, check=False)
    assert (r.returncode == 0) == ok, f"virsh {' '.join(args)}: {r.stdout}{r.stderr}"
    return r.stdout if ok else r.stderr


def refused(*args, says, uri=URI):
    text = virsh(*args, ok=False, uri=uri)
    assert says in text, f"virsh {' '.join(args)}: '{says}' is not in: {text}"


def valid(text, schema):
    r = subprocess.run(["xmllint", "--noout", "--relaxng", f"{SCHEMAS}/{schema}.rng", "-"], input=text, text=True,
                       capture_output=True, timeout=60, check=False)
    assert r.returncode == 0, r.stderr
    return ET.fromstring(text)


def stages():
    return [n for n in os.listdir(POOL) if n.startswith(".ruche-")]


# ---- the host ----

def test_node_info():
    info = dict(re.findall(r"^(.+?):\s+(.+)$", virsh("nodeinfo"), re.M))
    assert info["CPU model"] == os.uname().machine and int(info["CPU(s)"]) == os.cpu_count(), info
    total = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo", encoding="utf-8").read()).group(1))
    assert info["Memory size"] == f"{total} KiB", info
    assert virsh("hostname").strip() == socket.gethostname()
    assert f"CPUs present:   {os.cpu_count()}" in virsh("nodecpumap")
    first, second = (int(re.search(r"user:\s+(\d+)", virsh("nodecpustats")).group(1)) for _ in range(2))
    assert 0 < first <= second
    assert "total" in virsh("nodememstats") and "Total" in virsh("freecell") and "4KiB" in virsh("freepages", "--all")
    assert "EPYC-Milan" in virsh("cpu-models", "x86_64") and int(virsh("maxvcpus")) >= 1
    refused("cpu-models", "vax", says="vax")
    refused("nodecpustats", "--cpu", "99999", says="99999")


def test_capabilities():
    text = virsh("capabilities")
    # The published schema has no '.' in names of the host's features; libvirt itself prints them.
    root = valid(re.sub(r"(<feature name='sse4)\.", r"\1-", text), "capability")
    guest = root.find("guest[1]/arch")
    assert guest.get("name") == "x86_64" and guest.findtext("emulator") == VMM
    assert {d.get("type") for d in guest.findall("domain")} >= {"qemu"}
    assert {"q35", "pc-q35-7.2"} <= {m.text for m in guest.findall("machine")}
    cpus = root.findall("host/topology/cells/cell/cpus/cpu")
    assert len(cpus) == os.cpu_count()
    host = ET.tostring(root.find("host/cpu"), encoding="unicode").replace("sse4-", "sse4.")
    conn = libvirt.open(URI)
    assert conn.compareCPU(host, 0) in (libvirt.VIR_CPU_COMPARE_IDENTICAL, libvirt.VIR_CPU_COMPARE_SUPERSET)
    base = valid(conn.baselineCPU([host, "<cpu><arch>x86_64</arch><model>qemu64</model></cpu>"], 0), "cpu")
    assert base.findtext("model")
    conn.close()


def test_domain_capabilities():
    for args in ([], ["--virttype", "qemu"], ["--machine", "microvm"], ["--emulatorbin", "/usr/bin/qemu-system-x86_64"]):
        valid(virsh("domcapabilities", *args), "domaincaps")
    root = ET.fromstring(virsh("domcapabilities", "--emulatorbin", VMM, "--virttype", "qemu"))
    words = {e.get("name"): [v.text for v in e.findall("value")] for e in root.findall("devices/disk/enum")}
    assert words["bus"] == ["virtio"] and root.find("devices/graphics").get("supported") == "no"
    refused("domcapabilities", "--machine", "pc-i440fx-9", says="pc-i440fx-9")
    refused("domcapabilities", "--emulatorbin", "/bin/true", says="/bin/true")
    refused("domcapabilities", "--virttype", "xen", says="xen")


# ---- pools ----

def test_pool_life():
    virsh("pool-define-as", "p", "dir", "--target", POOL)
    refused("pool-start", "p", says=POOL)
    virsh("pool-build", "p")
    virsh("pool-start", "p")
    virsh("pool-autostart", "p")
    pool = valid(virsh("pool-dumpxml", "p"), "storagepool")
    assert int(pool.findtext("capacity")) > 0 and pool.findtext("target/permissions/mode") == "0711"
    valid(virsh("pool-dumpxml", "p", "--inactive"), "storagepool")
    valid(virsh("pool-capabilities"), "storagepoolcaps")
    assert re.search(r"p\s+running\s+yes\s+yes", virsh("pool-list", "--all", "--details"))
    assert "p" in virsh("pool-list", "--type", "dir") and "p" not in virsh("pool-list", "--inactive")
    refused("pool-undefine", "p", says="still active")
    refused("pool-delete", "p", says="still active")
    refused("pool-define-as", "q", "dir", "--target", POOL, says="already that of storage pool 'p'")
    refused("pool-define-as", "l", "sheepdog", "--source-host", "h", "--source-name", "s", says="pool type 'sheepdog' is not supported")
    refused("pool-define-as", "a/b", "dir", "--target", "/x", says="a/b")
    refused("pool-info", "none", says="none")


def test_read_only():
    conn = libvirt.openReadOnly(RO_URI)
    pool = conn.storagePoolLookupByName("p")
    assert pool.info()[0] == libvirt.VIR_STORAGE_POOL_RUNNING and pool.XMLDesc()
    for call in (pool.destroy, pool.undefine, lambda: conn.storagePoolDefineXML("<pool/>"),
                 lambda: pool.createXML("<volume/>")):
        try:
            call()
            assert False, "a read-only connection could write"
        except libvirt.libvirtError as e:
            assert e.get_error_code() == libvirt.VIR_ERR_OPERATION_DENIED, e
    conn.close()


# ---- volumes ----

def test_volumes():
    virsh("vol-create-as", "p", "base", "64M", "--format", "qcow2")
    virsh("vol-create-as", "p", "over", "64M", "--format", "qcow2", "--backing-vol", "base", "--backing-vol-format", "qcow2")
    virsh("vol-create-as", "p", "thin", "1G", "--allocation", "0")
    for fmt in ("vmdk", "vdi", "vpc", "vhdx"):
        virsh("vol-create-as", "p", "x." + fmt, "8M", "--format", fmt)
    over = valid(virsh("vol-dumpxml", "over", "p"), "storagevol")
    assert over.findtext("backingStore/path") == f"{POOL}/base" and over.findtext("capacity") == str(64 << 20)
    for name in ("base", "thin", "x.vmdk", "x.vdi"):
        valid(virsh("vol-dumpxml", name, "p"), "storagevol")
    assert os.stat(f"{POOL}/thin").st_blocks == 0
    virsh("pool-refresh", "p")
    listed = virsh("vol-list", "p", "--details")
    assert all(n in listed for n in ("base", "over", "thin", "x.vhdx"))
    assert virsh("vol-path", "base", "p").strip() == virsh("vol-key", "base", "p").strip() == f"{POOL}/base"
    assert virsh("vol-pool", f"{POOL}/base").strip() == "p" and virsh("vol-name", f"{POOL}/base").strip() == "base"
    virsh("vol-resize", "over", "128M", "--pool", "p")
    assert "128.00 MiB" in virsh("vol-info", "over", "--pool", "p")
    info = json.loads(subprocess.check_output(["qemu-img", "info", "--output=json", f"{POOL}/over"]))
    assert info["virtual-size"] == 128 << 20 and info["full-backing-filename"] == f"{POOL}/base"
    refused("vol-resize", "over", "1M", "--pool", "p", says="cannot shrink")
    refused("vol-create-as", "p", "base", "1M", says="exists already")
    refused("vol-create-as", "p", "../up", "1M", says="../up")
    refused("vol-create-as", "p", "huge", "8000000G", says="huge")
    refused("vol-info", "none", "--pool", "p", says="none")
    assert not stages()


def test_transfer():
    data = os.urandom(3 << 20)
    source, back = os.path.join(FOLDER.name, "up"), os.path.join(FOLDER.name, "down")
    with open(source, "wb") as f:
        f.write(data)
    virsh("vol-create-as", "p", "t", "3M", "--allocation", "0")
    virsh("vol-upload", "t", source, "--pool", "p")
    virsh("vol-clone", "t", "t2", "--pool", "p")
    virsh("vol-download", "t2", back, "--pool", "p")
    with open(back, "rb") as f:
        assert hashlib.sha256(f.read()).digest() == hashlib.sha256(data).digest()
    virsh("vol-download", "t2", back, "--pool", "p", "--offset", "1048576", "--length", "4096")
    with open(back, "rb") as f:
        assert f.read() == data[1 << 20:(1 << 20) + 4096]
    virsh("vol-wipe", "t2", "--pool", "p", "--algorithm", "dod")
    with open(f"{POOL}/t2", "rb") as f:
        assert f.read() == b"\xff" * len(data)
    refused("vol-download", "t2", back, "--pool", "p", "--offset", "99999999", says="behind its end")
    for name in ("t", "t2"):
        virsh("vol-delete", name, "--pool", "p")
    assert not os.path.exists(f"{POOL}/t")


def test_hostile_files():
    os.symlink("/etc/passwd", f"{POOL}/leaves")
    os.symlink("base", f"{POOL}/stays")
    os.mkfifo(f"{POOL}/fifo")
    with open(f"{POOL}/lies", "wb") as f:
        f.write(b"QFI\xfb" + b"\xff" * 4000)
    with open(f"{POOL}/vmdk", "wb") as f:
        f.write(b"KDMV" + b"\xff" * 4000)
    virsh("pool-refresh", "p")
    names = virsh("vol-list", "p").split()
    assert "stays" in names and "lies" in names and "vmdk" in names and "leaves" not in names and "fifo" not in names
    refused("vol-download", "leaves", "/dev/null", "--pool", "p", says="leaves")
    os.unlink(f"{POOL}/stays")
    os.symlink("/etc/passwd", f"{POOL}/stays")  # since it was looked at
    refused("vol-download", "stays", "/dev/null", "--pool", "p", says="stays")
    for name in ("leaves", "stays", "fifo", "lies", "vmdk"):
        os.unlink(f"{POOL}/{name}")
    virsh("pool-refresh", "p")


def test_events():
    seen = []
    libvirt.virEventRegisterDefaultImpl()
    stop = threading.Event()
    thread = threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(stop.is_set, True)])
    conn = libvirt.open(URI)
    conn.storagePoolEventRegisterAny(None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE,
                                     lambda c, p, event, detail, _: seen.append((p.name(), event)), None)
    libvirt.virEventAddTimeout(100, lambda timer, _: None, None)
    thread.start()
    folder = os.path.join(FOLDER.name, "e")
    pool = conn.storagePoolDefineXML(f"<pool type='dir'><name>e</name><target><path>{folder}</path></target></pool>")
    pool.build(0)
    pool.create(0)
    pool.destroy()
    pool.delete(0)
    pool.undefine()
    wanted = [("e", n) for n in (libvirt.VIR_STORAGE_POOL_EVENT_DEFINED, libvirt.VIR_STORAGE_POOL_EVENT_CREATED,
                                 libvirt.VIR_STORAGE_POOL_EVENT_STARTED, libvirt.VIR_STORAGE_POOL_EVENT_STOPPED,
                                 libvirt.VIR_STORAGE_POOL_EVENT_DELETED, libvirt.VIR_STORAGE_POOL_EVENT_UNDEFINED)]
    deadline = time.monotonic() + 120
    while len(seen) < len(wanted) and time.monotonic() < deadline:
        time.sleep(0.02)
    stop.set()
    thread.join()
    conn.close()
    assert seen == wanted, seen
    assert not os.path.exists(folder)


def test_virt_install():
    """Its own choice of devices, unchanged: the USB controller that it always writes becomes one that says 'none'."""
    subprocess.run(["virt-install", "--connect", URI, "--import", "--disk", "size=1,pool=p", "--network", "user", "--graphics",
                    "none", "--osinfo", "linux2020", "--memory", "256", "--name", "v", "--virt-type", "qemu",
                    "--noautoconsole"], capture_output=True, text=True, timeout=600, check=True)
    root = ET.fromstring(virsh("dumpxml", "v"))
    assert root.findtext("devices/emulator") == VMM and "q35" in root.find("os/type").get("machine")
    assert root.find("devices/disk/target").get("bus") == "virtio"
    assert [c.get("model") for c in root.findall("devices/controller[@type='usb']")] == ["none"]
    assert virsh("domstate", "v").strip() == "running"
    assert "v.qcow2" in virsh("vol-list", "p")
    virsh("destroy", "v")
    virsh("undefine", "v", "--remove-all-storage")
    assert "v.qcow2" not in virsh("vol-list", "p")
    for name in ("one", "two"):
        virsh("vol-create-as", "p", name, "8M", "--format", "qcow2")
    subprocess.run(["virt-install", "--connect", URI, "--import", "--disk", "vol=p/one", "--disk",
                    "type=volume,source.pool=p,source.volume=two,driver.type=qcow2", "--network", "none", "--graphics", "none", "--osinfo",
                    "linux2020", "--memory", "64", "--name", "w", "--virt-type", "qemu", "--noautoconsole"], capture_output=True, text=True,
                   timeout=600, check=True)
    disks = ET.fromstring(virsh("dumpxml", "w")).findall("devices/disk")
    assert disks[0].find("source").get("file") == f"{POOL}/one" and disks[1].find("source").get("volume") == "two", virsh("dumpxml", "w")
    virsh("destroy", "w")
    virsh("undefine", "w")
    for name in ("one", "two"):
        virsh("vol-delete", name, "--pool", "p")


def test_session():
    """A person's own daemon, in his own folders."""
    home = os.path.join(FOLDER.name, "home")
    os.makedirs(os.path.join(home, "run"), mode=0o700)
    env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
    env.update(HOME=home, XDG_RUNTIME_DIR=os.path.join(home, "run"))
    path = os.path.join(home, "run", "ruche", "libvirt-sock")
    process = subprocess.Popen([RUCHED, "--session"], env=env, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not os.path.exists(path):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        uri = f"qemu+unix:///session?socket={path}"
        virsh("pool-create-as", "s", "dir", "--target", os.path.join(home, "images"), "--build", uri=uri)
        virsh("vol-create-as", "s", "v", "1M", uri=uri)
        assert os.path.getsize(os.path.join(home, "images", "v")) == 1 << 20
        assert "s" not in [line.split()[0] for line in virsh("pool-list", "--all").splitlines()[2:] if line.split()]
    finally:
        process.terminate()
        process.wait(120)


# ---- ends ----

def test_restart(daemon):
    daemon.kill(signal.SIGTERM)
    daemon.begin()
    assert re.search(r"p\s+running\s+yes\s+yes", virsh("pool-list", "--all", "--details"))
    assert "base" in virsh("vol-list", "p")


def test_kills(daemon):
    """SIGKILL while volumes are made: what has a volume's name is whole, and nothing else stays."""
    source = f"{POOL}/thick"
    with open(source, "wb") as f:
        f.write(os.urandom(24 << 20))
    virsh("pool-refresh", "p")
    want = hashlib.sha256(open(source, "rb").read()).digest()
    for number in range(12):
        name = f"k{number}"
        args = (["vol-clone", "thick", name, "--pool", "p"] if number % 2 else
                ["vol-create-as", "p", name, "16M", "--format", "qcow2", "--prealloc-metadata"])
        client = subprocess.Popen(["virsh", "-c", URI, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.02 + number * 0.008)
        daemon.kill()
        client.wait(120)
        daemon.begin()
        virsh("pool-refresh", "p")
        if os.path.exists(f"{POOL}/{name}"):
            if number % 2:
                assert hashlib.sha256(open(f"{POOL}/{name}", "rb").read()).digest() == want, name
            else:
                subprocess.run(["qemu-img", "check", "-q", f"{POOL}/{name}"], check=True, timeout=60)
            virsh("vol-delete", name, "--pool", "p")
        else:
            refused("vol-info", name, "--pool", "p", says=name)
    deadline = time.monotonic() + 120  # a ruche-img that outlived its manager may still let go of its folder
    while stages() and time.monotonic() < deadline:
        virsh("pool-refresh", "p")
        time.sleep(0.1)
    assert not stages(), stages()


def test_end():
    for name in virsh("vol-list", "p").split("\n")[2:]:
        if name.strip():
            virsh("vol-delete", name.split()[0], "--pool", "p")
    virsh("pool-destroy", "p")
    virsh("pool-delete", "p")
    virsh("pool-undefine", "p")
    assert not os.path.exists(POOL) and "p " not in virsh("pool-list", "--all")


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    daemon = Daemon()
    try:
        tests = (test_node_info, test_capabilities, test_domain_capabilities, test_pool_life, test_read_only, test_volumes,
                 test_transfer, test_hostile_files, test_events, test_virt_install, test_session, test_restart, test_kills, test_end)
        tap.run({t.__name__[5:].replace("_", " "): (lambda t=t: t(daemon)) if t.__code__.co_argcount else t for t in tests})
    finally:
        if daemon.process.poll() is None:
            subprocess.run(["virsh", "-c", URI, "destroy", "v"], capture_output=True, timeout=60, check=False)
            daemon.kill(signal.SIGTERM)


if __name__ == "__main__":
    main()
