/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: the guest's memory into files, and its size.
 *
 * Trust     Page tables are the guest's: the walk reads each entry once and ends after four steps.
 */
#include "base/fd.h"
#include "vmm/qmp_util.h"

#include <fcntl.h>

#define CHUNK (64 * KIB)
#define PAGE_BYTES 4096ULL
#define CR0_PG (1ULL << 31)
#define CR4_PSE (1ULL << 4)
#define CR4_PAE (1ULL << 5)
#define CR4_LA57 (1ULL << 12)
#define EFER_LMA (1ULL << 10)
#define PTE_PRESENT 1ULL
#define PTE_LARGE (1ULL << 7)
#define PTE_ADDR 0x000ffffffffff000ULL

/* One level: `bits` of the address above `shift` choose an entry of `entry_bytes`. */
static bool walk_step(struct mem_space *s, uint64_t table, uint64_t linear, unsigned shift,
                      unsigned bits, unsigned entry_bytes, uint64_t *ret_entry)
{
    uint64_t index = linear >> shift & ((1ULL << bits) - 1);
    *ret_entry = 0;
    return mem_read(s, table + index * entry_bytes, ret_entry, entry_bytes) == 0 &&
           (*ret_entry & PTE_PRESENT);
}

static bool walk_long(struct mem_space *s, const struct cpu_arch_state *c, uint64_t linear,
                      uint64_t *ret_gpa)
{
    bool lma = c->efer & EFER_LMA;
    uint64_t entry = lma ? c->cr3 : c->cr3 & 0xffffffe0;
    for (int shift = !lma ? 30 : c->cr4 & CR4_LA57 ? 48 : 39; shift >= 12; shift -= 9) {
        unsigned bits = !lma && shift == 30 ? 2 : 9;
        uint64_t table = lma || shift != 30 ? entry & PTE_ADDR : entry;
        if (!walk_step(s, table, linear, shift, bits, 8, &entry))
            return false;
        if (shift == 12 || ((entry & PTE_LARGE) && (shift == 21 || (lma && shift == 30)))) {
            uint64_t mask = (1ULL << shift) - 1;
            *ret_gpa = (entry & PTE_ADDR & ~mask) | (linear & mask);
            return true;
        }
    }
    return false;
}

static bool walk_32(struct mem_space *s, const struct cpu_arch_state *c, uint64_t linear,
                    uint64_t *ret_gpa)
{
    uint64_t entry;
    if (!walk_step(s, c->cr3 & 0xfffff000, linear, 22, 10, 4, &entry))
        return false;
    if ((entry & PTE_LARGE) && (c->cr4 & CR4_PSE)) {
        *ret_gpa = (entry & 0xffc00000) | (entry >> 13 & 0xff) << 32 | (linear & 0x3fffff);
        return true;
    }
    if (!walk_step(s, entry & 0xfffff000, linear, 12, 10, 4, &entry))
        return false;
    *ret_gpa = (entry & 0xfffff000) | (linear & 0xfff);
    return true;
}

static bool translate(struct mem_space *s, const struct cpu_arch_state *c, uint64_t linear,
                      uint64_t *ret_gpa)
{
    if (!(c->cr0 & CR0_PG)) {
        *ret_gpa = linear & 0xffffffff;
        return true;
    }
    return c->cr4 & CR4_PAE ? walk_long(s, c, linear, ret_gpa)
                            : walk_32(s, c, linear & 0xffffffff, ret_gpa);
}

/* Copies a piece that may not cross a page for linear addresses. `c` NULL: physical. */
static bool read_piece(struct mem_space *s, const struct cpu_arch_state *c, uint64_t addr,
                       void *buf, uint64_t len, GError **error)
{
    uint64_t gpa = addr;
    if ((!c || translate(s, c, addr, &gpa)) && mem_read(s, gpa, buf, len) == 0)
        return true;
    return ruche_error(error, RUCHE_ERR_INVALID, "there is no memory at 0x%" G_GINT64_MODIFIER "x",
                       addr);
}

static bool write_all(int fd, const uint8_t *buf, size_t len)
{
    while (len) {
        ssize_t n = write(fd, buf, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        buf += n;
        len -= n;
    }
    return true;
}

static bool save(struct machine *m, const struct cpu_arch_state *c, JsonObject *args,
                 GError **error)
{
    gint64 addr = json_object_get_int_member(args, "val"),
           size = json_object_get_int_member(args, "size");
    const char *path = json_object_get_string_member(args, "filename");
    if (size < 0 || (uint64_t)size > m->config.ram_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'size' must be from 0 to the RAM's %" G_GUINT64_FORMAT,
                           m->config.ram_bytes);
    autofd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return ruche_error_errno(error, errno, "'%s'", path);
    g_autofree uint8_t *buf = g_malloc(CHUNK);
    uint64_t step = c ? PAGE_BYTES : CHUNK;
    for (uint64_t at = (uint64_t)addr, end = at + (uint64_t)size; at != end;) {
        uint64_t len = min_u64(end - at, step - (at & (step - 1)));
        if (!read_piece(m->memory, c, at, buf, len, error))
            return false;
        if (!write_all(fd, buf, len))
            return ruche_error_errno(error, errno, "'%s'", path);
        at += len;
    }
    return true;
}

static JsonNode *memsave(void *opaque, JsonObject *args, GError **error)
{
    struct machine *m = ((struct vmm *)opaque)->machine;
    gint64 index = json_object_get_int_member_with_default(args, "cpu-index", 0);
    if (index < 0 || index >= m->vcpu_count || !m->vcpus[index]->present) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "there is no CPU %" G_GINT64_FORMAT "; this machine has %u", index,
                    m->vcpu_count);
        return NULL;
    }
    bool was_running = machine_is_running(m);
    struct cpu_arch_state *state = g_aligned_alloc0(1, sizeof(*state), 64);
    machine_stop(m);
    if (m->accel->ops->vcpu_get_state(m->vcpus[index], state))
        save(m, state, args, error);
    else
        ruche_error(error, RUCHE_ERR_INTERNAL, "the CPU's state cannot be read");
    if (was_running)
        machine_run(m);
    g_aligned_free(state);
    return NULL;
}
static const struct qmp_arg memsave_args[] = {
    { "val", QMP_INT, false, "First address, as the CPU sees it" },
    { "size", QMP_INT, false, "Bytes" },
    { "filename", QMP_STRING, false, "The file to write" },
    { "cpu-index", QMP_INT, true, "Whose address space; 0" },
    { 0 },
};
static const struct qmp_command memsave_cmd = {
    .name = "memsave",
    .summary = "Virtual memory into a file",
    .args = memsave_args,
    .call = memsave,
};
QMP_COMMAND(memsave_cmd);

static JsonNode *pmemsave(void *opaque, JsonObject *args, GError **error)
{
    save(((struct vmm *)opaque)->machine, NULL, args, error);
    return NULL;
}
static const struct qmp_arg pmemsave_args[] = {
    { "val", QMP_INT, false, "First address, physical" },
    { "size", QMP_INT, false, "Bytes" },
    { "filename", QMP_STRING, false, "The file to write" },
    { 0 },
};
static const struct qmp_command pmemsave_cmd = {
    .name = "pmemsave",
    .summary = "Physical memory into a file",
    .args = pmemsave_args,
    .call = pmemsave,
};
QMP_COMMAND(pmemsave_cmd);

static JsonNode *query_memory_size(void *opaque, JsonObject *args, GError **error)
{
    JsonObject *o = json_object_new();
    json_object_set_int_member(o, "base-memory", ((struct vmm *)opaque)->config.ram_bytes);
    json_object_set_int_member(o, "plugged-memory", 0);
    return qmp_object(o);
}
static const struct qmp_command query_memory_size_cmd = {
    .name = "query-memory-size-summary", .summary = "RAM in bytes", .call = query_memory_size,
};
QMP_COMMAND(query_memory_size_cmd);
