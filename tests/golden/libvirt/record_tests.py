#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Records what virsh and the daemons say to each other in a test that lets it speak to both.

Usage: record_tests.py TEST RUCHED RUCHE-VMM RUCHE-IMG KERNEL, as root: TEST is virsh_commands, virsh_network or virsh_storage of
tests/system, or "sasl": how libvirtd lets a client in who has a password. Adds to wire.txt what libvirtd and its client said, and to accepted.txt what only ruched answered, and the client took.
"""
import os
import runpy
import sys

import record

HERE = os.path.dirname(os.path.abspath(__file__))
SYSTEM = os.path.join(HERE, "..", "..", "system")


def through_a_proxy(side):
    path = side.uri.split("=")[1]
    record.proxy(path + ".recorded", path)
    side.uri += ".recorded"


def with_a_password(base):
    class WithPasswords(base.Libvirtd):
        AUTH = "sasl"

        def is_there(self):
            base.wait_for("libvirtd", lambda: base.listens(self.socket))
            through_a_proxy(self)
            return not self.virsh("version")[0]

    folder = base.WORK
    base.subprocess.run(["saslpasswd2", "-p", "-c", "-a", "libvirt", "-f", folder + "/db", "golden"], input="golden", text=True, check=True)
    for name, text in (("libvirt.conf", f"mech_list: digest-md5\nauxprop_plugin: sasldb\nsasldb_path: {folder}/db\n"),
                       ("auth.conf", "[credentials-x]\nauthname=golden\npassword=golden\n[auth-libvirt-default]\ncredentials=x\n")):
        with open(os.path.join(folder, name), "w", encoding="ascii") as out:
            out.write(text)
    os.environ["SASL_CONF_PATH"] = folder
    base.ENV["LIBVIRT_AUTH_FILE"] = folder + "/auth.conf"
    peer = WithPasswords()
    try:
        if not peer.is_there():
            print(peer.virsh("version"))
    finally:
        peer.process.terminate()
        peer.process.wait(120)


def main():
    test = sys.argv.pop(1)
    os.environ["IN_NAMESPACE"] = "yes"
    sys.path.insert(0, SYSTEM)
    import virsh_commands as base

    def libvirtd_is_there(self, plain=base.Libvirtd.is_there):
        there = plain(self)
        if there and not self.uri.endswith(".recorded"):
            through_a_proxy(self)
        return there

    def ours_begins(self, plain=base.Ours.__init__):
        plain(self)
        if os.environ.get("RECORD") == "ours":
            through_a_proxy(self)

    if os.environ.get("RECORD") != "ours":
        base.Libvirtd.is_there = libvirtd_is_there
    base.Ours.__init__ = ours_begins
    try:
        if test == "sasl":
            with_a_password(base)
        elif test == "virsh_commands":
            base.run_beside(base.make_tests)
        else:
            runpy.run_path(os.path.join(SYSTEM, test + ".py"), run_name="__main__")
    except SystemExit:
        pass
    wire, accepted = (os.path.join(HERE, name) for name in ("wire.txt", "accepted.txt"))
    if os.environ.get("RECORD") == "ours":
        record.write_golden(accepted, [wire])
    else:
        record.write_golden(wire)


main()
