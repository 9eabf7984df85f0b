#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""TLS of our NBD server and client: pre-shared keys, certificates, authorization. TAP."""
import os
import shutil

from nbd_ground import Client, SIZE, copy_both_ways, digest, exercise, expect, image, nbdkit, our_server, qemu_nbd, refusal, unix
from peers import MIB, contents, main, need, path, run


def make_psk(folder, user, key):
    os.makedirs(path(folder), exist_ok=True)
    with open(path(folder + "/keys.psk"), "w", encoding="ascii") as f:
        f.write(f"{user}:{key}\n")
    return path(folder)


def make_certificates():
    """A CA, a server certificate for localhost and 127.0.0.1, a client's; and another CA's client."""
    need("certtool")
    if os.path.exists(path("pki/ca-cert.pem")):
        return
    for ca, folder in (("ca", "pki"), ("ca2", "pki2")):
        os.makedirs(path(folder))
        roles = {"ca": "cn = Test\nca\ncert_signing_key\n",
                 "server": "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nencryption_key\nsigning_key\n",
                 "client": "cn = client\norganization = Bees\ncountry = FR\ntls_www_client\nencryption_key\nsigning_key\n"}
        for role, template in roles.items():
            key, cert = path(f"{folder}/{role}-key.pem"), path(f"{folder}/{role}-cert.pem")
            with open(path("template"), "w", encoding="ascii") as f:
                f.write(template + "expiration_days = 30\n")
            run("certtool", "--generate-privkey", "--ecc", "--outfile", key)
            if role == "ca":
                run("certtool", "--generate-self-signed", "--load-privkey", key, "--template", path("template"), "--outfile", cert)
            else:
                run("certtool", "--generate-certificate", "--load-privkey", key, "--load-ca-certificate",
                    path(folder + "/ca-cert.pem"), "--load-ca-privkey", path(folder + "/ca-key.pem"), "--template",
                    path("template"), "--outfile", cert)


def test_tls_psk_server():
    need("nbdcopy", "qemu-io")
    good, bad = make_psk("psk", "qemu", "0123456789abcdef" * 4), make_psk("badpsk", "qemu", "f" * 64)
    file = image()
    creds = f"id=t,kind=tls-creds-psk,endpoint=server,dir={good}"
    with our_server(file, creds, writable="on", tls="t") as (_, uri):
        copy_both_ways(f"{uri}&tls-psk-file={good}/keys.psk".replace("nbds+unix://", "nbds+unix://qemu@"), file)
        plain = run("nbdinfo", uri.replace("nbds", "nbd"), check=False)
        assert plain.returncode, "a client without TLS was let in"
        opts = "driver=nbd,tls-creds=c,export=x,server.type=unix,server.path=" + path("ours.sock")
        run("qemu-io", "--object", f"tls-creds-psk,id=c,endpoint=client,dir={good}", "--image-opts",
            "-c", "write -P 7 0 3M", "-c", "read -P 7 0 3M", opts)
        wrong = run("qemu-io", "--object", f"tls-creds-psk,id=c,endpoint=client,dir={bad}", "--image-opts", "-c", "read 0 1", opts,
                    check=False)
        assert wrong.returncode, "a wrong key was accepted"
        with Client(unix(path("ours.sock"), export="x", tls_creds="c"),
                    f"id=c,kind=tls-creds-psk,endpoint=client,dir={good}") as c:
            assert c.good("read 0 3145728") == [digest(b"\7" * (3 * MIB))]
            c.good("storm 2000 16 4096")
        expect(refusal(unix(path("ours.sock"), export="x", tls_creds="c"),
                       f"id=c,kind=tls-creds-psk,endpoint=client,dir={bad}"), "tls-creds-psk 'c'")
        expect(refusal(unix(path("ours.sock"), export="x")), "requires TLS")


def test_tls_x509_server():
    make_certificates()
    need("qemu-io")
    file = image()
    creds = f"id=t,kind=tls-creds-x509,endpoint=server,dir={path('pki')}"
    with our_server(file, creds, writable="on", tls="t", port="0") as (_, uri):
        port = uri.rsplit(":", 1)[1].split("/")[0]
        opts = f"driver=nbd,tls-creds=c,export=x,server.type=inet,server.host=localhost,server.port={port}"
        run("qemu-io", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={path('pki')}", "--image-opts",
            "-c", "write -P 9 1M 2M", "-c", "read -P 9 1M 2M", opts)
        ours = f"id=c,kind=tls-creds-x509,endpoint=client,dir={path('pki')}"
        with Client(opts, ours) as c:
            assert c.good(f"read {MIB} {2 * MIB}") == [digest(b"\x09" * (2 * MIB))]
        with Client(opts.replace("localhost", "127.0.0.1"), ours) as c:
            c.good("read 0 4096")
        expect(refusal(opts + ",tls-hostname=elsewhere", ours), "'elsewhere' is refused")
        expect(refusal(opts, ours.replace("pki", "pki2")), "is refused")
        anonymous = path("pki-anonymous")
        os.makedirs(anonymous, exist_ok=True)
        shutil.copy(path("pki/ca-cert.pem"), anonymous)
        refused = run("qemu-io", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={anonymous}", "--image-opts", "-c", "read 0 1",
                      opts, check=False)
        assert refused.returncode, "a client without certificate was let in"
    with our_server(file, creds + ",verify-peer=off", tls="t", port="0") as (_, uri):
        port = uri.rsplit(":", 1)[1].split("/")[0]
        opts = f"driver=nbd,tls-creds=c,export=x,server.type=inet,server.host=localhost,server.port={port}"
        run("qemu-io", "-r", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={path('pki-anonymous')}", "--image-opts",
            "-c", "read 0 1", opts)


def test_tls_authz():
    """Who is let in, by the name in a client's certificate: what our server takes for it, qemu-nbd does, too."""
    make_certificates()
    need("qemu-io")
    file = image()
    creds = f"id=t,kind=tls-creds-x509,endpoint=server,dir={path('pki')}"

    def try_it(sock):
        opts = f"driver=nbd,tls-creds=c,tls-hostname=localhost,export=x,server.type=unix,server.path={path(sock)}"
        return run("qemu-io", "-r", "--object", f"tls-creds-x509,id=c,endpoint=client,dir={path('pki')}", "--image-opts",
                   "-c", "read 0 512", opts, check=False).returncode == 0

    name = "C=FR,O=Bees,CN=client".replace(",", ",,")
    for identity, allowed in ((name, True), (name.replace("client", "clien"), False)):
        with our_server(file, creds, f"id=a,kind=authz-simple,identity={identity}", tls="t", tls_authz="a"):
            assert try_it("ours.sock") == allowed, identity
        with qemu_nbd(file, "--object", f"tls-creds-x509,id=s,endpoint=server,verify-peer=on,dir={path('pki')}", "--tls-creds", "s",
                      "--object", f"authz-simple,id=a,identity={identity}", "--tls-authz", "a"):
            assert try_it("theirs.sock") == allowed, identity
    rules = "id=a,kind=authz-list,policy=deny,rules.0.match=C=FR*,rules.0.format=glob,rules.0.policy="
    for policy in ("allow", "deny"):
        with our_server(file, creds, rules + policy, tls="t", tls_authz="a"):
            assert try_it("ours.sock") == (policy == "allow"), policy
    with our_server(file, creds, tls="t", tls_authz="missing"):
        assert not try_it("ours.sock")


def test_tls_anonymous():
    file = image()
    with our_server(file, "id=t,kind=tls-creds-anon,endpoint=server", tls="t"):
        with Client(unix(path("ours.sock"), export="x", tls_creds="c", read_only="on"), "id=c,kind=tls-creds-anon,endpoint=client") as c:
            assert c.good(f"read 0 {SIZE}") == [digest(contents(file))]


def test_client_tls():
    make_certificates()
    file = image()
    psk = make_psk("psk", "qemu", "0123456789abcdef" * 4)
    with nbdkit("--tls=require", f"--tls-psk={psk}/keys.psk", "file", file):
        exercise(unix(path("theirs.sock"), tls_creds="c"), file, f"id=c,kind=tls-creds-psk,endpoint=client,dir={psk}")
        expect(refusal(unix(path("theirs.sock"))), "requires TLS")
    with nbdkit("--tls=require", f"--tls-certificates={path('pki')}", "--tls-verify-peer", "file", file):
        opts = unix(path("theirs.sock"), tls_creds="c", tls_hostname="localhost")
        creds = f"id=c,kind=tls-creds-x509,endpoint=client,dir={path('pki')}"
        exercise(opts, file, creds)
        expect(refusal(opts.replace("localhost", "elsewhere"), creds), "'elsewhere' is refused")
        expect(refusal(opts, creds.replace("pki", "pki2")), "is refused")
    with qemu_nbd(file, "--object", f"tls-creds-psk,id=s,endpoint=server,dir={psk}", "--tls-creds", "s"):
        exercise(unix(path("theirs.sock"), export="x", tls_creds="c"), file, f"id=c,kind=tls-creds-psk,endpoint=client,dir={psk}")
    with nbdkit("--tls=off", "file", file):
        expect(refusal(unix(path("theirs.sock"), tls_creds="c"), f"id=c,kind=tls-creds-psk,endpoint=client,dir={psk}"), "NBD_OPT_STARTTLS")


if __name__ == "__main__":
    main({
        "our server with TLS, pre-shared keys": test_tls_psk_server,
        "our server with TLS, certificates": test_tls_x509_server,
        "authorization of TLS clients": test_tls_authz,
        "TLS, anonymous": test_tls_anonymous,
        "our client with TLS": test_client_tls,
    })
