#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Records what libvirt's own client and daemon say to each other, as golden bytes for our tables.

Usage: record.py SOCKET [URI...], with a libvirtd that listens on SOCKET (an unprivileged one will do); adds to wire.txt what
it lacks. Each line: program, procedure, "call", "reply", "message" or "error", payload in hex. A procedure appears with its
longest payload of at most 2 KB, or with the shortest.
"""
import os
import socket
import struct
import sys
import tempfile
import threading

import libvirt
import libvirt_qemu

SEEN = {}
MOST = 2048
KINDS = {0: "call", 1: "reply", 2: "message", 4: "call", 5: "reply"}


def rank(payload):
    """The longest that is short enough to be read, else the shortest."""
    return len(payload) if len(payload) <= MOST else -len(payload)


def note(program, number, kind, payload):
    key = (program, number, kind)
    if key not in SEEN or rank(SEEN[key]) <= rank(payload):
        SEEN[key] = payload


def note_message(data):
    _, program, _, number, kind, _, status = struct.unpack(">IIIIiIi", data[:28])
    body = data[32:] if kind in (4, 5) else data[28:]  # descriptors are counted in front of it
    if kind in KINDS and status == 0 and program != 0x6b656570:
        note(program, number, KINDS[kind], body)
    if kind == 1 and status == 1:
        note(program, 0, "error", body)


def pump(source, sink):
    """A descriptor goes on with the byte that it came with."""
    buffer = b""
    while True:
        data, fds, _, _ = socket.recv_fds(source, 65536, 8)
        if not data:
            break
        sink.sendall(data[:-1] if fds else data)
        if fds:
            socket.send_fds(sink, [data[-1:]], fds)
        for fd in fds:
            os.close(fd)
        buffer += data
        while len(buffer) >= 28:
            length, = struct.unpack(">I", buffer[:4])
            if len(buffer) < length:
                break
            note_message(buffer[:length])
            buffer = buffer[length:]
            if fds:
                buffer = b""  # the bytes of descriptors stand between messages
    sink.shutdown(socket.SHUT_WR)


def proxy(path, target):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)

    def serve():
        while True:
            client, _ = listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(target)
            for a, b in ((client, server), (server, client)):
                threading.Thread(target=pump, args=(a, b), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()


def write_golden(path, others=()):
    """Adds what was seen to a file of golden bytes: what it has stays, and what others have is left out."""
    lines, had = [], set()
    for name in (path, *others):
        if os.path.exists(name):
            with open(name, encoding="ascii") as f:
                known = [line.split() for line in f]
            had |= {(int(f[0], 16), int(f[1]), f[2]) for f in known}
            lines += [((int(f[0], 16), int(f[1]), f[2]), f[3]) for f in known if name == path]
    lines += [(key, payload.hex() or "-") for key, payload in SEEN.items() if key not in had]
    with open(path, "w", encoding="ascii") as out:
        for (program, number, kind), text in sorted(lines):
            out.write(f"{program:x} {number} {kind} {text}\n")


def attempt(*steps):
    """Each is tried; that it fails is an answer, too."""
    for step in steps:
        try:
            step()
        except (libvirt.libvirtError, LookupError, TypeError, ValueError, NotImplementedError, AttributeError) as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)


DOMAIN = """<domain type='{type}'><name>golden</name><uuid>00010203-0405-0607-0809-0a0b0c0d0e0f</uuid>
<memory unit='KiB'>65536</memory><vcpu>2</vcpu><os><type arch='x86_64'>hvm</type></os>
<devices><disk type='file' device='disk'><source file='/tmp/none'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><mac address='52:54:00:01:02:03'/></interface></devices></domain>"""
POOL = "<pool type='dir'><name>golden</name><target><path>/tmp/golden-pool</path></target></pool>"
VOLUME = "<volume><name>v1</name><capacity>1048576</capacity><target><format type='raw'/></target></volume>"


def connection(c):
    attempt(c.getType, c.getVersion, c.getLibVersion, c.getHostname, c.getURI, c.isSecure, c.isAlive, c.getInfo, c.getCapabilities,
            lambda: c.getMaxVcpus("kvm"), lambda: c.getMaxVcpus(None), lambda: c.getSysinfo(0), c.getFreeMemory,
            lambda: c.getCellsFreeMemory(0, 1), lambda: c.getCPUStats(-1, 0), lambda: c.getMemoryStats(-1, 0), lambda: c.getCPUMap(0),
            lambda: c.getFreePages([4], 0, 1, 0), lambda: c.getCPUModelNames("x86_64", 0), c.getSecurityModel,
            lambda: c.getDomainCapabilities(None, "x86_64", None, "qemu", 0), lambda: c.compareCPU("<cpu/>", 0),
            lambda: c.baselineCPU(["<cpu/>"], 0), lambda: c.compareHypervisorCPU(None, "x86_64", None, "kvm", "<cpu/>", 0),
            lambda: c.baselineHypervisorCPU(None, "x86_64", None, "kvm", ["<cpu/>"], 0),
            lambda: c.getStoragePoolCapabilities(0), lambda: c.findStoragePoolSources("dir", None, 0), lambda: c.setIdentity({}, 0))
    attempt(c.listDomainsID, c.numOfDomains, c.numOfDefinedDomains, c.listDefinedDomains, lambda: c.listAllDomains(0),
            c.listNetworks, c.numOfNetworks, c.numOfDefinedNetworks, c.listDefinedNetworks, lambda: c.listAllNetworks(0),
            c.listInterfaces, c.numOfInterfaces, c.numOfDefinedInterfaces, c.listDefinedInterfaces, lambda: c.listAllInterfaces(0),
            c.listStoragePools, c.numOfStoragePools, c.listDefinedStoragePools, c.numOfDefinedStoragePools,
            lambda: c.listAllStoragePools(0), c.listSecrets, c.numOfSecrets, lambda: c.listAllSecrets(0), c.listNWFilters,
            c.numOfNWFilters, lambda: c.listAllNWFilters(0), lambda: c.numOfDevices(None, 0), lambda: c.listDevices(None, 0),
            lambda: c.listAllDevices(0), lambda: c.listAllNWFilterBindings(0), lambda: c.networkLookupByName("nix"),
            lambda: c.networkLookupByUUIDString("00010203-0405-0607-0809-0a0b0c0d0e0f"), lambda: c.interfaceLookupByName("nix"),
            lambda: c.interfaceLookupByMACString("52:54:00:01:02:03"), lambda: c.nodeDeviceLookupByName("nix"),
            lambda: c.nwfilterLookupByName("nix"), lambda: c.secretLookupByUUIDString("00010203-0405-0607-0809-0a0b0c0d0e0f"),
            lambda: c.secretLookupByUsage(1, "nix"), lambda: c.getAllDomainStats(0, 0),
            lambda: c.nwfilterLookupByUUIDString("00010203-0405-0607-0809-0a0b0c0d0e0f"))


def domain_queries(c, d):
    attempt(d.info, d.state, d.XMLDesc, d.OSType, d.maxMemory, d.maxVcpus, d.vcpus, d.autostart, d.isActive, d.isPersistent,
            d.isUpdated, d.jobInfo, d.jobStats, d.controlInfo, d.schedulerType, d.schedulerParameters,
            lambda: d.schedulerParametersFlags(2), lambda: d.memoryParameters(0), lambda: d.blkioParameters(0),
            lambda: d.numaParameters(0), lambda: d.interfaceParameters("52:54:00:01:02:03", 0), lambda: d.blockIoTune("vda", 0),
            lambda: d.blockStats("vda"), lambda: d.blockStatsFlags("vda", 0), lambda: d.blockInfo("vda", 0), lambda: d.blockJobInfo("vda", 0),
            lambda: d.interfaceStats("vnet0"), d.memoryStats, lambda: d.getCPUStats(True, 0), lambda: d.getCPUStats(False, 0),
            lambda: d.diskErrors(0), lambda: d.hostname(0), lambda: d.getTime(0), lambda: d.fsInfo(0), lambda: d.guestInfo(0, 0),
            lambda: d.interfaceAddresses(1, 0), lambda: d.vcpusFlags(2), d.vcpuPinInfo, d.emulatorPinInfo, lambda: d.ioThreadInfo(0),
            d.securityLabel, d.securityLabelList, lambda: d.messages(0), lambda: d.metadata(1, None, 0), lambda: d.hasManagedSaveImage(0),
            lambda: d.hasCurrentSnapshot(0), lambda: d.snapshotNum(0), lambda: d.snapshotListNames(0), lambda: d.listAllSnapshots(0),
            lambda: d.listAllCheckpoints(0), lambda: d.snapshotLookupByName("nix", 0), lambda: d.snapshotCurrent(0),
            lambda: c.domainListGetStats([d], 0, 0), lambda: c.lookupByID(1), lambda: c.lookupByName("golden"), lambda: c.lookupByUUID(d.UUID()))


def domain_changes(d):
    attempt(lambda: d.setAutostart(1), lambda: d.setMemory(32768), lambda: d.setMaxMemory(65536), lambda: d.setMemoryFlags(65536, 2),
            lambda: d.setVcpus(1), lambda: d.setVcpusFlags(1, 2), lambda: d.pinVcpu(0, (True, False)), lambda: d.pinVcpuFlags(0, (True, False), 2),
            lambda: d.pinEmulator((True, False), 2), lambda: d.setSchedulerParameters({"cpu_shares": 2048}),
            lambda: d.setSchedulerParametersFlags({"cpu_shares": 2048}, 2), lambda: d.setMemoryParameters({"hard_limit": 99999}, 2),
            lambda: d.setBlkioParameters({"weight": 500}, 2), lambda: d.setNumaParameters({"numa_nodeset": "0"}, 2),
            lambda: d.setInterfaceParameters("52:54:00:01:02:03", {"inbound.average": 100}, 2), lambda: d.setBlockIoTune("vda", {"total_bytes_sec": 1}, 2),
            lambda: d.setMetadata(0, "text", None, None, 2), lambda: d.setMetadata(2, "<a/>", "k", "urn:x", 2), lambda: d.attachDevice("<disk/>"),
            lambda: d.attachDeviceFlags("<disk/>", 2), lambda: d.detachDevice("<disk/>"), lambda: d.detachDeviceFlags("<disk/>", 2),
            lambda: d.updateDeviceFlags("<disk/>", 2), lambda: d.rename("other", 0), lambda: d.rename("golden", 0), lambda: d.blockResize("vda", 1024, 0),
            lambda: d.injectNMI(0), lambda: d.setTime(0, {"seconds": 1, "nseconds": 2}), lambda: d.fsFreeze(["/"], 0), lambda: d.fsThaw(["/"], 0),
            lambda: d.fSTrim("/", 1, 0), lambda: d.setUserPassword("root", "x", 0), lambda: d.abortJob(), lambda: d.create(),
            lambda: d.createWithFlags(1), d.suspend, d.resume, d.shutdown, lambda: d.shutdownFlags(0), lambda: d.reboot(0), lambda: d.reset(0),
            d.destroy, lambda: d.destroyFlags(0), lambda: libvirt_qemu.qemuMonitorCommand(d, "info version", 1),
            lambda: libvirt_qemu.qemuAgentCommand(d, "{}", -1, 0))


def saving(c, d):
    """Saves, restores, cores, and jobs on disks."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "saved")
        attempt(d.create, lambda: d.save(path), lambda: c.saveImageGetXMLDesc(path, 0), lambda: c.saveImageDefineXML(path, "<domain/>", 0),
                lambda: c.restore(path), lambda: d.saveFlags(path, "<domain/>", 2), lambda: d.saveFlags(path, None, 2),
                lambda: c.restoreFlags(path, "<domain/>", 2), lambda: c.restoreFlags(path, None, 2), lambda: d.saveParams({"file": path}, 2),
                lambda: c.restoreParams({"file": path}, 2), d.create, lambda: d.managedSave(0), lambda: d.hasManagedSaveImage(0),
                lambda: d.managedSaveGetXMLDesc(0), lambda: d.managedSaveDefineXML("<domain/>", 2), lambda: d.managedSaveRemove(0), d.create,
                lambda: d.coreDump(path, 1), lambda: d.coreDumpWithFormat(path, 3, 16), lambda: d.blockPeek("vda", 0, 16), lambda: d.memoryPeek(0, 16, 2))
    attempt(lambda: d.blockPull("vda", 1), lambda: d.blockRebase("vda", "/tmp/base", 1, 0), lambda: d.blockRebase("vda", None, 1, 1),
            lambda: d.blockCommit("vda", "/tmp/base", "/tmp/top", 1, 2), lambda: d.blockCommit("vda"), lambda: d.blockCopy("vda", "<disk/>", {"bandwidth": 1}, 2),
            lambda: d.blockJobInfo("vda", 1), lambda: d.blockJobSetSpeed("vda", 1, 1), lambda: d.blockJobAbort("vda", 2), lambda: d.migrateSetMaxSpeed(1, 0),
            lambda: d.migrateGetMaxSpeed(0), lambda: d.jobInfo(), lambda: d.jobStats(1), d.abortJob, d.destroy)


def storage(c):
    os.makedirs("/tmp/golden-pool", exist_ok=True)
    os.chmod("/tmp/golden-pool", 0o777)
    attempt(lambda: c.storagePoolCreateXML(POOL, 0).destroy(), lambda: c.storagePoolDefineXML(POOL, 0))
    pool = c.storagePoolLookupByName("golden")
    attempt(lambda: pool.build(0), lambda: pool.create(0), lambda: pool.refresh(0), lambda: pool.XMLDesc(0), pool.info, pool.autostart,
            lambda: pool.setAutostart(1), pool.isActive, pool.isPersistent, pool.numOfVolumes, lambda: pool.createXML(VOLUME, 0), pool.listVolumes,
            lambda: pool.listAllVolumes(0), lambda: c.storagePoolLookupByUUID(pool.UUID()), lambda: c.storagePoolLookupByTargetPath("/tmp/golden-pool"))
    volume = pool.storageVolLookupByName("v1")
    attempt(volume.info, lambda: volume.infoFlags(1), volume.path, lambda: volume.XMLDesc(0), lambda: volume.resize(2097152, 0),
            lambda: volume.storagePoolLookupByVolume(), lambda: c.storageVolLookupByPath(volume.path()), lambda: c.storageVolLookupByKey(volume.key()),
            lambda: pool.createXMLFrom(VOLUME.replace("v1", "v2"), volume, 0), lambda: volume.wipe(0), lambda: volume.wipePattern(1, 0))
    for call in ("upload", "download"):
        stream = c.newStream(0)
        attempt(lambda: getattr(volume, call)(stream, 0, 512, 0), stream.abort)
    attempt(lambda: volume.delete(0), pool.destroy, lambda: pool.delete(0), pool.undefine)


def events(c):
    def nothing(*_):
        pass
    ids = []
    for event in range(27):
        attempt(lambda: ids.append(c.domainEventRegisterAny(None, event, nothing, None)))
    attempt(lambda: c.networkEventRegisterAny(None, 0, nothing, None), lambda: c.storagePoolEventRegisterAny(None, 0, nothing, None),
            lambda: c.storagePoolEventRegisterAny(None, 1, nothing, None), lambda: c.nodeDeviceEventRegisterAny(None, 0, nothing, None),
            lambda: c.secretEventRegisterAny(None, 0, nothing, None), lambda: c.registerCloseCallback(nothing, None))
    return ids


def secrets(c):
    s = c.secretDefineXML("<secret><uuid>00010203-0405-0607-0809-0a0b0c0d0e0f</uuid><usage type='ceph'><name>golden</name></usage></secret>", 0)
    attempt(lambda: s.setValue(b"golden"), s.value, lambda: s.XMLDesc(0), c.listSecrets, c.numOfSecrets, lambda: c.listAllSecrets(0),
            lambda: c.secretLookupByUsage(2, "golden"), lambda: c.secretLookupByUUID(s.UUID()),
            lambda: c.secretEventRegisterAny(s, 0, lambda *_: None, None), s.undefine)


def session(uri, path):
    c = libvirt.open(uri.replace("://", "+unix://", 1) + f"?socket={path}")
    if uri.startswith("secret"):
        secrets(c)
        return
    ids = events(c)
    connection(c)
    d = c.defineXML(DOMAIN.format(type=uri.split(":")[0]))
    attempt(lambda: c.domainEventRegisterAny(d, 0, lambda *_: None, None))
    domain_queries(c, d)
    domain_changes(d)
    domain_queries(c, d)
    saving(c, d)
    attempt(lambda: c.defineXMLFlags(DOMAIN.format(type=uri.split(":")[0]), 1), lambda: c.createXML(DOMAIN.format(type=uri.split(":")[0]), 0),
            lambda: d.openConsole(None, c.newStream(0), 0), lambda: d.openChannel(None, c.newStream(0), 0))
    if uri.startswith("test"):
        domain_queries(c, c.lookupByName("test"))
    attempt(d.destroy, lambda: d.undefineFlags(0), d.undefine)
    attempt(lambda: storage(c))
    attempt(*[lambda i=i: c.domainEventDeregisterAny(i) for i in ids], c.unregisterCloseCallback)
    c.close()


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(int, 1)], daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "sock")
        proxy(path, sys.argv[1])
        for uri in sys.argv[2:] or ["test:///default"]:
            session(uri, path)
    write_golden(os.path.join(os.path.dirname(os.path.abspath(__file__)), "wire.txt"))


if __name__ == "__main__":
    main()
