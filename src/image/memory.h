/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files in memory, for tests and fuzzers: the protocol driver "memory" ("memory://NAME"), a record
 * of all that was written, and what a power cut may leave of it.
 *
 * Owner     The test: memory_file_new() ... memory_file_free(), while no node has it open.
 * Thread    One.
 * Units     Bytes. Sparse: what was never written takes nothing; copies share what they have in
 * common.
 */
#pragma once

#include "image/node.h"

struct memory_file;

/* Known as memory://name from now on; takes the place of a former one of that name. */
struct memory_file *memory_file_new(const char *name, uint64_t size);
void memory_file_free(struct memory_file *f);           /* NULL is fine */
struct memory_file *memory_file_find(const char *name); /* borrowed, or NULL */
/* Makes `to` the same as `from`; records, limits and delays stay. */
void memory_file_assign(struct memory_file *to, const struct memory_file *from);
/* Makes it exactly these bytes. */
void memory_file_set(struct memory_file *f, const void *bytes, size_t len);
uint64_t memory_file_size(const struct memory_file *f);
uint64_t memory_file_allocated(const struct memory_file *f);
/* Zeroes where nothing is, also past the end. */
void memory_file_read(const struct memory_file *f, uint64_t off, void *to, size_t len);
/* Grows it where needed; false: over the limit. */
bool memory_file_write(struct memory_file *f, uint64_t off, const void *from, size_t len);
/* The medium: writes that would take more fail with -ENOSPC. UINT64_MAX: none. */
void memory_file_limit(struct memory_file *f, uint64_t allocated_bytes);
/* From now on requests wait some microseconds by chance, so that they overtake one another. 0: no
 * more. */
void memory_file_delay(struct memory_file *f, guint32 seed);

/* ---- the record ---- */

enum memory_op { MEMORY_WRITE, MEMORY_ZERO, MEMORY_RESIZE, MEMORY_FLUSH };
struct memory_event {
    enum memory_op op;
    uint64_t off, len; /* RESIZE: off is the new size */
    uint8_t *data;     /* WRITE */
};
/* Everything that succeeds is recorded from now on, in the order in which it happened; an old
 * record goes. */
void memory_file_record(struct memory_file *f, bool on);
unsigned memory_file_event_count(const struct memory_file *f);
const struct memory_event *memory_file_event(const struct memory_file *f, unsigned i);
/* Does it again, on `to`. */
void memory_event_apply(struct memory_file *to, const struct memory_event *e);
/* The same as a failing medium does: each sector of 512 bytes by chance. */
void memory_event_apply_torn(struct memory_file *to, const struct memory_event *e, GRand *chance);
