#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be said of a volume and done to it, row by row, with qemu-img and the file itself as judges; the manager killed in each.

    storage_volumes.py RUCHED RUCHE RUCHE-VMM RUCHE-IMG
"""
import collections
import json
import os
import re
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402
from manager import Manager  # noqa: E402

RUCHED, RUCHE, VMM, IMG = (os.path.abspath(p) for p in sys.argv[1:5])
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
M = Manager(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\n")
URI = f"qemu+unix:///session?socket={M.run}/libvirt-sock"
FOLDER = os.path.join(M.folder.name, "pool")
SECRET = "7d1c2f10-93a5-4c0c-8f0e-3a6f5f0e5b11"
KEY = "open-sesame-4711"


def connect():
    return libvirt.open(URI)


def pool(conn):
    return conn.storagePoolLookupByName("p")


def error_of(call):
    try:
        call()
    except libvirt.libvirtError as e:
        return str(e)
    raise AssertionError("it was not refused")


def volume(name, form="raw", capacity="<capacity>1048576</capacity>", target="", more=""):
    return f"<volume><name>{name}</name>{capacity}{more}<target><format type='{form}'/>{target}</target></volume>"


def info(name):
    """What qemu-img says: one table, a format's own words among the others."""
    said = subprocess.run(["qemu-img", "info", "-U", "--output=json", f"{FOLDER}/{name}"], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(said.stdout)
    return {**found.get("format-specific", {}).get("data", {}), **found}


def used(name):
    return os.stat(f"{FOLDER}/{name}").st_blocks * 512


# ---- making ----

BASE = "<backingStore><path>{folder}/base</path><format type='qcow2'/></backingStore>"
LUKS = f"<encryption format='luks'><secret type='passphrase' uuid='{SECRET}'/></encryption>"
# What is asked for, and what qemu-img then says.
OPTIONS = {
    "usual": ({}, {"compat": "1.1", "cluster-size": 64 * KIB, "lazy-refcounts": False, "extended-l2": False, "refcount-bits": 16}),
    "compat 0.10": ({"target": "<compat>0.10</compat>"}, {"compat": "0.10"}),
    "compat 1.1": ({"target": "<compat>1.1</compat>"}, {"compat": "1.1"}),
    "lazy refcounts": ({"target": "<features><lazy_refcounts/></features>"}, {"lazy-refcounts": True}),
    "subclusters": ({"target": "<features><extended_l2/></features>"}, {"extended-l2": True}),
    "both": ({"target": "<features><lazy_refcounts/><extended_l2/></features>"}, {"lazy-refcounts": True, "extended-l2": True}),
    "small clusters": ({"target": "<clusterSize unit='KiB'>4</clusterSize>"}, {"cluster-size": 4 * KIB}),
    "large clusters": ({"target": "<clusterSize unit='MiB'>2</clusterSize>"}, {"cluster-size": 2 * MIB}),
    "all": ({"target": "<compat>1.1</compat><clusterSize unit='KiB'>128</clusterSize><features><lazy_refcounts/><extended_l2/></features>"},
            {"cluster-size": 128 * KIB, "lazy-refcounts": True, "extended-l2": True}),
    "backing": ({"more": BASE}, {"backing-filename": "{folder}/base", "backing-filename-format": "qcow2"}),
    "backing, its size": ({"more": BASE, "capacity": ""}, {"virtual-size": 3 * MIB, "backing-filename": "{folder}/base"}),
    "backing, clusters": ({"more": BASE, "target": "<clusterSize unit='KiB'>16</clusterSize>"}, {"cluster-size": 16 * KIB, "backing-filename": "{folder}/base"}),
    "encrypted": ({"target": LUKS}, {"encrypted": True, "virtual-size": MIB}),
    "nocow": ({"target": "<nocow/>"}, {"virtual-size": MIB}),
}
REFUSED = {
    "<compat>2.0</compat>": "is not one of 0.10, 1.1", "<clusterSize unit='B'>1000</clusterSize>": "cluster", "<clusterSize unit='MiB'>64</clusterSize>": "cluster",
    "<compat>0.10</compat><features><lazy_refcounts/></features>": "lazy_refcounts", "<compat>0.10</compat><features><extended_l2/></features>": "extended_l2",
}
UNITS = {"b": 1, "bytes": 1, "B": 1, "k": KIB, "K": KIB, "KiB": KIB, "KB": 1000, "M": MIB, "MiB": MIB, "MB": 1000**2, "G": GIB, "GiB": GIB,
         "GB": 1000**3, "T": 1 << 40, "TiB": 1 << 40, "TB": 1000**4, "P": 1 << 50, "PiB": 1 << 50, "PB": 1000**5}


def test_options(conn):
    p = pool(conn)
    p.createXML(volume("base", "qcow2", "<capacity unit='MiB'>3</capacity>"))
    for name, (asked, wanted) in OPTIONS.items():
        words = {k: v.format(folder=FOLDER) if k == "more" else v for k, v in asked.items()}
        v = p.createXML(volume("v", "qcow2", **words))
        told, text = info("v"), v.XMLDesc()
        for key, value in wanted.items():
            value = value.format(folder=FOLDER) if isinstance(value, str) else value
            assert told.get(key) == value, f"{name}: {key} is {told.get(key)}, not {value}"
        for word in re.findall(r"<(lazy_refcounts|extended_l2)/>", asked.get("target", "")):
            assert f"<{word}/>" in text, text
        v.delete()
    for target, says in REFUSED.items():
        said = error_of(lambda t=target: p.createXML(volume("v", "qcow2", target=t)))
        assert says in said, said
    for form in ("raw", "vmdk"):
        assert "belong to format qcow2" in error_of(lambda f=form: p.createXML(volume("v", f, target="<compat>1.1</compat>")))
    assert "no backing store" in error_of(lambda: p.createXML(volume("v", "raw", more=BASE.format(folder=FOLDER))))


def test_units(conn):
    """Every unit: in qcow2 where a file system may have no file so large."""
    p = pool(conn)
    for unit, factor in UNITS.items():
        count = 1 if factor >= 1 << 20 else 4096
        v = p.createXML(volume("v", "raw" if factor < GIB else "qcow2", f"<capacity unit='{unit}'>{count}</capacity>",
                               more="<allocation>0</allocation>"))
        wanted = (count * factor + 511) // 512 * 512
        assert abs(v.info()[1] - count * factor) < 512 and info("v")["virtual-size"] == wanted, (unit, v.info(), info("v"))
        v.delete()
    assert "unit" in error_of(lambda: p.createXML(volume("v", capacity="<capacity unit='furlong'>1</capacity>")))
    for words, wanted in (("2", 2 * GIB), ("3M", 3 * MIB), ("5GB", 5 * GIB), ("1T", 1 << 40)):
        subprocess.run([RUCHE, "--connect", M.socket, "volume", "create", "p", "v", words, "--format", "qcow2"], check=True, timeout=120, capture_output=True)
        assert abs(info("v")["virtual-size"] - wanted) < 512, (words, info("v"))
        p.storageVolLookupByName("v").delete()


def test_allocation(conn):
    """How much of a volume there is at once."""
    p = pool(conn)
    metadata = libvirt.VIR_STORAGE_VOL_CREATE_PREALLOC_METADATA
    size = "<capacity unit='MiB'>8</capacity>"
    rows = (("raw", "", 0, 8 * MIB, 8 * MIB), ("raw", "<allocation>0</allocation>", 0, 0, 0), ("raw", "<allocation unit='MiB'>3</allocation>", 0, 3 * MIB, 3 * MIB),
            ("qcow2", "", 0, 0, MIB), ("qcow2", "", metadata, 0, MIB), ("qcow2", "<allocation unit='MiB'>8</allocation>", metadata, 8 * MIB, 9 * MIB))
    for form, more, flags, least, most in rows:
        v = p.createXML(volume("v", form, size, more=more), flags)
        assert least <= used("v") <= most + 64 * KIB and abs(v.info()[2] - used("v")) <= 4096, (form, more, flags, used("v"), v.info())
        v.delete()
    assert "qcow2 only" in error_of(lambda: p.createXML(volume("v", "raw", size), metadata))
    assert "no room" in error_of(lambda: p.createXML(volume("v", "raw", "<capacity unit='T'>10</capacity>")))


# ---- changing ----

def test_resize(conn):
    p = pool(conn)
    delta, shrink, allocate = (getattr(libvirt, f"VIR_STORAGE_VOL_RESIZE_{w}") for w in ("DELTA", "SHRINK", "ALLOCATE"))
    for form in ("raw", "qcow2"):
        v = p.createXML(volume("v", form, "<capacity unit='MiB'>4</capacity>", more="<allocation>0</allocation>"))
        for size, flags, wanted in ((6 * MIB, 0, 6), (2 * MIB, delta, 8), (3 * MIB, shrink, 3), (MIB, delta | shrink, 2), (10 * MIB, allocate, 10), (2 * MIB, delta | allocate, 12)):
            v.resize(size, flags)
            assert info("v")["virtual-size"] == wanted * MIB == v.info()[1], (form, size, flags, v.info())
        assert used("v") >= 10 * MIB, (form, used("v"))
        assert "cannot shrink" in error_of(lambda v=v: v.resize(MIB)) and info("v")["virtual-size"] == 12 * MIB
        assert "do not fit" in error_of(lambda v=v: v.resize(1 << 55))
        v.delete()


def read(name):
    with open(f"{FOLDER}/{name}", "rb") as f:
        return f.read()


def put(name, data):
    with open(f"{FOLDER}/{name}", "r+b") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def is_noise(data):
    """Every byte about as often as any other."""
    counts = collections.Counter(data)
    usual = len(data) / 256
    return len(counts) == 256 and max(counts.values()) < 2 * usual and min(counts.values()) > usual / 2


# The byte that the last pass leaves everywhere; None: noise.
ALGORITHMS = {"ZERO": 0, "NNSA": 0, "DOD": 0xff, "BSI": 0x7f, "GUTMANN": None, "SCHNEIER": None, "PFITZNER7": None, "PFITZNER33": None, "RANDOM": None}


def test_wipe(conn):
    p, size = pool(conn), 256 * KIB
    secret = os.urandom(size)
    v = p.createXML(volume("v", capacity=f"<capacity>{size}</capacity>"))
    for name, last in ALGORITHMS.items():
        put("v", secret)
        v.wipePattern(getattr(libvirt, f"VIR_STORAGE_VOL_WIPE_ALG_{name}"))
        left = read("v")
        assert len(left) == size and (left == bytes([last]) * size if last is not None else left != secret and is_noise(left)), name
    put("v", secret)
    v.wipe()
    assert read("v") == bytes(size)
    put("v", secret)
    v.wipePattern(libvirt.VIR_STORAGE_VOL_WIPE_ALG_TRIM)
    assert read("v") == bytes(size) and used("v") < size
    assert "algorithm 10" in error_of(lambda: v.wipePattern(10))
    v.delete()
    v = p.createXML(volume("v", capacity="<capacity unit='MiB'>64</capacity>", more="<allocation>0</allocation>"))
    put("v", secret)
    v.wipePattern(libvirt.VIR_STORAGE_VOL_WIPE_ALG_DOD)  # where nothing was, nothing is written
    assert read("v")[:size] == b"\xff" * size and used("v") < MIB
    v.delete()


def send(conn, v, data, length=0, offset=0, flags=0):
    stream = conn.newStream()
    v.upload(stream, offset, length, flags)
    left = [data]

    def take(_, count, __):
        piece, left[0] = left[0][:count], left[0][count:]
        return piece
    stream.sendAll(take, None)
    stream.finish()


def test_streams(conn):
    """What does not fit is refused and changes nothing; holes stay holes on both ways."""
    p = pool(conn)
    v = p.createXML(volume("v", capacity="<capacity unit='MiB'>4</capacity>", more="<allocation>0</allocation>"))
    before = read("v")
    for data, length, offset in ((b"x" * (4 * MIB + 1), 4 * MIB + 1, 0), (b"x" * 512, 512, 4 * MIB), (b"x" * 512, 512, 4 * MIB - 511)):
        error_of(lambda d=data, n=length, o=offset: send(conn, v, d, n, o))
        assert read("v") == before, (length, offset)
    error_of(lambda: send(conn, v, b"x" * (4 * MIB + 1)))  # its length not said
    assert len(read("v")) == 4 * MIB == v.info()[1]
    v.wipePattern(libvirt.VIR_STORAGE_VOL_WIPE_ALG_TRIM)
    source, back = f"{M.folder.name}/source", f"{M.folder.name}/back"
    with open(source, "wb") as f:
        f.write(b"head" * 1024)
        f.seek(3 * MIB)
        f.write(b"tail" * 1024)
        f.truncate(4 * MIB)
    for verb, path in (("vol-upload", source), ("vol-download", back)):
        subprocess.run(["virsh", "-q", "-c", URI, verb, "v", path, "--pool", "p", "--sparse"], check=True, timeout=120, capture_output=True)
    with open(source, "rb") as a, open(back, "rb") as b:
        data = a.read()
        assert data == b.read() == read("v")
    assert used("v") < MIB and os.stat(back).st_blocks * 512 < MIB, (used("v"), os.stat(back))
    v.delete()


def image_program(*words, **more):
    return subprocess.Popen(["qemu-io", "-f", "raw", *words, f"{FOLDER}/v"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)


def refusals(v, source):
    """What each way to lose the volume's contents says."""
    yield "wipe", error_of(v.wipe)
    yield "upload", error_of(lambda: send(v.connect(), v, b"x" * 512))
    for words in (["wipe", "p", "v"], ["upload", "p", "v", source]):
        done = subprocess.run([RUCHE, "--connect", M.socket, "volume", *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode, words
        yield words[0], done.stderr
    yield "REST", M.job(M.want(202, "POST", "/pools/p/volumes/v/wipe", {"algorithm": "zero"}))


def test_locks(conn):
    """Contents are not lost under a program that has the image; and none opens it while they are."""
    v = pool(conn).createXML(volume("v"))
    source = f"{M.folder.name}/source"
    with open(source, "wb") as f:
        f.write(b"x" * 512)
    with image_program() as machine:
        machine.stdin.write("write -P 7 0 4096\n")
        machine.stdin.flush()
        while "wrote" not in machine.stdout.readline():
            pass
        for how, said in refusals(v, source):
            assert "volume 'v' is in use by process" in str(said) and "qemu-io" in str(said), (how, said)
        machine.stdin.close()
    assert read("v")[:4096] == bytes([7]) * 4096
    stream = conn.newStream()
    v.upload(stream, 0, 0, 0)
    stream.send(b"y" * 4096)
    with image_program("-c", "write 0 512") as machine:
        said = machine.communicate(timeout=60)[0]
        assert machine.returncode and "lock" in said, said
    stream.finish()
    with image_program("-c", "read -P 0x79 0 4096") as machine:
        assert "read 4096/4096" in machine.communicate(timeout=60)[0]
    v.delete()


def test_key_costs_little(conn):
    """An encrypted volume of ours: what its key costs to check, in a processor's time."""
    p = pool(conn)
    p.createXML(volume("v", "raw", target=LUKS))
    with open(f"{M.folder.name}/key", "w", encoding="ascii") as f:
        f.write(KEY)
    before = os.times().children_user
    subprocess.run([IMG, "bench", "-c", "1", "--object", f"secret,id=k,file={M.folder.name}/key", "--image-opts",
                    f"driver=luks,key-secret=k,file.driver=file,file.filename={FOLDER}/v"], check=True, timeout=120, capture_output=True)
    cost = os.times().children_user - before
    print(f"# an open costs {cost:.2f} s")
    told = info("v")
    assert told["encrypted"] and told["virtual-size"] == MIB, told
    assert min(s["iters"] for s in told["slots"] if s["active"]) >= 1000
    p.storageVolLookupByName("v").delete()


# ---- kill -9 ----

def stages():
    return [n for n in os.listdir(FOLDER) if n.startswith(".ruche-")]


def check_volumes(sizes):
    """What is there has one of its sizes, and is whole."""
    for name in os.listdir(FOLDER):
        if name.startswith(".ruche-"):
            continue
        told = info(name)
        assert told["virtual-size"] in sizes[name], (name, told)
        if told["format"] == "qcow2":  # a ruche-img that outlived its manager may still have it
            in_time(lambda n=name: subprocess.run(["qemu-img", "check", "-q", f"{FOLDER}/{n}"], check=False, capture_output=True, timeout=120))


def in_time(run, seconds=120):
    """What ends well, sooner or later."""
    end = time.monotonic() + seconds
    while (done := run()).returncode:
        assert time.monotonic() < end, f"{done.args}: {done.stderr}"
        time.sleep(0.1)


OPERATIONS = {
    "build": ["pool-build", "q"],
    "create": ["vol-create-as", "p", "new", "32M", "--format", "qcow2", "--prealloc-metadata"],
    "clone": ["vol-clone", "big", "copy", "--pool", "p"],
    "upload": ["vol-upload", "big", "{blob}", "--pool", "p"],
    "wipe": ["vol-wipe", "big", "--pool", "p", "--algorithm", "gutmann"],
    "resize": ["vol-resize", "grows", "{size}M", "--pool", "p", "--allocate"],
    "delete": ["vol-delete", "goes", "--pool", "p"],
    "refresh": ["pool-refresh", "p"],
}


def test_kills(conn):
    """SIGKILL in each operation, at several moments: afterwards nothing half is there, and the same can be done again."""
    conn.close()
    blob = f"{M.folder.name}/blob"
    with open(blob, "wb") as f:
        f.write(os.urandom(24 * MIB))

    def virsh(*words, ok=True):
        r = subprocess.run(["virsh", "-q", "-c", URI, *words], capture_output=True, text=True, timeout=120, check=False)
        assert not ok or r.returncode == 0, f"virsh {' '.join(words)}: {r.stderr}"
        return r.stdout

    virsh("pool-define-as", "q", "dir", "--target", FOLDER + "-q")
    virsh("vol-create-as", "p", "big", "24M")
    virsh("vol-create-as", "p", "grows", "1M", "--format", "qcow2")
    sizes = {"base": {3 * MIB}, "big": {24 * MIB}, "copy": {24 * MIB}, "new": {32 * MIB}, "goes": {4 * MIB}, "grows": {n * MIB for n in range(1, 40)}}
    for number, (name, words) in enumerate(OPERATIONS.items()):
        for turn in range(2):
            size = 2 + 3 * number + turn
            virsh("vol-create-as", "p", "goes", "4M", ok=False)
            client = subprocess.Popen(["virsh", "-q", "-c", URI, *(w.format(blob=blob, size=size) for w in words)],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.02 + 0.06 * turn)  # any moment will do
            M.kill()
            client.wait(120)
            M.start()
            assert "p" in virsh("pool-list", "--name").split() and "q" in virsh("pool-list", "--all", "--name").split(), name
            end = time.monotonic() + 120
            virsh("pool-refresh", "p")
            while stages() and time.monotonic() < end:  # a ruche-img that outlived its manager
                time.sleep(0.1)
                virsh("pool-refresh", "p")
            assert not stages(), (name, stages())
            check_volumes(sizes)
            for made in ("new", "copy"):
                virsh("vol-delete", made, "--pool", "p", ok=False)
        virsh("vol-create-as", "p", "goes", "4M", ok=False)
        again = ["virsh", "-q", "-c", URI, *(w.format(blob=blob, size=size + 1) for w in words)]
        in_time(lambda a=again: subprocess.run(a, capture_output=True, text=True, timeout=120, check=False))
    with open(blob, "rb") as f:
        assert len(read("big")) == 24 * MIB and f.read() != read("big")  # wiped since


def fresh(test, conn):
    """None goes on with what another left."""
    for v in pool(conn).listAllVolumes():
        v.delete()
    test(conn)


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    os.mkdir(FOLDER)
    conn = connect()
    conn.storagePoolDefineXML(f"<pool type='dir'><name>p</name><target><path>{FOLDER}</path></target></pool>").create()
    secret = conn.secretDefineXML(f"<secret private='yes'><uuid>{SECRET}</uuid><usage type='volume'><volume>any</volume></usage></secret>")
    secret.setValue(KEY.encode())
    tests = (test_options, test_units, test_allocation, test_resize, test_wipe, test_streams, test_locks, test_key_costs_little, test_kills)
    try:
        tap.run({t.__name__[5:].replace("_", " "): lambda t=t: fresh(t, conn) for t in tests})
    finally:
        M.close()


if __name__ == "__main__":
    main()
