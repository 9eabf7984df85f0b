/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first bytes of a qcow2 image. See qcow2_head.h. */
#include "manager/storage/qcow2_head.h"

#include "base/cursor.h"

#include <errno.h>

#define MAGIC              0x514649fbu
#define EXT_END            0u
#define EXT_BACKING_FORMAT 0xe2792acau

enum { V2_BYTES = 72, V3_BYTES = 104, CLUSTER_BITS_MIN = 9, CLUSTER_BITS_MAX = 21 };
enum { COMPATIBLE_LAZY_REFCOUNTS = 1 << 0, INCOMPATIBLE_EXTENDED_L2 = 1 << 4 };

static void read_extensions(struct qcow2_head *h, struct cur *c)
{
    while (!c->bad) {
        uint32_t type = cur_be32(c), len = cur_be32(c);
        if (c->bad || type == EXT_END || len > QCOW2_HEAD_BYTES)
            return;
        const uint8_t *data = cur_take(c, align_up(len, 8));
        if (data && type == EXT_BACKING_FORMAT && len < sizeof(h->backing_format)) {
            memcpy(h->backing_format, data, len);
            h->backing_format[len] = 0;
        }
    }
}

static void read_version_3(struct qcow2_head *h, struct cur *c)
{
    uint64_t incompatible = cur_be64(c), compatible = cur_be64(c);
    cur_be64(c); /* autoclear features */
    cur_be32(c); /* refcount order */
    uint32_t length = cur_be32(c);
    h->extended_l2 = incompatible & INCOMPATIBLE_EXTENDED_L2;
    h->lazy_refcounts = compatible & COMPATIBLE_LAZY_REFCOUNTS;
    if (length < V3_BYTES || length > QCOW2_HEAD_BYTES)
        c->bad = true;
    else
        cur_take(c, length - V3_BYTES);
}

int qcow2_head_parse(const uint8_t *data, size_t len, struct qcow2_head *ret)
{
    struct cur c = cur_of(data, len);
    struct qcow2_head h = {0};
    uint32_t magic = cur_be32(&c);
    h.version = cur_be32(&c);
    h.backing_offset = cur_be64(&c);
    h.backing_bytes = cur_be32(&c);
    uint32_t cluster_bits = cur_be32(&c);
    h.capacity = cur_be64(&c);
    h.encrypted = cur_be32(&c) != 0;
    cur_take(&c, V2_BYTES - 36); /* tables: L1, reference counts, snapshots */
    if (c.bad || magic != MAGIC || h.version < 2 || h.version > 3 ||
        cluster_bits < CLUSTER_BITS_MIN || cluster_bits > CLUSTER_BITS_MAX ||
        h.capacity > INT64_MAX || h.backing_bytes > QCOW2_BACKING_MAX)
        return -EBADMSG;
    h.cluster_size = 1ULL << cluster_bits;
    if (!h.backing_offset || !h.backing_bytes)
        h.backing_offset = h.backing_bytes = 0;
    else if (!range_fits(h.backing_offset, h.backing_bytes, h.cluster_size))
        return -EBADMSG; /* the name is in the first cluster */
    if (h.version == 3)
        read_version_3(&h, &c);
    if (c.bad)
        return -EBADMSG;
    read_extensions(&h, &c);
    *ret = h;
    return 0;
}
