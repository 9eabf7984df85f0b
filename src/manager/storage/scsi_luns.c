/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Logical units of a SCSI host. See scsi_luns.h. */
#include "manager/storage/scsi_luns.h"

#include "base/fd.h"
#include "manager/netlink.h"
#include "manager/node/sysfs.h"
#include "manager/storage/storage_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { LOOK_MS = 250, KERNEL_UEVENTS = 1 };
unsigned scsi_luns_wait_ms = 10000;

struct lun {
    unsigned bus, target, lun;
    char *device, *path, *serial;
};
struct lun_scan {
    unsigned host;
    char *folder;
    GPtrArray *luns;
    GHashTable *in_vain; /* what pool.waited_for is, or becomes */
};

static void lun_free(void *opaque)
{
    struct lun *l = opaque;
    g_free(l->device);
    g_free(l->path);
    g_free(l->serial);
    g_free(l);
}

static void scan_free(void *opaque)
{
    struct lun_scan *s = opaque;
    g_ptr_array_unref(s->luns);
    g_hash_table_unref(s->in_vain);
    g_free(s->folder);
    g_free(s);
}

/* The unit serial number (vital product data, page 0x80): 4 bytes of head, then text. */
static char *read_serial(const char *unit)
{
    g_autofree char *name = g_strdup_printf("/sys/bus/scsi/devices/%s/vpd_pg80", unit);
    g_autofree char *path = sysfs_path(name);
    uint8_t data[256];
    autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, data, sizeof(data));
    if (n < 5)
        return NULL;
    size_t length = MIN((size_t)n - 4, (size_t)data[2] << 8 | data[3]);
    char *text = g_strndup((char *)data + 4, length);
    for (char *c = text; *c; c++)
        if (!g_ascii_isgraph(*c))
            *c = ' ';
    return g_strstrip(text);
}

/* The only entry of .../block. */
static char *block_name(const char *unit)
{
    g_autofree char *name = g_strdup_printf("/sys/bus/scsi/devices/%s/block", unit);
    g_autofree char *path = sysfs_path(name);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    return dir ? g_strdup(g_dir_read_name(dir)) : NULL;
}

/* Types of peripheral devices (SPC-4, standard INQUIRY data) that the kernel's driver of disks
 * takes: disks, optical ones, simplified ones, those of zones. */
static bool is_of_sd(uint64_t kind)
{
    return kind == 0 || kind == 7 || kind == 0x0e || kind == 0x14;
}

/* Whether it is a disk of this host; its place then. */
static bool read_unit(const struct lun_scan *s, const char *unit, struct lun *ret)
{
    unsigned host;
    uint64_t kind;
    char rest;
    return sscanf(unit, "%u:%u:%u:%u%c", &host, &ret->bus, &ret->target, &ret->lun, &rest) == 4 &&
           host == s->host && sysfs_read_u64(&kind, "/sys/bus/scsi/devices/%s/type", unit) &&
           is_of_sd(kind);
}

static void add_lun(struct lun_scan *s, const char *unit)
{
    struct lun place = {0};
    g_autofree char *device =
        s->luns->len < VOLUMES_MAX && read_unit(s, unit, &place) ? block_name(unit) : NULL;
    if (!device)
        return;
    struct lun *l = g_new(struct lun, 1);
    *l = place;
    l->device = g_strconcat("/dev/", device, NULL);
    l->serial = read_serial(unit);
    g_ptr_array_add(s->luns, l);
}

/* The link of the folder that leads to the device. */
static char *find_link(const char *folder, const char *device)
{
    g_autofree char *base = g_path_get_basename(device);
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL),
                        *to = g_file_read_link(path, NULL);
        g_autofree char *end = to ? g_path_get_basename(to) : NULL;
        if (end && !strcmp(end, base))
            return g_steal_pointer(&path);
    }
    return NULL;
}

static void rescan_host(void *opaque)
{
    const struct lun_scan *s = opaque;
    g_autofree char *name = g_strdup_printf("/sys/class/scsi_host/host%u/scan", s->host),
                    *path = sysfs_path(name);
    autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "- - -", 5) < 0)
        return; /* what is known already is found all the same */
}

static GDir *open_units(void)
{
    g_autofree char *path = sysfs_path("/sys/bus/scsi/devices");
    return g_dir_open(path, 0, NULL);
}

/* A unit and its inode: another one that comes to its place is not it. */
static char *unit_key(const char *unit)
{
    g_autofree char *name = g_strdup_printf("/sys/bus/scsi/devices/%s", unit);
    g_autofree char *path = sysfs_path(name);
    struct stat st = {0};
    stat(path, &st);
    return g_strdup_printf("%s %ju", unit, (uintmax_t)st.st_ino);
}

static GHashTable *key_set(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

/* The keys of disks that have no device; *ret_new: one is not among those that were waited for in
 * vain. */
static GHashTable *find_missing(const struct lun_scan *s, bool *ret_new)
{
    GHashTable *missing = key_set();
    g_autoptr(GDir) dir = open_units();
    const char *name;
    *ret_new = false;
    while (dir && (name = g_dir_read_name(dir)) && g_hash_table_size(missing) < VOLUMES_MAX) {
        struct lun place;
        g_autofree char *device = NULL;
        if (!read_unit(s, name, &place) || (device = block_name(name)))
            continue;
        char *key = unit_key(name);
        *ret_new |= !g_hash_table_contains(s->in_vain, key);
        g_hash_table_add(missing, key);
    }
    return missing;
}

/* The kernel's driver takes a disk after the scan that found it has ended: a uevent tells of its
 * device. Where none is heard /sys is looked at all the same. One that no driver wants is waited
 * for in vain, once. */
static void await_devices(void *opaque)
{
    struct lun_scan *s = opaque;
    autofd uevents = netlink_listen(NETLINK_KOBJECT_UEVENT, KERNEL_UEVENTS);
    int64_t end_us = g_get_monotonic_time() + scsi_luns_wait_ms * INT64_C(1000);
    for (;;) {
        bool wait;
        GHashTable *missing = find_missing(s, &wait);
        int64_t left_us = end_us - g_get_monotonic_time();
        if (!wait || left_us <= 0) {
            g_hash_table_unref(s->in_vain);
            s->in_vain = missing;
            return;
        }
        g_hash_table_unref(missing);
        netlink_await(uevents, (int)MIN(left_us / 1000 + 1, LOOK_MS));
    }
}

static GHashTable *copy_keys(GHashTable *from)
{
    GHashTable *set = key_set();
    GHashTableIter it;
    const char *key;
    if (!from)
        return set;
    g_hash_table_iter_init(&it, from);
    while (g_hash_table_iter_next(&it, (gpointer *)&key, NULL))
        g_hash_table_add(set, g_strdup(key));
    return set;
}

static void scan_host(void *opaque)
{
    struct lun_scan *s = opaque;
    g_autoptr(GDir) dir = open_units();
    const char *name;
    while (dir && (name = g_dir_read_name(dir)))
        add_lun(s, name);
    for (unsigned i = 0; i < s->luns->len; i++) {
        struct lun *l = s->luns->pdata[i];
        l->path = find_link(s->folder, l->device);
        if (!l->path)
            l->path = g_strdup(l->device);
    }
}

bool scsi_luns_scan(struct pool *p, unsigned host, bool rescan, GHashTable *found,
                    struct pool_figures *ret, GError **error)
{
    struct lun_scan *s = g_new0(struct lun_scan, 1);
    *s =
        (struct lun_scan){host, g_strdup(p->def->target), g_ptr_array_new_with_free_func(lun_free),
                          copy_keys(p->waited_for)};
    g_autofree char *what = g_strdup_printf("SCSI host %u", host);
    if (rescan && !storage_work(p, rescan_host, s, scan_free, STORAGE_RUN_MS, what, error))
        return false;
    if (!storage_work(p, await_devices, s, scan_free, STORAGE_RUN_MS, what, error))
        return false;
    g_clear_pointer(&p->waited_for, g_hash_table_unref);
    p->waited_for = copy_keys(s->in_vain);
    /* udev makes links a moment after the kernel made the device. */
    storage_run(NULL, NULL, "udevadm", "settle", "--timeout=30", NULL);
    if (!storage_work(p, scan_host, s, scan_free, STORAGE_RUN_MS, what, error))
        return false;
    for (unsigned i = 0; i < s->luns->len; i++) {
        const struct lun *l = s->luns->pdata[i];
        g_autofree char *name = g_strdup_printf("unit:%u:%u:%u", l->bus, l->target, l->lun);
        struct volume *v = device_volume_new(found, name, l->path);
        if (v && l->serial && *l->serial && *l->serial != '/') /* a key is never taken for a path */
            v->key = g_strdup(l->serial);
    }
    scan_free(s);
    if (!device_volumes_look(p, found, what, error))
        return false;
    GHashTableIter it;
    const struct volume *v;
    g_hash_table_iter_init(&it, found);
    while (g_hash_table_iter_next(&it, NULL, (gpointer *)&v))
        ret->capacity += v->capacity;
    ret->allocation = ret->capacity; /* units are given out as they are */
    return true;
}
