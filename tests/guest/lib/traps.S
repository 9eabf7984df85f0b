/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Entry stubs of the 256 vectors, and the way out of a caught exception. */
    .text
    .code64
    .macro stub vector
    .align 16
    .if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17) || (\vector == 21)
    .else
    push $0
    .endif
    push $\vector
    jmp trap_common
    .endm

    .align 16
    .global trap_stubs
trap_stubs:
    .set v, 0
    .rept 256
    .altmacro
    stub %v
    .noaltmacro
    .set v, v + 1
    .endr

trap_common:
    push %rax
    push %rbx
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %rbp
    push %r8
    push %r9
    push %r10
    push %r11
    push %r12
    push %r13
    push %r14
    push %r15
    cld
    mov %rsp, %rdi
    mov %rsp, %rbp
    and $-16, %rsp
    call trap_dispatch
    mov %rbp, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rbp
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rbx
    pop %rax
    add $16, %rsp
    iretq

/* int catch_call(fn, arg, uint64_t *ret_rsp): 0 when fn returned, 1 when a trap came back by catch_resume. */
    .global catch_call, catch_resume
catch_call:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    sub $8, %rsp
    mov %rsp, (%rdx)
    mov %rdi, %rax
    mov %rsi, %rdi
    call *%rax
    xor %eax, %eax
    jmp 1f
catch_resume:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov $1, %eax
1:  add $8, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

/* void user_enter(const struct user_start *): RIP, CS, flags, RSP, SS, RDI. */
    .global user_enter, user_return
user_enter:
    push 32(%rdi)
    push 24(%rdi)
    push 16(%rdi)
    push 8(%rdi)
    push (%rdi)
    mov 40(%rdi), %rdi
    mov $0x23, %eax
    mov %eax, %ds
    mov %eax, %es
    iretq
user_return:
    hlt                           /* #GP here means: done */
