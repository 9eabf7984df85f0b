/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the guest's memory, and the state of network cables. */
#include "devices/virtio/balloon.h"
#include "netdev/netdev.h"
#include "qmp/errors.h"
#include "vmm/qmp_util.h"

#include <string.h>

static struct device *need_balloon(struct vmm *v, GError **error)
{
    struct device *d = balloon_find(v->machine);
    if (!d) {
        /* QEMU's class for it: clients tell this from other failures. */
        g_set_error(error, QMP_DEVICE_NOT_ACTIVE, 0,
                    "No balloon device has been activated: add -device virtio-balloon-pci");
    }
    return d;
}

static JsonNode *balloon(void *opaque, JsonObject *args, GError **error)
{
    struct device *d = need_balloon(opaque, error);
    gint64 bytes = json_object_get_int_member(args, "value");
    if (d && bytes <= 0)
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'value' must be a number of bytes, not %" G_GINT64_FORMAT, bytes);
    else if (d)
        balloon_set_target(d, (uint64_t)bytes);
    return NULL;
}
static const struct qmp_arg balloon_args[] = {
    {"value", QMP_INT, false, "Bytes that the guest shall have"}, {0}};
static const struct qmp_command balloon_cmd = {
    .name = "balloon",
    .summary = "Ask the guest to give memory back, or to take it",
    .args = balloon_args,
    .call = balloon};
QMP_COMMAND(balloon_cmd);

static JsonNode *query_balloon(void *opaque, JsonObject *args, GError **error)
{
    struct device *d = need_balloon(opaque, error);
    if (!d)
        return NULL;
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "actual", (gint64)balloon_actual(d));
    return qmp_object(o);
}
static const struct qmp_command query_balloon_cmd = {
    .name = "query-balloon", .summary = "Memory that the guest has", .call = query_balloon};
QMP_COMMAND(query_balloon_cmd);

static const struct qmp_arg change_data[] = {
    {"actual", QMP_INT, false, "Bytes that the guest has now"}, {0}};
static const struct qmp_event_type change_event = {
    .name = "BALLOON_CHANGE",
    .summary = "The guest gave memory back, or took it",
    .data = change_data,
    .limit_by = "",
};
QMP_EVENT(change_event);

/* ---- the properties that qom-get and qom-set reach ---- */

static JsonNode *guest_stats(struct device *d)
{
    struct balloon_stats s;
    JsonObject *o = json_object_new(), *stats = json_object_new();
    balloon_get_stats(d, &s);
    for (unsigned i = 0; i < BALLOON_STATS; i++)
        json_object_set_int_member(stats, balloon_stat_names[i], s.value[i]);
    json_object_set_object_member(o, "stats", stats);
    json_object_set_int_member(o, "last-update", s.updated_s);
    return qmp_object(o);
}

bool qmp_balloon_path(struct vmm *v, const char *path)
{
    struct device *d = balloon_find(v->machine);
    const char *id = d && d->id ? d->id : NULL, *name = strrchr(path, '/');
    return id && !strcmp(name ? name + 1 : path, id) &&
           (!name || g_str_has_prefix(path, "/machine/peripheral/"));
}

JsonNode *qmp_balloon_get(struct vmm *v, const char *name, GError **error)
{
    struct device *d = balloon_find(v->machine);
    if (!strcmp(name, "guest-stats"))
        return guest_stats(d);
    if (!strcmp(name, "guest-stats-polling-interval"))
        return json_node_init_int(json_node_alloc(), balloon_poll_s(d));
    ruche_error(
        error, RUCHE_ERR_UNKNOWN,
        "the balloon has no property '%s' but 'guest-stats' and 'guest-stats-polling-interval'",
        name);
    return NULL;
}

bool qmp_balloon_set(struct vmm *v, const char *name, JsonNode *value, GError **error)
{
    gint64 n = JSON_NODE_HOLDS_VALUE(value) ? json_node_get_int(value) : -1;
    if (strcmp(name, "guest-stats-polling-interval"))
        return ruche_error(error, RUCHE_ERR_UNKNOWN,
                           "the balloon has no property '%s' that can be set", name);
    if (n < 0 || n > 86400)
        return ruche_error(error, RUCHE_ERR_INVALID, "'%s' is a number of seconds from 0 to 86400",
                           name);
    balloon_set_poll(balloon_find(v->machine), (unsigned)n);
    return true;
}

/* ---- cables ---- */

/* By the backend's id, or the id of the device that uses it. */
static struct netdev *find_netdev(struct vmm *v, const char *name)
{
    struct device *d = machine_find_device(v->machine, name);
    g_autofree char *backend =
        d && g_str_has_prefix(d->type->name, "virtio-net") ? device_get(d, "netdev") : NULL;
    for (guint i = 0; i < v->netdevs->len; i++) {
        struct netdev *n = g_ptr_array_index(v->netdevs, i);
        if (!strcmp(n->id, backend ? backend : name))
            return n;
    }
    return NULL;
}

struct link_change {
    struct netdev *netdev;
    bool up;
};

static void change_link(void *opaque)
{
    struct link_change *c = opaque;
    netdev_set_link(c->netdev, c->up);
}

static JsonNode *set_link(void *opaque, JsonObject *args, GError **error)
{
    struct vmm *v = opaque;
    const char *name = json_object_get_string_member(args, "name");
    struct link_change c = {find_netdev(v, name), json_object_get_boolean_member(args, "up")};
    if (!c.netdev)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no network device or backend '%s'", name);
    else if (c.netdev->loop && c.netdev->loop != v->loop)
        loop_call(c.netdev->loop, change_link, &c);
    else
        change_link(&c);
    return NULL;
}
static const struct qmp_arg set_link_args[] = {
    {"name", QMP_STRING, false, "A network device or backend"},
    {"up", QMP_BOOL, false, "Is the cable in?"},
    {0}};
static const struct qmp_command set_link_cmd = {.name = "set_link",
                                                .summary = "Put a network cable in, or out",
                                                .args = set_link_args,
                                                .call = set_link};
QMP_COMMAND(set_link_cmd);
