# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients of libvirt hear of domains: their lives, the passes of their migrations, the ends of their jobs.

Import it before a connection is opened: libvirt's event loop begins here, in a thread.
"""
import threading
import time

import libvirt

LIFE = ("defined", "undefined", "started", "suspended", "resumed", "stopped", "shutdown", "pmsuspended", "crashed")
STANDS = ("suspended", libvirt.VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
GONE = (("stopped", libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED), ("job", libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT))
COMES, GOES_ON = ("started", libvirt.VIR_DOMAIN_EVENT_STARTED_MIGRATED), ("resumed", libvirt.VIR_DOMAIN_EVENT_RESUMED_MIGRATED)
ADDED, UPDATED = ("defined", libvirt.VIR_DOMAIN_EVENT_DEFINED_ADDED), ("defined", libvirt.VIR_DOMAIN_EVENT_DEFINED_UPDATED)
REMOVED = ("undefined", libvirt.VIR_DOMAIN_EVENT_UNDEFINED_REMOVED)


def turn():
    while True:
        libvirt.virEventRunDefaultImpl()


libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=turn, daemon=True).start()


class Heard:
    """By one connection, from now on: (what, detail) in order; passes, and how many other events had come before each."""

    def __init__(self, connection):
        self.events, self.passes = [], []
        self.connection = connection
        self.ids = [connection.domainEventRegisterAny(None, *row, None) for row in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, lambda c, d, what, why, _: self.events.append((LIFE[what], why))),
            (libvirt.VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, lambda c, d, number, _: self.passes.append((number, len(self.events)))),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, lambda c, d, figures, _: self.events.append(("job", figures["operation"]))))]

    def wants(self, *events, seconds=120):
        """Exactly these, now or soon; forgets them, and returns the passes."""
        end = time.monotonic() + seconds
        while len(self.events) < len(events) and time.monotonic() < end:
            time.sleep(0.02)
        assert self.events == list(events), (self.events[:], list(events), self.passes[:])
        passes = self.passes[:]
        assert [number for number, _ in passes] == list(range(1, len(passes) + 1)), passes
        self.events.clear()
        self.passes.clear()
        return passes

    def stop(self):
        for number in self.ids:
            self.connection.domainEventDeregisterAny(number)
