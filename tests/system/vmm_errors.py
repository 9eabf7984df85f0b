#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Command lines that cannot work: one sentence, exit status 1, nothing left behind. And what starts and ends well.

    vmm_errors.py RUCHE-VMM
"""
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402
from guest import Qmp  # noqa: E402

BINARY = os.path.abspath(sys.argv[1])
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-errors-")
SECONDS = 240
QUIET = ["-accel", "soft", "-nodefaults", "-display", "none"]


def path(name):
    return os.path.join(FOLDER.name, name)


def write(name, data):
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name)


def truncated_elf():
    """A 32-bit ELF header with a multiboot header behind it, whose program header points past the end."""
    elf = bytearray(8192)
    elf[0:7] = b"\x7fELF\x01\x01\x01"
    elf[16:20] = bytes([2, 0, 3, 0])
    elf[20:24] = (1).to_bytes(4, "little")
    elf[24:28] = (0x100000).to_bytes(4, "little")
    elf[28:32] = (52).to_bytes(4, "little")
    elf[40:46] = bytes([52, 0, 32, 0, 1, 0])
    header = [1, 1 << 20, 5 << 20, 1 << 20, 1 << 20, 1 << 20, 5, 4096]
    elf[52:84] = b"".join(v.to_bytes(4, "little") for v in header)
    magic = 0x1BADB002
    elf[4096:4108] = magic.to_bytes(4, "little") + bytes(4) + (-magic & 0xFFFFFFFF).to_bytes(4, "little")
    return bytes(elf)


def payload(code):
    """A 32-bit multiboot program of these bytes, at 1 MiB."""
    elf = bytearray(4096 + 64)
    elf[0:7] = b"\x7fELF\x01\x01\x01"
    elf[16:20] = bytes([2, 0, 3, 0])
    fields = {20: 1, 24: 0x100010, 28: 52}
    elf[40:46] = bytes([52, 0, 32, 0, 1, 0])
    fields |= dict(zip(range(52, 84, 4), [1, 4096, 0x100000, 0x100000, 64, 64, 5, 4096]))
    magic = 0x1BADB002
    fields |= {4096: magic, 4104: -magic & 0xFFFFFFFF}
    for at, value in fields.items():
        elf[at:at + 4] = value.to_bytes(4, "little")
    elf[4112:4112 + len(code)] = code
    return bytes(elf)


HALT = b"\xf4\xeb\xfd"
CODE = {
    "exit": b"\x66\xba\xf4\x00\xb0\x15\xee" + HALT,                    # out 0xf4, 21
    "triple": b"\x0f\x01\x1d\x20\x00\x10\x00\xcc" + HALT + bytes(40),    # lidt of zeroes; int3
    "off": b"\x66\xba\x04\x06\x66\xb8\x00\x20\x66\xef" + HALT,         # PM1a control: sleep, S5
    "panic": b"\x66\xba\x05\x05\xb0\x01\xee" + HALT,                   # pvpanic: panicked
    "crash": b"\x66\xba\x05\x05\xb0\x02\xee" + HALT,                   # pvpanic: crash kernel loaded
}


def fixtures():
    for name, code in CODE.items():
        write(name + ".elf", payload(code))
    write("empty", b"")
    write("text", b"this is no kernel\n" * 100)
    write("elf", truncated_elf())
    write("bz", bytes(0x1F1) + b"\x04" + bytes(12) + b"\x55\xaa\xeb\x10HdrS\x0c\x02" + bytes(400))
    write("disk", bytes(1 << 20))
    write("odd", bytes(1000))
    write("file", b"x")
    os.mkdir(path("folder"))


# name: arguments, what the sentence must contain (a regular expression)
BAD = {
    "unknown option": (["-nographc"], r"unknown option; did you mean '-nographic'"),
    "argument missing": (["-m"], r"^ruche-vmm: -m: an argument is missing"),
    "stands alone": (["{disk}"], r"stands alone; to use it as a disk"),
    "unknown board": (["-machine", "q36"], r"unknown board 'q36'; did you mean 'q35'"),
    "unknown board property": (["-machine", "q35,hpte=off"], r"no property 'hpte'; did you mean 'hpet'"),
    "bad board property": (["-machine", "q35,hpet=maybe"], r"hpet.*maybe"),
    "unknown accelerator": (["-accel", "kwm"], r"kwm"),
    "unknown CPU": (["-cpu", "pentiun"], r"-cpu: .*pentiun"),
    "unknown CPU feature": (["-cpu", "max,+avxx"], r"-cpu: .*avxx"),
    "no CPUs": (["-smp", "0"], r"-smp: 'cpus' must be a number from 1"),
    "too many CPUs": (["-smp", "65"], r"-smp: .*65"),
    "bad topology": (["-smp", "4,sockets=3"], r"-smp: 3 sockets"),
    "bad size": (["-m", "1X"], r"-m: '1X' is no size"),
    "no RAM": (["-m", "0"], r"-m: .* too little"),
    "too much RAM": (["-m", "4000000G"], r"no room for RAM"),
    "bad UUID": (["-uuid", "1-2"], r"-uuid: '1-2' is not a UUID"),
    "kernel missing": (["-kernel", "{dir}/nothing"], r"nothing.*No such file"),
    "kernel is a folder": (["-kernel", "{dir}/folder"], r"folder"),
    "kernel is empty": (["-kernel", "{dir}/empty"], r"empty"),
    "kernel is text": (["-kernel", "{dir}/text"], r"text"),
    "kernel is cut off": (["-kernel", "{dir}/elf"], r"elf"),
    "bzImage is cut off": (["-kernel", "{dir}/bz"], r"bz"),
    "initrd without kernel": (["-initrd", "{dir}/file"], r"-initrd: there is no -kernel"),
    "append without kernel": (["-append", "x"], r"-append: there is no -kernel"),
    "disk missing": (["-drive", "file={dir}/nothing,format=raw"], r"-drive: .*nothing.*does not exist"),
    "disk is a folder": (["-drive", "file={dir}/folder,format=raw"], r"-drive: .*folder"),
    "unknown format": (["-drive", "file={disk},format=row"], r"-drive: .*row"),
    "unknown drive property": (["-drive", "file={disk},cahce=none"], r"'cahce'; did you mean 'cache'"),
    "unknown cache mode": (["-drive", "file={disk},cache=non"], r"'non'; did you mean 'none'"),
    "disk twice": (["-drive", "file={disk},format=raw", "-drive", "file={disk},format=raw"], r"-drive: .*in use|lock"),
    "drive id twice": (["-drive", "file={disk},format=raw,id=a", "-drive", "file={dir}/odd,format=raw,id=a"],
                       r"-drive: the name 'a' is taken"),
    "bad drive id": (["-drive", "file={disk},format=raw,id=1"], r"'1' is not an id"),
    "IDE": (["-drive", "file={disk},if=ide"], r"no 'ide' disk interface"),
    "blockdev without file": (["-blockdev", "driver=raw,node-name=a"], r"needs 'file'"),
    "blockdev bad JSON": (["-blockdev", '{{"driver":"raw"'], r"-blockdev: bad JSON"),
    "blockdev unknown child": (["-blockdev", "driver=raw,node-name=a,file=b"], r"there is no node 'b'"),
    "unknown device": (["-device", "virtio-blk-pcj"], r"'virtio-blk-pcj'; did you mean 'virtio-blk-pci'"),
    "unknown device property": (["-device", "isa-serial,indx=1"], r"'indx'; did you mean 'index'"),
    "bad device value": (["-device", "isa-serial,index=99"], r"index.*99|99.*index"),
    "device without disk": (["-device", "virtio-blk-pci,drive=d0"], r"no drive 'd0'"),
    "device id twice": (["-device", "isa-debugcon,id=a", "-device", "isa-serial,id=a"], r"device id 'a' is taken"),
    "device of the board": (["-device", "ich9-lpc"], r"'ich9-lpc' belongs to the board"),
    "one slot twice": (["-device", "virtio-rng-pci,addr=3", "-device", "virtio-rng-pci,addr=3"], r"virtio-rng-pci|slot"),
    "unknown netdev": (["-netdev", "usr,id=n"], r"'usr'; did you mean 'user'"),
    "unknown netdev property": (["-netdev", "user,id=n,hostfwdd=x"], r"hostfwdd"),
    "bad forward": (["-netdev", "user,id=n,hostfwd=tcp:x"], r"hostfwd|tcp:x"),
    "netdev id twice": (["-netdev", "user,id=n", "-netdev", "user,id=n"], r"the id 'n' is taken"),
    "NIC without network": (["-device", "virtio-net-pci,netdev=n"], r"no netdev 'n'"),
    "bad MAC": (["-netdev", "user,id=n", "-device", "virtio-net-pci,netdev=n,mac=12:34"], r"12:34"),
    "unknown chardev": (["-chardev", "stdoi,id=c"], r"'stdoi'; did you mean 'stdio'"),
    "socket in a missing folder": (["-chardev", "socket,id=c,path={dir}/no/s,server=on,wait=off"],
                                   r"cannot listen on .*No such file"),
    "socket path is a file": (["-qmp", "unix:{dir}/file,server=on,wait=off"], r"exists and is not a socket"),
    "socket path too long": (["-qmp", "unix:{dir}/" + "s" * 200 + ",server=on,wait=off"], r"the system takes 107"),
    "QMP port in use": (["-qmp", "tcp:127.0.0.1:{port},server=on,wait=off"], r"cannot listen on TCP port .*in use"),
    "serial of no chardev": (["-serial", "chardev:c"], r"there is no chardev 'c'"),
    "terminal twice": (["-serial", "stdio", "-monitor", "stdio"], r"in use already"),
    "chardev twice in use": (["-chardev", "null,id=c", "-device", "isa-serial,chardev=c", "-device",
                              "isa-debugcon,chardev=c"], r"'c' is in use already"),
    "unknown object": (["-object", "iothred,id=i"], r"'iothred'; did you mean 'iothread'"),
    "object id twice": (["-object", "iothread,id=i", "-object", "iothread,id=i"], r"the id 'i' is taken"),
    "unknown memory backend": (["-machine", "q35,memory-backend=m"], r"no memory backend 'm'"),
    "memory backend of another size": (["-object", "memory-backend-memfd,id=m,size=64M", "-machine",
                                        "q35,memory-backend=m"], r"-object: .*not that of -m"),
    "unknown log item": (["-d", "in_asn"], r"did you mean 'in_asm'"),
    "log in a missing folder": (["-D", "{dir}/no/log"], r"No such file"),
    "pid file in a missing folder": (["-pidfile", "{dir}/no/pid"], r"-pidfile: .*No such file"),
    "fw_cfg file missing": (["-fw_cfg", "name=opt/x,file={dir}/nothing"], r"nothing"),
    "fw_cfg without content": (["-fw_cfg", "name=opt/x"], r"needs either"),
    "SMBIOS type": (["-smbios", "type=4,version=1"], r"type 4 cannot be given"),
    "display": (["-display", "gtk"], r"no display 'gtk' yet"),
    "daemon on the terminal": (["-daemonize", "-serial", "stdio"], r"-daemonize: .*needs the terminal"),
    "failure in the background": (["-daemonize", "-kernel", "{dir}/nothing"], r"nothing.*No such file"),
}

# What stands in every bad line, so that there is something to leave behind.
LITTER = ["-pidfile", "{dir}/pid", "-qmp", "unix:{dir}/litter,server=on,wait=off", "-chardev",
          "socket,id=litter,path={dir}/litter2,server=on,wait=off", "-object", "iothread,id=litter"]


def busy_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    return s


LISTENER = busy_port()


def fill(arguments):
    names = {"dir": FOLDER.name, "disk": path("disk"), "port": LISTENER.getsockname()[1]}
    return [a.format(**names) for a in arguments]


def check_bad(arguments, pattern):
    before = sorted(os.listdir(FOLDER.name))
    litter = [] if "-pidfile" in arguments else LITTER
    line = [BINARY] + QUIET + fill(litter) + fill(arguments)
    r = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert r.returncode == 1, f"exit status {r.returncode}: {r.stderr}"
    assert r.stdout == "", f"on standard output: {r.stdout}"
    assert r.stderr.startswith("ruche-vmm: ") and r.stderr.count("\n") == 1, f"not one sentence: {r.stderr}"
    assert re.search(pattern, r.stderr), f"'{pattern}' is not in: {r.stderr}"
    assert sorted(os.listdir(FOLDER.name)) == before, f"left behind: {os.listdir(FOLDER.name)}"


class Machine:
    """A machine without a guest, with QMP. One that a failed test left goes before the next begins: it holds the socket."""

    last = None

    def __init__(self, *arguments):
        if Machine.last and Machine.last.poll() is None:
            Machine.last.kill()
            Machine.last.wait(SECONDS)
        line = [BINARY] + QUIET + ["-qmp", f"unix:{path('qmp')},server=on,wait=off"] + fill(arguments)
        Machine.last = self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        self.qmp = Qmp(path("qmp"), process=self.process)

    def end(self, status=0):
        got = self.process.wait(SECONDS)
        assert got == status, f"exit status {got}: {self.process.stderr.read()}"
        assert not os.path.exists(path("qmp")), "the QMP socket is still there"


def test_in_use():
    """What one machine holds, a second one is refused, and the first goes on."""
    m = Machine("-pidfile", "{dir}/held", "-drive", "file={disk},format=raw")
    with open(path("held"), encoding="ascii") as f:
        assert int(f.read()) == m.process.pid
    check_bad(["-drive", "file={disk},format=raw"], r"-drive: .*(in use|lock)")
    check_bad(["-qmp", f"unix:{path('qmp')},server=on,wait=off"], r"is in use: somebody listens there")
    check_bad(["-pidfile", "{dir}/held"], r"-pidfile: .*is held by another running process")
    assert m.qmp.execute("query-status")["status"] == "running"
    m.qmp.execute("quit")
    m.end()
    assert not os.path.exists(path("held")), "the pid file is still there"


def test_stale():
    """After a machine that was killed, its socket and pid file do not stand in the way."""
    m = Machine("-pidfile", "{dir}/held")
    m.process.kill()
    m.process.wait(SECONDS)
    assert os.path.exists(path("qmp")) and os.path.exists(path("held"))
    m = Machine("-pidfile", "{dir}/held")
    m.qmp.execute("quit")
    m.end()


def test_signals():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        m = Machine("-no-shutdown")
        m.process.send_signal(number)
        event = m.qmp.wait_event("SHUTDOWN")
        assert event["data"] == {"guest": False, "reason": "host-signal"}, event
        m.end()


def test_run_states():
    m = Machine("-S", "-name", "guest=a", "-uuid", "550e8400-e29b-41d4-a716-446655440000")
    assert m.qmp.execute("query-status")["status"] == "prelaunch"
    m.qmp.execute("cont")
    m.qmp.wait_event("RESUME")
    assert m.qmp.execute("query-status") == {"running": True, "singlestep": False, "status": "running"}
    m.qmp.execute("stop")
    m.qmp.wait_event("STOP")
    assert m.qmp.execute("query-status")["status"] == "paused"
    m.qmp.execute("system_reset")
    assert m.qmp.wait_event("RESET")["data"]["reason"] == "host-qmp-system-reset"
    assert m.qmp.execute("query-status")["status"] == "prelaunch"
    assert m.qmp.execute("query-name") == {"name": "a"}
    assert m.qmp.execute("query-uuid") == {"UUID": "550e8400-e29b-41d4-a716-446655440000"}
    m.qmp.execute("quit")
    assert m.qmp.wait_event("SHUTDOWN")["data"]["reason"] == "host-qmp-quit"
    m.end()


def test_chardev_change():
    """Another backend under devices that use it; what cannot be changed stays, and goes on."""
    def socket_at(name):
        return {"type": "socket", "data": {"addr": {"type": "unix", "data": {"path": path(name)}}}}

    m = Machine("-chardev", "ringbuf,id=s0", "-serial", "chardev:s0", "-chardev", "ringbuf,id=p0", "-device", "virtio-serial-pci",
                "-device", "virtserialport,chardev=p0,name=org.ruche.t", "-chardev", "socket,id=mux0,mux=on,server=on,wait=off,"
                "path={dir}/mux", "-serial", "chardev:mux0", "-chardev", "socket,id=mon0,server=on,wait=off,path={dir}/mon0",
                "-mon", "chardev=mon0,mode=control")

    def refused(why, id, backend):
        reply = m.qmp.call("chardev-change", id=id, backend=backend)
        assert why in reply.get("error", {}).get("desc", ""), (why, reply)

    def file_of(id):
        return next(c["filename"] for c in m.qmp.execute("query-chardev") if c["label"] == id)

    def until(open, id):
        end = time.monotonic() + SECONDS
        while (path(id) in file_of(id), "disconnected" not in file_of(id)) != (True, open):
            assert time.monotonic() < end, (open, file_of(id))
            time.sleep(0.01)

    for id in ("s0", "p0"):
        assert m.qmp.execute("chardev-change", id=id, backend=socket_at(id)) == {}
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path(id))
            until(True, id)
        if id == "s0":  # a port whose guest does not read does not see its peer go
            until(False, id)
        refused("No such file", id, socket_at("none/x"))
        refused("unknown backend 'nul'", id, {"type": "nul", "data": {}})
        refused("somebody listens there", id, socket_at(id))
        assert path(id) in file_of(id)
        assert m.qmp.execute("chardev-change", id=id, backend={"type": "pty", "data": {}})["pty"] == file_of(id).split("pty:")[1]
        assert not os.path.exists(path(id))
    refused("Chardev 'nobody' not found", "nobody", {"type": "null", "data": {}})
    refused("Chardev 'mux0' is a mux", "mux0", {"type": "null", "data": {}})
    refused("Chardev 'mon0' is busy", "mon0", {"type": "null", "data": {}})
    assert "is busy" in m.qmp.call("chardev-remove", id="s0")["error"]["desc"]
    m.qmp.execute("quit")
    m.end()


def test_every_query():
    """Every command without required arguments answers; the schema and query-commands agree."""
    m = Machine("-drive", "file={disk},format=raw,id=d0", "-nic", "user", "-object", "iothread,id=io0", "-chardev",
                "ringbuf,id=r0")
    schema = m.qmp.execute("query-qmp-schema")
    commands = {c["name"] for c in m.qmp.execute("query-commands")} - {"qmp_capabilities"}
    assert commands == {e["name"] for e in schema if e["meta-type"] == "command"}
    types = {e["name"]: e for e in schema if e["meta-type"] == "object"}
    skip = {"quit", "system_reset", "stop", "system_powerdown", "inject-nmi"}
    for e in schema:
        if e["meta-type"] != "command" or e["name"] in skip:
            continue
        needed = [a for a in types[e["arg-type"]]["members"] if "default" not in a]
        reply = m.qmp.call(e["name"])
        if needed:
            assert f"lacks the argument '{needed[0]['name']}'" in reply["error"]["desc"], reply
        elif "error" in reply:
            by_name_or_id = reply["error"]["desc"] == "'device' or 'id' is missing"
            assert by_name_or_id or e["name"] in ("system_wakeup", "nbd-server-stop", "query-balloon", "add-fd"), reply
    assert m.qmp.execute("query-block")[0]["device"] == "d0"
    assert m.qmp.execute("query-iothreads")[0]["thread-id"] > 0
    m.qmp.execute("ringbuf-write", device="r0", data="abc")
    assert m.qmp.execute("ringbuf-read", device="r0", size=10) == "abc"
    assert m.qmp.call("device_del", id="x")["error"]["class"] == "DeviceNotFound"
    assert "device_add" in commands and "error" in m.qmp.call("device_add", driver="virtio-rng-pci")
    m.qmp.execute("object-add", **{"qom-type": "iothread", "id": "io1"})
    assert len(m.qmp.execute("query-iothreads")) == 2
    m.qmp.execute("pmemsave", val=0, size=4096, filename=path("memory"))
    assert os.path.getsize(path("memory")) == 4096
    os.unlink(path("memory"))
    assert "running" in m.qmp.execute("human-monitor-command", **{"command-line": "info status"})
    m.qmp.execute("quit")
    m.end()


def guest(name, *arguments):
    """A machine that runs a payload: started stopped, so that no event is missed."""
    m = Machine("-S", "-kernel", f"{{dir}}/{name}.elf", "-device", "pvpanic", "-device",
                "isa-debug-exit,iobase=0xf4,iosize=4", *arguments)
    m.qmp.execute("cont")
    return m


def cause(m):
    return m.qmp.wait_event("SHUTDOWN")["data"]


def test_guest_exits():
    guest("exit").end(21 << 1 | 1)
    m = guest("off")
    assert cause(m) == {"guest": True, "reason": "guest-shutdown"}
    m.end()
    m = guest("triple", "-no-reboot")
    assert cause(m) == {"guest": True, "reason": "guest-reset"}
    m.end()


def test_guest_resets():
    m = guest("triple")
    for _ in range(3):
        assert m.qmp.wait_event("RESET")["data"] == {"guest": True, "reason": "guest-reset"}
    m.qmp.execute("quit")
    m.end()


def test_no_shutdown():
    """Power-off only stops the machine; it runs again after a reset, not before."""
    m = guest("off", "-no-shutdown")
    for _ in range(2):
        assert cause(m)["reason"] == "guest-shutdown"
        m.qmp.wait_event("STOP")
        assert m.qmp.execute("query-status")["status"] == "shutdown"
        assert "reset the machine first" in m.qmp.call("cont")["error"]["desc"]
        m.qmp.execute("system_reset")
        assert m.qmp.execute("query-status")["status"] == "prelaunch"
        m.qmp.execute("cont")
    m.process.terminate()
    m.end()


def test_panic():
    m = guest("panic")
    assert m.qmp.wait_event("GUEST_PANICKED")["data"]["action"] == "poweroff"
    assert cause(m) == {"guest": True, "reason": "guest-panic"}
    m.end()
    m = guest("panic", "-action", "panic=exit-failure")
    m.end(1)
    m = guest("panic", "-action", "panic=none")
    assert m.qmp.wait_event("GUEST_PANICKED")["data"]["action"] == "run"
    assert m.qmp.execute("query-status")["running"]
    m.qmp.execute("quit")
    m.end()
    m = guest("panic", "-action", "panic=pause")
    assert m.qmp.wait_event("GUEST_PANICKED")["data"]["action"] == "pause"
    m.qmp.wait_event("STOP")
    assert m.qmp.execute("query-status")["status"] == "guest-panicked"
    m.qmp.execute("cont")
    assert m.qmp.execute("query-status")["running"]
    m.qmp.execute("quit")
    m.end()
    m = guest("crash")
    assert m.qmp.wait_event("GUEST_CRASHLOADED")["data"]["action"] == "run"
    m.qmp.execute("quit")
    m.end()


def test_memory_saving():
    """memsave sees what the CPU sees: here without paging, the program itself."""
    m = Machine("-S", "-kernel", "{dir}/exit.elf")
    m.qmp.execute("memsave", val=0x100010, size=len(CODE["exit"]), filename=path("code"))
    with open(path("code"), "rb") as f:
        assert f.read() == CODE["exit"]
    os.unlink(path("code"))
    assert "there is no memory at" in m.qmp.call("pmemsave", val=1 << 40, size=16, filename=path("code"))["error"]["desc"]
    assert "'size' must be" in m.qmp.call("pmemsave", val=0, size=1 << 50, filename=path("code"))["error"]["desc"]
    os.unlink(path("code"))
    assert "there is no CPU 7" in m.qmp.call("memsave", val=0, size=1, filename=path("code"), cpu_index=7)["error"]["desc"]
    m.qmp.execute("quit")
    m.end()


def test_daemonize():
    """The parent ends with 0 when the machine is up; the child holds pid file and socket until it is told to end."""
    # Relative names: the daemon's working folder is not this one.
    line = [BINARY] + QUIET + ["-daemonize", "-pidfile", "daemon", "-qmp", "unix:dq,server=on,wait=off"]
    r = subprocess.run(line, cwd=FOLDER.name, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                       timeout=SECONDS, check=False)
    assert r.returncode == 0 and r.stderr == "", r.stderr
    with open(path("daemon"), encoding="ascii") as f:
        pid = int(f.read())
    q = Qmp(path("dq"))
    assert q.execute("query-status")["running"]
    assert os.readlink(f"/proc/{pid}/fd/2") == "/dev/null"
    q.execute("quit")
    end = time.monotonic() + SECONDS
    while (os.path.exists(path("daemon")) or os.path.exists(path("dq"))) and time.monotonic() < end:
        time.sleep(0.02)
    assert not os.path.exists(path("daemon")) and not os.path.exists(path("dq"))


def read_until(fd, text, seconds=SECONDS):
    got, end = b"", time.monotonic() + seconds
    while text not in got:
        left = end - time.monotonic()
        assert left > 0, f"'{text}' did not come: {got}"
        if select.select([fd], [], [], left)[0]:
            try:
                got += os.read(fd, 4096)
            except OSError:
                raise AssertionError(f"the terminal was closed before '{text}': {got}") from None
    return got


def on_terminal(arguments, act):
    """Runs on a terminal of its own, calls act(master, process); the terminal's settings must come back."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    flags = fcntl.fcntl(slave, fcntl.F_GETFL)
    process = subprocess.Popen([BINARY, "-accel", "soft", "-nic", "none"] + arguments, stdin=slave, stdout=slave,
                               stderr=slave)
    try:
        status = act(master, process, slave)
        assert process.wait(SECONDS) == status, process.returncode
        assert termios.tcgetattr(slave) == before, "the terminal is not as it was"
        assert fcntl.fcntl(slave, fcntl.F_GETFL) == flags, "standard output has other flags"
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        os.close(slave)


def test_console():
    """-nographic: Ctrl-a h helps, Ctrl-a c is the monitor, Ctrl-a x leaves; Ctrl-C is the guest's."""
    def act(master, process, slave):
        tap.wait_raw(slave)
        os.write(master, b"\x03\x01h")
        read_until(master, b"Ctrl-a x")
        os.write(master, b"\x01c")
        read_until(master, b"(ruche) ")
        os.write(master, b"info status\r")
        read_until(master, b"VM status: running")
        os.write(master, b"staus\r")
        read_until(master, b"unknown command: 'staus'")
        os.write(master, b"\x01x")
        return 0
    on_terminal(["-nographic"], act)


def test_monitor_quit():
    def act(master, process, slave):
        read_until(master, b"(ruche) ")
        os.write(master, b"stop\rinfo status\r")
        read_until(master, b"VM status: paused")
        os.write(master, b"q\r")
        return 0
    on_terminal(["-display", "none", "-monitor", "stdio"], act)


def test_terminal_after_signals():
    def end_by(number, status):
        def act(master, process, slave):
            tap.wait_raw(slave)
            process.send_signal(number)
            return status
        return act
    on_terminal(["-nographic"], end_by(signal.SIGTERM, 0))
    on_terminal(["-nographic"], end_by(signal.SIGABRT, -signal.SIGABRT))


def test_terminal_after_error():
    def act(master, process, slave):
        read_until(master, b"No such file")
        return 1
    on_terminal(["-nographic", "-kernel", "/nonexistent"], act)


def test_wait_interrupted():
    """A server that waits for its first client can be ended, and takes its socket away."""
    for option in (["-serial", "unix:{dir}/w,server=on"], ["-qmp", "unix:{dir}/w,server=on"]):
        p = subprocess.Popen([BINARY] + QUIET + fill(option), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             text=True)
        end = time.monotonic() + SECONDS
        while not os.path.exists(path("w")) and time.monotonic() < end:
            time.sleep(0.01)
        assert "waiting for a connection" in p.stderr.readline()
        p.terminate()
        assert p.wait(SECONDS) == 0
        assert not os.path.exists(path("w"))


def test_serial_socket():
    """A serial port on a socket with wait=on starts once the client is there; QMP by -mon over a chardev."""
    p = subprocess.Popen([BINARY] + QUIET + fill(["-chardev", "socket,id=m,path={dir}/mon,server=on", "-mon",
                                                  "chardev=m,mode=control"]),
                         stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(2):
        q = Qmp(path("mon"))
        assert q.execute("query-status")["running"]
        q.socket.close()
    q = Qmp(path("mon"))
    q.execute("quit")
    assert p.wait(SECONDS) == 0


def test_help():
    """Every help text is there, on standard output, with status 0."""
    for arguments in (["-help"], ["-h"], ["--help"], ["-version"], ["-machine", "help"], ["-machine", "q35,help"],
                      ["-accel", "help"], ["-cpu", "help"], ["-device", "help"], ["-device", "virtio-blk-pci,help"],
                      ["-netdev", "help"], ["-netdev", "user,help"], ["-chardev", "help"],
                      ["-chardev", "socket,help"], ["-object", "help"], ["-d", "help"], ["-display", "help"]):
        r = subprocess.run([BINARY] + arguments, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert r.returncode == 0 and r.stderr == "" and len(r.stdout) > 30, f"{arguments}: {r.stderr}"
        wide = [line for line in r.stdout.splitlines() if len(line) > 130]
        assert not wide, f"{arguments}: too wide: {wide[0]}"


def test_json():
    """What QMP sends is one JSON text a line, whatever was asked."""
    m = Machine()
    s = socket.socket(socket.AF_UNIX)
    s.connect(path("qmp"))
    s.sendall(b'{"execute":"qmp_capabilities"}' + b"[" * 5000 + b"\nnonsense\n" + b'{"execute":"query-status","id":5}')
    f = s.makefile()
    lines = [json.loads(f.readline()) for _ in range(5)]
    assert [next(iter(o)) for o in lines] == ["QMP", "return", "error", "error", "return"], lines
    assert lines[4]["id"] == 5
    m.qmp.execute("quit")
    m.end()


def main():
    fixtures()
    tests = {f"refused: {name}": (lambda row=row: check_bad(*row)) for name, row in BAD.items()}
    tests |= {name[5:].replace("_", " "): f for name, f in globals().items() if name.startswith("test_")}
    tap.run(tests)


main()
