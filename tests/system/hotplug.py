#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hot plug as people do it: virsh and python3-libvirt against ruched, with a Debian 12 that uses what comes. TAP.

    hotplug.py RUCHED EMULATOR     ruche-vmm, or a qemu-system-x86_64
"""
import os
import re
import subprocess
import sys
import threading
import time
import uuid

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import libvirt  # noqa: E402

import tap  # noqa: E402
from guest import Console, copy_disk  # noqa: E402
from libvirt_rpc import Daemon  # noqa: E402

RUCHED, VMM = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
OURS = "ruche" in os.path.basename(VMM)
UUID = str(uuid.uuid4())
WORK = tap.folder("hotplug-")
os.chmod(WORK, 0o755)
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "XDG_CONFIG_HOME": WORK}
BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "1200"))
GONE_SECONDS = 120
ROUNDS = 4
MAC = "52:54:00:aa:bb:01"
DAEMON = CONSOLE = None
EVENTS = []

PORTS = "".join("<controller type='pci' model='pcie-root-port'/>" for _ in range(6))
DOMAIN = """<domain type='qemu'><name>hot</name><uuid>{uuid}</uuid>
<memory unit='MiB'>512</memory><vcpu current='1'>4</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{image}/vmlinuz</kernel><initrd>{image}/initrd.img</initrd>
<cmdline>console=ttyS0 root=/dev/vda rw</cmdline></os><features><acpi/><apic/></features>
<devices><emulator>{vmm}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{work}/root.img'/><target dev='vda' bus='virtio'/></disk>
<controller type='virtio-serial' index='0'/>{ports}
<serial type='unix'><source mode='bind' path='{work}/serial'/></serial><memballoon model='none'/></devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='{type}'/><source file='{work}/{file}'/>
<target dev='{dev}' bus='virtio'/></disk>"""
CARD = f"<interface type='user'><mac address='{MAC}'/><model type='virtio'/></interface>"
RNG = "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"
CHANNEL = "<channel type='unix'><source mode='bind'/><target type='virtio' name='org.ruche.hot'/></channel>"


def path(name, text=None):
    where = os.path.join(WORK, name)
    if text is not None:
        with open(where, "w", encoding="ascii") as out:
            out.write(text)
    return where


def uri():
    return f"qemu+unix:///system?socket={DAEMON.socket}"


def virsh(*command, check=True):
    done = subprocess.run(["virsh", "-c", uri(), *command], capture_output=True, text=True, timeout=600, check=False, env=ENV,
                          stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout if check else done


def sh(command, seconds=120):
    status, output = CONSOLE.run(command, seconds)
    assert status == 0, f"'{command}' ended with {status}: {output}"
    return output


def wait_guest(command, seconds=120):
    sh(f"no=1; for i in $(seq {seconds * 5}); do if {command}; then no=0; break; fi; sleep 0.2; done; test $no = 0", seconds + 60)


def wait(what, seconds=GONE_SECONDS):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen; the description: " + virsh("dumpxml", "hot")
        time.sleep(0.05)


def live():
    return virsh("dumpxml", "hot")


def monitor(command):
    return virsh("qemu-monitor-command", "hot", command)


def resources():
    """Descriptors and threads of the machine's process."""
    pid = machine_pid()
    return len(os.listdir(f"/proc/{pid}/fd")), tap.lasting_threads(pid)


def machine_pid():
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as f:
                words = f.read().split(b"\0")
        except OSError:
            continue
        if words and os.path.basename(words[0].decode()) == os.path.basename(VMM) and UUID.encode() in words:
            return int(entry)
    raise AssertionError("there is no process of the machine")


def listen():
    libvirt.virEventRegisterDefaultImpl()
    connection = libvirt.open(uri())
    for name in ("DEVICE_ADDED", "DEVICE_REMOVED", "DEVICE_REMOVAL_FAILED"):
        connection.domainEventRegisterAny(None, getattr(libvirt, f"VIR_DOMAIN_EVENT_ID_{name}"),
                                          lambda c, d, alias, opaque: EVENTS.append((opaque, alias)), name)

    def run():
        while True:
            libvirt.virEventRunDefaultImpl()
    threading.Thread(target=run, daemon=True).start()
    return connection


def boots():
    """A machine of one vCPU that may have four."""
    global CONSOLE
    image = subprocess.run([os.path.join(ROOT, "tools", "guest-image")], check=True, stdout=subprocess.PIPE,
                           text=True).stdout.strip()
    copy_disk(os.path.join(image, "disk.img"), path("root.img"))
    for name in ("a.img", "b.img"):
        with open(path(name), "wb") as disk:
            disk.truncate(64 << 20)
    subprocess.run(["chmod", "-R", "a+rw", WORK], check=True)
    virsh("define", path("hot.xml", DOMAIN.format(uuid=UUID, image=image, vmm=VMM, work=WORK, ports=PORTS)))
    virsh("start", "hot")
    CONSOLE = Console(path("serial"))
    CONSOLE.send("\n")
    CONSOLE.login(BOOT_SECONDS)
    sh("systemctl is-system-running --wait || true", 240)
    assert sh("nproc") == "1"


def disk_comes_and_goes():
    before = resources()
    for n in range(ROUNDS):
        virsh("attach-disk", "hot", path("a.img"), "vdb", "--driver", "qemu", "--subdriver", "raw", "--live")
        assert "a.img" in live() and "a.img" not in virsh("dumpxml", "hot", "--inactive")
        wait_guest("test -b /dev/vdb")
        sh("mkfs.ext4 -q -F /dev/vdb && mkdir -p /data && mount /dev/vdb /data && cp /bin/bash /data && sync && "
           "cmp /bin/bash /data/bash && umount /data", 240)
        virsh("detach-disk", "hot", "vdb", "--live")
        wait(lambda: "a.img" not in live())
        wait_guest("test ! -e /dev/vdb")
        wait(lambda: "a.img" not in monitor('{"execute":"query-named-block-nodes"}'))
        wait(lambda: not re.search(r'"fdset-id":\d{4}', monitor('{"execute":"query-fdsets"}')))  # those behind the start's
        if n == 0:
            first = resources()
    wait(lambda: resources() <= first, 20)
    assert resources()[0] <= before[0] + 2, f"{before} became {resources()}"
    wait(lambda: EVENTS.count(("DEVICE_ADDED", "virtio-disk1")) == ROUNDS, 20)
    wait(lambda: EVENTS.count(("DEVICE_REMOVED", "virtio-disk1")) == ROUNDS, 20)


def card_comes_and_goes():
    for _ in range(2):
        virsh("attach-device", "hot", path("card.xml", CARD), "--live")
        wait_guest(f"cat /sys/class/net/*/address 2>/dev/null | grep -q {MAC}")
        name = sh(f"udevadm settle; basename $(dirname $(grep -ls {MAC} /sys/class/net/*/address))")
        sh(f"ip link set {name} up && ip addr add 10.0.2.77/24 dev {name}")
        wait_guest(f"test $(cat /sys/class/net/{name}/carrier) = 1")
        sh(f"(echo > /dev/tcp/10.0.2.2/1) 2>&1 | grep -q refused; ip neigh show dev {name} | grep -q 10.0.2.2", 200)
        virsh("domif-setlink", "hot", MAC, "down")
        wait_guest(f"test $(cat /sys/class/net/{name}/carrier) = 0")
        virsh("update-device", "hot", path("up.xml", CARD.replace("</interface>", "<link state='up'/></interface>")), "--live")
        wait_guest(f"test $(cat /sys/class/net/{name}/carrier) = 1")
        virsh("detach-interface", "hot", "user", "--mac", MAC, "--live")
        wait(lambda: MAC not in live())
        wait_guest(f"test ! -e /sys/class/net/{name}")


def small_ones():
    """A source of randomness, a channel; taken out by alias, too."""
    virsh("attach-device", "hot", path("rng.xml", RNG), "--live")
    wait_guest("test $(ls -d /sys/bus/virtio/drivers/virtio_rng/virtio* | wc -l) -ge 1")
    alias = re.search(r"<rng.*?<alias name='([^']+)'", live(), re.DOTALL).group(1)
    virsh("detach-device-alias", "hot", alias, "--live")
    wait(lambda: "<rng" not in live())
    for _ in range(2):
        virsh("attach-device", "hot", path("channel.xml", CHANNEL), "--live")
        wait_guest("test -c /dev/virtio-ports/org.ruche.hot")
        virsh("detach-device", "hot", path("channel.xml", CHANNEL), "--live")
        wait(lambda: "org.ruche.hot" not in live())
        wait_guest("test ! -e /dev/virtio-ports/org.ruche.hot")


def processors():
    """1 -> 4 -> 2, then single ones."""
    def online(count):
        sh("for c in /sys/devices/system/cpu/cpu*/online; do grep -q 1 $c || echo 1 >$c; done")
        wait_guest(f"test $(nproc) = {count}")
    virsh("setvcpus", "hot", "4", "--live")
    wait_guest("test $(ls -d /sys/devices/system/cpu/cpu? | wc -l) = 4")
    online(4)
    assert "<vcpu placement='static'>4<" in live() or re.search(r"<vcpu[^>]*>4<", live())
    assert len(virsh("vcpuinfo", "hot").split("VCPU:")) == 5
    virsh("setvcpus", "hot", "2", "--live")
    wait_guest("test $(nproc) = 2")
    assert "current='2'" in live()
    virsh("setvcpu", "hot", "3", "--enable", "--live")
    wait_guest("test -d /sys/devices/system/cpu/cpu3")
    online(3)
    virsh("setvcpu", "hot", "1,3", "--disable", "--live")
    wait_guest("test $(nproc) = 1")
    assert "current='1'" in live()
    done = virsh("setvcpus", "hot", "5", "--live", check=False)
    assert "greater than max allowable" in done.stderr, done.stderr
    done = virsh("setvcpu", "hot", "0", "--disable", "--live", check=False)
    assert done.returncode and "vCPU 0" in done.stderr, done.stderr
    virsh("setvcpu", "hot", "1", "--enable", "--config")
    assert "current='2'" in virsh("dumpxml", "hot", "--inactive")


def refused():
    """What cannot be changes nothing."""
    before = live()
    for device, part in ((DISK.format(type="raw", work=WORK, file="nothing.img", dev="vdb"), "nothing.img"),
                         (DISK.format(type="raw", work=WORK, file="a.img", dev="vda"), "vda"),
                         (CARD.replace("virtio", "e1001").replace(MAC, "52:54:00:aa:bb:02"), "e1001"),
                         ("<watchdog model='i6300esb'/>" if OURS else "<sound model='ich6'/>", "")):
        done = virsh("attach-device", "hot", path("bad.xml", device), "--live", check=False)
        assert done.returncode and part in done.stderr, f"{device}: {done.stderr}"
    done = virsh("detach-disk", "hot", "vdz", "--live", check=False)
    assert done.returncode, done.stdout
    assert live() == before


def found_again():
    """A manager that was killed takes out what it does not remember having put in."""
    virsh("attach-disk", "hot", path("b.img"), "vdc", "--driver", "qemu", "--subdriver", "raw", "--live")
    wait_guest("test -b /dev/vdb || test -b /dev/vdc")
    DAEMON.process.kill()
    DAEMON.process.wait()
    with open(DAEMON.log_path, "ab") as log:
        DAEMON.process = subprocess.Popen(DAEMON.process.args, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    wait(DAEMON.is_ready)
    wait(lambda: "b.img" in live())
    virsh("detach-disk", "hot", "vdc", "--live")
    wait(lambda: "b.img" not in live())
    wait(lambda: "b.img" not in monitor('{"execute":"query-named-block-nodes"}'))
    virsh("attach-disk", "hot", path("b.img"), "vdc", "--driver", "qemu", "--subdriver", "raw", "--live")
    wait_guest("test -b /dev/vdb || test -b /dev/vdc")
    virsh("detach-disk", "hot", "vdc", "--live")
    wait(lambda: "b.img" not in live())


def main():
    global DAEMON
    tests = (boots, disk_comes_and_goes, card_comes_and_goes, small_ones, processors, refused, found_again)
    only = sys.argv[3:]
    DAEMON = Daemon(RUCHED)
    try:
        connection = listen()
        tap.run({t.__name__: t for t in tests if not only or t.__name__ in ["boots", *only]})
        connection.close()
    finally:
        subprocess.run(["virsh", "-c", uri(), "destroy", "hot"], capture_output=True, check=False, env=ENV)
        DAEMON.stop()


if __name__ == "__main__":
    main()
