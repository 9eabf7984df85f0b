/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a qcow2 image says about itself in its first bytes: enough for a list of volumes, without a program for each.
 *
 * Spec      QEMU docs/interop/qcow2.txt, header and header extensions.
 * Trust     The bytes are hostile: read once through a bounded cursor, numbers checked against the
 *           format's limits.
 * Thread    Any.
 */
#pragma once

#include "base/util.h"

enum { QCOW2_HEAD_BYTES = 4096, QCOW2_BACKING_MAX = 1023 };

struct qcow2_head {
    unsigned version;           /* 2 or 3 */
    uint64_t capacity, cluster_size;
    uint64_t backing_offset;
    unsigned backing_bytes;     /* 0: no backing file; at most QCOW2_BACKING_MAX */
    char backing_format[32];    /* "": not told */
    bool encrypted, lazy_refcounts, extended_l2;
};
/* 0; -EBADMSG: it is none, or broken. */
int qcow2_head_parse(const uint8_t *data, size_t len, struct qcow2_head *ret);
