#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""VMDK and VDI between ruche-img and qemu-img: each writes, the other one reads, checks and goes on writing. TAP.

    img_vmdk_vdi.py RUCHE-IMG
"""
import hashlib
import io
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap  # noqa: E402

RUCHE = os.path.abspath(sys.argv[1])
WORK = tempfile.TemporaryDirectory(prefix="ruche-vmdk-")
ENV = {**os.environ, "LC_ALL": "C"}
MIB = 1 << 20
SIZE = 70 * MIB + 1536  # three grain tables, and a cut last grain
SUBFORMATS = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]
SPARSE = ["monolithicSparse", "twoGbMaxExtentSparse", "streamOptimized"]


def path(name):
    return os.path.join(WORK.name, name)


def run(*command, code=0):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=ENV, cwd=WORK.name, check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode != code:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def ruche(*words, code=0):
    return run(RUCHE, *words, code=code)


def qemu(*words, code=0):
    return run("qemu-img", *words, code=code)


def source(name, seed, size=SIZE):
    """A raw disk: holes, zeroes, text that compresses and noise that does not, at odd places."""
    chance = random.Random(seed)
    with open(path(name), "wb") as f:
        f.truncate(size)
        for _ in range(25):
            length = chance.choice([512, 4096, 70000, 300000, MIB])
            f.seek(chance.randrange(0, (size - length) // 512) * 512)
            kind = chance.randrange(3)
            f.write([bytes(length), chance.randbytes(length), (b"honey %d " % chance.randrange(9)) * (length // 8)][kind][:length])
        f.seek(size - 512)
        f.write(b"end " * 128)
    return name


def same(a, b):
    """By both."""
    ruche("compare", a, b)
    qemu("compare", a, b)


VOLATILE = {"actual-size", "cid", "filename", "dirty-flag", "children"}


def steady(value):
    if isinstance(value, dict):
        return {k: steady(v) for k, v in value.items() if k not in VOLATILE}
    return [steady(v) for v in value] if isinstance(value, list) else value


def same_info(a, b):
    ours, theirs = (steady(json.loads(tool("info", "--output=json", name))) for tool, name in ((ruche, a), (qemu, b)))
    assert ours == theirs, f"{ours} is not {theirs}"


def clean(name):
    ruche("check", name)


# ---- VMDK ----

def convert_both_ways(subformat, extra):
    def test():
        raw = source("src.raw", hash((subformat, extra)) & 0xffff)
        options = ",".join(filter(None, [f"subformat={subformat}", extra]))
        ruche("convert", "-O", "vmdk", "-o", options, raw, "ours.vmdk")
        qemu("convert", "-O", "vmdk", "-o", options, raw, "theirs.vmdk")
        for name in ("ours.vmdk", "theirs.vmdk"):
            same(raw, name)
            clean(name)
            same_info(name, name)
        same_info("ours.vmdk", "theirs.vmdk")
        same("ours.vmdk", "theirs.vmdk")
    return test


def descriptor_of(name):
    with open(path(name), "rb") as f:
        data = f.read(65536)
    text = data[data.index(b"# Disk DescriptorFile"):].split(b"\0")[0].decode()
    return [line for line in text.splitlines() if line and not line.startswith(("CID=", "RW "))]


def descriptors():
    """The same options give the same descriptor, and the same fields of the header that tools look at."""
    for options in ("adapter_type=ide", "adapter_type=lsilogic", "adapter_type=buslogic", "adapter_type=legacyESX",
                    "hwversion=10", "compat6=on", "toolsversion=10341", "zeroed_grain=on", "subformat=streamOptimized",
                    "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse"):
        ruche("create", "-f", "vmdk", "-o", options, "ours.vmdk", "3G")
        qemu("create", "-f", "vmdk", "-o", options, "theirs.vmdk", "3G")
        ours, theirs = descriptor_of("ours.vmdk"), descriptor_of("theirs.vmdk")
        assert ours == theirs, f"{options}: {ours} is not {theirs}"
        heads = []
        for name in ("ours.vmdk", "theirs.vmdk"):
            with open(path(name), "rb") as f:
                heads.append(f.read(48))
        if heads[1][:4] == b"KDMV" and "stream" not in options:  # the peer's streams have tables in front
            assert heads[0][:28] == heads[1][:28], f"{options}: {heads}"


def writes_go_on(subformat):
    """Written by turns, each on what the other one left."""
    def test():
        raw = source("src.raw", 77)
        shutil.copy(path(raw), path("model.raw"))
        ruche("convert", "-O", "vmdk", "-o", f"subformat={subformat}", raw, "disk.vmdk")
        chance = random.Random(subformat)
        for turn in range(4):
            commands = []
            for _ in range(12):
                length = chance.choice([512, 4096, 65536, 200 * 1024])
                at = chance.randrange(0, (SIZE - length) // 512) * 512
                word = chance.choice([f"write -P {chance.randrange(1, 255)}", "write -z"])
                commands += ["-c", f"{word} {at} {length}"]
            run("qemu-io", "-f", "raw", *commands, "model.raw")
            if turn % 2:
                ruche("convert", "-n", "-O", "vmdk", "model.raw", "disk.vmdk")
            else:
                run("qemu-io", "-f", "vmdk", *commands, "disk.vmdk")
            same("model.raw", "disk.vmdk")
            clean("disk.vmdk")
    return test


def stream_of_the_peer():
    """Its tables stand in front; we write on, and it reads what we wrote."""
    raw = source("src.raw", 78)
    qemu("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, "s.vmdk")
    run("qemu-io", "-f", "raw", "-c", "write -P 1 100k 3M", "-c", "write -P 2 50M 512", raw)
    ruche("convert", "-n", "-O", "vmdk", raw, "s.vmdk")
    same(raw, "s.vmdk")
    clean("s.vmdk")


def backing(first, second):
    """A chain of three that both made; maps, commit and rebase."""
    def test():
        tools = {"ruche": ruche, "qemu": qemu}
        raw = source("src.raw", 5)
        tools[first]("convert", "-O", "vmdk", raw, "base.vmdk")
        tools[second]("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "mid.vmdk")
        run("qemu-io", "-f", "vmdk", "-c", "write -P 7 1M 100k", "-c", "write -P 8 33M 512", "mid.vmdk")
        tools[first]("create", "-f", "vmdk", "-b", "mid.vmdk", "-F", "vmdk", "-o", "zeroed_grain=on", "top.vmdk")
        run("qemu-io", "-f", "vmdk", "-c", "write -P 9 1064k 20k", "-c", "write -z 33M 64k", "top.vmdk")
        same_info("top.vmdk", "top.vmdk")
        ours, theirs = (json.loads(tool("map", "--output=json", "top.vmdk")) for tool in (ruche, qemu))
        for row in ours + theirs:
            row.pop("compressed", None)
        assert ours == theirs, f"{ours} is not {theirs}"
        ruche("convert", "-O", "raw", "top.vmdk", "flat.raw")
        same("flat.raw", "top.vmdk")
        tools[second]("commit", "top.vmdk")
        same("flat.raw", "mid.vmdk")
        ruche("rebase", "-u", "-b", "", "mid.vmdk")
        assert "backing" not in qemu("info", "mid.vmdk")
    return test


def parent_changed():
    """A child whose parent was changed is refused by us as by the peer."""
    qemu("create", "-f", "vmdk", "base.vmdk", "1M")
    ruche("create", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk", "top.vmdk")
    same("base.vmdk", "top.vmdk")
    run("qemu-io", "-f", "vmdk", "-c", "write 0 512", "base.vmdk")
    ruche("convert", "-O", "raw", "top.vmdk", "x.raw", code=1)
    qemu("convert", "-O", "raw", "top.vmdk", "x.raw", code=1)


def stream_markers():
    """A stream can be read from the front without its tables, as import tools do."""
    raw = source("src.raw", 9)
    ruche("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, "s.vmdk")
    with open(path("s.vmdk"), "rb") as f:
        data = f.read()
    with open(path(raw), "rb") as f:
        want = f.read()
    import zlib
    disk, at, last = bytearray(SIZE), struct.unpack_from("<Q", data, 64)[0] * 512, -1
    kinds = []
    while True:
        value, size, kind = struct.unpack_from("<QII", data, at)
        if size:
            assert value > last, "grains are not in order"
            last = value
            grain = zlib.decompress(data[at + 12:at + 12 + size])
            assert len(grain) == 65536
            room = min(len(grain), SIZE - value * 512)
            disk[value * 512:value * 512 + room] = grain[:room]
            at += -(-(12 + size) // 512) * 512
        else:
            kinds.append(kind)
            at += 512 * (1 + value)
            if kind == 0:
                break
    assert bytes(disk) == want
    assert at == len(data) and kinds[-3:] == [2, 3, 0] and set(kinds[:-3]) == {1}, kinds


def grow():
    raw = source("src.raw", 11)
    for subformat in ("monolithicSparse", "monolithicFlat"):
        qemu("convert", "-O", "vmdk", "-o", f"subformat={subformat}", raw, "disk.vmdk")
        shutil.copy(path(raw), path("model.raw"))
        run("truncate", "-s", str(300 * MIB), "model.raw")
        ruche("resize", "disk.vmdk", "300M")
        same("model.raw", "disk.vmdk")
        for name, form in (("disk.vmdk", "vmdk"), ("model.raw", "raw")):
            run("qemu-io", "-f", form, "-c", "write -P 3 250M 1M", "-c", "write -P 4 70M 1M", name)
        same("model.raw", "disk.vmdk")
        clean("disk.vmdk")


def split_extents():
    """Over 2 GiB: the boundary inside one write."""
    for subformat in ("twoGbMaxExtentSparse", "twoGbMaxExtentFlat"):
        ruche("create", "-f", "vmdk", "-o", f"subformat={subformat}", "ours.vmdk", "5G")
        qemu("create", "-f", "vmdk", "-o", f"subformat={subformat}", "theirs.vmdk", "5G")
        same_info("ours.vmdk", "theirs.vmdk")
        for name in ("ours.vmdk", "theirs.vmdk"):
            run("qemu-io", "-f", "vmdk", "-c", "write -P 5 2147400000 1M", "-c", "write -P 6 4G 1M", name)
        same("ours.vmdk", "theirs.vmdk")


def odd_sizes():
    for size in (512, 65536, 65536 + 512, 32 * MIB, 32 * MIB + 512):
        raw = source("odd.raw", size, max(size, 512)) if size > 2 * MIB else "odd.raw"
        if size <= 2 * MIB:
            with open(path(raw), "wb") as f:
                f.write(os.urandom(size))
        for subformat in SUBFORMATS:
            ruche("convert", "-O", "vmdk", "-o", f"subformat={subformat}", raw, "odd.vmdk")
            same(raw, "odd.vmdk")
        ruche("convert", "-O", "vdi", raw, "odd.vdi")
        same(raw, "odd.vdi")


# ---- VDI ----

def vdi_both_ways(extra):
    def test():
        raw = source("src.raw", 21)
        more = ["-o", extra] if extra else []
        ruche("convert", "-O", "vdi", *more, raw, "ours.vdi")
        qemu("convert", "-O", "vdi", *more, raw, "theirs.vdi")
        for name in ("ours.vdi", "theirs.vdi"):
            same(raw, name)
            clean(name)
            qemu("check", name)
            same_info(name, name)
        same_info("ours.vdi", "theirs.vdi")
        assert os.path.getsize(path("ours.vdi")) == os.path.getsize(path("theirs.vdi"))
        for name, form in (("ours.vdi", "vdi"), ("theirs.vdi", "vdi"), (raw, "raw")):
            run("qemu-io", "-f", form, "-c", "write -P 7 1500k 3M", "-c", "write -P 8 60M 512", "-c", "write -z 5M 2M", name)
        same(raw, "ours.vdi")
        ruche("convert", "-n", "-O", "vdi", raw, "theirs.vdi")
        same(raw, "theirs.vdi")
        qemu("check", "theirs.vdi")
    return test


def vdi_broken():
    """Entries that are wrong: the same verdicts, and ours repairs."""
    qemu("create", "-f", "vdi", "b.vdi", "8M")
    run("qemu-io", "-f", "vdi", "-c", "write 0 4M", "b.vdi")
    with open(path("b.vdi"), "r+b") as f:
        f.seek(512 + 4)
        f.write(struct.pack("<2I", 0, 99))
    ruche("check", "b.vdi", code=2)
    qemu("check", "b.vdi", code=2)
    ruche("check", "-r", "all", "b.vdi")
    clean("b.vdi")
    qemu("check", "b.vdi")
    ruche("convert", "-O", "raw", "b.vdi", "x.raw")


def vdi_grow():
    raw = source("src.raw", 31)
    ruche("convert", "-O", "vdi", raw, "g.vdi")
    for size in (100 * MIB, 129 * MIB, 3000 * MIB):
        ruche("resize", "g.vdi", str(size))
        run("truncate", "-s", str(size), raw)
        same(raw, "g.vdi")
        for name, form in (("g.vdi", "vdi"), (raw, "raw")):
            run("qemu-io", "-f", form, "-c", f"write -P {size % 251} {size - 2 * MIB} 1M", name)
        same(raw, "g.vdi")
        clean("g.vdi")


# ---- OVA ----

OVF = """<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:href="vm-disk1.vmdk" ovf:id="file1"/></References>
<DiskSection><Info>Disks</Info><Disk ovf:capacity="%d" ovf:diskId="vmdisk1" ovf:fileRef="file1"
 ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection></Envelope>
""" % SIZE


def ova():
    if "extract" not in ruche("--help"):
        raise tap.Skip("this ruche-img has no extract")
    raw = source("src.raw", 41)
    qemu("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, "vm-disk1.vmdk")
    with open(path("vm-disk1.vmdk"), "rb") as f:
        disk = f.read()
    manifest = "".join(f"SHA256({name})= {hashlib.sha256(data).hexdigest()}\n"
                       for name, data in (("vm.ovf", OVF.encode()), ("vm-disk1.vmdk", disk)))
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(path("vm.ova"), "w", format=form) as archive:
            for name, data in (("vm.ovf", OVF.encode()), ("vm.mf", manifest.encode()), ("vm-disk1.vmdk", disk)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        os.makedirs(path("out"), exist_ok=True)
        ruche("extract", "-O", "raw", "-d", "out", "vm.ova")
        found = os.listdir(path("out"))
        assert len(found) == 1, found
        qemu("compare", "-f", "raw", "-F", "raw", raw, f"out/{found[0]}")
        shutil.rmtree(path("out"))
    with open(path("vm.ova"), "r+b") as f:  # one bit of the disk
        place = f.read().index(disk) + len(disk) // 2
        f.seek(place)
        f.write(bytes([disk[len(disk) // 2] ^ 1]))
    ruche("extract", "-O", "raw", "vm.ova", "x.raw", code=1)
    assert not os.path.exists(path("x.raw"))


TESTS = {f"vmdk {s} {e or 'plain'}": convert_both_ways(s, e)
         for s, e in itertools.product(SUBFORMATS, ["", "hwversion=11,adapter_type=lsilogic", "compat6=on"])}
TESTS |= {f"vmdk {s} zeroed_grain": convert_both_ways(s, "zeroed_grain=on") for s in SPARSE[:2]}
TESTS |= {"vmdk descriptors": descriptors}
TESTS |= {f"vmdk {s} written by turns": writes_go_on(s) for s in SUBFORMATS[:4]}
TESTS |= {f"vmdk chain {a} {b}": backing(a, b) for a, b in itertools.product(["ruche", "qemu"], repeat=2)}
TESTS |= {"vmdk parent changed": parent_changed, "vmdk stream markers": stream_markers,
          "vmdk stream of the peer": stream_of_the_peer, "vmdk grow": grow,
          "vmdk split extents": split_extents, "odd sizes": odd_sizes}
TESTS |= {f"vdi {e or 'dynamic'}": vdi_both_ways(e) for e in ("", "static=on")}
TESTS |= {"vdi broken": vdi_broken, "vdi grow": vdi_grow, "ova extract": ova}


def fresh(test):
    """Each test finds an empty folder."""
    def wrapped():
        for name in os.listdir(WORK.name):
            entry = path(name)
            shutil.rmtree(entry) if os.path.isdir(entry) else os.unlink(entry)
        test()
    return wrapped


if __name__ == "__main__":
    for program in ("qemu-img", "qemu-io"):
        if not shutil.which(program):
            print(f"1..0 # SKIP {program} is not installed")
            sys.exit(0)
    tap.run({name: fresh(test) for name, test in TESTS.items()})
