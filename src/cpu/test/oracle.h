/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's CPU as the oracle: the same instruction from the same state, natively and on our processor.
 *
 * A case is some code, registers and a seed for memory. Both sides lay the same pages at the same linear
 * addresses, run the code at CPL 3 until an exception (INT3 fills the code pages, so that is how every
 * run ends) and report the exception with all registers as they were then.
 *
 * Thread    One: the native side owns signals and fixed addresses.
 */
#pragma once

#include "base/util.h"

/* Linear layout, below 4 GiB for 32-bit code. What lies between is not mapped. */
#define T_CODE 0x10000000u /* two pages, all rights, full of INT3 */
#define T_DATA 0x20000000u /* two pages, read and write */
#define T_RO 0x20003000u   /* one page, read only */
#define T_LOW 0x8000u      /* two pages, read and write: for 16-bit addresses */
#define T_PAGE 4096u
#define T_GS_BASE (T_DATA + 0x800u)

#define T_CODE_MAX 256
#define T_XSAVE 832

struct regs {
    uint64_t gpr[16], rip, rflags;
    uint8_t xsave[T_XSAVE] __attribute__((aligned(64)));
};

struct test_case {
    bool mode32;
    uint8_t code[T_CODE_MAX]; /* at in.rip */
    unsigned code_len;
    uint64_t mem_seed;
    struct regs in;
    unsigned row; /* of the first instruction, for reports */
    uint32_t undefined; /* flags that some instruction leaves undefined, where the run may end anywhere */
};

#define VECTOR_NONE (-1)    /* ours: it did not end as it should */
#define VECTOR_ENDLESS (-2) /* natively: it went in circles */

struct outcome {
    int vector;     /* that ended the run, or VECTOR_* */
    uint32_t error; /* its error code, 0 if none */
    uint64_t cr2;   /* of a page fault */
    struct regs out;
};

/* Test memory: writable pages in this order, then the read-only one. */
enum { MEM_DATA = 0, MEM_LOW = 2 * T_PAGE, MEM_RO = 4 * T_PAGE, MEM_BYTES = 5 * T_PAGE };

struct rng {
    uint64_t s;
};
uint64_t rng_next(struct rng *r);
static inline unsigned rng_below(struct rng *r, unsigned n)
{
    return (unsigned)((rng_next(r) >> 32) * n >> 32);
}
static inline bool rng_one_in(struct rng *r, unsigned n)
{
    return rng_below(r, n) == 0;
}
/* Random with a taste for the values where instructions go wrong. */
uint64_t rng_value(struct rng *r);
void rng_vector(struct rng *r, uint8_t *bytes, unsigned size);
/* Contents of the test memory for a seed. */
void memory_fill(uint64_t seed, uint8_t mem[MEM_BYTES]);

/* Natively. False: this host cannot (no access to the addresses): say so and skip. */
bool native_init(void);
void native_run(const struct test_case *t, struct outcome *ret, uint8_t mem[MEM_BYTES]);

/* On our processor: interpreted block by block, by cpu_step(), or translated. */
enum soft_how { SOFT_BLOCKS, SOFT_STEP, SOFT_TRANSLATE, N_SOFT_HOW };
bool soft_init(char **ret_error);
void soft_run(const struct test_case *t, enum soft_how how, struct outcome *ret, uint8_t mem[MEM_BYTES]);
void soft_done(void);

/* Makes a random case of a row. False: this draw gave none (another row owns the encoding). */
bool gen_case(struct rng *r, unsigned row, struct test_case *ret);
/* Several rows in sequence. */
bool gen_block(struct rng *r, struct test_case *ret);
/* Integer instructions that feed each other, with jumps and a loop. */
bool gen_program(struct rng *r, struct test_case *ret);
/* SSE, AVX, MMX and x87 instructions near each other in memory. */
bool gen_vector(struct rng *r, struct test_case *ret);
/* Registers of all kinds. */
void gen_random_state(struct rng *r, struct test_case *t);
/* A flag-setting instruction and a conditional jump. */
bool gen_branch(struct rng *r, struct test_case *ret);
/* Saves and restores by the XSAVE family; registers of `ret` are set already, gen_block() does. */
void gen_xsave(struct rng *r, struct test_case *ret);
/* Why a row is not run natively; NULL: it is. */
const char *gen_skip_reason(unsigned row);

/* Flags that the case's instructions leave undefined at its end. */
uint32_t case_undefined_flags(const struct test_case *t);
/* Runs natively and `how`; true when they agree, otherwise a report is in `text`. */
bool case_agrees(const struct test_case *t, enum soft_how how, char *text, size_t size);
/* Makes a disagreeing case smaller. */
void case_minimise(struct test_case *t, enum soft_how how);
/* Cases as text files. */
bool case_write(const struct test_case *t, const char *path);
bool case_read(struct test_case *ret, const char *path);
