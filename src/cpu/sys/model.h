/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CPU models: which features the guest sees, and so which instructions exist.
 *
 * Owner     cpu_model_parse() to cpu_model_free(); constant in between.
 */
#pragma once

#include "cpu/shared.h"

/* Feature words, each one register of a CPUID leaf. */
enum feature_word {
    W_1_EDX, W_1_ECX, W_6_EAX, W_7_EBX, W_7_ECX, W_7_EDX, W_D1_EAX, W_81_EDX, W_81_ECX, W_87_EDX,
    W_88_EBX, W_821_EAX, N_FEATURE_WORDS
};

struct cpu_model {
    const char *name;
    bool amd, hypervisor_leaves;
    char vendor[13], model_id[49];
    uint32_t family, model, stepping;
    uint32_t words[N_FEATURE_WORDS];
    uint32_t level, xlevel;   /* highest basic and extended leaf */
    unsigned phys_bits;
    uint64_t tsc_khz;
};

struct feature_row {
    const char *name;    /* QEMU's, with '-' for '_' */
    uint8_t word, bit;
    uint8_t models;      /* IN_BASE | IN_QEMU64; every one that works is in max */
    uint8_t insn;        /* enum insn_feature that rows of the opcode table name, or one below */
};
#define IN_BASE 1u
#define IN_QEMU64 2u
#define IN_OPTION 4u        /* in no model unless asked for */
#define FEATURE_SYSTEM 0xff /* of sys/ and mmu/: always there */
#define FEATURE_NEVER 0xfe  /* known by name, not implemented */
#define FEATURE_HOST 0xfd   /* implemented in the rows of other features; the host must have it */
extern const struct feature_row model_features[];
extern const unsigned model_feature_count;

/* The words that model `bit` (0: max; ~0: all that can be asked for) has, as far as this build and
 * this host can. */
void model_feature_words(uint32_t words[N_FEATURE_WORDS], unsigned model_bit);
/* Row by name ('_' is '-'), or NULL. */
const struct feature_row *model_feature_find(const char *name, size_t len);

/* Fills the parts of cpu_shared that follow from the model. */
void model_describe(const struct cpu_model *m, struct cpu_shared *s);
/* CPUID leaf 1 EAX. */
uint32_t model_signature(const struct cpu_model *m);
bool model_has(const struct cpu_model *m, enum feature_word word, unsigned bit);

uint64_t tsc_host_khz(void); /* measured once */
