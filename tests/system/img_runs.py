# SPDX-License-Identifier: GPL-2.0-or-later
"""What ruche-img does beside its output: new images appear whole or not at all, whatever ends the run; progress; serving;
disks out of an archive.

Arguments: the ruche-img under test.
"""
import functools
import hashlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import tap

OURS = os.path.abspath(sys.argv[1])
MIB = 1 << 20


class Folder:
    """A folder of our own, left at the end."""

    def __enter__(self):
        self.temp = tempfile.TemporaryDirectory(prefix="img-runs-")
        self.path = self.temp.name
        return self

    def __exit__(self, *_):
        self.temp.cleanup()

    def file(self, name):
        return os.path.join(self.path, name)

    def names(self):
        return sorted(os.listdir(self.path))

    def run(self, *words, code=0, tool=OURS):
        done = subprocess.run([tool, *words], cwd=self.path, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=600, check=False)
        assert done.returncode == code, f"{words}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def start(self, *words, **more):
        return subprocess.Popen([OURS, *words], cwd=self.path, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, **more)

    def fill(self, name, mib):
        with open(self.file(name), "wb") as f:
            for i in range(mib):
                f.write(os.urandom(4096) * (MIB // 4096) if i % 3 else bytes([i % 255 + 1]) * MIB)


def until(condition, what, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.02)


SEVERAL = {  # images of several files: format, options, names
    "flat": ("vmdk", "subformat=monolithicFlat", ["new-flat.vmdk", "new.vmdk"]),
    "split": ("vmdk", "subformat=twoGbMaxExtentFlat", ["new-f001.vmdk", "new.vmdk"]),
    "data file": ("qcow2", "data_file=new.data", ["new.data", "new.qcow2"]),
}


def interrupted(number, kind=None):
    """The names keep what they had; the temporary files are gone; the signal shows in the exit code."""
    fmt, options, names = SEVERAL.get(kind, ("qcow2", "cluster_size=64k", ["new.qcow2"]))
    with Folder() as f:
        f.fill("a.raw", 16)
        for name in names:
            with open(f.file(name), "w", encoding="ascii") as old:
                old.write("what was there before: " + name)
        p = f.start("convert", "-O", fmt, "-o", options, "-r", "1M", "a.raw", names[-1])
        until(lambda: len(f.names()) == 1 + 2 * len(names), "temporary files")
        p.send_signal(number)
        p.communicate(timeout=120)
        assert p.returncode == -number, p.returncode
        assert f.names() == sorted(["a.raw", *names]), f.names()
        for name in names:
            with open(f.file(name), encoding="ascii") as old:
                assert old.read() == "what was there before: " + name


def several_files(kind):
    """New and once more over itself; the names inside are the final ones."""
    fmt, options, names = SEVERAL[kind]
    with Folder() as f:
        for mib in (3, 5):
            f.fill("a.raw", mib)
            f.run("convert", "-O", fmt, "-o", options, "a.raw", names[-1])
            assert f.names() == sorted(["a.raw", *names]), f.names()
            f.run("compare", "-f", "raw", "-F", fmt, "a.raw", names[-1], tool="qemu-img")
        with open(f.file(names[-1]), "rb") as image:
            assert names[0].encode() in image.read(4096)
        f.run("convert", "-O", fmt, "-o", options, "a.raw", "absent/" + names[-1], code=1)
        os.rename(f.file(names[0]), f.file("kept"))
        os.mkdir(f.file(names[0]))  # the second file cannot be made
        f.run("convert", "-O", fmt, "-o", options, "a.raw", names[-1], code=1)
        os.rmdir(f.file(names[0]))
        os.rename(f.file("kept"), f.file(names[0]))
        f.run("compare", "-f", "raw", "-F", fmt, "a.raw", names[-1], tool="qemu-img")
        assert not [n for n in f.names() if n.endswith(".part")], f.names()


def killed():
    """Nothing can be removed by who is killed, but the name keeps what it had."""
    with Folder() as f:
        f.fill("a.raw", 16)
        f.run("create", "-q", "-f", "qcow2", "new.qcow2", "1M")
        p = f.start("convert", "-O", "qcow2", "-r", "1M", "a.raw", "new.qcow2")
        until(lambda: len(f.names()) == 3, "a temporary file")
        p.kill()
        p.communicate(timeout=120)
        assert json.loads(f.run("info", "--output=json", "new.qcow2").stdout)["virtual-size"] == MIB


def unreadable_source():
    with Folder() as f:
        f.run("create", "-q", "-f", "raw", "a.raw", "1M")
        rules = "driver=raw,file.driver=blkdebug,file.image.filename=a.raw,file.inject-error.0.event=read_aio"
        done = f.run("convert", "--image-opts", "-S", "0", rules, "b.raw", code=1)
        assert "Input/output error" in done.stderr, done.stderr
        assert f.names() == ["a.raw"], f.names()


def full_disk():
    """On a file system that is too small: a sentence, and nothing is left or lost."""
    with Folder() as f:
        os.mkdir(f.file("small"))
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", f.file("small")], check=False,
                                 capture_output=True)
        if mounted.returncode:
            raise tap.Skip("a file system cannot be mounted here")
        try:
            f.fill("a.raw", 16)
            f.run("create", "-q", "-f", "qcow2", "small/old.qcow2", "1M")
            for words in (["convert", "-O", "qcow2"], ["convert", "-O", "raw"], ["convert", "-O", "vmdk"],
                          ["convert", "-t", "none", "-O", "qcow2"],
                          *(["convert", "-O", fmt, "-o", options] for fmt, options, _ in SEVERAL.values())):
                done = f.run(*words, "a.raw", "small/new.img", code=1)
                assert "No space left" in done.stderr, done.stderr
                assert os.listdir(f.file("small")) == ["old.qcow2"], os.listdir(f.file("small"))
            f.run("create", "-f", "raw", "-o", "preallocation=full", "small/full.raw", "16M", code=1)
            f.run("convert", "-O", "qcow2", "a.raw", "small/old.qcow2", code=1)
            f.run("check", "small/old.qcow2")
            assert os.listdir(f.file("small")) == ["old.qcow2"], os.listdir(f.file("small"))
        finally:
            subprocess.run(["umount", f.file("small")], check=False)


def commit_on_full_disk():
    """The overlay keeps what it has when the base cannot take it."""
    with Folder() as f:
        os.mkdir(f.file("small"))
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", f.file("small")], check=False,
                          capture_output=True).returncode:
            raise tap.Skip("a file system cannot be mounted here")
        try:
            f.fill("a.raw", 16)
            for tool, cluster in (("ours", 65536), ("ours", 4096), ("ours", 512), ("qemu-img", 65536), ("qemu-img", 4096)):
                base = f.file("small/base.qcow2")
                if tool == "ours":
                    f.run("create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", base, "16M")
                else:
                    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster}", base, "16M"], check=True)
                f.run("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", "top.qcow2")
                f.run("convert", "-n", "-O", "qcow2", "a.raw", "top.qcow2")
                done = f.run("commit", "top.qcow2", code=1)
                assert "No space left" in done.stderr, done.stderr
                f.run("compare", "a.raw", "top.qcow2")
                f.run("check", "-q", base)  # no leaks: what metadata may need is there before data counts on it
                f.run("check", "top.qcow2")
                os.unlink(base)
        finally:
            subprocess.run(["umount", f.file("small")], check=False)


def progress_lines():
    with Folder() as f:
        f.fill("a.raw", 8)
        out = f.run("convert", "-p", "a.raw", "b.raw").stdout
        # text mode makes a line end of each carriage return
        assert out.startswith("    (0.00/100%)\n") and out.endswith("    (100.00/100%)\n"), repr(out)
        assert f.run("convert", "a.raw", "b.raw").stdout == ""
        assert f.run("convert", "-p", "-q", "a.raw", "b.raw").stdout == ""


def progress_by_signal():
    with Folder() as f:
        f.fill("a.raw", 4)
        p = f.start("convert", "-r", "2M", "a.raw", "b.raw")
        until(lambda: len(f.names()) == 2, "a temporary file")
        p.send_signal(signal.SIGUSR1)
        _, err = p.communicate(timeout=120)
        assert p.returncode == 0 and "/100%)" in err, (p.returncode, err)


def progress_bar():
    """On a terminal, without -p; gone at the end."""
    with Folder() as f:
        f.fill("a.raw", 12)
        ours, theirs = pty.openpty()
        p = subprocess.Popen([OURS, "convert", "-r", "8M", "a.raw", "b.raw"], cwd=f.path, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            seen += part
        out, _ = p.communicate(timeout=120)
        os.close(ours)
        assert p.returncode == 0 and not out
        assert b"#" in seen and b"%" in seen and seen.rstrip(b" ").endswith(b"\r"), seen[-100:]


def suggestions():
    with Folder() as f:
        for words, hint in ((["conver"], "convert"), (["create", "--quite", "a", "1M"], "quiet"),
                            (["create", "-f", "qcow", "a", "1M"], "qcow2"),
                            (["create", "-f", "qcow2", "-o", "cluster_sise=4k", "a", "1M"], "cluster_size"),
                            (["info", "--output=jso", "a"], "json")):
            err = f.run(*words, code=1).stderr
            assert f"'{hint}'" in err and err.count("\n") == 1, err
        assert f.names() == []


def help_of_everything():
    with Folder() as f:
        text = f.run("--help").stdout
        verbs = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
        assert len(verbs) >= 17, verbs
        for verb in verbs:
            assert f.run(verb, "--help").stdout.startswith(f"usage: ruche-img {verb}"), verb
        peers = subprocess.run(["qemu-img", "create", "-f", "qcow2", "-o", "help"], capture_output=True, text=True, check=True)
        ours = f.run("create", "-f", "qcow2", "-o", "help").stdout
        for line in peers.stdout.splitlines():
            name = line.strip().split("=")[0]
            if "=" in line and name not in ("encryption",):
                assert f"{name}=" in ours, name
        for fmt in ("qcow2", "luks"):
            names = [[line.strip().split("=")[0] for line in f.run("amend", "-f", fmt, "-o", "help", tool=tool).stdout.splitlines()
                      if "=" in line] for tool in (OURS, "qemu-img")]
            assert names[0] == names[1], names
        f.run("amend", "-f", "vmdk", "-o", "help", code=1)


def one_writer():
    """An image that is served for writing is refused; -U reads it."""
    with Folder() as f:
        f.run("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
        f.run("serve", "--fork", "-t", "--pid-file=pid", "-k", f.file("sock"), "a.qcow2")
        pid = int(open(f.file("pid"), encoding="ascii").read())
        try:
            for words in (["info", "a.qcow2"], ["resize", "a.qcow2", "8M"], ["convert", "a.qcow2", "b.raw"],
                          ["create", "-f", "raw", "a.qcow2", "1M"]):
                err = f.run(*words, code=1).stderr
                assert "a.qcow2" in err, err
            f.run("info", "-U", "a.qcow2")
        finally:
            os.kill(pid, signal.SIGTERM)
        until(lambda: tap.has_ended(pid), "the end of the server")
        assert f.names() == ["a.qcow2"], f.names()
        f.run("check", "a.qcow2")


def served_with_bitmap():
    with Folder() as f:
        f.run("create", "-q", "-f", "qcow2", "a.qcow2", "4M")
        f.run("bitmap", "--add", "a.qcow2", "b0")
        f.run("-f", "qcow2", "-c", "write -P 7 1M 64k", "a.qcow2", tool="qemu-io")
        p = f.start("serve", "-r", "-x", "disk", "-B", "b0", "-A", "-D", "a disk", "-k", f.file("sock"), "a.qcow2")
        until(lambda: any(line.split()[3] == "00010000" and line.endswith(f.file("sock") + "\n")  # not asked: it ends with its first client
                          for line in open("/proc/net/unix", encoding="utf-8")), "the socket")
        where = f"nbd+unix:///disk?socket={f.file('sock')}"
        done = f.run("--json", where, tool="nbdinfo")
        p.communicate(timeout=120)  # ends with its last client
        assert p.returncode == 0
        export = json.loads(done.stdout)["exports"][0]
        assert export["description"] == "a disk" and export["is_read_only"], export
        assert {"qemu:dirty-bitmap:b0", "qemu:allocation-depth"} <= set(export["contexts"]), export


def extracted():
    with Folder() as f:
        f.fill("s.raw", 3)
        f.run("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "s.raw", "vm-disk1.vmdk", tool="qemu-img")
        ovf = b"""<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="file1" ovf:href="vm-disk1.vmdk"/></References>
<DiskSection><Info>disks</Info><Disk ovf:capacity="3145728" ovf:diskId="vmdisk1" ovf:fileRef="file1"
 ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
<VirtualSystem ovf:id="vm"><Info>machine</Info></VirtualSystem></Envelope>"""
        disk = open(f.file("vm-disk1.vmdk"), "rb").read()
        for name, digest in (("good.ova", hashlib.sha256(disk).hexdigest()), ("bad.ova", "0" * 64)):
            manifest = f"SHA256(vm.ovf)= {hashlib.sha256(ovf).hexdigest()}\nSHA256(vm-disk1.vmdk)= {digest}\n".encode()
            with tarfile.open(f.file(name), "w", format=tarfile.USTAR_FORMAT) as t:
                for member, data in (("vm.ovf", ovf), ("vm.mf", manifest), ("vm-disk1.vmdk", disk)):
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    t.addfile(info, io.BytesIO(data))
        listed = json.loads(f.run("extract", "-l", "--output=json", "good.ova").stdout)
        assert listed[0]["name"] == "vm-disk1.vmdk" and listed[0]["virtual-size"] == 3 * MIB, listed
        f.run("extract", "good.ova")
        f.run("compare", "vm-disk1.qcow2", "s.raw", tool="qemu-img")
        assert "exists" in f.run("extract", "good.ova", code=1).stderr
        f.run("extract", "-O", "raw", "--disk=vmdisk1", "good.ova", "other.raw")
        f.run("compare", "other.raw", "s.raw", tool="qemu-img")
        f.run("extract", "bad.ova", "bad.qcow2", code=1)
        assert "bad.qcow2" not in f.names()
        f.run("extract", "--no-verify", "bad.ova", "bad.qcow2")


def space_taken():
    """Small pieces far from each other take no more of the disk than they do with the peer, in each format."""
    with Folder() as f:
        with open(f.file("a.raw"), "wb") as disk:
            disk.truncate(64 * MIB)
            for i in range(20):
                disk.seek(3 * MIB * i + 4096 * i)
                disk.write(os.urandom(8192))
        for fmt in ("vpc", "vdi", "vhdx", "vmdk", "qcow2", "raw"):
            f.run("convert", "-f", "raw", "-O", fmt, "a.raw", "ours." + fmt)
            f.run("convert", "-f", "raw", "-O", fmt, "a.raw", "theirs." + fmt, tool="qemu-img")
            os.sync()
            ours, theirs = (os.stat(f.file(name + fmt)).st_blocks * 512 for name in ("ours.", "theirs."))
            assert ours <= theirs + 64 * 1024, f"{fmt}: {ours} bytes on disk, the peer's has {theirs}"


def shared_blocks():
    """A raw copy on a file system that shares blocks takes no space."""
    with Folder() as f:
        with open(f.file("disk"), "wb") as disk:
            disk.truncate(400 * MIB)
        os.mkdir(f.file("xfs"))
        for argv in (["mkfs.xfs", "-q", "-m", "reflink=1", f.file("disk")], ["mount", "-o", "loop", f.file("disk"), f.file("xfs")]):
            try:
                if subprocess.run(argv, check=False, capture_output=True).returncode:
                    raise tap.Skip(f"{argv[0]} is not possible here")
            except FileNotFoundError as missing:
                raise tap.Skip(f"{argv[0]} is not installed") from missing
        try:
            f.fill("xfs/a.raw", 32)
            os.sync()
            before = os.statvfs(f.file("xfs")).f_bfree
            f.run("convert", "-f", "raw", "xfs/a.raw", "xfs/b.raw")
            os.sync()
            used = (before - os.statvfs(f.file("xfs")).f_bfree) * 4096
            assert used < 4 * MIB, used
            f.run("xfs/a.raw", "xfs/b.raw", tool="cmp")
        finally:
            subprocess.run(["umount", f.file("xfs")], check=False)


if __name__ == "__main__":
    tap.run({
        "SIGINT removes what is half written": lambda: interrupted(signal.SIGINT),
        "SIGTERM, too": lambda: interrupted(signal.SIGTERM),
        **{f"SIGTERM, image of several files ({kind})": functools.partial(interrupted, signal.SIGTERM, kind) for kind in SEVERAL},
        **{f"an image of several files ({kind})": functools.partial(several_files, kind) for kind in SEVERAL},
        "SIGKILL leaves what was there": killed,
        "a source that cannot be read": unreadable_source,
        "a full disk": full_disk,
        "commit into a full disk": commit_on_full_disk,
        "-p prints progress": progress_lines,
        "SIGUSR1 prints progress": progress_by_signal,
        "a bar on a terminal": progress_bar,
        "did you mean": suggestions,
        "help of every verb and format": help_of_everything,
        "an image that is written to is refused": one_writer,
        "serve with bitmaps": served_with_bitmap,
        "extract": extracted,
        "space taken by new images": space_taken,
        "blocks are shared": shared_blocks,
    })
