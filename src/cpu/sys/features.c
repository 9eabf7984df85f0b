/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The CPUID features that we know: where each stands, which model has it, what implements it.
 *
 * Spec      Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
 * Thread    Constant after the first use.
 *
 * A feature works when some row of the opcode table asks for it (insn), or when sys/ and mmu/
 * implement it (FEATURE_SYSTEM); and the host must have it too where its unit executes the
 * instructions.
 */
#include "cpu/sys/model.h"

#include <cpuid.h>
#include <strings.h>

#define B IN_BASE
#define Q IN_QEMU64
#define SYS FEATURE_SYSTEM
#define NEVER FEATURE_NEVER
#define HOST FEATURE_HOST

const struct feature_row model_features[] = {
    { "fpu", W_1_EDX, 0, B | Q, SYS },          { "vme", W_1_EDX, 1, 0, NEVER },
    { "de", W_1_EDX, 2, B | Q, SYS },           { "pse", W_1_EDX, 3, B | Q, SYS },
    { "tsc", W_1_EDX, 4, B | Q, SYS },          { "msr", W_1_EDX, 5, B | Q, SYS },
    { "pae", W_1_EDX, 6, B | Q, SYS },          { "mce", W_1_EDX, 7, B | Q, SYS },
    { "cx8", W_1_EDX, 8, B | Q, SYS },          { "apic", W_1_EDX, 9, B | Q, SYS },
    { "sep", W_1_EDX, 11, B | Q, SYS },         { "mtrr", W_1_EDX, 12, B | Q, SYS },
    { "pge", W_1_EDX, 13, B | Q, SYS },         { "mca", W_1_EDX, 14, B | Q, SYS },
    { "cmov", W_1_EDX, 15, B | Q, SYS },        { "pat", W_1_EDX, 16, B | Q, SYS },
    { "pse36", W_1_EDX, 17, B | Q, SYS },       { "clflush", W_1_EDX, 19, B | Q, SYS },
    { "mmx", W_1_EDX, 23, B | Q, SYS },         { "fxsr", W_1_EDX, 24, B | Q, SYS },
    { "sse", W_1_EDX, 25, B | Q, SYS },         { "sse2", W_1_EDX, 26, B | Q, SYS },
    { "ss", W_1_EDX, 27, 0, NEVER },            { "ht", W_1_EDX, 28, 0, NEVER },
    { "pn", W_1_EDX, 18, 0, NEVER },            { "ds", W_1_EDX, 21, 0, NEVER },
    { "acpi", W_1_EDX, 22, 0, NEVER },          { "tm", W_1_EDX, 29, 0, NEVER },
    { "ia64", W_1_EDX, 30, 0, NEVER },          { "pbe", W_1_EDX, 31, 0, NEVER },

    { "sse3", W_1_ECX, 0, Q, F_SSE3 },          { "pclmulqdq", W_1_ECX, 1, 0, F_PCLMUL },
    { "dtes64", W_1_ECX, 2, 0, NEVER },         { "monitor", W_1_ECX, 3, IN_OPTION, F_MONITOR },
    { "ds-cpl", W_1_ECX, 4, 0, NEVER },         { "vmx", W_1_ECX, 5, 0, NEVER },
    { "smx", W_1_ECX, 6, 0, NEVER },            { "est", W_1_ECX, 7, 0, NEVER },
    { "tm2", W_1_ECX, 8, 0, NEVER },            { "ssse3", W_1_ECX, 9, 0, F_SSSE3 },
    { "cid", W_1_ECX, 10, 0, NEVER },           { "fma", W_1_ECX, 12, 0, F_FMA },
    { "cx16", W_1_ECX, 13, Q, F_CX16 },         { "xtpr", W_1_ECX, 14, 0, NEVER },
    { "pdcm", W_1_ECX, 15, 0, NEVER },          { "pcid", W_1_ECX, 17, 0, SYS },
    { "dca", W_1_ECX, 18, 0, NEVER },           { "sse4.1", W_1_ECX, 19, 0, F_SSE41 },
    { "sse4.2", W_1_ECX, 20, 0, F_SSE42 },      { "x2apic", W_1_ECX, 21, B | Q, SYS },
    { "movbe", W_1_ECX, 22, 0, F_MOVBE },       { "popcnt", W_1_ECX, 23, 0, F_POPCNT },
    { "tsc-deadline", W_1_ECX, 24, B | Q, SYS }, { "aes", W_1_ECX, 25, 0, F_AES },
    { "xsave", W_1_ECX, 26, 0, F_XSAVE },       { "avx", W_1_ECX, 28, 0, F_AVX },
    { "f16c", W_1_ECX, 29, 0, F_F16C },         { "rdrand", W_1_ECX, 30, 0, F_RDRAND },
    { "hypervisor", W_1_ECX, 31, B | Q, SYS },

    { "arat", W_6_EAX, 2, B | Q, SYS },

    { "fsgsbase", W_7_EBX, 0, 0, F_FSGSBASE },  { "tsc-adjust", W_7_EBX, 1, B | Q, SYS },
    { "sgx", W_7_EBX, 2, 0, NEVER },            { "bmi1", W_7_EBX, 3, 0, F_BMI1 },
    { "hle", W_7_EBX, 4, 0, NEVER },            { "avx2", W_7_EBX, 5, 0, F_AVX2 },
    { "smep", W_7_EBX, 7, 0, SYS },             { "bmi2", W_7_EBX, 8, 0, F_BMI2 },
    { "erms", W_7_EBX, 9, 0, SYS },             { "invpcid", W_7_EBX, 10, 0, F_INVPCID },
    { "rtm", W_7_EBX, 11, 0, NEVER },           { "mpx", W_7_EBX, 14, 0, NEVER },
    { "avx512f", W_7_EBX, 16, 0, NEVER },       { "avx512dq", W_7_EBX, 17, 0, NEVER },
    { "rdseed", W_7_EBX, 18, 0, F_RDSEED },     { "adx", W_7_EBX, 19, 0, F_ADX },
    { "smap", W_7_EBX, 20, 0, F_SMAP },         { "avx512ifma", W_7_EBX, 21, 0, NEVER },
    { "clflushopt", W_7_EBX, 23, 0, F_CLFLUSHOPT }, { "clwb", W_7_EBX, 24, 0, F_CLWB },
    { "intel-pt", W_7_EBX, 25, 0, NEVER },      { "avx512pf", W_7_EBX, 26, 0, NEVER },
    { "avx512er", W_7_EBX, 27, 0, NEVER },      { "avx512cd", W_7_EBX, 28, 0, NEVER },
    { "sha-ni", W_7_EBX, 29, 0, F_SHA },        { "avx512bw", W_7_EBX, 30, 0, NEVER },
    { "avx512vl", W_7_EBX, 31, 0, NEVER },

    { "avx512vbmi", W_7_ECX, 1, 0, NEVER },     { "umip", W_7_ECX, 2, 0, SYS },
    { "pku", W_7_ECX, 3, 0, NEVER },            { "waitpkg", W_7_ECX, 5, 0, NEVER },
    { "gfni", W_7_ECX, 8, 0, F_GFNI },          { "vaes", W_7_ECX, 9, 0, F_VAES },
    { "vpclmulqdq", W_7_ECX, 10, 0, F_VPCLMUL }, { "la57", W_7_ECX, 16, 0, NEVER },
    { "rdpid", W_7_ECX, 22, 0, F_RDPID },       { "cldemote", W_7_ECX, 25, 0, NEVER },
    { "movdiri", W_7_ECX, 27, 0, NEVER },       { "movdir64b", W_7_ECX, 28, 0, NEVER },

    { "fsrm", W_7_EDX, 4, 0, SYS },             { "md-clear", W_7_EDX, 10, 0, NEVER },
    { "serialize", W_7_EDX, 14, 0, F_SERIALIZE }, { "spec-ctrl", W_7_EDX, 26, B | Q, SYS },
    { "stibp", W_7_EDX, 27, 0, SYS },           { "arch-capabilities", W_7_EDX, 29, B | Q, SYS },
    { "core-capability", W_7_EDX, 30, 0, NEVER }, { "ssbd", W_7_EDX, 31, 0, NEVER },

    { "xsaveopt", W_D1_EAX, 0, 0, F_XSAVEOPT }, { "xsavec", W_D1_EAX, 1, 0, F_XSAVEC },
    { "xgetbv1", W_D1_EAX, 2, 0, F_XSAVE },     { "xsaves", W_D1_EAX, 3, 0, F_XSAVES },

    { "syscall", W_81_EDX, 11, B | Q, SYS },    { "nx", W_81_EDX, 20, B | Q, SYS },
    { "mmxext", W_81_EDX, 22, 0, HOST },        { "fxsr-opt", W_81_EDX, 25, 0, NEVER },
    { "pdpe1gb", W_81_EDX, 26, 0, SYS },        { "rdtscp", W_81_EDX, 27, 0, F_RDTSCP },
    { "lm", W_81_EDX, 29, B | Q, SYS },         { "3dnowext", W_81_EDX, 30, 0, NEVER },
    { "3dnow", W_81_EDX, 31, 0, NEVER },

    { "lahf-lm", W_81_ECX, 0, Q, F_LAHF64 },    { "cmp-legacy", W_81_ECX, 1, 0, NEVER },
    { "svm", W_81_ECX, 2, 0, NEVER },           { "extapic", W_81_ECX, 3, 0, NEVER },
    { "cr8legacy", W_81_ECX, 4, 0, NEVER },     { "abm", W_81_ECX, 5, 0, F_LZCNT },
    { "sse4a", W_81_ECX, 6, 0, F_SSE4A },       { "misalignsse", W_81_ECX, 7, 0, NEVER },
    { "3dnowprefetch", W_81_ECX, 8, 0, SYS }, { "osvw", W_81_ECX, 9, 0, NEVER },
    { "ibs", W_81_ECX, 10, 0, NEVER },          { "xop", W_81_ECX, 11, 0, NEVER },
    { "skinit", W_81_ECX, 12, 0, NEVER },       { "wdt", W_81_ECX, 13, 0, NEVER },
    { "fma4", W_81_ECX, 16, 0, NEVER },         { "tbm", W_81_ECX, 21, 0, NEVER },
    { "topoext", W_81_ECX, 22, 0, NEVER },      { "perfctr-core", W_81_ECX, 23, 0, NEVER },

    { "invtsc", W_87_EDX, 8, B | Q, SYS },

    { "clzero", W_88_EBX, 0, 0, F_CLZERO },     { "xsaveerptr", W_88_EBX, 2, 0, NEVER },
    { "wbnoinvd", W_88_EBX, 9, 0, F_WBNOINVD }, { "ibpb", W_88_EBX, 12, 0, SYS },
    { "ibrs", W_88_EBX, 14, 0, NEVER },         { "amd-stibp", W_88_EBX, 15, 0, NEVER },
    { "amd-ssbd", W_88_EBX, 24, 0, NEVER },     { "virt-ssbd", W_88_EBX, 25, 0, NEVER },
    { "amd-no-ssb", W_88_EBX, 26, 0, SYS },

    { "lfence-always-serializing", W_821_EAX, 2, 0, SYS },
    { "null-sel-clr-base", W_821_EAX, 6, 0, SYS },
    { "srso-no", W_821_EAX, 29, 0, SYS },
};
const unsigned model_feature_count = ARRAY_COUNT(model_features);

/* Other names that QEMU and people use. */
static const char *const aliases[][2] = {
    { "pni", "sse3" },          { "sse4-1", "sse4.1" },     { "sse4-2", "sse4.2" },
    { "pclmuldq", "pclmulqdq" }, { "tsc-deadline-timer", "tsc-deadline" },
    { "xd", "nx" },             { "i64", "lm" },            { "lzcnt", "abm" },
    { "sha", "sha-ni" },        { "ffxsr", "fxsr-opt" },    
};

static bool name_is(const char *name, size_t len, const char *known)
{
    size_t i = 0;
    for (; i < len && known[i]; i++) {
        char ch = name[i] == '_' ? '-' : name[i];
        if (ch != known[i])
            return false;
    }
    return i == len && !known[i];
}

const struct feature_row *model_feature_find(const char *name, size_t len)
{
    for (unsigned i = 0; i < ARRAY_COUNT(aliases); i++) {
        if (name_is(name, len, aliases[i][0])) {
            name = aliases[i][1];
            len = strlen(name);
            break;
        }
    }
    for (unsigned i = 0; i < model_feature_count; i++)
        if (name_is(name, len, model_features[i].name))
            return &model_features[i];
    return NULL;
}

/* Features that opcode rows ask for: those the interpreter has. CMPXCHG16B, LZCNT and LAHF share
 * their rows with what exists without them; their handlers look. */
static uint64_t implemented_rows(void)
{
    uint64_t bits = 1ull << F_CX16 | 1ull << F_LZCNT | 1ull << F_LAHF64;
    for (unsigned i = 0; i < insn_row_count; i++)
        bits |= 1ull << (insn_rows[i].attr >> 24);
    return bits;
}

static void host_words(uint32_t w[N_FEATURE_WORDS])
{
    uint32_t a, b, c, d;
    memset(w, 0, N_FEATURE_WORDS * sizeof(*w));
    if (__get_cpuid(1, &a, &b, &c, &d))
        w[W_1_EDX] = d, w[W_1_ECX] = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d))
        w[W_7_EBX] = b, w[W_7_ECX] = c, w[W_7_EDX] = d;
    if (__get_cpuid_count(0xd, 1, &a, &b, &c, &d))
        w[W_D1_EAX] = a;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d))
        w[W_81_EDX] = d, w[W_81_ECX] = c;
    if (__get_cpuid(0x80000008, &a, &b, &c, &d))
        w[W_88_EBX] = b;
}

/* PREFETCHW, FSGSBASE and their like are emulated, yet `max` promises no more than the host for
 * them. */
static bool works(const struct feature_row *f, const uint32_t *host, uint64_t rows)
{
    if (f->insn == SYS)
        return true;
    if (f->insn == NEVER)
        return false;
    bool on_host = host[f->word] >> f->bit & 1;
    return on_host && (f->insn == HOST || rows >> f->insn & 1);
}

void model_feature_words(uint32_t words[N_FEATURE_WORDS], unsigned model_bit)
{
    uint32_t host[N_FEATURE_WORDS];
    uint64_t rows = implemented_rows();
    host_words(host);
    memset(words, 0, N_FEATURE_WORDS * sizeof(*words));
    for (unsigned i = 0; i < model_feature_count; i++) {
        const struct feature_row *f = &model_features[i];
        bool in = model_bit == ~0u || (model_bit ? f->models & model_bit : !(f->models & IN_OPTION));
        if (in && works(f, host, rows))
            words[f->word] |= 1u << f->bit;
    }
}
