# SPDX-License-Identifier: GPL-2.0-or-later
"""ruched beside Debian's libvirtd: the same calls of libvirt's protocol by the same small client (rpc_load), in turn.

Each round starts both daemons anew in empty folders of new file systems (libvirtd in a mount namespace of its own with empty folders over its
places). A row's figure is seconds (less is better), calls a second (more is better) or MiB; the ratio is ours against the
peer's, more than 1 is ahead; the spread is the lowest and the highest ratio of the rounds. Needs root, for libvirtd.
"""
import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from fresh import file_system

# Lowest ratios to reach; a third of the memory.
BARS = {"GetInfo, 1 connection": 5, "GetInfo, 16 connections": 5, "define": 5, "list": 5, "start-up, stored machines": 5,
        "memory, idle": 3, "memory, machines": 3}
MORE_IS_BETTER = ("GetInfo",)
# Connections, and calls in flight on each; five is what libvirtd takes of one client.
GETINFO = {"GetInfo, 1 connection": (1, 1), "GetInfo, 1 connection, 5 in flight": (1, 5), "GetInfo, 16 connections": (16, 1)}

MACHINE = """<domain type='qemu'>
  <name>bench-@N@</name>
  <memory unit='MiB'>128</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><cmdline>console=ttyS0</cmdline></os>
  <features><acpi/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <controller type='usb' model='none'/>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
    <interface type='user'><mac address='52:54:00:00:00:01'/><model type='virtio'/></interface>
    <serial type='pty'/><console type='pty'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Daemon:
    """One of the two, with folders of its own."""

    def __init__(self, folder):
        self.folder, self.process = folder, None
        os.makedirs(folder)

    def start(self):
        with open(os.path.join(self.folder, "daemon.log"), "ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def stop(self):
        if self.process:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)
            self.process = None

    def pids(self):
        """The daemon itself: below unshare, which waits for it, too."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], stdout=subprocess.PIPE, check=False).stdout.split()
        return [self.process.pid, *map(int, children)]

    def memory_mib(self):
        """Proportional: what is shared with others counts in part."""
        total = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
                total += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
        return total / 1024


class Ruched(Daemon):
    def __init__(self, folder, build):
        super().__init__(folder)
        self.build = build
        self.socket = os.path.join(folder, "run", "libvirt-sock")
        self.emulator = os.path.join(build, "ruche-vmm")

    def command(self):
        f = self.folder
        return [os.path.join(self.build, "ruched"), "--system", "--runtime-dir", f + "/run", "--state-dir", f + "/state"]


class Libvirtd(Daemon):
    emulator = "/usr/bin/qemu-system-x86_64"
    PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt")

    def __init__(self, folder):
        super().__init__(folder)
        self.socket = os.path.join(folder, "run", "libvirt-sock")
        os.makedirs(folder + "/run")

    def command(self):
        f = self.folder
        with open(f + "/libvirtd.conf", "w", encoding="utf-8") as conf:
            conf.write(f'unix_sock_dir = "{f}/run"\nauth_unix_rw = "none"\nauth_unix_ro = "none"\nmax_clients = 100\n')
        binds = []
        for place in self.PLACES:
            inside = f + "/places" + place
            os.makedirs(inside, exist_ok=True)
            os.makedirs(place, exist_ok=True)
            binds.append(f"mount --bind {inside} {place}")
        with open(f + "/places/etc/libvirt/qemu.conf", "w", encoding="utf-8") as conf:
            conf.write('user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = "file"\n')
        script = " && ".join([*binds, f"exec libvirtd -f {f}/libvirtd.conf -p {f}/pid"])
        return ["unshare", "-m", "sh", "-c", script]


class Bench:
    def __init__(self, build, folder, machines, seconds, changes):
        self.load = os.path.join(folder, "rpc_load")
        self.folder, self.machines, self.seconds = folder, machines, seconds
        self.build, self.changes = build, changes
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rpc_load.c")
        subprocess.run(["cc", "-O2", "-o", self.load, source], check=True)
        self.disk = os.path.join(folder, "disk.img")
        with open(self.disk, "wb") as f:
            f.truncate(1 << 20)

    def call(self, daemon, *words):
        out = subprocess.run([self.load, daemon.socket, *map(str, words)], stdout=subprocess.PIPE, check=True).stdout
        return float(out) if out.strip() else 0.0

    def floors(self):
        """What no server can exceed: one that only answers, with the client's processor or another to sleep on."""
        return [float(subprocess.run([self.load, "-", "floor", str(self.seconds / 2), *near], stdout=subprocess.PIPE, check=True).stdout)
                for near in ([], ["near"])]

    def template(self, daemon, kernel):
        path = os.path.join(daemon.folder, "machine.xml")
        with open(path, "w", encoding="utf-8") as f:
            f.write(MACHINE.format(kernel=kernel, emulator=daemon.emulator, disk=self.disk))
        return path

    def measure(self, daemon, kernel):
        """Every row with one daemon, in order; or just those of definitions."""
        row, count, xml = {}, self.machines, self.template(daemon, kernel)
        daemon.start()
        self.call(daemon, "ready", 60)
        time.sleep(3)  # both ask their emulators what they can do
        if self.changes:
            for what in ("define", "undefine"):
                row[f"{what} {count}"] = self.call(daemon, what, xml, count)
            daemon.stop()
            return row
        row["memory, idle"] = daemon.memory_mib()
        row["createXML to running"] = self.call(daemon, "create", xml)
        row[f"define {count}"] = self.call(daemon, "define", xml, count)
        for title, (connections, calls) in GETINFO.items():
            row[title] = self.call(daemon, "info", "bench-000000", connections, self.seconds, calls)
        row[f"list {count}"] = self.call(daemon, "list", 20)
        row[f"bulk stats of {count}"] = self.call(daemon, "stats", 20)
        start = time.monotonic()
        subprocess.run(["virsh", "-c", f"qemu+unix:///system?socket={daemon.socket}", "list", "--all"], check=True,
                       stdout=subprocess.DEVNULL)
        row["virsh list --all (the client's own time, mostly)"] = time.monotonic() - start
        row[f"memory, {count} machines"] = daemon.memory_mib()
        daemon.stop()
        start = time.monotonic()
        daemon.start()
        self.call(daemon, "ready", 120)
        row[f"start-up, {count} stored machines"] = time.monotonic() - start
        row[f"undefine {count}"] = self.call(daemon, "undefine", xml, count)
        daemon.stop()
        return row


def bar_of(name):
    plain = re.sub(r",? \d+(?= (stored )?machines)", ",", name)
    plain = re.sub(r" \d+$", "", plain) if not name.startswith("GetInfo") else name
    return BARS.get(plain)


def report(rounds, floors):
    print(f"{'row':52} {'ours':>10} {'libvirtd':>10} {'ratio':>7}  spread")
    behind = []
    for name in rounds[0][0]:
        pairs = [(ours[name], peer[name]) for ours, peer in rounds]
        more = name.startswith(MORE_IS_BETTER)
        ratios = sorted(o / p if more else p / o for o, p in pairs)
        ratio, bar = statistics.median(ratios), bar_of(name)
        ours, peer = (statistics.median(side) for side in zip(*pairs))
        print(f"{name:52} {ours:10.4g} {peer:10.4g} {ratio:7.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}" + (f"  (bar {bar})" if bar else ""))
        if ratio < (bar or 0):
            behind.append(name)
    for title, values in zip(("anywhere", "on the client's processor"), zip(*floors)):
        print(f"{'a server that only answers, ' + title:52} {statistics.median(values):10.4g}" + " " * 20 + f"{min(values):.4g} to {max(values):.4g}")
    print("every bar is met" if not behind else "below the bar: " + ", ".join(behind))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="folder of ruched and ruche-vmm")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--machines", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=2, help="for each GetInfo row")
    parser.add_argument("--kernel", required=True, help="a kernel for createXML")
    parser.add_argument("--changes", action="store_true", help="just the rows of definitions: define, undefine")
    parser.add_argument("--only", choices=("ours", "peer"), help="just one of the two, without ratios")
    args = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="ruche-bench-")
    try:
        bench, rounds, floors = Bench(os.path.abspath(args.build), folder, args.machines, args.seconds, args.changes), [], []
        for number in range(args.rounds):
            pair = {}
            for side in [args.only] if args.only else ("ours", "peer"):
                with file_system(folder, f"{side}{number}") as place:
                    where = os.path.join(place, "host")
                    daemon = Ruched(where, bench.build) if side == "ours" else Libvirtd(where)
                    try:
                        pair[side] = bench.measure(daemon, os.path.abspath(args.kernel))
                    finally:
                        daemon.stop()
            if args.only:
                print(*(f"{name:52} {value:10.4g}" for name, value in pair[args.only].items()), sep="\n", flush=True)
            else:
                rounds.append((pair["ours"], pair["peer"]))
                if not args.changes:
                    floors.append(bench.floors())
        if rounds:
            report(rounds, floors)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
