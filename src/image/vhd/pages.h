/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Metadata of an image in a bounded cache of pages, whose changes reach the file only behind what
 * they speak of.
 *
 * A change is kept until pages_commit(): it copies the changed pages, has the file synced (so that
 * the data and new blocks that they refer to are durable), hands the copies to the format's log, if
 * there is one, and writes them in place. A page that is changed meanwhile waits for the next
 * commit. So callers change metadata when the data is written, not when it is durable, and pay for
 * order only when somebody flushes.
 *
 * Owner     pages_new() ... pages_free(); borrows the file node.
 * Fiber     All of it but new and free, in fibers of the file's context; they may wait.
 * Units     Bytes, offsets in the file. Ranges may cross pages. What lies behind the file's end
 *           reads as zero.
 * Memory    max_pages pages and as many copies as may be dirty, allocated as they are first
 *           needed.
 * Errors    0 or -errno. A failed commit keeps its pages changed.
 */
#pragma once

#include "image/node.h"

struct pages;

/* A changed page, as it was when the commit began. */
struct page_copy {
    uint64_t off;
    uint8_t *data;
};

struct pages_config {
    uint32_t page_bytes; /* power of two */
    unsigned max_pages;  /* at least 16 */
    unsigned max_dirty;  /* at most max_pages / 2; the next change commits first */
    /* Makes the copies durable elsewhere, before they are written in place. NULL: no log, and
     * pages_commit() syncs once more. Sorted by offset. */
    int (*log)(void *opaque, const struct page_copy *copies, unsigned count);
    /* Changes what was read from the file at `off`: a log that could not be replayed. NULL: none.
     */
    void (*overlay)(void *opaque, uint64_t off, uint8_t *buf, size_t len);
    void *opaque;
};

struct pages *pages_new(struct node *file, const struct pages_config *c);
void pages_free(struct pages *p); /* changes are lost; NULL is fine */
int pages_read(struct pages *p, uint64_t off, void *buf, size_t len);
int pages_write(struct pages *p, uint64_t off, const void *buf, size_t len);
/* The file was written behind the cache's back: the range is not what it was. */
void pages_forget(struct pages *p, uint64_t off, size_t len);
bool pages_are_dirty(const struct pages *p);
/* All changes made before are durable, and everything written to the file, too. */
int pages_commit(struct pages *p);

/* How many blocks of a source are not all zero: what a new image would hold. (f) */
bool pages_count_blocks(struct node *source, uint64_t block_bytes, uint64_t *ret, GError **error);
