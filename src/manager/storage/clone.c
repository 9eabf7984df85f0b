/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file's bytes into another: shared blocks where the file system can, else copied, holes left
 * out.
 *
 * Thread    A worker; takes as long as the disk takes.
 */
#include "manager/storage/storage_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 20, RANGE_BYTES = 256 << 20 };

/* Counts what is done; true: it is to end. */
static bool passed(struct job *j, off_t bytes)
{
    if (!j)
        return false;
    atomic_fetch_add(&j->done, (uint64_t)bytes);
    if (atomic_load(&j->cancelled))
        errno = ECANCELED;
    return atomic_load(&j->cancelled);
}

static bool copy_by_hand(int from, int to, off_t at, off_t end, void *buffer, struct job *j)
{
    while (at < end) {
        ssize_t n = pread(from, buffer, (size_t)MIN(end - at, CHUNK_BYTES), at);
        if (n == 0)
            return true; /* it has become shorter; the rest reads as zero */
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        for (ssize_t done = 0; done < n;) {
            ssize_t m = pwrite(to, (char *)buffer + done, (size_t)(n - done), at + done);
            if (m < 0 && errno != EINTR)
                return false;
            done += MAX(m, 0);
        }
        at += n;
        if (passed(j, n))
            return false;
    }
    return true;
}

static bool copy_range(int from, int to, off_t at, off_t end, void *buffer, struct job *j)
{
    while (at < end) {
        loff_t in = at, out = at;
        ssize_t n = copy_file_range(from, &in, to, &out, (size_t)MIN(end - at, RANGE_BYTES), 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return copy_by_hand(from, to, at, end, buffer, j);
        at += n;
        if (passed(j, n))
            return false;
    }
    return true;
}

static bool copy_data(int from, int to, off_t size, struct job *j)
{
    g_autofree void *buffer = g_try_malloc(CHUNK_BYTES);
    if (!buffer) {
        errno = ENOMEM;
        return false;
    }
    for (off_t at = 0; at < size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0)
            return errno == ENXIO;
        off_t hole = lseek(from, data, SEEK_HOLE);
        if (hole < 0 || hole > size)
            hole = size;
        if (!copy_range(from, to, data, hole, buffer, j))
            return false;
        at = hole;
    }
    return true;
}

bool clone_raw(int from, int to, bool reflink, struct job *j, GError **error)
{
    struct stat st;
    if (ioctl(to, FICLONE, from) == 0)
        return true;
    if (reflink)
        return ruche_error_errno(error, errno,
                                 "this file system does not share blocks between files");
    if (fstat(from, &st) < 0 || ftruncate(to, st.st_size) < 0)
        return ruche_error_errno(error, errno, "copy");
    if (j)
        atomic_store(&j->total, (uint64_t)st.st_blocks * 512);
    if (!copy_data(from, to, st.st_size, j))
        return errno == ECANCELED ? ruche_error(error, MANAGER_ERR_ABORTED,
                                                "the copy was ended, as it was asked for")
                                  : ruche_error_errno(error, errno, "copy");
    return true;
}
