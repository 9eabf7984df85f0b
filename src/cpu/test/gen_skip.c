/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows that cannot be run natively, or whose results cannot be compared, and why. */
#include "cpu/insn.h"
#include "cpu/test/oracle.h"

#include <string.h>

static const struct {
    const char *mnemonic, *reason;
} skipped[] = {
    { "int3", "ends every case" },
    { "int", "the host's kernel answers INT n" },
    { "int1", "the host's kernel takes ICEBP for its own single step" },
    { "syscall", "enters the host's kernel" },
    { "sysenter", "enters the host's kernel" },
    { "sysret", "privileged far transfer" },
    { "sysexit", "privileged far transfer" },
    { "iret", "loads CS and SS" },
    { "cpuid", "the model's, not the host's" },
    { "rdtsc", "time" },
    { "rdtscp", "time" },
    { "rdpmc", "time" },
    { "rdrand", "random" },
    { "rdseed", "random" },
    { "rdpid", "the host kernel's value" },
    { "xgetbv", "the host kernel's value" },
    { "sgdt", "the host kernel's value, or emulated by it" },
    { "sidt", "the host kernel's value, or emulated by it" },
    { "sldt", "the host kernel's value, or emulated by it" },
    { "str", "the host kernel's value, or emulated by it" },
    { "smsw", "the host kernel's value, or emulated by it" },
    { "verr", "the host kernel's descriptors" },
    { "verw", "the host kernel's descriptors" },
    { "lar", "the host kernel's descriptors" },
    { "lsl", "the host kernel's descriptors" },
    { "wrfsbase", "the C library's thread pointer" },
    { "rdfsbase", "the C library's thread pointer" },
    { "wrgsbase", "fixed for the tests" },
    { "rdgsbase", "fixed for the tests" },
    { "monitor", "model-dependent" },
    { "mwait", "model-dependent" },
    { "monitorx", "model-dependent" },
    { "mwaitx", "model-dependent" },
    { "vmcall", "the host's hypervisor" },
    { "vmmcall", "the host's hypervisor" },
    { "lfs", "loads a segment register" },
    { "lgs", "loads a segment register" },
    { "lss", "loads a segment register" },
    { "les", "loads a segment register" },
    { "lds", "loads a segment register" },
    { "xsave", "hand-written tests" },
    { "xsavec", "hand-written tests" },
    { "xsaveopt", "hand-written tests" },
    { "xrstor", "hand-written tests" },
    { "in", "port permissions" },
    { "out", "port permissions" },
    { "insb", "port permissions" },
    { "ins", "port permissions" },
    { "outsb", "port permissions" },
    { "outs", "port permissions" },
    { "ud0", "length differs between vendors" },
    { "prefetch", "hint" },
    { "pushf", "shows bits that the host's kernel owns" },
};

const char *gen_skip_reason(unsigned n)
{
    const struct insn_row *row = &insn_rows[n];

    for (unsigned k = 0; k < ARRAY_COUNT(skipped); k++)
        if (!strcmp(row->mnemonic, skipped[k].mnemonic))
            return skipped[k].reason;
    for (unsigned k = 0; k < ARRAY_COUNT(row->operand); k++) {
        uint8_t o = row->operand[k];
        if (o == Ap || o == Mp)
            return "far transfer";
        if (o == Sw || (o >= sES && o <= sGS))
            return "segment registers";
        if (o == Cy || o == Dy)
            return "control and debug registers";
    }
    if (row->attr & A_PRIV)
        return "privileged";
    if (!strcmp(row->mnemonic, "retf"))
        return "far transfer";
    return NULL;
}
