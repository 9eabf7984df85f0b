#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""SIGKILL of ruched at random moments, while eight clients define, start, stop and undefine.

    manager_kill.py RUCHED RUCHE-VMM KERNEL [KILLS [SEED]]

What a client was told is so after each restart; what it was not told is as it was, or done. At the end no process, no
file and no name is left over.
"""
import glob
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402

RUCHED, VMM, KERNEL = (os.path.abspath(p) for p in sys.argv[1:4])
KILLS = int(sys.argv[4]) if len(sys.argv) > 4 else 120
SEED = int(sys.argv[5]) if len(sys.argv) > 5 else int(time.time())
CLIENTS, NAMES = 8, 3
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-mkill-")
VMM = shutil.copy(VMM, os.path.join(FOLDER.name, "ruche-vmm"))  # by its path, our machines are told from others
RUN, STATE = os.path.join(FOLDER.name, "run"), os.path.join(FOLDER.name, "state")
URI = f"qemu+unix:///system?socket={RUN}/libvirt-sock"
XML = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='microvm'>hvm</type><kernel>{kernel}</kernel></os>
<devices><emulator>{vmm}</emulator><memballoon model='none'/></devices></domain>"""

# What a name can be.
NONE, OFF, ON, MOVING = "undefined", "shut off", "active", "active, transient"
# From what each operation leads where.
OPERATIONS = {
    "define": {NONE: OFF, OFF: OFF, ON: ON, MOVING: ON},
    "start": {OFF: ON},
    "create": {NONE: MOVING, OFF: ON},
    "destroy": {ON: OFF, MOVING: NONE},
    "undefine": {OFF: NONE, ON: MOVING},
}


class Manager:
    """The daemon, ended and begun again."""

    def __init__(self):
        self.process, self.slowest = None, 0.0
        self.log = open(os.path.join(FOLDER.name, "log"), "w+", encoding="utf-8")
        self.begin()

    def begin(self):
        began = time.monotonic()
        self.process = subprocess.Popen([RUCHED, "--system", "--runtime-dir", RUN, "--state-dir", STATE],
                                        stderr=self.log, start_new_session=True)
        while not self.answers():
            assert self.process.poll() is None, "ruched ended: " + self.said()
            assert time.monotonic() - began < 120, "ruched does not answer: " + self.said()
            time.sleep(0.005)
        self.slowest = max(self.slowest, time.monotonic() - began)

    @staticmethod
    def answers():
        import socket
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.connect(f"{RUN}/libvirt-sock")
            except OSError:
                return False
        return True

    def kill(self):
        assert self.process.poll() is None, "ruched ended by itself: " + self.said()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def said(self):
        self.log.flush()
        with open(self.log.name, encoding="utf-8") as f:
            return f.read()[-2000:]


class Client(threading.Thread):
    """Works on names of its own, and knows what each may be: one state, or two after a call without an answer."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.chance = random.Random(SEED * 100 + number)
        self.may = {f"c{number}-{i}": {NONE} for i in range(NAMES)}
        self.ids = {name: str(uuid.UUID(int=self.chance.getrandbits(128), version=4)) for name in self.may}
        self.connection, self.calls, self.checks, self.wrong, self.stop = None, 0, 0, [], False

    def look(self, name):
        try:
            d = self.connection.lookupByName(name)
            active, persistent = d.isActive(), d.isPersistent()
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return NONE
            raise
        return (ON if persistent else MOVING) if active else OFF

    def connect(self):
        while not self.stop:
            try:
                self.connection = libvirt.open(URI)
                return
            except libvirt.libvirtError:
                time.sleep(0.01)

    def check(self):
        """What is there now is one of what may be; and from here on it is known."""
        for name, may in self.may.items():
            found = self.look(name)
            if found not in may:
                self.wrong.append(f"{name} is '{found}' and should be {sorted(may)}")
            self.may[name] = {found}
            self.checks += 1

    def call(self, operation, name):
        xml = XML.format(name=name, uuid=self.ids[name], kernel=KERNEL, vmm=VMM)
        c = self.connection
        if operation == "define":
            c.defineXML(xml)
        elif operation == "create":
            c.createXML(xml, libvirt.VIR_DOMAIN_START_PAUSED)
        elif operation == "start":
            c.lookupByName(name).createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        else:
            getattr(c.lookupByName(name), operation)()

    def step(self):
        name = self.chance.choice(list(self.may))
        (now,) = self.may[name]
        operation = self.chance.choice([o for o, rows in OPERATIONS.items() if now in rows])
        after = OPERATIONS[operation][now]
        self.may[name] = {now, after}
        self.call(operation, name)
        self.may[name] = {after}
        self.calls += 1

    def lost(self, e):
        """Is this the end of the connection?"""
        return e.get_error_domain() == libvirt.VIR_FROM_RPC or "socket" in str(e) or not self.connection.isAlive()

    def run(self):
        while not self.stop:
            self.connect()
            try:
                self.check()
                while not self.stop:
                    self.step()
            except libvirt.libvirtError as e:
                try:
                    if not self.lost(e):
                        self.wrong.append(str(e))
                except libvirt.libvirtError:
                    pass


def machines():
    """Processes of ruche-vmm that are ours."""
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as f:
                line = f.read()
        except OSError:
            continue
        if line.startswith(os.fsencode(VMM)):
            found.append(int(path.split("/")[2]))
    return found


def left_over():
    """Files of domains in the folders of what is defined and what runs."""
    kept = ("ruched.pid", "libvirt-sock", "libvirt-sock-ro", "ruche.sock", "autostarted")
    files = [p for p in glob.glob(f"{RUN}/**", recursive=True, include_hidden=True) if os.path.isfile(p) or os.path.islink(p)]
    files += glob.glob(f"{STATE}/config/domains/*", include_hidden=True) + glob.glob(f"{STATE}/config/autostart/*")
    return [f for f in files if os.path.basename(f) not in kept]


def storm(manager, clients):
    chance = random.Random(SEED)
    for c in clients:
        c.start()
    for number in range(KILLS + 1):
        time.sleep(chance.choice((0.1, 0.3, 0.6, 1.0)) * chance.random())
        end = time.monotonic() + 120
        while sum(c.calls for c in clients) <= number:  # on a slow host they need longer
            assert time.monotonic() < end, "clients get nothing done: " + "\n".join(w for c in clients for w in c.wrong[:3])
            time.sleep(0.005)
        if number < KILLS:
            manager.kill()
            manager.begin()
    for c in clients:
        c.stop = True
    for c in clients:
        c.join(300)
        assert not c.is_alive(), "a client hangs"
    wrong = [w for c in clients for w in c.wrong]
    calls, checks = sum(c.calls for c in clients), sum(c.checks for c in clients)
    print(f"# {KILLS} kills, {calls} calls done, {checks} states checked, slowest start {manager.slowest:.2f} s, seed {SEED}")
    assert not wrong, "\n".join(wrong[:10])
    assert calls > KILLS, f"only {calls} calls were done"


def after(manager):
    """One more death; then what the manager knows and what runs are the same, and all of it can be taken away."""
    manager.kill()
    manager.begin()
    c = libvirt.open(URI)
    active = c.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    assert len(machines()) == len(active), f"{len(machines())} processes, {len(active)} active domains"
    for d in c.listAllDomains():
        persistent = d.isPersistent()
        if d.isActive():
            d.destroy()
        if persistent:
            d.undefine()
    assert not c.listAllDomains(), "domains are left"
    assert not machines(), f"processes are left: {machines()}"
    end = time.monotonic() + 60
    while left_over() and time.monotonic() < end:  # files go a moment after the answer
        time.sleep(0.01)
    assert not left_over(), f"files are left: {left_over()}"
    c.close()


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    manager = Manager()
    clients = [Client(i) for i in range(CLIENTS)]
    try:
        tap.run({"eight clients, and what they were told is so": lambda: storm(manager, clients),
                 "nothing is left over": lambda: after(manager)})
    finally:
        manager.kill()
        for pid in machines():
            os.kill(pid, signal.SIGKILL)


main()
