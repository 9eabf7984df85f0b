/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One change of a file as it stands in the store's log.
 *
 * Format    Little endian, from the record's begin: check of all that follows (8 bytes), length of
 * the record (4), kind (2), length of the path (2), epoch (8), number in the epoch from 0 (8), mode
 * (4), length of the text (4), time (8), time of what stood there (8), path, NUL, text, NUL, zeroes
 * up to the next multiple of 512: so no sector with a record that counts is ever written again.
 * Thread    Any.
 * Trust     Bytes are what a power cut left. A record counts if its check, epoch and number are
 * right; its path is below the folder, its texts end where they say.
 */
#pragma once

#include "base/cursor.h"

#include <stdint.h>

#define STORE_SECTOR 512u

enum store_kind { STORE_WRITE = 1, STORE_LINK, STORE_REMOVE, STORE_KINDS };

struct store_record {
    enum store_kind kind;
    uint32_t mode;
    const char *path,
        *text;       /* path: relative to the log's folder; text: of a file, of a link, else "" */
    int64_t time_ns; /* each record's is later than the one's before */
    int64_t old_ns;  /* when that which stood there had been modified; 0: nothing stood there */
};

size_t store_record_bytes(const struct store_record *r);
/* Fills exactly that many bytes. */
void store_record_put(uint8_t *to, uint64_t epoch, uint64_t number, const struct store_record *r);
/* Writes the check of a record of that many bytes. */
void store_record_seal(uint8_t *record, size_t bytes);
/* Which epoch a record that begins here claims to be of; 0: this is none. */
uint64_t store_record_epoch(struct cur c);
/* Takes the next one; its texts are borrowed from the bytes. False: there are no more. */
bool store_record_take(struct cur *c, uint64_t epoch, uint64_t number, struct store_record *ret);
