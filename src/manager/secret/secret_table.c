/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The secrets there are: finding, listing, events. Thread: the loop thread. */
#include "manager/named.h"
#include "manager/secret/secret_priv.h"
#include "manager/uuid.h"

#include <string.h>

/* virConnectListAllSecretsFlags */
enum { LIST_EPHEMERAL = 1, LIST_STORED = 2, LIST_PRIVATE = 4, LIST_OPEN = 8 };
enum { ID_LIFECYCLE = 0, ID_VALUE_CHANGED = 1 };

static GPtrArray *secrets; /* in the order of their UUIDs */

struct secret *secret_new(const struct secret_def *d)
{
    struct secret *s = g_new0(struct secret, 1);
    s->refs = 1;
    memcpy(s->uuid, d->uuid, sizeof(s->uuid));
    s->usage = d->usage;
    s->id = g_strdup(d->id);
    s->text = g_strdup(d->text);
    s->ephemeral = d->ephemeral;
    s->confined = d->confined;
    return s;
}

struct secret *secret_ref(struct secret *s)
{
    s->refs++;
    return s;
}

void secret_unref(struct secret *s)
{
    if (!s || --s->refs)
        return;
    g_clear_pointer(&s->value, g_bytes_unref);
    g_free(s->id);
    g_free(s->text);
    g_free(s);
}

static int by_uuid(gconstpointer a, gconstpointer b)
{
    return memcmp((*(struct secret *const *)a)->uuid, (*(struct secret *const *)b)->uuid, 16);
}

static GPtrArray *table(void)
{
    if (!secrets)
        secrets = g_ptr_array_new();
    return secrets;
}

void secret_insert(struct secret *s)
{
    g_ptr_array_add(table(), secret_ref(s));
    g_ptr_array_sort(secrets, by_uuid);
}

void secret_remove(struct secret *s)
{
    s->removed = true;
    if (g_ptr_array_remove(table(), s))
        secret_unref(s);
}

void secret_table_done(void)
{
    while (secrets && secrets->len)
        secret_remove(secrets->pdata[secrets->len - 1]);
    g_clear_pointer(&secrets, g_ptr_array_unref);
}

struct secret *secret_find_uuid(const uint8_t *uuid, GError **error)
{
    char text[UUID_TEXT_BYTES];
    for (unsigned i = 0; i < table()->len; i++) {
        struct secret *s = secrets->pdata[i];
        if (!memcmp(s->uuid, uuid, sizeof(s->uuid)))
            return secret_ref(s);
    }
    uuid_format(uuid, text);
    ruche_error(error, MANAGER_ERR_NO_SECRET, "no secret with matching uuid '%s'", text);
    return NULL;
}

struct secret *secret_find_usage(int usage, const char *id, GError **error)
{
    for (unsigned i = 0; i < table()->len; i++) {
        struct secret *s = secrets->pdata[i];
        if (s->usage != SECRET_NONE && (int)s->usage == usage && !strcmp(s->id, id))
            return secret_ref(s);
    }
    ruche_error(error, MANAGER_ERR_NO_SECRET, "no secret with matching usage '%.255s'", id);
    return NULL;
}

GPtrArray *secret_list(const struct caller *who, unsigned list_flags)
{
    GPtrArray *found = g_ptr_array_new_with_free_func((GDestroyNotify)secret_unref);
    if (!access_check(who, RIGHT_READ, "list secrets", NULL))
        return found;
    for (unsigned i = 0; i < table()->len; i++) {
        struct secret *s = secrets->pdata[i];
        if (flags_pass(list_flags, LIST_EPHEMERAL, LIST_STORED, s->ephemeral) &&
            flags_pass(list_flags, LIST_PRIVATE, LIST_OPEN, s->confined))
            g_ptr_array_add(found, secret_ref(s));
    }
    return found;
}

char *secret_name(const struct secret *s)
{
    char text[UUID_TEXT_BYTES];
    uuid_format(s->uuid, text);
    return g_strdup(text);
}

static void emit(const struct secret *s, int id, int event)
{
    g_autofree char *name = secret_name(s);
    struct event e = {.class = EVENT_SECRET,
                      .id = id,
                      .name = name,
                      .uuid = s->uuid,
                      .object_id = -1,
                      .event = event,
                      .text = {s->id},
                      .number = s->usage};
    event_emit(&e);
}

void secret_emit(const struct secret *s, int event)
{
    emit(s, ID_LIFECYCLE, event);
}

void secret_emit_value(const struct secret *s)
{
    emit(s, ID_VALUE_CHANGED, 0);
}
