/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events: what changed, told to whoever listens. Numbers of `event` and `detail` are libvirt's
 * (virDomainEventType and the others): the field's own words, which every front door repeats.
 *
 * Thread    The loop thread. event_emit() calls listeners at once, in the order they came; a
 *           listener only queues: it never waits, and never adds or removes listeners.
 * Owner     Strings of an event are the emitter's, for the time of the call.
 */
#pragma once

#include "manager/param.h"

enum event_class { EVENT_DOMAIN, EVENT_NETWORK, EVENT_POOL, EVENT_NODE_DEVICE, EVENT_SECRET, EVENT_MONITOR, EVENT_CLASSES };

/* virDomainEventID */
enum domain_event_id {
    DOMAIN_EVENT_LIFECYCLE = 0, DOMAIN_EVENT_REBOOT = 1, DOMAIN_EVENT_RTC_CHANGE = 2,
    DOMAIN_EVENT_WATCHDOG = 3, DOMAIN_EVENT_IO_ERROR = 4, DOMAIN_EVENT_GRAPHICS = 5,
    DOMAIN_EVENT_IO_ERROR_REASON = 6, DOMAIN_EVENT_CONTROL_ERROR = 7, DOMAIN_EVENT_BLOCK_JOB = 8,
    DOMAIN_EVENT_DISK_CHANGE = 9, DOMAIN_EVENT_TRAY_CHANGE = 10, DOMAIN_EVENT_PMWAKEUP = 11,
    DOMAIN_EVENT_PMSUSPEND = 12, DOMAIN_EVENT_BALLOON_CHANGE = 13, DOMAIN_EVENT_PMSUSPEND_DISK = 14,
    DOMAIN_EVENT_DEVICE_REMOVED = 15, DOMAIN_EVENT_BLOCK_JOB_2 = 16, DOMAIN_EVENT_TUNABLE = 17,
    DOMAIN_EVENT_AGENT_LIFECYCLE = 18, DOMAIN_EVENT_DEVICE_ADDED = 19, DOMAIN_EVENT_MIGRATION_ITERATION = 20,
    DOMAIN_EVENT_JOB_COMPLETED = 21, DOMAIN_EVENT_DEVICE_REMOVAL_FAILED = 22,
    DOMAIN_EVENT_METADATA_CHANGE = 23, DOMAIN_EVENT_BLOCK_THRESHOLD = 24, DOMAIN_EVENT_MEMORY_FAILURE = 25,
    DOMAIN_EVENT_MEMORY_DEVICE_SIZE_CHANGE = 26, DOMAIN_EVENT_IDS
};

struct event {
    enum event_class class;
    int id;                  /* domain_event_id, or the class's own: 0 lifecycle, 1 refresh/update */
    const char *name;        /* of the object */
    const uint8_t *uuid;     /* 16 bytes; NULL where objects have none */
    int object_id;           /* a running domain's number, else -1 */
    int event, detail;       /* LIFECYCLE, BLOCK_JOB, AGENT: both; WATCHDOG, IO_ERROR, TRAY: what is done or why, in `event` */
    const char *text[4];     /* by id: IO_ERROR: source path, alias, reason; BLOCK_JOB: disk;
                                DEVICE_*: alias; METADATA: namespace; TRAY: alias; GRAPHICS: see there; of a secret: what it is for */
    uint64_t excess;         /* BLOCK_THRESHOLD: bytes behind the number, the threshold; text: disk, path */
    uint64_t number;         /* BALLOON_CHANGE: KiB; RTC_CHANGE: offset in seconds; METADATA: type; of a secret: its usage */
    const struct param_list *params; /* TUNABLE, JOB_COMPLETED */
    struct _JsonObject *data; /* of class MONITOR, what a domain's emulator says by itself: text[0] is the name, number
                                 the time in microseconds, this the rest; NULL: nothing */
};

struct event_listener {
    void (*fn)(void *opaque, const struct event *e);
    void *opaque;
    struct event_listener *next; /* private */
};
void event_listen(struct event_listener *l); /* the caller's memory, until unlistened */
void event_unlisten(struct event_listener *l);
void event_emit(const struct event *e);
