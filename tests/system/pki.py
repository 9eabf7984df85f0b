# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates of an authority of a test's own, for `localhost` and for a client."""
import os
import subprocess


def certificate(folder, name, template, ca=None):
    key, cert, info = (os.path.join(folder, name + end) for end in ("key.pem", "cert.pem", ".info"))
    with open(info, "w", encoding="ascii") as out:
        out.write(template)
    subprocess.run(["certtool", "--generate-privkey", "--bits=2048", "--outfile", key], check=True, capture_output=True)
    sign = ["--generate-certificate", "--load-ca-certificate", ca + "cert.pem", "--load-ca-privkey", ca + "key.pem"] if ca else ["--generate-self-signed"]
    subprocess.run(["certtool", *sign, "--load-privkey", key, "--template", info, "--outfile", cert], check=True, capture_output=True)


def make_pki(folder):
    os.makedirs(folder)
    certificate(folder, "ca", "cn = CA\nca\ncert_signing_key\n")
    ca = os.path.join(folder, "ca")
    certificate(folder, "server", "cn = localhost\ndns_name = localhost\nip_address = 127.0.0.1\ntls_www_server\nsigning_key\nencryption_key\n", ca)
    certificate(folder, "client", "cn = client\norganization = us\ntls_www_client\nsigning_key\nencryption_key\n", ca)
