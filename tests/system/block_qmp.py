#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP commands on image nodes that need no guest: reopen, amend, names of backing files, a corrupt image.

    block_qmp.py RUCHE-VMM

qemu-img makes the images and looks at them afterwards; qemu-io writes through our NBD export.
"""
import json
import os
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

BINARY = sys.argv[1]
SIZE = "4M"


def tool(*arguments, status=0):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == status, f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}"
    return done.stdout


def info(path):
    return json.loads(tool("qemu-img", "info", "-U", "--output=json", path))


class Bench:
    """A machine without a guest, and a folder for its images."""

    def __init__(self, *images, arguments=()):
        self.folder = tempfile.mkdtemp(prefix="ruche-block-")
        for name in images:
            self.create(name)
        arguments = [a.replace("@", self.folder + "/") for a in arguments]
        self.vmm = Vmm(BINARY, ["-accel", "soft", "-m", "16M", "-S", *arguments], console=False)
        self.qmp = self.vmm.qmp

    def path(self, name):
        return os.path.join(self.folder, name)

    def create(self, name, *options):
        tool("qemu-img", "create", "-q", "-f", "qcow2", *options, self.path(name), SIZE)
        return self.path(name)

    def add(self, node, **options):
        self.qmp.execute("blockdev-add", driver="qcow2", node_name=node,
                         file={"driver": "file", "filename": self.path(node)}, **options)

    def node(self, name):
        return next(n for n in self.qmp.execute("query-named-block-nodes") if n["node-name"] == name)

    def write(self, node, command):
        """qemu-io's command on a writable export of the node; its output."""
        socket = self.path("nbd")
        self.qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
        try:
            self.qmp.execute("nbd-server-add", device=node, writable=True)
            done = subprocess.run(["qemu-io", "-f", "raw", "-c", command, f"nbd+unix:///{node}?socket={socket}"],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        finally:
            self.qmp.execute("nbd-server-stop")
        return done.stdout

    def job(self, command, job, **arguments):
        self.qmp.execute(command, job_id=job, **arguments)
        while True:
            event = self.qmp.wait_event("JOB_STATUS_CHANGE")
            if event["data"]["id"] == job and event["data"]["status"] == "concluded":
                break
        error = next(j for j in self.qmp.execute("query-jobs") if j["id"] == job).get("error")
        self.qmp.execute("job-dismiss", id=job)
        assert not error, error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.vmm.close()
        shutil.rmtree(self.folder)


def refused(what, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except GuestError as error:
        assert what in str(error), error
    else:
        raise AssertionError(f"not refused: {what}")


def test_reopen():
    with Bench() as b:
        b.create("a")
        b.add("a")
        assert not b.node("a")["ro"]
        options = {"driver": "qcow2", "node-name": "a", "file": {"driver": "file", "filename": b.path("a")}}
        b.qmp.execute("blockdev-reopen", options=[options | {"read-only": True, "discard": "unmap"}])
        assert b.node("a")["ro"]
        refused("read-only", b.write, "a", "write 0 512")
        b.qmp.execute("blockdev-reopen", options=[options | {"read-only": False}])
        assert not b.node("a")["ro"]
        assert "wrote 512/512" in b.write("a", "write -P 7 0 512")
        refused("'b'", b.qmp.execute, "blockdev-reopen", options=[options | {"backing": "b"}])


def test_reopen_backing():
    """Another node becomes the backing file, and none."""
    with Bench() as b:
        b.create("base")
        tool("qemu-io", "-f", "qcow2", "-c", "write -P 5 0 64k", b.path("base"))
        b.create("top")
        b.add("base", read_only=True)
        b.add("top")
        options = {"driver": "qcow2", "node-name": "top", "file": {"driver": "file", "filename": b.path("top")}}
        b.qmp.execute("blockdev-reopen", options=[options | {"backing": "base"}])
        assert "read 65536/65536" in (out := b.write("top", "read -P 5 0 64k")) and "verification" not in out, out
        b.qmp.execute("blockdev-reopen", options=[options | {"backing": None}])
        assert "verification" not in (out := b.write("top", "read -P 0 0 64k")), out


def test_reopen_file():
    """A filter is put under an image and taken out again; another file under a raw one; what cannot be is refused."""
    with Bench() as b:
        b.create("a")
        for name in ("raw0", "raw1"):
            with open(b.path(name), "wb") as f:
                f.write(bytes([int(name[-1]) + 1]) * (1 << 20))
        for name in ("a", "raw0", "raw1"):
            b.qmp.execute("blockdev-add", driver="file", node_name="f" + name, filename=b.path(name))
        b.qmp.execute("blockdev-add", driver="qcow2", node_name="a", file="fa")
        b.qmp.execute("blockdev-add", driver="raw", node_name="r", file="fraw0")
        b.qmp.execute("object-add", qom_type="throttle-group", id="slow", limits={"iops-write": 10**6})
        b.qmp.execute("blockdev-add", driver="throttle", node_name="t", file="fa", throttle_group="slow")
        assert b.node("t")["ro"], "it writes beside its user"

        def reopen(*rows):
            b.qmp.execute("blockdev-reopen", options=[{"node-name": n, "file": f, **more} for n, f, more in rows])

        def written(node):
            return next(n for n in b.qmp.execute("query-blockstats", query_nodes=True)
                        if n["node-name"] == node)["stats"]["wr_operations"]

        assert "wrote" in b.write("a", "write -P 1 0 64k")
        reopen(("a", "t", {}))
        assert not b.node("t")["ro"] and written("t") == 0
        assert "wrote" in b.write("a", "write -P 2 64k 64k")
        assert written("t") > 0
        refused("in use by a", b.qmp.execute, "blockdev-del", node_name="t")
        refused("bytes, not", reopen, ("a", "fraw1", {}))
        b.qmp.execute("blockdev-add", driver="file", node_name="copy", filename=shutil.copy(b.path("a"), b.path("copy")))
        refused("remembers", reopen, ("a", "copy", {}))
        refused("stands above", reopen, ("t", "a", {}))
        refused("no node 'nope'", reopen, ("a", "nope", {}))
        refused("cannot be without", reopen, ("a", None, {}))
        assert "verification" not in b.write("r", "read -P 1 0 1M")
        refused("no node 'nope'", reopen, ("a", "fa", {"discard": "unmap"}), ("r", "fraw1", {}), ("a", "nope", {}))
        assert "verification" not in b.write("r", "read -P 1 0 1M")
        before = written("t")
        assert "wrote" in b.write("a", "write -P 3 128k 64k") and written("t") > before, "not taken back"
        reopen(("a", "fa", {}), ("r", "fraw1", {}))
        assert b.node("t")["ro"]
        assert "verification" not in b.write("r", "read -P 2 0 1M")
        assert "wrote" in b.write("r", "write -P 9 0 4k")
        b.qmp.execute("blockdev-del", node_name="t")
        assert "verification" not in b.write("a", "read -P 2 64k 64k")
        b.qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": b.path("nbd")}})
        b.qmp.execute("nbd-server-add", device="a", writable=True)
        refused("NBD export 'a' writes", reopen, ("a", "fa", {"read-only": True}))
        b.qmp.execute("nbd-server-stop")
        for name in ("a", "fa"):
            b.qmp.execute("blockdev-del", node_name=name)
        tool("qemu-img", "check", b.path("a"))
        for name, first in (("raw0", 1), ("raw1", 9)):
            with open(b.path(name), "rb") as f:
                assert f.read(1) == bytes([first])


def test_reopen_options():
    """What is not said has its default again; options of a child by name and by value; what cannot change is refused."""
    with Bench() as b:
        b.create("a")
        b.add("a", discard="unmap", detect_zeroes="unmap")
        options = {"driver": "qcow2", "node-name": "a", "file": {"driver": "file", "filename": b.path("a")}}

        def reopen(**more):
            b.qmp.execute("blockdev-reopen", options=[options | {k.replace("_", "-"): v for k, v in more.items()}])

        assert b.node("a")["detect_zeroes"] == "unmap"
        reopen(cache={"no-flush": True})
        assert b.node("a")["detect_zeroes"] == "off" and b.node("a")["cache"]["no-flush"]
        assert all(n["cache"]["no-flush"] for n in b.qmp.execute("query-named-block-nodes"))
        reopen(detect_zeroes="on")
        assert b.node("a")["detect_zeroes"] == "on" and not b.node("a")["cache"]["no-flush"]
        refused("'cache.direct' cannot change", reopen, cache={"direct": True})
        refused("'l2-cache-size' cannot change", reopen, l2_cache_size=1 << 20)
        refused("'filename' cannot change", reopen, file={"driver": "file", "filename": b.path("b")})
        refused("has driver 'file'", reopen, file={"driver": "nbd"})
        assert b.node("a")["detect_zeroes"] == "on"


def test_node_statistics():
    """What each node was asked for: the format by the export, the file by the format."""
    with Bench() as b:
        b.create("a")
        b.add("a", discard="unmap")

        def stats():
            nodes = b.qmp.execute("query-blockstats", query_nodes=True)
            return next(n for n in nodes if n["node-name"] == "a")

        assert stats()["stats"]["wr_bytes"] == 0, stats()
        b.write("a", "write -P 3 1M 128k")
        b.write("a", "read 0 4k")
        b.write("a", "discard 1M 64k")
        after = stats()
        node, file = after["stats"], after["parent"]
        assert (node["wr_operations"], node["wr_bytes"], node["wr_highest_offset"]) == (1, 131072, 0x120000), node
        assert (node["rd_bytes"], node["unmap_bytes"]) == (4096, 65536), node
        assert node["wr_total_time_ns"] > 0 and node["flush_operations"] > 0, node
        assert file["stats"]["wr_bytes"] >= 131072 and file["driver-specific"]["driver"] == "file", file


def test_authorization():
    """nbd-server-start with tls-authz, here of the user whose key a client has; the object may change meanwhile."""
    with Bench() as b:
        b.create("a")
        b.add("a")
        tool("psktool", "-u", "bee", "-p", b.path("keys.psk"))
        socket = b.path("nbd")
        address = {"type": "unix", "data": {"path": socket}}
        b.qmp.execute("object-add", qom_type="tls-creds-psk", id="tls", endpoint="server", dir=b.folder)
        refused("needs tls-creds", b.qmp.execute, "nbd-server-start", addr=address, tls_authz="who")
        b.qmp.execute("nbd-server-start", addr=address, tls_creds="tls", tls_authz="who")
        b.qmp.execute("nbd-server-add", device="a")

        def read(status):
            tool("qemu-io", "-r", "--object", f"tls-creds-psk,id=c,endpoint=client,username=bee,dir={b.folder}", "--image-opts",
                 "-c", "read 0 512", f"driver=nbd,tls-creds=c,export=a,server.type=unix,server.path={socket}", status=status)

        read(1)
        b.qmp.execute("object-add", qom_type="authz-simple", id="who", identity="wasp")
        read(1)
        b.qmp.execute("object-del", id="who")
        b.qmp.execute("object-add", qom_type="authz-list", id="who",
                      rules=[{"match": "b*", "format": "glob", "policy": "allow"}])
        read(0)


def test_iothreads():
    """Exported nodes on I/O threads: they move while nobody is connected; a machine ends with nodes left there."""
    with Bench() as b:
        b.create("a")
        b.add("a")
        for name in ("io0", "io1"):
            b.qmp.execute("object-add", qom_type="iothread", id=name)
        socket = b.path("nbd")
        b.qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
        refused("no I/O thread 'io2'", b.qmp.execute, "block-export-add", type="nbd", id="e", node_name="a", iothread="io2")
        b.qmp.execute("block-export-add", type="nbd", id="e", node_name="a", writable=True, iothread="io0", fixed_iothread=True)

        def io(command):
            assert "512/512" in tool("qemu-io", "-f", "raw", "-c", command, f"nbd+unix:///a?socket={socket}")

        io("write -P 1 0 512")
        client = subprocess.Popen(["qemu-io", "-f", "raw", f"nbd+unix:///a?socket={socket}"], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        client.stdin.write("read -P 1 0 512\n")
        client.stdin.flush()
        assert "512/512" in client.stdout.readline() + client.stdout.readline()
        refused("NBD export 'a' uses it", b.qmp.execute, "x-blockdev-set-iothread", node_name="a", iothread="io1")
        client.stdin.close()
        client.wait(120)
        for where in ("io1", None, "io1", "io0"):
            for _ in range(2400):  # the server hears of the client's end a moment later
                reply = b.qmp.call("x-blockdev-set-iothread", node_name="a", iothread=where)
                if "error" not in reply:
                    break
                time.sleep(0.05)
            assert "error" not in reply, reply
            io("write -P 2 512 512")
            io("read -P 1 0 512")
        b.qmp.execute("quit")
        assert b.vmm.wait(300) == 0


def test_limits():
    """The limits of a throttle group: as they were given, as they are seen, changed while in use."""
    with Bench() as b:
        b.create("a")
        b.qmp.execute("object-add", qom_type="throttle-group", id="g", limits={"iops-write": 100, "iops-write-max": 100})
        b.qmp.execute("blockdev-add", driver="throttle", node_name="t", throttle_group="g",
                      file={"driver": "qcow2", "file": {"driver": "file", "filename": b.path("a")}})
        limits = b.qmp.execute("qom-get", path="/objects/g", property="limits")
        assert (limits["iops-write"], limits["iops-write-max"], limits["bps-total"]) == (100, 100, 0), limits

        socket = b.path("nbd")
        b.qmp.execute("nbd-server-start", addr={"type": "unix", "data": {"path": socket}})
        b.qmp.execute("nbd-server-add", device="t", writable=True)
        commands = [word for _ in range(200) for word in ("-c", "write 0 512")]
        client = ["qemu-io", "-f", "raw", *commands, f"nbd+unix:///t?socket={socket}"]
        begin = time.monotonic()
        tool(*client)
        assert time.monotonic() - begin > 0.8
        b.qmp.execute("qom-set", path="g", property="limits", value={"iops-write": 1, "iops-write-max": 1})
        waits = subprocess.Popen(client, stdout=subprocess.DEVNULL)
        try:
            time.sleep(0.3)
            b.qmp.execute("qom-set", path="g", property="limits", value={"iops-write": 0, "iops-write-max": 0})
            waits.wait(150)  # 200 seconds with the limit
        finally:
            waits.kill()
        assert b.qmp.execute("qom-get", path="g", property="limits")["iops-write"] == 0
        refused("no limit 'iops'", b.qmp.execute, "qom-set", path="g", property="limits", value={"iops": 1})
        refused("not a number", b.qmp.execute, "qom-set", path="g", property="limits", value={"bps-read": -1})
        refused("no object 'h'", b.qmp.execute, "qom-get", path="h", property="limits")
        refused("no property 'x-bps'", b.qmp.execute, "qom-get", path="g", property="x-bps")
        assert {"name": "g", "type": "child<throttle-group>"} in b.qmp.execute("qom-list", path="/objects")


def test_media():
    """A disk is not removable; the medium of a drive without a device is taken out, put in and changed."""
    arguments = ("-drive", "file=@a,format=qcow2,id=a,if=none", "-device", "virtio-blk-pci,drive=a,id=va",
                 "-drive", "file=@b,format=qcow2,id=b,if=none")
    with Bench("a", "b", "c", arguments=arguments) as b:
        def medium(name="b"):
            return next(d for d in b.qmp.execute("query-block") if d["device"] == name).get("inserted", {}).get("file")

        rows = (("eject", {"device": "a"}), ("eject", {"id": "va", "force": True}), ("blockdev-open-tray", {"id": "va"}),
                ("blockdev-close-tray", {"id": "va"}), ("blockdev-remove-medium", {"id": "va"}),
                ("blockdev-insert-medium", {"id": "va", "node_name": "c"}),
                ("blockdev-change-medium", {"id": "va", "filename": b.path("c"), "format": "qcow2"}))
        for command, options in rows:
            reply = b.qmp.call(command, **options)["error"]
            assert "is not removable" in reply["desc"] and reply["class"] == "GenericError", (command, reply)
            reply = b.qmp.call(command, **options | ({"device": "x"} if "device" in options else {"id": "x"}))["error"]
            assert reply["class"] == "DeviceNotFound", (command, reply)
        assert medium("a") == b.path("a") and medium() == b.path("b")
        b.qmp.execute("blockdev-open-tray", id="b")
        b.qmp.execute("eject", device="b")
        assert medium() is None
        b.qmp.execute("eject", device="b")
        tool("qemu-img", "check", b.path("b"))  # nobody holds it
        b.add("c")
        b.qmp.execute("blockdev-insert-medium", id="b", node_name="c")
        refused("has a medium already", b.qmp.execute, "blockdev-insert-medium", id="b", node_name="c")
        refused("in use by", b.qmp.execute, "blockdev-del", node_name="c")
        refused("'format' is missing", b.qmp.execute, "blockdev-change-medium", id="b", filename=b.path("b"))
        refused("no-such-file", b.qmp.execute, "blockdev-change-medium", id="b", filename="no-such-file", format="raw")
        assert medium() == b.path("c")
        b.qmp.execute("blockdev-change-medium", id="b", filename=b.path("b"), read_only_mode="read-only")
        assert medium() == b.path("b")
        refused("read-only", b.write, "b", "write 0 512")
        b.qmp.execute("blockdev-remove-medium", id="b")
        b.qmp.execute("blockdev-del", node_name="c")


def test_amend():
    with Bench() as b:
        b.create("a", "-o", "compat=0.10")
        b.add("a")
        b.job("x-blockdev-amend", "amend0", node_name="a", options={"driver": "qcow2", "compat": "1.1"})
        b.qmp.execute("blockdev-del", node_name="a")
        assert info(b.path("a"))["format-specific"]["data"]["compat"] == "1.1"
        tool("qemu-img", "check", b.path("a"))


def test_change_backing_file():
    with Bench() as b:
        b.create("base")
        b.create("top", "-b", b.path("base"), "-F", "qcow2")
        b.add("top")
        shutil.copy(b.path("base"), b.path("moved"))
        b.qmp.execute("change-backing-file", device="top", image_node_name="top", backing_file=b.path("moved"))
        b.qmp.execute("blockdev-del", node_name="top")
        after = info(b.path("top"))
        assert after["backing-filename"] == b.path("moved"), after
        assert after["backing-filename-format"] == "qcow2", after


def test_corrupt():
    """A mapping that points into metadata: the write is refused, one event says so, the image is marked and read-only."""
    with Bench() as b:
        path = b.create("a")
        tool("qemu-io", "-f", "qcow2", "-c", "write 0 64k", path)
        with open(path, "r+b") as f:
            head = f.read(72)
            l1, table = struct.unpack_from(">Q", head, 40)[0], struct.unpack_from(">Q", head, 48)[0]
            f.seek(l1)
            l2 = struct.unpack(">Q", f.read(8))[0] & 0x00fffffffffffe00
            f.seek(l2)
            f.write(struct.pack(">Q", table | 1 << 63))
        b.add("a")
        out = b.write("a", "write -P 9 0 64k")
        assert "wrote" not in out, out
        event = b.qmp.wait_event("BLOCK_IMAGE_CORRUPTED")
        assert event["data"]["node-name"] == "a" and event["data"]["fatal"], event
        assert b.node("a")["ro"]
        assert not [e for e in b.qmp.events if e["event"] == "BLOCK_IMAGE_CORRUPTED"], "said twice"
        b.qmp.execute("blockdev-del", node_name="a")
        assert info(path)["format-specific"]["data"]["corrupt"]
        refused("corrupt", b.add, "a")


TESTS = {
    "blockdev-reopen": test_reopen, "blockdev-reopen: backing": test_reopen_backing,
    "blockdev-reopen: file": test_reopen_file, "blockdev-reopen: options": test_reopen_options,
    "query-blockstats of nodes": test_node_statistics, "nodes on I/O threads": test_iothreads,
    "tls-authz": test_authorization, "eject and its family": test_media, "qom-set of limits": test_limits,
    "x-blockdev-amend": test_amend, "change-backing-file": test_change_backing_file,
    "BLOCK_IMAGE_CORRUPTED": test_corrupt,
}

if __name__ == "__main__":
    tap.run({name: test for name, test in TESTS.items() if len(sys.argv) < 3 or sys.argv[2] in name})
