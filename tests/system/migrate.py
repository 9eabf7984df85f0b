#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that are saved, restored and moved while their guest works.

    migrate.py RUCHE-VMM PAYLOAD    the payload is tests/guest/migrate.c, which knows what its memory and disk must hold
"""
import array
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import Qmp, Vmm  # noqa: E402

BINARY, PAYLOAD = sys.argv[1:3]
FOLDER = tempfile.mkdtemp(prefix="ruche-migrate-")
MIB = 1 << 20
PATIENCE = 300


def path(name):
    return os.path.join(FOLDER, name)


class Machine(Vmm):
    """The guest, here or expected."""

    def __init__(self, *more, pages=1024, every=20000, disk=None, depth=1, drive="", device="", words="", memory=64, accel="soft", smp=1,
                 binary=BINARY):
        if disk:
            every //= 10  # three requests each 64 steps
        arguments = ["-accel", accel, "-m", str(memory), "-smp", str(smp), "-monitor", "none", "-kernel", PAYLOAD,
                     "-append", f"x pages={pages} every={every} disk={depth if disk or drive else 0} {words}",
                     "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        if disk:
            arguments += ["-drive", f"file={disk[0]},format={disk[1]},if=none,id=d{drive}",
                          "-device", f"virtio-blk-pci,drive=d,id=vd{device}"]
        super().__init__(binary, arguments + list(more))
        self.step = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def do(self, command, **arguments):
        return self.qmp.execute(command, 120, **arguments)

    def refused(self, command, **arguments):
        reply = self.qmp.call(command, 120, **arguments)
        assert "error" in reply, f"{command} was not refused: {reply}"
        return reply["error"]["desc"]

    def works(self, count=2):
        """The guest goes on, from where it was."""
        for _ in range(count):
            step = int(self.console.expect(r"step (\d+)\n|broken", PATIENCE).group(1) or 0)
            assert step > self.step, f"after step {self.step} comes {step}:\n{self.console.text[-1000:]}"
            self.step = step

    def status(self):
        return self.do("query-status")["status"]

    def wait_status(self, *wanted, seconds=PATIENCE):
        """Until query-migrate says one of them."""
        end = time.monotonic() + seconds
        while True:
            info = self.do("query-migrate")
            if info.get("status") in wanted:
                return info
            assert time.monotonic() < end, f"the migration is not {wanted}: {info}"
            assert info.get("status") not in ("failed", "cancelled", "completed"), f"not {wanted}: {info}"
            time.sleep(0.01)

    def send_fd(self, name, fd):
        """getfd, with the descriptor."""
        message = json.dumps({"execute": "getfd", "arguments": {"fdname": name}}).encode() + b"\n"
        self.qmp.socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        reply = self.qmp.read(60)
        while "event" in reply:
            self.qmp.events.append(reply)
            reply = self.qmp.read(60)
        assert reply == {"return": {}}, reply

    def unlimited(self):
        self.do("migrate-set-parameters", max_bandwidth=0)

    def save(self, uri):
        self.unlimited()
        self.do("migrate", uri=uri)
        return self.wait_status("completed")

    def goes_on_after(self, other):
        """With the other's count of steps."""
        self.step = other.step


def qemu_img(*arguments):
    """The kernel lets go of a killed machine's disk when its last requests have ended, which may be a moment after its end."""
    end = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(("qemu-img",) + arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode == 0:
            return
        assert "lock" in done.stderr and time.monotonic() < end, done.stderr
        time.sleep(0.05)


def new_disk(form="qcow2"):
    name = path(f"disk.{form}")
    qemu_img("create", "-q", "-f", form, name, str(4 * MIB))
    return name, form


# ---- saved to a file ----

def test_file_and_back():
    """Saved at random moments, the process ends, another goes on."""
    disk = new_disk()
    machine = Machine(disk=disk)
    machine.works(1)
    for turn in range(8):
        time.sleep(random.random() / 4)
        stopped = turn % 2
        if stopped:
            machine.do("stop")
        info = machine.save(f"file:{path('saved')}")
        assert machine.status() == "postmigrate"
        assert info["ram"]["remaining"] == 0 and info["ram"]["total"] == 64 * MIB, info
        machine.do("quit")
        assert machine.wait(PATIENCE) == 0
        after = Machine("-incoming", f"file:{path('saved')}", disk=disk)
        after.goes_on_after(machine)
        machine.close()
        machine = after
        machine.wait_status("completed")
        if stopped:
            assert machine.status() == "paused"
            machine.do("cont")
        machine.works(2)
    machine.do("quit")
    assert machine.wait(PATIENCE) == 0
    machine.close()
    qemu_img("check", "-q", disk[0])


def busy_disk(form, drive="", device="", more=()):
    """Requests are under way whenever it is saved: each ends once, here or there."""
    disk = new_disk(form)
    machine = Machine(*more, disk=disk, depth=24, drive=drive, device=device)
    machine.works(1)
    for turn in range(4):
        time.sleep(random.random() / 8)
        machine.save(f"file:{path('saved')}")
        if turn % 2:
            machine.do("cont")
            machine.works(1)
            continue
        machine.do("quit")
        assert machine.wait(PATIENCE) == 0
        after = Machine("-incoming", f"file:{path('saved')}", *more, disk=disk, depth=24, drive=drive, device=device)
        after.goes_on_after(machine)
        machine.close()
        machine = after
        machine.works(1)
    machine.works(2)
    machine.do("quit")
    assert machine.wait(PATIENCE) == 0
    machine.close()
    if form == "qcow2":
        qemu_img("check", "-q", disk[0])


def test_busy_disk():
    busy_disk("qcow2")


def test_busy_disk_on_an_iothread():
    busy_disk("raw", device=",iothread=io", more=("-object", "iothread,id=io"))


def test_throttled_disk():
    """Most of its requests wait for their turn."""
    busy_disk("qcow2", drive=",iops=300")
    busy_disk("raw", drive=",iops=300", device=",iothread=io", more=("-object", "iothread,id=io"))


def until(machine, status):
    end = time.monotonic() + PATIENCE  # perhaps before anybody listened to events
    while machine.status() != status:
        assert time.monotonic() < end, machine.status()
        time.sleep(0.01)


def test_disk_in_error():
    """A machine that failed writes stopped is saved with them; they are made again where it goes on, here as well as there."""
    for device, once in (("", "off"), (",packed=on,iothread=io", "off"), ("", "on")):
        disk = path("disk.raw"), "raw"
        qemu_img("create", "-q", "-f", "raw", disk[0], str(4 * MIB))
        fails = f",werror=stop,file.driver=blkdebug,file.inject-error.0.event=write_aio,file.inject-error.0.once={once}," \
                f"file.inject-error.0.errno=28,file.image.driver=file,file.image.filename={disk[0]}"
        fine = f",werror=stop,file.driver=file,file.filename={disk[0]}"

        def arguments(drive, *more):
            return ["-object", "iothread,id=io", "-drive", f"format=raw,if=none,id=d{drive}", "-device", f"virtio-blk-pci,drive=d,id=vd{device}", *more]
        with Machine(*arguments(fails), depth=24, every=2000, drive=fails) as machine:
            for n in range(2):
                until(machine, "io-error")
                machine.save(f"file:{path('saved')}")
                if n or once == "on":
                    break
                machine.do("cont")  # they fail again, and once more are kept
            if once == "on":
                machine.do("cont")
                machine.works()
        if once == "off":
            with Machine(*arguments(fine, "-incoming", f"file:{path('saved')}"), depth=24, every=2000, drive=fine) as machine:
                until(machine, "io-error")
                machine.save(f"file:{path('again')}")  # kept by one that has not gone on
            with Machine(*arguments(fine, "-incoming", f"file:{path('again')}"), depth=24, every=2000, drive=fine) as machine:
                until(machine, "io-error")
                machine.do("cont")
                machine.works(3)


def test_resets():
    """Saved while the guest asks for a reset: that is done, here or there, before anything else happens."""
    options = {"words": "resets=1", "every": 200, "pages": 64}

    def lives(machine):
        for _ in range(3):
            assert "step" in machine.console.expect(r"step \d+\n|broken", PATIENCE).group(0), machine.console.text[-1000:]

    machine = Machine(**options)
    lives(machine)
    for turn in range(12):
        time.sleep(random.random() / 50)
        machine.save(f"file:{path('saved')}")
        if turn % 2:
            machine.do("cont")
        else:
            machine.close()
            machine = Machine("-incoming", f"file:{path('saved')}", **options)
        lives(machine)
    machine.close()


def test_cont_after_save():
    """A machine that was saved goes on here, with its disk; what was saved is older."""
    disk = new_disk()
    with Machine(disk=disk) as machine:
        machine.works(1)
        machine.save(f"file:{path('saved')}")
        machine.do("cont")
        machine.works()
        machine.save(f"file:{path('saved')}")
        machine.do("cont")
        machine.works()


def test_descriptors():
    """fd: by getfd, out and in; an offset in a file; a command."""
    with Machine() as machine:
        machine.works(1)
        with open(path("saved"), "wb") as file:
            file.write(b"h" * 5000)
            file.flush()
            machine.send_fd("f", file.fileno())
        machine.save("fd:f")
        assert "has not been found" in machine.refused("migrate", uri="fd:f")
        machine.do("cont")
        machine.works(1)
        with open(path("piped"), "wb") as file:
            file.write(b"h" * 8192)
        machine.save(f"file:{path('piped')},offset=8192")
        machine.do("cont")
        machine.works(1)
        machine.save(f"exec:cat >{path('command')}")
    for uri in ("fd", f"file:{path('piped')},offset=8192", f"exec:cat {path('command')}"):
        with Machine("-incoming", "defer", "-S") as machine:
            assert machine.status() == "inmigrate"
            assert "incoming migration" in machine.refused("migrate", uri="exec:cat")
            if uri == "fd":
                with open(path("saved"), "rb") as file:
                    file.seek(5000)
                    machine.send_fd("f", file.fileno())
                uri = "fd:f"
            machine.do("migrate-incoming", uri=uri)
            machine.wait_status("completed")
            assert machine.status() == "paused"
            machine.do("cont")
            machine.works()


def test_other_machine_refused():
    """A file is refused by a machine that is another, in a sentence; nothing runs."""
    with Machine() as machine:
        machine.works(1)
        machine.save(f"file:{path('saved')}")
    for more, why in ((("-m", "128"), "bytes of RAM"), (("-smp", "2"), "vCPUs"), (("-machine", "microvm"), "board"),
                      (("-device", "virtio-rng-pci"), "virtio-rng-pci")):
        done = subprocess.run([BINARY, "-nodefaults", "-display", "none", "-accel", "soft", "-m", "64", "-kernel", PAYLOAD, "-device",
                               "isa-debug-exit,iobase=0xf4,iosize=4", "-incoming", f"file:{path('saved')}", *more],
                              capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1 and why in done.stderr, (more, done)


def test_user_network():
    """Its state goes along, by name; not into a network that is another."""
    net = "user,id=net0,restrict=on"
    with Machine("-netdev", net, "-device", "virtio-net-pci,netdev=net0") as machine:
        machine.works(1)
        machine.save(f"file:{path('saved')}")
        with open(path("saved"), "rb") as file:
            assert b"netdev net0" in file.read()
        with Machine("-netdev", net, "-device", "virtio-net-pci,netdev=net0", "-incoming", f"file:{path('saved')}") as after:
            after.goes_on_after(machine)
            after.wait_status("completed")
            after.works(1)
    for other, why in (("user,id=net0", "restrict=on net=10.0.2.0"), (net + ",net=10.9.0.0/24", "'restrict=on net=10.9.0.0"),
                       ("user,id=other", "'netdev net0', which this machine does not have")):
        card = "virtio-net-pci,netdev=" + other.split("id=")[1].split(",")[0]
        done = subprocess.run([BINARY, "-nodefaults", "-display", "none", "-accel", "soft", "-m", "64", "-kernel", PAYLOAD, "-device",
                               "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "null", "-netdev", other, "-device", card,
                               "-incoming", f"file:{path('saved')}"], capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 1 and why in done.stderr, (other, done)


def test_damaged_file_refused():
    """Cut or changed anywhere."""
    with Machine() as machine:
        machine.works(1)
        machine.save(f"file:{path('saved')}")
        arguments = [a for a in machine.process.args if a not in ("-incoming",)]
    with open(path("saved"), "rb") as file:
        whole = file.read()
    arguments = [BINARY, "-nodefaults", "-display", "none", "-serial", "null"] + arguments[arguments.index("-accel"):]
    for turn in range(12):
        at = random.randrange(len(whole))
        data = whole[:at] if turn % 2 else whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1:]
        with open(path("damaged"), "wb") as file:
            file.write(data)
        done = subprocess.run(arguments + ["-incoming", f"file:{path('damaged')}"], capture_output=True, text=True,
                              timeout=PATIENCE)
        assert done.returncode == 1 and "-incoming: " in done.stderr, (at, done)


# ---- while it runs ----

def live(uri_in, uri_out, disk=None, **options):
    with Machine(disk=disk, **options) as here:
        here.works(1)
        with Machine("-incoming", uri_in, disk=disk, **options) as there:
            assert there.status() == "inmigrate"
            there.goes_on_after(here)
            here.unlimited()
            here.do("migrate", uri=uri_out)
            info = here.wait_status("completed")
            assert here.status() == "postmigrate"
            there.wait_status("completed")
            there.works(3)
            assert there.status() == "running"
            return info


def test_live_unix():
    for turn in range(4):
        info = live(f"unix:{path('peer')}", f"unix:{path('peer')}", pages=(64, 1024, 4096, 8192)[turn])
        assert info["ram"]["dirty-sync-count"] >= 2, info


def test_live_shared_disk():
    """Both have the same images open; who gets the machine reads them anew, and gets the locks."""
    for form, device, more in (("qcow2", "", ()), ("raw", ",iothread=io", ("-object", "iothread,id=io")),
                               ("qcow2", ",iothread=io", ("-object", "iothread,id=io"))):
        disk = new_disk(form)
        for _ in range(2):
            machines = [Machine(*more, disk=disk, depth=24, device=device)]
            machines[0].works(1)
            for turn in range(3):
                here = machines[-1]
                there = Machine("-incoming", f"unix:{path('peer')}", *more, disk=disk, depth=24, device=device)
                machines.append(there)
                here.unlimited()
                here.do("migrate", uri=f"unix:{path('peer')}")
                here.wait_status("completed")
                there.goes_on_after(here)
                there.works(2)
                assert "cannot be taken" in here.refused("cont"), "two have the disk"
            machines[-1].do("quit")
            assert machines[-1].wait(PATIENCE) == 0
            for machine in machines:
                machine.close()
            if form == "qcow2":
                qemu_img("check", "-q", disk[0])


def nodes_on(base, overlay):
    return ["-blockdev", f"driver=file,node-name=b,filename={base},read-only=on,auto-read-only=on",
            "-blockdev", "driver=qcow2,node-name=base,file=b,read-only=on",
            "-blockdev", f"driver=file,node-name=o,filename={overlay}",
            "-blockdev", "driver=qcow2,node-name=top,file=o,backing=base",
            "-device", "virtio-blk-pci,drive=top,id=vd"]


def test_live_shared_nodes():
    """-blockdev, by names, as managers write it; the names stay."""
    base, overlay = new_disk()[0], path("overlay.qcow2")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)
    with Machine(*nodes_on(base, overlay), depth=8, drive="x") as here:
        here.works(1)
        with Machine("-incoming", "defer", *nodes_on(base, overlay), depth=8, drive="x") as there:
            there.do("migrate-incoming", uri=f"unix:{path('peer')}")
            here.unlimited()
            here.do("migrate", uri=f"unix:{path('peer')}")
            here.wait_status("completed")
            there.goes_on_after(here)
            there.works()
            names = {n["node-name"]: n["ro"] for n in there.do("query-named-block-nodes")}
            assert names == {"b": True, "base": True, "o": False, "top": False}, names
            there.do("quit")
            assert there.wait(PATIENCE) == 0
    qemu_img("check", "-q", overlay)


def test_shared_disk_not_given():
    """Somebody else has the image of the other side: this side goes on, with its own."""
    for form in ("qcow2", "raw"):
        own = new_disk(form)
        other = path(f"other.{form}"), form
        qemu_img("create", "-q", "-f", form, other[0], str(4 * MIB))
        with Machine(disk=own) as here, Machine(disk=other) as third:
            here.works(1)
            here.unlimited()
            with Machine("-incoming", f"unix:{path('peer')}", disk=other) as there:
                here.do("migrate", uri=f"unix:{path('peer')}")
                assert "other" in here.wait_status("failed")["error-desc"]
                assert there.wait(PATIENCE) == 1
            here.works()
            third.works()


def test_cancel_when_the_other_side_has_the_disk():
    """It has taken the disk and not yet heard that it may go on: this side gets the disk again."""
    disk = new_disk()
    with Machine(disk=disk) as here:
        here.works(1)
        here.unlimited()
        for _ in range(6):
            with Machine("-incoming", f"unix:{path('peer')}", disk=disk) as there:
                here.do("migrate", uri=f"unix:{path('peer')}")
                while here.status() == "running":
                    pass
                there.process.kill() if random.random() < 0.5 else here.do("migrate_cancel")
                status = here.wait_status("failed", "cancelled", "completed")["status"]
                if status == "completed":  # it was quicker
                    there.close()
                    here.do("cont")
            here.works()


def test_live_two_vcpus():
    live(f"unix:{path('peer')}", f"unix:{path('peer')}", smp=2)


def test_live_tcp():
    port = tap.free_port()
    live(f"tcp:127.0.0.1:{port}", f"tcp:127.0.0.1:{port}")


def test_rounds():
    """A guest that writes faster than the bandwidth: rounds go on until the limits change."""
    with Machine(pages=8192, every=200000) as here, Machine("-incoming", f"unix:{path('peer')}", pages=8192, every=200000) as there:
        here.works(1)
        here.do("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        here.do("migrate-set-parameters", max_bandwidth=4 * MIB, downtime_limit=1)
        here.do("migrate", uri=f"unix:{path('peer')}")
        for n in (1, 2):
            assert here.qmp.wait_event("MIGRATION_PASS", PATIENCE)["data"]["pass"] == n
        info = here.do("query-migrate")
        assert info["status"] == "active" and info["ram"]["mbps"] < 80, info
        here.works(1)
        here.do("migrate-set-parameters", max_bandwidth=0, downtime_limit=60000)
        here.wait_status("completed")
        there.goes_on_after(here)
        there.works()


# ---- what fails ----

def test_cancel():
    with Machine(pages=8192) as machine:
        machine.works(1)
        machine.do("migrate-set-parameters", max_bandwidth=MIB)
        for uri in (f"file:{path('saved')}", "exec:sleep 1000"):
            machine.do("migrate", uri=uri)
            assert "in progress" in machine.refused("migrate", uri=uri)
            time.sleep(random.random() / 4)
            machine.do("migrate_cancel")
            machine.wait_status("cancelled")
            assert machine.status() == "running"
            machine.works(1)


def test_pre_switchover():
    disk = new_disk()
    with Machine(disk=disk) as machine:
        machine.works(1)
        machine.unlimited()
        machine.do("migrate-set-capabilities", capabilities=[{"capability": "pause-before-switchover", "state": True},
                                                             {"capability": "events", "state": True}])
        assert "not in expected state" in machine.refused("migrate-continue", state="pre-switchover")
        for go in (False, True):
            machine.do("migrate", uri=f"file:{path('saved')}")
            machine.wait_status("pre-switchover")
            assert machine.status() == "finish-migrate"
            assert "not finalized" in machine.refused("cont")
            if go:
                machine.do("migrate-continue", state="pre-switchover")
                machine.wait_status("completed")
                machine.do("cont")
            else:
                machine.do("migrate_cancel")
                machine.wait_status("cancelled")
            machine.works()
        seen = [e["data"]["status"] for e in machine.qmp.events if e["event"] == "MIGRATION"]
        assert seen == ["setup", "active", "pre-switchover", "cancelling", "cancelled",
                        "setup", "active", "pre-switchover", "device", "completed"], seen


def test_target_breaks():
    """A peer that goes away, refuses, or is none; a full disk: the machine goes on here and says why."""
    disk = new_disk()
    with Machine(disk=disk) as machine:
        machine.works(1)
        machine.unlimited()

        def fails(uri, why):
            machine.do("migrate", uri=uri)
            info = machine.wait_status("failed")
            assert re.search(why, info["error-desc"]), info
            machine.works(1)

        fails(f"unix:{path('nobody')}", "nobody")
        fails("exec:exit 3", "exit status 3|Broken pipe")
        fails("exec:head -c 100000 >/dev/null", "Broken pipe")
        fails("exec:cat >/dev/null; exit 3", "exit status 3")
        fails("file:/dev/full", "No space left")
        assert "uri" in machine.refused("migrate", uri="bogus:x")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path("rude"))
        listener.listen()
        machine.do("migrate", uri=f"unix:{path('rude')}")
        peer, _ = listener.accept()
        peer.recv(4096)
        peer.close()
        machine.wait_status("failed")
        machine.works(1)
        with Machine("-incoming", f"unix:{path('peer')}", memory=128) as other:
            fails(f"unix:{path('peer')}", "bytes of RAM")
            assert other.wait(PATIENCE) == 1
        with Machine("-incoming", f"unix:{path('killed')}") as other:
            machine.do("migrate-set-parameters", max_bandwidth=MIB)
            machine.do("migrate", uri=f"unix:{path('killed')}")
            machine.wait_status("active", "failed")
            other.process.kill()
            machine.wait_status("failed")
            machine.works()


def test_full_disk():
    with Machine(pages=8192) as machine:
        machine.works(1)
        folder = path("small")
        os.mkdir(folder)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True).returncode:
            raise tap.Skip("no file system can be mounted here")
        try:
            machine.do("migrate", uri=f"file:{folder}/saved")
            info = machine.wait_status("failed")
            assert "No space left" in info["error-desc"], info
            machine.works()
        finally:
            subprocess.run(["umount", folder], check=True)


# ---- descriptors and cores ----

def test_getfd_over_a_chardev():
    """A monitor on a chardev takes descriptors, too."""
    monitor = f"socket,id=c,path={path('monitor')},server=on,wait=off"
    with Machine("-chardev", monitor, "-mon", "chardev=c,mode=control") as machine:
        machine.qmp.close()
        machine.qmp = Qmp(path("monitor"), process=machine.process)
        with open(path("saved"), "wb") as file:
            machine.send_fd("f", file.fileno())
        machine.save("fd:f")
        with open(path("saved"), "rb") as file:
            assert file.read(8) == b"RUCHEVM\n"


def test_core():
    """readelf sees the vCPUs' notes and RAM; the machine goes on."""
    readelf = shutil.which("readelf")
    if not readelf:
        raise tap.Skip("there is no readelf")
    with Machine(smp=2) as machine:
        machine.works(1)
        assert machine.do("query-dump")["status"] == "none"
        machine.do("dump-guest-memory", paging=False, protocol=f"file:{path('core')}", detach=True)
        result = machine.qmp.wait_event("DUMP_COMPLETED", PATIENCE)["data"]["result"]
        assert result == {"status": "completed", "completed": 64 * MIB, "total": 64 * MIB}, result
        assert os.path.getsize(path("core")) >= 64 * MIB
        out = subprocess.run([readelf, "-lhn", path("core")], capture_output=True, text=True, check=True).stdout
        assert out.count("NT_PRSTATUS") == 2 and out.count("QEMU") == 2 and len(re.findall(r"^  LOAD", out, re.M)) == 1, out
        machine.do("dump-guest-memory", paging=False, protocol=f"file:{path('core')}", begin=16 * MIB, length=8192)
        machine.do("stop")
        machine.do("pmemsave", val=16 * MIB, size=8192, filename=path("piece"))
        machine.do("dump-guest-memory", paging=False, protocol=f"file:{path('core')}", begin=16 * MIB, length=8192)
        with open(path("core"), "rb") as core, open(path("piece"), "rb") as piece:
            assert core.read()[-8192:] == piece.read()
        assert "paging" in machine.refused("dump-guest-memory", paging=True, protocol=f"file:{path('core')}")
        assert "No space" in machine.refused("dump-guest-memory", paging=False, protocol="file:/dev/full")
        machine.do("cont")
        machine.works()


# ---- beside QEMU ----

def test_names_beside_qemu():
    """Each field that we show is one of QEMU's, and none of QEMU's is missing."""
    qemu = shutil.which("qemu-system-x86_64")
    if not qemu:
        raise tap.Skip("there is no qemu-system-x86_64")
    shapes = []
    for binary, accel in ((BINARY, "soft"), (qemu, "tcg")):
        vmm = Vmm(binary, ["-accel", accel, "-m", "64", "-S"], console=False)
        try:
            vmm.qmp.execute("migrate", 60, uri="exec:cat >/dev/null")
            end = time.monotonic() + PATIENCE
            while vmm.qmp.execute("query-migrate", 60).get("status") != "completed":
                assert time.monotonic() < end, vmm.qmp.execute("query-migrate", 60)
                time.sleep(0.05)
            info = vmm.qmp.execute("query-migrate", 60)
            shapes.append((sorted(info), sorted(info["ram"]), vmm.qmp.execute("query-status", 60)["status"]))
        finally:
            vmm.close()
    assert shapes[0] == shapes[1], shapes


TESTS = {name[5:].replace("_", " "): test for name, test in list(globals().items()) if name.startswith("test_")}
if len(sys.argv) > 3:
    TESTS = {name: TESTS[name] for name in sys.argv[3:]}
try:
    tap.run(TESTS)
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
