/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pieces that programs are made of. All count on the registers of probe_start(): RBX, RBP - 8
 * and R12 are the hole, R9 lies four bytes before it, R10 is the page that may only be read, R11 is
 * not canonical, FS + 16 and GS are the hole, RDX's low half is the 32-bit one. Instructions whose
 * undefined flags differ from time to time (multiplication, division) are left out where flags show.
 */
#include "probe.h"

#define BEGIN PIECES_BEGIN
#define END PIECES_END
#define P PIECE

/* Flags are dead or alive behind each of these; a fault must show them exact in either case. */
__asm__(BEGIN(pieces_flags)
P("add %rax, %rdx") P("sub %rcx, %rax") P("cmp %rdx, %rax") P("inc %ecx") P("dec %ax")
P("shl $3, %rax") P("sar $1, %edx") P("neg %rcx") P("and $0x77, %eax") P("xor %edx, %edx")
P("stc; adc %rcx, %rax") P("stc; sbb %al, %dl") P("bt $4, %rax") P("test %rax, %rax")
P("rol $1, %rax") P("rcr $1, %edx") P("shld $1, %rax, %rdx")
P("mov $0xd5, %ah; sahf") P("cmc") P("std") P("xadd %rax, %rcx") P("cmp %al, %al; setc %dl")
P("mov $0x7fffffff, %ecx; inc %ecx") P("mov $1, %eax; dec %eax") P("stc; inc %al")
P("mov $0x8d5, %eax; push %rax; popf") P("push $0x2; popf") P("add $127, %al; lea 1(%rax), %rax")
P("comiss %xmm1, %xmm0") P("tzcnt %rax, %rcx; add %al, %al") P("add %ax, %ax; cmovo %rcx, %rax")
P("cmp $5, %ecx; jne 1f; lea 1(%rcx), %ecx; 1:") P("or %al, %al; jz 1f; 1:")
END(pieces_flags));

__asm__(BEGIN(pieces_fault)
/* every addressing form */
P("mov (%rbx), %rax") P("mov 8(%rbx), %ecx") P("mov 0x12345(%rbx), %rdx") P("mov (%rbx,%r8), %rax")
P("mov -0x10(%rbx,%r8), %rax") P("mov 0x7ff(%rbx,%r8,8), %al") P("mov (,%r14,4), %rax")
P("mov -8(%rbp), %eax") P("mov (%rbp,%r8,2), %rax") P("mov (%r12), %r12") P("mov (%r13), %ax")
P("mov (%r12,%r8), %r8") P("mov 8(%r13,%r15,8), %rax") P("mov 0x2000(%rip), %rax")
P("mov %eax, 0x2000(%rip)") P("movabs 0x4000002000, %rax") P("movabs %al, 0x4000002000")
P("mov %fs:0x10, %rax") P("mov %gs:0, %rax") P("mov %gs:(%r8), %eax") P("mov %eax, %fs:0x10(%r8)")
P("addr32 mov (%edx), %rax") P("addr32 mov %rax, 0x10(%edx,%r8d,4)") P("mov (%rax,%rbx), %eax")
P("mov (%rbx), %rbx") P("mov %rbx, (%rbx)") P("movabs $0x4000002000, %rcx; mov (%rcx), %ecx")
/* kinds of access */
P("mov %rax, (%rbx)") P("mov %ah, (%rbx)") P("movb $5, (%rbx)") P("movw $5, (%rbx)")
P("movl $0x12345678, 4(%rbx)") P("movq $-5, (%rbx)") P("add %rax, (%rbx)") P("add (%rbx), %rax")
P("adc %ecx, (%rbx)") P("stc; sbb (%rbx), %al") P("incl (%rbx)") P("decb (%rbx)") P("negq (%rbx)")
P("notb (%rbx)") P("xchg %rax, (%rbx)") P("lock add %rax, (%rbx)") P("lock incw (%rbx)")
P("lock xadd %rax, (%rbx)") P("xadd %al, (%rbx)") P("cmpxchg %rcx, (%rbx)")
P("lock cmpxchg %ecx, (%rbx)") P("cmpxchg8b (%rbx)") P("lock cmpxchg16b (%rbp,%r8,1)")
P("xor %ecx, %ecx; lock cmpxchg16b (%r12)") P("bts %rcx, (%rbx)") P("bt %ecx, (%rbx)")
P("lock btr $3, (%rbx)") P("btc %r8, (%rbx)") P("shlq $1, (%rbx)") P("sarb %cl, (%rbx)")
P("rclw $3, (%rbx)") P("shrd %cl, %rax, (%rbx)") P("shld $5, %eax, (%rbx)")
P("imul (%rbx), %rax; test %al, %al") P("imul $3, (%rbx), %ecx; or %cl, %cl") P("mulq (%rbx); add %al, %dl") P("xor %edx, %edx; divq (%rbx); test %dl, %dl")
P("movzbl (%rbx), %eax") P("movsbq (%rbx), %rcx") P("movslq (%rbx), %rax")
P("cmove (%rbx), %rax") P("cmovne (%rbx), %ecx") P("setc (%rbx)") P("sets (%rbx)")
P("test %eax, (%rbx)") P("cmp (%rbx), %al") P("cmpl $7, (%rbx)") P("testb $1, (%rbx)")
P("xlat") P("bsf (%rbx), %rax") P("popcnt (%rbx), %rax") P("crc32q (%rbx), %rax")
P("movbe (%rbx), %rax") P("movnti %rax, (%rbx)") P("lea (%rbx), %rax") P("prefetcht0 (%rbx)")
P("nopl (%rbx)") P("clflush (%rbx)") P("invlpg (%rbx)") P("andn (%rbx), %rax, %rcx")
P("shlx %rax, (%rbx), %rcx") P("sgdt (%rbx)") P("smsw (%rbx)") P("str (%rbx)") P("lar (%rbx), %eax")
P("mov %cs, (%rbx)")
/* stack */
P("pushq (%rbx)") P("popq (%rbx)") P("popw (%r9)") P("call *(%rbx)") P("jmp *(%rbx)")
P("call *8(%rbp)") P("mov %rbx, %rsp; pop %rax") P("mov %rbx, %rsp; ret")
P("mov %rbx, %rsp; ret $24") P("mov %rbx, %rbp; leave") P("mov %rbx, %rsp; popf")
P("mov %rbx, %rsp; iretq") P("mov %rbx, %rsp; lretq") P("mov %r10, %rsp; push %rax")
P("mov %r10, %rsp; pushf") P("mov %r10, %rsp; push $-1") P("mov %r10, %rsp; call 1f; 1:")
P("mov %r10, %rsp; call *%rbx") P("mov %r10, %rsp; enter $32, $0") P("mov %r10, %rsp; enter $8, $3")
P("mov %r9, %rsp; pop %rax") P("mov %r9, %rsp; ret") P("lea 4(%rbx), %rsp; push %rax")
P("mov %r10, %rsp; pushq (%rsp)") P("mov %r9, %rsp; popq -64(%rsp)") P("mov %rbx, %rsp; mov (%rsp), %eax")
P("lea -32(%rbx), %rsp; pop %rax; pop %rcx; pop %rdx; pop %rsi; pop %rdi; pop %rax")
P("lea 16(%r10), %rsp; push %rax; push %rcx; push %rdx; push %rsi")
P("lea 2(%r10), %rsp; pushw %ax; pushw %cx")
/* the target faults, not the jump */
P("jmp *%rbx") P("call *%rbx") P("push %rbx; ret") P("mov %rbx, -8(%rsp); jmp *-8(%rsp)")
/* across the page end */
P("mov (%r9), %rax") P("mov %rax, (%r9)") P("add %rax, (%r9)") P("lock add %rax, (%r9)")
P("xchg %rax, (%r9)") P("lock cmpxchg %rcx, (%r9)") P("mov %eax, -2(%rbx)") P("mov -1(%rbx), %cx")
P("movups (%r9), %xmm0") P("movups %xmm0, (%r9)") P("movq %xmm0, (%r9)") P("fldt (%r9)")
P("fld1; fstpt (%r9)") P("fxsave -48(%rbx)") P("pushq (%r9)") P("popq (%r9)") P("adcl $1, -3(%rbx)")
P("shlq %cl, (%r9)") P("mov %rax, 0xffc(%rbx)") P("incq 0xffe(%rbx)")
/* the page that may only be read */
P("mov %rax, (%r10)") P("add %rax, (%r10)") P("lock add %rax, (%r10)") P("cmpxchg %rcx, (%r10)")
P("xchg %al, (%r10)") P("bts $1, (%r10)") P("movups %xmm0, 64(%r10)") P("popq (%r10)")
P("mov %r10, %rdi; rep stosb") P("setc 1(%r10)") P("shll $0, (%r10)") P("add (%r10), %rax")
/* strings: registers as far as they came */
P("lodsb") P("stosq") P("movsl") P("cmpsw") P("scasb") P("rep stosb")
P("lea -20(%rbx), %rdi; mov $100, %ecx; rep stosb") P("lea -20(%rbx), %rdi; mov $100, %ecx; rep stosw")
P("lea -20(%rbx), %rdi; mov $100, %ecx; rep stosl") P("lea -20(%rbx), %rdi; mov $100, %ecx; rep stosq")
P("lea -400(%rbx), %rsi; lea -2048(%rbx), %rdi; mov $1000, %ecx; rep movsb")
P("lea -400(%rbx), %rdi; lea -2048(%rbx), %rsi; mov $300, %ecx; rep movsl")
P("lea -401(%rbx), %rdi; lea -2048(%rbx), %rsi; mov $99, %ecx; rep movsq")
P("lea -30(%rbx), %rsi; lea -60(%rbx), %rdi; mov $99, %ecx; rep movsw")
P("lea -7(%rbx), %rsi; mov $99, %ecx; rep lodsw") P("lea 0x1010(%rbx), %rsi; mov $99, %ecx; std; rep lodsb")
P("lea 0x1010(%rbx), %rsi; lea -64(%rbx), %rdi; mov $99, %ecx; std; rep movsl")
P("mov %rbx, %rdi; std; mov $3, %ecx; rep stosq") P("lea 8(%rbx), %rsi; lea 8(%rbx), %rdi; std; cmpsq")
P("lea -512(%rbx), %rsi; mov %rsi, %rdi; mov $999, %ecx; repe cmpsb")
P("lea -512(%rbx), %rsi; mov %rsi, %rdi; mov $999, %ecx; repe cmpsq")
P("lea -100(%rbx), %rdi; mov $0x5a5a, %ax; mov $999, %ecx; repne scasw")
P("lea -100(%rbx), %rdi; mov $0x5a, %eax; mov $999, %ecx; repne scasl")
P("lea -24(%rbx), %rdi; movabs $0x6a5a5a5a5a5a5a, %rax; mov $999, %ecx; repne scasq")
P("addr32 lodsb") P("mov $0, %ecx; mov %r11, %rdi; rep stosb") P("mov %rbx, %rsi; mov $0, %ecx; rep movsb")
/* vectors and x87 */
P("movaps (%rbx), %xmm0") P("movaps %xmm1, (%rbx)") P("movups -8(%rbx), %xmm2") P("movups %xmm3, -8(%rbx)")
P("movss (%rbx), %xmm0") P("movsd %xmm0, (%rbx)") P("movlps (%rbx), %xmm1") P("movhps %xmm1, (%rbx)")
P("addps (%rbx), %xmm0") P("pxor (%rbx), %xmm1") P("pshufb (%rbx), %xmm1") P("cvtsi2sdq (%rbx), %xmm0")
P("cvttss2si (%rbx), %rax") P("ucomisd (%rbx), %xmm0") P("pinsrw $1, (%rbx), %xmm0")
P("pextrb $1, %xmm0, (%rbx)") P("movntdq %xmm0, (%rbx)") P("movd %xmm0, (%rbx)") P("lddqu (%r9), %xmm0")
P("maskmovdqu %xmm1, %xmm0") P("mov %rbx, %rdi; maskmovdqu %xmm1, %xmm0")
P("fldl (%rbx)") P("fld1; fstpl (%rbx)") P("fld1; fsts (%rbx)") P("fldpi; fistpll (%rbx)")
P("fildl (%rbx)") P("fld1; fadds (%rbx)") P("fnstcw (%rbx)") P("fldcw (%rbx)") P("fnstsw (%rbx)")
P("fldenv (%rbx)") P("fnstenv (%rbx)") P("fld1; fnsave (%rbx)") P("fxsave (%rbx)") P("fbld (%rbx)")
P("ldmxcsr (%rbx)") P("stmxcsr (%rbx)") P("movq (%rbx), %mm0; emms")
/* not canonical: #GP, by the stack #SS; and mapped pages with other upper bits */
P("mov (%r11), %rax") P("mov %rax, (%r11)") P("add %rax, (%r11)") P("lock xadd %rax, (%r11)")
P("mov %r11, %rsp; pop %rax") P("mov %r11, %rsp; push %rax") P("mov %r11, %rsp; call 1f; 1:")
P("mov %r11, %rsp; ret") P("mov %r11, %rbp; mov (%rbp), %rax") P("mov %r11, %rbp; leave")
P("mov %r11, %rbp; incl 4(%rbp,%r8)") P("mov %r11, %rdi; stosb") P("mov %r11, %rdi; rep stosq")
P("mov %r11, %rsi; lodsw") P("mov %r11, %rsi; rep movsb") P("mov %r11, %rdi; repne scasb")
P("movups (%r11), %xmm0") P("mov %r11, %rsp; mov (%rsp,%r8), %rax") P("fldl (%r11)")
P("movabs $0xabcd004000000000, %rdx; mov (%rdx), %rax") P("movabs $0x0001004000000000, %rdx; mov (%rdx), %rax")
P("movabs $0x8000004000000000, %rdx; mov %rax, (%rdx)") P("movabs $0x0000804000000000, %rdx; incl (%rdx)")
P("movabs $0xffff804000000000, %rdx; mov (%rdx), %rax") P("movabs $0xffff004000000000, %rdx; push (%rdx)")
P("movabs $0x0000404000000000, %rdx; mov (%rdx), %rax") P("movabs $0x0000004100000000, %rdx; mov (%rdx), %rax")
P("movabs $0x7fffffffffffffff, %rcx; mov 1(%rbx,%rcx), %rax") P("mov $-1, %rcx; mov (%rbx,%rcx,8), %rax")
/* what is not a matter of pages */
P("xor %ecx, %ecx; mov $1, %eax; div %cl") P("xor %ecx, %ecx; div %cx") P("xor %ecx, %ecx; idiv %ecx")
P("xor %ecx, %ecx; idiv %rcx") P("mov $0x1234, %eax; mov $2, %cl; div %cl")
P("mov $0x4000, %eax; mov $2, %cl; idiv %cl") P("mov $2, %dx; mov $2, %cx; div %cx")
P("mov $0x4000, %dx; mov $2, %cx; idiv %cx") P("mov $7, %edx; mov $7, %ecx; div %ecx")
P("mov $0x80000000, %eax; cltd; mov $-1, %ecx; idiv %ecx") P("mov $9, %edx; mov $9, %ecx; div %rcx")
P("mov $1, %eax; shl $63, %rax; cqto; mov $-1, %rcx; idiv %rcx") P("xor %edx, %edx; div %rcx")
P("movaps 1(%rsp), %xmm0") P("movdqa %xmm0, 8(%rsp)") P("paddd 4(%rsp), %xmm0") P("movntps %xmm0, 8(%rsp)")
P("mov %rsp, %rdi; cmpxchg16b 8(%rdi)") P("fxsave 8(%rsp)") P("movaps 8(%rbx), %xmm0")
P("movl $0, (%rsp); ldmxcsr (%rsp); xorps %xmm1, %xmm1; divss %xmm1, %xmm0")
P("movl $0x1f00, (%rsp); ldmxcsr (%rsp); pcmpeqd %xmm1, %xmm1; psrld $1, %xmm1; addps %xmm1, %xmm1")
P("movl $0x1d80, (%rsp); ldmxcsr (%rsp); mov $1, %eax; cvtsi2ss %eax, %xmm0; xorps %xmm1, %xmm1; divps %xmm1, %xmm0")
P("movl $0x0f80, (%rsp); ldmxcsr (%rsp); mov $0x1fffffff, %eax; cvtsi2ss %eax, %xmm0")
P("movl $0xffff1f80, (%rsp); ldmxcsr (%rsp)")
P("movw $0x340, (%rsp); fldcw (%rsp); fldz; fld1; fdiv %st(1), %st; nop; nop; fwait")
P("movw $0x340, (%rsp); fldcw (%rsp); fldz; fld1; fdiv %st(1), %st; fld1")
P("movw $0x37e, (%rsp); fldcw (%rsp); fld1; fsubr %st(3), %st; add %rax, %rax; fnop")
P("mov %cr0, %rax; or $8, %rax; mov %rax, %cr0; add %al, %al; addps %xmm0, %xmm0")
P("mov %cr0, %rax; or $8, %rax; mov %rax, %cr0; add %al, %al; fld1")
P("mov %cr0, %rax; or $10, %rax; mov %rax, %cr0; sub %al, %al; fwait")
P("mov %cr0, %rax; or $4, %rax; mov %rax, %cr0; add %al, %al; fld1")
P("mov %cr0, %rax; or $4, %rax; mov %rax, %cr0; add %al, %al; movups (%rsp), %xmm0")
P("ud2") P("int3") P("int $3") P("int $0x80") P("cli; sti; nop; cli") P("clts") P("rdpmc")
P("mov $0x12345678, %ecx; rdmsr") P("mov $0x1234, %eax; mov %eax, %ds") P("swapgs; swapgs")
P("pushf; orl $0x40000, (%rsp); popf; mov 1(%rsp), %eax") P("pushf; orl $0x200000, (%rsp); popf; push %rax")
P("xor %ecx, %ecx; xsetbv") P("in $0x80, %al") P("out %al, $0x80")
END(pieces_fault));

__asm__(BEGIN(pieces_plain)
P("add %rcx, %rax") P("mov %rax, -64(%rbx)") P("mov -64(%rbx), %rdx") P("lea 5(%rax,%rcx,2), %rdx")
P("push %rax; push %rcx; pop %rax; pop %rcx") P("adc $3, %ecx") P("bswap %rdx")
P("call 1f; jmp 2f; 1: inc %rax; ret; 2:") P("call 1f; 1: pop %rdx") P("call 1f; jmp 3f; 1: call 2f; ret; 2: dec %rcx; ret; 3:")
P("mov $9, %ecx; 1: add %rcx, %rax; dec %ecx; jnz 1b") P("mov $5, %ecx; 1: ror $3, %rax; loop 1b")
P("mov $4, %ecx; 1: incl -128(%rbx); mov -128(%rbx), %edx; sub $1, %ecx; ja 1b")
P("lea 1f(%rip), %rdx; jmp *%rdx; 1: xor %edx, %edx") P("lea 1f(%rip), %rdx; push %rdx; ret; ud2; 1: stc")
P("test $1, %al; jz 1f; add $3, %rax; jmp 2f; 1: sub $5, %rax; 2:") P("cmp %rcx, %rax; cmovb %rcx, %rax; seto %dl")
P("lea -256(%rbx), %rdi; mov $17, %ecx; rep stosb") P("lea -256(%rbx), %rsi; lea -500(%rbx), %rdi; mov $20, %ecx; rep movsq")
P("lea -700(%rbx), %rsi; lea -900(%rbx), %rdi; mov $20, %ecx; repe cmpsb") P("xchg %al, %ah") P("cwtl; cltq; cqto")
P("mov -4(%rbx), %rcx; add %rcx, -4(%rbx)") P("lock xadd %rax, -4(%rbx)") P("lock incl 8(%rbx)") P("xchg %rdx, 16(%rbx)")
P("cmpxchg %rcx, 24(%rbx)") P("lock cmpxchg8b 32(%rbx)") P("addps %xmm1, %xmm0") P("movups %xmm0, -8(%rbx)")
P("paddq -64(%rbx), %xmm2") P("movd %xmm2, %eax; pshufd $0x1b, %xmm2, %xmm3") P("fld1; fldpi; fmulp; fstpl -96(%rbx)")
P("cvtsi2sd %rax, %xmm4; mulsd %xmm4, %xmm4; cvttsd2si %xmm4, %rdx") P("pushf; pop %rcx") P("push $0x8d5; popf")
P("mov %cs, %edx; mov %ds, %eax") P("nop") P("mov %fs:8, %eax; mov %gs:64, %edx") P("enter $16, $0; leave; lea 8(%rbx), %rbp")
P("movzbl -3(%rbx), %eax; movsbl %al, %ecx") P("shld $7, %rax, %rdx; rcl $1, %rcx")

P("lahf; seto %al; add $127, %al; sahf") P("xor %eax, %eax; lock btsl $5, 40(%rbx); adc %eax, %eax")
P("std; lea -8(%rbx), %rdi; mov $3, %ecx; rep stosl; cld") P("jmp 1f; .byte 0x0f, 0x0b; 1:") P("pause; lfence; mfence")
END(pieces_plain));

struct piece_list pieces(enum piece_kind kind)
{
    extern const struct piece pieces_flags[], pieces_flags_end[], pieces_fault[],
        pieces_fault_end[], pieces_plain[], pieces_plain_end[];
    static const struct piece_list lists[N_PIECE_KINDS] = {
        [PIECES_FLAGS] = { pieces_flags, pieces_flags_end },
        [PIECES_FAULT] = { pieces_fault, pieces_fault_end },
        [PIECES_PLAIN] = { pieces_plain, pieces_plain_end },
    };
    return lists[kind];
}
