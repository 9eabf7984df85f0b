#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""libvirt's protocol by hand against ruched: what real clients stumble over, and what hostile ones try. TAP."""
import array
import os
import resource
import socket
import struct
import sys
import time

import tap
from libvirt_rpc import (CALL_FDS, CONTINUE, ERROR, HOLE, KEEPALIVE, DOMAIN, MESSAGE, OK, QEMU, REPLY, STREAM, Daemon, Wire, defined, message,
                         string, wait_for)

DAEMON = None
RPC_ERROR = (39, 7)
POOL = "<pool type='dir'><name>{0}</name><target><path>{1}</path></target></pool>"
VOLUME = "<volume><name>v</name><capacity>1048576</capacity><target><format type='raw'/></target></volume>"


def connect(**more):
    return Wire(DAEMON.socket, **more)


def refused(reply, *code):
    assert reply.status == ERROR, f"answered {reply.status}: {reply.body[:64]!r}"
    error = reply.error()
    assert error[:2] == code, f"{error}, not {code}"
    return error


def order_of_connecting():
    with connect(open_it=False) as w:
        reply = w.call(66, serial=0)
        assert reply.serial == 0 and reply.body == struct.pack(">II", 1, 0)
        assert w.call(60, struct.pack(">i", 10)).body == struct.pack(">i", 1)
        assert w.call(1, struct.pack(">I", 1) + string("qemu:///system") + bytes(4)).status == OK
        for feature, answer in ((14, 1), (15, 1), (9, 1), (8, 1), (1, 0), (6, 1), (13, 1), (4711, 0)):
            assert w.call(60, struct.pack(">i", feature)).body == struct.pack(">i", answer), feature
        assert w.call(360).status == OK
        refused(w.call(360), *RPC_ERROR)
        assert w.call(361).status == OK
        refused(w.call(1, bytes(8)), *RPC_ERROR)
        assert w.lives()


def wrong_uri():
    with connect(open_it=False) as w:
        refused(w.call(1, struct.pack(">I", 1) + string("xen:///system") + bytes(4)), 5, 0)
        assert w.call(1, bytes(8)).status == OK


def before_open():
    with connect(open_it=False) as w:
        refused(w.call(157), *RPC_ERROR)
        refused(w.call(11, string("<domain/>")), *RPC_ERROR)
        refused(w.call(443), 3, 10)


def lengths():
    for length in (0, 4, 27, 33554437, 0x7fffffff, 0xffffffff):
        with connect() as w:
            w.sock.sendall(struct.pack(">IIIIIII", length, 0x20008086, 1, 157, 0, 9, 0))
            assert w.is_closed(), length
    with connect() as w:  # the largest: all but a short name is behind the arguments, and is let pass
        body = string("nix") + bytes(33554436 - 28 - 8)
        assert refused(w.call(23, body), 42, 10)[2].endswith("'nix'")
        assert w.lives()
    wait_for("memory to go back", lambda: DAEMON.rss_mib() < 200)


def half_open_sends_much():
    with connect(open_it=False) as w:
        refused(w.call(1, bytes(33554436 - 28)), *RPC_ERROR)
        assert w.call(1, bytes(8)).status == OK
        assert w.lives()
    assert DAEMON.rss_mib() < 200


def bad_headers():
    with connect() as w:
        refused(w.call(157, program=0x12345678), *RPC_ERROR)
        refused(w.call(157, program=0x20008088), *RPC_ERROR)
        refused(w.call(157, version=2), *RPC_ERROR)
        refused(w.call(444), *RPC_ERROR)
        refused(w.call(0), *RPC_ERROR)
        refused(w.call(0xffffffff), *RPC_ERROR)
        refused(w.call(8, program=QEMU), *RPC_ERROR)
        refused(w.call(157, status=ERROR), *RPC_ERROR)
        w.send(157, serial=77, kind=9)
        refused(w.read(), *RPC_ERROR)
        assert w.lives()


def unsupported():
    with connect() as w:
        for number, name in ((185, "domain_snapshot_create_xml"), (304, "domain_migrate_prepare_tunnel3_params"), (443, "domain_fd_associate")):
            assert name in refused(w.call(number), 3, 10)[2]
        assert w.lives()


def replies_and_messages_are_ignored():
    with connect() as w:
        for kind in (REPLY, MESSAGE, 5):
            w.send(157, bytes(8), serial=5, kind=kind)
        w.send(201, b"data", serial=99, kind=STREAM, status=CONTINUE)
        assert w.lives()


def bad_arguments():
    with connect() as w:
        refused(w.call(23), *RPC_ERROR)
        for length in (5, 0x7fffffff, 0xffffffff, 4194305):
            refused(w.call(23, struct.pack(">I", length) + b"abcd"), *RPC_ERROR)
        refused(w.call(23, string(b"a\0b")), *RPC_ERROR)
        refused(w.call(344, struct.pack(">I", 16385)), *RPC_ERROR)
        refused(w.call(344, struct.pack(">I", 16384)), *RPC_ERROR)
        refused(w.call(197, string("x") + bytes(20) + struct.pack(">I", 17)), *RPC_ERROR)
        refused(w.call(197, string("x") + bytes(20) + struct.pack(">I", 1) + string("n") + struct.pack(">i", 8) + bytes(8)), *RPC_ERROR)
        assert w.lives()


def trailing_bytes():
    with connect() as w:
        assert w.call(60, struct.pack(">i", 10) + b"more").body == struct.pack(">i", 1)
        assert w.call(157, b"moremore").status == OK


def error_object():
    with connect() as w:
        code, domain, text, form, argument, int1, int2 = refused(w.call(23, string("nix")), 42, 10)
        assert form == "Domain not found: %s" and text == form % argument and "'nix'" in argument
        assert (int1, int2) == (-1, -1)
        refused(w.call(46, string("nix")), 43, 19)
        refused(w.call(84, string("nix")), 49, 18)
        refused(w.call(113, string("nix")), 53, 22)
        refused(w.call(128, string("nix")), 57, 26)
        refused(w.call(175, string("nix")), 62, 33)
        refused(w.call(141, bytes(16)), 66, 30)


def node_info():
    with connect() as w:
        body = w.call(6).body
        assert len(body) == 32 * 4 + 8 + 6 * 4
        model = bytes(struct.unpack(">32I", body[:128])).rstrip(b"\0")
        assert model == os.uname().machine.encode()


def read_only():
    def look(w):
        assert w.lives() and w.call(273, struct.pack(">iI", 1, 0)).status == OK
        for number, body in ((11, string("<domain/>")), (10, string("<domain/>") + bytes(4)), (35, string("x") + bytes(20)),
                             (77, string("<pool/>") + bytes(4))):
            refused(w.call(number, body), 29, 20)
        assert w.lives()
    with Wire(DAEMON.socket_ro) as w:
        look(w)
    with connect(flags=1) as w:
        look(w)


def secrets_stay():
    with connect() as w, defined(w, "ro") as ref:
        with Wire(DAEMON.socket_ro) as ro:
            assert ro.call(14, ref + struct.pack(">I", 0)).status == OK
            refused(ro.call(14, ref + struct.pack(">I", 1)), 29, 20)


def many_calls_at_once():
    with connect(timeout=60) as w:
        w.sock.sendall(b"".join(message(157, serial=n) for n in range(5000)))
        assert [w.read().serial for _ in range(5000)] == list(range(5000))


def byte_by_byte():
    with connect() as w:
        for byte in message(157, serial=42):
            w.sock.sendall(bytes([byte]))
            time.sleep(0.001)
        assert w.read().serial == 42


def out_of_order():
    with connect() as w:
        w.sock.sendall(message(11, string(DOMAIN.format(name="slow")), serial=100) + b"".join(message(157, serial=n) for n in range(101, 106)))
        replies = [w.read() for _ in range(6)]
        assert [r.serial for r in replies] == [101, 102, 103, 104, 105, 100], [r.serial for r in replies]
        assert replies[-1].status == OK, replies[-1].error()
        w.call(35, replies[-1].body)


def close_answers_first():
    with connect() as w:
        w.sock.sendall(message(2, serial=7) + message(157, serial=8))
        assert w.read().serial == 7
        assert w.is_closed()


def events():
    with connect() as w, connect() as old:
        ids = [struct.unpack(">i", w.call(316, struct.pack(">iI", 0, 0)).body)[0] for _ in range(2)]
        assert old.call(105).body == struct.pack(">i", 1)
        refused(old.call(105), 8, 13)
        refused(w.call(316, struct.pack(">iI", 99, 0)), 8, 13)
        with connect() as third, defined(third, "event") as ref:
            for expected in ids:
                e = w.read()
                assert (e.number, e.kind, e.serial, e.status) == (318, MESSAGE, 1, OK)
                assert e.body == struct.pack(">i", expected) + ref + struct.pack(">ii", 0, 0)
            e = old.read()
            assert (e.number, e.kind, e.serial) == (107, MESSAGE, 1) and e.body == ref + struct.pack(">ii", 0, 0)
            assert w.call(317, struct.pack(">i", ids[0])).status == OK
            refused(w.call(317, struct.pack(">i", ids[0])), 8, 13)
            only = struct.unpack(">i", w.call(316, struct.pack(">iI", 0, 1) + ref).body)[0]
            assert old.call(106).status == OK
            with defined(third, "other"):
                e = w.read()
                assert e.body[:4] == struct.pack(">i", ids[1])  # the one for a single domain is not told
        seen = [struct.unpack(">i", w.read().body[:4])[0] for _ in range(3)]
        assert sorted(seen) == sorted([ids[1], ids[1], only]), seen
        assert w.lives() and old.lives()


def ping():
    with connect() as w:
        w.send(1, serial=0, program=KEEPALIVE, kind=MESSAGE)
        pong = w.read()
        assert (pong.program, pong.number, pong.kind, pong.serial, pong.body) == (KEEPALIVE, 2, MESSAGE, 0, b"")


def is_pinged():
    daemon = Daemon(sys.argv[1], "keepalive_s=1\nkeepalive_count=4\n")
    try:
        with Wire(daemon.socket) as w, Wire(daemon.socket) as silent:
            w.call(60, struct.pack(">i", 10))
            for _ in range(6):  # answered: goes on for longer than the limit
                e = w.read()
                assert (e.program, e.number, e.kind) == (KEEPALIVE, 1, MESSAGE)
                w.send(2, serial=0, program=KEEPALIVE, kind=MESSAGE)
            assert w.lives()
            assert w.is_closed(), "a dead client is kept"
            assert silent.lives(), "a client that does not know keepalive was pinged"
    finally:
        daemon.stop()


def never_reads():
    with connect(timeout=2) as w, connect() as other:
        calls = message(7) * 64
        sent = 0
        try:
            while sent < 256 << 20:
                sent += w.sock.send(calls)
        except TimeoutError:
            pass
        assert sent < 64 << 20, "all of it was read"
        assert DAEMON.rss_mib() < 300, DAEMON.rss_mib()
        assert other.lives()


def ten_thousand_half_open():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 11000:
        raise tap.Skip(f"{hard} descriptors are too few")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 11000), hard))
    with connect() as before:
        crowd = []
        try:
            for _ in range(10000):
                s = socket.socket(socket.AF_UNIX)  # blocks while the daemon is behind
                s.connect(DAEMON.socket)
                s.send(b"\0\0")
                crowd.append(s)
            with connect() as w:
                assert w.lives()
            assert before.lives()
            assert DAEMON.rss_mib() < 300
            assert DAEMON.fd_count() < 1500
        finally:
            for s in crowd:
                s.close()
    wait_for("they are gone", lambda: DAEMON.fd_count() < 100)


def descriptors():
    def send_fds(w, data, fds):
        w.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    count = DAEMON.fd_count()
    with open("/dev/null", "rb") as null:
        with connect() as w:
            body = struct.pack(">I", 2) + struct.pack(">i", 10)
            w.sock.sendall(message(60, body, serial=3, kind=CALL_FDS))
            for _ in range(2):
                send_fds(w, b"\0", [null.fileno()])
            assert w.read().body == struct.pack(">i", 1)
            assert w.lives()
        for announced in (33, 0xffffffff):
            with connect() as w:
                w.sock.sendall(message(60, struct.pack(">Ii", announced, 10), kind=CALL_FDS))
                assert w.is_closed()
        with connect() as w:  # announced, but only bytes come
            w.sock.sendall(message(60, struct.pack(">Ii", 1, 10), kind=CALL_FDS) + b"\0")
            assert w.is_closed()
        with connect() as w:  # never announced
            for _ in range(200):
                send_fds(w, message(157), [null.fileno()] * 4)
                w.read()
    wait_for("descriptors are closed", lambda: DAEMON.fd_count() <= count)


def read_stream(w, number, serial):
    """All data and holes until the end; answers with OK, as libvirt's client does."""
    parts = []
    while True:
        m = w.read()
        assert (m.number, m.serial) == (number, serial), (m.number, m.serial, m.kind)
        if m.kind == HOLE:
            parts.append(struct.unpack(">qI", m.body)[0])
            continue
        assert m.kind == STREAM and m.status == CONTINUE, (m.kind, m.status, m.body)
        if not m.body:
            break
        parts.append(m.body)
    w.send(number, serial=serial, kind=STREAM, status=OK)
    end = w.read()
    assert (end.kind, end.status, end.body) == (STREAM, OK, b"")
    return parts


def streams():
    folder = tap.folder("pool-")
    with connect() as w:
        pool = w.call(76, string(POOL.format("wire", folder)) + bytes(4))
        assert pool.status == OK, pool.error()
        volume = w.call(93, pool.body + string(VOLUME) + bytes(4))
        assert volume.status == OK, volume.error()
        v = volume.body

        data = os.urandom(300000)
        assert w.call(208, v + struct.pack(">QQI", 0, 0, 1), serial=500).status == OK
        w.send(208, data, serial=500, kind=STREAM, status=CONTINUE)
        w.send(208, struct.pack(">qI", 500000, 0), serial=500, kind=HOLE, status=CONTINUE)
        w.send(208, b"end", serial=500, kind=STREAM, status=CONTINUE)
        w.send(208, serial=500, kind=STREAM, status=OK)
        end = w.read()
        assert (end.kind, end.number, end.serial, end.status) == (STREAM, 208, 500, OK), end.body
        with open(os.path.join(folder, "v"), "rb") as f:
            assert f.read(800003) == data + bytes(500000) + b"end"

        assert w.call(209, v + struct.pack(">QQI", 0, 0, 0), serial=501).status == OK
        whole = b"".join(read_stream(w, 209, 501))
        assert whole == data + bytes(500000) + b"end" + bytes(1048576 - 800003)
        assert w.call(209, v + struct.pack(">QQI", 10, 100, 0), serial=502).status == OK
        assert b"".join(read_stream(w, 209, 502)) == data[10:110]

        assert w.call(209, v + struct.pack(">QQI", 0, 0, 1), serial=503).status == OK
        parts = read_stream(w, 209, 503)
        assert any(isinstance(p, int) for p in parts), "no hole was sent"
        assert b"".join(bytes(p) if isinstance(p, int) else p for p in parts) == whole

        assert w.call(208, v + struct.pack(">QQI", 0, 4, 0), serial=504).status == OK  # more than its length
        w.send(208, b"12345", serial=504, kind=STREAM, status=CONTINUE)
        m = w.read()
        assert (m.kind, m.serial, m.status) == (STREAM, 504, ERROR)
        given_up = w.call(208, v + struct.pack(">QQI", 0, 0, 0), serial=505)
        assert given_up.status == OK, given_up.error()
        w.send(208, serial=505, kind=STREAM, status=ERROR)
        assert w.read().status == OK
        assert w.call(209, v + struct.pack(">QQI", 0, 0, 0), serial=506).status == OK  # a download that is written to
        w.send(209, b"data", serial=506, kind=STREAM, status=CONTINUE)
        while True:
            m = w.read()
            if m.status != CONTINUE:
                break
        assert (m.serial, m.status) == (506, ERROR)
        refused(w.call(209, v + struct.pack(">QQI", 0, 0, 8)), 74, 10)
        assert w.call(80, pool.body).status == OK


def typed_parameters_twice():
    with connect() as w, defined(w, "params") as ref:
        count = struct.unpack(">Ii", w.call(198, ref + struct.pack(">iI", 0, 4)).body)
        assert count[0] == 0 and count[1] == 3, count
        body = w.call(198, ref + struct.pack(">iI", count[1], 4)).body
        assert body[:4] == struct.pack(">I", 3) and b"hard_limit" in body and body[-4:] == struct.pack(">i", 3)
        assert w.call(206, ref + struct.pack(">iI", 0, 0)).body == struct.pack(">Ii", 0, 1), "strings for a client without them"
        assert struct.unpack(">Ii", w.call(206, ref + struct.pack(">iI", 0, 4)).body)[1] > 1


def needs_authentication():
    settings = "tcp=127.0.0.1:{0}\nauth_tcp=sasl\n"
    port = tap.free_port()
    daemon = Daemon(sys.argv[1], settings.format(port))
    try:
        with Wire(("127.0.0.1", port), open_it=False) as w:
            refused(w.call(157), *RPC_ERROR)
            refused(w.call(1, bytes(8)), *RPC_ERROR)
            assert w.call(66, serial=0).body == struct.pack(">II", 1, 1)
            refused(w.call(69, struct.pack(">iI", 1, 0)), 45, 46)
            mechanisms = w.call(67)
            if mechanisms.status == OK:
                refused(w.call(68, string("NIX") + struct.pack(">iI", 1, 0)), 45, 46)
                refused(w.call(68, string("PLAIN") + struct.pack(">iI", 0, 4) + struct.pack(">4I", *b"\0a\0b")), 45, 46)
            refused(w.call(68, string("X" * 65) + struct.pack(">iI", 1, 0)), *RPC_ERROR)
            refused(w.call(157), *RPC_ERROR)
    finally:
        daemon.stop()


def who_may():
    if os.geteuid():
        raise tap.Skip("only root can become somebody else")
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            with Wire(DAEMON.socket, open_it=False) as w:
                refused(w.call(66, serial=0), 45, 46)
                refused(w.call(1, bytes(8)), *RPC_ERROR)
            with Wire(DAEMON.socket_ro) as w:
                assert w.lives()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def stopping_says_so():
    daemon = Daemon(sys.argv[1])
    try:
        with Wire(daemon.socket) as w:
            assert w.call(360).status == OK
            daemon.process.terminate()
            m = w.read()
            assert (m.number, m.kind) == (362, MESSAGE)
            assert w.is_closed()
        assert daemon.process.wait(120) == 0
        assert not os.path.exists(daemon.socket)
    finally:
        daemon.stop()


def main():
    global DAEMON
    DAEMON = Daemon(sys.argv[1])
    tests = (order_of_connecting, wrong_uri, before_open, lengths, half_open_sends_much, bad_headers, unsupported,
             replies_and_messages_are_ignored, bad_arguments, trailing_bytes, error_object, node_info, read_only, secrets_stay,
             many_calls_at_once, byte_by_byte, out_of_order, close_answers_first, events, ping, is_pinged, never_reads,
             ten_thousand_half_open, descriptors, streams, typed_parameters_twice, needs_authentication, who_may, stopping_says_so)
    try:
        tap.run({t.__name__.replace("_", " "): t for t in tests})
    finally:
        DAEMON.stop()


main()
