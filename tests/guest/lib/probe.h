/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Programs made of pieces of machine code, run at full speed and one instruction at a time: both
 * must come to the same end, whatever engine executes them. Freestanding, for 64-bit payloads.
 *
 * A window of linear addresses that nothing else uses holds what the programs touch:
 *
 *     DATA_AT            two pages of data, the first with the stack
 *     HOLE               nothing, or (probe_map_hole()) a third page of data
 *     HOLE + PAGE        a page that may only be read
 *     CODE_AT            two pages of code, nothing before and behind
 *     CODE2_AT           the same pages again
 *     HOLE32             nothing, below 4 GiB
 *
 * Exceptions come in on a stack of their own, so that RSP may point anywhere.
 */
#pragma once

#include "guest.h"

#define DATA_AT 0x4000000000ul
#define HOLE (DATA_AT + 2 * PAGE)
#define CODE_AT 0x4040000000ul
#define CODE_END (CODE_AT + 2 * PAGE)
#define CODE2_AT 0x6123456000ul
#define HOLE32 0xd0000000ul
#define FLAGS_ARITH 0x8d5ul

/* Where a program ended: by which vector, with which registers and memory. */
struct outcome {
    int vector;
    struct frame frame; /* TF and RF are taken out of its flags */
    uint64_t cr2, data, fpu;
    uint64_t steps; /* of a stepped run */
};

extern uint8_t *probe_data; /* what DATA_AT and the hole show, by its identity address */
extern uint8_t *probe_code; /* what CODE_AT shows */

void probe_init(void);
/* The registers that pieces count on; at CPL 0 or 3. */
struct frame probe_start(uint64_t rip, unsigned cpl);
void probe_map_hole(bool on);
bool probe_hole_is_mapped(void);
/* Runs until a trap that has no handler. Memory, MXCSR and vector registers begin as probe_init()
 * made them. */
void probe_run(const struct frame *start, struct outcome *ret);
/* The same under TF; on_step, if any, sees each trap's frame. */
void probe_step(const struct frame *start, void (*on_step)(const struct frame *f),
                struct outcome *ret);
/* Called before each run, once memory is as it begins. */
extern void (*probe_prepare)(void);
/* NULL, or what differs first: then *ret_a and *ret_b are its values. */
const char *probe_differ(const struct outcome *a, const struct outcome *b, uint64_t *ret_a,
                         uint64_t *ret_b);
/* The frame's registers, RIP and flags, as one number. */
uint64_t probe_hash(const struct frame *f);
uint64_t hash_bytes(const void *p, size_t bytes);
/* xorshift64* */
uint64_t next_random(uint64_t *state);

/* --- pieces.c: position-independent code with its text --- */

struct piece {
    const uint8_t *code;
    uint64_t len;
    const char *text;
};
struct piece_list {
    const struct piece *at, *end;
};
enum piece_kind {
    PIECES_FLAGS, /* set flags, from registers alone */
    PIECES_FAULT, /* may fault, at most at one instruction */
    PIECES_PLAIN, /* do not fault when the hole is mapped; leave RSP, RBX, RBP, R8 to R15 alone */
    N_PIECE_KINDS
};
struct piece_list pieces(enum piece_kind kind);

/* Lists of pieces in files' own assembly: __asm__(PIECES_BEGIN(x) PIECE("nop") PIECES_END(x)) makes
 * an array x of struct piece that ends at x_end. */
#define PIECES_BEGIN(name) ".pushsection .data\n.balign 8\n.global " #name "\n" #name ":\n"
#define PIECES_END(name) ".global " #name "_end\n" #name "_end: .popsection\n"
#define PIECE(text)                                                                                \
    ".pushsection .data.code\n11: " text "\n12:\n.popsection\n.quad 11b, 12b - 11b, 13f\n"         \
    ".pushsection .data.names\n13: .asciz \"" text "\"\n.popsection\n"

/* A program in the making. */
struct program {
    uint8_t *at, *next; /* identity addresses */
    unsigned count;
    const struct piece *parts[64];
};
void program_add(struct program *p, const struct piece *piece);
void program_byte(struct program *p, uint8_t byte);
void program_say(const struct program *p);
