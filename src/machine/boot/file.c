/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files of direct boot, read straight into guest RAM. */
#include "base/fd.h"
#include "base/fdset.h"
#include "machine/boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

bool boot_file_open(struct boot_file *f, const char *what, const char *path, GError **error)
{
    struct stat st;
    *f = (struct boot_file){ .name = path, .fd = -1 };
    autofd fd = fdset_open(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st))
        return ruche_error_errno(error, errno, "%s: cannot open '%s'", what, path);
    if (!S_ISREG(st.st_mode))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: '%s' is not a regular file", what, path);
    if (!st.st_size)
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: '%s' is empty", what, path);
    f->size = (uint64_t)st.st_size;
    f->fd = fd_steal(&fd);
    return true;
}

void boot_file_close(struct boot_file *f)
{
    fd_close_keep_errno(f->fd);
    f->fd = -1;
}

bool boot_file_read(const struct boot_file *f, uint64_t off, void *buf, uint64_t len, GError **error)
{
    uint8_t *to = buf;
    if (!range_fits(off, len, f->size))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'%s' is truncated: it has %" PRIu64 " bytes and its headers speak of byte %" PRIu64,
                           f->name, f->size, off > UINT64_MAX - len ? UINT64_MAX : off + len);
    while (len) {
        ssize_t n = pread(f->fd, to, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ruche_error_errno(error, errno, "cannot read '%s'", f->name);
        if (!n)
            return ruche_error(error, RUCHE_ERR_IO, "'%s' became shorter while it was read", f->name);
        to += n;
        off += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return true;
}

static bool not_ram(const struct boot_file *f, uint64_t gpa, uint64_t len, GError **error)
{
    return ruche_error(error, RUCHE_ERR_NO_SPACE,
                       "'%s' does not fit: it wants %" PRIu64 " bytes at address 0x%" PRIx64
                       ", where there is not so much RAM",
                       f->name, len, gpa);
}

/* The images' places: above the first MiB, or what the loader itself keeps below. */
bool boot_file_load(struct machine *m, const struct boot_file *f, uint64_t off, uint64_t gpa, uint64_t len,
                    GError **error)
{
    if (!len)
        return true;
    uint64_t here;
    void *to = mem_ram(m->memory, gpa, len, true, &here);
    if (!to || here < len)
        return not_ram(f, gpa, len, error);
    bool ok = boot_file_read(f, off, to, len, error);
    mem_written(m->memory, gpa, len);
    return ok;
}

bool boot_clear(struct machine *m, uint64_t gpa, uint64_t len, const struct boot_file *f, GError **error)
{
    if (!len)
        return true;
    uint64_t here;
    void *to = mem_ram(m->memory, gpa, len, true, &here);
    if (!to || here < len)
        return not_ram(f, gpa, len, error);
    memset(to, 0, len);
    mem_written(m->memory, gpa, len);
    return true;
}

bool boot_poke(struct machine *m, uint64_t gpa, const void *data, uint64_t len, GError **error)
{
    if (mem_write(m->memory, gpa, data, len))
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no RAM at address 0x%" PRIx64 " for the boot data", gpa);
    return true;
}

bool boot_load_initrd(struct machine *m, const struct boot_image *b, uint64_t floor, uint64_t limit,
                      uint64_t *ret_gpa, uint64_t *ret_size, GError **error)
{
    *ret_gpa = *ret_size = 0;
    if (!b->initrd)
        return true;
    struct boot_file f;
    if (!boot_file_open(&f, "-initrd", b->initrd, error))
        return false;
    limit = min_u64(limit, m->ram_below_4g);
    uint64_t gpa = f.size < limit ? align_down(limit - f.size, 4096) : 0;
    bool ok;
    if (gpa < floor)
        ok = ruche_error(error, RUCHE_ERR_NO_SPACE,
                         "-initrd: '%s' does not fit: %" PRIu64 " bytes, and RAM from 0x%" PRIx64 " to 0x%" PRIx64
                         " is left beside the kernel",
                         b->initrd, f.size, floor, max_u64(floor, limit));
    else
        ok = boot_file_load(m, &f, 0, gpa, f.size, error);
    if (ok) {
        *ret_gpa = gpa;
        *ret_size = f.size;
    }
    boot_file_close(&f);
    return ok;
}
