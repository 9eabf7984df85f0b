/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Device kinds and instances: lookup, life cycle, properties. */
#include "machine/device.h"
#include "base/log.h"
#include "machine/machine.h"

#include <stdlib.h>
#include <string.h>

/* --- kinds --- */

static int compare_types(const void *a, const void *b)
{
    return strcmp((*(const struct device_type *const *)a)->name, (*(const struct device_type *const *)b)->name);
}

const struct device_type *const *device_type_list(void)
{
    static const struct device_type **list;
    if (g_once_init_enter(&list)) {
        size_t count = 0;
        LINKSET_FOREACH(device_types, struct device_type, t)
            count++;
        const struct device_type **sorted = g_new0(const struct device_type *, count + 1);
        count = 0;
        LINKSET_FOREACH(device_types, struct device_type, t)
            sorted[count++] = t;
        qsort(sorted, count, sizeof(*sorted), compare_types);
        g_once_init_leave(&list, sorted);
    }
    return list;
}

static bool has_alias(const struct device_type *t, const char *name)
{
    return t->aliases && g_strv_contains(t->aliases, name);
}

const struct device_type *device_type_find(const char *name)
{
    for (const struct device_type *const *t = device_type_list(); *t; t++) {
        if (!strcmp((*t)->name, name) || has_alias(*t, name))
            return *t;
    }
    return NULL;
}

const char *device_type_suggest(const char *name)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    for (const struct device_type *const *t = device_type_list(); *t; t++) {
        if ((*t)->internal)
            continue;
        g_ptr_array_add(names, (gpointer)(uintptr_t)(*t)->name);
        for (const char *const *alias = (*t)->aliases; alias && *alias; alias++)
            g_ptr_array_add(names, (gpointer)(uintptr_t)*alias);
    }
    g_ptr_array_add(names, NULL);
    return suggest_phrase(name, (const char *const *)names->pdata);
}

static const struct prop *find_prop(const struct device_type *t, const char *name)
{
    const struct prop *p = t->props;
    while (p && p->name && strcmp(p->name, name))
        p++;
    return p && p->name ? p : NULL;
}

/* --- instances --- */

static bool apply_globals(struct device *d, GError **error)
{
    for (struct global_prop *g = (struct global_prop *)(uintptr_t)d->machine->config.globals; g; g = g->next) {
        if (strcmp(g->driver, d->type->name) && !has_alias(d->type, g->driver))
            continue;
        g->used = true;
        if (!device_set(d, g->prop, g->value, error))
            return false;
    }
    return true;
}

struct device *device_new(struct machine *m, const char *type_name, GError **error)
{
    const struct device_type *t = device_type_find(type_name);
    if (!t) {
        ruche_error(error, RUCHE_ERR_UNKNOWN, "there is no device '%s'%s", type_name,
                    device_type_suggest(type_name));
        return NULL;
    }
    struct device *d = g_aligned_alloc0(1, t->size, 64);
    d->type = t;
    d->machine = m;
    d->loop = m->main_loop;
    pthread_mutex_init(&d->lock, NULL);
    prop_set_defaults(t->props, d);
    if (m->devices_tail) {
        *m->devices_tail = d;
    } else {
        m->devices = d;
    }
    m->devices_tail = &d->next;
    if (!apply_globals(d, error)) {
        device_free(d);
        return NULL;
    }
    return d;
}

bool device_set(struct device *d, const char *prop, const char *value, GError **error)
{
    const struct prop *p = find_prop(d->type, prop);
    if (!p) {
        g_autoptr(GPtrArray) names = g_ptr_array_new();
        for (p = d->type->props; p && p->name; p++)
            g_ptr_array_add(names, (gpointer)(uintptr_t)p->name);
        g_ptr_array_add(names, NULL);
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "device '%s' has no property '%s'%s", d->type->name, prop,
                           suggest_phrase(prop, (const char *const *)names->pdata));
    }
    return prop_parse(p, d, d->type->name, value, error);
}

char *device_get(const struct device *d, const char *prop)
{
    const struct prop *p = find_prop(d->type, prop);
    return p ? prop_format(p, d) : NULL;
}

static void make_path(struct device *d)
{
    static unsigned anonymous;
    if (!d->path)
        d->path = d->id ? g_strdup_printf("/machine/peripheral/%s", d->id)
                        : g_strdup_printf("/machine/%s/device[%u]",
                                          d->type->internal ? "unattached" : "peripheral-anon", anonymous++);
}

bool device_realize(struct device *d, GError **error)
{
    make_path(d);
    if (!d->type->realize(d, error)) {
        device_free(d);
        return false;
    }
    d->realized = true;
    return true;
}

void device_reset(struct device *d)
{
    d->broken = false;
    if (d->type->reset)
        d->type->reset(d);
}

void device_free(struct device *d)
{
    if (!d)
        return;
    struct machine *m = d->machine;
    for (struct device **p = &m->devices; *p; p = &(*p)->next) {
        if (*p != d)
            continue;
        *p = d->next;
        if (m->devices_tail == &d->next)
            m->devices_tail = p;
        break;
    }
    if (d->type->unrealize)
        d->type->unrealize(d);
    prop_free_strings(d->type->props, d);
    pthread_mutex_destroy(&d->lock);
    g_free(d->id);
    g_free(d->bus_name);
    g_free(d->path);
    g_aligned_free(d);
}

struct device *device_make(struct machine *m, const char *type_name, GError **error, ...)
{
    struct device *d = device_new(m, type_name, error);
    if (!d)
        return NULL;
    va_list ap;
    va_start(ap, error);
    bool ok = true;
    for (const char *prop; ok && (prop = va_arg(ap, const char *));)
        ok = device_set(d, prop, va_arg(ap, const char *), error);
    va_end(ap);
    if (!ok) {
        device_free(d);
        return NULL;
    }
    return device_realize(d, error) ? d : NULL;
}

void device_broken(struct device *d, const char *why)
{
    if (atomic_exchange(&d->broken, true))
        return;
    g_strlcpy(d->broken_why, why, sizeof(d->broken_why));
    if (log_on(LOG_GUEST_ERRORS))
        log_debug("%s: %s", d->path ? d->path : d->type->name, why);
    const char *const pairs[] = { "device", d->id ? d->id : "", "path", d->path ? d->path : "",
                                  "type", d->type->name, "reason", d->broken_why, NULL };
    machine_event(d->machine, "X_RUCHE_DEVICE_BROKEN", pairs);
}
