# SPDX-License-Identifier: GPL-2.0-or-later
"""ruche-img beside qemu-img: the same command lines in turn, in one folder, from the same state of the machine.

A row's figure is seconds (less is better) or MiB of memory; the ratio is the peer's median over ours, so more than 1 is ahead;
the spread is the lowest and the highest ratio of the rounds; CPU is user's and system's time of the median. Where qemu-img
has several ways to do I/O (-i threads, -i io_uring), it is measured with each and compared at its better one.

Before each run everything is written back, the files that the command reads are in the page cache, and memory for what it
writes is at hand: a file of that size was written and removed just before. Otherwise a virtual machine whose host takes back
free pages (and this takes five times as long as the write) gives any figure to either.
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
        self.block = bytes(MIB)

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


    def settle(self, words):
        """The same state before every run, whoever ran before."""
        os.sync()
        for name in {w for w in words if os.path.exists(self.path(w))}:
            read_data(self.path(name))
        scratch = self.path("scratch")
        with open(scratch, "wb", buffering=0) as f:
            for _ in range(self.size_mib * 5 // 4):
                f.write(self.block)
        os.unlink(scratch)


def read_data(path):
    """All that is no hole."""
    fd, at = os.open(path, os.O_RDONLY), 0
    try:
        while True:
            at = os.lseek(fd, at, os.SEEK_DATA)
            end = os.lseek(fd, at, os.SEEK_HOLE)
            while at < end:
                at += len(os.pread(fd, min(MIB, end - at), at))
    except OSError:
        pass  # no data behind
    finally:
        os.close(fd)


def measure(argv, folder, repeat=1):
    """Seconds (as the tool says, or from start to end), MiB at the most, and seconds of CPU.

    time(1) stands between: a child's peak of memory begins with that of who forked it, and Python is large.
    """
    report = os.path.join(folder, "report.txt")
    argv = ["/usr/bin/time", "-q", "-f", "%M %U %S", "-o", report, *argv]
    seconds, memory, cpu = 0.0, 0.0, 0.0
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
        with open(report, encoding="ascii") as f:
            kib, user, system = f.read().split()[-3:]
        memory, cpu = max(memory, int(kib) / 1024), cpu + float(user) + float(system)
    return seconds, memory, cpu


class Row:
    """name; words of the command; `before(bench)` makes what the command needs, each time."""

    def __init__(self, name, words, before=None, ways=False, repeat=1, memory=False):
        self.name, self.words, self.before, self.repeat, self.memory = name, words, before, repeat, memory
        self.ways = ["threads", "io_uring"] if ways else [None]

    def once(self, bench, who, way):
        if self.before:
            self.before(bench)
        words = list(self.words) if way is None else [self.words[0], "-i", way, *self.words[1:]]
        bench.settle(words)
        seconds, memory, cpu = measure([bench.tools[who], *words], bench.folder, self.repeat)
        return (memory if self.memory else seconds), cpu

    def samples(self, bench, rounds):
        """(ours, the peer's at its better way): a list of (value, CPU) each; who is first changes from round to round."""
        runs = [("ours", None)] + [("peer", way) for way in self.ways]
        taken = {run: [] for run in runs}
        for turn in range(rounds):
            for run in runs[turn % len(runs):] + runs[:turn % len(runs)]:
                taken[run].append(self.once(bench, *run))
        return taken[runs[0]], min((taken[run] for run in runs[1:]), key=lambda s: middle(s)[0])


def middle(samples):
    """The medians of values and of CPU."""
    return tuple(statistics.median(column) for column in zip(*samples))


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
    (ours, our_cpu), (peers, peer_cpu) = (middle(s) for s in samples)
    ratios = [p[0] / o[0] for o, p in zip(*samples) if o[0] > 0] or [1.0]
    ratio, bar = peers / ours if ours else 1.0, bar_of(row.name)
    unit = "MiB" if row.memory else "s  "
    print(f"{row.name:34} {ours:9.3f} {peers:9.3f} {unit} {ratio:6.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
          f"  CPU {our_cpu:.2f} {peer_cpu:.2f}  {'ahead' if ratio >= bar else 'short of ' + str(bar)}", flush=True)
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
        print(f"{'row':34} {'ours':>9} {'peer':>9}      ratio  (spread)  CPU of both, seconds")
        for row in rows:
            good &= show(row, row.samples(bench, args.rounds))
    finally:
        shutil.rmtree(folder)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
