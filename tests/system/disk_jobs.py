#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks that are grown, limited, snapshotted, mirrored, streamed, committed and backed up while a guest writes to them.

    disk_jobs.py RUCHE-VMM PAYLOAD    the payload is tests/guest/disks.c, whose writes say how any image of its two
                                      disks, taken at one moment, must look

qemu-img and nbdinfo look at what was made.
"""
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import GuestError, Vmm  # noqa: E402

BINARY, PAYLOAD = sys.argv[1:3]
MIB = 1 << 20
SIZE = 16 * MIB
SECTORS, STRIDE = 8191, 2654435761


def qemu_img(*arguments):
    done = subprocess.run(("qemu-img",) + arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"qemu-img {' '.join(arguments)}: {done.stdout}"
    return done.stdout


class Machine:
    """Two disks, `a` and `b`, and the guest that writes to them."""

    def __init__(self, *more, form="qcow2", iothread=False):
        self.folder = tempfile.mkdtemp(prefix="ruche-jobs-")
        arguments = ["-accel", "soft", "-m", "64M", "-monitor", "none", "-kernel", PAYLOAD, "-append", "x",
                     "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        if iothread:
            arguments += ["-object", "iothread,id=io0"]
        for name in "ab":
            qemu_img("create", "-q", "-f", form, self.path(name), str(SIZE))
            arguments += ["-drive", f"file={self.path(name)},format={form},if=none,id={name},discard=unmap",
                          "-device", f"virtio-blk-pci,drive={name},id=v{name}" + (",iothread=io0" if iothread else "")]
        self.statuses = []  # (job, status) that nobody waited for yet
        self.vmm = Vmm(BINARY, arguments + list(more))
        self.qmp = self.vmm.qmp
        self.wait_steps(1)

    def path(self, name):
        return os.path.join(self.folder, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vmm.close()
        shutil.rmtree(self.folder)

    def do(self, command, **arguments):
        return self.qmp.execute(command, **arguments)

    def limit(self, disk, **limits):
        """block_set_io_throttle, whose arguments have underscores."""
        limits = {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 0, "iops_rd": 0, "iops_wr": 0, "device": disk, **limits}
        self.qmp.socket.sendall(json.dumps({"execute": "block_set_io_throttle", "arguments": limits}).encode() + b"\n")
        reply = self.qmp.read(120)
        while "event" in reply:
            self.qmp.events.append(reply)
            reply = self.qmp.read(120)
        assert reply == {"return": {}}, reply

    def refused(self, command, **arguments):
        reply = self.qmp.call(command, **arguments)
        assert "error" in reply, f"{command} was not refused: {reply}"
        return reply["error"]

    def wait_steps(self, count=2):
        """The guest goes on: some thousand steps more."""
        for _ in range(count):
            self.vmm.console.expect(r"step \d+", 300)

    def wait_status(self, job, status, seconds=300):
        end = time.monotonic() + seconds
        while (job, status) not in self.statuses:
            assert time.monotonic() < end, f"job {job} is not {status}: {self.do('query-jobs')}"
            data = self.qmp.wait_event("JOB_STATUS_CHANGE", seconds)["data"]
            self.statuses.append((data["id"], data["status"]))
        self.statuses.remove((job, status))

    def wait_end(self, job, seconds=300):
        self.wait_status(job, "null", seconds)
        for event in list(self.qmp.events):
            if event["event"] in ("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED") and event["data"]["device"] == job:
                self.qmp.events.remove(event)
                assert "error" not in event["data"], event
                return event["event"]
        raise GuestError(f"job {job} ended without its event")

    def top(self, disk):
        return next(d for d in self.do("query-block") if d["device"] == disk)["inserted"]

    def quit(self):
        self.do("quit")
        self.vmm.wait(300)


def steps_of(path, form, backing_ok=True):
    """The step that an image is at; every sector is checked against it."""
    if form != "raw":
        qemu_img("check", "-q", "-f", form, path)
    with tempfile.NamedTemporaryFile(prefix="ruche-raw-") as raw:
        qemu_img("convert", "-f", form, "-O", "raw", path, raw.name)
        data = raw.read((SECTORS + 1) * 512)
    values = struct.unpack(f"<{len(data) // 4}I", data)
    at = values[0]
    expected = {}
    for step in range(max(1, at - 2 * SECTORS), at + 1):
        expected[1 + step * STRIDE % SECTORS] = step
    pending = 1 + (at + 1) * STRIDE % SECTORS  # may be written before sector 0 says so
    for sector in range(SECTORS + 1):
        words = set(values[sector * 128:(sector + 1) * 128])
        want = at if sector == 0 else expected.get(sector, 0)
        if sector == pending and words == {at + 1}:
            continue
        assert words == {want}, f"{path}: at step {at}, sector {sector} holds {sorted(words)[:4]}, not {want}"
    return at


def wait_unlocked(path):
    """The kernel ends a killed process's ring, and with it the locks of its files, a moment after the process."""
    end = time.monotonic() + 120
    while subprocess.run(["qemu-img", "info", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        assert time.monotonic() < end, f"{path} is still locked"
        time.sleep(0.1)


def check_pair(first, second, form="qcow2"):
    a, b = steps_of(first, form), steps_of(second, form)
    assert a in (b, b + 1), f"{first} is at step {a}, {second} at step {b}: not of one moment"
    return a


def test_snapshots():
    """External snapshots of both disks at one moment; then streamed, and committed."""
    with Machine() as m:
        m.do("transaction", actions=[
            {"type": "blockdev-snapshot-sync", "data": {"device": n, "snapshot-file": m.path(n + "1"),
                                                        "snapshot-node-name": n + "1"}} for n in "ab"])
        m.wait_steps()
        assert m.top("a")["node-name"] == "a1" and m.top("a")["image"]["backing-image"]["filename"] == m.path("a")
        m.do("transaction", actions=[
            {"type": "blockdev-snapshot-sync", "data": {"device": n, "snapshot-file": m.path(n + "2")}} for n in "ab"])
        m.wait_steps()
        error = m.refused("transaction", actions=[
            {"type": "blockdev-snapshot-sync", "data": {"device": "a", "snapshot-file": m.path("a3")}},
            {"type": "abort", "data": {}}])
        assert "aborted" in error["desc"] and not os.path.exists(m.path("a3")), error
        m.do("block-stream", device="a", job_id="stream")
        m.wait_steps()
        assert m.wait_end("stream") == "BLOCK_JOB_COMPLETED"
        assert "backing-image" not in m.top("a")["image"]
        m.do("block-commit", device="b", job_id="middle", top=m.path("b1"))
        assert m.wait_end("middle") == "BLOCK_JOB_COMPLETED"
        m.do("block-commit", device="b", job_id="active")
        m.wait_status("active", "ready")
        m.wait_steps()
        m.do("job-complete", id="active")
        assert m.wait_end("active") == "BLOCK_JOB_COMPLETED"
        assert m.top("b")["image"]["filename"] == m.path("b")
        m.wait_steps()
        m.quit()
        check_pair(m.path("a2"), m.path("b"))
        steps_of(m.path("a"), "qcow2")


def test_snapshot_moment():
    """What lies below two overlays is of one moment, and stays."""
    with Machine(iothread=True) as m:
        m.do("transaction", actions=[
            {"type": "blockdev-snapshot-sync", "data": {"device": n, "snapshot-file": m.path(n + "1")}} for n in "ab"])
        m.wait_steps()
        m.quit()
        moment = check_pair(m.path("a"), m.path("b"))
        assert check_pair(m.path("a1"), m.path("b1")) > moment


def mirror(copy_mode, iothread):
    with Machine(iothread=iothread) as m:
        qemu_img("create", "-q", "-f", "qcow2", m.path("target"), str(SIZE))
        m.do("blockdev-add", driver="qcow2", node_name="target", file={"driver": "file", "filename": m.path("target")})
        m.do("blockdev-mirror", device="a", target="target", sync="full", job_id="m", copy_mode=copy_mode)
        m.wait_status("m", "ready")
        m.wait_steps()
        m.do("block-job-complete", device="m")
        assert m.wait_end("m") == "BLOCK_JOB_COMPLETED"
        assert m.top("a")["node-name"] == "target"
        m.wait_steps()
        m.quit()
        check_pair(m.path("target"), m.path("b"))
        steps_of(m.path("a"), "qcow2")


def test_mirror():
    mirror("background", False)


def test_mirror_write_blocking_on_iothread():
    mirror("write-blocking", True)


def test_mirror_ended():
    """drive-mirror, ended when ready: a copy of that moment; the disk goes on."""
    with Machine() as m:
        m.do("drive-mirror", device="b", target=m.path("copy"), sync="full", format="raw")
        m.wait_status("b", "ready")
        m.wait_steps()
        m.do("block-job-cancel", device="b")
        assert m.wait_end("b") == "BLOCK_JOB_COMPLETED"
        m.wait_steps()
        m.quit()
        assert steps_of(m.path("copy"), "raw") < check_pair(m.path("a"), m.path("b"))


def test_backups():
    """Both disks at one moment, full; then what changed since, by bitmaps; cancelled ones leave the disk whole."""
    with Machine(iothread=True) as m:
        for n in "ab":
            for kind in ("full", "inc"):
                qemu_img("create", "-q", "-f", "qcow2", m.path(n + kind), str(SIZE))
                m.do("blockdev-add", driver="qcow2", node_name=n + kind,
                     file={"driver": "file", "filename": m.path(n + kind)})
        m.do("transaction", properties={"completion-mode": "grouped"}, actions=[
            action for n in "ab" for action in (
                {"type": "block-dirty-bitmap-add", "data": {"node": n, "name": "changed", "granularity": 65536}},
                {"type": "blockdev-backup", "data": {"device": n, "target": n + "full", "sync": "full", "job-id": n,
                                                     "speed": 20 * MIB}})])
        m.wait_steps()
        for n in "ab":
            assert m.wait_end(n) == "BLOCK_JOB_COMPLETED"
        m.wait_steps()
        shutil.copy(m.path("afull"), m.path("acopy"))
        for n in "ab":
            m.do("blockdev-backup", device=n, target=n + "inc", sync="full", job_id="gone" + n, speed=1)
        for n in "ab":
            m.do("job-cancel", id="gone" + n)
            assert m.wait_end("gone" + n) == "BLOCK_JOB_CANCELLED"
        m.do("transaction", actions=[
            {"type": "blockdev-backup", "data": {"device": n, "target": n + "full", "sync": "incremental",
                                                 "bitmap": "changed", "job-id": n}} for n in "ab"])
        for n in "ab":
            assert m.wait_end(n) == "BLOCK_JOB_COMPLETED"
        m.wait_steps()
        for n in "ab":
            m.do("blockdev-del", node_name=n + "full")
        second = check_pair(m.path("afull"), m.path("bfull"))
        m.quit()
        assert steps_of(m.path("acopy"), "qcow2") < second < check_pair(m.path("a"), m.path("b"))


def test_size_and_limits():
    with Machine() as m:
        m.do("block_resize", device="a", size=2 * SIZE)
        m.vmm.console.expect(rf"disk 0 has {2 * SIZE // 512} sectors", 300)
        m.limit("b", bps_wr=256 * 1024)
        assert m.top("b")["bps_wr"] == 256 * 1024
        m.wait_steps(1)

        def written():
            return next(d for d in m.do("query-blockstats") if d["device"] == "b")["stats"]["wr_bytes"]

        before, begin = written(), time.monotonic()
        while written() < before + 3 * 256 * 1024:  # on a slow host the guest stays below its limit
            assert time.monotonic() < begin + 300, f"{written() - before} bytes in 300 s"
            time.sleep(0.1)
        rate = (written() - before) / (time.monotonic() - begin)
        assert rate < 400000, f"{rate:.0f} bytes a second"
        m.limit("b")
        m.wait_steps()
        m.do("block-set-write-threshold", node_name=m.top("a")["node-name"], write_threshold=MIB)
        assert m.qmp.wait_event("BLOCK_WRITE_THRESHOLD")["data"]["write-threshold"] == MIB
        m.quit()
        check_pair(m.path("a"), m.path("b"))


def test_statistics():
    """Each write of the guest is in one bin of a histogram, and the nodes below a disk are in its tree."""
    with Machine(iothread=True) as m:
        def disk():
            return next(d for d in m.do("query-blockstats") if d["device"] == "a")

        assert "wr_latency_histogram" not in disk()["stats"]
        m.do("block-latency-histogram-set", id="va", boundaries=[1, 10**6, 10**12], boundaries_read=[5])
        m.wait_steps()
        m.do("stop")
        stats = disk()["stats"]
        bins = stats["wr_latency_histogram"]["bins"]
        assert stats["wr_latency_histogram"]["boundaries"] == [1, 10**6, 10**12], stats
        assert stats["rd_latency_histogram"]["boundaries"] == [5], stats
        assert bins[0] == bins[3] == 0 and 100 < sum(bins) <= stats["wr_operations"], stats
        assert stats["wr_total_time_ns"] > 0 and disk()["parent"]["stats"]["wr_bytes"] > 100 * 512, disk()
        assert "rising" in m.refused("block-latency-histogram-set", id="va", boundaries=[2, 1])["desc"]
        m.do("block-latency-histogram-set", id="a")
        assert "wr_latency_histogram" not in disk()["stats"]
        m.do("cont")
        m.do("blockdev-snapshot-sync", device="a", snapshot_file=m.path("over"), snapshot_node_name="over")
        m.wait_steps()
        top = disk()
        assert top["node-name"] == "over" and top["backing"]["parent"]["driver-specific"], top
        assert "backing" not in next(n for n in m.do("query-blockstats", query_nodes=True) if n["node-name"] == "over")
        m.quit()


def test_internal_snapshots():
    with Machine() as m:
        m.do("transaction", actions=[
            {"type": "blockdev-snapshot-internal-sync", "data": {"device": n, "name": "s1"}} for n in "ab"])
        m.wait_steps()
        assert m.top("a")["image"]["snapshots"][0]["name"] == "s1"
        m.do("blockdev-snapshot-internal-sync", device="a", name="s2")
        assert m.do("blockdev-snapshot-delete-internal-sync", device="a", name="s2")["name"] == "s2"
        assert "s2" in m.refused("blockdev-snapshot-delete-internal-sync", device="a", name="s2")["desc"]
        m.quit()
        now = check_pair(m.path("a"), m.path("b"))
        for n in "ab":
            qemu_img("snapshot", "-a", "s1", m.path(n))
        assert check_pair(m.path("a"), m.path("b")) < now


def test_export():
    with Machine() as m:
        address = {"type": "unix", "data": {"path": m.path("nbd")}}
        m.do("nbd-server-start", addr=address)
        assert "runs already" in m.refused("nbd-server-start", addr=address)["desc"]
        m.do("nbd-server-add", device="a")
        m.do("block-export-add", type="nbd", id="second", node_name=m.top("b")["node-name"], name="bb")
        assert [e["id"] for e in m.do("query-block-exports")] == ["a", "second"]
        shown = subprocess.run(["nbdinfo", "--size", f"nbd+unix:///bb?socket={m.path('nbd')}"], check=True,
                               stdout=subprocess.PIPE, text=True).stdout
        assert int(shown) == SIZE
        m.do("block-export-del", id="second")
        assert m.qmp.wait_event("BLOCK_EXPORT_DELETED")["data"]["id"] == "second"
        m.do("nbd-server-stop")
        m.wait_steps()
        m.quit()
        check_pair(m.path("a"), m.path("b"))


def test_killed():
    """kill -9 in the middle of each job leaves the source whole."""
    for job in ({"execute": "drive-mirror", "sync": "full"}, {"execute": "drive-backup", "sync": "full"},
                {"execute": "block-stream"}, {"execute": "block-commit"}):
        with Machine() as m:
            arguments = {k: v for k, v in job.items() if k != "execute"}
            if "sync" in job:
                arguments["target"] = m.path("target")
            m.do("transaction", actions=[
                {"type": "blockdev-snapshot-sync", "data": {"device": n, "snapshot-file": m.path(n + "1")}} for n in "ab"])
            m.wait_steps(1)
            m.do(job["execute"], device="a", job_id="j", speed=MIB, **arguments)
            m.wait_steps(1)
            m.vmm.process.kill()
            m.vmm.process.wait()
            for n in "ab":
                wait_unlocked(m.path(n + "1"))
            check_pair(m.path("a1"), m.path("b1"))


def test_full_disk():
    """No room on the host: the machine stands, and goes on where it was once there is room."""
    with Machine() as m:
        pid = m.vmm.process.pid
        room = MIB  # both images are larger by now
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        event = m.qmp.wait_event("BLOCK_IO_ERROR", 300)["data"]
        assert event["action"] == "stop" and event["nospace"] and event["operation"] == "write", event
        m.qmp.wait_event("STOP")
        assert m.do("query-status")["status"] == "io-error"
        assert m.do("query-block")[0]["io-status"] == "failed"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        m.do("cont")
        m.wait_steps()
        m.quit()
        check_pair(m.path("a"), m.path("b"))


def test_quit():
    """A machine that is ended takes its jobs along, and leaves the disks whole."""
    with Machine(iothread=True) as m:
        m.do("drive-mirror", device="a", target=m.path("copy"), sync="full", job_id="ready")
        m.wait_status("ready", "ready")
        m.do("drive-backup", device="b", target=m.path("backup"), sync="full", job_id="slow", speed=1)
        m.do("stop")
        m.quit()
        check_pair(m.path("a"), m.path("b"))
        qemu_img("check", "-q", m.path("copy"))


def test_temporary():
    """snapshot=on, and a format that is not said."""
    with Machine("-snapshot") as m:
        m.wait_steps()
        m.quit()
        assert steps_of(m.path("a"), "qcow2") == 0
    with Machine() as m:
        done = subprocess.run([BINARY, "-drive", f"file={m.path('nothing')}"], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "nothing" in done.stderr, done.stderr
        m.quit()
        done = subprocess.run([BINARY, "-drive", f"file={m.path('a')}"], stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "say format=qcow2" in done.stderr, done.stderr


def test_refusals():
    with Machine() as m:
        for command, arguments, part in (
                ("blockdev-mirror", {"device": "nope", "target": "x", "sync": "full"}, "nope"),
                ("blockdev-mirror", {"device": "a", "target": "x", "sync": "full"}, "'x'"),
                ("drive-backup", {"device": "a", "target": m.path("t"), "sync": "bitmap"}, "bitmap-mode"),
                ("block-commit", {"device": "a", "job_id": "c"}, "no backing file"),
                ("job-pause", {"id": "nope"}, "no job 'nope'"),
                ("blockdev-del", {"node_name": m.top("a")["node-name"]}, "goes with its owner"),
                ("block-dirty-bitmap-clear", {"node": "a", "name": "none"}, "no bitmap 'none'"),
                ("block_resize", {"device": "a", "size": -1}, "'size' is -1")):
            assert part in m.refused(command, **arguments)["desc"], (command, m.refused(command, **arguments))
        assert m.refused("block-job-cancel", device="nope")["class"] == "DeviceNotActive"
        assert m.refused("block_resize", device="nope", size=0)["class"] == "DeviceNotFound"
        m.quit()
        check_pair(m.path("a"), m.path("b"))


tap.run({name[5:].replace("_", " "): test for name, test in list(globals().items())
         if name.startswith("test_") and (len(sys.argv) < 4 or sys.argv[3] in name)})
