#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Which protocol works under which type of pool: each "yes" of the table is run with a real server (tgt with CHAP, the kernel's NVMe
target over TCP, Samba with a password, the kernel's NFS server), each "no" is refused with a sentence that says what to use.

Fibre Channel has no server without an adapter: its units are sd devices like those of scsi_debug, which stand for them here; that
they are found by their adapter is shown by a made-up /sys in backend_test.c.
"""
import os
import re
import uuid

from here import PROGRAMS, main, refused, run, sh, virsh, virsh_all, wait_for

TYPES = ("dir", "fs", "netfs", "logical", "disk", "iscsi", "iscsi-direct", "mpath")
IQN = "iqn.2026-01.org.ruche:cells"
NQN = "nqn.2026-01.org.ruche:cells"
PASSWORD = "open-sesame-4711"
SHARES = "shares of file servers (SMB, NFS) are for type 'netfs'"
BLOCKS = "block devices (of iSCSI, Fibre Channel, NVMe) are for types 'fs', 'logical', 'disk'"
ADAPTERS = "adapters (SCSI, Fibre Channel) are for type 'scsi'; their devices for 'fs', 'logical', 'disk' and 'mpath'"
FABRICS = "devices of NVMe over fabrics, once connected, are for types 'disk', 'fs', 'logical' and 'mpath'"
YES = None
# The sentence of a cell that says no.
CELLS = {
    "SMB":  {"dir": YES, "fs": "SMB and NFS shares are for type 'netfs'", "netfs": YES, "logical": SHARES, "disk": SHARES, "iscsi": SHARES,
             "iscsi-direct": SHARES, "mpath": SHARES},
    "NFS":  {"dir": YES, "fs": "SMB and NFS shares are for type 'netfs'", "netfs": YES, "logical": SHARES, "disk": SHARES, "iscsi": SHARES,
             "iscsi-direct": SHARES, "mpath": SHARES},
    "iSCSI": {"dir": YES, "fs": YES, "netfs": BLOCKS, "logical": YES, "disk": YES, "iscsi": YES, "iscsi-direct": YES, "mpath": YES},
    "Fibre Channel": {"dir": YES, "fs": YES, "netfs": ADAPTERS, "logical": YES, "disk": YES, "iscsi": ADAPTERS, "iscsi-direct": ADAPTERS,
                      "mpath": YES},
    "NVMe": {"dir": YES, "fs": YES, "netfs": BLOCKS, "logical": YES, "disk": YES, "iscsi": FABRICS, "iscsi-direct": FABRICS, "mpath": YES},
}
# What a person would write who wants that protocol.
SOURCES = {
    "SMB": '<host name="h"/><dir path="share"/>', "NFS": '<host name="h"/><dir path="/export"/>',
    "iSCSI": f'<host name="h"/><device path="{IQN}"/>',
    "Fibre Channel": '<adapter type="fc_host" wwnn="20000000c9831b4b" wwpn="10000000c9831b4b"/>',
    "NVMe": f'<host name="h"/><device path="{NQN}"/><initiator><iqn name="iqn.2026-01.org.ruche:us"/></initiator>',
}
ran = {}  # (protocol, type): the test that ran it


def cell(protocol, kind, test):
    ran[protocol, kind] = test


def define(text, verb="define"):
    with open("/root/cell.xml", "w", encoding="ascii") as f:
        f.write(text)
    virsh(f"pool-{verb} /root/cell.xml")


def secret(usage, value=PASSWORD):
    name = uuid.uuid4()
    with open("/root/secret.xml", "w", encoding="ascii") as f:
        f.write(f"<secret private='yes'><uuid>{name}</uuid><usage type='iscsi'><target>{usage}</target></usage></secret>")
    virsh("secret-define /root/secret.xml")
    sh(f"printf %s '{value}' >/root/value; virsh -q secret-set-value {name} --file /root/value --plain; rm /root/value")


def round_trip(volume, path):
    sh("[ -e /root/blob ] || head -c 3000000 /dev/urandom >/root/blob")
    virsh_all(f"vol-upload {volume} /root/blob --pool c", f"vol-download {volume} /root/back --pool c --length 3000000")
    sh(f"cmp /root/blob /root/back && head -c 3000000 {path} | cmp - /root/blob")


def folder(protocol, kind, words, target):
    """A pool of files, made and used, then gone."""
    virsh_all(f"pool-define-as c {words} --target {target}", "pool-build c", "pool-start c", "vol-create-as c v 8M",
              "vol-create-as c q 64M --format qcow2")
    round_trip("v", f"{target}/v")
    virsh_all("vol-resize q 128M --pool c", "vol-clone q q2 --pool c", *(f"vol-delete {v} --pool c" for v in ("v", "q", "q2")), "pool-destroy c",
              "pool-undefine c")
    cell(protocol, kind, f"{protocol}, {kind}")


def stacks(protocol, device):
    """What stands on a block device."""
    sh(f"wipefs -qa {device}; mkfs.ext4 -Fq {device} && mkdir -p /mnt/d && mount {device} /mnt/d")
    folder(protocol, "dir", "dir", "/mnt/d/pool")
    sh("umount /mnt/d")
    folder(protocol, "fs", f"fs --source-dev {device} --source-format ext4", "/mnt/c")
    sh(f"wipefs -qa {device}")
    virsh_all(f"pool-define-as c logical --source-dev {device} --source-name cells --target /dev/cells", "pool-build c", "pool-start c",
              "vol-create-as c v 8M")
    round_trip("v", "/dev/cells/v")
    virsh_all("vol-delete v --pool c", "pool-destroy c", "pool-delete c", "pool-undefine c")
    cell(protocol, "logical", f"{protocol}, logical")
    sh(f"wipefs -qa {device}")
    virsh_all(f"pool-define-as c disk --source-dev {device} --source-format gpt --target /dev", "pool-build c", "pool-start c")
    name = os.path.basename(device) + ("p1" if device[-1].isdigit() else "1")
    virsh(f"vol-create-as c {name} 20M")
    round_trip(name, f"/dev/{name}")
    virsh_all(f"vol-delete {name} --pool c", "pool-destroy c", "pool-undefine c")
    cell(protocol, "disk", f"{protocol}, disk")
    sh(f"wipefs -qa {device}; udevadm settle")


def multipath(protocol, *paths):
    """One device of these paths, in a pool."""
    sh("multipathd; for i in $(seq 100); do multipathd show daemon >/dev/null 2>&1 && break; sleep 0.2; done")
    names = [os.path.basename(p) for p in paths]

    def found():
        run("multipath -v0")
        for line in sh("for m in $(dmsetup ls --target multipath | cut -f1); do "
                       "echo $m $(ls /sys/block/$(basename $(readlink -f /dev/mapper/$m))/slaves); done", 60).splitlines():
            words = line.split()
            if set(words[1:]) == set(names):
                return words[0]
        return None

    name = wait_for(f"a multipath device of {names}", found, 60)
    virsh_all("pool-define-as c mpath --target /dev/mapper", "pool-start c")
    volume = next(line.split()[0] for line in virsh("vol-list c").splitlines() if line.split()[1] == f"/dev/mapper/{name}")
    round_trip(volume, f"/dev/mapper/{name}")
    for path in paths:
        sh(f"blockdev --flushbufs {path}; head -c 3000000 {path} | cmp - /root/blob")
    virsh_all("pool-destroy c", "pool-undefine c")
    sh("multipathd shutdown; for i in $(seq 100); do pidof multipathd >/dev/null || break; sleep 0.1; done; multipath -F")
    sh(f"wipefs -qa {paths[0]}")
    cell(protocol, "mpath", f"{protocol}, mpath")


def test_files():
    """NFS and SMB: mounted by hand under a folder, and by the pool; SMB with a user and his password."""
    sh("mkdir -p /srv/n /srv/s /mnt/hand && mount -t tmpfs tmpfs /srv/n && mkdir -p /run/rpcbind /run/sendsigs.omit.d && rpcbind -w && "
       "mount -t nfsd nfsd /proc/fs/nfsd; "
       "exportfs -o rw,no_root_squash,insecure,fsid=1 127.0.0.1:/srv/n && rpc.mountd && rpc.nfsd -G 10 -L 10 4 && "
       "echo Y >/proc/fs/nfsd/v4_end_grace")
    sh("mount -t nfs 127.0.0.1:/srv/n /mnt/hand")
    folder("NFS", "dir", "dir", "/mnt/hand/pool")
    sh("umount /mnt/hand")
    folder("NFS", "netfs", "netfs --source-host 127.0.0.1 --source-path /srv/n --source-format nfs", "/mnt/c")
    sh("mkdir -p /run/samba && printf '[global]\\ninterfaces = lo\\n[share]\\npath = /srv/s\\nread only = no\\nvalid users = root\\n' "
       f">/etc/samba/smb.conf && printf '{PASSWORD}\\n{PASSWORD}\\n' | smbpasswd -s -a root && smbd -D </dev/null >/dev/null 2>&1 && "
       "for i in $(seq 100); do ss -ltn | grep -q :445 && break; sleep 0.2; done")
    sh(f"PASSWD={PASSWORD} mount -t cifs -o username=root,nobrl //127.0.0.1/share /mnt/hand")
    folder("SMB", "dir", "dir", "/mnt/hand/pool")
    sh("umount /mnt/hand")
    secret("smb")
    secret("smb-wrong", "never-heard-of")
    pool = ('<pool type="netfs"><name>s</name><source><host name="127.0.0.1"/><dir path="share"/><format type="cifs"/><auth type="chap" '
            'username="root"><secret usage="{}"/></auth></source><target><path>/mnt/s</path></target></pool>')
    define(pool.format("smb-wrong"))
    virsh("pool-build s")
    refused("pool-start s", "'//127.0.0.1/share' cannot be mounted")
    virsh("pool-undefine s")
    define(pool.format("smb").replace("<name>s<", "<name>c<"))
    virsh_all("pool-start c", "vol-create-as c v 8M")
    assert "//127.0.0.1/share /mnt/s cifs" in sh("grep /mnt/s /proc/mounts") and PASSWORD not in sh("cat /proc/mounts")
    round_trip("v", "/srv/s/v")
    virsh_all("vol-delete v --pool c", "pool-destroy c", "pool-undefine c")
    cell("SMB", "netfs", "files")


def chap(kind, name, who="bee", usage="cells"):
    return (f'<pool type="{kind}"><name>{name}</name><source><host name="127.0.0.1"/><device path="{IQN}"/>'
            f'<auth type="chap" username="{who}"><secret usage="{usage}"/></auth>'
            '<initiator><iqn name="iqn.2026-01.org.ruche:us"/></initiator></source>'
            '<target><path>/dev/disk/by-path</path></target></pool>')


def test_iscsi():
    """A target that asks for a name and a password."""
    sh("tgtd; for i in $(seq 100); do tgtadm --op show --mode target >/dev/null 2>&1 && break; sleep 0.2; done; truncate -s 100M /root/unit")
    sh(f"tgtadm --lld iscsi --op new --mode target --tid 1 -T {IQN} && "
       "tgtadm --lld iscsi --op new --mode logicalunit --tid 1 --lun 1 -b /root/unit && "
       f"tgtadm --lld iscsi --op new --mode account --user bee --password {PASSWORD} && "
       "tgtadm --lld iscsi --op bind --mode account --tid 1 --user bee && tgtadm --lld iscsi --op bind --mode target --tid 1 -I ALL")
    sh("mkdir -p /run/lock/iscsi && modprobe iscsi_tcp && iscsid")
    secret("cells")
    secret("cells-wrong", "never-heard-of")
    define(chap("iscsi-direct", "c", usage="cells-wrong"))
    refused("pool-start c", "")
    virsh("pool-undefine c")
    define(chap("iscsi-direct", "c"))
    virsh("pool-start c")
    assert re.search(rf"Capacity:\s+{100 << 20} bytes", virsh("vol-info unit:0:0:1 --pool c --bytes"))
    disk = '<disk type="volume" device="disk"><driver name="qemu" type="raw"/><source pool="c" volume="unit:0:0:1"/><target dev="vda" bus="virtio"/></disk>'
    run_machine(disk)
    virsh_all("pool-destroy c", "pool-undefine c")
    cell("iSCSI", "iscsi-direct", "iSCSI")
    define(chap("iscsi", "i", usage="cells-wrong"))
    refused("pool-start i", "")
    virsh("pool-undefine i")
    define(chap("iscsi", "i"))
    virsh("pool-start i")
    run_machine(disk.replace('pool="c"', 'pool="i" mode="direct"'))
    run_machine(disk.replace('pool="c"', 'pool="i" mode="host"'))
    path = virsh("vol-path unit:0:0:1 --pool i").strip()
    assert "/dev/disk/by-path/" in path and PASSWORD not in virsh("pool-dumpxml i")
    cell("iSCSI", "iscsi", "iSCSI")
    device = os.path.realpath(path)
    stacks("iSCSI", device)
    multipath("iSCSI", device)
    virsh_all("pool-destroy i", "pool-undefine i")
    status, output = run("iscsiadm -m session", 60)
    assert status == 21, output


def run_machine(disk):
    """A machine of ours with this disk starts, and knows its size."""
    with open("/root/machine.xml", "w", encoding="ascii") as f:
        f.write("<domain type='qemu'><name>m</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>"
                f"<kernel>{PROGRAMS}/kernel</kernel><cmdline>x</cmdline></os><devices><emulator>{PROGRAMS}/ruche-vmm</emulator>{disk}"
                "<memballoon model='none'/></devices></domain>")
    virsh("create /root/machine.xml")
    try:
        assert re.search(rf"Capacity:\s+{100 << 20}", virsh("domblkinfo m vda"))
        assert 'volume=' in virsh("dumpxml m").replace("'", '"') and PASSWORD not in virsh("dumpxml m")
    finally:
        virsh("destroy m")


def test_nvme():
    """The kernel's own target over TCP, by two ports: two paths to one device."""
    base = "/sys/kernel/config/nvmet"
    sh("modprobe -a nvmet nvmet-tcp nvme-tcp && mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config; "
       f"truncate -s 100M /root/namespace && mkdir {base}/subsystems/{NQN} && cd {base}/subsystems/{NQN} && echo 1 >attr_allow_any_host && "
       "mkdir namespaces/1 && printf /root/namespace >namespaces/1/device_path && echo 1 >namespaces/1/enable")
    for port in (1, 2):
        sh(f"mkdir {base}/ports/{port} && cd {base}/ports/{port} && echo tcp >addr_trtype && echo ipv4 >addr_adrfam && echo 127.0.0.1 >addr_traddr && "
           f"echo 442{port} >addr_trsvcid && ln -s ../../subsystems/{NQN} subsystems/")
    before = set(os.listdir("/sys/block"))
    connect = f"nvme connect -t tcp -a 127.0.0.1 -n {NQN} -q nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555 -s "

    def devices(count):
        new = sorted(n for n in set(os.listdir("/sys/block")) - before if re.fullmatch(r"nvme\d+n1", n))
        return new if len(new) == count and all(os.path.exists(f"/dev/{n}") for n in new) else None

    sh(connect + "4421")
    first = wait_for("the device", lambda: devices(1))
    stacks("NVMe", f"/dev/{first[0]}")
    sh(connect + "4422")
    both = wait_for("its second path", lambda: devices(2))
    multipath("NVMe", *(f"/dev/{n}" for n in both))
    sh(f"nvme disconnect -n {NQN}")


def test_fibre_channel():
    sh("modprobe scsi_debug dev_size_mb=100 num_tgts=1 max_luns=1 && udevadm settle")
    name = wait_for("the unit", lambda: sh("lsblk -Sno NAME,MODEL | awk '/scsi_debug/ { print $1 }'"))
    stacks("Fibre Channel", f"/dev/{name}")
    multipath("Fibre Channel", f"/dev/{name}")


def test_table():
    """All forty cells."""
    wrong = []
    for protocol, row in CELLS.items():
        assert tuple(row) == TYPES
        for kind, sentence in row.items():
            if sentence is YES:
                if (protocol, kind) not in ran:
                    wrong.append(f"{protocol} under {kind}: nothing ran it")
                continue
            source = SOURCES[protocol]
            if kind == "fs":
                source = '<device path="//h/share"/>'
            with open("/root/cell.xml", "w", encoding="ascii") as f:
                f.write(f'<pool type="{kind}"><name>no</name><source>{source}</source><target><path>/mnt/no</path></target></pool>')
            status, said = run("virsh -q pool-define /root/cell.xml")
            if status == 0 or sentence not in said:
                wrong.append(f"{protocol} under {kind}: '{sentence}' is not in: {said}")
    assert not wrong, "\n".join(wrong)


if __name__ == "__main__":
    sh("printf 'defaults {\\n find_multipaths no\\n user_friendly_names yes\\n}\\nblacklist {\\n devnode \"^(vd|loop)\"\\n}\\n' >/etc/multipath.conf; "
       "modprobe dm-multipath")
    main({"files": test_files, "iSCSI": test_iscsi, "NVMe": test_nvme, "Fibre Channel": test_fibre_channel, "table": test_table})
