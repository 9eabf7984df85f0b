/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty bitmaps: one bit a grain, and above it one bit for each word of 64 grains that is not zero,
 * so that finding the next dirty grain in a clean terabyte reads 4 KiB, and clearing touches only
 * what is dirty.
 *
 * Owner     See dirty.h. Both arrays come from one lazy allocation each: clean areas take no
 *           memory.
 * Thread    The node's home thread.
 * Trust     Ranges are cut to the bitmap's size; stored bits past the last grain are dropped.
 */
#include "image/dirty.h"

#include "base/error.h"
#include "image/driver.h"

#include <string.h>

#define GRANULARITY_MIN 512U
#define GRANULARITY_MAX (1U << 31)
#define GRAINS_MAX      (1ULL << 34) /* 2 GiB of bits when every grain is dirty */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "bits are stored as they lie in memory");

static uint64_t words_for(uint64_t bits)
{
    return bits / 64 + (bits % 64 != 0);
}

static uint64_t grains_for(uint64_t size_bytes, uint32_t granularity)
{
    return size_bytes / granularity + (size_bytes % granularity != 0);
}

static void set_word(struct dirty_bitmap *b, uint64_t w, uint64_t v)
{
    uint64_t old = b->bits[w];
    if (old == v)
        return;
    b->bits[w] = v;
    b->dirty_count += (uint64_t)__builtin_popcountll(v);
    b->dirty_count -= (uint64_t)__builtin_popcountll(old);
    uint64_t bit = 1ULL << w % 64;
    if (v)
        b->summary[w / 64] |= bit;
    else
        b->summary[w / 64] &= ~bit;
}

/* The first word in [w, end) that is not zero; end when there is none. */
static uint64_t next_word(const struct dirty_bitmap *b, uint64_t w, uint64_t end)
{
    while (w < end) {
        uint64_t s = b->summary[w / 64] & ~0ULL << w % 64;
        if (s)
            return min_u64(align_down(w, 64) + (unsigned)__builtin_ctzll(s), end);
        w = align_down(w, 64) + 64;
    }
    return end;
}

/* The bits of word w that lie in [first, end). */
static uint64_t word_mask(uint64_t w, uint64_t first, uint64_t end)
{
    uint64_t mask = ~0ULL;
    if (w == first / 64)
        mask <<= first % 64;
    if (end - w * 64 < 64)
        mask &= (1ULL << (end - w * 64)) - 1;
    return mask;
}

static void set_grains(struct dirty_bitmap *b, uint64_t first, uint64_t end)
{
    for (uint64_t w = first / 64; w * 64 < end; w++)
        set_word(b, w, b->bits[w] | word_mask(w, first, end));
}

static void reset_grains(struct dirty_bitmap *b, uint64_t first, uint64_t end)
{
    uint64_t stop = words_for(end);
    for (uint64_t w = next_word(b, first / 64, stop); w < stop; w = next_word(b, w + 1, stop))
        set_word(b, w, b->bits[w] & ~word_mask(w, first, end));
}

static uint64_t next_dirty_grain(const struct dirty_bitmap *b, uint64_t g, uint64_t end)
{
    if (g >= end)
        return end;
    uint64_t w = g / 64, v = b->bits[w] & ~0ULL << g % 64;
    if (!v) {
        uint64_t stop = words_for(end);
        w = next_word(b, w + 1, stop);
        if (w == stop)
            return end;
        v = b->bits[w];
    }
    return min_u64(w * 64 + (unsigned)__builtin_ctzll(v), end);
}

static uint64_t next_clean_grain(const struct dirty_bitmap *b, uint64_t g, uint64_t end)
{
    if (g >= end)
        return end;
    uint64_t w = g / 64, v = ~b->bits[w] & ~0ULL << g % 64;
    while (!v) {
        if (++w * 64 >= end)
            return end;
        v = ~b->bits[w];
    }
    return min_u64(w * 64 + (unsigned)__builtin_ctzll(v), end);
}

static const char *name_of(const struct dirty_bitmap *b)
{
    return b->name ? b->name : "(a job's)";
}

static uint32_t default_granularity(const struct node *n)
{
    if (!n || !n->cluster_bytes)
        return DIRTY_GRANULARITY_DEFAULT;
    return (uint32_t)max_u64(4 * KIB, min_u64(n->cluster_bytes, DIRTY_GRANULARITY_DEFAULT));
}

static bool check_new(const struct node *n, const char *name, uint32_t granularity, GError **error)
{
    if (name && !*name)
        return ruche_error(error, RUCHE_ERR_INVALID, "a bitmap needs a name that is not empty");
    if (name && strlen(name) > DIRTY_NAME_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "bitmap '%.32s...': the name has %zu bytes; the limit is %d", name,
                           strlen(name), DIRTY_NAME_MAX);
    if (!is_power_of_2(granularity) || granularity < GRANULARITY_MIN)
        return ruche_error(
            error, RUCHE_ERR_INVALID,
            "bitmap '%s': granularity %u is not a power of two between %u and %u bytes",
            name ? name : "(a job's)", granularity, GRANULARITY_MIN, GRANULARITY_MAX);
    if (n && name && dirty_find(n, name))
        return ruche_error(error, RUCHE_ERR_EXISTS, "node '%s' has a bitmap '%s' already", n->name,
                           name);
    return true;
}

static bool allocate(uint64_t grains, uint64_t **ret_bits, uint64_t **ret_summary)
{
    if (grains > GRAINS_MAX)
        return false;
    uint64_t words = words_for(grains) + 1;
    uint64_t *bits = g_try_new0(uint64_t, words);
    uint64_t *summary = g_try_new0(uint64_t, words_for(words));
    if (!bits || !summary) {
        g_free(bits);
        g_free(summary);
        return false;
    }
    *ret_bits = bits;
    *ret_summary = summary;
    return true;
}

struct dirty_bitmap *dirty_new(struct node *n, uint64_t size_bytes, const char *name,
                               uint32_t granularity, GError **error)
{
    if (!granularity)
        granularity = default_granularity(n);
    if (!check_new(n, name, granularity, error))
        return NULL;
    if (n)
        size_bytes = n->size_bytes;
    uint64_t grains = grains_for(size_bytes, granularity);
    struct dirty_bitmap *b = g_new0(struct dirty_bitmap, 1);
    if (!allocate(grains, &b->bits, &b->summary)) {
        ruche_error(error, RUCHE_ERR_NO_SPACE,
                    "bitmap '%s': no memory for %" G_GUINT64_FORMAT
                    " grains (the limit is %llu); choose a granularity above %u bytes",
                    name ? name : "(a job's)", grains, GRAINS_MAX, granularity);
        g_free(b);
        return NULL;
    }
    b->name = g_strdup(name);
    b->node = n;
    b->size_bytes = size_bytes;
    b->granularity = granularity;
    b->grain_count = grains;
    b->enabled = true;
    if (n) {
        struct dirty_bitmap **link = &n->bitmaps;
        while (*link)
            link = &(*link)->next;
        *link = b;
    }
    return b;
}

static void detach(struct dirty_bitmap *b)
{
    struct dirty_bitmap **link = &b->node->bitmaps;
    while (*link && *link != b)
        link = &(*link)->next;
    if (*link)
        *link = b->next;
}

void dirty_free(struct dirty_bitmap *b)
{
    if (!b)
        return;
    if (b->node)
        detach(b);
    g_free(b->bits);
    g_free(b->summary);
    g_free(b->name);
    g_free(b);
}

struct dirty_bitmap *dirty_find(const struct node *n, const char *name)
{
    for (struct dirty_bitmap *b = n->bitmaps; b; b = b->next) {
        if (b->name && !strcmp(b->name, name))
            return b;
    }
    return NULL;
}

bool dirty_usable(const struct dirty_bitmap *b, unsigned need, GError **error)
{
    if ((need & DIRTY_NEED_IDLE) && b->busy)
        return ruche_error(error, RUCHE_ERR_BUSY, "bitmap '%s' is busy: a job or an export uses it",
                           name_of(b));
    if ((need & DIRTY_NEED_WRITABLE) && b->read_only)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "bitmap '%s' cannot change: its image is open read-only", name_of(b));
    if ((need & DIRTY_NEED_CONSISTENT) && b->inconsistent)
        return ruche_error(
            error, RUCHE_ERR_STATE,
            "bitmap '%s' is inconsistent: it was in use when the image was last left "
            "open; all that can be done with it is to remove it",
            name_of(b));
    return true;
}

/* [off, off + len) cut to the bitmap, as grains that it touches; false: nothing left. */
static bool grains_touched(const struct dirty_bitmap *b, uint64_t off, uint64_t len,
                           uint64_t *ret_first, uint64_t *ret_end)
{
    if (!len || off >= b->size_bytes)
        return false;
    uint64_t end = len > b->size_bytes - off ? b->size_bytes : off + len;
    *ret_first = off / b->granularity;
    *ret_end = grains_for(end, b->granularity);
    return true;
}

void dirty_set(struct dirty_bitmap *b, uint64_t off, uint64_t len)
{
    uint64_t first, end;
    if (grains_touched(b, off, len, &first, &end))
        set_grains(b, first, end);
}

void dirty_reset(struct dirty_bitmap *b, uint64_t off, uint64_t len)
{
    if (off >= b->size_bytes)
        return;
    uint64_t first = grains_for(off, b->granularity);
    uint64_t end = len >= b->size_bytes - off ? b->grain_count : (off + len) / b->granularity;
    if (first < end)
        reset_grains(b, first, end);
}

void dirty_clear(struct dirty_bitmap *b)
{
    if (b->dirty_count)
        reset_grains(b, 0, b->grain_count);
}

bool dirty_get(const struct dirty_bitmap *b, uint64_t off)
{
    uint64_t g = off / b->granularity;
    return off < b->size_bytes && (b->bits[g / 64] >> g % 64 & 1);
}

uint64_t dirty_bytes(const struct dirty_bitmap *b)
{
    uint64_t bytes = b->dirty_count * b->granularity;
    if (b->size_bytes && dirty_get(b, b->size_bytes - 1))
        bytes -= b->grain_count * b->granularity - b->size_bytes;
    return bytes;
}

bool dirty_next(const struct dirty_bitmap *b, uint64_t off, uint64_t end, uint64_t max_len,
                uint64_t *ret_off, uint64_t *ret_len)
{
    uint64_t first, stop;
    if (off >= end || !grains_touched(b, off, end - off, &first, &stop))
        return false;
    end = min_u64(end, b->size_bytes);
    uint64_t from = next_dirty_grain(b, first, stop);
    if (from == stop)
        return false;
    uint64_t begin = max_u64(off, from * b->granularity);
    if (max_len && max_len < end - begin)
        stop = grains_for(begin + max_len, b->granularity);
    uint64_t to = min_u64(next_clean_grain(b, from, stop) * b->granularity, end);
    *ret_off = begin;
    *ret_len = max_len ? min_u64(to - begin, max_len) : to - begin;
    return true;
}

bool dirty_next_clean(const struct dirty_bitmap *b, uint64_t off, uint64_t end, uint64_t *ret_off)
{
    uint64_t first, stop;
    if (off >= end || !grains_touched(b, off, end - off, &first, &stop))
        return false;
    uint64_t from = next_clean_grain(b, first, stop);
    if (from == stop)
        return false;
    *ret_off = max_u64(off, from * b->granularity);
    return true;
}

bool dirty_merge(struct dirty_bitmap *dst, const struct dirty_bitmap *src, GError **error)
{
    if (dst->size_bytes != src->size_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "bitmap '%s' covers %" G_GUINT64_FORMAT
                           " bytes and '%s' %" G_GUINT64_FORMAT
                           ": only bitmaps of one size can be merged",
                           name_of(src), src->size_bytes, name_of(dst), dst->size_bytes);
    if (dst->granularity == src->granularity) {
        uint64_t stop = words_for(src->grain_count);
        for (uint64_t w = next_word(src, 0, stop); w < stop; w = next_word(src, w + 1, stop))
            set_word(dst, w, dst->bits[w] | src->bits[w]);
        return true;
    }
    uint64_t off = 0, len = 0;
    while (dirty_next(src, off + len, src->size_bytes, 0, &off, &len))
        dirty_set(dst, off, len);
    return true;
}

void dirty_swap(struct dirty_bitmap *a, struct dirty_bitmap *b)
{
    uint64_t *bits = a->bits, *summary = a->summary, count = a->dirty_count;
    a->bits = b->bits;
    a->summary = b->summary;
    a->dirty_count = b->dirty_count;
    b->bits = bits;
    b->summary = summary;
    b->dirty_count = count;
}

bool dirty_resize(struct dirty_bitmap *b, uint64_t size_bytes)
{
    uint64_t grains = grains_for(size_bytes, b->granularity), *bits, *summary;
    if (!allocate(grains, &bits, &summary))
        return false;
    if (grains < b->grain_count)
        reset_grains(b, grains, b->grain_count);
    uint64_t words = words_for(min_u64(grains, b->grain_count));
    for (uint64_t w = next_word(b, 0, words); w < words; w = next_word(b, w + 1, words)) {
        bits[w] = b->bits[w];
        summary[w / 64] |= 1ULL << w % 64;
    }
    g_free(b->bits);
    g_free(b->summary);
    b->bits = bits;
    b->summary = summary;
    b->size_bytes = size_bytes;
    b->grain_count = grains;
    return true;
}

void dirty_store(const struct dirty_bitmap *b, uint64_t first_grain, uint64_t count, uint8_t *to)
{
    memcpy(to, (const uint8_t *)b->bits + first_grain / 8, (count + 7) / 8);
    if (count % 8)
        to[count / 8] &= (uint8_t)((1U << count % 8) - 1);
}

void dirty_load(struct dirty_bitmap *b, uint64_t first_grain, uint64_t count, const uint8_t *from)
{
    if (first_grain >= b->grain_count)
        return;
    uint64_t end = first_grain + min_u64(count, b->grain_count - first_grain);
    for (uint64_t g = first_grain; g < end;) {
        uint64_t w = g / 64, stop = min_u64((w + 1) * 64, end), v = 0;
        memcpy(&v, from + (g - first_grain) / 8, (stop - g + 7) / 8);
        uint64_t mask = word_mask(w, g, stop);
        set_word(b, w, (b->bits[w] & ~mask) | (v << g % 64 & mask));
        g = stop;
    }
}

void dirty_record(struct node *n, uint64_t off, uint64_t len)
{
    for (struct dirty_bitmap *b = n->bitmaps; b; b = b->next) {
        if (b->enabled)
            dirty_set(b, off, len);
    }
}
