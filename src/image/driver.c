/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Finding drivers: by name, by the scheme of a URL, by an image's first bytes; corruption reports.
 *
 * Thread    Any for lookups.
 */
#include "image/driver.h"

#include "base/log.h"
#include "image/module.h"

#include <string.h>

static const struct image_driver *find_loaded(const char *name)
{
    LINKSET_FOREACH(image_drivers, struct image_driver, d)
    {
        if (!strcmp(d->name, name))
            return d;
    }
    return module_driver(name);
}

static const char *suggest_driver(const char *name)
{
    const char *names[64] = { NULL };
    unsigned count = 0;
    LINKSET_FOREACH(image_drivers, struct image_driver, d)
    {
        if (!(d->flags & DRIVER_HIDDEN) && count < ARRAY_COUNT(names) - 1)
            names[count++] = d->name;
    }
    return suggest_phrase(name, names);
}

const struct image_driver *driver_find(const char *name, GError **error)
{
    const struct image_driver *d = find_loaded(name);
    if (!d && module_known(name) && !module_load(name, error))
        return NULL;
    if (!d)
        d = find_loaded(name);
    if (!d)
        ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown image driver '%s'%s", name, suggest_driver(name));
    return d;
}

/* The length of "scheme" in "scheme:rest", 0 when it is a plain path. */
static size_t scheme_len(const char *filename)
{
    size_t n = strspn(filename, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.");
    return n && filename[n] == ':' ? n : 0;
}

static bool has_scheme(const struct image_driver *d, const char *filename, size_t len)
{
    for (const char *const *s = d->schemes; s && *s; s++) {
        if (strlen(*s) == len && !g_ascii_strncasecmp(*s, filename, len))
            return true;
    }
    return false;
}

/* One of the program's own; NULL: a module's, or a plain path's. */
static const struct image_driver *of_scheme(const char *filename, const char **ret_module)
{
    size_t len = scheme_len(filename);
    *ret_module = NULL;
    if (!len)
        return NULL;
    LINKSET_FOREACH(image_drivers, struct image_driver, d)
    {
        if (has_scheme(d, filename, len))
            return d;
    }
    g_autofree char *scheme = g_strndup(filename, len);
    *ret_module = module_of_scheme(scheme);
    return NULL;
}

bool driver_has_scheme(const char *filename)
{
    const char *module;
    return of_scheme(filename, &module) || module;
}

bool driver_of_scheme(const char *filename, const struct image_driver **ret, GError **error)
{
    const char *module;
    const struct image_driver *d = of_scheme(filename, &module);
    if (module)
        d = driver_find(module, error);
    if (!d && module)
        return false;
    *ret = d;
    return true;
}

const struct image_driver *driver_probe(const uint8_t *head, size_t len, const char *filename)
{
    const struct image_driver *best = NULL;
    int score = 0;
    LINKSET_FOREACH(image_drivers, struct image_driver, d)
    {
        int s = d->probe ? d->probe(head, len, filename) : 0;
        if (s > score) {
            best = d;
            score = s;
        }
    }
    return best ? best : find_loaded("raw");
}

/* ---- corruption ---- */

static struct {
    void (*fn)(const struct node *n, const char *sentence, int64_t offset, uint64_t size, bool fatal,
               void *opaque);
    void *opaque;
} listener;

void node_on_corrupt(void (*fn)(const struct node *n, const char *sentence, int64_t offset,
                                uint64_t size, bool fatal, void *opaque),
                     void *opaque)
{
    listener.fn = fn;
    listener.opaque = opaque;
}

int node_corrupt(struct node *n, bool fatal, int64_t offset, uint64_t size, const char *format, ...)
{
    if (n->corrupt)
        return -EIO;
    va_list args;
    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    n->corrupt = true;
    n->read_only = true;
    log_warn("image '%s' is corrupt: %s; it is read-only from now on", n->filename, what);
    if (listener.fn)
        listener.fn(n, what, offset, size, fatal, listener.opaque);
    return -EIO;
}
