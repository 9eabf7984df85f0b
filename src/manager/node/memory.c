/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's memory as its kernel can be told: merging of equal pages (KSM), pools of huge pages.
 *
 * Spec      Linux Documentation/admin-guide/mm/ksm.rst and hugetlbpage.rst.
 * Thread    The loop thread; the kernel may take a while to find huge pages.
 */
#include "manager/node/node.h"

#include "base/fd.h"
#include "manager/node/sysfs.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define KSM "/sys/kernel/mm/ksm"

/* Names of libvirt's and the kernel's; the last ones are counts. */
static const struct {
    const char *name, *file;
    enum param_type type;
    bool counts;
} ksm[] = {
    {"shm_pages_to_scan", "pages_to_scan", PARAM_UINT, false},
    {"shm_sleep_millisecs", "sleep_millisecs", PARAM_UINT, false},
    {"shm_merge_across_nodes", "merge_across_nodes", PARAM_UINT, false},
    {"shm_pages_shared", "pages_shared", PARAM_ULLONG, true},
    {"shm_pages_sharing", "pages_sharing", PARAM_ULLONG, true},
    {"shm_pages_unshared", "pages_unshared", PARAM_ULLONG, true},
    {"shm_pages_volatile", "pages_volatile", PARAM_ULLONG, true},
    {"shm_full_scans", "full_scans", PARAM_ULLONG, true},
};

static bool write_number(const char *path, uint64_t value, GError **error)
{
    g_autofree char *full = sysfs_path(path);
    autofd fd = open(full, O_WRONLY | O_CLOEXEC);
    char text[24];
    int len = g_snprintf(text, sizeof(text), "%" PRIu64, value);
    if (fd < 0 || write(fd, text, (size_t)len) != len)
        return ruche_error_errno(error, errno, "%s into '%s'", text, full);
    return true;
}

bool node_get_memory_tune(const struct caller *who, struct param_list *ret, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read memory parameters of the host", error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(ksm); i++) {
        uint64_t value;
        if (!sysfs_read_u64(&value, KSM "/%s", ksm[i].file))
            continue; /* a kernel without it */
        if (ksm[i].type == PARAM_UINT)
            param_uint(ret, ksm[i].name, (unsigned)value);
        else
            param_ullong(ret, ksm[i].name, value);
    }
    return true;
}

bool node_set_memory_tune(const struct caller *who, const struct param_list *l, GError **error)
{
    struct param_rule rules[G_N_ELEMENTS(ksm) + 1] = {0};
    unsigned n = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(ksm); i++)
        if (!ksm[i].counts)
            rules[n++] = (struct param_rule){ksm[i].name, ksm[i].type};
    if (!access_check(who, RIGHT_HOST, "set memory parameters of the host", error) ||
        !param_check(l, rules, error))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(ksm); i++) {
        const struct param *p = param_find(l, ksm[i].name);
        g_autofree char *path = g_strconcat(KSM "/", ksm[i].file, NULL);
        if (p && !write_number(path, p->u, error))
            return false;
    }
    return true;
}

bool node_alloc_pages(const struct caller *who, int cell, unsigned page_kib, uint64_t count,
                      bool more, GError **error)
{
    uint64_t there;
    if (!access_check(who, RIGHT_HOST, "set pools of pages of the host", error))
        return false;
    if (page_kib == (unsigned)(sysconf(_SC_PAGESIZE) / 1024))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "system pages pool can't be modified");
    g_autofree char *where = cell < 0 ? g_strdup("/sys/kernel/mm")
                                      : g_strdup_printf("/sys/devices/system/node/node%d", cell);
    g_autofree char *path =
        g_strdup_printf("%s/hugepages/hugepages-%ukB/nr_hugepages", where, page_kib);
    if (!sysfs_read_u64(&there, "%s", path))
        return ruche_error(error, MANAGER_ERR_MACHINE,
                           "there is no pool of pages of %u KiB in '%s'", page_kib, where);
    if (more && __builtin_add_overflow(count, there, &count))
        return ruche_error(error, MANAGER_ERR_OVERFLOW, "that many pages cannot be counted");
    if (!write_number(path, count, error))
        return false;
    return (sysfs_read_u64(&there, "%s", path) && there >= count) ||
           ruche_error(error, MANAGER_ERR_MACHINE,
                       "'%s' has %" PRIu64 " pages of %u KiB, and the host finds no more", where,
                       there, page_kib);
}
