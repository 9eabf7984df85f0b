/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices of a running machine: put in, taken out, changed. The command line's builder says what a
 * device is; its words go to the monitor here.
 *
 * Order     What stands first on a command line is added first; when something is refused, what was
 * added is taken back.
 */
#include "manager/domain/vm_internal.h"

#include "base/fd.h"
#include "manager/domain/vm_args.h"
#include "manager/domain/vm_spawn.h"
#include "manager/network/network.h"

#include <fcntl.h>
#include <string.h>

#define FDSETS       256 /* numbers for the files of one device */
#define FDSET_ROUNDS (1u << 22)

/* ---- link state ---- */

bool vm_set_link(struct vm *v, const xmlNode *interface, GError **error)
{
    const char *alias = xml_get_or(interface, "alias@name", "");
    return vm_do(
        v, "set_link",
        vm_json("name", 's', alias, "up", 'b', !xml_is(interface, "link@state", "down"), NULL),
        error);
}

/* ---- attach ---- */

static int open_file(void *opaque, const char *path, int flags, GError **error)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY, 0600);
    if (fd < 0)
        ruche_error_errno(error, errno, "'%s'", path);
    return fd;
}

static int no_listen(void *opaque, const char *path, GError **error)
{
    return vm_listen(path, error);
}

static bool make_tap(void *opaque, xmlNode *interface, unsigned queues, int *ret, char **ret_name,
                     GError **error)
{
    struct vm *v = opaque;
    if (!vm_tap_make(v, interface, queues, ret, ret_name, error))
        return false;
    if (xml_is(interface, "@type", "direct"))
        vm_note_link(v, *ret_name);
    return true;
}

static unsigned no_port(void *opaque, unsigned first, GError **error)
{
    ruche_error(error, MANAGER_ERR_CONFIG, "a display cannot be added to a running machine");
    return 0;
}

static int64_t now(void *opaque)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

static const struct vm_args_ops live_ops = {open_file, no_listen, make_tap, no_port, now};

/* "a,b=c,d=e" as an object; the first word's key is `implied`. Values stay texts, as QEMU's keyval
 * takes them, but for on and off. */
static JsonObject *words_to_object(const char *text, const char *implied)
{
    JsonObject *o = json_object_new();
    g_autoptr(GString) word = g_string_new(NULL);
    for (const char *p = text;; p++) {
        if (*p == ',' && p[1] == ',')
            p++;
        else if (*p == ',' || !*p) {
            char *eq = strchr(word->str, '=');
            bool first = json_object_get_size(o) == 0 && !eq;
            if (eq)
                *eq = '\0';
            json_object_set_string_member(o, first ? implied : word->str,
                                          first ? word->str
                                          : eq  ? eq + 1
                                                : "on");
            g_string_truncate(word, 0);
            if (!*p)
                return o;
            continue;
        }
        g_string_append_c(word, *p);
    }
}

static bool send_descriptor(struct vm *v, const struct vm_args *a, const char *number,
                            const char *command, JsonObject *args, GError **error)
{
    guint at = (guint)g_ascii_strtoull(number, NULL, 10) - VM_FIRST_FD;
    if (at >= a->fds->len) {
        json_object_unref(args);
        return ruche_error(error, RUCHE_ERR_INTERNAL, "descriptor %s is not there", number);
    }
    return vm_do_fd(v, command, args, g_array_index(a->fds, int, at), error);
}

static bool add_fd(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    g_autoptr(JsonObject) o = words_to_object(value, "fd");
    int64_t set = g_ascii_strtoll(vm_json_string(o, "set"), NULL, 10);
    return send_descriptor(v, a, vm_json_string(o, "fd"), "add-fd",
                           vm_json("fdset-id", 'i', set, NULL), error);
}

static bool add_netdev(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    JsonObject *o = words_to_object(value, "type");
    const char *number = vm_json_string(o, "fd"), *id = vm_json_string(o, "id");
    if (number) {
        g_autofree char *name = g_strconcat("fd-", id, NULL);
        if (!send_descriptor(v, a, number, "getfd", vm_json("fdname", 's', name, NULL), error)) {
            json_object_unref(o);
            return false;
        }
        json_object_set_string_member(o, "fd", name);
    }
    return vm_do(v, "netdev_add", o, error);
}

static bool add_blockdev(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    g_autoptr(JsonNode) n = json_from_string(value, NULL);
    return vm_do(v, "blockdev-add", json_node_dup_object(n), error);
}

static bool add_object(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    return vm_do(v, "object-add", words_to_object(value, "qom-type"), error);
}

static bool add_device(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    return vm_do(v, "device_add", words_to_object(value, "driver"), error);
}

/* And how each is taken back. */
static const struct {
    const char *option;
    bool (*fn)(struct vm *v, const struct vm_args *a, const char *value, GError **error);
    const char *undo, *id; /* command; which member of ours, under which name there */
    const char *undo_key;
} words[] = {
    {"-add-fd", add_fd, NULL, NULL, NULL},
    {"-object", add_object, "object-del", "id", "id"},
    {"-blockdev", add_blockdev, "blockdev-del", "node-name", "node-name"},
    {"-netdev", add_netdev, "netdev_del", "id", "id"},
    {"-device", add_device, "device_del", "id", "id"},
};

static int find_word(const char *option)
{
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (!strcmp(words[i].option, option))
            return (int)i;
    return -1;
}

static void undo(struct vm *v, const char *option, const char *value)
{
    int i = find_word(option);
    if (!words[i].undo)
        return;
    g_autoptr(JsonNode) n = value[0] == '{' ? json_from_string(value, NULL) : NULL;
    g_autoptr(JsonObject) o = n ? json_node_dup_object(n) : words_to_object(value, "");
    vm_do(v, words[i].undo, vm_json(words[i].undo_key, 's', vm_json_string(o, words[i].id), NULL),
          NULL);
}

static bool add_all(struct vm *v, struct vm_args *a, GError **error)
{
    char **argv = (char **)a->argv->pdata;
    for (guint i = 0; i + 1 < a->argv->len; i += 2) {
        int w = find_word(argv[i]);
        if (w >= 0 && words[w].fn(v, a, argv[i + 1], error))
            continue;
        if (w < 0)
            ruche_error(error, MANAGER_ERR_CONFIG, "machine '%s': %s cannot be added while it runs",
                        v->name, argv[i] + 1);
        for (guint k = i; k >= 2; k -= 2)
            undo(v, argv[k - 2], argv[k - 1]);
        return false;
    }
    return true;
}

/* The builder sees a domain that has only this device. */
static xmlDoc *domain_with(const struct vm *v, const xmlNode *device, xmlNode **ret_device)
{
    xmlDoc *doc = xmlCopyDoc(domain_def_tree(v->d->live)->doc, 1);
    domain_def_shrink(v->d->live);
    xmlNode *devices = xml_find(xmlDocGetRootElement(doc), "devices"),
            *own = xmlDocCopyNode((xmlNode *)device, doc, 1);
    xmlAddChild(devices, own);
    while (
        xml_find(devices->parent, "os/boot")) /* its place is not that of the first of its kind */
        xml_remove(devices->parent, "os/boot");
    for (xmlNode *n = devices->children, *next; n; n = next) {
        next = n->next;
        if (n == own || (n->name && !xmlStrcmp(n->name, BAD_CAST "controller")))
            continue;
        xmlUnlinkNode(n);
        xmlFreeNode(n);
    }
    *ret_device = own;
    return doc;
}

static const struct {
    const char *element;
    bool (*build)(struct vm_args *a, GError **error);
} pluggable[] = {
    {"disk", args_disks},
    {"interface", args_interfaces},
    {"rng", args_small_devices},
    {"memballoon", args_small_devices},
    {"watchdog", args_small_devices},
    {"input", args_small_devices},
    {"controller", args_controllers},
};

static bool no_hot_plug(const struct vm *v, const xmlNode *device, const char *verb, GError **error)
{
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "machine '%s': a device '%s' cannot be %s while it runs; change the stored "
                       "description (--config), which "
                       "holds from the next start on",
                       v->name, (const char *)device->name, verb);
}

/* What the host made for it, and what its network chose. */
static void take_host_names(xmlNode *device, const xmlNode *own)
{
    static const char *const paths[] = {"source@portid", "source@bridge", "source@dev",
                                        "source@mode", "@type"};
    xml_set(device, "target@dev", xml_get(own, "target@dev"));
    for (size_t i = 0; xml_get(own, "source@portid") && i < G_N_ELEMENTS(paths); i++)
        if (xml_get(own, paths[i]))
            xml_set(device, paths[i], xml_get(own, paths[i]));
}

static bool attach(struct vm *v, xmlNode *device, GError **error)
{
    if (v->ours) /* its buses have no hot plug yet */
        return no_hot_plug(v, device, "added", error);
    for (size_t i = 0; i < G_N_ELEMENTS(pluggable); i++) {
        if (strcmp(pluggable[i].element, (const char *)device->name))
            continue;
        xmlNode *own;
        g_autoptr(xmlDoc) doc = domain_with(v, device, &own);
        struct vm_args a;
        if (!strcmp(pluggable[i].element, "disk") &&
            !vm_find_chains(xmlDocGetRootElement(doc), error))
            return false;
        vm_args_init(&a, xmlDocGetRootElement(doc), v->ours);
        a.dir = v->dir;
        a.ops = &live_ops;
        a.opaque = v;
        a.fdsets =
            1000 + v->plugged++ % FDSET_ROUNDS * FDSETS; /* behind those of the command line */
        bool ok = pluggable[i].build(&a, error) && add_all(v, &a, error);
        if (ok && xml_get(own, "target@dev"))
            take_host_names(device, own);
        if (!ok && xml_is(own, "@type", "network"))
            network_unplug(v->d->uuid, xml_get(own, "mac@address"));
        vm_args_done(&a);
        return ok;
    }
    return no_hot_plug(v, device, "added", error);
}

/* ---- detach ---- */

/* Disks by target, interfaces by address: their aliases are the live description's. */
static char *alias_of(const struct vm *v, const xmlNode *device)
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

struct leftover {
    struct vm *v;
    char *alias, *node; /* node NULL: not a disk */
};

/* From the disk itself to the end of its chain. */
static void delete_nodes(struct vm *v, const char *node)
{
    bool more = true;
    for (unsigned depth = 0; more; depth++) {
        g_autofree char *name = depth ? g_strdup_printf("%s-%u", node, depth) : g_strdup(node);
        g_autofree char *file = g_strconcat(name, "-file", NULL);
        more = vm_do(v, "blockdev-del", vm_json("node-name", 's', name, NULL), NULL) &&
               vm_do(v, "blockdev-del", vm_json("node-name", 's', file, NULL), NULL);
    }
}

static void delete_leftover(void *opaque)
{
    struct leftover l = *(struct leftover *)opaque;
    g_free(opaque);
    auto_vm *v = l.v;
    g_autofree char *id = g_strconcat("host", l.alias, NULL);
    if (l.node)
        delete_nodes(v, l.node);
    else
        vm_do(v, "netdev_del", vm_json("id", 's', id, NULL), NULL);
    g_free(l.alias);
    g_free(l.node);
}

/* Its network lets go of an interface; a macvtap does not go with its descriptors. */
static void unplug(const struct vm *v, const char *alias)
{
    const struct domain_def *def = v->d ? v->d->live : NULL;
    for (unsigned i = 0; def && i < def->s.interface_count; i++) {
        const struct def_interface *n = &def->s.interfaces[i];
        if (g_strcmp0(n->alias, alias))
            continue;
        network_unplug(def->s.uuid, n->mac);
        if (n->target && !strcmp(n->type, "direct"))
            vm_link_delete(n->target);
    }
}

/* The device is gone: what it stood on goes too, so that its name is free again. */
void vm_device_deleted(struct vm *v, const char *alias)
{
    unplug(v, alias);
    gpointer key, node;
    if (!g_hash_table_steal_extended(v->leaving, alias, &key, &node))
        return;
    struct leftover *l = g_new(struct leftover, 1);
    *l = (struct leftover){.v = vm_ref(v), .alias = key, .node = node};
    task_start(delete_leftover, l);
}

/* The guest lets go of it when it likes: DEVICE_DELETED tells. */
static bool detach(struct vm *v, xmlNode *device, GError **error)
{
    g_autofree char *alias = alias_of(v, device);
    bool disk = !strcmp((const char *)device->name, "disk");
    if (v->ours || !alias)
        return no_hot_plug(v, device, "taken out", error);
    g_hash_table_replace(v->leaving, g_strdup(alias), disk ? vm_disk_node(device) : NULL);
    return vm_do(v, "device_del", vm_json("id", 's', alias, NULL), error);
}

/* ---- update ---- */

static bool update(struct vm *v, xmlNode *device, GError **error)
{
    if (!strcmp((const char *)device->name, "interface")) {
        g_autofree char *alias = alias_of(v, device);
        return alias ? vm_do(v, "set_link",
                             vm_json("name", 's', alias, "up", 'b',
                                     !xml_is(device, "link@state", "down"), NULL),
                             error)
                     : no_hot_plug(v, device, "changed", error);
    }
    return no_hot_plug(v, device, "changed", error);
}

bool vm_device(struct vm *v, enum def_device_action action, xmlNode *device, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (!v->d || !v->d->live)
        return ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s' does not run", v->name);
    return action == DEF_ATTACH   ? attach(keep, device, error)
           : action == DEF_DETACH ? detach(keep, device, error)
                                  : update(keep, device, error);
}
