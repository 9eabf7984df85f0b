#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Records calls and replies that no daemon makes here without hardware, a guest's agent or another host: libvirt's own client
calls, this answers with bytes made by hand, and they count when the client understood them as they were meant.

Usage: record_forged.py, as root; adds to wire.txt what it lacks. Events are told in the same way.
"""
import os
import socket
import struct
import sys
import tempfile
import threading

import libvirt
import libvirt_qemu
import record

REMOTE, QEMU = 0x20008086, 0x20008087
UUID_TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"
MAC = "52:54:00:01:02:03"
FORGED, ASKED, CLIENTS, WRONG = {}, [], [], []
REFUSED_FEATURES = set()
ANY = object()
GIVES_A_DESCRIPTOR = 343


# ---- XDR ----

def i32(*values):
    return b"".join(struct.pack(">i", v) for v in values)


def u64(*values):
    return b"".join(struct.pack(">Q", v) for v in values)


def text(s):
    data = s if isinstance(s, bytes) else s.encode()
    return i32(len(data)) + data + bytes(-len(data) % 4)


def maybe(data):
    return i32(0) if data is None else i32(1) + data


def listed(items):
    return i32(len(items)) + b"".join(items)


UUID = bytes(range(16))
DOMAIN = text("golden") + UUID + i32(7)
OTHER = text("golden") + UUID  # a network, pool, filter
DEVICE = text("golden")
INTERFACE = text("golden") + text(MAC)
SECRET = UUID + i32(2) + text("golden")
PORT = OTHER + UUID
BINDING = text("tap0") + text("golden")
TYPES = {"int": (1, i32), "uint": (2, lambda v: struct.pack(">I", v)), "llong": (3, lambda v: struct.pack(">q", v)), "ullong": (4, u64),
         "double": (5, lambda v: struct.pack(">d", v)), "boolean": (6, i32), "string": (7, text)}


def params(**fields):
    """name="type:value" """
    rows = []
    for name, value in fields.items():
        kind, plain = value
        number, pack = TYPES[kind]
        rows.append(text(name.replace("__", ".").replace("_DASH_", "-")) + i32(number) + pack(plain))
    return listed(rows)


# ---- the daemon that answers what it is told to ----

def send(sock, number, body, kind=1, serial=0, program=REMOTE, status=0):
    sock.sendall(struct.pack(">IIIIiIi", 28 + len(body), program, 1, number, kind, serial, status) + body)


def answers(number, body):
    """What any connection needs."""
    if number == 66:
        return listed([i32(0)])
    if number == 60:
        feature, = struct.unpack(">i", body[:4])
        return i32(0 if feature in REFUSED_FEATURES else 1)
    if number == 3:
        return text("QEMU")
    if number == 110:
        return text("qemu:///system")
    if number in (1, 2, 360, 361):
        return b""
    return None


def serve(sock):
    CLIENTS.append(sock)
    buffer, behind = b"", 0  # a byte for each descriptor stands behind its message
    while True:
        data, fds, _, _ = socket.recv_fds(sock, 65536, 8)
        if not data:
            return
        for fd in fds:
            os.close(fd)
        buffer += data
        while True:
            skipped = min(behind, len(buffer))
            buffer, behind = buffer[skipped:], behind - skipped
            if len(buffer) < 28:
                break
            length, program, _, number, kind, serial, status = struct.unpack(">IIIIiIi", buffer[:28])
            if len(buffer) < length:
                break
            message, buffer = buffer[:length], buffer[length:]
            if kind == 4:
                behind, = struct.unpack(">I", message[28:32])
            if kind == 3:  # a stream is ended by who began it
                send(sock, number, b"", 3, serial, program)
                continue
            record.note_message(message)
            reply = FORGED.get((program, number))
            if isinstance(reply, list):
                reply = reply.pop(0) if len(reply) > 1 else reply[0]
            if reply is None:
                reply = answers(number, message[28:])
            ASKED.append((program, number))
            if reply is None:
                WRONG.append(f"nobody forged procedure {number} of {program:x}")
                reply = i32(3, 7) + maybe(text("not forged")) + i32(2, 0, 0, 0, 0, -1, -1, 0)
                send(sock, number, reply, 1, serial, program, 1)
                continue
            if number == GIVES_A_DESCRIPTOR:
                send(sock, number, i32(1) + reply, 5, serial, program)
                socket.send_fds(sock, [b"\0"], [sock.fileno()])
                continue
            send(sock, number, reply, 1, serial, program)


def ask(number, call, reply=b"", want=ANY, program=REMOTE):
    """The call is made, answered with `reply` (of a list: one after the other), and gives `want` (or what it says of it is true)."""
    FORGED[(program, number)] = reply
    last = reply[-1] if isinstance(reply, list) else reply
    del ASKED[:]
    try:
        got = call()
    except Exception as error:  # whatever a client raises is a finding
        WRONG.append(f"{number}: {type(error).__name__}: {error}")
        return None
    if (program, number) not in ASKED:
        WRONG.append(f"{number} was not asked, but {ASKED}")
    elif want is not ANY and not (want(got) if callable(want) else got == want):
        WRONG.append(f"{number}: the client read {got!r}, not {want!r}")
    elif last and not needs_all(number, call, last, program):
        WRONG.append(f"{number}: the client takes a reply without its last word, too")
    else:
        record.note(program, number, "reply", last)
    return got


def needs_all(number, call, reply, program):
    """Not so when the client has kept the first answer, or is not asked twice."""
    FORGED[(program, number)] = reply[:-4]
    del ASKED[:]
    try:
        return call() is None or (program, number) not in ASKED
    except libvirt.libvirtError:
        return True
    finally:
        FORGED[(program, number)] = reply


# ---- what is asked ----

SCHEDULER = params(cpu_shares=("ullong", 1024), vcpu_quota=("llong", -1))
# What a client asks on its way to something else: how many there are, which kind, how large.
FORGED_ON_THE_WAY = {50: i32(2), 73: i32(2), 178: i32(2), 293: text(b"\3") + i32(2, 2), 56: text("posix") + i32(2), 57: SCHEDULER, 223: SCHEDULER,
                     212: i32(1, 1), 16: i32(1) + u64(65536, 65536) + i32(2) + u64(9)}


def hosts(c):
    for number, call in ((36, c.listDefinedNetworks), (74, c.listDefinedStoragePools), (179, c.listNWFilters)):
        ask(number, call, listed([text("a"), text("bcd")]), ["a", "bcd"])
    for number, call in ((7, c.getCapabilities), (162, lambda: c.baselineCPU(["<cpu/>"], 0)),
                         (342, lambda: c.getDomainCapabilities(None, "x86_64", None, "kvm", 0)),
                         (394, lambda: c.baselineHypervisorCPU(None, "x86_64", None, "kvm", ["<cpu/>"], 0)),
                         (75, lambda: c.findStoragePoolSources("logical", "<source/>", 0)),
                         (136, lambda: c.domainXMLToNative("qemu-argv", "<domain/>", 0)), (403, lambda: c.getStoragePoolCapabilities(0))):
        ask(number, call, text("<told/>"), "<told/>")
    ask(393, lambda: c.compareHypervisorCPU(None, "x86_64", None, "kvm", "<cpu/>", 0), i32(2), 2)
    ask(347, lambda: c.allocPages({2048: 3, 1048576: 1}, 0, 1, 0), i32(4), 4)
    tuned = params(shm_pages_to_scan=("uint", 100), shm_full_scans=("ullong", 1 << 33))
    ask(289, c.getMemoryParameters, [i32(0, 2), tuned + i32(0)], {"shm_pages_to_scan": 100, "shm_full_scans": 1 << 33})
    FORGED[(REMOTE, 289)] = [i32(0, 2), tuned + i32(0)]
    ask(288, lambda: c.setMemoryParameters({"shm_pages_to_scan": 200}))


def interfaces(c):
    i = ask(128, lambda: c.interfaceLookupByName("golden"), INTERFACE, lambda i: (i.name(), i.MACString()) == ("golden", MAC))
    ask(129, lambda: c.interfaceLookupByMACString(MAC), INTERFACE, lambda i: i.name() == "golden")
    ask(131, lambda: c.interfaceDefineXML("<interface/>", 0), INTERFACE, lambda i: i.name() == "golden")
    ask(130, lambda: i.XMLDesc(0), text("<interface/>"), "<interface/>")
    ask(156, i.isActive, i32(1), 1)
    for number, call in ((133, lambda: i.create(0)), (134, lambda: i.destroy(0)), (132, i.undefine), (220, lambda: c.changeBegin(0)),
                         (221, lambda: c.changeCommit(0)), (222, lambda: c.changeRollback(0))):
        ask(number, call)


def node_devices(c):
    d = ask(113, lambda: c.nodeDeviceLookupByName("golden"), DEVICE, lambda d: d.name() == "golden")
    ask(297, lambda: c.nodeDeviceLookupSCSIHostByWWN("2000", "1000", 0), DEVICE, lambda d: d.name() == "golden")
    ask(123, lambda: c.nodeDeviceCreateXML("<device/>", 0), DEVICE, lambda d: d.name() == "golden")
    ask(428, lambda: c.nodeDeviceDefineXML("<device/>", 0), DEVICE, lambda d: d.name() == "golden")
    ask(114, lambda: d.XMLDesc(0), text("<device/>"), "<device/>")
    ask(115, d.parent, maybe(text("computer")), "computer")
    FORGED[(REMOTE, 116)] = i32(2)
    ask(117, d.listCaps, listed([text("pci"), text("net")]), ["pci", "net"])
    ask(116, d.numOfCaps, i32(2), 2)
    ask(433, d.autostart, i32(1), 1)
    ask(435, d.isPersistent, i32(1), 1)
    ask(436, d.isActive, i32(1), 1)
    for number, call in ((434, lambda: d.setAutostart(1)), (430, lambda: d.create(0)), (429, lambda: d.undefine(0)), (118, d.dettach),
                         (301, lambda: d.detachFlags("vfio", 0)), (119, d.reAttach), (120, d.reset), (124, d.destroy)):
        ask(number, call)


def filters_and_networks(c):
    ask(176, lambda: c.nwfilterLookupByUUID(UUID), OTHER, lambda f: (f.name(), f.UUID()) == ("golden", UUID))
    ask(180, lambda: c.nwfilterDefineXML("<filter/>"), OTHER, lambda f: f.name() == "golden")
    b = ask(397, lambda: c.nwfilterBindingLookupByPortDev("tap0"), BINDING, lambda b: (b.portDev(), b.filterName()) == ("tap0", "golden"))
    ask(399, lambda: c.nwfilterBindingCreateXML("<filterbinding/>", 0), BINDING, lambda b: b.portDev() == "tap0")
    ask(398, lambda: b.XMLDesc(0), text("<filterbinding/>"), "<filterbinding/>")
    ask(400, b.delete)
    n = ask(41, lambda: c.networkDefineXML("<network/>"), OTHER, lambda n: (n.name(), n.UUID()) == ("golden", UUID))
    p = ask(405, lambda: n.portLookupByUUID(UUID), PORT, lambda p: p.UUID() == UUID)
    limits = params(inbound__average=("uint", 5), outbound__burst=("uint", 9))
    ask(407, lambda: p.parameters(0), limits + i32(2), {"inbound.average": 5, "outbound.burst": 9})
    ask(408, lambda: p.setParameters({"inbound.average": 7}, 0))


def storage(c):
    pool = ask(391, lambda: c.storagePoolLookupByTargetPath("/tmp"), OTHER, lambda p: (p.name(), p.UUID()) == ("golden", UUID))
    FORGED[(REMOTE, 95)] = text("golden") + text("v") + text("/tmp/v")
    v = pool.storageVolLookupByName("v")
    ask(165, lambda: v.wipe(0))


def quiet_calls(c, d):
    """What answers nothing."""
    disk = "<disk/>"
    for number, call in (
            (164, d.abortJob), (442, lambda: d.abortJobFlags(1)), (355, lambda: d.addIOThread(2, 1)), (356, lambda: d.delIOThread(2, 1)),
            (352, lambda: d.pinIOThread(1, (True, False), 1)), (402, lambda: d.setIOThreadParams(1, {"poll_max_ns": 5}, 1)), (8, lambda: d.attachDevice(disk)),
            (160, lambda: d.attachDeviceFlags(disk, 1)), (13, lambda: d.detachDevice(disk)), (392, lambda: d.detachDeviceAlias("net0", 1)), (161, lambda: d.detachDeviceFlags(disk, 1)),
            (174, lambda: d.updateDeviceFlags(disk, 1)), (290, lambda: d.blockCommit("vda", None, "/tmp/top", 5, 4)),
            (345, lambda: d.blockCopy("vda", disk, {"granularity": 65536}, 1)), (237, lambda: d.blockJobAbort("vda", 1)),
            (239, lambda: d.blockJobSetSpeed("vda", 9, 0)), (240, lambda: d.blockPull("vda", 9, 0)), (266, lambda: d.blockRebase("vda", "/tmp/base", 9, 0)),
            (251, lambda: d.blockResize("vda", 1 << 30, 1)), (334, lambda: d.coreDumpWithFormat("/tmp/core", 0, 16)), (234, lambda: d.destroyFlags(1)),
            (294, lambda: d.fSTrim(None, 4096, 0)), (210, lambda: d.injectNMI(0)), (389, lambda: d.managedSaveDefineXML("<domain/>", 1)),
            (300, lambda: d.migrateSetCompressionCache(1 << 26, 0)), (166, lambda: d.migrateSetMaxDowntime(300, 0)), (207, lambda: d.migrateSetMaxSpeed(100, 0)),
            (364, lambda: d.migrateStartPostCopy(0)), (26, lambda: d.pinVcpu(1, (True, False))), (261, lambda: d.pMSuspendForDuration(1, 0, 0)),
            (267, lambda: d.pMWakeup(0)), (27, lambda: d.reboot(1)), (245, lambda: d.reset(0)), (233, lambda: c.restoreFlags("/tmp/s", "<domain/>", 2)),
            (441, lambda: c.restoreParams({"file": "/tmp/s", "xml": "<domain/>"}, 0)), (232, lambda: d.saveFlags("/tmp/s", "<domain/>", 2)),
            (440, lambda: d.saveParams({"file": "/tmp/s"}, 0)), (236, lambda: c.saveImageDefineXML("/tmp/s", "<domain/>", 2)),
            (386, lambda: d.setBlockThreshold("vda[1]", 1 << 40, 0)), (372, lambda: d.setGuestVcpus("1-3", 0, 0)), (390, lambda: d.setLifecycleAction(1, 2, 3)),
            (31, lambda: d.setMemory(1 << 20)), (308, lambda: d.setMemoryStatsPeriod(5, 1)), (58, lambda: d.setSchedulerParameters({"cpu_shares": 9})),
            (219, lambda: d.setSchedulerParametersFlags({"vcpu_quota": 9}, 1)), (338, lambda: d.setTime({"seconds": 1 << 33, "nseconds": 5}, 0)),
            (357, lambda: d.setUserPassword("root", "x", 1)), (384, lambda: d.setVcpu("1-2,4", 0, 1)), (32, lambda: d.setVcpus(2)),
            (258, lambda: d.shutdownFlags(2)), (35, d.undefine), (425, lambda: d.authorizedSSHKeysSet("root", ["a key", "b"], 1))):
        ask(number, call)
    ask(226, lambda: d.sendKey(0, 100, [29, 56, 111], 3, 0))
    ask(GIVES_A_DESCRIPTOR, lambda: os.close(d.openGraphicsFD(0, 1)))
    with socket.socket(socket.AF_UNIX) as f:
        ask(249, lambda: d.openGraphics(0, f.fileno(), 1))
    stream = c.newStream(0)
    ask(211, lambda: d.screenshot(stream, 0, 0), maybe(text("image/png")), "image/png")
    stream.abort()
    for number, call in ((296, d.openChannel), (201, d.openConsole)):
        stream = c.newStream(0)
        ask(number, lambda call=call, stream=stream: call("serial0", stream, 1))
        stream.abort()


def told_calls(c, d):
    ask(420, lambda: d.agentSetResponseTimeout(5, 0), i32(0), 0)
    ask(424, lambda: d.authorizedSSHKeysGet("root", 0), listed([text("a key"), text("b")]), ["a key", "b"])
    ask(103, lambda: d.blockPeek("vda", 512, 4, 0), text(b"\1\2\3\4"), b"\1\2\3\4")
    ask(104, lambda: d.memoryPeek(4096, 3, 2), text(b"\1\2\3"), b"\1\2\3")
    ask(196, lambda: d.createWithFlags(1), DOMAIN)
    ask(335, lambda: d.fsFreeze(["/", "/home"], 0), i32(2), 2)
    ask(336, lambda: d.fsThaw(None, 0), i32(2), 2)
    ask(238, lambda: d.blockJobInfo("vda", 1), i32(1, 2) + u64(1 << 20, 5, 9), {"type": 2, "bandwidth": 1 << 20, "cur": 5, "end": 9})
    ask(238, lambda: d.blockJobInfo("vdb", 1), i32(0, 0) + u64(0, 0, 0), lambda got: not got)
    for number, call, name in ((418, lambda: d.guestInfo(0, 0), "hostname"), (396, lambda: d.launchSecurityInfo(0), "sev-measurement")):
        row = listed([text(name) + i32(7) + text("golden")])
        ask(number, call, row, {name: "golden"})
    vcpus = params(vcpus=("string", "0-1"), online=("string", "0"), offlinable=("string", "1"))
    ask(371, lambda: d.guestVcpus(0), vcpus, {"vcpus": "0-1", "online": "0", "offlinable": "1"})
    ask(163, d.jobInfo, i32(2) + u64(*range(1, 12)), [2, *range(1, 12)])
    ask(298, lambda: d.jobStats(0), i32(2) + params(time_elapsed=("ullong", 9), memory_total=("ullong", 1 << 34), operation=("int", 5)),
        lambda got: (got["time_elapsed"], got["memory_total"], got["operation"]) == (9, 1 << 34, 5))
    ask(265, lambda: d.metadata(0, None, 1), text("words"), "words")
    ask(388, lambda: d.managedSaveGetXMLDesc(0), text("<domain/>"), "<domain/>")
    ask(223, lambda: d.schedulerParametersFlags(1), SCHEDULER, {"cpu_shares": 1024, "vcpu_quota": -1})
    stats = params(rd_bytes=("llong", 5), wr_operations=("llong", 6))
    ask(243, lambda: d.blockStatsFlags("vda", 0), [i32(0, 2), stats + i32(0)], {"rd_bytes": 5, "wr_operations": 6})
    ask(65, lambda: d.interfaceStats("vnet0"), struct.pack(">8q", *range(8)), tuple(range(8)))
    ask(299, lambda: d.migrateGetCompressionCache(0), u64(1 << 26), 1 << 26)
    ask(387, lambda: d.migrateGetMaxDowntime(0), u64(300), 300)
    ask(242, lambda: d.migrateGetMaxSpeed(0), u64(8796093022207), 8796093022207)
    FORGED[(REMOTE, 187)] = i32(2)
    ask(188, lambda: d.snapshotListNames(0), listed([text("s1"), text("s2")]), ["s1", "s2"])


def monitors(c, d):
    ask(1, lambda: libvirt_qemu.qemuMonitorCommand(d, "info name", 1), text("golden"), "golden", QEMU)
    ask(3, lambda: libvirt_qemu.qemuAgentCommand(d, "{}", 5, 0), maybe(text("{}")), "{}", QEMU)
    with tempfile.TemporaryFile() as f:
        ask(7, lambda: libvirt_qemu.qemuMonitorCommandWithFiles(d, "{}", [f.fileno()], 0), text("{}"), lambda got: got[0] == "{}", QEMU)
    got = ask(4, lambda: libvirt_qemu.qemuMonitorEventRegister(c, d, "STOP", lambda *_: None, None, 1), i32(5), program=QEMU)
    ask(5, lambda: libvirt_qemu.qemuMonitorEventDeregister(c, got), program=QEMU)


def migrations(c, d, other):
    """Each phase with parameters, and without; the cookies are the phases' names."""
    def phases(base):
        FORGED.update({(REMOTE, base): text(b"begun") + text("<domain/>"), (REMOTE, base + 1): text(b"prepared") + maybe(text("tcp:there:49152")),
                       (REMOTE, base + 3): text(b"performed"), (REMOTE, base + 4): DOMAIN + text(b"finished"), (REMOTE, base + 5): b""})
        return [(base + n) for n in (0, 1, 3, 4, 5)]

    FORGED[(REMOTE, 23)] = FORGED[(REMOTE, 24)] = DOMAIN
    for base, call in ((302, lambda: d.migrate3(other, {"destination_name": "golden", "bandwidth": 9, "migrate_disks": ["vda", "vdb"]}, 1)),
                       (213, lambda: d.migrate2(other, None, 1, "golden", None, 9))):
        del ASKED[:]
        REFUSED_FEATURES.clear()
        if base == 213:
            REFUSED_FEATURES.add(13)
        if base == 302:
            numbers = [302, 303, 305, 306, 307]
            FORGED.update({(REMOTE, 302): text(b"begun") + text("<domain/>"), (REMOTE, 303): text(b"prepared") + maybe(text("tcp:there:49152")),
                           (REMOTE, 305): text(b"performed"), (REMOTE, 306): DOMAIN + text(b"finished"), (REMOTE, 307): b""})
        else:
            numbers = phases(213)
        try:
            moved = call()
        except libvirt.libvirtError as error:
            WRONG.append(f"migration {base}: {error}; {ASKED}")
            continue
        asked = [n for _, n in ASKED if n in numbers]
        if asked != numbers or moved.ID() != 7 or moved.name() != "golden":
            WRONG.append(f"migration {base}: {asked}")
        for number in numbers:
            record.note(REMOTE, number, "reply", FORGED[(REMOTE, number)])


# ---- events ----

def told(callbacks, number, body, fields, where, program=REMOTE):
    """An event is sent; what the callback got."""
    got = []
    callbacks.append(got)
    send(CLIENTS[where], number, body, 2, 0 if where is None else 1, program)
    for _ in range(100):
        if got:
            break
        WAKE.wait(0.01)
    callbacks.remove(got)
    WAKE.wait(0.05)  # the binding walks over its callbacks: none may go meanwhile
    if not got or got[0] != fields:
        WRONG.append(f"event {number}: the client read {got}, not {fields}")
    else:
        record.note(program, number, "message", body)


WAKE = threading.Event()
JOBS = params(operation=("int", 5), time_elapsed=("ullong", 12))
# The callback's id leads; the old messages have none. (event, procedure, old procedure, fields behind the domain, what is read)
DOMAIN_EVENTS = (
    (0, 318, 107, i32(4, 5), (4, 5)), (1, 319, 169, b"", ()), (2, 320, 170, u64(1 << 33), (1 << 33,)), (3, 321, 171, i32(3), (3,)),
    (4, 322, 172, text("/tmp/d") + text("virtio-disk0") + i32(1), ("/tmp/d", "virtio-disk0", 1)),
    (6, 324, 195, text("/tmp/d") + text("virtio-disk0") + i32(1) + text("enospc"), ("/tmp/d", "virtio-disk0", 1, "enospc")), (7, 325, 224, b"", ()),
    (8, 326, 241, text("/tmp/d") + i32(2, 3), ("/tmp/d", 2, 3)), (9, 327, 248, maybe(text("/tmp/old")) + maybe(None) + text("sata0") + i32(0), ("/tmp/old", None, "sata0", 0)),
    (10, 328, 268, text("sata0") + i32(1), ("sata0", 1)), (11, 329, 269, None, (0,)), (12, 330, 270, None, (0,)), (13, 331, 276, u64(65536), (65536,)),
    (14, 332, 292, None, (0,)), (15, 333, 311, text("net0"), ("net0",)), (16, 339, 0, text("vda") + i32(1, 0), ("vda", 1, 0)),
    (17, 346, 0, params(cputune__vcpupin0=("string", "0-3"), cputune__quota=("llong", -1)), ({"cputune.vcpupin0": "0-3", "cputune.quota": -1},)),
    (18, 348, 0, i32(1, 2), (1, 2)), (19, 354, 0, text("net0"), ("net0",)), (20, 359, 0, i32(3), (3,)), (21, 363, 0, JOBS, ({"operation": 5, "time_elapsed": 12},)),
    (22, 367, 0, text("net0"), ("net0",)), (23, 379, 0, i32(2) + maybe(text("urn:x")), (2, "urn:x")),
    (24, 385, 0, text("vda[1]") + maybe(text("/tmp/d")) + u64(9, 5), ("vda[1]", "/tmp/d", 9, 5)), (25, 423, 0, i32(1, 2, 3), (1, 2, 3)),
    (26, 438, 0, text("mem0") + u64(1 << 30), ("mem0", 1 << 30)))


def hear(callbacks, skip):
    def heard(*args):
        for got in callbacks:
            got.append(tuple(args[skip:-1]))
        WAKE.set()
        WAKE.clear()
    return heard


def domain_events(c, where, old):
    callbacks = []
    for event, number, old_number, body, fields in DOMAIN_EVENTS:
        if old and not old_number:
            continue
        if old:
            heard = hear(callbacks, 2)
            ident = ask(105 if not event else 167, (lambda h=heard: c.domainEventRegister(h, None)) if not event else (
                lambda e=event, h=heard: c.domainEventRegisterAny(None, e, h, None)), i32(1) if not event else b"")
        else:
            ident = ask(316, lambda e=event: c.domainEventRegisterAny(None, e, hear(callbacks, 2), None), i32(1000 + event))
        head = b"" if old else i32(1000 + event)
        behind = DOMAIN if body is None else DOMAIN + body
        if body is None:
            head += b"" if old else i32(0)
        told(callbacks, old_number if old else number, head + behind, fields, where)
        if old and event:
            ask(168, lambda i=ident: c.domainEventDeregisterAny(i))
        elif old:
            ask(106, lambda h=heard: c.domainEventDeregister(h), i32(0))
        else:
            ask(317, lambda i=ident: c.domainEventDeregisterAny(i))


def other_events(c, where, d):
    callbacks = []
    lifecycle = hear(callbacks, 2)
    for register, leave, unregister, number, event, message, obj, behind, fields in (
            (313, 314, c.networkEventDeregisterAny, 0, c.networkEventRegisterAny, 315, OTHER, i32(2, 0), (2, 0)),
            (368, 369, c.storagePoolEventDeregisterAny, 0, c.storagePoolEventRegisterAny, 370, OTHER, i32(2, 0), (2, 0)),
            (368, 369, c.storagePoolEventDeregisterAny, 1, c.storagePoolEventRegisterAny, 373, OTHER, b"", ()),
            (374, 375, c.nodeDeviceEventDeregisterAny, 0, c.nodeDeviceEventRegisterAny, 376, DEVICE, i32(1, 0), (1, 0)),
            (374, 375, c.nodeDeviceEventDeregisterAny, 1, c.nodeDeviceEventRegisterAny, 377, DEVICE, b"", ()),
            (380, 381, c.secretEventDeregisterAny, 0, c.secretEventRegisterAny, 382, SECRET, i32(1, 0), (1, 0)),
            (380, 381, c.secretEventDeregisterAny, 1, c.secretEventRegisterAny, 383, SECRET, b"", ())):
        ident = ask(register, lambda: event(None, number, lifecycle, None), i32(2000 + message))
        told(callbacks, message, i32(2000 + message) + obj + behind, fields, where)
        ask(leave, lambda: unregister(ident))
    ident = ask(4, lambda: libvirt_qemu.qemuMonitorEventRegister(c, d, "STOP", hear(callbacks, 2), None, 0), i32(3000), program=QEMU)
    told(callbacks, 6, i32(3000) + DOMAIN + text("STOP") + u64(1 << 33) + i32(7) + maybe(text("{}")), ("STOP", 1 << 33, 7, "{}"), where, QEMU)
    ask(5, lambda: libvirt_qemu.qemuMonitorEventDeregister(c, ident), program=QEMU)


def without_a_name():
    """Only who names no daemon at all asks which one it is: here, a user's own."""
    os.seteuid(65534)
    try:
        return libvirt.open(None).getURI()
    finally:
        os.seteuid(0)


def main():
    FORGED.update({(REMOTE, number): reply for number, reply in FORGED_ON_THE_WAY.items()})
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        listener = socket.socket(socket.AF_UNIX)
        os.chmod(folder, 0o755)
        os.environ.update(XDG_RUNTIME_DIR=folder, XDG_CONFIG_HOME=folder, XDG_CACHE_HOME=folder, HOME=folder)
        os.mkdir(os.path.join(folder, "libvirt"))
        os.chmod(os.path.join(folder, "libvirt"), 0o777)
        listener.bind(os.path.join(folder, "libvirt/libvirt-sock"))
        os.chmod(listener.getsockname(), 0o777)
        listener.listen(16)
        threading.Thread(target=lambda: [threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start() for _ in iter(int, 1)],
                         daemon=True).start()
        uri = f"qemu+unix:///system?socket={listener.getsockname()}"
        c, other = libvirt.open(uri), libvirt.open(uri)
        d = ask(23, lambda: c.lookupByName("golden"), DOMAIN, lambda d: (d.name(), d.UUID(), d.ID()) == ("golden", UUID, 7))
        for step in (lambda: hosts(c), lambda: interfaces(c), lambda: node_devices(c), lambda: filters_and_networks(c), lambda: storage(c),
                     lambda: quiet_calls(c, d), lambda: told_calls(c, d), lambda: monitors(c, d), lambda: migrations(c, d, other),
                     lambda: domain_events(c, 0, False), lambda: other_events(c, 0, d)):
            try:
                step()
            except (AttributeError, TypeError, OSError, libvirt.libvirtError) as error:
                WRONG.append(f"{type(error).__name__}: {error}, {error.__traceback__.tb_next.tb_next.tb_lineno}")
        REFUSED_FEATURES.add(14)
        old = libvirt.open(uri)
        ask(110, without_a_name, text("qemu:///system"), "qemu:///system")
        domain_events(old, 2, True)
    if WRONG:
        print("\n".join(WRONG), file=sys.stderr)
    record.write_golden(os.path.join(os.path.dirname(os.path.abspath(__file__)), "wire.txt"))
    return len(WRONG) > 0


sys.exit(main())
