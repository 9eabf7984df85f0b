#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian whose root disk is an image of each format: it boots, installs packages, writes, trims, powers off; then the
image checks clean, its file system too, and the host finds in it what the guest wrote.

    debian_formats.py RUCHE-VMM RUCHE-IMG
"""
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tempfile
import threading

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import Vmm, debian_arguments  # noqa: E402

VMM, IMG = sys.argv[1:3]
BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "1200"))

# name: (format, options of the new image, do qemu's tools check it)
FORMATS = {
    "qcow2": ("qcow2", [], True),
    "qcow2 zstd, subclusters": ("qcow2", ["-c", "-o", "extended_l2=on,compression_type=zstd"], True),
    "qcow2 v2, small clusters": ("qcow2", ["-o", "compat=0.10,cluster_size=4k"], True),
    "vmdk": ("vmdk", [], True),
    "vdi": ("vdi", [], True),
    "vpc": ("vpc", ["-o", "force_size=on"], False),
    "vhdx": ("vhdx", [], True),
}


def tool(*arguments):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)} ended with {done.returncode}: {done.stdout}"
    return done.stdout


class Packages:
    """The folder of tools/test-packages, over HTTP."""

    def __init__(self):
        self.folder = tool(os.path.join(ROOT, "tools", "test-packages")).strip()
        handler = functools.partial(QuietHandler, directory=self.folder)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def names(self):
        return sorted(os.listdir(self.folder))

    def url(self):
        return f"http://10.0.2.2:{self.server.server_port}"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def sh(vmm, command, seconds=900):
    status, output = vmm.console.run(command, seconds)
    assert status == 0, f"'{command}' ended with {status}: {output}"
    return output


def work_inside(vmm, packages):
    """Installs, writes, trims; the hash of what was written."""
    vmm.console.login(BOOT_SECONDS)
    fetch = " && ".join(f"curl -sSO {packages.url()}/{name}" for name in packages.names())
    sh(vmm, f"mkdir /root/debs && cd /root/debs && {fetch}")
    sh(vmm, "dpkg -i /root/debs/*.deb >/root/dpkg.log 2>&1 || { tail -n 5 /root/dpkg.log; false; }")
    assert "Hello, world!" in sh(vmm, "hello")
    assert sh(vmm, "echo '{\"a\":[1,2]}' | jq -cM .a") == "[1,2]"
    assert sh(vmm, "sqlite3 /root/t.db 'create table t(x); insert into t values(42); select x from t'") == "42"
    sh(vmm, "head -c 24000000 /dev/urandom >/root/blob && sync && rm -r /root/debs && fstrim / && sync")
    digest = sh(vmm, "sha256sum /root/blob").split()[0]
    vmm.qmp.execute("system_powerdown")
    status = vmm.wait(600)
    assert status == 0, f"exit status {status}: {vmm.errors()}"
    return digest


def check_outside(folder, disk, form, digest, qemu_checks):
    if form != "vpc": # keeps nothing that could be checked
        tool(IMG, "check", "-f", form, disk)
    if qemu_checks:
        tool("qemu-img", "check", "-f", form, disk)
    raw = os.path.join(folder, "after.raw")
    tool("qemu-img", "convert", "-f", form, "-O", "raw", disk, raw)
    tool(IMG, "compare", "-f", form, "-F", "raw", disk, raw)
    fsck = subprocess.run(["e2fsck", "-fn", raw], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False)
    assert fsck.returncode == 0, fsck.stdout
    blob = subprocess.run(["debugfs", "-R", "cat /root/blob", raw], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout
    assert hashlib.sha256(blob).hexdigest() == digest, "the host reads another blob than the guest wrote"


def arguments_for(image, disk, form):
    arguments = debian_arguments(image, disk, append="mitigations=off systemd.mask=e2scrub_reap.service")  # quicker: it is about disks
    plain = f"file={disk},if=virtio,format=raw"
    arguments[arguments.index(plain)] = f"file={disk},if=virtio,format={form},discard=unmap"
    return arguments + ["-accel", "soft", "-smp", "1"]


def run_format(image, packages, name):
    form, options, qemu_checks = FORMATS[name]
    folder = tempfile.mkdtemp(prefix="ruche-formats-")
    try:
        disk = os.path.join(folder, f"disk.{form}")
        tool(IMG, "convert", "-O", form, *options, "-f", "raw", os.path.join(image, "disk.img"), disk)
        vmm = Vmm(VMM, arguments_for(image, disk, form))
        try:
            digest = work_inside(vmm, packages)
        finally:
            vmm.close()
        check_outside(folder, disk, form, digest, qemu_checks)
    finally:
        shutil.rmtree(folder)


def overlay(image, packages):
    """Two disks in one chain: the base stays as it was."""
    folder = tempfile.mkdtemp(prefix="ruche-formats-")
    try:
        base, disk = os.path.join(image, "disk.img"), os.path.join(folder, "overlay.qcow2")
        middle = os.path.join(folder, "middle.qcow2")
        before = os.stat(base).st_mtime_ns
        tool(IMG, "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", middle)
        tool(IMG, "create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", disk)
        vmm = Vmm(VMM, arguments_for(image, disk, "qcow2"))
        try:
            digest = work_inside(vmm, packages)
        finally:
            vmm.close()
        assert os.stat(base).st_mtime_ns == before, "the base was written to"
        check_outside(folder, disk, "qcow2", digest, True)
    finally:
        shutil.rmtree(folder)


def main():
    image = tool(os.path.join(ROOT, "tools", "guest-image")).strip().splitlines()[-1]
    packages = Packages()
    tests = {f"Debian on {name}": functools.partial(run_format, image, packages, name) for name in FORMATS}
    tests["Debian on an overlay"] = functools.partial(overlay, image, packages)
    tap.run(tests)


if __name__ == "__main__":
    main()
