/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Self-modifying code in all shapes: what stores, and where from the changed instruction it stands.
 *
 * Spec      Intel SDM volume 3, 12.6: on one processor a store is seen by the next instruction.
 */
#include "lib/probe.h"

/* Each returns its argument, EDI, by patching the immediate of a later (or earlier) instruction
 * with it. RSI points to 64 bytes of scratch. */
__asm__(PIECES_BEGIN(shapes)
/* the store */
PIECE("mov %edi, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("mov %edi, 1f+1(%rip); nop; lea (%rdi), %edx; 1: mov $0, %eax; ret")
PIECE("lea 1f+1(%rip), %rdx; mov %edi, (%rdx); 1: mov $0, %eax; ret")
PIECE("lea 1f(%rip), %rdx; mov $4, %ecx; mov %rdi, 2(%rdx); 1: movabs $0, %rax; ret")
PIECE("lea 1f+1(%rip), %rdx; mov %dil, (%rdx); shr $8, %edi; mov %di, 1(%rdx); shr $16, %edi; mov %dil, 3(%rdx); 1: mov $0, %eax; ret")
PIECE("mov %edi, (%rsi); lea 1f+1(%rip), %rdi; mov $4, %ecx; rep movsb; 1: mov $0, %eax; ret")
PIECE("mov %edi, (%rsi); lea 1f+1(%rip), %rdi; mov $2, %ecx; rep movsw; 1: mov $0, %eax; ret")
PIECE("mov %edi, (%rsi); lea 1f+1(%rip), %rdi; movsl; 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; lea 1f+1(%rip), %rdi; mov $1, %ecx; rep stosl; 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; lea 1f+1(%rip), %rdi; stosl; 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; lea 1f+1(%rip), %rdi; std; stosl; cld; 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; xchg %eax, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; sub 1f+1(%rip), %eax; lock add %eax, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; sub 1f+1(%rip), %eax; add %eax, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("mov %edi, %eax; sub 1f+1(%rip), %eax; lock xadd %eax, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("mov 1f+1(%rip), %eax; lock cmpxchg %edi, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("push %rbx; mov 1f+1(%rip), %eax; mov 1f+5(%rip), %edx; mov %edi, %ebx; mov %edx, %ecx; lock cmpxchg8b 1f+1(%rip); 1: mov $0, %eax; nop; nop; pop %rbx; ret")
PIECE("mov %edi, %eax; xor 1f+1(%rip), %eax; xor %eax, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("movl $0, 1f+1(%rip); or %edi, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("movd %edi, %xmm0; movd %xmm0, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("movd %edi, %xmm0; movss %xmm0, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("movups 1f(%rip), %xmm0; movups %xmm0, (%rsi); mov %edi, 1(%rsi); movups (%rsi), %xmm1; movups %xmm1, 1f(%rip); 1: mov $0, %eax; ret; .skip 12, 0xcc")
PIECE("movq 1f(%rip), %xmm0; movq %xmm0, (%rsi); mov %edi, 1(%rsi); movq (%rsi), %xmm1; movlps %xmm1, 1f(%rip); 1: mov $0, %eax; ret; .skip 4, 0xcc")
PIECE("mov %edi, (%rsi); fildl (%rsi); fistpl 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("movnti %edi, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("pcmpeqd %xmm1, %xmm1; psrldq $12, %xmm1; movd %edi, %xmm0; lea 1f+1(%rip), %rdi; maskmovdqu %xmm1, %xmm0; 1: mov $0, %eax; ret; .skip 12, 0xcc")
PIECE("mov 1f+5(%rip), %edx; shl $32, %rdx; mov %edi, %eax; or %rdx, %rax; mov %rsp, %rcx; lea 1f+9(%rip), %rsp; push %rax; mov %rcx, %rsp; 1: mov $0, %eax; nop; nop; ret")
PIECE("mov 1f+5(%rip), %edx; shl $32, %rdx; mov %edi, %eax; or %rdx, %rax; push %rax; popq 1f+1(%rip); 1: mov $0, %eax; nop; nop; ret")
PIECE("mov %edi, %eax; push %rbp; mov %rsp, %rcx; mov %rdi, %rbp; lea 1f+10(%rip), %rsp; enter $0, $0; mov %rcx, %rsp; pop %rbp; 1: movabs $0, %rax; ret")
PIECE("movbe %edi, (%rsi); mov (%rsi), %eax; movbe %eax, 1f+1(%rip); 1: mov $0, %eax; ret")
PIECE("lea 1f+1(%rip), %rdx; movl $0, (%rdx); 2: incl (%rdx); 1: mov $0, %eax; cmp %edi, %eax; jae 3f; lea 3f(%rip), %rcx; mov %edi, (%rdx); jmp 1b; 3: ret")
PIECE("pushfq; pop %rax; mov %edi, %ecx; and $1, %ecx; shr $1, %ecx; setc 1f+1(%rip); 1: mov $0, %al; and $1, %eax; and $~1, %edi; or %edi, %eax; ret")
PIECE("btrl $0, 1f+1(%rip); test $1, %dil; jz 1f; btsl $0, 1f+1(%rip); 1: mov $0, %eax; and $~1, %edi; and $1, %eax; or %edi, %eax; ret")
/* the place: behind, in a loop, in a callee, in the caller, in another block of the page */
PIECE("xor %ecx, %ecx; 1: mov $0, %eax; test %ecx, %ecx; jnz 2f; mov %edi, 1b+1(%rip); inc %ecx; jmp 1b; 2: ret")
PIECE("mov $3, %ecx; 1: mov $0, %eax; mov %edi, 1b+1(%rip); dec %ecx; jnz 1b; ret")
PIECE("mov %edi, 1f+1(%rip); call 1f; ret; 1: mov $0, %eax; ret")
PIECE("call 1f; mov %edi, 1f+1(%rip); call 1f; jmp 2f; 1: mov $0, %eax; ret; 2: ret")
PIECE("call 2f; 1: mov $0, %eax; ret; 2: mov %edi, 1b+1(%rip); ret")
PIECE("mov %edi, 1f+1(%rip); jmp 1f; ud2; 1: mov $0, %eax; ret")
PIECE("lea 1f(%rip), %rdx; mov %edi, 1(%rdx); jmp *%rdx; ud2; 1: mov $0, %eax; ret")
PIECE("lea 1f(%rip), %rdx; push %rdx; mov %edi, 1(%rdx); ret; 1: mov $0, %eax; ret")
PIECE("mov %edi, 1f+1(%rip); test %edi, %edi; jz 1f; 1: mov $0, %eax; ret")
/* the kind of the change: opcodes and displacements */
PIECE("mov %edi, %eax; movb $0xeb, 1f(%rip); movb $2, 1f+1(%rip); 1: nop; nop; ud2; movb $0x90, 1b(%rip); movb $0x90, 1b+1(%rip); jmp 2f; 2: mov %edi, %eax; movb $0xeb, 3f(%rip); 3: jmp 4f; ud2; 4: ret")
PIECE("xorb $1, 1f(%rip); mov 1f(%rip), %al; mov %edi, %eax; cmp %eax, %eax; 1: je 2f; mov %edi, %eax; ret; 2: ret")
PIECE("movb $0xc3, 1f(%rip); call 1f; movb $0x90, 1f(%rip); xor %eax, %eax; call 1f; ret; 1: nop; mov %edi, %eax; ret")
PIECE("movb $7, 1f+1(%rip); xor %eax, %eax; 1: jmp 2f; 2: ud2; ud2; ud2; .byte 0; mov %edi, %eax; movb $0, 1b+1(%rip); ret")
PIECE("movb $0xc0, 1f+1(%rip); xor %eax, %eax; stc; 1: adc %eax, %eax; dec %eax; lea (%rax,%rdi), %eax; movb $0xc9, 1b+1(%rip); ret")
PIECES_END(shapes));

typedef uint32_t shape_fn(uint32_t value, void *scratch);

static uint8_t scratch[64] __attribute__((aligned(16)));

/* The pages are mapped at CODE_AT and CODE2_AT: the store and the fetch may use different ones. */
static void test_shape(const struct piece *shape, uint64_t off, unsigned turns)
{
    static const uint64_t at[] = { CODE_AT, CODE2_AT };
    if (cmdline_number("say", 0))
        print("at %lu: %s\n", off, shape->text);
    memset(probe_code, 0xcc, 2 * PAGE);
    memcpy(probe_code + off, shape->code, shape->len);
    for (unsigned i = 0; i < turns; i++) {
        uint32_t value = (i * 0x01234567u + 3) & 0x7fffffff;
        for (unsigned j = 0; j < ARRAY_COUNT(at); j++) {
            uint32_t got = ((shape_fn *)(at[j] + off))(value + j, scratch);
            if (got == value + j)
                continue;
            check(false, "turn %u gave 0x%x, not 0x%x, at 0x%lx: %s", i, got, value + j,
                  at[j] + off, shape->text);
            return;
        }
    }
    check(true, "%s", shape->text);
}

static void test_shapes(unsigned turns)
{
    extern const struct piece shapes[], shapes_end[];
    for (const struct piece *shape = shapes; shape < shapes_end; shape++) {
        test_shape(shape, 64, 4 * turns);
        for (uint64_t cut = 1; cut < shape->len; cut++)
            test_shape(shape, PAGE - cut, turns);
    }
}

/* A store this far from the code's first byte or last, again and again: the code stays the same and
 * so does what was stored; where both share 64 bytes this may be slow, but must be right. */
static void test_data_near(void)
{
    static const uint8_t text[] = { 0x8d, 0x47, 0x01, 0xc3 }; /* lea 1(%rdi), %eax; ret */
    for (int distance = -130; distance <= 130; distance++) {
        uint64_t off = 1024;
        memset(probe_code, 0, 2 * PAGE);
        memcpy(probe_code + off, text, sizeof(text));
        if (distance > -8 && distance < (int)sizeof(text))
            continue;
        volatile uint64_t *data = (uint64_t *)(probe_code + (int)off + distance);
        bool ok = true;
        for (uint32_t i = 0; i < 60; i++) {
            *data += i;
            ok &= ((shape_fn *)(CODE_AT + off))(i, scratch) == i + 1;
        }
        check(ok && *data == 60 * 59 / 2, "data %d bytes from code", distance);
    }
}

/* A loop in one block that stores beside itself in its own 64 bytes and in the next ones. */
static void test_loop_beside(void)
{
    __asm__(PIECES_BEGIN(beside)
            PIECE("xor %eax, %eax; 1: inc %eax; mov %eax, 2f(%rip); mov 2f(%rip), %edx; add %edx, 2f+64(%rip); cmp %edi, %eax; jb 1b; mov 2f+64(%rip), %eax; ret; 2: .skip 128")
            PIECES_END(beside));
    extern const struct piece beside[];
    for (unsigned off = 0; off < 64; off += 7) {
        memset(probe_code, 0, PAGE);
        memcpy(probe_code + off, beside->code, beside->len);
        check_eq(((shape_fn *)(CODE_AT + off))(3000, scratch), 3000 * 3001 / 2,
                 "sum of a loop that stores beside itself, from %u", off);
    }
}

/* An immediate patched at each turn, before and behind, for sums that show every stale turn. */
static void test_hot_loops(void)
{
    __asm__(PIECES_BEGIN(hot)
            PIECE("xor %eax, %eax; mov %edi, %ecx; 1: mov %ecx, 2f+1(%rip); nop; 2: add $0x11111111, %eax; dec %ecx; jnz 1b; ret")
            PIECE("xor %eax, %eax; mov %edi, %ecx; mov %ecx, 2f+1(%rip); 2: add $0x11111111, %eax; dec %ecx; mov %ecx, 2b+1(%rip); jnz 2b; ret")
            PIECE("xor %eax, %eax; mov %edi, %ecx; 1: lea 2f+1(%rip), %rdx; mov %cl, (%rdx); mov %ch, 1(%rdx); movw $0, 2(%rdx); call 2f; dec %ecx; jnz 1b; ret; 2: add $0x11111111, %eax; ret")
            PIECE("xor %eax, %eax; mov %edi, %ecx; 1: mov %ecx, 2f+1(%rip); jmp 2f; .skip 200, 0xcc; 2: add $0x11111111, %eax; dec %ecx; jz 3f; jmp 1b; 3: ret")
            PIECES_END(hot));
    extern const struct piece hot[], hot_end[];
    for (const struct piece *p = hot; p < hot_end; p++) {
        for (unsigned off = 1; off < PAGE; off += PAGE - 41) {
            memcpy(probe_code + off, p->code, p->len);
            check_eq(((shape_fn *)(CODE_AT + off))(2000, scratch), 2000 * 2001 / 2, "%s", p->text);
        }
    }
}

void test_main(void)
{
    probe_init();
    test_shapes((unsigned)cmdline_number("turns", 6));
    test_data_near();
    test_loop_beside();
    test_hot_loops();
}
