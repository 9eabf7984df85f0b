#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage pools and volumes by virsh, REST and ruche: what node_storage.py does not have.

    storage.py RUCHED RUCHE RUCHE-VMM RUCHE-IMG PAYLOAD    the payload is tests/guest/disks.c, which writes for ever

Pools on loop devices and on a small tmpfs need root and a kernel that has them; without, these tests say so and are skipped.
"""
import json
import os
import re
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tap  # noqa: E402
from manager import Manager  # noqa: E402

RUCHED, RUCHE, VMM, IMG, PAYLOAD = (os.path.abspath(p) for p in sys.argv[1:6])
QEMU = "/usr/bin/qemu-system-x86_64"
SCHEMAS = "/usr/share/libvirt/schemas"
MIB = 1 << 20
M = Manager(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\n")
URI = f"qemu+unix:///session?socket={M.run}/libvirt-sock"
FOLDER = os.path.join(M.folder.name, "pool")


def virsh(*args, ok=True):
    r = subprocess.run(["virsh", "-q", "-c", URI, *args], capture_output=True, text=True, timeout=120, check=False)
    assert (r.returncode == 0) == ok, f"virsh {' '.join(args)}: {r.stdout}{r.stderr}"
    return r.stdout if ok else r.stderr


def refused(*args, says):
    text = virsh(*args, ok=False)
    assert says in text, f"virsh {' '.join(args)}: '{says}' is not in: {text}"


def ruche(*args, ok=True):
    r = subprocess.run([RUCHE, "--connect", M.socket, *args], capture_output=True, text=True, timeout=120, check=False)
    assert (r.returncode == 0) == ok, f"ruche {' '.join(args)}: {r.stdout}{r.stderr}"
    return r.stdout if ok else r.stderr


def valid(text, schema):
    r = subprocess.run(["xmllint", "--noout", "--relaxng", f"{SCHEMAS}/{schema}.rng", "-"], input=text, text=True,
                       capture_output=True, timeout=60, check=False)
    assert r.returncode == 0, r.stderr + text
    return ET.fromstring(text)


def host(*words):
    """A command that this host may not be able to do."""
    r = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return r.stdout.strip() if r.returncode == 0 else None


# ---- pools ----

TYPES = {
    "dir": ["--target", "/t"],
    "fs": ["--source-dev", "/dev/sdx1", "--source-format", "ext4", "--target", "/t"],
    "netfs": ["--source-host", "h", "--source-path", "/e", "--source-format", "nfs", "--target", "/t"],
    "logical": ["--source-dev", "/dev/sdx", "--source-name", "vg", "--target", "/dev/vg"],
    "disk": ["--source-dev", "/dev/sdx", "--source-format", "gpt", "--target", "/dev"],
    "iscsi": ["--source-host", "h", "--source-dev", "iqn.2026-01.org.x:y", "--target", "/dev/disk/by-path"],
    "iscsi-direct": ["--source-host", "h", "--source-dev", "iqn.2026-01.org.x:y", "--source-initiator", "iqn.2026-01.org.x:us"],
    "scsi": ["--adapter-name", "scsi_host0", "--target", "/dev/disk/by-path"],
    "mpath": ["--target", "/dev/mapper"],
    "rbd": ["--source-host", "h", "--source-name", "p"],
    "zfs": ["--source-name", "tank"],
}


def test_types():
    """A description of each type: defined, given back as the schema has it, listed by type, forgotten."""
    for kind, words in TYPES.items():
        virsh("pool-define-as", "x", kind, *words)
        for more in ([], ["--inactive"]):
            root = valid(virsh("pool-dumpxml", "x", *more), "storagepool")
            assert root.get("type") == kind and root.findtext("uuid") == virsh("pool-uuid", "x").strip()
        assert virsh("pool-list", "--all", "--type", kind, "--name").split() == ["x"]
        other = "fs" if kind == "dir" else "dir"
        assert not virsh("pool-list", "--all", "--type", other, "--name").split()
        virsh("pool-undefine", "x")
    valid(virsh("pool-capabilities"), "storagepoolcaps")
    refused("pool-define-as", "x", "sheepdog", "--source-host", "h", "--source-name", "s", says="not supported")
    refused("find-storage-pool-sources", "dir", says="cannot be searched for")


def test_commands():
    """virsh's pool commands that node_storage.py does not use."""
    virsh("pool-define-as", "p", "dir", "--target", FOLDER)
    with open(f"{M.folder.name}/p.xml", "w", encoding="utf-8") as f:
        f.write(virsh("pool-dumpxml", "p"))
    virsh("pool-undefine", "p")
    virsh("pool-define", f"{M.folder.name}/p.xml", "--validate")
    virsh("pool-build", "p")
    virsh("pool-start", "p")
    assert virsh("pool-name", virsh("pool-uuid", "p").strip()).strip() == "p"
    info = virsh("pool-info", "p")
    assert re.search(r"State:\s+running", info) and re.search(r"Persistent:\s+yes", info) and re.search(r"Autostart:\s+no", info)
    virsh("pool-autostart", "p")
    virsh("pool-autostart", "p", "--disable")
    refused("pool-delete", "p", says="still active")
    refused("pool-create", f"{M.folder.name}/p.xml", says="already active")
    virsh("pool-create-as", "q", "dir", "--target", FOLDER + "-q", "--build")
    assert "q" in virsh("pool-list", "--transient", "--name").split()
    virsh("pool-destroy", "q")


def test_volume_commands():
    virsh("vol-create-as", "p", "base", "8M", "--format", "qcow2", "--prealloc-metadata")
    with open(f"{M.folder.name}/v.xml", "w", encoding="utf-8") as f:
        f.write("<volume><name>made</name><capacity unit='MiB'>4</capacity><target><format type='qcow2'/><compat>1.1</compat>"
                "<features><extended_l2/></features></target></volume>")
    virsh("vol-create", "p", f"{M.folder.name}/v.xml", "--validate")
    info = json.loads(subprocess.check_output([IMG, "info", "--output=json", f"{FOLDER}/made"]))
    assert info["format-specific"]["data"]["extended-l2"] is True, info
    with open(f"{M.folder.name}/w.xml", "w", encoding="utf-8") as f:
        f.write("<volume><name>from</name><capacity unit='MiB'>8</capacity><target><format type='raw'/></target></volume>")
    virsh("vol-create-from", "p", f"{M.folder.name}/w.xml", "base", "--inputpool", "p")
    assert os.path.getsize(f"{FOLDER}/from") == 8 * MIB
    virsh("vol-resize", "from", "2M", "--pool", "p", "--shrink")
    virsh("vol-resize", "from", "1M", "--pool", "p", "--delta")
    assert os.path.getsize(f"{FOLDER}/from") == 3 * MIB
    assert virsh("vol-pool", f"{FOLDER}/from").strip() == "p" and virsh("vol-name", f"{FOLDER}/from").strip() == "from"
    for algorithm in ("zero", "nnsa", "dod", "bsi", "gutmann", "schneier", "pfitzner7", "pfitzner33", "random"):
        virsh("vol-wipe", "from", "--pool", "p", "--algorithm", algorithm)
    with open(f"{M.folder.name}/large", "wb") as f:
        f.truncate(4 * MIB)
    refused("vol-upload", "from", f"{M.folder.name}/large", "--pool", "p", says="error")  # larger than the volume
    assert os.path.getsize(f"{FOLDER}/from") == 3 * MIB
    with open(f"{M.folder.name}/sparse", "wb") as f:
        f.seek(2 * MIB)
        f.write(b"end")
    virsh("vol-upload", "from", f"{M.folder.name}/sparse", "--pool", "p", "--sparse")
    virsh("vol-download", "from", f"{M.folder.name}/back", "--pool", "p", "--sparse")
    with open(f"{M.folder.name}/back", "rb") as f:
        data = f.read()
    assert len(data) == 3 * MIB and data[2 * MIB:2 * MIB + 3] == b"end" and not any(data[:2 * MIB])
    for name in ("from", "made", "base"):
        virsh("vol-delete", name, "--pool", "p")


def test_thin_clones():
    """100 of them in under 10 s, and next to no space."""
    virsh("vol-create-as", "p", "golden", "1G", "--format", "qcow2")
    began = time.monotonic()
    for i in range(100):
        M.want(202, "POST", "/pools/p/volumes", {"name": f"clone{i}", "backing": "golden"})
    while len(M.want(200, "GET", "/pools/p/volumes").json["volumes"]) < 101 or any(
            v["busy"] for v in M.want(200, "GET", "/pools/p/volumes").json["volumes"]):
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    took = time.monotonic() - began
    used = sum(os.stat(f"{FOLDER}/clone{i}").st_blocks * 512 for i in range(100))
    print(f"# 100 thin clones: {took:.1f} s, {used >> 10} KiB")
    assert used < 100 * MIB // 4
    assert took < 10 * max(1, os.getloadavg()[0] / os.cpu_count()), took
    for i in range(100):
        M.want(200, "DELETE", f"/pools/p/volumes/clone{i}")
    virsh("vol-delete", "golden", "--pool", "p")


# ---- ruche and REST ----

MISSED = "<domain type='qemu'><name>keeper</name><memory>65536</memory><os><type>hvm</type></os><devices><disk type='{type}'>" \
         "<source {source}/><target dev='vda' bus='virtio'/></disk></devices></domain>"


def spared():
    """What another volume stands on, or a machine has as its disk, goes only by force; libvirt's calls ask nobody."""
    above, machine = "volume 'thin' of pool 'r'", "machine 'keeper'"
    for words in (("wipe", "r", "two"), ("delete", "r", "two"), ("resize", "r", "two", "1", "--shrink"),
                  ("upload", "r", "two", __file__)):
        assert above in ruche("volume", *words, ok=False), words
    ruche("volume", "resize", "r", "two", "3")
    assert above in ruche("volume", "info", "r", "two")
    sources = (("file", f"file='{FOLDER}-r/small'"), ("volume", "pool='r' volume='small'"))
    for kind, source in sources:
        path = os.path.join(M.folder.name, "keeper.xml")
        with open(path, "w") as f:
            f.write(MISSED.format(type=kind, source=source))
        virsh("define", path)
        for words in (("wipe", "r", "small"), ("delete", "r", "small"), ("resize", "r", "small", "4M", "--shrink")):
            assert machine in ruche("volume", *words, ok=False), words
        assert machine in ruche("volume", "info", "r", "small")
        ruche("volume", "upload", "r", "small", __file__)  # what fills the disk of a machine that is off
        virsh("undefine", "keeper")
    ruche("volume", "wipe", "r", "two", "--force")
    virsh("vol-wipe", "two", "r")


def test_ruche():
    target = FOLDER + "-r"
    ruche("pool", "create", "r", "--target", target, "--build")
    ruche("volume", "create", "r", "two", "2")
    assert json.loads(ruche("--json", "volume", "info", "r", "two"))["capacity"] == 2 << 30  # "2" means 2 GiB
    ruche("volume", "create", "r", "small", "8M", "--format", "raw", "--allocation", "8M")
    ruche("volume", "clone", "r", "small", "copy")
    ruche("volume", "clone", "r", "two", "thin", "--thin")
    assert json.loads(ruche("--json", "volume", "info", "r", "thin"))["backing"] == f"{target}/two"
    ruche("volume", "resize", "r", "copy", "16M")
    assert "cannot shrink" in ruche("volume", "resize", "r", "copy", "1M", ok=False)
    ruche("volume", "resize", "r", "copy", "1M", "--shrink")
    ruche("volume", "wipe", "r", "copy", "--algorithm", "random")
    assert "no way to wipe" in ruche("volume", "wipe", "r", "copy", "--algorithm", "spell", ok=False)
    listed = ruche("volume", "list", "r")
    assert all(n in listed for n in ("two", "small", "copy", "thin")), listed
    assert "is not a size" in ruche("volume", "create", "r", "x", "lots", ok=False)
    assert "exists already" in ruche("volume", "create", "r", "two", "2", ok=False)
    assert "usage: ruche volume create" in ruche("volume", "create", "r", ok=False)
    ruche("pool", "set", "r", "--warn", "100")
    info = ruche("pool", "info", "r")
    assert "promised" in info and "warning at" in info, info
    pool = M.want(200, "GET", "/pools/r").json
    assert pool["promised"] == (2 << 30) * 2 + 9 * MIB and pool["warn_percent"] == 100, pool
    metrics = M.want(200, "GET", "/metrics").text
    assert f'ruche_pool_promised_bytes{{pool="r"}} {pool["promised"]}' in metrics
    spared()
    ruche("volume", "delete", "r", "thin", "two", "small", "copy")
    ruche("pool", "stop", "r")
    assert "is not active" in ruche("pool", "refresh", "r", ok=False)
    ruche("pool", "start", "r")
    ruche("pool", "delete", "r", "--storage")
    assert not os.path.exists(target)
    assert "no storage pool" in ruche("pool", "info", "r", ok=False)


def test_rest():
    M.refused(404, "no storage pool", "GET", "/pools/none")
    M.refused(409, "exists already", "POST", "/pools", {"name": "p", "target": "/x"})
    M.refused(422, "is not one of", "POST", "/pools", {"name": "z", "type": "fs", "devices": ["/dev/x"], "target": "/t", "format": "nfs"})
    assert not [p for p in M.want(200, "GET", "/pools").json["pools"] if p["name"] == "z"]
    job = M.job(M.want(202, "POST", "/pools/p/volumes", {"name": "a", "size": "32M", "format": "raw", "allocation": "32M"}))
    assert job["state"] == "done" and job["result"] == "a", job
    job = M.job(M.want(202, "POST", "/pools/p/volumes/a/wipe", {"algorithm": "random"}))
    assert job["state"] == "done" and job["done"] == job["total"] == 32 * MIB, job
    job = M.want(202, "POST", "/pools/p/volumes/a/wipe", {"algorithm": "gutmann"})
    M.want(200, "DELETE", f"/jobs/{job.json['id']}")
    assert M.job(job)["state"] in ("cancelled", "done")
    job = M.job(M.want(202, "POST", "/pools/p/volumes", {"name": "b", "from": "a", "format": "qcow2"}))
    assert job["state"] == "done", job
    M.refused(404, "nothing", "POST", "/pools/p/volumes", {"name": "c", "from": "nothing"})
    for name in "ab":
        M.want(200, "DELETE", f"/pools/p/volumes/{name}")


def test_contents():
    """Up and down by ruche and REST: what comes back is what went in, with holes; what does not fit is refused; a peer that goes away
    leaves the volume free."""
    ruche("volume", "create", "p", "data", "24M", "--format", "raw")
    source, back = f"{M.folder.name}/up", f"{M.folder.name}/down"
    piece = os.urandom(MIB)
    with open(source, "wb") as f:
        for at in (0, 9, 20):
            f.seek(at * MIB)
            f.write(piece)
        f.truncate(24 * MIB)
    ruche("volume", "upload", "p", "data", source)
    ruche("volume", "download", "p", "data", back)
    with open(source, "rb") as a, open(back, "rb") as b:
        assert a.read() == b.read()
    assert os.stat(back).st_blocks * 512 < 8 * MIB, os.stat(back)
    got = http(f"GET /pools/p/volumes/data/data?offset={9 * MIB}&length=4096")
    assert b" 200 " in got.split(b"\r\n")[0] and got.endswith(piece[:4096]), got[:300]
    got = http(f"PUT /pools/p/volumes/data/data?offset={4 * MIB}", piece[:100000])
    assert b" 200 " in got.split(b"\r\n")[0], got[:300]
    with open(f"{FOLDER}/data", "rb") as f:
        f.seek(4 * MIB)
        assert f.read(100001) == piece[:100000] + b"\0"
    with open(source, "ab") as f:
        f.truncate(25 * MIB)
    assert "26214400" in ruche("volume", "upload", "p", "data", source, ok=False)
    got = http(f"PUT /pools/p/volumes/data/data?offset={24 * MIB - 10}", b"x" * 11)
    assert b"do not fit" in got, got[:300]
    got = http(f"PUT /pools/p/volumes/data/data?offset={24 * MIB - 10}", b"b\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    assert b" 411 " in got.split(b"\r\n")[0] and os.path.getsize(f"{FOLDER}/data") == 24 * MIB, got[:300]
    assert b"no storage vol" in http("PUT /pools/p/volumes/none/data", b"x" * 100)
    assert b"no storage vol" in http("GET /pools/p/volumes/none/data")
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(M.socket)
        s.sendall(b"PUT /pools/p/volumes/data/data HTTP/1.1\r\nHost: ruche\r\nContent-Length: 20000000\r\n\r\n" + piece)
    end = time.monotonic() + 60
    while M.call("DELETE", "/pools/p/volumes/data").status != 200:
        assert time.monotonic() < end, "an upload whose peer is gone goes on"
        time.sleep(0.05)


def http(line, body=b"", length=None):
    """A request whose answer is bytes."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(120)
        s.connect(M.socket)
        method, path = line.split()
        length = length or f"Content-Length: {len(body)}"
        s.sendall(f"{method} {path} HTTP/1.1\r\nHost: ruche\r\n{length}\r\n\r\n".encode() + body)
        got = b""
        while part := s.recv(1 << 20):
            got += part
    return got


# ---- devices of this host ----

def test_loop_devices():
    """fs and disk on loop devices: formatted unless something is there, mounted, partitioned."""
    path = os.path.join(M.folder.name, "loop.img")
    with open(path, "wb") as f:
        f.truncate(64 * MIB)
    device = host("losetup", "-fP", "--show", path)
    if not device or not host("which", "mkfs.ext4"):
        print("# SKIP: no loop device here")
        return
    try:
        target = FOLDER + "-fs"
        virsh("pool-define-as", "f", "fs", "--source-dev", device, "--source-format", "ext4", "--target", target)
        virsh("pool-build", "f", "--no-overwrite")
        virsh("pool-start", "f")
        virsh("vol-create-as", "f", "v", "4M")
        assert os.path.ismount(target) and os.path.exists(f"{target}/v")
        M.kill()
        M.start()  # still mounted, still running
        assert "v" in virsh("vol-list", "f")
        virsh("pool-destroy", "f")
        assert not os.path.ismount(target)
        refused("pool-build", "f", "--no-overwrite", says="already holds something (ext4)")
        virsh("pool-undefine", "f")
        os.rmdir(target)
    finally:
        host("umount", FOLDER + "-fs")
        host("losetup", "-d", device)


XML = """<domain type='qemu'><name>writer</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{payload}</kernel><cmdline>x</cmdline></os>
<devices><emulator>{vmm}</emulator>{disks}<memballoon model='none'/></devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{folder}/{name}'/>
<target dev='vd{name}' bus='virtio'/></disk>"""


VOLUME_DISK = """<disk type='volume' device='{device}'><driver name='qemu' type='{form}'/><source pool='p' volume='{name}'{more}/>
<target dev='{target}' bus='{bus}'/></disk>"""


def volume_disk(name, target, form="qcow2", device="disk", bus="virtio", more=""):
    return VOLUME_DISK.format(name=name, target=target, form=form, device=device, bus=bus, more=more)


def write(name, text):
    with open(f"{M.folder.name}/{name}", "w", encoding="utf-8") as f:
        f.write(text)
    return f"{M.folder.name}/{name}"


def test_volume_disks():
    """Disks that are described as volumes of a pool: what these are is found out at the start, by attach, for block info, and no
    description tells more than its user wrote."""
    virsh("vol-create-as", "p", "top", "8M", "--format", "qcow2")
    virsh("vol-create-as", "p", "over", "8M", "--format", "qcow2", "--backing-vol", "top", "--backing-vol-format", "qcow2")
    virsh("vol-create-as", "p", "plain", "4M")
    virsh("vol-create-as", "p", "medium", "2M")
    virsh("vol-create-as", "p", "second", "8M", "--format", "qcow2")
    disks = volume_disk("over", "vda") + volume_disk("second", "vdb") + "<controller type='pci' model='pcie-root-port'/>" * 4
    xml = XML.format(payload=PAYLOAD, vmm=VMM, disks=disks)
    virsh("define", write("writer.xml", xml))
    assert re.search(r"Capacity:\s+8388608", virsh("domblkinfo", "writer", "vda"))
    native = virsh("domxml-to-native", "qemu-argv", "--domain", "writer")
    assert f"{FOLDER}/over" in native, native
    virsh("pool-destroy", "p")
    refused("start", "writer", says="storage pool 'p', which has its volume 'over', is not active")
    virsh("pool-start", "p")
    for name, more, says in (("none", "", "no storage vol with matching name 'none'"), ("over", " mode='direct'", "is of type 'dir'"),
                             ("over", " mode='host'", "is of type 'dir'")):
        refused("create", write("bad.xml", xml.replace(volume_disk("over", "vda"), volume_disk(name, "vda", more=more))
                                .replace(">writer<", ">bad<")), says=says)
    refused("create", write("bad.xml", xml.replace("pool='p'", "pool='nix'").replace(">writer<", ">bad<")), says="'nix'")
    before = os.stat(f"{FOLDER}/over").st_blocks
    virsh("start", "writer")
    try:
        wait_for(lambda: os.stat(f"{FOLDER}/over").st_blocks > before, True)
        text = virsh("dumpxml", "writer")
        source = valid(text, "domain").find("devices/disk[1]/source")
        assert set(source.attrib) <= {"pool", "volume", "index"} and source.get("volume") == "over", text
        assert f"<source file='{FOLDER}/top'/>" in text, text  # its backing chain
        assert "over" in virsh("domblklist", "writer") and re.search(r"Capacity:\s+8388608", virsh("domblkinfo", "writer", "vda"))
        assert "cannot be opened" not in M.said()
        virsh("attach-device", "writer", write("plain.xml", volume_disk("plain", "vdc", "raw")), "--live", "--config")
        assert re.search(r"Capacity:\s+4194304", virsh("domblkinfo", "writer", "vdc"))
        M.kill()
        M.start()
        text = virsh("dumpxml", "writer")
        assert f"{FOLDER}/plain" not in text and "volume='plain'" in text, text
        assert re.search(r"Capacity:\s+4194304", virsh("domblkinfo", "writer", "vdc"))
        assert "volume='plain'" in virsh("dumpxml", "writer", "--inactive") and f"{FOLDER}/" not in virsh("dumpxml", "writer", "--inactive")
        refused("attach-device", "writer", write("plain.xml", volume_disk("none", "vdd", "raw")), says="'none'")
        virsh("update-device", "writer", write("same.xml", volume_disk("over", "vda")), "--live")
    finally:
        virsh("destroy", "writer")
        virsh("undefine", "writer")
    if os.path.exists(QEMU):
        change_medium()
    for name in ("over", "top", "second", "plain", "medium"):
        virsh("vol-delete", name, "--pool", "p")


def change_medium():
    """A volume in a CD-ROM drive, which QEMU has."""
    drive = "<disk type='file' device='cdrom'><target dev='sda' bus='sata'/></disk>"
    virsh("create", write("writer.xml", XML.format(payload=PAYLOAD, vmm=QEMU, disks=drive)))
    try:
        for name, size in (("medium", 2), ("plain", 4), ("plain", 4)):
            virsh("update-device", "writer", write("medium.xml", volume_disk(name, "sda", "raw", "cdrom", "sata")), "--live")
            assert re.search(rf"Capacity:\s+{size * MIB}", virsh("domblkinfo", "writer", "sda"))
            assert f"volume='{name}'" in virsh("dumpxml", "writer")
        virsh("change-media", "writer", "sda", "--eject", "--live")
        assert "volume=" not in virsh("dumpxml", "writer")
    finally:
        virsh("destroy", "writer")


def state():
    return virsh("domstate", "writer", "--reason").strip()


def wait_for(what, wanted, seconds=120):
    end = time.monotonic() + seconds
    while what() != wanted:
        assert time.monotonic() < end, f"{what()} is not {wanted}"
        time.sleep(0.1)


def test_full():
    """A pool fills up under a machine that writes: it pauses, the threshold tells; with more room it goes on."""
    folder = FOLDER + "-small"
    os.mkdir(folder)
    if host("mount", "-t", "tmpfs", "-o", "size=6m,mode=0777", "tmpfs", folder) is None:
        print("# SKIP: no tmpfs can be mounted here")
        return
    try:
        virsh("pool-create-as", "small", "dir", "--target", folder)
        virsh("pool-define-as", "small", "dir", "--target", folder)
        M.want(200, "PATCH", "/pools/small", {"warn_percent": 90})
        for name in "ab":
            virsh("vol-create-as", "small", name, "16M", "--format", "qcow2")
            os.chmod(f"{folder}/{name}", 0o666)
        disks = "".join(DISK.format(folder=folder, name=name) for name in "ab")
        with open(f"{M.folder.name}/writer.xml", "w", encoding="utf-8") as f:
            f.write(XML.format(payload=PAYLOAD, vmm=VMM, disks=disks))
        virsh("create", f"{M.folder.name}/writer.xml")
        wait_for(state, "paused (I/O error)")
        virsh("pool-refresh", "small")
        pool = M.want(200, "GET", "/pools/small").json
        assert pool["over_threshold"] and pool["overcommit"] > 5, pool
        assert host("mount", "-o", "remount,size=64m", folder) is not None
        before = sum(os.stat(f"{folder}/{name}").st_blocks for name in "ab")
        virsh("resume", "writer")
        wait_for(lambda: sum(os.stat(f"{folder}/{name}").st_blocks for name in "ab") > before, True)
        assert state().startswith("running"), state()
        virsh("pool-refresh", "small")
        assert not M.want(200, "GET", "/pools/small").json["over_threshold"]
        virsh("destroy", "writer")
        virsh("pool-destroy", "small")
        virsh("pool-undefine", "small")
    finally:
        host("umount", folder)


def main():
    try:
        tap.run({"types": test_types, "pool commands": test_commands, "volume commands": test_volume_commands,
                 "thin clones": test_thin_clones, "ruche": test_ruche, "REST": test_rest, "contents": test_contents, "loop devices": test_loop_devices,
                 "volume disks": test_volume_disks, "full": test_full})
    finally:
        M.close()


if __name__ == "__main__":
    main()
