/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stream of a migration, as a peer or a file could say it. Sums are put right, so that what is behind them is reached.
 *
 * Input     Records; each one's length is its own, bounded by what is left.
 */
#include "vmm/migrate_stream.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LOW_PAGES 16u
#define HIGH_PAGES 16u
#define GUARD 4096u

static uint8_t ram[(LOW_PAGES + HIGH_PAGES) * MIGRATE_PAGE + 2 * GUARD] __attribute__((aligned(4096)));

struct input {
    const uint8_t *data;
    size_t left;
};

static bool feed(void *opaque, void *buf, size_t len, GError **error)
{
    struct input *in = opaque;
    if (len > in->left)
        return ruche_error(error, RUCHE_ERR_IO, "the input ends");
    memcpy(buf, in->data, len);
    in->data += len;
    in->left -= len;
    return true;
}

/* Puts sums right in place, record by record. */
static void fix(uint8_t *p, size_t size)
{
    for (uint64_t number = 0; size >= MIGRATE_PAGE; number++) {
        uint32_t payload, zero = 0;
        memcpy(p, "RUCHEVM\n", 8);
        memcpy(p + 12, &zero, 4);
        memcpy(p + 16, &number, 8);
        memcpy(&payload, p + 24, 4);
        size_t whole = MIGRATE_PAGE + align_up(payload <= MIGRATE_PAYLOAD_MAX ? payload : 0, MIGRATE_PAGE);
        if (whole > size)
            return;
        uint32_t crc = migrate_crc(0, p, whole);
        memcpy(p + 12, &crc, 4);
        p += whole;
        size -= whole;
    }
}

static void read_all(const uint8_t *data, size_t size)
{
    struct input in = { .data = data, .left = size };
    struct migrate_ram r = { .low = ram + GUARD, .low_pages = LOW_PAGES, .high_first = 1u << 20, .high_pages = HIGH_PAGES,
                             .high = ram + GUARD + LOW_PAGES * MIGRATE_PAGE };
    struct migrate_reader reader;
    struct migrate_head head = { 0 };
    GByteArray *state = NULL;
    char *run_state = NULL;
    if (!migrate_reader_init(&reader, feed, &in))
        return;
    if (migrate_read_head(&reader, &head, NULL) && migrate_read_body(&reader, &r, &state, &run_state, NULL)) {
        g_byte_array_unref(state);
        g_free(run_state);
        migrate_read_go(&reader, NULL);
    }
    migrate_head_done(&head);
    migrate_reader_done(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 64u << 20)
        return 0;
    uint8_t *copy = malloc(size + 1);
    if (!copy)
        return 0;
    memcpy(copy, data, size);
    read_all(copy, size);
    fix(copy, size);
    read_all(copy, size);
    free(copy);
    for (unsigned i = 0; i < GUARD; i++)
        if (ram[i] || ram[sizeof(ram) - 1 - i])
            abort();
    return 0;
}
