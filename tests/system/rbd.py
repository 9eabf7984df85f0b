#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Images in a Ceph cluster: ruche-img with its module beside rbd, qemu-img and qemu-io. A monitor and an object store run
in a network of their own, with all their state in the run's folder. With --ruched=RUCHED, a storage pool of ruched there too. TAP.

    rbd.py RUCHE-IMG [--ruched=RUCHED] [WORDS]
"""
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid

import tap
from libvirt_rpc import Daemon
from peers import ENV, MIB, TOOL, WORK, contents, img, in_own_network, listens, main, need, path, process, refused, run, wait_for

SIZE = 24 * MIB
OBJECT = 4 * MIB
PROGRAMS = ("ceph-mon", "ceph-osd", "ceph", "rbd", "ceph-authtool", "monmaptool")
CONF = """[global]
fsid = {fsid}
mon_host = v2:127.0.0.1:3300
keyring = {work}/keyring
run_dir = {work}
crash_dir = {work}
log_file = {work}/$name.log
mon_cluster_log_file = {work}/cluster.log
mon_data = {work}/mon
osd_data = {work}/osd
mon_allow_pool_size_one = true
mon_data_avail_warn = 1
mon_data_avail_crit = 1
auth_allow_insecure_global_id_reclaim = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_objectstore = memstore
memstore_device_bytes = 536870912
osd_op_thread_suicide_timeout = 3600
osd_max_markdown_count = 1000
osd_heartbeat_grace = 3600
"""


def ceph(*words, **more):
    return run("ceph", "-c", path("ceph.conf"), "--connect-timeout", "30", *words, **more).stdout


def rbd(*words, **more):
    return run("rbd", "-c", path("ceph.conf"), *words, **more).stdout


def name(image, **values):
    values = {"conf": path("ceph.conf"), **values}
    return f"rbd:rbd/{image}" + "".join(f":{k}={v}" for k, v in values.items())


def write_keys():
    run("ceph-authtool", "--create-keyring", path("keyring"), "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    run("ceph-authtool", path("keyring"), "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *",
        "--cap", "mgr", "allow *")
    run("ceph-authtool", path("keyring"), "--gen-key", "-n", "osd.0", "--cap", "mon", "allow profile osd", "--cap", "osd", "allow *")


@contextlib.contextmanager
def cluster():
    """Yields the two processes."""
    fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
    with open(path("ceph.conf"), "w", encoding="ascii") as f:
        f.write(CONF.format(fsid=fsid, work=WORK))
    conf = ["-c", path("ceph.conf")]
    write_keys()
    run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", "v2:127.0.0.1:3300", path("monmap"))
    os.mkdir(path("mon"))
    os.mkdir(path("osd"))
    run("ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", path("monmap"), "--keyring", path("keyring"))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with process("ceph-mon", *conf, "-f", "-i", "a", **quiet) as mon:
        ceph("osd", "new", osd, "0")
        run("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        with process("ceph-osd", *conf, "-f", "-i", "0", **quiet) as store:
            ceph("osd", "pool", "create", "rbd", "8")
            rbd("pool", "init", "rbd")
            yield mon, store


# --- tests; each with an image of its own ---

def source(file="disk.raw", size=SIZE, data_at=5 * MIB, data_len=6 * MIB):
    """Data in the middle, holes around it."""
    data = hashlib.shake_128(file.encode()).digest(data_len)
    with open(path(file), "wb") as f:
        f.truncate(size)
        f.seek(data_at)
        f.write(data)
    return contents(file)


def exported(image):
    """The image as Ceph's own tool sees it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path("exported.raw"))
    rbd("export", "--no-progress", image, path("exported.raw"))
    return contents("exported.raw")


def used_bytes(image):
    return sum(int(extent["length"]) for extent in json.loads(rbd("diff", "--format=json", image))
               if extent["exists"] in (True, "true"))


def test_copies():
    data = source()
    rbd("create", "--size", str(SIZE // MIB), "copies")
    info = json.loads(img("info", "--output=json", "-f", "raw", name("copies")).stdout)
    assert info["virtual-size"] == SIZE, info
    img("convert", "-n", "-f", "raw", "-O", "raw", "disk.raw", name("copies"))
    assert exported("copies") == data
    assert used_bytes("copies") <= 8 * MIB, used_bytes("copies")  # holes stayed holes
    img("convert", "-f", "raw", "-O", "qcow2", name("copies"), "back.qcow2")
    img("compare", "-f", "qcow2", "-F", "raw", "back.qcow2", "disk.raw")
    img("compare", "-f", "raw", "-F", "raw", name("copies"), "disk.raw")
    img("dd", "-f", "raw", "-O", "raw", "bs=1M", "skip=5", f"if={name('copies')}", "of=part.raw")
    assert contents("part.raw") == data[5 * MIB:]


def test_beside_qemu():
    data = source("other.raw")
    rbd("create", "--size", str(SIZE // MIB), "beside")
    run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "other.raw", name("beside"))
    img("convert", "-f", "raw", "-O", "raw", name("beside"), "out.raw")
    assert contents("out.raw") == data
    source("third.raw", data_at=MIB)
    img("convert", "-n", "-f", "raw", "-O", "raw", "third.raw", name("beside"))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", "third.raw", name("beside"))
    ours, theirs = (json.loads(run(tool, "info", "--output=json", "-f", "raw", name("beside")).stdout) for tool in (TOOL, "qemu-img"))
    for member in ("virtual-size", "format"):
        assert ours.get(member) == theirs.get(member), (ours, theirs)
    ours, theirs = (json.loads(run(tool, "map", "--output=json", "-f", "raw", name("beside")).stdout) for tool in (TOOL, "qemu-img"))
    assert ours == theirs, (ours, theirs)


def test_requests():
    """Small writes, zeroes and discards, by way of our NBD server; what they did, in the words of Ceph's own tool."""
    data = bytearray(source("requests.raw", data_at=0, data_len=20 * MIB))
    rbd("import", "--no-progress", path("requests.raw"), "requests")
    where = f"nbd+unix:///?socket={path('sock')}"
    with process(TOOL, "serve", "-t", "-f", "raw", "--discard=unmap", "-k", path("sock"), name("requests")) as server:
        wait_for("the server", lambda: listens("sock"))
        commands = ["write -P 7 1M 64k", "write -P 9 4194000 2000", "discard 8M 4M", "write -z 13M 100k", "write -z -u 16M 4M",
                    "flush", "read -P 7 1M 64k", "read -P 0 8M 4M", "read -P 9 4194000 2000"]
        out = run("qemu-io", "-f", "raw", *[w for c in commands for w in ("-c", c)], where).stdout
        assert "failed" not in out, out
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=120) == 0
    for at, part in ((MIB, b"\x07" * 65536), (4194000, b"\x09" * 2000), (8 * MIB, bytes(OBJECT)), (13 * MIB, bytes(102400)),
                     (16 * MIB, bytes(OBJECT))):
        data[at:at + len(part)] = part
    assert exported("requests") == data
    extents = json.loads(rbd("diff", "--format=json", "--whole-object", "requests"))
    there = {int(e["offset"]) // OBJECT for e in extents if e["exists"] in (True, "true")}
    assert 2 not in there and 4 not in there and {0, 1, 3} <= there, there  # what was discarded takes no space


def test_resize():
    data = source("sized.raw", size=8 * MIB, data_at=0, data_len=8 * MIB)
    rbd("import", "--no-progress", path("sized.raw"), "sized")
    img("resize", "-f", "raw", name("sized"), "20M")
    assert exported("sized") == data + bytes(12 * MIB)
    refused("--shrink", "resize", "-f", "raw", name("sized"), "4M")
    img("resize", "-f", "raw", "--shrink", name("sized"), "4M")
    assert exported("sized") == data[:4 * MIB]


def test_create():
    """New images, which grow as they are written."""
    data = source("new.raw")
    img("create", "-f", "raw", name("created"), "10M")
    assert json.loads(rbd("info", "--format=json", "created"))["size"] == 10 * MIB
    refused("File exists", "create", "-f", "raw", name("created"), "10M")
    img("convert", "-f", "raw", "-O", "raw", "new.raw", name("converted"))
    assert exported("converted") == data
    img("convert", "-f", "raw", "-O", "qcow2", "new.raw", name("inside"))
    run("qemu-img", "check", "-f", "qcow2", name("inside"))
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", name("inside"), "new.raw")
    run("qemu-img", "create", "-q", "-f", "qcow2", name("theirs"), "24M")
    img("convert", "-n", "-f", "raw", "-O", "qcow2", "new.raw", name("theirs"))
    run("qemu-img", "check", "-f", "qcow2", name("theirs"))
    img("compare", "-f", "qcow2", "-F", "raw", name("theirs"), "new.raw")


def test_snapshot():
    data = source("snap.raw")
    rbd("import", "--no-progress", path("snap.raw"), "snap")
    rbd("snap", "create", "snap@before")
    source("after.raw", data_at=0)
    img("convert", "-n", "-f", "raw", "-O", "raw", "after.raw", name("snap"))
    img("convert", "-f", "raw", "-O", "raw", name("snap@before"), "out.raw")
    assert contents("out.raw") == data
    refused("read-only", "resize", "-f", "raw", name("snap@before"), "+1M")
    refused("read-only", "convert", "-n", "-f", "raw", "-O", "raw", "after.raw", name("snap@before"))
    refused("cannot open the image", "info", "-f", "raw", name("snap@other"))


def test_namespace():
    data = source("spaced.raw")
    rbd("namespace", "create", "rbd/tenant")
    rbd("import", "--no-progress", path("spaced.raw"), "rbd/tenant/disk")
    img("convert", "-f", "raw", "-O", "raw", name("tenant/disk"), "out.raw")
    assert contents("out.raw") == data
    refused("cannot open the image", "info", "-f", "raw", name("disk"))
    by_options = f"driver=raw,file.driver=rbd,file.pool=rbd,file.namespace=tenant,file.image=disk,file.conf={path('ceph.conf')}"
    img("compare", "--image-opts", by_options, "driver=raw,file.filename=spaced.raw")


def test_key():
    """A user that may read only, whose key is a secret and stands in no keyring."""
    source("keyed.raw")
    rbd("import", "--no-progress", path("keyed.raw"), "keyed")
    key = ceph("auth", "get-or-create-key", "client.reader", "mon", "profile rbd", "osd", "profile rbd-read-only").strip()
    with open(path("bare.conf"), "w", encoding="ascii") as f:
        f.write(f"[global]\nmon_host = v2:127.0.0.1:3300\nkeyring = {path('none')}\nlog_file = {path('client.log')}\n")
    wrong = key[:-6] + ("A" if key[-6] != "A" else "B") + key[-5:]

    def words(key):
        return ["--object", f"secret,id=k,data={key}", "--image-opts",
                f"driver=raw,file.driver=rbd,file.pool=rbd,file.image=keyed,file.user=reader,file.conf={path('bare.conf')},"
                "file.key-secret=k"]
    img("compare", *words(key), "driver=raw,file.filename=keyed.raw")
    refused("cannot connect to the cluster", "info", *words(wrong))
    refused("cannot connect to the cluster", "info", "-f", "raw", name("keyed", conf=path("bare.conf")))
    refused("ot permitted", "convert", "--object", f"secret,id=k,data={key}", "-n", "--target-image-opts", "-f", "raw",
            "requests.raw" if os.path.exists(path("requests.raw")) else "keyed.raw", words(key)[3])


POOL_SECRET = "5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a02"


def pool_life(virsh):
    """Volumes come, are copied, sized and go, as Ceph's own tool sees them."""
    data = source("pooled.raw")
    rbd("import", "--no-progress", path("pooled.raw"), "pooled")
    key = ceph("auth", "get-or-create-key", "client.pools", "mon", "profile rbd", "osd", "profile rbd").strip()
    with open(path("secret.xml"), "w", encoding="ascii") as f:
        f.write(f"<secret><uuid>{POOL_SECRET}</uuid><usage type='ceph'><name>pools</name></usage></secret>")
    with open(path("pool.xml"), "w", encoding="ascii") as f:
        f.write(f"<pool type='rbd'><name>c</name><source><host name='127.0.0.1' port='3300'/><name>rbd</name>"
                f"<auth type='ceph' username='pools'><secret uuid='{POOL_SECRET}'/></auth></source></pool>")
    virsh("secret-define", path("secret.xml"))
    virsh("pool-define", path("pool.xml"))
    assert "secret" in virsh("pool-start", "c", code=1)  # it has no value yet
    virsh("secret-set-value", POOL_SECRET, "--base64", base64.b64encode(b"wrong").decode())
    assert "to the cluster" in virsh("pool-start", "c", code=1)
    virsh("secret-set-value", POOL_SECRET, "--base64", key)
    virsh("pool-start", "c")
    assert "pooled" in virsh("vol-list", "c") and f"{SIZE}</capacity>" in virsh("vol-dumpxml", "pooled", "--pool", "c")
    virsh("vol-create-as", "c", "made", "8M")
    assert json.loads(rbd("info", "--format=json", "made"))["size"] == 8 * MIB
    assert "made" in virsh("vol-create-as", "c", "made", "8M", code=1)
    virsh("vol-clone", "pooled", "cloned", "--pool", "c")
    assert exported("cloned") == data
    virsh("vol-resize", "cloned", "32M", "--pool", "c")
    assert exported("cloned") == data + bytes(32 * MIB - SIZE)
    rbd("rm", "--no-progress", "made")
    rbd("create", "--size", "4", "elsewhere")
    virsh("pool-refresh", "c")
    names = virsh("vol-list", "c").split()
    assert "elsewhere" in names and "made" not in names, names
    for volume in ("cloned", "elsewhere", "pooled"):
        virsh("vol-delete", volume, "--pool", "c")
    assert not {"cloned", "elsewhere", "pooled"} & set(rbd("ls").split())
    virsh("pool-destroy", "c")
    virsh("pool-undefine", "c")


def test_pool():
    ruched = [word.removeprefix("--ruched=") for word in sys.argv if word.startswith("--ruched=")]
    if not ruched:
        raise tap.Skip("no --ruched=")
    need("virsh")
    daemon = Daemon(ruched[0], f"[machines]\nimg={TOOL}\n")

    def virsh(*words, code=0):
        done = run("virsh", "-c", f"qemu+unix:///system?socket={daemon.socket}", *words, code=code)
        return done.stdout + done.stderr
    try:
        pool_life(virsh)
    finally:
        daemon.stop()


def test_absent():
    refused("cannot open the image", "info", "-f", "raw", name("nothing"))
    refused("cannot open the pool", "info", "-f", "raw", name("nothing").replace("rbd:rbd/", "rbd:nowhere/"))
    refused("conf", "info", "-f", "raw", name("nothing", conf=path("nothing.conf")))


def ends_within(seconds, *words):
    begin = time.monotonic()
    done = img(*words, check=False, timeout=seconds + 30)
    took = time.monotonic() - begin
    assert done.returncode and took < seconds, f"{words}: {done.returncode} after {took:.1f} s"
    return done.stderr


def answers(image):
    """Its client waits for ever for a store that is not back."""
    try:
        return not run("rbd", "-c", path("ceph.conf"), "info", image, check=False, timeout=20).returncode
    except subprocess.TimeoutExpired:
        return False


def test_store_gone(store):
    """The object store stops in the middle: requests end in an error, and the tool with them."""
    source("gone.raw", data_at=0, data_len=20 * MIB)
    rbd("create", "--size", str(SIZE // MIB), "gone")
    words = [TOOL, "convert", "-n", "-f", "raw", "-O", "raw", "-r", "2M", "gone.raw", name("gone", timeout=4)]
    with subprocess.Popen(words, cwd=WORK, env=ENV, stderr=subprocess.PIPE, text=True) as p:
        wait_for("some of the copy", lambda: p.poll() is not None or used_bytes("gone") > 2 * MIB)
        store.send_signal(signal.SIGSTOP)
        begin = time.monotonic()
        _, err = p.communicate(timeout=600)
        took = time.monotonic() - begin
    try:
        assert p.returncode == 1 and "timed out" in err and took < 300, f"{p.returncode} after {took:.1f} s: {err}"
        ends_within(300, "convert", "-f", "raw", "-O", "raw", name("gone", timeout=3), "out.raw")
    finally:
        store.send_signal(signal.SIGCONT)
    wait_for("the object store", lambda: answers("gone"), 300)
    img("convert", "-f", "raw", "-O", "raw", "gone.raw", name("again"))  # the lock on the other one outlives its dead owner
    assert exported("again") == contents("gone.raw")


def test_monitor_gone(mon):
    mon.kill()
    mon.wait()
    assert "cannot connect" in ends_within(300, "info", "-f", "raw", name("copies", timeout=3))


def inside():
    with cluster() as (mon, store):
        main({
            "copies both ways": test_copies,
            "written and read by turns with qemu-img": test_beside_qemu,
            "small writes, zeroes, discards": test_requests,
            "another size": test_resize,
            "new images": test_create,
            "a snapshot is read": test_snapshot,
            "a namespace": test_namespace,
            "a key that is a secret": test_key,
            "a storage pool": test_pool,
            "what is not there": test_absent,
            "the object store stops": lambda: test_store_gone(store),
            "the monitor is gone": lambda: test_monitor_gone(mon),
        })


if __name__ == "__main__":
    if "--inside" in sys.argv:
        inside()
    try:
        need(*PROGRAMS, "qemu-img", "qemu-io")
        sys.exit(subprocess.call([*in_own_network(), *sys.argv[2:]]))
    except tap.Skip as reason:
        print(f"1..0 # SKIP {reason}")
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
