/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the guest does with its own power, how long its agent has and whether it is there, which
 * disks it speaks of.
 *
 * Spec      virDomainPMSuspendForDuration, virDomainPMWakeup, virDomainAgentSetResponseTimeout at
 *           9.0.0; GuestDiskAddress of QEMU's guest agent protocol.
 * Thread    The loop thread; what asks the guest waits.
 */
#include "manager/domain/domain_priv.h"

/* By virNodeSuspendTarget. */
static const struct {
    const char *command;
    bool wakes; /* the machine must be able to sleep */
} ways[] = {
    {"guest-suspend-ram", true}, {"guest-suspend-disk", false}, {"guest-suspend-hybrid", true}};

static bool sleep_locked(struct domain *d, unsigned target, GError **error)
{
    struct vm *v = domain_machine(d, error);
    if (!v)
        return false;
    if (d->state != DOMAIN_RUNNING)
        return ruche_error(error, RUCHE_ERR_STATE, "domain '%s' is not running", d->name);
    if (ways[target].wakes && !vm_can_sleep(v, error))
        return false;
    g_autofree char *json = g_strdup_printf("{\"execute\":\"%s\"}", ways[target].command);
    return vm_agent_tell(v, json, error);
}

bool domain_pm_suspend(const struct caller *who, struct domain *d, unsigned target,
                       uint64_t duration_s, GError **error)
{
    if (target >= G_N_ELEMENTS(ways))
        return ruche_error(error, RUCHE_ERR_INVALID, "%u is no way to sleep", target);
    if (duration_s)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "a guest cannot be told to sleep for %" G_GUINT64_FORMAT
                           " s, only until it is woken",
                           duration_s);
    if (!domain_allowed(who, d, RIGHT_CONTROL, "put to sleep", error) ||
        !domain_may(d, OP_LIVE, error) || !domain_lock(d, "put to sleep", error))
        return false;
    bool ok = sleep_locked(d, target, error);
    domain_unlock(d);
    domain_audit(who, "put to sleep", d->name, ok, error);
    return ok;
}

bool domain_pm_wakeup(const struct caller *who, struct domain *d, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_CONTROL, "wake", error) || !domain_may(d, OP_LIVE, error) ||
        !domain_lock(d, "wake", error))
        return false;
    struct vm *v = domain_machine(d, error);
    bool ok = v && (d->state == DOMAIN_PMSUSPENDED ||
                    ruche_error(error, RUCHE_ERR_STATE, "domain '%s' does not sleep", d->name));
    ok = ok && vm_wakeup(v, error);
    domain_unlock(d);
    domain_audit(who, "wake", d->name, ok, error);
    return ok;
}

bool domain_set_agent_timeout(const struct caller *who, struct domain *d, int seconds,
                              GError **error)
{
    if (seconds < AGENT_BLOCK)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "a time of %d s for the guest agent is not from %d", seconds,
                           AGENT_BLOCK);
    if (!domain_allowed(who, d, RIGHT_WRITE, "set the agent's time of", error))
        return false;
    d->agent_timeout = seconds;
    domain_set_state(d, d->state, d->reason); /* it is to outlive us */
    return true;
}

/* ---- its disks ---- */

static bool is_at(const struct xml_node *device, const struct guest_disk_place *at)
{
    return xml_is(device, "address@type", "pci") &&
           xml_get_u64(device, "address@domain", 0) == at->domain &&
           xml_get_u64(device, "address@bus", 0) == at->bus &&
           xml_get_u64(device, "address@slot", 0) == at->slot &&
           xml_get_u64(device, "address@function", 0) == at->function;
}

/* A disk on a controller: the guest names the controller's function, and the place on it. */
static bool is_on_controller_at(const struct xml_node *disk, const struct guest_disk_place *at)
{
    if (!xml_is(disk, "address@type", "drive") ||
        xml_get_u64(disk, "address@bus", 0) != at->channel ||
        xml_get_u64(disk, "address@target", 0) != at->target ||
        xml_get_u64(disk, "address@unit", 0) != at->unit)
        return false;
    uint64_t index = xml_get_u64(disk, "address@controller", 0);
    const char *bus = xml_get_or(disk, "target@bus", "");
    for (const struct xml_node *c = xml_find(disk->parent, "controller"); c; c = xml_next(c))
        if (xml_is(c, "@type", bus) && xml_get_u64(c, "@index", 0) == index)
            return is_at(c, at);
    return false;
}

char *domain_disk_at(struct domain *d, const struct guest_disk_place *at)
{
    const struct xml_node *disk =
        d->live ? xml_find(domain_def_tree(d->live), "devices/disk") : NULL;
    for (; disk; disk = xml_next(disk))
        if (is_at(disk, at) || is_on_controller_at(disk, at))
            return g_strdup(xml_get(disk, "target@dev"));
    return NULL;
}

/* ---- its ends of channels ---- */

static const char *agent_alias(const struct domain *d)
{
    for (unsigned i = 0; d->live && i < d->live->s.chardev_count; i++) {
        const struct def_chardev *c = &d->live->s.chardevs[i];
        if (!g_strcmp0(c->kind, "channel") && !g_strcmp0(c->target, "org.qemu.guest_agent.0"))
            return c->alias;
    }
    return NULL;
}

static void set_agent(struct domain *d, bool connected, enum agent_reason why)
{
    enum { CONNECTED = 1, DISCONNECTED = 2 };
    if (d->agent == connected)
        return;
    d->agent = connected;
    domain_emit_id(d, DOMAIN_EVENT_AGENT_LIFECYCLE, connected ? CONNECTED : DISCONNECTED, (int)why,
                   NULL, 0);
}

static bool has_channel(const struct domain *d)
{
    for (unsigned i = 0; d->live && i < d->live->s.chardev_count; i++)
        if (!g_strcmp0(d->live->s.chardevs[i].kind, "channel"))
            return true;
    return false;
}

static bool mark_ports(struct xml_node *domain, void *ports, GError **error)
{
    bool changed = false;
    for (struct xml_node *c = xml_find(domain, "devices/channel"); c; c = xml_next(c)) {
        const char *alias = xml_get(c, "alias@name");
        gpointer open;
        if (!alias || !xml_is(c, "target@type", "virtio") ||
            !g_hash_table_lookup_extended(ports, alias, NULL, &open))
            continue;
        const char *state = GPOINTER_TO_INT(open) ? "connected" : "disconnected";
        changed |= !xml_is(c, "target@state", state);
        xml_set(c, "target@state", state);
    }
    return changed || ruche_error(error, MANAGER_ERR_CONFIG, "it is so already");
}

/* Alias to true or false. The description is right before clients hear of it. */
static void note_ports(struct domain *d, GHashTable *ports, enum agent_reason why)
{
    const char *agent = agent_alias(d);
    gpointer open;
    bool known = agent && g_hash_table_lookup_extended(ports, agent, NULL, &open);
    if (d->live)
        domain_edit(d, true, mark_ports, ports, NULL);
    if (known && d->live)
        set_agent(d, GPOINTER_TO_INT(open), why);
}

void domain_ports_settle(struct domain *d, enum agent_reason why)
{
    if (!d->vm || !has_channel(d))
        return;
    g_autoptr(GHashTable) ports = vm_ports(d->vm);
    note_ports(d, ports, why);
}

void domain_port_changed(struct domain *d, const char *alias, bool open)
{
    g_autoptr(GHashTable) ports = g_hash_table_new(g_str_hash, g_str_equal);
    g_hash_table_insert(ports, (gpointer)alias, GINT_TO_POINTER(open));
    if (d->vm)
        note_ports(d, ports, AGENT_BY_CHANNEL);
}

/* ---- what it tells ---- */

void domain_guest_sleeps(struct domain *d, bool to_disk)
{
    if (d->state != DOMAIN_RUNNING)
        return;
    domain_set_state(d, DOMAIN_PMSUSPENDED, 0);
    domain_emit(d, LIFE_PMSUSPENDED, to_disk);
    domain_emit_id(d, to_disk ? DOMAIN_EVENT_PMSUSPEND_DISK : DOMAIN_EVENT_PMSUSPEND, 0, 0, NULL,
                   0);
}

void domain_guest_wakes(struct domain *d)
{
    if (d->state != DOMAIN_PMSUSPENDED)
        return;
    domain_set_state(d, DOMAIN_RUNNING, RUNNING_WAKEUP);
    domain_emit(d, LIFE_STARTED, STARTED_WAKEUP);
    domain_emit_id(d, DOMAIN_EVENT_PMWAKEUP, 0, 0, NULL, 0);
}
