/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The code cache: blocks by physical address and mode, links between them, their death, and the memory of both.
 *
 * Blocks are shared by all vCPUs; granules (mmu.h) say which guest memory some block or decoder depends on. Three
 * things keep a shared block as true as a private one would be:
 *
 * 1. Bits of granules are cleared only here, under the lock, after the blocks of those granules died. So a writer
 *    that finds its bits clear knows that no block is left, whoever made it and whoever cleared them; and
 *    one that finds them set waits for the lock. Any vCPU may clear them: a bit belongs to the memory, not
 *    to the vCPU that set it.
 * 2. A vCPU that builds reads the page's sequence number, marks the granules, reads the code, and inserts under the
 *    lock if the number is still the same. It moves after the bits are cleared. Either the insertion comes first, then
 *    the block dies with the others; or the number differs, and the block is dropped; or the number was read
 *    after the clearing, then so was the mark set, and whoever writes from then on finds it. The address map has a
 *    number of its own, read before the vCPU looks for events: it moves after the flush was posted to it.
 * 3. A vCPU may still write a page through a TLB entry from before the page's first mark. The mark is posted to it
 *    (CPU_EV_FLUSH) before the block's insertion, and a block that it did not make itself reaches it through the
 *    hash only: links join blocks of one page, whose mark is as old as the first of them, and its jump cache is filled
 *    from the hash. So the dispatcher looks for events *after* the hash and before it enters; then the
 *    writes it did through such an entry have been noticed, and blocks made from older bytes are dead.
 *
 * A dead block is out of the hash and of its page's list, links from and to it are undone, and its entry leads out. A
 * vCPU inside goes on to its next link, jump or call of C, all of which leave. Its memory stays as it is, links
 * and jump caches of other vCPUs may hold its address until they pass a safe point: the dispatcher, which
 * empties the jump cache when the epoch has moved.
 *
 * Thread    Any. struct translate.lock guards all; it is a leaf. Look-ups take no lock.
 */
#include "cpu/translate/cache.h"
#include "cpu/exec/run.h"
#include "cpu/mmu/mmu.h"

#include <errno.h>
#include <stdlib.h>

/* --- lists --- */

static void hash_insert(struct translate *t, struct tb *tb)
{
    struct tb **head = &t->hash[tx_hash(tb->gpa, tb->mode)];

    tb->hash_next = *head;
    __atomic_store_n(head, tb, __ATOMIC_RELEASE);
}

static void hash_remove(struct translate *t, struct tb *tb)
{
    struct tb **at = &t->hash[tx_hash(tb->gpa, tb->mode)];

    while (*at != tb)
        at = &(*at)->hash_next;
    __atomic_store_n(at, tb->hash_next, __ATOMIC_RELEASE);
}

struct tb *cache_find(struct translate *t, uint64_t gpa, uint32_t mode)
{
    struct tb *tb = __atomic_load_n(&t->hash[tx_hash(gpa, mode)], __ATOMIC_ACQUIRE);

    while (tb && (tb->gpa != gpa || tb->mode != mode))
        tb = __atomic_load_n(&tb->hash_next, __ATOMIC_ACQUIRE);
    return tb;
}

static struct tb **page_head(struct translate *t, uint64_t gpa)
{
    uint64_t n = gpa >> PAGE_SHIFT;
    return &t->page[(n ^ n >> 14) & (TX_PAGES - 1)];
}

static void page_remove(struct translate *t, struct tb *tb)
{
    struct tb **at = page_head(t, tb->gpa);

    while (*at != tb)
        at = &(*at)->page_next;
    *at = tb->page_next;
}

/* --- links --- */

/* One store within 8 aligned bytes: others may be executing the jump. */
static void patch(struct translate *t, struct tb_exit *e, const uint8_t *to)
{
    const uint8_t *at = e->from->code + e->rel32;
    int32_t rel = (int32_t)(to - (at + 4));

    __atomic_store_n((int32_t *)(t->code.rw + (at - t->code.rx)), rel, __ATOMIC_RELEASE);
}

void cache_link(struct translate *t, struct tb_exit *e, struct tb *to)
{
    pthread_mutex_lock(&t->lock);
    if (!e->from->dead && !to->dead && !e->to) {
        e->to = to;
        e->incoming_next = to->incoming;
        to->incoming = e;
        patch(t, e, e->flags_mem ? to->entry_mem : to->entry_host);
    }
    pthread_mutex_unlock(&t->lock);
}

static void reset_exit(struct translate *t, struct tb_exit *e)
{
    e->to = NULL;
    patch(t, e, e->from->code + e->stub);
}

static void unlink_outgoing(struct translate *t, struct tb_exit *e)
{
    if (!e->to)
        return;
    struct tb_exit **at = &e->to->incoming;
    while (*at != e)
        at = &(*at)->incoming_next;
    *at = e->incoming_next;
    reset_exit(t, e);
}

static void kill_block(struct translate *t, struct tb *tb)
{
    hash_remove(t, tb);
    page_remove(t, tb);
    for (unsigned k = 0; k < tb->exits; k++)
        unlink_outgoing(t, &tb->exit[k]);
    for (struct tb_exit *e = tb->incoming; e; e = e->incoming_next)
        reset_exit(t, e);
    tb->incoming = NULL;
    __atomic_store_n(&tb->entry_mem, t->thunk.dead, __ATOMIC_RELEASE);
    tb->entry_host = t->thunk.dead;
    tb->dead = true;
}

/* --- invalidation --- */

static unsigned kill_granules(struct translate *t, uint64_t page, uint64_t granules)
{
    struct tb *tb = *page_head(t, page), *next;
    unsigned killed = 0;

    for (; tb; tb = next) {
        next = tb->page_next;
        if ((tb->gpa & PAGE_MASK) != page || !(tb->granules & granules))
            continue;
        uint8_t *patience = tx_patience(t, tb->gpa, tb->mode);
        if (*patience < TX_PATIENCE)
            __atomic_store_n(patience, *patience + 1, __ATOMIC_RELAXED);
        kill_block(t, tb);
        killed++;
    }
    return killed;
}

uint64_t translate_written(struct cpu_shared *s, struct cpu *self, uint64_t page, uint64_t granules)
{
    struct translate *t = s->translate;

    pthread_mutex_lock(&t->lock);
    unsigned killed = kill_granules(t, page, granules);
    if (killed && self) {
        self->code_changed = true;
        self->stats.tx_written += killed;
    }
    uint64_t old = atomic_fetch_and(&s->code[page >> PAGE_SHIFT], ~granules);
    atomic_fetch_add(tx_page_seq(t, page), 1);
    pthread_mutex_unlock(&t->lock);
    return old;
}

void translate_drop_all(struct cpu_shared *s)
{
    struct translate *t = s->translate;

    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    for (unsigned r = 0; r < TX_REGIONS; r++)
        for (struct tb *tb = t->region[r].blocks; tb; tb = tb->region_next)
            if (!tb->dead)
                kill_block(t, tb);
    atomic_fetch_add(&t->map_seq, 1);
    pthread_mutex_unlock(&t->lock);
}

/* --- safe points --- */

void cache_safe_point(struct cpu *c)
{
    struct translate *t = c->shared->translate;
    struct translate_cpu *x = c->tx;
    uint64_t now;

    /* Said first, then looked at again: an epoch that begins meanwhile sees ours, or we see it. */
    do {
        now = atomic_load(&t->epoch);
        atomic_store(&x->epoch, now);
    } while (atomic_load(&t->epoch) != now);
    if (x->seen_epoch == now)
        return;
    mmu_jc_clear_all(c);
    x->seen_epoch = now;
}

void cache_quiet(struct cpu *c)
{
    atomic_store_explicit(&c->tx->epoch, TX_QUIET, memory_order_release);
}

/* Whether every vCPU has passed a safe point since the region died; those that have not are asked to. */
static bool region_is_free(struct translate *t, const struct tx_region *r)
{
    bool is_free = true;

    for (unsigned k = 0; k < CPU_MAX; k++) {
        if (!t->cpus[k] || atomic_load(&t->cpus[k]->tx->epoch) >= r->dead_epoch)
            continue;
        cpu_post_events(t->cpus[k], EXEC_EV_RECHECK);
        is_free = false;
    }
    return is_free;
}

/* --- memory --- */

static void region_die(struct translate *t, struct tx_region *r)
{
    if (!r->used)
        return;
    for (struct tb *tb = r->blocks; tb; tb = tb->region_next)
        if (!tb->dead)
            kill_block(t, tb);
    __atomic_fetch_add(&r->generation, 1, __ATOMIC_SEQ_CST);
    r->dead_epoch = atomic_fetch_add(&t->epoch, 1) + 1;
}

/* Makes the next region the one that chunks come from, and lets the one behind it die. */
static bool region_next(struct translate *t)
{
    unsigned n = (t->cur + 1) % TX_REGIONS;
    struct tx_region *r = &t->region[n];

    if (r->used && !region_is_free(t, r))
        return false;
    r->blocks = NULL;
    r->chunks = 0;
    r->dead_epoch = 0;
    t->cur = n;
    region_die(t, &t->region[(n + 1) % TX_REGIONS]);
    return true;
}

static bool chunk_take(struct translate *t, struct tx_chunk *ret)
{
    if (t->region[t->cur].chunks == t->region_chunks && !region_next(t))
        return false;
    struct tx_region *r = &t->region[t->cur];
    unsigned at = r->chunks++;
    size_t n = (size_t)t->cur * t->region_chunks + at;
    uint8_t *code = t->code.rw + TX_CHUNK_CODE * ((size_t)t->cur * t->region_chunks + 1);
    r->used = true;
    *ret = (struct tx_chunk){ .region = r, .generation = r->generation };
    ret->hot = code + TX_CHUNK_HOT * at;
    ret->hot_end = ret->hot + TX_CHUNK_HOT;
    ret->cold = code + TX_CHUNK_HOT * t->region_chunks + TX_CHUNK_COLD * at;
    ret->cold_end = ret->cold + TX_CHUNK_COLD;
    ret->meta = t->code.data + TX_CHUNK_META * n;
    ret->meta_end = ret->meta + TX_CHUNK_META;
    ret->insn = (struct insn *)(t->code.data + TX_CHUNK_META * t->chunks + TX_CHUNK_INSNS * n);
    ret->insn_end = ret->insn + TX_CHUNK_INSNS / sizeof(struct insn);
    return true;
}

static bool chunk_is_void(const struct tx_chunk *k)
{
    return !k->region || __atomic_load_n(&k->region->generation, __ATOMIC_SEQ_CST) != k->generation;
}

#define META_MOST (sizeof(struct tb) + TB_MAX_EXITS * sizeof(struct tb_exit) + TB_MAX_INSNS * sizeof(uint16_t) + 64)

bool cache_room(struct cpu *c, bool new)
{
    struct translate *t = c->shared->translate;
    struct tx_chunk *k = &c->tx->chunk;

    if (!new && !chunk_is_void(k) && k->hot_end - k->hot >= (ptrdiff_t)TX_ROOM_HOT &&
        k->cold_end - k->cold >= (ptrdiff_t)TX_ROOM_COLD &&
        k->meta_end - k->meta >= (ptrdiff_t)META_MOST && k->insn_end - k->insn >= TB_MAX_INSNS)
        return true;
    pthread_mutex_lock(&t->lock);
    bool ok = chunk_take(t, k);
    pthread_mutex_unlock(&t->lock);
    if (!ok)
        k->region = NULL;
    return ok;
}

/* Takes the block's memory from the chunk: tables of the size that they turned out to have. */
static void chunk_keep(struct tx_chunk *k, struct tb *tb)
{
    uint8_t *end = (uint8_t *)(tb->exit + tb->exits);

    memmove(end, tb->insn_at, tb->insns * sizeof(tb->insn_at[0]));
    tb->insn_at = (uint16_t *)end;
    k->meta = (uint8_t *)align_up((uintptr_t)(tb->insn_at + tb->insns), TX_LINE);
    if (!tb->code)
        return;
    k->hot += align_up(tb->code_bytes, 16);
    k->cold += align_up(tb->cold_bytes, 16);
    k->insn = tb->insn + tb->insns;
}

bool cache_insert(struct cpu *c, struct tb *tb, struct tx_snapshot at, struct tb **ret)
{
    struct translate *t = c->shared->translate;
    struct tx_chunk *k = &c->tx->chunk;

    pthread_mutex_lock(&t->lock);
    bool ok = !chunk_is_void(k) && atomic_load(&t->map_seq) == at.map_seq &&
              atomic_load(tx_page_seq(t, tb->gpa)) == at.page_seq;
    struct tb *other = ok ? cache_find(t, tb->gpa, tb->mode) : NULL;
    if (ok && !other) {
        chunk_keep(k, tb);
        tb->region_next = k->region->blocks;
        k->region->blocks = tb;
        struct tb **head = page_head(t, tb->gpa);
        tb->page_next = *head;
        *head = tb;
        hash_insert(t, tb);
        perf_map_add(t, tb);
    }
    pthread_mutex_unlock(&t->lock);
    if (ok)
        *ret = other ? other : tb;
    return ok;
}

/* --- life --- */

/* The first chunk of the code holds the thunks. */
static int make_thunks(struct translate *t, tx_interp_fn *interp)
{
    struct as a = { .p = t->code.rw, .end = t->code.rw + TX_CHUNK_CODE, .to_rx = t->code.rx - t->code.rw };
    return thunks_make(&a, &t->thunk, interp);
}

struct translate *cache_new(uint64_t code_bytes, tx_interp_fn *interp, int *ret_err)
{
    struct translate *t = calloc(1, sizeof(*t));

    *ret_err = -ENOMEM;
    if (!t)
        return NULL;
    code_bytes = code_bytes ? min_u64(code_bytes, TX_MAX_CODE) : TX_DEFAULT_CODE;
    t->region_chunks = (unsigned)(code_bytes / TX_REGIONS / TX_CHUNK_CODE);
    t->region_chunks += !t->region_chunks;
    t->chunks = (size_t)t->region_chunks * TX_REGIONS;
    atomic_store(&t->epoch, 1);
    pthread_mutex_init(&t->lock, NULL);
    *ret_err = code_arena_init(&t->code, TX_CHUNK_CODE * (t->chunks + 1), (TX_CHUNK_META + TX_CHUNK_INSNS) * t->chunks);
    if (!*ret_err)
        *ret_err = make_thunks(t, interp);
    if (!*ret_err)
        return t;
    cache_free(t);
    return NULL;
}

void cache_free(struct translate *t)
{
    if (!t)
        return;
    perf_map_close(t);
    code_arena_done(&t->code);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
