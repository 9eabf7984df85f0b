/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs programs to their trap, at full speed or stepped, and compares where they ended. */
#include "probe.h"

#define DATA_PAGES 3

uint8_t *probe_data, *probe_code;
void (*probe_prepare)(void);
static uint8_t *data_template;
static struct {
    uint8_t bytes[512] __attribute__((aligned(16)));
} fpu_start, fpu_end;
static void (*step_hook)(const struct frame *f);
static uint64_t steps, stepped_rip;
static bool hole_mapped, added_tf;

uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1d;
}

uint64_t hash_bytes(const void *p, size_t bytes)
{
    const uint64_t *at = p;
    uint64_t h = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < bytes / 8; i++)
        h = (h ^ at[i]) * 0x100000001b3 + (h >> 29);
    return h;
}

uint64_t probe_hash(const struct frame *f)
{
    uint64_t tail[2] = { f->rip, (f->flags & ~(FLAG_TF | FLAG_RF)) ^ f->rsp << 16 };
    return hash_bytes(f, offsetof(struct frame, vector)) ^ hash_bytes(tail, sizeof(tail));
}

static bool is_code(uint64_t rip)
{
    return (rip >= CODE_AT && rip < CODE_END) || (rip >= CODE2_AT && rip < CODE2_AT + 2 * PAGE);
}

/* PUSHF shows TF to the program and POPF takes it away: neither may be seen. */
static void hide_step(struct frame *f)
{
    static const uint8_t pushf = 0x9c, popf = 0x9d;
    uint64_t *top = (uint64_t *)f->rsp, end = hole_mapped ? HOLE + PAGE : HOLE;
    bool in_code = is_code(f->rip);
    uint8_t before = stepped_rip ? *(uint8_t *)stepped_rip : 0;
    uint8_t next = in_code ? *(uint8_t *)f->rip : 0;
    stepped_rip = in_code ? f->rip : 0;
    if (before == pushf && f->rsp >= DATA_AT && f->rsp <= end - 8)
        *top &= ~FLAG_TF;
    if (before == popf && f->rsp >= DATA_AT + 8 && f->rsp <= end && added_tf)
        top[-1] &= ~FLAG_TF;
    added_tf = false;
    if (next == popf && f->rsp >= DATA_AT && f->rsp <= end - 8) {
        added_tf = !(*top & FLAG_TF);
        *top |= FLAG_TF;
    }
}

static void on_step(struct frame *f)
{
    steps++;
    hide_step(f);
    write_dr6(0xffff0ff0);
    if (step_hook)
        step_hook(f);
}

void probe_map_hole(bool on)
{
    map_page(0, HOLE, (uint64_t)probe_data + 2 * PAGE, on ? PTE_P | PTE_W | PTE_U : 0, 1);
    hole_mapped = on;
}

bool probe_hole_is_mapped(void)
{
    return hole_mapped;
}

void probe_init(void)
{
    extern uint8_t trap_stubs[256][16];
    extern uint64_t boot_pd[];
    for (unsigned v = 0; v < 256; v++)
        gate_set(v, (uint64_t)trap_stubs[v], idt[v].type >> 5 & 3, v == 8 ? 1 : 2);
    trap_set(1, on_step);
    write_cr0(read_cr0() | 1u << 18); /* AM: at CPL 3, when a program sets AC */
    probe_data = alloc_pages(DATA_PAGES + 1);
    data_template = alloc_pages(DATA_PAGES);
    probe_code = alloc_pages(2);
    uint64_t seed = 0x1234567;
    for (size_t i = 0; i < DATA_PAGES * PAGE; i++)
        data_template[i] = (uint8_t)next_random(&seed);
    memset(data_template + 2 * PAGE, 0xcc, 64); /* what a jump to the hole executes: INT3 */
    for (unsigned i = 0; i < 2; i++) {
        map_page(0, DATA_AT + i * PAGE, (uint64_t)probe_data + i * PAGE, PTE_P | PTE_W | PTE_U, 1);
        uint64_t code = (uint64_t)probe_code + i * PAGE;
        map_page(0, CODE_AT + i * PAGE, code, PTE_P | PTE_W | PTE_U, 1);
        map_page(0, CODE2_AT + i * PAGE, code, PTE_P | PTE_W | PTE_U, 1);
    }
    map_page(0, HOLE + PAGE, (uint64_t)probe_data + DATA_PAGES * PAGE, PTE_P | PTE_U, 1);
    boot_pd[HOLE32 >> 21] = 0;
    user_pages(true);
    wrmsr(MSR_FS_BASE, HOLE - 0x10);
    wrmsr(MSR_GS_BASE, HOLE);
    __asm__ volatile("fninit; fxsave64 %0" : "=m"(fpu_start));
    for (unsigned i = 160; i < 160 + 16 * 16; i++)
        fpu_start.bytes[i] = (uint8_t)next_random(&seed);
    uint32_t mxcsr = 0x1f80;
    memcpy(fpu_start.bytes + 24, &mxcsr, 4);
}

struct frame probe_start(uint64_t rip, unsigned cpl)
{
    return (struct frame){
        .rax = 0x1111222233334444, .rcx = 5,
        .rdx = 0x33333333d0000000, .rbx = HOLE,
        .rsp = DATA_AT + PAGE / 2, .rbp = HOLE + 8,
        .rsi = HOLE - 3, .rdi = HOLE - 16,
        .r8 = 0x10, .r9 = HOLE - 4,
        .r10 = HOLE + PAGE, .r11 = 0x0000800000001000,
        .r12 = HOLE, .r13 = HOLE + 0x40,
        .r14 = HOLE / 4, .r15 = 7,
        .rip = rip, .flags = 0x202 & ~FLAG_IF,
        .cs = cpl ? SEL_USER64 : SEL_CODE, .ss = cpl ? SEL_USER_DATA : SEL_DATA,
    };
}

/* The frame itself is the stack that IRETQ pops; nothing is pushed to it. */
__attribute__((naked)) static void load_frame(void *frame)
{
    __asm__("mov %rdi, %rsp\n"
            "pop %r15; pop %r14; pop %r13; pop %r12; pop %r11; pop %r10; pop %r9; pop %r8\n"
            "pop %rbp; pop %rdi; pop %rsi; pop %rdx; pop %rcx; pop %rbx; pop %rax\n"
            "add $16, %rsp\n"
            "iretq");
}

static void run(const struct frame *start, uint64_t more_flags, struct outcome *ret)
{
    static struct frame loaded;
    uint64_t cr0 = read_cr0();
    memcpy(probe_data, data_template, DATA_PAGES * PAGE);
    if (probe_prepare)
        probe_prepare();
    loaded = *start;
    loaded.flags |= more_flags;
    steps = 0;
    stepped_rip = is_code(start->rip) ? start->rip : 0;
    uint32_t mxcsr;
    memcpy(&mxcsr, fpu_start.bytes + 24, 4);
    __asm__ volatile("fxrstor64 %0" ::"m"(fpu_start));
    int vector = catch_trap(load_frame, &loaded);
    write_cr0(cr0);
    __asm__ volatile("fxsave64 %0" : "=m"(fpu_end));
    __asm__ volatile("fninit; ldmxcsr %0" ::"m"(mxcsr));
    memset(fpu_end.bytes + 6, 0, 18); /* the last x87 instruction and its operand: not kept by all */
    memset(fpu_end.bytes + 416, 0, 96);
    *ret = (struct outcome){
        .vector = vector,
        .frame = this_cpu()->caught,
        .cr2 = vector == 14 ? this_cpu()->caught_cr2 : 0,
        .data = hash_bytes(probe_data, DATA_PAGES * PAGE),
        .fpu = hash_bytes(&fpu_end, 416),
        .steps = steps,
    };
    ret->frame.flags &= ~(FLAG_TF | FLAG_RF);
}

void probe_run(const struct frame *start, struct outcome *ret)
{
    run(start, 0, ret);
}

void probe_step(const struct frame *start, void (*hook)(const struct frame *f), struct outcome *ret)
{
    step_hook = hook;
    run(start, FLAG_TF, ret);
    step_hook = NULL;
}

const char *probe_differ(const struct outcome *a, const struct outcome *b, uint64_t *ret_a,
                         uint64_t *ret_b)
{
    static const char *const names[] = { "R15", "R14",   "R13",    "R12",   "R11",   "R10",
                                         "R9",  "R8",    "RBP",    "RDI",   "RSI",   "RDX",
                                         "RCX", "RBX",   "RAX",    "vector", "error", "RIP",
                                         "CS",  "RFLAGS", "RSP",   "SS" };
    const uint64_t *x = (const uint64_t *)&a->frame, *y = (const uint64_t *)&b->frame;
    for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
        unsigned at = (i + 15) % ARRAY_COUNT(names); /* the vector first: it explains the rest */
        *ret_a = x[at];
        *ret_b = y[at];
        if (x[at] != y[at])
            return names[at];
    }
    *ret_a = a->cr2, *ret_b = b->cr2;
    if (a->cr2 != b->cr2)
        return "CR2";
    *ret_a = a->data, *ret_b = b->data;
    if (a->data != b->data)
        return "memory";
    *ret_a = a->fpu, *ret_b = b->fpu;
    return a->fpu != b->fpu ? "vector or x87 state" : NULL;
}

void program_add(struct program *p, const struct piece *piece)
{
    memcpy(p->next, piece->code, piece->len);
    p->next += piece->len;
    if (p->count < ARRAY_COUNT(p->parts))
        p->parts[p->count++] = piece;
}

void program_byte(struct program *p, uint8_t byte)
{
    *p->next++ = byte;
}

void program_say(const struct program *p)
{
    for (unsigned i = 0; i < p->count; i++)
        print("    %s\n", p->parts[i]->text);
}
