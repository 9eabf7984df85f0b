/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How a device finds the backend that its property names: drive=, netdev=, chardev=. The vmm fills the registry,
 * the machine only keeps it. Main thread.
 */
#pragma once

#include "machine/machine.h"

struct image;
struct netdev;
struct chardev;

enum backend_kind { BACKEND_IMAGE, BACKEND_NETDEV, BACKEND_CHARDEV, BACKEND_IOTHREAD, N_BACKEND_KINDS };

struct cur;

/* Backends with a state of their own, which is a section of the machine's (machine/state.h). Main thread, the machine
 * stopped. */
struct backend_state {
    const char *(*type)(const void *backend); /* the section's; NULL: this one has no state */
    bool (*save)(void *backend, GByteArray *out, GError **error);
    bool (*load)(void *backend, struct cur *c, GError **error); /* hostile bytes */
};
/* For all of a kind; borrowed. */
void backend_state_set(struct machine *m, enum backend_kind kind, const struct backend_state *ops);
/* "netdev": what a kind is called. */
const char *backend_kind_name(enum backend_kind kind);

/* False when the id is taken. */
bool backend_add(struct machine *m, enum backend_kind kind, const char *id, void *backend);
void backend_remove(struct machine *m, enum backend_kind kind, const char *id);
/* NULL with a sentence that names `owner`, the id and the nearest known one. */
void *backend_find(struct machine *m, enum backend_kind kind, const char *owner, const char *id,
                   GError **error);
/* Calls fn for each, sorted by id. */
void backend_foreach(struct machine *m, enum backend_kind kind,
                     void (*fn)(const char *id, void *backend, void *opaque), void *opaque);
