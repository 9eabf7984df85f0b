/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The bytes of a migration: records of whole pages, in one direction; answers in the other.
 *
 * Record    A page of header, then up to 255 pages of payload, the last filled up with zeroes. Numbers are little-endian.
 *             0  8  "RUCHEVM\n"
 *             8  4  kind                     12  4  CRC-32C of the whole record, this field as zero
 *            16  8  number of the record, from 0 in each direction
 *            24  4  bytes of payload         28  4  extents
 *            32     extents: 8 first page of guest-physical memory, 4 pages, 4 flags (1: zeroes, not in the payload)
 * Order     HEAD; RAM ...; STATE ...; END; and GO where there are answers, which END waits for. A page may come
 *           several times: the last holds. RAM that never comes is zero.
 * Head      u32 version, u32 flags (1: answers are wanted), then u32 count and as many pairs of name and
 *           value: what the machine is. Texts: u16 length, UTF-8. A machine takes only what has the same pairs.
 * State     The pieces of machine_state_save(), one behind the other.
 * End       The run state when it was saved, as query-status has it.
 * Answer    u32 1 (yes) or 0, and a text that says why not.
 * Why       Whole pages keep big writes aligned, in files and in memory; the numbers and the sums find every cut, gap,
 *           exchange and flip.
 * Thread    Any; an object belongs to one.
 * Trust     All that is read is hostile: lengths are bounded before they are used, and nothing is taken from a record
 *           whose sum is wrong.
 * Errors    A sentence with the record's number.
 */
#pragma once

#include "base/error.h"
#include "base/util.h"

#define MIGRATE_VERSION 1
#define MIGRATE_PAGE 4096u
#define MIGRATE_PAYLOAD_MAX (255u * MIGRATE_PAGE)
#define MIGRATE_RECORD_MAX (MIGRATE_PAGE + MIGRATE_PAYLOAD_MAX)
#define MIGRATE_EXTENTS_MAX 254u
#define MIGRATE_STATE_MAX (64u << 20)
#define MIGRATE_ITEMS_MAX 4096u
#define MIGRATE_TEXT_MAX 1024u

enum migrate_kind { MIGRATE_HEAD = 1, MIGRATE_RAM, MIGRATE_STATE, MIGRATE_END, MIGRATE_GO, MIGRATE_ANSWER };

/* Moves all of the bytes, or says why not. */
typedef bool migrate_move_fn(void *opaque, void *buf, size_t len, GError **error);

/* CRC-32C. crc: 0, or that of the bytes before. */
uint32_t migrate_crc(uint32_t crc, const void *data, size_t len);
bool migrate_is_zero(const void *page);

/* ---- guest RAM by guest-physical pages ---- */

struct migrate_ram {
    uint8_t *low, *high;
    uint64_t low_pages, high_first, high_pages;
};
/* Host address of a run of pages, or NULL: not all of them are RAM. */
uint8_t *migrate_ram_at(const struct migrate_ram *r, uint64_t page, uint64_t count);

/* ---- what the machine is ---- */

struct migrate_head {
    bool answers;
    GPtrArray *items;           /* name, value, name, value ... */
};
void migrate_head_init(struct migrate_head *h);
void migrate_head_done(struct migrate_head *h);
void migrate_head_add(struct migrate_head *h, const char *name, const char *format, ...) G_GNUC_PRINTF(3, 4);
/* False: the first thing in which the machine that was saved differs from ours. */
bool migrate_head_fits(const struct migrate_head *saved, const struct migrate_head *own, GError **error);

/* ---- writing ---- */

struct migrate_writer {
    migrate_move_fn *write;
    void *opaque;
    uint8_t *record;            /* MIGRATE_RECORD_MAX, aligned; what is filled */
    uint32_t payload_bytes, extents;
    uint64_t number;            /* of the next record */
};
bool migrate_writer_init(struct migrate_writer *w, migrate_move_fn *write, void *opaque); /* false: no memory */
void migrate_writer_done(struct migrate_writer *w);
bool migrate_write_head(struct migrate_writer *w, const struct migrate_head *h, GError **error);
/* Takes a page into the record in hand (data NULL: it is zero); false: the record is full, flush first. */
bool migrate_add_page(struct migrate_writer *w, uint64_t page, const void *data);
/* Bytes that migrate_flush_ram() would write; 0: none. */
size_t migrate_waiting_bytes(const struct migrate_writer *w);
bool migrate_flush_ram(struct migrate_writer *w, GError **error);
bool migrate_write_state(struct migrate_writer *w, const void *state, size_t len, GError **error);
bool migrate_write_end(struct migrate_writer *w, const char *run_state, GError **error);
bool migrate_write_go(struct migrate_writer *w, GError **error);
bool migrate_write_answer(struct migrate_writer *w, const char *why_not, GError **error); /* NULL: yes */

/* ---- reading ---- */

struct migrate_reader {
    migrate_move_fn *read;
    void *opaque;
    uint8_t *record;
    uint64_t number;
};
bool migrate_reader_init(struct migrate_reader *r, migrate_move_fn *read, void *opaque);
void migrate_reader_done(struct migrate_reader *r);
bool migrate_read_head(struct migrate_reader *r, struct migrate_head *ret, GError **error);
/* Up to END: RAM goes to its place at once; the state and the run state's name are the caller's. */
bool migrate_read_body(struct migrate_reader *r, const struct migrate_ram *ram, GByteArray **ret_state,
                       char **ret_run_state, GError **error);
bool migrate_read_go(struct migrate_reader *r, GError **error);
/* False: it says no (its own sentence), or is none. */
bool migrate_read_answer(struct migrate_reader *r, GError **error);
