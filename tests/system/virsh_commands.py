#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each of virsh's commands for hosts and domains once against ruched, beside Debian's libvirtd with QEMU as the peer: the
same exit status, the same columns and labels. TAP.

    virsh_commands.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL

The commands are those that `virsh help` lists: one that no row here and no other test has, and that is not in NOT_YET, fails
the test. Without libvirtd or root, the patterns of the rows alone judge.
"""
import glob
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading

import tap
from libvirt_rpc import Daemon, listens, wait_for

RUCHED, VMM, IMG, KERNEL = (os.path.abspath(p) for p in sys.argv[1:5])
HERE = os.path.dirname(os.path.abspath(__file__))
WORK = tempfile.mkdtemp(prefix="virsh-")
os.chmod(WORK, 0o755)
ENV = {**os.environ, "LC_ALL": "C", "HOME": WORK, "XDG_CACHE_HOME": WORK, "XDG_CONFIG_HOME": WORK, "EDITOR": "true"}
QEMU = "/usr/bin/qemu-system-x86_64"
UUID, MAC, MORE = "8f0f8a9e-6a2c-4d4f-8c0e-0123456789ab", "52:54:00:11:22:33", "52:54:00:11:22:34"
GROUPS = ("domain", "monitor", "events", "host", "checkpoint", "backup", "snapshot", "pool", "volume")

FILES = {
    "domain.xml": f"""<domain type='qemu'><name>loop</name><uuid>{UUID}</uuid><title>a title</title>
<memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{KERNEL}</kernel></os><features><acpi/></features>
<devices><emulator>@emulator@</emulator><controller type='usb' model='none'/>
<controller type='pci' model='pcie-root'/>{"<controller type='pci' model='pcie-root-port'/>" * 10}
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='@disk.img'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='{MAC}'/><model type='virtio'/></interface>
<serial type='pty'/><console type='pty'/><memballoon model='virtio'/></devices></domain>""",
    "disk.xml": "<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='@two.img'/><target dev='vdb' bus='virtio'/></disk>",
    "nic.xml": f"<interface type='user'><mac address='{MORE}'/><model type='virtio'/></interface>",
    "pool.xml": f"<pool type='dir'><name>p</name><uuid>{UUID}</uuid><target><path>@pool</path></target></pool>",
    "volume.xml": "<volume><name>w</name><capacity>1048576</capacity><target><format type='qcow2'/></target></volume>",
    "cpu.xml": "<cpu mode='custom' match='exact'><model fallback='forbid'>qemu64</model></cpu>",
    "cpus.xml": "<cpu><arch>x86_64</arch><model>qemu64</model></cpu><cpu><arch>x86_64</arch><model>Nehalem</model></cpu>",
}

# A row: a command line ('@' is a folder of the side's own), a pattern of what ours says ('!': it fails and says so), and how the
# peer is compared: FORM, everything but numbers; LABELS, ours has each label that the peer's has; STATUS, the exit status;
# ALONE, the peer is not asked, as it cannot, or answers otherwise for a reason that stands beside the row.
FORM, LABELS, STATUS, ALONE = "form", "labels", "status", "alone"

HOST = (
    ("version", r"Using API: QEMU 9\.0\.0\nRunning hypervisor: QEMU \d+\.\d+\.\d+", FORM), ("version --daemon", r"Running against daemon: 9\.0\.0", FORM),
    ("uri", r"^qemu\+unix:///system\?socket=", FORM), ("hostname", "^" + re.escape(socket.gethostname()), FORM),
    ("nodeinfo", r"^CPU model: +x86_64\nCPU\(s\): +\d+\nCPU frequency: +\d+ MHz", FORM), ("nodecpumap", r"^CPUs present: +\d+\nCPUs online: +\d+\nCPU map: ", FORM),
    ("nodecpustats", r"^user: +\d+\nsystem: +\d+\nidle: +\d+\niowait: +\d+", FORM), ("nodecpustats --cpu 0", r"^user: +\d+$", FORM),
    ("nodecpustats --cpu 99999", "!99999", STATUS), ("nodecpustats --percent", r"^usage: +\d+\.\d%$", FORM),
    ("nodememstats", r"^total +: +\d+ KiB\nfree +: +\d+ KiB\nbuffers: +\d+ KiB\ncached +: +\d+ KiB", FORM), ("freecell", r"^Total: \d+ KiB", FORM),
    ("freecell --all", r"^ +0: +\d+ KiB\n-+\nTotal: +\d+ KiB", FORM), ("freepages --all", r"^Node 0:\n4KiB: \d+", FORM),
    ("freepages --cellno 0 --pagesize 4", r"^4KiB: \d+", FORM), ("maxvcpus", r"^\d+$", FORM), ("capabilities", "^<capabilities>", STATUS),
    ("domcapabilities", "^<domainCapabilities>", STATUS), ("domcapabilities --machine nix", "!nix", STATUS), ("cpu-models x86_64", "^qemu64$", FORM),
    ("cpu-models vax", "!vax", STATUS), ("cpu-compare @cpu.xml", "!host CPU", FORM), ("cpu-baseline @cpus.xml", "<cpu .*\n.*<model", STATUS),
    ("hypervisor-cpu-compare @cpu.xml", "!hypervisor on the host", STATUS), ("hypervisor-cpu-baseline @cpus.xml", "<cpu .*\n.*<model", STATUS),
    ("sysinfo", "^<sysinfo" if os.path.exists("/sys/class/dmi/id/sys_vendor") else "!SMBIOS", ALONE),  # the peer wants dmidecode
    ("pool-capabilities", "<storagepoolCapabilities>", STATUS), ("list", r"^ Id   Name   State\n-+", FORM), ("dominfo nix", "!failed to get domain 'nix'", FORM),
    ("event --timeout 1 --event lifecycle", "!timed out", FORM), ("event --list", "device-removed", FORM),
    ("node-memory-tune", r"^Shared memory:(\n\tshm_\w+ +\d+)+" if os.path.exists("/sys/kernel/mm/ksm/run") else "", STATUS), ("node-memory-tune --shm-pages-to-scan 0", "", STATUS),
    ("allocpages 4 0", "!system pages", STATUS), ("allocpages 3M 0", "!3072", STATUS),
    ("qemu-monitor-event --timeout 1", "!timed out", FORM), ("qemu-monitor-event nix --timeout 1", "!'nix'", FORM), ("qemu-monitor-event --regex --event ( --timeout 1", "!", STATUS),
)

DEFINED = (
    ("define @domain.xml --validate", r"^Domain 'loop' defined from", FORM), ("define @nic.xml", "!the root element is <interface>", STATUS),
    ("define @nothing", "!No such file", FORM), ("list --all", r"^ -    loop   shut off", FORM), ("list --all --title", r"State +Title\n.*\n.*a title", FORM),
    ("list --all --name", "^loop$", FORM), ("list --all --uuid", UUID, FORM), ("list --inactive --persistent --no-autostart --table", "loop", FORM),
    ("domid loop", "^-$", FORM), (f"domname {UUID}", "^loop$", FORM), ("domuuid loop", UUID, FORM), ("domstate loop --reason", r"^shut off \(unknown\)", FORM),
    ("dominfo loop", r"^Id: +-\nName: +loop\nUUID: +8f0f8a9e.*\nOS Type: +hvm\nState: +shut off\nCPU\(s\): +2\nMax memory: +65536 KiB", FORM),
    ("desc loop", "No description for domain: loop", FORM), ("desc loop --title", "^a title$", FORM), ("desc loop --title --new-desc other", "title updated", FORM),
    ("desc loop --config some words", "description updated", FORM), ("desc loop", "^some words$", FORM), ("metadata loop urn:x", "![Mm]etadata", STATUS),
    ("metadata loop urn:x --key k --set <a/> --config", "Metadata modified", FORM), ("metadata loop urn:x --config", "^<a/>$", FORM),
    ("metadata loop urn:x --remove --config", "Metadata removed", FORM), ("edit loop", "not changed", FORM), ("autostart loop", "marked as autostarted", FORM),
    ("list --all --autostart", "loop", FORM), ("autostart loop --disable", "unmarked as autostarted", FORM), ("schedinfo loop", r"^Scheduler +: posix\ncpu_shares +: \d", FORM),
    ("schedinfo loop --config --set cpu_shares=512", r"^cpu_shares +: 512$", FORM), ("schedinfo loop --set nix=5", "!invalid scheduler option: nix", FORM),
    ("memtune loop", r"^hard_limit +: unlimited\nsoft_limit +: unlimited\nswap_hard_limit: unlimited", FORM),
    ("memtune loop --config --soft-limit 200000", "", FORM), ("memtune loop --config", r"^soft_limit +: 200000$", FORM), ("blkiotune loop", r"^weight +: 0\ndevice_weight +:", FORM),
    ("numatune loop", r"^numa_mode +: strict$", STATUS), ("numatune loop --config --nodeset 0", "", FORM), ("numatune loop --config", r"^numa_nodeset +: 0$", STATUS),
    ("blkdeviotune loop vda", r"^total_bytes_sec: 0\nread_bytes_sec : 0", FORM), ("blkdeviotune loop vda --config --total-bytes-sec 1000000", "", FORM),
    ("blkdeviotune loop vda --config", "^total_bytes_sec: 1000000$", FORM), ("blkdeviotune loop vdq", "!vdq", STATUS),
    (f"domiftune loop {MAC}", r"^inbound\.average: 0", FORM), ("domiftune loop nix", "!nix", STATUS), ("vcpucount loop", r"^maximum +config +2\ncurrent +config +2", FORM),
    ("setvcpus loop 5 --config", "!greater than max", STATUS), ("setvcpus loop 2 --config", "", FORM), ("setvcpus loop 2 --live", "!not running", STATUS),
    ("vcpuinfo loop", r"^VCPU: +0\nCPU: +N/A\nState: +N/A\nCPU time +N/A\nCPU Affinity: +y", FORM), ("vcpuinfo loop --pretty", r"\(out of \d+\)", FORM),
    ("vcpupin loop", r"^ VCPU   CPU Affinity\n-+\n 0 ", FORM), ("vcpupin loop 0 0 --config", "", FORM), ("vcpupin loop --config", r"^ 0 +0$", FORM),
    ("vcpupin loop 9 0 --config", "!vcpu 9 is out of range", STATUS), ("emulatorpin loop", r"emulator: CPU Affinity\n-+\n +\*: ", FORM),
    ("emulatorpin loop 0 --config", "", FORM), ("iothreadinfo loop", "No IOThreads found", FORM),
    ("iothreadadd loop 2 --config", "", FORM), ("iothreadadd loop 1 --config", "", FORM), ("iothreadadd loop 2 --config", "!2", STATUS), ("iothreadadd loop 0 --config", "!0", STATUS),
    ("iothreadinfo loop", r"^ IOThread ID   CPU Affinity\n-+\n 2 +\S+\n 1 ", FORM), ("iothreadpin loop 1 0 --config", "", FORM), ("iothreadpin loop 9 0 --config", "!9", STATUS),
    ("iothreadinfo loop --config", r"^ 1 +0$", FORM), ("iothreadset loop 1 --thread-pool-min 1 --thread-pool-max 4 --config", "", FORM),
    ("iothreadset loop 1 --poll-max-ns 100 --config", "!", STATUS), ("iothreadset loop 1 --thread-pool-min 5 --thread-pool-max 4 --config", "!", STATUS),
    ("dumpxml loop --xpath //iothreadids", "^  <iothread id=.1. thread_pool_min=.1. thread_pool_max=.4./>$", FORM), ("dumpxml loop --xpath //iothreads", "2", FORM),
    ("iothreaddel loop 1 --config", "", FORM), ("iothreaddel loop 1 --config", "!1", STATUS), ("iothreaddel loop 2 --config", "", FORM), ("iothreadinfo loop", "No IOThreads", FORM),
    ("iothreadadd loop 1 --live", "!not running", STATUS), ("setmem loop 32M --config", "", FORM),
    ("dominfo loop", r"^Used memory: +32768 KiB$", FORM), ("setmem loop 1T --config", "!", STATUS),
    ("set-lifecycle-action loop poweroff restart --config", "", FORM), ("dumpxml loop --xpath //on_poweroff", "restart", FORM), ("set-lifecycle-action loop poweroff preserve --config", "!preserve", STATUS),
    ("set-lifecycle-action loop reboot coredump-destroy --config", "!coredump-destroy", STATUS), ("set-lifecycle-action loop crash coredump-destroy --config", "", FORM),
    ("set-lifecycle-action loop poweroff destroy --config", "", FORM), ("set-lifecycle-action loop crash destroy --live", "!not running", STATUS), ("domlaunchsecinfo loop", "", FORM),
    ("domxml-to-native qemu-argv --domain loop", r"(?s)-name .*disk\.img.* -device virtio-blk-pci,.*MAC|disk\.img", STATUS), ("domxml-to-native nix --domain loop", "!unsupported config type nix", STATUS),
    ("guest-agent-timeout loop --timeout 5", "", FORM), ("guest-agent-timeout loop --timeout -7", "!", STATUS), ("setmaxmem loop 64M --config", "", FORM), ("setmem loop 64M --config", "", FORM),
    ("domblklist loop", r"^ Target   Source\n-+\n vda      /", FORM), ("domblklist loop --details", r"^ file   disk     vda", FORM),
    ("domiflist loop", rf"^ -           user   -        virtio   {MAC}", FORM), ("domblkinfo loop vda", r"^Capacity: +16777216\nAllocation: +\d+\nPhysical: +\d+", FORM),
    ("domblkinfo loop --all --human", r"^ vda      16\.000 MiB", STATUS), ("domblkinfo loop nix", "!nix", STATUS), (f"domif-getlink loop {MAC}", "up$", FORM),
    (f"domif-setlink loop {MAC} down --config", "updated", FORM), (f"domif-getlink loop {MAC} --config", "down$", FORM), (f"domif-setlink loop {MAC} up --config", "updated", FORM),
    ("domstats loop", r"state\.state=5", STATUS), ("dumpxml loop --xpath //name", "^<name>loop</name>$", FORM), ("dumpxml loop --inactive --security-info --migratable", "<domain", STATUS),
    ("attach-device loop @disk.xml --config", "attached successfully", FORM), ("attach-device loop @disk.xml --config", "!vdb", STATUS),
    ("update-device loop @disk.xml --config", "updated successfully", FORM), ("detach-device loop @disk.xml --config", "detached successfully", FORM),
    ("attach-disk loop @two.img vdb --config --subdriver raw", "attached", FORM), ("detach-disk loop vdb --config", "detached", FORM), ("detach-disk loop vdz --config", "!vdz", FORM),
    ("attach-interface loop network nix --config --print-xml", "<source network='nix'/>", FORM), ("attach-device loop @nic.xml --config", "attached", FORM),
    (f"detach-interface loop user --mac {MORE} --config", "detached", FORM), ("change-media loop vda --eject --config", "!No disk found", FORM),
    ("domrename loop loop2", "renamed", FORM), ("domrename loop2 loop", "renamed", FORM), ("update-memory-device loop --requested-size 1G", "!no memory device found", FORM),
    ("managedsave-remove loop", "no manage save image", FORM), ("snapshot-list loop", r"^ Name   Creation Time   State", FORM),
    ("snapshot-current loop", "!no current snapshot", FORM), ("snapshot-create-as loop s --print-xml", "<domainsnapshot>", FORM),
    *((f"snapshot-{verb} loop x", "!Snapshot not found|snapshot 'x'", STATUS) for verb in ("info", "parent", "dumpxml", "delete", "edit", "revert")),
    ("checkpoint-list loop", r"^ Name   Creation Time", FORM), ("ttyconsole loop", "!", FORM), ("console loop", "!not running", FORM),
    *((f"{line}", "!not running", STATUS) for line in (
        "suspend loop", "resume loop", "reboot loop", "reset loop", "shutdown loop", "destroy loop", "inject-nmi loop", "domblkstat loop vda", f"domifstat loop {MAC}",
        "dommemstat loop", "domblkerror loop", "domcontrol loop", "domtime loop", "domifaddr loop", "domfsinfo loop", "domhostname loop", "guestinfo loop", "domdisplay loop",
        "vncdisplay loop", "cpu-stats loop", "blockresize loop vda 32M", "domfsfreeze loop", "domfsthaw loop", "domfstrim loop", "set-user-password loop root x",
        "qemu-agent-command loop {}", "qemu-monitor-command loop query-name", "dompmsuspend loop mem", "dompmwakeup loop", "get-user-sshkeys loop root",
        "set-user-sshkeys loop root --file @cpu.xml", "guestvcpus loop", "domblkthreshold loop vda 1M", "domjobinfo loop", "vcpucount loop --guest")),
)

RUNNING = (
    ("start loop", r"^Domain 'loop' started", FORM), ("start loop", "!already active", FORM), ("list", r"^ \d+    loop   running", FORM), ("domid loop", r"^\d+$", FORM),
    ("domstate loop --reason", r"^running \(booted\)", FORM), ("dominfo loop", r"State: +running\nCPU\(s\): +2\nCPU time: +\d+\.\ds", LABELS),
    ("dumpxml loop", "<domain type='qemu' id=", STATUS), ("vcpuinfo loop", r"^VCPU: +0\nCPU: +\d+\nState: +running\nCPU time: +\d+\.\ds\nCPU Affinity: +y", LABELS),
    ("vcpucount loop", r"^maximum +live +2", FORM), ("vcpupin loop 0 0 --live", "", FORM), ("vcpupin loop --live", r"^ 0 +0$", FORM), ("emulatorpin loop 0 --live", "", FORM),
    ("emulatorpin loop --live", r"\*: 0$", FORM), ("blkdeviotune loop vda --live --total-bytes-sec 2000000", "", FORM),
    ("iothreadadd loop 1 --live", "", FORM), ("iothreadinfo loop --live", r"^ 1 ", FORM), ("iothreadpin loop 1 0 --live", "", FORM), ("iothreadinfo loop", r"^ 1 +0$", FORM),
    ("iothreadset loop 1 --poll-max-ns 100 --poll-grow 3 --thread-pool-max 9 --live", "", FORM), ("iothreadset loop 2 --poll-max-ns 100", "!2", STATUS),
    ("iothreadset loop 1 --thread-pool-min 70 --thread-pool-max 80", "", FORM), ("domstats loop --iothread", r"iothread\.1\.poll-max-ns=100\n +iothread\.1\.poll-grow=3", FORM),
    ("iothreadadd loop 1", "!1", STATUS), ("iothreaddel loop 2", "!2", STATUS), ("dumpxml loop --xpath //iothreadids", "<iothread id=.1.", STATUS), ("iothreaddel loop 1", "", FORM),
    ("iothreadinfo loop", "No IOThreads", FORM), ("blkdeviotune loop vda --live", "^total_bytes_sec: 2000000$", LABELS), (f"domiftune loop {MAC} --live", r"inbound\.average", FORM),
    ("domstats loop", r"cpu\.time=\d+", LABELS), ("domstats --raw --block --interface --balloon --vcpu", r"block\.count=1", LABELS),
    ("domstats --list-running --state --cpu-total --iothread", r"state\.state=1", LABELS), ("domblkstat loop vda", r"^vda rd_req \d+\nvda rd_bytes \d+", FORM),
    ("domblkstat loop vda --human", "number of read operations", FORM), ("domblkstat loop vdq", "!vdq", STATUS), ("domblkinfo loop vda", r"^Capacity: +16777216", FORM),
    ("domblklist loop", "vda", FORM), ("domiflist loop", MAC, LABELS), (f"domif-getlink loop {MAC}", "up", FORM), (f"domif-setlink loop {MAC} down", "updated", FORM),
    (f"domif-getlink loop {MAC}", "down$", FORM), (f"domif-setlink loop {MAC} up", "updated", FORM), ("dommemstat loop", r"^actual 65536\n(.*\n)*rss \d+", LABELS),
    ("dommemstat loop --period 5 --live", "", FORM), ("domcontrol loop", "^ok$", FORM), ("domjobinfo loop", r"^Job type: +None", FORM), ("domjobabort loop", "!no job", STATUS),
    ("domblkerror loop", "No errors found", FORM), ("domifaddr loop", r"^ Name +MAC address +Protocol +Address\n-+", FORM), ("domdisplay loop", "!No graphical display", FORM),
    ("vncdisplay loop", "!VNC", FORM), ("ttyconsole loop", "^/dev/pts/", FORM), ("setmem loop 32M --live", "", FORM), ("setmem loop 64M --live", "", FORM),
    ("setmaxmem loop 128M --live", "!maximum memory", STATUS), ("blockresize loop vda 32M", "resized", FORM), ("domblkinfo loop vda", r"^Capacity: +33554432", FORM),
    *((f"{line}", "!agent is not configured", STATUS) for line in (
        "domifaddr loop --source agent", "domfsinfo loop", "domfsfreeze loop", "domfsthaw loop", "domfstrim loop", "guestinfo loop", "domhostname loop", "domtime loop",
        "set-user-password loop root x", "qemu-agent-command loop {}", "reboot loop --mode agent", "shutdown loop --mode agent", "get-user-sshkeys loop root",
        "set-user-sshkeys loop root --file @cpu.xml", "guestvcpus loop", "vcpucount loop --guest", "dompmsuspend loop disk")),
    ("dompmsuspend loop mem", "!", STATUS), ("dompmwakeup loop", "!", STATUS), ("domblkthreshold loop vda 1M", "", FORM), ("domblkthreshold loop nix 1M", "!nix", STATUS),
    ("set-lifecycle-action loop reboot destroy --live", "", FORM), ("dumpxml loop --xpath //on_reboot", "destroy", FORM), ("set-lifecycle-action loop reboot restart", "", FORM),
    ("set-lifecycle-action loop crash preserve", "", FORM), ("domlaunchsecinfo loop", "", FORM),
    # The peer has no control groups here, and names no user interface.
    ("cpu-stats loop", r"^CPU0:\n\tcpu_time +\d+\.\d+ seconds\n(.*\n)*Total:\n\tcpu_time", ALONE), ("cpu-stats loop --start 0 --count 1", r"\ACPU0:\n\tcpu_time.*\s*\Z", ALONE),
    ("schedinfo loop", r"^Scheduler +: posix\ncpu_shares +: \d+\nvcpu_period +: \d+\nvcpu_quota +: -?\d+", ALONE),
    ("memtune loop", r"^hard_limit +: unlimited\n", ALONE), ("blkiotune loop", r"^weight +: \d+", ALONE), ("numatune loop", r"^numa_mode +: strict$", ALONE),
    (f"domifstat loop {MAC}", rf"^{MAC} rx_bytes \d+\n{MAC} rx_packets \d+", ALONE), ("domifaddr loop --source arp", "Protocol", ALONE),
    ("qemu-monitor-command loop query-name", '"name":"loop"', STATUS), ("qemu-monitor-command --hmp loop info status", "VM status: running", FORM), ("suspend loop", "suspended", FORM),
    ("domstate loop --reason", r"^paused \(user\)", FORM), ("list --state-paused", "paused", FORM), ("resume loop", "resumed", FORM), ("domstate loop --reason", r"^running \(unpaused\)", FORM),
    ("inject-nmi loop", "", FORM), ("reset loop", "was reset", FORM), ("reboot loop --mode acpi", "is being rebooted", FORM), ("shutdown loop --mode acpi", "is being shutdown", FORM),
    ("desc loop --live --title live", "updated", FORM), ("metadata loop urn:x --key k --set <a/> --live", "modified", FORM), ("domrename loop loop3", "!", STATUS),
    ("blockjob loop vda", "No current block job", FORM), ("blockcommit loop vda --active", "!", STATUS), ("blockcopy loop nix @copy", "!nix", STATUS),
    ("blockjob loop nix", "!nix", STATUS), ("setvcpu loop 0 --disable", "!", STATUS), ("setvcpu loop 9 --enable", "!", STATUS), ("setvcpus loop 9", "!greater than max", STATUS),
    ("save loop @saved", r"^Domain 'loop' saved to", FORM), ("domstate loop --reason", r"^shut off \(saved\)", FORM), ("save loop @saved", "!not running", STATUS),
    ("save-image-dumpxml @saved", "<name>loop</name>", STATUS), ("save-image-edit @saved", "not changed", FORM), ("restore @nothing", "!", STATUS),
    ("restore @saved", r"^Domain restored from", FORM), ("restore @saved", "!", STATUS), ("domstate loop --reason", r"^running \(restored\)", FORM),
    ("domjobinfo loop --completed --keep-completed", r"^Job type: +(Completed|None)", STATUS),
    ("managedsave loop", r"^Domain 'loop' state saved by libvirt", FORM), ("dominfo loop", r"^Managed save: +yes$", LABELS), ("list --all --managed-save", r"loop   saved", FORM),
    ("managedsave-dumpxml loop", "<name>loop</name>", STATUS), ("managedsave-edit loop", "not changed", FORM), ("undefine loop", "!managed save", STATUS),
    ("start loop", r"^Domain 'loop' started", FORM), ("dominfo loop", r"^Managed save: +no$", LABELS), ("domstate loop --reason", r"^running \(restored\)", FORM),
    ("managedsave loop --paused", "saved", FORM), ("managedsave-remove loop", "^Removed managedsave image for domain 'loop'", FORM), ("managedsave-dumpxml loop", "!managed", STATUS),
    ("start loop", "started", FORM), ("dump loop @core --memory-only", r"dumped to", FORM), ("dump loop @core2 --live", "dumped to", ALONE), ("undefine loop", "undefined", FORM), ("dominfo loop", r"^Persistent: +no$", LABELS), ("autostart loop", "!transient", STATUS),
    ("destroy loop --graceful", "destroyed", FORM), ("domstate loop", "!failed to get domain 'loop'", FORM), ("create @domain.xml --paused", r"^Domain 'loop' created from", FORM),
    ("domstate loop --reason", r"^paused \((user|starting up)\)", FORM), ("create @domain.xml", "!already", STATUS), ("destroy loop", "destroyed", FORM),
    ("define @domain.xml", "defined", FORM), ("undefine loop --nvram --managed-save", "undefined", FORM),
)

POOLS = (
    ("find-storage-pool-sources dir", "!'dir'", STATUS), ("find-storage-pool-sources-as dir", "!'dir'", STATUS), ("pool-create @pool.xml", "^Pool p created from", FORM),
    ("pool-create @pool.xml", "!'p'", STATUS), (f"pool-name {UUID}", "^p$", FORM), ("pool-info p", r"^State: +running\nPersistent: +no\nAutostart: +no\nCapacity: ", LABELS),
    ("pool-list --details", r"^ p      running   no          no ", STATUS), ("pool-edit p", "not changed", FORM), ("vol-create-as p v 1M", "^Vol v created", FORM),
    ("vol-create-from p @volume.xml v --inputpool p", "^Vol w created from input vol v", FORM), ("vol-list p --details", r"^ w      \S+/w   file   1\.00 MiB", STATUS),
    ("pool-event --timeout 1 --event lifecycle", "!timed out", FORM), ("pool-event --list", "^lifecycle\nrefresh$", FORM), ("pool-destroy p", "destroyed", FORM),
    ("pool-name nix", "!'nix'", FORM),
)

# What an issue brings that has not come, or no client calls: "not supported" by name.
NOT_YET = """
nodesevinfo;nodesuspend mem 60;domxml-from-native qemu-argv @cpu.xml;
backup-begin loop;backup-dumpxml loop;checkpoint-create loop;checkpoint-create-as loop c;checkpoint-delete loop c;checkpoint-dumpxml loop c;checkpoint-edit loop c;
checkpoint-info loop c;checkpoint-parent loop c;snapshot-create loop;snapshot-create-as loop s;send-process-signal loop 1 SIGHUP;
domsetlaunchsecstate loop --secrethdr @cpu.xml --secret @cpu.xml;dom-fd-associate loop x 0;perf loop;domdirtyrate-calc loop;qemu-attach 1
"""
# What saves machines and works on their disks, and changes what runs: shown where it is tested; here that it answers.
TESTED_APART = """
detach-device-alias loop nix --config;setvcpu loop 1 --disable --config;save loop @saved;restore @saved;save-image-dumpxml @saved;save-image-define @saved @domain.xml;save-image-edit @saved;managedsave loop;managedsave-dumpxml loop;
managedsave-edit loop;managedsave-define loop @domain.xml;dump loop @core;blockpull loop vda;blockcommit loop vda;blockcopy loop vda @copy;domblkthreshold loop vda 1M;migrate-setspeed loop 100;migrate-getspeed loop;
migrate-setmaxdowntime loop 100;migrate-getmaxdowntime loop;migrate-compcache loop;migrate-postcopy loop;migrate loop @uri;send-key loop KEY_A;screenshot loop @x
"""
ELSEWHERE = {"lxc-enter-namespace"}  # another program of the protocol: libvirt_wire.py
# What QEMU counts or libvirt adds, and ruche-vmm has nothing like it.
PEER_ONLY = re.compile(r"cpu\.(cache|haltpoll)|vcpu\.N\.(delay|wait)|perf|dirtyrate|balloon\.last|last_update|block\.N\.backingIndex|Messages|tainted|iothread\.N")


class Side:
    """A manager, the folder of what its rows name, and what they said."""

    def __init__(self, name, emulator, uri):
        self.folder, self.uri, self.said = os.path.join(WORK, name), uri, {}
        os.makedirs(self.folder + "/pool")
        for disk in ("disk.img", "two.img"):
            with open(os.path.join(self.folder, disk), "wb") as f:
                f.truncate(16 << 20)
            os.chmod(os.path.join(self.folder, disk), 0o666)
        for file, text in FILES.items():
            with open(os.path.join(self.folder, file), "w", encoding="ascii") as f:
                f.write(self.fill(text.replace("@emulator@", emulator)))

    def fill(self, text):
        return text.replace("@uri", self.uri).replace("@", self.folder + "/")

    def virsh(self, line):
        done = subprocess.run(["virsh", "-c", self.uri, *self.fill(line).split()], capture_output=True, text=True, timeout=600, check=False, env=ENV,
                              stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr

    def run(self, rows):
        """Compared or not, in order: a row may need what an earlier one did."""
        self.said = {number: self.virsh(row[0]) for number, row in enumerate(rows) if self.asks(row)}

    def asks(self, _row):
        return True


class Ours(Side):
    def __init__(self):
        self.daemon = Daemon(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\n")
        super().__init__("ours", VMM, f"qemu+unix:///system?socket={self.daemon.socket}")

    def stop(self):
        self.virsh("destroy loop")
        self.daemon.stop()


class Libvirtd(Side):
    """In a mount namespace of its own, with empty folders over its places."""

    UNSHARE, AUTH = ("unshare", "-m"), "none"
    PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt")

    def __init__(self):
        f = os.path.join(WORK, "peer")
        self.socket = f + "/run/libvirt-sock"
        super().__init__("theirs", QEMU, f"qemu+unix:///system?socket={self.socket}")
        os.makedirs(f + "/run")
        with open(f + "/libvirtd.conf", "w", encoding="ascii") as conf:
            conf.write(f'unix_sock_dir = "{f}/run"\nauth_unix_rw = "{self.AUTH}"\nauth_unix_ro = "none"\n')
        binds = []
        for place in self.PLACES:
            os.makedirs(f + "/places" + place)
            os.makedirs(place, exist_ok=True)
            binds.append(f"mount --bind {f}/places{place} {place}")
        with open(f + "/places/etc/libvirt/qemu.conf", "w", encoding="ascii") as conf:
            conf.write('user = "root"\ngroup = "root"\nsecurity_driver = "none"\nnamespaces = []\ncgroup_controllers = []\nstdio_handler = "file"\n')
        script = " && ".join([*binds, f"exec libvirtd -f {f}/libvirtd.conf -p {f}/pid"])
        with open(f + "/log", "wb") as log:
            self.process = subprocess.Popen([*self.UNSHARE, "sh", "-c", script], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def is_there(self):
        """It may not run here, which is no fault of ours."""
        wait_for("libvirtd", lambda: self.process.poll() is not None or listens(self.socket))
        return self.process.poll() is None and not self.virsh("version")[0]

    def asks(self, row):
        return row[2] != ALONE

    def stop(self):
        if self.process.poll() is None:
            self.virsh("destroy loop")
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)


def form(text):
    """Without numbers, folders, the width of columns, and a time that libvirt never has."""
    text = re.sub(re.escape(WORK) + r"/(ours|theirs|peer)?|/tmp/ruched-\w+", "", text)
    text = re.sub(r"<(\w+)>\s*</\1>", r"<\1/>", re.sub(r"\n *<btime>0</btime>", "", text))
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|\d+(\.\d+)*", "N", text)
    return re.sub(r"--+", "-", re.sub(r"[ \t]+", " ", text)).strip()


def labels(text):
    """What stands at the beginning of each line."""
    found = set()
    for line in form(text).splitlines():
        found.add(re.split(r": |=| N|:$", line.strip())[0])
    return {label for label in found if not PEER_ONLY.match(label)}


def differs(how, ours, theirs):
    """A sentence, or None."""
    if ours[0] != theirs[0]:
        return f"ends with {ours[0]}; the peer with {theirs[0]}: {theirs[1][-200:]}{theirs[2][-300:]}"
    if how == FORM and form(ours[1] + ours[2]) != form(theirs[1] + theirs[2]):
        return f"says\n{ours[1]}{ours[2]}the peer\n{theirs[1]}{theirs[2]}"
    if how == LABELS and labels(theirs[1]) - labels(ours[1]):
        return f"has no {sorted(labels(theirs[1]) - labels(ours[1]))}"
    return None


def try_rows(rows, ours, peer):
    threads = [threading.Thread(target=side.run, args=(rows,)) for side in (ours, peer) if side]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    wrong = []
    for number, (line, pattern, how) in enumerate(rows):
        status, out, err = ours.said[number]
        fails = pattern.startswith("!")
        if bool(status) != fails or not re.search(pattern.removeprefix("!"), out + err, re.MULTILINE):
            wrong.append(f"virsh {line}: ended with {status}, not /{pattern}/: {(out + err).strip()[:400]}")
        elif peer and how != ALONE:
            difference = differs(how, ours.said[number], peer.said[number])
            if difference:
                wrong.append(f"virsh {line}: {difference}")
    assert not wrong, "\n".join(wrong)


def heard(side):
    """What virsh prints of a machine that stops and goes on, told by its monitor and as tunables."""
    side.virsh("start loop")
    lines = ("qemu-monitor-event loop --event ^(STOP|RESET)$ --regex --loop --timeout 600", "qemu-monitor-event --event resume --no-case --timeout 600",
             "event loop --event tunable --timeout 600")
    logs, watchers = [], []
    for number, line in enumerate(lines):
        logs.append(os.path.join(side.folder, f"events{number}"))
        with open(logs[-1], "wb") as log:
            watchers.append(subprocess.Popen(["virsh", "-c", side.uri, *line.split()], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=ENV))

    def said(number):
        with open(logs[number], encoding="utf-8") as log:
            return re.findall("^event .*(?:\n\t.*)*", log.read(), re.MULTILINE)

    def all_told():
        for line in ("suspend loop", "resume loop", "reset loop", "vcpupin loop 0 0 --live"):
            side.virsh(line)
        return all(said(number) for number in range(3)) and all(any(kind in e for e in said(0)) for kind in ("STOP", "RESET"))
    wait_for("events", all_told)
    for watcher in watchers:
        if watcher.poll() is None:
            watcher.terminate()
        watcher.wait(120)
    side.virsh("destroy loop")
    return {form(e) for number in range(3) for e in said(number)}


def events_are_told(ours, peer):
    ours.virsh("define @domain.xml")
    mine = heard(ours)
    assert {e.split()[1] for e in mine} == {"STOP", "RESET", "RESUME", "'tunable'"}, mine
    mine = {e for e in mine if '"guest":true' not in e}  # what the guests do by themselves differs
    if peer:
        peer.virsh("define @domain.xml")
        theirs = heard(peer)
        peer.virsh("undefine loop")
        theirs = {e for e in theirs if '"guest":true' not in e}
        assert mine == theirs, f"{mine}, the peer {theirs}"
    ours.virsh("undefine loop")


def in_other_tests(command):
    for path in glob.glob(os.path.join(HERE, "*.py")):
        if path != os.path.abspath(__file__):
            with open(path, encoding="utf-8") as f:
                if re.search(rf'["\']{re.escape(command)}[ "\']', f.read()):
                    return True
    return False


def commands(text):
    """{command: line}"""
    lines = [line.strip() for line in text.replace("\n", "").split(";")]
    return {line.split()[0]: line for line in lines}


def refused_by_name(ours):
    ours.virsh("define @domain.xml")
    wrong = []
    for line in commands(NOT_YET).values():
        status, out, err = ours.virsh(line)
        if not status or not re.search("does not support|not supported", err):
            wrong.append(f"virsh {line}: ended with {status}: {out}{err}")
    for line in commands(TESTED_APART).values():
        status, out, err = ours.virsh(line)
        if status and not err.startswith("error: "):
            wrong.append(f"virsh {line}: ended with {status}: {out}{err}")
    ours.virsh("undefine loop --managed-save")
    assert not wrong, "\n".join(wrong)


def known_commands(groups):
    known = set()
    for group in groups:
        said = subprocess.run(["virsh", "help", group], capture_output=True, text=True, check=True, env=ENV).stdout
        known |= set(re.findall(r"^    ([a-z0-9-]+) ", said, re.MULTILINE))
    return known


def all_have_rows(groups, rows):
    """Each command of some groups stands in a row."""
    known = known_commands(groups)
    forgotten = known - {row[0].split()[0] for row in rows}
    assert known and not forgotten, sorted(forgotten)


def none_is_forgotten():
    rows = {row[0].split()[0] for row in HOST + DEFINED + RUNNING + POOLS} | set(commands(NOT_YET)) | set(commands(TESTED_APART)) | ELSEWHERE
    known = known_commands(GROUPS)
    assert len(known) > 200, known
    forgotten = sorted(c for c in known if c not in rows and not in_other_tests(c))
    assert not forgotten, f"neither tested nor said to come later: {forgotten}"
    assert not rows - known, f"virsh has no {sorted(rows - known)}"


def run_beside(make_tests, own=Ours, other=Libvirtd):
    """Runs what make_tests(ours, beside) gives: with a manager of ours and, where it can run, libvirtd (else None)."""
    ours = peer = None
    try:
        ours = own()
        if not os.geteuid() and shutil.which("libvirtd") and os.path.exists(QEMU):
            peer = other()
        beside = peer if peer and peer.is_there() else None
        if not beside:
            print("# no libvirtd to compare with")
        tap.run(make_tests(ours, beside))
    finally:
        for side in (ours, peer):
            if side:
                side.stop()
        shutil.rmtree(WORK, ignore_errors=True)


def make_tests(ours, beside):
    return {"host commands": lambda: try_rows(HOST, ours, beside), "a machine that is off": lambda: try_rows(DEFINED, ours, beside),
            "a machine that runs": lambda: try_rows(RUNNING, ours, beside), "pools and volumes": lambda: try_rows(POOLS, ours, beside),
            "events of monitors and tunables": lambda: events_are_told(ours, beside),
            "what has not come is refused by name": lambda: refused_by_name(ours),
            "no command is forgotten": none_is_forgotten}


if __name__ == "__main__":
    run_beside(make_tests)
