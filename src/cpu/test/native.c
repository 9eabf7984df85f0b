/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The native side: a signal handler swaps the test's registers in and out of its own frame.
 *
 * INT3 in native_run() enters the handler, which puts the case's registers into the frame and returns: the
 * kernel's sigreturn starts the code. The exception that ends it enters the handler again, which copies the
 * frame out and puts the host's registers back. CS in the frame chooses 64-bit or 32-bit code.
 *
 * Spec      Linux' signal frame: asm/sigcontext.h; the extended state follows XSAVE's standard format.
 */
#include "cpu/test/oracle.h"

#include <asm/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <unistd.h>

#define CS_64 0x33
#define CS_32 0x23

static struct {
    const struct test_case *t; /* to enter; NULL: one is running */
    struct outcome *out;
    gregset_t host;
    bool done, inside; /* inside: the test's registers are loaded */
    unsigned ticks;    /* alarms seen since */
} run;

/* gregs in encoding order */
static const int greg_of[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

static void put_fpstate(uint8_t *fp, const uint8_t *xsave)
{
    const uint64_t components = 7;

    memcpy(fp, xsave, 24);
    memcpy(fp + 24, xsave + 24, 4);
    memcpy(fp + 32, xsave + 32, 384);
    memset(fp + 512, 0, 64);
    memcpy(fp + 512, &components, 8);
    memcpy(fp + 576, xsave + 576, 256);
}

static void get_fpstate(const uint8_t *fp, uint8_t *xsave)
{
    uint64_t bv;

    memset(xsave, 0, T_XSAVE);
    memcpy(&bv, fp + 512, 8);
    memcpy(xsave, fp, 28);
    memcpy(xsave + 32, fp + 32, 384);
    if (bv & 4)
        memcpy(xsave + 576, fp + 576, 256);
    if (!(bv & 1)) { /* the kernel's XSAVE may leave out what is in its initial configuration */
        memset(xsave, 0, 24);
        memset(xsave + 32, 0, 128);
        xsave[0] = 0x7f;
        xsave[1] = 3;
    }
    if (!(bv & 2))
        memset(xsave + 160, 0, 256);
}

static void enter(ucontext_t *uc)
{
    const struct test_case *t = run.t;
    greg_t *g = uc->uc_mcontext.gregs;
    uint64_t cs = t->mode32 ? CS_32 : CS_64;

    memcpy(run.host, g, sizeof(run.host));
    for (unsigned k = 0; k < 16; k++)
        g[greg_of[k]] = (greg_t)t->in.gpr[k];
    g[REG_RIP] = (greg_t)t->in.rip;
    g[REG_EFL] = (greg_t)t->in.rflags;
    g[REG_CSGSFS] = (greg_t)(((uint64_t)g[REG_CSGSFS] & ~0xffffull) | cs);
    put_fpstate((uint8_t *)uc->uc_mcontext.fpregs, t->in.xsave);
    run.t = NULL;
    run.inside = true;
    run.ticks = 0;
}

static void leave(ucontext_t *uc)
{
    static const uint8_t initial[T_XSAVE] = { [0] = 0x7f, [1] = 3, [24] = 0x80, [25] = 0x1f };
    greg_t *g = uc->uc_mcontext.gregs;
    struct outcome *o = run.out;

    for (unsigned k = 0; k < 16; k++)
        o->out.gpr[k] = (uint64_t)g[greg_of[k]];
    o->out.rip = (uint64_t)g[REG_RIP];
    o->out.rflags = (uint64_t)g[REG_EFL];
    o->vector = (int)g[REG_TRAPNO];
    o->error = (uint32_t)g[REG_ERR];
    o->cr2 = o->vector == 14 ? (uint64_t)g[REG_CR2] : 0;
    get_fpstate((uint8_t *)uc->uc_mcontext.fpregs, o->out.xsave);
    memcpy(g, run.host, sizeof(run.host));
    put_fpstate((uint8_t *)uc->uc_mcontext.fpregs, initial);
    run.done = true;
    run.inside = false;
}

/* AC may still be on from the test; nothing here may fault on it. */
static void on_signal(int sig, siginfo_t *info, void *context)
{
    __asm__ volatile("pushfq; andq $~0x40000, (%%rsp); popfq" : : : "cc", "memory");
    if (run.t)
        enter(context);
    else
        leave(context);
}

/* A test that jumps in circles ends at the second alarm. */
static void on_alarm(int sig, siginfo_t *info, void *context)
{
    __asm__ volatile("pushfq; andq $~0x40000, (%%rsp); popfq" : : : "cc", "memory");
    if (!run.inside || run.ticks++ == 0)
        return;
    leave(context);
    run.out->vector = VECTOR_ENDLESS;
}

static bool map_at(uint64_t at, size_t size, int prot)
{
    void *p = mmap((void *)at, size, prot,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_POPULATE, -1, 0);

    return p == (void *)at;
}

bool native_init(void)
{
    static const int signals[] = { SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL };
    static uint8_t alt_stack[65536];
    stack_t ss = { .ss_sp = alt_stack, .ss_size = sizeof(alt_stack) };
    struct sigaction sa = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    int rw = PROT_READ | PROT_WRITE;

    if (!map_at(T_CODE, 2 * T_PAGE, rw | PROT_EXEC) || !map_at(T_DATA, 2 * T_PAGE, rw) ||
        !map_at(T_RO, T_PAGE, rw) || !map_at(T_LOW, 2 * T_PAGE, rw))
        return false;
    memset((void *)(uintptr_t)T_CODE, 0xcc, 2 * T_PAGE);
    if (sigaltstack(&ss, NULL) < 0)
        return false;
    struct sigaction alarm = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
    const struct itimerval tick = { { 0, 20000 }, { 0, 20000 } };

    sigaddset(&sa.sa_mask, SIGALRM);
    for (unsigned k = 0; k < ARRAY_COUNT(signals); k++) {
        sigaddset(&alarm.sa_mask, signals[k]);
        sigaction(signals[k], &sa, NULL);
    }
    if (sigaction(SIGALRM, &alarm, NULL) < 0 || setitimer(ITIMER_REAL, &tick, NULL) < 0)
        return false;
    __asm__ volatile("movw %w0, %%ds; movw %w0, %%es" : : "r"(0x2b)); /* 32-bit code uses them */
    return true;
}

static void native_memory(const uint8_t *mem)
{
    mprotect((void *)(uintptr_t)T_RO, T_PAGE, PROT_READ | PROT_WRITE);
    memcpy((void *)(uintptr_t)T_RO, mem + MEM_RO, T_PAGE);
    mprotect((void *)(uintptr_t)T_RO, T_PAGE, PROT_READ);
}

void native_run(const struct test_case *t, struct outcome *ret, uint8_t mem[MEM_BYTES])
{
    unsigned long translators_gs = 0;

    memory_fill(t->mem_seed, mem);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &translators_gs);
    syscall(SYS_arch_prctl, ARCH_SET_GS, (unsigned long)T_GS_BASE);
    memcpy((void *)(uintptr_t)T_DATA, mem + MEM_DATA, 2 * T_PAGE);
    memcpy((void *)(uintptr_t)T_LOW, mem + MEM_LOW, 2 * T_PAGE);
    if (memcmp((void *)(uintptr_t)T_RO, mem + MEM_RO, T_PAGE))
        native_memory(mem);
    memset((void *)(uintptr_t)T_CODE, 0xcc, 2 * T_PAGE); /* tests may have stored there */
    memcpy((void *)(uintptr_t)t->in.rip, t->code, t->code_len);
    run.t = t;
    run.out = ret;
    run.done = false;
    __asm__ volatile("pushq $0x202; popfq; int3"
                     :
                     :
                     : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                       "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
    syscall(SYS_arch_prctl, ARCH_SET_GS, translators_gs);
    if (!run.done)
        ret->vector = VECTOR_NONE;
    memcpy(mem + MEM_DATA, (void *)(uintptr_t)T_DATA, 2 * T_PAGE);
    memcpy(mem + MEM_LOW, (void *)(uintptr_t)T_LOW, 2 * T_PAGE);
}
