/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects by name and UUID. See named.h. */
#include "manager/named.h"

#include "base/fiber.h"
#include "manager/uuid.h"

#include <string.h>

static const char *name_of(const struct named_table *t, const void *object)
{
    return *(char *const *)((const char *)object + t->name_at);
}

static bool *removed_of(const struct named_table *t, void *object)
{
    return (bool *)((char *)object + t->removed_at);
}

void *named_ref(const struct named_table *t, void *object)
{
    (*(unsigned *)((char *)object + t->refs_at))++;
    return object;
}

unsigned named_count(const struct named_table *t)
{
    return t->all ? t->all->len : 0;
}

/* Where `name` is or would be; true: is. */
static bool find_place(const struct named_table *t, const char *name, unsigned *ret_place)
{
    unsigned low = 0, high = named_count(t);
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        int order = strcmp(name_of(t, t->all->pdata[mid]), name);
        if (order == 0) {
            *ret_place = mid;
            return true;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_place = low;
    return false;
}

void named_insert(struct named_table *t, void *object)
{
    unsigned place;
    if (!t->all)
        t->all = g_ptr_array_new_with_free_func(t->unref);
    find_place(t, name_of(t, object), &place);
    g_ptr_array_insert(t->all, (int)place, named_ref(t, object));
}

bool named_remove(struct named_table *t, void *object)
{
    if (t->removed_at)
        *removed_of(t, object) = true;
    return t->all && g_ptr_array_remove(t->all, object);
}

void named_done(struct named_table *t)
{
    g_clear_pointer(&t->all, g_ptr_array_unref);
}

void *named_peek(const struct named_table *t, const char *name)
{
    unsigned place;
    return find_place(t, name, &place) ? t->all->pdata[place] : NULL;
}

void *named_find_name(const struct named_table *t, const char *name, GError **error)
{
    void *object = named_peek(t, name);
    if (object)
        return named_ref(t, object);
    ruche_error(error, t->missing, "no %s with matching name '%s'", t->noun, name);
    return NULL;
}

void *named_find_uuid(const struct named_table *t, const uint8_t *uuid, GError **error)
{
    char text[UUID_TEXT_BYTES];
    for (unsigned i = 0; i < named_count(t); i++)
        if (!memcmp((const char *)t->all->pdata[i] + t->uuid_at, uuid, 16))
            return named_ref(t, t->all->pdata[i]);
    uuid_format(uuid, text);
    ruche_error(error, t->missing, "no %s with matching uuid '%s'", t->noun, text);
    return NULL;
}

GPtrArray *named_list(const struct named_table *t, named_fn *passes, unsigned flags)
{
    GPtrArray *found = g_ptr_array_new_with_free_func(t->unref);
    for (unsigned i = 0; i < named_count(t); i++)
        if (!passes || passes(t->all->pdata[i], flags))
            g_ptr_array_add(found, named_ref(t, t->all->pdata[i]));
    return found;
}

bool named_operation(const struct named_table *t, const struct caller *who, void *object,
                     enum right right, const char *operation, named_operation_fn *fn, void *opaque,
                     GError **error)
{
    struct fiber_mutex *lock = (struct fiber_mutex *)((char *)object + t->lock_at);
    g_autofree char *name = g_strdup(name_of(t, object)),
                    *what = g_strdup_printf("%s %s '%s'", operation, t->noun, name);
    g_autoptr(GError) e = NULL;
    if (!access_check(who, right, what, error))
        return false;
    named_ref(t, object);
    fiber_mutex_lock(lock);
    bool ok = *removed_of(t, object)
                  ? ruche_error(&e, t->missing, "%s '%s' is no longer there", t->noun, name)
                  : fn(object, opaque, &e);
    fiber_mutex_unlock(lock);
    if (right != RIGHT_READ)
        audit(who, operation, name, e);
    t->unref(object);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&e));
    return ok;
}
