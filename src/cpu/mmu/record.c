/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Records accesses of an interpreted run. Contract in record.h.
 *
 * Thread    The vCPU's own. Guest memory may change under our hands: bytes are copied as they are.
 */
#include "cpu/mmu/record.h"

#include <string.h>

void mmu_record_refuse(struct cpu *c)
{
    longjmp(c->record->out, 1);
}

void mmu_record_access(struct cpu *c, uint8_t *host, unsigned size, bool write)
{
    struct mmu_record *r = c->record;
    unsigned room = write ? 2 * size : size;

    if (r->count == RECORD_ACCESSES || room > RECORD_BYTES - r->used)
        mmu_record_refuse(c);
    r->access[r->count++] =
        (struct mmu_recorded){ .host = host, .at = r->used, .size = (uint16_t)size, .write = write };
    memcpy(r->bytes + r->used, host, size);
    r->used += room;
}

/* Backwards: of several writes to a place, the first knows what was there; the last one's contents are what stays. */
void mmu_record_undo(struct mmu_record *r)
{
    for (unsigned k = 0; k < r->count; k++) {
        const struct mmu_recorded *a = &r->access[k];
        if (a->write)
            memcpy(r->bytes + a->at + a->size, a->host, a->size);
    }
    for (unsigned k = r->count; k-- > 0;) {
        const struct mmu_recorded *a = &r->access[k];
        if (a->write)
            memcpy(a->host, r->bytes + a->at, a->size);
    }
}

const uint8_t *mmu_record_differs(const struct mmu_record *r)
{
    for (unsigned k = 0; k < r->count; k++) {
        const struct mmu_recorded *a = &r->access[k];
        for (unsigned n = 0; a->write && n < a->size; n++)
            if (a->host[n] != r->bytes[a->at + a->size + n])
                return a->host + n;
    }
    return NULL;
}

static bool overlaps(const struct mmu_recorded *a, const struct mmu_recorded *b)
{
    return a->host < b->host + b->size && b->host < a->host + a->size;
}

static bool is_written(const struct mmu_record *r, const struct mmu_recorded *a)
{
    for (unsigned k = 0; k < r->count; k++)
        if (r->access[k].write && overlaps(&r->access[k], a))
            return true;
    return false;
}

bool mmu_record_stale(const struct mmu_record *r)
{
    for (unsigned k = 0; k < r->count; k++) {
        const struct mmu_recorded *a = &r->access[k];
        if (!a->write && memcmp(a->host, r->bytes + a->at, a->size) && !is_written(r, a))
            return true;
    }
    return false;
}
