/* SPDX-License-Identifier: GPL-2.0-or-later */
/* 32-bit code and what it must compute: run in compatibility mode by code32.c and in protected mode
 * by prot32.c, which say how to call, to catch and to make a segment.
 *
 * Each function of the first list returns 1 + 2 + ... + n, by all the ways of 32-bit code.
 */
#pragma once

#include "guest.h"

struct code32 {
    uint32_t at, len, text;
};
/* f(n, scratch) by cdecl in 32-bit code; all general registers may be clobbered. */
uint32_t call32(uint32_t fn, uint32_t n, void *scratch);
/* The same; -1, or the vector that ended it, with its address, ECX and error code. */
int catch_call32(uint32_t fn, uint32_t n, void *scratch);
uint32_t caught_eip(void);
uint32_t caught_ecx(void);
uint32_t caught_error(void);
/* A writable data segment; limit in bytes, or pages when flags has G (8); access 0x97: expand down. */
uint16_t make_segment(uint32_t base, uint32_t limit, uint8_t access, uint8_t flags);
uint8_t *code32_pages(void); /* three pages, for code */

#ifdef __x86_64__
#define WIDE ".code64\n"
#else
#define WIDE ""
#endif
#define CODE32_BEGIN(name) ".pushsection .data\n.balign 8\n.global " #name "\n" #name ":\n"
#define CODE32_END(name) ".global " #name "_end\n" #name "_end: .popsection\n"
#define CODE32(text)                                                                               \
    ".pushsection .data.code\n.code32\n11: " text "\n12:\n" WIDE ".popsection\n"                   \
    ".long 11b, 12b - 11b, 13f\n.pushsection .data.names\n13: .asciz \"" text "\"\n.popsection\n"
#define N "mov 4(%esp), %ecx; xor %eax, %eax; jecxz 2f; "

__asm__(CODE32_BEGIN(sums32)
CODE32(N "1: add %ecx, %eax; loop 1b; 2: ret")
CODE32(N "1: add %ecx, %eax; dec %ecx; jnz 1b; 2: ret")
CODE32("mov 4(%esp), %edx; 1: test %edx, %edx; jz 2f; push %edx; dec %edx; call 1b; pop %edx; add %edx, %eax; ret; 2: xor %eax, %eax; ret")
CODE32(N "1: add %ecx, %eax; pusha; xor %eax, %eax; mov %eax, %ecx; mov %eax, %ebp; popa; dec %ecx; jnz 1b; 2: ret")
CODE32(N "1: add %ecx, %eax; pushaw; xor %eax, %eax; mov %eax, %esi; popaw; dec %ecx; jnz 1b; and $0xffff, %eax; 2: ret")
CODE32("mov 4(%esp), %ecx; xor %eax, %eax; xor %edx, %edx; 1: cmp %ecx, %edx; jae 2f; inc %edx; add %edx, %eax; jmp 1b; 2: ret")
CODE32(N "1: call 3f; dec %ecx; jmp 4f; 3: enter $8, $0; mov %ecx, -4(%ebp); add -4(%ebp), %eax; leave; ret; 4: test %ecx, %ecx; jnz 1b; 2: ret")
CODE32(N "1: push %ecx; push $7; push %ecx; call 3f; dec %ecx; jnz 1b; 2: ret; 3: add 4(%esp), %eax; ret $12")
CODE32(N "call 1f; 1: pop %edx; add $3f - 1b, %edx; 5: push $0; push %edx; call *(%esp); add $8, %esp; loop 5b; 2: ret; 3: add %ecx, %eax; ret")
CODE32(N "1: call 3f; 3: pop %edx; add $4f - 3b, %edx; push %edx; ret; ud2; 4: add %ecx, %eax; loop 1b; 2: ret")
CODE32(N "1: call 3f; ud2; add %ecx, %eax; loop 1b; 2: ret; 3: addl $2, (%esp); ret")
CODE32(N "1: add %cx, %ax; dec %cx; jnz 1b; 2: ret")
CODE32(N "1: pushw %cx; pushw $0; pop %edx; shr $16, %edx; add %edx, %eax; loop 1b; 2: ret")
CODE32(N "1: push %ds; push %es; push %cs; pop %edx; pop %es; pop %ds; add %ecx, %eax; loop 1b; 2: ret")
CODE32(N "mov 8(%esp), %edi; mov %edi, %esi; mov %ecx, %edx; 1: mov %edx, %eax; stosl; dec %edx; jnz 1b; xor %edx, %edx; 3: lodsl; add %eax, %edx; loop 3b; mov %edx, %eax; 2: ret")
CODE32(N "mov 8(%esp), %edi; mov %ecx, %edx; mov $1, %eax; rep stosb; mov %edx, %ecx; mov 8(%esp), %esi; xor %eax, %eax; xor %ebx, %ebx; 1: movzbl (%esi,%ebx), %edi; inc %ebx; imul %ebx, %edi; add %edi, %eax; loop 1b; 2: ret")
CODE32(N "mov 8(%esp), %esi; mov $0xfffffff0, %edx; 1: mov %ecx, 16(%esi,%edx); add (%esi), %eax; loop 1b; 2: ret")
CODE32(N "mov 8(%esp), %esi; lea 0x70000000(%esi), %edx; 1: mov %ecx, -0x70000000(%edx); add -0x70000000(%edx), %eax; loop 1b; 2: ret")
CODE32(N "mov 8(%esp), %esi; movl $0, (%esi); 1: mov %ecx, %edx; lock xadd %edx, (%esi); loop 1b; mov (%esi), %eax; 2: ret")
CODE32("mov 4(%esp), %eax; lea 1(%eax), %edx; imul %edx, %eax; shr $1, %eax; ret")
CODE32("mov 4(%esp), %eax; lea 1(%eax), %edx; mul %edx; shrd $1, %edx, %eax; ret")
CODE32(N "1: mov %ch, %dh; mov %cl, %dl; movzwl %dx, %ebx; bswap %ebx; rol $8, %ebx; xchg %bl, %bh; and $0xffff, %ebx; xchg %bl, %bh; ror $8, %bx; movzwl %cx, %ebx; add %ebx, %eax; loop 1b; 2: ret")
CODE32(N "1: mov %esp, %ebx; push %esp; pop %esp; cmp %ebx, %esp; jne 2f; add %ecx, %eax; loop 1b; 2: ret")
CODE32(N "1: mov %ecx, 0x6000; mov %eax, %edx; mov 0x6000, %eax; add %edx, %eax; mov %eax, 0x6004; loop 1b; 2: ret")
CODE32(N "mov $0x12346000, %ebx; 1: addr16 mov %ecx, 2(%bx); mov $0x55550002, %edi; addr16 add (%bx,%di), %eax; loop 1b; 2: ret")
CODE32(N "or $0x550000, %ecx; 1: movzwl %cx, %edx; add %edx, %eax; loopw 1b; 2: ret")
CODE32(N "push %ebp; mov %esp, %ebp; sub $64, %esp; mov $0xabcd0000, %esi; 1: mov %ecx, -32(%ebp); add -32(%ebp), %eax; loop 1b; leave; 2: ret")
CODE32(N "1: mov %eax, %edx; mov %cl, %al; and $0x3f, %al; aam; aad; mov %al, %bl; mov %ecx, %eax; and $0x3f, %al; cmp %al, %bl; jne 3f; lea (%edx,%ecx), %eax; loop 1b; 2: ret; 3: xor %eax, %eax; ret")
CODE32(N "1: stc; .byte 0xd6; cmp $-1, %al; mov %al, %bl; clc; .byte 0xd6; test %al, %al; jnz 2f; add %ecx, %esi; loop 1b; mov 4(%esp), %eax; lea 1(%eax), %edx; imul %edx, %eax; shr $1, %eax; 2: ret")
CODE32(N "mov 8(%esp), %esi; movl $0, (%esi); movl $1000, 4(%esi); 1: bound %ecx, (%esi); into; add %ecx, %eax; loop 1b; 2: ret")
CODE32(N "1: mov %ecx, %edx; and $~3, %edx; mov $3, %ebx; arpl %bx, %dx; jnz 3f; and $3, %edx; 3: add %ecx, %eax; loop 1b; 2: ret")
CODE32(N "mov 8(%esp), %ebx; mov %eax, %esi; 1: mov %cl, 5(%ebx); mov $5, %al; xlat; movzbl %al, %eax; mov %ecx, %edx; mov %al, %dl; add %edx, %esi; loop 1b; mov %esi, %eax; 2: ret")
CODE32(N "1: push %ds; push %ecx; les (%esp), %edx; add $8, %esp; add %edx, %eax; loop 1b; push %ds; pop %es; 2: ret")
CODE32(N "1: push %cs; call 3f; loop 1b; 2: ret; 3: add %ecx, %eax; lret")
CODE32(N "1: pushf; push %cs; call 3f; loop 1b; 2: ret; 3: add %ecx, %eax; iret")
CODE32(N "mov 8(%esp), %esi; fldz; 1: mov %ecx, (%esi); fiaddl (%esi); loop 1b; fistpl (%esi); mov (%esi), %eax; 2: ret")
CODE32(N "xorps %xmm1, %xmm1; 1: cvtsi2sd %ecx, %xmm0; addsd %xmm0, %xmm1; loop 1b; cvtsd2si %xmm1, %eax; 2: ret")
CODE32(N "mov 8(%esp), %esi; call 1f; 1: pop %edx; add $5f - 1b, %edx; mov %edx, 4(%esi); 3: movl $1, %ebx; jmp *(%esi,%ebx,4); ud2; 5: add %ecx, %eax; loop 3b; 2: ret")
CODE32(N "mov 8(%esp), %esi; mov %ecx, %ebx; movl $0, (%esi); movl $0, 4(%esi); 1: mov (%esi), %eax; mov 4(%esi), %edx; push %ebx; push %ecx; mov %edx, %ecx; add %eax, %ebx; lock cmpxchg8b (%esi); pop %ecx; pop %ebx; jnz 1b; dec %ebx; jnz 1b; mov (%esi), %eax; 2: ret")
CODE32(N "mov 8(%esp), %esi; 1: mov %ecx, (%esi); push (%esi); pop 4(%esi); add 4(%esi), %eax; mov %esp, %edx; pushl 4(%esi); pop %ebx; cmp %esp, %edx; jne 2f; dec %ecx; jnz 1b; 2: ret")
CODE32(N "std; 1: add %ecx, %eax; loop 1b; cld; 2: ret")
CODE32(N "1: cmp $100, %ecx; sbb %edx, %edx; add %edx, %edx; adc %ecx, %eax; cmp $100, %ecx; sbb $0, %eax; loop 1b; 2: ret")
CODE32("mov 4(%esp), %ecx; call 1f; 1: pop %edx; mov %ecx, 3f+1-1b(%edx); 3: mov $0x11111111, %eax; lea 1(%eax), %edx; imul %edx, %eax; shr $1, %eax; ret")
CODE32_END(sums32));
#undef N

/* f(offset, scratch): scratch's first word is a selector. Label 7 is the access; it is what faults. */
__asm__(CODE32_BEGIN(segments32)
CODE32("mov 4(%esp), %ecx; mov 8(%esp), %edx; mov (%edx), %fs; nop; nop; nop; nop; movzbl %fs:(%ecx), %eax; ret")
CODE32("mov 4(%esp), %ecx; mov 8(%esp), %edx; mov (%edx), %gs; mov $7, %al; incb %gs:(%ecx); movzbl %gs:(%ecx), %eax; decb %gs:(%ecx); ret")
CODE32("mov 4(%esp), %ecx; mov 8(%esp), %edx; push %ds; mov (%edx), %ds; movzbl (%ecx), %eax; pop %ds; ret")
CODE32("mov 4(%esp), %ecx; mov 8(%esp), %edx; push %es; mov (%edx), %es; mov %ecx, %edi; mov %es:(%edi), %al; stosb; pop %es; movzbl %al, %eax; ret")
CODE32("mov 4(%esp), %ecx; mov 8(%esp), %edx; push %ds; mov (%edx), %ds; push (%ecx); pop (%ecx); mov (%ecx), %al; pop %ds; movzbl %al, %eax; ret")
CODE32_END(segments32));

static uint8_t area32[8192] __attribute__((aligned(4096)));
static uint32_t scratch32[512] __attribute__((aligned(16)));

static uint32_t place32(const struct code32 *code, uint32_t off)
{
    uint8_t *pages = code32_pages();
    memset(pages, 0xcc, 2 * PAGE);
    memcpy(pages + off, (const void *)(uintptr_t)code->at, code->len);
    return (uint32_t)(uintptr_t)pages + off;
}

static void test_sum32(const struct code32 *code, uint32_t off, unsigned turns)
{
    uint32_t fn = place32(code, off);
    for (uint32_t turn = 0; turn < turns; turn++) {
        uint32_t n = turn % 8 == 7 ? 300 : turn % 16, got = call32(fn, n, scratch32);
        if (got == n * (n + 1) / 2)
            continue;
        check(false, "f(%u) is %u in turn %u at %u: %s", n, got, turn, off,
              (const char *)(uintptr_t)code->text);
        return;
    }
    check(true, "%s", (const char *)(uintptr_t)code->text);
}

static void test_sums32(unsigned turns)
{
    extern const struct code32 sums32[], sums32_end[];
    for (const struct code32 *code = sums32; code < sums32_end; code++) {
        test_sum32(code, 0, 4 * turns);
        for (uint32_t cut = 1; cut < code->len; cut += 1 + code->len / 20)
            test_sum32(code, PAGE - cut, turns);
    }
}

/* One segment register goes through bases and limits while the code stays hot. */
static void test_segments32(void)
{
    extern const struct code32 segments32[], segments32_end[];
    uint32_t base = (uint32_t)(uintptr_t)area32;
    for (uint32_t i = 0; i < sizeof(area32); i++)
        area32[i] = (uint8_t)(i * 13);
    for (const struct code32 *code = segments32; code < segments32_end; code++) {
        const char *text = (const char *)(uintptr_t)code->text;
        uint32_t fn = place32(code, 128), adds = code == segments32 + 1;
        for (uint32_t turn = 0; turn < 40; turn++) {
            uint32_t from = turn % 5 * 700, limit = 99 + turn % 3;
            scratch32[0] = make_segment(base + from, limit, 0x93, 4);
            for (uint32_t at = 0; at < 90; at += 11) {
                check_eq(catch_call32(fn, at, scratch32), -1, "within the limit: %s", text);
                check_eq(call32(fn, at, scratch32), (uint8_t)((from + at) * 13 + adds), "at %u: %s", at, text);
            }
            check_eq(catch_call32(fn, limit + 1, scratch32), 13, "beyond the limit: %s", text);
            check_eq(caught_error(), 0, "its error code");
            check_eq(caught_ecx(), limit + 1, "ECX");
            check(caught_eip() > fn && caught_eip() < fn + code->len, "EIP");
            scratch32[0] = make_segment(0, 0xfffff, 0x93, 12);
            check_eq(call32(fn, base + 77, scratch32), (uint8_t)(77 * 13 + adds), "flat: %s", text);
            scratch32[0] = make_segment(base + 4096, 0xfffff, 0x93, 12);
            check_eq(call32(fn, -4096u + turn, scratch32), (uint8_t)(turn * 13 + adds),
                     "a base with addresses that wrap: %s", text);
            scratch32[0] = make_segment(base, 99, 0x97, 4); /* expands down */
            check_eq(call32(fn, 200 + turn, scratch32), (uint8_t)((200 + turn) * 13 + adds), "above an expand-down limit: %s", text);
            check_eq(catch_call32(fn, 99, scratch32), 13, "under an expand-down limit: %s", text);
        }
    }
}
