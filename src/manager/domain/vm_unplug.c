/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices and vCPUs that leave a running machine. The guest lets go of them when it likes:
 * DEVICE_DELETED tells, soon or late, also of those that nobody here has asked for. What a device
 * stood on (nodes, files, backends) is taken out behind it.
 *
 * Trust     Names in events are looked up, never believed.
 */
#include "manager/domain/vm_internal.h"
#include "manager/filter/filter.h"

#include "manager/domain/vm_args.h"
#include "manager/network/network.h"

#include <string.h>

#define UNPLUG_MS   5000 /* as long do clients wait */
#define CHAIN_LIMIT 256

/* Somebody waits for it. Lives on the waiting task's stack. */
struct vm_leaving {
    struct task_event event;
    bool gone, refused;
};

/* ---- what is left over ---- */

/* "/dev/fdset/N" -> N; -1: some other file. */
static int64_t fdset_of(JsonObject *node)
{
    const char *file = node ? vm_json_string(node, "file") : NULL;
    return file && g_str_has_prefix(file, "/dev/fdset/") ? g_ascii_strtoll(file + 11, NULL, 10)
                                                         : -1;
}

static JsonObject *find_node(JsonArray *nodes, const char *name)
{
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(nodes, i)); i++)
        if (!g_strcmp0(vm_json_string(o, "node-name"), name))
            return o;
    return NULL;
}

static bool delete_node(struct vm *v, const char *name)
{
    return vm_do(v, "blockdev-del", vm_json("node-name", 's', name, NULL), NULL);
}

/* "disk-vda" of itself, "disk-vda-3", "disk-vda-3-1": what has been done to its chain says which
 * numbers there are. */
static bool is_image_of(const char *name, const char *node)
{
    size_t len = strlen(node);
    if (!name || strncmp(name, node, len) != 0)
        return false;
    return !name[len] || (name[len] == '-' && !name[len + strspn(name + len, "-0123456789")]);
}

static GPtrArray *images_of(JsonArray *nodes, const char *node)
{
    GPtrArray *list = g_ptr_array_new_with_free_func(g_free);
    JsonObject *o;
    for (guint i = 0; (o = vm_json_at(nodes, i)) && list->len < CHAIN_LIMIT; i++) {
        const char *name = vm_json_string(o, "node-name");
        g_autofree char *image = name && g_str_has_suffix(name, "-file")
                                     ? g_strndup(name, strlen(name) - strlen("-file"))
                                     : g_strdup(name);
        /* A file without its image: whoever closed that was killed before it came to the file. */
        if (is_image_of(image, node) && (!strcmp(image, name) || !find_node(nodes, image)))
            g_ptr_array_add(list, g_steal_pointer(&image));
    }
    return list;
}

/* The secrets and certificates of an image's node; most have at most one of them. */
static void delete_objects(struct vm *v, const char *node)
{
    static const char *const parts[] = {"-key", "-auth", "-tls", "-tls-key"};
    for (size_t i = 0; i < G_N_ELEMENTS(parts); i++) {
        g_autofree char *id = g_strconcat(node, parts[i], NULL);
        vm_do(v, "object-del", vm_json("id", 's', id, NULL), NULL);
    }
}

bool vm_delete_image(struct vm *v, JsonArray *nodes, const char *name)
{
    g_autofree char *file = g_strconcat(name, "-file", NULL);
    int64_t set = fdset_of(find_node(nodes, file));
    JsonObject *image = find_node(nodes, name);
    bool encrypted = image && vm_json_bool(image, "encrypted");
    if (image && !delete_node(v, name))
        return false;
    if (delete_node(v, file) && set >= 0)
        vm_do(v, "remove-fd", vm_json("fdset-id", 'i', set, NULL), NULL);
    if (set < 0 || encrypted)
        delete_objects(v, name);
    return true;
}

/* One that another still stands on has its turn after that. */
void vm_delete_nodes(struct vm *v, const char *node)
{
    g_autoptr(JsonNode) all =
        vm_call(v, "query-named-block-nodes", vm_json("flat", 'b', TRUE, NULL), NULL);
    g_autoptr(GPtrArray) left = images_of(vm_json_array(all), node);
    for (guint before = left->len + 1; left->len && left->len < before;) {
        before = left->len;
        for (guint i = 0; i < left->len;)
            if (vm_delete_image(v, vm_json_array(all), g_ptr_array_index(left, i)))
                g_ptr_array_remove_index(left, i);
            else
                i++;
    }
}

struct leftover {
    struct vm *v;
    char *alias, *node; /* node NULL: not a disk */
};

static void delete_leftover(void *opaque)
{
    struct leftover l = *(struct leftover *)opaque;
    g_free(opaque);
    auto_vm *v = l.v;
    static const struct {
        const char *prefix, *command;
    } rows[] = {{"host", "netdev_del"}, {"char", "chardev-remove"}, {"obj", "object-del"}};
    if (l.node)
        vm_delete_nodes(v, l.node);
    bool other = !l.node && !g_str_has_prefix(l.alias, "vcpu");
    for (size_t i = 0; other && i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *id = g_strconcat(rows[i].prefix, l.alias, NULL);
        vm_do(v, rows[i].command, vm_json("id", 's', id, NULL), NULL); /* most have only one */
    }
    g_free(l.alias);
    g_free(l.node);
}

static char *node_of(const struct vm *v, const char *alias)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.disk_count; i++)
        if (!g_strcmp0(def->s.disks[i].alias, alias))
            return g_strconcat("disk-", def->s.disks[i].target, NULL);
    return NULL;
}

/* Its network lets go of an interface; a macvtap does not go with its descriptors. */
static void leave_network(const struct vm *v, const char *alias)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.interface_count; i++) {
        const struct def_interface *n = &def->s.interfaces[i];
        if (g_strcmp0(n->alias, alias))
            continue;
        network_unplug(def->s.uuid, n->mac);
        if (n->target)
            filter_unplug(n->target);
        if (n->target && !strcmp(n->type, "direct")) {
            vm_link_delete(n->target);
            vm_forget_link(v, n->target);
        }
    }
}

void vm_device_deleted(struct vm *v, const char *alias)
{
    /* Who waits runs at once, and takes the device out of the description. */
    struct leftover *l = g_new(struct leftover, 1);
    *l = (struct leftover){.v = vm_ref(v), .alias = g_strdup(alias), .node = node_of(v, alias)};
    leave_network(v, alias);
    struct vm_leaving *waits = g_hash_table_lookup(v->leaving, alias);
    if (waits) {
        waits->gone = true;
        task_event_happen(&waits->event);
    }
    task_start(delete_leftover, l);
}

void vm_unplug_refused(struct vm *v, const char *alias)
{
    struct vm_leaving *waits = g_hash_table_lookup(v->leaving, alias);
    if (!waits)
        return;
    waits->refused = true;
    task_event_happen(&waits->event);
}

/* ---- asking ---- */

/* A guest that is still taking the device in (its slot's light blinks) is given the time to. */
static bool ask(struct vm *v, const char *alias, bool wait, GError **error)
{
    int64_t end = g_get_monotonic_time() + UNPLUG_MS * 1000;
    for (;;) {
        g_autoptr(GError) why = NULL;
        if (vm_do(v, "device_del", vm_json("id", 's', alias, NULL), &why))
            return true;
        if (wait && strstr(why->message, "guest is busy") && g_get_monotonic_time() < end) {
            task_sleep_ms(100);
            continue;
        }
        g_propagate_error(error, g_steal_pointer(&why));
        return false;
    }
}

bool vm_unplug(struct vm *v, const char *alias, bool wait, bool *ret_gone, GError **error)
{
    struct vm_leaving self = {0};
    g_autoptr(GError) why = NULL;
    *ret_gone = false;
    if (g_hash_table_contains(v->leaving, alias))
        return ruche_error(error, MANAGER_ERR_MACHINE,
                           "machine '%s': device '%s' is being taken out already", v->name, alias);
    g_hash_table_insert(v->leaving, g_strdup(alias), &self);
    bool asked = ask(v, alias, wait, &why);
    if (asked && wait)
        task_event_wait(&self.event, UNPLUG_MS);
    g_hash_table_remove(v->leaving, alias);
    if (self.refused)
        return ruche_error(error, MANAGER_ERR_MACHINE,
                           "machine '%s': unplug of device '%s' was rejected by the guest", v->name,
                           alias);
    /* The guest had given it up before it was asked. */
    *ret_gone = self.gone || (!asked && g_error_matches(why, RUCHE_ERROR, MANAGER_ERR_ARGUMENT));
    if (asked || *ret_gone)
        return true;
    g_propagate_error(error, g_steal_pointer(&why));
    return false;
}

/* Disks by target, interfaces by address: their aliases are the live description's. */
char *vm_alias_of(const struct vm *v, const struct xml_node *device)
{
    const struct domain_def *def = v->d->live;
    const char *alias = xml_get(device, "alias@name"), *target = xml_get(device, "target@dev"),
               *mac = xml_get(device, "mac@address");
    for (unsigned i = 0; !alias && target && i < def->s.disk_count; i++)
        if (!g_strcmp0(def->s.disks[i].target, target))
            alias = def->s.disks[i].alias;
    for (unsigned i = 0; !alias && mac && i < def->s.interface_count; i++)
        if (!g_ascii_strcasecmp(def->s.interfaces[i].mac, mac))
            alias = def->s.interfaces[i].alias;
    return g_strdup(alias);
}

bool vm_detach(struct vm *v, struct xml_node *device, bool wait, bool *ret_gone, GError **error)
{
    auto_vm *keep = vm_ref(v);
    g_autofree char *alias = v->d && v->d->live ? vm_alias_of(v, device) : NULL;
    if (!alias)
        return ruche_error(error, MANAGER_ERR_MACHINE,
                           "machine '%s': the %s to be taken out has no name in it", v->name,
                           device->name);
    return vm_unplug(keep, alias, wait, ret_gone, error);
}
