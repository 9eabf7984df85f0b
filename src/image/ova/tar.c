/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of contents of a tar archive.
 *
 * Spec      POSIX.1-2017, pax Interchange Format (ustar, path and size records); GNU tar's long
 *           names and binary sizes.
 * Fiber     All of it.
 * Trust     The archive is hostile: OVA_MEMBERS_MAX members, names of OVA_NAME_MAX bytes,
 *           checksums verified.
 */
#include "image/ova/internal.h"

#include <inttypes.h>
#include <string.h>

enum { BLOCK = 512, HEADERS_MAX = 4 * OVA_MEMBERS_MAX, RECORDS_MAX = 64 * 1024 };

struct header {
    char name[257];
    uint64_t size;
    char type;
};

struct list {
    struct node *file;
    const char *archive;
    uint64_t at;
    GArray *members;
    char *next_name; /* of an extension in front of the header; NULL: none */
    bool has_next_size;
    uint64_t next_size;
};

static void member_clear(gpointer data)
{
    g_free(((struct tar_member *)data)->name);
}

/* Octal digits up to a space or NUL, or (highest bit set) a big-endian number. */
static bool parse_number(const uint8_t *field, size_t len, uint64_t *ret)
{
    uint64_t v = 0;
    size_t i = 0;
    if (field[0] & 0x80) {
        v = field[0] & 0x7f;
        for (i = 1; i < len; i++) {
            if (v >> 55)
                return false;
            v = v << 8 | field[i];
        }
        *ret = v;
        return v <= IMAGE_SIZE_MAX;
    }
    while (i < len && field[i] == ' ')
        i++;
    for (; i < len && field[i] >= '0' && field[i] <= '7'; i++)
        v = v << 3 | (uint64_t)(field[i] - '0');
    *ret = v;
    return i == len || !field[i] || field[i] == ' ';
}

static bool checksum_fits(const uint8_t *block)
{
    uint64_t want, sum = 0;
    for (unsigned i = 0; i < BLOCK; i++)
        sum += i >= 148 && i < 156 ? ' ' : block[i];
    return parse_number(block + 148, 8, &want) && want == sum;
}

static bool parse_header(const uint8_t *block, struct header *ret)
{
    if (!checksum_fits(block) || !parse_number(block + 124, 12, &ret->size))
        return false;
    size_t prefix =
        memcmp(block + 257, "ustar\0", 6) == 0 ? strnlen((const char *)block + 345, 155) : 0;
    size_t name = strnlen((const char *)block, 100);
    char *to = ret->name;
    memcpy(to, block + 345, prefix);
    if (prefix)
        to[prefix++] = '/';
    memcpy(to + prefix, block, name);
    to[prefix + name] = 0;
    ret->type = (char)block[156];
    return true;
}

/* The contents of an extension header. Caller frees; NULL with *error. */
static char *read_extension(struct list *l, const struct header *h, GError **error)
{
    if (h->size > RECORDS_MAX) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "%s: an extension header of %" PRIu64 " bytes; the limit is %d", l->archive,
                    h->size, RECORDS_MAX);
        return NULL;
    }
    char *text = g_malloc0(h->size + 1);
    int r = node_pread(l->file, l->at, text, h->size);
    if (r >= 0)
        return text;
    ruche_error_errno(error, -r, "%s: cannot be read", l->archive);
    g_free(text);
    return NULL;
}

/* "LENGTH KEY=VALUE\n", one behind the other. */
static bool parse_pax(struct list *l, const char *text, size_t len)
{
    while (len) {
        char *end;
        guint64 n = g_ascii_strtoull(text, &end, 10);
        if (*end != ' ' || n > len || n < (guint64)(end - text) + 3 || text[n - 1] != '\n')
            return false;
        g_autofree char *record = g_strndup(end + 1, n - (guint64)(end - text) - 2);
        if (g_str_has_prefix(record, "path=")) {
            g_free(l->next_name);
            l->next_name = g_strdup(record + 5);
        } else if (g_str_has_prefix(record, "size=")) {
            l->has_next_size =
                g_ascii_string_to_unsigned(record + 5, 10, 0, IMAGE_SIZE_MAX, &l->next_size, NULL);
            if (!l->has_next_size)
                return false;
        }
        text += n;
        len -= n;
    }
    return true;
}

static bool take_extension(struct list *l, const struct header *h, GError **error)
{
    g_autofree char *text = read_extension(l, h, error);
    if (!text)
        return false;
    if (h->type == 'L') {
        g_free(l->next_name);
        l->next_name = g_steal_pointer(&text);
        return true;
    }
    return parse_pax(l, text, h->size) ||
           ruche_error(error, RUCHE_ERR_INVALID,
                       "%s: the extension header at %" PRIu64 " is broken", l->archive,
                       l->at - BLOCK);
}

static bool take_member(struct list *l, const struct header *h, GError **error)
{
    struct tar_member m = {.offset = l->at, .size = h->size};
    m.name = l->next_name ? g_steal_pointer(&l->next_name) : g_strdup(h->name);
    const char *bad = NULL;
    if (strlen(m.name) > OVA_NAME_MAX)
        bad = "has a name that is too long";
    else if (tar_find(l->members, m.name))
        bad = "is there twice";
    else if (l->members->len >= OVA_MEMBERS_MAX)
        bad = "is one member too many";
    if (bad) {
        ruche_error(error, RUCHE_ERR_INVALID, "%s: member '%.200s' %s", l->archive, m.name, bad);
        g_free(m.name);
        return false;
    }
    g_array_append_val(l->members, m);
    return true;
}

/* One header and what belongs to it; *ret_more false: the end. */
static bool next(struct list *l, bool *ret_more, GError **error)
{
    uint8_t block[BLOCK];
    struct header h;
    *ret_more = false;
    if (!range_fits(l->at, BLOCK, node_size(l->file)))
        return true; /* some writers leave out the two empty blocks */
    int r = node_pread(l->file, l->at, block, BLOCK);
    if (r < 0)
        return ruche_error_errno(error, -r, "%s: cannot be read", l->archive);
    if (bytes_are_zero(block, BLOCK))
        return true;
    if (!parse_header(block, &h))
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the tar header at %" PRIu64 " is broken",
                           l->archive, l->at);
    l->at += BLOCK;
    bool extension = h.type == 'L' || h.type == 'x';
    if (!extension && l->has_next_size)
        h.size = l->next_size;
    if (!range_fits(l->at, h.size, node_size(l->file)))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: '%s' of %" PRIu64 " bytes at %" PRIu64
                           " reaches behind the archive's end, %" PRIu64,
                           l->archive, h.name, h.size, l->at, node_size(l->file));
    bool regular = h.type == '0' || h.type == 0 || h.type == '7';
    bool ok = extension ? take_extension(l, &h, error) : !regular || take_member(l, &h, error);
    if (!extension) {
        g_clear_pointer(&l->next_name, g_free);
        l->has_next_size = false;
    }
    l->at += align_up(h.size, BLOCK);
    *ret_more = ok;
    return ok;
}

GArray *tar_list(struct node *file, const char *archive, GError **error)
{
    struct list l = {.file = file, .archive = archive};
    l.members = g_array_new(FALSE, FALSE, sizeof(struct tar_member));
    g_array_set_clear_func(l.members, member_clear);
    bool more = true, ok = true;
    for (unsigned i = 0; ok && more; i++) {
        ok = next(&l, &more, error);
        if (i > HEADERS_MAX && ok)
            ok = ruche_error(error, RUCHE_ERR_INVALID, "%s: more than %d tar headers", archive,
                             HEADERS_MAX);
    }
    g_free(l.next_name);
    if (ok)
        return l.members;
    g_array_unref(l.members);
    return NULL;
}

const struct tar_member *tar_find(const GArray *members, const char *name)
{
    for (unsigned i = 0; i < members->len; i++) {
        const struct tar_member *m = &g_array_index(members, struct tar_member, i);
        if (strcmp(m->name, name) == 0)
            return m;
    }
    return NULL;
}
