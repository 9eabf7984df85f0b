/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices of a running machine as they are to be: interfaces (link, place, filter, rates), media of
 * drives, passwords of displays. What cannot change while it runs is refused by name.
 *
 * Trust     The answers of the monitor are read by type.
 */
#include "manager/domain/vm_internal.h"

#include "manager/domain/def_chain.h"
#include "manager/domain/vm_args.h"

#include <string.h>

/* ---- what may differ ---- */

static const char *what_of(const struct xml_node *n, char **ret)
{
    const char *name = xml_get(n, "target@dev");
    if (!strcmp(n->name, "interface"))
        name = xml_get(n, "mac@address");
    return *ret = name ? g_strdup_printf("%s '%s'", n->name, name) : g_strdup(n->name);
}

static bool stays(const struct vm *v, const struct xml_node *device, const char *part,
                  GError **error)
{
    g_autofree char *what = NULL;
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "machine '%s': cannot modify %s of %s while it runs; change the stored "
                       "description (--config), which holds from the next start on",
                       v->name, part, what_of(device, &what));
}

static bool same_attributes(const struct xml_node *a, const struct xml_node *b,
                            const char *const *but, const char **ret_name)
{
    for (const struct xml_attr *at = a->attrs; at; at = at->next) {
        g_autofree char *path = g_strdup_printf("@%s", at->name);
        if (g_strv_contains(but, path) || !g_strcmp0(xml_get(a, path), xml_get(b, path)))
            continue;
        *ret_name = at->name;
        return false;
    }
    return true;
}

/* All children of this name, as text. */
static char *parts_of(const struct xml_node *n, const char *name)
{
    GString *s = g_string_new(NULL);
    for (const struct xml_node *c = xml_find(n, name); c; c = xml_next(c)) {
        g_autofree char *text = xml_format(c, 0);
        g_string_append(s, text);
    }
    return g_string_free(s, FALSE);
}

/* The first child of `a` that `b` has otherwise, or not at all; NULL: none. */
static const char *other_part(const struct xml_node *a, const struct xml_node *b,
                              const char *const *but)
{
    for (const struct xml_node *c = a->children; c; c = c->next) {
        const char *name = c->name;
        if (!xml_is_element(c) || g_strv_contains(but, name))
            continue;
        g_autofree char *x = parts_of(a, name), *y = parts_of(b, name);
        if (strcmp(x, y) != 0)
            return name;
    }
    return NULL;
}

/* All but the named parts is equal, or the first that is not is named. */
static bool only_differs_in(const struct vm *v, const struct xml_node *before,
                            const struct xml_node *after, const char *const *but, GError **error)
{
    const char *name;
    if (!same_attributes(before, after, but, &name) || !same_attributes(after, before, but, &name))
        return stays(v, after, name, error);
    name = other_part(before, after, but);
    name = name ? name : other_part(after, before, but);
    return !name || stays(v, after, name, error);
}

static bool same_part(const struct xml_node *a, const struct xml_node *b, const char *name)
{
    g_autofree char *s = parts_of(a, name), *t = parts_of(b, name);
    return !strcmp(s, t);
}

static void copy_part(struct xml_node *to, const struct xml_node *from, const char *name)
{
    while (xml_find(to, name))
        xml_remove(to, name);
    if (xml_find(from, name))
        xml_append(to, xml_copy(xml_find(from, name)));
}

/* ---- interfaces ---- */

static bool on_bridge(const struct xml_node *n)
{
    return xml_is(n, "@type", "network") || xml_is(n, "@type", "bridge");
}

static bool same_place(const struct xml_node *a, const struct xml_node *b)
{
    static const char *const paths[] = {"source@network", "source@portgroup"};
    if (xml_get(a, paths[0]) && xml_get(b, paths[0])) {
        for (size_t i = 0; i < G_N_ELEMENTS(paths); i++)
            if (g_strcmp0(xml_get(a, paths[i]), xml_get(b, paths[i])) != 0)
                return false;
        return true; /* what the network chose, its own text need not say */
    }
    return xml_is(a, "@type", xml_get_or(b, "@type", "")) && same_part(a, b, "source");
}

static bool set_link(struct vm *v, const struct xml_node *before, const struct xml_node *after,
                     GError **error)
{
    if (xml_is(before, "link@state", "down") == xml_is(after, "link@state", "down"))
        return true;
    return vm_set_link(v, after, error);
}

static bool update_interface(struct vm *v, struct xml_node *before, const struct vm_change *c,
                             GError **error)
{
    static const char *const may_change[] = {"@type",     "source", "link", "bandwidth",
                                             "filterref", "port",   NULL};
    static const char *const ovs_may[] = {"@type",     "source", "link", "bandwidth",
                                          "filterref", "port",   "vlan", NULL};
    static const char *const of_tap[] = {"bandwidth", "port", "filterref", "vlan"};
    bool same = same_place(before, c->device);
    if (same) {
        xml_set(c->device, "@type", xml_get_or(before, "@type", ""));
        copy_part(c->device, before, "source");
    } else if (!on_bridge(before) || !on_bridge(c->device)) {
        return stays(
            v, c->device,
            xml_is(before, "@type", xml_get_or(c->device, "@type", "")) ? "source" : "type", error);
    }
    bool ovs = same && vm_tap_is_ovs(before, c->device), tap = !same;
    if (!only_differs_in(v, before, c->device, ovs ? ovs_may : may_change, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(of_tap); i++)
        tap = tap || !same_part(before, c->device, of_tap[i]);
    return (!tap || vm_tap_change(v, before, c->device, !same, error)) &&
           set_link(v, before, c->device, error);
}

/* ---- media ---- */

#define TRAY_MS 5000 /* as long may a guest take to unlock it */

/* A floppy drive has no tray, which is never closed. */
static bool tray_is_closed(struct vm *v, const char *alias)
{
    g_autoptr(JsonNode) all = vm_call(v, "query-block", NULL, NULL);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(vm_json_array(all), i)); i++) {
        const char *path = vm_json_string(o, "qdev");
        size_t len = path ? strlen(path) : 0, own = strlen(alias);
        /* An id, or a path that ends in it. */
        if (len >= own && !strcmp(path + len - own, alias) &&
            (len == own || path[len - own - 1] == '/'))
            return json_object_has_member(o, "tray_open") && !vm_json_bool(o, "tray_open");
    }
    return false;
}

/* A drive whose guest has locked the tray asks it; with `force` it is not asked. */
static bool open_tray(struct vm *v, const char *alias, bool force, GError **error)
{
    int64_t end = g_get_monotonic_time() + TRAY_MS * 1000;
    if (!vm_do(v, "blockdev-open-tray",
               vm_json("id", 's', alias, "force", 'b', (gboolean)force, NULL), error))
        return false;
    while (tray_is_closed(v, alias)) {
        if (g_get_monotonic_time() >= end)
            return ruche_error(error, MANAGER_ERR_MACHINE,
                               "machine '%s': the guest keeps the tray of '%s' locked; --force "
                               "opens it",
                               v->name, alias);
        task_sleep_ms(50);
    }
    return true;
}

static bool insert(struct vm *v, const char *alias, const char *node, GError **error)
{
    return vm_do(v, "blockdev-insert-medium",
                 vm_json("id", 's', alias, "node-name", 's', node, NULL), error) &&
           vm_do(v, "blockdev-close-tray", vm_json("id", 's', alias, NULL), error);
}

/* What was in it comes back when the other does not go in. */
static bool exchange(struct vm *v, const char *alias, const char *former, const char *node,
                     bool force, GError **error)
{
    if (!open_tray(v, alias, force, error) ||
        !vm_do(v, "blockdev-remove-medium", vm_json("id", 's', alias, NULL), error))
        return false;
    if (!node || insert(v, alias, node, error))
        return true;
    if (former)
        insert(v, alias, former, NULL);
    return false;
}

static bool has_source(const struct xml_node *disk)
{
    return xml_get(disk, "source@file") || xml_get(disk, "source@dev") ||
           xml_get(disk, "source@protocol") || xml_get(disk, "source@pool");
}

static bool same_medium(const struct xml_node *a, const struct xml_node *b)
{
    static const char *const paths[] = {
        "@type",           "driver@type", "source@file",      "source@dev",
        "source@protocol", "source@name", "source/host@name", "source/host@port"};
    static const char *const of_volume[] = {"@type", "driver@type", "source@pool", "source@volume",
                                            "source@mode"};
    for (size_t i = 0; xml_is(a, "@type", "volume") && i < G_N_ELEMENTS(of_volume); i++)
        if (g_strcmp0(xml_get(a, of_volume[i]), xml_get(b, of_volume[i])) != 0)
            return false;
    for (size_t i = 0; !xml_is(a, "@type", "volume") && i < G_N_ELEMENTS(paths); i++)
        if (g_strcmp0(xml_get(a, paths[i]), xml_get(b, paths[i])) != 0)
            return false;
    return true;
}

static bool change_medium(struct vm *v, struct xml_node *before, const struct vm_change *c,
                          GError **error)
{
    const char *alias = xml_get_or(before, "alias@name", "");
    g_autofree char *former = has_source(before) ? vm_disk_node(before) : NULL, *node = NULL;
    struct vm_build b = {0};
    if (has_source(c->device)) {
        xml_set_f(c->device, "source@index", "%u", def_chain_new_number(before));
        node = vm_disk_node(c->device);
        if (!vm_build_device(v, c->device, &b, error) || !vm_add_built(v, &b, false, error)) {
            vm_build_done(&b);
            return false;
        }
        vm_take_chain(c->device, b.own);
    }
    vm_build_done(&b);
    bool ok = exchange(v, alias, former, node, c->force, error);
    g_autofree char *all = g_strconcat("disk-", xml_get_or(before, "target@dev", ""), NULL);
    vm_delete_nodes(v, all); /* those in use stay */
    return ok;
}

static bool update_disk(struct vm *v, struct xml_node *before, const struct vm_change *c,
                        GError **error)
{
    static const char *const may_change[] = {"@type",    "driver", "source", "backingStore",
                                             "readonly", "target", NULL};
    static const char *const nothing[] = {"backingStore", "target", NULL};
    if (!vm_find_volume(c->device, error))
        return false;
    bool removable = xml_is(before, "@device", "cdrom") || xml_is(before, "@device", "floppy");
    if (!only_differs_in(v, before, c->device, removable ? may_change : nothing, error))
        return false;
    if (!xml_is(before, "target@bus", xml_get_or(c->device, "target@bus", "")))
        return stays(v, c->device, "bus", error);
    if (!same_medium(before, c->device))
        return change_medium(v, before, c, error);
    copy_part(c->device, before, "source");
    copy_part(c->device, before, "backingStore");
    copy_part(c->device, before, "target");
    return true;
}

/* ---- displays ---- */

static bool set_password(struct vm *v, const struct xml_node *g, GError **error)
{
    const char *protocol = xml_get_or(g, "@type", ""), *until = xml_get(g, "@passwdValidTo");
    g_autoptr(GTimeZone) utc = g_time_zone_new_utc();
    g_autoptr(GDateTime) at = until ? g_date_time_new_from_iso8601(until, utc) : NULL;
    g_autofree char *time =
        at ? g_strdup_printf("%" G_GINT64_FORMAT, g_date_time_to_unix(at)) : g_strdup("never");
    return vm_do(v, "set_password",
                 vm_json("protocol", 's', protocol, "password", 's', xml_get_or(g, "@passwd", ""),
                         "connected", 's', xml_get(g, "@connected"), NULL),
                 error) &&
           vm_do(v, "expire_password", vm_json("protocol", 's', protocol, "time", 's', time, NULL),
                 error);
}

bool vm_start_passwords(struct vm *v, const struct xml_node *domain, GError **error)
{
    for (struct xml_node *g = xml_find(domain, "devices/graphics"); g; g = xml_next(g))
        if (xml_get(g, "@passwd") && !set_password(v, g, error))
            return false;
    return true;
}

static bool update_graphics(struct vm *v, struct xml_node *before, const struct vm_change *c,
                            GError **error)
{
    static const char *const may_change[] = {"@passwd", "@passwdValidTo", "@connected", NULL};
    if (!only_differs_in(v, before, c->device, may_change, error))
        return false;
    if (!xml_get(before, "@passwd") != !xml_get(c->device, "@passwd"))
        return stays(v, c->device, "whether there is a password", error);
    return !xml_get(c->device, "@passwd") || set_password(v, c->device, error);
}

/* ---- by kind ---- */

static const struct {
    const char *element;
    bool (*fn)(struct vm *v, struct xml_node *before, const struct vm_change *c, GError **error);
} kinds[] = {
    {"interface", update_interface},
    {"disk", update_disk},
    {"graphics", update_graphics},
};

bool vm_update(struct vm *v, struct vm_change *c, GError **error)
{
    /* A copy: trees of definitions go when others have read them. */
    auto_xml *before = xml_copy(c->before);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (!strcmp(kinds[i].element, before->name))
            return kinds[i].fn(v, before, c, error);
    return vm_no_hot_plug(v, before, "changed", error);
}
