#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Images by HTTP, iSCSI and NFS: ruche-img with its modules against servers on this machine. TAP."""
import base64
import contextlib
import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time

import tap
from peers import (MIB, TOOL, WORK, can_connect, contents, free_port, img, in_own_network, main, need, path, refused, run,
                   wait_for)

SIZE = 8 * MIB + 512


def image(name="disk.raw"):
    data = hashlib.shake_128(name.encode()).digest(SIZE)
    with open(path(name), "wb") as f:
        f.write(data)
    return data


# --- HTTP ---

class Handler(http.server.BaseHTTPRequestHandler):
    """Ranges of server.data; server.mood says what is wrong with it."""
    protocol_version = "HTTP/1.1"

    def log_message(self, *unused):
        pass

    def answer(self, status, data=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)

    def do_GET(self):
        data, mood = self.server.data, self.server.mood
        self.server.requests.append(dict(self.headers))
        if self.path == "/moved":
            return self.answer(302, Location="/disk.raw")
        if self.path != "/disk.raw":
            return self.answer(404, b"no such file")
        if mood == "password" and self.headers.get("Authorization") != "Basic " + base64.b64encode(b"joe:secret").decode():
            return self.answer(401, WWW_Authenticate='Basic realm="disks"')
        asked = self.headers.get("Range")
        if not asked or mood == "no ranges":
            return self.answer(200, data)
        if not data:
            return self.answer(416, Content_Range="bytes */0")
        first, last = asked.removeprefix("bytes=").split("-")
        first, last = int(first), min(int(last), len(data) - 1)
        part = data[first:last + 1]
        total = len(data)
        tag = '"1"'
        if last > 0 and mood:
            if mood == "another range":
                first, last = first + 1, last + 1
            if mood == "short":
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(part)))
                self.end_headers()
                self.wfile.write(part[:len(part) // 2])
                self.close_connection = True
                return None
            if mood == "changed":
                tag = '"2"'
            if mood == "grown":
                total += 1
            if mood == "error":
                return self.answer(503)
            if mood == "silent":
                time.sleep(4)
        return self.answer(206, part, Content_Range=f"bytes {first}-{last}/{total}", ETag=tag)


@contextlib.contextmanager
def web(data, mood=None, tls=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *unused: None
    server.data, server.mood, server.requests = data, mood, []
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server, f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def test_http_copy():
    data = image()
    with web(data) as (server, url):
        info = json.loads(img("info", "--output=json", "-f", "raw", url + "/disk.raw").stdout)
        assert info["virtual-size"] == SIZE, info
        img("convert", "-f", "raw", "-O", "raw", url + "/disk.raw", path("out.raw"))
        assert contents(path("out.raw")) == data
        assert len(server.requests) < 80, f"{len(server.requests)} requests for {SIZE} bytes"
        img("compare", "-f", "raw", "-F", "raw", url + "/moved", path("out.raw"))
        img("convert", "--image-opts", "-O", "raw",
            f"driver=raw,file.driver=http,file.url={url}/disk.raw,file.readahead=4096,file.cookie=a=b", path("out.raw"))
        assert contents(path("out.raw")) == data
        assert server.requests[-1].get("Cookie") == "a=b", server.requests[-1]
    with web(b"") as (_, url):
        assert json.loads(img("info", "--output=json", "-f", "raw", url + "/disk.raw").stdout)["virtual-size"] == 0


def test_http_backing():
    """A qcow2 on the web below a local overlay."""
    data = image()
    if not shutil.which("qemu-img"):
        raise tap.Skip("qemu-img is not installed")
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", path("disk.raw"), path("base.qcow2"))
    with web(contents(path("base.qcow2"))) as (_, url):
        run("qemu-img", "create", "-u", "-f", "qcow2", "-b", url + "/disk.raw", "-F", "qcow2", path("top.qcow2"), str(SIZE))
        img("convert", "-f", "qcow2", "-O", "raw", path("top.qcow2"), path("out.raw"))
        assert contents(path("out.raw")) == data


def test_http_password():
    data = image()
    with web(data, mood="password") as (_, url):
        refused("401", "info", "-f", "raw", url + "/disk.raw")
        with open(path("secret"), "w", encoding="ascii") as f:
            f.write("secret")
        img("convert", "--object", f"secret,id=s,file={path('secret')}", "--image-opts", "-O", "raw",
            f"driver=raw,file.driver=http,file.url={url}/disk.raw,file.username=joe,file.password-secret=s", path("out.raw"))
        assert contents(path("out.raw")) == data


def test_http_hostile():
    data = image()
    with web(data) as (_, url):
        refused("404", "info", "-f", "raw", url + "/nothing")
    with web(data, mood="no ranges") as (_, url):
        refused("does not give ranges", "info", "-f", "raw", url + "/disk.raw")
    for mood, part in (("another range", "another range"), ("short", "onnection terminated"), ("changed", "changed since"),
                       ("grown", "changed since"), ("error", "503")):
        with web(data, mood=mood) as (_, url):
            refused(part, "convert", "-f", "raw", "-O", "raw", url + "/disk.raw", path("out.raw"))
    with web(data, mood="silent") as (_, url):
        start = time.monotonic()
        refused("", "convert", "--image-opts", "-O", "raw",
                f"driver=raw,file.driver=http,file.url={url}/disk.raw,file.timeout=1", path("out.raw"))
        assert time.monotonic() - start < 120
    refused("", "info", "-f", "raw", f"http://127.0.0.1:{free_port()}/x")


def test_https():
    if not shutil.which("certtool"):
        raise tap.Skip("certtool is not installed")
    run("certtool", "--generate-privkey", "--outfile", path("key.pem"))
    with open(path("template"), "w", encoding="ascii") as f:
        f.write("cn = localhost\nip_address = 127.0.0.1\ntls_www_server\nexpiration_days = 3\n")
    run("certtool", "--generate-self-signed", "--load-privkey", path("key.pem"), "--template", path("template"),
        "--outfile", path("cert.pem"))
    with open(path("both.pem"), "wb") as f:
        f.write(contents(path("key.pem")) + contents(path("cert.pem")))
    data = image()
    with web(data, tls=path("both.pem")) as (_, url):
        refused("ertificate", "info", "-f", "raw", url + "/disk.raw")
        img("convert", "--image-opts", "-O", "raw", f"driver=raw,file.driver=https,file.url={url}/disk.raw,file.sslverify=off",
            path("out.raw"))
        assert contents(path("out.raw")) == data


# --- iSCSI ---

@contextlib.contextmanager
def target(file, *more):
    """Yields a name prefix: iscsi://127.0.0.1:PORT/TARGET."""
    for program in ("tgtd", "tgtadm"):
        if not shutil.which(program):
            raise tap.Skip(f"{program} is not installed")
    port, control = free_port(), str(os.getpid() % 30000 + 100)
    daemon = subprocess.Popen(["tgtd", "-f", "-C", control, "--iscsi", f"portal=127.0.0.1:{port}"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    name = "iqn.2026-01.test:disk"

    def admin(*words, check=True):
        return run("tgtadm", "-C", control, "--lld", "iscsi", *words, check=check)
    try:
        with contextlib.suppress(AssertionError):
            wait_for("tgtd", lambda: daemon.poll() is not None or
                     (can_connect(port) and not admin("--mode", "sys", "--op", "show", check=False).returncode))
        if daemon.poll() is not None or not can_connect(port):
            raise tap.Skip("tgtd does not run here")
        admin("--op", "new", "--mode", "target", "--tid", "1", "-T", name)
        admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", file)
        admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "--params", "thin_provisioning=1")
        for words in more:
            admin(*words.split())
        admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")
        yield f"iscsi://127.0.0.1:{port}/{name}", admin
    finally:
        for words in ("target --tid 1 --force", "system"):  # it ends by command alone, and only without a target
            admin("--op", "delete", "--mode", *words.split(), check=False)
        try:
            daemon.wait(timeout=5)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def test_iscsi():
    data = image()
    with target(path("disk.raw")) as (url, _):
        info = json.loads(img("info", "--output=json", "-f", "raw", url + "/1").stdout)
        assert info["virtual-size"] == SIZE, info
        img("convert", "-f", "raw", "-O", "raw", url + "/1", path("out.raw"))
        assert contents(path("out.raw")) == data
        other = image("other.raw")
        img("convert", "-n", "-f", "raw", "-O", "raw", path("other.raw"), url + "/1")
        assert contents(path("disk.raw")) == other, "what was written is not there"
        with open(path("holes.raw"), "wb") as f:
            f.truncate(SIZE)
            f.seek(MIB)
            f.write(other[:MIB])
        img("convert", "-n", "-f", "raw", "-O", "raw", path("holes.raw"), url + "/1")
        img("compare", "-f", "raw", "-F", "raw", path("holes.raw"), url + "/1")
        refused("cannot log in", "info", "-f", "raw", url + "x/1")
        refused("lun 7", "info", "-f", "raw", url + "/7")
        refused("iscsi://", "info", "-f", "raw", "iscsi://nothing")


def test_iscsi_chap():
    image()
    with target(path("disk.raw"), "--op new --mode account --user joe --password verysecretpass",
                "--op bind --mode account --tid 1 --user joe") as (url, _):
        refused("cannot log in", "info", "-f", "raw", url + "/1")
        portal, name = url.removeprefix("iscsi://").split("/", 1)
        for password, good in (("verysecretpass", True), ("wrongwrongwrong", False)):
            done = img("info", "--object", f"secret,id=s,data={password}", "--image-opts",
                       f"driver=raw,file.driver=iscsi,file.portal={portal},file.target={name},file.lun=1,file.user=joe,"
                       "file.password-secret=s", check=False)
            assert (done.returncode == 0) == good, done.stderr
        refused("seen by everybody", "info", "-f", "raw", url.replace("iscsi://", "iscsi://joe%pass@") + "/1")


# --- NFS ---

@contextlib.contextmanager
def nfs_server(folder):
    """Yields a name prefix, nfs://127.0.0.1/export, and arguments."""
    port, mount_port = free_port(), free_port()
    with open(path("ganesha.conf"), "w", encoding="ascii") as f:
        f.write(f"""
NFS_CORE_PARAM {{ Protocols = 3, 4; NFS_Port = {port}; MNT_Port = {mount_port}; Enable_NLM = false; Enable_RQUOTA = false;
                  Plugins_Dir = /usr/lib/x86_64-linux-gnu/ganesha; }}
NFSV4 {{ Grace_Period = 1; Graceless = true; RecoveryRoot = {WORK}/recovery; Minor_Versions = 0; }}
EXPORT {{ Export_Id = 1; Path = {folder}; Pseudo = /export; Access_Type = RW; Squash = No_Root_Squash;
          SecType = sys; Protocols = 3, 4; FSAL {{ Name = VFS; }} }}
LOG {{ Default_Log_Level = EVENT; }}
""")
    os.makedirs(path("recovery"), exist_ok=True)
    binder = subprocess.Popen(["rpcbind", "-f", "-w"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("rpcbind", lambda: can_connect(111))
    p = subprocess.Popen(["ganesha.nfsd", "-F", "-f", path("ganesha.conf"), "-L", path("ganesha.log"), "-p", path("ganesha.pid")],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with contextlib.suppress(AssertionError):
            wait_for("ganesha", lambda: p.poll() is not None or can_connect(port))
        if p.poll() is not None or not can_connect(port):
            raise AssertionError("nfs-ganesha does not run: " + contents(path("ganesha.log")).decode()[-3000:])
        yield port, mount_port
    finally:
        for server in (p, binder):
            server.kill()
            server.wait()


def test_nfs():
    """In a network of its own, as a server by NFS version 3 wants the portmapper."""
    need("ganesha.nfsd", "rpcbind")
    run(*in_own_network())


def nfs_inside():
    os.makedirs(path("exported"), exist_ok=True)
    data = image("exported/disk.raw")
    with nfs_server(path("exported")) as (port, mount_port):
        def name(file):
            return f"nfs://127.0.0.1{path('exported')}/{file}?nfsport={port}&mountport={mount_port}"

        by_version_4 = f"nfs://127.0.0.1/export/disk.raw?version=4&nfsport={port}"
        img("convert", "-f", "raw", "-O", "raw", by_version_4, path("out.raw"))
        assert contents(path("out.raw")) == data
        info = json.loads(img("info", "--output=json", "-f", "raw", name("disk.raw")).stdout)
        assert info["virtual-size"] == SIZE, info
        img("convert", "-f", "raw", "-O", "raw", name("disk.raw"), path("out.raw"))
        assert contents(path("out.raw")) == data
        other = image("other.raw")
        img("convert", "-n", "-f", "raw", "-O", "raw", path("other.raw"), name("disk.raw"))
        assert contents(path("exported/disk.raw")) == other, "what was written is not there"
        img("resize", "-f", "raw", name("disk.raw"), "+1M")
        assert os.path.getsize(path("exported/disk.raw")) == SIZE + MIB
        refused("cannot be opened", "info", "-f", "raw", name("nothing"))
        img("create", "-f", "raw", name("new.raw"), "3M")
        assert contents(path("exported/new.raw")) == bytes(3 * MIB)
        img("convert", "-f", "raw", "-O", "qcow2", path("other.raw"), name("new.raw"))
        img("compare", "-f", "raw", "-F", "qcow2", path("other.raw"), path("exported/new.raw"))
        img("check", "-f", "qcow2", path("exported/new.raw"))
        os.mkdir(path("exported/folder"))
        refused("folder", "create", "-f", "raw", name("folder"), "3M")


# --- Ceph ---

def test_rbd_refusals():
    """There is no cluster: the module loads, and says why nothing opens."""
    refused("cannot connect to the cluster", "info", "-f", "raw", "rbd:pool/disk:client_mount_timeout=2:mon_host=127.0.0.1")
    refused("rbd:POOL/IMAGE", "info", "-f", "raw", "rbd:pool")
    refused("key-secret", "info", "-f", "raw", "rbd:pool/disk:key=abc")


def test_no_module():
    """Modules that are not there: the package is named, and no name of a URL becomes a file's."""
    folder = path("bare")
    os.mkdir(folder)
    tool = shutil.copy(TOOL, folder)
    for name in ("http", "iscsi", "nfs", "rbd"):
        with open(f"{folder}/image-{name}.so", "w", encoding="ascii"):
            pass
    for url, package in (("http://127.0.0.1:1/x", "libsoup-3.0-0"), ("https://127.0.0.1:1/x", "libsoup-3.0-0"), ("iscsi://127.0.0.1/t/0", "libiscsi7"),
                         ("nfs://127.0.0.1/x", "libnfs13"), ("rbd:pool/disk", "librbd1")):
        for words in (("info",), ("create", "-f", "qcow2", "-F", "raw", "-b", url, "over.qcow2"), ("convert", "-O", "raw", path("bare/ruche-img"))):
            done = run(tool, *words, *([] if "over.qcow2" in words else [url]), check=False, cwd=folder)
            assert done.returncode == 1 and f"(package {package})" in done.stderr, (words, done)
    assert sorted(os.listdir(folder)) == sorted(["ruche-img", *(f"image-{name}.so" for name in ("http", "iscsi", "nfs", "rbd"))])


TESTS = {
    "copies by HTTP": test_http_copy,
    "a backing file by HTTP": test_http_backing,
    "HTTP with a password": test_http_password,
    "HTTP servers that do wrong": test_http_hostile,
    "HTTPS": test_https,
    "iSCSI both ways": test_iscsi,
    "iSCSI with CHAP": test_iscsi_chap,
    "NFS both ways": test_nfs,
    "Ceph without a cluster": test_rbd_refusals,
    "without the modules": test_no_module,
}

if __name__ == "__main__":
    if "--inside" not in sys.argv:
        main(TESTS)
    try:
        nfs_inside()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
