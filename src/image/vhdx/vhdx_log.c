/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The log of VHDX files: finding what a crash left in it, replaying it, and writing it.
 *
 * Spec      [MS-VHDX] 2.3 (log), 2.3.3 (log replay).
 * Crash     A commit (vhd/pages.c) syncs, then writes one entry that holds all changed pages and
 *           is its own tail, syncs, and writes the pages in place; the next commit's first sync
 *           covers those. So at any instant the newest whole entry in the log is all there is to
 *           replay, and doing so twice does no harm. No entry is larger than a third of the log,
 *           so that writing one never touches the one before. The header names the log only once
 *           its first entry is durable, and forgets it on closing.
 * Trust     A log is hostile: its size, the bytes that are summed, the heads that are tried and
 *           every descriptor are bounded. A reader that may not write sees the log's pages over
 *           the file's.
 */
#include "image/vhdx/vhdx.h"

#include "base/cursor.h"
#include "image/crypto.h"
#include "image/vhd/put.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define ENTRY_SIGNATURE  0x65676f6cu /* "loge" */
#define ZERO_SIGNATURE   0x6f72657au /* "zero" */
#define DATA_SIGNATURE   0x63736564u /* "desc" */
#define SECTOR_SIGNATURE 0x61746164u /* "data" */
#define ENTRY_HEADER     64u
#define DESCRIPTOR       32u
#define CHECKSUM_AT      4
#define SUMMED_MAX       16 /* times the log's size: what is summed of a hostile one */
#define HEADS_MAX        64 /* that are tried, the newest first */

struct entry {
    uint32_t at, len, tail, descriptors;
    uint64_t sequence, flushed_size, last_size;
};

struct entries {
    uint32_t log_bytes;
    struct entry *all; /* by place */
    unsigned count;
};

/* What is to be in the file. */
struct patch {
    uint64_t off, len;
    const uint8_t *data; /* VHDX_PAGE bytes; NULL: zeroes */
};

struct vhdx_log {
    uint8_t *bytes; /* the log, twice, so that an entry that wraps is in one piece */
    uint8_t *pages; /* of patches */
    struct patch *patches;
    unsigned count, page_count;
    uint64_t last_size; /* the file's */
};

void vhdx_log_free(struct vhdx_log *log)
{
    if (!log)
        return;
    g_free(log->bytes);
    g_free(log->pages);
    g_free(log->patches);
    g_free(log);
}

/* ---- finding ---- */

static uint32_t descriptor_bytes(uint32_t count)
{
    return (uint32_t)align_up(ENTRY_HEADER + (uint64_t)count * DESCRIPTOR, VHDX_PAGE);
}

/* An entry at `at` that is whole; *budget bytes may still be summed. */
static bool load_entry(const struct vhdx *v, const uint8_t *bytes, uint32_t at, uint64_t *budget,
                       struct entry *ret)
{
    struct cur c = cur_of(bytes + at, ENTRY_HEADER);
    struct entry e = {.at = at};
    uint32_t signature = cur_le32(&c), checksum = cur_le32(&c);
    e.len = cur_le32(&c);
    e.tail = cur_le32(&c);
    e.sequence = cur_le64(&c);
    e.descriptors = cur_le32(&c);
    cur_le32(&c);
    uint8_t guid[VHDX_GUID];
    cur_copy(&c, guid, sizeof(guid));
    e.flushed_size = cur_le64(&c);
    e.last_size = cur_le64(&c);
    if (signature != ENTRY_SIGNATURE || memcmp(guid, v->header.log_guid, VHDX_GUID))
        return false;
    if (!e.len || e.len % VHDX_PAGE || e.len > v->header.log_bytes || e.tail % VHDX_PAGE ||
        e.tail >= v->header.log_bytes || !e.sequence || e.descriptors > e.len / DESCRIPTOR ||
        descriptor_bytes(e.descriptors) > e.len || e.len > *budget)
        return false;
    *budget -= e.len;
    if (vhdx_checksum(bytes + at, e.len, CHECKSUM_AT) != checksum)
        return false;
    *ret = e;
    return true;
}

static struct entry *entry_at(const struct entries *s, uint32_t at)
{
    for (unsigned lo = 0, hi = s->count; lo < hi;) {
        unsigned mid = (lo + hi) / 2;
        if (s->all[mid].at == at)
            return &s->all[mid];
        if (s->all[mid].at < at)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

/* The entry right behind, when it continues; NULL behind `head`. */
static struct entry *follower(const struct entries *s, const struct entry *e,
                              const struct entry *head)
{
    if (e == head)
        return NULL;
    struct entry *next = entry_at(s, (uint32_t)(((uint64_t)e->at + e->len) % s->log_bytes));
    return next && next->sequence == e->sequence + 1 ? next : NULL;
}

/* The head of the active sequence: the newest entry whose tail leads to it. */
static struct entry *find_head(const struct entries *s)
{
    uint64_t below = UINT64_MAX;
    for (unsigned tries = 0; tries < HEADS_MAX; tries++) {
        struct entry *head = NULL, *at, *last = NULL;
        for (unsigned i = 0; i < s->count; i++)
            if (s->all[i].sequence < below && (!head || s->all[i].sequence > head->sequence))
                head = &s->all[i];
        if (!head)
            return NULL;
        for (at = entry_at(s, head->tail); at; at = follower(s, at, head))
            last = at;
        if (last == head)
            return head;
        below = head->sequence;
    }
    return NULL;
}

static bool broken(const struct vhdx *v, GError **error, uint64_t sequence)
{
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "image '%s': entry %" PRIu64 " of the VHDX log is broken", v->n.filename,
                       sequence);
}

/* A page of data: the descriptor has its first eight and last four bytes. */
static bool load_sector(const uint8_t *sector, uint64_t sequence, const uint8_t *leading,
                        const uint8_t *trailing, uint8_t *ret)
{
    struct cur head = cur_of(sector, 8), end = cur_of(sector + VHDX_PAGE - 4, 4);
    uint32_t signature = cur_le32(&head), high = cur_le32(&head), low = cur_le32(&end);
    memcpy(ret, leading, 8);
    memcpy(ret + 8, sector + 8, VHDX_PAGE - 12);
    memcpy(ret + VHDX_PAGE - 4, trailing, 4);
    return signature == SECTOR_SIGNATURE && high == sequence >> 32 && low == (uint32_t)sequence;
}

/* One descriptor, and its sector. */
static bool load_patch(struct vhdx_log *log, const struct entry *e, struct cur *c,
                       struct cur *sectors)
{
    uint32_t signature = cur_le32(c);
    uint8_t trailing[4], leading[8];
    cur_copy(c, trailing, sizeof(trailing));
    cur_copy(c, leading, sizeof(leading));
    struct patch p = {.off = cur_le64(c), .len = VHDX_PAGE};
    uint64_t sequence = cur_le64(c);
    if (c->bad || sequence != e->sequence)
        return false;
    if (signature == ZERO_SIGNATURE) {
        struct cur zero = cur_of(leading, sizeof(leading));
        p.len = cur_le64(&zero);
    } else {
        uint8_t *page = log->pages + (size_t)VHDX_PAGE * log->page_count;
        const uint8_t *sector = signature == DATA_SIGNATURE ? cur_take(sectors, VHDX_PAGE) : NULL;
        if (!sector || !load_sector(sector, sequence, leading, trailing, page))
            return false;
        p.data = page;
        log->page_count++;
    }
    log->patches[log->count++] = p;
    return p.off % VHDX_PAGE == 0 && p.len % VHDX_PAGE == 0 &&
           range_fits(p.off, p.len, VHDX_FILE_MAX);
}

static bool load_patches(const struct vhdx *v, struct vhdx_log *log, const struct entry *e,
                         GError **error)
{
    struct cur c = cur_of(log->bytes + e->at, e->len), sectors = c;
    cur_take(&c, ENTRY_HEADER);
    cur_take(&sectors, descriptor_bytes(e->descriptors));
    for (uint32_t i = 0; i < e->descriptors; i++)
        if (!load_patch(log, e, &c, &sectors))
            return broken(v, error, e->sequence);
    return true;
}

/* Tail to head, in order. */
static bool load_sequence(struct vhdx *v, struct vhdx_log *log, const struct entries *s,
                          struct entry *head, GError **error)
{
    uint64_t size = node_size(node_file(&v->n)), descriptors = 0, pages = 0;
    if (head->flushed_size > size)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': the VHDX log says that %" PRIu64
                           " bytes are there, and %" PRIu64 " are",
                           v->n.filename, head->flushed_size, size);
    if (head->last_size > VHDX_FILE_MAX)
        return broken(v, error, head->sequence);
    for (struct entry *e = entry_at(s, head->tail); e; e = follower(s, e, head)) {
        descriptors += e->descriptors;
        pages += e->len / VHDX_PAGE;
    }
    log->patches = g_try_new(struct patch, descriptors + 1);
    log->pages = g_try_malloc(pages * VHDX_PAGE);
    log->last_size = head->last_size;
    if (!log->patches || !log->pages)
        return ruche_error_errno(error, ENOMEM, "image '%s': no memory for the VHDX log",
                                 v->n.filename);
    for (struct entry *e = entry_at(s, head->tail); e; e = follower(s, e, head))
        if (!load_patches(v, log, e, error))
            return false;
    return true;
}

static bool read_log(struct vhdx *v, struct vhdx_log *log, struct entries *s, GError **error)
{
    uint32_t len = v->header.log_bytes, slots = len / VHDX_PAGE;
    uint64_t budget = (uint64_t)len * SUMMED_MAX;
    if (len > VHDX_LOG_MAX) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "image '%s': its VHDX log of %u bytes must be replayed; the limit is %u",
                    v->n.filename, len, VHDX_LOG_MAX);
        return false;
    }
    log->bytes = g_try_malloc(2ULL * len);
    s->all = g_try_new(struct entry, slots + 1);
    s->log_bytes = len;
    int r = log->bytes && s->all
                ? node_pread(node_file(&v->n), v->header.log_offset, log->bytes, len)
                : -ENOMEM;
    if (r) {
        ruche_error_errno(error, -r, "image '%s': cannot read its VHDX log", v->n.filename);
        return false;
    }
    memcpy(log->bytes + len, log->bytes, len);
    for (uint32_t i = 0; i < slots; i++)
        s->count += load_entry(v, log->bytes, i * VHDX_PAGE, &budget, &s->all[s->count]);
    return true;
}

bool vhdx_log_find(struct vhdx *v, struct vhdx_log **ret, GError **error)
{
    *ret = NULL;
    if (bytes_are_zero(v->header.log_guid, VHDX_GUID))
        return true;
    struct vhdx_log *log = g_new0(struct vhdx_log, 1);
    struct entries s = {0};
    bool ok = read_log(v, log, &s, error);
    struct entry *head = ok ? find_head(&s) : NULL;
    ok = ok && (!head || load_sequence(v, log, &s, head, error));
    g_free(s.all);
    g_clear_pointer(&log->bytes, g_free);
    if (ok && head)
        *ret = log;
    else
        vhdx_log_free(log);
    return ok;
}

/* ---- using ---- */

static int apply(struct node *file, const struct vhdx_log *log)
{
    int r = 0;
    if (log->last_size > node_size(file) && !node_resize(file, log->last_size, PREALLOC_OFF, NULL))
        return -ENOSPC;
    for (unsigned i = 0; i < log->count && !r; i++) {
        const struct patch *p = &log->patches[i];
        uint64_t size = node_size(file), len = p->off < size ? min_u64(p->len, size - p->off) : 0;
        if (p->data)
            r = node_pwrite(file, p->off, p->data, VHDX_PAGE, 0);
        else if (len)
            r = node_zero(file, p->off, len, NODE_MAY_UNMAP);
    }
    return r ? r : node_flush(file);
}

bool vhdx_log_replay(struct vhdx *v, const struct vhdx_log *log, GError **error)
{
    int r = log ? apply(node_file(&v->n), log) : 0;
    memset(v->header.log_guid, 0, VHDX_GUID);
    if (!r)
        r = vhdx_write_header(v);
    return !r ||
           ruche_error_errno(error, -r, "image '%s': cannot replay its VHDX log", v->n.filename);
}

void vhdx_log_overlay(void *opaque, uint64_t off, uint8_t *buf, size_t len)
{
    const struct vhdx *v = opaque;
    const struct vhdx_log *log = v->overlay;
    for (unsigned i = 0; log && i < log->count; i++) {
        const struct patch *p = &log->patches[i];
        if (p->off + p->len <= off || p->off >= off + len)
            continue;
        if (p->data)
            memcpy(buf, p->data, len); /* both are pages */
        else
            memset(buf, 0, len);
    }
}

/* ---- writing ---- */

static void put_sector(struct put *w, const uint8_t *page, uint64_t sequence)
{
    put_le32(w, SECTOR_SIGNATURE);
    put_le32(w, (uint32_t)(sequence >> 32));
    put_bytes(w, page + 8, VHDX_PAGE - 12);
    put_le32(w, (uint32_t)sequence);
}

static void make_entry(struct vhdx *v, const struct page_copy *copies, unsigned count, uint32_t len)
{
    struct put w = put_to(v->log_buffer, len);
    uint64_t size = node_size(node_file(&v->n));
    put_le32(&w, ENTRY_SIGNATURE);
    put_le32(&w, 0);
    put_le32(&w, len);
    put_le32(&w, v->log_at);
    put_le64(&w, v->log_sequence);
    put_le32(&w, count);
    put_le32(&w, 0);
    put_bytes(&w, v->log_guid, VHDX_GUID);
    put_le64(&w, size);
    put_le64(&w, size);
    for (unsigned i = 0; i < count; i++) {
        put_le32(&w, DATA_SIGNATURE);
        put_bytes(&w, copies[i].data + VHDX_PAGE - 4, 4);
        put_bytes(&w, copies[i].data, 8);
        put_le64(&w, copies[i].off);
        put_le64(&w, v->log_sequence);
    }
    put_zeroes(&w, VHDX_PAGE - ENTRY_HEADER - (size_t)count * DESCRIPTOR);
    for (unsigned i = 0; i < count; i++)
        put_sector(&w, copies[i].data, v->log_sequence);
    struct put sum = put_to(v->log_buffer + CHECKSUM_AT, 4);
    put_le32(&sum, vhdx_checksum(v->log_buffer, len, CHECKSUM_AT));
}

static int begin_log(struct vhdx *v)
{
    if (!v->log_buffer)
        v->log_buffer = aligned_alloc(VHDX_PAGE, (VHDX_DIRTY_PAGES + 1) * VHDX_PAGE);
    if (!v->log_buffer)
        return -ENOMEM;
    if (v->log_sequence)
        return 0;
    v->log_sequence = 1;
    v->log_at = 0;
    return crypto_random(v->log_guid, VHDX_GUID);
}

int vhdx_log_write(void *opaque, const struct page_copy *copies, unsigned count)
{
    struct vhdx *v = opaque;
    struct node *file = node_file(&v->n);
    uint32_t len = (count + 1) * VHDX_PAGE;
    g_assert(count <= VHDX_DIRTY_PAGES);
    int r = begin_log(v);
    if (r)
        return r;
    if (v->log_at + len > v->header.log_bytes)
        v->log_at = 0;
    make_entry(v, copies, count, len);
    r = node_pwrite(file, v->header.log_offset + v->log_at, v->log_buffer, len, 0);
    if (!r)
        r = node_flush(file);
    if (r)
        return r;
    v->log_at += len;
    v->log_sequence++;
    if (v->logging)
        return 0;
    memcpy(v->header.log_guid, v->log_guid, VHDX_GUID);
    r = vhdx_write_header(v);
    v->logging = !r;
    return r;
}
