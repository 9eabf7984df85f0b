/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The text that describes a VMDK disk: identity, parent, and a line for each extent.
 *
 * Spec      "Virtual Disk Format 5.0", The Descriptor File.
 * Thread    Any.
 * Trust     Text is hostile: VMDK_DESCRIPTOR_MAX bytes, VMDK_EXTENTS_MAX extents, IMAGE_SIZE_MAX in
 * all.
 */
#include "image/vmdk/vmdk.h"

#include <string.h>

/* The words of an extent's line, and what they mean to us; a row without a `known` word is refused.
 */
static const struct extent_type {
    const char *word;
    enum vmdk_extent_kind kind;
} extent_types[] = {
    {"FLAT", VMDK_FLAT},     {"VMFS", VMDK_FLAT},       {"ZERO", VMDK_ZERO},
    {"SPARSE", VMDK_SPARSE}, {"VMFSSPARSE", VMDK_COWD},
};

static void line_clear(gpointer data)
{
    struct vmdk_extent_line *l = data;
    g_free(l->type);
    g_free(l->filename);
}

void vmdk_descriptor_clear(struct vmdk_descriptor *d)
{
    g_free(d->create_type);
    g_free(d->parent_hint);
    if (d->extents)
        g_array_unref(d->extents);
    *d = (struct vmdk_descriptor){0};
}

/* "key = value" with or without quotes: the value, unquoted; NULL: another line. Caller frees. */
static char *value_of(const char *line, const char *key)
{
    size_t n = strlen(key);
    line += strspn(line, " \t");
    if (g_ascii_strncasecmp(line, key, n) != 0)
        return NULL;
    line += n + strspn(line + n, " \t");
    if (*line != '=')
        return NULL;
    char *value = g_strstrip(g_strdup(line + 1));
    size_t len = strlen(value);
    if (len >= 2 && value[0] == '"' && value[len - 1] == '"') {
        memmove(value, value + 1, len - 2);
        value[len - 2] = 0;
    }
    return value;
}

static bool is_extent_line(const char *line)
{
    static const char *const access[] = {"RW ",  "RDONLY ",  "NOACCESS ",
                                         "RW\t", "RDONLY\t", "NOACCESS\t"};
    line += strspn(line, " \t");
    for (unsigned i = 0; i < ARRAY_COUNT(access); i++)
        if (g_str_has_prefix(line, access[i]))
            return true;
    return false;
}

/* A word without spaces; *line moves behind it. Caller frees. */
static char *next_word(const char **line)
{
    *line += strspn(*line, " \t");
    size_t n = strcspn(*line, " \t");
    char *word = g_strndup(*line, n);
    *line += n;
    return word;
}

static bool next_number(const char **line, uint64_t *ret)
{
    g_autofree char *word = next_word(line);
    return g_ascii_string_to_unsigned(word, 10, 0, IMAGE_SIZE_MAX / VMDK_SECTOR, ret, NULL);
}

static const struct extent_type *find_type(const char *word)
{
    for (unsigned i = 0; i < ARRAY_COUNT(extent_types); i++)
        if (strcmp(extent_types[i].word, word) == 0)
            return &extent_types[i];
    return NULL;
}

static char *next_quoted(const char **line)
{
    *line += strspn(*line, " \t");
    const char *end = **line == '"' ? strchr(*line + 1, '"') : NULL;
    if (!end || end == *line + 1)
        return NULL;
    char *text = g_strndup(*line + 1, (size_t)(end - *line - 1));
    *line = end + 1;
    return text;
}

/* ACCESS SECTORS TYPE ["FILE" [OFFSET]] */
static bool parse_extent(const char *line, struct vmdk_extent_line *ret)
{
    const char *at = line;
    g_autofree char *access = next_word(&at);
    if (strcmp(access, "NOACCESS") == 0 || !next_number(&at, &ret->sectors) || !ret->sectors)
        return false;
    ret->writable = strcmp(access, "RW") == 0;
    ret->type = next_word(&at);
    const struct extent_type *type = find_type(ret->type);
    if (!type)
        return false;
    ret->kind = type->kind;
    if (ret->kind == VMDK_ZERO)
        return true;
    ret->filename = next_quoted(&at);
    if (!ret->filename)
        return false;
    at += strspn(at, " \t");
    return ret->kind != VMDK_FLAT || !*at || next_number(&at, &ret->offset_sectors);
}

static bool add_extent(const char *line, const char *name, uint64_t *total,
                       struct vmdk_descriptor *d, GError **error)
{
    struct vmdk_extent_line l = {0};
    bool ok = parse_extent(line, &l);
    *total += l.sectors;
    if (!ok) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                    "%s: the descriptor's extent line '%.100s' is broken or of an unsupported type",
                    name, line);
    } else if (d->extents->len >= VMDK_EXTENTS_MAX) {
        ok = ruche_error(error, RUCHE_ERR_INVALID, "%s: the descriptor has over %u extents", name,
                         (unsigned)VMDK_EXTENTS_MAX);
    } else if (*total > IMAGE_SIZE_MAX / VMDK_SECTOR) {
        ok = ruche_error(error, RUCHE_ERR_INVALID,
                         "%s: the extents have over %" G_GUINT64_FORMAT " bytes", name,
                         (guint64)IMAGE_SIZE_MAX);
    }
    if (ok)
        g_array_append_val(d->extents, l);
    else
        line_clear(&l);
    return ok;
}

static void take_id(const char *line, const char *key, uint32_t *ret)
{
    g_autofree char *value = value_of(line, key);
    guint64 id;
    if (value && g_ascii_string_to_unsigned(value, 16, 0, UINT32_MAX, &id, NULL))
        *ret = (uint32_t)id;
}

static void take_text(const char *line, const char *key, char **ret)
{
    char *value = value_of(line, key);
    if (value) {
        g_free(*ret);
        *ret = value;
    }
}

bool vmdk_descriptor_parse(const char *text, size_t len, const char *name,
                           struct vmdk_descriptor *ret, GError **error)
{
    g_autofree char *copy = g_strndup(text, len);
    g_auto(GStrv) lines = g_strsplit_set(copy, "\r\n", -1);
    struct vmdk_descriptor d = {
        .cid = VMDK_NO_PARENT,
        .parent_cid = VMDK_NO_PARENT,
        .extents = g_array_new(FALSE, FALSE, sizeof(struct vmdk_extent_line)),
    };
    g_array_set_clear_func(d.extents, line_clear);
    uint64_t total = 0;
    for (char **l = lines; *l; l++) {
        const char *line = *l + strspn(*l, " \t");
        if (is_extent_line(line) && !add_extent(line, name, &total, &d, error)) {
            vmdk_descriptor_clear(&d);
            return false;
        }
        take_id(line, "CID", &d.cid);
        take_id(line, "parentCID", &d.parent_cid);
        take_text(line, "createType", &d.create_type);
        take_text(line, "parentFileNameHint", &d.parent_hint);
    }
    if (!d.create_type) {
        vmdk_descriptor_clear(&d);
        return ruche_error(error, RUCHE_ERR_INVALID, "%s: the descriptor has no createType", name);
    }
    *ret = d;
    return true;
}

/* Comments and empty lines, then a line "version=1" (2, 3). */
bool vmdk_descriptor_probe(const uint8_t *head, size_t len)
{
    g_autofree char *copy = g_strndup((const char *)head, MIN(len, 4096));
    g_auto(GStrv) lines = g_strsplit_set(copy, "\r\n", -1);
    for (char **l = lines; *l; l++) {
        const char *line = *l + strspn(*l, " \t");
        if (!*line || *line == '#')
            continue;
        g_autofree char *version = value_of(line, "version");
        return version && version[0] >= '1' && version[0] <= '3' && !version[1];
    }
    return false;
}

char *vmdk_descriptor_set(const char *text, const char *key, const char *value)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    GString *out = g_string_new(NULL);
    bool done = !value;
    for (char **l = lines; *l; l++) {
        g_autofree char *old = value_of(*l, key), *type = value_of(*l, "createType");
        if (!old)
            g_string_append(out, *l);
        else if (!done)
            g_string_append_printf(out, "%s=%s", key, value);
        if ((!old || !done) && l[1])
            g_string_append_c(out, '\n');
        done = done || old;
        /* A new key stands behind the type, unless it comes yet. */
        if (type && !done && !strstr(text, key)) {
            g_string_append_printf(out, "%s=%s\n", key, value);
            done = true;
        }
    }
    return g_string_free(out, FALSE);
}

char *vmdk_descriptor_set_extent(const char *text, unsigned index, uint64_t sectors)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **l = lines; *l; l++) {
        if (!is_extent_line(*l) || index--)
            continue;
        const char *at = *l;
        g_autofree char *access = next_word(&at);
        g_free(next_word(&at)); /* the old size */
        char *line = g_strdup_printf("%s %" G_GUINT64_FORMAT "%s", access, (guint64)sectors, at);
        g_free(*l);
        *l = line;
        break;
    }
    return g_strjoinv("\n", lines);
}
