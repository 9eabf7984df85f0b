/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs and the packages they are in; see package.h. */
#include "manager/package.h"

#include "base/util.h"

#include <string.h>

static const struct {
    const char *program, *apt, *dnf, *pacman;
} packages[] = {
    {"blkid", "util-linux", "util-linux", "util-linux"},
    {"ceph", "ceph-common", "ceph-common", "ceph"},
    {"dmsetup", "dmsetup", "device-mapper", "device-mapper"},
    {"iscsi-ls", "libiscsi-bin", "libiscsi-utils", "libiscsi"},
    {"iscsiadm", "open-iscsi", "iscsi-initiator-utils", "open-iscsi"},
    {"lvcreate", "lvm2", "lvm2", "lvm2"},
    {"lvs", "lvm2", "lvm2", "lvm2"},
    {"mkfs.btrfs", "btrfs-progs", "btrfs-progs", "btrfs-progs"},
    {"mkfs.ext2", "e2fsprogs", "e2fsprogs", "e2fsprogs"},
    {"mkfs.ext3", "e2fsprogs", "e2fsprogs", "e2fsprogs"},
    {"mkfs.ext4", "e2fsprogs", "e2fsprogs", "e2fsprogs"},
    {"mkfs.gfs2", "gfs2-utils", "gfs2-utils", "gfs2-utils"},
    {"mkfs.ocfs2", "ocfs2-tools", "ocfs2-tools", "ocfs2-tools"},
    {"mkfs.vfat", "dosfstools", "dosfstools", "dosfstools"},
    {"mkfs.xfs", "xfsprogs", "xfsprogs", "xfsprogs"},
    {"mount.cifs", "cifs-utils", "cifs-utils", "cifs-utils"},
    {"mount.glusterfs", "glusterfs-client", "glusterfs-fuse", "glusterfs"},
    {"mount.nfs", "nfs-common", "nfs-utils", "nfs-utils"},
    {"ovs-vswitchd", "openvswitch-switch", "openvswitch", "openvswitch"},
    {"partx", "util-linux", "util-linux", "util-linux"},
    {"pvcreate", "lvm2", "lvm2", "lvm2"},
    {"rbd", "ceph-common", "ceph-common", "ceph"},
    {"sfdisk", "fdisk", "util-linux", "util-linux"},
    {"showmount", "nfs-common", "nfs-utils", "nfs-utils"},
    {"vgcreate", "lvm2", "lvm2", "lvm2"},
    {"vgs", "lvm2", "lvm2", "lvm2"},
    {"wipefs", "util-linux", "util-linux", "util-linux"},
    {"zfs", "zfsutils-linux", "zfs", "zfs-utils"},
    {"zpool", "zfsutils-linux", "zfs", "zfs-utils"},
};

/* "apt install", "dnf install" or "pacman -S", by the distribution's ID and what it is like. */
static const char *installer(unsigned *ret_column)
{
    static const struct {
        const char *id, *command;
        unsigned column;
    } rows[] = {
        {"debian", "apt install", 0}, {"ubuntu", "apt install", 0}, {"fedora", "dnf install", 1},
        {"rhel", "dnf install", 1},   {"centos", "dnf install", 1}, {"arch", "pacman -S", 2},
    };
    g_autofree char *id = g_get_os_info(G_OS_INFO_KEY_ID), *like = g_get_os_info("ID_LIKE");
    g_autofree char *all = g_strdup_printf("%s %s", id ? id : "", like ? like : "");
    g_auto(GStrv) words = g_strsplit(all, " ", 8);
    for (char **w = words; *w; w++)
        for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
            if (!strcmp(*w, rows[i].id)) {
                *ret_column = rows[i].column;
                return rows[i].command;
            }
    return NULL;
}

/* A daemon's PATH may lack the folders of administrators' programs. */
char *package_find_program(const char *name)
{
    static const char *const folders[] = {"/usr/sbin", "/sbin", "/usr/local/sbin"};
    char *path = g_find_program_in_path(name);
    for (unsigned i = 0; !path && i < ARRAY_COUNT(folders); i++) {
        g_autofree char *full = g_build_filename(folders[i], name, NULL);
        if (g_file_test(full, G_FILE_TEST_IS_EXECUTABLE))
            path = g_steal_pointer(&full);
    }
    return path;
}

static char *missing(const char *program)
{
    unsigned column = 0;
    const char *command = installer(&column);
    for (unsigned i = 0; i < ARRAY_COUNT(packages); i++) {
        const char *const names[] = {packages[i].apt, packages[i].dnf, packages[i].pacman};
        if (strcmp(packages[i].program, program) != 0)
            continue;
        if (command)
            return g_strdup_printf("program '%s' is missing; install it with: %s %s", program,
                                   command, names[column]);
        return g_strdup_printf(
            "program '%s' is missing; it is in package %s (Debian), %s (Fedora), %s (Arch)",
            program, names[0], names[1], names[2]);
    }
    return g_strdup_printf("program '%s' is missing", program);
}

char *package_advice(const char *program)
{
    g_autofree char *path = package_find_program(program);
    return path ? NULL : missing(program);
}
