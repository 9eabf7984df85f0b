/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Data accesses that the inline fast path does not serve: misses, crossings, MMIO, ROM, code pages,
 * watchpoints, alignment checks; and accesses on behalf of another privilege level.
 *
 * Spec      Intel SDM volume 3, 4.6 (access rights), 6.15 (#AC), 8.1 (atomicity), 17.2.4 (data
 *           breakpoints).
 * Thread    The vCPU's own.
 */
#include "cpu/mmu/internal.h"
#include "cpu/mmu/record.h"
#include "cpu/sys/regs.h"

#include <errno.h>

/* Single loads and stores for the sizes that are atomic on x86 when aligned. */
MMU_RAM_ACCESS static void ram_read(const uint8_t *from, void *buf, unsigned size)
{
    switch (size) {
    case 1: *(uint8_t *)buf = *from; break;
    case 2: memcpy(buf, from, 2); break;
    case 4: memcpy(buf, from, 4); break;
    case 8: memcpy(buf, from, 8); break;
    case 16: memcpy(buf, from, 16); break;
    default: memcpy(buf, from, size); break;
    }
}

MMU_RAM_ACCESS static void ram_write(uint8_t *to, const void *buf, unsigned size)
{
    switch (size) {
    case 1: *to = *(const uint8_t *)buf; break;
    case 2: memcpy(to, buf, 2); break;
    case 4: memcpy(to, buf, 4); break;
    case 8: memcpy(to, buf, 8); break;
    case 16: memcpy(to, buf, 16); break;
    default: memcpy(to, buf, size); break;
    }
}

/* The largest naturally aligned piece, at most 8 bytes. */
static unsigned mmio_piece(uint64_t gpa, unsigned size)
{
    unsigned n = 8;
    while (n > size || gpa & (n - 1))
        n >>= 1;
    return n;
}

/* No fpu_park() around these callbacks: an x87 or MMX instruction may be waiting for its operand. */
static void mmio_read(struct cpu *c, uint64_t gpa, uint8_t *buf, unsigned size)
{
    if (unlikely(c->record))
        mmu_record_refuse(c);
    while (size) {
        unsigned n = mmio_piece(gpa, size);
        uint64_t v = c->cb->mmio_read(c->opaque, gpa, n);
        c->stats.mmio++;
        memcpy(buf, &v, n);
        gpa += n, buf += n, size -= n;
    }
}

/* An MMIO write may be an IPI: what other vCPUs asked for comes first (see mmu.h, decoded code). */
static void mmio_write(struct cpu *c, uint64_t gpa, const uint8_t *buf, unsigned size)
{
    if (unlikely(c->record))
        mmu_record_refuse(c);
    mmu_poll_flush(c);
    while (size) {
        unsigned n = mmio_piece(gpa, size);
        uint64_t v = 0;
        memcpy(&v, buf, n);
        c->stats.mmio++;
        c->cb->mmio_write(c->opaque, gpa, v, n);
        gpa += n, buf += n, size -= n;
    }
}

/* Notes the data breakpoints that [lin, lin + size) hits. */
static void watch_hit(struct cpu *c, uint64_t lin, unsigned size, bool write)
{
    static const uint8_t len_of[4] = { 1, 2, 8, 4 };
    for (unsigned i = 0; i < 4; i++) {
        unsigned type = c->dr[7] >> (16 + i * 4) & 3;
        unsigned len = len_of[c->dr[7] >> (18 + i * 4) & 3];
        uint64_t at = c->dr[i] & ~(uint64_t)(len - 1);
        bool armed = c->dr[7] >> (i * 2) & 3 && (type == 3 || (type == 1 && write));
        if (armed && lin < at + len && at < lin + size)
            c->dr6_pending |= (uint8_t)(1u << i);
    }
}

static uint8_t *host_at(const struct tlb_entry *e, uint64_t lin)
{
    return e->host + (lin & ~PAGE_MASK);
}

/* One page's part of an access whose entry is right. */
static void page_read(struct cpu *c, const struct tlb_entry *e, uint64_t lin, void *buf, unsigned size)
{
    unsigned flags = tlb_flags(e->read, lin);
    if (unlikely(flags & TLB_WATCH))
        watch_hit(c, lin, size, false);
    if (unlikely(c->record) && !(flags & TLB_MMIO))
        mmu_record_access(c, host_at(e, lin), size, false);
    if (unlikely(flags & TLB_MMIO))
        mmio_read(c, (e->gpa & PAGE_MASK) | (lin & ~PAGE_MASK), buf, size);
    else
        ram_read(host_at(e, lin), buf, size);
}

/* The page had no decoded code when last looked at: let it be fast again, now and then. Its entry has
 * TLB_CODE. */
static void maybe_thaw(struct cpu *c, struct tlb_entry *e)
{
    if (++c->mmu->cold_writes % 64)
        return;
    e->write ^= TLB_CODE;
    mmu_bloom_add(c->mmu, e->gpa);
    /* A mark set meanwhile found no fast entry here: look once more. */
    if (atomic_load(&c->shared->code[e->gpa >> PAGE_SHIFT]))
        e->write ^= TLB_CODE;
}

/* Decoded code that dies cannot be brought back. */
static void record_write(struct cpu *c, unsigned flags, uint8_t *host, unsigned size)
{
    if (flags & TLB_CODE)
        mmu_record_refuse(c);
    mmu_record_access(c, host, size, true);
}

static void page_write(struct cpu *c, struct tlb_entry *e, uint64_t lin, const void *buf, unsigned size)
{
    uint64_t gpa = (e->gpa & PAGE_MASK) | (lin & ~PAGE_MASK);
    unsigned flags = tlb_flags(e->write, lin);
    if (unlikely(flags & TLB_WATCH))
        watch_hit(c, lin, size, true);
    if (unlikely(flags & TLB_MMIO)) {
        mmio_write(c, gpa, buf, size);
        return;
    }
    if (unlikely(c->record))
        record_write(c, flags, host_at(e, lin), size);
    ram_write(host_at(e, lin), buf, size);
    if (flags & TLB_CODE && !mmu_code_written(c->shared, c, gpa, size))
        maybe_thaw(c, e);
}

/* --- whole accesses --- */

/* The set that code of a CPL uses, with AC as it is. */
static unsigned set_of(const struct cpu *c, unsigned cpl)
{
    if (cpl == 3)
        return TLB_USER;
    return c->cr4 & CR4_SMAP && c->flags_sys & FLAG_AC ? TLB_SUPER_AC : TLB_SUPER;
}

static unsigned mode_set(const struct cpu *c)
{
    if (c->mode & MODE_USER)
        return TLB_USER;
    return c->cr4 & CR4_SMAP && !(c->mode & MODE_SMAP_ON) ? TLB_SUPER_AC : TLB_SUPER;
}

/* Splits [lin, lin + size) at the page end; the second address wraps as the mode says. Returns the
 * first part's size. */
static unsigned split(const struct cpu *c, uint64_t lin, unsigned size, uint64_t *ret_second)
{
    unsigned room = (unsigned)(PAGE_SIZE - (lin & ~PAGE_MASK));
    uint64_t next = lin + room;
    *ret_second = c->mode & MODE_CODE64 || lin >> 32 ? next : (uint32_t)next;
    return size <= room ? size : room;
}

/* What #AC wants for an access of that size: vectors 16 bytes at most, x87's 80-bit values 8, its
 * images 4. */
static unsigned natural_alignment(unsigned size)
{
    if (is_power_of_2(size))
        return size <= 32 ? (unsigned)min_u64(size, 16) : 1;
    return size == 10 ? 8 : size == 14 || size == 94 ? 2 : size == 28 || size == 108 ? 4 : 1;
}

static int check_align(struct cpu *c, uint64_t lin, unsigned size)
{
    if (likely(!(c->mode & MODE_AC)) || !(lin & (natural_alignment(size) - 1)))
        return 0;
    return cpu_raise_error(c, EXC_AC, 0);
}

static int set_read(struct cpu *c, unsigned set, uint64_t lin, unsigned size, void *buf)
{
    uint64_t second;
    unsigned first = split(c, lin, size, &second);
    struct tlb_entry *a = mmu_entry(c, set, lin, false);
    if (!a)
        return X_FAULT;
    if (likely(first == size)) {
        page_read(c, a, lin, buf, size);
        return 0;
    }
    struct tlb_entry *b = mmu_entry(c, set, second, false);
    if (!b)
        return X_FAULT;
    page_read(c, a, lin, buf, first);
    page_read(c, b, second, (uint8_t *)buf + first, size - first);
    return 0;
}

static int set_write(struct cpu *c, unsigned set, uint64_t lin, unsigned size, const void *buf)
{
    uint64_t second;
    unsigned first = split(c, lin, size, &second);
    struct tlb_entry *a = mmu_entry(c, set, lin, true);
    if (!a)
        return X_FAULT;
    if (likely(first == size)) {
        page_write(c, a, lin, buf, size);
        return 0;
    }
    struct tlb_entry *b = mmu_entry(c, set, second, true);
    if (!b)
        return X_FAULT;
    /* MMIO in the first page may have served a flush: the second entry is looked up anew. */
    page_write(c, a, lin, buf, first);
    b = mmu_entry(c, set, second, true);
    if (b)
        page_write(c, b, second, (const uint8_t *)buf + first, size - first);
    return 0;
}

static int set_probe(struct cpu *c, unsigned set, uint64_t lin, unsigned size, bool write)
{
    uint64_t second;
    unsigned first = split(c, lin, size, &second);
    if (!mmu_entry(c, set, lin, write) ||
        (first != size && !mmu_entry(c, set, second, write)))
        return X_FAULT;
    return 0;
}

int mmu_read_slow(struct cpu *c, uint64_t lin, unsigned size, void *buf)
{
    if (unlikely(c->mode & MODE_AC)) {
        int r = mmu_probe(c, lin, size, ACCESS_READ);
        if (r || (r = check_align(c, lin, size)))
            return r;
    }
    return set_read(c, mode_set(c), lin, size, buf);
}

int mmu_write_slow(struct cpu *c, uint64_t lin, unsigned size, const void *buf)
{
    if (unlikely(c->mode & MODE_AC)) {
        int r = mmu_probe(c, lin, size, ACCESS_WRITE);
        if (r || (r = check_align(c, lin, size)))
            return r;
    }
    return set_write(c, mode_set(c), lin, size, buf);
}

int mmu_read_sys(struct cpu *c, uint64_t lin, unsigned size, void *buf)
{
    return set_read(c, TLB_SUPER, lin, size, buf);
}

int mmu_write_sys(struct cpu *c, uint64_t lin, unsigned size, const void *buf)
{
    return set_write(c, TLB_SUPER, lin, size, buf);
}

int mmu_read_cpl(struct cpu *c, unsigned cpl, uint64_t lin, unsigned size, void *buf)
{
    return set_read(c, set_of(c, cpl), lin, size, buf);
}

int mmu_write_cpl(struct cpu *c, unsigned cpl, uint64_t lin, unsigned size, const void *buf)
{
    return set_write(c, set_of(c, cpl), lin, size, buf);
}

int mmu_probe_cpl(struct cpu *c, unsigned cpl, uint64_t lin, unsigned size, enum mmu_access access)
{
    return set_probe(c, set_of(c, cpl), lin, size, access == ACCESS_WRITE);
}

int mmu_probe(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access)
{
    if (access == ACCESS_EXEC) {
        uint64_t gpa, second;
        const uint8_t *host;
        unsigned first = split(c, lin, size, &second);
        int r = mmu_fetch_page(c, lin, &gpa, &host);
        return r || first == size ? r : mmu_fetch_page(c, second, &gpa, &host);
    }
    return set_probe(c, mode_set(c), lin, size, access == ACCESS_WRITE);
}

int mmu_host_slow(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access, uint8_t **ret_host)
{
    bool write = access == ACCESS_WRITE;
    uint64_t second;
    int r;
    *ret_host = NULL;
    if (split(c, lin, size, &second) != size)
        return unlikely(c->mode & MODE_AC) ? check_align(c, lin, size) : 0;
    struct tlb_entry *e = mmu_entry(c, mode_set(c), lin, write);
    if (!e)
        return X_FAULT;
    if ((r = check_align(c, lin, size)))
        return r;
    unsigned flags = tlb_flags(write ? e->write : e->read, lin);
    if (flags & TLB_MMIO)
        return 0;
    if (flags & TLB_WATCH)
        watch_hit(c, lin, size, write);
    if (unlikely(c->record) && write)
        record_write(c, flags, host_at(e, lin), size);
    else if (unlikely(c->record))
        mmu_record_access(c, host_at(e, lin), size, false);
    if (flags & TLB_CODE)
        mmu_code_about_to_be_written(c, (e->gpa & PAGE_MASK) | (lin & ~PAGE_MASK), size);
    *ret_host = host_at(e, lin);
    return 0;
}

void mmu_lock_begin(struct cpu *c)
{
    if (unlikely(c->record)) /* it would be left with the lock held */
        mmu_record_refuse(c);
    pthread_mutex_lock(&c->shared->split);
}

void mmu_lock_end(struct cpu *c)
{
    pthread_mutex_unlock(&c->shared->split);
}

/* --- debuggers --- */

int cpu_debug_read(struct cpu *c, uint64_t linear, void *buf, size_t len)
{
    uint8_t *to = buf;
    while (len) {
        struct mmu_walk w;
        uint32_t error;
        if (mmu_walk(c, linear & PAGE_MASK, TLB_SUPER, false, WALK_DEBUG, &w, &error) < 0)
            return -EFAULT;
        struct cpu_phys p = mmu_phys(c, w.gpa);
        if (!p.hva)
            return -EFAULT;
        size_t n = min_u64(len, PAGE_SIZE - (linear & ~PAGE_MASK));
        memcpy(to, p.hva + (linear & ~PAGE_MASK), n);
        to += n, linear += n, len -= n;
    }
    return 0;
}
