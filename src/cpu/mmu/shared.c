/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What vCPUs tell each other: decoded code was overwritten, write entries must go, the address map
 * changed.
 *
 * Thread    Any; each says. shared->lock guards the vCPU list and the posts.
 *
 * A post is queued under the lock, then CPU_EV_FLUSH is raised; the receiver clears the event first
 * and takes the posts after, so none is missed. After an overflow the receiver drops all its blocks
 * and looks at each of its fast write entries instead.
 */
#include "cpu/mmu/internal.h"

#include "cpu/exec/exec.h"
#include "cpu/sys/model.h"
#include "cpu/translate/translate.h"

#include <stdlib.h>
#include <sys/mman.h>

struct cpu_shared *cpu_shared_new(const struct cpu_model *model, const struct cpu_topology *t,
                                  uint64_t ram_size)
{
    struct cpu_shared *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    /* RAM above the hole starts at 4 GiB; untouched parts of the map cost nothing. */
    s->code_pages = (ram_size + 5 * GIB) >> PAGE_SHIFT;
    void *map = mmap(NULL, s->code_pages * sizeof(uint64_t), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) {
        free(s);
        return NULL;
    }
    s->code = map;
    s->model = model;
    s->topology = *t;
    model_describe(model, s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->split, NULL);
    return s;
}

void cpu_shared_free(struct cpu_shared *s)
{
    if (!s)
        return;
    translate_shared_done(s);
    munmap((void *)s->code, s->code_pages * sizeof(uint64_t));
    pthread_mutex_destroy(&s->lock);
    pthread_mutex_destroy(&s->split);
    free(s);
}

uint64_t cpu_tsc_khz(const struct cpu_shared *s)
{
    return s->tsc_khz;
}

/* --- posts --- */

static void post_to(struct cpu *c, struct mmu_post p)
{
    struct mmu_state *m = c->mmu;
    if (m->n_posts < POST_MAX)
        m->post[m->n_posts++] = p;
    else
        m->post_overflow = true;
    cpu_raise_event(c, CPU_EV_FLUSH);
}

static void post_all(struct cpu_shared *s, const struct cpu *but, struct mmu_post p)
{
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < CPU_MAX; i++) {
        if (s->cpus[i] && s->cpus[i] != but)
            post_to(s->cpus[i], p);
    }
    pthread_mutex_unlock(&s->lock);
}

/* The page may have been written through an entry that was still fast: every vCPU's blocks there
 * go. */
static void serve_drop_write(struct cpu *c, uint64_t gpa)
{
    if (mmu_drop_write(c, gpa))
        mmu_code_written(c->shared, c, gpa, PAGE_SIZE);
}

void mmu_handle_flush(struct cpu *c)
{
    struct mmu_state *m = c->mmu;
    struct mmu_post post[POST_MAX];
    pthread_mutex_lock(&c->shared->lock);
    unsigned n = m->n_posts;
    bool map = m->post_flush_map, overflow = m->post_overflow;
    memcpy(post, m->post, n * sizeof(post[0]));
    m->n_posts = 0;
    bool forbid = m->post_forbid_writes;
    m->post_flush_map = m->post_overflow = m->post_forbid_writes = false;
    pthread_mutex_unlock(&c->shared->lock);
    for (unsigned i = 0; i < n; i++) {
        if (post[i].drop_write)
            serve_drop_write(c, post[i].gpa);
        else if (post[i].rewritten)
            mmu_code_written(c->shared, c, post[i].gpa, post[i].len);
        else
            exec_invalidate(c, post[i].gpa, post[i].len);
    }
    c->code_changed = true; /* the block that is running may be among those that died */
    if (overflow) {
        mmu_rescan_writes(c);
        exec_invalidate_all(c);
    }
    if (map) {
        mmu_phys_flush(c);
        mmu_flush_all(c);
        exec_invalidate_all(c);
    }
    if (forbid)
        mmu_forbid_writes(c);
}

void cpu_shared_flush_all(struct cpu_shared *s)
{
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < CPU_MAX; i++) {
        if (s->cpus[i]) {
            s->cpus[i]->mmu->post_flush_map = true;
            cpu_raise_event(s->cpus[i], CPU_EV_FLUSH);
        }
    }
    pthread_mutex_unlock(&s->lock);
    translate_drop_all(s);
}

/* Posted, not done here: what was posted before may ask which pages had fast write entries. A vCPU serves posts before
 * it runs anything. */
void cpu_shared_dirty_anew(struct cpu_shared *s)
{
    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < CPU_MAX; i++) {
        if (s->cpus[i]) {
            s->cpus[i]->mmu->post_forbid_writes = true;
            cpu_raise_event(s->cpus[i], CPU_EV_FLUSH);
        }
    }
    pthread_mutex_unlock(&s->lock);
}

void cpu_shared_set_dirty(struct cpu_shared *s, _Atomic uint64_t *bits, uint64_t pages)
{
    s->dirty = bits;
    s->dirty_pages = bits ? pages : 0;
    if (bits)
        cpu_shared_dirty_anew(s);
}

/* --- code pages --- */

uint64_t mmu_code_written(struct cpu_shared *s, struct cpu *self, uint64_t gpa, uint64_t len)
{
    uint64_t pfn = gpa >> PAGE_SHIFT;
    if (pfn >= s->code_pages)
        return 0;
    atomic_thread_fence(memory_order_seq_cst);
    uint64_t bits = mmu_granules(gpa & ~PAGE_MASK, len);
    uint64_t old = atomic_load(&s->code[pfn]);
    if (likely(!(old & bits)))
        return old;
    old = s->translate ? translate_written(s, self, gpa & PAGE_MASK, bits) : atomic_fetch_and(&s->code[pfn], ~bits);
    if (!(old & bits))
        return old;
    uint64_t granule = 1u << CODE_GRANULE_SHIFT;
    uint64_t from = align_down(gpa, granule), to = align_up(gpa + len, granule);
    post_all(s, self, (struct mmu_post){ .gpa = from, .len = to - from });
    if (self) {
        self->stats.smc_invalidations++;
        exec_invalidate(self, from, to - from);
    }
    return old & ~bits;
}

void mmu_code_about_to_be_written(struct cpu *c, uint64_t gpa, uint64_t len)
{
    uint64_t old = atomic_load(&c->shared->code[gpa >> PAGE_SHIFT]);
    if (old & mmu_granules(gpa & ~PAGE_MASK, len)) {
        exec_invalidate(c, gpa, len);
        c->code_changed = true; /* translated blocks die after the write, at the next boundary */
    } else if (atomic_load_explicit(&c->shared->cpu_count, memory_order_relaxed) == 1) {
        return;
    }
    /* Another vCPU may decode the old bytes before they are written: look again behind the write. */
    pthread_mutex_lock(&c->shared->lock);
    post_to(c, (struct mmu_post){ .gpa = gpa, .len = len, .rewritten = true });
    pthread_mutex_unlock(&c->shared->lock);
}

void mmu_mark_code(struct cpu *c, uint64_t gpa, unsigned len)
{
    struct cpu_shared *s = c->shared;
    uint64_t pfn = gpa >> PAGE_SHIFT;
    if (pfn >= s->code_pages)
        return;
    uint64_t bits = mmu_granules(gpa & ~PAGE_MASK, len);
    if ((atomic_load(&s->code[pfn]) & bits) == bits)
        return;
    if (atomic_fetch_or(&s->code[pfn], bits))
        return;
    /* The page's first: writes must take the slow path from now on. */
    mmu_drop_write(c, gpa & PAGE_MASK);
    post_all(s, c, (struct mmu_post){ .gpa = gpa & PAGE_MASK, .len = PAGE_SIZE, .drop_write = true });
}

void cpu_shared_written(struct cpu_shared *s, uint64_t gpa, uint64_t len)
{
    uint64_t limit = s->code_pages << PAGE_SHIFT;
    if (gpa >= limit || !len)
        return;
    uint64_t end = gpa + min_u64(len, limit - gpa);
    while (gpa < end) {
        uint64_t n = min_u64(end - gpa, PAGE_SIZE - (gpa & ~PAGE_MASK));
        mmu_code_written(s, NULL, gpa, n);
        gpa += n;
    }
}
