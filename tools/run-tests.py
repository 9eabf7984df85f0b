#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs meson test suites of several build folders; closes with 'N passed, N failed'.

Arguments: FOLDER:SUITE[,SUITE...]. Every TAP point counts as one test; so does a program without TAP.
"""
import json
import os
import re
import subprocess
import sys

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
    command = ["meson", "test", "-C", folder, "--no-rebuild", "--quiet", "--timeout-multiplier", "4",
               "--num-processes", str((os.cpu_count() or 1) + 1)]
    # One more than there are cores: programs wait for their peers a third of the time. What times itself or takes
    # all cores is marked is_parallel: false in meson.build.
    # Limits end what hangs; a slow or busy host is given four times as long as they say.
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


def main():
    tally = Tally()
    for argument in sys.argv[1:]:
        folder, _, rest = argument.partition(":")
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
