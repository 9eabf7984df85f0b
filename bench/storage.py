# SPDX-License-Identifier: GPL-2.0-or-later
"""ruched's storage beside Debian's libvirtd: the same calls by python3-libvirt, in turn, each on a new file system.

A row's figure is seconds (less is better) or MB/s (more is better); the ratio is ours against the peer's, more than 1 is ahead; the
spread is the lowest and the highest of the rounds. Needs root, for libvirtd.
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
from fresh import file_system  # noqa: E402
from manager import Libvirtd, Ruched  # noqa: E402

BARS = {"refresh": 3}
MIB = 1 << 20
VOLUME = """<volume><name>{name}</name><capacity unit='MiB'>{mib}</capacity><allocation>{allocation}</allocation>
<target><format type='{format}'/></target></volume>"""


def timed(call):
    start = time.monotonic()
    call()
    return time.monotonic() - start


def connect(daemon):
    for _ in range(1000):
        try:
            return libvirt.open(f"qemu+unix:///system?socket={daemon.socket}")
        except libvirt.libvirtError:
            time.sleep(0.02)
    raise RuntimeError("the daemon does not answer")


def fill(folder, count):
    """Half raw, half qcow2, as a host's images are."""
    os.makedirs(folder)
    head = os.path.join(folder, "0.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", head, "1G"], check=True)
    for i in range(1, count):
        if i % 2:
            shutil.copyfile(head, os.path.join(folder, f"{i}.qcow2"))
        else:
            with open(os.path.join(folder, f"{i}.raw"), "wb") as f:
                f.truncate(MIB)


def upload(conn, volume, data):
    stream = conn.newStream()
    volume.upload(stream, 0, len(data))
    for at in range(0, len(data), 256 << 10):
        stream.send(data[at:at + (256 << 10)])
    stream.finish()


def download(conn, volume, length):
    stream = conn.newStream()
    volume.download(stream, 0, length)
    while stream.recv(256 << 10):
        pass
    stream.finish()


def measure(daemon, folder, count, few, mib):
    row = {}
    fill(folder, count)
    daemon.start()
    conn = connect(daemon)
    pool = conn.storagePoolCreateXML(f"<pool type='dir'><name>bench</name><target><path>{folder}</path></target></pool>")
    time.sleep(3)  # images at rest: what changed a moment ago is looked at anew
    pool.refresh()
    row[f"refresh, {count} volumes"] = min(timed(pool.refresh) for _ in range(3))
    row[f"list {count} volumes"] = min(timed(pool.listAllVolumes) for _ in range(5))
    names = [f"v{i}" for i in range(few)]
    for form in ("raw", "qcow2"):
        texts = [VOLUME.format(name=f"{n}.{form}", mib=64, allocation=0, format=form) for n in names]
        row[f"create {few}, {form}"] = timed(lambda t=texts: [pool.createXML(x) for x in t])
    source = pool.storageVolLookupByName("v0.qcow2")
    texts = [VOLUME.format(name=f"c{i}", mib=64, allocation=0, format="qcow2") for i in range(few)]
    row[f"clone {few}, qcow2"] = timed(lambda: [pool.createXMLFrom(x, source) for x in texts])
    made = [pool.storageVolLookupByName(f"{n}.{form}") for n in names for form in ("raw", "qcow2")]
    row[f"delete {len(made)}"] = timed(lambda: [v.delete() for v in made])
    data = os.urandom(mib * MIB)
    volume = pool.createXML(VOLUME.format(name="stream", mib=mib, allocation=0, format="raw"))
    row["upload, MB/s"] = len(data) / 1e6 / timed(lambda: upload(conn, volume, data))
    row["download, MB/s"] = len(data) / 1e6 / timed(lambda: download(conn, volume, len(data)))
    conn.close()
    daemon.stop()
    return row


def report(rounds):
    print(f"{'row':28} {'ours':>10} {'libvirtd':>10} {'ratio':>7}  spread")
    for name in rounds[0][0]:
        pairs = [(ours[name], peer[name]) for ours, peer in rounds]
        ratios = sorted(o / p if "MB/s" in name else p / o for o, p in pairs)
        ours, peer = (statistics.median(side) for side in zip(*pairs))
        bar = BARS.get(name.split(",")[0], 1)
        print(f"{name:28} {ours:10.4g} {peer:10.4g} {statistics.median(ratios):7.2f}  {ratios[0]:.2f} to {ratios[-1]:.2f}  (bar {bar})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build", help="folder of ruched and ruche-img")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--volumes", type=int, default=1000)
    parser.add_argument("--few", type=int, default=20, help="volumes that are made, cloned and deleted")
    parser.add_argument("--mib", type=int, default=256, help="size of a transfer")
    args = parser.parse_args()
    libvirt.registerErrorHandler(lambda *_: None, None)
    folder = tempfile.mkdtemp(prefix="ruche-bench-")
    rounds = []
    try:
        for number in range(args.rounds):
            pair = []
            for side in ("ours", "peer"):
                with file_system(folder, f"{side}{number}") as place:
                    where = os.path.join(place, "host")
                    daemon = Ruched(where, os.path.abspath(args.build)) if side == "ours" else Libvirtd(where)
                    try:
                        pair.append(measure(daemon, os.path.join(place, "pool"), args.volumes, args.few, args.mib))
                    finally:
                        daemon.stop()
            rounds.append(pair)
        report(rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
