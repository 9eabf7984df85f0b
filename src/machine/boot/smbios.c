/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SMBIOS structures: each has its fields, then its strings; field values name strings by number. */
#include "machine/boot/smbios.h"

#include <stdio.h>

#define MAX_STRINGS 32
#define DIMM_MAX (16 * GIB)
#define HANDLE(type, n) ((uint16_t)((type) << 8 | (n)))
#define MAX_SOCKETS 64
#define UNKNOWN 2

struct builder {
    GByteArray *out;
    const struct machine_config *config;
    uint8_t type; /* of the current structure */
    size_t start; /* of the current structure */
    const char *strings[MAX_STRINGS];
    unsigned string_count;
};

static void put(struct builder *b, const void *data, size_t len)
{
    g_byte_array_append(b->out, data, (guint)len);
}

static void put8(struct builder *b, uint8_t v)
{
    put(b, &v, 1);
}

static void put16(struct builder *b, uint16_t v)
{
    put(b, &v, 2);
}

static void put32(struct builder *b, uint32_t v)
{
    put(b, &v, 4);
}

static void put64(struct builder *b, uint64_t v)
{
    put(b, &v, 8);
}

/* The number of a string that follows the structure. */
static void put_string(struct builder *b, const char *text)
{
    if (text)
        b->strings[b->string_count++] = text;
    put8(b, text ? (uint8_t)b->string_count : 0);
}

/* What -smbios says for a field of the current structure, or `def`. */
static void put_field(struct builder *b, const char *key, const char *def)
{
    for (const struct smbios_field *f = b->config->smbios_fields; f; f = f->next)
        if (f->type == b->type && !strcmp(f->key, key))
            def = f->value;
    put_string(b, def && *def ? def : NULL);
}

static bool is_asked_for(const struct builder *b, uint8_t type)
{
    const struct smbios_field *f = b->config->smbios_fields;
    while (f && f->type != type)
        f = f->next;
    return f != NULL;
}

static void begin(struct builder *b, uint8_t type, uint16_t handle)
{
    b->type = type;
    b->start = b->out->len;
    b->string_count = 0;
    put8(b, type);
    put8(b, 0);
    put16(b, handle);
}

static void end(struct builder *b)
{
    b->out->data[b->start + 1] = (uint8_t)(b->out->len - b->start);
    for (unsigned i = 0; i < b->string_count; i++)
        put(b, b->strings[i], strlen(b->strings[i]) + 1);
    put(b, "\0", b->string_count ? 1 : 2);
}

static void firmware(struct builder *b)
{
    begin(b, 0, HANDLE(0, 0));
    put_field(b, "vendor", "Ruche");
    put_field(b, "version", RUCHE_VERSION);
    put16(b, 0xe000);
    put_field(b, "date", "01/01/2026");
    put8(b, 0);          /* ROM: 64 KiB */
    put64(b, 1u << 3);   /* characteristics: not supported */
    put8(b, 0x01);       /* ACPI */
    put8(b, 0x1c);       /* virtual machine, UEFI no, targeted content */
    put8(b, 0);
    put8(b, 1);
    put8(b, 0xff);
    put8(b, 0xff);
    put16(b, 0);
    end(b);
}

static void system_info(struct builder *b, const struct machine *m)
{
    begin(b, 1, HANDLE(1, 0));
    put_field(b, "manufacturer", "Ruche");
    put_field(b, "product", m->board->summary);
    put_field(b, "version", m->board->name);
    put_field(b, "serial", NULL);
    /* The first three fields of the UUID are little-endian here. */
    const uint8_t *u = m->config.uuid;
    const uint8_t uuid[16] = { u[3], u[2], u[1], u[0], u[5], u[4], u[7], u[6],
                               u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15] };
    put(b, uuid, sizeof(uuid));
    put8(b, 6); /* woken by the power switch */
    put_field(b, "sku", m->config.name);
    put_field(b, "family", "Virtual Machine");
    end(b);
}

/* Only when it was asked for. */
static void base_board(struct builder *b)
{
    begin(b, 2, HANDLE(2, 0));
    put_field(b, "manufacturer", "Ruche");
    put_field(b, "product", NULL);
    put_field(b, "version", NULL);
    put_field(b, "serial", NULL);
    put_field(b, "asset", NULL);
    put8(b, 0x01); /* hosting board */
    put_field(b, "location", NULL);
    put16(b, HANDLE(3, 0));
    put8(b, 0x0a); /* motherboard */
    put8(b, 0);
    end(b);
}

/* Texts of the user's own, which guests read as credentials and configuration. */
static void oem_strings(struct builder *b)
{
    unsigned count = 0;
    begin(b, 11, HANDLE(11, 0));
    for (const struct smbios_field *f = b->config->smbios_fields; f && count < MAX_STRINGS; f = f->next)
        if (f->type == 11 && *f->value)
            b->strings[count++] = f->value;
    b->string_count = count;
    put8(b, (uint8_t)count);
    end(b);
}

static void chassis(struct builder *b)
{
    begin(b, 3, HANDLE(3, 0));
    put_field(b, "manufacturer", "Ruche");
    put8(b, 1); /* other */
    put_field(b, "version", NULL);
    put_field(b, "serial", NULL);
    put_field(b, "asset", NULL);
    for (unsigned i = 0; i < 3; i++)
        put8(b, 3); /* states: safe */
    put8(b, UNKNOWN);
    put32(b, 0);
    put8(b, 0);
    put8(b, 1);
    put8(b, 0);
    put8(b, 0);
    put_field(b, "sku", NULL);
    end(b);
}

static void processor(struct builder *b, const struct machine *m, unsigned n)
{
    const struct cpu_topology *t = &m->config.topology;
    char socket[16];
    snprintf(socket, sizeof(socket), "CPU %u", n);
    unsigned cores = t->cores * t->dies, threads = cores * t->threads;
    begin(b, 4, HANDLE(4, n));
    put_string(b, socket);
    put8(b, 3); /* central processor */
    put8(b, 1); /* family: other */
    put_string(b, "Ruche");
    put64(b, 0);
    put_string(b, m->config.cpu_model ? m->config.cpu_model : "max");
    put8(b, 0);
    put16(b, 0);
    put16(b, 2000);
    put16(b, 2000);
    put8(b, 0x41); /* populated, enabled */
    put8(b, 1);
    put16(b, 0xffff);
    put16(b, 0xffff);
    put16(b, 0xffff);
    put_string(b, NULL);
    put_string(b, NULL);
    put_string(b, NULL);
    put8(b, (uint8_t)min_u64(cores, 0xff));
    put8(b, (uint8_t)min_u64(cores, 0xff));
    put8(b, (uint8_t)min_u64(threads, 0xff));
    put16(b, 0x04); /* 64 bits */
    put16(b, 1);
    put16(b, (uint16_t)cores);
    put16(b, (uint16_t)cores);
    put16(b, (uint16_t)threads);
    end(b);
}

static void memory_array(struct builder *b, const struct machine *m, unsigned dimms)
{
    begin(b, 16, HANDLE(16, 0));
    put8(b, 1); /* other */
    put8(b, 3); /* system memory */
    put8(b, 6); /* multi-bit error correction */
    put32(b, 0x80000000u);
    put16(b, 0xfffe);
    put16(b, (uint16_t)dimms);
    put64(b, m->config.ram_bytes);
    end(b);
}

static void memory_device(struct builder *b, unsigned n, uint64_t bytes)
{
    char slot[16];
    snprintf(slot, sizeof(slot), "DIMM %u", n);
    bool extended = bytes / MIB >= 0x7fff;
    begin(b, 17, HANDLE(17, n));
    put16(b, HANDLE(16, 0));
    put16(b, 0xfffe);
    put16(b, 0xffff); /* widths unknown */
    put16(b, 0xffff);
    put16(b, extended ? 0x7fff : (uint16_t)(bytes / MIB));
    put8(b, 9); /* DIMM */
    put8(b, 0);
    put_string(b, slot);
    put_string(b, NULL);
    put8(b, 7); /* RAM */
    put16(b, 1u << 1);
    put16(b, 0);
    put_string(b, "Ruche");
    for (unsigned i = 0; i < 3; i++)
        put_string(b, NULL);
    put8(b, 0);
    put32(b, extended ? (uint32_t)(bytes / MIB) : 0);
    put16(b, 0);
    for (unsigned i = 0; i < 3; i++)
        put16(b, 0); /* voltages */
    end(b);
}

/* Addresses in KiB, and in full where those have no room. */
static void memory_mapping(struct builder *b, unsigned n, uint64_t base, uint64_t bytes)
{
    bool wide = (base + bytes) / KIB > UINT32_MAX;
    begin(b, 19, HANDLE(19, n));
    put32(b, wide ? UINT32_MAX : (uint32_t)(base / KIB));
    put32(b, wide ? UINT32_MAX : (uint32_t)((base + bytes) / KIB - 1));
    put16(b, HANDLE(16, 0));
    put8(b, 1);
    put64(b, wide ? base : 0);
    put64(b, wide ? base + bytes - 1 : 0);
    end(b);
}

static void memory(struct builder *b, const struct machine *m)
{
    uint64_t ram = m->config.ram_bytes;
    /* At most 64 devices, so that the tables keep their place whatever the RAM's size. */
    uint64_t dimm = DIMM_MAX;
    while (ram / dimm >= 64)
        dimm *= 2;
    unsigned dimms = (unsigned)((ram + dimm - 1) / dimm);
    memory_array(b, m, dimms);
    for (unsigned i = 0; i < dimms; i++)
        memory_device(b, i, min_u64(dimm, ram - i * dimm));
    memory_mapping(b, 0, 0, m->ram_below_4g);
    if (m->ram_above_4g)
        memory_mapping(b, 1, 4 * GIB, m->ram_above_4g);
}

static void entry_point(uint8_t *e, uint64_t base, uint32_t table_len)
{
    uint64_t table = base + 32;
    uint8_t sum = 0;
    memset(e, 0, 32);
    memcpy(e, "_SM3_", 5);
    e[6] = 24; /* length */
    e[7] = 3;
    e[8] = 3;
    e[10] = 1;
    memcpy(e + 12, &table_len, 4);
    memcpy(e + 16, &table, 8);
    for (unsigned i = 0; i < 24; i++)
        sum += e[i];
    e[5] = (uint8_t)-sum;
}

GByteArray *smbios_build(const struct machine *m, uint64_t base)
{
    struct builder b = { .out = g_byte_array_new(), .config = &m->config };
    g_byte_array_set_size(b.out, 32);
    firmware(&b);
    system_info(&b, m);
    if (is_asked_for(&b, 2))
        base_board(&b);
    chassis(&b);
    for (unsigned i = 0; i < m->config.topology.sockets && i < MAX_SOCKETS; i++)
        processor(&b, m, i);
    if (is_asked_for(&b, 11))
        oem_strings(&b);
    memory(&b, m);
    begin(&b, 32, HANDLE(32, 0));
    put(&b, "\0\0\0\0\0\0", 6);
    put8(&b, 0); /* no error in the last boot */
    end(&b);
    begin(&b, 127, HANDLE(127, 0));
    end(&b);
    entry_point(b.out->data, base, b.out->len - 32);
    return b.out;
}
