#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""REST on a real ruched: every operation of its table, events, metrics, consoles, HTTPS, and peers that mean no good.

    rest.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL
"""
import base64
import hashlib
import http.client
import http.server
import json
import os
import re
import resource
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tap  # noqa: E402
from manager import Connection, Manager  # noqa: E402

RUCHED, VMM, IMG, KERNEL = (os.path.abspath(p) for p in sys.argv[1:5])
XML = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{kernel}</kernel></os>
<devices><emulator>{vmm}</emulator>{devices}<memballoon model='none'/></devices></domain>"""
M = Manager(RUCHED)
USED = set()  # operationIds that were called with success


def xml(name, memory=32, machine="microvm", devices=""):
    return XML.format(name=name, memory=memory, machine=machine, kernel=KERNEL, vmm=VMM, devices=devices)


def do(operation, status, method, path, body=None, **more):
    """An operation of the table, by its id."""
    answer = M.want(status, method, path, body, **more)
    USED.add(operation)
    return answer


def define(name, **more):
    return do("domain_define", 201, "POST", "/domains", {"xml": xml(name, **more)}).json


def gone(name):
    M.call("POST", f"/domains/{name}/destroy")
    do("domain_undefine", 200, "DELETE", f"/domains/{name}")
    M.refused(404, urllib.parse.unquote(name), "GET", f"/domains/{name}")


def image(name, size="8M"):
    path = os.path.join(M.folder.name, name)
    subprocess.run([IMG, "create", "-q", "-f", "qcow2", path, size], check=True)
    return path


# ---- the operations ----

def host():
    version = do("version", 200, "GET", "/version").json
    assert version["mode"] == "session" and version["libvirt"] == "9.0.0", version
    about = do("host", 200, "GET", "/host").json
    assert about["cpus"] >= 1 and about["memory"] > about["memory_free"] > 0, about
    assert about["uri"].endswith(f"?socket={M.run}/libvirt-sock"), about
    text = do("host_capabilities", 200, "GET", "/host/capabilities")
    assert text.text.startswith("<capabilities>") and "xml" in text.headers["Content-Type"]
    assert "debian" in do("image_list", 200, "GET", "/images").json["images"]


def life():
    made = define("life")
    assert made["state"] == "shut off" and "id" not in made, made
    began = do("domain_start", 200, "POST", "/domains/life/start", {"paused": True}).json
    assert began["state"] == "paused" and began["id"] >= 1, began
    assert do("domain_resume", 200, "POST", "/domains/life/resume").json["state"] == "running"
    assert do("domain_pause", 200, "POST", "/domains/life/pause").json["state"] == "paused"
    M.want(200, "POST", "/domains/life/resume")
    do("domain_reset", 200, "POST", "/domains/life/reset")
    M.refused(409, "life", "POST", "/domains/life/start")
    assert do("domain_destroy", 200, "POST", "/domains/life/destroy", {"graceful": False}).json["state"] == "shut off"
    M.refused(409, "life", "POST", "/domains/life/destroy")
    named = do("domain_rename", 200, "POST", "/domains/life/rename", {"new_name": "other life"}).json
    assert named["name"] == "other life" and named["uuid"] == made["uuid"]
    M.refused(404, "life", "GET", "/domains/life")
    assert do("domain_get", 200, "GET", "/domains/other%20life").json["uuid"] == made["uuid"]
    gone("other%20life")


def asked():
    """The guest is asked: that it was is all that is promised, this one has no ACPI."""
    define("asked", machine="q35")
    M.want(200, "POST", "/domains/asked/start")
    do("domain_shutdown", 200, "POST", "/domains/asked/shutdown", {"mode": "acpi"})
    do("domain_reboot", 200, "POST", "/domains/asked/reboot", {"mode": "acpi"})
    M.refused(400, "neither", "POST", "/domains/asked/shutdown", {"mode": "politely"})
    gone("asked")


def descriptions():
    body = xml("text")
    made = M.want(201, "POST", "/domains", body, headers={"Content-Type": "application/xml"}).json
    text = do("domain_xml", 200, "GET", "/domains/text/xml?inactive=true").text
    assert made["uuid"] in text and "<name>text</name>" in text
    again = M.want(201, "POST", "/domains", text, headers={"Content-Type": "application/xml"}).json
    assert again["uuid"] == made["uuid"]
    M.refused(400, "", "POST", "/domains", "<domain>", headers={"Content-Type": "application/xml"})
    gone("text")


def changes():
    define("change")
    body = {"memory": "24M", "max_memory": "64M", "vcpus": 2, "autostart": True, "title": "A title", "description": "More"}
    now = do("domain_set", 200, "PATCH", "/domains/change", body).json
    assert (now["memory"], now["max_memory"], now["vcpus"]) == (24 << 20, 64 << 20, 2), now
    assert now["autostart"] and now["title"] == "A title", now
    assert M.want(200, "PATCH", "/domains/change", {"vcpus": 1, "autostart": False, "title": ""}).json["vcpus"] == 1
    gone("change")


def devices():
    define("parts", machine="q35")
    disk = (f"<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{image('parts.qcow2')}'/>"
            "<target dev='vdb' bus='virtio'/></disk>")
    do("domain_attach", 200, "POST", "/domains/parts/attach", {"xml": disk})
    assert [d["target"] for d in M.want(200, "GET", "/domains/parts").json["disks"]] == ["vdb"]
    do("domain_detach", 200, "POST", "/domains/parts/detach", {"xml": disk})
    assert M.want(200, "GET", "/domains/parts").json["disks"] == []
    gone("parts")


def texts():
    define("texts", devices="<serial type='pty'/>")
    M.refused(404, "texts", "GET", "/domains/texts/log")
    M.want(200, "POST", "/domains/texts/start")
    log = do("domain_log", 200, "GET", "/domains/texts/log").text
    assert "-name guest=texts" in log, log
    do("domain_dmesg", 200, "GET", "/domains/texts/dmesg")
    stats = do("domain_stats", 200, "GET", "/domains/texts/stats").json
    assert stats["state.state"] == 1 and stats["vcpu.current"] == 1, stats
    M.refused(404, "metadata", "GET", "/domains/texts/ssh")
    gone("texts")


class Files(http.server.BaseHTTPRequestHandler):
    """One image, with ranges."""
    content = b""

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, body):
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first = int(wanted.group(1)) if wanted else 0
        last = int(wanted.group(2)) if wanted and wanted.group(2) else len(self.content) - 1
        data = self.content[first:last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{len(self.content)}")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def launches():
    base = image("base.qcow2", "16M")
    body = {"image": base, "name": "launched", "kernel": KERNEL, "network": "user", "memory": "64M", "ssh_keys": ["ssh-ed25519 AAAA me"]}
    job = M.job(do("launch", 202, "POST", "/launch", body))
    assert job["state"] == "done" and job["result"] == "launched", job
    about = M.want(200, "GET", "/domains/launched").json
    assert about["state"] == "running" and about["ssh"]["user"] == "ruche", about
    where = do("domain_ssh", 200, "GET", "/domains/launched/ssh").json
    assert where["host"] == "127.0.0.1" and where["port"] == about["ssh"]["port"] and where["uuid"] == about["uuid"]
    socket.create_connection((where["host"], where["port"]), 120).close()  # the machine's process listens there
    M.refused(409, "launched", "POST", "/launch", body)
    M.refused(409, "still there", "DELETE", "/launched/launched")
    without = {k: body[k] for k in ("image", "kernel", "memory")} | {"no_start": True}
    names = {M.job(M.want(202, "POST", "/launch", without))["result"] for _ in range(2)}
    assert names == {"base", "base-2"}, names
    for name in ("base", "base-2", "launched"):
        gone(name)
        do("launch_files_remove", 200, "DELETE", f"/launched/{name}")
    assert os.listdir(os.path.join(M.state, "machines")) == []


def launch_by_url():
    with open(image("web.qcow2", "4M"), "rb") as f:
        Files.content = f.read()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/a/some-disk.qcow2"
        body = {"image": url, "kernel": KERNEL, "no_start": True}
        job = M.job(M.want(202, "POST", "/launch", body))
        server.shutdown()
    assert job["state"] == "done" and job["result"] == "some-disk", job
    again = M.job(M.want(202, "POST", "/launch", body))  # the server is gone: the image is here
    assert again["state"] == "done" and again["result"] == "some-disk-2", again
    for name in ("some-disk", "some-disk-2"):
        gone(name)
        M.want(200, "DELETE", f"/launched/{name}")


def launches_that_fail():
    for body, status, word in (
            ({"image": "debain"}, None, "did you mean 'debian'"), ({"image": "/nowhere/x"}, None, "/nowhere/x"),
            ({"image": "debian", "network": "wifi"}, 400, "wifi"), ({"image": "debian", "user": "Root User"}, 400, "Root User"),
            ({"image": "debian", "name": "a/b"}, 400, "a/b"), ({"image": "debian", "memory": "1K"}, 400, "memory")):
        if status:
            M.refused(status, word, "POST", "/launch", body)
            continue
        job = M.job(M.want(202, "POST", "/launch", body))
        assert job["state"] == "failed" and word in job["message"], job
    small = {"image": image("big.qcow2", "64M"), "kernel": KERNEL, "disk": "1M"}
    assert "smaller" in M.job(M.want(202, "POST", "/launch", small))["message"]
    folder = os.path.join(M.state, "machines")
    assert not os.path.exists(folder) or os.listdir(folder) == []


def recipes(folder, text):
    """A manager whose images are a recipe of ours: found beside the program."""
    os.makedirs(os.path.join(folder, "images"))
    module = os.path.join(os.path.dirname(os.path.abspath(RUCHED)), "ruche-web.so")
    for name, source in {"ruched": RUCHED, "ruche-web.so": module, "ruche-vmm": VMM, "ruche-img": IMG}.items():
        subprocess.run(["cp", "--reflink=auto", source, os.path.join(folder, name)], check=True)
    with open(os.path.join(folder, "image-http.so"), "w", encoding="ascii"):
        pass  # no module
    path = os.path.join(folder, "images", "slow")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    os.chmod(path, 0o755)
    return Manager(os.path.join(folder, "ruched"))


def wait_until(condition, what, timeout_s=120):
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.02)


def building():
    """A build that is cancelled, and one in which the manager is killed: neither leaves a file or a process. A URL without its module."""
    word = f"{os.getpid()}.5"
    m = recipes(os.path.join(M.folder.name, "own"), f"#!/bin/sh\nmkdir \"$1/deep\"\n: >\"$1/deep/file\"\nsleep {word}\necho end\n")
    images = os.path.join(m.state, "images")

    def sleeps():
        return subprocess.run(["pgrep", "-f", f"^sleep {word}"], stdout=subprocess.DEVNULL, check=False).returncode == 0

    try:
        job = m.want(202, "POST", "/launch", {"image": "slow", "name": "one"}).json
        wait_until(sleeps, "the recipe does not run")
        now = m.want(200, "GET", f"/jobs/{job['id']}").json
        assert now["state"] == "running" and "building" in now["step"], now
        assert [j["id"] for j in m.want(200, "GET", "/jobs").json["jobs"]] == [job["id"]]
        m.want(200, "DELETE", f"/jobs/{job['id']}")
        ended = m.want(200, "GET", f"/jobs/{job['id']}?wait=60000").json
        assert ended["state"] == "cancelled", ended
        m.refused(409, "ended", "DELETE", f"/jobs/{job['id']}")
        USED.update({"job_get", "job_list", "job_cancel"})
        assert not sleeps() and os.listdir(images) == [], os.listdir(images)
        m.want(202, "POST", "/launch", {"image": "slow", "name": "one"})
        wait_until(sleeps, "the recipe does not run again")
        m.kill()
        half = os.path.join(m.state, "machines", "half")
        os.makedirs(half)
        for name in ("unfinished", "disk.qcow2"):
            open(os.path.join(half, name), "wb").close()
        m.start()
        assert os.listdir(images) == [] and not os.path.exists(half), os.listdir(images)
        job = m.job(m.want(202, "POST", "/launch", {"image": "https://127.0.0.1:1/disk.qcow2"}))
        assert job["state"] == "failed" and "driver https is a module that cannot be loaded (package libsoup-3.0-0)" in job["message"], job
    finally:
        m.close()
        subprocess.run(["pkill", "-x", "-f", f"sleep {word}"], check=False)  # the word is ours alone


# ---- what goes on ----

class Events:
    """GET /events, read line by line."""

    def __init__(self):
        self.connection = Connection(M.socket, 300)
        self.connection.request("GET", "/events")
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200 and self.answer.getheader("Content-Type") == "text/event-stream"

    def until(self, name, what):
        for _ in range(200):
            line = self.answer.readline().decode()
            assert line, "the stream ended"
            if line.startswith("data: "):
                event = json.loads(line[6:])
                if event["name"] == name and event.get("what") == what:
                    return event
        raise AssertionError(f"no event '{what}' of {name}")


def events():
    e = Events()
    define("seen")
    assert e.until("seen", "defined")["class"] == "domain"
    M.want(200, "POST", "/domains/seen/start")
    assert len(e.until("seen", "started")["uuid"]) == 36
    gone("seen")
    e.until("seen", "stopped")
    e.until("seen", "undefined")
    e.connection.close()


def metrics():
    define("odd")
    M.want(200, "POST", "/domains/odd/start")
    text = do("metrics", 200, "GET", "/metrics").text
    row = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-z_]+="(?:[^"\\\n]|\\.)*"(?:,[a-z_]+="(?:[^"\\\n]|\\.)*")*\})? (\S+)$')
    types, values = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert kind in ("gauge", "counter") and name not in types, line
            types[name] = kind
        elif not line.startswith("#"):
            found = row.match(line)
            assert found and found.group(1) in types, line
            values[found.group(1) + (found.group(2) or "")] = float(found.group(3))
    assert values['libvirt_domain_info_vstate{domain="odd"}'] == 1, values
    assert values['libvirt_domain_info_virtual_cpus{domain="odd"}'] == 1 and values["libvirt_up"] == 1
    assert values["ruche_host_memory_bytes"] > 1 << 28
    gone("odd")


def networks():
    """A network that lends a bridge: all that can be done to it without rights of the host."""
    text = "<network><name>lent</name><forward mode='bridge'/><bridge name='br-none'/></network>"
    assert do("network_define", 201, "POST", "/networks", {"xml": text}).json["mode"] == "bridge"
    assert "lent" in [n["name"] for n in do("network_list", 200, "GET", "/networks").json["networks"]]
    assert "<name>lent</name>" in do("network_xml", 200, "GET", "/networks/lent/xml?inactive=true").text
    assert do("network_set", 200, "PATCH", "/networks/lent", {"autostart": True}).json["autostart"]
    M.refused(409, "not active", "GET", "/networks/lent/leases")
    assert do("network_start", 200, "POST", "/networks/lent/start").json["active"]
    assert do("network_get", 200, "GET", "/networks/lent").json["ports"] == 0
    assert do("network_leases", 200, "GET", "/networks/lent/leases").json == {"leases": []}
    assert not do("network_stop", 200, "POST", "/networks/lent/stop").json["active"]
    do("network_undefine", 200, "DELETE", "/networks/lent")
    M.refused(404, "no network", "GET", "/networks/lent")


def filters():
    """A filter of a session: defined, looked at, changed, taken away; binding one needs an interface."""
    text = "<filter name='lab' chain='root'><filterref filter='inner'/><rule action='drop' direction='in'><tcp dstportstart='22'/></rule></filter>"
    M.refused(400, "there is no protocol 'ipx'", "POST", "/filters", {"xml": "<filter name='x'><rule action='drop' direction='in'><ipx/></rule></filter>"})
    first = do("filter_define", 201, "POST", "/filters", {"xml": text}).json
    assert {**first, "uuid": 0} == {"name": "lab", "uuid": 0, "chain": "root", "priority": 0, "rules": 1, "includes": ["inner"], "interfaces": []}, first
    assert do("filter_list", 200, "GET", "/filters").json == {"filters": [first]}
    assert do("filter_get", 200, "GET", "/filters/lab").json == first
    assert "dstportstart='22'" in do("filter_xml", 200, "GET", "/filters/lab/xml").text
    assert do("filter_binding_list", 200, "GET", "/filter-bindings").json == {"bindings": []}
    binding = (f"<filterbinding><owner><name>m</name><uuid>{first['uuid']}</uuid></owner><portdev name='none0'/><mac address='52:54:00:00:00:01'/>"
               "<filterref filter='lab'/></filterbinding>")
    assert "there is no interface 'none0'" in do("filter_binding_create", 422, "POST", "/filter-bindings", {"xml": binding}).text
    assert "no filter binding" in do("filter_binding_xml", 404, "GET", "/filter-bindings/none0/xml").text
    assert "no filter binding" in do("filter_binding_delete", 404, "DELETE", "/filter-bindings/none0").text
    do("filter_undefine", 200, "DELETE", "/filters/lab")
    M.refused(404, "no network filter", "GET", "/filters/lab")


def secrets():
    """A value goes in and is in no answer."""
    text = "<secret><description>d</description><usage type='ceph'><name>client.rest</name></usage></secret>"
    uuid = do("secret_define", 201, "POST", "/secrets", {"xml": text}).json["uuid"]
    answers = [do("secret_set_value", 200, "PUT", f"/secrets/{uuid}/value", {"base64": "c2VlbiBieSBub2JvZHk="}), do("secret_list", 200, "GET", "/secrets"),
               do("secret_get", 200, "GET", f"/secrets/{uuid}"), do("secret_xml", 200, "GET", f"/secrets/{uuid}/xml")]
    assert answers[2].json == {"uuid": uuid, "type": "ceph", "usage": "client.rest", "description": "d", "ephemeral": False, "private": False,
                               "has_value": True}, answers[2].json
    assert "<name>client.rest</name>" in answers[3].text and not [a for a in answers if "c2Vlbi" in a.text or "nobody" in a.text]
    M.refused(400, "not base64", "PUT", f"/secrets/{uuid}/value", {"base64": "c2V\nlb"})
    M.refused(400, "not the UUID", "GET", "/secrets/nix")
    do("secret_undefine", 200, "DELETE", f"/secrets/{uuid}")
    M.refused(404, "no secret", "GET", f"/secrets/{uuid}")


def storage():
    """A pool and its volumes, each operation once; storage.py has more."""
    folder = os.path.join(M.folder.name, "images")
    made = do("pool_create", 201, "POST", "/pools", {"name": "images", "target": folder, "build": True, "no_start": True}).json
    assert made["state"] == "inactive" and made["type"] == "dir", made
    do("pool_start", 200, "POST", "/pools/images/start", {"build": True})
    do("pool_change", 200, "PATCH", "/pools/images", {"autostart": True, "warn_percent": 99})
    pool = do("pool_get", 200, "GET", "/pools/images").json
    assert pool["autostart"] and pool["warn_percent"] == 99 and pool["capacity"] > 0 and pool["volumes"] == 0, pool
    assert [p["name"] for p in do("pool_list", 200, "GET", "/pools").json["pools"]] == ["images"]
    assert f"<path>{folder}</path>" in do("pool_get_xml", 200, "GET", "/pools/images/xml").text
    job = M.job(do("volume_create", 202, "POST", "/pools/images/volumes", {"name": "v", "size": "1M", "format": "raw"}))
    assert job["state"] == "done", job
    do("volume_resize", 200, "POST", "/pools/images/volumes/v/resize", {"size": "2M"})
    assert do("volume_get", 200, "GET", "/pools/images/volumes/v").json["capacity"] == 2 << 20
    assert M.job(do("volume_wipe", 202, "POST", "/pools/images/volumes/v/wipe", {}))["state"] == "done"
    assert [v["name"] for v in do("volume_list", 200, "GET", "/pools/images/volumes").json["volumes"]] == ["v"]
    do("volume_delete", 200, "DELETE", "/pools/images/volumes/v")
    do("pool_refresh", 200, "POST", "/pools/images/refresh")
    do("pool_stop", 200, "POST", "/pools/images/stop")
    do("pool_delete", 200, "DELETE", "/pools/images", {"storage": True})
    assert not os.path.exists(folder)


def description():
    """The OpenAPI text names every operation, and every operation that it names is there."""
    top = do("openapi", 200, "GET", "/openapi.json").json
    assert top["openapi"].startswith("3.0")
    ids = set()
    for path, methods in top["paths"].items():
        for method, operation in methods.items():
            ids.add(operation["operationId"])
            names = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert names == set(re.findall(r"\{(\w+)\}", path)), path
            assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")
            assert operation["responses"] and operation["summary"]
            where = re.sub(r"\{\w+\}", "nobody", path)
            if operation["operationId"] == "volume_upload":  # the body is not its arguments
                answer = M.call("PUT", where + "?surely-unknown=1", {})
            else:
                answer = M.call(method.upper(), where, {"surely-unknown": 1})
            text = answer.json["error"]["message"] if answer.status >= 400 else ""
            assert "surely-unknown" in text and operation["operationId"] in text, f"{method} {path}: {answer}"
    # saving.py's, manager_migrate.py's, interface.py's, nodedev.py's, storage.py's
    elsewhere = ("domain_save", "domain_restore", "domain_dump", "domain_migrate", "interface_", "device_", "volume_upload", "volume_download")
    missing = {i for i in ids - USED if not i.startswith(elsewhere)}
    assert not missing, f"never called with success: {sorted(missing)}"


# ---- consoles ----

class WebSocket:
    """RFC 6455, as much as a test needs."""

    def __init__(self, path):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(300)
        self.s.connect(M.socket)
        key = base64.b64encode(os.urandom(16)).decode()
        self.s.sendall((f"GET {path} HTTP/1.1\r\nHost: ruche\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n").encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self.take(1)
        assert b" 101 " in head.split(b"\r\n")[0], head

    def send(self, data, kind):
        mask = os.urandom(4)
        head = bytes([0x80 | kind]) + (bytes([0x80 | len(data)]) if len(data) < 126
                                       else bytes([0x80 | 126]) + len(data).to_bytes(2, "big"))
        self.s.sendall(head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def take(self, count):
        data = b""
        while len(data) < count:
            more = self.s.recv(count - len(data))
            assert more, "the socket ended"
            data += more
        return data

    def receive(self):
        kind, length = self.take(2)
        length &= 0x7f
        if length >= 126:
            length = int.from_bytes(self.take(2 if length == 126 else 8), "big")
        return kind & 15, self.take(length)

    def close(self):
        self.s.close()


def consoles():
    kind, why = WebSocket("/console/nobody").receive()
    assert kind == 8 and b"nobody" in why, why
    define("speaks", devices="<serial type='pty'/>")
    M.want(200, "POST", "/domains/speaks/start")
    first = WebSocket("/console/speaks")
    first.send(b"0", 1)  # opened: a number is taken
    first.send(b"hello", 2)
    second = WebSocket("/console/speaks?force=true")
    kind, _ = first.receive()
    while kind == 2:
        kind, _ = first.receive()
    assert kind == 8, kind
    for i in range(20):  # gone while it opens
        WebSocket("/console/speaks?force=true").close()
    assert M.want(200, "GET", "/version")
    second.close()
    gone("speaks")


# ---- HTTPS ----

def certificates(folder):
    def run(*words):
        subprocess.run(["certtool", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)

    def put(name, text):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            f.write(text)

    put("ca.cfg", "cn = test CA\nca\ncert_signing_key\nexpiration_days = 2\n")
    put("server.cfg", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\n"
                      "encryption_key\nexpiration_days = 2\n")
    put("client.cfg", "cn = a client\ntls_www_client\nsigning_key\nexpiration_days = 2\n")
    for name in ("ca", "server", "client", "stranger"):
        run("--generate-privkey", "--key-type", "ecdsa", "--outfile", f"{name}.key")
    run("--generate-self-signed", "--load-privkey", "ca.key", "--template", "ca.cfg", "--outfile", "ca.pem")
    for name in ("server", "client"):
        run("--generate-certificate", "--load-privkey", f"{name}.key", "--load-ca-certificate", "ca.pem",
            "--load-ca-privkey", "ca.key", "--template", f"{name}.cfg", "--outfile", f"{name}.pem")
    run("--generate-self-signed", "--load-privkey", "stranger.key", "--template", "client.cfg", "--outfile", "stranger.pem")


def https():
    folder, port = os.path.join(M.folder.name, "tls"), tap.free_port()
    os.mkdir(folder)
    certificates(folder)
    with open(os.path.join(folder, "tokens"), "w", encoding="utf-8") as f:
        f.write(f"# name, digest\nrobot {hashlib.sha256(b'open sesame').hexdigest()}\n")
    config = f"[rest]\nlisten=127.0.0.1:{port}\n" + "".join(
        f"{key}={folder}/{name}\n" for key, name in (("cert", "server.pem"), ("key", "server.key"), ("ca", "ca.pem"),
                                                      ("token_file", "tokens")))
    m = Manager(RUCHED, config)

    def ask(token=None, cert=None):
        context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
        if cert:
            context.load_cert_chain(f"{folder}/{cert}.pem", f"{folder}/{cert}.key")
        c = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=300)
        c.request("GET", "/version", headers={"Authorization": f"Bearer {token}"} if token else {})
        status = c.getresponse().status
        c.close()
        return status

    try:
        assert ask() == 401 and ask(token="wrong") == 401
        assert ask(token="open sesame") == 200 and ask(cert="client") == 200
        try:
            assert ask(cert="stranger") == 401
        except (OSError, http.client.HTTPException):
            pass  # refused already at the handshake
        if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 1300:
            raise tap.Skip("too few descriptors for a crowd")
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(1100)]
        m.want(200, "GET", "/version")  # strangers do not take the places of those at home
        for s in silent:
            s.close()
        wait_until(lambda: ask_quietly(ask) == 200, "HTTPS does not recover")
    finally:
        m.close()


def ask_quietly(ask):
    try:
        return ask(token="open sesame")
    except (OSError, http.client.HTTPException):
        return None


# ---- peers that mean no good ----

def wrong_arguments():
    for method, path, body, word in (
            ("POST", "/domains", {}, "needs the argument 'xml'"), ("POST", "/domains", {"xml": 7}, "must be a text"),
            ("POST", "/domains", {"xml": "<a/>", "x": 1}, "'x'"), ("POST", "/domains", [1], "not a JSON object"),
            ("POST", "/domains", b"{", "not JSON"), ("POST", "/domains", b"\xff\xfe", "not JSON"),
            ("GET", "/jobs/1?wait=99999999", None, "between"), ("GET", "/jobs/1?wait=soon", None, "whole number"),
            ("POST", "/domains/x/start", {"paused": "perhaps"}, "true or false"),
            ("POST", "/launch", {"image": ["a"]}, "must be a text"), ("POST", "/launch", {"image": "a", "ssh_keys": "b"}, "array"),
            ("POST", "/launch", {"image": "a", "cpus": 1.5}, "whole number"),
            ("POST", "/launch", {"image": "a", "cpus": 0}, "between"), ("POST", "/launch", {"image": "a", "memory": -1}, "between")):
        M.refused(400, word, method, path, body)
    for path in ("/", "/nothing", "/domains/", "/domains/a/b/c", "/domains/%00", "/domains/%ff", "/../etc/passwd"):
        assert M.call("GET", path).status in (400, 404), path
    assert M.call("PUT", "/domains").status == 405
    M.refused(404, "no job", "GET", "/jobs/99999999999999999999")
    M.refused(404, "a/b", "GET", "/domains/a%2Fb")


def raw(data):
    """A connection on which so much has been said."""
    s = socket.socket(socket.AF_UNIX)
    s.connect(M.socket)
    s.settimeout(300)
    s.sendall(data)
    return s


def bombs():
    before = M.resident_kib()
    for text in (b"[" * 100000, b'{"a":' * 100000, b'{"xml": "' + b"a" * (3 << 20) + b'"}'):
        assert M.call("POST", "/domains", text).status == 400
    assert M.call("POST", "/domains", "<a>" * 100000, headers={"Content-Type": "application/xml"}).status == 400
    for head, body, status in ((f"Content-Length: {10 << 20}", b"a" * (10 << 20), 413),
                               ("Transfer-Encoding: chunked", b"5\r\naaaaa\r\n" * 1000 + b"0\r\n\r\n", 411)):
        s = raw(f"POST /domains HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{head}\r\n\r\n".encode() + body)
        assert f" {status} ".encode() in s.recv(100), head
        s.close()
    endless = raw(b"POST /domains HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    try:
        for _ in range(200):
            endless.sendall(b"100000\r\n" + b"a" * (1 << 20) + b"\r\n")
        raise AssertionError("a body without an end is read for ever")
    except (BrokenPipeError, ConnectionResetError):
        endless.close()
    raw(b"POST /domains HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\naaaa").close()
    M.want(200, "GET", "/version")
    assert M.resident_kib() - before < 64 << 10, f"{before} KiB became {M.resident_kib()}"


def half_open():
    """Connections that say nothing, or half a word, or never read: others are served meanwhile."""
    held = []
    for i in range(900):
        s = socket.socket(socket.AF_UNIX)
        s.connect(M.socket)
        if i % 3 == 1:
            s.sendall(b"GET /domai")
        if i % 3 == 2:
            s.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        held.append(s)
    M.want(200, "GET", "/domains")
    for s in held:
        s.close()
    wait_until(lambda: M.call("GET", "/version").status == 200, "not served afterwards")


def slow_reader():
    """A reader of events that does not read is dropped, and the manager does not grow for it."""
    name = "slow-" + "x" * 190
    s = socket.socket(socket.AF_UNIX)
    s.connect(M.socket)
    s.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
    define(name)
    M.want(200, "POST", f"/domains/{name}/start")
    before = M.resident_kib()
    for i in range(10000):
        if i % 50 == 0 and over(s):
            break
        M.want(200, "POST", f"/domains/{name}/{'resume' if i % 2 else 'pause'}")
    else:
        raise AssertionError("the reader is still there")
    grown = M.resident_kib() - before
    assert grown < 16 << 10, f"{grown} KiB more"
    s.close()
    gone(name)


def over(s):
    """Has the peer ended the connection? Without reading what waits."""
    poll = select.poll()
    poll.register(s, select.POLLRDHUP)
    return bool(poll.poll(0))


tests = {
    "the host": host, "a machine's life": life, "guests are asked": asked, "descriptions": descriptions, "changes": changes,
    "devices": devices, "logs and figures": texts, "launch a file": launches, "launch a URL": launch_by_url,
    "launches that fail leave nothing": launches_that_fail, "builds that end early leave nothing": building, "events": events,
    "metrics": metrics, "networks": networks, "filters": filters, "secrets": secrets, "storage": storage, "consoles": consoles, "wrong arguments": wrong_arguments, "bombs": bombs,
    "half-open": half_open,
    "a slow reader": slow_reader, "HTTPS": https, "OpenAPI names every operation": description,
}
if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most if most == resource.RLIM_INFINITY else min(most, 8192), most))
    try:
        do("domain_list", 200, "GET", "/domains")
        tap.run({name: test for name, test in tests.items() if not sys.argv[5:] or name in sys.argv[5:]})
    finally:
        M.close()
