/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is done to secrets, as clients ask for it.
 *
 * Spec      libvirt's virSecret* at 9.0.0.
 * Thread    The loop thread; changes in a task.
 */
#include "manager/secret/secret_priv.h"
#include "manager/uuid.h"

#include <string.h>

static bool check_flags(const char *operation, unsigned flags, unsigned known, GError **error)
{
    return !(flags & ~known) ||
           ruche_error(error, MANAGER_ERR_ARGUMENT, "%s: flags 0x%x are not supported", operation,
                       flags & ~known);
}

typedef bool secret_fn(struct secret *s, const void *opaque, GError **error);

/* A change: checked, with the lock held, written down in the audit log. */
static bool operation(const struct caller *who, struct secret *s, const char *word, secret_fn *fn,
                      const void *opaque, GError **error)
{
    g_autofree char *name = secret_name(s), *what = g_strdup_printf("%s secret '%s'", word, name);
    g_autoptr(GError) e = NULL;
    if (!access_check(who, RIGHT_WRITE, what, error))
        return false;
    secret_ref(s);
    fiber_mutex_lock(&s->lock);
    bool ok = s->removed
                  ? ruche_error(&e, MANAGER_ERR_NO_SECRET, "secret '%s' is no longer there", name)
                  : fn(s, opaque, &e);
    fiber_mutex_unlock(&s->lock);
    audit(who, word, name, e);
    secret_unref(s);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&e));
    return ok;
}

/* ---- define ---- */

/* The secret that has the UUID (*ret_same, a reference), unless the description clashes with what
 * there is. */
static bool check_clash(const struct secret_def *d, struct secret **ret_same, GError **error)
{
    struct secret *same = secret_find_uuid(d->uuid, NULL);
    struct secret *other = secret_find_usage((int)d->usage, d->id, NULL);
    g_autofree char *name = same ? secret_name(same) : other ? secret_name(other) : NULL;
    bool ok = true;
    if (same && (same->usage != d->usage || strcmp(same->id, d->id) != 0))
        ok = ruche_error(error, RUCHE_ERR_EXISTS,
                         "a secret with UUID %s is already defined for use with %s", name,
                         *same->id ? same->id : "nothing in particular");
    else if (same && same->confined && !d->confined)
        ok = ruche_error(error, RUCHE_ERR_EXISTS,
                         "secret '%s' is private: that cannot be taken back; undefine it first",
                         name);
    else if (!same && other)
        ok = ruche_error(error, RUCHE_ERR_EXISTS,
                         "a secret with UUID %s is already defined for use with %s", name, d->id);
    secret_unref(other);
    if (!ok)
        g_clear_pointer(&same, secret_unref);
    *ret_same = same;
    return ok;
}

/* From stored to ephemeral, description and value leave the disk; the other way round they come to
 * it. */
static bool save_all(struct secret *s, GError **error)
{
    if (!secret_save(s, error))
        return false;
    return secret_save_value(s, s->ephemeral ? NULL : s->value, error);
}

static bool do_define(struct secret *s, const void *opaque, GError **error)
{
    const struct secret_def *d = opaque;
    char *old_text = s->text;
    bool ephemeral = s->ephemeral, confined = s->confined, moves = ephemeral != d->ephemeral;
    s->text = g_strdup(d->text);
    s->ephemeral = d->ephemeral;
    s->confined = d->confined;
    if (!(moves ? save_all(s, error) : secret_save(s, error))) {
        g_free(s->text);
        s->text = old_text;
        s->ephemeral = ephemeral;
        s->confined = confined;
        if (moves)
            secret_save(s, NULL); /* as it was, as far as that goes */
        return false;
    }
    g_free(old_text);
    secret_emit(s, SECRET_EVENT_DEFINED);
    return true;
}

/* By a description that was checked. *ret_again: the secret went meanwhile, and its place is free. */
static struct secret *define(const struct caller *who, const struct secret_def *d, bool *ret_again,
                             GError **error)
{
    struct secret *same;
    if (!check_clash(d, &same, error))
        return NULL;
    struct secret *s = same ? same : secret_new(d);
    if (!same)
        secret_insert(s); /* at once: nobody else may take its name while it is written */
    if (operation(who, s, "define", do_define, d, error))
        return s;
    *ret_again = same && same->removed;
    if (!same)
        secret_remove(s);
    secret_unref(s);
    return NULL;
}

struct secret *secret_define(const struct caller *who, const char *xml, unsigned flags,
                             GError **error)
{
    auto_secret_def d = {0};
    if (!access_check(who, RIGHT_WRITE, "define a secret", error) ||
        !check_flags("define a secret", flags, SECRET_DEFINE_VALIDATE, error) ||
        !secret_def_parse(&d, xml, flags, error))
        return NULL;
    for (;;) {
        bool again = false;
        g_autoptr(GError) e = NULL;
        struct secret *s = define(who, &d, &again, &e);
        if (s)
            return s;
        if (!again) {
            g_propagate_error(error, g_steal_pointer(&e));
            return NULL;
        }
    }
}

/* Its name and UUID are free when nothing of it is on the disk any more: a new one's value would go, too. */
static bool do_undefine(struct secret *s, const void *opaque, GError **error)
{
    s->removed = true;
    if (!secret_save(s, error) || !secret_save_value(s, NULL, error)) {
        s->removed = false;
        secret_save(s, NULL); /* as it was, as far as that goes */
        return false;
    }
    secret_remove(s);
    secret_emit(s, SECRET_EVENT_UNDEFINED);
    g_clear_pointer(&s->value, g_bytes_unref);
    return true;
}

bool secret_undefine(const struct caller *who, struct secret *s, GError **error)
{
    return operation(who, s, "undefine", do_undefine, NULL, error);
}

char *secret_xml(const struct caller *who, struct secret *s, unsigned flags, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read a secret's description", error) ||
        !check_flags("read a secret's description", flags, 0, error))
        return NULL;
    return g_strdup(s->text);
}

char *secret_description(const struct secret *s)
{
    auto_xml *doc = xml_parse(s->text, strlen(s->text), "secret", NULL);
    return doc ? g_strdup(xml_get(doc, "description")) : NULL;
}

/* ---- values ---- */

static bool do_set_value(struct secret *s, const void *opaque, GError **error)
{
    GBytes *value = (GBytes *)opaque;
    if (!s->ephemeral && !secret_save_value(s, value, error))
        return false;
    g_clear_pointer(&s->value, g_bytes_unref);
    s->value = g_bytes_ref(value);
    secret_emit_value(s);
    return true;
}

bool secret_set_value(const struct caller *who, struct secret *s, const void *data, size_t len,
                      GError **error)
{
    g_autofree char *name = secret_name(s);
    if (len > SECRET_VALUE_MAX)
        return ruche_error(error, MANAGER_ERR_OVERFLOW,
                           "secret '%s': a value of %zu bytes; %u are the most", name, len,
                           SECRET_VALUE_MAX);
    g_autoptr(GBytes) value = secret_bytes(data, len);
    return operation(who, s, "set the value of", do_set_value, value, error);
}

static GBytes *value_of(struct secret *s, GError **error)
{
    g_autofree char *name = secret_name(s);
    if (s->value)
        return g_bytes_ref(s->value);
    ruche_error(error, MANAGER_ERR_NO_SECRET, "secret '%s' does not have a value", name);
    return NULL;
}

GBytes *secret_get_value(const struct caller *who, struct secret *s, GError **error)
{
    g_autofree char *name = secret_name(s);
    g_autofree char *what = g_strdup_printf("read the value of secret '%s'", name);
    if (!access_check(who, RIGHT_READ_SECURE, what, error))
        return NULL;
    if (!s->confined)
        return value_of(s, error);
    ruche_error(error, MANAGER_ERR_SECRET_PRIVATE, "secret '%s' is private", name);
    return NULL;
}

GBytes *secret_value_of(const struct xml_node *element, enum secret_usage usage, GError **error)
{
    const char *uuid = xml_get(element, "@uuid"), *id = xml_get(element, "@usage");
    uint8_t bytes[16];
    struct secret *s = NULL;
    if (uuid && uuid_parse(uuid, bytes))
        s = secret_find_uuid(bytes, error);
    else if (id)
        s = secret_find_usage((int)usage, id, error);
    else
        ruche_error(error, RUCHE_ERR_XML, "<secret> has neither 'uuid' nor 'usage'");
    GBytes *value = s ? value_of(s, error) : NULL;
    secret_unref(s);
    return value;
}
