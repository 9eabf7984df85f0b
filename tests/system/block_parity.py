#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP for disks beside QEMU's: every command, argument and event is there, and answers have every member.

    block_parity.py RUCHE-VMM
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]

import tap  # noqa: E402

OURS, QEMU = [sys.argv[1], "-accel", "soft", "-m", "32M"], ["qemu-system-x86_64", "-accel", "tcg", "-m", "32M"]
COMMON = ["-S", "-display", "none", "-nodefaults", "-machine", "q35", "-qmp", "stdio"]
ABOUT = re.compile(r"(?<!ram)block|drive|nbd|eject|job|transaction|backing|iothread|qom-(get|set|list$)|object-")
# Of devices and drivers that are not here (quorum, replication), and what is for QEMU's own developers.
LEFT_OUT = {"x-blockdev-change", "x-debug-query-block-graph"}
EVENTS = re.compile(r"^(BLOCK|JOB)")


class Qmp:
    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([*program, *COMMON, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.read()
        self.do("qmp_capabilities")

    def read(self):
        while True:
            message = json.loads(self.process.stdout.readline())
            if "event" not in message:
                return message

    def do(self, command, **arguments):
        message = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        reply = self.read()
        assert "return" in reply, (command, reply)
        return reply["return"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def schema(program):
    """Commands and events with their members: {name: {member: optional}}."""
    with Qmp(program) as q:
        entities = q.do("query-qmp-schema")
    by_name = {e["name"]: e for e in entities}

    def members(e):
        return {m["name"]: "default" in m for m in by_name[e["arg-type"]].get("members", [])}

    return ({e["name"]: members(e) for e in entities if e["meta-type"] == "command"},
            {e["name"]: members(e) for e in entities if e["meta-type"] == "event"})


def test_schema():
    (theirs, their_events), (ours, our_events) = schema(QEMU), schema(OURS)
    wrong = []
    for name, arguments in theirs.items():
        if not ABOUT.search(name) or name in LEFT_OUT:
            continue
        if name not in ours:
            wrong.append(f"no command {name}")
            continue
        for argument, optional in arguments.items():
            if argument not in ours[name] and "*" not in ours[name]:
                wrong.append(f"{name} without {argument}")
            elif optional and not ours[name].get(argument, True):
                wrong.append(f"{name} demands {argument}")
    for name, data in their_events.items():
        if EVENTS.search(name):
            wrong += [f"event {name} without {m}" for m in set(data) - set(our_events.get(name, {}))]
    assert not wrong, "\n".join(wrong)
    assert len([n for n in theirs if ABOUT.search(n)]) > 60, "QEMU's schema was not understood"


QUERIES = {"query-block": {}, "query-named-block-nodes": {"flat": True}, "query-blockstats": {}, "query-blockstats ": {"query_nodes": True},
           "query-block-jobs": {}, "query-jobs": {}, "query-block-exports": {}, "query-iothreads": {}}


def answers(program, folder):
    """What the queries say of a disk over a backing file, with a bitmap, being mirrored, and of an export."""
    def node(q, name):
        q.do("blockdev-add", driver="qcow2", node_name=name, file={"driver": "file", "filename": f"{folder}/{name}"})

    with Qmp(program, "-object", "iothread,id=io0", "-drive", f"file={folder}/top,format=qcow2,if=none,id=d",
             "-device", "virtio-blk-pci,drive=d,id=v") as q:
        q.do("block-dirty-bitmap-add", node="d", name="b", persistent=True)
        q.do("nbd-server-start", addr={"type": "unix", "data": {"path": f"{folder}/nbd"}})
        node(q, "one")
        node(q, "two")
        q.do("block-export-add", type="nbd", id="e", node_name="one")
        q.do("block-latency-histogram-set", id=q.do("query-block")[0]["qdev"], boundaries=[1000, 1000000])
        q.do("blockdev-mirror", device="d", target="two", sync="full", speed=1, job_id="j")
        result = {name: q.do(name.strip(), **arguments) for name, arguments in QUERIES.items()}
    os.unlink(f"{folder}/nbd") if os.path.exists(f"{folder}/nbd") else None
    return result


def paths(value, path=""):
    if isinstance(value, dict):
        return {p for key, v in value.items() for p in {f"{path}.{key}"} | paths(v, f"{path}.{key}")}
    if isinstance(value, list):
        return {p for v in value for p in paths(v, path + "[]")}
    return set()


def test_answers():
    folder = tempfile.mkdtemp(prefix="ruche-parity-")
    try:
        for arguments in (["base", "4M"], ["-b", "base", "-F", "qcow2", "top"], ["one", "4M"], ["two", "4M"]):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *arguments], cwd=folder, check=True)
        theirs, ours = answers(QEMU, folder), answers(OURS, folder)
    finally:
        shutil.rmtree(folder)
    wrong = [f"{name}: {p}" for name, value in theirs.items() for p in sorted(paths(value) - paths(ours[name]))]
    assert not wrong, "\n".join(wrong)
    assert len(paths(theirs["query-block"])) > 30 and theirs["query-block-jobs"], theirs


tap.run({"commands, arguments and events that QEMU has": test_schema, "answers have what QEMU's have": test_answers})
