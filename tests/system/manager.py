# SPDX-License-Identifier: GPL-2.0-or-later
"""A manager of a test's own: ruched with folders of its own, and its REST interface over the Unix socket."""
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse


class Answer:
    """Status, headers, and the body: as text, and as JSON where it is."""

    def __init__(self, response):
        self.status, self.headers = response.status, response.headers
        self.text = response.read().decode()
        is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        self.json = json.loads(self.text) if is_json else None

    def __str__(self):
        return f"{self.status} {self.text[:300]}"


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=300):
        super().__init__("ruche", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)
        self.sock.settimeout(self.timeout)


class Manager:
    """ruched in the foreground; close() ends it, and the machines that it left."""

    def __init__(self, ruched, config=""):
        self.ruched, self.folder = ruched, tempfile.TemporaryDirectory(prefix="ruche-test-", ignore_cleanup_errors=True)
        self.run, self.state = os.path.join(self.folder.name, "run"), os.path.join(self.folder.name, "state")
        self.socket = os.path.join(self.run, "ruche.sock")
        self.config, self.log = os.path.join(self.folder.name, "conf"), os.path.join(self.folder.name, "log")
        with open(self.config, "w", encoding="utf-8") as f:
            f.write(config)
        self.process = None
        self.start()

    def start(self):
        began = time.monotonic()
        with open(self.log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [self.ruched, "--session", "--config", self.config, "--runtime-dir", self.run, "--state-dir", self.state],
                stderr=log, start_new_session=True)
        while not self.answers():
            assert self.process.poll() is None, "ruched ended: " + self.said()
            assert time.monotonic() - began < 120, "ruched does not answer: " + self.said()
            time.sleep(0.01)

    def answers(self):
        return all(self.listens(path) for path in (self.socket, os.path.join(self.run, "libvirt-sock")))

    @staticmethod
    def listens(path):
        with socket.socket(socket.AF_UNIX) as s:
            return s.connect_ex(path) == 0

    def said(self):
        with open(self.log, encoding="utf-8") as f:
            return f.read()[-2000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method, path, body=None, headers=None, timeout=300):
        """One request on a connection of its own. A body that is no text is sent as JSON."""
        c = Connection(self.socket, timeout)
        head = dict(headers or {})
        if body is not None and not isinstance(body, (str, bytes)):
            body = json.dumps(body)
            head.setdefault("Content-Type", "application/json")
        try:
            c.request(method, path, body, head)
            return Answer(c.getresponse())
        finally:
            c.close()

    def want(self, status, method, path, body=None, **more):
        answer = self.call(method, path, body, **more)
        assert answer.status == status, f"{method} {path}: {answer}"
        return answer

    def refused(self, status, word, method, path, body=None, **more):
        """An error: its status, and a word of its sentence."""
        answer = self.want(status, method, path, body, **more)
        assert answer.json and word in answer.json["error"]["message"], f"{method} {path}: {answer}"
        return answer.json["error"]

    def job(self, answer, timeout_s=600):
        """Follows a job to its end."""
        until = time.monotonic() + timeout_s
        job = answer.json
        while job["state"] == "running" and time.monotonic() < until:
            job = self.want(200, "GET", f"/jobs/{job['id']}?wait=1000").json
        return job

    def resident_kib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)  # a test that failed may have stopped it
            for domain in self.want(200, "GET", "/domains").json["domains"]:
                if "id" in domain:
                    self.call("POST", f"/domains/{urllib.parse.quote(domain['name'])}/destroy")
            self.process.terminate()
            self.process.wait(120)
        self.folder.cleanup()
