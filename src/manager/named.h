/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A table of objects that have a name and a UUID: networks, pools, filters. In the order of their
 * names; domains, of which there are thousands, have their own (domain_table.c).
 *
 * Owner     The table holds one reference of each object; what is found has one for the caller.
 * Thread    The loop thread.
 */
#pragma once

#include "manager/access.h"

#include <glib.h>
#include <stddef.h>

/* One kind of object, and all there are of it. The members say where an object keeps what every kind
 * has. */
struct named_table {
    const char *noun;  /* in messages: "storage pool" */
    int missing;       /* the error's code: MANAGER_ERR_NO_POOL */
    size_t name_at;    /* char * */
    size_t uuid_at;    /* uint8_t [16] */
    size_t refs_at;    /* unsigned */
    size_t lock_at;    /* struct fiber_mutex; this and the next for named_operation() */
    size_t removed_at; /* bool */
    GDestroyNotify unref;
    GPtrArray *all;
};
/* clang-format off */
#define NAMED_TABLE(type, word, code, free_fn) \
    .noun = word, .missing = code, .name_at = offsetof(type, name), .uuid_at = offsetof(type, uuid), \
    .refs_at = offsetof(type, refs), .unref = (GDestroyNotify)free_fn
#define NAMED_LOCK(type) .lock_at = offsetof(type, lock), .removed_at = offsetof(type, removed)
/* clang-format on */

/* One more reference; returns the object. */
void *named_ref(const struct named_table *t, void *object);

/* The caller has seen that the name is free. */
void named_insert(struct named_table *t, void *object);
/* Marks it as removed where it has such a mark. False: it is not there. */
bool named_remove(struct named_table *t, void *object);
/* Frees the table and drops its references. */
void named_done(struct named_table *t);

unsigned named_count(const struct named_table *t);
/* Lent; NULL: none has this name. */
void *named_peek(const struct named_table *t, const char *name);
/* Errors: t->missing. */
void *named_find_name(const struct named_table *t, const char *name, GError **error);
void *named_find_uuid(const struct named_table *t, const uint8_t *uuid, GError **error);

typedef bool named_fn(const void *object, unsigned flags);
/* Those that pass (NULL: all), in the order of their names, with a reference each. */
GPtrArray *named_list(const struct named_table *t, named_fn *passes, unsigned flags);

typedef bool named_operation_fn(void *object, void *opaque, GError **error);
/* `fn` under the object's lock, if `who` has the right and the object is still there; what is more than
 * reading is audited. */
bool named_operation(const struct named_table *t, const struct caller *who, void *object,
                     enum right right, const char *operation, named_operation_fn *fn, void *opaque,
                     GError **error);

/* libvirt's lists: of a pair of flags, none or both filter nothing. */
static inline bool flags_pass(unsigned flags, unsigned yes, unsigned no, bool is)
{
    return !(flags & (yes | no)) || flags & (is ? yes : no);
}
