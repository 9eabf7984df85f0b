#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""virsh's commands for the disks and vCPUs of a running machine, with success, beside libvirtd: jobs on chains of images, their
speed and end, limits, sizes. TAP.

    virsh_blocks.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL
"""
import os
import subprocess

import virsh_commands as base
from virsh_commands import ALONE, FORM, LABELS, STATUS

MIB = 1 << 20


def disk(target, file, kind="qcow2"):
    return (f"<disk type='file' device='disk'><driver name='qemu' type='{kind}'/><source file='@{file}'/>"
            f"<target dev='{target}' bus='virtio'/></disk>")


base.FILES = {"chain.xml": f"""<domain type='qemu'><name>chain</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{base.KERNEL}</kernel></os><features><acpi/></features>
<devices><emulator>@emulator@</emulator><controller type='usb' model='none'/>{disk('vda', 'top.qcow2')}{disk('vdb', 'over.qcow2')}
{disk('vdc', 'last.qcow2')}{disk('vdd', 'plain.img', 'raw')}<serial type='pty'/><console type='pty'/><memballoon model='none'/></devices></domain>"""}
# What lies on what, from the top; the lowest are raw and full of data.
CHAINS = (("top.qcow2", "mid.qcow2", "base.img"), ("over.qcow2", "under.img"), ("last.qcow2", "third.qcow2", "second.qcow2", "first.img"), ("plain.img",))

PULLS = (
    ("define @chain.xml", "defined", FORM), ("start chain", "started", FORM), ("domblklist chain --details", r"^ file   disk     vda      \S+top\.qcow2\n file   disk     vdb", FORM),
    ("blockjob chain vda", "No current block job", FORM), ("domblkinfo chain --all", r"^ vda +16777216 +\d+ +\d+", LABELS),
    ("blockpull chain vda --base @base.img --wait --verbose", r"Pull complete", STATUS), ("dumpxml chain --xpath //disk[1]/backingStore/source", r"\A<source file=\S+base\.img", STATUS),
    ("blockpull chain vda --base @mid.qcow2", "!mid.qcow2", STATUS), ("blockpull chain vda --wait --verbose", r"Pull complete", STATUS),
    ("dumpxml chain --xpath //disk[1]/backingStore/source", r"\A\s*\Z|XPath returned an empty result", STATUS),
    ("blockpull chain vda --wait --verbose", "Pull complete", STATUS), ("blockpull chain vdd --wait --verbose", "Pull complete", STATUS), ("blockpull chain vdd", "^Block Pull started$", FORM),
    ("blockpull chain vdq", "!vdq", STATUS),
)
COPIES = (
    # The peer's jobs have another pace.
    ("blockcopy chain vdd @slow.img --transient-job --format raw --bandwidth 1", "^Block Copy started$", ALONE),
    ("blockjob chain vdd", r"(?s)Bandwidth limit: 1048576 bytes/s \(1.000 MiB/s\).*Block Copy: \[ *\d+ %\]", ALONE),
    ("blockjob chain vdd --raw", r"^ type=Block Copy\n bandwidth=1\n cur=\d+\n end=\d+", ALONE), ("blockjob chain vdd --raw --bytes", r"bandwidth=1048576", ALONE),
    ("blockcopy chain vdd @other.img --transient-job --format raw", "!already", ALONE), ("blockjob chain vdd --bandwidth 2", "", ALONE), ("blockjob chain vdd --info", "2097152", ALONE),
    ("blockjob chain vdd --pivot", "!not ready|not.*ready", ALONE), ("blockjob chain vdd --abort", "", ALONE), ("blockjob chain vdd", "No current block job", FORM),
    ("blockcopy chain vdd @kept.img --transient-job --format raw --wait --verbose --finish", r"Successfully copied", STATUS), ("domblklist chain", r"^ vdd +\S+plain\.img", FORM),
    ("blockcopy chain vdd @new.qcow2 --transient-job --format qcow2 --wait --verbose --pivot", r"Successfully pivoted", STATUS), ("domblklist chain", r"^ vdd +\S+new\.qcow2", FORM),
    ("blockcopy chain vdd @new.qcow2 --transient-job --shallow --reuse-external --format qcow2", "!", STATUS), ("blockcopy chain vdd", "!", STATUS),
)
COMMITS = (
    ("blockcommit chain vdb --active --wait --verbose --pivot", r"Successfully pivoted", STATUS), ("domblklist chain", r"^ vdb +\S+under\.img", FORM),
    ("blockcommit chain vdc --top @second.qcow2 --base @first.img --wait --verbose", "Commit complete", STATUS), ("blockcommit chain vdc --top @nix.img", "!nix.img", STATUS),
    ("dumpxml chain --xpath //disk[3]/backingStore/source", r"\A<source file=\S+third\.qcow2", STATUS),
    ("blockcommit chain vdc --active", "^Active Block Commit started$", FORM), ("blockjob chain vdc", r"^Active Block Commit: \[", STATUS),
    ("blockjob chain vdc --abort", "", FORM), ("domblklist chain", r"^ vdc +\S+last\.qcow2", FORM),
    ("blockcommit chain vdc --active --wait --verbose --keep-overlay", r"Commit complete, overlay image kept", STATUS),
    ("domblklist chain", r"^ vdc +\S+last\.qcow2", FORM), ("blockcommit chain vdc --active --wait --verbose --pivot", "Successfully pivoted", STATUS),
    ("domblklist chain", r"^ vdc +\S+first\.img", FORM), ("blockcommit chain vdb --active", "!", STATUS),
)
LIMITS = (
    ("blkdeviotune chain vda --live --read-bytes-sec 5000000 --write-iops-sec 70 --write-iops-sec-max 90 --size-iops-sec 4096 --group-name g", "", FORM),
    ("blkdeviotune chain vda --live", r"(?s)read_bytes_sec : 5000000.*write_iops_sec : 70.*write_iops_sec_max: 90.*size_iops_sec  : 4096.*group_name     : g", LABELS),
    ("blkdeviotune chain vda --live --total-bytes-sec 1 --read-bytes-sec 1", "!bps-total|total and read/write", STATUS), ("blkdeviotune chain vda --live --read-bytes-sec 0 --write-iops-sec 0 --write-iops-sec-max 0 --size-iops-sec 0", "", STATUS),
    ("blockresize chain vda 32M", "is resized", FORM), ("domblkinfo chain vda", r"^Capacity: +33554432", LABELS), ("blockresize chain vda 17M", "", STATUS),
    ("domblkstat chain vda --human", "number of read operations", FORM), ("domblkstat chain", r"rd_req +\d+", LABELS), ("domblkerror chain", "No errors found", FORM),
    ("domblkthreshold chain vda 1M", "", FORM), ("domstats chain --block --backing", r"block\.0\.threshold=1048576", LABELS), ("domblkthreshold chain vda 0", "", FORM),
    ("setvcpus chain 1 --config", "", FORM), ("vcpucount chain", r"^maximum +config +2\nmaximum +live +2\ncurrent +config +1\ncurrent +live +2", FORM),
    ("setvcpus chain 4 --maximum --config", "", FORM), ("setvcpu chain 1 --enable --config", "", STATUS), ("vcpucount chain --config --maximum", "^4$", FORM),
    ("vcpucount chain --config --current", r"^\d$", FORM), ("setvcpu chain 1 --disable --config", "", STATUS), ("vcpucount chain --current --live", "^2$", FORM),
    ("destroy chain", "destroyed", FORM), ("undefine chain", "undefined", FORM),
)


def make_images(side):
    for chain in CHAINS:
        lower = None
        for name in reversed(chain):
            path = os.path.join(side.folder, name)
            words = ["-f", "qcow2", *(["-b", lower, "-F", "raw" if lower.endswith("img") else "qcow2"] if lower else []), path, "16M"]
            if lower:
                subprocess.run([base.IMG, "create", "-q", *words], check=True)
            else:
                with open(path, "wb") as f:
                    f.write(os.urandom(MIB) * 8)
                    f.truncate(16 * MIB)
            os.chmod(path, 0o666)
            lower = path
    os.chmod(side.folder, 0o777)


def make_tests(ours, beside):
    for side in (ours, beside):
        if side:
            make_images(side)
    return {name: lambda rows=rows: base.try_rows(rows, ours, beside)
            for name, rows in (("pulls", PULLS), ("copies", COPIES), ("commits", COMMITS), ("limits, sizes and vCPUs", LIMITS))}


base.run_beside(make_tests)
