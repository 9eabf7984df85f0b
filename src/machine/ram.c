/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest RAM: one memfd, mapped once, low part first.
 *
 * Thread    Main.
 * Errors    One sentence that says how much was asked for and how much there is.
 */
#include "base/fd.h"
#include "base/units.h"
#include "machine/machine_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/memfd.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_PAGE (2 * MIB)
#define RAM_MIN MIB
/* RAM is taken page by page as the guest touches it, so a machine may be larger than its host. Nobody means more
 * than this (or twice the host, where that is more). */
#define OVERCOMMIT_MAX (64 * GIB)

/* A row of /proc/meminfo in bytes, 0 when it is not there. */
static uint64_t meminfo(const char *row)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    uint64_t kib = 0;
    size_t len = strlen(row);
    while (f && fgets(line, sizeof(line), f))
        if (!strncmp(line, row, len) && line[len] == ':' && sscanf(line + len + 1, "%" SCNu64, &kib) == 1)
            break;
    if (f)
        fclose(f);
    return kib * KIB;
}

static bool check_size(const struct machine_config *c, GError **error)
{
    uint64_t total = meminfo("MemTotal") + meminfo("SwapTotal");
    g_autofree char *size = g_strdup(units_format_size(c->ram_bytes));
    if (c->ram_bytes < RAM_MIN)
        return ruche_error(error, RUCHE_ERR_INVALID, "-m: %s of RAM is less than the least possible, %s", size,
                           units_format_size(RAM_MIN));
    if (c->ram_bytes % 4096 || (c->ram_hugepages && c->ram_bytes % HUGE_PAGE))
        return ruche_error(error, RUCHE_ERR_INVALID, "-m: %" PRIu64 " bytes of RAM are not whole %s pages",
                           c->ram_bytes, c->ram_hugepages ? "2 MiB" : "4 KiB");
    if (total && c->ram_bytes > max_u64(OVERCOMMIT_MAX, 2 * total))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no room for RAM: %s asked for, the host has %s", size,
                           units_format_size(total));
    uint64_t available = meminfo("MemAvailable");
    if (c->ram_prealloc && !c->ram_hugepages && available && c->ram_bytes > available)
        return ruche_error(error, RUCHE_ERR_NO_SPACE,
                           "no room for RAM: %s to be allocated in advance, the host has %s free", size,
                           units_format_size(available));
    return true;
}

static bool no_room(const struct machine_config *c, int err, GError **error)
{
    return ruche_error_errno(error, err, "no room for RAM: %s%s", units_format_size(c->ram_bytes),
                             c->ram_hugepages ? " of huge pages" : "");
}

bool machine_ram_init(struct machine *m, GError **error)
{
    const struct machine_config *c = &m->config;
    if (!check_size(c, error))
        return false;
    unsigned flags = MFD_CLOEXEC | (c->ram_hugepages ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
    autofd fd = memfd_create("ruche-ram", flags);
    if (fd < 0 || ftruncate(fd, (off_t)c->ram_bytes))
        return no_room(c, errno, error);
    /* Huge pages are reserved at once, so that a guest never meets SIGBUS for want of one. */
    int map = MAP_SHARED | (c->ram_hugepages ? 0 : MAP_NORESERVE);
    void *ram = mmap(NULL, c->ram_bytes, PROT_READ | PROT_WRITE, map, fd, 0);
    if (ram == MAP_FAILED)
        return no_room(c, errno, error);
    m->ram = ram;
    m->ram_fd = fd_steal(&fd);
    madvise(ram, c->ram_bytes, MADV_DONTDUMP);
    if (!c->ram_hugepages)
        madvise(ram, c->ram_bytes, MADV_HUGEPAGE);
    if (c->ram_prealloc && fallocate(m->ram_fd, 0, 0, (off_t)c->ram_bytes))
        return no_room(c, errno, error);
    return true;
}

void machine_ram_done(struct machine *m)
{
    if (m->ram)
        munmap(m->ram, m->config.ram_bytes);
    m->ram = NULL;
    fd_close_keep_errno(m->ram_fd);
    m->ram_fd = -1;
}
