/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which devices there are: folders of /sys, and whose child each is. See device.h. */
#include "manager/node/device.h"

#include "manager/node/sysfs.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICES_MAX = 16384 };

static const char *const cap_names[DEVICE_CAPS] = {
    "system",  "pci",     "usb_device", "usb",          "net", "scsi_host",  "scsi_target", "scsi",
    "storage", "fc_host", "vports",     "scsi_generic", "drm", "mdev_types", "mdev",
};

const char *node_device_cap_name(enum device_cap cap)
{
    return cap < DEVICE_CAPS ? cap_names[cap] : NULL;
}

void node_device_free(struct node_device *d)
{
    if (!d)
        return;
    g_free(d->name);
    g_free(d->path);
    g_free(d->parent);
    g_free(d->text);
    g_free(d);
}

/* Where an entry of a class or bus points to, as a path that begins with /sys; NULL: nowhere. */
static char *resolve(const char *folder, const char *entry)
{
    g_autofree char *wanted = g_strdup_printf("%s/%s", folder, entry);
    g_autofree char *full = sysfs_path(wanted), *top = sysfs_path("/sys");
    g_autofree char *real_top = realpath(top, NULL), *real = realpath(full, NULL);
    size_t len = real_top ? strlen(real_top) : 0;
    if (!real || !len || strncmp(real, real_top, len) != 0 || real[len] != '/')
        return NULL;
    return g_strconcat("/sys", real + len, NULL);
}

static bool has(const char *path, const char *file)
{
    g_autofree char *full = g_strdup_printf("%s/%s", path, file);
    return sysfs_exists(full);
}

/* A name's words by '_', as libvirt does. */
static char *make_name(const char *prefix, const char *entry, const char *more)
{
    char *name = g_strdup_printf("%s_%s%s%s", prefix, entry, more ? "_" : "", more ? more : "");
    for (char *c = name; *c; c++)
        if (!g_ascii_isalnum(*c))
            *c = '_';
    return name;
}

typedef bool device_fn(struct node_device *d, const char *entry);

static bool is_pci(struct node_device *d, const char *entry)
{
    d->name = make_name("pci", entry, NULL);
    if (has(d->path, "mdev_supported_types"))
        d->caps |= 1u << DEVICE_MDEV_TYPES;
    return true;
}

static bool is_usb(struct node_device *d, const char *entry)
{
    d->name = make_name("usb", entry, NULL);
    d->kind = strchr(entry, ':') ? DEVICE_USB_INTERFACE : DEVICE_USB;
    return true;
}

static bool is_net(struct node_device *d, const char *entry)
{
    g_autofree char *mac = sysfs_read("%s/address", d->path);
    d->name = make_name("net", entry, mac && *mac ? mac : NULL);
    return true;
}

static bool is_scsi(struct node_device *d, const char *entry)
{
    d->name = make_name("scsi", entry, NULL);
    if (g_str_has_prefix(entry, "target"))
        d->kind = DEVICE_SCSI_TARGET;
    else if (!g_ascii_isdigit(*entry))
        return false; /* hosts are looked for by their class */
    return true;
}

static bool is_scsi_host(struct node_device *d, const char *entry)
{
    g_autofree char *fc = g_strdup_printf("/sys/class/fc_host/%s", entry);
    d->name = make_name("scsi", entry, NULL);
    if (sysfs_exists(fc))
        d->caps |= 1u << DEVICE_FC_HOST;
    return true;
}

/* What stands on a device, and is no partition. */
static bool is_storage(struct node_device *d, const char *entry)
{
    g_autofree char *serial = node_device_text(d, "serial");
    if (!serial)
        serial = node_device_text(d, "device/serial");
    d->name = make_name("block", entry, serial);
    return has(d->path, "device") && !has(d->path, "partition");
}

static bool is_mdev(struct node_device *d, const char *entry)
{
    d->name = make_name("mdev", entry, NULL);
    return true;
}

static bool is_scsi_generic(struct node_device *d, const char *entry)
{
    d->name = make_name("scsi_generic", entry, NULL);
    return true;
}

/* Not the connectors of a card. */
static bool is_drm(struct node_device *d, const char *entry)
{
    d->name = make_name("drm", entry, NULL);
    return node_device_drm_type(entry) != NULL;
}

static const struct {
    const char *folder;
    enum device_cap kind;
    device_fn *fn;
} places[] = {
    {"/sys/bus/pci/devices", DEVICE_PCI, is_pci},
    {"/sys/bus/usb/devices", DEVICE_USB, is_usb},
    {"/sys/class/net", DEVICE_NET, is_net},
    {"/sys/bus/scsi/devices", DEVICE_SCSI, is_scsi},
    {"/sys/class/scsi_host", DEVICE_SCSI_HOST, is_scsi_host},
    {"/sys/class/block", DEVICE_STORAGE, is_storage},
    {"/sys/class/scsi_generic", DEVICE_SCSI_GENERIC, is_scsi_generic},
    {"/sys/class/drm", DEVICE_DRM, is_drm},
    {"/sys/bus/mdev/devices", DEVICE_MDEV, is_mdev},
};

static void look_in(GPtrArray *found, unsigned place)
{
    g_autofree char *full = sysfs_path(places[place].folder);
    g_autoptr(GDir) dir = g_dir_open(full, 0, NULL);
    for (const char *entry; dir && found->len < DEVICES_MAX && (entry = g_dir_read_name(dir));) {
        struct node_device *d = g_new0(struct node_device, 1);
        d->kind = places[place].kind;
        d->active = true;
        d->path = resolve(places[place].folder, entry);
        if (!d->path || !g_utf8_validate(entry, -1, NULL) || !places[place].fn(d, entry)) {
            node_device_free(d);
            continue;
        }
        d->caps |= 1u << d->kind;
        g_ptr_array_add(found, d);
    }
}

/* The nearest device above. */
static const char *parent_of(GHashTable *by_path, const char *path)
{
    g_autofree char *up = g_strdup(path);
    for (char *slash; (slash = strrchr(up, '/')) && slash > up;) {
        *slash = 0;
        const struct node_device *d = g_hash_table_lookup(by_path, up);
        /* /sys/devices/.../host0/scsi_host/host0 is what the class points to */
        g_autofree char *host = g_strdup_printf("%s/scsi_host/%s", up, strrchr(up, '/') + 1);
        if (!d && strcmp(host, path) != 0)
            d = g_hash_table_lookup(by_path, host);
        if (d)
            return d->name;
    }
    return "computer";
}

static int by_name(gconstpointer a, gconstpointer b)
{
    return strcmp((*(struct node_device *const *)a)->name, (*(struct node_device *const *)b)->name);
}

static GPtrArray *look(void)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)node_device_free);
    g_autoptr(GHashTable) by_path = g_hash_table_new(g_str_hash, g_str_equal);
    struct node_device *computer = g_new0(struct node_device, 1);
    computer->name = g_strdup("computer");
    computer->caps = 1u << DEVICE_SYSTEM;
    computer->active = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++)
        look_in(all, i);
    for (unsigned i = 0; i < all->len; i++)
        g_hash_table_insert(by_path, ((struct node_device *)all->pdata[i])->path, all->pdata[i]);
    for (unsigned i = 0; i < all->len; i++) {
        struct node_device *d = all->pdata[i];
        d->parent = g_strdup(parent_of(by_path, d->path));
    }
    g_ptr_array_add(all, computer);
    node_device_add_defined(all);
    g_ptr_array_sort(all, by_name);
    return all;
}

GPtrArray *node_devices(const struct caller *who, unsigned list_flags)
{
    unsigned wanted = list_flags & (NODE_DEVICES_INACTIVE - 1);
    unsigned state = list_flags & ~(NODE_DEVICES_INACTIVE - 1u);
    GPtrArray *all = look();
    bool allowed = access_check(who, RIGHT_READ, "list node devices", NULL);
    for (unsigned i = all->len; i--;) {
        const struct node_device *d = all->pdata[i];
        unsigned its = d->active ? NODE_DEVICES_ACTIVE : NODE_DEVICES_INACTIVE;
        if (!allowed || (state && !(state & its)) || (wanted && !(wanted & d->caps)))
            g_ptr_array_remove_index(all, i);
    }
    return all;
}

GPtrArray *node_devices_of(const struct caller *who, const char *cap, GError **error)
{
    for (unsigned i = 0; cap && i < DEVICE_CAPS; i++)
        if (!strcmp(cap_names[i], cap))
            return node_devices(who, 1u << i | NODE_DEVICES_ACTIVE);
    if (!cap)
        return node_devices(who, NODE_DEVICES_ACTIVE);
    ruche_error(error, RUCHE_ERR_INVALID, "'%.64s' is not a capability of node devices", cap);
    return NULL;
}

struct node_device *node_device_find(const struct caller *who, const char *name, GError **error)
{
    g_autoptr(GPtrArray) all = node_devices(who, 0);
    for (unsigned i = 0; i < all->len; i++)
        if (!strcmp(((struct node_device *)all->pdata[i])->name, name))
            return g_ptr_array_steal_index(all, i);
    ruche_error(error, MANAGER_ERR_NO_NODE_DEVICE, "no node device with matching name '%.255s'",
                name);
    return NULL;
}

static bool has_wwn(const struct node_device *d, const char *file, const char *wwn)
{
    g_autofree char *text = sysfs_read("/sys/class/fc_host/%s/%s", strrchr(d->path, '/') + 1, file);
    return text && !g_ascii_strcasecmp(g_str_has_prefix(text, "0x") ? text + 2 : text,
                                       g_str_has_prefix(wwn, "0x") ? wwn + 2 : wwn);
}

struct node_device *node_device_find_wwn(const struct caller *who, const char *wwnn,
                                         const char *wwpn, GError **error)
{
    g_autoptr(GPtrArray) all = node_devices(who, 1u << DEVICE_FC_HOST);
    for (unsigned i = 0; i < all->len; i++)
        if (has_wwn(all->pdata[i], "node_name", wwnn) && has_wwn(all->pdata[i], "port_name", wwpn))
            return g_ptr_array_steal_index(all, i);
    ruche_error(error, MANAGER_ERR_NO_NODE_DEVICE,
                "no SCSI host with WWNN '%.64s' and WWPN '%.64s'", wwnn, wwpn);
    return NULL;
}
