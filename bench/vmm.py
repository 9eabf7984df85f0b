#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Ruche beside QEMU's TCG, in one run: start-up, instructions a second, memory, boot to login.

    bench/vmm.py [--build build] [--rounds 3] [--skip-boot]

Each row is measured `rounds` times, ours and QEMU's in turn; printed are the medians, the spread (lowest to highest)
and the ratio. "First instruction" is from exec until a payload's first write to the exit device ends the process, so it
contains the end of the process too. The payload "hello" does nothing before it.
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

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(ROOT, "tools"))

from guest import Vmm, copy_disk, debian_arguments  # noqa: E402

QEMU = "qemu-system-x86_64"
COMMON = ["-nodefaults", "-display", "none", "-m", "512M", "-machine", "q35", "-no-reboot"]


class Peer:
    def __init__(self, name, binary, options):
        self.name, self.binary, self.options = name, binary, options

    def payload(self, path, append):
        """Seconds from exec to exit, and what the payload printed."""
        command = [self.binary, *COMMON, *self.options, "-device", "isa-debug-exit,iobase=0xf4,iosize=4",
                   "-serial", "stdio", "-kernel", path, "-append", append]
        start = time.perf_counter()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, timeout=600, check=False)
        seconds = time.perf_counter() - start
        if not done.returncode & 1:
            raise RuntimeError(f"{self.name} ended with {done.returncode}: {done.stderr} {done.stdout}")
        return seconds, done.stdout

    def first_instruction_ms(self, payloads):
        return self.payload(os.path.join(payloads, "hello.elf"), "exit=0")[0] * 1000

    def mips(self, payloads):
        few, many = 1_000_000, 11_000_000
        path = os.path.join(payloads, "loop.elf")
        times = {}
        for rounds in (few, many):
            seconds, output = self.payload(path, f"rounds={rounds}")
            count = int(re.search(r"instructions=(\d+)", output).group(1))
            times[rounds] = (seconds, count)
        return (times[many][1] - times[few][1]) / (times[many][0] - times[few][0]) / 1e6

    def boot(self, guest, folder):
        """Seconds from exec to login; MiB of memory beyond the guest's RAM."""
        disk = os.path.join(folder, f"{self.name}.img")
        copy_disk(os.path.join(guest, "disk.img"), disk)
        options = ["-machine", "q35", *self.options, *debian_arguments(guest, disk)]
        with Vmm(self.binary, options) as vmm:
            vmm.console.expect(r"login: ", 900)
            seconds = vmm.seconds()
            rest = overhead_mib(vmm.process.pid)
            vmm.process.terminate()
            vmm.process.wait(30)
        os.unlink(disk)
        return seconds, rest


def overhead_mib(pid):
    """Resident memory but for the guest's RAM: the mapping of 512 MiB, whatever its name. Our translated code is mapped
    twice and counted once."""
    rest = 0
    skip = is_code = False
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as lines:
        for line in lines:
            head = re.match(r"^([0-9a-f]+)-([0-9a-f]+) ", line)
            if head:
                skip = int(head.group(2), 16) - int(head.group(1), 16) >= 512 << 20
                is_code = "memfd:ruche-code" in line
            elif line.startswith("Pss:" if is_code else "Rss:") and not skip:
                rest += int(line.split()[1])
    return rest / 1024


def row(title, unit, values, higher_is_better):
    ours, theirs = values
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = a / b if higher_is_better else b / a
    print(f"{title:22} {a:9.1f} [{min(ours):.1f} to {max(ours):.1f}]  {b:9.1f} [{min(theirs):.1f} to {max(theirs):.1f}]"
          f"  {unit:6} {ratio:6.2f} times {'better' if ratio >= 1 else 'worse'}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-boot", action="store_true")
    options = parser.parse_args()
    if not shutil.which(QEMU):
        sys.exit(f"bench: {QEMU} is not installed (package qemu-system-x86)")
    peers = [Peer("ruche", os.path.join(options.build, "ruche-vmm"), ["-accel", "soft"]),
             Peer("qemu", QEMU, ["-accel", "tcg", "-cpu", "max"])]
    payloads = os.path.join(options.build, "tests", "guest")
    print(f"{'':22} {'ruche, soft':>9} {'':16} {'QEMU, TCG':>9}")
    turns = range(options.rounds)
    row("exec to first insn", "ms", list(zip(*[[p.first_instruction_ms(payloads) for p in peers] for _ in range(5)])),
        False)
    row("integer loop", "MIPS", list(zip(*[[p.mips(payloads) for p in peers] for _ in turns])), True)
    if options.skip_boot:
        return
    guest = subprocess.run([os.path.join(ROOT, "tools", "guest-image")], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.strip()
    with tempfile.TemporaryDirectory(prefix="ruche-bench-") as folder:
        boots = [[p.boot(guest, folder) for p in peers] for _ in turns]
    row("exec to login", "s", list(zip(*[[seconds for seconds, _ in turn] for turn in boots])), False)
    row("memory beyond RAM", "MiB", list(zip(*[[rest for _, rest in turn] for turn in boots])), False)


if __name__ == "__main__":
    main()
