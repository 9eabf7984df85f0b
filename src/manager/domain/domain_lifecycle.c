/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What follows when the guest is off, begins anew or has panicked: which actions there are, and
 * changing them.
 *
 * Spec      libvirt's formatdomain, events configuration; virDomainSetLifecycleAction at 9.0.0.
 * Thread    The loop thread.
 */
#include "manager/domain/domain_priv.h"

/* What domain_machine.c can do, by virDomainLifecycle. */
static const struct {
    const char *element, *actions[6];
} rows[] = {
    {"on_poweroff", {"destroy", "restart"}},
    {"on_reboot", {"restart", "destroy"}},
    {"on_crash", {"destroy", "restart", "preserve", "coredump-destroy", "coredump-restart"}},
};
enum { LIFECYCLE_REBOOT = 1 };

static bool can(unsigned row, const char *action, GError **error)
{
    return g_strv_contains(rows[row].actions, action) ||
           ruche_error(error, MANAGER_ERR_CONFIG, "<%s>: '%s' cannot be done; use '%s' or '%s'",
                       rows[row].element, action, rows[row].actions[0], rows[row].actions[1]);
}

bool domain_check_lifecycle(struct domain_def *def, GError **error)
{
    struct xml_node *domain = domain_def_tree(def);
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        const char *wanted = xml_get(domain, rows[i].element);
        if (wanted && !can(i, wanted, error))
            return false;
    }
    return true;
}

struct change {
    unsigned row;
    const char *action;
};

static bool edit(struct xml_node *domain, void *opaque, GError **error)
{
    const struct change *c = opaque;
    xml_set(domain, rows[c->row].element, c->action);
    return true;
}

/* A reset is the emulator's own; the others are looked up when they happen. */
static bool live(struct vm *v, void *opaque, GError **error)
{
    const struct change *c = opaque;
    return c->row != LIFECYCLE_REBOOT || vm_set_reboot(v, !g_strcmp0(c->action, "destroy"), error);
}

bool domain_set_lifecycle_action(const struct caller *who, struct domain *d, unsigned type,
                                 unsigned action, unsigned affect, GError **error)
{
    static const char *const actions[] = {"destroy",  "restart",          "rename-restart",
                                          "preserve", "coredump-destroy", "coredump-restart"};
    struct change c = {.row = type};
    const struct domain_edit e = {.fn = edit, .live = live, .opaque = &c};
    if (type >= G_N_ELEMENTS(rows) || action >= G_N_ELEMENTS(actions))
        return ruche_error(error, RUCHE_ERR_INVALID, "%u and %u are no event and action", type,
                           action);
    c.action = actions[action];
    return can(type, c.action, error) &&
           domain_change(who, d, "set a lifecycle action of", affect, 0, &e, error);
}
