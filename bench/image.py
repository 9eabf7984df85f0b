# SPDX-License-Identifier: GPL-2.0-or-later
"""ruche-img beside qemu-img: the same command lines in turn, in one folder, after what was written before is on disk.

A row's figure is seconds (less is better) or MiB of memory; the ratio is the peer's median over ours, so more than 1 is ahead;
the spread is the lowest and the highest ratio of the rounds. Where qemu-img has several ways to do I/O (-i threads,
-i io_uring), it is measured with each and compared at its better one.
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

PEER = "qemu-img"
MIB = 1 << 20
# The bars: 1.5 on convert and 4k on qcow2, ahead elsewhere.
BARS = {"convert": 1.5, "4k qcow2": 1.5}


class Bench:
    def __init__(self, tool, folder, size_mib, requests):
        self.tools = {"ours": tool, "peer": PEER}
        self.folder, self.size_mib, self.requests = folder, size_mib, requests

    def path(self, name):
        return os.path.join(self.folder, name)

    def run(self, *words):
        subprocess.run([PEER, *words], cwd=self.folder, check=True, stdout=subprocess.DEVNULL)

    def fill(self):
        """The images that rows read: half of the data compresses well, an eighth is holes."""
        noise = os.urandom(MIB // 2)
        text = (b"".join(b"%08x the quick brown fox jumps over the lazy dog\n" % i for i in range(20000)))[: MIB // 2]
        with open(self.path("data.raw"), "wb") as f:
            for i in range(self.size_mib):
                if i % 8 == 7:
                    f.seek(MIB, os.SEEK_CUR)
                else:
                    f.write(noise[i % 97:] + noise[: i % 97])
                    f.write(text)
            f.truncate(self.size_mib * MIB)
        self.run("convert", "-O", "qcow2", "data.raw", "data.qcow2")
        self.run("create", "-f", "raw", "-o", "preallocation=full", "full.raw", f"{self.size_mib}M")
        self.run("create", "-f", "qcow2", "-o", "preallocation=full", "full.qcow2", f"{self.size_mib}M")
        self.run("create", "-f", "qcow2", "-o", "preallocation=metadata", "large.qcow2", "256G")


def settle():
    os.sync()


def measure(argv, folder, repeat=1):
    """Seconds (as the tool says, or from start to end) and MiB at the most.

    time(1) stands between: a child's peak of memory begins with that of who forked it, and Python is large.
    """
    settle()
    report = os.path.join(folder, "memory.txt")
    argv = ["/usr/bin/time", "-q", "-f", "%M", "-o", report, *argv]
    seconds, memory = 0.0, 0.0
    for _ in range(repeat):
        start = time.perf_counter()
        p = subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out = p.stdout.read()
        err = p.stderr.read()
        p.wait()
        took = time.perf_counter() - start
        if p.returncode not in (0, 3):
            raise RuntimeError(f"{' '.join(argv)}: {p.returncode} {err.decode()}")
        said = re.search(rb"Run completed in ([\d.]+) seconds", out)
        seconds += float(said.group(1)) if said else took
        with open(report, encoding="ascii") as kib:
            memory = max(memory, int(kib.read().split()[-1]) / 1024)
    return seconds, memory


class Row:
    """name; words of the command; `before(bench)` makes what the command needs, each time."""

    def __init__(self, name, words, before=None, ways=False, repeat=1, memory=False):
        self.name, self.words, self.before, self.repeat, self.memory = name, words, before, repeat, memory
        self.ways = ["threads", "io_uring"] if ways else [None]

    def once(self, bench, who):
        best = None
        for way in self.ways if who == "peer" else [None]:
            if self.before:
                self.before(bench)
            words = list(self.words) if way is None else [self.words[0], "-i", way, *self.words[1:]]
            seconds, memory = measure([bench.tools[who], *words], bench.folder, self.repeat)
            value = memory if self.memory else seconds
            best = value if best is None else min(best, value)
        return best


def io_rows(bench):
    n, big = bench.requests, max(bench.size_mib * 2, 64)
    step = str(4096 * 16411)  # a prime number of blocks: every place is visited before one comes again
    for kind in ("read", "write"):
        write = ["-w"] if kind == "write" else []
        for fmt in ("raw", "qcow2"):
            image = f"full.{fmt}"
            yield Row(f"{kind} 4k {fmt}, random", ["bench", "-f", fmt, *write, "-c", str(n), "-d", "32", "-S", step, image],
                      ways=True)
            yield Row(f"{kind} 1M {fmt}, in order", ["bench", "-f", fmt, *write, "-c", str(big), "-d", "8", "-s", "1M", image],
                      ways=True)
    fresh = lambda b: b.run("create", "-q", "-f", "qcow2", "fresh.qcow2", f"{b.size_mib}M")
    clusters = min(bench.size_mib * 16, n)
    yield Row("write 4k qcow2, fresh, random", ["bench", "-f", "qcow2", "-w", "-c", str(clusters), "-d", "32", "-S",
                                                str(65536 * 1031), "fresh.qcow2"], before=fresh, ways=True)
    yield Row("write 4k qcow2, fresh, in order", ["bench", "-f", "qcow2", "-w", "-c", str(n), "-d", "32", "fresh.qcow2"],
              before=fresh, ways=True)
    yield Row("write 1M qcow2, fresh, in order", ["bench", "-f", "qcow2", "-w", "-c", str(bench.size_mib), "-d", "8", "-s", "1M",
                                                  "fresh.qcow2"], before=fresh, ways=True)


def gone(name):
    def remove(bench):
        if os.path.exists(bench.path(name)):
            os.unlink(bench.path(name))
    return remove


def tool_rows(bench):
    for name, source, target, options in (
            ("raw to qcow2", "raw", "qcow2", []), ("qcow2 to raw", "qcow2", "raw", []), ("raw to raw", "raw", "raw", []),
            ("qcow2 to qcow2", "qcow2", "qcow2", []), ("raw to qcow2, zlib", "raw", "qcow2", ["-c"]),
            ("raw to qcow2, zstd", "raw", "qcow2", ["-c", "-o", "compression_type=zstd"])):
        yield Row(f"convert {name}", ["convert", "-f", source, "-O", target, *options, f"data.{source}", f"out.{target}"],
                  before=gone(f"out.{target}"))
    for fmt in ("raw", "qcow2"):
        yield Row(f"create {fmt}, 10 times", ["create", "-q", "-f", fmt, f"new.{fmt}", "1T"], before=gone(f"new.{fmt}"), repeat=10)
    yield Row("check qcow2, 256 GiB", ["check", "-q", "large.qcow2"])
    yield Row("map qcow2, 256 GiB", ["map", "--output=json", "large.qcow2"])
    yield Row("map raw", ["map", "-f", "raw", "--output=json", "data.raw"])
    yield Row("info qcow2, 10 times", ["info", "large.qcow2"], repeat=10)
    yield Row("measure qcow2", ["measure", "-O", "qcow2", "large.qcow2"])
    yield Row("compare raw and qcow2", ["compare", "-f", "raw", "-F", "qcow2", "data.raw", "data.qcow2"])
    yield Row("memory, convert raw to qcow2", ["convert", "-f", "raw", "-O", "qcow2", "data.raw", "out.qcow2"], memory=True)
    yield Row("memory, convert zlib", ["convert", "-c", "-f", "raw", "-O", "qcow2", "data.raw", "out.qcow2"], memory=True)
    yield Row("memory, check 256 GiB", ["check", "-q", "large.qcow2"], memory=True)
    yield Row("memory, 4k reads qcow2", ["bench", "-f", "qcow2", "-c", "20000", "-d", "32", "-S", str(4096 * 16411), "full.qcow2"],
              memory=True)


def bar_of(name):
    if name.startswith("convert"):
        return BARS["convert"]
    return BARS["4k qcow2"] if "4k qcow2" in name and not name.startswith("memory") else 1.0


def show(row, samples):
    ours, peers = (statistics.median(samples[who]) for who in ("ours", "peer"))
    ratios = [p / o for p, o in zip(samples["peer"], samples["ours"]) if o > 0] or [1.0]
    ratio, bar = peers / ours if ours else 1.0, bar_of(row.name)
    unit = "MiB" if row.memory else "s  "
    print(f"{row.name:34} {ours:9.3f} {peers:9.3f} {unit} {ratio:6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
          f"  {'ahead' if ratio >= bar else 'short of ' + str(bar)}", flush=True)
    return ratio >= bar


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default="build/ruche-img", help="the ruche-img to measure")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, metavar="MIB", help="of the images")
    parser.add_argument("--requests", type=int, default=100000, help="of the 4k rows")
    parser.add_argument("--folder", help="where the images are; a temporary one by default")
    parser.add_argument("--rows", default="", help="only rows whose names match this regular expression")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench-image-", dir=args.folder)
    bench = Bench(os.path.abspath(args.tool), folder, args.size, args.requests)
    good = True
    try:
        rows = [r for r in [*io_rows(bench), *tool_rows(bench)] if re.search(args.rows, r.name)]
        bench.fill()
        print(f"{'row':34} {'ours':>9} {'peer':>9}      ratio  (spread)")
        for row in rows:
            samples = {"ours": [], "peer": []}
            for turn in range(args.rounds):
                for who in ("ours", "peer") if turn % 2 == 0 else ("peer", "ours"):
                    samples[who].append(row.once(bench, who))
            good &= show(row, samples)
    finally:
        shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
