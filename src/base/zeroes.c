/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ranges of zeroes.
 *
 * Spec      fallocate(2): of block devices, too, whose ranges have to be whole blocks.
 * Thread    Any.
 */
#include "base/zeroes.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

static const char zeroes[64 << 10];

static int write_all(int fd, uint64_t at, uint64_t len)
{
    while (len) {
        ssize_t n = pwrite(fd, zeroes, len < sizeof(zeroes) ? len : sizeof(zeroes), (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        at += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return 0;
}

/* ENOSPC is a file's that shares its blocks: plain writes tell whether it is true. */
int zeroes_write(int fd, uint64_t at, uint64_t len)
{
    static const int ways[] = {FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                               FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
    if (at > INT64_MAX || len > INT64_MAX - at)
        return -EFBIG;
    for (unsigned i = 0; len && i < ARRAY_COUNT(ways); i++)
        if (fallocate(fd, ways[i], (off_t)at, (off_t)len) == 0)
            return 0;
    return write_all(fd, at, len);
}
