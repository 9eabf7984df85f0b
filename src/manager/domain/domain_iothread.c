/* SPDX-License-Identifier: GPL-2.0-or-later */
/* I/O threads that come, go and change, in the description, in the machine, or both. Their pins are
 * domain_pin.c's.
 *
 * Spec      libvirt's virDomain*IOThread* at 9.0.0.
 * Thread    The loop thread; all here waits.
 */
#include "manager/domain/domain_priv.h"

#include <string.h>

struct iothread {
    struct domain *d;
    unsigned id;
    const struct param_list *params;
};

/* Every number is written out: those that were only counted, too. */
static struct xml_node *write_ids(struct xml_node *domain)
{
    g_autoptr(GArray) list = domain_def_iothreads(domain);
    struct xml_node *ids = xml_find(domain, "iothreadids");
    if (!ids)
        ids = xml_add(domain, "iothreadids");
    guint written = 0;
    for (struct xml_node *t = xml_find(ids, "iothread"); t; t = xml_next(t))
        written++;
    for (guint i = written; i < list->len; i++)
        xml_set_f(xml_add(ids, "iothread"), "@id", "%u", g_array_index(list, unsigned, i));
    return ids;
}

static void count_ids(struct xml_node *domain)
{
    unsigned count = 0;
    for (struct xml_node *t = xml_find(domain, "iothreadids/iothread"); t; t = xml_next(t))
        count++;
    if (count)
        xml_set_f(domain, "iothreads", "%u", count);
    else
        xml_remove(domain, "iothreads");
}

static struct xml_node *find_id(struct xml_node *ids, unsigned id)
{
    struct xml_node *t = xml_find(ids, "iothread");
    while (t && xml_get_u64(t, "@id", 0) != id)
        t = xml_next(t);
    return t;
}

static bool missing(const struct iothread *t, GError **error)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s' has no I/O thread %u", t->d->name,
                       t->id);
}

/* ---- add ---- */

static bool edit_add(struct xml_node *domain, void *opaque, GError **error)
{
    const struct iothread *t = opaque;
    if (domain_def_has_iothread(domain, t->id))
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s' has an I/O thread %u already",
                           t->d->name, t->id);
    struct xml_node *n = xml_add(write_ids(domain), "iothread");
    xml_set_f(n, "@id", "%u", t->id);
    count_ids(domain);
    return true;
}

static bool live_add(struct vm *v, void *opaque, GError **error)
{
    const struct iothread *t = opaque;
    bool is_there = domain_def_has_iothread(domain_def_tree(t->d->live), t->id);
    return is_there || vm_iothread_add(v, t->id, error); /* edit_add() refuses it then */
}

bool domain_add_iothread(const struct caller *who, struct domain *d, unsigned id, unsigned affect,
                         GError **error)
{
    struct iothread t = {.d = d, .id = id};
    const struct domain_edit edit = {.fn = edit_add, .live = live_add, .opaque = &t};
    if (!id)
        return ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': I/O threads are numbered from 1",
                           d->name);
    return domain_change(who, d, "add an I/O thread to", affect, 0, &edit, error);
}

/* ---- take away ---- */

static void drop(struct xml_node *n)
{
    if (!n)
        return;
    xml_free(n);
}

static bool may_go(const struct xml_node *domain, const struct iothread *t, GError **error)
{
    if (!domain_def_has_iothread(domain, t->id))
        return missing(t, error);
    const struct xml_node *user = domain_def_iothread_user(domain, t->id);
    return !user ||
           ruche_error(error, RUCHE_ERR_INVALID, "domain '%s': I/O thread %u is used by %s '%s'",
                       t->d->name, t->id, user->name,
                       xml_get_or(user, "target@dev", xml_get_or(user, "@index", "?")));
}

static bool edit_del(struct xml_node *domain, void *opaque, GError **error)
{
    const struct iothread *t = opaque;
    if (!may_go(domain, t, error))
        return false;
    drop(find_id(write_ids(domain), t->id));
    struct xml_node *pin = xml_find(domain, "cputune/iothreadpin");
    while (pin && xml_get_u64(pin, "@iothread", 0) != t->id)
        pin = xml_next(pin);
    drop(pin);
    count_ids(domain);
    return true;
}

static bool live_del(struct vm *v, void *opaque, GError **error)
{
    const struct iothread *t = opaque;
    return may_go(domain_def_tree(t->d->live), t, error) && vm_iothread_del(v, t->id, error);
}

bool domain_del_iothread(const struct caller *who, struct domain *d, unsigned id, unsigned affect,
                         GError **error)
{
    struct iothread t = {.d = d, .id = id};
    const struct domain_edit edit = {.fn = edit_del, .live = live_del, .opaque = &t};
    return domain_change(who, d, "take an I/O thread from", affect, 0, &edit, error);
}

/* ---- change ---- */

/* Only the size of its pool is described; how it polls is said to what runs. */
static bool edit_set(struct xml_node *domain, void *opaque, GError **error)
{
    static const char *const described[] = {"thread_pool_min", "thread_pool_max"};
    const struct iothread *t = opaque;
    if (!domain_def_has_iothread(domain, t->id))
        return missing(t, error);
    struct xml_node *n = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(described); i++) {
        const struct param *p = param_find(t->params, described[i]);
        g_autofree char *path = g_strconcat("@", described[i], NULL);
        if (!p)
            continue;
        n = n ? n : find_id(write_ids(domain), t->id);
        if (p->i < 0)
            xml_remove(n, path);
        else
            xml_set_f(n, path, "%d", (int)p->i);
    }
    return true;
}

static bool live_set(struct vm *v, void *opaque, GError **error)
{
    const struct iothread *t = opaque;
    return domain_def_has_iothread(domain_def_tree(t->d->live), t->id)
               ? vm_iothread_set(v, t->id, t->params, error)
               : missing(t, error);
}

static bool check_params(const struct iothread *t, bool config, GError **error)
{
    static const struct param_rule rules[] = {
        {"poll_max_ns", PARAM_ULLONG},  {"poll_grow", PARAM_UINT},      {"poll_shrink", PARAM_UINT},
        {"thread_pool_min", PARAM_INT}, {"thread_pool_max", PARAM_INT}, {0}};
    if (!param_check(t->params, rules, error))
        return false;
    for (unsigned i = 0; i < t->params->count; i++) {
        const struct param *p = &t->params->rows[i];
        if (p->type != PARAM_INT && p->u > G_MAXINT)
            return ruche_error(error, MANAGER_ERR_OVERFLOW, "%s: %" G_GUINT64_FORMAT " is above %d",
                               p->name, p->u, G_MAXINT);
        if (config && p->type != PARAM_INT)
            return ruche_error(error, MANAGER_ERR_CONFIG,
                               "%s cannot be described, only be set on what runs", p->name);
    }
    const struct param *min = param_find(t->params, "thread_pool_min"),
                       *max = param_find(t->params, "thread_pool_max");
    return !min || !max || max->i < 0 || min->i <= max->i ||
           ruche_error(error, RUCHE_ERR_INVALID, "thread_pool_min %d is above thread_pool_max %d",
                       (int)min->i, (int)max->i);
}

bool domain_set_iothread(const struct caller *who, struct domain *d, unsigned id,
                         const struct param_list *params, unsigned affect, GError **error)
{
    struct iothread t = {.d = d, .id = id, .params = params};
    const struct domain_edit edit = {.fn = edit_set, .live = live_set, .opaque = &t};
    return domain_affect(d, affect, 0, &affect, error) &&
           check_params(&t, affect & AFFECT_CONFIG, error) &&
           domain_change(who, d, "tune an I/O thread of", affect, 0, &edit, error);
}
