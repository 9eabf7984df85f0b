#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage pools that need a kernel of their own: ruched inside a Debian guest, with LVM, partitions, iSCSI, multipath, NFS and SMB.

    storage_guest.py RUCHED RUCHE RUCHE-VMM RUCHE-IMG

The guest's virsh is the client; each server (tgt, the kernel's NFS server, Samba) runs in the guest, too.
"""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import Vmm, copy_disk, debian_arguments  # noqa: E402

RUCHED, RUCHE, VMM, IMG = (os.path.abspath(p) for p in sys.argv[1:5])
BOOT_SECONDS = int(os.environ.get("RUCHE_BOOT_SECONDS", "400"))
IQN = "iqn.2026-01.org.ruche:disks"
MIB = 1 << 20


def libraries(*programs):
    """What the programs are linked with, but for the C library, which every Debian 12 has."""
    found = set()
    for program in programs:
        for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
            path = re.search(r"=> (/\S+)", line)
            if path and not re.search(r"/(libc|libm|libdl|libpthread|ld-linux\S*)\.so", path.group(1)):
                found.add(path.group(1))
    return sorted(found)


class Guest:
    """One boot, shared by all tests."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="ruche-storage-")
        image = subprocess.run([os.path.join(ROOT, "tools", "storage-image")], check=True, stdout=subprocess.PIPE,
                               text=True).stdout.strip()
        disk = os.path.join(self.folder.name, "disk.img")
        copy_disk(os.path.join(image, "disk.img"), disk)
        arguments = debian_arguments(image, disk, "768M", "systemd.mask=systemd-networkd-wait-online.service")
        arguments += ["-accel", "kvm:soft", "-smp", "2", "-drive", f"file={self.programs()},if=virtio,format=raw,readonly=on"]
        for name in ("c", "d"):
            path = os.path.join(self.folder.name, f"{name}.img")
            with open(path, "wb") as f:
                f.truncate(400 * MIB)
            arguments += ["-drive", f"file={path},if=virtio,format=raw"]
        self.vmm = Vmm(VMM, arguments)

    def programs(self):
        """A disk with our programs, their modules and libraries, stripped."""
        tree = os.path.join(self.folder.name, "tree")
        os.makedirs(f"{tree}/lib")
        modules = [os.path.join(os.path.dirname(IMG), f"image-{m}.so") for m in ("iscsi",)]
        modules = [m for m in modules if os.path.exists(m)]
        for path in (RUCHED, RUCHE, VMM, IMG, *modules):
            subprocess.run(["strip", "-o", os.path.join(tree, os.path.basename(path)), path], check=True)
        for path in libraries(RUCHED, RUCHE, IMG, *modules):
            subprocess.run(["cp", "-L", path, f"{tree}/lib/"], check=True)
        size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(tree) for f in files)
        image = os.path.join(self.folder.name, "programs.img")
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image, f"{size // MIB * 5 // 4 + 32}M"],
                       check=True)
        return image

    def begin(self):
        self.vmm.console.login(BOOT_SECONDS)
        self.sh("mkdir -p /ruche && mount -o ro /dev/vdb /ruche && ip link set lo up")
        self.sh("printf '[libvirt]\\nusual_place=false\\n' >/etc/ruched.conf")
        self.sh("export LIBVIRT_DEFAULT_URI='qemu+unix:///system?socket=/run/ruche/libvirt-sock'")
        self.sh("LD_LIBRARY_PATH=/ruche/lib /ruche/ruched --system --config /etc/ruched.conf --daemon")

    def close(self):
        self.vmm.close()
        self.folder.cleanup()

    def sh(self, command, seconds=120):
        """A command that must succeed; its output."""
        status, output = self.vmm.console.run(command, seconds)
        assert status == 0, f"'{command}' ended with {status}: {output}"
        return output

    def virsh(self, words, seconds=120):
        return self.sh(f"virsh -q {words}", seconds)

    def virsh_all(self, *lines):
        """Several of them, in one process."""
        output = self.sh("virsh -q '" + "; ".join(lines) + "'")
        assert "error:" not in output, f"{lines}: {output}"
        return output

    def refused(self, words, says):
        status, output = self.vmm.console.run(f"virsh -q {words}", 120)
        assert status != 0 and says in output, f"virsh {words}: '{says}' is not in: {output}"

    def ruche(self, words):
        return self.sh(f"LD_LIBRARY_PATH=/ruche/lib /ruche/ruche {words}")


def figure(guest, pool, volume, name="Capacity"):
    return re.search(rf"{name}:\s+(.+)", guest.virsh(f"vol-info {volume} --pool {pool} --bytes")).group(1)


def round_trip(guest, pool, volume, path):
    """Bytes up, on the device, and down again."""
    guest.sh("[ -e /root/blob ] || head -c 3000000 /dev/urandom >/root/blob")
    guest.virsh_all(f"vol-upload {volume} /root/blob --pool {pool}",
                    f"vol-download {volume} /root/back --pool {pool} --length 3000000")
    guest.sh(f"cmp /root/blob /root/back && head -c 3000000 {path} | cmp - /root/blob")


def test_boot(guest):
    guest.begin()
    caps = guest.virsh("pool-capabilities")
    for kind in ("dir", "disk", "fs", "iscsi", "iscsi-direct", "logical", "mpath", "netfs", "rbd", "scsi", "zfs"):
        assert f"<pool type='{kind}' supported='yes'>" in caps, caps
    guest.virsh("pool-define-as z zfs --source-name tank")
    guest.refused("pool-start z", "apt install zfsutils-linux")
    guest.virsh("pool-undefine z")


def test_fs(guest):
    guest.virsh_all("pool-define-as f fs --source-dev /dev/vdd --source-format ext4 --target /mnt/f", "pool-build f --no-overwrite",
                    "pool-start f", "vol-create-as f v 4M --format qcow2", "vol-list f")
    assert "/dev/vdd /mnt/f ext4 rw,nosuid,nodev,noexec" in guest.sh("grep /mnt/f /proc/mounts")
    assert int(re.search(r"Capacity:\s+(\d+)", guest.virsh("pool-info f --bytes")).group(1)) > 300 * MIB
    guest.virsh("pool-destroy f")
    assert "/mnt/f" not in guest.sh("cat /proc/mounts")
    guest.refused("pool-build f --no-overwrite", "already holds something (ext4)")
    guest.virsh_all("pool-build f --overwrite", "pool-start f")
    assert "v" not in guest.virsh("vol-list f").split()
    guest.sh("umount /mnt/f")  # behind our back
    guest.refused("pool-refresh f", "nothing is mounted")
    guest.virsh_all("pool-delete f", "pool-undefine f")
    guest.refused("pool-define-as f fs --source-dev //host/share --target /mnt/f", "SMB and NFS shares are for type 'netfs'")
    guest.sh("wipefs -qa /dev/vdd")


def test_logical(guest):
    guest.virsh_all("pool-define-as vg logical --source-dev /dev/vdc --target /dev/vg", "pool-build vg", "pool-start vg",
                    "vol-create-as vg base 40M")
    assert figure(guest, "vg", "base") == f"{40 * MIB} bytes"
    round_trip(guest, "vg", "base", "/dev/vg/base")
    guest.virsh("vol-create-as vg snap 40M --allocation 20M --backing-vol base --backing-vol-format raw")
    guest.sh("head -c 3000000 /dev/vg/snap | cmp - /root/blob")
    xml = guest.virsh("vol-dumpxml snap --pool vg")
    assert "<path>/dev/vg/base</path>" in xml and "<extent start=" in xml and "type='block'" in xml, xml
    guest.virsh_all("vol-clone base copy --pool vg", "vol-resize copy 60M --pool vg", "vol-wipe base --pool vg --algorithm zero")
    guest.sh("head -c 3000000 /dev/vg/copy | cmp - /root/blob && head -c 3000000 /dev/zero | cmp -n 3000000 - /dev/vg/base")
    assert figure(guest, "vg", "copy") == f"{60 * MIB} bytes"
    guest.sh("lvcreate -q -y -T -L 80M vg/thin")  # from here on, volumes that are not allocated are thin
    guest.virsh("vol-create-as vg t 2G --allocation 0")
    assert figure(guest, "vg", "t") == f"{2048 * MIB} bytes" and figure(guest, "vg", "t", "Allocation") == "0 bytes"
    assert sorted(w for w in guest.virsh("vol-list vg").split() if not w.startswith("/")) == ["base", "copy", "snap", "t"]
    assert guest.virsh("vol-name $(virsh -q vol-key base --pool vg)").strip() == "base"
    guest.refused("vol-create-as vg base 1M", "exists already")
    guest.refused("vol-create-as vg huge 9G", "insufficient free space")
    sources = guest.virsh("find-storage-pool-sources logical")
    assert "<name>vg</name>" in sources and "<device path='/dev/vdc'/>" in sources, sources
    guest.refused("pool-build vg", "is active")
    guest.virsh_all(*(f"vol-delete {v} --pool vg" for v in ("snap", "t", "copy", "base")), "pool-destroy vg", "pool-delete vg",
                    "pool-undefine vg")
    assert not guest.sh("lsblk -no FSTYPE /dev/vdc")


def test_disk(guest):
    guest.virsh_all("pool-define-as d disk --source-dev /dev/vdc --source-format gpt --target /dev", "pool-build d", "pool-start d",
                    "vol-create-as d vdc1 50M", "vol-create-as d vdc2 60M --format linux-lvm")
    assert figure(guest, "d", "vdc2") == f"{60 * MIB} bytes"
    guest.refused("vol-create-as d web 5M", "the next partition of '/dev/vdc' is called 'vdc3'")
    guest.refused("vol-create-as d vdc3 500M", "no free range")
    guest.virsh("vol-delete vdc1 --pool d")
    guest.virsh("vol-create-as d vdc1 20M")
    round_trip(guest, "d", "vdc1", "/dev/vdc1")
    assert "Linux LVM" in guest.sh("sfdisk -qlo Device,Type /dev/vdc")
    assert guest.virsh("vol-path vdc1 --pool d").strip() == "/dev/vdc1"
    guest.virsh_all("vol-delete vdc1 --pool d", "vol-delete vdc2 --pool d", "pool-destroy d")
    guest.refused("pool-build d", "already holds something (gpt)")
    guest.virsh("pool-undefine d")
    guest.sh("wipefs -qa /dev/vdc")


def test_iscsi(guest):
    guest.sh("tgtd && sleep 1; truncate -s 50M /root/lun1 /root/lun2")
    guest.sh("tgtadm --lld iscsi --op new --mode target --tid 1 -T " + IQN + "; "
             "for n in 1 2; do tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun $n -b /root/lun$n; done; "
             "tgtadm --lld iscsi --op bind --mode target --tid 1 -I ALL")
    guest.sh("mkdir -p /run/lock/iscsi && modprobe iscsi_tcp && iscsid")
    found = guest.virsh("find-storage-pool-sources-as iscsi 127.0.0.1")
    assert f"<device path='{IQN}'/>" in found, found
    guest.virsh_all(f"pool-define-as i iscsi --source-host 127.0.0.1 --source-dev {IQN} --target /dev/disk/by-path", "pool-start i")
    volumes = dict(line.split() for line in guest.virsh("vol-list i").splitlines())
    assert list(volumes) == ["unit:0:0:1", "unit:0:0:2"] and "/dev/disk/by-path/ip-127.0.0.1:3260" in volumes["unit:0:0:1"], volumes
    assert figure(guest, "i", "unit:0:0:2") == f"{50 * MIB} bytes"
    round_trip(guest, "i", "unit:0:0:1", volumes["unit:0:0:1"])
    guest.sh("sync; head -c 3000000 /root/lun1 | cmp - /root/blob")
    guest.refused("vol-create-as i unit:0:0:3 5M", "units are made on its server")
    guest.refused("pool-define-as n iscsi --source-host h --source-dev nqn.2014-08.org.nvmexpress:x --target /dev", "NVMe over fabrics")


def test_multipath(guest):
    guest.sh("printf 'defaults {\\n find_multipaths no\\n user_friendly_names yes\\n}\\nblacklist {\\n devnode \"^vd\"\\n}\\n' "
             ">/etc/multipath.conf; modprobe dm-multipath && multipathd && for i in $(seq 100); do "
             "multipath -r >/dev/null && break; sleep 1; done")
    guest.sh("for i in $(seq 60); do [ -e /dev/mapper/mpatha ] && break; sleep 0.5; done; ls /dev/mapper")
    guest.virsh_all("pool-define-as m mpath --target /dev/mapper", "pool-start m")
    listed = guest.virsh("vol-list m")
    assert "/dev/mapper/mpatha" in listed and "dm-" in listed, listed
    guest.virsh_all("pool-destroy m", "pool-undefine m")
    guest.sh("multipath -F; kill $(pidof multipathd)")


def test_iscsi_direct(guest):
    xml = (f'<pool type="iscsi-direct"><name>x</name><source><host name="127.0.0.1"/><device path="{IQN}"/>'
           '<initiator><iqn name="iqn.2026-01.org.ruche:us"/></initiator></source></pool>')
    guest.sh(f"echo '{xml}' >/root/x.xml")
    guest.virsh_all("pool-define /root/x.xml", "pool-start x")
    assert figure(guest, "x", "unit:0:0:1") == f"{50 * MIB} bytes"
    xml = guest.virsh("vol-dumpxml unit:0:0:2 --pool x")
    assert "type='network'" in xml and f"ip-127.0.0.1:3260-iscsi-{IQN}-lun-2" in xml, xml
    guest.refused("vol-wipe unit:0:0:1 --pool x", "not on this host")
    guest.virsh_all("pool-destroy x", "pool-undefine x")


def test_iscsi_end(guest):
    guest.virsh_all("pool-destroy i", "pool-undefine i")
    status, output = guest.vmm.console.run("iscsiadm -m session", 60)
    assert status == 21, output


def test_scsi(guest):
    guest.sh("modprobe scsi_debug dev_size_mb=16 num_tgts=1 max_luns=2 && udevadm settle")
    number = guest.sh("grep -l scsi_debug /sys/class/scsi_host/host*/proc_name | sed 's/.*host\\([0-9]*\\).*/\\1/'")
    assert f"name='scsi_host{number}'" in guest.virsh("find-storage-pool-sources scsi")
    guest.sh(f"echo '<pool type=\"scsi\"><name>s</name><source><adapter type=\"scsi_host\" name=\"scsi_host{number}\"/></source>"
             "<target><path>/dev/disk/by-path</path></target></pool>' >/root/s.xml")
    guest.virsh_all("pool-define /root/s.xml", "pool-start s")
    assert figure(guest, "s", "unit:0:0:1") == f"{16 * MIB} bytes"
    guest.virsh_all("pool-destroy s", "pool-undefine s")
    guest.refused("pool-define-as s scsi --adapter-name x --target /dev --source-host h", "takes no source host")


def test_nfs(guest):
    guest.sh("mkdir -p /srv/n && mount -t tmpfs tmpfs /srv/n && mkdir -p /run/rpcbind /run/sendsigs.omit.d && rpcbind -w && "
             "mount -t nfsd nfsd /proc/fs/nfsd; "
             "exportfs -o rw,no_root_squash,insecure,fsid=1 127.0.0.1:/srv/n && rpc.mountd && rpc.nfsd -G 10 -L 10 4")
    assert "<dir path='/srv/n'/>" in guest.virsh("find-storage-pool-sources-as netfs 127.0.0.1")
    guest.virsh_all("pool-define-as n netfs --source-host 127.0.0.1 --source-path /srv/n --source-format nfs --target /mnt/n",
                    "pool-build n", "pool-start n", "vol-create-as n v 8M", "vol-create-as n q 64M --format qcow2")
    assert "127.0.0.1:/srv/n /mnt/n nfs4" in guest.sh("grep /mnt/n /proc/mounts")
    round_trip(guest, "n", "v", "/srv/n/v")
    guest.virsh_all("vol-resize q 128M --pool n", "vol-clone q q2 --pool n", "vol-delete v --pool n")
    assert guest.sh("ls /srv/n").split() == ["q", "q2"]
    guest.refused("pool-define-as o netfs --source-host 127.0.0.1 --source-path /srv/n --target /mnt/o", "already that of")


def test_nfs_vanished(guest):
    """The server goes: a refresh ends by its time-out, everything else goes on meanwhile; the server comes back."""
    guest.sh("rpc.nfsd 0")
    guest.sh("(virsh -q pool-refresh n >/root/refresh 2>&1; echo $? >>/root/refresh) & sleep 1; "
             "s=$(date +%s); virsh -q list --all && virsh -q pool-list --all && virsh -q vol-list n; e=$(date +%s); [ $((e - s)) -lt 15 ]")
    guest.sh("for i in $(seq 240); do [ -s /root/refresh ] && grep -q '^[0-9]' /root/refresh && break; sleep 0.5; done")
    said = guest.sh("cat /root/refresh")
    assert "did not answer within" in said, said
    assert "inaccessible" in guest.virsh("pool-list --details")
    guest.sh("rpc.nfsd -G 10 -L 10 4")
    guest.sh("for i in $(seq 60); do virsh -q pool-refresh n && exit_=0 && break; sleep 1; done; [ $exit_ = 0 ]")
    assert "running" in guest.virsh("pool-list --details")
    guest.virsh_all("pool-destroy n", "pool-undefine n")
    assert "/mnt/n" not in guest.sh("cat /proc/mounts")
    guest.sh("rpc.nfsd 0; exportfs -ua")


def test_cifs(guest):
    guest.sh("mkdir -p /srv/c /run/samba && chmod 777 /srv/c && printf '[global]\\nmap to guest = bad user\\nguest account = root\\n"
             "interfaces = lo\\n[share]\\npath = /srv/c\\nread only = no\\nguest ok = yes\\n' >/etc/samba/smb.conf && "
             "smbd -D </dev/null >/dev/null 2>&1 && "
             "for i in $(seq 100); do ss -ltn | grep -q :445 && break; sleep 0.2; done")
    guest.virsh_all("pool-define-as c netfs --source-host 127.0.0.1 --source-path share --source-format cifs --target /mnt/c",
                    "pool-build c", "pool-start c", "vol-create-as c v 8M")
    assert "//127.0.0.1/share /mnt/c cifs" in guest.sh("grep /mnt/c /proc/mounts")
    round_trip(guest, "c", "v", "/srv/c/v")
    guest.virsh_all("vol-delete v --pool c", "pool-destroy c", "pool-delete c", "pool-undefine c")


def test_end(guest):
    guest.sh("kill $(pidof ruched); for i in $(seq 100); do pidof ruched || break; sleep 0.1; done")
    guest.vmm.qmp.execute("quit")


def main():
    guest = Guest()
    tests = {"boot": test_boot, "fs": test_fs, "logical": test_logical, "disk": test_disk, "iscsi": test_iscsi,
             "multipath": test_multipath, "iscsi-direct": test_iscsi_direct, "iscsi end": test_iscsi_end, "scsi": test_scsi,
             "nfs": test_nfs, "nfs vanished": test_nfs_vanished, "cifs": test_cifs, "end": test_end}
    wanted = sys.argv[5:] or list(tests)
    try:
        tap.run({name: (lambda fn: lambda: fn(guest))(tests[name]) for name in wanted})
    finally:
        guest.close()


if __name__ == "__main__":
    main()
