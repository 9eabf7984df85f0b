#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The software CPU beside QEMU's TCG and the bare host, row by row; started by bench/cpu.

    bench/cpu [--quick] [--rounds N] [--only NAME,...] [--engines native,ours,tcg] [--json FILE] [-- RUCHE-OPTIONS]

All engines run the same binary under the same kernel. A row's units of work are counted once per engine, so that they
take about --budget ms there; then each round runs them on one engine after the other. Between rows the guests wait.
"""
import argparse
import json
import os
import shutil
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cpu_engines  # noqa: E402
import cpu_guest  # noqa: E402
import cpu_report  # noqa: E402
from cpu_engines import GuestError, RowError  # noqa: E402

SLOWEST_S = 60  # what a step of a row may take


class Bench:
    def __init__(self, options, engines):
        self.options, self.engines = options, engines
        self.rows = []

    def say(self, text):
        if not self.options.no_progress:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def wanted(self, name, group):
        return not self.options.only or any(w in (name, group) for w in self.options.only)

    def start(self, engine, *arguments):
        """False when it does not come up; said at once, since it costs all of its rows."""
        try:
            engine.start(*arguments)
            return True
        except (GuestError, RowError) as error:
            engine.stop()
            print(f"\nbench: {engine.name} does not start: {error}", file=sys.stderr)
            return False

    def attempt(self, row, engine, call, arguments):
        """A row's step on one engine; a failure is the row's, and a machine that hangs or died starts anew."""
        try:
            return call()
        except RowError as error:
            row.why[engine.name] = str(error)
        except (GuestError, OSError) as error:
            row.why[engine.name] = engine.last_words(row.name) or str(error).split(";", maxsplit=1)[0]
            engine.stop()
            if not self.start(engine, *arguments):
                raise GuestError(f"{engine.name} ended in row {row.name} and does not start again") from None
        return None

    def measure(self, row, engines, arguments):
        units = {}
        for engine in engines:
            self.say(f"{row.name}: {engine.name} counts")
            units[engine] = self.attempt(row, engine, lambda e=engine: e.count(row.name, self.options.budget, SLOWEST_S),
                                         arguments)
        for turn in range(self.options.rounds):
            for engine in engines:
                if not units[engine] or engine.name in row.why:
                    continue
                self.say(f"{row.name}: {engine.name}, round {turn + 1}")
                sample = self.attempt(row, engine, lambda e=engine: e.run(row.name, units[e], SLOWEST_S), arguments)
                row.add(engine.name, turn, sample)

    def run_rows(self, smp):
        """All rows of the guests with one vCPU, or of those with two."""
        arguments = [2] if smp else []
        names = cpu_guest_rows(self.options.folder)
        rows = [(n, g) for n, g in names.items() if self.wanted(n, g) and (g == "smp") == smp]
        if not rows:
            return
        running = []
        for engine in self.engines.values():
            self.say(f"starting {engine.name}")
            extra = arguments if isinstance(engine, cpu_engines.Machine) else []
            if self.start(engine, *extra):
                running.append(engine)
        try:
            for name, group in rows:
                row = cpu_report.Row(name, group, self.options.rounds)
                self.rows.append(row)
                self.measure(row, running, arguments)
        finally:
            for engine in running:
                engine.stop()

    def run_boot(self):
        if not self.wanted("boot", "boot"):
            return
        row = cpu_report.Row("boot to init", "boot", self.options.rounds)
        self.rows.append(row)
        for turn in range(self.options.rounds):
            for engine in self.engines.values():
                if isinstance(engine, cpu_engines.Machine) and engine.name not in row.why:
                    self.say(f"boot: {engine.name}, round {turn + 1}")
                    try:
                        row.add(engine.name, turn, engine.boot())
                    except (GuestError, RowError) as error:
                        row.why[engine.name] = engine.last_words("boot") or str(error).split(";", maxsplit=1)[0]
                        engine.stop()

    def run(self):
        self.run_rows(False)
        self.run_rows(True)
        self.run_boot()
        self.say("")


def cpu_guest_rows(folder):
    native = cpu_engines.Native(folder)
    native.start()
    try:
        return native.list()
    finally:
        native.stop()


def parse():
    parser = argparse.ArgumentParser(prog="bench/cpu", description=__doc__.split("\n", maxsplit=1)[0],
                                     epilog="Options of ruche-vmm may follow after --.")
    parser.add_argument("--quick", action="store_true", help="one short round: --rounds 1 --budget 120")
    parser.add_argument("--rounds", type=int, help="rounds (3)")
    parser.add_argument("--budget", type=int, metavar="MS", help="what a row takes in a round (350)")
    parser.add_argument("--only", metavar="NAME,...", help="rows or groups")
    parser.add_argument("--engines", default="native,ours,tcg", metavar="NAME,...",
                        help="of native, ours, tcg (its two models: max, qemu64)")
    parser.add_argument("--vmm", metavar="PATH", default=os.path.join(cpu_engines.ROOT, "build", "ruche-vmm"))
    parser.add_argument("--base", metavar="PATH", help="another ruche-vmm to compare ours with, in the same rounds")
    parser.add_argument("--cpu", default="host", metavar="MODEL", help="ours' processor model (host)")
    parser.add_argument("--json", metavar="FILE", help="all samples")
    parser.add_argument("--compare", metavar="FILE", help="a former run's --json: prints which of ours' rates changed")
    parser.add_argument("--stats", action="store_true", help="prints ours' counters for each row")
    parser.add_argument("--perf", metavar="FOLDER", help="profiles each row on ours with perf into FOLDER/ROW.data")
    parser.add_argument("--list", action="store_true", help="the rows, then end")
    parser.add_argument("--no-progress", action="store_true")
    parser.add_argument("vmm_options", nargs="*", metavar="RUCHE-OPTION")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.budget = options.budget or (120 if options.quick else 350)
    options.only = options.only.split(",") if options.only else []
    options.engines = options.engines.split(",")
    options.no_progress = options.no_progress or not sys.stderr.isatty()
    unknown = set(options.engines) - {"native", "ours", "tcg", "max", "qemu64"}
    if unknown:
        parser.error(f"no such engine: {', '.join(sorted(unknown))}; there are native, ours, tcg, max, qemu64")
    return options


def main():
    options = parse()
    if {"tcg", "max", "qemu64"} & set(options.engines) and not shutil.which(cpu_engines.QEMU):
        sys.exit(f"bench: {cpu_engines.QEMU} is not installed (package qemu-system-x86)")
    if not options.list and "ours" in options.engines and not os.path.exists(options.vmm):
        sys.exit(f"bench: {options.vmm} is not there; build it (ninja -C build) or name one with --vmm")
    options.folder = cpu_guest.build()
    names = cpu_guest_rows(options.folder)
    if options.list:
        print("\n".join(f"{group:10}{name}" for name, group in [*names.items(), ("boot", "boot")]))
        return 0
    unknown = set(options.only) - set(names) - set(cpu_report.GROUPS)
    if unknown:
        sys.exit(f"bench: neither a row nor a group: {', '.join(sorted(unknown))} (--list tells them)")
    engines = cpu_engines.engines(options.engines, options.vmm, ["-cpu", options.cpu, *options.vmm_options],
                                  options.folder, cpu_guest.kernel(), options.base)
    ours = engines.get("ours")
    if ours and options.stats:
        ours.stats = {}
    if ours and options.perf:
        os.makedirs(options.perf, exist_ok=True)
        ours.perf_folder = options.perf
    bench = Bench(options, engines)
    start = time.monotonic()
    try:
        bench.run()
    except GuestError as error:
        print(f"bench: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nbench: interrupted; what was measured until now:", file=sys.stderr)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(cpu_report.as_json(bench.rows), out, indent=1)
    good = cpu_report.print_all(bench.rows)
    if ours and options.stats:
        cpu_report.print_stats(ours.stats)
    if options.base:
        cpu_report.print_base(bench.rows)
    if options.compare:
        cpu_report.print_changes(bench.rows, options.compare)
    print(f"{options.rounds} rounds, {time.monotonic() - start:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
