/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ELF executables: headers, segments, the note that names the PVH entry. */
#include "machine/boot/elf.h"

#include "base/cursor.h"

#include <inttypes.h>

#define EI_CLASS 4
#define EI_DATA 5
#define CLASS_32 1
#define CLASS_64 2
#define DATA_LSB 1
#define TYPE_EXEC 2
#define TYPE_DYN 3
#define PT_LOAD 1
#define PT_NOTE 4
#define NOTES_MAX (1 * MIB)
#define NOTE_HEADER 12
#define XEN_PHYS32_ENTRY 18

static const uint8_t magic[4] = { 0x7f, 'E', 'L', 'F' };

bool elf_probe(const uint8_t *probe)
{
    return !memcmp(probe, magic, sizeof(magic));
}

/* An address, offset or size of the file's class. */
static uint64_t cur_word(struct cur *c, bool is_64)
{
    return is_64 ? cur_le64(c) : cur_le32(c);
}

static struct elf_segment parse_segment(struct cur *c, bool is_64)
{
    struct elf_segment s = { .type = cur_le32(c) };
    if (is_64)
        cur_le32(c); /* flags */
    s.off = cur_word(c, is_64);
    s.vaddr = cur_word(c, is_64);
    s.paddr = cur_word(c, is_64);
    s.file_size = cur_word(c, is_64);
    s.mem_size = cur_word(c, is_64);
    if (!is_64)
        cur_le32(c); /* flags */
    s.align = cur_word(c, is_64);
    return s;
}

static bool bad(const struct boot_file *f, GError **error, const char *what)
{
    return ruche_error(error, RUCHE_ERR_INVALID, "-kernel: '%s' is not an ELF executable that can be booted: %s",
                       f->name, what);
}

bool elf_parse(const struct boot_file *f, struct elf_image *ret, GError **error)
{
    uint8_t head[64] = { 0 };
    struct elf_image e = { 0 };
    if (!boot_file_read(f, 0, head, min_u64(sizeof(head), f->size), error))
        return false;
    struct cur c = cur_of(head, sizeof(head));
    cur_take(&c, 16);
    e.is_64 = head[EI_CLASS] == CLASS_64;
    if ((head[EI_CLASS] != CLASS_32 && !e.is_64) || head[EI_DATA] != DATA_LSB)
        return bad(f, error, "neither 32 nor 64 bits, or not little-endian");
    uint16_t type = cur_le16(&c);
    e.machine = cur_le16(&c);
    cur_le32(&c); /* version */
    e.entry = cur_word(&c, e.is_64);
    uint64_t table = cur_word(&c, e.is_64);
    cur_word(&c, e.is_64); /* sections */
    cur_le32(&c);          /* flags */
    cur_le16(&c);          /* header size */
    uint16_t entry_size = cur_le16(&c), count = cur_le16(&c);
    if ((type != TYPE_EXEC && type != TYPE_DYN) || entry_size != (e.is_64 ? 56 : 32))
        return bad(f, error, "no program headers of the usual kind");
    if (!count || count > ELF_MAX_SEGMENTS)
        return ruche_error(error, RUCHE_ERR_INVALID, "-kernel: '%s' has %u ELF segments; 1 to %u can be loaded",
                           f->name, count, ELF_MAX_SEGMENTS);
    uint8_t rows[ELF_MAX_SEGMENTS * 56];
    if (!boot_file_read(f, table, rows, (uint64_t)count * entry_size, error))
        return false;
    c = cur_of(rows, (size_t)count * entry_size);
    for (; e.count < count; e.count++)
        e.segment[e.count] = parse_segment(&c, e.is_64);
    *ret = e;
    return true;
}

bool elf_load(struct machine *m, const struct boot_file *f, const struct elf_image *e, uint64_t *ret_end,
              GError **error)
{
    uint64_t end = 0;
    for (unsigned i = 0; i < e->count; i++) {
        const struct elf_segment *s = &e->segment[i];
        if (s->type != PT_LOAD || !s->mem_size)
            continue;
        if (s->file_size > s->mem_size || s->paddr + s->mem_size < s->paddr)
            return bad(f, error, "a segment is larger in the file than in memory, or wraps");
        if (s->paddr < BOOT_HIGH)
            return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                               "-kernel: '%s' wants to be loaded at 0x%" PRIx64 "; only addresses from 0x%x on are "
                               "free",
                               f->name, s->paddr, BOOT_HIGH);
        if (!boot_file_load(m, f, s->off, s->paddr, s->file_size, error) ||
            !boot_clear(m, s->paddr + s->file_size, s->mem_size - s->file_size, f, error))
            return false;
        if (s->paddr < 4 * GIB)
            end = max_u64(end, s->paddr + s->mem_size);
    }
    if (!end)
        return bad(f, error, "it has nothing to load");
    *ret_end = end;
    return true;
}

uint64_t elf_entry_physical(const struct elf_image *e)
{
    for (unsigned i = 0; i < e->count; i++) {
        const struct elf_segment *s = &e->segment[i];
        if (s->type == PT_LOAD && e->entry >= s->vaddr && e->entry - s->vaddr < s->mem_size)
            return e->entry - s->vaddr + s->paddr;
    }
    return e->entry;
}

/* What the notes of a segment are read from. */
struct notes {
    struct cur c;
    size_t size, align;
};

/* A note's name or descriptor, then the padding behind it, which the last of a segment may lack. NULL: it does not
 * fit, and the cursor is bad. */
static const uint8_t *take_padded(struct notes *n, uint32_t size)
{
    const uint8_t *p = cur_take(&n->c, size);
    size_t off = n->size - n->c.left;
    cur_take(&n->c, min_u64(align_up(off, n->align) - off, n->c.left));
    return p;
}

static bool find_note(struct notes *n, uint32_t *ret_entry)
{
    while (!n->c.bad && n->c.left >= NOTE_HEADER) {
        uint32_t name_size = cur_le32(&n->c), desc_size = cur_le32(&n->c), type = cur_le32(&n->c);
        const uint8_t *name = take_padded(n, name_size);
        const uint8_t *desc = take_padded(n, desc_size);
        if (!desc || type != XEN_PHYS32_ENTRY || name_size != 4 || memcmp(name, "Xen", 4) || desc_size < 4)
            continue;
        memcpy(ret_entry, desc, 4);
        return true;
    }
    return false;
}

bool elf_pvh_entry(const struct boot_file *f, const struct elf_image *e, uint32_t *ret_entry, GError **error)
{
    bool damaged = false;
    for (unsigned i = 0; i < e->count; i++) {
        const struct elf_segment *s = &e->segment[i];
        if (s->type != PT_NOTE || s->file_size > NOTES_MAX)
            continue;
        g_autofree uint8_t *notes = g_try_malloc(s->file_size + 1);
        if (!notes)
            return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for the notes of '%s'", f->name);
        if (!boot_file_read(f, s->off, notes, s->file_size, error))
            return false;
        struct notes n = { cur_of(notes, s->file_size), s->file_size, s->align == 8 ? 8 : 4 };
        if (find_note(&n, ret_entry))
            return true;
        damaged |= n.c.bad;
    }
    return bad(f, error, damaged ? "no Xen note with the PVH entry, and a note is longer than its segment"
                                 : "neither a multiboot header nor a Xen note with the PVH entry");
}
