#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Machines whose cards are served by DPDK's testpmd over vhost-user, with a guest that sends and answers (tests/guest/pings.c). TAP.

    vhost_user.py RUCHE-VMM PINGS.ELF [TESTS]

testpmd passes frames between its ports 0 and 1, and 2 and 3. It needs no huge pages here.
"""
import contextlib
import os
import shutil
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import Vmm  # noqa: E402
from testpmd import Switch as AnySwitch, wait_for  # noqa: E402

VMM, PAYLOAD = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
SECONDS = int(os.environ.get("RUCHE_WAIT_SECONDS", "120"))
WORK = tempfile.mkdtemp(prefix="ruche-vhost-")


def path(name):
    return os.path.join(WORK, name)


class Switch(AnySwitch):
    def __init__(self, name, client=False):
        super().__init__(WORK, name, client)


class Machine(Vmm):
    def __init__(self, me, socket, *more, append="", server=False, accel="soft", pairs=1, card="", chardev="", netdev=None):
        chardev = ",server=on,wait=off" if server else chardev
        vhost = ["-chardev", f"socket,id=c0,path={socket}{chardev}", "-netdev", f"vhost-user,id=n0,chardev=c0,queues={pairs}"]
        super().__init__(VMM, [
            "-accel", accel, "-m", "64M", "-kernel", PAYLOAD, "-append", f"me={me} pairs={pairs} {append}",
            *(["-netdev", f"socket,id=n0,{netdev}"] if netdev else vhost),
            "-device", f"virtio-net-pci,netdev=n0,id=card,mq={'on' if pairs > 1 else 'off'}{card}", *more])

    def says(self, pattern):
        return self.console.expect(pattern, SECONDS)

    def ready(self):
        if "up" not in self.says(r"card, link (up|down)\n").group(1):
            self.says(r"link up\n")
        return self

    def pings(self, pairs=1):
        self.console.send("p")
        for pair in range(pairs):
            self.says(rf"pong {pair} \d+\n")

    def network(self):
        return self.qmp.execute("human-monitor-command", command_line="info network")

    def counters(self):
        return next(d for d in self.qmp.execute("x-ruche-query-counters") if d.get("id") == "card")


@contextlib.contextmanager
def two(switch, **how):
    with Machine(1, switch.port(0), **how) as a, Machine(2, switch.port(1), **how) as b:
        a.ready()
        b.ready()
        yield a, b


def test_two_machines():
    with Switch("s") as s, two(s, chardev=",reconnect=1") as (a, b):
        a.pings()
        b.pings()
        assert "agreed,running" in a.network(), a.network()
        a.console.send("r")
        a.says("card again\n")
        a.pings()
        b.qmp.execute("stop")
        b.qmp.execute("cont")
        b.qmp.execute("set_link", name="n0", up=False)
        b.says("link down\n")
        b.qmp.execute("set_link", name="n0", up=True)
        b.says("link up\n")
        b.pings()
        a.qmp.execute("system_reset")
        a.ready()
        a.pings()
        # the switch dies without a word
        s.kill()
        a.says("link down\n")
        b.says("link down\n")
        assert "not connected" in a.network()
        a.qmp.execute("stop")
        a.qmp.execute("cont")
        s.start()
        a.says("link up\n")
        b.says("link up\n")
        a.pings()
        b.pings()
        # or hangs: the machine stops all the same, and goes on
        os.kill(s.process.pid, 19)
        a.qmp.execute("stop")
        assert a.qmp.execute("query-status")["status"] == "paused"
        s.kill()
        for m in (a, b):
            m.qmp.execute("quit")
            assert m.wait(SECONDS) == 0, m.errors()


def test_server_and_queues():
    """The machines listen, and are there before the switch."""
    name = path("c")
    with Machine(1, name + "0", server=True, pairs=2, append="late=1") as a, Machine(2, name + "1", server=True, pairs=2, append="late=1") as b:
        assert "not connected" in a.network()
        with Switch("c", client=True) as s:
            a.ready()
            b.ready()
            a.pings(2)
            s.kill()
            a.says("link down\n")
            b.says("link down\n")
            s.start()
            a.says("link up\n")
            b.says("link up\n")
            b.pings(2)


def test_packed_rings():
    with Switch("p") as s, two(s, append="packed=1", card=",packed=on") as (a, b):
        a.pings()
        a.qmp.execute("stop")
        a.qmp.execute("cont")
        a.pings()
        b.pings()


def test_migration():
    """From port 0 to port 2 while frames pass; the neighbour there answers."""
    with Switch("m") as s, two(s) as (a, b), Machine(3, s.port(3)) as c:
        c.ready()
        with Machine(1, s.port(2), "-incoming", f"unix:{path('in')}") as moved:
            b.console.send("p" * 50)
            a.qmp.execute("migrate", uri=f"unix:{path('in')}")
            wait_for("the migration", lambda: a.qmp.execute("query-migrate")["status"] in ("completed", "failed"))
            assert a.qmp.execute("query-migrate")["status"] == "completed", a.qmp.execute("query-migrate")
            wait_for("the machine", lambda: moved.qmp.execute("query-status")["status"] == "running")
            moved.pings()
            c.pings()


def test_kvm():
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        raise tap.Skip("no /dev/kvm")
    with Switch("k") as s, two(s, accel="kvm") as (a, b):
        a.pings()
        b.pings()


def test_cables():
    """-netdev socket: two machines on each kind of cable."""
    tcp, one, other, group = (tap.free_port() for _ in range(4))
    here = "127.0.0.1"
    for a_end, b_end in ((f"listen={here}:{tcp}", f"connect={here}:{tcp}"),
                         (f"udp={here}:{other},localaddr={here}:{one}", f"udp={here}:{one},localaddr={here}:{other}"),
                         (f"mcast=230.0.0.1:{group},localaddr={here}", f"mcast=230.0.0.1:{group},localaddr={here}")):
        with Machine(1, None, netdev=a_end) as a, Machine(2, None, netdev=b_end) as b:
            a.ready()
            b.ready()
            a.pings()
            b.pings()
            if "connect" in b_end:  # another client, after the first
                b.qmp.execute("quit")
                b.wait(SECONDS)
                with Machine(3, None, netdev=b_end) as c:
                    c.ready()
                    c.pings()


def main():
    tests = {
        "two machines; stop, resets, links; a switch that dies, and one that hangs": test_two_machines,
        "machines that listen; two pairs of queues": test_server_and_queues,
        "packed rings": test_packed_rings,
        "a machine that is moved while frames pass": test_migration,
        "KVM": test_kvm,
        "cables by TCP, UDP and multicast": test_cables,
    }
    words = sys.argv[3:]
    try:
        if not shutil.which("dpdk-testpmd"):
            raise SystemExit("1..0 # SKIP dpdk-testpmd is not installed")
        tap.run({n: t for n, t in tests.items() if not words or any(w in n for w in words)})
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
