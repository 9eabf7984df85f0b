/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device's saved state, made from its table of fields.
 *
 * Format    Per field: u8 name length, name, u32 element size, u32 count, the elements in little-endian host
 *           order. A loader takes only exactly what its table says; see docs/devices.md.
 * Trust     The bytes come from a file or a peer.
 */
#include "base/cursor.h"
#include "machine/device.h"

GByteArray *device_state_save(const struct device *d)
{
    GByteArray *out = g_byte_array_new();
    for (const struct state_field *f = d->type->state; f && f->name; f++) {
        uint8_t name_len = (uint8_t)strlen(f->name);
        g_byte_array_append(out, &name_len, 1);
        g_byte_array_append(out, (const uint8_t *)f->name, name_len);
        g_byte_array_append(out, (const uint8_t *)&f->size, 4);
        g_byte_array_append(out, (const uint8_t *)&f->count, 4);
        g_byte_array_append(out, (const uint8_t *)d + f->offset, f->size * f->count);
    }
    return out;
}

static bool load_field(struct cur *c, const struct state_field *f, const struct device *d,
                       const uint8_t **ret_data, GError **error)
{
    char name[256] = { 0 };
    cur_copy(c, name, cur_u8(c));
    uint32_t size = cur_le32(c), count = cur_le32(c);
    if (c->bad || strcmp(name, f->name))
        return ruche_error(error, RUCHE_ERR_INVALID, "state of device '%s': field '%s' is missing",
                           d->type->name, f->name);
    if (size != f->size || count != f->count)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "state of device '%s': field '%s' has %u elements of %u bytes, but needs %u of %u",
                           d->type->name, f->name, count, size, f->count, f->size);
    *ret_data = cur_take(c, (size_t)size * count);
    if (!*ret_data)
        return ruche_error(error, RUCHE_ERR_INVALID, "state of device '%s': field '%s' is cut off",
                           d->type->name, f->name);
    return true;
}

/* Two passes, so that a bad state changes nothing. */
bool device_state_load(struct device *d, const uint8_t *data, size_t len, GError **error)
{
    for (int apply = 0; apply < 2; apply++) {
        struct cur c = cur_of(data, len);
        for (const struct state_field *f = d->type->state; f && f->name; f++) {
            const uint8_t *from;
            if (!load_field(&c, f, d, &from, error))
                return false;
            if (apply)
                memcpy((uint8_t *)d + f->offset, from, (size_t)f->size * f->count);
        }
        if (c.left)
            return ruche_error(error, RUCHE_ERR_INVALID, "state of device '%s': %zu bytes too many",
                               d->type->name, c.left);
    }
    return true;
}
