# SPDX-License-Identifier: GPL-2.0-or-later
"""What bench/cpu measures: the bare host, ruche-vmm, QEMU's TCG. Each runs the rows' binary and is asked line by line
(see rows/runner.c); CPU time is that of the whole VMM process, sampled while the guest waits for an answer."""
import collections
import glob
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tools"))

from guest import GuestError, Vmm  # noqa: E402

QEMU = "qemu-system-x86_64"
ANSWER = r"^@@ (\S+)(?: (.*))?\n"
# One row measured once. `queued_s`: how long threads were ready but had no host CPU, the busiest thread first.
Sample = collections.namedtuple("Sample", "units cpu_s wall_s queued_s checksum")


class RowError(Exception):
    """The row did not give a figure; `skipped` when it cannot here, by its own word."""

    def __init__(self, message, skipped=False):
        super().__init__(message)
        self.skipped = skipped


def process_cpu_s(pid):
    """CPU seconds of all of a process's threads, to the nanosecond: its own clock, see clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9


def process_threads(pid):
    """{thread: (ns that it ran, ns that it was ready but had no host CPU)}; empty where the kernel does not count."""
    threads = {}
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path, encoding="ascii") as file:
                threads[path] = tuple(int(word) for word in file.read().split()[:2])
        except (OSError, ValueError):
            pass  # the thread has ended
    return threads


def queues(before, after):
    """Seconds that threads waited for a host CPU in between, the busiest thread first."""
    deltas = [(run - before.get(path, (0, 0))[0], wait - before.get(path, (0, 0))[1])
              for path, (run, wait) in after.items()]
    return [wait / 1e9 for _, wait in sorted(deltas, reverse=True)][:8]


class Engine:
    """An engine that answers. start() and stop() may come many times."""
    name = ""
    starts = 0

    def start(self):
        raise NotImplementedError

    def stop(self):
        raise NotImplementedError

    def send(self, line):
        raise NotImplementedError

    def read(self, seconds):
        """The next answer: (word, the rest)."""
        raise NotImplementedError

    def cpu_s(self):
        """CPU seconds until now; None where the runner counts them itself."""
        raise NotImplementedError

    def ask(self, line, wanted, seconds):
        """The rest of the answer `wanted`."""
        self.send(line)
        return self.wait(wanted, seconds)

    def last_words(self, row):
        """What is known of an engine that does not answer any more, in a sentence; None: nothing."""
        return None

    def watch(self, row):
        """The row's measured part begins."""

    def watched(self, row, cpu_s):
        """It ended."""

    def wait(self, wanted, seconds):
        word, rest = self.read(seconds)
        if word in ("skip", "fail"):
            raise RowError(rest.split(" ", 1)[1], word == "skip")
        if word != wanted:
            raise RowError(f"answered '{word} {rest}' where '{wanted}' was due")
        return rest

    def threads(self):
        """process_threads() of a machine."""
        return {}

    def list(self):
        """Rows: {name: group}, in order."""
        self.send("list")
        rows = {}
        while True:
            word, rest = self.read(30)
            if word == "ok":
                return rows
            name, group = rest.split()[:2]
            rows[name] = group

    def count(self, row, budget_ms, seconds):
        return int(self.ask(f"count {row} {budget_ms}", "count", seconds).split()[1])

    def run(self, row, units, seconds):
        self.ask(f"run {row} {units}", "begin", seconds)
        self.watch(row)
        threads, cpu, wall = self.threads(), self.cpu_s(), time.perf_counter()
        fields = self.ask("go", "end", seconds).split()
        wall = time.perf_counter() - wall
        cpu = int(fields[3]) / 1e9 if cpu is None else self.cpu_s() - cpu
        queued = queues(threads, self.threads())
        self.watched(row, cpu)
        return Sample(int(fields[1]), max(cpu, 1e-6), wall, queued, fields[4])


class Native(Engine):
    """The host itself."""
    name = "native"

    def __init__(self, folder):
        self.folder = folder
        self.process = self.temp = None

    def start(self):
        self.starts += 1
        self.temp = tempfile.mkdtemp(prefix="ruche-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [os.path.join(self.folder, "rows"), os.path.join(self.folder, "data"), self.temp],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.wait("ready", 10)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process.stdin.close()
            self.process.stdout.close()
            shutil.rmtree(self.temp, ignore_errors=True)
        self.process = None

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def read(self, seconds):
        pipe = self.process.stdout
        with selectors.DefaultSelector() as waiting:
            waiting.register(pipe, selectors.EVENT_READ)
            while True:
                if not pipe.peek() and not waiting.select(seconds):
                    raise GuestError(f"no answer within {seconds} s")
                found = re.match(ANSWER, pipe.readline().decode())
                if found:
                    return found.group(1), found.group(2) or ""

    def cpu_s(self):
        return None


class Machine(Engine):
    """A virtual machine that boots Debian's kernel with the rows' binary as init."""

    def __init__(self, name, binary, options, kernel, folder):
        self.name, self.binary, self.options = name, binary, options
        self.kernel, self.folder = kernel, folder
        self.vmm = None
        self.perf_folder = None  # where each row's profile goes
        self.perf = None
        self.stats = None        # {row: {counter: a CPU second}} of ruche-vmm's counters, if wanted
        self.counters = {}

    def launch(self, archive, cpus, memory, append):
        self.vmm = Vmm(self.binary, [
            "-machine", "q35", "-no-reboot", "-m", memory, "-smp", str(cpus), "-kernel", self.kernel,
            "-initrd", os.path.join(self.folder, archive), "-append", f"console=ttyS0 panic=-1 {append}".strip(),
            *self.options])

    def start(self, cpus=1):
        self.starts += 1
        self.launch("rows.cpio", cpus, "1G", "quiet")
        self.wait("ready", 300)

    def boot(self):
        """From exec to init, which is all that this guest has: CPU seconds, wall seconds."""
        self.launch("boot.cpio", 1, "512M", "")
        self.wait("ready", 300)
        sample = Sample(1, process_cpu_s(self.vmm.process.pid), self.vmm.seconds(), [], "")
        self.stop()
        return sample

    def stop(self):
        if self.vmm:
            self.vmm.close()
        self.vmm = None

    def send(self, line):
        self.vmm.console.send(line + "\n")

    def read(self, seconds):
        found = self.vmm.console.expect(ANSWER, seconds)
        return found.group(1), found.group(2) or ""

    def cpu_s(self):
        return process_cpu_s(self.vmm.process.pid)

    def threads(self):
        return process_threads(self.vmm.process.pid)

    def last_words(self, row):
        if not self.vmm:
            return None
        path = os.path.join(tempfile.gettempdir(), f"bench-{self.name}-{row}.log")
        with open(path, "w", encoding="utf-8") as log:
            log.write(f"{self.vmm.errors()}\n---- console\n{self.vmm.console.text[-20000:]}")
        status = self.vmm.process.poll()
        how = "does not answer" if status is None else f"ended with {status}"
        return f"{how}, see {path}"

    def count_all(self):
        """The software CPUs' counters, added up; those in objects (fallbacks by opcode) as object.name."""
        sums = collections.Counter()
        for cpu in self.vmm.qmp.execute("x-ruche-query-cpu-stats"):
            for name, value in cpu.items():
                for key, number in ((f"{name}.{k}", v) for k, v in value.items()) if isinstance(value, dict) else (
                        [(name, value)]):
                    if isinstance(number, int) and not isinstance(number, bool):
                        sums[key] += number
        return sums

    def watch(self, row):
        if self.stats is not None:
            self.counters = self.count_all()
        if self.perf_folder:
            self.perf = subprocess.Popen(  # pylint: disable=consider-using-with
                ["perf", "record", "-q", "-o", os.path.join(self.perf_folder, f"{row}.data"),
                 "-p", str(self.vmm.process.pid)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.5)  # it says nothing when it is ready

    def watched(self, row, cpu_s):
        if self.perf:
            self.perf.send_signal(signal.SIGINT)
            self.perf.wait()
            self.perf = None
        if self.stats is not None:
            now = self.count_all()
            self.stats[row] = {k: (v - self.counters[k]) / cpu_s for k, v in now.items() if v != self.counters[k]}


def engines(names, vmm, vmm_options, folder, kernel, base=None):
    """{name: engine}; QEMU's is measured with both of its processor models, `base` is another ruche-vmm."""
    all_engines = {
        "native": Native(folder),
        "ours": Machine("ours", vmm, ["-accel", "soft", *vmm_options], kernel, folder),
        "max": Machine("max", QEMU, ["-accel", "tcg", "-cpu", "max"], kernel, folder),
        "qemu64": Machine("qemu64", QEMU, ["-accel", "tcg", "-cpu", "qemu64"], kernel, folder),
    }
    if base:
        all_engines["base"] = Machine("base", base, ["-accel", "soft", *vmm_options], kernel, folder)
    wanted = set(names) | ({"base"} if base else set()) | ({"max", "qemu64"} if "tcg" in names else set())
    return {name: engine for name, engine in all_engines.items() if name in wanted}
