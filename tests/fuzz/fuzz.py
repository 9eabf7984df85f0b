#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a libFuzzer program on its kept corpus: repeatably (--runs, what the check does), or for long (--seconds).

See "Fuzzing" in docs/testing.md.
"""
import argparse
import ctypes
import os
import re
import subprocess
import sys

ADDR_NO_RANDOMIZE = 0x0040000
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMITS = ['-rss_limit_mb=2048', '-timeout=30', '-print_final_stats=1']


def kept_corpus(name):
    folder = os.path.join(ROOT, 'tests', 'corpus', name)
    return sorted(os.path.join(folder, f) for f in os.listdir(folder))


def fixed_addresses():
    """Addresses get into what libFuzzer mutates with. Where a sandbox forbids this, its inputs vary a little."""
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)


def run_repeatably(program, name, work, options):
    # Entropic scheduling weighs inputs by the time they take: it would not choose the same ones twice.
    command = [program, f'-runs={options.runs}', '-seed=1', '-entropic=0', f'-max_total_time={options.cap}',
               f'-artifact_prefix={work}/', '-seed_inputs=' + ','.join(kept_corpus(name))] + LIMITS
    done = subprocess.run(command, env=os.environ | {'RUCHE_FUZZ_REPEATABLE': '1'}, preexec_fn=fixed_addresses,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    text = done.stdout.decode(errors='replace')
    end = re.search(r'^#[1-9]\d*\s+DONE.*corp: \S+', text, re.M)
    print(end.group() if end and not done.returncode else text)
    return done.returncode if end else done.returncode or 1


def run_long(program, name, work, options):
    corpus = os.path.join(work, 'corpus')
    os.makedirs(corpus, exist_ok=True)
    command = [program, f'-max_total_time={options.seconds}', f'-artifact_prefix={work}/'] + LIMITS
    if options.seed:
        command.append(f'-seed={options.seed}')
    if options.jobs > 1:
        command.append(f'-fork={options.jobs}')
    return subprocess.run(command + [corpus, os.path.join(ROOT, 'tests', 'corpus', name)], check=False).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('program', help='the fuzz target, of a build with -Dfuzz=true')
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument('--runs', type=int, help='so many inputs, always the same')
    how.add_argument('--seconds', type=int, help='so long, from where the last such run ended')
    parser.add_argument('--cap', type=int, default=90, help='seconds after which --runs ends early (90)')
    parser.add_argument('--seed', type=int, help='with --seconds; the default is another one each time')
    parser.add_argument('--jobs', type=int, default=1, help='with --seconds: processes at a time')
    options = parser.parse_args()
    program = os.path.abspath(options.program)
    name = os.path.basename(program)
    # <build>/tests/fuzz/<name>
    work = os.path.join(os.path.dirname(program), '..', '..', 'corpus', name)
    work = os.path.normpath(work)
    os.makedirs(work, exist_ok=True)
    return (run_repeatably if options.runs else run_long)(program, name, work, options)


if __name__ == '__main__':
    sys.exit(main())
