/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: reads, whole or in chunks with holes.
 *
 * Spec      NBD protocol, NBD_CMD_READ and structured replies.
 *
 * A small read is looked at after it was read: if all of it is zero, a hole says so. Of a large one
 * the map is asked first, so that holes are not read at all, and data goes out in pieces as it
 * comes.
 */
#include "image/nbd/server_priv.h"

#include <errno.h>

#define SMALL_READ (64 * KIB)
#define MAP_AHEAD  GIB /* how far the map is asked at once */

static struct node *node_of(const struct nbd_job *j)
{
    return nbd_export_enter(j->client->export);
}

static int send_data(struct nbd_job *j, uint64_t off, uint32_t len, bool last)
{
    uint8_t head[8];
    nbd_put_be64(head, off);
    return nbd_send_chunk(j->client, &j->request, last ? NBD_CHUNK_DONE : 0, NBD_CHUNK_DATA, head,
                          sizeof(head), j->buf, len);
}

static int send_hole(struct nbd_job *j, uint64_t off, uint32_t len, bool last)
{
    uint8_t body[12];
    nbd_put_be64(body, off);
    nbd_put_be32(body + 8, len);
    return nbd_send_chunk(j->client, &j->request, last ? NBD_CHUNK_DONE : 0, NBD_CHUNK_HOLE, body,
                          sizeof(body), NULL, 0);
}

static int read_simple(struct nbd_job *j)
{
    const struct nbd_request *r = &j->request;
    int rc = node_pread(node_of(j), r->offset, j->buf, r->len);
    if (rc < 0)
        return rc;
    uint8_t head[NBD_SIMPLE_BYTES];
    nbd_pack_simple(head, 0, r->cookie);
    struct iovec iov[] = { { head, sizeof(head) }, { j->buf, r->len } };
    channel_send(&j->client->ch, iov, r->len ? 2 : 1);
    return NBD_ANSWERED;
}

/* In one chunk. */
static int read_whole(struct nbd_job *j)
{
    const struct nbd_request *r = &j->request;
    int rc = node_pread(node_of(j), r->offset, j->buf, r->len);
    if (rc < 0)
        return rc;
    if (!(r->flags & NBD_CMD_DF) && bytes_are_zero(j->buf, r->len))
        send_hole(j, r->offset, r->len, true);
    else
        send_data(j, r->offset, r->len, true);
    return NBD_ANSWERED;
}

/* What the map does not know is data. So is what was data before: asking the map again may cost as
 * much as reading, and all that data which became a hole meanwhile costs is that it is sent. */
static bool is_hole(struct nbd_job *j, uint64_t off, uint64_t *len)
{
    struct nbd_export *e = j->client->export;
    if (off < e->data_begin || off >= e->data_end) {
        struct image_extent x;
        unsigned depth;
        uint64_t ahead = min_u64(e->size_bytes - off, MAP_AHEAD);
        if (node_map_chain(node_of(j), NULL, off, ahead, &x, &depth) < 0)
            return false;
        if (x.flags & EXTENT_ZERO) {
            *len = min_u64(*len, x.len);
            return true;
        }
        e->data_begin = off;
        e->data_end = off + x.len;
    }
    *len = min_u64(*len, e->data_end - off);
    return false;
}

static int read_pieces(struct nbd_job *j)
{
    const struct nbd_request *r = &j->request;
    uint64_t off = r->offset, end = off + r->len;
    int rc = 0;
    while (off < end && rc == 0) {
        uint64_t len = end - off;
        if (is_hole(j, off, &len)) {
            rc = send_hole(j, off, (uint32_t)len, off + len == end);
            off += len;
            continue;
        }
        for (uint64_t stop = off + len; off < stop && rc == 0; off += len) {
            len = min_u64(stop - off, j->buf_len);
            rc = node_pread(node_of(j), off, j->buf, len);
            if (rc < 0)
                return rc;
            rc = send_data(j, off, (uint32_t)len, off + len == end);
        }
    }
    return NBD_ANSWERED; /* or nobody is there to hear it */
}

int nbd_answer_read(struct nbd_job *j)
{
    const struct nbd_request *r = &j->request;
    if (!j->client->structured)
        return read_simple(j);
    if (r->len == 0) {
        nbd_send_chunk(j->client, r, NBD_CHUNK_DONE, NBD_CHUNK_NONE, NULL, 0, NULL, 0);
        return NBD_ANSWERED;
    }
    return r->len <= SMALL_READ || (r->flags & NBD_CMD_DF) ? read_whole(j) : read_pieces(j);
}
