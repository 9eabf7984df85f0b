#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Filters' rules on connections, which need a kernel that tracks them on bridges. ../filter.py has all other cases."""
import os
import subprocess
import sys

from here import main, refused, sh, virsh

MACS = {"one": "52:54:00:00:00:0a", "two": "52:54:00:00:00:0b"}
ADDRESS = {"one": "10.77.0.1", "two": "10.77.0.2"}
ADDRESS6 = {"one": "fd00:77::1", "two": "fd00:77::2"}
PORT = 4000
OWNER = "<owner><name>m</name><uuid>5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a0f</uuid></owner>"

# In two namespaces, side by side: connects as it is told, and answers everybody.
PEER = f"""import socket, sys, threading
held = []
def serve(kind):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(('', {PORT}))
    if kind == socket.SOCK_DGRAM:
        while True:
            data, peer = s.recvfrom(100)
            s.sendto(data, peer)
    s.listen(16)
    while True:
        c, _ = s.accept()
        held.append(c)
        c.send(b'hello')
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    threading.Thread(target=serve, args=(kind,), daemon=True).start()
print('ready', flush=True)
mine = []
def ask(word, to):
    s = socket.socket(socket.AF_INET6 if ':' in to else socket.AF_INET, socket.SOCK_DGRAM if word == 'udp' else socket.SOCK_STREAM)
    s.settimeout(2)
    mine.append(s)
    try:
        s.connect((to, {PORT}))
        if word == 'udp':
            s.send(b'hello')
        print(s.recv(100).decode() + ' ' + word, flush=True)
    except ConnectionRefusedError:
        print('refused ' + word, flush=True)
    except OSError:
        print('nothing', flush=True)
for line in sys.stdin:
    word, to = line.split()
    if word != 'close':
        threading.Thread(target=ask, args=(word, to)).start()
        continue
    for s in mine:
        s.close()
    mine.clear()
"""


class Peer:
    """A namespace that stands for a machine; its interface on the bridge has the name of it with a 't'."""

    def __init__(self, name):
        mac, port = MACS[name], "t" + name
        sh(f"ip netns add {name} && ip link add {port} type veth peer name eth0 netns {name} && ip link set {port} master br7 up && "
           f"ip -n {name} link set eth0 address {mac} up && ip -n {name} addr add {ADDRESS[name]}/24 dev eth0 && ip -n {name} link set lo up && ip -n {name} addr add {ADDRESS6[name]}/64 dev eth0 nodad")
        self.process = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-c", PEER], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def say(self, word, to, addresses=None):
        self.process.stdin.write(f"{word} {(addresses or ADDRESS)[to]}\n")
        self.process.stdin.flush()

    def answer(self):
        """"hello udp", or "nothing"."""
        return self.process.stdout.readline().strip()

    def gets(self, word, to):
        self.say(word, to)
        return self.answer().startswith("hello")

    def close(self):
        self.say("close", "one")


PEERS = {}


def ways(what="hello", addresses=None):
    """Which of the two connects to the other, by TCP and UDP; or is refused."""
    for word in ("tcp", "udp"):
        PEERS["one"].say(word, "two", addresses)
        PEERS["two"].say(word, "one", addresses)
    said = {name: [peer.answer() for _ in range(2)] for name, peer in PEERS.items()}
    for peer in PEERS.values():
        peer.close()
    return {f"{line.split()[1]} {name}" for name, lines in said.items() for line in lines if line.startswith(what)}


ALL = {"tcp one", "udp one", "tcp two", "udp two"}


def define(rules):
    with open("/root/f.xml", "w", encoding="ascii") as f:
        f.write("<filter name='f' chain='root'>" + "".join(
            f"<rule action='{action}' direction='{direction}' priority='{100 * n}' {more}><{proto}/></rule>"
            for n, (action, direction, proto, more) in enumerate(rules, 1)) + "</filter>")
    virsh("nwfilter-define /root/f.xml")


def test_ground():
    """A bridge, two machines, nothing between them."""
    sh("ip link add br7 type bridge mcast_snooping 0 && ip link set br7 up")
    for name in MACS:
        PEERS[name] = Peer(name)
    assert ways() == ALL
    define([("accept", "inout", "all", "")])
    with open("/root/b.xml", "w", encoding="ascii") as f:
        f.write(f"<filterbinding>{OWNER}<portdev name='tone'/><mac address='{MACS['one']}'/><filterref filter='f'/></filterbinding>")
    virsh("nwfilter-binding-create /root/b.xml")
    assert ways() == ALL


def test_established():
    """Who asks gets the answer; nobody asks it."""
    define([("accept", "out", "tcp", ""), ("accept", "out", "udp", ""), ("drop", "inout", "all", "")])
    assert "ct state" in sh("nft list table bridge ruche_nwf_tone")
    assert ways() == {"tcp one", "udp one"}
    define([("accept", "in", f"tcp dstportstart='{PORT}'", ""), ("drop", "inout", "all", "")])
    assert ways() == {"tcp two"}


def test_probe():
    """An interface called "probe" keeps its rules while the manager tries what the kernel knows."""
    sh("ip link add probe type veth peer name px")
    define([("accept", "inout", "tcp", "")])
    with open("/root/p.xml", "w", encoding="ascii") as f:
        f.write(f"<filterbinding>{OWNER}<portdev name='probe'/><mac address='52:54:00:00:00:0c'/><filterref filter='f'/></filterbinding>")
    virsh("nwfilter-binding-create /root/p.xml")
    right = sh("nft list ruleset")
    assert "table bridge ruche_nwf_probe" in right
    with open("/root/f.xml", "w", encoding="ascii") as f:
        f.write("<filter name='f' chain='root'><rule action='accept' direction='out'><tcp/></rule>"
                "<rule action='drop' direction='out'><udp srcportstart='9' srcportend='8'/></rule></filter>")
    refused("nwfilter-define /root/f.xml", "nftables")
    assert sh("nft list ruleset") == right
    virsh("nwfilter-binding-delete probe")
    sh("ip link del probe")


def test_plain():
    """The same without the state of connections: each direction is for itself."""
    define([("accept", "out", "tcp", "statematch='false'"), ("drop", "inout", "all", "")])
    found = ways()
    assert found <= {"tcp one", "tcp two"}, found


def test_state():
    """States by name, each direction for itself."""
    define([("accept", "out", "all state='NEW,ESTABLISHED'", ""), ("accept", "in", "all state='ESTABLISHED'", ""), ("drop", "inout", "all", "")])
    assert ways() == {"tcp one", "udp one"}


def test_connlimit():
    """The second connection at a time is one too many."""
    define([("drop", "in", f"tcp connlimit-above='1' dstportstart='{PORT}'", ""), ("accept", "in", f"tcp dstportstart='{PORT}'", ""),
            ("drop", "inout", "all", "")])
    two = PEERS["two"]
    assert two.gets("tcp", "one") and not two.gets("tcp", "one")
    two.close()


def test_icmp():
    """Its answers are those of a question."""
    define([("accept", "out", "icmp type='8'", ""), ("accept", "in", "icmp type='0'", ""), ("drop", "inout", "all", "")])
    sh("ip netns exec one ping -c 1 -W 20 10.77.0.2")
    assert "100% packet loss" in sh("ip netns exec two ping -c 1 -W 1 10.77.0.1 || true")


def test_reject():
    """Who is refused hears it at once, whichever side asks; what is dropped hears nothing."""
    def refuse(action, way):
        define([(action, way, f"{proto} dstportstart='{PORT}'", "") for proto in ("tcp", "udp", "tcp-ipv6", "udp-ipv6")])
    for way, asks in (("in", "two"), ("out", "one")):
        refuse("reject", way)
        for addresses in (ADDRESS, ADDRESS6):
            assert ways("refused", addresses) == {f"tcp {asks}", f"udp {asks}"}, f"{way} {addresses}"
    refuse("drop", "in")
    assert ways("refused") == set()
    define([("reject", "out", "arp", "")])  # frames of no connection: dropped, as libvirt does
    assert "reject" not in sh("nft list table bridge ruche_nwf_tone")


def test_gone():
    virsh("nwfilter-binding-delete tone")
    assert ways() == ALL and "ruche_nwf" not in sh("nft list ruleset")
    refused("nwfilter-binding-dumpxml tone", "no filter binding")
    for peer in PEERS.values():
        peer.process.kill()


if __name__ == "__main__":
    os.chdir("/root")
    main({"ground": test_ground, "established": test_established, "probe": test_probe, "plain": test_plain, "state": test_state, "connlimit": test_connlimit,
          "icmp": test_icmp, "reject": test_reject, "gone": test_gone})
