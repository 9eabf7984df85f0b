/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: block status, one chunk for each meta context that the client asked for.
 *
 * Spec      NBD protocol, NBD_CMD_BLOCK_STATUS; QEMU's doc/interop/nbd for "qemu:".
 * Trust     The client: one answer has at most as many extents as fit into NBD_STATUS_BYTES, and
 *           asks the map at most STEPS_MAX times; it may be shorter than what was asked.
 */
#include "image/nbd/server_priv.h"

#include <errno.h>

#define STEPS_MAX 16384

/* Extents as they go on the wire, behind the context's id. */
struct extents {
    uint8_t *out;
    unsigned count, max;
    uint32_t last_len, last_flags;
};

/* Equal neighbours become one; false: there is no room. */
static bool add_extent(struct extents *x, uint64_t len, uint32_t flags)
{
    bool joins = x->count && x->last_flags == flags;
    if (!joins && x->count == x->max)
        return false;
    if (!joins) {
        x->count++;
        x->last_len = 0;
        x->last_flags = flags;
    }
    x->last_len += (uint32_t)len;
    uint8_t *at = x->out + 4 + (x->count - 1) * NBD_EXTENT_BYTES;
    nbd_put_be32(at, x->last_len);
    nbd_put_be32(at + 4, flags);
    return true;
}

static uint32_t flags_of(unsigned context, const struct image_extent *e, unsigned depth)
{
    if (context == CONTEXT_DEPTH)
        return e->flags & EXTENT_ALLOCATED ? depth + 1 : 0;
    return (e->flags & EXTENT_DATA ? 0 : NBD_STATE_HOLE) |
           (e->flags & EXTENT_ZERO ? NBD_STATE_ZERO : 0);
}

static int map_extents(struct nbd_export *e, unsigned context, uint64_t off, uint64_t end,
                       struct extents *x)
{
    for (unsigned step = 0; step < STEPS_MAX && off < end; step++) {
        struct image_extent found;
        unsigned depth = 0;
        int rc = node_map_chain(nbd_export_enter(e), NULL, off, end - off, &found, &depth);
        if (rc < 0)
            return x->count ? 0 : rc;
        if (!add_extent(x, found.len, flags_of(context, &found, depth)))
            break;
        off += found.len;
    }
    return 0;
}

static void bitmap_extents(const struct dirty_bitmap *b, uint64_t off, uint64_t end,
                           struct extents *x)
{
    while (off < end) {
        uint64_t begin = end, len = 0;
        if (!dirty_next(b, off, end, 0, &begin, &len))
            begin = end;
        if (begin > off && !add_extent(x, begin - off, 0))
            return;
        if (len && !add_extent(x, len, NBD_STATE_DIRTY))
            return;
        off = begin + len;
    }
}

static int answer_context(struct nbd_job *j, unsigned context, bool last)
{
    const struct nbd_request *r = &j->request;
    const struct nbd_export *e = j->client->export;
    uint64_t end = r->offset + r->len;
    struct extents x = { .out = j->buf, .max = (j->buf_len - 4) / NBD_EXTENT_BYTES };
    if (r->flags & NBD_CMD_REQ_ONE)
        x.max = 1;
    if (context >= CONTEXT_BITMAP)
        bitmap_extents(e->bitmaps[context - CONTEXT_BITMAP].bitmap, r->offset, end, &x);
    else {
        int rc = map_extents(j->client->export, context, r->offset, end, &x);
        if (rc < 0)
            return rc;
    }
    nbd_put_be32(j->buf, context);
    nbd_send_chunk(j->client, r, last ? NBD_CHUNK_DONE : 0, NBD_CHUNK_BLOCK_STATUS, j->buf,
                   4 + x.count * NBD_EXTENT_BYTES, NULL, 0);
    return 0;
}

int nbd_answer_status(struct nbd_job *j)
{
    const struct nbd_contexts *asked = &j->client->contexts;
    unsigned list[CONTEXT_BITMAP + NBD_EXPORT_BITMAPS_MAX], count = 0;
    if (asked->base)
        list[count++] = CONTEXT_BASE;
    if (asked->depth)
        list[count++] = CONTEXT_DEPTH;
    for (unsigned i = 0; i < NBD_EXPORT_BITMAPS_MAX; i++) {
        if (asked->bitmaps >> i & 1)
            list[count++] = CONTEXT_BITMAP + i;
    }
    if (!count || !j->request.len)
        return -EINVAL;
    for (unsigned i = 0; i < count; i++) {
        int rc = answer_context(j, list[i], i + 1 == count);
        if (rc < 0)
            return rc;
    }
    return NBD_ANSWERED;
}
