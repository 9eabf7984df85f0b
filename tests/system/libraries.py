#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The libraries that the programs are linked with: those that every run needs. Others are loaded when something needs
them, since each costs every process its pages (GnuTLS with what it brings 2 MiB).

    libraries.py PROGRAM...
"""
import os
import re
import subprocess
import sys

import tap

MAY_NEED = {
    "ruched": "glib-2.0 gobject-2.0 gio-2.0 json-glib-1.0 expat nl-3",
    "ruche": "glib-2.0 gobject-2.0 gio-2.0 json-glib-1.0 soup-3.0",
    "ruche-vmm": "glib-2.0 gobject-2.0 json-glib-1.0 gnutls nettle deflate zstd uring slirp",
    "ruche-img": "glib-2.0 gobject-2.0 json-glib-1.0 gnutls nettle deflate zstd uring",
}
ALWAYS = "c m ld-linux-x86-64 asan ubsan tsan gcc_s"  # C's own; the sanitizers'


def check(program):
    dynamic = subprocess.run(["readelf", "-dW", program], stdout=subprocess.PIPE, check=True, text=True).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(?:lib)?([^\]]+?)\.so", dynamic))
    more = needed - set(MAY_NEED[os.path.basename(program)].split()) - set(ALWAYS.split())
    assert not more, f"{program} is linked with {', '.join(sorted(more))}"
    assert "glib-2.0" in needed, dynamic


tap.run({os.path.basename(p): lambda p=p: check(p) for p in sys.argv[1:]})
