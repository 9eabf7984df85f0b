/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a request does: checked on entry, cut into steps of one system call each, continued after
 * short transfers, with fallbacks for what a file system cannot do.
 *
 * Spec      preadv2(2), pwritev2(2), fallocate(2), fdatasync(2).
 * Thread    The image's home loop; image_step_run() any thread.
 * Trust     Offsets and lengths are the guest's: checked against the size. Vectors are our devices'
 *           own.
 * Errors    0 or negative errno to `done`; what a disk full of quota or of file size says is
 *           -ENOSPC too.
 */
#include "image/internal.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>

enum stage {
    STAGE_TRANSFER,   /* read or write of iov */
    STAGE_PUNCH,      /* write zeroes by deallocating; or the whole of a discard */
    STAGE_ZERO_RANGE, /* write zeroes that keep the blocks */
    STAGE_PLAIN_ZERO, /* write zeroes by writing them */
    STAGE_SYNC,
};

/* never written: all one zero page */
static uint8_t zeroes[IMAGE_ZERO_BYTES] __attribute__((aligned(4096)));
#define Z { zeroes, IMAGE_ZERO_BYTES }
struct iovec image_zero_iov[IMAGE_ZERO_IOVS] = { Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z };
#undef Z

/* Copies between the request's vectors from its position on and the flat buffer. */
static void copy_vectors(const struct image_request *r, uint8_t *flat, size_t len, bool to_vectors)
{
    size_t done = r->iov_done;
    for (unsigned k = r->iov_index; k < r->iov_count && len; k++, done = 0) {
        uint8_t *p = (uint8_t *)r->iov[k].iov_base + done;
        size_t n = min_u64(len, r->iov[k].iov_len - done);
        if (to_vectors)
            memcpy(p, flat, n);
        else
            memcpy(flat, p, n);
        flat += n;
        len -= n;
    }
}

static void zero_vectors(const struct image_request *r)
{
    size_t done = r->iov_done;
    for (unsigned k = r->iov_index; k < r->iov_count; k++, done = 0)
        memset((uint8_t *)r->iov[k].iov_base + done, 0, r->iov[k].iov_len - done);
}

static void advance(struct image_request *r, size_t n)
{
    r->progress += n;
    while (n && r->iov_index < r->iov_count) {
        size_t left = r->iov[r->iov_index].iov_len - r->iov_done;
        if (n < left) {
            r->iov_done += n;
            return;
        }
        n -= left;
        r->iov_index++;
        r->iov_done = 0;
    }
}

static struct image_step transfer_step(struct image *i, struct image_request *r)
{
    struct image_step s = { .kind = r->op == IMAGE_READ ? STEP_READ : STEP_WRITE,
                            .offset = r->offset + r->progress };
    if (r->op == IMAGE_WRITE && (r->fua || i->writethrough) && !i->no_flush)
        s.flags = RWF_DSYNC;
    if (r->bounced) {
        r->piece = (struct iovec){ i->bounce, min_u64(r->len - r->progress, IMAGE_BOUNCE_BYTES) };
        if (r->op == IMAGE_WRITE)
            copy_vectors(r, i->bounce, r->piece.iov_len, false);
    } else if (r->iov_done) {
        const struct iovec *v = &r->iov[r->iov_index];
        r->piece = (struct iovec){ (uint8_t *)v->iov_base + r->iov_done, v->iov_len - r->iov_done };
    } else {
        s.iov = r->iov + r->iov_index;
        s.iov_count = min_u64(r->iov_count - r->iov_index, IMAGE_MAX_IOVS);
        return s;
    }
    s.iov = &r->piece;
    s.iov_count = 1;
    return s;
}

static struct image_step plain_zero_step(struct image *i, struct image_request *r)
{
    uint64_t left = r->len - r->progress;
    struct image_step s = { .kind = STEP_WRITE, .offset = r->offset + r->progress };
    if (left >= IMAGE_ZERO_BYTES) {
        s.iov = image_zero_iov;
        s.iov_count = min_u64(left / IMAGE_ZERO_BYTES, IMAGE_ZERO_IOVS);
    } else {
        r->piece = (struct iovec){ zeroes, left };
        s.iov = &r->piece;
        s.iov_count = 1;
    }
    return s;
}

struct image_step image_step_of(struct image *i, struct image_request *r)
{
    struct image_step s = { .kind = STEP_FALLOCATE, .offset = r->offset, .len = r->len,
                            .flags = FALLOC_FL_KEEP_SIZE };
    switch ((enum stage)r->stage) {
    case STAGE_TRANSFER:
        return transfer_step(i, r);
    case STAGE_PLAIN_ZERO:
        return plain_zero_step(i, r);
    case STAGE_SYNC:
        return (struct image_step){ .kind = STEP_SYNC };
    case STAGE_PUNCH:
        if (r->op == IMAGE_DISCARD && i->block_device)
            s.kind = STEP_BLOCK_DISCARD;
        s.flags |= FALLOC_FL_PUNCH_HOLE;
        return s;
    case STAGE_ZERO_RANGE:
        s.flags |= FALLOC_FL_ZERO_RANGE;
        return s;
    }
    return (struct image_step){ .kind = STEP_NOTHING };
}

int image_step_run(const struct image *i, const struct image_step *s)
{
    ssize_t n = 0;
    do {
        switch (s->kind) {
        case STEP_READ:
            n = preadv2(i->fd, s->iov, s->iov_count, s->offset, s->flags);
            break;
        case STEP_WRITE:
            n = pwritev2(i->fd, s->iov, s->iov_count, s->offset, s->flags);
            break;
        case STEP_FALLOCATE:
            n = fallocate(i->fd, s->flags, s->offset, s->len);
            break;
        case STEP_SYNC:
            n = fdatasync(i->fd);
            break;
        case STEP_BLOCK_DISCARD: {
            uint64_t range[2] = { s->offset, s->len };
            n = ioctl(i->fd, BLKDISCARD, range);
            break;
        }
        case STEP_NOTHING:
            break;
        }
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
}

static bool end(struct image_request *r, int result)
{
    r->result = result == -EDQUOT || result == -EFBIG ? -ENOSPC : result;
    return true;
}

static bool next_stage(struct image_request *r, enum stage stage)
{
    r->stage = stage;
    return false;
}

/* What a kernel or a file system says when it does not know an operation. */
static bool not_supported(int err)
{
    return err == -EOPNOTSUPP || err == -ENOSYS || err == -EINVAL || err == -ENODEV ||
           err == -ENOTTY;
}

static bool read_done(struct image *i, struct image_request *r, int n)
{
    if (r->bounced)
        copy_vectors(r, i->bounce, n, true);
    advance(r, n);
    /* Past the end of the file: nothing more comes, the rest is zeroes. A direct read that stopped
     * off alignment also met the end. */
    bool at_end = n == 0 || (i->direct && (uint32_t)n % i->offset_align);
    if (at_end && r->progress < r->len)
        zero_vectors(r);
    return at_end || r->progress >= r->len ? end(r, 0) : false;
}

static bool write_done(struct image *i, struct image_request *r, int n)
{
    if (n == 0)
        /* the kernel takes nothing and gives no reason: do not turn for ever */
        return end(r, -EIO);
    if (r->stage == STAGE_PLAIN_ZERO)
        r->progress += n;
    else
        advance(r, n);
    if (r->progress < r->len)
        return false;
    if (r->stage == STAGE_PLAIN_ZERO && (r->fua || i->writethrough) && !i->no_flush)
        return next_stage(r, STAGE_SYNC);
    return end(r, 0);
}

static bool allocation_done(struct image *i, struct image_request *r, int result)
{
    if (r->op == IMAGE_DISCARD) {
        if (result < 0 && not_supported(result)) {
            i->can_punch = false; /* a hint that cannot be followed is no error */
            result = 0;
        }
        return end(r, result);
    }
    if (result < 0 && not_supported(result)) {
        if (r->stage == STAGE_PUNCH && i->can_zero_range) {
            i->can_punch = false;
            return next_stage(r, STAGE_ZERO_RANGE);
        }
        i->can_zero_range = false;
        return next_stage(r, STAGE_PLAIN_ZERO);
    }
    if (result < 0)
        return end(r, result);
    if ((r->fua || i->writethrough) && !i->no_flush)
        return next_stage(r, STAGE_SYNC);
    return end(r, 0);
}

bool image_step_done(struct image *i, struct image_request *r, int result)
{
    if ((result == -EAGAIN || result == -EINTR) && r->retries < UINT8_MAX) {
        r->retries++;
        return false;
    }
    switch ((enum stage)r->stage) {
    case STAGE_TRANSFER:
        if (result < 0)
            return end(r, result);
        return r->op == IMAGE_READ ? read_done(i, r, result) : write_done(i, r, result);
    case STAGE_PLAIN_ZERO:
        return result < 0 ? end(r, result) : write_done(i, r, result);
    case STAGE_PUNCH:
    case STAGE_ZERO_RANGE:
        return allocation_done(i, r, result);
    case STAGE_SYNC:
        return end(r, result < 0 ? result : 0);
    }
    return end(r, -EINVAL);
}

static int check(const struct image *i, const struct image_request *r)
{
    if (r->op == IMAGE_FLUSH)
        return 0;
    if ((unsigned)r->op > IMAGE_WRITE_ZEROES)
        return -EINVAL;
    if (!range_fits(r->offset, r->len, i->info.size_bytes) ||
        (r->offset | r->len) % i->info.block_bytes)
        return -EINVAL;
    if (r->op != IMAGE_READ && i->info.read_only)
        return -EROFS;
    return 0;
}

static enum stage first_stage(const struct image *i, const struct image_request *r)
{
    switch (r->op) {
    case IMAGE_FLUSH:
        return STAGE_SYNC;
    case IMAGE_DISCARD:
        return STAGE_PUNCH;
    case IMAGE_WRITE_ZEROES:
        if (r->may_unmap && i->discard && i->can_punch)
            return STAGE_PUNCH;
        return i->can_zero_range ? STAGE_ZERO_RANGE : STAGE_PLAIN_ZERO;
    default:
        return STAGE_TRANSFER;
    }
}

static bool needs_bounce(const struct image *i, const struct image_request *r)
{
    if (!i->direct || r->op > IMAGE_WRITE)
        return false;
    for (unsigned k = 0; k < r->iov_count; k++) {
        if ((uintptr_t)r->iov[k].iov_base & (i->mem_align - 1) ||
            r->iov[k].iov_len & (i->offset_align - 1))
            return true;
    }
    return false;
}

static bool nothing_to_do(const struct image *i, const struct image_request *r)
{
    switch (r->op) {
    case IMAGE_FLUSH:
        return i->no_flush || i->info.read_only;
    case IMAGE_DISCARD:
        return !r->len || !i->discard || !i->can_punch;
    default:
        return !r->len;
    }
}

void image_submit(struct image *i, struct image_request *r)
{
    i->in_flight++;
    r->progress = 0;
    r->iov_index = 0;
    r->iov_done = 0;
    r->bounced = false;
    r->retries = 0;
    r->begin_ns = loop_now_ns();
    int err = check(i, r);
    if (err < 0 || nothing_to_do(i, r)) {
        if (err < 0)
            i->stats.invalid[(unsigned)r->op > IMAGE_WRITE_ZEROES ? 0 : r->op]++;
        image_engine_finish(i, r, err);
        return;
    }
    r->stage = first_stage(i, r);
    r->bounced = needs_bounce(i, r);
    image_engine_start(i, r);
    if (!i->plugged)
        image_engine_flush(i);
}

void image_plug(struct image *i)
{
    i->plugged++;
}

void image_unplug(struct image *i)
{
    if (!--i->plugged)
        image_engine_flush(i);
}

void image_drain(struct image *i)
{
    while (i->in_flight)
        image_engine_wait(i);
}
