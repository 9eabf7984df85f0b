/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A view of `len` bytes in scattered memory: slicing costs nothing and copies no vectors.
 *
 * Owner     Borrows the iovec array, which outlives every view of it.
 * Units     Bytes.
 */
#pragma once

#include "base/util.h"

#include <sys/uio.h>

struct vec {
    const struct iovec *iov; /* the first one that has bytes of ours */
    size_t skip;             /* bytes of iov[0] before ours */
    size_t len;              /* total; the array holds at least skip + len */
};

/* All of iov[0 .. count). */
struct vec vec_of(const struct iovec *iov, unsigned count);
/* One flat buffer; *iov must outlive the view and is set here. */
struct vec vec_flat(struct iovec *iov, const void *buf, size_t len);
/* Bytes [off, off + len) of v, which must lie inside. */
struct vec vec_slice(struct vec v, size_t off, size_t len);
/* Fills at most `max` iovecs with the head of v; returns how many, and their bytes in *ret_len. */
unsigned vec_to_iov(struct vec v, struct iovec *ret, unsigned max, size_t *ret_len);
void vec_read(struct vec v, void *to);         /* v.len bytes out of v */
void vec_write(struct vec v, const void *from); /* v.len bytes into v */
void vec_fill(struct vec v, uint8_t byte);
bool vec_is_zero(struct vec v);
/* All pointers and lengths are multiples of their alignment (powers of two). */
bool vec_is_aligned(struct vec v, size_t mem_align, size_t len_align);
/* len bytes at p are all zero; len any. */
bool bytes_are_zero(const void *p, size_t len);
