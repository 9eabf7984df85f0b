/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See state_field.h. */
#include "base/state_field.h"

#include <inttypes.h>

struct place {
    uint8_t *at;
    uint32_t count;
    size_t stride;
};

static struct place place_of(const struct state_field *f, const void *base)
{
    struct place p = {(uint8_t *)(uintptr_t)base + f->offset, f->count,
                      f->stride ? f->stride : f->size};
    if (f->bytes_max) {
        const GByteArray *a = *(GByteArray *const *)(void *)p.at;
        return (struct place){a ? a->data : NULL, a ? a->len : 0, 1};
    }
    if (f->at)
        p.at = f->at((void *)(uintptr_t)base, &p.count);
    if (!p.at)
        p.count = 0;
    return p;
}

void state_fields_save(const struct state_field *table, const void *base, GByteArray *out)
{
    for (const struct state_field *f = table; f && f->name; f++) {
        struct place p = place_of(f, base);
        if (f->bytes_max && !p.count)
            continue;
        uint8_t name_len = (uint8_t)strlen(f->name);
        g_byte_array_append(out, &name_len, 1);
        g_byte_array_append(out, (const uint8_t *)f->name, name_len);
        g_byte_array_append(out, (const uint8_t *)&f->size, 4);
        g_byte_array_append(out, (const uint8_t *)&p.count, 4);
        for (uint32_t i = 0; i < p.count; i++)
            g_byte_array_append(out, p.at + i * p.stride, f->size);
    }
}

static bool check_value(const struct state_field *f, const uint8_t *from, uint32_t i,
                        const char *who, GError **error)
{
    uint64_t max = f->boolean ? 1 : f->max, val = 0;
    if (!max || f->size > sizeof(val))
        return true;
    memcpy(&val, from, f->size);
    return val <= max ||
           ruche_error(error, RUCHE_ERR_INVALID,
                       "state of %s: field '%s' [%u] is %" PRIu64 ", and can be at most %" PRIu64,
                       who, f->name, i, val, max);
}

static bool check_field(struct cur *c, const struct state_field *f, const struct place *p,
                        const char *who, const uint8_t **ret_data, GError **error)
{
    char name[256] = {0};
    cur_copy(c, name, cur_u8(c));
    uint32_t size = cur_le32(c), count = cur_le32(c);
    if (c->bad || strcmp(name, f->name))
        return ruche_error(error, RUCHE_ERR_INVALID, "state of %s: field '%s' is missing", who,
                           f->name);
    if (size != f->size || count != p->count)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "state of %s: field '%s' has %u elements of %u bytes, but needs %u of %u", who, f->name,
            count, size, p->count, f->size);
    const uint8_t *from = cur_take(c, (size_t)size * count);
    if (!from)
        return ruche_error(error, RUCHE_ERR_INVALID, "state of %s: field '%s' is cut off", who,
                           f->name);
    for (uint32_t i = 0; i < count; i++)
        if (!check_value(f, from + (size_t)i * size, i, who, error))
            return false;
    *ret_data = from;
    return true;
}

/* Is the next row this one? */
static bool is_next(const struct cur *c, const struct state_field *f)
{
    struct cur look = *c;
    char name[256] = {0};
    cur_copy(&look, name, cur_u8(&look));
    return !look.bad && !strcmp(name, f->name);
}

/* Bytes of any number up to the row's limit; or none. */
static bool load_bytes(struct cur *c, const struct state_field *f, void *base, bool apply,
                       const char *who, GError **error)
{
    GByteArray **to = (GByteArray **)(void *)((uint8_t *)base + f->offset);
    const uint8_t *from = NULL;
    struct place p = {0};
    if (is_next(c, f)) {
        struct cur look = *c;
        cur_take(&look, (size_t)cur_u8(&look) + sizeof(uint32_t));
        p.count = cur_le32(&look);
        if (p.count > f->bytes_max)
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "state of %s: field '%s' has %u bytes, and can have at most %u", who,
                               f->name, p.count, f->bytes_max);
        if (!check_field(c, f, &p, who, &from, error))
            return false;
    }
    if (!apply)
        return true;
    g_clear_pointer(to, g_byte_array_unref);
    if (p.count) {
        *to = g_byte_array_new();
        g_byte_array_append(*to, from, p.count);
    }
    return true;
}

bool state_fields_load(const struct state_field *table, void *base, const char *who, struct cur *c,
                       GError **error)
{
    struct cur begin = *c;
    for (int apply = 0; apply < 2; apply++) {
        *c = begin;
        for (const struct state_field *f = table; f && f->name; f++) {
            struct place p = place_of(f, base);
            const uint8_t *from = NULL;
            if (f->bytes_max) {
                if (!load_bytes(c, f, base, apply, who, error))
                    return false;
                continue;
            }
            if (!check_field(c, f, &p, who, &from, error) ||
                (!apply && f->check && !f->check(base, from, who, error)))
                return false;
            for (uint32_t i = 0; apply && i < p.count; i++)
                memcpy(p.at + i * p.stride, from + (size_t)i * f->size, f->size);
        }
    }
    return true;
}
