/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device's saved state: the tables of what it is made of (a PCI function, a virtio device), then
 * its own.
 *
 * Format    base/state_field.h; docs/devices.md.
 * Trust     The bytes come from a file or a peer.
 */
#include "machine/device.h"

#include <stdio.h>

#define MAX_BASES 4

/* Bottom first. */
static unsigned bases_of(const struct device *d, const struct device_base *ret[MAX_BASES])
{
    unsigned n = 0;
    for (const struct device_base *b = d->base; b && n < MAX_BASES; b = b->below) {
        memmove(ret + 1, ret, n++ * sizeof(ret[0]));
        ret[0] = b;
    }
    return n;
}

static void name_of(const struct device *d, char *ret, size_t size)
{
    snprintf(ret, size, "device '%s'%s%s%s", d->type->name, d->id ? " (" : "", d->id ? d->id : "",
             d->id ? ")" : "");
}

bool device_state_prepare(struct device *d, GError **error)
{
    const struct device_base *base[MAX_BASES];
    unsigned n = bases_of(d, base);
    for (unsigned i = 0; i < n; i++)
        if (base[i]->save_before && !base[i]->save_before(d, error))
            return false;
    return !d->type->save_before || d->type->save_before(d, error);
}

GByteArray *device_state_save(const struct device *d)
{
    const struct device_base *base[MAX_BASES];
    unsigned n = bases_of(d, base);
    GByteArray *out = g_byte_array_new();
    for (unsigned i = 0; i < n; i++)
        state_fields_save(base[i]->state, d, out);
    state_fields_save(d->type->state, d, out);
    return out;
}

/* Each table is taken whole or not at all; a device of which one was refused is only fit to be
 * reset. */
bool device_state_load(struct device *d, const uint8_t *data, size_t len, GError **error)
{
    const struct device_base *base[MAX_BASES];
    unsigned n = bases_of(d, base);
    char who[256];
    name_of(d, who, sizeof(who));
    struct cur c = cur_of(data, len);
    for (unsigned i = 0; i <= n; i++) {
        const struct state_field *table = i < n ? base[i]->state : d->type->state;
        if (!state_fields_load(table, d, who, &c, error))
            return false;
    }
    if (c.left)
        return ruche_error(error, RUCHE_ERR_INVALID, "state of %s: %zu bytes too many", who,
                           c.left);
    return true;
}

bool device_state_loaded(struct device *d, GError **error)
{
    const struct device_base *base[MAX_BASES];
    unsigned n = bases_of(d, base);
    for (unsigned i = 0; i < n; i++)
        if (base[i]->load_after && !base[i]->load_after(d, error))
            return false;
    return !d->type->load_after || d->type->load_after(d, error);
}

void device_stopped(struct device *d, bool stopped)
{
    const struct device_base *base[MAX_BASES];
    unsigned n = bases_of(d, base);
    for (unsigned i = 0; i < n; i++)
        if (base[i]->stopped)
            base[i]->stopped(d, stopped);
}
