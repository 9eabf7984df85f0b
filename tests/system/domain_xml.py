# SPDX-License-Identifier: GPL-2.0-or-later
"""Domain XML beside libvirt's.

Each example in tests/golden/domain-xml/ is defined: NAME.xml becomes NAME.out, which is valid by libvirt's own
schemas and defines again to the same bytes. The same examples, and a list of wrong ones, are given to libvirt's test
driver: what it takes we take, what it refuses we refuse. To write new .out files: domain_xml.py PEER --write.
"""
import os
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap

PEER = os.path.abspath(sys.argv[1])
GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden", "domain-xml")
SCHEMA = "/usr/share/libvirt/schemas/domain.rng"
EXAMPLES = sorted(f[:-4] for f in os.listdir(GOLDEN) if f.endswith(".xml"))
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-domxml-")

HEAD = "<name>x</name><memory unit='MiB'>256</memory><os><type arch='{arch}'>hvm</type></os>"
DISK = "<disk type='file'><source file='/a'/>{}</disk>"


def define(texts, *options):
    """What PEER says to each text: the canonical one, or a sentence."""
    paths = []
    for i, text in enumerate(texts):
        paths.append(os.path.join(FOLDER.name, str(i)))
        with open(paths[-1], "w", encoding="utf-8") as f:
            f.write(text)
    run = subprocess.run([PEER, *options, *paths], stdout=subprocess.PIPE, check=True, timeout=600)
    return run.stdout.decode().split("\0")[:-1]


def read(name):
    with open(os.path.join(GOLDEN, name), encoding="utf-8") as f:
        return f.read()


def outputs():
    return define([read(e + ".xml") for e in EXAMPLES])


def test_golden():
    for name, text in zip(EXAMPLES, outputs()):
        assert text.startswith("<domain"), f"{name}: {text}"
        assert text == read(name + ".out"), f"{name}: differs from its .out:\n{text}"


def test_again():
    """Defined again, with nothing unknown in it, a text stays as it is; live and then not, too."""
    texts = outputs()
    assert define(texts, "--validate") == texts
    live = define(texts, "--live")
    assert define(live, "--live", "--validate") == live
    for name, text, plain in zip(EXAMPLES, texts, define(live)):
        assert plain == text, f"{name}: {plain}"


def test_schema():
    if not os.path.exists(SCHEMA):
        raise tap.Skip("libvirt's schemas are not installed (libvirt0)")
    texts = outputs()
    live = [t for t in define(texts, "--live") if "<smartcard" not in t]  # the schemas have forgotten its alias
    paths = []
    for i, text in enumerate(texts + live):
        paths.append(os.path.join(FOLDER.name, f"out{i}"))
        with open(paths[-1], "w", encoding="utf-8") as f:
            f.write(text)
    run = subprocess.run(["xmllint", "--noout", "--relaxng", SCHEMA, *paths], stderr=subprocess.PIPE, timeout=600)
    assert run.returncode == 0, run.stderr.decode()


def libvirt_test():
    try:
        import libvirt
    except ImportError:
        raise tap.Skip("python3-libvirt is not installed for this Python")
    libvirt.registerErrorHandler(lambda *_: None, None)
    return libvirt, libvirt.open("test:///default")


def taken_by_libvirt(lib, connection, text):
    """None, or libvirt's reason."""
    try:
        connection.defineXML(text).undefine()
    except lib.libvirtError as reason:
        return reason.get_error_message()
    return None


# Examples that the test driver refuses for what it is, not for what the text says.
NOT_THE_TEST_DRIVERS = {"interface-types": "passt is newer than the driver"}


def test_takes():
    lib, connection = libvirt_test()
    for name in EXAMPLES:
        text = re.sub("(<domain[^>]*type=).(kvm|qemu).", r"\1'test'", read(name + ".xml"), count=1)
        text = re.sub("arch=.x86_64. machine=.[a-z0-9.-]*.", "arch='i686'", text)
        reason = taken_by_libvirt(lib, connection, text)
        assert reason is None or name in NOT_THE_TEST_DRIVERS, f"{name}: {reason}"


def disks(*parts):
    return "<devices>" + "".join(DISK.format(p) for p in parts) + "</devices>"


REFUSED = [
    "<vcpu>0</vcpu>", "<vcpu>x</vcpu>", "<vcpu>99999999999999999999</vcpu>",
    "<vcpu current='3'>2</vcpu>", "<vcpu cpuset='5-3'>2</vcpu>", "<vcpu placement='maybe'>1</vcpu>",
    "<currentMemory unit='furlong'>3</currentMemory>",
    "<currentMemory>-5</currentMemory>", "<currentMemory unit='E'>99</currentMemory>", "<maxMemory unit='GiB'>1</maxMemory>",
    "<uuid>12</uuid>", "<title>a\nb</title>", "<on_reboot>explode</on_reboot>", "<on_crash>x</on_crash>",
    "<clock offset='sometimes'/>", "<clock offset='utc'><timer name='sundial'/></clock>",
    "<features><kvm><hidden state='perhaps'/></kvm></features>", "<features><hyperv><relaxed/></hyperv></features>",
    "<features><hyperv><spinlocks state='on' retries='1'/></hyperv></features>",
    "<cpu mode='best'/>", "<cpu match='exact'><feature name='x'/></cpu>",
    "<cpu><topology sockets='0' cores='1' threads='1'/></cpu>",
    "<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/><cell id='2' memory='1' unit='GiB'/></numa></cpu>",
    "<cpu><numa><cell id='0' cpus='0'/></numa></cpu>",
    "<numatune><memory mode='wild' nodeset='0'/></numatune>",
    "<memoryBacking><source type='tape'/></memoryBacking>", "<memoryBacking><access mode='open'/></memoryBacking>",
    "<cputune><vcpupin vcpu='0'/></cputune>", "<cputune><vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='0' cpuset='2'/></cputune>",
    "<cputune><period>10</period></cputune>", "<cputune><vcpusched vcpus='0' scheduler='lazy'/></cputune>",
    "<iothreadids><iothread id='0'/></iothreadids>", "<iothreadids><iothread id='1'/><iothread id='1'/></iothreadids>",
    "<sysinfo type='punchcard'/>",
    "<devices><emulator/><disk type='fil'><target dev='vda'/></disk></devices>",
    disks("<target dev='vda'/>", "<target dev='vda'/>"), disks("<target dev='qqa' bus='virtio'/>"),
    disks("<target dev='vda' bus='teapot'/>"), disks("<target dev='vda'/><driver cache='writebak'/>"),
    disks("<target dev='vda'/><driver io='psychic'/>"), disks("<target dev='vda'/><driver type='docx'/>"),
    disks("<target dev='vda'/><boot order='0'/>"), disks("<target dev='vda'/><boot order='1'/>", "<target dev='vdb'/><boot order='1'/>"),
    disks("<target dev='vda'/><iotune><total_iops_sec>5</total_iops_sec><read_iops_sec>1</read_iops_sec></iotune>"),
    disks("<target dev='vda'/><address type='pci' slot='0x40'/>"), disks("<target dev='vda'/><address type='cloud'/>"),
    disks("<target dev='vda'/><address type='pci' slot='3' function='8'/>"),
    disks("<target dev='sda' bus='scsi'/><address type='drive' unit='1'/>", "<target dev='sdb' bus='scsi'/><address type='drive' unit='1'/>"),
    "<devices><disk device='lun'><source file='/a'/><target dev='sda'/></disk></devices>",
    "<devices><disk device='floppy'><target dev='fda' bus='virtio'/></disk></devices>",
    "<devices><disk type='network'><source name='x'/><target dev='vda'/></disk></devices>",
    "<devices><disk type='network'><source protocol='carrier-pigeon' name='x'/><target dev='vda'/></disk></devices>",
    "<devices><interface type='pigeon'/></devices>",
    "<devices><interface type='bridge'/></devices>", "<devices><interface type='network'><source/></interface></devices>",
    "<devices><interface type='direct'/></devices>",
    "<devices><interface type='user'><mac address='52:54:00:00:00'/></interface></devices>",
    "<devices><interface type='user'><mac address='52:54:00:00:00:zz'/></interface></devices>",
    "<devices><interface type='user'><mac address='01:54:00:00:00:01'/></interface></devices>",
    "<devices><interface type='user'><link state='sideways'/></interface></devices>",
    "<devices><interface type='mcast'><source address='230.0.0.1'/></interface></devices>",
    "<devices><serial type='quill'/></devices>", "<devices><serial type='file'/></devices>",
    "<devices><serial type='unix'><source mode='bind' path='/s'><reconnect enabled='yes' timeout='1'/></source></serial></devices>",
    "<devices><serial type='tcp'><source mode='bind'/></serial></devices>",
    "<devices><channel type='unix'/></devices>", "<devices><channel type='unix'><target type='pipe'/></channel></devices>",
    "<devices><channel type='pty'><target type='guestfwd' port='1'/></channel></devices>",
    "<devices><graphics type='oil'/></devices>", "<devices><graphics type='vnc' port='x'/></devices>",
    "<devices><graphics type='vnc'><listen type='ear'/></graphics></devices>",
    "<devices><graphics type='spice'><image compression='total'/></graphics></devices>",
    "<devices><video><model type='film'/></video></devices>", "<devices><sound model='harp'/></devices>", "<devices><sound/></devices>",
    "<devices><input type='nose'/></devices>", "<devices><input type='mouse' bus='yellow'/></devices>",
    "<devices><hub type='train'/></devices>",
    "<devices><redirdev bus='pci' type='tcp'/></devices>", "<devices><controller type='scsi' index='-1'/></devices>",
    "<devices><controller type='scsi' index='0'/><controller type='scsi' index='0'/></devices>",
    "<devices><controller type='remote'/></devices>", "<devices><controller type='pci' model='moebius'/></devices>",
    "<devices><hostdev mode='subsystem' type='pci'/></devices>", "<devices><hostdev mode='subsystem' type='unicorn'/></devices>",
    "<devices><hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='1'/></source></hostdev></devices>",
    "<devices><filesystem type='mount'><target dir='x'/></filesystem></devices>",
    "<devices><filesystem type='mount'><source dir='/x'/></filesystem></devices>",
    "<devices><memory model='core'><target><size>1024</size></target></memory></devices>",
    "<devices><memballoon model='helium'/></devices>", "<devices><memballoon/></devices>", "<devices><rng model='virtio'/></devices>",
    "<devices><rng model='virtio'><backend model='dice'/></rng></devices>",
    "<devices><watchdog model='rex'/></devices>", "<devices><watchdog model='i6300esb' action='bark'/></devices>",
    "<devices><panic model='calm'/></devices>", "<devices><tpm><backend type='paper'/></tpm></devices>", "<devices><tpm/></devices>",
    "<devices><shmem/></devices>", "<devices><vsock model='virtio'><cid address='2'/></vsock></devices>",
    "<devices><iommu model='none'/></devices>", "<devices><smartcard mode='golf'/></devices>",
    "<launchSecurity type='sev'/>", "<keywrap><cipher name='rot13' state='on'/></keywrap>",
]


def test_refuses():
    """Both refuse each of these. (Not "<vcpu>-1</vcpu>", which 9.0.0 dies of.)"""
    lib, connection = libvirt_test()
    ours = define([f"<domain type='kvm'>{HEAD.format(arch='x86_64')}{part}</domain>" for part in REFUSED])
    wrong = []
    for part, answer in zip(REFUSED, ours):
        if answer.startswith("<domain"):
            wrong.append(f"taken by us: {part}")
        if taken_by_libvirt(lib, connection, f"<domain type='test'>{HEAD.format(arch='i686')}{part}</domain>") is None:
            wrong.append(f"taken by libvirt: {part}")
    assert not wrong, "\n".join(wrong)


def test_hostile():
    """Large and strange texts get a sentence, soon, and little memory."""
    texts = [
        "<domain>" * 100000,
        "<domain>" + "<a/>" * 1000000 + "</domain>",
        "<domain type='kvm'>" + "<name>x</name>" * 60000 + "</domain>",
        "<domain type='kvm'>" + HEAD.format(arch="x86_64") + "<devices>" + "<disk/>" * 30000 + "</devices></domain>",
        "<domain type='kvm'>" + HEAD.format(arch="x86_64") + "<devices>" + "<interface type='user'/>" * 3000 + "</devices></domain>",
        "<domain type='kvm'>" + HEAD.format(arch="x86_64") + "<description>" + "x" * (10 << 20) + "</description></domain>",
        "<!DOCTYPE d [<!ENTITY a 'aaaa'>]><domain>&a;</domain>",
        "<domain type='" + "k" * 1000000 + "'/>",
        "<domain type='kvm'><name>" + "n" * 1000000 + "</name><memory>1</memory><os><type>hvm</type></os></domain>",
    ]
    for text in texts:
        answer, = define([text])
        assert not answer.startswith("<domain"), answer[:200]
        assert len(answer) < 1000, answer[:1000]


def write():
    for name, text in zip(EXAMPLES, outputs()):
        with open(os.path.join(GOLDEN, name + ".out"), "w", encoding="utf-8") as f:
            f.write(text)


if "--write" in sys.argv:
    write()
else:
    tap.run({"examples become what they should": test_golden, "texts define again to themselves": test_again,
             "texts are valid by libvirt's schemas": test_schema, "libvirt takes the examples": test_takes,
             "libvirt refuses what we refuse": test_refuses, "hostile texts": test_hostile})
