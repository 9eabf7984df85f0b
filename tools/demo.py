#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots the Debian guest. On a terminal: its console, Ctrl-] leaves. Else: waits for the login prompt, prints a
summary, powers the guest off and exits 0.

    demo.py RUCHE-VMM GUEST-FOLDER [further ruche-vmm options]
"""
import os
import select
import sys
import termios
import time
import tty

from guest import GuestError, Vmm, copy_disk, debian_arguments

LEAVE = b"\x1d"  # Ctrl-]


def power_off(vmm):
    """As the power button does; a guest that ignores it is switched off."""
    try:
        if vmm.process.poll() is None:
            vmm.qmp.execute("system_powerdown")
        return vmm.wait(90)
    except (GuestError, OSError):
        vmm.close()
        return 1


def attach(vmm):
    """The terminal is the guest's until Ctrl-] or power-off."""
    print("Booting Debian; log in as root, without a password. Ctrl-] leaves and powers it off.\r")
    saved = termios.tcgetattr(0)
    serial = vmm.console.socket
    serial.settimeout(None)
    tty.setraw(0)
    try:
        while True:
            ready, _, _ = select.select([0, serial], [], [])
            if serial in ready:
                data = serial.recv(65536)
                if not data:
                    break
                os.write(1, data)
            if 0 in ready:
                data = os.read(0, 1024)
                if not data or LEAVE in data:
                    break
                serial.sendall(data)
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, saved)
    print("\nPowering the guest off ...")
    return power_off(vmm)


def summarise(vmm, memory_mib):
    """Without a terminal: proof that it works, in a few lines."""
    vmm.console.expect(r"Linux version (\S+)", 120)
    kernel = vmm.seconds()
    vmm.console.expect(r"Run /init|Mounting|systemd\[1\]", 300)
    init = vmm.seconds()
    vmm.console.expect(r"login: ", 600)
    login = vmm.seconds()
    accel = vmm.qmp.execute("x-ruche-query-accel")
    _, _, rest = vmm.memory_kib()
    before = time.monotonic()
    status = power_off(vmm)
    print(f"accelerator      {accel['name']}: {accel['why']}")
    print(f"kernel speaks    {kernel:6.2f} s after exec")
    print(f"init starts      {init:6.2f} s")
    print(f"login prompt     {login:6.2f} s")
    print(f"power-off took   {time.monotonic() - before:6.2f} s, exit status {status}")
    print(f"memory           {memory_mib} MiB for the guest, {rest / 1024:.1f} MiB for everything else")
    return status


def main():
    binary, folder, extra = sys.argv[1], sys.argv[2], sys.argv[3:]
    disk = os.path.join(folder, "demo.img")
    if not os.path.exists(disk):
        copy_disk(os.path.join(folder, "disk.img"), disk + ".new")
        os.rename(disk + ".new", disk)
    try:
        with Vmm(binary, debian_arguments(folder, disk) + ["-name", "demo"] + extra) as vmm:
            return attach(vmm) if sys.stdin.isatty() and sys.stdout.isatty() else summarise(vmm, 512)
    except GuestError as error:
        print(f"run: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
