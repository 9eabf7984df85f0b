/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files in memory. See memfile.h. */
#include "base/memfile.h"

#include "base/fd.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>

static int write_all(int fd, const uint8_t *data, size_t len)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = pwrite(fd, data + done, len - done, (off_t)done);
        if (n < 0 && errno != EINTR)
            return -errno;
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int memfile_sealed(const char *name, const void *data, size_t len)
{
    const int seals = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    autofd fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    int err = write_all(fd, data, len);
    if (!err && fcntl(fd, F_ADD_SEALS, seals) < 0)
        err = -errno;
    return err ? err : fd_steal(&fd);
}
