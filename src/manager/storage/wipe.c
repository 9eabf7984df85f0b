/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing over what a volume held, so that it cannot be read back.
 *
 * Spec      virStorageVolWipeAlgorithm; each row's passes are those of the procedure that libvirt
 *           names.
 * Note      What a file system or a disk keeps of earlier places is out of reach. Holes hold
 *           nothing and stay.
 * Thread    A worker; takes as long as the disk takes.
 */
#include "manager/storage/storage_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

enum { BLOCK_BYTES = 3 << 18, RANDOM_PASS = -1, TRIM_PASS = -2, END = -3 };

/* A pass writes three bytes over and over (0xAABBCC), one byte is written as 0xAAAAAA. */
#define B(x) ((x) << 16 | (x) << 8 | (x))
#define R4   RANDOM_PASS, RANDOM_PASS, RANDOM_PASS, RANDOM_PASS
#define R7   R4, RANDOM_PASS, RANDOM_PASS, RANDOM_PASS

static const int zero_passes[] = {B(0x00), END};
static const int nnsa_passes[] = {RANDOM_PASS, RANDOM_PASS, B(0x00), END};
static const int dod_passes[] = {RANDOM_PASS, B(0x00), B(0xff), END};
static const int bsi_passes[] = {B(0xff), B(0xfe), B(0xfd), B(0xfb), B(0xf7),
                                 B(0xef), B(0xdf), B(0xbf), B(0x7f), END};
static const int gutmann_passes[] = {
    R4,      B(0x55), B(0xaa),  0x924924, 0x492492, 0x249249, B(0x00),  B(0x11),  B(0x22), B(0x33),
    B(0x44), B(0x55), B(0x66),  B(0x77),  B(0x88),  B(0x99),  B(0xaa),  B(0xbb),  B(0xcc), B(0xdd),
    B(0xee), B(0xff), 0x924924, 0x492492, 0x249249, 0x6db6db, 0xb6db6d, 0xdb6db6, R4,      END,
};
static const int schneier_passes[] = {B(0x00), B(0xff), R4, RANDOM_PASS, END};
static const int pfitzner7_passes[] = {R7, END};
static const int pfitzner33_passes[] = {R7, R7, R7, R7, R4, RANDOM_PASS, END};
static const int random_passes[] = {RANDOM_PASS, END};
static const int trim_passes[] = {TRIM_PASS, END};

/* By virStorageVolWipeAlgorithm. */
static const int *const algorithms[] = {
    zero_passes,     nnsa_passes,      dod_passes,        bsi_passes,    gutmann_passes,
    schneier_passes, pfitzner7_passes, pfitzner33_passes, random_passes, trim_passes,
};

bool wipe_known(unsigned algorithm)
{
    return algorithm < ARRAY_COUNT(algorithms);
}

static void fill_pattern(uint8_t *block, int pass)
{
    for (unsigned i = 0; i < BLOCK_BYTES; i++)
        block[i] = (uint8_t)(pass >> (16 - i % 3 * 8));
}

static bool fill_random(uint8_t *block)
{
    for (size_t done = 0; done < BLOCK_BYTES;) {
        ssize_t n = getrandom(block + done, MIN(BLOCK_BYTES - done, 256), 0);
        if (n < 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

static bool write_range(int fd, uint8_t *block, int pass, off_t at, off_t end, struct job *j)
{
    while (at < end) {
        if (pass == RANDOM_PASS && !fill_random(block))
            return false;
        off_t chunk = MIN(end - at, BLOCK_BYTES);
        for (off_t done = 0; done < chunk;) {
            ssize_t n = pwrite(fd, block + done, (size_t)(chunk - done), at + done);
            if (n < 0 && errno != EINTR)
                return false;
            done += MAX(n, 0);
        }
        at += chunk;
        if (!j)
            continue;
        atomic_fetch_add(&j->done, (uint64_t)chunk);
        if (atomic_load(&j->cancelled)) {
            errno = ECANCELED;
            return false;
        }
    }
    return true;
}

/* The next range of data at or behind `at`; false: none. A block device has no holes. */
static bool next_data(int fd, off_t size, off_t *at, off_t *ret_end)
{
    off_t data = lseek(fd, *at, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return false;
    *at = MAX(data, *at);
    *ret_end = data < 0 ? size : lseek(fd, data, SEEK_HOLE);
    if (*ret_end < 0 || *ret_end > size)
        *ret_end = size;
    return *at < size;
}

/* Only where there is data: a sparse volume stays as small as it is. */
static bool one_pass(int fd, uint8_t *block, int pass, off_t size, struct job *j)
{
    off_t end;
    if (pass == TRIM_PASS)
        return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size) == 0;
    if (pass != RANDOM_PASS)
        fill_pattern(block, pass);
    for (off_t at = 0; at < size && next_data(fd, size, &at, &end); at = end)
        if (!write_range(fd, block, pass, at, end, j))
            return false;
    return fdatasync(fd) == 0;
}

static bool size_of(int fd, off_t *ret_size, uint64_t *ret_data)
{
    struct stat st;
    uint64_t bytes;
    if (fstat(fd, &st) < 0 || (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &bytes) < 0))
        return false;
    *ret_size = S_ISBLK(st.st_mode) ? (off_t)bytes : st.st_size;
    *ret_data =
        S_ISBLK(st.st_mode) ? bytes : MIN((uint64_t)st.st_blocks * 512, (uint64_t)st.st_size);
    return true;
}

bool wipe_file(int fd, unsigned algorithm, struct job *j, GError **error)
{
    const int *passes = algorithms[algorithm], *pass;
    uint64_t data, count = 0;
    off_t size;
    if (!size_of(fd, &size, &data))
        return ruche_error_errno(error, errno, "wipe");
    if (!size)
        return true;
    while (passes[count] != END)
        count++;
    if (j)
        atomic_store(&j->total, data * count);
    g_autofree uint8_t *block = g_try_malloc(BLOCK_BYTES);
    if (!block)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "wipe: no memory for a block of %d bytes",
                           BLOCK_BYTES);
    for (pass = passes; *pass != END; pass++)
        if (!one_pass(fd, block, *pass, size, j))
            return errno == ECANCELED
                       ? ruche_error(error, MANAGER_ERR_ABORTED,
                                     "the wipe was ended in pass %d, as it was asked for",
                                     (int)(pass - passes) + 1)
                       : ruche_error_errno(error, errno, "wipe: pass %d", (int)(pass - passes) + 1);
    if (j)
        atomic_store(&j->done, atomic_load(&j->total)); /* what was never written is not written over */
    return true;
}
