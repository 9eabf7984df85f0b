#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines that go from one manager to another, and what becomes of them when something fails on the way.

    manager_migrate.py RUCHED RUCHE-IMG TICKER RUCHE-VMM [TEST...]

Two managers on this host share a folder of disks, each with a host UUID of its own. The guest (tests/guest/ticker.c)
counts on its console and looks at its memory all the time. With ruche-vmm and with QEMU. The events that both sides send are
those that two of libvirt's daemons send (9.0), but for 'undefined', which they leave out.
"""
import contextlib
import glob
import os
import re
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
import manager  # noqa: E402
import tap  # noqa: E402
from heard import ADDED, COMES, GOES_ON, GONE, REMOVED, STANDS, UPDATED, Heard  # noqa: E402
from pki import make_pki  # noqa: E402

RUCHED, IMG, TICKER, VMM = (os.path.abspath(p) for p in sys.argv[1:5])
EMULATORS = {"ruche-vmm": VMM, "QEMU": shutil.which("qemu-system-x86_64")}
SECONDS = 120
RUNNING, PAUSED, SHUTOFF = libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_SHUTOFF
LIVE, P2P, UNSAFE = libvirt.VIR_MIGRATE_LIVE, libvirt.VIR_MIGRATE_PEER2PEER, libvirt.VIR_MIGRATE_UNSAFE
PERSIST, UNDEFINE, OFFLINE = (libvirt.VIR_MIGRATE_PERSIST_DEST, libvirt.VIR_MIGRATE_UNDEFINE_SOURCE,
                              libvirt.VIR_MIGRATE_OFFLINE)
libvirt.registerErrorHandler(lambda _, error: None, None)


def wait(what, fn, seconds=SECONDS):
    end = time.monotonic() + seconds
    while True:
        value = fn()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not in {seconds} s"
        time.sleep(0.02)


class Host:
    """A manager with a connection."""

    def __init__(self, config=""):
        self.uuid = str(uuid.uuid4())
        self.seen = 0  # bytes of the console's log
        self.had = set()
        self.m = manager.Manager(RUCHED, f"[host]\nuuid={self.uuid}\n[migration]\nhost=127.0.0.1\naddress=127.0.0.1\n{config}")
        os.chmod(self.m.folder.name, 0o711)
        self.connect()

    def open(self):
        return libvirt.open(self.uri)

    def connect(self):
        self.uri = f"qemu+unix:///session?socket={self.m.run}/libvirt-sock"

        def attempt():
            try:
                return self.open()
            except libvirt.libvirtError:
                return None
        self.c = wait("libvirt's socket", attempt)

    def again(self):
        """The manager is killed, and comes back."""
        self.m.kill()
        self.m.start()
        self.connect()

    def state(self, name="m"):
        """None: there is no such domain."""
        found = [d for d in self.c.listAllDomains() if d.name() == name]
        return found[0].state()[0] if found else None

    def settled(self, name="m"):
        """The state, when nobody works at the domain any more."""
        def free():
            try:
                found = [d for d in self.c.listAllDomains() if d.name() == name]
                return not found or found[0].jobInfo()[0] == libvirt.VIR_DOMAIN_JOB_NONE
            except libvirt.libvirtError as error:
                return error.get_error_code() == libvirt.VIR_ERR_OPERATION_INVALID  # it is off
        wait("the end of the migration", free)
        return self.state(name)

    def ticks(self):
        path = f"{self.m.state}/log/consoles/m.log"
        if not os.path.exists(path):
            return []
        with open(path, encoding="utf-8", errors="replace") as f:
            text = f.read()[self.seen:]
        assert "broken" not in text, text[-200:]
        return [int(n) for n in re.findall(r"tick (\d+)\r?\n", text)]

    def forget(self):
        """What was counted so far."""
        path = f"{self.m.state}/log/consoles/m.log"
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as f:
                self.seen = len(f.read())

    def machines(self):
        """Processes of machines of this manager, and of those that it had."""
        now = []
        for path in glob.glob(f"{self.m.run}/machines/*/process"):
            with contextlib.suppress(FileNotFoundError), open(path, encoding="ascii") as f:  # it has ended meanwhile
                now += [int(n) for n in f.read().split()]
        self.had |= set(now)
        return now

    def is_clean(self):
        """Nothing of a machine is left."""
        left = [n for folder in ("machines", "domains") for n in os.listdir(os.path.join(self.m.run, folder))] \
            if os.path.isdir(os.path.join(self.m.run, "machines")) else []
        return not left and not any(os.path.exists(f"/proc/{pid}") for pid in self.had)


class Pair:
    """Two hosts, and a machine 'm' at the first."""

    emulator = None

    def __init__(self, disk=True, fill=24, config=""):
        if not self.emulator:
            raise tap.Skip("qemu-system-x86_64 is not installed")
        self.shared = tempfile.TemporaryDirectory(prefix="ruche-shared-")
        self.a, self.b = Host(), Host(config)
        self.kernel = shutil.copy(TICKER, os.path.join(self.shared.name, "ticker.elf"))
        self.image = os.path.join(self.shared.name, "disk.qcow2")
        subprocess.run([IMG, "create", "-f", "qcow2", self.image, "16M"], check=True, capture_output=True, timeout=SECONDS)
        drive = f"""<disk type='file'><driver name='qemu' type='qcow2'/><source file='{self.image}'/><target dev='vda'/></disk>"""
        self.xml = f"""<domain type='qemu'><name>m</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{self.kernel}</kernel><cmdline>fill={fill}</cmdline></os>
<devices><emulator>{self.emulator}</emulator><serial type='pty'/><memballoon model='none'/>{drive if disk else ""}</devices></domain>"""
        self.d = self.a.c.defineXML(self.xml)
        self.uuid = self.d.UUIDString()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print("# source: " + self.a.m.said().replace("\n", "\n#   "), "# destination: " + self.b.m.said().replace("\n", "\n#   "), sep="\n")
            for host in (self.a, self.b):
                for path in glob.glob(host.m.state + "/log/machines/*.log"):
                    with open(path, encoding="utf-8", errors="replace") as f:
                        print("# machine: " + f.read()[-1500:].replace("\n", "\n#   "))
        self.a.m.close()
        self.b.m.close()
        self.shared.cleanup()

    def hear(self):
        """What each side is told from now on."""
        return Heard(self.a.c), Heard(self.b.c)

    def runs(self):
        self.d.create()
        wait("the guest's count", lambda: len(self.a.ticks()) > 1)

    def goes_on(self, there, before):
        """The guest counts at `there`, from where it was."""
        wait("the guest's count", lambda: len(there.ticks()) > 2)
        assert there.ticks()[-1] > before and there.ticks()[0] >= before - 1, (there.ticks()[:3], before)

    def count(self, here, there):
        """Where it is now; what is counted at `there` from now on is new."""
        there.forget()
        return here.ticks()[-1]

    def at(self, here, there, persistent=True):
        """It runs at one host, and the other has nothing left."""
        assert here.settled() == RUNNING, (here.state(), here.m.said())
        assert there.settled() == (SHUTOFF if persistent else None), (there.state(), there.m.said())
        wait("the other side's end", there.is_clean)


def refused(part, fn, *words):
    try:
        fn(*words)
    except libvirt.libvirtError as e:
        assert part in str(e), e
        return e
    raise AssertionError(f"not refused: {part}")


def test_direct():
    """The client drives: there and back, live and not."""
    with Pair() as p:
        p.runs()
        refused("shared storage", p.d.migrate3, p.b.c, {}, LIVE)
        here, there = p.hear()
        before = p.count(p.a, p.b)
        moved = p.d.migrate3(p.b.c, {}, LIVE | UNSAFE)
        assert here.wants(STANDS, *GONE)[0] == (1, 0)  # while it runs
        assert not there.wants(COMES, GOES_ON)
        assert moved.name() == "m" and moved.state() == [RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED]
        assert p.d.state() == [SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED]
        assert p.d.jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)["success"] is True
        p.goes_on(p.b, before)
        p.at(p.b, p.a)
        assert not moved.isPersistent()
        refused("same host", p.b.c.lookupByName("m").migrate3, p.b.c, {}, LIVE | UNSAFE)
        before = p.count(p.b, p.a)
        stored = moved.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("<name>m</name>", "<name>m</name><title>another</title>")
        moved.migrate3(p.a.c, {"persistent_xml": stored}, UNSAFE | PERSIST)
        assert there.wants(STANDS, *GONE)[0] == (1, 1)  # while it stands
        here.wants(COMES, UPDATED, GOES_ON)
        p.goes_on(p.a, before)
        p.at(p.a, p.b, persistent=False)
        assert "another" in p.d.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


def test_peer():
    """The source drives; the description goes, too, and the name changes."""
    with Pair() as p:
        p.runs()
        refused("shared storage", p.d.migrateToURI3, p.b.uri, {}, LIVE | P2P)
        refused("cannot be reached", p.d.migrateToURI3, "qemu+unix:///session?socket=/nowhere/sock", {}, LIVE | P2P | UNSAFE)
        refused("same host", p.d.migrateToURI3, p.a.uri, {}, LIVE | P2P | UNSAFE)
        assert p.a.settled() == RUNNING
        here, there = p.hear()
        before = p.count(p.a, p.b)
        p.d.migrateToURI3(p.b.uri, {"destination_name": "n", "bandwidth": 1000}, LIVE | P2P | UNSAFE | PERSIST | UNDEFINE)
        assert here.wants(STANDS, *GONE, REMOVED)[0] == (1, 0)
        there.wants(COMES, ADDED, GOES_ON)
        moved = p.b.c.lookupByName("n")
        assert moved.isPersistent() and moved.state()[0] == RUNNING and moved.UUIDString() == p.uuid
        assert "<name>n</name>" in moved.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        assert p.a.state() is None
        wait("the other side's end", p.a.is_clean)
        stored = moved.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("<name>n</name>", "<name>n</name><title>another</title>")
        refused("needs 'persistent'", moved.migrateToURI3, p.a.uri, {"persistent_xml": stored}, P2P | UNSAFE)
        refused("has another UUID", moved.migrateToURI3, p.a.uri, {"persistent_xml": p.xml}, P2P | UNSAFE | PERSIST)
        moved.suspend()
        stands = ("suspended", libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED)
        there.wants(stands)
        p.a.forget()
        moved.migrateToURI3(p.a.uri, {"destination_name": "m", "persistent_xml": stored}, P2P | UNSAFE | PERSIST)
        there.wants(*GONE)
        here.wants(COMES, ADDED, stands)
        back = p.a.c.lookupByName("m")
        assert back.state()[0] == PAUSED and "another" in back.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        assert "another" not in back.XMLDesc() and "another" not in p.b.c.lookupByName("n").XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
        back.resume()
        p.goes_on(p.a, before)
        assert p.b.state("n") == SHUTOFF
        wait("the other side's end", p.b.is_clean)


def test_offline():
    """Descriptions only."""
    with Pair() as p:
        refused("persistent", p.d.migrate3, p.b.c, {}, OFFLINE)
        refused("not running", p.d.migrate3, p.b.c, {}, LIVE)
        here, there = p.hear()
        p.d.migrate3(p.b.c, {}, OFFLINE | PERSIST)
        there.wants(ADDED)
        assert p.a.state() == p.b.state() == SHUTOFF
        assert p.d.XMLDesc() == p.b.c.lookupByName("m").XMLDesc()
        p.b.c.lookupByName("m").undefine()
        p.d.migrateToURI3(p.b.uri, {}, OFFLINE | PERSIST | UNDEFINE | P2P)
        here.wants(REMOVED)
        there.wants(REMOVED, ADDED)
        assert p.a.state() is None and p.b.state() == SHUTOFF
        again = p.b.c.lookupByName("m")
        stored = again.XMLDesc().replace("<name>m</name>", "<name>m</name><title>another</title>")
        again.migrate3(p.a.c, {"persistent_xml": stored}, OFFLINE | PERSIST | UNDEFINE)
        assert "another" in p.a.c.lookupByName("m").XMLDesc()
        assert p.a.state() == SHUTOFF and p.b.state() is None


def test_refused():
    """What cannot be, by name; and who is in the way."""
    with Pair() as p:
        p.runs()
        for flag, word in ((libvirt.VIR_MIGRATE_POSTCOPY, "postcopy"), (libvirt.VIR_MIGRATE_NON_SHARED_DISK, "copy-storage-all"),
                           (libvirt.VIR_MIGRATE_TLS, "tls"), (libvirt.VIR_MIGRATE_PARALLEL, "parallel")):
            refused(word, p.d.migrateToURI3, p.b.uri, {}, LIVE | P2P | UNSAFE | flag)
        refused("tunnelled", p.d.migrateToURI3, p.b.uri, {}, LIVE | P2P | UNSAFE | libvirt.VIR_MIGRATE_TUNNELLED)
        other = p.b.c.defineXML(p.xml)  # of this name, with a UUID of its own
        refused("already exists", p.d.migrateToURI3, p.b.uri, {}, LIVE | P2P | UNSAFE)
        refused("already exists", p.d.migrate3, p.b.c, {}, LIVE | UNSAFE)
        other.undefine()
        refused("no place", p.d.migrate3, p.b.c, {"migrate_uri": "exec:true"}, LIVE | UNSAFE)
        changed = p.d.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE).replace("<vcpu placement='static'>1<", "<vcpu placement='static'>2<")
        refused("vcpu", p.d.migrate3, p.b.c, {"destination_xml": changed}, LIVE | UNSAFE)
        if p.emulator == VMM:
            refused("auto-converge", p.d.migrate3, p.b.c, {}, LIVE | UNSAFE | libvirt.VIR_MIGRATE_AUTO_CONVERGE)
            refused("compressed", p.d.migrateSetCompressionCache, 8 << 20)
        else:
            p.d.migrateSetCompressionCache(8 << 20)
            assert p.d.migrateGetCompressionCache() == 8 << 20
        p.d.migrateSetMaxDowntime(123)
        assert p.d.migrateGetMaxDowntime() == 123
        refused("too much", p.d.migrateSetMaxDowntime, 1 << 40)
        p.at(p.a, p.b, persistent=False)
        before = p.count(p.a, p.b)
        p.d.migrate3(p.b.c, {"migrate_uri": f"unix://{p.shared.name}/state"}, LIVE | UNSAFE)
        p.goes_on(p.b, before)
        assert not os.path.exists(p.shared.name + "/state")


def under_way(p, how):
    """A slow migration in a thread; what it raised is in the list that is returned."""
    raised = []
    p.d.migrateSetMaxSpeed(1)

    def move():
        c = p.a.open()
        try:
            if how & P2P:
                c.lookupByName("m").migrateToURI3(p.b.uri, {}, LIVE | UNSAFE | how)
            else:
                c.lookupByName("m").migrate3(libvirt.open(p.b.uri), {}, LIVE | UNSAFE | how)
        except libvirt.libvirtError as e:
            raised.append(str(e))
    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    other = p.a.open()
    p.a.machines()
    p.b.machines()
    wait("figures of the migration", lambda: other.lookupByName("m").jobStats().get("memory_processed"))
    return thread, raised, other


def is_taken_in(p):
    """The machine at the other side reads what comes: its manager has accepted the connection and handed it over."""
    try:
        pid = p.b.machines()[0]
        its = {os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
    except (FileNotFoundError, IndexError):
        return False
    with open("/proc/net/tcp", encoding="ascii") as f:
        for _, local, _, state, queues, *_, inode in (line.split()[:10] for line in list(f)[1:]):
            if state == "01" and 49152 <= int(local.split(":")[1], 16) < 49216 and f"socket:[{inode}]" in its:
                return int(queues.split(":")[1], 16) == 0  # nothing waits, though something was sent
    return False


def test_cancelled():
    with Pair() as p:
        p.runs()
        here, there = p.hear()
        for how in (0, P2P):
            thread, raised, other = under_way(p, how)
            assert other.lookupByName("m").jobStats()["operation"] == libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT
            assert p.b.state() == PAUSED
            other.lookupByName("m").abortJob()
            thread.join()
            assert "cancelled" in raised[0], raised
            p.at(p.a, p.b, persistent=False)
            here.wants()
            there.wants(COMES, ("stopped", libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED))
            p.a.forget()
            p.goes_on(p.a, 0)


def stays(p):
    p.at(p.a, p.b, persistent=False)
    p.a.forget()
    wait("the guest's count", lambda: len(p.a.ticks()) > 1)


def test_killed():
    for how in (0, P2P):
        for end in (lambda p: p.b.again(), lambda p: p.a.again(), lambda p: os.kill(p.b.machines()[0], signal.SIGKILL)):
            with Pair() as p:
                p.runs()
                thread, raised, _ = under_way(p, how)
                end(p)
                thread.join()
                assert raised
                stays(p)
        with Pair() as p:  # the client that drives, or only asked
            p.runs()
            p.d.migrateSetMaxSpeed(1)
            peer = ["--p2p"] if how else []
            virsh = subprocess.Popen(["virsh", "-c", p.a.uri, "migrate", "m", "--live", "--unsafe", "--desturi", p.b.uri, *peer],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wait("figures of the migration", lambda: p.d.jobStats().get("memory_processed"))
            virsh.kill()
            virsh.wait()
            if how:
                p.d.abortJob()  # it goes on without him
            stays(p)
        with Pair() as p:
            p.runs()
            thread, raised, _ = under_way(p, how)
            os.kill(p.a.machines()[0], signal.SIGKILL)
            thread.join()
            assert raised
            wait("the end of both", lambda: p.a.settled() == SHUTOFF and p.b.settled() is None)
            wait("that nothing is left", lambda: p.a.is_clean() and p.b.is_clean())


def test_finish():
    """The peer stands still when it is to finish, and either side is killed before it has answered."""
    def stopped_at_finish(p):
        """The migration, under way, whose finish is not answered."""
        thread, raised, other = under_way(p, P2P)
        wait("the other side", lambda: is_taken_in(p))
        p.b.m.process.send_signal(signal.SIGSTOP)
        moving = other.lookupByName("m")
        moving.migrateSetMaxDowntime(60000)  # a busy host moves less than the guest writes
        moving.migrateSetMaxSpeed(0)

        def phase():
            assert not raised, raised
            try:
                with open(f"{p.a.m.run}/domains/m.xml", encoding="utf-8") as f:
                    return "phase='finish'" in f.read().replace('"', "'")
            except FileNotFoundError:
                return False
        wait("finish", phase)
        return thread, raised

    def moved(p):
        p.at(p.b, p.a)
        wait("the guest's count there", lambda: len(p.b.ticks()) > 1)
    with Pair() as p:  # an answer that is late
        p.runs()
        thread, raised = stopped_at_finish(p)
        p.b.m.process.send_signal(signal.SIGCONT)
        thread.join()
        assert not raised, raised
        moved(p)
    with Pair() as p:  # the source's manager is killed: it asks
        p.runs()
        thread, raised = stopped_at_finish(p)
        p.a.m.kill()
        p.b.m.process.send_signal(signal.SIGCONT)
        p.a.m.start()
        p.a.connect()
        thread.join()
        wait("one side", lambda: sorted((p.a.settled(), p.b.settled() or SHUTOFF)) == [RUNNING, SHUTOFF])
        if p.b.state() == RUNNING:
            moved(p)
        else:
            stays(p)
    with Pair() as p:  # the other's is: the guest did not go on there
        p.runs()
        thread, raised = stopped_at_finish(p)
        p.b.m.process.send_signal(signal.SIGKILL)
        p.b.m.process.wait()
        p.b.m.start()
        p.b.connect()
        thread.join()
        assert raised
        stays(p)


def by(p, uri):
    """There by this URI, and back."""
    before = p.count(p.a, p.b)
    p.d.migrateToURI3(uri, {}, LIVE | P2P | UNSAFE)
    p.goes_on(p.b, before)
    before = p.count(p.b, p.a)
    p.b.c.lookupByName("m").migrateToURI3(p.a.uri, {}, LIVE | P2P | UNSAFE)
    p.goes_on(p.a, before)
    p.d = p.a.c.lookupByName("m")


def credentials(p, host, password):
    with open(f"{p.a.m.state}/config/auth.conf", "w", encoding="ascii") as f:
        f.write(f"[auth-libvirt-{host}]\ncredentials=bee\n[credentials-bee]\nauthname=bee\npassword={password}\n")


def sshd(folder, port):
    """A server of our own, that lets a key of our own in."""
    if os.geteuid() or not shutil.which("sshd", path="/usr/sbin"):
        raise tap.Skip("sshd is not installed, or this is not root")
    os.makedirs("/run/sshd", exist_ok=True)
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{folder}/{name}"], check=True)
    with open(folder + "/sshd.conf", "w", encoding="ascii") as f:
        f.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/key.pub\nStrictModes no\n"
                "UsePAM no\nPidFile none\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n")
    return subprocess.Popen(["/usr/sbin/sshd", "-D", "-f", folder + "/sshd.conf"], stderr=subprocess.DEVNULL)


def test_transports():
    """The peer by TCP with SASL, by TLS with certificates, by ssh."""
    if not all(map(shutil.which, ("certtool", "saslpasswd2"))):
        raise tap.Skip("certtool and saslpasswd2 are not installed")
    with tempfile.TemporaryDirectory(prefix="ruche-peer-") as folder:
        tcp, tls, ssh = tap.free_port(), tap.free_port(), tap.free_port()
        for name in ("pki", "stranger"):
            make_pki(f"{folder}/{name}")
        shutil.copy(f"{folder}/pki/cacert.pem", f"{folder}/stranger/cacert.pem")
        subprocess.run(["saslpasswd2", "-p", "-c", "-a", "libvirt", "-f", folder + "/db", "bee"], input="honey", text=True, check=True, capture_output=True)
        with open(folder + "/libvirt.conf", "w", encoding="ascii") as f:
            f.write(f"mech_list: digest-md5 scram-sha-256\nauxprop_plugin: sasldb\nsasldb_path: {folder}/db\n")
        os.environ["SASL_CONF_PATH"] = folder
        config = f"[libvirt]\ntcp=127.0.0.1:{tcp}\nauth_tcp=sasl\ntls=*:{tls}\nauth_tls=none\n" + \
            "".join(f"tls_{key}={folder}/pki/{name}.pem\n" for key, name in (("ca", "cacert"), ("cert", "servercert"), ("key", "serverkey")))
        with Pair(config=config) as p:
            p.runs()
            how = LIVE | P2P | UNSAFE
            uri = f"qemu+tcp://127.0.0.1:{tcp}/session"
            refused("auth.conf", p.d.migrateToURI3, uri, {}, how)
            credentials(p, "elsewhere", "honey")
            refused("auth-libvirt-127.0.0.1", p.d.migrateToURI3, uri, {}, how)
            credentials(p, "127.0.0.1", "vinegar")
            refused("SASL", p.d.migrateToURI3, uri, {}, how)
            credentials(p, "default", "honey")
            by(p, uri)
            uri = f"qemu+tls://127.0.0.1:{tls}/session?pkipath={folder}/"
            refused("cannot be reached", p.d.migrateToURI3, uri + "stranger", {}, how)
            refused("certificate", p.d.migrateToURI3, f"qemu+tls://127.0.0.2:{tls}/session?pkipath={folder}/pki", {}, how)  # not its name
            by(p, uri + "pki")
            server = sshd(folder, ssh)
            try:
                uri = f"qemu+ssh://root@127.0.0.1:{ssh}/session?no_verify=1&keyfile={folder}/key&socket={p.b.m.run}/"
                wait("sshd", lambda: server.poll() is None and not subprocess.run(
                    ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-i", folder + "/key",
                     "-p", str(ssh), "root@127.0.0.1", "true"], check=False, capture_output=True).returncode)
                refused("no-sock", p.d.migrateToURI3, uri + "no-sock", {}, how)
                refused("unreachable: not found", p.d.migrateToURI3, uri + "libvirt-sock&netcat=unreachable", {}, how)
                refused("Permission denied", p.d.migrateToURI3, uri.replace("/key&", "/cacert.pem&") + "libvirt-sock", {}, how)
                by(p, uri + "libvirt-sock")
            finally:
                server.kill()
                server.wait()
            assert p.a.settled() == RUNNING


def test_front():
    """virsh, REST and `ruche`."""
    with Pair() as p:
        p.runs()

        def run(*words, fails=None):
            done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
            assert (done.returncode != 0) == bool(fails) and (fails or "") in done.stderr, (words, done.stdout, done.stderr)
            return done.stdout

        def ruche(host, *words, **more):
            return run(os.path.join(os.path.dirname(RUCHED), "ruche"), "--connect", host.m.socket, *words, **more)
        before = p.count(p.a, p.b)
        ruche(p.a, "migrate", "m", p.b.uri, "--live", fails="unsafe")
        ruche(p.a, "migrate", "m", "no-such-host.invalid", "--live", "--unsafe", fails="cannot be reached")
        assert p.b.uri in ruche(p.a, "migrate", "--live", "m", p.b.uri, "--unsafe", "--persistent", "--undefine")
        p.goes_on(p.b, before)
        assert p.a.state() is None
        before = p.count(p.b, p.a)
        job = p.b.m.job(p.b.m.want(202, "POST", "/domains/m/migrate", {"to": p.a.uri, "unsafe": True, "bandwidth": 2000}))
        assert job["state"] == "done" and job["result"] == p.a.uri, job
        p.goes_on(p.a, before)
        before = p.count(p.a, p.b)
        out = run("virsh", "-c", p.a.uri, "migrate", "m", p.b.uri, "--live", "--unsafe", "--verbose", "--undefinesource")
        p.goes_on(p.b, before)
        run("virsh", "-c", p.b.uri, "migrate", "m", p.a.uri, "--live", fails="Unsafe migration: Migration without shared storage")
        for command, part in (("setmaxdowntime m 200", ""), ("getmaxdowntime m", "200"), ("setspeed m 50", ""), ("getspeed m", "50")):
            assert part in run("virsh", "-c", p.b.uri, *("migrate-" + command).split())
        run("virsh", "-c", p.b.uri, "migrate", "m", "--desturi", p.a.uri, "--p2p", "--live", "--unsafe", "--persistent")
        assert p.a.state() == RUNNING and p.a.c.lookupByName("m").isPersistent()
        assert out is not None


TESTS = {"driven by the client": test_direct, "peer to peer": test_peer, "transports": test_transports, "offline": test_offline, "refused": test_refused,
         "cancelled": test_cancelled, "killed": test_killed, "killed at the end": test_finish, "front doors": test_front}


if sys.argv[5:]:
    TESTS = {name: TESTS[name] for name in sys.argv[5:]}


def with_emulator(path, test):
    def run():
        Pair.emulator = path
        test()
    return run


tap.run({f"{name}, {emulator}": with_emulator(path, test) for emulator, path in EMULATORS.items() for name, test in TESTS.items()
         if emulator == "ruche-vmm" or test != test_transports})
