/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What storage backends read out of programs' answers (readers.h): the first byte chooses the
 * reader. Whatever was printed, volumes have names that XML can hold and that are no paths. */
#include "manager/storage/readers.h"
#include "manager/storage/storage_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_mounts(const char *text, GHashTable *found)
{
    g_free(mount_source(text, "/mnt/a b"));
}

static void read_logical(const char *text, GHashTable *found)
{
    static struct pool *p;
    if (!p)
        p = pool_new(pool_def_new("<pool type='logical'><source><name>vg</name></source></pool>",
                                  false, NULL));
    logical_read_volumes(p, text, found, NULL);
}

static void read_group(const char *text, GHashTable *found)
{
    struct pool_figures f = {0};
    if (logical_read_group(text, &f, NULL) && f.available > f.capacity)
        __builtin_trap();
}

static void read_partitions(const char *text, GHashTable *found)
{
    enum { DISK = 400 << 20, WANTED = 10 << 20 };
    disk_table *t = disk_table_read(text, "/dev/vdc", DISK, NULL);
    if (!t)
        return;
    uint64_t start = disk_table_room(t, WANTED);
    if (start > DISK - WANTED)
        __builtin_trap();
    disk_table_free(t);
}

static void read_sessions(const char *text, GHashTable *found)
{
    unsigned number;
    iscsi_find_session(text, "iqn.2026-01.org.x:y", &number);
}

static void read_units(const char *text, GHashTable *found)
{
    g_array_unref(iscsi_direct_units(text, "iqn.2026-01.org.x:y"));
}

static void read_multipath(const char *text, GHashTable *found)
{
    mpath_read(text, "/dev/mapper", found);
}

static void read_images(const char *text, GHashTable *found)
{
    rbd_read_images(text, "rbd", found, NULL);
}

static void read_ceph(const char *text, GHashTable *found)
{
    struct pool_figures f = {0};
    rbd_read_figures(text, "rbd", &f, NULL);
}

static void read_zvols(const char *text, GHashTable *found)
{
    zfs_read_volumes(text, "tank", found);
}

static void read_zpool(const char *text, GHashTable *found)
{
    struct pool_figures f = {0};
    zfs_read_figures(text, &f, NULL);
}

static void (*const readers[])(const char *text, GHashTable *found) = {
    read_mounts,    read_logical, read_group, read_partitions, read_sessions, read_units,
    read_multipath, read_images,  read_ceph,  read_zvols,      read_zpool,
};

static void check(GHashTable *found)
{
    GHashTableIter it;
    const char *name;
    const struct volume *v;
    g_hash_table_iter_init(&it, found);
    while (g_hash_table_iter_next(&it, (gpointer *)&name, (gpointer *)&v))
        if (strcmp(name, v->name) != 0 || !*name || strchr(name, '/') ||
            !g_utf8_validate(name, -1, NULL) || !v->path || !v->format)
            __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return 0;
    g_autofree char *text = g_strndup((const char *)data + 1, size - 1);
    g_autoptr(GHashTable) found =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, (GDestroyNotify)volume_free);
    readers[data[0] % G_N_ELEMENTS(readers)](text, found);
    check(found);
    return 0;
}
