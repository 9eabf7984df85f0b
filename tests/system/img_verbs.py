# SPDX-License-Identifier: GPL-2.0-or-later
"""ruche-img beside qemu-img: the same command lines in two folders; output and exit codes must be the same.

Arguments: the ruche-img under test; optionally words: only cases whose names contain one. A case is a list of lines. A line is a
command of the tool; "io IMAGE COMMAND; ..." is qemu-io in both folders; "py EXPRESSION" runs Python in both; of a line that
begins with "!" only the exit code counts; where one begins with "~", ours may say more than the peer. Afterwards every image that both folders have is compared
across them with qemu-img.
"""
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap

QEMU_IMG = "qemu-img"

# What differs between two runs of the same program, or is a matter of layout.
VOLATILE = [
    (r"disk size: .*", "disk size: ..."),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DATE"),
    (r"Run completed in .* seconds\.", "Run completed."),
    (r"Image end offset: \d+", "Image end offset: ..."),
    (r"\d+\.\d\d% fragmented", "...% fragmented"),
    (r"cid: \d+", "cid: ..."),
    (r"uuid: [-0-9a-f]+", "uuid: ..."),
    (r"iters: \d+", "iters: ..."),
    (r"    \(\d+\.\d\d/100%\)\r", ""),
]
VOLATILE_JSON = {"actual-size", "date-sec", "date-nsec", "image-end-offset", "fragmented-clusters", "cid", "uuid", "iters",
                 "master-key-iters", "offset"}

CASES = {}


def case(name, text):
    CASES[name] = [line.strip() for line in text.strip().splitlines() if line.strip()]


def steady(value):
    """JSON without what differs between two runs."""
    if isinstance(value, dict):
        return {k: steady(v) for k, v in value.items() if k not in VOLATILE_JSON}
    if isinstance(value, list):
        return [steady(v) for v in value]
    return value


MAP_LINE = re.compile(r'\[?\{ "start": \d+, "length": \d+, "depth": \d+, "present": (true|false), "zero": (true|false), '
                      r'"data": (true|false)(, "offset": \d+)?\}[],]')


def normal_map(text):
    """The map without places in the file: neighbours that differ in these alone are one."""
    assert all(MAP_LINE.fullmatch(line) for line in text.splitlines()), f"not a map: {text}"
    merged = []
    for e in json.loads(text):
        kind = (e["depth"], e["present"], e["zero"], e["data"], "offset" in e)
        if merged and merged[-1][2] == kind:
            merged[-1][1] += e["length"]
        else:
            merged.append([e["start"], e["length"], kind])
    return merged


def normal_human_map(text):
    merged = []
    for line in text.splitlines()[1:]:
        start, length, _, name = line.split(None, 3)
        if merged and merged[-1][2] == name and merged[-1][0] + merged[-1][1] == int(start, 0):
            merged[-1][1] += int(length, 0)
        else:
            merged.append([int(start, 0), int(length, 0), name])
    return text.splitlines()[:1] + merged


def normal(text, verb, as_json):
    if verb == "map" and text:
        return normal_map(text) if as_json else normal_human_map(text)
    if as_json and text.strip():
        return steady(json.loads(text))
    for pattern, replacement in VOLATILE:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def contains(ours, peers):
    """Is everything that the peer says in what we say, in its order?"""
    if isinstance(peers, dict):
        return isinstance(ours, dict) and all(k in ours and contains(ours[k], v) for k, v in peers.items())
    if isinstance(peers, str) and "\n" in peers:
        lines = iter(ours.splitlines())
        return all(line in lines for line in peers.splitlines())
    return ours == peers


def run(argv, folder):
    done = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=600, check=False)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def run_peer(argv, folder):
    """qemu-img measures how fast it derives keys, and gives up by chance where time is counted coarsely."""
    for _ in range(50):
        done = run(argv, folder)
        if "Unable to get accurate CPU usage" not in done[2]:
            return done
    raise tap.Skip("qemu-img cannot measure this machine")


class Pair:
    """Two folders, the peer's and ours."""

    def __init__(self, ours):
        self.programs = {"peer": QEMU_IMG, "ours": ours}
        self.root = tempfile.mkdtemp(prefix="img-verbs-")
        for side in self.programs:
            os.mkdir(self.folder(side))

    def folder(self, side):
        return os.path.join(self.root, side)

    def close(self):
        shutil.rmtree(self.root)

    def both(self, line):
        """What is done in both folders alike."""
        word, _, rest = line.partition(" ")
        for side in self.programs:
            if word == "io":
                image, _, commands = rest.partition(" ")
                argv = ["qemu-io"] + [w for c in commands.split(";") for w in ("-c", c.strip())] + shlex.split(image)
                code, out, err = run(argv, self.folder(side))
                assert code == 0 and "failed" not in err, f"{side}: {line}: {out}{err}"
            else:
                before = os.getcwd()
                os.chdir(self.folder(side))
                try:
                    exec(rest, {"os": os})  # the test's own words
                finally:
                    os.chdir(before)

    def step(self, line):
        if line.split(" ", 1)[0] in ("io", "py"):
            self.both(line)
            return
        code_only = line.startswith("!")
        may_say_more = line.startswith("~")
        words = shlex.split(line.lstrip("!~ "))
        got = {side: (run_peer if side == "peer" else run)([program] + words, self.folder(side)) for side, program in self.programs.items()}
        (peer_code, peer_out, peer_err), (code, out, err) = got["peer"], got["ours"]
        assert code == peer_code, f"{line}: exit code {code}, peer's is {peer_code}\n{out}{err}\npeer: {peer_err}"
        if code_only:
            return
        as_json = any("json" in w for w in words) and code == 0
        ours, peers = (normal(text, words[0], as_json) for text in (out, peer_out))
        same = contains(ours, peers) if may_say_more else ours == peers
        assert same, f"{line}\nours:  {ours!r}\npeer's: {peers!r}\n{err}"
        assert err or not code or words[0] in ("check", "compare"), f"{line}: fails without a sentence"

    def cross_check(self):
        """Images of the same name hold the same, and ours are clean."""
        for name in sorted(os.listdir(self.folder("peer"))):
            ours, peers = (os.path.join(self.folder(s), name) for s in ("ours", "peer"))
            if not os.path.isfile(ours) or name.endswith(".skip"):
                continue
            code, out, err = run([QEMU_IMG, "check", name], self.folder("ours"))
            assert code in (0, 63), f"{name}: qemu-img check says {code}: {out}{err}"
            code, out, err = run([QEMU_IMG, "compare", ours, peers], self.folder("ours"))
            assert code == 0, f"{name}: {out}{err}"


def play(name, lines, ours):
    fmt = name.split()[0].rstrip(":")
    supported = subprocess.run([ours, "--help"], capture_output=True, text=True, check=True).stdout.split()
    if fmt in ("vmdk", "vdi", "vpc", "vhdx") and fmt not in supported:
        raise tap.Skip(f"ruche-img has no format {fmt}")
    pair = Pair(ours)
    try:
        for line in lines:
            pair.step(line)
        if lines[-1] != "py pass":
            pair.cross_check()
    finally:
        pair.close()


# ---- cases: raw ----

case("raw: create, info, resize", """
    create a.raw 10M
    create -f raw b.raw 1.5k
    create -q c.raw 1000
    create -f raw -o size=1M d.raw
    create -f raw -o preallocation=full e.raw 1M
    create -f raw -o preallocation=falloc f.raw 1M
    info a.raw
    info --output=json a.raw
    info --output json -f raw b.raw
    info -f raw c.raw
    resize -f raw a.raw +1M
    resize -f raw a.raw 20M
    resize -f raw a.raw -1M
    resize --shrink -f raw a.raw -1M
    resize -q -f raw --shrink a.raw 5M
    resize -f raw a.raw +0
    resize -f raw --preallocation=full a.raw +1M
    info -f raw a.raw
    check -f raw a.raw
    check --output=json -f raw a.raw
""")

case("raw: map", """
    create a.raw 10M
    io a.raw write 0 64k
    map -f raw a.raw
    map -f raw --output=json a.raw
    map -f raw --output=json --start-offset=1M --max-length=1M a.raw
    map -f raw --output=json -s 32k -l 64k a.raw
    map -f raw -s 100M a.raw
    map -f raw -s 100M --output=json a.raw
""")

case("raw: convert", """
    create a.raw 10M
    io a.raw write -P 5 0 64k; write -P 3 1M 1M; write -P 0 3M 1M; write -P 4 5000000 1000
    convert a.raw b.raw
    convert -f raw -O raw a.raw c.raw
    convert -S 0 a.raw d.raw
    convert -S 64k a.raw e.raw
    convert -p a.raw f.raw
    convert -W -m 16 a.raw g.raw
    convert a.raw b.raw h.raw
    info -f raw h.raw
    map -f raw --output=json g.raw
    convert -n a.raw h.raw
    convert -t none -T none a.raw i.raw
    convert -t writethrough a.raw j.raw
    convert -r 100M a.raw k.raw
    convert -C a.raw l.raw
    compare a.raw l.raw
""")

case("raw: dd", """
    create a.raw 10M
    io a.raw write -P 3 1M 1M; write -P 4 5000000 1000
    dd if=a.raw of=b.raw
    dd bs=1M if=a.raw of=c.raw skip=1
    dd -f raw -O raw bs=1k count=2000 skip=1000 if=a.raw of=d.raw
    dd bs=1M count=100 if=a.raw of=e.raw
    dd bs=1k skip=30 count=10 if=a.raw of=f.raw.skip
    info -f raw c.raw
    info -f raw d.raw
    dd if=a.raw
    dd if=a.raw of=g.raw foo=1
    dd if=a.raw of=g.raw bs=0
    dd a.raw
""")

case("raw: compare", """
    create a.raw 10M
    create b.raw 10M
    create c.raw 12M
    compare a.raw b.raw
    io a.raw write 0 64k
    io b.raw write 0 64k
    compare -s a.raw b.raw
    compare -q a.raw b.raw
    compare a.raw c.raw
    compare -s a.raw c.raw
    compare -q a.raw c.raw
    io b.raw write -P 1 100000 5k
    compare a.raw b.raw
    compare -s a.raw b.raw
    compare -q a.raw b.raw
    compare b.raw a.raw
    compare -f raw -F raw b.raw c.raw
    io c.raw write -P 1 11M 1k
    compare a.raw c.raw
    compare c.raw a.raw
    compare a.raw none.raw
    compare a.raw
    compare -p a.raw a.raw
""")

case("raw: bench", """
    create a.raw 10M
    bench -f raw -c 100 a.raw
    bench -f raw -c 100 -d 4 -s 8k -S 16k -o 1M a.raw
    bench -f raw -w -c 100 --pattern 7 a.raw
    bench -f raw -w -c 100 -d 10 --flush-interval=10 a.raw
    bench -f raw -w -c 100 -d 10 --flush-interval=10 --no-drain a.raw
    bench -f raw -c 100 -t none a.raw
    ! bench -f raw -c 100 -d 10 --flush-interval=5 -w a.raw
    ! bench -f raw -c 100 --flush-interval=100 a.raw
""")

case("words that are refused", """
    ! create
    ! create a.raw
    ! create -f nonsense a.raw 1M
    ! create -f raw -o nonsense=1 a.raw 1M
    ! create -f raw a.raw 1Q
    ! create -f raw a.raw 1M 2M
    ! create -f raw -b b.raw a.raw 1M
    ! create --nonsense a.raw 1M
    ! create -f
    ! nonsense
    ! info
    ! info none
    ! info --output=xml none
    ! info a b
    ! check
    ! check none
    ! check -r some none
    ! compare a b
    ! convert
    ! convert a
    ! convert none b
    ! resize
    ! resize none 1M
    ! resize none
    ! rebase none
    ! commit none
    ! snapshot none
    ! map none
    ! measure
    ! measure --size 1M none
    ! amend none
    ! bitmap none
    ! bitmap none b
    ! bench none
    ! dd
    py pass
""")

case("raw: names", """
    create 'a b,c.raw' 1M
    create file:c.raw 1M
    info 'a b,c.raw'
    info file:c.raw
    info json:{"driver":"raw","file":{"driver":"file","filename":"c.raw"}}
    info --image-opts driver=raw,file.driver=file,file.filename=c.raw
    info --image-opts driver=raw,file.filename=c.raw
    ! info --image-opts -f raw c.raw
    info --backing-chain c.raw
    info --backing-chain --output=json c.raw
    py pass
""")

case("measure", """
    measure --size 1G
    measure -O raw --size 1G
    measure -O raw --size 1G --output=json
    create a.raw 10M
    measure -O raw a.raw
    ! measure -O raw --size 1G a.raw
    ! measure -O raw
""")

# ---- cases: qcow2 ----

for options in ("", "compat=0.10", "cluster_size=4k", "cluster_size=2M", "refcount_bits=1", "refcount_bits=64",
                "lazy_refcounts=on", "extended_l2=on", "compression_type=zstd", "preallocation=metadata",
                "preallocation=falloc", "preallocation=full", "cluster_size=512"):
    o = f"-o {options}" if options else ""
    case(f"qcow2 {options or 'defaults'}: create, write, info, check, map", f"""
        create -f qcow2 {o} a.qcow2 20M
        info a.qcow2
        info --output=json a.qcow2
        check a.qcow2
        map --output=json a.qcow2
        io a.qcow2 write -P 1 1M 2M; write -z 4M 1M; write -P 2 10M 3k; discard 2M 64k
        info a.qcow2
        check a.qcow2
        check --output=json a.qcow2
        check -q a.qcow2
        map a.qcow2
        map --output=json a.qcow2
        convert -O raw a.qcow2 b.raw
        convert -O qcow2 {o} a.qcow2 c.qcow2
        info c.qcow2
        check c.qcow2
        compare a.qcow2 b.raw
        compare -s a.qcow2 c.qcow2
        resize a.qcow2 +1M
        info --output=json a.qcow2
        measure -O qcow2 {o} --size 1G
        measure -O qcow2 {o} a.qcow2
        measure -O raw a.qcow2 --output=json
        bench -c 50 a.qcow2
        bench -w -c 50 a.qcow2
    """)

case("qcow2: refused options", """
    ! create -f qcow2 -o cluster_size=1000 a.qcow2 1M
    ! create -f qcow2 -o cluster_size=4M a.qcow2 1M
    ! create -f qcow2 -o refcount_bits=3 a.qcow2 1M
    ! create -f qcow2 -o compat=0.10,lazy_refcounts=on a.qcow2 1M
    ! create -f qcow2 -o compat=0.10,refcount_bits=8 a.qcow2 1M
    ! create -f qcow2 -o compat=2 a.qcow2 1M
    ! create -f qcow2 -o preallocation=some a.qcow2 1M
    ! create -f qcow2 -o compression_type=lz4 a.qcow2 1M
    py pass
""")

case("qcow2: convert", """
    create -q a.raw 10M
    io a.raw write -P 3 1M 1M
    convert -O qcow2 -o size=20M a.raw b.qcow2
    info b.qcow2
    convert -O qcow2 -o data_file=c.data,lazy_refcounts=on a.raw c.qcow2
    info c.qcow2
    create -q -f qcow2 d.qcow2 12M
    io d.qcow2 write -P 9 0 12M
    convert -n -O qcow2 a.raw d.qcow2
    ! convert -n -O qcow2 d.qcow2 b.qcow2
    create -q -f qcow2 e.qcow2 10M
    convert -n --target-is-zero -O qcow2 a.raw e.qcow2
    map --output=json e.qcow2
    convert -n --target-image-opts a.raw driver=qcow2,file.filename=e.qcow2
    ! convert -n --target-image-opts -O qcow2 a.raw driver=qcow2,file.filename=e.qcow2
    convert -O qcow2 a.raw a.raw f.qcow2
    info f.qcow2
    ! convert -O qcow2 -B a.raw -F raw a.raw a.raw g.qcow2
    ! convert -C -c -O qcow2 a.raw g.qcow2
    ! convert -S 100 a.raw g.raw
    ! convert -m 100 a.raw g.raw
    ! convert -t nonsense a.raw g.raw
    ! convert --target-is-zero a.raw g.raw
    ! convert a.raw a.raw
""")

case("qcow2: compressed", """
    create -q a.raw 10M
    io a.raw write -P 3 1M 1M; write -P 0 3M 1M; write -P 4 5000000 100000
    convert -c -O qcow2 a.raw b.qcow2
    convert -c -O qcow2 -o compression_type=zstd a.raw c.qcow2
    convert -c -O qcow2 -o cluster_size=4k a.raw d.qcow2
    convert -c -O qcow2 -m 1 a.raw e.qcow2
    check b.qcow2
    check --output=json c.qcow2
    check d.qcow2
    map b.qcow2
    map --output=json b.qcow2
    map --output=json c.qcow2
    compare a.raw b.qcow2
    compare a.raw c.qcow2
    convert -O raw b.qcow2 f.raw
    ! convert -c -O raw a.raw g.raw
""")

case("qcow2: backing files", """
    create -q -f qcow2 base.qcow2 10M
    io base.qcow2 write -P 1 0 2M; write -P 2 8M 1M
    create -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
    create -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 20M
    io mid.qcow2 write -P 3 1M 2M
    io top.qcow2 write -P 4 2M 2M; write -z 0 64k; write -P 5 15M 64k
    info top.qcow2
    info --backing-chain top.qcow2
    info --backing-chain --output=json top.qcow2
    map top.qcow2
    map --output=json top.qcow2
    convert -O raw top.qcow2 flat.raw
    convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 thin.qcow2
    info thin.qcow2
    map --output=json thin.qcow2
    compare top.qcow2 flat.raw
    compare top.qcow2 mid.qcow2
    compare thin.qcow2 flat.raw
    measure -O qcow2 top.qcow2
    ! create -f qcow2 -b base.qcow2 x.skip
    ! create -f qcow2 -b none -F qcow2 x.skip
    create -f qcow2 -u -b none.qcow2 -F qcow2 x.skip 1M
    create -f qcow2 -u -b 'a,,b' -F raw y.skip 1M
    info x.skip
""")

case("qcow2: names of backing files", """
    py os.mkdir('sub')
    create -q -f qcow2 base.qcow2 10M
    create -f qcow2 -F qcow2 -b ../base.qcow2 sub/x.qcow2
    info sub/x.qcow2
    info --output=json sub/x.qcow2
    info --backing-chain sub/x.qcow2
    convert -O qcow2 -F qcow2 -B ../base.qcow2 sub/x.qcow2 sub/y.qcow2
    info sub/y.qcow2
    create -q -f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 z.qcow2
    info z.qcow2
""")

case("qcow2: commit", """
    create -q -f qcow2 base.qcow2 10M
    io base.qcow2 write -P 1 0 2M
    create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2
    create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 20M
    io mid.qcow2 write -P 3 1M 2M
    io top.qcow2 write -P 4 2M 2M; write -z 0 64k; write -P 5 15M 64k
    commit -d top.qcow2
    map --output=json top.qcow2
    commit top.qcow2
    map --output=json top.qcow2
    info mid.qcow2
    io top.qcow2 write -P 7 5M 64k
    commit -b base.qcow2 top.qcow2
    map --output=json top.qcow2
    map --output=json base.qcow2
    commit -q mid.qcow2
    commit -p mid.qcow2
    commit -r 100M mid.qcow2
    ! commit base.qcow2
    ! commit -b none.qcow2 top.qcow2
    check base.qcow2
""")

case("qcow2: rebase", """
    create -q -f qcow2 one.qcow2 10M
    create -q -f qcow2 two.qcow2 10M
    io one.qcow2 write -P 1 0 2M; write -P 9 9M 64k
    io two.qcow2 write -P 1 0 1M; write -P 2 4M 1M
    create -q -f qcow2 -b one.qcow2 -F qcow2 top.qcow2
    io top.qcow2 write -P 3 1M 128k
    convert -O raw top.qcow2 before.raw
    rebase -F qcow2 -b two.qcow2 top.qcow2
    info top.qcow2
    compare before.raw top.qcow2
    rebase -b '' top.qcow2
    info top.qcow2
    compare before.raw top.qcow2
    rebase -F qcow2 -b one.qcow2 top.qcow2
    compare before.raw top.qcow2
    rebase -p -F qcow2 -b two.qcow2 top.qcow2
    rebase -u -F qcow2 -b elsewhere.qcow2 top.qcow2
    info top.qcow2
    rebase -u -b '' top.qcow2
    info top.qcow2
    ! check top.qcow2
    ! rebase -b one.qcow2 top.qcow2
    ! rebase -F qcow2 -b none.qcow2 top.qcow2
    ! rebase top.qcow2
""")

case("qcow2: snapshots", """
    create -q -f qcow2 a.qcow2 10M
    io a.qcow2 write -P 1 0 2M
    snapshot a.qcow2
    snapshot -l a.qcow2
    snapshot -c one a.qcow2
    io a.qcow2 write -P 2 1M 2M
    snapshot -c two a.qcow2
    snapshot -c averyveryveryverylongname a.qcow2
    io a.qcow2 write -P 3 2M 2M
    snapshot -l a.qcow2
    info a.qcow2
    info --output=json a.qcow2
    check a.qcow2
    convert -l one -O raw a.qcow2 one.raw
    convert -l 2 -O raw a.qcow2 two.raw
    convert -l snapshot.name=two -O raw a.qcow2 three.raw
    ! convert -l none -O raw a.qcow2 x.skip
    measure -O qcow2 -l one a.qcow2
    snapshot -a one a.qcow2
    compare a.qcow2 one.raw
    snapshot -d two a.qcow2
    snapshot -l a.qcow2
    snapshot -d one a.qcow2
    ! snapshot -d none a.qcow2
    ! snapshot -a none a.qcow2
    ! snapshot -c x -d y a.qcow2
    snapshot -l -U a.qcow2
    snapshot -q -l a.qcow2
    check a.qcow2
    create -q b.raw 1M
    snapshot -l b.raw
    ! snapshot -c x b.raw
    resize a.qcow2 20M
    resize --shrink a.qcow2 5M
""")

case("qcow2: bitmaps", """
    create -q -f qcow2 a.qcow2 10M
    bitmap --add a.qcow2 one
    io a.qcow2 write 1M 64k
    bitmap --add -g 4096 --disable a.qcow2 two
    info a.qcow2
    info --output=json a.qcow2
    bitmap --merge one a.qcow2 two
    bitmap --clear a.qcow2 one
    bitmap --disable a.qcow2 one
    bitmap --enable a.qcow2 two
    bitmap --add --merge two -g 32k a.qcow2 three
    info a.qcow2
    check a.qcow2
    measure -O qcow2 a.qcow2
    convert --bitmaps -O qcow2 a.qcow2 b.qcow2
    info b.qcow2
    check b.qcow2
    create -q -f qcow2 c.qcow2 10M
    bitmap --add --merge three -b a.qcow2 -F qcow2 c.qcow2 four
    info c.qcow2
    bitmap --remove a.qcow2 one
    bitmap --remove a.qcow2 two
    bitmap --remove a.qcow2 three
    info a.qcow2
    ! bitmap --remove a.qcow2 one
    ! bitmap --add -g 5 a.qcow2 x
    ! bitmap --clear -g 4096 a.qcow2 x
    ! bitmap --add a.qcow2
    ! bitmap a.qcow2 x
    ! bitmap --merge none a.qcow2 x
    ! convert --bitmaps -O raw a.qcow2 x.skip
""")

case("qcow2: amend", """
    create -q -f qcow2 a.qcow2 10M
    io a.qcow2 write -P 1 1M 1M; write -z 5M 1M
    amend -o lazy_refcounts=on a.qcow2
    info a.qcow2
    amend -f qcow2 -o lazy_refcounts=off a.qcow2
    amend -o compat=0.10 a.qcow2
    info a.qcow2
    amend -p -o compat=1.1 a.qcow2
    amend -o refcount_bits=8 a.qcow2
    info a.qcow2
    amend -o size=20M a.qcow2
    info a.qcow2
    check a.qcow2
    ! amend -o nonsense=1 a.qcow2
    ! amend a.qcow2
    ! amend -o cluster_size=4k a.qcow2
    create -q b.raw 1M
    ! amend -f raw -o size=2M b.raw
""")

case("qcow2: repair of leaks", """
    create -q -f qcow2 a.qcow2 10M
    io a.qcow2 write -P 1 0 64k
    py f = open('a.qcow2', 'r+b'); f.seek(131074); f.write(b'\\0\\5')
    check a.qcow2
    check --output=json a.qcow2
    check -r leaks a.qcow2
    check a.qcow2
""")

case("qcow2: repair of errors", """
    create -q -f qcow2 a.qcow2 10M
    io a.qcow2 write -P 1 0 128k
    py f = open('a.qcow2', 'r+b'); f.seek(131082); f.write(b'\\0\\0')
    check a.qcow2
    check --output=json a.qcow2
    ~ check -r all --output=json a.qcow2
    check a.qcow2
""")

case("qcow2: external data file", """
    create -f qcow2 -o data_file=data.raw a.qcow2 10M
    io a.qcow2 write -P 1 1M 1M
    info a.qcow2
    info --output=json a.qcow2
    map --output=json a.qcow2
    check a.qcow2
    create -f qcow2 -o data_file=data2.raw,data_file_raw=on b.qcow2 10M
    io b.qcow2 write -P 1 1M 1M
    info b.qcow2
    check b.qcow2
    convert -O raw b.qcow2 c.raw
    compare b.qcow2 data2.raw
""")

case("qcow2: dd", """
    create -q -f qcow2 a.qcow2 10M
    io a.qcow2 write -P 3 1M 1M
    dd -O qcow2 if=a.qcow2 of=b.qcow2 bs=64k
    dd -f qcow2 -O raw if=a.qcow2 of=c.raw bs=1M count=2
    dd -O qcow2 if=a.qcow2 of=d.qcow2 bs=1M skip=1
    info d.qcow2
    compare c.raw b.qcow2
""")

SECRET = "--object secret,id=s,data=abc"
case("encryption", f"""
    create {SECRET} -f luks -o key-secret=s,iter-time=100 a.luks.skip 5M
    info a.luks.skip
    info --output=json a.luks.skip
    create {SECRET} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=100 b.skip 5M
    info b.skip
    info --output=json b.skip
    check --image-opts {SECRET} driver=qcow2,encrypt.key-secret=s,file.filename=b.skip
    create -q c.raw 5M
    io c.raw write -P 9 1M 1M
    convert {SECRET} -n --target-image-opts c.raw driver=qcow2,encrypt.key-secret=s,file.filename=b.skip
    convert {SECRET} --image-opts -O raw driver=qcow2,encrypt.key-secret=s,file.filename=b.skip d.raw
    compare c.raw d.raw
    ! convert -O raw b.skip x.skip
    ! create --object nonsense,id=s -f raw e.skip 1M
""")

# ---- cases: other formats ----

for fmt, options in (("vmdk", ""), ("vmdk", "subformat=monolithicFlat"), ("vmdk", "subformat=twoGbMaxExtentSparse"),
                     ("vmdk", "subformat=twoGbMaxExtentFlat"), ("vmdk", "subformat=streamOptimized"),
                     ("vmdk", "adapter_type=lsilogic,hwversion=7"), ("vdi", ""), ("vdi", "static=on"), ("vpc", ""),
                     ("vpc", "subformat=fixed"), ("vpc", "force_size=on"), ("vhdx", ""), ("vhdx", "subformat=fixed"),
                     ("vhdx", "block_size=1M,log_size=2M")):
    o = f"-o {options}" if options else ""
    stream = "stream" in options
    fill = "" if stream else f"io a.{fmt} write -P 1 1M 1M; write -P 2 5M 3k"
    case(f"{fmt} {options or 'defaults'}", f"""
        create -f {fmt} {o} a.{fmt} 10M
        ~ info -f {fmt} a.{fmt}
        ~ info -f {fmt} --output=json a.{fmt}
        {fill or "~ check -f vmdk a.vmdk"}
        create -q s.raw 10M
        io s.raw write -P 5 0 64k; write -P 3 1M 1M; write -P 4 5000000 1000
        convert -O {fmt} {o} s.raw b.{fmt}
        ~ info -f {fmt} b.{fmt}
        {'' if fmt == 'vpc' else '~ check -f ' + fmt + ' b.' + fmt}
        convert -f {fmt} -O raw b.{fmt} c.raw
        convert -f {fmt} -O qcow2 a.{fmt} d.qcow2
        {'' if options == 'static=on' or fmt == 'vhdx' else 'map -f ' + fmt + ' --output=json b.' + fmt}
        py pass
    """)


def main():
    ours = os.path.abspath(sys.argv[1])
    words = sys.argv[2:]
    chosen = {name: lines for name, lines in CASES.items() if not words or any(w in name for w in words)}
    tap.run({name: (lambda name=name, lines=lines: play(name, lines, ours)) for name, lines in chosen.items()})


if __name__ == "__main__":
    main()
