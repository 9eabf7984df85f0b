#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The screen and the keyboard of a machine, as virsh and python3-libvirt ask for them. TAP.

    display.py RUCHED SCREEN.ELF

QEMU's machine has them; the guest (tests/guest/screen.c) has a blue screen and says which keys it got.
"""
import os
import shutil
import socket
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402

import tap  # noqa: E402
from libvirt_rpc import Daemon, wait_for  # noqa: E402

RUCHED, PAYLOAD = (os.path.abspath(p) for p in sys.argv[1:3])
QEMU = shutil.which("qemu-system-x86_64")
DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{kernel}</kernel></os>
<devices>{emulator}{devices}<serial type='file'><source path='{log}'/></serial><memballoon model='none'/></devices></domain>"""
SCREEN = """<graphics type='vnc' passwd='hive'><listen type='socket' socket='{socket}'/></graphics>
<video><model type='vga' vram='16384' heads='1'/></video>"""
# A key in each of libvirt's sets of codes; what a PC's keyboard says when it is pressed and let go.
A = {libvirt.VIR_KEYCODE_SET_LINUX: 30, libvirt.VIR_KEYCODE_SET_XT: 0x1e, libvirt.VIR_KEYCODE_SET_ATSET1: 0x1e,
     libvirt.VIR_KEYCODE_SET_ATSET2: 0x1c, libvirt.VIR_KEYCODE_SET_ATSET3: 0x1c, libvirt.VIR_KEYCODE_SET_OSX: 0,
     libvirt.VIR_KEYCODE_SET_XT_KBD: 0x1e, libvirt.VIR_KEYCODE_SET_USB: 4, libvirt.VIR_KEYCODE_SET_WIN32: 0x41,
     libvirt.VIR_KEYCODE_SET_QNUM: 0x1e}
UP = {libvirt.VIR_KEYCODE_SET_LINUX: 103, libvirt.VIR_KEYCODE_SET_XT_KBD: 0x148, libvirt.VIR_KEYCODE_SET_ATSET1: 0xe048,
      libvirt.VIR_KEYCODE_SET_ATSET2: 0xe075, libvirt.VIR_KEYCODE_SET_USB: 82, libvirt.VIR_KEYCODE_SET_QNUM: 0xc8}


class World:
    def __init__(self):
        self.daemon = Daemon(RUCHED)
        os.chmod(self.daemon.folder, 0o755)
        self.uri = f"qemu+unix:///system?socket={self.daemon.socket}"
        self.connection = libvirt.open(self.uri)
        self.kernel = shutil.copy(PAYLOAD, self.path("screen.elf"))
        self.log = self.path("serial")
        self.machine = self.start("screen", "q35", f"<emulator>{QEMU}</emulator>", SCREEN.format(socket=self.path("vnc")), self.log)

    def path(self, name):
        return os.path.join(self.daemon.folder, name)

    def start(self, name, machine, emulator, devices, log):
        text = DOMAIN.format(name=name, machine=machine, kernel=self.kernel, emulator=emulator, devices=devices, log=log)
        domain = self.connection.createXML(text, 0)
        wait_for("the guest", lambda: "ready" in self.said(log))
        return domain

    def said(self, log=None):
        try:
            with open(log or self.log, encoding="ascii", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def virsh(self, *words):
        done = subprocess.run(["virsh", "-c", self.uri, *words], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode, done.stdout + done.stderr


def keys_since(world, before):
    return [line.split()[1] for line in world.said()[before:].splitlines() if line.startswith("key ") and len(line.split()) == 2]


def press(world, expected, *args):
    before = len(world.said())
    world.machine.sendKey(*args)
    wait_for(f"the keys {expected}", lambda: keys_since(world, before) == expected)


def refused(code, call):
    try:
        call()
    except libvirt.libvirtError as e:
        assert e.get_error_code() == code, (e.get_error_code(), str(e))
        return str(e)
    raise AssertionError("it was not refused")


def picture(data):
    """Width, height and points of a portable pixmap."""
    kind, width, height, most, points = data.split(maxsplit=4)
    assert kind == b"P6" and most == b"255", data[:20]
    assert len(points) >= int(width) * int(height) * 3 - 4, len(points)
    return int(width), int(height), data[-int(width) * int(height) * 3:]


def test_screenshot(world):
    file = world.path("picture.ppm")
    code, text = world.virsh("screenshot", "screen", file)
    assert code == 0 and "with type of image/x-portable-pixmap" in text, text
    with open(file, "rb") as f:
        width, height, points = picture(f.read())
    assert (width, height) in ((720, 400), (640, 400)), (width, height)
    blue = sum(points[i:i + 2] == b"\0\0" and points[i + 2] > 0x80 for i in range(0, len(points), 3))
    assert blue > width * height * 9 // 10, f"{blue} of {width * height} points are blue"
    assert any(points[i:i + 3] == b"\xff\xff\xff" for i in range(0, len(points), 3)), "its letters are not there"
    assert "1" in refused(libvirt.VIR_ERR_INVALID_ARG, lambda: world.machine.screenshot(world.connection.newStream(), 1))


def test_keys(world):
    for number, code in A.items():
        press(world, ["1e", "9e"], number, 0, [code], 1, 0)
    for number, code in UP.items():
        press(world, ["e0", "48", "e0", "c8"], number, 20, [code], 1, 0)
    press(world, ["1d", "38", "1", "81", "b8", "9d"], libvirt.VIR_KEYCODE_SET_LINUX, 0, [29, 56, 1], 3, 0)
    before = len(world.said())
    code, text = world.virsh("send-key", "screen", "KEY_LEFTSHIFT", "KEY_R")
    assert code == 0, text
    wait_for("the keys", lambda: keys_since(world, before) == ["2a", "13", "93", "aa"])
    refused(libvirt.VIR_ERR_INVALID_ARG, lambda: world.machine.sendKey(libvirt.VIR_KEYCODE_SET_LINUX, 0, [60000], 1, 0))
    refused(libvirt.VIR_ERR_INVALID_ARG, lambda: world.machine.sendKey(libvirt.VIR_KEYCODE_SET_QNUM, 0, [256], 1, 0))


def greeting(viewer, trusted):
    """The ways in that a VNC server offers, by RFB 3.8."""
    viewer.settimeout(60)
    assert viewer.recv(12) == b"RFB 003.008\n"
    viewer.sendall(b"RFB 003.008\n")
    ways = viewer.recv(viewer.recv(1)[0])
    assert (1 if trusted else 2) in ways, ways


def test_viewers(world):
    for flags in (0, libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH):
        with socket.socket(fileno=world.machine.openGraphicsFD(0, flags)) as viewer:
            greeting(viewer, flags)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            world.machine.openGraphics(0, theirs.fileno(), flags)
            theirs.close()
            greeting(ours, flags)
    refused(libvirt.VIR_ERR_INVALID_ARG, lambda: world.machine.openGraphicsFD(1, 0))


def test_readers(world):
    """Who may only look at descriptions sees no screens and presses no keys."""
    with_rights = world.machine
    reader = libvirt.openReadOnly(world.uri.replace("libvirt-sock", "libvirt-sock-ro"))
    domain = reader.lookupByName(with_rights.name())
    for call in (lambda: domain.screenshot(reader.newStream(), 0), lambda: domain.sendKey(0, 0, [30], 1, 0),
                 lambda: domain.openGraphicsFD(0, 0)):
        refused(libvirt.VIR_ERR_OPERATION_DENIED, call)
    reader.close()


def test_without(world):
    """ruche-vmm's machines have neither."""
    domain = world.start("blind", "microvm", "", "", world.path("blind"))
    said = refused(libvirt.VIR_ERR_OPERATION_UNSUPPORTED, lambda: domain.screenshot(world.connection.newStream(), 0))
    assert "no screen" in said, said
    said = refused(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, lambda: domain.sendKey(0, 0, [30], 1, 0))
    assert "send-key" in said, said
    refused(libvirt.VIR_ERR_INVALID_ARG, lambda: domain.openGraphicsFD(0, 0))
    domain.destroy()


def main():
    world = World()
    try:
        tap.run({name: lambda fn=fn: fn(world) for name, fn in (
            ("screenshot", test_screenshot), ("keys", test_keys), ("viewers", test_viewers), ("read-only", test_readers),
            ("without a display", test_without))})
    finally:
        world.machine.destroy()
        world.connection.close()
        world.daemon.stop()


if __name__ == "__main__":
    main()
