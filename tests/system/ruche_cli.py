#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`ruche` as a person meets it: every command once, on a terminal and as JSON; the session that starts by itself; a Debian
machine from launch to log-in.

    ruche_cli.py RUCHE KERNEL RECIPE
"""
import fcntl
import hashlib
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import tap  # noqa: E402

RUCHE, KERNEL, RECIPE = (os.path.abspath(p) for p in sys.argv[1:4])
CACHE = os.environ.get("RUCHE_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ruche")
HOME = tempfile.TemporaryDirectory(prefix="ruche-cli-")
ENV = {"HOME": HOME.name, "PATH": os.path.dirname(RUCHE) + ":" + os.environ["PATH"], "RUCHE_CONNECT": "session",
       "LANG": "C.UTF-8", "TERM": "xterm"}  # and no XDG_RUNTIME_DIR
PID = os.path.join(HOME.name, ".cache/ruche/ruched.pid")
STATE = os.path.join(HOME.name, ".local/share/ruche")
LAUNCHED = "urn:ruche:launch"
XML = f"""<domain type='qemu'><name>%s</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{KERNEL}</kernel></os>
<devices><serial type='pty'/><memballoon model='none'/></devices></domain>"""


class Said:
    """What a command said, and its exit status."""

    def __init__(self, status, out, err=""):
        self.status, self.out, self.err = status, out, err

    def __str__(self):
        return f"status {self.status}\n{self.out}\n{self.err}"


def ruche(*words, status=0, text=None, env=None, timeout=600):
    done = subprocess.run([RUCHE, *words], input=text, stdin=None if text is not None else subprocess.DEVNULL, text=True,
                          capture_output=True, env=ENV | (env or {}), timeout=timeout, check=False)
    said = Said(done.returncode, done.stdout, done.stderr)
    assert done.returncode == status, f"ruche {' '.join(words)}: {said}"
    assert "\033" not in done.stdout, f"colours in a pipe: {done.stdout!r}"
    return said


def as_json(*words):
    return json.loads(ruche(*words, "--json").out)


def fails(word, *words, status=1, **more):
    said = ruche(*words, status=status, **more)
    assert said.err.startswith("ruche: ") and word in said.err and said.err.count("\n") == 1, said
    return said.err


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words):
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execve(RUCHE, [RUCHE, *words], ENV)
        self.text = ""

    def read(self, timeout_s):
        """False: there is no more."""
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def until(self, pattern, timeout_s=300):
        end = time.monotonic() + timeout_s
        while not re.search(pattern, self.text):
            more = self.read(0.1)
            assert more and time.monotonic() < end, f"no '{pattern}' in {self.text!r}"

    def send(self, data):
        os.write(self.fd, data)

    def end(self, timeout_s=300):
        """Its exit status."""
        until = time.monotonic() + timeout_s
        while self.read(0.1):
            assert time.monotonic() < until, f"it does not end: {self.text!r}"
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status


def on_terminal(*words, status=0):
    t = Terminal(*words)
    ended = t.end()
    assert ended == status, f"{words}: {ended}: {t.text!r}"
    return t.text


def define(name):
    ruche("define", "-", text=XML % name)


# ---- before there is a manager ----

def help_of_every_command():
    top = ruche("help").out
    names = re.findall(r"^  ([a-z]+) ", top.split("Every command has:")[0], re.M)
    assert len(names) > 30, names
    for name in names:
        text = ruche(name, "--help").out
        assert text.startswith(f"usage: ruche {name}") and text == ruche("help", name).out, text
        ruche(name, "--surely-unknown", status=2)
    assert {"list", "info", "create", "shutdown", "destroy", "migrate", "dmesg", "console"} <= set(names)  # xm's
    ruche(status=2)
    fails("did you mean 'list'", "lits", status=2)
    fails("did you mean 'memory'", "set", "x", "--memroy", "1G", status=2)
    fails("usage: ruche rename NAME NEW-NAME", "rename", "x", status=2)
    assert not os.path.exists(PID), "help started a manager"


def completion():
    script = ruche("completion", "bash").out
    ask = script + """
ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _ruche; echo "${COMPREPLY[*]}"; }
ask ruche shut; ask ruche launch --mem; ask ruche completion ""; ask ruche start comp
"""
    define("completed")
    said = subprocess.run(["bash", "-eu"], input=ask, text=True, capture_output=True, env=ENV, check=True).stdout.splitlines()
    assert said == ["shutdown", "--memory", "bash zsh fish", "completed"], said
    subprocess.run(["bash", "-n"], input=ruche("completion", "bash").out, text=True, check=True)
    assert "bashcompinit" in ruche("completion", "zsh").out and "__fish_use_subcommand" in ruche("completion", "fish").out
    fails("tcsh", "completion", "tcsh", status=2)
    assert ruche("manual").out.startswith(".TH RUCHE 1")
    ruche("delete", "completed")


def session_by_itself():
    assert not os.path.exists(PID)
    said = ruche("version").out
    assert re.match(r"ruche \d\S*\nruched \d\S* \(session\), speaks libvirt 9\.0\.0\n$", said), said
    first = manager_pid()
    assert as_json("version")["mode"] == "session" and manager_pid() == first
    os.kill(first, signal.SIGKILL)
    wait_ended(first)
    assert ruche("list").out.startswith("ID  NAME") and manager_pid() != first
    with tempfile.TemporaryDirectory(prefix="ruche-cli-") as home:
        many_begin(home)
        another_begins(home)
        cannot_begin(home)
    fails("no manager answers", "list", env={"RUCHE_CONNECT": os.path.join(HOME.name, "nowhere.sock")})


def many_begin(home):
    """Several start a manager at a time: one is the manager of all."""
    env = ENV | {"HOME": home}
    many = [subprocess.Popen([RUCHE, "list"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    for m in many:
        out, err = m.communicate(timeout=600)
        assert m.returncode == 0 and out.startswith("ID  NAME"), (m.returncode, out, err)
    with open(os.path.join(home, ".cache/ruche/ruched.pid"), encoding="ascii") as f:
        pid = int(f.read())
    os.kill(pid, signal.SIGTERM)
    wait_ended(pid)


def another_begins(home):
    """A manager that somebody else has just started is waited for: we are one, that holds the lock, and listens a second later."""
    folder = os.path.join(home, ".cache/ruche")
    with open(os.path.join(folder, "ruched.pid"), "r+", encoding="ascii") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        late = subprocess.Popen([RUCHE, "list"], env=ENV | {"HOME": home}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(1)
        with socket.socket(socket.AF_UNIX) as server:
            if os.path.exists(path := os.path.join(folder, "ruche.sock")):
                os.unlink(path)
            server.bind(path)
            server.listen()
            server.settimeout(20)
            server.accept()[0].close()  # it came
            os.unlink(path)
        late.communicate(timeout=600)


def cannot_begin(home):
    """A manager that ends is not waited for: what it said is told at once, not in ten seconds."""
    os.makedirs(os.path.join(home, ".config/ruche"), exist_ok=True)
    with open(os.path.join(home, ".config/ruche/ruched.conf"), "w", encoding="ascii") as f:
        f.write("surely unknown\n")
    begin = time.monotonic()
    said = ruche("list", status=1, env={"HOME": home}).err
    assert "ruched.conf" in said and time.monotonic() - begin < 10, (said, time.monotonic() - begin)


def wait(what, test, timeout_s=600):
    until = time.monotonic() + timeout_s
    while not test():
        assert time.monotonic() < until, f"{what}: not in {timeout_s} s"
        time.sleep(0.2)


def wait_ended(pid):
    wait(f"the end of process {pid}", lambda: tap.has_ended(pid), 120)


def manager_pid():
    with open(PID, encoding="ascii") as f:
        return int(f.read())


# ---- machines ----

def life():
    define("one")
    assert "shut off" in ruche("list", "--all").out and "one" not in ruche("list").out
    assert ruche("list", "--all", "--names").out == "one\n"
    ruche("start", "one")
    row = ruche("list").out.splitlines()[1].split()
    assert row[1:5] == ["one", "running", "1", "32"], row
    shown = on_terminal("list")
    assert "\033[1mNAME" in shown and "\033[32mrunning" in shown, repr(shown)
    ruche("pause", "one")
    assert as_json("info", "one")["state"] == "paused"
    ruche("resume", "one")
    assert as_json("list")["domains"][0]["state"] == "running"
    ruche("reset", "one")
    ruche("shutdown", "one", "--mode", "acpi")
    ruche("reboot", "one", "--mode=acpi")
    fails("'one'", "start", "one")
    fails("runs: shut it down first", "delete", "one")
    ruche("destroy", "one")
    fails("nobody", "start", "nobody")
    ruche("rename", "one", "two")
    assert "two" in ruche("info", "two").out
    fails("no domain with matching name 'one'", "info", "one")
    assert "<name>two</name>" in ruche("dumpxml", "two", "--inactive", "--secure").out
    ruche("rm", "two")
    assert ruche("ls", "--all", "--names").out == ""


def changes():
    define("box")
    ruche("set", "box", "--memory", "24M", "--cpus", "2", "--title", "A box", "--autostart", "yes")
    now = as_json("info", "box")
    assert (now["memory"], now["vcpus"], now["title"], now["autostart"]) == (24 << 20, 2, "A box", True), now
    fails("--autostart takes yes|no, not 'perhaps'", "set", "box", "--autostart", "perhaps", status=2)
    disk = os.path.join(HOME.name, "disk.raw")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    fails("--format", "attach", "box", "--disk", disk)
    ruche("attach", "box", "--disk", disk, "--format", "raw")
    ruche("attach", "box", "--network", "user")
    info = ruche("info", "box").out
    assert f"vda virtio {disk}" in info and "user 52:54:00" in info, info
    ruche("detach", "box", "--disk", "vda")
    ruche("detach", "box", "--mac", as_json("info", "box")["interfaces"][0]["mac"])
    assert not as_json("info", "box")["disks"] and not as_json("info", "box")["interfaces"]
    ruche("attach", "box", status=2)
    edited = ruche("edit", "box", env={"EDITOR": "sed -i 's/A box/Another/'"}).out
    assert "is defined" in edited and as_json("info", "box")["title"] == "Another", edited
    assert "nothing was changed" in ruche("edit", "box", env={"EDITOR": "true"}).out
    kept = ruche("edit", "box", env={"EDITOR": "sed -i 's/<vcpu/<vcup/'"}, status=1).err
    os.unlink(re.search(r"kept in (\S+)", kept).group(1))
    ruche("delete", "box")


def things_that_stay():
    ruche("create", "-", text=XML % "live")
    events = Terminal("events", "--count", "2")
    while events.read(0.1):  # until it hears of them, as it does not say when it begins to listen
        ruche("pause", "live")
        ruche("resume", "live")
    assert events.end() == 0 and re.search(r"domain +live +lifecycle suspended", events.text), events.text
    top = ruche("top", "--count", "2", "--interval", "0.1").out
    assert re.search(r"^live +running +\d", top, re.M), top
    live = Terminal("top")
    live.until("machines run; q leaves")
    tap.wait_raw(live.fd)
    live.send(b"q")
    assert live.end() == 0
    console = Terminal("console", "live")
    console.until("Ctrl-] leaves")
    tap.wait_raw(console.fd)
    console.send(b"\x1d")
    assert console.end() == 0, console.text
    fails("nobody", "console", "nobody")
    assert "-name guest=live" in ruche("log", "live").out
    ruche("dmesg", "live")
    fails("metadata", "ssh", "live")
    fails("cannot be reached", "migrate", "live", "qemu+unix:///session?socket=/nowhere/sock")
    ruche("delete", "--force", "live")


SSH = """#!/bin/sh
# Loses its connection: the first two times before the log-in, the third time after it.
echo "$*" >>{home}/words
for word; do
    case $word in
    -E*) said=${{word#-E}};;
    -oLocalCommand=*) in=${{word#*=}};;
    esac
done
case $(wc -l <{home}/words) in
1) echo "kex_exchange_identification: read: Connection reset by peer" >>$said;;
2) echo "Connection closed by 127.0.0.1 port 22" >>$said;;
3) eval "$in"; echo "Connection reset by 127.0.0.1 port 22" >>$said;;
*) exit 7;;
esac
exit 255
"""


def ssh_again():
    """A server that starts again while the guest boots is asked again, but no command is run twice."""
    bin_folder, words = os.path.join(HOME.name, "bin"), os.path.join(HOME.name, "words")
    os.mkdir(bin_folder)
    with open(os.path.join(bin_folder, "ssh"), "w", encoding="ascii", opener=lambda path, flags: os.open(path, flags, 0o755)) as f:
        f.write(SSH.format(home=HOME.name))
    with socket.create_server(("127.0.0.1", 0)) as server:
        def answer():
            while True:
                try:
                    server.accept()[0].sendall(b"SSH-2.0-test\r\n")
                except ConnectionError:
                    pass
                except OSError:
                    return
        threading.Thread(target=answer, daemon=True).start()
        launched = f"<metadata><launch xmlns='{LAUNCHED}' image='x' user='me' ssh-port='{server.getsockname()[1]}'/></metadata><memory"
        ruche("create", "-", text=(XML % "answers").replace("<memory", launched, 1))
        env = {"PATH": bin_folder + ":" + ENV["PATH"]}
        said = ruche("ssh", "answers", "halt", status=255, env=env)
        assert said.err.strip() == "Connection reset by 127.0.0.1 port 22", said
        ruche("ssh", "answers", "halt", status=7, env=env)
        server.shutdown(socket.SHUT_RDWR)
    with open(words, encoding="utf-8") as f:
        lines = f.read().splitlines()
    assert len(lines) == 4 and all("-l me " in line and line.endswith("127.0.0.1 halt") for line in lines), lines
    ruche("delete", "--force", "answers")


def host():
    text = ruche("host").out
    assert "cpus" in text and "virsh -c 'qemu+unix:///session?socket=" in text, text
    assert as_json("info")["cpus"] >= 1 and ruche("info").out.split()[0] == "name"
    uri = ruche("host", "--uri").out.strip()
    virsh = subprocess.run(["virsh", "-c", uri, "list", "--all"], capture_output=True, text=True, check=False)
    assert virsh.returncode == 0, virsh.stderr
    assert "debian" in ruche("images").out.split()
    assert "OPERATION" in ruche("jobs").out
    fails("no job", "jobs", "12345")


# ---- Debian ----

def recipe_folder():
    with open(RECIPE, "rb") as f:
        return f"debian-{hashlib.sha256(f.read()).hexdigest()[:12]}"


def take_image():
    """The image of an earlier run, so that it is built once."""
    kept, here = os.path.join(CACHE, recipe_folder()), os.path.join(STATE, "images", recipe_folder())
    if os.path.isdir(kept):
        copy_folder(kept, here)


def keep_image():
    kept, here = os.path.join(CACHE, recipe_folder()), os.path.join(STATE, "images", recipe_folder())
    if not os.path.isdir(kept):
        os.makedirs(CACHE, exist_ok=True)
        copy_folder(here, kept)


def copy_folder(source, target):
    """It appears at once; another run may do the same meanwhile."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="copying.", dir=os.path.dirname(target)) as folder:
        part = os.path.join(folder, "image")
        subprocess.run(["cp", "-r", "--sparse=always", "--reflink=auto", source, part], check=True)
        try:
            os.rename(part, target)
        except OSError:
            assert os.path.isdir(target), f"{part} cannot become {target}"


def debian():
    take_image()
    t = Terminal("launch", "debian", "--name", "demo", "--memory", "512M")
    assert t.end(2400) == 0, t.text
    assert "machine 'demo' runs" in t.text, t.text
    keep_image()
    console = Terminal("console", "demo")
    console.until(r"Linux version|systemd|Starting|Started", 900)
    console.send(b"\x1d")
    assert console.end() == 0
    said = ruche("ssh", "--wait", "1200", "demo", "uname -sm; hostname; id -un; sudo id -u", timeout=1500).out
    assert said.split() == ["Linux", "x86_64", "demo", "ruche", "0"], said
    wait("the prompt on the console, which may come after SSH's", lambda: "demo login:" in ruche("dmesg", "demo").out)
    ruche("ssh", "demo", "until systemctl -q is-active qemu-guest-agent; do sleep 0.2; done", timeout=600)
    with open(os.path.join(HOME.name, "more.raw"), "wb") as f:
        f.truncate(8 << 20)
    ruche("attach", "demo", "--disk", os.path.join(HOME.name, "more.raw"), "--format", "raw", "--live")
    ruche("ssh", "demo", "until test -b /dev/vdc; do sleep 0.2; done")
    ruche("detach", "demo", "--disk", "vdc", "--live")
    info = ruche("info", "demo").out
    assert re.search(r"^ssh +ruche@127\.0\.0\.1 port \d+$", info, re.M), info
    fails("already", "launch", "debian", "--name", "demo")
    ruche("shutdown", "demo", "--mode", "agent")
    wait("the guest's power-off", lambda: as_json("info", "demo")["state"] == "shut off")
    fails("is shut off", "ssh", "demo")
    ruche("delete", "demo")
    assert os.listdir(os.path.join(STATE, "machines")) == []


def close():
    if os.path.exists(PID):
        for name in ruche("list", "--names").out.split():
            ruche("destroy", name)
        pid = manager_pid()
        os.kill(pid, signal.SIGTERM)
        wait_ended(pid)
    HOME.cleanup()


if __name__ == "__main__":
    try:
        tap.run({"help of every command": help_of_every_command, "a session starts by itself": session_by_itself,
                 "completion and manual": completion, "a machine's life": life, "changes": changes,
                 "console, top, events, log": things_that_stay, "ssh again": ssh_again, "the host": host, "Debian from launch to log-in": debian})
    finally:
        close()
