#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL at a random moment of every command that writes images, then the same command again; and full disks.

    image_kill.py RUCHE-IMG [ROUNDS [TESTS]]

A new image is under its final name whole, or not at all (what was there stays). An image that is changed in place
checks clean (leaks are allowed), shows the same disk, and the command started again completes. qemu-img judges.
"""
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tap  # noqa: E402

TOOL = os.path.abspath(sys.argv[1]) if os.sep in sys.argv[1] else sys.argv[1]
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 6
SIZE = 96 << 20
CHANCE = random.Random(4)
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-kill-")


def path(name):
    return os.path.join(FOLDER.name, name)


def tool(*arguments):
    r = subprocess.run([TOOL, *arguments], capture_output=True, text=True, timeout=600, check=False)
    assert r.returncode == 0, f"{arguments}: {r.stderr[-500:]}"


def judge(*arguments):
    """The kernel may keep a killed process's files, and their locks, for a while."""
    for _ in range(600):
        r = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, timeout=600, check=False)
        if "lock" not in r.stderr:
            break
        time.sleep(0.1)
    return r


def make(*arguments):
    r = judge(*arguments)
    assert r.returncode == 0, r.stderr


def same(a, b):
    r = judge("compare", a, b)
    assert r.returncode == 0, f"{a} and {b}: {r.stdout}{r.stderr}"


def clean(name, fmt="qcow2"):
    r = judge("check", "-f", fmt, name)
    assert r.returncode in (0, 3), f"{name}: {r.stdout[:300]} {r.stderr[:500]}"


def raw_disk(name, seed):
    """Texts, noise, holes; some of each megabyte."""
    r = random.Random(seed)
    with open(path(name), "wb") as f:
        f.truncate(SIZE)
        for at in range(0, SIZE, 1 << 20):
            if r.random() < 0.3:
                continue
            f.seek(at + r.randrange(0, 1 << 19, 512))
            f.write(r.randbytes(1 << 18) if r.random() < 0.7 else b"honey " * 40000)


def fixtures():
    raw_disk("base.raw", 1)
    raw_disk("top.raw", 2)
    make("convert", "-f", "raw", "-O", "qcow2", path("base.raw"), path("base.qcow2"))
    # An overlay whose disk is top.raw
    make("create", "-q", "-f", "qcow2", "-b", path("base.qcow2"), "-F", "qcow2", path("over.qcow2"))
    make("convert", "-f", "raw", "-O", "qcow2", "-B", path("base.qcow2"), "-F", "qcow2", path("top.raw"),
         path("over.qcow2"))
    make("convert", "-f", "raw", "-O", "qcow2", path("top.raw"), path("other.qcow2"))


def run_and_kill(arguments, seconds):
    """True when it was killed before it ended."""
    p = subprocess.Popen([TOOL, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(seconds)
    p.send_signal(signal.SIGKILL)
    _, err = p.communicate(timeout=600)
    assert p.returncode in (0, -signal.SIGKILL), err.decode(errors="replace")[-500:]
    return p.returncode != 0


def moments(arguments, prepare):
    """Times to kill at, spread over what the command takes."""
    prepare()
    start = time.monotonic()
    tool(*arguments)
    took = time.monotonic() - start
    return [took * (i + CHANCE.random()) / ROUNDS for i in range(ROUNDS)]


def makes(target, arguments, verify):
    """A command that makes `target`, where another image is before."""
    old = path("old.raw")

    def prepare():
        shutil.copyfile(old, target)

    with open(old, "wb") as f:
        f.write(b"old" * 1000000)
    for seconds in moments(arguments, prepare):
        prepare()
        if run_and_kill(arguments, seconds):
            with open(target, "rb") as a, open(old, "rb") as b:
                if a.read(3000000) == b.read():
                    continue
        verify(target)
    prepare()
    tool(*arguments)
    verify(target)
    os.unlink(target)
    for name in os.listdir(FOLDER.name):
        if name.endswith(".part"):
            os.unlink(path(name))


def makes_several(fmt, *options):
    """An image of several files over an older one of the same names: it is the old one, or the new one, or for a moment
    neither, but never files of both."""
    def test():
        folder = path("several")
        target = os.path.join(folder, "disk." + fmt)
        arguments = ["convert", "-f", "raw", "-O", fmt, *options, path("top.raw"), target]

        def shown():
            return [name for name in ("base.raw", "top.raw")
                    if judge("compare", "-f", "raw", "-F", fmt, path(name), target).returncode == 0]

        def prepare():
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
            make("convert", "-f", "raw", "-O", fmt, *options, path("base.raw"), target)
        for seconds in moments(arguments, prepare):
            prepare()
            run_and_kill(arguments, seconds)
            assert shown() or not os.path.exists(target), os.listdir(folder)
        prepare()
        before = sorted(os.listdir(folder))
        assert shown() == ["base.raw"]
        tool(*arguments)
        assert shown() == ["top.raw"] and sorted(os.listdir(folder)) == before, os.listdir(folder)
        shutil.rmtree(folder)
    return test


def changes(arguments, files, verify_killed, verify_done):
    """A command that changes copies of `files` in place."""
    def prepare():
        for name in files:
            shutil.copyfile(path(name), path("work-" + name))
        if "over.qcow2" in files and "base.qcow2" in files:
            judge("rebase", "-u", "-f", "qcow2", "-b", path("work-base.qcow2"), "-F", "qcow2", path("work-over.qcow2"))

    for seconds in moments(arguments, prepare):
        prepare()
        if run_and_kill(arguments, seconds):
            verify_killed()
            tool(*arguments)
        verify_done()
    for name in files:
        os.unlink(path("work-" + name))


def shows(name, raw, fmt="qcow2"):
    def verify(*_):
        clean(path(name), fmt)
        same(path(name), path(raw))
    return verify


def test_create_preallocated():
    def verify(target):
        clean(target)
        assert '"virtual-size": 100663296' in judge("info", "--output=json", target).stdout
    makes(path("new.qcow2"), ["create", "-q", "-f", "qcow2", "-o", "preallocation=full", path("new.qcow2"), "96M"],
          verify)


def test_create_raw():
    makes(path("new.raw"), ["create", "-q", "-f", "raw", "-o", "preallocation=full", path("new.raw"), "96M"],
          lambda target: None if os.path.getsize(target) == SIZE else 1 / 0)


def convert_to(fmt, *options):
    def test():
        target = path("new." + fmt)

        def verify(*_):
            if fmt in ("qcow2", "vmdk", "vhdx", "vdi"):
                clean(target, fmt)
            r = judge("compare", "-f", "raw", "-F", fmt, path("top.raw"), target)
            assert r.returncode == 0, r.stdout + r.stderr
        makes(target, ["convert", "-f", "raw", "-O", fmt, *options, path("top.raw"), target], verify)
    return test


def test_commit():
    files = ["base.qcow2", "over.qcow2"]

    def killed():
        clean(path("work-base.qcow2"))
        shows("work-over.qcow2", "top.raw")()

    def done():
        shows("work-base.qcow2", "top.raw")()
        shows("work-over.qcow2", "top.raw")()
    changes(["commit", "-q", "-f", "qcow2", path("work-over.qcow2")], files, killed, done)


def test_rebase():
    verify = shows("work-over.qcow2", "top.raw")
    changes(["rebase", "-f", "qcow2", "-b", path("other.qcow2"), "-F", "qcow2", path("work-over.qcow2")],
            ["base.qcow2", "over.qcow2"], verify, verify)


def test_flatten():
    verify = shows("work-over.qcow2", "top.raw")
    changes(["rebase", "-f", "qcow2", "-b", "", path("work-over.qcow2")], ["base.qcow2", "over.qcow2"], verify, verify)


def test_resize():
    def killed():
        clean(path("work-other.qcow2"))
        assert judge("compare", path("work-other.qcow2"), path("top.raw")).returncode == 0
    changes(["resize", "-q", "-f", "qcow2", "--preallocation=full", path("work-other.qcow2"), "200M"], ["other.qcow2"],
            killed, killed)


def test_amend():
    verify = shows("work-other.qcow2", "top.raw")
    changes(["amend", "-q", "-f", "qcow2", "-o", "compat=0.10", path("work-other.qcow2")], ["other.qcow2"], verify, verify)


def test_amend_refcount_bits():
    verify = shows("work-other.qcow2", "top.raw")
    changes(["amend", "-q", "-f", "qcow2", "-o", "refcount_bits=64", path("work-other.qcow2")], ["other.qcow2"], verify,
            verify)


def test_snapshots():
    """Between the raised refcounts and the "copied" flags that go with them qemu-img sees errors, in images that it was
    killed over as well; ruche-img sees the leak that it is."""
    def verify():
        r = subprocess.run([TOOL, "check", "-f", "qcow2", path("work-other.qcow2")], capture_output=True, text=True,
                           timeout=600, check=False)
        assert r.returncode in (0, 3), r.stdout[:500] + r.stderr[:500]
        same(path("work-other.qcow2"), path("top.raw"))

    for i in range(ROUNDS * 3):
        shutil.copyfile(path("other.qcow2"), path("work-other.qcow2"))
        for verb in (["-c", "a"], ["-c", "b"], ["-a", "a"], ["-d", "a"], ["-d", "b"]):
            if run_and_kill(["snapshot", *verb, path("work-other.qcow2")], CHANCE.random() * 0.03):
                verify()
                break
    verify()
    os.unlink(path("work-other.qcow2"))


def test_repair():
    """check -r all of an image whose refcounts are gone."""
    def prepare():
        shutil.copyfile(path("other.qcow2"), path("work-other.qcow2"))
        with open(path("work-other.qcow2"), "r+b") as f:
            f.seek(2 << 16)
            f.write(bytes(1 << 15))
    arguments = ["check", "-q", "-r", "all", "-f", "qcow2", path("work-other.qcow2")]
    for seconds in moments(arguments, prepare):
        prepare()
        run_and_kill(arguments, seconds)
        tool(*arguments)
        shows("work-other.qcow2", "top.raw")()
    os.unlink(path("work-other.qcow2"))


def no_space(fmt):
    """A file size limit in the middle of it."""
    def test():
        target = path("full." + fmt)
        with open(target, "w", encoding="ascii") as f:
            f.write("old")
        for limit in (0, 100 << 10, 5 << 20, 12 << 20):
            r = subprocess.run([TOOL, "convert", "-f", "raw", "-O", fmt, path("top.raw"), target], capture_output=True,
                               text=True, timeout=600, check=False,
                               preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
            assert r.returncode == 1 and "No space left on device" in r.stderr, f"{limit}: {r.returncode} {r.stderr}"
            with open(target, "rb") as f:
                assert f.read() == b"old"
            parts = [name for name in os.listdir(FOLDER.name) if name.endswith(".part")]
            assert not parts, f"{limit}: {parts}"
    return test


def main():
    fixtures()
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    tests = {f"convert to {fmt}": convert_to(fmt, *options) for fmt, options in {
        "qcow2": [], "raw": [], "vmdk": [], "vdi": [], "vhdx": [], "vpc": ["-o", "force_size=on"]}.items()}
    tests["convert compressed"] = convert_to("qcow2", "-c")
    os.makedirs(path("several"))
    tests |= {f"convert to {fmt} of several files, {what}": makes_several(fmt, "-o", options) for what, fmt, options in (
        ("flat", "vmdk", "subformat=monolithicFlat"), ("split", "vmdk", "subformat=twoGbMaxExtentSparse"),
        ("data file", "qcow2", f"data_file={path('several/disk.data')}"))}
    tests |= {f"no space for {fmt}": no_space(fmt) for fmt in ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx")}
    tests |= {name[5:].replace("_", " "): f for name, f in globals().items() if name.startswith("test_")}
    tap.run({name: f for name, f in tests.items() if only in name})


main()
