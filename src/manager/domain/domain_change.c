/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes of a description: metadata, devices, whatever a function does to its tree; stored, live,
 * or both.
 *
 * Thread    The loop thread; all that changes waits.
 * Order     Both new definitions are made and checked before anything is done: what can fail for
 * its text fails first. Then the machine, then the file.
 */
#include "manager/domain/domain_priv.h"

#include <string.h>

/* The new definitions of one change; NULL: not affected. */
struct change {
    unsigned affect;
    struct domain_def *config, *live;
    bool no_wait; /* a device is asked for, and its leaving is told by an event */
    bool force;   /* a medium is taken out of a tray that the guest has locked */
    char *added;  /* alias of a device that came; NULL: none */
};

static void change_done(struct change *c)
{
    domain_def_unref(c->config);
    domain_def_unref(c->live);
    g_free(c->added);
}

/* Puts the definitions into their places. What runs is changed already. */
static bool settle(struct domain *d, struct change *c, GError **error)
{
    if (c->live && d->live) { /* the machine may have ended while it was asked */
        domain_def_shrink(c->live);
        domain_def_unref(d->live);
        d->live = g_steal_pointer(&c->live);
        if (d->vm && !domain_write_status(d, false, error))
            return false;
    }
    if (!c->config)
        return true;
    if (!domain_store_def(d->name, c->config, error))
        return false;
    domain_def_shrink(c->config);
    domain_def_unref(d->def);
    d->def = g_steal_pointer(&c->config);
    return true;
}

/* How changes here begin: right, lock, and what is affected. */
static bool begin(const struct caller *who, struct domain *d, const char *operation, unsigned flags,
                  unsigned others, struct change *c, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_WRITE, operation, error) || !domain_lock(d, operation, error))
        return false;
    if (domain_affect(d, flags, others, &c->affect, error))
        return true;
    domain_unlock(d);
    return false;
}

static bool end(const struct caller *who, struct domain *d, const char *operation, struct change *c,
                bool ok, GError **error)
{
    if (d->def)
        domain_def_shrink(d->def);
    if (d->live)
        domain_def_shrink(d->live);
    change_done(c);
    domain_unlock(d);
    domain_audit(who, operation, d->name, ok, error);
    return ok;
}

/* ---- text ---- */

char *domain_xml(const struct caller *who, struct domain *d, unsigned format_flags, GError **error)
{
    const unsigned known =
        DEF_FORMAT_SECURE | DEF_FORMAT_INACTIVE | DEF_FORMAT_UPDATE_CPU | DEF_FORMAT_MIGRATABLE;
    enum right right = format_flags & DEF_FORMAT_SECURE ? RIGHT_READ_SECURE : RIGHT_READ;
    if (!domain_flags(format_flags, known, "dumpxml", error) ||
        !domain_allowed(who, d, right, "read", error))
        return NULL;
    bool live = d->live && (!(format_flags & DEF_FORMAT_INACTIVE) || !d->persistent);
    struct domain_def *def = live ? d->live : d->def;
    char *text = domain_def_format(def, format_flags, live ? d->id : -1);
    domain_def_shrink(def);
    return text;
}

/* ---- metadata ---- */

bool domain_set_metadata(const struct caller *who, struct domain *d, int type, const char *text,
                         const char *prefix, const char *uri, unsigned affect, GError **error)
{
    const char *const told[4] = {uri};
    struct change c = {0};
    if (!begin(who, d, "set metadata of", affect, 0, &c, error))
        return false;
    bool ok = (!(c.affect & AFFECT_CONFIG) ||
               (c.config = domain_def_set_metadata(d->def, type, text, prefix, uri, error))) &&
              (!(c.affect & AFFECT_LIVE) ||
               (c.live = domain_def_set_metadata(d->live, type, text, prefix, uri, error))) &&
              settle(d, &c, error);
    if (ok)
        domain_emit_id(d, DOMAIN_EVENT_METADATA_CHANGE, 0, 0, told, (uint64_t)type);
    return end(who, d, "set metadata of", &c, ok, error);
}

char *domain_get_metadata(const struct caller *who, struct domain *d, int type, const char *uri,
                          unsigned affect, GError **error)
{
    unsigned which;
    if (!domain_allowed(who, d, RIGHT_READ, "read", error) ||
        !domain_affect(d, affect, 0, &which, error))
        return NULL;
    struct domain_def *def = which & AFFECT_CONFIG ? d->def : d->live;
    char *text = domain_def_get_metadata(def, type, uri, error);
    domain_def_shrink(def);
    return text;
}

/* ---- devices ---- */

/* The machine has written what it made into the tree: a tap's name. */
static bool read_back(struct change *c, GError **error)
{
    struct xml_node *copy = xml_copy(domain_def_tree(c->live));
    struct domain_def *def = domain_def_from_doc(copy, DEF_LIVE | DEF_STORED, error);
    if (!def)
        return false;
    domain_def_unref(c->live);
    c->live = def;
    return true;
}

/* What the guest does not let go of in time stays in the description until it does:
 * domain_device_gone(). */
static bool detach_live(struct vm *v, struct xml_node *device, struct change *c, GError **error)
{
    bool gone;
    if (!vm_detach(v, device, !c->no_wait, &gone, error))
        return false;
    if (!gone)
        g_clear_pointer(&c->live, domain_def_unref);
    return true;
}

/* The status file speaks of a device before it comes: who finds the machine after us takes out of
 * it what did not (vm_catch_up()), and never finds one that it does not know. */
static bool write_intent(struct domain *d, struct domain_def *live, GError **error)
{
    struct domain_def *now = d->live;
    d->live = live;
    bool ok = domain_write_status(d, false, error);
    d->live = now;
    return ok;
}

struct coming {
    struct domain *d;
    struct change *c;
};

static bool made(void *opaque, GError **error)
{
    struct coming *a = opaque;
    return read_back(a->c, error) && write_intent(a->d, a->c->live, error);
}

static bool attach_live(struct domain *d, struct vm *v, struct xml_node *device, struct change *c,
                        GError **error)
{
    struct coming a = {.d = d, .c = c};
    struct vm_change change = {.device = device, .made = made, .opaque = &a};
    c->added = g_strdup(xml_get(device, "alias@name"));
    if (vm_device(v, &change, error))
        return true;
    if (d->live && d->vm == v)
        domain_write_status(d, false, NULL);
    return false;
}

/* The element as it is, by the alias that the new one has from it. */
static struct xml_node *find_alias(struct domain_def *def, const char *alias)
{
    const struct xml_node *devices = xml_find(domain_def_tree(def), "devices");
    for (struct xml_node *n = devices ? devices->children : NULL; n; n = n->next)
        if (xml_is_element(n) && xml_is(n, "alias@name", alias))
            return n;
    return NULL;
}

static bool update_live(struct domain *d, struct vm *v, struct xml_node *device, struct change *c,
                        GError **error)
{
    struct vm_change change = {.device = device, .force = c->force};
    change.before = find_alias(d->live, xml_get_or(device, "alias@name", ""));
    if (!change.before)
        return ruche_error(error, MANAGER_ERR_CONFIG, "domain '%s': a %s cannot change in it",
                           d->name, device->name);
    return vm_device(v, &change, error) && read_back(c, error);
}

/* The machine does it; then what runs is described anew. */
static bool device_live(struct domain *d, enum def_device_action action, const char *xml,
                        struct change *c, GError **error)
{
    struct xml_node *device = NULL;
    struct vm *v = domain_machine(d, error);
    if (!v)
        return false;
    c->live = domain_def_device(d->live, action, xml, DEF_LIVE, &device, error);
    if (!c->live)
        return false;
    if (action == DEF_DETACH)
        return detach_live(v, device, c, error);
    return action == DEF_ATTACH ? attach_live(d, v, device, c, error)
                                : update_live(d, v, device, c, error);
}

static bool device_locked(struct domain *d, enum def_device_action action, const char *xml,
                          struct change *c, GError **error)
{
    if (c->affect & AFFECT_CONFIG) {
        c->config = domain_def_device(d->def, action, xml, 0, NULL, error);
        if (!c->config || (action != DEF_DETACH && !vm_check_def(c->config, error)))
            return false;
    }
    if ((c->affect & AFFECT_LIVE) && !device_live(d, action, xml, c, error))
        return false;
    const char *const text[4] = {c->added};
    if (!settle(d, c, error))
        return false;
    if (text[0])
        domain_emit_id(d, DOMAIN_EVENT_DEVICE_ADDED, 0, 0, text, 0);
    return true;
}

bool domain_device(const struct caller *who, struct domain *d, enum def_device_action action,
                   const char *xml, unsigned affect, GError **error)
{
    enum { FORCE = 4 }; /* VIR_DOMAIN_DEVICE_MODIFY_FORCE */
    static const char *const operations[] = {"attach a device to", "detach a device from",
                                             "update a device of"};
    struct change c = {.force = affect & FORCE};
    if (!begin(who, d, operations[action], affect, FORCE, &c, error))
        return false;
    return end(who, d, operations[action], &c, device_locked(d, action, xml, &c, error), error);
}

/* The device's text in one of the two descriptions. */
static char *text_of_alias(struct domain *d, struct domain_def *def, const char *alias,
                           GError **error)
{
    struct xml_node *n = find_alias(def, alias);
    if (n)
        return xml_format(n, 0);
    ruche_error(error, MANAGER_ERR_CONFIG, "domain '%s' has no device with the alias '%s'", d->name,
                alias);
    return NULL;
}

static bool alias_locked(struct domain *d, const char *alias, struct change *c, GError **error)
{
    g_autofree char *config =
        c->affect & AFFECT_CONFIG ? text_of_alias(d, d->def, alias, error) : NULL;
    g_autofree char *live = c->affect & AFFECT_LIVE ? text_of_alias(d, d->live, alias, error) : NULL;
    if (((c->affect & AFFECT_CONFIG) && !config) || ((c->affect & AFFECT_LIVE) && !live))
        return false;
    if (config && !(c->config = domain_def_device(d->def, DEF_DETACH, config, 0, NULL, error)))
        return false;
    return (!live || device_live(d, DEF_DETACH, live, c, error)) && settle(d, c, error);
}

bool domain_detach_alias(const struct caller *who, struct domain *d, const char *alias,
                         unsigned affect, GError **error)
{
    struct change c = {.no_wait = true};
    if (!begin(who, d, "detach a device from", affect, 0, &c, error))
        return false;
    return end(who, d, "detach a device from", &c, alias_locked(d, alias, &c, error), error);
}

/* ---- what leaves by itself ---- */

static struct domain_def *edited(struct domain_def *old, unsigned def_flags,
                                 bool (*fn)(struct xml_node *domain, void *opaque, GError **error),
                                 void *opaque, GError **error);

static bool drop_device(struct xml_node *domain, void *opaque, GError **error)
{
    const char *alias = opaque;
    struct xml_node *devices = xml_find(domain, "devices");
    for (struct xml_node *n = devices ? devices->children : NULL; n; n = n->next) {
        if (!xml_is_element(n) || !xml_is(n, "alias@name", alias))
            continue;
        xml_free(n);
        return true;
    }
    return ruche_error(error, MANAGER_ERR_CONFIG, "it is not there"); /* known already */
}

static bool count_vcpus(struct xml_node *domain, void *opaque, GError **error)
{
    uint64_t count = *(unsigned *)opaque, max = xml_get_u64(domain, "vcpu", 1);
    if (!count || count > max)
        return ruche_error(error, MANAGER_ERR_CONFIG, "so many vCPUs cannot be");
    if (count == max)
        xml_remove(domain, "vcpu@current");
    else
        xml_set_f(domain, "vcpu@current", "%u", (unsigned)count);
    return true;
}

struct tray {
    const char *alias;
    bool open;
};

static bool mark_tray(struct xml_node *domain, void *opaque, GError **error)
{
    const struct tray *t = opaque;
    for (struct xml_node *n = xml_find(domain, "devices/disk"); n; n = xml_next(n)) {
        if (!xml_is(n, "alias@name", t->alias))
            continue;
        if (t->open)
            xml_set(n, "target@tray", "open");
        else
            xml_remove(n, "target@tray");
        return true;
    }
    return ruche_error(error, MANAGER_ERR_CONFIG, "it is not there");
}

void domain_tray_moved(struct domain *d, const char *alias, bool open)
{
    struct tray t = {.alias = alias, .open = open};
    if (d->live)
        domain_edit(d, true, mark_tray, &t, NULL);
}

void domain_device_gone(struct domain *d, const char *alias)
{
    struct change c = {0};
    if (!d->live)
        return;
    if (g_str_has_prefix(alias, "vcpu")) {
        unsigned count = d->vm ? vm_vcpu_count(d->vm) : 0;
        if (d->live)
            c.live = edited(d->live, DEF_LIVE | DEF_STORED, count_vcpus, &count, NULL);
    } else {
        c.live = edited(d->live, DEF_LIVE | DEF_STORED, drop_device, (void *)alias, NULL);
    }
    settle(d, &c, NULL);
    change_done(&c);
}

/* ---- anything, by the tree ---- */

static struct domain_def *edited(struct domain_def *old, unsigned def_flags,
                                 bool (*fn)(struct xml_node *domain, void *opaque, GError **error),
                                 void *opaque, GError **error)
{
    struct xml_node *tree = domain_def_tree(old);
    struct xml_node *copy = tree ? xml_copy(tree) : NULL;
    if (!copy) {
        ruche_error(error, RUCHE_ERR_NO_SPACE, "domain '%s': no memory for its description",
                    old->s.name);
        return NULL;
    }
    if (!fn(copy, opaque, error)) {
        xml_free(copy);
        return NULL;
    }
    auto_domain_def *def = domain_def_from_doc(copy, def_flags, error);
    if (!def)
        return NULL;
    if (strcmp(def->s.name, old->s.name) != 0 || memcmp(def->s.uuid, old->s.uuid, 16) != 0) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "domain '%s': name and UUID cannot be changed in this way", old->s.name);
        return NULL;
    }
    return g_steal_pointer(&def);
}

bool domain_edit(struct domain *d, bool live,
                 bool (*fn)(struct xml_node *domain, void *opaque, GError **error), void *opaque,
                 GError **error)
{
    struct change c = {0};
    if (live)
        c.live = edited(d->live, DEF_LIVE | DEF_STORED, fn, opaque, error);
    else
        c.config = edited(d->def, DEF_STORED, fn, opaque, error);
    bool ok = (c.live || c.config) && settle(d, &c, error);
    change_done(&c);
    return ok;
}

bool domain_change(const struct caller *who, struct domain *d, const char *operation,
                   unsigned affect, unsigned others, const struct domain_edit *edit, GError **error)
{
    struct change c = {0};
    bool ok = true;
    if (!begin(who, d, operation, affect, others, &c, error))
        return false;
    if (c.affect & AFFECT_CONFIG) {
        c.config = edited(d->def, 0, edit->fn, edit->opaque, error);
        ok = c.config && vm_check_def(c.config, error);
    }
    if (ok && (c.affect & AFFECT_LIVE)) {
        struct vm *v = domain_machine(d, error);
        ok = v && (!edit->live || edit->live(v, edit->opaque, error));
        if (ok && d->live)
            ok = (c.live = edited(d->live, DEF_LIVE | DEF_STORED, edit->fn, edit->opaque, error)) !=
                 NULL;
    }
    return end(who, d, operation, &c, ok && settle(d, &c, error), error);
}

bool domain_change_config(const struct caller *who, struct domain *d, const char *operation,
                          bool (*fn)(struct xml_node *domain, void *opaque, GError **error),
                          void *opaque, GError **error)
{
    const struct domain_edit edit = {.fn = fn, .opaque = opaque};
    return domain_change(who, d, operation, AFFECT_CONFIG, 0, &edit, error);
}
