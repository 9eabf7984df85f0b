# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtual hard disks (vpc, vhdx) and LUKS between ruche-img and qemu-img, both ways; and differencing images, which the
peer does not know, against a reader and writer of our own that follows the specifications.

Arguments: the ruche-img under test.
"""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap

RUCHE = os.path.abspath(sys.argv[1])
SECTOR = 512
MIB = 1 << 20


def run(*args, status=0, cwd=None):
    done = subprocess.run(args, capture_output=True, text=True, cwd=cwd, timeout=600)
    assert done.returncode == status, f"{' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def ours(*args, **more):
    return run(RUCHE, *args, **more)


def peer(*args, **more):
    """The peer measures how fast it derives keys, and gives up by chance when that is quick."""
    for _ in range(50):
        try:
            return run("qemu-img", *args, **more)
        except AssertionError as e:
            if "Unable to get accurate CPU usage" not in str(e):
                raise
    raise tap.Skip("qemu-img cannot measure this machine")


def peer_io(form, image, *commands):
    return run("qemu-io", "-f", form, *[w for c in commands for w in ("-c", c)], image)


def raw_file(path, size, seed, pieces=12, longest=1 << 20):
    """Random pieces between holes."""
    chance = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(pieces):
            at = chance.randrange(size // SECTOR) * SECTOR
            f.seek(at)
            f.write(chance.randbytes(min(chance.randrange(1, longest // SECTOR) * SECTOR, size - at)))


def contents(path):
    with open(path, "rb") as f:
        return f.read()


def virtual_size(tool, form, path):
    text = tool("info", "--output=json", "-f", form, path)
    return int(text.split('"virtual-size":')[1].split(",")[0])


class Folder:
    """A folder to work in, gone afterwards."""

    def __enter__(self):
        self.keep = tempfile.TemporaryDirectory(prefix="ruche-vhd-")
        self.was = os.getcwd()
        os.chdir(self.keep.name)

    def __exit__(self, *unused):
        os.chdir(self.was)
        self.keep.cleanup()


# ---- both ways ----

FORMS = [
    ("vpc", "subformat=dynamic,force_size=on"),
    ("vpc", "subformat=fixed,force_size=on"),
    ("vpc", "subformat=dynamic"),
    ("vpc", "subformat=fixed"),
    ("vhdx", "subformat=dynamic"),
    ("vhdx", "subformat=fixed"),
    ("vhdx", "subformat=dynamic,block_size=1M"),
    ("vhdx", "subformat=dynamic,block_size=256M,log_size=4M"),
    ("vhdx", "subformat=dynamic,block_state_zero=off"),
    ("vhdx", "subformat=fixed,block_size=2M"),
]
WRITES = ["write -P 17 5M 3M", "write -P 23 5244416 1536", "write -z 6M 700k", "write -P 29 31457280 512", "flush"]


def exchange(form, options, seed):
    with Folder():
        size = 63 * MIB  # whole cylinders, so that no form rounds it
        raw_file("a.raw", size, seed)
        peer("convert", "-O", form, "-o", options, "-f", "raw", "a.raw", "theirs")
        ours("convert", "-O", form, "-o", options, "-f", "raw", "a.raw", "ours")
        for writer in ("theirs", "ours"):
            for tool in (ours, peer):
                tool("compare", "-f", form, "-F", "raw", writer, "a.raw")
            ours("check", "-f", form, writer)
        # Each goes on with what the other has made.
        peer_io("raw", "a.raw", *WRITES)
        peer_io(form, "ours", *WRITES)
        ours("compare", "-f", form, "-F", "raw", "ours", "a.raw")
        ours("check", "-f", form, "ours")
        ours("convert", "-n", "-f", "raw", "-O", form, "a.raw", "theirs")
        peer("compare", "-f", form, "-F", "raw", "theirs", "a.raw")
        ours("check", "-f", form, "theirs")


def sizes_agree():
    """Without force_size both round to the same cylinders; with it, to none."""
    sizes = [512, 4096, 1 * MIB, 63 * MIB, 100 * MIB + 512, 504 * MIB, 1 << 30, (8 << 30) - 512, 127 << 30,
             (127 << 30) + (1 << 29), 200 << 30, 1 << 40]
    with Folder():
        for size in sizes:
            for extra in ("", ",force_size=on"):
                options = "subformat=dynamic" + extra
                peer("create", "-f", "vpc", "-o", options, "theirs", str(size))
                ours("create", "-f", "vpc", "-o", options, "ours", str(size))
                want = virtual_size(peer, "vpc", "theirs")
                for tool in (ours, peer):
                    for image in ("theirs", "ours"):
                        got = virtual_size(tool, "vpc", image)
                        assert got == want, f"{size}{extra}: {image} is {got}, not {want}"
                os.remove("theirs")
                os.remove("ours")


def resized(form):
    """Grown past its table's room and shrunk; the peer reads the same."""
    with Folder():
        raw_file("a.raw", 20 * MIB, 5)
        options = "block_size=1M" + (",force_size=on" if form == "vpc" else "")
        ours("convert", "-O", form, "-o", options, "-f", "raw", "a.raw", "i")
        for size in (600 * MIB, 30 * MIB, 12 * MIB + SECTOR, 400 * MIB):
            shrink = ["--shrink"] if size < os.path.getsize("a.raw") else []
            ours("resize", "-f", form, *shrink, "i", str(size))
            os.truncate("a.raw", size)
            ours("check", "-f", form, "i")
            for tool in (ours, peer):
                tool("compare", "-f", form, "-F", "raw", "i", "a.raw")
                assert virtual_size(tool, form, "i") == size


def crashed_vhdx():
    """A writer dies with its log open: the other program replays it."""
    with Folder():
        raw_file("a.raw", 40 * MIB, 9)
        peer("convert", "-O", "vhdx", "-o", "block_size=1M", "-f", "raw", "a.raw", "i")
        writes = ["write -P 5 9M 4M", "write -P 6 33M 1M", "flush"]
        peer_io("raw", "a.raw", *writes)
        subprocess.run(["qemu-io", "-f", "vhdx", *[w for c in writes + ["abort"] for w in ("-c", c)], "i"],
                       capture_output=True, check=False)
        os.chmod("i", 0o444)
        ours("compare", "-f", "vhdx", "-F", "raw", "i", "a.raw")
        os.chmod("i", 0o644)
        ours("check", "-r", "all", "-f", "vhdx", "i")
        for tool in (ours, peer):
            tool("compare", "-f", "vhdx", "-F", "raw", "i", "a.raw")


# ---- differencing VHD, by the specification ----

def vhd_sum(data, at):
    return ~(sum(data) - sum(data[at:at + 4])) & 0xffffffff


def vhd_footer(size, kind, ident, offset=0xffffffffffffffff):
    cyl = 65535
    f = bytearray(struct.pack(">8sIIQI4sI4sQQHBBII16sB", b"conectix", 2, 0x10000, offset, 1, b"win ", 0x60001, b"Wi2k",
                              size, size, cyl, 16, 255, kind, 0, ident, 0).ljust(512, b"\0"))
    f[64:68] = struct.pack(">I", vhd_sum(f, 64))
    return bytes(f)


def vhd_child(path, parent_name, parent_ident, size, sectors, code=b"W2ru", windows=".\\"):
    """A differencing image with these {sector: bytes}; bitmaps have only their bits."""
    block = 2 * MIB
    per = block // SECTOR
    entries = -(-size // block)
    name = (windows + parent_name).encode("utf-16-le")
    table_at = 512 + 1024 + 512
    at = table_at + -(-entries * 4 // 512) * 512
    h = bytearray(struct.pack(">8sQQIIII16sII512s", b"cxsparse", 0xffffffffffffffff, table_at, 0x10000, entries, block, 0,
                              parent_ident, 0, 0, os.path.basename(parent_name).encode("utf-16-be")).ljust(1024, b"\0"))
    h[576:600] = struct.pack(">4sIIIQ", code, 512, len(name), 0, 1536)
    h[36:40] = struct.pack(">I", vhd_sum(h, 36))
    footer = vhd_footer(size, 4, uuid.uuid4().bytes, 512)
    table = [0xffffffff] * (-(-entries * 4 // 512) * 128)
    with open(path, "wb") as f:
        f.write(footer + h + name.ljust(512, b"\0"))
        for b in sorted({s // per for s in sectors}):
            table[b] = at // 512
            bits = bytearray(per // 8)
            for s in sectors:
                if s // per == b:
                    bits[s % per // 8] |= 0x80 >> s % 8
                    f.seek(at + 512 + s % per * SECTOR)
                    f.write(sectors[s])
            f.seek(at)
            f.write(bits)
            at += 512 + block
        f.seek(table_at)
        f.write(struct.pack(f">{len(table)}I", *table))
        f.seek(at)
        f.write(footer)


def vhd_read_child(path, base):
    """What a differencing image shows over `base`."""
    data, out = contents(path), bytearray(base)
    assert data[:8] == b"conectix" and data[-512:] == data[:512], "front and end differ"
    header = struct.unpack(">Q", data[16:24])[0]
    assert struct.unpack(">I", data[60:64])[0] == 4
    table_at, _, entries, block = struct.unpack(">QIII", data[header + 16:header + 36])
    bitmap_bytes = -(-block // SECTOR // 8 // 512) * 512
    for b, at in enumerate(struct.unpack(f">{entries}I", data[table_at:table_at + entries * 4])):
        if at == 0xffffffff:
            continue
        at *= 512
        for s in range(block // SECTOR):
            if data[at + s // 8] & 0x80 >> s % 8:
                to, of = b * block + s * SECTOR, at + bitmap_bytes + s * SECTOR
                out[to:to + SECTOR] = data[of:of + SECTOR]
    return bytes(out[:len(base)])


def overlay(base, seed, count=60):
    chance = random.Random(seed)
    sectors = {chance.randrange(len(base) // SECTOR): chance.randbytes(SECTOR) for _ in range(count)}
    out = bytearray(base)
    for s, data in sectors.items():
        out[s * SECTOR:(s + 1) * SECTOR] = data
    return sectors, bytes(out)


def vhd_differencing():
    with Folder():
        size = 10 * MIB
        raw_file("a.raw", size, 3)
        base, ident = contents("a.raw"), uuid.uuid4().bytes
        os.mkdir("sub")
        with open("sub/base.vhd", "wb") as f:
            f.write(base + vhd_footer(size, 2, ident))
        sectors, want = overlay(base, 4)
        with open("want.raw", "wb") as f:
            f.write(want)
        for code, windows in ((b"W2ru", ".\\sub\\"), (b"W2ku", "")):
            name = "base.vhd" if code == b"W2ru" else "C:\\images\\sub\\base.vhd"
            vhd_child("child.vhd", name, ident, size, sectors, code, windows)
            if code == b"W2ku":
                os.symlink("sub/base.vhd", "base.vhd")
            ours("compare", "-f", "vpc", "-F", "raw", "child.vhd", "want.raw")
            ours("check", "-f", "vpc", "child.vhd")
        # Ours, read by the reader above.
        ours("convert", "-f", "raw", "-O", "vpc", "-B", "sub/base.vhd", "-F", "vpc", "want.raw", "mine.vhd")
        assert vhd_read_child("mine.vhd", base) == want
        assert os.path.getsize("mine.vhd") < 12 * MIB
        # Another parent of the same name is refused.
        with open("sub/base.vhd", "wb") as f:
            f.write(base + vhd_footer(size, 2, uuid.uuid4().bytes))
        assert "it is another image" in ours("compare", "-f", "vpc", "-F", "raw", "child.vhd", "want.raw", status=2)


def chain(form):
    """Three images deep: written, committed, rebased, made independent; the peer reads what is left."""
    options = ["-o", "block_size=1M" + (",force_size=on" if form == "vpc" else "")]
    with Folder():
        raw_file("base.raw", 12 * MIB, 7)
        base = contents("base.raw")
        wants = [base]
        ours("convert", "-f", "raw", "-O", form, *options, "base.raw", "0")
        for i in (1, 2):
            wants.append(overlay(wants[-1], 20 + i)[1])
            with open("w.raw", "wb") as f:
                f.write(wants[-1])
            ours("convert", "-f", "raw", "-O", form, *options, "-B", str(i - 1), "-F", form, "w.raw", str(i))
        for i, want in enumerate(wants):
            with open(f"{i}.raw", "wb") as f:
                f.write(want)
            ours("compare", "-f", form, "-F", "raw", str(i), f"{i}.raw")
            ours("check", "-f", form, str(i))
        assert '"backing-filename": "1"' in ours("info", "--output=json", "-f", form, "2")
        # Onto the lowest, then onto none.
        ours("rebase", "-f", form, "-b", "0", "-F", form, "2")
        ours("compare", "-f", form, "-F", "raw", "2", "2.raw")
        ours("check", "-f", form, "2")
        ours("commit", "-f", form, "1")
        ours("compare", "-f", form, "-F", "raw", "0", "1.raw")
        peer("compare", "-f", form, "-F", "raw", "0", "1.raw")


def independent(form):
    """A differencing image without its parent is one that the peer knows."""
    options = ["-o", "block_size=1M" + (",force_size=on" if form == "vpc" else "")]
    with Folder():
        raw_file("base.raw", 12 * MIB, 7)
        want = overlay(contents("base.raw"), 8)[1]
        with open("w.raw", "wb") as f:
            f.write(want)
        ours("convert", "-f", "raw", "-O", form, *options, "base.raw", "0")
        ours("convert", "-f", "raw", "-O", form, *options, "-B", "0", "-F", form, "w.raw", "1")
        ours("rebase", "-f", form, "-b", "", "1")
        os.remove("0")
        ours("check", "-f", form, "1")
        for tool in (ours, peer):
            tool("compare", "-f", form, "-F", "raw", "1", "w.raw")


# ---- LUKS ----

LUKS = [  # of aes-192, the peer has no XTS, and its CBC stops it
    "cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256",
    "cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha1",
    "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512",
    "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=plain64,hash-alg=sha224",
]


def secret(name, text):
    return ["--object", f"secret,id={name},data={text}"]


def luks_image(path, key="one"):
    return ["--image-opts", f"driver=luks,key-secret={key},file.filename={path}"]


def luks(options):
    one, two = secret("one", "first-secret"), secret("two", "zweites")
    made = ["-O", "luks", "-o", "key-secret=one,iter-time=100," + options]
    with Folder():
        raw_file("a.raw", 9 * MIB, 13)
        for maker, reader in ((ours, peer), (peer, ours)):
            maker("convert", *one, *made, "-f", "raw", "a.raw", "i")
            for tool in (ours, peer):
                tool("compare", *one, *luks_image("i"), *luks_plain("a.raw"))
            add = ["-o", "state=active,new-secret=two,iter-time=100"]
            maker("amend", *one, *two, *luks_image("i"), *add)
            reader("compare", *two, *luks_image("i", "two"), *luks_plain("a.raw"))
            reader("amend", *one, *two, *luks_image("i"), "-o", "state=inactive,old-secret=one")
            for tool in (ours, peer):
                tool("compare", *two, *luks_image("i", "two"), *luks_plain("a.raw"))
                assert "nvalid password" in tool("compare", *one, *luks_image("i"), *luks_plain("a.raw"), status=2)
            assert steady(ours("info", "i")) == steady(peer("info", "i"))
            os.remove("i")


def luks_grown():
    """What is new of a grown image is what deciphering zeroes gives: noise, and the same noise with the peer."""
    one = secret("one", "first-secret")
    with Folder():
        raw_file("a.raw", 3 * MIB, 14)
        ours("convert", *one, "-O", "luks", "-o", "key-secret=one,iter-time=100", "-f", "raw", "a.raw", "ours")  # the peer takes seconds
        shutil.copyfile("ours", "theirs")
        for tool, image in ((ours, "ours"), (peer, "theirs")):
            tool("resize", *one, *luks_image(image), "5M")
            tool("convert", *one, *luks_image(image), "-O", "raw", image + ".raw")
        assert contents("ours") == contents("theirs")
        grown = contents("ours.raw")
        assert grown == contents("theirs.raw")
        assert len(grown) == 5 * MIB and grown[:3 * MIB] == contents("a.raw") and grown[3 * MIB:].count(0) < MIB // 16


def luks_plain(path):
    return [f"driver=raw,file.filename={path}"]


def steady(text):
    return [line for line in text.splitlines() if "disk size" not in line]


def main():
    tests = {}
    for seed, (form, options) in enumerate(FORMS):
        tests[f"{form} {options}"] = lambda f=form, o=options, s=seed: exchange(f, o, s)
    tests["vpc sizes"] = sizes_agree
    for form in ("vpc", "vhdx"):
        tests[f"{form} resized"] = lambda f=form: resized(f)
        tests[f"{form} chain"] = lambda f=form: chain(f)
        tests[f"{form} made independent"] = lambda f=form: independent(f)
    tests["vhdx left open by the peer"] = crashed_vhdx
    tests["vpc differencing, by the specification"] = vhd_differencing
    tests["luks grown"] = luks_grown
    for options in LUKS:
        tests[f"luks {options}"] = lambda o=options: luks(o)
    words = sys.argv[2:]
    tap.run({n: t for n, t in tests.items() if not words or any(w in n for w in words)})


if __name__ == "__main__":
    main()
