/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AML, written as it is nested: every builder appends to one byte array; blocks are opened and closed.
 *
 * Spec      ACPI 6.4, chapter 20 (AML) and section 6.4 (resource descriptors).
 * Owner     struct aml owns its bytes from aml_init() until aml_take().
 * Names     Paths are as in ASL: "_CRS", "\\_SB.PCI0", "^LNKA"; short segments are padded with '_' here.
 */
#pragma once

#include "base/util.h"

#include <glib.h>

#define AML_MAX_DEPTH 16 /* deepest nesting of blocks */

struct aml {
    GByteArray *out;
    guint open[AML_MAX_DEPTH]; /* where the package lengths of the open blocks go */
    unsigned depth;
};

void aml_init(struct aml *a);
GByteArray *aml_take(struct aml *a); /* the caller unrefs */

/* Blocks: each is closed by aml_end(). */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args);
void aml_package(struct aml *a, unsigned elements);
void aml_if(struct aml *a); /* the condition follows */
/* Name (name, ResourceTemplate () {...}). */
void aml_resources(struct aml *a, const char *name);
/* Field (region, access, NoLock, Preserve): units follow. access: 1 byte, 2 word, 3 dword. */
void aml_field(struct aml *a, const char *region, unsigned access);
void aml_end(struct aml *a);

/* Terms. */
void aml_name(struct aml *a, const char *name); /* Name (name, the next term) */
void aml_path(struct aml *a, const char *path); /* a reference, or a call */
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *text);
void aml_buffer(struct aml *a, const void *data, size_t len);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0A08" */
void aml_op(struct aml *a, uint8_t op);          /* a bare opcode: AML_* */
void aml_arg(struct aml *a, unsigned n);
void aml_local(struct aml *a, unsigned n);
void aml_region(struct aml *a, const char *name, unsigned space, uint64_t off, uint64_t len);
void aml_field_unit(struct aml *a, const char *name, unsigned bits); /* up to 63; NULL: unused bits */
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_string(struct aml *a, const char *name, const char *text);
void aml_name_eisa(struct aml *a, const char *name, const char *id);

#define AML_NULL 0x00 /* no target */
#define AML_STORE 0x70
#define AML_AND 0x7b
#define AML_OR 0x7d
#define AML_NOTIFY 0x86
#define AML_DWORD_FIELD 0x8a /* CreateDWordField */
#define AML_EQUAL 0x93
#define AML_RETURN 0xa4
#define AML_SPACE_MEMORY 0
#define AML_SPACE_IO 1

/* Resource descriptors, inside aml_resources(). */
void aml_res_irq(struct aml *a, uint8_t irq); /* ISA: edge, active high, exclusive */
void aml_res_gsi(struct aml *a, uint32_t gsi, bool level, bool shared);
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
void aml_res_memory(struct aml *a, uint32_t base, uint32_t len);
/* Windows of a host bridge; `end` is exclusive, `last` is not. */
void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint32_t base, uint32_t end);
void aml_res_mem_window(struct aml *a, uint32_t base, uint64_t end);
void aml_res_mem64_window(struct aml *a, uint64_t base, uint64_t end);
