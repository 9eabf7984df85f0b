/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Kinds of character backends and the options that they take: rows of the linker set, and what is
 * common to all of them; see chardev.h.
 *
 * Thread    Any; the list of names is made by the main thread.
 */
#include "chardev/chardev_priv.h"

#include "base/units.h"

#include <string.h>

/* ---- values ---- */

const char *chardev_opt(const struct chardev_config *cfg, const char *name)
{
    const char *value = NULL;
    for (size_t i = 0; i < cfg->count; i++)
        if (!strcmp(cfg->options[i].name, name))
            value = cfg->options[i].value;
    return value;
}

const char *chardev_opt_need(const struct chardev *c, const struct chardev_config *cfg,
                             const char *name, GError **error)
{
    const char *value = chardev_opt(cfg, name);
    if (!value || !*value)
        ruche_error(error, RUCHE_ERR_INVALID, "chardev '%s': %s needs '%s='", c->id, c->type->name,
                    name);
    return value && *value ? value : NULL;
}

bool chardev_opt_bool(const struct chardev *c, const struct chardev_config *cfg, const char *name,
                      bool def, bool *ret, GError **error)
{
    const char *value = chardev_opt(cfg, name);
    *ret = def;
    if (!value)
        return true;
    bool on = !strcmp(value, "on") || !strcmp(value, "yes") || !strcmp(value, "true");
    if (!on && strcmp(value, "off") && strcmp(value, "no") && strcmp(value, "false"))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "chardev '%s': '%s' must be on or off, not '%s'", c->id, name, value);
    *ret = on;
    return true;
}

bool chardev_opt_u64(const struct chardev *c, const struct chardev_config *cfg, const char *name,
                     uint64_t def, uint64_t max, uint64_t *ret, GError **error)
{
    const char *value = chardev_opt(cfg, name);
    *ret = def;
    if (!value)
        return true;
    if (!units_parse_size(value, 1, ret) || *ret > max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "chardev '%s': '%s' must be a number up to %" G_GUINT64_FORMAT
                           ", not '%s'",
                           c->id, name, max, value);
    return true;
}

/* ---- names ---- */

static const struct chardev_option_help common_options[] = {
    { "mux", "several front ends share it; Ctrl-a c switches between them" },
    { "logfile", "everything that the guest writes is copied to this file" },
    { "logappend", "on: the log file is appended to" },
    { 0 },
};

static bool known_option(const struct chardev_type *t, const char *name)
{
    for (const struct chardev_option_help *o = t->options; o && o->name; o++)
        if (!strcmp(o->name, name))
            return true;
    for (const struct chardev_option_help *o = common_options; o->name; o++)
        if (!strcmp(o->name, name))
            return true;
    return false;
}

bool chardev_check_options(const struct chardev *c, const struct chardev_config *cfg,
                           GError **error)
{
    const char *names[32];
    size_t n = 0;
    for (const struct chardev_option_help *o = c->type->options; o && o->name; o++)
        names[n++] = o->name;
    for (const struct chardev_option_help *o = common_options; o->name; o++)
        names[n++] = o->name;
    names[n] = NULL;
    for (size_t i = 0; i < cfg->count; i++)
        if (!known_option(c->type, cfg->options[i].name))
            return ruche_error(error, RUCHE_ERR_UNKNOWN, "chardev '%s': %s has no property '%s'%s",
                               c->id, c->type->name, cfg->options[i].name,
                               suggest_phrase(cfg->options[i].name, names));
    return true;
}

/* ---- kinds ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

const char *const *chardev_backends(void)
{
    static const char *names[32];
    if (names[0])
        return names;
    size_t n = 0;
    LINKSET_FOREACH(chardev_types, struct chardev_type, t)
        if (n < G_N_ELEMENTS(names) - 1)
            names[n++] = t->name;
    qsort(names, n, sizeof(names[0]), compare_names);
    return names;
}

const struct chardev_type *chardev_type_find(const char *name)
{
    LINKSET_FOREACH(chardev_types, struct chardev_type, t) {
        if (!strcmp(t->name, name))
            return t;
        if (t->aliases && g_strv_contains(t->aliases, name))
            return t;
    }
    return NULL;
}

const char *chardev_backend_summary(const char *backend)
{
    const struct chardev_type *t = chardev_type_find(backend);
    return t ? t->summary : NULL;
}

bool chardev_backend_option(const char *backend, size_t n, const char **ret_name,
                            const char **ret_help)
{
    const struct chardev_type *t = chardev_type_find(backend);
    size_t own = 0;
    while (t && t->options && t->options[own].name)
        own++;
    if (!t || n >= own + G_N_ELEMENTS(common_options) - 1)
        return false;
    const struct chardev_option_help *o = n < own ? &t->options[n] : &common_options[n - own];
    *ret_name = o->name;
    *ret_help = o->help;
    return true;
}
