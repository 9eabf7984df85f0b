/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Devices come and go: the kernel's events, and ours of them.
 *
 * Spec      NETLINK_KOBJECT_UEVENT: the kernel's group 1 ("ACTION@PATH", then KEY=VALUE), udev's
 *           group 2 ("libudev", a head, then KEY=VALUE), where it runs: it tells when links and
 *           names are ready.
 * Thread    The loop thread. A burst of events is one look at /sys.
 * Trust     Only messages of the kernel or of root count. Lengths are checked before use.
 */
#include "base/log.h"
#include "manager/node/device.h"
#include "manager/node/sysfs.h"

#include <errno.h>
#include <glib-unix.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    KERNEL_GROUP = 1,
    UDEV_GROUP = 2,
    MESSAGE_MAX = 16384,
    ROOM = 8 << 20,
    CALM_MS = 100,
    BURST_MAX = 1024
};
#define UDEV_MAGIC 0xfeedcafe

static int fd = -1;
static guint source, calm;
static GHashTable *known;   /* names to paths */
static GHashTable *changed; /* paths that have changed */

void node_device_emit(const char *name, int id, int event)
{
    const struct event e = {
        .class = EVENT_NODE_DEVICE, .id = id, .name = name, .object_id = -1, .event = event};
    event_emit(&e);
}

/* ---- what came and went ---- */

static GHashTable *look(void)
{
    g_autoptr(GPtrArray) all = node_devices(&caller_self, NODE_DEVICES_ACTIVE);
    GHashTable *found = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    for (unsigned i = 0; i < all->len; i++) {
        const struct node_device *d = all->pdata[i];
        g_hash_table_insert(found, g_strdup(d->name), g_strdup(d->path ? d->path : ""));
    }
    return found;
}

/* Those of `list` that `other` has not. */
static void tell(GHashTable *list, GHashTable *other, int event)
{
    GHashTableIter it;
    const char *name;
    g_hash_table_iter_init(&it, list);
    while (g_hash_table_iter_next(&it, (gpointer *)&name, NULL))
        if (!g_hash_table_contains(other, name))
            node_device_emit(name, 0, event);
}

static void tell_changed(void)
{
    GHashTableIter it;
    const char *name, *path;
    g_hash_table_iter_init(&it, known);
    while (g_hash_table_iter_next(&it, (gpointer *)&name, (gpointer *)&path))
        if (g_hash_table_contains(changed, path))
            node_device_emit(name, 1, 0);
    g_hash_table_remove_all(changed);
}

void node_device_rescan(void)
{
    if (!known)
        return;
    GHashTable *now = look(), *before = known;
    known = now;
    tell(before, now, NODE_DEVICE_DELETED);
    tell(now, before, NODE_DEVICE_CREATED);
    g_hash_table_unref(before);
    tell_changed();
}

static gboolean is_calm(gpointer opaque)
{
    calm = 0;
    node_device_rescan();
    return G_SOURCE_REMOVE;
}

/* ---- the kernel's messages ---- */

struct udev_head {
    char prefix[8];
    uint32_t magic, head_bytes, properties_at, properties_bytes;
};

/* KEY=VALUE strings that end with zeroes, at [from, to). */
static void take_properties(const char *from, const char *to)
{
    const char *action = NULL, *path = NULL;
    for (const char *p = from; p < to;) {
        size_t len = strnlen(p, (size_t)(to - p));
        if (p + len == to)
            break;
        if (g_str_has_prefix(p, "ACTION="))
            action = p + strlen("ACTION=");
        else if (g_str_has_prefix(p, "DEVPATH="))
            path = p + strlen("DEVPATH=");
        p += len + 1;
    }
    bool changes = action && strcmp(action, "add") != 0 && strcmp(action, "remove") != 0;
    if (changes && path && g_hash_table_size(changed) < BURST_MAX)
        g_hash_table_add(changed, g_strconcat("/sys", path, NULL));
    if (!calm)
        calm = g_timeout_add(CALM_MS, is_calm, NULL);
}

static void take(const char *data, size_t len)
{
    struct udev_head h;
    if (len > sizeof(h) && !memcmp(data, "libudev", sizeof("libudev"))) {
        memcpy(&h, data, sizeof(h));
        if (g_ntohl(h.magic) == UDEV_MAGIC && h.properties_at <= len &&
            h.properties_bytes <= len - h.properties_at)
            take_properties(data + h.properties_at, data + h.properties_at + h.properties_bytes);
    } else if (memchr(data, 0, len)) {
        take_properties(data + strlen(data) + 1, data + len);
    }
}

static bool is_trusted(struct msghdr *m, const struct sockaddr_nl *from)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        struct ucred who;
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
            continue;
        memcpy(&who, CMSG_DATA(c), sizeof(who));
        return who.uid == 0 && (from->nl_groups != KERNEL_GROUP || !from->nl_pid);
    }
    return false;
}

static gboolean readable(int socket, GIOCondition condition, gpointer opaque)
{
    static char data[MESSAGE_MAX];
    char control[CMSG_SPACE(sizeof(struct ucred))];
    for (int i = 0; i < BURST_MAX; i++) {
        struct sockaddr_nl from = {0};
        struct iovec v = {data, sizeof(data) - 1};
        struct msghdr m = {.msg_name = &from,
                           .msg_namelen = sizeof(from),
                           .msg_iov = &v,
                           .msg_iovlen = 1,
                           .msg_control = control,
                           .msg_controllen = sizeof(control)};
        ssize_t len = recvmsg(socket, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (len < 0 && errno == ENOBUFS &&
            !calm) /* some were lost: the look at /sys finds what they were */
            calm = g_timeout_add(CALM_MS, is_calm, NULL);
        if (len < 0)
            return G_SOURCE_CONTINUE;
        data[len] = 0;
        if (is_trusted(&m, &from))
            take(data, (size_t)len);
    }
    return G_SOURCE_CONTINUE;
}

/* ---- with the manager ---- */

static bool listen_to(unsigned group)
{
    struct sockaddr_nl at = {.nl_family = AF_NETLINK, .nl_groups = group};
    int on = 1, room = ROOM;
    fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
        return false;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
    source = g_unix_fd_add(fd, G_IO_IN, readable, NULL);
    return true;
}

/* Without events devices are listed all the same. */
bool node_device_watch(GError **error)
{
    bool udev = access("/run/udev/control", F_OK) == 0;
    if (!listen_to(udev ? UDEV_GROUP : KERNEL_GROUP))
        log_warn("no events of devices: %s", g_strerror(errno));
    changed = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    known = look();
    return true;
}

void node_device_unwatch(void)
{
    g_clear_handle_id(&source, g_source_remove);
    g_clear_handle_id(&calm, g_source_remove);
    if (fd >= 0)
        close(fd);
    fd = -1;
    g_clear_pointer(&known, g_hash_table_unref);
    g_clear_pointer(&changed, g_hash_table_unref);
}
