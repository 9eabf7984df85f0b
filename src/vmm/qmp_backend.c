/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: networks and character backends that come and go while the machine runs. */
#include "vmm/hotplug.h"

#include "chardev/chardev.h"
#include "machine/backends.h"
#include "netdev/netdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- networks ---- */

struct taken {
    int fd, copy; /* ours; what the backend was given by number */
};

static bool same_file(int a, int b)
{
    pid_t self = getpid();
    return syscall(SYS_kcmp, self, self, KCMP_FILE, (unsigned long)a, (unsigned long)b) == 0;
}

/* A backend that failed may or may not have closed what it was given, and the number may be another
 * file's by now. */
static void settle(GArray *taken, bool ok)
{
    for (guint i = 0; i < taken->len; i++) {
        struct taken *t = &g_array_index(taken, struct taken, i);
        if (!ok && same_file(t->fd, t->copy))
            close(t->copy);
        close(t->fd);
    }
    g_array_set_size(taken, 0);
}

/* "fd=NAME" and "fds=A:B" of getfd become numbers; `ret_taken` is for settle(). */
static bool resolve_fds(struct vmm *v, struct kv_list *l, GArray *ret_taken, GError **error)
{
    for (size_t i = 0; i < l->count; i++) {
        struct kv *pair = &l->pairs[i];
        if ((strcmp(pair->key, "fd") && strcmp(pair->key, "fds")) ||
            g_ascii_isdigit(pair->value[0]))
            continue;
        g_auto(GStrv) names = g_strsplit(pair->value, ":", -1);
        g_autoptr(GString) numbers = g_string_new(NULL);
        for (char **n = names; *n; n++) {
            struct taken t = {.fd = hotplug_take_fd(v, *n, error)};
            if (t.fd < 0)
                return false;
            t.copy = fcntl(t.fd, F_DUPFD_CLOEXEC, 0);
            g_array_append_val(ret_taken, t);
            if (t.copy < 0)
                return ruche_error_errno(error, errno, "descriptor '%s'", *n);
            g_string_append_printf(numbers, "%s%d", n == names ? "" : ":", t.copy);
        }
        g_free(pair->value);
        pair->value = g_strdup(numbers->str);
    }
    return true;
}

static bool add_netdev(struct vmm *v, struct kv_list *l, GError **error)
{
    g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(struct taken));
    struct netdev *n = NULL;
    if (kv_check_id(kv_get(l, "id"), error) && resolve_fds(v, l, taken, error))
        n = build_netdev(v, l, error);
    settle(taken, n);
    return n && backend_add(v->machine, BACKEND_NETDEV, n->id, n);
}

static JsonNode *netdev_add(void *opaque, JsonObject *args, GError **error)
{
    auto_kv *l = hotplug_args(args, error);
    if (l)
        add_netdev(opaque, l, error);
    return NULL;
}
static const struct qmp_arg netdev_add_args[] = {
    {"type", QMP_STRING, false, "The backend's kind"},
    {"id", QMP_STRING, false, "Its id"},
    {"*", QMP_ANY, true, "Its options, as -netdev's; fd= and fds= take names of getfd"},
    {0},
};
static const struct qmp_command netdev_add_cmd = {
    .name = "netdev_add",
    .summary = "Add a network backend",
    .args = netdev_add_args,
    .call = netdev_add,
};
QMP_COMMAND(netdev_add_cmd);

static JsonNode *netdev_del(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *id = json_object_get_string_member(args, "id");
    for (guint i = 0; i < v->netdevs->len; i++) {
        struct netdev *n = g_ptr_array_index(v->netdevs, i);
        if (strcmp(n->id, id))
            continue;
        if (!netdev_unplug(n)) {
            ruche_error(error, RUCHE_ERR_BUSY,
                        "network backend '%s' is in use by a device; take that out first", id);
            return NULL;
        }
        backend_remove(v->machine, BACKEND_NETDEV, id);
        g_ptr_array_remove_index(v->netdevs, i); /* frees it */
        return NULL;
    }
    ruche_error(error, RUCHE_ERR_NOT_FOUND, "Device '%s' not found", id);
    return NULL;
}
static const struct qmp_arg id_args[] = {{"id", QMP_STRING, false, "Its id"}, {0}};
static const struct qmp_command netdev_del_cmd = {
    .name = "netdev_del",
    .summary = "Take a network backend out; a card that has it loses its link",
    .args = id_args,
    .call = netdev_del,
};
QMP_COMMAND(netdev_del_cmd);

/* ---- character backends ---- */

/* How the members of a ChardevBackend's "data" are called on -chardev; others keep their names.
 * NULL: left out. */
static const struct {
    const char *from, *to;
} renamed[] = {
    {"out", "path"},
    {"device", "path"},
    {"addr.type", NULL},
    {"addr.data.path", "path"},
    {"addr.data.host", "host"},
    {"addr.data.port", "port"},
    {"addr.data.str", "fd"},
};

static const char *plain_name(const char *key)
{
    for (size_t i = 0; i < G_N_ELEMENTS(renamed); i++)
        if (!strcmp(renamed[i].from, key))
            return renamed[i].to;
    return g_str_has_prefix(key, "addr.data.") ? key + strlen("addr.data.") : key;
}

/* {"id":, "backend": {"type":, "data": {}}} as -chardev's list. */
static struct kv_list *chardev_list(struct vmm *v, JsonObject *args, GArray *taken, GError **error)
{
    auto_kv *all = hotplug_args(args, error);
    struct kv_list *l = all ? kv_parse("", NULL, error) : NULL;
    const char *type = all ? kv_get(all, "backend.type") : NULL;
    bool ok = l && (type || ruche_error(error, RUCHE_ERR_INVALID, "'backend' has no 'type'")) &&
              kv_check_id(kv_get(all, "id"), error) && kv_add(l, "backend", type, error) &&
              kv_add(l, "id", kv_get(all, "id"), error);
    /* A socket serves unless told otherwise, here; and nobody waits for its client. */
    if (ok && !strcmp(type, "socket")) {
        const char *server = kv_get(all, "backend.data.server"),
                   *wait = kv_get(all, "backend.data.wait");
        bool serves = !server || !strcmp(server, "on");
        ok = (server || kv_add(l, "server", "on", error)) &&
             (wait || !serves || kv_add(l, "wait", "off", error));
    }
    for (size_t i = 0; ok && i < all->count; i++) {
        const char *key = all->pairs[i].key;
        const char *name = g_str_has_prefix(key, "backend.data.")
                               ? plain_name(key + strlen("backend.data."))
                               : NULL;
        ok = !name || kv_add(l, name, all->pairs[i].value, error);
    }
    if (ok && resolve_fds(v, l, taken, error))
        return l;
    kv_list_free(l);
    return NULL;
}

/* What the two answer with. */
static JsonNode *pty_of(const struct chardev *c)
{
    JsonObject *o = json_object_new();
    g_autofree char *where = chardev_describe(c);
    const char *pty = strstr(where, "pty:"); /* "disconnected:pty:" until somebody opens it */
    if (pty && (pty == where || g_str_has_prefix(where, "disconnected:pty:")))
        json_object_set_string_member(o, "pty", pty + strlen("pty:"));
    return qmp_object(o);
}

static JsonNode *chardev_add(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(struct taken));
    auto_kv *l = chardev_list(v, args, taken, error);
    struct chardev *c = l ? build_chardev(v, l, error) : NULL;
    settle(taken, c);
    if (!c)
        return NULL;
    backend_add(v->machine, BACKEND_CHARDEV, chardev_id(c), c);
    return pty_of(c);
}
static const struct qmp_arg chardev_add_args[] = {
    {"id", QMP_STRING, false, "Its id"},
    {"backend", QMP_OBJECT, false, "type: its kind; data: its options"},
    {0},
};
static const struct qmp_command chardev_add_cmd = {
    .name = "chardev-add",
    .summary = "Add a character backend",
    .args = chardev_add_args,
    .call = chardev_add,
};
QMP_COMMAND(chardev_add_cmd);

/* The backend, when nobody uses it. */
static struct chardev *idle_chardev(struct vmm *v, const char *id, GError **error)
{
    struct chardev *c = vmm_find_chardev(v, id);
    if (!c)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "Chardev '%s' not found", id);
    else if (chardev_in_use(c))
        ruche_error(error, RUCHE_ERR_BUSY, "Chardev '%s' is busy", id);
    else
        return c;
    return NULL;
}

static void forget_chardev(struct vmm *v, struct chardev *c)
{
    backend_remove(v->machine, BACKEND_CHARDEV, chardev_id(c));
    g_ptr_array_remove(v->chardevs, c); /* frees it */
}

static JsonNode *chardev_remove(void *opaque, JsonObject *args, GError **error)
{
    struct chardev *c = idle_chardev(opaque, json_object_get_string_member(args, "id"), error);
    if (c)
        forget_chardev(opaque, c);
    return NULL;
}
static const struct qmp_command chardev_remove_cmd = {
    .name = "chardev-remove",
    .summary = "Take a character backend out",
    .args = id_args,
    .call = chardev_remove,
};
QMP_COMMAND(chardev_remove_cmd);

/* The new one is made first: when that fails, the device goes on with the old one. */
static JsonNode *change_in_use(struct vmm *v, struct chardev *c, JsonObject *args, GError **error)
{
    if (!chardev_replaceable(c, error))
        return NULL;
    g_autoptr(GArray) taken = g_array_new(FALSE, FALSE, sizeof(struct taken));
    auto_kv *l = chardev_list(v, args, taken, error);
    struct chardev *fresh = l ? build_chardev_alone(v, l, error) : NULL;
    settle(taken, fresh);
    if (fresh && chardev_replace(c, fresh, error))
        return pty_of(c);
    chardev_free(fresh);
    return NULL;
}

/* One that nobody uses goes before the new one comes, as both may want the same file or port; when the new one cannot
 * be made, the old one is gone too. */
static JsonNode *chardev_change(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *id = json_object_get_string_member(args, "id");
    struct chardev *c = vmm_find_chardev(v, id);
    if (!c) {
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "Chardev '%s' not found", id);
        return NULL;
    }
    if (chardev_in_use(c))
        return change_in_use(v, c, args, error);
    forget_chardev(v, c);
    return chardev_add(v, args, error);
}
static const struct qmp_command chardev_change_cmd = {
    .name = "chardev-change",
    .summary = "Another backend under the same id, also under a device that uses it",
    .args = chardev_add_args,
    .call = chardev_change,
};
QMP_COMMAND(chardev_change_cmd);
