/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which accelerators there are, and which one a machine takes.
 *
 * Thread    Main.
 * Errors    GError; the sentence names every accelerator that was tried and why it cannot be taken.
 */
#include "accel/accel.h"

#include <string.h>

#define MAX_ACCELS 8
#define DEFAULT_NAMES "kvm:soft"

__thread struct vcpu *current_vcpu;

static const struct {
    const char *alias, *name;
} aliases[] = {
    { "tcg", "soft" }, /* the name of QEMU's own software CPU */
};

static int compare_names(const void *a, const void *b)
{
    const struct accel_ops *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

const struct accel_ops *const *accel_list(void)
{
    static const struct accel_ops *list[MAX_ACCELS + 1];
    if (list[0])
        return list;
    size_t n = 0;
    LINKSET_FOREACH(accel_types, struct accel_ops, ops) {
        if (n < MAX_ACCELS)
            list[n++] = ops;
    }
    qsort(list, n, sizeof(list[0]), compare_names);
    return list;
}

static const struct accel_ops *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(aliases); i++) {
        if (!strcmp(name, aliases[i].alias))
            name = aliases[i].name;
    }
    for (const struct accel_ops *const *it = accel_list(); *it; it++) {
        if (!strcmp((*it)->name, name))
            return *it;
    }
    return NULL;
}

static const char *suggestion(const char *name)
{
    const char *words[MAX_ACCELS + ARRAY_COUNT(aliases) + 1];
    size_t n = 0;
    for (const struct accel_ops *const *it = accel_list(); *it; it++)
        words[n++] = (*it)->name;
    for (size_t i = 0; i < ARRAY_COUNT(aliases); i++)
        words[n++] = aliases[i].alias;
    words[n] = NULL;
    return suggest_phrase(name, words);
}

static bool check_names(char *const *names, GError **error)
{
    if (!names[0])
        return ruche_error(error, RUCHE_ERR_INVALID, "-accel: no accelerator is named");
    for (char *const *it = names; *it; it++) {
        if (!find(*it)) {
            return ruche_error(error, RUCHE_ERR_UNKNOWN, "-accel: '%s' is not an accelerator%s",
                               *it, suggestion(*it));
        }
    }
    return true;
}

/* A name that stands alone was asked for; in a list, each is only a proposal. */
const struct accel_ops *accel_choose(const char *names, char **ret_note, GError **error)
{
    g_auto(GStrv) list = g_strsplit(names ? names : DEFAULT_NAMES, ":", MAX_ACCELS);
    if (!check_names(list, error))
        return NULL;
    bool by_name = !list[1];
    g_autoptr(GString) refused = g_string_new(NULL);
    for (char **it = list; *it; it++) {
        const struct accel_ops *ops = find(*it);
        g_autofree char *why = NULL;
        if (ops->probe(by_name, &why)) {
            *ret_note =
                g_strdup_printf("%s is the accelerator: %s%s%s", ops->name,
                                why ? why : ops->summary, refused->len ? "; " : "", refused->str);
            return ops;
        }
        g_string_append_printf(refused, "%s%s was not taken: %s", refused->len ? "; " : "",
                               ops->name, why ? why : "it cannot work here");
    }
    ruche_error(error, RUCHE_ERR_UNSUPPORTED, "-accel %s: %s", names ? names : DEFAULT_NAMES,
                refused->str);
    return NULL;
}
