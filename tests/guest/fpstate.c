/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Vector, MMX and x87 state while things happen: each kind of register is loaded, something leaves the program (a
 * port, a device, an exception, an interrupt, a context switch), and all must be as it was. Everything runs often
 * enough to be hot.
 *
 * Spec      Intel SDM volume 1, chapters 8, 10, 13, 14.
 */
#include "lib/guest.h"

#define TURNS 60
#define V_SELF 0x52
#define V_SOFT 0x91

static bool has_avx;
static uint8_t in[512] __attribute__((aligned(64))), out[512] __attribute__((aligned(64)));
static uint8_t area[1024] __attribute__((aligned(64)));

/* --- what happens --- */

static void ev_nothing(void)
{
}

static void ev_cpuid(void)
{
    uint32_t r[4];
    cpuid(0, 0, r);
}

static void ev_port(void)
{
    out8(0x84, in8(0x84));
}

static void ev_device(void)
{
    (void)apic_read(0x20);
}

static void ev_exception(void)
{
    __asm__ volatile("ud2");
}

static void ev_soft_interrupt(void)
{
    __asm__ volatile("int $0x91");
}

static void ev_interrupt(void)
{
    apic_icr(0, 0x44000 | V_SELF);
    sti();
    cli();
}

static void ev_paging(void)
{
    write_cr3(read_cr3());
}

/* The next use of the unit comes back by #NM. */
static void ev_task_switched(void)
{
    write_cr0(read_cr0() | 8);
}

static void ev_fxsave(void)
{
    __asm__ volatile("fxsave64 %0; .irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n pcmpeqd %%xmm\\n, %%xmm\\n\n.endr\n"
                     "fninit; fldpi; fxrstor64 %0"
                     : "+m"(area));
}

static void ev_xsave(void)
{
    if (!has_avx)
        return;
    __asm__ volatile("xsave64 %0; vzeroall; fninit; fld1; xrstor64 %0" : "+m"(area) : "a"(7), "d"(0) : "memory");
}

static void ev_xsave_compact_free(void)
{
    if (!has_avx)
        return;
    /* SSE alone is put back: the upper halves live through it */
    __asm__ volatile("xsave64 %0; pcmpeqd %%xmm7, %%xmm7; xrstor64 %0" : "+m"(area) : "a"(2), "d"(0) : "memory");
}

static const struct event {
    const char *name;
    void (*fn)(void);
} events[] = {
#define ROW(fn) { #fn, fn }
    ROW(ev_nothing), ROW(ev_cpuid), ROW(ev_port), ROW(ev_device), ROW(ev_exception), ROW(ev_soft_interrupt),
    ROW(ev_interrupt), ROW(ev_paging), ROW(ev_task_switched), ROW(ev_fxsave), ROW(ev_xsave),
    ROW(ev_xsave_compact_free),
};

/* --- registers through it --- */

#define ALL16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
#define ALL8 "0,1,2,3,4,5,6,7"
/* RBX: in, R12: out, R13: the event. */
#define THROUGH(name, text)                                                                        \
    static void name(void (*event)(void))                                                          \
    {                                                                                              \
        register void (*r13)(void) __asm__("r13") = event;                                         \
        register uint8_t *r12 __asm__("r12") = out;                                                \
        __asm__ volatile(text                                                                      \
                         : "+r"(r13), "+r"(r12)                                                    \
                         : "b"(in)                                                                 \
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc"); \
    }
THROUGH(through_xmm, ".irp n," ALL16 "\n movdqu 16*\\n(%%rbx), %%xmm\\n\n.endr\n call *%%r13\n"
                     ".irp n," ALL16 "\n movdqu %%xmm\\n, 16*\\n(%%r12)\n.endr")
THROUGH(through_ymm, ".irp n," ALL16 "\n vmovdqu 32*\\n(%%rbx), %%ymm\\n\n.endr\n call *%%r13\n"
                     ".irp n," ALL16 "\n vmovdqu %%ymm\\n, 32*\\n(%%r12)\n.endr")
/* Legacy instructions between: they keep upper halves. */
THROUGH(through_mixed, ".irp n," ALL16 "\n vmovdqu 32*\\n(%%rbx), %%ymm\\n\n.endr\n call *%%r13\n"
                       "paddd %%xmm3, %%xmm3; psubd %%xmm4, %%xmm3; movdqa %%xmm5, %%xmm6; call *%%r13\n"
                       ".irp n," ALL16 "\n vmovdqu %%ymm\\n, 32*\\n(%%r12)\n.endr")
THROUGH(through_mmx, ".irp n," ALL8 "\n movq 8*\\n(%%rbx), %%mm\\n\n.endr\n call *%%r13\n"
                     ".irp n," ALL8 "\n movq %%mm\\n, 8*\\n(%%r12)\n.endr\n emms")
THROUGH(through_x87, "fninit\n.irp n," ALL8 "\n fildl 8*\\n(%%rbx)\n.endr\n call *%%r13\n"
                     ".irp n," ALL8 "\n fistpl 8*\\n(%%r12)\n.endr")
THROUGH(through_both, "fninit; fildl (%%rbx); movdqu 16(%%rbx), %%xmm1; call *%%r13; fiaddl 8(%%rbx); call *%%r13\n"
                      "fistpl (%%r12); movdqu %%xmm1, 16(%%r12)")

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

static void want_same(uint8_t *want)
{
    memcpy(want, in, 512);
}

static void want_mixed(uint8_t *want)
{
    memcpy(want, in, 512);
    for (unsigned k = 0; k < 4; k++)
        put32(want + 96 + 4 * k, 2 * get32(in + 96 + 4 * k) - get32(in + 128 + 4 * k));
    memcpy(want + 192, in + 160, 16);
}

static void want_reversed(uint8_t *want)
{
    for (unsigned k = 0; k < 8; k++)
        put32(want + 8 * k, get32(in + 56 - 8 * k));
}

static void want_both(uint8_t *want)
{
    put32(want, get32(in) + get32(in + 8));
    memcpy(want + 16, in + 16, 16);
}

static const struct {
    const char *name;
    void (*fn)(void (*event)(void));
    void (*want)(uint8_t *want);
    unsigned bytes, step; /* compared: 4 bytes in each `step` */
    bool avx;
} kinds[] = {
    { "xmm", through_xmm, want_same, 256, 4, false },
    { "ymm", through_ymm, want_same, 512, 4, true },
    { "ymm and legacy code", through_mixed, want_mixed, 512, 4, true },
    { "mmx", through_mmx, want_same, 64, 4, false },
    { "x87", through_x87, want_reversed, 64, 8, false },
    { "x87 and xmm", through_both, want_both, 8, 8, false },
};

static bool same(const uint8_t *a, const uint8_t *b, unsigned bytes, unsigned step)
{
    for (unsigned k = 0; k < bytes; k += step)
        if (get32(a + k) != get32(b + k))
            return false;
    return true;
}

static void test_through(void)
{
    static uint8_t want[512];
    uint32_t x = 1;

    for (size_t k = 0; k < ARRAY_COUNT(kinds); k++) {
        for (size_t e = 0; e < ARRAY_COUNT(events) && (!kinds[k].avx || has_avx); e++) {
            bool ok = true;
            for (unsigned turn = 0; turn < TURNS && ok; turn++) {
                for (unsigned b = 0; b < 512; b += 4)
                    put32(in + b, (x = x * 1664525 + 1013904223) >> 2);
                memset(out, 0, 512);
                kinds[k].fn(events[e].fn);
                kinds[k].want(want);
                ok = same(out, want, kinds[k].bytes, kinds[k].step);
            }
            check(ok, "%s through %s", kinds[k].name, events[e].name);
        }
    }
}

/* --- control words --- */

static uint32_t mxcsr_after, rounded;
static uint16_t fcw_after;

static void through_mxcsr(uint32_t mxcsr, void (*event)(void))
{
    static const float values[3] = { 2.5f, 1.0f, 3.0f };
    register void (*r13)(void) __asm__("r13") = event;

    __asm__ volatile("ldmxcsr %[m]; call *%%r13; movss %[v], %%xmm0; cvtss2si %%xmm0, %%eax; mov %%eax, %[r]\n"
                     "movss 4+%[v], %%xmm1; divss 8+%[v], %%xmm1; call *%%r13; stmxcsr %[a]; ldmxcsr %[d]"
                     : [a] "=m"(mxcsr_after), [r] "=m"(rounded), "+r"(r13)
                     : [m] "m"(mxcsr), [v] "m"(values), [d] "m"((const uint32_t){ 0x1f80 })
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

static void through_fcw(uint16_t fcw, void (*event)(void))
{
    static const float value = 2.5f;
    register void (*r13)(void) __asm__("r13") = event;

    __asm__ volatile("fninit; fldcw %[c]; call *%%r13; flds %[v]; fistpl %[r]; call *%%r13; fnstcw %[a]; fninit"
                     : [a] "=m"(fcw_after), [r] "=m"(rounded), "+r"(r13)
                     : [c] "m"(fcw), [v] "m"(value)
                     : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

/* Rounding: nearest, down, up, towards zero. */
static const uint8_t rounds_to[4] = { 2, 2, 3, 2 };

static void test_control(void)
{
    for (size_t e = 0; e < ARRAY_COUNT(events); e++) {
        for (unsigned turn = 0; turn < TURNS; turn++) {
            uint32_t mode = turn & 3, mxcsr = 0x1f80 | mode << 13;
            through_mxcsr(mxcsr, events[e].fn);
            if (!check_eq(mxcsr_after, mxcsr | 0x20, "MXCSR through %s", events[e].name) ||
                !check_eq(rounded, rounds_to[mode], "rounding by MXCSR %x", mxcsr))
                break;
            uint16_t fcw = (uint16_t)(0x37f | mode << 10);
            through_fcw(fcw, events[e].fn);
            if (!check_eq(fcw_after, fcw, "FCW through %s", events[e].name) ||
                !check_eq(rounded, rounds_to[mode], "rounding by FCW %x", fcw))
                break;
        }
    }
}

/* --- exceptions that are let through, in hot code --- */

static uint64_t trap_at;
static uint32_t untouched;

/* Divides by *arg with division by zero let through. */
static void divide_sse(void *arg)
{
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %[at]; ldmxcsr %[m]\n"
                     "mov $0x3f800000, %%ecx; movd %%ecx, %%xmm3; movss (%%rdi), %%xmm2; 1: divss %%xmm2, %%xmm3; ldmxcsr %[d]"
                     : [at] "=m"(trap_at)
                     : "D"(arg), [m] "m"((const uint32_t){ 0x1d80 }), [d] "m"((const uint32_t){ 0x1f80 })
                     : "rax", "rcx", "memory");
}

/* The divider's error is the next instruction's. */
static void divide_x87(void *arg)
{
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %[at]; fninit; fldcw %[c]\n"
                     "fld1; fdivs (%%rdi); nop; 1: fchs; fninit"
                     : [at] "=m"(trap_at)
                     : "D"(arg), [c] "m"((const uint16_t){ 0x37b })
                     : "rax", "memory");
}

static void test_let_through(void)
{
    static float by;

    for (unsigned turn = 0; turn < 4 * TURNS; turn++) {
        bool zero = turn % TURNS == TURNS - 1;
        put32((uint8_t *)&by, zero ? 0 : 0x40000000 + turn);
        int vector = catch_trap(divide_sse, &by);
        if (!check_eq(vector, zero ? 19 : -1, "vector of a division by MXCSR"))
            return;
        if (zero) {
            check_eq(this_cpu()->caught.rip, trap_at, "its RIP");
            __asm__ volatile("stmxcsr %0; movd %%xmm3, %1; ldmxcsr %2"
                             : "=m"(mxcsr_after), "=m"(untouched)
                             : "m"((const uint32_t){ 0x1f80 }));
            check_eq(mxcsr_after, 0x1d84, "MXCSR says division by zero");
            check_eq(untouched, 0x3f800000, "the dividend is as it was");
        }
        vector = catch_trap(divide_x87, &by);
        if (!check_eq(vector, zero ? 16 : -1, "vector of a division by FCW"))
            return;
        if (zero)
            check_eq(this_cpu()->caught.rip, trap_at, "its RIP");
        __asm__ volatile("fninit");
    }
}

/* --- x87 pointers --- */

static struct {
    uint16_t fcw, fsw, ftw, fop;
    uint64_t fip, fdp;
    uint8_t rest[488];
} image __attribute__((aligned(16)));
static uint64_t last_x87;
static double operands[4];

static void run_of_x87(void *arg)
{
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %[at]; fld1; faddl %[m]; nop; fmull 8+%[m]; 1: fsubl (%%rdi)\n"
                     "mov %%rax, %%rcx; inc %%rcx; fxsave64 %[i]; fstp %%st(0)"
                     : [at] "=m"(last_x87), [i] "=m"(image)
                     : "D"(arg), [m] "m"(operands)
                     : "rax", "rcx", "memory");
}

static void run_that_faults(void *arg)
{
    __asm__ volatile("lea 1f(%%rip), %%rax; mov %%rax, %[at]; fld1; 1: faddl %[m]; fsubl (%%rdi); fstp %%st(0)"
                     : [at] "=m"(last_x87)
                     : "D"(arg), [m] "m"(operands)
                     : "rax", "memory");
}

/* Some processors save them only with an error: then they are zero. */
static void check_pointers(uint64_t fdp, const char *what)
{
    if (image.fip == 0 && image.fdp == 0)
        return;
    check_eq(image.fip, last_x87, "FIP %s", what);
    check_eq(image.fdp, fdp, "FDP %s", what);
    const uint8_t *code = (const uint8_t *)last_x87;
    check_eq(image.fop & 0x7ff, (code[0] & 7) << 8 | code[1], "FOP %s", what);
}

static void on_fault(struct frame *f)
{
    __asm__ volatile("fxsave64 %0; fninit" : "=m"(image));
    f->rip += 2;     /* fsubl (%rdi) */
}

static void test_pointers(void)
{
    __asm__ volatile("fninit");
    for (unsigned turn = 0; turn < TURNS; turn++) {
        run_of_x87(&operands[2]);
        check_pointers((uint64_t)&operands[2], "behind a run");
        run_that_faults(&operands[3]);
    }
    trap_set(13, on_fault);
    run_that_faults((void *)0x800000000000ul);
    trap_set(13, NULL);
    check_pointers((uint64_t)&operands[0], "before what faulted");
    __asm__ volatile("fninit");
}

static void skip_two(struct frame *f)
{
    f->rip += 2;
}

static void on_soft(struct frame *f)
{
}

static void on_self(struct frame *f)
{
    apic_eoi();
}

static void on_not_available(struct frame *f)
{
    __asm__ volatile("clts");
}

void test_main(void)
{
    uint32_t r[4];

    apic_enable();
    trap_set(6, skip_two);
    trap_set(7, on_not_available);
    trap_set(V_SOFT, on_soft);
    trap_set(V_SELF, on_self);
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    __asm__ volatile("fninit");
    cpuid(1, 0, r);
    has_avx = r[2] >> 26 & r[2] >> 28 & 1;
    if (has_avx) {
        write_cr4(read_cr4() | CR4_OSXSAVE);
        __asm__ volatile("xsetbv" ::"a"(7), "d"(0), "c"(0));
    } else {
        skip("AVX", "the processor has none");
    }
    test_through();
    test_control();
    trap_set(7, NULL);
    test_let_through();
    test_pointers();
}
