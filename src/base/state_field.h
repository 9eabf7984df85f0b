/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saved state from tables: which fields of a struct are saved, how wide they are, what they may be.
 *
 * Format    Per field: u8 length of the name, the name, u32 size of an element, u32 count, the
 *           elements, all little-endian. A loader takes exactly what its table says, in order.
 * Thread    Whoever owns the struct, with nobody else in it.
 * Trust     What is loaded comes from a file or a peer. Booleans must be 0 or 1, and a row's `max`
 *           holds; what depends on other fields is the owner's to check.
 * Errors    A sentence that names owner, field, value and limit; then nothing was changed.
 */
#pragma once

#include "base/cursor.h"
#include "base/error.h"

struct state_field {
    const char *name;
    size_t offset;
    uint32_t size; /* bytes of one element; of more than 8 only for bytes without a meaning of their
                      own */
    uint32_t count; /* elements */
    size_t stride;  /* from one element to the next; 0: size */
    bool boolean;
    uint64_t max; /* of numbers; 0: none but the width's */
    /* Of bytes with a meaning of their own, while `base` still has what was there; NULL: none. */
    bool (*check)(const void *base, const uint8_t *from, const char *who, GError **error);
    /* Where the elements are, when they are not in the struct, and how many; NULL for none. */
    void *(*at)(void *base, uint32_t *ret_count);
    /* The member is a GByteArray *, owned by the struct, of at most so many bytes. The row is there only when it has
     * any, and the member NULL where the row is not: what lacks it can be older. 0: not of this kind. */
    uint32_t bytes_max;
};

/* Extra members follow as designated initialisers: STATE(struct serial, ier, .max = 15). */
#define STATE_ROW(text, type, field, element, n, ...)                                              \
    {                                                                                              \
        .name = text, .offset = offsetof(type, field), .size = sizeof(((type *)0)->element),       \
        .count = n,                                                                                \
        .boolean = _Generic(((type *)0)->element, bool                                             \
                            : true, default                                                        \
                            : false),                                                              \
        __VA_ARGS__                                                                                \
    }
#define STATE(type, field, ...) STATE_ROW(#field, type, field, field, 1, __VA_ARGS__)
#define STATE_ARRAY(type, field, ...)                                                              \
    STATE_ROW(#field, type, field, field[0], ARRAY_COUNT(((type *)0)->field), __VA_ARGS__)
/* A member of every struct in an array of structs. */
#define STATE_OF_EACH(type, array, member, ...)                                                    \
    STATE_ROW(#array "." #member, type, array[0].member, array[0].member,                          \
              ARRAY_COUNT(((type *)0)->array), .stride = sizeof(((type *)0)->array[0]),            \
              __VA_ARGS__)

/* A GByteArray *: bytes with a meaning of their own. */
#define STATE_BYTES(type, field, most)                                                             \
    {                                                                                              \
        .name = #field, .offset = offsetof(type, field), .size = 1, .bytes_max = most              \
    }

/* `table` ends with a row without a name; NULL: no fields. */
void state_fields_save(const struct state_field *table, const void *base, GByteArray *out);
/* Two passes over the cursor, so that a bad state changes nothing. `who` begins the sentence. */
bool state_fields_load(const struct state_field *table, void *base, const char *who, struct cur *c,
                       GError **error);
