# SPDX-License-Identifier: GPL-2.0-or-later
"""ruched's networks beside Debian's libvirtd: the same calls by python3-libvirt, in turn, in a network namespace of their own.

A row's figure is milliseconds of one call (the median of its repetitions); the ratio is the peer's against ours, more than 1 is
ahead; the spread is the lowest and the highest of the rounds. Definitions and their removal are synced to the disk before the
answer here; the peer's are not. Needs root. Nothing of the host's network is touched: the program
starts itself again in a new network namespace.
"""
import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
from manager import Libvirtd, Ruched  # noqa: E402
from storage import connect, timed  # noqa: E402

BARS = {"start": 3, "stop": 1, "define": 1, "undefine": 1}
DHCP = "<dhcp><range start='10.77.{n}.2' end='10.77.{n}.254'/></dhcp>"
# Mode, and what it has: with dnsmasq for addresses and names, and without.
KINDS = {"nat, DHCP and DNS": ("<forward mode='nat'/>", DHCP, ""), "isolated, DHCP and DNS": ("", DHCP, ""),
         "route, no DHCP, no DNS": ("<forward mode='route'/>", "", "<dns enable='no'/>")}
NETWORK = """<network><name>bench{n}</name>{forward}<bridge name='bench{n}' stp='on' delay='0'/>{dns}
<ip address='10.77.{n}.1' netmask='255.255.255.0'>{dhcp}</ip></network>"""


def network_xml(kind, n):
    forward, dhcp, dns = KINDS[kind]
    return NETWORK.format(n=n, forward=forward, dns=dns, dhcp=dhcp.format(n=n))


def measure(daemon, times, many):
    row = {}
    daemon.start()
    conn = connect(daemon)
    time.sleep(1)
    for kind in KINDS:
        net = conn.networkDefineXML(network_xml(kind, 1))
        took = {"start": [], "stop": []}
        for _ in range(times):
            took["start"].append(timed(net.create))
            took["stop"].append(timed(net.destroy))
        for what, values in took.items():
            row[f"{what}, {kind}"] = statistics.median(values) * 1000
        net.undefine()
    texts = [network_xml("nat, DHCP and DNS", n) for n in range(many)]
    start = time.monotonic()
    nets = [conn.networkDefineXML(text) for text in texts]
    row[f"define, each of {many}"] = (time.monotonic() - start) * 1000 / many
    for what, call in (("start", "create"), ("stop", "destroy"), ("undefine", "undefine")):
        row[f"{what}, each of {many}, nat"] = timed(lambda c=call: [getattr(n, c)() for n in nets]) * 1000 / many
    conn.close()
    daemon.stop()
    return row


def report(rounds):
    print(f"{'row':34} {'ours, ms':>10} {'libvirtd':>10} {'ratio':>7}  spread")
    for name in rounds[0][0]:
        pairs = [(ours[name], peer[name]) for ours, peer in rounds]
        ratios = sorted(p / o for o, p in pairs)
        ours, peer = (statistics.median(side) for side in zip(*pairs))
        bar = BARS.get(name.split(",")[0])
        print(f"{name:34} {ours:10.4g} {peer:10.4g} {statistics.median(ratios):7.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}" + (f"  (bar {bar})" if bar else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="folder of ruched")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--times", type=int, default=10, help="starts and stops of each kind in a round")
    parser.add_argument("--networks", type=int, default=10, help="networks that run at the same time")
    args = parser.parse_args()
    if os.environ.get("RUCHE_BENCH_NETNS") != "1":
        os.execvpe("unshare", ["unshare", "-n", "-m", sys.executable, *sys.argv], {**os.environ, "RUCHE_BENCH_NETNS": "1"})
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)  # of this namespace's interfaces
    libvirt.registerErrorHandler(lambda *_: None, None)
    folder = tempfile.mkdtemp(prefix="ruche-bench-")
    rounds = []
    try:
        for number in range(args.rounds):
            pair = []
            for side in ("ours", "peer"):
                where = os.path.join(folder, f"{side}{number}")
                daemon = Ruched(where, os.path.abspath(args.build)) if side == "ours" else Libvirtd(where)
                try:
                    pair.append(measure(daemon, args.times, args.networks))
                finally:
                    daemon.stop()
            rounds.append(pair)
        report(rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
