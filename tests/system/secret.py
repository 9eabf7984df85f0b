#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets by virsh, python3-libvirt, REST and ruche: values that stay, and where they must not be seen.

    secret.py RUCHED RUCHE RUCHE-VMM RUCHE-IMG
"""
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import libvirt  # noqa: E402
import tap  # noqa: E402

RUCHED, RUCHE, VMM, IMG = (os.path.abspath(p) for p in sys.argv[1:5])
FOLDER = tempfile.TemporaryDirectory(prefix="ruche-secret-")
RUN, STATE = os.path.join(FOLDER.name, "run"), os.path.join(FOLDER.name, "state")
URI = f"qemu+unix:///system?socket={RUN}/libvirt-sock"
RO_URI = f"qemu+unix:///system?socket={RUN}/libvirt-sock-ro&mode=auto"
VALUE = b"not-to-be-seen-" + bytes(range(256))
KINDS = {"volume": "volume", "iscsi": "target", "ceph": "name", "tls": "name", "vtpm": "name"}


def path(name):
    return os.path.join(FOLDER.name, name)


class Daemon:
    def __init__(self):
        self.process = None
        self.log = path("log")
        with open(path("conf"), "w", encoding="utf-8") as f:
            f.write(f"[machines]\nvmm={VMM}\nimg={IMG}\n[libvirt]\nusual_place=false\n")
        self.begin()

    def begin(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([RUCHED, "--system", "--config", path("conf"), "--runtime-dir", RUN, "--state-dir", STATE],
                                            stderr=log, start_new_session=True)
        deadline = time.monotonic() + 120
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < deadline, open(self.log, encoding="utf-8").read()[-2000:]
            time.sleep(0.01)

    @staticmethod
    def answers():
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(f"{RUN}/libvirt-sock") == 0

    def end(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(120)

    def again(self):
        self.end()
        self.begin()


def virsh(*args, ok=True, uri=URI):
    r = subprocess.run(["virsh", "-c", uri, *args], capture_output=True, text=True, timeout=600, check=False, stdin=subprocess.DEVNULL)
    assert (r.returncode == 0) == ok, f"virsh {' '.join(args)}: {r.stdout}{r.stderr}"
    return r.stdout if ok else r.stderr


def refused(*args, says, uri=URI):
    text = virsh(*args, ok=False, uri=uri)
    assert says in text, f"virsh {' '.join(args)}: '{says}' is not in: {text}"


def ruche(*args, ok=True, value=None):
    r = subprocess.run([RUCHE, "--connect", f"{RUN}/ruche.sock", *args], capture_output=True, timeout=600, check=False,
                       **({"input": value} if value is not None else {"stdin": subprocess.DEVNULL}))
    assert (r.returncode == 0) == ok, f"ruche {' '.join(args)}: {r.stdout}{r.stderr}"
    return (r.stdout if ok else r.stderr).decode()


def xml(kind="volume", name="/v", head="", more=""):
    return f"<secret {head}>{more}<usage type='{kind}'><{KINDS[kind]}>{name}</{KINDS[kind]}></usage></secret>"


def usage(kind):
    return "/for-volume" if kind == "volume" else f"for-{kind}"


def file(name, data):
    with open(path(name), "wb") as f:
        f.write(data)
    return path(name)


def define(text):
    said = virsh("secret-define", file("s.xml", text.encode()))
    return re.search(r"Secret (\S+) created", said).group(1)


def valid(text):
    r = subprocess.run(["virt-xml-validate", file("valid.xml", text.encode()), "secret"], capture_output=True, text=True, check=False, timeout=600)
    assert r.returncode == 0, r.stdout + r.stderr + text


def files_with(needle):
    """Of all that the manager keeps, what holds these bytes."""
    found = []
    for top in (RUN, STATE, path("log")):
        for folder, _, names in os.walk(top) if os.path.isdir(top) else [(os.path.dirname(top), [], [os.path.basename(top)])]:
            for name in names:
                where = os.path.join(folder, name)
                try:
                    if os.path.isfile(where):
                        with open(where, "rb") as f:
                            if needle in f.read():
                                found.append(where)
                except FileNotFoundError:  # it went meanwhile
                    pass
    return found


def commands(_daemon):
    uuids = {}
    for kind in KINDS:
        uuids[kind] = define(xml(kind, usage(kind), more="<description>a &amp; b</description>"))
        text = virsh("secret-dumpxml", uuids[kind])
        assert f"<{KINDS[kind]}>{usage(kind)}</{KINDS[kind]}>" in text and "ephemeral='no' private='no'" in text, text
        valid(text)
        virsh("secret-define", file("s.xml", text.encode()), "--validate")
    plain = define("<secret/>")
    valid(virsh("secret-dumpxml", plain))
    said = virsh("secret-list")
    for kind, uuid in uuids.items():
        assert re.search(rf"^ {uuid} +{kind} +{usage(kind)}$", said, re.MULTILINE), said
    assert re.search(rf"^ {plain} +Unused$", said, re.MULTILINE), said
    assert uuids["ceph"] not in virsh("secret-list", "--ephemeral") and uuids["ceph"] in virsh("secret-list", "--no-ephemeral", "--no-private")
    refused("secret-get-value", plain, says="does not have a value")
    virsh("secret-set-value", uuids["ceph"], "--file", file("value", VALUE), "--plain")
    assert base64.b64decode(virsh("secret-get-value", uuids["ceph"])) == VALUE
    refused("secret-define", file("s.xml", xml("ceph", "for-ceph").encode()), says="already defined for use with for-ceph")
    refused("secret-define", file("s.xml", xml("ceph", "x", more=f"<uuid>{plain}</uuid>").encode()), says="already defined for use")
    refused("secret-define", file("s.xml", b"<secret><usage type='moon'/></secret>"), says="moon")
    refused("secret-define", file("s.xml", b"<secret><usage type='ceph'/></secret>"), says="name")
    for uuid in [*uuids.values(), plain]:
        assert f"Secret {uuid} deleted" in virsh("secret-undefine", uuid)
    refused("secret-dumpxml", plain, says="Secret not found")
    assert "lifecycle\nvalue-changed" in virsh("secret-event", "--list")


def rights(_daemon):
    hidden, shown = define(xml("tls", "hidden", "private='yes'")), define(xml("tls", "shown"))
    for uuid in (hidden, shown):
        virsh("secret-set-value", uuid, "--file", file("value", VALUE), "--plain")
    refused("secret-get-value", hidden, says="is private")
    refused("secret-define", file("s.xml", xml("tls", "hidden", more=f"<uuid>{hidden}</uuid>").encode()), says="private")
    with_rights = libvirt.open(URI)
    try:
        with_rights.secretLookupByUUIDString(hidden).value()
        raise AssertionError("a private value was given back")
    except libvirt.libvirtError as e:
        assert e.get_error_code() == libvirt.VIR_ERR_INVALID_SECRET, e
    large = with_rights.secretLookupByUsage(libvirt.VIR_SECRET_USAGE_TYPE_TLS, "shown")
    assert large.UUIDString() == shown and large.value() == VALUE
    for size in (1, 65536):
        large.setValue(b"\0" * size)
        assert large.value() == b"\0" * size, size
    try:
        large.setValue(b"x" * 65537)
        raise AssertionError("a value over the limit was taken")
    except libvirt.libvirtError:
        pass
    with_rights.close()
    assert shown in virsh("secret-list", uri=RO_URI) and "private='yes'" in virsh("secret-dumpxml", hidden, uri=RO_URI)
    for line in (("secret-get-value", shown), ("secret-undefine", shown), ("secret-set-value", shown, "--file", path("value"))):
        assert "read-only" in virsh(*line, ok=False, uri=RO_URI) or "forbidden" in virsh(*line, ok=False, uri=RO_URI)
    for uuid in (hidden, shown):
        virsh("secret-undefine", uuid)


def where_it_lies(daemon):
    uuid = define(xml("iscsi", "kept"))
    virsh("secret-set-value", uuid, "--file", file("value", VALUE), "--plain")
    coded = base64.b64encode(VALUE)
    places = files_with(coded)
    assert len(places) == 1 and os.stat(places[0]).st_mode & 0o777 == 0o600, places
    assert os.stat(os.path.dirname(places[0])).st_mode & 0o777 == 0o700, places
    assert not files_with(VALUE[:15]), files_with(VALUE[:15])
    daemon.again()
    assert base64.b64decode(virsh("secret-get-value", uuid)) == VALUE
    virsh("secret-undefine", uuid)
    assert not files_with(coded) and not files_with(VALUE[:15])
    os.makedirs(os.path.dirname(places[0]), exist_ok=True)
    with open(places[0], "wb") as left:
        left.write(coded)
    daemon.again()
    assert not os.path.exists(places[0]), "a value without its secret stayed"


def ephemeral(daemon):
    uuid = define(xml("vtpm", "short", "ephemeral='yes'"))
    virsh("secret-set-value", uuid, "--file", file("value", VALUE), "--plain")
    assert base64.b64decode(virsh("secret-get-value", uuid)) == VALUE and uuid in virsh("secret-list", "--ephemeral")
    assert not files_with(base64.b64encode(VALUE)) and not files_with(uuid.encode() + b"</uuid>")
    stored = xml("vtpm", "short", more=f"<uuid>{uuid}</uuid>")
    virsh("secret-define", file("s.xml", stored.encode()))
    assert len(files_with(base64.b64encode(VALUE))) == 1, "it is stored now"
    virsh("secret-define", file("s.xml", stored.replace("<secret ", "<secret ephemeral='yes' ").encode()))
    assert not files_with(base64.b64encode(VALUE)), "it is not stored any more"
    daemon.again()
    refused("secret-dumpxml", uuid, says="Secret not found")


def events(_daemon):
    libvirt.virEventRegisterDefaultImpl()
    stop, seen = [], []
    loop = threading.Thread(target=lambda: [libvirt.virEventRunDefaultImpl() for _ in iter(lambda: bool(stop), True)], daemon=True)
    loop.start()
    listener = libvirt.open(URI)
    ids = [listener.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_LIFECYCLE, lambda _c, s, e, d, _o: seen.append((s.usageType(), s.usageID(), e, d)), None),
           listener.secretEventRegisterAny(None, libvirt.VIR_SECRET_EVENT_ID_VALUE_CHANGED, lambda _c, s, _o: seen.append((s.usageType(), s.usageID(), "value")), None)]
    uuid = define(xml("ceph", "told"))
    virsh("secret-set-value", uuid, "--file", file("value", VALUE), "--plain")
    virsh("secret-undefine", uuid)
    deadline = time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert seen == [(2, "told", 0, 0), (2, "told", "value"), (2, "told", 1, 0)], seen
    for i in ids:
        listener.secretEventDeregisterAny(i)
    listener.close()
    stop.append(True)


def by_rest(_daemon):
    uuid = ruche("secret", "define", "--type", "volume", "--usage", "/images/a", "--description", "mine").strip()
    ruche("secret", "set-value", uuid, value=VALUE)
    assert base64.b64decode(virsh("secret-get-value", uuid)) == VALUE
    ruche("secret", "set-value", uuid, "--file", file("value", b"other"))
    assert base64.b64decode(virsh("secret-get-value", uuid)) == b"other"
    listed = ruche("secret", "list", "--json")
    row = next(r for r in json.loads(listed)["secrets"] if r["uuid"] == uuid)
    assert row["has_value"] and row["usage"] == "/images/a" and row["description"] == "mine", row
    assert "other" not in listed and base64.b64encode(b"other").decode() not in listed, listed
    assert re.search(rf"^{uuid} +volume +/images/a +yes +no +no", ruche("secret", "list"), re.MULTILINE)
    assert "<volume>/images/a</volume>" in ruche("secret", "xml", uuid)
    assert "at most" in ruche("secret", "set-value", uuid, value=b"x" * 65537, ok=False)
    assert "give --type" in ruche("secret", "define", ok=False)
    ruche("secret", "delete", uuid)
    assert "not found" in ruche("secret", "delete", uuid, ok=False).lower() or "no secret" in ruche("secret", "delete", uuid, ok=False)


def killed(daemon):
    """Whatever moment the manager dies in: each secret is there with an old or a new value, or gone with it."""
    for round_ in range(6):
        daemon.again()
        uuid = define(xml("volume", f"/k{round_}"))
        values = [b"%d " % i * 500 for i in range(4)]
        virsh("secret-set-value", uuid, "--file", file("value", values[0]), "--plain")
        done = []

        def work(uuid=uuid, values=values, done=done):
            try:
                s = libvirt.open(URI).secretLookupByUUIDString(uuid)
                for i in range(200):
                    s.setValue(values[i % 4])
                    done.append(i)
                s.undefine()
            except libvirt.libvirtError:
                pass

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        deadline = time.monotonic() + 60
        while len(done) < round_ * 3 and worker.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        daemon.again()
        worker.join(60)
        if uuid in virsh("secret-list"):
            assert base64.b64decode(virsh("secret-get-value", uuid)) in values
            virsh("secret-undefine", uuid)
        end = time.monotonic() + 60
        while [n for n in files_with(b"") if uuid in n]:  # a file goes a moment after the answer
            assert time.monotonic() < end, files_with(b"")
            time.sleep(0.01)


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    daemon = Daemon()
    tests = {"virsh's commands": commands, "who may see a value": rights, "where a value lies": where_it_lies, "ephemeral": ephemeral,
             "events": events, "REST and ruche": by_rest, "killed": killed}
    try:
        tap.run({name: lambda test=test: test(daemon) for name, test in tests.items()})
    finally:
        daemon.end(signal.SIGTERM)
        FOLDER.cleanup()


main()
