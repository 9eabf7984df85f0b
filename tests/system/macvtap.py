#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Macvtap networks in all modes, with machines whose guest sends what it is told to and prints what it hears
(tests/guest/frames.c); ruched in a network namespace of its own. TAP.

    macvtap.py RUCHED RUCHE RUCHE-VMM FRAMES
"""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import frames  # noqa: E402
import network as ground  # noqa: E402
import tap  # noqa: E402
from frames import ALL, Ear, raw  # noqa: E402
from network import HOST, OUTSIDE, RUN, WORK, links, remove, run, virsh, wait_for, write  # noqa: E402

# Networks: their mode, and the interfaces of the host that they lend.
NETWORKS = {"bridged": ("bridge", ("mb",)), "vepa": ("vepa", ("mv",)), "private": ("private", ("mp",)), "through": ("passthrough", ("m0", "m1")),
            "pool": ("bridge", ("q0", "q1"))}
MACHINES = "ab"


def mac(machine, net):
    return f"52:54:00:09:0{machine}:{list(NETWORKS).index(net) + 1:02x}"


def lower_of(machine, net):
    """Which of the network's interfaces the machine has: of the ones for themselves, a's is the first."""
    lowers = NETWORKS[net][1]
    return lowers[MACHINES.index(machine) % len(lowers)]


def said(machine):
    return frames.said(f"{WORK}/{machine}.serial")


def describe(machine, nets=tuple(NETWORKS)):
    interfaces = "".join(f"<interface type='network'><mac address='{mac(machine, n)}'/><source network='{n}'/><model type='virtio'/>"
                         f"<address type='pci' domain='0' bus='0' slot='{5 + i}' function='0'/></interface>" for i, n in enumerate(nets))
    return f"""<domain type='qemu'><name>{machine}</name><uuid>5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a0{machine}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{ground.KERNEL}</kernel></os><devices><emulator>{ground.VMM}</emulator>{interfaces}
<serial type='file'><source path='{WORK}/{machine}.serial'/></serial><memballoon model='none'/></devices></domain>"""


def start(machine):
    virsh("start", machine)
    wait_for(f"the guest of {machine}", lambda: f"ready with {len(NETWORKS)}" in said(machine))


def macvtaps():
    return [name for name in links() if name.startswith("macvtap")]


EARS = {}
COUNT = [0]


def word():
    COUNT[0] += 1
    return f"word{COUNT[0]}"


def wire(machine, net):
    return EARS[OUTSIDE, lower_of(machine, net)]


def tell(machine, net, to):
    """The machine sends a frame; its text, once it has left."""
    text = word()
    wire(machine, net).bid(raw(mac(machine, net)), to, text)
    wait_for(f"{machine} on {net}", lambda: f"sent {text} " in said(machine))
    return text


def heard(machine, net, text):
    """Whether the machine got it: frames that were sent later are waited for."""
    later = word()
    wire(machine, net).say(raw(mac(machine, net)), later)
    wait_for(f"{machine} on {net}", lambda: f"heard {later} " in said(machine))
    return f"{mac(machine, net)} heard {text} " in said(machine)


def one_mode(net):
    """Who reaches whom: a set of words."""
    reach, address = set(), {m: raw(mac(m, net)) for m in MACHINES}
    outside, host = wire("a", net), EARS[HOST, lower_of("a", net)]
    if heard("a", net, ""):
        raise AssertionError("an empty word")
    reach.add("outside to machine")  # or heard() would not have come back
    if outside.hears(tell("a", net, outside.mac), 30):
        reach.add("machine to outside")
    text = tell("a", net, address["b"])
    if heard("b", net, text):
        reach.add("machine to machine")
    if outside.hears(text):
        reach.add("by the switch")
        outside.reflect(text)
        if heard("b", net, text):
            reach.add("reflected")
    text = tell("a", net, ALL)
    if heard("b", net, text):
        reach.add("to all machines")
    assert outside.hears(text, 30), "a broadcast leaves"
    outside.reflect(text)
    if heard("b", net, text) and "to all machines" not in reach:
        reach.add("to all machines, reflected")
    text = tell("a", net, host.mac)
    if host.hears(text):
        reach.add("machine to host")
    text = word()
    host.say(address["a"], text)
    if heard("a", net, text):
        reach.add("host to machine")
    return reach


# What libvirt's formatdomain says of <source mode=''>: with a switch that sends nothing back, and with one that does.
REACH = {
    "bridged": {"machine to machine", "to all machines"},
    "vepa": {"by the switch", "reflected", "to all machines, reflected"},
    "private": {"by the switch", "reflected"},  # of unicast the kernel does not look who sent it
    "through": {"by the switch"},
    "pool": {"by the switch"},  # machines on different interfaces
}


def test_modes():
    for machine in MACHINES:
        virsh("define", write(machine + ".xml", describe(machine)))
        start(machine)
    live = virsh("dumpxml", "a").stdout
    for net, (mode, lowers) in NETWORKS.items():
        assert re.search(rf"<source network='{net}' portid='[0-9a-f-]+' dev='{lowers[0]}' mode='{mode}'/>", live), live
    wrong = {net: (found, wanted) for net, wanted in REACH.items()
             if (found := one_mode(net)) != wanted | {"outside to machine", "machine to outside"}}
    assert not wrong, wrong


def test_pools():
    """Who has which interface is counted; what is for one alone is given to one."""
    for net, counts in {"bridged": ("2",), "through": ("1", "1"), "pool": ("1", "1")}.items():
        text = virsh("net-dumpxml", net).stdout
        assert re.findall(r"<interface dev='\w+' connections='(\d)'/>", text) == list(counts) and "<network connections='2'" in text, text
    virsh("define", write("c.xml", describe("c", ("through",))))
    done = virsh("start", "c", check=False)
    assert done.returncode and "network 'through': all its 2 interfaces are taken, each by one machine" in done.stderr, done.stderr
    direct = describe("c", ("through",)).replace("type='network'", "type='direct'").replace("<source network='through'/>", "<source dev='m0' mode='passthrough'/>")
    virsh("define", write("c.xml", direct))
    before = macvtaps()
    done = virsh("start", "c", check=False)
    assert done.returncode and "on 'm0' cannot be made in mode 'passthrough'" in done.stderr, done.stderr
    assert macvtaps() == before
    trusting = write("trusting.xml", direct.replace("<interface type='direct'", "<interface type='direct' trustGuestRxFilters='yes'"))
    done = virsh("define", trusting, check=False)
    assert done.returncode and "follow the filters that its guest" in done.stderr, done.stderr
    virsh("undefine", "c")


def process_of(machine):
    with open(f"{RUN}/machines/5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a0{machine}/process", encoding="ascii") as f:
        return int(f.read())


def nothing_left():
    return not macvtaps() and not any("connections" in virsh("net-dumpxml", n).stdout for n in NETWORKS)


def test_kill():
    """A manager that is killed finds its machines again; of what ended meanwhile, or was begun, nothing is left."""
    ground.MANAGER.end(signal.SIGKILL)
    ground.MANAGER.start()
    assert len(macvtaps()) == 10 and "connections='2'" in virsh("net-dumpxml", "bridged").stdout
    pid = process_of("a")
    ground.MANAGER.end(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    ground.MANAGER.start()
    wait_for("a's end", lambda: len(macvtaps()) == 5 and "shut off" in virsh("domstate", "a").stdout)
    virsh("destroy", "b")
    wait_for("b's end", nothing_left)
    chance = random.Random(seed := int(os.environ.get("SEED", time.time())))
    for _ in range(4):
        done = subprocess.Popen(["virsh", "-c", f"qemu+unix:///system?socket={RUN}/libvirt-sock", "start", "a"], stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL, env=ground.ENV)
        time.sleep(chance.uniform(0, 0.4))
        ground.MANAGER.end(signal.SIGKILL)
        done.wait(60)
        ground.MANAGER.start()
        if "shut off" in virsh("domstate", "a").stdout:
            wait_for(f"seed {seed}: nothing of a start that was cut off", nothing_left)
        else:
            assert len(macvtaps()) == 5, (seed, macvtaps())
            virsh("destroy", "a")
            wait_for("its end", nothing_left)


def build():
    ground.build_world()
    for mode, lowers in NETWORKS.values():
        for dev in lowers:
            run("ip", "link", "add", dev, "netns", HOST, "type", "veth", "peer", "name", dev, "netns", OUTSIDE)
            for ns in (HOST, OUTSIDE):
                run("sysctl", "-qw", f"net.ipv6.conf.{dev}.disable_ipv6=1", ns=ns)
                run("ip", "link", "set", dev, "up", ns=ns)
                EARS[ns, dev] = Ear(ns, dev)
    ground.MANAGER = ground.Manager()
    for net, (mode, lowers) in NETWORKS.items():
        devices = "".join(f"<interface dev='{d}'/>" for d in lowers)
        virsh("net-define", write("net.xml", f"<network><name>{net}</name><forward mode='{mode}'>{devices}</forward></network>"), "--validate")
        virsh("net-start", net)


def has_macvtap():
    found = not run("ip", "link", "add", "link", "up0", "name", "try0", "type", "macvtap", ns=HOST, check=False).returncode
    run("ip", "link", "del", "try0", ns=HOST, check=False)
    return found


def main():
    tests = {"modes": test_modes, "pools": test_pools, "killed": test_kill}
    missing = [p for p in ("ip", "virsh") if not shutil.which(p, path=ground.ENV["PATH"])]
    why = "needs root" if os.geteuid() else f"{missing[0]} is not installed" if missing else None

    def skip():
        raise tap.Skip(why)
    if why:
        tap.run({n: skip for n in tests})
    try:
        build()
        if not has_macvtap():
            why = "this kernel has no macvtap"
        tap.run({n: skip for n in tests} if why else tests)
    finally:
        if ground.MANAGER and ground.MANAGER.process.poll() is None:
            for machine in MACHINES:
                virsh("destroy", machine, check=False)
            remove(*NETWORKS)
        ground.end()


if __name__ == "__main__":
    main()
