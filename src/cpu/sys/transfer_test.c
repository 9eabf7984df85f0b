/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far transfers, call gates, IRET, task switches, virtual-8086 mode, and the way from real to
 * 64-bit mode. */
#include "cpu/sys/sysbed.h"

BLOB(gate_call, ".code32\n pushl $0x1111\n pushl $0x2222\n lcall $0x5b, $0\n hlt");
BLOB(retf8, ".code32\n mov %ss, %eax\n mov 8(%esp), %ebx\n mov 12(%esp), %ecx\n lret $8");
BLOB(far_conf, ".code32\n ljmp $0x70, $0x41000");
BLOB(far_null, ".code32\n ljmp $0, $0x41000");
BLOB(far_user, ".code32\n ljmp $0x18, $0x41000");
BLOB(far_data, ".code32\n ljmp $0x10, $0x41000");
BLOB(far_limit, ".code32\n ljmp $0x88, $0x41000");
BLOB(iret32, ".code32\n iret");
BLOB(iret64, ".code64\n iretq");
BLOB(hlt_code, "hlt");
BLOB(ring3_gate, ".code32\n int $0x80");
BLOB(jmp_task, ".code32\n ljmp $0x68, $0");
BLOB(call_task, ".code32\n lcall $0x68, $0\n mov $0x55, %bl\n hlt");
BLOB(call_taskgate, ".code32\n lcall $0x78, $0\n hlt");
BLOB(int_task, ".code32\n int $0x50\n hlt");
BLOB(jmp_task16, ".code32\n ljmp $0xb0, $0");
BLOB(vm_code, ".code16\n mov $0x1234, %ax\n mov %ax, %ds\n movb $0x77, (0)\n int $0x21\n hlt");
BLOB(vm_popf, ".code16\n cli\n hlt");
BLOB(gate64, ".code64\n mov $0xb00, %edx\n lcall *(%rdx)\n hlt");
BLOB(retfq, ".code64\n lretq");
BLOB(to_compat, ".code64\n push $0x08\n push $0x41000\n lretq");

/* From the reset-like state into 64-bit mode, with the tables that the bed made. */
BLOB(boot, ".code16\n"
           " cli\n"
           " lgdtl %cs:(gdtr_at - boot)\n"
           " mov %cr0, %eax\n or $1, %al\n mov %eax, %cr0\n"
           " ljmpl $0x08, $(0x40000 + in32 - boot)\n"
           "gdtr_at: .word 0xff\n .long 0x9000\n"
           ".code32\n"
           "in32: mov $0x10, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n"
           " mov $0x2c000, %esp\n"
           " mov %cr4, %eax\n or $0x20, %eax\n mov %eax, %cr4\n"
           " mov $0x1000, %eax\n mov %eax, %cr3\n"
           " mov $0xc0000080, %ecx\n rdmsr\n or $0x100, %eax\n wrmsr\n"
           " mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n"
           " ljmp $0x48, $(0x40000 + in64 - boot)\n"
           ".code64\n"
           "in64: movabs $0x123456789abcdef0, %rax\n push %rax\n pop %r15\n hlt\n");
/* And back: 64-bit to compatibility, paging off, protected, real. */
BLOB(unboot, ".code64\n"
             " push $0x08\n push $(0x40000 + compat - unboot)\n lretq\n"
             ".code32\n"
             "compat: mov %cr0, %eax\n and $0x7fffffff, %eax\n mov %eax, %cr0\n"
             " mov $0xc0000080, %ecx\n rdmsr\n and $~0x100, %eax\n wrmsr\n mov %eax, %esi\n"
             " ljmp $0x88, $(in16 - unboot)\n"
             ".code16\n"
             "in16: mov $0x90, %ax\n mov %ax, %ds\n mov %ax, %ss\n"
             " mov %cr0, %eax\n and $0xfe, %al\n mov %eax, %cr0\n"
             " ljmp $0x4000, $(inreal - unboot)\n"
             "inreal: mov $0x1000, %ax\n mov %ax, %ds\n mov $0x42, %al\n mov %al, (0x10)\n hlt\n");

static void put_gate(unsigned sel, unsigned target, uint64_t off, unsigned access, unsigned params)
{
    sb_poke(SB_GDT + (sel & ~7u), 8,
            (off & 0xffff) | (uint64_t)target << 16 | (uint64_t)params << 32 | (uint64_t)access << 40 |
                (off >> 16 & 0xffff) << 48);
}

static void test_call_gate(void)
{
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(gate_call);
    memcpy(sb->ram + 0x41000, retf8, (size_t)(retf8_end - retf8));
    put_gate(GATE, CODE32, 0x41000, 0xec, 2);
    /* The HLT after the call faults in ring 3: by then everything came back. */
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex((uint16_t)cpu->gpr[0], ==, DATA0);
    g_assert_cmphex(cpu->gpr[3], ==, 0x2222);
    g_assert_cmphex(cpu->gpr[1], ==, 0x1111);
    g_assert_cmphex(sb_stack(1, 4), ==, SB_CODE + 17);
    g_assert_cmphex(sb_stack(2, 4), ==, CODE32_3);
    g_assert_cmphex(sb_stack(4, 4), ==, SB_STACK3);
    sb_free();
    /* The gate's DPL. */
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(gate_call);
    put_gate(GATE, CODE32, 0x41000, 0x8c, 2);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, GATE);
    sb_free();
}

static void test_call_gate64(void)
{
    sb_start64("base");
    sb_enter(CODE64_3, DATA3);
    RUN_BLOB(gate64);
    memcpy(sb->ram + 0x41000, hlt_code, 1);
    put_gate(GATE, CODE64, 0x41000, 0xec, 0);
    sb_poke(SB_GDT + GATE + 8, 8, 0);
    sb_poke(0xb00, 4, 0);
    sb_poke(0xb04, 2, GATE | 3);
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmpuint(cpu->cpl, ==, 0);
    g_assert_cmphex(cpu->seg[SEG_SS].selector, ==, 0);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK0 - 32);
    g_assert_cmphex(sb_stack(1, 8), ==, CODE64_3);
    g_assert_cmphex(sb_stack(2, 8), ==, SB_STACK3);
    /* And back by RETFQ. */
    memcpy(sb->ram + 0x41001, retfq, 2);
    exec_invalidate_all(cpu);
    g_assert_cmpuint(sb_run(), ==, EXC_GP); /* the HLT after the call */
    g_assert_cmphex(sb_stack(4, 8), ==, SB_STACK3);
    g_assert_cmphex(sb_stack(5, 8), ==, DATA3);
    sb_free();
}

static void test_far_jumps(void)
{
    static const struct {
        const uint8_t *code;
        unsigned vector, error;
    } cases[] = {
        { far_null, EXC_GP, 0 }, { far_user, EXC_GP, CODE32_3 & ~3u }, { far_data, EXC_GP, DATA0 },
        { far_limit, EXC_GP, 0 },
    };
    for (unsigned i = 0; i < ARRAY_COUNT(cases); i++) {
        sb_start32("base");
        sb_code(cases[i].code, 7);
        g_assert_cmpuint(sb_run(), ==, cases[i].vector);
        g_assert_cmphex(sb_stack(0, 4), ==, cases[i].error);
        sb_free();
    }
    /* Conforming code keeps ring 3. */
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    RUN_BLOB(far_conf);
    sb->ram[0x41000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(2, 4), ==, CONFORMING | 3);
    g_assert_cmphex(sb_stack(1, 4), ==, 0x41000);
    sb_free();
}

static void push32(uint32_t v)
{
    cpu->gpr[4] -= 4;
    sb_poke(cpu->gpr[4], 4, v);
}

static void push64(uint64_t v)
{
    cpu->gpr[4] -= 8;
    sb_poke(cpu->gpr[4], 8, v);
}

static void test_iret32(void)
{
    /* To ring 3: data segments of ring 0 become null, IF and IOPL come from the image. */
    sb_start32("base");
    push32(DATA3), push32(SB_STACK3), push32(0x3202), push32(CODE32_3), push32(0x41000);
    RUN_BLOB(iret32);
    sb->ram[0x41000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 4), ==, 0x41000);
    g_assert_cmphex(sb_stack(3, 4), ==, 0x13202);
    g_assert_cmphex(sb_stack(4, 4), ==, SB_STACK3);
    g_assert_true(cpu->seg[SEG_DS].unusable);
    sb_free();
    /* Ring 3 cannot change IOPL or IF. */
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    push32(0x3202), push32(CODE32_3), push32(0x41000);
    RUN_BLOB(iret32);
    sb->ram[0x41000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(3, 4), ==, 0x10002);
    sb_free();
    /* RPL below CPL. */
    sb_start32("base");
    sb_enter(CODE32_3, DATA3);
    push32(2), push32(CODE32), push32(0x41000);
    RUN_BLOB(iret32);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, CODE32);
    sb_free();
    /* A bad SS leaves the state for the handler. */
    sb_start32("base");
    push32(DATA0), push32(SB_STACK3), push32(2), push32(CODE32_3), push32(0x41000);
    RUN_BLOB(iret32);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, DATA0);
    g_assert_cmphex(sb_stack(1, 4), ==, SB_CODE);
    sb_free();
}

static void test_iret64(void)
{
    sb_start64("base");
    push64(DATA3), push64(SB_STACK3), push64(0x202), push64(CODE64_3), push64(0x41000);
    RUN_BLOB(iret64);
    sb->ram[0x41000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, 0x41000);
    g_assert_cmphex(sb_stack(5, 8), ==, DATA3);
    sb_free();
    /* Within ring 0 RSP is popped too; SS may be null. */
    sb_start64("base");
    push64(0), push64(SB_STACK0), push64(0x2), push64(CODE64), push64(0x41000);
    RUN_BLOB(iret64);
    sb->ram[0x41000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK0);
    sb_free();
    /* To compatibility mode. */
    sb_start64("base");
    push64(DATA3), push64(SB_STACK3), push64(0x202), push64(CODE32_3), push64(0x41000);
    RUN_BLOB(iret64);
    memcpy(sb->ram + 0x41000, "\xcd\x80", 2);
    sb_gate(0x80, CODE64, SB_HANDLERS + 0x800, 0xee, 0);
    g_assert_cmpuint(sb_run(), ==, 0x80);
    g_assert_cmphex(sb_stack(0, 8), ==, 0x41002);
    g_assert_cmphex(sb_stack(1, 8), ==, CODE32_3);
    sb_free();
    /* Non-canonical RIP, and NT, fault here. */
    sb_start64("base");
    push64(DATA3), push64(SB_STACK3), push64(0x202), push64(CODE64_3), push64(1ull << 47);
    RUN_BLOB(iret64);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 8), ==, SB_CODE);
    sb_free();
    sb_start64("base");
    cpu->flags_sys |= FLAG_NT;
    RUN_BLOB(iret64);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    sb_free();
}

static void test_nmi_unblock(void)
{
    sb_start64("base");
    cpu->nmi_blocked = true;
    push64(DATA0), push64(SB_STACK0), push64(0x2), push64(CODE64), push64(0x41000);
    RUN_BLOB(iret64);
    sb->ram[0x41000] = 0xf4;
    cpu_raise_event(cpu, CPU_EV_NMI);
    g_assert_cmpuint(sb_run(), ==, EXC_NMI);
    g_assert_cmphex(sb_stack(0, 8), ==, 0x41000);
    sb_free();
}

/* --- tasks --- */

static void fill_tss(uint64_t tss, uint32_t eip)
{
    sb_poke(tss + 0x1c, 4, 0);
    sb_poke(tss + 0x20, 4, eip);
    sb_poke(tss + 0x24, 4, 2);
    for (unsigned i = 0; i < 8; i++)
        sb_poke(tss + 0x28 + i * 4, 4, i == 4 ? SB_STACK1 : 0x1000 + i);
    static const uint8_t sel[] = { DATA0, CODE32, DATA0, DATA0, DATA0, DATA0 };
    for (unsigned i = 0; i < 6; i++)
        sb_poke(tss + 0x48 + i * 4, 4, sel[i]);
}

static unsigned access_of(unsigned sel)
{
    return sb->ram[SB_GDT + sel + 5];
}

static void test_task_jmp(void)
{
    sb_start32("base");
    RUN_BLOB(jmp_task);
    fill_tss(SB_TSS2, 0x41000);
    sb->ram[0x41000] = 0xf4;
    cpu->gpr[0] = 0xabcd;
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->rip, ==, 0x41001);
    g_assert_cmphex(cpu->gpr[0], ==, 0x1000);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK1);
    g_assert_cmphex(cpu->tr.selector, ==, TSS2);
    g_assert_cmphex(access_of(TSS), ==, 0x89);
    g_assert_cmphex(access_of(TSS2), ==, 0x8b);
    g_assert_cmphex(cpu->cr0 & CR0_TS, ==, CR0_TS);
    g_assert_cmphex(sb_peek(SB_TSS + 0x20, 4), ==, SB_CODE + 7);
    g_assert_cmphex(sb_peek(SB_TSS + 0x28, 4), ==, 0xabcd);
    sb_free();
    /* Busy: #GP. */
    sb_start32("base");
    RUN_BLOB(jmp_task);
    sb->ram[SB_GDT + TSS2 + 5] = 0x8b;
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, TSS2);
    sb_free();
}

static void call_and_return(const uint8_t *code, size_t len, unsigned access)
{
    sb_start32("base");
    sb_code(code, len);
    fill_tss(SB_TSS2, 0x41000);
    sb->ram[SB_GDT + TSS2 + 5] = (uint8_t)access;
    sb_gate(0x50, TSS2, 0, 0x85, 0);
    sb->ram[0x41000] = 0xcf; /* iret: back by the link */
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->tr.selector, ==, TSS);
    g_assert_cmphex(access_of(TSS), ==, 0x8b);
    g_assert_cmphex(access_of(TSS2), ==, 0x89);
    g_assert_cmphex(sb_peek(SB_TSS2, 2), ==, TSS);
    g_assert_cmphex(sb_peek(SB_TSS2 + 0x20, 4), ==, 0x41001);
    g_assert_cmphex(cpu->flags_sys & FLAG_NT, ==, 0);
    g_assert_cmphex(cpu->gpr[4], ==, SB_RUN0);
    sb_free();
}

static void test_task_call(void)
{
    call_and_return(call_task, (size_t)(call_task_end - call_task), 0x89);
    call_and_return(call_taskgate, (size_t)(call_taskgate_end - call_taskgate), 0x89);
    call_and_return(int_task, (size_t)(int_task_end - int_task), 0x89);
}

/* A new task whose CS is bad faults in the new task. */
static void test_task_bad_cs(void)
{
    sb_start32("base");
    RUN_BLOB(jmp_task);
    fill_tss(SB_TSS2, 0x41000);
    sb_poke(SB_TSS2 + 0x4c, 4, DATA0);
    sb_gate(EXC_TS, TSS, 0, 0x85, 0); /* handled by the first task again */
    sb_poke(SB_TSS + 0x20, 4, 0);
    cpu_step(cpu);
    g_assert_cmphex(cpu->tr.selector, ==, TSS);
    g_assert_cmphex(sb_peek(cpu->gpr[4], 4), ==, DATA0 | 0);
    g_assert_cmphex(sb_peek(SB_TSS2 + 0x20, 4), ==, 0x41000);
    sb_free();
}

static void test_task16(void)
{
    sb_start32("base");
    RUN_BLOB(jmp_task16);
    sb_poke(SB_TSS16 + 0x0e, 2, 0x1000);
    sb_poke(SB_TSS16 + 0x10, 2, 2);
    sb_poke(SB_TSS16 + 0x12, 2, 0x4321);
    sb_poke(SB_TSS16 + 0x12 + 8, 2, 0x7000);
    sb_poke(SB_TSS16 + 0x22, 2, DATA16);
    sb_poke(SB_TSS16 + 0x24, 2, CODE16);
    sb_poke(SB_TSS16 + 0x26, 2, DATA16);
    sb_poke(SB_TSS16 + 0x28, 2, DATA16);
    sb->ram[0x1000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->rip, ==, 0x1001);
    g_assert_cmphex(cpu->gpr[0], ==, 0xffff4321);
    g_assert_cmphex(cpu->seg[SEG_CS].selector, ==, CODE16);
    sb_free();
}

/* --- virtual-8086 mode --- */

static void enter_vm86(uint32_t flags, const uint8_t *code, size_t len)
{
    sb_start32("base");
    push32(0x4444), push32(0x3333), push32(0x2222), push32(0x1111), push32(0x1000), push32(0x8000);
    push32(FLAG_VM | flags), push32(0x4200), push32(0);
    RUN_BLOB(iret32);
    memcpy(sb->ram + 0x42000, code, len);
}

static void test_vm86(void)
{
    enter_vm86(0x3202, vm_code, (size_t)(vm_code_end - vm_code));
    sb_gate(0x21, CODE32, SB_HANDLERS + 0x210, 0xee, 0);
    g_assert_cmpuint(sb_run(), ==, 0x21);
    g_assert_cmphex(sb->ram[0x12340], ==, 0x77);
    g_assert_cmphex(cpu->flags_sys & FLAG_VM, ==, 0);
    g_assert_cmphex(cpu->gpr[4], ==, SB_STACK0 - 36);
    g_assert_cmphex(sb_stack(0, 4), ==, vm_code_end - vm_code - 1);
    g_assert_cmphex(sb_stack(1, 4), ==, 0x4200);
    g_assert_cmphex(sb_stack(2, 4), ==, 0x23202);
    g_assert_cmphex(sb_stack(3, 4), ==, 0x8000);
    g_assert_cmphex(sb_stack(4, 4), ==, 0x1000);
    g_assert_cmphex(sb_stack(5, 4), ==, 0x1111); /* ES DS FS GS */
    g_assert_cmphex(sb_stack(6, 4), ==, 0x1234);
    g_assert_cmphex(sb_stack(8, 4), ==, 0x4444);
    g_assert_true(cpu->seg[SEG_DS].unusable);
    /* IRET again goes back. */
    sb->ram[SB_HANDLERS + 0x211] = 0xcf;
    exec_invalidate_all(cpu);
    g_assert_cmpuint(sb_run(), ==, EXC_GP); /* the HLT */
    g_assert_cmphex(sb_stack(2, 4), ==, 0x4200);
    g_assert_cmphex(sb_stack(7, 4), ==, 0x1234);
    sb_free();
    /* IOPL below 3: INT n and CLI trap. */
    enter_vm86(0x0202, vm_code, (size_t)(vm_code_end - vm_code));
    sb_gate(0x21, CODE32, SB_HANDLERS + 0x210, 0xee, 0);
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(0, 4), ==, 0);
    sb_free();
    enter_vm86(0x0202, vm_popf, (size_t)(vm_popf_end - vm_popf));
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 4), ==, 0);
    sb_free();
    enter_vm86(0x3202, vm_popf, (size_t)(vm_popf_end - vm_popf));
    g_assert_cmpuint(sb_run(), ==, EXC_GP);
    g_assert_cmphex(sb_stack(1, 4), ==, 1);
    g_assert_cmphex(sb_stack(3, 4), ==, 0x33002);
    sb_free();
}

/* --- mode switches --- */

static void test_boot(void)
{
    sb_real("base");
    RUN_BLOB(boot);
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->gpr[15], ==, 0x123456789abcdef0);
    g_assert_cmphex(cpu->efer, ==, EFER_LME | EFER_LMA);
    g_assert_cmphex(cpu->mode & (MODE_CODE64 | MODE_LONG | MODE_PAGING), ==,
                    MODE_CODE64 | MODE_LONG | MODE_PAGING);
    sb_free();
    sb_start64("base");
    RUN_BLOB(unboot);
    sb_desc(CODE16, SB_CODE, 0xffff, 0x9b, 0);
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(sb->ram[0x10010], ==, 0x42);
    g_assert_cmphex(cpu->gpr[6] & (EFER_LME | EFER_LMA), ==, 0);
    g_assert_cmphex(cpu->mode & (MODE_REAL | MODE_CODE32 | MODE_PAGING), ==, MODE_REAL);
    sb_free();
}

static void test_compat(void)
{
    sb_start64("base");
    RUN_BLOB(to_compat);
    memcpy(sb->ram + 0x41000, "\x48\xb8\xff\xff\xff\xff\xf4", 7); /* dec %eax; mov $-1, %eax; hlt */
    g_assert_cmpuint(sb_run(), ==, 256);
    g_assert_cmphex(cpu->gpr[0], ==, 0xffffffff);
    g_assert_cmphex(cpu->mode & (MODE_LONG | MODE_CODE64 | MODE_CODE32), ==, MODE_LONG | MODE_CODE32);
    sb_free();
}

static void test_reset(void)
{
    sb_new("base");
    cpu_reset(cpu, false);
    g_assert_cmphex(cpu->rip, ==, 0xfff0);
    g_assert_cmphex(cpu->seg[SEG_CS].base, ==, 0xffff0000);
    g_assert_cmphex(cpu->cr0, ==, 0x60000010);
    cpu->star = 5;
    cpu_reset(cpu, true);
    g_assert_cmphex(cpu->star, ==, 5);
    cpu->halted = true;
    cpu_sipi(cpu, 0x42);
    g_assert_cmphex(cpu->seg[SEG_CS].base, ==, 0x42000);
    g_assert_cmphex(cpu->seg[SEG_CS].selector, ==, 0x4200);
    sb->ram[0x42000] = 0xf4;
    g_assert_cmpuint(sb_run(), ==, 256);
    sb_free();
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/transfer/call-gate", test_call_gate);
    g_test_add_func("/transfer/call-gate64", test_call_gate64);
    g_test_add_func("/transfer/far-jumps", test_far_jumps);
    g_test_add_func("/transfer/iret32", test_iret32);
    g_test_add_func("/transfer/iret64", test_iret64);
    g_test_add_func("/transfer/nmi-unblock", test_nmi_unblock);
    g_test_add_func("/transfer/task-jmp", test_task_jmp);
    g_test_add_func("/transfer/task-call", test_task_call);
    g_test_add_func("/transfer/task-bad-cs", test_task_bad_cs);
    g_test_add_func("/transfer/task16", test_task16);
    g_test_add_func("/transfer/vm86", test_vm86);
    g_test_add_func("/transfer/boot", test_boot);
    g_test_add_func("/transfer/compat", test_compat);
    g_test_add_func("/transfer/reset", test_reset);
    return g_test_run();
}
