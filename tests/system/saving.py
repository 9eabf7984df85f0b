#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines saved and restored, dumped, their disks worked on while they run; the manager killed in between.

    saving.py RUCHED RUCHE-IMG TICKER RUCHE-VMM [TEST...]

The guest (tests/guest/ticker.c) counts on its console and looks at its memory all the time. All of it with ruche-vmm and
with QEMU.
"""
import glob
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import libvirt_qemu  # noqa: E402
import manager  # noqa: E402
import tap  # noqa: E402

RUCHED, IMG, TICKER, VMM = (os.path.abspath(p) for p in sys.argv[1:5])
EMULATORS = {"ruche-vmm": VMM, "QEMU": shutil.which("qemu-system-x86_64")}
SECONDS = 120


def wait(what, fn):
    end = time.monotonic() + SECONDS
    while True:
        value = fn()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not in {SECONDS} s"
        time.sleep(0.02)


class World:
    """A manager, a connection, a machine 'm' with a chain of three images."""

    emulator = None  # of the tests that run now

    def __init__(self, config="", ports=0):
        if not self.emulator:
            raise tap.Skip("qemu-system-x86_64 is not installed")
        self.m = manager.Manager(RUCHED, config)
        self.folder = self.m.folder.name
        os.chmod(self.folder, 0o711)
        self.kernel = shutil.copy(TICKER, self.path("ticker.elf"))
        os.chmod(self.kernel, 0o644)
        self.connect()
        self.img("create", "-f", "raw", self.path("data.raw"), "32M")
        with open(self.path("data.raw"), "r+b") as f:
            f.write(os.urandom(6 << 20))
        self.img("convert", "-O", "qcow2", self.path("data.raw"), self.path("base.qcow2"))
        for name, below in (("mid", "base"), ("top", "mid")):
            self.img("create", "-f", "qcow2", "-F", "qcow2", "-b", self.path(below + ".qcow2"), self.path(name + ".qcow2"))
        for name in ("top", "mid", "base"):
            os.chmod(self.path(name + ".qcow2"), 0o600)
        self.d = self.c.defineXML(f"""<domain type='qemu'><name>m</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{self.kernel}</kernel><cmdline>fill=24</cmdline></os>
<devices><emulator>{self.emulator}</emulator>{"<controller type='pci' model='pcie-root-port'/>" * ports}<serial type='pty'/><memballoon model='none'/>
<disk type='file'><driver type='qcow2'/><source file='{self.path("top.qcow2")}'/><target dev='vda'/></disk></devices></domain>""")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.m.close()

    def path(self, name):
        return os.path.join(self.folder, name)

    def img(self, *words):
        return subprocess.run([IMG, *words], check=True, capture_output=True, text=True, timeout=SECONDS).stdout

    def connect(self):
        def attempt():
            try:
                return libvirt.open(f"qemu+unix:///session?socket={self.m.run}/libvirt-sock")
            except libvirt.libvirtError:
                return None
        self.c = wait("libvirt's socket", attempt)

    def again(self, between=lambda: None):
        """The manager is killed, and comes back."""
        self.m.kill()
        between()
        self.m.start()
        self.connect()
        self.d = wait("the machine's description", lambda: [d for d in self.c.listAllDomains() if d.name() == "m"])[0]

    def qmp(self, command, **arguments):
        return json.loads(libvirt_qemu.qemuMonitorCommand(self.d, json.dumps({"execute": command, "arguments": arguments}), 0))["return"]

    def pids(self):
        """Of the machine's processes."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as f:
                    if self.d.UUIDString().encode() in f.read():
                        found.append(int(path.split("/")[2]))
            except OSError:
                continue
        return found

    def pid(self):
        found = self.pids()
        assert found, "the machine has no process"
        return found[0]

    def tick(self):
        with open(f"{self.m.state}/log/consoles/m.log", encoding="utf-8", errors="replace") as f:
            text = f.read()
        assert "broken" not in text, text[-200:]
        found = re.findall(r"tick (\d+)\n", text)
        return int(found[-1]) if found else -1

    def ticks(self):
        """How many lines it has written, whatever they say."""
        with open(f"{self.m.state}/log/consoles/m.log", encoding="utf-8", errors="replace") as f:
            return f.read().count("tick ")

    def goes_on(self, least=0):
        """The guest counts, from where it was."""
        self_now = wait("the guest's count", lambda: self.tick() >= least and self.tick() + 1)
        wait("the guest's next count", lambda: self.tick() > self_now)

    def runs(self):
        self.d.create()
        self.goes_on()

    def chain(self, flags=0):
        text = self.d.XMLDesc(flags)
        return re.findall(r"([a-z]+)\.qcow2", text[text.index("<disk"):text.index("</disk>")])


def refused(part, fn, *words):
    try:
        fn(*words)
    except libvirt.libvirtError as e:
        assert part in str(e), e
        return
    raise AssertionError(f"not refused: {part}")


def test_save():
    with World() as w:
        w.runs()
        path, before = w.path("saved"), w.tick()
        w.d.save(path)
        assert w.d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED]
        assert w.d.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)["success"] is True
        assert "<name>m</name>" in w.c.saveImageGetXMLDesc(path)
        w.c.restore(path)
        assert w.d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_RESTORED]
        w.goes_on(before)
        refused("already active", w.c.restore, path)
        w.d.destroy()
        with open(path, "r+b") as f:
            f.truncate(os.path.getsize(path) // 2)
        refused("", w.c.restore, path)
        assert os.path.exists(path) and not w.d.isActive()
        refused("no saved machine", w.c.restore, w.path("data.raw"))


def test_managed():
    with World() as w:
        w.runs()
        before = w.tick()
        w.d.managedSave()
        assert w.d.hasManagedSaveImage()
        refused("managed save", w.d.undefine)
        w.again()
        assert w.d.hasManagedSaveImage()
        w.d.create()
        assert not w.d.hasManagedSaveImage()
        w.goes_on(before)
        w.d.managedSave(libvirt.VIR_DOMAIN_SAVE_PAUSED)
        w.d.create()
        assert w.d.state()[0] == libvirt.VIR_DOMAIN_PAUSED
        w.d.resume()
        w.goes_on(before)
        w.d.managedSave()
        w.d.createWithFlags(libvirt.VIR_DOMAIN_START_FORCE_BOOT)
        assert w.d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_BOOTED]


def slow_save(w, path):
    """A save that takes long, under way."""
    w.d.migrateSetMaxSpeed(1)

    def save():
        try:
            w.d.save(path)
        except libvirt.libvirtError:
            pass
    thread = threading.Thread(target=save)
    thread.start()
    other = libvirt.open(f"qemu+unix:///session?socket={w.m.run}/libvirt-sock")
    wait("figures of the save", lambda: other.lookupByName("m").jobStats().get("memory_processed"))
    return thread, other


def test_cancel():
    with World() as w:
        w.runs()
        thread, other = slow_save(w, w.path("saved"))
        other.lookupByName("m").abortJob()
        thread.join()
        assert w.d.state() == [libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_SAVE_CANCELED]
        assert not os.path.exists(w.path("saved"))
        w.goes_on(w.tick())


def test_killed_save():
    """kill -9 of the manager in the middle of a save: no file, and the guest goes on."""
    with World() as w:
        w.runs()
        thread, _ = slow_save(w, w.path("saved"))
        files = sorted(n for n in os.listdir(w.folder) if n != "log")
        w.again()
        thread.join()
        wait("the guest's going on", lambda: w.d.state()[0] == libvirt.VIR_DOMAIN_RUNNING)
        assert sorted(n for n in os.listdir(w.folder) if n != "log") == files and "saved" not in files
        w.goes_on(w.tick())
        w.d.save(w.path("saved"))
        w.c.restore(w.path("saved"))
        w.goes_on(w.tick())


def killed_in(w, begin, hold, delay):
    """kill -9 of the manager when the machine that `begin` makes has a process, and `delay` seconds later; with `hold` that one gets no
    further. Whether the guest runs then."""
    def run():
        try:
            begin()
        except libvirt.libvirtError:
            pass
    thread = threading.Thread(target=run)
    thread.start()
    pid = wait("the machine's process", w.pids)[0]

    def signal_it(number):
        if hold:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
    signal_it(signal.SIGSTOP)
    time.sleep(delay)  # where it is then is for chance to say
    w.again(lambda: signal_it(signal.SIGCONT))
    thread.join()
    return wait("the end of what was under way", lambda: {
        (libvirt.VIR_DOMAIN_RUNNING, 1): "runs", (libvirt.VIR_DOMAIN_SHUTOFF, 0): "off"}.get((w.d.state()[0], len(w.pids())))) == "runs"


KILLS = ((True, 0), (False, 0), (False, 0.04), (False, 0.1), (False, 0.3))  # hold, delay


def test_killed_restore():
    """kill -9 of the manager in the middle of a restore: the machine runs or is off, and its file is there."""
    with World() as w:
        w.runs()
        path = w.path("saved")
        w.d.save(path)
        count = w.tick()
        for hold, delay in KILLS:
            if killed_in(w, lambda: w.c.restore(path), hold, delay):
                w.goes_on(count)
                w.d.destroy()
            assert os.path.exists(path)
        w.c.restore(path)
        w.goes_on(count)


def test_killed_start():
    """The same in the start from a managed save: its state is there, unless the guest runs."""
    with World() as w:
        w.runs()
        w.d.managedSave()
        count = w.tick()
        for hold, delay in KILLS:
            runs = killed_in(w, lambda: w.d.create(), hold, delay)
            assert runs != bool(w.d.hasManagedSaveImage()), f"runs: {runs}"
            if runs:
                w.goes_on(count)
                w.d.managedSave()
                count = w.tick()
        w.d.create()
        w.goes_on(count)


def test_full():
    """The medium is full under a writing guest: it stands with its failed writes, is saved with them, and they are made where it goes on."""
    with World() as w:
        medium = w.path("medium")
        os.mkdir(medium)
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", medium], check=False).returncode:
            raise tap.Skip("no right to mount a small medium")
        try:
            writer = shutil.copy(os.path.join(os.path.dirname(TICKER), "migrate.elf"), w.path("writer.elf"))  # knows what it has written
            w.img("create", "-f", "raw", medium + "/disk.raw", "4M")
            xml = w.d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace(w.kernel, writer).replace("fill=24", "disk=16 every=20000 pages=64")
            xml = re.sub(r"<driver name='qemu' type='qcow2'[^>]*/>", "<driver name='qemu' type='raw' error_policy='enospace'/>", xml)
            w.d = w.c.defineXML(xml.replace(w.path("top.qcow2"), medium + "/disk.raw"))
            error = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]
            w.d.create()
            wait("the end of the medium", lambda: w.d.state() == error)
            w.d.save(w.path("saved"))
            w.c.restore(w.path("saved"))
            assert w.d.state()[0] == libvirt.VIR_DOMAIN_PAUSED
            w.d.resume()
            wait("the end of the medium, again", lambda: w.d.state() == error)
            w.d.managedSave()
            subprocess.run(["mount", "-o", "remount,size=16m", medium], check=True)
            w.d.create()
            w.d.resume()
            with open(f"{w.m.state}/log/consoles/m.log", encoding="utf-8", errors="replace") as f:
                before = f.read().count("step ")

            def steps():
                with open(f"{w.m.state}/log/consoles/m.log", encoding="utf-8", errors="replace") as f:
                    text = f.read()
                assert "broken" not in text, text[-300:]
                return text.count("step ")
            wait("the guest's going on", lambda: steps() > before + 3)
            w.d.destroy()
        finally:
            subprocess.run(["umount", "-l", medium], check=True)


def test_dump():
    with World() as w:
        w.runs()
        path = w.path("core")
        w.d.coreDump(path, libvirt.VIR_DUMP_MEMORY_ONLY)
        with open(path, "rb") as f:
            assert f.read(4) == b"\x7fELF"
        w.goes_on(w.tick())
        for flags in (0, libvirt.VIR_DUMP_LIVE, libvirt.VIR_DUMP_BYPASS_CACHE):
            w.d.coreDump(path, flags)
            w.goes_on(w.tick())
        seen = w.d.memoryPeek(16 << 20, 16, libvirt.VIR_MEMORY_PHYSICAL)
        assert seen[:8] == ((((16 << 20) ^ 0x9e3779b97f4a7c15) * 0xbf58476d1ce4e5b9) % 2**64).to_bytes(8, "little")
        refused("raw", w.d.blockPeek, "vda", 0, 512)
        w.d.coreDump(path, libvirt.VIR_DUMP_CRASH)
        assert w.d.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED]


def is_ready(w):
    j = w.d.blockJobInfo("vda")
    return j and j["cur"] == j["end"]


def same(w, name):
    w.img("compare", w.path(name), w.path("data.raw"))


def test_disks():
    with World() as w:
        w.d.create()
        assert w.chain() == ["top", "mid", "base"]
        w.d.blockCommit("vda", w.path("base.qcow2"), w.path("mid.qcow2"))
        wait("the commit", lambda: w.chain() == ["top", "base"])
        w.d.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        wait("the commit's readiness", lambda: is_ready(w))
        w.d.blockJobAbort("vda")
        assert w.chain() == ["top", "base"]
        w.d.blockCopy("vda", f"<disk><source file='{w.path('copy.qcow2')}'/><driver type='qcow2'/></disk>")
        wait("the copy", lambda: is_ready(w))
        w.again()
        wait("the copy, after a kill", lambda: is_ready(w))
        w.d.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        assert w.chain() == ["copy"] and w.chain(libvirt.VIR_DOMAIN_XML_INACTIVE) == ["copy"]
        w.d.managedSave()
        w.d.create()
        w.d.destroy()
        same(w, "copy.qcow2")


def test_pull():
    with World() as w:
        w.d.create()
        w.d.blockPull("vda")
        wait("the pull", lambda: not w.d.blockJobInfo("vda") and w.chain() == ["top"])
        w.d.destroy()
        same(w, "top.qcow2")


def test_pivot():
    with World() as w:
        w.d.create()
        w.d.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        wait("the commit's readiness", lambda: is_ready(w))
        w.d.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
        assert w.chain() == ["base"] and w.chain(libvirt.VIR_DOMAIN_XML_INACTIVE) == ["base"]
        w.d.destroy()
        same(w, "base.qcow2")


def works_on_disks(w):
    """Each job once."""
    w.d.blockCommit("vda", w.path("base.qcow2"), w.path("mid.qcow2"))
    wait("the commit", lambda: w.chain() == ["top", "base"])
    w.d.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    wait("the commit's readiness", lambda: is_ready(w))
    w.d.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    assert w.chain() == ["base"], w.chain()
    w.d.blockCopy("vda", f"<disk><source file='{w.path('copy.qcow2')}'/><driver type='qcow2'/></disk>")
    wait("the copy", lambda: is_ready(w))
    w.d.blockJobAbort("vda", libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)
    assert w.chain() == ["copy"], w.chain()


def test_other_user():
    """A machine whose user may not open its images: what it needs is passed."""
    if os.geteuid():
        raise tap.Skip("only root can give a machine another user")
    with World("[machines]\nuser=nobody\n") as w:
        w.runs()
        with open(f"/proc/{w.pid()}/status", encoding="ascii") as f:
            assert re.search(rf"^Uid:\t{pwd.getpwnam('nobody').pw_uid}\t", f.read(), re.MULTILINE)
        works_on_disks(w)
        w.goes_on(w.tick())
        w.d.managedSave()
        w.d.create()
        w.goes_on(w.tick())
        w.d.destroy()
        same(w, "copy.qcow2")
    with World("[machines]\nuser=nobody\n") as w:
        w.runs()
        w.d.blockPull("vda", 0)
        wait("the pull", lambda: not w.d.blockJobInfo("vda") and w.chain() == ["top"])
        w.d.destroy()
        same(w, "top.qcow2")


def test_detach():
    """Whatever was done to a disk's chain: what it stood on goes with it."""
    with World(ports=2) as w:
        xml = f"""<disk type='file'><driver type='qcow2'/><source file='{w.path("top.qcow2")}'/><target dev='vdb'/></disk>"""
        w.img("create", "-f", "qcow2", w.path("own.qcow2"), "1M")
        w.d.updateDeviceFlags(xml.replace("top", "own").replace("vdb", "vda"), libvirt.VIR_DOMAIN_AFFECT_CONFIG)
        w.runs()

        def has():
            nodes = sorted(n["node-name"] for n in w.qmp("query-named-block-nodes", flat=True))
            return nodes, sorted(s["fdset-id"] for s in w.qmp("query-fdsets"))
        before = has()

        def detached():
            live = w.d.XMLDesc()
            w.d.detachDeviceAlias(re.search(r"<alias name='([^']+)'", live[live.index("dev='vdb'"):]).group(1))  # waits for no guest
            w.d.reset()  # takes what the guest keeps
            wait("the end of the disk", lambda: "vdb" not in w.d.XMLDesc())
            wait("the end of the disk's nodes", lambda: has() == before)

        def abort(flags):
            wait("the job's readiness", lambda: (lambda j: j and j["cur"] == j["end"])(w.d.blockJobInfo("vdb")))
            w.d.blockJobAbort("vdb", flags)
        pivot = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT
        copy = f"<disk><source file='{w.path('copy.qcow2')}'/><driver type='qcow2'/></disk>"
        w.d.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        assert has() != before
        detached()
        w.d.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        w.d.blockCopy("vdb", copy, None, libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW)
        abort(0)
        w.d.blockCopy("vdb", copy.replace("copy", "second"), None, libvirt.VIR_DOMAIN_BLOCK_COPY_SHALLOW)
        abort(pivot)
        detached()
        w.d.attachDeviceFlags(xml, libvirt.VIR_DOMAIN_AFFECT_LIVE)
        w.d.blockCommit("vdb", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
        abort(pivot)
        detached()
        before = w.ticks()
        wait("the guest's count after its reset", lambda: w.ticks() > before + 1)


def test_front():
    """REST and `ruche`."""
    with World() as w:
        w.runs()
        before, path = w.tick(), w.path("saved")

        def job(method, where, body):
            ended = w.m.job(w.m.want(202, method, where, body))
            assert ended["state"] == "done" and ended["result"] == "m", ended
        job("POST", "/domains/m/dump", {"file": w.path("core"), "live": True})
        job("POST", "/domains/m/save", {"file": path})
        job("POST", "/restore", {"file": path})
        w.goes_on(before)
        job("POST", "/domains/m/save", {})
        assert w.d.hasManagedSaveImage()
        w.m.want(200, "DELETE", "/domains/m/save")
        assert not w.d.hasManagedSaveImage()

        def ruche(*words):
            done = subprocess.run([os.path.join(os.path.dirname(RUCHED), "ruche"), "--connect", w.m.socket, *words],
                                  capture_output=True, text=True, timeout=SECONDS, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout
        ruche("restore", path)
        assert "is saved" in ruche("save", "m")
        assert ruche("start", "m") == "'m' goes on from its saved state\n"
        w.goes_on(before)
        ruche("dump", "m", w.path("core2"))
        assert "'m' is saved" in ruche("save", "m", w.path("again")) and os.path.exists(w.path("again"))
        assert '"state"' in ruche("restore", w.path("again"), "--json")
        w.d.destroy()
        assert ruche("start", "m") == ""  # it boots


TESTS = {"REST and ruche": test_front, "save and restore": test_save, "managed save": test_managed, "full medium": test_full, "cancelled": test_cancel, "killed in a save": test_killed_save,
         "killed in a restore": test_killed_restore, "killed in a start": test_killed_start,
         "core files and pieces": test_dump, "commit and copy": test_disks, "pull": test_pull, "pivot": test_pivot,
         "another user": test_other_user, "detached after jobs": test_detach}


if sys.argv[5:]:
    TESTS = {name: TESTS[name] for name in sys.argv[5:]}


def with_emulator(path, test):
    def run():
        World.emulator = path
        test()
    return run


tap.run({f"{name}, {emulator}": with_emulator(path, test) for emulator, path in EMULATORS.items() for name, test in TESTS.items()})
