#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""ruched's start and end: options, settings, one per folder, to the background and back, and what stays.

    ruched_run.py RUCHED RUCHE-VMM KERNEL
"""
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402

RUCHED, VMM, KERNEL = (os.path.abspath(p) for p in sys.argv[1:4])
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-run-")
RUN, STATE = os.path.join(FOLDER.name, "run"), os.path.join(FOLDER.name, "state")
PLACE = ["--runtime-dir", RUN, "--state-dir", STATE]
XML = f"""<domain type='qemu'><name>NAME</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>{KERNEL}</kernel></os>
<devices><emulator>{VMM}</emulator><memballoon model='none'/></devices></domain>"""


def ruched(*options):
    return subprocess.run([RUCHED, *options], capture_output=True, text=True, timeout=300, check=False)


def start(*more):
    """In the background: what comes back is ready."""
    r = ruched("--daemon", *PLACE, *more)
    assert r.returncode == 0, r.stderr
    with open(f"{RUN}/ruched.pid", encoding="utf-8") as f:
        return int(f.read())


def stop(pid, how=signal.SIGTERM):
    os.kill(pid, how)
    for _ in range(12000):
        if tap.has_ended(pid):
            return
        time.sleep(0.01)
    raise AssertionError("it does not end")


def client():
    return libvirt.open(f"qemu+unix:///system?socket={RUN}/libvirt-sock")


def refused(part, *options, status=2):
    r = ruched(*options)
    assert r.returncode == status and part in r.stderr, (r.returncode, r.stderr)


def settings(text):
    path = os.path.join(FOLDER.name, "settings")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def test_options():
    assert ruched("--version").stdout.startswith("ruched ")
    words = ruched("--help").stdout
    assert "--runtime-dir" in words and "[libvirt]" in words and "tls_ca" in words
    refused("--nothing", "--nothing")
    refused("exclude each other", "--system", "--session")
    refused("'word'", "word")


def test_settings():
    refused("/nowhere", "--config", "/nowhere", *PLACE)
    refused("[rest] has no key 'colour'", "--config", settings("[rest]\ncolour=red\n"), *PLACE)
    refused("'nome' is no way to authenticate", "--config", settings("[libvirt]\nauth_unix_rw=nome\n"), *PLACE)
    refused("'here' is not HOST:PORT", "--config", settings("[libvirt]\ntcp=here\n"), *PLACE)
    refused("[libvirt] max_clients: -1", "--config", settings("[libvirt]\nmax_clients=-1\n"), *PLACE)
    refused("has no key", "--config", settings("[nothing]\na=b\n"), *PLACE)


def test_one():
    pid = start()
    try:
        refused("another ruched looks after", *PLACE, status=1)
        assert client().getLibVersion() == 9000000
        modes = [oct(os.stat(f"{RUN}/{n}").st_mode & 0o777) for n in ("ruche.sock", "libvirt-sock", "libvirt-sock-ro")]
        print("#", modes)
    finally:
        stop(pid)
    assert not [n for n in os.listdir(RUN) if "sock" in n], os.listdir(RUN)


def test_stays():
    """A machine, its number and its state outlive the manager; what is stored is there again."""
    pid = start()
    c = client()
    web = c.defineXML(XML.replace("NAME", "web"))
    web.create()
    web.suspend()
    moving = c.createXML(XML.replace("NAME", "moving"), libvirt.VIR_DOMAIN_START_PAUSED)
    known = [(d.name(), d.ID(), d.state(), d.isPersistent(), d.UUIDString()) for d in (web, moving)]
    c.close()
    for how in (signal.SIGTERM, signal.SIGKILL):
        stop(pid, how)
        pid = start()
        c = client()
        now = [(d.name(), d.ID(), d.state(), d.isPersistent(), d.UUIDString())
               for d in (c.lookupByName("web"), c.lookupByName("moving"))]
        assert now == known, (now, known)
        c.close()
    c = client()
    c.lookupByName("moving").destroy()
    web = c.lookupByName("web")
    web.resume()
    assert web.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_UNPAUSED], web.state()
    web.destroy()
    assert [d.name() for d in c.listAllDomains()] == ["web"]
    c.close()
    stop(pid)


def test_autostart():
    pid = start()
    c = client()
    c.lookupByName("web").setAutostart(1)
    c.close()
    stop(pid)
    os.unlink(f"{RUN}/autostarted")  # as after a boot of the host
    pid = start()
    c = client()
    web = c.lookupByName("web")
    for _ in range(6000):
        if web.isActive():
            break
        time.sleep(0.02)
    assert web.isActive() and web.autostart()
    web.destroy()
    c.close()
    time.sleep(0.2)
    stop(pid)
    pid = start()  # the same boot: it stays as it is
    c = client()
    time.sleep(0.3)
    web = c.lookupByName("web")
    assert not web.isActive()
    web.undefine()
    c.close()
    stop(pid)
    assert not os.listdir(f"{STATE}/config/autostart") and not os.listdir(f"{STATE}/config/domains")
    with open(f"{STATE}/log/audit.log", encoding="utf-8") as f:
        lines = [line for line in f.read().splitlines() if "'web'" in line]
    assert 'via=unix' in lines[0] and 'operation="define" object="domain \'web\'" result=done' in lines[0], lines[0]


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    tap.run({"options": test_options, "settings": test_settings, "one per folder": test_one,
             "what runs stays": test_stays, "autostart once per boot": test_autostart})


main()
