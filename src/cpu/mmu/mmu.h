/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory as instructions see it: linear address in, value or fault out.
 *
 * Spec      Intel SDM volume 3, chapters 4 (paging) and 5 (protection); PCID 4.10.
 * Thread    The vCPU's own.
 * Errors    0, or X_FAULT with cpu->fault filled (#PF, #AC); nothing was written then, not even in
 *           part: an access across two pages checks both before it writes.
 * Addresses Canonical: callers of the inline functions have checked; the slow ones raise #GP(0).
 * Sizes     1 to 4096 bytes for the functions that take one.
 * Rule      RAM is read once per access; the value is the guest's at that instant. Aligned accesses
 *           of up to 8 bytes are single host loads and stores (x86's own atomicity); 16-byte
 *           aligned vector accesses too.
 */
#pragma once

#include "cpu/state.h"

enum mmu_access { ACCESS_READ, ACCESS_WRITE, ACCESS_EXEC };

/* Slow paths: TLB miss, page crossing, MMIO, ROM, code pages, watchpoints. */
int mmu_read_slow(struct cpu *c, uint64_t lin, unsigned size, void *buf);
int mmu_write_slow(struct cpu *c, uint64_t lin, unsigned size, const void *buf);

/* As supervisor whatever the CPL: implicit accesses (descriptor tables, TSS, IDT). SMAP holds, AC
 * or not. */
int mmu_read_sys(struct cpu *c, uint64_t lin, unsigned size, void *buf);
int mmu_write_sys(struct cpu *c, uint64_t lin, unsigned size, const void *buf);
/* As code of that CPL would: the stacks of another privilege level. No alignment check. */
int mmu_read_cpl(struct cpu *c, unsigned cpl, uint64_t lin, unsigned size, void *buf);
int mmu_write_cpl(struct cpu *c, unsigned cpl, uint64_t lin, unsigned size, const void *buf);
int mmu_probe_cpl(struct cpu *c, unsigned cpl, uint64_t lin, unsigned size, enum mmu_access access);

/* Fault checks for [lin, lin + size) without access, both pages; for instructions that must know
 * first. */
int mmu_probe(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access);

/* For locked operations that mmu_host() could not serve: between begin and end, no other vCPU is
 * inside such a section; MMIO and page-crossing read-modify-writes go through read and write. */
void mmu_lock_begin(struct cpu *c);
void mmu_lock_end(struct cpu *c);

/* Copies up to `len` bytes at `lin` as instruction fetch; *ret_got < len when the next page faults
 * (and got > 0). */
int mmu_fetch_bytes(struct cpu *c, uint64_t lin, uint8_t *buf, unsigned len, unsigned *ret_got);

/* Decoded code and writes to it
 *
 * cpu_shared keeps, for each guest-physical page, 64 bits: one for each 64-byte granule from which
 * some vCPU has decoded. A page with any bit set is written by the slow path, which writes first,
 * then looks at the bits, clears the ones it hit and has the blocks there dropped:
 * exec_invalidate() on this vCPU at once, on the others at their next block boundary (CPU_EV_FLUSH,
 * mmu_handle_flush()).
 *
 * mmu_mark_code() is called BEFORE the bytes are read for decoding (mark 15 bytes ahead of the
 * decoder if need be; marking too much is harmless): either the writer sees the bit, or the decoder
 * sees the new bytes. `gpa` to `gpa + len` stays in one page.
 *
 * A page that gets its first bit may still have fast write entries in TLBs. This vCPU's are dropped
 * at once; the others are told by CPU_EV_FLUSH. A vCPU that then finds such an entry in its TLB
 * takes the whole page as written: every vCPU drops its blocks there. So a write through a stale
 * fast entry is noticed at the writer's next block boundary, and before any later MMIO or x2APIC
 * write of its (the IPI that cross-modifying code sends); it is never lost.
 *
 * Translated blocks are shared. With them the bits are cleared under translate.lock, after the blocks died, so that
 * bits found clear mean that no block is left; translate/cache.c has the whole argument. */
void mmu_mark_code(struct cpu *c, uint64_t gpa, unsigned len);
/* Before an effect that another vCPU may see as a message (MMIO, x2APIC): serves what it asked for. */
static inline void mmu_poll_flush(struct cpu *c);
/* Serves CPU_EV_FLUSH, whose bit the caller has cleared: drops TLB entries and blocks as asked by
 * others. */
void mmu_handle_flush(struct cpu *c);

void mmu_flush_all(struct cpu *c);       /* including global entries */
void mmu_flush_nonglobal(struct cpu *c); /* every address space, but not global entries */
void mmu_flush_pcid(struct cpu *c, unsigned pcid);
void mmu_flush_page(struct cpu *c, uint64_t lin); /* INVLPG: here, and everywhere if global */
void mmu_flush_pcid_page(struct cpu *c, unsigned pcid, uint64_t lin);
void mmu_set_cr3(struct cpu *c, uint64_t cr3, bool keep); /* PCID aware; keep: CR3 bit 63 */
/* Reads the four PDPTEs of PAE paging. check: false with nothing changed when one has reserved bits
 * set. */
bool mmu_load_pdptes(struct cpu *c, uint64_t cr3, bool check);
void mmu_mode_changed(struct cpu *c); /* makes tlb_cur, tlb_code_cur and jc_off those of c->mode */
int mmu_init(struct cpu *c); /* 0 or -ENOMEM; attaches to c->shared */
void mmu_done(struct cpu *c);

int mmu_host_slow(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access, uint8_t **ret_host);
int mmu_fetch_page_slow(struct cpu *c, uint64_t lin, uint64_t *ret_gpa, const uint8_t **ret_host);

/* Writes guest-physical memory within a page: 0, or -1 when that is not RAM. */
int mmu_phys_write(struct cpu *c, uint64_t gpa, const void *buf, unsigned len);

static inline void mmu_poll_flush(struct cpu *c)
{
    if (unlikely(atomic_load(&c->events) & CPU_EV_FLUSH)) {
        atomic_fetch_and(&c->events, ~(uint32_t)CPU_EV_FLUSH);
        mmu_handle_flush(c);
    }
}

static inline struct tlb_entry *tlb_at(struct cpu *c, uint64_t lin)
{
    return &c->tlb_cur[(lin >> PAGE_SHIFT) & (TLB_SIZE - 1)];
}

/* Whether an access of 1 to 4096 bytes hits (state.h); then *ret_off is its offset in the page. */
static inline bool tlb_hit(uint64_t tag, uint64_t lin, unsigned size, uint64_t *ret_off)
{
    *ret_off = lin - tag;
    return likely(*ret_off <= PAGE_SIZE - size);
}

/* TLB_* flags of a valid entry's tag, `lin` an address in its page. */
static inline unsigned tlb_flags(uint64_t tag, uint64_t lin)
{
    return (unsigned)(tag ^ lin) & TLB_FLAGS;
}

/* Before any TLB entry changes that data accesses of the current mode may use. */
static inline void mmu_stack_forget(struct cpu *c)
{
    c->stack_room[0] = c->stack_room[1] = 0;
}

static inline struct tlb_code *tlb_code_at(struct cpu *c, uint64_t lin)
{
    return &c->tlb_code_cur[(lin >> PAGE_SHIFT) & (TLB_CODE_SIZE - 1)];
}

/* --- jump cache (state.h) --- */

/* Where the current table has an address, or would. */
static inline struct jc_entry *mmu_jc_at(struct cpu *c, uint64_t lin)
{
    return (struct jc_entry *)((uint8_t *)c->jc + c->jc_off + (lin << JC_SHIFT & JC_MASK));
}

/* Enters a block that starts at `lin` into the current table, unless the code TLB has not the page. Only this
 * function fills entries: the page's code TLB entry knows where they are. */
void mmu_jc_put(struct cpu *c, uint64_t lin, struct tb *tb);
void mmu_jc_clear_all(struct cpu *c);

/* Host pointer to `size` bytes inside one page for the access, after all checks; A/D bits are set,
 * code pages and watchpoints are told. 0 with *ret_host = NULL when the memory is not plain RAM
 * (MMIO, ROM for writes, across pages): use read/write. The pointer is good until the instruction
 * ends. */
static inline int mmu_host(struct cpu *c, uint64_t lin, unsigned size, enum mmu_access access,
                           uint8_t **ret_host)
{
    struct tlb_entry *e = tlb_at(c, lin);
    uint64_t off;
    if (tlb_hit(access == ACCESS_WRITE ? e->write : e->read, lin, size, &off)) {
        *ret_host = e->host + off;
        return 0;
    }
    return mmu_host_slow(c, lin, size, access, ret_host);
}

/* Instruction fetch (#GP when not canonical): the physical page of lin's page, executable for the
 * CPL, and the page's host address (NULL when code there cannot be cached, MMIO: then use
 * mmu_fetch_bytes). 0 or X_FAULT. */
static inline int mmu_fetch_page(struct cpu *c, uint64_t lin, uint64_t *ret_gpa,
                                 const uint8_t **ret_host)
{
    struct tlb_code *e = tlb_code_at(c, lin);
    if (likely(e->tag == (lin & PAGE_MASK))) {
        *ret_gpa = e->gpa;
        *ret_host = e->host;
        return 0;
    }
    return mmu_fetch_page_slow(c, lin, ret_gpa, ret_host);
}

/* Guest RAM is shared between vCPUs and devices without host locks, by design: plain loads and
 * stores, which TSan must not see. */
#ifdef __SANITIZE_THREAD__
#define MMU_RAM_ACCESS __attribute__((no_sanitize_thread, noinline, unused))
#else
#define MMU_RAM_ACCESS inline
#endif

/* One access of 1, 2, 4 or 8 bytes: true when the fast path holds. */
#define MMU_DEFINE_ACCESS(bits)                                                                    \
    typedef uint##bits##_t mmu_raw_u##bits __attribute__((aligned(1), may_alias));                 \
    static MMU_RAM_ACCESS uint##bits##_t mmu_ram_get_u##bits(const void *p)                        \
    {                                                                                              \
        return *(const volatile mmu_raw_u##bits *)p;                                               \
    }                                                                                              \
    static MMU_RAM_ACCESS void mmu_ram_put_u##bits(void *p, uint##bits##_t v)                      \
    {                                                                                              \
        *(volatile mmu_raw_u##bits *)p = v;                                                        \
    }                                                                                              \
    static inline int mmu_read_u##bits(struct cpu *c, uint64_t lin, uint##bits##_t *ret)           \
    {                                                                                              \
        struct tlb_entry *e = tlb_at(c, lin);                                                      \
        uint64_t off;                                                                              \
        if (tlb_hit(e->read, lin, bits / 8, &off)) {                                               \
            *ret = mmu_ram_get_u##bits(e->host + off);                                             \
            return 0;                                                                              \
        }                                                                                          \
        return mmu_read_slow(c, lin, bits / 8, ret);                                               \
    }                                                                                              \
    static inline int mmu_write_u##bits(struct cpu *c, uint64_t lin, uint##bits##_t val)           \
    {                                                                                              \
        struct tlb_entry *e = tlb_at(c, lin);                                                      \
        uint64_t off;                                                                              \
        if (tlb_hit(e->write, lin, bits / 8, &off)) {                                              \
            mmu_ram_put_u##bits(e->host + off, val);                                               \
            return 0;                                                                              \
        }                                                                                          \
        return mmu_write_slow(c, lin, bits / 8, &val);                                             \
    }
MMU_DEFINE_ACCESS(8)
MMU_DEFINE_ACCESS(16)
MMU_DEFINE_ACCESS(32)
MMU_DEFINE_ACCESS(64)
