#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""virt-manager itself against ruched, on a display of its own: it connects and lists, a machine is started, paused, resumed,
opened, all pages of its details are looked at, its console is shown, and it is switched off; no window says error. TAP.

    virt_manager.py RUCHED RUCHE-VMM RUCHE-IMG KERNEL [PICTURE]

The buttons are pressed by a driver in virt-manager's own process (--inside URI), which finds them by their names and waits for
what they lead to; so neither fonts nor the host's speed matter. PICTURE gets the display with the details.
"""
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SECONDS = 240  # at most for each step
PROGRAM = "/usr/share/virt-manager"


# ---- inside ----

def steps(said):
    """What a person does, one thing after the other: each yield waits until it is so."""
    from gi.repository import Gtk
    from virtManager.config import vmmConfig
    from virtManager.manager import vmmManager
    from virtManager.vmwindow import vmmVMWindow

    def machine_row():
        for conn in manager.model:
            for row in conn.iterchildren():
                if row[0].get_name() == "shown":
                    return row
        return None

    config = vmmConfig.get_instance()
    config.set_confirm_forcepoweroff(False)
    config.set_confirm_pause(False)
    yield "the list of machines", lambda: vmmManager._instance
    manager = vmmManager.get_instance(None)
    yield "the machine in the list", machine_row
    row = machine_row()
    vm = row[0]

    def runs():
        return vm.is_active() and not vm.is_paused()

    manager.widget("vm-list").expand_all()
    manager.widget("vm-list").get_selection().select_iter(row.iter)
    yield "a button that starts", manager.widget("vm-run").get_sensitive
    manager.widget("vm-run").emit("clicked")
    yield "it runs", lambda: runs() and manager.widget("vm-pause").get_sensitive()
    manager.widget("vm-pause").set_active(True)
    yield "it is paused", vm.is_paused
    yield "a button that is pressed", lambda: manager.widget("vm-pause").get_active()
    manager.widget("vm-pause").set_active(False)
    yield "it goes on", runs
    manager.widget("vm-open").emit("clicked")
    yield "its window", lambda: vmmVMWindow._instances and manager.widget("vm-open").get_sensitive()
    window = vmmVMWindow.get_instance(manager, vm)
    yield "its console", lambda: window.widget("control-vm-console").get_active()
    parts = window._details.widget("hw-list")
    window.widget("control-vm-details").set_active(True)
    yield "its details", lambda: len(parts.get_model()) > 5
    for number, part in enumerate(parts.get_model()):
        parts.get_selection().select_path(Gtk.TreePath(number))
        said.append(f"page: {part[0]}")
        yield "a page", lambda: True
    parts.get_selection().select_path(Gtk.TreePath(0))
    yield "all drawn", lambda: not Gtk.events_pending()
    picture = os.environ.get("RUCHE_PICTURE")
    if picture:
        subprocess.run(["import", "-window", "root", picture], check=False)
    for item in window.widget("control-shutdown").get_menu().get_children():
        if getattr(item, "vmm_widget_name", "") == "destroy":
            item.activate()
    yield "it is off", vm.is_shutoff
    yield "a button that starts again", manager.widget("vm-run").get_sensitive


def inside(uri):
    sys.path.insert(0, PROGRAM)
    said = []

    class Complaints(logging.Handler):
        def emit(self, record):
            said.append(f"complaint: {record.getMessage()} {record.exc_info[1] if record.exc_info else ''}")

    sys.argv = ["virt-manager", "--no-fork", "--debug", "--connect", uri]
    import gi
    gi.require_version("Gtk", "3.0")
    from gi.repository import GLib
    from virtManager import virtmanager
    state = {"todo": None, "until": 0}

    def turn():
        from virtinst import log
        from virtManager import error
        from virtManager.engine import vmmEngine
        try:
            if state["todo"] is None:
                complaints = Complaints(logging.WARNING)
                log.addHandler(complaints)
                error.vmmErrorDialog.show_err = lambda _self, summary, details=None, **_: said.append(f"complaint: {summary} {details}")
                state["todo"] = steps(said)
                state["wait"] = ("begin", lambda: True)
            what, test = state["wait"]
            if test():
                state["wait"] = next(state["todo"])
                state["until"] = time.monotonic() + SECONDS
            elif time.monotonic() > state["until"]:
                raise AssertionError(f"waited in vain: {what}")
            return True
        except StopIteration:
            said.append("done")
        except Exception as e:  # told below; the program must end
            said.append(f"complaint: {type(e).__name__} {e}")
        with open(os.environ["RUCHE_SAID"], "w", encoding="utf-8") as out:
            out.write("\n".join(said))
        vmmEngine.get_instance().exit_app()
        return False

    GLib.timeout_add(50, turn)
    virtmanager.runcli()


# ---- outside ----

def outside():
    import tap
    from libvirt_rpc import Daemon, wait_for

    ruched, vmm, img, kernel = (os.path.abspath(p) for p in sys.argv[1:5])
    work = tempfile.mkdtemp(prefix="virt-manager-")
    os.chmod(work, 0o755)

    def need():
        for program in ("virt-manager", "Xvfb", "dbus-run-session"):
            if not shutil.which(program):
                raise tap.Skip(f"{program} is not installed (tools/packages-check)")

    def display():
        """A server that picks a free number and says it once it listens."""
        ours, theirs = os.pipe()
        x = subprocess.Popen(["Xvfb", "-displayfd", str(theirs), "-screen", "0", "1280x900x24", "-nolisten", "tcp"], pass_fds=[theirs],
                             stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs)
        with os.fdopen(ours) as f:
            number = f.readline().strip()
        assert number, "Xvfb does not start"
        return x, ":" + number

    def domain():
        disk = os.path.join(work, "disk.img")
        with open(disk, "wb") as f:
            f.truncate(1 << 20)
        os.chmod(disk, 0o666)
        with open(os.path.join(work, "domain.xml"), "w", encoding="ascii") as f:
            f.write(f"""<domain type='qemu'><name>shown</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel></os><features><acpi/></features><devices><emulator>{vmm}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<interface type='user'><model type='virtio'/></interface><serial type='pty'/><console type='pty'/>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng></devices></domain>""")
        return f.name

    def machine_from_its_window():
        need()
        daemon, x = Daemon(ruched, f"[machines]\nvmm={vmm}\nimg={img}\n"), None
        uri = f"qemu+unix:///system?socket={daemon.socket}"
        try:
            x, name = display()
            subprocess.run(["virsh", "-c", uri, "define", domain()], check=True, capture_output=True)
            # Pools begin where the test may write.
            subprocess.run(["virsh", "-c", uri, "pool-create-as", "default", "dir", "--target", work], check=True, capture_output=True)
            env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")}
            env |= {"DISPLAY": name, "HOME": work, "XDG_RUNTIME_DIR": work, "NO_AT_BRIDGE": "1", "LC_ALL": "C.UTF-8", "GSETTINGS_BACKEND": "memory",
                    "RUCHE_SAID": os.path.join(work, "said"), "RUCHE_PICTURE": os.path.abspath(sys.argv[5]) if len(sys.argv) > 5 else ""}
            with open(os.path.join(work, "log"), "wb") as log:
                p = subprocess.Popen(["dbus-run-session", "--", "/usr/bin/python3", os.path.abspath(__file__), "--inside", uri], env=env, stdin=subprocess.DEVNULL,
                                     stdout=log, stderr=log, start_new_session=True)
            try:
                wait_for("virt-manager", lambda: p.poll() is not None, 900)
            finally:
                if p.poll() is None:
                    p.kill()
            with open(os.path.join(work, "log"), encoding="utf-8", errors="replace") as f:
                log = f.read()
            assert os.path.exists(os.path.join(work, "said")), log[-3000:]
            with open(os.path.join(work, "said"), encoding="utf-8") as f:
                said = f.read().splitlines()
            complaints = [line for line in said if line.startswith("complaint")]
            assert said[-1] == "done" and not complaints, "\n".join(said) + log[-3000:]
            pages = [line.removeprefix("page: ") for line in said if line.startswith("page: ")]
            for page in ("Overview", "CPUs", "Memory", "VirtIO Disk 1", "Serial 1"):
                assert page in pages, pages
            assert "Traceback" not in log, log[-3000:]
        finally:
            if x:
                x.terminate()
                x.wait(120)
            subprocess.run(["virsh", "-c", uri, "destroy", "shown"], check=False, capture_output=True)
            daemon.stop()
            shutil.rmtree(work, ignore_errors=True)

    tap.run({"a machine from its window": machine_from_its_window})


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        inside(sys.argv[2])
    else:
        sys.path.insert(0, HERE)
        outside()
