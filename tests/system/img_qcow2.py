# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images managed by ruche-img and qemu-img in turn: what one makes, changes or repairs, the other reads, checks and changes on.

Arguments: the ruche-img under test; optionally words: only tests whose names contain one. Every image has a twin, a raw
file with the bytes that it is to hold; qemu-img judges.
"""
import itertools
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap

MIB = 1 << 20
SIZE = 8 * MIB
ROOT = tempfile.mkdtemp(prefix="img-qcow2-")
OURS = os.path.abspath(sys.argv[1])
TOOLS = {"ours": OURS, "peer": "qemu-img"}
TESTS = {}

# Options, and what cannot be done with such an image.
MATRIX = {
    "plain": "",
    "v2": "compat=0.10",
    "512": "cluster_size=512",
    "2M": "cluster_size=2M",
    "4k-1bit": "cluster_size=4k,refcount_bits=1",
    "64k-64bit": "refcount_bits=64",
    "subclusters": "extended_l2=on",
    "16k-subclusters": "extended_l2=on,cluster_size=16k",
    "lazy": "lazy_refcounts=on",
    "zstd": "compression_type=zstd",
    "metadata": "preallocation=metadata",
    "full": "preallocation=full,cluster_size=4k",
    "data-file": "data_file=DATA",
    "data-file-raw": "data_file=DATA,data_file_raw=on",
}


def test(name):
    def add(fn):
        TESTS[name] = fn
        return fn
    return add


def path(name):
    return os.path.join(ROOT, name)


def call(argv, code=0):
    done = subprocess.run(argv, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
    if code is not None and done.returncode != code:
        raise AssertionError(f"{' '.join(argv)}: exit code {done.returncode}, not {code}\n"
                             f"{done.stdout.decode()[-2000:]}{done.stderr.decode()[-2000:]}")
    return done


def tool(side, *words, code=0):
    return call([TOOLS[side], *words], code).stdout.decode()


def create(side, name, options="", size=SIZE, backing=None):
    words = ["create", "-q", "-f", "qcow2"]
    options = options.replace("DATA", name + ".data")
    if options:
        words += ["-o", options]
    if backing:
        words += ["-b", backing, "-F", "qcow2"]
    tool(side, *words, name, str(size))


def qemu_io(name, *commands):
    words = ["qemu-io", "-f", "qcow2"]
    for command in commands:
        words += ["-c", command]
    call([*words, name])


class Twin:
    """The bytes that an image is to hold, and random writes to both."""

    def __init__(self, size=SIZE, seed=1):
        self.bytes = bytearray(size)
        self.random = random.Random(seed)
        self.touched = set()  # MiB that were written: qemu-io compresses only what is new

    def copy(self):
        twin = Twin(0)
        twin.bytes = bytearray(self.bytes)
        twin.touched = set(range(len(self.bytes) // MIB))
        return twin

    def scribble(self, name, compress=False, zeroes=True):
        commands = []
        for _ in range(8):
            length = self.random.choice([512, 4096, 65536, 200 * 512, MIB])
            at = self.random.randrange(0, (len(self.bytes) - length) // 512) * 512
            kind = self.random.randrange(6)
            if kind == 0 and zeroes:
                commands.append(f"write -z {at} {length}")
                self.bytes[at:at + length] = bytes(length)
            elif kind == 1 and compress and not self.touched & {at // MIB & ~1, at // MIB | 1}:
                at, length = at // (2 * MIB) * 2 * MIB, 2 * MIB
                commands.append(f"write -c -P 7 {at} {length}")
                self.bytes[at:at + length] = b"\7" * length
            else:
                byte = self.random.randrange(1, 256)
                commands.append(f"write -P {byte} {at} {length}")
                self.bytes[at:at + length] = bytes([byte]) * length
            self.touched |= set(range(at // MIB, (at + length - 1) // MIB + 1))
        qemu_io(name, *commands)

    def judge(self, name):
        with open(path("twin.raw"), "wb") as f:
            f.write(self.bytes)
        for side in TOOLS:
            tool(side, "compare", "-f", "raw", "-F", "qcow2", "twin.raw", name)
        clean(name)


def check(side, name, *words):
    done = call([TOOLS[side], "check", "-f", "qcow2", "--output=json", *words, name], None)
    found = json.loads(done.stdout)
    return done.returncode, found


# Counters that both programs must agree upon.
COUNTERS = ["total-clusters", "allocated-clusters", "fragmented-clusters", "compressed-clusters", "corruptions", "leaks",
            "check-errors", "image-end-offset"]


def same_check(name):
    (ours_code, ours), (peer_code, peer) = check("ours", name), check("peer", name)
    ours, peer = ({k: found[k] for k in COUNTERS if k in found} for found in (ours, peer))
    if (ours_code, ours) != (peer_code, peer):
        raise AssertionError(f"{name}: ours says {ours_code} {ours}, qemu-img {peer_code} {peer}")
    return ours_code, ours


def clean(name):
    code, found = same_check(name)
    if code:
        raise AssertionError(f"{name} is not clean: {found}")


def each_option(leave=()):
    return {label: o for label, o in MATRIX.items() if not any(word in label for word in leave)}


@test("create by either, write, read by the other")
def _create():
    for (label, options), side in itertools.product(MATRIX.items(), TOOLS):
        name, twin = f"create-{label}-{side}", Twin()
        create(side, name, options)
        twin.judge(name)
        twin.scribble(name, compress="data" not in label)
        twin.judge(name)


@test("info says the same of what either creates")
def _info():
    for label, options in MATRIX.items():
        shown = []
        for side in TOOLS:
            os.makedirs(path(side), exist_ok=True)
            name = f"{side}/info-{label}"
            create(side, name, options.replace("DATA", f"{label}.data") if side == "ours" else
                   options.replace("DATA", f"peer/{label}.data"))
            info = json.loads(tool("peer", "info", "--output=json", name))
            data = info["format-specific"]["data"]
            data.pop("data-file", None)
            shown.append((info["virtual-size"], info["cluster-size"], data))
        if shown[0] != shown[1]:
            raise AssertionError(f"{label}: {shown[0]} is not {shown[1]}")


@test("measure gives the same numbers")
def _measure():
    sizes = ["0", "512", "1M", "1G", str(3 * (1 << 30) + 512), "1T"]
    options = ["", "cluster_size=512", "cluster_size=2M", "extended_l2=on", "refcount_bits=1", "refcount_bits=64",
               "compat=0.10", "preallocation=full", "preallocation=metadata,cluster_size=4k"]
    for size, option in itertools.product(sizes, options):
        words = ["measure", "--output=json", "-O", "qcow2", *(["-o", option] if option else []), "--size", size]
        answers = [call([TOOLS[side], *words], None) for side in TOOLS]
        if answers[0].returncode != answers[1].returncode:
            raise AssertionError(f"{words}: {answers[0]} but {answers[1]}")
        if not answers[1].returncode and json.loads(answers[0].stdout) != json.loads(answers[1].stdout):
            raise AssertionError(f"{words}: {answers[0].stdout} but {answers[1].stdout}")
    for label, options in each_option().items():
        name, twin = f"measure-{label}", Twin()
        create("peer", name, options)
        twin.scribble(name)
        for option in ["cluster_size=64k", "cluster_size=512", "cluster_size=2M", "preallocation=falloc"]:
            words = ["measure", "--output=json", "-O", "qcow2", "-o", option, "-f", "qcow2", name]
            ours, peer = (json.loads(tool(side, *words)) for side in TOOLS)
            if ours != peer:
                raise AssertionError(f"{words}: {ours} but {peer}")


@test("snapshots by turns")
def _snapshots():
    for i, (label, options) in enumerate(each_option(["1bit", "data"]).items()):
        for order in range(2) if label == "plain" else [i % 2]:
            sides = ["ours", "peer"] if order else ["peer", "ours"]
            turn = itertools.cycle(sides)
            name, twin = f"snap-{label}-{order}", Twin()
            create(next(turn), name, options)
            kept = {}
            for i in range(4):
                twin.scribble(name, compress=True)
                tool(next(turn), "snapshot", "-c", f"s{i}", name)
                kept[f"s{i}"] = twin.copy()
                clean(name)
            next(turn)
            for i, gone in [(0, 1), (2, 0), (3, 2), (3, 3)]:
                side = next(turn)
                tool(side, "snapshot", "-a", f"s{i}", name)
                twin = kept[f"s{i}"].copy()
                twin.judge(name)
                twin.scribble(name, compress=True)
                clean(name)
                tool(side, "snapshot", "-d", f"s{gone}", name)
                twin.judge(name)
            listed = json.loads(tool("peer", "info", "--output=json", name)).get("snapshots", [])
            if listed:
                raise AssertionError(f"{name} still has {listed}")


@test("a snapshot's contents are read by name")
def _snapshot_read():
    name, twin = "snap-read", Twin()
    create("ours", name)
    twin.scribble(name)
    tool("ours", "snapshot", "-c", "old", name)
    old = twin.copy()
    twin.scribble(name)
    for side in TOOLS:
        tool(side, "convert", "-f", "qcow2", "-l", "snapshot.name=old", "-O", "raw", name, "old.raw")
        with open(path("old.raw"), "rb") as f:
            assert f.read() == old.bytes
    twin.judge(name)


@test("backing chains")
def _backing():
    for label, options in each_option(["data", "metadata", "full"]).items():
        twin = Twin()
        names = [f"chain-{label}-{i}" for i in range(4)]
        for i, name in enumerate(names):
            create(["ours", "peer"][i % 2], name, options, backing=names[i - 1] if i else None)
            twin.scribble(name, compress=True)
        twin.judge(names[-1])
    create("ours", "over-subclusters", "extended_l2=on,preallocation=metadata", backing="chain-plain-3")
    tool("peer", "compare", "-f", "qcow2", "-F", "qcow2", "chain-plain-3", "over-subclusters")


def bitmaps(name):
    data = json.loads(tool("peer", "info", "--output=json", name))["format-specific"]["data"]
    ours = json.loads(tool("ours", "info", "--output=json", name))["format-specific"]["data"]
    if data.get("bitmaps") != ours.get("bitmaps"):
        raise AssertionError(f"{name}: {ours.get('bitmaps')} but {data.get('bitmaps')}")
    return {b["name"]: b for b in data.get("bitmaps", [])}


@test("bitmaps by turns")
def _bitmaps():
    for label, options in each_option(["v2"]).items():
        name = f"bitmap-{label}"
        create("ours", name, options)
        tool("ours", "bitmap", "--add", "-g", "4k", name, "one")
        qemu_io(name, "write -P 1 1M 64k")
        tool("peer", "bitmap", "--add", name, "two")
        qemu_io(name, "write -P 2 3M 64k")
        tool("ours", "bitmap", "--add", "--disable", name, "three")
        assert sorted(bitmaps(name)) == ["one", "three", "two"], bitmaps(name)
        assert bitmaps(name)["three"]["flags"] == []
        tool("ours", "bitmap", "--merge", "one", name, "three")
        tool("peer", "bitmap", "--remove", name, "two")
        tool("ours", "bitmap", "--clear", name, "one")
        clean(name)
        qemu_io(name, "write -P 3 0 4k")
        clean(name)
        dirty = {}
        for bitmap in ["one", "three"]:
            words = ["nbdinfo", "--map=qemu:dirty-bitmap:" + bitmap, "--json", "--", "[", "qemu-nbd", "-r", "-f", "qcow2", "-B", bitmap,
                     name, "]"]
            if not shutil.which("nbdinfo"):
                break
            dirty[bitmap] = [(e["offset"], e["length"]) for e in json.loads(call(words).stdout) if e["type"] & 1]
        if dirty:
            assert dirty["one"] == [(0, 4096)], dirty
            grain = bitmaps(name)["three"]["granularity"]
            assert dirty["three"] == [(MIB, 65536), (3 * MIB, 65536)] or grain > 65536, dirty
        tool("ours", "bitmap", "--remove", name, "three")
        tool("ours", "bitmap", "--remove", name, "one")
        assert not bitmaps(name)
        clean(name)


@test("a bitmap in use is inconsistent, and can be removed")
def _bitmap_in_use():
    name = "bitmap-in-use"
    create("peer", name)
    tool("peer", "bitmap", "--add", name, "b")
    with open(path(name), "r+b") as f:
        f.seek(0)
        header = f.read(4096)
        at = header.index(struct.pack(">II", 0x23852875, 24))
        directory = struct.unpack(">Q", header[at + 24:at + 32])[0]
        f.seek(directory + 12)
        f.write(struct.pack(">I", 3))
    assert bitmaps(name)["b"]["flags"] == ["in-use", "auto"]
    tool("ours", "bitmap", "--clear", name, "b", code=1)
    clean(name)
    tool("ours", "bitmap", "--remove", name, "b")
    assert not bitmaps(name)
    clean(name)


@test("amend by either")
def _amend():
    steps = ["compat=1.1", "lazy_refcounts=on", "refcount_bits=64", "refcount_bits=1", "refcount_bits=16", "lazy_refcounts=off",
             "size=16M", "compat=0.10"]
    for first in range(2):
        name, twin = f"amend-{first}", Twin()
        create("ours", name, "compat=0.10,cluster_size=4k")
        for i, step in enumerate(steps):
            twin.scribble(name, compress="refcount_bits=1" not in steps[max(i - 3, 0):i], zeroes=False)
            if step == "refcount_bits=1":  # compressed clusters share what one bit cannot count
                tool("peer", "convert", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size=4k,refcount_bits=64", name, "flat")
                os.replace(path("flat"), path(name))
            side = ["ours", "peer"][(i + first) % 2]
            tool(side, "amend", "-f", "qcow2", "-o", step, name)
            if step == "size=16M":
                twin.bytes += bytes(8 * MIB)
            twin.judge(name)


@test("a downgrade writes zero clusters out")
def _downgrade():
    create("ours", "low")
    qemu_io("low", "write -P 1 0 8M")
    for backing in [None, "low"]:
        twin = Twin()
        if backing:
            twin.bytes = bytearray(b"\1" * SIZE)
        name = f"downgrade-{backing}"
        create("ours", name, backing=backing)
        twin.scribble(name)
        tool("ours", "amend", "-f", "qcow2", "-o", "compat=0.10", name)
        assert json.loads(tool("peer", "info", "--output=json", name))["format-specific"]["data"]["compat"] == "0.10"
        twin.judge(name)


class Patient:
    """An image whose tables can be hurt."""

    def __init__(self, name):
        self.name, self.twin = name, Twin()
        create("peer", name)
        qemu_io(name, *(f"write -P {i + 1} {i * 65536} 65536" for i in range(16)))
        for i in range(16):
            self.twin.bytes[i * 65536:(i + 1) * 65536] = bytes([i + 1]) * 65536
        self.reftable = self.get(48)
        self.block = self.get(self.reftable)
        self.l1 = self.get(40)
        self.l2 = self.get(self.l1) & ~(1 << 63)

    def get(self, at):
        with open(path(self.name), "rb") as f:
            f.seek(at)
            return struct.unpack(">Q", f.read(8))[0]

    def put(self, at, value, form=">Q"):
        with open(path(self.name), "r+b") as f:
            f.seek(at)
            f.write(struct.pack(form, value))

    def place(self, cluster):
        return self.get(self.l2 + cluster * 8) & ~(1 << 63)

    def count(self, offset, value):
        self.put(self.block + offset // 65536 * 2, value, ">H")


# What hurts; the clusters whose contents it takes.
HURTS = {
    "count of data too low": (lambda p: p.count(p.place(3), 0), []),
    "count of L2 too low": (lambda p: p.count(p.l2, 0), []),
    "count too high": (lambda p: p.count(p.place(3), 7), []),
    "leaked cluster": (lambda p: p.put(p.l2 + 8 * 5, 0), [5]),
    "copied flag lost": (lambda p: p.put(p.l2 + 8 * 5, p.place(5)), []),
    "copied flag of L1 lost": (lambda p: p.put(p.l1, p.l2), []),
    "two entries, one cluster": (lambda p: p.put(p.l2 + 8 * 6, p.get(p.l2 + 8 * 7)), [6]),
    "no refcount block": (lambda p: p.put(p.reftable, 0), []),
    "refcount block outside": (lambda p: p.put(p.reftable, 1 << 36), []),
    "unaligned refcount block": (lambda p: p.put(p.reftable, p.block + 512), []),
    "dirty mark": (lambda p: p.put(72, 1), []),
    "corrupt mark": (lambda p: p.put(72, 2), []),
}


@test("damage is counted as qemu-img counts it, and repaired")
def _repair():
    for label, (hurt, lost) in HURTS.items():
        p = Patient("patient")
        hurt(p)
        # The peer counts damage of the structures another way, and blames flags where only a count is too high.
        if "refcount block" not in label and "too high" not in label:
            same_check(p.name)
        assert bool(check("ours", p.name)[0]) == bool(check("peer", p.name)[0]), label
        done = call([OURS, "check", "-r", "all", p.name], None)
        assert done.returncode == 0, f"{label}: {done}"
        for cluster in lost:
            p.twin.bytes[cluster * 65536:(cluster + 1) * 65536] = bytes(65536) if label != "two entries, one cluster" else b"\10" * 65536
        p.twin.judge(p.name)
        p.twin.scribble(p.name)
        p.twin.judge(p.name)


@test("leaks alone are repaired by -r leaks")
def _repair_leaks():
    p = Patient("leaky")
    p.count(p.place(3), 7)
    p.put(p.l2 + 8 * 5, 0)
    code, _ = check("ours", p.name)
    assert code == 3
    call([OURS, "check", "-r", "leaks", p.name], 0)
    p.twin.bytes[5 * 65536:6 * 65536] = bytes(65536)
    p.twin.judge(p.name)


@test("crossed tables end in a sentence, never in harm")
def _hostile():
    chance = random.Random(3)
    for round_ in range(60):
        p = Patient("hostile")
        spots = [8, 16, 20, 24, 32, 36, 40, 48, 56, 60, 64, 72, 96, 100, p.reftable, p.block, p.l1, p.l2, p.l2 + 8, p.l2 + 64]
        for _ in range(chance.randrange(1, 3)):
            spot = chance.choice(spots)
            value = chance.choice([p.l1, p.l2, p.block, p.reftable, 512, 1 << 40, 1 << 62, (1 << 64) - 1, chance.getrandbits(64)])
            p.put(spot, value)
        for words in (["check"], ["check", "-r", "all"], ["info"], ["convert", "-O", "raw"]):
            argv = [OURS, *words, p.name, *(["out.raw"] if words[0] == "convert" else [])]
            done = call(argv, None)
            assert done.returncode in (0, 1, 2, 3, 63), f"round {round_}: {argv}: {done}"


@test("options that do not go together are refused in a sentence")
def _refusals():
    create("ours", "there")
    for words in ["-o cluster_size=3k", "-o cluster_size=4M", "-o refcount_bits=5", "-o compat=0.10,refcount_bits=8",
                  "-o compat=0.10,lazy_refcounts=on", "-o extended_l2=on,cluster_size=4k", "-o compat=0.9",
                  "-o data_file_raw=on", "-o preallocation=metadata -b there -F qcow2", "-o encryption=on",
                  "-o cluster_size=512 SIZE=1T", "-o compression_type=lzo"]:
        words = words.split()
        size = next((w[5:] for w in words if w.startswith("SIZE=")), "8M")
        argv = ["create", "-f", "qcow2", *(w for w in words if not w.startswith("SIZE=")), "refused", size]
        done = call([OURS, *argv], 1)
        assert call(["qemu-img", *argv], None).returncode == 1, argv
        assert done.stderr and not os.path.exists(path("refused")), f"{argv}: {done}"
        if os.path.exists(path("refused")):
            os.unlink(path("refused"))


def main():
    words = sys.argv[2:]
    try:
        tap.run({name: fn for name, fn in TESTS.items() if not words or any(word in name for word in words)})
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)


main()
