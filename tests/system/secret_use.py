#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What secrets are for: encrypted volumes, machines on them, targets and servers with passwords; and that no value is seen on a
command line, in a log or in a file of the manager.

    secret_use.py RUCHED RUCHE-VMM RUCHE-IMG PAYLOAD    the payload is tests/guest/disks.c, which writes for ever
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402
from manager import Manager  # noqa: E402

RUCHED, VMM, IMG, PAYLOAD = (os.path.abspath(p) for p in sys.argv[1:5])
VALUE, OTHER = "open-sesame-4711", "quite-another-0815"
MIB = 1 << 20
PKI = tap.folder("secret-use-pki-")
M = Manager(RUCHED, f"[machines]\nvmm={VMM}\nimg={IMG}\ntls_dir={PKI}\ntls_secret=key of the clients\n")
URI = f"qemu+unix:///session?socket={M.run}/libvirt-sock"
FOLDER = tempfile.mkdtemp(prefix="secret-use-", dir=M.folder.name)
QEMU = "/usr/bin/qemu-system-x86_64"
SEEN = set()  # command lines that had a value


def watch_processes(stop):
    """Every command line that there is, again and again."""
    while not stop:
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as f:
                    line = f.read()
            except (OSError, NotADirectoryError):
                continue
            if (VALUE.encode() in line or OTHER.encode() in line) and b"secret_use" not in line:
                SEEN.add(line)
        time.sleep(0.02)


def error_of(call):
    try:
        call()
    except libvirt.libvirtError as e:
        return str(e)
    raise AssertionError("it was not refused")


def secret(conn, usage, name, value=VALUE):
    tag = {"volume": "volume", "iscsi": "target", "ceph": "name", "tls": "name"}[usage]
    s = conn.secretDefineXML(f"<secret private='yes'><usage type='{usage}'><{tag}>{name}</{tag}></usage></secret>")
    if value:
        s.setValue(value.encode())
    return s


def key(where):
    return f"<encryption format='luks'><secret type='passphrase' {where}/></encryption>"


def volume(name, form, encryption, mib=8, more=""):
    return (f"<volume><name>{name}</name><capacity unit='MiB'>{mib}</capacity><allocation>0</allocation>{more}"
            f"<target><format type='{form}'/>{encryption}</target></volume>")


def locked(path, form, value=VALUE):
    """Words for qemu-io and qemu-img."""
    with open(f"{FOLDER}/key", "w", encoding="ascii") as f:
        f.write(value)
    luks = "driver=luks,key-secret=k" if form == "raw" else "driver=qcow2,encrypt.format=luks,encrypt.key-secret=k"
    return ["--object", f"secret,id=k,file={FOLDER}/key", "--image-opts", f"{luks},file.driver=file,file.filename={path}"]


def qemu_io(command, *words, ok=True):
    r = subprocess.run(["qemu-io", "-c", command, *words], capture_output=True, text=True, timeout=120, check=False)
    good = r.returncode == 0 and "failed" not in r.stdout and "rror" not in r.stdout
    assert good == ok, r.stdout + r.stderr


def pool(conn):
    try:
        return conn.storagePoolLookupByName("p")
    except libvirt.libvirtError:
        os.makedirs(f"{FOLDER}/p", exist_ok=True)
        return conn.storagePoolCreateXML(f"<pool type='dir'><name>p</name><target><path>{FOLDER}/p</path></target></pool>")


def quick_image(name, form, mib=8):
    """An encrypted image whose key costs next to no time to check."""
    with open(f"{FOLDER}/key", "w", encoding="ascii") as f:
        f.write(VALUE)
    options = "key-secret=k,iter-time=10" if form == "raw" else "encrypt.format=luks,encrypt.key-secret=k,encrypt.iter-time=10"
    subprocess.run([IMG, "create", "-q", "-f", "luks" if form == "raw" else form, "--object", f"secret,id=k,file={FOLDER}/key", "-o",
                    options, f"{FOLDER}/p/{name}", f"{mib}M"], check=True, timeout=120)


# ---- volumes ----

def test_volumes(conn):
    """Made and described; qemu-io opens what we made."""
    p, s = pool(conn), secret(conn, "volume", "by-uuid")
    for form in ("raw", "qcow2"):
        v = p.createXML(volume(f"v.{form}", form, key(f"uuid='{s.UUIDString()}'")))
        text = v.XMLDesc()
        assert f"<format type='{form}'/>" in text and f"uuid='{s.UUIDString()}'" in text, text
        assert v.info()[1] == 8 * MIB, v.info()
        qemu_io("write -P 7 0 1M", *locked(v.path(), form))
    qemu_io("read -P 7 0 1M", *locked(v.path(), form, OTHER), ok=False)
    p.refresh()
    assert s.UUIDString() in p.storageVolLookupByName("v.raw").XMLDesc()


def test_copies(conn):
    """Those of others, by the secret that is for their path: found, grown, copied with another key and without one."""
    p, other = pool(conn), secret(conn, "volume", "other", OTHER)
    for form in ("raw", "qcow2"):
        name = f"found.{form}"
        quick_image(name, form)
        p.refresh()
        v = p.storageVolLookupByName(name)
        assert v.info()[1] == 8 * MIB and "<encryption format='luks'>" in v.XMLDesc(), v.XMLDesc()
        assert "is encrypted" in error_of(lambda v=v: v.resize(12 * MIB))
        s = secret(conn, "volume", v.path())
        assert s.UUIDString() in v.XMLDesc()
        v.resize(12 * MIB)
        assert p.storageVolLookupByName(name).info()[1] == 12 * MIB
        qemu_io("write -P 9 0 1M", *locked(v.path(), form))
        plain = p.createXMLFrom(volume(f"plain.{form}", "raw", ""), v)
        qemu_io("read -P 9 0 1M", "-f", "raw", plain.path())
    again = p.createXMLFrom(volume("again", "qcow2", key(f"uuid='{other.UUIDString()}'"), 16), v)
    assert again.info()[1] == 16 * MIB
    qemu_io("read -P 9 0 1M", *locked(again.path(), "qcow2", OTHER))


def test_refusals(conn):
    p, empty = pool(conn), secret(conn, "volume", "without-value", None)
    nobody = "11111111-2222-4333-8444-555555555555"
    for encryption, says in ((key(f"uuid='{nobody}'"), nobody), (key("usage='never-said'"), "never-said"),
                             (key(f"uuid='{empty.UUIDString()}'"), "does not have a value"),
                             ("<encryption format='luks'/>", "needs one <secret"),
                             ("<encryption format='qcow'/>", "'luks' can")):
        said = error_of(lambda e=encryption: p.createXML(volume("no", "raw", e)))
        assert says in said, said
    assert "can be encrypted" in error_of(lambda: p.createXML(volume("no", "vmdk", key("usage='by-uuid'"))))
    assert "no" not in p.listVolumes() and not [n for n in os.listdir(f"{FOLDER}/p") if n.startswith(".ruche")]


# ---- machines ----

PORTS = "<controller type='pci' model='pcie-root-port'/>" * 6


def domain(name, emulator, disks):
    return f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{PAYLOAD}</kernel><cmdline>x</cmdline></os><features><acpi/></features>
<devices><emulator>{emulator}</emulator>{disks}{PORTS}
<serial type='file'><source path='{FOLDER}/{name}.serial'/></serial><memballoon model='none'/></devices></domain>"""


def disk(target, form, path, encryption):
    return (f"<disk type='file' device='disk'><driver name='qemu' type='{form}'/><source file='{path}'>{encryption}</source>"
            f"<target dev='{target}' bus='virtio'/></disk>")


def wait_steps(name, seconds=300):
    end = time.monotonic() + seconds
    while not re.search(r"step \d+", open(f"{FOLDER}/{name}.serial", encoding="latin-1").read()
                        if os.path.exists(f"{FOLDER}/{name}.serial") else ""):
        assert time.monotonic() < end, "the guest does not write"
        time.sleep(0.05)


def run_machine(conn, emulator, name):
    """The guest writes to two encrypted disks; a third comes and goes; what it wrote is there, behind the key."""
    p, s = pool(conn), conn.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_VOLUME, "by-uuid")
    luks = key(f"uuid='{s.UUIDString()}'")
    forms = {"vda": "raw", "vdb": "qcow2", "vdc": "qcow2", "vdd": "raw"}
    for target, form in forms.items():
        quick_image(f"{name}-{target}", form)
    p.refresh()
    paths = {t: f"{FOLDER}/p/{name}-{t}" for t in forms}
    d = conn.createXML(domain(name, emulator, disk("vda", "raw", paths["vda"], luks) + disk("vdb", "qcow2", paths["vdb"], luks)))
    try:
        wait_steps(name)
        d.attachDevice(disk("vdc", "qcow2", paths["vdc"], luks))
        assert "vdc" in d.XMLDesc() and s.UUIDString() in d.XMLDesc()
        wrong = conn.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_VOLUME, "wrong").UUIDString()
        for _ in range(2):  # what is refused leaves nothing behind
            said = error_of(lambda: d.attachDevice(disk("vdd", "raw", paths["vdd"], key(f"uuid='{wrong}'"))))
            assert wrong in said and "vdd" in said, said
    finally:
        d.destroy()
    for target, form in (("vda", "raw"), ("vdb", "qcow2")):
        out = subprocess.run(["qemu-io", "-c", "read -v 0 512", *locked(paths[target], form)], capture_output=True, text=True,
                             timeout=120, check=True).stdout
        words = re.search(r"00000000:  ((?:[0-9a-f]{2} ){16})", out).group(1).split()
        assert words[:4] == words[4:8] != ["00"] * 4, out[:200]


def test_ours(conn):
    run_machine(conn, VMM, "ours")


def test_qemu(conn):
    if not os.path.exists(QEMU):
        raise tap.Skip("no qemu-system-x86_64")
    run_machine(conn, QEMU, "peer")


def test_wrong_keys(conn):
    p, wrong = pool(conn), conn.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_VOLUME, "wrong")
    path = f"{FOLDER}/p/ours-vda"
    for emulator in (VMM, QEMU):
        if not os.path.exists(emulator):
            continue
        text = domain("w", emulator, disk("vda", "raw", path, key(f"uuid='{wrong.UUIDString()}'")))
        said = error_of(lambda t=text: conn.createXML(t))
        assert wrong.UUIDString() in said and "vda" in said, said
        said = error_of(lambda e=emulator: conn.createXML(domain("w", e, disk("vda", "raw", path, key("usage='never-said'")))))
        assert "never-said" in said and "vda" in said, said
    assert p.isActive()


# ---- a server that wants certificates ----

def certtool(*words, template=""):
    with open(f"{PKI}/template", "w", encoding="ascii") as f:
        f.write(template + "expiration_days = 30\n")
    subprocess.run(["certtool", *words, "--template", f"{PKI}/template"], check=True, capture_output=True, timeout=120)


def make_certificates():
    """For both ends; the client's key is locked."""
    for role, template in (("ca", "cn = Test\nca\ncert_signing_key\n"), ("server", "cn = localhost\ndns_name = localhost\ntls_www_server\n"),
                           ("client", "cn = client\ntls_www_client\n")):
        certtool("--generate-privkey", "--ecc", "--outfile", f"{PKI}/{role}-key.pem")
        signed = ["--generate-self-signed"] if role == "ca" else ["--generate-certificate", "--load-ca-certificate", f"{PKI}/ca-cert.pem",
                                                                  "--load-ca-privkey", f"{PKI}/ca-key.pem"]
        certtool(*signed, "--load-privkey", f"{PKI}/{role}-key.pem", "--outfile", f"{PKI}/{role}-cert.pem", template=template)
    os.rename(f"{PKI}/client-key.pem", f"{PKI}/plain")
    certtool("--to-p8", "--load-privkey", f"{PKI}/plain", "--password", "of-a-test-only-0815", "--outfile", f"{PKI}/client-key.pem")
    os.unlink(f"{PKI}/plain")


def test_tls(conn):
    """An NBD server lets in who has a certificate; its key is locked by a secret: disks of it at the start and attached."""
    if not all(map(shutil.which, ("certtool", "qemu-nbd"))):
        raise tap.Skip("no certtool or qemu-nbd")
    make_certificates()
    sock, image = f"{FOLDER}/nbd", f"{FOLDER}/served"
    with open(image, "wb") as f:
        f.truncate(8 * MIB)
    server = subprocess.Popen(["qemu-nbd", "-t", "-e", "8", "-f", "raw", "-x", "served", "-k", sock, "--object",
                               f"tls-creds-x509,id=t,dir={PKI},endpoint=server,verify-peer=on", "--tls-creds", "t", image], stderr=subprocess.DEVNULL)
    text = ("<disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='nbd' name='served' tls='yes' tlsHostname='localhost'>"
            f"<host transport='unix' socket='{sock}'/></source><target dev='{{}}' bus='virtio'/></disk>")
    try:
        end = time.monotonic() + 120
        while not os.path.exists(sock):
            assert server.poll() is None and time.monotonic() < end
            time.sleep(0.02)
        for emulator in filter(os.path.exists, (VMM, QEMU)):
            name = "tls-" + os.path.basename(emulator)[:5]
            if emulator == VMM:
                assert "key of the clients" in error_of(lambda e=emulator: conn.createXML(domain("w", e, text.format("vda"))))
                secret(conn, "tls", "key of the clients", "of-a-test-only-0815")
            d = conn.createXML(domain(name, emulator, text.format("vda")))
            try:
                assert d.blockInfo("vda")[0] == 8 * MIB
                d.attachDevice(text.format("vdb"))
                assert d.blockInfo("vdb")[0] == 8 * MIB
            finally:
                d.destroy()
    finally:
        server.terminate()
        server.wait(60)


# ---- the tests ----

def test_nothing_is_seen(conn):
    """No command line had a value, and no file of the manager's has one but the secrets' own."""
    assert not SEEN, SEEN
    for top, _, names in os.walk(M.folder.name):
        for name in names:
            where = os.path.join(top, name)
            if name == "key" or not os.path.isfile(where):
                continue
            try:
                with open(where, "rb") as f:
                    data = f.read(4 * MIB)
            except FileNotFoundError:  # it went meanwhile
                continue
            assert VALUE.encode() not in data and OTHER.encode() not in data, where
    assert conn.isAlive()


def run(tests):
    conn = libvirt.open(URI)
    try:
        secret(conn, "volume", "wrong", OTHER)
        tap.run({name: lambda test=test: test(conn) for name, test in tests.items()})
    finally:
        conn.close()


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    stop = []
    watcher = threading.Thread(target=watch_processes, args=(stop,), daemon=True)
    watcher.start()
    try:
        run({"volumes": test_volumes, "copies": test_copies, "refusals": test_refusals, "a machine of ours": test_ours, "a machine of QEMU": test_qemu,
             "wrong keys": test_wrong_keys, "TLS": test_tls, "nothing is seen": test_nothing_is_seen})
    finally:
        stop.append(True)
        M.close()


main()
