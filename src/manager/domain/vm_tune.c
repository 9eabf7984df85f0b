/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of a running machine by libvirt's names: which group has them, and what is set at the
 * start.
 *
 * Where      A group's values are what the kernel says now; where a controller is missing, asking
 * is an error that names it.
 */
#include "manager/domain/vm_tune.h"

#include "base/util.h"

#include <string.h>

/* ---- interfaces' rates ---- */

static const char *const rates[] = {"inbound.average", "inbound.peak",     "inbound.burst",
                                    "inbound.floor",   "outbound.average", "outbound.peak",
                                    "outbound.burst"};

/* A copy of the live <interface>, by its name on the host or its address. */
static struct xml_node *find_interface(const struct vm *v, const char *device, GError **error)
{
    struct xml_node *doc = NULL;
    for (struct xml_node *n = xml_find(domain_def_tree(v->d->live), "devices/interface"); n && !doc;
         n = xml_next(n))
        if (xml_is(n, "target@dev", device) || xml_is(n, "mac@address", device))
            doc = xml_copy(n);
    domain_def_shrink(v->d->live);
    if (!doc)
        ruche_error(error, RUCHE_ERR_INVALID, "machine '%s': can't find interface '%s'", v->name,
                    device);
    return doc;
}

/* "inbound.average" is bandwidth/inbound@average. */
static char *rate_path(const char *name)
{
    char *path = g_strconcat("bandwidth/", name, NULL);
    *strchr(path, '.') = '@';
    return path;
}

static bool interface_set(struct vm *v, const char *device, const struct param_list *l,
                          GError **error)
{
    auto_xml *n = find_interface(v, device, error);
    if (!n)
        return false;
    for (unsigned i = 0; i < l->count; i++) {
        g_autofree char *path = rate_path(l->rows[i].name);
        if (l->rows[i].u)
            xml_set_f(n, path, "%u", (unsigned)l->rows[i].u);
        else
            xml_remove(n, path);
    }
    def_drop_empty_rates(n);
    return vm_tap_rates(v, n, xml_find(n, "bandwidth"), error);
}

static bool interface_get(struct vm *v, const char *device, struct param_list *ret, GError **error)
{
    auto_xml *doc = find_interface(v, device, error);
    for (size_t i = 0; doc && i < ARRAY_COUNT(rates); i++) {
        g_autofree char *path = rate_path(rates[i]);
        param_uint(ret, rates[i], (unsigned)xml_get_u64(doc, path, 0));
    }
    return doc != NULL;
}

static const struct vm_tune_group vm_tune_interface = {
    .which = "interface", .set = interface_set, .get = interface_get};

/* ---- by name ---- */

static const struct vm_tune_group *const groups[] = {
    &vm_tune_scheduler, &vm_tune_memory,  &vm_tune_blkio,
    &vm_tune_numa,      &vm_tune_blockio, &vm_tune_interface,
};

static int find_group(const struct vm *v, const char *which, const char **ret_device,
                      GError **error)
{
    size_t len = strcspn(which, ":");
    *ret_device = which[len] ? which + len + 1 : "";
    for (size_t i = 0; i < ARRAY_COUNT(groups) && v->d && v->d->live; i++)
        if (strlen(groups[i]->which) == len && !strncmp(groups[i]->which, which, len))
            return (int)i;
    ruche_error(error, MANAGER_ERR_ARGUMENT, "machine '%s' has no parameters '%s'", v->name, which);
    return -1;
}

bool vm_set_params(struct vm *v, const char *which, const struct param_list *l, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const char *device;
    int g = find_group(keep, which, &device, error);
    return g >= 0 && groups[g]->set(keep, device, l, error);
}

bool vm_get_params(struct vm *v, const char *which, struct param_list *ret, GError **error)
{
    auto_vm *keep = vm_ref(v);
    const char *device;
    int g = find_group(keep, which, &device, error);
    return g >= 0 && groups[g]->get(keep, device, ret, error);
}

/* ---- at the start ---- */

static bool start_links(struct vm *v, const struct xml_node *domain, GError **error)
{
    for (struct xml_node *n = xml_find(domain, "devices/interface"); n; n = xml_next(n))
        if (xml_is(n, "link@state", "down") && !vm_set_link(v, n, error))
            return false;
    return true;
}

void vm_know_balloon(struct vm *v, const struct xml_node *domain)
{
    const struct xml_node *b = xml_find(domain, "devices/memballoon");
    g_clear_pointer(&v->balloon, g_free);
    if (b && !xml_is(b, "@model", "none"))
        v->balloon =
            g_strdup_printf("/machine/peripheral/%s", xml_get_or(b, "alias@name", "balloon0"));
}

bool vm_set_stats_period(struct vm *v, const struct xml_node *balloon, uint64_t seconds,
                         GError **error)
{
    return vm_do(v, "qom-set",
                 vm_json("path", 's', v->balloon, "property", 's', "guest-stats-polling-interval",
                         "value", 'i', (int64_t)seconds, NULL),
                 error);
}

/* currentMemory below memory: the guest gets it once its driver is there. */
static bool start_balloon(struct vm *v, const struct xml_node *domain, GError **error)
{
    const struct xml_node *b = xml_find(domain, "devices/memballoon");
    uint64_t most = xml_get_u64(domain, "memory", 0),
             now = xml_get_u64(domain, "currentMemory", most);
    vm_know_balloon(v, domain);
    if (!v->balloon)
        return true;
    uint64_t period = xml_get_u64(b, "stats@period", 0);
    if (period && !vm_set_stats_period(v, b, MIN(period, 3600), error))
        return false;
    return now >= most || vm_set_memory(v, now, error);
}

bool vm_tune_at_start(struct vm *v, struct xml_node *domain, GError **error)
{
    if (!vm_start_pins(v, domain, error))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(groups); i++)
        if (groups[i]->start && !groups[i]->start(v, domain, error))
            return false;
    return start_links(v, domain, error) && start_balloon(v, domain, error) &&
           vm_start_passwords(v, domain, error);
}
