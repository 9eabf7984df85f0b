/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's memory as an ELF core, for crash and gdb.
 *
 * Spec      ELF-64; a PT_NOTE with NT_PRSTATUS and QEMU's own note for each vCPU; a PT_LOAD for each part of RAM, by
 *           guest-physical address.
 * Thread    The main thread; with `detach` a thread of its own writes. The machine stands meanwhile.
 */
#pragma once

#include "vmm/migrate_stream.h"
#include "vmm/build.h"

struct dump_part {
    uint64_t gpa, size_bytes;
    uint64_t offset;            /* in m->ram */
};
#define DUMP_PARTS 2

/* What stands before the memory: headers and notes. The machine does not run. NULL with *error. */
GByteArray *dump_head(struct machine *m, const struct dump_part *parts, unsigned count, GError **error);

/* Begin; ends by itself (detach), or is done when it returns. size 0: all of RAM. */
bool dump_start(struct vmm *v, const char *protocol, uint64_t begin_gpa, uint64_t size_bytes, bool detach, GError **error);
/* "none", "active", "completed" or "failed". */
const char *dump_progress(struct vmm *v, uint64_t *ret_done, uint64_t *ret_total);
void dump_done(struct vmm *v);
