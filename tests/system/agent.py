#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's own guest agent in a Debian 12, asked by virsh, python3-libvirt and ruche through ruched. TAP.

    agent.py RUCHED RUCHE-VMM RUCHE-IMG RUCHE WIRE.ELF [TESTS]

The guest (tools/guest-image full) boots once; nobody logs in: the agent itself runs the commands that look at what was done.
With QEMU and again with ruche-vmm, the test itself plays the agent of a guest that is but a wire (tests/guest/wire.c).
"""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

import libvirt
import libvirt_qemu

import tap
from libvirt_rpc import Daemon

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
RUCHED, VMM, IMG, RUCHE, WIRE = (os.path.abspath(p) for p in sys.argv[1:6])
QEMU = shutil.which("qemu-system-x86_64")
BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "600"))
SECONDS = 120
WORK = tempfile.mkdtemp(prefix="agent-")
os.chmod(WORK, 0o755)
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "XDG_CONFIG_HOME": WORK}
MAC = "52:54:00:aa:bb:07"
CONNECTED, DISCONNECTED = 1, 2
DOMAIN = """<domain type='qemu'><name>agent</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{image}/vmlinuz</kernel><initrd>{image}/initrd.img</initrd>
<cmdline>quiet console=ttyS0 root=/dev/vda rw mitigations=off</cmdline></os><features><acpi/><apic/></features>
<devices><emulator>{vmm}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{work}/root.qcow2'/><target dev='vda' bus='virtio'/><serial>first</serial></disk>
<disk type='file' device='disk'><driver name='qemu' type='raw' discard='unmap'/><source file='{work}/data.img'/><target dev='vdk' bus='virtio'/></disk>
<interface type='user'><mac address='{mac}'/><model type='virtio'/></interface>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<serial type='pty'/><memballoon model='none'/></devices></domain>"""
WIRED = """<domain type='qemu'><name>agent</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{work}/wire.elf</kernel></os><features><acpi/><apic/></features>
<devices><emulator>{emulator}</emulator><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<serial type='pty'/><serial type='unix'><source mode='connect' path='{work}/wire'/><target port='1'/></serial><memballoon model='none'/></devices></domain>"""
KEYS = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJustAKeyOfNobodyAtAllForThisTestOnly01 one", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJustAKeyOfNobodyAtAllForThisTestOnly02 two"]
EVENTS = []
DAEMON = CONNECTION = DOM = None


def path(name, text=None):
    where = os.path.join(WORK, name)
    if text is not None:
        with open(where, "w", encoding="ascii") as out:
            out.write(text)
    return where


def wait(what, test, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not (value := test()):
        assert time.monotonic() < end, f"{what}: not in {seconds} s; events: {EVENTS}"
        time.sleep(0.05)
    return value


def uri():
    return f"qemu+unix:///system?socket={DAEMON.socket}"


def virsh(command, *words, error=None):
    done = subprocess.run(["virsh", "-c", uri(), command, "agent", *words], capture_output=True, text=True, timeout=600, check=False, env=ENV,
                          stdin=subprocess.DEVNULL)
    if error is None:
        assert done.returncode == 0, f"{command} {' '.join(words)}: {done.stderr.strip()}"
    else:
        assert done.returncode and error in done.stderr, f"{command} {' '.join(words)}: not '{error}': {done.stdout} {done.stderr}"
    return done.stdout


def ask(command, **arguments):
    """The agent itself."""
    text = json.dumps({"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}})
    return json.loads(libvirt_qemu.qemuAgentCommand(DOM, text, 60, 0))["return"]


def sh(command, status=0):
    """What a command in the guest prints."""
    pid = ask("guest-exec", path="/bin/sh", arg=["-c", command], capture_output=True)["pid"]
    done = wait(command, lambda: (s := ask("guest-exec-status", pid=pid))["exited"] and s)
    said = base64.b64decode(done.get("out-data", "")).decode() + base64.b64decode(done.get("err-data", "")).decode()
    assert done["exitcode"] == status, f"'{command}' ended with {done}: {said}"
    return said.strip()


def listen():
    global CONNECTION, DOM
    CONNECTION = libvirt.open(uri())
    CONNECTION.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE, lambda c, d, state, why, _: EVENTS.append(("agent", state)), None)
    CONNECTION.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, lambda c, d, _: EVENTS.append(("reboot", 0)), None)
    CONNECTION.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda c, d, what, why, _: EVENTS.append(("life", what, why)), None)
    if DOM:
        DOM = CONNECTION.lookupByName("agent")


def heard(*event):
    return wait(f"event {event}", lambda: event in EVENTS, BOOT_SECONDS)


def kill_daemon():
    DAEMON.process.kill()
    DAEMON.process.wait()
    with open(DAEMON.log_path, "ab") as log:
        DAEMON.process = subprocess.Popen(DAEMON.process.args, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    wait("ruched", DAEMON.is_ready)


# ---- tests, in this order ----

def comes():
    """Asked too early it is said to be missing; then it is told that it has come."""
    global DOM
    image = subprocess.run([os.path.join(ROOT, "tools", "guest-image"), "full"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    subprocess.run([IMG, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", os.path.join(image, "disk.img"), path("root.qcow2")], check=True)
    with open(path("data.img"), "wb") as out:
        out.truncate(64 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", path("data.img")], check=True)
    subprocess.run(["chmod", "-R", "a+rwX", WORK], check=True)
    DOM = CONNECTION.defineXML(DOMAIN.format(image=image, vmm=VMM, work=WORK, mac=MAC))
    EVENTS.clear()
    DOM.create()
    assert "state='disconnected'" in DOM.XMLDesc()
    virsh("domtime", error="agent is not connected")
    wait("the agent", lambda: ("agent", CONNECTED) in EVENTS, BOOT_SECONDS)
    assert "state='connected'" in DOM.XMLDesc()
    virsh("guest-agent-timeout", "--timeout", "60")  # the host may be slow, and the guest still boots
    assert json.loads(virsh("qemu-agent-command", '{"execute":"guest-ping"}')) == {"return": {}}
    assert "guest-fsfreeze-freeze" in virsh("qemu-agent-command", '{"execute":"guest-info"}', "--pretty", "--timeout", "60")
    virsh("qemu-agent-command", '{"execute":"guest-nothing"}', error="guest-nothing")
    sh("mkdir -p /data && mount -o discard $(ls /dev/vd? | tail -1) /data && touch /data/here && sync")


def tells_of_itself():
    """guestinfo and its parts, with each disk under the name that the machine has it by."""
    told = dict(line.split(":", 1) for line in virsh("guestinfo").split("\n") if ":" in line)
    told = {k.strip(): v.strip() for k, v in told.items()}
    assert told["os.id"] == "debian" and told["os.version-id"] == "12" and told["os.machine"] == "x86_64" and told["hostname"] == "guest", told
    assert "user.count" in told and "timezone.offset" in told, told
    mounts = {told[f"fs.{n}.mountpoint"]: n for n in range(int(told["fs.count"]))}
    for mount, target in (("/", "vda"), ("/data", "vdk")):
        n = mounts[mount]
        assert told[f"fs.{n}.fstype"] == "ext4" and told[f"fs.{n}.disk.count"] == "1" and told[f"fs.{n}.disk.0.alias"] == target, told
        assert int(told[f"fs.{n}.total-bytes"]) > int(told[f"fs.{n}.used-bytes"]), told
    disks = {told[f"disk.{n}.name"]: n for n in range(int(told["disk.count"]))}
    aliases = {told.get(f"disk.{n}.alias") for n in disks.values()}
    assert {"vda", "vdk"} <= aliases and told[f"disk.{disks['/dev/vda']}.partition"] == "no", told
    assert told[f"disk.{disks['/dev/vda']}.serial"] == "first", told
    macs = [told[f"if.{n}.hwaddr"] for n in range(int(told["if.count"])) if f"if.{n}.hwaddr" in told]
    assert MAC in macs, told
    only = virsh("guestinfo", "--disk")
    assert "disk.count" in only and "os.id" not in only, only
    assert DOM.guestInfo(libvirt.VIR_DOMAIN_GUEST_INFO_HOSTNAME) == {"hostname": "guest"}
    assert virsh("domhostname", "--source", "agent").strip() == "guest"
    rows = {row.split()[0]: row.split()[1:] for row in virsh("domfsinfo").splitlines()[2:] if row.strip()}
    assert rows["/"][1:] == ["ext4", "vda"] and rows["/data"][1:] == ["ext4", "vdk"], rows
    assert {(fs[0], tuple(fs[3])) for fs in DOM.fsInfo()} >= {("/", ("vda",)), ("/data", ("vdk",))}, DOM.fsInfo()


def addresses():
    sh(f"dev=$(basename $(dirname $(grep -ls {MAC} /sys/class/net/*/address))); ip link set $dev up && ip addr add 10.0.2.77/24 dev $dev")
    table = virsh("domifaddr", "--source", "agent", "--full")
    assert re.search(rf"{MAC}\s+ipv4\s+10\.0\.2\.77/24", table) and re.search(r"lo\s.*127\.0\.0\.1/8", table), table


def freezes():
    """While it holds nothing is written, and the agent does little else."""
    assert "2 filesystem(s)" in virsh("domfsfreeze").replace("Froze ", "")
    virsh("domtime", error="frozen")
    assert "2 filesystem(s)" in virsh("domfsthaw")
    assert "1 filesystem(s)" in virsh("domfsfreeze", "--mountpoint", "/data")
    assert "1 filesystem(s)" in virsh("domfsthaw")
    sh("echo works >/data/again && sync")
    virsh("domfsthaw", "/data", error="at once")


def trims():
    sh("dd if=/dev/urandom of=/data/big bs=1M count=8 status=none && sync")
    full = os.stat(path("data.img")).st_blocks
    sh("rm /data/big && sync && echo 3 >/proc/sys/vm/drop_caches")
    virsh("domfstrim")
    wait("the host's blocks are free", lambda: os.stat(path("data.img")).st_blocks <= full - (7 << 20) // 512)
    virsh("domfstrim", "--mountpoint", "/data", error="at once")


def passwords():
    virsh("set-user-password", "root", "one two")
    shadow = sh("grep ^root: /etc/shadow").split(":")[1]
    assert shadow.startswith("$"), shadow
    virsh("set-user-password", "root", "$6$salt$hash", "--encrypted")
    assert sh("grep ^root: /etc/shadow").split(":")[1] == "$6$salt$hash"
    virsh("set-user-password", "nobodyatall", "x", error="refuses 'guest-set-user-password'")


def clock():
    now = int(virsh("domtime").split()[1])
    assert abs(now - time.time()) < 3600, now
    virsh("domtime", "--time", "1000000000")
    assert 1000000000 <= int(sh("date +%s")) < 1000000600
    shown = DOM.getTime()
    assert 1000000000 <= shown["seconds"] < 1000000600 and 0 <= shown["nseconds"] < 10**9, shown
    virsh("domtime", "--now")
    assert abs(int(virsh("domtime").split()[1]) - time.time()) < 600
    assert re.search(r"Time: 20\d\d-", virsh("domtime", "--pretty"))


def processors():
    told = virsh("guestvcpus")
    assert re.search(r"vcpus\s*: 0-1", told) and re.search(r"online\s*: 0-1", told) and re.search(r"offlinable\s*: 1", told), told
    virsh("guestvcpus", "--cpulist", "1", "--disable")
    assert sh("nproc") == "1" and virsh("vcpucount", "--guest", "--live").strip() == "1"
    virsh("setvcpus", "2", "--guest")
    assert sh("nproc") == "2"
    virsh("guestvcpus", "--cpulist", "0", "--disable", error="vCPU 0")
    virsh("guestvcpus", "--cpulist", "7", "--disable", error="vCPU 7")


def keys():
    virsh("set-user-sshkeys", "root", "--file", path("one", KEYS[0] + "\n"), "--reset")
    virsh("set-user-sshkeys", "root", "--file", path("two", KEYS[1] + "\n"))
    told = virsh("get-user-sshkeys", "root")
    assert all(key in told for key in KEYS) and set(DOM.authorizedSSHKeysGet("root")) == set(KEYS), told
    virsh("set-user-sshkeys", "root", "--file", path("one"), "--remove")
    assert sh("cat /root/.ssh/authorized_keys") == KEYS[1]
    virsh("set-user-sshkeys", "nobodyatall", "--file", path("one"), error="nobodyatall")


def goes_and_comes():
    """An agent that ends, and one that starts again; a manager that is killed knows that it is there."""
    EVENTS.clear()
    script = "systemctl stop qemu-guest-agent; while grep -q 1 /sys/class/net/e*/carrier; do sleep 0.1; done; systemctl start qemu-guest-agent"
    ask("guest-exec", path="/usr/bin/systemd-run", arg=["-q", "sh", "-c", script])  # nobody will be there to say how it ended
    heard("agent", DISCONNECTED)
    virsh("domhostname", "--source", "agent", error="not connected")
    wait("the description", lambda: "state='disconnected'" in DOM.XMLDesc())
    virsh("domif-setlink", MAC, "down")  # which it waits for
    heard("agent", CONNECTED)
    assert sh("ls /data/here") == "/data/here"
    kill_daemon()
    listen()
    assert "state='connected'" in DOM.XMLDesc()
    assert virsh("domhostname", "--source", "agent").strip() == "guest"


def ruche(*words):
    done = subprocess.run([RUCHE, "--connect", os.path.join(DAEMON.run, "ruche.sock"), *words], capture_output=True, text=True, timeout=600, check=False,
                          env=ENV, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"ruche {' '.join(words)}: {done.stderr}"
    return done.stdout


def reboots_and_ends():
    """Both from the same moment: the machine is saved, reboots, is restored as it was, and shuts down."""
    sh("umount /data; sync")
    virsh("save", path("saved"), "--running")
    shutil.copy(path("root.qcow2"), path("kept.qcow2"))
    restored()
    virsh("reboot", "--mode", "agent")
    heard("agent", DISCONNECTED)
    heard("reboot", 0)
    virsh("destroy")
    shutil.copy(path("kept.qcow2"), path("root.qcow2"))
    restored()
    ruche("shutdown", "agent", "--mode", "agent")
    heard("life", libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)
    assert DOM.state() == [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN], DOM.state()


def restored():
    """The file stays, and the agent is there at once."""
    EVENTS.clear()
    CONNECTION.restore(path("saved"))
    assert "state='connected'" in DOM.XMLDesc()
    assert virsh("domhostname", "--source", "agent").strip() == "guest"


# ---- an agent of the test's own ----

class Wire:
    """The other end of the guest that is a wire."""

    OPEN, CLOSE, OFF = b"\1", b"\2", b"\3"
    ANSWERS = {
        "guest-ping": {}, "guest-get-host-name": {"host-name": "wire"},
        "guest-network-get-interfaces": [{"name": "eth0", "hardware-address": MAC,
                                          "ip-addresses": [{"ip-address-type": "ipv4", "ip-address": "10.9.8.7", "prefix": 24}]}],
    }

    def __init__(self, listener):
        self.socket, self.asked, self.silent = listener.accept()[0], [], False
        threading.Thread(target=self.serve, daemon=True).start()

    def say(self, **answer):
        self.socket.sendall(json.dumps(answer).encode() + b"\n")

    def serve(self):
        for line in self.socket.makefile("rb"):
            request = json.loads(line.lstrip(b"\xff"))
            command = request["execute"]
            self.asked.append((command, request.get("arguments")))
            if command == "guest-shutdown":
                self.socket.sendall(self.OFF)
            elif self.silent:
                continue
            elif command == "guest-sync":
                self.say(**{"return": request["arguments"]["id"]})
            elif command in self.ANSWERS:
                self.say(**{"return": self.ANSWERS[command]})
            else:
                self.say(error={"class": "CommandNotFound", "desc": f"nobody knows {command}"})


def wired(emulator):
    """It comes, answers, refuses, is silent, goes; the manager is killed; the guest is told to shut down."""
    global DOM
    if not emulator:
        raise tap.Skip("qemu-system-x86_64 is not installed")
    shutil.copy(WIRE, path("wire.elf"))
    EVENTS.clear()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path("wire"))
        listener.listen()
        subprocess.run(["chmod", "-R", "a+rwX", WORK], check=True)
        DOM = CONNECTION.defineXML(WIRED.format(work=WORK, emulator=emulator))
        DOM.create()
        listener.settimeout(SECONDS)
        wire = Wire(listener)
    os.unlink(path("wire"))
    assert "state='disconnected'" in DOM.XMLDesc()
    virsh("domtime", error="agent is not connected")
    wire.socket.sendall(Wire.OPEN)
    heard("agent", CONNECTED)
    wait("the description", lambda: "state='connected'" in DOM.XMLDesc())
    virsh("guest-agent-timeout", "--timeout", "60")
    assert json.loads(virsh("qemu-agent-command", '{"execute":"guest-ping"}')) == {"return": {}}
    assert re.search(rf"eth0\s+{MAC}\s+ipv4\s+10\.9\.8\.7/24", virsh("domifaddr", "--source", "agent"))
    virsh("domfsinfo", error="refuses 'guest-get-fsinfo': nobody knows")
    wire.silent = True
    virsh("qemu-agent-command", "--timeout", "1", '{"execute":"guest-ping"}', error="no answer in time")
    wire.silent = False
    wire.say(**{"return": {"host-name": "late"}})  # nobody's answer any more
    assert virsh("domhostname", "--source", "agent").strip() == "wire"
    EVENTS.clear()
    wire.socket.sendall(Wire.CLOSE)
    heard("agent", DISCONNECTED)
    virsh("domhostname", "--source", "agent", error="not connected")
    wire.socket.sendall(Wire.OPEN)
    heard("agent", CONNECTED)
    kill_daemon()
    listen()
    assert "state='connected'" in DOM.XMLDesc()
    assert virsh("domhostname", "--source", "agent").strip() == "wire"
    virsh("shutdown", "--mode", "agent")
    heard("life", libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)
    assert wire.asked[-1] == ("guest-shutdown", {"mode": "powerdown"}), wire.asked
    DOM.undefine()


def wired_with_qemu():
    wired(QEMU)


def wired_with_ruche_vmm():
    wired(VMM)


def main():
    global DAEMON
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()

    def turn():
        while True:
            libvirt.virEventRunDefaultImpl()

    threading.Thread(target=turn, daemon=True).start()
    DAEMON = Daemon(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\n")
    tests = (wired_with_qemu, wired_with_ruche_vmm, comes, tells_of_itself, addresses, freezes, trims, passwords, clock, processors, keys, goes_and_comes, reboots_and_ends)
    only = sys.argv[6:]
    first = [] if all(name.startswith("wired") for name in only) else ["comes"]
    try:
        listen()
        tap.run({t.__name__.replace("_", " "): t for t in tests if not only or t.__name__ in first + only})
    finally:
        subprocess.run(["virsh", "-c", uri(), "destroy", "agent"], capture_output=True, check=False, env=ENV)
        DAEMON.stop()
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
