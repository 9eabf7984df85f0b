/* SPDX-License-Identifier: GPL-2.0-or-later */
/* OVA archives: what disks they have, whether these are what the manifest says, and opening them.
 *
 * Spec      DSP0243, Manifest.
 * Fiber     As the header says.
 * Trust     The archive is hostile. A disk sees only its place in it and may bring in no further
 * file.
 */
#include "image/ova/internal.h"

#include <gnutls/crypto.h>
#include <string.h>

#define PIECE_BYTES (1 * MIB)

struct ova {
    char *filename;
    struct graph *graph; /* borrowed */
    struct node *archive;
    GArray *members; /* struct tar_member */
    GArray *found;   /* struct ovf_disk */
    GArray *disks;   /* struct ova_disk, whose texts are of `found` and `digests` */
    const struct tar_member *description;
    GHashTable *digests; /* member name: "SHA256" NUL hex */
};

/* ---- digests ---- */

static const struct digest {
    const char *name;
    gnutls_digest_algorithm_t algorithm;
    unsigned bytes;
} digests[] = {
    {"SHA1", GNUTLS_DIG_SHA1, 20},
    {"SHA256", GNUTLS_DIG_SHA256, 32},
    {"SHA384", GNUTLS_DIG_SHA384, 48},
    {"SHA512", GNUTLS_DIG_SHA512, 64},
};

static const struct digest *find_digest(const char *name)
{
    for (unsigned i = 0; i < ARRAY_COUNT(digests); i++)
        if (g_ascii_strcasecmp(digests[i].name, name) == 0)
            return &digests[i];
    return NULL;
}

struct entry {
    const struct digest *digest;
    char hex[129];
};

/* "SHA256(disk.vmdk)= 0123..." */
static bool parse_manifest_line(struct ova *o, const char *line)
{
    const char *open = strchr(line, '('), *close = strrchr(line, ')');
    const char *equals = close ? strchr(close, '=') : NULL;
    if (!open || !close || close < open || !equals)
        return false;
    g_autofree char *algorithm = g_strstrip(g_strndup(line, (gsize)(open - line)));
    g_autofree char *name = g_strndup(open + 1, (gsize)(close - open - 1));
    g_autofree char *hex = g_ascii_strdown(equals + 1, -1);
    g_strstrip(hex);
    struct entry e = {.digest = find_digest(algorithm)};
    if (!e.digest || strlen(hex) != 2 * e.digest->bytes ||
        strspn(hex, "0123456789abcdef") != strlen(hex))
        return false;
    g_strlcpy(e.hex, hex, sizeof(e.hex));
    g_hash_table_replace(o->digests, g_steal_pointer(&name), g_memdup2(&e, sizeof(e)));
    return true;
}

static char *read_member(struct ova *o, const struct tar_member *m, uint64_t limit, GError **error)
{
    if (m->size > limit) {
        ruche_error(error, RUCHE_ERR_INVALID,
                    "%s: '%s' has %" G_GUINT64_FORMAT " bytes; the limit is %" G_GUINT64_FORMAT,
                    o->filename, m->name, m->size, limit);
        return NULL;
    }
    char *text = g_malloc0(m->size + 1);
    int r = node_pread(o->archive, m->offset, text, m->size);
    if (r >= 0)
        return text;
    ruche_error_errno(error, -r, "%s: '%s' cannot be read", o->filename, m->name);
    g_free(text);
    return NULL;
}

/* The description's name with another ending. */
static bool read_manifest(struct ova *o, GError **error)
{
    const char *ovf = o->description->name;
    g_autofree char *name = g_strdup_printf("%.*smf", (int)(strlen(ovf) - 3), ovf);
    const struct tar_member *m = tar_find(o->members, name);
    g_autofree char *text = m ? read_member(o, m, OVA_MANIFEST_MAX, error) : NULL;
    if (!text)
        return !m;
    g_auto(GStrv) lines = g_strsplit_set(text, "\r\n", -1);
    for (char **l = lines; *l; l++)
        if (*g_strstrip(*l) && !parse_manifest_line(o, *l))
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "%s: the line '%.100s' of '%s' is no digest", o->filename, *l, name);
    return true;
}

/* ---- opening ---- */

/* Words of URIs and ends of names, and our drivers; the first that fits. */
static const struct {
    const char *word, *driver;
} formats[] = {
    {"vmdk", "vmdk"}, {"vhdx", "vhdx"},   {"vhd", "vpc"},    {"virtual-hard-disk", "vpc"},
    {"vdi", "vdi"},   {"qcow2", "qcow2"}, {"qcow", "qcow2"}, {"/raw", "raw"},
    {".img", "raw"},  {".raw", "raw"},
};

static const char *format_of(const char *text)
{
    g_autofree char *lower = g_ascii_strdown(text ? text : "", -1);
    for (unsigned i = 0; i < ARRAY_COUNT(formats); i++)
        if (strstr(lower, formats[i].word))
            return formats[i].driver;
    return NULL;
}

static void list_disks(struct ova *o)
{
    for (unsigned i = 0; i < o->found->len; i++) {
        const struct ovf_disk *f = &g_array_index(o->found, struct ovf_disk, i);
        const struct tar_member *m = tar_find(o->members, f->href);
        const struct entry *e = g_hash_table_lookup(o->digests, f->href);
        const char *format = format_of(f->format_uri);
        struct ova_disk d = {
            .name = f->href,
            .disk_id = f->disk_id ? f->disk_id : "",
            .format = format ? format : format_of(f->href),
            .format_uri = f->format_uri ? f->format_uri : "",
            .capacity_bytes = f->capacity_bytes,
            .offset = m ? m->offset : 0,
            .size_bytes = m ? m->size : 0,
            .digest_name = e ? e->digest->name : NULL,
            .digest = e ? e->hex : NULL,
        };
        g_array_append_val(o->disks, d);
    }
}

static bool read_all(struct ova *o, GError **error)
{
    o->archive = node_open_name(o->graph, o->filename, "raw", NULL, 0, error);
    o->members = o->archive ? tar_list(o->archive, o->filename, error) : NULL;
    if (!o->members)
        return false;
    for (unsigned i = 0; i < o->members->len && !o->description; i++) {
        const struct tar_member *m = &g_array_index(o->members, struct tar_member, i);
        if (g_str_has_suffix(m->name, ".ovf"))
            o->description = m;
    }
    if (!o->description)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: it is no OVA: no member is a description (.ovf)", o->filename);
    g_autofree char *xml = read_member(o, o->description, OVA_DESCRIPTION_MAX, error);
    o->found = xml ? ovf_parse(xml, o->description->size, o->filename, error) : NULL;
    if (!o->found || !read_manifest(o, error))
        return false;
    list_disks(o);
    return true;
}

struct open_call {
    struct ova *o;
    bool ok;
    GError **error;
};

static int open_call(void *opaque)
{
    struct open_call *c = opaque;
    c->ok = read_all(c->o, c->error);
    return 0;
}

struct ova *ova_open(struct graph *g, const char *filename, GError **error)
{
    struct ova *o = g_new0(struct ova, 1);
    o->filename = g_strdup(filename);
    o->graph = g;
    o->disks = g_array_new(FALSE, FALSE, sizeof(struct ova_disk));
    o->digests = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    struct open_call c = {.o = o, .error = error};
    context_run(graph_context(g), open_call, &c);
    if (c.ok)
        return o;
    ova_close(o);
    return NULL;
}

void ova_close(struct ova *o)
{
    if (!o)
        return;
    node_unref(o->archive);
    if (o->members)
        g_array_unref(o->members);
    if (o->found)
        g_array_unref(o->found);
    g_array_unref(o->disks);
    g_hash_table_unref(o->digests);
    g_free(o->filename);
    g_free(o);
}

bool ova_probe(const uint8_t *head, size_t len)
{
    if (len < 512 || memcmp(head + 257, "ustar", 5) != 0)
        return false;
    size_t n = strnlen((const char *)head, 100);
    return n > 4 && memcmp(head + n - 4, ".ovf", 4) == 0;
}

const char *ova_description_name(const struct ova *o)
{
    return o->description->name;
}

const struct ova_disk *ova_disks(const struct ova *o, unsigned *ret_count)
{
    *ret_count = o->disks->len;
    return (const struct ova_disk *)(const void *)o->disks->data;
}

int ova_find_disk(const struct ova *o, const char *which, GError **error)
{
    guint64 number;
    GString *names = g_string_new(NULL);
    int found = -1;
    for (unsigned i = 0; i < o->disks->len && found < 0; i++) {
        const struct ova_disk *d = &g_array_index(o->disks, struct ova_disk, i);
        if (strcmp(d->name, which) == 0 || strcmp(d->disk_id, which) == 0)
            found = (int)i;
        if (names->len < 400)
            g_string_append_printf(names, "%s'%s'", i ? ", " : "", d->name);
    }
    if (found < 0 && o->disks->len &&
        g_ascii_string_to_unsigned(which, 10, 0, o->disks->len - 1, &number, NULL))
        found = (int)number;
    if (found < 0)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: there is no disk '%s'; it has %s", o->filename,
                    which, names->len ? names->str : "none");
    g_string_free(names, TRUE);
    return found;
}

/* ---- verifying ---- */

struct verify_call {
    struct ova *o;
    const char *name;
    uint64_t offset, size;
    const struct entry *entry;
    const struct ova_progress *progress;
    GError **error;
    bool ok;
};

static bool hash_member(struct verify_call *c, gnutls_hash_hd_t h)
{
    g_autofree uint8_t *piece = g_malloc(PIECE_BYTES);
    for (uint64_t done = 0, n; done < c->size; done += n) {
        n = min_u64(PIECE_BYTES, c->size - done);
        int r = node_pread(c->o->archive, c->offset + done, piece, n);
        if (r < 0)
            return ruche_error_errno(c->error, -r, "%s: '%s' cannot be read", c->o->filename,
                                     c->name);
        gnutls_hash(h, piece, n);
        if (c->progress && c->progress->fn &&
            !c->progress->fn(done + n, c->size, c->progress->opaque))
            return ruche_error(c->error, RUCHE_ERR_STATE, "%s: verifying '%s' was stopped",
                               c->o->filename, c->name);
    }
    return true;
}

static int verify_call(void *opaque)
{
    struct verify_call *c = opaque;
    gnutls_hash_hd_t h;
    uint8_t sum[64];
    char hex[129] = "";
    if (gnutls_hash_init(&h, c->entry->digest->algorithm) < 0) {
        ruche_error(c->error, RUCHE_ERR_UNSUPPORTED, "%s: the system has no %s", c->o->filename,
                    c->entry->digest->name);
        return 0;
    }
    bool ok = hash_member(c, h);
    gnutls_hash_deinit(h, sum);
    for (unsigned i = 0; i < c->entry->digest->bytes; i++)
        g_snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    c->ok =
        ok && (strcmp(hex, c->entry->hex) == 0 ||
               ruche_error(c->error, RUCHE_ERR_INVALID,
                           "%s: '%s' is not what the manifest says: its %s is %s, not %s",
                           c->o->filename, c->name, c->entry->digest->name, hex, c->entry->hex));
    return 0;
}

bool ova_verify(struct ova *o, int index, const struct ova_progress *p, GError **error)
{
    const struct ova_disk *d = index < 0 ? NULL : &g_array_index(o->disks, struct ova_disk, index);
    struct verify_call c = {
        .o = o,
        .progress = p,
        .error = error,
        .name = d ? d->name : o->description->name,
        .offset = d ? d->offset : o->description->offset,
        .size = d ? d->size_bytes : o->description->size,
    };
    c.entry = g_hash_table_lookup(o->digests, c.name);
    if (!c.entry)
        return true;
    context_run(graph_context(o->graph), verify_call, &c);
    return c.ok;
}

/* ---- disks ---- */

static bool check_disk(const struct ova *o, unsigned index, const char *format, GError **error)
{
    const struct ovf_disk *f = &g_array_index(o->found, struct ovf_disk, index);
    const char *why = NULL;
    if (f->compression && *f->compression && strcmp(f->compression, "identity") != 0)
        why = "is compressed as a whole, which is not supported";
    else if (f->chunked)
        why = "is split into chunks, which is not supported";
    else if (f->parent && *f->parent)
        why = "is the child of another disk, which is not supported";
    else if (!tar_find(o->members, f->href))
        why = "is not in the archive";
    else if (!format)
        why = "has a format that is not known; name it";
    return !why ||
           ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: disk '%s' %s", o->filename, f->href, why);
}

struct node *ova_open_disk(struct ova *o, unsigned index, const char *format, GError **error)
{
    const struct ova_disk *d = &g_array_index(o->disks, struct ova_disk, index);
    format = format ? format : d->format;
    if (!check_disk(o, index, format, error))
        return NULL;
    JsonObject *place = json_object_new();
    json_object_set_string_member(place, "driver", "raw");
    json_object_set_int_member(place, "offset", (gint64)d->offset);
    json_object_set_int_member(place, "size", (gint64)d->size_bytes);
    json_object_set_string_member(place, "file", node_name(o->archive));
    g_autoptr(JsonObject) options = json_object_new();
    json_object_set_string_member(options, "driver", format);
    json_object_set_object_member(options, "file", place);
    json_object_set_boolean_member(options, "read-only", TRUE);
    return node_open(o->graph, options, NODE_ALONE | NODE_NO_BACKING, error);
}
