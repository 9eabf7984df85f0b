#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's virsh against ruched: its commands for hosts, domains, pools and volumes; every transport with a list, an event and
streams; virt-install and libvirt-dbus. TAP.

    virsh.py RUCHED RUCHE-VMM KERNEL
"""
import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import tap
from pki import make_pki
from libvirt_rpc import Daemon

RUCHED, VMM, KERNEL = (os.path.abspath(p) for p in sys.argv[1:4])
WORK = tempfile.mkdtemp(prefix="virsh-")
os.chmod(WORK, 0o755)
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "XDG_CONFIG_HOME": WORK}
USER, PASSWORD = "fred", "swordfish"
DAEMON = None
PORTS = {}

DOMAIN = f"""<domain type='qemu'><name>loop</name><uuid>8f0f8a9e-6a2c-4d4f-8c0e-0123456789ab</uuid><title>a title</title>
<memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64'>hvm</type><kernel>{KERNEL}</kernel></os>
<devices><emulator>{VMM}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{WORK}/disk.img'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='52:54:00:11:22:33'/><model type='virtio'/></interface>
<serial type='pty'/><console type='pty'/><memballoon model='none'/></devices></domain>"""
DISK = f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{WORK}/disk.img'/><target dev='vdb' bus='virtio'/></disk>"
POOL = f"<pool type='dir'><name>pool</name><target><path>{WORK}/pool</path></target></pool>"
TLS_FILES = "tls_ca={0}/pki/cacert.pem\ntls_cert={0}/pki/servercert.pem\ntls_key={0}/pki/serverkey.pem\n"
VOLUME = "<volume><name>made</name><capacity unit='MiB'>2</capacity><target><format type='raw'/></target></volume>"


def path(name, text=None):
    where = os.path.join(WORK, name)
    if text is not None:
        with open(where, "w", encoding="ascii") as out:
            out.write(text)
    return where


def unix():
    return f"qemu+unix:///system?socket={DAEMON.socket}"


def virsh(*command, uri=None, env=None, check=True):
    done = subprocess.run(["virsh", "-c", uri or unix(), *command], capture_output=True, text=True, timeout=600, check=False,
                          env={**ENV, **(env or {})}, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout if check else done


def try_rows(rows):
    """Each row: a command line, a pattern of its output; '!' before the pattern: it fails, and says so."""
    wrong = []
    for line, pattern in rows:
        done = virsh(*line.replace("@", WORK + "/").split(), check=False)
        fails = pattern.startswith("!")
        text = done.stdout + done.stderr
        if bool(done.returncode) != fails or not re.search(pattern.lstrip("!"), text, re.MULTILINE):
            wrong.append(f"virsh {line}: ended with {done.returncode}, not /{pattern}/: {text.strip()[:300]}")
    assert not wrong, "\n".join(wrong)


HOST = (
    ("version", r"Running hypervisor: QEMU 9\.0\.0"), ("uri", "socket="), ("hostname", re.escape(socket.gethostname())),
    ("nodeinfo", r"^CPU model: +x86_64"), ("nodecpumap", "CPUs present:"), ("nodecpustats", r"^idle:"), ("nodememstats", r"^free"),
    ("freecell", "Total:|KiB"), ("freepages --cellno 0 --pagesize 4", "4KiB"), ("maxvcpus", r"^\d+$"), ("capabilities", "<capabilities>"),
    ("domcapabilities", "<domainCapabilities>"), ("cpu-models x86_64", "qemu64"), ("list --all", ""), ("net-list --all", ""),
    ("iface-list --all", ""), ("secret-list", ""), ("nwfilter-list", ""), ("nodedev-list", ""), ("pool-list --all", ""), ("pool-capabilities", "dir"),
    ("net-info nix", "!Network not found"), ("iface-dumpxml nix", "!Interface not found"), ("nodedev-dumpxml nix", "![Nn]ode device"),
    ("nwfilter-dumpxml nix", "![Nn]etwork filter|nwfilter"), ("secret-dumpxml 8f0f8a9e-6a2c-4d4f-8c0e-0123456789ab", "![Ss]ecret"),
    ("dominfo nix", "!failed to get domain 'nix'"), ("net-define /dev/null", "!"), ("sysinfo", "sysinfo|!")[:2] if os.path.isdir("/sys/class/dmi/id")
    else ("sysinfo", "!SMBIOS"), ("nodesuspend mem 60", "!does not support"),
)

STOPPED = (
    ("define @domain.xml --validate", "defined"), ("domuuid loop", "8f0f8a9e"), ("domname 8f0f8a9e-6a2c-4d4f-8c0e-0123456789ab", "loop"),
    ("domid loop", "-"), ("domstate loop --reason", r"shut off"), ("dominfo loop", r"Max memory: +65536 KiB"), ("dumpxml loop", "<name>loop</name>"),
    ("dumpxml loop --inactive --security-info", "<uuid>"), ("desc loop --title", "a title"), ("desc loop --title other", "updated"),
    ("desc loop --config some words", ""), ("desc loop", "some words"), ("metadata loop urn:x --key k --set <a/> --config", ""),
    ("metadata loop urn:x --config", "<a/>"), ("autostart loop", ""), ("dominfo loop", r"Autostart: +enable"), ("autostart loop --disable", ""),
    ("schedinfo loop", r"cpu_shares +: 1024"), ("schedinfo loop --config --set cpu_shares=512", "512"), ("memtune loop", "hard_limit"),
    ("memtune loop --config --hard-limit 200000", ""), ("memtune loop --config", "200000"), ("blkiotune loop", "weight"), ("numatune loop", "numa_mode"),
    ("blkdeviotune loop vda --config --total-bytes-sec 1000000", ""), ("blkdeviotune loop vda --config", "1000000"),
    ("domiftune loop 52:54:00:11:22:33 --config", "inbound.average"), ("vcpucount loop", r"maximum +config +2"), ("setvcpus loop 2 --config", ""),
    ("vcpucount loop --config --current", "2"), ("vcpupin loop", "0"), ("vcpupin loop 0 0 --config", ""), ("vcpupin loop --config", r"0 +0"),
    ("emulatorpin loop", r"\*"), ("emulatorpin loop 0 --config", ""), ("setmem loop 32M --config", ""), ("setmaxmem loop 64M --config", ""),
    ("iothreadinfo loop", ""), ("domblklist loop", "vda"), ("domiflist loop", "52:54:00:11:22:33"), ("vcpuinfo loop", "VCPU"),
    ("domblkinfo loop vda", r"Capacity: +16777216"), ("attach-device loop @disk.xml --config", "attached"), ("domblklist loop --inactive", "vdb"),
    ("detach-disk loop vdb --config", "detached"), ("domstats loop --state", r"state\.state=5"), ("domrename loop loop2", ""),
    ("domrename loop2 loop", ""), ("snapshot-list loop", ""), ("managedsave loop", "!"), ("domblkerror loop", "!not running"),
    ("destroy loop", "!not running"), ("suspend loop", "!not running"), ("domcontrol loop", "!not running"), ("domtime loop", "!"),
)

RUNNING = (
    ("start loop", "started"), ("start loop", "!already"), ("list", "running"), ("domid loop", r"^\d+$"), ("domstate loop --reason", r"running \(booted\)"),
    ("dumpxml loop", "<domain type='qemu' id="), ("dominfo loop", r"State: +running"), ("vcpuinfo loop", r"State: +running"), ("cpu-stats loop", "Total:"),
    ("domstats", r"cpu\.time="), ("domstats loop --block --interface --balloon --vcpu", r"block\.count=1"), ("domblkstat loop vda", "rd_req"),
    ("domblkinfo loop vda", "Physical"), ("domifstat loop 52:54:00:11:22:33", "rx_bytes"), ("dommemstat loop", "rss"), ("domcontrol loop", "ok"),
    ("domjobinfo loop", "None"), ("domjobabort loop", "!no job"), ("domblkerror loop", "No errors|^$"), ("domifaddr loop --source arp", ""),
    ("domifaddr loop", ""), ("domifaddr loop --source agent", "!agent"), ("domfsinfo loop", "!agent"), ("guestinfo loop", "!agent"), ("domhostname loop", "!agent"),
    ("domdisplay loop", "!No graphical"), ("vcpupin loop 0 0 --live", ""), ("vcpupin loop --live", r"0 +0"), ("emulatorpin loop", "emulator|:|[*]"), ("suspend loop", ""),
    ("domstate loop --reason", r"paused \(user\)"), ("resume loop", ""), ("domstate loop", "running"), ("blockresize loop vda 32M", "resized"),
    ("domblkinfo loop vda", r"Capacity: +33554432"), ("inject-nmi loop", ""), ("reset loop", "reset"), ("qemu-monitor-command loop query-name", "loop"),
    ("qemu-monitor-command --hmp loop info status", "running"), ("screenshot loop @x.ppm", "!has no screen"), ("send-key loop KEY_A", "!does not know 'send-key'"),
    ("migrate loop qemu:///x", "!"), ("undefine loop", ""), ("dominfo loop", r"Persistent: +no"),
    ("destroy loop", "destroyed"), ("dominfo loop", "!failed to get domain"), ("create @domain.xml --paused", "created"),
    ("domstate loop", "paused"), ("destroy loop --graceful", "destroyed"),
)

STORAGE = (
    ("pool-define @pool.xml", "defined"), ("pool-build pool", "built"), ("pool-start pool", "started"), ("pool-autostart pool", ""),
    ("pool-info pool", r"State: +running"), ("pool-list --details", "pool"), ("pool-dumpxml pool", "<name>pool</name>"), ("pool-uuid pool", "-"),
    ("vol-create pool @volume.xml", "made created"), ("vol-create-as pool v 1M", "created"), ("vol-list pool --details", "made"),
    ("vol-info v --pool pool", r"Capacity: +1\.00 MiB"), ("vol-path v --pool pool", "/v"), ("vol-key v --pool pool", "/v"), ("vol-pool @pool/v", "pool"),
    ("vol-name @pool/v", "v"), ("vol-dumpxml v --pool pool", "<volume"), ("vol-upload v @data --pool pool", ""), ("vol-download v @back --pool pool", ""),
    ("vol-download v @sparse --pool pool --sparse", ""), ("vol-upload v @hollow --pool pool --sparse", ""), ("vol-resize v 3M --pool pool", "changed"),
    ("vol-wipe v --pool pool", "wiped"), ("vol-clone made copy --pool pool", "cloned"), ("vol-delete copy --pool pool", "deleted"), ("vol-delete made --pool pool", "deleted"),
    ("vol-info nix --pool pool", "!volume not found"), ("pool-refresh pool", "refreshed"), ("vol-delete v --pool pool", ""), ("pool-destroy pool", "destroyed"),
    ("pool-delete pool", "deleted"), ("pool-undefine pool", "undefined"), ("pool-info pool", "!pool not found"),
)


def host_commands():
    try_rows(HOST)


def stopped_domain_commands():
    try_rows(STOPPED)


def running_domain_commands():
    try_rows(RUNNING)


def storage_commands():
    data = os.urandom(700000)
    with open(path("data"), "wb") as out:
        out.write(data)
    with open(path("hollow"), "wb") as out:
        out.truncate(1 << 20)
    try_rows(STORAGE)
    for name in ("back", "sparse"):
        with open(path(name), "rb") as back:
            assert back.read() == data + bytes((1 << 20) - len(data)), name


class Terminal:
    """virsh on a terminal of its own, where it writes line by line."""

    def __init__(self, *command, uri=None, env=None):
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(["virsh", "-c", uri or unix(), *command], stdin=slave, stdout=slave, stderr=slave, env={**ENV, **(env or {})},
                                        start_new_session=True)
        os.close(slave)
        self.text = ""

    def until(self, word, seconds=120, again=lambda: None):
        """Reads until the word is there; calls again() whenever nothing comes for a while."""
        end = time.monotonic() + seconds
        while word not in self.text:
            assert time.monotonic() < end, f"no '{word}': {self.text}"
            if not select.select([self.master], [], [], 0.2)[0]:
                again()
                continue
            try:
                self.text += os.read(self.master, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"it ended without '{word}': {self.text}") from None

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(120)
        os.close(self.master)


def events():
    watch = Terminal("event", "--all", "--loop")
    try:
        watch.until("Defined", again=lambda: virsh("define", path("domain.xml")))  # it does not say when it begins to listen
        for command, word in (("start", "Started"), ("suspend", "Suspended"), ("resume", "Resumed"), ("destroy", "Stopped"), ("undefine", "Undefined")):
            virsh(command, "loop")
            watch.until(word)
    finally:
        watch.close()


def console():
    virsh("create", path("domain.xml"))
    try:
        t = Terminal("console", "loop", "--force")
        t.until("Escape character")
        assert "Connected to domain 'loop'" in t.text, t.text
        tap.wait_raw(t.master)
        os.write(t.master, b"\x1d")
        assert t.process.wait(120) == 0
        t.close()
    finally:
        virsh("destroy", "loop")


def over(uri, env=None):
    """What a transport must carry: calls, an answer longer than one packet, events, and streams both ways."""
    assert "9.0.0" in virsh("version", uri=uri, env=env) and "<capabilities>" in virsh("capabilities", uri=uri, env=env)
    watch = Terminal("event", "--event", "lifecycle", "--loop", uri=uri, env=env)
    try:
        watch.until("Defined", again=lambda: virsh("define", path("domain.xml")))
        assert "loop" in virsh("list", "--all", uri=uri, env=env)
        virsh("undefine", "loop", uri=uri, env=env)
        watch.until("Undefined")
    finally:
        watch.close()
    data = os.urandom(700000)
    with open(path("data"), "wb") as out:
        out.write(data)
    for row in (("pool-create", path("pool.xml"), "--build"), ("vol-create-as", "pool", "v", "700000"), ("vol-upload", "v", path("data"), "--pool", "pool"),
                ("vol-download", "v", path("back"), "--pool", "pool"), ("vol-delete", "v", "--pool", "pool"), ("pool-destroy", "pool")):
        virsh(*row, uri=uri, env=env)
    with open(path("back"), "rb") as back:
        assert back.read() == data


def unix_socket():
    over(unix())


def read_only():
    def ro(*command, env=None):
        return subprocess.run(["virsh", "-r", "-c", f"qemu+unix:///system?socket={DAEMON.socket_ro}", *command], capture_output=True, text=True,
                              env={**ENV, **(env or {})}, timeout=600, check=False)

    done = ro("list")
    assert done.returncode == 0, done.stderr
    watch = Terminal("-r", "event", "--event", "lifecycle", "--loop", uri=f"qemu+unix:///system?socket={DAEMON.socket_ro}")
    try:
        watch.until("Defined", again=lambda: virsh("define", path("domain.xml")))
    finally:
        watch.close()
    virsh("undefine", "loop")
    done = ro("define", path("domain.xml"))
    assert done.returncode and "read only" in done.stderr, done.stderr
    done = ro("console", "loop")
    assert done.returncode, done.stdout
    done = subprocess.run(["virsh", "-r", "-c", unix(), "define", path("domain.xml")], capture_output=True, text=True, env=ENV, timeout=600, check=False)
    assert done.returncode and "read only" in done.stderr, done.stderr


def credentials(host, password):
    return path("auth.conf", f"[credentials-x]\nauthname={USER}\npassword={password}\n[auth-libvirt-{host}]\ncredentials=x\n")


def tcp_with_digest():
    uri = f"qemu+tcp://127.0.0.1:{PORTS['tcp']}/system"
    over(uri, {"LIBVIRT_AUTH_FILE": credentials("127.0.0.1", PASSWORD)})
    done = virsh("version", uri=uri, env={"LIBVIRT_AUTH_FILE": credentials("127.0.0.1", "no")}, check=False)
    assert done.returncode and "authentication failed" in done.stderr.lower(), done.stderr


def tls():
    over(f"qemu+tls://localhost:{PORTS['tls']}/system?pkipath={WORK}/pki")
    stranger = f"qemu+tls://localhost:{PORTS['tls']}/system?pkipath={WORK}/stranger"
    assert virsh("version", uri=stranger, check=False).returncode


def tls_with_scram():
    """Names and passwords inside TLS, by a mechanism that leaves encryption to it."""
    os.makedirs(path("scram"))
    path("scram/libvirt.conf", f"mech_list: scram-sha-256\nauxprop_plugin: sasldb\nsasldb_path: {path('sasl/db')}\n")
    port = tap.free_port()
    daemon = Daemon(RUCHED, f"tls=localhost:{port}\nauth_tls=sasl\n" + TLS_FILES.format(WORK) + f"[machines]\nvmm={VMM}\n", env={"SASL_CONF_PATH": path("scram")})
    try:
        uri = f"qemu+tls://localhost:{port}/system?pkipath={WORK}/pki"
        good = {"LIBVIRT_AUTH_FILE": credentials("localhost", PASSWORD)}
        assert "9.0.0" in virsh("version", uri=uri, env=good)
        watch = Terminal("event", "--event", "lifecycle", "--loop", uri=uri, env=good)
        try:
            watch.until("Defined", again=lambda: virsh("define", path("domain.xml"), uri=uri, env=good))
        finally:
            watch.close()
        over_stream = (("pool-create", path("pool.xml"), "--build"), ("vol-create-as", "pool", "v", "700000"), ("vol-download", "v", path("back"), "--pool", "pool"),
                       ("vol-delete", "v", "--pool", "pool"), ("pool-destroy", "pool"))
        for row in over_stream:
            virsh(*row, uri=uri, env=good)
        assert os.path.getsize(path("back")) == 700000
        done = virsh("version", uri=uri, env={"LIBVIRT_AUTH_FILE": credentials("localhost", "no")}, check=False)
        assert done.returncode and "authentication failed" in done.stderr.lower(), done.stderr
    finally:
        daemon.stop()


def fake_ssh(run='exec sh -c "$*"'):
    """An ssh that runs here what it is told to run there."""
    fake = path("ssh", f"#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n{run}\n")
    os.chmod(fake, 0o755)
    return fake


def ssh_with_netcat():
    netcat = path("nc", "#!/usr/bin/python3\nimport os, selectors, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[-1])\n"
                  "w = selectors.DefaultSelector()\nw.register(0, 1)\nw.register(s, 1)\nwhile True:\n    for key, _ in w.select():\n"
                  "        data = os.read(key.fd, 65536)\n        if not data:\n            sys.exit()\n"
                  "        if key.fd:\n            os.write(1, data)\n        else:\n            s.sendall(data)\n")
    os.chmod(netcat, 0o755)
    over(f"qemu+ssh://localhost/system?command={fake_ssh()}&netcat={netcat}&proxy=netcat&socket={DAEMON.socket}")


def ssh_with_helper():
    """libvirt's own helper on the other side, which knows one place of the socket: it gets a /run/libvirt of its own."""
    if not shutil.which("virt-ssh-helper"):
        raise tap.Skip("virt-ssh-helper is not installed")
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode:
        raise tap.Skip("no mount namespaces here")
    place = f"mkdir -p /run/libvirt && mount -t tmpfs none /run/libvirt && ln -s {DAEMON.socket} /run/libvirt/libvirt-sock"
    ssh = fake_ssh(f"exec unshare -m sh -c '{place} && eval \"$*\"' sh \"$@\"")
    over(f"qemu+ssh://localhost/system?command={ssh}&proxy=native")


def virt_install():
    if not shutil.which("virt-install"):
        raise tap.Skip("virt-install is not installed")
    done = subprocess.run(["virt-install", "--connect", unix(), "--name", "installed", "--memory", "128", "--vcpus", "1", "--import",
                           "--disk", f"{WORK}/images/new.img,size=0.01,format=raw", "--osinfo", "linux2022", "--graphics", "none", "--noautoconsole",
                           "--network", "user", "--memballoon", "none"], capture_output=True, text=True, timeout=600, env=ENV, check=False)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        try_rows((("domstate installed", "running"), ("dumpxml installed", "libosinfo"), ("dominfo installed", r"Persistent: +yes"),
                  ("pool-list", "images"), ("vol-list images", r"new\.img")))
    finally:
        for command in (("destroy", "installed"), ("undefine", "installed"), ("pool-destroy", "images"), ("pool-undefine", "images")):
            virsh(*command, check=False)


SESSION = """export HOME={0}/home XDG_RUNTIME_DIR={0}/run; cd {0}
./ruched --session --config ruched.conf 2>log &
for i in $(seq 1200); do [ -S run/libvirt/libvirt-sock-ro ] && break; sleep 0.1; done
virsh -c qemu:///session define domain.xml
dbus-run-session -- sh -c '/usr/sbin/libvirt-dbus --session & for i in $(seq 600); do sleep 0.1
gdbus call --session --dest org.libvirt --object-path /org/libvirt/QEMU --method org.libvirt.Connect.DomainLookupByName loop && break; done
gdbus call --session --dest org.libvirt --object-path /org/libvirt/QEMU --method org.libvirt.Connect.ListDomains 0
kill $!'
kill $!; wait; cat log >&2"""


def session_and_dbus():
    """A person's own daemon, where libvirt's clients look for it, and libvirt-dbus on top of it."""
    if not os.path.exists("/usr/sbin/libvirt-dbus") or not shutil.which("dbus-run-session"):
        raise tap.Skip("libvirt-dbus is not installed")
    if os.geteuid():
        raise tap.Skip("only root can become a person with folders of his own")
    home = path("person")
    for folder in (home, home + "/run", home + "/home"):
        os.makedirs(folder)
        os.chown(folder, 65534, 65534)
    for program in (RUCHED, VMM):
        shutil.copy(program, home)
    with open(home + "/domain.xml", "w", encoding="ascii") as out:
        out.write(DOMAIN.replace(VMM, home + "/ruche-vmm"))
    with open(home + "/ruched.conf", "w", encoding="ascii") as out:
        out.write(f"[libvirt]\nusual_place=true\n[machines]\nvmm={home}/ruche-vmm\n")
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", SESSION.format(home)],
                          env={"PATH": "/usr/bin:/bin:/usr/sbin", "LC_ALL": "C"}, capture_output=True, text=True, timeout=600, check=False)
    assert "Domain 'loop' defined" in done.stdout, done.stdout + done.stderr
    assert re.search(r"^\(objectpath '/org/libvirt/QEMU/domain/_8f0f8a9e", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert "([objectpath '/org/libvirt/QEMU/domain/_8f0f8a9e" in done.stdout, done.stdout


def begin():
    for name, text in (("domain.xml", DOMAIN), ("disk.xml", DISK), ("pool.xml", POOL), ("volume.xml", VOLUME)):
        path(name, text)
    with open(path("disk.img"), "wb") as disk:
        disk.truncate(16 << 20)
    os.chmod(path("disk.img"), 0o666)
    os.makedirs(path("sasl"))
    os.makedirs(path("images"), 0o777)
    os.chmod(path("images"), 0o777)
    subprocess.run(["saslpasswd2", "-p", "-c", "-a", "libvirt", "-f", path("sasl/db"), USER], input=PASSWORD, text=True, check=True, capture_output=True)
    path("sasl/libvirt.conf", f"mech_list: digest-md5\nauxprop_plugin: sasldb\nsasldb_path: {path('sasl/db')}\n")
    make_pki(path("pki"))
    make_pki(path("stranger"))
    shutil.copy(path("pki/cacert.pem"), path("stranger/cacert.pem"))
    PORTS.update(tcp=tap.free_port(), tls=tap.free_port())
    settings = (f"tcp=127.0.0.1:{PORTS['tcp']}\nauth_tcp=sasl\ntls=localhost:{PORTS['tls']}\nauth_tls=none\n"
                + TLS_FILES.format(WORK) + f"[machines]\nvmm={VMM}\n")
    return Daemon(RUCHED, settings, env={"SASL_CONF_PATH": path("sasl")})


def main():
    global DAEMON
    DAEMON = begin()
    tests = (host_commands, stopped_domain_commands, running_domain_commands, storage_commands, events, console, unix_socket, read_only,
             tcp_with_digest, tls, tls_with_scram, ssh_with_netcat, ssh_with_helper, virt_install, session_and_dbus)
    try:
        tap.run({t.__name__.replace("_", " "): t for t in tests})
    finally:
        DAEMON.stop()
        shutil.rmtree(WORK, ignore_errors=True)


main()
