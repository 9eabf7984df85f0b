/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who asks, and what he may do. Checked in the core, by every operation, so that each front door
 * obeys the same rules.
 *
 * Owner     A front door has one caller for each connection and lends it to each operation.
 */
#pragma once

#include "manager/error.h"

#include <stdint.h>
#include <sys/types.h>

enum right {
    RIGHT_READ,          /* see that the object is there, its state and its description */
    RIGHT_READ_SECURE,   /* see passwords in descriptions (VIR_DOMAIN_XML_SECURE) */
    RIGHT_CONTROL,       /* start, stop, pause, console */
    RIGHT_WRITE,         /* define, change, delete */
    RIGHT_HOST,          /* change the host itself: pools, networks */
};

struct caller {
    const char *transport; /* "unix", "tcp", "tls", "rest": a word for the audit log */
    char *name;            /* SASL user, certificate's name, or user name; NULL: not known yet */
    uid_t uid;             /* (uid_t)-1: not a process of this host */
    gid_t gid;
    pid_t pid;             /* 0: not known */
    bool read_only;        /* connected to the read-only socket, or asked for it */
    bool authenticated;
};

void caller_done(struct caller *c);
/* fn is told of each caller's end: the one who keeps what belongs to a connection (one function: domain/). */
void caller_on_done(void (*fn)(const struct caller *c));
bool access_has(const struct caller *c, enum right right);
/* False with MANAGER_ERR_READ_ONLY or MANAGER_ERR_DENIED. `what` names operation and object: "define
 * domain 'web'". */
bool access_check(const struct caller *c, enum right right, const char *what, GError **error);
/* Writes who changed what into the audit log (one line of `key=value`); result: NULL, or why not. */
void audit(const struct caller *c, const char *operation, const char *object, const GError *result);
/* A caller for what the manager does by itself (autostart, on_crash). */
extern const struct caller caller_self;
