/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices of a running machine: put in (vm_update.c: changed; vm_unplug.c: taken out). The command
 * line's builder says what a device is; its words go to the monitor here.
 *
 * Order     What stands first on a command line is added first; when something is refused, what was
 * added is taken back.
 */
#include "manager/domain/vm_internal.h"
#include "manager/filter/filter.h"

#include "base/fd.h"
#include "manager/domain/vm_args.h"
#include "manager/domain/vm_spawn.h"
#include "manager/network/network.h"

#include <fcntl.h>
#include <string.h>

#define FDSETS       256 /* numbers for the files of one device */
#define FDSET_ROUNDS (1u << 22)

/* ---- link state ---- */

bool vm_set_link(struct vm *v, const struct xml_node *interface, GError **error)
{
    const char *alias = xml_get_or(interface, "alias@name", "");
    return vm_do(
        v, "set_link",
        vm_json("name", 's', alias, "up", 'b', !xml_is(interface, "link@state", "down"), NULL),
        error);
}

/* ---- attach ---- */

static unsigned no_port(void *opaque, unsigned first, GError **error)
{
    ruche_error(error, MANAGER_ERR_CONFIG, "a display cannot be added to a running machine");
    return 0;
}

/* Words that may come again are lists of texts in JSON. */
static void add_word(JsonObject *o, const char *key, const char *value)
{
    if (strcmp(key, "hostfwd") != 0 && strcmp(key, "guestfwd") != 0) {
        json_object_set_string_member(o, key, value);
        return;
    }
    JsonNode *old = json_object_get_member(o, key);
    JsonArray *list = old ? json_node_get_array(old) : json_array_new();
    if (!old)
        json_object_set_array_member(o, key, list);
    json_array_add_object_element(list, vm_json("str", 's', value, NULL));
}

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
            add_word(o, first ? implied : word->str, first ? word->str : eq ? eq + 1 : "on");
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

/* Names that a backend which was refused did not take. */
static void close_names(struct vm *v, const char *list)
{
    g_auto(GStrv) names = g_strsplit(list, ":", -1);
    for (char **n = names; *n; n++)
        vm_do(v, "closefd", vm_json("fdname", 's', *n, NULL), NULL);
}

static bool add_netdev(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    JsonObject *o = words_to_object(value, "type");
    const char *id = vm_json_string(o, "id"),
               *key = json_object_has_member(o, "fds") ? "fds" : "fd",
               *list = vm_json_string(o, key);
    g_auto(GStrv) numbers = g_strsplit(list ? list : "", ":", -1);
    g_autoptr(GString) names = g_string_new(NULL);
    for (char **n = numbers; *n; n++) {
        g_autofree char *name = g_strdup_printf("fd-%s-%u", id, (unsigned)(n - numbers));
        if (!send_descriptor(v, a, *n, "getfd", vm_json("fdname", 's', name, NULL), error)) {
            json_object_unref(o);
            return false;
        }
        g_string_append_printf(names, "%s%s", n == numbers ? "" : ":", name);
    }
    if (list)
        json_object_set_string_member(o, key, names->str);
    if (vm_do(v, "netdev_add", o, error))
        return true;
    if (list)
        close_names(v, names->str);
    return false;
}

/* Where a socket is: a descriptor, a path, or a host's port. */
static JsonObject *chardev_address(JsonObject *words, const char *fd_name)
{
    const char *path = vm_json_string(words, "path");
    JsonObject *data = fd_name ? vm_json("str", 's', fd_name, NULL)
                       : path  ? vm_json("path", 's', path, NULL)
                               : vm_json("host", 's', vm_json_string(words, "host"), "port", 's',
                                         vm_json_string(words, "port"), NULL);
    return vm_json("type", 's', fd_name ? "fd" : path ? "unix" : "inet", "data", 'o', data, NULL);
}

static bool is_on(JsonObject *words, const char *name)
{
    return !g_strcmp0(vm_json_string(words, name), "on");
}

/* -chardev's words as QMP's ChardevBackend. */
static JsonObject *chardev_data(JsonObject *words, const char *type, const char *fd_name)
{
    JsonObject *data = json_object_new();
    const char *path = vm_json_string(words, "path"), *log = vm_json_string(words, "logfile"),
               *reconnect = vm_json_string(words, "reconnect");
    if (!strcmp(type, "socket")) {
        json_object_set_object_member(data, "addr", chardev_address(words, fd_name));
        json_object_set_boolean_member(data, "server", is_on(words, "server"));
        if (is_on(words, "server"))
            json_object_set_boolean_member(data, "wait", FALSE);
        if (is_on(words, "telnet"))
            json_object_set_boolean_member(data, "telnet", TRUE);
        if (reconnect)
            json_object_set_int_member(data, "reconnect", g_ascii_strtoll(reconnect, NULL, 10));
    } else if (path) {
        json_object_set_string_member(data, !strcmp(type, "file") ? "out" : "device", path);
    } else if (!strcmp(type, "spicevmc")) {
        json_object_set_string_member(data, "type", vm_json_string(words, "name"));
    }
    if (!strcmp(type, "file"))
        json_object_set_boolean_member(data, "append", is_on(words, "append"));
    if (log) {
        json_object_set_string_member(data, "logfile", log);
        json_object_set_boolean_member(data, "logappend", is_on(words, "logappend"));
    }
    return data;
}

static bool add_chardev(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    g_autoptr(JsonObject) words = words_to_object(value, "backend");
    const char *number = vm_json_string(words, "fd"), *id = vm_json_string(words, "id"),
               *type = vm_json_string(words, "backend");
    g_autofree char *name = number ? g_strconcat("fd-", id, NULL) : NULL;
    if (number &&
        !send_descriptor(v, a, number, "getfd", vm_json("fdname", 's', name, NULL), error))
        return false;
    JsonObject *backend =
        vm_json("type", 's', type, "data", 'o', chardev_data(words, type, name), NULL);
    return vm_do(v, "chardev-add", vm_json("id", 's', id, "backend", 'o', backend, NULL), error);
}

static bool add_blockdev(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    g_autoptr(JsonNode) n = json_from_string(value, NULL);
    return vm_do(v, "blockdev-add", json_node_dup_object(n), error);
}

static bool add_object(struct vm *v, const struct vm_args *a, const char *value, GError **error)
{
    JsonObject *o = words_to_object(value, "qom-type");
    const char *verify = vm_json_string(o, "verify-peer");
    if (verify) /* QEMU takes a truth here, and no word for it */
        json_object_set_boolean_member(o, "verify-peer", !strcmp(verify, "on"));
    return vm_do(v, "object-add", o, error);
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
    {"-chardev", add_chardev, "chardev-remove", "id", "id"},
    {"-device", add_device, "device_del", "id", "id"},
};

static int find_word(const char *option)
{
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (!strcmp(words[i].option, option))
            return (int)i;
    return -1;
}

/* A descriptor that stays holds its file's lock. */
static void remove_fd(struct vm *v, const char *value)
{
    g_autoptr(JsonObject) o = words_to_object(value, "fd");
    int64_t set = g_ascii_strtoll(vm_json_string(o, "set"), NULL, 10);
    vm_do(v, "remove-fd", vm_json("fdset-id", 'i', set, NULL), NULL);
}

static void undo(struct vm *v, const char *option, const char *value)
{
    int i = find_word(option);
    if (!strcmp(option, "-add-fd"))
        remove_fd(v, value);
    if (!words[i].undo)
        return;
    g_autoptr(JsonNode) n = value[0] == '{' ? json_from_string(value, NULL) : NULL;
    g_autoptr(JsonObject) o = n ? json_node_dup_object(n) : words_to_object(value, "");
    vm_do(v, words[i].undo, vm_json(words[i].undo_key, 's', vm_json_string(o, words[i].id), NULL),
          NULL);
}

bool vm_add_built(struct vm *v, struct vm_build *b, bool device, GError **error)
{
    char **argv = (char **)b->a.argv->pdata;
    for (guint i = 0; i + 1 < b->a.argv->len; i += 2) {
        int w = find_word(argv[i]);
        if (w >= 0 && !device && words[w].fn == add_device)
            continue;
        if (w >= 0 && words[w].fn(v, &b->a, argv[i + 1], error))
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
static struct xml_node *domain_with(const struct vm *v, const struct xml_node *device,
                                    struct xml_node **ret_device)
{
    struct xml_node *doc = xml_copy(domain_def_tree(v->d->live));
    domain_def_shrink(v->d->live);
    struct xml_node *devices = xml_find(doc, "devices"), *own = xml_copy(device);
    xml_append(devices, own);
    while (
        xml_find(devices->parent, "os/boot")) /* its place is not that of the first of its kind */
        xml_remove(devices->parent, "os/boot");
    for (struct xml_node *n = devices->children, *next; n; n = next) {
        next = n->next;
        if (n == own || (n->name && !strcmp(n->name, "controller")))
            continue;
        xml_free(n);
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
    {"channel", args_chardevs},
};

bool vm_no_hot_plug(const struct vm *v, const struct xml_node *device, const char *verb,
                    GError **error)
{
    return ruche_error(error, MANAGER_ERR_CONFIG,
                       "machine '%s': a device '%s' cannot be %s while it runs; change the stored "
                       "description (--config), which "
                       "holds from the next start on",
                       v->name, device->name, verb);
}

static bool build(struct vm *v, struct vm_build *b, GError **error)
{
    const char *name = b->own->name;
    struct xml_node *domain = b->doc;
    if (!strcmp(name, "disk") &&
        (!vm_find_volumes(domain, error) || !vm_find_chains(domain, error)))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(pluggable); i++)
        if (!strcmp(pluggable[i].element, name))
            return pluggable[i].build(&b->a, error);
    return vm_no_hot_plug(v, b->own, "added", error);
}

bool vm_build_device(struct vm *v, const struct xml_node *device, struct vm_build *b,
                     GError **error)
{
    b->doc = domain_with(v, device, &b->own);
    vm_args_init(&b->a, b->doc, v->ours);
    b->ops = vm_host_ops;
    b->ops.free_port = no_port;
    b->a.dir = v->dir;
    b->a.live = true;
    b->a.tls_dir = manager.tls_dir;
    b->a.tls_secret = manager.tls_secret;
    b->a.ops = &b->ops;
    b->a.opaque = v;
    b->a.fdsets = 1000 + v->plugged++ % FDSET_ROUNDS * FDSETS; /* behind the command line's */
    return build(v, b, error);
}

void vm_build_done(struct vm_build *b)
{
    if (b->doc) {
        vm_args_done(&b->a);
        xml_free(b->doc);
    }
    *b = (struct vm_build){0};
}

/* What the host made for it, and what its network chose. */
static void take_host_names(struct xml_node *device, const struct xml_node *own)
{
    static const char *const paths[] = {"source@portid", "source@bridge", "source@dev",
                                        "source@mode", "@type"};
    xml_set(device, "target@dev", xml_get(own, "target@dev"));
    for (size_t i = 0; xml_get(own, "source@portid") && i < G_N_ELEMENTS(paths); i++)
        if (xml_get(own, paths[i]))
            xml_set(device, paths[i], xml_get(own, paths[i]));
}

void vm_take_chain(struct xml_node *disk, const struct xml_node *own)
{
    struct xml_node *chain = xml_find(own, "backingStore"), *source = xml_find(own, "source");
    if (xml_is(disk, "@type", "volume") && source) {
        xml_remove(disk, "source");
        xml_append(disk, xml_copy(source));
    }
    while (xml_find(disk, "backingStore"))
        xml_remove(disk, "backingStore");
    if (chain)
        xml_append(disk, xml_copy(chain));
}

/* What the host made for one that did not come. */
static void give_back(struct vm *v, const struct xml_node *own)
{
    if (strcmp(own->name, "interface"))
        return;
    network_unplug(v->d->uuid, xml_get(own, "mac@address"));
    if (xml_get(own, "target@dev"))
        filter_unplug(xml_get(own, "target@dev"));
}

/* A manager that was killed may have left what a device of this name stood on. */
static void clear_place(struct vm *v, const struct vm_build *b)
{
    char **argv = (char **)b->a.argv->pdata;
    for (guint k = b->a.argv->len; k >= 2; k -= 2) {
        int w = find_word(argv[k - 2]);
        if (w >= 0 && words[w].fn != add_device)
            undo(v, argv[k - 2], argv[k - 1]);
    }
}

static bool attach(struct vm *v, struct vm_change *c, GError **error)
{
    struct vm_build b = {0};
    bool ok = vm_build_device(v, c->device, &b, error);
    if (ok && xml_get(b.own, "target@dev"))
        take_host_names(c->device, b.own);
    if (ok && !strcmp((const char *)b.own->name, "disk"))
        vm_take_chain(c->device, b.own);
    ok = ok && c->made(c->opaque, error);
    if (ok)
        clear_place(v, &b);
    ok = ok && vm_add_built(v, &b, true, error);
    if (!ok && b.own)
        vm_explain_secrets(b.a.domain, error);
    if (!ok && b.own)
        give_back(v, b.own);
    vm_build_done(&b);
    return ok;
}

bool vm_device(struct vm *v, struct vm_change *c, GError **error)
{
    auto_vm *keep = vm_ref(v);
    if (!v->d || !v->d->live)
        return ruche_error(error, MANAGER_ERR_MACHINE, "machine '%s' does not run", v->name);
    bool ok = c->before ? vm_update(keep, c, error) : attach(keep, c, error);
    keep->answers[VM_ASK_NODES].at_us = keep->answers[VM_ASK_BLOCKSTATS].at_us = 0;
    return ok;
}
