#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Networks on a kernel that has all schedulers and policers; ../network.py has all other cases."""
import re

from here import main, sh, virsh

FAST = """<network><name>fast</name><bridge name='fast0'/><bandwidth><inbound average='{rate}'/><outbound average='{rate}'/></bandwidth>
<ip address='192.168.77.1' prefix='24'/></network>"""


def limits(rate):
    """What the kernel has of a network's limits, bit by bit: its class's rate, its policer's."""
    with open("/root/fast.xml", "w", encoding="ascii") as f:
        f.write(FAST.format(rate=rate))
    virsh("net-create /root/fast.xml")
    shown = sh("tc class show dev fast0"), sh("tc filter show dev fast0 parent ffff:")
    virsh("net-destroy fast")
    return shown


def test_fast():
    """Rates below and above 4 GiB/s, which 32 bits do not hold."""
    for rate, bits in ((1000, "8192Kbit"), (4 << 20, "34359(738K|M)bit"), (8 << 20, "68719(476K|M)bit")):
        for shown in limits(rate):
            assert re.search(f"rate {bits} ", shown), f"{rate} KiB/s: {bits} is not in {shown}"


if __name__ == "__main__":
    main({"fast limits": test_fast})
