/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Encodings, against bytes that another assembler makes of the same instructions. */
#include "cpu/translate/asm.h"

#include <glib.h>
#include <string.h>

static uint8_t room[256];

/* An address that may lie outside of the room. */
static const uint8_t *at(intptr_t off)
{
    return (const uint8_t *)((intptr_t)room + off);
}

static void start(struct as *a)
{
    memset(room, 0xcc, sizeof(room));
    *a = (struct as){ .p = room, .end = room + sizeof(room) };
}

static void expect(struct as *a, const char *text, const char *bytes, size_t len)
{
    if ((size_t)(a->p - room) != len || memcmp(room, bytes, len)) {
        g_test_message("%s", text);
        for (const uint8_t *p = room; p < a->p; p++)
            g_test_message("  %02x", *p);
        g_test_fail();
    }
    start(a);
}

#define CHECK(call, text, bytes) (call, expect(a, text, bytes, sizeof(bytes) - 1))

static void test_encodings(void)
{
    struct as as, *a = &as;

    start(a);
    CHECK(as_mov(a, R_AX, R_BX), "mov %rbx,%rax", "\x48\x89\xd8");
    CHECK(as_mov(a, R_15, R_8), "mov %r8,%r15", "\x4d\x89\xc7");
    CHECK(as_mov32(a, R_CX, R_AX), "mov %eax,%ecx", "\x89\xc1");
    CHECK(as_mov_imm(a, R_AX, 0), "movl $0,%eax", "\xb8\x00\x00\x00\x00");
    CHECK(as_mov_imm(a, R_11, 0x80000000), "movl $0x80000000,%r11d", "\x41\xbb\x00\x00\x00\x80");
    CHECK(as_mov_imm(a, R_BX, (uint64_t)-2), "movq $-2,%rbx", "\x48\xc7\xc3\xfe\xff\xff\xff");
    CHECK(as_mov_imm(a, R_9, 0x123456789abcdef0), "movabs $0x123456789abcdef0,%r9",
          "\x49\xb9\xf0\xde\xbc\x9a\x78\x56\x34\x12");
    CHECK(as_load(a, 1, R_AX, AS_AT(R_BX, 0)), "movzbl (%rbx),%eax", "\x0f\xb6\x03");
    CHECK(as_load(a, 2, R_10, AS_AT(R_BP, 0)), "movzwl 0(%rbp),%r10d", "\x44\x0f\xb7\x55\x00");
    CHECK(as_load(a, 4, R_DI, AS_AT(R_12, 4)), "movl 4(%r12),%edi", "\x41\x8b\x7c\x24\x04");
    CHECK(as_load(a, 8, R_15, AS_AT(R_13, 0x1000)), "movq 0x1000(%r13),%r15", "\x4d\x8b\xbd\x00\x10\x00\x00");
    CHECK(as_load(a, 8, R_AX, AS_GS(0x88)), "movq %gs:0x88,%rax", "\x65\x48\x8b\x04\x25\x88\x00\x00\x00");
    CHECK(as_load(a, 8, R_AX, AS_GS_AT(R_CX, 0x1000)), "movq %gs:0x1000(%rcx),%rax",
          "\x65\x48\x8b\x81\x00\x10\x00\x00");
    CHECK(as_load(a, 8, R_AX, ((struct as_mem){ .base = R_SI, .index = R_12, .scale = 3, .disp = -8 })), "movq -8(%rsi,%r12,8),%rax",
          "\x4a\x8b\x44\xe6\xf8");
    CHECK(as_load(a, 4, R_AX, ((struct as_mem){ .base = R_NONE, .index = R_9, .scale = 2, .disp = 16 })), "movl 16(,%r9,4),%eax",
          "\x42\x8b\x04\x8d\x10\x00\x00\x00");
    CHECK(as_store(a, 1, AS_AT(R_AX, 0), R_SI), "movb %sil,(%rax)", "\x40\x88\x30");
    CHECK(as_store(a, 1, AS_AT(R_AX, 0), R_BX), "movb %bl,(%rax)", "\x88\x18");
    CHECK(as_store(a, 2, AS_AT(R_AX, 1), R_9), "movw %r9w,1(%rax)", "\x66\x44\x89\x48\x01");
    CHECK(as_store(a, 4, AS_AT(R_SP, 8), R_DX), "movl %edx,8(%rsp)", "\x89\x54\x24\x08");
    CHECK(as_store(a, 8, AS_GS(16), R_11), "movq %r11,%gs:16", "\x65\x4c\x89\x1c\x25\x10\x00\x00\x00");
    CHECK(as_store_imm32(a, 1, AS_AT(R_AX, 0), -1), "movb $-1,(%rax)", "\xc6\x00\xff");
    CHECK(as_store_imm32(a, 2, AS_AT(R_AX, 0), 0x1234), "movw $0x1234,(%rax)", "\x66\xc7\x00\x34\x12");
    CHECK(as_store_imm32(a, 8, AS_GS(8), -5), "movq $-5,%gs:8",
          "\x65\x48\xc7\x04\x25\x08\x00\x00\x00\xfb\xff\xff\xff");
    CHECK(as_lea(a, 8, R_AX, ((struct as_mem){ .base = R_13, .index = R_15, .scale = 0, .disp = 0, .gs = true })), "leaq 0(%r13,%r15),%rax",
          "\x4b\x8d\x44\x3d\x00");
    CHECK(as_lea(a, 4, R_10, AS_AT(R_8, -129)), "leal -129(%r8),%r10d", "\x45\x8d\x90\x7f\xff\xff\xff");
    CHECK(as_extend(a, false, 1, 4, R_AX, R_SI), "movzbl %sil,%eax", "\x40\x0f\xb6\xc6");
    CHECK(as_extend(a, true, 1, 8, R_10, R_BX), "movsbq %bl,%r10", "\x4c\x0f\xbe\xd3");
    CHECK(as_extend(a, true, 2, 8, R_AX, R_9), "movswq %r9w,%rax", "\x49\x0f\xbf\xc1");
    CHECK(as_extend(a, true, 4, 8, R_AX, R_BX), "movslq %ebx,%rax", "\x48\x63\xc3");
    CHECK(as_alu_rr(a, AS_ADD, 8, R_BX, R_11), "addq %r11,%rbx", "\x4c\x01\xdb");
    CHECK(as_alu_rr(a, AS_CMP, 1, R_DI, R_DX), "cmpb %dl,%dil", "\x40\x38\xd7");
    CHECK(as_alu_rr(a, AS_XOR, 4, R_8, R_8), "xorl %r8d,%r8d", "\x45\x31\xc0");
    CHECK(as_alu_rr(a, AS_SBB, 2, R_CX, R_AX), "sbbw %ax,%cx", "\x66\x19\xc1");
    CHECK(as_alu_ri(a, AS_SUB, 8, R_15, 8), "subq $8,%r15", "\x49\x83\xef\x08");
    CHECK(as_alu_ri(a, AS_AND, 4, R_CX, 0x7fe0), "andl $0x7fe0,%ecx", "\x81\xe1\xe0\x7f\x00\x00");
    CHECK(as_alu_ri(a, AS_CMP, 8, R_AX, 4088), "cmpq $4088,%rax", "\x48\x3d\xf8\x0f\x00\x00");
    CHECK(as_alu_ri(a, AS_ADD, 1, R_AX, 0x7f), "addb $0x7f,%al", "\x04\x7f");
    CHECK(as_alu_ri(a, AS_OR, 1, R_SI, 1), "orb $1,%sil", "\x40\x80\xce\x01");
    CHECK(as_alu_ri(a, AS_OR, 2, R_BX, 0x1234), "orw $0x1234,%bx", "\x66\x81\xcb\x34\x12");
    CHECK(as_alu_ri(a, AS_ADC, 2, R_BX, 0xffff), "adcw $-1,%bx", "\x66\x83\xd3\xff");
    CHECK(as_alu_rm(a, AS_ADD, 8, R_CX, AS_GS(0x100)), "addq %gs:0x100,%rcx",
          "\x65\x48\x03\x0c\x25\x00\x01\x00\x00");
    CHECK(as_alu_rm(a, AS_SUB, 8, R_AX, AS_GS_AT(R_CX, 0x200)), "subq %gs:0x200(%rcx),%rax",
          "\x65\x48\x2b\x81\x00\x02\x00\x00");
    CHECK(as_alu_rm(a, AS_XOR, 1, R_BP, AS_AT(R_AX, 0)), "xorb (%rax),%bpl", "\x40\x32\x28");
    CHECK(as_alu_mr(a, AS_ADD, 4, AS_AT(R_AX, 0), R_9), "addl %r9d,(%rax)", "\x44\x01\x08");
    CHECK(as_alu_mi(a, AS_CMP, 1, AS_AT(R_AX, 0), 5), "cmpb $5,(%rax)", "\x80\x38\x05");
    CHECK(as_alu_mi(a, AS_AND, 8, AS_AT(R_AX, 0), -256), "andq $-256,(%rax)", "\x48\x81\x20\x00\xff\xff\xff");
    CHECK(as_test_rr(a, 4, R_BX, R_BX), "testl %ebx,%ebx", "\x85\xdb");
    CHECK(as_test_ri(a, 1, R_AX, 1), "testb $1,%al", "\xa8\x01");
    CHECK(as_test_ri(a, 2, R_DX, 0x100), "testw $0x100,%dx", "\x66\xf7\xc2\x00\x01");
    CHECK(as_test_ri(a, 8, R_11, 0x40), "testq $0x40,%r11", "\x49\xf7\xc3\x40\x00\x00\x00");
    CHECK(as_shift_ri(a, 5, 4, R_CX, 7), "shrl $7,%ecx", "\xc1\xe9\x07");
    CHECK(as_shift_ri(a, 4, 8, R_8, 1), "shlq $1,%r8", "\x49\xd1\xe0");
    CHECK(as_shift_ri(a, 7, 1, R_DI, 3), "sarb $3,%dil", "\x40\xc0\xff\x03");
    CHECK(as_lahf_seto(a), "lahf; seto %al", "\x9f\x0f\x90\xc0");
    CHECK(as_sahf_from_ax(a), "addb $0x7f,%al; sahf", "\x04\x7f\x9e");
    CHECK(as_setcc(a, CC_NE, R_SI), "setne %sil", "\x40\x0f\x95\xc6");
    CHECK(as_cmov(a, CC_L, 8, R_BX, R_15), "cmovl %r15,%rbx", "\x49\x0f\x4c\xdf");
    CHECK(as_jmp_mem(a, AS_GS_AT(R_CX, 8)), "jmp *%gs:8(%rcx)", "\x65\xff\x61\x08");
    CHECK(as_call_mem(a, AS_AT(R_12, 0)), "call *(%r12)", "\x41\xff\x14\x24");
    CHECK(as_op_rr(a, ((struct as_op){ .map = 1, .opcode = 0xb8, .pfx = 0xf3, .size = 8 }), R_9, R_BX), "popcntq %rbx,%r9",
          "\xf3\x4c\x0f\xb8\xcb");
    CHECK(as_op_rr(a, ((struct as_op){ .map = 2, .opcode = 0xf1, .pfx = 0xf2, .size = 4 }), R_AX, R_8), "crc32l %r8d,%eax",
          "\xf2\x41\x0f\x38\xf1\xc0");
    CHECK(as_op_rr(a, ((struct as_op){ .map = 2, .opcode = 0xf1, .pfx = 0xf2, .size = 2 }), R_AX, R_BX), "crc32w %bx,%eax",
          "\x66\xf2\x0f\x38\xf1\xc3");
    CHECK(as_op_rm(a, ((struct as_op){ .map = 1, .opcode = 0xb1, .size = 4, .lock = true }), R_CX, AS_AT(R_AX, 0)), "lock cmpxchgl %ecx,(%rax)",
          "\xf0\x0f\xb1\x08");
    CHECK(as_op_rm(a, ((struct as_op){ .opcode = 0x86, .byte_reg = true }), R_SI, AS_AT(R_AX, 0)), "xchgb %sil,(%rax)",
          "\x40\x86\x30");
    CHECK(as_op_rm(a, ((struct as_op){ .map = 2, .opcode = 0xf6, .pfx = 0x66, .size = 8 }), R_9, AS_AT(R_AX, 0)), "adcxq (%rax),%r9",
          "\x66\x4c\x0f\x38\xf6\x08");
    CHECK(as_vex_rr(a, ((struct as_vex){ .map = 2, .opcode = 0xf7, .pfx = 0xf2, .w = true }), R_AX, R_CX, R_BX), "shrxq %rcx,%rbx,%rax",
          "\xc4\xe2\xf3\xf7\xc3");
    CHECK(as_vex_rr(a, ((struct as_vex){ .map = 2, .opcode = 0xf2 }), R_9, R_12, R_15), "andnl %r15d,%r12d,%r9d",
          "\xc4\x42\x18\xf2\xcf");
    CHECK(as_vex_rr(a, ((struct as_vex){ .map = 1, .opcode = 0xfe, .pfx = 0x66, .l = true }), 9, 3, 1), "vpaddd %ymm1,%ymm3,%ymm9",
          "\xc5\x65\xfe\xc9");
    CHECK(as_vex_rm(a, ((struct as_vex){ .map = 1, .opcode = 0x6f, .pfx = 0xf3 }), 2, 0, AS_GS(64)), "vmovdqu %gs:64,%xmm2",
          "\x65\xc5\xfa\x6f\x14\x25\x40\x00\x00\x00");
    CHECK(as_vex_rm(a, ((struct as_vex){ .map = 1, .opcode = 0x58, .pfx = 0xf2 }), 2, 1, AS_AT(R_12, 8)), "vaddsd 8(%r12),%xmm1,%xmm2",
          "\xc4\xc1\x73\x58\x54\x24\x08");
}

static void test_jumps(void)
{
    struct as as, *a = &as;
    struct as_fix f;

    start(a);
    f = as_jcc(a, CC_A, true);
    as_nop(a, 3);
    as_fix_here(a, f);
    expect(a, "ja near", "\x0f\x87\x03\0\0\0\x0f\x1f\x00", 9);
    f = as_jrcxz(a);
    as_nop(a, 1);
    as_fix_here(a, f);
    expect(a, "jrcxz", "\xe3\x01\x90", 3);
    f = as_jmp(a, false);
    as_fix_here(a, f);
    expect(a, "jmp", "\xeb\0", 2);
    as_jmp_to(a, room);
    expect(a, "jmp self", "\xeb\xfe", 2);
    as_jcc_to(a, CC_E, at(6 + 0x1000));
    expect(a, "je far", "\x0f\x84\x00\x10\0\0", 6);
    a->to_rx = 0x100;
    as_call_to(a, at(0x105));
    expect(a, "call", "\xe8\0\0\0\0", 5);
}

/* What does not fit is told, and nothing is written behind the end. */
static void test_full(void)
{
    struct as as, *a = &as;

    start(a);
    a->end = room + 5;
    as_mov(a, R_AX, R_BX);
    g_assert_false(a->full);
    as_mov(a, R_AX, R_BX);
    g_assert_true(a->full);
    g_assert_cmphex(room[5], ==, 0xcc);
    as_u8(a, 1);
    g_assert_cmpint(a->p - room, <=, 5);

    start(a);
    struct as_fix f = as_jmp(a, false);
    as_nop(a, 128);
    as_fix_here(a, f);
    g_assert_true(a->full);

    start(a);
    as_call_to(a, at(3ll << 30));
    g_assert_true(a->full);
}

static void test_nops(void)
{
    struct as as, *a = &as;

    for (unsigned n = 0; n < 40; n++) {
        start(a);
        as_nop(a, n);
        g_assert_cmpint(a->p - room, ==, n);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/translate/asm/encodings", test_encodings);
    g_test_add_func("/translate/asm/jumps", test_jumps);
    g_test_add_func("/translate/asm/full", test_full);
    g_test_add_func("/translate/asm/nops", test_nops);
    return g_test_run();
}
