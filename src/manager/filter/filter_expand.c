/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A rule's variables: the values that an interface gives them, one after the other, or several
 * lists together. See filter_work.h. */
#include "manager/filter/filter_work.h"

#include <string.h>

#define ITERATORS_MAX 8

struct iterator {
    unsigned id, length, at;
    const char *name; /* the list that gave the length */
};
struct reading {
    const GPtrArray *list; /* NULL: no variable */
    struct filter_var var;
    unsigned iterator; /* index */
};
struct readings {
    struct reading of[FILTER_ATTRS_MAX];
    struct iterator its[ITERATORS_MAX];
    unsigned count; /* of its */
    bool waits;
};

/* An address of IPv4 may come later. */
static bool no_value(struct filter_work *w, const struct filter_var *v, bool *ret_waits,
                     GError **error)
{
    const GPtrArray *how = g_hash_table_lookup(w->t->params, "CTRL_IP_LEARNING");
    *ret_waits = !strcmp(v->name, "IP") && !(how && !strcmp(how->pdata[0], "none"));
    return *ret_waits ||
           ruche_error(
               error, MANAGER_ERR_CONFIG,
               "variable '%s' has no value: interface '%s' needs <parameter name='%s' ...> in "
               "its <filterref>",
               v->name, w->t->ifname, v->name);
}

static bool add_iterator(struct readings *r, struct reading *b, GError **error)
{
    for (unsigned i = 0; i < r->count; i++)
        if (r->its[i].id == b->var.iterator) {
            b->iterator = i;
            return r->its[i].length == b->list->len ||
                   ruche_error(
                       error, MANAGER_ERR_CONFIG,
                       "variables '%s' and '%s' are read together, and have %u and %u values",
                       r->its[i].name, b->var.name, r->its[i].length, b->list->len);
        }
    if (r->count == ITERATORS_MAX)
        return ruche_error(error, MANAGER_ERR_CONFIG, "a rule has more than %d iterators",
                           ITERATORS_MAX);
    b->iterator = r->count;
    r->its[r->count++] = (struct iterator){b->var.iterator, b->list->len, 0, b->var.name};
    return true;
}

/* The next of all combinations. */
static bool step(struct readings *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        if (++r->its[i].at < r->its[i].length)
            return true;
        r->its[i].at = 0;
    }
    return false;
}

static bool fill(const struct filter_rule *rule, const struct readings *r, char **values,
                 GError **error)
{
    for (int i = 0; rule->proto && rule->proto->attrs[i].name; i++) {
        const struct reading *b = &r->of[i];
        if (!b->list)
            continue;
        unsigned at = b->var.index >= 0 ? (unsigned)b->var.index : r->its[b->iterator].at;
        g_free(values[i]);
        values[i] = filter_value_check(rule->proto->attrs[i].kind, b->list->pdata[at], error);
        if (!values[i]) {
            g_prefix_error(error, "%s: %s: variable '%s': ", rule->proto->name,
                           rule->proto->attrs[i].name, b->var.name);
            return false;
        }
    }
    return true;
}

static bool read_variables(struct filter_work *w, const struct filter_rule *rule, GHashTable *vars,
                           struct readings *r, GError **error)
{
    for (int i = 0; rule->proto && rule->proto->attrs[i].name; i++) {
        struct reading *b = &r->of[i];
        if (!rule->values[i] || rule->proto->attrs[i].kind == FK_COMMENT ||
            !filter_var_parse(rule->values[i], &b->var))
            continue;
        b->list = g_hash_table_lookup(vars, b->var.name);
        if (!b->list)
            return no_value(w, &b->var, &r->waits, error);
        if (b->var.index >= (int)b->list->len)
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "variable '%s' has %u values, and none at %d", b->var.name,
                               b->list->len, b->var.index);
        if (b->var.index < 0 && b->list->len == 1)
            b->var.index = 0; /* goes with lists of any length */
        if (b->var.index < 0 && !add_iterator(r, b, error))
            return false;
    }
    return true;
}

bool filter_expand(struct filter_work *w, const struct filter_def *d,
                   const struct filter_rule *rule, GHashTable *vars, GError **error)
{
    struct readings r = {0};
    char *values[FILTER_ATTRS_MAX] = {0};
    if (!read_variables(w, rule, vars, &r, error))
        return false;
    w->p->waits_for_ip |= r.waits;
    if (r.waits)
        return true;
    for (int i = 0; i < FILTER_ATTRS_MAX; i++)
        values[i] = r.of[i].list ? NULL : g_strdup(rule->values[i]);
    bool ok;
    do
        ok = fill(rule, &r, values, error) && filter_emit_rule(w, d, rule, values, error);
    while (ok && step(&r));
    for (int i = 0; i < FILTER_ATTRS_MAX; i++)
        g_free(values[i]);
    return ok;
}
