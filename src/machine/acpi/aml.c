/* SPDX-License-Identifier: GPL-2.0-or-later */
/* AML encoding. Package lengths always take four bytes: they are written when a block is closed, and no block comes near
 * the largest length (256 MiB). */
#include "machine/acpi/aml.h"

#include <string.h>

#define OP_ZERO 0x00
#define OP_ONE 0x01
#define OP_NAME 0x08
#define OP_BYTE 0x0a
#define OP_WORD 0x0b
#define OP_DWORD 0x0c
#define OP_STRING 0x0d
#define OP_QWORD 0x0e
#define OP_SCOPE 0x10
#define OP_BUFFER 0x11
#define OP_PACKAGE 0x12
#define OP_METHOD 0x14
#define OP_DUAL 0x2e
#define OP_MULTI 0x2f
#define OP_EXT 0x5b
#define OP_LOCAL0 0x60
#define OP_ARG0 0x68
#define OP_IF 0xa0
#define EXT_REGION 0x80
#define EXT_FIELD 0x81
#define EXT_DEVICE 0x82

static void put(struct aml *a, const void *data, size_t len)
{
    g_byte_array_append(a->out, data, (guint)len);
}

static void put8(struct aml *a, uint8_t v)
{
    put(a, &v, 1);
}

static void put16(struct aml *a, uint16_t v)
{
    put(a, &v, 2);
}

static void put32(struct aml *a, uint32_t v)
{
    put(a, &v, 4);
}

static void put64(struct aml *a, uint64_t v)
{
    put(a, &v, 8);
}

void aml_init(struct aml *a)
{
    *a = (struct aml){ .out = g_byte_array_new() };
}

GByteArray *aml_take(struct aml *a)
{
    g_assert(!a->depth);
    GByteArray *out = a->out;
    a->out = NULL;
    return out;
}

/* --- blocks --- */

#define LENGTH_BYTES 4
/* In aml.open[]: the block is a resource buffer, whose size stands as a dword before its bytes. */
#define IS_RESOURCES 0x80000000u

static void open_block(struct aml *a, guint mark)
{
    g_assert(a->depth < AML_MAX_DEPTH);
    a->open[a->depth++] = a->out->len | mark;
    put32(a, 0);
}

static void close_resources(struct aml *a, guint at)
{
    static const uint8_t end_tag[2] = { 0x79, 0 };
    guint size_at = at + LENGTH_BYTES + 1;
    put(a, end_tag, sizeof(end_tag));
    uint32_t size = a->out->len - (size_at + 4);
    memcpy(a->out->data + size_at, &size, 4);
}

/* Two bits say that three bytes follow; then 4 + 24 bits of a length that counts itself. */
static void write_length(uint8_t *to, uint32_t len)
{
    to[0] = (uint8_t)(0xc0 | (len & 0xf));
    to[1] = (uint8_t)(len >> 4);
    to[2] = (uint8_t)(len >> 12);
    to[3] = (uint8_t)(len >> 20);
}

void aml_end(struct aml *a)
{
    g_assert(a->depth);
    guint at = a->open[--a->depth] & ~IS_RESOURCES;
    if (a->open[a->depth] & IS_RESOURCES)
        close_resources(a, at);
    write_length(a->out->data + at, a->out->len - at);
}

void aml_scope(struct aml *a, const char *path)
{
    put8(a, OP_SCOPE);
    open_block(a, 0);
    aml_path(a, path);
}

void aml_device(struct aml *a, const char *name)
{
    put8(a, OP_EXT);
    put8(a, EXT_DEVICE);
    open_block(a, 0);
    aml_path(a, name);
}

void aml_method(struct aml *a, const char *name, unsigned args)
{
    put8(a, OP_METHOD);
    open_block(a, 0);
    aml_path(a, name);
    put8(a, (uint8_t)args);
}

void aml_package(struct aml *a, unsigned elements)
{
    put8(a, OP_PACKAGE);
    open_block(a, 0);
    put8(a, (uint8_t)elements);
}

void aml_if(struct aml *a)
{
    put8(a, OP_IF);
    open_block(a, 0);
}

void aml_resources(struct aml *a, const char *name)
{
    aml_name(a, name);
    put8(a, OP_BUFFER);
    open_block(a, IS_RESOURCES);
    put8(a, OP_DWORD);
    put32(a, 0);
}

void aml_field(struct aml *a, const char *region, unsigned access)
{
    put8(a, OP_EXT);
    put8(a, EXT_FIELD);
    open_block(a, 0);
    aml_path(a, region);
    put8(a, (uint8_t)access);
}

/* --- terms --- */

static void put_segment(struct aml *a, const char *text, size_t len)
{
    char seg[4] = { '_', '_', '_', '_' };
    memcpy(seg, text, len < 4 ? len : 4);
    put(a, seg, 4);
}

void aml_path(struct aml *a, const char *path)
{
    while (*path == '\\' || *path == '^')
        put8(a, (uint8_t)*path++);
    if (!*path) {
        put8(a, 0);
        return;
    }
    unsigned count = 1;
    for (const char *p = path; *p; p++)
        count += *p == '.';
    if (count == 2) {
        put8(a, OP_DUAL);
    } else if (count > 2) {
        put8(a, OP_MULTI);
        put8(a, (uint8_t)count);
    }
    for (; count; count--) {
        size_t len = strcspn(path, ".");
        put_segment(a, path, len);
        path += len + 1;
    }
}

void aml_name(struct aml *a, const char *name)
{
    put8(a, OP_NAME);
    aml_path(a, name);
}

void aml_int(struct aml *a, uint64_t v)
{
    if (v <= 1) {
        put8(a, v ? OP_ONE : OP_ZERO);
    } else if (v <= UINT8_MAX) {
        put8(a, OP_BYTE);
        put8(a, (uint8_t)v);
    } else if (v <= UINT16_MAX) {
        put8(a, OP_WORD);
        put16(a, (uint16_t)v);
    } else if (v <= UINT32_MAX) {
        put8(a, OP_DWORD);
        put32(a, (uint32_t)v);
    } else {
        put8(a, OP_QWORD);
        put64(a, v);
    }
}

void aml_string(struct aml *a, const char *text)
{
    put8(a, OP_STRING);
    put(a, text, strlen(text) + 1);
}

void aml_buffer(struct aml *a, const void *data, size_t len)
{
    put8(a, OP_BUFFER);
    open_block(a, 0);
    aml_int(a, len);
    put(a, data, len);
    aml_end(a);
}

/* Three letters of five bits each, then four hexadecimal digits; most significant byte first. */
void aml_eisa_id(struct aml *a, const char *id)
{
    uint32_t letters = 0;
    for (unsigned i = 0; i < 3; i++)
        letters = letters << 5 | (uint32_t)(id[i] - '@');
    uint32_t v = letters << 16 | (uint32_t)g_ascii_strtoull(id + 3, NULL, 16);
    put8(a, OP_DWORD);
    put32(a, __builtin_bswap32(v));
}

void aml_op(struct aml *a, uint8_t op)
{
    put8(a, op);
}

void aml_arg(struct aml *a, unsigned n)
{
    put8(a, (uint8_t)(OP_ARG0 + n));
}

void aml_local(struct aml *a, unsigned n)
{
    put8(a, (uint8_t)(OP_LOCAL0 + n));
}

void aml_region(struct aml *a, const char *name, unsigned space, uint64_t off, uint64_t len)
{
    put8(a, OP_EXT);
    put8(a, EXT_REGION);
    aml_path(a, name);
    put8(a, (uint8_t)space);
    aml_int(a, off);
    aml_int(a, len);
}

void aml_field_unit(struct aml *a, const char *name, unsigned bits)
{
    if (name)
        put_segment(a, name, strlen(name));
    else
        put8(a, 0);
    put8(a, (uint8_t)bits);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
    aml_name(a, name);
    aml_int(a, v);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
    aml_name(a, name);
    aml_string(a, text);
}

void aml_name_eisa(struct aml *a, const char *name, const char *id)
{
    aml_name(a, name);
    aml_eisa_id(a, id);
}

/* --- resource descriptors --- */

#define SMALL_IRQ 0x22
#define SMALL_IO 0x47
#define LARGE_MEMORY32 0x86
#define LARGE_DWORD 0x87
#define LARGE_WORD 0x88
#define LARGE_IRQ 0x89
#define LARGE_QWORD 0x8a
#define WINDOW_MEMORY 0
#define WINDOW_IO 1
#define WINDOW_BUS 2
#define WINDOW_FIXED 0x0c /* both ends stand; a producer */
#define MEMORY_WRITABLE 0x01
#define MEMORY_CACHEABLE 0x02
#define IO_ENTIRE_RANGE 0x03

void aml_res_irq(struct aml *a, uint8_t irq)
{
    put8(a, SMALL_IRQ);
    put16(a, (uint16_t)(1u << irq));
}

void aml_res_gsi(struct aml *a, uint32_t gsi, bool level, bool shared)
{
    put8(a, LARGE_IRQ);
    put16(a, 6);
    put8(a, (uint8_t)(1 | (level ? 0 : 2) | (shared ? 8 : 0))); /* consumer, active high */
    put8(a, 1);
    put32(a, gsi);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
    put8(a, SMALL_IO);
    put8(a, 1); /* decodes 16 bits */
    put16(a, base);
    put16(a, base);
    put8(a, 1);
    put8(a, len);
}

void aml_res_memory(struct aml *a, uint32_t base, uint32_t len)
{
    put8(a, LARGE_MEMORY32);
    put16(a, 9);
    put8(a, 1);
    put32(a, base);
    put32(a, len);
}

static void window_head(struct aml *a, uint8_t tag, uint16_t len, uint8_t kind, uint8_t flags)
{
    put8(a, tag);
    put16(a, len);
    put8(a, kind);
    put8(a, WINDOW_FIXED);
    put8(a, flags);
}

void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last)
{
    const uint16_t v[5] = { 0, first, last, 0, (uint16_t)(last - first + 1) };
    window_head(a, LARGE_WORD, 3 + sizeof(v), WINDOW_BUS, 0);
    put(a, v, sizeof(v));
}

void aml_res_io_window(struct aml *a, uint32_t base, uint32_t end)
{
    const uint32_t v[5] = { 0, base, end - 1, 0, end - base };
    window_head(a, LARGE_DWORD, 3 + sizeof(v), WINDOW_IO, IO_ENTIRE_RANGE);
    put(a, v, sizeof(v));
}

void aml_res_mem_window(struct aml *a, uint32_t base, uint64_t end)
{
    const uint32_t v[5] = { 0, base, (uint32_t)(end - 1), 0, (uint32_t)(end - base) };
    window_head(a, LARGE_DWORD, 3 + sizeof(v), WINDOW_MEMORY, MEMORY_WRITABLE);
    put(a, v, sizeof(v));
}

void aml_res_mem64_window(struct aml *a, uint64_t base, uint64_t end)
{
    const uint64_t v[5] = { 0, base, end - 1, 0, end - base };
    window_head(a, LARGE_QWORD, 3 + sizeof(v), WINDOW_MEMORY, MEMORY_WRITABLE | MEMORY_CACHEABLE);
    put(a, v, sizeof(v));
}
