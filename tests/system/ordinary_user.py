#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche` and the manager that it starts, as a user without any right of the host: from the first command to a machine that
runs, is seen, reached and ended; what he may not do is a sentence; nobody else sees what is his. TAP.

    ordinary_user.py RUCHE KERNEL RECIPES [debian]

The programs are copied, so that he may run them wherever they were built. With the word, Debian is launched, too, of the image
that ruche_cli.py keeps.
"""
import glob
import hashlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import tap

RUCHE, KERNEL, RECIPES = (os.path.abspath(p) for p in sys.argv[1:4])
USER, OTHER = 65534, 65533  # "nobody", as ssh wants a user that it finds
WORK = tempfile.mkdtemp(prefix="ruche-user-")
HOME, BIN = os.path.join(WORK, "home"), os.path.join(WORK, "bin")
RUN = os.path.join(HOME, ".cache/ruche")  # there is no XDG_RUNTIME_DIR
STATE = os.path.join(HOME, ".local/share/ruche")
ENV = {"HOME": HOME, "PATH": f"{BIN}:/usr/bin:/bin:/usr/sbin:/sbin", "LANG": "C.UTF-8", "TERM": "xterm"}
DROP = ["setpriv", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]


def person(uid=USER):
    return [*DROP, f"--reuid={uid}", f"--regid={uid}"]


def run(*words, status=0, uid=USER, seconds=600, text=None):
    done = subprocess.run([*person(uid), *words], capture_output=True, text=True, timeout=seconds, check=False, env=ENV, cwd="/",
                          input=text, stdin=None if text else subprocess.DEVNULL)
    assert status is None or done.returncode == status, f"{' '.join(words)} ended with {done.returncode}: {done.stdout}{done.stderr}"
    return done


def ruche(*words, **more):
    return run("ruche", *words, **more).stdout


def refused(part, *words, status=1):
    """One sentence, that says why."""
    said = run("ruche", *words, status=status).stderr
    assert said.startswith("ruche: ") and part in said and said.count("\n") == 1, said


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words):
        self.fd, slave = os.openpty()
        os.fchown(slave, USER, USER)
        self.process = subprocess.Popen([*person(), *words], stdin=slave, stdout=slave, stderr=slave, env=ENV, cwd="/", start_new_session=True)
        os.close(slave)
        self.text = ""

    def until(self, pattern, seconds=300):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"no '{pattern}' in {self.text!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"it ended without '{pattern}': {self.text!r}") from None

    def leave(self):
        tap.wait_raw(self.fd)
        os.write(self.fd, b"\x1d")
        assert self.process.wait(120) == 0
        os.close(self.fd)


def first_words():
    assert "usage: ruche COMMAND" in ruche("--help") and "usage: ruche launch" in ruche("launch", "--help")
    assert not os.path.exists(RUN), "help started a manager"
    refused("usage: ruche launch IMAGE", "launch", status=2)
    assert ruche("list").startswith("ID  NAME")
    assert "(session)" in ruche("version") and "qemu+unix:///session?socket=" in ruche("host", "--uri")
    assert ruche("images") == "debian\n"
    refused("known: debian", "launch", "nothere")
    refused("Permission denied", "launch", os.path.join(WORK, "secret.img"))
    refused("no domain", "info", "nobody")
    said = run("ruche", "--connect", "system", "list", status=1).stderr
    assert said.startswith("ruche: ") and said.count("\n") <= 2, said


def image(name, size="16M"):
    path = os.path.join(HOME, name)
    run("ruche-img", "create", "-q", "-f", "qcow2", path, size)
    return path


def processes(program):
    """(pid, uid) of the programs of this test."""
    found = []
    for status in glob.glob("/proc/[0-9]*/status"):
        try:
            if os.readlink(os.path.join(os.path.dirname(status), "exe")) == os.path.join(BIN, program):
                with open(status, encoding="utf-8") as f:
                    found.append((int(status.split("/")[2]), int(re.search(r"^Uid:\s+(\d+)", f.read(), re.MULTILINE).group(1))))
        except OSError:
            continue
    return found


def small_machine():
    said = ruche("launch", image("base.qcow2"), "--name", "small", "--kernel", os.path.join(BIN, "loop.elf"), "--memory", "64M", "--network", "user")
    assert "machine 'small' runs" in said, said
    assert ruche("list").splitlines()[1].split()[1:4] == ["small", "running", "1"]
    assert [uid for _, uid in processes("ruche-vmm")] == [USER] and [uid for _, uid in processes("ruched")] == [USER]
    info = ruche("info", "small")
    assert re.search(r"^ssh +ruche@127\.0\.0\.1 port \d+$", info, re.MULTILINE) and "user 52:54:00" in info, info
    console = Terminal("ruche", "console", "small")
    console.until("Ctrl-] leaves")
    console.leave()
    refused("does not answer SSH", "ssh", "--wait", "1", "small", "true")
    uri = ruche("host", "--uri").strip()
    listed = run("virsh", "-c", uri, "list").stdout
    assert re.search(r"1 +small +running", listed), listed
    ruche("pause", "small")
    assert "paused" in ruche("list")
    ruche("resume", "small")
    refused("a machine 'small' already", "launch", image("other.qcow2"), "--name", "small", "--kernel", os.path.join(BIN, "loop.elf"))
    refused("use type 'user'", "launch", image("third.qcow2"), "--name", "bridged", "--kernel", os.path.join(BIN, "loop.elf"), "--network", "bridge:br0")
    refused("runs: shut it down first", "delete", "small")


def nobody_else():
    """Folders and sockets are his alone, even where his home is open to all."""
    for folder in (RUN, STATE, os.path.join(HOME, ".config/ruche")):
        assert os.stat(folder).st_mode & 0o77 == 0, f"{folder} is open to others"
    os.chmod(HOME, 0o755)
    opened = [HOME + "/.cache", RUN]
    for folder in opened:
        os.chmod(folder, 0o755)
    try:
        for name in ("libvirt-sock", "libvirt-sock-ro", "ruche.sock"):
            os.chmod(os.path.join(RUN, name), 0o777)  # more than he would ever do
        for name in ("libvirt-sock", "libvirt-sock-ro"):
            more = ["-r"] if name.endswith("ro") else []
            done = run("virsh", *more, "-c", f"qemu+unix:///session?socket={RUN}/{name}", "list", uid=OTHER, status=1)
            assert f"user {OTHER} may not use this socket" in done.stderr, done.stderr
    finally:
        for folder in opened:
            os.chmod(folder, 0o700)
        os.chmod(HOME, 0o700)


def stays_and_ends():
    """Machines outlive the manager; the end leaves nothing that runs."""
    ((manager, _),) = processes("ruched")
    os.kill(manager, signal.SIGKILL)
    wait(lambda: tap.has_ended(manager), "the manager's end")
    assert "small" in ruche("list")
    ruche("destroy", "small")
    assert not processes("ruche-vmm")
    ruche("delete", "small")
    assert ruche("list", "--all", "--names") == "" and os.listdir(os.path.join(STATE, "machines")) == []


def debian():
    cache = os.environ.get("RUCHE_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ruche")
    os.makedirs(os.path.join(STATE, "images"), exist_ok=True)
    os.chown(os.path.join(STATE, "images"), USER, USER)
    with open(os.path.join(RECIPES, "debian"), "rb") as f:
        kept = os.path.join(cache, f"debian-{hashlib.sha256(f.read()).hexdigest()[:12]}")
    if not os.path.isdir(kept):
        raise tap.Skip(f"{cache} has no Debian that this 'ruche launch' made")
    here = os.path.join(STATE, "images", os.path.basename(kept))
    subprocess.run(["cp", "-r", "--sparse=always", "--reflink=auto", kept, here + ".part"], check=True)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", here + ".part"], check=True)
    os.rename(here + ".part", here)
    ruche("launch", "debian", "--name", "demo", "--memory", "512M", seconds=2400)
    said = ruche("ssh", "--wait", "1200", "demo", "id -un; cat /etc/debian_version", seconds=1500)
    assert said.startswith("ruche\n12."), said
    ruche("shutdown", "demo")
    wait(lambda: "shut off" in ruche("list", "--all"), "the guest's power-off", 600)
    ruche("delete", "demo")


def wait(test, what, seconds=120):
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)


def begin():
    os.chmod(WORK, 0o755)
    os.makedirs(BIN)
    os.mkdir(HOME, 0o700)
    os.chown(HOME, USER, USER)
    built = os.path.dirname(RUCHE)
    for program in ["ruche", "ruched", "ruche-vmm", "ruche-img"] + [os.path.basename(m) for m in glob.glob(built + "/*.so")]:
        shutil.copy(os.path.join(built, program), BIN)
    shutil.copy(KERNEL, os.path.join(BIN, "loop.elf"))
    shutil.copytree(RECIPES, os.path.join(BIN, "images"))
    with open(os.path.join(WORK, "secret.img"), "wb") as f:
        f.truncate(1 << 20)
    os.chmod(os.path.join(WORK, "secret.img"), 0o600)


def end():
    for program in ("ruched", "ruche-vmm"):
        for pid, _ in processes(program):
            os.kill(pid, signal.SIGKILL)
            wait(lambda pid=pid: tap.has_ended(pid), f"the end of {program}")
    shutil.rmtree(WORK, ignore_errors=True)


def main():
    if os.geteuid():
        print("1..0 # SKIP only root can become an ordinary user")
        return
    try:
        begin()
        tests = {"first words": first_words, "a small machine": small_machine, "nobody else": nobody_else, "what stays, and the end": stays_and_ends}
        tap.run(tests | ({"Debian": debian} if "debian" in sys.argv[4:] else {}))
    finally:
        end()


main()
