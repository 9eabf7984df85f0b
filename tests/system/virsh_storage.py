#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Each of virsh's commands for pools, volumes and secrets once against ruched, beside Debian's libvirtd; what they print as XML is
valid by the published schemas. TAP.

    virsh_storage.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL
"""
import os
import re
import subprocess

import tap
import virsh_commands as base
from virsh_commands import ALONE, FORM, LABELS, STATUS, UUID, WORK

SECRET = "5d6f1b1e-0b7a-4a39-9d5a-6d1a7f7b9a02"
base.FILES = {
    "pool.xml": f"<pool type='dir'><name>p</name><uuid>{UUID}</uuid><target><path>@pool</path></target></pool>",
    "no-target.xml": "<pool type='dir'><name>bad</name></pool>",
    "no-type.xml": "<pool type='nix'><name>bad</name><target><path>@pool</path></target></pool>",
    "slash.xml": "<pool type='dir'><name>a/b</name><target><path>@pool</path></target></pool>",
    "host.xml": "<source><host name='127.0.0.1'/></source>",
    "volume.xml": "<volume><name>w</name><capacity unit='MiB'>2</capacity><target><format type='qcow2'/><permissions><mode>0640</mode></permissions></target></volume>",
    "from.xml": "<volume><name>x</name><capacity unit='MiB'>1</capacity><target><format type='qcow2'/></target></volume>",
    "format.xml": "<volume><name>bad</name><capacity>1</capacity><target><format type='nix'/></target></volume>",
    "nameless.xml": "<volume><capacity>1</capacity></volume>",
    "data": "one two three four",
    "value": "hidden", "base64": "aGlkZGVu",
    "secret.xml": f"<secret ephemeral='no' private='no'><description>of a volume</description><uuid>{SECRET}</uuid><usage type='volume'><volume>/a/volume</volume></usage></secret>",
    "private.xml": "<secret ephemeral='yes' private='yes'><usage type='ceph'><name>a cluster</name></usage></secret>",
    "twice.xml": "<secret><usage type='volume'><volume>/a/volume</volume></usage></secret>",
    "usage.xml": "<secret><usage type='nix'><name>n</name></usage></secret>",
}
DUMP = ("pool-dumpxml p", "<path>", FORM)
POOLS = (
    ("pool-define @pool.xml --validate", "^Pool p defined from", FORM), ("pool-define @no-target.xml", "!target|path", STATUS), ("pool-define @no-type.xml", "!nix", STATUS),
    ("pool-define @slash.xml", "!a/b", STATUS), ("pool-define @no-type.xml --validate", "!", STATUS), ("pool-define @nothing", "!No such file", FORM),
    ("pool-define-as q dir --target @q --print-xml", "<name>q</name>", FORM), ("pool-define-as q dir --target @q", "^Pool q defined$", FORM),
    ("pool-define-as r dir --target @pool", "!'p'", STATUS), ("pool-list --all", r"^ p +inactive +no$", FORM), ("pool-list", r"\A Name   State   Autostart\n-+\s*\Z", FORM),
    ("pool-list --all --details", r"^ p +inactive +no +yes +- +- +-$", FORM), ("pool-list --inactive --name", "^p *\nq *$", FORM), ("pool-list --all --uuid", UUID, FORM),
    ("pool-list --all --persistent --no-autostart --type dir --name", "^p *\nq *$", FORM), ("pool-list --all --type logical,rbd --name", r"\A\s*\Z", FORM), ("pool-list --type nix", "!", FORM),
    ("pool-uuid p", UUID, FORM), (f"pool-name {UUID}", "^p$", FORM), ("pool-uuid nix", "!'nix'", FORM), ("pool-name nix", "!'nix'", FORM), DUMP, ("pool-dumpxml p --inactive", "<path>", FORM),
    ("pool-dumpxml p --xpath //target", "^  <path>", FORM), ("pool-dumpxml nix", "!'nix'", FORM), ("pool-edit p", "not changed", FORM),
    ("pool-info p", r"^Name: +p\nUUID: +8f0f8a9e.*\nState: +inactive\nPersistent: +yes\nAutostart: +no$", FORM), ("pool-autostart p", "^Pool p marked as autostarted$", FORM),
    ("pool-list --all --autostart --name", "^p *$", FORM), ("pool-autostart p --disable", "^Pool p unmarked as autostarted$", FORM), ("pool-autostart nix", "!'nix'", FORM),
    ("pool-refresh p", "!not active", STATUS), ("pool-destroy p", "!not active", STATUS), ("pool-build q", "^Pool q built$", FORM), ("pool-build q --overwrite", "!", STATUS),
    ("pool-build q --overwrite --no-overwrite", "!flags", STATUS), ("pool-delete q", "^Pool q deleted$", FORM), ("pool-start q", "!", STATUS), ("pool-start q --build", "^Pool q started$", FORM),
    ("pool-start p", "^Pool p started$", FORM), ("pool-start p", "!already active", STATUS), ("pool-build p", "!active", STATUS), ("pool-delete p", "!active", STATUS),
    ("pool-undefine p", "!active", STATUS), ("pool-create @pool.xml", "!'p'", STATUS), ("pool-refresh p", "^Pool p refreshed$", FORM),
    ("pool-info p", r"^State: +running\nPersistent: +yes\nAutostart: +no\nCapacity: +\d+\.\d+ .iB\nAllocation: .*\nAvailable: ", FORM), ("pool-info p --bytes", r"^Capacity: +\d+\n", FORM),
    ("pool-list", r"^ p +active +no$", FORM), ("pool-list --details", r"^ p +running +no +yes +\d+\.\d+ .iB", FORM), DUMP,
    ("pool-dumpxml p --inactive", "<capacity unit='bytes'>0<", ALONE),  # the peer tells what is, not what was defined
    ("pool-capabilities", "<storagepoolCapabilities>", STATUS), ("find-storage-pool-sources dir", "!'dir'", STATUS), ("find-storage-pool-sources-as dir", "!'dir'", STATUS),
    ("find-storage-pool-sources nix", "!nix", STATUS), ("find-storage-pool-sources netfs", "!", STATUS), ("find-storage-pool-sources iscsi @nothing", "!", STATUS),
    ("pool-event --list", "^lifecycle\nrefresh$", FORM), ("pool-event --event lifecycle --timeout 1", "!timed out", FORM), ("pool-event p --event nix", "!unknown event type nix", FORM),
    ("pool-destroy q", "^Pool q destroyed$", FORM), ("pool-undefine q", "^Pool q has been undefined$", FORM), ("pool-info q", "!'q'", STATUS), ("pool-delete nix", "!'nix'", FORM),
    ("pool-create-as t dir --target @t --build --print-xml", "<name>t</name>", FORM), ("pool-create-as t dir --target @t", "!", STATUS), ("pool-list --all --name", r"\Ap *\s*\Z", FORM),
    ("pool-create-as t dir --target @t --build", "^Pool t created$", FORM), ("pool-info t", r"^State: +running\nPersistent: +no$", FORM), ("pool-list --transient --name", "^t *$", FORM),
    ("pool-autostart t", "!transient|persistent", STATUS), ("pool-undefine t", "!", STATUS), ("pool-destroy t", "^Pool t destroyed$", FORM), ("pool-start t", "!'t'", FORM),
)
VOLUMES = (
    ("vol-list p", r"\A Name   Path\n-+\s*\Z", FORM), ("vol-create-as p v 1M", "^Vol v created$", FORM), ("vol-create-as p v 1M", "!'v'", STATUS), ("vol-create-as p v 1M --print-xml", "<name>v</name>", FORM),
    ("vol-create-as p q 4M --format qcow2 --prealloc-metadata", "^Vol q created$", FORM), ("vol-create-as p o 4M --format qcow2 --backing-vol v --backing-vol-format raw", "^Vol o created$", FORM),
    ("vol-create-as p a 2M --allocation 1M", "^Vol a created$", FORM), ("vol-create-as p a/b 1M", "!a/b", STATUS), ("vol-create-as p n 1M --format nix", "!nix", STATUS),
    ("vol-create-as p n 1M --backing-vol nix", "!nix", STATUS), ("vol-create-as p n 1X", "!1X", FORM), ("vol-create-as nix n 1M", "!'nix'", STATUS),
    ("vol-create p @volume.xml", "^Vol w created from", FORM), ("vol-create p @volume.xml", "!'w'", STATUS), ("vol-create p @format.xml", "!nix", STATUS), ("vol-create p @nameless.xml", "!name", STATUS),
    ("vol-create p @from.xml --validate", "^Vol x created from", ALONE), ("vol-delete x --pool p", "deleted$", ALONE),  # the peer knows the flag not here
    ("pool-refresh p", "refreshed$", FORM),
    ("vol-list p", r"^ v +/\S+/pool/v$", FORM), ("vol-list p --details", r"^ w +\S+/w +file +2\.00 MiB", STATUS), ("vol-list nix", "!'nix'", FORM),
    *((f"vol-dumpxml {name} --pool p", f"<name>{name}</name>", LABELS if name in "qow" else FORM) for name in "vaqow"), ("vol-dumpxml v p --xpath //format", "^<format type=.raw./>$", FORM),
    ("vol-info v --pool p", r"^Name: +v\nType: +file\nCapacity: +1\.00 MiB\nAllocation: ", FORM), ("vol-info v --pool p --bytes", r"^Capacity: +1048576 bytes$", FORM),
    ("vol-info a --pool p --bytes --physical", r"^Physical: +\d+ bytes$", FORM), ("vol-info nix --pool p", "!'nix'", STATUS), ("vol-info @pool/v", r"^Name: +v$", FORM),
    ("vol-key v --pool p", "/pool/v$", FORM), ("vol-path v --pool p", "/pool/v$", FORM), ("vol-name @pool/v", "^v$", FORM), ("vol-name @pool/nix", "!", STATUS), ("vol-pool @pool/v", "^p$", FORM),
    ("vol-pool @pool/v --uuid", UUID, FORM), ("vol-pool @pool/nix", "!", STATUS), ("vol-path nix --pool p", "!'nix'", STATUS), ("vol-key nix --pool p", "!'nix'", STATUS),
    ("vol-clone v c --pool p", "^Vol c cloned from v$", FORM), ("vol-clone q d --pool p --prealloc-metadata", "^Vol d cloned from q$", FORM), ("vol-clone v c --pool p", "!'c'", STATUS),
    ("vol-clone v e --pool p --print-xml", "<name>e</name>", FORM), ("vol-create-from p @from.xml v --inputpool p", "^Vol x created from input vol v$", FORM),
    ("vol-create-from p @from.xml nix --inputpool p", "!'nix'", STATUS), ("vol-dumpxml d --pool p", "<compat>1.1</compat>", LABELS), ("vol-dumpxml x --pool p", "<name>x</name>", LABELS),
    ("vol-resize v 3M --pool p", "^Size of volume 'v' successfully changed to 3M$", FORM), ("vol-resize v 1M --pool p --delta", "^Size of volume 'v' successfully changed by 1M$", FORM),
    ("vol-info v --pool p", r"^Capacity: +4\.00 MiB$", FORM), ("vol-resize v 1M --pool p", "!", STATUS), ("vol-resize v 1M --pool p --shrink", "changed to 1M$", FORM),
    ("vol-resize v 2M --pool p --allocate", "changed to 2M$", FORM), ("vol-resize q 8M --pool p", "changed to 8M$", FORM), ("vol-dumpxml q --pool p", "8388608</capacity>", LABELS),
    ("vol-upload v @data --pool p", "", FORM), ("vol-upload v @data --pool p --offset 1048576 --length 18", "", FORM), ("vol-upload v @data --pool p --length 7", "!", STATUS), ("vol-upload v @nothing --pool p", "!cannot read", FORM),
    ("vol-upload nix @data --pool p", "!'nix'", STATUS), ("vol-download v @back --pool p --offset 0 --length 18", "", FORM), ("vol-upload c @back --pool p", "", FORM),
    ("vol-download v @sparse --pool p --sparse", "", FORM), ("vol-upload v @sparse --pool p --sparse", "", FORM),
    ("vol-upload c @sparse --pool p", "!", ALONE), ("vol-info c --pool p", r"^Capacity: +1\.00 MiB$", ALONE),  # the peer lets it grow
    ("vol-download v @late --pool p --offset 9437184", "!", ALONE),  # the peer gives nothing
    ("vol-wipe v --pool p", "^Vol v wiped$", FORM), ("vol-wipe v --pool p --algorithm nix", "!Unsupported algorithm|nix", FORM), ("vol-wipe nix --pool p", "!'nix'", STATUS),
    ("vol-info v --pool p --bytes", r"^Capacity: +2097152 bytes$", FORM), ("vol-delete nix --pool p", "!'nix'", STATUS), ("vol-delete o --pool p --delete-snapshots", "!", STATUS),
    *((f"vol-delete {name} --pool p", f"^Vol {name} deleted$", FORM) for name in "oqawcdx"), ("vol-delete @pool/v", "^Vol .*/v deleted$", FORM), ("vol-list p", r"\A Name   Path\n-+\s*\Z", FORM),
    ("pool-destroy p", "^Pool p destroyed$", FORM), ("vol-list p", "!not active", STATUS), ("vol-create-as p v 1M", "!not active", STATUS), ("pool-undefine p", "^Pool p has been undefined$", FORM),
)
SECRETS = (
    ("secret-list", r"\A UUID   Usage\n-+\s*\Z", FORM), ("secret-define @secret.xml --validate", f"^Secret {SECRET} created$", FORM), ("secret-define @secret.xml", f"^Secret {SECRET} created$", FORM),
    ("secret-define @twice.xml", "!/a/volume", STATUS), ("secret-define @usage.xml", "!nix", STATUS), ("secret-define @usage.xml --validate", "!", STATUS), ("secret-define @nothing", "!No such file", FORM),
    ("secret-define @private.xml", "^Secret .* created$", FORM), ("secret-list", rf"^ {SECRET} +volume /a/volume$", STATUS), ("secret-list --private --ephemeral", "ceph a cluster$", FORM),
    ("secret-list --no-private --no-ephemeral", rf"^ {SECRET} +volume /a/volume$", FORM), (f"secret-dumpxml {SECRET}", "<description>of a volume</description>", FORM),
    ("secret-dumpxml nix", "!'nix'", FORM), (f"secret-get-value {SECRET}", "!", STATUS), (f"secret-set-value {SECRET} --base64 aGlkZGVu", "Secret value set", FORM),
    (f"secret-get-value {SECRET}", "^aGlkZGVu$", FORM), (f"secret-set-value {SECRET} --file @base64", "Secret value set", FORM), (f"secret-get-value {SECRET}", "^aGlkZGVu$", FORM),
    (f"secret-set-value {SECRET} --file @value --plain", "Secret value set", FORM), (f"secret-get-value {SECRET} --plain", r"\Ahidden\s*\Z", FORM),
    (f"secret-set-value {SECRET}", "!", STATUS), (f"secret-set-value {UUID} aGlkZGVu", "!", STATUS),
    ("secret-event --list", "^lifecycle\nvalue-changed$", FORM), (f"secret-event {SECRET} --event lifecycle --timeout 1", "!timed out", FORM),
    (f"secret-undefine {SECRET}", f"^Secret {SECRET} deleted$", FORM), (f"secret-undefine {SECRET}", "!", STATUS), (f"secret-dumpxml {SECRET}", "!", STATUS),
)
SCHEMAS = (("pool-capabilities", "storagepoolcaps"), ("pool-", "storagepool"), ("vol-", "storagevol"), ("secret-", "secret"))


def valid_rows(rows, ours, beside):
    """The rows, and by its schema each description that ours gave; --print-xml is virsh's own."""
    base.try_rows(rows, ours, beside)
    count = 0
    for number, (line, _pattern, _how) in enumerate(rows):
        status, out, _err = ours.said[number]
        if status or "--print-xml" in line or not re.match("<(pool|volume|secret|storagepoolCapabilities)[ >]", out):
            continue
        with open(os.path.join(WORK, "printed.xml"), "w", encoding="utf-8") as f:
            f.write(out)
        schema = next(name for start, name in SCHEMAS if line.startswith(start))
        done = subprocess.run(["virt-xml-validate", f.name, schema], text=True, check=False, capture_output=True)
        assert not done.returncode, f"virsh {line}: {out}{done.stderr}"
        count += 1
    assert count, "nothing was printed as XML"


def make_tests(ours, beside):
    return {"pools": lambda: valid_rows(POOLS, ours, beside), "volumes": lambda: valid_rows(VOLUMES, ours, beside), "secrets": lambda: valid_rows(SECRETS, ours, beside),
            "no command is forgotten": lambda: base.all_have_rows(("pool", "volume", "secret"), POOLS + VOLUMES + SECRETS)}


base.run_beside(make_tests)
