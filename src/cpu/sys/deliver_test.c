/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Exceptions and interrupts: frames, stacks, privilege changes, error codes, double and triple
 * faults. */
#include "cpu/sys/sysbed.h"

BLOB(int80, ".code32\n int $0x80\n hlt");
BLOB(ud, ".code32\n ud2");
BLOB(int3, ".code32\n int3\n hlt");
BLOB(hlt3, ".code32\n hlt");
BLOB(load_fs, ".code32\n mov %ax, %fs\n hlt");
BLOB(load_ss, ".code32\n mov %ax, %ss\n hlt");
BLOB(divide, ".code32\n xor %ecx, %ecx\n div %ecx");
BLOB(into, ".code32\n mov $0x7f, %al\n inc %al\n into\n hlt");
BLOB(real_div, ".code16\n nop\n xor %cx, %cx\n div %cx");
BLOB(real_int, ".code16\n sti\n int $0x21\n hlt");
BLOB(sti_window, ".code32\n sti\n nop\n nop\n hlt");
BLOB(movss_window, ".code32\n mov $0x10, %eax\n mov %ax, %ss\n nop\n nop\n hlt");
BLOB(spin, ".code32\n 1: jmp 1b");
BLOB(ud64, ".code64\n ud2");
BLOB(int64, ".code64\n int $0x80\n hlt");
BLOB(gp64, ".code64\n movabs $0x8000000000000000, %rax\n mov (%rax), %ecx");
BLOB(ss64, ".code64\n movabs $0x8000000000000000, %rsp\n push %rax");

static void test_same_level(void)
{
    sb_start32("base");
    RUN_BLOB(int80);
    cpu->flags_sys |= FLAG_IF;
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 2);
    g_assert_cmphex(sb_stack(1, 4), ==, CODE32);
    g_assert_cmphex(sb_stack(2, 4), ==, 0x202);
    g_assert_cmphex(cpu->gpr[4], ==, SB_RUN0 - 12);
    g_assert_cmphex(cpu->flags_sys & FLAG_IF, ==, 0);
    sb_free();
    /* A trap gate leaves IF. */
    sb_start32("base");
    RUN_BLOB(int80);
    sb_gate(0x80, CODE32, SB_HANDLERS + 0x800, 0x8f, 0);
    cpu->flags_sys |= FLAG_IF;
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmphex(cpu->flags_sys & FLAG_IF, ==, FLAG_IF);
    sb_free();
    /* A 16-bit gate pushes words. */
    sb_start32("base");
    RUN_BLOB(int80);
    cpu->rip = SB_CODE;
    sb_gate(0x80, CODE32, SB_HANDLERS + 0x800, 0x86, 0);
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmphex(cpu->gpr[4], ==, SB_RUN0 - 6);
    g_assert_cmphex(sb_stack(1, 2), ==, CODE32);
    sb_free();
}

static void test_fault_frame(void)
{
    sb_start32("base");
    RUN_BLOB(ud);
    g_assert_cmpuint(sb_run(), ==, EXC_UD);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE);
    g_assert_cmphex(sb_stack(2, 4), ==, 0x10002); /* RF: a fault */
    sb_free();
    sb_start32("base");
    RUN_BLOB(int3);
    g_assert_cmpuint(sb_run(), ==, EXC_BP);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 1);
    g_assert_cmphex(sb_stack(2, 4), ==, 2);
    sb_free();
    sb_start32("base");
    RUN_BLOB(into);
    g_assert_cmpuint(sb_run(), ==, EXC_OF);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 5);
    sb_free();
}

static void test_inner_level(void)
{
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(int80);
    sb_gate(0x80, CODE32, SB_HANDLERS + 0x800, 0xee, 0);
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmpuint(cpu->cpl, ==, 0);
    g_assert_cmphex(cpu->seg[SEG_SS].selector, ==, DATA0);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK0 - 20);
    g_assert_cmphex(sb_stack(1, 4), ==, CODE32_3);
    g_assert_cmphex(sb_stack(3, 4), ==, SB_STACK3);
    g_assert_cmphex(sb_stack(4, 4), ==, DATA3);
    sb_free();
    /* DPL 0 gates are not for ring 3. */
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(int80);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, 0x80 * 8 + 2);
    g_assert_cmphex(sb_stack(1, 4), ==, SB_CODE);
    sb_free();
    /* Ring 3 to ring 1 takes ring 1's stack. */
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(int80);
    sb_gate(0x80, CODE32_1 & ~3, SB_HANDLERS + 0x800, 0xee, 0);
    sb_gate(EXC_GP, CODE32, SB_HANDLERS + EXC_GP * 16, 0x8e, 0);
    g_assert_cmpuint(sb_run(), ==, EXC_GP); /* HLT there is privileged */
    g_assert_cmphex(sb_stack(2, 4), ==, CODE32_1);
    g_assert_cmphex(sb_stack(5, 4), ==, DATA1);
    g_assert_cmphex(sb_stack(4, 4), ==, SB_STACK1 - 20);
    sb_free();
}

static unsigned with_ax(const uint8_t *code, const uint8_t *end, unsigned ax, bool user)
{
    sb_start32("base");
    if (user)
        sb_enter(CODE32_3, DATA3);
    sb_code(code, (size_t)(end - code));
    cpu->gpr[0] = ax;
    return sb_run();
}

static void test_selector_errors(void)
{
    static const struct {
        unsigned sel, vector, error;
        bool ss, user;
    } cases[] = {
        { ABSENT, EXC_NP, ABSENT, false, false },
        { ABSENT, EXC_SS, ABSENT, true, false },
        { DATA3, EXC_GP, DATA3 & ~3u, true, false },
        { DATA0, EXC_GP, DATA0, false, true },
        { CODE32, 256, 0, false, false },
        { CODE32, EXC_GP, CODE32, true, false },
        { READONLY & ~3, EXC_GP, READONLY & ~3u, true, false },
        { TSS, EXC_GP, TSS, false, false },
        { 0x1000, EXC_GP, 0x1000, false, false },
        { 0x0c, EXC_GP, 0x0c, false, false }, /* no LDT */
        { 0, 256, 0, false, false },
        { 3, 256, 0, false, false },
        { 0, EXC_GP, 0, true, false },
        { DATA3, 256, 0, false, false },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        unsigned v = cases[i].ss ? with_ax(load_ss, load_ss_end, cases[i].sel, cases[i].user)
                                 : with_ax(load_fs, load_fs_end, cases[i].sel, cases[i].user);
        g_assert_cmpuint(v, ==, cases[i].vector);
        if (v < 256)
            g_assert_cmphex(sb_stack(0, 4), ==, cases[i].error);
        sb_free();
    }
}

static void test_double_fault(void)
{
    /* #DE whose gate is absent: contributory after contributory. */
    sb_start32("base");
    RUN_BLOB(divide);
    sb_gate(EXC_DE, CODE32, 0, 0x0e, 0);
    g_assert_cmpuint(sb_run(), ==, EXC_DF);
    g_assert_cmphex(sb_stack(0, 4), ==, 0);
    sb_free();
    /* #UD whose gate is absent: plain #NP, with EXT and IDT set. */
    sb_start32("base");
    RUN_BLOB(ud);
    sb_gate(EXC_UD, CODE32, 0, 0x0e, 0);
    g_assert_cmpuint(sb_run(), ==, EXC_NP);
    g_assert_cmphex(sb_stack(0, 4), ==, EXC_UD * 8 + 3);
    sb_free();
    /* INT n the same, but no EXT. */
    sb_start32("base");
    RUN_BLOB(int80);
    sb_gate(0x80, CODE32, 0, 0x0e, 0);
    g_assert_cmpuint(sb_run(), ==, EXC_NP);
    g_assert_cmphex(sb_stack(0, 4), ==, 0x80 * 8 + 2);
    sb_free();
}

static void test_triple_fault(void)
{
    sb_start32("base");
    RUN_BLOB(divide);
    cpu->idtr.limit = 0;
    g_assert_cmpuint(sb_run(), ==, 257);
    sb_free();
    sb_start32("base");
    RUN_BLOB(divide);
    sb_gate(EXC_DE, CODE32, 0, 0x0e, 0);
    sb_gate(EXC_DF, CODE32, 0, 0x0e, 0);
    g_assert_cmpuint(sb_run(), ==, 257);
    sb_free();
    sb_real("base");
    RUN_BLOB(real_div);
    cpu->idtr.limit = 2;
    g_assert_cmpuint(sb_run(), ==, 257);
    sb_free();
}

static void test_page_faults(void)
{
    /* A page fault while delivering a page fault: double; CR2 is the second's. */
    sb_start64("base");
    RUN_BLOB(ud64);
    sb_poke(0x4000 + 8 * 0x40, 8, 0); /* the code's page */
    mmu_flush_all(cpu);
    g_assert_cmpuint(sb_run(), ==, EXC_PF);
    g_assert_cmphex(cpu->cr2, ==, SB_CODE);
    g_assert_cmphex(sb_stack(0, 8), ==, 0x10); /* fetch: NXE is on */
    sb_free();
    sb_start64("base");
    RUN_BLOB(ud64);
    sb_poke(0x4000 + 8 * 0x40, 8, 0);
    sb_poke(0x4000 + 8 * (SB_RUN0 / 4096 - 1), 8, 0); /* the stack's, too */
    sb_gate(EXC_DF, CODE64, SB_HANDLERS + EXC_DF * 16, 0x8e, 1);
    mmu_flush_all(cpu);
    g_assert_cmpuint(sb_run(), ==, EXC_DF);
    g_assert_cmphex(cpu->cr2, ==, SB_RUN0 - 8);
    g_assert_cmphex(cpu->gpr[4], ==, SB_IST1 - 48);
    sb_free();
}

static void test_long_frames(void)
{
    sb_start64("base");
    RUN_BLOB(int64);
    cpu->gpr[4] = SB_RUN0 - 3; /* aligned down to 16 */
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmphex(cpu->gpr[4], ==, SB_RUN0 - 16 - 40);
    g_assert_cmphex(sb_stack(3, 8), ==, SB_RUN0 - 3);
    g_assert_cmphex(sb_stack(4, 8), ==, DATA0);
    sb_free();
    /* From ring 3: RSP0, SS becomes null. */
    sb_start64("base");
    sb_enter(CODE64_3, DATA3);
    RUN_BLOB(int64);
    sb_gate(0x80, CODE64, SB_HANDLERS + 0x800, 0xee, 0);
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmphex(cpu->seg[SEG_SS].selector, ==, 0);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK0 - 40);
    g_assert_cmphex(sb_stack(1, 8), ==, CODE64_3);
    sb_free();
    sb_start64("base");
    RUN_BLOB(gp64);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 8), ==, 0);
    sb_free();
    sb_start64("base");
    RUN_BLOB(ss64);
    sb_gate(EXC_SS, CODE64, SB_HANDLERS + EXC_SS * 16, 0x8e, 1);
    g_assert_cmpuint(sb_run(), ==, EXC_SS);
    sb_free();
    /* A 32-bit code segment in a 64-bit gate. */
    sb_start64("base");
    RUN_BLOB(int64);
    sb_gate(0x80, CODE32, SB_HANDLERS + 0x800, 0x8e, 0);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 8), ==, CODE32);
    sb_free();
}

static void test_real_mode(void)
{
    sb_real("base");
    RUN_BLOB(real_int);
    g_assert_cmpuint(sb_run(), ==, 0x21);
    g_assert_cmphex(cpu->seg[SEG_CS].selector, ==, SB_HANDLERS >> 4);
    g_assert_cmphex(sb_stack(0, 2), ==, 3);
    g_assert_cmphex(sb_stack(1, 2), ==, SB_CODE >> 4);
    g_assert_cmphex(sb_stack(2, 2), ==, 0x202);
    g_assert_cmphex(cpu->flags_sys & FLAG_IF, ==, 0);
    sb_free();
    sb_real("base");
    RUN_BLOB(real_div);
    g_assert_cmpuint(sb_run(), ==, EXC_DE);
    g_assert_cmphex(sb_stack(0, 2), ==, 3);
    sb_free();
}

/* Interrupts wait one instruction after STI and MOV SS. */
static void test_shadows(void)
{
    sb_start32("base");
    RUN_BLOB(sti_window);
    sb->irq = 0x40;
    cpu_raise_event(cpu, CPU_EV_INTR);
    g_assert_cmpuint(sb_run(), ==, 0x40);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 2);
    sb_free();
    sb_start32("base");
    RUN_BLOB(movss_window);
    cpu->flags_sys |= FLAG_IF;
    sb->irq = 0x40;
    cpu->int_shadow = 1;
    cpu_raise_event(cpu, CPU_EV_INTR);
    g_assert_cmpuint(sb_run(), ==, 0x40);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 5);
    sb_free();
    sb_start32("base");
    RUN_BLOB(movss_window);
    cpu->flags_sys |= FLAG_IF;
    g_assert_cmpint(cpu_step(cpu), ==, CPU_EXIT_DEBUG);
    g_assert_cmpint(cpu_step(cpu), ==, CPU_EXIT_DEBUG);
    sb->irq = 0x40;
    cpu_raise_event(cpu, CPU_EV_INTR);
    g_assert_cmpuint(sb_run(), ==, 0x40);
    g_assert_cmphex(sb_stack(0, 4), ==, SB_CODE + 8);
    sb_free();
}

static void test_nmi(void)
{
    sb_start32("base");
    RUN_BLOB(spin);
    cpu_raise_event(cpu, CPU_EV_NMI);
    g_assert_cmpuint(sb_run(), ==, EXC_NMI);
    g_assert_true(cpu->nmi_blocked);
    cpu_raise_event(cpu, CPU_EV_NMI); /* held until IRET */
    g_assert_false(cpu_has_work(cpu));
    sb_free();
}

static void test_privileged(void)
{
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(hlt3);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, 0);
    sb_free();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/deliver/same-level", test_same_level);
    g_test_add_func("/deliver/fault-frame", test_fault_frame);
    g_test_add_func("/deliver/inner-level", test_inner_level);
    g_test_add_func("/deliver/selector-errors", test_selector_errors);
    g_test_add_func("/deliver/double-fault", test_double_fault);
    g_test_add_func("/deliver/triple-fault", test_triple_fault);
    g_test_add_func("/deliver/page-faults", test_page_faults);
    g_test_add_func("/deliver/long-frames", test_long_frames);
    g_test_add_func("/deliver/real-mode", test_real_mode);
    g_test_add_func("/deliver/shadows", test_shadows);
    g_test_add_func("/deliver/nmi", test_nmi);
    g_test_add_func("/deliver/privileged", test_privileged);
    return g_test_run();
}
