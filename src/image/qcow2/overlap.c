/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The last check before a write to the image file: does it hit metadata that it is not meant for? A
 * broken refcount or L2 entry then costs an error, not the image.
 *
 * Single clusters (L2 tables, refcount blocks, tables of snapshots and bitmaps) are in a hash set,
 * by section; the few long tables are compared as ranges. A check costs a look-up for each cluster
 * written.
 *
 * Thread    The node's home thread.
 * Trust     The set is bounded by PLACES_MAX clusters; tables of snapshots that would take more are
 * not protected.
 */
#include "image/qcow2/internal.h"

#include <errno.h>
#include <string.h>

enum {
    PLACES_MAX = 1 << 22,
    PLACES_OTHERS = 1 << 19, /* of snapshots and bitmaps */
    PLACES_MIN = 1024,
    SECTION_BITS = 4,
    PROBES_MAX = 128,
};
#define NO_PLACE UINT32_MAX

/* Open addressing; an entry is cluster index << 4 | number of the section, plus 1; 0 is empty. */
struct qcow2_places {
    uint64_t *slots;
    uint32_t mask, count;
    uint32_t budget; /* what tables of snapshots and bitmaps may still add, or look at */
    bool full;       /* no memory */
};

static const char *const section_names[] = {
    "image header",      "active L1 table",   "active L2 table",
    "refcount block",    "refcount table",    "snapshot table",
    "inactive L1 table", "inactive L2 table", "bitmap directory",
};

/* ---- the option ---- */

#define CONSTANT                                                                                   \
    (QCOW2_SECTION_HEADER | QCOW2_SECTION_ACTIVE_L1 | QCOW2_SECTION_REFTABLE |                     \
     QCOW2_SECTION_SNAPSHOTS)
#define CACHED                                                                                     \
    (CONSTANT | QCOW2_SECTION_ACTIVE_L2 | QCOW2_SECTION_REFBLOCK | QCOW2_SECTION_INACTIVE_L1 |     \
     QCOW2_SECTION_BITMAPS)

static const struct {
    const char *name;
    unsigned sections;
} templates[] = {
    {"none", 0},
    {"constant", CONSTANT},
    {"cached", CACHED},
    {"all", CACHED | QCOW2_SECTION_INACTIVE_L2},
};

static const char *const option_names[] = {
    "main-header",    "active-l1",   "active-l2",   "refcount-block",   "refcount-table",
    "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory", NULL,
};

static bool parse_template(struct qcow2 *s, const char *word, GError **error)
{
    for (unsigned i = 0; i < ARRAY_COUNT(templates); i++) {
        if (!strcmp(word, templates[i].name)) {
            s->overlap_sections = templates[i].sections;
            return true;
        }
    }
    return ruche_error(error, RUCHE_ERR_INVALID,
                       "overlap-check='%s' is not one of none, constant, cached and all", word);
}

/* A typed boolean, or "on" and "off" as command lines have them. */
static bool parse_section(struct qcow2 *s, const char *name, JsonNode *value, GError **error)
{
    unsigned bit = 0;
    while (option_names[bit] && strcmp(name, option_names[bit]))
        bit++;
    if (!option_names[bit])
        return ruche_error(error, RUCHE_ERR_UNKNOWN, "overlap-check.%s is not known%s", name,
                           suggest_phrase(name, option_names));
    bool typed = JSON_NODE_HOLDS_VALUE(value) && json_node_get_value_type(value) == G_TYPE_BOOLEAN;
    const char *text = JSON_NODE_HOLDS_VALUE(value) && !typed ? json_node_get_string(value) : NULL;
    if (!typed && (!text || (strcmp(text, "on") && strcmp(text, "off"))))
        return ruche_error(error, RUCHE_ERR_INVALID, "overlap-check.%s is neither on nor off",
                           name);
    bool on = typed ? json_node_get_boolean(value) : !strcmp(text, "on");
    s->overlap_sections = (s->overlap_sections & ~(1U << bit)) | (unsigned)on << bit;
    return true;
}

static bool parse_object(struct qcow2 *s, JsonObject *o, GError **error)
{
    const char *word = json_object_get_string_member_with_default(o, "template", "cached");
    if (!parse_template(s, word ? word : "", error))
        return false;
    g_autoptr(GList) members = json_object_get_members(o);
    for (GList *m = members; m; m = m->next)
        if (strcmp(m->data, "template") &&
            !parse_section(s, m->data, json_object_get_member(o, m->data), error))
            return false;
    return true;
}

bool qcow2_overlap_parse(struct qcow2 *s, GError **error)
{
    JsonNode *given = s->opt.overlap_check;
    s->overlap_sections = CACHED;
    if (!given)
        return true;
    if (JSON_NODE_HOLDS_OBJECT(given))
        return parse_object(s, json_node_get_object(given), error);
    const char *word = JSON_NODE_HOLDS_VALUE(given) ? json_node_get_string(given) : NULL;
    return parse_template(s, word ? word : "", error);
}

/* ---- the set ---- */

static uint32_t hash_of(const struct qcow2_places *p, uint64_t index)
{
    return (uint32_t)((index * 0x9e3779b97f4a7c15ULL) >> 32) & p->mask;
}

static uint64_t index_of(uint64_t slot)
{
    return (slot - 1) >> SECTION_BITS;
}

/* The slot of `index`, or the empty one where it would be. NO_PLACE: neither is near; only indexes
 * chosen for that get there, and they go unprotected rather than make every look-up slow. */
static uint32_t place_find(const struct qcow2_places *p, uint64_t index)
{
    uint32_t i = hash_of(p, index);
    for (unsigned probes = 0; probes < PROBES_MAX; probes++, i = (i + 1) & p->mask)
        if (!p->slots[i] || index_of(p->slots[i]) == index)
            return i;
    return NO_PLACE;
}

static bool places_resize(struct qcow2_places *p, uint32_t slots)
{
    uint64_t *fresh = g_try_new0(uint64_t, slots), *old = p->slots;
    if (!fresh)
        return false;
    uint32_t old_mask = p->mask;
    p->slots = fresh;
    p->mask = slots - 1;
    for (uint32_t i = 0; old && i <= old_mask; i++) {
        uint32_t to = old[i] ? place_find(p, index_of(old[i])) : NO_PLACE;
        if (to != NO_PLACE)
            fresh[to] = old[i];
    }
    g_free(old);
    return true;
}

void qcow2_places_add(struct qcow2 *s, enum qcow2_section section, uint64_t off)
{
    struct qcow2_places *p = s->places;
    if (!p || !(s->overlap_sections & section) || p->count >= PLACES_MAX)
        return;
    if (2 * (p->count + 1) > p->mask && !places_resize(p, 2 * (p->mask + 1))) {
        p->full = true;
        return;
    }
    uint64_t index = off >> s->cluster_bits;
    uint32_t i = place_find(p, index);
    if (i == NO_PLACE)
        return;
    p->count += !p->slots[i];
    p->slots[i] = (index << SECTION_BITS | (unsigned)__builtin_ctz(section)) + 1;
}

/* Closes the gap: what was pushed past it moves up. */
void qcow2_places_remove(struct qcow2 *s, uint64_t off)
{
    struct qcow2_places *p = s->places;
    if (!p)
        return;
    uint32_t gap = place_find(p, off >> s->cluster_bits);
    if (gap == NO_PLACE || !p->slots[gap])
        return;
    p->count--;
    for (uint32_t i = (gap + 1) & p->mask; p->slots[i]; i = (i + 1) & p->mask) {
        uint32_t home = hash_of(p, index_of(p->slots[i]));
        if (((i - home) & p->mask) < ((i - gap) & p->mask))
            continue;
        p->slots[gap] = p->slots[i];
        gap = i;
    }
    p->slots[gap] = 0;
}

static void add_range(struct qcow2 *s, enum qcow2_section section, uint64_t off, uint64_t len)
{
    struct qcow2_places *p = s->places;
    for (uint64_t at = 0; at < len && p->budget; at += s->cluster_bytes, p->budget--)
        qcow2_places_add(s, section, off + at);
}

/* The L2 tables of a snapshot, from its L1 table on disk. Waits. */
static void add_inactive_l2(struct qcow2 *s, const struct qcow2_snapshot *snap)
{
    uint64_t entries[512];
    struct qcow2_places *p = s->places;
    for (uint32_t i = 0; i < snap->l1_count && p->budget; i += ARRAY_COUNT(entries)) {
        uint32_t n = (uint32_t)min_u64(ARRAY_COUNT(entries), snap->l1_count - i);
        if (qcow2_meta_read(s, snap->l1_offset + (uint64_t)i * 8, entries, n * sizeof(*entries)))
            return;
        p->budget -= min_u64(n, p->budget);
        for (uint32_t j = 0; j < n; j++) {
            uint64_t off = __builtin_bswap64(entries[j]) & QCOW2_OFFSET_MASK;
            if (off)
                qcow2_places_add(s, QCOW2_SECTION_INACTIVE_L2, off);
        }
    }
}

static void add_snapshots(struct qcow2 *s)
{
    for (uint32_t i = 0; s->snapshots && i < s->header.snapshot_count; i++) {
        const struct qcow2_snapshot *snap = &s->snapshots[i];
        add_range(s, QCOW2_SECTION_INACTIVE_L1, snap->l1_offset, (uint64_t)snap->l1_count * 8);
        if (s->overlap_sections & QCOW2_SECTION_INACTIVE_L2)
            add_inactive_l2(s, snap);
    }
}

int qcow2_places_rebuild(struct qcow2 *s)
{
    struct qcow2_places *p = g_try_new0(struct qcow2_places, 1);
    if (!p || !places_resize(p, PLACES_MIN)) {
        g_free(p);
        return -ENOMEM;
    }
    qcow2_places_free(s);
    s->places = p;
    for (uint32_t i = 0; i < s->header.l1_count; i++)
        if (s->l1[i] & QCOW2_OFFSET_MASK)
            qcow2_places_add(s, QCOW2_SECTION_ACTIVE_L2, s->l1[i] & QCOW2_OFFSET_MASK);
    for (uint32_t i = 0; i < s->reftable_count; i++)
        if (s->reftable[i] & QCOW2_REFTABLE_MASK)
            qcow2_places_add(s, QCOW2_SECTION_REFBLOCK, s->reftable[i] & QCOW2_REFTABLE_MASK);
    p->budget = PLACES_OTHERS;
    add_snapshots(s);
    if (s->ext.has_bitmaps)
        add_range(s, QCOW2_SECTION_BITMAPS, s->ext.bitmap_dir_offset, s->ext.bitmap_dir_bytes);
    return p->full ? -ENOMEM : 0;
}

void qcow2_places_free(struct qcow2 *s)
{
    if (s->places)
        g_free(s->places->slots);
    g_clear_pointer(&s->places, g_free);
}

/* ---- the check ---- */

static bool ranges_meet(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
    return a_len && b_len && a < b + b_len && b < a + a_len;
}

/* The section of the long tables that [off, off + len) meets, or 0. */
static unsigned range_hit(const struct qcow2 *s, unsigned sections, uint64_t off, uint64_t len)
{
    const struct qcow2_header *h = &s->header;
    const struct {
        unsigned section;
        uint64_t off, len;
    } ranges[] = {
        {QCOW2_SECTION_HEADER, 0, s->cluster_bytes},
        {QCOW2_SECTION_ACTIVE_L1, h->l1_offset, (uint64_t)h->l1_count * 8},
        {QCOW2_SECTION_REFTABLE, h->reftable_offset, (uint64_t)s->reftable_count * 8},
        {QCOW2_SECTION_SNAPSHOTS, h->snapshots_offset, s->snapshot_table_bytes},
    };
    for (unsigned i = 0; i < ARRAY_COUNT(ranges); i++)
        if ((sections & ranges[i].section) && ranges_meet(off, len, ranges[i].off, ranges[i].len))
            return ranges[i].section;
    return 0;
}

static unsigned place_hit(const struct qcow2 *s, unsigned sections, uint64_t off, uint64_t len)
{
    const struct qcow2_places *p = s->places;
    uint64_t last = (off + len - 1) >> s->cluster_bits;
    for (uint64_t index = off >> s->cluster_bits; p && index <= last; index++) {
        uint32_t i = place_find(p, index);
        uint64_t slot = i == NO_PLACE ? 0 : p->slots[i];
        unsigned section = slot ? 1U << ((slot - 1) & ((1 << SECTION_BITS) - 1)) : 0;
        if (section & sections)
            return section;
    }
    return 0;
}

int qcow2_check_overlap(struct qcow2 *s, unsigned mine, uint64_t off, uint64_t len)
{
    unsigned sections = s->overlap_sections & ~mine;
    if (!sections || !len)
        return 0;
    unsigned hit = range_hit(s, sections, off, len);
    if (likely(!hit))
        hit = place_hit(s, sections, off, len);
    if (likely(!hit))
        return 0;
    return qcow2_corrupt(s, true, (int64_t)off, len, "a write would overwrite the %s",
                         section_names[__builtin_ctz(hit)]);
}
