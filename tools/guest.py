# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest under ruche-vmm, for the demo, the system tests and the benches: process, serial console, QMP.

Everything has a time limit; close() ends just the process that was started here.
"""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

CONSOLE_LOG = os.environ.get("RUCHE_CONSOLE_LOG")  # a file that gets all that guests print, for debugging


class GuestError(Exception):
    """The guest or the machine did not do what was waited for; the message has the console's tail."""


def connect_unix(path, seconds, process=None):
    """Connects to a Unix socket that is about to exist."""
    end = time.monotonic() + seconds
    while True:
        s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            s.connect(path)
            return s
        except OSError:
            s.close()
            if time.monotonic() > end or (process and process.poll() is not None):
                raise GuestError(f"nobody listens at {path}") from None
            time.sleep(0.01)


class Qmp:
    """One QMP session. Events that arrive are kept in .events."""

    def __init__(self, path, seconds=120, process=None):
        self.socket = connect_unix(path, seconds, process)
        self.buffer = b""
        self.events = []
        self.greeting = self.read(seconds)
        self.execute("qmp_capabilities")

    def read(self, seconds):
        end = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise GuestError("QMP does not answer") from None
            if not data:
                raise GuestError("QMP closed the connection")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def call(self, command, seconds=120, **arguments):
        """The whole reply: {'return': ...} or {'error': ...}."""
        message = {"execute": command}
        if arguments:
            message["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            reply = self.read(seconds)
            if "event" not in reply:
                return reply
            self.events.append(reply)

    def execute(self, command, seconds=120, **arguments):
        reply = self.call(command, seconds, **arguments)
        if "error" in reply:
            raise GuestError(f"{command}: {reply['error']['desc']}")
        return reply["return"]

    def wait_event(self, name, seconds=120):
        end = time.monotonic() + seconds
        while True:
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            reply = self.read(max(0.01, end - time.monotonic()))
            if "event" in reply:
                self.events.append(reply)

    def close(self):
        self.socket.close()


class Console:
    """The serial console, over a Unix socket."""

    def __init__(self, path, seconds=120, process=None):
        self.socket = connect_unix(path, seconds, process)
        self.text = ""
        self.mark = 0  # expect() looks only at what came after the last match

    def expect(self, pattern, seconds):
        """Waits for a regular expression; returns the match."""
        end = time.monotonic() + seconds
        regex = re.compile(pattern, re.MULTILINE)
        while True:
            found = regex.search(self.text, self.mark)
            if found:
                self.mark = found.end()
                return found
            left = end - time.monotonic()
            if left <= 0:
                raise GuestError(f"no '{pattern}' within {seconds} s; the console ends:\n{self.text[-2000:]}")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            if not data:
                raise GuestError(f"the console closed before '{pattern}'; it ends:\n{self.text[-2000:]}")
            self.text += data.decode("utf-8", "replace").replace("\r", "")
            if CONSOLE_LOG:
                with open(CONSOLE_LOG, "ab") as log:
                    log.write(data)

    def send(self, text):
        self.socket.sendall(text.encode())

    def login(self, seconds=1200):
        self.expect(r"login: ", seconds)
        self.send("root\n")
        self.expect(r"root@\w+:~# ", seconds)
        # No echo, no line editing, a prompt that commands' output cannot imitate.
        self.send("stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; PS2=; dmesg -n 1; PS1='@@re''ady@@ '\n")
        self.expect(r"@@ready@@ ", seconds)

    def run(self, command, seconds=300):
        """Runs a shell command after login(); returns (exit status, output)."""
        self.send(f"{{ {command}\n}} 2>&1; echo \"@@status=$?@@\"\n")
        start = self.mark
        status = int(self.expect(r"@@status=(\d+)@@", seconds).group(1))
        output = self.text[start:self.mark].rsplit("@@status=", 1)[0]
        self.expect(r"@@ready@@ ", seconds)
        return status, output.strip()

    def close(self):
        self.socket.close()


class Vmm:
    """A ruche-vmm process with QMP and a serial console in a folder of its own."""

    def __init__(self, binary, arguments, console=True, environment=None):
        self.folder = tempfile.mkdtemp(prefix="ruche-")
        self.error_path = os.path.join(self.folder, "stderr")
        qmp_path = os.path.join(self.folder, "qmp")
        serial_path = os.path.join(self.folder, "serial")
        command = [binary, "-nodefaults", "-display", "none", "-qmp", f"unix:{qmp_path},server=on,wait=off"]
        if console:
            command += ["-serial", f"unix:{serial_path},server=on,wait=on"]
        self.qmp = self.console = None
        self.started = time.monotonic()
        with open(self.error_path, "wb") as errors:
            self.process = subprocess.Popen(command + arguments, stdin=subprocess.DEVNULL,
                                            stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        try:
            if console:
                self.console = Console(serial_path, process=self.process)
            self.qmp = Qmp(qmp_path, process=self.process)
        except GuestError as error:
            message = self.errors()
            self.close()
            raise GuestError(f"{error}; it said: {message}") from None

    def errors(self):
        with open(self.error_path, encoding="utf-8", errors="replace") as errors:
            return errors.read().strip()

    def seconds(self):
        return time.monotonic() - self.started

    def wait(self, seconds):
        """Exit status, once the process ends by itself."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            tail = self.console.text[-1500:] if self.console else ""
            raise GuestError(f"the machine still runs after {seconds} s; the console ends:\n{tail}") from None

    def memory_kib(self):
        """Resident memory: (all, the guest's RAM, the rest). Translated code is mapped twice and counted once."""
        total = guest = 0
        is_ram = is_code = False
        with open(f"/proc/{self.process.pid}/smaps", encoding="utf-8") as lines:
            for line in lines:
                if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
                    is_ram = "memfd:ruche-ram" in line
                    is_code = "memfd:ruche-code" in line
                elif line.startswith("Pss:" if is_code else "Rss:"):
                    kib = int(line.split()[1])
                    total += kib
                    guest += kib if is_ram else 0
        return total, guest, total - guest

    def close(self):
        for thing in (self.qmp, self.console):
            if thing:
                thing.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def copy_disk(image, to):
    """A private, sparse copy; a clone where the file system can."""
    subprocess.run(["cp", "--sparse=always", "--reflink=auto", image, to], check=True)


def debian_arguments(folder, disk, memory="512M", append=""):
    """Options that boot the guest of tools/guest-image."""
    return ["-m", memory,
            "-kernel", os.path.join(folder, "vmlinuz"), "-initrd", os.path.join(folder, "initrd.img"),
            "-append", f"console=ttyS0 root=/dev/vda rw {append}".strip(),
            "-drive", f"file={disk},if=virtio,format=raw",
            "-device", "virtio-rng-pci",
            "-nic", "user,model=virtio-net-pci"]
