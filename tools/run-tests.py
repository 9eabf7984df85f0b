#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs meson test suites (and the fuzzers) of several build folders; closes with 'N passed, N failed'.

Arguments: FOLDER:SUITE[,SUITE...] or fuzz:FOLDER. Every TAP point counts as one test; so does a program without
TAP, and each fuzz target.
"""
import glob
import json
import os
import re
import subprocess
import sys
import time

FUZZ_SECONDS = int(os.environ.get("RUCHE_FUZZ_SECONDS", "15"))
TAP_POINT = re.compile(r"^(not )?ok\b.*?(#\s*(SKIP|TODO)\b.*)?$", re.IGNORECASE)


class Tally:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.skips = []

    def add_tap(self, where, text):
        """Counts the points of a TAP text; returns whether there were any."""
        seen = False
        for line in text.splitlines():
            point = TAP_POINT.match(line)
            if not point:
                continue
            seen = True
            if point.group(2) and point.group(3).upper() == "SKIP":
                self.skipped += 1
                self.skips.append(f"{where}: {line}")
            elif point.group(1):
                self.fail(f"{where}: {line}")
            else:
                self.passed += 1
        return seen

    def fail(self, what):
        self.failed += 1
        self.failures.append(what)


def show_tail(text, lines=40):
    for line in text.splitlines()[-lines:]:
        print("    " + line)


def run_meson(tally, folder, suites):
    command = ["meson", "test", "-C", folder, "--no-rebuild", "--quiet"]
    # Two cores: programs that time themselves or boot guests are marked is_parallel: false in meson.build.
    for suite in suites:
        command += ["--suite", suite]
    log = os.path.join(folder, "meson-logs", "testlog.json")
    if os.path.exists(log):
        os.remove(log)
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if not os.path.exists(log):
        tally.fail(f"{folder}: meson ran no test of {','.join(suites)}")
        return
    with open(log, encoding="utf-8") as lines:
        for line in lines:
            count_one(tally, folder, json.loads(line))


def count_one(tally, folder, test):
    where = f"{folder}: {test['name']}"
    before = tally.failed
    tap = tally.add_tap(where, test.get("stdout", ""))
    good = test["result"] in ("OK", "EXPECTEDFAIL")
    if test["result"] == "SKIP" and not tap:
        tally.skipped += 1
        tally.skips.append(where)
    elif not good and test["result"] != "SKIP" and tally.failed == before:
        tally.fail(f"{where}: {test['result']}")
    elif good and not tap:
        tally.passed += 1
    print(f"{'ok  ' if tally.failed == before else 'FAIL'} {test['duration']:7.1f} s  {where}", flush=True)
    if tally.failed > before:
        show_tail(test.get("stdout", ""))
        show_tail(test.get("stderr", ""))


def run_fuzzers(tally, folder):
    targets = sorted(p for p in glob.glob(os.path.join(folder, "tests", "fuzz", "fuzz_*"))
                     if os.access(p, os.X_OK) and os.path.isfile(p))
    if not targets:
        tally.fail(f"{folder}: there is no fuzz target")
    for target in targets:
        name = os.path.basename(target)
        corpus = os.path.join("tests", "corpus", name)
        work = os.path.join(folder, "corpus", name)
        os.makedirs(work, exist_ok=True)
        command = [target, f"-max_total_time={FUZZ_SECONDS}", "-rss_limit_mb=2048", "-timeout=20", "-verbosity=0",
                   "-print_final_stats=1", f"-artifact_prefix={work}/crash-", work]
        if os.path.isdir(corpus):
            command.append(corpus)
        start = time.monotonic()
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", check=False)
        runs = re.search(r"number_of_executed_units:\s*(\d+)", done.stdout)
        good = done.returncode == 0 and runs and int(runs.group(1)) > 0
        print(f"{'ok  ' if good else 'FAIL'} {time.monotonic() - start:7.1f} s  fuzz: {name}"
              f" ({runs.group(1) if runs else '0'} inputs)", flush=True)
        if good:
            tally.passed += 1
        else:
            tally.fail(f"fuzz: {name}")
            show_tail(done.stdout)


def main():
    tally = Tally()
    for argument in sys.argv[1:]:
        folder, _, rest = argument.partition(":")
        if folder == "fuzz":
            run_fuzzers(tally, rest)
        else:
            run_meson(tally, folder, rest.split(","))
    for line in tally.skips:
        print("skipped " + line)
    for line in tally.failures:
        print("failed  " + line)
    tail = f", {tally.skipped} skipped" if tally.skipped else ""
    print(f"{tally.passed} passed, {tally.failed} failed{tail}")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
