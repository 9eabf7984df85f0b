/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control and debug registers, single step, system calls, I/O permission, MSRs, CPUID, the state's
 * exchange. */
#include "cpu/sys/model.h"
#include "cpu/sys/sysbed.h"

BLOB(wr_cr0, ".code64\n mov %rax, %cr0\n hlt");
BLOB(wr_cr3, ".code64\n mov %rax, %cr3\n hlt");
BLOB(wr_cr4, ".code64\n mov %rax, %cr4\n hlt");
BLOB(wr_cr8, ".code64\n mov %rax, %cr8\n hlt");
BLOB(wr_dr7, ".code64\n mov %rax, %dr7\n hlt");
BLOB(rd_dr4, ".code64\n .byte 0x0f, 0x21, 0xe0\n hlt");
BLOB(rd_dr0, ".code64\n mov %dr0, %rax\n hlt");
BLOB(wrmsr_hlt, ".code64\n wrmsr\n hlt");
BLOB(xsetbv_hlt, ".code64\n xsetbv\n hlt");
BLOB(steps, ".code64\n nop\n inc %eax\n nop\n hlt");
BLOB(step_popf, ".code64\n pushq $0x102\n popfq\n nop\n hlt");
BLOB(store, ".code64\n mov $0x300100, %edi\n nop\n mov %eax, (%rdi)\n nop\n hlt");
BLOB(out80, ".code32\n out %al, $0x80\n nop\n hlt");
BLOB(out_dx, ".code32\n out %al, %dx\n hlt");
BLOB(out_word, ".code32\n out %ax, %dx\n hlt");
BLOB(syscall_hlt, ".code64\n syscall\n nop");
BLOB(sysret_q, ".code64\n sysretq");
BLOB(sysret_l, ".code64\n sysretl");
BLOB(hlt_only, "hlt");
BLOB(swap, ".code64\n swapgs\n rdgsbase %rax\n wrfsbase %rbx\n hlt");
BLOB(smsw_user, ".code64\n smsw %eax\n hlt");
BLOB(sgdt_user, ".code64\n sgdt 0x300000\n hlt");
BLOB(rdtsc_user, ".code64\n rdtsc\n hlt");
BLOB(invlpg_read, ".code64\n mov (%rdi), %eax\n movq $0x301087, (%rsi)\n invlpg (%rdi)\n mov (%rdi), %ebx\n hlt");
BLOB(lar_lsl, ".code64\n lar %ax, %ebx\n lsl %ax, %ecx\n hlt");
BLOB(rep_out, ".code64\n mov $0x300000, %esi\n mov $200, %ecx\n mov $0x70, %edx\n rep outsb\n hlt");
BLOB(ins_fault, ".code64\n mov $0x1ff000, %edi\n mov $0x70, %edx\n insb\n hlt");
BLOB(stac_hlt, ".code64\n stac\n mov (%rdi), %eax\n clac\n mov (%rdi), %eax\n hlt");
BLOB(sysenter_insn, ".code32\n sysenter");
BLOB(sysexit_insn, ".code32\n sysexit");

static unsigned run64(const uint8_t *code, const uint8_t *end, uint64_t rax)
{
    sb_code(code, (size_t)(end - code));
    cpu->rip = SB_CODE;
    cpu->gpr[0] = rax;
    cpu->gpr[2] = rax >> 32;
    return sb_run();
}
#define RUN64(name, rax) run64(name, name##_end, rax)

static void test_cr_checks(void)
{
    static const struct {
        const uint8_t *code, *end;
        uint64_t rax;
        bool faults;
    } cases[] = {
        { wr_cr0, wr_cr0_end, 0x80010033, false },
        { wr_cr0, wr_cr0_end, 0x00010033, true },       /* PG off in 64-bit code */
        { wr_cr0, wr_cr0_end, 0x180010033, true },      /* upper half */
        { wr_cr0, wr_cr0_end, 0x80010032, true },       /* PG without PE */
        { wr_cr0, wr_cr0_end, 0xa0010033, true },       /* NW without CD */
        { wr_cr0, wr_cr0_end, 0xe0010033, false },
        { wr_cr3, wr_cr3_end, 1ull << 45, true },
        { wr_cr3, wr_cr3_end, 1ull << 63 | 0x1000, true }, /* no PCIDE */
        { wr_cr4, wr_cr4_end, 0x600, true },            /* PAE off in long mode */
        { wr_cr4, wr_cr4_end, 0x1620, true },           /* LA57 */
        { wr_cr4, wr_cr4_end, 0x621, true },            /* VME: the model has none */
        { wr_cr4, wr_cr4_end, 0x2620, true },           /* VMXE */
        { wr_cr4, wr_cr4_end, 0x100000620, true },
        { wr_cr4, wr_cr4_end, 0x6a0, false },
        { wr_cr8, wr_cr8_end, 16, true },
        { wr_cr8, wr_cr8_end, 15, false },
        { wr_dr7, wr_dr7_end, 1ull << 32, true },
        { wr_dr7, wr_dr7_end, 0x400, false },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        sb_start64("base");
        g_assert_cmpuint(run64(cases[i].code, cases[i].end, cases[i].rax), ==,
                         cases[i].faults ? EXC_GP : 256);
        sb_free();
    }
}

static void test_pcide(void)
{
    sb_start64("max");
    g_assert_cmpuint(RUN64(wr_cr4, 0x20620), ==, 256);
    g_assert_cmpuint(RUN64(wr_cr3, 1ull << 63 | 0x1007), ==, 256);
    g_assert_cmphex(cpu->cr3, ==, 0x1007);
    g_assert_cmpuint(RUN64(wr_cr4, 0x620), ==, 256);
    g_assert_cmpuint(RUN64(wr_cr4, 0x20620), ==, EXC_GP); /* PCID is not 0 */
    sb_free();
}

static void test_debug_registers(void)
{
    sb_start64("base");
    cpu->cr4 |= CR4_DE;
    g_assert_cmpuint(RUN64(rd_dr4, 0), ==, EXC_UD);
    cpu->cr4 &= ~(uint64_t)CR4_DE;
    sb_enter(CODE64, DATA0);
    g_assert_cmpuint(RUN64(rd_dr4, 0), ==, 256);
    g_assert_cmphex(cpu->gpr[0], ==, DR6_FIXED);
    cpu->dr[7] |= DR7_GD;
    g_assert_cmpuint(RUN64(rd_dr0, 0), ==, EXC_DB);
    g_assert_cmphex(cpu->dr[6] & DR6_BD, ==, DR6_BD);
    g_assert_cmphex(cpu->dr[7] & DR7_GD, ==, 0);
    g_assert_cmphex(sb_stack(0, 8), ==, SB_CODE);
    sb_free();
}

static void test_single_step(void)
{
    sb_start64("base");
    cpu->flags_sys |= FLAG_TF;
    cpu_update_mode(cpu);
    g_assert_cmpuint(RUN64(steps, 0), ==, EXC_DB);
    g_assert_cmphex(sb_stack(0, 8), ==, SB_CODE + 1);
    g_assert_cmphex(sb_stack(2, 8), ==, 0x102);
    g_assert_cmphex(cpu->dr[6], ==, DR6_FIXED | DR6_BS);
    g_assert_cmphex(cpu->flags_sys & FLAG_TF, ==, 0);
    sb_free();
    /* POPF that sets TF: the trap comes after the next instruction. */
    sb_start64("base");
    g_assert_cmpuint(RUN64(step_popf, 0), ==, EXC_DB);
    g_assert_cmphex(sb_stack(0, 8), ==, SB_CODE + 7);
    sb_free();
}

static void test_breakpoints(void)
{
    /* Code: a fault before the instruction; RF lets it run. */
    sb_start64("base");
    debug_set(cpu, 0, SB_CODE + 1);
    debug_set(cpu, 7, 2);
    g_assert_cmpuint(RUN64(steps, 5), ==, EXC_DB);
    g_assert_cmphex(sb_stack(0, 8), ==, SB_CODE + 1);
    g_assert_cmphex(sb_stack(2, 8), ==, 0x10002);
    g_assert_cmphex(cpu->dr[6], ==, DR6_FIXED | 1);
    g_assert_cmphex(cpu->gpr[0], ==, 5);
    sb_enter(CODE64, DATA0);
    cpu->flags_sys |= FLAG_RF;
    cpu->rip = SB_CODE + 1;
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->gpr[0], ==, 6);
    sb_free();
    /* Data: a trap after the store. */
    sb_start64("base");
    debug_set(cpu, 2, 0x300100);
    debug_set(cpu, 7, 2u << 4 | 1u << 24 | 3u << 26);
    g_assert_cmpuint(RUN64(store, 0x99), ==, EXC_DB);
    g_assert_cmphex(sb_stack(0, 8), ==, SB_CODE + 8);
    g_assert_cmphex(sb_stack(2, 8), ==, 2);
    g_assert_cmphex(cpu->dr[6], ==, DR6_FIXED | 4);
    g_assert_cmphex(sb->ram[0x300100], ==, 0x99);
    sb_free();
    /* I/O. */
    sb_start32("base");
    cpu->cr4 |= CR4_DE;
    debug_set(cpu, 1, 0x80);
    debug_set(cpu, 7, 2u << 2 | 2u << 20);
    RUN_BLOB(out80);
    g_assert_cmpuint(sb_run(), ==, EXC_DB);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 2);
    sb_free();
}

static void test_io_bitmap(void)
{
    static const struct {
        unsigned port, iopl;
        uint8_t bits;
        bool word, faults;
    } cases[] = {
        { 0x10, 0, 0, false, false },   { 0x10, 0, 1, false, true },  { 0x10, 3, 1, false, false },
        { 0x10, 0, 2, true, true },     { 0x17, 0, 0, true, false },  { 0x200, 0, 0, false, true },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        sb_start32("base");
        sb_enter(CODE32_3, DATA3);
        if (cases[i].word)
            RUN_BLOB(out_word);
        else
            RUN_BLOB(out_dx);
        sb->ram[SB_TSS + 0x68 + cases[i].port / 8 % 32] = cases[i].bits;
        cpu->gpr[2] = cases[i].port;
        cpu->flags_sys |= cases[i].iopl << 12;
        g_assert_cmpuint(sb_run(), ==, EXC_GP); /* the OUT, or the HLT after it */
        g_assert_cmphex(sb_stack(1, 4) == SB_CODE, ==, cases[i].faults);
        sb_free();
    }
}

static void test_string_io(void)
{
    sb_start64("base");
    g_assert_cmpuint(RUN64(rep_out, 0), ==, 256);
    g_assert_cmphex(cpu->gpr[1], ==, 0);
    g_assert_cmphex(cpu->gpr[6], ==, 0x300000 + 200);
    g_assert_cmpuint(cpu->stats.pio, ==, 200);
    sb_free();
    /* A fault comes before the device is touched. */
    sb_start64("base");
    sb_poke(0x4000 + 8 * 0x1ff, 8, 0);
    mmu_flush_all(cpu);
    g_assert_cmpuint(RUN64(ins_fault, 0), ==, EXC_PF);
    g_assert_cmpuint(cpu->stats.pio, ==, 0);
    sb_free();
}

static void set_syscall(uint64_t star)
{
    cpu->efer |= EFER_SCE;
    cpu->star = star;
    cpu->lstar = 0x41000;
    cpu->cstar = 0x42000;
    cpu->sfmask = 0x600;
    sb->ram[0x41000] = 0xf4;
}

static void test_syscall(void)
{
    sb_start64("base");
    sb_enter(CODE64_3, DATA3);
    set_syscall((uint64_t)CODE64 << 32);
    cpu->flags_sys |= FLAG_IF | FLAG_DF;
    g_assert_cmpuint(RUN64(syscall_hlt, 0), ==, 256);
    g_assert_cmpuint(cpu->cpl, ==, 0);
    g_assert_cmphex(cpu->gpr[1], ==, SB_CODE + 2);
    g_assert_cmphex(cpu->gpr[11], ==, 0x602);
    g_assert_cmphex(cpu_flags(cpu), ==, 2);
    g_assert_cmphex(cpu->seg[SEG_SS].selector, ==, CODE64 + 8);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK3);
    sb_free();
    sb_start64("base");
    g_assert_cmpuint(RUN64(syscall_hlt, 0), ==, EXC_UD); /* no SCE */
    sb_free();
    sb_start64("base");
    set_syscall((uint64_t)0x1b << 48);
    cpu->gpr[1] = 0x41000;
    cpu->gpr[11] = 0x10202;
    g_assert_cmpuint(RUN64(sysret_q, 0), ==, EXC_GP); /* the HLT */
    g_assert_cmphex(sb_stack(1, 8), ==, 0x41000);
    g_assert_cmphex(sb_stack(2, 8), ==, 0x2b);
    g_assert_cmphex(sb_stack(5, 8), ==, 0x23);
    sb_free();
    sb_start64("base");
    set_syscall((uint64_t)0x1b << 48);
    cpu->gpr[1] = 0xffffffff00041000;
    g_assert_cmpuint(RUN64(sysret_l, 0), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, 0x41000);
    g_assert_cmphex(sb_stack(2, 8), ==, 0x1b);
    sb_free();
    sb_start64("base");
    set_syscall(0);
    cpu->gpr[1] = 1ull << 47;
    g_assert_cmpuint(RUN64(sysret_q, 0), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, SB_CODE);
    sb_free();
}

static void test_sysenter(void)
{
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(sysenter_insn);
    g_assert_cmpuint(sb_run(), ==, EXC_GP); /* SYSENTER_CS is null */
    sb_free();
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(sysenter_insn);
    cpu->sysenter_cs = CODE32;
    cpu->sysenter_eip = 0x41000;
    cpu->sysenter_esp = 0x22000;
    sb->ram[0x41000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->gpr[4], ==, 0x22000);
    g_assert_cmphex(cpu->seg[SEG_SS].selector, ==, CODE32 + 8);
    cpu->gpr[1] = 0x33000;
    cpu->gpr[2] = 0x43000;
    sb->ram[0x43000] = 0xf4;
    RUN_BLOB(sysexit_insn);
    cpu->rip = SB_CODE;
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 4), ==, 0x43000);
    g_assert_cmphex(sb_stack(2, 4), ==, CODE32 + 16 + 3);
    sb_free();
}

static void test_bases(void)
{
    sb_start64("max");
    cpu->cr4 |= CR4_FSGSBASE;
    cpu->kernel_gs_base = 0x1234;
    cpu->gpr[3] = 0xffff888000000000;
    g_assert_cmpuint(RUN64(swap, 0), ==, 256);
    g_assert_cmphex(cpu->gpr[0], ==, 0x1234);
    g_assert_cmphex(cpu->seg[SEG_FS].base, ==, 0xffff888000000000);
    cpu->gpr[3] = 1ull << 47;
    g_assert_cmpuint(RUN64(swap, 0), ==, EXC_GP);
    cpu->cr4 &= ~(uint64_t)CR4_FSGSBASE;
    sb_enter(CODE64, DATA0);
    g_assert_cmpuint(RUN64(swap, 0), ==, EXC_UD);
    sb_free();
}

static void test_user_limits(void)
{
    sb_start64("max");
    sb_enter(CODE64_3, DATA3);
    cpu->cr4 |= CR4_UMIP | CR4_TSD;
    g_assert_cmpuint(RUN64(smsw_user, 0), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, SB_CODE);
    sb_enter(CODE64_3, DATA3);
    g_assert_cmpuint(RUN64(sgdt_user, 0), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, SB_CODE);
    sb_enter(CODE64_3, DATA3);
    g_assert_cmpuint(RUN64(rdtsc_user, 0), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, SB_CODE);
    sb_free();
}

static void test_invlpg(void)
{
    sb_start64("base");
    sb_poke(0x4000 + 8 * 0x100, 8, 0x300087 & ~0x80ull);
    sb_poke(0x300000, 4, 1);
    sb_poke(0x301000, 4, 2);
    cpu->gpr[7] = 0x100000;
    cpu->gpr[6] = 0x4000 + 8 * 0x100;
    g_assert_cmpuint(RUN64(invlpg_read, 0), ==, 256);
    g_assert_cmphex(cpu->gpr[0], ==, 1);
    g_assert_cmphex(cpu->gpr[3], ==, 2);
    sb_free();
}

static void test_smap(void)
{
    sb_start64("max");
    cpu->cr4 |= CR4_SMAP;
    for (unsigned v = 0; v < 512; v++) /* the tables' first 2 MiB are the supervisor's, but for one page */
        sb_poke(0x4000 + 8 * v, 8, (uint64_t)v << 12 | (v == 0x100 ? 7 : 3));
    mmu_flush_all(cpu);
    cpu_update_mode(cpu);
    cpu->gpr[7] = 0x100000;
    g_assert_cmpuint(RUN64(stac_hlt, 0), ==, EXC_PF);
    g_assert_cmphex(sb_stack(0, 8), ==, 1);
    g_assert_cmphex(sb_stack(1, 8), ==, SB_CODE + 8);
    sb_free();
}

static void test_lar(void)
{
    sb_start64("base");
    g_assert_cmpuint(RUN64(lar_lsl, CODE64), ==, 256);
    g_assert_cmphex(cpu->gpr[3], ==, 0xaf9b00);
    g_assert_cmphex(cpu->gpr[1], ==, 0xffffffff);
    g_assert_cmphex(cpu_flags(cpu) & FLAG_ZF, ==, FLAG_ZF);
    g_assert_cmpuint(RUN64(lar_lsl, 0x1000), ==, 256);
    g_assert_cmphex(cpu_flags(cpu) & FLAG_ZF, ==, 0);
    sb_free();
}

static void test_msrs(void)
{
    uint64_t v;
    static const uint32_t read_at_boot[] = {
        0x10, 0x17, 0x1b, 0x3a, 0x8b, 0xce, 0xfe, 0x174, 0x179, 0x17a, 0x198, 0x1a0, 0x1a2, 0x1d9, 0x200,
        0x20f, 0x250, 0x258, 0x268, 0x26f, 0x277, 0x2ff, 0x345, 0x400, 0x427, 0x606, 0x611, 0xc0000080,
        0xc0000103, 0xc0010010, 0xc0010015, 0xc001001f, 0xc0010058, 0xc0010114, 0xc0011029, 0xc001102a,
    };
    sb_start64("max");
    for (unsigned i = 0; i < ARRAY_COUNT(read_at_boot); i++)
        g_assert_cmpint(cpu_msr_read(cpu, read_at_boot[i], &v), ==, 0);
    static const struct {
        uint32_t msr;
        uint64_t val;
        int ret;
    } writes[] = {
        { 0xc0000080, 0, -1 },                  /* LME cannot go while paging */
        { 0xc0000080, 0x1901, -1 },             /* SVME */
        { 0xc0000080, 0x901, 0 },
        { 0x277, 0x0007040600070406, 0 },       { 0x277, 0x0207040600070406, -1 },
        { 0xc0000100, 1ull << 47, -1 },         { 0xc0000082, 1ull << 63, -1 },
        { 0x200, 6, 0 },                        { 0x200, 2, -1 },
        { 0x201, 1ull << 60, -1 },              { 0x2ff, 0xc06, 0 },
        { 0x2ff, 0x100, -1 },                   { 0xfe, 0, -1 },
        { 0x268, 0x0606060606060606, 0 },       { 0x268, 0x0606060606060602, -1 },
        { 0x12345678, 0, -1 },                  { 0xda0, 1, -1 },
        { 0x49, 1, 0 },                         { 0x10a, 0, -1 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(writes); i++)
        g_assert_cmpint(cpu_msr_write(cpu, writes[i].msr, writes[i].val), ==, writes[i].ret);
    g_assert_cmpint(cpu_msr_read(cpu, 0x12345678, &v), ==, -1);
    /* A write to the TSC moves TSC_ADJUST, and the other way round. */
    cpu_msr_write(cpu, 0x3b, 0);
    cpu_msr_write(cpu, 0x10, 1ull << 60);
    cpu_msr_read(cpu, 0x3b, &v);
    g_assert_cmpuint(v >> 56, ==, 0xf);
    cpu_msr_write(cpu, 0x3b, 0);
    cpu_msr_read(cpu, 0x10, &v);
    g_assert_cmpuint(v, <, 1ull << 59);
    cpu->gpr[1] = 0xc0000080;
    g_assert_cmpuint(RUN64(wrmsr_hlt, 0xffffffff), ==, EXC_GP);
    sb_free();
}

/* The clock page gives nanoseconds that agree with the host's. */
static void test_kvm_clock(void)
{
    struct {
        uint32_t version, pad;
        uint64_t tsc, ns;
        uint32_t mul;
        int8_t shift;
        uint8_t flags;
    } p;
    sb_start64("base");
    g_assert_cmpint(cpu_msr_write(cpu, 0x4b564d01, 0x300001), ==, 0);
    memcpy(&p, sb->ram + 0x300000, sizeof(p));
    g_assert_cmpuint(p.version % 2, ==, 0);
    g_assert_cmpuint(p.flags, ==, 1);
    uint64_t ticks = sb->shared->tsc_khz * 1000; /* one second */
    uint64_t shifted = p.shift < 0 ? ticks >> -p.shift : ticks << p.shift;
    uint64_t ns = (uint64_t)((unsigned __int128)shifted * p.mul >> 32);
    g_assert_cmpuint(ns, >, 999999000);
    g_assert_cmpuint(ns, <, 1000001000);
    g_assert_cmpint(cpu_msr_write(cpu, 0x4b564d01, 0xfff000000001), ==, -1);
    sb_free();
    sb_start64("base,kvm=off");
    g_assert_cmpint(cpu_msr_write(cpu, 0x4b564d01, 0x300001), ==, -1);
    sb_free();
}

static void test_xcr0(void)
{
    sb_start64("max");
    if (!model_has(sb->model, W_1_ECX, 26)) {
        g_test_skip("the host has no XSAVE");
        sb_free();
        return;
    }
    cpu->gpr[1] = 0;
    g_assert_cmpuint(RUN64(xsetbv_hlt, 1), ==, EXC_UD); /* no OSXSAVE */
    cpu->cr4 |= CR4_OSXSAVE;
    sb_enter(CODE64, DATA0);
    g_assert_cmpuint(RUN64(xsetbv_hlt, 3), ==, 256);
    g_assert_cmphex(cpu->xcr0, ==, 3);
    g_assert_cmpuint(RUN64(xsetbv_hlt, 5), ==, EXC_GP);
    g_assert_cmpuint(RUN64(xsetbv_hlt, 2), ==, EXC_GP);
    g_assert_cmpuint(RUN64(xsetbv_hlt, 0xe7), ==, EXC_GP); /* AVX-512 */
    sb_free();
}

/* What comes out goes in again unchanged, and a wild state is taken without harm. */
static void test_state(void)
{
    struct cpu_arch_state a, b;
    sb_start64("max");
    for (unsigned i = 0; i < 16; i++)
        cpu->gpr[i] = i * 0x0123456789abcdefull;
    cpu_set_flags(cpu, 0x8d7, ~0u);
    cpu->star = 1, cpu->tsc_aux = 7;
    cpu_get_state(cpu, &a);
    cpu_reset(cpu, false);
    cpu_set_state(cpu, &a);
    cpu_get_state(cpu, &b);
    g_assert_cmpuint(b.tsc - a.tsc, <, 1ull << 40);
    b.tsc = a.tsc;
    g_assert_cmpmem(&a, sizeof(a), &b, sizeof(b));
    memset(&a, 0xff, sizeof(a));
    for (unsigned i = 0; i < 6; i++) /* bool members must hold a bool */
        a.seg[i].s = a.seg[i].present = a.seg[i].avl = a.seg[i].l = a.seg[i].db = a.seg[i].g =
            a.seg[i].unusable = true;
    a.nmi_blocked = a.sti_shadow = a.movss_shadow = true;
    a.halted = false;
    cpu_set_state(cpu, &a);
    for (unsigned i = 0; i < 4; i++)
        cpu_step(cpu);
    sb_free();
}

/* The privilege comes from SS in protected mode; in the other modes SS follows it, whatever was set. */
static void test_state_privilege(void)
{
    static const struct {
        uint64_t cr0, rflags;
        uint8_t dpl, want;
    } rows[] = { { 0x10, 2, 3, 0 }, { 0x11, 2, 3, 3 }, { 0x11, 2, 0, 0 }, { 0x11, 0x20002, 0, 3 },
               { 0x10, 0x20002, 3, 0 } };
    struct cpu_arch_state a;
    sb_start64("max");
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++) {
        cpu_get_state(cpu, &a);
        a.cr0 = rows[i].cr0;
        a.rflags = rows[i].rflags;
        a.efer = 0;
        a.seg[SEG_SS].dpl = rows[i].dpl;
        cpu_set_state(cpu, &a);
        cpu_get_state(cpu, &a);
        g_assert_cmpuint(a.seg[SEG_SS].dpl, ==, rows[i].want);
        g_assert_cmpuint(cpu->cpl, ==, rows[i].want);
        g_assert_cmphex(a.rflags, ==, a.cr0 & CR0_PE ? rows[i].rflags : 2);
    }
    sb_free();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/control/cr-checks", test_cr_checks);
    g_test_add_func("/control/pcide", test_pcide);
    g_test_add_func("/control/debug-registers", test_debug_registers);
    g_test_add_func("/control/single-step", test_single_step);
    g_test_add_func("/control/breakpoints", test_breakpoints);
    g_test_add_func("/control/io-bitmap", test_io_bitmap);
    g_test_add_func("/control/string-io", test_string_io);
    g_test_add_func("/control/syscall", test_syscall);
    g_test_add_func("/control/sysenter", test_sysenter);
    g_test_add_func("/control/bases", test_bases);
    g_test_add_func("/control/user-limits", test_user_limits);
    g_test_add_func("/control/invlpg", test_invlpg);
    g_test_add_func("/control/smap", test_smap);
    g_test_add_func("/control/lar", test_lar);
    g_test_add_func("/control/msrs", test_msrs);
    g_test_add_func("/control/kvm-clock", test_kvm_clock);
    g_test_add_func("/control/xcr0", test_xcr0);
    g_test_add_func("/control/state", test_state);
    g_test_add_func("/control/state-privilege", test_state_privilege);
    return g_test_run();
}
