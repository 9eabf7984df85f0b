#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Storage pools that need a kernel of their own: btrfs, LVM, partitions, iSCSI, multipath, NFS and SMB; devices that are encrypted.

virsh is the client; each server (tgt, the kernel's NFS server, Samba) runs here, too.
"""
import re
import subprocess
import time

from here import main, refused, run, sh, virsh, virsh_all, wait_for

IQN = "iqn.2026-01.org.ruche:disks"
MIB = 1 << 20
NO_GRACE = "echo Y >/proc/fs/nfsd/v4_end_grace"  # nobody has files open from before


def figure(pool, volume, name="Capacity"):
    return re.search(rf"{name}:\s+(.+)", virsh(f"vol-info {volume} --pool {pool} --bytes")).group(1)


def round_trip(pool, volume, path):
    """Bytes up, on the device, and down again."""
    sh("[ -e /root/blob ] || head -c 3000000 /dev/urandom >/root/blob")
    virsh_all(f"vol-upload {volume} /root/blob --pool {pool}",
              f"vol-download {volume} /root/back --pool {pool} --length 3000000")
    sh(f"cmp /root/blob /root/back && head -c 3000000 {path} | cmp - /root/blob")


def sparse_upload(pool, volume, path):
    """Holes become zeroes on a device that held other bytes; the last is no whole block."""
    sh("rm -f /root/sparse; cp /root/blob /root/sparse; fallocate -p -o 1M -l 1M /root/sparse; truncate -s 3001000 /root/sparse")
    virsh(f"vol-upload {volume} /root/blob --pool {pool} --offset 500000")
    virsh(f"vol-upload {volume} /root/sparse --pool {pool} --sparse")
    sh(f"head -c 3001000 {path} | cmp - /root/sparse")
    virsh(f"vol-upload {volume} /root/blob --pool {pool}")


SECRET = "7d1c2f10-93a5-4c0c-8f0e-3a6f5f0e5b11"
LUKS = f"<encryption format='luks'><secret type='passphrase' uuid='{SECRET}'/></encryption>"
MACHINE = """<domain type='qemu'><name>m</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>
<kernel>/ruche/kernel</kernel><cmdline>x</cmdline></os><devices><emulator>/ruche/ruche-vmm</emulator>
<disk type='volume' device='disk'><driver name='qemu' type='raw'/><source pool='{pool}' volume='{volume}'>{luks}</source>
<target dev='vda' bus='virtio'/></disk><memballoon model='none'/></devices></domain>"""


def write(name, text):
    with open(f"/root/{name}", "w", encoding="ascii") as f:
        f.write(text)
    return f"/root/{name}"


def secret():
    if SECRET not in virsh("secret-list"):
        virsh("secret-define " + write("secret.xml", f"<secret><uuid>{SECRET}</uuid><usage type='volume'><volume>any</volume></usage></secret>"))
        virsh(f"secret-set-value {SECRET} --file {write('value', 'open-sesame-4711')} --plain")


def volume_xml(name, mib, luks=LUKS):
    return write("volume.xml", f"<volume><name>{name}</name><capacity unit='MiB'>{mib}</capacity><target><format type='raw'/>{luks}</target></volume>")


def encrypted_volume(pool, name, source):
    """A device that is LUKS: made from a plain volume, grown, used by a machine, copied into the clear again."""
    secret()
    virsh(f"vol-create-from {pool} {volume_xml(name, 60)} {source} --inputpool {pool}")
    xml = virsh(f"vol-dumpxml {name} --pool {pool}")
    assert "<encryption format='luks'>" in xml and SECRET in xml and "type='block'" in xml, xml
    assert 60 * MIB <= int(figure(pool, name).split()[0]) < 66 * MIB, figure(pool, name)
    path = virsh(f"vol-path {name} --pool {pool}").strip()
    assert sh(f"head -c 4 {path}") == "LUKS" and "file format: luks" in sh(f"/ruche/ruche-img info {path}")
    virsh(f"vol-resize {name} 70M --pool {pool}")
    assert 70 * MIB <= int(figure(pool, name).split()[0]) < 76 * MIB, figure(pool, name)
    virsh("create " + write("m.xml", MACHINE.format(pool=pool, volume=name, luks=LUKS)))
    said = virsh("domblkinfo m vda")
    virsh("destroy m")
    assert re.search(rf"Capacity:\s+{figure(pool, name).split()[0]}\b", said), said
    virsh(f"vol-create-from {pool} {volume_xml('clear', 70, '')} {name} --inputpool {pool}")
    sh(f"head -c 3000000 $(virsh -q vol-path clear --pool {pool}) | cmp - /root/blob")
    virsh_all(f"vol-delete clear --pool {pool}", f"vol-delete {name} --pool {pool}")


def in_use(pool, volume, path):
    """What the host has mounted, or a machine has as its disk, keeps its contents."""
    sh(f"mkfs.ext4 -q -F {path} && mkdir -p /mnt/use && mount {path} /mnt/use")
    for words in ("vol-wipe {v} --pool {p}", "vol-upload {v} /root/blob --pool {p}", "vol-resize {v} 8M --shrink --pool {p}"):
        refused(words.format(v=volume, p=pool), "which is mounted on '/mnt/use'")
    refused(f"pool-define-as u disk --source-dev {path} --source-format gpt --target /dev && virsh -q pool-build u --overwrite", "which is mounted on '/mnt/use'")
    sh("umount /mnt/use")
    virsh_all("pool-undefine u", "create " + write("m.xml", MACHINE.format(pool=pool, volume=volume, luks="")))
    for words in ("vol-wipe {v} --pool {p}", "vol-upload {v} /root/blob --pool {p}"):
        refused(words.format(v=volume, p=pool), f"volume '{path}' is in use by process")
    virsh("destroy m")
    sh(f"wipefs -qa {path}")


def test_btrfs():
    """A folder on btrfs: files that are not copied on write, clones that share their blocks, a subvolume."""
    sh("mkfs.btrfs -qf /dev/vdd && mkdir -p /mnt/b && mount /dev/vdd /mnt/b && btrfs subvolume create /mnt/b/images && "
       "btrfs subvolume create /mnt/b/images/sub")
    virsh_all("pool-define-as b dir --target /mnt/b/images", "pool-build b", "pool-start b", "vol-create-as b plain 1M")
    for name, form in (("r", "raw"), ("q", "qcow2")):
        virsh("vol-create b " + write("volume.xml", f"<volume><name>{name}</name><capacity unit='MiB'>4</capacity><target>"
                                      f"<format type='{form}'/><nocow/></target></volume>"))
        assert "C" in sh(f"lsattr /mnt/b/images/{name}").split()[0], name
    assert "C" not in sh("lsattr /mnt/b/images/plain").split()[0]
    virsh("vol-create-as b big 60M")
    sh("head -c 60M /dev/urandom >/mnt/b/images/big; sync")
    before = int(sh("df --output=used -k /mnt/b | tail -1"))
    virsh_all("vol-clone big one --pool b --reflink", "vol-clone big two --pool b")  # shared where that can be, asked for or not
    sh("sync; cmp /mnt/b/images/big /mnt/b/images/one && cmp /mnt/b/images/big /mnt/b/images/two")
    assert int(sh("df --output=used -k /mnt/b | tail -1")) - before < 10 << 10
    assert "type='dir'" in virsh("vol-dumpxml sub --pool b").splitlines()[0]
    virsh_all(*(f"vol-delete {v} --pool b" for v in ("sub", "r", "q", "plain", "big", "one", "two")), "pool-destroy b", "pool-undefine b")
    pool = "<pool type='dir'><name>n</name><features><cow state='no'/></features><target><path>/mnt/b/{}</path></target></pool>"
    virsh("pool-define " + write("pool.xml", pool.format("still")))
    virsh_all("pool-build n", "pool-start n", "vol-create-as n v 1M", "pool-destroy n", "pool-undefine n")
    assert "C" in sh("lsattr -d /mnt/b/still").split()[0] and "C" in sh("lsattr /mnt/b/still/v").split()[0]
    sh("umount /mnt/b; wipefs -qa /dev/vdd")


def test_types():
    caps = virsh("pool-capabilities")
    for kind in ("dir", "disk", "fs", "iscsi", "iscsi-direct", "logical", "mpath", "netfs", "rbd", "scsi", "zfs"):
        assert f"<pool type='{kind}' supported='yes'>" in caps, caps
    virsh("pool-define-as z zfs --source-name tank")
    refused("pool-start z", "apt install zfsutils-linux")
    virsh("pool-undefine z")


def test_fs():
    virsh_all("pool-define-as f fs --source-dev /dev/vdd --source-format ext4 --target /mnt/f", "pool-build f --no-overwrite",
              "pool-start f", "vol-create-as f v 4M --format qcow2", "vol-list f")
    assert "/dev/vdd /mnt/f ext4 rw,nosuid,nodev,noexec" in sh("grep /mnt/f /proc/mounts")
    assert int(re.search(r"Capacity:\s+(\d+)", virsh("pool-info f --bytes")).group(1)) > 300 * MIB
    virsh("pool-destroy f")
    assert "/mnt/f" not in sh("cat /proc/mounts")
    refused("pool-build f --no-overwrite", "already holds something (ext4)")
    sh("mount /dev/vdd /mnt/f")
    refused("pool-build f --overwrite", "device '/dev/vdd' is in use: the host uses disk 'vdd', which is mounted on '/mnt/f'")
    sh("umount /mnt/f")
    virsh_all("pool-build f --overwrite", "pool-start f")
    assert "v" not in virsh("vol-list f").split()
    sh("umount /mnt/f")  # behind our back
    refused("pool-refresh f", "nothing is mounted")
    virsh_all("pool-delete f", "pool-undefine f")
    refused("pool-define-as f fs --source-dev //host/share --target /mnt/f", "SMB and NFS shares are for type 'netfs'")
    sh("wipefs -qa /dev/vdd")


def test_logical():
    virsh_all("pool-define-as vg logical --source-dev /dev/vdc --target /dev/vg", "pool-build vg", "pool-start vg",
              "vol-create-as vg base 40M")
    assert figure("vg", "base") == f"{40 * MIB} bytes"
    round_trip("vg", "base", "/dev/vg/base")
    sparse_upload("vg", "base", "/dev/vg/base")
    virsh("vol-create-as vg snap 40M --allocation 20M --backing-vol base --backing-vol-format raw")
    sh("head -c 3000000 /dev/vg/snap | cmp - /root/blob")
    xml = virsh("vol-dumpxml snap --pool vg")
    assert "<path>/dev/vg/base</path>" in xml and "<extent start=" in xml and "type='block'" in xml, xml
    in_use("vg", "snap", "/dev/vg/snap")
    virsh("vol-upload snap /root/blob --pool vg")
    virsh_all("vol-clone base copy --pool vg", "vol-resize copy 60M --pool vg", "vol-wipe base --pool vg --algorithm zero")
    sh("head -c 3000000 /dev/vg/copy | cmp - /root/blob && head -c 3000000 /dev/zero | cmp -n 3000000 - /dev/vg/base")
    assert figure("vg", "copy") == f"{60 * MIB} bytes"
    sh("lvcreate -q -y -T -L 80M vg/thin")  # from here on, volumes that are not allocated are thin
    virsh("vol-create-as vg t 2G --allocation 0")
    assert figure("vg", "t") == f"{2048 * MIB} bytes" and figure("vg", "t", "Allocation") == "0 bytes"
    round_trip("vg", "t", "/dev/vg/t")
    virsh("vol-create-as vg ts 2G --backing-vol t --backing-vol-format raw")  # of a thin one: thin, too
    sh("head -c 3000000 /dev/vg/ts | cmp - /root/blob")
    for name in ("t", "ts"):
        assert 2 * MIB < int(figure("vg", name, "Allocation").split()[0]) < 8 * MIB, figure("vg", name, "Allocation")
    assert "<path>/dev/vg/t</path>" in virsh("vol-dumpxml ts --pool vg") and sh("lvs --noheadings -o pool_lv vg/ts").strip() == "thin"
    virsh("vol-delete ts --pool vg")
    assert sorted(w for w in virsh("vol-list vg").split() if not w.startswith("/")) == ["base", "copy", "snap", "t"]
    encrypted_volume("vg", "locked", "copy")
    assert virsh("vol-name $(virsh -q vol-key base --pool vg)").strip() == "base"
    refused("vol-create-as vg base 1M", "exists already")
    refused("vol-create-as vg huge 9G", "insufficient free space")
    sources = virsh("find-storage-pool-sources logical")
    assert "<name>vg</name>" in sources and "<device path='/dev/vdc'/>" in sources, sources
    refused("pool-build vg", "is active")
    virsh_all(*(f"vol-delete {v} --pool vg" for v in ("snap", "t", "copy", "base")), "pool-destroy vg", "pool-delete vg",
              "pool-undefine vg")
    assert not sh("lsblk -no FSTYPE /dev/vdc")


def test_disk():
    virsh_all("pool-define-as d disk --source-dev /dev/vdc --source-format gpt --target /dev", "pool-build d", "pool-start d",
              "vol-create-as d vdc1 50M", "vol-create-as d vdc2 60M --format linux-lvm")
    assert figure("d", "vdc2") == f"{60 * MIB} bytes"
    refused("vol-create-as d web 5M", "the next partition of '/dev/vdc' is called 'vdc3'")
    refused("vol-create-as d vdc3 500M", "no free range")
    virsh("vol-delete vdc1 --pool d")
    virsh("vol-create-as d vdc1 20M")
    round_trip("d", "vdc1", "/dev/vdc1")
    assert "Linux LVM" in sh("sfdisk -qlo Device,Type /dev/vdc")
    assert virsh("vol-path vdc1 --pool d").strip() == "/dev/vdc1"
    virsh("vol-delete vdc2 --pool d")
    secret()
    virsh("vol-create d " + volume_xml("vdc2", 40))
    assert 40 * MIB <= int(figure("d", "vdc2").split()[0]) < 43 * MIB and SECRET in virsh("vol-dumpxml vdc2 --pool d")
    virsh_all("vol-delete vdc1 --pool d", "vol-delete vdc2 --pool d", "pool-destroy d")
    refused("pool-build d", "already holds something (gpt)")
    virsh("pool-undefine d")
    sh("wipefs -qa /dev/vdc")


LOGICAL = """label: dos
start=2048, size=20M, type=83
start=43008, size=300M, type=5
start=45056, size=40M, type=83
start=129024, size=40M, type=83
start=212992, size=40M, type=83
"""


def marked(partition, word):
    assert sh(f"head -c {len(word)} /dev/{partition}") == word, partition


def names(pool):
    return [line.split()[0] for line in virsh(f"vol-list {pool}").splitlines()]


def test_logical_partitions():
    """A deletion renumbers those behind it: the pool knows at once, and nothing is done to another one in the place of what was meant."""
    sh(f"sfdisk -q --wipe always /dev/vdc <{write('table', LOGICAL)} && udevadm settle")
    for n in (1, 5, 6, 7):
        sh(f"echo partition-{n} >/dev/vdc{n}; sync")
    virsh_all("pool-define-as d disk --source-dev /dev/vdc --source-format dos --target /dev", "pool-start d")
    assert names("d") == ["vdc1", "vdc2", "vdc5", "vdc6", "vdc7"], names("d")
    for verb in ("vol-wipe", "vol-delete"):
        refused(f"{verb} vdc2 --pool d", "is an extended partition")
    sh("cp /dev/vdc6 /root/six && mkfs.ext4 -q -F /dev/vdc6 && mkdir -p /mnt/use && mount /dev/vdc6 /mnt/use")
    for name in ("vdc5", "vdc6"):
        refused(f"vol-delete {name} --pool d", "which is mounted on '/mnt/use'")
    sh("umount /mnt/use && cp /root/six /dev/vdc6 && sync")
    virsh("create " + write("m.xml", MACHINE.format(pool="d", volume="vdc7", luks="")))
    refused("vol-delete vdc5 --pool d", "volume '/dev/vdc7' is in use by process")
    virsh("destroy m")
    virsh("vol-delete vdc5 --pool d")
    assert names("d") == ["vdc1", "vdc2", "vdc5", "vdc6"], names("d")
    assert f"start='{129024 * 512}'" in virsh("vol-dumpxml vdc5 --pool d")
    marked("vdc5", "partition-6")  # by the kernel, too
    virsh("vol-wipe vdc6 --pool d")
    marked("vdc5", "partition-6")
    assert sh("head -c 11 /dev/vdc6 | tr -d '\\0'") == ""
    sh("echo partition-7 >/dev/vdc6; sync; sfdisk -q --delete /dev/vdc 5 && udevadm settle")  # behind our back
    marked("vdc5", "partition-7")
    for words in ("vol-wipe vdc5", "vol-delete vdc5", "vol-upload vdc5 /etc/passwd"):
        refused(words + " --pool d", "refresh storage pool 'd'")
    marked("vdc5", "partition-7")
    virsh("pool-refresh d")
    assert names("d") == ["vdc1", "vdc2", "vdc5"], names("d")
    with open("/dev/vdc5", "rb"):  # so that udev cannot have the kernel read the table
        sh("echo 'start=4096, size=10M' | sfdisk -q -N 1 --no-reread --no-tell-kernel /dev/vdc; udevadm settle")
    virsh("pool-refresh d")
    for words in ("vol-wipe vdc1", "vol-delete vdc1", "vol-upload vdc1 /etc/passwd", "vol-download vdc1 /root/back"):
        refused(words + " --pool d", "by the kernel")
    marked("vdc1", "partition-1")
    sh("blockdev --rereadpt /dev/vdc && udevadm settle")
    virsh_all("vol-wipe vdc1 --pool d", "vol-delete vdc5 --pool d", "vol-delete vdc2 --pool d", "vol-delete vdc1 --pool d")
    assert not names("d")
    virsh_all("pool-destroy d", "pool-undefine d")
    sh("wipefs -qa /dev/vdc")


def test_mapped_partitions():
    """Partitions of a mapped disk (multipath) are mapped, too: the kernel knows how large they are, and not where."""
    sh("dmsetup create whole --table '0 409600 linear /dev/vdc 0'")
    sh(f"sfdisk -q /dev/mapper/whole <{write('table', 'label: dos{}start=2048, size=20M{}'.format(chr(10), chr(10)))}; udevadm settle")
    node = sh("sfdisk -qlo Device /dev/mapper/whole").split()[-1]
    name = node.removeprefix("/dev/mapper/")
    sh(f"dmsetup create {name} --table '0 40960 linear /dev/vdc 2048'; udevadm settle")
    virsh_all("pool-define-as d disk --source-dev /dev/mapper/whole --source-format dos --target /dev/mapper", "pool-start d")
    assert names("d") == [name], names("d")
    round_trip("d", name, node)
    virsh(f"vol-wipe {name} --pool d")
    sh(f"dmsetup remove {name} && dmsetup create {name} --table '0 20480 linear /dev/vdc 2048'; udevadm settle")
    refused(f"vol-wipe {name} --pool d", "by the kernel")
    virsh_all("pool-destroy d", "pool-undefine d")
    sh(f"dmsetup remove {name} && dmsetup remove whole; wipefs -qa /dev/vdc")


def test_iscsi():
    sh("tgtd; for i in $(seq 100); do tgtadm --lld iscsi --op show --mode target >/dev/null 2>&1 && break; sleep 0.2; done; truncate -s 50M /root/lun1 /root/lun2")
    sh("tgtadm --lld iscsi --op new --mode target --tid 1 -T " + IQN + "; "
       "for n in 1 2; do tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun $n -b /root/lun$n; done; "
       "tgtadm --lld iscsi --op bind --mode target --tid 1 -I ALL")
    sh("mkdir -p /run/lock/iscsi && modprobe iscsi_tcp && iscsid")
    found = virsh("find-storage-pool-sources-as iscsi 127.0.0.1")
    assert f"<device path='{IQN}'/>" in found, found
    virsh_all(f"pool-define-as i iscsi --source-host 127.0.0.1 --source-dev {IQN} --target /dev/disk/by-path", "pool-start i")
    volumes = dict(line.split() for line in virsh("vol-list i").splitlines())
    assert list(volumes) == ["unit:0:0:1", "unit:0:0:2"] and "/dev/disk/by-path/ip-127.0.0.1:3260" in volumes["unit:0:0:1"], volumes
    assert figure("i", "unit:0:0:2") == f"{50 * MIB} bytes"
    round_trip("i", "unit:0:0:1", volumes["unit:0:0:1"])
    sh("sync; head -c 3000000 /root/lun1 | cmp - /root/blob")
    secret()
    sh(f"/ruche/ruche-img create -q -f luks --object secret,id=k,file={write('value', 'open-sesame-4711')} -o key-secret=k,iter-time=100 "
       f"{volumes['unit:0:0:2']} 40M")
    virsh("pool-refresh i")
    assert "<encryption format='luks'>" in virsh("vol-dumpxml unit:0:0:2 --pool i")
    virsh("create " + write("m.xml", MACHINE.format(pool="i", volume="unit:0:0:2", luks=LUKS)))
    virsh("destroy m")
    sh(f"wipefs -qa {volumes['unit:0:0:2']}")
    virsh("pool-refresh i")
    refused("vol-create-as i unit:0:0:3 5M", "units are made on its server")
    refused("pool-define-as n iscsi --source-host h --source-dev nqn.2014-08.org.nvmexpress:x --target /dev", "NVMe over fabrics")


def test_multipath():
    sh("printf 'defaults {\\n find_multipaths no\\n user_friendly_names yes\\n}\\nblacklist {\\n devnode \"^vd\"\\n}\\n' "
       ">/etc/multipath.conf; modprobe dm-multipath && multipathd && for i in $(seq 100); do "
       "multipath -r >/dev/null && break; sleep 1; done")
    sh("for i in $(seq 60); do [ -e /dev/mapper/mpatha ] && break; sleep 0.5; done; ls /dev/mapper")
    virsh_all("pool-define-as m mpath --target /dev/mapper", "pool-start m")
    listed = virsh("vol-list m")
    assert "/dev/mapper/mpatha" in listed and "dm-" in listed, listed
    virsh_all("pool-destroy m", "pool-undefine m")
    sh("multipath -F; kill $(pidof multipathd)")


def test_iscsi_direct():
    xml = (f'<pool type="iscsi-direct"><name>x</name><source><host name="127.0.0.1"/><device path="{IQN}"/>'
           '<initiator><iqn name="iqn.2026-01.org.ruche:us"/></initiator></source></pool>')
    sh(f"echo '{xml}' >/root/x.xml")
    virsh_all("pool-define /root/x.xml", "pool-start x")
    assert figure("x", "unit:0:0:1") == f"{50 * MIB} bytes"
    xml = virsh("vol-dumpxml unit:0:0:2 --pool x")
    assert "type='network'" in xml and f"ip-127.0.0.1:3260-iscsi-{IQN}-lun-2" in xml, xml
    refused("vol-wipe unit:0:0:1 --pool x", "not on this host")


def test_iscsi_end():
    virsh_all("pool-destroy i", "pool-undefine i")
    status, output = run("iscsiadm -m session", 60)
    assert status == 21, output


def test_scsi():
    sh("modprobe scsi_debug dev_size_mb=16 num_tgts=1 max_luns=2")
    number = sh("grep -l scsi_debug /sys/class/scsi_host/host*/proc_name").split("/")[4].removeprefix("host")
    assert f"name='scsi_host{number}'" in virsh("find-storage-pool-sources scsi")
    sh(f"echo '<pool type=\"scsi\"><name>s</name><source><adapter type=\"scsi_host\" name=\"scsi_host{number}\"/></source>"
       "<target><path>/dev/disk/by-path</path></target></pool>' >/root/s.xml")
    virsh_all("pool-define /root/s.xml", "pool-start s")
    assert figure("s", "unit:0:0:1") == f"{16 * MIB} bytes"
    unit, driver = f"{number}:0:0:1", "/sys/bus/scsi/drivers/sd"
    sh(f"echo {unit} >{driver}/unbind; (sleep 1; echo {unit} >{driver}/bind) >/dev/null 2>&1 &")  # the driver comes later than the unit
    virsh("pool-refresh s")
    volumes = [line.split()[0] for line in virsh("vol-list s").splitlines()]
    assert volumes == ["unit:0:0:0", "unit:0:0:1"], volumes
    sh(f"echo {unit} >{driver}/unbind")
    took = []
    for _ in range(2):
        begin = time.monotonic()
        virsh("pool-refresh s")
        took.append(time.monotonic() - begin)
    assert took[0] >= 10 and took[1] < took[0] - 5, took  # for a driver that does not come one waits once
    virsh_all("pool-destroy s", "pool-undefine s")
    refused("pool-define-as s scsi --adapter-name x --target /dev --source-host h", "takes no source host")


def test_nfs():
    sh("mkdir -p /srv/n && mount -t tmpfs tmpfs /srv/n && mkdir -p /run/rpcbind /run/sendsigs.omit.d && rpcbind -w && "
       "mount -t nfsd nfsd /proc/fs/nfsd; "
       "exportfs -o rw,no_root_squash,insecure,fsid=1 127.0.0.1:/srv/n && rpc.mountd && rpc.nfsd -G 10 -L 10 4 && " + NO_GRACE)
    assert "<dir path='/srv/n'/>" in virsh("find-storage-pool-sources-as netfs 127.0.0.1")
    virsh_all("pool-define-as n netfs --source-host 127.0.0.1 --source-path /srv/n --source-format nfs --target /mnt/n",
              "pool-build n", "pool-start n", "vol-create-as n v 8M", "vol-create-as n q 64M --format qcow2")
    assert "127.0.0.1:/srv/n /mnt/n nfs4" in sh("grep /mnt/n /proc/mounts")
    round_trip("n", "v", "/srv/n/v")
    virsh_all("vol-resize q 128M --pool n", "vol-clone q q2 --pool n", "vol-delete v --pool n")
    assert sh("ls /srv/n").split() == ["q", "q2"]
    refused("pool-define-as o netfs --source-host 127.0.0.1 --source-path /srv/n --target /mnt/o", "already that of")


def test_cifs():
    sh("mkdir -p /srv/c /run/samba && chmod 777 /srv/c && printf '[global]\\nmap to guest = bad user\\nguest account = root\\n"
       "interfaces = lo\\n[share]\\npath = /srv/c\\nread only = no\\nguest ok = yes\\n' >/etc/samba/smb.conf && "
       "smbd -D </dev/null >/dev/null 2>&1 && "
       "for i in $(seq 100); do ss -ltn | grep -q :445 && break; sleep 0.2; done")
    virsh_all("pool-define-as c netfs --source-host 127.0.0.1 --source-path share --source-format cifs --target /mnt/c",
              "pool-build c", "pool-start c", "vol-create-as c v 8M")
    assert "//127.0.0.1/share /mnt/c cifs" in sh("grep /mnt/c /proc/mounts")
    round_trip("c", "v", "/srv/c/v")


def test_vanished():
    """The servers of x and c hang, that of n goes: each refresh ends by its time-out, everything else goes on meanwhile; then they come back."""
    servers = {"x": ("kill -STOP $(pidof tgtd)", "kill -CONT $(pidof tgtd)"), "c": ("kill -STOP $(pidof smbd)", "kill -CONT $(pidof smbd)"),
               "n": ("rpc.nfsd 0", "rpc.nfsd -G 10 -L 10 4 && " + NO_GRACE)}
    for go, _ in servers.values():
        sh(go)
    refreshes = [subprocess.Popen(["virsh", "-q", "pool-refresh", pool], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for pool in servers]
    time.sleep(1)
    virsh_all("list --all", "pool-list --all", *(f"vol-list {pool}" for pool in servers))
    assert [r.poll() for r in refreshes] == [None] * len(servers), "that took as long as the refreshes"
    for refresh in refreshes:
        said = refresh.communicate(timeout=240)[0]
        assert refresh.returncode and "did not answer within" in said, said
    refused("vol-upload v /root/blob --pool c", "'c' has not answered what it was asked before")
    assert virsh("pool-list --details").count("inaccessible") == len(servers)
    for pool, (_, come) in servers.items():
        sh(come)
        wait_for(f"pool {pool}", lambda pool=pool: not run(f"virsh -q pool-refresh {pool}")[0])
    assert "inaccessible" not in virsh("pool-list --details")
    virsh_all("vol-delete v --pool c", "pool-destroy c", "pool-delete c", "pool-undefine c", *(f"{verb} {pool}" for pool in "xn" for verb in ("pool-destroy", "pool-undefine")))
    assert "/mnt/n" not in sh("cat /proc/mounts")
    sh("rpc.nfsd 0; exportfs -ua")


if __name__ == "__main__":
    main({"types": test_types, "fs": test_fs, "btrfs": test_btrfs, "logical": test_logical, "disk": test_disk, "logical partitions": test_logical_partitions, "mapped partitions": test_mapped_partitions, "iscsi": test_iscsi, "multipath": test_multipath,
          "iscsi-direct": test_iscsi_direct, "iscsi end": test_iscsi_end, "scsi": test_scsi, "nfs": test_nfs, "cifs": test_cifs, "vanished": test_vanished})
