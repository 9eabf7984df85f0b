/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Metadata to and from the image file, and the end of trust in it.
 *
 * Thread    The node's home thread.
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <string.h>

int qcow2_meta_read(struct qcow2 *s, uint64_t off, void *buf, size_t len)
{
    uint64_t size = node_size(qcow2_file(s));
    size_t there = off < size ? min_u64(len, size - off) : 0;
    memset((uint8_t *)buf + there, 0, len - there);
    return there ? node_pread(qcow2_file(s), off, buf, there) : 0;
}

int qcow2_meta_write(struct qcow2 *s, unsigned mine, uint64_t off, const void *buf, size_t len)
{
    int r = qcow2_check_overlap(s, mine, off, len);
    return r ? r : node_pwrite(qcow2_file(s), off, buf, len, 0);
}

int qcow2_meta_sync(struct qcow2 *s)
{
    return node_flush(qcow2_file(s));
}

struct node *qcow2_backing(const struct qcow2 *s)
{
    for (unsigned i = 0; i < s->node.child_count; i++)
        if (s->node.children[i]->role == CHILD_BACKING)
            return s->node.children[i]->node;
    return NULL;
}

static void mark_corrupt(struct qcow2 *s)
{
    if (s->header.version < 3 || s->node.read_only ||
        (s->header.incompatible & QCOW2_INCOMPAT_CORRUPT))
        return;
    if (qcow2_header_set_incompatible(s, QCOW2_INCOMPAT_CORRUPT, 0))
        g_warning("'%s' cannot be marked as corrupt", node_name(&s->node));
}

int qcow2_corrupt(struct qcow2 *s, bool fatal, int64_t offset, uint64_t size, const char *format,
                  ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    if (fatal)
        mark_corrupt(s);
    return node_corrupt(&s->node, fatal, offset, size, "%s", what);
}
